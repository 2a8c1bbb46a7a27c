"""Forms that bring files (RFC 7578), read within bounds and kept in memory."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from fhir_portal.documents.upload import sniffed
from fhir_portal.smart.errors import InvalidRequest, TooLarge
from fhir_portal.web.form import Pairs, Receive, read_body

FORM: Final = "multipart/form-data"
MAX_BYTES: Final = 12 * 1024 * 1024
_MOST_PARTS: Final = 60
_LONGEST_FIELD: Final = 64 * 1024
_LONGEST_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file of a form: what its sender calls it, what they say it is, its bytes, and the field."""

    name: str
    content_type: str
    content: bytes
    field: str = ""


def attachment_of(file: Uploaded) -> dict[str, str]:
    """Return a file as an Attachment. What it is, its content says; a browser goes by its name."""
    return {
        "contentType": sniffed(file.content) or "application/octet-stream",
        "data": base64.b64encode(file.content).decode(),
    }


def attachments_of(files: Sequence[Uploaded]) -> list[tuple[str, str, dict[str, str]]]:
    """Return files as parameters of an operation, with their names."""
    return [
        (
            "attachment",
            "valueAttachment",
            attachment_of(one) | ({"title": one.name[:200]} if one.name.strip() else {}),
        )
        for one in files
    ]


@dataclass(slots=True)
class _Parts:
    """What came so far; the parser itself counts nothing of a form with files."""

    fields: list[Field] = field(default_factory=list)
    files: list[File] = field(default_factory=list)

    def add_field(self, one: Field) -> None:
        self.fields.append(one)
        self._count()
        if len(one.field_name or b"") + len(one.value or b"") > _LONGEST_FIELD:
            raise TooLarge(f"a field is over {_LONGEST_FIELD // 1024} KiB")

    def add_file(self, one: File) -> None:
        self.files.append(one)
        self._count()

    def _count(self) -> None:
        if len(self.fields) + len(self.files) > _MOST_PARTS:
            raise TooLarge(f"the form has more than {_MOST_PARTS} parts")


async def read_upload(
    receive: Receive, content_type: str, *, length: str | None = None
) -> tuple[Pairs, list[Uploaded]]:
    """Return the fields of a form and its files; fields of files that nobody chose are left out.

    ``length`` is the ``Content-Length``, where there is one: what says that it is too large is not
    read. A thread takes it apart.

    Raises `InvalidRequest` for another content type and what cannot be read, `TooLarge`.
    """
    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = options.get(b"boundary")
    if kind.decode("latin-1").lower() != FORM or not boundary:
        raise InvalidRequest(f"Content-Type must be {FORM}")
    if _says_too_much(length or ""):
        raise TooLarge(f"the body is over {MAX_BYTES // 1024} KiB")
    body = await read_body(receive, MAX_BYTES)
    return await asyncio.to_thread(_parsed, body, boundary)


def _says_too_much(length: str) -> bool:
    if not (length.isascii() and length.isdigit()):
        return False
    return len(length) > _LONGEST_LENGTH or int(length) > MAX_BYTES


def _parsed(body: bytes, boundary: bytes) -> tuple[Pairs, list[Uploaded]]:
    parts = _Parts()
    try:
        parser = FormParser(
            FORM,
            parts.add_field,
            parts.add_file,
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": MAX_BYTES + 1},  # nothing goes to a disk
        )
        parser.write(body)
        parser.finalize()
        pairs = [(_text(one.field_name), _text(one.value)) for one in parts.fields]
        found = [_uploaded(one) for one in parts.files]
    except (FormParserError, UnicodeDecodeError):
        raise InvalidRequest("the form cannot be read") from None
    finally:
        for one in parts.files:
            one.close()
    return pairs, [one for one in found if one.name or one.content]


def _uploaded(file: File) -> Uploaded:
    file.file_object.seek(0)
    content: bytes = file.file_object.read()
    name = (file.file_name or b"").decode("utf-8", "replace")
    return Uploaded(name, (file.content_type or "").strip(), content, _text(file.field_name))


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8")
