"""Calls about messages, said in a line: ``await sent(ada, "It itches.")``."""

from __future__ import annotations

import base64
import itertools
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.messaging import Messaging
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    Answer,
    Caller,
    Json,
    a_practice,
    a_practitioner,
    a_proxy,
    an_account,
    changed,
    concept,
    keep,
    oneself,
    reference,
    resource,
)
from tests.staff import a_level, a_member_of_staff, a_membership

SYSTEM = "urn:ietf:rfc:3986"
CATEGORY = "https://fhir-portal.example/ig/CodeSystem/portal-conversation"
WARNING = Messaging(key=DERM).warning_code
_NUMBERS = itertools.count(1)


MESSAGES = ("messages",)


@pytest.fixture
async def practice(accounts: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    """The practice has an Organization and a desk; Lark is on Ada's care team."""
    await keep(
        accounts,
        changed(a_practice(zone="America/Chicago"), organization="Organization/derm"),
        an_account("desk"),
        an_account("lark"),
        a_level("desk", "messages"),
        a_membership("desk", level="desk"),
        a_membership("lark", practitioner="lark", level="desk"),
    )
    await ehr.store(
        resource("Organization", "derm", name="Dermatology"),
        a_practitioner("desk"),
        a_practitioner("lark"),
        a_practitioner("stranger"),
        resource(
            "CareTeam",
            "team",
            status="active",
            subject=reference("Patient/ada"),
            participant=[{"member": reference("Practitioner/lark")}],
        ),
    )
    return accounts


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
    """She sees Kit's results and messages, and writes messages."""
    assert practice is not None
    proxy = a_proxy(sections=("results", "messages"), act=MESSAGES)
    return Caller(portal, replace(proxy, account="ada"))


@pytest.fixture
def desk(practice: EmbeddedStore, portal: Portal) -> Caller:
    """Staff who answer messages and read no records."""
    assert practice is not None
    return Caller(portal, a_member_of_staff(permissions=MESSAGES))


def a_thread(own_id: str | None = None, *, of: str = "ada", **more: Any) -> Json:
    """A thread as an EHR might have stored one."""
    return resource(
        "Communication",
        own_id,
        **{
            "status": "in-progress",
            "category": [concept(CATEGORY, "thread")],
            "subject": reference(f"Patient/{of}"),
            "sender": reference(f"Patient/{of}"),
            "sent": "2029-12-01T09:00:00Z",
            "payload": [{"contentString": "A rash"}],
        }
        | more,
    )


def a_prescription(own_id: str | None = None, *, of: str = "ada", **more: Any) -> Json:
    """Three refills, each for thirty days."""
    return resource(
        "MedicationRequest",
        own_id,
        **{
            "status": "active",
            "intent": "order",
            "medicationCodeableConcept": {"text": "a cream"},
            "subject": reference(f"Patient/{of}"),
            "authoredOn": "2029-01-01T09:00:00Z",
            "dispenseRequest": {
                "numberOfRepeatsAllowed": 3,
                "expectedSupplyDuration": {
                    "value": 30,
                    "system": "http://unitsofmeasure.org",
                    "code": "d",
                },
            },
        }
        | more,
    )


def a_file(content: bytes, content_type: str, title: str = "file") -> Json:
    data = base64.b64encode(content).decode()
    return {"contentType": content_type, "data": data, "title": title}


KINDS = {
    "text": "valueString",
    "subject": "valueString",
    "topic": "valueCode",
    "warning": "valueCode",
    "confidential": "valueBoolean",
    "answer_by": "valueDateTime",
    "draft": "valueId",
    "reason": "valueString",
    "title": "valueString",
    "pharmacy": "valueString",
    "acknowledged": "valueBoolean",
    "status": "valueCode",
    "number": "valuePositiveInt",
    "note": "valueString",
}
REFERENCES = ("patient", "thread", "recipient", "upto", "to", "in_response_to", "message")


def body(files: Any = (), **given: Any) -> Json:
    listed: list[Json] = [{"name": "attachment", "valueAttachment": one} for one in files]
    for name, value in given.items():
        own = name.replace("_", "-")
        if value is None:
            continue
        if name == "identifier":
            identifier = {"system": SYSTEM, "value": value}
            listed.append({"name": own, "valueIdentifier": identifier})
        elif name in REFERENCES:
            listed.append({"name": own, "valueReference": reference(value)})
        else:
            listed.append({"name": own, KINDS[name]: value})
    return {"resourceType": "Parameters", "parameter": listed}


def a_name() -> str:
    return f"urn:uuid:{next(_NUMBERS)}"


async def sent(caller: Caller, text: str = "It itches.", **given: Any) -> Answer:
    """``$send``: by a patient with the warning read, by staff without one."""
    defaults: Json = {"subject": "A rash", "identifier": a_name(), "topic": "medical"}
    if caller.auth.staff is None:
        defaults["warning"] = WARNING
    return await caller.ask(
        "POST", "Communication/$send", body(**{"text": text} | defaults | given)
    )


async def replied(caller: Caller, thread: str, text: str = "Still.", **given: Any) -> Answer:
    defaults = {"identifier": a_name(), "text": text}
    return await caller.ask("POST", f"{thread}/$reply", body(**defaults | given))


async def done(caller: Caller, thread: str, operation: str, **given: Any) -> Answer:
    asked = body(**given) if given else None
    return await caller.ask("POST", f"{thread}/${operation}", asked)


async def read(caller: Caller, thread: str) -> Answer:
    return await caller.ask("GET", f"{thread}/$thread")


def out(answer: Answer, name: str) -> Any:
    """The first value of a parameter of an answer."""
    for one in answer.json.get("parameter", ()):
        if one["name"] == name:
            return next(value for member, value in one.items() if member != "name")
    return None


def thread_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    found = out(answer, "thread")["reference"]
    assert isinstance(found, str)
    return found


def messages(answer: Answer) -> list[Json]:
    assert answer.status == 200, answer.body
    found = answer.json.get("parameter", ())
    return [one["resource"] for one in found if one["name"] == "message"]


def words(answer: Answer) -> list[str]:
    return [one["payload"][0]["contentString"] for one in messages(answer)]
