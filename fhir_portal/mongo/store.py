"""The MongoDB store: records, resources and the access log behind their protocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self, TypeVar

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.mongo import schema
from fhir_portal.mongo.changes import Changes
from fhir_portal.mongo.driver import (
    Driver,
    DriverError,
    DriverName,
    NoTransactions,
    Replace,
    ServerFacts,
    Transient,
    connect,
)
from fhir_portal.mongo.log import MongoLog
from fhir_portal.mongo.reading import Reading
from fhir_portal.mongo.records import RecordChanges, Records
from fhir_portal.mongo.resources import ResourceChanges, Resources
from fhir_portal.mongo.turn import LeaseTurns, TransactionTurns, prepare
from fhir_portal.resources.store import Page
from fhir_portal.search.request import SearchRequest

T = TypeVar("T")

OLDEST_WIRE_VERSION: Final = 17
"""MongoDB 6.0; with the features that are used, older ones would do, but they get no fixes."""
SKEW_SECONDS: Final = 30.0
"""By so much this machine's clock may differ from the database's."""
_TRIES: Final = 20
_PROOF: Final = Replace({"_id": "proof", "undone": True})


class MongoTransaction(ResourceChanges, RecordChanges):
    """What a transaction's work is handed: resources and records, one commit."""

    def __init__(self, changes: Changes) -> None:
        ResourceChanges.__init__(self, changes)
        RecordChanges.__init__(self, changes)


class MongoStore(Resources, Records):
    """One database, and everything in it."""

    def __init__(
        self,
        driver: Driver,
        facts: ServerFacts,
        turns: TransactionTurns | LeaseTurns,
        clock: Callable[[], float],
        *,
        expire: bool,
    ) -> None:
        reading = Reading(driver, clock)
        Resources.__init__(self, reading)
        Records.__init__(self, reading)
        self.driver = driver
        self.log = MongoLog(driver)
        self._facts = facts
        self.turns = turns
        self._expire = expire

    @classmethod
    async def open(
        cls,
        uri: str,
        *,
        driver: DriverName = "motor",
        transactions: bool = True,
        clock: Callable[[], float] = time.time,
        database: str | None = None,
        expire: bool = True,
    ) -> Self:
        """Connect, look whether this database will do, and create what is missing.

        Args:
            uri: ``mongodb://`` or ``mongodb+srv://``.
            driver: the library that talks to it.
            transactions: whether to demand that the server has them (`LeaseTurns` says what one
                does without).
            clock: seconds since 1970 UTC.
            database: instead of the one the URI names.
            expire: have the database remove expired records too, by its own clock.

        Raises:
            Unavailable: what is wrong and what to do about it.
        """
        connected: Driver = connect(uri, driver, database)
        try:
            return await cls.over(connected, transactions=transactions, clock=clock, expire=expire)
        except BaseException as error:
            await connected.close()
            if isinstance(error, DriverError):
                cause = type(error.__cause__).__name__
                raise Unavailable(
                    "the database named by FHIR_PORTAL_MONGODB_URI does not answer"
                    f" ({cause}); is it running, and may this machine reach it?"
                ) from error
            raise

    @classmethod
    async def over(
        cls,
        driver: Driver,
        *,
        transactions: bool = True,
        clock: Callable[[], float] = time.time,
        expire: bool = True,
    ) -> Self:
        """Make a store of a driver that is there; `open` says the rest."""
        facts = await driver.facts()
        if facts.wire_version < OLDEST_WIRE_VERSION:
            raise Unavailable(f"MongoDB {facts.version} is too old: 6.0 or later is needed")
        if transactions and not (facts.replica_set or facts.sharded):
            raise Unavailable(_without("is not a member of a replica set"))
        await schema.create(driver, expire=expire)
        await prepare(driver)
        if transactions:
            await _prove_transactions(driver)
            return cls(driver, facts, TransactionTurns(driver, clock), clock, expire=expire)
        turns = LeaseTurns(driver, clock)
        await turns.recover()
        return cls(driver, facts, turns, clock, expire=expire)

    async def search_all(self, asked: Sequence[tuple[SearchRequest, Visibility]]) -> list[Page]:
        return await asyncio.gather(*(self.search(request, visible) for request, visible in asked))

    async def epoch(self) -> object:
        return await self.turns.epoch()

    async def transact(self, work: Callable[[MongoTransaction], Awaitable[T]]) -> T:
        return await self.turns.transact(lambda changes: work(MongoTransaction(changes)))

    def about(self) -> list[str]:
        """Say what this store is, in plain lines."""
        facts = self._facts
        place = "sharded cluster" if facts.sharded else "single server, no replica set"
        if facts.replica_set:
            place = f"replica set {facts.replica_set}"
        kind = "with transactions"
        if isinstance(self.turns, LeaseTurns):
            kind = "WITHOUT transactions: readers may see what is not committed yet"
        return [
            f"MongoDB {facts.version}, {place}, driver {self.driver.name}, {kind}",
            f"layout {schema.LAYOUT}",
        ]

    async def faults(self) -> list[str]:
        """Return why this store is not ready, in plain words."""
        try:
            facts = await self.driver.facts()
        except DriverError:
            return ["the database does not answer"]
        found: list[str] = []
        skew = facts.time - time.time()
        if facts.time and abs(skew) > SKEW_SECONDS:
            found.append(
                f"the clocks of this machine and of the database differ by {abs(skew):.0f} seconds"
            )
        stale = await self.stale()
        if stale:
            found.append(f"{stale} resources wait for a reindex")
        if self.log.fault:
            found.append(self.log.fault)
        return found

    async def check_indexes(self) -> list[str]:
        """Create indexes that are missing; return a line for each that is declared."""
        try:
            return await schema.create(self.driver, expire=self._expire)
        except DriverError as error:
            raise Unavailable("the database does not answer") from error

    async def aclose(self) -> None:
        """Wait for what is under way, then close every connection."""
        await self.turns.settle()
        await self.log.close()
        await self.driver.close()


async def _prove_transactions(driver: Driver) -> None:
    """Undo one, and look: there are servers that take the words and do nothing.

    Raises:
        Unavailable: the server has none.
    """
    for _ in range(_TRIES):
        before = await driver.find(schema.TURN, {"_id": "proof"}, limit=1)
        if not before:
            await driver.write(schema.TURN, [_PROOF])
        session = await driver.begin()
        try:
            await driver.find_and_update(
                schema.TURN, {"_id": "proof"}, {"$set": {"undone": False}}, session=session
            )
        except NoTransactions:
            raise Unavailable(_without("has no transactions")) from None
        except Transient:
            continue  # another process is proving the same
        finally:
            await driver.abandon(session)
        after = await driver.find(schema.TURN, {"_id": "proof"}, limit=1)
        if after and after[0]["undone"] is True:
            return
        await driver.write(schema.TURN, [_PROOF])
        raise Unavailable(_without("does not undo transactions"))
    raise Unavailable("the database is too busy to be looked at; start again")


def _without(what: str) -> str:
    return (
        f"this database {what}, and what belongs together must be written together:"
        " run MongoDB as a replica set (one member is enough), or, to try things out only, set"
        " FHIR_PORTAL_MONGODB_TRANSACTIONS=false"
    )
