"""What patients sent, at the staff pages: looked at, taken in or not, and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.web.pages.desk import DOCUMENTS
from tests.builders import Caller, a_binary, a_document, oneself
from tests.documents.pictures import SECRET, a_pdf
from tests.operations.documents import uploaded
from tests.operations.messages import out
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.web.signing_in import fields_of, forms, post, problem
from tests.web.staff_world import (
    ADMIN,
    BLIND,
    FAMILY,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    links,
    without_token,
)


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


def bo(staff: StaffWorld) -> Caller:
    return Caller(staff.world.portal, oneself("bo", SKIN))


async def sent(staff: StaffWorld, *file: object, **given: object) -> str:
    """Bo sends a document; return its address at the staff pages."""
    answer = await uploaded(bo(staff), *file, **given)  # type: ignore[arg-type]
    assert answer.status == 200, answer.body
    return f"{DOCUMENTS}/{out(answer, 'document')['reference'].partition('/')[2]}"


async def decided(browser: Browser, address: str, do: str, **fields: str) -> None:
    await browser.open(address)
    wanted = "reason" if do == "refuse" else "title"
    form = next(one for one in forms(browser, address) if wanted in one.fields)
    await post(browser, address, {**fields_of(form), "do": do, **fields})
    while browser.page.is_redirect:
        await browser.open(browser.page.headers["location"])


@pytest.mark.requirement("portal", "S0-46")
async def test_staff_look_at_what_was_sent_and_take_it_in(staff: StaffWorld) -> None:
    address = await sent(staff, title=f"A rash {SCRIPT}", date="2029-11-02")
    browser = await staff.at(DOCUMENTS, ADMIN)
    assert links(browser, f"{DOCUMENTS}/") == [address]
    assert "Quillon" in browser.text
    await browser.open(address)
    assert "by the patient" in browser.text
    assert "written on 2029-11-02" in browser.text
    assert SCRIPT not in browser.page.text
    (image,) = browser.document.xpath("//main//img/@src")
    picture = await browser.open(image)
    assert picture.headers["content-type"] == "image/jpeg"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert SECRET not in picture.content
    await decided(
        browser,
        address,
        "accept",
        type="http://loinc.org|11488-4",
        title="Letter",
        date="2029-10-01",
    )
    assert "It is taken in." in browser.text
    assert "Nothing waits." in browser.text
    document = (await bo(staff).get(f"DocumentReference/{address.rpartition('/')[2]}")).json
    assert document["docStatus"] == "final"
    assert document["description"] == "Letter"
    assert document["type"]["coding"] == [{"system": "http://loinc.org", "code": "11488-4"}]
    assert document["content"][0]["attachment"]["creation"] == "2029-10-01"
    await browser.open(address)
    assert "This was decided already." in browser.text


@pytest.mark.requirement("portal", "S0-46")
async def test_what_is_not_taken_needs_a_reason(staff: StaffWorld) -> None:
    address = await sent(staff)
    browser = await staff.at(DOCUMENTS, ADMIN)
    await decided(browser, address, "refuse")
    assert browser.page.status_code == 400
    assert "say why" in problem(browser)
    await decided(browser, address, "accept", date="2099-01-01")
    assert browser.page.status_code == 400
    await decided(browser, address, "accept", type="urn:x|y")
    assert browser.page.status_code == 400
    await decided(browser, address, "refuse", reason="It is blurred.")
    assert "It is not taken." in browser.text
    document = (await bo(staff).get(f"DocumentReference/{address.rpartition('/')[2]}")).json
    assert document["status"] == "entered-in-error"


async def test_files_are_shown_or_saved_and_never_run(staff: StaffWorld) -> None:
    note = await sent(staff, b"note <b>loud</b>", "text/plain")
    letter = await sent(staff, a_pdf(), "application/pdf")
    browser = await staff.at(note, ADMIN)
    await browser.open(f"{note}/read/1")
    assert "note <b>loud</b>" in browser.text
    assert SCRIPT not in browser.page.text
    for address in (f"{note}/file/1", f"{letter}/file/1", f"{letter}/read/1"):
        answer = await browser.open(address)
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    for nothing in ("/file/0", "/file/2", "/read/x"):
        assert (await browser.open(f"{note}{nothing}")).status_code == 404


async def test_nobody_without_documents_sees_or_decides(staff: StaffWorld) -> None:
    address = await sent(staff)
    admin = await staff.at(address, ADMIN)
    form = next(one for one in forms(admin, address) if "reason" in one.fields)
    given = {**fields_of(form), "do": "refuse", "reason": "No."}
    for name in (READER, BLIND):
        browser = await staff.at(DOCUMENTS, name)
        assert browser.page.status_code == 403
        for path in (address, f"{address}/read/1", f"{address}/file/1"):
            assert (await browser.open(path)).status_code == 403
        assert await without_token(browser, address, given) in {400, 403}
    assert await without_token(admin, address, {**given, "form_token": "x"}) in {400, 403}
    document = (await bo(staff).get(f"DocumentReference/{address.rpartition('/')[2]}")).json
    assert document["docStatus"] == "preliminary"


async def test_only_what_was_sent_here_is_on_these_pages(staff: StaffWorld) -> None:
    await put(staff.world, SKIN, a_binary("ours"), a_document("ours", of="bo", binary="ours"))
    browser = await staff.at(DOCUMENTS, ADMIN)
    for path in ("ours", "ours/file/1", "nothing", "nothing/read/1", "ours/read/1"):
        assert (await browser.open(f"{DOCUMENTS}/{path}")).status_code == 404, path


async def test_another_practices_documents_are_not_there(staff: StaffWorld) -> None:
    kept = await uploaded(Caller(staff.world.portal, oneself("elsewhere", FAMILY)))
    address = f"{DOCUMENTS}/{out(kept, 'document')['reference'].partition('/')[2]}"
    browser = await staff.at(DOCUMENTS, ADMIN)
    assert links(browser, f"{DOCUMENTS}/") == []
    assert (await browser.open(address)).status_code == 404
    assert (await browser.open(f"{address}/file/1")).status_code == 404
