from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from joserfc import jwt

from fhir_portal.records import RecordTransaction
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.revocation import disable_account, revoke_where
from fhir_portal.smart.token import token_hash
from tests.smart.world import (
    BASE,
    START,
    World,
    assert_oauth_error,
    childs_record,
    own_record,
    published_keys,
)


async def test_a_code_buys_tokens_for_the_chosen_record(world: World) -> None:
    app = await world.public_app()
    response = await app.exchange(await app.code())
    body = response.json()
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 900
    assert body["patient"] == "mara"
    assert body["need_patient_banner"] is True
    assert set(body["scope"].split()) == {
        "launch/patient",
        "openid",
        "fhirUser",
        "offline_access",
        "patient/Patient.rs",
        "patient/Observation.rs",
    }
    assert await world.is_alive(body["access_token"])


async def test_the_id_token_names_person_app_and_sign_in(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens(nonce="n-0S6")
    keys = published_keys(world.keys.jwks())
    token = jwt.decode(body["id_token"], keys, algorithms=["RS256"])
    assert token.header["alg"] == "RS256"
    assert token.header["kid"] == world.keys.jwks()["keys"][0]["kid"]
    at_hash = token.claims.pop("at_hash")
    assert isinstance(at_hash, str)
    assert token.claims == {
        "iss": BASE,
        "sub": world.mara.key,
        "aud": "app",
        "iat": int(START),
        "exp": int(START) + 3600,
        "auth_time": int(START),
        "nonce": "n-0S6",
        "fhirUser": f"{BASE}/fhir/Patient/mara",
        "patient": "mara",
    }


async def test_a_proxy_is_the_related_person_of_the_record(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.public_app()
    body = await app.tokens()
    keys = published_keys(world.keys.jwks())
    claims = jwt.decode(body["id_token"], keys, algorithms=["RS256"]).claims
    assert body["patient"] == "pip"
    assert claims["fhirUser"] == f"{BASE}/fhir/RelatedPerson/mara-for-pip"
    family = await world.only_family()
    assert (family.grant, family.practice) == ("Consent/pip-to-mara", "family")


async def test_without_openid_there_is_no_id_token(world: World) -> None:
    app = await world.public_app()
    assert "id_token" not in await app.tokens(scope="launch/patient patient/Patient.rs")


async def test_without_offline_access_there_is_no_refresh_token(world: World) -> None:
    app = await world.public_app()
    assert "refresh_token" not in await app.tokens(scope="launch/patient patient/Patient.rs")


async def test_tokens_are_hashed_at_rest(world: World) -> None:
    app = await world.confidential_app()
    code = await app.code()
    body = (await app.exchange(code)).json()
    stored = str(await world.rows())
    assert token_hash(body["access_token"]) in stored
    for secret in (code, body["access_token"], body["refresh_token"], app.secret):
        assert secret
        assert secret not in stored


@pytest.mark.parametrize("scheme", ["basic", "post", "basic and client_id"])
async def test_a_secret_comes_by_basic_or_in_the_body(world: World, scheme: str) -> None:
    app = await world.confidential_app()
    code = await app.code()
    ways: dict[str, dict[str, Any]] = {
        "basic": {},
        "post": {"client_id": app.client_id, "client_secret": app.secret},
        "basic and client_id": {"client_id": app.client_id},
    }
    assert (await app.exchange(code, **ways[scheme])).status_code == 200


async def test_a_confidential_app_may_sign_an_assertion(world: World) -> None:
    key = (await world.backend("signer")).key
    assert key is not None
    app = await world.confidential_app(
        "signing-app",
        auth_method="private_key_jwt",
        jwks={"keys": [{**key.as_dict(private=False), "kid": "signing-app-key"}]},
    )
    app.key = key
    assert (await app.tokens())["patient"] == "mara"


async def test_a_second_use_is_refused_and_ends_what_the_first_gave(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    body = (await app.exchange(code)).json()
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert not await world.is_alive(body["access_token"])
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")
    assert (await world.only_family()).ended_because == "code-replayed"


async def test_a_replay_is_known_long_after_the_code_expired(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    await app.exchange(code)
    world.clock.advance(3600)
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert (await world.only_family()).ended is not None


async def test_an_expired_code_buys_nothing(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    before = await world.rows()
    world.clock.advance(60)
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert await world.rows() == before


async def test_an_unknown_code_buys_nothing(world: World) -> None:
    app = await world.confidential_app()
    before = await world.rows()
    assert_oauth_error(await app.exchange("BAD_CODE"), "invalid_grant")
    assert await world.rows() == before


async def test_a_missing_code_is_an_invalid_request(world: World) -> None:
    app = await world.public_app()
    assert_oauth_error(
        await app.post("/oauth/token", {"grant_type": "authorization_code"}), "invalid_request"
    )


@pytest.mark.requirement("attacks", "code injection")
async def test_another_clients_code_buys_nothing_and_stays_good(world: World) -> None:
    app = await world.public_app()
    thief = await world.public_app("thief")
    code = await app.code()
    before = await world.rows()
    assert_oauth_error(await thief.exchange(code), "invalid_grant")
    assert await world.rows() == before
    assert (await app.exchange(code)).status_code == 200


async def test_another_clients_replay_does_not_end_the_family(world: World) -> None:
    app = await world.public_app()
    thief = await world.public_app("thief")
    code = await app.code()
    body = (await app.exchange(code)).json()
    assert_oauth_error(await thief.exchange(code), "invalid_grant")
    assert await world.is_alive(body["access_token"])


@pytest.mark.parametrize(
    ("verifier", "error"),
    [
        (None, "invalid_request"),
        ("", "invalid_request"),
        ("w" * 64, "invalid_grant"),
        ("the challenge itself", "invalid_grant"),
        ("v" * 63 + "é", "invalid_request"),
    ],
)
@pytest.mark.requirement("attacks", "code injection")
async def test_without_the_right_verifier_there_is_nothing(
    world: World, verifier: str | None, error: str
) -> None:
    app = await world.public_app()
    code = await app.code()
    before = await world.rows()
    tried = app.challenge if verifier == "the challenge itself" else verifier
    assert_oauth_error(await app.exchange(code, code_verifier=tried), error)
    assert await world.rows() == before


@pytest.mark.parametrize(
    "uri", [None, "https://app.example/other", "https://app.example/callback/"]
)
async def test_the_redirect_uri_must_be_the_same_again(world: World, uri: str | None) -> None:
    app = await world.public_app()
    code = await app.code()
    before = await world.rows()
    assert_oauth_error(await app.exchange(code, redirect_uri=uri), "invalid_grant")
    assert await world.rows() == before


async def test_a_wrong_secret_is_refused_before_the_code_is_looked_at(world: World) -> None:
    app = await world.confidential_app()
    code = await app.code()
    before = await world.rows()
    app.secret = "not the secret"
    response = await app.exchange(code)
    assert_oauth_error(response, "invalid_client", 401)
    assert response.headers["www-authenticate"].startswith("Basic ")
    assert await world.rows() == before


async def test_a_confidential_app_cannot_come_without_its_secret(world: World) -> None:
    app = await world.confidential_app()
    code = await app.code()
    app.secret = None
    response = await app.exchange(code, client_id=app.client_id)
    assert_oauth_error(response, "invalid_client", 401)
    assert "www-authenticate" not in response.headers


async def test_a_public_app_has_no_secret_to_guess(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    response = await app.exchange(code, client_id=app.client_id, client_secret="anything")
    assert_oauth_error(response, "invalid_client", 401)


async def test_an_unknown_client_is_refused(world: World) -> None:
    app = await world.confidential_app()
    code = await app.code()
    response = await app.exchange(code, client_id="BAD_CLIENT_ID", client_secret=app.secret)
    assert_oauth_error(response, "invalid_client", 401)


async def test_a_disabled_account_gets_nothing_for_its_code(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    await disable_account(world.store, world.mara.key, now=world.clock())
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert (await world.rows())["token-family"] == []


async def test_a_record_taken_away_meanwhile_is_not_given(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    world.directory.access[world.mara.key] = ()
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert (await world.rows())["token-family"] == []


async def test_a_token_ends_no_later_than_the_grant_behind_it(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(until=START + 300),)
    app = await world.public_app()
    body = await app.tokens()
    assert body["expires_in"] == 300
    assert (await world.only_family()).expires == START + 300


async def test_what_the_record_does_not_allow_is_not_granted(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(), own_record())
    app = await world.public_app()
    body = await app.tokens(scope="launch/patient patient/Coverage.rs patient/Observation.rs")
    assert body["scope"] == "launch/patient patient/Observation.rs"


@pytest.mark.parametrize(
    "change",
    [
        {"practice": "another"},
        {"fhir_user": "RelatedPerson/another"},
        {"grant": "Consent/another"},
    ],
)
async def test_a_code_is_for_the_right_it_was_consented_under(
    world: World, change: dict[str, Any]
) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.public_app()
    code = await app.code()
    before = await world.rows()
    changed = dataclasses.replace(childs_record(), **change)
    world.directory.access[world.mara.key] = (changed,)
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert await world.rows() == before


async def test_a_code_ends_with_the_grant_it_was_consented_under(world: World) -> None:
    """Even if the same grant is given again before the code is exchanged."""
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.public_app()
    code, used = await app.code(), await app.code()
    await app.exchange(used)

    async def end(transaction: RecordTransaction) -> int:
        return await revoke_where(
            transaction,
            "grant",
            "Consent/pip-to-mara",
            practice="family",
            now=world.clock(),
            because="grant-ended",
        )

    assert await world.store.transact(end) == 1
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert len(await world.store.every(AuthorizationCode)) == 1  # a replay is known as one
