"""The embedded store: records, resources and the access log behind their protocols."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from fhir_portal.access.visibility import Visibility
from fhir_portal.embedded.database import SCHEMA_VERSION, Database
from fhir_portal.embedded.log import EmbeddedLog
from fhir_portal.embedded.query import Interned
from fhir_portal.embedded.records import RecordChanges, Records
from fhir_portal.embedded.resources import ResourceChanges, Resources
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.resources.store import Page
from fhir_portal.search.request import SearchRequest

T = TypeVar("T")


class EmbeddedTransaction(ResourceChanges, RecordChanges):
    """What a transaction's work is handed: resources and records, one commit."""

    def __init__(self, database: Database, interned: Interned) -> None:
        ResourceChanges.__init__(self, database, interned, writing=True)
        RecordChanges.__init__(self, database.writer)


class EmbeddedStore(Resources, Records):
    """One SQLite file, and the access log in a second one beside it."""

    def __init__(self, database: Database, log: EmbeddedLog) -> None:
        Resources.__init__(self, database, Interned(database, writing=False), writing=False)
        Records.__init__(self, database.reader)
        self._written = Interned(database, writing=True)
        self.database = database
        self.log = log

    @classmethod
    def open(cls, path: str, *, clock: Callable[[], float] = time.time) -> Self:
        """Open (and create) the store at a path, or ``:memory:``.

        Raises:
            Unavailable: it cannot be opened safely, or is no store.
        """
        log = path if path == ":memory:" else str(Path(path).with_suffix(".log.db"))
        try:
            return cls(Database(path, clock), EmbeddedLog(log))
        except sqlite3.Error as error:
            raise Unavailable(f"{path} cannot be opened: {error}") from error

    async def search_all(self, asked: Sequence[tuple[SearchRequest, Visibility]]) -> list[Page]:
        queries = [await self.compiled(request, visible) for request, visible in asked]
        limited = [
            (query.sql, (*query.parameters, request.count + 1))
            for query, (request, _) in zip(queries, asked, strict=True)
        ]
        found = await self.database.select_all(limited)
        return [self.page(rows, request) for rows, (request, _) in zip(found, asked, strict=True)]

    async def epoch(self) -> tuple[int, int]:
        return self.database.epoch()

    def about(self) -> list[str]:
        return [
            f"embedded store at {self.database.path}, layout {SCHEMA_VERSION}",
            f"SQLite {sqlite3.sqlite_version}",
        ]

    async def faults(self) -> list[str]:
        stale = await self.stale()
        found = [f"{stale} resources wait for a reindex"] if stale else []
        return found + ([self.log.fault] if self.log.fault else [])

    async def check_indexes(self) -> list[str]:
        return ["the indexes are part of the file's layout"]

    async def transact(self, work: Callable[[EmbeddedTransaction], Awaitable[T]]) -> T:
        transaction = EmbeddedTransaction(self.database, self._written)
        return await self.database.write(lambda: work(transaction))

    async def aclose(self) -> None:
        await self.database.settle()
        self.close()

    def close(self) -> None:
        """Close the store; call it when no request is under way."""
        self.database.close()
        self.log.close()
