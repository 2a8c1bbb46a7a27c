"""A proxy whom staff invited shows a number; a second member of staff types it at ``/staff``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.accounts.invitation import Invitation
from tests.operations.proxies import number, uses
from tests.staff import a_level
from tests.web.activating import Town, fill
from tests.web.staff_world import ADMIN, KIT, SKIN, StaffWorld, buttons


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = await Town.begin()
    yield town
    town.close()


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


async def by_staff(town: Town, *handlers: str) -> Invitation:
    made = await town.invite_mother()
    handled = msgspec.structs.replace(made, handled_by=handlers)
    await town.world.store.transact(lambda transaction: transaction.put(handled))
    return handled


async def test_the_person_is_shown_their_number_until_they_are_confirmed(town: Town) -> None:
    invitation = await by_staff(town, "eve")
    browser = town.browser()
    await town.by_link(browser, invitation)
    await town.create(browser)
    assert browser.heading == "Show this number to the practice"
    stored = await town.stored(invitation)
    number = town.secrets.number(stored)
    assert number in browser.text
    assert (stored.state, await town.records()) == ("awaiting", ())
    told = [one.template for one in await town.messages()]
    assert "record-waits" in told
    assert "security-proxy-added" not in told
    await browser.open("/activate/done")
    assert number in browser.text
    stranger = town.browser()
    await stranger.open("/activate/done")
    assert number not in stranger.page.text
    done = msgspec.structs.replace(stored, state="redeemed")
    await town.world.store.transact(lambda transaction: transaction.put(done))
    await browser.open("/activate/done")
    assert number not in browser.page.text


async def test_whoever_invited_is_told_so_and_makes_no_account(town: Town) -> None:
    """Signed in, or by an account that would have the contact of theirs."""
    invitation = await town.invite()
    await town.by_link(first := town.browser(), invitation)
    await town.create(first)
    ada = await town.account()
    assert ada is not None
    theirs = await by_staff(town, ada.key)
    await town.by_link(first, theirs)
    await fill(first, "/activate/account/add")
    assert (first.page.status_code, "Somebody else" in first.text) == (403, True)
    second = town.browser()
    await town.by_link(second, theirs)
    await town.create(second, username="nobody.knows")
    assert (second.page.status_code, "Somebody else" in second.text) == (403, True)
    assert await town.account("nobody.knows") is None
    assert [one.patient for one in await town.records()] == ["Patient/ada"]


async def test_a_second_member_of_staff_types_the_number(staff: StaffWorld) -> None:
    """The first one's button is refused; the second one's opens the record."""
    await staff.keep(a_level("front", "view", "invite", "proxies", practice=SKIN))
    await staff.member("far", SKIN, level="front")
    browser = await staff.at(KIT, ADMIN)
    fields = {"given": "Nan", "family": "Quillfeather", "relationship": "aunt", "who": "new"}
    fields |= {"basis": "guardian", "channel": "desk", "end": "2031-01-01"}
    await browser.open(f"{KIT}/invite/guardian")
    await fill(browser, f"{KIT}/invite/guardian", **fields)
    assert browser.heading == "To hand over", browser.text
    (made,) = await staff.world.store.every(Invitation)
    assert made.handled_by == (await staff.account_key(ADMIN),)
    colleague = await staff.at(KIT, "far")
    assert "Confirm that it is them" not in buttons(colleague)
    waiting = await uses(staff.world.portal, staff.world.store, made.key, "nan")
    path = f"{KIT}/invitations/{made.task}/confirm"
    right = number(staff.world.portal, waiting)
    await browser.open(KIT)
    await fill(browser, path, number=right)
    assert browser.page.status_code == 403
    await colleague.open(KIT)
    assert "somebody else here has to confirm" in colleague.text
    await fill(colleague, path, number="")
    assert colleague.page.status_code == 422
    await colleague.open(KIT)
    await fill(colleague, path, number=right)
    assert "the record is open for them" in colleague.text
    assert "Confirm that it is them" not in buttons(colleague)
    rows = [one for one in await staff.rows() if one.interaction == "$confirm-proxy"]
    latest_first = [one.status for one in rows if one.agent == "Practitioner/far"]
    assert latest_first == [200, 422]


async def test_a_proxy_whom_another_practice_helped_proves_it_again(staff: StaffWorld) -> None:
    """The button is there while the account is closed here, and the grant goes on."""
    prove = f"{KIT}/prove/mother"
    browser = await staff.at(KIT, ADMIN)
    assert not [one for one in buttons(browser) if "prove it again" in one]
    key = await staff.account_key("kits-mother")
    account = await staff.world.store.get(Account, key)
    assert account is not None
    await staff.keep(
        AccountPerson(key=f"{SKIN}/Person/mara", account=key),
        msgspec.structs.replace(account, closed_at=(SKIN,)),
    )
    await browser.open(KIT)
    assert "Have Mara Quill prove it again" in buttons(browser)
    await fill(browser, prove)
    assert browser.heading == "To hand over", browser.text
    (made,) = await staff.world.store.every(Invitation)
    assert (made.grants, made.persons) == ((), ("RelatedPerson/mother",))
