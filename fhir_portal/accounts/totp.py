"""Codes of an authenticator app: time-based one-time passwords (RFC 6238), each good once.

The secret must be known to be checked, so it cannot be hashed: it is sealed with a key that is
not in the store. A code is used up by moving ``last_step`` forward in the transaction that opens
the session for it; a code of the same step, or of an earlier one, is refused (RFC 6238 §5.2).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec
import pyotp
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.proof import Proof, Spent, Write
from fhir_portal.accounts.sessions import Session
from fhir_portal.records import Record, RecordStore, RecordTransaction

STEP_SECONDS: Final = 30
DIGITS: Final = 6
OFFER_SECONDS: Final = 15 * 60.0
_EITHER_SIDE: Final = 1
_SECRET_BYTES: Final = 20  # RFC 4226 §4, R6
_NONCE_BYTES: Final = 12


class Totp(Record, frozen=True, kw_only=True):
    """An account's authenticator app; ``key`` is the account's.

    ``last_step`` is the time step of the last code that was used.
    """

    kind: ClassVar[str] = "totp"

    sealed: bytes
    added: float
    last_step: int


class TotpOffer(Record, frozen=True, kw_only=True):
    """A secret shown to be taken into an app; ``key`` is that of the session it was shown in."""

    kind: ClassVar[str] = "totp-offer"

    expires: float
    account: str
    sealed: bytes


class WrongCode(Exception):
    """Not the code of this moment, or used before."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What an authenticator app is given: the secret as text, and as an address for a QR code."""

    secret: str
    uri: str


class Totps:
    """Authenticator apps of accounts. ``key`` has 32 bytes and is kept outside of the store."""

    def __init__(
        self,
        store: RecordStore,
        *,
        key: bytes,
        issuer: str,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._cipher = AESGCM(key)
        self._issuer = issuer
        self._clock = clock
        self._random = random

    async def of(self, account: str) -> Totp | None:
        """Return the authenticator app of an account."""
        return await self._store.get(Totp, account)

    async def offer(self, session: Session, account: Account) -> Offer:
        """Return the secret that this session offers; the same until it is taken or over."""
        found = await self._offered(session, account)
        if found is None:
            found = TotpOffer(
                key=session.key,
                expires=self._clock() + OFFER_SECONDS,
                account=account.key,
                sealed=self._seal(self._random(_SECRET_BYTES), account.key),
            )
            made = found

            async def keep(transaction: RecordTransaction) -> None:
                await transaction.put(made)

            await self._store.transact(keep)
        otp = self._otp(found.sealed, account.key)
        uri = otp.provisioning_uri(name=account.username, issuer_name=self._issuer)
        return Offer(otp.secret, uri)

    async def accepted(self, session: Session, account: Account, code: str) -> Proof:
        """Return the proof that an app has the secret offered in this session.

        Spending it makes that app the account's, in place of another. Raises `WrongCode`.
        """
        offered = await self._offered(session, account)
        if offered is None:
            raise WrongCode
        now = self._clock()
        step = self._step(offered.sealed, account.key, code, after=-1)
        totp = Totp(key=account.key, sealed=offered.sealed, added=now, last_step=step)

        async def take(transaction: RecordTransaction) -> None:
            if not await transaction.delete(TotpOffer, offered.key):
                raise Spent
            await transaction.put(totp)

        return Proof("totp", take)

    async def prove(self, account: str, code: str) -> Proof:
        """Return the proof that somebody has the account's app. Raises `WrongCode`."""
        totp = await self._store.get(Totp, account)
        if totp is None:
            raise WrongCode
        step = self._step(totp.sealed, account, code, after=totp.last_step)
        used = msgspec.structs.replace(totp, last_step=step)

        async def use(transaction: RecordTransaction) -> None:
            if not await transaction.replace(totp, used):
                raise Spent

        return Proof("totp", use)

    def removal(self, account: str) -> Write:
        """Return the write that takes the app away. Raises `Spent` when there is none."""

        async def remove(transaction: RecordTransaction) -> None:
            if not await transaction.delete(Totp, account):
                raise Spent

        return remove

    async def _offered(self, session: Session, account: Account) -> TotpOffer | None:
        found = await self._store.get(TotpOffer, session.key)
        alive = found is not None and self._clock() < found.expires
        return found if alive and found is not None and found.account == account.key else None

    def _step(self, sealed: bytes, account: str, code: str, *, after: int) -> int:
        """Find the time step of a code: this one or its neighbour (RFC 6238 §5.2)."""
        otp = self._otp(sealed, account)
        typed = "".join(code.split()).encode("utf-8", "surrogatepass")
        current = int(self._clock()) // STEP_SECONDS
        for step in range(current - _EITHER_SIDE, current + _EITHER_SIDE + 1):
            if step > after and hmac.compare_digest(otp.generate_otp(step).encode(), typed):
                return step
        raise WrongCode

    def _otp(self, sealed: bytes, account: str) -> pyotp.TOTP:
        nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        secret = self._cipher.decrypt(nonce, box, account.encode())
        return pyotp.TOTP(base64.b32encode(secret).decode(), digits=DIGITS, interval=STEP_SECONDS)

    def _seal(self, secret: bytes, account: str) -> bytes:
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, account.encode())
