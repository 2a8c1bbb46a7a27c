"""Messages and sudden death of the server; the full figures come from ``messages.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end import messages
from tests.places import Place, kinds, new_place


@pytest.mark.parametrize("kind", kinds("file"))
async def test_kill_9_loses_no_message_and_doubles_none(tmp_path: Path, kind: str) -> None:
    place: Place = new_place(kind, tmp_path)
    try:
        outcome = await messages.run(tmp_path, place, messages=120, kills=2)
    finally:
        await place.drop()
    assert len(outcome.answered) == 120
    assert outcome.asked > 120
    assert outcome.right, outcome
