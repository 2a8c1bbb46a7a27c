"""Accounts on the staff pages: listed, saved as a file, changed by preview, by who may."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.accounts.assisted_recovery import AssistedRecovery
from fhir_portal.accounts.sessions import Session
from fhir_portal.operations import portal_accounts
from fhir_portal.web.pages import staff_accounts
from fhir_portal.web.pages.desk import ACCOUNTS
from fhir_portal.web.pages.staff_accounts import (
    APPROVE,
    CHANGE,
    CLOSE,
    CLOSED,
    EXPORT,
    PREVIEW,
    RECOVERY,
    SESSION,
)
from tests.builders import a_person
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.staff import a_level
from tests.web.signing_in import fields_of, forms, post, submit
from tests.web.staff_world import (
    ADMIN,
    BOTH,
    DESK,
    FAMILY,
    HOME,
    KIT,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    buttons,
    links,
    without_token,
)

MOTHER = "Person/mara"


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


async def previewed(browser: Browser, act: str, *people: str) -> None:
    await browser.open(ACCOUNTS)
    fields: dict[str, Any] = dict(fields_of(forms(browser, PREVIEW)[0]))
    await post(browser, PREVIEW, fields | {"act": act, "person": list(people)})


async def done(browser: Browser, **fields: Any) -> None:
    """Confirm what the preview shows."""
    form = forms(browser, CHANGE)[0]
    sent: dict[str, Any] = {}
    for one in form.xpath('.//input[@type="hidden"]'):
        sent.setdefault(one.get("name"), []).append(one.get("value"))
    await post(browser, CHANGE, sent | fields)


async def standing(staff: StaffWorld) -> str:
    browser = await staff.at(ACCOUNTS)
    found = browser.document.xpath(
        f'//input[starts-with(@value, "{MOTHER} ")]/following-sibling::label'
    )
    return " ".join(found[0].text_content().split())


async def test_the_list_says_how_each_account_stands(staff: StaffWorld) -> None:
    assert "enabled, acts for a patient" in await standing(staff)


async def test_several_are_disabled_after_a_preview_with_a_list_of_results(
    staff: StaffWorld,
) -> None:
    mother = await staff.at(HOME, "kits-mother")
    assert mother.page.status_code == 403
    browser = await staff.at(ACCOUNTS)
    await previewed(browser, "disable", MOTHER, "Person/kit")
    assert browser.heading == "Disable?"
    assert "has no account: nothing will be done" in browser.text
    assert "enabled, acts" in await standing(staff)
    await done(browser, reason="owner-request", text="asked at the desk")
    assert browser.heading == "Disable: what was done"
    assert "apps ended" in browser.text
    assert "ended" in browser.text
    await browser.open(browser.page.url.path)
    assert browser.page.status_code == 410
    now = await standing(staff)
    assert "disabled" in now
    assert "by admin:" in now
    assert "asked at the desk" in now
    await previewed(browser, "enable", MOTHER)
    await done(browser, reason="resolved")
    assert "enabled, acts" in await standing(staff)


async def test_a_new_credential_is_required_and_sessions_end(staff: StaffWorld) -> None:
    await staff.at(HOME, "kits-mother")
    key = await staff.account_key("kits-mother")
    assert await staff.world.store.find(Session, "account", key)
    browser = await staff.at(ACCOUNTS)
    await previewed(browser, "renew", MOTHER)
    await done(browser, reason="staff-request")
    assert "has to be renewed" in browser.text
    assert not await staff.world.store.find(Session, "account", key)
    assert "password" not in browser.page.text.lower().replace("password or passkey", "")


async def test_what_was_done_is_told_though_ones_own_access_ended_on_the_way(
    staff: StaffWorld,
) -> None:
    """Who requires it of themselves, too, is signed out by it, in the midst of the others."""
    key = await staff.account_key(ADMIN)
    own = await staff.world.store.get(Account, key)
    assert own is not None
    own_person = f"{SKIN}/Person/kit"
    await staff.keep(
        msgspec.structs.replace(own, persons=(own_person,)),
        AccountPerson(key=own_person, account=key),
    )
    browser = await staff.at(ACCOUNTS)
    await previewed(browser, "renew", "Person/kit", MOTHER)
    await done(browser, reason="staff-request")
    assert browser.page.status_code == 403
    assert browser.heading.endswith("what was done")
    assert "has to be renewed" in browser.text
    assert "not done" in browser.text
    mother = await staff.world.store.get(Account, await staff.account_key("kits-mother"))
    assert mother is not None
    assert mother.renewal is None


async def test_one_account_is_changed_from_the_patients_page(staff: StaffWorld) -> None:
    await staff.at(HOME, "kits-mother")
    browser = await staff.at(KIT)
    assert "last used" in browser.text
    await submit(browser, SESSION)
    assert "was signed out" in browser.text
    key = await staff.account_key("kits-mother")
    assert not await staff.world.store.find(Session, "account", key)
    await submit(browser, PREVIEW)
    await done(browser, reason="other", text="x")
    assert links(browser, KIT) == [KIT]


async def test_filters_are_kept_to(staff: StaffWorld) -> None:
    browser = await staff.at(ACCOUNTS)
    await submit(browser, ACCOUNTS, nth=0, status="disabled")
    assert MOTHER not in browser.page.text
    await submit(browser, ACCOUNTS, nth=0, status="enabled", kind="proxy")
    assert MOTHER in browser.page.text
    await submit(browser, ACCOUNTS, nth=0, before="not a day")
    assert browser.page.status_code == 400
    await submit(browser, ACCOUNTS, nth=0, status="no such")
    assert browser.page.status_code == 400


@pytest.mark.parametrize(
    "name",
    ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", '"x",=1', SCRIPT, "\uff1d1+1", "\uff20SUM(A1)"],
)
async def test_no_field_of_the_file_is_a_formula(staff: StaffWorld, name: str) -> None:
    odd = a_person("odd", links=["Patient/odd"], name=[{"text": name}])
    await put(staff.world, SKIN, odd)
    browser = await staff.at(ACCOUNTS)
    assert SCRIPT not in browser.page.text
    await submit(browser, EXPORT)
    assert browser.page.headers["content-type"].startswith("text/csv")
    assert "attachment" in browser.page.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(browser.page.content.decode("utf-8-sig"))))
    (row,) = [one for one in rows if one["person"] == "Person/odd"]
    assert row["name"].lstrip("'") == name
    for one in rows:
        for value in one.values():
            begins = value.lstrip() or " "
            assert begins[0] not in "=+-@\uff1d\uff0b\uff0d\uff20"


async def test_the_few_of_very_many_that_a_filter_leaves_are_one_file(
    staff: StaffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of the API looks at so many Persons; most of these pages hold nobody."""
    monkeypatch.setattr(portal_accounts, "EXAMINED", 1)
    await put(staff.world, SKIN, *(a_person(f"a{n}", links=["Patient/odd"]) for n in range(120)))
    browser = await staff.at(ACCOUNTS)
    await submit(browser, ACCOUNTS, nth=0, status="enabled")
    await submit(browser, EXPORT)
    assert browser.page.status_code == 200
    rows = list(csv.DictReader(io.StringIO(browser.page.content.decode("utf-8-sig"))))
    assert [one["person"] for one in rows] == [MOTHER]


async def test_a_file_that_would_be_too_long_is_refused_as_a_whole(
    staff: StaffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staff_accounts, "_EXPORTED_AT_ONCE", 1)
    monkeypatch.setattr(staff_accounts, "_MOST_EXPORTED", 0)
    browser = await staff.at(ACCOUNTS)
    await submit(browser, EXPORT)
    assert browser.page.status_code == 400
    assert "too many accounts" in browser.text


async def test_who_is_a_patient_and_acts_for_another_is_listed_as_both(staff: StaffWorld) -> None:
    both = a_person("both", links=["Patient/odd", "RelatedPerson/uncle"], name=[{"text": "Both"}])
    await put(staff.world, SKIN, both)
    browser = await staff.at(ACCOUNTS)
    assert "no account, patient, acts for a patient" in browser.text
    await submit(browser, EXPORT)
    rows = list(csv.DictReader(io.StringIO(browser.page.content.decode("utf-8-sig"))))
    assert [one["kind"] for one in rows if one["person"] == "Person/both"] == ["self, proxy"]


async def test_a_form_that_names_no_session_ends_none(staff: StaffWorld) -> None:
    await staff.at(HOME, "kits-mother")
    key = await staff.account_key("kits-mother")
    browser = await staff.at(KIT)
    fields: dict[str, Any] = dict(fields_of(forms(browser, SESSION)[0]))
    named: list[Any] = ["", [fields["session"], fields["session"]]]
    for session in named:
        response = await post(browser, SESSION, fields | {"session": session})
        assert response.status_code == 400
    assert await staff.world.store.find(Session, "account", key)


# --- who may --------------------------------------------------------------------------------------


async def test_a_level_without_the_permissions_has_no_buttons(staff: StaffWorld) -> None:
    browser = await staff.at(ACCOUNTS, READER)
    assert browser.page.status_code == 200
    assert buttons(browser) == ["Filter", "Save as CSV"]
    await browser.open(KIT)
    assert not buttons(browser)


@pytest.mark.parametrize(
    ("act", "permission"), [("disable", "revoke"), ("enable", "administer"), ("renew", "recover")]
)
async def test_each_change_needs_its_own_permission(
    staff: StaffWorld, act: str, permission: str
) -> None:
    """Taken away between preview and confirmation, it is missing."""
    everything = {"view", "revoke", "administer", "recover"}
    await staff.keep(a_level(DESK, *everything, practice=SKIN))
    browser = await staff.at(ACCOUNTS, DESK)
    await previewed(browser, act, MOTHER)
    await staff.keep(a_level(DESK, *(everything - {permission}), practice=SKIN))
    await done(browser, reason="other")
    assert browser.page.status_code == 403
    assert "enabled, acts" in await standing(staff)
    await previewed(browser, act, MOTHER)
    assert browser.page.status_code == 403


async def test_another_practices_account_is_not_there(staff: StaffWorld) -> None:
    await staff.keep(a_level(READER, "view", "revoke", practice=FAMILY))
    browser = await staff.at(HOME, BOTH)
    await submit(browser, "/staff/practice", practice=FAMILY)
    await browser.open(ACCOUNTS)
    assert MOTHER not in browser.page.text
    token = {"form_token": fields_of(forms(browser, EXPORT)[0])["form_token"]}
    await post(browser, PREVIEW, token | {"act": "disable", "person": MOTHER})
    assert browser.page.status_code in {403, 404}
    assert "enabled, acts" in await standing(staff)


@pytest.mark.parametrize("path", [ACCOUNTS, EXPORT, PREVIEW, CHANGE, SESSION, f"{ACCOUNTS}/app"])
async def test_a_form_without_our_token_does_nothing(staff: StaffWorld, path: str) -> None:
    browser = await staff.at(ACCOUNTS, ADMIN)
    sent = {"person": MOTHER, "act": "disable", "reason": "other", "app": "x"}
    for token in ("", "x" * 43):
        response = await post(browser, path, sent | {"form_token": token})
        assert response.status_code == 403
    assert "enabled, acts" in await standing(staff)


@pytest.mark.parametrize("person", ["Patient/kit", "Person/../x", "", "Person/kit?x=1", "x" * 500])
async def test_what_is_no_person_is_refused(staff: StaffWorld, person: str) -> None:
    browser = await staff.at(ACCOUNTS)
    await previewed(browser, "disable", person)
    assert browser.page.status_code == 400


async def test_a_way_back_leads_to_a_page_of_ours(staff: StaffWorld) -> None:
    browser = await staff.at(ACCOUNTS)
    fields: dict[str, Any] = dict(fields_of(forms(browser, PREVIEW)[0]))
    for back in (
        "//evil.example",
        "https://evil.example",
        "/staff/patients/../../x",
        "javascript:x",
    ):
        await post(browser, PREVIEW, fields | {"act": "renew", "person": MOTHER, "back": back})
        assert links(browser)[-1] == ACCOUNTS
        await browser.open(ACCOUNTS)


async def helps(browser: Browser, basis: str = "photo-id") -> None:
    await browser.open(KIT)
    await submit(browser, RECOVERY, basis=basis)


@pytest.mark.requirement("portal", "S2-34", "S4-25")
async def test_staff_help_somebody_back_in_and_see_one_half_each(staff: StaffWorld) -> None:
    """Kit's mother acts for Kit and has no contact: it takes a second member of staff."""
    await staff.member("far", SKIN, level=ADMIN)
    browser = await staff.at(KIT)
    await helps(browser)
    assert browser.heading == "To hand over"
    code = browser.document.xpath('//dd[@class="key"]')[0].text_content()
    assert "second member of staff has to approve" in browser.text
    assert "password" in browser.text
    shown = str(browser.page.url)
    await browser.open(shown)
    assert browser.page.status_code == 410
    await browser.open(KIT)
    assert code not in browser.text
    await submit(browser, APPROVE)
    assert browser.page.status_code == 403  # nobody approves of what they started

    other = await staff.at(KIT, "far")
    assert "once a second member of staff has approved" in other.text
    await submit(other, APPROVE)
    assert other.heading == "To hand over"
    word = other.document.xpath('//dd[@class="key"]')[0].text_content()
    assert code not in other.text
    await other.open(KIT)
    assert word not in other.text
    assert forms(other, APPROVE) == []
    assert "Help back in was started" in other.text


async def test_staff_take_their_help_back(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    await helps(browser)
    await browser.open(KIT)
    await submit(browser, f"{RECOVERY}/cancel")
    assert "what was handed over opens nothing" in browser.text
    assert "Help back in was started" not in browser.text
    assert await staff.world.store.every(AssistedRecovery) == []


@pytest.mark.requirement("portal", "S2-34")
async def test_who_may_not_help_back_in_is_offered_nothing_and_refused(staff: StaffWorld) -> None:
    admin = await staff.at(KIT)
    form = fields_of(forms(admin, RECOVERY)[0])
    await helps(admin)
    reader = await staff.at(KIT, READER)
    assert "Help back in" not in reader.text
    await post(reader, RECOVERY, {**form, "basis": "photo-id"})
    assert reader.page.status_code == 403


@pytest.mark.requirement("portal", "S2-34")
async def test_how_it_was_made_sure_has_to_be_said(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    await helps(browser, "because-they-asked")
    assert browser.page.status_code == 400


# --- for good ------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S4-16")
async def test_the_portal_is_ended_for_somebody_after_a_preview(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    assert [one for one in buttons(browser) if one.startswith("End the portal")] == [
        "End the portal for good: Mara Quill"
    ]
    await submit(browser, CLOSE)
    assert browser.heading == "End the portal for Mara Quill?"
    for words in ("Ada Quill, acting for them", "somebody: 1", "apps: 0", "used: 0"):
        assert words in browser.text, words
    assert (await staff.world.store.get(AccountPerson, f"{SKIN}/{MOTHER}")) is not None
    page = browser.page
    await submit(browser, CLOSED)  # without a reason
    assert browser.page.status_code == 400
    assert (await staff.world.store.get(AccountPerson, f"{SKIN}/{MOTHER}")) is not None
    browser.page = page
    await submit(browser, CLOSED, reason="left-practice", text="moved away")
    assert browser.page.url.path == KIT
    assert "The portal was ended for this person" in browser.text
    assert "over: it was ended" in browser.text
    assert (await staff.world.store.get(AccountPerson, f"{SKIN}/{MOTHER}")) is None
    await browser.open(ACCOUNTS)
    listed = browser.document.xpath(f'//input[starts-with(@value, "{MOTHER} ")]/..')[0]
    words = " ".join(listed.text_content().split())
    assert "ended for good" in words
    assert "moved away" in words


@pytest.mark.requirement("portal", "S4-16")
async def test_who_may_not_end_it_sees_no_button_and_does_not_by_a_form_of_their_own(
    staff: StaffWorld,
) -> None:
    browser = await staff.at(KIT, DESK)
    assert not [one for one in buttons(browser) if one.startswith("End the portal")]
    admin = await staff.at(KIT)
    sent = fields_of(forms(admin, CLOSE)[0])
    assert await without_token(browser, CLOSE, {"person": f"{MOTHER} x", "back": KIT}) == 403
    assert await without_token(browser, CLOSE, sent) == 403  # of another browser
    assert await without_token(browser, CLOSED, {"person": MOTHER, "reason": "other"}) == 403
    assert (await staff.world.store.get(AccountPerson, f"{SKIN}/{MOTHER}")) is not None
