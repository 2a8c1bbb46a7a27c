"""An invitation after it was made: sent again, taken back, printed, followed by its Task, ended."""

from __future__ import annotations

import asyncio
import base64
import io
from collections import Counter
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pypdf import PdfReader

from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.invitation import (
    DAY,
    LIFETIME,
    MOST_ATTEMPTS,
    Invitation,
    InvitationSecrets,
    NotUsable,
    count_try,
    end,
)
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import Job, work_off
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations import invitation_task as room
from fhir_portal.operations.invitation_jobs import invitation_jobs
from fhir_portal.operations.invitation_task import activate_grants, follow
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    START,
    Caller,
    Clock,
    Json,
    a_patient,
    a_person,
    a_task,
    an_account,
    assert_outcome,
    changed,
    keep,
)
from tests.operations.conftest import mail
from tests.operations.invitations import (
    FATHER,
    NAN,
    call,
    decided,
    invite,
    invited,
    messages,
    secrets_of,
    staff,
    the_invitation,
    values,
)

GUARDIAN: Json = {
    "kind": "guardian",
    "name": NAN,
    "relationship": FATHER,
    "basis": "parent",
    "channel": "desk",
}


def secrets(portal: Portal) -> InvitationSecrets:
    return InvitationSecrets(portal.collaborators.derive("invitations"))


async def progress(portal: Portal, key: str, state: Any, *, attempt: int) -> Invitation | None:
    async def note(transaction: Any) -> Invitation | None:
        return await room.progress(transaction, portal.server, key, state, attempt=attempt)

    return await portal.server.store.transact(note)


async def sent(portal: Portal, message: OutboxMessage) -> Invitation | None:
    async def note(transaction: Any) -> Invitation | None:
        return await room.sent(transaction, portal.server, message)

    return await portal.server.store.transact(note)


async def status(caller: Caller, task: str) -> tuple[str, str]:
    tree = (await caller.get(task)).json
    return tree["status"], tree["businessStatus"]["coding"][0]["code"]


async def work(portal: Portal, store: EmbeddedStore, clock: Clock) -> int:
    functions = invitation_jobs(portal.server, portal.collaborators)
    return await work_off(store, functions, worker="w", clock=clock)


def sheet(answer: Any) -> bytes:
    assert answer.status == 200, answer.body
    assert answer.json["resourceType"] == "Binary"
    return base64.b64decode(answer.json["data"])


# ---------------------------------------------------------------- again


@pytest.mark.requirement("portal", "S0-20", "S2-35")
async def test_sent_again_it_is_another_attempt_and_the_one_before_is_void(
    practice: EmbeddedStore, desk: Caller, portal: Portal, ehr: Caller, clock: Clock
) -> None:
    made = await invited(desk, "bo")
    first = await the_invitation(practice, made["invitation"])
    before = secrets(portal).of(first)
    clock.advance(DAY)
    again = values(await call(desk, made["invitation"], "invite-resend", reason="no mail came"))
    assert again["invitation"] == made["invitation"]
    assert again["expires"] > made["expires"]
    now = await the_invitation(practice, made["invitation"])
    assert (now.attempt, now.ends) == (2, START + DAY + LIFETIME)
    assert await secrets(portal).by_link(practice, before.link) is None
    assert await secrets(portal).by_code(practice, before.code) is None
    found = [(one.template, one.link_attempt) for one in await messages(practice)]
    assert Counter(found) == {
        ("invitation-link", 1): 1,
        ("invitation-code", 1): 1,
        ("invitation-resent", 2): 1,
        ("invitation-code", 2): 1,
    }
    task = (await ehr.get(made["invitation"])).json
    assert task["restriction"]["period"]["end"] == again["expires"]
    reasons = [
        one["reason"][0]["text"]
        for one in (await ehr.get(f"Provenance?target={made['invitation']}")).entries
        if "reason" in one
    ]
    assert reasons == ["no mail came"]


async def test_it_is_sent_again_another_way_and_after_its_time_and_after_five_wrong_tries(
    practice: EmbeddedStore, desk: Caller, clock: Clock, portal: Portal
) -> None:
    made = await invited(desk, "bo")
    again = values(await call(desk, made["invitation"], "invite-resend", channel="sms"))
    assert (again["channel"], again["code-by"]) == ("sms", "mail")
    clock.advance(LIFETIME)
    await work(portal, practice, clock)
    assert await status(desk, made["invitation"]) == ("failed", "expired")
    again = values(await call(desk, made["invitation"], "invite-resend", channel="desk"))
    assert again["security-code"]
    assert await status(desk, made["invitation"]) == ("received", "delivered")

    async def guess(transaction: Any) -> None:
        await count_try(transaction, f"{DERM}/{made['invitation']}", attempt=3)

    for _ in range(5):
        await practice.transact(guess)
    assert (await the_invitation(practice, made["invitation"])).is_locked
    await call(desk, made["invitation"], "invite-resend", channel="mail")
    assert not (await the_invitation(practice, made["invitation"])).is_locked


async def test_a_contact_that_was_named_is_kept_when_it_is_sent_again(
    practice: EmbeddedStore, desk: Caller
) -> None:
    made = await invited(desk, "bo", contact="other@mail.example")
    await call(desk, made["invitation"], "invite-resend")
    found = [one.to for one in await messages(practice) if one.template == "invitation-resent"]
    assert found == ["other@mail.example"]


async def test_an_address_that_was_corrected_on_file_is_the_one_it_goes_to_next(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    made = await invited(desk, "cy")
    await ehr.store(a_patient("cy", telecom=[mail("right@mail.example")]))
    await call(desk, made["invitation"], "invite-resend")
    found = [one.to for one in await messages(practice) if one.template == "invitation-resent"]
    assert found == ["right@mail.example"]
    await ehr.store(a_patient("cy", deceasedBoolean=True))
    again = await call(desk, made["invitation"], "invite-resend", channel="desk")
    assert_outcome(again, 409, "conflict")


async def test_its_task_is_deleted_only_when_it_is_over(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    assert practice is not None
    made = await invited(desk, "bo")
    assert_outcome(await ehr.delete(made["invitation"]), 409, "conflict")
    assert (await ehr.get(made["invitation"])).status == 200
    assert (
        await call(desk, made["invitation"], "invite-revoke", reason="the wrong person")
    ).status == 200
    assert (await ehr.delete(made["invitation"])).status == 204


async def test_it_has_ten_attempts(practice: EmbeddedStore, desk: Caller) -> None:
    assert practice is not None
    made = await invited(desk, "di", channel="desk")
    for _ in range(MOST_ATTEMPTS - 1):
        assert (await call(desk, made["invitation"], "invite-resend")).status == 200
    assert_outcome(await call(desk, made["invitation"], "invite-resend"), 409, "conflict")


async def test_two_who_send_again_at_once_leave_one_attempt_that_works(
    practice: EmbeddedStore, desk: Caller, portal: Portal
) -> None:
    made = await invited(desk, "di", channel="desk")
    answers = await asyncio.gather(
        *(call(desk, made["invitation"], "invite-resend") for _ in range(4))
    )
    codes = [values(one)["security-code"] for one in answers]
    assert len(set(codes)) == 4
    usable = [one for one in codes if await secrets(portal).by_code(practice, one)]
    assert len(usable) == 1


# ---------------------------------------------------------------- taken back


async def test_revoked_its_secrets_lead_nowhere_and_its_grant_is_rejected(
    practice: EmbeddedStore, desk: Caller, portal: Portal, ehr: Caller
) -> None:
    made = await invited(desk, "lia", **GUARDIAN)
    answer = await call(desk, made["invitation"], "invite-revoke", reason="the wrong person")
    assert values(answer) == {"invitation": made["invitation"], "status": "revoked"}
    task = (await ehr.get(made["invitation"])).json
    assert (task["status"], task["statusReason"]) == ("cancelled", {"text": "the wrong person"})
    assert (await ehr.get(made["grant"][0])).json["status"] == "rejected"
    assert await secrets(portal).by_code(practice, made["security-code"]) is None
    for operation, given in (
        ("invite-resend", {}),
        ("print-instructions", {}),
        ("invite-revoke", {"reason": "again"}),
    ):
        assert_outcome(await call(desk, made["invitation"], operation, **given), 409, "conflict")
    given = {"kind": "guardian", "basis": "parent", "channel": "desk"}
    again = await invite(desk, "lia", **given, related_person=made["related-person"][0])
    assert again.status == 201


@pytest.mark.parametrize("reason", ["", " ", "a\r\nb", "x" * 201])
async def test_it_is_not_revoked_without_a_reason(desk: Caller, reason: str) -> None:
    made = await invited(desk, "bo")
    answer = await call(desk, made["invitation"], "invite-revoke", reason=reason)
    assert answer.status in {400, 422}
    assert await status(desk, made["invitation"]) == ("requested", "queued")


async def test_who_wants_no_more_is_asked_about_before_they_are_invited(desk: Caller) -> None:
    made = await invited(desk, "bo")
    await call(desk, made["invitation"], "invite-revoke", reason="declined", no_more=True)
    assert_outcome(await invite(desk, "bo"), 409, "conflict")
    assert (await invite(desk, "bo", force=True)).status == 201


async def test_each_operation_asks_for_its_own_permission_and_practice(
    practice: EmbeddedStore, portal: Portal, desk: Caller, other_ehr: Caller
) -> None:
    assert practice is not None
    made = await invited(desk, "bo")
    inviting, revoking = staff(portal, "invite"), staff(portal, "revoke")
    given = {"reason": "r"}
    for caller, operation in (
        (inviting, "invite-revoke"),
        (revoking, "invite-resend"),
        (revoking, "print-instructions"),
        (staff(portal), "invite-resend"),
    ):
        assert (await call(caller, made["invitation"], operation, **given)).status == 403
    elsewhere = staff(portal, "invite", "revoke", practice="family-medicine")
    for caller in (elsewhere, other_ehr, staff(portal, "invite", "revoke", patient="cy")):
        for operation in ("invite-resend", "invite-revoke", "print-instructions"):
            assert (await call(caller, made["invitation"], operation, **given)).status == 404
    assert await status(desk, made["invitation"]) == ("requested", "queued")


async def test_staff_bound_to_one_record_do_nothing_with_an_invitation_to_several(
    portal: Portal, desk: Caller
) -> None:
    made = await invited(desk, "lia", **GUARDIAN, patient=["Patient/kit"])
    bound = staff(portal, "invite", "revoke", patient="lia")
    for operation in ("invite-resend", "invite-revoke", "print-instructions"):
        assert (await call(bound, made["invitation"], operation, reason="r")).status == 403


async def test_another_task_is_no_invitation(desk: Caller, ehr: Caller) -> None:
    await ehr.store(a_task("other", of="bo"))
    for operation in ("invite-resend", "invite-revoke", "print-instructions"):
        assert (await call(desk, "Task/other", operation, reason="r")).status == 422


# ---------------------------------------------------------------- printed


@pytest.mark.requirement("portal", "S3-10", "S3-12")
async def test_the_sheet_has_what_is_needed_and_no_name(
    practice: EmbeddedStore, desk: Caller, portal: Portal
) -> None:
    made = await invited(desk, "bo")
    content = sheet(await call(desk, made["invitation"], "print-instructions"))
    text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    invitation = await the_invitation(practice, made["invitation"])
    own = secrets(portal).of(invitation)
    assert (invitation.attempt, invitation.channel, invitation.state) == (2, "paper", "sent")
    for wanted in (own.code, own.portal_id, own.word, "/activate", "(312) 555-0199", "A. R."):
        assert wanted in text
    assert "Wednesday, March 20, 2030, 12:46 PM (CDT)" in text.replace("\n", " ")
    for absent in ("Reed", "Ada", "1984", "bo@mail.example", own.link):
        assert absent not in text


@pytest.mark.requirement("portal", "S3-11")
async def test_each_printing_is_a_new_attempt_and_recorded(
    practice: EmbeddedStore, desk: Caller, portal: Portal, ehr: Caller
) -> None:
    made = await invited(desk, "di", channel="letter")
    first = sheet(await call(desk, made["invitation"], "print-instructions", format="html"))
    second = sheet(await call(desk, made["invitation"], "print-instructions", format="html"))
    invitation = await the_invitation(practice, made["invitation"])
    own = secrets(portal).of(invitation)
    assert (invitation.attempt, invitation.channel) == (3, "letter")
    assert own.code.encode() in second
    assert own.code.encode() not in first
    codes = [
        coding["code"]
        for event in (await ehr.get("AuditEvent?_count=50")).entries
        for coding in event.get("subtype", ())
    ]
    assert codes.count("print-instructions") == 2
    found = (await ehr.get(f"Provenance?target={made['invitation']}")).entries
    told = [one["reason"][0]["text"] for one in found if "reason" in one]
    assert told == ["instructions printed"] * 2


async def test_the_sheet_is_in_the_language_asked_for_and_escapes_the_practices_name(
    practice: EmbeddedStore, desk: Caller
) -> None:
    known = await practice.get(Practice, DERM)
    await keep(practice, changed(known, name="<script>alert(1)</script> & Sons"))
    made = await invited(desk, "di", channel="desk")
    given = {"format": "html", "language": "es", "large_print": True}
    page = sheet(await call(desk, made["invitation"], "print-instructions", **given)).decode()
    assert '<html lang="es">' in page
    assert "Código de seguridad" in page
    assert "<script" not in page
    for wrong in ({"language": "xx"}, {"format": "docx"}):
        answer = await call(desk, made["invitation"], "print-instructions", **wrong)
        assert answer.status == 422


async def test_nothing_printed_is_stored(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    made = await invited(desk, "di", channel="desk")
    await call(desk, made["invitation"], "print-instructions")
    assert (await ehr.get("Binary?_summary=count")).status in {200, 400, 405}
    (count,) = (
        await practice.database.select("SELECT count(*) FROM resource WHERE type = 'Binary'")
    )[0]
    assert count == 0


# ---------------------------------------------------------------- has an account meanwhile


async def has_account(practice: EmbeddedStore, ehr: Caller, **more: Any) -> None:
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    await keep(
        practice,
        an_account("bo", f"{DERM}/Person/bo", **more),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
    )


@pytest.mark.parametrize("operation", ["invite-resend", "print-instructions"])
async def test_who_has_an_account_by_now_is_not_invited_again(
    practice: EmbeddedStore, desk: Caller, ehr: Caller, operation: str
) -> None:
    """Refused in words that say what to do; nothing was sent or changed, and it is taken back."""
    made = await invited(desk, "bo")
    await has_account(practice, ehr)
    before = (await messages(practice), await the_invitation(practice, made["invitation"]))
    answer = await call(desk, made["invitation"], operation)
    assert answer.status == 409
    assert "has an account by now: take the invitation back" in answer.body.decode()
    assert (await messages(practice), await the_invitation(practice, made["invitation"])) == before
    assert await status(desk, made["invitation"]) == ("requested", "queued")
    assert (await call(desk, made["invitation"], "invite-revoke", reason="x")).status == 200
    assert await status(desk, made["invitation"]) == ("cancelled", "revoked")


async def test_who_has_to_prove_anew_who_they_are_is_invited_again(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    """Their account was recovered with another practice's help."""
    made = await invited(desk, "bo")
    await has_account(practice, ehr, closed_at=(DERM,))
    assert (await call(desk, made["invitation"], "invite-resend")).status == 200


async def test_who_acts_for_a_patient_with_an_account_is_invited_again(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    """The account is the patient's, and the invitation is somebody else's."""
    made = await invited(
        desk, "bo", kind="caregiver", name=NAN, relationship=FATHER, basis="consent-form",
        channel="desk",
    )  # fmt: skip
    await has_account(practice, ehr)
    assert (await call(desk, made["invitation"], "invite-resend")).status == 200


# ---------------------------------------------------------------- followed


@pytest.mark.requirement("portal", "S0-11")
async def test_the_task_says_that_the_link_was_sent(
    practice: EmbeddedStore, desk: Caller, portal: Portal
) -> None:
    made = await invited(desk, "bo")
    code, link = await messages(practice)
    assert await sent(portal, code) is None
    assert await status(desk, made["invitation"]) == ("requested", "queued")
    assert await sent(portal, link) is not None
    assert await sent(portal, link) is None
    assert await status(desk, made["invitation"]) == ("requested", "sent")


async def test_what_the_gateway_says_arrived_is_delivered_and_no_other_message_is(
    practice: EmbeddedStore, desk: Caller, portal: Portal
) -> None:
    """The message with the link alone: of its code, or of a void attempt, nothing follows."""

    async def arrived(message: OutboxMessage) -> bool:
        async def work(transaction: Any) -> bool:
            return await room.received(transaction, portal.server, message) is not None

        return await practice.transact(work)

    made = await invited(desk, "bo", channel="sms")
    link, code = sorted(await messages(practice), key=lambda one: one.template, reverse=True)
    assert (link.channel, code.channel) == ("sms", "mail")
    assert await sent(portal, link) is not None
    assert not await arrived(code)
    assert await status(desk, made["invitation"]) == ("requested", "sent")
    assert await arrived(link)
    assert await status(desk, made["invitation"]) == ("received", "delivered")
    assert not await arrived(link)
    assert await sent(portal, link) is None
    await call(desk, made["invitation"], "invite-resend")
    assert not await arrived(link)
    assert await status(desk, made["invitation"]) == ("requested", "queued")


async def test_a_message_of_an_attempt_that_is_void_says_nothing(
    practice: EmbeddedStore, desk: Caller, portal: Portal
) -> None:
    made = await invited(desk, "cy")
    (link,) = await messages(practice)
    await call(desk, made["invitation"], "invite-resend")
    assert await sent(portal, link) is None
    assert await status(desk, made["invitation"]) == ("requested", "queued")


@pytest.mark.parametrize(
    ("state", "of_task"),
    [("sent", "requested"), ("delivered", "received"), ("opened", "in-progress")],
)
async def test_the_task_follows_each_step(
    desk: Caller, portal: Portal, state: Any, of_task: str
) -> None:
    made = await invited(desk, "bo")
    key = f"{DERM}/{made['invitation']}"
    assert await progress(portal, key, state, attempt=2) is None
    assert await progress(portal, key, state, attempt=1) is not None
    assert await status(desk, made["invitation"]) == (of_task, state)
    if state != "sent":
        assert await progress(portal, key, "sent", attempt=1) is None


async def test_redeemed_its_grant_is_active_as_it_was_proposed(
    practice: EmbeddedStore, desk: Caller, portal: Portal, ehr: Caller
) -> None:
    made = await invited(desk, "lia", **GUARDIAN)
    invitation = await the_invitation(practice, made["invitation"])

    async def redeem(transaction: Any) -> list[Grant]:
        ended = await end(
            transaction, secrets(portal), invitation, "redeemed", now=START, account="nan"
        )
        grants = await activate_grants(
            transaction, portal.server, ended, zone=ZoneInfo("America/Chicago")
        )
        await follow(transaction, portal.server, ended)
        return grants

    (grant,) = await practice.transact(redeem)
    assert await practice.find(Grant, "patient", "lia") == [grant]
    assert (await ehr.get(made["grant"][0])).json["status"] == "active"
    assert await status(desk, made["invitation"]) == ("completed", "redeemed")
    with pytest.raises(NotUsable):
        await practice.transact(redeem)
    refused = await call(desk, made["invitation"], "invite-resend")
    assert_outcome(refused, 409, "conflict")


async def test_a_grant_that_was_changed_meanwhile_is_not_activated(
    practice: EmbeddedStore, desk: Caller, portal: Portal, ehr: Caller
) -> None:
    made = await invited(desk, "lia", **GUARDIAN)
    invitation = await the_invitation(practice, made["invitation"])
    grant = (await ehr.get(made["grant"][0])).json
    await ehr.store(grant | {"status": "inactive"})

    async def redeem(transaction: Any) -> None:
        await activate_grants(transaction, portal.server, invitation, zone=ZoneInfo("UTC"))

    with pytest.raises(NotUsable):
        await practice.transact(redeem)
    assert await practice.find(Grant, "patient", "lia") == []


async def test_what_a_client_writes_into_the_task_changes_nothing_about_the_invitation(
    practice: EmbeddedStore, desk: Caller, ehr: Caller, portal: Portal
) -> None:
    made = await invited(desk, "bo")
    task = (await ehr.get(made["invitation"])).json
    task["restriction"]["period"]["end"] = "2099-01-01T00:00:00Z"
    await ehr.store(task | {"status": "completed"})
    invitation = await the_invitation(practice, made["invitation"])
    assert (invitation.state, invitation.ends) == ("queued", START + LIFETIME)
    await progress(portal, invitation.key, "sent", attempt=1)
    assert (await ehr.get(made["invitation"])).json["restriction"]["period"]["end"] == made[
        "expires"
    ]
    await ehr.delete(made["invitation"])
    assert await progress(portal, invitation.key, "opened", attempt=1) is not None


# ---------------------------------------------------------------- ended by time


@pytest.mark.requirement("portal", "S0-19")
async def test_its_time_over_it_ends_in_the_task_too_and_a_later_attempt_goes_on(
    practice: EmbeddedStore, desk: Caller, portal: Portal, clock: Clock
) -> None:
    first = await invited(desk, "bo")
    second = await invited(desk, "di", channel="desk")
    clock.advance(LIFETIME - 1)
    await call(desk, second["invitation"], "invite-resend")
    assert await work(portal, practice, clock) == 0
    clock.advance(1)
    assert await work(portal, practice, clock) == 2
    assert await status(desk, first["invitation"]) == ("failed", "expired")
    assert await status(desk, second["invitation"]) == ("received", "delivered")
    clock.advance(LIFETIME)
    assert await work(portal, practice, clock) == 1
    assert await status(desk, second["invitation"]) == ("failed", "expired")
    ended = [one.state for one in await practice.every(Invitation)]
    assert ended == ["expired", "expired"]
    for invitation in await practice.every(Invitation):
        for secret in secrets_of(portal, invitation):
            found = await secrets(portal).by_link(practice, secret)
            # A link still says which one it was, so that its page can send a new one there.
            assert found is None or not found.is_usable(clock())
            assert await secrets(portal).by_code(practice, secret) is None


async def test_a_clock_that_goes_back_ends_nothing_early(
    practice: EmbeddedStore, desk: Caller, portal: Portal, clock: Clock
) -> None:
    made = await invited(desk, "bo")
    clock.advance(-DAY)
    assert await work(portal, practice, clock) == 0
    assert await status(desk, made["invitation"]) == ("requested", "queued")
    assert len(await practice.every(Job)) == 1


@pytest.mark.parametrize("operation", ["invite-resend", "print-instructions"])
async def test_while_the_portal_is_off_nothing_is_sent_again(
    practice: EmbeddedStore, desk: Caller, operation: str
) -> None:
    made = await invited(desk, "bo")
    sent = await messages(practice)
    await decided(practice, portal="off")
    assert_outcome(await call(desk, made["invitation"], operation), 403, "forbidden")
    assert await messages(practice) == sent
