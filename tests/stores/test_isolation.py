"""What transactions and readers see of each other while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest

from fhir_portal.records import Record
from tests.builders import a_condition, an_observation, keep, reference
from tests.places import Database, Place
from tests.stores.rows import KEY, a_row, asked, found, of_practice, of_record, write

A = KEY("Observation/a")
LOOKS = 5


class Seat(Record, frozen=True, kw_only=True):
    kind: ClassVar[str] = "seat"
    indexed: ClassVar[tuple[str, ...]] = ("row",)

    row: str


class _Stopped(Exception):
    pass


Change = Callable[[Any], Awaitable[None]]
Look = Callable[[], Awaitable[Any]]


@pytest.fixture
def watched(place: Place, store: Any) -> Callable[[Change, Look], Awaitable[set[Any]]]:
    """What somebody sees who looks from when everything was written until it was undone."""
    # The embedded store works without waiting, so that nobody can look meanwhile.
    looks = LOOKS if isinstance(place, Database) else 0

    async def watch(change: Change, look: Look) -> set[Any]:
        seen: list[Any] = []
        written, undone = asyncio.Event(), asyncio.Event()

        async def work(transaction: Any) -> None:
            await change(transaction)
            written.set()
            while len(seen) < looks:
                await transaction.read(A, of_practice())
            raise _Stopped

        async def keep_looking() -> None:
            await written.wait()
            while not undone.is_set():
                seen.append(await look())
                await asyncio.sleep(0)

        looking = asyncio.create_task(keep_looking())
        try:
            with pytest.raises(_Stopped):
                await store.transact(work)
        finally:
            # Told, not cancelled: asyncio.wait_for before Python 3.12 may overlook that.
            written.set()
            undone.set()
            await looking
        assert len(seen) >= looks
        return {*seen, await look()}

    return watch


async def move(transaction: Any) -> None:
    """To another record and section, and put something new beside it."""
    moved = an_observation("a", category="laboratory", of="bo", value=2)
    await transaction.write(a_row(moved, version=2, owners=["bo"], sections=["visits"]))
    assert await found(transaction, "category=laboratory", of_practice()) == ["a"]
    await transaction.write(a_row(an_observation("new")))
    assert await found(transaction, "", of_record()) == ["new"]


@pytest.mark.transactions
async def test_nobody_reads_a_write_before_its_transaction_commits(
    store: Any, watched: Any
) -> None:
    await write(store, a_row(an_observation("a", value=1)))

    async def look() -> Any:
        current = await store.read(A, of_practice())
        return (
            current.version,
            await store.vread(A, 2, of_record(record="bo")),
            await store.read(KEY("Observation/new"), of_practice()),
            (await store.history(A, of_record(), count=9, after=None)).total,
        )

    assert await watched(move, look) == {(1, None, None, 1)}


@pytest.mark.transactions
async def test_nobody_finds_a_write_before_its_transaction_commits(
    store: Any, watched: Any
) -> None:
    """By a search, in the feed, or as what refers to something; and nothing gets lost."""
    await write(
        store,
        a_row(an_observation("a", derivedFrom=[reference("Observation/b")])),
        a_row(an_observation("b")),
    )

    async def change(transaction: Any) -> None:
        await transaction.write(a_row(an_observation("b"), version=2, deleted=True))
        await transaction.write(a_row(a_condition("c"), sections=["health-summary"]))
        await transaction.write(
            a_row(an_observation("a", category="laboratory"), version=2, owners=["bo"])
        )
        assert await found(transaction, "", of_record()) == []

    async def look() -> Any:
        types = {"Observation": of_practice(), "Condition": of_practice("Condition")}
        feed = await store.feed(types, since=None, count=9, after=None)
        return (
            tuple(sorted(await found(store, "", of_record()))),
            tuple(await found(store, "category=vital-signs&_sort=-_id", of_record())),
            tuple(await found(store, "category=laboratory", of_practice())),
            tuple(await found(store, "derived-from=Observation/b", of_practice())),
            tuple(await found(store, "", of_practice("Condition"))),
            (await store.search(asked("_summary=count"), of_practice())).total,
            len(feed.rows),
        )

    nothing_new = {(("a", "b"), ("b", "a"), (), ("a",), (), 2, 2)}
    assert await watched(change, look) == nothing_new


@pytest.mark.transactions
async def test_nobody_gets_a_record_before_its_transaction_commits(
    store: Any, watched: Any
) -> None:
    await keep(store, Seat(key="a", row="front"), Seat(key="b", row="back"))

    async def change(transaction: Any) -> None:
        await transaction.put(Seat(key="a", row="back"))
        await transaction.insert(Seat(key="c", row="front"))
        await transaction.delete(Seat, "b")
        assert [seat.key for seat in await transaction.every(Seat)] == ["a", "c"]
        assert [seat.key for seat in await transaction.find(Seat, "row", "front")] == ["c"]

    async def look() -> Any:
        return (
            (await store.get(Seat, "a")).row,
            await store.get(Seat, "c"),
            tuple(seat.key for seat in await store.every(Seat)),
            tuple(seat.key for seat in await store.find(Seat, "row", "front")),
            tuple(seat.key for seat in await store.find(Seat, "row", "back")),
        )

    assert await watched(change, look) == {("front", None, ("a", "b"), ("a",), ("b",))}


async def test_what_a_failed_transaction_did_is_gone_afterwards(store: Any, second: Any) -> None:
    """Also for another process, and whatever was changed twice in it."""
    await write(store, a_row(an_observation("a", value=1)))
    await keep(store, Seat(key="a", row="front"))

    async def failing(transaction: Any) -> None:
        await move(transaction)
        await transaction.write(a_row(an_observation("a"), version=3, deleted=True))
        assert await found(transaction, "", of_practice()) == ["new"]
        await transaction.put(Seat(key="a", row="back"))
        await transaction.put(Seat(key="b", row="back"))
        assert len(await transaction.every(Seat)) == 2
        await transaction.delete(Seat, "a")
        assert [seat.key for seat in await transaction.every(Seat)] == ["b"]
        raise _Stopped

    with pytest.raises(_Stopped):
        await store.transact(failing)
    for one in (store, second):
        assert (await one.read(A, of_record())).version == 1
        assert await found(one, "value-quantity=1", of_practice()) == ["a"]
        assert await found(one, "", of_practice()) == ["a"]
        assert (await one.history(A, of_practice(), count=9, after=None)).total == 1
        assert await one.every(Seat) == [Seat(key="a", row="front")]
        feed = await one.feed({"Observation": of_practice()}, since=None, count=9, after=None)
        assert [row.version for row in feed.rows] == [1]
    await write(second, a_row(an_observation("a", value=2), version=2))
    assert await found(store, "value-quantity=2", of_record()) == ["a"]


async def test_two_transactions_do_not_both_act_on_what_each_saw(store: Any, second: Any) -> None:
    """Each looks whether the last seat is free, and takes it under a key of its own."""

    async def take(one: Any, key: str) -> bool:
        async def work(transaction: Any) -> bool:
            if await transaction.find(Seat, "row", "front"):
                return False
            await transaction.insert(Seat(key=key, row="front"))
            return True

        taken: bool = await one.transact(work)
        return taken

    tries = [take(one, f"{n}-{m}") for n in range(5) for m, one in enumerate((store, second))]
    assert (await asyncio.gather(*tries)).count(True) == 1
    assert len(await store.every(Seat)) == 1


async def test_a_right_that_ends_and_an_item_that_rests_on_it_do_not_pass_each_other(
    store: Any, second: Any
) -> None:
    """One writes what the other has looked for: in whichever order, both see the other's."""
    for n in range(10):
        grant, token = f"grant{n}", f"token{n}"
        await keep(store, Seat(key=grant, row="grants"))

        async def end(transaction: Any, grant: str = grant, token: str = token) -> None:
            await transaction.delete(Seat, grant)
            await transaction.delete(Seat, token)

        async def issue(transaction: Any, grant: str = grant, token: str = token) -> None:
            if await transaction.get(Seat, grant) is not None:
                await transaction.put(Seat(key=token, row="tokens"))

        await asyncio.gather(store.transact(end), second.transact(issue))
        assert await store.get(Seat, token) is None


async def test_commits_are_in_one_order_for_everybody(store: Any, second: Any) -> None:
    """Nobody who sees a later commit misses an earlier one."""
    rounds = 20

    async def count(transaction: Any) -> None:
        seats = await transaction.every(Seat)
        number = len(seats)
        await transaction.insert(Seat(key=f"{number:03}", row="taken"))
        await transaction.write(a_row(an_observation(f"o{number:03}"), updated=1_000 + number))

    async def writing(one: Any) -> None:
        for _ in range(rounds):
            await one.transact(count)

    async def looking(one: Any) -> None:
        known = 0
        while known < 2 * rounds:
            feed = await one.feed({"Observation": of_practice()}, since=None, count=1, after=None)
            newest = int(feed.rows[0].facts.id[1:]) + 1 if feed.rows else 0
            assert newest >= known
            known = newest
            # What was committed before, or with it, is there.
            assert len(await one.every(Seat)) >= known
            await asyncio.sleep(0)

    await asyncio.gather(writing(store), writing(second), looking(store), looking(second))
    assert [seat.key for seat in await store.every(Seat)] == [f"{n:03}" for n in range(2 * rounds)]
