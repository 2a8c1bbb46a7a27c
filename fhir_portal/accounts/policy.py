"""What a practice has decided about accounts: one record, with defaults for who decided nothing.

Each setting has a name, as an operator types it, and a check; `changed` is the way to set one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, Literal, get_args

import msgspec
import phonenumbers

from fhir_portal.accounts.invitation import HOUR, LIFETIME, LONGEST, SHORTEST, Channel
from fhir_portal.records import Record, RecordReader

Beginner = Literal["staff", "ehr", "patient"]
Way = Literal["link", "mail", "username", "portal-id"]
Booking = Literal["view", "request", "book"]
"""What patients may do about a service: see their appointments, ask for one, book one."""
Assurance = Literal["level2", "level3", "level4"]
"""The levels of `fhir_portal.accounts.assurance` that can open anything."""

CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)
BEGINNERS: Final[tuple[Beginner, ...]] = get_args(Beginner)
WAYS: Final[tuple[Way, ...]] = get_args(Way)
BOOKINGS: Final[tuple[Booking, ...]] = get_args(Booking)
DIRECT_CHANGES: Final = (
    *("telecom", "address", "communication", "contact", "pronouns", "gender-identity", "photo"),
)
"""The fields of personal details that a practice may let people change themselves."""
_CODE: Final = re.compile(r"[^\s,=|]{1,64}")
_MOST: Final = 100


class UnknownPolicy(Exception):
    """There is no setting of this name, or it does not take this value. The words say which."""


class PracticePolicy(Record, frozen=True, kw_only=True):
    """The policy of the practice that is the ``key``.

    ``portal`` says whether its patients may use the portal at all: while it is off nobody activates
    an account for the practice, and no record of it opens for patients and proxies, on a page or in
    an app. Staff and EHRs go on.
    ``invite_channels`` are how invitations may go out, the preferred first; ``lifetime_hours`` how
    long they last by channel, where not 72 hours. ``invited_by`` are who may begin. The event rules
    are off until a practice wants them: ``invite_on_booking`` (an appointment is booked for a
    patient without an account) and ``invite_on_mail_address`` (one is given for them).
    ``invitations_an_hour`` bounds what a mistake or a stolen token can send; a fifth of it is for
    staff alone (`invitations_by`), so that no EHR and no rule keeps the desk from inviting.
    ``messages_a_minute`` is how fast what comes by the thousand goes out. ``self_registration``
    are the ways in which somebody may begin without an invitation by link; ``assurance`` is the
    least ``Person.link.assurance`` (FHIR R4 §8.4) that opens a person's own record,
    ``assurance_for_others`` one that they look after. ``proxy_confirmation`` says whether a record
    opens for somebody whom staff invited to act for the patient only once another member of staff
    confirmed who they are. ``adult_age`` ends what
    guardians are given. ``country`` (ISO 3166-1 alpha-2) is that of numbers without a country code.
    ``book_twice`` lets the practice's EHR store appointments for time that is taken; the portal
    itself never books so. ``booking`` is what patients may do about appointments, of some services
    what ``booking_services`` says by the code of their type. ``hold_minutes`` is how long a time is
    held for somebody, ``offer_minutes`` one that was freed, for who waits; they book from
    ``notice_hours`` to ``ahead_days`` from now on, and move or cancel until ``cancel_hours``
    before; ``booked_at_once`` is how many appointments to come they may have that were booked so.
    ``check_in_before`` and ``check_in_after`` are the minutes around the start in which
    patients may say that they are here; ``reminder_hours`` when before the start they are
    reminded. ``reply_hours`` is by when the practice answers a request. What is the purpose of
    ``private_services`` is not shown on pages, nor put in calendars. ``sharing`` says whether
    patients may share their record by a link, and whether links that there are show anything; a
    link lasts ``share_days`` at most. ``plan_months`` is in how many parts, one a month, patients
    may agree to pay a bill (0: in none), ``plan_least`` what a part comes to at least, in whole
    units of the currency. ``direct_changes`` are the fields of personal details that people change
    without the practice's looking at it; a new contact has to be proved first.
    ``coverage_reminder_days`` is when before its end people are told that an insurance ends; 0:
    never.
    ``plain_mail`` says whether patients may have their record sent by mail that is not encrypted,
    after a warning.
    """

    kind: ClassVar[str] = "practice-policy"
    is_counted: ClassVar[bool] = True

    portal: bool = True
    invite_channels: tuple[Channel, ...] = CHANNELS
    lifetime_hours: dict[str, int] = msgspec.field(default_factory=dict)
    invited_by: tuple[Beginner, ...] = BEGINNERS
    invite_on_booking: bool = False
    invite_on_mail_address: bool = False
    invitations_an_hour: int = 500
    messages_a_minute: int = 120
    self_registration: tuple[Way, ...] = WAYS
    assurance: Assurance = "level2"
    assurance_for_others: Assurance = "level2"
    proxy_confirmation: bool = True
    adult_age: int = 18
    country: str = ""
    book_twice: bool = False
    booking: Booking = "request"
    booking_services: dict[str, Booking] = msgspec.field(default_factory=dict)
    hold_minutes: int = 10
    offer_minutes: int = 120
    notice_hours: int = 2
    ahead_days: int = 180
    cancel_hours: int = 24
    booked_at_once: int = 10
    check_in_before: int = 60
    check_in_after: int = 30
    reminder_hours: tuple[int, ...] = (48,)
    reply_hours: int = 48
    private_services: tuple[str, ...] = ()
    sharing: bool = True
    share_days: int = 365
    plan_months: int = 0
    plan_least: int = 25
    direct_changes: tuple[str, ...] = ()
    coverage_reminder_days: int = 30
    plain_mail: bool = True

    def booking_of(self, services: Iterable[str]) -> Booking:
        """Return what patients may do about something of these services: the least of them."""
        found = [self.booking_services.get(one, self.booking) for one in services]
        return min(found or [self.booking], key=BOOKINGS.index)

    def lets_begin(self, way: Way) -> bool:
        """Whether somebody may begin an account this way, without a link."""
        return self.portal and way in self.self_registration

    def lets_invite(self, beginner: Beginner) -> bool:
        """Whether invitations may come from here: of nobody while the portal is off."""
        return self.portal and beginner in self.invited_by

    def invitations_by(self, beginner: Beginner) -> int:
        """Return how many invitations of an hour there may be when one more comes from here."""
        all_of_them = self.invitations_an_hour
        return all_of_them if beginner == "staff" else all_of_them - all_of_them // 5

    def lifetime(self, channel: Channel) -> float:
        """Return how long an invitation lasts that goes out this way, in seconds."""
        hours = self.lifetime_hours.get(channel)
        return LIFETIME if hours is None else hours * HOUR


async def policy_of(reader: RecordReader, practice: str) -> PracticePolicy:
    """Return a practice's policy."""
    return await reader.get(PracticePolicy, practice) or PracticePolicy(key=practice)


def changed(policy: PracticePolicy, settings: Mapping[str, str]) -> PracticePolicy:
    """Return a policy with some settings changed, by the names of `SETTINGS`.

    Raises `UnknownPolicy`: one is not known, or does not take its value; then none is changed.
    """
    for name, text in settings.items():
        if name not in SETTINGS:
            raise UnknownPolicy(f"there is no setting '{name}': {', '.join(SETTINGS)}")
        try:
            policy = SETTINGS[name](policy, text.strip())
        except ValueError as error:
            raise UnknownPolicy(f"{name}: {error}") from None
    return policy


def shown(policy: PracticePolicy) -> dict[str, Any]:
    """Return a policy by the names of its settings."""
    tree = msgspec.to_builtins(policy)
    found = {name.replace("_", "-"): value for name, value in tree.items()}
    for name in ("key", "expires", "lifetime-hours"):
        found.pop(name, None)
    found["booking-services"] = [f"{one}={way}" for one, way in policy.booking_services.items()]
    found["reminder-hours"] = [str(one) for one in policy.reminder_hours]
    for channel in CHANNELS:
        found[f"lifetime-hours-{channel}"] = round(policy.lifetime(channel) / HOUR)
    return found


Setting = Callable[[PracticePolicy, str], PracticePolicy]


def _some_of(member: str, known: tuple[str, ...], *, least: int = 0) -> Setting:
    def change(policy: PracticePolicy, text: str) -> PracticePolicy:
        given = tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))
        if len(given) < least or not set(given) <= set(known):
            raise ValueError(f"{'some' if least else 'any'} of {', '.join(known)}, with commas")
        return msgspec.structs.replace(policy, **{member: given})

    return change


def _number(member: str, least: int, most: int) -> Setting:
    def change(policy: PracticePolicy, text: str) -> PracticePolicy:
        return msgspec.structs.replace(policy, **{member: _whole(text, least, most)})

    return change


def _switch(member: str) -> Setting:
    def change(policy: PracticePolicy, text: str) -> PracticePolicy:
        if text not in {"on", "off"}:
            raise ValueError("on or off")
        return msgspec.structs.replace(policy, **{member: text == "on"})

    return change


def _lifetime(channel: Channel) -> Setting:
    def change(policy: PracticePolicy, text: str) -> PracticePolicy:
        hours = _whole(text, int(SHORTEST / HOUR), int(LONGEST / HOUR))
        return msgspec.structs.replace(
            policy, lifetime_hours=policy.lifetime_hours | {str(channel): hours}
        )

    return change


def _assurance(member: str) -> Setting:
    def change(policy: PracticePolicy, text: str) -> PracticePolicy:
        if text not in get_args(Assurance):
            raise ValueError(f"one of {', '.join(get_args(Assurance))}")
        return msgspec.structs.replace(policy, **{member: text})

    return change


def _booking(policy: PracticePolicy, text: str) -> PracticePolicy:
    if text not in BOOKINGS:
        raise ValueError(f"one of {', '.join(BOOKINGS)}")
    return msgspec.structs.replace(policy, booking=text)


def _booking_services(policy: PracticePolicy, text: str) -> PracticePolicy:
    found: dict[str, str] = {}
    for one in filter(None, map(str.strip, text.split(","))):
        code, _, mode = one.partition("=")
        if _CODE.fullmatch(code) is None or mode not in BOOKINGS:
            raise ValueError(f"CODE={'|'.join(BOOKINGS)}, with commas")
        found[code] = mode
    if len(found) > _MOST:
        raise ValueError(f"{_MOST} services at most")
    return msgspec.structs.replace(policy, booking_services=found)


def _private_services(policy: PracticePolicy, text: str) -> PracticePolicy:
    found = tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    if len(found) > _MOST or not all(map(_CODE.fullmatch, found)):
        raise ValueError(f"codes of services, with commas; {_MOST} at most")
    return msgspec.structs.replace(policy, private_services=found)


def _reminder_hours(policy: PracticePolicy, text: str) -> PracticePolicy:
    found = {_whole(one, 1, 720) for one in filter(None, map(str.strip, text.split(",")))}
    if len(found) > 5:  # noqa: PLR2004
        raise ValueError("five reminders at most")
    return msgspec.structs.replace(policy, reminder_hours=tuple(sorted(found, reverse=True)))


def _country(policy: PracticePolicy, text: str) -> PracticePolicy:
    if text and text not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("two capital letters such as US, or nothing")
    return msgspec.structs.replace(policy, country=text)


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):  # noqa: PLR2004
        raise ValueError(f"a whole number from {least} to {most}")
    return int(text)


SETTINGS: Final[Mapping[str, Setting]] = {
    "portal": _switch("portal"),
    "invite-channels": _some_of("invite_channels", CHANNELS, least=1),
    **{f"lifetime-hours-{channel}": _lifetime(channel) for channel in CHANNELS},
    "invited-by": _some_of("invited_by", BEGINNERS),
    "invite-on-booking": _switch("invite_on_booking"),
    "invite-on-mail-address": _switch("invite_on_mail_address"),
    "invitations-an-hour": _number("invitations_an_hour", 1, 100_000),
    "messages-a-minute": _number("messages_a_minute", 1, 6_000),
    "self-registration": _some_of("self_registration", WAYS),
    "assurance": _assurance("assurance"),
    "assurance-for-others": _assurance("assurance_for_others"),
    "proxy-confirmation": _switch("proxy_confirmation"),
    "adult-age": _number("adult_age", 14, 25),
    "country": _country,
    "book-twice": _switch("book_twice"),
    "booking": _booking,
    "booking-services": _booking_services,
    "hold-minutes": _number("hold_minutes", 1, 60),
    "offer-minutes": _number("offer_minutes", 10, 2880),
    "notice-hours": _number("notice_hours", 0, 720),
    "ahead-days": _number("ahead_days", 1, 730),
    "cancel-hours": _number("cancel_hours", 0, 720),
    "booked-at-once": _number("booked_at_once", 1, 100),
    "check-in-before": _number("check_in_before", 5, 720),
    "check-in-after": _number("check_in_after", 0, 720),
    "reminder-hours": _reminder_hours,
    "reply-hours": _number("reply_hours", 1, 720),
    "private-services": _private_services,
    "sharing": _switch("sharing"),
    "share-days": _number("share_days", 1, 365),
    "plan-months": _number("plan_months", 0, 36),
    "plan-least": _number("plan_least", 1, 10_000),
    "direct-changes": _some_of("direct_changes", DIRECT_CHANGES),
    "coverage-reminder-days": _number("coverage_reminder_days", 0, 120),
    "plain-mail": _switch("plain_mail"),
}
"""What can be set, and how the text of an operator is read."""
