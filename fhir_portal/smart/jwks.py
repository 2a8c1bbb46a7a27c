"""Public keys of clients: which JWK Sets are taken, and which key of one may verify a signature.

RFC 7517, RFC 8725 §3 (algorithm confusion), SMART App Launch 2.2 §4: RS384 and ES384.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key, KeySet, import_key

ALGORITHMS: Final[Mapping[str, str]] = {"RS384": "RSA", "ES384": "EC"}
"""The signature algorithms accepted, and the key type each needs."""

MOST_KEYS: Final = 50
_CURVE: Final = "P-384"
_LONGEST_MODULUS: Final = 1400
"""Characters of an RSA key of 8192 bits; longer ones take long to verify with."""
_LONGEST_EXPONENT: Final = 8
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of a JWK that are nobody else's business (RFC 7518 §6)."""
_KNOWN: Final = frozenset({"kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e"})


class BadKeys(Exception):
    """A JWK Set that is not taken; the words are for whoever registered it."""


def registered(jwks: Any) -> dict[str, Any]:
    """Return a set to be registered, with the members we know. Raises `BadKeys`.

    A set in which any key could not be used is refused: somebody should look at it now.
    """
    listed = [_known(jwk) for jwk in _listed(jwks)]
    for jwk in listed:
        problem = _problem(jwk)
        if problem:
            raise BadKeys(problem)
    names = [(jwk["kty"], jwk.get("kid")) for jwk in listed]
    if len(set(names)) < len(names):
        raise BadKeys("two keys of one type in a JWK Set have kids of their own")
    return {"keys": listed}


def usable(jwks: Any) -> dict[str, Any]:
    """Return what can be used of a set that was fetched; what is not understood is left out.

    Raises `BadKeys` when that is nothing, or when the set shows what should be secret.
    """
    found = [jwk for jwk in _listed(jwks) if not _problem(jwk)]
    if not found:
        raise BadKeys("the JWK Set holds no public RSA or P-384 key for RS384 or ES384")
    return {"keys": found}


def is_public(jwk: Any) -> bool:
    """Whether a JWK is one that may be shown around: asymmetric, without its secret half."""
    return isinstance(jwk, dict) and _SECRET.isdisjoint(jwk) and jwk.get("kty") != "oct"


def key_for(header: Mapping[str, Any], keys: KeySet) -> Key:
    """The one key of this ``kid`` that fits ``alg``; without ``kid``, the only one that fits.

    Nothing else in the header says anything about keys: ``jwk``, ``jku`` and ``x5c`` are the
    sender's own words. Raises `ValueError`.
    """
    kid, algorithm = header.get("kid"), str(header.get("alg"))
    fitting = [
        key
        for key in keys.keys
        if _fits(key.as_dict(), algorithm) and (kid is None or key.as_dict().get("kid") == kid)
    ]
    if len(fitting) != 1:
        raise ValueError("no registered key fits")
    return fitting[0]


def kids_of(jwks: Mapping[str, Any]) -> frozenset[str]:
    """The names of the keys in a set that `usable` returned."""
    return frozenset(jwk["kid"] for jwk in jwks["keys"] if "kid" in jwk)


def _listed(jwks: Any) -> list[dict[str, Any]]:
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(listed, list) or not listed:
        raise BadKeys("jwks must be a JWK Set (RFC 7517 section 5)")
    if len(listed) > MOST_KEYS:
        raise BadKeys(f"a JWK Set has at most {MOST_KEYS} keys")
    for jwk in listed:
        if not isinstance(jwk, dict):
            raise BadKeys("jwks must be a JWK Set (RFC 7517 section 5)")
        if not is_public(jwk):
            raise BadKeys("jwks holds public keys only: replace this private or shared one")
    return listed


def _known(jwk: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in jwk.items() if name in _KNOWN}
    words = [one for value in known.values() for one in _listed_words(value)]
    if not all(isinstance(one, str) and one.isprintable() for one in words):
        raise BadKeys("the members of a key are text, or a list of text")
    return known


def _listed_words(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _problem(jwk: Mapping[str, Any]) -> str:
    """Why a key can verify nothing here, or ``""``."""
    kty = jwk.get("kty")
    algorithm = next((alg for alg, needs in ALGORITHMS.items() if needs == kty), None)
    if algorithm is None:
        return "jwks must hold public RSA or EC keys"
    if not isinstance(jwk.get("kid", ""), str):
        return "a kid is text"
    if kty == "EC" and jwk.get("crv") != _CURVE:
        return f"an EC key must be on {_CURVE}, for ES384"
    if kty == "RSA" and len(str(jwk.get("n"))) > _LONGEST_MODULUS:
        return "an RSA key has at most 8192 bits"
    if kty == "RSA" and len(str(jwk.get("e"))) > _LONGEST_EXPONENT:
        return "the exponent of an RSA key is too long"
    if not _fits(jwk, algorithm):
        return f"use, key_ops and alg of a key must allow it to verify {algorithm}"
    try:
        with warnings.catch_warnings(action="error", category=SecurityWarning):
            import_key(dict(jwk))
    except (JoseError, SecurityWarning, TypeError, ValueError, AttributeError, KeyError):
        return "jwks holds a key that is broken or too weak"
    return ""


def _fits(jwk: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key is of the algorithm's type, and not meant for something else."""
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("kty") == ALGORITHMS.get(algorithm)
        and jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and jwk.get("alg", algorithm) == algorithm
    )
