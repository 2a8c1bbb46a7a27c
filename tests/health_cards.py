"""SMART Health Cards as a verifier takes them, by the specification and without our own code.

SMART Health Cards and Links 1.0.0; RFC 7515 §5.2, RFC 7518 §3.4, RFC 7638.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.builders import Answer, Json

LONGEST = 1195
PLACE = re.compile(r"resource:\d+")


def unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def thumbprint(key: Mapping[str, str]) -> str:
    """RFC 7638 §3."""
    named = {name: key[name] for name in ("crv", "kty", "x", "y")}
    return packed(hashlib.sha256(json.dumps(named, separators=(",", ":")).encode()).digest())


def verified(card: str, jwks: Mapping[str, Any]) -> Json:
    """The claims of a card. Raises `InvalidSignature`, or says which rule does not hold."""
    head, body, signature = card.split(".")
    header = json.loads(unpacked(head))
    assert set(header) == {"alg", "zip", "kid"}
    assert (header["alg"], header["zip"]) == ("ES256", "DEF")
    (key,) = [one for one in jwks["keys"] if one["kid"] == header["kid"]]
    assert (key["kty"], key["use"], key["alg"], key["crv"]) == ("EC", "sig", "ES256", "P-256")
    assert key["kid"] == thumbprint(key)
    assert "d" not in key
    x, y = (int.from_bytes(unpacked(key[name])) for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    raw = unpacked(signature)
    assert len(raw) == 64
    pair = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    public.verify(pair, f"{head}.{body}".encode(), ec.ECDSA(SHA256()))
    return claims_of(card)


def claims_of(card: str) -> Json:
    """The claims, with what is asked of their form."""
    plain = zlib.decompress(unpacked(card.split(".")[1]), wbits=-15)
    claims: Json = json.loads(plain)
    assert plain == json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()
    assert not claims["iss"].endswith("/")
    assert isinstance(claims["nbf"], int)
    assert "https://smarthealth.cards#health-card" in claims["vc"]["type"]
    subject = claims["vc"]["credentialSubject"]
    assert re.fullmatch(r"4\.0\.\d", subject["fhirVersion"])
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,24}", claims["vc"]["rid"])
    assert not list(superfluous(subject["fhirBundle"]))
    return claims


def superfluous(bundle: Json) -> Iterator[str]:
    """What a Bundle has that one in a QR code may not have."""
    for entry in bundle["entry"]:
        if not PLACE.fullmatch(entry["fullUrl"]):
            yield entry["fullUrl"]
        yield from sorted({"id", "meta", "text"} & set(entry["resource"]))
        yield from _superfluous(entry["resource"])


def _superfluous(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _superfluous(one)
    elif isinstance(value, dict):
        if "coding" in value and "text" in value:
            yield "CodeableConcept.text"
        if {"system", "code", "display"} <= set(value):
            yield "Coding.display"
        if not PLACE.fullmatch(value.get("reference", "resource:0")):
            yield value["reference"]
        for one in value.values():
            yield from _superfluous(one)


def cards_in(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    given = answer.json.get("parameter", [])
    return [one["valueString"] for one in given if one["name"] == "verifiableCredential"]


def resources_on(cards: Sequence[str], name: str) -> list[Json]:
    return [
        entry["resource"]
        for card in cards
        for entry in claims_of(card)["vc"]["credentialSubject"]["fhirBundle"]["entry"]
        if entry["resource"]["resourceType"] == name
    ]


def codes_on(cards: Sequence[str]) -> list[str]:
    found = resources_on(cards, "Immunization")
    return [one["vaccineCode"]["coding"][0]["code"] for one in found]
