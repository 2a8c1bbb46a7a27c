"""Files of a DocumentReference as pages tell of them and give them out.

Nothing of a file can run here, whatever it says that it is (DESIGN §3.11): text is shown as text,
a picture as a picture, a C-CDA as the page that ``$render`` makes of it; all the rest is saved.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.documents.cda_page import MEDIA as CDA
from fhir_portal.documents.upload import file_name
from fhir_portal.fhir.errors import NotFound
from fhir_portal.web.pages.desk import Answer
from fhir_portal.web.pages.render import SHOWN

Read = Callable[[str], Awaitable[Answer]]
"""Reads a Binary, by its id, as whoever is there."""

LONGEST_TEXT: Final = 200_000
"""Signs of a text that a page shows; a longer one is saved."""
_KILO: Final = 1024
_KINDS: Final[Mapping[str, str]] = {
    "application/pdf": "PDF",
    "text/plain": "text",
    "text/html": "web page",
    "image/png": "picture",
    "image/jpeg": "picture",
    **dict.fromkeys(CDA, "C-CDA document"),
}
_ENDINGS: Final[Mapping[str, str]] = {
    "application/pdf": ".pdf",
    "text/plain": ".txt",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    **dict.fromkeys(CDA, ".xml"),
}


@dataclass(frozen=True, slots=True)
class File:
    """One content of a document; ``number`` counts from 1. ``key`` names its Binary here.

    ``inline`` says that the DocumentReference itself holds it.
    """

    number: int
    name: str
    media: str
    size: str
    key: str
    inline: bool
    attachment: Mapping[str, Any]

    @property
    def plain(self) -> str:
        """The media type alone."""
        return self.media.partition(";")[0].strip().lower()

    @property
    def kind(self) -> str:
        """What it is, in words."""
        words = _KINDS.get(self.plain, self.plain) or "file"
        return f"{words}, {self.size}" if self.size else words

    @property
    def is_here(self) -> bool:
        """Whether its content is kept on this server."""
        return bool(self.key) or self.inline

    @property
    def shown_as(self) -> str:
        """How a page shows it: ``picture``, ``text``, ``cda``, or ``""``: it is saved."""
        if self.plain in SHOWN:
            return "picture"
        if self.plain in CDA:
            return "cda"
        return "text" if self.plain == "text/plain" else ""

    @property
    def saved_as(self) -> str:
        """The name that a browser saves it under: letters of ASCII, and an ending by its type."""
        ending = _ENDINGS.get(self.plain, "")
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file_name(self.name)).strip("-.")
        stem = stem or f"file-{self.number}"
        return stem if ending and stem.lower().endswith(ending) else f"{stem}{ending}"


def files_of(tree: Mapping[str, Any]) -> list[File]:
    """Return the contents of a DocumentReference."""
    found = []
    for number, content in enumerate(tree.get("content") or (), 1):
        attachment = content.get("attachment") or {}
        key = local_target(str(attachment.get("url") or ""))
        found.append(
            File(
                number,
                str(attachment.get("title") or f"File {number}"),
                str(attachment.get("contentType") or ""),
                _size(attachment.get("size")),
                key.id if key is not None and key.type == "Binary" else "",
                "data" in attachment,
                attachment,
            )
        )
    return found


def file_at(tree: Mapping[str, Any], number: int) -> File:
    """Return one content. Raises `NotFound` where it is not there, or not kept here."""
    found = files_of(tree)
    if not 1 <= number <= len(found) or not found[number - 1].is_here:
        raise NotFound("there is no such file")
    return found[number - 1]


async def content_of(file: File, read: Read) -> tuple[str, bytes]:
    """Return media type and bytes: of its Binary, or of what the DocumentReference holds.

    Raises `NotFound`: the Binary is absent, or hidden.
    """
    media, data = file.media, file.attachment.get("data") or ""
    if file.key:
        tree = (await read(file.key)).tree
        media, data = str(tree.get("contentType") or media), tree.get("data") or ""
    try:
        return media, base64.b64decode(data)
    except (binascii.Error, ValueError):
        raise NotFound("the file cannot be read") from None


def lines_of(content: bytes) -> list[str]:
    """Return a text as lines to show."""
    return content.decode("utf-8", "replace")[:LONGEST_TEXT].splitlines()


def _size(size: Any) -> str:
    try:
        count = int(str(size))
    except ValueError:
        return ""
    if count < _KILO:
        return f"{count} bytes"
    if count < _KILO * _KILO:
        return f"{round(count / _KILO)} KB"
    return f"{count / _KILO / _KILO:.1f} MB"
