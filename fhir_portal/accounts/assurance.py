"""How sure a practice is that a person is who they say: what was proved, and what that opens.

`level_of` holds what was proved against one table and gives the code for ``Person.link.assurance``
(FHIR R4 identity-assuranceLevel). A practice says from which level on a record opens
(`fhir_portal.accounts.policy`); below `LEAST` nothing opens anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from fhir_portal.accounts.contacts import mailbox_of

Level = Literal["level1", "level2", "level3", "level4"]
LEVELS: Final[tuple[Level, ...]] = ("level1", "level2", "level3", "level4")
LEAST: Final[Level] = "level2"
"""A link below this opens nothing, whatever a practice says: a mailbox alone is no proof."""

What = Literal[
    "link",
    "security-code",
    "activation-word",
    "one-time-code",
    "birth-date",
    "postal-code",
    "name",
    "initials",
]
Over = Literal["mail", "sms", "letter", "paper", "hand", "desk", "record"]
"""How a secret reached the person: ``hand`` is told or shown by staff, ``desk`` in the practice;
``record`` is for facts that stand in it."""

_SECRETS: Final[frozenset[What]] = frozenset(
    {"link", "security-code", "activation-word", "one-time-code"}
)
_CONTACTS: Final[frozenset[Over]] = frozenset({"mail", "sms"})


class Evidence(msgspec.Struct, frozen=True):
    """One thing that a person proved. ``to`` is the contact a secret went to, ``""`` for none.

    ``at`` is seconds since 1970 UTC.
    """

    what: What
    over: Over
    at: float
    to: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: from how many contacts a secret came back, and what was handed over."""

    level: Level
    handed: frozenset[Over]
    contacts: int


_DESK: Final[frozenset[Over]] = frozenset({"desk"})
_PAPER: Final[frozenset[Over]] = frozenset({"letter", "paper", "hand", "desk"})

TABLE: Final = (
    Row("level4", _DESK, 1),
    Row("level3", _DESK, 0),
    Row("level3", _PAPER, 1),
    Row("level2", _PAPER, 0),
    Row("level2", frozenset(), 2),
)
"""The first row that holds counts; each asks for the birth date besides. Else it is level 1."""


def level_of(evidence: Sequence[Evidence]) -> Level:
    """Return the level that somebody reached by what they proved."""
    if not any(one.what == "birth-date" for one in evidence):
        return "level1"
    over = {one.over for one in evidence if one.what in _SECRETS}
    contacts = {
        (one.over, mailbox_of(one.over, one.to))
        for one in evidence
        if one.what in _SECRETS and one.over in _CONTACTS and one.to
    }
    for row in TABLE:
        if (not row.handed or row.handed & over) and len(contacts) >= row.contacts:
            return row.level
    return "level1"


def reaches(level: str | None, least: str) -> bool:
    """Whether a level opens what asks for ``least``; what is no level reaches nothing."""
    if level not in LEVELS:
        return False
    asked = max(rank(least), rank(LEAST))
    return rank(level) >= asked


def rank(level: str) -> int:
    """Return how high a level stands; what is no level stands above all."""
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def higher(levels: Iterable[str | None], least: Level) -> Level:
    """Return the highest of some levels, ``least`` at least; what is no level does not count."""
    found = [one for one in LEVELS if one in {*levels, least}]
    return found[-1]
