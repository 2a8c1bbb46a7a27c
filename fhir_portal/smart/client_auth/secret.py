"""Client secrets: made by the server, shown once, kept as a hash.

A secret has 256 random bits, so a plain SHA-256 is enough; there is nothing to guess.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

_BYTES = 32


def new_secret(random: Callable[[int], bytes]) -> str:
    """Make a secret in the base64url alphabet, which no form of HTTP Basic has to escape."""
    return base64.urlsafe_b64encode(random(_BYTES)).rstrip(b"=").decode()


def secret_hash(secret: str) -> str:
    """Return what is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret(secret: str, stored: str | None) -> bool:
    """Compare in constant time."""
    return stored is not None and hmac.compare_digest(secret_hash(secret), stored)
