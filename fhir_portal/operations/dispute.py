"""``Invoice/[id]/$dispute`` and what becomes of it: a word against a bill.

It is a Task with the Invoice as its focus, in the section of bills and with the labels of the bill.
Staff answer it by ``Task/[id]/$answer-dispute``, an EHR by writing the Task; either way
`fhir_portal.operations.dispute_jobs` tells that there is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.labels import labelling
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.authorship import organization_of
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import once, plain_text
from fhir_portal.operations.task_about import store_answer, store_task, task_about, task_before
from fhir_portal.records import Record
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import is_about

DISPUTE: Final = "bill-dispute"
LONGEST: Final = 1000
_IN_FORCE: Final = frozenset({"issued", "balanced"})
_STATUS: Final[Mapping[str, str]] = {
    "requested": "requested",
    "received": "requested",
    "accepted": "in-review",
    "ready": "in-review",
    "in-progress": "in-review",
    "on-hold": "in-review",
    "completed": "corrected",
    "rejected": "upheld",
    "cancelled": "upheld",
    "failed": "upheld",
}
_OPEN: Final = frozenset({"requested", "in-review"})
_TASK_STATUS: Final = {"in-review": "in-progress", "corrected": "completed", "upheld": "rejected"}
HELD: Final = "on-hold"
"""The status of a Task while the practice does not ask for the money."""


class BillDispute(Record, frozen=True, kw_only=True):
    """The latest word against a bill: ``key`` is ``<practice>/<Invoice id>``."""

    kind: ClassVar[str] = "bill-dispute"

    task: str


async def dispute(call: Call) -> FhirResponse:
    """Say that a bill is not right; the same again while it is open is the same.

    Raises `Conflict`: the bill is not in force, or something else was said of it and is open.
    """
    reason = plain_text(call.arguments.one("reason"), "reason", LONGEST)

    async def work(transaction: ResourceTransaction) -> tuple[str, str, list[Row]]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        bill = json.parse(row.body)
        if bill.get("status") not in _IN_FORCE:
            message = "this bill is not in force: there is nothing to pay on it"
            raise Conflict(message)
        key = f"{call.auth.practice}/{row.key.id}"
        before = await transaction.get(BillDispute, key)
        there = (
            await task_before(transaction, call, row, before.task) if before is not None else None
        )
        if there is not None and status_of(there) in _OPEN:
            said = [str(one.get("text")) for one in there.get("note") or ()]
            if reason not in said:
                message = "something was said against this bill and is not answered yet"
                raise Conflict(message)
            return there["id"], status_of(there), [row]
        practice = await transaction.get(Practice, call.auth.practice)
        tree = task_of(call, row, bill, DISPUTE, "requested")
        tree["note"] = [{"text": reason}]
        if practice is not None:
            tree["owner"] = organization_of(practice)
        stored = await store_task(transaction, call, tree)
        if before is not None:
            await transaction.delete(BillDispute, key)
        await transaction.insert(BillDispute(key=key, task=stored.key.id))
        return stored.key.id, "requested", [row, stored]

    task, status, rows = await once(call, work)
    return call.answer({"task": {"reference": f"Task/{task}"}, "status": status}, *rows)


async def answer_dispute(call: Call) -> FhirResponse:
    """Say what becomes of it. Raises `Conflict` for one that is answered, or none of ours."""
    status, hold = call.arguments.one("status"), call.arguments.one("hold")
    if status not in _TASK_STATUS:
        message = f"status is one of {', '.join(_TASK_STATUS)}"
        raise Unprocessable(message, expression=parameter("status"))
    given = call.arguments.one("reason")
    reason = "" if given is None else plain_text(given, "reason", LONGEST)
    if status not in _OPEN and not reason:
        message = "say why: the patient reads it"
        raise Unprocessable(message, expression=parameter("reason"))
    if hold and status not in _OPEN:
        message = "what is answered is not held back any more"
        raise Unprocessable(message, expression=parameter("hold"))

    async def work(transaction: ResourceTransaction) -> Row:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        tree = json.parse(row.body)
        if not is_about(tree, DISPUTE) or len(row.facts.owners) != 1:
            message = "this Task is no word against anybody's bill"
            raise Unprocessable(message)
        before = status_of(tree)
        if before not in _OPEN:
            if before == status:
                return row
            message = f"this was answered: {before}"
            raise Conflict(message)
        return await store_answer(
            transaction, call, row, tree, words=status, reason=reason,
            status=HELD if hold else _TASK_STATUS[status],
        )  # fmt: skip

    row = await call.server.store.transact(work)
    return call.answer({"task": {"reference": str(row.key)}, "status": status}, row)


async def is_held(transaction: ResourceTransaction, practice: str, invoice: ResourceKey) -> bool:
    """Whether the practice does not ask for the money of a bill for now."""
    found = await transaction.get(BillDispute, f"{practice}/{invoice.id}")
    if found is None:
        return False
    key = ResourceKey("Task", found.task)
    row = await transaction.read(key, Visibility.of_server("Task", practice=practice))
    return row is not None and not row.deleted and json.parse(row.body).get("status") == HELD


def status_of(tree: Mapping[str, Any]) -> str:
    """Return how a word against a bill stands; ``""`` for what is no status."""
    return _STATUS.get(str(tree.get("status")), "")


def task_of(
    call: Call, row: Row, bill: Mapping[str, Any], code: str, status: str
) -> dict[str, Any]:
    """Return a Task about a bill, as hidden as that is. Raises `Unprocessable`: it is nobody's."""
    if len(row.facts.owners) != 1:
        message = "this bill does not say whose it is"
        raise Unprocessable(message, expression="Invoice.subject")
    return task_about(call, row, code, status, subject=bill["subject"], labels=labelling(bill))
