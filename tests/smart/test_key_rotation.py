"""Signing keys change with overlap: published before they sign, verifying until retired.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from joserfc.jwk import RSAKey

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.smart.keys import (
    JWKS_SECONDS,
    KEPT_SECONDS,
    PUBLISHED_SECONDS,
    KeyInUse,
    KeyRing,
    ListedKey,
    ServerKeys,
    SigningKey,
    UnknownKey,
    WrongSecret,
    list_signing_keys,
    load_server_keys,
    retire_signing_key,
    rotate_signing_key,
)
from tests.smart.world import Clock, signing_key

SECRET = b"s" * 32
HOUR = 3600


class Safe:
    """A store with a first signing key, a clock, and what an operator does."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = EmbeddedStore.open(":memory:", clock=self.clock)
        self.ring = KeyRing(self.store, ServerKeys(SECRET, signing_key()), self.clock)

    async def load(self, secret: bytes = SECRET) -> ServerKeys:
        return await load_server_keys(
            self.store, secret, now=self.clock(), random=lambda n: b"n" * n
        )

    async def rotate(self, **options: Any) -> ListedKey:
        options = {"secret": SECRET, **options}
        secret = options.pop("secret")
        return await rotate_signing_key(
            self.store, secret, now=self.clock(), random=lambda n: b"m" * n, **options
        )

    async def retire(self, kid: str, **options: Any) -> ListedKey:
        return await retire_signing_key(self.store, SECRET, kid, now=self.clock(), **options)

    async def states(self) -> dict[str, str]:
        listed = await list_signing_keys(self.store, SECRET, now=self.clock())
        return {one.kid: one.state for one in listed}

    async def signer(self) -> str:
        return (await self.ring.now()).kid

    async def published(self) -> list[str]:
        return [key["kid"] for key in (await self.ring.now()).jwks()["keys"]]


@functools.cache
def spare_keys() -> tuple[RSAKey, ...]:
    """Made once for all tests: it takes long."""
    return tuple(RSAKey.generate_key(2048, auto_kid=False) for _ in range(4))


@pytest.fixture
async def safe(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Safe]:
    spare = iter(spare_keys())
    monkeypatch.setattr(RSAKey, "generate_key", lambda *_, **__: next(spare))
    safe = Safe()
    yield safe
    safe.store.close()


async def test_a_new_key_is_published_before_it_signs(safe: Safe) -> None:
    """Whoever keeps the old set must have met the key by then.

    Planted fault: the new key signs at once.
    """
    old = (await safe.load()).kid
    new = (await safe.rotate()).kid
    assert await safe.signer() == old
    assert await safe.published() == [old, new]
    assert await safe.states() == {new: "next", old: "signing"}
    assert PUBLISHED_SECONDS >= 2 * JWKS_SECONDS
    safe.clock.advance(PUBLISHED_SECONDS - 1)
    assert await safe.signer() == old
    safe.clock.advance(1)
    assert await safe.signer() == new
    assert await safe.states() == {new: "signing", old: "verifying"}


async def test_the_old_key_is_published_until_it_is_retired(safe: Safe) -> None:
    """Planted fault: only the key that signs is published."""
    old = (await safe.load()).kid
    new = (await safe.rotate()).kid
    safe.clock.advance(30 * 86_400)
    assert await safe.published() == [new, old]
    retired = await safe.retire(old)
    assert (retired.kid, retired.state, retired.retired) == (old, "retired", safe.clock())
    assert await safe.published() == [new]
    assert await safe.states() == {new: "signing", old: "retired"}


async def test_a_running_process_sees_a_rotation_by_another(safe: Safe) -> None:
    """Planted fault: keys are read once, at the start."""
    old = (await safe.load()).kid
    elsewhere = KeyRing(safe.store, ServerKeys(SECRET, signing_key()), safe.clock)
    assert (await elsewhere.now()).kid == old
    new = (await safe.rotate(at_once=True)).kid
    assert (await elsewhere.now()).kid == new
    await safe.retire(old, at_once=True)
    assert [key["kid"] for key in (await elsewhere.now()).jwks()["keys"]] == [new]


async def test_a_process_that_starts_later_has_the_same_keys(safe: Safe) -> None:
    old = (await safe.load()).kid
    new = (await safe.rotate()).kid
    safe.clock.advance(PUBLISHED_SECONDS)
    again = await safe.load()
    assert (again.kid, [key.thumbprint() for key in again.others]) == (new, [old])
    await safe.retire(old, at_once=True)
    assert (await safe.load()).kid == new


async def test_the_key_that_signs_cannot_be_retired(safe: Safe) -> None:
    """Planted fault: it can, and nobody is signed in any more."""
    old = (await safe.load()).kid
    new = (await safe.rotate()).kid
    for kid in (old, new):
        safe.clock.now = safe.clock.now if kid == old else safe.clock.now + PUBLISHED_SECONDS
        for at_once in (False, True):
            with pytest.raises(KeyInUse):
                await safe.retire(kid, at_once=at_once)


async def test_a_key_is_not_retired_while_its_tokens_are_good(safe: Safe) -> None:
    """Planted fault: tokens signed a moment ago stop to verify."""
    old = (await safe.load()).kid
    await safe.rotate()
    safe.clock.advance(PUBLISHED_SECONDS + HOUR - 1)
    with pytest.raises(KeyInUse, match="good for 1 seconds"):
        await safe.retire(old)
    safe.clock.advance(1)
    await safe.retire(old)


async def test_a_key_that_leaked_is_gone_at_once(safe: Safe) -> None:
    old = (await safe.load()).kid
    new = (await safe.rotate(at_once=True)).kid
    assert await safe.signer() == new
    await safe.retire(old, at_once=True)
    assert await safe.published() == [new]


async def test_a_rotation_is_called_off_before_the_key_signs(safe: Safe) -> None:
    old = (await safe.load()).kid
    new = (await safe.rotate()).kid
    await safe.retire(new)
    assert await safe.published() == [old]


async def test_several_rotations_leave_the_newest_to_sign(safe: Safe) -> None:
    """Planted fault: of the keys whose time has come the first made signs on."""
    kids = [(await safe.load()).kid]
    for _ in range(3):
        safe.clock.advance(HOUR)
        kids.append((await safe.rotate()).kid)
    safe.clock.advance(PUBLISHED_SECONDS)
    assert await safe.signer() == kids[-1]
    assert await safe.published() == kids[::-1]
    for kid in kids[:2]:
        await safe.retire(kid)


async def test_two_operators_at_once_leave_two_keys_and_one_signs(safe: Safe) -> None:
    old = (await safe.load()).kid
    made = await asyncio.gather(safe.rotate(), safe.rotate())
    safe.clock.advance(PUBLISHED_SECONDS)
    assert len(await safe.published()) == 3
    assert await safe.signer() in {one.kid for one in made}
    assert old in await safe.published()


async def test_private_halves_are_sealed_and_a_retired_one_is_gone(safe: Safe) -> None:
    """Planted fault: a retired key keeps what it could still sign with."""
    loaded = await safe.load()
    await safe.rotate(at_once=True)
    rows = str(await safe.store.every(SigningKey))
    assert str(loaded.signing.as_dict(private=True)["d"]) not in rows
    await safe.retire(loaded.kid, at_once=True)
    (gone,) = [one for one in await safe.store.every(SigningKey) if one.retired is not None]
    assert (gone.kid, gone.sealed) == (loaded.kid, b"")
    assert gone.expires == safe.clock() + KEPT_SECONDS


async def test_another_secret_rotates_and_reads_nothing(safe: Safe) -> None:
    """Planted fault: a key sealed with another secret is added, and no server starts again."""
    await safe.load()
    with pytest.raises(WrongSecret):
        await safe.rotate(secret=b"t" * 32)
    with pytest.raises(WrongSecret):
        await safe.load(b"t" * 32)
    assert len(await safe.store.every(SigningKey)) == 1


async def test_a_key_from_before_there_were_several_is_known_by_its_thumbprint(
    safe: Safe,
) -> None:
    """A store that an earlier version made."""
    loaded = await safe.load()
    (row,) = await safe.store.every(SigningKey)
    earlier = msgspec.structs.replace(row, kid="", signs_from=0.0)

    async def put(transaction: Any) -> None:
        await transaction.put(earlier)

    await safe.store.transact(put)
    assert await safe.signer() == loaded.kid
    assert await safe.states() == {loaded.kid: "signing"}
    await safe.rotate(at_once=True)
    assert (await safe.retire(loaded.kid, at_once=True)).kid == loaded.kid


async def test_an_unknown_or_retired_key_is_not_retired(safe: Safe) -> None:
    old = (await safe.load()).kid
    with pytest.raises(UnknownKey):
        await safe.retire("unknown")
    await safe.rotate(at_once=True)
    await safe.retire(old, at_once=True)
    with pytest.raises(UnknownKey):
        await safe.retire(old, at_once=True)


async def test_keys_are_opened_once(safe: Safe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sign-in asks for them."""
    await safe.load()
    await safe.rotate()
    await safe.ring.now()

    def unwanted(*_: Any) -> Any:
        raise AssertionError("unsealed again")

    monkeypatch.setattr("fhir_portal.smart.keys.unseal", unwanted)
    assert len(await safe.published()) == 2
