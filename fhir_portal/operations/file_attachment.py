"""``Communication/[id]/$file-attachment``: what came with a message, in the chart."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.attachment import content_of
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import (
    LONGEST_SUBJECT,
    agent_of,
    labels_around,
    once,
    plain_text,
    record_provenance,
)
from fhir_portal.records import Record
from fhir_portal.resources.communication import is_message, stands_in
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in

_MICROSECONDS: Final = 1_000_000


class FiledAttachment(Record, frozen=True, kw_only=True):
    """Which DocumentReference a file became: ``key`` is ``<practice>/<message>/<number>``."""

    kind: ClassVar[str] = "filed-attachment"

    document: str


async def file_attachment(call: Call) -> FhirResponse:
    """File it, once.

    The chart gets content of its own: one Binary in two sections would be seen by those alone who
    may see both. Raises `Unprocessable` for what is no message, or has no such file.
    """
    number = int(str(call.arguments.one("number")))
    given = call.arguments.one("title")
    title = None if given is None else plain_text(given, "title", LONGEST_SUBJECT)

    async def work(transaction: ResourceTransaction) -> tuple[str, list[Row]]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        message = json.parse(row.body)
        if not is_message(message) or not stands_in(message):
            words = "this is not a message of a thread"
            raise Unprocessable(words)
        key = f"{call.auth.practice}/{row.key.id}/{number}"
        before = await transaction.get(FiledAttachment, key)
        if before is not None:
            return before.document, [row]
        attachment = _attachment(message, number)
        document = await _filed(transaction, call, row, message, attachment, title)
        await transaction.insert(FiledAttachment(key=key, document=document.key.id))
        return document.key.id, [row, document]

    document, rows = await once(call, work)
    return call.answer({"document": {"reference": f"DocumentReference/{document}"}}, *rows)


async def _filed(
    transaction: ResourceTransaction,
    call: Call,
    row: Row,
    message: dict[str, Any],
    attachment: dict[str, Any],
    title: str | None,
) -> Row:
    practice = call.auth.practice
    there = await content_of(transaction, call, row, attachment)
    content = json.parse(there.body)
    if "data" not in content:
        words = "the file has no content"
        raise Unprocessable(words, expression=parameter("number"))
    labels = await labels_around(transaction, call, row, message)
    copy = await create_in(
        transaction,
        call.server,
        call.as_practice,
        {
            "resourceType": "Binary",
            "contentType": content["contentType"],
            "data": content["data"],
        },
        Visibility.of_server("Binary", practice=practice),
        resource_id=call.server.new_id(),
    )
    now = instant(int(call.server.clock() * _MICROSECONDS))
    name = title or attachment.get("title") or "A file of the patient"
    kept = {n: v for n, v in attachment.items() if n in {"contentType", "size", "hash", "creation"}}
    tree: dict[str, Any] = {
        "resourceType": "DocumentReference",
        **({"meta": labels} if labels else {}),
        "status": "current",
        "type": {"text": name},
        "subject": message["subject"],
        "date": now,
        **({"author": [message["sender"]]} if "sender" in message else {}),
        "authenticator": {"reference": agent_of(call)},
        "description": name,
        "content": [{"attachment": {**kept, "url": str(copy.row.key), "title": name}}],
        "context": {"related": [{"reference": str(row.key)}]},
    }
    written = await create_in(
        transaction,
        call.server,
        call.as_practice,
        tree,
        Visibility.of_server("DocumentReference", practice=practice),
        resource_id=call.server.new_id(),
    )
    await record_provenance(transaction, call, [str(written.row.key)], "CREATE")
    return written.row


def _attachment(message: dict[str, Any], number: int) -> dict[str, Any]:
    payload = message.get("payload") or ()
    found = [one["contentAttachment"] for one in payload if "contentAttachment" in one]
    if not 1 <= number <= len(found) or "url" not in found[number - 1]:
        words = f"the message has {len(found)} files"
        raise Unprocessable(words, expression=parameter("number"))
    attachment: dict[str, Any] = found[number - 1]
    return attachment
