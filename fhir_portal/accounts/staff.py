"""Who is on a practice's staff: an account, the Practitioner they are there, their access level.

The account is the person's one sign-in: it may be a patient's too, and on the staff of several
practices. What a membership conveys is resolved anew for every request, by
`fhir_portal.access.relation.Relations`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.levels import (
    OPERATOR,
    PERMISSIONS,
    READ,
    AccessLevel,
    Editor,
    LastAdministrator,
    LastHolder,
    LevelChanged,
    NotPermitted,
    Permission,
    UnknownLevel,
    folded_name,
    in_order,
    level_of,
    levels_of,
)
from fhir_portal.accounts.practice import every_practice
from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordStore,
    RecordTransaction,
)

ANOTHER_RESUMES: Final = (
    "you helped with this account, or it is yours: another administrator lets them work again, or "
    "whoever runs the portal"
)
_ALL: Final = 1_000_000
_NUMBER_DIGITS: Final = 8


class AlreadyStaff(Exception):
    """The account is on this practice's staff already, or the Practitioner is somebody else."""


class NotStaff(Exception):
    """The account is not on this practice's staff."""


class StaffMember(Record, frozen=True, kw_only=True):
    """One account on one practice's staff; ``key`` is `staff_key`, so there is one at most.

    ``practitioner`` is the ``Practitioner/<id>`` that they are in this practice. ``level`` is the
    folded name of an access level of this practice; one that there is not conveys nothing.
    ``changed`` is since when they have it, in seconds since 1970 UTC, ``by`` the id of the account
    that gave it, or ``operator``; ``""`` and 0 of those that are older than these fields.
    ``suspended`` is since when it conveys nothing, because staff helped to recover the account
    (`suspend_staff`), ``helped_by`` the accounts of those who helped.
    """

    kind: ClassVar[str] = "staff-member"
    indexed: ClassVar[tuple[str, ...]] = ("account", "practice")

    account: str
    practice: str
    practitioner: str
    added: float
    level: str = READ
    changed: float = 0.0
    by: str = ""
    suspended: float | None = None
    helped_by: tuple[str, ...] = ()


class StaffChange(Record, frozen=True, kw_only=True):
    """One change of a membership, kept for good; ``key`` is ``<membership>/<number, zero-padded>``.

    ``before`` and ``after`` are folded names of levels, ``None`` where they were, or are, not on
    the staff. ``by`` is an account's id or ``operator``, ``at`` in seconds since 1970 UTC.
    """

    kind: ClassVar[str] = "staff-change"
    indexed: ClassVar[tuple[str, ...]] = ("member", "practice")

    member: str
    account: str
    practice: str
    practitioner: str
    before: str | None
    after: str | None
    at: float
    by: str


Works = Callable[[Any, StaffMember], Awaitable[bool]]
"""Whether a member's Practitioner is there and active, asked inside a transaction: always
`fhir_portal.access.relation.works`. Without that a membership conveys nothing."""


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
    by: Editor,
    level: str = READ,
) -> StaffMember:
    """Put an account on a practice's staff, inside a transaction.

    ``practitioner`` is ``Practitioner/<id>`` of that practice. Raises `AlreadyStaff` and, as
    `set_level` does, `UnknownLevel` and `NotPermitted`.
    """
    given = await _level_to_give(
        transaction, practice, level, await standing(transaction, practice, by)
    )
    member = StaffMember(
        key=staff_key(practice, account),
        account=account,
        practice=practice,
        practitioner=practitioner,
        added=now,
        level=folded_name(given.name),
        changed=now,
        by=by.account,
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
    await _keep_change(transaction, None, member, now=now, by=by)
    return member


async def set_level(
    transaction: RecordTransaction,
    *,
    practice: str,
    account: str,
    level: str,
    by: Editor,
    now: float,
    works: Works,
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
        LastAdministrator, LastHolder: see `require_kept`.
    """
    has = await standing(transaction, practice, by)
    given = await _level_to_give(transaction, practice, level, has)
    member = await transaction.get(StaffMember, staff_key(practice, account))
    if member is None:
        raise NotStaff(account)
    if seen is not None and folded_name(seen) != folded_name(member.level):
        raise LevelChanged("their access level was changed meanwhile; look at it again")
    called = folded_name(given.name)
    if called == member.level:
        return member
    changed = msgspec.structs.replace(member, level=called, changed=now, by=by.account)
    levels = await conveyed(transaction, practice)
    before = await held(transaction, practice, levels, works)
    if not await transaction.replace(member, changed):
        raise LevelChanged("their access level was changed meanwhile; look at it again")
    require_kept(before, await held(transaction, practice, levels, works), has)
    await _keep_change(transaction, member, changed, now=now, by=by)
    return changed


async def _level_to_give(
    reader: RecordReader, practice: str, level: str, has: frozenset[str]
) -> AccessLevel:
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
    is_open = account is not None and not account.disabled
    if member is not None and is_open and member.suspended is None:
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


def require_kept(
    before: Sequence[frozenset[str]],
    after: Sequence[frozenset[str]],
    has: frozenset[str],
) -> None:
    """Refuse what would leave a practice without somebody it needs.

    ``before`` and ``after`` are what each of the staff may do (`held`), ``has`` what who asks has
    themselves: that they could give back.

    Raises:
        LastAdministrator: nobody would be left who may administer, and somebody could before.
        LastHolder: nobody would be left who has a permission that who asks has not, or nobody of
            those who could give it to others, and somebody was before.
    """
    if _any_with(before, "administer") and not _any_with(after, "administer"):
        raise LastAdministrator(NOBODY_LEFT)
    for one in in_order(frozenset(PERMISSIONS) - has):
        is_lost = _any_with(before, one) and not _any_with(after, one)
        could_give = _any_with(before, "administer", one)
        if is_lost or (could_give and not _any_with(after, "administer", one)):
            raise LastHolder(
                f"nobody who is left could give '{one}' back, and your access level lacks it"
            )


def _any_with(people: Iterable[frozenset[str]], *permissions: str) -> bool:
    return any(one.issuperset(permissions) for one in people)


async def take_off_staff(
    transaction: RecordTransaction,
    *,
    account: str,
    practice: str,
    by: Editor,
    now: float,
    works: Works,
    even_last: bool = False,
) -> StaffMember:
    """Take an account off a practice's staff, inside a transaction.

    Its tokens end too: `fhir_portal.smart.revocation.remove_staff` does both. With ``even_last``
    an operator leaves a practice without anybody who may administer; nobody else does.

    Raises:
        NotStaff: the account is not on this practice's staff.
        NotPermitted: who asks is on the staff and may not administer.
        LastAdministrator, LastHolder: see `require_kept`.
    """
    has = await standing(transaction, practice, by)
    member = await transaction.get(StaffMember, staff_key(practice, account))
    if member is None:
        raise NotStaff(account)
    levels = await conveyed(transaction, practice)
    before = await held(transaction, practice, levels, works)
    await transaction.delete(StaffMember, member.key)
    await transaction.delete(StaffPractitioner, f"{practice}/{member.practitioner}")
    if not (even_last and by is OPERATOR):
        require_kept(before, await held(transaction, practice, levels, works), has)
    await _keep_change(transaction, member, None, now=now, by=by)
    return member


async def suspend_staff(
    transaction: RecordTransaction, account: str, *, helped_by: Iterable[str], now: float
) -> int:
    """Let an account's memberships convey nothing, at every practice; returns how many there are.

    What staff do for a person must not make anybody a member of the staff: whoever got into the
    account by their help is not yet known to be who works there. `resume_staff` ends it.
    """
    members = await staff_of_account(transaction, account)
    for member in members:
        suspended = now if member.suspended is None else member.suspended
        helpers = tuple(dict.fromkeys((*member.helped_by, *helped_by)))
        await transaction.put(
            msgspec.structs.replace(member, suspended=suspended, helped_by=helpers)
        )
    return len(members)


class ClosedSuspended(Record, frozen=True, kw_only=True):
    """That `suspend_where_closed` went through all memberships; there is one, by the key `all`."""

    kind: ClassVar[str] = "closed-staff-suspended"


async def suspend_where_closed(store: RecordStore, *, now: float) -> int:
    """Suspend memberships at practices that an earlier release had closed for an account, once.

    It kept staff out whose account another practice had helped to recover as it kept them out of
    records; membership is asked for by itself now. Returns how many were suspended; `resume_staff`
    ends it. An interrupted run is done again.
    """
    key, count = "all", 0
    if await store.get(ClosedSuspended, key) is not None:
        return 0
    for practice in await every_practice(store):

        async def suspend(transaction: RecordTransaction, where: str = practice.key) -> int:
            found = 0
            for member in await staff_of_practice(transaction, where):
                account = await transaction.get(Account, member.account)
                if member.suspended is None and account and where in account.closed_at:
                    await transaction.put(msgspec.structs.replace(member, suspended=now))
                    found += 1
            return found

        count += await store.transact(suspend)

    async def note(transaction: RecordTransaction) -> None:
        await transaction.put(ClosedSuspended(key=key))

    await store.transact(note)
    return count


async def resume_staff(
    transaction: RecordTransaction, *, account: str, practice: str, by: Editor
) -> StaffMember:
    """Let somebody work again whose account was recovered with help, inside a transaction.

    Raises:
        NotStaff: the account is not on this practice's staff.
        NotPermitted: who asks may not administer, helped with the recovery, is the member
            themselves, or would give more than they have.
    """
    has = await standing(transaction, practice, by)
    member = await transaction.get(StaffMember, staff_key(practice, account))
    if member is None:
        raise NotStaff(account)
    if by is not OPERATOR and by.account in (*member.helped_by, account):
        raise NotPermitted(ANOTHER_RESUMES)
    await _level_to_give(transaction, practice, member.level, has)
    resumed = msgspec.structs.replace(member, suspended=None, helped_by=())
    if member.suspended is not None and not await transaction.replace(member, resumed):
        raise NotPermitted("something about them was changed meanwhile; look again")
    return resumed


async def require_administrators_without(
    transaction: RecordTransaction, account: str, *, works: Works
) -> None:
    """Refuse to shut an account that is the last one to administer somewhere.

    Raises `LastAdministrator`, naming the practice.
    """
    for member in await staff_of_account(transaction, account):
        levels = await conveyed(transaction, member.practice)
        able = await _able(transaction, member.practice, levels, works)
        before = [levels[folded_name(one.level)] for one in able]
        after = [levels[folded_name(one.level)] for one in able if one.account != account]
        try:
            require_kept(before, after, frozenset(PERMISSIONS))
        except LastAdministrator:
            raise LastAdministrator(f"in '{member.practice}' {NOBODY_LEFT}") from None


async def _keep_change(
    transaction: RecordTransaction,
    before: StaffMember | None,
    after: StaffMember | None,
    *,
    now: float,
    by: Editor,
) -> None:
    member = after or before
    assert member is not None  # noqa: S101 - a change has one side at least
    number = len(await changes_of(transaction, member.key)) + 1
    await transaction.insert(
        StaffChange(
            key=f"{member.key}/{number:0{_NUMBER_DIGITS}}",
            member=member.key,
            account=member.account,
            practice=member.practice,
            practitioner=member.practitioner,
            before=before.level if before is not None else None,
            after=after.level if after is not None else None,
            at=now,
            by=by.account,
        )
    )


async def changes_of(reader: RecordReader, member: str) -> list[StaffChange]:
    """Return what became of a membership (`staff_key`), the oldest change first."""
    return await reader.find(StaffChange, "member", member, limit=_ALL)


async def staff_of_practice(reader: RecordReader, practice: str) -> list[StaffMember]:
    """Return everybody on a practice's staff, whatever their membership conveys."""
    return await reader.find(StaffMember, "practice", practice, limit=_ALL)


async def staff_of_account(reader: RecordReader, account: str) -> list[StaffMember]:
    """Return the memberships of an account."""
    return await reader.find(StaffMember, "account", account, limit=_ALL)


async def members_with(
    reader: RecordReader, practice: str, permission: Permission, *, works: Works
) -> list[StaffMember]:
    """Return who on a practice's staff may do something there.

    Not whose account is disabled, nor whose Practitioner is gone or inactive, nor who is suspended.
    """
    levels = await conveyed(reader, practice)
    able = await _able(reader, practice, levels, works)
    return [one for one in able if permission in levels[folded_name(one.level)]]


async def held(
    reader: RecordReader, practice: str, levels: Mapping[str, frozenset[str]], works: Works
) -> list[frozenset[str]]:
    """Return what each of the staff could do if the levels were these, by their folded names."""
    able = await _able(reader, practice, levels, works)
    return [levels[folded_name(one.level)] for one in able]


async def conveyed(reader: RecordReader, practice: str) -> dict[str, frozenset[str]]:
    """Return what each level of a practice conveys, by its folded name."""
    levels = await levels_of(reader, practice)
    return {folded_name(level.name): level.conveys for level in levels}


async def _able(
    reader: RecordReader, practice: str, levels: Mapping[str, frozenset[str]], works: Works
) -> list[StaffMember]:
    """Those whose membership conveys anything, as `fhir_portal.access.relation` sees it."""
    found = []
    for member in await staff_of_practice(reader, practice):
        if folded_name(member.level) in levels:
            account = await reader.get(Account, member.account)
            is_open = account is not None and not account.disabled and member.suspended is None
            if is_open and await works(reader, member):
                found.append(member)
    return found
