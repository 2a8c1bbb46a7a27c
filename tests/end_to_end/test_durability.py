"""Sudden death of a real server process; the full figures come from ``durability.py``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end import durability, sync_trace


async def test_kill_9_loses_no_acknowledged_write_and_no_access_row(tmp_path: Path) -> None:
    outcome = await durability.run(tmp_path, writes=150, reads=300, kills=2)
    assert len(outcome.written) > 100
    assert sum(outcome.answered.values()) > 200
    assert (outcome.lost, outcome.changed, outcome.unlogged) == ([], [], [])
    assert outcome.integrity == "ok, ok"


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
