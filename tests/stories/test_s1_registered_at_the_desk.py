"""Story 1: an account without a mail address, a medical history, a bill in full, "I am here"."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_portal.accounts.practice import Practice
from tests.builders import Json, reference
from tests.smart.world import Browser
from tests.stories import chart
from tests.stories.answers import (
    as_reply,
    books,
    entries,
    filled_in,
    listed,
    paid,
    said_in,
    starts_conversation,
)
from tests.stories.chart import DAY, HOUR, IG, at
from tests.stories.house import GOOD, NAMES, SKIN, Fhir, House, given
from tests.stories.record import Followers
from tests.stories.story import Story
from tests.web.signing_in import submit

MAIL, PHONE = "vera@mail.example", "+13125550161"
VERA = chart.a_patient("vera", "Vera", "Moor", "1961-09-30", MAIL, PHONE)
NARROW = (
    "launch/patient patient/Patient.rs patient/Observation.rs?category="
    "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
)
NO: Json = {"valueBoolean": False}
YES: Json = {"valueBoolean": True}


def item(link_id: str, *answers: Json, items: list[Json] | None = None) -> Json:
    return {
        "linkId": link_id,
        **({"answer": list(answers)} if answers else {}),
        **({"item": items} if items else {}),
    }


HISTORY = (
    item("problems", YES),
    item("problem", items=[item("problem-what", {"valueString": "Hay fever"})]),
    item("allergies", NO),
    item("medicines", NO),
    item("smoking", items=[item("smokes", NO)]),
)


async def registered(house: House, desk: Fhir) -> Browser:
    """The desk hands the code over; it is typed in, and no mail address is given."""
    told = await desk.call(
        "Patient/vera/$portal-invite",
        given("kind", valueCode="self"),
        given("channel", valueCode="desk"),
        status=201,
    )
    browser = house.browser()
    await browser.open("/activate/code")
    await submit(
        browser,
        "/activate/code",
        nth=0,
        code=told["security-code"],
        practice_id=Practice(key=SKIN, name=NAMES[SKIN]).practice_id,
        year="1961",
        month="9",
        day="30",
        postal_code="60614",
    )
    await submit(browser, "/activate/contact", nth=0, how="without", mail="")
    house.clock.advance(1)
    await submit(
        browser,
        "/activate/account",
        nth=0,
        username="vera.moor",
        password=GOOD,
        repeated=GOOD,
        how="password",
    )
    assert len(browser.document.xpath('//ol[@class="codes"]/li')) == 10
    house.recorder.done("vera", "activated an account")
    return browser


@pytest.mark.requirement(
    "portal", "S0-32", "S0-38", "S0-39", "S0-59", "S1-02", "S1-03", "S1-05", "S1-10", "S1-13",
    "S1-14", "S1-18", "S1-24", "S1-28", "S1-30", "S1-31", "S1-32", "S1-36", "S1-37", "S2-02",
)  # fmt: skip
async def test_registered_at_the_desk(house: House, story: Story, tmp_path: Path) -> None:
    await house.decide(SKIN, booking="book")
    ehr = await house.ehr(SKIN)
    followers = Followers(await house.ehr(SKIN, "system/*.rs"), tmp_path)
    await ehr.transaction(*entries(chart.directory("desk")))
    await ehr.transaction(*entries([VERA, *chart.chart_of("vera")]))
    desk = await house.staff("desk", SKIN, "view", "invite", "forms", "messages")

    with story.step("S0-59", "S1-05", "S1-10", "S1-13", "S1-14", "S1-18", "S1-24"):
        browser = await registered(house, desk)
    with story.step("S1-35"):
        narrow = await house.patient(browser, scope=NARROW)
        assert await narrow.search("Observation?category=laboratory")
        assert (await narrow.ask("GET", "Condition")).status_code == 403
        (other,) = chart.chart_of("vera")[1:2]
        assert (await narrow.ask("GET", f"Condition/{other['id']}")).status_code == 403
    vera = await house.patient(browser)
    with story.step("S0-32", "S0-39", "S1-02", "S1-36"):
        first = await vera.call("Patient/vera/$portal-dashboard")
        assert first["balance"]["bills"] == 1
        assert first["last-visit"]["encounter"]["reference"] == "Encounter/vera-visit"
        assert first["new-results"]["count"] == 1
    with story.step("S1-31"):
        (note,) = await vera.search("DocumentReference?encounter=Encounter/vera-visit")
        assert note["id"] == "vera-note"

    with story.step("S1-30"):
        await desk.call(
            "Patient/vera/$request-form",
            given("questionnaire", valueCanonical=f"{IG}/Questionnaire/medical-history"),
            status=201,
        )
        signature = {
            "url": "http://hl7.org/fhir/StructureDefinition/questionnaireresponse-signature",
            "valueSignature": {
                "type": [
                    {
                        "system": "urn:iso-astm:E1762-95:2013",
                        "code": "1.2.840.10065.1.12.1.1",
                    }
                ],
                "when": at(0),
                "who": reference("Patient/vera"),
            },
        }
        answers = await filled_in(
            vera, "vera", "medical-history", {}, *HISTORY, extension=[signature]
        )
        await followers.look()
        review = await ehr.one(f"Task?code=review-answers&focus=QuestionnaireResponse/{answers}")
        told = await ehr.call(
            f"Task/{review['id']}/$review-form", given("others", valueCode="accept")
        )
        (accepted,) = listed(told["accepted"])
        made = await vera.get(accepted["reference"])
        assert made["meta"]["tag"][0]["code"] == "patient-reported"
        said = await vera.search(f"Provenance?target={accepted['reference']}")
        assert any("Patient/vera" in str(one["agent"]) for one in said)

    with story.step("S2-02"):
        visit = await books(vera, "vera")
        await followers.look()
        assert (await ehr.get(f"Appointment/{visit}"))["status"] == "booked"
    with story.step("S1-03", "S1-32"):
        thread = await starts_conversation(vera, "Is there a ramp?")
        (message,) = await ehr.search(f"Communication?part-of=Communication/{thread}")
        await ehr.transaction(*as_reply(message, "Yes, at the side.", house.after(1)))
        told = await vera.call(f"Communication/{thread}/$thread")
        assert said_in(told) == ["Is there a ramp?", "Yes, at the side."]

    with story.step("S0-38", "S1-28"):
        order = await vera.call(
            "Invoice/vera-bill/$pay", given("idempotency-key", valueString="vera-pays-1")
        )
        await paid(house, order)
        (bill,) = await vera.search("Invoice")
        assert bill["status"] == "balanced"
        feed = await followers.look()
        kinds = {one.partition("/")[0] for one in feed.at(house.recorder.actions[-1].second)}
        assert {"PaymentNotice", "PaymentReconciliation", "Invoice"} <= kinds
        first = await vera.call("Patient/vera/$portal-dashboard")
        assert first["balance"]["bills"] == 0

    with story.step("S1-37"):
        house.clock.advance(3 * DAY - HOUR / 2 - (house.clock() - house.began))
        vera = await house.patient(browser, username="vera.moor", password=GOOD)
        told = await vera.call(f"Appointment/{visit}/$check-in")
        assert told["ahead"] == 0
        ehr = await house.ehr(SKIN)
        followers.ehr_again(await house.ehr(SKIN, "system/*.rs"))
        await followers.look()
        here = await ehr.get(f"Appointment/{visit}")
        assert here["status"] == "arrived"
        await ehr.transaction(
            ("PUT", f"Appointment/{visit}", here | {"status": "checked-in"}),
        )
        assert (await vera.get(f"Appointment/{visit}"))["status"] == "checked-in"

    await followers.compare(house.recorder.actions)
    story.end()
