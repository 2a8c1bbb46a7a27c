"""`fhir_portal.records` on MongoDB.

A document is ``_id`` ("kind/key"), ``b`` the record as JSON, ``f`` ["kind/field/value"] what it is
found by, ``x`` when it expires (seconds), and ``dropped`` the same as a date for the database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from fhir_portal.fhir.errors import TooLarge
from fhir_portal.mongo.changes import Changes
from fhir_portal.mongo.driver import Document
from fhir_portal.mongo.reading import Reading
from fhir_portal.mongo.schema import RECORD
from fhir_portal.records import DuplicateRecord, Record, count_change

R = TypeVar("R", bound=Record)

_AFTER_KEYS: Final = "0"
"""The character behind the slash: every key of a kind is below ``kind`` and this."""
_LAST_DATE: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_LARGEST: Final = 15 * 2**20
"""Bytes of a record; a document of MongoDB's holds sixteen million and some."""
_encode = msgspec.json.Encoder().encode


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)


class Records:
    """Records as a `Reading` shows them."""

    def __init__(self, reading: Reading) -> None:
        self._records = reading

    async def get(self, kind: type[R], key: str) -> R | None:
        own_id = _id(kind, key)
        found = await self._records.find(
            RECORD, {"_id": own_id}, limit=1, hint="_id_", fields=["b"], ids=[own_id]
        )
        return _decoder(kind).decode(found[0]["b"]) if found else None

    async def find(self, kind: type[R], field: str, value: str, *, limit: int = 1000) -> list[R]:
        if field not in kind.indexed:
            message = f"{kind.kind}.{field} is not indexed"
            raise ValueError(message)
        if limit <= 0:
            return []
        found = await self._records.find(
            RECORD,
            {"f": f"{kind.kind}/{field}/{value}"},
            sort=[("_id", 1)],
            limit=limit,
            hint="field",
            fields=["b"],
        )
        return [_decoder(kind).decode(document["b"]) for document in found]

    async def every(self, kind: type[R], *, after: str = "", limit: int = 1000) -> list[R]:
        if limit <= 0:
            return []
        found = await self._records.find(
            RECORD,
            {"_id": {"$gt": _id(kind, after), "$lt": f"{kind.kind}{_AFTER_KEYS}"}},
            sort=[("_id", 1)],
            limit=limit,
            hint="_id_",
            fields=["b"],
        )
        return [_decoder(kind).decode(document["b"]) for document in found]


class RecordChanges(Records):
    """Record changes of one transaction."""

    def __init__(self, changes: Changes) -> None:
        super().__init__(changes)
        self._record_changes = changes

    async def insert(self, record: Record) -> None:
        # Looked up first: a transaction goes on after this error, which the database's own ends.
        if await self.get(type(record), record.key) is not None:
            raise DuplicateRecord(record.kind)
        self._record_changes.insert(RECORD, _document(record), lambda: DuplicateRecord(record.kind))
        await count_change(self, type(record))

    async def put(self, record: Record) -> None:
        self._record_changes.replace(RECORD, _document(record))
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
        if await self.get(kind, key) is None:
            return False
        self._record_changes.delete(RECORD, _id(kind, key))
        await count_change(self, kind)
        return True

    async def drop_expired(self, now: float, *, limit: int = 1000) -> int:
        """Housekeeping: remove records whose time has passed; returns how many went."""
        found = await self._records.find(
            RECORD, {"x": {"$gte": 0.0, "$lt": now}}, limit=limit, hint="expires", fields=[]
        )
        for document in found:
            self._record_changes.delete(RECORD, document["_id"])
        return len(found)


def _id(kind: type[Record], key: str) -> str:
    return f"{kind.kind}/{key}"


def _document(record: Record) -> Document:
    document: dict[str, Any] = {"_id": _id(type(record), record.key), "b": _encode(record)}
    found_by = [
        f"{record.kind}/{field}/{value}"
        for field in record.indexed
        if (value := getattr(record, field)) is not None
    ]
    if len(document["b"]) + sum(map(len, found_by)) > _LARGEST:
        message = "this is too large to be stored"
        raise TooLarge(message)
    if found_by:
        document["f"] = found_by
    if record.expires is not None:
        document["x"] = float(record.expires)
        if record.expires < _LAST_DATE:
            document["dropped"] = datetime.fromtimestamp(record.expires, UTC)
    return document
