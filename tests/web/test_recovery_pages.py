"""``/recover`` over HTTP: how people get back in, and how nobody else does."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import RECOVERY_AFTER_SECONDS
from fhir_portal.accounts.devices import RememberedDevice
from fhir_portal.accounts.front_door import Place
from fhir_portal.accounts.matter import StaffMatter
from fhir_portal.accounts.one_time_code import Challenge
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.recovery import MESSAGES, Recovery, RecoveryOver
from fhir_portal.accounts.sessions import Session
from fhir_portal.embedded.store import EmbeddedStore, EmbeddedTransaction
from fhir_portal.notify.outbox import NOBODY, OutboxMessage
from fhir_portal.records import RecordTransaction
from fhir_portal.web.pages.errors import next_step
from tests.accounts.authenticator import Authenticator
from tests.matters import open_matters
from tests.smart.world import PASSWORD, Browser, World
from tests.web.recovering import (
    MAIL,
    NEW,
    PHONE,
    begins,
    chooses,
    code_for,
    contact,
    gives,
    names_received,
    received,
    recoveries_of,
)
from tests.web.signing_in import (
    Resident,
    at_security,
    fields_of,
    forms,
    post,
    problem,
    submit,
)
from tests.web.test_security_pages import LOCALHOST, add_passkey, at_localhost

UNKNOWN = "nobody@example.org"
OVER = "This did not work"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.fixture
def mara(world: World) -> Resident:
    return Resident(world)


async def recovered(world: World) -> bool:
    """Whether Mara's password is the new one."""
    account = await world.store.get(Account, world.mara.key)
    assert account is not None
    return account.password_hash != world.mara.password_hash


# --- getting back in -----------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-31", "S0-51", "S0-52", "S2-32")
@pytest.mark.parametrize("want", ["password", "both"])
async def test_a_code_and_a_new_password_let_the_owner_in(world: World, want: str) -> None:
    await contact(world, world.mara)
    await contact(world, world.mara, PHONE)
    browser = await begins(world, want=want)
    assert browser.heading == "Type the code"
    (mail, code), (sms, same) = await received(world)
    assert (mail, sms) == (f"mail:{MAIL}", f"sms:{PHONE}")
    assert code == same
    await gives(browser, code)
    await chooses(browser)
    assert browser.heading == "You are signed in"
    told = [one for one in await world.store.every(OutboxMessage) if "security" in one.template]
    assert [(one.template, one.to) for one in told] == [
        ("security-account-recovered", f"account:{world.mara.key}")
    ]
    reminded = [(f"account:{world.mara.key}", f"username/{world.mara.key}")]
    assert await names_received(world) == (reminded if want == "both" else [])
    again = world.browser()
    await again.open("/signin")
    await submit(again, "/signin", username=MAIL, password=NEW)
    assert again.heading == "You are signed in"


@pytest.mark.requirement("portal", "S0-52")
async def test_a_recovery_code_and_a_new_password_let_the_owner_in(
    world: World, mara: Resident
) -> None:
    code, *_ = await mara.recovery_codes()
    browser = await begins(world, want="both")
    await gives(browser, code)
    await chooses(browser)
    assert browser.heading == "You are signed in"
    again = await begins(world, want="both")
    await gives(again, code)
    assert problem(again)


@pytest.mark.requirement("portal", "S0-31")
async def test_all_sessions_and_remembered_browsers_end(world: World, mara: Resident) -> None:
    await contact(world, world.mara)
    thief = await at_security(world)
    _, keep = mara.door.devices.remember(world.mara.key, "Thief")
    await world.store.transact(keep)
    browser = await begins(world)
    fixed = browser.http.cookies.get("portal-session")
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    assert await world.store.every(RememberedDevice) == []
    (session,) = await world.store.find(Session, "account", world.mara.key)
    assert (await world.sessions.find(fixed or "")) is None
    assert browser.http.cookies.get("portal-session") != fixed
    assert session.factors == ("contact-code",)
    await thief.open("/account/security")
    assert thief.heading == "Sign in"


async def test_an_app_that_waits_goes_on_after_the_recovery(world: World) -> None:
    await contact(world, world.mara)
    app, browser = await world.public_app(), world.browser()
    await browser.authorize(app)
    (link,) = [
        one for one in browser.document.xpath("//a/@href") if one.startswith("/recover?want=pass")
    ]
    await browser.open(link)
    await submit(browser, "/recover", name=MAIL)
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    assert browser.boxes()


@pytest.mark.requirement("portal", "S0-50")
async def test_a_user_name_goes_to_the_contact_and_not_to_the_screen(world: World) -> None:
    tess = await world.account("tess-the-skipper")
    await contact(world, tess, "tess@example.net")
    browser = await begins(world, "tess@example.net", "username")
    assert browser.heading == "Look at your messages"
    assert "skipper" not in browser.page.text
    assert await names_received(world) == [("mail:tess@example.net", f"username/{tess.key}")]
    assert await received(world) == []
    stored = msgspec.json.encode(await world.store.every(OutboxMessage)).decode()
    assert "skipper" not in stored


async def test_a_shared_contact_gets_both_user_names_and_no_code(world: World) -> None:
    tess = await world.account("tess")
    for account in (world.mara, tess):
        await contact(world, account, PHONE)
    browser = await begins(world, PHONE, "password")
    assert [to for to, _ in await names_received(world)] == [f"sms:{PHONE}"] * 2
    await gives(browser, await code_for(world, browser))
    assert problem(browser)


# --- the second factor ---------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-31", "S0-51")
async def test_an_authenticator_app_is_asked_for_too(world: World, mara: Resident) -> None:
    await contact(world, world.mara)
    app = await mara.app()
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    assert browser.heading == "One more proof"
    await gives(browser, "000000")
    assert browser.page.status_code == 403
    await gives(browser, app.code)
    await chooses(browser)
    assert browser.heading == "You are signed in"


async def test_one_sheet_of_recovery_codes_is_one_proof(world: World, mara: Resident) -> None:
    await contact(world, world.mara)
    await mara.app()
    first, second, *_ = await mara.recovery_codes()
    browser = await begins(world)
    code = await code_for(world, browser)
    await gives(browser, first)
    assert browser.heading == "One more proof"
    await gives(browser, second)
    assert browser.heading == "One more proof"
    await gives(browser, code)
    await chooses(browser)
    assert browser.heading == "You are signed in"


async def test_a_passkey_is_the_second_proof(world: World) -> None:
    await contact(world, world.mara)
    key = Authenticator(origin=LOCALHOST, domain="localhost")
    await add_passkey(await at_localhost(world), key)
    browser = await begins(world, at=LOCALHOST)
    await gives(browser, await code_for(world, browser))
    assert browser.heading == "One more proof"
    form = fields_of(forms(browser, "/recover/code")[0])
    options = await browser.http.post("/recover/passkey/options", data=form)
    await post(browser, "/recover/passkey", {**form, "credential": key.sign(options.text)})
    assert browser.heading == "Choose a new password"


@pytest.mark.parametrize("step", ["code", "second"])
async def test_no_address_leads_past_a_proof(world: World, mara: Resident, step: str) -> None:
    await contact(world, world.mara)
    await mara.app()
    browser = await begins(world)
    recovery = str(browser.page.url).rpartition("=")[2]
    if step == "second":
        await gives(browser, await code_for(world, browser))
    await browser.open(f"/recover/password?recovery={recovery}")
    assert not forms(browser, "/recover/password")
    form = fields_of(forms(browser, "/recover/code")[0])
    await post(browser, "/recover/password", {**form, "new_password": NEW})
    assert browser.page.status_code == 403
    assert not await recovered(world)
    options = await browser.http.post("/recover/passkey/options", data=form)
    assert options.status_code != 200


async def test_the_domain_refuses_to_finish_without_the_proofs(
    world: World, mara: Resident
) -> None:
    """Not the page alone: no form token can make up for what is missing."""
    await contact(world, world.mara)
    await begins(world)
    (recovery,) = await world.store.every(Recovery)
    recoveries = recoveries_of(world, mara.door)
    before = world.sessions.drafted().visitor.session
    with pytest.raises(RecoveryOver):
        await recoveries.finish(recovery, before, NEW, Place("192.0.2.1"))


# --- nobody learns who has an account -------------------------------------------------------------


@contextlib.contextmanager
def counting(world: World) -> Iterator[Counter[str]]:
    """Count what the store is asked to do, by kind of record."""
    count: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for owner in (EmbeddedStore, EmbeddedTransaction):
            for name in ("get", "find", "insert", "put", "replace", "delete", "transact"):
                if hasattr(owner, name):
                    patch.setattr(owner, name, _counted(count, getattr(owner, name)))
        yield count
    assert world.store is not None


def _counted(count: Counter[str], method: Any) -> Any:
    async def counted(self: Any, what: Any, *rest: Any, **how: Any) -> Any:
        count[f"{method.__name__} {getattr(what, 'kind', '')}"] += 1
        return await method(self, what, *rest, **how)

    return counted


def plain(text: str) -> str:
    """A page without its random parts."""
    return re.sub(r"[A-Za-z0-9_-]{32,}", "X", text)


@pytest.mark.requirement("portal", "S0-50", "S0-54")
@pytest.mark.parametrize("want", ["username", "password", "both"])
async def test_known_and_unknown_get_the_same_answers(world: World, want: str) -> None:
    await contact(world, world.mara)
    no_contact = await world.account("tess@example.org")
    disabled = await world.account("dora@example.org")
    off = msgspec.structs.replace(disabled, disabled=True)
    await world.store.transact(lambda transaction: transaction.put(off))
    seen = []
    for name in (MAIL, UNKNOWN, no_contact.username, disabled.username, "no contact at all", PHONE):
        browser = world.browser()
        pages = [await browser.open(f"/recover?want={want}")]
        pages.append(await submit(browser, "/recover", name=name))
        if want != "username":
            pages += [
                await submit(browser, "/recover/code", code=code)
                for code in ("1234 5678", "123456", "0aaa-bbbb-cccc", "", "0" * 900)
            ]
        else:
            pages.append(await submit(browser, "/recover/help"))
        seen.append([(one.status_code, plain(one.text), sorted(one.headers)) for one in pages])
    assert all(one == seen[0] for one in seen)


async def test_known_and_unknown_cost_the_same_work(world: World, mara: Resident) -> None:
    """Counted: transactions, rows read and rows written of each kind."""
    await contact(world, world.mara)
    await mara.recovery_codes()
    counts = []
    for name in (MAIL, UNKNOWN):
        with counting(world) as count:
            browser = await begins(world, name)
            for code in ("1234 5678", "0aaa-bbbb-cccc"):
                await gives(browser, code)
            for _ in range(3):
                await gives(browser, "1")
            assert browser.heading == "Your practice can help"
        counts.append(count)
    assert counts[0] == counts[1]
    assert counts[0]["insert outbox-message"] == MESSAGES
    assert counts[0].total() > 50


async def test_homoglyphs_of_a_name_are_another_name(world: World) -> None:
    await contact(world, world.mara)
    for name in ("m\u0430ra@example.org", "mara@ex\u0430mple.org", "ma\u200bra@example.org"):
        await begins(world, name)
    assert await received(world) == []


async def test_width_and_case_of_ones_own_name_do_not_matter(world: World) -> None:
    await contact(world, world.mara)
    await begins(world, "\uff2d\uff21\uff32\uff21@example.org")
    assert len(await received(world)) == 1


@pytest.mark.parametrize("name", ["", " ", "x" * 300, "\x00", "a\r\nBcc: b@example.org", "\ud800"])
async def test_whatever_is_typed_sends_nothing_to_anybody_else(world: World, name: str) -> None:
    browser = await begins(world, name.encode("utf-8", "replace").decode())
    assert browser.page.status_code in (200, 400)
    assert {one.to for one in await world.store.every(OutboxMessage)} <= {NOBODY}


# --- what does not help to recover ----------------------------------------------------------------


@pytest.mark.requirement("portal", "S1-12", "S1-16")
@pytest.mark.parametrize("ago", [3600, None])
async def test_a_contact_of_an_hour_ago_or_unproved_gets_no_code(
    world: World, ago: float | None
) -> None:
    recovers = None if ago is None else world.clock() - ago + RECOVERY_AFTER_SECONDS
    await contact(world, world.mara, "thief@example.net", recovers_from=recovers)
    for name in (MAIL, "thief@example.net"):
        browser = await begins(world, name)
        await gives(browser, await code_for(world, browser))
        assert problem(browser)
    await begins(world, "thief@example.net", "username")
    assert await received(world) == []
    assert await names_received(world) == []


async def test_codes_are_not_found_by_trying_at_once(world: World) -> None:
    await contact(world, world.mara)
    browser = await begins(world)
    right = await code_for(world, browser)
    form = fields_of(forms(browser, "/recover/code")[0])
    await asyncio.gather(
        *(browser.http.post("/recover/code", data={**form, "code": f"{n:08d}"}) for n in range(20))
    )
    (challenge,) = await world.store.every(Challenge)
    assert challenge.tries == 5
    answered = await browser.http.post("/recover/code", data={**form, "code": right})
    assert answered.status_code == 403
    (help_,) = await open_matters(world.store, "recovery-help")
    assert (help_.reason, help_.accounts) == ("locked", (world.mara.key,))


async def test_a_code_is_good_once_and_in_its_browser_and_for_ten_minutes(world: World) -> None:
    await contact(world, world.mara)
    browser, other = await begins(world), world.browser()
    await other.open("/recover")
    form = fields_of(forms(browser, "/recover/code")[0])
    code = await code_for(world, browser)
    stolen = await other.http.post("/recover/code", data={**form, "code": code})
    assert stolen.status_code == 403
    await other.open(str(browser.page.url))
    assert other.heading == OVER
    world.clock.advance(600)
    await gives(browser, code)
    assert problem(browser)
    assert not await recovered(world)


@pytest.mark.requirement("portal", "S0-54")
async def test_each_refusal_has_its_code_and_says_what_to_do_next(world: World) -> None:
    """The same ones, whether or not there is an account."""
    await contact(world, world.mara)
    told: list[list[str]] = []
    for name in (MAIL, UNKNOWN):
        browser = await begins(world, name="")
        codes = [code_of(browser)]
        await browser.open("/recover/desk")
        await submit(browser, "/recover/desk", code="no such code")
        codes.append(code_of(browser))
        browser = await begins(world, name)
        await gives(browser, "00000000")
        codes.append(code_of(browser))
        for _ in range(4):
            await gives(browser, "00000000")
        assert browser.heading == "Your practice can help"
        codes.append(code_of(browser))
        await browser.open("/recover/code?recovery=nothing")
        codes.append(code_of(browser))
        told.append(codes)
    assert (
        told
        == [
            ["form-incomplete", "proof-refused", "proof-refused", "too-many-tries", "recovery-over"]
        ]
        * 2
    )


def code_of(browser: Browser) -> str:
    """The code of a page, which says beside it what to do and how to reach the practice."""
    (said,) = browser.document.xpath("//p[@class='next']")
    text = " ".join(said.text_content().split())
    step, _, code = text.partition(" How to reach your practice. Error code: ")
    assert step == next_step(code)  # type: ignore[arg-type]
    assert said.xpath("a/@href") == ["/help"]
    return code


async def test_a_finished_recovery_cannot_be_repeated(world: World) -> None:
    await contact(world, world.mara)
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    form = fields_of(forms(browser, "/recover/password")[0])
    await chooses(browser)
    account = await world.store.get(Account, world.mara.key)
    await post(browser, "/recover/password", {**form, "new_password": "nine loud badgers"})
    assert browser.heading == OVER
    assert await world.store.get(Account, world.mara.key) == account


async def test_of_two_recoveries_one_ends_the_other(world: World) -> None:
    await contact(world, world.mara)
    both = [await begins(world), await begins(world)]
    for browser in both:
        await gives(browser, await code_for(world, browser))
    forms_ = [fields_of(forms(one, "/recover/password")[0]) for one in both]
    passwords = [NEW, "nine loud badgers"]
    answers = await asyncio.gather(
        *(
            one.http.post("/recover/password", data={**form, "new_password": password})
            for one, form, password in zip(both, forms_, passwords, strict=True)
        )
    )
    assert sorted(one.status_code for one in answers) == [303, 403]
    assert len(await world.store.find(Session, "account", world.mara.key)) == 1
    assert await world.store.find(Recovery, "account", world.mara.key) == []


async def test_a_password_changed_meanwhile_ends_a_recovery(world: World) -> None:
    """The owner who reads of a code that they did not ask for changes the password."""
    await contact(world, world.mara)
    thief = await begins(world)
    await gives(thief, await code_for(world, thief))
    owner = await at_security(world)
    await owner.open("/account/security/password")
    await submit(owner, "/account/security/password", password=PASSWORD, new_password=NEW)
    await chooses(thief, "nine loud badgers")
    assert thief.heading == OVER


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/code",
        "/desk",
        "/birth-date",
        "/questions",
        "/password",
        "/passkey",
        "/passkey/options",
        "/help",
    ],
)
async def test_a_form_that_is_not_ours_does_nothing(world: World, path: str) -> None:
    await contact(world, world.mara)
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    recovery = str(browser.page.url).rpartition("=")[2]
    before = [await world.store.every(kind) for kind in (Account, Recovery, StaffMatter)]
    for token in ("", "x"):
        data = {"form_token": token, "recovery": recovery, "new_password": NEW, "name": MAIL}
        response = await browser.http.post(f"/recover{path}", data=data)
        assert response.status_code == 403
    after = [await world.store.every(kind) for kind in (Account, Recovery, StaffMatter)]
    assert after == before


async def test_weak_and_old_passwords_are_refused_and_may_be_tried_again(world: World) -> None:
    await contact(world, world.mara)
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    for weak in ("short", PASSWORD, "passwordpassword"):
        await chooses(browser, weak)
        assert browser.page.status_code == 400
        assert problem(browser)
        assert code_of(browser) == "password-refused"
    await chooses(browser)
    assert browser.heading == "You are signed in"


async def test_a_mailbox_is_not_filled_and_a_recovery_code_still_works(
    world: World, mara: Resident
) -> None:
    await contact(world, world.mara)
    code, *_ = await mara.recovery_codes()
    browsers = [await begins(world) for _ in range(7)]
    assert len(await received(world)) == 6
    assert "none was sent" in browsers[-1].text
    strangers = [await begins(world, UNKNOWN) for _ in range(3)]
    assert "none was sent" not in strangers[-1].text
    await gives(browsers[-1], code)
    await chooses(browsers[-1])
    assert browsers[-1].heading == "You are signed in"


async def test_two_names_of_one_account_are_not_told_from_names_of_two(world: World) -> None:
    """What was used up by one name is not felt on another, and still no more codes are sent."""
    await contact(world, world.mara)
    await contact(world, world.mara, PHONE)
    for _ in range(7):
        await begins(world, MAIL)
    other = await begins(world, PHONE)
    assert "none was sent" not in other.text
    assert len({code for _, code in await received(world)}) == 6


async def test_a_form_sent_twice_at_once_begins_twice(world: World) -> None:
    browser = world.browser()
    await browser.open("/recover")
    data = {**fields_of(forms(browser, "/recover")[0]), "name": MAIL}
    answers = await asyncio.gather(*(browser.http.post("/recover", data=data) for _ in range(5)))
    assert {one.status_code for one in answers} == {303}


async def test_beginning_over_and_over_is_throttled_alike(world: World) -> None:
    await contact(world, world.mara)
    for name in (MAIL, UNKNOWN):
        for _ in range(10):
            await begins(world, name)
        assert (await begins(world, name)).page.status_code == 429


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-53")
@pytest.mark.parametrize(
    ("recovers_from", "reason"),
    [(0.0, "locked"), (None, "unverified-contact"), ("none", "no-recovery-contact")],
)
async def test_staff_see_why_and_no_secret(world: World, recovers_from: Any, reason: str) -> None:
    practices = [
        Practice(key="skin", name="Hillside Dermatology", phone="+1 312 555 0199"),
        Practice(key="family", name="Brook Family Medicine"),
    ]
    person = msgspec.structs.replace(world.mara, persons=("skin/Person/mara",))

    async def keep(transaction: RecordTransaction) -> None:
        for one in (*practices, person):
            await transaction.put(one)

    await world.store.transact(keep)
    if recovers_from != "none":
        await contact(world, world.mara, recovers_from=recovers_from)
    browser = await begins(world)
    for _ in range(5):
        await gives(browser, "0000 0000")
    assert browser.heading == "Your practice can help"
    assert "+1 312 555 0199" in browser.text
    assert "Brook Family Medicine" in browser.text
    (help_,) = await open_matters(world.store, "recovery-help", "skin")
    assert help_.reason == reason
    assert (help_.contact, help_.typed) == ("", {})
    stranger = await begins(world, UNKNOWN)
    await submit(stranger, "/recover/help")
    assert len(await open_matters(world.store, "recovery-help", "skin")) == 1
