"""The measurement of answers' times finds a planted difference; the run itself is `timing`'s."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.end_to_end.timing import ALPHA, mann_whitney, measured, opened, planted


def test_the_statistic_tells_a_shift_from_none() -> None:
    """Against figures worked out by hand: U = 0 of 25, z = (12.5 - 0.5) / sqrt(275 / 12)."""
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(0.012186, abs=1e-5)
    assert mann_whitney([1, 1, 1], [1, 1, 1]) == 1.0
    draw = random.Random(3)
    same = [draw.gauss(20, 2) for _ in range(400)]
    other = [draw.gauss(20, 2) for _ in range(400)]
    assert mann_whitney(same, other) > ALPHA
    assert mann_whitney(same, [value + 0.5 for value in other]) < ALPHA


@pytest.mark.parametrize("flow", ["recovery", "user name"])
async def test_a_planted_branch_of_five_milliseconds_is_found(tmp_path: Path, flow: str) -> None:
    async with opened(tmp_path) as house:
        with planted():
            found = await measured(house, flow, 25, seed=1)
    assert found.p < ALPHA
    assert found.known > found.unknown
