"""A patient asks for an appointment: what a wish may say, and of what services."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    DIRECTORY,
    RESTRICTED,
    Caller,
    Json,
    a_patient,
    a_practitioner,
    a_proxy,
    assert_outcome,
    concept,
    keep,
    reference,
    resource,
)

SERVICES = "http://terminology.hl7.org/CodeSystem/service-type"


@pytest.fixture(autouse=True)
async def practice(ehr: Caller, store: EmbeddedStore) -> None:
    await keep(store, PracticePolicy(key=DERM, booking_services={"laser": "view"}))
    await ehr.store(
        a_patient("ada"),
        a_patient("bo"),
        a_patient("kit"),
        a_practitioner("lark", meta=DIRECTORY),
        a_practitioner("unlisted"),
    )


def a_request(*more_actors: str, of: str = "ada", **more: Any) -> Json:
    return resource(
        "Appointment",
        None,
        **{
            "status": "proposed",
            "reasonCode": [{"text": "a spot that has grown"}],
            "requestedPeriod": [{"start": "2030-04-01", "end": "2030-04-30"}],
            "participant": [
                {"actor": reference(f"Patient/{of}"), "status": "accepted"},
                *({"actor": reference(one), "status": "needs-action"} for one in more_actors),
            ],
        }
        | more,
    )


async def nothing(ehr: Caller) -> bool:
    return (await ehr.get("Appointment")).entries == []


@pytest.mark.requirement("portal", "S0-04")
async def test_a_request_is_structured_and_followed_to_its_answer(ada: Caller, ehr: Caller) -> None:
    answer = await ada.post(a_request("Practitioner/lark"))
    assert answer.status == 201, answer.body
    own_id = answer.json["id"]
    assert (await ada.get(f"Appointment/{own_id}")).json["status"] == "proposed"
    waiting = await ada.post(a_request(status="waitlist"))
    assert waiting.status == 201
    seen = (await ehr.get("Appointment?status=proposed")).entries
    assert [one["reasonCode"][0]["text"] for one in seen] == ["a spot that has grown"]
    given = {"status": "booked", "start": "2030-04-02T09:00:00Z", "end": "2030-04-02T09:20:00Z"}
    await ehr.store({**seen[0], **given})
    assert (await ada.get(f"Appointment/{own_id}")).json["status"] == "booked"


async def test_of_some_services_nothing_is_asked_here(ada: Caller, ehr: Caller) -> None:
    answer = await ada.post(a_request(serviceType=[concept(SERVICES, "laser")]))
    assert_outcome(answer, 422, "processing")
    assert await nothing(ehr)


async def test_a_practice_that_takes_no_requests_gets_none(
    ada: Caller, ehr: Caller, store: EmbeddedStore
) -> None:
    await keep(store, PracticePolicy(key=DERM, booking="view"))
    assert (await ada.post(a_request())).status == 422
    assert await nothing(ehr)


@pytest.mark.parametrize(
    "more",
    [
        {"status": "booked", "start": "2030-04-01T09:00:00Z", "end": "2030-04-01T09:20:00Z"},
        {"status": "pending", "start": "2030-04-01T09:00:00Z", "end": "2030-04-01T09:20:00Z"},
        {"status": "cancelled"},
        {"start": "2030-04-01T09:00:00Z", "end": "2030-04-01T09:20:00Z"},
        {"slot": [reference("Slot/nine")]},
        {"priority": 9},
        {"basedOn": [reference("ServiceRequest/x")]},
        {"patientInstruction": "x"},
        {"extension": [{"url": "urn:x", "valueString": "y"}]},
        {"identifier": [{"system": "urn:x", "value": "y"}]},
        {"_status": {"extension": [{"url": "urn:x", "valueString": "y"}]}, "contained": []},
        {"meta": RESTRICTED},
    ],
)
async def test_a_wish_is_no_appointment(ada: Caller, ehr: Caller, more: dict[str, Any]) -> None:
    answer = await ada.post(a_request() | more)
    assert answer.status in {400, 403, 422}, answer.body
    assert await nothing(ehr)


@pytest.mark.parametrize(
    "participants",
    [
        [{"actor": reference("Patient/bo"), "status": "accepted"}],
        [
            {"actor": reference("Patient/ada"), "status": "accepted"},
            {"actor": reference("Patient/bo"), "status": "accepted"},
        ],
        [{"actor": reference("Practitioner/lark"), "status": "accepted"}],
        [{"actor": {"identifier": {"value": "ada"}}, "status": "accepted"}],
        [
            {"actor": reference("Patient/ada"), "status": "accepted"},
            {"actor": reference("RelatedPerson/mother"), "status": "accepted"},
        ],
        [
            {"actor": reference("Patient/ada"), "status": "accepted"},
            {"actor": reference("Practitioner/lark"), "status": "accepted"},
        ],
        [
            {"actor": reference("Patient/ada"), "status": "accepted"},
            {"actor": reference("Practitioner/unlisted"), "status": "needs-action"},
        ],
    ],
)
async def test_it_is_for_this_patient_and_with_whom_one_may_know(
    ada: Caller, ehr: Caller, participants: list[Any]
) -> None:
    answer = await ada.post(a_request(participant=participants))
    assert answer.status in {403, 422}, answer.body
    assert await nothing(ehr)


async def test_a_proxy_asks_with_the_section_and_to_act(portal: Portal) -> None:
    for sections, act, status in (
        (("appointments",), ("appointments",), 201),
        (("appointments",), (), 403),
        (("appointments", "messages"), ("messages",), 403),
        (("results",), ("results",), 403),
    ):
        mother = Caller(portal, a_proxy(sections=sections, act=act))
        assert (await mother.post(a_request(of="kit"))).status == status
        assert (await mother.post(a_request(of="ada"))).status == 403


async def test_nobody_asks_without_end_or_changes_what_was_asked(
    ada: Caller,
) -> None:
    for _ in range(10):
        answer = await ada.post(a_request())
        assert answer.status == 201
    assert (await ada.post(a_request())).status == 429
    tree = answer.json | {"comment": "sooner"}
    assert (await ada.put(tree)).status == 403
    assert (await ada.delete(f"Appointment/{tree['id']}")).status == 403
    assert (await ada.with_scope("patient/Appointment.rs").post(a_request())).status == 403
