"""What one transaction changes: collected, sent in bulk before the first read that could see it.

A round trip for each single change would make a transaction of twenty resources sixty of them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from fhir_portal.mongo.driver import (
    Change,
    Delete,
    Document,
    Driver,
    DriverError,
    Insert,
    Replace,
    Session,
    Taken,
    Transient,
    Update,
)
from fhir_portal.mongo.reading import Reading
from fhir_portal.mongo.schema import UNDO

Planned = tuple[Change, Callable[[], Exception] | None]
"""A change, and what its transaction ends with if its ``_id`` is taken."""

_NUMBERS: Final = 1_000_000
"""So many numbers `Changes.sequence` has for one transaction."""


class Changes(Reading):
    """Reads that see the transaction's own changes, and the changes.

    ``turn`` is the number of the transaction among all there ever were, ``latest`` the latest
    ``updated`` that was ever stored.
    """

    def __init__(
        self,
        driver: Driver,
        clock: Callable[[], float],
        *,
        turn: int,
        latest: int,
        session: Session | None = None,
    ) -> None:
        super().__init__(driver, clock)
        self.latest = latest
        self.made = False
        """Whether anything was changed."""
        self.broken: Exception | None = None
        """Why the transaction cannot go on, whatever its work made of that.

        A part of what was collected may have been sent when this was raised.
        """
        self._session = session
        self._next = turn * _NUMBERS
        self._pending: defaultdict[str, list[Planned]] = defaultdict(list)
        self._touched: set[tuple[str, str]] = set()
        self._stored: dict[str, dict[str, Document]] = {}
        self._altered: set[str] = set()

    def sequence(self) -> int:
        """Return a number above every one given out before, by anybody."""
        self._next += 1
        return self._next

    def note_instant(self, updated: int) -> None:
        """Say that something was stored with this ``updated`` (milliseconds)."""
        self.latest = max(self.latest, updated)

    def insert(self, collection: str, document: Document, error: Callable[[], Exception]) -> None:
        """Store a new document; if its ``_id`` is taken the transaction ends with ``error()``."""
        self._add(collection, document["_id"], Insert(document), error)

    def replace(self, collection: str, document: Document) -> None:
        """Store a document, replacing what has its ``_id``."""
        self._add(collection, document["_id"], Replace(document))
        self._stored.setdefault(collection, {})[document["_id"]] = document

    def update(self, collection: str, id: str, change: Document) -> None:  # noqa: A002
        """Change the document with this ``_id``, if there is one."""
        self._add(collection, id, Update(id, change))
        self._altered.add(collection)

    def delete(self, collection: str, id: str) -> None:  # noqa: A002
        """Remove the document with this ``_id``, if there is one."""
        self._add(collection, id, Delete(id))
        self._altered.add(collection)

    async def collected(self, collection: str) -> dict[str, Document]:
        """Return by ``_id`` what was stored whole and not sent yet.

        Who takes it into account may read everything else without its being sent. Changes of
        another kind are sent first: what they make of a document is the database's to say.
        """
        if collection in self._altered:
            await self.flush()
        return self._stored.get(collection, {})

    def _add(
        self,
        collection: str,
        own_id: str,
        change: Change,
        error: Callable[[], Exception] | None = None,
    ) -> None:
        self.made = True
        self._touched.add((collection, own_id))
        self._pending[collection].append((change, error))

    async def flush(self) -> None:
        """Send what was collected."""
        pending, self._pending = self._pending, defaultdict(list)
        self._forget()
        try:
            await self._send_all(pending)
        except Exception as error:
            # Not a driver's alone: a document no database holds is refused before it is sent.
            self.broken = self.broken or error
            raise

    async def _send_all(self, pending: Mapping[str, Sequence[Planned]]) -> None:
        for collection, changes in pending.items():
            await self._send(collection, changes)

    def _forget(self) -> None:
        self._touched.clear()
        self._stored.clear()
        self._altered.clear()

    async def _send(self, collection: str, changes: Sequence[Planned]) -> None:
        try:
            await self.driver.write(
                collection, [change for change, _ in changes], session=self._session
            )
        except Taken as taken:
            error = changes[taken.positions[0]][1]
            raise (error() if error is not None else self._failed(taken)) from None
        except DriverError as error:
            raise self._failed(error) from error

    async def _seen(self, collection: str, ids: Collection[str] | None) -> Session | None:
        if self._touched and (
            ids is None or any((collection, own_id) in self._touched for own_id in ids)
        ):
            await self.flush()
        return self._session

    def _failed(self, error: Exception) -> Exception:
        """In a transaction a cut connection and a conflict mean the same: it was undone."""
        if isinstance(error, DriverError):
            undone = Transient()
            undone.__cause__ = error
            error = undone
        self.broken = self.broken or error
        return self.broken


class UndoneChanges(Changes):
    """Changes of a server without transactions: what was there before is written down first.

    ``holder`` names the transaction; its lines in the collection ``undo`` are what `roll_back` goes
    by, whether the same process calls it or the one that finds the turn abandoned.
    """

    def __init__(
        self, driver: Driver, clock: Callable[[], float], *, turn: int, latest: int, holder: str
    ) -> None:
        super().__init__(driver, clock, turn=turn, latest=latest)
        self._holder = holder
        self._undoable: set[tuple[str, str]] = set()
        self._lines = 0

    async def _send_all(self, pending: Mapping[str, Sequence[Planned]]) -> None:
        """Write down what is there, then change it."""
        lines: list[Change] = []
        for collection, changes in pending.items():
            lines += await self._before(collection, changes)
        if lines:
            await self._command(UNDO, lines)
        for collection, changes in pending.items():
            # Written down and held by one, so that each may be repeated after a cut connection.
            await self._command(
                collection,
                [Replace(one.document) if isinstance(one, Insert) else one for one, _ in changes],
            )

    async def _before(self, collection: str, changes: Sequence[Planned]) -> list[Change]:
        ids = list(dict.fromkeys(_id(change) for change, _ in changes))
        found: dict[str, Document] = {}
        for start in range(0, len(ids), 200):
            some = ids[start : start + 200]
            try:
                documents = await self.driver.find(collection, {"_id": {"$in": some}}, hint="_id_")
            except DriverError as error:
                raise self._failed(error) from error
            found |= {document["_id"]: document for document in documents}
        there = set(found)
        for change, taken in changes:
            if isinstance(change, Insert) and change.document["_id"] in there:
                raise taken() if taken is not None else Transient()
            if isinstance(change, Delete):
                there.discard(change.id)
            elif not isinstance(change, Update):
                there.add(change.document["_id"])
        lines: list[Change] = []
        for own_id in ids:
            if (collection, own_id) not in self._undoable:
                self._undoable.add((collection, own_id))
                self._lines += 1
                lines.append(
                    Replace(
                        {
                            "_id": f"{self._holder}/{self._lines:08d}",
                            "h": self._holder,
                            "c": collection,
                            "k": own_id,
                            "b": found.get(own_id),
                        }
                    )
                )
        return lines

    async def _command(self, collection: str, changes: Sequence[Change]) -> None:
        writing = asyncio.ensure_future(self._write_twice(collection, changes))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # What is on its way must have arrived before anything is put back.
            await asyncio.wait([writing])
            raise
        except DriverError as error:
            raise self._failed(error) from error

    async def _write_twice(self, collection: str, changes: Sequence[Change]) -> None:
        try:
            await self.driver.write(collection, changes)
        except DriverError:
            await self.driver.write(collection, changes)


async def roll_back(driver: Driver, holder: str) -> None:
    """Put back what was there before a transaction; doing it twice does no harm."""
    lines = await driver.find(UNDO, {"h": holder}, hint="holder")
    by_collection: defaultdict[str, list[Change]] = defaultdict(list)
    for line in lines:
        before: Document | None = line["b"]
        by_collection[line["c"]].append(Delete(line["k"]) if before is None else Replace(before))
    for collection, changes in by_collection.items():
        await driver.write(collection, changes)


def _id(change: Change) -> str:
    if isinstance(change, Insert | Replace):
        own_id: str = change.document["_id"]
        return own_id
    return change.id
