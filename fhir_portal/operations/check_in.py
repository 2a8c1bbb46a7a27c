"""``Appointment/[id]/$check-in``: the patient says that they are here, or takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from fhir_portal.access.owners import local_target, references_at
from fhir_portal.access.policy import Ask, Deny, decide
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations import visit_thread
from fhir_portal.operations.appointments import of_practice, patient_in, store_next
from fhir_portal.operations.call import Call
from fhir_portal.records import Record
from fhir_portal.resources.forms.request import REVIEW, has_code
from fhir_portal.resources.reservation import time_of
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import CODE as PORTAL_TASK
from fhir_portal.search.request import parse_search

OPEN_TASKS: Final = "requested,received,accepted,ready,in-progress"
_COMING: Final = frozenset({"booked", "pending"})
_MICROSECONDS: Final = 1_000_000
_MINUTE: Final = 60
_DAY: Final = 86_400.0
_MOST: Final = 200


class Arrival(Record, frozen=True, kw_only=True):
    """That somebody said they are here; ``key`` is ``<practice>/<id of the Appointment>``.

    ``version`` is that of the Appointment which says so, ``before`` and ``taking_part`` its status
    and the patient's participant status until then. Kept for as long as it can be taken back.
    """

    kind: ClassVar[str] = "arrival"

    at: float
    version: int
    before: str
    taking_part: str


async def check_in(call: Call) -> FhirResponse:
    """Say that the patient is here, or take it back; the answer says how the queue stands.

    Said again it changes nothing. Who may write messages gets a conversation with the front desk
    (`fhir_portal.operations.visit_thread`).

    Raises:
        Conflict: the Appointment is not one to come to, or the practice has gone on with it.
        Unprocessable: it is too early, or too late.
    """
    undo = call.arguments.one("undo") is True

    async def work(transaction: ResourceTransaction) -> tuple[Row, Arrival | None]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        return await (_take_back if undo else _arrive)(call, transaction, row)

    row, arrival = await call.server.store.transact(work)
    tree = json.parse(row.body)
    arrived = arrival.at if arrival is not None else None
    return call.answer(
        {
            "status": tree["status"],
            "arrived": instant(int(arrived * _MICROSECONDS)) if arrived is not None else None,
            "ahead": await _ahead(call, row, tree) if arrived is not None else None,
            "forms-due": await _forms_due(call, tree),
            "appointment": tree,
            **(await visit_thread.seen_by(call, row.facts.id) if arrived is not None else {}),
        },
        row,
    )


async def _arrive(
    call: Call, transaction: ResourceTransaction, row: Row
) -> tuple[Row, Arrival | None]:
    tree = json.parse(row.body)
    key = f"{call.auth.practice}/{row.facts.id}"
    known = await transaction.get(Arrival, key)
    if tree["status"] == "arrived" and known is not None and known.version == row.version:
        return row, known
    held = await time_of(transaction, call.auth.practice, row.facts.id)
    if tree["status"] not in _COMING or (held is not None and held.until is not None):
        message = f"this appointment is {tree['status']}: nobody checks in for it"
        raise Conflict(message, expression="Appointment.status")
    now = call.server.clock()
    _require_window(await of_practice(transaction, call), tree, now)
    new, taking_part = _with(tree, "arrived", "accepted")
    stored = await store_next(call, transaction, row, new)
    arrival = Arrival(
        key=key,
        at=now,
        version=stored.version,
        before=tree["status"],
        taking_part=taking_part,
        expires=now + _DAY,
    )
    await transaction.put(arrival)
    await visit_thread.open_for(transaction, call, stored, new)
    return stored, arrival


async def _take_back(
    call: Call, transaction: ResourceTransaction, row: Row
) -> tuple[Row, Arrival | None]:
    tree = json.parse(row.body)
    key = f"{call.auth.practice}/{row.facts.id}"
    known = await transaction.get(Arrival, key)
    if known is None or tree["status"] != "arrived" or known.version != row.version:
        message = "there is nothing to take back, or the practice has gone on: tell the desk"
        raise Conflict(message, expression="Appointment.status")
    new, _ = _with(tree, known.before, known.taking_part)
    await transaction.delete(Arrival, key)
    await visit_thread.close_for(transaction, call, row.facts.id)
    return await store_next(call, transaction, row, new), None


def may_arrive(tree: Mapping[str, Any], policy: PracticePolicy, now: float) -> bool:
    """Whether its patient can say now that they are here, if it is not merely held for them."""
    start = tree.get("start")
    if start is None or tree["status"] not in _COMING:
        return False
    begins = period_of(start)[0] / _MICROSECONDS
    after = begins + policy.check_in_after * _MINUTE
    return begins - policy.check_in_before * _MINUTE <= now <= after


def _require_window(policy: PracticePolicy, tree: Mapping[str, Any], now: float) -> None:
    """Hold the moment against the window around the start, for everybody."""
    start = tree.get("start")
    if start is None:
        message = "this appointment has no time yet"
        raise Conflict(message, expression="Appointment.start")
    begins = period_of(start)[0] / _MICROSECONDS
    if now < begins - policy.check_in_before * _MINUTE:
        message = f"check in from {policy.check_in_before} minutes before the appointment on"
        raise Unprocessable(message, expression="Appointment.start")
    if now > begins + policy.check_in_after * _MINUTE:
        message = "the time of this appointment has passed: tell the desk"
        raise Unprocessable(message, expression="Appointment.start")


def _with(tree: Mapping[str, Any], status: str, taking_part: str) -> tuple[dict[str, Any], str]:
    """Return an Appointment with another status, and how its patient took part until then."""
    patient = patient_in(tree)
    if patient is None:
        message = "this appointment is not that of one patient"
        raise Unprocessable(message, expression="Appointment.participant")
    before, listed = taking_part, []
    for one in tree["participant"]:
        named = local_target((one.get("actor") or {}).get("reference") or "")
        if named == patient:
            before = one["status"]
        listed.append(dict(one) | {"status": taking_part} if named == patient else one)
    return dict(tree) | {"status": status, "participant": listed}, before


async def _ahead(call: Call, arrived: Row, tree: Mapping[str, Any]) -> int | None:
    """Return how many others wait for the same practitioner with an earlier appointment.

    A number alone: it is the one thing about others that a queue tells. The patient's own are not
    counted: who acts for them may not see each of those.
    """
    practitioners = [
        one
        for one in references_at(tree, "participant.actor")
        if one.startswith(("Practitioner/", "PractitionerRole/"))
    ]
    if not practitioners:
        return None
    begins = period_of(tree["start"])[0]
    asked = [
        ("actor", ",".join(sorted(practitioners))),
        ("status", "arrived,checked-in"),
        ("date", f"ge{instant(begins - int(_DAY / 2) * _MICROSECONDS)}"),
        ("date", f"lt{instant(begins)}"),
        ("_count", str(_MOST)),
    ]
    page = await call.server.store.search(
        parse_search("Appointment", asked, base=call.server.base),
        Visibility.of_server("Appointment", practice=call.auth.practice),
    )
    own = set(arrived.facts.owners)
    return len([row for row in page.rows if own.isdisjoint(row.facts.owners)])


async def _forms_due(call: Call, tree: Mapping[str, Any]) -> int:
    """Return how many Tasks the patient has to do, as far as the caller may see them."""
    answer = decide(call.auth, Ask("s", "Task", call.server.clock()))
    patient = patient_in(tree)
    if isinstance(answer, Deny) or patient is None:
        return 0
    asked = [("patient", str(patient)), ("status", OPEN_TASKS), ("_count", str(_MOST))]
    request = parse_search("Task", asked, base=call.server.base)
    page = await call.server.store.search(request, answer.visible)
    return len([row for row in page.rows if is_to_do(json.parse(row.body))])


def is_to_do(task: Mapping[str, Any]) -> bool:
    """Whether a Task is something for the patient to do.

    An invitation is another matter, and so is what the practice has to decide about or answer.
    """
    codings = (task.get("code") or {}).get("coding") or ()
    return not (has_code(task, REVIEW) or any(one.get("system") == PORTAL_TASK for one in codings))
