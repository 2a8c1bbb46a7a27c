"""``$immunization-certificate``: what was given, from whose record, no more than may be seen."""

from __future__ import annotations

import pytest

from fhir_portal.portal import Portal
from tests.builders import RESTRICTED, WITHHELD, Answer, Caller, oneself, resource
from tests.charts import an_immunization
from tests.operations.charted import aunt, narrowed, record, refused
from tests.staff import a_member_of_staff

__all__ = ["aunt", "record"]

pytestmark = pytest.mark.usefixtures("record")

CERTIFICATE = "Patient/ada/$immunization-certificate"
HTML = f"{CERTIFICATE}?format=html"


def page(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    assert answer.response is not None
    assert answer.response.binary is not None
    media, content = answer.response.binary
    assert media.startswith("text/html")
    return content.decode()


@pytest.mark.requirement("portal", "S2-10")
async def test_it_lists_what_was_given_by_vaccine_and_day(ada: Caller, ehr: Caller) -> None:
    await ehr.store(
        an_immunization(
            "flu-2", occurrenceDateTime="2029-10-02", lotNumber="A17",
            manufacturer={"display": "Maker Inc."}, primarySource=True,
            protocolApplied=[{"doseNumberPositiveInt": 2, "seriesDosesPositiveInt": 3}],
        ),
        an_immunization("abroad", vaccineCode={"text": "Cholera"}, primarySource=False,
                        reportOrigin={"text": "vaccination card"}),
        an_immunization("no", status="not-done", vaccineCode={"text": "Measles"}),
        an_immunization("wrong", status="entered-in-error", vaccineCode={"text": "Rabies"}),
    )  # fmt: skip
    text = page(await ada.get(HTML))
    assert text.index("Cholera") < text.index("October 2, 2028") < text.index("October 2, 2029")
    for words in ("2 of 3", "A17, Maker Inc.", "Recorded when given", "Reported: vaccination card"):
        assert words in text
    assert "Measles" not in text
    assert "Rabies" not in text


@pytest.mark.requirement("portal", "S2-10")
async def test_it_says_what_it_is_and_claims_no_signature(ada: Caller) -> None:
    text = page(await ada.get(HTML))
    assert "Copied from the record of" in text
    assert "may be missing" in text
    assert "Nobody has signed this" in text
    assert "Ada Quill" in text
    answer = await ada.get(CERTIFICATE)
    assert answer.response is not None
    assert answer.response.binary is not None
    media, content = answer.response.binary
    assert (media, content[:5]) == ("application/pdf", b"%PDF-")
    assert answer.json["resourceType"] == "Binary"


async def test_a_record_without_vaccines_says_so(ada: Caller, ehr: Caller) -> None:
    await ehr.store(an_immunization("flu", status="entered-in-error"))
    assert "No vaccine that was given is on record here" in page(await ada.get(HTML))
    assert (await ada.get(CERTIFICATE)).status == 200


async def test_who_does_not_see_the_name_gets_none(aunt: Caller) -> None:
    text = page(await narrowed(aunt, "immunizations").get(HTML))
    assert "Influenza" in text
    assert "Quill" not in text
    assert "not shown to the person who printed this" in text
    assert "Ada Quill" in page(await narrowed(aunt, "immunizations", "demographics").get(HTML))


async def test_staff_and_the_ehr_print_it_too(portal: Portal, ehr: Caller) -> None:
    desk = Caller(portal, a_member_of_staff("nurse", permissions=("view",)))
    for caller in (desk, ehr):
        assert "Influenza" in page(await caller.get(HTML))


async def test_whoever_lacks_one_thing_is_refused(aunt: Caller, ada: Caller) -> None:
    for auth in (*refused(aunt.auth, "results"), *refused(ada.auth)[:2]):
        answer = await Caller(aunt.portal, auth).get(HTML)
        assert answer.status in {403, 404}, auth
        assert b"Influenza" not in answer.body
    without = oneself(scope="patient/Patient.r")
    assert (await Caller(ada.portal, without).get(HTML)).status == 403


async def test_the_record_of_somebody_else_is_not_there(portal: Portal) -> None:
    answers = []
    for whose in ("ada", "nobody"):
        answer = await Caller(portal, oneself("bo")).get(HTML.replace("ada", whose))
        answers.append((answer.status, answer.body.replace(whose.encode(), b"X")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_labelled_leaves_it_as_it_is_for_a_proxy(
    aunt: Caller, ehr: Caller, meta: dict[str, object]
) -> None:
    before = page(await aunt.get(HTML))
    await ehr.store(an_immunization("secret", vaccineCode={"text": "Cholera"}, meta=meta))
    assert page(await aunt.get(HTML)) == before
    assert (await narrowed(aunt, "forms").get(HTML)).status == 403


@pytest.mark.parametrize("query", ["format=docx", "format=", "format=html&format=pdf", "x=1"])
async def test_what_is_not_offered_is_refused_by_name(ada: Caller, query: str) -> None:
    answer = await ada.get(f"{CERTIFICATE}?{query}")
    assert answer.status in {400, 422, 501}
    assert answer.json["resourceType"] == "OperationOutcome"


async def test_the_access_is_in_the_log(ada: Caller, ehr: Caller) -> None:
    await ada.get(HTML)
    log = await ehr.ask("GET", "AuditEvent?entity=Patient/ada&_count=50")
    codes = [
        code["code"] for one in log.json["entry"] for code in one["resource"].get("subtype", ())
    ]
    assert codes.count("immunization-certificate") == 1


async def test_markup_in_a_record_is_text(ada: Caller, ehr: Caller) -> None:
    await ehr.store(
        an_immunization("odd", vaccineCode={"text": "<b>x</b>"}),
        resource("Patient", "ada", name=[{"text": "<i>Ada</i>"}]),
    )
    text = page(await ada.get(HTML))
    assert "<b>" not in text
    assert "<i>" not in text
