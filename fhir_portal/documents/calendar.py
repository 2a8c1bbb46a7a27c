"""An appointment for somebody's calendar: iCalendar, one event (RFC 5545)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

MEDIA_TYPE: Final = "text/calendar; charset=utf-8"
_LONGEST_LINE: Final = 75
_PRODUCT: Final = "-//fhir-portal//appointments//EN"


@dataclass(frozen=True, slots=True)
class Event:
    """What a calendar is told. Moments are seconds since 1970 UTC; ``""`` says nothing.

    ``uid`` stays the same and ``sequence`` grows when the appointment changes, so that a calendar
    takes a later file for the same event.
    """

    uid: str
    sequence: int
    changed: float
    start: float
    end: float
    summary: str
    status: Literal["CONFIRMED", "TENTATIVE", "CANCELLED"]
    location: str = ""
    description: str = ""
    url: str = ""


def as_calendar(event: Event) -> bytes:
    """Return the event as a calendar file, UTF-8, lines folded at 75 octets."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        f"PRODID:{_PRODUCT}",
        "CALSCALE:GREGORIAN",
        "BEGIN:VEVENT",
        f"UID:{_text(event.uid)}",
        f"SEQUENCE:{event.sequence}",
        f"DTSTAMP:{_moment(event.changed)}",
        f"DTSTART:{_moment(event.start)}",
        f"DTEND:{_moment(event.end)}",
        f"SUMMARY:{_text(event.summary)}",
        f"STATUS:{event.status}",
        "CLASS:PRIVATE",
    ]
    if event.location:
        lines.append(f"LOCATION:{_text(event.location)}")
    if event.description:
        lines.append(f"DESCRIPTION:{_text(event.description)}")
    if event.url:
        lines.append(f"URL:{event.url}")
    lines += ["END:VEVENT", "END:VCALENDAR"]
    return b"".join(map(_folded, lines))


def _moment(seconds: float) -> str:
    """By the clock of the world, so that no time zone has to be known to whoever reads it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%SZ}"


def _text(value: str) -> str:
    """Escape a TEXT (RFC 5545 §3.3.11); what no line may hold is left out."""
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    kept = "".join(one for one in value if one == "\n" or one.isprintable())
    for sign in ("\\", ";", ","):
        kept = kept.replace(sign, f"\\{sign}")
    return kept.replace("\n", "\\n")


def _folded(line: str) -> bytes:
    """Break a line at 75 octets and inside no character (RFC 5545 §3.1)."""
    found, current = b"", b""
    for sign in line:
        octets = sign.encode()
        if len(current) + len(octets) > _LONGEST_LINE:
            found += current + b"\r\n"
            current = b" "
        current += octets
    return found + current + b"\r\n"
