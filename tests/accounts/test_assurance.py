"""What was proved against the table of levels, and what each level opens."""

from __future__ import annotations

import pytest

from fhir_portal.accounts.assurance import Evidence, Over, What, higher, level_of, reaches

BORN = Evidence("birth-date", "record", 1.0)


def proof(what: What, over: Over, to: str = "") -> Evidence:
    return Evidence(what, over, 1.0, to)


LINK = proof("link", "mail", "a@mail.example")
MAIL_CODE = proof("one-time-code", "mail", "a@mail.example")
PHONE_CODE = proof("one-time-code", "sms", "+13125550142")
DESK = proof("security-code", "desk")
LETTER = proof("security-code", "letter")
SHEET = proof("activation-word", "paper")


@pytest.mark.parametrize(
    ("evidence", "level"),
    [
        ([], "level1"),
        ([BORN], "level1"),
        ([BORN, LINK], "level1"),
        ([BORN, LINK, MAIL_CODE], "level1"),
        ([BORN, LINK, proof("security-code", "mail", "a@mail.example")], "level1"),
        ([BORN, LINK, proof("security-code", "sms")], "level1"),
        ([BORN, LINK, proof("one-time-code", "mail", "a+portal@mail.example")], "level1"),
        ([BORN, LINK, proof("one-time-code", "mail", "b@mail.example")], "level2"),
        ([LINK, PHONE_CODE, DESK], "level1"),
        ([BORN, proof("name", "desk"), proof("initials", "paper")], "level1"),
        ([BORN, LINK, PHONE_CODE], "level2"),
        ([BORN, SHEET], "level2"),
        ([BORN, LETTER], "level2"),
        ([BORN, LETTER, MAIL_CODE], "level3"),
        ([BORN, DESK], "level3"),
        ([BORN, DESK, LINK], "level4"),
    ],
)
def test_the_table(evidence: list[Evidence], level: str) -> None:
    """A mailbox alone, however often it is proved, is level 1; so is whatever lacks a fact."""
    assert level_of(evidence) == level


@pytest.mark.parametrize("level", [None, "", "level1", "level5", "LEVEL4"])
def test_nothing_below_level_two_opens_anything(level: str | None) -> None:
    """Not even where a practice says so."""
    assert not reaches(level, "level1")
    assert not reaches(level, "level2")


def test_a_practice_may_ask_for_more_but_not_for_nonsense() -> None:
    assert reaches("level2", "level1")
    assert reaches("level3", "level3")
    assert not reaches("level2", "level3")
    assert not reaches("level4", "level9")


def test_a_link_keeps_the_highest_level_it_had() -> None:
    assert higher(["level4", None, "best"], "level2") == "level4"
    assert higher(["level1"], "level3") == "level3"
