"""The keys that a practice signs SMART Health Cards with: ES256, a set for each practice.

They rotate as those of the id_tokens do (`fhir_portal.smart.keys`): a new one is published before
it signs. What differs is the end. A card is good for as long as its key is published, so an old
public key stays, and only its private half is forgotten; a key that leaked is withdrawn, with all
cards it signed. Cards of one person are revoked by a list that is published for each key.

Source: SMART Health Cards and Links 1.0.0, "Generating and resolving cryptographic keys".
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import msgspec
from joserfc.jwk import ECKey

from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordStore,
    RecordTransaction,
)
from fhir_portal.smart.keys import PUBLISHED_SECONDS, UnknownKey, seal, unseal
from fhir_portal.smart.token import base64url

KEYS_PURPOSE: Final = "health-card-keys"
RID_PURPOSE: Final = "health-card-rid"
"""What the two secrets below are derived for."""
_CURVE: Final = "P-256"
_RID_BYTES: Final = 8

CardKeyState = Literal["next", "signing", "verifying", "withdrawn"]


class HealthCardKey(Record, frozen=True, kw_only=True):
    """A key of a practice. ``number`` counts them; no two of a practice have the same.

    It signs from ``signs_from`` on until a newer one does. ``sealed`` is its private JWK, empty
    once it is forgotten; ``public`` the other half, published until ``withdrawn``. ``revoked`` are
    the entries of its revocation list, which was changed ``list_version`` - 1 times.
    """

    kind: ClassVar[str] = "health-card-key"
    indexed: ClassVar[tuple[str, ...]] = ("practice",)

    practice: str
    number: int
    kid: str
    public: dict[str, str]
    sealed: bytes
    created: float
    signs_from: float
    withdrawn: float | None = None
    revoked: tuple[str, ...] = ()
    list_version: int = 1


@dataclass(frozen=True, slots=True)
class CardSigner:
    """What signs a card now."""

    kid: str
    key: ECKey


@dataclass(frozen=True, slots=True)
class CardKeys:
    """Makes, finds and ends the keys. ``derive`` makes a secret of the server's for a purpose."""

    store: RecordStore
    derive: Callable[..., bytes]
    random: Callable[[int], bytes]

    async def signer(self, practice: str, now: float) -> CardSigner:
        """Return what signs now; the first key is made when the first card is.

        Private halves that will sign no more are forgotten on the way. Raises `WrongSecret`.
        """
        keys = await keys_of(self.store, practice)
        signing = _signing(keys, now)
        if signing is None:
            signing = await self._add(practice, now=now, signs_from=now, first=True)
        jwk = unseal(signing.sealed, self.derive(KEYS_PURPOSE))
        if any(one.sealed and one.number < signing.number for one in keys):
            await self._forget(practice, signing.number)
        return CardSigner(signing.kid, ECKey.import_key(jwk))

    async def rotate(self, practice: str, *, now: float, at_once: bool = False) -> HealthCardKey:
        """Make a new key. It signs when everybody can have read it, or ``at_once``; the first, too.

        With ``at_once`` the private halves of those before it are forgotten now.
        """
        waits = bool(await keys_of(self.store, practice)) and not at_once
        made = await self._add(
            practice, now=now, signs_from=now + PUBLISHED_SECONDS if waits else now
        )
        if not waits:
            await self._forget(practice, made.number)
        return made

    async def withdraw(self, practice: str, kid: str, *, now: float) -> HealthCardKey:
        """Publish a key no more, because it leaked: every card it signed stops to verify.

        If it signed, the next card has a new one made. Raises `UnknownKey`.
        """

        async def end(transaction: RecordTransaction) -> HealthCardKey:
            for one in published_of(await keys_of(transaction, practice)):
                if one.kid == kid:
                    ended = msgspec.structs.replace(one, sealed=b"", withdrawn=now)
                    await transaction.put(ended)
                    return ended
            raise UnknownKey(kid)

        return await self.store.transact(end)

    async def revoke(self, practice: str, patient: str, *, now: float) -> int:
        """Revoke every card of a patient up to now; return on how many lists they are."""
        until = int(now) + 1  # what is revoked was issued before it, in whole seconds

        async def add(transaction: RecordTransaction) -> int:
            published = published_of(await keys_of(transaction, practice))
            for one in published:
                rid = self.rid(one.kid, practice, patient)
                others = tuple(entry for entry in one.revoked if entry.partition(".")[0] != rid)
                changed = msgspec.structs.replace(
                    one,
                    revoked=(*others, f"{rid}.{until}"),
                    list_version=one.list_version + 1,
                )
                await transaction.put(changed)
            return len(published)

        return await self.store.transact(add)

    def rid(self, kid: str, practice: str, patient: str) -> str:
        """What stands for a patient on cards and revocation lists; it tells nobody who that is.

        By the rule that the specification recommends: a keyed hash, another for each key.
        """
        secret = self.derive(RID_PURPOSE) + kid.encode()
        digest = hmac.digest(secret, f"{practice}/{patient}".encode(), "sha256")
        return base64url(digest[:_RID_BYTES])

    async def _add(
        self, practice: str, *, now: float, signs_from: float, first: bool = False
    ) -> HealthCardKey:
        """Store a new key; of those who make the ``first`` at the same moment one does."""
        key = ECKey.generate_key(_CURVE, auto_kid=False)
        sealed = seal(key.as_dict(private=True), self.derive(KEYS_PURPOSE), self.random)
        public = {name: str(key.as_dict(private=False)[name]) for name in ("x", "y")}
        while True:
            stored = await keys_of(self.store, practice)
            signing = _signing(stored, now)
            if first and signing is not None:
                return signing
            number = 1 + max((one.number for one in stored), default=0)
            made = HealthCardKey(
                key=f"{practice}/{number}",
                practice=practice,
                number=number,
                kid=key.thumbprint(),
                public=public,
                sealed=sealed,
                created=now,
                signs_from=signs_from,
            )

            async def keep(transaction: RecordTransaction, record: HealthCardKey = made) -> None:
                await transaction.insert(record)

            try:
                await self.store.transact(keep)
            except DuplicateRecord:
                continue  # somebody else took the number
            return made

    async def _forget(self, practice: str, number: int) -> None:
        """Destroy the private halves of the keys before a number."""

        async def forget(transaction: RecordTransaction) -> None:
            for one in await keys_of(transaction, practice):
                if one.sealed and one.number < number:
                    await transaction.put(msgspec.structs.replace(one, sealed=b""))

        await self.store.transact(forget)


async def keys_of(reader: RecordReader, practice: str) -> list[HealthCardKey]:
    """Return the keys of a practice, the newest first; those that were withdrawn, too."""
    found = await reader.find(HealthCardKey, "practice", practice)
    return sorted(found, key=lambda one: one.number, reverse=True)


def published_of(keys: Sequence[HealthCardKey]) -> list[HealthCardKey]:
    """Those of them that cards may be verified with, now or soon."""
    return [one for one in keys if one.withdrawn is None]


def state_of(key: HealthCardKey, keys: Sequence[HealthCardKey], now: float) -> CardKeyState:
    """What a key does, among all of its practice."""
    if key.withdrawn is not None:
        return "withdrawn"
    signing = _signing(keys, now)
    if signing is None or key.number < signing.number or not key.sealed:
        return "verifying"
    return "signing" if key.number == signing.number else "next"


def jwks_of(keys: Sequence[HealthCardKey]) -> dict[str, Any]:
    """The JWK Set that is published (RFC 7517 §5), with the version of each revocation list."""
    return {
        "keys": [
            {
                "kty": "EC",
                "kid": one.kid,
                "use": "sig",
                "alg": "ES256",
                "crv": _CURVE,
                **one.public,
                "crlVersion": one.list_version,
            }
            for one in published_of(keys)
        ]
    }


def revocation_list(keys: Sequence[HealthCardKey], kid: str) -> Mapping[str, Any] | None:
    """The revocation list of a published key."""
    for one in published_of(keys):
        if one.kid == kid:
            rids = list(one.revoked)
            return {"kid": kid, "method": "rid", "ctr": one.list_version, "rids": rids}
    return None


def _signing(keys: Sequence[HealthCardKey], now: float) -> HealthCardKey | None:
    """The newest that can sign and whose time has come; of those that all wait, the oldest.

    By number: one that signs at once overtakes one that waits, which then never does.
    """
    able = [one for one in published_of(keys) if one.sealed]
    return next((one for one in able if one.signs_from <= now), able[-1] if able else None)
