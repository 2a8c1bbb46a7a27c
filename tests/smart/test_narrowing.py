from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.access.owners import OWNERS
from fhir_portal.access.policy import understands
from fhir_portal.search.registry import parameters_for
from fhir_portal.smart.issuer import DAY, Lifetimes
from fhir_portal.smart.narrowing import (
    DATA_FROM,
    DATA_TO,
    ONLY_READING,
    PERIOD_PARAMETERS,
    TIMELESS,
    UNTIL,
    EndDates,
    Narrowing,
    NarrowingRefused,
)
from fhir_portal.smart.offer import SUB_RESOURCES
from fhir_portal.smart.proxy_context import proxy_context, role_uris
from fhir_portal.smart.scope import ScopeSet
from tests.smart.world import START, childs_record, own_record

CHICAGO, BERLIN = "America/Chicago", "Europe/Berlin"


def scope(text: str, zone: str = "UTC", **limits: str) -> str:
    return str(Narrowing.parse(limits).applied(ScopeSet.parse(text), zone))


def days(until: float | None = None, zone: str = "UTC", now: float = START) -> EndDates:
    record = dataclasses.replace(childs_record(until), zone=zone)
    return EndDates.of([record], now=now, lifetimes=Lifetimes())


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# --- what the form says -------------------------------------------------------------------------


def test_an_empty_form_limits_nothing() -> None:
    assert Narrowing.parse({}) == Narrowing()
    assert Narrowing.parse({UNTIL: "", DATA_FROM: "", DATA_TO: "", ONLY_READING: ""}) == Narrowing()
    text = "openid offline_access patient/Binary.rs patient/QuestionnaireResponse.cruds"
    assert scope(text) == text


def test_every_limit_is_read() -> None:
    found = Narrowing.parse(
        {UNTIL: "2030-04-01", ONLY_READING: "yes", DATA_FROM: "2028-02-29", DATA_TO: "2029-01-01"}
    )
    assert found == Narrowing(
        date(2030, 4, 1), only_reading=True, data_from=date(2028, 2, 29), data_to=date(2029, 1, 1)
    )


NO_DAYS = [
    "soon",
    "2030-02-30",
    "2030-13-01",
    "2030-1-1",
    "20300101",
    "2030-W01-1",
    "\u0662\u0660\u0663\u0660-\u0660\u0661-\u0660\u0661",  # digits, but not ASCII
    "2030-01-01T00:00:00Z",
    "2030-01-01\n",
    " 2030-01-01",
    "2030-01-01&category=x",
    "0000-00-00",
    "0001-01-01",
    "9999-12-31",
    "99999-01-01",
    "-2030-01-01",
    "9" * 5000,
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *product((UNTIL, DATA_FROM, DATA_TO), NO_DAYS),
        *((ONLY_READING, value) for value in ("no", "0", "on", "YES", "yes ")),
    ],
)
def test_what_is_no_limit_is_refused_where_it_stands(field: str, value: str) -> None:
    with pytest.raises(NarrowingRefused) as refused:
        Narrowing.parse({field: value})
    assert refused.value.field == field


def test_a_period_does_not_end_before_it_begins() -> None:
    with pytest.raises(NarrowingRefused) as refused:
        Narrowing.parse({DATA_FROM: "2030-01-02", DATA_TO: "2030-01-01"})
    assert refused.value.field == DATA_TO
    Narrowing.parse({DATA_FROM: "2030-01-01", DATA_TO: "2030-01-01"})


# --- only reading -------------------------------------------------------------------------------


def test_reading_drops_the_letters_that_write() -> None:
    asked = "openid patient/QuestionnaireResponse.cruds patient/Goal.* patient/Patient.r"
    assert scope(asked, only_reading="yes") == (
        "openid patient/QuestionnaireResponse.rs patient/Goal.read patient/Patient.r"
    )


def test_a_scope_that_only_writes_goes_as_a_whole() -> None:
    asked = "patient/Communication.c patient/Patient.rs"
    assert scope(asked, only_reading="yes") == "patient/Patient.rs"


def test_limits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(NarrowingRefused) as refused:
        scope("openid patient/Communication.c", only_reading="yes")
    assert refused.value.field == ONLY_READING
    with pytest.raises(NarrowingRefused) as refused:
        scope("openid patient/Binary.rs", data_from="2030-01-01")
    assert refused.value.field == DATA_FROM
    assert scope("openid", only_reading="yes") == "openid"


# --- a period -----------------------------------------------------------------------------------


def test_a_period_is_a_granular_scope() -> None:
    asked = "patient/Observation.read patient/Condition.rs?category=x patient/Patient.rs"
    assert scope(asked, data_from="2029-01-01", data_to="2029-12-31") == (
        "patient/Observation.rs?date=ge2029-01-01&date=lt2030-01-01"
        " patient/Condition.rs?category=x&recorded-date=ge2029-01-01&recorded-date=lt2030-01-01"
        " patient/Patient.rs"
    )
    assert scope("patient/Goal.rs", data_from="2029-01-01") == (
        "patient/Goal.rs?start-date=ge2029-01-01"
    )
    assert scope("patient/Goal.rs", data_to="2029-01-01") == (
        "patient/Goal.rs?start-date=lt2029-01-02"
    )


@pytest.mark.parametrize(
    ("zone", "query"),
    [
        (CHICAGO, "date=ge2029-07-01T05:00:00Z&date=lt2029-08-01"),
        (BERLIN, "date=ge2029-07-01&date=lt2029-07-31T22:00:00Z"),
        ("UTC", "date=ge2029-07-01&date=lt2029-08-01"),
    ],
)
def test_a_period_is_never_more_than_its_days_in_the_practices_zone(zone: str, query: str) -> None:
    """West of Greenwich the first day begins later than that of UTC, east of it the last ends
    earlier; a date without a time is a day of UTC."""
    found = scope("patient/Observation.rs", zone, data_from="2029-07-01", data_to="2029-07-31")
    assert found == f"patient/Observation.rs?{query}"


@pytest.mark.parametrize("resource_type", sorted(OWNERS))
def test_every_type_is_held_to_a_period_or_said_to_have_none(resource_type: str) -> None:
    """A type that cannot be held to it is left out, never let through."""
    asked = ScopeSet.parse(f"patient/{resource_type}.rs patient/Patient.rs")
    found = Narrowing(data_from=date(2029, 1, 1)).applied(asked, CHICAGO)
    of_type = [one for one in found.resource if one.resource_type == resource_type]
    if resource_type in TIMELESS:
        assert [one.query for one in of_type] == [""]
    elif resource_type in PERIOD_PARAMETERS:
        (one,) = of_type
        code = PERIOD_PARAMETERS[resource_type]
        assert one.query == f"{code}=ge2029-01-01T06:00:00Z"
        assert parameters_for(resource_type)[code].type == "date"
        assert understands(one)
    else:
        assert of_type == []


def test_files_are_left_out_of_a_period() -> None:
    assert scope("patient/Binary.rs patient/Goal.rs", data_to="2029-01-01") == (
        "patient/Goal.rs?start-date=lt2029-01-02"
    )


def test_the_tables_name_types_that_are_there() -> None:
    assert PERIOD_PARAMETERS.keys() | TIMELESS <= OWNERS.keys()
    assert not PERIOD_PARAMETERS.keys() & TIMELESS


@pytest.mark.parametrize(
    "limits",
    [
        {"only_reading": "yes"},
        {"data_from": "2029-01-01"},
        {"data_to": "2029-01-01"},
        {"only_reading": "yes", "data_from": "2028-01-01", "data_to": "2029-01-01"},
    ],
)
def test_a_narrowing_never_widens(limits: Any) -> None:
    children = " ".join(f"patient/Condition.cruds?{query}" for query in SUB_RESOURCES["Condition"])
    asked = ScopeSet.parse(f"openid patient/Observation.cruds patient/Patient.read {children}")
    narrowed = Narrowing.parse(limits).applied(asked, BERLIN)
    assert asked.covers(narrowed)
    assert not narrowed.covers(asked)


# --- the end ------------------------------------------------------------------------------------


def test_a_day_ends_at_its_midnight_in_the_practices_zone() -> None:
    assert days().end_of(date(2030, 4, 1)) == at("2030-04-02T00:00:00")
    assert days(zone=CHICAGO).end_of(date(2030, 4, 1)) == at("2030-04-02T05:00:00")
    assert days(zone=BERLIN).end_of(date(2030, 4, 1)) == at("2030-04-01T22:00:00")
    assert days().end_of(None) is None


def test_today_is_the_first_day_and_the_policy_has_the_last() -> None:
    found = days()
    assert found.first_day == date(2030, 3, 17)
    assert found.last_day == date(2031, 3, 17)
    assert found.end_of(found.first_day) == at("2030-03-18T00:00:00")
    assert found.end_of(found.last_day) == START + 365 * DAY  # 17:46, before that midnight
    for day in (date(2030, 3, 16), date(2031, 3, 18), date(1900, 1, 1), date(2999, 1, 1)):
        with pytest.raises(NarrowingRefused) as refused:
            found.end_of(day)
        assert refused.value.field == UNTIL
        assert "from 2030-03-17 to 2031-03-17" in refused.value.problem


def test_no_end_is_beyond_the_grants_own() -> None:
    found = days(until=at("2030-03-20T12:00:00"))
    assert found.last_day == date(2030, 3, 20)
    assert found.end_of(date(2030, 3, 20)) == at("2030-03-20T12:00:00")
    with pytest.raises(NarrowingRefused):
        found.end_of(date(2030, 3, 21))


def test_a_grant_that_ends_at_midnight_ends_with_the_day_before() -> None:
    found = days(until=at("2030-03-20T05:00:00"), zone=CHICAGO)
    assert found.last_day == date(2030, 3, 19)


def test_of_several_records_the_longest_counts_and_each_keeps_its_own_end() -> None:
    chosen = [childs_record(START + DAY), own_record()]
    found = EndDates.of(chosen, now=START, lifetimes=Lifetimes())
    assert found.latest == START + 365 * DAY


# --- what apps are told -------------------------------------------------------------------------


def test_ones_own_record_without_an_end_has_nothing_to_tell() -> None:
    """Inferno's two suites disagree about ``fhirContext`` (S23): it is left out where it can be."""
    assert proxy_context(own_record(), until=None) == []


def test_the_end_of_ones_own_access_is_told() -> None:
    (told,) = proxy_context(own_record(), until=at("2030-04-02T00:00:00"))
    assert told == {
        "identifier": {"system": role_uris()["access-ends"], "value": "2030-04-02T00:00:00Z"},
        "type": "Consent",
        "role": "https://fhir-portal.example/ig/proxy-role/access-ends",
    }


@pytest.mark.parametrize(
    ("until", "granted", "told"),
    [(1000.0, 2000.0, 1000), (2000.0, 1000.0, 1000), (None, 1000.9, 1000), (1000.0, None, 1000)],
)
def test_the_earlier_end_is_told(until: float | None, granted: float | None, told: int) -> None:
    *_, end = proxy_context(childs_record(granted), until=until)
    assert end["identifier"]["value"] == f"{datetime.fromtimestamp(told, UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_a_proxy_is_told_as_smart_has_it() -> None:
    """SMART App Launch 2.2, fhirContext: a relative reference or an identifier, and a type; a role
    that is an absolute URI."""
    record = dataclasses.replace(childs_record(START), act=frozenset({"forms"}))
    found = proxy_context(record, until=None)
    for one in found:
        assert one.keys() <= {"reference", "identifier", "type", "role"}
        assert "reference" in one or "identifier" in one
        assert one["role"] in role_uris().values()
        assert one["type"] not in ("Patient", "Encounter")
    by_role: dict[str, list[Any]] = {}
    for one in found:
        what = one.get("reference") or one["identifier"]["value"]
        by_role.setdefault(one["role"].rpartition("/")[2], []).append(what)
    assert by_role == {
        "related-person": ["RelatedPerson/mara-for-pip"],
        "relationship": ["mother"],
        "grant": ["Consent/pip-to-mara"],
        "section": ["demographics", "forms", "results"],
        "act-section": ["forms"],
        "access-ends": ["2030-03-17T17:46:40Z"],
    }
    assert set(by_role) == set(role_uris())


def test_the_roles_are_in_the_reference_for_app_developers() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "proxy-context.md").read_text()
    for uri in role_uris().values():
        assert f"| `{uri}` |" in page
    for resource_type in TIMELESS:
        assert resource_type in page
