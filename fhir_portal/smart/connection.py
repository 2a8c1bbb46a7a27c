"""What a person's connection to an app is, and what leaves an app less.

A connection is all that one app holds of one account for one record, on however many devices. It
belongs to whoever made it; one that a proxy made belongs to the person whose record it is, too.
What staff connect is for their work: it is listed for them alone, and apart from what is their own.
With ``user/`` scopes it is for all they may use at a practice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final

from fhir_portal.consent.record import RecordAccess
from fhir_portal.smart.client import Client
from fhir_portal.smart.right import Right
from fhir_portal.smart.scope import Scope, ScopeSet

READING: Final = "rs"
_WRITING: Final = frozenset("cud")
_ADULT_YEARS: Final = 18


class UnknownConnection(Exception):
    """There is no such connection, or it is no business of this person's."""


class WouldWiden(Exception):
    """A change asked for more than the app has: never made."""


class NothingLeft(Exception):
    """A change would leave the app nothing to read: that is ending it."""


class NothingChanged(Exception):
    """A change that leaves everything as it is."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, as one of those whom it concerns sees it.

    ``record`` is how the person who looks may use the record now, ``None`` if they may not any
    more. ``made_by`` is the way of the one who made it, ``None`` if that way is closed: the app
    gets nothing then. ``until`` is when it ends at the latest, ``unused_until`` when it ends if it
    is not used before. ``patient`` is ``""`` for all that a member of staff may use.
    """

    id: str
    client: Client
    account: str
    practice: str
    patient: str
    fhir_users: frozenset[str]
    record: RecordAccess | None
    made_by: Right | None
    is_mine: bool
    as_staff: bool
    scope: ScopeSet
    is_offline: bool
    since: float
    until: float
    unused_until: float

    @property
    def works(self) -> bool:
        """Whether the app gets anything by it now."""
        return self.made_by is not None

    @property
    def writes(self) -> bool:
        """Whether the app may add or change anything."""
        return any(_WRITING & set(scope.letters) for scope in self.scope.resource)

    @property
    def lines(self) -> dict[str, Scope]:
        """What the app may use, a line for each type and query."""
        return {line_of(scope): scope for scope in self.scope.resource}


@dataclass(frozen=True, slots=True)
class Change:
    """A narrowing: the lines to keep, reading only, an earlier end. Nothing else can be said."""

    keep: frozenset[str]
    read_only: bool = False
    until: float | None = None

    def of(self, scope: ScopeSet) -> ScopeSet:
        """What it leaves of a scope: never anything that was not in it."""
        kept = [one for one in scope.resource if line_of(one) in self.keep]
        if self.read_only:
            kept = [less for one in kept if (less := one.limited_to(READING)) is not None]
        return replace(scope, resource=tuple(kept))

    def end_of(self, until: float) -> float:
        """The earlier of the ends."""
        return until if self.until is None else min(until, self.until)


def is_of_practice(connection: Connection, practice: str) -> bool:
    """Whether a connection is for a patient's record at a practice, and not for a staff's work."""
    return connection.practice == practice and not connection.as_staff


def is_adult(birth_date: str | None, *, now: float) -> bool:
    """Whether somebody is of age, by a FHIR date (a year, a month or a day) and in UTC.

    Where the date leaves it open, they count as of age: too much is told rather than too little.
    """
    parts = (birth_date or "").split("-")
    try:
        year, month, day = (int(part) for part in (*parts, "1", "1")[:3])
        born = date(year + _ADULT_YEARS, month, 1)
    except ValueError:
        return True
    today = datetime.fromtimestamp(now, UTC).date()
    return (today.year, today.month, today.day) >= (born.year, born.month, day)


def line_of(scope: Scope) -> str:
    """What names a line: type and query, whatever may be done there."""
    return f"{scope.resource_type}?{scope.query}" if scope.query else scope.resource_type
