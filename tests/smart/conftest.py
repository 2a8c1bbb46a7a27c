from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.smart.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()
