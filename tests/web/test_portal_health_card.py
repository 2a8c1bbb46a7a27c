"""``/portal/immunizations/card``: the signed card to print and as a file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from fhir_portal.smart.health_card_keys import jwks_of, keys_of
from tests.builders import RESTRICTED, WITHHELD, Json, a_grant, a_patient
from tests.charts import CVX, an_immunization, said
from tests.health_cards import codes_on, verified
from tests.web.portal_world import ADA, BO, SKIN, PortalWorld
from tests.web.staff_world import links

VACCINES = "/portal/immunizations"
CARD = f"{VACCINES}/card"
FORMS = ("html", "pdf", "file")


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await found.put(an_immunization("bo-flu", of="bo"), an_immunization("kit-flu", of="kit"))
    yield found
    found.close()


async def grant(portal: PortalWorld, *sections: str) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=list(sections)))


@pytest.mark.requirement("portal", "S2-10")
async def test_it_is_downloaded_as_a_file_for_apps(portal: PortalWorld) -> None:
    browser = await portal.at(VACCINES, BO)
    assert {f"{CARD}/{form}" for form in FORMS} <= set(links(browser))
    answer = await browser.http.get(f"{CARD}/file")
    assert answer.headers["content-type"] == "application/smart-health-card"
    assert answer.headers["content-disposition"] == (
        'attachment; filename="vaccines.smart-health-card"'
    )
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert set(found) == {"verifiableCredential"}
    (card,) = found["verifiableCredential"]
    published = jwks_of(await keys_of(portal.world.store, SKIN))
    assert verified(card, published)["iss"].endswith(f"/health-cards/{SKIN}")
    assert codes_on([card]) == ["140"]


@pytest.mark.requirement("portal", "S2-10")
async def test_it_is_printed_with_a_code_and_what_can_be_read_in_it(portal: PortalWorld) -> None:
    await portal.put(
        an_immunization("no", of="bo", status="not-done", vaccineCode=said(CVX, "3", "Measles")),
        an_immunization("abroad", of="bo", primarySource=False, occurrenceDateTime="2020-02",
                        vaccineCode=said(CVX, "26", "Cholera")),
    )  # fmt: skip
    browser = await portal.at(f"{CARD}/html", BO)
    assert "Signed by Hillside Dermatology on" in browser.text
    assert "NameAda Reed BornMay 12, 1984" in browser.text
    assert "Influenza, preservative free: October 2, 2028" in browser.text
    assert "Cholera: February 2020 (reported)" in browser.text
    assert "Measles" not in browser.text
    assert "Card 1 of" not in browser.text
    assert len(browser.document.xpath("//figure[@role='img'][@aria-label]/*[name()='svg']")) == 1
    assert "sandbox" in browser.page.headers["content-security-policy"]
    pdf = await browser.http.get(f"{CARD}/pdf")
    assert pdf.content.startswith(b"%PDF")
    assert b"/Image" in pdf.content
    assert pdf.headers["content-disposition"] == 'attachment; filename="vaccines-signed.pdf"'


async def test_what_does_not_fit_one_code_is_in_further_ones(portal: PortalWorld) -> None:
    await portal.put(
        *(an_immunization(f"shot-{n}", of="bo", vaccineCode=said(CVX, str(n + 1000), f"Shot {n}"),
                          lotNumber=str(n**9), occurrenceDateTime=f"20{n:02}-01-07")
          for n in range(60)),
        an_immunization("long", of="bo", vaccineCode=said(CVX, "26", "Cholera"),
                        occurrenceDateTime="1999",
                        lotNumber="".join(str(n**5) for n in range(400))),
    )  # fmt: skip
    browser = await portal.at(f"{CARD}/html", BO)
    headings = [one.text for one in browser.document.xpath("//h2")]
    assert len(headings) > 2
    assert headings == [f"Card {n} of {len(headings)}" for n in range(1, len(headings) + 1)]
    assert len(browser.document.xpath("//*[name()='svg']")) == len(headings) - 1
    assert "too long for a code" in browser.text
    assert all(f"Shot {n}: January 7, 20{n:02}" in browser.text for n in range(60))
    found = (await browser.http.get(f"{CARD}/file")).json()["verifiableCredential"]
    assert len(found) == len(headings)
    assert (await browser.http.get(f"{CARD}/pdf")).content.startswith(b"%PDF")


async def test_a_record_without_a_vaccine_for_it_says_so(portal: PortalWorld) -> None:
    await portal.put(an_immunization("bo-flu", of="bo", vaccineCode={"text": "Cholera"}))
    browser = await portal.at(VACCINES, BO)
    for form in FORMS:
        await browser.open(f"{CARD}/{form}")
        assert browser.page.status_code == 422
        assert "no vaccine with a code and a date" in browser.text
    await browser.open(f"{CARD}/docx")
    assert browser.page.status_code == 404


async def test_a_proxy_needs_vaccines_and_the_name(portal: PortalWorld) -> None:
    """Planted fault: the file is given to who sees one of them."""
    await grant(portal, "immunizations", "demographics")
    browser = await portal.at(VACCINES, ADA, "kit")
    assert f"{CARD}/file" in links(browser)
    assert codes_on((await browser.http.get(f"{CARD}/file")).json()["verifiableCredential"])
    for sections, status in (
        (("immunizations",), 422),
        (("demographics",), 403),
        (("results",), 403),
    ):
        await grant(portal, *sections)
        browser = await portal.at("/portal", ADA, "kit")
        await browser.open(VACCINES)
        assert f"{CARD}/file" not in links(browser)
        for form in FORMS:
            answer = await browser.http.get(f"{CARD}/{form}")
            assert answer.status_code == status, sections
            assert "eyJ" not in answer.text


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_kept_from_a_proxy_is_not_on_it(portal: PortalWorld, meta: Json) -> None:
    await grant(portal, "immunizations", "demographics")
    browser = await portal.at(VACCINES, ADA, "kit")
    await browser.open(f"{CARD}/html")
    before = re.sub(r'd="[^"]*"', "", browser.page.text)
    secret = said(CVX, "26", "Cholera")
    await portal.put(an_immunization("more", of="kit", vaccineCode=secret, meta=meta))
    await browser.open(f"{CARD}/html")
    assert re.sub(r'd="[^"]*"', "", browser.page.text) == before
    found = (await browser.http.get(f"{CARD}/file")).json()["verifiableCredential"]
    assert codes_on(found) == ["140"]


async def test_markup_in_a_record_is_text(portal: PortalWorld) -> None:
    await portal.put(
        a_patient("bo", family="<i>Bo</i>"),
        an_immunization("bo-flu", of="bo", vaccineCode=said(CVX, "140", "<b>x</b>")),
    )
    browser = await portal.at(f"{CARD}/html", BO)
    assert "<b>x</b>: October" in browser.text
    assert "<i>" not in browser.page.text
    assert (await browser.http.get(f"{CARD}/pdf")).status_code == 200


async def test_who_is_not_signed_in_gets_none(portal: PortalWorld) -> None:
    async with portal.world.http() as http:
        for form in FORMS:
            answer = await http.get(f"{CARD}/{form}")
            assert answer.status_code in {303, 401, 403}
            assert "eyJ" not in answer.text
