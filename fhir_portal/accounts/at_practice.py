"""How an account stands at one practice: a practice may close its own records for an account.

One human has one account over several practices (DESIGN §3.6), so what a practice closes is its
own: the sign-in stays, and so do the records of other practices. To shut a whole account is an
operator's matter (`fhir_portal.smart.revocation.disable_account`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec

from fhir_portal.accounts.account import Account, account_of_person
from fhir_portal.records import Record, RecordReader, RecordTransaction

SIGN_OUTS_A_DAY: Final = 5
"""How often a practice ends sessions of one account, or has it renew what it signs in with."""
_DAY: Final = 86_400.0


class AccountAtPractice(Record, frozen=True, kw_only=True):
    """What a practice decided about an account; ``key`` is `at_practice_key`.

    There is none while the practice never closed its records for it. ``since`` is when ``state``
    began, in seconds since 1970 UTC, ``by`` who said so (``Practitioner/<id>`` or
    ``client:<client_id>``), ``reason`` a code of the guide's ``account-reason``. What is disabled
    ``until`` a moment is open again from then on. ``proxies_of`` are the ``Patient/<id>`` whose
    proxies were shut out with it.
    """

    kind: ClassVar[str] = "account-at-practice"

    practice: str
    account: str
    person: str
    state: Literal["disabled", "enabled"]
    since: float
    by: str
    reason: str
    text: str = ""
    until: float | None = None
    proxies_of: tuple[str, ...] = ()

    def is_disabled(self, at: float) -> bool:
        """Whether the practice's records are closed for the account at a moment."""
        return self.state == "disabled" and (self.until is None or at < self.until)


class ProxiesShutOut(Record, frozen=True, kw_only=True):
    """That a record is closed for those who act for its patient.

    ``key`` is ``<practice>/Patient/<id>/<account>``: the account that was disabled together with
    them. ``patient`` is ``<practice>/Patient/<id>``.
    """

    kind: ClassVar[str] = "proxies-shut-out"
    indexed: ClassVar[tuple[str, ...]] = ("patient",)

    patient: str


class ClosedAccount(Record, frozen=True, kw_only=True):
    """That an account may be disabled for a practice; ``key`` is `at_practice_key`.

    By these keys those that are disabled are found among all. Whoever reads one looks at the
    account: it may be open again.
    """

    kind: ClassVar[str] = "closed-account"


class ClosedPerson(Record, frozen=True, kw_only=True):
    """That a practice ended the portal for somebody; ``key`` is ``<practice>/Person/<id>``.

    It is what is known of it afterwards: the Person links nobody then, and no account is that
    Person. ``by`` and ``reason`` are as in `AccountAtPractice`; it says nothing once the Person is
    active again (`closing_of`).
    """

    kind: ClassVar[str] = "closed-person"

    at: float
    by: str
    reason: str
    text: str = ""


async def closing_of(
    reader: RecordReader, person: str, tree: Mapping[str, Any]
) -> ClosedPerson | None:
    """Return how the portal was ended for a ``<practice>/Person/<id>`` that says ``tree`` now.

    ``None``: it was not, or the practice's EHR uses the Person again.
    """
    return await reader.get(ClosedPerson, person) if tree.get("active") is False else None


Status = Literal["enabled", "disabled", "closed", "none"]
"""How the portal account of a Person stands at its practice."""


async def status_of(
    reader: RecordReader, practice: str, person: str, tree: Mapping[str, Any], *, now: float
) -> Status:
    """Return how the account of a ``<practice>/Person/<id>`` that says ``tree`` stands there."""
    account = await account_of_person(reader, person)
    if account is None:
        return "none" if await closing_of(reader, person, tree) is None else "closed"
    here = await standing(reader, practice, account.key)
    is_closed = account.disabled or (here is not None and here.is_disabled(now))
    return "disabled" if is_closed else "enabled"


class SignOuts(Record, frozen=True, kw_only=True):
    """How often a practice signed an account out in the day that ends at ``expires``.

    ``key`` is `at_practice_key`.
    """

    kind: ClassVar[str] = "sign-outs"

    expires: float
    count: int


class SignedOutTooOften(Exception):
    """The practice has signed this account out too often: wait ``retry_after`` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("signed out too often")
        self.retry_after = retry_after


async def count_sign_out(
    transaction: RecordTransaction, practice: str, account: str, *, now: float
) -> None:
    """Count that a practice ends sessions of an account. Raises `SignedOutTooOften`.

    One human has one sign-in, so what ends it for one practice ends it for all, and for work on
    another one's staff as well. That protects whoever it belongs to; that nobody is kept from
    their work by it is what this is for. It is the same for everybody, so that nobody learns by it
    where else somebody is known.
    """
    key = at_practice_key(practice, account)
    found = await transaction.get(SignOuts, key)
    if found is None or now >= found.expires:
        found = SignOuts(key=key, expires=now + _DAY, count=0)
    if found.count >= SIGN_OUTS_A_DAY:
        raise SignedOutTooOften(found.expires - now)
    await transaction.put(msgspec.structs.replace(found, count=found.count + 1))


def at_practice_key(practice: str, account: str) -> str:
    """Return the key of an account's standing at a practice."""
    return f"{practice}/{account}"


async def standing(reader: RecordReader, practice: str, account: str) -> AccountAtPractice | None:
    """Return what a practice decided about an account, ``None`` for nothing."""
    return await reader.get(AccountAtPractice, at_practice_key(practice, account))


async def is_open_at(reader: RecordReader, practice: str, account: str, *, at: float) -> bool:
    """Whether an account may use its records at a practice, as far as the practice decides it."""
    found = await standing(reader, practice, account)
    return found is None or not found.is_disabled(at)


async def proxies_shut_out(reader: RecordReader, practice: str, patient: str, *, at: float) -> bool:
    """Whether a ``Patient/<id>`` of a practice is closed for those who act for them."""
    found = await reader.find(ProxiesShutOut, "patient", f"{practice}/{patient}")
    return any(one.expires is None or at < one.expires for one in found)


async def disable_at(
    transaction: RecordTransaction,
    account: Account,
    *,
    practice: str,
    person: str,
    now: float,
    by: str,
    reason: str,
    text: str = "",
    until: float | None = None,
    proxies_of: Iterable[str] = (),
) -> tuple[AccountAtPractice, bool]:
    """Close a practice's records for an account; return how it stands, and whether it is news.

    ``person`` is the ``Person/<id>`` that the account is there. What was closed before stays closed
    since then; reason, end and proxies are those said last. What ends with it is in
    `fhir_portal.smart.revocation.revoke_at_practice`.
    """
    before = await standing(transaction, practice, account.key)
    was_disabled = before is not None and before.is_disabled(now)
    closed = AccountAtPractice(
        key=at_practice_key(practice, account.key),
        practice=practice,
        account=account.key,
        person=person,
        state="disabled",
        since=before.since if before is not None and was_disabled else now,
        by=by,
        reason=reason,
        text=text,
        until=until,
        proxies_of=tuple(sorted(set(proxies_of))),
    )
    await _let_proxies_in(transaction, before)
    await transaction.put(closed)
    await transaction.put(ClosedAccount(key=closed.key))
    for patient in closed.proxies_of:
        where = f"{practice}/{patient}"
        await transaction.put(
            ProxiesShutOut(key=f"{where}/{account.key}", patient=where, expires=until)
        )
    return closed, not was_disabled


async def enable_at(
    transaction: RecordTransaction,
    account: Account,
    *,
    practice: str,
    now: float,
    by: str,
    reason: str,
    text: str = "",
) -> tuple[AccountAtPractice | None, bool]:
    """Open a practice's records for an account again; return how it stands, and whether it is news.

    What ended with the closing does not come back: people sign in and connect their apps anew.
    """
    before = await standing(transaction, practice, account.key)
    if before is None or not before.is_disabled(now):
        return before, False
    await _let_proxies_in(transaction, before)
    opened = msgspec.structs.replace(
        before,
        state="enabled",
        since=now,
        by=by,
        reason=reason,
        text=text,
        until=None,
        proxies_of=(),
    )
    await transaction.put(opened)
    if not account.disabled:
        await transaction.delete(ClosedAccount, opened.key)
    return opened, True


async def note_closed(transaction: RecordTransaction, account: Account) -> None:
    """Note that an account was shut as a whole, for each practice that knows it."""
    for person in account.persons:
        practice = person.partition("/")[0]
        await transaction.put(ClosedAccount(key=at_practice_key(practice, account.key)))


def is_known_only_at(practice: str, account: Account, staff: Sequence[object]) -> bool:
    """Whether an account's sign-in leads to nothing but this practice's records."""
    return not staff and all(one.partition("/")[0] == practice for one in account.persons)


async def _let_proxies_in(transaction: RecordTransaction, before: AccountAtPractice | None) -> None:
    if before is None:
        return
    for patient in before.proxies_of:
        await transaction.delete(ProxiesShutOut, f"{before.practice}/{patient}/{before.account}")
