"""A practice with Schedules and free Slots, and what is asked of its appointments, in a line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import (
    DERM,
    START,
    Answer,
    Caller,
    Json,
    a_practitioner,
    concept,
    keep,
    reference,
    resource,
)

SERVICES = "http://terminology.hl7.org/CodeSystem/service-type"
WHO = {"type": [{"text": "patient"}], "status": "accepted"}
PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"
CHECK, SURGERY, TALK = "check", "surgery", "talk"
DAY = 86_400.0
SENSITIVE = {
    "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PSY"}]
}


def at(seconds: float) -> str:
    return datetime.fromtimestamp(START + seconds, UTC).isoformat().replace("+00:00", "Z")


def a_schedule(own_id: str, *actors: str, service: str = CHECK, **more: Any) -> Json:
    return resource(
        "Schedule",
        own_id,
        serviceType=[concept(SERVICES, service)],
        actor=[reference(one) for one in actors],
        **more,
    )


def a_slot(
    own_id: str,
    begins: float,
    *,
    of: str = "lark",
    minutes: int = 20,
    status: str = "free",
    **more: Any,
) -> Json:
    """``begins`` is in seconds from now."""
    return resource(
        "Slot",
        own_id,
        schedule=reference(f"Schedule/{of}"),
        status=status,
        start=at(begins),
        end=at(begins + minutes * 60),
        **more,
    )


async def set_up(store: EmbeddedStore, ehr: Caller) -> None:
    """Lark has three times in three days, and a second Schedule in a room; Wren has others."""
    await keep(
        store,
        PracticePolicy(
            key=DERM,
            booking="request",
            booking_services={CHECK: "book", SURGERY: "request", TALK: "book", "laser": "view"},
        ),
    )
    await ehr.store(
        a_practitioner("lark"),
        a_practitioner("wren"),
        a_schedule("lark", "Practitioner/lark"),
        a_schedule("lark-in-room", "Practitioner/lark", "Location/room"),
        a_schedule("surgery", "Practitioner/wren", service=SURGERY),
        a_schedule("talk", "Practitioner/wren", service=TALK, meta=SENSITIVE),
        resource(
            "Location",
            "room",
            physicalType=concept(
                "http://terminology.hl7.org/CodeSystem/location-physical-type", "ro"
            ),
        ),
        a_slot("nine", 3 * DAY),
        a_slot("ten", 3 * DAY + 3600),
        a_slot("nine-in-room", 3 * DAY + 600, of="lark-in-room"),
        a_slot("taken", 3 * DAY + 7200, status="busy"),
        a_slot("past", -3600),
        a_slot("soon", 600),
        a_slot("knife", 3 * DAY, of="surgery"),
        a_slot("word", 4 * DAY, of="talk"),
    )


def parameters(*given: Json) -> Json:
    return {"resourceType": "Parameters", "parameter": list(given)}


def a_time(slot: str, *, of: str | None = None, **more: Any) -> Json:
    tree = resource(
        "Appointment",
        None,
        status="proposed",
        slot=[reference(f"Slot/{slot}")],
        participant=[{"type": [{"text": "patient"}], "status": "needs-action"}],
        **more,
    )
    if of is not None:
        tree["participant"] = [{"actor": reference(f"Patient/{of}"), "status": "accepted"}]
    return tree


async def find(caller: Caller, query: str = "") -> Answer:
    return await caller.get(f"Appointment/$find{query}")


async def slots(caller: Caller, query: str = "") -> list[str]:
    answer = await find(caller, query)
    assert answer.status == 200, answer.body
    return [one["slot"][0]["reference"].partition("/")[2] for one in answer.entries]


async def hold(caller: Caller, slot: str, *, of: str | None = None, **more: Any) -> Answer:
    sent = parameters({"name": "appointment-resource", "resource": a_time(slot, of=of, **more)})
    return await caller.ask("POST", "Appointment/$hold", sent)


async def held(caller: Caller, slot: str, *, of: str | None = None) -> str:
    """Hold a time that must be free; returns the id of the Appointment."""
    answer = await hold(caller, slot, of=of)
    assert answer.status == 200, answer.body
    (one,) = answer.entries
    assert one["status"] == "pending"
    return str(one["id"])


async def book(caller: Caller, own_id: str, *, replaces: str | None = None) -> Answer:
    given = [
        {"name": "appointment-reference", "valueReference": reference(f"Appointment/{own_id}")}
    ]
    if replaces is not None:
        given.append({"name": "replaces", "valueReference": reference(f"Appointment/{replaces}")})
    return await caller.ask("POST", "Appointment/$book", parameters(*given))


async def booked(caller: Caller, slot: str, *, of: str | None = None) -> str:
    own_id = await held(caller, slot, of=of)
    answer = await book(caller, own_id)
    assert answer.status == 200, answer.body
    return own_id


async def cancel(caller: Caller, own_id: str, **more: Any) -> Answer:
    tree = resource("Appointment", own_id, status="cancelled", participant=[WHO], **more)
    sent = parameters({"name": "appointment-resource", "resource": tree})
    return await caller.ask("POST", "Appointment/$book", sent)


async def check_in(caller: Caller, own_id: str, *, undo: bool = False) -> Answer:
    given = [{"name": "undo", "valueBoolean": True}] if undo else []
    body = parameters(*given) if given else None
    return await caller.ask("POST", f"Appointment/{own_id}/$check-in", body)


def value(answer: Answer, name: str) -> Any:
    for one in answer.json["parameter"]:
        if one["name"] == name:
            return next(v for k, v in one.items() if k != "name")
    return None
