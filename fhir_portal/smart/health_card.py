"""SMART Health Cards as text: claims, signature, file and QR code; no I/O.

Source: SMART Health Cards and Links 1.0.0, "SMART Health Cards" (health cards are encoded as
compact serialization JWS; health cards as QR codes); RFC 7515, RFC 1951 (raw DEFLATE).
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from joserfc import jws
from joserfc.jws import JWSRegistry

from fhir_portal.smart.health_card_keys import CardSigner
from fhir_portal.smart.token import base64url

CARDS_PATH: Final = "/health-cards"
MEDIA: Final = "application/smart-health-card"
EXTENSION: Final = "smart-health-card"
SCHEME: Final = "shc:/"
TYPES: Final = (
    "https://smarthealth.cards#health-card",
    "https://smarthealth.cards#immunization",
)
FHIR_VERSION: Final = "4.0.1"
LONGEST_IN_QR: Final = 1195
"""Signs of a JWS that one QR code holds, of at most version 22: 40 mm can still be scanned."""
_ALGORITHM: Final = "ES256"
_SIGNATURE_LENGTH: Final = 86
_LOWEST: Final = 45
"""The sign of a compact JWS with the lowest number, ``-``."""


def issuer_of(base: str, practice: str) -> str:
    """Who issues: the address of a practice's keys is below it. No slash at its end."""
    return f"{base}{CARDS_PATH}/{practice}"


def content_of(bundle: Mapping[str, Any], *, issuer: str, now: float, rid: str) -> bytes:
    """Return what is signed of a card: its claims, minified and compressed."""
    claims = {
        "iss": issuer,
        "nbf": int(now),
        "vc": {
            "type": list(TYPES),
            "credentialSubject": {"fhirVersion": FHIR_VERSION, "fhirBundle": bundle},
            "rid": rid,
        },
    }
    deflate = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    return deflate.compress(msgspec.json.encode(claims)) + deflate.flush()


def signed(signer: CardSigner, content: bytes) -> str:
    """Return the card: a compact JWS."""
    registry = JWSRegistry(algorithms=[_ALGORITHM], strict_check_header=False)  # it knows no zip
    return jws.serialize_compact(_header(signer.kid), content, signer.key, registry=registry)


def length_of(kid: str, content: bytes) -> int:
    """How long the JWS will be."""
    header = base64url(msgspec.json.encode(_header(kid)))
    return len(header) + len(base64url(content)) + _SIGNATURE_LENGTH + 2


def qr_parts(card: str) -> tuple[str, str] | None:
    """Return the two segments of a card's QR code, bytes and digits; ``None`` if it is too long.

    Cards in several codes are deprecated, and not made.
    """
    if len(card) > LONGEST_IN_QR:
        return None
    return SCHEME, "".join(f"{ord(sign) - _LOWEST:02}" for sign in card)


def bundle_in(card: str) -> dict[str, Any]:
    """Return the Bundle on a card of ours, which is not verified."""
    payload = zlib.decompress(urlsafe_b64decode(card.split(".")[1] + "=="), -zlib.MAX_WBITS)
    bundle: dict[str, Any] = msgspec.json.decode(payload)["vc"]["credentialSubject"]["fhirBundle"]
    return bundle


def card_file(cards: Sequence[str]) -> bytes:
    """Return the content of a ``.smart-health-card`` file."""
    return msgspec.json.encode({"verifiableCredential": list(cards)})


def _header(kid: str) -> dict[str, str]:
    return {"alg": _ALGORITHM, "zip": "DEF", "kid": kid}
