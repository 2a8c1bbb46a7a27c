"""Keys of SMART Health Cards: sealed, rotated with overlap, kept for verifying, withdrawn; lists.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.smart.health_card import content_of, length_of, qr_parts, signed
from fhir_portal.smart.health_card_keys import (
    CardKeys,
    HealthCardKey,
    jwks_of,
    keys_of,
    revocation_list,
    state_of,
)
from fhir_portal.smart.keys import PUBLISHED_SECONDS, UnknownKey, WrongSecret, derive
from tests.builders import Clock
from tests.health_cards import thumbprint, verified

SECRET = b"s" * 32
ELM, OAK = "elm", "oak"
BUNDLE: dict[str, Any] = {"resourceType": "Bundle", "type": "collection", "entry": []}


class Safe:
    """A store, a clock, and what issuers and operators do."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = EmbeddedStore.open(":memory:", clock=self.clock)
        self.keys = self.with_secret(SECRET)

    def with_secret(self, secret: bytes) -> CardKeys:
        return CardKeys(self.store, functools.partial(derive, secret), secrets.token_bytes)

    async def signer(self, practice: str = ELM) -> str:
        return (await self.keys.signer(practice, self.clock())).kid

    async def rotate(self, **options: Any) -> str:
        return (await self.keys.rotate(ELM, now=self.clock(), **options)).kid

    async def withdraw(self, kid: str) -> None:
        await self.keys.withdraw(ELM, kid, now=self.clock())

    async def published(self, practice: str = ELM) -> list[str]:
        return [key["kid"] for key in (await self.jwks(practice))["keys"]]

    async def jwks(self, practice: str = ELM) -> dict[str, Any]:
        return jwks_of(await keys_of(self.store, practice))

    async def states(self) -> dict[str, str]:
        found = await keys_of(self.store, ELM)
        return {one.kid: state_of(one, found, self.clock()) for one in found}

    async def private(self) -> set[str]:
        """The keys whose private half there still is."""
        return {one.kid for one in await keys_of(self.store, ELM) if one.sealed}

    async def card(self) -> str:
        signer = await self.keys.signer(ELM, self.clock())
        content = content_of(BUNDLE, issuer="https://x.example", now=self.clock(), rid="r")
        card = signed(signer, content)
        assert len(card) == length_of(signer.kid, content)
        return card


@pytest.fixture
async def safe() -> AsyncIterator[Safe]:
    safe = Safe()
    yield safe
    safe.store.close()


async def test_the_first_key_is_made_with_the_first_card_and_sealed(safe: Safe) -> None:
    assert await safe.published() == []
    kid = await safe.signer()
    assert await safe.signer() == kid
    assert await safe.published() == [kid]
    (stored,) = await safe.store.every(HealthCardKey)
    signer = await safe.keys.signer(ELM, safe.clock())
    assert str(signer.key.as_dict(private=True)["d"]) not in str(stored)
    with pytest.raises(WrongSecret):
        await safe.with_secret(b"t" * 32).signer(ELM, safe.clock())


async def test_of_those_who_make_the_first_at_once_one_does(safe: Safe) -> None:
    """Planted fault: ``first`` does not look again before it stores."""
    found = await asyncio.gather(*(safe.signer() for _ in range(8)))
    assert len(set(found)) == 1
    assert len(await safe.store.every(HealthCardKey)) == 1


async def test_rotations_at_the_same_moment_are_all_kept(safe: Safe) -> None:
    kids = await asyncio.gather(*(safe.rotate() for _ in range(5)))
    assert set(await safe.published()) == set(kids)


async def test_each_practice_has_keys_of_its_own(safe: Safe) -> None:
    assert await safe.signer(ELM) != await safe.signer(OAK)
    assert set(await safe.published(ELM)).isdisjoint(await safe.published(OAK))
    with pytest.raises(UnknownKey):
        await safe.keys.withdraw(ELM, await safe.signer(OAK), now=safe.clock())


async def test_what_is_published_is_public_and_named_by_its_thumbprint(safe: Safe) -> None:
    await safe.signer()
    (key,) = (await safe.jwks())["keys"]
    assert set(key) == {"kty", "kid", "use", "alg", "crv", "x", "y", "crlVersion"}
    assert (key["kty"], key["use"], key["alg"], key["crv"]) == ("EC", "sig", "ES256", "P-256")
    assert key["kid"] == thumbprint(key)


async def test_a_new_key_is_published_before_it_signs_and_the_old_one_stays(safe: Safe) -> None:
    """A card is good as long as its key is published.

    Planted fault: the new key signs at once, or the old one is published no more.
    """
    old, before = await safe.signer(), await safe.card()
    new = await safe.rotate()
    assert await safe.signer() == old
    assert await safe.states() == {new: "next", old: "signing"}
    safe.clock.advance(PUBLISHED_SECONDS)
    assert await safe.signer() == new
    assert await safe.states() == {new: "signing", old: "verifying"}
    safe.clock.advance(400 * 86_400)
    published = await safe.jwks()
    assert [key["kid"] for key in published["keys"]] == [new, old]
    assert verified(before, published)
    assert verified(await safe.card(), published)


async def test_the_private_half_of_a_key_that_signs_no_more_is_destroyed(safe: Safe) -> None:
    """Planted fault: it is kept for ever."""
    old = await safe.signer()
    new = await safe.rotate()
    assert await safe.private() == {old, new}
    safe.clock.advance(PUBLISHED_SECONDS)
    await safe.card()
    assert await safe.private() == {new}
    last = await safe.rotate(at_once=True)
    assert await safe.private() == {last}
    assert await safe.signer() == last


async def test_no_private_half_is_destroyed_for_a_key_that_cannot_be_opened(safe: Safe) -> None:
    """Planted fault: what signed before is forgotten, and then what signs now is opened."""
    await safe.signer()
    await safe.rotate()
    kept = await safe.private()
    safe.clock.advance(PUBLISHED_SECONDS)
    with pytest.raises(WrongSecret):
        await safe.with_secret(b"t" * 32).signer(ELM, safe.clock())
    assert await safe.private() == kept


async def test_one_that_signs_at_once_overtakes_one_that_waits(safe: Safe) -> None:
    await safe.signer()
    waiting = await safe.rotate()
    urgent = await safe.rotate(at_once=True)
    safe.clock.advance(PUBLISHED_SECONDS * 2)
    assert await safe.signer() == urgent
    assert (await safe.states())[waiting] == "verifying"


async def test_a_key_that_leaked_verifies_nothing_and_is_replaced(safe: Safe) -> None:
    """Planted fault: what is withdrawn is still published, or still signs."""
    leaked, card = await safe.signer(), await safe.card()
    await safe.withdraw(leaked)
    assert await safe.published() == []
    assert await safe.private() == set()
    assert await safe.states() == {leaked: "withdrawn"}
    assert revocation_list(await keys_of(safe.store, ELM), leaked) is None
    replacing = await safe.signer()
    assert replacing != leaked
    with pytest.raises(ValueError, match="not enough values"):
        verified(card, await safe.jwks())
    with pytest.raises(UnknownKey):
        await safe.withdraw(leaked)


async def test_withdrawn_after_its_predecessor_ended_it_is_replaced_too(safe: Safe) -> None:
    """Planted fault: an old key whose private half is gone is asked to sign."""
    old = await safe.signer()
    leaked = await safe.rotate(at_once=True)
    await safe.withdraw(leaked)
    made = await safe.signer()
    assert made not in {old, leaked}
    assert await safe.published() == [made, old]


async def test_cards_of_a_person_are_revoked_up_to_now(safe: Safe) -> None:
    old = await safe.signer()
    new = await safe.rotate(at_once=True)
    count = await safe.keys.revoke(ELM, "ada", now=safe.clock() + 0.4)
    assert count == 2
    keys = await keys_of(safe.store, ELM)
    for kid in (old, new):
        told = revocation_list(keys, kid)
        assert told is not None
        rid = safe.keys.rid(kid, ELM, "ada")
        until = int(safe.clock()) + 1
        assert told == {"kid": kid, "method": "rid", "ctr": 2, "rids": [f"{rid}.{until}"]}
    assert [key["crlVersion"] for key in jwks_of(keys)["keys"]] == [2, 2]
    safe.clock.advance(60)
    await safe.keys.revoke(ELM, "ada", now=safe.clock())
    await safe.keys.revoke(ELM, "bo", now=safe.clock())
    told = revocation_list(await keys_of(safe.store, ELM), new)
    assert told is not None
    until = int(safe.clock()) + 1
    assert told["ctr"] == 4
    assert told["rids"] == [f"{safe.keys.rid(new, ELM, name)}.{until}" for name in ("ada", "bo")]


async def test_nobody_else_knows_whom_a_list_is_about(safe: Safe) -> None:
    rids = {
        safe.keys.rid("k", ELM, "ada"),
        safe.keys.rid("j", ELM, "ada"),
        safe.keys.rid("k", OAK, "ada"),
        safe.keys.rid("k", ELM, "bo"),
        safe.with_secret(b"t" * 32).rid("k", ELM, "ada"),
    }
    assert len(rids) == 5
    assert all(len(rid) == 11 for rid in rids)
    assert safe.keys.rid("k", ELM, "ada") in rids


def test_a_code_has_digits_for_each_sign_as_far_as_one_code_goes() -> None:
    """The example of the specification: ``X`` is 43."""
    assert qr_parts("-X_z.") == ("shc:/", "0043507701")
    assert qr_parts("e" * 1195) == ("shc:/", "56" * 1195)
    assert qr_parts("e" * 1196) is None
