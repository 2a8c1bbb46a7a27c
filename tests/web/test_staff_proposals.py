"""Proposals at the staff pages: the queue, field by field, put right, and conflicts shown."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.accounts.levels import PERMISSIONS
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.web import downloads
from fhir_portal.web.downloads import LONG
from tests.builders import (
    Caller,
    Json,
    a_binary,
    a_patient,
    a_related_person,
    keep,
    oneself,
    reference,
)
from tests.operations.proposing import (
    HOME,
    MAIL,
    NEW,
    OLD,
    a_picture,
    attached,
    details,
    outcomes,
    part,
    proposed,
    version,
)
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.staff import a_level
from tests.web.signing_in import fields_of, forms, post, problem
from tests.web.staff_world import (
    ADMIN,
    BLIND,
    DESK,
    READER,
    SKIN,
    StaffWorld,
    links,
    without_token,
)

PROPOSALS = "/staff/proposals"
THEIRS: Json = {"system": "email", "value": "wife@mail.example"}


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    record = a_patient("bo", family="Quillon", telecom=[OLD, MAIL], address=[HOME])
    await put(found.world, SKIN, record)
    yield found
    found.close()


def bo(staff: StaffWorld) -> Caller:
    return Caller(staff.world.portal, oneself("bo", SKIN))


async def asked(staff: StaffWorld, *given: Json) -> str:
    """Bo asks for changes; return the page on which they are decided about."""
    given = given or (details(telecom=[NEW, MAIL], address=[HOME | {"city": "Aurora"}]), version(2))
    answer = await proposed(bo(staff), *given, of="bo")
    assert answer.status == 200, answer.body
    one = answer.json["parameter"][0]
    return f"{PROPOSALS}/{one['valueReference']['reference'].partition('/')[2]}"


async def decide(browser: Browser, address: str, fields: Json) -> None:
    """Send the decisions off as they were shown."""
    (form,) = forms(browser, address)
    data = fields_of(form)
    for one in form.xpath(".//input[@type='text']"):
        data[one.get("name")] = one.get("value") or ""
    await post(browser, address, {**data, **fields})


def warnings(browser: Browser) -> list[Any]:
    return list(browser.document.xpath("//p[@class='warning']"))


async def record(staff: StaffWorld) -> Json:
    return (await bo(staff).get("Patient/bo")).json


@pytest.mark.requirement("portal", "S0-40")
async def test_staff_accept_put_right_and_refuse_field_by_field(staff: StaffWorld) -> None:
    address = await asked(staff)
    browser = await staff.at(PROPOSALS)
    assert address in links(browser)
    assert "Quillon" in browser.page.text
    await browser.open(address)
    text = " ".join(browser.page.text.split())
    assert OLD["value"] in text
    assert NEW["value"] in text
    assert "The record was changed" not in text
    assert "+13125550143: a code was sent there, and has not come back yet" in text
    await decide(browser, address, {"p1.telecom.action": "accept"})
    assert problem(browser) == "Decide about each of them."
    edit = "p1.telecom.edit.0.value"
    fields = {
        "p1.telecom.action": "accept",
        edit: "+1 312 555 0199",
        "p1.address.action": "refuse",
        "p1.address.reason": "There is no such street",
    }
    await decide(browser, address, fields)
    assert browser.page.url.path == PROPOSALS
    assert "Decided" in browser.page.text
    after = await record(staff)
    assert after["telecom"] == [NEW | {"value": "+1 312 555 0199"}, MAIL]
    assert after["address"] == [HOME]
    (task,) = (await bo(staff).get("Task")).entries
    assert outcomes(task)[1] == ("refused", "address", "There is no such street")
    await browser.open(address)
    assert "decided already" in browser.page.text
    assert "There is no such street" in browser.page.text


async def test_a_conflict_is_shown_with_what_is_there_now(staff: StaffWorld) -> None:
    address = await asked(staff)
    browser = await staff.at(address)
    theirs = OLD | {"value": "+1 312 555 0111"}
    tree = {n: v for n, v in (await record(staff)).items() if n != "meta"}
    await put(staff.world, SKIN, tree | {"telecom": [theirs, MAIL]})
    fields = {"p1.telecom.action": "accept", "p1.address.action": "accept"}
    await decide(browser, address, fields)
    assert "changed meanwhile" in problem(browser)
    text = " ".join(browser.page.text.split())
    assert theirs["value"] in text
    assert "writes over what is there now" in text
    assert (await record(staff))["telecom"] == [theirs, MAIL]
    await decide(browser, address, fields)
    assert browser.page.url.path == PROPOSALS, browser.page.text
    assert (await record(staff))["telecom"] == [NEW, MAIL]


@pytest.mark.parametrize(
    ("invite", "by", "born", "telecom", "warned"),
    [
        (True, "RelatedPerson/wife", "1990-01-01", [OLD, MAIL, THEIRS], True),
        (True, "RelatedPerson/wife", "1990-01-01", [NEW, MAIL], True),
        (True, "RelatedPerson/wife", "1990-01-01", [MAIL], False),
        (True, "RelatedPerson/wife", "2020-01-01", [OLD, MAIL, THEIRS], False),
        (True, "Patient/bo", "1990-01-01", [OLD, MAIL, THEIRS], False),
        (False, "RelatedPerson/wife", "1990-01-01", [OLD, MAIL, THEIRS], False),
    ],
)
async def test_the_page_warns_that_a_proxys_address_gets_the_patients_own_invitation(
    staff: StaffWorld, by: str, born: str, telecom: list[Json], *, invite: bool, warned: bool
) -> None:
    await keep(staff.world.store, PracticePolicy(key=SKIN, invite_on_mail_address=invite))
    there = a_patient("bo", family="Quillon", telecom=[OLD, MAIL], birthDate=born)
    await put(staff.world, SKIN, there, a_related_person("wife", of="bo"))
    address = await asked(staff, details(telecom=telecom), version(3))
    (task,) = (await bo(staff).get("Task")).entries
    await put(staff.world, SKIN, task | {"requester": reference(by)})
    browser = await staff.at(address)
    words = [" ".join(one.text_content().split()) for one in warnings(browser)]
    assert [("the patient's own account" in one) for one in words] == ([True] if warned else [])
    (new,) = [one for one in telecom if one not in (OLD, MAIL)] or [MAIL]
    assert not warned or new["value"].replace(" ", "") in words[0]
    await decide(browser, address, {"p1.telecom.action": "refuse"})
    await browser.open(address)
    assert warnings(browser) == []


@pytest.mark.requirement("portal", "S0-37", "S0-41")
async def test_pictures_are_seen_before_they_are_accepted(staff: StaffWorld) -> None:
    coverage = {
        "resourceType": "Coverage",
        "status": "active",
        "beneficiary": reference("Patient/bo"),
        "payor": [{"display": "Sample Health"}],
        "subscriberId": "M-1",
    }
    address = await asked(
        staff,
        part(
            "coverage",
            action_Code="new",
            coverage=coverage,
            front_Attachment=attached(a_picture()),
        ),
    )
    browser = await staff.at(address)
    assert "supplied by the patient" in browser.page.text
    (picture,) = browser.document.xpath("//img/@src")
    await browser.open(picture)
    assert browser.page.headers["content-type"] == "image/jpeg"
    await browser.open(f"{address}/picture/7")
    assert browser.page.status_code == 404
    await browser.open(address)
    fields = {"p1..action": "accept", "p1..edit.subscriberId": "M-12"}
    await decide(browser, address, fields)
    assert browser.page.url.path == PROPOSALS, browser.page.text
    (made,) = (await bo(staff).get("Coverage")).entries
    assert made["subscriberId"] == "M-12"
    assert made["beneficiary"] == reference("Patient/bo")


async def test_a_long_picture_ends_with_access(
    staff: StaffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = await asked(staff, {"name": "photo", "valueAttachment": attached(a_picture())})
    (task,) = (await bo(staff).get("Task")).entries
    own_id = task["contained"][0]["photo"][0]["url"].partition("/")[2]
    content = base64.b64encode(bytes(4 * LONG)).decode()
    context = {"reference": "Patient/bo"}
    picture = a_binary(own_id, content=content, securityContext=context)
    await put(staff.world, SKIN, picture | {"contentType": "image/jpeg"})
    browser = await staff.at(address)
    (shown,) = browser.document.xpath("//img/@src")
    whole = await browser.http.get(shown)
    assert len(whole.content) == 4 * LONG

    ended = list[int]()

    async def ends(body: bytes) -> AsyncIterator[bytes]:
        yield body[:LONG]
        less = [one for one in PERMISSIONS if one != "forms"]
        await keep(staff.world.store, a_level(ADMIN, *less, practice=SKIN))
        ended.append(len(body))
        yield body[LONG:]

    monkeypatch.setattr(downloads, "in_pieces", ends)
    with pytest.raises(AssertionError, match=r"^$"):  # the answer has no end
        await browser.http.get(shown)
    assert ended == [4 * LONG]


async def test_proposals_are_for_those_whose_level_holds_forms(staff: StaffWorld) -> None:
    address = await asked(staff)
    for who in (READER, DESK, BLIND):
        for page in (PROPOSALS, address, f"{address}/picture/0"):
            browser = await staff.at(page, who)
            assert browser.page.status_code == 403
    far = await staff.at(f"{PROPOSALS}/nothing")
    assert far.page.status_code == 404


async def test_a_decision_needs_its_hidden_field(staff: StaffWorld) -> None:
    address = await asked(staff)
    browser = await staff.at(address)
    assert await without_token(browser, address, {"p1.telecom.action": "accept"}) == 403
    assert (await record(staff))["telecom"] == [OLD, MAIL]
