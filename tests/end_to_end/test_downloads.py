"""Running downloads of a real server end with the access of who reads them: `downloads`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.end_to_end.demo import Demo
from tests.end_to_end.downloads import READERS, Files, try_reader
from tests.end_to_end.processes import CAN_TELL
from tests.end_to_end.revocation import World, world_of

pytestmark = [
    pytest.mark.skipif(not CAN_TELL, reason="only Linux tells who holds a connection"),
    pytest.mark.requirement("portal", "S2-15"),
]

SMALL = 12 * 1024 * 1024
_files: dict[str, Files] = {}


@pytest.fixture
async def world(demo: Demo) -> AsyncIterator[World]:
    async with world_of(demo) as world:
        yield world


@pytest.fixture
async def files(demo: Demo) -> Files:
    """The files of one demo, put there once."""
    key = str(demo.place)
    if key not in _files:
        _files[key] = await Files.put(demo, SMALL)
    return _files[key]


@pytest.mark.parametrize("name", READERS)
async def test_a_download_ends_with_access_at_the_other_process(
    world: World, files: Files, name: str
) -> None:
    measured = await try_reader(world, files, name, rounds=2)
    print(measured)
    assert measured.wrong == []
    assert len(measured.seconds) == 2
    assert "ASGI" not in (world.demo.folder / "server.log").read_text("utf-8")
