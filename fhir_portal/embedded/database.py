"""SQLite connections, the schema, and the group commit that every write rides in.

Reads run on the event loop on one connection; a read that passes its step budget is run
again on a second connection in a thread. Writes run one after the other on a third
connection: all that wait when the writer is free share one transaction and one sync
(``synchronous=FULL``: the answer leaves after the write-ahead log is on the disk).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from fhir_portal.fhir.errors import InvalidSearch, Unavailable

T = TypeVar("T")
R = TypeVar("R")

SCHEMA_VERSION: Final = 1
STEP: Final = 2_000
"""SQLite virtual machine steps between two looks at the budget of a read."""
READ_STEPS: Final = 60_000
"""Steps a read may take on the event loop (about 1 to 2 ms)."""
LONG_READ_STEPS: Final = 400_000_000
"""Steps after which even a read in a thread is given up."""
WRITE_WAIT_SECONDS: Final = 10.0
BATCH: Final = 32
"""Transactions that share one commit at most; bounds how long the loop stays in the writer."""

_SCHEMA = """
CREATE TABLE record (
  kind TEXT NOT NULL, key TEXT NOT NULL, expires REAL, body BLOB NOT NULL,
  PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
CREATE TABLE record_field (
  kind TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL,
  PRIMARY KEY (kind, field, value, key)) WITHOUT ROWID;
CREATE INDEX record_field_key ON record_field (kind, key);

CREATE TABLE class (
  class INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE slot (
  slot INTEGER PRIMARY KEY, practice TEXT NOT NULL, type TEXT NOT NULL, parameter TEXT NOT NULL,
  UNIQUE (practice, type, parameter));

CREATE TABLE resource (
  rid INTEGER PRIMARY KEY, type TEXT NOT NULL, id TEXT NOT NULL, practice TEXT NOT NULL,
  owners TEXT NOT NULL, class INTEGER NOT NULL, directory INTEGER NOT NULL,
  version INTEGER NOT NULL, updated INTEGER NOT NULL, deleted INTEGER NOT NULL,
  index_version INTEGER NOT NULL, vid INTEGER NOT NULL);
CREATE UNIQUE INDEX resource_key ON resource (type, id, practice);
CREATE INDEX resource_of_practice ON resource (type, practice, rid) WHERE deleted = 0;
-- with all that tells whether a row of a record is shown: what is not, is not looked at
CREATE INDEX resource_of_record ON resource (type, owners, practice, rid, class, deleted)
  WHERE deleted = 0;
CREATE INDEX resource_updated ON resource (type, practice, updated) WHERE deleted = 0;
CREATE INDEX resource_stale ON resource (index_version);

CREATE TABLE version (
  vid INTEGER PRIMARY KEY, rid INTEGER NOT NULL, version INTEGER NOT NULL,
  type TEXT NOT NULL, id TEXT NOT NULL, practice TEXT NOT NULL, owners TEXT NOT NULL,
  class INTEGER NOT NULL, directory INTEGER NOT NULL, updated INTEGER NOT NULL,
  deleted INTEGER NOT NULL, method TEXT NOT NULL, body BLOB NOT NULL,
  UNIQUE (rid, version));
CREATE INDEX version_feed ON version (practice, updated, vid);
CREATE INDEX version_of_record ON version (practice, owners, updated, vid);

CREATE TABLE term (
  slot INTEGER NOT NULL, value TEXT NOT NULL, rid INTEGER NOT NULL, system TEXT NOT NULL,
  PRIMARY KEY (slot, value, rid, system)) WITHOUT ROWID;
CREATE INDEX term_rid ON term (rid, slot);
CREATE TABLE string (
  slot INTEGER NOT NULL, value TEXT NOT NULL, rid INTEGER NOT NULL, exact TEXT NOT NULL,
  PRIMARY KEY (slot, value, rid, exact)) WITHOUT ROWID;
CREATE INDEX string_rid ON string (rid, slot);
CREATE TABLE span (
  slot INTEGER NOT NULL, low NOT NULL, high NOT NULL, rid INTEGER NOT NULL,
  system TEXT NOT NULL, code TEXT NOT NULL,
  PRIMARY KEY (slot, low, high, rid, system, code)) WITHOUT ROWID;
CREATE INDEX span_high ON span (slot, high, rid);
CREATE INDEX span_rid ON span (rid, slot);
CREATE TABLE edge (
  practice TEXT NOT NULL, target TEXT NOT NULL, owners TEXT NOT NULL, source INTEGER NOT NULL,
  PRIMARY KEY (practice, target, owners, source)) WITHOUT ROWID;
CREATE INDEX edge_source ON edge (source);
"""


def connect(path: str, *, synchronous: str) -> sqlite3.Connection:
    """Open one connection in autocommit mode with the settings durability needs."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=0
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -16384")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def create_schema(connection: sqlite3.Connection, script: str, version: int, path: str) -> None:
    """Create the tables once; two processes that start together end with one schema."""
    with waiting(connection):
        connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for statement in script.split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
        elif found != version:
            message = f"{path} has layout {found}; this version reads layout {version}"
            raise Unavailable(message)  # noqa: TRY301 - undone below like any other failure
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def waiting(connection: sqlite3.Connection) -> Any:
    """Let statements inside wait for another process's write lock."""
    connection.execute(f"PRAGMA busy_timeout = {int(WRITE_WAIT_SECONDS * 1000)}")
    try:
        yield
    finally:
        connection.execute("PRAGMA busy_timeout = 0")


_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]
"""Who waits for a piece of work, what it returned, and what it raised."""


def _unavailable(error: BaseException) -> BaseException:
    """Return what a writer is told: a fault of SQLite's is the store's, not the request's."""
    if not isinstance(error, sqlite3.Error):
        return error
    unavailable = Unavailable("the store could not write; nothing was changed")
    unavailable.__cause__ = error
    return unavailable


def _refused(error: sqlite3.OperationalError) -> Exception:
    """Return what a caller is told of a statement that SQLite will not run."""
    if "too large" in str(error) or "too many" in str(error):
        return InvalidSearch("this search has too many values or parameters; split it")
    return error


def _require_interrupted(error: sqlite3.OperationalError) -> None:
    """Raise what a caller is told, unless the statement only took too long."""
    if "interrupted" not in str(error):
        raise _refused(error) from None


class _Budget:
    """Interrupts a statement inside ``with`` once it has taken its steps.

    SQLite counts steps over all runs of a prepared statement, so the look comes at a multiple of
    `STEP` of those; what is left is counted here, afresh for each statement.
    """

    def __init__(self, connection: sqlite3.Connection, steps: int) -> None:
        self._looks = steps // STEP
        self._left: int | None = None
        connection.set_progress_handler(self._look, STEP)

    def _look(self) -> int:
        if self._left is None:
            return 0
        self._left -= 1
        return self._left < 0

    def __enter__(self) -> None:
        self._left = self._looks

    def __exit__(self, *_: object) -> None:
        self._left = None


class Database:
    """The connections of one store and its writer queue."""

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self.path = path
        self.clock = clock
        self.in_memory = path == ":memory:"
        if not self.in_memory:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.writer = connect(path, synchronous="FULL")
        create_schema(self.writer, _SCHEMA, SCHEMA_VERSION, path)
        self._assert_durable()
        if self.in_memory:
            self.reader = self.long_reader = self.writer
        else:
            self.reader = connect(path, synchronous="FULL")
            self.reader.execute("PRAGMA query_only = ON")
            self.long_reader = connect(path, synchronous="FULL")
            self.long_reader.execute("PRAGMA query_only = ON")
        self._budget = _Budget(self.reader, READ_STEPS)
        self._long_budget = _Budget(self.long_reader, LONG_READ_STEPS)
        self._commits = 0
        self._seen: int | None = None
        self._undone: list[Callable[[], None]] = []
        self._queue: deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="embedded-write")
        self._read_thread = ThreadPoolExecutor(1, thread_name_prefix="embedded-read")
        self._version = self.reader.execute  # bound once: this runs on every request

    def _assert_durable(self) -> None:
        """Refuse to start where a commit would not survive power loss."""
        mode = self.writer.execute("PRAGMA journal_mode").fetchone()[0]
        level = self.writer.execute("PRAGMA synchronous").fetchone()[0]
        if level < 2 or (mode != "wal" and not self.in_memory):  # noqa: PLR2004 - 2 is FULL
            message = f"{self.path}: commits would not be durable ({mode=}, synchronous={level})"
            raise Unavailable(message)

    def on_undo(self, call: Callable[[], None]) -> None:
        """Have ``call`` run whenever a transaction or a savepoint of the writer is undone."""
        self._undone.append(call)

    def _undo(self, statement: str) -> None:
        """Undo by a statement, or by none where SQLite has done it; then have it forgotten."""
        try:
            if statement:
                self.writer.execute(statement)
        finally:
            for call in self._undone:
                call()

    def epoch(self) -> tuple[int, int]:
        """Return a value that differs whenever anything was committed by anybody."""
        seen = self._seen
        if seen is None:
            seen = self._version("PRAGMA data_version").fetchone()[0]
            try:
                # Requests that are already being worked on in this turn of the loop may share it:
                # what was acknowledged elsewhere before they were sent was seen by this look too.
                asyncio.get_running_loop().call_soon(self._forget_seen)
                self._seen = seen
            except RuntimeError:
                return seen, self._commits  # no loop, no turns
        return seen, self._commits

    def _forget_seen(self) -> None:
        self._seen = None

    async def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one read; a long one is moved off the event loop."""
        try:
            with self._budget:
                return self.reader.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            _require_interrupted(error)
        return await self._off_the_loop(self._read_long, sql, parameters)

    def _read_long(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        with self._long_budget:
            return self.long_reader.execute(sql, parameters).fetchall()

    async def select_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Any]]:
        """Run several reads as of one moment; if one is long, all are moved off the event loop."""
        try:
            return self._together(self.reader, self._budget, statements)
        except sqlite3.OperationalError as error:
            _require_interrupted(error)
        long = (self.long_reader, self._long_budget, statements)
        return await self._off_the_loop(self._together, *long)

    def _together(
        self,
        connection: sqlite3.Connection,
        budget: _Budget,
        statements: Sequence[tuple[str, Sequence[Any]]],
    ) -> list[list[Any]]:
        if not self.in_memory:  # there it is the writer's, which may be in a transaction
            connection.execute("BEGIN")
        try:
            found = []
            for sql, parameters in statements:
                with budget:
                    found.append(connection.execute(sql, parameters).fetchall())
            return found
        finally:
            # A read error makes SQLite end it by itself.
            if not self.in_memory and connection.in_transaction:
                connection.execute("COMMIT")

    async def _off_the_loop(self, read: Callable[..., R], *what: Any) -> R:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._read_thread, read, *what)
        except sqlite3.OperationalError as error:
            _require_interrupted(error)
            message = "this request reads too much; narrow it"
            raise Unavailable(message) from None

    async def write(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work`` in its own savepoint of the next commit; return once that is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append((work, future))
        if self._draining is None or self._draining.done():
            self._draining = loop.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._queue:
            batch: list[_Outcome] = []
            try:
                await self._begin()
                while self._queue and len(batch) < BATCH:
                    work, future = self._queue.popleft()
                    batch.append((future, None, None))  # there already if what follows breaks
                    batch[-1] = (future, *await self._savepoint(work))
                await self._commit()
            except BaseException as error:
                self._fail(batch, error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            for future, result, failure in batch:
                if future.done():
                    continue
                if failure is not None:
                    future.set_exception(failure)
                else:
                    future.set_result(result)

    async def _begin(self) -> None:
        try:
            self.writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            await self._in_write_thread(self._begin_waiting)

    def _begin_waiting(self) -> None:
        with waiting(self.writer):
            self.writer.execute("BEGIN IMMEDIATE")

    async def _savepoint(self, work: Callable[[], Awaitable[T]]) -> tuple[T | None, Any]:
        self.writer.execute("SAVEPOINT work")
        try:
            result = await work()
        except BaseException as error:
            if not self.writer.in_transaction:
                # A full disk, for one, makes SQLite undo the whole transaction by itself.
                raise
            self._undo("ROLLBACK TO work")
            self.writer.execute("RELEASE work")
            return None, _unavailable(error)
        self.writer.execute("RELEASE work")
        return result, None

    async def _commit(self) -> None:
        if self.in_memory:
            self.writer.execute("COMMIT")
        else:
            committing = asyncio.ensure_future(
                self._in_write_thread(lambda: self.writer.execute("COMMIT"))
            )
            try:
                await asyncio.shield(committing)
            except asyncio.CancelledError:
                await committing  # the connection is the thread's until it is done
                raise
        self._commits += 1

    def _fail(self, batch: list[_Outcome], error: BaseException) -> None:
        # Whatever comes of undoing it, those who wait must hear.
        with contextlib.suppress(sqlite3.Error):
            self._undo("ROLLBACK" if self.writer.in_transaction else "")
        waiting_futures = [future for future, _, _ in batch]
        if not batch:  # the transaction never began: nobody in the queue can be served
            waiting_futures = [future for _, future in self._queue]
            self._queue.clear()
        for future in waiting_futures:
            if not future.done():
                future.set_exception(_unavailable(error))

    async def _in_write_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._write_thread, call)

    async def settle(self) -> None:
        """Wait for the writes that are under way."""
        if self._draining is not None and not self._draining.done():
            await asyncio.wait([self._draining])

    def close(self) -> None:
        """Close every connection; call it when no request is under way."""
        self._write_thread.shutdown()
        self._read_thread.shutdown()
        for connection in {id(c): c for c in (self.reader, self.long_reader, self.writer)}.values():
            connection.close()
