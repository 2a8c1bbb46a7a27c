"""Collections, their indexes, and how they are made and checked. ADR 0011 says why they are so.

The first letters stand for what `fhir_portal.mongo.resources` and `records` say of a document:
``p`` practice, ``t`` type, ``i`` id, ``o`` owners, ``s`` exact search entries, ``r`` ranges, ``e``
references to other resources, ``u`` last updated, ``n`` place in the order of commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fhir_portal.fhir.errors import Unavailable
from fhir_portal.mongo.driver import Driver, DriverError, Index, Replace

LAYOUT: Final = 2
"""Raised with every change of what is stored; a database of another layout is refused."""

RESOURCE: Final = "resource"
VERSION: Final = "version"
CONTENT: Final = "content"
RECORD: Final = "record"
ACCESS: Final = "access"
TURN: Final = "turn"
UNDO: Final = "undo"

EXPIRED_STAY_SECONDS: Final = 86_400
"""The database removes a record this long after it expired, should housekeeping not run."""


def _index(name: str, *fields: str, expire_after: int | None = None) -> Index:
    keys = tuple((field.removeprefix("-"), -1 if field.startswith("-") else 1) for field in fields)
    return Index(name, keys, expire_after)


INDEXES: Final[Mapping[str, tuple[Index, ...]]] = {
    RESOURCE: (
        _index("place", "p", "t", "o", "_id"),
        _index("term", "p", "t", "s", "o", "_id"),
        _index("low", "p", "t", "r.c", "r.l", "r.h"),
        _index("high", "p", "t", "r.c", "r.h"),
        _index("updated", "p", "t", "u", "_id"),
        _index("edge", "p", "e", "o"),
        _index("own", "i", "t"),
        _index("stale", "iv"),
    ),
    VERSION: (
        _index("feed", "p", "-u", "-n"),
        _index("of_record", "p", "o", "-u", "-n"),
    ),
    CONTENT: (),
    RECORD: (
        _index("field", "f", "_id"),
        _index("expires", "x"),
    ),
    ACCESS: (
        _index("turn", "s", "-n"),
        _index("of_record", "p", "r", "-a", "-s", "-n"),
        _index("of_practice", "p", "-a", "-s", "-n"),
        _index("of_app", "c", "s", "-a", "-n"),
    ),
    TURN: (),
    UNDO: (_index("holder", "h"),),
}

TTL: Final = _index("ttl", "dropped", expire_after=EXPIRED_STAY_SECONDS)
"""On `RECORD`: the database's own housekeeping, by the date ``dropped``."""


def index_named(collection: str, name: str) -> tuple[str, ...]:
    """Return the fields of a declared index, in order."""
    if name == "_id_":
        return ("_id",)
    return next(
        tuple(field for field, _ in index.keys)
        for index in INDEXES[collection]
        if index.name == name
    )


async def create(driver: Driver, *, expire: bool) -> list[str]:
    """Create the indexes that are missing; return one line for each declared index.

    Raises:
        Unavailable: the database holds another layout, an index of this name with other fields,
            or refuses to build one.
    """
    await _check_layout(driver)
    lines: list[str] = []
    for collection, declared in INDEXES.items():
        wanted = (*declared, TTL) if collection == RECORD and expire else declared
        found = await driver.indexes(collection)
        missing = [index for index in wanted if index.name not in found]
        for index in wanted:
            if index.name in found and found[index.name] != index.keys:
                raise Unavailable(
                    f"index {collection}.{index.name} has other fields than this version declares;"
                    " drop it and start again: it is built anew"
                )
        if missing:
            names = ", ".join(f"{collection}.{index.name}" for index in missing)
            try:
                await driver.create_indexes(collection, missing)
            except Exception as error:
                reason = str(error)
                if isinstance(error, DriverError):
                    reason = (
                        "the database went away meanwhile and may still be at it;"
                        " run `fhir-portal check --indexes` when it is back"
                    )
                raise Unavailable(f"the indexes {names} could not be built: {reason}") from error
        lines += [
            f"{collection}.{index.name} ({', '.join(field for field, _ in index.keys)}): "
            + ("created" if index in missing else "present")
            for index in wanted
        ]
    return lines


async def _check_layout(driver: Driver) -> None:
    found = await driver.find(TURN, {"_id": "layout"}, limit=1)
    if not found:
        await driver.write(TURN, [Replace({"_id": "layout", "layout": LAYOUT})])
    elif found[0].get("layout") != LAYOUT:
        message = (
            f"the database has layout {found[0].get('layout')}; this version reads layout {LAYOUT}"
        )
        raise Unavailable(message)
