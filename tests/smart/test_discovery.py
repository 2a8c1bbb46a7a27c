from __future__ import annotations

import pytest

from fhir_portal.smart.discovery import capability_security
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.scope import ScopeSet
from tests.smart.world import BASE, World, assert_oauth_error

OF_A_LAUNCH = ("launch", "launch/encounter")
"""Granted where there is something to tell: ``test_launch.py``."""


async def test_the_smart_configuration_says_where_and_how(world: World) -> None:
    found = world.server.smart_configuration()
    for name in ("authorization", "token", "introspection", "revocation", "registration"):
        assert found[f"{name}_endpoint"].startswith(f"{BASE}/oauth/")
    assert found["issuer"] == BASE
    assert found["jwks_uri"] == f"{BASE}/oauth/jwks"
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert {"authorization_code", "client_credentials"} <= set(found["grant_types_supported"])
    assert "private_key_jwt" in found["token_endpoint_auth_methods_supported"]
    assert found["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]


async def test_only_capabilities_that_work_are_claimed(world: World) -> None:
    claimed = world.server.smart_configuration()["capabilities"]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) == {
        "authorize-post",
        "client-confidential-asymmetric",
        "client-confidential-symmetric",
        "client-public",
        "context-banner",
        "context-ehr-encounter",
        "context-ehr-patient",
        "context-standalone-encounter",
        "context-standalone-patient",
        "context-style",
        "health-cards",
        "launch-ehr",
        "launch-standalone",
        "permission-offline",
        "permission-patient",
        "permission-user",
        "permission-v1",
        "permission-v2",
        "sso-openid-connect",
    }


async def test_every_scope_that_is_listed_can_be_granted(world: World) -> None:
    app = await world.public_app()
    ehr = await world.backend()
    listed = world.server.smart_configuration()["scopes_supported"]
    assert "patient/Observation.rs" in listed
    assert any(scope.startswith("patient/Observation.rs?category=") for scope in listed)
    for scope in listed:
        if scope.startswith("system/"):
            assert (await ehr.backend_token(scope=scope)).json()["scope"] == scope
        elif scope not in (*OF_A_LAUNCH, "patient/*.rs", "user/*.rs"):
            granted = (await app.tokens(scope=f"launch/patient {scope}"))["scope"]
            assert ScopeSet.parse(scope).covers(ScopeSet.parse(scope))
            assert scope in granted.split()
    everything = (await app.tokens(scope="patient/*.rs"))["scope"]
    assert ScopeSet.parse(everything).covers(ScopeSet.parse("patient/Goal.rs patient/Patient.rs"))


@pytest.mark.parametrize("name", ["openid-configuration", "oauth-authorization-server"])
async def test_its_metadata_is_served_to_everyone(world: World, name: str) -> None:
    async with world.http() as http:
        response = await http.get(f"/.well-known/{name}", headers={"Origin": "https://any.example"})
    body = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["access-control-allow-origin"] == "*"
    assert body["issuer"] == BASE
    assert body["response_types_supported"] == ["code"]
    assert body["subject_types_supported"] == ["public"]
    assert body["id_token_signing_alg_values_supported"] == ["RS256"]


async def test_the_keys_are_served_to_everyone(world: World) -> None:
    async with world.http() as http:
        response = await http.get("/oauth/jwks", headers={"Origin": "https://any.example"})
        head = await http.head("/oauth/jwks")
        refused = await http.post("/oauth/jwks")
    assert response.json() == world.keys.jwks()
    assert response.headers["access-control-allow-origin"] == "*"
    assert head.headers["content-length"] == str(len(response.content))
    assert head.content == b""
    assert_oauth_error(refused, "invalid_request", 405)


def test_the_capability_statement_names_the_endpoints() -> None:
    (extension,) = capability_security(Issuer(BASE))["extension"]
    uris = {one["url"]: one["valueUri"] for one in extension["extension"]}
    assert uris["authorize"] == f"{BASE}/oauth/authorize"
    assert uris["token"] == f"{BASE}/oauth/token"


@pytest.mark.parametrize(
    ("aud", "ours"),
    [
        (f"{BASE}/fhir", True),
        (f"{BASE}/fhir/", True),
        ("http://localhost:8000/fhir", True),
        (f"{BASE}/fhir//", False),
        (BASE, False),
        (f"{BASE}/fhir/Patient", False),
        ("https://elsewhere.example/fhir", False),
        ("", False),
    ],
)
def test_the_audience_is_our_fhir_base(aud: str, ours: bool) -> None:  # noqa: FBT001 - a table
    assert Issuer(BASE, ("http://localhost:8000",)).is_audience(aud) is ours
