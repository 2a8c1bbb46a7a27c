"""The stores the contract holds for, opened empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fhir_portal.resources.store import PortalStore
from tests.builders import Clock
from tests.places import DRIVERS, EMBEDDED, Place, kinds, new_place

Open = Callable[[], Awaitable[PortalStore]]


@pytest.fixture(scope="session")
def databases() -> Iterator[dict[str, Place]]:
    """One database for each driver, as long as the tests run: they empty it, which is quicker."""
    made: dict[str, Place] = {}
    yield made
    for place in made.values():
        asyncio.run(place.drop())


@pytest.fixture(params=kinds(*EMBEDDED))
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, databases: dict[str, Place]
) -> Place:
    """Where the store under test is."""
    kind = request.param
    if kind in DRIVERS:
        place = databases.get(kind)
        if place is None:
            place = databases[kind] = new_place(kind, tmp_path)
        await place.empty()
    else:
        place = new_place(kind, tmp_path)
    if request.node.get_closest_marker("transactions") and not place.transactions:
        pytest.skip("this server has no transactions: a reader may see what is not committed yet")
    return place


@pytest.fixture
async def opened(place: Place, clock: Clock) -> AsyncIterator[Open]:
    """Open the store under test; called twice it opens the same one again (not in memory)."""
    stores: list[PortalStore] = []

    async def open_store() -> PortalStore:
        if stores and str(place) == "memory":
            pytest.skip("a store in memory is opened once")
        stores.append(await place.open(clock))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.aclose()


@pytest.fixture
async def store(opened: Open) -> PortalStore:
    return await opened()


@pytest.fixture
async def second(store: PortalStore, opened: Open) -> PortalStore:
    """Another process's view of the same store."""
    del store
    return await opened()


@pytest.fixture
async def elsewhere(place: Place, clock: Clock) -> AsyncIterator[PortalStore]:
    """Another store of the same kind."""
    other = place.another()
    store = await other.open(clock)
    yield store
    await store.aclose()
    await other.drop()
