"""``$calendar``: for whoever may read the appointment, with nothing in it that is private."""

from __future__ import annotations

import base64
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
    a_proxy,
    an_appointment,
    concept,
    keep,
    resource,
)
from tests.operations.booking import CHECK, SERVICES

SERVICE = [concept(SERVICES, CHECK) | {"text": "Skin check, yearly"}]


@pytest.fixture(autouse=True)
async def practice(accounts: EmbeddedStore, ehr: Caller) -> None:
    assert accounts is not None
    address = {"line": ["1 Elm Street"], "city": "Marrow"}
    await ehr.store(
        resource("Location", "elm", name="Elm House", address=address, meta=DIRECTORY),
        visit("plain"),
        visit("hidden", meta=RESTRICTED),
        visit("off", status="cancelled"),
        an_appointment("wish", status="proposed", start=None, end=None),
    )


def visit(own_id: str, **more: Any) -> Json:
    tree = an_appointment(own_id, serviceType=SERVICE, patientInstruction="Bring a list.", **more)
    tree["participant"].append({"actor": {"reference": "Location/elm"}, "status": "accepted"})
    return tree


async def calendar(caller: Caller, own_id: str) -> str:
    answer = await caller.get(f"Appointment/{own_id}/$calendar")
    assert answer.status == 200, answer.body
    assert answer.json["contentType"] == "text/calendar; charset=utf-8"
    content = base64.b64decode(answer.json["data"])
    assert answer.response is not None
    assert answer.response.binary == ("text/calendar; charset=utf-8", content)
    return content.decode().replace("\r\n ", "")


async def test_it_says_what_where_when_and_how_to_prepare(ada: Caller, ehr: Caller) -> None:
    text = await calendar(ada, "plain")
    assert "SUMMARY:Dermatology: Skin check\\, yearly\r\n" in text
    assert "LOCATION:Elm House\\, 1 Elm Street\\, Marrow\r\n" in text
    assert "DESCRIPTION:Bring a list.\r\n" in text
    assert "DTSTART:20300401T090000Z\r\n" in text
    assert "SEQUENCE:0\r\n" in text
    await ehr.store(visit("plain", comment="later"))
    assert "SEQUENCE:1\r\n" in await calendar(ada, "plain")
    assert "STATUS:CANCELLED" in await calendar(ada, "off")


async def test_what_is_private_is_left_out(ada: Caller, store: EmbeddedStore) -> None:
    text = await calendar(ada, "hidden")
    assert "SUMMARY:Appointment at Dermatology\r\n" in text
    await keep(store, PracticePolicy(key=DERM, private_services=(CHECK,)))
    for own_id in ("plain", "hidden"):
        text = await calendar(ada, own_id)
        assert "Skin" not in text
        assert "Bring" not in text


async def test_who_may_not_read_it_gets_none(ada: Caller, portal: Portal) -> None:
    mother = Caller(portal, a_proxy("ada", sections=("appointments",)))
    assert "SUMMARY" in await calendar(mother, "plain")
    assert (await mother.get("Appointment/hidden/$calendar")).status == 404
    for caller in (
        Caller(portal, a_proxy("kit", sections=("appointments",))),
        Caller(portal, a_proxy("ada", sections=("results",))),
        ada.with_scope("patient/Appointment.s"),
    ):
        assert (await caller.get("Appointment/plain/$calendar")).status in {403, 404}


async def test_the_place_is_told_to_who_may_see_it(ada: Caller) -> None:
    narrow = ada.with_scope("patient/Appointment.r")
    assert "LOCATION" not in await calendar(narrow, "plain")


async def test_what_has_no_time_is_no_event(ada: Caller) -> None:
    assert (await ada.get("Appointment/wish/$calendar")).status == 422
