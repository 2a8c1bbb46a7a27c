"""The authorization endpoint: what it takes, and where refusals go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from fhir_portal.accounts.sessions import Session
from fhir_portal.smart import server
from fhir_portal.smart.authorization import AuthorizationRequest
from fhir_portal.smart.client import disable_client
from tests.smart.world import (
    BASE,
    REDIRECT,
    World,
    assert_redirect_error,
    query_of,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_get_and_post_lead_to_sign_in(world: World, method: str) -> None:
    app = await world.public_app()
    browser = world.browser()
    if method == "GET":
        await browser.authorize(app)
    else:
        answer = await browser.http.post("/oauth/authorize", data=app.parameters())
        assert answer.status_code == 303
        assert "set-cookie" not in answer.headers
        await browser.open(answer.headers["location"])
    assert browser.page.status_code == 200
    assert browser.heading == "Sign in"
    await browser.sign_in()
    assert browser.heading == "Allow Heart Diary to use your record?"


async def test_a_form_posted_from_the_apps_site_keeps_the_session(world: World) -> None:
    """A cross-site POST comes without our cookie; the session must survive it."""
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    async with world.http() as without_cookies:
        answer = await without_cookies.post("/oauth/authorize", data=app.parameters())
    await browser.open(answer.headers["location"])
    assert browser.heading == "Allow Heart Diary to use your record?"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": 'é"'}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "x" * 43 + "\n"}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"aud": "https://inferno.healthit.gov/invalid_aud"}, "invalid_request"),
        ({"aud": f"{BASE}/fhir//"}, "invalid_request"),
        ({"launch": "xyz"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"request_uri": "urn:x"}, "request_uri_not_supported"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "dance"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "9" * 5000}, "invalid_request"),
        ({"scope": None}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"scope": "patient/Patient.rs user/Patient.rs"}, "invalid_scope"),
        ({"scope": "system/*.rs"}, "invalid_scope"),
        ({"scope": "openid user/*.rs"}, "invalid_scope"),
        ({"scope": "patient/Goal.cud"}, "invalid_scope"),
        ({"scope": "openid patient/Unheard.rs"}, "invalid_scope"),
        ({"scope": "patient/Observation.rs?code:in=x"}, "invalid_scope"),
        ({"scope": "patient/Observation.rs?unsearchable=x"}, "invalid_scope"),
        ({"nonce": "n" * 1025}, "invalid_request"),
        ({"login_hint": "l" * 1025}, "invalid_request"),
        ({"prompt": "login " * 200}, "invalid_request"),
        ({"scope": " ".join(f"patient/Goal.r?_id={n}" for n in range(151))}, "invalid_scope"),
    ],
)
async def test_the_app_is_told_what_is_wrong(
    world: World, change: dict[str, str | None], error: str
) -> None:
    app = await world.public_app()
    before = await world.rows()
    assert_redirect_error(await world.browser().authorize(app, **change), error)
    assert await world.rows() == before


async def test_a_state_too_long_to_be_kept_is_refused(world: World) -> None:
    app = await world.public_app()
    state = "s" * 1025
    response = await world.browser().authorize(app, state=state)
    assert_redirect_error(response, "invalid_request", state)
    assert await world.store.every(AuthorizationRequest) == []


@pytest.mark.parametrize(
    "name", ["max_age", "request", "request_uri", "launch", "response_mode", "prompt", "nonce"]
)
async def test_a_parameter_without_a_value_is_as_good_as_none(world: World, name: str) -> None:
    """RFC 6749 §3.1."""
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app, state="", **{name: ""})
    assert browser.heading == "Sign in"
    await browser.sign_in()
    response = await browser.submit({"decision": "deny"})
    assert "state" not in query_of(response.headers["location"])


async def test_a_parameter_that_came_empty_and_again_came_twice(world: World) -> None:
    app = await world.public_app()
    pairs = [*app.parameters().items(), ("nonce", ""), ("nonce", "n")]
    response = await world.browser().open("/oauth/authorize?" + urlencode(pairs))
    assert_redirect_error(response, "invalid_request")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_one_address_cannot_fill_the_store_with_requests(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(server, "REQUESTS_PER_ADDRESS", "3 per hour")
    app = await world.public_app()
    before = len(await world.store.every(Session))
    for status in (303, 303, 303, 429, 429):
        async with world.http() as http:
            if method == "GET":
                response = await http.get("/oauth/authorize", params=app.parameters())
            else:
                response = await http.post("/oauth/authorize", data=app.parameters())
        assert response.status_code == status
    assert response.headers["retry-after"] == "3600"
    assert "location" not in response.headers
    assert len(await world.store.every(AuthorizationRequest)) == 3
    assert len(await world.store.every(Session)) - before == (3 if method == "GET" else 0)


async def test_a_request_that_is_refused_stores_no_session(world: World) -> None:
    app = await world.public_app()
    await world.browser().authorize(app, aud="wrong")
    await world.browser().authorize(app, client_id="nobody")
    assert await world.store.every(Session) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"aud": "wrong"}, "invalid_request"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"response_type": None}, "invalid_request"),
    ],
)
@pytest.mark.requirement("attacks", "open redirect")
async def test_an_app_that_registered_itself_sends_nobody_by_its_own_mistake(
    world: World, change: dict[str, str | None], error: str
) -> None:
    """Anybody may register one: it must not make our address lead wherever they like."""
    app = await world.public_app("own", self_registered=True)
    browser = world.browser()
    response = await browser.authorize(app, **change)
    assert response.status_code == 400
    assert "location" not in response.headers
    assert "Nobody at the practice has checked the app “Heart Diary”." in browser.text
    (link,) = browser.document.xpath("//main//a")
    assert "https://app.example" in link.text_content()
    assert query_of(link.get("href"))["error"] == error
    await browser.authorize(app)
    await browser.sign_in()
    response = await browser.authorize(app, **change)
    if change.get("prompt") == "none":
        assert_redirect_error(response, "consent_required")
    else:
        assert response.status_code == 400
        assert "location" not in response.headers


async def test_refused_requests_count_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """To judge one takes time."""
    monkeypatch.setattr("fhir_portal.smart.server.REQUESTS_PER_ADDRESS", "3 per hour")
    app = await world.public_app()
    browser = world.browser()
    for _ in range(3):
        assert_redirect_error(await browser.authorize(app, scope="nonsense"), "invalid_scope")
    response = await browser.authorize(app, scope="nonsense")
    assert response.status_code == 429


@pytest.mark.parametrize(
    "name", ["scope", "state", "aud", "code_challenge", "response_type", "nonce", "anything"]
)
@pytest.mark.requirement("attacks", "parameter pollution")
async def test_a_repeated_parameter_is_refused(world: World, name: str) -> None:
    app = await world.public_app()
    pairs = [*app.parameters(nonce="n", anything="x").items(), (name, "again")]
    before = await world.rows()
    browser = world.browser()
    assert_redirect_error(
        await browser.open("/oauth/authorize?" + urlencode(pairs)), "invalid_request"
    )
    assert await world.rows() == before


@pytest.mark.requirement("attacks", "parameter pollution")
async def test_a_parameter_in_query_and_body_is_repeated(world: World) -> None:
    app = await world.public_app()
    async with world.http() as http:
        response = await http.post("/oauth/authorize?aud=x", data=app.parameters())
    assert_redirect_error(response, "invalid_request")


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": None},
        {"client_id": "nobody"},
        {"client_id": "é'\";--"},
        {"redirect_uri": None},
        {"redirect_uri": ""},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": f"{REDIRECT}/"},
        {"redirect_uri": f"{REDIRECT}?x=1"},
        {"redirect_uri": f"{REDIRECT}#x"},
        {"redirect_uri": "https://app.example@evil.example/callback"},
        {"redirect_uri": "//evil.example/callback"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": 'é"<script>'},
    ],
)
@pytest.mark.requirement("attacks", "open redirect")
async def test_until_the_redirect_is_certain_a_page_says_what_is_wrong(
    world: World, change: dict[str, str | None]
) -> None:
    app = await world.public_app()
    before = await world.rows()
    browser = world.browser()
    response = await browser.authorize(app, **change)
    assert response.status_code in (400, 401)
    assert "location" not in response.headers
    assert browser.heading == "This did not work"
    assert "evil" not in response.text
    assert await world.rows() == before


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
async def test_a_repeated_client_or_redirect_is_told_to_nobody_else(
    world: World, name: str
) -> None:
    app = await world.public_app()
    pairs = [*app.parameters().items(), (name, "https://evil.example/")]
    browser = world.browser()
    response = await browser.open("/oauth/authorize?" + urlencode(pairs))
    assert response.status_code == 400
    assert "location" not in response.headers


async def test_a_disabled_client_is_unknown(world: World) -> None:
    app = await world.public_app()
    await disable_client(world.store, "app", now=world.clock())
    response = await world.browser().authorize(app)
    assert response.status_code == 401
    assert "location" not in response.headers


async def test_a_backend_has_no_authorization_endpoint(world: World) -> None:
    ehr = await world.backend()
    response = await world.browser().authorize(ehr)
    assert response.status_code == 400
    assert "location" not in response.headers


@pytest.mark.parametrize("aud", [f"{BASE}/fhir/", "http://localhost:8000/fhir"])
async def test_the_audience_may_have_a_slash_or_be_an_alias(world: World, aud: str) -> None:
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app, aud=aud)
    assert browser.heading == "Sign in"


async def test_a_native_app_may_listen_on_any_port(world: World) -> None:
    app = await world.public_app(redirect_uris=["http://127.0.0.1/callback"])
    redirect_uri = "http://127.0.0.1:51004/callback"
    browser = world.browser()
    await browser.authorize(app, redirect_uri=redirect_uri)
    await browser.sign_in()
    response = await browser.submit({"scope": browser.boxes(ticked=True), "decision": "approve"})
    location = response.headers["location"]
    assert location.startswith(f"{redirect_uri}?code=")
    exchanged = await app.exchange(query_of(location)["code"], redirect_uri=redirect_uri)
    assert exchanged.status_code == 200


async def test_a_query_in_the_redirect_uri_survives(world: World) -> None:
    redirect_uri = "https://app.example/callback?tenant=a%20b&list='[1]'&flag"
    app = await world.public_app(redirect_uris=[redirect_uri])
    browser = world.browser()
    denied = await browser.authorize(app, redirect_uri=redirect_uri, aud="wrong")
    assert denied.headers["location"].startswith(f"{redirect_uri}&error=invalid_request")
    await browser.authorize(app, redirect_uri=redirect_uri)
    await browser.sign_in()
    response = await browser.submit({"scope": browser.boxes(ticked=True), "decision": "approve"})
    location = response.headers["location"]
    assert location.startswith(f"{redirect_uri}&code=")
    answer = parse_qs(urlsplit(location).query)
    assert (answer["iss"], answer["state"]) == ([BASE], ["a state/+="])


async def test_prompt_none_without_a_session_needs_login(world: World) -> None:
    app = await world.public_app()
    assert_redirect_error(await world.browser().authorize(app, prompt="none"), "login_required")
    assert await world.store.every(AuthorizationRequest) == []


async def test_prompt_none_with_a_session_needs_consent(world: World) -> None:
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    assert_redirect_error(await browser.authorize(app, prompt="none"), "consent_required")


@pytest.mark.parametrize("prompt", ["login", "select_account"])
async def test_prompt_login_asks_again(world: World, prompt: str) -> None:
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    world.clock.advance(1)
    await browser.authorize(app, prompt=prompt)
    assert browser.heading == "Sign in"
    await browser.sign_in()
    assert browser.heading.startswith("Allow Heart Diary")


async def test_max_age_asks_again_when_it_is_passed(world: World) -> None:
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    world.clock.advance(100)
    await browser.authorize(app, max_age="100")
    assert browser.heading.startswith("Allow Heart Diary")
    await browser.authorize(app, max_age="99")
    assert browser.heading == "Sign in"


async def test_the_login_hint_is_filled_in_and_escaped(world: World) -> None:
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app, login_hint='"><script>alert(1)</script>')
    (field,) = browser.document.xpath('//input[@name="username"]')
    assert field.get("value") == '"><script>alert(1)</script>'
    assert browser.document.xpath("//script[not(@src)]") == []


async def test_a_request_runs_out(world: World) -> None:
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app)
    world.clock.advance(900)
    response = await browser.sign_in()
    assert response.status_code == 400
    assert "This request is over" in browser.text


async def test_another_browser_cannot_take_a_request_over(world: World) -> None:
    app = await world.public_app()
    browser, other = world.browser(), world.browser()
    await browser.authorize(app)
    await other.open(str(browser.page.url))
    assert other.page.status_code == 400
    assert "another browser" in other.text
