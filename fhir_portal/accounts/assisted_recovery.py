"""Recovery with the help of a practice's staff, who never see what opens an account alone.

Staff check who somebody is and start it: they get a desk code to hand over, which is one half. The
other half is a code sent to a contact of the owner's. Where no contact can have one, it is the
birth date and an activation word, which a second member of staff hands over who approves of it: so
nobody on the staff has seen both. The owner finishes it (`fhir_portal.accounts.recovery`).

Accounts of staff, of proxies and those with a second factor take a second member of staff too, and
a day's notice to all contacts; that a second factor is removed takes no less. Work as staff, here
and elsewhere, is suspended when the owner finishes it, until an administrator who did not help, or
an operator, says that it is them: so two who may help make nobody an administrator.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import Contact, contacts_of, verified_contacts
from fhir_portal.accounts.notice import Notices
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.staff import StaffMember
from fhir_portal.accounts.totp import Totp
from fhir_portal.records import Record, RecordReader, RecordTransaction

Basis = Literal["photo-id", "known-in-person", "video-call-with-photo-id"]
"""How staff made sure who somebody is."""
Half = Literal["contact", "birth-date"]

NOTICE_SECONDS: Final = 24 * 3600.0
"""How long the owner's contacts know before it can be used."""
USABLE_SECONDS: Final = 72 * 3600.0
BEGINNINGS: Final = 5
"""How often the desk code may be typed; each time has the tries of a recovery."""
_SIGNS: Final = "23456789abcdefghjkmnpqrstvwxyz"
_CODE_SIGNS: Final = 12  # 30**12 is 58 bits
_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"
_SYLLABLES: Final = 6
_ID_BYTES: Final = 16


class NotOfThisPractice(Exception):
    """The account's owner is not known to the practice."""


class NotByThem(Exception):
    """Nobody helps themselves, or approves of what they started."""


class NoSuchRecovery(Exception):
    """There is none under way, at this practice, for this code."""


class NotYetOpen(Exception):
    """It waits for a second member of staff (``opens_at`` is ``None``) or for a time."""

    def __init__(self, opens_at: float | None) -> None:
        super().__init__("this recovery cannot be used yet")
        self.opens_at = opens_at


class AssistedRecovery(Record, frozen=True, kw_only=True):
    """A recovery that staff started; ``key`` is random and no secret.

    ``code`` is the hash of the desk code. ``by`` and ``approved_by`` are staff's accounts, ``half``
    what is asked beside the desk code. It can be used from ``opens_at``, once it is approved where
    it ``needs_approval``; ``begun`` counts how often the desk code was typed. With
    ``removes_second`` the owner's authenticator app, passkeys and recovery codes go when they
    finish it.
    """

    kind: ClassVar[str] = "assisted-recovery"
    indexed: ClassVar[tuple[str, ...]] = ("account", "practice", "code")

    expires: float
    account: str
    practice: str
    code: str
    by: str
    basis: Basis
    started: float
    opens_at: float
    half: Half
    needs_approval: bool
    removes_second: bool
    approved_by: str | None = None
    begun: int = 0

    def check(self, at: float) -> None:
        """Raise `NotYetOpen`, or `NoSuchRecovery` for one that is over."""
        if at >= self.expires or self.begun > BEGINNINGS:
            raise NoSuchRecovery
        if self.needs_approval and self.approved_by is None:
            raise NotYetOpen(None)
        if at < self.opens_at:
            raise NotYetOpen(self.opens_at)


@dataclass(frozen=True, slots=True)
class Started:
    """A recovery that was started, and the desk code to hand over: shown this once."""

    recovery: AssistedRecovery
    code: str


@dataclass(frozen=True, slots=True)
class Approved:
    """A recovery that was approved; the activation word to hand over where one is asked."""

    recovery: AssistedRecovery
    word: str | None


@dataclass(frozen=True, slots=True)
class AssistedRecoveries:
    """Starts and approves recoveries; ``key`` is a key of the server's, of 32 bytes."""

    key: bytes
    notices: Notices
    clock: Callable[[], float]
    random: Callable[[int], bytes]

    async def start(
        self,
        transaction: RecordTransaction,
        account: Account,
        *,
        practice: str,
        by: str,
        basis: Basis,
        is_proxy: bool = False,
    ) -> Started:
        """Start a recovery in the caller's transaction; an earlier one of the practice is over.

        ``by`` is the account of the member of staff, whose right to do this the caller checked;
        ``is_proxy`` says that the owner acts for others. All contacts are told. Raises
        `NotOfThisPractice` and `NotByThem`.
        """
        if practice not in {one.partition("/")[0] for one in account.persons}:
            raise NotOfThisPractice
        if by == account.key:
            raise NotByThem
        now = self.clock()
        there = await contacts_of(transaction, account.key)
        half: Half = "contact" if any(_gets_codes(one, now) for one in there) else "birth-date"
        second = await has_second(transaction, account.key)
        staff = bool(await transaction.find(StaffMember, "account", account.key, limit=1))
        high_risk = staff or is_proxy or account.role in ("staff", "admin") or second
        told = bool(await verified_contacts(transaction, account.key))
        waits = told and (high_risk or half == "birth-date")
        opens_at = now + NOTICE_SECONDS if waits else now
        identity = self.random(_ID_BYTES).hex()
        code = self._code(identity)
        recovery = AssistedRecovery(
            key=identity,
            expires=opens_at + USABLE_SECONDS,
            account=account.key,
            practice=practice,
            code=self._hash(code),
            by=by,
            basis=basis,
            started=now,
            opens_at=opens_at,
            half=half,
            needs_approval=high_risk or half == "birth-date",
            removes_second=second,
        )
        await end_assisted(transaction, account.key, practice)
        await transaction.insert(recovery)
        tell = self.notices.about(
            account, "recovery-started", now=now, once=identity, practice=practice
        )
        await tell(transaction)
        return Started(recovery, "-".join(code[at : at + 4] for at in range(0, len(code), 4)))

    async def approve(
        self, transaction: RecordTransaction, key: str, *, practice: str, by: str
    ) -> Approved:
        """Approve of a recovery as a second member of staff. Raises `NoSuchRecovery`, `NotByThem`.

        The word is shown once: to who approves first, not to who started it.
        """
        found = await transaction.get(AssistedRecovery, key)
        if found is None or found.practice != practice or self.clock() >= found.expires:
            raise NoSuchRecovery
        if by in (found.by, found.account) or found.approved_by is not None:
            raise NotByThem
        approved = msgspec.structs.replace(found, approved_by=by)
        await transaction.put(approved)
        return Approved(approved, self.word(key) if found.half == "birth-date" else None)

    async def withdraw(self, transaction: RecordTransaction, key: str, *, practice: str) -> None:
        """Take a recovery back: desk code and word open nothing any more. Raises `NoSuchRecovery`.

        What the owner began with it is over as well, at its next step.
        """
        found = await transaction.get(AssistedRecovery, key)
        if found is None or found.practice != practice:
            raise NoSuchRecovery
        await transaction.delete(AssistedRecovery, key)

    async def begun(self, transaction: RecordTransaction, typed: str) -> AssistedRecovery:
        """Count that a desk code was typed and return its recovery.

        Raises `NoSuchRecovery` and `NotYetOpen`.
        """
        found = await transaction.find(AssistedRecovery, "code", self._hash(_read(typed)), limit=2)
        if len(found) != 1:
            raise NoSuchRecovery
        counted = msgspec.structs.replace(found[0], begun=found[0].begun + 1)
        counted.check(self.clock())
        await transaction.put(counted)
        return counted

    def is_word(self, key: str, typed: str) -> bool:
        """Whether this is the activation word of a recovery."""
        said = "".join(sign for sign in typed[:80].casefold() if sign.isascii() and sign.isalpha())
        return hmac.compare_digest(self.word(key).encode(), said.encode())

    def word(self, key: str) -> str:
        """Return the activation word of a recovery."""
        number = int.from_bytes(self._mac("word", key))
        syllables = []
        for _ in range(_SYLLABLES):
            number, consonant = divmod(number, len(_CONSONANTS))
            number, vowel = divmod(number, len(_VOWELS))
            syllables.append(_CONSONANTS[consonant] + _VOWELS[vowel])
        return "".join(syllables)

    def _code(self, key: str) -> str:
        number = int.from_bytes(self._mac("code", key))
        signs = []
        for _ in range(_CODE_SIGNS):
            number, rest = divmod(number, len(_SIGNS))
            signs.append(_SIGNS[rest])
        return "".join(signs)

    def _hash(self, code: str) -> str:
        return self._mac("look-up", code).hex()

    def _mac(self, what: str, text: str) -> bytes:
        return hmac.digest(self.key, f"desk {what} {text}".encode(), hashlib.sha256)


async def end_assisted(
    transaction: RecordTransaction, account: str, practice: str | None = None
) -> None:
    """End the recoveries of an account that staff started, of one practice or all."""
    for found in await transaction.find(AssistedRecovery, "account", account):
        if practice in (None, found.practice):
            await transaction.delete(AssistedRecovery, found.key)


async def assisted_of(reader: RecordReader, account: str, *, now: float) -> bool:
    """Whether staff have begun to help somebody back into an account, and it is not over."""
    found = await reader.find(AssistedRecovery, "account", account)
    return any(now < one.expires and one.begun <= BEGINNINGS for one in found)


async def reopen(transaction: RecordTransaction, account: Account, practice: str) -> Account:
    """Open a practice's records again whose own proof the owner repeated; returns the account.

    They were closed when another practice helped to recover the account (DESIGN §3.6).
    """
    open_again = msgspec.structs.replace(
        account, closed_at=tuple(one for one in account.closed_at if one != practice)
    )
    await transaction.put(open_again)
    return open_again


def closed_after(account: Account, practice: str) -> tuple[str, ...]:
    """Return the practices whose records are closed once ``practice`` helped to recover."""
    others = [one.partition("/")[0] for one in account.persons]
    closed = dict.fromkeys((*account.closed_at, *others))
    return tuple(one for one in closed if one != practice)


def _read(typed: str) -> str:
    """A desk code however it is written."""
    return "".join(sign for sign in typed[:60].casefold() if sign.isascii() and sign.isalnum())


def _gets_codes(contact: Contact, now: float) -> bool:
    return contact.recovers(now) and contact.bounced is None


async def has_second(reader: RecordReader, account: str) -> bool:
    """Whether an account has an authenticator app or a passkey."""
    if await reader.get(Totp, account) is not None:
        return True
    return bool(await reader.find(Passkey, "account", account, limit=1))
