"""``$transmit``: sent a moment later, as the sender may see it then; followed by a Task."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.notify.outbox import ATTEMPTS, Bounced, OutboxMessage
from fhir_portal.notify.signature import SIGNATURE, is_signed
from fhir_portal.operations.open_share import NotShared
from fhir_portal.operations.transmit import DELIVERED_WITHIN, WARNING, WARNING_VERSION
from fhir_portal.portal import Portal
from fhir_portal.smart.revocation import revoke_where
from fhir_portal.smart.sharing import DAY, ShareLink, ShareSecrets
from fhir_portal.smart.token import AccessToken
from tests.builders import (
    DERM,
    DIRECTORY,
    START,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    Json,
    a_binary,
    a_document,
    a_grant,
    a_proxy,
    assert_outcome,
    keep,
    oneself,
    resource,
)
from tests.charts import an_allergy
from tests.operations.charted import record
from tests.operations.sharing import HERE, SCOPE, as_ada, as_mother, ask, parts, shares_of
from tests.operations.transmitting import SITE, Sending
from tests.smart.hosts import as_it_is

__all__ = ["record"]

pytestmark = [pytest.mark.usefixtures("record"), pytest.mark.requirement("portal", "S0-44")]

DOCTOR = "dr@clinic.example"
ACCEPTED = ("warning", "valueCode", WARNING_VERSION)
US_CORE_DIRECT = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-direct"
ENDPOINT = "https://clinic.example/fhir/in"


@pytest.fixture
async def ada(portal: Portal, ehr: Caller) -> Caller:
    await ehr.store(a_binary("letter"), a_document("letter", binary="letter"))
    return await as_ada(portal)


@pytest.fixture
def sending(portal: Portal) -> Sending:
    return Sending(portal)


@pytest.fixture
async def directory(portal: Portal, ehr: Caller) -> None:
    """A clinic with a mail address, a Direct address and an endpoint; a doctor; one not listed."""
    direct = {"url": US_CORE_DIRECT, "valueBoolean": True}
    await ehr.store(
        resource(
            "Endpoint", "in", status="active", address=ENDPOINT, meta=DIRECTORY,
            connectionType={"code": "hl7-fhir-rest"}, payloadType=[{"text": "any"}],
        ),
        resource(
            "Organization", "clinic", name="Hill Clinic", meta=DIRECTORY,
            telecom=[
                {"system": "email", "value": "desk@clinic.example"},
                {"system": "email", "value": "desk@direct.clinic.example", "extension": [direct]},
            ],
            endpoint=[{"reference": "Endpoint/in"}],
        ),
        resource("Organization", "secret", name="Hill Secret",
                 telecom=[{"system": "email", "value": "x@secret.example"}]),
        resource("Practitioner", "berg", name=[{"family": "Berg"}], meta=DIRECTORY,
                 telecom=[{"system": "email", "value": "berg@clinic.example"}]),
        resource("Practitioner", "silent", name=[{"family": "Silent"}], meta=DIRECTORY),
    )  # fmt: skip
    del portal


async def send(
    caller: Caller,
    way: str,
    *given: tuple[str, str, Any],
    what: str = "DocumentReference/letter",
    to: str | None = DOCTOR,
) -> Answer:
    named = [("channel", "valueCode", way), *([("to", "valueString", to)] if to else []), *given]
    listed = [{"name": name, kind: value} for name, kind, value in named]
    body = json.dumps({"resourceType": "Parameters", "parameter": listed}).encode()
    name, _, own_id = what.partition("/")
    return await caller.perform(
        FhirRequest("operation", name, own_id, operation="transmit", body=body)
    )


def to_directory(reference: str) -> tuple[str, str, Any]:
    return "recipient", "valueReference", {"reference": reference}


def told(answer: Answer) -> Json:
    assert answer.status == 200, answer.body
    return {
        one["name"]: next(value for name, value in one.items() if name.startswith("value"))
        for one in answer.json["parameter"]
        if "part" not in one
    }


async def task_of(caller: Caller, answer: Answer) -> Json:
    found = await caller.get(told(answer)["task"]["reference"])
    assert found.status == 200, found.body
    return found.json


async def listed(caller: Caller, of: str = "ada") -> list[Json]:
    return parts(await ask(caller, "transmissions", of, get=True), "transmission")


async def nothing_is_kept(store: EmbeddedStore, ada: Caller) -> None:
    assert await store.every(OutboxMessage) == []
    assert await store.every(ShareLink) == []
    assert (await ada.get("Task")).entries == []


# --- a link by mail ------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-45")
async def test_a_link_goes_by_mail_and_its_passcode_does_not(
    portal: Portal, ada: Caller, sending: Sending, store: EmbeddedStore
) -> None:
    answer = await send(ada, "link")
    assert told(answer)["status"] == "requested"
    passcode = told(answer)["passcode"]
    assert (await task_of(ada, answer))["status"] == "requested"
    waiting = repr(await store.every(OutboxMessage))
    assert "shlink" not in waiting  # made when it is sent
    assert await sending.deliver() == 1
    ((to, letter, attachments),) = sending.mail.got
    assert (to, attachments) == (f"mail:{DOCTOR}", ())
    assert passcode not in letter.text
    assert passcode.replace("-", "") not in letter.text
    for word in ("Quill", "Ada", "letter", "Peanut"):
        assert word not in letter.text.replace("somebody", "")
    assert letter.link is not None
    handle = letter.link.partition("/shared/")[2].partition("#")[0]
    assert letter.link.startswith(f"{SITE}/shared/")
    opened = await shares_of(portal).open(handle, passcode, recipient="x", way="page", address=HERE)
    assert opened.link.documents == ("DocumentReference/letter",)
    assert not opened.link.summary
    task = await task_of(ada, answer)
    assert task["status"] == "completed"
    (one,) = await listed(ada)
    assert (one["status"], one["channel"], one["to"]) == ("completed", "link", DOCTOR)
    (link,) = parts(await ask(ada, "share-links", get=True), "link")
    assert (link["views"], link["status"]) == (1, "active")


async def test_a_link_that_was_ended_before_it_is_sent_is_not_sent(
    portal: Portal, ada: Caller, sending: Sending
) -> None:
    answer = await send(ada, "link")
    (link,) = parts(await ask(ada, "share-links", get=True), "link")
    await ask(ada, "end-share", "ada", {"name": "id", "valueString": link["id"]})
    assert await sending.deliver() == 0
    assert sending.mail.got == []
    assert (await task_of(ada, answer))["status"] == "cancelled"
    del portal


# --- plain mail ----------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-45")
async def test_plain_mail_needs_the_warning_to_be_accepted(
    ada: Caller, store: EmbeddedStore
) -> None:
    for given in ((), (("warning", "valueCode", "2020-1"),)):
        answer = await send(ada, "email", *given)
        assert_outcome(answer, 422, "processing")
        assert WARNING in answer.words[0]
        assert "warning" in answer.json["issue"][0]["expression"][0]
    assert (await send(ada, "link", ACCEPTED)).status == 422
    await nothing_is_kept(store, ada)


@pytest.mark.requirement("portal", "S0-45")
async def test_plain_mail_has_the_document_and_the_choice_is_written_down(
    ada: Caller, sending: Sending
) -> None:
    answer = await send(ada, "email", ACCEPTED)
    assert "passcode" not in told(answer)
    await sending.deliver()
    ((to, letter, (file,)),) = sending.mail.got
    assert to == f"mail:{DOCTOR}"
    assert (file.name, file.media, file.content) == ("document-1.pdf", "application/pdf", b"%PDF-1")
    assert "not encrypted" in letter.text
    task = await task_of(ada, answer)
    assert task["status"] == "completed"
    said = {one["type"]["text"]: one["valueString"] for one in task["input"]}
    assert said == {"channel": "email", "to": DOCTOR, "warning": WARNING_VERSION}
    (found,) = (await ada.get(f"Provenance?target=Task/{task['id']}")).entries
    assert WARNING in found["reason"][0]["text"]
    assert found["agent"][0]["who"] == {"reference": "Patient/ada"}


async def test_a_summary_is_sent_as_a_pdf(ada: Caller, sending: Sending) -> None:
    answer = await send(ada, "email", ACCEPTED, what="Patient/ada")
    await sending.deliver()
    ((_, _, (file,)),) = sending.mail.got
    assert file.name == "summary.pdf"
    assert file.content.startswith(b"%PDF")
    assert "focus" not in await task_of(ada, answer)


async def test_what_is_read_is_in_the_log_with_the_recipient(ada: Caller, sending: Sending) -> None:
    await send(ada, "email", ACCEPTED)
    await sending.deliver()
    events = (await ada.get("AuditEvent?subtype=read")).entries
    names = {agent.get("name") for one in events for agent in one["agent"]}
    assert f"email: {DOCTOR}" in names


async def test_what_is_too_large_for_a_mail_fails_with_the_reason(
    ada: Caller, ehr: Caller, sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.operations.transmit_delivery.MOST_BYTES", 5)
    answer = await send(ada, "email", ACCEPTED)
    await sending.deliver()
    assert sending.mail.got == []
    task = await task_of(ada, answer)
    assert (task["status"], task["statusReason"]["text"]) == (
        "failed",
        "it is too large for a mail: send a link",
    )
    del ehr


async def test_a_practice_can_switch_plain_mail_off(ada: Caller, store: EmbeddedStore) -> None:
    await keep(store, PracticePolicy(key=DERM, plain_mail=False))
    assert_outcome(await send(ada, "email", ACCEPTED), 400, "not-supported")
    await keep(store, PracticePolicy(key=DERM, sharing=False))
    assert_outcome(await send(ada, "link"), 400, "not-supported")
    await nothing_is_kept(store, ada)


async def test_plain_mail_that_waits_when_it_is_switched_off_is_not_sent(
    ada: Caller, sending: Sending, store: EmbeddedStore
) -> None:
    answer = await send(ada, "email", ACCEPTED)
    await keep(store, PracticePolicy(key=DERM, plain_mail=False))
    await sending.deliver()
    assert sending.mail.got == []
    assert (await task_of(ada, answer))["status"] == "cancelled"


# --- Direct and endpoints ------------------------------------------------------------------------


def with_direct(caller: Caller) -> Caller:
    collaborators = replace(caller.portal.collaborators, direct=True)
    return Caller(replace(caller.portal, collaborators=collaborators), caller.auth)


async def test_direct_is_refused_by_name_where_nothing_is_set_up(ada: Caller) -> None:
    answer = await send(ada, "direct")
    assert_outcome(answer, 400, "not-supported")
    assert "direct" in answer.words[0]
    assert "channel" in answer.json["issue"][0]["expression"][0]


async def test_a_direct_message_has_files_for_people_and_for_systems(
    ada: Caller, sending: Sending, directory: None
) -> None:
    del directory
    caller = with_direct(ada)
    answer = await send(caller, "direct", to_directory("Organization/clinic"),
                        what="Patient/ada", to=None)  # fmt: skip
    await sending.deliver()
    assert sending.mail.got == []
    ((to, letter, files),) = sending.direct.got
    assert to == "mail:desk@direct.clinic.example"
    assert [one.name for one in files] == ["summary.pdf", "record.xml"]
    assert "not encrypted" not in letter.text
    assert (await task_of(ada, answer))["status"] == "completed"


async def test_an_endpoint_is_posted_to_and_can_check_who_did(
    ada: Caller, sending: Sending, directory: None, clock: Clock
) -> None:
    del directory
    sending.hosts.serve("clinic.example", as_it_is())
    answer = await send(ada, "endpoint", to_directory("Organization/clinic"), to=None)
    assert await sending.deliver() == 1
    (asked,) = sending.hosts.asked
    assert asked.headers["content-type"] == "application/fhir+json"
    assert json.loads(asked.content)["content"][0]["attachment"]["data"] == "JVBERi0x"
    secret = sending.secret_of(DERM, ENDPOINT)
    header = asked.headers[SIGNATURE]
    assert is_signed(secret, "/fhir/in", asked.content, header, now=clock())
    assert not is_signed(sending.secret_of("x", ENDPOINT), "/fhir/in", asked.content, header,
                         now=clock())  # fmt: skip
    assert (await task_of(ada, answer))["status"] == "completed"
    (one,) = await listed(ada)
    assert one["to"] == "Hill Clinic"
    assert ENDPOINT not in json.dumps(await task_of(ada, answer))


@pytest.mark.parametrize(
    "address",
    [
        "http://clinic.example/in",
        "https://127.0.0.1/in",
        "https://[::1]/in",
        "https://10.0.0.1/in",
        "https://169.254.169.254/latest",
        "https://localhost/in",
        "file:///etc/passwd",
        "https://user@clinic.example/",
    ],
)
async def test_an_endpoint_inside_is_refused(
    ada: Caller, ehr: Caller, store: EmbeddedStore, directory: None, address: str
) -> None:
    del directory
    tree = (await ehr.get("Endpoint/in")).json
    await ehr.store(tree | {"address": address})
    answer = await send(ada, "endpoint", to_directory("Organization/clinic"), to=None)
    assert answer.status == 422
    assert address not in answer.body.decode()
    await nothing_is_kept(store, ada)


async def test_an_endpoint_whose_name_leads_inside_is_not_asked(
    ada: Caller, sending: Sending, directory: None
) -> None:
    """The name is looked up when it is sent, and what was found then is what is asked."""
    del directory
    sending.hosts.serve("clinic.example", as_it_is(), "127.0.0.1")
    answer = await send(ada, "endpoint", to_directory("Organization/clinic"), to=None)
    await sending.deliver()
    assert sending.hosts.asked == []
    assert (await task_of(ada, answer))["status"] == "failed"


async def test_what_does_not_arrive_is_tried_again_and_then_given_up(
    ada: Caller, sending: Sending, clock: Clock
) -> None:
    answer = await send(ada, "email", ACCEPTED)
    sending.mail.down = OSError("the server is down")
    await sending.deliver()
    assert (await task_of(ada, answer))["status"] == "in-progress"
    sending.mail.down = None
    clock.advance(DAY / 4)
    await sending.deliver()
    assert (await task_of(ada, answer))["status"] == "completed"
    again = await send(ada, "email", ACCEPTED)
    sending.mail.down = OSError("the server is down")
    for _ in range(ATTEMPTS):
        await sending.deliver()
        clock.advance(DAY / 5)
    task = await task_of(ada, again)
    assert task["status"] == "failed"
    assert task["statusReason"]["text"] == "whoever should take it did not answer"
    assert DAY / 5 * ATTEMPTS < DELIVERED_WITHIN


async def test_all_that_waits_for_an_endpoint_that_is_down_fails_in_the_end(
    ada: Caller, sending: Sending, directory: None, clock: Clock
) -> None:
    """Planted fault: what was never tried itself, for its address was left alone, is in progress
    for ever."""
    del directory
    sending.hosts.serve("clinic.example", as_it_is(status=503))
    clinic = to_directory("Organization/clinic")
    answers = [await send(ada, "endpoint", clinic, to=None) for _ in range(12)]
    for _ in range(60):
        await sending.deliver()
        clock.advance(DAY / 24)
    assert {(await task_of(ada, one))["status"] for one in answers} == {"failed"}
    assert {one["status"] for one in await listed(ada)} == {"failed"}
    assert "its address has not answered for a day" in {one["reason"] for one in await listed(ada)}


async def test_a_mail_that_comes_back_has_failed(ada: Caller, sending: Sending) -> None:
    answer = await send(ada, "email", ACCEPTED)
    sending.mail.down = Bounced("the address takes no mail")
    await sending.deliver()
    task = await task_of(ada, answer)
    assert (task["status"], task["statusReason"]["text"]) == ("failed", "the address takes no mail")
    (one,) = await listed(ada)
    assert one["reason"] == "the address takes no mail"


# --- by what right -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["link", "email"])
async def test_what_was_withheld_meanwhile_is_not_sent(
    portal: Portal, ada: Caller, ehr: Caller, sending: Sending, way: str
) -> None:
    answer = await send(ada, way, *([ACCEPTED] if way == "email" else []))
    await ehr.store(a_document("letter", binary="letter", meta=WITHHELD))
    await sending.deliver()
    if way == "link":  # it shows nothing, and says nothing of why
        ((_, letter, _),) = sending.mail.got
        assert letter.link is not None
        handle = letter.link.partition("/shared/")[2].partition("#")[0]
        found = await shares_of(portal).open(
            handle, told(answer)["passcode"], recipient="x", way="page", address=HERE
        )
        assert found.link.documents == ("DocumentReference/letter",)
        return
    assert sending.mail.got == []
    assert [one["status"] for one in await listed(ada)] == ["cancelled"]
    assert (await task_of(ehr, answer))["status"] == "cancelled"
    task = await ada.get(told(answer)["task"]["reference"])
    assert task.status == 404  # it is as hidden as the document that it is about


@pytest.mark.parametrize("way", ["link", "email"])
async def test_a_sender_whose_access_ended_meanwhile_sends_nothing(
    ada: Caller, sending: Sending, store: EmbeddedStore, way: str
) -> None:
    answer = await send(ada, way, *([ACCEPTED] if way == "email" else []))
    await store.transact(
        lambda one: revoke_where(one, "account", "ada", now=START, because="account-disabled")
    )
    await sending.deliver()
    assert sending.mail.got == []
    task = await task_of(ada, answer)
    assert task["status"] == "cancelled"
    assert await store.find(AccessToken, "family", "") != []  # her own token is of no family


async def test_a_grant_that_ended_meanwhile_sends_nothing(
    portal: Portal, ehr: Caller, sending: Sending
) -> None:
    grant = a_grant("grant", of="kit", to="mother", sections=["documents"], act=["documents"])
    await ehr.store(grant, a_document("kits", of="kit"))
    mother = await as_mother(portal)
    answer = await send(mother, "email", ACCEPTED, what="DocumentReference/kits")
    assert (await listed(mother, "kit"))[0]["status"] == "requested"
    await ehr.store(grant | {"status": "inactive"})
    await sending.deliver()
    assert sending.mail.got == []
    own = Caller(portal, replace(oneself("kit", scope=SCOPE), account="kits"))
    assert (await task_of(own, answer))["status"] == "cancelled"
    assert [one["status"] for one in await listed(own, "kit")] == ["cancelled"]


async def test_what_reads_it_for_a_delivery_is_no_link_for_anybody(
    portal: Portal, ada: Caller, sending: Sending, store: EmbeddedStore
) -> None:
    """And it is over with the delivery."""
    await send(ada, "email", ACCEPTED)
    assert parts(await ask(ada, "share-links", get=True), "link") == []
    (link,) = await store.every(ShareLink)
    handle = ShareSecrets(portal.collaborators.derive).handle(link.id)
    with pytest.raises(NotShared):
        await shares_of(portal).open(handle, "22222222", recipient="x", way="page", address=HERE)
    await sending.deliver()
    (link,) = await store.every(ShareLink)
    assert link.ended is not None
    assert await store.get(AccessToken, link.token) is None


async def test_a_proxy_sees_what_they_sent_themselves(portal: Portal, ehr: Caller) -> None:
    await ehr.store(
        a_grant("grant", of="kit", to="mother", sections=["documents", "forms"],
                act=["documents"]),
        a_document("kits", of="kit"),
    )  # fmt: skip
    mother = await as_mother(portal)
    answer = await send(mother, "link", what="DocumentReference/kits")
    assert len(await listed(mother, "kit")) == 1
    aunt = Caller(
        portal,
        replace(a_proxy("kit", "aunt", sections=("documents", "forms"), scope=SCOPE), account="x"),
    )
    assert await listed(aunt, "kit") == []
    for caller in (mother, aunt):
        assert (await caller.get(told(answer)["task"]["reference"])).status == 404


@pytest.mark.parametrize(
    "change",
    [
        {"sections": ("results",), "act": ("results",)},
        {"sections": ("documents",), "act": ()},
        {"sections": ("documents",), "act": ("documents",), "until": START},
    ],
)
async def test_a_proxy_needs_to_act_in_the_documents(
    portal: Portal, ehr: Caller, change: Any
) -> None:
    await ehr.store(a_document("kits", of="kit"))
    caller = Caller(portal, replace(a_proxy("kit", scope=SCOPE, **change), account="ada"))
    for what in ("Patient/kit", "DocumentReference/kits"):
        assert (await send(caller, "link", what=what)).status == 403


async def test_what_is_hidden_another_patients_or_absent_is_answered_alike(
    ada: Caller, ehr: Caller, store: EmbeddedStore
) -> None:
    await ehr.store(a_document("bos", of="bo"), a_document("hidden", meta=WITHHELD))
    words = set()
    for kind, names in (
        ("DocumentReference", ("bos", "hidden", "none")),
        ("Patient", ("bo", "nobody", "kit")),
    ):
        for own_id in names:
            answer = await send(ada, "link", what=f"{kind}/{own_id}")
            assert_outcome(answer, 404, "not-found")
            words.add(answer.body.replace(own_id.encode(), b"X").replace(kind.encode(), b"Y"))
    assert len(words) == 1
    await nothing_is_kept(store, ada)


# --- to whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to",
    [
        "dr@clinic.example\r\nBcc: all@evil.example",
        "dr@clinic.example\nSubject: x",
        "dr@clinic.example, all@evil.example",
        "Dr <dr@clinic.example>",
        '"a\\"b"@clinic.example',
        "dr",
        "@clinic.example",
        "dr@[127.0.0.1]",
        "dr@" + "x" * 300 + ".example",
    ],
)
async def test_what_is_no_address_is_refused(ada: Caller, store: EmbeddedStore, to: str) -> None:
    answer = await send(ada, "email", ACCEPTED, to=to)
    assert answer.status in {400, 422}
    await nothing_is_kept(store, ada)


async def test_the_directory_says_who_can_be_reached_and_how(ada: Caller, directory: None) -> None:
    del directory
    answer = await ask(ada, "transmit-options", get=True)
    values = [one for one in answer.json["parameter"] if one["name"] == "channel"]
    assert [one["valueCode"] for one in values] == ["link", "email", "endpoint"]
    assert told(answer)["warning"] == WARNING
    found = {one["who"]["reference"]: one["who"]["display"] for one in parts(answer, "recipient")}
    assert found == {"Organization/clinic": "Hill Clinic", "Practitioner/berg": "Berg"}
    assert ENDPOINT.encode() not in answer.body
    narrowed = await ada.get("Patient/ada/$transmit-options?name=hil")
    assert [one["who"]["reference"] for one in parts(narrowed, "recipient")] == [
        "Organization/clinic"
    ]


async def test_a_recipient_of_the_directory_gets_it_at_the_address_there(
    ada: Caller, sending: Sending, directory: None
) -> None:
    del directory
    await send(ada, "email", ACCEPTED, to_directory("Practitioner/berg"), to=None)
    await sending.deliver()
    assert sending.mail.got[0][0] == "mail:berg@clinic.example"


@pytest.mark.parametrize(
    ("reference", "way", "status"),
    [
        ("Organization/secret", "link", 404),
        ("Organization/none", "link", 404),
        ("Patient/ada", "link", 404),
        ("Practitioner/silent", "link", 422),
        ("Practitioner/berg", "endpoint", 422),
    ],
)
async def test_who_is_not_to_be_reached_is_refused(
    ada: Caller, store: EmbeddedStore, directory: None, reference: str, way: str, status: int
) -> None:
    del directory
    answer = await send(ada, way, to_directory(reference), to=None)
    assert answer.status == status, answer.body
    await nothing_is_kept(store, ada)


@pytest.mark.parametrize(
    ("way", "given", "to", "name"),
    [
        ("pigeon", (), DOCTOR, "channel"),
        ("link", (), None, "to"),
        ("link", (to_directory("Practitioner/berg"),), DOCTOR, "to"),
        ("endpoint", (), DOCTOR, "to"),
        ("link", (("start", "valueDate", "2029-01-01"),), DOCTOR, "start"),
        ("link", (("section", "valueCode", "results"),), DOCTOR, "section"),
        ("link", (("idempotency-key", "valueString", "a b"),), DOCTOR, "idempotency-key"),
        ("email", (ACCEPTED, ("expires", "valueDateTime", "2030-04-01")), DOCTOR, "expires"),
        ("link", (("expires", "valueDateTime", "2020-04-01"),), DOCTOR, "expires"),
    ],
)
async def test_bad_input_is_refused_by_name(
    ada: Caller, store: EmbeddedStore, way: str, given: Sequence[Any], to: str | None, name: str
) -> None:
    answer = await send(ada, way, *given, to=to)
    assert answer.status in {400, 422}
    assert re.search(rf"name='{name}'", answer.json["issue"][0]["expression"][0])
    await nothing_is_kept(store, ada)


async def test_sent_twice_under_one_key_it_is_sent_once(
    ada: Caller, sending: Sending, store: EmbeddedStore
) -> None:
    key = ("idempotency-key", "valueString", "sending-1")
    first, second = await send(ada, "link", key), await send(ada, "link", key)
    assert told(first)["task"] == told(second)["task"]
    assert "passcode" not in told(second)
    assert await sending.deliver() == 1
    assert len(await store.every(ShareLink)) == 1
    assert_outcome(await send(ada, "link", key, to="other@clinic.example"), 409, "conflict")
    assert_outcome(await send(ada, "email", key, ACCEPTED), 409, "conflict")
    assert len(await store.every(ShareLink)) == 1
    other = await send(ada, "link", key, what="Patient/ada")
    assert told(other)["task"] != told(first)["task"]
    for narrower in (("section", "valueCode", "results"), ("start", "valueDate", "2029-01-01")):
        answer = await send(ada, "link", key, narrower, what="Patient/ada")
        assert_outcome(answer, 409, "conflict")
    again = await send(ada, "link", key, what="Patient/ada")
    assert told(again)["task"] == told(other)["task"]


async def test_what_was_entered_in_error_is_sent_to_nobody(
    ada: Caller, sending: Sending, ehr: Caller
) -> None:
    """It may be about somebody else, and its content may stand in the resource itself."""
    letter = (await ehr.get("DocumentReference/letter")).json
    letter["content"] = [{"attachment": {"contentType": "text/plain", "data": "c2VjcmV0"}}]
    await ehr.store(letter)
    await send(ada, "email", ACCEPTED)
    await ehr.store(letter | {"status": "entered-in-error"})
    await sending.deliver()
    (one,) = await listed(ada)
    assert one["status"] == "cancelled"
    answer = await send(ada, "email", ACCEPTED)
    assert (answer.status, "taken back" in str(answer.json)) == (422, True)


async def test_a_sending_counts_as_a_link_of_the_day(ada: Caller) -> None:
    for _ in range(20):
        assert (await send(ada, "link")).status == 200
    assert (await send(ada, "link")).status == 409
    assert (await ask(ada, "share-link")).status == 409


async def test_a_summary_is_narrowed_like_a_link(ada: Caller, sending: Sending,
                                                 ehr: Caller) -> None:  # fmt: skip
    sending.hosts.serve("clinic.example", as_it_is())
    await ehr.store(
        resource("Endpoint", "in", status="active", address=ENDPOINT, meta=DIRECTORY,
                 connectionType={"code": "hl7-fhir-rest"}, payloadType=[{"text": "any"}]),
        resource("Organization", "clinic", name="Hill", meta=DIRECTORY,
                 endpoint=[{"reference": "Endpoint/in"}]),
        an_allergy("nuts"),
    )  # fmt: skip
    only = ("section", "valueCode", "immunizations")
    await send(ada, "endpoint", only, to_directory("Organization/clinic"), what="Patient/ada",
               to=None)  # fmt: skip
    await sending.deliver()
    (asked,) = sending.hosts.asked
    assert b"Influenza, preservative free" in asked.content
    assert b"Peanut" not in asked.content
    assert b"Quill" not in asked.content
