"""The portal's page about what was viewed, downloaded and sent; and how AuditEvents say it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from fhir_portal.access.log import AccessRow
from fhir_portal.accounts.account import Account
from fhir_portal.resources import audit_event
from fhir_portal.resources.audit_event import ACTIVITY, activity_of
from fhir_portal.smart.portal_pages import CLIENT
from fhir_portal.web.pages.portal_health import CERTIFICATE
from tests.builders import (
    Caller,
    a_binary,
    a_client,
    a_document,
    a_grant,
    an_ehr,
    concept,
    keep,
    oneself,
)
from tests.operations.sharing import a_link, documents, signed_in
from tests.staff import a_member_of_staff
from tests.web.portal_world import ADA, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, submit
from tests.web.staff_world import links

PAGE = "/portal/activity"
ONE = "/portal/documents/one"


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    for own_id, of in (("letter", "bo"), ("of-kit", "kit")):
        letter = a_document(
            own_id, of=of, binary=own_id, type=concept("http://loinc.org", "11488-4")
        )
        await found.put(a_binary(own_id), letter)
    await found.put(a_grant("grant", of="kit", to="mother", sections=["documents"]))
    yield found
    found.close()


@pytest.mark.requirement("portal", "S0-43")
async def test_what_was_viewed_and_downloaded_is_told_apart(portal: PortalWorld) -> None:
    browser = await portal.at(f"{ONE}/letter")
    await browser.open(f"{ONE}/letter/file/1")
    await browser.open("/portal/documents/summary/pdf")
    await browser.open(PAGE)
    assert "You downloaded What a specialist found" in browser.text
    assert "You viewed What a specialist found" in browser.text
    assert "You downloaded a summary of the record" in browser.text
    await browser.open(f"{PAGE}?did=download")
    assert "viewed What" not in browser.text
    assert "You downloaded What a specialist found" in browser.text
    await browser.open(f"{PAGE}?did=transmit")
    assert "Nothing in these days." in browser.text
    for nothing in ("delete", "view,download"):
        assert (await browser.open(f"{PAGE}?did={nothing}")).status_code == 404


@pytest.mark.requirement("portal", "S0-43")
async def test_the_whole_record_that_was_taken_along_is_a_download(portal: PortalWorld) -> None:
    browser = await portal.at("/portal/export")
    assert (await submit(browser, "/portal/export")).status_code == 200
    await browser.open(f"{CERTIFICATE}/pdf")
    assert browser.page.status_code == 200
    await browser.open(f"{PAGE}?did=download")
    assert "You downloaded the record as one file" in browser.text
    assert "You downloaded a certificate of vaccinations" in browser.text


@pytest.mark.requirement("portal", "S0-43")
async def test_what_was_seen_by_a_link_is_told_of_who_opened_it(portal: PortalWorld) -> None:
    store = portal.world.store
    await keep(store, a_client(CLIENT))
    account = next(one for one in await store.every(Account) if one.username == "bo")
    auth = replace(oneself("bo", SKIN, scope="patient/*.cruds"), account=account.key, client=CLIENT)
    bo = await signed_in(portal.world.portal, auth, "bo", family="")
    link = await a_link(bo, "bo", *documents("letter"))
    async with portal.world.http() as http:
        said = {"recipient": "Dr. Abel", "passcode": link.passcode, "embeddedLengthMax": 100_000}
        opened = await http.post(link.payload["url"], json=said)
        assert opened.status_code == 200
    browser = await portal.at(PAGE)
    assert "Dr. Abel, by a link of yours, downloaded What a specialist found" in browser.text
    assert "You downloaded What a specialist found" not in browser.text


async def test_earlier_days_have_pages_of_their_own(portal: PortalWorld) -> None:
    browser = await portal.at(f"{ONE}/letter")
    await browser.open(f"{ONE}/letter/file/1")
    portal.world.clock.advance(31 * 86_400)
    browser = await portal.at(PAGE)
    assert "downloaded What" not in browser.text
    (earlier,) = links(browser, f"{PAGE}?until=")
    await browser.open(earlier)
    assert "You downloaded What a specialist found" in browser.text
    (download,) = [one for one in links(browser, f"{PAGE}?did=download") if "until" in one]
    await browser.open(download)
    assert "You downloaded What a specialist found" in browser.text
    assert PAGE in links(browser)
    for wrong in ("2026-02-31", "yesterday", "1026-01-01", "9999-01-01"):
        assert (await browser.open(f"{PAGE}?until={wrong}")).status_code == 404


async def test_a_log_too_long_to_look_through_is_said(
    portal: PortalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Caller(portal.world.portal, oneself("bo", SKIN))
    for _ in range(5):
        await app.get("DocumentReference/letter")
    monkeypatch.setattr(audit_event, "_CHUNK", 1)
    monkeypatch.setattr(audit_event, "_CHUNKS", 2)
    browser = await portal.at(f"{PAGE}?did=transmit")
    assert browser.page.status_code == 200
    assert "not all of it can be looked through" in browser.text


async def test_apps_and_staff_are_named_and_repetitions_are_one_line(portal: PortalWorld) -> None:
    app = Caller(portal.world.portal, oneself("bo", SKIN))
    for _ in range(3):
        await app.get("Binary/letter")
    staff = a_member_of_staff("lark", SKIN, permissions=("view",))
    await Caller(portal.world.portal, staff).get("DocumentReference/letter")
    browser = await portal.at(PAGE)
    (line,) = [
        " ".join(one.itertext())
        for one in browser.document.xpath("//main//li")
        if "downloaded" in one.text_content()
    ]
    assert "3 times that day" in line
    assert "with the app app" in line
    assert "Lark viewed What a specialist found" in browser.text


async def test_who_acts_for_somebody_sees_their_own_lines_alone(portal: PortalWorld) -> None:
    kit = Caller(portal.world.portal, oneself("kit", SKIN))
    await kit.get("Binary/of-kit")
    mother = await portal.at(f"{ONE}/of-kit", ADA, "kit")
    assert PAGE not in links(mother)
    await mother.open(PAGE)
    assert mother.page.status_code == 200
    assert "What you yourself viewed" in mother.text
    assert "You viewed What a specialist found" in mother.text
    assert "downloaded" not in mother.text.replace("Downloaded", "")
    other = await portal.at(PAGE)
    assert "specialist" not in other.text


async def test_a_document_that_is_hidden_now_has_no_title(portal: PortalWorld) -> None:
    mother = await portal.at(f"{ONE}/of-kit", ADA, "kit")
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["visits"]))
    mother = await portal.at(PAGE, ADA, "kit")
    assert "viewed Documents and visit notes" in mother.text
    assert "specialist" not in mother.text


async def test_earlier_lines_are_on_the_next_page(portal: PortalWorld) -> None:
    app = Caller(portal.world.portal, oneself("bo", SKIN))
    for _ in range(110):
        await app.get("DocumentReference/letter")
    browser = await portal.at(PAGE)
    (form,) = [one for one in forms(browser, PAGE) if "page" in one.fields]
    await post(browser, PAGE, fields_of(form))
    assert browser.page.status_code == 200
    assert "viewed What a specialist found" in browser.text
    for wrong in ({"page": "x y"}, {"did": "x"}, {"form_token": "x"}, {"page": "nonsense"}):
        await browser.open(PAGE)
        await post(browser, PAGE, {**fields_of(form), **wrong})
        assert 400 <= browser.page.status_code < 500


@pytest.mark.requirement("portal", "S0-43")
async def test_audit_events_are_found_by_what_was_done(portal: PortalWorld) -> None:
    bo = Caller(portal.world.portal, oneself("bo", SKIN))
    await bo.get("DocumentReference/letter")
    await bo.get("Binary/letter")
    await bo.get("Binary/nothing")
    ehr = Caller(portal.world.portal, an_ehr(SKIN))
    for caller in (bo, ehr):
        found = (await caller.get(f"AuditEvent?subtype={ACTIVITY}|download")).entries
        told = [one["entity"][-1]["what"]["reference"] for one in found]
        assert told == ["Binary/letter"]
    kit = Caller(portal.world.portal, oneself("kit", SKIN))
    assert (await kit.get(f"AuditEvent?subtype={ACTIVITY}|download")).entries == []


@pytest.mark.parametrize(
    ("interaction", "what", "status", "said", "activity"),
    [
        ("read", "Observation/x", 200, "", "view"),
        ("search-type", "Observation", 200, "", "view"),
        ("read", "Binary/x", 200, "", "download"),
        ("read", "Binary/x", 200, "view", "view"),
        ("read", "Binary/x", 404, "download", ""),
        ("$summary", "Patient/x", 200, "", "view"),
        ("$summary", "Patient/x", 200, "download", "download"),
        ("$ccd", "Patient/x", 200, "", "download"),
        ("$export-self", "Patient/x", 200, "", "download"),
        ("$export-self", "Patient/x", 404, "", ""),
        ("$immunization-certificate", "Patient/x", 200, "", "download"),
        ("$health-cards-issue", "Patient/x", 200, "", "download"),
        ("$receipt", "PaymentNotice/x", 200, "", "download"),
        ("$transmit", "Patient/x", 200, "", "transmit"),
        ("$send", "Communication", 200, "", ""),
        ("create", "Communication/x", 201, "", ""),
    ],
)
def test_an_activity_is_what_a_page_says_or_what_was_fetched(
    interaction: str, what: str, status: int, said: str, activity: str
) -> None:
    row = AccessRow(0, SKIN, "x", interaction, what, status, "app", "patient", activity=said)
    assert activity_of(row) == activity
