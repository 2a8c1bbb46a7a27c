"""Payments through sudden deaths; the full figures come from ``payments.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end import payments
from tests.places import Place, kinds, new_place


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = new_place(request.param, tmp_path)
    yield place
    await place.drop()


@pytest.mark.requirement("portal", "S1-28")
@pytest.mark.parametrize("place", kinds("file"), indirect=True)
async def test_what_was_charged_is_what_the_bills_say(tmp_path: Path, place: Place) -> None:
    outcome = await payments.run(tmp_path, place, parallel=20, rounds=1)
    assert outcome.begun == {200: 6, 409: 14}
    assert outcome.same == {200: 20}
    assert (outcome.lost, outcome.kills) == (5, 2)
    assert sum(outcome.charged.values()) == 7 * payments.TOTAL * 100
    assert outcome.disagreements == []
