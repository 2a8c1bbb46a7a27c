"""How people reach a practice: what anybody may know of it, signed in or not.

It is a copy that somebody published on purpose. Pages for everybody read it and never the
practice's resources, so that nothing else of them can come out by such a page. What changes in the
Organization or its HealthcareServices is there once it is published again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

import msgspec

from fhir_portal.records import Record

LineKind = Literal["phone", "tty", "sms", "fax", "mail", "web"]

COMMENT: Final = "http://hl7.org/fhir/StructureDefinition/contactpoint-comment"
"""The extension in which a contact point says what it is for. Text telephones have no system of
their own in FHIR R4; one whose comment says TTY or text telephone is shown as one."""
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_NAMES: Final[Mapping[str, str]] = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
MOST: Final = 20
"""Lines, services and times of one practice that are published."""
_LONGEST: Final = 200
_KINDS: Final[Mapping[str, LineKind]] = {
    "phone": "phone",
    "sms": "sms",
    "fax": "fax",
    "email": "mail",
    "url": "web",
}
_TEXT_TELEPHONE: Final = re.compile(r"\btty\b|\btdd\b|text ?telephone|textphone", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\+?[0-9][0-9 ().-]{1,30}")
_MAIL: Final = re.compile(r"[^\s@<>?&%]{1,64}@[^\s@<>?&%]{1,190}")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])(:[0-9.]+)?")


class ContactLine(msgspec.Struct, frozen=True):
    """One way to reach the practice, and what it is for in the practice's own words."""

    kind: LineKind
    value: str
    note: str = ""

    @property
    def address(self) -> str:
        """What a link of it leads to, ``""`` for what is not called up by one."""
        digits = "".join(sign for sign in self.value if sign.isdecimal() or sign == "+")
        return {
            "phone": f"tel:{digits}",
            "tty": f"tel:{digits}",
            "sms": f"sms:{digits}",
            "mail": f"mailto:{self.value}",
            "web": self.value,
        }.get(self.kind, "")


class OpenHours(msgspec.Struct, frozen=True):
    """When a service is there: days of `DAYS`, and from when to when; both ``""`` is all day."""

    days: tuple[str, ...]
    opens: str = ""
    closes: str = ""


class Service(msgspec.Struct, frozen=True):
    """A HealthcareService: its name (``""`` where there is one alone), its lines and hours.

    ``closed`` says in words when it is not there.
    """

    name: str = ""
    lines: tuple[ContactLine, ...] = ()
    hours: tuple[OpenHours, ...] = ()
    closed: tuple[str, ...] = ()
    note: str = ""


class PracticeContact(Record, frozen=True, kw_only=True):
    """What was published of the practice that is the ``key``; ``published`` in seconds since 1970.

    Hours are those of the practice's own time zone.
    """

    kind: ClassVar[str] = "practice-contact"

    lines: tuple[ContactLine, ...] = ()
    address: str = ""
    services: tuple[Service, ...] = ()
    published: float = 0.0


def contact_of(
    practice: str,
    organization: Mapping[str, Any],
    services: Iterable[Mapping[str, Any]],
    *,
    now: float,
) -> PracticeContact:
    """Return what may be published of an Organization and its HealthcareServices (FHIR R4).

    Only contact points for the public (neither ``home`` nor ``old``), the first address, opening
    hours and what is said of them. What is not well-formed is left out.
    """
    addresses = organization.get("address") or ()
    return PracticeContact(
        key=practice,
        lines=_lines(organization.get("telecom") or ()),
        address=_address(addresses[0]) if addresses else "",
        services=tuple(_service(one) for one in services)[:MOST],
        published=now,
    )


def help_line(contact: PracticeContact | None) -> str:
    """Return in a few words whom to call, for a message: ``+1 555 555 0142``; ``""`` for nobody."""
    if contact is None:
        return ""
    listed = [*contact.lines, *(line for one in contact.services for line in one.lines)]
    return next((line.value for line in listed if line.kind == "phone"), "")


def days_words(days: Sequence[str]) -> str:
    """Return days in words: ``Monday to Friday``, ``Monday, Wednesday``."""
    at = [DAYS.index(one) for one in days]
    spans: list[list[int]] = []
    for one in sorted(set(at)):
        if spans and one == spans[-1][1] + 1:
            spans[-1][1] = one
        else:
            spans.append([one, one])
    names = [DAY_NAMES[one] for one in DAYS]
    return ", ".join(
        names[first]
        if first == last
        else f"{names[first]}{' to ' if last - first > 1 else ', '}{names[last]}"
        for first, last in spans
    )


def _service(tree: Mapping[str, Any]) -> Service:
    hours = (_hours(one) for one in tree.get("availableTime") or ())
    closed = (_text(one.get("description")) for one in tree.get("notAvailable") or ())
    return Service(
        name=_text(tree.get("name")),
        lines=_lines(tree.get("telecom") or ()),
        hours=tuple(one for one in hours if one is not None)[:MOST],
        closed=tuple(one for one in closed if one)[:MOST],
        note=_text(tree.get("availabilityExceptions")),
    )


def _hours(tree: Mapping[str, Any]) -> OpenHours | None:
    days = tuple(one for one in DAYS if one in (tree.get("daysOfWeek") or DAYS))
    if tree.get("allDay"):
        return OpenHours(days)
    opens, closes = (
        _TIME.fullmatch(tree.get(name) or "") for name in ("availableStartTime", "availableEndTime")
    )
    if opens is None or closes is None:
        return None
    return OpenHours(days, f"{opens[1]}:{opens[2]}", f"{closes[1]}:{closes[2]}")


def _lines(telecom: Iterable[Mapping[str, Any]]) -> tuple[ContactLine, ...]:
    ranked = sorted(telecom, key=lambda one: one.get("rank") or 1000)
    found = (_line(one) for one in ranked if one.get("use") not in {"home", "old"})
    return tuple(dict.fromkeys(one for one in found if one is not None))[:MOST]


def _line(point: Mapping[str, Any]) -> ContactLine | None:
    value = _text(point.get("value"))
    note = next(
        (
            _text(one.get("valueString"))
            for one in point.get("extension") or ()
            if one.get("url") == COMMENT
        ),
        "",
    )
    kind = _KINDS.get(point.get("system") or "")
    if point.get("system") in {"phone", "other"} and _TEXT_TELEPHONE.search(note):
        kind = "tty"
    if kind is None or not value or not _is_well_formed(kind, value):
        return None
    return ContactLine(kind, value, note)


def _is_well_formed(kind: LineKind, value: str) -> bool:
    if kind == "mail":
        return _MAIL.fullmatch(value) is not None
    if kind == "web":
        try:
            parts = urlsplit(value)
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    return _NUMBER.fullmatch(value) is not None


def _address(tree: Mapping[str, Any]) -> str:
    if tree.get("text"):
        return _text(tree["text"])
    town = " ".join(_text(tree.get(name)) for name in ("city", "state", "postalCode")).split()
    parts = [*(_text(one) for one in tree.get("line") or ()), " ".join(town)]
    return _text(", ".join(one for one in parts if one))


def _text(value: object) -> str:
    """One line of bounded length."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text[:_LONGEST] if text.isprintable() else ""
