"""What staff have to see to: shown to who may do something about it, at their own practice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.accounts.matter import About, Candidate, StaffMatter
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.web.pages.desk import MATTERS
from tests.builders import Caller, an_ehr
from tests.matters import open_matters, tasks_made
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


def a_matter(practice: str, about: About, reason: str, at: float, **more: Any) -> StaffMatter:
    return StaffMatter(
        key=f"{practice}/{about}",
        expires=at + 999,
        practice=practice,
        about=about,
        reason=reason,
        since=at,
        latest=at,
        **more,
    )


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    clock = found.world.clock()
    mother = await found.account_key("kits-mother")

    async def note(transaction: Any) -> None:
        for practice in (SKIN, FAMILY):
            for matter in (
                a_matter(
                    practice, "recovery-help", "no-recovery-contact", clock, accounts=(mother,)
                ),
                a_matter(
                    practice,
                    "activation-help",
                    "near-miss",
                    clock,
                    candidates=(Candidate("Patient/kit", 80, ("birth date",)),),
                    typed={"first": SCRIPT, "last": practice, "code": "never shown"},
                ),
                a_matter(
                    practice,
                    "undelivered-message",
                    "bounced",
                    clock,
                    medium="mail",
                    template="invitation-link",
                    contact="a•••@b•••",
                    accounts=(mother,),
                ),
            ):
                await QueuedMatters().note(transaction, matter)

    await found.world.store.transact(note)
    await tasks_made(found.world.portal)
    yield found
    found.close()


async def open_tasks(staff: StaffWorld, practice: str) -> dict[str, str]:
    """The ids of Tasks that wait, by what they are about."""
    ehr = Caller(staff.world.portal, an_ehr(practice))
    found = (await ehr.get("Task?status=requested")).entries
    return {one["code"]["coding"][0]["code"]: one["id"] for one in found}


@pytest.mark.requirement("portal", "S0-53", "S1-09", "S1-20", "S2-17", "S3-17")
async def test_staff_see_who_could_not_get_in_and_why(staff: StaffWorld) -> None:
    browser = await staff.at(MATTERS)
    for words in (
        "no contact that can get a code",
        "Something differs from the record",
        "fits 80 of 100: birth date",
        "A message came back: the address takes nothing (mail, invitation-link).",
        "a•••@b•••",
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
    assert await open_tasks(staff, SKIN) == {}
    assert len(await open_tasks(staff, FAMILY)) == 3
    assert {one.practice for one in await open_matters(staff.world.store)} == {FAMILY}


async def test_each_kind_is_for_who_may_do_something_about_it(staff: StaffWorld) -> None:
    desk = await staff.at(MATTERS, DESK)
    assert "Something differs" in desk.text
    assert "can get a code" not in desk.text
    form = fields_of(forms(desk, MATTERS)[0])
    recovery = (await open_tasks(staff, SKIN))["recovery-help"]
    await post(desk, MATTERS, {**form, "task": recovery})
    assert desk.page.status_code == 404
    reader = await staff.at(MATTERS, READER)
    assert reader.page.status_code == 403
    assert len(await open_tasks(staff, SKIN)) == 3


async def test_of_another_practice_there_is_none(staff: StaffWorld) -> None:
    browser = await staff.at(MATTERS, ADMIN)
    form = fields_of(forms(browser, MATTERS)[0])
    theirs = await open_tasks(staff, FAMILY)
    for task in (*theirs.values(), "nobody", "", "x/../y", "a" * 65):
        await post(browser, MATTERS, {**form, "task": task})
        assert browser.page.status_code == 404
    assert await open_tasks(staff, FAMILY) == theirs


async def test_what_an_ehr_has_seen_to_is_gone_from_the_page(staff: StaffWorld) -> None:
    ehr = Caller(staff.world.portal, an_ehr(SKIN, "none"))
    for task in (await open_tasks(staff, SKIN)).values():
        tree = (await ehr.get(f"Task/{task}")).json
        assert (await ehr.put({**tree, "status": "completed"})).status == 200
    assert "Nothing waits for you" in (await staff.at(MATTERS)).text


async def test_details_are_shown_as_long_as_they_are_kept(staff: StaffWorld) -> None:
    async def forget(transaction: Any) -> None:
        for one in await transaction.every(StaffMatter):
            await transaction.delete(StaffMatter, one.key)

    await staff.world.store.transact(forget)
    browser = await staff.at(MATTERS)
    assert "Something differs from the record" in browser.text
    assert SCRIPT not in browser.text
    assert "/staff/patients/kit" in links(browser)  # of whom the Tasks are
