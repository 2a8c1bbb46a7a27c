"""Two records of one person: seen by who invites, merged and taken back by who administers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.operations.merge import UNDO_SECONDS, RecordMerge
from tests.builders import a_grant, a_patient, a_person, a_related_person
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import (
    ADMIN,
    BLIND,
    DESK,
    FAMILY,
    FIND,
    KIT,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    buttons,
    find,
    links,
)

TWIN = f"{FIND}/kit2"
MERGE = f"{KIT}/merge/kit2"
KIT_MAIL = [{"system": "email", "value": "kit@mail.example"}]


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    """Kit has a second record, with somebody who acts for her by it."""
    found = await StaffWorld.begin()
    await put(
        found.world,
        SKIN,
        a_patient("kit2", family="Quill", birthDate="2018-03-02", telecom=KIT_MAIL),
        a_patient("kit", family="Quill", birthDate="2018-02-03", telecom=KIT_MAIL),
        a_related_person("aunt", of="kit2", name=[{"text": "Una Quill"}]),
        a_grant("aunts", of="kit2", to="aunt", sections=["results"]),
        a_person("una", links=["RelatedPerson/aunt"]),
    )
    await put(found.world, FAMILY, a_patient("kit3", family="Quill", birthDate="2018-02-03"))
    await found.account("una", f"{SKIN}/Person/una")
    yield found
    found.close()


def told(browser: Browser, heading: str) -> list[str]:
    items = browser.document.xpath(f"//h2[text()='{heading}']/following-sibling::ul[1]/li")
    return [" ".join(one.text_content().split()) for one in items]


# --- may be the same ------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-10")
async def test_the_desk_sees_who_may_be_the_same_before_it_invites(staff: StaffWorld) -> None:
    browser = await staff.at(f"{KIT}/invite/self", DESK)
    assert "May be the same person" in browser.text
    assert TWIN in links(browser)
    assert f"{KIT}/merge/kit2" not in links(browser)
    await browser.open(KIT)
    assert f"{KIT}/same" in links(browser)
    await browser.open(f"{KIT}/same")
    assert TWIN in links(browser, TWIN)
    assert not links(browser, f"{KIT}/merge")
    admin = await staff.at(f"{KIT}/invite/self")
    assert f"{KIT}/merge/kit2" in links(admin)


async def test_a_search_shows_who_is_written_in_another_way(staff: StaffWorld) -> None:
    """Day and month changed over, the name the other way round."""
    browser = await staff.at(FIND, DESK)
    await find(browser, name="Quill Ada", born="2018-02-03")
    under = "//section[@aria-labelledby='{}']//a/@href"
    assert browser.document.xpath(under.format("found")) == [KIT]
    assert browser.document.xpath(under.format("same")) == [TWIN]
    await find(browser, name="Quill")  # a name alone is like too many
    assert not browser.document.xpath(under.format("same"))


async def test_nobody_of_another_practice_and_nobody_unlike_is_shown(staff: StaffWorld) -> None:
    browser = await staff.at(f"{KIT}/same")
    assert "kit3" not in browser.text
    assert [one for one in links(browser, f"{FIND}/") if "merge" not in one] == [TWIN, KIT]
    await browser.open(f"{FIND}/bo/same")
    assert "No record of your practice looks like this one." in browser.text
    await staff.member("far", FAMILY, level=ADMIN)
    other = await staff.at(f"{FIND}/kit3/same", "far")
    assert "No record of your practice looks like this one." in other.text
    for elsewhere in (f"{KIT}/same", f"{FIND}/kit3/merge/kit", MERGE):
        await other.open(elsewhere)
        assert other.page.status_code == 404


async def test_hostile_names_are_only_text(staff: StaffWorld) -> None:
    await put(
        staff.world,
        SKIN,
        a_patient("odd2", family=SCRIPT, birthDate="1971-07-07"),
    )
    browser = await staff.at(f"{FIND}/odd/same")
    assert f"{FIND}/odd2" in links(browser)
    assert "<script>alert" not in browser.page.text
    await browser.open(f"{FIND}/odd/merge/odd2")
    assert "<script>alert" not in browser.page.text


# --- the merge ------------------------------------------------------------------------------------


async def test_a_merge_is_previewed_accepted_done_and_taken_back(staff: StaffWorld) -> None:
    store = staff.world.store
    browser = await staff.at(MERGE)
    assert "Nothing has been changed yet" in browser.text
    moved = "1 person who acts for the patient goes over"
    assert moved in told(browser, "What would be done")
    (gain,) = told(browser, "Who would see more than now")
    assert gain.startswith("Una Quill")
    assert gain.endswith("sees results of the record that stays")
    assert not await store.every(RecordMerge)
    await submit(browser, MERGE)  # not said that they looked
    assert (browser.page.status_code, problem(browser)) == (
        400,
        "Say that you have looked at who would see more.",
    )
    assert not await store.every(RecordMerge)
    await submit(browser, MERGE, seen="yes")
    assert "The records were merged." in browser.text
    (done,) = await store.every(RecordMerge)
    assert (done.source, done.target) == ("Patient/kit2", "Patient/kit")
    assert "Una Quill" in browser.text
    await browser.open(f"{KIT}/same")
    assert not links(browser, TWIN)
    await browser.open(TWIN)
    assert KIT in links(browser)
    await submit(browser, f"{TWIN}/unmerge")
    assert "The merge was taken back." in browser.text
    (done,) = await store.every(RecordMerge)
    assert done.undone is not None
    logged = {row.interaction for row in await staff.rows()}
    assert logged >= {"$merge", "$match", "$undo-merge"}


async def test_who_would_see_more_since_the_preview_stops_the_merge(staff: StaffWorld) -> None:
    browser = await staff.at(MERGE)
    form = fields_of(forms(browser, MERGE)[0])
    await put(
        staff.world,
        SKIN,
        a_related_person("cousin", of="kit2", name=[{"text": "Lev Quill"}]),
        a_grant("cousins", of="kit2", to="cousin", sections=["results"]),
        a_person("lev", links=["RelatedPerson/cousin"]),
    )
    await staff.account("lev", f"{SKIN}/Person/lev")
    await post(browser, MERGE, form | {"seen": "yes"})
    assert browser.page.status_code == 409
    await post(browser, MERGE, {one: form[one] for one in form if one != "accept"})
    assert browser.page.status_code == 422
    assert not await staff.world.store.every(RecordMerge)


async def test_a_form_serves_its_two_records_and_its_browser_alone(staff: StaffWorld) -> None:
    browser, other = await staff.at(MERGE), await staff.at(MERGE)
    form = fields_of(forms(browser, MERGE)[0]) | {"seen": "yes"}
    for sent, at in (
        (browser, f"{FIND}/bo/merge/kit2"),
        (browser, f"{TWIN}/merge/kit"),
        (other, MERGE),
    ):
        await post(sent, at, form)
        assert sent.page.status_code == 403
    assert not await staff.world.store.every(RecordMerge)


@pytest.mark.parametrize("name", [DESK, READER, BLIND])
async def test_without_the_permission_nothing_is_previewed_or_merged(
    staff: StaffWorld, name: str
) -> None:
    browser = await staff.at(MERGE, name)
    assert browser.page.status_code == 403
    assert "Una" not in browser.text
    await browser.open(KIT)
    assert "Merge" not in buttons(browser)
    if name == READER:
        await browser.open(f"{KIT}/same")
        assert browser.page.status_code == 403


@pytest.mark.parametrize("other", ["kit", "nobody", "kit3", "x" * 65])
async def test_what_is_no_other_record_of_the_practice_is_not_merged(
    staff: StaffWorld, other: str
) -> None:
    browser = await staff.at(f"{KIT}/merge/{other}")
    if other == "kit":
        assert "cannot be merged" in browser.text
        assert "Merge" not in buttons(browser)
    else:
        assert browser.page.status_code == 404


async def test_two_accounts_are_one_persons_only_when_staff_say_so(staff: StaffWorld) -> None:
    await put(staff.world, SKIN, a_person("kit2", links=["Patient/kit2"]))
    await staff.account("kit", f"{SKIN}/Person/kit")
    await staff.account("kit2", f"{SKIN}/Person/kit2")
    browser = await staff.at(MERGE)
    assert "Two accounts hold these records" in browser.text
    assert "Merge" not in buttons(browser)
    await browser.open(f"{MERGE}?accounts=one")
    assert told(browser, "Who loses access")
    await submit(browser, MERGE, seen="yes")
    assert "The records were merged." in browser.text


async def test_after_a_day_it_stays(staff: StaffWorld) -> None:
    browser = await staff.at(MERGE)
    await submit(browser, MERGE, seen="yes")
    staff.world.clock.advance(UNDO_SECONDS)
    browser = await staff.at(TWIN)
    await submit(browser, f"{TWIN}/unmerge")
    assert "that is over" in browser.text
    (done,) = await staff.world.store.every(RecordMerge)
    assert done.undone is None
