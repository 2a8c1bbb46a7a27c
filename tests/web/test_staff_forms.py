"""Forms at the staff pages: asked for, watched, cancelled; answers decided about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.fhir.definitions import ig_resource
from tests.builders import Caller, Json, a_patient, oneself, reference
from tests.operations.test_forms import HISTORY, ILL, MAIL, PHONE, history
from tests.resources.forms.twenty import QUESTIONNAIRES, answer, group, text
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import (
    ADMIN,
    DESK,
    FAMILY,
    FIND,
    READER,
    SKIN,
    StaffWorld,
    links,
    without_token,
)

FORMS = "/staff/forms"
BO = f"{FIND}/bo/forms"


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    """The practice has three forms; the other one has one."""
    found = await StaffWorld.begin()
    await put(
        found.world,
        SKIN,
        *(ig_resource("Questionnaire", one) for one in ("medical-history", "pre-registration")),
        QUESTIONNAIRES["sleep"],
        a_patient("bo", family="Quillon", birthDate="1990-01-01", telecom=[PHONE, MAIL]),
    )
    await put(found.world, FAMILY, QUESTIONNAIRES["smoking"])
    yield found
    found.close()


def bo(staff: StaffWorld) -> Caller:
    return Caller(staff.world.portal, oneself("bo", SKIN))


def of_bo(tree: Json) -> Json:
    """Answers as Bo's."""
    signed: Any = [
        {**one, "valueSignature": {**one["valueSignature"], "who": reference("Patient/bo")}}
        for one in tree["extension"]
    ]
    own = reference("Patient/bo")
    return tree | {"subject": own, "source": own, "extension": signed}


async def handed_in(staff: StaffWorld) -> str:
    """Bo hands a history in; return the page on which it is decided about."""
    made = await bo(staff).post(of_bo(history(*ILL)))
    assert made.status == 201, made.body
    browser = await staff.at(FORMS)
    (address,) = links(browser, f"{FORMS}/")
    return address


async def decided(browser: Browser, address: str, fields: dict[str, str]) -> None:
    """Send the decisions off as they were shown."""
    (form,) = forms(browser, address)
    await post(browser, address, {**fields_of(form), **fields})


@pytest.mark.requirement("portal", "S4-14")
async def test_staff_ask_for_a_form_watch_it_and_cancel_it(staff: StaffWorld) -> None:
    browser = await staff.at(BO)
    assert "Your medical history" in browser.page.text
    assert "Smoking" not in browser.page.text  # the other practice's
    await submit(browser, BO, form=f"{HISTORY}|0.1.0", due="2031-01-01", note="Before you come")
    assert browser.page.url.path == BO
    assert "not begun" in browser.page.text
    (task,) = (await bo(staff).get("Task")).entries
    assert task["restriction"]["period"]["end"] == "2031-01-01"
    await browser.open(FORMS)
    assert "Quillon" in browser.page.text
    assert BO in links(browser)
    await browser.open(BO)
    cancel = f"{FORMS}/{task['id']}/cancel"
    await submit(browser, cancel, reason="asked twice")
    assert "cancelled: asked twice" in " ".join(browser.page.text.split())
    assert (await bo(staff).get("Task")).entries[0]["status"] == "cancelled"


async def test_what_is_wrong_is_said_and_nothing_is_asked(staff: StaffWorld) -> None:
    browser = await staff.at(BO)
    await submit(browser, BO)
    assert problem(browser) == "Choose a form."
    await submit(browser, BO, form=HISTORY, due="soon")
    assert "day" in problem(browser)
    await submit(browser, BO, form="https://forms.example/Questionnaire/smoking")
    assert "no such form" in problem(browser)
    assert (await bo(staff).get("Task")).ids == []


@pytest.mark.requirement("portal", "S1-30")
async def test_answers_are_decided_about_on_a_page(staff: StaffWorld) -> None:
    address = await handed_in(staff)
    browser = await staff.at(address)
    assert "Hay fever" in browser.page.text
    assert "One in the evening" in browser.page.text
    names = [f"p{at}" for at in range(1, 5)]
    kinds = browser.document.xpath("//legend/text()")
    accepted = next(n for n, k in zip(names, kinds, strict=True) if "Hay fever" in k)
    await submit(browser, address)
    assert problem(browser) == "Decide about each of them."
    fields = {f"{one}.action": "refuse" for one in names}
    fields |= {f"{accepted}.action": "accept", f"{accepted}.text": "Allergic rhinitis"}
    fields["reason"] = "asked on the telephone"
    await decided(browser, address, fields)
    assert browser.page.url.path == FORMS
    (condition,) = (await bo(staff).get("Condition")).entries
    assert condition["code"] == {"text": "Allergic rhinitis"}
    assert (await bo(staff).get("AllergyIntolerance")).ids == []
    await browser.open(address)
    assert "decided already" in browser.page.text


@pytest.mark.requirement("portal", "S0-35")
async def test_personal_details_are_taken_over_field_by_field(staff: StaffWorld) -> None:
    tree: Json = of_bo(history()) | {
        "questionnaire": "https://fhir-portal.example/ig/Questionnaire/pre-registration",
        "item": [
            group(
                "about-you",
                group("name", answer("given", text("Bea")), answer("family", text("Quillon"))),
                answer("birth-date", {"valueDate": "1990-01-01"}),
                group("mobile", answer("mobile-value", text("+13125550100"))),
            ),
            answer("has-insurance", {"valueBoolean": False}),
        ],
    }
    made = await bo(staff).post(tree)
    assert made.status == 201, made.body
    browser = await staff.at(FORMS)
    (address,) = links(browser, f"{FORMS}/")
    await browser.open(address)
    assert "+13125550100" in browser.page.text
    newer = (await bo(staff).get("Patient/bo")).json | {"gender": "female"}
    await put(staff.world, SKIN, {n: v for n, v in newer.items() if n != "meta"})
    fields = {"p1.action": "accept", "p1.field": "telecom"}
    await decided(browser, address, fields)
    assert "changed meanwhile" in problem(browser)
    await decided(browser, address, fields)
    assert browser.page.url.path == FORMS, browser.page.text
    after = (await bo(staff).get("Patient/bo")).json
    assert after["telecom"][0]["value"] == "+13125550100"
    assert after["gender"] == "female"
    assert after["name"][0]["given"] == ["Ada"]  # not ticked


async def test_forms_are_for_those_whose_level_holds_them(staff: StaffWorld) -> None:
    address = await handed_in(staff)
    for who in (READER, DESK):
        for page in (FORMS, BO, address):
            browser = await staff.at(page, who)
            assert browser.page.status_code == 403
        await browser.open(f"{FIND}/bo")
        assert BO not in links(browser)
    far = await staff.at(f"{FIND}/elsewhere/forms", ADMIN)
    assert far.page.status_code == 404


async def test_a_form_needs_its_hidden_field(staff: StaffWorld) -> None:
    address = await handed_in(staff)
    browser = await staff.at(address)
    for path, fields in (
        (address, {"p1.action": "accept"}),
        (BO, {"form": HISTORY}),
        (f"{address}/cancel", {"reason": "x"}),
    ):
        assert await without_token(browser, path, fields) == 403
    assert (await bo(staff).get("Condition")).ids == []
