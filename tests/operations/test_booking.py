"""Find, hold, book, move, cancel: once for everybody, and only for whom it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import work_off
from fhir_portal.operations.appointment_jobs import appointment_jobs
from fhir_portal.operations.appointments import Held
from fhir_portal.portal import Portal
from fhir_portal.resources.reservation import TakenCell, is_slot
from tests.builders import (
    DERM,
    FAMILY,
    START,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    a_grant,
    a_patient,
    a_proxy,
    a_related_person,
    an_access_token,
    an_appointment,
    assert_outcome,
    bearer_of,
    changed,
    concept,
    keep,
    oneself,
)
from tests.operations.booking import (
    CHECK,
    DAY,
    SERVICES,
    TALK,
    a_schedule,
    a_slot,
    a_time,
    at,
    book,
    booked,
    cancel,
    check_in,
    find,
    held,
    hold,
    parameters,
    set_up,
    slots,
)
from tests.staff import a_member_of_staff

APPOINTMENTS = ("appointments", "forms")


@pytest.fixture(autouse=True)
async def practice(accounts: EmbeddedStore, ehr: Caller) -> None:
    await set_up(accounts, ehr)


@pytest.fixture
def bo(portal: Portal) -> Caller:
    return Caller(portal, oneself("bo"))


@pytest.fixture
def mother(portal: Portal) -> Caller:
    return Caller(portal, a_proxy(sections=APPOINTMENTS, act=APPOINTMENTS))


@pytest.fixture
def desk(portal: Portal) -> Caller:
    return Caller(portal, a_member_of_staff(permissions=("view", "appointments")))


async def jobs(portal: Portal, clock: Clock) -> None:
    await work_off(portal.server.store, appointment_jobs(portal.server), worker="one", clock=clock)


def assert_not_available(answer: Answer) -> None:
    assert_outcome(answer, 404, "not-found")
    assert answer.json["issue"][0]["severity"] == "fatal"
    assert answer.words == ["this time is not available; find another one"]


# ---------------------------------------------------------------- find


async def test_a_patient_is_offered_what_is_free_and_may_be_booked(ada: Caller) -> None:
    assert await slots(ada) == ["nine", "nine-in-room", "ten", "word"]
    answer = await find(ada)
    assert answer.json["total"] == 4
    first = answer.entries[0]
    assert "id" not in first
    assert (first["status"], first["start"], first["minutesDuration"]) == (
        "proposed",
        at(3 * DAY),
        20,
    )
    assert [one["actor"]["reference"] for one in first["participant"]] == [
        "Patient/ada",
        "Practitioner/lark",
    ]


async def test_staff_and_ehr_are_offered_what_the_rules_for_patients_leave_out(
    desk: Caller, ehr: Caller
) -> None:
    for caller in (desk, ehr):
        assert await slots(caller) == ["soon", "knife", "nine", "nine-in-room", "ten", "word"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (f"?visit-type={TALK}", ["word"]),
        (f"?visit-type=http://terminology.hl7.org/CodeSystem/service-type|{TALK}", ["word"]),
        (f"?visit-type=urn:other|{TALK}", []),
        ("?location-reference=Location/room", ["nine-in-room"]),
        ("?practitioner=Practitioner/lark", ["nine", "nine-in-room", "ten"]),
        (f"?start={at(3 * DAY + 1800)}&end={at(3 * DAY + 7200)}", ["ten"]),
        ("?practitioner=Practitioner/nobody", []),
        ("?practitioner=Practitioner/nobody&practitioner=Practitioner/lark&_count=1", ["nine"]),
        ("?visit-type=other&visit-type=" + TALK, ["word"]),
        (f"?visit-type={TALK}&practitioner=Practitioner/lark", []),
        ("?patient-reference=Patient/ada&location-reference=Location/room", ["nine-in-room"]),
    ],
)
async def test_it_is_narrowed_by_what_is_asked_for(
    ada: Caller, query: str, found: list[str]
) -> None:
    assert await slots(ada, query.replace("+", "%2B")) == found


async def test_the_times_are_for_whom_a_practice_says(
    bo: Caller, desk: Caller, ehr: Caller
) -> None:
    """IHE ITI-115: patient-reference; the Appointments of the answer name the patient."""
    for caller in (desk, ehr):
        answer = await find(caller, "?patient-reference=Patient/ada&_count=1")
        first = answer.entries[0]["participant"][0]
        assert first["actor"]["reference"] == "Patient/ada"
        assert (await find(caller, "?patient-reference=Patient/nobody")).status == 404
    missing = await find(bo, "?patient-reference=Patient/nobody")
    other = await find(bo, "?patient-reference=Patient/ada")
    assert missing.status == other.status == 404
    assert other.body == missing.body.replace(b"nobody", b"ada")


async def test_what_was_narrowed_stays_so_on_the_next_page(ehr: Caller) -> None:
    query = "?practitioner=Practitioner/lark&practitioner=Practitioner/nobody"
    answer = await find(ehr, query + "&patient-reference=Patient/ada&_count=2")
    seen = answer.entries
    while answer.next is not None:
        answer = await ehr.get(answer.next)
        seen += answer.entries
    assert len(seen) == answer.json["total"] > 2
    for one in seen:
        named = [part["actor"]["reference"] for part in one["participant"]]
        assert named[0] == "Patient/ada"
        assert "Practitioner/lark" in named


async def test_pages_hold_each_time_once_and_tell_how_many_there_are(ada: Caller) -> None:
    seen: list[str] = []
    link: str | None = "Appointment/$find?_count=3"
    while link is not None:
        answer = await ada.get(link)
        assert answer.json["total"] == 4
        seen += [one["slot"][0]["reference"] for one in answer.entries]
        link = answer.next
    assert seen == ["Slot/nine", "Slot/nine-in-room", "Slot/ten", "Slot/word"]


@pytest.mark.parametrize(
    "query",
    [
        "?_count=0",
        "?_count=101",
        "?practitioner=Patient/bo",
        "?practitioner=lark",
        "?location-reference=Practitioner/lark",
        "?patient-reference=ada",
        "?organization=Organization/derm",
        "?service-type=x",
        f"?start={at(0)}&end={at(40 * DAY)}",
        "?_page=xyz",
        "?surprise=1",
        "?start=tomorrow",
        "?start=9999-12-31T00:00:00Z",
        "?end=9999-12-31T23:59:59Z",
    ],
)
async def test_what_cannot_be_asked_is_refused(ada: Caller, query: str) -> None:
    assert (await find(ada, query)).status in {400, 422}


async def test_what_is_taken_or_held_by_anybody_is_not_offered(
    ada: Caller, bo: Caller, ehr: Caller, clock: Clock
) -> None:
    await held(bo, "nine")
    assert await slots(ada) == ["ten", "word"]  # the room's time is Lark's too
    clock.advance(600)
    assert await slots(ada) == ["nine", "nine-in-room", "ten", "word"]
    tree = an_appointment("x", of=["bo"], start=at(3 * DAY + 3900), end=at(3 * DAY + 4000))
    tree["participant"].append({"actor": {"reference": "Practitioner/lark"}, "status": "accepted"})
    await ehr.store(tree)
    assert await slots(ada) == ["nine", "nine-in-room", "word"]


async def test_a_sensitive_service_is_offered_to_oneself_and_stays_sensitive(
    ada: Caller, mother: Caller, ehr: Caller
) -> None:
    assert "word" in await slots(ada)
    assert await slots(mother) == ["nine", "nine-in-room", "ten"]
    assert_not_available(await hold(mother, "word"))
    own_id = await booked(ada, "word")
    tree = (await ehr.get(f"Appointment/{own_id}")).json
    assert tree["meta"]["security"][0]["code"] == "PSY"


async def test_services_have_modes_of_their_own(ada: Caller, store: EmbeddedStore) -> None:
    assert_not_available(await hold(ada, "knife"))
    await keep(store, PracticePolicy(key=DERM, booking="book", booking_services={CHECK: "view"}))
    assert await slots(ada) == ["knife", "word"]
    assert_not_available(await hold(ada, "nine"))


async def test_a_slot_without_end_is_no_time_to_book(ada: Caller, ehr: Caller) -> None:
    await ehr.store(a_slot("years", 3 * DAY, minutes=60 * 24 * 400))
    assert "years" not in await slots(ada)
    assert_not_available(await hold(ada, "years"))
    assert_not_available(await hold(ehr, "years", of="ada"))


async def test_schedules_that_are_not_in_use_offer_nothing(ada: Caller, ehr: Caller) -> None:
    await ehr.store(a_schedule("lark", "Practitioner/lark", active=False))
    assert await slots(ada) == ["nine-in-room", "word"]
    await ehr.delete("Schedule/lark-in-room")
    assert await slots(ada) == ["word"]


# ---------------------------------------------------------------- hold and book


async def holders(store: EmbeddedStore) -> set[str]:
    """The Appointments that have any time."""
    found = {one.appointment for cell in await store.every(TakenCell) for one in cell.holders}
    return {one for one in found if not is_slot(one)}


@pytest.mark.requirement("portal", "S2-02")
async def test_a_time_is_found_held_booked_moved_and_cancelled(
    ada: Caller, bo: Caller, ehr: Caller
) -> None:
    first = await held(ada, "nine")
    assert_not_available(await hold(bo, "nine"))
    answer = await book(ada, first)
    (tree,) = answer.entries
    assert (tree["status"], tree["id"]) == ("booked", first)
    assert {one["status"] for one in tree["participant"]} == {"accepted"}
    second = await held(ada, "ten")
    new, old = (await book(ada, second, replaces=first)).entries
    assert (new["status"], old["status"]) == ("booked", "cancelled")
    assert new["extension"][0]["valueReference"] == {"reference": f"Appointment/{first}"}
    assert await slots(bo) == ["nine", "nine-in-room", "word"]
    (gone,) = (await cancel(ada, second, cancelationReason={"text": "I am away"})).entries
    assert gone["status"] == "cancelled"
    assert gone["cancelationReason"]["text"] == "I am away"
    assert gone["cancelationReason"]["coding"][0]["code"] == "pat"
    assert await slots(bo) == ["nine", "nine-in-room", "ten", "word"]
    found = await ehr.get(f"Provenance?target=Appointment/{first}&_sort=recorded")
    assert [one["activity"]["coding"][0]["code"] for one in found.entries] == [
        "CREATE",
        "UPDATE",
        "UPDATE",
    ]
    assert {one["agent"][0]["who"]["reference"] for one in found.entries} == {"Patient/ada"}


async def test_a_hold_ends_by_the_clock_and_the_job_says_so(
    ada: Caller, bo: Caller, portal: Portal, clock: Clock, store: EmbeddedStore
) -> None:
    first = await held(ada, "nine")
    clock.advance(599)
    assert_not_available(await hold(bo, "nine-in-room"))
    clock.advance(1)
    assert_not_available(await book(ada, first))
    second = await held(bo, "nine-in-room")
    await jobs(portal, clock)
    tree = (await ada.get(f"Appointment/{first}")).json
    assert tree["status"] == "cancelled"
    assert (await book(bo, second)).status == 200
    assert await slots(ada) == ["ten", "word"]
    clock.advance(3600)
    await jobs(portal, clock)
    assert (await bo.get(f"Appointment/{second}")).json["status"] == "booked"
    assert await store.every(Held) == []


async def test_what_an_ehr_made_of_a_held_appointment_stays(
    ada: Caller, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    first = await held(ada, "nine")
    tree = (await ehr.get(f"Appointment/{first}")).json
    await ehr.store({**tree, "comment": "seen"})
    await ehr.store({**tree, "status": "booked"})
    clock.advance(3600)
    await jobs(portal, clock)
    assert (await ehr.get(f"Appointment/{first}")).json["status"] == "booked"
    assert "nine" not in await slots(ada)


async def test_booking_again_is_refused_and_changes_nothing(ada: Caller) -> None:
    first = await booked(ada, "nine")
    before = (await ada.get(f"Appointment/{first}")).json["meta"]
    assert_outcome(await book(ada, first), 409, "conflict")
    assert (await ada.get(f"Appointment/{first}")).json["meta"] == before
    await cancel(ada, first)
    assert_outcome(await cancel(ada, first), 409, "conflict")
    assert_outcome(await book(ada, first), 409, "conflict")


async def test_nobody_holds_everything(ada: Caller, bo: Caller, ehr: Caller, clock: Clock) -> None:
    await ehr.store(*(a_slot(f"s{n}", 5 * DAY + n * 1800) for n in range(5)))
    for n in range(3):
        await held(ada, f"s{n}")
    assert (await hold(ada, "s3")).status == 429
    await held(bo, "s3")
    clock.advance(600)
    await held(ada, "s4")


async def test_of_50_at_once_over_one_slot_and_overlapping_ones_one_wins(
    portal: Portal, ehr: Caller, store: EmbeddedStore
) -> None:
    """Half of them ask for a slot of another Schedule that shares the practitioner; an EHR too."""
    people = [a_patient(f"p{n}") for n in range(48)]
    await ehr.store(*people)
    tree = an_appointment("theirs", of=["bo"], start=at(3 * DAY + 300), end=at(3 * DAY + 900))
    tree["participant"].append({"actor": {"reference": "Practitioner/lark"}, "status": "accepted"})

    async def one(n: int) -> bool:
        caller = Caller(portal, oneself(f"p{n}"))
        answer = await hold(caller, "nine" if n % 2 else "nine-in-room")
        if answer.status != 200:
            assert_not_available(answer)
            return False
        return (await book(caller, answer.entries[0]["id"])).status == 200

    async def theirs() -> bool:
        return (await ehr.put(tree)).status == 201

    won = await asyncio.gather(*(one(n) for n in range(24)), theirs(), *map(one, range(24, 48)))
    assert won.count(True) == 1
    assert len(await holders(store)) == 1


@pytest.mark.parametrize("times", [2, 20])
async def test_of_several_who_book_one_hold_at_once_one_succeeds(ada: Caller, times: int) -> None:
    first = await held(ada, "nine")
    answers = await asyncio.gather(*(book(ada, first) for _ in range(times)))
    assert sorted(one.status for one in answers) == [200] + [409] * (times - 1)


async def test_a_move_is_all_or_nothing(ada: Caller, clock: Clock) -> None:
    first, second = await booked(ada, "nine"), await held(ada, "ten")
    clock.advance(2 * DAY + 3600)  # too late to give up the first one, and the hold is over
    assert (await book(ada, second, replaces=first)).status == 404
    assert (await ada.get(f"Appointment/{first}")).json["status"] == "booked"
    third = await held(ada, "word")
    answer = await book(ada, third, replaces=first)
    assert answer.status == 422
    assert "24 hours" in answer.words[0]
    assert (await ada.get(f"Appointment/{first}")).json["status"] == "booked"
    assert (await ada.get(f"Appointment/{third}")).json["status"] == "pending"


async def test_the_rule_for_cancelling_is_for_patients_and_not_for_staff(
    ada: Caller, desk: Caller, clock: Clock
) -> None:
    first = await booked(ada, "nine")
    clock.advance(2 * DAY + 1)
    answer = await cancel(ada, first)
    assert answer.status == 422
    assert "until 24 hours before" in answer.words[0]
    assert (await cancel(desk, first)).status == 200


async def test_staff_and_ehr_book_for_a_patient_whatever_the_rules_for_patients_say(
    desk: Caller, ehr: Caller
) -> None:
    knife = await booked(desk, "knife", of="ada")
    soon = await booked(ehr, "soon", of="bo")
    found = (await ehr.get(f"Provenance?target=Appointment/{knife}")).entries
    assert found[0]["agent"][0]["who"]["reference"] == "Practitioner/desk"
    assert (await ehr.get(f"Appointment/{soon}")).json["status"] == "booked"
    assert (await hold(desk, "nine")).status == 422
    assert (await hold(desk, "nine", of="nobody")).status == 404
    assert (await hold(desk, "taken", of="ada")).status == 404


async def test_staff_do_not_book_what_is_taken_even_where_the_ehr_may(
    desk: Caller, ada: Caller, store: EmbeddedStore
) -> None:
    await keep(store, PracticePolicy(key=DERM, book_twice=True, booking="book"))
    await booked(ada, "nine")
    for caller in (desk, ada):
        assert_not_available(await hold(caller, "nine-in-room", of="ada"))


async def test_nor_does_a_patient_whose_held_time_became_anothers_too(
    ada: Caller, bo: Caller, ehr: Caller, store: EmbeddedStore
) -> None:
    """Booking runs as the server, which may take no time twice, whatever the EHR may."""
    await keep(store, PracticePolicy(key=DERM, booking="book", book_twice=True))
    own_id = await held(ada, "nine")
    await ehr.store(a_schedule("w", "Practitioner/wren"), a_slot("w9", 3 * DAY, of="w"))
    await booked(bo, "w9")
    await ehr.store(a_schedule("lark", "Practitioner/lark", "Practitioner/wren"))
    assert_outcome(await book(ada, own_id), 409, "conflict")
    assert (await ada.get(f"Appointment/{own_id}")).json["status"] == "pending"


@pytest.mark.requirement("portal", "S0-05", "S0-34", "S2-12")
async def test_what_is_to_come_and_what_was_are_searches(
    ada: Caller, ehr: Caller, clock: Clock
) -> None:
    own_id = await booked(ada, "nine")
    await booked(ada, "ten")
    await ehr.store(
        an_appointment("was", status="fulfilled", start=at(-DAY), end=at(-DAY + 60)),
        an_appointment("missed", status="noshow", start=at(-2 * DAY), end=at(-2 * DAY + 60)),
    )
    now = at(0)
    query = f"patient=ada&date=ge{now}&status=booked,pending,arrived&_sort=date"
    found = (await ada.get(f"Appointment?{query}&_include=Appointment:practitioner")).entries
    assert found[0]["id"] == own_id
    assert [one["start"] for one in found[:2]] == [at(3 * DAY), at(3 * DAY + 3600)]
    assert found[2]["resourceType"] == "Practitioner"
    await cancel(ada, own_id, cancelationReason={"text": "away"})
    clock.advance(5 * DAY)
    query = f"patient=ada&date=lt{at(5 * DAY)}&_sort=-date"
    past = (await ada.get(f"Appointment?{query}")).entries
    assert [one["status"] for one in past] == ["booked", "cancelled", "fulfilled", "noshow"]
    assert past[1]["cancelationReason"]["text"] == "away"


# ---------------------------------------------------------------- who may not


@pytest.mark.parametrize(
    "act",
    [
        book,
        cancel,
        check_in,
        lambda c, i: check_in(c, i, undo=True),
    ],
)
async def test_another_patients_appointment_is_answered_like_one_that_is_not_there(
    ada: Caller, bo: Caller, act: Callable[[Caller, str], Awaitable[Answer]]
) -> None:
    theirs = await held(bo, "nine")
    answers = [await act(ada, one) for one in (theirs, "nobody")]
    assert [one.status for one in answers] == [404, 404]
    assert answers[0].body.replace(theirs.encode(), b"X") == answers[1].body.replace(
        b"nobody", b"X"
    )
    assert (await bo.get(f"Appointment/{theirs}")).json["status"] == "pending"


async def test_nobody_moves_anothers_appointment_or_holds_for_another(
    ada: Caller, bo: Caller, desk: Caller
) -> None:
    theirs, own = await booked(bo, "nine"), await held(ada, "ten")
    assert (await book(ada, own, replaces=theirs)).status == 404
    assert_not_available(await hold(ada, "word", of="bo"))
    answer = await book(desk, own, replaces=theirs)
    assert answer.status == 422
    assert (await bo.get(f"Appointment/{theirs}")).json["status"] == "booked"


async def test_another_practices_slot_is_answered_like_one_that_is_not_there(
    ada: Caller, other_ehr: Caller, portal: Portal
) -> None:
    await other_ehr.store(
        a_schedule("far", "Practitioner/far"), a_slot("elsewhere", 3 * DAY, of="far")
    )
    answers = [await hold(ada, one) for one in ("elsewhere", "nobody", "taken", "knife", "past")]
    for one in answers:
        assert_not_available(one)
    assert len({one.body for one in answers}) == 1
    far = Caller(portal, oneself("ada-f", FAMILY))
    assert_not_available(await hold(far, "nine"))


@pytest.mark.parametrize(
    ("sections", "act"),
    [
        (("results",), ("results",)),
        (("appointments",), ()),
        (("appointments", "forms"), ("forms",)),
    ],
)
async def test_a_proxy_needs_the_section_and_to_act(
    portal: Portal, mother: Caller, sections: tuple[str, ...], act: tuple[str, ...]
) -> None:
    own_id = await held(mother, "nine")
    other = Caller(portal, a_proxy(sections=sections, act=act))
    for answer in (
        await hold(other, "ten"),
        await book(other, own_id),
        await cancel(other, own_id),
        await check_in(other, own_id),
    ):
        assert_outcome(answer, 403, "forbidden")
    assert (await find(other)).status == (200 if "appointments" in sections else 403)


async def test_a_proxy_acts_in_the_one_record_and_in_their_own_name(
    mother: Caller, ehr: Caller, ada: Caller
) -> None:
    own_id = await booked(mother, "nine")
    tree = (await ehr.get(f"Appointment/{own_id}")).json
    assert tree["participant"][0]["actor"] == {"reference": "Patient/kit"}
    agent = (await ehr.get(f"Provenance?target=Appointment/{own_id}")).entries[0]["agent"][0]
    assert agent["who"] == {"reference": "RelatedPerson/mother"}
    assert agent["onBehalfOf"] == {"reference": "Patient/kit"}
    assert (await ada.get(f"Appointment/{own_id}")).status == 404  # her own record is another one


@pytest.mark.parametrize(
    "scope",
    [
        "patient/Appointment.rs",
        "patient/Appointment.cru?status=booked",
        "patient/*.rs",
        "patient/Communication.cruds",
        "user/Appointment.cruds",
    ],
)
async def test_a_narrower_scope_holds_nothing(ada: Caller, scope: str) -> None:
    answer = await hold(ada.with_scope(scope), "nine")
    assert_outcome(answer, 403, "forbidden")
    assert "nine" in await slots(ada)


@pytest.mark.parametrize("permissions", [("view",), ("appointments",), ("view", "messages")])
async def test_staff_need_the_permission_and_to_view(
    portal: Portal, permissions: tuple[str, ...]
) -> None:
    caller = Caller(portal, a_member_of_staff(permissions=permissions))
    assert_outcome(await hold(caller, "nine", of="ada"), 403, "forbidden")


async def test_staff_bound_to_one_record_hold_for_that_one_alone(portal: Portal) -> None:
    bound = a_member_of_staff(patient="ada", permissions=("view", "appointments"))
    caller = Caller(portal, bound)
    assert (await hold(caller, "nine", of="bo")).status == 404
    await held(caller, "nine", of="ada")


@pytest.fixture
async def with_token(portal: Portal, accounts: EmbeddedStore, ehr: Caller) -> Caller:
    """Ada for her child, by a stored token and a standing grant."""
    grant = a_grant("grant", of="kit", to="mother", sections=APPOINTMENTS, act=["appointments"])
    await ehr.store(grant)
    auth = replace(a_proxy(sections=APPOINTMENTS, act=("appointments",)), account="ada")
    await keep(accounts, an_access_token("mother", auth))
    return Caller(portal, await portal.callers.of(bearer_of("mother")))


@pytest.mark.parametrize("end", ["revoked", "narrowed", "token"])
async def test_what_ends_a_callers_rights_ends_what_is_under_way(
    with_token: Caller, ehr: Caller, accounts: EmbeddedStore, clock: Clock, end: str
) -> None:
    """The caller was authenticated before; the transaction asks again."""
    own_id = await held(with_token, "nine")
    if end == "revoked":
        await ehr.store(a_grant("grant", of="kit", to="mother", status="inactive"))
    elif end == "narrowed":
        await ehr.store(a_grant("grant", of="kit", to="mother", sections=["appointments"]))
    else:
        token = an_access_token("mother", with_token.auth)
        await keep(accounts, changed(token, expires=START + 1))
        clock.advance(2)
    for answer in (
        await hold(with_token, "ten"),
        await book(with_token, own_id),
        await cancel(with_token, own_id),
    ):
        assert_outcome(answer, 401, "login")
    assert (await ehr.get(f"Appointment/{own_id}")).json["status"] == "pending"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "tree",
    [
        {"slot": []},
        {"slot": [{"reference": "Slot/nine"}, {"reference": "Slot/ten"}]},
        {"slot": [{"reference": "Schedule/lark"}]},
        {"slot": [{"reference": "Slot/nine/_history/1"}]},
        {"slot": [{"reference": "https://elsewhere.example/Slot/nine"}]},
        {"comment": "x" * 1001},
        {"comment": "a\u202eb"},
        {"reasonCode": [{"text": "a\x1bb"}]},
    ],
)
async def test_what_is_no_time_is_refused_and_nothing_is_held(
    ada: Caller, store: EmbeddedStore, tree: dict[str, Any]
) -> None:
    sent = parameters({"name": "appointment-resource", "resource": a_time("nine") | tree})
    answer = await ada.ask("POST", "Appointment/$hold", sent)
    assert answer.status in {400, 422}, answer.body
    assert await holders(store) == set()


async def test_a_time_that_has_moved_since_it_was_found_is_not_held(
    ada: Caller, ehr: Caller
) -> None:
    found = (await find(ada)).entries[0]
    await ehr.store(a_slot("nine", 3 * DAY + 86_400))
    sent = parameters({"name": "appointment-resource", "resource": found})
    assert_not_available(await ada.ask("POST", "Appointment/$hold", sent))


@pytest.mark.parametrize(
    "given",
    [
        [],
        [
            {"name": "appointment-reference", "valueReference": {"reference": "Appointment/x"}},
            {"name": "appointment-resource", "resource": an_appointment("x")},
        ],
        [{"name": "appointment-resource", "resource": an_appointment()}],
        [{"name": "appointment-resource", "resource": an_appointment("x", status="booked")}],
        [{"name": "appointment-reference", "valueReference": {"reference": "Slot/nine"}}],
        [{"name": "appointment-reference", "valueReference": {"display": "the one on Monday"}}],
        [{"name": "surprise", "valueString": "x"}],
    ],
)
async def test_what_names_no_appointment_is_refused(ada: Caller, given: list[Any]) -> None:
    answer = await ada.ask("POST", "Appointment/$book", parameters(*given))
    assert answer.status in {400, 404, 422}, answer.body


@pytest.mark.parametrize(
    "reason",
    [
        {"coding": [{"system": "urn:x", "code": "pat"}]},
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason",
                    "code": "prov-pers",
                }
            ]
        },
        {"text": "x" * 201},
        {"text": "a\nb"},
    ],
)
async def test_a_reason_is_one_that_its_sender_can_have(
    ada: Caller, reason: dict[str, Any]
) -> None:
    own_id = await booked(ada, "nine")
    assert (await cancel(ada, own_id, cancelationReason=reason)).status == 422
    assert (await ada.get(f"Appointment/{own_id}")).json["status"] == "booked"


async def test_what_the_practice_waits_with_is_not_booked_by_a_patient(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(an_appointment("theirs", status="pending"))
    assert_outcome(await book(ada, "theirs"), 409, "conflict")


async def test_what_patients_only_see_they_do_not_cancel(
    ada: Caller, ehr: Caller, desk: Caller
) -> None:
    service = [concept(SERVICES, "laser")]
    await ehr.store(an_appointment("light", serviceType=service))
    answer = await cancel(ada, "light")
    assert answer.status == 422
    assert answer.words == ["appointments of this kind are changed by the practice: call it"]
    assert (await cancel(desk, "light")).status == 200


# ---------------------------------------------------------------- what tells of what is hidden


@pytest.fixture
def kit(portal: Portal) -> Caller:
    return Caller(portal, oneself("kit"))


@pytest.fixture
async def father(portal: Portal, ehr: Caller) -> Caller:
    await ehr.store(a_related_person("father", of="kit"))
    who = a_proxy(related_person="father", grant="g2", sections=APPOINTMENTS, act=APPOINTMENTS)
    return Caller(portal, who)


async def test_what_a_hidden_appointment_was_moved_to_says_nothing_of_it(
    kit: Caller, mother: Caller, ehr: Caller
) -> None:
    hidden = await booked(kit, "word")
    assert (await mother.get(f"Appointment/{hidden}")).status == 404
    seen = await held(kit, "nine")
    assert (await book(kit, seen, replaces=hidden)).status == 200
    answer = await mother.get(f"Appointment/{seen}")
    assert answer.status == 200
    assert "extension" not in answer.json
    assert (await ehr.get(f"Appointment/{hidden}")).json["cancelationReason"]["text"]


@pytest.mark.parametrize("before", ["proposed", "booked"])
async def test_what_was_moved_to_a_hidden_appointment_looks_like_a_cancelled_one(
    kit: Caller, mother: Caller, ehr: Caller, before: str
) -> None:
    old = "wish" if before == "proposed" else await booked(kit, "nine")
    if before == "proposed":
        await ehr.store(an_appointment("wish", of=["kit"], status="proposed"))
    hidden = await held(kit, "word")
    assert (await book(kit, hidden, replaces=old)).status == 200
    assert (await mother.get(f"Appointment/{hidden}")).status == 404
    reason = (await mother.get(f"Appointment/{old}")).json["cancelationReason"]
    assert [one["code"] for one in reason["coding"]] == ["pat"]
    assert "text" not in reason
    assert (await kit.get(f"Appointment/{hidden}")).json["extension"]


async def test_no_proxy_learns_by_a_provenance_of_another_one(
    kit: Caller, mother: Caller, father: Caller
) -> None:
    own_id = await booked(mother, "nine")
    query = f"Provenance?target=Appointment/{own_id}"
    assert (await father.get(f"Appointment/{own_id}")).status == 200
    assert (await father.get("RelatedPerson/mother")).status == 404
    assert (await father.get(query)).entries == []
    assert len((await kit.get(query)).entries) == 2


async def test_holds_that_a_proxy_does_not_see_are_not_counted_for_them(
    kit: Caller, mother: Caller, ehr: Caller
) -> None:
    await ehr.store(*(a_slot(f"s{n}", 5 * DAY + n * 3600) for n in range(5)))
    await held(kit, "word")
    for number in range(3):
        await held(mother, f"s{number}")
    assert (await hold(mother, "s3")).status == 429
    assert (await hold(kit, "s3")).status == 429


@pytest.mark.parametrize("withheld", ["Slot", "Schedule"])
async def test_what_is_booked_of_withheld_times_is_withheld(
    desk: Caller, ehr: Caller, ada: Caller, withheld: str
) -> None:
    metas = {withheld: WITHHELD}
    directory = {"system": WITHHELD["tag"][0]["system"], "code": "directory"}
    metas["Slot"] = {"tag": [*metas.get("Slot", {}).get("tag", []), directory]}
    more: dict[str, Any] = {"meta": metas["Schedule"]} if "Schedule" in metas else {}
    await ehr.store(
        a_schedule("secret", "Practitioner/wren", **more),
        a_slot("secret", 6 * DAY, of="secret", meta=metas["Slot"]),
    )
    assert "secret" not in await slots(ada)
    own_id = await booked(desk, "secret", of="ada")
    assert (await ada.get(f"Appointment/{own_id}")).status == 404
    meta = (await ehr.get(f"Appointment/{own_id}")).json["meta"]
    assert meta["tag"] == WITHHELD["tag"]


# ---------------------------------------------------------------- words, numbers, whose it is


async def test_what_the_practice_wrote_stays_above_what_a_patient_adds(
    ada: Caller, ehr: Caller
) -> None:
    own_id = await held(ada, "nine")
    await ehr.store((await ehr.get(f"Appointment/{own_id}")).json | {"comment": "Bring the report"})

    async def say(words: str, **named: Any) -> str:
        given = [named, {"name": "comment", "valueString": words}]
        answer = await ada.ask("POST", "Appointment/$book", parameters(*given))
        assert answer.status == 200, answer.body
        return str(answer.entries[0]["comment"])

    ours = {"reference": f"Appointment/{own_id}"}
    found = await say("I use a wheelchair", name="appointment-reference", valueReference=ours)
    assert found == "Bring the report\n\nI use a wheelchair"
    over = a_time("nine") | {"id": own_id, "status": "cancelled"}
    found = await say("Sorry", name="appointment-resource", resource=over)
    assert found == "Bring the report\n\nI use a wheelchair\n\nSorry"


async def test_a_patient_books_as_many_as_the_practice_lets_them(
    ada: Caller, bo: Caller, desk: Caller, ehr: Caller, store: EmbeddedStore, clock: Clock
) -> None:
    policy = PracticePolicy(key=DERM, booking="book", booked_at_once=2)
    await keep(store, policy)
    await ehr.store(*(a_slot(f"s{n}", (5 + n) * DAY) for n in range(8)))
    first = await booked(ada, "s0")
    await booked(desk, "s1", of="ada")
    await booked(ada, "s2")
    await booked(bo, "s3")
    third = await held(ada, "s4")
    assert_outcome(await book(ada, third), 429, "throttled")
    assert (await ada.get(f"Appointment/{third}")).json["status"] == "pending"
    assert (await book(ada, third, replaces=first)).status == 200
    await booked(desk, "s5", of="ada")
    clock.advance(7.5 * DAY)  # that of s2 has passed
    await booked(ada, "s6")
    last = await held(ada, "s7")
    assert (await book(ada, last)).status == 429


async def test_what_is_hidden_from_a_proxy_is_not_counted_as_booked(
    kit: Caller, mother: Caller, store: EmbeddedStore
) -> None:
    await keep(store, PracticePolicy(key=DERM, booking="book", booked_at_once=1))
    await booked(kit, "word")
    await booked(mother, "nine")
    assert (await book(mother, await held(mother, "ten"))).status == 429


async def test_an_appointment_of_no_one_patient_takes_no_others_place(ehr: Caller) -> None:
    for own_id, status, begins in (("g1", "booked", 9 * DAY), ("g2", "pending", 10 * DAY)):
        tree = an_appointment(own_id, status=status, start=at(begins), end=at(begins + 600))
        tree["participant"] = [{"actor": {"reference": "Practitioner/lark"}, "status": "accepted"}]
        await ehr.store(tree)
    assert_outcome(await book(ehr, "g2", replaces="g1"), 422, "processing")
    assert (await ehr.get("Appointment/g1")).json["status"] == "booked"
