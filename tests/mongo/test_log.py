"""The access log on MongoDB, over a driver in memory that fails when it is told to."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from fhir_portal.access.log import AccessRow, LoggedAccess, access_id, stream_id
from fhir_portal.fhir.errors import FhirError, TooLarge, Unavailable
from fhir_portal.mongo.driver import Driver, Transient, UnknownOutcome
from fhir_portal.mongo.log import BATCH_ROWS, FAULT_SECONDS, MongoLog
from fhir_portal.mongo.schema import ACCESS, INDEXES
from tests.builders import DERM, FAMILY, Clock

Document = dict[str, Any]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$lt": lambda held, wanted: held < wanted,
    "$lte": lambda held, wanted: held <= wanted,
    "$gte": lambda held, wanted: held >= wanted,
    "$in": lambda held, wanted: held in wanted,
}


class MemoryDriver:
    """The two calls the log makes; each insert and find first does what is planned for it."""

    def __init__(self) -> None:
        self.held: dict[str, Document] = {}
        self.inserts: list[list[Document]] = []
        self.plans: list[Callable[[list[Document]], Awaitable[None]] | Exception | None] = []
        self.cuts: list[Exception | None] = []  # raised after the insert was done
        self.unseen: set[str] = set()  # stored, but not yet by a majority
        self.down: Exception | None = None
        self.finds = 0
        self.started = asyncio.Event()
        self.on_their_way = 0
        self.most_on_their_way = 0

    async def insert_many(self, collection: str, documents: Sequence[Document]) -> list[int]:
        assert collection == "access"
        sent = copy.deepcopy(list(documents))
        self.inserts.append(sent)
        self.started.set()
        self.on_their_way += 1
        self.most_on_their_way = max(self.most_on_their_way, self.on_their_way)
        try:
            await asyncio.sleep(0)
            plan = self.plans.pop(0) if self.plans else self.down
            if isinstance(plan, Exception):
                raise plan
            if plan is not None:
                await plan(sent)
            taken = [place for place, one in enumerate(sent) if one["_id"] in self.held]
            for place, one in enumerate(sent):
                if place not in taken:
                    self.held[one["_id"]] = one
            cut = self.cuts.pop(0) if self.cuts else None
            if cut is not None:
                raise cut
        finally:
            self.on_their_way -= 1
        return taken[::-1]  # in no order that is promised

    async def find(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        hint: str | None = None,
        fields: Sequence[str] | None = None,
        session: object = None,
    ) -> list[Document]:
        assert (collection, session) == ("access", None)
        leading = {"_id_": "_id", "turn": "s", "of_record": "r", "of_practice": "p", "of_app": "c"}
        assert hint in {"_id_", *(index.name for index in INDEXES[ACCESS])}
        assert leading[hint] in filter
        self.finds += 1
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down
        found = [
            one for key, one in self.held.items() if key not in self.unseen and _fits(one, filter)
        ]
        for field, direction in reversed(sort):
            found.sort(key=lambda one, field=field: one[field], reverse=direction < 0)  # type: ignore[misc]
        shown = {"_id", *(fields or ())}
        return [
            {name: value for name, value in one.items() if fields is None or name in shown}
            for one in found[: limit or None]
        ]


def _fits(document: Document, wanted: Document) -> bool:
    for name, condition in wanted.items():
        if name == "$or":
            if not any(_fits(document, one) for one in condition):
                return False
        elif isinstance(condition, dict):
            if not all(_COMPARE[how](document[name], value) for how, value in condition.items()):
                return False
        elif document[name] != condition:
            return False
    return True


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def log(driver: MemoryDriver, clock: Clock) -> MongoLog:
    return over(driver, clock)


def over(driver: MemoryDriver, clock: Clock) -> MongoLog:
    held: Any = driver
    typed: Driver = held
    return MongoLog(typed, clock=clock)


def a_line(
    at: int = 1, *, record: str = "ada", agent: str = "Patient/ada", **more: Any
) -> AccessRow:
    given: dict[str, Any] = {
        "practice": DERM,
        "interaction": "read",
        "what": "Observation/a",
        "status": 200,
        "client": "app",
        "context": "patient",
    }
    return AccessRow(at=at, record=record, agent=agent, **given | more)


async def lines(log: MongoLog, record: str | None = "ada", **more: Any) -> list[LoggedAccess]:
    given: dict[str, Any] = {
        "practice": DERM,
        "agent": None,
        "told": False,
        "low": 0,
        "high": 2**62,
        "before": None,
        "limit": 10_000,
    } | more
    practice = given.pop("practice")
    return await log.of_record(practice, record, **given)


async def ats(log: MongoLog, record: str | None = "ada", **more: Any) -> list[int]:
    return [one.row.at for one in await lines(log, record, **more)]


def in_turn(driver: MemoryDriver, stream: str) -> list[int]:
    """Return the moments of a stream's lines by turn, which leave no gap."""
    found = sorted((one for one in driver.held.values() if one["s"] == stream), key=_turn)
    assert [one["n"] for one in found] == list(range(1, len(found) + 1))
    return [one["a"] for one in found]


def _turn(document: Document) -> int:
    turn: int = document["n"]
    return turn


ADA = stream_id(DERM, "ada", "Patient/ada")

# What a cut connection looks like; a transaction's word may come from a single write as well.
CUTS = [Unavailable("cut"), UnknownOutcome(), Transient()]


# ---------------------------------------------------------------- reading


async def test_lines_are_bounded_and_come_newest_first(log: MongoLog) -> None:
    await log.append(
        [
            a_line(1),
            a_line(2, record="bo"),
            a_line(3, practice=FAMILY),
            a_line(4, agent="RelatedPerson/x"),
            a_line(5, agent="RelatedPerson/x", told=False),
        ]
    )
    assert await ats(log) == [5, 4, 1]
    assert await ats(log, told=True) == [4, 1]
    assert await ats(log, agent="RelatedPerson/x") == [5, 4]
    assert await ats(log, agent="RelatedPerson/x", told=True) == [4]
    assert await ats(log, low=1, high=4) == [4, 1]
    assert await ats(log, None) == [5, 4, 2, 1]
    assert await ats(log, None, practice=FAMILY) == [3]
    assert await ats(log, limit=2) == [5, 4]


async def test_a_page_goes_on_exactly_after_the_line_before(log: MongoLog) -> None:
    agents = [f"RelatedPerson/{n}" for n in range(3)]
    await log.append(
        [a_line(at, agent=agent, what=f"{at}") for at in (1, 2, 2, 3) for agent in agents]
    )
    for record in ("ada", None):
        whole = [one.id for one in await lines(log, record)]
        assert len(set(whole)) == 12
        seen: list[str] = []
        before = None
        while page := await lines(log, record, before=before, limit=1):
            seen += [one.id for one in page]
            before = page[-1].id
        assert seen == whole


async def test_a_bound_below_the_line_before_holds(log: MongoLog) -> None:
    await log.append([a_line(at) for at in (1, 2, 3)])
    newest = (await lines(log))[0].id
    assert await ats(log, before=newest, high=1) == [1]
    assert await ats(log, before=newest, high=9) == [2, 1]


@pytest.mark.parametrize(
    "unknown",
    [
        *("", "-", "-1", "unknown", "\ud800"),
        *(f"{ADA}-{turn}" for turn in ("", "0", "01", "1\n", "+1", "\N{SUPERSCRIPT ONE}", "2")),
        f"{ADA}-{'9' * 16}",
        f"{ADA.upper()}-1",
    ],
)
async def test_an_id_that_names_no_line_finds_none(log: MongoLog, unknown: str) -> None:
    await log.append([a_line()])
    assert await log.read(f"{ADA}-1") is not None
    assert await log.read(unknown) is None
    assert await lines(log, before=unknown) == []


async def test_text_may_hold_anything(log: MongoLog) -> None:
    strange = "$where\0.a{}'\"\u2028\U0010ffff"
    line = a_line(record=strange, agent=strange, what=strange, detail=strange, practice=strange)
    await log.append([line])
    found = await lines(log, strange, practice=strange, agent=strange)
    assert [one.row for one in found] == [line]
    assert await log.read(found[0].id) == found[0]


@pytest.mark.parametrize("cut", CUTS)
async def test_a_database_that_does_not_answer_is_unavailable(
    log: MongoLog, driver: MemoryDriver, cut: Exception
) -> None:
    driver.down = cut
    with pytest.raises(Unavailable):
        await log.read(f"{ADA}-1")
    with pytest.raises(Unavailable):
        await lines(log)


# ---------------------------------------------------------------- turns


async def test_turns_of_a_stream_follow_each_other_whatever_other_streams_do(
    log: MongoLog, driver: MemoryDriver
) -> None:
    await log.append([a_line(1), a_line(2, record="bo"), a_line(3)])
    await log.append([a_line(4, agent=""), a_line(5)])
    assert in_turn(driver, ADA) == [1, 3, 5]
    assert in_turn(driver, stream_id(DERM, "bo", "Patient/ada")) == [2]
    assert (await lines(log))[0].id == access_id(ADA, 3)


async def test_a_last_turn_is_looked_up_once(log: MongoLog, driver: MemoryDriver) -> None:
    for at in range(5):
        await log.append([a_line(at)])
    assert driver.finds == 1


async def test_what_is_remembered_is_bounded(
    log: MongoLog, driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.mongo.log._STREAMS", 2)
    for record in ("ada", "bo", "ada", "cy"):  # bo is the one not used for longest
        await log.append([a_line(record=record)])
    assert driver.finds == 3
    await log.append([a_line(2, record="ada")])
    assert driver.finds == 3
    await log.append([a_line(2, record="bo")])
    assert driver.finds == 4
    assert in_turn(driver, stream_id(DERM, "bo", "Patient/ada")) == [1, 2]


async def test_a_process_that_comes_second_counts_on(
    log: MongoLog, driver: MemoryDriver, clock: Clock
) -> None:
    other = over(driver, clock)
    await log.append([a_line(1)])
    for at in range(2, 12):
        await (log, other)[at % 2].append([a_line(at), a_line(at, record="bo")])
    assert in_turn(driver, ADA) == list(range(1, 12))


async def test_a_process_that_takes_turns_in_between_is_counted_around(
    log: MongoLog, driver: MemoryDriver
) -> None:
    async def take_the_first(sent: list[Document]) -> None:
        driver.held[sent[0]["_id"]] = sent[0] | {"w": b"another", "a": 100}

    await log.append([a_line(1)])
    driver.plans = [take_the_first, take_the_first, take_the_first]
    await log.append([a_line(2), a_line(3), a_line(4)])
    assert in_turn(driver, ADA) == [1, 100, 3, 4, 100, 100, 2]
    await log.append([a_line(5)])
    assert in_turn(driver, ADA)[-1] == 5
    assert len(driver.inserts) == 6


async def test_rows_that_lost_their_turns_keep_their_order(
    log: MongoLog, driver: MemoryDriver, clock: Clock
) -> None:
    await log.append([a_line(1)])
    await over(driver, clock).append([a_line(100 + n) for n in range(3)])
    await log.append([a_line(at, what=f"{at}") for at in (2, 3, 4)])
    assert in_turn(driver, ADA) == [1, 100, 101, 102, 2, 3, 4]


async def test_many_processes_share_a_stream(driver: MemoryDriver, clock: Clock) -> None:
    logs = [over(driver, clock) for _ in range(8)]
    await asyncio.gather(*(one.append([a_line(at)]) for at in range(20) for one in logs))
    for at in range(20, 25):
        await asyncio.gather(*(one.append([a_line(at)]) for one in logs))
    assert sorted(in_turn(driver, ADA)) == sorted(at for at in range(25) for _ in logs)


async def test_turns_that_are_always_taken_are_given_up(
    log: MongoLog, driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.mongo.log._LONGEST_PAUSE", 0.0)

    async def taken(sent: list[Document]) -> None:
        for one in sent:
            driver.held[one["_id"]] = one | {"w": b"another"}

    driver.plans = [taken] * 1_000
    with pytest.raises(Unavailable, match="not granted"):
        await log.append([a_line(1)])
    assert len(driver.inserts) < 100


# ---------------------------------------------------------------- cut connections


@pytest.mark.parametrize("cut", CUTS)
async def test_a_connection_cut_before_the_insert_leaves_one_line(
    log: MongoLog, driver: MemoryDriver, cut: Exception
) -> None:
    driver.plans = [cut]
    await log.append([a_line(1), a_line(2)])
    assert in_turn(driver, ADA) == [1, 2]
    assert driver.inserts[0] == driver.inserts[1]
    assert log.fault == ""


@pytest.mark.parametrize("cut", CUTS)
async def test_a_connection_cut_after_the_insert_leaves_one_line(
    log: MongoLog, driver: MemoryDriver, cut: Exception
) -> None:
    driver.cuts = [cut]
    await log.append([a_line(1), a_line(2)])
    await log.append([a_line(3)])
    assert in_turn(driver, ADA) == [1, 2, 3]
    assert log.fault == ""


async def test_an_insert_that_was_half_done_is_completed(
    log: MongoLog, driver: MemoryDriver
) -> None:
    async def half(sent: list[Document]) -> None:
        driver.held[sent[1]["_id"]] = sent[1]
        raise UnknownOutcome

    driver.plans = [half]
    await log.append([a_line(1), a_line(2), a_line(3)])
    assert in_turn(driver, ADA) == [1, 2, 3]


async def test_a_cut_and_another_process_at_once(
    log: MongoLog, driver: MemoryDriver, clock: Clock
) -> None:
    """Of one batch some rows are stored by the attempt before, and some turns are another's."""
    other = over(driver, clock)
    await log.append([a_line(1), a_line(1, record="bo")])
    await other.append([a_line(100)])
    driver.cuts = [UnknownOutcome(), None, UnknownOutcome()]
    await log.append([a_line(2), a_line(3), a_line(2, record="bo")])
    assert sorted(in_turn(driver, ADA)) == [1, 2, 3, 100]
    assert in_turn(driver, stream_id(DERM, "bo", "Patient/ada")) == [1, 2]


async def test_a_line_no_majority_has_yet_is_sent_again_and_not_stored_twice(
    log: MongoLog, driver: MemoryDriver
) -> None:
    """The insert finds its `_id` taken, and a read does not see by whom."""

    async def seen(_: list[Document]) -> None:
        driver.unseen.clear()

    driver.unseen = {access_id(ADA, 1)}
    driver.cuts = [UnknownOutcome()]
    driver.plans = [None, None, seen]
    await log.append([a_line(1)])
    assert in_turn(driver, ADA) == [1]
    assert len(driver.inserts) == 3


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("cut", CUTS)
async def test_a_second_cut_is_a_failure(
    log: MongoLog, driver: MemoryDriver, cut: Exception
) -> None:
    driver.cuts = [cut, cut]
    with pytest.raises(Unavailable, match="could not be recorded, so it was not granted"):
        await log.append([a_line(1)])
    assert len(driver.inserts) == 2
    assert log.fault
    await log.append([a_line(2)])  # what the failed batch stored is counted
    assert in_turn(driver, ADA) == [1, 2]
    assert log.fault == ""


@pytest.mark.parametrize("failure", [*CUTS, TooLarge("large"), ValueError("a secret")])
async def test_a_failure_reaches_those_of_its_batch_only(
    log: MongoLog, driver: MemoryDriver, failure: Exception
) -> None:
    driver.plans = [failure, failure] if failure in CUTS else [failure]
    first = [asyncio.create_task(log.append([a_line(at)])) for at in (1, 2)]
    await driver.started.wait()
    second = [asyncio.create_task(log.append([a_line(at)])) for at in (3, 4)]
    found = await asyncio.gather(*first, *second, return_exceptions=True)
    assert [type(one) for one in found[:2]] == [Unavailable, Unavailable]
    assert found[0] is not found[1]
    assert found[2:] == [None, None]
    assert in_turn(driver, ADA) == [3, 4]


async def test_the_fault_says_why_in_our_own_words_only(
    log: MongoLog, driver: MemoryDriver
) -> None:
    driver.plans = [ValueError("a secret")]
    with pytest.raises(Unavailable):
        await log.append([a_line(1)])
    assert log.fault == "the access log cannot be written: ValueError"
    driver.plans = [Unavailable("the database refuses"), Unavailable("the database refuses")]
    with pytest.raises(FhirError):
        await log.append([a_line(1)])
    assert log.fault == "the access log cannot be written: the database refuses"


async def test_a_fault_keeps_a_server_from_being_ready_for_a_while(
    log: MongoLog, driver: MemoryDriver, clock: Clock
) -> None:
    """A server that is not ready is sent nothing, so no append would ever clear it."""
    driver.down = UnknownOutcome()
    with pytest.raises(Unavailable):
        await log.append([a_line(1)])
    clock.advance(FAULT_SECONDS - 1)
    assert log.fault
    clock.advance(2)
    assert log.fault == ""
    with pytest.raises(Unavailable):
        await log.append([a_line(1)])
    assert log.fault


# ---------------------------------------------------------------- batches


async def test_rows_of_one_turn_of_the_loop_share_an_insert(
    log: MongoLog, driver: MemoryDriver
) -> None:
    await asyncio.gather(*(log.append([a_line(at)]) for at in range(100)))
    assert [len(one) for one in driver.inserts] == [100]
    assert in_turn(driver, ADA) == list(range(100))


async def test_what_arrives_on_the_way_shares_the_next_insert(
    log: MongoLog, driver: MemoryDriver
) -> None:
    arrived = asyncio.Event()

    async def wait(_: list[Document]) -> None:
        await arrived.wait()

    driver.plans = [wait]
    tasks = [asyncio.create_task(log.append([a_line(0)]))]
    for at in range(1, 21):
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(log.append([a_line(at)])))
    await asyncio.sleep(0)
    arrived.set()
    await asyncio.gather(*tasks)
    assert len(driver.inserts) == 2
    assert driver.most_on_their_way == 1
    assert in_turn(driver, ADA) == list(range(21))


async def test_batches_are_bounded(log: MongoLog, driver: MemoryDriver) -> None:
    half = BATCH_ROWS // 2
    await asyncio.gather(
        log.append([a_line(1)] * half),
        log.append([a_line(2)] * half),
        log.append([a_line(3)]),
        log.append([a_line(4)] * (2 * BATCH_ROWS + 1)),
        log.append([a_line(5)]),
    )
    counts = [len(one) for one in driver.inserts]
    assert counts == [BATCH_ROWS, 1, BATCH_ROWS, BATCH_ROWS, 1, 1]
    assert len(in_turn(driver, ADA)) == 3 * BATCH_ROWS + 3
    assert in_turn(driver, ADA) == sorted(in_turn(driver, ADA))


async def test_a_cancelled_request_leaves_its_row_and_does_not_harm_the_others(
    log: MongoLog, driver: MemoryDriver
) -> None:
    tasks = [asyncio.create_task(log.append([a_line(at)])) for at in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # the one that started the batch
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [None, None]
    assert in_turn(driver, ADA) == [0, 1, 2]


async def test_nothing_is_sent_for_no_rows(log: MongoLog, driver: MemoryDriver) -> None:
    await log.append([])
    assert (driver.inserts, driver.finds) == ([], 0)


async def test_closing_waits_for_what_is_under_way(log: MongoLog, driver: MemoryDriver) -> None:
    await log.close()
    tasks = [asyncio.create_task(log.append([a_line(at)])) for at in range(3)]
    await asyncio.sleep(0)
    await log.close()
    assert in_turn(driver, ADA) == [0, 1, 2]
    await asyncio.gather(*tasks)


async def test_a_loop_that_ends_leaves_nobody_waiting(log: MongoLog, driver: MemoryDriver) -> None:
    async def wait(_: list[Document]) -> None:
        await asyncio.Event().wait()

    driver.plans = [wait]
    first = asyncio.create_task(log.append([a_line(1)]))
    await driver.started.wait()
    later = asyncio.create_task(log.append([a_line(2)]))
    await asyncio.sleep(0)
    (sending,) = asyncio.all_tasks() - {asyncio.current_task(), first, later}
    assert sending is not None
    sending.cancel()
    found = await asyncio.gather(first, later, return_exceptions=True)
    assert [type(one) for one in found] == [Unavailable, Unavailable]
    await log.append([a_line(3)])
    assert in_turn(driver, ADA) == [3]
