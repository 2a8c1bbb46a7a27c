"""The embedded store: records, resources and the access log behind their protocols."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

from fhir_portal.embedded.database import Database
from fhir_portal.embedded.log import EmbeddedLog
from fhir_portal.embedded.query import Interned
from fhir_portal.embedded.records import RecordChanges, Records
from fhir_portal.embedded.resources import ResourceChanges, Resources
from fhir_portal.fhir.errors import Unavailable

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

    def epoch(self) -> tuple[int, int]:
        return self.database.epoch()

    async def transact(self, work: Callable[[EmbeddedTransaction], Awaitable[T]]) -> T:
        transaction = EmbeddedTransaction(self.database, self._written)
        return await self.database.write(lambda: work(transaction))

    def close(self) -> None:
        """Close the store; call it when no request is under way."""
        self.database.close()
        self.log.close()
