"""What people do and how an EHR answers, each as the requests that it takes."""

from __future__ import annotations

import itertools
from typing import Any, Final

from fhir_portal.operations.settlement import settle
from tests.builders import Json, concept, reference, resource
from tests.operations.paying import PAGE
from tests.stories.chart import DOCTOR, DOCTOR_NAME, IG, at
from tests.stories.house import Fhir, House, given

CONVERSATION: Final = f"{IG}/CodeSystem/portal-conversation"
_NUMBERS: Final = itertools.count(1)

Entry = tuple[str, str, Json]


def entries(trees: list[Json]) -> list[Entry]:
    """Resources as entries of a transaction, each under its own id."""
    return [("PUT", f"{one['resourceType']}/{one['id']}", one) for one in trees]


def listed(value: Any) -> list[Any]:
    """What an operation answered several times, or once."""
    return value if isinstance(value, list) else [value]


# --- appointments ---------------------------------------------------------------------------------


def request_for_appointment(own_id: str, why: str) -> Json:
    who = {"actor": reference(f"Patient/{own_id}"), "status": "accepted"}
    whom = {"actor": reference(DOCTOR), "status": "needs-action"}
    return resource(
        "Appointment",
        None,
        status="proposed",
        reasonCode=[{"text": why}],
        requestedPeriod=[{"start": at(2 * 86_400), "end": at(9 * 86_400)}],
        participant=[who, whom],
    )


def booked(asked: Json, start: float, slot: str = "slot-0") -> list[Entry]:
    """What an EHR writes to book what a patient has asked for."""
    who = [{**one, "status": "accepted"} for one in asked["participant"]]
    what = asked | {
        "status": "booked",
        "slot": [reference(f"Slot/{slot}")],
        "start": at(start),
        "end": at(start + 1200),
        "participant": who,
    }
    taken = resource(
        "Slot",
        slot,
        schedule=reference("Schedule/lark"),
        status="busy",
        start=at(start),
        end=at(start + 1200),
    )
    return [("PUT", f"Appointment/{asked['id']}", what), ("PUT", f"Slot/{slot}", taken)]


# --- messages -------------------------------------------------------------------------------------


async def starts_conversation(caller: Fhir, text: str, **more: Json) -> str:
    """Read the warning, choose a topic, send; return the id of the thread."""
    options = await caller.call("Communication/$message-options")
    told = await caller.call(
        "Communication/$send",
        given("identifier", valueIdentifier=a_name()),
        given("topic", valueCode=listed(options["topic"])[0]["code"]),
        given("warning", valueCode=options["warning-code"]),
        given("subject", valueString="A question"),
        given("text", valueString=text),
        *(given(name, **value) for name, value in more.items()),
    )
    return str(told["thread"]["reference"]).rpartition("/")[2]


def a_name() -> Json:
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{next(_NUMBERS)}"}


def as_reply(message: Json, text: str, moment: str) -> list[Entry]:
    """What an EHR writes to answer a message."""
    (thread,) = message["partOf"]
    answer = resource(
        "Communication",
        None,
        status="completed",
        category=[concept(CONVERSATION, "message")],
        partOf=[thread],
        inResponseTo=[reference(f"Communication/{message['id']}")],
        subject=message["subject"],
        sender=reference(DOCTOR) | {"display": DOCTOR_NAME},
        recipient=[message["sender"]],
        sent=moment,
        payload=[{"contentString": text}],
    )
    return [("POST", "Communication", answer)]


def said_in(told: Json) -> list[str]:
    """The words of the messages of a `$thread`."""
    return [one["payload"][0]["contentString"] for one in listed(told["message"])]


# --- forms ----------------------------------------------------------------------------------------


async def filled_in(
    caller: Fhir, own_id: str, form: str, answers: Json, *more: Json, **at_the_end: Any
) -> str:
    """Begin a form, save it, go on and hand it in; return the id of the answers.

    ``answers`` are put in the place of those that it begins with, ``more`` are items beside them.
    ``at_the_end`` is what it has once it is handed in: a signature.
    """
    tree = await caller.call(
        f"Questionnaire/{form}/$populate",
        given("subject", valueReference=reference(f"Patient/{own_id}")),
    )
    begun = await caller.post(tree["response"])
    begun["item"] = [*_answered(begun.get("item", []), answers), *more]
    done = await caller.put(begun | {"status": "completed"} | at_the_end)
    return str(done["id"])


def _answered(items: list[Json], answers: Json) -> list[Json]:
    return [
        one
        | ({"answer": [answers[one["linkId"]]]} if one["linkId"] in answers else {})
        | ({"item": _answered(one["item"], answers)} if "item" in one else {})
        for one in items
    ]


# --- bills ----------------------------------------------------------------------------------------


async def paid(house: House, order: Json) -> None:
    """Somebody pays on the provider's page, and the provider tells of it."""
    key = order["payment"]
    await house.app.provider.ledger.close(key, "paid")
    found = await house.app.provider.ledger.find(key)
    assert found is not None
    house.clock.advance(1)
    await settle(house.app.portal.server, found.shown(PAGE))
    house.recorder.done("a payer", "paid at the provider")


# --- times that are held and booked ---------------------------------------------------------------


async def books(caller: Fhir, own_id: str, number: int = 0) -> str:
    """Find a free time, hold it, book it; return the id of the Appointment."""
    offered = await caller.call(
        "Appointment/$find",
        given("start", valueDateTime=at(86_400)),
        given("end", valueDateTime=at(10 * 86_400)),
    )
    wanted = offered["entry"][number]["resource"]
    held = await caller.call("Appointment/$hold", given("appt-resource", resource=wanted))
    (entry,) = held["entry"]
    found = entry["resource"]["id"]
    await caller.call(
        "Appointment/$book",
        given("appt-reference", valueReference=reference(f"Appointment/{found}")),
    )
    assert f"Patient/{own_id}" in str(entry["resource"]["participant"])
    return str(found)
