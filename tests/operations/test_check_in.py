"""\"I am here\": in its window, taken back, and how the queue stands."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.messaging import be_present
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify import jobs
from fhir_portal.operations.appointment_jobs import appointment_jobs
from fhir_portal.operations.invitation_task import CODE as INVITATION
from fhir_portal.portal import Portal
from fhir_portal.resources.task import CODE as PORTAL_TASK
from tests.builders import (
    DERM,
    RESTRICTED,
    START,
    Caller,
    Clock,
    a_practice,
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
        *(
            a_task(f"asked-{code}", of="ada", code=concept(PORTAL_TASK, code))
            for code in ("refill-request", "bill-dispute", "propose-demographics")
        ),
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


# ---------------------------------------------------------------- the conversation with the desk


@pytest.fixture
async def desk(accounts: EmbeddedStore) -> EmbeddedStore:
    """The practice is one whose front desk can be written to."""
    await keep(accounts, a_practice())
    return accounts


async def arrived(caller: Caller, clock: Clock, own_id: str = "ada-at-ten") -> Any:
    clock.now = START + 1.5 * HOUR
    answer = await check_in(caller, own_id)
    assert answer.status == 200, answer.body
    return answer


async def threads_of(ehr: Caller) -> list[Any]:
    return (await ehr.get("Communication?category=thread")).entries


async def work_off(portal: Portal) -> None:
    """Carry out what is due."""
    server = portal.server
    store: Any = server.store
    for name, work in appointment_jobs(server).items():
        while (lease := await jobs.claim(store, name, "worker", server.clock())) is not None:
            await work(lease)


@pytest.mark.requirement("portal", "S1-38")
async def test_who_is_here_has_a_conversation_with_the_front_desk(
    ada: Caller, ehr: Caller, clock: Clock, desk: EmbeddedStore
) -> None:
    assert await threads_of(ehr) == []
    answer = await arrived(ada, clock)
    (thread,) = await threads_of(ehr)
    assert value(answer, "thread") == {"reference": f"Communication/{thread['id']}"}
    assert value(answer, "staff-present") is False
    assert thread["about"] == [{"reference": "Appointment/ada-at-ten"}]
    assert thread["subject"] == {"reference": "Patient/ada"}
    assert thread["topic"]["coding"][0]["code"] == "appointment"
    assert thread["status"] == "on-hold"
    assert len((await ehr.get(f"Provenance?target=Communication/{thread['id']}")).entries) == 1
    await be_present(desk, DERM, now=clock.now)
    again = await check_in(ada, "ada-at-ten")
    assert value(again, "staff-present") is True
    assert len(await threads_of(ehr)) == 1


@pytest.mark.requirement("portal", "S1-38")
async def test_it_is_closed_with_the_arrival_and_opened_again_with_it(
    ada: Caller, ehr: Caller, clock: Clock, desk: EmbeddedStore
) -> None:
    assert desk is not None
    await arrived(ada, clock)
    undone = await check_in(ada, "ada-at-ten", undo=True)
    assert value(undone, "thread") is None
    assert [one["status"] for one in await threads_of(ehr)] == ["completed"]
    await arrived(ada, clock)
    assert [one["status"] for one in await threads_of(ehr)] == ["on-hold"]


@pytest.mark.requirement("portal", "S1-38")
async def test_it_is_closed_after_the_visit(
    ada: Caller, ehr: Caller, portal: Portal, clock: Clock, desk: EmbeddedStore
) -> None:
    """When the practice says that it is over; or, if it never does, in the evening."""
    assert desk is not None
    await arrived(ada, clock)
    await work_off(portal)
    assert [one["status"] for one in await threads_of(ehr)] == ["on-hold"]
    visit_now = (await ehr.get("Appointment/ada-at-ten")).json
    await ehr.store(visit_now | {"status": "fulfilled"})
    await work_off(portal)
    assert [one["status"] for one in await threads_of(ehr)] == ["completed"]
    await ehr.store(visit("second", 2 * HOUR + 900))
    await arrived(ada, clock, "second")
    for hours in (5, 8):
        clock.now = START + hours * HOUR
        await work_off(portal)
        assert {one["status"] for one in await threads_of(ehr)} == {"completed", "on-hold"}
    clock.now = START + 20 * HOUR
    await work_off(portal)
    assert {one["status"] for one in await threads_of(ehr)} == {"completed"}


@pytest.mark.requirement("portal", "S1-38")
@pytest.mark.parametrize(
    ("act", "opens"), [(("appointments",), 0), (("appointments", "messages"), 1)]
)
async def test_who_may_not_write_messages_opens_none(
    portal: Portal, ehr: Caller, clock: Clock, desk: EmbeddedStore, act: Any, opens: int
) -> None:
    assert desk is not None
    await ehr.store(visit("kits", 2 * HOUR + 900, of="kit"))
    mother = Caller(portal, a_proxy(sections=act, act=act))
    answer = await arrived(mother, clock, "kits")
    assert len(await threads_of(ehr)) == opens
    assert (value(answer, "thread") is not None) == bool(opens)


@pytest.mark.requirement("portal", "S1-38")
async def test_an_app_without_messages_is_told_of_none_and_an_ehr_opens_none(
    ada: Caller, ehr: Caller, clock: Clock, desk: EmbeddedStore
) -> None:
    assert desk is not None
    narrow = ada.with_scope("patient/Appointment.ru")
    assert value(await arrived(narrow, clock), "thread") is None
    assert len(await threads_of(ehr)) == 1
    await ehr.store(visit("bos", 2 * HOUR + 900, of="bo"))
    await arrived(ehr, clock, "bos")
    assert len(await threads_of(ehr)) == 1


@pytest.mark.requirement("portal", "S1-38")
async def test_of_an_appointment_that_is_hidden_from_proxies_so_is_the_conversation(
    ada: Caller, ehr: Caller, portal: Portal, clock: Clock, desk: EmbeddedStore
) -> None:
    assert desk is not None
    await ehr.store(visit("ada-at-ten", 2 * HOUR) | {"meta": RESTRICTED})
    await arrived(ada, clock)
    (thread,) = await threads_of(ehr)
    aunt = Caller(portal, a_proxy("ada", "aunt", sections=("appointments", "messages")))
    assert (await aunt.get(f"Communication/{thread['id']}")).status == 404
