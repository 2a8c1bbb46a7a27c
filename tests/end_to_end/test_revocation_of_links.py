"""A link ends with the access it was made by, at two processes; the figures: ``revocation.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.end_to_end.demo import Demo
from tests.end_to_end.processes import CAN_TELL
from tests.end_to_end.revocation import Way, World, world_of
from tests.end_to_end.revocation_of_links import LINK_WAYS, try_links

pytestmark = [
    pytest.mark.skipif(not CAN_TELL, reason="only Linux tells who holds a connection"),
    pytest.mark.requirement("portal", "S2-15", "S4-20"),
]


@pytest.fixture
async def world(demo: Demo) -> AsyncIterator[World]:
    async with world_of(demo) as world:
        yield world


@pytest.mark.parametrize("way", LINK_WAYS, ids=lambda way: way.name)
async def test_the_next_use_at_each_process_shows_nothing(world: World, way: Way) -> None:
    """Neither the link nor a file of it that was given an address before; and it stays so."""
    found = await try_links(world, way, rounds=2)
    expected = 404 if way.ends else 200
    assert {status for _, status in found} == {expected}, found
    assert found["manifest", expected] == found["file", expected] == 4
