"""``/staff/messages``: a practice's own words, by who administers, kept from each other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.notify.template import MessageTemplate
from fhir_portal.notify.words import built_in
from tests.smart.world import Browser
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import DESK, FAMILY, HOME, SCRIPT, SKIN, StaffWorld, links

MESSAGES = "/staff/messages"
CODE = f"{MESSAGES}/one-time-code"
OWN = {"subject": "Your code", "body": "Dear all,\n\nthe code is {code}.", "sms": "Code: {code}"}


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


async def store(browser: Browser, **changes: str) -> None:
    await submit(browser, CODE, nth=0, **{**OWN, "do": "store", **changes})


async def test_words_are_previewed_stored_and_dropped(staff: StaffWorld) -> None:
    browser = await staff.at(CODE)
    await submit(browser, CODE, nth=0, **OWN, do="preview")
    assert "the code is 12345678." in browser.text
    assert not await staff.world.store.every(MessageTemplate)
    await store(browser)
    assert "were stored" in browser.text
    (kept,) = await staff.world.store.every(MessageTemplate)
    assert (kept.practice, kept.version, kept.changed_by) == (SKIN, 1, "Practitioner/admin")
    await browser.open(CODE)
    assert "version 1" in browser.text
    await submit(browser, f"{CODE}/drop")
    assert "count again" in browser.text
    assert not await staff.world.store.every(MessageTemplate)


async def test_words_that_others_stored_meanwhile_are_kept(staff: StaffWorld) -> None:
    browser, other = await staff.at(CODE), await staff.at(CODE)
    await store(other)
    await store(browser, subject="Mine")
    assert browser.page.status_code == 412
    assert "Somebody else" in problem(browser)
    assert browser.document.xpath("//input[@name='subject']")[0].get("value") == "Mine"
    (kept,) = await staff.world.store.every(MessageTemplate)
    assert kept.subject == "Your code"
    # What the preview was of is still what is held against, not what is there by now.
    await submit(browser, CODE, nth=0, **OWN, do="preview")


@pytest.mark.parametrize(
    "changes",
    [
        {"body": "no code here"},
        {"subject": "{code}"},
        {"subject": "two\nlines"},
        {"sms": "{patient} {code}"},
        {"body": "{code} {unclosed"},
        {"sms": ""},
        {"subject": "x" * 151},
    ],
)
async def test_words_that_cannot_be_sent_are_refused(
    staff: StaffWorld, changes: dict[str, str]
) -> None:
    browser = await staff.at(CODE)
    await store(browser, **changes)
    assert browser.page.status_code == 400
    assert problem(browser)
    assert not await staff.world.store.every(MessageTemplate)


async def test_words_are_shown_as_text(staff: StaffWorld) -> None:
    browser = await staff.at(CODE)
    await submit(browser, CODE, nth=0, **OWN | {"body": f"{SCRIPT} {{code}}"}, do="preview")
    assert SCRIPT not in browser.page.text
    await store(browser, body=f"{SCRIPT} {{code}}", subject=SCRIPT)
    for path in (MESSAGES, CODE):
        await browser.open(path)
        assert SCRIPT not in browser.page.text


async def test_they_are_for_who_administers(staff: StaffWorld) -> None:
    browser = await staff.at(CODE, DESK)
    assert browser.page.status_code == 403
    await browser.open(HOME)
    assert MESSAGES not in links(browser)


async def test_another_practice_has_its_own(staff: StaffWorld) -> None:
    await store(await staff.at(CODE))
    await staff.member("admin", FAMILY)
    browser = await staff.at(MESSAGES)
    await submit(browser, "/staff/practice", practice=FAMILY)
    await browser.open(CODE)
    subject = browser.document.xpath("//input[@name='subject']")[0].get("value")
    assert subject == built_in("one-time-code").subject


async def test_a_form_without_our_token_or_for_another_message_does_nothing(
    staff: StaffWorld,
) -> None:
    browser = await staff.at(CODE)
    for path in (CODE, f"{CODE}/drop"):
        assert (await post(browser, path, {**OWN, "do": "store", "form_token": ""})).status_code
        assert browser.page.status_code == 403
    await browser.open(CODE)
    fields = fields_of(forms(browser, CODE)[0])
    await post(browser, f"{MESSAGES}/test", {**fields, **OWN, "do": "store"})
    assert browser.page.status_code == 403
    assert not await staff.world.store.every(MessageTemplate)


async def test_a_message_that_there_is_not_is_no_page(staff: StaffWorld) -> None:
    browser = await staff.at(f"{MESSAGES}/nothing")
    assert browser.page.status_code == 404
