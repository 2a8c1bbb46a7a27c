"""What people change about their own contacts: add one, prove it by a code, take it away.

The caller has seen to it that the person proved who they are just now. A proved mail address is a
name to sign in with as well, unless it is another account's already. All contacts are told of what
changes, the one that is taken away too, which still is for a week.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.account import (
    Account,
    AccountName,
    add_alias,
    folded,
    home_of,
    remove_alias,
)
from fhir_portal.accounts.contacts import (
    Contact,
    UnknownContact,
    add_contact,
    contacts_of,
    new_contact,
    remove_contact,
    verify_contact,
)
from fhir_portal.accounts.notice import CodeSender, Notices
from fhir_portal.accounts.one_time_code import Challenge, OneTimeCodes
from fhir_portal.accounts.recovery import end_recoveries
from fhir_portal.accounts.sessions import (
    Sessions,
    SignedOutMeanwhile,
    Visitor,
    still_signed_in,
)
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.records import RecordTransaction

CODES_BY_ACCOUNT: Final = "10 per hour"
"""Codes that one account has sent to contacts it wants to prove."""
CODES_TO_CONTACT: Final = "5 per hour"
"""Codes to one address, whoever asks: nobody's mailbox is filled by others."""


@dataclass(frozen=True, slots=True)
class ProvedContact:
    """A contact that was proved; ``signs_in`` if it is a name to sign in with from now on."""

    contact: Contact
    signs_in: bool


@dataclass(frozen=True, slots=True)
class OwnContacts:
    """A person's own contacts."""

    sessions: Sessions
    codes: OneTimeCodes
    sender: CodeSender
    notices: Notices
    throttle: Throttle

    async def of(self, account: Account) -> list[tuple[Contact, bool]]:
        """Return the contacts, each with whether one signs in with it; the earliest first."""
        store = self.sessions.store
        found = []
        for contact in await contacts_of(store, account.key):
            name = await store.get(AccountName, folded(contact.value))
            found.append((contact, name is not None and name.account == account.key))
        return found

    async def add(self, visitor: Visitor, value: str) -> Challenge:
        """Keep a contact that nobody proved and send a code there; what holds an @ is mail.

        Raises `fhir_portal.accounts.contacts.InvalidContact` and ``TooManyContacts``,
        `SignedOutMeanwhile` and `fhir_portal.accounts.throttle.TooManyAttempts`.
        """
        contact = new_contact(
            _signed_in(visitor).key,
            "mail" if "@" in value else "sms",
            value,
            now=self.sessions.clock(),
            random=self.sessions.random,
        )
        return await self._send(visitor, contact, is_new=True)

    async def send_again(self, visitor: Visitor, key: str) -> Challenge:
        """Send a code to a contact of the account that is not proved. Raises as `add` does.

        Raises `UnknownContact`, too.
        """
        contact = await self.sessions.store.get(Contact, key)
        if contact is None or contact.account != _signed_in(visitor).key:
            raise UnknownContact
        return await self._send(visitor, contact, is_new=False)

    async def asked(self, visitor: Visitor, challenge: str) -> Contact | None:
        """Return the contact that a code is on its way to, for the page that asks for it."""
        store = self.sessions.store
        found = await store.get(Challenge, challenge)
        if found is None or found.purpose != "contact" or found.browser != visitor.browser:
            return None
        contact = await store.get(Contact, found.subject)
        account = visitor.account
        is_theirs = contact is not None and account is not None and contact.account == account.key
        return contact if is_theirs else None

    async def latest(self, visitor: Visitor) -> str:
        """Return the challenge that this browser asked for last, ``""`` for none that counts."""
        store, now = self.sessions.store, self.sessions.clock()
        found = [
            one
            for contact in await contacts_of(store, _signed_in(visitor).key)
            for one in await store.find(Challenge, "subject", contact.key)
            if one.purpose == "contact" and one.browser == visitor.browser and now < one.expires
        ]
        return max(found, key=lambda one: one.expires).key if found else ""

    async def prove(self, visitor: Visitor, challenge: str, typed: str) -> ProvedContact:
        """Note that a code came back, in the browser that asked for it.

        Raises `fhir_portal.accounts.one_time_code.WrongOneTimeCode`, `UnknownContact`,
        `SignedOutMeanwhile` and `fhir_portal.accounts.proof.Spent`.
        """
        account, store = _signed_in(visitor), self.sessions.store
        asked, spend = await self.codes.prove(
            store, challenge, typed, purpose="contact", browser=visitor.browser
        )
        now = self.sessions.clock()
        tell = self.notices.about(account, "contact-added", now=now)

        async def change(transaction: RecordTransaction) -> ProvedContact:
            await still_signed_in(transaction, visitor, now)
            await spend(transaction)
            contact = await verify_contact(transaction, account.key, asked.subject, now=now)
            signs_in = contact.medium == "mail" and await add_alias(
                transaction, account.key, contact.value
            )
            await tell(transaction)
            return ProvedContact(contact, signs_in)

        return await store.transact(change)

    async def remove(self, visitor: Visitor, key: str) -> None:
        """Take a contact away, and the name that it was.

        Raises `UnknownContact`, `fhir_portal.accounts.contacts.LastContact` and
        `SignedOutMeanwhile`.
        """
        account, store, now = _signed_in(visitor), self.sessions.store, self.sessions.clock()
        there = await store.get(Contact, key)
        if there is None or there.account != account.key:
            raise UnknownContact
        others = self.notices.about(account, "contact-removed", now=now)
        itself = self.notices.about(account, "contact-removed", now=now, contact=there)

        async def change(transaction: RecordTransaction) -> None:
            await still_signed_in(transaction, visitor, now)
            contact = await remove_contact(transaction, account.key, key, now=now)
            await end_recoveries(transaction, account.key)  # a code may be on its way there
            await remove_alias(transaction, account, contact.value)
            if contact.verified is not None:
                await others(transaction)
                await itself(transaction)

        await store.transact(change)

    async def _send(self, visitor: Visitor, contact: Contact, *, is_new: bool) -> Challenge:
        account, now = _signed_in(visitor), self.sessions.clock()
        await self.throttle.limit(CODES_BY_ACCOUNT, f"contact codes of {account.key}")
        await self.throttle.limit(CODES_TO_CONTACT, f"contact codes to {contact.value}")

        async def send(transaction: RecordTransaction) -> Challenge:
            await still_signed_in(transaction, visitor, now)
            kept = await add_contact(transaction, contact) if is_new else contact
            challenge = self.codes.challenge(
                "contact",
                subject=kept.key,
                browser=visitor.browser,
                medium=kept.medium,
                to=kept.value,
            )
            challenge = await self.codes.keep(transaction, challenge)
            await self.sender.send(challenge, practice=home_of(account), now=now)(transaction)
            return challenge

        return await self.sessions.store.transact(send)


def _signed_in(visitor: Visitor) -> Account:
    if visitor.account is None:
        raise SignedOutMeanwhile
    return visitor.account
