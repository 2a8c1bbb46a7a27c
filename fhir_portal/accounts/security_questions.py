"""Security questions: three of a published list, where a practice's policy asks for them.

They are asked beside a one-time or recovery code and never prove anything on their own. Answers are
compared without case, spaces and punctuation, and kept as Argon2id hashes of what a key of the
server made of them. New answers count after a day; until then the ones before do. Those that an
account begins with count at once: nobody else can have had it for long.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import RECOVERY_AFTER_SECONDS
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.proof import Write
from fhir_portal.records import Record, RecordReader, RecordStore, RecordTransaction

QUESTIONS: Final[Mapping[str, str]] = {
    "first-street": "What was the name of the first street you lived in?",
    "first-teacher": "What was the family name of your first teacher?",
    "childhood-friend": "What was the nickname of your best friend as a child?",
    "first-job-town": "In which town was your first job?",
    "parents-met": "In which town did your parents meet?",
    "first-concert": "Whom did you hear at the first concert you went to?",
    "first-dish": "What was the first dish you learned to cook?",
    "first-pet": "What was the name of your first pet?",
    "childhood-book": "Which book did you love most as a child?",
    "far-journey": "Where did your first long journey lead?",
}
"""The list, by code. A code is never given another meaning."""

ASKED: Final = 3
BEGINNING: Final = 3600.0
"""Seconds from the making of an account in which its first answers count at once."""
SHORTEST: Final = 3
LONGEST: Final = 100
TRIES: Final = "5 per 30 minutes"
"""Tries on the answers of one account, over all its recoveries."""


class UnacceptableAnswers(Exception):
    """Not three different questions, or an answer that is no answer; the words are for people."""


class WrongAnswers(Exception):
    """Not these answers; nobody is told which one was wrong."""


class RecoveryPolicy(Record, frozen=True, kw_only=True):
    """What a practice asks for when somebody recovers an account; ``key`` is the practice's."""

    kind: ClassVar[str] = "recovery-policy"

    security_questions: bool = False


class Answer(msgspec.Struct, frozen=True):
    """The code of a question and the hash of its answer."""

    question: str
    hash: str


class SecurityAnswers(Record, frozen=True, kw_only=True):
    """An account's answers; ``key`` is the account's.

    ``counts_from`` is when ``answers`` begin to count, ``before`` what counts until then.
    """

    kind: ClassVar[str] = "security-answers"

    answers: tuple[Answer, ...]
    counts_from: float
    before: tuple[Answer, ...] = ()

    def counting(self, at: float) -> tuple[Answer, ...]:
        """The answers that count at a moment."""
        return self.answers if self.counts_from <= at else self.before


async def is_asked_by_practice(reader: RecordReader, account: Account) -> bool:
    """Whether a practice of the account's owner asks security questions."""
    for practice in dict.fromkeys(person.partition("/")[0] for person in account.persons):
        policy = await reader.get(RecoveryPolicy, practice)
        if policy is not None and policy.security_questions:
            return True
    return False


@dataclass(frozen=True, slots=True)
class SecurityQuestions:
    """Keeps and checks answers; ``pepper`` is a key of the server's, of 32 bytes."""

    store: RecordStore
    passwords: Passwords
    pepper: bytes

    async def asked_of(self, account: Account, at: float) -> list[str]:
        """Return the codes of the questions that a recovery asks; none where there are none."""
        if not await is_asked_by_practice(self.store, account):
            return []
        found = await self.store.get(SecurityAnswers, account.key)
        return [] if found is None else [one.question for one in found.counting(at)]

    async def chosen(self, account: str) -> SecurityAnswers | None:
        """Return what an account chose last."""
        return await self.store.get(SecurityAnswers, account)

    async def answered(
        self, account: str, given: Sequence[tuple[str, str]], *, now: float, is_first: bool = False
    ) -> Write:
        """Return the write of an account's answers: pairs of a question's code and the answer.

        ``is_first`` is for what an account begins with, which counts at once unless there are
        answers already. Raises `UnacceptableAnswers`.
        """
        texts = [(question, _normal(text)) for question, text in given]
        codes = {question for question, _ in texts}
        if len(texts) != ASKED or len(codes) != ASKED or not codes <= QUESTIONS.keys():
            raise UnacceptableAnswers(f"Choose {ASKED} different questions.")
        if any(not SHORTEST <= len(text) <= LONGEST for _, text in texts):
            raise UnacceptableAnswers(
                f"An answer has {SHORTEST} to {LONGEST} letters or digits. Spaces do not count."
            )
        if len({text for _, text in texts}) != ASKED:
            raise UnacceptableAnswers("Give each question an answer of its own.")
        answers = tuple(
            [
                Answer(
                    question,
                    await self.passwords.hash_unchecked(self._mixed(account, question, text)),
                )
                for question, text in texts
            ]
        )

        async def keep(transaction: RecordTransaction) -> None:
            there = await transaction.get(SecurityAnswers, account)
            await transaction.put(
                SecurityAnswers(
                    key=account,
                    answers=answers,
                    counts_from=now if is_first and there is None else now + RECOVERY_AFTER_SECONDS,
                    before=() if there is None else there.counting(now),
                )
            )

        return keep

    async def check(self, account: str, given: Mapping[str, str], *, at: float) -> Write:
        """Return the write that fails if the answers changed meanwhile. Raises `WrongAnswers`.

        All are looked at, whichever is wrong. The caller has counted the try.
        """
        found = await self.store.get(SecurityAnswers, account)
        counting = () if found is None else found.counting(at)
        right = [
            await self.passwords.verify(
                one.hash, self._mixed(account, one.question, _normal(given.get(one.question, "")))
            )
            for one in counting
        ]
        if not counting or not all(right):
            raise WrongAnswers

        async def unchanged(transaction: RecordTransaction) -> None:
            if await transaction.get(SecurityAnswers, account) != found:
                raise WrongAnswers

        return unchanged

    def _mixed(self, account: str, question: str, text: str) -> str:
        """What is hashed: of no use to whoever has the store and not the server's key."""
        framed = msgspec.json.encode([account, question, text])
        return hmac.digest(self.pepper, framed, hashlib.sha256).hex()


def _normal(text: str) -> str:
    """Letters and digits alone, in the one form that answers are compared in."""
    folded = unicodedata.normalize("NFKC", text[: 4 * LONGEST]).casefold()
    return "".join(
        sign
        for sign in unicodedata.normalize("NFKC", folded)
        if unicodedata.category(sign)[0] in "LMN"
    )
