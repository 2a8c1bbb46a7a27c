"""Show 4: hidden changes leave answers byte-identical, answers are complete, faults are caught."""

from __future__ import annotations

import asyncio

import pytest

from tests.leaks import world
from tests.leaks.faults import PLANTED, with_fault
from tests.leaks.pairs import KINDS, Figures, run
from tests.leaks.world import READERS
from tests.places import Place, kinds, new_place

PAIRS = 200


@pytest.fixture(scope="module", params=kinds("file"))
def figures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    place = new_place(request.param, tmp_path_factory.mktemp("pairs"))
    try:
        return run(PAIRS, seed=1, place=place)
    finally:
        asyncio.run(place.drop())


def test_a_hidden_change_alters_no_byte_of_any_answer(figures: Figures) -> None:
    assert figures.pairs == PAIRS
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
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = new_place("file", tmp_path_factory.mktemp("world"))
    asyncio.run(world.build(place))
    return place


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_caught(name: str, base: Place) -> None:
    with with_fault(name):
        built = not PLANTED[name].on_write
        caught = run(900, seed=7, stop_at_first=True, place=base if built else None, built=built)
    assert caught.findings, f"{name}: {PLANTED[name].breaks}"
    # Seen in an answer, not because the fault made the server stumble.
    assert all("found 500" not in finding.detail for finding in caught.findings)
