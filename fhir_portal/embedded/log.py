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
from typing import Any, Final

import msgspec

from fhir_portal.access.log import (
    AccessRow,
    LoggedAccess,
    access_id,
    app_key,
    stream_id,
    stream_of,
)
from fhir_portal.embedded.database import connect, create_schema, waiting
from fhir_portal.fhir.errors import Unavailable

SYNC_SECONDS: Final = 1.0
_SCHEMA: Final = """
CREATE TABLE stream (
  stream INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, practice TEXT NOT NULL,
  record TEXT NOT NULL, agent TEXT NOT NULL, told INTEGER NOT NULL);
CREATE INDEX stream_of_record ON stream (practice, record);
CREATE TABLE access (
  place INTEGER PRIMARY KEY, stream INTEGER NOT NULL, turn INTEGER NOT NULL,
  practice TEXT NOT NULL, at INTEGER NOT NULL, app TEXT NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX access_turn ON access (stream, turn);
CREATE INDEX access_at ON access (practice, at);
CREATE INDEX access_of_app ON access (stream, app, at, turn);
"""
_INSERT: Final = "INSERT INTO access (stream, turn, practice, at, app, body) VALUES (?,?,?,?,?,?)"
_LINE: Final = "a.place, a.turn, a.body, s.id"
_STREAMS: Final = 10_000
"""Streams of which number and last turn are remembered."""
_decode = msgspec.json.Decoder(AccessRow).decode
_encode = msgspec.json.Encoder().encode


class EmbeddedLog:
    """`fhir_portal.access.log.AccessLog` in a SQLite file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = connect(path, synchronous="NORMAL")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")  # the syncing thread does it
        create_schema(self._connection, _SCHEMA, 4, path)
        self._streams: dict[tuple[str, str, str], tuple[int, int]] = {}
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
        rows = [row for some, _ in turn for row in some]
        failure: Unavailable | None = None
        try:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                with waiting(self._connection):  # another process is in its commit: microseconds
                    self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(_INSERT, self._numbered(rows))
            except sqlite3.IntegrityError:  # another process took a turn that was remembered here
                self._connection.execute("ROLLBACK")
                self._streams.clear()
                with waiting(self._connection):
                    self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_INSERT, self._numbered(rows))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._streams.clear()
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

    def _numbered(self, rows: Sequence[AccessRow]) -> list[tuple[object, ...]]:
        """Give each row its turn in its stream; the caller holds the transaction."""
        if len(self._streams) > _STREAMS:
            self._streams.clear()
        values: list[tuple[object, ...]] = []
        for row in rows:
            key = (row.practice, row.record, stream_of(row))
            stream, last = self._streams.get(key) or self._stream(row, stream_id(*key))
            self._streams[key] = (stream, last + 1)
            app = app_key(row.client, row.account)
            values.append((stream, last + 1, row.practice, row.at, app, _encode(row)))
        return values

    def _stream(self, row: AccessRow, name: str) -> tuple[int, int]:
        """Return the number of a row's stream, made if it is new, and its last turn."""
        self._connection.execute(
            "INSERT OR IGNORE INTO stream (id, practice, record, agent, told) VALUES (?,?,?,?,?)",
            (name, row.practice, row.record, row.agent, row.told),
        )
        found: tuple[int, int] = self._connection.execute(
            "SELECT s.stream, coalesce(max(a.turn), 0) FROM stream s"
            " LEFT JOIN access a ON a.stream = s.stream WHERE s.id = ?",
            (name,),
        ).fetchone()
        return found

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
        found = self._find(row_id)
        return None if found is None else _logged(found)

    def _find(self, row_id: str) -> Sequence[Any] | None:
        name, _, turn = row_id.rpartition("-")
        if not (turn.isascii() and turn.isdigit() and len(turn) <= _DIGITS) or turn[0] == "0":
            return None
        row: Sequence[Any] | None = self._connection.execute(
            f"SELECT {_LINE} FROM stream s CROSS JOIN access a ON a.stream = s.stream"
            " WHERE s.id = ? AND a.turn = ?",
            (name, int(turn)),
        ).fetchone()
        return row

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
        place = 2**62
        if before is not None:
            last = self._find(before)
            place = last[0] if last is not None else 0
        if record is None:
            rows = self._connection.execute(
                f"SELECT {_LINE} FROM access a INDEXED BY access_at"
                " CROSS JOIN stream s ON s.stream = a.stream"
                " WHERE a.practice = ? AND a.at BETWEEN ? AND ?"
                " AND (a.at, a.place) < (coalesce((SELECT at FROM access WHERE place = ?), ?), ?)"
                " AND (? IS NULL OR s.agent = ?) AND s.told >= ?"
                " ORDER BY a.at DESC, a.place DESC LIMIT ?",
                (practice, low, high, place, 2**62, place, agent, agent, told, limit),
            ).fetchall()
            return [_logged(row) for row in rows]
        found: list[Sequence[Any]] = []
        streams = self._connection.execute(
            "SELECT stream FROM stream WHERE practice = ? AND record = ?"
            " AND (? IS NULL OR agent = ?) AND told >= ?",
            (practice, record, agent, agent, told),
        ).fetchall()
        for (stream,) in streams:  # a stream's turns are the order of its places
            found += self._connection.execute(
                f"SELECT {_LINE} FROM access a INDEXED BY access_turn"
                " CROSS JOIN stream s ON s.stream = a.stream"
                " WHERE a.stream = ? AND a.at BETWEEN ? AND ? AND a.place < ?"
                " ORDER BY a.turn DESC LIMIT ?",
                (stream, low, high, place, limit),
            ).fetchall()
        found.sort(key=lambda row: row[0], reverse=True)
        return [_logged(row) for row in found[:limit]]

    async def of_app(
        self,
        practice: str,
        record: str,
        *,
        agent: str,
        client: str,
        account: str,
        low: int,
        high: int,
        before: str | None,
        limit: int,
    ) -> list[LoggedAccess]:
        place: tuple[int, int] = (2**62, 2**62)
        if before is not None:
            last = self._find(before)
            if last is None:
                return []
            place = (_decode(last[2]).at, last[1])
        rows = self._connection.execute(
            f"SELECT {_LINE} FROM stream s CROSS JOIN access a INDEXED BY access_of_app"
            " ON a.stream = s.stream"
            " WHERE s.id = ? AND a.app = ? AND a.at BETWEEN ? AND ? AND (a.at, a.turn) < (?, ?)"
            " ORDER BY a.at DESC, a.turn DESC LIMIT ?",
            (
                stream_id(practice, record, agent),
                app_key(client, account),
                low,
                high,
                *place,
                limit,
            ),
        ).fetchall()
        return [_logged(row) for row in rows]

    def close(self) -> None:
        """Sync and close."""
        self._stop.set()
        if self._syncing is not None:
            self._syncing.join()
        self._connection.close()


_DIGITS: Final = 15


def _logged(row: Sequence[Any]) -> LoggedAccess:
    _, turn, body, stream = row
    return LoggedAccess(access_id(stream, turn), _decode(body))
