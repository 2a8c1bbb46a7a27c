"""The signature on what is said between this server and whoever sends for it.

    Fhir-Portal-Signature: t=<seconds since 1970 UTC>,v1=<hexadecimal>

``v1`` is the HMAC-SHA-256, with the secret that both sides know, of ``<t>.<path>.<body>``: of when,
to which path and what. What was signed for one address is no good at another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

SIGNATURE: Final = "Fhir-Portal-Signature"
GOOD_FOR_SECONDS: Final = 300.0
"""How far the clocks may be apart, and how old what was signed may be."""
_HEADER: Final = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


def signature(secret: str, path: str, body: bytes, *, at: float) -> str:
    """Return the header for a body that goes to a path at a moment."""
    seconds = f"{at:.0f}"
    signed = b".".join((seconds.encode(), path.encode(), body))
    return f"t={seconds},v1={hmac.digest(secret.encode(), signed, hashlib.sha256).hex()}"


def is_signed(secret: str, path: str, body: bytes, header: str, *, now: float) -> bool:
    """Whether a header is the signature of a body at a path, made about now."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return False
    at = float(match[1])
    genuine = signature(secret, path, body, at=at)
    return hmac.compare_digest(genuine, header) and abs(now - at) <= GOOD_FOR_SECONDS
