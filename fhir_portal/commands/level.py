"""``fhir-portal level``: a practice's access levels, and what its staff may do by them."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from fhir_portal.access.relation import works
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.level_changes import (
    Edit,
    change_levels,
    edits_to,
    export_levels,
    parse_export,
    preview,
    remove_level,
)
from fhir_portal.accounts.levels import (
    MEANS,
    OPERATOR,
    PERMISSIONS,
    AccessLevel,
    Difference,
    LevelRefused,
    UnknownLevel,
    earlier_versions,
    folded_name,
    in_order,
    known,
    level_of,
    levels_of,
)
from fhir_portal.accounts.staff import staff_of_practice
from fhir_portal.commands.store import Refused, known_practices, moment, print_found, run_in_store
from fhir_portal.records import RecordReader, RecordTransaction
from fhir_portal.resources.store import PortalStore

level_commands = typer.Typer(
    name="level",
    help="Access levels: what a practice's staff may do.",
    no_args_is_help=True,
)

T = TypeVar("T")
Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
Where = Annotated[str, typer.Option("--practice", show_default=False, help="Key of the practice.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
]
_MOST_BYTES: Final = 1 << 20


@level_commands.command("list")
def list_(*, practice: Where, as_json: AsJson = False) -> None:
    """List the access levels of a practice, and how many people have each."""

    async def work(store: PortalStore) -> list[dict[str, Any]]:
        levels = await levels_of(store, practice)
        members = await staff_of_practice(store, practice)
        people = Counter(folded_name(member.level) for member in members)
        return [
            _shown(level) | {"people": people[folded_name(level.name)]}  # a member's is folded
            for level in levels
        ]

    levels = _run(practice, work)
    if as_json:
        typer.echo(json.dumps(levels, indent=2))
        return
    width = max(len(one["name"]) for one in levels)
    for one in levels:
        may = ", ".join(one["permissions"]) or "nothing"
        typer.echo(f"{one['name']:{width}}  {_people(one['people']):10}  {may}")


@level_commands.command("show")
def show(name: Name, *, practice: Where, as_json: AsJson = False) -> None:
    """Say what an access level lets people do, who has it, and what it was before."""

    async def work(store: PortalStore) -> dict[str, Any]:
        level = await _level(store, practice, name)
        called = folded_name(level.name)
        members = await staff_of_practice(store, practice)
        return _shown(level) | {
            "may": [MEANS[one] for one in in_order(level.conveys)],
            "may_not": [MEANS[one] for one in PERMISSIONS if one not in level.conveys],
            "people": [
                await _username(store, member.account)
                for member in members
                if folded_name(member.level) == called
            ],
            "changed": None if level.is_built_in else moment(level.changed),
            "changed_by": await _username(store, level.changed_by),
            "earlier": [
                {
                    "version": one.version,
                    "permissions": list(in_order(one.permissions)),
                    "removed": one.removed,
                    "changed": moment(one.changed),
                    "changed_by": await _username(store, one.changed_by),
                }
                for one in await earlier_versions(store, practice, name)
            ],
        }

    found = _run(practice, work)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{found['name']}: {', '.join(found['people']) or 'nobody'}")
    for title, words in (("may", found["may"] or ["nothing"]), ("may not", found["may_not"])):
        for number, one in enumerate(words):
            typer.echo(f"  {'' if number else title:9}{one}")
    if found["changed"]:
        typer.echo(
            f"version {found['version']}, by {found['changed_by']} at {found['changed']}; "
            f"{len(found['earlier'])} before it (--json)"
        )


@level_commands.command("set")
def set_(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", show_default=False)],
    *,
    practice: Where,
    permission: Annotated[
        list[str] | None,
        typer.Option(help="It gives these and no others; makes a new one too. May be repeated."),
    ] = None,
    add: Annotated[list[str] | None, typer.Option(help="It gives this too.")] = None,
    take: Annotated[list[str] | None, typer.Option(help="It gives this no longer.")] = None,
    nothing: Annotated[bool, typer.Option("--nothing", help="It gives nothing at all.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make access levels, or change what they let people do: one or several, all or none.

    It holds from the next request of those who have the level.
    """

    async def work(store: PortalStore) -> tuple[Difference, ...]:
        is_whole, is_change = bool(permission) or nothing, bool(add) or bool(take)
        if is_whole == is_change or (permission and nothing):
            raise Refused(
                "say what it gives (--permission, --nothing), or what changes (--add, --take)"
            )
        given, taken = known(permission or add or ()), known(take or ())
        if len({folded_name(name) for name in names}) < len(names):
            raise Refused("an access level is named twice")
        if is_whole:
            edits = await edits_to(store, practice, dict.fromkeys(names, given))
        else:
            levels = [await _level(store, practice, name) for name in names]
            edits = tuple(
                Edit(one.name, one.conveys - taken | given, seen=one.version) for one in levels
            )
        return await _changed(store, practice, edits, dry_run=dry_run)

    _print(_run(practice, work), practice, dry_run=dry_run, as_json=as_json)


@level_commands.command("remove")
def remove(name: Name, *, practice: Where, as_json: AsJson = False) -> None:
    """Remove an access level that nobody has."""

    async def work(store: PortalStore) -> AccessLevel:
        async def go(transaction: RecordTransaction) -> AccessLevel:
            return await remove_level(transaction, practice, name, by=OPERATOR, now=time.time())

        return await store.transact(go)

    removed = _run(practice, work)
    print_found({"name": removed.name, "practice": practice, "removed": True}, as_json=as_json)


@level_commands.command("export")
def export(*, practice: Where) -> None:
    """Print the access levels of a practice as a JSON document, for `import`."""

    async def work(store: PortalStore) -> dict[str, Any]:
        return await export_levels(store, practice)

    typer.echo(json.dumps(_run(practice, work), indent=2, ensure_ascii=False))


@level_commands.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` printed; - to read.")],
    *,
    practice: Where,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make or change access levels as a document says, all or none.

    Levels that are not in it stay as they are.
    """

    async def work(store: PortalStore) -> tuple[Difference, ...]:
        edits = await edits_to(store, practice, parse_export(_read(file)))
        return await _changed(store, practice, edits, dry_run=dry_run)

    _print(_run(practice, work), practice, dry_run=dry_run, as_json=as_json)


def _run(practice: str, work: Callable[[PortalStore], Awaitable[T]]) -> T:
    async def refusing(store: PortalStore) -> T:
        await known_practices(store, [practice])
        try:
            return await work(store)
        except LevelRefused as error:
            raise Refused(str(error)) from None

    return run_in_store(refusing)


async def _changed(
    store: PortalStore, practice: str, edits: Sequence[Edit], *, dry_run: bool
) -> tuple[Difference, ...]:
    if dry_run:
        return await preview(store, practice, edits, by=OPERATOR, works=works)

    async def go(transaction: RecordTransaction) -> tuple[Difference, ...]:
        return await change_levels(
            transaction, practice, edits, by=OPERATOR, now=time.time(), works=works
        )

    return await store.transact(go)


def _print(
    differences: Sequence[Difference], practice: str, *, dry_run: bool, as_json: bool
) -> None:
    if as_json:
        changes = [
            {
                "name": one.name,
                "new": one.before is None,
                "added": list(in_order(one.added)),
                "taken": list(in_order(one.taken)),
                "permissions": list(in_order(one.after)),
                "people": one.people,
            }
            for one in differences
        ]
        found = {"practice": practice, "saved": not dry_run, "changes": changes}
        typer.echo(json.dumps(found, indent=2))
        return
    width = max((len(one.name) for one in differences), default=0)
    for one in differences:
        what = [f"+ {name}" for name in in_order(one.added)]
        what += [f"- {name}" for name in in_order(one.taken)]
        state = "new" if one.before is None else _people(one.people)
        words = ", ".join(what) or ("gives nothing" if one.before is None else "as it is")
        typer.echo(f"{one.name:{width}}  {state:10}  {words}")
    if dry_run:
        typer.echo("Nothing was changed (--dry-run).", err=True)


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            found = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with file.open("rb") as opened:
                found = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from None
    if len(found) > _MOST_BYTES:
        raise Refused(f"{file} is no export of access levels: it is too large")
    return found


async def _level(reader: RecordReader, practice: str, name: str) -> AccessLevel:
    level = await level_of(reader, practice, name)
    if level is None:
        there_are = ", ".join(one.name for one in await levels_of(reader, practice))
        raise UnknownLevel(
            f"there is no access level '{name}' in '{practice}' (there are: {there_are})"
        )
    return level


async def _username(reader: RecordReader, account: str) -> str:
    found = await reader.get(Account, account)
    return account if found is None else found.username


def _shown(level: AccessLevel) -> dict[str, Any]:
    return {
        "name": level.name,
        "practice": level.practice,
        "version": level.version,
        "permissions": list(in_order(level.conveys)),
    }


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"
