"""``Communication/[id]/$attachment``: what came with a message, for whoever sees the message."""

from __future__ import annotations

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
from fhir_portal.resources.communication import is_message
from fhir_portal.resources.interactions.read import answer
from fhir_portal.resources.permission import checked


async def attachment(call: Call) -> FhirResponse:
    """Return the Binary. Raises `NotFound` where the message has no such file."""
    row = await call.target(call.server.reader)
    tree = json.parse(row.body)
    found = [
        one["contentAttachment"] for one in tree.get("payload") or () if "contentAttachment" in one
    ]
    number = int(str(call.arguments.one("number")))
    one = found[number - 1] if is_message(tree) and 1 <= number <= len(found) else {}
    if call.arguments.one("small") is True:
        one = _small(one)
    key = local_target(one.get("url") or "")
    there = None
    if key is not None and key.type == "Binary" and len(row.facts.owners) == 1:
        # Of the record that the message is in, and no more hidden than the message itself.
        visible = Visibility.of_record(
            "Binary",
            practice=call.auth.practice,
            record=row.facts.owners[0],
            sections=row.facts.visibility_class.sections,
            labels=row.facts.visibility_class.labels,
        )
        there = await call.server.reader.read(key, visible)
        checked([there] if there is not None else [], visible)
    if there is None or there.deleted:
        message = "the message has no such file"
        raise NotFound(message)
    return msgspec.structs.replace(answer(there), records=touched_by(row))


def _small(one: dict[str, Any]) -> dict[str, Any]:
    for extension in one.get("extension") or ():
        if extension.get("url") == THUMBNAIL:
            small: dict[str, Any] = extension.get("valueAttachment") or {}
            return small
    return {}
