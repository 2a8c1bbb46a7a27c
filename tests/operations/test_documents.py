"""What patients bring: sent once, as what it is, seen by who may; and what staff decide of it."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.consent.labels import ORIGIN, PORTAL_TAG, SUPPLIED
from fhir_portal.documents.malware_scan import Infected, ScanUnavailable
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.upload import A_DAY
from fhir_portal.portal import Portal
from fhir_portal.smart.scope import ScopeSet
from tests.builders import (
    START,
    Caller,
    Clock,
    Json,
    a_binary,
    a_document,
    a_grant,
    a_proxy,
    an_ehr,
    oneself,
)
from tests.documents.pictures import SECRET, a_pdf, a_picture
from tests.operations.documents import PHOTO, bytes_of, decided, uploaded
from tests.operations.messages import a_file, out
from tests.operations.test_label_rules import set_to
from tests.staff import a_member_of_staff

DOCUMENTS = ("documents",)
EMPTY: Json = {"resourceType": "Parameters"}


@pytest.fixture
def ada(practice: EmbeddedStore, portal: Portal) -> Caller:
    assert practice is not None
    return Caller(portal, oneself("ada"))


@pytest.fixture
def kit(practice: EmbeddedStore, portal: Portal) -> Caller:
    assert practice is not None
    return Caller(portal, oneself("kit"))


@pytest.fixture
def mother(practice: EmbeddedStore, portal: Portal) -> Caller:
    """She sees Kit's documents, and sends some."""
    assert practice is not None
    return Caller(portal, replace(a_proxy(sections=DOCUMENTS, act=DOCUMENTS), account="ada"))


@pytest.fixture
def clerk(practice: EmbeddedStore, portal: Portal) -> Caller:
    """Staff who take in documents."""
    assert practice is not None
    return Caller(portal, a_member_of_staff("clerk", permissions=("view", "documents")))


async def sent(caller: Caller, *args: Any, **given: Any) -> str:
    answer = await uploaded(caller, *args, **given)
    assert answer.status == 200, answer.body
    found = out(answer, "document")["reference"]
    assert isinstance(found, str)
    return found


async def tasks(caller: Caller) -> list[Json]:
    found = await caller.get("Task?code=review-document")
    return list(found.entries)


async def nothing_stored(ehr: Caller) -> bool:
    kinds = ("DocumentReference", "Binary", "Task", "Provenance")
    return not any([(await ehr.get(kind)).entries for kind in kinds])


@pytest.mark.requirement("portal", "S0-46")
async def test_a_document_is_kept_as_what_it_is_with_its_task_and_its_author(
    ada: Caller, ehr: Caller
) -> None:
    name = await sent(ada, type="letter", date="2029-11-02")
    document = (await ada.get(name)).json
    assert document["status"] == "current"
    assert document["docStatus"] == "preliminary"
    assert document["description"] == "A rash"
    assert document["author"] == [{"reference": "Patient/ada"}]
    assert document["type"]["coding"][0]["code"] == "letter"
    assert document["content"][0]["attachment"]["creation"] == "2029-11-02"
    origin = {"system": ORIGIN, "code": SUPPLIED}
    assert document["meta"]["tag"] == [origin]
    assert document["category"][0]["coding"] == [origin]
    content = await bytes_of(ada, document)
    assert content.startswith(b"\xff\xd8\xff")
    assert SECRET not in content
    binary = (await ada.get(document["content"][0]["attachment"]["url"])).json
    assert binary["securityContext"] == {"reference": name}
    (task,) = await tasks(ehr)
    assert task["focus"] == {"reference": name}
    assert task["for"] == {"reference": "Patient/ada"}
    assert task["meta"]["tag"] == [{"system": PORTAL_TAG, "code": "staff-documents"}]
    (said,) = (await ada.get(f"Provenance?target={name}")).entries
    assert said["agent"][0]["who"] == {"reference": "Patient/ada"}


@pytest.mark.requirement("portal", "S0-46")
async def test_who_acts_for_a_patient_sends_in_their_own_name(mother: Caller, kit: Caller) -> None:
    name = await sent(mother)
    document = (await kit.get(name)).json
    assert document["subject"] == {"reference": "Patient/kit"}
    assert document["author"] == [{"reference": "RelatedPerson/mother"}]
    (said,) = (await kit.get(f"Provenance?target={name}")).entries
    assert said["agent"][0]["who"] == {"reference": "RelatedPerson/mother"}
    assert said["agent"][0]["onBehalfOf"] == {"reference": "Patient/kit"}


async def test_a_document_sent_twice_is_there_once(ada: Caller, ehr: Caller) -> None:
    first = await sent(ada, identifier="urn:one")
    assert await sent(ada, identifier="urn:one") == first
    other = await uploaded(ada, identifier="urn:one", title="Another one")
    assert other.status == 409
    elsewhere = await uploaded(ada, a_pdf(), "application/pdf", identifier="urn:one")
    assert elsewhere.status == 409
    assert len((await ehr.get("DocumentReference")).entries) == 1
    assert len(await tasks(ehr)) == 1


async def test_what_a_patient_sends_waits_for_no_release(
    practice: EmbeddedStore, ada: Caller
) -> None:
    """A rule that holds back the practice's documents is none about what the patient sent."""
    rule = {"name": "notes", "type": "DocumentReference", "reason": "preventing-harm", "hours": 72}
    await set_to(practice, {"release": [rule]})
    document = await sent(ada, identifier="urn:uuid:d1")
    assert (await ada.get(document)).status == 200
    assert await sent(ada, identifier="urn:uuid:d1") == document


async def test_sent_at_the_same_moment_it_is_there_once(ada: Caller, ehr: Caller) -> None:
    answers = await asyncio.gather(*(uploaded(ada, identifier="urn:one") for _ in range(4)))
    assert {one.status for one in answers} == {200}
    assert len({str(out(one, "document")) for one in answers}) == 1
    assert len((await ehr.get("DocumentReference")).entries) == 1
    assert len((await ehr.get("Binary")).entries) == 2  # the picture, and a small one
    assert len(await tasks(ehr)) == 1


async def test_one_identifier_of_two_people_or_records_is_two_documents(
    ada: Caller, kit: Caller, mother: Caller
) -> None:
    names = {await sent(one, identifier="urn:one") for one in (ada, kit, mother)}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("content", "declared", "status"),
    [
        (a_picture("PNG"), "image/jpeg", 422),
        (b"<svg onload=alert(1)>", "image/svg+xml", 422),
        (b"<html><script>alert(1)</script>", "text/html", 422),
        (b"<html>", "text/plain", 422),
        (b'<?xml version="1.0"?><?xml-stylesheet href="x"?><a/>', "text/xml", 422),
        (b"", "text/plain", 400),
        (b"x" * (5 * 1024 * 1024 + 1), "text/plain", 413),
    ],
)
async def test_a_file_that_is_not_taken_leaves_nothing(
    ada: Caller, ehr: Caller, content: bytes, declared: str, status: int
) -> None:
    answer = await uploaded(ada, content, declared)
    assert answer.status == status
    assert "attachment" in answer.body.decode() or "parameter[1]" in answer.body.decode()
    assert await nothing_stored(ehr)


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": ""},
        {"title": "x" * 151},
        {"title": "a\x07b"},
        {"type": "secret"},
        {"date": "2099-01-01"},
        {"file": {"contentType": "text/plain", "url": "Binary/of-somebody"}},
        {"file": {"contentType": "text/plain", "data": "eA==", "url": "https://else.example/x"}},
        {"file": {"contentType": "text/plain", "data": "e"}},
        {"file": {"contentType": "text/plain"}},
        {"identifier": "x" * 300},
    ],
)
async def test_bad_input_is_refused_by_name_and_leaves_nothing(
    ada: Caller, ehr: Caller, wrong: Json
) -> None:
    answer = await uploaded(ada, **wrong)
    assert answer.status in {400, 422}, answer.body
    (expression,) = answer.json["issue"][0]["expression"]
    name = {"file": "attachment"}.get(next(iter(wrong)), next(iter(wrong)))
    position = {"identifier": 0, "attachment": 1, "title": 2}.get(name)  # by which it is malformed
    assert name in expression or f"parameter[{position}]" in expression
    assert await nothing_stored(ehr)


async def test_missing_and_repeated_parameters_are_refused(ada: Caller, ehr: Caller) -> None:
    where = "DocumentReference/$upload"
    file = {"name": "attachment", "valueAttachment": a_file(PHOTO, "image/jpeg")}
    title = {"name": "title", "valueString": "A rash"}
    name = {"name": "identifier", "valueIdentifier": {"system": "urn:x", "value": "1"}}
    for given in (
        [file, title],
        [title, name],
        [file, name],
        [file, file, title, name],
        [file, title, name, {"name": "author", "valueString": "Kit"}],
    ):
        answer = await ada.ask("POST", where, EMPTY | {"parameter": given})
        assert answer.status in {400, 422}, answer.body
    assert await nothing_stored(ehr)


async def test_nobody_sends_into_a_record_that_is_not_theirs_to_act_in(
    practice: EmbeddedStore, portal: Portal, ehr: Caller, ada: Caller
) -> None:
    assert practice is not None
    reads = a_proxy(sections=DOCUMENTS)
    elsewhere = a_proxy(sections=("results",), act=("results",))
    narrow = replace(ada.auth, scopes=ScopeSet.parse("patient/DocumentReference.rs"))
    part = replace(ada.auth, scopes=ScopeSet.parse("patient/DocumentReference.crs?status=current"))
    expired = replace(ada.auth, expires=START)
    ended = a_proxy(sections=DOCUMENTS, act=DOCUMENTS)
    assert ended.record is not None
    ended = replace(ended, record=replace(ended.record, until=START))
    staff = a_member_of_staff(permissions=("view", "documents"))
    for auth in (reads, elsewhere, narrow, part, expired, ended, staff, an_ehr()):
        answer = await uploaded(Caller(portal, auth))
        assert answer.status == 403, (auth, answer.body)
    assert await nothing_stored(ehr)


async def test_what_is_confidential_is_for_the_patient_and_staff(
    kit: Caller, mother: Caller, clerk: Caller, ada: Caller
) -> None:
    assert (await uploaded(mother, confidential=True)).status == 403
    name = await sent(kit, confidential=True)
    document = (await kit.get(name)).json
    address = document["content"][0]["attachment"]["url"]
    small = document["content"][0]["attachment"]["extension"][0]["valueAttachment"]["url"]
    for caller in (mother, ada):
        for path in (name, address, small):
            assert (await caller.get(path)).status == 404
        assert (await caller.get("DocumentReference")).entries == []
    assert (await clerk.get(address)).status == 200


async def test_another_persons_document_is_absent_to_who_may_not_see_it(
    ada: Caller, kit: Caller, portal: Portal
) -> None:
    name = await sent(kit)
    document = (await kit.get(name)).json
    address = document["content"][0]["attachment"]["url"]
    no_section = Caller(portal, a_proxy(sections=("results",)))
    for caller in (ada, no_section):
        assert (await caller.get(name)).status == 404
        assert (await caller.get(address)).status == 404
    assert (await uploaded(ada, identifier="urn:x")).status == 200


async def test_so_many_a_day_are_enough(ada: Caller, kit: Caller, clock: Clock) -> None:
    for _ in range(A_DAY):
        assert (await uploaded(ada, b"note", "text/plain")).status == 200
    refused = await uploaded(ada, b"note", "text/plain")
    assert refused.status == 429
    assert (await uploaded(kit, b"note", "text/plain")).status == 200
    clock.now += 86_400
    assert (await uploaded(ada, b"note", "text/plain")).status == 200


async def test_the_scanner_is_asked_before_anything_is_kept(
    practice: EmbeddedStore, portal: Portal, ehr: Caller
) -> None:
    assert practice is not None

    async def refuses(content: bytes) -> None:
        assert content
        raise Infected

    async def is_away(content: bytes) -> None:
        raise ScanUnavailable(str(len(content)))

    for scan, status in ((refuses, 422), (is_away, 503)):
        scanned = replace(portal, collaborators=replace(portal.collaborators, scan=scan))
        assert (await uploaded(Caller(scanned, oneself("ada")))).status == status
    assert await nothing_stored(ehr)


# --- what staff decide ----------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-46")
async def test_staff_take_a_document_in_and_correct_what_is_said_of_it(
    accounts: EmbeddedStore, ada: Caller, clerk: Caller, ehr: Caller
) -> None:
    name = await sent(ada)
    kind = {"coding": [{"system": "http://loinc.org", "code": "11488-4"}], "text": "Consult note"}
    answer = await decided(clerk, name, type=kind, title="Letter of 2 May", date="2029-05-02")
    assert answer.status == 200, answer.body
    assert out(answer, "status") == "final"
    document = (await ada.get(name)).json
    assert document["docStatus"] == "final"
    assert document["status"] == "current"
    assert document["type"] == kind
    assert document["description"] == "Letter of 2 May"
    assert document["content"][0]["attachment"]["creation"] == "2029-05-02"
    assert document["author"] == [{"reference": "Patient/ada"}]
    assert document["authenticator"] == {"reference": "Practitioner/clerk"}
    (task,) = await tasks(ehr)
    assert task["status"] == "completed"
    assert task["owner"] == {"reference": "Practitioner/clerk"}
    told = await letters(accounts)
    assert [one.template for one in told] == ["document-reviewed"]
    assert told[0].to.endswith("Patient/ada")
    assert len((await ada.get(f"Provenance?target={name}")).entries) == 2


@pytest.mark.requirement("portal", "S0-46")
async def test_what_is_refused_says_why_to_who_sent_it(
    accounts: EmbeddedStore, mother: Caller, clerk: Caller, ehr: Caller
) -> None:
    await ehr.store(a_grant(of="kit", to="mother", sections=DOCUMENTS, act=DOCUMENTS))
    name = await sent(mother)
    assert (await decided(clerk, name, "refuse")).status == 422
    answer = await decided(clerk, name, "refuse", reason="It cannot be read.")
    assert out(answer, "status") == "entered-in-error"
    document = (await mother.get(name)).json
    assert document["status"] == document["docStatus"] == "entered-in-error"
    reasons = [
        one["reason"][0]["text"]
        for one in (await mother.get(f"Provenance?target={name}")).entries
        if "reason" in one
    ]
    assert reasons == ["It cannot be read."]
    (task,) = await tasks(ehr)
    assert task["status"] == "completed"
    told = await letters(accounts)
    assert {one.template for one in told} == {"document-reviewed"}
    assert sorted(one.to.partition(":")[0] for one in told) == ["account", "record"]


@pytest.mark.requirement("portal", "S0-46")
async def test_the_content_of_what_was_refused_is_for_the_practice_alone(
    mother: Caller, kit: Caller, clerk: Caller, ehr: Caller
) -> None:
    """It may be about somebody else: that is why it was refused."""
    name = await sent(mother)
    attachment = (await mother.get(name)).json["content"][0]["attachment"]
    addresses = [attachment["url"], attachment["extension"][0]["valueAttachment"]["url"]]
    for address in addresses:
        assert (await mother.get(address)).status == 200
    await decided(clerk, name, "refuse", reason="It is about somebody else.")
    for address in (*addresses, f"{addresses[0]}/_history/1"):
        for caller in (mother, kit):
            hidden = await caller.get(address)
            absent = await caller.get("Binary/nothing" + address.partition("Binary/")[2][1:])
            assert hidden.status == absent.status == 404
        for caller in (clerk, ehr):
            assert (await caller.get(address)).status == 200, (address, caller.auth.fhir_user)
    assert (await mother.get(name)).json["docStatus"] == "entered-in-error"
    document = (await ehr.get(name)).json
    await ehr.store(document | {"status": "current", "docStatus": "final"})
    for address in addresses:  # it was a mistake
        assert (await kit.get(address)).status == 200


async def test_what_an_ehr_entered_in_error_gives_out_no_file(ada: Caller, ehr: Caller) -> None:
    await ehr.store(a_binary("scan"), a_document("letter", of="ada", binary="scan"))
    assert (await ada.get("Binary/scan")).status == 200
    letter = (await ehr.get("DocumentReference/letter")).json
    await ehr.store(letter | {"status": "entered-in-error"})
    assert (await ada.get("DocumentReference/letter")).status == 200
    assert (await ada.get("Binary/scan")).status == 404
    await ehr.store(a_document("other", of="ada", binary="scan"))
    assert (await ada.get("Binary/scan")).status == 200


async def test_who_may_not_see_a_document_any_more_is_not_told(
    accounts: EmbeddedStore, mother: Caller, clerk: Caller, ehr: Caller
) -> None:
    name = await sent(mother)
    await ehr.store(a_grant(of="kit", to="mother", sections=["results"]))
    await decided(clerk, name)
    assert [one.to.partition(":")[0] for one in await letters(accounts)] == ["record"]


async def letters(store: EmbeddedStore) -> list[OutboxMessage]:
    return await store.every(OutboxMessage)


async def test_a_document_is_decided_about_once(ada: Caller, clerk: Caller, ehr: Caller) -> None:
    name = await sent(ada)
    assert (await decided(clerk, name)).status == 200
    version = (await ada.get(name)).json["meta"]["versionId"]
    assert (await decided(clerk, name)).status == 200
    assert (await ada.get(name)).json["meta"]["versionId"] == version
    assert (await decided(clerk, name, title="Other")).status == 409
    assert (await decided(clerk, name, "refuse", reason="No.")).status == 409
    ours = a_document("ours")
    await ehr.store(ours)
    assert (await decided(clerk, "DocumentReference/ours")).status == 422
    assert (await decided(clerk, "DocumentReference/nothing")).status == 404


async def test_what_an_ehr_decided_by_itself_ends_its_task_when_it_is_said_again(
    ada: Caller, clerk: Caller, ehr: Caller
) -> None:
    name = await sent(ada)
    await ehr.store((await ehr.get(name)).json | {"docStatus": "final"})
    assert [one["status"] for one in await tasks(ehr)] == ["requested"]
    assert (await decided(clerk, name)).status == 200
    assert [one["status"] for one in await tasks(ehr)] == ["completed"]


@pytest.mark.parametrize(
    ("decision", "given", "name"),
    [
        ("later", {}, "decision"),
        ("accept", {"title": "x" * 151}, "title"),
        ("accept", {"date": "2099-01-01"}, "date"),
        ("accept", {"type": {"coding": [{"system": "http://loinc.org"}]}}, "type"),
        ("refuse", {"reason": "no", "title": "x"}, "title"),
        ("refuse", {"reason": "x" * 501}, "reason"),
    ],
)
async def test_a_wrong_decision_is_refused_by_name(
    ada: Caller, clerk: Caller, ehr: Caller, decision: str, given: Json, name: str
) -> None:
    document = await sent(ada)
    answer = await decided(clerk, document, decision, **given)
    assert answer.status in {400, 422}
    assert name in answer.json["issue"][0]["expression"][0]
    assert (await ada.get(document)).json["docStatus"] == "preliminary"
    (task,) = await tasks(ehr)
    assert task["status"] == "requested"


async def test_staff_with_documents_decide_and_nobody_else(
    ada: Caller, kit: Caller, mother: Caller, portal: Portal
) -> None:
    name = await sent(kit)
    others = (
        a_member_of_staff(permissions=("view", "forms", "messages", "administer")),
        replace(a_member_of_staff(permissions=("view", "documents")), expires=START),
        a_member_of_staff(permissions=("documents",), scope="user/DocumentReference.rs"),
    )
    for caller in (kit, mother, ada, *(Caller(portal, one) for one in others)):
        assert (await decided(caller, name)).status == 403
    elsewhere = a_member_of_staff(practice="family", permissions=("view", "documents"))
    assert (await decided(Caller(portal, elsewhere), name)).status == 404
    assert (await decided(Caller(portal, an_ehr()), name)).status == 200


async def test_the_task_is_for_staff_with_documents_alone(
    kit: Caller, mother: Caller, clerk: Caller, portal: Portal, ehr: Caller
) -> None:
    await sent(mother)
    (task,) = await tasks(clerk)
    at = f"Task/{task['id']}"
    everything = ("view", "invite", "recover", "forms", "administer")
    forms = Caller(portal, a_proxy(sections=("forms", "documents"), act=("forms", "documents")))
    for caller in (kit, forms, Caller(portal, a_member_of_staff(permissions=everything))):
        assert (await caller.get(at)).status == 404
        assert await tasks(caller) == []
    plain = {name: value for name, value in task.items() if name != "meta"} | {
        "meta": {"tag": [{"system": "urn:x", "code": "y"}]}
    }
    await ehr.store(plain)
    assert (await kit.get(at)).status == 404  # whoever writes it, the tag stays
    done = await clerk.ask("POST", f"{at}/$task-done", EMPTY)
    assert done.status == 422  # it is decided about, and not ticked off


async def test_the_content_is_of_the_record_alone(ada: Caller) -> None:
    first, second = await sent(ada), await sent(ada)
    one, two = [(await ada.get(name)).json for name in (first, second)]
    urls = [tree["content"][0]["attachment"]["url"] for tree in (one, two)]
    assert urls[0] != urls[1]
    assert base64.b64encode(await bytes_of(ada, one)) == base64.b64encode(await bytes_of(ada, two))
