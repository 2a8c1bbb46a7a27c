"""Story 4: somebody acts for an aged parent in some sections; staff shut out, and let in again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_portal.accounts.practice import Practice
from tests.builders import Json, a_document, reference
from tests.stories import chart
from tests.stories.answers import entries, filled_in
from tests.stories.chart import IG
from tests.stories.house import GOOD, NAMES, SKIN, House, given
from tests.stories.record import Followers
from tests.stories.story import Story
from tests.web.signing_in import submit

MAIL, PHONE = "emil@mail.example", "+13125550199"
EMIL = chart.a_patient("emil", "Emil", "Stark", "1936-04-01", MAIL, PHONE)
DEED: Json = a_document("emil-deed", of="emil")


def representative(*sections: str) -> list[Json]:
    return [
        given("kind", valueCode="representative"),
        given("name", valueHumanName={"family": "Stark", "given": ["Ruth"]}),
        given("relationship", valueCodeableConcept={"text": "daughter"}),
        given("telecom", valueContactPoint={"system": "email", "value": "ruth@mail.example"}),
        given("basis", valueCode="power-of-attorney"),
        given("evidence", valueReference=reference("DocumentReference/emil-deed")),
        given("period", valuePeriod={"end": "2031-01-01"}),
        given("channel", valueCode="desk"),
        *(
            given("section", part=[given("code", valueCode=one), given("act", valueBoolean=True)])
            for one in sections
        ),
    ]


@pytest.mark.requirement(
    "portal", "S4-04", "S4-05", "S4-08", "S4-12", "S4-13", "S4-14", "S4-15", "S4-16", "S4-17",
    "S4-19", "S4-20", "S4-22",
)  # fmt: skip
async def test_a_representative(house: House, story: Story, tmp_path: Path) -> None:
    await house.decide(SKIN, booking="book", proxy_confirmation=False)
    ehr = await house.ehr(SKIN)
    followers = Followers(await house.ehr(SKIN, "system/*.rs"), tmp_path)
    await ehr.transaction(*entries(chart.directory("desk")))
    await ehr.transaction(*entries([EMIL, *chart.chart_of("emil"), DEED]))
    everything = ("view", "invite", "proxies", "revoke", "recover", "forms", "administer")
    desk = await house.staff("desk", SKIN, *everything)

    with story.step("S4-04", "S4-05", "S4-08", "S4-17"):
        asked = representative("appointments", "forms", "demographics")
        told = await desk.call("Patient/emil/$portal-invite", *asked, status=201)
        twice = await desk.ask(
            "POST",
            "Patient/emil/$portal-invite",
            {"resourceType": "Parameters", "parameter": asked},
        )
        assert twice.status_code == 409
        browser = house.browser()
        await browser.open("/activate/code")
        await submit(
            browser,
            "/activate/code",
            nth=0,
            code=told["security-code"],
            practice_id=Practice(key=SKIN, name=NAMES[SKIN]).practice_id,
            year="1936",
            month="4",
            day="1",
            postal_code="60614",
        )
        await submit(browser, "/activate/contact", nth=0, how="without", mail="")
        house.clock.advance(1)
        await submit(
            browser,
            "/activate/account",
            nth=0,
            username="ruth.stark",
            password=GOOD,
            repeated=GOOD,
            how="password",
        )
        house.recorder.done("ruth", "activated an account")
    with story.step("S4-03", "S4-07", "S4-12"):
        ruth = await house.patient(browser, "Patient/emil")
        assert (await ruth.get("Patient/emil"))["birthDate"] == "1936-04-01"
        assert await ruth.search("Appointment") == []
        for name in ("Condition", "Observation", "MedicationRequest", "Invoice"):
            found = await ruth.ask("GET", name)
            assert found.status_code == 403 or not found.json().get("entry"), name

    with story.step("S4-14"):
        task = await desk.call(
            "Patient/emil/$request-form",
            given("questionnaire", valueCanonical=f"{IG}/Questionnaire/insurance"),
            given("due", valueDate="2030-04-01"),
            status=201,
        )
        answers = await filled_in(ruth, "emil", "insurance", {}, INSURED)
        await followers.look()
        done = await ehr.get(task["task"]["reference"])
        assert done["status"] == "completed"
        assert done["output"][0]["valueReference"] == reference(f"QuestionnaireResponse/{answers}")
        review = await ehr.one(f"Task?code=review-answers&focus=QuestionnaireResponse/{answers}")
        await ehr.call(f"Task/{review['id']}/$review-form", given("others", valueCode="refuse"))
        assert [one["id"] for one in await ehr.search("Coverage?patient=emil")] == ["emil-plan"]
    with story.step("S4-15"):
        # Of two who change the same version one is told.
        now = await ruth.get(f"QuestionnaireResponse/{answers}")
        version = f'W/"{now["meta"]["versionId"]}"'
        path = f"QuestionnaireResponse/{answers}"
        first = await ruth.ask("PUT", path, now | {"status": "amended"}, **{"If-Match": version})
        assert first.status_code == 200
        second = await ehr.ask("PUT", path, now | {"language": "en"}, **{"If-Match": version})
        assert second.status_code == 412

    person = await ehr.one("Person?link=RelatedPerson/" + told["related-person"]["reference"][14:])
    with story.step("S4-19", "S4-22"):
        open_now = await desk.call("Person/$portal-accounts", given("status", valueCode="enabled"))
        assert person["id"] in str(open_now)
    with story.step("S4-20"):
        why = given("reason", valueCode="suspected-misuse")
        await desk.call(f"Person/{person['id']}/$account-disable", why)
        assert (await ruth.ask("GET", "Patient/emil")).status_code == 401
        feed = await followers.look()
        assert any(one["fullUrl"].endswith(f"Person/{person['id']}") for one in feed.taken)
        shut = await desk.call("Person/$portal-accounts", given("status", valueCode="disabled"))
        assert person["id"] in str(shut)
        await desk.call(
            f"Person/{person['id']}/$account-enable", given("reason", valueCode="resolved")
        )
        again = house.browser()
        ruth = await house.patient(again, "emil", username="ruth.stark", password=GOOD)
        assert await ruth.get("Patient/emil")
    with story.step("S4-13"):
        await desk.call(
            f"Person/{person['id']}/$require-credential-renewal",
            given("reason", valueCode="staff-request"),
        )
        await again.open("/account/apps")
        assert again.heading == "Sign in"
        page = await again.sign_in("ruth.stark", GOOD)
        assert page.status_code == 200
        assert again.heading != "Apps"
    with story.step("S4-16"):
        await desk.call(
            f"Person/{person['id']}/$account-close", given("reason", valueCode="owner-request")
        )
        assert (await ruth.ask("GET", "Patient/emil")).status_code == 401
        feed = await followers.look()
        gone = await ehr.get(told["grant"]["reference"])
        assert gone["status"] == "inactive"

    await followers.compare(house.recorder.actions)
    story.end()


INSURED: Json = {
    "linkId": "insurance",
    "item": [
        {"linkId": "plan", "answer": [{"valueString": "Harbor Health"}]},
        {"linkId": "member-id", "answer": [{"valueString": "H-78"}]},
    ],
}
