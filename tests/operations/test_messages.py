"""Conversations: who may write and read what, what becomes of a thread, who is told."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_portal.accounts.messaging import (
    InvalidMessaging,
    MessageTopic,
    Messaging,
    answer_by,
    read_messaging,
)
from fhir_portal.documents.malware_scan import Infected
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.datetime import instant
from fhir_portal.notify.jobs import Job, work_off
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.attachments import TakenFiles
from fhir_portal.operations.message_jobs import message_jobs
from fhir_portal.portal import Portal
from fhir_portal.resources.communication import AN_HOUR
from fhir_portal.resources.validation import validate
from tests.builders import (
    DERM,
    FAMILY,
    RESTRICTED,
    START,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    Json,
    a_communication,
    a_grant,
    a_person,
    a_proxy,
    a_related_person,
    an_access_token,
    an_account,
    bearer_of,
    concept,
    keep,
    oneself,
    reference,
    resource,
)
from tests.operations.messages import (
    CATEGORY,
    MESSAGES,
    WARNING,
    a_thread,
    ada,
    desk,
    done,
    kit,
    mother,
    out,
    practice,
    read,
    replied,
    sent,
    thread_of,
    words,
)
from tests.staff import a_member_of_staff, a_membership

__all__ = ["ada", "desk", "kit", "mother", "practice"]


async def told(store: EmbeddedStore, portal: Portal) -> set[tuple[str, str]]:
    """Do the jobs; return template and address of each message in the outbox."""
    jobs = message_jobs(portal.server)
    await work_off(store, jobs, worker="w", clock=portal.server.clock)
    return {(one.template, one.to) for one in await store.every(OutboxMessage)}


async def stored(ehr: Caller, thread: str) -> list[dict[str, Any]]:
    return (await ehr.get(f"Communication?part-of={thread}&_sort=sent&_count=200")).entries


# ---------------------------------------------------------------- a conversation


@pytest.mark.requirement("portal", "S0-06", "S1-32")
async def test_a_conversation_goes_on_from_the_first_message_until_it_is_closed(
    practice: EmbeddedStore, portal: Portal, clock: Clock, ada: Caller, desk: Caller, ehr: Caller
) -> None:
    """Topic, expected answer time, read state for each, urgent-care warning, and who is told."""
    options = await ada.get("Communication/$message-options")
    assert "emergency" in out(options, "warning")
    assert out(options, "warning-code") == WARNING
    unread = await sent(ada, warning=None)
    assert unread.status == 422
    assert "emergency" in unread.words[0]

    begun = await sent(ada)
    thread = thread_of(begun)
    assert out(begun, "status") == "in-progress"
    assert out(begun, "answer-by")
    header = (await ada.get(thread)).json
    assert header["topic"]["coding"][0]["code"] == "medical"
    assert header["recipient"] == [reference("Organization/derm")]
    assert header["sender"] == reference("Patient/ada")
    assert "partOf" not in header
    (first,) = await stored(ehr, thread)
    assert first["partOf"] == [reference(thread)]
    assert first["sender"] == reference("Patient/ada")

    assert words(await read(desk, thread)) == ["It itches."]
    assert out(await read(desk, thread), "unread") == 1
    assert out(await done(desk, thread, "mark-read"), "unread") == 0
    clock.advance(60)
    answered = await replied(desk, thread, "Since when?")
    assert out(answered, "status") == "on-hold"
    assert out(answered, "answer-by") is None
    assert ("message-new", f"record:{DERM}/Patient/ada") in await told(practice, portal)
    second = (await stored(ehr, thread))[1]
    assert second["inResponseTo"] == [reference(f"Communication/{first['id']}")]
    assert second["recipient"] == [reference("Patient/ada")]

    assert out(await read(ada, thread), "unread") == 1
    await done(ada, thread, "mark-read")
    assert out(await read(ada, thread), "unread") == 0
    assert (await stored(ehr, thread))[1]["received"]

    assert out(await done(desk, thread, "close"), "status") == "completed"
    refused = await replied(ada, thread)
    assert refused.status == 409
    assert out(await done(ada, thread, "reopen"), "status") == "in-progress"
    assert (await replied(ada, thread)).status == 200
    assert words(await read(ada, thread)) == ["It itches.", "Since when?", "Still."]


async def test_what_is_stored_is_valid_and_has_its_provenance(
    ada: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(ada))
    await replied(desk, thread)
    for one in [(await ehr.get(thread)).json, *await stored(ehr, thread)]:
        assert not validate(one, json.dumps(one).encode())
    authors = [
        (one["agent"][0]["who"]["reference"], one["target"][0]["reference"])
        for one in (await ehr.get("Provenance")).entries
    ]
    written = [f"Communication/{one['id']}" for one in await stored(ehr, thread)]
    assert ("Patient/ada", written[0]) in authors
    assert ("Practitioner/desk", written[1]) in authors


async def test_staff_begin_a_conversation_and_answers_come_back_to_who_wrote(
    ada: Caller, desk: Caller, practice: EmbeddedStore, portal: Portal
) -> None:
    begun = await sent(desk, patient="Patient/ada", topic=None)
    thread = thread_of(begun)
    assert out(begun, "status") == "on-hold"
    assert words(await read(ada, thread)) == ["It itches."]
    assert out(await replied(ada, thread), "status") == "in-progress"
    header = (await ada.get(thread)).json
    assert header["recipient"] == [reference("Practitioner/desk")]
    assert ("message-for-staff", "account:desk") in await told(practice, portal)
    assert (await sent(desk, topic=None)).status == 422, "for whom?"
    assert (await sent(desk, patient="Patient/nobody", topic=None)).status == 404


@pytest.mark.requirement("portal", "S2-04", "S2-27")
async def test_a_patient_writes_to_a_person_of_the_care_team_or_about_a_topic(
    practice: EmbeddedStore, ada: Caller, kit: Caller
) -> None:
    await keep(practice, Messaging(key=DERM, away={"Practitioner/lark": "Back on Monday."}))
    options = await ada.get("Communication/$message-options")
    people = [one["part"] for one in options.json["parameter"] if one["name"] == "person"]
    assert [one[0]["valueReference"]["reference"] for one in people] == ["Practitioner/lark"]
    assert people[0][0]["valueReference"]["display"]
    assert people[0][1]["valueString"] == "Back on Monday."
    begun = await sent(ada, recipient="Practitioner/lark", topic=None)
    assert out(begun, "away") == "Back on Monday."
    assert (await ada.get(thread_of(begun))).json["recipient"] == [reference("Practitioner/lark")]
    for nobody in ("Practitioner/stranger", "Practitioner/none", "Patient/bo"):
        assert (await sent(ada, recipient=nobody)).status == 422
    assert (await sent(kit, recipient="Practitioner/lark")).status == 422, "of Ada's team"
    assert (await sent(ada, topic="gossip")).status == 422
    assert (await sent(ada, topic=None)).status == 422


async def test_a_topic_leads_to_whom_the_practice_says_and_says_how_soon(
    practice: EmbeddedStore, ada: Caller
) -> None:
    topic = MessageTopic("billing", "A bill", "CareTeam/money", answer_hours=2)
    await keep(practice, Messaging(key=DERM, topics=(topic,)))
    begun = await sent(ada, topic="billing")
    assert (await ada.get(thread_of(begun))).json["recipient"] == [reference("CareTeam/money")]
    assert (await sent(ada, topic="medical")).status == 422


def test_hours_of_the_weekend_do_not_count() -> None:
    def due(moment: datetime, hours: int, zone: str = "UTC") -> datetime:
        return datetime.fromtimestamp(answer_by(moment.timestamp(), hours, zone), UTC)

    friday = datetime(2030, 3, 15, 18, tzinfo=UTC)
    assert due(friday, 2) == datetime(2030, 3, 15, 20, tzinfo=UTC)
    assert due(friday, 24) == datetime(2030, 3, 18, 18, tzinfo=UTC)
    assert due(friday, 48) == datetime(2030, 3, 19, 18, tzinfo=UTC)
    saturday = datetime(2030, 3, 16, 12, tzinfo=UTC)
    # Monday begins at five in the morning of UTC: six hours behind in winter, five in summer.
    assert due(saturday, 1, "America/Chicago") == datetime(2030, 3, 18, 6, tzinfo=UTC)


# ---------------------------------------------------------------- who acts for somebody


async def test_a_proxy_writes_as_the_related_person_and_never_into_the_own_record(
    mother: Caller, ada: Caller, kit: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(mother))
    assert (await ehr.get(thread)).json["sender"] == reference("RelatedPerson/mother")
    (message,) = await stored(ehr, thread)
    assert message["sender"] == reference("RelatedPerson/mother")
    assert message["subject"] == reference("Patient/kit")
    assert (await ada.get(thread)).status == 404, "it is no part of the mother's own record"
    assert (await ada.get("Communication")).entries == []
    (who,) = [
        one["agent"][0]
        for one in (await ehr.get("Provenance")).entries
        if one["target"] == [reference(f"Communication/{message['id']}")]
    ]
    assert who["onBehalfOf"] == reference("Patient/kit")
    assert words(await read(kit, thread)) == ["It itches."]
    await replied(desk, thread, "Which cream?")
    assert words(await read(mother, thread)) == ["It itches.", "Which cream?"]


async def test_what_a_teenager_writes_confidentially_no_proxy_sees_answers_included(
    mother: Caller, kit: Caller, desk: Caller, practice: EmbeddedStore, portal: Portal
) -> None:
    hers = thread_of(await sent(mother))
    thread = thread_of(await sent(kit, "Only for you.", confidential=True))
    await replied(desk, thread, "Of course.")
    assert words(await read(kit, thread)) == ["Only for you.", "Of course."]
    seen = await mother.get("Communication")
    assert {one["id"] for one in seen.entries if "partOf" not in one} == {hers.partition("/")[2]}
    assert b"Only for you" not in seen.body
    assert b"Of course" not in seen.body
    for operation in ("reply", "mark-read", "close", "reopen"):
        given = {"text": "Aha", "identifier": "urn:x"} if operation == "reply" else {}
        assert (await done(mother, thread, operation, **given)).status == 404
    assert (await read(mother, thread)).status == 404
    assert [one for one in (await mother.get("Provenance")).entries if thread in str(one)] == []
    about = [to for _, to in await told(practice, portal)]
    assert about == [f"record:{DERM}/Patient/kit"]
    refused = await sent(mother, confidential=True)
    assert refused.status == 403


async def test_who_takes_part_is_told_and_nobody_whose_grant_has_ended(
    practice: EmbeddedStore, portal: Portal, mother: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(mother))
    await replied(desk, thread)
    assert await told(practice, portal) == {
        ("message-new", f"record:{DERM}/Patient/kit"),
        ("message-new", "account:ada"),
    }
    await replied(desk, thread, "One more thing.")
    ended = a_grant("grant", of="kit", to="mother", sections=["messages"], status="inactive")
    await ehr.put(ended)
    before = len(await practice.every(OutboxMessage))
    await told(practice, portal)
    new = (await practice.every(OutboxMessage))[before:]
    assert {one.to for one in await practice.every(OutboxMessage)} == {
        f"record:{DERM}/Patient/kit",
        "account:ada",
    }
    assert len(await practice.every(OutboxMessage)) == before + 1, new


async def test_what_staff_begin_is_told_to_all_who_may_see_it(
    practice: EmbeddedStore, portal: Portal, desk: Caller, ehr: Caller
) -> None:
    await keep(practice, an_account("pa", f"{DERM}/Person/pa"))
    await ehr.store(
        a_related_person("father", of="kit"),
        a_person("pa", links=["RelatedPerson/father"]),
        a_grant("his", of="kit", to="father", sections=["results"]),
    )
    await sent(desk, patient="Patient/kit", topic=None)
    assert await told(practice, portal) == {
        ("message-new", f"record:{DERM}/Patient/kit"),
        ("message-new", "account:ada"),
    }


async def test_a_notice_says_nothing_of_what_was_written(
    practice: EmbeddedStore, portal: Portal, ada: Caller, desk: Caller
) -> None:
    await replied(desk, thread_of(await sent(ada, "A secret rash.")), "A secret cream.")
    await told(practice, portal)
    for one in [*await practice.every(OutboxMessage), *await practice.every(Job)]:
        assert "secret" not in repr(one)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("operation", ["reply", "mark-read", "close", "reopen", "thread"])
async def test_another_patients_and_another_practices_thread_is_as_if_it_were_not_there(
    ada: Caller,
    kit: Caller,
    desk: Caller,
    portal: Portal,
    other_ehr: Caller,
    operation: str,
) -> None:
    thread = thread_of(await sent(kit))
    await other_ehr.store(a_thread("theirs", of="ada-f"))
    given = {"text": "x", "identifier": "urn:y"} if operation == "reply" else {}
    there = Caller(portal, oneself("ada-f", FAMILY))
    for caller, target in (
        (ada, thread),
        (ada, "Communication/theirs"),
        (desk, "Communication/theirs"),
        (there, thread),
        (ada, "Communication/nothing"),
    ):
        answer = await done(caller, target, operation, **given)
        assert answer.status == 404, target
        assert answer.words == [f"{target} is not known"]
    assert len(await stored(kit, thread)) == 1


async def test_a_message_is_no_thread_and_nothing_else_is(ada: Caller, ehr: Caller) -> None:
    begun = await sent(ada)
    message = out(begun, "message")["reference"]
    assert (await replied(ada, message)).status == 422
    await ehr.store(a_communication("notice", of="ada", sender=None))
    assert (await replied(ada, "Communication/notice")).status == 422


async def test_nothing_of_a_thread_is_written_beside_the_operations(
    ada: Caller, desk: Caller, ehr: Caller
) -> None:
    """Neither the warning nor the look at files is gone around by a plain create or update."""
    thread = thread_of(await sent(ada))
    of_thread = {"coding": [{"system": CATEGORY, "code": "message"}]}
    for more in (
        {"partOf": [reference(thread)]},
        {"inResponseTo": [reference(thread)]},
        {"category": [of_thread]},
        {"payload": [{"contentAttachment": {"contentType": "text/html", "data": "PGI+"}}]},
    ):
        assert (await ada.post(a_communication(None, of="ada", **more))).status == 403
    header = (await ada.get(thread)).json
    for caller in (ada, desk):
        assert (await caller.put(header)).status == 403
        assert (await caller.delete(thread)).status == 403
    assert len((await ehr.get("Communication")).entries) == 2


async def test_a_withheld_thread_is_hidden_from_its_patient_and_its_answers_are_too(
    ada: Caller, desk: Caller, ehr: Caller
) -> None:
    await ehr.store(a_thread("kept", of="ada", meta=WITHHELD))
    assert (await read(ada, "Communication/kept")).status == 404
    assert (await replied(desk, "Communication/kept", "Between us.")).status == 200
    assert b"Between us" not in (await ada.get("Communication")).body


async def test_a_proxy_without_the_section_or_without_act_writes_nothing(
    portal: Portal, mother: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(mother))
    before = (await ehr.get("Communication?_summary=count")).json["total"]
    reads = Caller(portal, a_proxy(sections=MESSAGES))
    without = Caller(portal, a_proxy(sections=("results",), act=("results",)))
    over = Caller(portal, a_proxy(sections=MESSAGES, act=MESSAGES, until=START))
    for caller in (reads, without, over):
        assert (await sent(caller)).status == 403
        for operation in ("close", "reopen"):
            assert (await done(caller, thread, operation)).status == 403
        assert (await replied(caller, thread)).status == 403
    assert (await read(reads, thread)).status == 200
    assert (await done(reads, thread, "mark-read")).status == 200
    for caller in (without, over):
        assert (await read(caller, thread)).status == 403
    assert (await ehr.get("Communication?_summary=count")).json["total"] == before


async def test_a_narrower_scope_an_expired_token_and_another_record_are_refused(
    ada: Caller, desk: Caller
) -> None:
    thread = thread_of(await sent(ada))
    for scope in ("patient/Communication.rs", "patient/Communication.c", "patient/Patient.cruds"):
        assert (await sent(ada.with_scope(scope))).status == 403
        assert (await replied(ada.with_scope(scope), thread)).status == 403
    expired = ada.who(expires=START)
    assert (await sent(expired)).status == 403
    assert (await sent(ada, patient="Patient/kit")).status == 403
    assert (await sent(ada, patient="Patient/ada")).status == 200
    assert (await done(ada, thread, "assign")).status == 403
    bound = Caller(desk.portal, a_member_of_staff(patient="kit", permissions=MESSAGES))
    assert (await sent(bound, patient="Patient/ada", topic=None)).status == 403
    assert (await read(bound, thread)).status == 404
    assert (await read(Caller(desk.portal, a_member_of_staff()), thread)).status == 403


async def test_a_revoked_token_sends_nothing_however_late_it_is_revoked(
    practice: EmbeddedStore, portal: Portal, ada: Caller, ehr: Caller
) -> None:
    """The right is asked for again in the transaction: it was taken away while the body came."""
    token = an_access_token("t", replace(oneself("ada"), account="ada"))
    await keep(practice, token)
    auth = await portal.callers.of(bearer_of("t"))
    caller = Caller(portal, auth)
    assert (await sent(caller)).status == 200

    async def revoke(transaction: Any) -> None:
        await transaction.delete(type(token), token.key)

    await practice.transact(revoke)
    assert (await sent(caller)).status == 401
    assert (await ehr.get("Communication?part-of:missing=false&_summary=count")).json["total"] == 1
    assert ada is not None


@pytest.mark.parametrize(
    "given",
    [
        {"text": ""},
        {"text": "   \n"},
        {"text": "x" * 10_001},
        {"text": "bell \x07"},
        {"subject": ""},
        {"subject": "two\nlines"},
        {"subject": "x" * 151},
        {"identifier": ""},
        {"identifier": "x" * 300},
    ],
)
async def test_what_is_not_plain_or_not_complete_is_refused(
    ada: Caller, ehr: Caller, given: dict[str, Any]
) -> None:
    answer = await sent(ada, **given)
    assert answer.status in {400, 422}
    assert (await ehr.get("Communication")).entries == []


# ---------------------------------------------------------------- once, and in order


async def test_a_retry_sends_once_and_is_answered_the_same(ada: Caller, ehr: Caller) -> None:
    answers = [await sent(ada, identifier="urn:uuid:same") for _ in range(3)]
    assert len({one.body for one in answers}) == 1
    thread = thread_of(answers[0])
    again = [await replied(ada, thread, identifier="urn:uuid:other") for _ in range(3)]
    assert len({out(one, "message")["reference"] for one in again}) == 1
    assert len(await stored(ehr, thread)) == 2
    for other in (
        await sent(ada, "Something else.", identifier="urn:uuid:same"),
        await replied(ada, thread, identifier="urn:uuid:same"),
    ):
        assert other.status == 409


async def test_an_identifier_is_its_senders_own(ada: Caller, kit: Caller) -> None:
    first = await sent(ada, identifier="urn:uuid:same")
    second = await sent(kit, identifier="urn:uuid:same")
    assert thread_of(first) != thread_of(second)


async def test_parallel_sends_are_all_there_in_order_and_retries_among_them_once(
    ada: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(ada))
    names = [f"urn:uuid:p{number % 20}" for number in range(40)]
    answers = await asyncio.gather(
        *(replied(ada, thread, f"{name}", identifier=name) for name in names),
        *(replied(desk, thread, f"d{number}") for number in range(10)),
    )
    assert {one.status for one in answers} == {200}
    found = await stored(ehr, thread)
    assert len(found) == 1 + 20 + 10
    assert len({one["sent"] for one in found}) == len(found), "one after the other"


async def test_one_person_writes_so_many_an_hour(ada: Caller, desk: Caller, clock: Clock) -> None:
    thread = thread_of(await sent(ada))
    for _ in range(AN_HOUR - 1):
        assert (await replied(ada, thread)).status == 200
    assert (await replied(ada, thread)).status == 429
    assert (await replied(desk, thread)).status == 200
    clock.advance(3600)
    assert (await replied(ada, thread)).status == 200


# ---------------------------------------------------------------- read state, staff


@pytest.mark.requirement("portal", "S2-29")
async def test_read_state_goes_both_ways_if_the_practice_allows(
    practice: EmbeddedStore, ada: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(ada))
    await done(desk, thread, "mark-read")
    who = [one["part"][0]["valueReference"]["reference"] for one in parts(await read(ada, thread))]
    assert who == ["Patient/ada"]
    assert "received" not in (await stored(ehr, thread))[0]
    assert len(parts(await read(desk, thread))) == 2
    await keep(practice, Messaging(key=DERM, read_receipts=True))
    await done(desk, thread, "mark-read")
    who = [one["part"][0]["valueReference"]["reference"] for one in parts(await read(ada, thread))]
    assert sorted(who) == ["Patient/ada", "Practitioner/desk"]
    assert (await stored(ehr, thread))[0]["received"]


def parts(answer: Answer) -> list[dict[str, Any]]:
    return [one for one in answer.json["parameter"] if one["name"] == "read"]


async def test_each_participant_has_read_for_themselves_and_takes_nothing_back(
    mother: Caller, kit: Caller, desk: Caller, ehr: Caller
) -> None:
    begun = await sent(mother)
    thread = thread_of(begun)
    await replied(desk, thread)
    await replied(desk, thread, "And?")
    await done(mother, thread, "mark-read")
    assert out(await read(mother, thread), "unread") == 0
    assert out(await read(kit, thread), "unread") == 3
    assert all("received" not in one for one in await stored(ehr, thread)), "Kit has not read it"
    first = out(begun, "message")["reference"]
    assert out(await done(mother, thread, "mark-read", upto=first), "unread") == 0
    assert out(await done(kit, thread, "mark-read", upto=first), "unread") == 2
    elsewhere = out(await sent(kit), "message")["reference"]
    assert (await done(kit, thread, "mark-read", upto=elsewhere)).status == 422
    seen = [one["part"][0]["valueReference"]["reference"] for one in parts(await read(kit, thread))]
    assert seen == ["Patient/kit"], "what others of the patient's side read is theirs"


async def test_what_comes_late_is_unread_whenever_it_was_sent(
    practice: EmbeddedStore,
    portal: Portal,
    clock: Clock,
    mother: Caller,
    desk: Caller,
    ehr: Caller,
) -> None:
    """An EHR's message says that it was sent before what the patient's side has read already."""
    thread = thread_of(await sent(mother))
    clock.advance(3600)
    await replied(desk, thread)
    await told(practice, portal)
    for reader in (mother, desk):
        assert out(await done(reader, thread, "mark-read"), "unread") == 0
    (first,) = [
        one for one in await stored(ehr, thread) if one["sender"] != reference("Practitioner/desk")
    ]
    came = first | {"id": "late", "sender": reference("Practitioner/lark")}
    clock.advance(60)
    await ehr.store({name: came[name] for name in came if name not in {"meta", "received"}})
    await told(practice, portal)
    for reader in (mother, desk):
        assert out(await read(reader, thread), "unread") == 1
    (part,) = [one for one in (await mother.get("Communication/$threads")).json["parameter"]
               if one["name"] == "thread"]  # fmt: skip
    assert {"name": "unread", "valueInteger": 1} in part["part"]
    # What somebody writes is no word that they have read the rest; reading is.
    await replied(mother, thread, "Thank you.")
    assert out(await read(mother, thread), "unread") == 1
    assert out(await done(mother, thread, "mark-read"), "unread") == 0
    assert out(await read(mother, thread), "unread") == 0
    assert out(await read(desk, thread), "unread") == 2


async def test_what_was_read_before_the_other_side_was_told_stays_read(
    practice: EmbeddedStore, portal: Portal, clock: Clock, mother: Caller, desk: Caller
) -> None:
    """Whoever looks at once is quicker than the work that tells of a message."""
    thread = thread_of(await sent(mother))
    clock.advance(3600)
    await replied(desk, thread)
    assert out(await done(mother, thread, "mark-read"), "unread") == 0
    await told(practice, portal)
    assert out(await read(mother, thread), "unread") == 0


async def test_staff_give_a_thread_to_one_of_them_and_back(
    practice: EmbeddedStore, ada: Caller, desk: Caller
) -> None:
    thread = thread_of(await sent(ada))
    until = "2030-03-20T10:00:00Z"
    given = await done(desk, thread, "assign", to="Practitioner/lark", answer_by=until)
    assert out(given, "answer-by") == until
    header = (await ada.get(thread)).json
    assert header["recipient"] == [reference("Practitioner/lark")]
    for nobody in ("Practitioner/stranger", "Practitioner/none", "Patient/ada"):
        assert (await done(desk, thread, "assign", to=nobody)).status == 422
    await keep(practice, a_membership("lark", practitioner="lark", level="read"))
    refused = await done(desk, thread, "assign", to="Practitioner/lark")
    assert refused.status == 422, "who may not answer is given nothing to answer"
    await done(desk, thread, "assign", topic="billing")
    header = (await ada.get(thread)).json
    assert header["recipient"] == [reference("Organization/derm")]
    assert header["topic"]["coding"][0]["code"] == "billing"
    assert (await done(desk, thread, "assign", answer_by="2001-01-01T00:00:00Z")).status == 422
    await done(desk, thread, "close")
    assert (await done(desk, thread, "assign")).status == 409


async def test_who_on_staff_read_a_conversation_is_in_the_patients_log(
    ada: Caller, desk: Caller
) -> None:
    thread = thread_of(await sent(ada))
    await read(desk, thread)
    log = (await ada.get("AuditEvent")).entries
    agents = [
        one["who"].get("reference")
        for event in log
        for one in event["agent"]
        if thread in json.dumps(event.get("entity", []))
    ]
    assert "Practitioner/desk" in agents


async def test_what_an_ehr_writes_into_a_thread_is_told_once(
    practice: EmbeddedStore, portal: Portal, ada: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(ada))
    answer = a_communication(
        "from-ehr",
        of="ada",
        sender="Practitioner/lark",
        partOf=[reference(thread)],
        category=[{"coding": [{"system": CATEGORY, "code": "message"}]}],
        sent="2030-03-18T10:00:00Z",
    )
    for _ in range(2):
        await ehr.put(answer)
    assert ("message-new", f"record:{DERM}/Patient/ada") in await told(practice, portal)
    assert len(await practice.every(OutboxMessage)) == 1
    assert words(await read(ada, thread))[-1] == "hello"


async def test_what_an_ehr_answers_waits_no_more(
    practice: EmbeddedStore, portal: Portal, clock: Clock, ada: Caller, ehr: Caller
) -> None:
    """Else it stands in the inbox as overdue, though it was answered."""
    first, second = thread_of(await sent(ada)), thread_of(await sent(ada))
    clock.advance(60)
    late = a_communication(
        "from-ehr",
        of="ada",
        sender="Practitioner/lark",
        partOf=[reference(first)],
        category=[{"coding": [{"system": CATEGORY, "code": "message"}]}],
        sent="2030-03-17T17:47:40Z",
    )
    await ehr.put(late)
    asked_again = late | {"id": "too-early", "partOf": [reference(second)]}
    await ehr.put(asked_again | {"sent": "2030-03-17T17:46:00Z"})
    await told(practice, portal)
    header = (await ehr.get(first)).json
    assert header["status"] == "on-hold"
    assert {
        one["url"].rpartition("/")[2]: one.get("valueInstant") for one in header["extension"]
    } == {"last-message": "2030-03-17T17:47:40.000Z"}
    # What was written before the patient asked answers nothing.
    assert (await ehr.get(second)).json["status"] == "in-progress"
    before = (await ehr.get(first)).json["meta"]["versionId"]
    await ehr.put(late | {"note": [{"text": "seen"}]})
    await told(practice, portal)
    assert (await ehr.get(first)).json["meta"]["versionId"] == before


async def test_of_what_was_said_long_ago_nobody_is_told(
    practice: EmbeddedStore, portal: Portal, ada: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(ada))
    await told(practice, portal)
    before = len(await practice.every(OutboxMessage))
    old = a_communication(
        "old",
        of="ada",
        sender="Practitioner/lark",
        partOf=[reference(thread)],
        category=[{"coding": [{"system": CATEGORY, "code": "message"}]}],
        sent="2029-03-18T10:00:00Z",
    )
    await ehr.put(old)
    await told(practice, portal)
    assert len(await practice.every(OutboxMessage)) == before


async def test_what_an_ehr_made_of_a_thread_is_answered_by_name(
    ada: Caller, desk: Caller, ehr: Caller
) -> None:
    await ehr.store(
        a_thread("taken-back", of="ada", status="entered-in-error"),
        a_thread("of-nobody", subject=None),
    )
    for caller in (ada, desk):
        assert (await replied(caller, "Communication/taken-back")).status == 409
    assert (await replied(desk, "Communication/of-nobody")).status == 422
    assert (await read(desk, "Communication/of-nobody")).status == 422
    assert (await desk.get("Communication/$threads?status=all")).status == 200


async def test_threads_and_messages_are_searched_like_other_resources(
    ada: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(ada))
    await replied(desk, thread)
    own = await ada.get(f"Communication?subject=Patient/ada&part-of={thread}&_sort=-sent")
    assert [one["payload"][0]["contentString"] for one in own.entries] == ["Still.", "It itches."]
    heads = await ada.get(f"Communication?category={CATEGORY}|thread&status=on-hold")
    assert heads.ids == [thread]
    assert ehr is not None


# ---------------------------------------------------------------- a practice's settings


def test_a_practices_settings_are_read_or_refused_by_name() -> None:
    found = read_messaging(DERM, {"topics": [{"code": "skin", "name": "Skin"}], "warning": "Call."})
    assert found.topics == (MessageTopic("skin", "Skin"),)
    assert found.warning_code != WARNING
    several: list[dict[str, Any]] = [
        {"topic": []},
        {"topics": []},
        {"topics": [{"code": "a b", "name": "x"}]},
        {"topics": [{"code": "a", "name": "x"}, {"code": "a", "name": "y"}]},
        {"topics": [{"code": "a", "name": "x", "recipient": "Patient/ada"}]},
        {"topics": [{"code": "a", "name": "x", "answer_hours": 0}]},
        {"topics": [{"code": "a", "name": "x", "hours": 3}]},
        {"warning": ""},
        {"warning": "x" * 1001},
        {"away": {"Patient/ada": "gone"}},
        {"read_receipts": "yes"},
    ]
    for wrong in several:
        with pytest.raises(InvalidMessaging):
            read_messaging(DERM, wrong)


# ---------------------------------------------------------------- what an EHR writes into threads


def of_an_ehr(own_id: str, thread: str, text: str, **more: Any) -> Json:
    return resource(
        "Communication",
        own_id,
        **{
            "status": "completed",
            "partOf": [reference(thread)],
            "category": [concept(CATEGORY, "message")],
            "subject": reference("Patient/kit"),
            "sender": reference("Practitioner/lark"),
            "sent": "2030-03-17T17:46:40.500Z",
            "payload": [{"contentString": text}],
        }
        | more,
    )


async def test_an_ehrs_answer_in_a_confidential_thread_is_confidential(
    kit: Caller, mother: Caller, ehr: Caller, accounts: EmbeddedStore, portal: Portal
) -> None:
    """It copies no label; who acts for the patient neither reads it nor is told of it."""
    grant = a_grant("g", of="kit", to="mother", sections=MESSAGES)
    await ehr.store(grant)
    thread = thread_of(await sent(kit, "About the pill.", confidential=True))
    before = await told(accounts, portal)
    assert (await ehr.post(of_an_ehr("", thread, "Negative.") | {"id": "x"})).status == 201
    assert words(await read(kit, thread)) == ["About the pill.", "Negative."]
    assert b"Negative" not in (await mother.get("Communication?_count=50")).body
    new = await told(accounts, portal) - before
    assert not any(to.startswith("account") for to, _ in new), new


async def test_a_thread_that_is_labelled_later_hides_its_messages(
    kit: Caller, mother: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(kit, "About the pill."))
    assert len((await mother.get("Communication")).entries) == 2
    tree = (await ehr.get(thread)).json
    assert (await ehr.put(tree | {"meta": tree["meta"] | RESTRICTED})).status == 200
    assert (await mother.get("Communication")).entries == []
    assert len((await kit.get("Communication")).entries) == 2


async def test_an_answer_leads_to_no_message_that_its_readers_may_not_see(
    kit: Caller, mother: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(kit, "Hello"))
    await ehr.store(of_an_ehr("hidden", thread, "psst", meta=RESTRICTED))
    assert (await replied(kit, thread, "Thanks")).status == 200
    assert (await mother.get(thread)).status == 200
    assert b"Communication/hidden" not in (await mother.get("Communication?_count=50")).body
    named = "Communication/hidden"
    for caller in (kit, desk):
        assert (await replied(caller, thread, "x", in_response_to=named)).status == 422


async def test_a_message_that_was_taken_back_says_nothing_any_more(
    kit: Caller, desk: Caller, ehr: Caller
) -> None:
    thread = thread_of(await sent(kit, "Hello"))
    message = out(await replied(desk, thread, "For another patient."), "message")["reference"]
    tree = (await ehr.get(message)).json
    assert (await ehr.put(tree | {"status": "entered-in-error"})).status == 200
    for caller in (kit, desk):
        shown = await read(caller, thread)
        assert b"another patient" not in shown.body
        assert b"entered-in-error" in shown.body, "that there was one is told"
        assert (await caller.get(f"{message}/$attachment?number=1")).status == 404
        assert thread not in str((await caller.get("Communication/$threads?text=another")).body)


# ---------------------------------------------------------------- plain creates

_BAD = base64.b64encode(b"MZ\x90").decode()
_DATA = {"contentType": "application/x-msdownload", "data": _BAD}
_EXTENSION = [{"url": "http://e", "valueAttachment": _DATA}]


@pytest.mark.parametrize(
    "more",
    [
        {"payload": [{"contentString": "x", "extension": _EXTENSION}]},
        {"extension": _EXTENSION},
        {
            "contained": [{"resourceType": "Binary", "id": "b", "contentType": "text/html"}],
            "payload": [{"contentReference": {"reference": "#b"}}],
        },
        {
            "contained": [
                {
                    "resourceType": "DocumentReference",
                    "id": "b",
                    "status": "current",
                    "content": [{"attachment": _DATA}],
                }
            ],
            "payload": [{"contentReference": {"reference": "#b"}}],
        },
        *(
            {"payload": [{"contentAttachment": {"contentType": "text/html", "url": url}}]}
            for url in ("javascript:alert`1`", "data:text/html;base64,PGI+", "https://e.example/in")
        ),
    ],
)
async def test_no_file_and_no_way_elsewhere_comes_by_a_plain_create(
    ada: Caller, ehr: Caller, more: dict[str, Any]
) -> None:
    answer = await ada.post(a_communication(None, of="ada", **more))
    assert answer.status in {400, 422}, answer.status
    assert (await ehr.get("Communication")).entries == []


async def test_answers_of_a_form_bring_a_file_that_was_looked_at_or_was_there(
    ada: Caller, ehr: Caller
) -> None:
    def answers(*files: Json, **more: Any) -> Json:
        items = [
            {"linkId": f"{number}", "answer": [{"valueAttachment": one}]}
            for number, one in enumerate(files)
        ]
        return resource(
            "QuestionnaireResponse",
            "form",
            **{
                "status": "in-progress",
                "subject": reference("Patient/ada"),
                "source": reference("Patient/ada"),
                "item": items,
            }
            | more,
        )

    note = {"contentType": "text/plain", "data": base64.b64encode(b"It itches.").decode()}
    looked_at: list[bytes] = []

    async def scan(content: bytes) -> None:
        looked_at.append(content)
        if b"harm" in content:
            raise Infected

    files = replace(ada.portal.server, files=TakenFiles(scan))
    own = Caller(replace(ada.portal, server=files), ada.auth)
    harm = note | {"data": base64.b64encode(b"This does harm.").decode()}
    lie = note | {"contentType": "image/png"}
    page = {"contentType": "text/html", "data": base64.b64encode(b"<b>x</b>").decode()}
    link = {"contentType": "text/html", "url": "https://e.example/in"}
    small = note | {"extension": _EXTENSION}
    for refused in (_DATA, harm, lie, page, link, small):
        told = await own.post(answers(refused))
        assert (told.status, refused["contentType"]) == (422, refused["contentType"])
        bundle = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {
                    "resource": answers(refused),
                    "request": {"method": "POST", "url": "QuestionnaireResponse"},
                }
            ],
        }
        assert (await own.bundle(bundle)).status == 422
    assert (await own.post(answers(note))).status == 201
    assert base64.b64decode(note["data"]) in looked_at
    await ehr.store(answers(_DATA))
    kept = (await ada.get("QuestionnaireResponse/form")).json
    assert (await ada.put(kept)).status == 200
    assert (await ada.put(kept | {"item": answers(_DATA, page)["item"]})).status == 422


async def test_plain_creates_count_as_messages_of_the_hour(
    ada: Caller, ehr: Caller, clock: Clock
) -> None:
    for _ in range(AN_HOUR - 1):
        assert (await ada.post(a_communication(None, of="ada"))).status == 201
    assert (await sent(ada)).status == 200
    assert (await ada.post(a_communication(None, of="ada"))).status == 429
    assert (await sent(ada)).status == 429
    assert (await ehr.post(a_communication(None, of="ada"))).status == 201
    clock.advance(3600)
    assert (await ada.post(a_communication(None, of="ada"))).status == 201


async def test_a_message_that_is_hidden_leaves_its_thread_as_it_is(
    practice: EmbeddedStore, portal: Portal, clock: Clock, kit: Caller, ehr: Caller
) -> None:
    """An answer that nobody sees, and when it was given, is not told by the header."""
    thread = thread_of(await sent(kit))
    before = (await kit.get(thread)).body
    for own_id, meta in (("withheld", WITHHELD), ("restricted", RESTRICTED)):
        clock.advance(60)
        await ehr.store(of_an_ehr(own_id, thread, "psst", meta=meta))
        await told(practice, portal)
        assert (await kit.get(thread)).body == before


@pytest.mark.parametrize("went_on", ["", "and on"])
async def test_a_message_that_is_shown_at_last_is_not_read_and_nobody_gets_mail(
    accounts: EmbeddedStore, portal: Portal, clock: Clock, kit: Caller, desk: Caller, ehr: Caller,
    went_on: str,
) -> None:  # fmt: skip
    """Also where what was sent after it was read."""
    thread = thread_of(await sent(kit))
    clock.advance(60)
    late = {"sent": instant(int(clock() * 1e6))}
    await ehr.store(of_an_ehr("psst", thread, "psst", meta=WITHHELD, **late))
    clock.advance(60)
    await told(accounts, portal)
    if went_on:
        await replied(desk, thread, "Since when?")
    await done(kit, thread, "mark-read")
    assert out(await read(kit, thread), "unread") == 0
    before = await told(accounts, portal)
    shown = {"tag": [{"system": "https://tags.example", "code": "open"}]}
    await ehr.store(of_an_ehr("psst", thread, "psst", meta=shown, **late))
    assert await told(accounts, portal) == before
    assert out(await read(kit, thread), "unread") == 1
    assert (await kit.get(thread)).json["status"] == "on-hold"
    await done(kit, thread, "mark-read")
    assert out(await read(kit, thread), "unread") == 0


async def test_what_was_read_before_its_job_was_done_stays_read(
    accounts: EmbeddedStore, portal: Portal, clock: Clock, kit: Caller, desk: Caller
) -> None:
    thread = thread_of(await sent(kit))
    await told(accounts, portal)
    clock.advance(60)
    await replied(desk, thread, "Since when?")
    clock.advance(2)
    await done(kit, thread, "mark-read")
    clock.advance(8)
    await told(accounts, portal)
    assert out(await read(kit, thread), "unread") == 0
