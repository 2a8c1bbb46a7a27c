"""What of an Organization and its services is published, and in which words."""

from __future__ import annotations

import pytest

from fhir_portal.accounts.practice_contact import (
    COMMENT,
    ContactLine,
    OpenHours,
    contact_of,
    days_words,
    help_line,
)
from tests.builders import Json


def point(system: str, value: str, comment: str = "", **more: object) -> Json:
    extension = [{"url": COMMENT, "valueString": comment}] if comment else None
    return {"system": system, "value": value, **more} | (
        {"extension": extension} if extension else {}
    )


def test_contact_points_for_the_public_are_taken_in_their_rank() -> None:
    found = contact_of(
        "elm",
        {
            "telecom": [
                point("phone", "+1 555 555 0142", rank=2),
                point("phone", "+1 555 555 0140", rank=1, comment="Front desk"),
                point("phone", "+1 555 555 0199", use="home"),
                point("phone", "+1 555 555 0198", use="old"),
                point("other", "+1 555 555 0143", "TTY"),
                point("email", "desk@elm.example"),
                point("pager", "+1 555 555 0144"),
            ]
        },
        [],
        now=5.0,
    )
    assert found.lines == (
        ContactLine("phone", "+1 555 555 0140", "Front desk"),
        ContactLine("phone", "+1 555 555 0142"),
        ContactLine("tty", "+1 555 555 0143", "TTY"),
        ContactLine("mail", "desk@elm.example"),
    )
    assert found.published == 5.0
    assert help_line(found) == "+1 555 555 0140"
    assert help_line(None) == ""


@pytest.mark.parametrize(
    ("system", "value"),
    [
        ("url", "javascript:alert(1)"),
        ("url", "https://"),
        ("url", "https://[bad"),
        ("email", "a@b.example?bcc=c@d.example"),
        ("email", "two words@b.example"),
        ("phone", "call us"),
        ("phone", "+1 555\n0142 x"),
        ("phone", ""),
    ],
)
def test_what_could_lead_elsewhere_is_left_out(system: str, value: str) -> None:
    assert contact_of("elm", {"telecom": [point(system, value)]}, [], now=0).lines == ()


def test_hours_and_what_is_said_of_them() -> None:
    (service,) = contact_of(
        "elm",
        {},
        [
            {
                "name": "Desk",
                "availableTime": [
                    {
                        "daysOfWeek": ["fri", "mon", "tue"],
                        "availableStartTime": "08:00:00",
                        "availableEndTime": "17:30:00",
                    },
                    {"daysOfWeek": ["sat"], "allDay": True},
                    {"daysOfWeek": ["sun"], "availableStartTime": "08:00:00"},
                ],
                "notAvailable": [{"description": "New Year"}],
                "availabilityExceptions": "Closed on\npublic holidays",
            }
        ],
        now=0,
    ).services
    assert service.hours == (
        OpenHours(("mon", "tue", "fri"), "08:00", "17:30"),
        OpenHours(("sat",)),
    )
    assert service.closed == ("New Year",)
    assert service.note == "Closed on public holidays"


def test_days_in_words() -> None:
    assert days_words(("mon", "tue", "wed", "thu", "fri")) == "Monday to Friday"
    assert days_words(("fri", "mon", "tue")) == "Monday, Tuesday, Friday"
    assert days_words(("sat", "sun")) == "Saturday, Sunday"
