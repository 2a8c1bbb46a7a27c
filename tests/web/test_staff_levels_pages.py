"""``/staff/levels`` and ``/staff/members``: changed by preview, by what was seen, by who may."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.access.owed import pay_due
from fhir_portal.access.relation import works
from fhir_portal.accounts.levels import OPERATOR, PERMISSIONS, Editor, NotPermitted, level_of
from fhir_portal.accounts.staff import StaffMember, resume_staff, standing, suspend_staff
from fhir_portal.smart.revocation import remove_staff
from fhir_portal.web.pages import desk
from tests.builders import a_practitioner, keep
from tests.operations.test_start_recovery import a_contact
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.staff import a_level
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import (
    ADMIN,
    BLIND,
    BOTH,
    DESK,
    FAMILY,
    HOME,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    links,
)

LEVELS, MEMBERS = "/staff/levels", "/staff/members"


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


def boxes(browser: Browser) -> dict[str, Any]:
    """The editor as it is filled in: what a browser would send."""
    form = forms(browser, f"{LEVELS}/preview")[0]
    sent: dict[str, Any] = dict(fields_of(form))
    for box in form.xpath('.//input[@type="checkbox"][@checked]'):
        sent.setdefault(box.get("name"), []).append(box.get("value"))
    return sent


def place_of(sent: dict[str, Any], name: str) -> str:
    return next(key for key, value in sent.items() if value == name).partition("-")[2]


async def edited(browser: Browser, name: str, *permissions: str) -> None:
    """Have the preview of a level with these permissions."""
    await browser.open(LEVELS)
    sent = boxes(browser)
    sent[f"may-{place_of(sent, name)}"] = list(permissions)
    await post(browser, f"{LEVELS}/preview", sent)


async def saved(browser: Browser) -> None:
    """Confirm what the preview shows."""
    form = forms(browser, f"{LEVELS}/save")[0]
    sent: dict[str, Any] = {}
    for one in form.xpath('.//input[@type="hidden"]'):
        sent.setdefault(one.get("name"), []).append(one.get("value"))
    await post(browser, f"{LEVELS}/save", sent)


async def permissions_of(staff: StaffWorld, name: str, practice: str = SKIN) -> set[str]:
    level = await level_of(staff.world.store, practice, name)
    assert level is not None
    return set(level.conveys)


async def test_several_levels_change_in_one_action_after_a_preview(staff: StaffWorld) -> None:
    browser = await staff.at(LEVELS)
    sent = boxes(browser)
    sent[f"may-{place_of(sent, READER)}"] = ["view", "billing"]
    sent[f"may-{place_of(sent, DESK)}"] = ["view"]
    await post(browser, f"{LEVELS}/preview", sent)
    assert browser.heading == "What would change"
    assert "work on bills and payments" in browser.text
    assert "may no longer" in browser.text
    assert await permissions_of(staff, READER) == {"view"}
    await saved(browser)
    assert "were changed" in browser.text
    assert await permissions_of(staff, READER) == {"view", "billing"}
    assert await permissions_of(staff, DESK) == {"view"}
    assert await permissions_of(staff, READER, FAMILY) == {"view"}
    (row,) = [one for one in await staff.rows() if one.what == "access-levels"]
    assert (row.interaction, row.agent) == ("update", "Practitioner/admin")
    assert "billing" in row.detail


async def test_a_change_has_its_line_though_the_process_dies_before_the_log(
    staff: StaffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left with the change, in one transaction; housekeeping writes it down."""

    async def dies(*_: object) -> None:
        raise SystemError

    browser = await staff.at(LEVELS)
    with monkeypatch.context() as patched:
        patched.setattr(desk, "pay", dies)
        await edited(browser, READER, "view", "audit")
        await saved(browser)
    assert browser.page.status_code == 500
    assert await permissions_of(staff, READER) == {"view", "audit"}
    assert [one for one in await staff.rows() if one.what == "access-levels"] == []
    world = staff.world
    assert await pay_due(world.store, world.store.log, world.clock() + 60) == 1
    (row,) = [one for one in await staff.rows() if one.what == "access-levels"]
    assert (row.interaction, row.agent) == ("update", "Practitioner/admin")


async def test_only_what_changes_is_previewed(staff: StaffWorld) -> None:
    browser = await staff.at(LEVELS)
    await edited(browser, READER, "view", "audit")
    assert [one.text_content().split()[0] for one in browser.document.xpath("//h2")] == [READER]
    await edited(browser, READER, "view")
    assert problem(browser) == "That changes nothing."


async def test_a_new_level_is_made(staff: StaffWorld) -> None:
    browser = await staff.at(LEVELS)
    sent = boxes(browser) | {"name-101": "night desk", "may-101": ["view", "messages"]}
    await post(browser, f"{LEVELS}/preview", sent)
    assert "a new level" in browser.text
    await saved(browser)
    assert await permissions_of(staff, "night desk") == {"view", "messages"}


async def test_a_level_that_was_changed_meanwhile_is_not_overwritten(staff: StaffWorld) -> None:
    browser = await staff.at(LEVELS)
    await edited(browser, READER, "view", "billing")
    await staff.keep(a_level(READER, "view", "forms", practice=SKIN, version=2))
    await saved(browser)
    assert "changed meanwhile" in problem(browser)
    assert await permissions_of(staff, READER) == {"view", "forms"}


async def test_nobody_gives_more_than_they_have(staff: StaffWorld) -> None:
    """Neither by the form, which does not offer it, nor by what one can post."""
    browser = await staff.at(LEVELS, BLIND)
    assert browser.page.status_code == 200
    await edited(browser, READER, "view", "billing")
    assert "lacks billing" in problem(browser)
    await edited(browser, BLIND, *PERMISSIONS)
    assert "nobody gives more" in problem(browser).lower()
    assert await permissions_of(staff, BLIND) == {"invite", "audit", "administer"}


async def test_the_last_administrator_stays(staff: StaffWorld) -> None:
    browser = await staff.at(LEVELS)
    sent = boxes(browser)
    sent[f"may-{place_of(sent, ADMIN)}"] = ["view"]
    sent[f"may-{place_of(sent, BLIND)}"] = ["invite"]
    await post(browser, f"{LEVELS}/preview", sent)
    assert "nobody would be left" in problem(browser).lower()


@pytest.mark.parametrize("path", [LEVELS, f"{LEVELS}/history", f"{LEVELS}/export", MEMBERS])
@pytest.mark.parametrize("name", [DESK, READER])
async def test_without_administer_there_are_no_such_pages(
    staff: StaffWorld, path: str, name: str
) -> None:
    browser = await staff.at(path, name)
    assert browser.page.status_code == 403
    await browser.open(HOME)
    assert LEVELS not in links(browser)
    assert MEMBERS not in links(browser)


@pytest.mark.parametrize("action", ["preview", "save", "remove", "import"])
async def test_a_form_of_the_levels_is_refused_to_who_may_not_and_without_our_token(
    staff: StaffWorld, action: str
) -> None:
    browser = await staff.at(LEVELS)
    sent: dict[str, Any] = {"name-0": READER, "seen-0": "1", "may-0": "billing", "name": READER}
    response = await post(browser, f"{LEVELS}/{action}", sent)
    assert response.status_code == 403
    # The level is taken while the form is open.
    await browser.open(LEVELS)
    own = {
        one.get("action"): fields_of(one)["form_token"] for one in browser.document.xpath("//form")
    }
    await staff.keep(a_level(ADMIN, "view", practice=SKIN, version=2))
    token = own.get(f"{LEVELS}/{action}", "")
    response = await post(browser, f"{LEVELS}/{action}", sent | {"form_token": token})
    assert response.status_code == 403
    assert await permissions_of(staff, READER) == {"view"}


async def test_a_level_is_removed_unless_somebody_has_it(staff: StaffWorld) -> None:
    await staff.keep(a_level("spare", "view", practice=SKIN))
    browser = await staff.at(LEVELS)
    names = [fields_of(one)["name"] for one in forms(browser, f"{LEVELS}/remove")]
    await submit(browser, f"{LEVELS}/remove", nth=names.index(READER))
    assert "have the access level 'reader'" in problem(browser)
    await submit(browser, f"{LEVELS}/remove", nth=names.index("spare"))
    assert "was removed" in browser.text
    assert await level_of(staff.world.store, SKIN, "spare") is None


async def test_an_export_comes_back_in(staff: StaffWorld) -> None:
    browser = await staff.at(LEVELS)
    response = await browser.http.get(f"{LEVELS}/export")
    assert response.headers["content-disposition"] == 'attachment; filename="access-levels.json"'
    assert "sandbox" in response.headers["content-security-policy"]
    tree = response.json()
    tree["levels"] = [one for one in tree["levels"] if one["name"] == READER]
    tree["levels"][0]["permissions"] = ["view", "documents"]
    await submit(browser, f"{LEVELS}/import", document=json.dumps(tree))
    assert "give documents to patients" in browser.text
    await saved(browser)
    assert await permissions_of(staff, READER) == {"view", "documents"}


@pytest.mark.parametrize("document", ["", "{}", "[]", "{", '{"format": "x", "levels": []}', SCRIPT])
async def test_a_file_that_is_none_is_refused_in_words(staff: StaffWorld, document: str) -> None:
    browser = await staff.at(LEVELS)
    await submit(browser, f"{LEVELS}/import", document=document)
    assert browser.page.status_code == 400
    assert problem(browser)
    assert SCRIPT not in browser.page.text


async def test_earlier_versions_are_shown(staff: StaffWorld) -> None:
    browser = await staff.at(LEVELS)
    await edited(browser, READER, "view", "billing")
    await saved(browser)
    await browser.open(f"{LEVELS}/history")
    assert "Version 2" in browser.text
    assert "by admin" in browser.text
    assert "by an operator" in browser.text
    assert await staff.account_key(ADMIN) not in browser.page.text


# --- members --------------------------------------------------------------------------------------


def row(browser: Browser, practitioner: str) -> int:
    found = [fields_of(one)["practitioner"] for one in forms(browser, MEMBERS)]
    return found.index(f"Practitioner/{practitioner}")


async def level_now(staff: StaffWorld, name: str) -> str:
    key = f"{SKIN}/{await staff.account_key(name)}"
    member = await staff.world.store.get(StaffMember, key)
    assert member is not None
    return member.level


async def test_a_member_is_given_another_level(staff: StaffWorld) -> None:
    browser = await staff.at(MEMBERS)
    await submit(browser, MEMBERS, nth=row(browser, READER), level=DESK)
    assert "was changed" in browser.text
    assert await level_now(staff, READER) == DESK
    (line,) = [one for one in await staff.rows() if one.interaction == "$staff-level"]
    assert (line.record, line.what, line.detail) == ("", f"Practitioner/{READER}", f"level={DESK}")
    assert line.agent == f"Practitioner/{ADMIN}"


async def test_a_member_whose_level_changed_meanwhile_keeps_that(staff: StaffWorld) -> None:
    browser, other = await staff.at(MEMBERS), await staff.at(MEMBERS)
    await submit(other, MEMBERS, nth=row(other, READER), level=DESK)
    await submit(browser, MEMBERS, nth=row(browser, READER), level=ADMIN)
    assert "changed meanwhile" in problem(browser)
    assert await level_now(staff, READER) == DESK


async def test_a_level_that_has_more_than_oneself_is_not_given(staff: StaffWorld) -> None:
    browser = await staff.at(MEMBERS, BLIND)
    await submit(browser, MEMBERS, nth=row(browser, BLIND), level=ADMIN)
    assert "nobody gives more" in problem(browser).lower()
    assert await level_now(staff, BLIND) == BLIND


async def test_staff_of_another_practice_are_neither_seen_nor_changed(staff: StaffWorld) -> None:
    await staff.member("far", FAMILY, level=READER)
    browser = await staff.at(MEMBERS)
    fields = fields_of(forms(browser, MEMBERS)[0])
    assert "Practitioner/far" not in browser.page.text
    await post(browser, MEMBERS, fields | {"practitioner": "Practitioner/far", "level": ADMIN})
    assert "not on the staff" in problem(browser)


async def test_who_was_removed_meanwhile_is_told_so(staff: StaffWorld) -> None:
    browser = await staff.at(MEMBERS)
    nth = row(browser, READER)
    key = await staff.account_key(READER)
    await remove_staff(
        staff.world.store, account=key, practice=SKIN, now=0.0, by=OPERATOR, works=works
    )
    await submit(browser, MEMBERS, nth=nth, level=DESK)
    assert "not on the staff" in problem(browser)


async def test_names_are_shown_as_text_and_no_user_name_is(staff: StaffWorld) -> None:
    await put(staff.world, SKIN, a_practitioner(READER, family=SCRIPT))
    browser = await staff.at(MEMBERS)
    assert SCRIPT not in browser.page.text
    assert BOTH in browser.text
    assert await staff.account_key(READER) not in browser.page.text


async def suspended(staff: StaffWorld, name: str, *helped_by: str) -> StaffMember:
    """Staff helped this member back into their account."""
    key = f"{SKIN}/{await staff.account_key(name)}"
    helpers = [await staff.account_key(one) for one in helped_by]

    async def work(transaction: Any) -> None:
        await suspend_staff(transaction, key.partition("/")[2], helped_by=helpers, now=1.0)

    await staff.world.store.transact(work)
    found = await staff.world.store.get(StaffMember, key)
    assert found is not None
    return found


async def test_an_administrator_who_did_not_help_lets_them_work_again(staff: StaffWorld) -> None:
    member = await suspended(staff, DESK, READER, BLIND)
    shut = await staff.at(HOME, DESK)
    assert shut.page.status_code == 403
    browser = await staff.at(MEMBERS)
    assert "may do nothing here since staff helped" in browser.text
    await submit(browser, f"{MEMBERS}/resume", practitioner=member.practitioner)
    assert "can work again" in browser.text
    assert (await staff.at(HOME, DESK)).page.status_code == 200
    rows = [one for one in await staff.rows() if one.interaction == "$staff-resumed"]
    assert [(one.agent, one.what) for one in rows] == [("Practitioner/admin", "Practitioner/desk")]


async def test_who_helped_and_who_may_not_administer_let_nobody_work(staff: StaffWorld) -> None:
    member = await suspended(staff, DESK, ADMIN, READER)
    browser = await staff.at(MEMBERS)
    await submit(browser, f"{MEMBERS}/resume", practitioner=member.practitioner)
    assert "you helped with this account" in problem(browser).lower()
    for name in (READER, BLIND):
        other = await staff.at(HOME, name)
        fields = fields_of(forms(browser, f"{MEMBERS}/resume")[0])
        await post(other, f"{MEMBERS}/resume", fields)
        assert other.page.status_code == 403
    kept = await staff.world.store.get(StaffMember, member.key)
    assert kept == member


@pytest.mark.parametrize("other", [READER, DESK])
async def test_another_account_of_who_helped_or_is_meant_lets_nobody_work(
    staff: StaffWorld, other: str
) -> None:
    """They share a mailbox that both proved."""
    member = await suspended(staff, DESK, READER)
    accounts = [await staff.account_key(one) for one in (ADMIN, other)]
    await keep(staff.world.store, *(a_contact(one, "one@mail.example") for one in accounts))
    browser = await staff.at(MEMBERS)
    await submit(browser, f"{MEMBERS}/resume", practitioner=member.practitioner)
    assert "you helped with this account" in problem(browser).lower()
    assert await staff.world.store.get(StaffMember, member.key) == member


async def test_nobody_lets_themselves_work_again(staff: StaffWorld) -> None:
    await suspended(staff, ADMIN, READER)
    assert (await staff.at(MEMBERS)).page.status_code == 403
    own = Editor(await staff.account_key(ADMIN), frozenset(PERMISSIONS))

    async def work(transaction: Any) -> None:
        await resume_staff(transaction, account=own.account, practice=SKIN, by=own)

    with pytest.raises(NotPermitted):
        await staff.world.store.transact(work)


async def test_who_is_suspended_changes_nobodys_level(staff: StaffWorld) -> None:
    """However they come to ask."""
    await suspended(staff, ADMIN, READER)
    by = Editor(await staff.account_key(ADMIN), frozenset(PERMISSIONS))
    with pytest.raises(NotPermitted):
        await standing(staff.world.store, SKIN, by)
