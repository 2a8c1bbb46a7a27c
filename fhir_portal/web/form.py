"""Reading what browsers and clients post: small, strict, each pair as it came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from fhir_portal.smart.errors import InvalidRequest, TooLarge

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Pairs = list[tuple[str, str]]

FORM: Final = "application/x-www-form-urlencoded"
MAX_BYTES: Final = 64 * 1024
_MAX_FIELDS: Final = 1000


async def read_body(receive: Receive, at_most: int = MAX_BYTES) -> bytes:
    """Read a body of at most so many bytes. Raises `TooLarge`."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the request ended early")
        body += message.get("body", b"")
        if len(body) > at_most:
            raise TooLarge(f"the body is over {at_most // 1024} KiB")
        if not message.get("more_body", False):
            return bytes(body)


def parse_form(body: bytes, content_type: str) -> Pairs:
    """Parse a form body. Raises `InvalidRequest` for another content type or bad encoding."""
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise InvalidRequest(f"Content-Type must be {FORM}")
    return parse_pairs(body)


def parse_pairs(raw: bytes) -> Pairs:
    """Parse form or query bytes, keeping blank values. Raises `InvalidRequest`."""
    try:
        return parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise InvalidRequest("the parameters are not form-encoded UTF-8") from None


def came_once(pairs: Pairs) -> dict[str, str]:
    """Return the fields whose names came once; names that came twice say nothing."""
    times = Counter(name for name, _ in pairs)
    return {name: value for name, value in pairs if times[name] == 1}


def once_each(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters by name. Raises `InvalidRequest` when a name came twice."""
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise InvalidRequest("a parameter came more than once")
    return parameters
