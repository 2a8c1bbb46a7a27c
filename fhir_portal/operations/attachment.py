"""``Communication/[id]/$attachment``: what came with a message, for whoever sees the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import NotFound
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.attachments import THUMBNAIL
from fhir_portal.operations.call import Call
from fhir_portal.operations.links import touched_by
from fhir_portal.resources.communication import is_message, is_taken_back
from fhir_portal.resources.interactions.read import answer
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import ResourceReader, Row


async def attachment(call: Call) -> FhirResponse:
    """Return the Binary. Raises `NotFound` where the message has no such file."""
    row = await call.target(call.server.reader)
    tree = json.parse(row.body)
    found = [
        one["contentAttachment"] for one in tree.get("payload") or () if "contentAttachment" in one
    ]
    number = int(str(call.arguments.one("number")))
    shown = is_message(tree) and not is_taken_back(tree)
    one = found[number - 1] if shown and 1 <= number <= len(found) else {}
    if call.arguments.one("small") is True:
        one = _small(one)
    there = await content_of(call.server.reader, call, row, one)
    return msgspec.structs.replace(answer(there), records=touched_by(row))


async def content_of(
    reader: ResourceReader, call: Call, row: Row, attachment: Mapping[str, Any]
) -> Row:
    """Return the Binary of an attachment of a message.

    It is of the record that the message is in, and no more hidden than the message itself.
    Raises `NotFound` for every other.
    """
    key = local_target(attachment.get("url") or "")
    there = None
    if key is not None and key.type == "Binary" and len(row.facts.owners) == 1:
        visible = Visibility.of_record(
            "Binary",
            practice=call.auth.practice,
            record=row.facts.owners[0],
            sections=row.facts.visibility_class.sections,
            labels=row.facts.visibility_class.labels,
        )
        there = await reader.read(key, visible)
        checked([there] if there is not None else [], visible)
    if there is None or there.deleted:
        message = "the message has no such file"
        raise NotFound(message)
    return there


def _small(one: dict[str, Any]) -> dict[str, Any]:
    for extension in one.get("extension") or ():
        if extension.get("url") == THUMBNAIL:
            small: dict[str, Any] = extension.get("valueAttachment") or {}
            return small
    return {}
