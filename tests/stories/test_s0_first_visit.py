"""Story 0: somebody is invited, makes an account, and goes through everything up to the bill.

The practice works with its own EHR, which sees each thing in the feed and answers there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import Json, reference
from tests.smart.world import Browser
from tests.stories import chart
from tests.stories.answers import (
    as_reply,
    booked,
    entries,
    filled_in,
    paid,
    request_for_appointment,
    said_in,
    starts_conversation,
)
from tests.stories.chart import DAY, at
from tests.stories.house import SKIN, Fhir, House, given
from tests.stories.record import Feed, Followers
from tests.stories.story import Story

MAIL, PHONE = "nora@mail.example", "+13125550142"
NORA = chart.a_patient("nora", "Nora", "Vale", "1984-05-12", MAIL, PHONE)
UNINSURED: Json = {"linkId": "has-insurance", "answer": [{"valueBoolean": False}]}
CHILD = chart.a_patient("pip", "Pip", "Vale", "2022-02-03", MAIL, PHONE)


async def invited(house: House, desk: Fhir, ehr: Fhir) -> Browser:
    """Staff invite; the link goes by mail, the code to the telephone; an account is made."""
    told = await desk.call(
        "Patient/nora/$portal-invite",
        given("kind", valueCode="self"),
        given("channel", valueCode="mail"),
        status=201,
    )
    assert told["status"] == "queued"
    link = (await house.mail("mail", MAIL, "invitation"))["link"]
    code = (await house.mail("sms", PHONE, "invitation"))["code"]
    task = await ehr.get(told["invitation"]["reference"])
    assert task["businessStatus"]["coding"][0]["code"] == "sent"
    browser = await house.activate(link, code, "nora.vale", postal_code="60614", born=(1984, 5, 12))
    task = await ehr.get(told["invitation"]["reference"])
    assert task["businessStatus"]["coding"][0]["code"] == "redeemed"
    return browser


@pytest.mark.requirement(
    "portal",
    "S0-02",
    "S0-04",
    "S0-05",
    "S0-06",
    "S0-10",
    "S0-11",
    "S0-12",
    "S0-17",
    "S0-22",
    "S0-26",
    "S0-32",
    "S0-33",
    "S0-34",
    "S0-35",
    "S0-36",
    "S0-38",
    "S0-39",
    "S0-42",
    "S0-43",
    "S0-48",
    "S0-49",
    "S0-58",
)
async def test_a_first_visit(house: House, story: Story, tmp_path: Path) -> None:
    await house.decide(SKIN, booking="request")
    ehr = await house.ehr(SKIN)
    followers = Followers(await house.ehr(SKIN, "system/*.rs"), tmp_path)
    await ehr.transaction(*entries(chart.directory("desk")))
    desk = await house.staff("desk", SKIN, "view", "invite", "forms")

    with story.step("S0-10"):
        await ehr.transaction(*entries([NORA, *chart.chart_of("nora")]))
        found = await desk.call("Patient/$match", given("resource", resource=probe()))
        assert [one["resource"]["id"] for one in found["entry"]] == ["nora"]
    with story.step("S0-58", "S0-11", "S0-12", "S0-17", "S0-22", "S0-26"):
        browser = await invited(house, desk, ehr)
    with story.step("S0-33", "S0-01"):
        async with house.http() as http:
            said = (await http.get("/fhir/.well-known/smart-configuration")).json()
        assert "S256" in said["code_challenge_methods_supported"]
        nora = await house.patient(browser)
        assert nora.told["patient"] == "nora"
    with story.step("S0-03"):
        assert (await nora.get("Patient/nora"))["name"] == NORA["name"]
        assert (await nora.ask("GET", "Patient/pip")).status_code == 404
    with story.step("S0-32", "S0-39"):
        first = await nora.call("Patient/nora/$portal-dashboard")
        assert first["last-visit"]["encounter"]["reference"] == "Encounter/nora-visit"

    with story.step("S0-04"):
        asked = await nora.post(request_for_appointment("nora", "A rash on the arm"))
        feed = await followers.look()
        assert f"Appointment/{asked['id']}" in feed.at(house.recorder.actions[-1].second)
        await ehr.transaction(*booked(asked, start=3 * DAY))
    with story.step("S0-05", "S0-34"):
        (visit,) = await nora.search("Appointment?status=booked&_sort=date")
        assert visit["start"] == at(3 * DAY)
        assert visit["reasonCode"] == [{"text": "A rash on the arm"}]
        first = await nora.call("Patient/nora/$portal-dashboard")
        assert first["next-appointment"]["appointment"]["reference"] == f"Appointment/{visit['id']}"

    with story.step("S0-06", "S0-36"):
        thread = await starts_conversation(nora, "May I bring my daughter?")
        feed = await followers.look()
        seen = feed.at(house.recorder.actions[-1].second)
        (message,) = [one for one in seen if is_message(feed, one)]
        await ehr.transaction(*as_reply(await ehr.get(message), "Yes, of course.", house.after(1)))
    with story.step("S0-49"):
        told = await nora.call(f"Communication/{thread}/$thread")
        assert said_in(told)[-1] == "Yes, of course."
        assert told["unread"] == 1
        await nora.call(f"Communication/{thread}/$mark-read")
        assert (await nora.call(f"Communication/{thread}/$thread"))["unread"] == 0

    with story.step("S0-35", "S0-48"):
        await desk.call(
            "Patient/nora/$request-form",
            given("questionnaire", valueCanonical=f"{chart.IG}/Questionnaire/pre-registration"),
            given("appointment", valueReference=reference(f"Appointment/{visit['id']}")),
            status=201,
        )
        answers = await filled_in(
            nora, "nora", "pre-registration", {"city": {"valueString": "Elmhurst"}}, UNINSURED
        )
        assert (await nora.get(f"QuestionnaireResponse/{answers}"))["status"] == "completed"
        feed = await followers.look()
        review = await ehr.one(f"Task?code=review-answers&focus=QuestionnaireResponse/{answers}")
        await ehr.call(f"Task/{review['id']}/$review-form", given("others", valueCode="accept"))
        assert (await nora.get("Patient/nora"))["address"][0]["city"] == "Elmhurst"

    with story.step("S0-46", "S0-43"):
        (letter,) = await nora.search("DocumentReference?status=current")
        file = await nora.ask("GET", letter["content"][0]["attachment"]["url"], Accept="*/*")
        assert file.content.startswith(b"%PDF")
    with story.step("S0-02", "S0-42"):
        summary = await nora.get("Patient/nora/$summary")
        assert summary["entry"][0]["resource"]["resourceType"] == "Composition"
        listed = await nora.get("DocumentReference/$docref?patient=nora")
        assert listed["total"] >= 1

    with story.step("S0-38"):
        (bill,) = await nora.search("Invoice?status=issued")
        due = await nora.call(f"Invoice/{bill['id']}/$amount-due")
        assert float(due["due"]["value"]) == 80
        order = await nora.call(
            f"Invoice/{bill['id']}/$pay",
            given("idempotency-key", valueString="nora-pays-1"),
            given("amount", valueMoney={"value": 30, "currency": "USD"}),
        )
        await paid(house, order)
        due = await nora.call(f"Invoice/{bill['id']}/$amount-due")
        assert float(due["due"]["value"]) == 50
        feed = await followers.look()
        await ehr.transaction(("PUT", f"Invoice/{bill['id']}", bill | {"status": "balanced"}))
        assert await nora.search("Invoice?status=issued") == []

    await followers.compare(house.recorder.actions)
    story.end()


def probe() -> Json:
    kept = ("resourceType", "name", "birthDate", "address")
    return {name: NORA[name] for name in kept}


def is_message(feed: Feed, key: str) -> bool:
    if not key.startswith("Communication/"):
        return False
    entry = next(one for one in feed.taken if one["fullUrl"].endswith(f"/{key}"))
    return "partOf" in entry["resource"]
