"""Event rules: who is invited because of an appointment or a mail address; once, and if wanted."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.invitation import HOUR, LIFETIME, Invitation
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import Job, work_off
from fhir_portal.operations.invitation_jobs import invitation_jobs
from fhir_portal.portal import Portal
from fhir_portal.resources.event_rules import EVENT_RULES, INVITE
from tests.builders import (
    DERM,
    Caller,
    Clock,
    a_bundle,
    a_patient,
    an_appointment,
    an_observation,
    assert_outcome,
)
from tests.operations.conftest import mail
from tests.operations.invitations import call, decided, invite, invited, messages


@pytest.fixture
async def booking(practice: EmbeddedStore) -> EmbeddedStore:
    """The practice invites on booking, and when a mail address is given."""
    await decided(practice, invite_on_booking="on", invite_on_mail_address="on")
    return practice


async def work(portal: Portal, store: EmbeddedStore, clock: Clock) -> int:
    functions = invitation_jobs(portal.server, portal.collaborators)
    return await work_off(store, functions, worker="w", clock=clock)


async def due(store: EmbeddedStore) -> list[Job]:
    return [one for one in await store.every(Job) if one.name == INVITE]


@pytest.mark.requirement("portal", "S0-07")
async def test_a_booked_appointment_invites_once_however_often_it_is_sent(
    booking: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    for _ in range(3):
        await ehr.store(an_appointment("visit", of=["bo"]))
    await ehr.store(an_appointment("visit", of=["bo"], status="cancelled"))
    await ehr.store(an_appointment("visit", of=["bo"]))
    assert len(await due(booking)) == 1
    assert await booking.every(Invitation) == []
    await work(portal, booking, clock)
    (invitation,) = await booking.every(Invitation)
    assert (invitation.invitee, invitation.channel) == (f"{DERM}/Patient/bo", "mail")
    assert {one.to for one in await messages(booking)} == {"bo@mail.example", "+13125550142"}
    await ehr.store(an_appointment("another", of=["bo"]))
    await work(portal, booking, clock)
    assert len(await booking.every(Invitation)) == 1
    task = (await ehr.get(f"Task/{invitation.task}")).json
    assert task["requester"] == {"reference": "Organization/derm"}
    (found,) = (await ehr.get(f"Provenance?target=Task/{invitation.task}")).entries
    assert found["reason"] == [{"text": "an appointment was booked"}]


async def test_it_is_part_of_the_transaction_that_books(
    booking: EmbeddedStore, ehr: Caller
) -> None:
    entries = (
        ("PUT", "Appointment/visit", an_appointment("visit", of=["bo"])),
        ("PUT", "Observation/x", {"resourceType": "Observation", "id": "x"}),
    )
    assert (await ehr.bundle(a_bundle("transaction", *entries))).status in {400, 422}
    assert await due(booking) == []
    fine = (*entries[:1], ("PUT", "Observation/x", an_observation("x", of="bo")))
    assert (await ehr.bundle(a_bundle("transaction", *fine))).status == 200
    assert len(await due(booking)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "pending"},
        {"start": "2030-01-01T09:00:00Z", "end": "2030-01-01T09:20:00Z"},
        {"start": None, "end": None, "status": "proposed"},
    ],
)
async def test_what_is_not_booked_or_is_over_invites_nobody(
    booking: EmbeddedStore, ehr: Caller, changes: dict[str, Any]
) -> None:
    await ehr.store(an_appointment("visit", of=["bo"], **changes))
    assert await due(booking) == []


async def test_without_the_practices_wish_nothing_is_set_off(
    practice: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(
        an_appointment("visit", of=["bo"]), a_patient("di", telecom=[mail("a@b.example")])
    )
    assert await due(practice) == []


async def test_another_practices_wish_is_its_own(booking: EmbeddedStore, other_ehr: Caller) -> None:
    await other_ehr.store(a_patient("bo"), an_appointment("visit", of=["bo"]))
    assert await due(booking) == []


async def test_who_has_an_account_an_invitation_no_contact_or_no_wish_is_not_invited(
    booking: EmbeddedStore, ehr: Caller, desk: Caller, portal: Portal, clock: Clock
) -> None:
    made = await invited(desk, "bo")
    declined = await invited(desk, "cy")
    await call(desk, declined["invitation"], "invite-revoke", reason="declined", no_more=True)
    before = len(await booking.every(Invitation))
    for number, patient in enumerate(("ada", "bo", "cy", "di")):
        await ehr.store(an_appointment(f"visit-{number}", of=[patient]))
    assert len(await due(booking)) == 4
    assert await work(portal, booking, clock) == 4
    assert len(await booking.every(Invitation)) == before
    clock.advance(LIFETIME)
    await ehr.store(
        an_appointment("later", of=["bo"], start="2030-05-01T09:00:00Z", end="2030-05-01T09:20:00Z")
    )
    await work(portal, booking, clock)
    assert len(await booking.every(Invitation)) == before + 1
    states = {one.task: one.state for one in await booking.every(Invitation)}
    assert states.pop(made["invitation"].removeprefix("Task/")) == "expired"


@pytest.mark.requirement("portal", "S2-17")
async def test_a_mail_address_that_is_given_invites_once(
    booking: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    await ehr.store(a_patient("di", telecom=[mail("di@mail.example")]))
    await ehr.store(a_patient("di", telecom=[mail("Di@Mail.example")], active=True))
    assert len(await due(booking)) == 1
    await work(portal, booking, clock)
    assert [one.to for one in await booking.every(Invitation)] == ["di@mail.example"]


async def test_an_hour_that_is_full_puts_the_rest_off(
    booking: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    await decided(booking, invite_on_booking="on", invitations_an_hour="1")
    await ehr.store(an_appointment("one", of=["bo"]), an_appointment("two", of=["cy"]))
    await work(portal, booking, clock)
    assert len(await booking.every(Invitation)) == 1
    clock.advance(HOUR)
    await work(portal, booking, clock)
    assert len(await booking.every(Invitation)) == 2


async def test_thousands_at_once_go_out_hour_by_hour_and_leave_room_for_the_desk(
    booking: EmbeddedStore, ehr: Caller, desk: Caller, portal: Portal, clock: Clock
) -> None:
    """None is given up for having waited long, and each asks again once, not every hour."""
    await decided(booking, invite_on_booking="on", invitations_an_hour="5")
    names = [f"p{number:02}" for number in range(18)]
    for name in names:
        await ehr.store(
            a_patient(name, telecom=[mail(f"{name}@mail.example")]),
            an_appointment(f"visit-{name}", of=[name]),
        )
    made = []
    for _ in range(6):
        await work(portal, booking, clock)
        made.append(len(await booking.every(Invitation)))
        if len(made) == 1:
            await invited(desk, "bo")
            refused = await invite(ehr, "cy")
            assert_outcome(refused, 429, "throttled")
        clock.advance(HOUR)
    assert made == [4, 9, 13, 17, 19, 19]
    waited = await due(booking)
    assert {one.state for one in waited} == {"done"}
    assert max(one.fence for one in waited) == 2


async def test_a_rule_that_is_switched_off_stops_what_waits(
    booking: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    await decided(booking, invite_on_booking="on", invitations_an_hour="1")
    await ehr.store(an_appointment("one", of=["bo"]), an_appointment("two", of=["cy"]))
    await work(portal, booking, clock)
    await decided(booking, invite_on_booking="off")
    clock.advance(HOUR)
    await work(portal, booking, clock)
    assert {one.state for one in await due(booking)} == {"done"}
    assert len(await booking.every(Invitation)) == 1


async def test_a_job_that_is_done_twice_invites_once(
    booking: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    await ehr.store(an_appointment("visit", of=["bo"]))
    await work(portal, booking, clock)
    assert await work(portal, booking, clock) == 0
    assert len(await booking.every(Invitation)) == 1


def test_other_types_have_no_rule() -> None:
    assert set(EVENT_RULES) == {"Appointment", "Communication", "Coverage", "Patient", "Task"}


@pytest.mark.parametrize("born", ["2013-01-01", "2013", None])
async def test_nobody_is_invited_by_a_rule_to_the_record_of_a_child(
    booking: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock, born: str | None
) -> None:
    """The contacts are a parent's, who would see as the child itself what is kept from parents."""
    teen = a_patient("teen", telecom=[mail("parent@mail.example")], birthDate=born)
    await ehr.store(
        {name: value for name, value in teen.items() if value is not None},
        an_appointment("visit", of=["teen"]),
    )
    assert await work(portal, booking, clock) == len(await due(booking)) == 2
    assert await booking.every(Invitation) == []
