"""The access log on MongoDB.

Rows of one turn of the event loop share an insert, and so does whatever arrives while the insert
before is on its way. An insert is answered when a majority has it in its journal, and only then
do the answers leave whose rows it holds (DESIGN: durability).

A row's ``_id`` holds its turn in its stream, so two processes that give out the same turn meet
there: the one that comes second looks up the last turn and counts on from it.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from fhir_portal.access.log import (
    AccessRow,
    LoggedAccess,
    access_id,
    app_key,
    stream_id,
    stream_of,
)
from fhir_portal.fhir.errors import FhirError, Unavailable
from fhir_portal.mongo.driver import Document, Driver, DriverError
from fhir_portal.mongo.schema import ACCESS

BATCH_ROWS: Final = 1_000
"""Rows of one insert."""
FAULT_SECONDS: Final = 30.0
"""How long a failure keeps a server from being ready.

No longer: a server that is not ready is sent no requests, so nothing would be appended and clear
it. If it still fails then, the next request shows it.
"""
_TRIES: Final = 40
"""How often one insert is sent while other processes take the turns it wanted."""
_LONGEST_PAUSE: Final = 0.05
_STREAMS: Final = 10_000
"""Streams of which the last turn is remembered."""
_ASKED_AT_ONCE: Final = 16
"""Streams whose last turns are looked up at the same time."""
_NEWEST_FIRST: Final = (("a", -1), ("s", -1), ("n", -1))
_NEWEST_OF_ONE_FIRST: Final = (("a", -1), ("n", -1))
_ID: Final = re.compile("[0-9a-f]{40}-[1-9][0-9]{0,14}")
_decode = msgspec.json.Decoder(AccessRow).decode
_encode = msgspec.json.Encoder().encode

_Append = tuple[Sequence[AccessRow], asyncio.Future[None]]


class MongoLog:
    """`fhir_portal.access.log.AccessLog` in the collection ``access``.

    A document's ``_id`` is the id of the line; ``s`` its stream and ``n`` its turn in it; ``p``
    practice, ``r`` record, ``g`` agent, ``d`` told, ``a`` at, ``c`` the key of app and account;
    ``b`` the encoded row; ``w`` what nobody but the batch that wrote it knows.
    """

    def __init__(self, driver: Driver, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._clock = clock
        self._last: dict[str, int] = {}  # the last turns of streams; used last stands last
        self._waiting: deque[_Append] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._failure = ""
        self._failed_at = 0.0

    @property
    def fault(self) -> str:
        """Why the last append failed, not long ago; such a server is not ready."""
        if self._failure and self._clock() - self._failed_at > FAULT_SECONDS:
            return ""
        return self._failure

    async def append(self, rows: Sequence[AccessRow]) -> None:
        if not rows:
            return
        for row in rows:
            _encode(row)  # what cannot be written is refused here, not with everybody else's rows
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._waiting.append((rows, written))
        if self._sending is None:
            self._sending = loop.create_task(self._send_all())
        await written

    async def _send_all(self) -> None:
        """Send batch after batch until nothing waits; there is one such task at most."""
        batch: list[_Append] = []
        try:
            while self._waiting:
                batch = self._next_batch()
                await self._send(batch)
        finally:
            self._sending = None
            stopped = [*batch, *self._waiting]  # answered all, unless this task was cancelled
            self._waiting.clear()
            _answer(stopped, asyncio.CancelledError())

    def _next_batch(self) -> list[_Append]:
        """Take whole appends up to `BATCH_ROWS`, or one that is larger by itself."""
        batch = [self._waiting.popleft()]
        count = len(batch[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= BATCH_ROWS:
            batch.append(self._waiting.popleft())
            count += len(batch[-1][0])
        return batch

    async def _send(self, batch: Sequence[_Append]) -> None:
        rows = [row for some, _ in batch for row in some]
        try:
            for start in range(0, len(rows), BATCH_ROWS):
                await self._store(rows[start : start + BATCH_ROWS])
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            # Only our own words: others' may quote the row.
            reason = str(error) if isinstance(error, FhirError) else type(error).__name__
            self._failure = f"the access log cannot be written: {reason}"
            self._failed_at = self._clock()
            _answer(batch, error)
        else:
            self._failure = ""
            _answer(batch, None)

    async def _store(self, rows: Sequence[AccessRow]) -> None:
        """Store rows, each once, each with a turn of its own."""
        nonce = secrets.token_bytes(12)
        left = [_document(row, nonce) for row in rows]
        last = await self._last_turns({document["s"] for document in left})
        _number(left, last)
        for tried in range(_TRIES):
            taken = await self._insert(left)
            left = [left[position] for position in sorted(taken)]
            if left:
                writers = await self._writers(left)
                # If one is not seen yet, nobody knows whose it is: the same is sent again.
                if len(writers) == len(left):
                    left = [one for one in left if writers[one["_id"]] != nonce]
                    contended = await self._look_up({document["s"] for document in left})
                    for stream, turn in contended.items():
                        last[stream] = max(last[stream], turn)
                    _number(left, last)
            if not left:
                self._remember(last)
                return
            if tried:  # the first time what was remembered was old; from then on it is a race
                longest = min(_LONGEST_PAUSE, 0.001 * 2**tried)
                await asyncio.sleep(random.random() * longest)  # noqa: S311 - no secret
        message = "other processes take every turn of the access log"
        raise Unavailable(message)

    async def _insert(self, documents: Sequence[Document]) -> list[int]:
        """Return the positions of what was not stored, as something has its ``_id``.

        After a cut connection the same is sent once more: what was stored then has its ``_id``
        taken by itself, which its ``w`` shows.
        """
        try:
            return await self._driver.insert_many(ACCESS, documents)
        except (Unavailable, DriverError):
            return await self._driver.insert_many(ACCESS, documents)

    async def _writers(self, documents: Sequence[Document]) -> dict[str, bytes]:
        """Return which batches wrote what has the ``_id`` of these documents."""
        ids = [document["_id"] for document in documents]
        found = await self._find({"_id": {"$in": ids}}, hint="_id_", fields=["w"])
        return {document["_id"]: document["w"] for document in found}

    async def _last_turns(self, streams: Collection[str]) -> dict[str, int]:
        """Return the last turns of streams, as remembered or looked up.

        They are forgotten, until `_store` knows what became of the turns it gave out.
        """
        known = {stream: self._last.pop(stream) for stream in streams if stream in self._last}
        return known | await self._look_up([one for one in streams if one not in known])

    async def _look_up(self, streams: Iterable[str]) -> dict[str, int]:
        asked = list(streams)
        turns: dict[str, int] = {}
        for start in range(0, len(asked), _ASKED_AT_ONCE):
            some = asked[start : start + _ASKED_AT_ONCE]
            found = await asyncio.gather(*map(self._last_turn, some), return_exceptions=True)
            for stream, turn in zip(some, found, strict=True):
                if isinstance(turn, BaseException):
                    raise turn
                turns[stream] = turn
        return turns

    async def _last_turn(self, stream: str) -> int:
        found = await self._find(
            {"s": stream}, sort=[("n", -1)], limit=1, hint="turn", fields=["n"]
        )
        return int(found[0]["n"]) if found else 0

    def _remember(self, turns: Mapping[str, int]) -> None:
        self._last |= turns
        while len(self._last) > _STREAMS:
            del self._last[next(iter(self._last))]

    async def read(self, row_id: str) -> LoggedAccess | None:
        found = await self._line(row_id, "b")
        return None if found is None else _logged(found)

    async def _line(self, row_id: str, *fields: str) -> Document | None:
        if _ID.fullmatch(row_id) is None:
            return None
        found = await self._find({"_id": row_id}, limit=1, hint="_id_", fields=fields)
        return found[0] if found else None

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
        wanted: Document = {"p": practice, "a": {"$gte": low, "$lte": high}}
        if record is not None:
            wanted["r"] = record
        if agent is not None:
            wanted["g"] = agent
        if told:
            wanted["d"] = True
        if record is not None and agent is not None:
            # Says nothing new, but is in the index: other agents' lines need not be fetched.
            streams = (agent,) if told else (agent, f"-{agent}")
            wanted["s"] = {"$in": [stream_id(practice, record, stream) for stream in streams]}
        hint = "of_practice" if record is None else "of_record"
        return await self._newest(wanted, before, limit, hint, sort=_NEWEST_FIRST)

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
        wanted: Document = {
            "s": stream_id(practice, record, agent),
            "c": app_key(client, account),
            "a": {"$gte": low, "$lte": high},
        }
        return await self._newest(wanted, before, limit, "of_app", sort=_NEWEST_OF_ONE_FIRST)

    async def _newest(
        self,
        wanted: Document,
        before: str | None,
        limit: int,
        hint: str,
        *,
        sort: Sequence[tuple[str, int]],
    ) -> list[LoggedAccess]:
        """Find lines, the newest first, from ``before`` on. ``wanted`` bounds ``a``."""
        if before is not None:
            last = await self._line(before, "a", "s", "n")
            if last is None:
                return []
            at, stream, turn = last["a"], last["s"], last["n"]
            wanted["a"]["$lte"] = min(wanted["a"]["$lte"], at)
            wanted["$or"] = [
                {"a": {"$lt": at}},
                {"a": at, "s": {"$lt": stream}},
                {"a": at, "s": stream, "n": {"$lt": turn}},
            ]
        found = await self._find(wanted, sort=sort, limit=limit, hint=hint, fields=["b"])
        return [_logged(document) for document in found]

    async def _find(
        self,
        filter: Document,  # noqa: A002 - MongoDB's word
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        hint: str,
        fields: Sequence[str],
    ) -> list[Document]:
        """Find lines. Raises `Unavailable` for whatever keeps the database from answering."""
        try:
            return await self._driver.find(
                ACCESS, filter, sort=sort, limit=limit, hint=hint, fields=fields
            )
        except DriverError as error:
            message = "the access log does not answer"
            raise Unavailable(message) from error

    async def close(self) -> None:
        """Wait for the rows that are under way."""
        if self._sending is not None:
            await asyncio.wait([self._sending])


def _document(row: AccessRow, nonce: bytes) -> Document:
    """Return the document of a row, still without its turn."""
    return {
        "_id": "",
        "s": stream_id(row.practice, row.record, stream_of(row)),
        "n": 0,
        "p": row.practice,
        "r": row.record,
        "g": row.agent,
        "d": row.told,
        "a": row.at,
        "c": app_key(row.client, row.account),
        "w": nonce,
        "b": _encode(row),
    }


def _number(documents: Iterable[Document], last: dict[str, int]) -> None:
    """Give each document the next turn of its stream; ``last`` moves on."""
    for document in documents:
        stream = document["s"]
        last[stream] += 1
        document["n"] = last[stream]
        document["_id"] = access_id(stream, last[stream])


def _logged(document: Document) -> LoggedAccess:
    return LoggedAccess(document["_id"], _decode(document["b"]))


def _answer(batch: Iterable[_Append], failure: BaseException | None) -> None:
    """Tell those who wait for a batch how it went."""
    for _, written in batch:
        if written.done():
            continue  # its request was cancelled; the row stays
        if failure is None:
            written.set_result(None)
        else:
            refusal = Unavailable("the access could not be recorded, so it was not granted")
            refusal.__cause__ = failure
            written.set_exception(refusal)
