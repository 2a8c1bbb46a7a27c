"""Authlib's AsyncOAuth2Client: an app that keeps a secret, through the life of its tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from authlib.integrations.base_client import OAuthError
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.end_to_end.demo import CALLBACK, CONFIDENTIAL, AsyncOAuth2Client, Demo, FiveMinutes
from tests.end_to_end.person import Person, parameters_of
from tests.end_to_end.running import bearer
from tests.end_to_end.test_backend_client import a_key

SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
People = Callable[[str], Person]


@dataclass
class App:
    """Authlib's client and what it found out about the server."""

    oauth: AsyncOAuth2Client
    server: dict[str, Any]
    fhir: str

    async def authorize(self, person: Person, record: str, **more: str) -> str:
        """Fetch a token by way of the pages; return the verifier."""
        verifier = secrets.token_urlsafe(48)
        address, state = self.oauth.create_authorization_url(
            self.server["authorization_endpoint"], aud=self.fhir, code_verifier=verifier, **more
        )
        self.callback = await asyncio.to_thread(
            person.visit, address, back_to=CALLBACK, record=record
        )
        assert parameters_of(self.callback)["iss"] == self.server["issuer"]
        await self.oauth.fetch_token(
            self.server["token_endpoint"],
            authorization_response=self.callback,
            state=state,
            code_verifier=verifier,
        )
        return verifier

    @property
    def token(self) -> dict[str, Any]:
        return dict(self.oauth.token)

    async def introspected(self, token: str) -> dict[str, Any]:
        found = await self.oauth.introspect_token(
            self.server["introspection_endpoint"], token=token
        )
        return dict(found.json())


@pytest.fixture
async def app(demo: Demo) -> AsyncIterator[App]:
    oauth = AsyncOAuth2Client(
        CONFIDENTIAL,
        demo.client(CONFIDENTIAL)["client_secret"],
        redirect_uri=CALLBACK,
        scope=SCOPE,
        code_challenge_method="S256",
    )
    async with oauth:
        yield App(oauth, await demo.discovered(), demo.fhir)


async def test_the_token_is_for_the_record_that_was_chosen(
    app: App, person: People, demo: Demo
) -> None:
    await app.authorize(person("mara"), "Patient/juno")
    assert app.token["patient"] == "juno"
    assert app.token["token_type"] == "Bearer"
    assert set(app.token["scope"].split()) == set(SCOPE.split())
    assert (await app.oauth.get(f"{demo.fhir}/Patient/juno")).json()["id"] == "juno"
    assert (await app.oauth.get(f"{demo.fhir}/Patient/mara")).status_code == 404


async def test_the_id_token_says_who_acts(app: App, person: People, demo: Demo) -> None:
    """For a record that is not one's own, ``fhirUser`` is the RelatedPerson, and can be read."""
    await app.authorize(person("mara"), "Patient/juno", nonce="a nonce")
    keys = KeySet.import_key_set((await app.oauth.get(app.server["jwks_uri"])).json())
    claims = jwt.decode(app.token["id_token"], keys, algorithms=["RS256"]).claims
    assert claims["iss"] == app.server["issuer"] == demo.server.base
    assert claims["aud"] in (CONFIDENTIAL, [CONFIDENTIAL])
    assert claims["nonce"] == "a nonce"
    assert claims["fhirUser"].startswith(f"{demo.fhir}/RelatedPerson/")
    assert (await app.oauth.get(claims["fhirUser"])).status_code == 200


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
async def test_an_app_with_a_key_pushes_its_request(
    demo: Demo, person: People, tmp_path: Path, alg: str
) -> None:
    """RFC 9126: what is asked for goes by the back channel, from a client that is known."""
    key = a_key(alg)
    server, client_id = await demo.discovered(), f"pushing-app-{alg.lower()}"
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    demo.command(
        *("client", "add", "Pushing app", "--client-id", client_id, "--type", "confidential"),
        *("--redirect-uri", CALLBACK, "--scope", SCOPE, "--jwks", str(jwks)),
        *("--auth-method", "private_key_jwt", "--require-pushed-authorization-requests"),
    )
    async with AsyncOAuth2Client(
        client_id,
        key,
        redirect_uri=CALLBACK,
        scope=SCOPE,
        code_challenge_method="S256",
        token_endpoint_auth_method="private_key_jwt",
    ) as oauth:
        oauth.register_client_auth_method(FiveMinutes(server["token_endpoint"], alg=alg, key=key))
        verifier = secrets.token_urlsafe(48)
        address, state = oauth.create_authorization_url(
            server["authorization_endpoint"], aud=demo.fhir, code_verifier=verifier
        )
        pushed = await oauth.post(
            server["pushed_authorization_request_endpoint"],
            data=parameters_of(address),
            auth=oauth.client_auth("private_key_jwt"),
        )
        assert pushed.status_code == 201, pushed.text
        told = {"client_id": client_id, "request_uri": pushed.json()["request_uri"]}
        callback = await asyncio.to_thread(
            person("mara").visit,
            f"{server['authorization_endpoint']}?{urlencode(told)}",
            back_to=CALLBACK,
            record="Patient/mara",
        )
        await oauth.fetch_token(
            server["token_endpoint"],
            authorization_response=callback,
            state=state,
            code_verifier=verifier,
        )
        assert oauth.token["patient"] == "mara"
        assert (await oauth.get(f"{demo.fhir}/Patient/mara")).status_code == 200
        await oauth.refresh_token(server["token_endpoint"])
        assert (await oauth.get(f"{demo.fhir}/Patient/mara")).status_code == 200


async def test_nobody_pushes_for_another_client(demo: Demo) -> None:
    server = await demo.discovered()
    key = a_key("ES384")  # that nobody registered
    async with AsyncOAuth2Client(
        CONFIDENTIAL, key, redirect_uri=CALLBACK, scope=SCOPE, code_challenge_method="S256"
    ) as oauth:
        address, _ = oauth.create_authorization_url(
            server["authorization_endpoint"], aud=demo.fhir, code_verifier="v" * 43
        )
        method = FiveMinutes(server["token_endpoint"], alg="ES384", key=key)
        oauth.register_client_auth_method(method)
        for auth in (oauth.client_auth("private_key_jwt"), (CONFIDENTIAL, "guessed")):
            pushed = await oauth.post(
                server["pushed_authorization_request_endpoint"],
                data=parameters_of(address),
                auth=auth,
            )
            assert (pushed.status_code, pushed.json()["error"]) == (401, "invalid_client")


async def test_each_refresh_gives_new_tokens_for_the_same_record(
    app: App, person: People, demo: Demo
) -> None:
    await app.authorize(person("mara"), "Patient/mara")
    first = app.token
    for _ in range(3):
        before = app.token
        await app.oauth.refresh_token(app.server["token_endpoint"])
        assert app.token["access_token"] != before["access_token"]
        assert app.token["refresh_token"] != before["refresh_token"]
        assert (app.token["scope"], app.token["patient"]) == (first["scope"], "mara")
        assert (await app.oauth.get(f"{demo.fhir}/Patient/mara")).status_code == 200


async def test_a_refresh_may_ask_for_less_and_never_for_more(app: App, person: People) -> None:
    await app.authorize(person("mara"), "Patient/mara")
    endpoint = app.server["token_endpoint"]
    await app.oauth.refresh_token(endpoint, scope="patient/Patient.r")
    assert app.token["scope"] == "patient/Patient.r"
    with pytest.raises(OAuthError) as refused:
        await app.oauth.refresh_token(endpoint, scope="patient/Condition.r")
    assert refused.value.error == "invalid_scope"


async def test_introspection_tells_the_client_what_its_token_is(app: App, person: People) -> None:
    await app.authorize(person("mara"), "Patient/mara")
    told = await app.introspected(app.token["access_token"])
    assert told["active"] is True
    assert (told["client_id"], told["patient"]) == (CONFIDENTIAL, "mara")
    assert set(told["scope"].split()) == set(app.token["scope"].split())
    (payload,) = app.token["id_token"].split(".")[1:2]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (told["iss"], told["sub"]) == (claims["iss"], claims["sub"])
    assert (await app.introspected("x" * 43)) == {"active": False}


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_revoking_one_token_ends_both(
    app: App, person: People, demo: Demo, kind: str
) -> None:
    await app.authorize(person("mara"), "Patient/mara")
    access, refresh = app.token["access_token"], app.token["refresh_token"]
    answer = await app.oauth.revoke_token(app.server["revocation_endpoint"], token=app.token[kind])
    assert answer.status_code == 200
    assert (await app.introspected(access)) == {"active": False}
    async with httpx.AsyncClient() as http:
        read = await http.get(f"{demo.fhir}/Patient/mara", headers=bearer(access))
    assert read.status_code == 401
    with pytest.raises(OAuthError) as refused:
        await app.oauth.refresh_token(app.server["token_endpoint"], refresh_token=refresh)
    assert refused.value.error == "invalid_grant"


async def test_a_code_without_its_verifier_buys_nothing(
    app: App, person: People, demo: Demo
) -> None:
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "response_type": "code",
        "client_id": CONFIDENTIAL,
        "redirect_uri": CALLBACK,
        "scope": SCOPE,
        "state": "state",
        "aud": demo.fhir,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    address = f"{app.server['authorization_endpoint']}?{urlencode(query)}"
    callback = await asyncio.to_thread(
        person("mara").visit, address, back_to=CALLBACK, record="Patient/mara"
    )
    code = parameters_of(callback)["code"]
    endpoint = app.server["token_endpoint"]
    for wrong in ({}, {"code_verifier": secrets.token_urlsafe(48)}):
        with pytest.raises(OAuthError):
            await app.oauth.fetch_token(endpoint, code=code, **wrong)
    await app.oauth.fetch_token(endpoint, code=code, code_verifier=verifier)
    assert app.token["patient"] == "mara"


async def test_who_sends_no_challenge_gets_no_code(app: App, person: People, demo: Demo) -> None:
    """PKCE is asked of every client, also of one with a secret."""
    oauth = AsyncOAuth2Client(CONFIDENTIAL, redirect_uri=CALLBACK, scope=SCOPE)
    address, state = oauth.create_authorization_url(
        app.server["authorization_endpoint"], aud=demo.fhir
    )
    await oauth.aclose()
    callback = await asyncio.to_thread(person("mara").visit, address, back_to=CALLBACK)
    told = parameters_of(callback)
    assert (told["error"], told["state"]) == ("invalid_request", state)
    assert "code" not in told
