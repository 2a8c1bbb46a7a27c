"""Calls about documents of the patient's side, said in a line: ``await uploaded(ada)``."""

from __future__ import annotations

import base64
import itertools
from typing import Any

from tests.builders import Answer, Caller, Json
from tests.documents.pictures import a_picture
from tests.operations.messages import SYSTEM, a_file

_NUMBERS = itertools.count(1)
PHOTO = a_picture("JPEG")


async def uploaded(
    caller: Caller, content: bytes = PHOTO, kind: str = "image/jpeg", **given: Any
) -> Answer:
    """``$upload``: a photo, unless something else is given."""
    said: Json = {"title": "A rash", "identifier": f"urn:uuid:document-{next(_NUMBERS)}"} | given
    listed: list[Json] = [
        {
            "name": "identifier",
            "valueIdentifier": {"system": SYSTEM, "value": said.pop("identifier")},
        },
        {
            "name": "attachment",
            "valueAttachment": said.pop("file", None) or a_file(content, kind, "rash.jpg"),
        },
    ]
    members = {
        "title": "valueString",
        "type": "valueCode",
        "date": "valueDate",
        "confidential": "valueBoolean",
    }
    listed += [{"name": n, members[n]: v} for n, v in said.items() if v is not None]
    body = {"resourceType": "Parameters", "parameter": listed}
    return await caller.ask("POST", "DocumentReference/$upload", body)


async def decided(caller: Caller, document: str, decision: str = "accept", **given: Any) -> Answer:
    """``$review-document``."""
    members = {
        "title": "valueString",
        "type": "valueCodeableConcept",
        "date": "valueDate",
        "reason": "valueString",
    }
    listed: list[Json] = [{"name": "decision", "valueCode": decision}]
    listed += [{"name": n, members[n]: v} for n, v in given.items()]
    body = {"resourceType": "Parameters", "parameter": listed}
    return await caller.ask("POST", f"{document}/$review-document", body)


async def bytes_of(caller: Caller, document: Json) -> bytes:
    """What the first file of a document holds, as somebody reads it."""
    found = await caller.get(document["content"][0]["attachment"]["url"])
    assert found.status == 200, found.body
    return base64.b64decode(found.json["data"])
