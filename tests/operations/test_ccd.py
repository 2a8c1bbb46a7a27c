"""``Patient/[id]/$ccd`` and ``DocumentReference/$docref``: the record as a C-CDA for its reader."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from dataclasses import replace

import pytest
from lxml import etree

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.builders import (
    BASE,
    RESTRICTED,
    WITHHELD,
    Answer,
    Caller,
    Json,
    a_binary,
    a_condition,
    a_document,
    a_practice,
    a_provenance,
    an_encounter,
    an_observation,
    changed,
    concept,
    keep,
    resource,
)
from tests.charts import (
    LOINC,
    PRACTICE_ORGANIZATION,
    a_prescription,
    a_record,
    an_allergy,
    an_immunization,
)
from tests.operations.charted import SEEN, aunt, hidden_by, key_of, narrowed, record, refused
from tests.staff import a_member_of_staff

__all__ = ["aunt", "record"]

pytestmark = pytest.mark.usefixtures("record")

CCD = "Patient/ada/$ccd"
DOCREF = "DocumentReference/$docref?patient=ada"
V3 = {"v": "urn:hl7-org:v3"}


def xml_of(answer: Answer) -> bytes:
    assert answer.status == 200, answer.body
    assert answer.json["contentType"] == "application/cda+xml"
    return b64decode(answer.json["data"])


def keys_in(content: bytes) -> dict[str, set[str]]:
    """The resources that each section's entries come from, by its title."""
    found: dict[str, set[str]] = {}
    for section in etree.fromstring(content).iterfind(".//v:section", V3):
        ids = section.iterfind("v:entry//v:id", V3)
        keys = {"/".join(str(one.get("extension")).split("/")[:2]) for one in ids}
        found[section.findtext("v:title", "", V3)] = {one for one in keys if "/" in one}
    return found


EVERYTHING = {
    "Allergies": {"AllergyIntolerance/nuts"},
    "Medicines": {"MedicationRequest/cream", "MedicationRequest/old-cream"},
    "Health problems": {"Condition/eczema", "Condition/flu-of-old"},
    "Operations and procedures": {"Procedure/biopsy"},
    "Test results": {"Observation/sugar"},
    "Measurements": {"Observation/pulse", "Observation/pulse-of-old"},
    "Daily life": {"Observation/smoking"},
    "Vaccines": {"Immunization/flu"},
    "Visits": {"Encounter/visit"},
    "Plans and goals": {"CarePlan/plan", "Goal/goal"},
}


@pytest.mark.requirement("portal", "S0-02")
async def test_docref_returns_the_document_and_where_it_is(
    ada: Caller, aunt: Caller, ehr: Caller
) -> None:
    """A CCD on demand and stored ones found by type and period; a proxy's copy is redacted."""
    stored = a_document(
        "old-ccd",
        type=concept(LOINC, "34133-9"),
        context={"period": {"start": "2024-01-01", "end": "2024-02-01"}},
    )
    await ehr.store(stored)
    answer = await ada.get(DOCREF)
    made, binary, old = answer.entries
    assert (made["resourceType"], binary["resourceType"]) == ("DocumentReference", "Binary")
    assert old["id"] == "old-ccd"
    assert answer.json["total"] == 2
    attachment = made["content"][0]["attachment"]
    content = b64decode(binary["data"])
    assert keys_in(content) == EVERYTHING
    assert attachment["contentType"] == binary["contentType"] == "application/cda+xml"
    assert attachment["url"] == f"{BASE}/{CCD}" == answer.json["entry"][1]["fullUrl"]
    assert attachment["size"] == len(content)
    digest = hashlib.sha1(content, usedforsecurity=False).digest()
    assert attachment["hash"] == b64encode(digest).decode()
    assert xml_of(await ada.get(attachment["url"])) == content
    for query, found in (
        ("type=http://loinc.org|34133-9", 2),
        ("type=34133-9&on-demand=true", 1),
        ("type=http://loinc.org|18842-5", 0),
        ("start=2024-01-15&end=2024-01-20", 2),
        ("start=2025-01-01", 1),
        ("profile=http://profiles.example/mine", 0),
    ):
        assert (await ada.get(f"{DOCREF}&{query}")).json.get("total") == found, query
    redacted = await narrowed(aunt, *(one for one in SEEN if one != "medications")).get(DOCREF)
    assert keys_in(b64decode(redacted.entries[1]["data"]))["Medicines"] == set()
    assert b"MedicationRequest" not in b64decode(redacted.entries[1]["data"])


async def test_stored_documents_are_found_by_the_practices_days(
    ada: Caller, ehr: Caller, accounts: EmbeddedStore
) -> None:
    """Half past eight in the evening there is the next day by UTC."""
    await keep(
        accounts, changed(a_practice(zone="America/Chicago"), organization="Organization/derm")
    )
    evening = {"start": "2024-03-02T02:30:00Z", "end": "2024-03-02T02:45:00Z"}
    await ehr.store(
        a_document("old-ccd", type=concept(LOINC, "34133-9"), context={"period": evening})
    )
    for day, found in (
        ("2024-02-29", 1), ("2024-03-01", 2), ("2024-03-02", 1), ("2024-03", 2), ("2024-02", 1),
        ("9999", 1), ("0001-01-01", 1),
    ):  # fmt: skip
        answer = await ada.get(f"{DOCREF}&start={day}&end={day}")
        assert answer.json.get("total") == found, day


async def test_the_ips_comes_the_other_way_too(ada: Caller, aunt: Caller) -> None:
    query = f"{DOCREF}&type=60591-5"
    made, binary = (await ada.get(query)).entries
    assert made["content"][0]["attachment"]["url"] == f"{BASE}/Patient/ada/$summary"
    assert b64decode(binary["data"]) == (await ada.get("Patient/ada/$summary")).body
    without = narrowed(aunt, "documents", "results", "demographics")
    assert (await without.get(query)).entries == []


@pytest.mark.requirement("portal", "S1-31")
async def test_of_a_visit_it_holds_what_falls_in_its_time_and_what_was_true_then(
    ada: Caller,
) -> None:
    answer = await ada.get(f"{DOCREF}&start=2029-03-01&end=2029-03-01")
    content = b64decode(answer.entries[1]["data"])
    assert keys_in(content) == {
        "Allergies": {"AllergyIntolerance/nuts"},
        "Medicines": {"MedicationRequest/cream"},
        "Health problems": {"Condition/eczema"},
        "Test results": {"Observation/sugar"},
        "Measurements": {"Observation/pulse"},
        "Daily life": {"Observation/smoking"},
        "Visits": {"Encounter/visit"},
        "Plans and goals": {"CarePlan/plan", "Goal/goal"},
    }
    period = answer.entries[0]["context"]["period"]
    assert period == {"start": "2029-03-01", "end": "2029-03-01"}
    url = answer.entries[0]["content"][0]["attachment"]["url"]
    assert xml_of(await ada.get(url)) == content


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("start=yesterday", 400),
        ("start=2029-03-02&end=2029-03-01", 422),
        ("type=34133-9", 400),
        ("start=2029&start=2030", 400),
    ],
)
async def test_a_time_that_is_none_is_refused(ada: Caller, query: str, status: int) -> None:
    assert (await ada.get(f"{CCD}?{query}")).status == status


async def test_docref_needs_an_id_and_takes_nothing_else(ada: Caller) -> None:
    assert (await ada.get("DocumentReference/$docref")).status == 400
    assert (await ada.get("DocumentReference/$docref?patient=Patient/ada")).status in {400, 422}
    assert (await ada.get(f"{DOCREF}&patient=ada")).status == 400
    assert (await ada.get(f"{DOCREF}&subject=ada")).status == 400


# ------------------------------------------------------------------- who may


@pytest.mark.parametrize("url", [CCD, DOCREF])
async def test_a_proxy_with_every_section_reads_the_same(
    ada: Caller, aunt: Caller, url: str
) -> None:
    assert (await aunt.get(url)).body == (await ada.get(url)).body


@pytest.mark.parametrize("url", [CCD, DOCREF])
@pytest.mark.parametrize("without", ["medications", "results", "immunizations"])
async def test_without_a_section_of_the_grant_it_is_as_if_nothing_of_it_were_stored(
    aunt: Caller, ehr: Caller, without: str, url: str
) -> None:
    shut = narrowed(aunt, *(one for one in SEEN if one != without))
    answer = await shut.get(url)
    assert answer.status == 200
    for key in {key_of(tree) for tree in a_record()} & hidden_by(without):
        await ehr.delete(key)
    assert (await shut.get(url)).body == answer.body


@pytest.mark.parametrize("url", [CCD, DOCREF, f"{DOCREF}&type=60591-5"])
@pytest.mark.parametrize("tags", [WITHHELD, RESTRICTED])
async def test_what_carries_a_label_changes_nothing_for_who_may_not_see_it(
    aunt: Caller, ehr: Caller, tags: Json, url: str
) -> None:
    before = await aunt.get(url)
    await ehr.store(
        a_condition("secret", meta=tags, code="86406008"),
        an_observation("newest-pulse", meta=tags, on="2029-12-01", value=199),
        an_allergy("secret-allergy", meta=tags),
        a_prescription("secret-medicine", meta=tags),
        an_immunization("secret-shot", meta=tags),
        an_encounter("secret-visit", meta=tags),
        a_binary("scan"),
        a_document("secret-ccd", binary="scan", type=concept(LOINC, "34133-9"), meta=tags),
    )
    assert (await aunt.get(url)).body == before.body


async def test_a_stored_document_comes_whole_or_not_at_all(
    ada: Caller, aunt: Caller, ehr: Caller
) -> None:
    await ehr.store(
        a_binary("scan"),
        a_document("ccd", binary="scan", type=concept(LOINC, "34133-9"), meta=RESTRICTED),
        a_provenance("p", about=["DocumentReference/ccd"]),
    )
    assert "ccd" in [one.get("id") for one in (await ada.get(DOCREF)).entries]
    assert (await ada.get("Binary/scan")).status == 200
    assert "ccd" not in [one.get("id") for one in (await aunt.get(DOCREF)).entries]
    for url in ("Binary/scan", "DocumentReference/ccd", "Provenance/p"):
        assert (await aunt.get(url)).status == 404


async def test_it_says_that_it_holds_labelled_content(ada: Caller, ehr: Caller) -> None:
    def level(content: bytes) -> str | None:
        found = etree.fromstring(content).find("v:confidentialityCode", V3)
        return found.get("code") if found is not None else None

    assert level(xml_of(await ada.get(CCD))) == "N"
    await ehr.store(a_condition("secret", meta=RESTRICTED))
    assert level(xml_of(await ada.get(CCD))) == "R"


async def test_nothing_of_another_record_or_practice_is_in_it(
    ehr: Caller, other_ehr: Caller, ada: Caller
) -> None:
    before = [await ada.get(CCD), await ehr.get(CCD), await ada.get(DOCREF)]
    await ehr.store(*(tree | {"id": f"bo-{tree['id']}"} for tree in a_record("bo")))
    await other_ehr.store(*(tree | {"id": f"f-{tree['id']}"} for tree in a_record("ada-f")))
    after = [await ada.get(CCD), await ehr.get(CCD), await ada.get(DOCREF)]
    assert [one.body for one in after] == [one.body for one in before]


@pytest.mark.parametrize("patient", ["bo", "ada-f", "nobody"])
async def test_another_record_is_answered_as_one_that_is_not_there(
    ada: Caller, aunt: Caller, patient: str
) -> None:
    nobody = await ada.get("DocumentReference/$docref?patient=no-such-one")
    assert (nobody.status, nobody.entries) == (200, [])
    for caller in (ada, aunt):
        answer = await caller.get(f"Patient/{patient}/$ccd")
        assert answer.status == 404
        assert answer.words == [f"Patient/{patient} is not known"]
        found = await caller.get(f"DocumentReference/$docref?patient={patient}")
        assert (found.status, found.body) == (200, nobody.body)


@pytest.mark.parametrize("url", [CCD, DOCREF])
@pytest.mark.parametrize("lacking", range(6))
async def test_it_is_refused_to_whoever_lacks_one_thing(
    aunt: Caller, lacking: int, url: str
) -> None:
    auth = refused(aunt.auth, "results", "health-summary")[lacking]
    answer = await Caller(aunt.portal, auth).get(url)
    if url == DOCREF and lacking == 4:  # it asks for no Patient of its own
        assert answer.status == 403
    assert answer.status in {401, 403}


async def test_with_a_scope_for_documents_alone_there_is_nothing_to_make_one_of(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(a_document("ccd", type=concept(LOINC, "34133-9")))
    narrow = ada.with_scope("patient/DocumentReference.rs")
    answer = await narrow.get(DOCREF)
    assert answer.status == 200
    assert [one.get("id") for one in answer.entries] in (["ccd"], [])
    assert b"cda+xml" not in answer.body


async def test_a_proxy_without_personal_details_makes_one_that_has_none(aunt: Caller) -> None:
    shut = narrowed(aunt, "documents", "medications")
    content = xml_of(await shut.get(CCD))
    assert b"Quill" not in content
    assert b"19840512" not in content
    assert keys_in(content)["Medicines"] == EVERYTHING["Medicines"]


async def test_staff_and_ehr_get_the_record_of_their_practice(ehr: Caller, portal: Portal) -> None:
    for caller in (
        ehr,
        Caller(portal, a_member_of_staff()),
        Caller(portal, a_member_of_staff(patient="ada")),
    ):
        assert keys_in(xml_of(await caller.get(CCD))) == EVERYTHING
        assert len((await caller.get(DOCREF)).entries) == 2
    bound = Caller(portal, a_member_of_staff(patient="bo"))
    assert (await bound.get(CCD)).status == 404
    assert (await bound.get(DOCREF)).entries == []
    desk = Caller(portal, a_member_of_staff(permissions={"invite"}))
    assert (await desk.get(CCD)).status == (await desk.get(DOCREF)).status == 403


async def test_it_is_in_the_access_log_with_the_record_and_the_times(
    ada: Caller, ehr: Caller
) -> None:
    await ada.get(f"{DOCREF}&start=2029-01-01")
    (event,) = (await ada.get("AuditEvent?_count=1")).entries
    assert [one["code"] for one in event["subtype"]] == ["operation", "docref", "download"]
    assert "Patient/ada" in str(event)
    empty = await ehr.get("DocumentReference/$docref?patient=nobody")
    assert empty.response is not None
    assert empty.response.records == ()


async def test_a_record_that_is_too_large_for_one_document_is_refused(
    ada: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.operations.charting.MOST", 3)
    monkeypatch.setattr("fhir_portal.operations.charting.PAGE", 2)
    answer = await ada.get(CCD)
    assert answer.status == 422
    assert "shorter time" in answer.words[0]


async def test_pages_of_a_long_record_are_all_read(
    ada: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await ada.get(CCD)
    monkeypatch.setattr("fhir_portal.operations.charting.PAGE", 1)
    assert (await ada.get(CCD)).body == whole.body


async def test_an_organization_that_the_token_may_not_read_is_named_and_nothing_more(
    ada: Caller, ehr: Caller
) -> None:
    phone = {"system": "phone", "value": "(312) 555-0199"}
    await ehr.put(PRACTICE_ORGANIZATION | {"telecom": [phone]})
    assert b"tel:(312)555-0199" in xml_of(await ada.get(CCD))
    scopes = "patient/Patient.r patient/Condition.rs"
    assert b"555-0199" not in xml_of(await ada.with_scope(scopes).get(CCD))


async def test_a_medicine_of_the_directory_is_named_where_it_may_be_read(
    ada: Caller, ehr: Caller
) -> None:
    salve = resource("Medication", "salve", code={"text": "Marigold salve"})
    order = a_prescription("salve", medicationReference={"reference": "Medication/salve"})
    del order["medicationCodeableConcept"]
    await ehr.store(salve, order)
    assert b"Marigold" in xml_of(await ada.get(CCD))
    narrow = ada.with_scope("patient/Patient.r patient/MedicationRequest.rs")
    assert b"Marigold" not in xml_of(await narrow.get(CCD))


async def test_a_grant_that_has_ended_meanwhile_makes_no_document(aunt: Caller) -> None:
    assert aunt.auth.record is not None
    ended = replace(aunt.auth, record=replace(aunt.auth.record, until=1.0))
    assert (await Caller(aunt.portal, ended).get(CCD)).status == 403
