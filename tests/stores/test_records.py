from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from fhir_portal.records import DuplicateRecord, Record, changes_of
from tests.builders import keep


class Note(Record, frozen=True, kw_only=True):
    kind: ClassVar[str] = "note"
    indexed: ClassVar[tuple[str, ...]] = ("topic", "author")

    topic: str
    author: str | None = None
    words: str = ""


class Rare(Record, frozen=True, kw_only=True):
    kind: ClassVar[str] = "rare"
    is_counted: ClassVar[bool] = True
    value: int = 0


class Stamp(Record, frozen=True, kw_only=True):
    kind: ClassVar[str] = "stamp"
    value: int = 0


HOSTILE = [
    "'; DROP TABLE record; --",
    '" OR "1"="1',
    "$where",
    '{"$gt": ""}',
    "a\x00b",
    "%",
    "_",
    "*",
    "\u202e\u0301",
    "Ω" * 200,
    " ",
]


async def test_a_record_comes_back_as_it_was_put(store: Any) -> None:
    note = Note(key="a", topic="sleep", words='"quoted" \\ ü 𝄞')
    await keep(store, note)
    assert await store.get(Note, "a") == note
    assert await store.get(Note, "b") is None
    assert await store.get(Stamp, "a") is None  # keys are of a kind


@pytest.mark.parametrize("text", HOSTILE)
async def test_operator_text_is_only_text(store: Any, text: str) -> None:
    note = Note(key=text, topic=text, author=text)
    await keep(store, note, Note(key="other", topic="other"))
    assert await store.get(Note, text) == note
    assert await store.find(Note, "topic", text) == [note]
    assert await store.find(Note, "author", text) == [note]
    assert len(await store.every(Note)) == 2


async def test_inserting_a_key_twice_is_refused_and_changes_nothing(store: Any) -> None:
    await keep(store, Note(key="a", topic="first"))

    async def again(transaction: Any) -> None:
        await transaction.put(Note(key="b", topic="side effect"))
        await transaction.insert(Note(key="a", topic="second"))

    with pytest.raises(DuplicateRecord):
        await store.transact(again)
    assert await store.every(Note) == [Note(key="a", topic="first")]


async def test_find_is_by_the_current_value_only(store: Any) -> None:
    await keep(store, Note(key="a", topic="old"), Note(key="b", topic="new"))
    await keep(store, Note(key="a", topic="new"))
    assert await store.find(Note, "topic", "old") == []
    assert [note.key for note in await store.find(Note, "topic", "new")] == ["a", "b"]
    assert [note.key for note in await store.find(Note, "topic", "new", limit=1)] == ["a"]


async def test_what_is_none_is_not_found_by(store: Any) -> None:
    await keep(store, Note(key="a", topic="x"), Note(key="b", topic="x", author="kim"))
    assert [note.key for note in await store.find(Note, "author", "kim")] == ["b"]
    assert await store.find(Note, "author", "") == []
    assert await store.find(Note, "author", "None") == []


async def test_an_unindexed_field_cannot_be_searched(store: Any) -> None:
    with pytest.raises(ValueError, match="not indexed"):
        await store.find(Note, "words", "x")


async def test_every_goes_through_a_kind_in_key_order(store: Any) -> None:
    await keep(store, *(Note(key=key, topic="t") for key in ("c", "a", "B", "d")), Stamp(key="a"))
    assert [note.key for note in await store.every(Note)] == ["B", "a", "c", "d"]
    page = await store.every(Note, after="a", limit=1)
    assert [note.key for note in page] == ["c"]


async def test_compare_and_set_has_one_winner(store: Any) -> None:
    await keep(store, Stamp(key="a", value=1))
    old = await store.get(Stamp, "a")

    async def swap(to: int) -> bool:
        async def work(transaction: Any) -> bool:
            swapped: bool = await transaction.replace(old, Stamp(key="a", value=to))
            return swapped

        won: bool = await store.transact(work)
        return won

    won = await asyncio.gather(*(swap(to) for to in range(10, 20)))
    assert won.count(True) == 1
    assert await store.get(Stamp, "a") == Stamp(key="a", value=10 + won.index(True))


async def test_compare_and_set_of_what_is_gone_fails(store: Any) -> None:
    async def work(transaction: Any) -> bool:
        swapped: bool = await transaction.replace(Stamp(key="a"), Stamp(key="a", value=2))
        return swapped

    assert await store.transact(work) is False
    assert await store.get(Stamp, "a") is None


async def test_a_record_keeps_its_key(store: Any) -> None:
    async def work(transaction: Any) -> None:
        await transaction.replace(Stamp(key="a"), Stamp(key="b"))

    with pytest.raises(ValueError, match="kind and key"):
        await store.transact(work)


async def test_a_one_time_thing_is_consumed_once(store: Any) -> None:
    await keep(store, Stamp(key="code"))

    async def consume(transaction: Any) -> bool:
        consumed: bool = await transaction.delete(Stamp, "code")
        return consumed

    used = await asyncio.gather(*(store.transact(consume) for _ in range(8)))
    assert used.count(True) == 1
    assert await store.get(Stamp, "code") is None


async def test_deleting_also_forgets_what_it_was_found_by(store: Any) -> None:
    await keep(store, Note(key="a", topic="x"))

    async def work(transaction: Any) -> None:
        await transaction.delete(Note, "a")

    await store.transact(work)
    assert await store.find(Note, "topic", "x") == []


async def test_a_transaction_sees_its_own_writes_and_nobody_else_does_yet(store: Any) -> None:
    await keep(store, Note(key="a", topic="before"))

    async def work(transaction: Any) -> tuple[Any, Any]:
        await transaction.put(Note(key="a", topic="after"))
        inside = await transaction.get(Note, "a"), await transaction.find(Note, "topic", "after")
        raise _Stopped(inside)

    with pytest.raises(_Stopped) as stopped:
        await store.transact(work)
    note, found = stopped.value.args[0]
    assert note == Note(key="a", topic="after")
    assert found == [note]
    assert await store.get(Note, "a") == Note(key="a", topic="before")
    assert await store.find(Note, "topic", "after") == []


class _Stopped(Exception):
    pass


async def test_a_failure_rolls_back_its_own_transaction_only(store: Any) -> None:
    async def good(key: str) -> None:
        async def work(transaction: Any) -> None:
            await transaction.put(Stamp(key=key))

        await store.transact(work)

    async def bad() -> None:
        async def work(transaction: Any) -> None:
            await transaction.put(Stamp(key="bad"))
            raise _Stopped

        await store.transact(work)

    results = await asyncio.gather(
        good("a"), bad(), good("b"), bad(), good("c"), return_exceptions=True
    )
    assert [type(result) for result in results] == [
        type(None),
        _Stopped,
        type(None),
        _Stopped,
        type(None),
    ]
    assert [stamp.key for stamp in await store.every(Stamp)] == ["a", "b", "c"]


async def test_transactions_do_not_lose_each_others_increments(store: Any) -> None:
    await keep(store, Stamp(key="count"))

    async def increment(transaction: Any) -> None:
        stamp = await transaction.get(Stamp, "count")
        await transaction.put(Stamp(key="count", value=stamp.value + 1))

    await asyncio.gather(*(store.transact(increment) for _ in range(100)))
    assert await store.get(Stamp, "count") == Stamp(key="count", value=100)


async def test_two_openings_of_one_store_do_not_lose_increments_either(
    store: Any, second: Any
) -> None:
    await keep(store, Stamp(key="count"))

    async def increment(transaction: Any) -> None:
        stamp = await transaction.get(Stamp, "count")
        await transaction.put(Stamp(key="count", value=stamp.value + 1))

    await asyncio.gather(*(one.transact(increment) for _ in range(40) for one in (store, second)))
    assert await second.get(Stamp, "count") == Stamp(key="count", value=80)


async def test_expired_records_can_be_dropped_and_others_stay(store: Any) -> None:
    await keep(
        store,
        Note(key="old", topic="t", expires=100.0),
        Note(key="young", topic="t", expires=300.0),
        Note(key="lasting", topic="t"),
    )

    async def work(transaction: Any) -> int:
        dropped: int = await transaction.drop_expired(200.0)
        return dropped

    assert await store.transact(work) == 1
    assert [note.key for note in await store.find(Note, "topic", "t")] == ["lasting", "young"]
    assert await store.get(Note, "old") is None


async def test_the_epoch_changes_with_every_commit_and_with_nothing_else(store: Any) -> None:
    before = await store.epoch()
    await store.get(Stamp, "a")
    assert await store.epoch() == before
    await keep(store, Stamp(key="b"))
    assert await store.epoch() != before


async def test_the_epoch_tells_of_commits_by_another_process(store: Any, second: Any) -> None:
    before = await store.epoch()
    await keep(second, Stamp(key="a"))
    assert await store.epoch() != before
    assert await store.get(Stamp, "a") == Stamp(key="a")


async def test_every_change_of_a_counted_kind_is_counted_in_its_transaction(store: Any) -> None:
    async def change(transaction: Any) -> None:
        await transaction.insert(Rare(key="a"))
        await transaction.put(Rare(key="a", value=1))
        assert await transaction.replace(Rare(key="a", value=1), Rare(key="a", value=2))
        assert await transaction.delete(Rare, "a")

    async def no_change(transaction: Any) -> None:
        assert not await transaction.replace(Rare(key="a", value=1), Rare(key="a", value=2))
        assert not await transaction.delete(Rare, "a")
        await transaction.put(Stamp(key="a"))

    async def fails(transaction: Any) -> None:
        await transaction.put(Rare(key="b"))
        raise LookupError

    assert await changes_of(store, Rare) == 0
    await store.transact(change)
    assert await changes_of(store, Rare) == 4
    await store.transact(no_change)
    with pytest.raises(LookupError):
        await store.transact(fails)
    assert await changes_of(store, Rare) == 4
    assert await changes_of(store, Stamp) == 0


async def test_changes_at_the_same_time_are_all_counted(store: Any) -> None:
    async def put(number: int) -> None:
        await keep(store, Rare(key=f"{number}"))

    await asyncio.gather(*(put(number) for number in range(8)))
    assert await changes_of(store, Rare) == 8


async def test_another_process_sees_the_count_with_the_change(store: Any, second: Any) -> None:
    await keep(store, Rare(key="a"))
    assert await changes_of(second, Rare) == 1
    await keep(second, Rare(key="a", value=1))
    assert await changes_of(store, Rare) == 2
