"""Whom a message is for: an account, or the person whose record it is, becomes addresses.

It is looked up in the transaction that writes the messages to those addresses, when their turn has
come: a notice goes to the contacts of then.

    account:<id>                        every proved contact of the account; a notice about
                                        signing in also to those taken away within a week
    record:<practice>/Patient/<id>      the accounts whose own record that is, and no proxy's
    nobody:                             nobody; for what must look like a message being sent
    mail:<address>, sms:<number>        that address
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account, account_of_person
from fhir_portal.accounts.contacts import (
    Contact,
    InvalidContact,
    mail_address,
    telephone_number,
    told_of_changes,
    verified_contacts,
)
from fhir_portal.accounts.preferences import preferences_of
from fhir_portal.consent.record import RecordAccess
from fhir_portal.notify.outbox import (
    LONGEST_KEY,
    Channel,
    OutboxMessage,
    Superseded,
    UndeliverableMessage,
)
from fhir_portal.notify.words import UnknownTemplate, built_in
from fhir_portal.search.registry import parameters_for

ACCOUNT: Final = "account:"
RECORD: Final = "record:"
_MOST_PERSONS: Final = 20
_NOBODYS: Final[Mapping[Channel, str]] = {
    "mail": "nobody@example.org",
    "sms": "+12025550100",
}
_NOTICE: Final = "security-"


def to_account(account: str) -> str:
    """Return the ``to`` of a message to an account's owner."""
    return f"{ACCOUNT}{account}"


def to_contact(contact: Contact) -> str:
    """Return the ``to`` of a message to one contact; its channel is the contact's medium."""
    return to_address(contact.medium, contact.value)


def to_address(channel: Channel, value: str) -> str:
    """Return the ``to`` of a message to one address or number."""
    return f"{channel}:{value}"


def address_of(message: OutboxMessage) -> str:
    """Return the address or number of a message to one.

    Raises `UndeliverableMessage` where it is none: an address is looked at once more before it
    gets near a header.
    """
    if message.is_for_nobody:
        return _NOBODYS[message.channel]
    value = message.to.removeprefix(f"{message.channel}:")
    try:
        return mail_address(value) if message.channel == "mail" else telephone_number(value)
    except InvalidContact:
        raise UndeliverableMessage("its address is none") from None


@dataclass(frozen=True, slots=True)
class AccountRecipients:
    """`fhir_portal.notify.outbox.Recipients` over accounts, their contacts and preferences.

    ``channels`` are those on which something is set up to send.
    """

    clock: Callable[[], float]
    channels: frozenset[Channel]

    def are_meant_by(self, to: str) -> bool:
        """Whether ``to`` stands for others."""
        return to.startswith((ACCOUNT, RECORD))

    async def of(self, transaction: Any, message: OutboxMessage) -> Sequence[OutboxMessage]:
        """Return a message for each contact that is to get it.

        ``transaction`` is one of a `fhir_portal.resources.store.PortalStore`. Raises
        `UndeliverableMessage` where nobody can be reached.
        """
        try:
            topic = built_in(message.template).topic
        except UnknownTemplate as error:
            raise UndeliverableMessage(str(error)) from None
        # A code or a link would open the account: those go to nobody who was taken away.
        is_notice = message.template.startswith(_NOTICE) and message.link_for is None
        accounts = await self._accounts(transaction, message.to)
        reachable: dict[str, Contact] = {}
        wanted: dict[str, Contact] = {}
        for account in accounts:
            preferences = await preferences_of(transaction, account)
            if is_notice:
                contacts = await told_of_changes(transaction, account, now=self.clock())
            else:
                contacts = await verified_contacts(transaction, account)
            for contact in contacts:
                if contact.bounced is None and contact.medium in self.channels:
                    reachable[contact.key] = contact
                    if preferences.wants(topic, contact.medium):
                        wanted[contact.key] = contact
        if not reachable:
            raise UndeliverableMessage(
                "no contact of the account is verified and takes messages: ask its owner for one"
            )
        return [self._copy(message, contact) for contact in wanted.values()]

    async def _accounts(self, transaction: Any, to: str) -> list[str]:
        if to.startswith(ACCOUNT):
            account = await transaction.get(Account, to.removeprefix(ACCOUNT))
            if account is None:
                raise Superseded("the account is gone")
            return [account.key]
        practice, _, patient = to.removeprefix(RECORD).partition("/")
        found = await own_accounts(transaction, practice, patient, clock=self.clock)
        if not found:
            raise Superseded("whose record it is has no account")
        return [account.key for account in found]

    def _copy(self, message: OutboxMessage, contact: Contact) -> OutboxMessage:
        now = self.clock()
        return msgspec.structs.replace(
            message,
            key=_key_of_copy(message.key, contact.key),
            created=now,
            due=now,
            state="waiting",
            attempts=0,
            fence=0,
            worker="",
            fault="",
            channel=contact.medium,
            to=to_contact(contact),
        )


async def own_accounts(
    reader: Any, practice: str, patient: str, *, clock: Callable[[], float]
) -> list[Account]:
    """Return the accounts that may use a record as their own; ``patient`` is ``Patient/<id>``.

    ``reader`` is a `fhir_portal.resources.store.PortalStore` or a transaction of it. The link from
    Person to Patient has to be proved, and the account enabled, as for using the record.
    """
    key = local_target(patient)
    if key is None or key.type != "Patient":
        return []
    persons = await reader.referring(
        parameters_for("Person")["link"],
        [key],
        Visibility.of_server("Person", practice=practice),
        limit=_MOST_PERSONS,
    )
    found = await _ways(reader, practice, str(key), persons, clock=clock)
    return [account for account, record in found if record.is_own]


async def proxies_who_see(
    reader: Any, practice: str, patient: str, section: str, *, clock: Callable[[], float]
) -> list[Account]:
    """Return the accounts that may use somebody else's record, with a section, by a grant of now.

    As for using the record: whoever could not open it is told nothing of it.
    """
    key = local_target(patient)
    if key is None or key.type != "Patient":
        return []
    related = await reader.referring(
        parameters_for("RelatedPerson")["patient"],
        [key],
        Visibility.of_server("RelatedPerson", practice=practice),
        limit=_MOST_PERSONS,
    )
    if not related:
        return []
    persons = await reader.referring(
        parameters_for("Person")["link"],
        [one.key for one in related],
        Visibility.of_server("Person", practice=practice),
        limit=_MOST_PERSONS,
    )
    found = await _ways(reader, practice, str(key), persons, clock=clock)
    return [
        account
        for account, record in found
        if not record.is_own and section in (record.sections or ())
    ]


async def _ways(
    reader: Any,
    practice: str,
    patient: str,
    persons: Sequence[Any],
    *,
    clock: Callable[[], float],
) -> list[tuple[Account, RecordAccess]]:
    """Return the accounts of Persons that may use a record now, each with its way to it."""
    found: dict[str, tuple[Account, RecordAccess]] = {}
    for person in persons:
        account = await account_of_person(reader, f"{practice}/{person.key}")
        if account is None:
            continue
        record = await Relations(reader, clock).record_of(account, practice, patient)
        if record is not None:
            found[account.key] = (account, record)
    return list(found.values())


def _key_of_copy(message: str, contact: str) -> str:
    """The key of a message to one contact: the same one each time."""
    key = f"{message}.{contact}"
    if len(key) <= LONGEST_KEY:
        return key
    return f"{hashlib.sha256(message.encode()).hexdigest()}.{contact}"
