"""Recovery with the help of staff, who never hold what opens an account alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.assisted_recovery import (
    NOTICE_SECONDS,
    USABLE_SECONDS,
    Approved,
    AssistedRecovery,
    NoSuchRecovery,
    NotByThem,
    NotOfThisPractice,
    Started,
    reopen,
)
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.recovery_codes import RecoveryCodes
from fhir_portal.accounts.staff import StaffMember, staff_key
from fhir_portal.accounts.totp import Totp
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.records import RecordTransaction
from tests.builders import a_practice, a_practitioner, keep
from tests.smart.launching import put
from tests.smart.world import PASSWORD, Browser, World
from tests.staff import a_level, a_membership
from tests.web.recovering import NEW, begins, chooses, code_for, contact, desk_of, gives, received
from tests.web.signing_in import Resident, at_security, fields_of, forms, problem, submit

DESK, BORN = "/recover/desk", "1984-05-12"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    person = msgspec.structs.replace(world.mara, persons=("skin/Person/mara", "family/Person/mara"))
    await world.store.transact(lambda transaction: transaction.put(person))
    world.mara = person
    yield world
    world.close()


async def start(world: World, *, by: str = "staff-1", **how: Any) -> Started:
    desk = desk_of(world)
    return await world.store.transact(
        lambda transaction: desk.start(
            transaction,
            world.mara,
            by=by,
            **{"practice": "skin", "basis": "photo-id", **how},
        )
    )


async def approve(world: World, started: Started, *, by: str = "staff-2") -> Approved:
    desk, key = desk_of(world), started.recovery.key
    return await world.store.transact(
        lambda transaction: desk.approve(transaction, key, practice="skin", by=by)
    )


async def at_desk(world: World, code: str) -> Browser:
    browser = world.browser()
    await browser.open(DESK)
    await submit(browser, DESK, code=code)
    return browser


async def account(world: World) -> Account:
    found = await world.store.get(Account, world.mara.key)
    assert found is not None
    return found


@pytest.mark.requirement("portal", "S2-34")
async def test_a_desk_code_and_a_code_to_the_contact_let_the_owner_in(world: World) -> None:
    await contact(world, world.mara)
    started = await start(world)
    assert not started.recovery.needs_approval
    browser = await at_desk(world, started.code.upper())
    assert browser.heading == "Type the code"
    ((_, code),) = await received(world)
    await gives(browser, code)
    await chooses(browser)
    assert browser.heading == "You are signed in"
    assert await world.store.every(AssistedRecovery) == []
    told = [one.template for one in await world.store.every(OutboxMessage)]
    assert "security-recovery-started" in told
    assert "security-account-recovered" in told


async def test_records_of_other_practices_are_closed_until_those_reopen_them(world: World) -> None:
    await contact(world, world.mara)
    browser = await at_desk(world, (await start(world)).code)
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    now = await account(world)
    assert now.closed_at == ("family",)
    opened = await world.store.transact(lambda transaction: reopen(transaction, now, "family"))
    assert opened.closed_at == ()


async def test_the_desk_code_alone_opens_nothing(world: World) -> None:
    await contact(world, world.mara)
    browser = await at_desk(world, (await start(world)).code)
    form = fields_of(forms(browser, "/recover/code")[0])
    for path in ("/recover/password", "/recover/birth-date", "/recover/questions"):
        await browser.http.post(path, data={**form, "new_password": NEW})
    for _ in range(5):
        await gives(browser, "0000 0000")
    assert browser.heading == "Your practice can help"
    assert await account(world) == world.mara


@pytest.mark.requirement("portal", "S2-34")
async def test_without_a_contact_two_members_of_staff_have_a_half_each(world: World) -> None:
    started = await start(world)
    assert (started.recovery.half, started.recovery.needs_approval) == ("birth-date", True)
    browser = await at_desk(world, started.code)
    assert "Another member" in problem(browser)
    with pytest.raises(NotByThem):
        await approve(world, started, by="staff-1")
    with pytest.raises(NotByThem):
        await approve(world, started, by=world.mara.key)
    approved = await approve(world, started)
    assert approved.word is not None
    with pytest.raises(NotByThem):
        await approve(world, started, by="staff-3")
    browser = await at_desk(world, started.code)
    wrong = [(BORN, "no word"), ("1984-05-13", approved.word), ("", ""), ("", approved.word)]
    for born, word in wrong:
        await submit(browser, "/recover/birth-date", birth_date=born, word=word)
        assert problem(browser) == "The birth date or the word is wrong."
    await submit(browser, "/recover/birth-date", birth_date=BORN, word=approved.word)
    await chooses(browser)
    assert browser.heading == "You are signed in"


async def test_without_a_birth_date_on_file_nothing_meets_it(world: World) -> None:
    world.directory.access[world.mara.key] = ()
    started = await start(world)
    approved = await approve(world, started)
    browser = await at_desk(world, started.code)
    await submit(browser, "/recover/birth-date", birth_date="", word=approved.word or "")
    assert problem(browser)


@pytest.mark.requirement("portal", "S2-34")
@pytest.mark.parametrize("why", ["staff", "proxy", "second factor"])
async def test_high_risk_takes_a_second_member_of_staff_and_a_days_notice(
    world: World, why: str
) -> None:
    await contact(world, world.mara)
    resident = Resident(world)
    if why == "staff":
        member = StaffMember(
            key="family x", account=world.mara.key, practice="family", practitioner="x", added=0
        )
        await world.store.transact(lambda transaction: transaction.insert(member))
    if why == "second factor":
        await resident.app()
        await resident.recovery_codes()
    started = await start(world, is_proxy=why == "proxy")
    assert "Another member" in problem(await at_desk(world, started.code))
    assert (await approve(world, started)).word is None
    assert "works from" in problem(await at_desk(world, started.code))
    world.clock.advance(NOTICE_SECONDS)
    browser = await at_desk(world, started.code)
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    assert browser.heading == "You are signed in"
    for kind in (Totp, RecoveryCodes, Passkey):
        assert await world.store.every(kind) == []


@pytest.mark.parametrize("practice", ["skin", "family", "oak"])
async def test_help_for_a_person_makes_nobody_a_member_of_staff(
    world: World, practice: str
) -> None:
    """Neither at the practice that helped, nor at another, be the person a patient there or not."""
    await contact(world, world.mara)
    await keep(world.store, a_membership(world.mara.key, practice, "x", "administrator"))
    started = await start(world)
    await approve(world, started)
    world.clock.advance(NOTICE_SECONDS)
    before = await member_of(world, practice)
    assert before.suspended is None
    browser = await at_desk(world, started.code)
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    assert browser.heading == "You are signed in"
    member = await member_of(world, practice)
    assert member.suspended == world.clock()
    assert member.helped_by == ("staff-1", "staff-2")
    assert await works_at(world, member) == ()


async def test_recovery_without_staff_leaves_work_as_it_is(world: World) -> None:
    """The owner's own codes are theirs; nobody of the practice had a hand in it."""
    await contact(world, world.mara)
    await keep(world.store, a_membership(world.mara.key, "skin", "x"))
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    assert browser.heading == "You are signed in"
    assert (await member_of(world, "skin")).suspended is None


async def member_of(world: World, practice: str) -> StaffMember:
    found = await world.store.get(StaffMember, staff_key(practice, world.mara.key))
    assert found is not None
    return found


async def works_at(world: World, member: StaffMember) -> tuple[Any, ...]:
    """Where the account works; its Practitioner is there, and the level is."""
    await keep(
        world.store,
        a_practice(member.practice),
        a_level("administrator", "administer", practice=member.practice),
    )
    await put(world, member.practice, a_practitioner("x"))
    found = await Relations(world.store, world.clock).staff_of(await account(world))
    resumed = msgspec.structs.replace(member, suspended=None)
    await world.store.transact(lambda transaction: transaction.put(resumed))
    assert await Relations(world.store, world.clock).staff_of(await account(world)), "the twin"
    return found


async def test_the_owner_who_is_told_ends_it_by_a_new_password(world: World) -> None:
    await contact(world, world.mara)
    started = await start(world)
    thief = await at_desk(world, started.code)
    owner = await at_security(world)
    await owner.open("/account/security/password")
    await submit(owner, "/account/security/password", password=PASSWORD, new_password=NEW)
    assert await world.store.every(AssistedRecovery) == []
    await submit(thief, "/recover/code", code="0000 0000")
    assert thief.heading == "This did not work"


async def test_staff_of_another_practice_and_the_owner_themselves_start_nothing(
    world: World,
) -> None:
    with pytest.raises(NotOfThisPractice):
        await start(world, practice="elsewhere")
    with pytest.raises(NotByThem):
        await start(world, by=world.mara.key)
    key, desk = (await start(world)).recovery.key, desk_of(world)

    async def approve_elsewhere(transaction: RecordTransaction) -> None:
        await desk.approve(transaction, key, practice="family", by="staff-9")

    async def withdraw_elsewhere(transaction: RecordTransaction) -> None:
        await desk.withdraw(transaction, key, practice="family")

    for refused in (approve_elsewhere, withdraw_elsewhere):
        with pytest.raises(NoSuchRecovery):
            await world.store.transact(refused)


@pytest.mark.parametrize("end", ["expired", "withdrawn", "superseded", "typed too often"])
async def test_a_desk_code_that_is_over_opens_nothing(world: World, end: str) -> None:
    await contact(world, world.mara)
    started, desk = await start(world), desk_of(world)
    if end == "expired":
        world.clock.advance(USABLE_SECONDS)
    if end == "withdrawn":
        await world.store.transact(
            lambda transaction: desk.withdraw(transaction, started.recovery.key, practice="skin")
        )
    if end == "superseded":
        assert (await start(world)).code != started.code
    if end == "typed too often":
        for _ in range(5):
            assert (await at_desk(world, started.code)).heading == "Type the code"
    browser = await at_desk(world, started.code)
    assert "There is no such code" in problem(browser)


async def test_no_store_holds_the_code_or_the_word(world: World) -> None:
    started = await start(world)
    approved = await approve(world, started)
    stored = msgspec.json.encode(
        [await world.store.every(AssistedRecovery), await world.store.every(OutboxMessage)]
    ).decode()
    assert started.code.replace("-", "") not in stored
    assert (approved.word or "-") not in stored


async def test_desk_codes_are_throttled(world: World) -> None:
    for _ in range(10):
        browser = await at_desk(world, "2222-2222-2222")
        assert browser.page.status_code == 403
    assert (await at_desk(world, "2222-2222-2222")).page.status_code == 429


async def test_a_second_factor_added_meanwhile_is_not_passed_by(world: World) -> None:
    """The owner was told of a recovery, and added an authenticator app to keep others out."""
    await contact(world, world.mara)
    started = await start(world)
    assert not started.recovery.removes_second
    browser = await at_desk(world, started.code)
    await keep(world.store, Totp(key=world.mara.key, sealed=b"x", added=0.0, last_step=0))
    await gives(browser, await code_for(world, browser))
    assert browser.page.status_code == 403
    assert (await account(world)).password_hash == world.mara.password_hash


async def test_a_second_factor_added_at_the_last_step_is_not_passed_by(world: World) -> None:
    await contact(world, world.mara)
    browser = await at_desk(world, (await start(world)).code)
    await gives(browser, await code_for(world, browser))
    await keep(world.store, Totp(key=world.mara.key, sealed=b"x", added=0.0, last_step=0))
    await chooses(browser)
    assert browser.page.status_code == 403
    assert (await account(world)).password_hash == world.mara.password_hash


async def test_the_owner_ends_it_on_the_security_page(world: World) -> None:
    """Who began with the desk code is out, and who is only signed in for long confirms first."""
    await contact(world, world.mara)
    started = await start(world)
    thief = await at_desk(world, started.code)
    owner = await at_security(world)
    assert "has begun to help somebody back" in owner.text
    await submit(owner, "/account/security/recovery/end")
    assert "Nobody gets into your account by it" in owner.text
    assert "has begun to help somebody back" not in owner.text
    await gives(thief, await _the_code(world, started))
    assert thief.heading == "This did not work"
    told = [one.template for one in await world.store.every(OutboxMessage)]
    assert "security-recovery-cancelled" in told


async def _the_code(world: World, started: Started) -> str:
    assert started.recovery.account == world.mara.key
    found = [code for _, code in await received(world)]
    return found[-1] if found else "0000 0000"


async def test_in_a_browser_left_open_nobody_ends_the_owners_help(world: World) -> None:
    await contact(world, world.mara)
    owner = await at_security(world)
    await start(world)
    world.clock.advance(600)
    await owner.open("/account/security")
    await submit(owner, "/account/security/recovery/end")
    assert owner.page.url.path == "/account/confirm"
    assert len(await world.store.every(AssistedRecovery)) == 1


async def test_what_staff_take_back_ends_what_was_begun_with_it(world: World) -> None:
    await contact(world, world.mara)
    started, desk = await start(world), desk_of(world)
    browser = await at_desk(world, started.code)
    await gives(browser, await code_for(world, browser))
    assert browser.heading == "Choose a new password"
    await world.store.transact(
        lambda transaction: desk.withdraw(transaction, started.recovery.key, practice="skin")
    )
    await chooses(browser)
    assert browser.page.status_code == 403
    assert (await account(world)).password_hash == world.mara.password_hash
