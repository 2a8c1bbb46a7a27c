"""``Patient/[id]/$summary``: what its reader may see, and no trace of the rest."""

from __future__ import annotations

import json
from base64 import b64decode

import fhirkit
import pytest
from fhir.resources.R4B.bundle import Bundle

from fhir_portal.fhir.json import parse
from fhir_portal.portal import Portal
from fhir_portal.resources.validation import validate
from tests.builders import (
    RESTRICTED,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    Json,
    a_condition,
    an_observation,
    oneself,
    resource,
)
from tests.charts import a_prescription, a_record, an_allergy
from tests.operations.charted import SEEN, aunt, hidden_by, key_of, narrowed, record, refused
from tests.staff import a_member_of_staff

__all__ = ["aunt", "record"]

pytestmark = pytest.mark.usefixtures("record")

SUMMARY = "Patient/ada/$summary"


def sections_of(answer: Answer) -> dict[str, list[str]]:
    """The keys of each section's entries, by its title."""
    assert answer.status == 200, answer.body
    composition = answer.entries[0]
    return {
        one["title"]: [entry["reference"] for entry in one.get("entry", ())]
        for one in composition["section"]
    }


async def test_it_holds_what_is_so_now_and_the_latest_of_each_measure(ada: Caller) -> None:
    assert sections_of(await ada.get(SUMMARY)) == {
        "Health problems": ["Condition/eczema"],
        "Allergies": ["AllergyIntolerance/nuts"],
        "Medicines": ["MedicationRequest/cream"],
        "Vaccines": ["Immunization/flu"],
        "Operations and procedures": ["Procedure/biopsy"],
        "Test results": ["Observation/sugar"],
        "Measurements": ["Observation/pulse"],
        "Daily life": ["Observation/smoking"],
        "Plans and goals": ["CarePlan/plan", "Goal/goal"],
        "Past health problems": ["Condition/flu-of-old"],
    }


async def test_it_is_a_fhir_document_by_our_own_gate_and_by_another(ada: Caller) -> None:
    for caller in (ada, ada.with_scope("patient/Patient.r")):
        answer = await caller.get(SUMMARY)
        tree = parse(answer.body)
        assert [issue for issue in validate(tree, answer.body) if issue.severity == "error"] == []
        Bundle.model_validate_json(answer.body)
        assert [str(one) for one in fhirkit.validate(answer.body)] == []
        assert tree["type"] == "document"
        assert {"identifier", "timestamp"} <= tree.keys()
        assert [one["resourceType"] for one in answer.entries][:2] == ["Composition", "Patient"]
        assert len({one["fullUrl"] for one in tree["entry"]}) == len(tree["entry"])


async def test_every_entry_of_a_section_is_in_it_and_nothing_else_is(ada: Caller) -> None:
    answer = await ada.get(SUMMARY)
    named = {key for keys in sections_of(answer).values() for key in keys}
    held = {f"{one['resourceType']}/{one['id']}" for one in answer.entries[1:]}
    assert held == named | {"Patient/ada", "Organization/derm"}
    assert answer.entries[0]["author"][0]["reference"] == "Organization/derm"


@pytest.mark.requirement("portal", "S0-42")
async def test_each_row_of_a_narrative_is_traceable_to_its_resource(ada: Caller) -> None:
    answer = await ada.get(SUMMARY)
    for section in answer.entries[0]["section"]:
        for entry in section.get("entry", ()):
            assert f'id="{entry["reference"].replace("/", "-")}"' in section["text"]["div"]


async def test_the_same_record_gives_the_same_bytes_and_another_time_another_identifier(
    ada: Caller, clock: Clock
) -> None:
    first, again = await ada.get(SUMMARY), await ada.get(SUMMARY)
    assert first.body == again.body
    clock.advance(5)
    later = await ada.get(SUMMARY)
    assert later.json["identifier"] != first.json["identifier"]
    assert later.entries[0]["id"] == first.entries[0]["id"]


async def test_markup_in_what_somebody_wrote_is_text(ehr: Caller) -> None:
    evil = "<script>alert(1)</script><b onclick='x'>&amp;]]>"
    await ehr.put(a_prescription("cream", dosageInstruction=[{"text": evil}]))
    ada = Caller(ehr.portal, oneself("ada"))
    answer = await ada.get(SUMMARY)
    (section,) = [one for one in answer.entries[0]["section"] if one["title"] == "Medicines"]
    assert "<script" not in section["text"]["div"]
    assert "&lt;script&gt;" in section["text"]["div"]
    page = b64decode((await ada.get(f"{SUMMARY}?format=html")).json["data"])
    assert b"<script" not in page


# ------------------------------------------------------------------- who may


async def test_a_proxy_with_every_section_reads_the_same_record(ada: Caller, aunt: Caller) -> None:
    assert (await aunt.get(SUMMARY)).body == (await ada.get(SUMMARY)).body


@pytest.mark.parametrize(
    ("without", "titles"),
    [
        ("medications", {"Medicines"}),
        ("results", {"Test results", "Measurements"}),
        ("immunizations", {"Vaccines"}),
    ],
)
async def test_without_a_section_of_the_grant_it_is_as_if_nothing_of_it_were_stored(
    aunt: Caller, ehr: Caller, without: str, titles: set[str]
) -> None:
    shut = narrowed(aunt, *(one for one in SEEN if one != without))
    answer = await shut.get(SUMMARY)
    for title in titles:
        assert not sections_of(answer).get(title)
    for key in {key for tree in a_record() if (key := key_of(tree)) in hidden_by(without)}:
        assert key.encode() not in answer.body
        await ehr.delete(key)
    assert (await shut.get(SUMMARY)).body == answer.body


async def test_an_empty_section_gives_the_same_reason_whatever_is_behind_it(
    aunt: Caller, ehr: Caller, ada: Caller
) -> None:
    withheld = await narrowed(aunt, *(one for one in SEEN if one != "medications")).get(SUMMARY)
    for own_id in ("cream", "old-cream"):
        await ehr.delete(f"MedicationRequest/{own_id}")
    nothing = await ada.get(SUMMARY)
    found = []
    for answer in (withheld, nothing):
        (one,) = [it for it in answer.entries[0]["section"] if it["title"] == "Medicines"]
        found.append(one)
    assert found[0] == found[1]
    assert found[0]["emptyReason"]["coding"][0]["code"] == "unavailable"


async def test_a_proxy_who_does_not_see_personal_details_gets_a_patient_without_them(
    aunt: Caller,
) -> None:
    answer = await narrowed(aunt, "health-summary", "medications").get(SUMMARY)
    assert answer.entries[1] == {"resourceType": "Patient", "id": "ada"}
    assert b"Quill" not in answer.body
    assert b"1984" not in answer.body


@pytest.mark.parametrize("tags", [WITHHELD, RESTRICTED])
async def test_what_carries_a_label_changes_nothing_for_who_may_not_see_it(
    aunt: Caller, ehr: Caller, ada: Caller, tags: Json
) -> None:
    answers = [await aunt.get(SUMMARY)]
    pages = [await aunt.get(f"{SUMMARY}?format={form}") for form in ("html", "pdf")]
    await ehr.store(
        a_condition("secret", meta=tags, code="86406008"),
        an_observation("newest-pulse", meta=tags, on="2029-12-01", value=199),
        an_allergy("secret-allergy", meta=tags),
        a_prescription("secret-medicine", meta=tags),
    )
    answers.append(await aunt.get(SUMMARY))
    assert answers[0].body == answers[1].body
    again = [await aunt.get(f"{SUMMARY}?format={form}") for form in ("html", "pdf")]
    assert [one.body for one in again] == [one.body for one in pages]
    own = await ada.get(SUMMARY)
    assert (b"Condition/secret" in own.body) is (tags is RESTRICTED)


async def test_it_says_that_it_holds_labelled_content(ehr: Caller, ada: Caller) -> None:
    assert (await ada.get(SUMMARY)).entries[0]["confidentiality"] == "N"
    await ehr.store(a_condition("secret", meta=RESTRICTED))
    answer = await ada.get(SUMMARY)
    assert answer.entries[0]["confidentiality"] == "R"
    assert [one["code"] for one in answer.json["meta"]["security"]] == ["R"]


async def test_what_is_a_mistake_a_draft_or_refuted_is_not_in_it(ehr: Caller, ada: Caller) -> None:
    before = await ada.get(SUMMARY)
    status = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
    refuted = {"coding": [{"system": status, "code": "refuted"}]}
    await ehr.store(
        a_condition("never", verificationStatus=refuted),
        an_observation("wrong", status="entered-in-error", on="2029-12-01"),
        a_prescription("draft", status="draft"),
    )
    assert (await ada.get(SUMMARY)).body == before.body


async def test_nothing_of_another_record_or_practice_is_in_it(
    ehr: Caller, other_ehr: Caller, ada: Caller
) -> None:
    before = await ada.get(SUMMARY)
    by_ehr = await ehr.get(SUMMARY)
    await ehr.store(*(tree | {"id": f"bo-{tree['id']}"} for tree in a_record("bo")))
    await other_ehr.store(*(tree | {"id": f"f-{tree['id']}"} for tree in a_record("ada-f")))
    assert (await ada.get(SUMMARY)).body == before.body
    assert (await ehr.get(SUMMARY)).body == by_ehr.body


@pytest.mark.parametrize("patient", ["bo", "ada-f", "nobody"])
async def test_another_record_is_answered_as_one_that_is_not_there(
    ada: Caller, aunt: Caller, patient: str
) -> None:
    for caller in (ada, aunt):
        answer = await caller.get(f"Patient/{patient}/$summary")
        assert answer.status == 404
        assert answer.words == [f"Patient/{patient} is not known"]


@pytest.mark.parametrize("lacking", range(6))
async def test_it_is_refused_to_whoever_lacks_one_thing(aunt: Caller, lacking: int) -> None:
    answer = await Caller(aunt.portal, refused(aunt.auth, "results", "documents")[lacking]).get(
        SUMMARY
    )
    assert answer.status in {401, 403}


async def test_a_narrower_scope_sees_less_and_a_part_of_a_type_a_part_of_it(ada: Caller) -> None:
    lab = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
    narrow = ada.with_scope(f"patient/Patient.r patient/Observation.rs?category={lab}")
    found = sections_of(await narrow.get(SUMMARY))
    assert {title: keys for title, keys in found.items() if keys} == {
        "Test results": ["Observation/sugar"]
    }


async def test_staff_and_ehr_get_the_record_of_their_practice(
    ehr: Caller, portal: Portal, ada: Caller
) -> None:
    own = sections_of(await ada.get(SUMMARY))
    assert sections_of(await ehr.get(SUMMARY)) == own
    assert sections_of(await Caller(portal, a_member_of_staff()).get(SUMMARY)) == own
    bound = Caller(portal, a_member_of_staff(patient="ada"))
    assert sections_of(await bound.get(SUMMARY)) == own
    assert (await bound.get("Patient/bo/$summary")).status == 404
    desk = Caller(portal, a_member_of_staff(permissions={"invite"}))
    assert (await desk.get(SUMMARY)).status == 403


# -------------------------------------------------------------- how to call it


async def test_on_the_type_it_means_the_record_of_the_token_or_an_identifier(
    ada: Caller, ehr: Caller
) -> None:
    own = await ada.get(SUMMARY)
    assert (await ada.get("Patient/$summary")).body == own.body
    assert (await ehr.get("Patient/$summary")).status == 400
    number = {"system": "urn:mrn", "value": "7"}
    await ehr.store(resource("Patient", "bo", identifier=[number], name=[{"family": "Reed"}]))
    assert (await ehr.get("Patient/$summary?identifier=urn:mrn|7")).entries[1]["id"] == "bo"
    assert (await ada.get("Patient/$summary?identifier=urn:mrn|7")).status == 404
    assert (await ehr.get("Patient/$summary?identifier=urn:mrn|8")).status == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("format=docx", 422),
        ("profile=http://profiles.example/mine", 400),
        ("surprise=1", 400),
        ("format=pdf&format=html", 400),
    ],
)
async def test_what_is_not_offered_is_refused_by_name(ada: Caller, query: str, status: int) -> None:
    assert (await ada.get(f"{SUMMARY}?{query}")).status == status


async def test_the_profile_of_the_guide_may_be_asked_for(ada: Caller) -> None:
    bundle = "http://hl7.org/fhir/uv/ips/StructureDefinition/Bundle-uv-ips|2.0.0"
    assert (await ada.get(f"{SUMMARY}?profile={bundle}")).status == 200


async def test_it_is_in_the_access_log_with_the_record(
    ada: Caller,
) -> None:
    await ada.get(f"{SUMMARY}?format=pdf")
    events = await ada.get("AuditEvent?_count=1")
    event = events.entries[0]
    assert [one["code"] for one in event["subtype"]] == ["operation", "summary", "view"]
    assert json.dumps(event).count("Patient/ada") >= 1


async def test_of_many_measurements_the_latest_are_enough(
    ada: Caller, ehr: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ehr.store(*(an_observation(f"p{n}", on=f"2028-01-{n + 10}", value=n) for n in range(20)))
    whole = await ada.get(SUMMARY)
    monkeypatch.setattr("fhir_portal.operations.charting.MOST", 8)
    monkeypatch.setattr("fhir_portal.operations.charting.PAGE", 4)
    assert (await ada.get(SUMMARY)).body == whole.body
    assert sections_of(whole)["Measurements"] == ["Observation/pulse"]


async def test_signs_that_no_text_can_hold_make_no_fault(ada: Caller, ehr: Caller) -> None:
    odd = "a\u0001b\ufffe"
    stored = await ehr.put(
        a_prescription("cream", dosageInstruction=[{"text": odd}], note=[{"text": odd}])
    )
    for url in (SUMMARY, f"{SUMMARY}?format=html", f"{SUMMARY}?format=pdf", "Patient/ada/$ccd"):
        assert (await ada.get(url)).status == 200, (url, stored.status)
