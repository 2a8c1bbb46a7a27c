"""Open registration, RFC 7591."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from fhir_portal.smart import registration
from fhir_portal.smart.client import DEFAULT_SCOPE, Client
from fhir_portal.smart.server import REGISTRATIONS_PER_ADDRESS
from tests.smart.hosts import as_it_is
from tests.smart.world import (
    BASE,
    REDIRECT,
    START,
    App,
    World,
    assert_oauth_error,
    client_key,
)

URL = "https://app.example/jwks.json"
KEYS = {"keys": [client_key("ES384", "app-key").as_dict(private=False)]}
SECRET = client_key("ES384", "app-key").as_dict(private=True)
SOFTWARE = {
    "client_name": "Heart Diary",
    "client_uri": "https://app.example",
    "logo_uri": "https://app.example/logo.png",
    "policy_uri": "https://app.example/privacy",
    "tos_uri": "https://app.example/terms",
    "initiate_login_uri": "https://app.example/launch",
    "contacts": ["help@app.example"],
    "software_id": "4f1c8f3e-diary",
    "software_version": "2.1",
}


async def register(world: World, metadata: Any) -> httpx.Response:
    async with world.http() as http:
        return await http.post(
            "/oauth/register",
            content=json.dumps(metadata),  # escapes half characters, as an attacker would
            headers={"Content-Type": "application/json"},
        )


async def test_a_public_app_registers_itself_and_signs_people_in(world: World) -> None:
    response = await register(
        world,
        {
            "redirect_uris": [REDIRECT],
            "client_name": "Heart Diary",
            "token_endpoint_auth_method": "none",
            "client_uri": "https://app.example",
            "software_id": "diary",
            "something_else": {"is": "ignored"},
        },
    )
    body = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    client_id = body.pop("client_id")
    assert len(body.pop("registration_access_token")) >= 43
    assert body.pop("registration_client_uri") == f"{BASE}/oauth/register/{client_id}"
    assert body == {
        "client_id_issued_at": int(START),
        "client_name": "Heart Diary",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": DEFAULT_SCOPE,
        "client_uri": "https://app.example",
        "software_id": "diary",
    }
    client = await world.store.get(Client, client_id)
    assert client is not None
    assert client.self_registered
    assert (await App(world, client, None).tokens())["patient"] == "mara"


async def test_a_confidential_app_is_told_its_secret_once(world: World) -> None:
    body = (await register(world, {"redirect_uris": [REDIRECT]})).json()
    assert body["token_endpoint_auth_method"] == "client_secret_basic"
    assert body["client_secret_expires_at"] == 0
    client = await world.store.get(Client, body["client_id"])
    assert client is not None
    assert (await App(world, client, body["client_secret"]).tokens())["patient"] == "mara"


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uris": None},
        {"redirect_uris": []},
        {"redirect_uris": "https://app.example"},
        {"redirect_uris": [REDIRECT, REDIRECT]},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"grant_types": ["client_credentials"]},
        {"grant_types": ["client_credentials", "authorization_code"]},
        {"grant_types": []},
        {"grant_types": ["authorization_code", "implicit"]},
        {"grant_types": ["refresh_token"]},
        {"response_types": ["token"]},
        {"scope": "system/*.rs"},
        {"scope": "patient/*.rs user/*.rs"},
        {"scope": "nonsense"},
        {"scope": 7},
        {"client_name": ""},
        {"client_name": "two\nlines"},
        {"client_name": "\u3164"},
        {"client_name": "\u0301\u2800"},
        {"client_name": "x" * 101},
        {"client_uri": "javascript:alert(1)"},
        {"logo_uri": "http://app.example/logo.png"},
        {"logo_uri": "data:image/svg+xml,<svg/>"},
        {"logo_uri": "https://app.example/ javascript:alert(1)"},
        {"policy_uri": "JavaScript:alert(1)//https://app.example"},
        {"tos_uri": "//app.example/terms"},
        {"tos_uri": "https://portal.example@evil.example/"},
        {"initiate_login_uri": "http://app.example/launch"},
        {"initiate_login_uri": "https://app.example/launch?launch=mine"},
        {"initiate_login_uri": "https://app.example/launch?iss=https://other.example"},
        {"jwks": {"keys": []}},
        {"jwks_uri": "https://app.example/jwks"},
        {"jwks": "keys"},
        {"jwks": KEYS},
        {"token_endpoint_auth_method": "none", "jwks_uri": URL},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": KEYS, "jwks_uri": URL},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [SECRET]}},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://app.example/"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://10.0.0.1/"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://localhost/"},
        {"require_pushed_authorization_requests": "yes"},
        {"contacts": ["half a character: \ud800"]},
        {"client_uri": "https://app.example/\ud800"},
        {"redirect_uris": [f"{REDIRECT}\ud800"]},
        {"client_name": "\ud800"},
        {"scope": "\ud800"},
        {"software_version": "1\u202e2"},
        {"contacts": ["x"] * 21},
        {"grant_types": ["authorization_code"] * 11},
        {"response_types": ["code"] * 11},
        {"contacts": [["x"]]},
        {"redirect_uris": [{}]},
        {"scope": " ".join(f"patient/Goal.r?_id={number}" for number in range(151))},
    ],
)
async def test_metadata_we_do_not_register_is_refused(world: World, change: dict[str, Any]) -> None:
    metadata = {"redirect_uris": [REDIRECT], "client_name": "Diary", **change}
    response = await register(world, metadata)
    assert_oauth_error(response, "invalid_client_metadata")
    assert (await world.rows())["client"] == []


@pytest.mark.parametrize(
    "uri", ["http://app.example/cb", "https://a.example/#x", "javascript:alert(1)", "", "x"]
)
async def test_a_redirect_uri_we_do_not_register_is_refused(world: World, uri: str) -> None:
    response = await register(world, {"redirect_uris": [uri]})
    assert_oauth_error(response, "invalid_redirect_uri")
    assert (await world.rows())["client"] == []


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "7", '"x"', "[" * 100_000])
async def test_what_is_no_json_object_is_refused(world: World, body: str) -> None:
    async with world.http() as http:
        response = await http.post(
            "/oauth/register", content=body, headers={"Content-Type": "application/json"}
        )
    assert response.status_code in (400, 413)
    assert response.json()["error"] in ("invalid_request", "invalid_client_metadata")


@pytest.mark.parametrize("length", [16 * 1024, 16 * 1024 + 1])
async def test_metadata_has_a_bounded_length(world: World, length: int) -> None:
    """What is compared item by item takes time with the square of its length."""
    body = f'{{"redirect_uris":["{REDIRECT}"],"x":"'
    body += "x" * (length - len(body) - 2) + '"}'
    async with world.http() as http:
        response = await http.post(
            "/oauth/register", content=body, headers={"Content-Type": "application/json"}
        )
    assert response.status_code == (201 if length == 16 * 1024 else 413)


async def test_redirect_uris_by_the_thousand_are_not_compared_with_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: Any) -> Any:
        raise AssertionError("the schema was asked")

    monkeypatch.setattr(registration, "_VALIDATOR", unwanted)
    uris = [{str(number): 0} for number in range(1000)]
    response = await register(world, {"redirect_uris": uris})
    assert_oauth_error(response, "invalid_client_metadata")


async def test_a_form_is_not_json(world: World) -> None:
    async with world.http() as http:
        response = await http.post("/oauth/register", data={"redirect_uris": REDIRECT})
    assert_oauth_error(response, "invalid_request")


async def test_one_address_cannot_register_without_end(world: World) -> None:
    allowed = int(REGISTRATIONS_PER_ADDRESS.split()[0])
    for _ in range(allowed):
        assert (await register(world, {"redirect_uris": [REDIRECT]})).status_code == 201
    refused = await register(world, {"redirect_uris": [REDIRECT]})
    assert_oauth_error(refused, "temporarily_unavailable", 429)
    assert refused.headers["retry-after"] == "3600"
    world.clock.advance(3600)
    assert (await register(world, {"redirect_uris": [REDIRECT]})).status_code == 201


async def test_software_metadata_is_kept_and_told(world: World) -> None:
    body = (await register(world, {"redirect_uris": [REDIRECT], **SOFTWARE})).json()
    assert {name: body[name] for name in SOFTWARE} == SOFTWARE
    client = await world.store.get(Client, body["client_id"])
    assert client is not None
    assert client.metadata == {k: v for k, v in SOFTWARE.items() if k != "client_name"}


@pytest.mark.parametrize("keys", [{"jwks": KEYS}, {"jwks_uri": URL}])
async def test_an_app_with_keys_of_its_own_registers_itself(
    world: World, keys: dict[str, Any]
) -> None:
    world.hosts.serve("app.example", as_it_is(json.dumps(KEYS).encode()))
    method = "private_key_jwt"
    metadata = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": method, **keys}
    body = (await register(world, metadata)).json()
    assert body["token_endpoint_auth_method"] == method
    assert {name: body[name] for name in keys} == keys
    assert "client_secret" not in body
    client = await world.store.get(Client, body["client_id"])
    assert client is not None
    app = App(world, client, None, client_key("ES384", "app-key"))
    code = await app.code()
    signed = app.assertion(header={"kid": "app-key"})
    assert (await app.exchange(code, client_assertion=signed)).status_code == 200


async def test_a_pushed_only_app_registers_as_one(world: World) -> None:
    metadata = {"redirect_uris": [REDIRECT], "require_pushed_authorization_requests": True}
    body = (await register(world, metadata)).json()
    assert body["require_pushed_authorization_requests"] is True
    client = await world.store.get(Client, body["client_id"])
    assert client is not None
    assert client.require_pushed_authorization_requests


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "unapproved_software_statement"),
        ("e30.e30.c2ln", "invalid_software_statement"),
        ("not a JWT", "invalid_software_statement"),
        ("a.b.c", "invalid_software_statement"),
        ("", "invalid_software_statement"),
        (7, "invalid_software_statement"),
    ],
)
async def test_no_software_statement_is_believed(world: World, statement: Any, error: str) -> None:
    """Anybody can write one. Planted fault: statements are ignored like unknown metadata."""
    response = await register(world, {"redirect_uris": [REDIRECT], "software_statement": statement})
    assert_oauth_error(response, error)
    assert (await world.rows())["client"] == []


async def test_metadata_may_say_a_thing_once(world: World) -> None:
    """Parameter pollution in JSON. Planted fault: the last of two members counts."""
    body = f'{{"redirect_uris":["https://evil.example/"],"redirect_uris":["{REDIRECT}"]}}'
    async with world.http() as http:
        response = await http.post(
            "/oauth/register", content=body, headers={"Content-Type": "application/json"}
        )
    assert_oauth_error(response, "invalid_request")


async def test_the_registration_token_is_hashed_at_rest(world: World) -> None:
    """Planted fault: the token is kept as it is."""
    body = (await register(world, {"redirect_uris": [REDIRECT]})).json()
    stored = str(await world.store.every(Client))
    for secret in (body["registration_access_token"], body["client_secret"]):
        assert secret not in stored
