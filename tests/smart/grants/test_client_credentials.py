from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from fhir_portal.smart.token import authenticate
from tests.smart.world import App, World, assert_oauth_error, client_key


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
async def test_a_backend_gets_a_short_token_without_refresh(world: World, alg: str) -> None:
    ehr = await world.backend(alg=alg)
    response = await ehr.backend_token()
    body = response.json()
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == (
        "Bearer",
        300,
        "system/*.rs",
    )
    found = await authenticate(world.store, body["access_token"], world.clock())
    assert found is not None
    assert (found.context, found.practice, found.client_id) == ("system", "skin", "ehr")
    assert (found.patient, found.account, found.family) == (None, None, "")


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("system/*.read", "system/*.read"),
        ("system/*.rs", "system/*.rs"),
        ("system/Observation.cruds", "system/Observation.cruds"),
        ("system/Observation.* system/Unknown.rs", "system/Observation.*"),
    ],
)
async def test_scopes_are_echoed_as_they_were_asked(world: World, asked: str, granted: str) -> None:
    ehr = await world.backend()
    assert (await ehr.backend_token(scope=asked)).json()["scope"] == granted


async def test_a_backend_gets_no_more_than_it_registered_for(world: World) -> None:
    ehr = await world.backend(scope="system/Observation.rs system/Patient.r")
    response = await ehr.backend_token(scope="system/*.cruds")
    assert response.json()["scope"] == "system/Observation.rs system/Patient.r"


@pytest.mark.parametrize(
    "scope",
    ["", "patient/Patient.rs", "openid", "system/Patient.rs openid", "system/Unknown.rs", "x y"],
)
async def test_scopes_nobody_like_it_may_have_are_refused(world: World, scope: str) -> None:
    ehr = await world.backend()
    before = await world.rows()
    assert_oauth_error(await ehr.backend_token(scope=scope), "invalid_scope")
    assert await world.rows() == before


@pytest.mark.requirement("attacks", "jti replay")
async def test_an_assertion_is_good_once(world: World) -> None:
    ehr = await world.backend()
    assertion = ehr.assertion()
    assert (await ehr.backend_token(assertion)).status_code == 200
    before = await world.rows()
    assert_oauth_error(await ehr.backend_token(assertion), "invalid_client", 401)
    world.clock.advance(299)
    assert_oauth_error(await ehr.backend_token(assertion), "invalid_client", 401)
    assert await world.rows() == before


async def test_two_clients_may_choose_the_same_jti(world: World) -> None:
    one, other = await world.backend(), await world.backend("other-ehr")
    assert (await one.backend_token(one.assertion(jti="same"))).status_code == 200
    assert (await other.backend_token(other.assertion(jti="same"))).status_code == 200


async def test_the_audience_may_be_an_alias(world: World) -> None:
    ehr = await world.backend()
    assertion = ehr.assertion(aud=["http://localhost:8000/oauth/token"])
    assert (await ehr.backend_token(assertion)).status_code == 200


@pytest.mark.requirement("attacks", "clock skew")
async def test_a_little_skew_is_allowed(world: World) -> None:
    ehr = await world.backend()
    late = ehr.assertion(exp=int(world.clock()) - 20)
    early = ehr.assertion(exp=int(world.clock()) + 320, iat=int(world.clock()) + 20)
    assert (await ehr.backend_token(late)).status_code == 200
    assert (await ehr.backend_token(early)).status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1e400},
        {"exp": 10**400},
        {"exp": 1},
        {"exp": 1_900_000_000 + 400},
        {"aud": None},
        {"aud": "https://elsewhere.example/oauth/token"},
        {"aud": 7},
        {"iss": None},
        {"iss": "somebody"},
        {"sub": None},
        {"sub": 7},
        {"sub": "nobody", "iss": "nobody"},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "j" * 10_000},
        {"nbf": 1_900_000_000 + 100},
    ],
)
@pytest.mark.requirement("attacks", "clock skew")
async def test_wrong_claims_are_refused(world: World, claims: dict[str, Any]) -> None:
    ehr = await world.backend()
    before = await world.rows()
    response = await ehr.backend_token(ehr.assertion(**claims))
    assert_oauth_error(response, "invalid_client", 401)
    assert await world.rows() == before


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(ehr: App) -> str:
    return f"{part({'alg': 'none', 'kid': 'ehr-key'})}.{part(ehr.claims())}."


def signed_with_the_public_key(ehr: App) -> str:
    """The classic confusion: the public key's text as an HMAC secret."""
    assert isinstance(ehr.key, RSAKey | ECKey)
    signed = f"{part({'alg': 'HS256', 'kid': 'ehr-key'})}.{part(ehr.claims())}"
    proof = hmac.digest(ehr.key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(proof).rstrip(b'=').decode()}"


@pytest.mark.parametrize("kind", ["RS384", "ES384"])
@pytest.mark.parametrize("forge", [unsigned, signed_with_the_public_key])
@pytest.mark.requirement("attacks", "algorithm confusion")
@pytest.mark.requirement("inferno", "X7")
async def test_algorithm_confusion_is_refused(world: World, kind: str, forge: Any) -> None:
    ehr = await world.backend(alg=kind)
    before = await world.rows()
    assert_oauth_error(await ehr.backend_token(forge(ehr)), "invalid_client", 401)
    assert await world.rows() == before


@pytest.mark.parametrize(
    ("alg", "key"),
    [
        ("RS256", client_key("RS384", "ehr-key")),
        ("PS384", client_key("RS384", "ehr-key")),
        ("RS384", RSAKey.generate_key(2048, {"kid": "ehr-key"})),
        ("ES384", ECKey.generate_key("P-384", {"kid": "ehr-key"})),
    ],
)
@pytest.mark.requirement("inferno", "X7")
async def test_other_algorithms_and_other_keys_are_refused(
    world: World, alg: str, key: Any
) -> None:
    ehr = await world.backend(alg="RS384")
    assertion = ehr.assertion(key, {"alg": alg})
    assert_oauth_error(await ehr.backend_token(assertion), "invalid_client", 401)


async def test_the_kid_picks_the_key(world: World) -> None:
    old, new = client_key("ES384", "old"), client_key("RS384", "new")
    jwks = {"keys": [old.as_dict(private=False), new.as_dict(private=False)]}
    ehr = await world.backend(jwks=jwks)
    by_old = ehr.assertion(old, {"kid": "old"})
    by_new = ehr.assertion(new, {"kid": "new", "alg": "RS384"})
    by_neither = ehr.assertion(old, {"kid": "gone"})
    assert (await ehr.backend_token(by_old)).status_code == 200
    assert (await ehr.backend_token(by_new)).status_code == 200
    assert_oauth_error(await ehr.backend_token(by_neither), "invalid_client", 401)


@pytest.mark.parametrize("assertion", ["", "a.b", "a.b.c", "....", "é", "e30.W10.x", "x" * 5000])
async def test_what_is_no_jwt_is_refused(world: World, assertion: str) -> None:
    ehr = await world.backend()
    assert_oauth_error(await ehr.backend_token(assertion), "invalid_client", 401)


async def test_another_assertion_type_is_refused(world: World) -> None:
    ehr = await world.backend()
    response = await ehr.backend_token(client_assertion_type="not_the_right_type")
    assert_oauth_error(response, "invalid_client", 401)


@pytest.mark.parametrize("grant_type", ["not_a_grant_type", "password", "implicit", "é"])
async def test_another_grant_type_is_refused(world: World, grant_type: str) -> None:
    ehr = await world.backend()
    response = await ehr.backend_token(grant_type=grant_type)
    assert_oauth_error(response, "unsupported_grant_type")


async def test_a_backend_cannot_use_a_code(world: World) -> None:
    ehr = await world.backend()
    assert_oauth_error(await ehr.exchange("anything"), "unauthorized_client")


async def test_an_app_for_people_gets_no_system_token(world: World) -> None:
    app = await world.confidential_app()
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    assert_oauth_error(await app.post("/oauth/token", form), "unauthorized_client")
    public = await world.public_app()
    assert_oauth_error(await public.post("/oauth/token", form), "invalid_client", 401)


def _jwt(header: bytes, payload: bytes) -> str:
    parts = (header, payload, b"x" * 96)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    "assertion",
    [
        _jwt(b'{"alg":"ES384"}', b'{"sub":"\\ud800"}'),
        _jwt(b'{"alg":"ES384"}', b"[" * 20_000),
        _jwt(b'{"alg":"ES384"}', b'{"sub":"ehr","x":' + b"[" * 20_000),
        _jwt(b"[" * 20_000, b'{"sub":"ehr"}'),
        _jwt(b'{"alg":"ES384"}', b'{"sub":"ehr","x":' + b"[" * 2_000 + b"]" * 2_000 + b"}"),
        _jwt(b'{"alg":"ES384","crit":5}', b'{"sub":"ehr"}'),
        _jwt(b'{"alg":"ES384","crit":[5]}', b'{"sub":"ehr"}'),
        _jwt(b'{"alg":"ES384","crit":["b64"],"b64":false}', b'{"sub":"ehr"}'),
        _jwt(b'{"alg":["ES384"]}', b'{"sub":"ehr"}'),
        _jwt(b'{"alg":"ES384","kid":{"a":[]}}', b'{"sub":"ehr"}'),
        _jwt(b"[1]", b'{"sub":"ehr"}'),
        _jwt(b"\xff\xfe", b'{"sub":"ehr"}'),
        _jwt(b'{"alg":"ES384"}', b"\xff\xfe"),
        _jwt(b'{"alg":"ES384"}', b'{"sub":["ehr"]}'),
        "é.é.é",
    ],
    ids=range(15),
)
async def test_an_assertion_that_cannot_be_read_is_no_client(world: World, assertion: str) -> None:
    ehr = await world.backend()
    assert_oauth_error(await ehr.backend_token(assertion), "invalid_client", 401)
