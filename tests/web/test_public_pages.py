"""What anybody may read: help, licences, links from notices; and the words of refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.metadata import requires
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_contact import ContactLine, OpenHours, PracticeContact, Service
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.fhir.outcome import ERROR_SYSTEM
from fhir_portal.notify.deep_link import TOPICS, deep_link
from fhir_portal.web.distributions import bill_of_materials, installed
from fhir_portal.web.pages.about import about_router
from fhir_portal.web.pages.errors import PAGE_ERRORS
from fhir_portal.web.pages.go import TARGETS, go_router
from fhir_portal.web.pages.help import help_router
from fhir_portal.web.site import take_in
from tests.smart.world import BASE, PASSWORD, Browser, World
from tests.web.signing_in import MARA, at_security, submit

ELM = Practice(
    key="elm", name="Elm Street Dermatology", zone="America/Chicago", phone="+15555550146"
)
OAK = Practice(key="oak", name="Oak Street Family Medicine")
ASH = Practice(key="ash", name="Ash Lane Dentists")
CONTACT = PracticeContact(
    key="elm",
    lines=(
        ContactLine("phone", "+1 555 555 0142", "Front desk"),
        ContactLine("tty", "+1 555 555 0143", "Text telephone (TTY)"),
        ContactLine("mail", "desk@elm.example"),
        ContactLine("web", "https://elm.example/"),
        ContactLine("fax", "+1 555 555 0144"),
    ),
    address="12 Alder Court, Fernhollow 00000",
    services=(
        Service(
            name="Portal support line",
            lines=(ContactLine("phone", "+1 555 555 0145"),),
            hours=(
                OpenHours(("mon", "tue", "wed", "thu", "fri"), "08:00", "17:30"),
                OpenHours(("sat",)),
            ),
            closed=("New Year's Day",),
            note="Closed on public holidays.",
        ),
    ),
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    for router in (help_router(world.store), about_router(), go_router()):
        take_in(world.app, router)
    await put(world, ELM, OAK, ASH, CONTACT)
    await put(world, PracticePolicy(key="oak", self_registration=("link",)))
    await put(world, PracticePolicy(key="ash", portal=False))
    yield world
    world.close()


async def put(world: World, *records: Any) -> None:
    async def keep(transaction: Any) -> None:
        for one in records:
            await transaction.put(one)

    await world.store.transact(keep)


def links(browser: Browser, at: str = "//main//a") -> list[str]:
    return [one.get("href") for one in browser.document.xpath(at)]


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S2-16")
async def test_anybody_learns_where_one_can_set_up_an_account_oneself(world: World) -> None:
    browser = world.browser()
    await browser.open("/help")
    told = [
        " ".join(one.text_content().split())
        for one in browser.document.xpath("//ul[@class='practices']/li")
    ]
    assert told == [
        f"{ASH.name} It does not use this portal at the moment.",
        f"{ELM.name} You can set up an account there by yourself.",
        f"{OAK.name} Accounts there begin with an invitation from the practice.",
    ]
    assert links(browser, "//ul[@class='practices']//a") == ["/help/ash", "/help/elm", "/help/oak"]


async def test_many_practices_come_in_pages_and_can_be_looked_for(world: World) -> None:
    await put(world, *(Practice(key=f"n{n:03}", name=f"Number {n:03} Clinic") for n in range(120)))
    at = "//ul[@class='practices']//a"
    browser = world.browser()
    seen = []
    await browser.open("/help")
    while True:
        seen += links(browser, at)
        following = links(browser, "//a[@rel='next']")
        if not following:
            break
        await browser.open(following[0])
    assert len(seen) == len(set(seen)) == 123
    assert "Page 3 of 3" in browser.text
    await browser.open("/help?name=CLINIC+number+07")
    assert links(browser, at) == ["/help/n007", *(f"/help/n07{n}" for n in range(10)), "/help/n107"]
    await browser.open("/help?name=clinic&page=2")
    assert len(links(browser, at)) == 50
    assert links(browser, "//a[@rel='prev']") == ["/help?name=clinic&page=1"]
    answer = await browser.open("/help?name=%3Cscript%3E")
    assert "No practice here is called that." in browser.text
    assert "<script>" not in answer.text
    for number in ("0", "-1", "4", "x", "9" * 40, "٢"):
        await browser.open(f"/help?page={number}")
        assert "Page 1 of 3" in browser.text
    await put(world, PracticePolicy(key="ash", portal=True))
    await browser.open("/help?name=ash")
    assert "You can set up an account there by yourself." in browser.text


@pytest.mark.requirement("portal", "S0-62", "S2-37")
async def test_the_page_of_a_practice_says_how_and_when_to_reach_it(world: World) -> None:
    browser = world.browser()
    await browser.open("/help/elm")
    assert browser.heading == f"How to reach {ELM.name}"
    for words in (
        *("Front desk", "Text telephone (TTY)", "relay service", "Portal support line"),
        *("Monday to Friday 08:00 to 17:30", "Saturday all day", "America/Chicago"),
        *("Closed: New Year's Day", "Closed on public holidays.", "12 Alder Court"),
    ):
        assert words in browser.text, words
    assert "The number for that is +15555550146" in browser.text
    assert {"tel:+15555550142", "tel:+15555550143", "mailto:desk@elm.example"} <= set(
        links(browser)
    )
    assert "https://elm.example/" in links(browser)
    assert "/signin?practice=elm" in links(browser)


async def test_a_practice_that_published_nothing_and_one_that_is_not_there(world: World) -> None:
    browser = world.browser()
    await browser.open("/help/oak")
    assert "has not put its contacts here yet" in browser.text
    response = await browser.open("/help/nowhere")
    assert response.status_code == 404
    assert "Error code: unknown-practice" in browser.text
    for odd in ("/help/%3Cscript%3E", "/help/..%2Felm", "/help/" + "x" * 500):
        response = await browser.http.get(odd)
        assert response.status_code == 404, odd
        assert "<script>" not in response.text


async def test_a_practice_without_the_portal_offers_no_sign_in(world: World) -> None:
    browser = world.browser()
    await browser.open("/help/ash")
    assert "does not use this portal at the moment" in browser.text
    assert "/signin?practice=ash" not in links(browser)


async def test_every_page_leads_to_help_and_to_the_licences(world: World) -> None:
    browser = world.browser()
    for path in ("/help", "/help/elm", "/signin", "/about/licences", "/go/nonsense"):
        await browser.open(path)
        assert links(browser, "//footer//a") == ["/help", "/about/licences"], path


# --- licences -------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-23")
async def test_every_run_time_dependency_is_named_with_its_licence(world: World) -> None:
    wanted = {
        canonicalize_name(one.name)
        for one in map(Requirement, requires("fhir-portal") or ())
        if one.marker is None or one.marker.evaluate({"extra": ""})
    }
    assert len(wanted) > 20
    assert wanted <= {one.name for one in installed()}
    browser = world.browser()
    await browser.open("/about/licences")
    listed = {one.text_content() for one in browser.document.xpath("//li/strong")}
    assert wanted <= listed
    assert "/about/sbom.json" in links(browser)
    for one in installed():
        assert one.expression or one.names, one.name
    await browser.open("/about/licences/starlette")
    assert "Redistribution and use" in browser.text
    assert (await browser.open("/about/licences/nothing")).status_code == 404


async def test_the_bill_of_materials_holds_all_of_them_and_what_each_needs(world: World) -> None:
    async with world.http() as http:
        response = await http.get("/about/sbom.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/vnd.cyclonedx+json"
    bill = response.json()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    own = bill["metadata"]["component"]
    assert own["name"] == "fhir-portal"
    refs = {one["bom-ref"] for one in bill["components"]} | {own["bom-ref"]}
    assert len(refs) == len(bill["components"]) + 1 == len(installed())
    for one in bill["dependencies"]:
        assert one["ref"] in refs
        assert set(one["dependsOn"]) <= refs
    reached, waiting = set[str](), [own["bom-ref"]]
    needs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += needs[ref]
    assert reached == refs
    assert bill_of_materials(installed()) == response.content


# --- links ----------------------------------------------------------------------------------------


def test_every_topic_has_a_page_and_its_link_names_the_practice_alone() -> None:
    assert tuple(TARGETS) == TOPICS
    assert deep_link(BASE, "apps", "elm") == f"{BASE}/go/apps?practice=elm"


@pytest.mark.requirement("portal", "S2-21")
async def test_a_link_in_a_notice_leads_by_the_sign_in_to_the_page(world: World) -> None:
    """The page decides after the sign-in; whoever is signed in goes there at once."""
    browser = world.browser()
    await browser.open(deep_link(BASE, "security", "elm").removeprefix(BASE))
    assert browser.heading == "Sign in"
    assert ELM.name in browser.text
    await submit(browser, "/signin", username=MARA, password="wrong")
    assert ELM.name in browser.text
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    assert browser.heading == "Security"
    await browser.open("/go/security")
    assert browser.heading == "Security"
    await browser.open("/go/help?practice=elm")
    assert browser.heading == f"How to reach {ELM.name}"


@pytest.mark.parametrize(
    "path",
    [
        "/go/https:%2F%2Fevil.example",
        "/go/%2F%2Fevil.example",
        "/go/account%2Fsecurity",
        "/go/..",
        "/go/security%0d%0aLocation:%20https://evil.example",
        "/go/Security",
    ],
)
async def test_a_link_leads_nowhere_else(world: World, path: str) -> None:
    async with world.http() as http:
        response = await http.get(path)
    assert response.status_code == 404
    assert "location" not in response.headers


@pytest.mark.parametrize("odd", ["https://evil.example", "../x", "a b", "elm&then=//evil.example"])
async def test_what_names_the_practice_names_nothing_else(world: World, odd: str) -> None:
    async with world.http() as http:
        for topic in TOPICS:
            response = await http.get(f"/go/{topic}", params={"practice": odd, "then": "//evil"})
            assert response.status_code == 303
            assert "evil" not in response.headers["location"]


@pytest.mark.requirement("portal", "S2-20")
async def test_the_sign_in_link_of_a_practices_website_names_the_practice(world: World) -> None:
    browser = world.browser()
    response = await browser.open("/signin?practice=elm")
    assert f"You come from {ELM.name}" in browser.text
    assert "/help/elm" in links(browser)
    assert response.headers["x-frame-options"] == "DENY"
    for unknown in ("nowhere", "%3Cb%3E", "elm%20"):
        await browser.open(f"/signin?practice={unknown}")
        assert "You come from" not in browser.text
    await browser.open("/signin?practice=elm")
    await submit(browser, "/signin", username=MARA, password=PASSWORD)
    assert browser.heading == "You are signed in"


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-54")
async def test_a_refusal_has_its_code_and_says_what_to_do_next(world: World) -> None:
    """Somebody known and somebody unknown are told the same."""
    pages = []
    for username in (MARA, "nobody@example.org"):
        browser = world.browser()
        await browser.open("/signin")
        response = await submit(browser, "/signin", username=username, password="wrong")
        assert response.status_code == 403
        assert "Error code: sign-in-refused" in browser.text
        assert "Check user name and password" in browser.text
        assert "/help" in links(browser)
        pages.append(browser.text.replace(username, ""))
    assert pages[0] == pages[1]
    browser = await at_security(world)
    response = await browser.http.post("/signout", data={"form_token": "x"})
    assert "Error code: form-out-of-date" in response.text


def test_every_code_of_a_page_is_in_the_guide() -> None:
    listed = ig_resource("CodeSystem", "portal-error")["concept"]
    assert set(PAGE_ERRORS) <= {one["code"] for one in listed}
    assert "`" not in json.dumps([one for one in listed if one["code"] in PAGE_ERRORS])


@pytest.mark.requirement("portal", "S0-54")
async def test_a_refusal_of_the_api_carries_its_code(
    as_anyone: httpx.AsyncClient, as_patient: httpx.AsyncClient, as_ehr: httpx.AsyncClient
) -> None:
    """What is hidden and what is absent have one code."""
    asked = [
        (await as_anyone.get("/fhir/Patient/anna"), 401, "not-signed-in"),
        (await as_patient.get("/fhir/Patient/nobody"), 404, "not-found"),
        (await as_patient.get("/fhir/Patient/ben"), 404, "not-found"),
        (await as_patient.get("/fhir/Nonsense/1"), 404, "unknown-type"),
        (await as_patient.get("/fhir/Patient?nonsense=1"), 400, "unknown-search"),
        (await as_patient.delete("/fhir/Patient/anna"), 403, "not-permitted"),
        (await as_ehr.post("/fhir/Patient/$nonsense"), 404, "unknown-operation"),
    ]
    for response, status, code in asked:
        assert response.status_code == status
        (issue,) = response.json()["issue"]
        assert issue["details"] == {"coding": [{"system": ERROR_SYSTEM, "code": code}]}
