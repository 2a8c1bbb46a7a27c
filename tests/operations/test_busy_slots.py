"""A Slot that says it is busy takes the time of whoever its Schedule is for, in others too."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.portal import Portal
from fhir_portal.resources.appointment import Reserved, renew, reserve_stored
from fhir_portal.resources.reservation import TakenCell, TakenTime
from tests.builders import (
    DERM,
    Caller,
    Clock,
    a_bundle,
    an_appointment,
    assert_outcome,
    keep,
    oneself,
    reference,
)
from tests.operations.booking import (
    DAY,
    a_schedule,
    a_slot,
    at,
    book,
    booked,
    cancel,
    held,
    hold,
    set_up,
    slots,
)

pytestmark = pytest.mark.requirement("portal", "S2-02")


@pytest.fixture(autouse=True)
async def practice(accounts: EmbeddedStore, ehr: Caller) -> None:
    await set_up(accounts, ehr)


@pytest.fixture
def bo(portal: Portal) -> Caller:
    return Caller(portal, oneself("bo"))


async def taken(store: EmbeddedStore) -> set[str]:
    """Who has any time."""
    return {one.appointment for cell in await store.every(TakenCell) for one in cell.holders}


@pytest.mark.parametrize("status", ["busy", "busy-unavailable", "busy-tentative"])
async def test_a_busy_slot_of_another_schedule_blocks(
    ada: Caller, ehr: Caller, status: str
) -> None:
    assert {"nine", "nine-in-room", "ten"} <= set(await slots(ada))
    await ehr.store(a_slot("away", 3 * DAY + 600, of="lark-in-room", minutes=5, status=status))
    left = set(await slots(ada))
    assert left & {"nine", "nine-in-room"} == set()
    assert "ten" in left
    assert_outcome(await hold(ada, "nine"), 404, "not-found")
    await ehr.store(a_slot("away", 3 * DAY + 600, of="lark-in-room", minutes=5, status="free"))
    assert {"nine", "nine-in-room"} <= set(await slots(ada))


async def test_what_is_booked_is_not_in_its_own_way(ada: Caller, ehr: Caller) -> None:
    """An EHR marks the Slot of what was booked as busy, before or after it is."""
    own_id = await held(ada, "nine")
    await ehr.store(a_slot("nine", 3 * DAY, status="busy-tentative"))
    assert (await book(ada, own_id)).status == 200
    await ehr.store(a_slot("nine", 3 * DAY, status="busy"))
    tree = (await ehr.get(f"Appointment/{own_id}")).json
    assert (await ehr.put(tree | {"description": "changed"})).status == 200
    assert (await cancel(ada, own_id)).status == 200


async def test_an_ehr_books_over_its_own_slots_and_over_no_appointment(
    ada: Caller, ehr: Caller
) -> None:
    def visit(own_id: str) -> Any:
        tree = an_appointment(own_id, of=["bo"], start=at(3 * DAY + 7200), end=at(3 * DAY + 7800))
        who = {"actor": reference("Practitioner/lark"), "status": "accepted"}
        return tree | {"participant": [*tree["participant"], who]}

    assert (await ehr.put(visit("over-the-slot"))).status == 201  # of the Slot "taken"
    assert_outcome(await ehr.put(visit("another")), 409, "conflict")
    await booked(ada, "nine")


async def test_who_is_booked_stays_so_when_a_slot_becomes_busy(
    ada: Caller, bo: Caller, ehr: Caller
) -> None:
    own_id = await booked(ada, "nine")
    await ehr.store(a_slot("away", 3 * DAY, of="lark-in-room", minutes=60, status="busy"))
    assert (await ada.get(f"Appointment/{own_id}")).json["status"] == "booked"
    assert (await cancel(ada, own_id)).status == 200
    assert_outcome(await hold(bo, "nine"), 404, "not-found")


async def test_it_gives_back_what_it_has(
    ada: Caller, ehr: Caller, accounts: EmbeddedStore, clock: Clock
) -> None:
    away = a_slot("away", 3 * DAY, of="lark-in-room", status="busy")
    await ehr.store(away)
    assert "Slot/away" in await taken(accounts)
    assert (await ehr.delete("Slot/away")).status in {200, 204}
    assert "Slot/away" not in await taken(accounts)
    assert "nine" in await slots(ada)
    clock.advance(4 * DAY)
    await ehr.store(away)
    assert "Slot/away" not in await taken(accounts)


async def test_one_that_never_ends_is_refused_by_name(ehr: Caller) -> None:
    answer = await ehr.put(a_slot("away", DAY, minutes=8 * 24 * 60, status="busy-unavailable"))
    assert answer.status == 422
    assert answer.json["issue"][0]["expression"] == ["Slot.end"]
    assert (await ehr.put(a_slot("away", DAY, minutes=8 * 24 * 60))).status == 201


async def test_it_is_all_or_nothing_in_a_transaction(ada: Caller, ehr: Caller) -> None:
    away = a_slot("away", 3 * DAY, of="lark-in-room", status="busy")
    wrong = {"resourceType": "Slot", "id": "wrong"}
    answer = await ehr.bundle(
        a_bundle("transaction", ("PUT", "Slot/away", away), ("PUT", "Slot/wrong", wrong))
    )
    assert answer.status >= 400
    assert "nine" in await slots(ada)


async def test_it_follows_its_schedule(
    ada: Caller, ehr: Caller, portal: Portal, accounts: EmbeddedStore, clock: Clock
) -> None:
    """The Schedule may arrive later, or be somebody else's from some day on."""
    await ehr.store(a_schedule("theatre", "Practitioner/wren"))
    await ehr.store(a_slot("operation", 3 * DAY, of="theatre", status="busy"))
    assert "nine" in await slots(ada)
    await ehr.store(a_schedule("theatre", "Practitioner/lark"))
    await renew(accounts, DERM, now=clock.now, because=ResourceKey("Schedule", "theatre"))
    assert "nine" not in await slots(ada)
    await ehr.store(a_schedule("theatre", "Practitioner/wren"))
    await renew(accounts, DERM, now=clock.now, because=ResourceKey("Schedule", "theatre"))
    assert "nine" in await slots(ada)
    assert portal is not None


async def test_a_store_of_before_learns_of_them_once(
    ada: Caller, accounts: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(a_slot("away", 3 * DAY, of="lark-in-room", status="busy"))

    async def forget(transaction: Any) -> None:
        for cell in await transaction.every(TakenCell):
            await transaction.delete(TakenCell, cell.key)
        for one in await transaction.every(TakenTime):
            await transaction.delete(TakenTime, one.key)

    await accounts.transact(forget)
    await keep(accounts, Reserved(key="by-real-times"))
    assert "nine" in await slots(ada)
    await reserve_stored(accounts, now=clock.now)
    assert "nine" not in await slots(ada)
