"""What staff have to see to: shown to who may do something about it, at their own practice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.accounts.activation import ActivationHelp, Candidate
from fhir_portal.accounts.recovery import RecoveryHelp
from fhir_portal.notify.faults import DeliveryFault, open_faults
from fhir_portal.web.pages.desk import MATTERS
from tests.web.signing_in import fields_of, forms, post
from tests.web.staff_world import (
    ADMIN,
    DESK,
    FAMILY,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    links,
)


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    clock = found.world.clock()
    mother = await found.account_key("kits-mother")
    for practice in (SKIN, FAMILY):
        await found.keep(
            RecoveryHelp(
                key=mother if practice == SKIN else "other",
                expires=clock + 999,
                practice=practice,
                account=mother,
                reason="no-recovery-contact",
                at=clock,
            ),
            ActivationHelp(
                key=f"{practice}/a",
                expires=clock + 999,
                practice=practice,
                reason="near-miss",
                at=clock,
                candidates=(Candidate("Patient/kit", 80, ("birth date",)),),
                typed={"first": SCRIPT, "last": practice, "code": "never shown"},
            ),
            DeliveryFault(
                key=f"{practice}/f",
                practice=practice,
                open_at=practice,
                what="bounced",
                medium="mail",
                contact="a•••@b•••",
                template="invitation-link",
                why="550",
                since=clock,
                latest=clock,
                accounts=(mother,),
            ),
        )
    yield found
    found.close()


@pytest.mark.requirement("portal", "S0-53", "S1-09", "S1-20", "S2-17", "S3-17")
async def test_staff_see_who_could_not_get_in_and_why(staff: StaffWorld) -> None:
    browser = await staff.at(MATTERS)
    for words in (
        "no contact that can get a code",
        "something differs from the record",
        "fits 80 of 100: birth date",
        "invitation-link to a•••@b••• came back",
        SCRIPT,
    ):
        assert words in browser.text
    assert SCRIPT not in browser.page.text
    assert "never shown" not in browser.text
    assert "last name family" not in browser.text
    assert "/staff/patients/kit" in links(browser)


@pytest.mark.requirement("portal", "S0-53")
async def test_what_was_seen_to_is_gone(staff: StaffWorld) -> None:
    browser = await staff.at(MATTERS)
    while found := forms(browser, MATTERS):
        await post(browser, MATTERS, fields_of(found[0]))
    assert "Nothing waits for you" in browser.text
    store = staff.world.store
    assert [one.practice for one in await store.every(RecoveryHelp)] == [FAMILY]
    assert [one.practice for one in await store.every(ActivationHelp)] == [FAMILY]
    assert await open_faults(store, SKIN) == []
    assert len(await open_faults(store, FAMILY)) == 1


async def test_each_kind_is_for_who_may_do_something_about_it(staff: StaffWorld) -> None:
    desk = await staff.at(MATTERS, DESK)
    assert "something differs" in desk.text
    assert "can get a code" not in desk.text
    form = fields_of(forms(desk, MATTERS)[0])
    mother = await staff.account_key("kits-mother")
    await post(desk, MATTERS, {**form, "kind": "recovery", "matter": mother})
    assert desk.page.status_code == 403
    reader = await staff.at(MATTERS, READER)
    assert reader.page.status_code == 403
    assert len(await staff.world.store.every(RecoveryHelp)) == 2


async def test_of_another_practice_there_is_none(staff: StaffWorld) -> None:
    browser = await staff.at(MATTERS, ADMIN)
    form = fields_of(forms(browser, MATTERS)[0])
    keys = {"recovery": "other", "activation": f"{FAMILY}/a", "message": f"{FAMILY}/f"}
    for kind, key in keys.items():
        await post(browser, MATTERS, {**form, "kind": kind, "matter": key})
        assert browser.page.status_code == 404
    assert len(await staff.world.store.every(ActivationHelp)) == 2
    assert len(await open_faults(staff.world.store, FAMILY)) == 1
