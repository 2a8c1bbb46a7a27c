"""An appointment as a calendar file: readable by a plain reader, and nothing smuggled in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fhir_portal.documents.calendar import Event, as_calendar

EVENT = Event(
    uid="a1@portal.example",
    sequence=2,
    changed=1_900_000_000.0,
    start=1_900_000_000.0,
    end=1_900_001_200.0,
    summary="Appointment at Elm Street",
    status="CONFIRMED",
)


def read(content: bytes) -> dict[str, str]:
    """Unfold and split, as RFC 5545 §3.1 has it; the last of a name counts."""
    text = content.decode().replace("\r\n ", "")
    assert text.endswith("END:VCALENDAR\r\n")
    lines = text.split("\r\n")[:-1]
    assert not any("\n" in line or "\r" in line for line in lines)
    return dict(line.split(":", 1) for line in lines)


def test_times_are_those_of_the_worlds_clock() -> None:
    found = read(as_calendar(EVENT))
    assert (found["DTSTART"], found["DTEND"]) == ("20300317T174640Z", "20300317T180640Z")
    assert (found["UID"], found["SEQUENCE"], found["STATUS"]) == (
        "a1@portal.example",
        "2",
        "CONFIRMED",
    )
    assert "LOCATION" not in found


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Room 1, Elm; left\\right", "Room 1\\, Elm\\; left\\\\right"),
        ("one\r\ntwo\rthree", "one\\ntwo\\nthree"),
        ("x\nEND:VEVENT\nBEGIN:VALARM", "x\\nEND:VEVENT\\nBEGIN:VALARM"),
        ("a\u2028b\x00c", "abc"),
    ],
)
def test_text_cannot_begin_a_line(text: str, written: str) -> None:
    assert read(as_calendar(replace(EVENT, location=text)))["LOCATION"] == written


def test_lines_are_folded_at_75_octets_and_inside_no_character() -> None:
    content = as_calendar(replace(EVENT, summary="Größe𝄞" * 40))
    for line in content.split(b"\r\n"):
        assert len(line) <= 75
        line.decode()
    assert read(content)["SUMMARY"] == "Größe𝄞" * 40
