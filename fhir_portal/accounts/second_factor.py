"""The second factor beside a password: a code of an authenticator app, or a recovery code.

Whoever is asked for one has given the right password, so codes that fail over and over mean that
somebody else knows it: the owner is told, of the fifth in a day and once a day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.notice import Notices
from fhir_portal.accounts.proof import Proof
from fhir_portal.accounts.recovery_codes import RecoveryCodeBook, is_recovery_code
from fhir_portal.accounts.throttle import Throttle, TooManyAttempts
from fhir_portal.accounts.totp import Totps, WrongCode
from fhir_portal.records import RecordStore

CODES_ANYWHERE: Final = "20 per day"
"""Wrong codes of an app, from browsers that are not known: of a million, three are right at once.

So a year of guessing with the right password finds one in fifty codes. That limit can be used up
by whoever has the password; passkeys, recovery codes and known browsers do not ask it.
"""
CODES_KNOWN: Final = "40 per day"
"""The same from known browsers and where somebody is signed in, all of an account's together.

To be known, a browser must have been signed in since the app was set up. A remembered browser is
asked for no code.
"""
_UNTOLD: Final = "4 per day"
"""Wrong codes of an account, from anywhere, of which its owner is not told."""


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """Checks second factors, over an account's app and recovery codes."""

    store: RecordStore
    totps: Totps
    codes: RecoveryCodeBook
    throttle: Throttle
    notices: Notices
    clock: Callable[[], float]

    async def is_asked_of(self, account: str) -> bool:
        """Whether signing in to this account takes more than a password."""
        return await self.totps.of(account) is not None

    async def prove(
        self, account: Account, typed: str, *, address: str, device: str | None
    ) -> Proof:
        """Return the proof that ``typed`` is a code of this account's.

        ``device`` is as in `fhir_portal.accounts.credentials.SignIn`. Raises
        `fhir_portal.accounts.totp.WrongCode` and
        `fhir_portal.accounts.throttle.TooManyAttempts`.
        """
        recovers = is_recovery_code(typed)
        try:
            attempt = await self.throttle.attempt(
                f"code {account.key}",
                address=address,
                device=f"code {device}" if device else None,
                guessable=not recovers,
            )
        except TooManyAttempts:
            await self._warn(account)
            raise
        try:
            async with self.throttle.looking_at(attempt):
                proof = await (self.codes if recovers else self.totps).prove(account.key, typed)
        except WrongCode:
            await self._failed(account)
            raise
        await self.throttle.succeeded(attempt)
        return proof

    async def _failed(self, account: Account) -> None:
        """Count a wrong code: whoever has the password and the patience is reported, too."""
        try:
            await self.throttle.limit(_UNTOLD, f"wrong code {account.key}")
        except TooManyAttempts:
            await self._warn(account)

    async def _warn(self, account: Account) -> None:
        now = self.clock()
        warning = self.notices.about(account, "codes-guessed", now=now, once=f"{now // 86_400:.0f}")
        await self.store.transact(warning)
