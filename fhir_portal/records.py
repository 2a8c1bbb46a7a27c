"""Records that are not FHIR resources: accounts, clients, tokens, sessions, outbox, jobs.

A record is a frozen ``msgspec.Struct`` with a key that is unique within its kind and a few
indexed text fields. Every store implements the three protocols below; the contract suite
in ``tests/stores`` runs on each of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One stored record.

    ``kind`` names the collection, ``indexed`` the fields `find` may seek by (text or ``None``;
    ``None`` is not indexed). ``expires`` is seconds since 1970 UTC after which the store may
    drop the record; readers must still compare it themselves, dropping is only housekeeping.
    Of a ``is_counted`` kind, which does not expire, the store counts the changes (`ChangeCount`).
    """

    kind: ClassVar[str]
    indexed: ClassVar[tuple[str, ...]] = ()
    is_counted: ClassVar[bool] = False

    key: str
    expires: float | None = None


class ChangeCount(Record, frozen=True, kw_only=True):
    """How often records of a kind, the ``key``, were changed: in the transaction of each change.

    Whoever keeps what was made of all records of a kind reads this in each request and makes it
    anew if it differs. It is for kinds that change rarely: all their changes meet here.
    """

    kind: ClassVar[str] = "change-count"

    count: int


R = TypeVar("R", bound=Record)
T = TypeVar("T")


class DuplicateRecord(Exception):
    """A record of this kind and key exists already."""


class RecordReader(Protocol):
    """Look records up."""

    async def get(self, kind: type[R], key: str) -> R | None:
        """Return the record with this key, or ``None``."""
        ...

    async def find(self, kind: type[R], field: str, value: str, *, limit: int = 1000) -> list[R]:
        """Return the records whose indexed ``field`` equals ``value``, ordered by key."""
        ...

    async def every(self, kind: type[R], *, after: str = "", limit: int = 1000) -> list[R]:
        """Return records of a kind in key order, from after ``after`` on."""
        ...


class RecordTransaction(RecordReader, Protocol):
    """Change records inside one transaction; reads see the transaction's own writes."""

    async def insert(self, record: Record) -> None:
        """Store a new record. Raises `DuplicateRecord` when the key is taken."""
        ...

    async def put(self, record: Record) -> None:
        """Store a record, replacing what has its key."""
        ...

    async def replace(self, old: R, new: R) -> bool:
        """Compare-and-set: store ``new`` if what is stored under its key still equals ``old``."""
        ...

    async def delete(self, kind: type[Record], key: str) -> bool:
        """Remove a record; true if there was one. The one-time things are consumed this way."""
        ...

    async def drop_expired(self, now: float, *, limit: int = 1000) -> int:
        """Housekeeping: remove records whose time has passed; returns how many went."""
        ...


class RecordStore(RecordReader, Protocol):
    """The committed records, and transactions over them."""

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run ``work(transaction)`` all or nothing and return its result once it is durable.

        ``work`` may be run more than once (a store that retries on transient errors), so it
        must not have effects outside the transaction. It must await nothing but the
        transaction. An exception rolls everything back and is passed on.
        """
        ...


async def count_change(transaction: RecordTransaction, kind: type[Record]) -> None:
    """Count a change of a record of a ``is_counted`` kind; the stores do so in every one."""
    if kind.is_counted:
        count = await changes_of(transaction, kind)
        await transaction.put(ChangeCount(key=kind.kind, count=count + 1))


async def changes_of(reader: RecordReader, kind: type[Record]) -> int:
    """Return how often records of a ``is_counted`` kind were changed."""
    found = await reader.get(ChangeCount, kind.kind)
    return found.count if found is not None else 0


DROPPED_AT_ONCE = 500
"""Records that one transaction of `drop_expired` removes: everybody else's writes wait for it."""


async def drop_expired(store: RecordStore, now: float, *, at_most: int = 20_000) -> int:
    """Remove records whose time has passed, in short transactions; returns how many went.

    What is left beyond ``at_most`` waits for the next round.
    """

    async def drop(transaction: RecordTransaction) -> int:
        return await transaction.drop_expired(now, limit=DROPPED_AT_ONCE)

    dropped = 0
    while dropped < at_most:
        went = await store.transact(drop)
        dropped += went
        if went < DROPPED_AT_ONCE:
            break
    return dropped
