"""The second factor beside a password: a code of an authenticator app, or a recovery code.

Whoever is asked for one has given the right password, so codes that fail over and over mean that
somebody else knows it: the owner is told.
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
from fhir_portal.accounts.totp import Totps
from fhir_portal.records import RecordStore

CODES_ANYWHERE: Final = "20 per day"
"""Wrong codes of an app, from browsers that are not known: of a million, three are right at once.

So a year of guessing with the right password finds one in fifty codes. That limit can be used up
by whoever has the password; passkeys, recovery codes and known browsers do not ask it.
"""


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
        proof = await (self.codes if recovers else self.totps).prove(account.key, typed)
        await self.throttle.succeeded(attempt)
        return proof

    async def _warn(self, account: Account) -> None:
        now = self.clock()
        warning = self.notices.about(account, "codes-guessed", now=now, once=f"{now // 86_400:.0f}")
        await self.store.transact(warning)
