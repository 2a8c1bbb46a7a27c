from __future__ import annotations

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.smart.keys import ServerKeys, SigningKey, WrongSecret, load_server_keys
from tests.smart.world import published_keys, signing_key

SECRET = b"s" * 32


async def test_the_signing_key_is_made_once_and_sealed() -> None:
    store = EmbeddedStore.open(":memory:")
    made = await load_server_keys(store, SECRET, now=1.0, random=lambda n: b"n" * n)
    again = await load_server_keys(store, SECRET, now=2.0, random=lambda n: b"m" * n)
    stored = await store.every(SigningKey)
    with pytest.raises(WrongSecret):
        await load_server_keys(store, b"t" * 32, now=3.0, random=lambda n: b"o" * n)
    store.close()
    assert made.kid == again.kid
    private = made.signing.as_dict(private=True)
    assert str(private["d"]) not in str(stored)


def test_the_published_key_is_public_and_named() -> None:
    keys = ServerKeys(SECRET, signing_key())
    (published,) = keys.jwks()["keys"]
    assert set(published) == {"kty", "n", "e", "kid", "use", "alg"}
    assert (published["kty"], published["alg"], published["kid"]) == ("RSA", "RS256", keys.kid)
    assert published_keys(keys.jwks()).keys[0].is_private is False


def test_derived_keys_depend_on_purpose_parts_and_secret() -> None:
    keys = ServerKeys(SECRET, signing_key())
    other = ServerKeys(b"t" * 32, signing_key())
    derived = [
        keys.derive("a", b"x", b"y"),
        keys.derive("b", b"x", b"y"),
        keys.derive("a", b"xy"),
        keys.derive("a", b"x", b"y", b""),
        other.derive("a", b"x", b"y"),
    ]
    assert len(set(derived)) == len(derived)
    assert derived[0] == keys.derive("a", b"x", b"y")
