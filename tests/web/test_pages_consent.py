"""Sign-in, picker and consent, as a person meets them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from fhir_portal.accounts.account import enable_account
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.sessions import Session, end_sessions
from fhir_portal.smart.authorization import AuthorizationRequest
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.errors import LoginRequired
from fhir_portal.smart.offer import SUB_RESOURCES
from fhir_portal.smart.revocation import disable_account, revoke_family
from tests.smart.world import (
    BASE,
    REDIRECT,
    START,
    App,
    Browser,
    World,
    assert_redirect_error,
    childs_record,
    own_record,
    query_of,
)
from tests.web.signing_in import fields_of

OBSERVATION = "patient/Observation.rs"
LASTING = f"openid offline_access {OBSERVATION}"
CHILDREN = [f"{OBSERVATION}?{query}" for query in SUB_RESOURCES["Observation"]]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.fixture
async def app(world: World) -> App:
    return await world.public_app()


@pytest.fixture
async def browser(world: World, app: App) -> Browser:
    """A browser in which the one account signed in and now sees the consent page."""
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    return browser


async def approve(browser: Browser, *ticked: str) -> dict[str, str]:
    response = await browser.submit({"scope": list(ticked), "decision": "approve"})
    return query_of(response.headers["location"])


# --- sign-in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "password"),
    [("mara@example.org", "wrong"), ("nobody@example.org", "wrong"), ("", "")],
)
async def test_every_failed_sign_in_looks_the_same(
    world: World, app: App, username: str, password: str
) -> None:
    browser = world.browser()
    await browser.authorize(app)
    response = await browser.sign_in(username, password)
    assert response.status_code == 403
    assert "The user name or the password is wrong." in browser.text
    assert browser.form.xpath("string(.//input[@name='password']/@value)") == ""


async def test_too_many_tries_have_to_wait(world: World, app: App) -> None:
    browser = world.browser()
    await browser.authorize(app)
    for _ in range(10):
        await browser.sign_in(password="wrong")
    response = await browser.sign_in()
    assert response.status_code == 429
    assert response.headers["retry-after"] == "900"
    assert "Too many tries. Try again in 16 minutes." in browser.text


async def test_a_browser_that_signed_in_before_is_not_locked_out_by_strangers(
    world: World, app: App, browser: Browser
) -> None:
    stranger = world.browser()
    await stranger.authorize(app)
    for _ in range(10):
        await stranger.sign_in(password="wrong")
    assert (await stranger.sign_in()).status_code == 429
    world.clock.advance(1)
    await browser.authorize(app, prompt="login")
    await browser.sign_in()
    assert browser.heading.startswith("Allow")


async def test_signing_in_changes_the_session_cookie(world: World, app: App) -> None:
    browser = world.browser()
    await browser.authorize(app)
    before = browser.http.cookies["portal-session"]
    await browser.sign_in()
    assert browser.http.cookies["portal-session"] != before
    assert len(await world.store.every(Session)) == 1


@pytest.mark.requirement("attacks", "session fixation")
async def test_a_planted_session_gives_its_planter_nothing(world: World, app: App) -> None:
    planter, victim = world.browser(), world.browser()
    await planter.authorize(app)
    planted = planter.http.cookies["portal-session"]
    victim.http.cookies.set("portal-session", planted)
    await victim.open(str(planter.page.url))
    await victim.sign_in()
    assert victim.heading.startswith("Allow")
    await planter.open(str(victim.page.url))
    assert planter.page.status_code == 400
    await planter.open("/signin")
    assert planter.heading == "Sign in"


async def test_looking_at_the_sign_in_page_stores_nothing(world: World) -> None:
    browser = world.browser()
    await browser.open("/signin")
    cookie = browser.http.cookies["portal-session"]
    await browser.open("/signin")
    assert browser.http.cookies["portal-session"] == cookie  # another tab keeps its form
    for path in ("/oauth/continue", "/oauth/record", "/oauth/consent", "/signin"):
        async with world.http() as http:
            assert (await http.get(f"{path}?request=unknown")).status_code == 400
    assert await world.store.every(Session) == []
    await browser.sign_in()
    assert browser.heading == "You are signed in"
    assert browser.http.cookies["portal-session"] != cookie


async def test_who_is_shut_out_while_signing_in_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = world.browser()
    await browser.open("/signin")
    verify = Passwords.verify

    async def slow(self: Passwords, stored: str | None, password: str) -> bool:
        right = await verify(self, stored, password)
        await disable_account(world.store, world.mara.key, now=world.clock())
        return right

    monkeypatch.setattr(Passwords, "verify", slow)
    assert (await browser.sign_in()).status_code == 403
    await enable_account(world.store, world.mara.key)
    await browser.open("/signin")
    assert browser.heading == "Sign in"


async def test_the_cookie_is_bound_and_hidden(world: World) -> None:
    browser = world.browser()
    answer = await browser.http.get("/signin")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("portal-session=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


async def test_with_tls_the_cookie_is_bound_to_the_host() -> None:
    world = await World.begin(base="https://portal.example")
    async with world.http() as http:
        cookie = (await http.get("/signin")).headers["set-cookie"]
    world.close()
    assert cookie.startswith("__Host-portal-session=")
    assert "Secure" in cookie


async def test_signing_in_without_an_app_leads_nowhere_else(world: World) -> None:
    browser = world.browser()
    await browser.open("/signin?next=https://evil.example")
    assert browser.heading == "Sign in"
    await browser.sign_in()
    assert browser.heading == "You are signed in"
    assert str(browser.page.url) == f"{BASE}/signin"
    await browser.submit()
    assert browser.heading == "Sign in"
    assert await world.store.find(Session, "account", world.mara.key) == []


async def test_the_address_holds_nothing_about_a_person(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app, login_hint="mara@example.org")
    addresses = [str(browser.page.url)]
    await browser.sign_in()
    addresses.append(str(browser.page.url))
    await browser.submit({"record": "Patient/pip"})
    addresses.append(str(browser.page.url))
    for address in addresses:
        assert "mara" not in address.lower()
        assert "pip" not in address.lower()


# --- forms --------------------------------------------------------------------------------------


async def answers(browser: Browser) -> dict[str, Any]:
    return {"scope": browser.boxes(), "decision": "approve"}


@pytest.mark.parametrize("token", [None, "", "x", "é", "another form's"])
@pytest.mark.requirement("attacks", "cross-site request forgery")
async def test_a_form_without_its_token_is_refused(
    world: World, browser: Browser, token: str | None
) -> None:
    page = browser.page
    if token == "another form's":
        await browser.open("/signin")
        (field,) = browser.document.xpath('//input[@name="form_token"]')
        token = field.get("value")
        browser.page = page
    before = await world.rows()
    fields = {**await answers(browser), "form_token": token}
    response = await browser.submit(fields, drop=["form_token"] if token is None else [])
    assert response.status_code == 403
    assert "location" not in response.headers
    assert await world.rows() == before


async def test_a_sign_in_form_without_its_token_is_refused(world: World) -> None:
    browser = world.browser()
    await browser.open("/signin")
    response = await browser.submit(
        {"username": "mara@example.org", "password": "x"}, drop=["form_token"]
    )
    assert response.status_code == 403
    assert await world.store.find(Session, "account", world.mara.key) == []


@pytest.mark.requirement("attacks", "cross-site request forgery")
async def test_another_browsers_token_is_refused(world: World, app: App, browser: Browser) -> None:
    other = world.browser()
    await other.authorize(app)
    await other.sign_in()
    (field,) = other.document.xpath('//input[@name="form_token"]')
    fields = {**await answers(browser), "form_token": field.get("value")}
    assert (await browser.submit(fields)).status_code == 403


@pytest.mark.requirement("attacks", "cross-site request forgery")
async def test_a_form_that_another_site_sends_is_refused(browser: Browser) -> None:
    browser.http.headers["Sec-Fetch-Site"] = "cross-site"
    assert (await browser.submit(await answers(browser))).status_code == 403


@pytest.mark.parametrize("name", ["decision", "request", "form_token"])
async def test_a_field_may_come_once_only(browser: Browser, name: str) -> None:
    fields = await answers(browser)
    (hidden, *_) = browser.form.xpath(f'.//*[@name="{name}"]')
    response = await browser.submit({**fields, name: [hidden.get("value")] * 2})
    assert response.status_code == 400


@pytest.mark.parametrize("decision", [None, "", "maybe"])
async def test_a_decision_is_yes_or_no(
    world: World, browser: Browser, decision: str | None
) -> None:
    before = await world.rows()
    fields = {"scope": browser.boxes()} | ({} if decision is None else {"decision": decision})
    assert (await browser.submit(fields)).status_code == 400
    assert await world.rows() == before


@pytest.mark.requirement("attacks", "clickjacking")
async def test_pages_cannot_be_framed_sniffed_cached_or_leaked(browser: Browser) -> None:
    headers = browser.page.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert browser.document.xpath("//script | //*[@style] | //*[@onclick]") == []


@pytest.mark.parametrize(
    ("redirect_uri", "sources"),
    [
        (REDIRECT, "'self' https:"),
        ("http://127.0.0.1:5000/cb", "'self' https: http://127.0.0.1:5000"),
        ("com.example.app:/cb", "'self' https: com.example.app:"),
    ],
)
async def test_the_policy_lets_the_answer_reach_the_app(
    world: World, redirect_uri: str, sources: str
) -> None:
    app = await world.public_app("native", redirect_uris=[redirect_uri])
    browser = world.browser()
    await browser.authorize(app, redirect_uri=redirect_uri)
    policy = browser.page.headers["content-security-policy"]
    assert policy.endswith(f"form-action {sources}")


async def test_the_stylesheet_is_there(browser: Browser) -> None:
    (link,) = browser.document.xpath('//link[@rel="stylesheet"]')
    response = await browser.http.get(link.get("href"))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/css")


# --- picker -------------------------------------------------------------------------------------


async def test_several_records_are_offered_by_name_relation_and_practice(
    world: World, app: App
) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    assert browser.heading == "Whose record?"
    values = [radio.get("value") for radio in browser.document.xpath('//input[@name="record"]')]
    assert values == ["Patient/mara", "Patient/pip"]
    for words in ("Mara Quill", "Your own record", "Pip Quill", "You are: mother", "Brook Family"):
        assert words in browser.text
    await browser.submit({"record": "Patient/pip"})
    assert browser.heading == "Allow Heart Diary to use the record of Pip Quill?"


async def test_a_choice_can_be_made_again(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    await browser.submit({"record": "Patient/pip"})
    (link,) = browser.document.xpath("//main//a")
    await browser.open(link.get("href"))
    assert browser.heading == "Whose record?"
    await browser.submit({"record": "Patient/mara"})
    assert browser.heading == "Allow Heart Diary to use your record?"


async def test_a_proxy_with_one_record_still_sees_whose_it_is(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    assert browser.heading == "Whose record?"
    await browser.submit({"record": "Patient/pip"})
    assert browser.heading == "Allow Heart Diary to use the record of Pip Quill?"


@pytest.mark.parametrize(
    "record", ["Patient/jon", "Patient/unknown", "pip", "Patient/pip/", "RelatedPerson/x", "' OR 1"]
)
async def test_a_record_that_is_not_ones_own_cannot_be_picked(
    world: World, app: App, record: str
) -> None:
    """Another person's record and one that does not exist get the same answer."""
    await world.account("jon@example.org", own_record("Patient/jon", "Jon Quill"))
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    before = await world.rows()
    response = await browser.submit({"record": record})
    assert response.status_code == 403
    assert "This record cannot be chosen." in browser.text
    assert await world.rows() == before


async def test_a_picker_without_an_answer_asks_again(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    response = await browser.submit()
    assert response.status_code == 400
    assert "Choose a record." in browser.text


async def test_somebody_without_a_record_can_only_go_back(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = ()
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    assert browser.heading == "No record to share"
    assert_redirect_error(await browser.submit({"decision": "deny"}), "access_denied")
    assert await world.store.every(AuthorizationRequest) == []


async def test_a_grant_that_ends_before_the_answer_gives_nothing(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    await browser.submit({"record": "Patient/pip"})
    world.directory.access[world.mara.key] = (own_record(),)
    await browser.submit(await answers(browser))
    assert await world.store.every(AuthorizationCode) == []


async def test_records_of_one_id_at_two_practices_can_be_told_apart(world: World, app: App) -> None:
    elsewhere = dataclasses.replace(own_record(), practice="family", practice_name="Brook Family")
    world.directory.access[world.mara.key] = (own_record(), elsewhere, childs_record())
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    values = [radio.get("value") for radio in browser.document.xpath('//input[@name="record"]')]
    assert values == ["skin/Patient/mara", "family/Patient/mara", "Patient/pip"]
    await browser.submit({"record": "family/Patient/mara"})
    assert "Brook Family" in browser.text
    (link,) = browser.document.xpath("//main//a")
    page = browser.page
    await browser.open(link.get("href"))
    chosen = browser.document.xpath('//input[@name="record"][@checked]/@value')
    assert chosen == ["family/Patient/mara"]
    browser.page = page
    query = await approve(browser, OBSERVATION)
    assert (await app.exchange(query["code"])).status_code == 200
    assert (await world.only_family()).practice == "family"


async def test_a_record_to_which_two_ways_lead_is_not_offered(world: World, app: App) -> None:
    """Which of the two grants counts would be a guess."""
    second = dataclasses.replace(
        childs_record(), fhir_user="RelatedPerson/again", grant="Consent/again"
    )
    world.directory.access[world.mara.key] = (childs_record(), second)
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    assert browser.heading == "No record to share"


async def test_a_proxy_whom_a_practice_calls_self_is_a_proxy(world: World) -> None:
    called_self = dataclasses.replace(childs_record(), relation="self")
    world.directory.access[world.mara.key] = (called_self,)
    app, browser = await approved_web_app(world, OBSERVATION)
    await browser.authorize(app, scope=OBSERVATION)
    assert browser.heading == "Whose record?"
    assert "Your own record" not in browser.text
    await browser.submit({"record": "Patient/pip"})
    assert browser.heading == "Allow Heart Diary to use the record of Pip Quill?"


# --- consent ------------------------------------------------------------------------------------


async def another_record_is_picked(_: World, browser: Browser) -> None:
    (link,) = browser.document.xpath("//main//a")
    page = browser.page
    await browser.open(link.get("href"))
    await browser.submit({"record": "Patient/mara"})
    browser.page = page


async def the_grant_is_replaced(world: World, _: Browser) -> None:
    other = dataclasses.replace(childs_record(), grant="Consent/another")
    world.directory.access[world.mara.key] = (own_record(), other)


async def the_person_becomes_another_proxy(world: World, _: Browser) -> None:
    other = dataclasses.replace(childs_record(), fhir_user="RelatedPerson/another")
    world.directory.access[world.mara.key] = (own_record(), other)


async def the_grant_is_widened(world: World, _: Browser) -> None:
    child = childs_record()
    wider = dataclasses.replace(child, sections=(child.sections or frozenset()) | {"billing"})
    world.directory.access[world.mara.key] = (own_record(), wider)


@pytest.mark.parametrize(
    "happens",
    [
        another_record_is_picked,
        the_grant_is_replaced,
        the_person_becomes_another_proxy,
        the_grant_is_widened,
    ],
)
async def test_a_yes_is_about_what_the_page_showed(
    world: World, app: App, happens: Callable[[World, Browser], Awaitable[None]]
) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    await browser.submit({"record": "Patient/pip"})
    await happens(world, browser)
    response = await browser.submit({"scope": [OBSERVATION], "decision": "approve"})
    assert response.status_code == 400
    assert "What this page was about has changed." in browser.text
    assert await world.store.every(AuthorizationCode) == []
    query = await approve(browser, OBSERVATION)  # the page shown now is about what is now
    assert (await app.exchange(query["code"])).status_code == 200


async def test_a_request_that_changes_while_it_is_answered_is_asked_about_again(
    world: World, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tab picks another record after this answer was judged, before it is stored."""
    elsewhere = dataclasses.replace(own_record("Patient/other"), practice="family")
    world.directory.access[world.mara.key] = (own_record(), elsewhere)
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    await browser.submit({"record": "Patient/mara"})
    (asked,) = await world.store.every(AuthorizationRequest)
    transact = world.store.transact

    async def late(work: Any) -> Any:
        monkeypatch.setattr(world.store, "transact", transact)
        changed = msgspec.structs.replace(asked, practice="family", patient="Patient/other")
        await transact(lambda transaction: transaction.put(changed))
        return await transact(work)

    monkeypatch.setattr(world.store, "transact", late)
    response = await browser.submit({"scope": [OBSERVATION], "decision": "approve"})
    assert response.status_code == 400
    assert "What this page was about has changed." in browser.text
    assert await world.store.every(AuthorizationCode) == []


async def test_consent_says_who_asks_whose_record_how_long_and_what(browser: Browser) -> None:
    for words in (
        "Heart Diary",
        "https://app.example",
        "Mara Quill, born 1984-05-12",
        "Hillside Dermatology",
        "15 minutes from now",
        "until you remove it, or it has not been used for 92 days; 365 days at most.",
        "Test results, vital signs and other observations",
        "The app may see these.",
        "Know which person in the practice's records you are",
    ):
        assert words in browser.text.replace("’", "'"), words  # noqa: RUF001 - typography


async def test_a_proxy_is_told_when_the_own_access_ends(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (childs_record(until=START + 86_400),)
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    await browser.submit({"record": "Patient/pip"})
    assert "You are: mother." in browser.text
    assert "Your own access to this record ends on 18 March 2030" in browser.text


async def test_an_app_that_registered_itself_is_marked(world: World) -> None:
    app = await world.public_app("own", self_registered=True)
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    assert "Nobody at the practice has checked this app." in browser.text


async def test_scopes_are_ticked_and_their_parts_are_not(browser: Browser) -> None:
    assert browser.boxes() == [
        "patient/Patient.rs",
        OBSERVATION,
        *CHILDREN,
        "offline_access",
    ]
    assert browser.boxes(ticked=True) == ["patient/Patient.rs", OBSERVATION, "offline_access"]


async def test_a_wildcard_is_one_box_for_each_type_section_by_section(
    world: World, app: App
) -> None:
    browser = world.browser()
    await browser.authorize(app, scope="launch/patient patient/*.rs")
    await browser.sign_in()
    assert browser.boxes(ticked=True) == [
        "patient/Patient.rs",
        "patient/Coverage.rs",
        "patient/QuestionnaireResponse.rs",
        OBSERVATION,
        "patient/Condition.rs",
        "patient/Goal.rs",
    ]
    assert [heading.text for heading in browser.document.xpath("//fieldset/h2")] == [
        "Personal details",
        "Insurance",
        "Forms",
        "Test results",
        "Health summary",
    ]


async def test_version_1_scopes_stay_version_1(world: World, app: App) -> None:
    browser = world.browser()
    await browser.authorize(app, scope="launch/patient patient/Patient.read patient/Goal.*")
    await browser.sign_in()
    assert browser.boxes() == ["patient/Patient.read", "patient/Goal.read"]
    query = await approve(browser, *browser.boxes())
    body = (await app.exchange(query["code"])).json()
    assert body["scope"] == "launch/patient patient/Patient.read patient/Goal.read"


async def test_only_what_a_record_allows_is_offered(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app, scope="patient/Coverage.rs patient/QuestionnaireResponse.cruds")
    await browser.sign_in()
    await browser.submit({"record": "Patient/pip"})
    assert browser.boxes() == ["patient/QuestionnaireResponse.rs"]


async def test_when_a_record_allows_nothing_the_app_is_told(world: World, app: App) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    browser = world.browser()
    await browser.authorize(app, scope="patient/Coverage.rs")
    await browser.sign_in()
    assert_redirect_error(await browser.submit({"record": "Patient/pip"}), "invalid_scope")


@pytest.mark.parametrize(
    ("ticked", "granted"),
    [
        ([OBSERVATION], [OBSERVATION]),
        ([OBSERVATION, *CHILDREN], [OBSERVATION]),
        ([OBSERVATION, CHILDREN[1]], [CHILDREN[1]]),
        ([CHILDREN[1], CHILDREN[5]], [CHILDREN[1], CHILDREN[5]]),
        (["patient/Patient.rs"], ["patient/Patient.rs"]),
        (["patient/Patient.rs", "offline_access"], ["offline_access", "patient/Patient.rs"]),
    ],
)
async def test_the_token_holds_exactly_what_was_ticked(
    app: App, browser: Browser, ticked: list[str], granted: list[str]
) -> None:
    query = await approve(browser, *ticked)
    assert query["state"] == "a state/+="
    assert query["iss"] == BASE
    body = (await app.exchange(query["code"])).json()
    assert body["scope"].split() == ["launch/patient", "openid", "fhirUser", *granted]
    assert ("refresh_token" in body) == ("offline_access" in ticked)


async def test_approving_nothing_asks_again(world: World, browser: Browser) -> None:
    before = await world.rows()
    response = await browser.submit({"scope": ["offline_access"], "decision": "approve"})
    assert response.status_code == 400
    assert "Tick what the app may use" in browser.text
    assert browser.boxes(ticked=True) == ["offline_access"]
    assert await world.rows() == before


@pytest.mark.parametrize("extra", ["patient/*.rs", "patient/Goal.rs", "user/*.cruds", "openid"])
async def test_a_scope_that_was_not_offered_is_refused(
    world: World, browser: Browser, extra: str
) -> None:
    before = await world.rows()
    fields = {"scope": [OBSERVATION, extra], "decision": "approve"}
    assert (await browser.submit(fields)).status_code == 400
    assert await world.rows() == before


async def test_a_no_is_told_to_the_app(world: World, browser: Browser) -> None:
    response = await browser.submit({"scope": browser.boxes(), "decision": "deny"})
    assert_redirect_error(response, "access_denied")
    assert await world.store.every(AuthorizationRequest) == []
    assert await world.store.every(AuthorizationCode) == []


@pytest.mark.parametrize("first", ["approve", "deny"])
async def test_a_request_is_answered_once(world: World, browser: Browser, first: str) -> None:
    page = browser.page
    await browser.submit({"scope": [OBSERVATION], "decision": first})
    browser.page = page
    codes = await world.store.every(AuthorizationCode)
    response = await browser.submit({"scope": [OBSERVATION], "decision": "approve"})
    assert response.status_code == 400
    assert await world.store.every(AuthorizationCode) == codes


async def test_nobody_answers_for_a_session_that_ended(world: World, browser: Browser) -> None:
    world.clock.advance(800)
    (session,) = await world.store.every(Session)
    await world.sessions.sign_out(session)
    response = await browser.submit(await answers(browser))
    assert response.status_code == 403
    assert await world.store.every(AuthorizationCode) == []


# --- asking again -------------------------------------------------------------------------------


async def test_a_public_app_is_consented_to_each_time(app: App, browser: Browser) -> None:
    await approve(browser, *browser.boxes(ticked=True))
    await browser.authorize(app)
    assert browser.heading.startswith("Allow")


async def approved_web_app(world: World, scope: str) -> tuple[App, Browser]:
    """A confidential app, approved and holding tokens."""
    app = await world.confidential_app()
    browser = world.browser()
    await browser.authorize(app, scope=scope)
    await browser.sign_in()
    if browser.heading == "Whose record?":
        await browser.submit({"record": "Patient/pip"})
    query = await approve(browser, *browser.boxes(ticked=True))
    assert (await app.exchange(query["code"])).status_code == 200
    return app, browser


async def assert_would_be_asked(
    browser: Browser, app: App, scope: str, *, error: str = "consent_required"
) -> None:
    """An app that wants nobody to be asked is told that somebody has to be."""
    assert_redirect_error(await browser.authorize(app, scope=scope, prompt="none"), error)


async def test_a_confidential_app_may_ask_that_nobody_is_asked_twice(world: World) -> None:
    app, browser = await approved_web_app(world, LASTING)
    silent = await browser.authorize(app, scope=LASTING, prompt="none")
    code = query_of(silent.headers["location"])["code"]
    assert (await app.exchange(code)).status_code == 200


async def test_whoever_comes_back_may_allow_less(world: World) -> None:
    """What the certification kits do: the same request again, and fewer boxes ticked."""
    scope = f"{LASTING} patient/Goal.rs"
    app, browser = await approved_web_app(world, scope)
    await browser.authorize(app, scope=scope)
    query = await approve(browser, "patient/Goal.rs")
    body = (await app.exchange(query["code"])).json()
    assert body["scope"] == "openid patient/Goal.rs"


async def test_what_was_allowed_for_a_quarter_of_an_hour_is_asked_about_again(
    world: World,
) -> None:
    """Nobody could see it under the connected apps any more, or end it there."""
    scope = f"openid {OBSERVATION}"
    app, browser = await approved_web_app(world, scope)
    world.clock.advance(3600)
    await browser.authorize(app, scope=scope)
    await browser.sign_in()
    assert browser.heading.startswith("Allow")
    await assert_would_be_asked(browser, app, scope)


async def test_unticking_it_means_to_be_asked_each_time(world: World) -> None:
    app = await world.confidential_app()
    browser = world.browser()
    await browser.authorize(app, scope=LASTING)
    await browser.sign_in()
    query = await approve(browser, *(box for box in browser.boxes() if box != "offline_access"))
    assert (await app.exchange(query["code"])).status_code == 200
    await assert_would_be_asked(browser, app, f"openid {OBSERVATION}")


async def test_an_app_that_nobody_has_looked_at_is_asked_about_each_time(world: World) -> None:
    app = await world.confidential_app(self_registered=True)
    browser = world.browser()
    await browser.authorize(app, scope=LASTING)
    await browser.sign_in()
    query = await approve(browser, *browser.boxes())
    assert (await app.exchange(query["code"])).status_code == 200
    await assert_would_be_asked(browser, app, LASTING)


async def test_a_yes_that_was_held_back_does_not_outlive_the_session(
    world: World, browser: Browser
) -> None:
    """Its request began while a thief was signed in; its body comes after they were signed out."""
    form = fields_of(browser.form)
    body = asyncio.Event()

    async def held_back() -> AsyncIterator[bytes]:
        await body.wait()
        yield urlencode({**form, "scope": OBSERVATION, "decision": "approve"}).encode()

    headers = {"content-type": "application/x-www-form-urlencoded"}
    sending = asyncio.create_task(
        browser.http.post("/oauth/consent", content=held_back(), headers=headers)
    )
    for _ in range(100):
        await asyncio.sleep(0)
    await world.store.transact(lambda transaction: end_sessions(transaction, world.mara.key))
    body.set()
    answer = await sending
    assert "code" not in answer.headers.get("location", "")
    assert await world.store.every(AuthorizationCode) == []


async def test_a_yes_loses_against_signing_out(
    world: World, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session ends between the look at it and the transaction that makes the code."""
    transact = world.store.transact

    async def signed_out_first(work: Any) -> Any:
        await transact(lambda transaction: end_sessions(transaction, world.mara.key))
        return await transact(work)

    decide = world.server.decide

    async def decided(*args: Any, **more: Any) -> str:
        monkeypatch.setattr(world.store, "transact", signed_out_first)
        return await decide(*args, **more)

    monkeypatch.setattr(world.server, "decide", decided)
    with pytest.raises(LoginRequired, match="signed out"):
        await app.code()
    assert await world.store.every(AuthorizationCode) == []


@pytest.mark.parametrize("more", ["patient/Goal.rs", "fhirUser"])
async def test_for_more_somebody_is_asked(world: World, more: str) -> None:
    app, browser = await approved_web_app(world, LASTING)
    await assert_would_be_asked(browser, app, f"{LASTING} {more}")


async def test_writing_is_asked_about_each_time(world: World) -> None:
    scope = "offline_access patient/QuestionnaireResponse.cruds"
    app, browser = await approved_web_app(world, scope)
    await assert_would_be_asked(browser, app, scope)


async def test_after_revocation_it_is_asked_about_again(world: World) -> None:
    scope = LASTING
    app, browser = await approved_web_app(world, scope)
    family = await world.only_family()
    await world.store.transact(
        lambda transaction: revoke_family(transaction, family.key, now=1.0, because="by-person")
    )
    await assert_would_be_asked(browser, app, scope)


@pytest.mark.parametrize(
    "change",
    [{"practice": "family"}, {"grant": "Consent/x", "fhir_user": "RelatedPerson/x"}],
)
async def test_what_was_approved_by_another_right_is_asked_about(
    world: World, change: dict[str, Any]
) -> None:
    app, browser = await approved_web_app(world, LASTING)
    changed = dataclasses.replace(own_record(), **change)
    world.directory.access[world.mara.key] = (changed,)
    error = "interaction_required" if changed.is_proxy else "consent_required"
    await assert_would_be_asked(browser, app, LASTING, error=error)


async def test_a_proxy_is_asked_each_time(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app, browser = await approved_web_app(world, LASTING)
    await browser.authorize(app, scope=LASTING)
    assert browser.heading == "Whose record?"
    await browser.submit({"record": "Patient/pip"})
    assert browser.heading.startswith("Allow")
