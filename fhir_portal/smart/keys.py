"""Keys of the server: signing keys for id_tokens in the store, everything else from one secret.

Signing keys rotate with overlap. A new key is published before it signs, so that nobody meets a
token whose key they could not have read; an old one verifies until an operator retires it. Every
process reads the keys from the store when it needs them, so a rotation holds for all at once.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc.jwk import RSAKey

from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordStore,
    RecordTransaction,
)
from fhir_portal.smart.issuer import DAY, Lifetimes

JWKS_SECONDS: Final = 300
"""How long others may keep what ``/oauth/jwks`` said."""
PUBLISHED_SECONDS: Final = 2 * JWKS_SECONDS
"""How long a key is published before it signs."""
KEPT_SECONDS: Final = 400 * DAY
"""How long a retired key is still listed, without its private half."""
_FIRST: Final = "current"
_NONCE_BYTES: Final = 12

KeyState = Literal["next", "signing", "verifying", "retired"]


class WrongSecret(Exception):
    """The stored signing key was sealed with another server secret."""


class UnknownKey(Exception):
    """There is no signing key with this ``kid``."""


class KeyInUse(Exception):
    """This key cannot be retired yet; the words say why."""


class SigningKey(Record, frozen=True, kw_only=True):
    """An RS256 key of the id_tokens: its private JWK, sealed with the server's secret.

    It signs from ``signs_from`` on, until a newer one does, and is published until ``retired``.
    ``number`` counts them, so that of two made in one moment one is the newer.
    ``kid`` is known without the secret, but for a key that was made before there were several.
    """

    kind: ClassVar[str] = "signing-key"

    sealed: bytes
    created: float
    kid: str = ""
    number: int = 0
    signs_from: float = 0.0
    retired: float | None = None


def derive(secret: bytes, purpose: str, *parts: bytes) -> bytes:
    """32 bytes that only whoever has the secret can compute, for a purpose and its parts."""
    key = hmac.digest(secret, purpose.encode(), "sha256")
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, framed, "sha256")


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The keys a server works with; ``others`` are published beside the one that signs."""

    secret: bytes
    signing: RSAKey
    others: tuple[RSAKey, ...] = ()

    def derive(self, purpose: str, *parts: bytes) -> bytes:
        """32 bytes that only this server can compute, for a purpose and its parts."""
        return derive(self.secret, purpose, *parts)

    @property
    def kid(self) -> str:
        """The ``kid`` of the signing key: its RFC 7638 thumbprint."""
        return self.signing.thumbprint()

    def jwks(self) -> dict[str, Any]:
        """The public JWK Set (RFC 7517 §5)."""
        return {"keys": [_published(key) for key in (self.signing, *self.others)]}


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A signing key as an operator sees it. Times are seconds since 1970 UTC."""

    kid: str
    state: KeyState
    created: float
    signs_from: float
    retired: float | None


class KeyRing:
    """The signing keys as the store has them now.

    ``given`` has the secret, and the key to sign with where the store has none.
    """

    def __init__(self, reader: RecordReader, given: ServerKeys, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._given = given
        self._clock = clock
        self._opened: dict[str, RSAKey] = {}
        """By the record's key: unsealing and importing takes longer than reading."""

    async def now(self) -> ServerKeys:
        """Return the keys to sign with, and to publish, at this moment."""
        stored = _published_at(await self._reader.every(SigningKey))
        if not stored:
            return self._given
        self._opened = {
            one.key: self._opened.get(one.key) or _opened(one, self._given.secret) for one in stored
        }
        signer = _signer(stored, self._clock())
        others = tuple(self._opened[one.key] for one in stored if one is not signer)
        return ServerKeys(self._given.secret, self._opened[signer.key], others)


async def load_server_keys(
    store: RecordStore, secret: bytes, *, now: float, random: Callable[[int], bytes]
) -> ServerKeys:
    """Read the signing keys, or make the first: of processes that start together one makes it.

    Raises `WrongSecret` when ``secret`` is not the one the stored keys were sealed with.
    """
    if not _published_at(await store.every(SigningKey)):
        made, record = _made(secret, now=now, signs_from=now, random=random, name=_FIRST)

        async def keep(transaction: RecordTransaction) -> None:
            await transaction.insert(record)

        try:
            await store.transact(keep)
        except DuplicateRecord:
            pass  # another process was first: its key is read below
        else:
            return ServerKeys(secret, made)
    stored = _published_at(await store.every(SigningKey))
    signer = _signer(stored, now)
    others = tuple(_opened(one, secret) for one in stored if one is not signer)
    return ServerKeys(secret, _opened(signer, secret), others)


async def rotate_signing_key(
    store: RecordStore,
    secret: bytes,
    *,
    now: float,
    random: Callable[[int], bytes],
    at_once: bool = False,
) -> ListedKey:
    """Make a new signing key; it is published now and signs when everybody can have read it.

    With ``at_once``, for a key that leaked, it signs now: who keeps the old set meets tokens they
    cannot verify until they read it again. Raises `WrongSecret`.
    """
    for one in _published_at(await store.every(SigningKey)):
        _opened(one, secret)  # what was sealed with two secrets could never be read together
    signs_from = now if at_once else now + PUBLISHED_SECONDS
    _, record = _made(secret, now=now, signs_from=signs_from, random=random)

    async def keep(transaction: RecordTransaction) -> None:
        number = 1 + max((one.number for one in await transaction.every(SigningKey)), default=0)
        await transaction.insert(msgspec.structs.replace(record, number=number))

    await store.transact(keep)
    return await _listed_as(store, secret, record.kid, now=now)


async def list_signing_keys(
    reader: RecordReader, secret: bytes, *, now: float
) -> tuple[ListedKey, ...]:
    """List the signing keys, the newest first. Raises `WrongSecret`."""
    stored = await reader.every(SigningKey)
    published = _published_at(stored)
    signer = _signer(published, now) if published else None
    return tuple(
        ListedKey(
            kid=_kid(one, secret),
            state=_state(one, signer, now),
            created=one.created,
            signs_from=one.signs_from,
            retired=one.retired,
        )
        for one in sorted(stored, key=_age, reverse=True)
    )


async def retire_signing_key(
    store: RecordStore,
    secret: bytes,
    kid: str,
    *,
    now: float,
    lifetimes: Lifetimes | None = None,
    at_once: bool = False,
) -> ListedKey:
    """Stop publishing a key and forget its private half.

    It must not sign any more, and the tokens it signed must be over; with ``at_once``, for a key
    that leaked, they stop to verify now. Raises `UnknownKey`, `KeyInUse` or `WrongSecret`.
    """
    lasting = (lifetimes or Lifetimes()).id_token

    async def retire(transaction: RecordTransaction) -> None:
        stored = _published_at(await transaction.every(SigningKey))
        key = next((one for one in stored if _kid(one, secret) == kid), None)
        if key is None:
            raise UnknownKey(kid)
        newer = [one for one in stored if _age(one) > _age(key) and one.signs_from <= now]
        if key.signs_from <= now and not newer:
            raise KeyInUse("this key signs; rotate first")
        stopped = min((one.signs_from for one in newer), default=now)
        if key.signs_from <= now and now < stopped + lasting and not at_once:
            raise KeyInUse(
                f"tokens it signed are good for {round(stopped + lasting - now)} seconds"
            )
        await transaction.put(
            msgspec.structs.replace(
                key, kid=kid, sealed=b"", retired=now, expires=now + KEPT_SECONDS
            )
        )

    await store.transact(retire)
    return await _listed_as(store, secret, kid, now=now)


async def _listed_as(store: RecordStore, secret: bytes, kid: str, *, now: float) -> ListedKey:
    listed = await list_signing_keys(store, secret, now=now)
    return next(one for one in listed if one.kid == kid)


def _published_at(stored: Sequence[SigningKey]) -> list[SigningKey]:
    """Those that are not retired, the newest first."""
    return sorted((one for one in stored if one.retired is None), key=_age, reverse=True)


def _signer(published: Sequence[SigningKey], now: float) -> SigningKey:
    """The newest whose time has come; of keys that all wait, the oldest."""
    return next((one for one in published if one.signs_from <= now), published[-1])


def _age(key: SigningKey) -> tuple[float, int]:
    return key.signs_from, key.number


def _state(key: SigningKey, signer: SigningKey | None, now: float) -> KeyState:
    if key.retired is not None:
        return "retired"
    if key is signer:
        return "signing"
    return "next" if key.signs_from > now else "verifying"


def _kid(key: SigningKey, secret: bytes) -> str:
    return key.kid or _opened(key, secret).thumbprint()


def _published(key: RSAKey) -> dict[str, Any]:
    public = key.as_dict(private=False)
    return {**public, "kid": key.thumbprint(), "use": "sig", "alg": "RS256"}


def _made(
    secret: bytes,
    *,
    now: float,
    signs_from: float,
    random: Callable[[int], bytes],
    name: str | None = None,
) -> tuple[RSAKey, SigningKey]:
    key = RSAKey.generate_key(2048, auto_kid=False)
    kid = key.thumbprint()
    sealed = seal(key.as_dict(private=True), secret, random)
    return key, SigningKey(
        key=name or kid, sealed=sealed, created=now, kid=kid, signs_from=signs_from
    )


def _opened(key: SigningKey, secret: bytes) -> RSAKey:
    return RSAKey.import_key(unseal(key.sealed, secret))


def seal(jwk: Mapping[str, Any], secret: bytes, random: Callable[[int], bytes]) -> bytes:
    """Encrypt a private key as it is stored."""
    nonce = random(_NONCE_BYTES)
    return nonce + _cipher(secret).encrypt(nonce, msgspec.json.encode(jwk), None)


def unseal(sealed: bytes, secret: bytes) -> dict[str, Any]:
    """Decrypt a private key that `seal` encrypted. Raises `WrongSecret`."""
    try:
        plain = _cipher(secret).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except InvalidTag:
        raise WrongSecret("the signing key was sealed with another server secret") from None
    return msgspec.json.decode(plain, type=dict[str, Any])


def _cipher(secret: bytes) -> AESGCM:
    return AESGCM(hashlib.sha256(b"signing-key" + secret).digest())
