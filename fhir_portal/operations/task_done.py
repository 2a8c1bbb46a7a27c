"""``Task/[id]/$task-done``: say that somebody saw to what staff were told of."""

from __future__ import annotations

from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Forbidden, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.portal_invite import words
from fhir_portal.operations.staff_task import completed
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import OPEN, SHOWN_TO, about_of
from fhir_portal.resources.writing import update_in


async def task_done(call: Call) -> FhirResponse:
    """Complete a Task for staff; one that is over stays as it is.

    Raises:
        Unprocessable: the Task is of another kind; an invitation is revoked, not completed.
        Forbidden: the access level is not for it.
    """
    reason = words(call, "reason")

    async def work(transaction: ResourceTransaction) -> tuple[Row, str]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        tree = json.parse(row.body)
        about = about_of(tree)
        if about is None:
            message = "this Task tells staff of nothing: what it stands for has its own operations"
            raise Unprocessable(message)
        if call.auth.staff is not None and not call.auth.may(SHOWN_TO[about]):
            # Its tag hides it from them; an earlier release let labelling clients take it away.
            message = f"this access level does not hold '{SHOWN_TO[about]}'"
            raise Forbidden(message)
        if tree["status"] not in OPEN:
            return row, tree["status"]
        now = call.server.clock()
        done = completed(tree, at=now, reason=reason)
        if call.auth.staff is not None:
            done["owner"] = {"reference": call.auth.staff.fhir_user}
        written = await update_in(
            transaction, call.server, call.as_practice, done, call.visible,
            key=row.key, if_match=None, if_none_match=None,
        )  # fmt: skip
        return written.row, "completed"

    row, status = await call.server.store.transact(work)
    return call.answer({"task": {"reference": str(row.key)}, "status": status}, row)
