"""The portal's pages about documents: found, read, saved and sent; by whom, and by whom not."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.access.log import AccessRow
from fhir_portal.consent.labels import PORTAL_TAG
from fhir_portal.documents.ccda.document import as_ccd
from fhir_portal.smart.portal_pages import CLIENT, IDLE_SECONDS
from fhir_portal.web import downloads
from fhir_portal.web.downloads import LONG
from fhir_portal.web.pages.portal_documents import NEW, ONE, SUMMARY
from tests.builders import Caller, Json, a_binary, a_document, a_grant, concept, oneself, reference
from tests.charts import a_chart
from tests.documents.pictures import SECRET, a_picture
from tests.operations.documents import decided
from tests.smart.world import Browser
from tests.staff import a_member_of_staff
from tests.web.portal_world import ADA, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, problem
from tests.web.staff_world import buttons, links
from tests.web.test_portal_messages import Files, filled

DOCUMENTS = "/portal/documents"
LOINC = "http://loinc.org"
SCRIPT = '<script>alert("x")</script>'
SECRET_META: Json = {
    "security": [
        {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    ]
}


def text(words: str) -> str:
    return base64.b64encode(words.encode()).decode()


def a_letter(own_id: str, *, of: str = "bo", code: str = "11488-4", **more: Any) -> Json:
    """A letter of Dr. Lark's, kept as a text in a Binary of the same id."""
    content = {"contentType": "text/plain", "url": f"Binary/{own_id}", "title": "letter"}
    return a_document(
        own_id,
        of=of,
        **{
            "type": concept(LOINC, code),
            "date": "2026-02-01T10:00:00Z",
            "author": [reference("Practitioner/lark")],
            "description": f"About {own_id}",
            "content": [{"attachment": content}],
        }
        | more,
    )


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    for own_id in ("first", "second"):
        kept = a_binary(own_id, content=text(f"Dear Bo {own_id} {SCRIPT}"))
        await found.put(kept | {"contentType": "text/plain"})
    await found.put(
        a_letter("first"),
        a_letter("second", code="18842-5", date="2026-03-05T10:00:00Z"),
        a_binary("of-kit", content=text("Dear Kit")) | {"contentType": "text/plain"},
        a_letter("of-kit", of="kit"),
        a_grant("grant", of="kit", to="mother", sections=["documents"], act=["documents"]),
    )
    yield found
    found.close()


@pytest.fixture
def bo(portal: PortalWorld) -> Caller:
    return Caller(portal.world.portal, oneself("bo", SKIN))


@pytest.fixture
def clerk(portal: PortalWorld) -> Caller:
    staff = a_member_of_staff("lark", SKIN, permissions=("view", "documents"))
    return Caller(portal.world.portal, staff)


async def asked(browser: Browser, **fields: str) -> None:
    """Look for documents."""
    wanted = next(one for one in forms(browser, DOCUMENTS) if "type" in one.fields)
    await post(browser, DOCUMENTS, {**fields_of(wanted), **fields})


async def rows_of(portal: PortalWorld, record: str = "bo") -> list[AccessRow]:
    found = await portal.world.store.log.of_record(
        SKIN, record, agent=None, told=True, low=0, high=2**62, before=None, limit=200
    )
    return [one.row for one in found if one.row.client == CLIENT]


@pytest.mark.requirement("portal", "S0-46", "S2-08")
async def test_documents_are_listed_in_plain_words_and_found(portal: PortalWorld) -> None:
    browser = await portal.at(DOCUMENTS)
    assert links(browser, f"{ONE}/") == [f"{ONE}/second", f"{ONE}/first"]
    assert "Summary of a hospital stay" in browser.text
    assert "What a specialist found" in browser.text
    assert "by Dr. Lark" in browser.text or "by Lark" in browser.text
    await asked(browser, type=f"{LOINC}|18842-5")
    assert links(browser, f"{ONE}/") == [f"{ONE}/second"]
    await browser.open(DOCUMENTS)
    await asked(browser, **{"from": "2026-01-01", "to": "2026-02-28"})
    assert links(browser, f"{ONE}/") == [f"{ONE}/first"]
    await browser.open(DOCUMENTS)
    await asked(browser, author="Practitioner/lark", to="2025-01-01")
    assert "No document is like this." in browser.text
    assert "18842" not in str(browser.page.url)


async def test_the_days_of_a_filter_are_the_practices(portal: PortalWorld) -> None:
    """Half past ten in the evening there is the next day by UTC."""
    await portal.put(a_letter("evening", date="2027-03-06T04:30:00Z"))
    for first, last, found in (
        ("2027-03-05", "2027-03-05", [f"{ONE}/evening"]),
        ("2027-03-06", "2027-03-06", []),
        ("2027-03-04", "2027-03-04", []),
    ):
        browser = await portal.at(DOCUMENTS)
        await asked(browser, **{"from": first, "to": last})
        assert links(browser, f"{ONE}/") == found


@pytest.mark.parametrize(("name", "found"), [("from", 2), ("to", 0)])
async def test_a_year_that_was_mistyped_is_a_day_all_the_same(
    portal: PortalWorld, name: str, found: int
) -> None:
    """A browser sends the year 0202 while somebody types 2027."""
    browser = await portal.at(DOCUMENTS)
    await asked(browser, **{name: "0202-03-05"})
    assert (browser.page.status_code, len(links(browser, f"{ONE}/"))) == (200, found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "http://loinc.org|1-1"},
        {"type": "a,b"},
        {"author": "Patient/kit"},
        {"from": "yesterday"},
        {"to": "2026-02-31"},
        {"to": "9999-12-31"},
    ],
)
async def test_what_is_not_in_the_lists_is_refused(portal: PortalWorld, wrong: Json) -> None:
    browser = await portal.at(DOCUMENTS)
    await asked(browser, **wrong)
    assert browser.page.status_code == 400
    assert problem(browser)


@pytest.mark.requirement("portal", "S0-46")
async def test_what_came_since_the_last_visit_is_marked(portal: PortalWorld) -> None:
    browser = await portal.at(DOCUMENTS)
    assert "new since" not in browser.text  # the first visit: all of it is
    portal.world.clock.advance(2 * IDLE_SECONDS)
    await portal.put(a_letter("first", description="Corrected"))
    browser = await portal.at(DOCUMENTS)
    (marked,) = browser.document.xpath("//li[.//strong]")
    assert "Corrected" in marked.text_content()
    await browser.open(DOCUMENTS)
    assert "new since" in browser.text  # for as long as the visit lasts
    portal.world.clock.advance(2 * IDLE_SECONDS)
    browser = await portal.at(DOCUMENTS)
    assert "new since" not in browser.text


@pytest.mark.requirement("portal", "S0-43", "S2-08")
async def test_a_document_is_read_and_saved_in_its_own_type(portal: PortalWorld) -> None:
    browser = await portal.at(f"{ONE}/first")
    assert browser.heading == "What a specialist found"
    assert "About first" in browser.text
    await browser.open(f"{ONE}/first/read/1")
    assert f"Dear Bo first {SCRIPT}" in browser.text
    assert SCRIPT not in browser.page.text
    answer = await browser.open(f"{ONE}/first/file/1")
    assert answer.content.decode() == f"Dear Bo first {SCRIPT}"
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-disposition"] == 'attachment; filename="letter.txt"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    taken = [(one.what, one.activity) for one in await rows_of(portal) if one.activity]
    assert ("Binary/first", "download") in taken
    assert ("Binary/first", "view") in taken


async def test_what_the_reference_itself_holds_is_saved_and_written_down(
    portal: PortalWorld,
) -> None:
    await portal.put(a_document("inline", of="bo"))
    browser = await portal.at(f"{ONE}/inline")
    answer = await browser.open(f"{ONE}/inline/file/1")
    assert answer.content == b"nothing"
    taken = [(one.what, one.activity) for one in await rows_of(portal)]
    assert ("DocumentReference/inline", "download") in taken


async def test_a_c_cda_is_read_as_the_page_that_is_made_of_it(portal: PortalWorld) -> None:
    data = base64.b64encode(as_ccd(a_chart())).decode()
    await portal.put(
        a_document(
            "ccda",
            of="bo",
            content=[{"attachment": {"contentType": "application/cda+xml", "data": data}}],
        )
    )
    browser = await portal.at(f"{ONE}/ccda")
    answer = await browser.open(f"{ONE}/ccda/read/1")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script" not in policy


@pytest.mark.parametrize(
    ("media", "content"),
    [
        ("text/html", f"<!doctype html>{SCRIPT}".encode()),
        ("image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        ("application/xhtml+xml", b"<html xmlns='http://www.w3.org/1999/xhtml'/>"),
        ("text/html;x=\r\nSet-Cookie: a=b", b"x"),
        ("image/png", f"<!doctype html>{SCRIPT}".encode()),
        ("application/pdf", b"%PDF-1.4 <script>"),
    ],
)
async def test_what_could_run_is_saved_and_never_a_page_of_ours(
    portal: PortalWorld, media: str, content: bytes
) -> None:
    if "\r" in media:
        media = "text/html; x=\u00e9"  # FHIR takes no control signs in a code
    kept = {"resourceType": "Binary", "id": "odd", "contentType": media}
    await portal.put(kept | {"data": base64.b64encode(content).decode()})
    attachment = {"contentType": media, "url": "Binary/odd", "title": 'a"; x=\u2028.html'}
    await portal.put(a_document("odd", of="bo", content=[{"attachment": attachment}]))
    browser = await portal.at(f"{ONE}/odd")
    for address in (f"{ONE}/odd/file/1", f"{ONE}/odd/read/1"):
        answer = await browser.open(address)
        assert answer.status_code == 200
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        shown = "content-disposition" not in answer.headers
        assert not shown or answer.headers["content-type"] == "image/png"


async def test_nothing_of_another_record_is_there(portal: PortalWorld) -> None:
    browser = await portal.at(DOCUMENTS)
    hidden = {"tag": [{"system": PORTAL_TAG, "code": "withheld"}]}
    await portal.put(a_binary("hidden"), a_letter("hidden") | {"meta": hidden})
    for own_id in ("of-kit", "hidden", "nothing"):
        for path in ("", "/read/1", "/file/1"):
            answer = await browser.open(f"{ONE}/{own_id}{path}")
            assert answer.status_code == 404, own_id
            assert "There is nothing at this address" in browser.text
    for path in ("/file/0", "/file/2", "/file/x", "/read/99", "/read/1x"):
        assert (await browser.open(f"{ONE}/first{path}")).status_code == 404
    assert (await browser.open(f"{SUMMARY}/word")).status_code == 404


async def test_a_link_is_worth_nothing_elsewhere_and_nothing_later(portal: PortalWorld) -> None:
    address = f"{ONE}/first/file/1"
    other = await portal.at(DOCUMENTS, ADA, "ada")
    assert (await other.open(address)).status_code == 404
    stranger = portal.world.browser()
    assert (await stranger.http.get(address)).status_code == 303
    browser = await portal.at(DOCUMENTS)
    assert (await browser.open(address)).status_code == 200
    portal.world.clock.advance(IDLE_SECONDS + 1)
    mother = await portal.at(DOCUMENTS, ADA, "kit")
    assert (await mother.open(f"{ONE}/of-kit/file/1")).status_code == 200
    await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
    assert (await mother.http.get(f"{ONE}/of-kit/file/1")).status_code != 200


async def test_what_was_an_error_gives_out_no_file(portal: PortalWorld) -> None:
    browser = await portal.at(DOCUMENTS)
    await portal.put(
        a_letter("first", status="entered-in-error"),
        a_document("inline", of="bo", status="entered-in-error"),
    )
    for own_id in ("first", "inline"):
        await browser.open(f"{ONE}/{own_id}")
        assert browser.page.status_code == 200
        for path in ("file/1", "read/1"):
            assert (await browser.open(f"{ONE}/{own_id}/{path}")).status_code == 404


@pytest.mark.parametrize("path", ["file", "read"])
async def test_a_long_file_ends_with_access(
    portal: PortalWorld, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    media = "image/png" if path == "read" else "application/dicom"
    scan = a_binary("scan", content=base64.b64encode(bytes(4 * LONG)).decode())
    content = {"contentType": media, "url": "Binary/scan", "title": "scan"}
    letter = a_letter("scan", of="kit", content=[{"attachment": content}])
    await portal.put(scan | {"contentType": media}, letter)
    mother = await portal.at(DOCUMENTS, ADA, "kit")
    address = f"{ONE}/scan/{path}/1"
    whole = await mother.http.get(address)
    assert len(whole.content) == 4 * LONG
    assert "sandbox" in whole.headers["content-security-policy"]

    async def ends(body: bytes) -> AsyncIterator[bytes]:
        yield body[:LONG]
        await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
        yield body[LONG:]

    monkeypatch.setattr(downloads, "in_pieces", ends)
    with pytest.raises(AssertionError, match=r"^$"):  # the answer has no end
        await mother.http.get(address)


async def test_who_acts_for_somebody_sees_what_the_grant_shows(portal: PortalWorld) -> None:
    kept = a_letter("kept", of="kit") | {"meta": SECRET_META}
    await portal.put(a_binary("kept"), kept)
    browser = await portal.at(DOCUMENTS, ADA, "kit")
    assert links(browser, f"{ONE}/") == [f"{ONE}/of-kit"]
    assert (await browser.open(f"{ONE}/kept")).status_code == 404
    assert (await browser.open(f"{SUMMARY}/pdf")).status_code == 403
    assert (await browser.open(f"{SUMMARY}/ccda")).status_code == 200
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["results"]))
    browser = await portal.at("/portal", ADA, "kit")
    assert DOCUMENTS not in links(browser)
    await browser.open(DOCUMENTS)
    assert links(browser, f"{ONE}/") == []
    assert (await browser.open(f"{ONE}/of-kit/file/1")).status_code == 404


@pytest.mark.requirement("portal", "S0-42", "S0-43")
async def test_the_record_is_kept_as_a_page_a_pdf_fhir_and_c_cda(portal: PortalWorld) -> None:
    browser = await portal.at(DOCUMENTS)
    kinds = {
        "page": ("text/html", b"<!doctype html>"),
        "pdf": ("application/pdf", b"%PDF-"),
        "fhir": ("application/fhir+json", b"{"),
        "ccda": ("", b"<?xml"),
    }
    assert links(browser, SUMMARY) == [*(f"{SUMMARY}/{name}" for name in kinds), f"{SUMMARY}/read"]
    for name, (media, head) in kinds.items():
        answer = await browser.open(f"{SUMMARY}/{name}")
        assert answer.headers["content-type"].startswith(media)
        assert answer.content.lstrip().lower().startswith(head.lower())
        assert answer.headers["content-disposition"].startswith("attachment")
    bundle = json.loads((await browser.open(f"{SUMMARY}/fhir")).content)
    assert bundle["type"] == "document"
    shown = await browser.open(f"{SUMMARY}/read")
    assert "content-disposition" not in shown.headers
    assert "sandbox" in shown.headers["content-security-policy"]
    taken = [(one.interaction, one.activity) for one in await rows_of(portal)]
    assert taken.count(("$summary", "download")) == 4
    assert taken.count(("$ccd", "download")) == 1
    assert taken.count(("$summary", "view")) == 1


# --- sending one ----------------------------------------------------------------------------------


PHOTO: Files = [("file", ("rash.jpg", a_picture(), "image/jpeg"))]


@pytest.mark.requirement("portal", "S0-46")
async def test_a_document_is_sent_waits_and_is_taken_in(
    portal: PortalWorld, clerk: Caller, bo: Caller
) -> None:
    browser = await portal.at(DOCUMENTS)
    assert NEW in links(browser)
    await browser.open(NEW)
    await filled(browser, NEW, PHOTO, title=f"My rash {SCRIPT}", type="picture")
    assert "Your document was sent." in browser.text
    assert "The practice is to look at it" in browser.text
    assert SCRIPT not in browser.page.text
    (document,) = (await bo.get("DocumentReference?_tag=patient-supplied")).entries
    own_id = document["id"]
    await browser.open(f"{ONE}/{own_id}")
    (image,) = browser.document.xpath("//main//img/@src")
    picture = await browser.open(image)
    assert picture.headers["content-type"] == "image/jpeg"
    assert SECRET not in picture.content
    await decided(clerk, f"DocumentReference/{own_id}", title="Photo of a rash")
    await browser.open(DOCUMENTS)
    assert "Photo of a rash" in browser.text
    assert "is to look at it" not in browser.text


@pytest.mark.requirement("portal", "S0-46")
async def test_what_is_not_taken_says_why(portal: PortalWorld, clerk: Caller, bo: Caller) -> None:
    browser = await portal.at(NEW)
    await filled(browser, NEW, PHOTO, title="My rash", type="picture")
    (document,) = (await bo.get("DocumentReference?_tag=patient-supplied")).entries
    name = f"DocumentReference/{document['id']}"
    await decided(clerk, name, "refuse", reason=f"It is blurred {SCRIPT}")
    await browser.open(DOCUMENTS)
    assert "What the practice did not take" in browser.text
    await browser.open(f"{ONE}/{document['id']}")
    assert f"The practice did not take it: It is blurred {SCRIPT}" in browser.text
    assert SCRIPT not in browser.page.text
    assert not browser.document.xpath("//main//img")


async def test_a_slip_is_said_and_nothing_typed_is_lost(portal: PortalWorld, bo: Caller) -> None:
    browser = await portal.at(NEW)
    for files, fields in (
        (None, {}),
        ([("file", ("x.svg", b"<svg onload=alert(1)>", "image/svg+xml"))], {}),
        ([*PHOTO, *PHOTO], {}),
        (PHOTO, {"type": "secret"}),
        (PHOTO, {"date": "2099-01-01"}),
        (PHOTO, {"key": "x"}),
    ):
        await browser.open(NEW)
        await filled(browser, NEW, files, **{"title": "What I typed", "type": "other", **fields})
        assert browser.page.status_code == 400, fields
        assert problem(browser)
        assert "What I typed" in browser.page.text
    assert (await bo.get("DocumentReference?_tag=patient-supplied")).entries == []


async def test_a_form_sent_twice_is_one_document(portal: PortalWorld, bo: Caller) -> None:
    browser = await portal.at(NEW)
    (form,) = [one for one in forms(browser, NEW) if one.get("enctype")]
    given = {**fields_of(form), "title": "Once", "type": "other"}
    parts = [(name, (None, value)) for name, value in given.items()]
    for _ in range(3):
        answer = await browser.http.post(NEW, files=[*parts, *PHOTO])
        assert answer.status_code == 303
    assert len((await bo.get("DocumentReference?_tag=patient-supplied")).entries) == 1


async def test_who_may_not_send_is_offered_nothing_and_refused(portal: PortalWorld) -> None:
    mother = await portal.at(NEW, ADA, "kit")
    assert not mother.document.xpath("//input[@name='confidential']")
    (form,) = [one for one in forms(mother, NEW) if one.get("enctype")]
    given = {**fields_of(form), "title": "x", "type": "other"}
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["documents"]))
    browser = await portal.at(DOCUMENTS, ADA, "kit")
    assert NEW not in links(browser)
    assert (await browser.open(NEW)).status_code == 403
    parts = [(name, (None, value)) for name, value in given.items()]
    answer = await browser.http.post(NEW, files=[*parts, *PHOTO])
    assert answer.status_code in {400, 403}
    kit = Caller(portal.world.portal, oneself("kit", SKIN))
    assert (await kit.get("DocumentReference?_tag=patient-supplied")).entries == []
    assert "Send" not in buttons(browser)
