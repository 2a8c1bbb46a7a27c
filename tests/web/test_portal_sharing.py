"""``/portal/sharing``: a link is made, shown once, used, seen to be used, and ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.notify.outbox import OutboxMessage
from tests.builders import DIRECTORY, a_document, a_grant, keep, resource
from tests.charts import an_allergy, an_immunization
from tests.smart.world import Browser
from tests.web.portal_world import ADA, BO, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, problem
from tests.web.staff_world import links

pytestmark = pytest.mark.requirement("portal", "S2-15")

SHARING, NEW = "/portal/sharing", "/portal/sharing/new"
END = f"{SHARING}/end"


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await found.put(
        an_allergy("nuts"),
        an_immunization("flu"),
        a_document("letter", description="Letter to the surgeon", date="2029-05-05T10:00:00Z"),
        an_allergy("kit-nuts", of="kit"),
        a_grant(
            "grant", of="kit", to="mother",
            sections=["appointments", "documents", "health-summary"], act=["documents"],
        ),
    )  # fmt: skip
    yield found
    found.close()


async def send(browser: Browser, address: str, **fields: Any) -> None:
    """Send the form of a page as a browser does; a list is a field that comes more than once."""
    (form,) = [one for one in forms(browser, address) if one.get("method") == "post"]
    data: dict[str, Any] = dict(fields_of(form))
    for one in form.xpath(".//input[@checked]"):
        data.setdefault(one.get("name"), []).append(one.get("value"))
    for one in form.xpath(".//option[@selected]"):
        data[one.getparent().get("name")] = one.get("value")
    await post(browser, address, {**data, **fields})


def shown(browser: Browser) -> tuple[str, str]:
    """Link and passcode of the page that shows them."""
    passcode = browser.document.xpath("//code[@class='key']")[0].text_content()
    return browser.document.get_element_by_id("link").text_content().strip(), passcode


async def opened(portal: PortalWorld, link: str, passcode: str, name: str = "Dr. Abel") -> Browser:
    stranger = portal.world.browser()
    path = urlsplit(link).path
    await stranger.open(path)
    await post(stranger, path, {"name": name, "passcode": passcode})
    return stranger


@pytest.mark.requirement("portal", "S0-45")
async def test_a_link_is_made_used_and_ended(portal: PortalWorld) -> None:
    browser = await portal.at(SHARING, ADA, "ada")
    assert NEW in links(browser)
    await browser.open(NEW)
    assert "Letter to the surgeon" in browser.page.text
    await send(browser, NEW, label="Skin clinic", document=["letter"], days="7")
    link, passcode = shown(browser)
    assert browser.page.text.count("<svg") == 1
    assert "#shlink:/" in link
    here = browser.page.url.path
    await browser.open(here)
    assert browser.page.status_code == 404  # shown once
    assert passcode not in browser.page.text

    stranger = await opened(portal, link, passcode)
    assert "Skin clinic" in stranger.page.text
    assert "Letter to the surgeon" in stranger.page.text
    files = [one for one in links(stranger) if "/files/" in one]
    page = await stranger.open(files[0])
    assert "Peanut" in page.text

    await browser.open(SHARING)
    assert "Opened 1 time." in browser.page.text
    assert "Dr. Abel, in a browser" in browser.page.text
    (form,) = forms(browser, END)
    await post(browser, END, fields_of(form))
    assert "was ended" in browser.page.text
    assert forms(browser, END) == []
    assert (await stranger.open(files[0])).status_code == 404
    assert (await opened(portal, link, passcode)).page.status_code == 404


async def test_what_was_unticked_is_not_shown(portal: PortalWorld) -> None:
    browser = await portal.at(NEW, ADA, "ada")
    await send(browser, NEW, section=["immunizations"])
    stranger = await opened(portal, *shown(browser))
    page = await stranger.open(next(one for one in links(stranger) if "/files/" in one))
    assert "Influenza" in page.text
    assert "Peanut" not in page.text
    assert "Quill" not in page.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"summary": []}, "Choose what is shared"),
        ({"start": "2029-02-02", "end": "2029-02-01"}, "The time ends before it starts"),
        ({"start": "soon"}, "date"),
        ({"label": "x" * 81}, "label is plain text"),
        ({"section": []}, "Choose of which parts"),
        ({"section": ["nonsense"]}, "no section that you may share"),
        ({"document": ["letter"], "section": ["results"]}, "none of the sections"),
    ],
)
async def test_what_cannot_be_is_told_on_the_form(
    portal: PortalWorld, fields: dict[str, Any], words: str
) -> None:
    """What was typed stays, and nothing was made."""
    browser = await portal.at(NEW, ADA, "ada")
    await send(browser, NEW, **fields)
    assert browser.page.status_code == 400
    assert words.lower() in problem(browser).lower()
    await browser.open(SHARING)
    assert "No link works now" in browser.page.text


@pytest.mark.parametrize(("record", "told"), [("ada", True), ("kit", False)])
@pytest.mark.parametrize("page", [NEW, f"{SHARING}/send"])
async def test_that_what_is_sensitive_is_shared_too_is_said(
    portal: PortalWorld, page: str, record: str, *, told: bool
) -> None:
    """To whose own it is: a proxy sees nothing of it, and is told of none."""
    browser = await portal.at(page, ADA, record)
    assert browser.page.status_code == 200
    assert ("also what is sensitive" in browser.page.text) is told


async def test_a_proxy_shares_the_sections_of_the_grant(portal: PortalWorld) -> None:
    browser = await portal.at(NEW, ADA, "kit")
    codes = browser.document.xpath("//input[@name='section']/@value")
    assert set(codes) == {"appointments", "documents", "health-summary"}
    await send(browser, NEW)
    stranger = await opened(portal, *shown(browser))
    page = await stranger.open(next(one for one in links(stranger) if "/files/" in one))
    assert "Peanut" in page.text
    await browser.open(SHARING)
    assert len(forms(browser, END)) == 1


async def test_a_proxy_without_act_sees_and_makes_none(portal: PortalWorld) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["documents"]))
    browser = await portal.at(SHARING, ADA, "kit")
    assert NEW not in links(browser)
    await browser.open(NEW)
    assert browser.page.url.path == SHARING


async def test_without_the_section_there_is_no_page(portal: PortalWorld) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["appointments"]))
    browser = await portal.at("/portal", ADA, "kit")
    assert SHARING not in links(browser)
    assert (await browser.open(SHARING)).status_code == 403


async def test_somebody_elses_link_is_not_ended_by_its_id(portal: PortalWorld) -> None:
    ada = await portal.at(NEW, ADA, "ada")
    await send(ada, NEW)
    link, passcode = shown(ada)
    await ada.open(SHARING)
    (form,) = forms(ada, END)
    own_id = fields_of(form)["id"]
    bo = await portal.at(NEW, BO)
    await send(bo, NEW)
    await bo.open(SHARING)
    (form,) = forms(bo, END)
    await post(bo, END, {**fields_of(form), "id": own_id})
    assert bo.page.status_code == 422
    assert (await opened(portal, link, passcode)).page.status_code == 200


async def test_a_form_of_another_site_makes_nothing(portal: PortalWorld) -> None:
    browser = await portal.at(NEW, ADA, "ada")
    await post(browser, NEW, {"form_token": "x", "summary": "yes"})
    assert browser.page.status_code in {400, 403}
    await browser.open(SHARING)
    assert "No link works now" in browser.page.text


async def test_where_the_practice_does_not_share_there_is_no_button(portal: PortalWorld) -> None:
    await keep(portal.world.store, PracticePolicy(key=SKIN, sharing=False))
    browser = await portal.at(SHARING, ADA, "ada")
    assert NEW not in links(browser)
    assert "does not share records by link" in browser.page.text


# --- sending -------------------------------------------------------------------------------------


SEND = f"{SHARING}/send"


async def test_who_sends_twice_is_told_that_the_passcode_was_shown(portal: PortalWorld) -> None:
    """A second press of the button leads away from the page that shows it."""
    browser = await portal.at(f"{SHARING}/send", ADA, "ada")
    (form,) = [one for one in forms(browser, f"{SHARING}/send") if one.get("method") == "post"]
    given = {**fields_of(form), "channel": "link", "what": "letter", "to": "dr@clinic.example"}
    await post(browser, f"{SHARING}/send", given)
    await post(browser, f"{SHARING}/send", given)
    assert "sent already" in browser.page.text
    assert browser.page.text.count("dr@clinic.example") == 1


@pytest.mark.requirement("portal", "S0-44", "S0-45")
async def test_a_document_is_sent_by_a_link_and_the_passcode_is_shown_once(
    portal: PortalWorld,
) -> None:
    browser = await portal.at(SEND, ADA, "ada")
    assert "Letter to the surgeon" in browser.page.text
    await send(browser, SEND, what="letter", to="desk@clinic.example")
    passcode = browser.document.xpath("//code[@class='key']")[0].text_content()
    here = browser.page.url.path
    await browser.open(here)
    assert browser.page.status_code == 404
    assert passcode not in browser.page.text
    await browser.open(SHARING)
    assert "desk@clinic.example" in browser.page.text
    assert "Waits to be sent. A document, a link by mail" in browser.page.text
    (message,) = await portal.world.store.every(OutboxMessage)
    assert (message.template, message.to) == ("share-link", "mail:desk@clinic.example")


async def test_plain_mail_is_sent_to_who_ticked_the_warning(portal: PortalWorld) -> None:
    browser = await portal.at(SEND, ADA, "ada")
    await send(browser, SEND, to="desk@clinic.example", channel="email")
    assert browser.page.status_code == 400
    assert "accept the warning" in problem(browser)
    assert await portal.world.store.every(OutboxMessage) == []
    await send(browser, SEND, to="desk@clinic.example", channel="email", accepted="yes")
    assert "It is being sent" in browser.page.text
    (message,) = await portal.world.store.every(OutboxMessage)
    assert message.template == "record-attached"


async def test_somebody_is_found_in_the_list(portal: PortalWorld) -> None:
    mail = [{"system": "email", "value": "hill@clinic.example"}]
    await portal.put(
        resource("Organization", "hill", name="Hill Clinic", meta=DIRECTORY, telecom=mail),
        resource("Organization", "vale", name="Vale Clinic", meta=DIRECTORY, telecom=mail),
    )
    browser = await portal.at(SEND, ADA, "ada")
    await browser.open(f"{SEND}?name=hil")
    assert browser.document.xpath("//select[@id='recipient']/option/@value") == [
        "",
        "Organization/hill",
    ]
    await send(browser, SEND, recipient="Organization/hill")
    (message,) = await portal.world.store.every(OutboxMessage)
    assert message.to == "mail:hill@clinic.example"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "say where it goes"),
        ({"to": "nobody"}, "no mail address"),
        ({"to": "a@b.example\r\nBcc: c@d.example"}, ""),
        ({"to": "a@b.example", "channel": "pigeon"}, "channel is one of"),
        ({"to": "a@b.example", "channel": "direct"}, "nothing is set up"),
    ],
)
async def test_what_cannot_be_sent_is_told_on_the_form(
    portal: PortalWorld, fields: dict[str, Any], words: str
) -> None:
    browser = await portal.at(SEND, ADA, "ada")
    await send(browser, SEND, **fields)
    assert browser.page.status_code == 400
    assert words in problem(browser).lower()
    assert await portal.world.store.every(OutboxMessage) == []


async def test_a_form_that_is_sent_twice_sends_once(portal: PortalWorld) -> None:
    browser = await portal.at(SEND, ADA, "ada")
    (form,) = [one for one in forms(browser, SEND) if one.get("method") == "post"]
    data = {**fields_of(form), "what": "summary", "channel": "link", "to": "a@b.example"}
    for _ in range(2):
        await post(browser, SEND, data)
    assert len(await portal.world.store.every(OutboxMessage)) == 1


async def test_a_proxy_without_act_sends_nothing(portal: PortalWorld) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["documents"]))
    browser = await portal.at(SHARING, ADA, "kit")
    assert SEND not in links(browser)
    await browser.open(SEND)
    assert browser.page.url.path == SHARING
