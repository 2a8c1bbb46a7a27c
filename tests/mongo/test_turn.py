"""A turn that is taken away, by whom, and what becomes of it: servers without transactions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from fhir_portal.fhir.errors import Unavailable
from fhir_portal.mongo.driver import UnknownOutcome, connect
from fhir_portal.mongo.store import MongoStore
from fhir_portal.mongo.turn import LeaseTurns
from tests.builders import keep
from tests.mongo.faults import FaultyDriver, Note
from tests.places import NO_SERVER, SERVER, TRANSACTIONS, Database

pytestmark = [
    pytest.mark.mongo,
    pytest.mark.skipif(not SERVER, reason=NO_SERVER),
    pytest.mark.skipif(TRANSACTIONS, reason="this server has transactions"),
]

Hurried = Callable[[], AbstractContextManager[None]]


class _Dies(FaultyDriver):
    """A process that dies before its n-th command from now: nothing it does later arrives."""

    dies_before = -1

    async def run(self, command: str, call: Any) -> Any:
        if len(self.seen) == self.dies_before:
            self.dies_before = 0  # and before every one after it
        if self.dies_before == 0:
            raise UnknownOutcome
        return await super().run(command, call)

    def die_before(self, count: int) -> None:
        self.seen = []
        self.dies_before = count or 0
        if not count:
            self.dies_before = 0


@pytest.fixture
async def place() -> AsyncIterator[Database]:
    here = Database.new(SERVER, "pymongo", transactions=False)
    yield here
    await here.drop()


async def _opened(place: Database, kind: Any = FaultyDriver) -> tuple[MongoStore, Any]:
    driver = connect(place.uri, "pymongo", kind=kind)
    store = await MongoStore.over(driver, transactions=False, expire=False)
    assert isinstance(store.turns, LeaseTurns)
    store.turns.abandoned_after = 0.05
    return store, driver


async def _change_much(transaction: Any) -> None:
    await transaction.put(Note(key="a", value=2))
    await transaction.find(Note, "topic", "t")  # which sends it
    await transaction.put(Note(key="a", value=3))
    await transaction.put(Note(key="b", value=1))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Hurried:
    """Have whoever dies give up soon; the living wait as ever, on however slow a machine."""

    @contextlib.contextmanager
    def soon() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr("fhir_portal.mongo.turn.WAIT_SECONDS", 0.2)
            yield

    return soon


async def _commands(store: MongoStore, driver: Any) -> int:
    driver.seen = []
    await store.transact(_change_much)
    return len(driver.seen)


async def test_whoever_dies_at_whichever_command_is_rolled_back(
    place: Database, hurried: Hurried
) -> None:
    dying, driver = await _opened(place, _Dies)
    living, _ = await _opened(place)
    commands = await _commands(dying, driver)
    before = [Note(key="a", value=1)]
    after = [Note(key="a", value=3), Note(key="b", value=1)]
    for place_of_death in range(1, commands + 1):
        await keep(living, *before)

        async def drop(transaction: Any) -> None:
            await transaction.delete(Note, "b")

        await living.transact(drop)
        driver.die_before(place_of_death)
        failed = False
        try:
            with hurried():
                await dying.transact(_change_much)
        except Unavailable:
            failed = True
        driver.dies_before = -1
        await keep(living, Note(key="c"))
        found = [note for note in await living.every(Note) if note.key != "c"]
        assert found == after or (failed and found == before), place_of_death
    for store in (dying, living):
        await store.aclose()


async def test_one_who_dies_rolling_another_back_leaves_both_to_the_next(
    place: Database, hurried: Hurried
) -> None:
    """Planted: without the names of those owed in the turn, the first one's half stays."""
    first, first_driver = await _opened(place, _Dies)
    second, second_driver = await _opened(place, _Dies)
    third, _ = await _opened(place)
    commands = await _commands(first, first_driver)
    for first_dies in range(2, commands):
        for second_dies in range(2, 9):
            await keep(third, Note(key="a", value=1))

            async def drop(transaction: Any) -> None:
                await transaction.delete(Note, "b")

            await third.transact(drop)
            told: list[bool] = []
            for store, driver, count in (
                (first, first_driver, first_dies),
                (second, second_driver, second_dies),
            ):
                driver.die_before(count)
                try:
                    with hurried():
                        await store.transact(_change_much)
                    told.append(True)
                except Unavailable:
                    told.append(False)
                driver.dies_before = -1
            await keep(third, Note(key="c"))
            found = {note.key: note.value for note in await third.every(Note)}
            found.pop("c")
            assert found in ({"a": 1}, {"a": 3, "b": 1}), (first_dies, second_dies, told)
            assert not any(told) or found != {"a": 1}
    for store in (first, second, third):
        await store.aclose()


async def test_one_whose_turn_was_taken_away_does_not_undo_what_came_after(
    place: Database,
) -> None:
    """Planted: undoing without asking who holds the turn puts the old value over the new."""
    slow, driver = await _opened(place)
    other, _ = await _opened(place)
    await keep(other, Note(key="a", value=1))

    async def work(transaction: Any) -> None:
        await transaction.put(Note(key="a", value=2))
        await transaction.find(Note, "topic", "t")
        await keep(other, Note(key="a", value=5))  # finds the turn abandoned, after its time
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - its own
        await slow.transact(work)
    del driver
    assert await other.get(Note, "a") == Note(key="a", value=5)
    for store in (slow, other):
        await store.aclose()
