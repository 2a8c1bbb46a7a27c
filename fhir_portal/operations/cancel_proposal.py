"""``Task/[id]/$cancel-proposal``: people take back what they proposed."""

from __future__ import annotations

from typing import Final

from fhir_portal.access.operations import OPERATIONS
from fhir_portal.access.policy import decide_part
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, Forbidden, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.message_thread import agent_of, record_provenance
from fhir_portal.operations.proposing import seen
from fhir_portal.resources.interactions.read import key_of
from fhir_portal.resources.proposal import is_open, section_of
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.resources.writing import update_in

_MICROSECONDS: Final = 1_000_000


async def cancel_proposal(call: Call) -> FhirResponse:
    """End it, while nobody has decided about it; what was taken back already stays so.

    Raises:
        Forbidden: it is somebody else's, or the grant does not let the caller act there.
        Conflict: it was decided about. Unprocessable: the Task proposes nothing.
    """

    async def work(transaction: ResourceTransaction) -> Row:
        await call.server.still(transaction, call.auth)
        row = await own_proposal(transaction, call)
        tree = json.parse(row.body)
        if tree["status"] == "cancelled":
            return row
        if not is_open(tree):
            message = "the practice has decided about this already"
            raise Conflict(message)
        tree["status"] = "cancelled"
        tree["lastModified"] = instant(int(call.server.clock() * _MICROSECONDS))
        written = await update_in(
            transaction, call.server, call.as_practice, tree,
            Visibility.of_server("Task", practice=call.auth.practice),
            key=row.key, if_match=f'W/"{row.version}"', if_none_match=None,
        )  # fmt: skip
        await record_provenance(transaction, call, [str(row.key)], "UPDATE")
        return written.row

    row = await call.server.store.transact(work)
    return call.answer({"task": {"reference": str(row.key)}, "status": "cancelled"}, row)


async def own_proposal(reader: ResourceReader, call: Call) -> Row:
    """Return the Task of a call that its caller proposed; of a patient's own record, any of it.

    Raises:
        NotFound: absent, or hidden. Unprocessable: it proposes nothing. Forbidden: it is somebody
            else's, or the caller may not act there.
    """
    # What the caller may see of Tasks, not what may be called on one.
    row = await seen(reader, call, key_of(call.request))
    tree = json.parse(row.body)
    section = section_of(tree)
    if section is None:
        message = "this Task proposes nothing"
        raise Unprocessable(message)
    if section not in OPERATIONS[call.definition.code].parts:
        message = "this is not for proposals of this section"
        raise Unprocessable(message)
    denied = decide_part(call.auth, call.definition.code, section)
    if denied is not None:
        raise Forbidden(denied.reason)
    requester = (tree.get("requester") or {}).get("reference")
    if not call.auth.is_self and requester != agent_of(call):
        message = "somebody else proposed this: they, or the patient, take it back"
        raise Forbidden(message)
    return row
