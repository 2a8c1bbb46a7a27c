"""Forms under attack: what confidence, labels, changes meanwhile and odd forms must not lead to."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import Job
from fhir_portal.operations.form_request import REMIND
from tests.builders import (
    BASE,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_binary,
    a_condition,
    a_document,
    a_proxy,
    assert_outcome,
    oneself,
    reference,
)
from tests.operations.holding import values
from tests.operations.test_forms import (
    HOURS,
    ILL,
    SLEEP,
    answers_in,
    asked,
    begun,
    decide,
    forms,
    front,
    history,
    review_of,
    task_of,
    work_off,
)
from tests.resources.forms.twenty import SDC, answer, form, item, response, text

__all__ = ["forms", "front"]
RESTRICTED = {
    "security": [
        {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    ]
}
NIGHT: Json = {"linkId": "hours", "answer": [{"valueDecimal": 3}]}


@pytest.fixture
def kit(front: Caller) -> Caller:
    return Caller(front.portal, oneself("kit"))


@pytest.fixture
def mother(front: Caller) -> Caller:
    return Caller(front.portal, a_proxy(sections=("forms", "health-summary"), act=("forms",)))


def slept(by: str = "Patient/kit", **more: Any) -> Json:
    own: Json = {"subject": reference("Patient/kit"), "source": reference(by)}
    return response("sleep", HOURS, **own, **more)


async def in_confidence(front: Caller) -> Json:
    """Ask Kit alone; return the Task."""
    told = await asked(
        front,
        "kit",
        questionnaire_Canonical=SLEEP,
        answer__by_Reference=reference("Patient/kit"),
    )
    assert told.status == 201
    return await task_of(front, told)


async def hours_known(caller: Caller) -> Any:
    told = values(await begun(caller, "sleep", "kit"))["response"]
    return answers_in(told).get("hours")


# ---------------------------------------------------------------- in confidence


async def test_what_was_answered_in_confidence_is_not_carried_into_an_open_form(
    front: Caller, kit: Caller, mother: Caller
) -> None:
    """Else a parent reads in the next form what the last one kept from them."""
    await in_confidence(front)
    assert (await kit.post(slept(item=[NIGHT]))).status == 201
    assert (await asked(front, "kit")).status == 201
    assert await hours_known(kit) is None
    # Asked in confidence again, it begins with what was said in confidence.
    await in_confidence(front)
    assert await hours_known(kit) == 3
    assert await hours_known(mother) is None


async def test_what_is_confidential_in_the_record_is_not_filled_in_for_others_to_read(
    front: Caller, kit: Caller, ehr: Caller
) -> None:
    query = {
        "url": "http://hl7.org/fhir/StructureDefinition/variable",
        "valueExpression": {
            "name": "problems",
            "language": "application/x-fhir-query",
            "expression": "Condition?patient={{%patient.id}}",
        },
    }
    first = {
        "url": f"{SDC}initialExpression",
        "valueExpression": {
            "language": "text/fhirpath",
            "expression": "%problems.entry.resource.code.text",
        },
    }
    asks = form("asks", item("what", "string", repeats=True, ext=[first]), extension=[query])
    await ehr.store(
        asks,
        a_condition("cold", of="kit") | {"code": {"text": "A cold"}},
        a_condition("secret", of="kit", meta=RESTRICTED) | {"code": {"text": "Something else"}},
    )
    assert len((await kit.get("Condition")).ids) == 2
    assert (await asked(front, "kit", questionnaire_Canonical=asks["url"])).status == 201
    for caller in (kit, front, ehr):
        told = values(await begun(caller, "asks", "kit"))["response"]
        assert [one["answer"] for one in told["item"]] == [[text("A cold")]]


async def test_a_proxy_does_not_learn_that_the_patient_is_asked_in_confidence(
    front: Caller, kit: Caller, mother: Caller
) -> None:
    """What they are told is the same with and without it, and what it asks stays undone."""
    assert (await asked(front, "kit")).status == 201
    by = "RelatedPerson/mother"
    before = await mother.post(slept(by))
    task = await in_confidence(front)
    after = await mother.post(slept(by))
    assert (before.status, after.status) == (201, 201)
    assert "security" not in after.json["meta"]
    assert (await mother.get(f"QuestionnaireResponse/{after.json['id']}")).status == 200
    assert (await kit.get(f"Task/{task['id']}")).json["status"] == "requested"
    # Nor by a second request for all beside it, which her answers do.
    await asked(front, "kit")
    assert (await mother.post(slept(by))).status == 201
    assert [one["status"] for one in (await mother.get("Task?status=requested")).entries] == []
    assert (await kit.get(f"Task/{task['id']}")).json["status"] == "requested"
    mine = await kit.post(slept())
    assert mine.json["meta"]["security"][0]["code"] == "R"
    assert (await kit.get(f"Task/{task['id']}")).json["status"] == "completed"


async def test_a_request_that_is_withheld_is_answered_by_nobody_who_does_not_see_it(
    front: Caller, kit: Caller, ehr: Caller
) -> None:
    told = await asked(front, "kit")
    task = await task_of(front, told)
    await ehr.store(task | {"meta": WITHHELD})
    assert (await kit.post(slept())).status == 201
    assert (await ehr.get(f"Task/{task['id']}")).json["status"] == "requested"


# ---------------------------------------------------------------- changed meanwhile


async def waiting(front: Caller) -> list[Json]:
    return (await front.get("Task?code=review-answers&status=requested")).entries


@pytest.mark.parametrize("how", ["entered-in-error", "other answers", "deleted"])
async def test_nobody_accepts_answers_that_the_ehr_took_back(
    front: Caller, ada: Caller, ehr: Caller, how: str
) -> None:
    review = await review_of(front, ada)
    stored = (await ehr.get(review["focus"]["reference"])).json
    if how == "deleted":
        told = await ehr.ask("DELETE", review["focus"]["reference"])
        assert told.status in {200, 204}
    elif how == "other answers":
        assert (await ehr.put(stored | {"item": history()["item"]})).status == 200
    else:
        assert (await ehr.put(stored | {"status": how})).status == 200
    path = f"Task/{review['id']}/$review-form"
    told = await front.ask("POST", path, decide(others_Code="accept"))
    assert_outcome(told, 409, "conflict")
    assert (await ehr.get("Condition?patient=Patient/ada")).ids == []
    if how == "deleted":  # it can be refused, and is over
        assert (await front.ask("POST", path, decide(others_Code="refuse"))).status == 200
    assert await waiting(front) == []


async def test_a_label_that_the_ehr_puts_on_answers_ends_no_review(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    review = await review_of(front, ada)
    stored = (await ehr.get(review["focus"]["reference"])).json
    assert (await ehr.put(stored | {"meta": RESTRICTED})).status == 200
    assert [one["id"] for one in await waiting(front)] == [review["id"]]


async def test_amended_answers_of_a_form_that_proposes_nothing_now_leave_nothing_to_accept(
    front: Caller, ada: Caller, ehr: Caller
) -> None:
    review = await review_of(front, ada)
    shipped = (await ehr.get("Questionnaire/medical-history")).json

    def plain(tree: Any) -> Any:
        if isinstance(tree, list):
            return [plain(one) for one in tree]
        if not isinstance(tree, dict):
            return tree
        kept = {name: plain(value) for name, value in tree.items() if name != "definition"}
        kept["extension"] = [one for one in tree.get("extension", ()) if "xtract" not in one["url"]]
        return {name: value for name, value in kept.items() if value != []}

    del shipped["contained"]
    assert (await ehr.put(plain(shipped))).status == 200
    stored = (await ada.get(review["focus"]["reference"])).json
    amended = stored | {"status": "amended", "item": history(*ILL[:2])["item"]}
    assert (await ada.put(amended)).status == 200
    assert await waiting(front) == []


async def test_what_waits_is_not_lost_because_much_waits(
    front: Caller, ada: Caller, ehr: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.resources.forms.handing_in._MOST_WAITING", 2)
    for _ in range(3):
        assert (await ada.post(history(*ILL))).status == 201
    before = await waiting(front)
    assert len(before) == 2
    for review in before:
        told = await ehr.ask("POST", f"{review['focus']['reference']}/$extract")
        assert values(told)["review"]["reference"] == f"Task/{review['id']}"
        stored = (await ada.get(review["focus"]["reference"])).json
        changed = stored | {"status": "amended", "item": history(*ILL[:2])["item"]}
        assert (await ada.put(changed)).status == 200
    assert len(await waiting(front)) == 2


# ---------------------------------------------------------------- odd forms


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "Nonsense?patient={{%patient.id}}",
        "Patient",
        "Binary?_id=x",
        "AuditEvent?patient={{%patient.id}}",
        "Observation?subject:Patient.name=x",
        "Observation?_has:Provenance:target:agent=x",
        "Condition?patient=Patient/ada&_include=Condition:subject",
        "Condition?patient=Patient/ada",
        "Questionnaire?url=x",
        "http://elsewhere.example/Condition?patient=1",
        "Condition?" + "a=b&" * 500,
    ],
)
async def test_a_query_in_a_form_finds_nothing_of_anybody_else(
    front: Caller, kit: Caller, ehr: Caller, query: str
) -> None:
    variable = {
        "url": "http://hl7.org/fhir/StructureDefinition/variable",
        "valueExpression": {
            "name": "found",
            "language": "application/x-fhir-query",
            "expression": query or " ",
        },
    }
    first = {
        "url": f"{SDC}initialExpression",
        "valueExpression": {
            "language": "text/fhirpath",
            "expression": "%found.entry.resource.code.text",
        },
    }
    asks = form("asks", item("what", "string", ext=[first]), extension=[variable])
    await ehr.store(asks, a_condition("hers", of="ada") | {"code": {"text": "Hers"}})
    assert (await asked(front, "kit", questionnaire_Canonical=asks["url"])).status == 201
    for caller in (kit, front, ehr):
        told = await begun(caller, "asks", "kit")
        assert told.status == 200
        assert b"Hers" not in told.body


async def test_answers_name_no_file_but_their_own(front: Caller, kit: Caller, ehr: Caller) -> None:
    """An attachment by address could make another record's file seem to be of this one."""
    await ehr.store(form("files", item("file", "attachment")))
    assert (await asked(front, "kit", questionnaire_Canonical=form("files")["url"])).status == 201
    for value in (
        {"contentType": "text/plain", "url": "Binary/hers"},
        {"contentType": "text/plain", "data": "eA==", "url": "Binary/hers"},
        {"contentType": "text/html", "data": "PHA+"},
    ):
        tree = response(
            "files",
            answer("file", {"valueAttachment": value}),
            subject=reference("Patient/kit"),
            source=reference("Patient/kit"),
        )
        assert (await kit.post(tree)).status == 422


async def test_nobody_is_reminded_of_a_request_that_is_nobodys(
    front: Caller, ehr: Caller, forms: EmbeddedStore, clock: Clock
) -> None:
    task = await task_of(front, await asked(front))
    del task["for"]
    assert (await ehr.put(task)).status == 200
    assert await work_off(front.portal, forms, clock) == []
    (job,) = [one for one in await forms.every(Job) if one.name == REMIND]
    assert job.state == "done"


@pytest.mark.parametrize("path", ["Patient.photo.url", "Coverage.extension.valueAttachment.url"])
async def test_what_is_typed_into_a_form_leads_to_no_file(
    front: Caller, kit: Caller, ehr: Caller, path: str
) -> None:
    """Else what staff are to decide about would be of the file's record, too, and take it away."""
    await ehr.store(a_binary("hers"), a_document("hers", of="ada", binary="hers"))
    ada = Caller(front.portal, oneself("ada"))
    assert (await ada.get("Binary/hers")).status == 200
    name = path.partition(".")[0]
    takes = {"url": f"{SDC}itemExtractionContext", "valueCode": name}
    element = f"http://hl7.org/fhir/StructureDefinition/{name}#{path}"
    tree = form("odd", item("where", "url", definition=element), extension=[takes])
    await ehr.store(tree)
    assert (await asked(front, "kit", questionnaire_Canonical=tree["url"])).status == 201
    own: Json = {"subject": reference("Patient/kit"), "source": reference("Patient/kit")}
    for typed in ("Binary/hers", f"{BASE}/Binary/hers"):
        said = response("odd", answer("where", {"valueUri": typed}), **own)
        assert (await kit.post(said)).status == 201
        assert (await ada.get("Binary/hers")).status == 200, typed
