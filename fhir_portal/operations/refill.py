"""``MedicationRequest/[id]/$request-refill`` and what becomes of it.

The request is a Task with the MedicationRequest as its focus; staff answer it by
``Task/[id]/$answer-refill``, an EHR by writing the Task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import once, plain_text
from fhir_portal.operations.task_about import store_answer, store_task, task_about, task_before
from fhir_portal.records import Record
from fhir_portal.resources.event_rules import REFILL
from fhir_portal.resources.permission import checked, permitted_or_none
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.resources.task import is_about
from fhir_portal.search.request import parse_search

SYSTEM, CODE = REFILL
EARLY: Final = 0.8
"""Of a supply that has to be used up before the next one is not early."""
_LONGEST_PHARMACY, _LONGEST_NOTE = 200, 500
_DAY: Final = 86_400_000_000
_MICROSECONDS: Final = 1_000_000
_DAYS_OF: Final = {"d": 1.0, "wk": 7.0, "mo": 30.0, "a": 365.0}
_ASKED: Final = frozenset({"active", "completed"})
_STATUS: Final[Mapping[str, str]] = {
    "requested": "requested",
    "received": "requested",
    "accepted": "approved",
    "ready": "approved",
    "in-progress": "approved",
    "on-hold": "approved",
    "completed": "sent",
    "rejected": "refused",
    "cancelled": "refused",
    "failed": "refused",
}
_TASK_STATUS: Final = {"approved": "accepted", "sent": "completed", "refused": "rejected"}
_OPEN: Final = frozenset({"requested", "approved"})
_AFTER: Final = {"requested": {"approved", "sent", "refused"}, "approved": {"sent", "refused"}}


class RefillRequest(Record, frozen=True, kw_only=True):
    """The latest request for a refill: ``key`` is ``<practice>/<MedicationRequest id>``."""

    kind: ClassVar[str] = "refill-request"

    task: str


async def request_refill(call: Call) -> FhirResponse:
    """Ask for one, unless one is asked for already: then the answer tells how that stands.

    Raises `Conflict` where the prescription was stopped or is none yet.
    """
    pharmacy = _words(call, "pharmacy", _LONGEST_PHARMACY)
    note = _words(call, "note", _LONGEST_NOTE)
    acknowledged = call.arguments.one("acknowledged") is True

    async def work(
        transaction: ResourceTransaction,
    ) -> tuple[str | None, str | None, list[tuple[str, str]], list[Row]]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        prescription = json.parse(row.body)
        if prescription.get("status") not in _ASKED:
            message = "this medicine is not prescribed any more: ask the practice"
            raise Conflict(message)
        key = f"{call.auth.practice}/{row.key.id}"
        before = await transaction.get(RefillRequest, key)
        there = await task_before(transaction, call, row, before.task) if before else None
        if there is not None and status_of(there) in _OPEN:
            return there["id"], status_of(there), [], [row]
        warnings = await _warnings(transaction, call, row, prescription)
        if warnings and not acknowledged:
            return None, None, warnings, [row]
        tree = _asked(call, row, prescription, warnings, pharmacy, note)
        stored = await store_task(transaction, call, tree)
        if before is not None:
            await transaction.delete(RefillRequest, key)
        await transaction.insert(RefillRequest(key=key, task=stored.key.id))
        return stored.key.id, "requested", warnings, [row, stored]

    task, status, warnings, rows = await once(call, work)
    answer = {
        "task": {"reference": f"Task/{task}"} if task else None,
        "status": status,
        "warning": [{"code": code, "text": text} for code, text in warnings],
    }
    return call.answer(answer, *rows)


async def refill_status(call: Call) -> FhirResponse:
    """Tell what was asked for and what became of it."""
    row = await call.target(call.server.reader)
    # A Task is in the section of forms; whoever may see the prescription may see this of it.
    visible = Visibility.of_record(
        "Task",
        practice=call.auth.practice,
        record=row.facts.owners[0],
        sections=None,
        labels=row.facts.visibility_class.labels,
    )
    search = parse_search(
        "Task",
        [("focus", str(row.key)), ("code", f"{SYSTEM}|{CODE}"), ("_sort", "-authored-on")],
        base=call.server.base,
    )
    page = await call.server.reader.search(search, visible)
    found = [json.parse(one.body) for one in checked(page.rows, visible)]
    listed = [
        {
            "task": {"reference": f"Task/{one['id']}"},
            "status": status_of(one),
            "asked": one["authoredOn"],
            "reason": (one.get("statusReason") or {}).get("text"),
        }
        for one in found
        if "authoredOn" in one and status_of(one)
    ]
    return call.answer({"request": listed}, row)


async def answer_refill(call: Call) -> FhirResponse:
    """Say what becomes of one. Raises `Conflict` for one that is answered, or none of ours."""
    status = call.arguments.one("status")
    reason = _words(call, "reason", _LONGEST_NOTE)
    if status not in _TASK_STATUS:
        message = f"status is one of {', '.join(_TASK_STATUS)}"
        raise Unprocessable(message, expression=parameter("status"))
    if status == "refused" and not reason:
        message = "say why"
        raise Unprocessable(message, expression=parameter("reason"))

    async def work(transaction: ResourceTransaction) -> Row:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        tree = json.parse(row.body)
        if not is_about(tree, CODE) or "reference" not in tree.get("for", {}):
            message = "this Task asks for no refill of anybody"
            raise Unprocessable(message)
        before = status_of(tree)
        if before == status:
            return row
        if status not in _AFTER.get(before, ()):
            message = f"this request was answered: {before}"
            raise Conflict(message)
        return await store_answer(
            transaction, call, row, tree, status=_TASK_STATUS[status], words=status, reason=reason
        )

    row = await call.server.store.transact(work)
    return call.answer({"task": {"reference": str(row.key)}, "status": status}, row)


def status_of(tree: Mapping[str, Any]) -> str:
    """Return how a request stands, in the words of the operations; ``""`` for what is no status."""
    return _STATUS.get(str(tree.get("status")), "")


def _asked(
    call: Call,
    row: Row,
    prescription: Mapping[str, Any],
    warnings: list[tuple[str, str]],
    pharmacy: str,
    note: str,
) -> dict[str, Any]:
    labels = {n: v for n, v in (prescription.get("meta") or {}).items() if n in {"security", "tag"}}
    said = [("pharmacy", pharmacy), *(("warning", text) for _, text in warnings)]
    inputs = [{"type": {"text": name}, "valueString": text} for name, text in said if text]
    return {
        **task_about(call, row, CODE, "requested", subject=prescription["subject"], labels=labels),
        **({"note": [{"text": note}]} if note else {}),
        **({"input": inputs} if inputs else {}),
    }


async def _warnings(
    transaction: ResourceTransaction, call: Call, row: Row, prescription: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return what speaks against a refill now, by what was prescribed and handed over."""
    supply = prescription.get("dispenseRequest") or {}
    fills = await _fills(transaction, call, row)
    found = []
    allowed = supply.get("numberOfRepeatsAllowed")
    if allowed is None or len(fills) - 1 >= int(str(allowed)):
        text = "No refills are left on this prescription: the practice has to prescribe it anew."
        found.append(("no-refills-left", text))
    days = _days(supply.get("expectedSupplyDuration") or {})
    last = max(fills, default=_moment(prescription.get("authoredOn")))
    now = int(call.server.clock() * _MICROSECONDS)
    if days and last and now < last + int(days * EARLY * _DAY):
        text = f"It is early: the last supply was for {days:g} days, and most of it should be left."
        found.append(("early", text))
    return found


async def _fills(transaction: ResourceReader, call: Call, row: Row) -> list[int]:
    """Return when this prescription was handed over, in microseconds since 1970 UTC."""
    visible = permitted_or_none(call.server, call.auth, "s", "MedicationDispense")
    if visible is None:
        return []
    search = parse_search(
        "MedicationDispense",
        [("prescription", str(row.key)), ("status", "completed"), ("_count", "200")],
        base=call.server.base,
    )
    page = await transaction.search(search, visible)
    labels = row.facts.visibility_class.labels
    trees = [
        json.parse(one.body)
        for one in checked(page.rows, visible)
        if one.facts.visibility_class.labels <= labels  # who sees the Task reads the warning
    ]
    return [_moment(one.get("whenHandedOver") or one.get("whenPrepared")) for one in trees]


def _moment(text: str | None) -> int:
    return 0 if text is None else period_of(text)[0]


def _days(duration: Mapping[str, Any]) -> float:
    unit = _DAYS_OF.get(str(duration.get("code") or duration.get("unit")), 0.0)
    value = duration.get("value")
    return 0.0 if value is None else float(json.decimal(value)) * unit


def _words(call: Call, name: str, longest: int) -> str:
    given = call.arguments.one(name)
    return "" if given is None else plain_text(given, name, longest)
