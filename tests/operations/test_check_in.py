"""\"I am here\": in its window, taken back, and how the queue stands."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.operations.invitation_task import CODE as INVITATION
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    Caller,
    Clock,
    a_proxy,
    a_task,
    an_appointment,
    assert_outcome,
    concept,
    keep,
    oneself,
)
from tests.operations.booking import SENSITIVE, at, check_in, value

HOUR = 3600.0


@pytest.fixture(autouse=True)
async def practice(accounts: EmbeddedStore, ehr: Caller) -> None:
    await keep(accounts, PracticePolicy(key=DERM))
    await ehr.store(
        visit("ada-at-ten", 2 * HOUR),
        a_task("form", of="ada"),
        a_task("done", of="ada", status="completed"),
        a_task("invitation", of="ada", code=concept(*INVITATION)),
    )


def visit(own_id: str, begins: float, *, of: str = "ada", status: str = "booked") -> Any:
    tree = an_appointment(own_id, of=[of], status=status, start=at(begins), end=at(begins + 900))
    tree["participant"].append({"actor": {"reference": "Practitioner/lark"}, "status": "accepted"})
    return tree


@pytest.mark.requirement("portal", "S1-37")
async def test_a_patient_says_they_are_here_sees_the_queue_and_takes_it_back(
    ada: Caller, portal: Portal, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(visit("bo-before", HOUR, of="bo"), visit("kit-before", 1.5 * HOUR, of="kit"))
    clock.advance(HOUR)
    bo = Caller(portal, oneself("bo"))
    assert (await check_in(bo, "bo-before")).status == 200
    answer = await check_in(ada, "ada-at-ten")
    assert answer.status == 200, answer.body
    assert (value(answer, "status"), value(answer, "arrived")) == (
        "arrived",
        f"{at(HOUR)[:-1]}.000Z",
    )
    assert (value(answer, "ahead"), value(answer, "forms-due")) == (1, 1)
    assert value(answer, "appointment")["status"] == "arrived"
    again = await check_in(ada, "ada-at-ten")
    assert value(again, "appointment") == value(answer, "appointment")
    undone = await check_in(ada, "ada-at-ten", undo=True)
    assert (value(undone, "status"), value(undone, "arrived")) == ("booked", None)
    assert_outcome(await check_in(ada, "ada-at-ten", undo=True), 409, "conflict")
    assert (await check_in(ada, "ada-at-ten")).status == 200
    found = await ehr.get("Provenance?target=Appointment/ada-at-ten")
    assert len(found.entries) == 3
    mother = Caller(portal, a_proxy(sections=("appointments",), act=("appointments",)))
    answer = await check_in(mother, "kit-before")
    assert (value(answer, "status"), value(answer, "forms-due")) == ("arrived", 0)


@pytest.mark.parametrize(("at_hour", "status"), [(0.9, 422), (1.0, 200), (2.5, 200), (2.51, 422)])
async def test_the_window_is_the_practices(
    ada: Caller, clock: Clock, at_hour: float, status: int
) -> None:
    clock.advance(at_hour * HOUR)
    assert (await check_in(ada, "ada-at-ten")).status == status


async def test_the_window_can_be_another_one(
    ada: Caller, clock: Clock, store: EmbeddedStore
) -> None:
    await keep(store, PracticePolicy(key=DERM, check_in_before=5, check_in_after=0))
    clock.advance(1.9 * HOUR)
    answer = await check_in(ada, "ada-at-ten")
    assert answer.words == ["check in from 5 minutes before the appointment on"]
    clock.advance(0.1 * HOUR)
    assert (await check_in(ada, "ada-at-ten")).status == 200


@pytest.mark.parametrize(
    "status", ["proposed", "cancelled", "fulfilled", "noshow", "entered-in-error", "checked-in"]
)
async def test_nobody_comes_to_these(ada: Caller, ehr: Caller, clock: Clock, status: str) -> None:
    await ehr.store(visit("other", 4 * HOUR, status=status))
    clock.advance(3 * HOUR)
    assert_outcome(await check_in(ada, "other"), 409, "conflict")


async def test_a_pending_one_is_one_to_come_to(ada: Caller, ehr: Caller, clock: Clock) -> None:
    await ehr.store(visit("other", 4 * HOUR, status="pending"))
    clock.advance(4 * HOUR)
    assert (await check_in(ada, "other")).status == 200
    assert value(await check_in(ada, "other", undo=True), "status") == "pending"


async def test_what_the_practice_has_gone_on_with_is_not_taken_back(
    ada: Caller, ehr: Caller, clock: Clock
) -> None:
    clock.advance(2 * HOUR)
    tree = value(await check_in(ada, "ada-at-ten"), "appointment")
    await ehr.store({**tree, "comment": "in room 2"})
    assert_outcome(await check_in(ada, "ada-at-ten", undo=True), 409, "conflict")
    await ehr.store({**tree, "status": "checked-in"})
    assert_outcome(await check_in(ada, "ada-at-ten"), 409, "conflict")


async def test_forms_are_counted_only_for_who_may_see_them(ada: Caller, clock: Clock) -> None:
    clock.advance(2 * HOUR)
    narrow = ada.with_scope("patient/Appointment.ru")
    assert value(await check_in(narrow, "ada-at-ten"), "forms-due") == 0


async def test_ahead_says_nothing_of_the_records_own_appointments(
    ehr: Caller, portal: Portal
) -> None:
    mother = Caller(portal, a_proxy(sections=("appointments",), act=("appointments",)))
    hidden = visit("hidden", 300, of="kit", status="arrived") | {"meta": SENSITIVE}
    await ehr.store(visit("open", 3000, of="kit"), hidden)
    await ehr.store(visit("before", 1500, of="bo", status="arrived"))
    assert (await mother.get("Appointment/hidden")).status == 404
    assert value(await check_in(mother, "open"), "ahead") == 1
