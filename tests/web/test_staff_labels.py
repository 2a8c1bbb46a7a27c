"""A record's labels at the staff pages: why something is hidden, by hand, release and hold-back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.consent.label_rules import LabelRules, Relabelling
from fhir_portal.resources.release import Release
from tests.builders import (
    RESTRICTED,
    WITHHELD,
    Caller,
    a_document,
    an_encounter,
    an_observation,
    oneself,
    reference,
)
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.staff import a_level
from tests.web.signing_in import done, fields_of, forms, post, problem, submit
from tests.web.staff_world import (
    ADMIN,
    BLIND,
    DESK,
    FAMILY,
    KIT,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    buttons,
    labels,
    links,
)
from tests.web.test_staff_label_rules import HIV, set_to

PAGE = f"{KIT}/labels"
VISIT, RESULT = f"{PAGE}/Encounter/visit", f"{PAGE}/Observation/result"
BECAUSE = "The patient asked for it"
WAITS = {"release": [{"name": "labs", "type": "Observation", "hours": 48, "reason": "privacy"}]}


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    """Kit has a visit with a result, and so has Bo."""
    found = await StaffWorld.begin()
    await put(
        found.world,
        SKIN,
        an_encounter("visit", of="kit", type=[{"text": "A visit about a rash"}]),
        an_observation("result", of="kit", encounter=reference("Encounter/visit")),
        an_observation("of-bo", of="bo"),
    )
    await put(found.world, FAMILY, an_observation("far", of="elsewhere"))
    yield found
    found.close()


async def acts(browser: Browser, address: str, do: str, **fields: str) -> None:
    """Send the form of a page that has a button for this."""
    form = next(one for one in forms(browser, address) if fields_of(one).get("do") == do)
    await post(browser, address, {**fields_of(form), **fields})


async def waiting(staff: StaffWorld) -> None:
    """A rule holds what arrives, and a result did."""
    await set_to(staff, WAITS)
    await put(staff.world, SKIN, an_observation("new", of="kit", code="new-test"))


async def version(staff: StaffWorld, what: str) -> str:
    kit = Caller(staff.world.portal, oneself("kit", SKIN))
    return str((await kit.get(what)).json["meta"]["versionId"])


async def test_a_visit_is_labelled_with_a_reason_and_the_label_taken_away(
    staff: StaffWorld,
) -> None:
    browser = await staff.at(KIT)
    assert PAGE in links(browser)
    await browser.open(PAGE)
    assert browser.text.count("Nothing.") == 2
    await browser.open(f"{PAGE}/of?type=Encounter")
    assert VISIT in links(browser)
    await browser.open(VISIT)
    for words in ("A visit about a rash", "The patient, and those who act", "It has no label."):
        assert words in browser.text
    await acts(browser, VISIT, "add", label="SDV", reason=BECAUSE)
    assert "It is labelled." in done(browser)
    assert "The patient. Nobody who acts for the patient." in browser.text
    assert "It carries this itself." in browser.text
    assert await labels(staff, "Encounter/visit") == {"SDV"}
    assert await labels(staff, "Observation/result") == {"SDV"}
    await browser.open(RESULT)
    assert "Because it refers to A visit about a rash" in browser.text
    assert VISIT in links(browser)
    assert "Take it away" not in buttons(browser), "it is the visit's label"
    await browser.open(PAGE)
    assert VISIT in links(browser)
    assert RESULT not in links(browser)
    assert "Test results, vital signs and other observations: 1" in browser.text
    await browser.open(f"{PAGE}/of?type=Observation")
    assert ": labelled" in browser.text
    await browser.open(VISIT)
    await acts(browser, VISIT, "remove", label="SDV", reason="A mistake")
    assert "The label was taken away." in done(browser)
    assert await labels(staff, "Observation/result") == set()
    assert await version(staff, "Encounter/visit") == "3"
    lines = [one for one in await staff.rows() if one.interaction == "$label"]
    assert [(one.agent, one.status) for one in lines] == [("Practitioner/admin", 200)] * 2


@pytest.mark.requirement("portal", "S2-07")
async def test_a_result_that_waits_is_released_from_the_list(staff: StaffWorld) -> None:
    await waiting(staff)
    browser = await staff.at(PAGE)
    for words in ("new-test", "by the rule “labs”", "Until ", "Privacy Exception",
                  "Hidden from the patient"):  # fmt: skip
        assert words in browser.text
    address = f"{PAGE}/Observation/new"
    await acts(browser, address, "release", reason="")
    assert (browser.page.status_code, problem(browser)) == (400, "Give a reason.")
    assert await labels(staff, "Observation/new") == {"withheld"}
    old = fields_of(forms(browser, address)[0])
    await acts(browser, address, "release", reason="Talked about on the telephone")
    assert "It is released" in done(browser)
    assert not forms(browser, address)
    assert await labels(staff, "Observation/new") == set()
    await post(browser, address, {**old, "reason": "once more"})
    assert browser.page.status_code == 412
    assert "changed meanwhile" in problem(browser)
    kept = await staff.world.store.get(Release, f"{SKIN}/Observation/new")
    assert kept is not None
    assert (kept.state, kept.words, kept.by) == (
        "released", "Talked about on the telephone", "Practitioner/admin",
    )  # fmt: skip


async def test_a_list_of_before_does_not_release_what_a_colleague_held_back(
    staff: StaffWorld,
) -> None:
    await waiting(staff)
    address = f"{PAGE}/Observation/new"
    browser, colleague = await staff.at(PAGE), await staff.at(address)
    old = {**fields_of(forms(browser, address)[0]), "reason": "It waits by the rule alone"}
    await acts(colleague, address, "hold", exception="preventing-harm", reason="I call first")
    await post(browser, address, old)
    assert browser.page.status_code == 412
    for words in ("changed meanwhile", "Held back by staff.", "I call first"):
        assert words in browser.text
    await post(browser, address, {name: old[name] for name in old if name != "seen"})
    assert browser.page.status_code == 412
    kept = await staff.world.store.get(Release, f"{SKIN}/Observation/new")
    assert kept is not None
    assert (kept.state, kept.words) == ("held", "I call first")
    await acts(browser, address, "release", reason="Called")
    assert await labels(staff, "Observation/new") == set()


@pytest.mark.requirement("portal", "S2-07")
async def test_a_result_is_held_back_with_an_exception_and_a_reason(staff: StaffWorld) -> None:
    browser = await staff.at(RESULT)
    await acts(browser, RESULT, "hold", exception="", reason="The doctor calls first")
    assert browser.page.status_code == 400
    await acts(browser, RESULT, "hold", exception="because", reason="The doctor calls first")
    assert "It was not done: one of preventing-harm" in problem(browser)
    assert await labels(staff, "Observation/result") == set()
    await acts(browser, RESULT, "hold", exception="preventing-harm", reason="A call first")
    for words in (
        *("It is held back", "Staff and the EHR alone", "Held back by staff."),
        *("Preventing Harm Exception", "A call first", "Until staff release it"),
    ):
        assert words in browser.text
    assert "Hold it back" not in buttons(browser)
    assert await labels(staff, "Observation/result") == {"withheld"}
    kit = Caller(staff.world.portal, oneself("kit", SKIN))
    assert (await kit.get("Observation/result")).status == 404
    await acts(browser, RESULT, "release", reason="Called")
    assert await labels(staff, "Observation/result") == set()
    await browser.open(VISIT)
    assert "Hold it back" not in buttons(browser), "a visit is no result"


async def test_where_a_label_comes_from_is_said(staff: StaffWorld) -> None:
    await set_to(staff, {"labels": [{"name": "hiv", "label": "HIV", "codes": [HIV]}]})
    await put(
        staff.world,
        SKIN,
        an_observation("ruled", of="kit", code="75622-1"),
        an_observation("tagged", of="kit", meta=WITHHELD),
        a_document("letter", of="kit", meta=RESTRICTED, description=SCRIPT),
    )
    browser = await staff.at(PAGE)
    for words in ("By the practice's rule “hiv”.", "Tagged by the EHR.", "It carries this itself."):
        assert words in browser.text
    assert SCRIPT not in browser.page.text
    await browser.open(f"{PAGE}/Observation/tagged")
    assert "Take it away" not in buttons(browser)
    assert "Release now" not in buttons(browser), "what the EHR tags is the EHR's to open"
    await browser.open(f"{PAGE}/Observation/ruled")
    assert "Its labels come from elsewhere" in browser.text


async def test_a_page_that_is_old_and_a_form_that_is_sent_twice_change_nothing(
    staff: StaffWorld,
) -> None:
    first, second = await staff.at(VISIT), await staff.at(VISIT)
    old = next(one for one in forms(first, VISIT) if fields_of(one)["do"] == "add")
    sent = {**fields_of(old), "label": "SDV", "reason": BECAUSE}
    await post(first, VISIT, sent)
    await post(first, VISIT, sent)
    assert first.page.status_code == 412
    assert "changed meanwhile" in problem(first)
    assert await version(staff, "Encounter/visit") == "2"
    await acts(second, VISIT, "add", label="HIV", reason=BECAUSE)
    assert second.page.status_code == 412
    assert await labels(staff, "Encounter/visit") == {"SDV"}
    held = await staff.at(RESULT)
    await set_to(staff, {"labels": [{"name": "all", "label": "R", "types": ["Observation"]}]})
    await acts(held, RESULT, "hold", exception="privacy", reason=BECAUSE)
    assert held.page.status_code == 412, "it has another label now, though no other version"
    assert await staff.world.store.get(Release, f"{SKIN}/Observation/result") is None


async def test_it_is_read_by_who_may_view_and_done_by_who_has_documents(
    staff: StaffWorld,
) -> None:
    await waiting(staff)
    admin = await staff.at(RESULT)
    sent = {one: {**fields_of(form), "reason": BECAUSE} for form in forms(admin, RESULT)
            for one in [fields_of(form)["do"]]}  # fmt: skip
    assert set(sent) == {"add", "hold"}
    extra = {"label": "SDV", "exception": "privacy"}
    for name in (READER, DESK):
        browser = await staff.at(PAGE, name)
        assert "new-test" in browser.text
        assert not {"Release now", "Label it"} & set(buttons(browser))
        await browser.open(RESULT)
        assert browser.page.status_code == 200
        assert not forms(browser, RESULT)
        for do in ("add", "remove", "release", "hold"):
            form = {**sent["add"], **extra, "do": do}
            await post(browser, RESULT, form)
            assert browser.page.status_code == 403, do
    blind = await staff.at(PAGE, BLIND)
    assert blind.page.status_code == 403
    await blind.open(RESULT)
    assert blind.page.status_code == 403
    assert await labels(staff, "Observation/result") == set()
    assert await labels(staff, "Observation/new") == {"withheld"}


async def test_a_level_that_loses_the_permission_does_nothing_with_a_page_of_before(
    staff: StaffWorld,
) -> None:
    browser = await staff.at(VISIT)
    await staff.keep(a_level(ADMIN, "view", practice=SKIN, version=2))
    await acts(browser, VISIT, "add", label="SDV", reason=BECAUSE)
    assert browser.page.status_code == 403
    assert await labels(staff, "Encounter/visit") == set()


ELSEWHERE = (
    "Observation/of-bo",
    "Observation/far",
    "Observation/never",
    "Patient/kit",
    "Consent/grant",
    "Provenance/x",
    "Nothing/x",
    "Observation/a b",
    f"Observation/{'x' * 65}",
)


@pytest.mark.parametrize("what", ELSEWHERE)
async def test_what_is_not_of_the_record_is_not_there(staff: StaffWorld, what: str) -> None:
    browser = await staff.at(RESULT)
    sent = {**fields_of(forms(browser, RESULT)[0]), "label": "SDV", "reason": BECAUSE}
    await browser.open(f"{PAGE}/{what}")
    assert browser.page.status_code == 404
    words = browser.text
    await browser.open(f"{PAGE}/Observation/never")
    assert browser.text == words, "absent and of another record are alike"
    await post(browser, f"{PAGE}/{what}", {**sent, "do": "add"})
    assert browser.page.status_code in {403, 404}
    for key in ("Observation/of-bo", "Observation/result"):
        assert await labels(staff, key) == set()


@pytest.mark.parametrize("patient", ["elsewhere", "nobody", "a b", "x" * 65])
async def test_of_a_patient_of_another_practice_nothing_is_there(
    staff: StaffWorld, patient: str
) -> None:
    browser = await staff.at(PAGE)
    for rest in ("", "/of?type=Observation", "/Observation/far"):
        await browser.open(f"/staff/patients/{patient}/labels{rest}")
        assert browser.page.status_code == 404


async def test_a_form_that_is_not_of_this_page_changes_nothing(staff: StaffWorld) -> None:
    browser = await staff.at(RESULT)
    sent = {**fields_of(forms(browser, RESULT)[0]), "label": "SDV", "reason": BECAUSE}
    for token in ("", "x" * 43):
        await post(browser, RESULT, {**sent, "form_token": token})
        assert browser.page.status_code == 403
    await post(browser, VISIT, sent)
    assert browser.page.status_code == 403, "it is of another thing"
    other = await staff.at(RESULT)
    await post(other, RESULT, sent)
    assert other.page.status_code == 403, "it is of another browser"
    for changes in ({"do": "erase"}, {"do": ""}, {"label": "N"}, {"label": ""}, {"reason": " "},
                    {"reason": "x" * 501}, {"seen": ""}, {"reason": "a\x07b"}):  # fmt: skip
        await browser.open(RESULT)
        fresh = fields_of(forms(browser, RESULT)[0])
        form = {**fresh, "do": "add", "label": "SDV", "reason": BECAUSE, **changes}
        await post(browser, RESULT, form)
        assert browser.page.status_code in {400, 412, 422}, changes
    assert await labels(staff, "Observation/result") == set()
    assert await version(staff, "Observation/result") == "1"


async def test_a_session_that_is_over_changes_nothing(staff: StaffWorld) -> None:
    browser = await staff.at(VISIT)
    staff.world.clock.advance(3600)
    await acts(browser, VISIT, "add", label="SDV", reason=BECAUSE)
    assert "It is labelled." not in browser.text
    assert await labels(staff, "Encounter/visit") == set()


async def test_what_there_is_to_choose_from_is_paged(staff: StaffWorld) -> None:
    await put(
        staff.world, SKIN, *(an_observation(f"n{number:02}", of="kit") for number in range(30))
    )
    browser = await staff.at(PAGE)
    await browser.open(f"{PAGE}/of?type=Observation")
    under = f"{PAGE}/Observation/"
    first = links(browser, under)
    assert len(first) == 25
    await submit(browser, f"{PAGE}/of")
    second = links(browser, under)
    assert len(second) == 6
    assert not {*first} & {*second}
    await post(browser, f"{PAGE}/of", {"form_token": "x", "type": "Observation", "page": "y"})
    assert browser.page.status_code == 403
    for name in ("Patient", "Nothing", "", "AuditEvent"):
        await browser.open(f"{PAGE}/of?type={name}")
        assert browser.page.status_code == 404
    for name in ("AdverseEvent", "SupplyRequest", "MeasureReport", "Task"):
        await browser.open(f"{PAGE}/of?type={name}")
        assert browser.page.status_code == 200
        assert "There is nothing of this kind." in browser.text


async def test_while_rules_are_carried_out_it_is_said(staff: StaffWorld) -> None:
    await staff.keep(LabelRules(key=SKIN, change=1), Relabelling(key=SKIN, change=1))
    browser = await staff.at(PAGE)
    assert "patients and those who act for them see nothing" in browser.text


async def test_a_list_that_is_opened_again_after_signing_in_leads_back_to_the_choice(
    staff: StaffWorld,
) -> None:
    browser = await staff.at(f"{PAGE}/of?type=Observation")
    assert browser.page.status_code == 200, "what was asked for is not kept through a sign-in"
    assert "Label or hold back something else" in browser.text
