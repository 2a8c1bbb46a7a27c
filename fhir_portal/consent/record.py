"""Which records a person may use, and how: themselves, by one active grant per record, as staff."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

Access = tuple[str, str, str, str | None]
"""Practice, patient, fhirUser and grant: what a token was given for, and has to be given anew
when any of them changes."""


@dataclass(frozen=True, slots=True)
class RecordAccess:
    """One record that an account may use right now.

    ``fhir_user`` is the own ``Patient/<id>`` or the ``RelatedPerson/<id>`` for exactly this
    record. ``relation`` is for people to read: any words may be in it. ``sections`` are the
    portal-section codes that may be read, ``None`` meaning all of them (own record). ``act`` are
    the sections in which the grant also lets the proxy act. ``until`` is the end of the grant in
    seconds since 1970 UTC. ``zone`` is the practice's time zone (IANA), by which days begin.
    While it ``is_settling`` its labels are being computed anew, and nothing of it is shown.
    """

    patient: str
    practice: str
    practice_name: str
    patient_name: str
    birth_date: str | None
    relation: str
    fhir_user: str
    grant: str | None
    sections: frozenset[str] | None
    act: frozenset[str]
    until: float | None
    zone: str = "UTC"
    is_settling: bool = False

    @property
    def is_own(self) -> bool:
        """Whether the record is the person's own: nothing stands between them."""
        return self.fhir_user == self.patient

    @property
    def is_proxy(self) -> bool:
        """Whether the record is used by a grant."""
        return self.grant is not None

    @property
    def is_staff(self) -> bool:
        """Whether a member of the practice's staff uses it, as staff."""
        return self.fhir_user.startswith("Practitioner/")

    @property
    def access(self) -> Access:
        """By what right the record is used; the same in two moments if nothing changed."""
        return self.practice, self.patient, self.fhir_user, self.grant


@dataclass(frozen=True, slots=True)
class StaffAccess:
    """What a member of a practice's staff may use right now, as staff: the whole practice.

    ``fhir_user`` is the ``Practitioner/<id>`` of this practice that they are. ``level`` is the name
    of their access level, for people to read; ``permissions`` are what it lets them do, out of
    `fhir_portal.accounts.levels.Permission`. ``zone`` is the practice's time zone (IANA).
    """

    practice: str
    practice_name: str
    fhir_user: str
    name: str
    level: str = ""
    permissions: frozenset[str] = frozenset()
    zone: str = "UTC"

    @property
    def access(self) -> Access:
        """By what right; the same in two moments if nothing changed. It is for no one record."""
        return self.practice, "", self.fhir_user, None


def way_to(
    records: Iterable[RecordAccess], practice: str | None, patient: str | None
) -> RecordAccess | None:
    """Return the one way to a record, or ``None``.

    Two different ways to one record (two RelatedPersons of one person, with a grant each) are
    none: which of them counts would be a guess. The own record comes before any grant.
    """
    found = [one for one in records if (one.practice, one.patient) == (practice, patient)]
    found = [one for one in found if one.is_own] or found
    return found[0] if len(found) == 1 else None


def usable(records: Iterable[RecordAccess]) -> tuple[RecordAccess, ...]:
    """Return each record to which there is one way, once, in the order they came."""
    listed = tuple(records)
    return tuple(one for one in listed if way_to(listed, one.practice, one.patient) is one)


def shared_part(
    record: RecordAccess, sections: Iterable[str], *, within: str
) -> RecordAccess | None:
    """Return these sections of a record, to be shown to somebody else; nothing is written by it.

    ``None`` for whoever acts for the patient and may not, or no longer, act in ``within``.
    """
    if not record.is_own and within not in (record.sections or frozenset()) & record.act:
        return None
    wanted = frozenset(sections)
    seen = wanted if record.sections is None else wanted & record.sections
    return replace(record, sections=seen, act=frozenset())


class RecordDirectory(Protocol):
    """Resolves an account to records, inside the server, never through the guarded API."""

    async def records_of(self, account: Any) -> tuple[RecordAccess, ...]:
        """Return the records the account may use now, own record first."""
        ...

    async def record_of(self, account: Any, practice: str, patient: str) -> RecordAccess | None:
        """Return `way_to` one of `records_of`: ids of Patients are unique in a practice only."""
        ...

    async def staff_of(self, account: Any) -> tuple[StaffAccess, ...]:
        """Return the practices on whose staff the account is now."""
        ...

    async def staff_at(self, account: Any, practice: str) -> StaffAccess | None:
        """Return the one of `staff_of` for a practice."""
        ...

    async def staff_record_of(
        self, account: Any, practice: str, patient: str
    ) -> RecordAccess | None:
        """Return how the account may use a record as staff of its practice, or ``None``.

        ``patient`` is ``Patient/<id>``. What it returns `is_staff`: everything may be read,
        nothing written. Without the permission to view there is no record to use.
        """
        ...

    async def staff_bound_to(
        self, account: Any, practice: str, patient: str
    ) -> RecordAccess | None:
        """Return how staff stand to a record that something of theirs is bound to, or ``None``.

        Unlike `staff_record_of` it is there without the permission to view, and then has neither
        name nor birth date.
        """
        ...

    async def birth_date_of(self, account: Any, practice: str) -> str | None:
        """Return the birth date on file, ``YYYY-MM-DD``, of who an account is at a practice.

        Also where its records are closed for the account: it is what helps to open them again.
        """
        ...


class ScopePolicy(Protocol):
    """Bounds what a scope can grant (DESIGN: the write table)."""

    def grantable(self, context: str, resource_type: str, record: RecordAccess | None) -> str:
        """Return the letters out of ``cruds`` that may be granted, ``""`` for none."""
        ...
