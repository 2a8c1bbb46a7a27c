"""``DocumentReference/$upload``: somebody of the patient's side gives the practice a document.

It is in the record at once, as what it is: ``preliminary``, tagged as theirs, by whoever sent it.
Staff decide about it by ``$review-document``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.grant import IG
from fhir_portal.consent.labels import FOR_STAFF, ORIGIN, PORTAL_TAG, SUPPLIED
from fhir_portal.documents.upload import Taken
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.fhir.errors import Conflict, Forbidden, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.attachments import files_of, stored
from fhir_portal.operations.authorship import organization_of, restricted
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import (
    LONGEST_SUBJECT,
    agent_of,
    once,
    patient_of,
    plain_text,
    record_provenance,
)
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.records import Record
from fhir_portal.resources.communication import count_written
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import CODE, REVIEW_DOCUMENT
from fhir_portal.resources.writing import create_in

A_DAY: Final = 20
"""Documents that one person may send for one record in a day."""
KINDS: Final = f"{IG}/CodeSystem/supplied-document"
_OTHER: Final = "other"
_KEPT_SECONDS: Final = 90 * 86_400.0
_LONGEST_IDENTIFIER: Final = 200
_DAY: Final = 86_400_000_000
_MICROSECONDS: Final = 1_000_000


class UploadedDocument(Record, frozen=True, kw_only=True):
    """What was sent under the identifier that stands, hashed with its sender, in the ``key``.

    ``asked`` is the hash of what was to be stored, ``document`` the id of the DocumentReference.
    """

    kind: ClassVar[str] = "uploaded-document"

    asked: str
    document: str


@dataclass(frozen=True, slots=True)
class _Said:
    """What the sender says of a document."""

    title: str
    kind: str
    written: str | None
    confidential: bool


async def upload(call: Call) -> FhirResponse:
    """Store it with its Binary, Provenance and Task. Sent again, it is the one of the first time.

    Raises:
        Unprocessable: the file is none that is taken, or what is said of it is wrong.
        Forbidden: confidentially, by somebody who acts for the patient.
        Conflict: the identifier stands for another document. TooManyRequests.
    """
    title = plain_text(call.arguments.one("title"), "title", LONGEST_SUBJECT)
    kind = str(call.arguments.one("type") or _OTHER)
    if kind not in kinds():
        message = f"type is one of {', '.join(kinds())}"
        raise Unprocessable(message, expression=parameter("type"))
    written = written_on(call)
    confidential = call.arguments.one("confidential") is True
    if confidential and not call.auth.is_self:
        message = "who acts for a patient cannot send what others who do may not see"
        raise Forbidden(message, expression=parameter("confidential"))
    said = _Said(title, kind, written, confidential)
    key, asked = _names(call, said)
    (file,) = await files_of(call, what="documents")

    async def work(transaction: ResourceTransaction) -> tuple[str, str, list[Row]]:
        await call.server.still(transaction, call.auth)
        before = await transaction.get(UploadedDocument, key)
        if before is not None and call.server.clock() < (before.expires or 0.0):
            if before.asked != asked:
                message = "this identifier was given to another document: take a new one for each"
                raise Conflict(message, expression=parameter("identifier"))
            row = await _known(transaction, call, before.document)
            return before.document, str(json.parse(row.body).get("docStatus") or ""), [row]
        await count_written(
            transaction, call.auth.practice, agent_of(call), call.auth.patient,
            now=call.server.clock(), what="documents", a_day=A_DAY,
        )  # fmt: skip
        row = await _stored(transaction, call, file, said)
        await transaction.delete(UploadedDocument, key)  # of one whose time is over
        expires = call.server.clock() + _KEPT_SECONDS
        own_id = row.key.id
        await transaction.insert(
            UploadedDocument(key=key, asked=asked, document=own_id, expires=expires)
        )
        return own_id, "preliminary", [row]

    document, status, rows = await once(call, work)
    answer = {"document": {"reference": f"DocumentReference/{document}"}, "status": status}
    return call.answer(answer, *rows)


def kinds() -> dict[str, str]:
    """Return what kinds there are: the words for people by code, in the guide's order."""
    concepts = ig_resource("CodeSystem", "supplied-document")["concept"]
    return {one["code"]: one["display"] for one in concepts}


def written_on(call: Call) -> str | None:
    """Return the date that a call gives. Raises `Unprocessable` for one that is to come."""
    given = call.arguments.one("date")
    now = int(call.server.clock() * _MICROSECONDS)
    if given is not None and period_of(str(given))[0] > now + _DAY:
        message = "it cannot have been written on a day that is to come"
        raise Unprocessable(message, expression=parameter("date"))
    return None if given is None else str(given)


async def _known(transaction: ResourceTransaction, call: Call, own_id: str) -> Row:
    """Return what was sent before, if the caller may see it still. Raises `NotFound`."""
    row = await transaction.read(ResourceKey("DocumentReference", own_id), call.visible)
    if row is None or row.deleted:
        message = f"DocumentReference/{own_id} is not known"
        raise NotFound(message)
    return row


async def _stored(transaction: ResourceTransaction, call: Call, file: Taken, said: _Said) -> Row:
    own_id = call.server.new_id()
    name = f"DocumentReference/{own_id}"
    (attachment,) = await stored(transaction, call, [file], context=name)
    attachment["title"] = file.name or said.title
    del attachment["creation"]  # that of the Binary; when it was written only the sender knows
    if said.written is not None:
        attachment["creation"] = said.written
    origin = {"system": ORIGIN, "code": SUPPLIED}
    row = await _create(
        transaction,
        call,
        own_id,
        {
            "resourceType": "DocumentReference",
            "meta": {"tag": [origin], **(restricted() if said.confidential else {})},
            "status": "current",
            "docStatus": "preliminary",
            "type": {
                "coding": [{"system": KINDS, "code": said.kind, "display": kinds()[said.kind]}],
                "text": kinds()[said.kind],
            },
            "category": [{"coding": [origin], "text": "Supplied by the patient"}],
            "subject": {"reference": f"Patient/{patient_of(call)}"},
            "date": _now(call),
            "author": [{"reference": agent_of(call)}],
            "description": said.title,
            "content": [{"attachment": attachment}],
        },
    )
    await record_provenance(transaction, call, [name], "CREATE")
    practice = await practice_of(transaction, call.auth.practice)
    await _create(
        transaction,
        call,
        call.server.new_id(),
        {
            "resourceType": "Task",
            "meta": {"tag": [{"system": PORTAL_TAG, "code": FOR_STAFF["documents"]}]},
            "status": "requested",
            "intent": "order",
            "code": {"coding": [{"system": CODE, "code": REVIEW_DOCUMENT}]},
            "focus": {"reference": name},
            "for": {"reference": f"Patient/{patient_of(call)}"},
            "authoredOn": _now(call),
            "lastModified": _now(call),
            "requester": {"reference": agent_of(call)},
            "owner": organization_of(practice),
        },
    )
    return row


async def _create(
    transaction: ResourceTransaction, call: Call, own_id: str, tree: dict[str, Any]
) -> Row:
    visible = Visibility.of_server(tree["resourceType"], practice=call.auth.practice)
    made = await create_in(
        transaction, call.server, call.as_practice, tree, visible, resource_id=own_id
    )
    return made.row


def _names(call: Call, said: _Said) -> tuple[str, str]:
    """Return the key of the identifier, and the hash of all that was asked for.

    Raises `Unprocessable` for an identifier without system and value, or a long one.
    """
    identifier = call.arguments.one("identifier") or {}
    system, value = identifier.get("system"), identifier.get("value")
    if not system or not value or len(system) + len(value) > _LONGEST_IDENTIFIER:
        message = f"give a system and a value, of {_LONGEST_IDENTIFIER} signs together"
        raise Unprocessable(message, expression=parameter("identifier"))
    file = call.arguments.one("attachment") or {}
    whose = [call.auth.practice, call.auth.patient, agent_of(call), system, value]
    asked = [said.title, said.kind, said.written, said.confidential]
    asked += [file.get(name) for name in ("contentType", "title", "data")]
    return _hash(whose), _hash(asked)


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _now(call: Call) -> str:
    return instant(int(call.server.clock() * _MICROSECONDS))
