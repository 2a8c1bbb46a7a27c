"""Many invitations at a real server; the full figures come from ``invitations.py``."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.invitations import measure


async def test_what_others_wait_for_comes_while_many_are_invited(tmp_path: Path) -> None:
    found = await measure("no limit", tmp_path / "portal", 40, afterwards=8.0)
    assert found.counted == {"201": 40}
    assert found.is_whole
    assert found.noticed.mails
    assert found.noticed.pages
