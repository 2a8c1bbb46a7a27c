from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.stories.house import House
from tests.stories.story import Story


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await House.begin(tmp_path)
    yield house
    await house.close()


@pytest.fixture
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    """What a story shows; at its end it has shown all the rows that it is marked with."""
    story = Story()
    yield story
    marked = {
        row
        for mark in request.node.iter_markers("requirement")
        if mark.args[0] == "portal"
        for row in mark.args[1:]
    }
    if story.is_told:
        assert marked <= set(story.rows)
