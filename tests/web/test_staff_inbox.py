"""The inbox of staff: what waits, a conversation, its buttons and files; for who may answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.builders import Caller, oneself
from tests.documents.pictures import a_pdf, a_picture
from tests.operations.messages import a_file, read, replied, sent, thread_of, words
from tests.web.signing_in import fields_of, forms, post
from tests.web.staff_world import ADMIN, READER, SCRIPT, SKIN, StaffWorld, buttons, links

INBOX = "/staff/inbox"


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


@pytest.fixture
def kit(staff: StaffWorld) -> Caller:
    return Caller(staff.world.portal, oneself("kit", SKIN))


def page_of(thread: str) -> str:
    return f"{INBOX}/{thread.partition('/')[2]}"


def the_form(browser: Any, path: str, do: str) -> dict[str, str]:
    """The form of a button, as pressing it sends it."""
    for one in forms(browser, path):
        if one.xpath(f".//button[@value='{do}']"):
            return {**fields_of(one), "do": do}
    raise AssertionError(do)


@pytest.mark.requirement("portal", "S1-03")
async def test_staff_answer_a_patient_and_the_transcript_is_the_record(
    staff: StaffWorld, kit: Caller
) -> None:
    thread = thread_of(await sent(kit, f"It itches.\n{SCRIPT}", subject=f"A rash {SCRIPT}"))
    browser = await staff.at(INBOX)
    assert page_of(thread) in links(browser)
    assert "waits for an answer" in browser.text
    await browser.open(page_of(thread))
    assert SCRIPT in browser.text
    assert SCRIPT not in browser.page.text
    path = page_of(thread)
    await post(browser, path, {**the_form(browser, path, "reply"), "text": "Since\r\nwhen?"})
    assert "Your answer was sent." in browser.text
    assert words(await read(kit, thread)) == [f"It itches.\n{SCRIPT}", "Since\nwhen?"]
    await browser.open(INBOX)
    assert page_of(thread) not in links(browser)


async def test_a_form_that_is_sent_twice_answers_once(staff: StaffWorld, kit: Caller) -> None:
    thread = thread_of(await sent(kit))
    path = page_of(thread)
    browser = await staff.at(path)
    form = {**the_form(browser, path, "reply"), "text": "Once."}
    for _ in range(3):
        await post(browser, path, form)
    assert words(await read(kit, thread)) == ["It itches.", "Once."]
    await post(browser, path, {**form, "text": "Something else."})
    assert browser.page.status_code == 409
    await post(browser, path, {**form, "text": ""})
    assert browser.page.status_code == 400
    assert "text" in browser.text


async def test_a_conversation_is_closed_opened_given_on_and_found_by_its_words(
    staff: StaffWorld, kit: Caller
) -> None:
    thread = thread_of(await sent(kit, "It itches a lot."))
    path = page_of(thread)
    browser = await staff.at(path)
    await post(browser, path, {**the_form(browser, path, "assign"), "to": "Practitioner/admin"})
    assert "dmin answers" in browser.text
    await post(browser, path, the_form(browser, path, "close"))
    assert "closed" in browser.text
    assert "Send" not in buttons(browser)
    await browser.open(INBOX)
    assert links(browser, f"{INBOX}/") == []
    form = forms(browser, INBOX)[0]
    await post(browser, INBOX, {**fields_of(form), "status": "all", "text": "ITCHES"})
    assert links(browser, f"{INBOX}/") == [path]
    assert "ITCHES" not in str(browser.page.url)
    await browser.open(path)
    await post(browser, path, the_form(browser, path, "reopen"))
    assert "Send" in buttons(browser)


async def test_pictures_are_shown_other_files_saved_and_nothing_of_them_can_run(
    staff: StaffWorld, kit: Caller
) -> None:
    files = [a_file(a_picture(), "image/jpeg", SCRIPT), a_file(a_pdf(), "application/pdf")]
    thread = thread_of(await sent(kit, files=files))
    path = page_of(thread)
    browser = await staff.at(path)
    (image,) = browser.document.xpath("//main//img")
    assert image.get("alt")
    for address, shown in ((image.get("src"), True), (links(browser, INBOX)[-1], False)):
        answer = await browser.open(address)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert ("content-disposition" not in answer.headers) is shown
    await browser.open(path)
    await post(browser, path, the_form(browser, path, "file"))
    assert "in the chart" in browser.text


async def test_a_confidential_conversation_says_so(staff: StaffWorld, kit: Caller) -> None:
    thread = thread_of(await sent(kit, confidential=True))
    browser = await staff.at(INBOX)
    assert "confidential" in browser.text
    await browser.open(page_of(thread))
    assert "nobody who acts for the patient" in browser.text


async def test_staff_write_first(staff: StaffWorld, kit: Caller) -> None:
    path = f"{INBOX}/to/kit"
    browser = await staff.at("/staff/patients/kit")
    assert path in links(browser)
    await browser.open(path)
    (form,) = forms(browser, path)
    await post(browser, path, {**fields_of(form), "subject": "Your results", "text": ""})
    assert browser.page.status_code == 400
    assert "Your results" in browser.page.text, "what was typed is still there"
    given = {"subject": "Your results", "text": "They are fine."}
    (form,) = forms(browser, path)
    await post(browser, path, {**fields_of(form), **given})
    assert "Your message was sent." in browser.text
    seen = await kit.get("Communication/$threads")
    assert b"Your results" in seen.body


async def test_only_who_may_answer_comes_in_and_only_to_the_own_practice(
    staff: StaffWorld, kit: Caller
) -> None:
    thread = thread_of(await sent(kit))
    path = page_of(thread)
    reader = await staff.at(INBOX, READER)
    assert reader.page.status_code == 403
    for address in (path, f"{INBOX}/to/kit", f"{path}/file/1"):
        assert (await reader.open(address)).status_code == 403
    await reader.open("/staff")
    assert INBOX not in links(reader)
    browser = await staff.at(path, ADMIN)
    form = {**the_form(browser, path, "reply"), "text": "x"}
    await post(reader, path, form)
    assert reader.page.status_code in {403, 400}
    await post(browser, path, {**form, "form_token": "x"})
    assert browser.page.status_code in {400, 403}
    for nothing in (f"{INBOX}/nobody", f"{path}/file/9", f"{INBOX}/a%2Fb"):
        assert (await browser.open(nothing)).status_code == 404
    assert words(await read(kit, thread)) == ["It itches."]


async def test_whoever_opens_it_has_read_it(staff: StaffWorld, kit: Caller) -> None:
    thread = thread_of(await sent(kit))
    await staff.at(page_of(thread))
    await replied(kit, thread)
    rows = [one for one in await staff.rows() if one.interaction in {"$thread", "$mark-read"}]
    assert {one.agent for one in rows} == {"Practitioner/admin"}
    assert {one.record for one in rows} == {"kit"}
