"""Every way in which access ends, at two processes; the full figures: ``revocation.py``.

Seen to fail: with a remembered caller that is used without reading the epoch; with a batch that
does not ask again before each entry; with a request that does not ask again after its body; with
a revocation or a narrowing that leaves the access tokens as they were.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.end_to_end.demo import Demo
from tests.end_to_end.processes import CAN_TELL
from tests.end_to_end.revocation import (
    QUICK,
    WAYS,
    Way,
    World,
    end_during_batch,
    try_reading_only,
    try_way,
    world_of,
)

pytestmark = pytest.mark.skipif(not CAN_TELL, reason="only Linux tells who holds a connection")


@pytest.fixture
async def world(demo: Demo) -> AsyncIterator[World]:
    """An app that Petra uses, and two connections to each of two processes."""
    async with world_of(demo) as world:
        yield world


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_the_next_request_at_each_process_is_refused(world: World, way: Way) -> None:
    """Whichever comes next: a read, the next page of a search, the last byte of a batch."""
    outcome = await try_way(world, way, rounds=3)
    assert outcome.wrong(way) == []
    assert [counted.total() for counted in outcome.first.values()] == [3, 3]


async def test_an_app_that_may_read_only_writes_at_no_process(world: World) -> None:
    counted = await try_reading_only(world, rounds=1)
    assert counted == {("write", 403): 2, ("read", 200): 2}


@pytest.mark.parametrize("way", QUICK, ids=lambda way: way.name)
async def test_a_batch_that_runs_goes_no_further(world: World, way: Way) -> None:
    """What it did before is done; after the first refusal nothing is answered any more."""
    found = await end_during_batch(world, way, rounds=3, until_cut=12)
    assert found.total() >= 3
    assert found["whole"] < found.total()
