"""``/staff/labels``: rules of labels and of release, previewed, set by who administers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.consent.label_rules import (
    LabelRule,
    LabelRules,
    Relabelling,
    ReleaseRule,
    label_rules_of,
    read_rules,
)
from fhir_portal.consent.labels import SENSITIVE, WITHHELD
from fhir_portal.operations.label_jobs import relabel_practice, set_rules
from fhir_portal.web.pages.label_words import BY_HAND, LABEL_WORDS, hidden_from, seen_by
from tests.builders import an_observation
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.web.signing_in import done, forms, post, problem
from tests.web.staff_world import (
    BLIND,
    DESK,
    FAMILY,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    labels,
    links,
    without_token,
)

PAGE = "/staff/labels"
PREVIEW, SAVE = f"{PAGE}/preview", f"{PAGE}/save"
LABEL, RELEASE = f"{PAGE}/label", f"{PAGE}/release"
HIV = "http://loinc.org|75622-1"
A_LABEL: dict[str, Any] = {
    "name": "HIV tests", "label": "HIV", "codes": "75622-1", "system": "http://loinc.org"
}  # fmt: skip
A_RELEASE: dict[str, Any] = {
    "name": "labs", "type": "Observation", "codes": "", "system": "", "until": "hours",
    "hours": "48", "reason": "preventing-harm",
}  # fmt: skip


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


async def rules(staff: StaffWorld, practice: str = SKIN) -> LabelRules:
    return await label_rules_of(staff.world.store, practice)


async def set_to(staff: StaffWorld, tree: Any, practice: str = SKIN) -> None:
    """Set rules and carry them out, as an operator does."""
    wanted = read_rules(practice, tree)
    store = staff.world.store
    await store.transact(lambda t: set_rules(t, wanted=wanted, now=staff.world.clock()))
    await relabel_practice(staff.world.portal.server, practice)


def filled(form: Any) -> dict[str, Any]:
    """What a browser sends of a form as it stands; what comes often as a list."""
    found: dict[str, Any] = {}
    for one in form.xpath(".//input[@name] | .//textarea | .//select"):
        if one.get("type") in {"checkbox", "radio"} and one.get("checked") is None:
            continue
        value = one.get("value") or ""
        if one.tag == "textarea":
            value = one.text_content()
        elif one.tag == "select":
            value = next(iter(one.xpath("./option[@selected]/@value")), "")
        found.setdefault(one.get("name"), []).append(str(value))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


async def wants(browser: Browser, path: str, **fields: Any) -> None:
    """Fill in the form of a rule, and send it."""
    await browser.open(path)
    await post(browser, PREVIEW, {**filled(forms(browser, PREVIEW)[0]), **fields})


async def saves(browser: Browser) -> None:
    await post(browser, SAVE, filled(forms(browser, SAVE)[0]))


def facts(browser: Browser) -> dict[str, str]:
    """What a page says as facts: of each the first line."""
    found = browser.document.xpath("//main//dl/div")
    return {one[0].text_content().strip(): one[1].text_content().strip() for one in found}


async def removes(browser: Browser, name: str) -> None:
    await browser.open(PAGE)
    (form,) = [one for one in forms(browser, PREVIEW) if filled(one)["was"] == name]
    await post(browser, PREVIEW, filled(form))


async def test_a_rule_is_added_changed_and_removed_after_it_was_looked_at(
    staff: StaffWorld,
) -> None:
    await put(staff.world, SKIN, an_observation("test", of="kit", code="75622-1"))
    browser = await staff.at(PAGE)
    assert "No rule. What your EHR labels" in browser.text
    await wants(browser, LABEL, **A_LABEL)
    for words in (
        "Nothing has been changed yet.",
        *("HIV and AIDS", "LOINC 75622-1", "Hidden from everybody who acts for the patient"),
        "see nothing of your practice's records",
    ):
        assert words in browser.text
    assert facts(browser)["Would be hidden, and is not yet"] == "1 entry"
    assert (await rules(staff)).change == 0
    await saves(browser)
    assert "The rules were changed." in done(browser)
    assert "is being gone through" in browser.text
    assert (await rules(staff)).labels == (LabelRule("hiv-tests", "HIV", (), (HIV,)),)
    await relabel_practice(staff.world.portal.server, SKIN)
    assert await labels(staff, "Observation/test") == {"HIV"}
    await browser.open(PAGE)
    assert "is being gone through" not in browser.text
    await wants(browser, f"{LABEL}/hiv-tests", label="STD", type=["Observation"])
    assert "Change the rule hiv-tests?" in browser.text
    await saves(browser)
    changed = LabelRule("hiv-tests", "STD", ("Observation",), (HIV,))
    assert (await rules(staff)).labels == (changed,)
    await relabel_practice(staff.world.portal.server, SKIN)
    await removes(browser, "hiv-tests")
    assert facts(browser)["Would lose the label of a rule"] == "1 entry"
    assert (await rules(staff)).labels == (changed,)
    await saves(browser)
    assert "what rules that are gone have hidden stays hidden" in browser.text
    await relabel_practice(staff.world.portal.server, SKIN)
    assert await labels(staff, "Observation/test") == set()
    lines = [one for one in await staff.rows() if one.interaction == "$set-label-rules"]
    assert {one.agent for one in lines} == {"Practitioner/admin"}
    assert [one.detail for one in lines if one.detail] == ["hiv-tests"] * 3


@pytest.mark.requirement("portal", "S2-07")
async def test_a_release_rule_shows_its_reason_to_staff(staff: StaffWorld) -> None:
    browser = await staff.at(PAGE)
    await wants(browser, RELEASE, **A_RELEASE)
    assert "2 days from when it was issued" in browser.text
    assert "counts for results that arrive from now on" in browser.text
    await saves(browser)
    assert (await rules(staff)).release == (
        ReleaseRule("labs", "Observation", "preventing-harm", (), 48),
    )
    await wants(browser, f"{RELEASE}/labs", until="staff", hours="")
    await saves(browser)
    assert (await rules(staff)).release[0].hours is None
    await relabel_practice(staff.world.portal.server, SKIN)
    await put(staff.world, SKIN, an_observation("new", of="kit"))
    reader = await staff.at(PAGE, READER)
    for words in ("Until staff release it", "Preventing Harm Exception", "Waiting now", "1"):
        assert words in reader.text
    await removes(browser, "labs")
    assert "1 result that waits is shown soon after" in browser.text
    await saves(browser)
    assert (await rules(staff)).release == ()


async def test_rules_that_an_operator_set_are_kept_whole(staff: StaffWorld) -> None:
    """Another rule is changed; what the page has no words for stays as it is."""
    tree = {
        "labels": [
            {"name": "odd", "label": "withheld", "types": ["Patient", "Flag"], "codes": ["|x"]},
            {"name": "long", "label": "R", "codes": [f"urn:long|{n}" for n in range(600)]},
        ],
        "release": [{"name": "r", "type": "Media", "reason": "security", "codes": ["urn:x|y"]}],
    }
    await set_to(staff, tree)
    before = await rules(staff)
    browser = await staff.at(PAGE)
    assert "and 595 more" in browser.text
    await wants(browser, LABEL, **A_LABEL)
    await saves(browser)
    after = await rules(staff)
    assert after.labels[:2] == before.labels
    assert after.release == before.release
    await browser.open(f"{LABEL}/long")
    assert "more than fit here" in browser.text
    assert not forms(browser, PREVIEW)
    await wants(browser, f"{LABEL}/odd", label="R", type=["Patient", "Flag"])
    await saves(browser)
    changed = {one.name: one for one in (await rules(staff)).labels}["odd"]
    assert changed == LabelRule("odd", "R", ("Patient", "Flag"), ("|x",))


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no name": (LABEL, {**A_LABEL, "name": ""}, "short name"),
    "a name of signs": (LABEL, {**A_LABEL, "name": SCRIPT}, "short name"),
    "no label": (LABEL, {**A_LABEL, "label": ""}, "Choose a label."),
    "a label that opens": (LABEL, {**A_LABEL, "label": "N"}, "Choose a label."),
    "nothing": (LABEL, {**A_LABEL, "codes": ""}, "a rule is not for all"),
    "no system": (LABEL, {**A_LABEL, "system": ""}, "is no code"),
    "a system of one's own": (LABEL, {**A_LABEL, "system": "urn:mine"}, "is no code"),
    "a line of signs": (LABEL, {**A_LABEL, "codes": f"urn:x|{SCRIPT} |y"}, "is no code"),
    "very many": (
        LABEL, {**A_LABEL, "codes": "\n".join(map(str, range(501)))}, "more than 500 codes"
    ),
    "no such type": (LABEL, {**A_LABEL, "type": ["Nothing"]}, "Nothing"),
    "no kind": (RELEASE, {**A_RELEASE, "type": ""}, "Choose one kind"),
    "two kinds": (RELEASE, {**A_RELEASE, "type": ["Media", "Observation"]}, "Choose one kind"),
    "no result": (RELEASE, {**A_RELEASE, "type": "Encounter"}, "Choose one kind"),
    "no time": (RELEASE, {**A_RELEASE, "until": ""}, "how long"),
    "no hours": (RELEASE, {**A_RELEASE, "hours": "0"}, "1 to 720"),
    "too long": (RELEASE, {**A_RELEASE, "hours": "721"}, "1 to 720"),
    "no number": (RELEASE, {**A_RELEASE, "hours": "two"}, "1 to 720"),
    "no reason": (RELEASE, {**A_RELEASE, "reason": ""}, "why that is allowed"),
    "no such reason": (RELEASE, {**A_RELEASE, "reason": "because"}, "why that is allowed"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
async def test_what_cannot_be_is_said_beside_what_was_typed(staff: StaffWorld, case: str) -> None:
    path, fields, words = WRONG[case]
    browser = await staff.at(PAGE)
    await wants(browser, path, **fields)
    assert browser.page.status_code in {400, 422}
    assert words in browser.text
    assert SCRIPT not in browser.page.text
    assert (await rules(staff)).change == 0


async def test_what_changes_nothing_and_a_name_that_is_taken_are_said(staff: StaffWorld) -> None:
    await set_to(staff, {"labels": [{"name": "hiv-tests", "label": "HIV", "codes": [HIV]}]})
    browser = await staff.at(PAGE)
    await wants(browser, f"{LABEL}/hiv-tests")
    assert problem(browser) == "That changes nothing."
    await wants(browser, LABEL, **{**A_LABEL, "label": "STD"})
    assert "There is a rule of this name already." in problem(browser)
    assert (await rules(staff)).change == 1


async def test_a_form_that_is_sent_twice_or_is_old_changes_nothing(staff: StaffWorld) -> None:
    first, second = await staff.at(PAGE), await staff.at(PAGE)
    await wants(first, LABEL, **A_LABEL)
    sent = filled(forms(first, SAVE)[0])
    await wants(second, RELEASE, **A_RELEASE)
    await post(first, SAVE, sent)
    assert (await rules(staff)).change == 1
    await post(first, SAVE, sent)
    assert first.page.status_code == 412
    assert "changed meanwhile" in problem(first)
    await saves(second)
    assert second.page.status_code == 412
    found = await rules(staff)
    assert (found.change, found.release) == (1, ())
    await second.open(RELEASE)
    old = filled(forms(second, PREVIEW)[0])
    await set_to(staff, {})
    await post(second, PREVIEW, {**old, **A_RELEASE})
    assert second.page.status_code == 412


@pytest.mark.parametrize("path", [PREVIEW, SAVE])
async def test_a_form_that_is_not_ours_changes_nothing(staff: StaffWorld, path: str) -> None:
    browser = await staff.at(PAGE)
    await browser.open(LABEL)
    sent = filled(forms(browser, PREVIEW)[0]) | A_LABEL
    assert await without_token(browser, path, {**sent, "form_token": ""}) == 403
    assert await without_token(browser, path, {**sent, "form_token": "x" * 43}) == 403
    if path == SAVE:
        assert await without_token(browser, path, sent) == 403, "it is of another form"
    assert (await rules(staff)).change == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"was": "nothing"},
        {"do": "remove"},
        {"do": "remove", "was": "nothing"},
        {"seen": "x"},
        {"seen": ""},
    ],
)
async def test_a_form_that_was_tampered_with_changes_nothing(
    staff: StaffWorld, changes: dict[str, str]
) -> None:
    browser = await staff.at(PAGE)
    await wants(browser, LABEL, **A_LABEL)
    sent = filled(forms(browser, SAVE)[0])
    await post(browser, SAVE, {**sent, **changes})
    assert browser.page.status_code in {400, 404, 412}
    assert (await rules(staff)).change == 0


async def test_rules_are_read_by_who_may_view_and_set_by_who_administers(
    staff: StaffWorld,
) -> None:
    await set_to(staff, {"labels": [{"name": "hiv", "label": "HIV", "codes": [HIV]}]})
    admin = await staff.at(PAGE)
    assert PAGE in links(admin) or PAGE in admin.page.text
    await wants(admin, f"{LABEL}/hiv", label="STD")
    sent = filled(forms(admin, SAVE)[0])
    for name in (READER, DESK):
        browser = await staff.at(PAGE, name)
        assert browser.page.status_code == 200
        assert "HIV and AIDS" in browser.text
        assert not forms(browser, PREVIEW)
        assert not links(browser, LABEL)
        await browser.open(LABEL)
        assert browser.page.status_code == 403
        for path in (PREVIEW, SAVE):
            await post(browser, path, sent)
            assert browser.page.status_code == 403
        await browser.open("/staff")
        assert PAGE not in links(browser)
    blind = await staff.at(PAGE, BLIND)
    assert blind.page.status_code == 403
    assert (await rules(staff)).labels[0].label == "HIV"


async def test_of_another_practice_nothing_is_shown_or_set(staff: StaffWorld) -> None:
    await set_to(staff, {"labels": [{"name": "far", "label": "SDV", "types": ["Flag"]}]}, FAMILY)
    browser = await staff.at(PAGE)
    assert "domestic violence" not in browser.text
    await browser.open(f"{LABEL}/far")
    assert browser.page.status_code == 404
    await browser.open(f"{LABEL}/nothing")
    assert browser.page.status_code == 404
    await browser.open(f"{PAGE}/other")
    assert browser.page.status_code == 404
    await wants(browser, LABEL, **A_LABEL)
    await saves(browser)
    assert [one.name for one in (await rules(staff, FAMILY)).labels] == ["far"]


async def test_a_session_that_is_over_changes_nothing(staff: StaffWorld) -> None:
    browser = await staff.at(PAGE)
    await wants(browser, LABEL, **A_LABEL)
    staff.world.clock.advance(3600)
    await saves(browser)
    assert browser.page.status_code in {302, 303, 403} or "Sign in" in browser.text
    assert (await rules(staff)).change == 0
    assert await staff.world.store.get(Relabelling, SKIN) is None


def test_every_label_has_words_and_says_from_whom_it_hides() -> None:
    assert set(LABEL_WORDS) == SENSITIVE | {WITHHELD}
    assert set(BY_HAND) == SENSITIVE
    assert "from the patient" in hidden_from(WITHHELD)
    assert "from the patient" in hidden_from("-unknown")
    assert "from the patient" in hidden_from("TABOO")
    assert all("The patient sees it." in hidden_from(code) for code in SENSITIVE - {"TABOO"})
    assert seen_by([]).startswith("The patient, and those")
    assert seen_by(["R", "HIV"]).startswith("The patient. Nobody")
    assert seen_by(["R", WITHHELD]).startswith("Staff and the EHR alone")
