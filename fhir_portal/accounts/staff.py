"""Who is on a practice's staff: an account, the Practitioner they are there, their access level.

The account is the person's one sign-in: it may be a patient's too, and on the staff of several
practices. What a membership conveys is resolved anew for every request, by
`fhir_portal.access.relation.Relations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.levels import (
    OPERATOR,
    READ,
    AccessLevel,
    Editor,
    LastAdministrator,
    LevelChanged,
    NotPermitted,
    Permission,
    UnknownLevel,
    folded_name,
    in_order,
    level_of,
    levels_of,
)
from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordTransaction,
)

_ALL: Final = 1_000_000


class AlreadyStaff(Exception):
    """The account is on this practice's staff already, or the Practitioner is somebody else."""


class NotStaff(Exception):
    """The account is not on this practice's staff."""


class StaffMember(Record, frozen=True, kw_only=True):
    """One account on one practice's staff; ``key`` is `staff_key`, so there is one at most.

    ``practitioner`` is the ``Practitioner/<id>`` that they are in this practice. ``level`` is the
    folded name of an access level of this practice; one that there is not conveys nothing.
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
    by: Editor = OPERATOR,
) -> StaffMember:
    """Put an account on a practice's staff, inside a transaction.

    ``practitioner`` is ``Practitioner/<id>`` of that practice. Raises `AlreadyStaff` and, as
    `set_level` does, `UnknownLevel` and `NotPermitted`.
    """
    given = await _level_to_give(transaction, practice, level, by)
    member = StaffMember(
        key=staff_key(practice, account),
        account=account,
        practice=practice,
        practitioner=practitioner,
        added=now,
        level=folded_name(given.name),
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


async def set_level(
    transaction: RecordTransaction,
    *,
    practice: str,
    account: str,
    level: str,
    by: Editor,
    seen: str | None = None,
) -> StaffMember:
    """Give a member of staff another access level, inside a transaction.

    ``seen`` is the level that ``by`` saw them have, if the change depends on it. It holds from the
    next request on: what an app was given stays, and conveys what the new level does.

    Raises:
        NotStaff: the account is not on this practice's staff.
        UnknownLevel: the practice has no such level.
        LevelChanged: they have another level by now than the one that was seen.
        NotPermitted: who asks is on the staff and may not administer, or the level has a
            permission that they do not have themselves. So nobody raises themselves either.
        LastAdministrator: nobody would be left who may administer.
    """
    given = await _level_to_give(transaction, practice, level, by)
    member = await transaction.get(StaffMember, staff_key(practice, account))
    if member is None:
        raise NotStaff(account)
    if seen is not None and folded_name(seen) != folded_name(member.level):
        raise LevelChanged("their access level was changed meanwhile; look at it again")
    changed = msgspec.structs.replace(member, level=folded_name(given.name))
    if changed == member:
        return member
    before = await members_with(transaction, practice, "administer")
    if not await transaction.replace(member, changed):
        raise LevelChanged("their access level was changed meanwhile; look at it again")
    if before and not await members_with(transaction, practice, "administer"):
        raise LastAdministrator(NOBODY_LEFT)
    return changed


async def _level_to_give(
    reader: RecordReader, practice: str, level: str, by: Editor
) -> AccessLevel:
    has = await standing(reader, practice, by)
    given = await level_of(reader, practice, level)
    if given is None:
        raise UnknownLevel(f"there is no access level '{level}' in '{practice}'")
    require_no_more(given.conveys, has)
    return given


async def standing(reader: RecordReader, practice: str, by: Editor) -> frozenset[str]:
    """Return what somebody who may change levels here has themselves, and so may give.

    It is what they came with, as far as they have it still. Raises `NotPermitted`.
    """
    if by is OPERATOR:
        return by.permissions
    member = await reader.get(StaffMember, staff_key(practice, by.account))
    account = await reader.get(Account, by.account)
    has = frozenset[str]()
    if member is not None and account is not None and not account.disabled:
        level = await level_of(reader, practice, member.level)
        has = has if level is None else level.conveys & by.permissions
    if "administer" not in has:
        raise NotPermitted("your access level does not let you change access levels")
    return has


def require_no_more(given: frozenset[str], has: frozenset[str]) -> None:
    """Refuse to give what one does not have. Raises `NotPermitted`."""
    if more := given - has:
        raise NotPermitted(
            "nobody gives more than they have; your access level lacks " + ", ".join(in_order(more))
        )


NOBODY_LEFT: Final = (
    "nobody would be left on the staff who may administer access levels; give somebody a level "
    "that may, first"
)


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


async def members_with(
    reader: RecordReader, practice: str, permission: Permission
) -> list[StaffMember]:
    """Return who on a practice's staff may do something there; not whose account is disabled."""
    return await _able(reader, practice, permission, await conveyed(reader, practice))


async def anybody_with(
    reader: RecordReader,
    practice: str,
    permission: Permission,
    levels: Mapping[str, frozenset[str]],
) -> bool:
    """Whether anybody could do something if the levels were these, by their folded names."""
    return bool(await _able(reader, practice, permission, levels))


async def conveyed(reader: RecordReader, practice: str) -> dict[str, frozenset[str]]:
    """Return what each level of a practice conveys, by its folded name."""
    levels = await levels_of(reader, practice)
    return {folded_name(level.name): level.conveys for level in levels}


async def _able(
    reader: RecordReader,
    practice: str,
    permission: Permission,
    levels: Mapping[str, frozenset[str]],
) -> list[StaffMember]:
    found = []
    for member in await staff_of_practice(reader, practice):
        if permission in levels.get(folded_name(member.level), ()):
            account = await reader.get(Account, member.account)
            if account is not None and not account.disabled:
                found.append(member)
    return found
