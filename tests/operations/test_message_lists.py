"""The inbox, the patient's conversations, drafts, and what is filed to the chart."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.messaging import MessageTopic, Messaging
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.operations.message_drafts import MOST_DRAFTS, MessageDraft
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    FAMILY,
    RESTRICTED,
    Answer,
    Caller,
    Clock,
    a_binary,
    a_document,
    a_proxy,
    concept,
    keep,
    oneself,
    reference,
    resource,
)
from tests.documents.pictures import a_picture
from tests.operations.messages import (
    CATEGORY,
    a_file,
    a_thread,
    ada,
    body,
    desk,
    done,
    kit,
    mother,
    out,
    practice,
    replied,
    sent,
    thread_of,
)
from tests.staff import a_member_of_staff

__all__ = ["ada", "desk", "kit", "mother", "practice"]


async def listed(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    answer = await caller.get(f"Communication/$threads{query}")
    assert answer.status == 200, answer.body
    found = [one["part"] for one in answer.json["parameter"] if one["name"] == "thread"]
    return [
        {part["name"]: next(v for n, v in part.items() if n != "name") for part in parts}
        for parts in found
    ]


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["what"]["reference"] for one in found]


@pytest.mark.requirement("portal", "S0-49")
async def test_staff_see_what_waits_longest_first_and_find_it_by_topic_and_words(
    practice: EmbeddedStore, ada: Caller, kit: Caller, desk: Caller, clock: Clock
) -> None:
    """Search in messages, close and reopen, and what staff have to answer, by due time."""
    soon = MessageTopic("urgent", "Soon", answer_hours=1)
    later = MessageTopic("other", "Later", answer_hours=100)
    await keep(practice, Messaging(key=DERM, topics=(soon, later)))
    slow = thread_of(await sent(ada, "About the bill.", topic="other"))
    clock.advance(60)
    quick = thread_of(await sent(kit, "It itches a lot.", topic="urgent", confidential=True))
    answered = thread_of(await sent(ada, "Thanks.", topic="other"))
    await replied(desk, answered, "You are welcome.")
    assert names(await listed(desk)) == [quick, slow]
    assert names(await listed(desk, "?status=all"))[:2] == [quick, slow]
    assert names(await listed(desk, "?status=on-hold")) == [answered]
    assert names(await listed(desk, "?topic=urgent")) == [quick]
    assert names(await listed(desk, "?text=ITCHES%20A")) == [quick]
    assert names(await listed(desk, "?text=welcome&status=all")) == [answered]
    assert names(await listed(desk, "?patient=Patient/ada")) == [slow, answered]
    first = (await listed(desk))[0]
    assert first["patient"]["reference"] == "Patient/kit"
    assert first["patient"]["display"]
    assert first["confidential"] is True
    assert first["overdue"] is False
    clock.advance(86_400)
    assert (await listed(desk))[0]["overdue"] is True

    assert names(await listed(desk, "?assigned=me")) == []
    await done(desk, slow, "assign", to="Practitioner/desk")
    assert names(await listed(desk, "?assigned=me")) == [slow]
    assert names(await listed(desk, "?assigned=nobody")) == [quick]
    await done(desk, slow, "close")
    assert names(await listed(desk)) == [quick]
    assert names(await listed(desk, "?status=completed")) == [slow]
    await done(ada, slow, "reopen")
    assert set(names(await listed(desk))) == {quick, slow}
    assert names(await listed(desk, "?count=1&from=1")) == names(await listed(desk))[1:]


async def test_the_patients_side_sees_its_own_the_latest_first_and_what_is_unread(
    ada: Caller, kit: Caller, mother: Caller, desk: Caller, clock: Clock
) -> None:
    first = thread_of(await sent(kit))
    clock.advance(60)
    second = thread_of(await sent(mother, "From the mother."))
    clock.advance(60)
    secret = thread_of(await sent(kit, "Only me.", confidential=True))
    clock.advance(60)
    await replied(desk, first, "Since when?")
    assert names(await listed(kit)) == [first, secret, second]
    assert names(await listed(mother)) == [first, second]
    assert [one["unread"] for one in await listed(kit)] == [1, 0, 1]
    assert [one["unread"] for one in await listed(mother)] == [2, 0]
    assert names(await listed(mother, "?text=only")) == []
    assert names(await listed(kit, "?text=only")) == [secret]
    assert names(await listed(ada)) == []
    assert all("patient" not in one for one in await listed(kit))
    for refused in ("?assigned=me", "?patient=Patient/ada"):
        assert (await kit.get(f"Communication/$threads{refused}")).status == 403
    for wrong in ("?status=x", "?count=0", "?count=101", "?from=-1", "?text=%20"):
        assert (await kit.get(f"Communication/$threads{wrong}")).status == 422


async def test_the_dashboard_says_how_many_are_unread_as_the_list_does(
    kit: Caller, mother: Caller, desk: Caller
) -> None:
    for confidential in (None, True):
        thread = thread_of(await sent(kit, confidential=confidential))
        await replied(desk, thread)
        await replied(desk, thread)
    for caller, unread in ((kit, 4), (mother, 3)):
        found = await caller.get("Patient/kit/$portal-dashboard")
        (part,) = [one["part"] for one in found.json["parameter"] if one["name"] == "messages"]
        assert part[0]["valueInteger"] == unread
        assert out(await caller.get("Communication/$threads"), "unread") == unread
    await done(kit, thread, "mark-read")
    found = await kit.get("Patient/kit/$portal-dashboard")
    (part,) = [one["part"] for one in found.json["parameter"] if one["name"] == "messages"]
    assert part[0]["valueInteger"] == 2
    narrow = await kit.with_scope("patient/Patient.rs").get("Patient/kit/$portal-dashboard")
    assert b"messages" not in narrow.body


async def test_another_practices_conversations_are_in_no_list(
    desk: Caller, portal: Portal, other_ehr: Caller
) -> None:
    await other_ehr.store(a_thread("theirs", of="ada-f"))
    assert await listed(desk, "?status=all") == []
    there = a_member_of_staff("far", FAMILY, permissions=("messages",))
    assert names(await listed(Caller(portal, there), "?status=all")) == ["Communication/theirs"]


async def test_whether_somebody_is_there_to_answer_is_known_before_writing(
    ada: Caller, desk: Caller, portal: Portal, clock: Clock
) -> None:
    async def present(caller: Caller = ada) -> Any:
        return out(await caller.get("Communication/$message-options"), "staff-present")

    assert await present() is False
    await listed(ada)
    assert await present() is False
    await listed(desk)
    assert await present() is True
    assert await present(Caller(portal, oneself("ada-f", FAMILY))) is False
    clock.advance(200)
    await listed(desk)
    clock.advance(200)
    assert await present() is True
    clock.advance(200)
    assert await present() is False


# ---------------------------------------------------------------- drafts


async def saved(caller: Caller, **given: Any) -> Answer:
    return await caller.ask("POST", "Communication/$save-draft", body(**given))


async def begun(caller: Caller) -> list[dict[str, Any]]:
    answer = await caller.get("Communication/$drafts")
    return [one["resource"] for one in answer.json.get("parameter", ())]


@pytest.mark.requirement("portal", "S0-36")
async def test_a_draft_is_kept_from_the_topics_of_the_practice_until_it_is_sent(
    ada: Caller, practice: EmbeddedStore
) -> None:
    options = await ada.get("Communication/$message-options")
    listed = [one["part"] for one in options.json["parameter"] if one["name"] == "topic"]
    topics = [parts[0]["valueCode"] for parts in listed]
    assert "medical" in topics
    draft = out(await saved(ada, topic="medical", subject="A rash", text="It it"), "draft")
    again = out(await saved(ada, draft=draft, topic="medical", text="It itches."), "draft")
    assert again == draft
    (one,) = await begun(ada)
    assert one["status"] == "preparation"
    assert one["id"] == draft
    assert one["payload"] == [{"contentString": "It itches."}]
    await sent(ada, draft=draft)
    assert await begun(ada) == []
    assert await practice.every(MessageDraft) == []


async def test_nobody_else_sees_or_touches_a_draft(
    ada: Caller, kit: Caller, mother: Caller, desk: Caller, portal: Portal, ehr: Caller
) -> None:
    draft = out(await saved(kit, text="Between me and me."), "draft")
    father = Caller(portal, a_proxy("kit", "father", sections=["messages"], act=["messages"]))
    staff = Caller(portal, a_member_of_staff(permissions=("view", "messages")))
    for other in (ada, mother, father, desk, staff):
        assert await begun(other) == []
        patient = "Patient/kit" if other.auth.staff else None
        assert (await saved(other, draft=draft, patient=patient, text="x")).status == 404
        gone = await other.ask("POST", "Communication/$discard-draft", body(draft=draft))
        assert out(gone, "discarded") is False
        if other.auth.staff is None:
            await sent(other, draft=draft)
    for seeing in (ehr, staff):
        assert b"Between me" not in (await seeing.get("Communication?_count=100")).body
    assert (await ehr.get(f"Communication/{draft}")).status == 404
    assert len(await begun(kit)) == 1
    gone = await kit.ask("POST", "Communication/$discard-draft", body(draft=draft))
    assert out(gone, "discarded") is True
    assert await begun(kit) == []


async def test_a_draft_answers_in_a_thread_that_is_there_and_so_many_are_kept(
    ada: Caller, kit: Caller
) -> None:
    theirs = thread_of(await sent(kit))
    assert (await saved(ada, thread=theirs, text="x")).status == 404
    own = thread_of(await sent(ada))
    draft = out(await saved(ada, thread=own, text="x"), "draft")
    await replied(ada, own, draft=draft)
    assert await begun(ada) == []
    for _ in range(MOST_DRAFTS):
        assert (await saved(ada, text="x")).status == 200
    assert (await saved(ada, text="x")).status == 429
    reading = Caller(kit.portal, a_proxy(sections=["messages"]))
    assert (await saved(reading, text="x")).status == 403


# ---------------------------------------------------------------- to the chart


async def test_a_photo_is_filed_to_the_chart_once_with_the_labels_of_the_message(
    kit: Caller, mother: Caller, desk: Caller, portal: Portal, ehr: Caller
) -> None:
    filing = Caller(portal, a_member_of_staff(permissions=("documents",)))
    files = [a_file(a_picture(), "image/jpeg", "rash.jpg")]
    message = out(await sent(kit, files=files), "message")["reference"]
    answers = [await done(filing, message, "file-attachment", number=1) for _ in range(2)]
    (document,) = {out(one, "document")["reference"] for one in answers}
    tree = (await ehr.get(document)).json
    assert tree["subject"] == reference("Patient/kit")
    assert tree["author"] == [reference("Patient/kit")]
    assert tree["authenticator"] == reference("Practitioner/desk")
    assert tree["context"]["related"] == [reference(message)]
    attachment = tree["content"][0]["attachment"]
    assert attachment["title"] == "rash.jpg"
    assert (await ehr.get(attachment["url"])).status == 200
    shown = (await kit.get(message)).json["payload"][1]["contentAttachment"]
    assert shown["url"] != attachment["url"]
    assert (await mother.get(shown["url"])).status == 200, "the message is as visible as before"
    assert (await mother.get(document)).status == 404, "she does not see documents"

    kept = out(await sent(kit, files=files, confidential=True), "message")["reference"]
    hidden = out(await done(filing, kept, "file-attachment", number=1), "document")["reference"]
    assert (await ehr.get(hidden)).json["meta"]["security"] == RESTRICTED["security"]
    documents = Caller(portal, a_proxy(sections=["documents"]))
    assert (await documents.get(document)).status == 200
    assert (await documents.get(hidden)).status == 404

    for caller, status in ((desk, 403), (kit, 403), (filing, 422)):
        assert (await done(caller, message, "file-attachment", number=2)).status == status
    thread = (await kit.get(message)).json["partOf"][0]["reference"]
    assert (await done(filing, thread, "file-attachment", number=1)).status == 422
    assert (await Caller(portal, oneself("ada")).get(document)).status == 404


@pytest.mark.parametrize("other", ["labelled", "of another record"])
async def test_filing_takes_only_what_the_message_itself_shows(
    kit: Caller, portal: Portal, ehr: Caller, other: str
) -> None:
    """An EHR's message that names content which others hide tells nothing of it."""
    filing = Caller(portal, a_member_of_staff(permissions=("documents",)))
    thread = thread_of(await sent(kit))
    attachment = {"contentType": "application/pdf", "url": "Binary/pdf", "title": "lab.pdf"}
    hidden = a_document("hidden", of="kit" if other == "labelled" else "ada")
    hidden["content"] = [{"attachment": attachment}]
    if other == "labelled":
        hidden["meta"] = RESTRICTED
    message = resource(
        "Communication",
        "told",
        status="completed",
        partOf=[reference(thread)],
        category=[concept(CATEGORY, "message")],
        subject=reference("Patient/kit"),
        sender=reference("Practitioner/lark"),
        payload=[{"contentAttachment": attachment}],
    )
    await ehr.store(a_binary("pdf"), hidden, message)
    filed = await done(filing, "Communication/told", "file-attachment", number=1)
    assert filed.status == 404
    assert (await ehr.get("DocumentReference")).ids == ["DocumentReference/hidden"]


async def test_what_is_filed_keeps_the_labels_of_the_thread(
    kit: Caller, portal: Portal, ehr: Caller
) -> None:
    """An EHR's answer says none itself."""
    filing = Caller(portal, a_member_of_staff(permissions=("documents",)))
    thread = thread_of(await sent(kit, confidential=True))
    attachment = {"contentType": "application/pdf", "url": "Binary/pdf", "title": "lab.pdf"}
    message = resource(
        "Communication",
        "told",
        status="completed",
        partOf=[reference(thread)],
        category=[concept(CATEGORY, "message")],
        subject=reference("Patient/kit"),
        sender=reference("Practitioner/lark"),
        payload=[{"contentAttachment": attachment}],
    )
    await ehr.store(a_binary("pdf"), message)
    filed = await done(filing, "Communication/told", "file-attachment", number=1)
    documents = Caller(portal, a_proxy(sections=["documents"]))
    document = out(filed, "document")["reference"]
    assert (await ehr.get(document)).json["meta"]["security"] == RESTRICTED["security"]
    assert (await documents.get(document)).status == 404


@pytest.mark.parametrize(
    "when",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.999999Z"],
)
async def test_times_at_the_ends_of_the_calendar_break_no_list(
    ada: Caller, desk: Caller, ehr: Caller, when: str
) -> None:
    due = {
        "url": "https://fhir-portal.example/ig/StructureDefinition/answer-by",
        "valueDateTime": when,
    }
    await ehr.store(a_thread("odd", sent=when, extension=[due]))
    of_it = concept(CATEGORY, "message")
    odd = a_thread("m", sent=when, partOf=[reference("Communication/odd")], category=[of_it])
    await ehr.store(odd | {"status": "completed"})
    for caller in (ada, desk):
        assert names(await listed(caller)) == ["Communication/odd"]
        assert (await done(caller, "Communication/odd", "mark-read")).status == 200
        assert (await caller.get("Communication/odd/$thread")).status == 200
        assert (await replied(caller, "Communication/odd")).status == 200


@pytest.mark.parametrize("name", ["topic", "recipient", "thread"])
async def test_a_draft_is_bounded_in_all_it_says(ada: Caller, name: str) -> None:
    long = "x" * 1000
    given = long if name == "topic" else f"Practitioner/{long}"
    assert (await saved(ada, text="a", **{name: given})).status in {400, 422}
    assert await begun(ada) == []


async def test_a_staff_token_of_one_record_reaches_drafts_of_that_one_alone(
    desk: Caller, portal: Portal
) -> None:
    draft = out(await saved(desk, text="About Kit.", patient="Patient/kit"), "draft")
    bound = Caller(portal, a_member_of_staff(patient="ada", permissions=("messages",)))
    assert await begun(bound) == []
    assert (await saved(bound, text="x", draft=draft)).status == 404
    await bound.ask("POST", "Communication/$discard-draft", body(draft=draft))
    assert [one["id"] for one in await begun(desk)] == [draft]


async def test_a_message_of_an_ehr_without_content_or_sender_has_nothing_to_file(
    kit: Caller, portal: Portal, ehr: Caller
) -> None:
    filing = Caller(portal, a_member_of_staff(permissions=("documents",)))
    of_it = [concept(CATEGORY, "message")]
    thread = [reference(thread_of(await sent(kit)))]
    bare = a_thread("bare", of="kit", status="completed", partOf=thread, category=of_it)
    del bare["payload"], bare["sender"]
    attachment = {"contentType": "text/plain", "url": "Binary/empty"}
    empty = {**bare, "id": "empty", "payload": [{"contentAttachment": attachment}]}
    await ehr.store({"resourceType": "Binary", "id": "empty", "contentType": "text/plain"})
    await ehr.store(bare, empty)
    for own_id in ("bare", "empty"):
        filed = await done(filing, f"Communication/{own_id}", "file-attachment", number=1)
        assert filed.status == 422
