"""FHIR's primitive types in JSON: which JSON type, which form.

Source: FHIR R4 §2.24.0.1 (primitive types), §2.6.2 (JSON).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from fhir_portal.fhir.datetime import is_date, is_date_time, is_instant, is_time
from fhir_portal.fhir.reference import is_id

_MAX_STRING = 1024 * 1024
_INT32 = 2**31

# XML 1.0 cannot say the control characters either, so a string with one could not be served as XML.
_TEXT = re.compile(rf"[^\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]{{1,{_MAX_STRING}}}")
_CODE = re.compile(r"[^\s\x00-\x1f]+(?: [^\s\x00-\x1f]+)*")
_URI = re.compile(
    r"(?!(?i:javascript|vbscript):)"
    r"(?:(?!urn:(?:oid|uuid):)[^\s\x00-\x1f<>\"\ufffe\uffff]+"
    r"|urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"
    r"|urn:uuid:[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"
)
_CANONICAL = re.compile(
    r"(?!(?i:javascript|vbscript):)[^\s\x00-\x1f<>\"|\ufffe\uffff]+(?:\|[^\s\x00-\x1f<>\"|]+)?"
)
_OID = re.compile(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+")
_UUID = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_BLANK = re.compile(r"[ \t\r\n]+")
_DECIMAL = re.compile(rb"-?[0-9.]{1,100}(?:[eE][+-]?[0-9]{1,3})?")


class Primitive(NamedTuple):
    """How to tell a value of one primitive type; ``words`` complete "Must be …"."""

    json_types: tuple[type, ...]
    holds: Callable[[Any], object]
    words: str


def _is_base64(text: str) -> bool:
    bare = _BLANK.sub("", text)
    return bool(bare) and len(bare) % 4 == 0 and _BASE64.fullmatch(bare) is not None


def _is_decimal(value: msgspec.Raw | int) -> bool:
    if isinstance(value, int):
        return abs(value) < 10**100
    return _DECIMAL.fullmatch(value) is not None


def _is_boolean(_: bool) -> bool:  # noqa: FBT001 - the JSON type says it all
    return True


_TEXT_WORDS = "a string that is not empty, without control characters and up to 1 MB"
_URI_WORDS = "a URI without blanks, quotes or angle brackets"

PRIMITIVES: Mapping[str, Primitive] = {
    "base64Binary": Primitive((str,), _is_base64, "base64 with its padding"),
    "boolean": Primitive((bool,), _is_boolean, "true or false, without quotes"),
    "canonical": Primitive(
        (str,), _CANONICAL.fullmatch, "a canonical URL, with |version or without"
    ),
    "code": Primitive((str,), _CODE.fullmatch, "a code: no blanks at its ends, single ones inside"),
    "date": Primitive((str,), is_date, "a date: YYYY, YYYY-MM or YYYY-MM-DD, that exists"),
    "dateTime": Primitive((str,), is_date_time, "a date, or a time to the second with its zone"),
    "decimal": Primitive((int, msgspec.Raw), _is_decimal, "a number without quotes"),
    "id": Primitive((str,), is_id, "1 to 64 letters, digits, '-' or '.'"),
    "instant": Primitive((str,), is_instant, "a time to the second or finer with its zone"),
    "integer": Primitive((int,), range(-_INT32, _INT32).__contains__, "a whole number of 32 bits"),
    "markdown": Primitive((str,), _TEXT.fullmatch, _TEXT_WORDS),
    "oid": Primitive((str,), _OID.fullmatch, "an OID that starts with urn:oid:"),
    "positiveInt": Primitive((int,), range(1, _INT32).__contains__, "a whole number from 1"),
    "string": Primitive((str,), _TEXT.fullmatch, _TEXT_WORDS),
    "time": Primitive((str,), is_time, "a time of day, hh:mm:ss, without a zone"),
    "unsignedInt": Primitive((int,), range(_INT32).__contains__, "a whole number from 0"),
    "uri": Primitive((str,), _URI.fullmatch, _URI_WORDS),
    "url": Primitive((str,), _URI.fullmatch, _URI_WORDS),
    "uuid": Primitive((str,), _UUID.fullmatch, "a UUID that starts with urn:uuid:, in lower case"),
}
