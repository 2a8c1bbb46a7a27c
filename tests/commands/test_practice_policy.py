"""``fhir-portal practice policy``: shown, set by name, all or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import refused, run, told

pytestmark = pytest.mark.usefixtures("elm")


@pytest.fixture
def elm(own_store: Path) -> None:
    assert not own_store.exists()
    run("practice", "add", "elm", "Elm Street")


def test_what_is_set_stays_and_the_rest_is_as_it_was() -> None:
    before = told("practice", "policy", "elm")
    after = told("practice", "policy", "elm", "--set", "invite-on-booking=on")
    assert after == before | {"invite-on-booking": True}
    assert told("practice", "policy", "elm") == after


def test_of_several_one_that_is_none_changes_nothing() -> None:
    before = told("practice", "policy", "elm")
    wrong = ("--set", "adult-age=16", "--set", "country=Atlantis")
    assert "country" in refused("practice", "policy", "elm", *wrong)
    assert "NAME=VALUE" in refused("practice", "policy", "elm", "--set", "adult-age")
    assert "no practice" in refused("practice", "policy", "oak")
    assert told("practice", "policy", "elm") == before
