"""One-time codes that are sent to a contact: eight digits, ten minutes, five tries, good once.

The code itself is nowhere: it is made of a key of the server, the challenge and how often it was
sent, both when it is sent and when it is typed. So neither the store nor the outbox holds one.
A challenge belongs to one browser and one purpose; what it proves is spent in the transaction of
what it buys.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import msgspec

from fhir_portal.accounts.contacts import Medium
from fhir_portal.accounts.proof import Spent, Write
from fhir_portal.records import Record, RecordReader, RecordStore, RecordTransaction

Purpose = Literal["activation", "recovery", "contact", "record-contact"]

KEY_PURPOSE: Final = "one-time-codes"
"""What the key is derived for: whoever sends codes and whoever checks them has the same."""
CODE_SECONDS: Final = 600.0
TRIES: Final = 5
MOST_IN_AN_HOUR: Final = 20
"""Challenges for one purpose, subject and lane (`OneTimeCodes.keep`): the last bound on guessing,
and on what is sent to somebody. Callers have narrower ones, and words for them."""
MOST_SENT: Final = 3
"""How often one challenge is sent; each sending makes the code before void."""
_HOUR: Final = 3600.0
_DIGITS: Final = 8
_ID_BYTES: Final = 16


class Challenge(Record, frozen=True, kw_only=True):
    """One code on its way to one contact; ``key`` is random and no secret.

    ``browser`` is the session's that asked; ``subject`` what the code is for, such as an account.
    ``to`` is the address; ``attempt`` counts sendings. A challenge ``for_nobody`` is one that no
    code can meet: it stands for what does not exist, so that waiting and trying tell nothing.
    One that was not ``counted`` (`OneTimeCodes.keep`) is met by none either.
    """

    kind: ClassVar[str] = "one-time-challenge"
    indexed: ClassVar[tuple[str, ...]] = ("subject",)

    expires: float
    purpose: Purpose
    subject: str
    browser: str
    medium: Medium
    to: str
    attempt: int = 1
    tries: int = 0
    for_nobody: bool = False
    counted: bool = False

    @property
    def can_be_met(self) -> bool:
        """Whether there is a code for it."""
        return self.counted and not self.for_nobody


class ChallengeCount(Record, frozen=True, kw_only=True):
    """How many challenges one subject had in the hour that ends at ``expires``; a hashed key."""

    kind: ClassVar[str] = "one-time-challenge-count"

    expires: float
    count: int


class WrongOneTimeCode(Exception):
    """Not this code. The words are the same for wrong, late, used and tried too often."""


class SentTooOften(Exception):
    """A challenge is not sent again any more."""


@dataclass(frozen=True, slots=True)
class OneTimeCodes:
    """Makes and checks challenges; ``key`` is a key of the server's, of 32 bytes."""

    key: bytes
    clock: Callable[[], float]
    random: Callable[[int], bytes]

    def challenge(
        self,
        purpose: Purpose,
        *,
        subject: str,
        browser: str,
        medium: Medium,
        to: str,
        seconds: float = CODE_SECONDS,
        for_nobody: bool = False,
    ) -> Challenge:
        """Return a challenge for `keep`, in the transaction that sends its message.

        The message says ``link_for=link_for(challenge)`` and ``link_attempt=challenge.attempt``.
        """
        return Challenge(
            key=self.random(_ID_BYTES).hex(),
            expires=self.clock() + seconds,
            purpose=purpose,
            subject=subject,
            browser=browser,
            medium=medium,
            to=to,
            for_nobody=for_nobody,
        )

    async def keep(
        self, transaction: RecordTransaction, challenge: Challenge, *, lane: str = ""
    ) -> Challenge:
        """Store a new challenge, and return it as it is stored.

        Beyond `MOST_IN_AN_HOUR` it becomes one for nobody: nothing is sent, no code meets it, and
        whoever asked learns nothing by that. One for nobody is the same work. ``lane`` is a count
        of its own for those who proved something, which others must not use up.
        """
        now = self.clock()
        about = challenge.key if challenge.for_nobody else challenge.subject
        key = hashlib.sha256(f"{challenge.purpose}{lane} {about}".encode()).hexdigest()
        there = await transaction.get(ChallengeCount, key)
        if there is None or now >= there.expires:
            there = ChallengeCount(key=key, expires=now + _HOUR, count=0)
        counted = msgspec.structs.replace(there, count=there.count + 1)
        await transaction.put(counted)
        kept = msgspec.structs.replace(
            challenge,
            counted=True,
            for_nobody=challenge.for_nobody or counted.count > MOST_IN_AN_HOUR,
        )
        await transaction.insert(kept)
        return kept

    def code(self, challenge: str, attempt: int) -> str:
        """Return the code of one sending of a challenge, in two groups of digits."""
        mac = hmac.digest(self.key, f"one-time-code {challenge} {attempt}".encode(), hashlib.sha256)
        digits = f"{int.from_bytes(mac) % 10**_DIGITS:0{_DIGITS}d}"
        return f"{digits[: _DIGITS // 2]} {digits[_DIGITS // 2 :]}"

    async def again(self, transaction: RecordTransaction, challenge: Challenge) -> Challenge:
        """Return the challenge for one more sending, stored.

        Raises `SentTooOften`, also of one that is over: time does not run backwards for it.
        """
        now = await transaction.get(Challenge, challenge.key)
        if now is None or now.attempt >= MOST_SENT or now.tries >= TRIES:
            raise SentTooOften
        if self.clock() >= now.expires:
            raise SentTooOften
        sent = msgspec.structs.replace(
            now, attempt=now.attempt + 1, expires=max(now.expires, self.clock() + CODE_SECONDS)
        )
        await transaction.put(sent)
        return sent

    async def prove(
        self, store: RecordStore, key: str, typed: str, *, purpose: Purpose, browser: str
    ) -> tuple[Challenge, Write]:
        """Return the challenge that a code meets, and the write that uses it up.

        The try is counted, in a transaction of its own, before the code is looked at. Raises
        `WrongOneTimeCode`; the write raises `fhir_portal.accounts.proof.Spent`.
        """

        async def count(transaction: RecordTransaction) -> Challenge | None:
            found = await transaction.get(Challenge, key)
            if (
                found is None
                or found.purpose != purpose
                or not hmac.compare_digest(found.browser.encode(), browser.encode())
                or self.clock() >= found.expires
                or found.tries >= TRIES
            ):
                return None
            counted = msgspec.structs.replace(found, tries=found.tries + 1)
            await transaction.put(counted)
            return counted

        counted = await store.transact(count)
        genuine = self.code(key, counted.attempt if counted is not None else 1)
        matches = hmac.compare_digest(_digits(genuine).encode(), _digits(typed).encode())
        if counted is None or not counted.can_be_met or not matches:
            raise WrongOneTimeCode

        async def spend(transaction: RecordTransaction) -> None:
            now = await transaction.get(Challenge, key)
            # Another try may have been counted since; another sending makes this code void.
            if now is None or now.attempt != counted.attempt or self.clock() >= now.expires:
                raise Spent
            if not await transaction.delete(Challenge, key):
                raise Spent

        return counted, spend


LINK_PREFIX: Final = "one-time-code/"


def link_for(challenge: Challenge) -> str:
    """Return what an outbox message says its code is made of."""
    return LINK_PREFIX + challenge.key


def code_maker(
    codes: OneTimeCodes,
) -> Callable[[RecordReader, str, int], Awaitable[dict[str, str] | None]]:
    """Return what makes a message's code when it is sent; ``None`` once the challenge is over."""

    async def make(reader: RecordReader, challenge: str, attempt: int) -> dict[str, str] | None:
        found = await reader.get(Challenge, challenge)
        if found is None or not found.can_be_met:
            return None
        if found.attempt != attempt or codes.clock() >= found.expires:
            return None
        return {"code": codes.code(challenge, attempt)}

    return make


def _digits(text: str) -> str:
    """The digits of a code however it is written; ``""`` for what is far too long for one."""
    if len(text) > 4 * _DIGITS:
        return ""
    return "".join(sign for sign in text if sign.isascii() and sign.isdigit())
