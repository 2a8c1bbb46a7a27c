"""SMART Health Links as text: the link with its payload, and files encrypted for it; no I/O.

Source: SMART Health Cards and Links 1.0.0, "SMART Health Links"; RFC 7516 (JWE, compact).
"""

from __future__ import annotations

from typing import Final

import msgspec
from joserfc import jwe
from joserfc.jwk import OctKey

from fhir_portal.smart.token import base64url

SCHEME: Final = "shlink:/"
FLAG: Final = "LP"
"""What is shared may change for as long as the link lasts (L); there is a passcode (P)."""
JOSE: Final = "application/jose"
_FHIR: Final = "application/fhir+json"
FILE_TYPE: Final = f"{_FHIR};fhirVersion=4.0.1"
_ALGORITHMS: Final = ["dir", "A256GCM"]


def health_link(*, url: str, key: bytes, until: float, label: str) -> str:
    """Return a link: ``url`` is where its manifest is asked for, ``key`` has 32 bytes."""
    payload = {"url": url, "key": base64url(key), "exp": int(until), "flag": FLAG}
    if label:
        payload["label"] = label
    return SCHEME + base64url(msgspec.json.encode({**payload, "v": 1}))


def sealed(content: bytes, key: bytes) -> str:
    """Encrypt FHIR JSON as a compact JWE, for whoever has the link."""
    header = {"alg": "dir", "enc": "A256GCM", "cty": _FHIR}
    return jwe.encrypt_compact(header, content, OctKey.import_key(key), algorithms=_ALGORITHMS)
