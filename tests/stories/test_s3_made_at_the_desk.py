"""Story 3: staff make the access, print a sheet, and what is on it makes the account."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from fhir_portal.accounts.practice import Practice
from tests.builders import Json
from tests.smart.world import Browser
from tests.stories import chart
from tests.stories.answers import entries, request_for_appointment
from tests.stories.house import GOOD, NAMES, SKIN, House, given
from tests.stories.record import Followers
from tests.stories.story import Story
from tests.web.signing_in import problem, submit

ODA = chart.a_patient("oda", "Oda", "Brink", "1938-11-02", "", "")
SHEET = "/activate/sheet"


async def by_sheet(browser: Browser, told: Json, **other: str) -> None:
    await browser.open(SHEET)
    fields = {
        "practice_id": Practice(key=SKIN, name=NAMES[SKIN]).practice_id,
        "portal_id": told["portal-id"],
        "first_initial": "o",
        "last_initial": "b",
        "word": told["activation-word"],
        "year": "1938",
        "month": "11",
        "day": "2",
    }
    await submit(browser, SHEET, nth=0, **fields | other)


@pytest.mark.requirement(
    "portal", "S3-05", "S3-07", "S3-08", "S3-09", "S3-11", "S3-12", "S3-13", "S3-14", "S3-15",
    "S3-16", "S3-17", "S3-18", "S3-19",
)  # fmt: skip
async def test_made_at_the_desk(house: House, story: Story, tmp_path: Path) -> None:
    await house.decide(SKIN, booking="request")
    ehr = await house.ehr(SKIN)
    followers = Followers(await house.ehr(SKIN, "system/*.rs"), tmp_path)
    await ehr.transaction(*entries(chart.directory("desk", "reader")))
    oda = {name: value for name, value in ODA.items() if name != "telecom"}
    await ehr.transaction(*entries([oda, *chart.chart_of("oda")]))
    desk = await house.staff("desk", SKIN, "view", "invite", "revoke")
    reader = await house.staff("reader", SKIN, "view")
    invite = (given("kind", valueCode="self"), given("channel", valueCode="paper"))

    with story.step("S3-05", "S3-07"):
        assert await reader.get("Patient/oda")
        await reader.call("Patient/oda/$portal-invite", *invite, status=403)
        assert await ehr.search("Task?code=portal-invite") == []
    with story.step("S3-08", "S3-09"):
        told = await desk.call("Patient/oda/$portal-invite", *invite, status=201)
        task = await ehr.get(told["invitation"]["reference"])
        for secret in ("portal-id", "security-code", "activation-word"):
            assert told[secret] not in str(task)
        people = await desk.call("Patient/oda/$portal-people")
        assert told["activation-word"] not in str(people)
        again = await desk.call("Patient/oda/$portal-invite", *invite, status=409)
        assert told["security-code"] not in str(again)
    with story.step("S3-11"):
        path = f"{told['invitation']['reference']}/$print-instructions"
        sheet = await desk.ask("POST", path, PDF, Accept="application/fhir+json")
        assert sheet.status_code == 200
        assert sheet.json()["contentType"] == "application/pdf"
        # Printing makes new codes: what was told before opens nothing.
        old = house.browser()
        await by_sheet(old, told)
        assert problem(old)
        page = (await desk.ask("POST", path, HTML, Accept="application/fhir+json")).json()
        told |= printed(page)
    with story.step("S3-12", "S3-13", "S3-14", "S3-15", "S3-16", "S3-17"):
        browser = house.browser()
        await by_sheet(browser, told, last_initial="x")
        assert problem(browser)
        await by_sheet(browser, told)
        assert not problem(browser)
    with story.step("S3-18", "S3-19"):
        await submit(browser, "/activate/contact", nth=0, how="without", mail="")
        house.clock.advance(1)
        await submit(
            browser,
            "/activate/account",
            nth=0,
            username="oda.brink",
            password=GOOD,
            repeated=GOOD,
            how="password",
        )
        house.recorder.done("oda", "activated an account")
        oda_app = await house.patient(browser)
        assert oda_app.told["patient"] == "oda"
    with story.step("S3-02"):
        people = await desk.call("Patient/oda/$portal-people")
        assert "Person/" in str(people)
    with story.step("S0-04"):
        asked = await oda_app.post(request_for_appointment("oda", "A look at my hand"))
        await followers.look()
        refused = asked | {
            "status": "cancelled",
            "cancelationReason": {"text": "please call us"},
        }
        await ehr.transaction(("PUT", f"Appointment/{asked['id']}", refused))
        seen = await oda_app.get(f"Appointment/{asked['id']}")
        assert seen["cancelationReason"] == {"text": "please call us"}

    await followers.compare(house.recorder.actions)
    story.end()


PDF: Json = {
    "resourceType": "Parameters",
    "parameter": [given("format", valueCode="pdf")],
}
HTML: Json = {
    "resourceType": "Parameters",
    "parameter": [given("format", valueCode="html")],
}


def printed(binary: Json) -> Json:
    """What a sheet says to whoever holds it."""
    page = base64.b64decode(binary["data"]).decode()
    code, portal_id, word = re.findall(r"<dd>\s*(.*?)\s*</dd>", page)[:3]
    return {"security-code": code, "portal-id": portal_id, "activation-word": word}
