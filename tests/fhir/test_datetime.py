"""fhir/datetime.py: which texts are FHIR dates, and which span each covers."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.fhir.datetime import (
    instant,
    is_date,
    is_date_time,
    is_instant,
    is_time,
    period_in,
    period_of,
)

SECOND = 1_000_000
DAY = 86_400 * SECOND


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(year, month, day, hour=0, minute=0, second=0, microsecond=0):
    moment = datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize("text", ["2012", "2012-02", "2012-02-29", "0001", "9999-12-31"])
def test_dates(text):
    assert is_date(text)
    assert is_date_time(text)
    assert not is_instant(text)


@pytest.mark.parametrize(
    "text",
    [
        *("2013-02-29", "2012-04-31", "1900-02-29", "0000", "201", "2012-1", "2012-13"),
        *("2012-00-01", "2012-01-32", "2012-01-00", "2012-01-01T", "20120101", " 2012"),
        *("2012\n", "", "-2012", "٢٠١٢"),
    ],
)
def test_what_is_no_date(text):
    assert not is_date(text)
    assert not is_date_time(text)
    with pytest.raises(ValueError, match=r"date|day"):
        period_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "2012-02-29T10:20:30Z",
        "2012-02-29T10:20:30.123456789+13:59",
        "2012-02-29T00:00:00-14:00",
        "2016-12-31T23:59:60Z",
    ],
)
def test_moments(text):
    assert is_date_time(text)
    assert is_instant(text)
    assert not is_date(text)


@pytest.mark.parametrize(
    "text",
    [
        "2012-02-29T10:20:30",
        "2012-02-29T10:20Z",
        "2012-02-29T24:00:00Z",
        "2012-02-29T10:60:00Z",
        "2012-02-29T10:00:61Z",
        "2012-02-29T10:00:00+14:30",
        "2012-02-29T10:00:00+0100",
        "2012-02-29t10:00:00z",
        "2012-02-29 10:00:00Z",
        "2013-02-29T10:20:30Z",
        "2012-02-29T10:20:30.Z",
    ],
)
def test_what_is_no_moment(text):
    assert not is_date_time(text)
    assert not is_instant(text)


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("00:00:00", True),
        ("23:59:60", True),
        ("10:00:00.5", True),
        ("24:00:00", False),
        ("10:00", False),
        ("10:00:00Z", False),
        ("1:00:00", False),
    ],
)
def test_times(text, true):
    assert is_time(text) is true


@pytest.mark.parametrize(
    ("text", "low", "span"),
    [
        ("2012", at(2012, 1, 1), 366 * DAY),
        ("2013", at(2013, 1, 1), 365 * DAY),
        ("2012-02", at(2012, 2, 1), 29 * DAY),
        ("2012-12", at(2012, 12, 1), 31 * DAY),
        ("2012-02-29", at(2012, 2, 29), DAY),
        ("2012-02-29T10:20", at(2012, 2, 29, 10, 20), 60 * SECOND),
        ("2012-02-29T10:20Z", at(2012, 2, 29, 10, 20), 60 * SECOND),
        ("2012-02-29T10:20:30", at(2012, 2, 29, 10, 20, 30), SECOND),
        ("2012-02-29T10:20:30+02:30", at(2012, 2, 29, 7, 50, 30), SECOND),
        ("2012-02-29T10:20:30-02:30", at(2012, 2, 29, 12, 50, 30), SECOND),
        ("2012-02-29T10:20:30.5Z", at(2012, 2, 29, 10, 20, 30, 500_000), 100_000),
        ("2012-02-29T10:20:30.123Z", at(2012, 2, 29, 10, 20, 30, 123_000), 1000),
        ("2012-02-29T10:20:30.1234567Z", at(2012, 2, 29, 10, 20, 30, 123_456), 1),
        ("1969-12-31T23:59:59Z", -SECOND, SECOND),
        ("9999-12-31", at(9999, 12, 31), DAY),
        ("0001-01-01T00:00:00+14:00", at(1, 1, 1) - 14 * 3600 * SECOND, SECOND),
    ],
)
def test_the_span_a_text_covers(text, low, span):
    assert period_of(text) == (low, low + span - 1)


def test_a_leap_second_is_the_last_moment_of_its_minute():
    moment = at(2017, 1, 1) - 1
    assert period_of("2016-12-31T23:59:60Z") == (moment, moment)
    assert period_of("2016-12-31T23:59:60.5Z") == (moment, moment)


zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)  # noqa: DTZ001


@given(moments)
def test_a_moment_in_any_zone_is_the_microsecond_it_names(moment):
    low, high = period_of(moment.isoformat(timespec="microseconds"))
    assert EPOCH + timedelta(microseconds=low) == moment
    assert low == high


@given(moments, st.sampled_from([4, 7, 10, 16, 19, 21, 23, 26]))
def test_fewer_digits_cover_all_that_more_digits_say(moment, length):
    whole = moment.astimezone(UTC).strftime("%Y").zfill(4) + moment.astimezone(UTC).isoformat()[4:]
    whole = whole.removesuffix("+00:00")
    low, high = period_of(whole[:length].rstrip("."))
    inner_low, inner_high = period_of(whole)
    assert low <= inner_low <= inner_high <= high


@given(moments)
def test_an_instant_is_in_utc_to_the_millisecond(moment):
    text = instant(moment)
    assert is_instant(text)
    assert text.endswith("Z")
    low, _ = period_of(text)
    microseconds, _ = period_of(moment.isoformat(timespec="microseconds"))
    assert low == microseconds - microseconds % 1000
    assert instant(microseconds) == text


def test_an_instant_needs_a_zone():
    with pytest.raises(ValueError, match="zone"):
        instant(datetime(2026, 1, 1))  # noqa: DTZ001 - the point


CHICAGO = ZoneInfo("America/Chicago")


@pytest.mark.parametrize(
    ("text", "low", "next_"),
    [
        ("2029-03-10", at(2029, 3, 10, 6), at(2029, 3, 11, 6)),
        ("2029-03-11", at(2029, 3, 11, 6), at(2029, 3, 12, 5)),  # 23 hours: the clock goes on
        ("2029-03", at(2029, 3, 1, 6), at(2029, 4, 1, 5)),
        ("2029", at(2029, 1, 1, 6), at(2030, 1, 1, 6)),
    ],
)
def test_a_day_is_that_of_a_zone(text, low, next_):
    assert period_in(text, CHICAGO) == (low, next_ - 1)
    assert period_in(text, UTC) == period_of(text)


@pytest.mark.parametrize("text", ["2029-03-10T23:30:00-05:00", "2029-03-10T04:00:00Z"])
def test_a_time_is_the_same_in_every_zone(text):
    assert period_in(text, CHICAGO) == period_of(text)


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "9999"])
@pytest.mark.parametrize("zone", [CHICAGO, ZoneInfo("Asia/Tokyo")])
def test_the_ends_of_the_calendar_are_days_in_every_zone(text, zone):
    low, high = period_in(text, zone)
    assert low < high


def test_what_is_no_time_is_none_in_any_zone():
    with pytest.raises(ValueError, match="not a FHIR date"):
        period_in("yesterday", CHICAGO)


def test_a_text_without_end_is_not_kept():
    tracemalloc.start()
    try:
        for n in range(20):
            assert period_of(f"2029-03-10T23:30:00.{n:06d}{'0' * 100_000}Z")[0] % SECOND == n
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 500_000
