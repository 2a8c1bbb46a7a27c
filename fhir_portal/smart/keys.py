"""Keys of the server: signing keys for id_tokens in the store, everything else from one secret."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc.jwk import RSAKey

from fhir_portal.records import DuplicateRecord, Record, RecordStore, RecordTransaction

_CURRENT: Final = "current"
_NONCE_BYTES: Final = 12


class WrongSecret(Exception):
    """The stored signing key was sealed with another server secret."""


class SigningKey(Record, frozen=True, kw_only=True):
    """The RS256 key of the id_tokens: its private JWK, sealed with the server's secret."""

    kind: ClassVar[str] = "signing-key"

    sealed: bytes
    created: float


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The keys one server process works with."""

    secret: bytes
    signing: RSAKey

    def derive(self, purpose: str, *parts: bytes) -> bytes:
        """32 bytes that only this server can compute, for a purpose and its parts."""
        key = hmac.digest(self.secret, purpose.encode(), "sha256")
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(key, framed, "sha256")

    @property
    def kid(self) -> str:
        """The ``kid`` of the signing key: its RFC 7638 thumbprint."""
        return self.signing.thumbprint()

    def jwks(self) -> dict[str, Any]:
        """The public JWK Set (RFC 7517 §5)."""
        public = self.signing.as_dict(private=False)
        return {"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}]}


async def load_server_keys(
    store: RecordStore, secret: bytes, *, now: float, random: Callable[[int], bytes]
) -> ServerKeys:
    """Read the signing key, or make it: of processes that start together one makes it.

    Raises `WrongSecret` when ``secret`` is not the one the stored key was sealed with.
    """
    stored = await store.get(SigningKey, _CURRENT)
    if stored is None:
        made = RSAKey.generate_key(2048, auto_kid=False)
        record = SigningKey(
            key=_CURRENT, sealed=_seal(made.as_dict(private=True), secret, random), created=now
        )

        async def keep(transaction: RecordTransaction) -> None:
            await transaction.insert(record)

        try:
            await store.transact(keep)
        except DuplicateRecord:
            stored = await store.get(SigningKey, _CURRENT)
    found = stored or record
    return ServerKeys(secret, RSAKey.import_key(_unseal(found.sealed, secret)))


def _seal(jwk: Mapping[str, Any], secret: bytes, random: Callable[[int], bytes]) -> bytes:
    nonce = random(_NONCE_BYTES)
    return nonce + _cipher(secret).encrypt(nonce, msgspec.json.encode(jwk), None)


def _unseal(sealed: bytes, secret: bytes) -> dict[str, Any]:
    try:
        plain = _cipher(secret).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except InvalidTag:
        raise WrongSecret("the signing key was sealed with another server secret") from None
    return msgspec.json.decode(plain, type=dict[str, Any])


def _cipher(secret: bytes) -> AESGCM:
    return AESGCM(hashlib.sha256(b"signing-key" + secret).digest())
