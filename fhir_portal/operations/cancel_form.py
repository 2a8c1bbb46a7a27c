"""``Task/[id]/$cancel-form``: ask for a form no more."""

from __future__ import annotations

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.portal_invite import practice_of, words
from fhir_portal.resources.forms.request import OPEN, is_request
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in, update_in

_MICROSECONDS = 1_000_000


async def cancel_form(call: Call) -> FhirResponse:
    """End a request for a form; what was cancelled already is answered as it is."""
    reason = words(call, "reason")
    if not reason:
        message = "say why"
        raise Unprocessable(message, expression=parameter("reason"))

    async def work(transaction: ResourceTransaction) -> Row:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        tree = json.parse(row.body)
        if not is_request(tree):
            message = "this Task asks for no form"
            raise Unprocessable(message)
        if tree["status"] == "cancelled":
            return row
        if tree["status"] not in OPEN:
            message = "the form was answered: there is nothing to cancel"
            raise Conflict(message)
        tree["status"] = "cancelled"
        tree["statusReason"] = {"text": reason}
        tree["lastModified"] = instant(int(call.server.clock() * _MICROSECONDS))
        visible = Visibility.of_server("Task", practice=call.auth.practice)
        written = await update_in(
            transaction, call.server, call.as_practice, tree, visible,
            key=row.key, if_match=None, if_none_match=None,
        )  # fmt: skip
        practice = await practice_of(transaction, call.auth.practice)
        provenance = Author.of(call.auth, practice).provenance(
            [str(row.key)], at=call.server.clock(), activity="UPDATE", reason=reason
        )
        await create_in(
            transaction, call.server, call.as_practice, provenance,
            Visibility.of_server("Provenance", practice=practice.key),
            resource_id=call.server.new_id(),
        )  # fmt: skip
        return written.row

    row = await call.server.store.transact(work)
    return call.answer({"task": {"reference": str(row.key)}, "status": "cancelled"}, row)
