"""A rotation of the signing keys, as apps see it: no id_token that cannot be verified.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError

from fhir_portal.smart.keys import (
    PUBLISHED_SECONDS,
    load_server_keys,
    retire_signing_key,
    rotate_signing_key,
)
from tests.smart.world import World, published_keys


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    await load_server_keys(world.store, world.keys.secret, now=world.clock(), random=world.random)
    yield world
    world.close()


async def rotate(world: World, **options: Any) -> str:
    made = await rotate_signing_key(
        world.store, world.keys.secret, now=world.clock(), random=world.random, **options
    )
    return made.kid


async def jwks(world: World) -> Any:
    async with world.http() as http:
        response = await http.get("/oauth/jwks")
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers["content-type"] == "application/json"
    return response.json()


def signer_of(id_token: str, keys: Any) -> str:
    """Verify an id_token; the key that signed it. Raises `JoseError`."""
    token = jwt.decode(id_token, published_keys(keys), algorithms=["RS256"])
    return str(token.header["kid"])


async def test_no_id_token_is_signed_with_a_key_that_was_not_published(world: World) -> None:
    """An app that reads the keys every five minutes verifies everything it is given.

    Planted fault: the new key signs at once.
    """
    app = await world.public_app()
    kept, read_at = await jwks(world), world.clock()
    signers = set()
    for minute in range(20):
        if minute == 5:
            await rotate(world)
        body = await app.tokens()
        signers.add(signer_of(body["id_token"], kept))
        world.clock.advance(60)
        if world.clock() >= read_at + 300:
            kept, read_at = await jwks(world), world.clock()
    assert len(signers) == 2


async def test_what_the_old_key_signed_verifies_until_it_is_retired(world: World) -> None:
    """Planted fault: only the key that signs is published."""
    app = await world.public_app()
    before = (await app.tokens())["id_token"]
    old = signer_of(before, await jwks(world))
    new = await rotate(world)
    world.clock.advance(PUBLISHED_SECONDS)
    after = (await app.tokens())["id_token"]
    assert signer_of(after, await jwks(world)) == new
    assert signer_of(before, await jwks(world)) == old
    world.clock.advance(3600)
    await retire_signing_key(world.store, world.keys.secret, old, now=world.clock())
    assert signer_of(after, await jwks(world)) == new
    with pytest.raises((JoseError, ValueError)):
        signer_of(before, await jwks(world))


async def test_published_keys_are_public(world: World) -> None:
    """Planted fault: the set is written with the private members."""
    await rotate(world)
    published = (await jwks(world))["keys"]
    assert len(published) == 2
    for key in published:
        assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
        assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
    assert len({key["kid"] for key in published}) == 2


async def test_refresh_tokens_and_pages_do_not_change_with_the_signing_key(world: World) -> None:
    """They hang on the server's secret alone. Planted fault: they are derived from the key."""
    app = await world.public_app()
    body = await app.tokens()
    code = await app.code()
    await rotate(world, at_once=True)
    assert (await app.refresh(body["refresh_token"])).status_code == 200
    assert (await app.exchange(code)).status_code == 200
