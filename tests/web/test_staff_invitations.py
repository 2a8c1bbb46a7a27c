"""Inviting from the staff pages: what is handed over is shown once, to one browser, to who may."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.accounts.invitation import Invitation
from fhir_portal.records import Record
from fhir_portal.web.pages.shown_once import SECONDS, Sealed
from tests.builders import a_document, a_patient
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.staff import a_level
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import (
    ADMIN,
    BOTH,
    DESK,
    FAMILY,
    FIND,
    KIT,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    buttons,
    links,
)

INVITE = f"{KIT}/invite"


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


async def invited(browser: Browser, kind: str = "self", **fields: Any) -> None:
    await browser.open(f"{INVITE}/{kind}")
    form = forms(browser, f"{INVITE}/{kind}")[0]
    sent: dict[str, Any] = dict(fields_of(form))
    for box in form.xpath('.//input[@type="checkbox"][@checked]'):
        sent.setdefault(box.get("name"), []).append(box.get("value"))
    await post(browser, f"{INVITE}/{kind}", sent | {"channel": "desk"} | fields)


def shown(browser: Browser) -> dict[str, str]:
    return {
        one.xpath("./dt")[0].text_content(): one.xpath("./dd")[0].text_content()
        for one in browser.document.xpath("//dl[contains(@class, 'codes')]/div")
    }


async def the_invitation(staff: StaffWorld) -> Invitation:
    (found,) = await staff.world.store.every(Invitation)
    return found


async def test_what_is_handed_over_is_shown_once(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, DESK)
    await invited(browser)
    assert browser.heading == "To hand over", browser.text
    codes = shown(browser)
    assert codes["Link"].startswith("http://127.0.0.1:8000/activate/")
    message, second = (one.text_content() for one in browser.document.xpath("//textarea"))
    assert codes["Link"] in message
    assert codes["Security code"] in second
    assert codes["Security code"] not in message
    address = browser.page.url.path
    assert codes["Security code"] not in str(browser.page.url)
    await browser.open(address)
    assert browser.page.status_code == 410
    assert codes["Security code"] not in browser.page.text
    assert not await staff.world.store.every(Sealed)


async def test_no_secret_is_stored_readably_before_it_is_shown(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, DESK)
    await browser.open(f"{INVITE}/self")
    sent = fields_of(forms(browser, f"{INVITE}/self")[0]) | {"channel": "desk"}
    response = await browser.http.post(f"{INVITE}/self", data=sent)
    address = response.headers["location"]
    assert address.startswith("/staff/shown/")
    stored = await staff.world.store.every(Sealed)
    await browser.open(address)
    for value in shown(browser).values():
        assert value.encode() not in b"".join(one.content for one in stored)
    assert stored


async def test_it_is_shown_to_no_other_browser_and_not_for_long(staff: StaffWorld) -> None:
    browser, other = await staff.at(KIT, DESK), await staff.at(KIT, DESK)
    await browser.open(f"{INVITE}/self")
    sent = fields_of(forms(browser, f"{INVITE}/self")[0]) | {"channel": "desk"}
    address = (await browser.http.post(f"{INVITE}/self", data=sent)).headers["location"]
    assert (await other.open(address)).status_code == 410
    assert (await browser.http.head(address)).status_code in {405, 410}
    staff.world.clock.advance(SECONDS)
    assert (await browser.open(address)).status_code == 410


async def test_the_same_form_sent_twice_invites_once(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, DESK)
    await browser.open(f"{INVITE}/self")
    sent = fields_of(forms(browser, f"{INVITE}/self")[0]) | {"channel": "desk"}
    await post(browser, f"{INVITE}/self", sent)
    await post(browser, f"{INVITE}/self", sent)
    assert "is on its way" in browser.text
    await the_invitation(staff)


async def test_the_invitation_is_in_the_log_as_who_invited(staff: StaffWorld) -> None:
    await invited(await staff.at(KIT, DESK))
    rows = [one for one in await staff.rows() if one.interaction == "$portal-invite"]
    assert [(one.agent, one.client, one.status) for one in rows] == [
        ("Practitioner/desk", "portal-staff", 201)
    ]


async def test_the_page_tells_an_invitation_with_its_history(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    await invited(browser)
    await browser.open(KIT)
    assert "to Ada Quill" in browser.text
    assert {"Print instructions", "Send again", "Take it back"} <= set(buttons(browser))
    task = (await the_invitation(staff)).task
    await submit(browser, f"{KIT}/invitations/{task}/back", reason="wrong person")
    assert "was taken back" in browser.text
    assert "taken back: wrong person" in browser.text
    assert (await the_invitation(staff)).state == "revoked"
    assert "Take it back" not in buttons(browser)


async def test_sent_again_there_are_new_codes(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, DESK)
    await invited(browser)
    before = shown(browser)
    await browser.open(KIT)
    task = (await the_invitation(staff)).task
    await submit(browser, f"{KIT}/invitations/{task}/again")
    assert shown(browser)["Security code"] != before["Security code"]
    assert (await the_invitation(staff)).attempt == 2


@pytest.mark.parametrize(
    ("form", "media"), [("pdf", "application/pdf"), ("html", "text/html; charset=utf-8")]
)
async def test_instructions_are_printed_once(staff: StaffWorld, form: str, media: str) -> None:
    browser = await staff.at(KIT, DESK)
    await invited(browser)
    await browser.open(KIT)
    task = (await the_invitation(staff)).task
    await submit(browser, f"{KIT}/invitations/{task}/print", format=form, large="yes")
    assert browser.page.headers["content-type"] == media
    assert "sandbox" in browser.page.headers["content-security-policy"]
    assert browser.page.headers["cache-control"] == "no-store"
    if form == "html":
        assert "Quill" not in browser.page.text
    else:
        assert browser.page.content.startswith(b"%PDF")
        assert "attachment" in browser.page.headers["content-disposition"]
    assert (await browser.open(browser.page.url.path)).status_code == 410


async def test_somebody_who_is_recorded_is_invited(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, ADMIN)
    await invited(
        browser, "caregiver", who="RelatedPerson/uncle", basis="consent-form", end="2030-12-31"
    )
    assert browser.heading == "To hand over", browser.text
    found = await the_invitation(staff)
    assert found.persons == ("RelatedPerson/uncle",)
    await browser.open(KIT)
    assert "waits for the invitation to be used" in browser.text
    assert SCRIPT not in browser.page.text


async def test_somebody_new_is_invited_with_the_sections_that_were_ticked(
    staff: StaffWorld,
) -> None:
    await put(staff.world, SKIN, a_document("poa", of="kit"))
    browser = await staff.at(KIT, ADMIN)
    await invited(
        browser,
        "representative",
        who="new",
        given="Nan",
        family="Arrow",
        relationship="attorney",
        basis="power-of-attorney",
        evidence="DocumentReference/poa",
        end="2031-01-01",
        see=["results", "billing"],
        act=["billing"],
    )
    assert browser.heading == "To hand over", browser.text
    await browser.open(KIT)
    assert "Nan Arrow" in browser.text


async def test_a_contact_of_the_record_is_a_candidate(staff: StaffWorld) -> None:
    contact = {"name": {"family": "Fern", "given": ["Ivo"]}, "relationship": [{"text": "father"}]}
    await put(staff.world, SKIN, a_patient("kit", birthDate="2018-02-03", contact=[contact]))
    browser = await staff.at(KIT, ADMIN)
    await browser.open(f"{INVITE}/guardian")
    assert "Ivo Fern (contact on file)" in browser.text
    await invited(browser, "guardian", who="contact-0", basis="parent")
    assert browser.heading == "To hand over", browser.text
    await browser.open(KIT)
    assert "Ivo Fern" in browser.text


async def test_a_refusal_keeps_what_was_filled_in(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, ADMIN)
    await invited(browser, "representative", who="new", family=SCRIPT, reason="by phone")
    assert browser.page.status_code >= 400
    assert problem(browser).startswith("Not invited")
    assert browser.document.xpath("//input[@name='family']")[0].get("value") == SCRIPT
    assert SCRIPT not in browser.page.text
    assert not await staff.world.store.every(Invitation)


@pytest.mark.parametrize("kind", ["nobody", "SELF", "x" * 50])
async def test_a_kind_that_there_is_not_is_no_page(staff: StaffWorld, kind: str) -> None:
    browser = await staff.at(f"{INVITE}/{kind}", DESK)
    assert browser.page.status_code == 404


# --- who may --------------------------------------------------------------------------------------


async def test_without_the_permission_there_is_no_button_and_no_way(staff: StaffWorld) -> None:
    desk = await staff.at(KIT, DESK)
    await invited(desk)
    reader = await staff.at(KIT, READER)
    assert not buttons(reader)
    assert not links(reader, INVITE)
    await reader.open(f"{INVITE}/self")
    assert reader.page.status_code == 403


@pytest.mark.parametrize("lost", ["invite", "revoke"])
async def test_a_permission_that_was_taken_meanwhile_is_missing(
    staff: StaffWorld, lost: str
) -> None:
    """The form was shown while the level had it; the server decides when it is sent."""
    browser = await staff.at(KIT, DESK)
    await invited(browser)
    task = (await the_invitation(staff)).task
    before = await everything(staff)
    for action, permission in (("again", "invite"), ("print", "invite"), ("back", "revoke")):
        if permission != lost:
            continue
        await staff.keep(a_level(DESK, "view", "invite", "revoke", practice=SKIN))
        await browser.open(KIT)
        fields = fields_of(forms(browser, f"{KIT}/invitations/{task}/{action}")[0])
        left = {"view", "invite", "revoke"} - {lost}
        await staff.keep(a_level(DESK, *left, practice=SKIN))
        await post(browser, f"{KIT}/invitations/{task}/{action}", fields | {"reason": "x"})
        assert browser.page.status_code == 403
        assert lost in browser.text
    assert await everything(staff) == before


async def everything(staff: StaffWorld) -> list[Record]:
    return list(await staff.world.store.every(Invitation))


async def test_an_invitation_is_reached_by_its_own_patient_only(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, DESK)
    await invited(browser)
    task = (await the_invitation(staff)).task
    await browser.open(KIT)
    fields = fields_of(forms(browser, f"{KIT}/invitations/{task}/back")[0])
    response = await post(browser, f"{FIND}/bo/invitations/{task}/back", fields | {"reason": "x"})
    assert response.status_code == 403  # the form is for another address
    assert (await the_invitation(staff)).state != "revoked"


async def test_another_practices_patient_and_invitation_are_not_there(staff: StaffWorld) -> None:
    desk = await staff.at(KIT, DESK)
    await invited(desk)
    browser = await staff.at(KIT, BOTH)
    await submit(browser, "/staff/practice", practice=FAMILY)
    await staff.keep(a_level(READER, "view", "invite", "revoke", practice=FAMILY))
    for path in (KIT, f"{INVITE}/self"):
        await browser.open(path)
        assert browser.page.status_code == 404


@pytest.mark.parametrize("action", ["again", "print", "back"])
async def test_a_form_without_our_token_does_nothing(staff: StaffWorld, action: str) -> None:
    browser = await staff.at(KIT, DESK)
    await invited(browser)
    found = await the_invitation(staff)
    for token in ("", "x" * 43):
        response = await post(
            browser,
            f"{KIT}/invitations/{found.task}/{action}",
            {"form_token": token, "reason": "x"},
        )
        assert response.status_code == 403
    assert await the_invitation(staff) == found
    response = await post(browser, f"{INVITE}/self", {"form_token": "", "channel": "desk"})
    assert response.status_code == 403


async def test_no_address_holds_a_code(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, DESK)
    await invited(browser)
    for value in shown(browser).values():
        assert value not in str(browser.page.url)
    assert re.fullmatch(r"/staff/shown/[A-Za-z0-9_-]{24}", browser.page.url.path)
