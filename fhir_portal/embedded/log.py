"""The access log on SQLite, in a file of its own beside the store's.

Rows of one turn of the event loop share a commit, which reaches the operating system before any
of their answers leaves; a thread syncs the file every second (DESIGN: durability).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from fhir_portal.access.log import AccessRow, LoggedAccess, access_id, stream_of
from fhir_portal.embedded.database import connect, create_schema, waiting
from fhir_portal.fhir.errors import Unavailable

SYNC_SECONDS: Final = 1.0
_SCHEMA: Final = """
CREATE TABLE access (
  place INTEGER PRIMARY KEY, practice TEXT NOT NULL, record TEXT NOT NULL, stream TEXT NOT NULL,
  turn INTEGER NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, agent TEXT NOT NULL,
  told INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX access_turn ON access (practice, record, stream, turn);
CREATE INDEX access_record ON access (practice, record);
CREATE UNIQUE INDEX access_id ON access (id);
CREATE INDEX access_at ON access (practice, at);
"""
_INSERT: Final = (
    "INSERT INTO access (practice, record, stream, turn, id, at, agent, told, body)"
    " SELECT ?1, ?2, ?3, n, access_id(?1, ?2, ?3, n), ?4, ?5, ?6, ?7 FROM"
    " (SELECT coalesce(max(turn), 0) + 1 AS n FROM access"
    " WHERE practice = ?1 AND record = ?2 AND stream = ?3)"
)
_decode = msgspec.json.Decoder(AccessRow).decode
_encode = msgspec.json.Encoder().encode


class EmbeddedLog:
    """`fhir_portal.access.log.AccessLog` in a SQLite file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = connect(path, synchronous="NORMAL")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")  # the syncing thread does it
        create_schema(self._connection, _SCHEMA, 2, path)
        self._connection.create_function("access_id", 4, access_id, deterministic=True)
        self._waiting: list[tuple[Sequence[AccessRow], asyncio.Future[None]]] = []
        self.fault = ""
        """Why the last sync failed; such a server is not ready."""
        self._stop = threading.Event()
        self._unsynced = threading.Event()
        self._syncing: threading.Thread | None = None
        if path != ":memory:":
            self._syncing = threading.Thread(target=self._sync_each_second, daemon=True)
            self._syncing.start()

    async def append(self, rows: Sequence[AccessRow]) -> None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((rows, written))
        await written

    def _flush(self) -> None:
        turn, self._waiting = self._waiting, []
        values = [
            (
                row.practice,
                row.record,
                stream_of(row),
                row.at,
                row.agent,
                row.told,
                _encode(row),
            )
            for rows, _ in turn
            for row in rows
        ]
        failure: Unavailable | None = None
        try:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                with waiting(self._connection):  # another process is in its commit: microseconds
                    self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_INSERT, values)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            failure = Unavailable("the access could not be recorded, so it was not granted")
            failure.__cause__ = error
        else:
            self._unsynced.set()
        for _, written in turn:
            if written.done():
                continue  # its request was cancelled; the row stays
            if failure is None:
                written.set_result(None)
            else:
                written.set_exception(failure)

    def _sync_each_second(self) -> None:
        checkpoint = connect(self._path, synchronous="NORMAL")
        while not self._stop.wait(SYNC_SECONDS):
            self._try_to_sync(checkpoint)
        self._try_to_sync(checkpoint)
        checkpoint.close()

    def _try_to_sync(self, checkpoint: sqlite3.Connection) -> None:
        try:
            self._sync(checkpoint)
        except (OSError, sqlite3.Error) as error:
            self._unsynced.set()  # and again next second
            self.fault = f"the access log cannot be synced: {type(error).__name__}"
        else:
            self.fault = ""

    def _sync(self, checkpoint: sqlite3.Connection) -> None:
        """Bring what was written to the disk, and move it from the write-ahead log to the file."""
        if not self._unsynced.is_set():
            return
        self._unsynced.clear()
        with contextlib.suppress(FileNotFoundError):
            file = os.open(f"{self._path}-wal", os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        with contextlib.suppress(sqlite3.OperationalError):  # busy: next second
            checkpoint.execute("PRAGMA wal_checkpoint(PASSIVE)")

    async def read(self, row_id: str) -> LoggedAccess | None:
        row = self._connection.execute(
            "SELECT id, body FROM access WHERE id = ?", (row_id,)
        ).fetchone()
        return None if row is None else LoggedAccess(row[0], _decode(row[1]))

    async def of_record(
        self,
        practice: str,
        record: str | None,
        *,
        agent: str | None,
        told: bool,
        low: int,
        high: int,
        before: str | None,
        limit: int,
    ) -> list[LoggedAccess]:
        # Of one record the places are the order of time; of a practice the instants are.
        sql = "SELECT id, body FROM access WHERE practice = ?"
        parameters: list[object] = [practice]
        order = "at DESC, place DESC"
        if record is not None:
            sql += " AND record = ?"
            parameters.append(record)
            order = "place DESC"
        sql += " AND at BETWEEN ? AND ?"
        parameters += [low, high]
        if agent is not None:
            sql += " AND agent = ?"
            parameters.append(agent)
        if told:
            sql += " AND told = 1"
        if before is not None:
            columns = "place" if record is not None else "at, place"
            sql += f" AND ({columns}) < (SELECT {columns} FROM access WHERE id = ?)"
            parameters.append(before)
        rows = self._connection.execute(f"{sql} ORDER BY {order} LIMIT ?", (*parameters, limit))
        return [LoggedAccess(row_id, _decode(body)) for row_id, body in rows]

    def close(self) -> None:
        """Sync and close."""
        self._stop.set()
        if self._syncing is not None:
            self._syncing.join()
        self._connection.close()
