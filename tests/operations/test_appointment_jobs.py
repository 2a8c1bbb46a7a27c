"""Reminders: to whose record it is, of what is still to come, and saying nothing about it."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import work_off
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.words import BUILT_IN, Letterhead, render
from fhir_portal.operations.appointment_jobs import appointment_jobs
from fhir_portal.portal import Portal
from tests.builders import DERM, RESTRICTED, Caller, Clock, a_grant, an_appointment, keep
from tests.operations.booking import DAY, at

HOUR = 3600.0


def visit(begins: float, **more: Any) -> Any:
    return an_appointment("visit", start=at(begins), end=at(begins + 900), **more)


async def told(portal: Portal, clock: Clock, store: EmbeddedStore) -> list[OutboxMessage]:
    await work_off(store, appointment_jobs(portal.server), worker="one", clock=clock)
    return [
        one for one in await store.every(OutboxMessage) if one.template == "appointment-reminder"
    ]


@pytest.fixture(autouse=True)
async def policy(accounts: EmbeddedStore) -> None:
    await keep(accounts, PracticePolicy(key=DERM, reminder_hours=(72, 24)))


async def test_they_come_when_the_practice_wants_them_once_each(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(visit(4 * DAY), visit(4 * DAY, comment="again"))
    clock.advance(DAY - 1)
    assert await told(portal, clock, store) == []
    clock.advance(1)
    (first,) = await told(portal, clock, store)
    assert (first.to, first.values) == (f"record:{DERM}/Patient/ada", {})
    clock.advance(2 * DAY)
    assert len(await told(portal, clock, store)) == 2
    clock.advance(5 * DAY)
    assert len(await told(portal, clock, store)) == 2


@pytest.mark.parametrize(
    "instead",
    [
        {"status": "cancelled"},
        {"status": "fulfilled"},
        {"meta": RESTRICTED},
        {"start": at(9 * DAY), "end": at(9 * DAY + 60)},
    ],
)
async def test_nobody_is_reminded_of_what_is_no_more_or_is_sensitive(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller, instead: dict[str, Any]
) -> None:
    await ehr.store(visit(4 * DAY), visit(4 * DAY) | instead)
    clock.advance(3 * DAY)
    assert await told(portal, clock, store) == []


async def test_what_has_passed_before_the_job_came_is_not_told_of(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(visit(4 * DAY))
    clock.advance(4 * DAY)
    assert await told(portal, clock, store) == []


async def test_what_is_moved_is_told_of_at_its_new_time(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(visit(4 * DAY), visit(5 * DAY))
    clock.advance(1.5 * DAY)
    assert await told(portal, clock, store) == []
    clock.advance(DAY)
    assert len(await told(portal, clock, store)) == 1


async def test_a_proxy_who_sees_the_appointments_is_reminded_too(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    """Ada, for her child Kit: by the account that she is a proxy with."""
    when = {"start": at(4 * DAY), "end": at(4 * DAY + 900)}
    await ehr.store(an_appointment("kits", of=["kit"], **when))
    clock.advance(1.5 * DAY)
    assert [one.to for one in await told(portal, clock, store)] == [f"record:{DERM}/Patient/kit"]
    await ehr.store(a_grant("grant", of="kit", to="mother", sections=["appointments"]))
    await ehr.store(an_appointment("kits-2", of=["kit"], start=at(8 * DAY), end=at(8 * DAY + 60)))
    clock.advance(4 * DAY)
    assert "account:ada" in [one.to for one in await told(portal, clock, store)]


def test_the_words_say_neither_when_nor_what_for() -> None:
    head = Letterhead("Elm Street", "", "https://portal.example")
    letter = render(BUILT_IN["appointment-reminder"], head, {})
    assert "https://portal.example/go/appointments" in letter.text
    assert "{" not in letter.text + letter.subject + letter.sms
