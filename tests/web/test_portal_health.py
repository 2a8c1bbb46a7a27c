"""The portal's lists of medicines, problems, allergies and vaccines; refills, the certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.builders import (
    DIRECTORY,
    RESTRICTED,
    WITHHELD,
    Caller,
    Json,
    a_condition,
    a_grant,
    concept,
    reference,
    resource,
)
from tests.charts import (
    ALLERGY_CLINICAL,
    CLINICAL,
    SNOMED,
    a_prescription,
    an_allergy,
    an_immunization,
    said,
)
from tests.operations.messages import done
from tests.smart.world import Browser
from tests.staff import a_member_of_staff
from tests.web.portal_world import ADA, BO, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, submit
from tests.web.staff_world import buttons, links

MEDICINES = "/portal/medications"
REFILL = f"{MEDICINES}/refill"
HEALTH = "/portal/health"
VACCINES = "/portal/immunizations"
CERTIFICATE = f"{VACCINES}/certificate"
PAGES = (MEDICINES, HEALTH, VACCINES)
SCRIPT = "<script>alert(1)</script>"
SECTIONS = {MEDICINES: "medications", HEALTH: "health-summary", VACCINES: "immunizations"}


def chart(of: str, *, meta: Json | None = None, mark: str = "") -> list[Json]:
    more: Json = {"meta": meta} if meta else {}
    return [
        a_prescription(f"{of}-cream{mark}", of=of, **more),
        a_condition(f"{of}-eczema{mark}", of=of, **more),
        an_allergy(f"{of}-nuts{mark}", of=of, **more),
        an_immunization(f"{of}-flu{mark}", of=of, **more),
    ]


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await found.put(*chart("bo"), *chart("kit"))
    yield found
    found.close()


def part(browser: Browser, heading: str) -> str:
    """The words of a section."""
    (found,) = browser.document.xpath(f"//section[@aria-labelledby='{heading}']")
    return " ".join(" ".join(found.itertext()).split())


# ---------------------------------------------------------------- medicines


@pytest.mark.requirement("portal", "S2-11")
async def test_medicines_of_now_and_of_before_stand_apart(portal: PortalWorld) -> None:
    zinc = resource("Medication", "zinc", code={"text": "Zinc paste"}, meta=DIRECTORY)
    by_reference = a_prescription("paste", of="bo", status="stopped")
    del by_reference["medicationCodeableConcept"]
    await portal.put(
        zinc,
        by_reference | {"medicationReference": reference("Medication/zinc")},
        resource(
            "MedicationStatement", "oil", status="active", subject=reference("Patient/bo"),
            medicationCodeableConcept={"text": "Fish oil"}, dosage=[{"text": "One a day"}],
        ),
        a_prescription("wrong", of="bo", status="entered-in-error",
                       medicationCodeableConcept={"text": "Something else"}),
    )  # fmt: skip
    browser = await portal.at(MEDICINES, BO)
    current, past = part(browser, "current"), part(browser, "past")
    assert "Hydrocortisone 10 MG/ML" in current
    assert "A thin layer twice a day" in current
    assert "Fish oil As told" in current
    assert "Zinc paste" in past
    assert "Zinc paste" not in current
    assert "Something else" not in browser.text


async def test_that_there_are_none_is_said_of_this_list_alone(portal: PortalWorld) -> None:
    browser = await portal.at(MEDICINES, ADA, "ada")
    assert "No medicine of now is on file here" in browser.text
    await browser.open(HEALTH)
    assert "does not mean that there are no allergies" in browser.text
    await browser.open(VACCINES)
    assert "No vaccine is on record here" in browser.text
    assert [one for one in links(browser) if one.startswith(CERTIFICATE)] == []


@pytest.mark.requirement("portal", "S2-03")
async def test_a_refill_is_asked_for_with_the_warnings_read(portal: PortalWorld) -> None:
    browser = await portal.at(MEDICINES, BO)
    address = f"{REFILL}/bo-cream"
    assert address in links(browser)
    await browser.open(address)
    assert "No refill was asked for here" in browser.text
    await submit(browser, address, pharmacy="Corner Pharmacy", note="please")
    assert "No refills are left" in browser.text
    (form,) = forms(browser, address)
    assert form.fields["pharmacy"] == "Corner Pharmacy"
    assert "Ask all the same" in buttons(browser)
    await submit(browser, address)
    assert "Asked for: the practice has not answered yet" in browser.text
    assert forms(browser, address) == []  # one at a time
    desk = Caller(
        portal.world.portal, a_member_of_staff("lark", SKIN, permissions=("messages", "view"))
    )
    ehr = await desk.ask("GET", "Task?focus=MedicationRequest/bo-cream")
    (task,) = [one["resource"]["id"] for one in ehr.json["entry"]]
    await done(desk, f"Task/{task}", "answer-refill", status="refused", reason="See us first")
    await browser.open(address)
    assert "Refused: See us first" in browser.text
    assert "Ask for a refill" in buttons(browser)


async def test_who_may_only_look_asks_for_nothing(portal: PortalWorld) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["medications"]))
    browser = await portal.at(f"{REFILL}/kit-cream", ADA, "kit")
    assert "Hydrocortisone" in browser.text
    assert "Ask for a refill" not in buttons(browser)
    await portal.put(
        a_grant("grant", of="kit", to="mother", sections=["medications"], act=["medications"])
    )
    await browser.open(f"{REFILL}/kit-cream")
    fields = fields_of(forms(browser, f"{REFILL}/kit-cream")[0])
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["medications"]))
    await post(browser, f"{REFILL}/kit-cream", {**fields, "acknowledged": "yes"})
    assert browser.page.status_code == 403
    await browser.open(f"{REFILL}/kit-cream")
    assert "No refill was asked for here" in browser.text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"note": "x" * 501}, 422),
        ({"pharmacy": "x" * 201}, 422),
        ({"note": "\x07"}, 400),
        ({"form_token": "made-up"}, 403),
    ],
)
async def test_what_cannot_be_asked_is_refused_and_nothing_is_made(
    portal: PortalWorld, fields: Json, status: int
) -> None:
    browser = await portal.at(f"{REFILL}/bo-cream", BO)
    (form,) = forms(browser, f"{REFILL}/bo-cream")
    await post(browser, f"{REFILL}/bo-cream", {**fields_of(form), "acknowledged": "yes", **fields})
    assert browser.page.status_code == status
    await browser.open(f"{REFILL}/bo-cream")
    assert "No refill was asked for here" in browser.text


async def test_a_form_for_one_medicine_asks_for_no_other(portal: PortalWorld) -> None:
    await portal.put(a_prescription("other", of="bo"))
    browser = await portal.at(f"{REFILL}/bo-cream", BO)
    fields = fields_of(forms(browser, f"{REFILL}/bo-cream")[0])
    await post(browser, f"{REFILL}/other", {**fields, "acknowledged": "yes"})
    assert browser.page.status_code == 403


# ---------------------------------------------------------------- problems and allergies


async def test_problems_and_allergies_say_how_they_stand(portal: PortalWorld) -> None:
    resolved = {"clinicalStatus": concept(CLINICAL, "resolved"), "code": {"text": "Warts"}}
    unsure = {
        "verificationStatus": concept(
            "http://terminology.hl7.org/CodeSystem/condition-ver-status", "provisional"
        ),
        "code": {"text": "Hay fever"},
        "clinicalStatus": concept(CLINICAL, "active"),
    }
    refuted = {
        "verificationStatus": concept(
            "http://terminology.hl7.org/CodeSystem/condition-ver-status", "refuted"
        ),
        "code": {"text": "Gout"},
        "clinicalStatus": concept(CLINICAL, "active"),
    }
    await portal.put(
        a_condition("warts", of="bo") | resolved,
        a_condition("fever", of="bo") | unsure,
        a_condition("gout", of="bo") | refuted,
        an_allergy("latex", of="bo", code={"text": "Latex"},
                   clinicalStatus=concept(ALLERGY_CLINICAL, "resolved")),
    )  # fmt: skip
    browser = await portal.at(HEALTH, BO)
    assert "Peanut Hives (moderate) high risk" in part(browser, "allergies")
    assert "Hay fever (not confirmed)" in part(browser, "problems")
    assert "Warts" in part(browser, "past")
    assert "Latex" in part(browser, "past-allergies")
    assert "Gout" not in browser.text


async def test_no_known_allergies_is_said_only_where_the_record_says_so(
    portal: PortalWorld,
) -> None:
    none_known = an_allergy(
        "none", of="ada", code=said(SNOMED, "716186003", "No known allergies"), reaction=[],
        criticality=None,
    )  # fmt: skip
    none_known = {name: value for name, value in none_known.items() if value}
    browser = await portal.at(HEALTH, ADA, "ada")
    assert "No known allergies" not in browser.text
    await portal.put(none_known)
    await browser.open(HEALTH)
    assert "On record since February 1, 2026: No known allergies" in browser.text
    assert "Nothing is recorded here" not in browser.text


# ---------------------------------------------------------------- vaccines


@pytest.mark.requirement("portal", "S2-10")
async def test_vaccines_stand_by_name_and_date_and_can_be_printed(portal: PortalWorld) -> None:
    await portal.put(
        an_immunization("flu-2", of="bo", occurrenceDateTime="2029-10-02"),
        an_immunization("no", of="bo", status="not-done", statusReason={"text": "Fever"},
                        vaccineCode={"text": "Measles"}),
    )  # fmt: skip
    browser = await portal.at(VACCINES, BO)
    assert "Influenza, preservative free October 2, 2029 October 2, 2028" in browser.text
    assert "(not given: Fever)" in browser.text
    pdf = await browser.http.get(f"{CERTIFICATE}/pdf")
    assert pdf.content.startswith(b"%PDF")
    assert pdf.headers["content-disposition"] == 'attachment; filename="vaccines.pdf"'
    await browser.open(f"{CERTIFICATE}/html")
    assert "Copied from the record of Hillside Dermatology" in browser.text
    assert "Measles" not in browser.text
    assert "sandbox" in browser.page.headers["content-security-policy"]
    assert (await browser.http.get(f"{CERTIFICATE}/docx")).status_code == 422


# ---------------------------------------------------------------- who may see it


@pytest.mark.parametrize("path", PAGES)
async def test_a_proxy_sees_them_by_the_section_alone(portal: PortalWorld, path: str) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=[SECTIONS[path]]))
    browser = await portal.at("/portal", ADA, "kit")
    assert path in links(browser)
    seen = {}
    for one in PAGES:
        await browser.open(one)
        seen[one] = browser.text
    words = {MEDICINES: "Hydrocortisone", HEALTH: "Peanut", VACCINES: "Influenza"}
    assert {one for one in PAGES if words[one] in seen[one]} == {path}
    if path != VACCINES:
        await browser.open(f"{CERTIFICATE}/html")
        assert browser.page.status_code == 403
    if path != MEDICINES:
        await browser.open(f"{REFILL}/kit-cream")
        assert browser.page.status_code in {403, 404}


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_kept_from_a_proxy_leaves_the_pages_as_they_are(
    portal: PortalWorld, meta: Json
) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=list(SECTIONS.values())))
    browser = await portal.at("/portal", ADA, "kit")
    paths = (*PAGES, f"{CERTIFICATE}/html")
    before = []
    for path in paths:
        await browser.open(path)
        before.append(browser.text)
    await portal.put(*chart("kit", meta=meta, mark="-more"))
    for path, text in zip(paths, before, strict=True):
        await browser.open(path)
        assert browser.text == text
    await browser.open(f"{REFILL}/kit-cream-more")
    assert browser.page.status_code == 404


async def test_of_another_record_and_after_the_grant_nothing_is_shown(portal: PortalWorld) -> None:
    browser = await portal.at(MEDICINES, ADA, "ada")
    for path in PAGES:
        await browser.open(path)
        assert "Hydrocortisone" not in browser.text
        assert "Influenza" not in browser.text
        assert "Peanut" not in browser.text
    for own_id in ("bo-cream", "no-such-one"):
        await browser.open(f"{REFILL}/{own_id}")
        assert browser.page.status_code == 404
    signed_out = portal.world.browser()
    for path in (*PAGES, f"{REFILL}/bo-cream", f"{CERTIFICATE}/pdf"):
        await signed_out.open(path)
        assert signed_out.page.url.path == "/signin"
    await portal.put(a_grant("grant", of="kit", to="mother", sections=list(SECTIONS.values())))
    other = await portal.at(MEDICINES, ADA, "kit")
    await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
    for path in PAGES:
        await other.open(path)
        assert "Kit" not in other.text


async def test_what_others_write_is_text_on_the_pages(portal: PortalWorld) -> None:
    text = {"text": SCRIPT}
    await portal.put(
        a_prescription("bo-cream", of="bo", medicationCodeableConcept=text,
                       dosageInstruction=[text]),
        a_condition("bo-eczema", of="bo") | {"code": text},
        an_allergy("bo-nuts", of="bo", code=text),
        an_immunization("bo-flu", of="bo", vaccineCode=text, lotNumber=SCRIPT),
    )  # fmt: skip
    browser = await portal.at(MEDICINES, BO)
    for path in (*PAGES, f"{REFILL}/bo-cream", f"{CERTIFICATE}/html"):
        await browser.open(path)
        assert browser.page.status_code == 200
        assert "<script" not in browser.page.text
        assert SCRIPT in browser.text
