"""Sudden death of a real server process; the full figures come from ``durability.py``."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end import durability, sync_trace
from tests.places import File, Place, kinds, new_place


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = new_place(request.param, tmp_path)
    yield place
    await place.drop()


@pytest.mark.parametrize("place", kinds("file"), indirect=True)
async def test_kill_9_loses_no_acknowledged_write_and_no_access_row(
    tmp_path: Path, place: Place
) -> None:
    # A database takes most of a minute to be sure that who held the turn is dead.
    kills = 2 if isinstance(place, File) else 1
    outcome = await durability.run(tmp_path, place, writes=150, reads=300, kills=kills)
    assert len(outcome.written) > 100
    assert sum(outcome.answered.values()) > 200
    assert (outcome.lost, outcome.changed, outcome.unlogged) == ([], [], [])
    if isinstance(place, File):
        assert outcome.refused == 0
        assert outcome.integrity == "ok, ok"


@pytest.mark.skipif(
    not durability.Outage.of_environment(),
    reason="FHIR_PORTAL_TEST_MONGODB_KILL and …_RESTART say nothing about how to kill the database",
)
@pytest.mark.parametrize("place", kinds(), indirect=True)
async def test_kill_9_of_the_database_loses_nothing_and_the_server_recovers(
    tmp_path: Path, place: Place
) -> None:
    outcome = await durability.run(
        tmp_path,
        place,
        writes=300,
        reads=300,
        kills=0,
        outages=2,
        outage=durability.Outage.of_environment(),
    )
    assert len(outcome.written) > 200
    assert outcome.refused > 0
    assert len(outcome.recoveries) == 2
    assert (outcome.lost, outcome.changed, outcome.unlogged) == ([], [], [])


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_a_write_is_synced_before_it_is_answered(tmp_path: Path) -> None:
    calls = await sync_trace.trace(tmp_path)
    assert sync_trace.in_order(calls), calls


def test_the_trace_tells_a_missing_sync() -> None:
    """The check itself notices an answer that leaves before the sync."""
    write, sync, log = (
        "write to the store's log",
        "sync of the store's log",
        "write to the access log",
    )
    assert sync_trace.in_order([write, sync, log, "answer 201"])
    assert not sync_trace.in_order([sync, write, log, "answer 201", sync])
    assert not sync_trace.in_order([write, sync, "answer 201"])
