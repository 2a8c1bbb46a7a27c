"""What people have to do first: renew a credential, accept terms of use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from starlette.routing import Route

from fhir_portal.accounts import terms
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.devices import RememberedDevice
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.renewal import RenewalReason, require_renewal
from fhir_portal.accounts.sessions import Session
from fhir_portal.accounts.terms import TermsAccepted
from fhir_portal.web.pages import pages_router
from tests.accounts.authenticator import Authenticator
from tests.smart.world import PASSWORD, Browser, World, own_record
from tests.web.signing_in import (
    MARA,
    Resident,
    at_security,
    fields_of,
    forms,
    post,
    problem,
    submit,
)
from tests.web.test_security_pages import LOCALHOST, add_passkey, at_localhost

NEW = "seven quiet otters"
RENEW, TERMS = "/account/renew", "/account/terms"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.fixture
def mara(world: World) -> Resident:
    return Resident(world)


async def must_renew(world: World, reason: RenewalReason = "suspected-compromise") -> None:
    await world.store.transact(
        lambda transaction: require_renewal(transaction, world.mara.key, reason)
    )


async def publish(world: World, text: str, scope: str = terms.PORTAL) -> terms.Terms:
    return await world.store.transact(
        lambda transaction: terms.publish(
            transaction, scope, summary=f"In short: {text}", text=text, now=world.clock()
        )
    )


async def signs_in(world: World, *, then: str = "/account/security") -> Browser:
    browser = world.browser()
    await browser.open(then)
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    return browser


async def account(world: World) -> Account:
    found = await world.store.get(Account, world.mara.key)
    assert found is not None
    return found


# --- renewal -------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S4-13")
async def test_renewal_ends_sessions_and_is_the_first_thing(world: World, mara: Resident) -> None:
    before = await at_security(world)
    _, keep = mara.door.devices.remember(world.mara.key, "Here")
    await world.store.transact(keep)
    await must_renew(world)
    assert await world.store.every(RememberedDevice) == []
    await before.open("/account/security")
    assert before.heading == "Sign in"
    browser = await signs_in(world)
    assert browser.heading == "Renew your sign-in"
    assert "Somebody else may know" in browser.text
    await submit(browser, RENEW, new_password=NEW)
    assert browser.heading == "Security"
    assert (await account(world)).renewal is None
    assert await mara.told() == ["security-password-changed"]
    again = world.browser()
    await again.open("/signin")
    await submit(again, "/signin", username=MARA, password=NEW)
    assert again.heading == "You are signed in"


@pytest.mark.parametrize("duty", ["renewal", "terms"])
async def test_no_other_page_takes_them_for_signed_in(
    world: World, mara: Resident, duty: str
) -> None:
    await must_renew(world) if duty == "renewal" else await publish(world, "Be kind.")
    browser = await signs_in(world)
    cookie = browser.http.cookies["portal-session"]
    paths = {
        (path, method)
        for path, methods in routes(world, mara)
        for method in methods
        if method in ("GET", "POST") and not path.startswith("/static/")
    }
    assert len(paths) > 40
    for path, method in sorted(paths):
        if path == "/signout":
            continue
        async with world.http(cookies={"portal-session": cookie}) as http:
            answer = await http.request(method, path)
        assert MARA not in answer.text or path == RENEW, path
        if path.startswith("/account") and method == "GET" and path not in (RENEW, TERMS):
            assert answer.headers.get("location", "").startswith("/signin"), (path, answer.text)
    assert (await account(world)).password_hash == world.mara.password_hash
    (session,) = await world.store.find(Session, "account", world.mara.key)
    found = await world.sessions.find(cookie)
    assert found is not None
    assert (found.account, found.duty, found.session.key) == (None, duty, session.key)


def routes(world: World, mara: Resident) -> list[tuple[str, set[str]]]:
    """Every page there is, those that are added later too."""
    pages = pages_router(
        server=world.server,
        sessions=world.sessions,
        sign_in=mara.door.password,
        codes=world.codes,
    )
    return [(one.path, one.methods or set()) for one in pages.routes if isinstance(one, Route)]


@pytest.mark.requirement("portal", "S4-13")
@pytest.mark.parametrize("duty", ["renewal", "terms", "both"])
async def test_an_app_that_waits_goes_on_after_it(world: World, duty: str) -> None:
    """Regression: a redirect that leads nowhere would lock people out for good."""
    if duty != "renewal":
        await publish(world, "Be kind.")
    if duty != "terms":
        await must_renew(world)
    app, browser = await world.public_app(), world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    if duty != "terms":
        assert browser.heading == "Renew your sign-in"
        assert "https:" in browser.page.headers["content-security-policy"].split("form-action")[1]
        await submit(browser, RENEW, new_password=NEW)
    if duty != "renewal":
        assert browser.heading == "Terms of use"
        assert "https:" in browser.page.headers["content-security-policy"].split("form-action")[1]
        await submit(browser, TERMS, accept="yes")
    assert browser.heading == "Allow Heart Diary to use your record?"


async def test_an_apps_request_that_is_over_locks_nobody_out(world: World) -> None:
    await must_renew(world)
    app, browser = await world.public_app(), world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    form = fields_of(forms(browser, RENEW)[0])
    await post(browser, RENEW, {**form, "request": "x" * 43, "new_password": NEW})
    assert browser.heading == "You are signed in"


@pytest.mark.parametrize(
    "then", ["https://evil.example", "//evil.example", "/\\evil", "javascript:x"]
)
async def test_nobody_is_led_to_another_site(world: World, then: str) -> None:
    await must_renew(world)
    browser = await signs_in(world)
    form = fields_of(forms(browser, RENEW)[0])
    response = await browser.http.post(RENEW, data={**form, "then": then, "new_password": NEW})
    assert response.headers["location"] == "/signin"


async def test_the_old_password_and_weak_ones_do_not_do(world: World) -> None:
    await must_renew(world)
    browser = await signs_in(world)
    for weak in (PASSWORD, "short", "passwordpassword"):
        await submit(browser, RENEW, new_password=weak)
        assert browser.page.status_code == 400
        assert problem(browser)
    await submit(browser, RENEW, new_password=NEW, repeated="another one altogether")
    assert problem(browser) == "The new password was not typed the same way twice."
    assert (await account(world)).renewal == "suspected-compromise"


async def test_the_second_factor_is_asked_before(world: World, mara: Resident) -> None:
    app = await mara.app()
    await must_renew(world)
    browser = await signs_in(world)
    assert browser.heading != "Renew your sign-in"
    await browser.open(RENEW)
    assert browser.heading != "Renew your sign-in"
    await browser.open("/signin/code")
    await submit(browser, "/signin/code", code=app.code)
    assert browser.heading == "Renew your sign-in"


@pytest.mark.requirement("portal", "S4-13")
async def test_a_passkey_renews_and_the_old_password_is_dropped(
    world: World, mara: Resident
) -> None:
    key = Authenticator(origin=LOCALHOST, domain="localhost")
    await add_passkey(await at_localhost(world), key)
    await must_renew(world)
    browser = await at_localhost(world)
    assert browser.heading == "Renew your sign-in"
    form = fields_of(forms(browser, RENEW)[0])
    await post(browser, f"{RENEW}/passkey", {**form, "credential": "{}"})
    assert browser.page.status_code == 403
    options = await browser.http.post(f"{RENEW}/passkey/options", data=form)
    await post(browser, f"{RENEW}/passkey", {**form, "credential": key.sign(options.text)})
    assert browser.heading in ("Security", "You are signed in")
    now = await account(world)
    assert (now.password_hash, now.renewal) == (None, None)
    assert len(await world.store.every(Passkey)) == 1
    assert (await mara.told())[-1] == "security-password-removed"
    old = await signs_in(world)
    assert old.page.status_code == 403


async def test_one_of_two_held_sessions_renews(world: World) -> None:
    await must_renew(world)
    both = [await signs_in(world), await signs_in(world)]
    answers = await asyncio.gather(
        *(
            one.http.post(
                RENEW, data={**fields_of(forms(one, RENEW)[0]), "new_password": f"{NEW} {number}"}
            )
            for number, one in enumerate(both)
        )
    )
    assert sorted(one.headers["location"] for one in answers) == ["/account/security", "/signin"]
    assert len(await world.store.find(Session, "account", world.mara.key)) == 1


async def test_signing_out_is_always_possible(world: World) -> None:
    await must_renew(world)
    browser = await signs_in(world)
    await submit(browser, "/signout")
    assert browser.heading == "Sign in"
    assert await world.store.find(Session, "account", world.mara.key) == []


@pytest.mark.parametrize("path", [RENEW, f"{RENEW}/passkey", f"{RENEW}/passkey/options", TERMS])
async def test_a_form_that_is_not_ours_does_nothing(world: World, path: str) -> None:
    await must_renew(world)
    await publish(world, "Be kind.")
    browser = await signs_in(world)
    data = {"form_token": "x", "new_password": NEW, "accept": "yes", "shown": "portal/1"}
    assert (await browser.http.post(path, data=data)).status_code == 403
    assert (await account(world)).renewal is not None
    assert await world.store.every(TermsAccepted) == []


async def test_without_a_duty_nothing_is_renewed(world: World) -> None:
    """A form kept from a renewal changes no password later: the one in use is not asked there."""
    await must_renew(world)
    browser = await signs_in(world)
    form = fields_of(forms(browser, RENEW)[0])
    await submit(browser, RENEW, new_password=NEW)
    before = await account(world)
    response = await browser.http.post(RENEW, data={**form, "new_password": "nine loud badgers"})
    assert response.status_code == 403
    await browser.open(RENEW)
    assert browser.heading == "You are signed in"
    assert await account(world) == before


async def test_an_old_row_without_the_field_is_read(world: World) -> None:
    old = msgspec.json.decode(msgspec.json.encode(world.mara))
    old.pop("renewal", None)
    assert msgspec.convert(old, Account).renewal is None


# --- terms of use --------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-28", "S1-11")
async def test_terms_are_asked_once_for_each_version(world: World) -> None:
    await publish(world, "Be kind.\n\nPay your bills.")
    browser = await signs_in(world)
    assert browser.heading == "Terms of use"
    await submit(browser, TERMS)
    assert problem(browser).startswith("Tick the box")
    await submit(browser, TERMS, accept="yes")
    assert browser.heading == "Security"
    (accepted,) = await world.store.every(TermsAccepted)
    assert (accepted.account, accepted.terms, accepted.at) == (
        world.mara.key,
        "portal/1",
        world.clock(),
    )
    assert (await signs_in(world)).heading == "Security"
    await publish(world, "Be kind.\n\nPay your bills in time.")
    await browser.open("/account/security")
    assert browser.heading == "Security"  # asked at the next sign-in, not in the middle
    again = await signs_in(world)
    assert again.heading == "Terms of use"
    assert [one.text_content() for one in again.document.xpath("//del")] == ["Pay your bills."]
    assert [one.text_content() for one in again.document.xpath("//ins")] == [
        "Pay your bills in time."
    ]


async def test_the_terms_of_ones_practices_are_asked_and_no_others(world: World) -> None:
    person = msgspec.structs.replace(world.mara, persons=("skin/Person/mara",))
    await world.store.transact(lambda transaction: transaction.put(person))
    await publish(world, "Wear sun cream.", terms.scope_of("skin"))
    await publish(world, "Eat well.", terms.scope_of("family"))
    browser = await signs_in(world)
    assert "Wear sun cream." in browser.text
    assert "Eat well." not in browser.text


async def test_what_was_not_shown_is_not_accepted(world: World) -> None:
    await publish(world, "Be kind.")
    browser = await signs_in(world)
    await publish(world, "Be very kind.")
    await submit(browser, TERMS, accept="yes")
    assert browser.page.status_code == 409
    assert "Be very kind." in browser.text
    assert await world.store.every(TermsAccepted) == []
    await submit(browser, TERMS, accept="yes")
    assert browser.heading == "Security"


async def test_terms_are_text_and_no_markup(world: World) -> None:
    await publish(world, "<script>alert(1)</script> & <b>bold</b>")
    browser = await signs_in(world)
    assert "<script>alert" not in browser.page.text
    assert browser.document.xpath("//main//b") == []


@pytest.mark.requirement("portal", "S1-11")
async def test_what_is_current_can_be_read_again(world: World) -> None:
    await publish(world, "Be kind.")
    browser = await signs_in(world)
    await submit(browser, TERMS, accept="yes")
    await browser.open(TERMS)
    assert "Be kind." in browser.text
    assert forms(browser, TERMS) == []


async def test_acceptance_is_each_accounts_own(world: World) -> None:
    await publish(world, "Be kind.")
    browser = await signs_in(world)
    await submit(browser, TERMS, accept="yes")
    await world.account("jon@example.org", own_record("Patient/jon", "Jon"))
    jon = world.browser()
    await jon.open("/account/security")
    await submit(jon, "/signin", username="jon@example.org", password=PASSWORD)
    assert jon.heading == "Terms of use"
