"""Pushed authorization requests over HTTP, RFC 9126: who may push, what a reference is good for.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_portal.smart.authorization import AuthorizationRequest
from fhir_portal.smart.client import disable_client
from fhir_portal.smart.par import PushedRequest
from tests.smart.world import (
    BASE,
    REDIRECT,
    App,
    Browser,
    World,
    assert_oauth_error,
    assert_redirect_error,
    query_of,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


async def push(app: App, **changes: str | None) -> httpx.Response:
    return await app.post("/oauth/par", app.parameters(**changes))


async def pushed(app: App, **changes: str | None) -> str:
    response = await push(app, **changes)
    assert response.status_code == 201, response.text
    request_uri: str = response.json()["request_uri"]
    return request_uri


async def open_with(
    browser: Browser, request_uri: str, client_id: str = "app", **more: str
) -> httpx.Response:
    parameters = {"client_id": client_id, "request_uri": request_uri, **more}
    return await browser.open("/oauth/authorize", params=parameters)


async def approved(browser: Browser) -> dict[str, str]:
    """Sign in and allow everything; what the app is sent back."""
    await browser.sign_in()
    await browser.submit({"decision": "approve", "scope": browser.boxes(ticked=True)})
    return query_of(browser.page.headers["location"])


def assert_error_page(response: httpx.Response) -> None:
    assert response.status_code == 400
    assert "location" not in response.headers
    assert "used before" in response.text


async def test_the_discovery_documents_say_where_to_push(world: World) -> None:
    for document in (world.server.smart_configuration(), world.server.openid_configuration()):
        assert document["pushed_authorization_request_endpoint"] == f"{BASE}/oauth/par"
        assert document["require_pushed_authorization_requests"] is False


async def test_a_pushed_request_leads_to_tokens(world: World) -> None:
    app = await world.public_app()
    response = await push(app)
    body = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert set(body) == {"request_uri", "expires_in"}
    assert body["expires_in"] == 60
    assert body["request_uri"].startswith("urn:ietf:params:oauth:request_uri:")
    browser = world.browser()
    await open_with(browser, body["request_uri"])
    answer = await approved(browser)
    assert (answer["state"], answer["iss"]) == ("a state/+=", BASE)
    assert (await app.exchange(answer["code"])).status_code == 200


async def test_the_reference_may_be_posted_to_the_authorization_endpoint(world: World) -> None:
    app = await world.public_app()
    form = {"client_id": "app", "request_uri": await pushed(app)}
    browser = world.browser()
    answer = await browser.http.post("/oauth/authorize", data=form)
    await browser.open(answer.headers["location"])
    assert browser.heading == "Sign in"


@pytest.mark.parametrize("kind", ["basic", "post", "assertion"])
@pytest.mark.parametrize("with_client_id", [True, False])
async def test_a_client_authenticates_as_at_the_token_endpoint(
    world: World,
    kind: str,
    with_client_id: bool,  # noqa: FBT001 - a table
) -> None:
    if kind == "assertion":
        signer = await world.backend("signer")
        assert signer.key is not None
        jwks = {"keys": [{**signer.key.as_dict(private=False), "kid": "app-key"}]}
        app = await world.confidential_app("app", auth_method="private_key_jwt", jwks=jwks)
        app.key = signer.key
    else:
        app = await world.confidential_app("app")
    changes = {} if with_client_id else {"client_id": None}
    form: dict[str, str | None] = {**app.parameters(**changes)}
    if kind == "post":
        form |= {"client_id": "app", "client_secret": app.secret}
    response = await app.post("/oauth/par", form)
    assert response.status_code == 201, response.text
    (kept,) = await world.store.every(PushedRequest)
    assert kept.parameters["client_id"] == kept.client_id == "app"
    assert not kept.parameters.keys() & {"client_secret", "client_assertion"}


@pytest.mark.parametrize("aud", [f"{BASE}/oauth/par", f"{BASE}/oauth/token", BASE])
async def test_an_assertion_may_name_issuer_token_endpoint_or_this_one(
    world: World, aud: str
) -> None:
    """RFC 9126 §2."""
    signer = await world.backend("signer")
    assert signer.key is not None
    jwks = {"keys": [{**signer.key.as_dict(private=False), "kid": "app-key"}]}
    app = await world.confidential_app("app", auth_method="private_key_jwt", jwks=jwks)
    app.key = signer.key
    form = {**app.parameters(), "client_assertion": app.assertion(aud=aud)}
    assert (await app.post("/oauth/par", form)).status_code == 201
    wrong = {**app.parameters(), "client_assertion": app.assertion(aud=f"{BASE}/oauth/parr")}
    assert_oauth_error(await app.post("/oauth/par", wrong), "invalid_client", 401)


async def test_an_assertion_buys_one_push(world: World) -> None:
    """Planted fault: the push commits its request without the assertion's ``jti``."""
    signer = await world.backend("signer")
    assert signer.key is not None
    jwks = {"keys": [{**signer.key.as_dict(private=False), "kid": "app-key"}]}
    app = await world.confidential_app("app", auth_method="private_key_jwt", jwks=jwks)
    app.key = signer.key
    form = {**app.parameters(), "client_assertion": app.assertion()}
    assert (await app.post("/oauth/par", form)).status_code == 201
    assert_oauth_error(await app.post("/oauth/par", form), "invalid_client", 401)
    assert len(await world.store.every(PushedRequest)) == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"redirect_uri": "https://evil.example/cb"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"aud": "https://elsewhere.example/fhir"}, "invalid_request"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"scope": "system/*.rs"}, "invalid_scope"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"),
        ({"request_uri": "https://app.example/request.jwt"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"state": "s" * 1025}, "invalid_request"),
    ],
)
async def test_what_the_authorization_endpoint_refuses_cannot_be_pushed(
    world: World, change: dict[str, str | None], error: str
) -> None:
    app = await world.public_app()
    assert_oauth_error(await push(app, **change), error)
    assert await world.store.every(PushedRequest) == []


async def test_a_client_that_cannot_authenticate_pushes_nothing(world: World) -> None:
    """Planted fault: the endpoint looks the client up by ``client_id`` alone."""
    app = await world.confidential_app("app")
    async with world.http() as http:
        nobody = await http.post("/oauth/par", data=app.parameters())
        wrong = await http.post("/oauth/par", data=app.parameters(), auth=("app", "wrong"))
    assert_oauth_error(nobody, "invalid_client", 401)
    assert_oauth_error(wrong, "invalid_client", 401)
    assert wrong.headers["www-authenticate"].startswith("Basic ")
    assert await world.store.every(PushedRequest) == []


async def test_a_backend_has_nobody_to_ask(world: World) -> None:
    ehr = await world.backend()
    response = await ehr.post("/oauth/par", ehr.parameters(client_id=None))
    assert response.status_code == 400
    assert await world.store.every(PushedRequest) == []


async def test_a_parameter_pushed_twice_is_refused(world: World) -> None:
    """Parameter pollution. Planted fault: the last of two values wins."""
    app = await world.public_app()
    pairs: list[Any] = [*app.parameters().items(), ("redirect_uri", REDIRECT)]
    async with world.http() as http:
        response = await http.post(
            "/oauth/par",
            content=str(httpx.QueryParams(pairs)),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
    assert_oauth_error(response, "invalid_request")


async def test_a_reference_is_good_once(world: World) -> None:
    """Planted fault: `begin` reads the pushed request and leaves it where it is."""
    app = await world.public_app()
    request_uri = await pushed(app)
    browser = world.browser()
    await open_with(browser, request_uri)
    assert browser.heading == "Sign in"
    assert_error_page(await open_with(world.browser(), request_uri))
    assert_error_page(await open_with(browser, request_uri))


@pytest.mark.requirement("attacks", "race on a pushed request")
async def test_of_fifty_uses_of_one_reference_one_succeeds(world: World) -> None:
    """Planted fault: the deletion's result is not looked at."""
    app = await world.public_app()
    request_uri = await pushed(app)
    pairs = [("client_id", "app"), ("request_uri", request_uri)]
    results = await asyncio.gather(
        *(world.server.begin(pairs) for _ in range(50)), return_exceptions=True
    )
    assert Counter(isinstance(result, str) for result in results) == {True: 1, False: 49}
    assert len(await world.store.every(AuthorizationRequest)) == 1


@pytest.mark.parametrize(("seconds", "good"), [(59.9, True), (60, False), (3600, False)])
async def test_a_reference_lives_a_minute(
    world: World,
    seconds: float,
    good: bool,  # noqa: FBT001 - a table
) -> None:
    """Planted fault: the time is left to housekeeping, which comes once a minute."""
    app = await world.public_app()
    request_uri = await pushed(app)
    world.clock.advance(seconds)
    response = await open_with(world.browser(), request_uri)
    assert (response.status_code == 200) is good
    if not good:
        assert_error_page(response)


async def test_another_app_cannot_use_the_reference(world: World) -> None:
    """Planted fault: whose reference it is, is not compared."""
    app = await world.public_app()
    await world.public_app("thief")
    request_uri = await pushed(app)
    assert_error_page(await open_with(world.browser(), request_uri, "thief"))
    nobody = await world.browser().open("/oauth/authorize", params={"request_uri": request_uri})
    assert_error_page(nobody)
    browser = world.browser()
    await open_with(browser, request_uri)  # the theft has not used it up
    assert browser.heading == "Sign in"


async def test_what_the_browser_adds_does_not_count(world: World) -> None:
    """Code injection by the browser. Planted fault: its own parameters are merged in."""
    app = await world.public_app()
    request_uri = await pushed(app, scope="launch/patient patient/Goal.rs", state="pushed")
    browser = world.browser()
    await open_with(
        browser,
        request_uri,
        scope="launch/patient patient/*.cruds",
        state="added",
        redirect_uri="https://evil.example/",
        code_challenge="x" * 43,
    )
    await browser.sign_in()
    assert browser.boxes() == ["patient/Goal.rs"]
    await browser.submit({"decision": "approve", "scope": ["patient/Goal.rs"]})
    location = browser.page.headers["location"]
    assert location.startswith(f"{REDIRECT}?")
    assert query_of(location)["state"] == "pushed"
    assert (await app.exchange(query_of(location)["code"])).status_code == 200


@pytest.mark.parametrize("name", ["client_id", "request_uri"])
async def test_a_reference_beside_another_one_is_refused(world: World, name: str) -> None:
    """Parameter pollution. Planted fault: repeats are looked at after the reference was read."""
    app = await world.public_app()
    pairs = [("client_id", "app"), ("request_uri", await pushed(app)), (name, "x")]
    response = await world.browser().open("/oauth/authorize", params=pairs)
    assert response.status_code == 400
    assert await world.store.every(AuthorizationRequest) == []


async def test_a_client_that_has_to_push_is_refused_at_the_browser(world: World) -> None:
    """Planted fault: ``require_pushed_authorization_requests`` is kept and not looked at."""
    app = await world.public_app(require_pushed_authorization_requests=True)
    assert_redirect_error(await world.browser().authorize(app), "invalid_request")
    browser = world.browser()
    await open_with(browser, await pushed(app))
    assert browser.heading == "Sign in"


async def test_a_refusal_later_names_the_app_by_the_pushed_redirect(world: World) -> None:
    app = await world.public_app()
    request_uri = await pushed(app, prompt="none")
    browser = world.browser()
    assert_redirect_error(await open_with(browser, request_uri), "login_required")


async def test_a_client_shut_out_meanwhile_is_not_let_in_by_its_reference(world: World) -> None:
    """Planted fault: a pushed request is not judged again when it is used."""
    app = await world.public_app()
    request_uri = await pushed(app)
    await disable_client(world.store, "app", now=world.clock())
    response = await open_with(world.browser(), request_uri)
    assert response.status_code == 401
    assert await world.store.every(AuthorizationRequest) == []


async def test_the_reference_is_hashed_at_rest(world: World) -> None:
    app = await world.public_app()
    reference = (await pushed(app)).rpartition(":")[2]
    assert reference not in str(await world.store.every(PushedRequest))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_is_taken(world: World, method: str) -> None:
    async with world.http() as http:
        response = await http.request(method, "/oauth/par")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST, OPTIONS"


async def test_a_registered_origin_may_push(world: World) -> None:
    app = await world.public_app()
    headers = {"Origin": "https://app.example"}
    response = await app.post("/oauth/par", app.parameters(), headers=headers)
    assert response.headers["access-control-allow-origin"] == "https://app.example"


async def test_a_request_that_is_no_form_is_refused(world: World) -> None:
    app = await world.public_app()
    async with world.http() as http:
        response = await http.post("/oauth/par", json=app.parameters())
        large: Any = await http.post("/oauth/par", data={"client_id": "x" * 70_000})
    assert_oauth_error(response, "invalid_request")
    assert_oauth_error(large, "invalid_request", 413)


async def test_one_address_cannot_push_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: the push is not counted."""
    monkeypatch.setattr("fhir_portal.smart.server.REQUESTS_PER_ADDRESS", "2 per hour")
    app = await world.public_app()
    assert [(await push(app)).status_code for _ in range(3)] == [201, 201, 429]
