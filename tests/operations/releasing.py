"""A practice whose laboratory results wait, on either store; what tests of releases ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.resources.release import HOUR
from fhir_portal.resources.store import PortalStore
from tests.builders import (
    DERM,
    Caller,
    Clock,
    Json,
    a_patient,
    a_portal,
    a_practice,
    a_practitioner,
    keep,
)
from tests.operations.test_label_rules import WAITS, a_report, a_result, iso, set_to, worked_off
from tests.places import kinds, new_place
from tests.staff import a_member_of_staff

LABS: Json = {"release": WAITS["release"][:1]}
LAB, REPORT = "Observation/lab", "DiagnosticReport/report"
OPEN: Json = {"tag": [{"system": "https://tags.example", "code": "open"}]}
"""Says something, so that no tag of before stays."""
HELD: Json = {"reason": "the doctor calls first", "exception": "preventing-harm"}
DAY = 24 * HOUR


@pytest.fixture(params=kinds("memory"))
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[PortalStore]:
    """Either store, empty."""
    place = new_place(request.param, tmp_path)
    found = await place.open(clock)
    yield found
    await found.aclose()
    await place.drop()


@pytest.fixture
def portal(store: Any, clock: Clock) -> Any:
    return a_portal(store, clock)


@pytest.fixture
async def chart(store: Any, ehr: Caller, clock: Clock) -> Caller:
    """Two people; a rule that laboratory results wait for 48 hours."""
    await keep(store, a_practice(DERM))
    await set_to(store, LABS)
    await worked_off(ehr.portal, clock)
    await ehr.store(a_practitioner("desk"), a_patient("ada"), a_patient("bo"))
    return ehr


@pytest.fixture
def desk(portal: Any) -> Caller:
    return Caller(portal, a_member_of_staff("desk", permissions=("view", "documents")))


@pytest.fixture
async def waiting(chart: Caller, clock: Clock) -> Caller:
    """A result that waits, and its report; both have been amended once."""
    issued = iso(clock())
    clock.advance(90)
    for status in ("preliminary", "final"):
        await chart.store(a_result(issued, status=status), a_report(issued=issued))
    clock.advance(HOUR)
    return chart


def bare(**more: Any) -> Json:
    """A report that lists no results."""
    return {name: value for name, value in a_report(**more).items() if name != "result"}


def version(tree: Json) -> str:
    return str(tree["meta"]["versionId"])


async def since(by: Caller, instant: str) -> list[str]:
    """The feed of a follower, the oldest first."""
    found = await by.get(f"_history?_since={instant}&_count=200")
    assert found.status == 200, found.body
    return [f"{one['resourceType']}/{one['id']}" for one in reversed(found.entries)]


async def released(portal: Any, clock: Clock) -> None:
    clock.advance(48 * HOUR)
    assert await worked_off(portal, clock) >= 1
