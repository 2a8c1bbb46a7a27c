"""Forms that bring files (RFC 7578), read within bounds and kept in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from fhir_portal.smart.errors import InvalidRequest
from fhir_portal.web.form import Pairs, Receive, read_body

FORM: Final = "multipart/form-data"
MAX_BYTES: Final = 12 * 1024 * 1024
_MOST_PARTS: Final = 60
_LONGEST_FIELD: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file of a form: what its sender calls it, what they say it is, and its bytes."""

    name: str
    content_type: str
    content: bytes


async def read_upload(receive: Receive, content_type: str) -> tuple[Pairs, list[Uploaded]]:
    """Return the fields of a form and its files; fields of files that nobody chose are left out.

    Raises `InvalidRequest` for another content type and what cannot be read, `TooLarge`.
    """
    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = options.get(b"boundary")
    if kind.decode("latin-1").lower() != FORM or not boundary:
        raise InvalidRequest(f"Content-Type must be {FORM}")
    body = await read_body(receive, MAX_BYTES)
    fields: list[Field] = []
    files: list[File] = []
    parser = FormParser(
        FORM,
        fields.append,
        files.append,
        boundary=boundary,
        config={
            "MAX_FIELDS": _MOST_PARTS,
            "MAX_FIELD_SIZE": _LONGEST_FIELD,
            "MAX_MEMORY_FILE_SIZE": MAX_BYTES + 1,  # nothing goes to a disk
        },
    )
    try:
        parser.write(body)
        parser.finalize()
        pairs = [(_text(one.field_name), _text(one.value)) for one in fields]
        found = [_uploaded(one) for one in files]
    except (FormParserError, UnicodeDecodeError):
        raise InvalidRequest("the form cannot be read") from None
    finally:
        for one in files:
            one.close()
    return pairs, [one for one in found if one.name or one.content]


def _uploaded(file: File) -> Uploaded:
    file.file_object.seek(0)
    content: bytes = file.file_object.read()
    name = (file.file_name or b"").decode("utf-8", "replace")
    return Uploaded(name, (file.content_type or "").strip(), content)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8")
