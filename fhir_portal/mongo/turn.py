"""One transaction at a time, over all processes of a deployment: each has its turn.

The turn is one document. Snapshot isolation alone would let two transactions each read what the
other is about to change (a token issued while its grant is revoked, a Binary written while its
document changes hands); in turn they cannot. So commits are in one order, ``updated`` never goes
back, and the number of turns tells whether anything was committed (ADR 0012).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

from fhir_portal.fhir.errors import Unavailable
from fhir_portal.mongo.changes import Changes, UndoneChanges, roll_back
from fhir_portal.mongo.driver import (
    Document,
    Driver,
    DriverError,
    Insert,
    Replace,
    Taken,
    Transient,
    UnknownOutcome,
)
from fhir_portal.mongo.schema import TURN, UNDO

T = TypeVar("T")

WAIT_SECONDS: Final = 30.0
"""How long a transaction waits for its turn, and is repeated, before it is given up."""
LIVES_SECONDS: Final = 20.0
"""How long the work of a transaction may take; MongoDB itself ends one after a minute."""
ABANDONED_SECONDS: Final = 60.0
"""Without transactions: a turn held unchanged for this long was abandoned.

More than one lives, and its last command may be on its way.
"""
_PAUSE_SECONDS: Final = 0.002
_LONGEST_PAUSE_SECONDS: Final = 0.05
_REMEMBERED: Final = 256
"""Names of transactions the turn remembers, for those who must ask what became of theirs."""
_GREEDY_SECONDS: Final = 0.2
"""After turns of so long together a process looks whether another one waits, and lets it go first.

Who loses a turn tries again some milliseconds later; who had it would take it again at once.
"""
_YIELD_SECONDS: Final = 0.2
_SPEAKS_AGAIN_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 10.0
"""How long a server that stops waits for the transaction under way."""

_NOTHING_CHANGED: Final = "the database could not write; nothing was changed; try again later"
_BUSY: Final = "there is too much to write; nothing was changed; try again later"
_NOT_KNOWN: Final = (
    "the database did not say whether this was stored; look before you send it again"
)


class Turns(Protocol):
    """Runs transactions one after another."""

    async def transact(self, work: Callable[[Changes], Awaitable[T]]) -> T:
        """Run ``work`` all or nothing; see `fhir_portal.records.RecordStore.transact`.

        Raises:
            Unavailable: the database does not answer, or there was no turn to be had.
        """
        ...

    async def epoch(self) -> object:
        """Return a value that differs whenever anything was committed by anybody."""
        ...

    async def settle(self) -> None:
        """Wait for the transaction under way."""
        ...


async def prepare(driver: Driver) -> None:
    """Make the turn's document, if there is none."""
    with contextlib.suppress(Taken):
        found = await driver.find(TURN, {"_id": "turn"}, limit=1)
        if not found:
            turn = {"_id": "turn", "count": 0, "instant": 0, "holder": None, "recent": []}
            await driver.write(TURN, [Insert(turn)])


class _Waiting:
    """The pauses of one that tries again; if they grow long the others are told that it waits."""

    def __init__(self, driver: Driver, process: str) -> None:
        self._driver = driver
        self._process = process
        self._pause = _PAUSE_SECONDS
        self._speaks = time.monotonic() + _GREEDY_SECONDS / 2

    async def pause(self) -> None:
        if time.monotonic() > self._speaks:
            self._speaks = time.monotonic() + _SPEAKS_AGAIN_SECONDS
            with contextlib.suppress(Unavailable, DriverError):
                await self._driver.write(TURN, [Replace({"_id": "waiting", "who": self._process})])
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)


class _Turns(ABC):
    """What both kinds share: the queue of this process, the epoch, and the question of outcome."""

    def __init__(self, driver: Driver, clock: Callable[[], float]) -> None:
        self.driver = driver
        self.clock = clock
        self._queue = asyncio.Lock()  # first come, first served
        self._process = secrets.token_hex(8)
        self._held = 0.0

    async def epoch(self) -> object:
        try:
            found = await self.driver.find(TURN, {"_id": "turn"}, limit=1, fields=["count", "last"])
        except DriverError as error:
            raise Unavailable("the database does not answer; try again later") from error
        # The name as well: a database put back from a backup counts the same turns again.
        return (found[0]["count"], found[0].get("last")) if found else None

    async def settle(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS), self._queue:
                pass

    async def transact(self, work: Callable[[Changes], Awaitable[T]]) -> T:
        # A turn once begun is brought to its end even if who asked goes away.
        turn = asyncio.ensure_future(self._in_turn(work))
        turn.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(turn)

    async def _in_turn(self, work: Callable[[Changes], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._queue.acquire()
        except TimeoutError:
            raise Unavailable(_BUSY) from None
        try:
            return await self._tried(work)
        finally:
            try:
                await self._let_others_go_first()
            finally:
                self._queue.release()

    async def _tried(self, work: Callable[[Changes], Awaitable[T]]) -> T:
        deadline = time.monotonic() + WAIT_SECONDS
        waiting = _Waiting(self.driver, self._process)
        while True:
            began = time.monotonic()
            try:
                result = await self._attempt(work)
            except DriverError as error:
                if time.monotonic() > deadline:
                    lost = isinstance(error, Transient)
                    raise Unavailable(_BUSY if lost else _NOTHING_CHANGED) from error
            else:
                self._held += time.monotonic() - began
                return result
            await waiting.pause()

    async def _let_others_go_first(self) -> None:
        """Pause if another process waits and this one has had the turn for some time."""
        if self._held < _GREEDY_SECONDS:
            return
        self._held = 0.0
        with contextlib.suppress(Unavailable, DriverError):
            found = await self.driver.find(TURN, {"_id": "waiting"}, limit=1)
            if found and found[0]["who"] not in {None, self._process}:
                await self.driver.write(TURN, [Replace({"_id": "waiting", "who": None})])
                await asyncio.sleep(_YIELD_SECONDS)

    @abstractmethod
    async def _attempt(self, work: Callable[[Changes], Awaitable[T]]) -> T:
        """Run a transaction once; `_tried` does so again after a `DriverError`."""

    async def _work(self, work: Callable[[Changes], Awaitable[T]], changes: Changes) -> T:
        """Run the work and send what it changed; a transaction that was undone does not go on."""
        try:
            async with asyncio.timeout(LIVES_SECONDS):
                result = await work(changes)
                await changes.flush()
        except TimeoutError:
            raise Unavailable("this took too long; nothing was changed") from None
        finally:
            if changes.broken is not None:
                # Whatever the work made of it: what it saw and did is not there any more.
                raise changes.broken
        return result

    async def _became_of(self, name: str, count: int) -> bool:
        """Return whether the transaction of this name, whose turn was the ``count``-th, committed.

        Raises:
            Unavailable: that cannot be found out.
        """
        try:
            found = await self.driver.find(TURN, {"_id": "turn"}, limit=1)
        except (Unavailable, DriverError) as error:
            raise Unavailable(_NOT_KNOWN) from error
        if found and name in found[0]["recent"]:
            return True
        if not found or found[0]["count"] - count >= _REMEMBERED:
            raise Unavailable(_NOT_KNOWN)  # so many have followed that it may be forgotten
        return False


class TransactionTurns(_Turns):
    """Turns as transactions of MongoDB, whose first change is of the turn itself.

    Who comes second gets a write conflict at once, and tries again.
    """

    async def _attempt(self, work: Callable[[Changes], Awaitable[T]]) -> T:
        name = secrets.token_hex(12)
        session = await self.driver.begin()
        try:
            turn = await self._take(name, session)
            changes = Changes(
                self.driver,
                self.clock,
                turn=turn["count"],
                latest=turn["instant"],
                session=session,
            )
            result = await self._work(work, changes)
            if not changes.made:
                return result  # nothing to commit
            if changes.latest > turn["instant"]:
                await self._note(changes.latest, session)
            await self._commit(name, turn["count"], session)
            return result
        finally:
            await self.driver.abandon(session)

    async def _take(self, name: str, session: Any) -> Document:
        change: Document = {
            "$inc": {"count": 1},
            "$set": {"last": name},
            "$push": {"recent": {"$each": [name], "$slice": -_REMEMBERED}},
        }
        turn = await self.driver.find_and_update(TURN, {"_id": "turn"}, change, session=session)
        if turn is None:
            raise Unavailable("the database was emptied while the server ran; start it again")
        return turn

    async def _note(self, latest: int, session: Any) -> None:
        await self.driver.find_and_update(
            TURN, {"_id": "turn"}, {"$set": {"instant": latest}}, session=session
        )

    async def _commit(self, name: str, count: int, session: Any) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                await self.driver.commit(session)
            except UnknownOutcome as error:
                if time.monotonic() > deadline:
                    if await self._became_of(name, count):
                        return
                    raise Unavailable(_NOT_KNOWN) from error
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
            except (Unavailable, DriverError):
                # An earlier try may have reached the server and its answer got lost.
                if await self._became_of(name, count):
                    return
                raise
            else:
                return


class LeaseTurns(_Turns):
    """Turns on a server without transactions.

    The turn's document says who holds it. What was there before each change is written down first,
    so that a transaction that fails, or whose process dies, is rolled back. Taking the turn and
    giving it back are one update each, and the second is the commit. Readers may see what is not
    committed yet.
    """

    def __init__(
        self,
        driver: Driver,
        clock: Callable[[], float],
        *,
        abandoned_after: float = ABANDONED_SECONDS,
    ) -> None:
        super().__init__(driver, clock)
        self.abandoned_after = abandoned_after
        self.unswept = True
        self._seen: tuple[str, int] | None = None
        self._since = 0.0

    async def recover(self) -> None:
        """Roll back what a process that died left behind; waits until it is known to have died."""

        async def nothing(changes: Changes) -> None:
            del changes

        await self.transact(nothing)

    async def _attempt(self, work: Callable[[Changes], Awaitable[T]]) -> T:
        name = secrets.token_hex(12)
        turn = await self._take(name)
        if self.unswept:
            # Whoever holds the turn may: lines of others are of transactions that are over.
            with contextlib.suppress(Unavailable, DriverError):
                await self.driver.delete_many(UNDO, {"h": {"$ne": name}})
                self.unswept = False
        changes = UndoneChanges(
            self.driver, self.clock, turn=turn["count"], latest=turn["instant"], holder=name
        )
        try:
            result = await self._work(work, changes)
        except BaseException:
            await self._undo(name)
            raise
        await self._give_back(name, turn["count"], changes)
        return result

    async def _take(self, name: str) -> Document:
        deadline = time.monotonic() + WAIT_SECONDS + self.abandoned_after
        waiting = _Waiting(self.driver, self._process)
        while True:
            try:
                turn = await self._try_to_take(name)
                if turn is not None:
                    await self._settle_debts(name, turn)
            except DriverError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(_NOTHING_CHANGED) from error
                turn = None
            if turn is not None:
                return turn
            if time.monotonic() > deadline:
                raise Unavailable(_BUSY)
            await waiting.pause()

    async def _try_to_take(self, name: str) -> Document | None:
        take: Document = {"$set": {"holder": name}, "$inc": {"count": 1}}
        free = await self.driver.find_and_update(TURN, {"_id": "turn", "holder": None}, take)
        if free is not None:
            self._seen = None
            return free
        found = await self.driver.find(TURN, {"_id": "turn"}, limit=1)
        if not found:
            raise Unavailable("the database was emptied while the server ran; start it again")
        turn = found[0]
        if turn["holder"] == name:
            return turn  # the answer to an earlier try got lost
        if turn["holder"] is None:
            return None
        if self._seen != (turn["holder"], turn["count"]):
            # By this process's own clock alone: nobody's time of day matters.
            self._seen, self._since = (turn["holder"], turn["count"]), time.monotonic()
            return None
        if time.monotonic() - self._since < self.abandoned_after:
            return None
        self._seen = None
        return await self.driver.find_and_update(
            TURN,
            {"_id": "turn", "holder": turn["holder"], "count": turn["count"]},
            {**take, "$push": {"owed": turn["holder"]}},
        )

    async def _settle_debts(self, name: str, turn: Document) -> None:
        """Roll back, newest first, those whose turn was taken away before they could.

        They stand in the turn until that is done, for this process may die of it as well.
        """
        for abandoned in reversed(turn.get("owed", [])):
            await roll_back(self.driver, abandoned)
        if turn.get("owed"):
            await self.driver.find_and_update(
                TURN, {"_id": "turn", "holder": name}, {"$set": {"owed": []}}
            )

    async def _undo(self, name: str) -> None:
        """Roll back and give the turn back; if that fails the next one to take it does it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                mine = await self.driver.find_and_update(
                    TURN,
                    {"_id": "turn", "holder": name},
                    {"$inc": {"count": 1}},  # so that nobody takes it for abandoned meanwhile
                )
                if mine is None:
                    return  # given back, or somebody else has rolled it back and gone on
                await roll_back(self.driver, name)
                await self.driver.find_and_update(
                    TURN,
                    {"_id": "turn", "holder": name},
                    # Readers may have seen, and remembered, what was just undone.
                    {"$set": {"holder": None, "last": name}, "$inc": {"count": 1}},
                )
            except (Unavailable, DriverError):
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
            else:
                await self._sweep(name)
                return

    async def _give_back(self, name: str, count: int, changes: Changes) -> None:
        commit: Document = {
            "$set": {"holder": None, "instant": changes.latest, "last": name},
            "$inc": {"count": 1},
            "$push": {"recent": {"$each": [name], "$slice": -_REMEMBERED}},
        }
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                done = await self.driver.find_and_update(
                    TURN, {"_id": "turn", "holder": name}, commit
                )
            except (Unavailable, DriverError) as error:
                if time.monotonic() > deadline:
                    raise Unavailable(_NOT_KNOWN) from error
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
                continue
            if done is None and not await self._became_of(name, count):
                # It took so long that somebody rolled it back.
                raise Unavailable(_NOTHING_CHANGED)
            break
        if changes.made:
            await self._sweep(name)

    async def _sweep(self, name: str) -> None:
        """Remove the lines of a transaction that is over; they are in nobody's way."""
        self.unswept = True
        with contextlib.suppress(Unavailable, DriverError):
            await self.driver.delete_many(UNDO, {"h": name})
            self.unswept = False
