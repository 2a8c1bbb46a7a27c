"""Changing access levels: several in one action, by what the editor saw, with the difference first.

Everything here is judged before anything is written: a preview refuses what the change would, and
a change is all or nothing. An export is a JSON document with the levels of a practice; an import
is a change like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from fhir_portal.accounts.levels import (
    MAX_LEVELS,
    MAX_NAME,
    PERMISSIONS,
    READ,
    AccessLevel,
    AccessLevelVersion,
    BuiltInLevel,
    Difference,
    Editor,
    InvalidLevel,
    LevelChanged,
    LevelInUse,
    LevelRefused,
    UnknownLevel,
    earlier_versions,
    folded_name,
    known,
    level_key,
    level_of,
    levels_of,
    require_name,
    version_key,
)
from fhir_portal.accounts.staff import (
    Works,
    conveyed,
    held,
    require_kept,
    require_no_more,
    staff_of_practice,
    standing,
)
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import FhirError
from fhir_portal.records import DuplicateRecord, RecordReader, RecordTransaction

FORMAT: Final = "fhir-portal-access-levels-1"
SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Access levels of a practice",
    "type": "object",
    "required": ["format", "levels"],
    "additionalProperties": False,
    "properties": {
        "format": {"const": FORMAT},
        "practice": {"description": "Where it was exported; for people.", "type": "string"},
        "levels": {
            "type": "array",
            "maxItems": MAX_LEVELS,
            "items": {
                "type": "object",
                "required": ["name", "permissions"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
                    "permissions": {
                        "type": "array",
                        "uniqueItems": True,
                        "items": {"enum": list(PERMISSIONS)},
                    },
                },
            },
        },
    },
}
"""JSON Schema of an export."""

_VALIDATOR: Final = Draft202012Validator(SCHEMA)
_MOST_WORDS: Final = 200


class InvalidExport(LevelRefused):
    """The document is no export of access levels."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What a level is to be.

    ``seen`` is the version of it that the editor looked at, 0 where there was none by that name.
    """

    name: str
    permissions: frozenset[str]
    seen: int


async def preview(
    reader: RecordReader, practice: str, edits: Sequence[Edit], *, by: Editor, works: Works
) -> tuple[Difference, ...]:
    """Return what `change_levels` would change, in the order of ``edits``; raises what it does."""
    has = await standing(reader, practice, by)
    levels = {folded_name(level.name): level for level in await levels_of(reader, practice)}
    members = await staff_of_practice(reader, practice)
    people = Counter(folded_name(member.level) for member in members)
    before = await conveyed(reader, practice)
    after, found = dict(before), dict[str, Difference]()
    for edit in edits:
        name, permissions = require_name(edit.name), known(edit.permissions)
        called = folded_name(name)
        if called in found:
            raise InvalidLevel(f"the access level '{name}' is named twice")
        level = levels.get(called)
        if edit.seen != (level.version if level else 0):
            raise LevelChanged(f"the access level '{name}' was changed meanwhile; look at it again")
        difference = Difference(
            name, before=level.conveys if level else None, after=permissions, people=people[called]
        )
        require_no_more(difference.added, has)
        after[called], found[called] = permissions, difference
    if len(after) > MAX_LEVELS + 1:  # the built-in one is not counted
        raise InvalidLevel(f"a practice has {MAX_LEVELS} access levels at most")
    require_kept(
        await held(reader, practice, before, works),
        await held(reader, practice, after, works),
        has,
    )
    return tuple(found.values())


async def change_levels(
    transaction: RecordTransaction,
    practice: str,
    edits: Sequence[Edit],
    *,
    by: Editor,
    now: float,
    works: Works,
) -> tuple[Difference, ...]:
    """Make or change levels of a practice, all or none, inside a transaction.

    What the members may do changes with it, from the next request on at every process.

    Raises:
        InvalidLevel: a name or permission that cannot be, a level twice, or too many of them.
        BuiltInLevel: the one that stays as it is.
        LevelChanged: one of them has another version by now than the one that was seen.
        NotPermitted: who asks may not administer, or a level would give what they do not have.
        LastAdministrator, LastHolder: see `fhir_portal.accounts.staff.require_kept`.
    """
    differences = await preview(transaction, practice, edits, by=by, works=works)
    for edit, difference in zip(edits, differences, strict=True):
        old = await level_of(transaction, practice, edit.name)
        if difference.is_none and old is not None and old.name == difference.name:
            continue
        new = AccessLevel(
            key=level_key(practice, edit.name),
            practice=practice,
            name=difference.name,
            permissions=tuple(sorted(edit.permissions)),
            version=await _next_version(transaction, practice, edit.name, old),
            changed=now,
            changed_by=by.account,
        )
        await _store(transaction, old, new)
    return differences


async def change_level(
    transaction: RecordTransaction,
    practice: str,
    edit: Edit,
    *,
    by: Editor,
    now: float,
    works: Works,
) -> Difference:
    """Make or change one level; see `change_levels`."""
    (difference,) = await change_levels(transaction, practice, [edit], by=by, now=now, works=works)
    return difference


async def remove_level(
    transaction: RecordTransaction,
    practice: str,
    name: str,
    *,
    by: Editor,
    now: float,
    seen: int | None = None,
) -> AccessLevel:
    """Remove a level that nobody has, inside a transaction; return what it was.

    Raises:
        UnknownLevel, BuiltInLevel: there is none, or it stays.
        LevelChanged: it has another version by now than ``seen``.
        LevelInUse: somebody on the staff has it, even if they are shut out for now.
        NotPermitted: who asks may not administer.
    """
    await standing(transaction, practice, by)
    if folded_name(name) == READ:
        raise BuiltInLevel(f"the access level '{READ}' is built in and stays as it is")
    level = await level_of(transaction, practice, name)
    if level is None:
        raise UnknownLevel(f"there is no access level '{name}' in '{practice}'")
    if seen is not None and level.version != seen:
        raise LevelChanged(f"the access level '{level.name}' was changed meanwhile; look again")
    called = folded_name(name)
    members = await staff_of_practice(transaction, practice)
    having = sum(folded_name(member.level) == called for member in members)
    if having:
        people = "1 member of staff has" if having == 1 else f"{having} members of staff have"
        raise LevelInUse(f"{people} the access level '{level.name}'; give them another one first")
    await transaction.delete(AccessLevel, level.key)
    await transaction.insert(_kept(level))
    end = msgspec.structs.replace(
        level, permissions=(), version=level.version + 1, changed=now, changed_by=by.account
    )
    await transaction.insert(msgspec.structs.replace(_kept(end), removed=True))
    return level


async def _store(transaction: RecordTransaction, old: AccessLevel | None, new: AccessLevel) -> None:
    if old is None:
        try:
            await transaction.insert(new)
        except DuplicateRecord:
            raise LevelChanged(f"the access level '{new.name}' was made meanwhile") from None
        return
    if not await transaction.replace(old, new):
        raise LevelChanged(f"the access level '{new.name}' was changed meanwhile; look again")
    await transaction.insert(_kept(old))


async def _next_version(
    reader: RecordReader, practice: str, name: str, old: AccessLevel | None
) -> int:
    """A name that was removed counts on: no version of it is ever taken for another one."""
    if old is not None:
        return old.version + 1
    earlier = await earlier_versions(reader, practice, name)
    return earlier[-1].version + 1 if earlier else 1


def _kept(level: AccessLevel) -> AccessLevelVersion:
    return AccessLevelVersion(
        key=version_key(level.key, level.version),
        level=level.key,
        name=level.name,
        permissions=level.permissions,
        version=level.version,
        changed=level.changed,
        changed_by=level.changed_by,
    )


async def export_levels(reader: RecordReader, practice: str) -> dict[str, Any]:
    """Return the levels of a practice as a document, without the built-in one."""
    levels = await levels_of(reader, practice)
    return {
        "format": FORMAT,
        "practice": practice,
        "levels": [
            {"name": level.name, "permissions": sorted(level.conveys)}
            for level in levels
            if not level.is_built_in
        ],
    }


def parse_export(document: bytes) -> dict[str, frozenset[str]]:
    """Return the permissions of each level in a document of `export_levels`.

    Raises `InvalidExport`; the words say where in the document, and name a level's own mistakes.
    """
    try:
        tree = json.parse(document)
    except FhirError as error:
        raise InvalidExport(f"this is no export of access levels: {error}") from None
    fault = best_match(_VALIDATOR.iter_errors(tree))
    if fault is not None:
        words = f"{fault.json_path}: {fault.message}"
        if len(words) > _MOST_WORDS:
            words = f"{words[:_MOST_WORDS]}..."
        raise InvalidExport(f"this is no export of access levels: {words}")
    found: dict[str, frozenset[str]] = {}
    names = set[str]()
    for one in tree["levels"]:
        name = require_name(one["name"])
        if folded_name(name) in names:
            raise InvalidExport(f"the access level '{name}' is in the document twice")
        names.add(folded_name(name))
        found[name] = frozenset(one["permissions"])
    return found


async def edits_to(
    reader: RecordReader, practice: str, wanted: Mapping[str, frozenset[str]]
) -> tuple[Edit, ...]:
    """Return the edits that make levels what is wanted, from what they are now.

    Levels that are not named stay as they are.
    """
    seen = _versions(await levels_of(reader, practice))
    return tuple(
        Edit(name, permissions, seen.get(folded_name(name), 0))
        for name, permissions in wanted.items()
    )


def _versions(levels: Iterable[AccessLevel]) -> dict[str, int]:
    return {folded_name(level.name): level.version for level in levels}
