"""Whoever writes an Appointment: it takes the time of who and what it needs, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.resources.appointment import reserve_stored
from fhir_portal.resources.reservation import TakenCell, TakenTime
from tests.builders import (
    DERM,
    Caller,
    Clock,
    Json,
    a_bundle,
    a_patient,
    a_practice,
    a_practitioner,
    an_appointment,
    assert_outcome,
    keep,
    reference,
    resource,
)

PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"


@pytest.fixture(autouse=True)
async def practice(ehr: Caller, other_ehr: Caller) -> None:
    await ehr.store(
        a_patient("ada"),
        a_patient("bo"),
        a_practitioner("lark"),
        resource("PractitionerRole", "role", practitioner=reference("Practitioner/lark")),
        resource("PractitionerRole", "nobody", code=[{"text": "the doctor on duty"}]),
        location("room", "ro"),
        location("house", "wi"),
        resource("Location", "unsaid", name="Somewhere"),
    )
    await other_ehr.store(a_patient("ada"), a_practitioner("lark"))


def location(own_id: str, kind: str) -> Json:
    coding = [{"system": PHYSICAL, "code": kind}]
    return resource("Location", own_id, name=own_id, physicalType={"coding": coding})


def visit(
    own_id: str,
    *actors: str,
    at: tuple[str, str] = ("09:00", "09:20"),
    day: str = "2030-04-01",
    status: str = "booked",
    of: str = "ada",
    taking_part: str = "accepted",
    **more: Any,
) -> Json:
    tree = an_appointment(
        own_id, of=[of], status=status, start=f"{day}T{at[0]}:00Z", end=f"{day}T{at[1]}:00Z", **more
    )
    tree["participant"] += [{"actor": reference(actor), "status": taking_part} for actor in actors]
    return tree


LARK = "Practitioner/lark"
LATER = ("09:10", "09:30")


@pytest.mark.parametrize("status", ["pending", "booked", "arrived", "checked-in", "fulfilled"])
@pytest.mark.parametrize("actor", [LARK, "PractitionerRole/role", "Location/room", "Device/laser"])
async def test_an_overlapping_appointment_is_refused_and_not_stored(
    ehr: Caller, status: str, actor: str
) -> None:
    await ehr.store(resource("Device", "laser"))
    await ehr.store(visit("first", actor, status=status))
    answer = await ehr.put(visit("second", actor, at=LATER, of="bo"))
    assert_outcome(answer, 409, "conflict")
    assert (await ehr.get("Appointment/second")).status == 404
    await ehr.store(visit("third", actor, at=("09:20", "09:40"), of="bo"))


@pytest.mark.parametrize(
    "status", ["proposed", "cancelled", "noshow", "entered-in-error", "waitlist"]
)
async def test_these_take_no_time_and_give_it_back(ehr: Caller, status: str) -> None:
    await ehr.store(visit("first", LARK), visit("wish", LARK, status=status))
    await ehr.store(visit("first", LARK, status=status), visit("second", LARK, at=LATER))


async def test_a_role_and_its_practitioner_are_one_person(ehr: Caller) -> None:
    await ehr.store(visit("first", "PractitionerRole/role"))
    assert_outcome(await ehr.put(visit("second", LARK)), 409, "conflict")
    await ehr.store(visit("third", "PractitionerRole/nobody"))
    assert (await ehr.put(visit("fourth", "PractitionerRole/nobody"))).status == 409


@pytest.mark.parametrize("place", ["Location/house", "Location/unsaid", "Location/not-there"])
async def test_a_house_has_room_for_more_than_one(ehr: Caller, place: str) -> None:
    await ehr.store(visit("first", place), visit("second", place))


async def test_who_declined_or_is_only_told_is_not_taken(ehr: Caller) -> None:
    told = visit("told", LARK)
    told["participant"][-1]["required"] = "information-only"
    await ehr.store(visit("first", LARK), visit("no", LARK, taking_part="declined"), told)


async def test_another_practices_practitioner_of_the_same_id_is_another_one(
    ehr: Caller, other_ehr: Caller
) -> None:
    await ehr.store(visit("first", LARK))
    await other_ehr.store(visit("first", LARK))


async def test_storing_it_again_changing_it_and_deleting_it(
    ehr: Caller, store: EmbeddedStore
) -> None:
    first = visit("first", LARK)
    await ehr.store(first, first, visit("first", LARK, at=LATER))
    await ehr.store(visit("second", LARK, at=("09:00", "09:10")))
    assert (await ehr.put(first)).status == 409
    assert (await ehr.delete("Appointment/first")).status == 204
    await ehr.store(visit("third", LARK, at=LATER))
    await ehr.delete("Appointment/first")
    await ehr.delete("Appointment/second")
    await ehr.delete("Appointment/third")
    assert await store.every(TakenCell) == []


async def test_what_is_past_is_stored_as_it_was(ehr: Caller, store: EmbeddedStore) -> None:
    await ehr.store(visit("a", LARK, day="2020-04-01"), visit("b", LARK, day="2020-04-01"))
    await ehr.store(visit("c", LARK, day="2020-04-01") | {"start": "2010-01-01T00:00:00Z"})
    assert await store.every(TakenCell) == []


@pytest.mark.parametrize("end", ["2030-04-01T08:00:00Z", "2030-05-01T08:00:00Z"])
async def test_a_time_that_nobody_can_take_is_refused_by_name(ehr: Caller, end: str) -> None:
    answer = await ehr.put(visit("first", LARK) | {"end": end})
    assert answer.status == 422
    assert answer.json["issue"][0]["expression"] == ["Appointment.end"]


async def test_too_many_actors_are_refused(ehr: Caller) -> None:
    everybody = [f"Practitioner/p{number}" for number in range(21)]
    assert (await ehr.put(visit("first", *everybody))).status == 422


async def test_a_practice_can_let_its_ehr_book_twice(ehr: Caller, store: EmbeddedStore) -> None:
    await keep(store, PracticePolicy(key=DERM, book_twice=True))
    await ehr.store(visit("first", LARK), visit("second", LARK, at=LATER))
    await ehr.store(visit("second", LARK, at=LATER, status="cancelled"))
    await keep(store, PracticePolicy(key=DERM))
    assert (await ehr.put(visit("second", LARK, at=LATER))).status == 409


async def test_appointments_may_follow_each_other_at_any_minute(ehr: Caller) -> None:
    await ehr.store(visit("a", LARK, at=("09:00", "09:12")))
    await ehr.store(visit("b", LARK, at=("09:12", "09:24"), of="bo"))
    assert (await ehr.put(visit("c", LARK, at=("09:11", "09:12"), of="bo"))).status == 409
    assert (await ehr.put(visit("c", LARK, at=("09:23", "09:40"), of="bo"))).status == 409
    await ehr.store(visit("c", LARK, at=("09:24", "09:40"), of="bo"))


async def test_in_a_transaction_two_change_places_and_a_new_one_takes_what_is_cancelled(
    ehr: Caller,
) -> None:
    await ehr.store(visit("a", LARK), visit("b", LARK, at=("10:00", "10:20"), of="bo"))
    swapped = a_bundle(
        "transaction",
        ("PUT", "Appointment/a", visit("a", LARK, at=("10:00", "10:20"))),
        ("PUT", "Appointment/b", visit("b", LARK, of="bo")),
    )
    assert (await ehr.bundle(swapped)).status == 200
    new = visit("x", LARK, of="bo")
    del new["id"]
    moved = a_bundle(
        "transaction",
        ("POST", "Appointment", new),
        ("PUT", "Appointment/b", visit("b", LARK, of="bo", status="cancelled")),
    )
    assert (await ehr.bundle(moved)).status == 200


async def test_a_conditional_create_that_matches_leaves_the_time_taken(ehr: Caller) -> None:
    identifier = [{"system": "urn:x", "value": "1"}]
    await ehr.store(visit("a", LARK, identifier=identifier))
    new = visit("a", LARK)
    del new["id"]
    sent = a_bundle("transaction", ("POST", "Appointment", new))
    sent["entry"][0]["request"]["ifNoneExist"] = "identifier=urn:x|1"
    answer = await ehr.bundle(sent)
    assert answer.json["entry"][0]["response"]["status"].startswith("200")
    assert_outcome(await ehr.put(visit("second", LARK, at=LATER, of="bo")), 409, "conflict")


async def test_in_a_transaction_whose_time_it_is_does_not_depend_on_the_order(
    ehr: Caller,
) -> None:
    await ehr.store(visit("first", LARK))
    role = resource("PractitionerRole", "late", practitioner=reference(LARK))
    sent = a_bundle(
        "transaction",
        ("PUT", "Appointment/second", visit("second", "PractitionerRole/late", of="bo")),
        ("PUT", "PractitionerRole/late", role),
    )
    assert_outcome(await ehr.bundle(sent), 409, "conflict")
    assert (await ehr.get("PractitionerRole/late")).status == 404


async def test_slots_and_schedules_may_stand_behind_their_appointments(ehr: Caller) -> None:
    def busy(own_id: str) -> Json:
        return resource(
            "Slot",
            own_id,
            schedule=reference("Schedule/l"),
            status="busy",
            start="2030-04-01T09:00:00Z",
            end="2030-04-01T09:20:00Z",
        )

    slots = {one: [reference(f"Slot/{one}")] for one in ("x", "y")}
    entries = (
        ("PUT", "Slot/x", busy("x")),
        ("PUT", "Slot/y", busy("y")),
        ("PUT", "Schedule/l", resource("Schedule", "l", actor=[reference(LARK)])),
    )
    one = ("PUT", "Appointment/one", visit("one", slot=slots["x"]))
    two = ("PUT", "Appointment/two", visit("two", of="bo", slot=slots["y"]))
    assert_outcome(await ehr.bundle(a_bundle("transaction", one, two, *entries)), 409, "conflict")
    assert (await ehr.bundle(a_bundle("transaction", one, *entries))).status == 200
    assert (await ehr.put(visit("third", LARK, of="bo"))).status == 409


async def test_a_transaction_that_books_twice_leaves_everything_as_it_was(ehr: Caller) -> None:
    await ehr.store(visit("a", LARK))
    twice = a_bundle(
        "transaction",
        ("PUT", "Appointment/a", visit("a", LARK, at=("11:00", "11:20"))),
        ("PUT", "Appointment/b", visit("b", LARK, at=("11:10", "11:30"))),
    )
    assert_outcome(await ehr.bundle(twice), 409, "conflict")
    assert (await ehr.put(visit("c", LARK))).status == 409
    await ehr.store(visit("d", LARK, at=("11:00", "11:20")))


async def test_what_was_stored_before_time_was_taken_takes_it_once(
    ehr: Caller, store: EmbeddedStore, clock: Clock
) -> None:
    """As of a store of an earlier version; what overlaps there is taken as it is."""
    await keep(store, a_practice(DERM))
    await ehr.store(visit("a", LARK), visit("b", LARK, status="proposed"))
    await ehr.store(visit("past", LARK, day="2020-04-01"))

    async def as_before(transaction: Any) -> None:
        for kind in (TakenCell, TakenTime):
            for one in await transaction.every(kind):
                await transaction.delete(kind, one.key)

    await store.transact(as_before)
    await reserve_stored(store, now=clock())
    assert (await ehr.put(visit("c", LARK, at=LATER))).status == 409
    before = await store.every(TakenCell)
    await ehr.delete("Appointment/a")
    await reserve_stored(store, now=clock())
    assert len(before) == 4
    assert await store.every(TakenCell) == []
