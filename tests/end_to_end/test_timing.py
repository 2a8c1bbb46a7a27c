"""The statistic of the measurement of answers' times; times are measured in its own run alone."""

from __future__ import annotations

import random

import pytest

from tests.end_to_end.timing import ALPHA, mann_whitney


def test_the_statistic_tells_a_shift_from_none() -> None:
    """Against figures worked out by hand: U = 0 of 25, z = (12.5 - 0.5) / sqrt(275 / 12)."""
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(0.012186, abs=1e-5)
    assert mann_whitney([1, 1, 1], [1, 1, 1]) == 1.0
    draw = random.Random(3)
    same = [draw.gauss(20, 2) for _ in range(400)]
    other = [draw.gauss(20, 2) for _ in range(400)]
    assert mann_whitney(same, other) > ALPHA
    assert mann_whitney(same, [value + 0.5 for value in other]) < ALPHA
