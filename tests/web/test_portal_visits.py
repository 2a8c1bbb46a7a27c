"""The portal's pages about visits: what belongs to one, for whom, and what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.access.log import AccessRow
from fhir_portal.documents.narrative_text import narrative_lines
from fhir_portal.smart.portal_pages import CLIENT
from tests.builders import (
    NOTE,
    Json,
    a_binary,
    a_document,
    a_grant,
    concept,
    reference,
    resource,
)
from tests.operations.messages import a_thread
from tests.smart.world import Browser
from tests.web.portal_world import ADA, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post
from tests.web.staff_world import links

VISITS = "/portal/visits"
ONE = f"{VISITS}/visit"
SNOMED = "http://snomed.info/sct"
SCRIPT = '<script>alert("x")</script>'
CONFIDENTIAL: Json = {
    "security": [
        {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    ]
}


def a_visit(own_id: str, day: str = "2026-03-02", *, of: str = "bo", **more: Any) -> Json:
    return resource(
        "Encounter",
        own_id,
        **{
            "status": "finished",
            "class": {
                "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"
            },
            "type": [concept(SNOMED, "185349003")],
            "subject": reference(f"Patient/{of}"),
            "participant": [{"individual": reference("Practitioner/lark")}],
            "period": {"start": f"{day}T15:00:00Z", "end": f"{day}T15:30:00Z"},
            "reasonCode": [{"text": f"A rash {SCRIPT}"}],
            "appointment": [reference("Appointment/before")],
            "account": [reference("Account/own")],
        }
        | more,
    )  # fmt: skip


def belonging(of: str = "bo", suffix: str = "", visit: str = "visit") -> list[Json]:
    """One of each kind of what a visit groups."""
    at = reference(f"Encounter/{visit}")
    own = reference(f"Patient/{of}")
    note = concept(NOTE, "clinical-note")
    money = {"value": 12.5, "currency": "USD"}
    price = [{"type": "base", "amount": money}]
    return [
        a_binary(f"note{suffix}"),
        a_document(f"note{suffix}", of=of, binary=f"note{suffix}", category=[note],
                   type=concept("http://loinc.org", "11506-3"), context={"encounter": [at]}),
        a_document(f"paper{suffix}", of=of, description="Instructions for the cream",
                   context={"encounter": [at]}),
        resource("Composition", f"composed{suffix}", status="final", subject=own, encounter=at,
                 type=concept("http://loinc.org", "34117-2"), date="2026-03-02T16:00:00Z",
                 author=[reference("Practitioner/lark")], title="Findings",
                 section=[{"title": "Skin", "text": {
                     "status": "generated",
                     "div": '<div xmlns="http://www.w3.org/1999/xhtml"><p>Dry, &lt;b&gt;</p></div>',
                 }}]),
        resource("DiagnosticReport", f"report{suffix}", status="final", subject=own, encounter=at,
                 code={"text": "Blood count"}, effectiveDateTime="2026-03-02",
                 conclusion="Nothing found"),
        resource("Observation", f"weight{suffix}", status="final", subject=own, encounter=at,
                 category=[concept(
                     "http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs")],
                 code={"text": "Weight"}, effectiveDateTime="2026-03-02",
                 valueQuantity={"value": 70, "unit": "kg"}),
        resource("ChargeItem", f"charge{suffix}", status="billable", subject=own, context=at,
                 code={"text": "Visit"}),
        resource("Invoice", f"bill{suffix}", status="issued", subject=own, totalGross=money,
                 date="2026-03-03", lineItem=[{
                     "chargeItemReference": reference(f"ChargeItem/charge{suffix}"),
                     "priceComponent": price}]),
        a_thread(f"thread{suffix}", of=of, encounter=at),
        resource("Communication", f"mail{suffix}", status="completed", subject=own, encounter=at,
                 payload=[{"contentString": "Not of a conversation"}]),
    ]  # fmt: skip


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    patient = {"actor": reference("Patient/bo"), "status": "accepted"}
    await found.put(
        resource("Account", "own", status="active", subject=[reference("Patient/bo")]),
        resource(
            "Appointment", "before", status="fulfilled", start="2026-03-02T15:00:00Z",
            end="2026-03-02T15:30:00Z", participant=[patient],
        ),
        a_visit("visit"),
        a_visit("earlier", "2025-01-10", type=None) | {"class": {"code": "VR"}},
        a_visit("planned", "2030-05-01", status="planned"),
        a_visit("of-kit", of="kit", appointment=None, account=None),
        *belonging(),
        *belonging("kit", "-of-kit", "of-kit"),
        a_grant("grant", of="kit", to="mother", sections=["visits"]),
    )  # fmt: skip
    yield found
    found.close()


def group(browser: Browser, name: str) -> str:
    """What stands in a group of the page; ``-`` where there is no such group."""
    found = browser.document.xpath(f"//section[@aria-labelledby='{name}']")
    return " ".join(" ".join(found[0].itertext()).split()) if found else "-"


@pytest.mark.requirement("portal", "S0-39", "S2-08")
async def test_visits_that_were_and_are_planned_are_listed_in_plain_words(
    portal: PortalWorld,
) -> None:
    browser = await portal.at(VISITS)
    assert links(browser, f"{VISITS}/") == [
        *(f"{VISITS}/planned", f"{VISITS}/visit", f"{VISITS}/earlier"),
    ]
    assert "Check-up" in group(browser, "planned")
    assert "Visit by video or telephone" in group(browser, "visits")
    assert "with Lark" in browser.text


@pytest.mark.requirement("portal", "S0-39", "S1-31", "S2-08")
async def test_a_visit_groups_what_belongs_to_it(portal: PortalWorld) -> None:
    browser = await portal.at(ONE)
    assert browser.heading == "Check-up"
    assert "Monday 2 March 2026" in browser.text
    assert f"A rash {SCRIPT}" in browser.text
    assert SCRIPT not in browser.page.text
    assert "Note about a visit" in group(browser, "notes")
    assert "What was told and what the examination showed" in group(browser, "notes")
    assert "Instructions for the cream" in group(browser, "documents")
    assert "Blood count Nothing found" in group(browser, "results")
    assert "Weight 70 kg" in group(browser, "results")
    assert "Bill of 12.50 USD" in group(browser, "bills")
    assert "A rash" in group(browser, "messages")
    assert "Not of a conversation" not in browser.text
    assert "2 March 2026" in group(browser, "appointment")
    assert set(links(browser, "/portal/documents/one/")) == {
        "/portal/documents/one/note", "/portal/documents/one/paper",
    }  # fmt: skip
    assert links(browser, "/portal/messages/") == ["/portal/messages/thread/thread"]
    for address in links(browser, "/portal/documents/one/"):
        await browser.open(address)
        assert browser.page.status_code == 200
        assert ONE in links(browser)


async def test_a_note_is_text_and_of_its_visit_alone(portal: PortalWorld) -> None:
    browser = await portal.at(f"{ONE}/note/composed")
    assert "Skin" in browser.text
    assert "Dry, <b>" in browser.text
    assert "<b>" not in browser.page.text
    for path in ("earlier/note/composed", "visit/note/composed-of-kit", "visit/note/none"):
        assert (await browser.open(f"{VISITS}/{path}")).status_code == 404


@pytest.mark.requirement("portal", "S1-31")
async def test_the_summary_of_a_visit_is_saved_and_written_down(portal: PortalWorld) -> None:
    browser = await portal.at(ONE)
    answer = await browser.open(f"{ONE}/summary")
    assert answer.status_code == 200
    assert answer.content.startswith(b"<?xml")
    assert answer.headers["content-disposition"] == 'attachment; filename="visit-2026-03-02.xml"'
    assert b"sandbox" in answer.headers["content-security-policy"].encode()
    assert ("$ccd", "download") in [(one.interaction, one.activity) for one in await rows(portal)]
    await portal.put(a_visit("never", period={"end": "2026-01-01"}))
    await browser.open(f"{VISITS}/never")
    assert links(browser, f"{VISITS}/never") == []
    assert (await browser.open(f"{VISITS}/never/summary")).status_code == 404


async def rows(portal: PortalWorld) -> list[AccessRow]:
    found = await portal.world.store.log.of_record(
        SKIN, "bo", agent=None, told=True, low=0, high=2**62, before=None, limit=200
    )
    return [one.row for one in found if one.row.client == CLIENT]


async def test_a_group_of_a_section_that_is_not_shared_is_not_there(portal: PortalWorld) -> None:
    browser = await portal.at(f"{VISITS}/of-kit", ADA, "kit")
    assert browser.heading == "Check-up"
    assert "Note about a visit" in group(browser, "notes")
    for name in ("documents", "results", "bills", "messages", "appointment"):
        assert group(browser, name) == "-"
    assert "examination" not in browser.text  # a Composition is a document
    assert (await browser.open(f"{VISITS}/of-kit/summary")).status_code == 403
    assert (await browser.open("/portal/documents/one/note-of-kit")).status_code == 200
    assert (await browser.open("/portal/documents/one/paper-of-kit")).status_code == 404
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["results", "documents"]))
    browser = await portal.at("/portal", ADA, "kit")
    assert VISITS not in links(browser)
    assert (await browser.open(f"{VISITS}/of-kit")).status_code == 404
    assert (await browser.open(f"{VISITS}/of-kit/note/composed-of-kit")).status_code == 404


@pytest.mark.requirement("portal", "S2-09")
async def test_bytes_and_metadata_of_what_is_labelled_are_hidden_alike(
    portal: PortalWorld,
) -> None:
    note = a_document(
        "hidden", of="kit", binary="hidden", category=[concept(NOTE, "clinical-note")],
        context={"encounter": [reference("Encounter/of-kit")]},
    )  # fmt: skip
    visit = a_visit("kept", of="kit", appointment=None, account=None)
    await portal.put(
        a_binary("hidden"), note | {"meta": CONFIDENTIAL}, visit | {"meta": CONFIDENTIAL}
    )
    mother = await portal.at(f"{VISITS}/of-kit", ADA, "kit")
    assert links(mother, "/portal/documents/one/") == ["/portal/documents/one/note-of-kit"]
    for path in ("/portal/documents/one/hidden", "/portal/documents/one/hidden/file/1"):
        assert (await mother.open(path)).status_code == 404
    assert (await mother.open(f"{VISITS}/kept")).status_code == 404
    await mother.open(VISITS)
    assert links(mother, f"{VISITS}/") == [f"{VISITS}/of-kit"]


async def test_nothing_of_another_record_and_nothing_taken_back_is_there(
    portal: PortalWorld,
) -> None:
    browser = await portal.at(VISITS)
    await portal.put(a_visit("wrong", status="entered-in-error"))
    for own_id in ("of-kit", "wrong", "none"):
        for path in ("", "/summary", "/note/composed"):
            assert (await browser.open(f"{VISITS}/{own_id}{path}")).status_code == 404
    stranger = portal.world.browser()
    assert (await stranger.http.get(ONE)).status_code == 303


async def test_earlier_visits_are_on_the_next_page(portal: PortalWorld) -> None:
    await portal.put(*(a_visit(f"v{n}", f"2024-01-{n + 1:02}") for n in range(30)))
    browser = await portal.at(VISITS)
    assert f"{VISITS}/v0" not in links(browser)
    (form,) = [one for one in forms(browser, VISITS) if "page" in one.fields]
    given = fields_of(form)
    await post(browser, VISITS, given)
    assert f"{VISITS}/v0" in links(browser)
    await browser.open(VISITS)
    for page in ("", "x y", "x" * 5000, "nonsense"):
        await post(browser, VISITS, {**given, "page": page})
        assert 400 <= browser.page.status_code < 500


@pytest.mark.parametrize(
    ("inside", "lines"),
    [
        ("<p>One<br/>two</p>three", ["One", "two", "three"]),
        ("<table><tr><td>a</td><td>b</td></tr></table>", ["a; b"]),
        ("<!-- hidden --><p>x &amp; <b>y</b></p>", ["x & y"]),
        ("<p>open", []),
        ("&entity;", []),
    ],
)
def test_a_narrative_is_lines(inside: str, lines: list[str]) -> None:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{inside}</div>'
    assert narrative_lines({"div": div}) == lines
    assert narrative_lines(None) == []
