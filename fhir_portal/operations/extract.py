"""``QuestionnaireResponse/[id]/$extract``: what answers say, for staff to decide about (SDC)."""

from __future__ import annotations

from typing import Any

from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.resources.forms.extract import Proposal
from fhir_portal.resources.forms.handing_in import Writing, propose
from fhir_portal.resources.forms.questionnaire_response import DONE
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in, update_in


async def extract(call: Call) -> FhirResponse:
    """Return what answers propose, and the Task by which staff decide about it.

    Raises `Unprocessable`: they were not handed in.
    """

    async def work(
        transaction: ResourceTransaction,
    ) -> tuple[Row, list[Proposal], Row | None]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        if json.parse(row.body).get("status") not in DONE:
            message = "these answers were not handed in yet"
            raise Unprocessable(message, expression="QuestionnaireResponse.status")
        writing = Writing(create_in, update_in)
        found, task = await propose(transaction, call.server, call.auth.practice, row, writing)
        return row, found, task

    row, found, task = await call.server.store.transact(work)
    values: dict[str, Any] = {"return": _bundle(row, found)}
    if task is not None:
        values["review"] = {"reference": str(task.key)}
    return call.answer(values, row)


def _bundle(row: Row, found: list[Proposal]) -> dict[str, Any]:
    entries = []
    for one in found:
        name = one.tree["resourceType"]
        request = {"method": "POST", "url": name}
        if one.is_update:
            request = {"method": "PATCH", "url": f"Patient/{row.facts.owners[0]}"}
        entries.append({"resource": one.tree, "request": request})
    tree: dict[str, Any] = {"resourceType": "Bundle", "type": "transaction"}
    return tree | ({"entry": entries} if entries else {})
