"""Access levels: named, versioned, bounded by whoever changes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.level_changes import (
    FORMAT,
    Edit,
    InvalidExport,
    change_level,
    change_levels,
    edits_to,
    export_levels,
    parse_export,
    preview,
    remove_level,
)
from fhir_portal.accounts.levels import (
    MAX_LEVELS,
    MEANS,
    OPERATOR,
    PERMISSIONS,
    READ,
    AccessLevel,
    AccessLevelVersion,
    BuiltInLevel,
    Difference,
    Editor,
    InvalidLevel,
    LastAdministrator,
    LastHolder,
    LevelChanged,
    LevelInUse,
    LevelRefused,
    NotPermitted,
    UnknownLevel,
    earlier_versions,
    folded_name,
    level_of,
    levels_of,
)
from fhir_portal.accounts.staff import (
    NotStaff,
    StaffMember,
    add_staff,
    changes_of,
    members_with,
    require_administrators_without,
    set_level,
    take_off_staff,
)
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.smart.revocation import disable_account
from tests.builders import DERM, FAMILY, START, an_account, changed, keep
from tests.staff import a_level, a_membership, at_work

ALL = frozenset(PERMISSIONS)
BOSS = Editor("boss", ALL)
DEPUTY = Editor("deputy", ALL)
"""Their level is narrower than what they come with."""


@pytest.fixture
async def practice(store: EmbeddedStore) -> EmbeddedStore:
    """An administrator, a deputy with less, two at the desk; another practice with its own."""
    for name in ("boss", "deputy", "desk", "desk-2", "elsewhere"):
        await keep(store, an_account(name, role="staff"))
    await keep(
        store,
        a_level("administrator", *PERMISSIONS),
        a_level("deputy", "view", "invite", "administer"),
        a_level("desk", "view", "invite"),
        a_level("administrator", *PERMISSIONS, practice=FAMILY),
        a_level("billing", "billing", practice=FAMILY),
        a_membership("boss", practitioner="boss", level="administrator"),
        a_membership("deputy", practitioner="deputy", level="deputy"),
        a_membership("desk", level="desk"),
        a_membership("desk-2", practitioner="desk-2", level="desk"),
        a_membership("elsewhere", FAMILY, level="administrator"),
    )
    return store


def to(*permissions: str) -> frozenset[str]:
    return frozenset(permissions)


async def change(
    store: EmbeddedStore, *edits: Edit, by: Editor = OPERATOR, practice: str = DERM
) -> tuple[Difference, ...]:
    return await store.transact(
        lambda transaction: change_levels(
            transaction, practice, edits, by=by, now=START + 1, works=at_work
        )
    )


async def give(
    store: EmbeddedStore, account: str, level: str, *, by: Editor = OPERATOR, **more: Any
) -> StaffMember:
    return await store.transact(
        lambda transaction: set_level(
            transaction,
            practice=more.pop("practice", DERM),
            account=account,
            level=level,
            by=by,
            now=START + 3,
            works=at_work,
            **more,
        )
    )


async def remove(store: EmbeddedStore, name: str, **more: Any) -> AccessLevel:
    given: dict[str, Any] = {"by": OPERATOR, "now": START + 2} | more
    return await store.transact(lambda transaction: remove_level(transaction, DERM, name, **given))


async def permissions(store: EmbeddedStore, name: str, practice: str = DERM) -> set[str]:
    level = await level_of(store, practice, name)
    assert level is not None
    return set(level.conveys)


async def everything(store: EmbeddedStore) -> list[Any]:
    kinds = (AccessLevel, AccessLevelVersion, StaffMember)
    return [record for kind in kinds for record in await store.every(kind)]


# ---------------------------------------------------------------- what there is


def test_every_permission_says_what_it_lets_somebody_do() -> None:
    assert set(MEANS) == ALL
    assert len(set(MEANS.values())) == len(PERMISSIONS)


async def test_every_practice_has_a_level_to_read_without_a_record(store: EmbeddedStore) -> None:
    for practice in (DERM, FAMILY, "new"):
        (level,) = await levels_of(store, practice)
        assert (level.name, level.conveys, level.is_built_in) == ("read", to("view"), True)
        assert await level_of(store, practice, " READ ") == level
    assert await store.every(AccessLevel) == []


async def test_a_record_that_claims_to_be_the_built_in_one_does_not_count(
    store: EmbeddedStore,
) -> None:
    await keep(store, a_level("read", *PERMISSIONS))
    assert await permissions(store, "read") == {"view"}


async def test_a_permission_this_server_does_not_know_is_nothing(store: EmbeddedStore) -> None:
    await keep(store, a_level("later", "view", "teleport"))
    assert await permissions(store, "later") == {"view"}


@pytest.mark.parametrize(
    "written",
    ["Front desk", "FRONT DESK", "  front   desk ", "\uff46\uff52\uff4f\uff4e\uff54 desk"],
)
def test_names_are_compared_folded(written: str) -> None:
    assert folded_name(written) == "front desk"


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "x" * 41,
        "a\nb",
        "a\tb",
        "a\0b",
        "a\u202eb",
        "a\u200bb",
        "a\u2028b",
        "a\u00a0b",
        "\ufb03" * 20,
    ],
)
async def test_what_is_no_name_is_refused(practice: EmbeddedStore, written: str) -> None:
    assert folded_name(written) == ""
    assert await level_of(practice, DERM, written) is None
    with pytest.raises(InvalidLevel):
        await change(practice, Edit(written, to("view"), 0))


@given(st.text(max_size=50))
def test_a_folded_name_leads_to_itself(written: str) -> None:
    assert folded_name(folded_name(written)) == folded_name(written)


# ---------------------------------------------------------------- changing


async def test_a_level_is_made_changed_and_every_version_kept(practice: EmbeddedStore) -> None:
    (made,) = await change(practice, Edit("Nurse", to("view", "forms"), 0), by=BOSS)
    assert (made.before, made.added, made.taken) == (None, to("view", "forms"), to())
    (then,) = await change(practice, Edit("nurse", to("view", "recover"), 1))
    assert (then.added, then.taken) == (to("recover"), to("forms"))
    level = await level_of(practice, DERM, "NURSE")
    assert level is not None
    assert level.permissions == ("recover", "view")
    assert (level.version, level.changed, level.changed_by) == (2, START + 1, "operator")
    (earlier,) = await earlier_versions(practice, DERM, "nurse")
    assert (earlier.version, earlier.permissions) == (1, ("forms", "view"))
    assert (earlier.name, earlier.changed_by, earlier.removed) == ("Nurse", "boss", False)
    assert await level_of(practice, FAMILY, "nurse") is None


async def test_what_changes_nothing_makes_no_version(practice: EmbeddedStore) -> None:
    before = await everything(practice)
    (difference,) = await change(practice, Edit("desk", to("view", "invite"), 1))
    assert difference.is_none
    assert await everything(practice) == before
    await change(practice, Edit("Desk", to("view", "invite"), 1))  # as it is written now
    level = await level_of(practice, DERM, "desk")
    assert level is not None
    assert (level.name, level.version) == ("Desk", 2)


async def test_many_levels_change_in_one_action_all_or_none(practice: EmbeddedStore) -> None:
    edits = [Edit("desk", to("view", "forms"), 1), Edit("nurse", to("view"), 0)]
    shown = await preview(practice, DERM, edits, by=OPERATOR, works=at_work)
    assert [(one.name, one.people) for one in shown] == [("desk", 2), ("nurse", 0)]
    assert await level_of(practice, DERM, "nurse") is None
    before = await everything(practice)
    with pytest.raises(LevelChanged):
        await change(practice, *edits, Edit("deputy", to("view"), 7))
    assert await everything(practice) == before
    assert await change(practice, *edits) == shown
    assert await permissions(practice, "desk") == {"view", "forms"}
    assert await permissions(practice, "nurse") == {"view"}


REFUSED: list[tuple[list[Edit], type[LevelRefused]]] = [
    ([Edit("read", to("view", "invite"), 0)], BuiltInLevel),
    ([Edit(" Read ", to(), 0)], BuiltInLevel),
    ([Edit("desk", to("view", "fly"), 1)], InvalidLevel),
    ([Edit("nurse", to("view"), 0), Edit("NURSE", to("invite"), 0)], InvalidLevel),
    ([Edit("desk", to("view"), 0)], LevelChanged),
    ([Edit("desk", to("view"), 2)], LevelChanged),
    ([Edit("nurse", to("view"), 1)], LevelChanged),
    ([Edit(f"l{number}", to(), 0) for number in range(MAX_LEVELS)], InvalidLevel),
    ([Edit("administrator", to("view"), 1), Edit("deputy", to(), 1)], LastAdministrator),
]


@pytest.mark.parametrize(("edits", "error"), REFUSED)
async def test_what_cannot_be_is_refused_before_anything_is_written(
    practice: EmbeddedStore, edits: list[Edit], error: type[LevelRefused]
) -> None:
    before = await everything(practice)
    with pytest.raises(error):
        await preview(practice, DERM, edits, by=OPERATOR, works=at_work)
    with pytest.raises(error):
        await change(practice, *edits)
    assert await everything(practice) == before


async def test_two_editors_who_saw_the_same_version_do_not_overwrite_each_other(
    practice: EmbeddedStore,
) -> None:
    """Planted fault: a change that looks at the version outside its transaction."""
    edits = [Edit("desk", to("view", one), 1) for one in ("forms", "billing", "messages")]
    done = await asyncio.gather(*(change(practice, edit) for edit in edits), return_exceptions=True)
    assert sum(isinstance(one, LevelChanged) for one in done) == 2
    winner = next(number for number, one in enumerate(done) if isinstance(one, tuple))
    assert await permissions(practice, "desk") == edits[winner].permissions
    assert len(await earlier_versions(practice, DERM, "desk")) == 1


async def test_two_editors_who_make_the_same_level_make_one(practice: EmbeddedStore) -> None:
    done = await asyncio.gather(
        *(change(practice, Edit("nurse", to(one), 0)) for one in ("view", "forms")),
        return_exceptions=True,
    )
    assert [type(one) for one in done].count(LevelChanged) == 1


# ---------------------------------------------------------------- removing


async def test_a_level_that_somebody_has_stays(practice: EmbeddedStore) -> None:
    await keep(practice, changed(await practice.get(Account, "desk"), disabled=True))
    with pytest.raises(LevelInUse, match="2 members of staff have"):
        await remove(practice, "DESK")
    await give(practice, "desk", "read")
    with pytest.raises(LevelInUse, match="1 member of staff has"):
        await remove(practice, "desk")
    await give(practice, "desk-2", "read")
    assert (await remove(practice, "desk")).name == "desk"
    assert await level_of(practice, DERM, "desk") is None


async def test_what_was_removed_is_remembered_and_no_version_comes_twice(
    practice: EmbeddedStore,
) -> None:
    await keep(practice, a_level("nurse", "view"))
    await remove(practice, "nurse", seen=1, by=BOSS)
    found = await earlier_versions(practice, DERM, "nurse")
    assert [(one.version, one.removed, one.changed_by) for one in found] == [
        (1, False, "operator"),
        (2, True, "boss"),
    ]
    await change(practice, Edit("nurse", to("billing"), 0))
    level = await level_of(practice, DERM, "nurse")
    assert level is not None
    assert level.version == 3
    with pytest.raises(LevelChanged):  # of who still has the first one on their screen
        await change(practice, Edit("nurse", to("view"), 1))


@pytest.mark.parametrize(
    ("name", "more", "error"),
    [
        ("read", {}, BuiltInLevel),
        ("nobody's", {}, UnknownLevel),
        ("billing", {}, UnknownLevel),  # of the other practice
        ("", {}, UnknownLevel),
        ("spare", {"seen": 2}, LevelChanged),
        ("spare", {"by": Editor("desk", ALL)}, NotPermitted),
        ("spare", {"by": Editor("elsewhere", ALL)}, NotPermitted),
    ],
)
async def test_what_cannot_be_removed_stays(
    practice: EmbeddedStore, name: str, more: dict[str, Any], error: type[LevelRefused]
) -> None:
    await keep(practice, a_level("spare", "view"))
    before = await everything(practice)
    with pytest.raises(error):
        await remove(practice, name, **more)
    assert await everything(practice) == before


# ---------------------------------------------------------------- who may


NOT_ADMINISTRATORS = {
    "not on the staff": Editor("nobody", ALL),
    "of another practice": Editor("elsewhere", ALL),
    "without the permission": Editor("desk", ALL),
    "whose session has less than their level": Editor("boss", ALL - {"administer"}),
    "who only calls themselves operator": Editor("operator", ALL),
}


@pytest.mark.parametrize("who", NOT_ADMINISTRATORS)
async def test_only_who_administers_here_changes_levels_or_gives_them(
    practice: EmbeddedStore, who: str
) -> None:
    before, by = await everything(practice), NOT_ADMINISTRATORS[who]
    acts: list[Callable[[], Awaitable[Any]]] = [
        lambda: change(practice, Edit("desk", to("view"), 1), by=by),
        lambda: preview(practice, DERM, [Edit("desk", to("view"), 1)], by=by, works=at_work),
        lambda: give(practice, "desk", "read", by=by),
        lambda: give(practice, by.account, "administrator", by=by),
    ]
    for act in acts:
        with pytest.raises(NotPermitted):
            await act()
    assert await everything(practice) == before


async def test_who_lost_the_permission_meanwhile_does_not_use_it(practice: EmbeddedStore) -> None:
    """What they came with is bounded by what they have in the transaction."""
    await give(practice, "deputy", "desk")
    with pytest.raises(NotPermitted):
        await give(practice, "desk", "read", by=DEPUTY)
    await give(practice, "deputy", "deputy")
    await keep(practice, changed(await practice.get(Account, "deputy"), disabled=True))
    with pytest.raises(NotPermitted):
        await give(practice, "desk", "read", by=DEPUTY)


async def test_nobody_gives_more_than_they_have(practice: EmbeddedStore) -> None:
    await keep(practice, a_level("cashier", "view", "billing"))
    before = await everything(practice)
    acts: dict[str, Callable[[], Awaitable[Any]]] = {
        "another gets more": lambda: give(practice, "desk", "cashier", by=DEPUTY),
        "another gets all": lambda: give(practice, "desk", "administrator", by=DEPUTY),
        "they raise themselves": lambda: give(practice, "deputy", "administrator", by=DEPUTY),
        "they raise their level": lambda: change(
            practice, Edit("deputy", to("view", "invite", "administer", "audit"), 1), by=DEPUTY
        ),
        "they raise others' level": lambda: change(
            practice, Edit("desk", to("view", "invite", "billing"), 1), by=DEPUTY
        ),
        "they make a wider one": lambda: change(practice, Edit("new", to("audit"), 0), by=DEPUTY),
        "they put a friend on the staff": lambda: practice.transact(
            lambda transaction: add_staff(
                transaction,
                account="friend",
                practice=DERM,
                practitioner="Practitioner/friend",
                now=START,
                level="cashier",
                by=DEPUTY,
            )
        ),
    }
    for what, act in acts.items():
        with pytest.raises(NotPermitted, match="nobody gives more than they have"):
            await act()
        assert await everything(practice) == before, what


async def test_who_administers_gives_and_takes_what_they_have(practice: EmbeddedStore) -> None:
    await keep(practice, a_level("reception", "invite"))
    assert (await give(practice, "desk", "Reception", by=DEPUTY)).level == "reception"
    await change(practice, Edit("desk", to("invite"), 1), by=DEPUTY)
    await change(practice, Edit("new", to("view", "invite"), 0), by=DEPUTY)
    assert (await give(practice, "deputy", "read", by=DEPUTY)).level == "read"  # they step down


# ---------------------------------------------------------------- giving a level


async def test_a_membership_changes_its_level_if_it_is_as_it_was_seen(
    practice: EmbeddedStore,
) -> None:
    with pytest.raises(LevelChanged):
        await give(practice, "desk", "read", seen="deputy")
    done = await asyncio.gather(
        give(practice, "desk", "read", seen="desk"),
        give(practice, "desk", "deputy", seen="DESK"),
        return_exceptions=True,
    )
    assert [type(one) for one in done].count(LevelChanged) == 1


@pytest.mark.parametrize(
    ("account", "level", "error"),
    [
        ("desk", "billing", UnknownLevel),  # of the other practice
        ("desk", "", UnknownLevel),
        ("desk", "x" * 500, UnknownLevel),
        ("nobody", "read", NotStaff),
        ("elsewhere", "read", NotStaff),
    ],
)
async def test_a_level_is_given_within_one_practice(
    practice: EmbeddedStore, account: str, level: str, error: type[Exception]
) -> None:
    before = await everything(practice)
    with pytest.raises(error):
        await give(practice, account, level)
    assert await everything(practice) == before


async def test_nobody_is_put_on_the_staff_with_a_level_that_there_is_not(
    practice: EmbeddedStore,
) -> None:
    with pytest.raises(UnknownLevel):
        await practice.transact(
            lambda transaction: add_staff(
                transaction,
                account="new",
                practice=DERM,
                practitioner="Practitioner/new",
                now=START,
                level="billing",
                by=OPERATOR,
            )
        )


async def test_the_last_administrator_stays_one(practice: EmbeddedStore) -> None:
    await give(practice, "deputy", "read", by=BOSS)
    with pytest.raises(LastAdministrator):
        await give(practice, "boss", "read", by=BOSS)
    with pytest.raises(LastAdministrator):
        await change(practice, Edit("administrator", ALL - {"administer"}, 1))
    await keep(practice, changed(await practice.get(Account, "deputy"), disabled=True))
    await keep(practice, a_membership("deputy", practitioner="deputy", level="deputy"))
    with pytest.raises(LastAdministrator):  # whose account is disabled administers nothing
        await give(practice, "boss", "read", by=BOSS)


async def test_where_nobody_administers_nobody_is_asked_to_stay(store: EmbeddedStore) -> None:
    await keep(store, an_account("desk", role="staff"), a_membership())
    await change(store, Edit("desk", to("view"), 0))
    assert (await give(store, "desk", "desk")).level == "desk"
    assert await members_with(store, DERM, "administer", works=at_work) == []


async def take_off(
    store: EmbeddedStore, account: str, *, by: Editor = OPERATOR, **more: Any
) -> StaffMember:
    return await store.transact(
        lambda transaction: take_off_staff(
            transaction,
            account=account,
            practice=DERM,
            by=by,
            now=START + 4,
            works=at_work,
            **more,
        )
    )


async def test_the_last_administrator_is_not_taken_off_but_by_an_operator_who_says_so(
    practice: EmbeddedStore,
) -> None:
    await take_off(practice, "deputy", by=BOSS)
    for by, even_last in ((BOSS, False), (BOSS, True), (OPERATOR, False)):
        with pytest.raises(LastAdministrator):
            await take_off(practice, "boss", by=by, even_last=even_last)
    assert (await take_off(practice, "boss", even_last=True)).account == "boss"


@pytest.mark.parametrize("who", NOT_ADMINISTRATORS)
async def test_only_who_administers_here_takes_somebody_off(
    practice: EmbeddedStore, who: str
) -> None:
    before = await everything(practice)
    with pytest.raises(NotPermitted):
        await take_off(practice, "desk-2", by=NOT_ADMINISTRATORS[who])
    assert await everything(practice) == before


async def test_nobody_takes_away_what_nobody_left_could_give_back(
    practice: EmbeddedStore,
) -> None:
    """The deputy has neither audit nor billing; the boss alone has, and could give them."""
    await keep(
        practice,
        a_level("books", "billing"),
        a_membership("desk-2", practitioner="desk-2", level="books"),
    )
    before = await everything(practice)
    acts: list[Callable[[], Awaitable[Any]]] = [
        lambda: give(practice, "boss", "desk", by=DEPUTY),
        lambda: take_off(practice, "boss", by=DEPUTY),
        lambda: change(
            practice, Edit("administrator", to("view", "invite", "administer"), 1), by=DEPUTY
        ),
        lambda: change(practice, Edit("administrator", ALL - {"administer"}, 1), by=DEPUTY),
    ]
    for act in acts:
        with pytest.raises(LastHolder):
            await act()
        assert await everything(practice) == before
    await give(practice, "desk-2", "read", by=DEPUTY)  # the boss can give billing back
    await keep(practice, a_membership("desk", level="administrator"))
    await give(practice, "boss", "desk", by=DEPUTY)  # there is another one who has it all


async def test_whose_practitioner_is_inactive_administers_nothing(
    practice: EmbeddedStore,
) -> None:
    async def but_the_deputy(reader: Any, member: StaffMember) -> bool:
        return await at_work(reader, member) and member.account != "deputy"

    assert [
        one.account
        for one in await members_with(practice, DERM, "administer", works=but_the_deputy)
    ] == ["boss"]
    with pytest.raises(LastAdministrator):
        await practice.transact(
            lambda transaction: set_level(
                transaction,
                practice=DERM,
                account="boss",
                level="read",
                by=BOSS,
                now=START,
                works=but_the_deputy,
            )
        )


async def test_each_change_of_a_membership_is_kept_with_who_made_it(
    practice: EmbeddedStore,
) -> None:
    given = await give(practice, "desk", "deputy", by=BOSS)
    assert (given.by, given.changed) == ("boss", START + 3)
    assert await give(practice, "desk", "deputy", by=DEPUTY) == given  # nothing changes
    await take_off(practice, "desk", by=BOSS)
    again = await practice.transact(
        lambda transaction: add_staff(
            transaction,
            account="desk",
            practice=DERM,
            practitioner="Practitioner/desk",
            now=START + 5,
            by=OPERATOR,
        )
    )
    assert (again.by, again.changed) == ("operator", START + 5)
    kept = await changes_of(practice, again.key)
    assert [(one.before, one.after, one.by, one.at - START) for one in kept] == [
        ("desk", "deputy", "boss", 3),
        ("deputy", None, "boss", 4),
        (None, "read", "operator", 5),
    ]


def test_a_membership_that_is_older_than_these_fields_is_read() -> None:
    old = {
        "key": "p/a",
        "account": "a",
        "practice": "p",
        "practitioner": "Practitioner/a",
        "added": 1.0,
    }
    member = msgspec.convert(old, StaffMember)
    assert (member.by, member.changed, member.level) == ("", 0.0, READ)


async def test_an_account_that_is_the_last_to_administer_is_not_shut_by_mistake(
    practice: EmbeddedStore,
) -> None:
    async def first(transaction: Any) -> None:
        await require_administrators_without(transaction, account, works=at_work)

    account = "desk"
    await disable_account(practice, account, now=START, first=first)
    account = "deputy"
    await disable_account(practice, account, now=START, first=first)
    account = "boss"
    with pytest.raises(LastAdministrator, match=DERM):
        await disable_account(practice, account, now=START, first=first)
    kept = await practice.get(Account, account)
    assert kept is not None
    assert not kept.disabled


async def test_who_may_do_something_is_found(practice: EmbeddedStore) -> None:
    async def names(permission: Any) -> list[str]:
        return [
            one.account for one in await members_with(practice, DERM, permission, works=at_work)
        ]

    assert await names("administer") == ["boss", "deputy"]
    assert await names("invite") == ["boss", "deputy", "desk", "desk-2"]
    assert await names("billing") == ["boss"]
    await keep(practice, a_membership("desk", level="gone"))
    assert await names("view") == ["boss", "deputy", "desk-2"]


# ---------------------------------------------------------------- as a file


def a_document(*levels: Any, **more: Any) -> bytes:
    listed = [{"name": name, "permissions": list(given)} for name, given in levels]
    return json.dumps({"format": FORMAT, "levels": listed} | more).encode()


async def take_in(
    store: EmbeddedStore, document: bytes, *, by: Editor = OPERATOR
) -> tuple[Difference, ...]:
    return await change(store, *await edits_to(store, DERM, parse_export(document)), by=by)


async def test_what_is_exported_is_imported_elsewhere(practice: EmbeddedStore) -> None:
    document = await export_levels(practice, DERM)
    assert [one["name"] for one in document["levels"]] == ["administrator", "deputy", "desk"]
    assert READ not in json.dumps(document)
    edits = await edits_to(practice, FAMILY, parse_export(json.dumps(document).encode()))
    await change(practice, *edits, practice=FAMILY)
    for name in ("administrator", "deputy", "desk"):
        assert await permissions(practice, name, FAMILY) == await permissions(practice, name)
    assert await permissions(practice, "billing", FAMILY) == {"billing"}  # stays
    again = await take_in(practice, json.dumps(document).encode())
    assert all(one.is_none for one in again)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"levels": []}',
        b'{"format": "fhir-portal-access-levels-2", "levels": []}',
        b'{"format": "%b", "format": "%b", "levels": []}' % (FORMAT.encode(), FORMAT.encode()),
        a_document(more=1),
        a_document(practice=1),
        a_document(levels={}),
        a_document(levels=[{"name": "x"}]),
        a_document(levels=[{"name": "x", "permissions": "view"}]),
        a_document(levels=[{"name": "x", "permissions": [], "version": 1}]),
        a_document(levels=[{"name": 1.5, "permissions": []}]),
        a_document(("", ["view"])),
        a_document(("x" * 41, ["view"])),
        a_document(("a\nb", ["view"])),
        a_document(("x", ["fly"])),
        a_document(("x", ["view", "view"])),
        a_document(("x", ["View"])),
        a_document(("x", [None])),
        a_document(("x", []), ("X", ["view"])),
        a_document(("read", ["view", "administer"])),
        a_document(*[(f"l{number}", []) for number in range(MAX_LEVELS + 1)]),
        a_document(practice="a" * 10, levels=[[[[]]]]),
    ],
)
async def test_a_document_with_a_fault_is_refused_whole(
    practice: EmbeddedStore, document: bytes
) -> None:
    before = await everything(practice)
    with pytest.raises((InvalidExport, InvalidLevel, BuiltInLevel)) as refusal:
        await take_in(practice, document)
    assert len(str(refusal.value)) < 400
    assert await everything(practice) == before


async def test_an_import_that_widens_is_bounded_by_who_imports(practice: EmbeddedStore) -> None:
    before = await everything(practice)
    document = a_document(("new", ["view"]), ("deputy", PERMISSIONS))
    with pytest.raises(NotPermitted):
        await take_in(practice, document, by=DEPUTY)
    assert await everything(practice) == before
    assert [one.name for one in await take_in(practice, document, by=BOSS)] == ["new", "deputy"]


async def test_an_import_leaves_somebody_who_administers(practice: EmbeddedStore) -> None:
    before = await everything(practice)
    document = a_document(
        ("administrator", ALL - {"administer"}), ("deputy", ["view"]), ("other", ["administer"])
    )
    with pytest.raises(LastAdministrator):
        await take_in(practice, document)
    assert await everything(practice) == before


async def test_what_was_changed_since_the_difference_was_shown_is_not_imported(
    practice: EmbeddedStore,
) -> None:
    edits = await edits_to(practice, DERM, parse_export(a_document(("desk", ["view"]))))
    await preview(practice, DERM, edits, by=BOSS, works=at_work)
    await change(practice, Edit("desk", to("forms"), 1))
    with pytest.raises(LevelChanged):
        await change(practice, *edits, by=BOSS)


async def test_one_level_is_changed_as_several_are(practice: EmbeddedStore) -> None:
    difference = await practice.transact(
        lambda transaction: change_level(
            transaction, DERM, Edit("desk", to("view"), 1), by=OPERATOR, now=START, works=at_work
        )
    )
    assert difference.taken == {"invite"}
