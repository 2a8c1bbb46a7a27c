"""A process that writes all the time lets others have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.resources.store import PortalStore
from tests.builders import keep
from tests.mongo.faults import Note
from tests.places import NO_SERVER, SERVER, TRANSACTIONS, Database

pytestmark = [pytest.mark.mongo, pytest.mark.skipif(not SERVER, reason=NO_SERVER)]


@pytest.fixture
async def place() -> AsyncIterator[Database]:
    here = Database.new(SERVER, "pymongo", transactions=TRANSACTIONS)
    yield here
    await here.drop()


async def test_one_who_waits_is_let_through_after_few_turns(place: Database) -> None:
    """Planted: without the pause the other one waits for as long as there is something to write."""
    busy, other = await place.open(), await place.open()
    try:
        waits = await turns_waited(busy, other, times=3)
    finally:
        for store in (busy, other):
            await store.aclose()
    assert max(waits) < 15


async def turns_waited(busy: PortalStore, other: PortalStore, *, times: int) -> list[int]:
    """Return how many turns of ``busy``, which writes all the time, ``other`` waited for each."""
    turns = 0
    done = asyncio.Event()

    async def long(transaction: Any) -> None:
        await transaction.put(Note(key="busy"))
        await asyncio.sleep(0.1)

    async def keep_writing() -> None:
        nonlocal turns
        while not done.is_set():
            await busy.transact(long)
            turns += 1

    writing = asyncio.create_task(keep_writing())
    waits: list[int] = []
    try:
        for n in range(times):
            began = turns
            await keep(other, Note(key=f"other{n}"))
            waits.append(turns - began)
    finally:
        done.set()
        await writing
    return waits
