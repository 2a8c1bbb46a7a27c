"""Sudden death of workers that send mail; the full figures come from ``delivery.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end import delivery
from tests.notify.receiver import Taken
from tests.places import File, Place, kinds, new_place


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = new_place(request.param, tmp_path)
    yield place
    await place.drop()


@pytest.mark.parametrize("place", kinds("file"), indirect=True)
async def test_kill_9_loses_no_mail_and_repeats_only_what_the_server_had(
    tmp_path: Path, place: Place
) -> None:
    kills = 2 if isinstance(place, File) else 1
    outcome = await delivery.run(tmp_path, place, rounds=1, messages=40, kills=kills)
    assert (outcome.lost, outcome.wrongly_repeated, outcome.changed) == ([], [], [])
    assert set(outcome.kills) == {*delivery.WINDOWS, "at random"}
    # In these two the repeat is certain: the check would see one.
    for window in delivery.WINDOWS:
        times = len(outcome.taken[f"{window}.0"])
        assert times == (2 if window in delivery.REPEATS else 1), window


def mail(name: str, link: str = "http://x/activate/1") -> Taken:
    head = f"Message-ID: <{name}@x>\r\nContent-Type: text/plain\r\n\r\n"
    return Taken("s", ["r"], f"{head}{link}\r\n".encode())


def test_the_show_tells_loss_wrong_repeats_and_other_links() -> None:
    """The check itself notices each of them."""
    right = delivery.Outcome(sent=["a"], taken={"a": [mail("1")]})
    assert right.right
    assert delivery.Outcome(sent=["a"]).lost == ["a"]
    twice = delivery.Outcome(sent=["a"], taken={"a": [mail("1"), mail("1")]})
    assert twice.wrongly_repeated == ["a"]
    twice.may_repeat["a"] += 1
    assert twice.right
    for other in (mail("2"), mail("1", "http://x/activate/2"), mail("1", "nothing")):
        changed = delivery.Outcome(sent=["a"], taken={"a": [mail("1"), other]})
        changed.may_repeat["a"] += 1
        assert changed.changed == ["a"]
        assert not changed.right
