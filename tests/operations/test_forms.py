"""Forms: asked for, filled in, handed in, decided about; and what everybody else is refused."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.notify import jobs
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.form_request import form_jobs
from fhir_portal.portal import Portal
from fhir_portal.records import drop_expired
from fhir_portal.resources.forms.answering import require_answers
from fhir_portal.resources.forms.extract import is_extractable
from fhir_portal.resources.forms.known import form_of_tree
from fhir_portal.resources.forms.questionnaire_response import Rules
from tests.builders import (
    FAMILY,
    START,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    Json,
    a_condition,
    a_patient,
    a_proxy,
    a_related_person,
    an_appointment,
    assert_outcome,
    oneself,
    reference,
    resource,
)
from tests.operations.holding import parameters, values
from tests.operations.invitations import staff
from tests.resources.forms.twenty import (
    QUESTIONNAIRES,
    SIGNED,
    answer,
    group,
    response,
    text,
)

SLEEP = "https://forms.example/Questionnaire/sleep"
IG = "https://fhir-portal.example/ig/Questionnaire/"
SHIPPED = ("insurance", "medical-history", "pre-registration")
PRE, HISTORY = f"{IG}pre-registration", f"{IG}medical-history"
HOURS = answer("hours", {"valueDecimal": 7})
YES: Json = {"valueBoolean": True}
NO: Json = {"valueBoolean": False}
PHONE = {"system": "phone", "value": "+13125550142", "use": "mobile"}
MAIL = {"system": "email", "value": "ada@mail.example"}
ADDRESS = {"use": "home", "line": ["12 Elm"], "city": "Chicago", "postalCode": "60614"}


@pytest.fixture
async def forms(practice: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """The practice has the shipped forms and that about sleep; Kit has a mother and an aunt."""
    await ehr.store(
        a_patient("ada", telecom=[PHONE, MAIL], address=[ADDRESS]),
        *(ig_resource("Questionnaire", name) for name in SHIPPED),
        QUESTIONNAIRES["sleep"],
        a_related_person("aunt", of="kit"),
        an_appointment("visit", of=["ada"]),
        an_appointment("kits", of=["kit"]),
    )
    await other_ehr.store(
        QUESTIONNAIRES["smoking"] | {"url": "https://other.example/Questionnaire/theirs"}
    )
    return practice


@pytest.fixture
def front(forms: EmbeddedStore, portal: Portal) -> Caller:
    """Staff of that practice whose level holds forms and view."""
    assert forms is not None
    return staff(portal, "forms", "view")


async def asked(caller: Caller, patient: str = "ada", **given: Any) -> Answer:
    """Ask for forms; ``given`` as `parameters` writes them."""
    tree = parameters(**(given or {"questionnaire_Canonical": SLEEP}))
    return await caller.ask("POST", f"Patient/{patient}/$request-form", tree)


async def task_of(caller: Caller, told: Answer) -> Json:
    named = [one for one in told.json["parameter"] if one["name"] == "task"]
    return (await caller.get(named[0]["valueReference"]["reference"])).json


def out(told: Answer, name: str) -> Any:
    """The first value of a parameter of an answer, whatever its status."""
    (found, *_) = [one for one in told.json["parameter"] if one["name"] == name]
    return next(value for member, value in found.items() if member != "name")


def count(told: Answer, name: str) -> int:
    return len([one for one in told.json["parameter"] if one["name"] == name])


def history(*more: Json, of: str = "ada", **changes: Any) -> Json:
    tree = response(
        "x",
        answer("problems", NO),
        answer("allergies", NO),
        answer("medicines", NO),
        group("smoking", answer("smokes", NO)),
        **SIGNED,
    ) | {"questionnaire": HISTORY}
    tree["subject"] = reference(f"Patient/{of}")
    named = {one["linkId"] for one in more}
    tree["item"] = [one for one in tree["item"] if one["linkId"] not in named] + list(more)
    return tree | changes


PENICILLIN = {"valueCoding": {"system": "http://snomed.info/sct", "code": "91936005"}}
MOTHER = {
    "valueCoding": {
        "system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode",
        "code": "MTH",
    }
}
ILL = (
    answer("problems", YES),
    group(
        "problem",
        answer("problem-what", text("Hay fever")),
        answer("problem-since", text("2010")),
    ),
    answer("allergies", YES),
    group(
        "allergy",
        answer("allergy-to", PENICILLIN),
        answer("allergy-reaction", text("A rash")),
    ),
    answer("medicines", YES),
    group(
        "medicine",
        answer("medicine-name", text("Cetirizine")),
        group("medicine-dose", answer("medicine-how", text("One in the evening"))),
    ),
    group(
        "relative",
        answer("relative-who", MOTHER),
        group("relative-illness", answer("relative-what", text("Asthma"))),
    ),
)


# ---------------------------------------------------------------- the shipped forms


@pytest.mark.parametrize("name", SHIPPED)
async def test_the_shipped_forms_can_be_filled_in_and_extracted(name: str) -> None:
    nobody: Any = None
    form = await form_of_tree(nobody, "x", json.dumps(ig_resource("Questionnaire", name)).encode())
    assert form.faults == ()
    assert is_extractable(form)
    if name == "medical-history":
        require_answers(form, history(*ILL), Rules(now=START, strict=True, signer="Patient/ada"))


# ---------------------------------------------------------------- asking


@pytest.mark.requirement("portal", "S4-14")
async def test_staff_ask_for_a_form_once_and_the_patient_sees_it(
    front: Caller, ada: Caller
) -> None:
    told = await asked(
        front, questionnaire_Canonical=SLEEP, due_Date="2030-04-01", note_String="Before your visit"
    )
    assert told.status == 201
    assert out(told, "asked") == 1
    task = await task_of(front, told)
    assert task["status"] == "requested"
    assert task["code"]["coding"][0]["code"] == "complete-questionnaire"
    assert task["for"] == {"reference": "Patient/ada"}
    assert task["restriction"]["period"]["end"] == "2030-04-01"
    again = await asked(front)
    assert (again.status, out(again, "asked")) == (200, 0)
    assert out(again, "task") == out(told, "task")
    # The patient sees the request, and by it the form, which nobody sees of whom it is not asked.
    assert (await ada.get(f"Task/{task['id']}")).json["note"] == [{"text": "Before your visit"}]
    assert (await ada.get("Questionnaire/sleep")).status == 200
    assert (await ada.get("Questionnaire/insurance")).status == 404
    bo = Caller(front.portal, oneself("bo"))
    assert (await bo.get("Questionnaire/sleep")).status == 404
    assert (await bo.get(f"Task/{task['id']}")).status == 404
    # The progress list is a search over all patients.
    found = await front.get("Task?code=complete-questionnaire&status=requested")
    assert found.ids == [f"Task/{task['id']}"]


@pytest.mark.requirement("portal", "S4-14")
async def test_a_visit_type_has_a_set_of_forms(front: Caller) -> None:
    visit = {
        "system": "https://fhir-portal.example/ig/CodeSystem/visit-type",
        "code": "new-patient",
    }
    told = await asked(front, visit__type_Coding=visit)
    assert (told.status, out(told, "asked")) == (201, 3)
    none = await asked(front, visit__type_Coding={"system": "urn:x", "code": "nothing"})
    assert_outcome(none, 422, "processing")


@pytest.mark.requirement("portal", "S4-14")
async def test_a_request_is_cancelled_with_a_reason_and_not_once_it_is_answered(
    front: Caller, ada: Caller
) -> None:
    task = await task_of(front, await asked(front))
    path = f"Task/{task['id']}/$cancel-form"
    reason = parameters(reason_String="asked the wrong person")
    assert_outcome(await front.ask("POST", path, parameters(reason_String=" ")), 422, "processing")
    for _ in range(2):  # a repetition changes nothing
        assert values(await front.ask("POST", path, reason))["status"] == "cancelled"
    stored = (await front.get(f"Task/{task['id']}")).json
    assert stored["meta"]["versionId"] == "2"
    assert stored["statusReason"] == {"text": "asked the wrong person"}
    other = await task_of(front, await asked(front))
    assert (await ada.post(response("sleep", HOURS))).status == 201
    told = await front.ask("POST", f"Task/{other['id']}/$cancel-form", reason)
    assert_outcome(told, 409, "conflict")


async def test_only_requests_for_forms_are_cancelled_by_it(front: Caller, ehr: Caller) -> None:
    await ehr.store(
        resource(
            "Task", "other", status="requested", intent="order", **{"for": reference("Patient/ada")}
        )
    )
    told = await front.ask("POST", "Task/other/$cancel-form", parameters(reason_String="x"))
    assert_outcome(told, 422, "processing")
    told = await front.ask("POST", "Task/other/$review-form", parameters(others_Code="accept"))
    assert_outcome(told, 422, "processing")


@pytest.mark.parametrize(
    "given",
    [
        {"questionnaire_Canonical": "https://forms.example/Questionnaire/unknown"},
        {"questionnaire_Canonical": "https://other.example/Questionnaire/theirs"},
        {"questionnaire_Canonical": SLEEP, "due_Date": "2020-01-01"},
        {"questionnaire_Canonical": SLEEP, "due_Date": "2031"},
        {"questionnaire_Canonical": SLEEP, "reminder_Integer": 61},
        {"questionnaire_Canonical": SLEEP, "note_String": "two\nlines"},
        {"questionnaire_Canonical": SLEEP, "answer__by_Reference": reference("Patient/bo")},
        {"questionnaire_Canonical": SLEEP, "answer__by_Reference": reference("RelatedPerson/aunt")},
        {"questionnaire_Canonical": SLEEP, "appointment_Reference": reference("Appointment/kits")},
        {"note_String": "nothing is asked for"},
    ],
)
async def test_what_is_asked_wrongly_is_refused_and_leaves_nothing(
    front: Caller, given: Json
) -> None:
    told = await asked(front, **given)
    assert told.status == 422
    assert (await front.get("Task")).ids == []


async def test_the_dashboard_counts_what_is_to_be_filled_in(front: Caller, ada: Caller) -> None:
    await asked(front, questionnaire_Canonical=SLEEP, due_Date="2030-04-01")
    await asked(front, questionnaire_Canonical=HISTORY, due_Date="2030-03-25")
    found = values(await ada.ask("POST", "Patient/ada/$portal-dashboard"))["forms-due"]
    assert (found["count"], found["due"]) == (2, "2030-03-25")
    await ada.post(history(*ILL))
    found = values(await ada.ask("POST", "Patient/ada/$portal-dashboard"))["forms-due"]
    assert (found["count"], found["due"]) == (1, "2030-04-01")
    other = Caller(front.portal, a_proxy("ada", sections=("results",)))
    told = values(await other.ask("POST", "Patient/ada/$portal-dashboard"))
    assert "forms-due" not in told


async def test_forms_are_asked_for_by_who_may(
    front: Caller, ehr: Caller, other_ehr: Caller
) -> None:
    assert (await asked(staff(front.portal, "view", "messages", "invite"))).status == 403
    assert (await asked(Caller(front.portal, oneself()))).status == 403
    assert (await asked(front.who(expires=START))).status == 403
    assert (await asked(front.with_scope("user/Patient.r user/Task.c"))).status == 403
    assert (await asked(other_ehr)).status == 404
    assert (await asked(front, patient="nobody")).status == 404
    assert (await front.get("Task")).ids == []
    assert (await asked(ehr)).status == 201


async def test_a_form_that_is_not_understood_is_asked_of_nobody(front: Caller, ehr: Caller) -> None:
    await ehr.store(
        QUESTIONNAIRES["sleep"] | {"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]}
    )
    assert_outcome(await asked(front), 422, "not-supported")
    await ehr.store(QUESTIONNAIRES["sleep"] | {"status": "retired"})
    assert_outcome(await asked(front), 422, "processing")


# ---------------------------------------------------------------- being told


async def work_off(portal: Portal, store: EmbeddedStore, clock: Clock) -> list[OutboxMessage]:
    functions = form_jobs(portal.server)
    await jobs.work_off(store, functions, worker="w", clock=clock)
    return await store.every(OutboxMessage)


@pytest.mark.requirement("portal", "S4-14")
async def test_people_are_told_reminded_and_left_alone_once_it_is_answered(
    front: Caller, ada: Caller, forms: EmbeddedStore, clock: Clock
) -> None:
    await asked(front, questionnaire_Canonical=SLEEP, due_Date="2030-03-27")
    (first,) = await work_off(front.portal, forms, clock)
    assert (first.template, first.to) == ("form-asked", "record:dermatology/Patient/ada")
    assert first.values == {}
    clock.advance(7 * 86_400)
    assert {one.template for one in await work_off(front.portal, forms, clock)} == {
        "form-asked",
        "form-reminder",
    }
    assert (await ada.post(response("sleep", HOURS))).status == 201
    clock.advance(3 * 86_400)
    assert len(await work_off(front.portal, forms, clock)) == 2
    await drop_expired(forms, clock())


# ---------------------------------------------------------------- answering


@pytest.mark.requirement("portal", "S0-48", "S2-30")
async def test_a_form_is_saved_taken_up_again_handed_in_and_stays_to_be_read(
    front: Caller, ada: Caller
) -> None:
    task = await task_of(
        front, await asked(front, questionnaire_Canonical=SLEEP, due_Date="2030-04-01")
    )
    begun = await ada.post(response("sleep", answer("naps", YES), status="in-progress"))
    assert begun.status == 201
    stored = (await ada.get(f"Task/{task['id']}")).json
    assert stored["status"] == "in-progress"
    found = await ada.get("QuestionnaireResponse?status=in-progress&patient=Patient/ada")
    (mine,) = found.entries
    mine["item"] = [HOURS, *mine["item"]]
    done = await ada.put(mine | {"status": "completed"})
    assert done.status == 200
    stored = (await front.get(f"Task/{task['id']}")).json
    assert stored["status"] == "completed"
    assert stored["output"][0]["valueReference"] == {
        "reference": f"QuestionnaireResponse/{mine['id']}"
    }
    assert (await ada.get(f"QuestionnaireResponse/{mine['id']}")).json["status"] == "completed"
    assert (await ada.get("Questionnaire/sleep")).status == 200
    (provenance,) = (await ada.get(f"Provenance?target=QuestionnaireResponse/{mine['id']}")).entries
    assert provenance["agent"][0]["who"] == {"reference": "Patient/ada"}


@pytest.mark.requirement("portal", "S0-48")
async def test_a_form_that_a_proxy_answers_says_so(front: Caller) -> None:
    await asked(front, "kit")
    mother = Caller(front.portal, a_proxy(sections=("forms",), act=("forms",)))
    own: Json = {"subject": reference("Patient/kit"), "source": reference("RelatedPerson/mother")}
    done = await mother.post(response("sleep", HOURS, **own))
    assert done.status == 201
    assert done.json["source"] == {"reference": "RelatedPerson/mother"}
    (task,) = (await mother.get("Task")).entries
    assert task["status"] == "completed"
    (said,) = (
        await mother.get(f"Provenance?target=QuestionnaireResponse/{done.json['id']}")
    ).entries
    assert said["agent"][0]["who"] == {"reference": "RelatedPerson/mother"}
    assert said["agent"][0]["onBehalfOf"] == {"reference": "Patient/kit"}


async def test_who_is_not_asked_does_not_answer(front: Caller, ehr: Caller) -> None:
    await ehr.store(a_related_person("mother", of="kit"))
    told = await asked(
        front,
        "kit",
        questionnaire_Canonical=SLEEP,
        answer__by_Reference=reference("RelatedPerson/aunt"),
    )
    assert told.status == 201
    # Of those who act for Kit, one does not learn by the Task who the others are.
    seen = Caller(front.portal, a_proxy(sections=("forms",)))
    assert b"RelatedPerson" not in (await seen.get("Task")).body
    may: Json = {"sections": ("forms",), "act": ("forms",)}
    for who, status in (("mother", 422), ("aunt", 201)):
        proxy = Caller(front.portal, a_proxy(related_person=who, **may))
        own: Json = {
            "subject": reference("Patient/kit"),
            "source": reference(f"RelatedPerson/{who}"),
        }
        for state in ("in-progress", "completed"):
            assert (
                await proxy.post(response("sleep", HOURS, status=state, **own))
            ).status == status


async def test_what_is_asked_of_the_patient_alone_stays_theirs(front: Caller, ada: Caller) -> None:
    """A teenager's form, its answers and what becomes of them are no parent's."""
    told = await asked(
        front, questionnaire_Canonical=HISTORY, answer__by_Reference=reference("Patient/ada")
    )
    assert told.status == 201
    parent = Caller(
        front.portal,
        a_proxy("ada", sections=("forms", "health-summary"), act=("forms",)),
    )
    assert (await parent.get("Task")).ids == []
    assert (await parent.get("Questionnaire")).ids == []
    begun_now = await ada.post(history(status="in-progress"))
    done = await ada.put(begun_now.json | {"status": "completed", "item": history(*ILL)["item"]})
    assert done.status == 200
    (review,) = (await front.get("Task?code=review-answers")).entries
    path = f"Task/{review['id']}/$review-form"
    assert (await front.ask("POST", path, decide(others_Code="accept"))).status == 200
    for name in ("QuestionnaireResponse", "Condition", "Task", "Provenance"):
        assert (await parent.get(name)).ids == [], name
        assert (await ada.get(name)).ids, name
    amended = await ada.put(done.json | {"status": "amended"})
    assert amended.json["meta"]["security"][0]["code"] == "R"
    assert (await parent.get("QuestionnaireResponse")).ids == []


async def test_an_ehr_does_what_a_request_asks_and_proposes_nothing(
    front: Caller, ehr: Caller
) -> None:
    task = await task_of(front, await asked(front, questionnaire_Canonical=HISTORY))
    assert (await ehr.post(history(*ILL))).status == 201
    assert (await front.get(f"Task/{task['id']}")).json["status"] == "completed"
    assert (await front.get("Task?code=review-answers")).ids == []


# ---------------------------------------------------------------- populating


async def begun(caller: Caller, name: str, patient: str = "ada", **more: Any) -> Answer:
    tree = parameters(subject_Reference=reference(f"Patient/{patient}"), **more)
    return await caller.ask("POST", f"Questionnaire/{name}/$populate", tree)


def answers_in(tree: Json) -> dict[str, Any]:
    """Answers by linkId, wherever they stand."""
    found: dict[str, Any] = {}
    for one in tree.get("item", []):
        for given in one.get("answer", []):
            found[one["linkId"]] = next(v for n, v in given.items() if n.startswith("value"))
        found |= answers_in(one)
    return found


@pytest.mark.requirement("portal", "S0-35")
async def test_a_pre_registration_begins_with_what_is_on_file_and_changes_what_is_accepted(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    told = await asked(
        front, questionnaire_Canonical=PRE, appointment_Reference=reference("Appointment/visit")
    )
    task = await task_of(front, told)
    assert task["code"]["coding"][0]["code"] == "pre-register"
    assert task["focus"] == {"reference": "Appointment/visit"}
    tree = values(await begun(ada, "pre-registration"))["response"]
    known = answers_in(tree)
    assert known["family"] == "Quill"
    assert (known["mobile-value"], known["mail-value"]) == (PHONE["value"], MAIL["value"])
    assert known["postal-code"] == "60614"
    # The patient corrects only what changed.
    (about,) = [one for one in tree["item"] if one["linkId"] == "about-you"]
    for one in about["item"]:
        if one["linkId"] == "address":
            one["item"] = [i for i in one["item"] if i["linkId"] != "line"] + [
                answer("line", text("99 Oak"))
            ]
        if one["linkId"] == "mobile":
            one["item"] = [answer("mobile-value", text("+13125550100"))]
    tree["item"] += [
        answer("has-insurance", YES),
        group("insurance", answer("plan", text("Tarn Health")), answer("member-id", text("M-1"))),
    ]
    handed = await ada.post(tree | {"status": "completed"})
    assert handed.status == 201, handed.body
    (review,) = (await front.get("Task?code=review-answers&status=requested")).entries
    proposed = {one["resourceType"]: one for one in review["contained"]}
    assert set(proposed) == {"Patient", "Coverage"}
    assert set(proposed["Patient"]) == {"resourceType", "id", "telecom", "address"}
    before = (await ehr.get("Patient/ada")).json
    assert before["address"] == [ADDRESS]
    decision = [
        {"name": "proposal", "valueString": proposed["Patient"]["id"]},
        {"name": "action", "valueCode": "accept"},
        {"name": "field", "valueString": "telecom"},
    ]
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "decision", "part": decision},
            {"name": "others", "valueCode": "accept"},
        ],
    }
    done = await front.ask("POST", f"Task/{review['id']}/$review-form", body)
    assert done.status == 200, done.body
    assert count(done, "accepted") == 2
    after = (await ehr.get("Patient/ada")).json
    assert [one["value"] for one in after["telecom"]] == ["+13125550100", MAIL["value"]]
    assert after["address"] == [ADDRESS]  # not accepted
    (coverage,) = (await ehr.get("Coverage?beneficiary=Patient/ada")).entries
    assert coverage["subscriberId"] == "M-1"
    assert coverage["payor"] == [{"display": "Tarn Health"}]


@pytest.mark.requirement("portal", "S1-30")
async def test_answers_are_carried_forward(front: Caller, ada: Caller) -> None:
    await asked(front, questionnaire_Canonical=HISTORY)
    assert (await ada.post(history(*ILL))).status == 201
    known = answers_in(values(await begun(ada, "medical-history"))["response"])
    assert known["problem-what"] == "Hay fever"
    assert known["medicine-how"] == "One in the evening"
    fresh = values(await begun(ada, "medical-history", carry__forward_Boolean=False))["response"]
    assert answers_in(fresh) == {}


async def test_calculated_answers_are_filled_in(front: Caller, ehr: Caller) -> None:
    smokes = group(
        "smoking",
        answer("smokes", YES),
        answer("packs", {"valueDecimal": 0.5}),
        answer("years", {"valueInteger": 10}),
    )
    assert (await ehr.post(history(smokes, authored="2030-01-01"))).status == 201
    known = answers_in(values(await begun(front, "medical-history"))["response"])
    assert known["pack-years"] == 5


async def test_nothing_is_filled_in_of_what_the_caller_may_not_see(
    front: Caller, ehr: Caller
) -> None:
    await asked(front, "kit", questionnaire_Canonical=PRE)
    await ehr.store(
        resource("Coverage", "c", status="active", beneficiary=reference("Patient/kit"),
                 payor=[{"display": "Tarn"}], subscriberId="SECRET"),
    )  # fmt: skip
    proxy = Caller(front.portal, a_proxy(sections=("forms",), act=("forms",)))
    told = values(await begun(proxy, "pre-registration", "kit"))["response"]
    assert answers_in(told) == {}
    seeing = Caller(front.portal, a_proxy(sections=("forms", "demographics"), act=("forms",)))
    assert "birth-date" in answers_in(
        values(await begun(seeing, "pre-registration", "kit"))["response"]
    )
    for caller, patient in ((proxy, "ada"), (proxy, "nobody"), (front, "nobody")):
        assert (await begun(caller, "pre-registration", patient)).status == 404
    # A form that was not asked for is not known, nor is another practice's.
    for name in ("insurance", "smoking", "nothing"):
        assert (await begun(proxy, name, "kit")).status == 404


async def test_a_narrower_scope_fills_in_less(front: Caller, ada: Caller) -> None:
    await asked(front, questionnaire_Canonical=PRE)
    forms_only = "patient/Questionnaire.r patient/QuestionnaireResponse.r patient/Task.r"
    told = await begun(ada.with_scope(forms_only), "pre-registration")
    assert answers_in(values(told)["response"]) == {}
    assert (
        await begun(ada.with_scope("patient/Questionnaire.r"), "pre-registration")
    ).status == 403
    assert (await begun(ada.who(expires=START), "pre-registration")).status == 403
    reading = Caller(front.portal, a_proxy("ada", sections=("results",), act=("results",)))
    assert (await begun(reading, "pre-registration")).status == 403


# ---------------------------------------------------------------- deciding


async def review_of(front: Caller, ada: Caller, tree: Json | None = None) -> Json:
    handed = await ada.post(tree or history(*ILL))
    assert handed.status == 201, handed.body
    (found,) = (await front.get("Task?code=review-answers&status=requested")).entries
    return found


def decide(*decisions: Json, **more: Any) -> Json:
    tree = parameters(**more)
    for one in decisions:
        parts = [{"name": name, **value} for name, value in one.items()]
        tree["parameter"].append({"name": "decision", "part": parts})
    return tree


@pytest.mark.requirement("portal", "S1-30")
async def test_a_history_becomes_part_of_the_record_when_staff_accept_it(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    review = await review_of(front, ada)
    kinds = sorted(one["resourceType"] for one in review["contained"])
    assert kinds == [
        "AllergyIntolerance",
        "Condition",
        "FamilyMemberHistory",
        "MedicationStatement",
    ]
    for name in kinds:
        assert (await ehr.get(f"{name}?patient=Patient/ada")).ids == []
    path = f"Task/{review['id']}/$review-form"
    told = await front.ask(
        "POST", path, decide(others_Code="accept", reason_String="talked it over")
    )
    assert told.status == 200, told.body
    assert out(told, "status") == "completed"
    (condition,) = (await ehr.get("Condition?patient=Patient/ada")).entries
    assert condition["code"]["text"] == "Hay fever"
    assert condition["onsetString"] == "2010"
    assert condition["asserter"] == {"reference": "Patient/ada"}
    assert condition["meta"]["tag"][0]["code"] == "patient-reported"
    (allergy,) = (await ehr.get("AllergyIntolerance?patient=Patient/ada")).entries
    # The code came without its words: those of the form stand there.
    assert allergy["code"]["coding"] == [PENICILLIN["valueCoding"] | {"display": "Penicillin"}]
    assert allergy["reaction"][0]["manifestation"] == [{"text": "A rash"}]
    (medicine,) = (await ehr.get("MedicationStatement?patient=Patient/ada")).entries
    assert medicine["medicationCodeableConcept"] == {"text": "Cetirizine"}
    assert medicine["dosage"] == [{"text": "One in the evening"}]
    (relative,) = (await ehr.get("FamilyMemberHistory?patient=Patient/ada")).entries
    assert relative["condition"][0]["code"] == {"text": "Asthma"}
    # Who said so, who accepted it, and in which answers: to be read by the patient.
    (said,) = (await ada.get(f"Provenance?target=Condition/{condition['id']}")).entries
    assert [one["who"]["reference"].partition("/")[0] for one in said["agent"]] == [
        "Patient",
        "Practitioner",
    ]
    assert said["entity"][0]["what"] == review["focus"]
    # Sent again it is refused, and nothing is there twice.
    assert_outcome(await front.ask("POST", path, decide(others_Code="accept")), 409, "conflict")
    assert len((await ehr.get("Condition?patient=Patient/ada")).ids) == 1


async def test_each_proposal_is_decided_about_and_can_be_changed(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    review = await review_of(front, ada)
    by_type = {one["resourceType"]: one["id"] for one in review["contained"]}
    path = f"Task/{review['id']}/$review-form"

    def one(kind: str, action: str, made: Json | None = None) -> Json:
        found: Json = {
            "proposal": {"valueString": by_type.get(kind, kind)},
            "action": {"valueCode": action},
        }
        return found | ({"resource": {"resource": made}} if made else {})

    other = a_condition(None, of="kit", code="21719001", asserter=reference("Practitioner/x"))
    wrong: list[Json] = [
        decide(),
        decide(one("Condition", "accept")),
        decide(one("Condition", "perhaps"), others_Code="accept"),
        decide(one("Condition", "accept"), one("Condition", "refuse"), others_Code="accept"),
        decide(one("Condition", "refuse", other), others_Code="accept"),
        decide(one("Condition", "accept", a_patient(None)), others_Code="accept"),
        decide(
            {"proposal": {"valueString": "p99"}, "action": {"valueCode": "accept"}},
            others_Code="accept",
        ),
        decide(others_Code="delete"),
    ]
    for body in wrong:
        assert (await front.ask("POST", path, body)).status in {400, 422}
    assert (await ehr.get("AllergyIntolerance?patient=Patient/ada")).ids == []
    told = await front.ask(
        "POST", path, decide(one("Condition", "accept", other), others_Code="refuse")
    )
    assert told.status == 200, told.body
    # Whatever stands in its place is about this patient, by whom it was said.
    assert (await ehr.get("Condition?patient=Patient/kit")).ids == []
    (made,) = (await ehr.get("Condition?patient=Patient/ada")).entries
    assert made["code"]["coding"][0]["code"] == "21719001"
    assert made["asserter"] == {"reference": "Patient/ada"}
    assert (await ehr.get("AllergyIntolerance?patient=Patient/ada")).ids == []


async def test_a_change_by_the_ehr_meanwhile_is_not_overwritten(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    await asked(front, questionnaire_Canonical=PRE)
    tree = values(await begun(ada, "pre-registration"))["response"]
    (about,) = [one for one in tree["item"] if one["linkId"] == "about-you"]
    (mobile,) = [one for one in about["item"] if one["linkId"] == "mobile"]
    mobile["item"] = [answer("mobile-value", text("+13125550100"))]
    tree["item"].append(answer("has-insurance", NO))
    review = await review_of(front, ada, tree | {"status": "completed"})
    newer = (await ehr.get("Patient/ada")).json
    newer["telecom"] = [PHONE | {"value": "+13125550177"}]
    await ehr.store(newer)
    path = f"Task/{review['id']}/$review-form"
    assert_outcome(await front.ask("POST", path, decide(others_Code="accept")), 412, "conflict")
    assert (await ehr.get("Patient/ada")).json["telecom"][0]["value"] == "+13125550177"
    assert (await front.get(f"Task/{review['id']}")).json["status"] == "requested"
    version = (await ehr.get("Patient/ada")).json["meta"]["versionId"]
    told = await front.ask("POST", path, decide(others_Code="accept", version_String=version))
    assert told.status == 200
    assert (await ehr.get("Patient/ada")).json["telecom"][0]["value"] == "+13125550100"


async def test_only_staff_with_forms_and_an_ehr_decide(
    front: Caller, ada: Caller, ehr: Caller, other_ehr: Caller
) -> None:
    review = await review_of(front, ada)
    path = f"Task/{review['id']}/$review-form"
    body = decide(others_Code="accept")
    for caller, status in (
        (ada, 403),
        (Caller(front.portal, a_proxy("ada", sections=("forms",), act=("forms",))), 403),
        (staff(front.portal, "view", "documents", "messages"), 403),
        (front.who(expires=START), 403),
        (front.with_scope("user/Task.r"), 403),
        (other_ehr, 404),
    ):
        assert (await caller.ask("POST", path, body)).status == status
    assert (await ehr.get("Condition?patient=Patient/ada")).ids == []
    # What is proposed about the Patient shows more than a form: no proxy sees the Task.
    proxy = Caller(front.portal, a_proxy("ada", sections=("forms",), act=("forms",)))
    assert (await proxy.get(f"Task/{review['id']}")).status == 404
    assert (await ada.get(f"Task/{review['id']}")).status == 200
    assert (await ehr.ask("POST", path, body)).status == 200


async def test_amended_answers_take_the_place_of_what_nobody_decided_about(
    front: Caller, ada: Caller
) -> None:
    first = await review_of(front, ada)
    key = first["focus"]["reference"]
    stored = (await ada.get(key)).json
    assert (await ada.put(stored | {"status": "amended"})).status == 200
    (same,) = (await front.get("Task?code=review-answers&status=requested")).entries
    assert same["id"] == first["id"]
    stored["item"] = history(*ILL[:2])["item"]
    assert (await ada.put(stored | {"status": "amended"})).status == 200
    (second,) = (await front.get("Task?code=review-answers&status=requested")).entries
    assert second["id"] != first["id"]
    assert [one["resourceType"] for one in second["contained"]] == ["Condition"]
    assert (await front.get(f"Task/{first['id']}")).json["status"] == "cancelled"


async def test_what_is_extracted_twice_is_one_thing_to_decide_about(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    review = await review_of(front, ada)
    path = f"{review['focus']['reference']}/$extract"
    for caller in (front, ehr):
        found = values(await caller.ask("POST", path))
        assert found["review"] == {"reference": f"Task/{review['id']}"}
        assert found["return"]["type"] == "transaction"
        assert len(found["return"]["entry"]) == 4
    assert (await ada.ask("POST", path)).status == 403
    open_one = await ada.post(history(status="in-progress"))
    told = await front.ask("POST", f"QuestionnaireResponse/{open_one.json['id']}/$extract")
    assert_outcome(told, 422, "processing")


async def test_a_forged_task_is_about_nobody_but_whose_answers_it_names(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    review = await review_of(front, ada)
    forged = {name: value for name, value in review.items() if name not in {"id", "meta"}}
    forged |= {"id": "forged", "for": reference("Patient/kit")}
    await ehr.store(forged)
    told = await front.ask("POST", "Task/forged/$review-form", decide(others_Code="accept"))
    assert_outcome(told, 409, "conflict")
    assert (await ehr.get("Condition?patient=Patient/kit")).ids == []


@pytest.mark.parametrize(
    "left_out", ["for", "focus", "reference of for", "reference of focus", "another type"]
)
async def test_a_task_that_names_no_patient_or_no_answers_decides_nothing(
    front: Caller, ada: Caller, ehr: Caller, left_out: str
) -> None:
    """An EHR may store whatever R4 lets it: that is no fault of this server's."""
    review = await review_of(front, ada)
    odd = {name: value for name, value in review.items() if name not in {"id", "meta"}}
    name = left_out.rpartition(" ")[2]
    if left_out == "another type":
        odd["focus"] = reference("Patient/ada")
    elif left_out == name:
        del odd[name]
    else:
        odd[name] = {"display": "somebody"}
    await ehr.store(odd | {"id": "odd"})
    told = await ehr.ask("POST", "Task/odd/$review-form", decide(others_Code="accept"))
    assert_outcome(told, 422, "processing")
    assert (await ehr.get("Condition?patient=Patient/ada")).ids == []


async def test_what_is_accepted_is_no_less_hidden_than_the_answers(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    """Answers that the practice withholds meanwhile do not come to sight as a Condition."""
    review = await review_of(front, ada)
    answers = (await ehr.get(review["focus"]["reference"])).json
    await ehr.store(answers | {"meta": WITHHELD})
    path = f"Task/{review['id']}/$review-form"
    assert (await ehr.ask("POST", path, decide(others_Code="accept"))).status == 200
    (made,) = (await ehr.get("Condition?patient=Patient/ada")).entries
    codes = {one["code"] for one in made["meta"]["tag"]}
    assert {"withheld", "patient-reported"} <= codes
    assert (await ada.get("Condition")).ids == []


async def test_a_grant_that_has_ended_answers_nothing(front: Caller) -> None:
    await asked(front, "kit")
    mother = a_proxy(sections=("forms",), act=("forms",))
    ended = Caller(front.portal, replace(mother, record=replace(mother.record, until=START)))  # type: ignore[type-var]
    own: Json = {"subject": reference("Patient/kit"), "source": reference("RelatedPerson/mother")}
    assert (await ended.post(response("sleep", HOURS, **own))).status == 403
    assert (await begun(ended, "sleep", "kit")).status == 403


async def test_the_form_of_another_practice_is_of_no_use(front: Caller, other_ehr: Caller) -> None:
    await other_ehr.store(a_patient("ada-f"))
    elsewhere = Caller(front.portal, oneself("ada-f", FAMILY))
    assert (await begun(elsewhere, "sleep", "ada-f")).status == 404
    assert (await asked(other_ehr, "ada-f")).status == 422


# ---------------------------------------------------------------- at once, and written down


async def test_of_many_who_decide_at_once_one_does(front: Caller, ada: Caller, ehr: Caller) -> None:
    review = await review_of(front, ada)
    path, body = f"Task/{review['id']}/$review-form", decide(others_Code="accept")
    told = await asyncio.gather(*(front.ask("POST", path, body) for _ in range(10)))
    assert sorted(one.status for one in told) == [200, *[409] * 9]
    for name in ("Condition", "AllergyIntolerance", "MedicationStatement"):
        assert len((await ehr.get(f"{name}?patient=Patient/ada")).ids) == 1


async def test_asked_many_times_at_once_it_is_asked_once(front: Caller) -> None:
    told = await asyncio.gather(*(asked(front) for _ in range(10)))
    assert sorted(one.status for one in told) == [*[200] * 9, 201]
    assert len((await front.get("Task")).ids) == 1


async def test_what_is_done_is_in_the_log_of_the_record_and_has_its_provenance(
    front: Caller, ada: Caller, forms: EmbeddedStore
) -> None:
    task = await task_of(front, await asked(front, questionnaire_Canonical=HISTORY))
    (made,) = (await front.get(f"Provenance?target=Task/{task['id']}")).entries
    assert made["agent"][0]["who"]["reference"].startswith("Practitioner/")
    await begun(ada, "medical-history")
    review = await review_of(front, ada)
    await front.ask("POST", f"Task/{review['id']}/$review-form", decide(others_Code="accept"))
    rows = await forms.log.of_record(
        "dermatology", "ada", agent=None, told=False, low=0, high=2**62, before=None, limit=100
    )
    assert {"$request-form", "$populate", "$review-form", "create"} <= {
        one.row.interaction for one in rows
    }
