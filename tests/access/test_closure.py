"""Labels close over references: each edge, in whatever order, added, moved and taken away."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from fhir_portal.access import classify, closure
from fhir_portal.access.closure import BOTH_WAYS, conveying
from fhir_portal.access.owners import DIRECTORY, OWNERS
from fhir_portal.fhir.definitions import served_types
from tests.access.test_classify import NORMAL as UNLABELLED
from tests.access.test_classify import facts
from tests.builders import (
    RESTRICTED,
    WITHHELD,
    Caller,
    Json,
    a_binary,
    a_communication,
    a_condition,
    a_document,
    a_grant,
    a_patient,
    a_practitioner,
    a_provenance,
    a_proxy,
    a_related_person,
    a_task,
    an_appointment,
    an_encounter,
    an_invoice,
    an_observation,
    concept,
    reference,
    resource,
    some_answers,
)

NORMAL = UNLABELLED | {"tag": [{"system": "https://tags.example", "code": "open"}]}
"""Says something of both, so that neither stays."""
ADA = reference("Patient/ada")
VISIT = reference("Encounter/visit")
CODE = concept("http://snomed.info/sct", "38341003")


def _order(**more: Any) -> Json:
    return resource("ServiceRequest", "s", status="active", intent="order", subject=ADA, **more)


def _report(**more: Any) -> Json:
    return resource("DiagnosticReport", "s", status="final", code=CODE, subject=ADA, **more)


def _prescription(**more: Any) -> Json:
    return resource(
        "MedicationRequest", "s", status="active", intent="order",
        medicationCodeableConcept=CODE, subject=ADA, **more,
    )  # fmt: skip


def _claim(**more: Any) -> Json:
    return resource(
        "ExplanationOfBenefit", "s", status="active", use="claim", outcome="complete",
        type=CODE, patient=ADA, created="2030-01-01",
        insurer=reference("Organization/payer"), provider=reference("Organization/house"),
        insurance=[{"focal": True, "coverage": {"display": "plan"}}], **more,
    )  # fmt: skip


def _composition(**more: Any) -> Json:
    return resource(
        "Composition", "s", status="final", type=CODE, subject=ADA, date="2030-01-01",
        author=[{"display": "the practice"}], title="Note", **more,
    )  # fmt: skip


_ITEM = {"sequence": 1, "productOrService": CODE}
_LINK = {"linkId": "a", "answer": [{"valueReference": VISIT}]}

SHADOWS: dict[str, Json] = {
    "Observation.encounter": an_observation("s", encounter=VISIT),
    "Observation.hasMember": an_observation("s", hasMember=[reference("Observation/target")]),
    "Observation.derivedFrom": an_observation("s", derivedFrom=[reference("Observation/target")]),
    "Condition.encounter": a_condition("s", encounter=VISIT),
    "Condition.evidence.detail": a_condition(
        "s", evidence=[{"detail": [reference("Observation/target")]}]
    ),
    "Procedure.encounter": resource(
        "Procedure", "s", status="completed", subject=ADA, encounter=VISIT
    ),
    "DocumentReference.context.encounter": a_document("s", context={"encounter": [VISIT]}),
    "DocumentReference.context.related": a_document(
        "s", context={"related": [reference("Observation/target")]}
    ),
    "DocumentReference.relatesTo.target": a_document(
        "s",
        relatesTo=[{"code": "appends", "target": reference("DocumentReference/target")}],
    ),
    "DocumentReference.content.attachment": a_document("s", binary="target"),
    "DiagnosticReport.encounter": _report(encounter=VISIT),
    "DiagnosticReport.result": _report(result=[reference("Observation/target")]),
    "DiagnosticReport.basedOn": _report(basedOn=[reference("ServiceRequest/target")]),
    "MedicationRequest.encounter": _prescription(encounter=VISIT),
    "MedicationRequest.reasonReference": _prescription(
        reasonReference=[reference("Condition/target")]
    ),
    "Immunization.encounter": resource(
        "Immunization", "s", status="completed", vaccineCode=CODE, patient=ADA,
        occurrenceDateTime="2030-01-01", encounter=VISIT,
    ),
    "Communication.encounter": a_communication("s", encounter=VISIT),
    "Communication.about": a_communication("s", about=[reference("Observation/target")]),
    "Communication.partOf": a_communication("s", partOf=[reference("Communication/target")]),
    "Communication.payload.contentReference": a_communication(
        "s", payload=[{"contentReference": reference("Observation/target")}]
    ),
    "ServiceRequest.encounter": _order(encounter=VISIT),
    "ServiceRequest.basedOn": _order(basedOn=[reference("ServiceRequest/target")]),
    "CarePlan.encounter": resource(
        "CarePlan", "s", status="active", intent="plan", subject=ADA, encounter=VISIT
    ),
    "CarePlan.activity.reference": resource(
        "CarePlan", "s", status="active", intent="plan", subject=ADA,
        activity=[{"reference": reference("ServiceRequest/target")}],
    ),
    "Composition.encounter": _composition(encounter=VISIT),
    "Composition.section.entry": _composition(
        section=[{"title": "a", "entry": [reference("Observation/target")]}]
    ),
    "QuestionnaireResponse.encounter": some_answers("s", encounter=VISIT),
    "QuestionnaireResponse.item.answer.valueReference": some_answers("s", item=[_LINK]),
    "ChargeItem.context": resource(
        "ChargeItem", "s", status="billable", code=CODE, subject=ADA, context=VISIT
    ),
    "ExplanationOfBenefit.item.encounter": _claim(item=[{**_ITEM, "encounter": [VISIT]}]),
    "Appointment.reasonReference": an_appointment(
        "s", reasonReference=[reference("Condition/target")]
    ),
    "Encounter.appointment": an_encounter("s", appointment=[reference("Appointment/target")]),
    "Encounter.diagnosis.condition": an_encounter(
        "s", diagnosis=[{"condition": reference("Condition/target")}]
    ),
    "Encounter.partOf": an_encounter("s", partOf=VISIT),
    "Invoice.lineItem.chargeItemReference": an_invoice(
        "s", lineItem=[{"chargeItemReference": reference("ChargeItem/target")}]
    ),
    "Task.focus": a_task("s", focus=reference("MedicationRequest/target")),
    "Task.basedOn": a_task("s", basedOn=[reference("ServiceRequest/target")]),
    "Task.output.valueReference": a_task(
        "s",
        output=[{"type": CODE, "valueReference": reference("QuestionnaireResponse/target")}],
    ),
    "List.entry.item": resource(
        "List", "s", status="current", mode="working", subject=ADA,
        entry=[{"item": reference("Condition/target")}],
    ),
    "Provenance.target": a_provenance("s", about=["Observation/target"]),
    "Provenance.entity.what": a_provenance(
        "s",
        about=["Condition/open"],
        entity=[{"role": "source", "what": reference("QuestionnaireResponse/target")}],
    ),
    "PaymentNotice.request": resource(
        "PaymentNotice", "s", status="active", created="2030-01-01",
        request=reference("Invoice/target"), payment={"display": "card"},
        recipient=reference("Organization/house"), amount={"value": 1, "currency": "USD"},
    ),
    "AuditEvent.entity.what": resource(
        "Flag", "s", status="active", code=CODE, subject=ADA,
        extension=[{"url": "https://else.example/x", "valueReference": VISIT}],
    ),
}  # fmt: skip
SHADOWS["Flag.extension.valueReference"] = SHADOWS.pop("AuditEvent.entity.what")

TARGETS: dict[str, Json] = {
    "Encounter/visit": an_encounter("visit"),
    "Observation/target": an_observation("target"),
    "Condition/target": a_condition("target"),
    "Condition/open": a_condition("open"),
    "Communication/target": a_communication("target"),
    "DocumentReference/target": a_document("target"),
    "Binary/target": a_binary("target"),
    "ServiceRequest/target": {**_order(), "id": "target"},
    "MedicationRequest/target": {**_prescription(), "id": "target"},
    "QuestionnaireResponse/target": some_answers("target"),
    "ChargeItem/target": resource(
        "ChargeItem", "target", status="billable", code=CODE, subject=ADA
    ),
    "Appointment/target": an_appointment("target"),
    "Invoice/target": an_invoice("target"),
}


def _target_of(edge: str) -> str:
    path = edge.partition(".")[2]
    (found,) = {str(key) for at, key in conveying(SHADOWS[edge]) if at == path}
    return found


def labelled(tree: Json, meta: Json = RESTRICTED) -> Json:
    return {**tree, "meta": meta}


async def labels(store: Any, *keys: str) -> list[set[str]]:
    return [set((await facts(store, key)).visibility_class.labels) for key in keys]


async def _ground(ehr: Caller) -> None:
    await ehr.store(a_patient("ada"), a_condition("open"))


@pytest.mark.parametrize("edge", SHADOWS)
@pytest.mark.parametrize("is_target_first", [True, False])
async def test_what_refers_to_a_labelled_resource_is_labelled(
    store: Any, ehr: Caller, edge: str, *, is_target_first: bool
) -> None:
    await _ground(ehr)
    target, shadow = _target_of(edge), SHADOWS[edge]
    trees = [labelled(TARGETS[target]), shadow]
    await ehr.store(*(trees if is_target_first else trees[::-1]))
    key = f"{shadow['resourceType']}/s"
    assert await labels(store, key) == [{"R"}]
    await ehr.store(labelled(TARGETS[target], NORMAL))
    assert await labels(store, key, target) == [set(), set()]
    await ehr.store(labelled(TARGETS[target], WITHHELD))
    assert await labels(store, key) == [{"withheld"}]
    assert (await ehr.delete(target)).status in {200, 204}
    if edge != "DocumentReference.content.attachment":
        assert await labels(store, key) == [{"withheld"}], "a deletion shows nothing"


@pytest.mark.parametrize("edge", SHADOWS)
async def test_an_edge_that_is_left_out_is_noticed(
    store: Any, ehr: Caller, edge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: for each edge by itself."""
    name, _, path = edge.partition(".")
    old = closure.conveying

    def without(tree: Json, links: Any = None) -> Any:
        return [one for one in old(tree, links) if (tree["resourceType"], one[0]) != (name, path)]

    for module in (closure, classify):
        monkeypatch.setattr(module, "conveying", without)
    await _ground(ehr)
    await ehr.store(labelled(TARGETS[_target_of(edge)]), SHADOWS[edge])
    derived = {"Provenance.target", "PaymentNotice.request"}  # they take labels with their owners
    assert await labels(store, f"{name}/s") == [{"R"} if edge in derived else set()]


LISTS: dict[str, tuple[Json, str]] = {
    "DiagnosticReport.result": (
        _report(result=[reference("Observation/target")]), "Observation/target"
    ),
    "Encounter.appointment": (SHADOWS["Encounter.appointment"], "Appointment/target"),
    "Encounter.diagnosis.condition": (
        SHADOWS["Encounter.diagnosis.condition"], "Condition/target"
    ),
    "Invoice.lineItem.chargeItemReference": (
        SHADOWS["Invoice.lineItem.chargeItemReference"], "ChargeItem/target"
    ),
    "Observation.hasMember": (SHADOWS["Observation.hasMember"], "Observation/target"),
    "Task.output.valueReference": (
        SHADOWS["Task.output.valueReference"], "QuestionnaireResponse/target"
    ),
}  # fmt: skip


@pytest.mark.parametrize("edge", LISTS)
@pytest.mark.parametrize("is_target_first", [True, False])
async def test_what_a_labelled_resource_lists_is_labelled(
    store: Any, ehr: Caller, edge: str, *, is_target_first: bool
) -> None:
    await _ground(ehr)
    lister, target = LISTS[edge]
    trees = [TARGETS[target], labelled(lister)]
    await ehr.store(*(trees if is_target_first else trees[::-1]))
    assert await labels(store, target) == [{"R"}]
    await ehr.store(labelled(TARGETS[target], NORMAL))
    assert await labels(store, target) == [{"R"}], "written again, and listed still"
    await ehr.store(labelled(lister, NORMAL))
    assert await labels(store, target) == [set()]
    await ehr.store(labelled(lister))
    key = f"{lister['resourceType']}/s"
    assert (await ehr.delete(key)).status in {200, 204}
    await ehr.store(labelled(TARGETS[target], NORMAL))
    assert await labels(store, target) == [{"R"}], "a deletion shows nothing"
    await ehr.store(labelled(lister, NORMAL))
    assert await labels(store, target) == [set()]


def test_every_list_has_a_case() -> None:
    found = {f"{name}.{row.path}" for name, rows in BOTH_WAYS.items() for row in rows}
    assert found - LISTS.keys() == {"DiagnosticReport.imagingStudy", "DiagnosticReport.media.link"}


async def test_lists_of_lists_pass_on_what_they_are_given(store: Any, ehr: Caller) -> None:
    await _ground(ehr)
    members = [reference("Observation/one"), reference("Observation/two")]
    report = _report(result=[reference("Observation/panel")])
    await ehr.store(
        labelled(an_observation("one")),
        an_observation("two"),
        an_observation("panel", hasMember=members),
        report,
    )
    keys = ("Observation/panel", "Observation/two", "DiagnosticReport/s")
    assert await labels(store, *keys) == [{"R"}, set(), {"R"}]
    await ehr.store(labelled(report))  # which changes neither its class nor the panel's
    assert await labels(store, *keys) == [{"R"}] * 3
    await ehr.store(labelled(report, NORMAL))
    assert await labels(store, *keys) == [{"R"}, set(), {"R"}]
    await ehr.store(
        an_observation("two", hasMember=[reference("Observation/panel")]), labelled(report)
    )
    assert await labels(store, *keys) == [{"R"}] * 3, "a circle ends"


def test_what_conveys_nothing_is_an_identity_or_of_the_directory() -> None:
    identities = closure.CONVEY_NOTHING - DIRECTORY
    assert identities == {"Patient", "RelatedPerson", "Person", "Group"}
    assert OWNERS.keys() - closure.TAKE_NOTHING - set(served_types()) == set()


async def test_one_labelled_result_hides_the_report_and_not_the_other_results(
    store: Any, ehr: Caller
) -> None:
    await _ground(ehr)
    await ehr.store(
        labelled(an_observation("hiv")),
        an_observation("blood"),
        _report(result=[reference("Observation/hiv"), reference("Observation/blood")]),
    )
    assert await labels(store, "DiagnosticReport/s", "Observation/blood") == [{"R"}, set()]
    visited = _report(
        result=[reference("Observation/hiv"), reference("Observation/blood")], encounter=VISIT
    )
    await ehr.store(labelled(an_encounter("visit"), WITHHELD), visited)
    assert await labels(store, "Observation/blood", "Observation/hiv") == [
        {"withheld"},
        {"R", "withheld"},
    ]
    await ehr.store(labelled(an_encounter("visit"), NORMAL))
    assert await labels(store, "DiagnosticReport/s", "Observation/blood") == [{"R"}, set()]


async def test_what_a_visit_takes_later_reaches_a_report_that_has_it_already(
    store: Any, ehr: Caller
) -> None:
    """The report does not change its class, yet what else it lists has to."""
    await _ground(ehr)
    both = [reference("Observation/hiv"), reference("Observation/blood")]
    await ehr.store(
        an_encounter("visit"),
        labelled(an_observation("hiv")),
        an_observation("blood"),
        _report(result=both, encounter=VISIT),
    )
    assert await labels(store, "Observation/blood") == [set()]
    await ehr.store(labelled(an_encounter("visit")))
    assert await labels(store, "Observation/blood") == [{"R"}]
    await ehr.store(_report(result=both))
    assert await labels(store, "Observation/blood", "DiagnosticReport/s") == [set(), {"R"}]


CHAIN = (
    an_encounter("visit", meta=RESTRICTED),
    _prescription(encounter=VISIT),
    a_task("ask", focus=reference("MedicationRequest/s")),
    a_communication("about", about=[reference("Task/ask")]),
)


@pytest.mark.parametrize("order", [*permutations(range(4))])
async def test_labels_reach_through_a_chain_in_any_order(
    store: Any, ehr: Caller, order: tuple[int, ...]
) -> None:
    await _ground(ehr)
    await ehr.store(*(CHAIN[n] for n in order))
    far = ("MedicationRequest/s", "Task/ask", "Communication/about")
    assert await labels(store, *far) == [{"R"}] * 3
    await ehr.store(an_encounter("visit", meta=NORMAL))
    assert await labels(store, *far) == [set()] * 3


def _circle(which: int, meta: Json | None = None) -> Json:
    after = reference(f"Communication/c{(which + 1) % 3}")
    return a_communication(f"c{which}", partOf=[after], meta=meta)


async def test_a_circle_does_not_keep_a_label_alive(store: Any, ehr: Caller) -> None:
    await _ground(ehr)
    await ehr.store(_circle(0), _circle(1), _circle(2, RESTRICTED))
    keys = [f"Communication/c{n}" for n in range(3)]
    outside = a_communication("out", about=[reference("Communication/c1")])
    await ehr.store(outside)
    assert await labels(store, *keys, "Communication/out") == [{"R"}] * 4
    await ehr.store(_circle(2, NORMAL))
    assert await labels(store, *keys, "Communication/out") == [set()] * 4


async def test_a_circle_keeps_what_it_has_from_elsewhere(store: Any, ehr: Caller) -> None:
    await _ground(ehr)
    third = a_communication("c1", partOf=[reference("Communication/c2")], encounter=VISIT)
    await ehr.store(
        labelled(an_encounter("visit"), WITHHELD), _circle(0), third, _circle(2, RESTRICTED)
    )
    keys = [f"Communication/c{n}" for n in range(3)]
    assert await labels(store, *keys) == [{"R", "withheld"}] * 3
    await ehr.store(_circle(2, NORMAL))
    assert await labels(store, *keys) == [{"withheld"}] * 3


async def test_an_appointment_and_its_visit_name_each_other(store: Any, ehr: Caller) -> None:
    """The label is given at either, and taken away where it was given."""
    await _ground(ehr)
    visit = an_encounter("visit", appointment=[reference("Appointment/when")])
    task = a_task("form", focus=reference("Appointment/when"))
    await ehr.store(an_appointment("when"), visit, task)
    keys = ("Appointment/when", "Encounter/visit", "Task/form")
    for tree in (an_appointment("when"), visit):
        await ehr.store(labelled(tree))
        assert await labels(store, *keys) == [{"R"}] * 3
        await ehr.store(labelled(tree, NORMAL))
        assert await labels(store, *keys) == [set()] * 3


async def test_a_grant_does_not_take_the_labels_of_its_evidence(store: Any, ehr: Caller) -> None:
    await _ground(ehr)
    grant = a_grant("g", of="ada", to="friend", sections=["results"])
    evidence = {"sourceReference": reference("DocumentReference/target")}
    await ehr.store(
        a_related_person("friend", of="ada"),
        labelled(TARGETS["DocumentReference/target"]),
        {**grant, **evidence},
    )
    assert await labels(store, "Consent/g", "RelatedPerson/friend") == [set(), set()]


async def test_identities_and_the_directory_convey_nothing(store: Any, ehr: Caller) -> None:
    await ehr.store(
        a_patient("ada", meta=RESTRICTED),
        a_practitioner("lark", meta=RESTRICTED),
        an_observation("o", performer="Practitioner/lark"),
    )
    assert await labels(store, "Observation/o") == [set()]


@pytest.mark.parametrize("how", ["moved", "deleted"])
async def test_what_named_a_visit_is_not_told_by_its_history(
    portal: Any, ehr: Caller, how: str
) -> None:
    """It was labelled when nothing that is in force referred to it any more."""
    said = an_observation("s", encounter=VISIT)
    await ehr.store(a_patient("ada"), an_encounter("visit"), an_encounter("other"), said)
    if how == "moved":
        await ehr.store(an_observation("s", encounter=reference("Encounter/other")))
    else:
        await ehr.delete("Observation/s")
    await ehr.store(an_encounter("visit", meta=RESTRICTED))
    proxy = Caller(portal, a_proxy("ada", "friend", sections=["results", "visits"]))
    assert (await proxy.get("Observation/s")).status == (200 if how == "moved" else 404)
    assert (await proxy.get("Observation/s/_history/1")).status == 404
    for path in ("Observation/s/_history", "_history"):
        assert b"Encounter/visit" not in (await proxy.get(path)).body
    assert (await ehr.get("Observation/s/_history/1")).status == 200


async def test_what_is_listed_no_more_takes_nothing_more(store: Any, ehr: Caller) -> None:
    await _ground(ehr)
    await ehr.store(TARGETS["Observation/target"], labelled(LISTS["DiagnosticReport.result"][0]))
    assert await labels(store, "Observation/target") == [{"R"}]
    await ehr.store(labelled(_report()))
    assert await labels(store, "Observation/target", "DiagnosticReport/s") == [set(), {"R"}]


async def test_labels_reach_through_what_was_deleted(store: Any, ehr: Caller) -> None:
    """What refers to it tells of the visit that it named, and is opened with that, too."""
    await _ground(ehr)
    about = a_communication("about", about=[reference("Observation/s")])
    await ehr.store(an_encounter("visit"), SHADOWS["Observation.encounter"], about)
    await ehr.delete("Observation/s")
    keys = ("Observation/s", "Communication/about")
    held: set[str]
    for meta, held in ((RESTRICTED, {"R"}), (NORMAL, set()), (WITHHELD, {"withheld"})):
        await ehr.store(an_encounter("visit", meta=meta))
        assert await labels(store, *keys) == [held] * 2
    await ehr.delete("Communication/about")
    await ehr.store(an_encounter("visit", meta=NORMAL), an_encounter("visit", meta=RESTRICTED))
    assert await labels(store, *keys) == [{"R"}] * 2
    await ehr.store(about, an_observation("s"))
    assert await labels(store, *keys) == [set()] * 2, "it is there again, and names no visit"


async def test_a_circle_through_what_was_deleted_keeps_nothing_alive(
    store: Any, ehr: Caller
) -> None:
    await _ground(ehr)
    await ehr.store(_circle(0), _circle(1), _circle(2, RESTRICTED))
    keys = [f"Communication/c{n}" for n in range(3)]
    await ehr.delete(keys[0])
    assert await labels(store, *keys) == [{"R"}] * 3
    await ehr.store(_circle(2, NORMAL))
    assert await labels(store, *keys) == [set()] * 3
