"""By what right something is given to an app: on one record, or as staff of a practice."""

from __future__ import annotations

from typing import Any

from fhir_portal.consent.record import Access, RecordAccess, RecordDirectory, StaffAccess

Right = RecordAccess | StaffAccess


def is_staffs(right: Right) -> bool:
    """Whether a member of staff has it, as staff."""
    return isinstance(right, StaffAccess) or right.is_staff


def ends_of(right: Right | None) -> float | None:
    """When it ends by itself, in seconds since 1970 UTC; ``None`` for never."""
    return right.until if isinstance(right, RecordAccess) else None


async def still(directory: RecordDirectory, account: Any, access: Access) -> Right | None:
    """Return the right that something was given by, while the account has it unchanged."""
    practice, patient, fhir_user, _ = access
    found: Right | None
    if not fhir_user.startswith("Practitioner/"):
        found = await directory.record_of(account, practice, patient)
    elif patient:
        found = await directory.staff_bound_to(account, practice, patient)
    else:
        found = await directory.staff_at(account, practice)
    return found if found is not None and found.access == access else None
