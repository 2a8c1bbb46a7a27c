"""Whatever is taken, moved and given back in whatever order: no moment has two holders."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.resources import reservation
from fhir_portal.resources.reservation import TakenCell, TakenTime, TimeTaken
from tests.builders import DERM, START, Clock

ACTORS = ("Practitioner/a", "Practitioner/b", "Location/c")
MINUTE = 60_000_000
FIRST = 6_400_000 * 5

TAKE = st.tuples(
    st.integers(0, 4),
    st.integers(0, 60),
    st.integers(1, 30),
    st.frozensets(st.sampled_from(ACTORS), min_size=1),
)
STEPS = st.lists(st.one_of(TAKE, st.integers(0, 4)), max_size=25)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_times_are_those_of_a_plain_model(steps: list[Any]) -> None:
    asyncio.run(held_against_a_model(steps))


async def take(store: EmbeddedStore, wanted: TakenTime) -> None:
    await store.transact(lambda change: reservation.take(change, wanted, now=START))


async def give_back(store: EmbeddedStore, number: int) -> None:
    await store.transact(lambda change: reservation.release(change, DERM, f"{number}"))


async def held_against_a_model(steps: list[Any]) -> None:
    store = EmbeddedStore.open(":memory:", clock=Clock())
    model: dict[int, frozenset[tuple[str, int]]] = {}
    try:
        for step in steps:
            if isinstance(step, int):
                await give_back(store, step)
                model.pop(step, None)
                continue
            number, first, length, actors = step
            wanted = frozenset(
                (a, FIRST + first + n) for a in actors for n in range(length)
            )  # by the minute
            fits = all(not wanted & held for other, held in model.items() if other != number)
            time = TakenTime(
                key=f"{DERM}/{number}",
                actors=tuple(sorted(actors)),
                start=(FIRST + first) * MINUTE,
                end=(FIRST + first + length) * MINUTE,
            )
            try:
                await take(store, time)
            except TimeTaken:
                assert not fits
            else:
                assert fits
                model[number] = wanted
            found = await store.every(TakenCell)
            assert {(one.key, who.appointment) for one in found for who in one.holders} == {
                (f"{DERM}/{actor}/{minute // 5}", f"{holder}")
                for holder, held in model.items()
                for actor, minute in held
            }
            assert all(one.holders for one in found)
    finally:
        store.close()
