"""``/staff/settings``: what a practice decides: by who administers, previewed, for itself alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.accounts.policy import (
    BEGINNERS,
    CHANNELS,
    SETTINGS,
    WAYS,
    PracticePolicy,
    policy_of,
)
from fhir_portal.web.pages.staff_settings import LISTS, SWITCHES, TOLD
from tests.smart.world import Browser
from tests.web.signing_in import done, fields_of, forms, post, problem, submit
from tests.web.staff_world import (
    ADMIN,
    BLIND,
    DESK,
    FAMILY,
    HOME,
    READER,
    SKIN,
    StaffWorld,
    links,
)

PAGE = "/staff/settings"
PREVIEW, SAVE = f"{PAGE}/preview", f"{PAGE}/save"


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


async def policy(staff: StaffWorld, practice: str = SKIN) -> PracticePolicy:
    return await policy_of(staff.world.store, practice)


async def wants(browser: Browser, **changes: str | list[str] | None) -> None:
    """Send the form as it stands, but for some boxes."""
    await browser.open(PAGE)
    form = forms(browser, PREVIEW)[0]
    sent: dict[str, Any] = dict(fields_of(form))
    for name in (*SWITCHES, *LISTS):
        ticked = form.xpath(f".//input[@name='{name}'][@checked]/@value")
        sent[name] = [str(one) for one in ticked]
    for name, value in changes.items():
        sent[name.replace("_", "-")] = value or []
    await post(browser, PREVIEW, sent)


@pytest.mark.requirement("portal", "S3-01")
async def test_the_portal_is_switched_off_and_on_without_an_operator(staff: StaffWorld) -> None:
    """Shown first: whom it concerns. It counts from the next request on."""
    browser = await staff.at(PAGE)
    assert PAGE in links(browser, HOME) or PAGE in browser.page.text
    await wants(browser, portal=None)
    assert "Nothing has been changed yet." in browser.text
    assert "no record of your practice opens in the portal: for 1 account" in browser.text
    assert (await policy(staff)).portal
    await submit(browser, SAVE)
    assert "The settings were changed." in done(browser)
    assert not (await policy(staff)).portal
    assert (await policy(staff, FAMILY)).portal
    await wants(browser, portal="on")
    assert "open again" in browser.text
    await submit(browser, SAVE)
    assert (await policy(staff)).portal
    rows = [one for one in await staff.rows() if one.what == "practice-policy"]
    assert [(one.interaction, one.agent, one.detail) for one in rows] == [
        ("update", "Practitioner/admin", "portal")
    ] * 2


@pytest.mark.requirement("portal", "S3-07")
async def test_the_practice_chooses_who_begins_and_by_what(staff: StaffWorld) -> None:
    await staff.keep(
        PracticePolicy(key=SKIN, invite_channels=("desk", "mail"), invitations_an_hour=7)
    )
    browser = await staff.at(PAGE)
    await wants(
        browser,
        invited_by=["staff", "ehr"],
        invite_channels=["sms", "mail", "desk"],
        invite_on_booking="on",
        self_registration=["portal-id"],
    )
    assert "now: Staff, The EHR, Patients" in browser.text
    await submit(browser, SAVE)
    found = await policy(staff)
    assert found.invited_by == ("staff", "ehr")
    assert found.invite_channels == ("desk", "mail", "sms")  # the preferred ones stay first
    assert found.invite_on_booking
    assert found.self_registration == ("link", "portal-id")
    assert found.invitations_an_hour == 7


async def test_what_cannot_be_and_what_changes_nothing_is_said(staff: StaffWorld) -> None:
    browser = await staff.at(PAGE)
    await wants(browser)
    assert (browser.page.status_code, problem(browser)) == (400, "That changes nothing.")
    await wants(browser, invite_channels=None)
    assert browser.page.status_code == 400
    assert "invite-channels" in problem(browser)
    assert not await staff.world.store.every(PracticePolicy)


async def test_what_an_operator_decides_is_shown_and_not_taken(staff: StaffWorld) -> None:
    browser = await staff.at(PAGE)
    assert "Least proof of identity" in browser.text
    await wants(browser, invite_on_booking="on")
    form = fields_of(forms(browser, SAVE)[0])
    await post(
        browser, SAVE, form | {"assurance": "level4", "invitations-an-hour": "9", "country": "US"}
    )
    assert await policy(staff) == PracticePolicy(key=SKIN, invite_on_booking=True)


@pytest.mark.parametrize(
    "changes",
    [{"portal": "maybe"}, {"invited-by": "everybody"}, {"invite-channels": ""}],
)
async def test_a_form_that_was_tampered_with_changes_nothing(
    staff: StaffWorld, changes: dict[str, str]
) -> None:
    browser = await staff.at(PAGE)
    await wants(browser, invite_on_booking="on")
    form = fields_of(forms(browser, SAVE)[0])
    await post(browser, SAVE, form | changes)
    assert browser.page.status_code == 400
    assert not await staff.world.store.every(PracticePolicy)


async def test_two_who_change_at_once_do_not_overwrite_each_other(staff: StaffWorld) -> None:
    first, second = await staff.at(PAGE), await staff.at(PAGE)
    await wants(first, portal=None)
    await wants(second, invite_on_booking="on")
    await submit(first, SAVE)
    await submit(second, SAVE)
    assert second.page.status_code == 412
    assert "Somebody else" in problem(second)
    found = await policy(staff)
    assert (found.portal, found.invite_on_booking) == (False, False)
    stale = await staff.at(PAGE)
    form = fields_of(forms(stale, PREVIEW)[0])
    await wants(first, portal="on")
    await submit(first, SAVE)
    await post(stale, PREVIEW, form)
    assert stale.page.status_code == 412


@pytest.mark.parametrize("name", [DESK, READER])
async def test_without_administer_nobody_sees_or_changes_them(staff: StaffWorld, name: str) -> None:
    admin = await staff.at(PAGE)
    await wants(admin, portal=None)
    form = fields_of(forms(admin, SAVE)[0])
    browser = await staff.at(HOME, name)
    assert PAGE not in browser.page.text
    await browser.open(PAGE)
    assert browser.page.status_code == 403
    for path in (PREVIEW, SAVE):
        await post(browser, path, form)
        assert browser.page.status_code == 403
    assert (await policy(staff)).portal
    blind = await staff.at(PAGE, BLIND)  # administers, and sees no record
    assert blind.page.status_code == 200


async def test_a_form_of_one_practice_changes_no_other(staff: StaffWorld) -> None:
    await staff.member("far", FAMILY, level=ADMIN)
    theirs = await staff.at(PAGE, "far")
    await wants(theirs, portal=None)
    form = fields_of(forms(theirs, SAVE)[0])
    browser = await staff.at(PAGE)
    await post(browser, SAVE, form)
    assert browser.page.status_code == 403
    assert (await policy(staff)).portal
    assert (await policy(staff, FAMILY)).portal


def test_every_setting_and_choice_has_its_words() -> None:
    lifetimes = {one for one in SETTINGS if one.startswith("lifetime-hours-")}
    assert {*SWITCHES, *LISTS, *TOLD} == SETTINGS.keys() - lifetimes
    for name, known in (
        ("invited-by", BEGINNERS),
        ("invite-channels", CHANNELS),
        ("self-registration", [one for one in WAYS if one != "link"]),
    ):
        assert set(LISTS[name][1]) == set(known)
