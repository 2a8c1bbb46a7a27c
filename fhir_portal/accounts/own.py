"""What people change about their own sign-in, each change in one transaction with what it ends.

The caller has seen to it that the person proved who they are just now
(`fhir_portal.accounts.step_up`); here it is decided what a change ends and who is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.credentials import UnacceptablePassword
from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.front_door import FrontDoor, Place
from fhir_portal.accounts.notice import Event
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.practice import practice_names
from fhir_portal.accounts.proof import PASSWORD, Write
from fhir_portal.accounts.recovery import end_recoveries
from fhir_portal.accounts.sessions import (
    Opened,
    SignedOutMeanwhile,
    Visitor,
    end_sessions,
    still_signed_in,
)
from fhir_portal.accounts.totp import Offer
from fhir_portal.records import RecordTransaction

NEW_CODES: Final = "5 per hour"
"""How often one account may have recovery codes made: each time costs ten hashes."""


class LastWayIn(Exception):
    """Without it nobody could sign in to the account any more."""


@dataclass(frozen=True, slots=True)
class OwnSignIn:
    """A person's own password, authenticator app and recovery codes."""

    door: FrontDoor

    async def change_password(
        self, visitor: Visitor, current: str, new: str, place: Place
    ) -> Opened:
        """Change a password; return the session that goes on under a new cookie.

        Every other session and every remembered browser of the account ends with the old one
        (OWASP ASVS 5.0, 6.2.3 and 7.4.3). Raises `SignInRefused`, `UnacceptablePassword`,
        `SignedOutMeanwhile` and `TooManyAttempts`.
        """
        sessions, passwords = self.door.sessions, self.door.password.passwords
        account = _signed_in(visitor)
        account = await self.door.password.again(
            account,
            current,
            address=place.address,
            device=f"session {visitor.browser}",
        )
        if await passwords.verify(account.password_hash, new):
            raise UnacceptablePassword("That is the password you have now. Choose another.")
        password_hash = await passwords.hash(
            new,
            username=account.username,
            names=await practice_names(sessions.store, account.persons),
        )
        changed = msgspec.structs.replace(account, password_hash=password_hash)
        opened, rotate = sessions.confirmed(Visitor(visitor.session, changed), [PASSWORD])
        tell = self.door.notices.about(account, "password-changed", now=sessions.clock())

        async def change(transaction: RecordTransaction) -> None:
            if not await transaction.replace(account, changed):
                raise SignedOutMeanwhile
            await rotate(transaction)
            await end_sessions(transaction, account.key, but=opened.visitor.session.key)
            await forget_devices(transaction, account.key)
            await end_recoveries(transaction, account.key)
            await tell(transaction)

        await sessions.store.transact(change)
        return opened

    async def offer_app(self, visitor: Visitor) -> Offer:
        """Return what an authenticator app has to be given."""
        account = _signed_in(visitor)
        return await self.door.second_factor.totps.offer(visitor.session, account)

    async def add_app(self, visitor: Visitor, code: str) -> tuple[Opened, list[str]]:
        """Take an authenticator app that shows this code, in place of an earlier one.

        Returns the session that goes on and, where the account had none, recovery codes. Raises
        `fhir_portal.accounts.totp.WrongCode`, `SignedOutMeanwhile` and `Spent`.
        """
        sessions, second_factor = self.door.sessions, self.door.second_factor
        account = _signed_in(visitor)
        proof = await second_factor.totps.accepted(visitor.session, account, code)
        codes, keep_codes = list[str](), None
        if not await second_factor.codes.left(account.key):
            codes, keep_codes = await second_factor.codes.new(account.key)
        opened, rotate = sessions.confirmed(visitor, [proof])
        tell = self.door.notices.about(account, "totp-added", now=sessions.clock())

        async def add(transaction: RecordTransaction) -> None:
            await rotate(transaction)
            await forget_devices(transaction, account.key)
            if keep_codes is not None:
                await keep_codes(transaction)
            await tell(transaction)

        await sessions.store.transact(add)
        return opened, codes

    async def remove_app(self, visitor: Visitor) -> None:
        """Sign in by password alone from now on. Raises `Spent` when there is no app."""
        account = _signed_in(visitor)
        removal = self.door.second_factor.totps.removal(account.key)

        async def remove(transaction: RecordTransaction) -> None:
            await removal(transaction)
            await forget_devices(transaction, account.key)

        await self._with_notice(visitor, remove, "totp-removed")

    async def new_codes(self, visitor: Visitor) -> list[str]:
        """Return ten recovery codes; all earlier ones are void. Raises `TooManyAttempts`."""
        account = _signed_in(visitor)
        throttle = self.door.password.throttle
        await throttle.limit(NEW_CODES, f"recovery codes for {account.key}")
        codes, keep = await self.door.second_factor.codes.new(account.key)
        await self._with_notice(visitor, keep, "recovery-codes-made")
        return codes

    async def add_passkey(self, visitor: Visitor, answer: str, name: str) -> None:
        """Give the account a passkey that was just made.

        Raises `fhir_portal.accounts.passkeys.PasskeyRefused`, `TooManyPasskeys` and `Spent`.
        """
        account = _signed_in(visitor)
        add = await self.door.passkeys.added(visitor.session, account, answer, name)
        await self._with_notice(visitor, add, "passkey-added")

    async def remove_passkey(self, visitor: Visitor, key: str) -> None:
        """Take a passkey away.

        Raises `fhir_portal.accounts.proof.Spent` if it is not theirs, `LastWayIn`.
        """
        account = _signed_in(visitor)
        removal = self.door.passkeys.removal(account.key, key)

        async def remove(transaction: RecordTransaction) -> None:
            await removal(transaction)
            stored = await transaction.get(Account, account.key)
            left = await transaction.find(Passkey, "account", account.key, limit=1)
            if not left and (stored is None or stored.password_hash is None):
                raise LastWayIn

        await self._with_notice(visitor, remove, "passkey-removed")

    async def end_recovery(self, visitor: Visitor) -> None:
        """End all that is under way to get into the account, by staff's help or without.

        The caller has seen to it that the person proved who they are just now: nobody in a browser
        that was left open keeps the owner out by it. Raises `SignedOutMeanwhile`.
        """
        account = _signed_in(visitor)

        async def end(transaction: RecordTransaction) -> None:
            await end_recoveries(transaction, account.key)

        await self._with_notice(visitor, end, "recovery-cancelled")

    async def _with_notice(self, visitor: Visitor, change: Write, event: Event) -> None:
        """Make a change that is told to the owner. Raises `SignedOutMeanwhile`."""
        now = self.door.sessions.clock()
        tell = self.door.notices.about(_signed_in(visitor), event, now=now)

        async def both(transaction: RecordTransaction) -> None:
            await still_signed_in(transaction, visitor, now)
            await change(transaction)
            await tell(transaction)

        await self.door.sessions.store.transact(both)


def _signed_in(visitor: Visitor) -> Account:
    if visitor.account is None:
        raise SignedOutMeanwhile
    return visitor.account
