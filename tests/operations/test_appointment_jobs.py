"""Reminders: to whose record it is, of what is still to come, and saying nothing about it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from structlog.testing import capture_logs

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import Job, work_off
from fhir_portal.notify.letter import Letterhead, render
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.words import BUILT_IN
from fhir_portal.operations.appointment_jobs import appointment_jobs
from fhir_portal.operations.staff_task import staff_task_jobs
from fhir_portal.portal import Portal
from fhir_portal.resources.appointment import RENEW
from fhir_portal.resources.reservation import TakenCell
from tests.builders import (
    DERM,
    RESTRICTED,
    Caller,
    Clock,
    Json,
    a_grant,
    a_practice,
    an_appointment,
    assert_outcome,
    concept,
    keep,
    oneself,
    reference,
    resource,
)
from tests.operations.booking import DAY, PHYSICAL, a_schedule, a_slot, at
from tests.staff import a_member_of_staff

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


# ---------------------------------------------------------------- whose time it is changes

LARK = "Practitioner/lark"


def with_(actor: str, own_id: str = "first", *, of: str = "ada") -> Json:
    tree = an_appointment(own_id, of=[of], start=at(4 * DAY), end=at(4 * DAY + 900))
    tree["participant"].append({"actor": reference(actor), "status": "accepted"})
    return tree


def in_slot(own_id: str, slot: str, *, of: str = "ada") -> Json:
    slots = [reference(f"Slot/{slot}")]
    return an_appointment(own_id, of=[of], start=at(4 * DAY), end=at(4 * DAY + 900), slot=slots)


def role(who: str | None) -> Json:
    more = {} if who is None else {"practitioner": reference(who)}
    return resource("PractitionerRole", "role", **more)


def room(kind: str) -> Json:
    return resource("Location", "room", physicalType=concept(PHYSICAL, kind))


async def jobs(portal: Portal, clock: Clock, store: EmbeddedStore) -> int:
    """Do them; returns how many took time anew."""
    before = [one for one in await store.every(Job) if one.name == RENEW and one.state != "done"]
    await work_off(store, appointment_jobs(portal.server), worker="one", clock=clock)
    return len(before)


@pytest.mark.parametrize(
    ("before", "appointment", "after", "taken"),
    [
        ([], with_("PractitionerRole/role"), [role(LARK)], LARK),
        ([role(None)], with_("PractitionerRole/role"), [role(LARK)], LARK),
        ([room("wi")], with_("Location/room"), [room("ro")], "Location/room"),
        ([], in_slot("first", "s"), [a_slot("s", 4 * DAY), a_schedule("lark", LARK)], LARK),
        (
            [a_schedule("lark", "Practitioner/wren"), a_slot("s", 4 * DAY)],
            in_slot("first", "s"),
            [a_schedule("lark", LARK)],
            LARK,
        ),
        (
            [
                a_schedule("w", "Practitioner/wren"),
                a_schedule("lark", LARK),
                a_slot("s", 4 * DAY, of="w"),
            ],
            in_slot("first", "s"),
            [a_slot("s", 4 * DAY)],
            LARK,
        ),
    ],
)
async def test_who_or_what_it_is_that_is_taken_follows_what_says_so(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller,
    before: list[Json], appointment: Json, after: list[Json], taken: str,
) -> None:  # fmt: skip
    await ehr.store(*before, appointment, *after)
    assert await jobs(portal, clock, store) > 0
    assert {one.key.rpartition("/")[0] for one in await store.every(TakenCell)} == {
        f"{DERM}/{taken}"
    }
    assert_outcome(await ehr.put(with_(taken, "second", of="bo")), 409, "conflict")


async def test_what_is_under_way_is_taken_anew_too(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(with_("PractitionerRole/role") | {"end": at(6 * DAY)})
    clock.advance(5 * DAY)
    await ehr.store(role(LARK))
    await jobs(portal, clock, store)
    late = with_(LARK, "second", of="bo") | {"start": at(5.5 * DAY), "end": at(5.6 * DAY)}
    assert_outcome(await ehr.put(late), 409, "conflict")


async def seen_to(portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller) -> list[Json]:
    """The Tasks of staff."""
    await work_off(store, staff_task_jobs(portal.server), worker="one", clock=clock)
    return (await ehr.get("Task?code=overlapping-appointments")).entries


async def test_the_task_is_for_those_of_the_staff_who_see_to_appointments(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await keep(store, a_practice())
    await ehr.store(with_(LARK), with_("PractitionerRole/role", "second", of="bo"), role(LARK))
    await jobs(portal, clock, store)
    (task,) = await seen_to(portal, clock, store, ehr)
    member = a_member_of_staff()
    assert member.staff is not None
    for permissions, status in ((("view", "appointments"), 200), (("view", "invite"), 404)):
        staff = dataclasses.replace(member.staff, permissions=frozenset(permissions))
        by = Caller(portal, member).who(staff=staff)
        assert (await by.get(f"Task/{task['id']}")).status == status
        done = await by.ask("POST", f"Task/{task['id']}/$task-done")
        assert done.status == status
    assert (await Caller(portal, oneself()).get(f"Task/{task['id']}")).status == 404


async def test_time_that_turns_out_to_be_somebodys_already_is_kept_by_both_and_told_of(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await keep(store, a_practice())
    await ehr.store(with_(LARK), with_("PractitionerRole/role", "second", of="bo"), role(LARK))
    with capture_logs() as lines:
        assert await jobs(portal, clock, store) == 1
    told = [one for one in lines if one["event"] == "appointments overlap"]
    assert [(one["log_level"], one["practice"], one["number"]) for one in told] == [
        ("warning", DERM, 1)
    ]
    (task,) = await seen_to(portal, clock, store, ehr)
    assert task["description"] == (
        "Appointments overlap since the calendar changed (PractitionerRole/role)."
    )
    assert [one["code"] for one in task["meta"]["tag"]] == ["staff-appointments"]
    assert "for" not in task
    await ehr.store(with_(LARK) | {"status": "cancelled"})
    assert (await ehr.put(with_(LARK, "third", of="kit"))).status == 409
    await ehr.store(with_("PractitionerRole/role", "second", of="bo") | {"status": "cancelled"})
    await ehr.store(with_(LARK, "third", of="kit"))


async def test_what_says_nothing_new_of_whose_time_it_is_makes_no_work(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(role(LARK), room("ro"), a_schedule("lark", LARK), a_slot("s", 4 * DAY))
    await ehr.store(in_slot("first", "s"), role(LARK) | {"active": True})
    await ehr.store(a_slot("s", 4 * DAY, status="busy"), a_schedule("lark", LARK, comment="x"))
    assert await jobs(portal, clock, store) == 0


async def test_what_is_deleted_says_nothing_any_more(
    portal: Portal, clock: Clock, store: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(role(LARK), with_("PractitionerRole/role"))
    assert (await ehr.delete("PractitionerRole/role")).status == 204
    assert await jobs(portal, clock, store) == 1
    await ehr.store(with_(LARK, "second", of="bo"))
