"""What many tests begin with is written once, and laid into the store of each of them."""

# ruff: noqa: SLF001 - a store has no way to be given what another one holds

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.builders import Ids

_TAKEN: dict[Hashable, _Image] = {}
_FILES: dict[Hashable, tuple[bytes, bytes]] = {}


@dataclass(frozen=True)
class _Image:
    """What was in a store in memory after something was written into it, and what that used up."""

    begun_at: int
    commits: int
    resources: bytes
    log: bytes
    ids: int
    random: Any


async def once(
    name: Hashable,
    store: EmbeddedStore,
    write: Callable[[], Awaitable[None]],
    *,
    portal: Portal | None = None,
    random: Random | None = None,
) -> None:
    """Have ``write`` fill a store in memory; from the second time on, lay in what it wrote.

    ``write`` does the same whenever it is called, on what was written under ``name`` before it, and
    touches nothing but the store, the ids of ``portal`` and ``random``; nothing is patched by then.
    It is called again where the store is in a file, the time is another, or something else was
    written before.
    """
    database, log = store.database, store.log
    if not database.in_memory:
        await write()
        return
    where = (name, database.clock(), "" if portal is None else portal.server.base)
    new_id = None if portal is None else portal.server.new_id
    ids = new_id if isinstance(new_id, Ids) else Ids()
    image = _TAKEN.get(where)
    if image is not None and image.begun_at == database._commits:
        _lay(image.resources, database.writer)
        _lay(image.log, log._connection)
        database._commits = image.commits
        for forget in database._undone:  # what was kept of the store as it was
            forget()
        log._streams.clear()
        ids.count = image.ids
        if random is not None:
            random.setstate(image.random)
        return
    begun_at = database._commits
    await write()
    _TAKEN[where] = _Image(
        begun_at=begun_at,
        commits=database._commits,
        resources=database.writer.serialize(),
        log=log._connection.serialize(),
        ids=ids.count,
        random=None if random is None else random.getstate(),
    )


def lay_in_file(name: Hashable, file: Path) -> bool:
    """Lay what `take_of_file` took where a store is going to be opened; whether there was any."""
    image = _FILES.get(name)
    if image is None:
        return False
    for path, content in zip((file, file.with_suffix(".log.db")), image, strict=True):
        path.write_bytes(content)
    return True


def take_of_file(name: Hashable, store: EmbeddedStore) -> None:
    """Take what is in the store in a file, for `lay_in_file`; nothing is patched by then."""
    _FILES[name] = (store.database.writer.serialize(), store.log._connection.serialize())


def _lay(image: bytes, into: sqlite3.Connection) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as laid:
        laid.deserialize(image)
        laid.backup(into)
