"""Forms at the portal: filled in without a script, saved, taken up again, handed in, read again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.fhir.definitions import ig_resource
from tests.builders import (
    Caller,
    Json,
    a_grant,
    a_patient,
    a_proxy,
    oneself,
    reference,
    resource,
)
from tests.operations.test_forms import ADDRESS, MAIL, PHONE
from tests.resources.forms.twenty import QUESTIONNAIRES
from tests.smart.world import Browser
from tests.web.portal_world import ADA, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, problem
from tests.web.staff_world import links

FORMS = "/portal/forms"
FILL = f"{FORMS}/fill-in"
SYSTEM = "https://fhir-portal.example/ig/CodeSystem/form-task"


def a_request(own_id: str, form: str, url: str, *, of: str, **more: Any) -> Json:
    def kind(code: str) -> Json:
        return {"coding": [{"system": SYSTEM, "code": code}]}

    asked = kind("questionnaire")
    return resource(
        "Task",
        own_id,
        status="requested",
        intent="order",
        code=kind("complete-questionnaire"),
        description=form,
        **{"for": reference(f"Patient/{of}")},
        restriction={"period": {"end": "2030-04-01"}},
        input=[
            {"type": asked, "valueCanonical": url},
            {"type": asked, "valueReference": reference(f"Questionnaire/{form}")},
        ],
        **more,
    )


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    """Ada is asked for three forms, Kit for one, Bo for one."""
    found = await PortalWorld.begin()
    shipped = [ig_resource("Questionnaire", one) for one in ("medical-history", "pre-registration")]
    used = [*shipped, QUESTIONNAIRES["sleep"], QUESTIONNAIRES["contact"]]
    await found.put(
        *used,
        a_patient("ada", telecom=[PHONE, MAIL], address=[ADDRESS]),
        a_grant("grant", of="kit", to="mother", sections=["forms"], act=["forms"]),
        *(a_request(f"ada-{one['id']}", one["id"], one["url"], of="ada") for one in used),
        a_request("kits", "sleep", QUESTIONNAIRES["sleep"]["url"], of="kit"),
        a_request("bos", "sleep", QUESTIONNAIRES["sleep"]["url"], of="bo"),
    )
    yield found
    found.close()


async def send(browser: Browser, address: str, do: str, fields: Json | None = None) -> None:
    """Fill in the form of the page as a browser does: what is there stays, unless it is changed."""
    (form,) = forms(browser, address)
    data = fields_of(form)
    for one in form.xpath(".//input[@type='text' or @type='date' or @type='time' or @type='url']"):
        data[one.get("name")] = one.get("value") or ""
    for one in form.xpath(".//textarea"):
        data[one.get("name")] = one.text_content()
    for one in form.xpath(".//input[@checked]"):
        data[one.get("name")] = one.get("value")
    for one in form.xpath(".//option[@selected]"):
        data[one.getparent().get("name")] = one.get("value")
    await post(browser, address, {**data, **(fields or {}), "do": do})


def name_of(browser: Browser, label: str) -> str:
    """The name of the field with a label, or of the choice under a legend."""
    for one in browser.document.xpath("//label"):
        if " ".join(one.text_content().split()).startswith(label):
            found = browser.document.get_element_by_id(one.get("for"))
            return str(found.get("name"))
    for one in browser.document.xpath("//legend"):
        if " ".join(one.text_content().split()).startswith(label):
            return str(one.getparent().xpath(".//input")[0].get("name"))
    raise AssertionError(label)


def ada(portal: PortalWorld) -> Caller:
    return Caller(portal.world.portal, oneself("ada", SKIN))


async def answered(caller: Caller, status: str = "completed") -> list[Json]:
    return (await caller.get(f"QuestionnaireResponse?status={status}")).entries


@pytest.mark.requirement("portal", "S0-48", "S2-30")
async def test_a_form_is_saved_taken_up_again_handed_in_and_read(portal: PortalWorld) -> None:
    browser = await portal.at(FORMS, ADA, "ada")
    assert f"{FILL}/ada-sleep" in links(browser)
    address = f"{FILL}/ada-sleep"
    await browser.open(address)
    hours = name_of(browser, "About hours")
    await send(browser, address, "save", {name_of(browser, "About naps"): "yes"})
    assert "Saved" in browser.page.text
    assert "Begun" in browser.page.text
    await browser.open(address)
    assert browser.document.xpath("//input[@checked]/@value") == ["yes"]
    await send(browser, address, "hand-in")
    assert "another look" in problem(browser)
    assert "It has to be answered." in browser.page.text
    await send(browser, address, "hand-in", {hours: "often"})
    assert "give a number" in browser.page.text
    assert browser.document.xpath(f"//input[@name='{hours}']/@value") == ["often"]
    await send(browser, address, "hand-in", {hours: "30"})
    assert "It is at most 24." in browser.page.text
    await send(browser, address, "hand-in", {hours: "7,5"})
    assert "Thank you" in browser.page.text
    assert address not in links(browser)
    (done,) = await answered(ada(portal))
    assert done["source"] == {"reference": "Patient/ada"}
    assert [one["answer"][0] for one in done["item"]] == [
        {"valueDecimal": 7.5},
        {"valueBoolean": True},
    ]
    await browser.open(f"{FORMS}/answers/{done['id']}")
    assert "7.5" in browser.page.text
    assert (await browser.open(address)).status_code == 404


@pytest.mark.requirement("portal", "S1-30")
async def test_what_follows_from_an_answer_is_asked_and_rows_are_added(portal: PortalWorld) -> None:
    address = f"{FILL}/ada-medical-history"
    browser = await portal.at(address, ADA, "ada")
    assert "Health problem" not in browser.page.text
    asked = {
        name_of(browser, f"{one}"): "no"
        for one in ("Are you allergic", "Do you take any", "Do you smoke?")
    }
    problems = name_of(browser, "Do you have, or have you had")
    await send(browser, address, "go-on", {**asked, problems: "yes"})
    assert browser.page.url.path == address
    assert "Health problem" in browser.page.text
    what = name_of(browser, "High blood pressure")
    await send(browser, address, f"more:{what.partition('.')[0]}", {what: "0"})
    second = what.replace(".0-", ".1-")
    assert browser.document.xpath(f"//input[@name='{second}']")
    await send(browser, address, "hand-in", {second: "", f"{second}.other": "Hay fever"})
    assert "Sign the form" in problem(browser)
    await send(browser, address, "hand-in", {"signed": "yes"})
    assert "Thank you" in browser.page.text, problem(browser)
    (done,) = await answered(ada(portal))
    assert len([one for one in done["item"] if one["linkId"] == "problem"]) == 2
    assert done["extension"][0]["valueSignature"]["who"] == {"reference": "Patient/ada"}
    (review,) = (await ada(portal).get("Task?code=review-answers")).entries
    assert [one["resourceType"] for one in review["contained"]] == ["Condition", "Condition"]


@pytest.mark.requirement("portal", "S0-35")
async def test_a_pre_registration_shows_what_is_on_file(portal: PortalWorld) -> None:
    address = f"{FILL}/ada-pre-registration"
    browser = await portal.at(address, ADA, "ada")
    mobile = name_of(browser, "Mobile telephone")
    assert browser.document.xpath(f"//input[@name='{mobile}']/@value") == [PHONE["value"]]
    insured = name_of(browser, "Do you have health insurance")
    await send(browser, address, "hand-in", {mobile: "+13125550100", insured: "no"})
    assert "Thank you" in browser.page.text, problem(browser)
    (review,) = (await ada(portal).get("Task?code=review-answers")).entries
    assert set(review["contained"][0]) == {"resourceType", "id", "telecom"}


async def test_each_kind_of_field_is_read_as_its_kind(portal: PortalWorld) -> None:
    address = f"{FILL}/ada-contact"
    browser = await portal.at(address, ADA, "ada")
    given = {
        name_of(browser, "About name"): "<b>Ada</b>",
        name_of(browser, "About zip"): "6061",
        name_of(browser, "About call-at"): "09:30",
    }
    await send(browser, address, "save", given)
    assert "It is not written as the form asks." in browser.page.text
    assert "<b>Ada" not in browser.page.text
    assert (await answered(ada(portal), "in-progress")) == []
    await send(browser, address, "hand-in", {name_of(browser, "About zip"): "60614"})
    assert "Thank you" in browser.page.text, problem(browser)
    (done,) = await answered(ada(portal))
    assert done["item"][2]["answer"] == [{"valueTime": "09:30:00"}]


@pytest.mark.requirement("portal", "S0-48")
async def test_a_proxy_fills_in_for_the_patient_in_their_own_name(portal: PortalWorld) -> None:
    address = f"{FILL}/kits"
    browser = await portal.at(address, ADA, "kit")
    hours = name_of(browser, "About hours")
    await send(browser, address, "hand-in", {hours: "9"})
    assert "Thank you" in browser.page.text, problem(browser)
    proxy = a_proxy(practice=SKIN, sections=("forms",), act=("forms",))
    (done,) = await answered(Caller(portal.world.portal, proxy))
    assert done["source"] == {"reference": "RelatedPerson/mother"}
    assert done["subject"] == {"reference": "Patient/kit"}
    for other in ("ada-sleep", "bos", "nothing"):
        assert (await browser.open(f"{FILL}/{other}")).status_code == 404


async def test_who_may_look_alone_fills_nothing_in(portal: PortalWorld) -> None:
    browser = await portal.at(f"{FILL}/kits", ADA, "kit")
    (form,) = forms(browser, f"{FILL}/kits")
    token = fields_of(form)
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["forms"]))
    response = await post(browser, f"{FILL}/kits", {**token, "do": "save"})
    assert response.status_code == 403
    await browser.open(FORMS)
    assert not links(browser, FILL)
    proxy = a_proxy(practice=SKIN, sections=("forms",))
    assert (await answered(Caller(portal.world.portal, replace(proxy)), "in-progress")) == []


async def test_a_form_needs_its_hidden_field(portal: PortalWorld) -> None:
    browser = await portal.at(f"{FILL}/ada-sleep", ADA, "ada")
    response = await post(browser, f"{FILL}/ada-sleep", {"do": "hand-in"})
    assert response.status_code in {400, 403}
    assert (await answered(ada(portal), "in-progress")) == []


@pytest.mark.requirement("attacks", "cross-site request forgery")
@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "https://portal.example.evil.example"}, False),
        ({"Origin": "OURS"}, True),
        ({"Origin": "OURS", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "null"}, True),
        ({}, True),
    ],
)
async def test_a_form_is_not_taken_from_another_sites_page(
    portal: PortalWorld, headers: dict[str, str], *, taken: bool
) -> None:
    """A browser of an age that knows no ``Sec-Fetch-Site`` says ``Origin``."""
    browser = await portal.at(f"{FILL}/ada-sleep", ADA, "ada")
    (form,) = forms(browser, f"{FILL}/ada-sleep")
    ours = portal.world.server.issuer.base
    browser.http.headers.update(
        {name: ours if value == "OURS" else value for name, value in headers.items()}
    )
    await post(browser, f"{FILL}/ada-sleep", {**fields_of(form), "do": "save"})
    assert bool(await answered(ada(portal), "in-progress")) is taken
