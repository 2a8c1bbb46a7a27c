"""``Task/[id]/$prove-contact``: the code that was sent to a new contact came back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.one_time_code import WrongOneTimeCode
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.proof import Spent
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.cancel_proposal import own_proposal
from fhir_portal.operations.changed_contacts import (
    as_point,
    browser_of,
    challenge_of,
    codes_of,
    count_codes,
    of_point,
    send_code,
)
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.direct_change import accepted_outputs, change_patient, direct_fields
from fhir_portal.operations.message_thread import agent_of, record_provenance
from fhir_portal.operations.on_file import OnFile
from fhir_portal.resources.forms.request import concept, values_of
from fhir_portal.resources.proposal import changed_since, is_open, proposed_in
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import update_in

_MICROSECONDS: Final = 1_000_000
_WRONG: Final = "this is not the code, or it is no good any more: ask for another one"


async def prove_contact(call: Call) -> FhirResponse:
    """Note that it came back, or send another one.

    Raises:
        Unprocessable: no such contact is to be proved, or it is not the code. Conflict: the
            practice has decided. TooManyRequests: many codes were asked for.
    """
    wanted, typed = str(call.arguments.one("contact")).strip(), call.arguments.one("code")
    row = await own_proposal(call.server.reader, call)
    contact = _to_prove(json.parse(row.body), wanted)
    if typed is None:
        await count_codes(call, [contact])

        async def again(transaction: ResourceTransaction) -> Row:
            await call.server.still(transaction, call.auth)
            found = await own_proposal(transaction, call)
            _require_open(json.parse(found.body))
            await send_code(transaction, call, found.key.id, contact)
            return found

        row = await call.server.store.transact(again)
        return call.answer({"task": {"reference": str(row.key)}, "proved": False}, row)
    challenge = await challenge_of(call, row.key.id, contact)
    try:
        _, spend = await codes_of(call).prove(
            call.server.store,
            challenge,
            str(typed),
            purpose="record-contact",
            browser=browser_of(call),
        )
    except WrongOneTimeCode:
        raise Unprocessable(_WRONG, expression=parameter("code")) from None

    async def note(transaction: ResourceTransaction) -> tuple[list[Row], bool]:
        await call.server.still(transaction, call.auth)
        found = await own_proposal(transaction, call)
        await spend(transaction)
        return await _noted(transaction, call, found, contact)

    try:
        rows, is_changed = await call.server.store.transact(note)
    except Spent:
        raise Unprocessable(_WRONG, expression=parameter("code")) from None
    values = {"task": {"reference": str(row.key)}, "proved": True, "changed": is_changed}
    return call.answer(values, *rows)


async def _noted(
    transaction: ResourceTransaction, call: Call, row: Row, contact: OnFile
) -> tuple[list[Row], bool]:
    """Write into the Task that a contact is proved; change the record where that was the last."""
    task = json.parse(row.body)
    _require_open(task)
    output = {"type": concept("contact-proved"), "valueContactPoint": as_point(contact)}
    outputs = [*(one for one in task.get("output") or () if one != output), output]
    rows, is_changed = [row], False
    proved = [one["valueContactPoint"] for one in outputs if "valueContactPoint" in one]
    waiting = [one for one in values_of(task, "contact-to-prove") if one not in proved]
    proposals = proposed_in(task)
    fields = [field for one in proposals for field in one.fields]
    direct = direct_fields(await policy_of(transaction, call.auth.practice), call.auth)
    # What a proxy has proposed stays for staff, also where the patient proves the last of it.
    is_own = (task.get("requester") or {}).get("reference") == agent_of(call)
    if not waiting and fields == ["telecom"] and "telecom" in direct and is_own:
        (one,) = proposals
        visible = Visibility.of_server("Patient", practice=call.auth.practice)
        patient = None if one.base is None else await transaction.read(one.base, visible)
        owner = (call.auth.patient,)
        if patient is not None and not patient.deleted and patient.facts.owners == owner:
            there = json.parse(patient.body)
            if not changed_since(one.before or {}, there, fields):
                changed = await change_patient(
                    transaction, call, patient, one.tree, fields, key=row.key.id
                )
                rows.append(changed)
                outputs += accepted_outputs(changed, fields)
                task["status"], is_changed = "completed", True
    task["output"] = outputs
    task["lastModified"] = instant(int(call.server.clock() * _MICROSECONDS))
    written = await update_in(
        transaction, call.server, call.as_practice, task,
        Visibility.of_server("Task", practice=call.auth.practice),
        key=row.key, if_match=f'W/"{row.version}"', if_none_match=None,
    )  # fmt: skip
    await record_provenance(transaction, call, [str(written.row.key)], "UPDATE")
    return rows, is_changed


def _to_prove(task: Mapping[str, Any], wanted: str) -> OnFile:
    for point in values_of(task, "contact-to-prove"):
        if isinstance(point, Mapping) and point.get("value") == wanted:
            return of_point(point)
    message = "no such address or number of this proposal is to be proved"
    raise Unprocessable(message, expression=parameter("contact"))


def _require_open(task: Mapping[str, Any]) -> None:
    if not is_open(task):
        message = "this was decided, or taken back, already"
        raise Conflict(message)
