"""Time is taken once, on every store: by one Appointment, by one of many at the same moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_portal.resources import reservation
from fhir_portal.resources.reservation import (
    CELL_SECONDS,
    Holder,
    Span,
    TakenCell,
    TakenTime,
    TimeTaken,
)
from fhir_portal.resources.store import PortalStore
from tests.builders import DERM, FAMILY, START

FIRST = int(START) // CELL_SECONDS + 100
CELL = CELL_SECONDS * 1_000_000
DOCTOR, ROOM = "Practitioner/lark", "Location/room-1"


def a_time(
    name: str,
    first: float = 0,
    last: float = 4,
    *,
    actors: tuple[str, ...] = (DOCTOR,),
    practice: str = DERM,
    until: float | None = None,
) -> TakenTime:
    """``first`` and ``last`` are in cells from `FIRST` on."""
    span = a_span(first, last)
    return TakenTime(
        key=f"{practice}/{name}", actors=actors, start=span.start, end=span.end, until=until
    )


def a_span(first: float, last: float) -> Span:
    return Span(int((FIRST + first) * CELL), int((FIRST + last) * CELL))


async def take(store: PortalStore, wanted: TakenTime, *, now: float = START, **more: Any) -> None:
    await store.transact(lambda change: reservation.take(change, wanted, now=now, **more))


async def cells(store: PortalStore, actor: str = DOCTOR, *, now: float = START) -> set[int]:
    found = await reservation.taken_times(store, DERM, actor, a_span(-300, 300), now=now)
    return {cell - FIRST for one in found for cell in one.cells}


async def test_time_that_is_taken_is_not_taken_again(store: PortalStore) -> None:
    await take(store, a_time("a", actors=(DOCTOR, ROOM)))
    for overlapping in (a_time("b", 3, 9), a_time("b", -2, 1), a_time("b", actors=(ROOM,))):
        with pytest.raises(TimeTaken):
            await take(store, overlapping)
    assert await cells(store) == {0, 1, 2, 3}
    assert await reservation.time_of(store, DERM, "b") is None
    await take(store, a_time("b", 4, 8))
    await take(store, a_time("b-elsewhere", practice=FAMILY))
    await take(store, a_time("c", actors=("Practitioner/other",)))


async def test_what_is_given_back_is_there_for_others(store: PortalStore) -> None:
    await take(store, a_time("a", actors=(DOCTOR, ROOM)))
    await store.transact(lambda change: reservation.release(change, DERM, "a"))
    assert await cells(store) == set()
    assert await store.every(TakenCell) == []
    await take(store, a_time("b"))
    await store.transact(lambda change: reservation.release(change, DERM, "a"))
    assert await cells(store) == {0, 1, 2, 3}


async def test_moving_gives_back_what_is_left(store: PortalStore) -> None:
    await take(store, a_time("a"))
    await take(store, a_time("a", 2, 6))
    assert await cells(store) == {2, 3, 4, 5}
    await take(store, a_time("b", 6, 8))
    with pytest.raises(TimeTaken):
        await take(store, a_time("a", 5, 7))
    assert await cells(store) == {2, 3, 4, 5, 6, 7}


async def test_a_hold_is_over_at_its_moment(store: PortalStore) -> None:
    await take(store, a_time("held", until=START + 60))
    with pytest.raises(TimeTaken):
        await take(store, a_time("b"), now=START + 59.9)
    assert await cells(store, now=START + 60) == set()
    await take(store, a_time("b", 0, 2), now=START + 60)
    await store.transact(lambda change: reservation.release(change, DERM, "held"))
    assert await cells(store, now=START + 60) == {0, 1}


async def test_who_may_book_twice_takes_what_is_taken_and_each_gives_back_its_own(
    store: PortalStore,
) -> None:
    await take(store, a_time("a"))
    await take(store, a_time("b", 2, 6), twice=True)
    with pytest.raises(TimeTaken):
        await take(store, a_time("c", 3, 4))
    await store.transact(lambda change: reservation.release(change, DERM, "a"))
    assert await cells(store) == {2, 3, 4, 5}


async def test_a_hold_under_a_double_booking_still_ends_by_the_clock(store: PortalStore) -> None:
    await take(store, a_time("held", until=START + 60))
    await take(store, a_time("b", 2, 6), twice=True)
    await store.transact(lambda change: reservation.release(change, DERM, "b"))
    assert await cells(store) == {0, 1, 2, 3}
    assert await cells(store, now=START + 60) == set()
    await take(store, a_time("c"), now=START + 60)


async def test_taking_twice_again_leaves_one_holder_of_each(store: PortalStore) -> None:
    await take(store, a_time("a", 2, 4))
    for _ in range(2):
        await take(store, a_time("b"), twice=True)
    for cell in await store.every(TakenCell):
        names = [one.appointment for one in cell.holders]
        assert names == (["b"] if cell.cell - FIRST < 2 else ["a", "b"])
    await store.transact(lambda change: reservation.release(change, DERM, "b"))
    assert await cells(store) == {2, 3}


async def test_two_have_a_cell_side_by_side_and_no_moment_of_it_twice(store: PortalStore) -> None:
    """From 09:00 to 09:12, from 09:12 to 09:24."""
    await take(store, a_time("a", 0, 2.4))
    await take(store, a_time("b", 2.4, 4.8, until=START + 60))
    for overlapping in (a_time("c", 2.3, 2.4), a_time("c", 2.4, 2.5), a_time("c", 4.7, 6)):
        with pytest.raises(TimeTaken):
            await take(store, overlapping)
    await take(store, a_time("c", 4.8, 6))
    middle = [one for one in await store.every(TakenCell) if one.cell == FIRST + 2]
    assert [cell.holders for cell in middle] == [
        (Holder("a", FIRST * CELL, int((FIRST + 2.4) * CELL)), one_of(middle, "b"))
    ]
    await store.transact(lambda change: reservation.release(change, DERM, "a"))
    await take(store, a_time("d", 0, 2.4), now=START + 60)
    assert await cells(store, now=START + 60) == {0, 1, 2, 4, 5}


def one_of(cells: list[TakenCell], name: str) -> Holder:
    return next(one for cell in cells for one in cell.holders if one.appointment == name)


async def test_of_50_at_once_over_two_halves_of_a_cell_one_wins_each(store: PortalStore) -> None:
    async def one(number: int) -> bool:
        first = 0.5 * (number % 2)
        try:
            await take(store, a_time(f"of-{number}", first, first + 0.5))
        except TimeTaken:
            return False
        return True

    won = await asyncio.gather(*(one(number) for number in range(50)))
    assert (won[::2].count(True), won[1::2].count(True)) == (1, 1)
    (cell,) = await store.every(TakenCell)
    assert len(cell.holders) == 2


async def test_what_is_put_away_in_a_transaction_comes_back_with_its_end(
    store: PortalStore,
) -> None:
    await take(store, a_time("a", until=START + 60))

    async def work(change: Any) -> None:
        await reservation.lift(change, DERM, "a")
        within = a_span(0, 4)
        assert not await reservation.taken_times(change, DERM, DOCTOR, within, now=START)
        held = await reservation.time_of(change, DERM, "a")
        assert held is not None
        assert held.until == START + 60
        await reservation.take(change, held, now=START)

    await store.transact(work)
    assert await cells(store) == {0, 1, 2, 3}
    assert await cells(store, now=START + 60) == set()


async def test_of_50_at_once_over_overlapping_times_one_wins(
    store: PortalStore,
) -> None:
    """Each of them touches the cell in the middle; half of them by another set of actors."""

    async def one(number: int) -> bool:
        first = number % 4
        actors = (DOCTOR,) if number % 2 else (DOCTOR, f"Location/room-{number}")
        try:
            await take(store, a_time(f"of-{number}", first, first + 4, actors=actors))
        except TimeTaken:
            return False
        return True

    won = await asyncio.gather(*(one(number) for number in range(50)))
    assert won.count(True) == 1
    assert len(await cells(store)) == 4
    assert len(await store.every(TakenTime)) == 1


async def test_cells_whose_day_is_past_are_dropped(store: PortalStore) -> None:
    await take(store, a_time("a"))
    await store.transact(lambda change: change.drop_expired(START + 40 * 86_400.0))
    assert await store.every(TakenCell) == []
    assert await store.every(TakenTime) == []


def test_times_touch_whole_cells_and_are_never_empty() -> None:
    nine = Span.of("2030-04-01T09:00:00Z", "2030-04-01T09:20:00Z")
    assert len(nine.cells) == 4
    assert Span.of("2030-04-01T09:02:00Z", "2030-04-01T09:15:01Z").cells == nine.cells
    assert Span.of("2030-04-01T04:00:00-05:00", "2030-04-01T04:20:00-05:00") == nine
    assert len(Span.of("2030-04-01T09:00:00Z", "2030-04-01T09:00:00Z").cells) == 1
    after = Span.of("2030-04-01T09:20:00Z", "2030-04-01T09:25:00Z")
    assert after.cells.start == nine.cells.stop
    assert not after.meets(nine)
