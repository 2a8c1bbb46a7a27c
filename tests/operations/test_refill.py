"""Refills: asked for with the warnings read, once at a time, answered by staff or an EHR."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify import jobs
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.refill import CODE, SYSTEM
from fhir_portal.operations.refill_jobs import refill_jobs
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    RESTRICTED,
    START,
    Answer,
    Caller,
    a_proxy,
    a_task,
    oneself,
    reference,
    resource,
)
from tests.operations.messages import a_prescription, ada, desk, done, kit, out, practice

__all__ = ["ada", "desk", "kit", "practice"]

CREAM = "MedicationRequest/cream"


def ago(days: float) -> str:
    return (datetime.fromtimestamp(START, UTC) - timedelta(days=days)).isoformat()


def a_fill(own_id: str, days_ago: float, of: str = "ada") -> dict[str, Any]:
    return resource(
        "MedicationDispense",
        own_id,
        status="completed",
        medicationCodeableConcept={"text": "a cream"},
        subject=reference(f"Patient/{of}"),
        authorizingPrescription=[reference(CREAM)],
        whenHandedOver=ago(days_ago),
    )


@pytest.fixture(autouse=True)
async def prescribed(practice: EmbeddedStore, ehr: Caller) -> None:
    assert practice is not None
    await ehr.store(a_prescription("cream"), a_fill("first", 90), a_prescription("kits", of="kit"))


async def asked(caller: Caller, target: str = CREAM, **given: Any) -> Answer:
    return await done(caller, target, "request-refill", **given)


async def messages(practice: EmbeddedStore, portal: Portal) -> list[OutboxMessage]:
    """What is sent of answers, once the jobs are done."""
    await jobs.work_off(practice, refill_jobs(portal.server), worker="w", clock=portal.server.clock)
    found = await practice.every(OutboxMessage)
    return [one for one in found if one.template == "refill-answered"]


def warned(answer: Answer) -> list[str]:
    found = [one["part"] for one in answer.json.get("parameter", ()) if one["name"] == "warning"]
    return [one[0]["valueCode"] for one in found]


async def status(caller: Caller, target: str = CREAM) -> list[tuple[str, str | None]]:
    answer = await caller.get(f"{target}/$refill-status")
    assert answer.status == 200, answer.body
    found = []
    for one in answer.json.get("parameter", ()):
        parts = {p["name"]: p for p in one["part"]}
        reason = parts.get("reason", {}).get("valueString")
        found.append((parts["status"]["valueCode"], reason))
    return found


@pytest.mark.requirement("portal", "S2-03")
async def test_a_refill_is_asked_for_and_its_answer_seen(
    practice: EmbeddedStore, ada: Caller, desk: Caller, ehr: Caller
) -> None:
    """Requested, approved, sent, refused with a reason; early and no-refills-left warnings."""
    begun = await asked(ada, pharmacy="Elm Street Pharmacy", note="The large tube.")
    task = out(begun, "task")["reference"]
    assert out(begun, "status") == "requested"
    tree = (await ehr.get(task)).json
    assert tree["focus"] == reference(CREAM)
    assert tree["requester"] == reference("Patient/ada")
    assert tree["input"] == [{"type": {"text": "pharmacy"}, "valueString": "Elm Street Pharmacy"}]
    again = await asked(ada)
    assert out(again, "task") == reference(task), "one at a time"
    for state in ("approved", "sent"):
        assert (await done(desk, task, "answer-refill", status=state)).status == 200
        assert await status(ada) == [(state, None)]
    told = await messages(practice, desk.portal)
    assert [one.to for one in told] == [f"record:{DERM}/Patient/ada"] * 2
    assert "cream" not in repr(told)


async def test_a_refusal_has_a_reason_and_another_request_can_follow(
    ada: Caller, desk: Caller
) -> None:
    task = out(await asked(ada), "task")["reference"]
    assert (await done(desk, task, "answer-refill", status="refused")).status == 422
    await done(desk, task, "answer-refill", status="refused", reason="See us first.")
    assert await status(ada) == [("refused", "See us first.")]
    assert (await done(desk, task, "answer-refill", status="approved")).status == 409
    assert out(await asked(ada), "task") != reference(task)


async def test_early_and_without_refills_left_it_is_asked_for_with_the_warning_read(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(a_fill("second", 10))
    first = await asked(ada)
    assert warned(first) == ["early"]
    assert out(first, "task") is None
    assert (await ehr.get("Task")).entries == []
    await ehr.store(*(a_fill(f"more-{number}", 200 + number) for number in range(2)))
    assert warned(await asked(ada)) == ["no-refills-left", "early"]
    made = await asked(ada, acknowledged=True)
    assert out(made, "status") == "requested"
    tree = (await ehr.get(out(made, "task")["reference"])).json
    assert [one["type"]["text"] for one in tree["input"]] == ["warning", "warning"]


async def test_what_is_not_prescribed_any_more_is_not_refilled(ada: Caller, ehr: Caller) -> None:
    await ehr.put(a_prescription("cream", status="stopped"))
    assert (await asked(ada)).status == 409
    assert (await ehr.get("Task")).entries == []


async def test_an_ehr_answers_by_writing_the_task(
    practice: EmbeddedStore, portal: Portal, ada: Caller, ehr: Caller
) -> None:
    """And the patient is told of it, once for each answer."""
    task = out(await asked(ada), "task")["reference"]
    tree = (await ehr.get(task)).json
    for state in ("received", "accepted", "accepted", "in-progress", "completed", "completed"):
        await ehr.put(tree | {"status": state})
    assert await status(ada) == [("sent", None)]
    told = await messages(practice, portal)
    assert [one.to for one in told] == [f"record:{DERM}/Patient/ada"] * 2
    # A Task that an EHR brings in as it was tells nobody of anything.
    await ehr.put({**tree, "id": "of-before", "status": "completed"})
    assert len(await messages(practice, portal)) == 2


async def test_parallel_requests_make_one_task(ada: Caller, ehr: Caller) -> None:
    answers = await asyncio.gather(*(asked(ada) for _ in range(10)))
    assert len({out(one, "task")["reference"] for one in answers}) == 1
    assert len((await ehr.get("Task")).entries) == 1


async def test_only_who_may_act_in_medications_asks_and_only_for_this_record(
    portal: Portal, ada: Caller, kit: Caller, desk: Caller, ehr: Caller
) -> None:
    kits = "MedicationRequest/kits"
    acting = Caller(portal, a_proxy(sections=["medications"], act=["medications"]))
    seeing = Caller(portal, a_proxy(sections=["medications"]))
    other = Caller(portal, a_proxy(sections=["messages"], act=["messages"]))
    ended = Caller(portal, a_proxy(sections=["medications"], act=["medications"], until=START))
    for caller in (seeing, other, ended, desk, ehr, kit.who(expires=START)):
        assert (await asked(caller, kits)).status == 403
    assert (await asked(kit.with_scope("patient/MedicationRequest.rs"), kits)).status == 403
    for caller in (ada, Caller(portal, oneself("ada-f", "family-medicine"))):
        assert (await asked(caller, kits)).status == 404
    assert (await ehr.get("Task")).entries == []
    made = await asked(acting, kits, acknowledged=True)
    tree = (await ehr.get(out(made, "task")["reference"])).json
    assert tree["requester"] == reference("RelatedPerson/mother")
    assert await status(seeing, kits) == [("requested", None)], "the Task itself is in forms"
    assert (await acting.get(out(made, "task")["reference"])).status == 404
    for caller in (other, ended):
        assert (await caller.get(f"{kits}/$refill-status")).status == 403
    plain = await kit.post(a_prescription(None, of="kit"))
    assert plain.status == 403, "nobody prescribes anything for themselves"


async def test_what_a_label_hides_is_hidden_in_its_refills_too(
    portal: Portal, kit: Caller, ehr: Caller
) -> None:
    await ehr.store(a_prescription("pill", of="kit", meta=RESTRICTED))
    pill = "MedicationRequest/pill"
    made = await asked(kit, pill, acknowledged=True)
    task = out(made, "task")["reference"]
    assert (await ehr.get(task)).json["meta"]["security"] == RESTRICTED["security"]
    proxy = Caller(portal, a_proxy(sections=["medications", "forms"], act=["medications"]))
    assert (await asked(proxy, pill)).status == 404
    assert (await proxy.get(f"{pill}/$refill-status")).status == 404
    assert (await proxy.get(task)).status == 404
    assert await status(kit, pill) == [("requested", None)]


async def test_another_task_is_no_refill_request(ada: Caller, desk: Caller, ehr: Caller) -> None:
    await ehr.store(a_task("form", of="ada"))
    assert (await done(desk, "Task/form", "answer-refill", status="approved")).status == 422
    assert (await done(ada, "Task/form", "answer-refill", status="approved")).status == 403


def a_mother(portal: Portal, *sections: str) -> Caller:
    return Caller(portal, a_proxy(sections=("medications", *sections), act=("medications",)))


async def test_a_warning_tells_of_no_supply_that_its_readers_may_not_see(
    kit: Caller, portal: Portal, ehr: Caller
) -> None:
    """Kit sees the labelled supply; the request says nothing of it, for others read that too."""
    hidden = a_fill("hidden", 1, of="kit") | {
        "meta": RESTRICTED,
        "authorizingPrescription": [reference("MedicationRequest/kits")],
    }
    await ehr.store(hidden)
    answer = await asked(kit, "MedicationRequest/kits")
    assert warned(answer) == []
    shown = await a_mother(portal, "forms").get(out(answer, "task")["reference"])
    assert (shown.status, b"supply" in shown.body) == (200, False)


async def test_an_app_is_warned_only_by_supplies_that_it_may_search(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(a_fill("late", 1))
    assert "early" in warned(await asked(ada))
    narrow = ada.with_scope("patient/MedicationRequest.crs")
    assert (await narrow.get("MedicationDispense")).status == 403
    assert warned(await asked(narrow)) == []


async def test_a_request_that_was_hidden_later_is_told_to_nobody_who_may_not_see_it(
    kit: Caller, portal: Portal, ehr: Caller
) -> None:
    target = "MedicationRequest/kits"
    task = out(await asked(kit, target, acknowledged=True), "task")["reference"]
    tree = (await ehr.get(task)).json
    assert (await ehr.put(tree | {"meta": tree["meta"] | RESTRICTED})).status == 200
    answer = await asked(a_mother(portal), target, acknowledged=True)
    assert answer.status == 200
    assert task not in answer.body.decode()


async def test_a_request_of_nobody_is_refused(desk: Caller, ehr: Caller) -> None:
    await ehr.store(
        resource(
            "Task",
            "nobodys",
            status="requested",
            intent="order",
            code={"coding": [{"system": SYSTEM, "code": CODE}]},
        )
    )
    assert (await done(desk, "Task/nobodys", "answer-refill", status="approved")).status == 422
