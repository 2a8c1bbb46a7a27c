"""A Task by which something is asked for about a resource of a patient, and its answer.

A refill of a prescription, a word against a bill, a plan to pay it: each is a Task with that
resource as its focus, in the record of the one patient whose it is. Staff answer it by an
operation, an EHR by writing the Task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.message_thread import agent_of, record_provenance
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import CODE
from fhir_portal.resources.writing import create_in, update_in

_MICROSECONDS: Final = 1_000_000


def task_about(
    call: Call, row: Row, code: str, status: str, *, subject: Any, labels: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a Task of the caller's about a resource; ``labels`` is its ``meta``, empty for none.

    ``code`` is one of `fhir_portal.resources.task.CODE`, ``subject`` a Reference to the patient.
    """
    now = instant(int(call.server.clock() * _MICROSECONDS))
    return {
        "resourceType": "Task",
        **({"meta": labels} if labels else {}),
        "status": status,
        "businessStatus": {"text": status},
        "intent": "order",
        "code": {"coding": [{"system": CODE, "code": code}]},
        "focus": {"reference": str(row.key)},
        "for": subject,
        "authoredOn": now,
        "lastModified": now,
        "requester": {"reference": agent_of(call)},
    }


async def task_before(
    transaction: ResourceTransaction, call: Call, row: Row, own_id: str
) -> dict[str, Any] | None:
    """Return the Task of before about a resource, if the caller's labels let them see it.

    ``row`` is the resource, which the caller sees.
    """
    visible = Visibility.of_record(
        "Task",
        practice=call.auth.practice,
        record=row.facts.owners[0],
        sections=None,
        labels=call.visible.labels,
    )
    there = await transaction.read(ResourceKey("Task", own_id), visible)
    return None if there is None or there.deleted else json.parse(there.body)


async def store_task(transaction: ResourceTransaction, call: Call, tree: dict[str, Any]) -> Row:
    """Store a new Task as the practice, with its Provenance."""
    written = await create_in(
        transaction,
        call.server,
        call.as_practice,
        tree,
        Visibility.of_server("Task", practice=call.auth.practice),
        resource_id=call.server.new_id(),
    )
    await record_provenance(transaction, call, [str(written.row.key)], "CREATE")
    return written.row


async def store_answer(
    transaction: ResourceTransaction,
    call: Call,
    row: Row,
    tree: dict[str, Any],
    *,
    status: str,
    words: str,
    reason: str,
) -> Row:
    """Store what becomes of a Task, by the caller, with its Provenance.

    ``status`` is that of the Task, ``words`` what is said of it, ``reason`` why (``""``: nothing).
    """
    tree["status"] = status
    tree["businessStatus"] = {"text": words}
    tree["lastModified"] = instant(int(call.server.clock() * _MICROSECONDS))
    tree["owner"] = {"reference": agent_of(call)}
    if reason:
        tree["statusReason"] = {"text": reason}
    written = await update_in(
        transaction,
        call.server,
        call.as_practice,
        tree,
        Visibility.of_server("Task", practice=call.auth.practice),
        key=row.key,
        if_match=f'W/"{row.version}"',
        if_none_match=None,
    )
    await record_provenance(transaction, call, [str(row.key)], "UPDATE")
    return written.row
