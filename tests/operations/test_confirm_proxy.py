"""Nobody on the staff opens a record for themselves: ``$confirm-proxy`` and what leads to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.invitation import (
    CONFIRMABLE_SECONDS,
    TRIES,
    Invitation,
)
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import work_off
from fhir_portal.operations.four_eyes import InvitedThemselves
from fhir_portal.operations.invitation_jobs import invitation_jobs
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    START,
    Answer,
    Caller,
    Clock,
    Json,
    a_grant,
    a_patient,
    a_practitioner,
    an_account,
    assert_outcome,
    changed,
    keep,
    resource,
)
from tests.operations.holding import parameters
from tests.operations.holding import values as found_in
from tests.operations.invitations import FATHER, NAN, call, decided, invite, messages, values
from tests.operations.proxies import number, uses
from tests.staff import a_level, a_member_of_staff, a_membership

MAIL = {"system": "email", "value": "nan@mail.example"}
GUARDIAN: Json = {
    "kind": "guardian",
    "basis": "parent",
    "name": NAN,
    "relationship": FATHER,
    "telecom": MAIL,
    "channel": "desk",
}


def at_desk(portal: Portal, name: str, *permissions: str) -> Caller:
    held = ("view", *(permissions or ("invite", "revoke", "proxies")))
    return Caller(portal, a_member_of_staff(name, permissions=held))


async def on_staff(store: EmbeddedStore, ehr: Caller, *names: str) -> None:
    """These hold a level with ``proxies``, and have accounts."""
    await keep(store, a_level("front", "invite", "proxies", "revoke"))
    await ehr.store(*(a_practitioner(name, family=f"Of{name}") for name in names))
    for name in names:
        await keep(store, an_account(name), a_membership(name, practitioner=name, level="front"))


@pytest.fixture
async def town(practice: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    await on_staff(practice, ehr, "eve", "bob")
    return practice


@pytest.fixture
def eve(town: EmbeddedStore, portal: Portal) -> Caller:
    assert town is not None
    return at_desk(portal, "eve")


@pytest.fixture
def bob(town: EmbeddedStore, portal: Portal) -> Caller:
    assert town is not None
    return at_desk(portal, "bob")


async def used(
    portal: Portal, store: EmbeddedStore, made: Json, account: str = "nan", *, proved: str = ""
) -> Invitation:
    return await uses(portal, store, f"{DERM}/{made['invitation']}", account, proved=proved)


async def records(store: EmbeddedStore, clock: Clock, account: str = "nan") -> Sequence[str]:
    found = await store.get(Account, account)
    assert found is not None
    return [one.patient for one in await Relations(store, clock).records_of(found)]


async def confirm(caller: Caller, made: Json, **given: Any) -> Answer:
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": name, "valueString": text} for name, text in given.items()],
    }
    return await caller.ask("POST", f"{made['invitation']}/$confirm-proxy", body)


async def state(store: EmbeddedStore, made: Json) -> str:
    found = await store.get(Invitation, f"{DERM}/{made['invitation']}")
    assert found is not None
    return found.state


async def test_the_record_opens_with_the_word_of_another(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, clock: Clock, ehr: Caller
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    assert (waiting.state, await records(town, clock)) == ("awaiting", [])
    grant = await ehr.get(made["grant"][0])
    assert grant.json["status"] == "proposed"
    told = await confirm(bob, made, number=number(portal, waiting))
    assert (told.status, values(told)["status"]) == (200, "redeemed")
    assert await records(town, clock) == ["Patient/kit"]
    assert (await ehr.get(made["grant"][0])).json["status"] == "active"
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 409


async def test_whoever_invited_opens_nothing_by_any_account_of_theirs(
    town: EmbeddedStore, eve: Caller, portal: Portal, clock: Clock
) -> None:
    """A second account that nobody knows to be theirs gets as far as waiting."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made, "second")
    own = number(portal, waiting)
    assert (await confirm(eve, made, number=own)).status == 403
    assert (await confirm(eve, made, number=own, alone="nobody here")).status == 403
    assert await records(town, clock, "second") == []


@pytest.mark.parametrize("operation", ["invite-resend", "print-instructions"])
async def test_whoever_made_new_codes_does_not_confirm(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, operation: str
) -> None:
    """Bob prints the sheet of the mother whom Eve invited, and uses it himself."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    assert (await call(bob, made["invitation"], operation)).status == 200
    waiting = await used(portal, town, made, "bobs-second")
    assert set(waiting.handled_by) == {"eve", "bob"}
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 403


async def test_what_an_ehr_invited_and_staff_printed_waits_too(
    town: EmbeddedStore, ehr: Caller, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(ehr, "kit", **GUARDIAN))
    assert (await call(eve, made["invitation"], "print-instructions")).status == 200
    waiting = await used(portal, town, made, "second")
    assert waiting.state == "awaiting"
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 200
    assert await records(town, clock, "second") == ["Patient/kit"]


async def test_what_an_ehr_that_may_write_grants_invited_opens_at_once(
    town: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(ehr, "kit", **GUARDIAN))
    assert (await used(portal, town, made)).state == "redeemed"
    assert await records(town, clock) == ["Patient/kit"]


async def test_while_it_waits_no_grant_of_any_kind_opens_the_record(
    town: EmbeddedStore, ehr: Caller, eve: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    await used(portal, town, made, "second")
    (related,) = made["related-person"]
    await ehr.store(a_grant("other", of="kit", to=related.partition("/")[2]))
    assert await records(town, clock, "second") == []


@pytest.mark.parametrize("when", ["before it was used", "before it was confirmed"])
async def test_of_two_grants_the_one_that_the_ehr_wrote_meanwhile_stands(
    town: EmbeddedStore,
    ehr: Caller,
    eve: Caller,
    bob: Caller,
    portal: Portal,
    clock: Clock,
    when: str,
) -> None:
    """Of two that match neither would open anything."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    related = made["related-person"][0].partition("/")[2]
    written = a_grant("other", of="kit", to=related, sections=["results"])
    if when == "before it was used":
        await ehr.store(written)
    waiting = await used(portal, town, made)
    if when == "before it was confirmed":
        await ehr.store(written)
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 200
    account = await town.get(Account, "nan")
    assert account is not None
    (record,) = await Relations(town, clock).records_of(account)
    assert (record.grant, record.sections) == ("Consent/other", frozenset({"results"}))
    assert (await ehr.get(made["grant"][0])).json["status"] == "rejected"


async def test_a_grant_that_is_over_or_another_ones_is_in_nobodys_way(
    town: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(ehr, "kit", **GUARDIAN))
    related = made["related-person"][0].partition("/")[2]
    await ehr.store(
        a_grant("over", of="kit", to=related, start="2001-01-01", end="2002-01-01"),
        a_grant("ended", of="kit", to=related, status="inactive"),
    )
    assert (await used(portal, town, made)).state == "redeemed"
    assert await records(town, clock) == ["Patient/kit"]


async def test_the_number_is_that_of_the_account_and_five_wrong_ones_are_the_last(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    right = number(portal, waiting)
    wrong = f"{(int(right.replace(' ', '')) + 1) % 10**6:06d}"
    for _ in range(TRIES):
        assert (await confirm(bob, made, number=wrong)).status == 422
    assert (await confirm(bob, made, number=right)).status == 409
    assert await records(town, clock) == []


async def test_two_accounts_of_one_human_are_one(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal
) -> None:
    """Bob's account has the mailbox of Eve's, or of who used the invitation."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    for other in ("eve", "nan"):
        shared = [a_contact(one, "one@mail.example") for one in ("bob", other)]
        await keep(town, *shared)
        assert (await confirm(bob, made, number=number(portal, waiting))).status == 403
        await forget(town, shared)
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 200


async def forget(store: EmbeddedStore, contacts: Sequence[Contact]) -> None:
    async def work(transaction: Any) -> None:
        for one in contacts:
            await transaction.delete(Contact, one.key)

    await store.transact(work)


def a_contact(account: str, value: str) -> Contact:
    return Contact(
        key=f"{account}-{value}",
        account=account,
        medium="mail",
        value=value,
        added=START,
        verified=START,
        recovers_from=START,
    )


@pytest.mark.parametrize("how", ["name", "mail", "number"])
async def test_whoever_is_invited_does_not_invite(
    town: EmbeddedStore, ehr: Caller, eve: Caller, bob: Caller, how: str
) -> None:
    await keep(town, a_contact("eve", "eve@mail.example"))
    await ehr.store(
        resource(
            "Practitioner",
            "eve",
            name=[{"family": "Lark", "given": ["Eve"]}],
            telecom=[{"system": "phone", "use": "mobile", "value": "+13125550188"}],
        )
    )
    given: Json = dict(GUARDIAN)
    if how == "name":
        given["name"] = {"text": "Eve LARK"}
    if how == "mail":
        given["telecom"] = {"system": "email", "value": "Eve@mail.example"}
    if how == "number":
        given["telecom"] = {"system": "sms", "value": "+1 312 555 0188"}
    assert (await invite(eve, "kit", **given)).status == 403
    assert (await invite(bob, "kit", **given)).status == 201


async def test_the_account_of_who_invited_uses_nothing(
    town: EmbeddedStore, eve: Caller, portal: Portal
) -> None:
    """Nor does one that proves the mailbox of theirs."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    await keep(town, a_contact("eve", "eve@mail.example"))
    with pytest.raises(InvitedThemselves):
        await used(portal, town, made, "second", proved="eve@mail.example")
    assert await town.get(Account, "second") is None
    assert await state(town, made) == "delivered"


async def test_the_patient_is_told(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, ehr: Caller
) -> None:
    """At their account; without one, at what is on file, and those who act for them in full."""
    caregiver: Json = {**GUARDIAN, "kind": "caregiver", "basis": "consent-form"}
    made = values(await invite(eve, "ada", **caregiver))
    waiting = await used(portal, town, made)
    answer = await confirm(bob, made, number=number(portal, waiting))
    assert values(answer)["told"] == 1
    told = [one.to for one in await messages(town) if one.template == "security-proxy-added"]
    assert told == ["account:ada"]
    made = values(await invite(eve, "bo", **caregiver))
    waiting = await used(portal, town, made, "nan-2")
    answer = await confirm(bob, made, number=number(portal, waiting))
    assert values(answer)["told"] == 2
    told = [one.to for one in await messages(town) if one.template == "security-proxy-added"]
    assert set(told) == {"account:ada", "mail:bo@mail.example", "sms:+13125550142"}
    assert ehr is not None


async def test_whoever_acts_in_full_for_a_child_is_told_and_the_new_one_is_not(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    assert values(await confirm(bob, made, number=number(portal, waiting)))["told"] == 0
    other: Json = {
        **GUARDIAN,
        "name": {"text": "Oz Quill"},
        "telecom": {"system": "email", "value": "oz@mail.example"},
    }
    made = values(await invite(eve, "kit", **other))
    waiting = await used(portal, town, made, "oz")
    assert values(await confirm(bob, made, number=number(portal, waiting)))["told"] == 1
    told = [one.to for one in await messages(town) if one.template == "security-proxy-added"]
    assert told == ["account:nan"]


async def test_alone_where_there_is_nobody_else_and_it_is_recorded(
    practice: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    await on_staff(practice, ehr, "eve")
    eve = at_desk(portal, "eve")
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, practice, made)
    own = number(portal, waiting)
    assert (await confirm(eve, made, number=own)).status == 403
    answer = await confirm(eve, made, number=own, alone="the doctor is on leave")
    assert answer.status == 200
    assert await records(practice, clock) == ["Patient/kit"]
    task = (await ehr.get(made["invitation"])).json
    assert task["statusReason"]["text"] == "alone: the doctor is on leave"
    reasons = [
        one["reason"][0]["text"]
        for one in (await ehr.get("Provenance?")).entries
        if one.get("reason")
    ]
    assert "alone: the doctor is on leave" in reasons


async def test_nobody_does_it_alone_while_there_is_another(
    town: EmbeddedStore, eve: Caller, portal: Portal
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    answer = await confirm(eve, made, number=number(portal, waiting), alone="quicker")
    assert (answer.status, b"(1)" in answer.body) == (403, True)


OFFICE = {"system": "email", "value": "desk@practice.example"}
TELEPHONE = {"system": "phone", "value": "+13125550199"}


async def in_one_office(
    practice: EmbeddedStore, ehr: Caller, portal: Portal, telecom: Json
) -> tuple[Caller, Caller]:
    """Eve and Bob, whose Practitioners have the contact of their office."""
    await on_staff(practice, ehr, "eve", "bob")
    for name in ("eve", "bob"):
        await ehr.store(a_practitioner(name, family=f"Of{name}") | {"telecom": [telecom]})
    return at_desk(portal, "eve"), at_desk(portal, "bob")


@pytest.mark.parametrize("telecom", [OFFICE, {**OFFICE, "use": "work"}, TELEPHONE])
async def test_a_contact_of_the_office_makes_colleagues_nobody_and_nobody_one(
    practice: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock, telecom: Json
) -> None:
    """Nobody is alone by it, and a colleague can confirm."""
    eve, bob = await in_one_office(practice, ehr, portal, telecom)
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, practice, made, "second")
    own = number(portal, waiting)
    assert (await confirm(eve, made, number=own, alone="nobody here")).status == 403
    assert await records(practice, clock, "second") == []
    assert (await confirm(bob, made, number=own)).status == 200


@pytest.mark.parametrize("shares", ["with the organization", "for work"])
async def test_what_is_the_practices_or_for_work_is_nobodys_own(
    practice: EmbeddedStore, ehr: Caller, portal: Portal, shares: str
) -> None:
    """Bob's Practitioner has an address that Eve proved; as his own it would make them one."""
    point = OFFICE if shares == "with the organization" else {**OFFICE, "use": "work"}
    await on_staff(practice, ehr, "eve", "bob")
    await ehr.store(a_practitioner("bob", family="Ofbob") | {"telecom": [OFFICE]})
    await keep(practice, a_contact("eve", OFFICE["value"]))
    eve, bob = at_desk(portal, "eve"), at_desk(portal, "bob")
    made = values(await invite(eve, "kit", **GUARDIAN))
    own = number(portal, await used(portal, practice, made, "second"))
    assert (await confirm(bob, made, number=own)).status == 403
    if shares == "with the organization":
        await ehr.store(resource("Organization", "derm", name="Dermatology", telecom=[OFFICE]))
    await ehr.store(a_practitioner("bob", family="Ofbob") | {"telecom": [point]})
    assert (await confirm(bob, made, number=own)).status == 200


async def test_a_practitioner_without_a_name_is_not_another_one(
    practice: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    """Whose only contact it is, it is their own."""
    await on_staff(practice, ehr, "eve")
    await ehr.store(resource("Practitioner", "eve", telecom=[TELEPHONE]))
    eve = at_desk(portal, "eve")
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, practice, made, "second")
    await keep(practice, changed(a_contact("second", TELEPHONE["value"]), medium="sms"))
    answer = await confirm(eve, made, number=number(portal, waiting), alone="nobody here")
    assert answer.status == 403
    assert await records(practice, clock, "second") == []


async def test_two_entries_of_one_name_are_one_human_by_their_contact(
    practice: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    """Somebody who is two Practitioners is no second pair of eyes, nor alone."""
    await on_staff(practice, ehr, "eve", "bob")
    for name in ("eve", "bob"):
        await ehr.store(a_practitioner(name, family="Lark") | {"telecom": [TELEPHONE]})
    made = values(await invite(at_desk(portal, "eve"), "kit", **GUARDIAN))
    own = number(portal, await used(portal, practice, made, "second"))
    assert (await confirm(at_desk(portal, "bob"), made, number=own)).status == 403
    for name in ("eve", "bob"):
        answer = await confirm(at_desk(portal, name), made, number=own, alone="nobody here")
        assert answer.status == 403
    assert await records(practice, clock, "second") == []


async def test_a_colleague_who_was_got_to_print_it_does_not_leave_one_alone(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    """Eve has Bob print her sheet, so that nobody is left; it has to be made anew, without him."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    assert (await call(bob, made["invitation"], "print-instructions")).status == 200
    waiting = await used(portal, town, made, "second")
    own = number(portal, waiting)
    for caller in (eve, bob):
        assert (await confirm(caller, made, number=own)).status == 403
        assert (await confirm(caller, made, number=own, alone="nobody is left")).status == 403
    assert await records(town, clock, "second") == []


async def test_whoever_used_it_is_not_who_does_it_alone(
    practice: EmbeddedStore, ehr: Caller, portal: Portal, clock: Clock
) -> None:
    """Nor somebody who shares a contact with them."""
    await on_staff(practice, ehr, "eve")
    made = values(await invite(at_desk(portal, "eve"), "kit", **GUARDIAN))
    waiting = await used(portal, practice, made, "second")
    await keep(practice, *(a_contact(one, "one@mail.example") for one in ("eve", "second")))
    own = number(portal, waiting)
    answer = await confirm(at_desk(portal, "eve"), made, number=own, alone="nobody else")
    assert answer.status == 403
    assert await records(practice, clock, "second") == []


async def test_taken_back_it_leaves_nothing_and_the_right_person_can_be_invited(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made, "second")
    assert (await call(bob, made["invitation"], "invite-revoke", reason="not them")).status == 200
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 409
    (related,) = made["related-person"]
    again: Json = {"kind": "guardian", "basis": "parent", "channel": "desk"}
    made = values(await invite(eve, "kit", **again, related_person=related))
    waiting = await used(portal, town, made, "nan")
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 200
    assert await records(town, clock, "nan") == ["Patient/kit"]
    assert await records(town, clock, "second") == []


async def test_what_another_practice_closed_meanwhile_is_not_opened_by_somebody_elses_record(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    """Who was never proved to be anybody here does not open all that the account has here."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    account = await town.get(Account, "nan")
    assert account is not None
    await keep(town, changed(account, closed_at=(DERM,)))
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 409
    assert await records(town, clock) == []
    closed = await town.get(Account, "nan")
    assert closed is not None
    assert closed.closed_at == (DERM,)


async def test_one_that_waited_too_long_is_over(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    clock.advance(CONFIRMABLE_SECONDS)
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 409


AGAIN: Json = {"kind": "guardian", "basis": "parent", "channel": "desk"}


@pytest.mark.parametrize("by", ["the job", "a new invitation"])
async def test_what_nobody_confirmed_in_time_keeps_nobody_out(
    town: EmbeddedStore,
    ehr: Caller,
    eve: Caller,
    bob: Caller,
    portal: Portal,
    clock: Clock,
    by: str,
) -> None:
    """It expires with its grant and its link; then who was meant can come."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    await used(portal, town, made, "wrong")
    clock.advance(CONFIRMABLE_SECONDS)
    if by == "the job":
        jobs = invitation_jobs(portal.server, portal.collaborators)
        while await work_off(town, jobs, worker="w", clock=clock):
            pass
        assert await state(town, made) == "expired"
        account = await town.get(Account, "wrong")
        assert account is not None
        person = (await ehr.get(account.persons[0].partition("/")[2])).json
        assert "link" not in person
    (related,) = made["related-person"]
    again = values(await invite(eve, "kit", **AGAIN, related_person=related))
    assert await state(town, made) == "expired"
    assert (await ehr.get(made["grant"][0])).json["status"] == "rejected"
    task = (await ehr.get(made["invitation"])).json
    assert (task["status"], bool(task["statusReason"]["text"])) == ("failed", True)
    waiting = await used(portal, town, again, "right")
    assert (await confirm(bob, again, number=number(portal, waiting))).status == 200
    assert await records(town, clock, "right") == ["Patient/kit"]
    assert await records(town, clock, "wrong") == []


async def test_what_waits_and_what_was_confirmed_no_job_ends(
    town: EmbeddedStore, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    jobs = invitation_jobs(portal.server, portal.collaborators)
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    clock.advance(CONFIRMABLE_SECONDS - 1)
    await work_off(town, jobs, worker="w", clock=clock)
    assert await state(town, made) == "awaiting"
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 200
    clock.advance(1)
    await work_off(town, jobs, worker="w", clock=clock)
    assert (await state(town, made), await records(town, clock)) == ("redeemed", ["Patient/kit"])


async def test_the_task_stays_while_it_waits(
    town: EmbeddedStore, ehr: Caller, eve: Caller, portal: Portal, clock: Clock
) -> None:
    """Without it nobody could confirm it or take it back."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    await used(portal, town, made, "wrong")
    assert (await ehr.ask("DELETE", made["invitation"])).status == 409
    clock.advance(CONFIRMABLE_SECONDS)
    assert (await ehr.ask("DELETE", made["invitation"])).status == 204


async def merged_into_another(ehr: Caller) -> Json:
    """Kit's record has a twin; the answer of the merge, by one who accepts what it says."""
    await ehr.store(a_patient("kit-2", birthDate="2020-03-01"))
    given = {
        "source__patient_Reference": {"reference": "Patient/kit"},
        "target__patient_Reference": {"reference": "Patient/kit-2"},
    }
    preview = parameters(**given, preview_Boolean=True)
    shown = found_in(await ehr.ask("POST", "Patient/$merge", preview))
    accepted = parameters(**given, accept_String=shown["accept"])
    return found_in(await ehr.ask("POST", "Patient/$merge", accepted))


async def test_what_waits_goes_over_with_a_merge_and_is_confirmed_there(
    town: EmbeddedStore, ehr: Caller, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    """Whoever used it is named as one who gains by it."""
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    shown = await merged_into_another(ehr)
    assert made["invitation"] in repr(shown["gains"])
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 200
    assert await records(town, clock) == ["Patient/kit-2"]
    undo = await ehr.ask("POST", "Patient/kit/$undo-merge")
    assert_outcome(undo, 409, "conflict")


async def test_what_waits_comes_back_with_an_undone_merge(
    town: EmbeddedStore, ehr: Caller, eve: Caller, bob: Caller, portal: Portal, clock: Clock
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    await merged_into_another(ehr)
    assert (await ehr.ask("POST", "Patient/kit/$undo-merge")).status == 200
    assert (await confirm(bob, made, number=number(portal, waiting))).status == 200
    assert await records(town, clock) == ["Patient/kit"]


async def test_who_used_an_invitation_that_waits_does_not_merge_its_record(
    town: EmbeddedStore, ehr: Caller, eve: Caller, portal: Portal
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    await used(portal, town, made, "dan")
    await ehr.store(a_patient("victim", family="Other"))
    dan = at_desk(portal, "dan", "administer")
    given = {
        "source__patient_Reference": {"reference": "Patient/kit"},
        "target__patient_Reference": {"reference": "Patient/victim"},
    }
    assert (await dan.ask("POST", "Patient/$merge", parameters(**given))).status == 403


async def test_who_may_not_and_what_is_not_there(
    town: EmbeddedStore, eve: Caller, ehr: Caller, portal: Portal
) -> None:
    made = values(await invite(eve, "kit", **GUARDIAN))
    waiting = await used(portal, town, made)
    own = number(portal, waiting)
    assert (await confirm(ehr, made, number=own)).status == 403
    blind = at_desk(portal, "bob", "invite", "revoke", "recover", "administer")
    assert (await confirm(blind, made, number=own)).status == 403
    far = Caller(portal, a_member_of_staff("far", "family", permissions=("view", "proxies")))
    assert (await confirm(far, made, number=own)).status == 404


async def test_a_practice_may_do_without_and_tells_the_patient_all_the_same(
    town: EmbeddedStore, eve: Caller, portal: Portal, clock: Clock
) -> None:
    await decided(town, proxy_confirmation="off")
    made = values(await invite(eve, "bo", **{**GUARDIAN, "kind": "caregiver"}))
    assert (await used(portal, town, made)).state == "redeemed"
    assert await records(town, clock) == ["Patient/bo"]
    told = [one.template for one in await messages(town)]
    assert told.count("security-proxy-added") == 2
