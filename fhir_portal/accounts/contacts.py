"""How an account's owner can be reached: mail addresses and telephone numbers, proved or not.

A contact counts once a code that was sent there came back. What was added a moment ago cannot yet
help to recover the account: whoever got in for a minute would otherwise keep it
(`RECOVERY_AFTER_SECONDS`). No proved contact is taken away unless another one helps to recover
already, and one that was taken away is told of what changes for a week: so its owner has time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final, Literal

import msgspec
import phonenumbers
from email_validator import EmailNotValidError, validate_email

from fhir_portal.records import Record, RecordReader, RecordTransaction

Medium = Literal["mail", "sms"]

MOST: Final = 10
"""Contacts of one account."""
RECOVERY_AFTER_SECONDS: Final = 24 * 3600.0
"""How long a contact is proved before it helps to recover an account."""
REMOVED_TOLD_SECONDS: Final = 7 * 24 * 3600.0
"""How long a proved contact that was taken away is told of what changes about signing in."""
_DOTLESS: Final[Mapping[str, str]] = {"gmail.com": "gmail.com", "googlemail.com": "gmail.com"}
"""Providers whose own help says that dots in the local part do not count, and which of their
domains are one."""
_LONGEST: Final = 254
_ID_BYTES: Final = 12


class InvalidContact(Exception):
    """No such address or number can exist. The words are for whoever typed it."""


class TooManyContacts(Exception):
    """The account has `MOST` contacts."""


class UnknownContact(Exception):
    """The account has no such contact."""


class LastContact(Exception):
    """No other one helps to recover the account yet and can be reached."""


class Contact(Record, frozen=True, kw_only=True):
    """One address or number of an account; ``key`` is random.

    ``value`` is as `mail_address` and `telephone_number` write it. ``verified`` is when a code came
    back from there, seconds since 1970 UTC; ``recovers_from`` is when it begins to count for
    recovery. ``bounced`` is when a message was sent back for good.
    """

    kind: ClassVar[str] = "account-contact"
    indexed: ClassVar[tuple[str, ...]] = ("account", "value")

    account: str
    medium: Medium
    value: str
    added: float
    verified: float | None = None
    recovers_from: float | None = None
    bounced: float | None = None

    def recovers(self, at: float) -> bool:
        """Whether the contact may help to recover the account at a moment."""
        return (
            self.verified is not None
            and self.recovers_from is not None
            and self.recovers_from <= at
        )


class RemovedContact(Record, frozen=True, kw_only=True):
    """A proved contact that was taken away, by the same ``key``; told of changes until it expires.

    Whoever takes the owner's contacts away thereby silences nobody.
    """

    kind: ClassVar[str] = "removed-contact"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    expires: float
    contact: Contact
    account: str


def mail_address(text: str) -> str:
    """Return a mail address in the form in which addresses are compared.

    The domain is folded to its international form, the local part to lower case: no mailbox
    provider in use tells letters' case apart. Line breaks and all that could begin a header are
    refused. Raises `InvalidContact`.
    """
    try:
        found = validate_email(
            text.strip()[: _LONGEST + 1],
            check_deliverability=False,
            allow_quoted_local=False,
            allow_domain_literal=False,
            test_environment=True,  # the reserved names too: demo and tests live there
        )
    except EmailNotValidError as error:
        raise InvalidContact(f"This is not a mail address: {error}") from None
    return found.normalized.lower()


def mailbox_of(medium: str, value: str) -> str:
    """Return what is the same for all addresses of one mailbox; a number is what it is.

    Whoever reads ``name@`` reads ``name+anything@``, too (subaddresses, RFC 5233), so that two of
    them are no two proofs. Dots count, but for the providers that say they do not. To take two
    mailboxes for one asks for another proof; nobody is written to at what is returned here.
    """
    if medium != "mail":
        return value
    local, _, domain = value.lower().rpartition("@")
    local = local.partition("+")[0] or local
    if domain in _DOTLESS:
        local, domain = local.replace(".", "") or local, _DOTLESS[domain]
    return f"{local}@{domain}"


def telephone_number(text: str, *, region: str | None = None) -> str:
    """Return a telephone number in E.164 form. Raises `InvalidContact`.

    ``region`` is the country (ISO 3166-1 alpha-2) of numbers written without a country code.
    """
    try:
        number = phonenumbers.parse(text[:_LONGEST], region)
    except phonenumbers.NumberParseException:
        raise InvalidContact(
            "This is not a telephone number. Begin with + and the country code."
        ) from None
    if not phonenumbers.is_possible_number(number) or number.extension:
        raise InvalidContact("This telephone number cannot exist. Look at it once more.")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def masked(contact: Contact) -> str:
    """Return a contact so that its owner knows it and nobody else learns it."""
    return masked_value(contact.medium, contact.value)


def masked_value(medium: Medium, value: str) -> str:
    """Return an address or a number with all but its edges hidden, always at the same length."""
    if medium == "sms":
        return f"••• {value[-2:]}"
    local, _, domain = value.rpartition("@")
    return f"{local[:1]}•••@{domain[:1]}•••"


async def contacts_of(reader: RecordReader, account: str) -> list[Contact]:
    """Return an account's contacts, the earliest first."""
    found = await reader.find(Contact, "account", account)
    return sorted(found, key=lambda contact: (contact.added, contact.key))


async def verified_contacts(reader: RecordReader, account: str) -> list[Contact]:
    """Return the contacts that were proved."""
    return [one for one in await contacts_of(reader, account) if one.verified is not None]


async def told_of_changes(reader: RecordReader, account: str, *, now: float) -> list[Contact]:
    """Return the contacts that learn what changes about signing in: those proved, now or lately."""
    found = await verified_contacts(reader, account)
    there = {(one.medium, one.value) for one in found}
    for one in await reader.find(RemovedContact, "account", account):
        if now < one.expires and (one.contact.medium, one.contact.value) not in there:
            found.append(one.contact)
    return found


def new_contact(
    account: str,
    medium: Medium,
    value: str,
    *,
    now: float,
    random: Callable[[int], bytes],
    region: str | None = None,
) -> Contact:
    """Return a contact that nobody proved yet. Raises `InvalidContact`."""
    written = mail_address(value) if medium == "mail" else telephone_number(value, region=region)
    return Contact(
        key=random(_ID_BYTES).hex(), account=account, medium=medium, value=written, added=now
    )


async def add_contact(transaction: RecordTransaction, contact: Contact) -> Contact:
    """Store a contact, or return the same one if the account has it. Raises `TooManyContacts`."""
    there = await contacts_of(transaction, contact.account)
    for one in there:
        if (one.medium, one.value) == (contact.medium, contact.value):
            return one
    if len(there) >= MOST:
        raise TooManyContacts
    await transaction.insert(contact)
    return contact


async def verify_contact(
    transaction: RecordTransaction, account: str, key: str, *, now: float, is_first: bool = False
) -> Contact:
    """Note that a code came back from a contact. Raises `UnknownContact`.

    ``is_first`` is for what an account begins with, which counts for recovery at once.
    """
    contact = await _of(transaction, account, key)
    if contact.verified is not None and contact.bounced is None:
        return contact
    verified = msgspec.structs.replace(
        contact,
        verified=now,
        recovers_from=now if is_first else now + RECOVERY_AFTER_SECONDS,
        bounced=None,
    )
    await transaction.put(verified)
    return verified


async def remove_contact(
    transaction: RecordTransaction, account: str, key: str, *, now: float
) -> Contact:
    """Take a contact away. Raises `UnknownContact`.

    Raises `LastContact` for a proved one while no other one helps to recover: one that was added a
    moment ago may be somebody else's, and one that bounced reaches nobody.
    """
    contact = await _of(transaction, account, key)
    if contact.verified is not None:
        others = [
            one
            for one in await contacts_of(transaction, account)
            if one.key != key and one.recovers(now) and one.bounced is None
        ]
        if not others:
            raise LastContact
        await transaction.put(
            RemovedContact(
                key=key, account=account, contact=contact, expires=now + REMOVED_TOLD_SECONDS
            )
        )
    await transaction.delete(Contact, key)
    return contact


async def note_bounce(
    transaction: RecordTransaction, medium: Medium, value: str, *, now: float
) -> int:
    """Note that messages to an address come back; returns at how many accounts it stands."""
    found = [one for one in await transaction.find(Contact, "value", value) if one.medium == medium]
    for one in found:
        await transaction.put(msgspec.structs.replace(one, bounced=now))
    return len(found)


async def _of(transaction: RecordTransaction, account: str, key: str) -> Contact:
    contact = await transaction.get(Contact, key)
    if contact is None or contact.account != account:
        raise UnknownContact
    return contact
