"""``/portal/export``: the record that is open, as one file, for whoever may see some of it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from zipfile import ZipFile

import pytest

from fhir_portal.web import downloads
from tests.builders import an_appointment, an_observation, some_answers
from tests.smart.world import Browser
from tests.web.portal_world import ADA, PortalWorld
from tests.web.signing_in import fields_of, forms, submit

pytestmark = pytest.mark.requirement("portal", "S2-15")

EXPORT = "/portal/export"


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await found.put(
        an_observation("hers", of="ada"),
        an_observation("kits", of="kit"),
        some_answers("answers", of="ada"),
    )
    yield found
    found.close()


async def keys_of(browser: Browser) -> set[str]:
    """Press the button; ``Type/id`` of all that is in the file."""
    await browser.open(EXPORT)
    answer = await submit(browser, EXPORT)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith('attachment; filename="health-record-')
    assert answer.headers["cache-control"] == "no-store"
    with ZipFile(io.BytesIO(answer.content)) as found:
        return {
            f"{one['resourceType']}/{one['id']}"
            for name in found.namelist()
            if name.startswith("data/")
            for one in map(json.loads, found.read(name).splitlines())
        }


async def test_the_record_that_is_open_is_taken_along(portal: PortalWorld) -> None:
    browser = await portal.at(EXPORT, ADA, record="ada")
    assert browser.heading == "Take your record with you"
    found = await keys_of(browser)
    assert {"Patient/ada", "Observation/hers", "QuestionnaireResponse/answers"} <= found
    assert "Observation/kits" not in found


async def test_of_a_childs_record_there_is_what_the_grant_shows(portal: PortalWorld) -> None:
    """The grant shows appointments alone."""
    await portal.put(an_appointment("visit", of=["kit"]))
    browser = await portal.at(EXPORT, ADA, record="kit")
    found = await keys_of(browser)
    assert "Appointment/visit" in found
    assert {one for one in found if one.startswith(("Observation/", "Patient/"))} == set()


async def test_every_page_of_the_portal_leads_there(portal: PortalWorld) -> None:
    browser = await portal.at("/portal", ADA, record="ada")
    assert EXPORT in browser.document.xpath("//nav//a/@href")


async def test_the_button_of_another_record_or_page_fetches_nothing(portal: PortalWorld) -> None:
    browser = await portal.at(EXPORT, ADA, record="ada")
    fields = fields_of(forms(browser, EXPORT)[0])
    await browser.open("/portal/record")
    await submit(browser, "/portal/record", record="skin/Patient/kit")
    answer = await browser.http.post(EXPORT, data=fields)
    assert answer.status_code == 403
    assert not answer.headers["content-type"].startswith("application/zip")
    assert (await browser.http.post(EXPORT, data={"form_token": "x"})).status_code == 403


async def test_who_is_not_signed_in_gets_nothing(portal: PortalWorld) -> None:
    browser = portal.world.browser()
    assert (await browser.http.post(EXPORT, data={"form_token": "x"})).status_code == 303
    answer = await browser.http.get(EXPORT)
    assert answer.headers["location"].startswith("/signin")


async def test_too_many_at_once_is_said_on_a_page(
    portal: PortalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "AT_ONCE", 0)
    browser = await portal.at(EXPORT, ADA, record="ada")
    answer = await submit(browser, EXPORT)
    assert answer.status_code == 429
    assert "running already" in answer.text
    monkeypatch.setattr(downloads, "AT_ONCE", 1)
    for _ in range(2):  # each gives its place back
        assert await keys_of(browser)
