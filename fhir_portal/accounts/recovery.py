"""Getting back into an account: forgotten user name, password, or both.

What a stranger sees never depends on whether there is an account: the same page, the same status,
the same work. Each beginning writes one recovery, one challenge and `MESSAGES` messages; those for
nobody are dropped where messages are sent.

A new password takes a code that was sent to a contact, or a recovery code. An account with an
authenticator app or a passkey asks for a second proof of another kind: a code of the app, the
passkey, or the other one of the first two. So no way around the second factor leads through here.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, Protocol

import msgspec

from fhir_portal.accounts.account import Account, account_named, folded, home_of
from fhir_portal.accounts.assisted_recovery import (
    AssistedRecoveries,
    AssistedRecovery,
    NoSuchRecovery,
    NotYetOpen,
    closed_after,
    end_assisted,
    has_second,
)
from fhir_portal.accounts.contacts import (
    Contact,
    InvalidContact,
    contacts_of,
    mail_address,
    telephone_number,
)
from fhir_portal.accounts.credentials import UnacceptablePassword
from fhir_portal.accounts.front_door import FrontDoor, Place
from fhir_portal.accounts.matter import KEPT_SECONDS, StaffMatter, StaffMatters, matter_key
from fhir_portal.accounts.one_time_code import Challenge, OneTimeCodes, WrongOneTimeCode
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.practice import practice_names
from fhir_portal.accounts.proof import Factor, Proof, Spent, Write
from fhir_portal.accounts.recovery_codes import RecoveryCodes, is_recovery_code
from fhir_portal.accounts.security_questions import TRIES as QUESTION_TRIES
from fhir_portal.accounts.security_questions import SecurityQuestions, WrongAnswers
from fhir_portal.accounts.sessions import Opened, Session
from fhir_portal.accounts.staff import suspend_staff
from fhir_portal.accounts.totp import Totp, WrongCode
from fhir_portal.records import Record, RecordReader, RecordTransaction

Want = Literal["username", "password", "both"]
Step = Literal["code", "second", "questions", "birth-date", "password"]
Reason = Literal["locked", "unverified-contact", "no-recovery-contact", "no-account"]

RECOVERY_SECONDS: Final = 1800.0
TRIES: Final = 5
"""Wrong codes of one recovery; then only the practice can help."""
MESSAGES: Final = 3
"""Messages that each beginning writes: to so many contacts a code goes, the rest is dropped."""
SENDINGS: Final = "6 per hour"
"""Codes sent for one name, and for one account, to each network or known browser that asks. A
recovery code works meanwhile."""
SENDINGS_ANYWHERE: Final = "20 per hour"
"""The same for all networks together, but for browsers that are known to be the account's."""
_ID_BYTES: Final = 16
_SENT_DIGITS: Final = 8

_NOBODY: Final = Account(key="", username="", created=0.0)


class RecoveryOver(Exception):
    """There is no such recovery in this browser any more, or it is not at this step."""


class RecoveryLocked(Exception):
    """Too many wrong codes. The practice can help."""


class Recovery(Record, frozen=True, kw_only=True):
    """One attempt to get back into an account; ``key`` is random, ``browser`` the one it is for.

    ``account`` is ``None`` where there is none. ``proved`` is what was given so far; ``answered``
    says that the security questions were, which prove nothing on their own. ``reason`` is what
    staff are told if it comes to nothing. ``sent`` is false if no code was sent because of
    `SENDINGS`. ``assisted`` is one that staff started, which this finishes. ``handle`` and ``then``
    say where the sign-in leads that follows.
    """

    kind: ClassVar[str] = "account-recovery"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    expires: float
    browser: str
    want: Want
    account: str | None
    challenge: str
    practice: str
    reason: Reason
    sent: bool = True
    tries: int = 0
    proved: tuple[Factor, ...] = ()
    answered: bool = False
    assisted: str | None = None
    handle: str = ""
    then: str = ""


@dataclass(frozen=True, slots=True)
class UserNameOf:
    """A message that tells the user name of an account, at one of its contacts."""

    account: Account
    contact: Contact


class BirthDates(Protocol):
    """Knows when people were born, as a practice's record says."""

    async def __call__(self, account: Account, practice: str) -> str | None:
        """Return the birth date that a practice has of an account's owner, ``YYYY-MM-DD``."""
        ...


class RecoveryMessages(Protocol):
    """Writes down what a recovery sends."""

    def begin(
        self,
        recovery: Recovery,
        *,
        codes_to: Sequence[Contact],
        names_to: Sequence[UserNameOf],
        now: float,
    ) -> Write:
        """Return the write of exactly `MESSAGES` messages, padded with some for nobody."""
        ...

    def username(self, account: Account, *, once: str, now: float) -> Write:
        """Return the write of one message that tells the user name on every contact."""
        ...


@dataclass(frozen=True, slots=True)
class Recoveries:
    """Leads people back into their accounts."""

    door: FrontDoor
    codes: OneTimeCodes
    messages: RecoveryMessages
    questions: SecurityQuestions
    desk: AssistedRecoveries
    birth_dates: BirthDates
    matters: StaffMatters

    async def begin(
        self,
        browser: str,
        typed: str,
        want: Want,
        place: Place,
        *,
        handle: str = "",
        then: str = "",
        knows: Callable[[Account], Awaitable[str | None]] | None = None,
    ) -> Recovery:
        """Begin a recovery for a user name, mail address or telephone number.

        ``browser`` is the stored session's. ``knows`` names it if an account signed in there
        before: then strangers cannot have used up what it may. Raises `TooManyAttempts`, the same
        whether or not there is an account.
        """
        store, now = self.door.sessions.store, self.door.sessions.clock()
        throttle = self.door.password.throttle
        owners = await self._owners(typed, now)
        named = await account_named(store, typed)
        account = named if named is not None and not named.disabled else None
        if len(owners) == 1:
            account = owners[0].account
        elif owners:
            account = None  # each of them is told its user name, and begins again with that
        there = await contacts_of(store, account.key if account is not None else "")
        # Nobody is looked for in the same way, so that it takes as long.
        known = await knows(account or _NOBODY) if knows is not None else None
        place = replace(place, known=known if account is not None else None)
        await throttle.attempt(
            f"recover {folded(typed)}", address=place.address, device=place.known, guessable=False
        )
        sent = await self._may_send(f"name {folded(typed)}", place)
        # By another of its names an account gets no further codes. Nobody is told that: it would
        # tell that two names are one account's.
        is_silent = not await self._may_send(
            f"account {account.key if account is not None else folded(typed)}", place
        )
        tells_names = want == "username" or len(owners) > 1
        codes_to = [one for one in there if one.recovers(now) and one.bounced is None]
        # What was typed comes first: that is where the person looks.
        codes_to.sort(key=lambda one: not any(one.key == owner.contact.key for owner in owners))
        if tells_names or is_silent or not sent:
            codes_to = []
        challenge = self.codes.challenge(
            "recovery",
            subject=account.key if account is not None else "",
            browser=browser,
            medium="mail",
            to="",
            for_nobody=not codes_to,
        )
        recovery = Recovery(
            key=self.door.sessions.random(_ID_BYTES).hex(),
            expires=now + RECOVERY_SECONDS,
            browser=browser,
            want=want,
            account=account.key if account is not None and not tells_names else None,
            challenge=challenge.key,
            practice=home_of(account) if account is not None else "",
            reason=_reason(account, there, now),
            sent=sent,
            handle=handle,
            then=then,
        )
        write = self.messages.begin(
            recovery,
            codes_to=codes_to[:MESSAGES],
            names_to=owners[:MESSAGES] if tells_names and sent and not is_silent else (),
            now=now,
        )

        async def begin(transaction: RecordTransaction) -> None:
            await transaction.insert(recovery)
            await self.codes.keep(transaction, challenge, lane=" known" if place.known else "")
            await write(transaction)

        await store.transact(begin)
        return recovery

    async def begin_at_desk(self, browser: str, typed: str, place: Place) -> Recovery:
        """Begin to finish a recovery that staff started, by the desk code that they handed over.

        Raises `fhir_portal.accounts.assisted_recovery.NoSuchRecovery` and ``NotYetOpen``, and
        `TooManyAttempts`.
        """
        store, now = self.door.sessions.store, self.door.sessions.clock()
        attempt = await self.door.password.throttle.attempt(
            "desk code", address=place.address, device=None, guessable=False
        )
        key = self.door.sessions.random(_ID_BYTES).hex()

        async def begin(transaction: RecordTransaction) -> Recovery:
            assisted = await self.desk.begun(transaction, typed)
            account = await transaction.get(Account, assisted.account)
            if account is None or account.disabled:
                raise NoSuchRecovery
            there = await contacts_of(transaction, account.key)
            codes_to = [one for one in there if one.recovers(now) and one.bounced is None]
            if assisted.half == "birth-date":
                codes_to = []
            challenge = self.codes.challenge(
                "recovery",
                subject=account.key,
                browser=browser,
                medium="mail",
                to="",
                for_nobody=not codes_to,
            )
            recovery = Recovery(
                key=key,
                expires=now + RECOVERY_SECONDS,
                browser=browser,
                want="password",
                account=account.key,
                challenge=challenge.key,
                practice=assisted.practice,
                reason=_reason(account, there, now),
                proved=("desk-code",),
                assisted=assisted.key,
            )
            await transaction.insert(recovery)
            await self.codes.keep(transaction, challenge, lane=f" desk {assisted.key}")
            messages = self.messages.begin(
                recovery, codes_to=codes_to[:MESSAGES], names_to=(), now=now
            )
            await messages(transaction)
            return recovery

        recovery = await store.transact(begin)
        await self.door.password.throttle.succeeded(attempt)
        return recovery

    async def give_birth_date(self, recovery: Recovery, born: str, word: str) -> Recovery:
        """Take birth date and activation word as the other half beside a desk code.

        ``born`` is ``YYYY-MM-DD``. Raises `WrongCode`, `RecoveryLocked` and `RecoveryOver`.
        """
        if await self.step(recovery) != "birth-date":
            raise RecoveryOver
        counted = await self._counted(recovery)
        genuine = await self.birth_dates(await self._account(recovery), recovery.practice)
        said = self.desk.is_word(recovery.assisted or "", word)
        matches = hmac.compare_digest((genuine or "").encode(), born.strip().encode())
        if not (genuine and matches and said):
            await self._failed(counted)
            raise WrongCode
        return await self._proved(counted, Proof("birth-date"))

    async def find(self, key: str, browser: str) -> Recovery:
        """Return a recovery that is under way in this browser. Raises `RecoveryOver`."""
        found = await self.door.sessions.store.get(Recovery, key)
        if (
            found is None
            or not hmac.compare_digest(found.browser.encode(), browser.encode())
            or self.door.sessions.clock() >= found.expires
        ):
            raise RecoveryOver
        return found

    async def step(self, recovery: Recovery) -> Step:
        """Say what is asked next."""
        if not recovery.proved or recovery.account is None:
            return "code"
        if recovery.assisted is not None:
            if len(recovery.proved) > 1:
                return "password"
            assisted = await self._assisted(self.door.sessions.store, recovery)
            return "code" if assisted.half == "contact" else "birth-date"
        if len(recovery.proved) == 1 and await self._asks_second(recovery.account):
            return "second"
        if not recovery.answered and await self.asked(recovery):
            return "questions"
        return "password"

    async def asked(self, recovery: Recovery) -> list[str]:
        """Return the codes of the security questions that are asked, once the rest is proved."""
        if not recovery.proved:
            return []
        account = await self._account(recovery)
        return await self.questions.asked_of(account, self.door.sessions.clock())

    async def has_passkeys(self, recovery: Recovery) -> bool:
        """Whether a passkey may be the second proof; only once there is a first."""
        if not recovery.proved or recovery.account is None:
            return False
        return bool(await self.door.passkeys.of(recovery.account))

    async def give_code(self, recovery: Recovery, typed: str, place: Place) -> Recovery:
        """Take a code: one that was sent, a recovery code or, as the second, one of the app.

        Raises `WrongCode`, `RecoveryLocked`, `RecoveryOver` and `TooManyAttempts`.
        """
        step = await self.step(recovery)
        if step not in ("code", "second"):
            raise RecoveryOver
        counted = await self._counted(recovery)
        try:
            proof = await self._proof(counted, typed, place, is_second=step == "second")
        except (WrongCode, WrongOneTimeCode):
            await self._failed(counted)
            raise WrongCode from None
        return await self._proved(counted, proof)

    async def begin_passkey(self, recovery: Recovery, session: Session, host: str) -> str | None:
        """Return what the browser is to ask its passkeys, as JSON; ``None`` where it cannot."""
        account, site = await self._account(recovery), self.door.passkeys.site(host)
        if site is None or await self.step(recovery) != "second":
            return None
        return await self.door.passkeys.begin_proving(session, site, account)

    async def give_passkey(self, recovery: Recovery, session: Session, answer: str) -> Recovery:
        """Take a passkey as the second proof.

        Raises `fhir_portal.accounts.passkeys.PasskeyRefused`, `RecoveryOver` and `Spent`.
        """
        if await self.step(recovery) != "second":
            raise RecoveryOver
        account = await self._account(recovery)
        _, proof = await self.door.passkeys.prove(session, answer, account)
        return await self._proved(recovery, proof)

    async def give_answers(self, recovery: Recovery, given: Mapping[str, str]) -> Recovery:
        """Take the answers of security questions, by code.

        Raises `fhir_portal.accounts.security_questions.WrongAnswers`, `RecoveryLocked`,
        `RecoveryOver` and `TooManyAttempts`.
        """
        if await self.step(recovery) != "questions":
            raise RecoveryOver
        account, now = await self._account(recovery), self.door.sessions.clock()
        await self.door.password.throttle.limit(
            QUESTION_TRIES, f"security questions of {account.key}"
        )
        counted = await self._counted(recovery)
        try:
            unchanged = await self.questions.check(account.key, given, at=now)
        except WrongAnswers:
            await self._failed(counted)
            raise
        return await self._advanced(counted, unchanged, answered=True, tries=0)

    async def owner(self, recovery: Recovery) -> Account:
        """Return the account, to whoever has proved all of it. Raises `RecoveryOver`."""
        if await self.step(recovery) != "password":
            raise RecoveryOver
        return await self._account(recovery)

    async def finish(
        self,
        recovery: Recovery,
        before: Session,
        password: str,
        place: Place,
        *,
        also: Sequence[Write] = (),
    ) -> Opened:
        """Set a new password and sign the person in, under a new cookie.

        All sessions and remembered browsers of the account end, and all its other recoveries;
        ``also`` is written in the same transaction.
        Raises `UnacceptablePassword`, `RecoveryOver`, `SignedOutMeanwhile` and `Spent`.
        """
        if await self.step(recovery) != "password":
            raise RecoveryOver
        sessions, passwords = self.door.sessions, self.door.password.passwords
        account = await self._account(recovery)
        if await passwords.verify(account.password_hash, password):
            raise UnacceptablePassword("That is the password you had. Choose another.")
        password_hash = await passwords.hash(
            password,
            username=account.username,
            names=await practice_names(sessions.store, account.persons),
        )
        now = sessions.clock()
        changed = msgspec.structs.replace(account, password_hash=password_hash, renewal=None)
        if recovery.assisted is not None:
            closed = closed_after(account, recovery.practice)
            changed = msgspec.structs.replace(changed, closed_at=closed)
        tell = self.door.notices.about(account, "account-recovered", now=now)
        remind = self.messages.username(account, once=recovery.key, now=now)

        async def close(transaction: RecordTransaction) -> None:
            if await transaction.get(Recovery, recovery.key) != recovery:
                raise Spent
            if recovery.assisted is not None:
                assisted = await self._assisted(transaction, recovery)
                if assisted.removes_second:
                    await _remove_second(transaction, account.key)
                helpers = [one for one in (assisted.by, assisted.approved_by) if one]
                await suspend_staff(transaction, account.key, helped_by=helpers, now=now)
            await end_recoveries(transaction, account.key)
            for practice in dict.fromkeys((home_of(account), recovery.practice)):
                await self.matters.settle(transaction, _help_key(practice, account.key), now=now)
            await tell(transaction)
            if recovery.want == "both":
                await remind(transaction)

        return await sessions.sign_in(
            before,
            account,
            proofs=[Proof(factor) for factor in recovery.proved],
            device=place.device,
            also=[close, *also],
            changed=changed,
        )

    async def ask_for_help(self, recovery: Recovery) -> None:
        """Leave word for the staff of the person's practice that they could not get in."""
        now = self.door.sessions.clock()
        matter = StaffMatter(
            key=_help_key(recovery.practice, recovery.account or recovery.key),
            expires=now + KEPT_SECONDS,
            practice=recovery.practice,
            about="recovery-help",
            reason=recovery.reason,
            since=now,
            latest=now,
            accounts=(recovery.account,) if recovery.account is not None else (),
        )

        async def put(transaction: RecordTransaction) -> None:
            await self.matters.note(transaction, matter)

        await self.door.sessions.store.transact(put)

    # --- what all of them do -------------------------------------------------------------------

    async def _owners(self, typed: str, now: float) -> list[UserNameOf]:
        """The accounts that a mail address or number is proved to belong to, for long enough."""
        store, value = self.door.sessions.store, _as_contact(typed)
        found = [
            one
            for one in await store.find(Contact, "value", value)
            if one.recovers(now) and one.bounced is None
        ]
        found.sort(key=lambda one: (one.added, one.key))
        keys = [one.account for one in found[:MESSAGES]]
        keys += [""] * (MESSAGES - len(keys))  # nobody is looked up as often
        accounts = [await store.get(Account, key) for key in keys]
        return [
            UserNameOf(account, contact)
            for account, contact in zip(accounts, found, strict=False)
            if account is not None and not account.disabled
        ]

    async def _may_send(self, identity: str, place: Place) -> bool:
        return await self.door.password.throttle.allows(
            SENDINGS,
            SENDINGS_ANYWHERE,
            f"recovery codes for {identity}",
            address=place.address,
            device=place.known,
        )

    async def _account(self, recovery: Recovery) -> Account:
        found = await self.door.sessions.store.get(Account, recovery.account or "")
        if found is None or found.disabled:
            raise RecoveryOver
        return found

    async def _assisted(self, reader: RecordReader, recovery: Recovery) -> AssistedRecovery:
        """What staff started, while it may be used. Raises `RecoveryOver`."""
        found = await reader.get(AssistedRecovery, recovery.assisted or "")
        if found is None:
            raise RecoveryOver
        try:
            found.check(self.door.sessions.clock())
        except (NoSuchRecovery, NotYetOpen):
            raise RecoveryOver from None
        if not found.removes_second and await has_second(reader, found.account):
            raise RecoveryOver  # added since staff started this, for which nobody approved
        return found

    async def _asks_second(self, account: str) -> bool:
        app = await self.door.second_factor.is_asked_of(account)
        return app or bool(await self.door.passkeys.of(account))

    async def _proof(
        self, recovery: Recovery, typed: str, place: Place, *, is_second: bool
    ) -> Proof:
        """Look at a code. Raises `WrongCode`, `WrongOneTimeCode` and `TooManyAttempts`."""
        store = self.door.sessions.store
        if is_recovery_code(typed) and recovery.assisted is None:
            if "recovery-code" in recovery.proved:
                raise WrongCode  # the same sheet of paper is no second proof
            return await self.door.second_factor.codes.prove(recovery.account, typed)
        if is_second and not _is_sent_code(typed):
            return await self.door.second_factor.prove(
                await self._account(recovery), typed, address=place.address, device=None
            )
        _, spend = await self.codes.prove(
            store, recovery.challenge, typed, purpose="recovery", browser=recovery.browser
        )
        return Proof("contact-code", spend)

    async def _counted(self, recovery: Recovery) -> Recovery:
        """Count a try before it is looked at. Raises `RecoveryLocked` and `RecoveryOver`."""

        async def count(transaction: RecordTransaction) -> Recovery:
            found = await transaction.get(Recovery, recovery.key)
            if found is None or found.proved != recovery.proved:
                raise RecoveryOver
            if found.tries >= TRIES:
                raise RecoveryLocked
            counted = msgspec.structs.replace(found, tries=found.tries + 1)
            await transaction.put(counted)
            return counted

        return await self.door.sessions.store.transact(count)

    async def _failed(self, recovery: Recovery) -> None:
        """Have staff told of the last try. Raises `RecoveryLocked` for it."""
        if recovery.tries < TRIES:
            return
        await self.ask_for_help(recovery)
        raise RecoveryLocked

    async def _proved(self, recovery: Recovery, proof: Proof) -> Recovery:
        """Note a proof and use it up. Raises `RecoveryOver` and `Spent`."""
        # A right code is no failure; whoever got so far has tries of their own for the next.
        return await self._advanced(
            recovery, proof.spend, proved=(*recovery.proved, proof.factor), tries=0
        )

    async def _advanced(self, recovery: Recovery, write: Write | None, **changes: Any) -> Recovery:
        async def advance(transaction: RecordTransaction) -> Recovery:
            found = await transaction.get(Recovery, recovery.key)
            if found is None or (found.proved, found.answered) != (
                recovery.proved,
                recovery.answered,
            ):
                raise RecoveryOver
            if write is not None:
                await write(transaction)
            advanced = msgspec.structs.replace(found, **changes)
            await transaction.put(advanced)
            return advanced

        return await self.door.sessions.store.transact(advance)


async def end_recoveries(transaction: RecordTransaction, account: str) -> None:
    """End what is under way to get into an account, inside a transaction."""
    for found in await transaction.find(Recovery, "account", account):
        await transaction.delete(Recovery, found.key)
        await transaction.delete(Challenge, found.challenge)
    await end_assisted(transaction, account)


async def _remove_second(transaction: RecordTransaction, account: str) -> None:
    """Take away all that an account asks beside a password: its owner has it no more."""
    await transaction.delete(Totp, account)
    await transaction.delete(RecoveryCodes, account)
    for passkey in await transaction.find(Passkey, "account", account):
        await transaction.delete(Passkey, passkey.key)


def _help_key(practice: str, account: str) -> str:
    """The key of the one matter that stands for each account which somebody could not get into."""
    return matter_key(practice, "recovery-help", account)


def _as_contact(typed: str) -> str:
    """What was typed as a contact's value; ``""`` where it can be none."""
    try:
        return mail_address(typed) if "@" in typed else telephone_number(typed)
    except InvalidContact:
        return ""


def _reason(account: Account | None, contacts: Sequence[Contact], now: float) -> Reason:
    """Why a recovery that comes to nothing did so, for staff."""
    if account is None:
        return "no-account"
    if not contacts:
        return "no-recovery-contact"
    if not any(one.recovers(now) and one.bounced is None for one in contacts):
        return "unverified-contact"
    return "locked"


def _is_sent_code(typed: str) -> bool:
    """Whether somebody means a code that was sent: it is longer than what an app shows."""
    return sum(sign.isascii() and sign.isdigit() for sign in typed[:40]) == _SENT_DIGITS
