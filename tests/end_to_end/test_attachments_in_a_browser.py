"""What people attach cannot run in the origin of the sign-in, whatever it says that it is.

Some of it no operation takes; an EHR might have stored it all the same. The staff open each file
that came with a message, a patient and the staff each file of a document, in a real browser:
nothing of it has run.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.app import Application
from fhir_portal.consent.labels import ORIGIN, SUPPLIED
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.settings import load
from tests.builders import an_ehr
from tests.documents.pictures import a_pdf, a_picture
from tests.end_to_end.browser import Browser, Driver, missing
from tests.end_to_end.demo import Demo
from tests.end_to_end.person import PASSWORD
from tests.end_to_end.running import settings_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
PRACTICE = "marrowbrook"
KEPT = ("works", "ran")
RAN = "localStorage.setItem('ran', document.contentType)"
SCRIPT = f"<script>{RAN}</script>".encode()
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RAN}"/>'.encode()
XSL = b'<?xml version="1.0"?><?xml-stylesheet type="text/xsl" href="#s"?>'
XML = XSL + b'<html xmlns="http://www.w3.org/1999/xhtml">' + SCRIPT + b"</html>"
FILES = [
    ("text/html", b"<!doctype html>" + SCRIPT),
    ("image/svg+xml", SVG),
    ("application/xhtml+xml", XML),
    ("application/xml", XML),
    ("image/png", b"<!doctype html>" + SCRIPT),
    ("image/jpeg", a_picture("JPEG") + SCRIPT),
    ("application/pdf", a_pdf() + SCRIPT),
    ("text/plain", b"<!doctype html>" + SCRIPT),
    ("text/javascript", RAN.encode()),
]


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


async def stored(demo: Demo) -> None:
    """Store a thread with a message and all these files, as the practice's EHR."""
    app = Application(load(**settings_of(demo.folder, demo.place)), background=False)
    await app.open()
    ehr: AuthContext = an_ehr(PRACTICE)
    system = "https://fhir-portal.example/ig/CodeSystem/portal-conversation"

    async def put(tree: dict[str, Any]) -> None:
        request = FhirRequest(
            "update", tree["resourceType"], tree["id"], body=msgspec.json.encode(tree)
        )
        await app.portal.perform(request, ehr)

    def communication(own_id: str, code: str, **more: Any) -> dict[str, Any]:
        return {
            "resourceType": "Communication",
            "id": own_id,
            "status": "completed",
            "category": [{"coding": [{"system": system, "code": code}]}],
            "subject": {"reference": "Patient/ottilie"},
            "sender": {"reference": "Patient/ottilie"},
            "sent": "2026-01-01T10:00:00Z",
        } | more

    try:
        payload = []
        for number, (kind, content) in enumerate(FILES):
            data = base64.b64encode(content).decode()
            binary = {"resourceType": "Binary", "id": f"evil-{number}"}
            await put(binary | {"contentType": kind, "data": data})
            attachment = {"contentType": kind, "url": f"Binary/evil-{number}"}
            payload.append({"contentAttachment": attachment})
        await put(communication("evil", "thread", payload=[{"contentString": "Files"}]))
        part_of = [{"reference": "Communication/evil"}]
        await put(communication("evil-1", "message", partOf=part_of, payload=payload))
        for own_id, patient in (("evil-read", "mara"), ("evil-sent", "ottilie")):
            contents = []
            for number, (kind, content) in enumerate(FILES):
                at = f"{own_id}-{number}"
                data = base64.b64encode(content).decode()
                await put({"resourceType": "Binary", "id": at, "contentType": kind, "data": data})
                contents.append({"attachment": {"contentType": kind, "url": f"Binary/{at}"}})
            await put(
                {
                    "resourceType": "DocumentReference",
                    "id": own_id,
                    "meta": {"tag": [{"system": ORIGIN, "code": SUPPLIED}]},
                    "status": "current",
                    "docStatus": "preliminary",
                    "subject": {"reference": f"Patient/{patient}"},
                    "description": "Files",
                    "content": contents,
                }
            )
    finally:
        await app.close()


def test_nothing_that_was_attached_runs_where_people_sign_in(browser: Browser, demo: Demo) -> None:
    asyncio.run(stored(demo))
    signed_in(browser, demo, "/staff/inbox/evil", "rosalind")
    assert browser.text("h1") == "Files"
    nothing_ran(browser, demo, "/staff/inbox/evil", "/staff/inbox/evil-1/file/{}")


@pytest.mark.requirement("portal", "S0-43", "S0-46")
def test_nothing_of_a_document_runs_where_patients_read_it(browser: Browser, demo: Demo) -> None:
    asyncio.run(stored(demo))
    signed_in(browser, demo, "/portal/record", "mara")
    browser.click('input[name="record"][value$="Patient/mara"]')
    browser.follow("button.primary")
    page = "/portal/documents/one/evil-read"
    browser.open(f"{demo.server.base}{page}")
    assert browser.text("h1") == "Files"
    for way in ("file", "read"):
        nothing_ran(browser, demo, page, f"{page}/{way}/{{}}")


def test_nothing_of_a_document_runs_where_staff_read_it(browser: Browser, demo: Demo) -> None:
    asyncio.run(stored(demo))
    page = "/staff/documents/evil-sent"
    signed_in(browser, demo, page, "rosalind")
    assert browser.text("h1") == "Files"
    for way in ("file", "read"):
        nothing_ran(browser, demo, page, f"{page}/{way}/{{}}")


def signed_in(browser: Browser, demo: Demo, path: str, username: str) -> None:
    browser.open(f"{demo.server.base}{path}")
    browser.type("#username", username)
    browser.type("#password", PASSWORD)
    browser.follow("button.primary")


def nothing_ran(browser: Browser, demo: Demo, page: str, file: str) -> None:
    """Open each file in the origin of a page; what a script there would have left is not there."""
    browser.evaluate("localStorage.setItem('works', '1')")
    for number, (kind, _) in enumerate(FILES, 1):
        browser.open(f"{demo.server.base}{file.format(number)}")
        browser.open(f"{demo.server.base}{page}")
        found = browser.evaluate(
            "return [localStorage.getItem('works'), localStorage.getItem('ran')]"
        )
        assert found == ["1", None], kind
