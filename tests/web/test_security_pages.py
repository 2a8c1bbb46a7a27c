"""``/account/security`` over HTTP: what people do there, and what others try to."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
import segno

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.devices import RememberedDevice
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.recovery_codes import RecoveryCodes
from fhir_portal.accounts.sessions import Session
from fhir_portal.accounts.step_up import FRESH
from fhir_portal.accounts.totp import Totp
from fhir_portal.web.pages.browser import Cookies
from fhir_portal.web.pages.security import security_routes
from fhir_portal.web.pages.step_up import StepUp
from fhir_portal.web.pages.words import moment
from tests.accounts.authenticator import Authenticator
from tests.smart.world import PASSWORD, Browser, World, own_record
from tests.web.signing_in import (
    MARA,
    SECURITY,
    App,
    Held,
    Resident,
    at_security,
    done,
    fields_of,
    forms,
    post,
    problem,
    submit,
)

LOCALHOST = "http://localhost:8000"
NEW = "seven quiet otters"
NEED_FRESH = [
    f"{SECURITY}/{page}"
    for page in ("app", "app/remove", "recovery-codes", "passkeys", "passkeys/remove")
]
PAGES = [SECURITY, f"{SECURITY}/password", *NEED_FRESH]
ACTIONS = [
    f"{SECURITY}/{action}"
    for action in (
        "password",
        "app",
        "app/remove",
        "recovery-codes",
        "passkeys",
        "passkeys/options",
        "passkeys/remove",
        "recovery/end",
        "sessions/end",
        "devices/forget",
    )
]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.fixture
def mara(world: World) -> Resident:
    return Resident(world)


async def confirm(browser: Browser, **fields: str) -> httpx.Response:
    assert browser.heading == "Confirm that it is you"
    (form,) = forms(browser, "/account/confirm")
    sent = {**fields_of(form), "password": PASSWORD, **fields}
    return await post(browser, "/account/confirm", sent)


async def secrets_of(world: World) -> list[Any]:
    """Everything that an action here could have changed."""
    kinds = (Account, Totp, RecoveryCodes, Passkey, RememberedDevice)
    return [await world.store.every(kind) for kind in kinds]


# --- who may be here -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
async def test_nobody_sees_these_pages_unless_signed_in(world: World, path: str) -> None:
    browser = world.browser()
    response = await browser.http.get(path)
    assert response.headers["location"].startswith("/signin?then=/account/security")
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ACTIONS)
async def test_nobody_does_anything_unless_signed_in(world: World, path: str) -> None:
    before = await secrets_of(world)
    browser = world.browser()
    await browser.open("/signin")
    response = await browser.http.post(path, data={"form_token": "x", "password": PASSWORD})
    assert response.headers["location"] == "/signin?then=/account/security"
    assert await secrets_of(world) == before


@pytest.mark.parametrize("path", ACTIONS)
async def test_a_form_that_is_not_ours_does_nothing(
    world: World, mara: Resident, path: str
) -> None:
    """Cross-site request forgery: the session is there, our hidden field is not."""
    app = await mara.app()
    await mara.recovery_codes()
    browser, other = await at_security(world, app=app), world.browser()
    await other.open("/signin")
    before, sessions = await secrets_of(world), len(await world.store.every(Session))
    theirs = fields_of(forms(other, "/signin")[0])["form_token"]
    elsewhere = fields_of(forms(browser, "/signout")[0])["form_token"]
    for token in ("", "x", theirs, elsewhere):
        data = {"form_token": token, "password": PASSWORD, "new_password": NEW}
        response = await browser.http.post(path, data={**data, "session": "others"})
        assert response.status_code == 403
        assert "out of date" in response.text
    assert await secrets_of(world) == before
    assert len(await world.store.every(Session)) == sessions


@pytest.mark.parametrize("path", ["/account/confirm", "/account/confirm/passkey/options"])
async def test_a_confirmation_that_is_not_ours_confirms_nothing(world: World, path: str) -> None:
    browser, other = await at_localhost(world), world.browser()
    await add_passkey(browser, a_key())
    await other.open("/signin")
    before = (await a_browser(world, browser)).visitor.session
    theirs = fields_of(forms(other, "/signin")[0])["form_token"]
    for token in ("", "x", theirs, fields_of(forms(browser, "/signout")[0])["form_token"]):
        data = {"form_token": token, "password": PASSWORD}
        response = await browser.http.post(path, data=data)
        assert response.status_code == 403
    after = (await a_browser(world, browser)).visitor.session
    assert (after.key, after.auth_time) == (before.key, before.auth_time)


async def test_a_form_of_ours_from_another_site_does_nothing(world: World) -> None:
    browser = await at_security(world)
    await browser.open(f"{SECURITY}/password")
    (form,) = forms(browser, f"{SECURITY}/password")
    data = {**fields_of(form), "password": PASSWORD, "new_password": NEW}
    for site in ("cross-site", "same-site"):
        response = await browser.http.post(
            f"{SECURITY}/password", data=data, headers={"Sec-Fetch-Site": site}
        )
        assert response.status_code == 403


@pytest.mark.parametrize("path", PAGES)
async def test_nobody_frames_or_keeps_these_pages(world: World, path: str) -> None:
    browser = await at_security(world)
    await browser.open(path)
    headers = browser.page.headers
    assert browser.page.status_code == 200
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", PAGES)
async def test_what_a_page_shows_holds_no_secret(world: World, mara: Resident, path: str) -> None:
    app = await mara.app()
    codes = await mara.recovery_codes()
    browser = await at_security(world, app=app)
    await browser.open(path)
    text = browser.page.text
    assert app.secret not in text.replace(" ", "")
    assert world.mara.password_hash
    for secret in (*codes, world.mara.password_hash, browser.http.cookies["portal-session"]):
        assert secret not in text


# --- step-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NEED_FRESH)
async def test_an_action_asks_again_after_five_minutes(world: World, path: str) -> None:
    browser = await at_security(world)
    await browser.open(path)
    assert browser.heading != "Confirm that it is you"
    world.clock.advance(301)
    await browser.open(path)
    await confirm(browser)
    assert str(browser.page.url).endswith(path)
    assert browser.heading != "Confirm that it is you"


@pytest.mark.parametrize("path", NEED_FRESH)
async def test_the_action_itself_asks_too(world: World, path: str) -> None:
    """A form opened in time and posted late does nothing."""
    browser = await at_security(world)
    await browser.open(path)
    cookies = Cookies(world.server.issuer, world.keys, world.sessions)
    token = cookies.form_token(await a_browser(world, browser), path, "")
    before = await secrets_of(world)
    world.clock.advance(301)
    response = await browser.http.post(path, data={"form_token": token, "code": "000000"})
    assert response.headers["location"] == f"/account/confirm?then={path}"
    assert await secrets_of(world) == before


async def a_browser(world: World, browser: Browser) -> Any:
    """The server's view of a browser."""
    sent: Any = SimpleNamespace(cookies=dict(browser.http.cookies))
    return await Cookies(world.server.issuer, world.keys, world.sessions).browser(sent)


@pytest.mark.parametrize("path", PAGES[1:])
async def test_with_an_app_a_fresh_code_is_asked(world: World, mara: Resident, path: str) -> None:
    """A remembered browser skipped it at sign-in; that is no proof of it."""
    app = await mara.app()
    browser = world.browser()
    await browser.open(SECURITY)
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    await submit(browser, "/signin/code", code=app.code, remember="yes")
    await submit(browser, "/signout")
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    world.clock.advance(60)
    await browser.open(path)
    for wrong in ({"code": ""}, {"code": "000000"}, {"password": "wrong", "code": app.code}):
        await confirm(browser, **wrong)
        assert browser.page.status_code == 403
        assert problem(browser) == (
            "The password or the code is wrong, or the code was used before."
        )
    await confirm(browser, code=app.code)
    assert str(browser.page.url).endswith(path)


async def test_confirming_gives_the_session_another_cookie(world: World) -> None:
    browser = await at_security(world)
    before = browser.http.cookies["portal-session"]
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/app")
    await confirm(browser)
    assert browser.http.cookies["portal-session"] != before
    thief = world.browser()
    thief.http.cookies.set("portal-session", before)
    await thief.open(SECURITY)
    assert thief.heading == "Sign in"


async def test_who_confirms_is_who_is_signed_in(world: World) -> None:
    """The page takes no user name: another one that is posted changes nothing."""
    await world.account("jon@example.org", own_record("Patient/jon", "Jon"))
    browser = await at_security(world)
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/app")
    await confirm(browser, username="jon@example.org")
    await browser.open(SECURITY)
    assert MARA in browser.text


async def test_an_unattended_browser_is_no_place_to_guess_the_password(world: World) -> None:
    browser = await at_security(world)
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/app")
    for _ in range(10):
        await confirm(browser, password="wrong")
        assert problem(browser) == "The password is wrong."
    await confirm(browser)
    assert browser.page.status_code == 429
    assert browser.page.headers["retry-after"] == "900"
    other = await at_security(world)  # nobody else is locked out by it
    assert other.heading == "Security"


async def test_other_pages_can_ask_for_it_in_one_line(world: World, mara: Resident) -> None:
    """What `/account/apps` and others will do."""
    cookies = Cookies(world.server.issuer, world.keys, world.sessions)
    step_up = StepUp(mara.door, cookies)
    opened = await world.sessions.open()
    nobody = await a_browser(world, world.browser())
    sent = await step_up.to(nobody, FRESH, then="/account/apps")
    assert sent is not None
    assert sent.headers["location"] == "/signin?then=/account/apps"
    browser = world.browser()
    opened = await world.sessions.sign_in(opened.visitor.session, world.mara)
    browser.http.cookies.set("portal-session", opened.cookie)
    assert await step_up.to(await a_browser(world, browser), then="/account/apps") is None
    world.clock.advance(301)
    sent = await step_up.to(await a_browser(world, browser), then="//evil.example")
    assert sent is not None
    assert sent.headers["location"] == "/account/confirm?then="


# --- password ------------------------------------------------------------------------------------


async def test_the_password_is_changed_with_the_one_before(world: World, mara: Resident) -> None:
    other, browser = await at_security(world), await at_security(world)
    before = browser.http.cookies["portal-session"]
    await browser.open(f"{SECURITY}/password")
    action = f"{SECURITY}/password"
    await submit(browser, action, password=PASSWORD, new_password=NEW, repeated=NEW)
    assert done(browser) == "Your password is changed. You are signed out everywhere else."
    assert browser.http.cookies["portal-session"] != before
    await other.open(SECURITY)
    assert other.heading == "Sign in"
    await submit(other, "/signin", username=MARA, password=PASSWORD)
    assert other.page.status_code == 403
    await submit(other, "/signin", username=MARA, password=NEW)
    assert other.heading == "Security"
    assert await mara.told() == ["security-password-changed"]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"password": "wrong"}, 403, "The password you have now was not typed right."),
        ({"password": ""}, 403, "The password you have now was not typed right."),
        ({"new_password": "short"}, 400, "A password has 12 to 128 characters."),
        ({"new_password": "x" * 129}, 400, "A password has 12 to 128 characters."),
        ({"new_password": "password1234"}, 400, "on the lists"),
        ({"new_password": "mara.example.org"}, 400, "little more than your user name"),
        ({"new_password": "patient-portal-1"}, 400, "the name of this place"),
        ({"new_password": PASSWORD}, 400, "the password you have now"),
        ({"repeated": "another one"}, 400, "not typed the same way twice"),
    ],
    ids=range(9),
)
async def test_a_change_that_is_refused_says_why(
    world: World, fields: dict[str, str], status: int, words: str
) -> None:
    browser = await at_security(world)
    await browser.open(f"{SECURITY}/password")
    (form,) = forms(browser, f"{SECURITY}/password")
    sent = {**fields_of(form), "password": PASSWORD, "new_password": NEW, **fields}
    await post(browser, f"{SECURITY}/password", sent)
    assert browser.page.status_code == status
    assert words in problem(browser)
    assert "short" not in browser.text
    assert await world.store.get(Account, world.mara.key) == world.mara


async def test_the_password_form_asks_for_both_and_cuts_nothing_off(world: World) -> None:
    browser = await at_security(world)
    await browser.open(f"{SECURITY}/password")
    found = {one.get("name"): one for one in browser.document.xpath('//input[@type="password"]')}
    assert set(found) == {"password", "new_password", "repeated"}
    assert found["password"].get("autocomplete") == "current-password"
    assert found["new_password"].get("autocomplete") == "new-password"
    assert all(one.get("maxlength") is None for one in found.values())
    (hint,) = browser.document.xpath('//*[@id="rule"]')
    assert "12 to 128 characters, any you like" in hint.text_content()


async def test_a_password_with_spaces_at_its_ends_stays_as_it_is(world: World) -> None:
    browser = await at_security(world)
    await browser.open(f"{SECURITY}/password")
    new = f"  {NEW}  "
    action = f"{SECURITY}/password"
    await submit(browser, action, password=PASSWORD, new_password=new, repeated=new)
    other = world.browser()
    await other.open("/signin")
    await submit(other, "/signin", username=MARA, password=NEW)
    assert other.page.status_code == 403
    await submit(other, "/signin", username=MARA, password=new)
    assert other.heading == "You are signed in"


# --- authenticator app ---------------------------------------------------------------------------


async def test_an_app_is_set_up_by_key_and_confirmed_by_code(world: World, mara: Resident) -> None:
    browser = await at_security(world)
    await browser.open(f"{SECURITY}/app")
    assert browser.document.xpath("//div[@role='img']/svg") != []
    (key,) = browser.document.xpath("//code[@class='key']")
    secret = key.text_content().replace(" ", "")
    (link,) = browser.document.xpath("//li/p/a")
    assert link.get("href").startswith("otpauth://totp/")
    assert f"secret={secret}" in link.get("href")
    app = App(world, secret)
    await submit(browser, f"{SECURITY}/app", code="000000")
    assert browser.page.status_code == 403
    assert secret in browser.text.replace(" ", "")  # the same key is still offered
    await submit(browser, f"{SECURITY}/app", code=app.code)
    assert browser.heading == "Your recovery codes"
    codes = re.findall(r"[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}", browser.text)
    assert len(codes) == 10
    assert await mara.told() == ["security-totp-added"]
    await browser.open(SECURITY)
    assert "10 left." in browser.text
    world.clock.advance(30)
    other = world.browser()
    await other.open("/signin")
    await submit(other, "/signin", username=MARA, password=PASSWORD)
    await submit(other, "/signin/code", code=codes[3])
    assert other.heading == "You are signed in"


async def test_the_picture_says_what_the_key_says(world: World) -> None:
    """The QR code is drawn of the very address that the link has."""
    browser = await at_security(world)
    await browser.open(f"{SECURITY}/app")
    (link,) = browser.document.xpath("//li/p/a")
    drawn = segno.make(link.get("href"), error="m", micro=False)
    expected = drawn.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True)
    assert expected in browser.page.text


async def test_an_app_that_was_set_up_is_not_shown_again(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = await at_security(world, app=app)
    await browser.open(f"{SECURITY}/app")  # another one, to take its place
    assert app.secret not in browser.page.text.replace(" ", "")


async def test_removing_the_app_needs_a_code_of_it(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = await at_security(world, app=app)
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/app/remove")
    await confirm(browser, code="000000")
    assert browser.page.status_code == 403
    await confirm(browser, code=app.code)
    await submit(browser, f"{SECURITY}/app/remove")
    assert done(browser).startswith("Your authenticator app is removed.")
    assert await mara.told() == ["security-totp-removed"]
    await submit(browser, "/signout")
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    assert browser.heading == "You are signed in"


async def test_new_recovery_codes_are_shown_once(world: World, mara: Resident) -> None:
    old = await mara.recovery_codes()
    browser = await at_security(world)
    await browser.open(f"{SECURITY}/recovery-codes")
    assert "make void the 10 that you have" in browser.text
    await submit(browser, f"{SECURITY}/recovery-codes")
    codes = re.findall(r"[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}", browser.text)
    assert len(set(codes)) == 10
    assert not set(codes) & set(old)
    assert browser.page.headers["cache-control"] == "no-store"
    for page in PAGES:
        await browser.open(page)
        assert not any(code in browser.text for code in codes)


# --- passkeys ------------------------------------------------------------------------------------


async def at_localhost(world: World) -> Browser:
    browser = Browser(
        world, httpx.AsyncClient(transport=httpx.ASGITransport(world.asgi), base_url=LOCALHOST)
    )
    await browser.open(SECURITY)
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    return browser


async def add_passkey(browser: Browser, key: Authenticator, name: str = "My phone") -> Any:
    await browser.open(f"{SECURITY}/passkeys")
    fields = fields_of(forms(browser, f"{SECURITY}/passkeys")[0])
    options = await browser.http.post(f"{SECURITY}/passkeys/options", data=fields)
    assert options.status_code == 200, options.text
    made = key.make(options.text)
    return await post(browser, f"{SECURITY}/passkeys", {**fields, "credential": made, "name": name})


def a_key(**how: Any) -> Authenticator:
    return Authenticator(origin=LOCALHOST, domain="localhost", **how)


async def test_passkeys_are_added_named_listed_and_removed(world: World, mara: Resident) -> None:
    browser = await at_localhost(world)
    for number in range(2):
        key = a_key(credential_id=f"credential-{number}".encode())
        await add_passkey(browser, key, f"Key <{number}>")
        assert done(browser).startswith("Your passkey is ready.")
    assert "Key <0>" in browser.text
    assert "<0>" not in browser.page.text
    assert "Works at localhost." in browser.text
    await submit(browser, f"{SECURITY}/passkeys/remove", nth=0)
    assert done(browser).startswith("The passkey is removed.")
    (left,) = await world.store.every(Passkey)
    assert left.name in ("Key <0>", "Key <1>")
    assert await mara.told() == [
        *["security-passkey-added"] * 2,
        "security-passkey-removed",
    ]


async def test_a_passkey_confirms_in_place_of_password_and_code(
    world: World, mara: Resident
) -> None:
    browser = await at_localhost(world)
    key = a_key()
    await add_passkey(browser, key)
    await mara.app()
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/app/remove")
    fields = fields_of(forms(browser, "/account/confirm")[0])
    options = await browser.http.post("/account/confirm/passkey/options", data=fields)
    answer = key.sign(options.text)
    await post(browser, "/account/confirm", {**fields, "credential": "{}"})
    assert browser.page.status_code == 403
    fields = fields_of(forms(browser, "/account/confirm")[0])
    await post(browser, "/account/confirm", {**fields, "credential": answer})
    assert browser.page.status_code == 403  # the wrong answer used the challenge up
    fields = fields_of(forms(browser, "/account/confirm")[0])
    options = await browser.http.post("/account/confirm/passkey/options", data=fields)
    answer = key.sign(options.text)
    await post(browser, "/account/confirm", {**fields, "credential": answer})
    assert browser.heading == "Remove the authenticator app?"


async def test_nobody_removes_another_persons_passkey(world: World) -> None:
    browser = await at_localhost(world)
    await add_passkey(browser, a_key())
    (passkey,) = await world.store.every(Passkey)
    await world.account("jon@example.org", own_record("Patient/jon", "Jon"))
    jon = await at_security(world, "jon@example.org")
    cookies = Cookies(world.server.issuer, world.keys, world.sessions)
    token = cookies.form_token(await a_browser(world, jon), f"{SECURITY}/passkeys/remove", "")
    await post(jon, f"{SECURITY}/passkeys/remove", {"form_token": token, "passkey": passkey.key})
    assert await world.store.every(Passkey) == [passkey]


async def test_the_only_way_in_is_not_removed(world: World) -> None:
    browser = await at_localhost(world)
    await add_passkey(browser, a_key())

    async def forget_password(transaction: Any) -> None:
        account = await transaction.get(Account, world.mara.key)
        await transaction.put(msgspec.structs.replace(account, password_hash=None))

    await world.store.transact(forget_password)
    await browser.open(SECURITY)
    assert "You have none." in browser.text
    await submit(browser, f"{SECURITY}/passkeys/remove")
    assert browser.page.status_code == 400
    assert "you could not sign in any more" in browser.text
    assert len(await world.store.every(Passkey)) == 1


async def test_where_there_are_no_passkeys_none_are_offered(world: World) -> None:
    browser = await at_security(world)  # at an address of numbers
    assert "Add a passkey" not in browser.text
    await browser.open(f"{SECURITY}/passkeys")
    assert "There can be no passkeys at this address." in browser.text


# --- sessions and remembered browsers ------------------------------------------------------------

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Version/18.6 Mobile/15E148 Safari/604.1"
)


async def at_security_with(world: World, user_agent: str) -> Browser:
    browser = Browser(world, world.http(headers={"User-Agent": user_agent}))
    await browser.open(SECURITY)
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    return browser


async def test_sessions_are_listed_by_browser_and_last_use(world: World) -> None:
    there = moment(world.clock())
    phone = await at_security_with(world, SAFARI)
    world.clock.advance(600)
    here = moment(world.clock())
    browser = await at_security_with(world, FIREFOX)
    used = f"Safari on iPhoneLast used 10 minutes ago. Signed in on {there}."
    entries = [
        " ".join(one.text_content().split())
        for one in browser.document.xpath("//section[@aria-labelledby='sessions']//li")
    ]
    assert entries == [
        f"Firefox on LinuxThis browser. Signed in on {here}.",
        f"{used} Sign out Safari on iPhone, signed in on {there}",
    ]
    assert phone.heading == "Security"


async def test_one_session_is_ended_from_afar(world: World) -> None:
    phone, tablet = await at_security_with(world, SAFARI), await at_security(world)
    browser = await at_security_with(world, FIREFOX)
    buttons = forms(browser, f"{SECURITY}/sessions/end")
    assert len(buttons) == 3  # two others, and all others
    nth = next(n for n, one in enumerate(buttons) if "Safari" in one.text_content())
    await submit(browser, f"{SECURITY}/sessions/end", nth=nth)
    assert done(browser) == "That browser is signed out."
    await phone.open(SECURITY)
    await tablet.open(SECURITY)
    assert (phone.heading, tablet.heading) == ("Sign in", "Security")


async def test_all_others_are_ended_from_afar(world: World) -> None:
    others = [await at_security(world) for _ in range(3)]
    browser = await at_security_with(world, FIREFOX)
    await submit(browser, f"{SECURITY}/sessions/end", nth=-1)
    assert done(browser) == "You are signed out everywhere else."
    for other in others:
        await other.open(SECURITY)
        assert other.heading == "Sign in"
    await browser.open(SECURITY)
    assert browser.heading == "Security"


async def test_ending_needs_no_confirmation(world: World) -> None:
    """Who finds a stranger signed in must not be held up."""
    other, browser = await at_security(world), await at_security(world)
    world.clock.advance(1000)
    await browser.open(SECURITY)
    await submit(browser, f"{SECURITY}/sessions/end", nth=-1)
    await other.open(SECURITY)
    assert other.heading == "Sign in"


@pytest.mark.parametrize("which", ["theirs", "unknown", "mine"])
async def test_a_session_that_is_not_listed_is_not_ended(world: World, which: str) -> None:
    await world.account("jon@example.org", own_record("Patient/jon", "Jon"))
    jon, browser = await at_security(world, "jon@example.org"), await at_security(world)
    await at_security(world)
    sessions = await world.store.every(Session)
    mine = (await a_browser(world, browser)).visitor.session
    key = {
        "theirs": (await a_browser(world, jon)).visitor.session.key,
        "unknown": "0" * 64,
        "mine": mine.key,
    }[which]
    await browser.open(SECURITY)
    fields = fields_of(forms(browser, f"{SECURITY}/sessions/end")[0])
    await post(browser, f"{SECURITY}/sessions/end", {**fields, "session": key})
    assert {one.key for one in await world.store.every(Session)} == {one.key for one in sessions}


async def test_a_remembered_browser_is_listed_and_forgotten(world: World, mara: Resident) -> None:
    app = await mara.app()
    phone = Browser(world, world.http(headers={"User-Agent": SAFARI}))
    await phone.open("/signin")
    await submit(phone, "/signin", username=MARA, password=PASSWORD)
    await submit(phone, "/signin/code", code=app.code, remember="yes")
    world.clock.advance(60)
    browser = await at_security(world, app=app)
    (entry,) = browser.document.xpath("//section[@aria-labelledby='devices']//li")
    assert "Safari on iPhone" in entry.text_content()
    await submit(browser, f"{SECURITY}/devices/forget")
    assert done(browser).startswith("That browser is forgotten.")
    await submit(phone, "/signout")
    await submit(phone, "/signin", username=MARA, password=PASSWORD)
    assert phone.heading == "Enter a code"


async def test_nobody_forgets_another_persons_browser(world: World, mara: Resident) -> None:
    app = await mara.app()
    phone = world.browser()
    await phone.open("/signin")
    await submit(phone, "/signin", username=MARA, password=PASSWORD)
    await submit(phone, "/signin/code", code=app.code, remember="yes")
    (device,) = await world.store.every(RememberedDevice)
    await world.account("jon@example.org", own_record("Patient/jon", "Jon"))
    jon = await at_security(world, "jon@example.org")
    cookies = Cookies(world.server.issuer, world.keys, world.sessions)
    token = cookies.form_token(await a_browser(world, jon), f"{SECURITY}/devices/forget", "")
    await post(jon, f"{SECURITY}/devices/forget", {"form_token": token, "device": device.key})
    assert await world.store.every(RememberedDevice) == [device]


# --- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "unknown", "password%0a"])
async def test_what_was_done_is_said_in_our_words_alone(world: World, text: str) -> None:
    browser = await at_security(world)
    await browser.open(SECURITY, params={"done": text})
    assert done(browser) == ""
    assert "alert" not in browser.page.text


async def test_every_form_on_every_page_carries_the_hidden_field(
    world: World, mara: Resident
) -> None:
    app = await mara.app()
    await at_security(world, app=app)
    world.clock.advance(30)
    browser = await at_localhost(world)
    await submit(browser, "/signin/code", code=app.code)
    await add_passkey(browser, a_key())
    for page in [*PAGES, "/signin", "/account/confirm"]:
        await browser.open(page)
        found = browser.document.xpath("//form")
        assert found, page
        for form in found:
            assert form.get("method") == "post"
            assert len(fields_of(form)["form_token"]) == 43, page


def test_every_route_of_ours_is_tried_without_a_session(world: World, mara: Resident) -> None:
    """A page that is added later has to be added to the tests above."""
    cookies = Cookies(world.server.issuer, world.keys, world.sessions)
    found: dict[str, set[str]] = {"GET": set(), "POST": set()}
    for path, method, _ in security_routes(world.server, mara.door, cookies):
        if path.startswith(SECURITY):
            found[method].add(path)
    assert found == {"GET": set(PAGES), "POST": set(ACTIONS)}


# --- forms that are held back --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["signed out", "signed out from afar", "password changed"])
async def test_a_form_held_back_outlives_no_session(world: World, mara: Resident, how: str) -> None:
    """A thief's browser has sent the heads of its forms when the owner ends its session."""
    thief = await at_localhost(world)
    await thief.open(f"{SECURITY}/passkeys")
    passkeys = fields_of(forms(thief, f"{SECURITY}/passkeys")[0])
    options = await thief.http.post(f"{SECURITY}/passkeys/options", data=passkeys)
    passkeys |= {"credential": a_key().make(options.text), "name": "Thief"}
    await thief.open(f"{SECURITY}/recovery-codes")
    codes = fields_of(forms(thief, f"{SECURITY}/recovery-codes")[0])
    held = [
        (Held(world, f"{SECURITY}/passkeys", thief), passkeys),
        (Held(world, f"{SECURITY}/recovery-codes", thief), codes),
    ]
    for one, _ in held:
        await one.begun()
    if how == "signed out":
        await thief.open(SECURITY)
        await submit(thief, "/signout")
    elif how == "signed out from afar":
        await submit(await at_security(world), f"{SECURITY}/sessions/end", nth=-1)
    else:
        owner = await at_security(world)
        await owner.open(f"{SECURITY}/password")
        action = f"{SECURITY}/password"
        await submit(owner, action, password=PASSWORD, new_password=NEW, repeated=NEW)
    told = await mara.told()
    for one, body in held:
        assert await one.finish(body) == (303, f"/signin?then={SECURITY}")
    assert await world.store.every(Passkey) == []
    assert await mara.door.second_factor.codes.left(world.mara.key) == 0
    assert await mara.told() == told


# --- what a page says when something cannot be done ----------------------------------------------


async def test_too_many_new_codes_have_to_wait(world: World) -> None:
    browser = await at_security(world)
    for _ in range(5):
        await browser.open(f"{SECURITY}/recovery-codes")
        await submit(browser, f"{SECURITY}/recovery-codes")
        assert browser.heading == "Your recovery codes"
    await browser.open(f"{SECURITY}/recovery-codes")
    await submit(browser, f"{SECURITY}/recovery-codes")
    assert browser.page.status_code == 429
    assert browser.page.headers["retry-after"] == "3600"
    assert "Try again in" in browser.text


async def test_a_passkey_is_removed_after_a_confirmation_too(world: World) -> None:
    """What was pressed before it is not done by it, and the page says so."""
    browser = await at_localhost(world)
    await add_passkey(browser, a_key())
    world.clock.advance(301)
    await browser.open(SECURITY)
    await submit(browser, f"{SECURITY}/passkeys/remove")
    await confirm(browser)
    assert browser.heading == "Remove a passkey"
    assert "Nothing is removed yet." in browser.text
    assert len(await world.store.every(Passkey)) == 1
    await submit(browser, f"{SECURITY}/passkeys/remove")
    assert done(browser).startswith("The passkey is removed.")
    assert await world.store.every(Passkey) == []


async def without_password(world: World) -> None:
    async def forget_password(transaction: Any) -> None:
        account = await transaction.get(Account, world.mara.key)
        await transaction.put(msgspec.structs.replace(account, password_hash=None))

    await world.store.transact(forget_password)


async def test_who_has_no_password_is_not_asked_for_one(world: World) -> None:
    browser = await at_localhost(world)
    key = a_key()
    await add_passkey(browser, key)
    await without_password(world)
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/recovery-codes")
    assert browser.heading == "Confirm that it is you"
    assert browser.document.xpath("//input[@type='password']") == []
    assert browser.document.xpath("//button[@type='submit']") == []
    assert len(browser.document.xpath("//*[@data-passkey]")) == 1
    fields = fields_of(forms(browser, "/account/confirm")[0])
    options = await browser.http.post("/account/confirm/passkey/options", data=fields)
    answer = {**fields, "credential": key.sign(options.text)}
    await post(browser, "/account/confirm", answer)
    assert browser.heading == "Recovery codes"


async def test_who_can_prove_nothing_here_is_told_so(world: World) -> None:
    browser = await at_security(world)
    await without_password(world)
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/recovery-codes")
    assert "no passkey that works at this address" in browser.text
    assert browser.document.xpath("//input[@type='password']") == []


@pytest.mark.parametrize(
    ("action", "field", "words"),
    [
        ("sessions/end", "session", "No browser is signed in there any more."),
        ("devices/forget", "device", "No such browser is remembered any more."),
    ],
)
async def test_what_was_not_ended_is_not_said_to_be(
    world: World, action: str, field: str, words: str
) -> None:
    await world.account("jon@example.org", own_record("Patient/jon", "Jon"))
    jon, browser = await at_security(world, "jon@example.org"), await at_security(world)
    cookies = Cookies(world.server.issuer, world.keys, world.sessions)
    path = f"{SECURITY}/{action}"
    token = cookies.form_token(await a_browser(world, browser), path, "")
    for key in ((await a_browser(world, jon)).visitor.session.key, "0" * 64, ""):
        await post(browser, path, {"form_token": token, field: key})
        assert done(browser) == words


async def test_browsers_of_one_kind_can_be_told_apart(world: World) -> None:
    """By when somebody signed in there; two of one minute by number."""
    for _ in range(2):
        await at_security_with(world, SAFARI)
    world.clock.advance(600)
    await at_security_with(world, SAFARI)
    browser = await at_security_with(world, FIREFOX)
    buttons = [
        " ".join(one.text_content().split())
        for one in browser.document.xpath("//section[@aria-labelledby='sessions']//li//button")
    ]
    assert len(set(buttons)) == len(buttons) == 3
    assert all(one.startswith("Sign out Safari on iPhone, signed in on ") for one in buttons)
    assert browser.text.count("Signed in on ") == 4


async def test_a_mistake_is_marked_where_it_was_made(world: World) -> None:
    browser = await at_security(world)

    def marked() -> tuple[list[str], list[str]]:
        found = browser.document.xpath("//*[@aria-invalid='true']")
        focused = browser.document.xpath("//*[@autofocus]")
        return [one.get("name") for one in found], [one.get("name") for one in focused]

    for change, name in (
        ({"password": "wrong"}, "password"),
        ({"new_password": "short", "repeated": "short"}, "new_password"),
        ({"repeated": "another one"}, "repeated"),
    ):
        await browser.open(f"{SECURITY}/password")
        assert marked() == ([], [])
        sent = fields_of(forms(browser, f"{SECURITY}/password")[0])
        sent |= {"password": PASSWORD, "new_password": NEW, "repeated": NEW, **change}
        await post(browser, f"{SECURITY}/password", sent)
        assert marked() == ([name], [name])
    await browser.open(f"{SECURITY}/app")
    await submit(browser, f"{SECURITY}/app", code="000000")
    assert marked() == (["code"], ["code"])
    world.clock.advance(301)
    await browser.open(f"{SECURITY}/app")
    await confirm(browser, password="wrong")
    assert marked() == (["password"], ["password"])
