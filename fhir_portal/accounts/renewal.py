"""Forced renewal: at the next sign-in, after all proofs, a new credential before anything else.

On suspicion or at staff's request, never by the calendar (NIST SP 800-63B-4 §3.1.1.2). Until it is
done the session is `held`: no page but that of the renewal takes its owner for signed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import msgspec

from fhir_portal.accounts.account import Account, UnknownAccount
from fhir_portal.accounts.credentials import UnacceptablePassword
from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.front_door import FrontDoor, Place
from fhir_portal.accounts.practice import practice_names
from fhir_portal.accounts.proof import PASSWORD
from fhir_portal.accounts.recovery import end_recoveries
from fhir_portal.accounts.sessions import Opened, SignedOutMeanwhile, Visitor, end_sessions
from fhir_portal.records import RecordTransaction

RenewalReason = Literal["suspected-compromise", "staff-request", "assisted-recovery"]
RENEWAL_REASONS: Final[tuple[RenewalReason, ...]] = get_args(RenewalReason)


async def require_renewal(
    transaction: RecordTransaction, account: str, reason: RenewalReason
) -> Account:
    """Have an account's owner renew what they sign in with; returns the account.

    All its sessions and remembered browsers end, and recoveries that are under way. Raises
    `fhir_portal.accounts.account.UnknownAccount`.
    """
    found = await transaction.get(Account, account)
    if found is None:
        raise UnknownAccount(account)
    marked = msgspec.structs.replace(found, renewal=reason)
    await transaction.put(marked)
    await end_sessions(transaction, account)
    await forget_devices(transaction, account)
    await end_recoveries(transaction, account)
    return marked


@dataclass(frozen=True, slots=True)
class Renewal:
    """Renews what a person signs in with who has to."""

    door: FrontDoor

    async def by_password(self, visitor: Visitor, new: str, place: Place) -> Opened:
        """Set a new password; return the session that goes on.

        Raises `UnacceptablePassword`, for the old one too, and `SignedOutMeanwhile`.
        """
        sessions, passwords, account = (
            self.door.sessions,
            self.door.password.passwords,
            _of(visitor),
        )
        if await passwords.verify(account.password_hash, new):
            raise UnacceptablePassword("That is the password you had. Choose another.")
        password_hash = await passwords.hash(
            new,
            username=account.username,
            names=await practice_names(sessions.store, account.persons),
        )
        tell = self.door.notices.about(account, "password-changed", now=sessions.clock())

        async def close(transaction: RecordTransaction) -> None:
            await end_recoveries(transaction, account.key)
            await tell(transaction)

        return await sessions.sign_in(
            visitor.session,
            account,
            proofs=[PASSWORD],
            device=place.device,
            also=[close],
            is_held=True,
            changed=msgspec.structs.replace(account, password_hash=password_hash, renewal=None),
        )

    async def by_passkey(self, visitor: Visitor, answer: str, place: Place) -> Opened:
        """Confirm with a passkey instead; a password that somebody may know is dropped.

        Raises `fhir_portal.accounts.passkeys.PasskeyRefused`, `SignedOutMeanwhile` and
        `fhir_portal.accounts.proof.Spent`.
        """
        sessions, account = self.door.sessions, _of(visitor)
        _, proof = await self.door.passkeys.prove(visitor.session, answer, account)
        tell = self.door.notices.about(account, "password-removed", now=sessions.clock())

        async def close(transaction: RecordTransaction) -> None:
            await end_recoveries(transaction, account.key)
            if account.password_hash is not None:
                await tell(transaction)

        return await sessions.sign_in(
            visitor.session,
            account,
            proofs=[proof],
            device=place.device,
            also=[close],
            is_held=True,
            changed=msgspec.structs.replace(account, password_hash=None, renewal=None),
        )


def _of(visitor: Visitor) -> Account:
    """Who has to renew what they sign in with. Raises `SignedOutMeanwhile`."""
    if visitor.held is None or visitor.held.renewal is None:
        raise SignedOutMeanwhile
    return visitor.held
