"""Accounts: one human, one sign-in, outside FHIR."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordStore,
    RecordTransaction,
)

Role = Literal["patient", "proxy", "guardian", "staff", "admin"]

_MAX_USERNAME = 200
_ONE = "all"
_AT_ONCE = 200
_FOLDS = 4
"""Folding once is stable but for some characters; twice has been enough for every one."""


class DuplicateAccount(Exception):
    """Somebody has this user name already."""


class UnknownAccount(Exception):
    """There is no such account."""


class InvalidUsername(Exception):
    """Empty, too long, or with characters nobody can type."""


class Account(Record, frozen=True, kw_only=True):
    """One person's account; ``key`` is its random id, the ``sub`` of every id_token.

    ``persons`` are ``<practice>/Person/<id>``, one for each practice that knows this human.
    Without a ``password_hash`` nobody can sign in by password. ``renewal`` is why the owner has to
    renew what they sign in with (`fhir_portal.accounts.renewal`), ``None`` if they need not.
    ``closed_at`` are practices whose records are closed since another one helped to recover the
    account, until their own proof is repeated (`fhir_portal.accounts.assisted_recovery.reopen`).
    """

    kind: ClassVar[str] = "account"
    indexed: ClassVar[tuple[str, ...]] = ("username",)

    username: str
    created: float
    password_hash: str | None = None
    persons: tuple[str, ...] = ()
    role: Role = "patient"
    disabled: bool = False
    renewal: str | None = None
    closed_at: tuple[str, ...] = ()


class AccountName(Record, frozen=True, kw_only=True):
    """Makes a user name unique: ``key`` is the folded name."""

    kind: ClassVar[str] = "account-name"

    account: str


class AccountPerson(Record, frozen=True, kw_only=True):
    """Whose a Person is: ``key`` is ``<practice>/Person/<id>``, so that one account has it."""

    kind: ClassVar[str] = "account-person"

    account: str


class PersonsFilledIn(Record, frozen=True, kw_only=True):
    """That `fill_in_persons` went through all accounts; there is one, by the key `_ONE`."""

    kind: ClassVar[str] = "account-persons-filled-in"


class PersonTaken(Exception):
    """The Person is another account's."""


def home_of(account: Account) -> str:
    """Return the key of the practice that speaks to an account's owner; ``""`` for none."""
    return account.persons[0].partition("/")[0] if account.persons else ""


def folded(username: str) -> str:
    """Return the form in which user names are compared: case and width do not tell them apart.

    It is folded until it stays as it is, so that a name that is kept leads to itself. What is
    longer than any user name is nobody's: ``""``. (To normalise it would take time with the square
    of its length.)
    """
    name = username.strip()
    for _ in range(_FOLDS):
        if len(name) > _MAX_USERNAME:
            return ""
        before, name = name, unicodedata.normalize("NFKC", name).casefold().strip()
        if name == before:
            return name
    return ""


async def add_account(
    store: RecordStore,
    *,
    username: str,
    password_hash: str | None,
    now: float,
    random: Callable[[int], bytes],
    persons: Sequence[str] = (),
    role: Role = "patient",
) -> Account:
    """Make an account. Raises `DuplicateAccount` or `InvalidUsername`; nothing is stored then.

    ``password_hash`` comes from `fhir_portal.accounts.credentials.Passwords.hash`.
    """
    account = new_account(
        username=username,
        password_hash=password_hash,
        now=now,
        random=random,
        persons=persons,
        role=role,
    )

    async def keep(transaction: RecordTransaction) -> None:
        await insert_account(transaction, account)

    await store.transact(keep)
    return account


def new_account(
    *,
    username: str,
    password_hash: str | None,
    now: float,
    random: Callable[[int], bytes],
    persons: Sequence[str] = (),
    role: Role = "patient",
) -> Account:
    """Return an account that `insert_account` can store. Raises `InvalidUsername`."""
    name = folded(username)
    if not name or len(name) > _MAX_USERNAME or not name.isprintable():
        raise InvalidUsername(f"a user name has 1 to {_MAX_USERNAME} printable characters")
    return Account(
        key=base64.urlsafe_b64encode(random(15)).decode(),
        username=name,
        created=now,
        password_hash=password_hash,
        persons=tuple(persons),
        role=role,
    )


async def insert_account(transaction: RecordTransaction, account: Account) -> None:
    """Store a new account under its user name. Raises `DuplicateAccount` and `PersonTaken`."""
    try:
        await transaction.insert(AccountName(key=account.username, account=account.key))
    except DuplicateRecord:
        raise DuplicateAccount(account.username) from None
    for person in account.persons:
        await _insert_person(transaction, account, person)
    await transaction.insert(account)


async def add_person(transaction: RecordTransaction, account: Account, person: str) -> Account:
    """Let an account be a ``<practice>/Person/<id>`` too, and return it. Raises `PersonTaken`.

    It is one of each practice at most: a practice knows a human once.
    """
    practice = person.partition("/")[0]
    if any(one.partition("/")[0] == practice for one in account.persons):
        raise PersonTaken(f"the account is known at '{practice}' already")
    await _insert_person(transaction, account, person)
    changed = msgspec.structs.replace(account, persons=(*account.persons, person))
    if not await transaction.replace(account, changed):
        raise UnknownAccount(account.key)
    return changed


async def remove_person(transaction: RecordTransaction, account: Account, person: str) -> Account:
    """Let an account be a ``<practice>/Person/<id>`` no longer, and return it.

    The sign-in stays, and so does what other practices know. Raises `UnknownAccount`: it is not.
    """
    left = tuple(one for one in account.persons if one != person)
    changed = msgspec.structs.replace(account, persons=left)
    if left == account.persons or not await transaction.replace(account, changed):
        raise UnknownAccount(account.key)
    await transaction.delete(AccountPerson, person)
    return changed


async def _insert_person(transaction: RecordTransaction, account: Account, person: str) -> None:
    try:
        await transaction.insert(AccountPerson(key=person, account=account.key))
    except DuplicateRecord:
        raise PersonTaken(person) from None


async def fill_in_persons(store: RecordStore) -> None:
    """Say whose the Persons of accounts are that are older than `AccountPerson`, once.

    Without that they would seem to be nobody's, and another account could take them. Where two
    accounts have one Person it is that of the earlier key; both keep what they could use. It goes
    by batches; an interrupted run is done again.
    """
    if await store.get(PersonsFilledIn, _ONE) is not None:
        return
    after = ""
    while accounts := await store.every(Account, after=after, limit=_AT_ONCE):
        await _fill_in(store, [one.key for one in accounts])
        after = accounts[-1].key

    async def note(transaction: RecordTransaction) -> None:
        await transaction.put(PersonsFilledIn(key=_ONE))

    await store.transact(note)


async def _fill_in(store: RecordStore, keys: Sequence[str]) -> None:
    async def fill(transaction: RecordTransaction) -> None:
        for key in keys:
            account = await transaction.get(Account, key)  # it may have gone since it was listed
            for person in account.persons if account is not None else ():
                if await transaction.get(AccountPerson, person) is None:
                    await transaction.insert(AccountPerson(key=person, account=key))

    while True:
        try:
            return await store.transact(fill)
        except DuplicateRecord:
            continue  # another process, or a sign-up, was first with one of them: look again


async def account_of_person(reader: RecordReader, person: str) -> Account | None:
    """Return the account that is a ``<practice>/Person/<id>``."""
    found = await reader.get(AccountPerson, person)
    return await reader.get(Account, found.account) if found else None


async def account_named(reader: RecordReader, username: str) -> Account | None:
    """Return the account with this user name, however it is written."""
    name = await reader.get(AccountName, folded(username))
    # Nobody's name is looked up as often: how long it takes tells nothing.
    return await reader.get(Account, name.account if name else "")


async def add_alias(transaction: RecordTransaction, account: str, name: str) -> bool:
    """Let an account be signed in to by one more name; false if that leads to another account."""
    alias = AccountName(key=folded(name), account=account)
    if not alias.key:
        return False
    there = await transaction.get(AccountName, alias.key)
    if there is None:
        await transaction.insert(alias)
        return True
    return there.account == account


async def remove_alias(transaction: RecordTransaction, account: Account, name: str) -> None:
    """Take a further name of an account away. Its own user name stays."""
    key = folded(name)
    there = await transaction.get(AccountName, key)
    if there is not None and there.account == account.key and key != account.username:
        await transaction.delete(AccountName, key)


async def enable_account(
    store: RecordStore,
    account_id: str,
    *,
    last: Callable[[Any], Awaitable[None]] | None = None,
) -> None:
    """Let a person in again who was shut out. Raises `UnknownAccount`.

    ``last`` follows it in the transaction.
    Shutting out ends tokens and sessions too: `fhir_portal.smart.revocation.disable_account`.
    """

    async def change(transaction: RecordTransaction) -> None:
        account = await transaction.get(Account, account_id)
        if account is None:
            raise UnknownAccount(account_id)
        await transaction.put(msgspec.structs.replace(account, disabled=False))
        if last is not None:
            await last(transaction)

    await store.transact(change)
