"""Who is on a practice's staff: an account, the Practitioner they are there, their access level.

The account is the person's one sign-in: it may be a patient's too, and on the staff of several
practices. What a membership conveys is resolved anew for every request, by
`fhir_portal.access.relation.Relations`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordTransaction,
)

READ: Final = "read"
"""Reads everything that belongs to the practice's records, and changes nothing."""
LEVELS: Final = frozenset({READ})
"""The access levels there are. A membership with another one conveys nothing."""
_ALL: Final = 1_000_000


class AlreadyStaff(Exception):
    """The account is on this practice's staff already, or the Practitioner is somebody else."""


class NotStaff(Exception):
    """The account is not on this practice's staff."""


class StaffMember(Record, frozen=True, kw_only=True):
    """One account on one practice's staff; ``key`` is `staff_key`, so there is one at most.

    ``practitioner`` is the ``Practitioner/<id>`` that they are in this practice.
    """

    kind: ClassVar[str] = "staff-member"
    indexed: ClassVar[tuple[str, ...]] = ("account", "practice")

    account: str
    practice: str
    practitioner: str
    added: float
    level: str = READ


class StaffPractitioner(Record, frozen=True, kw_only=True):
    """Makes a Practitioner one person: ``key`` is ``<practice>/Practitioner/<id>``.

    Two accounts as one Practitioner could not be told apart in the access log.
    """

    kind: ClassVar[str] = "staff-practitioner"

    account: str


def staff_key(practice: str, account: str) -> str:
    """Return the key of a membership."""
    return f"{practice}/{account}"


async def add_staff(
    transaction: RecordTransaction,
    *,
    account: str,
    practice: str,
    practitioner: str,
    now: float,
    level: str = READ,
) -> StaffMember:
    """Put an account on a practice's staff, inside a transaction.

    ``practitioner`` is ``Practitioner/<id>`` of that practice. Raises `AlreadyStaff`.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no access level {level!r}")
    member = StaffMember(
        key=staff_key(practice, account),
        account=account,
        practice=practice,
        practitioner=practitioner,
        added=now,
        level=level,
    )
    if await transaction.get(StaffMember, member.key) is not None:
        raise AlreadyStaff(f"this account is on the staff of '{practice}' already")
    try:
        await transaction.insert(
            StaffPractitioner(key=f"{practice}/{practitioner}", account=account)
        )
    except DuplicateRecord:
        raise AlreadyStaff(f"{practitioner} of '{practice}' is another account") from None
    await transaction.insert(member)
    return member


async def take_off_staff(
    transaction: RecordTransaction, *, account: str, practice: str
) -> StaffMember:
    """Take an account off a practice's staff, inside a transaction. Raises `NotStaff`.

    Its tokens end too: `fhir_portal.smart.revocation.remove_staff` does both.
    """
    member = await transaction.get(StaffMember, staff_key(practice, account))
    if member is None:
        raise NotStaff(account)
    await transaction.delete(StaffMember, member.key)
    await transaction.delete(StaffPractitioner, f"{practice}/{member.practitioner}")
    return member


async def staff_of_practice(reader: RecordReader, practice: str) -> list[StaffMember]:
    """Return everybody on a practice's staff, whatever their membership conveys."""
    return await reader.find(StaffMember, "practice", practice, limit=_ALL)


async def staff_of_account(reader: RecordReader, account: str) -> list[StaffMember]:
    """Return the memberships of an account."""
    return await reader.find(StaffMember, "account", account, limit=_ALL)
