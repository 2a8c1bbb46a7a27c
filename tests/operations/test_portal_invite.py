"""``$portal-invite``: all that it makes, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import DAY, HOUR, LIFETIME, Invitation, InvitationSecrets
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import TooManyRequests
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.jobs import Job
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.portal import Portal
from fhir_portal.web.errors import refusal
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Answer,
    Caller,
    Clock,
    Json,
    a_bundle,
    a_document,
    a_patient,
    a_proxy,
    a_related_person,
    an_account,
    an_ehr,
    assert_outcome,
    keep,
    oneself,
)
from tests.operations.conftest import mail, mobile
from tests.operations.invitations import (
    FATHER,
    NAN,
    body,
    call,
    decided,
    everything_stored,
    invite,
    invited,
    messages,
    secrets_of,
    staff,
    the_invitation,
    values,
)
from tests.staff import a_member_of_staff

REPRESENTATIVE: Json = {
    "kind": "representative",
    "name": NAN,
    "relationship": FATHER,
    "basis": "power-of-attorney",
    "evidence": "DocumentReference/poa",
    "channel": "desk",
    "period": {"end": "2031-01-01"},
}
GUARDIAN: Json = {
    "kind": "guardian",
    "name": NAN,
    "relationship": FATHER,
    "basis": "parent",
    "channel": "desk",
}


async def read(caller: Caller, reference: str) -> Json:
    answer = await caller.get(reference)
    assert answer.status == 200, answer.body
    return answer.json


async def counts(caller: Caller) -> dict[str, int]:
    """How much there is of what an invitation makes."""
    names = ("Task", "RelatedPerson", "Consent", "Provenance")
    return {n: (await caller.get(f"{n}?_summary=count")).json["total"] for n in names}


# ---------------------------------------------------------------- what it makes


@pytest.mark.requirement("portal", "S3-08", "S4-17")
async def test_inviting_a_patient_makes_a_task_a_message_and_its_provenance(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    made = await invited(desk, "bo", reason="asked for it at the desk")
    task = await read(ehr, made["invitation"])
    assert task["status"] == "requested"
    assert task["businessStatus"]["coding"][0]["code"] == "queued" == made["status"]
    assert task["code"]["coding"][0]["code"] == "portal-invite"
    assert task["for"] == task["owner"] == {"reference": "Patient/bo"}
    assert task["requester"] == {"reference": "Practitioner/desk"}
    assert task["restriction"]["period"]["end"] == made["expires"]
    invitation = await the_invitation(practice, made["invitation"])
    assert invitation.ends == START + LIFETIME
    (provenance,) = (await ehr.get(f"Provenance?target={made['invitation']}")).entries
    agent = provenance["agent"][0]
    assert agent["who"] == {"reference": "Practitioner/desk"}
    assert agent["onBehalfOf"] == {"reference": "Organization/derm"}
    assert provenance["reason"] == [{"text": "asked for it at the desk"}]
    assert provenance["recorded"].startswith("2030-03-17T")


@pytest.mark.requirement("portal", "S0-17", "S4-08")
async def test_link_and_code_go_to_two_contacts_and_neither_is_shown(
    practice: EmbeddedStore, desk: Caller
) -> None:
    made = await invited(desk, "bo")
    assert (made["channel"], made["code-by"]) == ("mail", "sms")
    assert not {"link", "security-code", "portal-id", "activation-word"} & made.keys()
    code, link = await messages(practice)
    assert (link.channel, link.to, link.template) == ("mail", "bo@mail.example", "invitation-link")
    assert link.link_for == f"invitation/{DERM}/{made['invitation']}"
    assert (code.channel, code.to, code.template) == ("sms", "+13125550142", "invitation-code")
    assert code.link_for == f"invitation-code/{DERM}/{made['invitation']}"


async def test_with_one_contact_the_code_is_handed_over_and_the_link_is_not_shown(
    practice: EmbeddedStore, desk: Caller
) -> None:
    made = await invited(desk, "cy")
    assert made["code-by"] == "hand"
    assert made["security-code"]
    assert not {"link", "portal-id", "activation-word"} & made.keys()
    assert [one.template for one in await messages(practice)] == ["invitation-link"]


@pytest.mark.requirement("portal", "S3-09")
@pytest.mark.parametrize("channel", ["desk", "paper", "letter"])
async def test_what_is_handed_over_is_shown_once_and_nothing_is_sent(
    practice: EmbeddedStore, desk: Caller, portal: Portal, channel: str
) -> None:
    given: Json = {"channel": channel, "idempotency_key": "k1"}
    made = await invited(desk, "di", **given)
    invitation = await the_invitation(practice, made["invitation"])
    own = InvitationSecrets(portal.collaborators.derive("invitations")).of(invitation)
    assert made["link"] == f"http://127.0.0.1:8000/activate/{own.link}"
    assert made["security-code"] == own.code
    assert (made["portal-id"], made["activation-word"]) == (own.portal_id, own.word)
    state = "delivered" if channel == "desk" else "sent"
    assert made["status"] == state == invitation.state
    assert await messages(practice) == []
    again = values(await invite(desk, "di", **given))
    assert again["invitation"] == made["invitation"]
    assert not {"link", "security-code", "portal-id", "activation-word"} & again.keys()


async def test_no_secret_and_no_address_is_where_it_does_not_belong(
    practice: EmbeddedStore, desk: Caller, portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    made = await invited(desk, "cy", reason="r")
    await call(desk, made["invitation"], "invite-resend", channel="paper")
    await call(desk, made["invitation"], "print-instructions")
    stored = await everything_stored(practice)
    invitation = await the_invitation(practice, made["invitation"])
    assert invitation.attempt == 3
    for secret in secrets_of(portal, invitation):
        assert secret not in stored
        assert secret not in caplog.text
    task = json.dumps(await read(desk, made["invitation"]))
    provenance = (await desk.get(f"Provenance?target={made['invitation']}")).body.decode()
    for text in (task, provenance, caplog.text):
        assert "cy@mail.example" not in text


async def test_a_guardian_gets_a_related_person_and_a_proposed_grant_until_the_child_is_grown(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    telecom = [mail("Nan@Mail.example"), mobile("+1 312 555 0143")]
    made = await invited(desk, "lia", **GUARDIAN | {"telecom": telecom, "channel": "mail"})
    (person,) = [await read(ehr, one) for one in made["related-person"]]
    assert person["patient"] == {"reference": "Patient/lia"}
    assert [one["value"] for one in person["telecom"]] == ["nan@mail.example", "+13125550143"]
    (grant,) = [await read(ehr, one) for one in made["grant"]]
    assert grant["status"] == "proposed"
    assert grant["provision"]["period"] == {"start": "2030-03-17", "end": "2040-08-18"}
    assert grant["sourceReference"] == {"display": "Parent"}
    assert grant["performer"] == [{"reference": "Practitioner/desk"}]
    assert await practice.find(Grant, "patient", "lia") == []
    assert {one.to for one in await messages(practice)} == {"nan@mail.example", "+13125550143"}
    task = await read(ehr, made["invitation"])
    assert task["owner"] == {"reference": made["related-person"][0]}


async def test_several_children_are_one_invitation_and_nobody_learns_of_the_others(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    made = await invited(desk, "lia", **GUARDIAN, patient=["Patient/kit"])
    invitation = await the_invitation(practice, made["invitation"])
    assert invitation.patients == ("Patient/lia", "Patient/kit")
    assert len(set(made["related-person"])) == len(set(made["grant"])) == 2
    tasks = (await ehr.get("Task?code=portal-invite")).entries
    assert {one["for"]["reference"] for one in tasks} == {"Patient/lia", "Patient/kit"}
    for one in tasks:
        other = "kit" if one["for"]["reference"] == "Patient/lia" else "lia"
        found = (await ehr.get(f"Provenance?target=Task/{one['id']}")).body.decode()
        for text in (json.dumps(one), found):
            assert f"Patient/{other}" not in text
            assert made["related-person"][0 if other == "lia" else 1] not in text
    revoked = await call(desk, f"Task/{invitation.tasks[0]}", "invite-revoke", reason="moved away")
    assert revoked.status == 200
    tasks = (await ehr.get("Task?code=portal-invite")).entries
    assert {one["businessStatus"]["coding"][0]["code"] for one in tasks} == {"revoked"}


async def test_another_proxy_of_the_child_sees_nothing_of_an_invitation(
    portal: Portal, desk: Caller
) -> None:
    made = await invited(desk, "kit", **GUARDIAN)
    mother = Caller(portal, a_proxy("kit", sections=("forms", "sharing", "results")))
    for reference in (made["invitation"], made["grant"][0], made["related-person"][0]):
        assert (await mother.get(reference)).status == 404
    assert (await mother.get("Provenance?")).entries == []
    kit = Caller(portal, oneself("kit"))
    assert (await kit.get(made["invitation"])).status == 200


@pytest.mark.parametrize(
    ("kind", "basis", "sees", "acts"),
    [
        ("caregiver", "consent-form", 8, {"appointments"}),
        ("payer", "consent-form", 1, {"billing"}),
        (
            "guardian",
            "parent",
            12,
            {"appointments", "billing", "demographics", "forms", "insurance", "messages"},
        ),
    ],
)
async def test_without_sections_the_preset_of_the_kind_counts(
    desk: Caller, kind: str, basis: str, sees: int, acts: set[str]
) -> None:
    made = await invited(desk, "lia", **GUARDIAN | {"kind": kind, "basis": basis})
    grant = await read(desk, made["grant"][0])
    sections = grant["provision"]["provision"]
    assert len(sections) == sees
    found = {s["code"][0]["coding"][0]["code"] for s in sections if len(s["action"]) == 2}
    assert found == acts


async def test_a_representative_is_invited_on_evidence_and_for_a_time(
    desk: Caller, ehr: Caller
) -> None:
    await ehr.store(a_document("poa", of="bo"))
    made = await invited(desk, "bo", **REPRESENTATIVE, sections={"results": False, "forms": True})
    grant = await read(desk, made["grant"][0])
    assert grant["sourceReference"] == {"reference": "DocumentReference/poa"}
    assert grant["provision"]["period"]["end"] == "2031-01-01"
    assert len(grant["provision"]["provision"]) == 2


async def test_an_existing_related_person_is_invited_by_their_own_contacts(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    await ehr.store(a_related_person("aunt", of="lia", telecom=[mail("aunt@mail.example")]))
    given = {"kind": "caregiver", "basis": "consent-form", "related_person": "RelatedPerson/aunt"}
    made = await invited(desk, "lia", **given)
    assert made["related-person"] == ["RelatedPerson/aunt"]
    assert [one.to for one in await messages(practice)] == ["aunt@mail.example"]
    invitation = await the_invitation(practice, made["invitation"])
    assert invitation.invitee == f"{DERM}/RelatedPerson/aunt"


@pytest.mark.requirement("portal", "S0-10", "S4-05")
async def test_the_same_person_is_not_made_twice_unless_that_is_wanted(
    desk: Caller, ehr: Caller
) -> None:
    await ehr.store(
        a_related_person("nan", of="lia", name=[{"text": "Nan QUILL"}]),
        a_related_person("by-mail", of="lia", telecom=[mail("nan@mail.example")]),
        a_related_person("gone", of="lia", name=[NAN], active=False),
        a_related_person("of-kit", of="kit", name=[NAN]),
    )
    given = GUARDIAN | {"telecom": [mail("NAN@mail.example")]}
    before = await counts(ehr)
    refused = await invite(desk, "lia", **given)
    assert refused.status == 409
    assert sorted(words.split()[0] for words in refused.words) == [
        "RelatedPerson/by-mail",
        "RelatedPerson/nan",
    ]
    assert await counts(ehr) == before
    assert (await invite(desk, "lia", **given, force=True)).status == 201


# ---------------------------------------------------------------- one invitation, however often


@pytest.mark.requirement("portal", "S0-07")
async def test_a_retry_of_an_ehr_is_the_same_invitation_and_another_body_is_refused(
    practice: EmbeddedStore, ehr: Caller
) -> None:
    made = await invited(ehr, "bo", idempotency_key="booking-7")
    for _ in range(3):
        again = await invite(ehr, "bo", idempotency_key="booking-7")
        assert again.status == 200
        assert values(again)["invitation"] == made["invitation"]
    assert len(await messages(practice)) == 2
    for other in (
        await invite(ehr, "bo", idempotency_key="booking-7", channel="sms"),
        await invite(ehr, "cy", idempotency_key="booking-7"),
    ):
        assert other.status == 409
    assert len(await practice.every(Invitation)) == 1


async def test_a_key_is_the_callers_own(ehr: Caller, desk: Caller) -> None:
    await invited(ehr, "bo", idempotency_key="k")
    assert (await invite(desk, "bo", idempotency_key="k")).status == 409
    assert (await invite(desk, "cy", idempotency_key="k")).status == 201


async def test_a_key_is_forgotten_after_thirty_days(
    ehr: Caller, desk: Caller, clock: Clock
) -> None:
    assert desk is not None
    first = await invited(ehr, "bo", idempotency_key="k")
    clock.advance(30 * DAY)
    second = await invited(ehr, "bo", idempotency_key="k")
    assert second["invitation"] != first["invitation"]
    assert values(await invite(ehr, "bo", idempotency_key="k")) | {"status": "queued"} == second


async def test_of_many_at_once_one_invites_and_retries_at_once_are_one(
    ehr: Caller, desk: Caller, portal: Portal
) -> None:
    other = staff(portal, "invite", "proxies", practitioner="front")
    answers = await asyncio.gather(*(invite(one, "bo") for one in (desk, other) * 5))
    assert Counter(one.status for one in answers) == {201: 1, 409: 9}
    answers = await asyncio.gather(*(invite(ehr, "cy", idempotency_key="k") for _ in range(8)))
    assert Counter(one.status for one in answers) == {201: 1, 200: 7}
    assert len({values(one)["invitation"] for one in answers}) == 1
    answers = await asyncio.gather(*(invite(one, "lia", **GUARDIAN) for one in (desk, other) * 3))
    assert Counter(one.status for one in answers) == {201: 1, 409: 5}


async def test_who_is_invited_or_has_an_account_is_not_invited_again(desk: Caller) -> None:
    made = await invited(desk, "bo")
    refused = await invite(desk, "bo")
    assert_outcome(refused, 409, "conflict")
    assert made["invitation"] in refused.words[0]
    assert_outcome(await invite(desk, "ada"), 409, "conflict")
    given = {"kind": "guardian", "basis": "parent", "related_person": "RelatedPerson/mother"}
    assert_outcome(await invite(desk, "kit", **given, channel="desk"), 409, "conflict")


async def test_after_its_time_another_one_takes_its_place_and_both_tasks_say_so(
    desk: Caller, clock: Clock
) -> None:
    first = await invited(desk, "lia", **GUARDIAN)
    clock.advance(LIFETIME)
    given = {"kind": "guardian", "basis": "parent", "channel": "desk"}
    second = await invited(desk, "lia", **given, related_person=first["related-person"][0])
    task = await read(desk, first["invitation"])
    assert task["businessStatus"]["coding"][0]["code"] == "expired"
    assert (await read(desk, first["grant"][0]))["status"] == "rejected"
    assert (await read(desk, second["grant"][0]))["status"] == "proposed"


async def test_ten_thousand_at_once_stay_bounded(
    practice: EmbeddedStore, desk: Caller, ehr: Caller, clock: Clock
) -> None:
    await decided(practice, invitations_an_hour="5")
    await ehr.store(*(a_patient(f"p{number}") for number in range(12)))
    answers = await asyncio.gather(
        *(invite(desk, f"p{number}", channel="desk") for number in range(12))
    )
    assert Counter(one.status for one in answers) == {201: 5, 429: 7}
    refused = next(one for one in answers if one.status == 429)
    assert_outcome(refused, 429, "throttled")
    assert len(await practice.every(Invitation)) == 5
    task = (await ehr.get("Task?code=portal-invite&_count=1")).ids[0]
    assert (await call(desk, task, "invite-resend", channel="desk")).status == 429
    assert (await call(desk, task, "print-instructions")).status == 429
    clock.advance(HOUR)
    assert (await invite(desk, "p11", channel="desk")).status in {201, 409}


async def test_a_batch_that_is_too_many_says_which_and_leaves_the_desk_its_part(
    practice: EmbeddedStore, desk: Caller, ehr: Caller, clock: Clock
) -> None:
    """An entry has no header: when to come back is in its outcome. Sent again, none is doubled."""
    await decided(practice, invitations_an_hour="5")
    names = [f"p{number:02}" for number in range(12)]
    await ehr.store(*(a_patient(one, telecom=[mail(f"{one}@mail.example")]) for one in names))

    def batch() -> Json:
        return a_bundle(
            "batch",
            *(
                (
                    "POST",
                    f"Patient/{one}/$portal-invite",
                    body(kind="self", idempotency_key=f"campaign-{one}"),
                )
                for one in names
            ),
        )

    def statuses(answer: Answer) -> Counter[str]:
        assert answer.status == 200
        return Counter(one["response"]["status"][:3] for one in answer.json["entry"])

    clock.advance(-clock() % HOUR)
    first = await ehr.bundle(batch())
    assert statuses(first) == {"201": 4, "429": 8}
    refused = first.json["entry"][-1]["response"]["outcome"]["issue"][0]
    assert refused["code"] == "throttled"
    assert "try again in 3601 seconds" in refused["diagnostics"]
    assert len(await practice.every(Invitation)) == 4
    assert len((await ehr.get("Task?code=portal-invite")).ids) == 4
    assert len(await practice.every(OutboxMessage)) == 4
    assert (await invite(desk, "bo")).status == 201
    assert (await invite(desk, "cy")).status == 429
    clock.advance(HOUR)
    assert statuses(await ehr.bundle(batch())) == {"200": 4, "201": 4, "429": 4}
    assert len(await practice.every(Invitation)) == 9


def test_whoever_is_too_many_is_told_when_to_come_back() -> None:
    _, headers, _ = refusal(TooManyRequests("wait", retry_after=1234), had_token=True)
    assert (b"retry-after", b"1234") in headers


# ---------------------------------------------------------------- who may, and for whom


@pytest.mark.requirement("portal", "S0-58")
@pytest.mark.parametrize("patient", ["kit", "nobody", "elsewhere"])
@pytest.mark.usefixtures("practice")
async def test_nobody_invites_to_a_record_of_another_practice(
    portal: Portal, other_ehr: Caller, patient: str
) -> None:
    await other_ehr.store(a_patient("elsewhere"))
    here = staff(portal, "invite", "proxies")
    wanted = 201 if patient == "kit" else 404
    assert (await invite(here, patient, channel="desk")).status == wanted
    further = await invite(here, "lia", **GUARDIAN, patient=["Patient/elsewhere"])
    assert further.status == 404


async def test_a_related_person_or_a_document_of_somebody_else_is_not_known(
    desk: Caller, ehr: Caller, other_ehr: Caller
) -> None:
    await ehr.store(a_document("poa", of="ada"), a_related_person("of-bo", of="bo"))
    await other_ehr.store(a_document("there", of="kit"), a_related_person("there", of="kit"))
    before = await counts(ehr)
    for document in ("poa", "there", "nobody"):
        given = REPRESENTATIVE | {"evidence": f"DocumentReference/{document}"}
        assert (await invite(desk, "bo", **given)).status == 404
    for person in ("mother", "there", "nobody"):
        given = REPRESENTATIVE | {"related_person": f"RelatedPerson/{person}"}
        assert (await invite(desk, "bo", **given)).status == 404
    assert await counts(ehr) == before


@pytest.mark.usefixtures("practice")
async def test_staff_bound_to_one_record_invite_to_no_other(portal: Portal) -> None:
    bound = staff(portal, "invite", "proxies", patient="lia")
    assert (await invite(bound, "kit", **GUARDIAN)).status == 404
    assert (await invite(bound, "lia", **GUARDIAN, patient=["Patient/kit"])).status == 404
    assert (await invite(bound, "lia", **GUARDIAN)).status == 201


@pytest.mark.usefixtures("practice")
async def test_an_ehr_without_the_right_to_give_grants_invites_patients_alone(
    portal: Portal,
) -> None:
    plain = Caller(portal, an_ehr(DERM, "none"))
    assert (await invite(plain, "lia", **GUARDIAN)).status == 403
    assert (await invite(plain, "bo")).status == 201


async def test_a_proposed_grant_is_changed_by_nobody_who_may_not_give_grants(
    portal: Portal, desk: Caller, ehr: Caller
) -> None:
    made = await invited(desk, "lia", **GUARDIAN | {"kind": "payer"})
    grant = await read(ehr, made["grant"][0])
    plain = Caller(portal, an_ehr(DERM, "label"))
    wider = grant | {"status": "active"}
    assert (await plain.put(wider)).status == 403
    wider = json.loads(json.dumps(grant).replace('"billing"', '"results"'))
    assert (await plain.put(wider)).status == 403
    assert (await plain.delete(made["grant"][0])).status == 403
    assert (await read(ehr, made["grant"][0]))["provision"] == grant["provision"]


@pytest.mark.requirement("portal", "S3-07")
async def test_the_practice_says_who_may_begin_and_how(
    practice: EmbeddedStore, desk: Caller, ehr: Caller
) -> None:
    await decided(practice, invited_by="staff", invite_channels="desk,mail")
    assert (await invite(ehr, "bo")).status == 403
    assert (await invite(desk, "bo", channel="sms")).status == 422
    made = await invited(desk, "bo")
    assert (made["channel"], made["code-by"]) == ("mail", "hand")
    await decided(practice, portal="off")
    assert (await invite(desk, "bo", kind="self")).status == 403
    await decided(practice, portal="on")
    await decided(practice, invited_by="ehr")
    assert (await invite(desk, "cy")).status == 403


async def test_rights_that_end_meanwhile_leave_nothing_half_made(
    practice: EmbeddedStore, portal: Portal, desk: Caller, ehr: Caller
) -> None:
    async def ended(transaction: Any, auth: Any) -> None:
        assert (transaction, auth) != (None, None)
        raise PermissionError

    before = await counts(ehr)
    server = replace(portal.server, still=ended)
    late = Caller(replace(portal, server=server), desk.auth)
    with pytest.raises(PermissionError):
        await invite(late, "lia", **GUARDIAN)
    assert await counts(ehr) == before
    assert not [*await practice.every(Job), *await practice.every(Invitation)]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"kind": "friend"}, 422),
        ({"kind": "self"}, 422),
        ({"kind": "representative"}, 422),
        ({"basis": "because"}, 422),
        ({"basis": "power-of-attorney"}, 422),
        ({"basis": []}, 422),
        ({"name": []}, 422),
        ({"name": {"use": "official"}}, 422),
        ({"relationship": []}, 422),
        ({"sections": {"diary": False}}, 422),
        ({"sections": {"sharing": False}}, 422),
        ({"sections": {"Results": False}}, 422),
        ({"channel": "pigeon"}, 422),
        ({"channel": "mail"}, 422),
        ({"contact": "nan@mail.example"}, 422),
        ({"channel": "mail", "contact": "nan@mail.example\r\nBcc: all@mail.example"}, 422),
        ({"channel": "mail", "contact": "nan@mail.example, b@mail.example"}, 422),
        ({"channel": "sms", "contact": "nan@mail.example"}, 422),
        ({"channel": "sms", "contact": "312 555 0142"}, 422),
        ({"channel": "sms", "contact": "+1"}, 422),
        ({"telecom": [mail("nan@mail.example\nBcc: x@mail.example")]}, 422),
        ({"telecom": [{"system": "fax", "value": "+13125550142"}]}, 422),
        ({"name": {"text": "Nan\r\nBcc: all@mail.example"}}, 422),
        ({"name": {"family": "x" * 300}}, 422),
        ({"relationship": {"text": "a\nb"}}, 422),
        ({"reason": "a\r\nb"}, 422),
        ({"reason": "x" * 300}, 422),
        ({"lifetime_hours": 0}, 422),
        ({"lifetime_hours": 505}, 422),
        ({"lifetime_hours": -1}, 422),
        ({"idempotency_key": "x" * 101}, 422),
        ({"period": {"end": "2029-01-01"}}, 422),
        ({"period": {"end": "2031"}}, 422),
        ({"period": {"start": "2035-01-01", "end": "2034-01-01"}}, 422),
        ({"patient": ["Organization/derm"]}, 404),
        ({"patient": ["https://elsewhere.example/Patient/kit"]}, 404),
        ({"related_person": "Patient/kit"}, 422),
        ({"related_person": "RelatedPerson/../mother"}, 400),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    practice: EmbeddedStore, desk: Caller, ehr: Caller, changes: Json, status: int
) -> None:
    before = await counts(ehr)
    refused = await invite(desk, "lia", **GUARDIAN | changes)
    assert refused.status == status, refused.body
    assert await counts(ehr) == before
    assert not [*await practice.every(Invitation), *await messages(practice)]


@pytest.mark.parametrize(
    "changes",
    [
        {"period": []},
        {"period": {"start": "2030-01-01"}},
        {"period": {"end": "9999-12-31"}},
        {"evidence": []},
        {"basis": "parent"},
    ],
)
async def test_a_representative_has_evidence_and_an_end(
    practice: EmbeddedStore, desk: Caller, ehr: Caller, changes: Json
) -> None:
    await ehr.store(a_document("poa", of="bo"))
    assert (await invite(desk, "bo", **REPRESENTATIVE | changes)).status == 422
    assert await practice.every(Invitation) == []


async def test_a_parent_is_no_guardian_of_somebody_who_is_of_age(desk: Caller, ehr: Caller) -> None:
    assert (await invite(desk, "bo", **GUARDIAN)).status == 422
    court = GUARDIAN | {"basis": "court-order"}
    assert (await invite(desk, "bo", **court)).status == 422
    assert (await invite(desk, "bo", **court, period={"end": "2031-01-01"})).status == 201
    await ehr.store(a_patient("unborn", birthDate=None))
    assert (await invite(desk, "unborn", **GUARDIAN)).status == 422
    made = await invited(desk, "lia", **GUARDIAN, period={"end": "2050-01-01"})
    assert (await read(desk, made["grant"][0]))["provision"]["period"]["end"] == "2040-08-18"


async def test_a_payer_of_bills_sees_nothing_else_and_who_helps_acts_in_little(
    desk: Caller,
) -> None:
    payer = GUARDIAN | {"kind": "payer"}
    assert (await invite(desk, "lia", **payer, sections={"results": False})).status == 422
    helper = GUARDIAN | {"kind": "caregiver"}
    assert (await invite(desk, "lia", **helper, sections={"results": True})).status == 422
    assert (await invite(desk, "lia", **helper, sections={"results": False})).status == 201


async def test_a_section_twice_is_refused(desk: Caller) -> None:
    tree = body(**GUARDIAN, sections={"results": False})
    tree["parameter"].append(tree["parameter"][-1])
    assert (await desk.ask("POST", "Patient/lia/$portal-invite", tree)).status == 422


async def test_nobody_is_invited_who_cannot_be_reached_or_is_dead(
    desk: Caller, ehr: Caller
) -> None:
    assert (await invite(desk, "di")).status == 422
    old = [mail("not an address"), mail("di@mail.example") | {"use": "old"}]
    await ehr.store(a_patient("di", telecom=old))
    assert (await invite(desk, "di")).status == 422
    await ehr.store(a_patient("di", deceasedBoolean=True), a_patient("cy", active=False))
    assert (await invite(desk, "di", channel="desk")).status == 422
    assert (await invite(desk, "cy", channel="desk")).status == 422


@pytest.mark.requirement("portal", "S0-19")
async def test_a_lifetime_is_from_an_hour_to_three_weeks_and_the_practices_by_channel(
    practice: EmbeddedStore, desk: Caller
) -> None:
    await decided(practice, lifetime_hours_letter="240")
    lasts = {}
    for patient, given in (
        ("bo", {"channel": "letter"}),
        ("cy", {"lifetime_hours": 1}),
        ("di", {"channel": "desk", "lifetime_hours": 504}),
    ):
        made = await invited(desk, patient, **given)
        lasts[patient] = (await the_invitation(practice, made["invitation"])).ends - START
    assert lasts == {"bo": 10 * DAY, "cy": HOUR, "di": 21 * DAY}


@pytest.mark.requirement("portal", "S4-04")
async def test_the_contact_named_is_used_and_written_as_contacts_are(
    practice: EmbeddedStore, desk: Caller
) -> None:
    await decided(practice, country="US")
    made = await invited(desk, "cy", contact="(312) 555-0144")
    assert (made["channel"], made["code-by"]) == ("sms", "mail")
    assert {one.to for one in await messages(practice)} == {"+13125550144", "cy@mail.example"}


async def test_its_task_is_of_its_patients_record_alone(
    practice: EmbeddedStore, desk: Caller
) -> None:
    made = await invited(desk, "bo")
    visible = Visibility.of_server("Task", practice=DERM)
    row = await practice.read(ResourceKey.parse(made["invitation"]), visible)
    assert row is not None
    assert row.facts.owners == ("bo",)


async def test_whoever_lets_somebody_act_for_a_patient_needs_the_permission(
    practice: EmbeddedStore, portal: Portal, desk: Caller
) -> None:
    assert practice is not None
    inviting = staff(portal, "invite")
    assert (await invite(inviting, "kit", **GUARDIAN)).status == 403
    made = await invited(desk, "kit", **GUARDIAN)
    for operation in ("invite-resend", "print-instructions"):
        assert (await call(inviting, made["invitation"], operation)).status == 403
    assert (await invite(inviting, "bo", channel="desk")).status == 201


async def test_who_may_invite_and_not_view_invites_and_reads_nothing(
    practice: EmbeddedStore, portal: Portal
) -> None:
    """Nothing implies anything else."""
    assert practice is not None
    auth = a_member_of_staff(permissions=("invite",))
    blind = Caller(portal, auth)
    made = await invite(blind, "bo", channel="desk")
    assert made.status == 201
    assert b"Reed" not in made.body
    task = values(made)["invitation"]
    assert (await call(blind, task, "invite-resend")).status == 200
    for path in ("Patient/bo", task, "Patient", "Task"):
        assert (await blind.get(path)).status == 403
    elsewhere = Caller(portal, a_member_of_staff(permissions=("view",)))
    assert (await invite(elsewhere, "bo", channel="desk")).status == 403


async def test_who_has_to_be_proved_anew_is_invited_though_they_have_an_account(
    practice: EmbeddedStore, desk: Caller
) -> None:
    """Another practice helped them back into their account, and this one's records are closed."""
    await keep(practice, an_account("ada", f"{DERM}/Person/ada", closed_at=(FAMILY,)))
    assert_outcome(await invite(desk, "ada", channel="desk"), 409, "conflict")
    await keep(practice, an_account("ada", f"{DERM}/Person/ada", closed_at=(DERM,)))
    await invited(desk, "ada", channel="desk")
