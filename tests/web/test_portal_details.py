"""Details and insurance at the portal: shown with where they are from, changed by proposals."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_portal.accounts.one_time_code import KEY_PURPOSE, Challenge, OneTimeCodes
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.web import downloads
from fhir_portal.web.downloads import LONG
from tests.builders import (
    Caller,
    Json,
    a_binary,
    a_document,
    a_grant,
    a_patient,
    a_proxy,
    an_ehr,
    keep,
    oneself,
    reference,
)
from tests.operations.messages import a_prescription
from tests.operations.proposing import (
    HOME,
    MAIL,
    OLD,
    a_picture,
    call,
    decision,
    details,
    proposed,
    version,
)
from tests.smart.world import Browser
from tests.web.portal_world import ADA, BO, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import links, without_token

DETAILS, INSURANCE = "/portal/details", "/portal/insurance"
CHANGE, NEW = f"{DETAILS}/change", f"{INSURANCE}/new"


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    """Ada has details and an insurance; her mother's grant for Kit is for looking at details."""
    found = await PortalWorld.begin()
    await found.put(
        a_patient(
            "ada",
            name=[
                {"use": "old", "family": "Featherby"},
                {"use": "official", "family": "Quill", "given": ["Ada", "May"]},
            ],
            telecom=[OLD, MAIL, {"system": "phone", "use": "old", "value": "+1 312 555 0100"}],
            address=[HOME],
        ),
        a_insurance("plan", order=1),
        a_grant("grant", of="kit", to="mother", sections=["demographics"], act=[]),
    )
    yield found
    found.close()


def a_insurance(own_id: str, **more: Any) -> Json:
    return {
        "resourceType": "Coverage",
        "id": own_id,
        "status": "active",
        "beneficiary": reference("Patient/ada"),
        "payor": [{"display": "Sample Health"}],
        "subscriberId": "M-1",
        **more,
    }


def ada(portal: PortalWorld) -> Caller:
    return Caller(portal.world.portal, oneself("ada", SKIN))


def ehr(portal: PortalWorld) -> Caller:
    return Caller(portal.world.portal, an_ehr(SKIN))


def typed(browser: Browser, action: str, at: int = 0) -> Json:
    """What a browser would send of a form as it stands there."""
    form = forms(browser, action)[at]
    data = fields_of(form)
    for one in form.xpath(".//input[@type='text' or @type='date']"):
        data[one.get("name")] = one.get("value") or ""
    for one in form.xpath(".//select"):
        chosen = one.xpath(".//option[@selected]/@value")
        data[one.get("name")] = chosen[0] if chosen else ""
    return data


async def sent(
    browser: Browser, action: str, fields: Json, files: dict[str, bytes] | None = None, at: int = 0
) -> httpx.Response:
    """Send a form that has files."""
    listed = {name: ("x.jpg", content, "image/jpeg") for name, content in (files or {}).items()}
    data = typed(browser, action, at) | fields
    return await post(browser, action, data, files=listed or {"none": ("", b"", "")})


async def tasks(portal: PortalWorld) -> list[Json]:
    return (await ada(portal).get("Task?_sort=authored-on")).entries


@pytest.mark.requirement("portal", "S0-03", "S0-40")
async def test_details_are_shown_with_where_they_are_from_and_changed(portal: PortalWorld) -> None:
    browser = await portal.at(DETAILS, ADA, "ada")
    assert "12 Elm, Chicago" in browser.page.text
    assert "from Hillside Dermatology" in browser.page.text
    await browser.open(CHANGE)
    data = typed(browser, CHANGE)
    assert (data["given"], data["family"], data["mobile"]) == ("Ada May", "Quill", OLD["value"])
    await post(browser, CHANGE, data)
    assert problem(browser) == "Nothing was changed."
    changed = {"mobile": "+1 312 555 0177", "pronouns": "she/her", "line1": "14 Oak", "mail": ""}
    await post(browser, CHANGE, {**data, **changed, "note": "We have moved"})
    assert browser.page.url.path == DETAILS
    assert "Thank you" in browser.page.text
    assert "waits for the practice" in browser.page.text
    (task,) = await tasks(portal)
    asked = task["contained"][0]
    assert asked["telecom"] == [
        OLD | {"value": "+1 312 555 0177"},
        {"system": "phone", "use": "old", "value": "+1 312 555 0100"},
    ]
    assert asked["address"] == [HOME | {"line": ["14 Oak"]}]
    assert "name" not in asked
    assert task["note"] == [{"text": "We have moved"}]
    why = "That street is not here"
    answer = await call(
        ehr(portal),
        f"Task/{task['id']}",
        "review-proposal",
        decision("p1", "accept", "telecom", "pronouns"),
        decision("p1", "refuse", "address", reason_String=why),
    )
    assert answer.status == 200, answer.body
    await browser.open(DETAILS)
    text = " ".join(browser.page.text.split())
    assert f"not accepted: {why}" in text
    assert "proposed by you on" in text
    assert "+1 312 555 0177" in text
    assert "12 Elm" in text


async def test_a_change_by_the_practice_meanwhile_is_shown_and_not_overwritten(
    portal: PortalWorld,
) -> None:
    browser = await portal.at(CHANGE, ADA, "ada")
    data = typed(browser, CHANGE)
    there = (await ehr(portal).get("Patient/ada")).json
    there["telecom"][0]["value"] = "+1 312 555 0188"
    await portal.put({name: value for name, value in there.items() if name != "meta"})
    await post(browser, CHANGE, {**data, "mobile": "+1 312 555 0177"})
    assert "changed meanwhile" in problem(browser)
    assert typed(browser, CHANGE)["mobile"] == "+1 312 555 0188"
    assert await tasks(portal) == []


async def test_a_new_number_is_proved_on_the_page(portal: PortalWorld) -> None:
    await keep(portal.world.store, PracticePolicy(key=SKIN, direct_changes=("telecom",)))
    browser = await portal.at(CHANGE, ADA, "ada")
    await post(browser, CHANGE, typed(browser, CHANGE) | {"mobile": "+1 312 555 0177"})
    (task,) = await tasks(portal)
    prove = f"/portal/proposals/{task['id']}/prove"
    assert "The code that was sent to +13125550177" in browser.page.text
    (form,) = forms(browser, prove)
    data = fields_of(form)
    await post(browser, prove, {**data, "do": "prove", "code": ""})
    assert "Type the code" in browser.page.text
    await post(browser, prove, {**data, "do": "prove", "code": "1234 5678"})
    assert browser.page.status_code == 422
    await post(browser, prove, {**data, "do": "again"})
    assert "Another code is on its way" in browser.page.text
    assert await without_token(browser, prove, {"do": "again"}) == 403
    sent = await portal.world.store.every(Challenge)
    derive = portal.world.portal.collaborators.derive
    codes = OneTimeCodes(derive(KEY_PURPOSE), clock=portal.world.clock, random=bytes)
    for one in sent:
        code = codes.code(one.key, one.attempt)
        await post(browser, prove, {**data, "do": "prove", "code": code})
        if browser.page.status_code == 200:
            break
    assert "Your details are changed" in browser.page.text
    assert "+1 312 555 0177" in browser.page.text
    assert OLD["value"] not in str((await ada(portal).get("Patient/ada")).json["telecom"])


LOOKS = "The practice looks at"


@pytest.mark.parametrize(
    ("direct", "fields", "told"),
    [
        (("maritalStatus",), {"marital": "M"}, "Your details are changed."),
        (("maritalStatus",), {"marital": "M", "line1": "14 Oak"}, "Some of it is changed now."),
        (("maritalStatus",), {"line1": "14 Oak"}, f"Thank you. {LOOKS} it"),
        ((), {"mobile": "+1 312 555 0177"}, f"Thank you. {LOOKS} it"),
        (("telecom",), {"mobile": "+1 312 555 0177"}, "A code is on its way. Type it below"),
        (("telecom",), {"mobile": "+1 312 555 0177", "marital": "M"}, "What else waits"),
    ],
)
async def test_the_page_says_what_became_of_it(
    portal: PortalWorld, direct: tuple[str, ...], fields: Json, told: str
) -> None:
    await keep(portal.world.store, PracticePolicy(key=SKIN, direct_changes=direct))
    browser = await portal.at(CHANGE, ADA, "ada")
    await post(browser, CHANGE, typed(browser, CHANGE) | fields)
    (done,) = browser.document.xpath("//p[@role='status']")
    assert told in done.text
    assert (LOOKS in done.text) == (LOOKS in told or "Some of it" in told)


@pytest.mark.parametrize("at_once", [True, False])
async def test_the_page_says_whether_a_photo_is_looked_at_first(
    portal: PortalWorld, *, at_once: bool
) -> None:
    direct = ("photo",) if at_once else ()
    await keep(portal.world.store, PracticePolicy(key=SKIN, direct_changes=direct))
    browser = await portal.at(DETAILS, ADA, "ada")
    assert ("looks at it first" in browser.page.text) != at_once
    await sent(browser, f"{DETAILS}/photo", {"do": "send"}, {"file": a_picture()})
    (done,) = browser.document.xpath("//p[@role='status']")
    assert done.text.startswith("Your details are changed." if at_once else "Thank you.")


async def test_what_was_asked_for_is_taken_back(portal: PortalWorld) -> None:
    browser = await portal.at(CHANGE, ADA, "ada")
    await post(browser, CHANGE, typed(browser, CHANGE) | {"marital": "M", "language": "es"})
    (task,) = await tasks(portal)
    await post(browser, CHANGE, {"form_token": "x"})
    await browser.open(CHANGE)
    await post(browser, CHANGE, typed(browser, CHANGE) | {"marital": "S"})
    assert "waits for an answer already" in problem(browser)
    await browser.open(DETAILS)
    await submit(browser, f"/portal/proposals/{task['id']}/cancel")
    assert "taken back" in browser.page.text
    assert (await tasks(portal))[0]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"family": "", "given": ""}, "Give a name"),
        ({"mail": "nobody"}, "not a mail address"),
        ({"mobile": "none"}, "not a telephone number"),
        ({"marital": "XX"}, "Choose one of the list"),
        ({"language": "xx"}, "Choose one of the list"),
        ({"call-phone": "+1 312 555 0100"}, "who is to be called"),
        ({"city": "x" * 300}, "At most"),
        ({"city": "\x00"}, "At most"),
    ],
)
async def test_what_is_typed_wrongly_is_said_and_nothing_is_asked(
    portal: PortalWorld, fields: Json, words: str
) -> None:
    browser = await portal.at(CHANGE, ADA, "ada")
    await post(browser, CHANGE, typed(browser, CHANGE) | fields)
    assert browser.page.status_code == 400
    assert words in problem(browser)
    assert await tasks(portal) == []


@pytest.mark.requirement("portal", "S0-37")
async def test_a_photo_is_sent_looked_at_and_removed(portal: PortalWorld) -> None:
    browser = await portal.at(DETAILS, ADA, "ada")
    await sent(browser, f"{DETAILS}/photo", {"do": "send"})
    assert problem(browser) == "Choose one picture."
    await sent(browser, f"{DETAILS}/photo", {"do": "send"}, {"file": b"<svg onload='x()'/>"})
    assert browser.page.status_code == 400
    await sent(browser, f"{DETAILS}/photo", {"do": "send"}, {"file": a_picture(2000, camera=True)})
    assert "Thank you" in browser.page.text, browser.page.text
    (task,) = await tasks(portal)
    answer = await call(
        ehr(portal), f"Task/{task['id']}", "review-proposal", decision("p1", "accept")
    )
    assert answer.status == 200, answer.body
    await browser.open(DETAILS)
    assert browser.document.xpath("//img[@src='/portal/details/photo']")
    await browser.open(f"{DETAILS}/photo")
    assert browser.page.headers["content-type"] == "image/jpeg"
    assert b"Tell-Tale" not in browser.page.content
    await browser.open(DETAILS)
    await sent(browser, f"{DETAILS}/photo", {"do": "remove"})
    assert "Thank you" in browser.page.text
    task = (await tasks(portal))[-1]
    await call(ehr(portal), f"Task/{task['id']}", "review-proposal", decision("p1", "accept"))
    assert "photo" not in (await ada(portal).get("Patient/ada")).json


@pytest.mark.requirement("portal", "S0-41", "S1-29")
async def test_an_insurance_is_added_with_its_card_changed_and_ended(portal: PortalWorld) -> None:
    browser = await portal.at(INSURANCE, ADA, "ada")
    assert "Sample Health" in browser.page.text
    assert NEW in links(browser)
    await browser.open(NEW)
    await sent(browser, NEW, {"payor": ""})
    assert "which health plan" in problem(browser)
    fields = {"payor": "Second Health", "member": "M-2", "group": "G-7", "order": "2"}
    fields |= {"start": "2029-01-01"}
    pictures = {"front": a_picture(camera=True), "back": a_picture()}
    await sent(browser, NEW, fields, pictures)
    assert browser.page.url.path == INSURANCE, browser.page.text
    (task,) = await tasks(portal)
    made = await call(
        ehr(portal), f"Task/{task['id']}", "review-proposal", decision("p1", "accept")
    )
    assert made.status == 200, made.body
    await browser.open(INSURANCE)
    titles = [one.text_content() for one in browser.document.xpath("//h2")]
    assert titles[:2] == ["Sample Health", "Second Health"]
    assert "G-7" in browser.page.text
    addresses = browser.document.xpath("//img/@src")
    assert len(addresses) == 2
    for address in addresses:
        await browser.open(address)
        assert browser.page.headers["content-type"] == "image/jpeg"
        assert b"Tell-Tale" not in browser.page.content
    one = f"{INSURANCE}/one/plan"
    await browser.open(one)
    await sent(browser, one, {"member": "M-9"})
    assert browser.page.url.path == INSURANCE, browser.page.text
    await browser.open(one)
    await sent(browser, one, {"end": "2030-12-31", "do": "end"}, at=1)
    assert browser.page.url.path == INSURANCE, browser.page.text
    changed, ended = [one for one in await tasks(portal) if one["status"] == "requested"]
    for task in (changed, ended):
        done = await call(
            ehr(portal), f"Task/{task['id']}", "review-proposal", decision("p1", "accept")
        )
        assert done.status == 200, done.body
    coverage = (await ada(portal).get("Coverage/plan")).json
    assert coverage["subscriberId"] == "M-9"
    assert coverage["period"] == {"end": "2030-12-31"}
    assert coverage["order"] == 1


async def test_who_may_look_alone_finds_no_button_and_changes_nothing(portal: PortalWorld) -> None:
    browser = await portal.at(DETAILS, ADA, "kit")
    assert browser.page.status_code == 200
    assert links(browser, CHANGE) == []
    assert browser.document.xpath("//input[@type='file']") == []
    for page in (CHANGE, NEW):
        await browser.open(page)
        assert browser.page.status_code == 403
    await browser.open(INSURANCE)
    assert browser.page.status_code == 403
    assert "Sample Health" not in browser.page.text


async def test_a_page_of_one_record_shows_and_changes_no_other(portal: PortalWorld) -> None:
    made = await proposed(ada(portal), details(gender="female"), version(2))
    assert made.status == 200, made.body
    (task,) = await tasks(portal)
    picture = base64.b64encode(a_picture()).decode()
    await portal.put(
        {"resourceType": "Binary", "id": "hers", "contentType": "image/jpeg", "data": picture},
        {
            "resourceType": "DocumentReference",
            "id": "card",
            "status": "current",
            "subject": reference("Patient/ada"),
            "content": [{"attachment": {"contentType": "image/jpeg", "url": "Binary/hers"}}],
        },
    )
    browser = await portal.at(DETAILS, BO)
    assert "12 Elm" not in browser.page.text
    for page in (f"{INSURANCE}/one/plan", f"{INSURANCE}/card/card", f"{INSURANCE}/card/none"):
        await browser.open(page)
        assert browser.page.status_code == 404, page
    for path in (CHANGE, f"{DETAILS}/photo", NEW, f"/portal/proposals/{task['id']}/cancel"):
        assert await without_token(browser, path, {"payor": "x"}) in {400, 403}, path
    assert len(await tasks(portal)) == 1


@pytest.mark.parametrize("page", [f"{DETAILS}/photo", f"{INSURANCE}/card/card"])
async def test_a_long_picture_ends_with_access(
    portal: PortalWorld, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    picture = {"contentType": "image/jpeg", "url": "Binary/picture"}
    content = base64.b64encode(bytes(4 * LONG)).decode()
    sections = ["demographics", "insurance", "documents"]
    context = {"reference": "Patient/kit"}
    await portal.put(
        a_binary("picture", content=content, securityContext=context)
        | {"contentType": "image/jpeg"},
        a_patient("kit", photo=[picture]),
        a_document("card", of="kit", content=[{"attachment": picture}]),
        a_grant("grant", of="kit", to="mother", sections=sections),
    )
    mother = await portal.at(DETAILS, ADA, "kit")
    whole = await mother.http.get(page)
    assert len(whole.content) == 4 * LONG

    async def ends(body: bytes) -> AsyncIterator[bytes]:
        yield body[:LONG]
        await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
        yield body[LONG:]

    monkeypatch.setattr(downloads, "in_pieces", ends)
    with pytest.raises(AssertionError, match=r"^$"):  # the answer has no end
        await mother.http.get(page)


async def test_a_revoked_grant_closes_the_pages(portal: PortalWorld) -> None:
    await portal.put(
        a_grant("grant", of="kit", to="mother", sections=["demographics"], act=["demographics"])
    )
    browser = await portal.at(CHANGE, ADA, "kit")
    data = typed(browser, CHANGE)
    await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
    await post(browser, CHANGE, {**data, "mobile": "+1 312 555 0177"})
    assert browser.page.status_code == 403
    proxy = Caller(portal.world.portal, a_proxy(practice=SKIN, sections=["demographics"]))
    assert (await proxy.get("Task")).entries == []


@pytest.mark.requirement("portal", "S2-11")
async def test_a_medicine_is_said_not_to_be_taken(portal: PortalWorld) -> None:
    medicines = "/portal/proposals/medicines"
    await portal.put(
        a_prescription("cream"),
        a_prescription("old", status="stopped"),
        a_prescription("kits", of="kit"),
    )
    browser = await portal.at(medicines, ADA, "ada")
    assert "a cream" in browser.page.text
    (form,) = forms(browser, medicines)
    data = fields_of(form)
    for other in ("MedicationRequest/kits", "Patient/ada", ""):
        await post(browser, medicines, {**data, "medicine": other})
        assert browser.page.status_code == 404, other
    await post(browser, medicines, {**data, "why": "It burns"})
    assert "Thank you" in browser.page.text
    assert "You have said that it is not taken" in browser.page.text
    assert forms(browser, medicines) == []
    await post(browser, medicines, data)
    assert "waits for an answer already" in problem(browser)
    (task,) = await tasks(portal)
    await call(ehr(portal), f"Task/{task['id']}", "review-proposal", decision("p1", "accept"))
    (said,) = (await ada(portal).get("MedicationStatement")).entries
    assert (said["status"], said["note"]) == ("not-taken", [{"text": "It burns"}])
    child = await portal.at(medicines, ADA, "kit")
    assert child.page.status_code == 403
