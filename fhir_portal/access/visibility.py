"""What a caller may see of one resource type, as data that every store compiles into its query.

A visibility lists what is permitted, never what is withheld, so that what nobody classified,
labelled or assigned is seen by nobody who is restricted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

import msgspec

from fhir_portal.consent.labels import SELF_LABELS
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.search.criterion import Criterion

SHARED: Final = "shared"
"""The practice key of what all practices on a deployment see."""

UNCLASSIFIED: Final = "-unclassified"
NO_SECTION: Final = "-none"
"""Stand where a portal section would; no grant can hold either."""


@dataclass(frozen=True, slots=True)
class VisibilityClass:
    """The sections a resource falls in and the labels it carries; interned by the stores."""

    sections: frozenset[str]
    labels: frozenset[str]

    def __str__(self) -> str:
        return f"{','.join(sorted(self.sections))}|{','.join(sorted(self.labels))}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read back what ``str()`` gave."""
        sections, _, labels = text.partition("|")
        return cls(
            frozenset(filter(None, sections.split(","))), frozenset(filter(None, labels.split(",")))
        )


class RowFacts(msgspec.Struct, frozen=True):
    """What the server computed about a resource when it was written (never taken from a client).

    ``owners`` are Patient ids; ``directory`` says that the practice lists it in its directory.
    """

    resource_type: str
    id: str
    practice: str
    owners: tuple[str, ...]
    visibility_class: VisibilityClass
    directory: bool = False

    @property
    def touched(self) -> tuple[tuple[str, bool], ...]:
        """Return in whose log an access goes, and whether they may read that line.

        A line about what is hidden from its own person would tell that it exists.
        """
        told = len(self.owners) == 1 and self.visibility_class.labels <= SELF_LABELS
        return tuple((owner, told) for owner in self.owners)


@dataclass(frozen=True, slots=True)
class Visibility:
    """The rows of one type that a caller may see.

    A row is visible when its practice is among ``practices``; it belongs to ``record`` alone
    (``None``: no such bound); all its sections are among ``sections`` and all its labels among
    ``labels`` (``None``: no such bound); its id is among ``ids`` (``None``: no such bound); one
    of ``any_of`` (conjunctions from granular scopes; ``None``: no such bound) matches it; and,
    when ``referrers`` is given, it is listed in the practice directory or something visible
    under one of the referrers refers to it.

    Build one with the constructors below, so that a bound is left out only on purpose.
    """

    resource_type: str
    practices: tuple[str, ...]
    record: str | None
    sections: frozenset[str] | None
    labels: frozenset[str] | None
    ids: frozenset[str] | None
    any_of: tuple[tuple[Criterion, ...], ...] | None
    referrers: tuple[Visibility, ...] | None

    @classmethod
    def of_record(
        cls,
        resource_type: str,
        *,
        practice: str,
        record: str,
        sections: frozenset[str] | None,
        labels: frozenset[str] | None,
        any_of: tuple[tuple[Criterion, ...], ...] | None = None,
        ids: frozenset[str] | None = None,
    ) -> Self:
        """One record's resources in one practice: self, proxies, and staff in one record."""
        return cls(resource_type, (practice,), record, sections, labels, ids, any_of, None)

    @classmethod
    def of_directory(
        cls,
        resource_type: str,
        *,
        practice: str,
        referrers: tuple[Visibility, ...],
        any_of: tuple[tuple[Criterion, ...], ...] | None = None,
    ) -> Self:
        """Practice directory entries, and what the referrers' visible resources refer to."""
        return cls(
            resource_type, (practice, SHARED), None, None, frozenset(), None, any_of, referrers
        )

    @classmethod
    def of_practice(
        cls,
        resource_type: str,
        *,
        practice: str,
        labels: frozenset[str] | None,
        any_of: tuple[tuple[Criterion, ...], ...] | None = None,
    ) -> Self:
        """Everything of one practice, and what all practices share: EHRs and staff."""
        return cls(resource_type, (practice, SHARED), None, None, labels, None, any_of, None)

    @classmethod
    def of_server(cls, resource_type: str, *, practice: str) -> Self:
        """The server's own look at one practice: identity resolution and derived rows.

        Nothing read under it may reach an answer unless it is looked up again under the caller's.
        """
        return cls(resource_type, (practice,), None, None, None, None, None, None)

    def only(self, ids: Iterable[str]) -> Self:
        """The same, bounded to some ids."""
        wanted = frozenset(ids)
        return replace(self, ids=wanted if self.ids is None else self.ids & wanted)

    def own(self) -> Self:
        """The same without what all practices share."""
        return replace(self, practices=self.practices[:1])

    @property
    def only_current(self) -> bool:
        """Whether earlier versions cannot be judged, and are not shown.

        Granular criteria and being referred to are judged on the current row, which alone is
        indexed. And what an earlier version, or one that was deleted, refers to may have been
        labelled since: who may not see all that the patient does does not see it.
        """
        is_bound = self.labels is not None and not self.labels >= SELF_LABELS
        return self.any_of is not None or self.referrers is not None or is_bound

    def permits_class(self, visibility_class: VisibilityClass) -> bool:
        """Whether sections and labels allow rows of this class."""
        return (self.sections is None or visibility_class.sections <= self.sections) and (
            self.labels is None or visibility_class.labels <= self.labels
        )

    def admits(self, facts: RowFacts, matches: Callable[[tuple[Criterion, ...]], bool]) -> bool:
        """Judge a row that is not stored yet, or once more what a store returned.

        ``matches`` evaluates a conjunction on the resource's index entries. Being referred to
        cannot be judged here: with ``referrers`` only the directory mark counts.
        """
        return (
            facts.resource_type == self.resource_type
            and facts.practice in self.practices
            and (self.record is None or facts.owners == (self.record,))
            and (self.ids is None or facts.id in self.ids)
            and self.permits_class(facts.visibility_class)
            and (self.any_of is None or any(matches(criteria) for criteria in self.any_of))
            and (self.referrers is None or facts.directory)
        )

    def require(self, facts: RowFacts, matches: Callable[[tuple[Criterion, ...]], bool]) -> None:
        """Refuse a new image that this caller could not see: a write must not move it away.

        Raises:
            Forbidden: naming no other record.
        """
        if not self.admits(facts, matches):
            message = f"this token may not write this {self.resource_type}"
            raise Forbidden(message)
