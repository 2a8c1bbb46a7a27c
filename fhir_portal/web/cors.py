"""Cross-origin requests (Fetch §3.2; SMART App Launch 2.2 §7, "CORS").

Discovery documents are open to every origin. The token endpoints and the FHIR API answer the
origins of registered redirect URIs. Nothing here reads cookies, so credentials are never allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_portal.records import RecordReader
from fhir_portal.smart.client import is_registered_origin

Headers = list[tuple[str, str]]

OPEN: Headers = [("access-control-allow-origin", "*")]

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = (
    "authorization, content-type, accept, if-match, if-none-match, if-none-exist, "
    "if-modified-since, if-range, prefer, range, x-request-id, dpop"
)
_EXPOSED = (
    "etag, location, content-location, last-modified, www-authenticate, retry-after, dpop-nonce, "
    "accept-ranges, content-range"
)
_PREFLIGHT_SECONDS = 3600
_MAX_ORIGIN = 300


async def registered_only(reader: RecordReader, origin: str | None) -> Headers:
    """Headers of an answer to ``origin``: they let it read the answer if it is registered."""
    headers: Headers = [("vary", "Origin")]
    if origin and len(origin) <= _MAX_ORIGIN and await is_registered_origin(reader, origin):
        headers += [
            ("access-control-allow-origin", origin),
            ("access-control-expose-headers", _EXPOSED),
        ]
    return headers


def preflight(allowed: Headers, *, methods: str = _METHODS) -> Headers:
    """Headers of the 204 to a preflight; ``allowed`` is `OPEN` or what `registered_only` gave."""
    if not any(name == "access-control-allow-origin" for name, _ in allowed):
        return allowed
    return [
        *(pair for pair in allowed if pair[0] != "access-control-expose-headers"),
        ("access-control-allow-methods", methods),
        ("access-control-allow-headers", _REQUEST_HEADERS),
        ("access-control-max-age", str(_PREFLIGHT_SECONDS)),
    ]


def is_preflight(method: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether an ASGI request is a CORS preflight."""
    return method == "OPTIONS" and any(
        name == b"access-control-request-method" for name, _ in headers
    )
