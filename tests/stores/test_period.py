"""A period of data: scopes with ``ge`` and ``lt`` dates bound what every call of a store shows.

Seen to fail: with one of two bounds left out, with the wider instead of the narrower of the days of
the practice's zone and of UTC, at either end, and with an end that is a day late.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

from fhir_portal.access.visibility import Visibility
from fhir_portal.search.request import parse_query
from fhir_portal.smart.narrowing import PERIOD_PARAMETERS, Narrowing
from fhir_portal.smart.scope import ScopeSet
from tests.builders import an_observation
from tests.stores.rows import KEY, a_row, asked, found, of_record, walked, write

YEAR = Narrowing(data_from=date(2030, 3, 1), data_to=date(2030, 5, 31))
ZONE = "America/Chicago"
"""Six hours behind UTC, five in summer: days begin at other moments than in UTC."""

INSIDE: Mapping[str, Mapping[str, Any]] = {
    "a-day": {"effectiveDateTime": "2030-04-15"},
    "first-moment-of-both": {"effectiveDateTime": "2030-03-01T00:00:00-06:00"},
    "last-moment-of-both": {"effectiveDateTime": "2030-05-31T23:59:59.999Z"},
    "last-day": {"effectiveDateTime": "2030-05-31"},
    "a-month": {"effectiveDateTime": "2030-04"},
    "an-instant": {"effectiveInstant": "2030-04-15T08:00:00.123+02:00"},
    "a-span": {"effectivePeriod": {"start": "2030-04-01", "end": "2030-04-30"}},
}
OUTSIDE: Mapping[str, Mapping[str, Any]] = {
    "the-day-before": {"effectiveDateTime": "2030-02-28"},
    "the-moment-before": {"effectiveDateTime": "2030-02-28T23:59:59.999-06:00"},
    "the-day-after": {"effectiveDateTime": "2030-06-01"},
    "the-moment-after": {"effectiveDateTime": "2030-06-01T00:00:00-05:00"},
    "the-year-before": {"effectiveDateTime": "2029"},
    "a-span-before": {"effectivePeriod": {"start": "2029-01-01", "end": "2030-02-27"}},
    "a-span-after": {"effectivePeriod": {"start": "2030-06-02"}},
    "no-date": {},
}


def dated(own_id: str, when: Mapping[str, Any], **more: Any) -> Any:
    """An Observation with one date or none."""
    tree = {k: v for k, v in an_observation(own_id, **more).items() if "effective" not in k}
    return {**tree, **when}


def within(scope: str, narrowing: Narrowing = YEAR) -> Visibility:
    """What a scope shows that a person held to a period."""
    (narrowed,) = narrowing.applied(ScopeSet.parse(scope), ZONE).resource
    query = parse_query(narrowed.resource_type, narrowed.query)
    return of_record(narrowed.resource_type, any_of=(query,))


@pytest.fixture
async def filled(store: Any) -> Any:
    """Everything above, and the same of another record."""
    both = {**INSIDE, **OUTSIDE}
    await write(
        store,
        *(a_row(dated(own_id, when)) for own_id, when in both.items()),
        *(a_row(dated(f"bo-{own_id}", when), owners=["bo"]) for own_id, when in both.items()),
    )
    return store


async def test_a_search_finds_what_is_inside(filled: Any) -> None:
    visible = within("patient/Observation.rs")
    assert set(await found(filled, "", visible)) == set(INSIDE)
    assert set(await walked(filled, "_count=2&_sort=date", visible)) == set(INSIDE)
    assert (await filled.search(asked("_summary=count"), visible)).total == len(INSIDE)


@pytest.mark.parametrize("own_id", [*INSIDE, *OUTSIDE])
async def test_a_read_shows_what_is_inside(filled: Any, own_id: str) -> None:
    visible = within("patient/Observation.rs")
    assert (await filled.read(KEY(f"Observation/{own_id}"), visible) is not None) == (
        own_id in INSIDE
    )
    assert await filled.read(KEY(f"Observation/bo-{own_id}"), visible) is None


async def test_many_reads_and_the_feed_show_no_more(filled: Any) -> None:
    visible = within("patient/Observation.rs")
    keys = [KEY(f"Observation/{own_id}") for own_id in (*INSIDE, *OUTSIDE)]
    rows = await filled.read_many(keys, visible)
    assert {row.facts.id for row in rows} == set(INSIDE)
    page = await filled.feed({"Observation": visible}, since=None, count=100, after=None)
    assert {row.facts.id for row in page.rows} == set(INSIDE)


async def test_what_is_asked_for_cannot_widen_the_period(filled: Any) -> None:
    visible = within("patient/Observation.rs")
    for query in ("date=lt2030-03-01", "date=ge2030-06-01", "date=2029", "date:missing=true"):
        assert await found(filled, query, visible) == []
    assert "a-day" in await found(filled, "date=ge2000-01-01&date=lt2100-01-01", visible)


async def test_one_bound_alone_bounds_that_side(filled: Any) -> None:
    since = within("patient/Observation.rs", Narrowing(data_from=YEAR.data_from))
    ids = set(await found(filled, "_count=100", since))
    assert "the-day-after" in ids
    assert not ids & {"the-day-before", "the-moment-before", "a-span-before", "no-date"}
    until = within("patient/Observation.rs", Narrowing(data_to=YEAR.data_to))
    ids = set(await found(filled, "_count=100", until))
    assert "the-day-before" in ids
    assert not ids & {"the-day-after", "the-moment-after", "a-span-after", "no-date"}


async def test_a_period_narrows_a_granular_scope_further(store: Any) -> None:
    await write(
        store,
        *(
            a_row(dated(f"{category}-{day}", {"effectiveDateTime": day}, category=category))
            for category in ("laboratory", "vital-signs")
            for day in ("2030-02-01", "2030-04-01")
        ),
    )
    visible = within("patient/Observation.rs?category=laboratory")
    assert await found(store, "", visible) == ["laboratory-2030-04-01"]


@pytest.mark.parametrize("name", sorted(PERIOD_PARAMETERS))
async def test_nothing_is_shown_without_a_date(store: Any, name: str) -> None:
    """A type without its date, whatever the type: an absent value is no right."""
    await write(store, a_row({"resourceType": name, "id": "a"}))
    assert await store.read(KEY(f"{name}/a"), of_record(name)) is not None
    visible = within(f"patient/{name}.rs")
    assert await store.read(KEY(f"{name}/a"), visible) is None
    assert await found(store, "", visible) == []
