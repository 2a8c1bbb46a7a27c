"""``fhir-portal practice messages``: shown, and set from a file, all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.running import refused, run

pytestmark = pytest.mark.usefixtures("elm")


@pytest.fixture
def elm(own_store: Path) -> None:
    assert not own_store.exists()
    run("practice", "add", "elm", "Elm Street")


def shown(*more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("practice", "messages", "elm", *more).stdout)
    return found


def test_what_is_set_is_what_is_shown_and_what_is_wrong_changes_nothing(tmp_path: Path) -> None:
    before = shown()
    assert before["topics"][0]["code"] == "medical"
    file = tmp_path / "messages.json"
    file.write_text(json.dumps({"topics": [{"code": "skin", "name": "Skin"}]}))
    after = shown("--set-from", str(file))
    assert [one["code"] for one in after["topics"]] == ["skin"]
    assert after["warning"] == before["warning"]
    for wrong in ("{", "[]", '{"topics": []}', '{"nothing": 1}'):
        file.write_text(wrong)
        assert refused("practice", "messages", "elm", "--set-from", str(file))
    assert refused("practice", "messages", "elm", "--set-from", str(tmp_path / "nowhere"))
    assert "no practice" in refused("practice", "messages", "oak")
    assert shown() == after
