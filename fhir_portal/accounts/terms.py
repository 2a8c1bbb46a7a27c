"""Terms of use: versions of the portal's and of each practice's, and who accepted which, when.

A version is never changed. A person is asked at sign-in, before anything else, when a version is
current that they did not accept (`fhir_portal.accounts.sessions.Session.owes_terms`). Accepting
them is no consent to share anything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from fhir_portal.accounts.account import Account
from fhir_portal.records import DuplicateRecord, Record, RecordReader, RecordTransaction

PORTAL: Final = "portal"
"""The scope of the terms of this deployment; those of a practice have `scope_of`."""
LONGEST: Final = 200_000
_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n+")


class InvalidTerms(Exception):
    """No text, no summary, too long, or the same as before; the words are for operators."""


class TermsChanged(Exception):
    """What was accepted is not what is current any more."""


class Terms(Record, frozen=True, kw_only=True):
    """One version; ``key`` is ``<scope>/<version>``. Paragraphs are divided by empty lines."""

    kind: ClassVar[str] = "terms"
    indexed: ClassVar[tuple[str, ...]] = ("scope",)

    scope: str
    version: int
    summary: str
    text: str
    published: float


class CurrentTerms(Record, frozen=True, kw_only=True):
    """Which version of a scope's terms is current; ``key`` is the scope."""

    kind: ClassVar[str] = "current-terms"

    version: int


class TermsAccepted(Record, frozen=True, kw_only=True):
    """An account accepted a version; ``key`` is ``<account>/<key of the version>``. Never removed.

    ``terms`` is the version's key, ``at`` when: seconds since 1970 UTC.
    """

    kind: ClassVar[str] = "terms-accepted"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    account: str
    terms: str
    at: float


@dataclass(frozen=True, slots=True)
class Change:
    """One paragraph that was added or removed."""

    kind: Literal["added", "removed"]
    text: str


def scope_of(practice: str) -> str:
    """Return the scope of a practice's terms."""
    return f"practice/{practice}"


async def publish(
    transaction: RecordTransaction, scope: str, *, summary: str, text: str, now: float
) -> Terms:
    """Store a new version and make it current. Raises `InvalidTerms`."""
    summary, text = _tidy(summary), _tidy(text)
    if not summary or not text or len(text) > LONGEST or len(summary) > LONGEST:
        raise InvalidTerms(f"terms need a text and a summary, of {LONGEST} characters at most")
    before = await current(transaction, scope)
    if before is not None and (before.text, before.summary) == (text, summary):
        raise InvalidTerms("these are the terms that are current")
    version = 1 if before is None else before.version + 1
    terms = Terms(
        key=f"{scope}/{version}",
        scope=scope,
        version=version,
        summary=summary,
        text=text,
        published=now,
    )
    await transaction.insert(terms)
    await transaction.put(CurrentTerms(key=scope, version=version))
    return terms


async def current(reader: RecordReader, scope: str) -> Terms | None:
    """Return the version of a scope that is current."""
    found = await reader.get(CurrentTerms, scope)
    return None if found is None else await reader.get(Terms, f"{scope}/{found.version}")


async def current_for(reader: RecordReader, account: Account) -> list[Terms]:
    """Return the current terms that concern an account: the portal's, then its practices'."""
    practices = dict.fromkeys(person.partition("/")[0] for person in account.persons)
    found = [await current(reader, scope) for scope in (PORTAL, *map(scope_of, practices))]
    return [terms for terms in found if terms is not None]


async def due(reader: RecordReader, account: Account) -> list[Terms]:
    """Return the current terms that an account did not accept."""
    return [
        terms
        for terms in await current_for(reader, account)
        if await reader.get(TermsAccepted, f"{account.key}/{terms.key}") is None
    ]


async def accept(
    transaction: RecordTransaction, account: Account, shown: Iterable[str], *, now: float
) -> None:
    """Note that an account accepts what is due. Raises `TermsChanged` unless all was shown."""
    shown = set(shown)
    for terms in await due(transaction, account):
        if terms.key not in shown:
            raise TermsChanged
        accepted = TermsAccepted(
            key=f"{account.key}/{terms.key}", account=account.key, terms=terms.key, at=now
        )
        try:
            await transaction.insert(accepted)
        except DuplicateRecord:
            continue


async def accepted_before(reader: RecordReader, account: str, terms: Terms) -> Terms | None:
    """Return the latest earlier version of these terms that an account accepted."""
    for version in range(terms.version - 1, 0, -1):
        key = f"{terms.scope}/{version}"
        if await reader.get(TermsAccepted, f"{account}/{key}") is not None:
            return await reader.get(Terms, key)
    return None


def paragraphs(text: str) -> list[str]:
    """Return a text's paragraphs, each on one line."""
    return [" ".join(one.split()) for one in _PARAGRAPH.split(text) if one.strip()]


def changes(before: str, after: str) -> Sequence[Change]:
    """Return what changed between two texts, paragraph by paragraph, in reading order."""
    old, new = paragraphs(before), paragraphs(after)
    found: list[Change] = []
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        if tag != "equal":
            found += [Change("removed", one) for one in old[a_from:a_to]]
            found += [Change("added", one) for one in new[b_from:b_to]]
    return found


def _tidy(text: str) -> str:
    return text.replace("\r\n", "\n").strip()
