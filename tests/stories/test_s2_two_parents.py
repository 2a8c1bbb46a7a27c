"""Story 2: a child's record and two parents, each with their own account and their own grant."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from fhir_portal.accounts.practice import Practice
from tests.builders import Json, reference
from tests.documents.pictures import a_picture
from tests.smart.world import Browser
from tests.stories import chart
from tests.stories.answers import (
    as_reply,
    books,
    entries,
    filled_in,
    listed,
    said_in,
    starts_conversation,
)
from tests.stories.chart import DOCTOR, IG
from tests.stories.house import GOOD, NAMES, SKIN, Fhir, House, given
from tests.stories.record import Followers
from tests.stories.story import Story
from tests.web.signing_in import submit

MOTHER, FATHER = "mira@mail.example", "tom@mail.example"
LIO = chart.a_patient("lio", "Lio", "Fenn", "2022-02-03", "home@mail.example", "+13125550171")
ALL = (
    *("demographics", "insurance", "appointments", "messages", "documents", "forms", "results"),
    *("medications", "immunizations", "health-summary", "visits", "billing"),
)
INSURED: Json = {
    "plan": {"valueString": "Harbor Health"},
    "member-id": {"valueString": "H-77"},
}
BORN = {"year": "2022", "month": "2", "day": "3", "postal_code": "60614"}


def a_parent(first: str, relationship: str, mail: str, *more: Json) -> list[Json]:
    return [
        given("kind", valueCode="guardian"),
        given("name", valueHumanName={"family": "Fenn", "given": [first]}),
        given("relationship", valueCodeableConcept={"text": relationship}),
        given("telecom", valueContactPoint={"system": "email", "value": mail}),
        given("basis", valueCode="parent"),
        given("channel", valueCode="desk"),
        *more,
    ]


def sections(*names: str) -> list[Json]:
    """These are shown, and acted in."""
    return [
        given("section", part=[given("code", valueCode=one), given("act", valueBoolean=True)])
        for one in names
    ]


async def comes_in(house: House, told: Json, username: str) -> Browser:
    """With the code that was handed over."""
    browser = house.browser()
    await browser.open("/activate/code")
    await submit(
        browser,
        "/activate/code",
        nth=0,
        code=told["security-code"],
        practice_id=Practice(key=SKIN, name=NAMES[SKIN]).practice_id,
        **BORN,
    )
    await submit(browser, "/activate/contact", nth=0, how="without", mail="")
    house.clock.advance(1)
    await submit(
        browser,
        "/activate/account",
        nth=0,
        username=username,
        password=GOOD,
        repeated=GOOD,
        how="password",
    )
    house.recorder.done(username, "activated an account")
    return browser


async def is_refused(caller: Fhir, *paths: str) -> None:
    for path in paths:
        found = await caller.ask("GET", path)
        assert found.status_code in {403, 404} or not found.json().get("entry"), path


@pytest.mark.requirement(
    "portal",
    "S2-02",
    "S2-03",
    "S2-04",
    "S2-11",
    "S2-12",
    "S2-13",
    "S2-27",
    "S2-28",
    "S2-29",
    "S2-30",
)
async def test_two_parents(house: House, story: Story, tmp_path: Path) -> None:
    await house.decide(SKIN, booking="book")
    ehr = await house.ehr(SKIN)
    followers = Followers(await house.ehr(SKIN, "system/*.rs"), tmp_path)
    await ehr.transaction(*entries(chart.directory("desk", "chief")))
    await ehr.transaction(*entries([LIO, *chart.chart_of("lio"), chart.a_care_team("lio")]))
    desk = await house.staff("desk", SKIN, "view", "invite", "proxies", "forms")
    chief = await house.staff("chief", SKIN, "view", "proxies")

    with story.step("S2-23", "S2-25", "S2-26"):
        # The EHR invites the mother, staff the father: of him a second one makes sure.
        hers = await ehr.call(
            "Patient/lio/$portal-invite",
            *a_parent("Mira", "mother", MOTHER, *sections(*ALL)),
            status=201,
        )
        at_home = await comes_in(house, hers, "mira.fenn")
        mira = await house.patient(at_home, "Patient/lio")
        his = await desk.call(
            "Patient/lio/$portal-invite",
            *a_parent("Tom", "father", FATHER, *sections("appointments")),
            status=201,
        )
        away = await comes_in(house, his, "tom.fenn")
        number = re.search(r"\d{3} \d{3}", away.text)
        assert number is not None, away.text
        house.clock.advance(1)
        await chief.call(
            f"{his['invitation']['reference']}/$confirm-proxy",
            given("number", valueString=number[0]),
        )
        tom = await house.patient(away, "Patient/lio")
        assert mira.told["patient"] == tom.told["patient"] == "lio"
    with story.step("S2-24"):
        # Each sees what their own grant shows, and nothing of the other parent's.
        assert await mira.search("Observation")
        await is_refused(tom, "Observation", "Condition", "Communication", "Invoice")
        for one in (mira, tom):
            assert len(await one.search("RelatedPerson")) == 1
            assert len(await one.search("Consent")) == 1
        assert (await mira.search("RelatedPerson")) != (await tom.search("RelatedPerson"))
        assert (await mira.search("Consent")) != (await tom.search("Consent"))

    with story.step("S2-05", "S2-07", "S2-10", "S2-11"):
        for name in ("DiagnosticReport", "Immunization", "MedicationRequest", "Encounter"):
            assert await mira.search(name), name
    with story.step("S2-13"):
        (bill,) = await mira.search("Invoice?status=issued")
        due = await mira.call(f"Invoice/{bill['id']}/$amount-due")
        assert float(due["due"]["value"]) == 80
        assert (await tom.ask("POST", f"Invoice/{bill['id']}/$amount-due")).status_code == 403

        told = await mira.call(
            f"Invoice/{bill['id']}/$dispute",
            given("reason", valueString="We were not there on that day."),
        )
        feed = await followers.look()
        task = told["task"]["reference"]
        assert task in feed.at(house.recorder.actions[-1].second)
        asked = await ehr.get(task)
        assert asked["focus"]["reference"] == f"Invoice/{bill['id']}"
        lower = bill | {"totalGross": {"value": 40, "currency": "USD"}}
        said = {"status": "completed", "statusReason": {"text": "One visit was counted twice."}}
        await ehr.transaction(("PUT", f"Invoice/{bill['id']}", lower), ("PUT", task, asked | said))
        due = await mira.call(f"Invoice/{bill['id']}/$amount-due")
        assert float(due["due"]["value"]) == 40
        assert (await mira.get(task))["statusReason"] == said["statusReason"]

    with story.step("S2-02"):
        visit = await books(mira, "lio")
        other = await books(tom, "lio", number=1)
        await followers.look()
        assert {one["id"] for one in await ehr.search("Appointment?status=booked")} == {
            visit,
            other,
        }
    with story.step("S2-12"):
        cancelled = {
            "status": "cancelled",
            "cancelationReason": {"text": "the other one is enough"},
        }
        was = await ehr.get(f"Appointment/{other}")
        await ehr.transaction(("PUT", f"Appointment/{other}", was | cancelled))
        assert [one["id"] for one in await tom.search("Appointment?status=cancelled")] == [other]

    with story.step("S2-04", "S2-27", "S2-28"):
        picture = base64.b64encode(a_picture("JPEG", (64, 64))).decode()
        thread = await starts_conversation(
            mira,
            "The rash is back.",
            given("attachment", valueAttachment={"contentType": "image/jpeg", "data": picture}),
            to=DOCTOR,
        )
        await followers.look()
        (message,) = await ehr.search(f"Communication?part-of=Communication/{thread}")
        assert message["sender"]["reference"].startswith("RelatedPerson/")
        (file,) = [one for one in message["payload"] if "contentAttachment" in one]
        assert (await ehr.ask("GET", file["contentAttachment"]["url"])).status_code == 200
        await is_refused(tom, f"Communication/{thread}")
    with story.step("S2-29"):
        await ehr.transaction(*as_reply(message, "Use the ointment twice a day.", house.after(1)))
        told = await mira.call("Communication/$threads")
        assert told["unread"] == 1
        found = await mira.call(f"Communication/{thread}/$thread")
        assert said_in(found)[-1] == "Use the ointment twice a day."

    with story.step("S2-03"):
        told = await mira.call("MedicationRequest/lio-ointment/$request-refill")
        if told.get("task") is None:
            told = await mira.call(
                "MedicationRequest/lio-ointment/$request-refill",
                given("acknowledged", valueBoolean=True),
            )
        await followers.look()
        task = await ehr.get(told["task"]["reference"])
        assert task["focus"]["reference"] == "MedicationRequest/lio-ointment"
        await ehr.transaction(("PUT", f"Task/{task['id']}", task | {"status": "accepted"}))
        status = await mira.call("MedicationRequest/lio-ointment/$refill-status")
        assert listed(status["request"])[0]["status"] == "approved"
        assert (
            await tom.ask("POST", "MedicationRequest/lio-ointment/$request-refill")
        ).status_code in {403, 404}

    with story.step("S2-30", "S2-38"):
        await desk.call(
            "Patient/lio/$request-form",
            given("questionnaire", valueCanonical=f"{IG}/Questionnaire/insurance"),
            status=201,
        )
        answers = await filled_in(mira, "lio", "insurance", INSURED)
        stored = await mira.get(f"QuestionnaireResponse/{answers}")
        assert stored["source"]["reference"].startswith("RelatedPerson/")
        provenances = await ehr.search(f"Provenance?target=QuestionnaireResponse/{answers}")
        assert any(
            one["agent"][0].get("onBehalfOf") == reference("Patient/lio") for one in provenances
        )
        await followers.look()
        review = await ehr.one(f"Task?code=review-answers&focus=QuestionnaireResponse/{answers}")
        await ehr.call(f"Task/{review['id']}/$review-form", given("others", valueCode="accept"))
        assert len(await mira.search("Coverage")) == 2

    with story.step("S2-26"):
        # One grant ends; the other parent goes on.
        await chief.call(
            f"{his['grant']['reference']}/$end-grant",
            given("reason", valueString="a court said so"),
        )
        assert (await tom.ask("GET", "Appointment")).status_code == 401
        assert await mira.search("Appointment")

    await followers.compare(house.recorder.actions)
    story.end()
