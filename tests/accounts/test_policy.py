"""What a practice decides: set by name, held against what there is, and otherwise as it was."""

from __future__ import annotations

import pytest

from fhir_portal.accounts.invitation import HOUR, LIFETIME
from fhir_portal.accounts.policy import SETTINGS, PracticePolicy, UnknownPolicy, changed, shown

DEFAULT = PracticePolicy(key="derm")


def test_each_setting_is_shown_under_its_name() -> None:
    assert set(shown(DEFAULT)) == set(SETTINGS)


@pytest.mark.parametrize(
    ("name", "text", "member", "value"),
    [
        ("invite-channels", "desk, mail", "invite_channels", ("desk", "mail")),
        ("invited-by", "", "invited_by", ()),
        ("invite-on-booking", "on", "invite_on_booking", True),
        ("invite-on-mail-address", "off", "invite_on_mail_address", False),
        ("invitations-an-hour", "7", "invitations_an_hour", 7),
        ("self-registration", "mail", "self_registration", ("mail",)),
        ("assurance", "level4", "assurance", "level4"),
        ("adult-age", "16", "adult_age", 16),
        ("country", "US", "country", "US"),
        ("book-twice", "on", "book_twice", True),
        ("booking", "book", "booking", "book"),
        ("booking-services", "a=book, b=view", "booking_services", {"a": "book", "b": "view"}),
        ("booking-services", "", "booking_services", {}),
        ("reminder-hours", "24, 72,24", "reminder_hours", (72, 24)),
        ("reminder-hours", "", "reminder_hours", ()),
        ("private-services", "a,b,a", "private_services", ("a", "b")),
        ("sharing", "off", "sharing", False),
        ("share-days", "7", "share_days", 7),
        ("plain-mail", "off", "plain_mail", False),
        ("hold-minutes", "5", "hold_minutes", 5),
        ("direct-changes", "telecom, photo", "direct_changes", ("telecom", "photo")),
        ("coverage-reminder-days", "0", "coverage_reminder_days", 0),
    ],
)
def test_a_setting_is_read(name: str, text: str, member: str, value: object) -> None:
    assert getattr(changed(DEFAULT, {name: text}), member) == value


def test_a_lifetime_is_of_its_channel() -> None:
    policy = changed(DEFAULT, {"lifetime-hours-letter": "240"})
    assert policy.lifetime("letter") == 240 * HOUR
    assert policy.lifetime("mail") == LIFETIME


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("surprise", "on"),
        ("invite-channels", ""),
        ("invite-channels", "mail,pigeon"),
        ("invited-by", "everybody"),
        ("invite-on-booking", "yes"),
        ("invitations-an-hour", "0"),
        ("invitations-an-hour", "1" * 30),
        ("lifetime-hours-mail", "0"),
        ("lifetime-hours-mail", "505"),
        ("lifetime-hours-pigeon", "5"),
        ("assurance", "level1"),
        ("adult-age", "-1"),
        ("country", "us"),
        ("country", "Atlantis"),
        ("book-twice", "sometimes"),
        ("booking", "maybe"),
        ("booking-services", "a"),
        ("booking-services", "a=maybe"),
        ("booking-services", "=book"),
        ("reminder-hours", "0"),
        ("reminder-hours", "1,2,3,4,5,6"),
        ("private-services", "a b"),
        ("hold-minutes", "0"),
    ],
)
def test_what_is_none_is_refused(name: str, text: str) -> None:
    with pytest.raises(UnknownPolicy):
        changed(DEFAULT, {"adult-age": "17", name: text})


def test_of_several_services_the_least_counts() -> None:
    policy = changed(DEFAULT, {"booking": "book", "booking-services": "a=request,b=view"})
    assert policy.booking_of([]) == "book"
    assert policy.booking_of(["other"]) == "book"
    assert policy.booking_of(["a", "other"]) == "request"
    assert policy.booking_of(["a", "b"]) == "view"
