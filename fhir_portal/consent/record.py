"""Which records a person may use, and how: themselves, or by one active grant per record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class RecordAccess:
    """One record that an account may use right now.

    ``fhir_user`` is the own ``Patient/<id>`` (relation ``self``) or the ``RelatedPerson/<id>``
    for exactly this record. ``sections`` are the portal-section codes that may be read,
    ``None`` meaning all of them (self). ``act`` are the sections in which the grant also lets
    the proxy act. ``until`` is the end of the grant in seconds since 1970 UTC.
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


class RecordDirectory(Protocol):
    """Resolves an account to records, inside the server, never through the guarded API."""

    async def records_of(self, account: Any) -> tuple[RecordAccess, ...]:
        """Return the records the account may use now, own record first."""
        ...

    async def record_of(self, account: Any, patient: str) -> RecordAccess | None:
        """Return one of `records_of`, or ``None`` when it is not among them."""
        ...


class ScopePolicy(Protocol):
    """Bounds what a scope can grant (DESIGN: the write table)."""

    def grantable(self, context: str, resource_type: str, record: RecordAccess | None) -> str:
        """Return the letters out of ``cruds`` that may be granted, ``""`` for none."""
        ...
