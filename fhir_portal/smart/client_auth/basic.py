"""HTTP Basic, by which a client sends its secret (RFC 6749 §2.3.1): which client it names."""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import unquote

from fhir_portal.smart.errors import InvalidClient

CHALLENGE: Final = 'Basic realm="fhir-portal"'
"""``WWW-Authenticate`` of the refusal of a client that used the Authorization header."""


def basic_client_id(authorization: str | None) -> str | None:
    """The client that HTTP Basic names; ``None`` when it is not used.

    Refuses another scheme and a header that cannot be read, so that Authlib never sees one.
    """
    if authorization is None:
        return None
    scheme, _, encoded = authorization.partition(" ")
    try:
        credentials = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        credentials = ""
    user, colon, _ = credentials.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise InvalidClient(
            "the Authorization header is not HTTP Basic", headers={"WWW-Authenticate": CHALLENGE}
        )
    return unquote(user)
