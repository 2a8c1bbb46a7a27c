"""Time that becomes free is offered to who waits, the longest first, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import work_off
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.appointment_jobs import appointment_jobs
from fhir_portal.portal import Portal
from tests.builders import DERM, RESTRICTED, Caller, Clock, Json, concept, keep, oneself, reference
from tests.operations.booking import (
    CHECK,
    DAY,
    SERVICES,
    SURGERY,
    TALK,
    a_schedule,
    a_slot,
    at,
    book,
    booked,
    cancel,
    held,
    set_up,
    slots,
)


@pytest.fixture(autouse=True)
async def practice(accounts: EmbeddedStore, ehr: Caller) -> None:
    await set_up(accounts, ehr)


@pytest.fixture
def bo(portal: Portal) -> Caller:
    return Caller(portal, oneself("bo"))


@pytest.fixture
def kit(portal: Portal) -> Caller:
    return Caller(portal, oneself("kit"))


def waiting(of: str, **more: Any) -> Json:
    return {
        "resourceType": "Appointment",
        "status": "waitlist",
        "participant": [{"actor": reference(f"Patient/{of}"), "status": "accepted"}],
    } | more


async def offered(caller: Caller) -> list[str]:
    """The slots that are held for somebody."""
    found = (await caller.get("Appointment?status=pending")).entries
    return [one["slot"][0]["reference"].partition("/")[2] for one in found]


async def jobs(portal: Portal, clock: Clock) -> None:
    functions = appointment_jobs(portal.server)
    await work_off(portal.server.store, functions, worker="one", clock=clock)


async def told(store: EmbeddedStore) -> list[str]:
    found = [one for one in await store.every(OutboxMessage) if one.template == "appointment-freed"]
    return [one.to for one in sorted(found, key=lambda one: one.created)]


@pytest.mark.requirement("portal", "S2-02")
async def test_who_waits_longest_is_asked_first_then_the_next(
    portal: Portal, clock: Clock, store: EmbeddedStore, ada: Caller, bo: Caller, kit: Caller
) -> None:
    first = await booked(ada, "nine")
    await bo.post(waiting("bo"))
    clock.advance(1)
    wait = (await kit.post(waiting("kit"))).json["id"]
    await jobs(portal, clock)
    assert await told(store) == []
    await cancel(ada, first)
    await jobs(portal, clock)
    # "nine" is offered; "nine-in-room" is Lark's time too, and so is not free any more.
    assert (await offered(bo), await offered(kit)) == (["nine"], [])
    assert await told(store) == [f"record:{DERM}/Patient/bo"]
    assert "nine" not in await slots(ada)
    clock.advance(120 * 60)
    await jobs(portal, clock)
    assert (await offered(bo), await offered(kit)) == ([], ["nine"])
    own_id = (await kit.get("Appointment?status=pending")).entries[0]["id"]
    assert (await book(kit, own_id)).status == 200
    assert (await kit.get(f"Appointment/{wait}")).json["status"] == "cancelled"
    assert len((await bo.get("Appointment?status=waitlist")).entries) == 1
    clock.advance(DAY)
    await jobs(portal, clock)
    assert await offered(bo) == []


async def test_the_ehr_frees_time_too_and_by_moving(
    portal: Portal, clock: Clock, bo: Caller, ada: Caller, ehr: Caller
) -> None:
    own_id = await booked(ada, "ten")
    await bo.post(waiting("bo"))
    tree = (await ehr.get(f"Appointment/{own_id}")).json
    moved = {name: value for name, value in tree.items() if name != "slot"}
    await ehr.store(moved | {"start": at(6 * DAY), "end": at(6 * DAY + 60)})
    await jobs(portal, clock)
    assert await offered(bo) == ["ten"]


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ({}, ["nine"]),
        ({"serviceType": [concept(SERVICES, CHECK)]}, ["nine"]),
        ({"serviceType": [concept(SERVICES, TALK)]}, []),
        ({"requestedPeriod": [{"start": at(3 * DAY)[:10], "end": at(3 * DAY)[:10]}]}, ["nine"]),
        ({"requestedPeriod": [{"start": at(4 * DAY)[:10]}]}, []),
        ({"requestedPeriod": [{"end": at(2 * DAY)[:10]}]}, []),
        ({"requestedPeriod": [{"start": at(3 * DAY - 60), "end": at(3 * DAY + 60)}]}, ["nine"]),
        ({"requestedPeriod": [{"start": at(3 * DAY + 1200)}]}, []),
    ],
)
async def test_it_is_offered_where_it_is_what_was_wished_for(
    portal: Portal, clock: Clock, ada: Caller, bo: Caller, wish: Json, found: list[str]
) -> None:
    first = await booked(ada, "nine")
    assert (await bo.post(waiting("bo", **wish))).status == 201
    await cancel(ada, first)
    await jobs(portal, clock)
    assert await offered(bo) == found


async def test_with_whom_counts(
    portal: Portal, clock: Clock, ada: Caller, ehr: Caller, bo: Caller
) -> None:
    first = await booked(ada, "nine")
    for who in ("wren", "lark"):
        tree = waiting("bo")
        tree["participant"].append(
            {"actor": reference(f"Practitioner/{who}"), "status": "needs-action"}
        )
        await ehr.store(tree | {"id": f"wait-{who}"})
    await cancel(ada, first)
    await jobs(portal, clock)
    assert await offered(bo) == ["nine"]


@pytest.mark.parametrize("case", ["sensitive slot", "request only", "sensitive wait", "too soon"])
async def test_what_patients_do_not_book_themselves_is_not_offered(
    portal: Portal,
    clock: Clock,
    store: EmbeddedStore,
    ada: Caller,
    bo: Caller,
    ehr: Caller,
    case: str,
) -> None:
    if case == "sensitive slot":
        own_id = await booked(ada, "word")
    elif case == "request only":
        await ehr.store(
            a_schedule("knives", "Practitioner/wren", service=SURGERY),
            a_slot("cut", 5 * DAY, of="knives"),
        )
        own_id = await booked(ehr, "cut", of="ada")
    elif case == "too soon":
        own_id = await booked(ehr, "soon", of="ada")
    else:
        own_id = await booked(ada, "nine")
    await ehr.store(
        waiting("bo", id="wait") | ({"meta": RESTRICTED} if case == "sensitive wait" else {})
    )
    await cancel(ehr, own_id)
    await jobs(portal, clock)
    assert await offered(bo) == []
    assert await told(store) == []


async def test_a_hold_that_somebody_lets_go_is_offered_to_who_waits(
    portal: Portal, clock: Clock, ada: Caller, bo: Caller
) -> None:
    own_id = await held(ada, "nine")
    await bo.post(waiting("bo"))
    await cancel(ada, own_id)
    await jobs(portal, clock)
    assert await offered(bo) == ["nine"]


async def test_the_time_of_an_offer_is_the_practices(
    portal: Portal, clock: Clock, store: EmbeddedStore, ada: Caller, bo: Caller
) -> None:
    policy = PracticePolicy(key=DERM, booking="book", offer_minutes=10)
    await keep(store, policy)
    first = await booked(ada, "nine")
    await bo.post(waiting("bo"))
    await cancel(ada, first)
    await jobs(portal, clock)
    clock.advance(600)
    assert "nine" in await slots(ada)


async def test_who_lets_an_offer_go_is_not_asked_again_by_another_wish(
    portal: Portal, clock: Clock, ada: Caller, bo: Caller
) -> None:
    """Nobody keeps a time for themselves by waiting many times over."""
    first = await booked(ada, "ten")
    for _ in range(3):
        await bo.post(waiting("bo"))
    await cancel(ada, first)
    await jobs(portal, clock)
    assert await offered(bo) == ["ten"]
    own_id = (await bo.get("Appointment?status=pending")).entries[0]["id"]
    await cancel(bo, own_id)
    await jobs(portal, clock)
    assert await offered(bo) == []
    assert "ten" in await slots(ada)
