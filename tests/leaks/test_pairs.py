"""Show 4: hidden changes leave answers byte-identical, answers are complete, faults are caught."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.leaks import world
from tests.leaks.faults import PLANTED, with_fault
from tests.leaks.pairs import KINDS, Figures, run
from tests.leaks.world import READERS


@pytest.fixture(scope="module")
def figures() -> Figures:
    return run(200, seed=1)


def test_a_hidden_change_alters_no_byte_of_any_answer(figures: Figures) -> None:
    assert figures.pairs == 200
    assert not figures.differences, "\n".join(map(str, figures.differences))


def test_every_answer_holds_exactly_what_the_world_says(figures: Figures) -> None:
    assert figures.twins > 300
    assert not figures.incomplete, "\n".join(map(str, figures.incomplete))


def test_the_pairs_reach_every_reader_and_nearly_every_kind_of_request(figures: Figures) -> None:
    assert set(figures.readers) == {reader.name for reader in READERS}
    assert len(figures.kinds) >= len(KINDS) - 2
    assert len(figures.changes) >= 5


def test_there_are_enough_planted_faults() -> None:
    assert len(PLANTED) >= 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    asyncio.run(world.build(folder))
    return folder


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_caught(name: str, base: Path) -> None:
    with with_fault(name):
        built = None if PLANTED[name].on_write else base
        caught = run(900, seed=7, stop_at_first=True, base=built)
    assert caught.findings, f"{name}: {PLANTED[name].breaks}"
    # Seen in an answer, not because the fault made the server stumble.
    assert all("found 500" not in finding.detail for finding in caught.findings)
