"""Letters: what is filled in, and what a value cannot do."""

from __future__ import annotations

import re

import pytest

from fhir_portal.notify.letter import Letterhead, UnfitValue, render
from fhir_portal.notify.template import InvalidTemplate, checked
from fhir_portal.notify.words import built_in
from tests.notify.letters import FIELDS, HEAD, LINK, PORTAL

INJECTIONS = [
    "Hill\r\nBcc: everybody@people.example",
    "Hill\nBcc: everybody@people.example",
    "Hill\rBcc: everybody@people.example",
    "Hill\u2028Bcc: everybody@people.example",
    "Hill\u2029Bcc: everybody@people.example",
    "Hill\x0bBcc: everybody@people.example",
    "Hill\x85Bcc: everybody@people.example",
    "Hill\x00\u202eelpmaxe",
]


def test_without_a_telephone_the_practice_is_named_all_the_same() -> None:
    letter = render(built_in("test"), Letterhead("Hill", "", PORTAL), {})
    assert letter.text.endswith("If you have questions, call Hill.\n")


def test_a_long_name_is_shortened_in_an_sms() -> None:
    letter = render(built_in("one-time-code"), Letterhead("Hill " * 60, "", PORTAL), FIELDS)
    assert len(letter.sms) <= 160
    assert "1234 5678" in letter.sms


@pytest.mark.parametrize("name", INJECTIONS)
def test_no_value_begins_a_line(name: str) -> None:
    letter = render(built_in("test"), Letterhead(name, name, PORTAL), {})
    for text in (letter.sender, letter.subject, letter.sms):
        assert len(text.splitlines()) == 1
        assert text.isprintable()
    assert not any(line.startswith(("Bcc", "elp")) for line in letter.text.splitlines())


@pytest.mark.parametrize("name", ["{code}", "{link}", "{portal}", "{0.__class__}", "%s {{x}} {"])
def test_what_looks_like_a_placeholder_in_a_value_stays_as_it_is(name: str) -> None:
    letter = render(built_in("one-time-code"), Letterhead(name, name, PORTAL), FIELDS)
    assert name in letter.subject
    assert letter.text.count("1234 5678") == 1


@pytest.mark.parametrize(
    "code", ["", "1234\r\nBcc: x", "<b>1</b>", "1" * 300, "{code}", " 1", "1  2", "\uff11\uff12"]
)
def test_a_code_that_is_none_is_not_sent(code: str) -> None:
    with pytest.raises(UnfitValue):
        render(built_in("one-time-code"), HEAD, {"code": code})


@pytest.mark.parametrize(
    "link",
    [
        "",
        "https://elsewhere.example/activate/x",
        "https://portal.example.org.elsewhere.example/x",
        "https://portal.example.org@elsewhere.example/",
        f"{LINK}\r\nBcc: everybody@people.example",
        f"{LINK} x",
        f"{LINK}<",
        "javascript:alert(1)",
        f"{PORTAL}/{'a' * 1000}",
    ],
)
def test_a_link_that_leads_elsewhere_is_not_sent(link: str) -> None:
    with pytest.raises(UnfitValue):
        render(built_in("invitation-link"), HEAD, {"link": link})


def test_a_message_that_needs_a_code_is_not_sent_without_one() -> None:
    with pytest.raises(UnfitValue):
        render(built_in("one-time-code"), HEAD, {})


def test_a_user_name_is_filled_in_cleaned_and_not_left_out() -> None:
    words = built_in("username-reminder")
    letter = render(words, HEAD, {"username": "mara\r\nBcc: x {practice}", "practices": "Hill"})
    assert "    mara Bcc: x {practice}\n" in letter.text
    with pytest.raises(UnfitValue):
        render(words, HEAD, {"username": "", "practices": "Hill"})
    with pytest.raises(InvalidTemplate, match=re.escape("has to have {username}")):
        checked("username-reminder", subject="S", body="B", sms="{username}")


def test_what_a_message_does_not_carry_is_left_out() -> None:
    """Planted fault: a name that somebody put among the values."""
    letter = render(built_in("test"), HEAD, {"name": "Ada Quill", "code": "1234 5678"})
    assert "Ada" not in letter.text + letter.subject + letter.sms
    assert letter.code is None


def test_it_says_until_when_a_link_is_good_whatever_the_words() -> None:
    until = "Wednesday, March 20, 2030, 12:46 PM (CDT)\r\nBcc: x"
    link = "https://portal.elm.example/activate/abc"
    letter = render(
        built_in("invitation-link"),
        Letterhead("Elm Street", "", "https://portal.elm.example"),
        {"link": link, "until": until},
    )
    for text in (letter.text, letter.sms):
        assert "It is good until Wednesday, March 20, 2030, 12:46 PM (CDT)" in text
        assert "\nBcc" not in text
