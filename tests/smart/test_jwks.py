"""Which JWK Sets are taken, and which key of a set may verify what."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from fhir_portal.smart.jwks import BadKeys, key_for, registered, usable
from tests.smart.world import client_key

RSA = client_key("RS384", "r").as_dict(private=False)
EC = client_key("ES384", "e").as_dict(private=False)
SECRET_RSA = client_key("RS384", "r").as_dict(private=True)
SECRET_EC = client_key("ES384", "e").as_dict(private=True)
OTHER_CURVE = ECKey.generate_key("P-256", {"kid": "p256"}).as_dict(private=False)
WEAK: dict[str, Any] = {"kty": "RSA", "e": "AQAB", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9"}


def test_public_keys_for_our_algorithms_are_taken() -> None:
    jwks = {"keys": [RSA, EC, {**EC, "kid": "e2", "use": "sig", "alg": "ES384"}]}
    assert registered(jwks) == usable(jwks) == jwks


def test_what_else_a_registered_key_says_is_not_kept() -> None:
    jwks = {"keys": [{**EC, "x5u": "https://app.example/", "x5c": ["MII"], "note": {"a": [1]}}]}
    assert registered(jwks) == {"keys": [EC]}


@pytest.mark.parametrize("kid", ["\ud800", "two\nlines", ["e", 7], ["\ud800"]])
def test_a_registered_key_holds_text_that_a_store_takes(kid: Any) -> None:
    with pytest.raises(BadKeys):
        registered({"keys": [{**EC, "kid": kid}]})


@pytest.mark.parametrize(
    "jwks",
    [
        None,
        [],
        "keys",
        {},
        {"keys": None},
        {"keys": {}},
        {"keys": []},
        {"keys": [7]},
        {"keys": [[]]},
        {"keys": [{}]},
        {"keys": [WEAK]},
        {"keys": [{"kty": "EC"}]},
        {"keys": [{**EC, "x": "AAAA"}]},
        {"keys": [{**EC, "x": 7}]},
        {"keys": [{**EC, "kid": 7}]},
        {"keys": [{**EC, "kid": {}}]},
        {"keys": [{**RSA, "n": "A" * 3000}]},
        {"keys": [{**RSA, "n": {}}]},
        {"keys": [OTHER_CURVE]},
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg"}]},
        {"keys": [{"kty": ["EC"]}]},
        {"keys": [EC] * 51},
    ],
)
def test_what_is_no_set_of_good_keys_is_refused(jwks: Any) -> None:
    with pytest.raises(BadKeys):
        registered(jwks)
    with pytest.raises(BadKeys):
        usable(jwks)


@pytest.mark.parametrize(
    "shown",
    [
        SECRET_RSA,
        SECRET_EC,
        {**RSA, "d": "AQAB"},
        {**RSA, "p": "AQAB"},
        {**EC, "d": ""},
        OctKey.generate_key(256).as_dict(private=True),
        {"kty": "oct"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qY", "d": "nWGx"},
        {"kty": "new kind", "k": "secret"},
    ],
)
def test_a_set_that_shows_a_secret_is_refused_as_a_whole(shown: dict[str, Any]) -> None:
    """Whoever has read it can sign. Planted fault: secret members are not looked at."""
    for keys in ([shown], [EC, shown], [shown, EC]):
        with pytest.raises(BadKeys):
            registered({"keys": keys})
        with pytest.raises(BadKeys):
            usable({"keys": keys})


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": ["sig"]},
        {"use": None},
        {"key_ops": ["sign"]},
        {"key_ops": ["encrypt", "wrapKey"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"alg": "none"},
        {"alg": None},
    ],
)
def test_a_key_meant_for_something_else_verifies_nothing(change: dict[str, Any]) -> None:
    """Planted fault: ``use``, ``key_ops`` and ``alg`` of a key are not looked at."""
    other = {**EC, "kid": "other", **change}
    with pytest.raises(BadKeys):
        registered({"keys": [other]})
    assert usable({"keys": [other, RSA]}) == {"keys": [RSA]}


def test_a_registered_set_names_each_key_once() -> None:
    """Planted fault: two keys of one name are taken, and neither is found later."""
    second = RSAKey.generate_key(2048, {"kid": "r"}).as_dict(private=False)
    with pytest.raises(BadKeys):
        registered({"keys": [RSA, second]})
    registered({"keys": [RSA, {**EC, "kid": "r"}]})


@pytest.mark.parametrize(
    ("header", "kty"),
    [
        ({"alg": "RS384", "kid": "r"}, "RSA"),
        ({"alg": "ES384", "kid": "e"}, "EC"),
        ({"alg": "ES384"}, "EC"),
    ],
)
def test_kid_and_algorithm_pick_the_key(header: dict[str, Any], kty: str) -> None:
    keys = KeySet.import_key_set({"keys": [RSA, EC]})
    assert key_for(header, keys).key_type == kty


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": "RS384", "kid": "e"},
        {"alg": "ES384", "kid": "r"},
        {"alg": "ES384", "kid": ""},
        {"alg": "ES384", "kid": 7},
        {"alg": "ES384", "kid": ["e"]},
        {"alg": "ES384", "kid": {"e": 1}},
        {"alg": "ES384", "kid": "E"},
        {"alg": "ES384", "kid": "../e"},
        {"alg": "ES384", "kid": "e' OR '1'='1"},
        {"alg": "ES384", "kid": "e\x00"},
        {"alg": "RS256", "kid": "r"},
        {"alg": "PS384", "kid": "r"},
        {"alg": "HS256", "kid": "r"},
        {"alg": "none"},
        {"alg": None, "kid": "r"},
        {"alg": ["ES384"], "kid": "e"},
        {"alg": "RS384", "kid": "x", "jwk": RSA},
    ],
)
def test_no_other_header_finds_a_key(header: dict[str, Any]) -> None:
    """Algorithm confusion, tricks with ``kid``. Planted fault: the first key will do."""
    keys = KeySet.import_key_set({"keys": [RSA, EC]})
    with pytest.raises(ValueError, match="no registered key fits"):
        key_for(header, keys)


def test_without_kid_two_keys_that_fit_are_none() -> None:
    keys = KeySet.import_key_set({"keys": [EC, {**EC, "kid": "e2"}]})
    with pytest.raises(ValueError, match="no registered key fits"):
        key_for({"alg": "ES384"}, keys)
