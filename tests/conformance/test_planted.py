"""The table of planted faults cannot rot: each still applies, and each item has one.

Planting them is `python -m tests.conformance.faults`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.faults import ROOT, read_seen
from tests.conformance.planted import PLANTED, Fault

ITEMS = [
    *(f"S{number}" for number in range(1, 58)),
    *(f"G{number}" for number in range(1, 24)),
    *(f"X{number}" for number in (*range(1, 13), 14, 15, 17, 18)),
]
ATTACKS = (
    "open redirect",
    "mix-up",
    "code injection",
    "cross-site request forgery",
    "clickjacking",
    "session fixation",
    "JWKS poisoning",
    "algorithm confusion",
    "jti replay",
    "clock skew",
    "parameter pollution",
    "race on a code",
    "race on a refresh token",
    "race on a client assertion",
    "race on a launch",
    "race on a pushed request",
    "race on a DPoP proof",
    "race on a registration token",
    "race on a consent",
    "race on a recovery code",
    "race on a one-time password",
    "race on a passkey challenge",
)


@pytest.mark.parametrize("fault", PLANTED, ids=[fault.breaks for fault in PLANTED])
def test_a_fault_can_still_be_planted(fault: Fault) -> None:
    for file, old, new in fault.edits:
        text = source(file)
        assert text.count(old) == 1
        assert new != old
        ast.parse(text.replace(old, new))


def test_no_two_faults_say_the_same() -> None:
    words = [fault.breaks for fault in PLANTED]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("item", [*ITEMS, *ATTACKS])
def test_every_item_has_a_fault_that_its_tests_failed_on(item: str) -> None:
    assert [fault for fault in PLANTED if item in fault.items]
    seen = [one for one in read_seen() if item in one["items"] and one["tests"]]
    assert seen, f"python -m tests.conformance.faults --item '{item}' --write"


def test_every_fault_was_seen_by_a_test_that_is_there() -> None:
    seen = {one["breaks"]: one for one in read_seen()}
    assert seen.keys() == {fault.breaks for fault in PLANTED}
    for one in seen.values():
        assert one["tests"], f"nobody sees that {one['breaks']}"
        for test in one["tests"]:
            file, _, name = test.partition("::")
            assert re.search(rf"^(async )?def {name}\(", source(file), re.MULTILINE), test


def source(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


def test_every_item_has_words_of_our_own() -> None:
    checklist: dict[str, Any] = tomllib.loads(
        Path(__file__).with_name("checklist.toml").read_text("utf-8")
    )
    assert list(checklist["words"]) == ITEMS
    assert checklist["open"].keys() <= set(ITEMS)
