"""DPoP (RFC 9449): a token that is of use only to whoever holds the key it was bound to.

A proof is a JWT, made for one request and signed with that key, whose public half it carries. Each
proof is good once: its ``jti`` is stored, by whoever takes it, for as long as it would be fresh.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key, import_key

from fhir_portal.records import Record
from fhir_portal.smart.errors import InvalidDpopProof, UseDpopNonce
from fhir_portal.smart.jwks import is_public
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.token import base64url

ALGORITHMS: Final[Mapping[str, str]] = {
    "ES256": "EC",
    "ES384": "EC",
    "PS256": "RSA",
    "PS384": "RSA",
    "RS256": "RSA",
    "RS384": "RSA",
    "Ed25519": "OKP",
}
"""The signature algorithms accepted, and the key type each needs; all of them asymmetric."""

MAX_AGE_SECONDS: Final = 60
SKEW_SECONDS: Final = 30
NONCE_SECONDS: Final = 300
_NONCE_BYTES: Final = 18
_MAX_PROOF: Final = 8 * 1024
_MAX_JTI: Final = 512
_LONGEST_MODULUS: Final = 700
"""Characters of an RSA key of 4096 bits."""
_LONGEST_EXPONENT: Final = 8
_TYPE: Final = "dpop+jwt"
_UNREADABLE: Final = (
    JoseError,
    SecurityWarning,  # a key that is too weak
    ValueError,
    RecursionError,
    TypeError,
    AttributeError,
    LookupError,
)
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[^/?#@\[\]:]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?(?:[?#].*)?",
    re.IGNORECASE,
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""The shape of a ``jkt``: the SHA-256 thumbprint of a key (RFC 7638), base64url."""


class UsedProof(Record, frozen=True, kw_only=True):
    """A proof that was taken; ``key`` is the hash of its key's thumbprint and its ``jti``."""

    kind: ClassVar[str] = "used-proof"


@dataclass(frozen=True, slots=True)
class DpopPolicy:
    """What an operator sets: ``required`` of every client, and ``nonce``: proofs made just now."""

    required: bool = False
    nonce: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """A proof as a request shows it, and the request: its method, and its address by every name."""

    proof: str
    method: str
    urls: tuple[str, ...]


def verify(
    shown: Shown,
    *,
    now: float,
    seen: Callable[[UsedProof], None],
    access_token: str | None = None,
    nonces: Collection[str] | None = None,
) -> str:
    """Check a proof (RFC 9449 §4.3); return the thumbprint of its key.

    ``access_token`` is the token that comes with it, where one does. ``nonces`` are those that
    count now, the newest first; ``None`` asks for none. ``seen`` is told what to store: that it
    was not stored before is for its transaction to find out. Raises `InvalidDpopProof`, or
    `UseDpopNonce`. The words never repeat the proof.
    """
    key, claims = _verified(shown.proof)
    _check_request(claims, shown)
    _check_time(claims, now)
    if access_token is not None:
        digest = hashlib.sha256(access_token.encode("utf-8", "surrogatepass")).digest()
        if claims.get("ath") != base64url(digest):
            raise InvalidDpopProof("ath is not the hash of the access token")
    if nonces is not None and claims.get("nonce") not in nonces:
        newest = next(iter(nonces))
        raise UseDpopNonce(
            "make the proof with the nonce of the DPoP-Nonce header",
            headers={"DPoP-Nonce": newest},
        )
    jkt = key.thumbprint()
    named = f"{jkt}:{claims['jti']}".encode("utf-8", "surrogatepass")
    seen(
        UsedProof(
            key=hashlib.sha256(named).hexdigest(),
            expires=claims["iat"] + MAX_AGE_SECONDS + SKEW_SECONDS,
        )
    )
    return jkt


def nonces_at(keys: ServerKeys, now: float) -> tuple[str, ...]:
    """The nonces that count at a moment: made of the time and the secret, kept nowhere (§8)."""
    slot = int(now // NONCE_SECONDS)
    return tuple(
        base64url(keys.derive("dpop-nonce", one.to_bytes(8, "big"))[:_NONCE_BYTES])
        for one in (slot, slot - 1)
    )


def used_before() -> InvalidDpopProof:
    """The refusal of a proof whose `UsedProof` is stored already."""
    return InvalidDpopProof("the proof was used before: each request needs one of its own")


def _verified(proof: str) -> tuple[Key, dict[str, Any]]:
    """Return the key of a proof and the claims it signed."""
    if not proof:
        raise InvalidDpopProof("send a proof in the DPoP header")
    if len(proof) > _MAX_PROOF:
        raise InvalidDpopProof("the proof is too long")
    try:
        header = jws.extract_compact(proof.encode(), registry=_Registry()).headers()
        key = _key_of(header)
        token = jwt.decode(proof, key, registry=_Registry())
        claims = token.claims
    except _UNREADABLE:
        raise InvalidDpopProof("the proof is no JWT signed with the key it carries") from None
    if not isinstance(claims, dict):
        raise InvalidDpopProof("the proof is no JWT signed with the key it carries")
    return key, claims


def _key_of(header: Mapping[str, Any]) -> Key:
    """The public key in a proof's header; it fits the algorithm. Raises `ValueError` and others."""
    jwk = header["jwk"]
    if header.get("typ") != _TYPE or "crit" in header:
        raise ValueError("no proof")
    if not is_public(jwk) or jwk.get("kty") != ALGORITHMS.get(header["alg"]):
        raise ValueError("no public key for this algorithm")
    if len(jwk.get("n", "")) > _LONGEST_MODULUS or len(jwk.get("e", "")) > _LONGEST_EXPONENT:
        raise ValueError("a key that takes long to verify with")
    with warnings.catch_warnings(action="error", category=SecurityWarning):
        return import_key({name: jwk[name] for name in jwk if name in _KEY_MEMBERS})


_KEY_MEMBERS: Final = frozenset({"kty", "crv", "x", "y", "n", "e"})


class _Registry(jws.JWSRegistry):
    """joserfc's registry for our algorithms; the header is longer, since it holds a key."""

    max_header_length = 4096

    def __init__(self) -> None:
        super().__init__(algorithms=list(ALGORITHMS), strict_check_header=False)


def _check_request(claims: Mapping[str, Any], shown: Shown) -> None:
    if claims.get("htm") != shown.method:
        raise InvalidDpopProof("htm is not the method of the request")
    htu = claims.get("htu")
    named = _plain(htu) if isinstance(htu, str) else None
    if named is None or named not in {_plain(url) for url in shown.urls}:
        raise InvalidDpopProof("htu is not the address of the request")


def _check_time(claims: Mapping[str, Any], now: float) -> None:
    iat, jti = claims.get("iat"), claims.get("jti")
    if isinstance(iat, bool) or not isinstance(iat, int | float):
        raise InvalidDpopProof("iat is missing")
    if not now - MAX_AGE_SECONDS - SKEW_SECONDS < iat <= now + SKEW_SECONDS:
        raise InvalidDpopProof(f"iat is not within {MAX_AGE_SECONDS} seconds of now")
    if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_JTI:
        raise InvalidDpopProof(f"jti is text of at most {_MAX_JTI} characters")


def _plain(url: str) -> tuple[str, ...] | None:
    """An address without query and fragment, in one spelling (RFC 3986 §6.2.2 and §6.2.3)."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    port = match["port"] or _DEFAULT_PORTS[scheme]
    return scheme, match["host"].lower(), port, _ESCAPED.sub(_unescaped, match["path"] or "/")


def _unescaped(escaped: re.Match[str]) -> str:
    character = chr(int(escaped[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escaped[0].upper()
