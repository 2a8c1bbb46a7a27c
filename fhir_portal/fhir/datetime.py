"""FHIR dates and times: what they may look like, and the span of time each one covers.

A moment is an ``int``: microseconds since 1970-01-01T00:00:00Z, negative before. A partial date
covers all of its span; dates, and times without a zone, are read as UTC. Source: FHIR R4 §2.24.0.1
(date, dateTime, instant, time) and §3.1.1.4.7 (dates in searches).
"""

from __future__ import annotations

import calendar
import functools
import re
from datetime import UTC, date, datetime, timedelta, tzinfo

_YEAR = r"(?!0000)[0-9]{4}"
_MONTH = r"(?:0[1-9]|1[0-2])"
_DAY = r"(?:0[1-9]|[12][0-9]|3[01])"
_HOUR_MINUTE = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_SECOND = r"(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"

_DATE = re.compile(rf"{_YEAR}(?:-{_MONTH}(?:-{_DAY})?)?")
_DATE_TIME = re.compile(
    rf"{_YEAR}(?:-{_MONTH}(?:-{_DAY}(?:T{_HOUR_MINUTE}:{_SECOND}{_ZONE})?)?)?",
)
_INSTANT = re.compile(rf"{_YEAR}-{_MONTH}-{_DAY}T{_HOUR_MINUTE}:{_SECOND}{_ZONE}")
_TIME = re.compile(rf"{_HOUR_MINUTE}:{_SECOND}")

_SPAN = re.compile(
    rf"({_YEAR})(?:-({_MONTH})(?:-({_DAY})"
    r"(?:T([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]|60)(?:\.([0-9]+))?)?"
    rf"({_ZONE})?)?)?)?",
)

_LONGEST_KEPT = 40
"""The digits of a second have no end: what is longer than anybody writes is not kept."""

_SECOND_US = 1_000_000
_MINUTE_US = 60 * _SECOND_US
_DAY_US = 24 * 60 * _MINUTE_US
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_date(text: str) -> bool:
    """A FHIR ``date``: a year, a month or a day that the calendar has."""
    return _DATE.fullmatch(text) is not None and _in_calendar(text)


def is_date_time(text: str) -> bool:
    """A FHIR ``dateTime``: a date, or date and time to the second with a zone."""
    return _DATE_TIME.fullmatch(text) is not None and _in_calendar(text)


def is_instant(text: str) -> bool:
    """A FHIR ``instant``: always to the second or finer, always with a zone."""
    return _INSTANT.fullmatch(text) is not None and _in_calendar(text)


def is_time(text: str) -> bool:
    """A FHIR ``time``: to the second or finer, without a zone."""
    return _TIME.fullmatch(text) is not None


def period_of(text: str) -> tuple[int, int]:
    """First and last microsecond covered by a date, dateTime or instant.

    Also takes what only searches may say: a time to the minute, or without a zone. A leap second
    (``:60``) is the last microsecond of its minute; digits beyond the sixth are dropped.

    Raises:
        ValueError: when it is none of these, or a day that the calendar does not have.
    """
    return _kept_period(text) if len(text) <= _LONGEST_KEPT else _period(text)


def _period(text: str) -> tuple[int, int]:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError("not a FHIR date or dateTime")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    if day is None:
        return _whole_days(int(year), int(month) if month else None)
    low = (date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY) * _DAY_US
    if hour is None:
        return low, low + _DAY_US - 1
    low += (int(hour) * 60 + int(minute)) * _MINUTE_US
    if zone is not None and zone != "Z":
        offset = (int(zone[1:3]) * 60 + int(zone[4:6])) * _MINUTE_US
        low += offset if zone[0] == "-" else -offset
    if second is None:
        return low, low + _MINUTE_US - 1
    if second == "60":
        return low + _MINUTE_US - 1, low + _MINUTE_US - 1
    low += int(second) * _SECOND_US
    if fraction is None:
        return low, low + _SECOND_US - 1
    digits = fraction[:6]
    unit = 10 ** (6 - len(digits))
    low += int(digits) * unit
    return low, low + unit - 1


_kept_period = functools.lru_cache(2048)(_period)  # what is shown is read whenever it is looked at


def period_in(text: str, zone: tzinfo) -> tuple[int, int]:
    """Return what `period_of` does, with days, months and years as they are in a time zone.

    Raises:
        ValueError: as `period_of`.
    """
    low, high = period_of(text)
    return (low, high) if "T" in text else (_begin_of(low, zone), _begin_of(high + 1, zone) - 1)


def _begin_of(midnight: int, zone: tzinfo) -> int:
    """When a day begins in a zone; ``midnight`` is its first microsecond in UTC."""
    try:
        there = (_EPOCH + timedelta(microseconds=midnight)).replace(tzinfo=zone)
        return (there - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:  # at the end of the calendar
        return midnight


def instant(moment: datetime | int) -> str:
    """A FHIR ``instant`` in UTC to the millisecond, the rest cut off: ``2026-03-01T08:00:00.250Z``.

    Raises:
        ValueError: when the datetime has no zone.
    """
    if isinstance(moment, int):
        moment = _EPOCH + timedelta(microseconds=moment)
    elif moment.tzinfo is None:
        raise ValueError("a moment needs a zone")
    else:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def _whole_days(year: int, month: int | None) -> tuple[int, int]:
    """The span of a year or of a month."""
    first = date(year, month or 1, 1).toordinal() - _EPOCH_DAY
    last_month = month or 12
    last_day = calendar.monthrange(year, last_month)[1]
    last = date(year, last_month, last_day).toordinal() - _EPOCH_DAY
    return first * _DAY_US, (last + 1) * _DAY_US - 1


def _in_calendar(text: str) -> bool:
    """The calendar has the day, if there is one; the form was checked before."""
    day = text[8:10]
    if day <= "28":
        return True
    return int(day) <= calendar.monthrange(int(text[:4]), int(text[5:7]))[1]
