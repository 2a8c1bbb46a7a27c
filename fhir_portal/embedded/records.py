"""`fhir_portal.records` on SQLite."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Any, TypeVar

import msgspec

from fhir_portal.records import DuplicateRecord, Record, count_change

R = TypeVar("R", bound=Record)


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


_encode = msgspec.json.Encoder().encode


class Records:
    """Records seen through one connection: the reader's, or the writer's in a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def get(self, kind: type[R], key: str) -> R | None:
        row = self._connection.execute(
            "SELECT body FROM record WHERE kind = ? AND key = ?", (kind.kind, key)
        ).fetchone()
        return None if row is None else _decoder(kind).decode(row[0])

    async def find(self, kind: type[R], field: str, value: str, *, limit: int = 1000) -> list[R]:
        if field not in kind.indexed:
            message = f"{kind.kind}.{field} is not indexed"
            raise ValueError(message)
        rows = self._connection.execute(
            "SELECT r.body FROM record_field f CROSS JOIN record r USING (kind, key)"
            " WHERE f.kind = ? AND f.field = ? AND f.value = ? ORDER BY f.key LIMIT ?",
            (kind.kind, field, value, limit),
        )
        return [_decoder(kind).decode(body) for (body,) in rows]

    async def every(self, kind: type[R], *, after: str = "", limit: int = 1000) -> list[R]:
        rows = self._connection.execute(
            "SELECT body FROM record WHERE kind = ? AND key > ? ORDER BY key LIMIT ?",
            (kind.kind, after, limit),
        )
        return [_decoder(kind).decode(body) for (body,) in rows]


class RecordChanges(Records):
    """Record changes on the writer's connection; the caller holds the transaction."""

    async def insert(self, record: Record) -> None:
        try:
            self._connection.execute(
                "INSERT INTO record (kind, key, expires, body) VALUES (?, ?, ?, ?)", _row(record)
            )
        except sqlite3.IntegrityError:
            raise DuplicateRecord(record.kind) from None
        self._index(record)
        await count_change(self, type(record))

    async def put(self, record: Record) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO record (kind, key, expires, body) VALUES (?, ?, ?, ?)",
            _row(record),
        )
        self._unindex(record, record.key)
        self._index(record)
        await count_change(self, type(record))

    async def replace(self, old: R, new: R) -> bool:
        if (old.kind, old.key) != (new.kind, new.key):
            message = "a record keeps its kind and key"
            raise ValueError(message)
        if await self.get(type(old), old.key) != old:
            return False
        await self.put(new)
        return True

    async def delete(self, kind: type[Record], key: str) -> bool:
        gone = self._connection.execute(
            "DELETE FROM record WHERE kind = ? AND key = ?", (kind.kind, key)
        ).rowcount
        self._unindex(kind, key)
        if gone:
            await count_change(self, kind)
        return gone > 0

    async def drop_expired(self, now: float, *, limit: int = 1000) -> int:
        """Housekeeping: remove records whose time has passed; returns how many went."""
        rows = self._connection.execute(
            "SELECT kind, key FROM record WHERE expires < ? LIMIT ?", (now, limit)
        ).fetchall()
        for kind, key in rows:
            self._connection.execute("DELETE FROM record WHERE kind = ? AND key = ?", (kind, key))
            self._connection.execute(
                "DELETE FROM record_field WHERE kind = ? AND key = ?", (kind, key)
            )
        return len(rows)

    def _index(self, record: Record) -> None:
        rows = [
            (record.kind, field, value, record.key)
            for field in record.indexed
            if (value := getattr(record, field)) is not None
        ]
        if rows:
            self._connection.executemany("INSERT INTO record_field VALUES (?, ?, ?, ?)", rows)

    def _unindex(self, kind: type[Record] | Record, key: str) -> None:
        if kind.indexed:
            self._connection.execute(
                "DELETE FROM record_field WHERE kind = ? AND key = ?", (kind.kind, key)
            )


def _row(record: Record) -> tuple[Any, ...]:
    return record.kind, record.key, record.expires, _encode(record)
