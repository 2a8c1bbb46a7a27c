"""``DocumentReference/[id]/$render``: a stored C-CDA document as a page that is safe to show."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.documents.cda_page import MEDIA, NotReadable, as_page
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.permission import checked, permitted
from fhir_portal.resources.store import Row

PAGE: Final = "text/html; charset=utf-8"


async def render(call: Call) -> FhirResponse:
    """Return the page as a Binary that is stored nowhere.

    The content is what the DocumentReference holds or its Binary here; no other address is asked.

    Raises:
        NotFound: the document or its Binary is absent, or hidden; the same words.
        Unprocessable: it holds no C-CDA document, or none that can be read.
    """
    row = await call.target(call.server.reader)
    attachment = _attachment(json.parse(row.body))
    content, rows = await _content(call, attachment)
    try:
        page = await asyncio.to_thread(as_page, content)
    except NotReadable as error:
        raise Unprocessable(str(error), expression="DocumentReference.content") from None
    return call.binary(PAGE, page, row, *rows)


def _attachment(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    for one in tree.get("content") or ():
        attachment: Mapping[str, Any] = one.get("attachment") or {}
        media = str(attachment.get("contentType") or "").partition(";")[0].strip().lower()
        if media in MEDIA:
            return attachment
    message = "this document has no content that is a C-CDA"
    raise Unprocessable(message, expression="DocumentReference.content")


async def _content(call: Call, attachment: Mapping[str, Any]) -> tuple[bytes, list[Row]]:
    if "data" in attachment:
        return _decoded(attachment["data"]), []
    key = local_target(str(attachment.get("url") or ""))
    if key is None or key.type != "Binary":
        message = "the content of this document is not stored here"
        raise Unprocessable(message, expression="DocumentReference.content")
    visible = permitted(call.server, call.auth, "r", "Binary")
    row = await call.server.reader.read(key, visible)
    if row is None or row.deleted:
        raise unknown(key)
    checked([row], visible)
    return _decoded(json.parse(row.body).get("data") or ""), [row]


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        message = "the content of this document is not base64"
        raise Unprocessable(message, expression="DocumentReference.content") from None
