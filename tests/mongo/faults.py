"""Faults planted at the driver: before or after a command, what a server or a network may do.

``python -m tests.mongo.faults --place …`` prints how many (operation, fault, place) triples there
are and what went wrong in any.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

from pymongo import AsyncMongoClient
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
)

from fhir_portal.access.visibility import SHARED
from fhir_portal.fhir.errors import Conflict, Unavailable
from fhir_portal.mongo import schema
from fhir_portal.mongo.driver import MongoDriver, connect
from fhir_portal.mongo.log import MongoLog
from fhir_portal.mongo.resources import INLINE_BYTES
from fhir_portal.mongo.store import MongoStore
from fhir_portal.mongo.turn import LeaseTurns
from fhir_portal.records import DuplicateRecord, Record
from tests.builders import Clock, an_observation
from tests.places import Database
from tests.stores.rows import KEY, a_row, asked, of_practice, of_record
from tests.stores.test_log import a_line, lines

T = TypeVar("T")


class Note(Record, frozen=True, kw_only=True):
    kind: ClassVar[str] = "note"
    indexed: ClassVar[tuple[str, ...]] = ("topic",)
    topic: str = "t"
    value: int = 0


# --- what goes wrong ------------------------------------------------------------------------------


def _labelled(label: str) -> OperationFailure:
    return OperationFailure("planted", 251, {"errorLabels": [label]})


def _duplicate() -> BulkWriteError:
    errors = [{"index": 0, "code": 11000, "errmsg": "planted"}]
    return BulkWriteError({"writeErrors": errors, "writeConcernErrors": []})


FAULTS: Final[Mapping[str, Callable[[], PyMongoError]]] = {
    "transient transaction error": lambda: _labelled("TransientTransactionError"),
    "unknown commit result": lambda: _labelled("UnknownTransactionCommitResult"),
    "not writable primary": lambda: NotPrimaryError("planted"),
    "duplicate key": _duplicate,
    "timeout in the database": lambda: ExecutionTimeout("planted", 50),
    "timeout of the network": lambda: NetworkTimeout("planted"),
    "connection cut": lambda: AutoReconnect("planted"),
}
UNTOLD: Final = frozenset({"abort"})
"""Commands whose faults nobody hears of; what was not committed is undone all the same."""


class FaultyDriver(MongoDriver):
    """Counts commands, and plants one fault."""

    def __init__(self, client: Any, database: str, name: Any) -> None:
        super().__init__(client, database, name)
        self.seen: list[str] = []
        self.plan: tuple[int, str, str] | None = None
        """Which command, ``before`` or ``after`` it, and which fault."""

    async def run(self, command: str, call: Callable[[], Awaitable[T]]) -> T:
        place = len(self.seen)
        self.seen.append(command)
        if self.plan is None or self.plan[0] != place:
            return await super().run(command, call)
        _, when, fault = self.plan

        async def failing() -> T:
            if when == "after":
                await call()
            error = FAULTS[fault]
            raise error()

        return await super().run(command, failing)


# --- what is done meanwhile -----------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """Something a store does: what is there before, the act, and what it may say in refusal."""

    name: str
    act: Callable[[MongoStore], Awaitable[Any]]
    before: Callable[[MongoStore], Awaitable[Any]] | None = None
    refusals: tuple[type[Exception], ...] = ()


def _in_one(work: Callable[[Any], Awaitable[T]]) -> Callable[[MongoStore], Awaitable[T]]:
    return lambda store: store.transact(work)


async def _a_note(transaction: Any) -> None:
    await transaction.put(Note(key="a", value=1))


async def _insert(transaction: Any) -> None:
    await transaction.insert(Note(key="new"))


async def _replace(transaction: Any) -> bool:
    swapped: bool = await transaction.replace(Note(key="a", value=1), Note(key="a", value=2))
    return swapped


async def _increment(transaction: Any) -> int:
    note = await transaction.get(Note, "a")
    await transaction.put(Note(key="a", value=note.value + 1))
    return int(note.value)


async def _consume(transaction: Any) -> bool:
    gone: bool = await transaction.delete(Note, "a")
    return gone


async def _many(transaction: Any) -> None:
    for n in range(5):
        await transaction.put(Note(key=f"n{n}"))
    assert len(await transaction.find(Note, "topic", "t")) == 6
    await transaction.delete(Note, "a")


async def _expire(transaction: Any) -> int:
    dropped: int = await transaction.drop_expired(200.0)
    return dropped


async def _old_notes(transaction: Any) -> None:
    await transaction.put(Note(key="old", expires=100.0))
    await transaction.put(Note(key="young", expires=300.0))


async def _create(transaction: Any) -> int:
    at: int = await transaction.next_instant(1_000)
    await transaction.write(a_row(an_observation("a"), updated=at))
    return at


async def _update(transaction: Any) -> None:
    await transaction.write(a_row(an_observation("a"), version=2, updated=2_000))


async def _delete(transaction: Any) -> None:
    row = a_row(an_observation("a"), version=2, updated=2_000, deleted=True)
    await transaction.write(row)


async def _create_large(transaction: Any) -> None:
    tree = an_observation("large")
    tree["note"] = [{"text": "x" * (INLINE_BYTES + 10)}]
    await transaction.write(a_row(tree))


async def _several(transaction: Any) -> int:
    for n in range(3):
        await transaction.write(a_row(an_observation(f"s{n}"), updated=1_000 + n))
    page = await transaction.search(asked("_total=accurate"), of_record())
    await transaction.put(Note(key="done", value=page.total))
    await transaction.write(a_row(an_observation("a"), version=2, updated=2_000))
    return int(page.total)


async def _reclassify(transaction: Any) -> None:
    row = await transaction.read(KEY("Observation/a"), of_practice())
    facts = a_row(an_observation("a"), owners=("bo",), labels=("R",)).row.facts
    assert row is not None
    await transaction.reclassify(row.key, facts)


async def _reindex(transaction: Any) -> None:
    await transaction.reindex(a_row(an_observation("a"), labels=("R",)))


async def _shadow(transaction: Any) -> None:
    await transaction.write(a_row(an_observation("s"), owners=()))


async def _shared(transaction: Any) -> None:
    await transaction.write(a_row(an_observation("s"), practice=SHARED, owners=()))


async def _again(transaction: Any) -> None:
    await transaction.write(a_row(an_observation("b")))
    await transaction.write(a_row(an_observation("a")))


async def _swallows(transaction: Any) -> None:
    """Goes on after whatever goes wrong, as nobody should."""
    await transaction.put(Note(key="first"))
    await transaction.write(a_row(an_observation("first")))
    with contextlib.suppress(Exception):
        await transaction.find(Note, "topic", "t")  # sends them
    await transaction.put(Note(key="second"))
    with contextlib.suppress(Exception):
        await transaction.search(asked(""), of_record())
    await transaction.put(Note(key="third"))


OPERATIONS: Final = (
    Operation("work that swallows every error", _in_one(_swallows)),
    Operation("insert a record", _in_one(_insert)),
    Operation("put a record", _in_one(_a_note)),
    Operation("compare and set", _in_one(_replace), _in_one(_a_note)),
    Operation("increment", _in_one(_increment), _in_one(_a_note)),
    Operation("consume a one-time record", _in_one(_consume), _in_one(_a_note)),
    Operation("many records and a look between", _in_one(_many), _in_one(_a_note)),
    Operation("drop what expired", _in_one(_expire), _in_one(_old_notes)),
    Operation(
        "insert what exists",
        _in_one(_insert),
        _in_one(_insert),
        refusals=(DuplicateRecord,),
    ),
    Operation("create", _in_one(_create)),
    Operation("update", _in_one(_update), _in_one(_create)),
    Operation("delete", _in_one(_delete), _in_one(_create)),
    Operation("create in chunks", _in_one(_create_large)),
    Operation("several and a search between", _in_one(_several), _in_one(_create)),
    Operation("reclassify", _in_one(_reclassify), _in_one(_create)),
    Operation("index anew", _in_one(_reindex), _in_one(_create)),
    Operation("stand before a shared one", _in_one(_shadow), _in_one(_shared)),
    Operation("share what a practice has", _in_one(_shared), _in_one(_shadow)),
    Operation("a version that exists", _in_one(_again), _in_one(_create), refusals=(Conflict,)),
    Operation("log a line", lambda store: store.log.append([a_line(1)])),
    Operation(
        "log lines of two records",
        lambda store: store.log.append([a_line(2), a_line(3, record="bo"), a_line(4)]),
        lambda store: store.log.append([a_line(1)]),
    ),
    Operation("get a record", lambda store: store.get(Note, "a"), _in_one(_a_note)),
    Operation("find records", lambda store: store.find(Note, "topic", "t"), _in_one(_a_note)),
    Operation("go through records", lambda store: store.every(Note), _in_one(_a_note)),
    Operation(
        "read", lambda store: store.read(KEY("Observation/a"), of_record()), _in_one(_create)
    ),
    Operation(
        "vread", lambda store: store.vread(KEY("Observation/a"), 1, of_record()), _in_one(_create)
    ),
    Operation(
        "search",
        lambda store: store.search(asked("_total=accurate"), of_record()),
        _in_one(_create),
    ),
    Operation(
        "history",
        lambda store: store.history(KEY("Observation/a"), of_record(), count=5, after=None),
        _in_one(_create),
    ),
    Operation(
        "feed",
        lambda store: store.feed({"Observation": of_practice()}, since=0, count=5, after=None),
        _in_one(_create),
    ),
    Operation("epoch", lambda store: store.epoch()),
    Operation("read the log", lines, lambda s: s.log.append([a_line(1)])),
    Operation("faults", lambda store: store.faults()),
)


# --- all or nothing, and once ---------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of an operation: what it said, and what is stored afterwards."""

    told: Any
    failure: BaseException | None
    stored: Mapping[str, Any]


@dataclass
class Report:
    """How many triples were tried, and what was wrong in any."""

    tried: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


_CHANGING: Final = {"n", "w", "c", "dropped"}
"""Members that differ from run to run: places in the order of commits, nonces, names of chunks."""


class Bench:
    """One database on which operations are tried over and over."""

    def __init__(self, place: Database) -> None:
        self.place = place
        self.clock = Clock()
        self._raw: AsyncMongoClient[Any] = AsyncMongoClient(place.uri)
        self._database = self._raw.get_default_database()

    async def open(self) -> None:
        """Open the two stores: the one that faults are planted in, and one without."""
        self.driver = connect(self.place.uri, self.place.driver, kind=FaultyDriver)
        self.faulty = await self._store(self.driver)
        self.clean = await self._store(connect(self.place.uri, self.place.driver))

    async def _store(self, driver: MongoDriver) -> MongoStore:
        store = await MongoStore.over(
            driver, transactions=self.place.transactions, clock=self.clock, expire=False
        )
        if isinstance(store.turns, LeaseTurns):
            store.turns.abandoned_after = 0.05  # nobody else is there
        return store

    async def close(self) -> None:
        await self.faulty.aclose()
        await self.clean.aclose()
        await self._raw.close()

    async def _empty(self) -> None:
        for name in (schema.RESOURCE, schema.VERSION, schema.CONTENT, schema.RECORD):
            await self._database[name].delete_many({})
        await self._database[schema.ACCESS].delete_many({})
        await self._database[schema.UNDO].delete_many({})
        await self._database[schema.TURN].update_one(
            {"_id": "turn"}, {"$set": {"instant": 0, "holder": None}}
        )

    async def _stored(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in (schema.RESOURCE, schema.VERSION, schema.RECORD, schema.ACCESS, schema.UNDO):
            async for document in self._database[name].find({}):
                kept = {key: value for key, value in document.items() if key not in _CHANGING}
                found[f"{name}/{document['_id']}"] = kept
        chunks = [
            (document["_id"].partition("/")[2], len(document["b"]))
            async for document in self._database[schema.CONTENT].find({})
        ]
        found["chunks"] = sorted(chunks)
        turn = await self._database[schema.TURN].find_one({"_id": "turn"})
        assert turn is not None
        found["instant"], found["holder"] = turn["instant"], turn["holder"]
        return found

    async def run(self, operation: Operation, plan: tuple[int, str, str] | None) -> Outcome:
        """Do an operation on an empty store and what it asks for, with one fault planted."""
        await self._empty()
        self.faulty.log, self.clean.log = MongoLog(self.driver), MongoLog(self.clean.driver)
        if operation.before is not None:
            await operation.before(self.clean)
        self.driver.seen = []
        self.driver.plan = plan
        told: Any = None
        failure: BaseException | None = None
        try:
            told = await operation.act(self.faulty)
        except Exception as error:  # noqa: BLE001 - judged by who asked
            failure = error
        self.driver.plan = None
        if isinstance(self.clean.turns, LeaseTurns):
            self.clean.turns.unswept = True  # as one that has just started
        await self.clean.transact(_nothing)  # which rolls back what was left behind
        return Outcome(told, failure, await self._stored())

    async def try_all(self, operation: Operation, report: Report, *, every: int = 1) -> None:
        """Plant each fault before and after each command of an operation."""
        after = await self.run(operation, None)
        commands = list(self.driver.seen)
        before = await self.run(Operation("nothing", _no_act, operation.before), None)
        if after.failure is not None and not isinstance(after.failure, operation.refusals):
            raise after.failure
        for place, command in enumerate(commands):
            for when in ("before", "after"):
                for fault in FAULTS:
                    if (command, when, fault) == ("insert", "before", "duplicate key"):
                        continue  # only a line that is there says so: test_log.py
                    report.tried += 1
                    if report.tried % every:
                        continue
                    found = await self.run(operation, (place, when, fault))
                    wrong = _judge(operation, before, after, found, (command, fault))
                    if found.failure is not None:
                        report.refused += 1
                    if wrong:
                        report.wrong.append(
                            f"{operation.name}: {fault} {when} {command} ({place}): {wrong}"
                        )


def _judge(
    operation: Operation,
    before: Outcome,
    after: Outcome,
    found: Outcome,
    planted: tuple[str, str],
) -> str:
    command, fault = planted
    refusals: tuple[type[Exception], ...] = (Unavailable, *operation.refusals)
    if fault == "duplicate key":
        refusals += (Conflict, DuplicateRecord)  # which is what it says
    if found.failure is None:
        if after.failure is not None:
            return "was let through"
        if operation.name not in {"epoch", "faults"} and found.told != after.told:
            return f"said {found.told!r} instead of {after.told!r}"
        return "" if found.stored == after.stored else f"stored {_difference(after, found)}"
    if not isinstance(found.failure, refusals):
        return f"failed with {found.failure!r}"
    if found.stored == before.stored:
        return ""
    if found.stored == after.stored and "look before" in str(found.failure):
        return ""
    if command == "insert" and found.stored == after.stored:
        return ""  # a line of an access that was then refused
    return f"said {found.failure} and stored {_difference(before, found)}"


def _difference(expected: Outcome, found: Outcome) -> str:
    names = {
        name
        for name in {*expected.stored, *found.stored}
        if expected.stored.get(name) != found.stored.get(name)
    }
    return ", ".join(f"{name}: {found.stored.get(name)!r}"[:160] for name in sorted(names)[:3])


async def _nothing(transaction: Any) -> None:
    del transaction


async def _no_act(store: MongoStore) -> None:
    del store


async def try_everything(place: Database, *, every: int = 1) -> Report:
    """Try every operation with every fault at every place (or every n-th of these)."""
    bench = Bench(place)
    report = Report()
    await bench.open()
    try:
        for operation in OPERATIONS:
            await bench.try_all(operation, report, every=every)
    finally:
        await bench.close()
        await place.drop()
    return report


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", default="motor", choices=("motor", "pymongo"))
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    place = Database.new(
        os.environ["FHIR_PORTAL_TEST_MONGODB_URI"],
        given.driver,
        transactions=os.environ.get("FHIR_PORTAL_TEST_MONGODB_TRANSACTIONS", "1") != "0",
    )
    report = asyncio.run(try_everything(place, every=given.every))
    print(
        f"{len(OPERATIONS)} operations, {report.tried // given.every} (operation, fault, place)"
        f" triples, {report.refused} refused, {len(report.wrong)} wrong"
    )
    for line in report.wrong:
        print(line)


if __name__ == "__main__":
    main()
