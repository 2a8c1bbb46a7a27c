"""``Appointment/[id]/$calendar``: an appointment for somebody's calendar (text/calendar)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from fhir_portal.access.owners import local_target, references_at
from fhir_portal.access.policy import Ask, Deny, decide
from fhir_portal.documents.calendar import MEDIA_TYPE, Event, as_calendar
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.appointments import of_practice, purpose_of
from fhir_portal.operations.call import Call
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row

_STATUS: Final[Mapping[str, Literal["CONFIRMED", "TENTATIVE", "CANCELLED"]]] = {
    "proposed": "TENTATIVE",
    "pending": "TENTATIVE",
    "waitlist": "TENTATIVE",
    "cancelled": "CANCELLED",
    "noshow": "CANCELLED",
    "entered-in-error": "CANCELLED",
}
_MICROSECONDS: Final = 1_000_000


async def calendar(call: Call) -> FhirResponse:
    """Return an Appointment as a calendar file in a Binary that is stored nowhere.

    What it is for is left out where that is not for calendars. Raises `Unprocessable` for one that
    has no time yet.
    """

    async def work(transaction: ResourceTransaction) -> tuple[Row, bytes]:
        row = await call.target(transaction)
        return row, as_calendar(await _event(call, transaction, row))

    row, content = await call.server.store.transact(work)
    tree = {
        "resourceType": "Binary",
        "contentType": MEDIA_TYPE,
        "data": base64.b64encode(content).decode(),
    }
    answer = call.answered(tree, row)
    return FhirResponse(200, answer.body, records=answer.records, binary=(MEDIA_TYPE, content))


async def _event(call: Call, reader: ResourceTransaction, row: Row) -> Event:
    tree = json.parse(row.body)
    if not tree.get("start") or not tree.get("end"):
        message = "this appointment has no time yet"
        raise Unprocessable(message, expression="Appointment.start")
    practice = await practice_of(reader, call.auth.practice)
    policy = await of_practice(reader, call)
    purpose = purpose_of(tree, policy, labelled=bool(row.facts.visibility_class.labels))
    host = urlsplit(call.collaborators.base).hostname or "portal"
    return Event(
        uid=f"{row.facts.id}@{host}",
        sequence=row.version - 1,
        changed=row.updated / 1000,
        start=period_of(tree["start"])[0] / _MICROSECONDS,
        end=period_of(tree["end"])[0] / _MICROSECONDS,
        summary=f"{practice.name}: {purpose}" if purpose else f"Appointment at {practice.name}",
        status=_STATUS.get(tree["status"], "CONFIRMED"),
        location=await _place(call, reader, tree),
        description=tree.get("patientInstruction") or "" if purpose else "",
        url=f"{call.collaborators.base}/go/appointments",
    )


async def _place(call: Call, reader: ResourceReader, tree: Mapping[str, Any]) -> str:
    """Return name and address of where it is, as far as the caller may see that."""
    for text in references_at(tree, "participant.actor"):
        key = local_target(text)
        if key is None or key.type != "Location":
            continue
        answer = decide(call.auth, Ask("r", "Location", call.server.clock()))
        row = None if isinstance(answer, Deny) else await reader.read(key, answer.visible)
        if row is not None and not row.deleted:
            return ", ".join(place_of(json.parse(row.body)))
    return ""


def place_of(location: Mapping[str, Any]) -> list[str]:
    """Return the name of a Location and the lines of its address."""
    address = location.get("address") or {}
    if address.get("text"):
        lines = [address["text"]]
    else:
        town = " ".join(filter(None, (address.get(one) for one in ("city", "state", "postalCode"))))
        lines = [*(address.get("line") or ()), town]
    return [one for one in (location.get("name"), *lines) if one]
