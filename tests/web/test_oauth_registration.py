"""Review of what wants more than a patient's own record, and RFC 7592 over HTTP.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from fhir_portal.records import RecordTransaction
from fhir_portal.smart.authorization import AuthorizationRequest
from fhir_portal.smart.client import (
    ChangedSinceReview,
    Client,
    ClientOrigin,
    UnknownClient,
    approve_client,
    disable_client,
    enable_client,
    fingerprint,
    is_registered_origin,
)
from fhir_portal.smart.errors import InvalidClientMetadata
from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.smart.hosts import as_it_is
from tests.smart.world import BASE, REDIRECT, App, World, assert_oauth_error, client_key

KEYS = {"keys": [client_key("ES384", "ehr-key").as_dict(private=False)]}
OTHER_KEYS = {"keys": [client_key("ES384", "other-key").as_dict(private=False)]}
PEOPLES = {
    "redirect_uris": [REDIRECT],
    "client_name": "Heart Diary",
    "token_endpoint_auth_method": "none",
    "scope": "launch/patient openid fhirUser offline_access patient/*.rs",
}
BACKEND = {
    "client_name": "EHR",
    "grant_types": ["client_credentials"],
    "token_endpoint_auth_method": "private_key_jwt",
    "jwks": KEYS,
    "scope": "system/*.rs",
}
STAFFS = {**PEOPLES, "scope": "launch openid fhirUser user/*.rs"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


class Registered:
    """What a registration told its client, and what the client does with it."""

    def __init__(self, world: World, body: dict[str, Any]) -> None:
        self.world = world
        self.body = body

    @property
    def client_id(self) -> str:
        return str(self.body["client_id"])

    @property
    def path(self) -> str:
        return str(self.body["registration_client_uri"]).removeprefix(BASE)

    @property
    def token(self) -> str:
        return str(self.body["registration_access_token"])

    async def client(self) -> Client:
        client = await self.world.store.get(Client, self.client_id)
        assert client is not None
        return client

    async def app(self) -> App:
        client = await self.client()
        key = client_key("ES384", "ehr-key") if client.jwks else None
        return App(self.world, client, self.body.get("client_secret"), key)

    async def request(
        self, method: str, metadata: Any = None, *, token: str | None = None, **options: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token}", **options.pop("headers", {})}
        content = None if metadata is None else json.dumps(metadata)
        if content is not None:
            headers["Content-Type"] = "application/json"
        async with self.world.http() as http:
            path = options.pop("path", self.path)
            return await http.request(method, path, content=content, headers=headers, **options)

    async def put(self, metadata: dict[str, Any], **options: Any) -> httpx.Response:
        sent = {"client_id": self.client_id, **metadata}
        response = await self.request("PUT", sent, **options)
        if response.status_code == 200:
            self.body |= response.json()
        return response


async def register(world: World, metadata: dict[str, Any]) -> Registered:
    async with world.http() as http:
        response = await http.post("/oauth/register", json=metadata)
    assert response.status_code == 201, response.text
    return Registered(world, response.json())


async def tokens_alive(world: World) -> int:
    return len(await world.store.every(AccessToken))


# --- review --------------------------------------------------------------------------------------


async def test_an_app_for_patients_is_let_in_at_once(world: World) -> None:
    told = await register(world, PEOPLES)
    assert "approval_status" not in told.body
    assert (await (await told.app()).tokens())["patient"] == "mara"


async def test_a_backend_gets_nothing_until_it_is_approved(world: World) -> None:
    """Planted fault: who waits for review is authenticated like anybody else."""
    told = await register(world, BACKEND)
    assert told.body["approval_status"] == "awaiting-review"
    assert told.body["grant_types"] == ["client_credentials"]
    assert "redirect_uris" not in told.body
    ehr = await told.app()
    for _ in range(2):
        response = await ehr.backend_token(ehr.assertion(header={"kid": "ehr-key"}))
        assert_oauth_error(response, "unauthorized_client")
        assert "approved" in response.json()["error_description"]
    assert await tokens_alive(world) == 0
    await approve_client(world.store, ehr.client_id, practices=["skin"])
    response = await ehr.backend_token(ehr.assertion(header={"kid": "ehr-key"}))
    assert response.status_code == 200
    (token,) = await world.store.every(AccessToken)
    assert token.practice == "skin"
    assert "approval_status" not in (await told.request("GET")).json()


async def test_a_backend_that_keeps_its_keys_elsewhere_waits_too(world: World) -> None:
    """Planted fault: its keys are not read while it waits, and nothing says so."""
    url = "https://ehr.example/jwks.json"
    world.hosts.serve("ehr.example", as_it_is(json.dumps(KEYS).encode()))
    metadata = {name: value for name, value in BACKEND.items() if name != "jwks"}
    told = await register(world, {**metadata, "jwks_uri": url})
    ehr = await told.app()
    ehr.key = client_key("ES384", "ehr-key")
    signed = ehr.assertion(header={"kid": "ehr-key"})
    assert_oauth_error(await ehr.backend_token(signed), "unauthorized_client")
    await approve_client(world.store, ehr.client_id, practices=["skin"])
    signed = ehr.assertion(header={"kid": "ehr-key"})
    assert (await ehr.backend_token(signed)).status_code == 200


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
async def test_who_waits_is_told_so_only_once_authenticated(world: World, path: str) -> None:
    told = await register(world, {**STAFFS, "token_endpoint_auth_method": "client_secret_basic"})
    app = await told.app()
    form = {"grant_type": "authorization_code", "code": "x", "token": "x"}
    assert_oauth_error(await app.post(path, form), "unauthorized_client")
    wrong = await app.post(path, form, auth=(app.client_id, "wrong"))
    assert_oauth_error(wrong, "invalid_client", 401)


async def test_an_app_with_user_scopes_sends_nobody_to_a_page_of_its_own(world: World) -> None:
    """Open redirect by registration. Planted fault: whether it waits is not asked here."""
    told = await register(world, STAFFS)
    app = await told.app()
    response = await world.browser().authorize(app, scope="openid user/*.rs")
    assert response.status_code == 400
    assert "location" not in response.headers
    assert "approved" in response.text
    pushed = await app.post("/oauth/par", app.parameters())
    assert_oauth_error(pushed, "unauthorized_client")
    assert await world.store.every(AuthorizationRequest) == []


async def test_a_backend_is_approved_for_one_practice(world: World) -> None:
    told = await register(world, BACKEND)
    with pytest.raises(InvalidClientMetadata):
        await approve_client(world.store, told.client_id)
    assert (await told.client()).awaits_review
    approved = await approve_client(
        world.store, told.client_id, practices=["skin"], permissions=["introspect"]
    )
    assert approved == await told.client()
    assert (approved.practice, approved.permissions) == ("skin", ("introspect",))
    assert await approve_client(world.store, told.client_id) == approved
    with pytest.raises(InvalidClientMetadata):
        await approve_client(world.store, told.client_id, practices=["family"])
    with pytest.raises(UnknownClient):
        await approve_client(world.store, "nobody")


# --- management ----------------------------------------------------------------------------------


async def test_a_client_reads_its_registration(world: World) -> None:
    told = await register(world, {**PEOPLES, "contacts": ["a@app.example"]})
    response = await told.request("GET")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == told.body


async def test_a_secret_is_told_once_and_not_read_again(world: World) -> None:
    told = await register(world, {**PEOPLES, "token_endpoint_auth_method": "client_secret_basic"})
    assert "client_secret" not in (await told.request("GET")).json()


async def test_an_update_replaces_the_registration_and_its_token(world: World) -> None:
    """Planted fault: the token stays as it was."""
    told = await register(world, {**PEOPLES, "contacts": ["a@app.example"], "software_id": "d"})
    old = told.token
    metadata = {**PEOPLES, "client_name": "Diary 2", "redirect_uris": ["https://two.example/cb"]}
    response = await told.put(metadata)
    body = response.json()
    assert response.status_code == 200
    assert body["client_name"] == "Diary 2"
    assert "contacts" not in body  # what is left out is taken out (RFC 7592 §2.2)
    assert body["client_id"] == told.client_id
    assert body["registration_access_token"] != old
    assert_oauth_error(await told.request("GET", token=old), "invalid_token", 401)
    assert (await told.request("GET")).status_code == 200
    assert await is_registered_origin(world.store, "https://two.example")
    assert not await is_registered_origin(world.store, "https://app.example")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"client_id": None}, "invalid_request"),
        ({"client_id": "other"}, "invalid_request"),
        ({"client_id": 7}, "invalid_request"),
        ({"registration_access_token": "x" * 43}, "invalid_request"),
        ({"registration_client_uri": "https://evil.example/"}, "invalid_request"),
        ({"client_id_issued_at": 0}, "invalid_request"),
        ({"client_secret_expires_at": 0}, "invalid_request"),
        ({"client_secret": "of my own choice"}, "invalid_request"),
        ({"client_secret": "\ud800"}, "invalid_request"),
        ({"client_secret": 7}, "invalid_request"),
        ({"redirect_uris": ["http://app.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": None}, "invalid_client_metadata"),
        ({"logo_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"scope": "nonsense"}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"software_statement": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"}, "unapproved_software_statement"),
    ],
)
async def test_a_bad_update_changes_nothing(
    world: World, change: dict[str, Any], error: str
) -> None:
    """Planted fault: a client may set what is ours to set."""
    method = "client_secret_basic"
    told = await register(world, {**PEOPLES, "token_endpoint_auth_method": method})
    await register(world, PEOPLES)
    before = await world.rows()
    sent = {**PEOPLES, "token_endpoint_auth_method": method, **change}
    response = await told.put(sent)
    assert_oauth_error(response, error)
    assert await world.rows() == before
    assert (await told.request("GET")).status_code == 200


async def test_a_client_may_show_its_secret_and_keeps_it(world: World) -> None:
    method = "client_secret_basic"
    told = await register(world, {**PEOPLES, "token_endpoint_auth_method": method})
    secret = told.body["client_secret"]
    metadata = {**PEOPLES, "token_endpoint_auth_method": method, "client_secret": secret}
    response = await told.put(metadata)
    assert response.status_code == 200
    assert "client_secret" not in response.json()
    assert_oauth_error(await (await told.app()).exchange("x"), "invalid_grant")


async def test_another_way_to_authenticate_ends_what_the_old_one_had(world: World) -> None:
    """Planted fault: tokens outlive the secret they were given for."""
    told = await register(world, PEOPLES)
    await (await told.app()).tokens()
    assert await tokens_alive(world) == 1
    sent = {**PEOPLES, "token_endpoint_auth_method": "client_secret_post"}
    body = (await told.put(sent)).json()
    assert body["client_secret_expires_at"] == 0
    assert await tokens_alive(world) == 0
    app = await told.app()
    assert (await app.tokens())["patient"] == "mara"
    await told.put(PEOPLES)
    assert (await told.client()).secret_hash is None


@pytest.mark.parametrize(
    ("scope", "alive"),
    [
        (PEOPLES["scope"], 1),
        (f"{PEOPLES['scope']} patient/*.cruds", 1),
        ("launch/patient patient/Goal.rs", 0),
    ],
)
async def test_asking_for_less_ends_what_was_given_for_more(
    world: World, scope: str, alive: int
) -> None:
    """Planted fault: a narrower registration leaves wider tokens."""
    told = await register(world, PEOPLES)
    await (await told.app()).tokens()
    assert (await told.put({**PEOPLES, "scope": scope})).status_code == 200
    assert await tokens_alive(world) == alive


async def test_asking_for_more_than_a_patients_record_has_to_wait(world: World) -> None:
    """Approval by the back door. Planted fault: an update is not reviewed."""
    told = await register(world, PEOPLES)
    app = await told.app()
    body = await app.tokens()
    response = await told.put(STAFFS)
    assert response.json()["approval_status"] == "awaiting-review"
    assert not await world.is_alive(body["access_token"])
    assert_oauth_error(await app.refresh(body["refresh_token"]), "unauthorized_client")
    await told.put(PEOPLES)
    assert (await (await told.app()).tokens())["patient"] == "mara"


@pytest.mark.parametrize(
    ("change", "waits"),
    [
        ({}, False),
        ({"client_name": "Ministry of Health"}, True),
        ({"jwks": OTHER_KEYS}, True),
        ({"scope": "system/*.cruds"}, True),
        ({"policy_uri": "https://other.example/"}, True),
        ({"dpop_bound_access_tokens": True}, True),
        ({"require_pushed_authorization_requests": True}, True),
    ],
)
async def test_what_was_approved_is_what_stays_approved(
    world: World,
    change: dict[str, Any],
    waits: bool,  # noqa: FBT001 - a table
) -> None:
    """Planted fault: once approved, a client may become another one."""
    told = await register(world, BACKEND)
    await approve_client(world.store, told.client_id, practices=["skin"])
    ehr = await told.app()
    token = (await ehr.backend_token(ehr.assertion(header={"kid": "ehr-key"}))).json()
    response = await told.put({**BACKEND, **change})
    assert ("approval_status" in response.json()) is waits
    assert await world.is_alive(token["access_token"]) is not waits
    assert (await told.client()).practice == "skin"


@pytest.mark.parametrize(
    ("change", "waits"), [({}, False), ({"client_name": "Ministry of Health"}, True)]
)
async def test_an_app_for_staff_that_changes_waits_at_every_practice(
    world: World,
    change: dict[str, Any],
    waits: bool,  # noqa: FBT001 - a table
) -> None:
    """Planted fault: practices go on approving what they have not seen."""
    told = await register(world, STAFFS)
    await approve_client(world.store, told.client_id, practices=["skin", "family"])
    response = await told.put({**STAFFS, **change})
    assert ("approval_status" in response.json()) is waits
    client = await told.client()
    assert client.approved_at == (() if waits else ("family", "skin"))
    assert client.serves_staff_of("skin") is not waits
    if waits:
        again = await approve_client(world.store, told.client_id, practices=["family"])
        assert (again.serves_staff_of("family"), again.serves_staff_of("skin")) == (True, False)


@pytest.mark.parametrize(
    "flag", ["dpop_bound_access_tokens", "require_pushed_authorization_requests"]
)
async def test_what_was_approved_with_a_safeguard_does_not_drop_it(world: World, flag: str) -> None:
    """Planted fault: the flags are no part of what is reviewed."""
    told = await register(world, {**STAFFS, flag: True})
    await approve_client(world.store, told.client_id, practices=["skin"])
    assert (await told.put(STAFFS)).json()["approval_status"] == "awaiting-review"
    assert not (await told.client()).serves_staff_of("skin")


@pytest.mark.parametrize("scope", [PEOPLES["scope"], STAFFS["scope"]])
async def test_who_introspects_for_a_practice_and_changes_does_so_no_more(
    world: World, scope: str
) -> None:
    """A permission by the back door. Planted fault: it outlives what was looked at."""
    sent = {**STAFFS, "token_endpoint_auth_method": "private_key_jwt", "jwks": KEYS}
    told = await register(world, sent)
    await approve_client(
        world.store, told.client_id, practices=["skin"], permissions=["introspect"]
    )
    assert (await told.put(sent)).status_code == 200
    assert (await told.client()).permissions == ("introspect",)
    issued = (await (await world.public_app()).tokens())["access_token"]

    async def introspected() -> httpx.Response:
        app = await told.app()
        signed = app.assertion(header={"kid": "ehr-key"})
        return await app.post("/oauth/introspect", {"token": issued, "client_assertion": signed})

    assert (await introspected()).json()["active"] is True
    await told.put({**sent, "scope": scope, "client_name": "Diary 2"})
    client = await told.client()
    assert (client.permissions, client.practice, client.approved_at) == ((), None, ())
    assert (await introspected()).json().get("active") is not True


async def test_a_client_does_not_change_between_the_look_and_the_approval(world: World) -> None:
    """Planted fault: what is approved is not compared with what was seen."""
    told = await register(world, BACKEND)
    seen = fingerprint(await told.client())
    await told.put({**BACKEND, "scope": "system/*.cruds", "jwks": OTHER_KEYS})
    with pytest.raises(ChangedSinceReview):
        await approve_client(world.store, told.client_id, practices=["skin"], reviewed=seen)
    assert (await told.client()).awaits_review
    await told.put(BACKEND)
    await approve_client(world.store, told.client_id, practices=["skin"], reviewed=seen)
    assert (await told.client()).is_open


async def test_a_stolen_registration_does_not_use_consent_of_before(world: World) -> None:
    """Planted fault: a self-registered app that can keep a secret is not asked about again."""
    sent = {**PEOPLES, "token_endpoint_auth_method": "private_key_jwt", "jwks": KEYS}
    told = await register(world, sent)
    app = await told.app()
    signed = app.assertion(header={"kid": "ehr-key"})
    exchanged = await app.exchange(await app.code(), client_assertion=signed)
    assert exchanged.json()["patient"] == "mara"
    evil = "https://evil.example/cb"
    assert (await told.put({**sent, "redirect_uris": [evil], "jwks": OTHER_KEYS})).is_success
    browser = world.browser()
    await browser.authorize(await told.app(), redirect_uri=evil)
    page = await browser.sign_in()
    assert (page.status_code, page.headers.get("location")) == (200, None)
    assert 'value="approve"' in page.text
    response = await browser.authorize(await told.app(), redirect_uri=evil, prompt="none")
    assert "error=consent_required" in response.headers["location"]


async def test_what_staff_allowed_ends_when_a_patients_app_changes(world: World) -> None:
    """Planted faults: staff's tokens stay; patients' tokens go."""
    told = await register(world, PEOPLES)
    await approve_client(world.store, told.client_id, practices=["skin"])
    await (await told.app()).tokens()
    (mine,) = await world.store.every(TokenFamily)
    staffs = msgspec.structs.replace(mine, key="staffs", fhir_user="Practitioner/ann")

    async def keep(transaction: RecordTransaction) -> None:
        await transaction.insert(staffs)

    await world.store.transact(keep)
    await told.put(PEOPLES)
    assert (await told.client()).serves_staff_of("skin")
    await told.put({**PEOPLES, "client_name": "Diary 2"})
    client = await told.client()
    assert (client.is_open, client.approved_at) == (True, ())
    ended = {one.key: one.ended_because for one in await world.store.every(TokenFamily)}
    assert ended == {"staffs": "client-changed", mine.key: ""}
    assert await tokens_alive(world) == 1


async def test_a_client_ends_its_registration_and_all_it_holds(world: World) -> None:
    """Planted fault: the registration goes, its tokens stay."""
    told = await register(world, PEOPLES)
    app = await told.app()
    body = await app.tokens()
    response = await told.request("DELETE")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["cache-control"] == "no-store"
    assert not await world.is_alive(body["access_token"])
    (family,) = await world.store.every(TokenFamily)
    assert family.ended_because == "client-deregistered"
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_client", 401)
    assert_oauth_error(await told.request("GET"), "invalid_token", 401)
    assert_oauth_error(await told.request("DELETE"), "invalid_token", 401)
    assert await world.store.every(ClientOrigin) == []
    page = await world.browser().authorize(app)
    assert page.status_code == 401


def stolen(told: Registered, other: Registered) -> dict[str, str]:
    return {
        "another client's": other.token,
        "none of ours": "x" * 43,
        "its hash": told.body["hash"],
        "empty": " ",
    }


@pytest.mark.parametrize("whose", ["another client's", "none of ours", "its hash", "empty"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_its_own_token_manages_a_registration(
    world: World, whose: str, method: str
) -> None:
    """Planted fault: any registration's token will do for any other."""
    told, other = await register(world, PEOPLES), await register(world, PEOPLES)
    told.body["hash"] = (await told.client()).registration_hash
    before = await world.rows()
    sent = {**PEOPLES, "client_id": told.client_id, "client_name": "Stolen"}
    token = stolen(told, other)[whose]
    response = await told.request(method, sent if method == "PUT" else None, token=token)
    assert_oauth_error(response, "invalid_token", 401)
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert await world.rows() == before


async def test_known_and_unknown_clients_are_refused_alike(world: World) -> None:
    """Planted fault: a client that does not exist is 404."""
    told = await register(world, PEOPLES)
    added = await world.public_app("by-operator")
    await disable_client(world.store, (await register(world, PEOPLES)).client_id, now=0)
    paths = ["/oauth/register/nobody", told.path, f"/oauth/register/{added.client_id}"]
    answers = [await told.request("GET", token="x" * 43, path=path) for path in paths]
    assert len({(a.status_code, a.content, a.headers["www-authenticate"]) for a in answers}) == 1


async def test_an_app_shut_out_does_not_manage_its_way_in(world: World) -> None:
    """Planted faults: a disabled client is still managed; its token is good again later."""
    told = await register(world, PEOPLES)
    await disable_client(world.store, told.client_id, now=world.clock())
    assert_oauth_error(await told.put(PEOPLES), "invalid_token", 401)
    await enable_client(world.store, told.client_id)
    assert_oauth_error(await told.put(PEOPLES), "invalid_token", 401)


@pytest.mark.requirement("attacks", "race on a registration token")
async def test_of_fifty_updates_with_one_token_one_succeeds(world: World) -> None:
    """Planted fault: the client is written, not compared and set."""
    told = await register(world, PEOPLES)
    sent = {**PEOPLES, "client_id": told.client_id}
    responses = await asyncio.gather(*(told.request("PUT", sent) for _ in range(50)))
    assert Counter(r.status_code for r in responses) == {200: 1, 401: 49}
    (good,) = [r.json() for r in responses if r.status_code == 200]
    told.body |= good
    assert (await told.request("GET")).status_code == 200


async def test_a_token_in_the_address_is_refused(world: World) -> None:
    """It would be in every log. Planted fault: the query is ignored."""
    told = await register(world, PEOPLES)
    response = await told.request("GET", params={"access_token": told.token})
    assert_oauth_error(response, "invalid_request")


@pytest.mark.parametrize("header", [None, "Basic eDp5", "Bearer", "bearer "])
async def test_without_a_bearer_token_nothing_is_told(world: World, header: str | None) -> None:
    told = await register(world, PEOPLES)
    async with world.http() as http:
        headers = {} if header is None else {"Authorization": header}
        response = await http.get(told.path, headers=headers)
    assert_oauth_error(response, "invalid_token", 401)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD"])
async def test_other_methods_are_not_offered(world: World, method: str) -> None:
    told = await register(world, PEOPLES)
    response = await told.request(method)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, PUT, DELETE, OPTIONS"


async def test_a_registered_origin_manages_from_a_browser(world: World) -> None:
    told = await register(world, PEOPLES)
    origin = {"Origin": "https://app.example"}
    response = await told.request("GET", headers=origin)
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    async with world.http() as http:
        preflight = await http.options(
            told.path, headers={**origin, "Access-Control-Request-Method": "PUT"}
        )
    assert preflight.headers["access-control-allow-methods"] == "GET, PUT, DELETE"


@pytest.mark.parametrize("path", ["/oauth/register/", "/oauth/register/a/b", "/oauth/register/é"])
async def test_nothing_else_is_below_the_endpoint(world: World, path: str) -> None:
    async with world.http() as http:
        response = await http.get(path)
    assert response.status_code == 404
