"""The second factor, recovery codes, passkeys and where a sign-in leads, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fhir_portal.accounts.passkeys import PasskeyChallenge
from fhir_portal.accounts.sessions import Session
from fhir_portal.web.pages.browser import Cookies
from fhir_portal.web.pages.render import SCRIPT_PATH
from fhir_portal.web.pages.signin import Onward, local
from tests.accounts.authenticator import Authenticator
from tests.smart.world import PASSWORD, App, Browser, World, own_record
from tests.web.signing_in import (
    MARA,
    SECURITY,
    Resident,
    at_security,
    fields_of,
    forms,
    post,
    problem,
    submit,
)

LOCALHOST = "http://localhost:8000"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.fixture
def mara(world: World) -> Resident:
    return Resident(world)


@pytest.fixture
async def heart_diary(world: World) -> App:
    return await world.public_app()


async def gives_password(world: World, path: str = "/signin") -> Browser:
    browser = world.browser()
    await browser.open(path)
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    return browser


def is_signed_in(browser: Browser) -> bool:
    return browser.heading == "You are signed in"


# --- the second factor ---------------------------------------------------------------------------


async def test_with_an_app_a_code_is_asked(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = await gives_password(world)
    assert browser.heading == "Enter a code"
    await submit(browser, "/signin/code", code=app.code)
    assert is_signed_in(browser)


async def test_the_password_alone_shows_nothing(world: World, mara: Resident) -> None:
    """Half a sign-in is none: not for the pages, not for an app's request."""
    await mara.app()
    browser = await gives_password(world)
    await browser.open(SECURITY)
    assert browser.heading == "Sign in"
    await browser.open("/signin")
    assert browser.heading == "Sign in"
    app = await world.public_app()
    await browser.authorize(app)
    assert browser.heading == "Sign in"
    response = await browser.http.get("/account/confirm")
    assert response.headers["location"] == "/signin?then="


async def test_an_apps_request_survives_the_code(
    world: World, mara: Resident, heart_diary: App
) -> None:
    app = await mara.app()
    browser = world.browser()
    await browser.authorize(heart_diary)
    await browser.sign_in()
    assert browser.heading == "Enter a code"
    assert "https:" in browser.page.headers["content-security-policy"]
    await submit(browser, "/signin/code", code="000000")
    assert browser.page.status_code == 403
    assert "wrong" in problem(browser)
    await submit(browser, "/signin/code", code=app.code)
    assert browser.heading == "Allow Heart Diary to use your record?"


async def test_each_step_gives_the_browser_another_cookie(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = world.browser()
    await browser.open("/signin")
    cookies = [browser.http.cookies["portal-session"]]
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    cookies.append(browser.http.cookies["portal-session"])
    await submit(browser, "/signin/code", code=app.code)
    cookies.append(browser.http.cookies["portal-session"])
    assert len(set(cookies)) == 3
    for old in cookies[:2]:
        thief = world.browser()
        thief.http.cookies.set("portal-session", old)
        await thief.open("/signin/code")
        assert thief.heading == "Sign in"


@pytest.mark.requirement("attacks", "session fixation")
async def test_a_session_planted_before_gets_its_planter_nowhere(
    world: World, mara: Resident
) -> None:
    app = await mara.app()
    planter, victim = world.browser(), world.browser()
    await planter.open("/signin")
    victim.http.cookies.set("portal-session", planter.http.cookies["portal-session"])
    await victim.open("/signin")
    await submit(victim, "/signin", username=MARA, password=PASSWORD)
    await planter.open("/signin/code")
    assert planter.heading == "Sign in"
    await submit(victim, "/signin/code", code=app.code)
    assert is_signed_in(victim)
    await planter.open(SECURITY)
    assert planter.heading == "Sign in"


async def test_a_code_works_once(world: World, mara: Resident) -> None:
    app = await mara.app()
    first, second = await gives_password(world), await gives_password(world)
    await submit(first, "/signin/code", code=app.code)
    await submit(second, "/signin/code", code=app.code)
    assert is_signed_in(first)
    assert second.page.status_code == 403
    assert problem(second) == (
        "That code is wrong, or was used before. Wait for the next one and try again."
    )


async def test_a_recovery_code_does_in_its_place(world: World, mara: Resident) -> None:
    await mara.app()
    codes = await mara.recovery_codes()
    browser = await gives_password(world)
    await submit(browser, "/signin/code", code=codes[0].upper())
    assert is_signed_in(browser)
    assert await mara.told() == ["security-recovery-code-used"]


async def test_too_many_codes_have_to_wait(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = await gives_password(world)
    for _ in range(10):
        await submit(browser, "/signin/code", code="000000")
    await submit(browser, "/signin/code", code=app.code)
    assert browser.page.status_code == 429
    assert browser.page.headers["retry-after"] == "900"
    assert await mara.told() == ["security-codes-guessed"]


async def test_the_code_page_is_for_who_gave_the_password(world: World, mara: Resident) -> None:
    await mara.app()
    browser = world.browser()
    await browser.open("/signin/code?then=/account/security")
    assert browser.heading == "Sign in"
    (form,) = forms(browser, "/signin")
    assert fields_of(form)["then"] == SECURITY
    response = await browser.http.post("/signin/code", data={"code": "000000"})
    assert response.headers["location"] == "/signin"


async def test_a_code_form_is_bound_to_its_session(world: World, mara: Resident) -> None:
    """Another person's form, or none, is refused though the code is right."""
    app = await mara.app()
    browser, other = await gives_password(world), await gives_password(world)
    (form,) = forms(other, "/signin/code")
    for token in (fields_of(form)["form_token"], "", "x"):
        response = await browser.http.post(
            "/signin/code", data={"form_token": token, "code": app.code}
        )
        assert response.status_code == 403
    assert len([s for s in await world.store.every(Session) if s.account]) == 0


# --- remembered browsers -------------------------------------------------------------------------


async def test_a_browser_can_be_remembered(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = await gives_password(world)
    response = await browser.http.post(
        "/signin/code",
        data={**fields_of(forms(browser, "/signin/code")[0]), "code": app.code, "remember": "yes"},
    )
    (cookie,) = [
        one for one in response.headers.get_list("set-cookie") if "portal-remembered-" in one
    ]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age=7776000" in cookie
    assert MARA not in cookie
    assert world.mara.key not in cookie
    await browser.open("/signin")
    await submit(browser, "/signout")
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    assert is_signed_in(browser)
    await browser.open("/signin")
    await submit(browser, "/signout")
    await submit(browser, "/signin", username=MARA, password="wrong")
    assert browser.page.status_code == 403


async def test_a_browser_is_remembered_for_one_account(world: World, mara: Resident) -> None:
    """Two people at one computer: each has a cookie, and neither names its account."""
    jon = await world.account("jon@example.org", own_record("Patient/jon", "Jon Quill"))
    app, his = await mara.app(), await mara.app(jon)
    browser = await gives_password(world)
    await submit(browser, "/signin/code", code=app.code, remember="yes")
    await submit(browser, "/signout")
    await submit(browser, "/signin", username="jon@example.org", password=PASSWORD)
    assert browser.heading == "Enter a code"
    await submit(browser, "/signin/code", code=his.code, remember="yes")
    assert is_signed_in(browser)
    names = [name for name in browser.http.cookies if "remembered" in name]
    assert len(names) == 2


async def test_a_stolen_token_is_no_use_without_the_password(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = await gives_password(world)
    await submit(browser, "/signin/code", code=app.code, remember="yes")
    (name,) = [name for name in browser.http.cookies if "remembered" in name]
    thief = world.browser()
    thief.http.cookies.set(name, browser.http.cookies[name])
    await thief.open(SECURITY)
    assert thief.heading == "Sign in"
    await submit(thief, "/signin", username=MARA, password="guess")
    assert thief.page.status_code == 403


# --- recovery code and password at once ----------------------------------------------------------


async def test_who_is_kept_waiting_is_shown_the_other_ways(
    world: World, mara: Resident, heart_diary: App
) -> None:
    codes = await mara.recovery_codes()
    browser = world.browser()
    await browser.authorize(heart_diary)
    for _ in range(10):
        await browser.sign_in(password="wrong")
    response = await browser.sign_in()
    assert response.status_code == 429
    (link,) = browser.document.xpath("//main/p/a[not(@href='/help')]")
    await browser.open(link.get("href"))
    assert browser.heading == "Sign in with a recovery code"
    await submit(browser, "/signin/recovery-code", username=MARA, password=PASSWORD, code=codes[0])
    assert browser.heading == "Allow Heart Diary to use your record?"


@pytest.mark.parametrize(
    "change",
    [{"username": "nobody"}, {"password": "wrong"}, {"code": "0000-0000-0000"}, {"code": ""}],
    ids=["nobody", "password", "code", "no-code"],
)
async def test_every_failed_recovery_looks_the_same(
    world: World, mara: Resident, change: dict[str, str]
) -> None:
    codes = await mara.recovery_codes()
    browser = world.browser()
    await browser.open("/signin/recovery-code")
    fields = {"username": MARA, "password": PASSWORD, "code": codes[0], **change}
    (form,) = forms(browser, "/signin/recovery-code")
    await post(browser, "/signin/recovery-code", {**fields_of(form), **fields})
    assert browser.page.status_code == 403
    assert problem(browser) == "The user name, the password or the code is wrong."
    page = browser.page.text.replace(fields["username"], "")
    tokens = [one.get("value") for one in browser.document.xpath("//input[@name='form_token']")]
    for token in tokens:
        page = page.replace(token, "")
    assert "0000" not in page
    assert len(tokens) == 1


@pytest.mark.parametrize("path", ["/signin", "/signin/recovery-code", "/signin/passkey"])
@pytest.mark.requirement("attacks", "cross-site request forgery")
async def test_a_sign_in_that_is_not_ours_signs_nobody_in(
    world: World, mara: Resident, path: str
) -> None:
    """Login CSRF: the victim's browser would end up in the attacker's account."""
    codes = await mara.recovery_codes()
    attacker, victim = world.browser(), world.browser()
    page = path.removesuffix("/passkey")
    await attacker.open(page)
    await victim.open(page)
    theirs = fields_of(forms(attacker, page)[0])["form_token"]
    for token in ("", "x", theirs):
        response = await victim.http.post(
            path,
            data={
                "form_token": token,
                "username": MARA,
                "password": PASSWORD,
                "code": codes[0],
                "credential": "{}",
            },
        )
        assert response.status_code == 403
        assert "out of date" in response.text
    assert await world.store.every(Session) == []
    assert await mara.door.second_factor.codes.left(world.mara.key) == 10


# --- passkeys ------------------------------------------------------------------------------------


class Passport:
    """A browser at the address that has passkeys, and a key of Mara's that answers it."""

    def __init__(self, world: World, key: Authenticator) -> None:
        self.key = key
        self.browser = Browser(
            world,
            httpx.AsyncClient(transport=httpx.ASGITransport(world.asgi), base_url=LOCALHOST),
        )

    async def options(self, path: str = "/signin/passkey/options") -> httpx.Response:
        (form,) = [one for one in self.browser.document.xpath("//form") if one.xpath(".//div")]
        return await self.browser.http.post(path, data=fields_of(form))

    async def signs_in(self, **change: str) -> httpx.Response:
        options = await self.options()
        assert options.status_code == 200, options.text
        fields = fields_of(forms(self.browser, "/signin")[0])
        answer = self.key.sign(options.text)
        return await post(
            self.browser, "/signin/passkey", {**fields, "credential": answer, **change}
        )


@pytest.fixture
async def passport(world: World, mara: Resident) -> Passport:
    key = Authenticator(origin=LOCALHOST, domain="localhost")
    opened = await world.sessions.open()
    opened = await world.sessions.sign_in(opened.visitor.session, world.mara)
    site = mara.door.passkeys.site("localhost:8000")
    assert site is not None
    passkeys, session = mara.door.passkeys, opened.visitor.session
    options = await passkeys.begin_adding(session, world.mara, site)
    await world.store.transact(await passkeys.added(session, world.mara, key.make(options), "Key"))
    await world.sessions.sign_out(session)
    return Passport(world, key)


async def test_a_passkey_signs_in_without_a_user_name(passport: Passport) -> None:
    await passport.browser.open("/signin")
    await passport.signs_in()
    assert is_signed_in(passport.browser)
    assert MARA in passport.browser.text


async def test_a_passkey_answers_an_apps_request(passport: Passport, heart_diary: App) -> None:
    await passport.browser.authorize(heart_diary)
    await passport.signs_in()
    assert passport.browser.heading == "Allow Heart Diary to use your record?"


async def test_a_passkey_needs_no_code(passport: Passport, mara: Resident) -> None:
    await mara.app()
    await passport.browser.open("/signin")
    await passport.signs_in()
    assert is_signed_in(passport.browser)


@pytest.mark.parametrize("answer", ["", "{}", "null", "x" * 1000])
async def test_a_refused_passkey_says_so(passport: Passport, answer: str) -> None:
    await passport.browser.open("/signin")
    await passport.signs_in(credential=answer)
    assert passport.browser.page.status_code == 403
    assert problem(passport.browser) == (
        "That passkey did not work here. Try again, or use your password."
    )


async def test_a_passkeys_answer_cannot_be_planted_in_another_browser(
    world: World, passport: Passport
) -> None:
    """Login CSRF: the attacker's answer, posted by the victim's browser."""
    attacker, victim = passport, Passport(world, passport.key)
    await attacker.browser.open("/signin")
    await victim.browser.open("/signin")
    answer = attacker.key.sign((await attacker.options()).text)
    theirs = fields_of(forms(attacker.browser, "/signin")[0])
    response = await victim.browser.http.post(
        "/signin/passkey", data={**theirs, "credential": answer}
    )
    assert response.status_code == 403
    mine = fields_of(forms(victim.browser, "/signin")[0])
    await post(victim.browser, "/signin/passkey", {**mine, "credential": answer})
    assert victim.browser.page.status_code == 403


async def test_challenges_are_for_our_own_page_alone(world: World, passport: Passport) -> None:
    await passport.browser.open("/signin")
    fields = fields_of(forms(passport.browser, "/signin")[0])
    path = "/signin/passkey/options"
    for data, headers in (
        ({"request": ""}, {}),
        ({**fields, "form_token": "x"}, {}),
        (fields, {"Sec-Fetch-Site": "cross-site"}),
    ):
        response = await passport.browser.http.post(path, data=data, headers=headers)
        assert response.status_code == 403
    assert await world.store.every(PasskeyChallenge) == []
    assert (await passport.options()).headers["cache-control"] == "no-store"


async def test_one_network_cannot_fill_the_store_with_challenges(
    world: World, passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.web.pages.signin._CHALLENGES", "3 per 5 minutes")
    statuses = []
    for _ in range(5):
        browser = Passport(world, passport.key)
        await browser.browser.open("/signin")
        statuses.append((await browser.options()).status_code)
    assert statuses == [200, 200, 200, 429, 429]
    assert len(await world.store.every(PasskeyChallenge)) == 3


async def test_an_address_of_numbers_offers_no_passkeys(world: World) -> None:
    browser = world.browser()
    await browser.open("/signin")
    assert browser.document.xpath("//*[@data-passkey]") == []
    fields = fields_of(forms(browser, "/signin")[0])
    response = await browser.http.post("/signin/passkey/options", data=fields)
    assert response.status_code == 400


# --- where a sign-in leads -----------------------------------------------------------------------

ELSEWHERE = [
    "//evil.example",
    "https://evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "/%2f/evil.example",
    "/account?x=1",
    "/account#x",
    "javascript:alert(1)",
    "/a\r\nSet-Cookie: x=1",
    "account/security",
    "/" + "a" * 300,
    "/\u2044evil.example",
    "/@evil.example",
    "///evil.example",
    "//evil",
    "//evil/account",
]


@pytest.mark.parametrize("path", ELSEWHERE, ids=range(len(ELSEWHERE)))
@pytest.mark.requirement("attacks", "open redirect")
async def test_a_sign_in_never_leads_elsewhere(world: World, path: str) -> None:
    """Open redirect: what is no plain page of ours is forgotten."""
    assert local(path) == ""
    browser = world.browser()
    await browser.open("/signin", params={"then": path})
    (form,) = forms(browser, "/signin")
    assert "then" not in fields_of(form)
    response = await browser.http.post(
        "/signin",
        data={**fields_of(form), "username": MARA, "password": PASSWORD, "then": path},
    )
    assert response.headers["location"] == "/signin"
    for page in ("/signin", "/account/confirm"):
        response = await browser.http.get(page, params={"then": path})
        assert "evil" not in response.headers.get("location", "")
        assert "evil" not in response.text


async def test_a_sign_in_leads_back_to_the_page_it_was_for(world: World) -> None:
    browser = await at_security(world)
    await browser.open("/signin?then=/account/security")
    assert browser.heading == "Security"


def test_what_leads_on_is_passed_from_page_to_page() -> None:
    onward = Onward.of({"request": "a b&c", "then": "/account/apps"})
    assert onward.at("/signin/code") == "/signin/code?request=a+b%26c&then=/account/apps"
    assert Onward().at("/signin") == "/signin"


# --- the pages themselves ------------------------------------------------------------------------


async def test_pages_with_a_script_allow_ours_alone(world: World) -> None:
    browser = world.browser()
    await browser.open("/signin")
    policy = browser.page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'; connect-src 'self';" in policy
    assert "unsafe" not in policy
    (script,) = browser.document.xpath("//script")
    assert script.get("src") == SCRIPT_PATH
    assert not script.text
    response = await browser.http.get(SCRIPT_PATH)
    assert response.headers["content-type"].startswith("text/javascript")
    assert "immutable" in response.headers["cache-control"]


async def test_pages_without_a_script_allow_none(world: World, mara: Resident) -> None:
    await mara.app()
    browser = await gives_password(world)
    assert "script-src" not in browser.page.headers["content-security-policy"]
    assert browser.document.xpath("//script") == []


async def test_nothing_a_person_pastes_is_cut_off(world: World) -> None:
    """A ``maxlength`` would shorten a pasted password without a word (ASVS 6.2.7, 6.2.8)."""
    browser = world.browser()
    await browser.open("/signin")
    (field,) = browser.document.xpath("//input[@name='password']")
    assert field.get("maxlength") is None
    assert field.get("autocomplete") == "current-password"
    for attribute in ("onpaste", "pattern"):
        assert field.get(attribute) is None


@pytest.mark.parametrize(
    "path",
    ["/signin", "/signin/code", "/signin/recovery-code", "/signin/passkey", "/account/confirm"],
)
@pytest.mark.parametrize(
    "body", [b"", b"a=%ff", b"code=1&code=2", b"request=", b"request=x&form_token=%00", b"\xff"]
)
async def test_a_strange_form_gets_a_page_and_never_a_fault(
    world: World, path: str, body: bytes
) -> None:
    async with world.http() as http:
        response = await http.post(
            path, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
    assert response.status_code in (303, 400, 403)
    assert "Traceback" not in response.text


async def test_a_fault_of_ours_is_a_page_that_says_nothing_of_the_inside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await at_security(world)

    async def broken(*_: Any) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(type(world.sessions), "of", broken)
    await browser.open(SECURITY)
    assert browser.page.status_code == 500
    assert browser.heading == "This did not work"
    assert "inside" not in browser.text


# --- browsers that are known here ----------------------------------------------------------------


async def knows(world: World, cookie: str, username: str = MARA) -> bool:
    """Whether a browser with this device cookie is known to be that person's."""
    cookies = Cookies(world.server.issuer, world.keys, world.sessions)
    sent: Any = SimpleNamespace(
        cookies={"portal-device": cookie}, headers={}, client=SimpleNamespace(host="192.0.2.1")
    )
    return (await cookies.place(sent, username)).known is not None


async def test_a_browser_is_known_by_what_its_person_signs_in_with(
    world: World, mara: Resident
) -> None:
    """What was collected before a new password, or before an app, is worth nothing after."""
    await world.account("jon@example.org", own_record("Patient/jon", "Jon"))
    before = (await gives_password(world)).http.cookies["portal-device"]
    assert await knows(world, before)
    assert not await knows(world, before, "jon@example.org")
    assert not await knows(world, before, "nobody")
    app = await mara.app()
    assert not await knows(world, before)
    browser = await gives_password(world)
    assert "portal-device" not in browser.http.cookies  # half a sign-in is none
    await submit(browser, "/signin/code", code=app.code)
    after = browser.http.cookies["portal-device"]
    assert await knows(world, after)
    world.clock.advance(30)
    await browser.open(f"{SECURITY}/password")
    new = "seven quiet otters"
    await submit(browser, f"{SECURITY}/password", password=PASSWORD, new_password=new, repeated=new)
    assert not await knows(world, after)
    assert await knows(world, browser.http.cookies["portal-device"])  # the one that changed it


async def test_taking_the_app_away_leaves_this_browser_known(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = await at_security(world, app=app)
    before = browser.http.cookies["portal-device"]
    await browser.open(f"{SECURITY}/app/remove")
    await submit(browser, f"{SECURITY}/app/remove")
    assert not await knows(world, before)
    assert await knows(world, browser.http.cookies["portal-device"])


async def test_a_browser_is_known_for_so_long(world: World) -> None:
    cookie = (await gives_password(world)).http.cookies["portal-device"]
    world.clock.advance(365 * 86_400 - 1)
    assert await knows(world, cookie)
    world.clock.advance(1)
    assert not await knows(world, cookie)


@pytest.mark.parametrize("part", range(4))
async def test_a_browser_that_was_made_up_is_not_known(world: World, part: int) -> None:
    cookie = (await gives_password(world)).http.cookies["portal-device"]
    parts = cookie.split(".")
    assert len(parts) == 4
    parts[part] = "1" * len(parts[part])
    for made_up in (".".join(parts), ".".join(parts[:part]), cookie + ".x", "", "...", "é" * 9):
        assert not await knows(world, made_up)


async def test_a_neighbour_cannot_use_up_the_challenges_of_a_known_browser(
    world: World, passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.web.pages.signin._CHALLENGES", "3 per 5 minutes")
    monkeypatch.setattr("fhir_portal.web.pages.signin._CHALLENGES_KNOWN", "2 per 5 minutes")
    await passport.browser.open("/signin")
    await passport.signs_in()
    await submit(passport.browser, "/signout")
    statuses = []
    for _ in range(4):
        stranger = Passport(world, passport.key)
        await stranger.browser.open("/signin")
        statuses.append((await stranger.options()).status_code)
    assert statuses == [200, 200, 429, 429]  # one was the passport's own
    assert [(await passport.options()).status_code for _ in range(3)] == [200, 200, 429]


# --- what is said of a mistake -------------------------------------------------------------------


def focused(browser: Browser) -> list[str]:
    return [one.get("name") for one in browser.document.xpath("//*[@autofocus]")]


def invalid(browser: Browser) -> list[str]:
    return [one.get("name") for one in browser.document.xpath("//*[@aria-invalid='true']")]


async def test_a_wrong_field_is_marked_and_has_the_focus(world: World, mara: Resident) -> None:
    app = await mara.app()
    browser = world.browser()
    await browser.open("/signin")
    assert (focused(browser), invalid(browser)) == ([], [])
    await submit(browser, "/signin", username=MARA, password="wrong")
    assert (focused(browser), invalid(browser)) == (["password"], ["username", "password"])
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    await submit(browser, "/signin/code", code="000000")
    assert (focused(browser), invalid(browser)) == (["code"], ["code"])
    await browser.open("/signin/recovery-code")
    code = "0000-0000-0000"
    await submit(browser, "/signin/recovery-code", username=MARA, password=PASSWORD, code=code)
    assert focused(browser) == ["password"]
    assert invalid(browser) == ["username", "password", "code"]
    assert app.code


async def test_the_other_ways_in_are_shown_from_the_start(world: World, heart_diary: App) -> None:
    browser = world.browser()
    await browser.authorize(heart_diary)
    assert "Forgotten your user name or password?" in browser.text
    *forgotten, link = browser.document.xpath("//main//details//a[not(@href='/help')]")
    assert [one.text_content() for one in forgotten] == [
        "I forgot my user name",
        "I forgot my password",
        "I forgot both",
    ]
    await browser.open(link.get("href"))
    assert browser.heading == "Sign in with a recovery code"
    (form,) = forms(browser, "/signin/recovery-code")
    assert fields_of(form)["request"]
