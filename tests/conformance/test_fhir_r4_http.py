"""FHIR R4 §3.1 (RESTful API): the statements a server is held to, one case each.

Numbers are the sections of https://hl7.org/fhir/R4/http.html and search.html.
"""

from __future__ import annotations

import fhirkit
import pytest

from tests.web.fhir_world import (
    BASE,
    FHIR_JSON,
    FhirWorld,
    assert_outcome,
    encoded,
    entry,
    ids,
    link,
    observation,
    patient,
    transaction,
)

R4 = "hl7.fhir.r4.core_4.0.1"


def sound(content: bytes) -> None:
    assert not [str(i) for i in fhirkit.validate(content) if i.severity == "error"]


@pytest.mark.requirement(R4, "3.1.0.1.3")
async def test_a_read_has_a_weak_etag_of_the_version_and_last_modified(as_ehr):
    response = await as_ehr.get("/fhir/Patient/anna")
    assert response.headers["etag"] == f'W/"{response.json()["meta"]["versionId"]}"'
    assert response.headers["last-modified"].endswith(" GMT")


@pytest.mark.requirement(R4, "3.1.0.1.5")
async def test_refusals_have_an_operation_outcome(as_ehr):
    for response in (
        await as_ehr.get("/fhir/Patient/nobody"),
        await as_ehr.get("/fhir/Patient?favourite=x"),
        await as_ehr.post("/fhir/Patient", json={"resourceType": "Patient", "foo": 1}),
    ):
        assert response.status_code >= 400
        assert response.json()["resourceType"] == "OperationOutcome"
        sound(response.content)


@pytest.mark.requirement(R4, "3.1.0.1.9")
async def test_json_answers_say_fhir_json_in_utf_8(as_ehr):
    response = await as_ehr.get("/fhir/Patient/anna", headers={"Accept": "application/json"})
    assert response.headers["content-type"] == "application/fhir+json; charset=utf-8"


@pytest.mark.requirement(R4, "3.1.0.1.9")
async def test_what_cannot_be_served_is_406_and_what_cannot_be_read_415(as_ehr):
    xml = {"Accept": "application/fhir+xml"}
    assert_outcome(await as_ehr.get("/fhir/Patient/anna", headers=xml), 406, "not-supported")
    sent = await as_ehr.post(
        "/fhir/Patient", content=b"<Patient/>", headers={"Content-Type": "application/fhir+xml"}
    )
    assert_outcome(sent, 415, "not-supported")


@pytest.mark.requirement(R4, "3.1.0.2")
async def test_a_read_has_the_id_of_its_address(as_ehr):
    assert (await as_ehr.get("/fhir/Patient/anna")).json()["id"] == "anna"


@pytest.mark.requirement(R4, "3.1.0.2")
async def test_a_deleted_resource_is_410_and_an_unknown_one_404(as_ehr):
    await as_ehr.delete("/fhir/Patient/anna")
    assert (await as_ehr.get("/fhir/Patient/anna")).status_code == 410
    assert (await as_ehr.get("/fhir/Patient/nobody")).status_code == 404


@pytest.mark.requirement(R4, "3.1.0.3")
async def test_a_version_that_was_a_deletion_is_410(as_ehr):
    await as_ehr.delete("/fhir/Patient/anna")
    assert (await as_ehr.get("/fhir/Patient/anna/_history/2")).status_code == 410
    assert (await as_ehr.get("/fhir/Patient/anna/_history/1")).status_code == 200


@pytest.mark.requirement(R4, "3.1.0.4")
async def test_an_update_needs_the_id_of_the_address(as_ehr):
    for body in (patient(), patient("ben")):
        response = await as_ehr.put("/fhir/Patient/anna", json=body)
        assert_outcome(response, 400, "invalid", "Patient.id")


@pytest.mark.requirement(R4, "3.1.0.4.1")
async def test_an_update_may_create_and_then_says_where(as_ehr):
    response = await as_ehr.put("/fhir/Patient/new", json=patient("new"))
    assert response.status_code == 201
    assert response.headers["location"] == f"{BASE}/Patient/new/_history/1"


@pytest.mark.requirement(R4, "3.1.0.5")
async def test_a_stale_update_is_412(as_ehr):
    await as_ehr.put("/fhir/Patient/anna", json=patient("anna"))
    response = await as_ehr.put(
        "/fhir/Patient/anna", json=patient("anna"), headers={"If-Match": 'W/"1"'}
    )
    assert_outcome(response, 412, "conflict")


@pytest.mark.requirement(R4, "3.1.0.7")
async def test_a_deleted_resource_is_found_by_no_search_and_may_come_back(as_ehr):
    assert (await as_ehr.delete("/fhir/Patient/anna")).status_code == 204
    assert (await as_ehr.delete("/fhir/Patient/anna")).status_code == 204
    assert ids((await as_ehr.get("/fhir/Patient?_id=anna")).json()) == []
    again = await as_ehr.put("/fhir/Patient/anna", json=patient("anna"))
    assert (again.status_code, again.headers["etag"]) == (201, 'W/"3"')


@pytest.mark.requirement(R4, "3.1.0.8")
async def test_a_create_ignores_the_id_and_version_it_is_sent(as_ehr):
    body = patient("mine", meta={"versionId": "7", "lastUpdated": "2000-01-01T00:00:00Z"})
    stored = (await as_ehr.post("/fhir/Patient", json=body)).json()
    assert stored["id"] != "mine"
    assert stored["meta"]["versionId"] == "1"
    assert stored["meta"]["lastUpdated"].startswith("2030")


@pytest.mark.requirement(R4, "3.1.0.8")
async def test_a_create_that_cannot_be_read_is_400_and_one_that_breaks_a_rule_422(as_ehr):
    for body, status in ((b"{", 400), (encoded(patient(gender="F")), 422)):
        response = await as_ehr.post(
            "/fhir/Patient", content=body, headers={"Content-Type": FHIR_JSON}
        )
        assert response.status_code == status


@pytest.mark.requirement(R4, "3.1.0.8.1")
async def test_a_conditional_create_creates_or_returns_or_refuses(as_ehr):
    body = patient(identifier=[{"system": "urn:x:mrn", "value": "7"}])
    condition = {"If-None-Exist": "identifier=urn:x:mrn|7"}
    statuses = [(await as_ehr.post("/fhir/Patient", json=body, headers=condition)).status_code]
    statuses.append((await as_ehr.post("/fhir/Patient", json=body, headers=condition)).status_code)
    await as_ehr.post("/fhir/Patient", json=body)
    statuses.append((await as_ehr.post("/fhir/Patient", json=body, headers=condition)).status_code)
    assert statuses == [201, 200, 412]


@pytest.mark.requirement(R4, "3.1.0.9")
async def test_a_search_by_get_and_by_post_is_a_searchset(as_ehr):
    got = await as_ehr.get("/fhir/Patient?name=adler")
    posted = await as_ehr.post("/fhir/Patient/_search", data={"name": "adler"})
    assert got.json()["type"] == "searchset"
    assert got.content == posted.content
    sound(got.content)


@pytest.mark.requirement(R4, "3.1.0.10")
async def test_the_capability_statement_is_at_metadata(as_anyone):
    response = await as_anyone.get("/fhir/metadata")
    assert response.json()["resourceType"] == "CapabilityStatement"
    sound(response.content)


@pytest.mark.requirement(R4, "3.1.0.11")
async def test_batch_and_transaction_answer_each_entry_in_its_place(as_ehr):
    for kind in ("batch", "transaction"):
        sent = transaction(
            entry("GET", "Patient/anna"),
            entry("POST", "Patient", patient()),
            entry("PUT", "Patient/ben", patient("ben")),
            kind=kind,
        )
        response = await as_ehr.post("/fhir", json=sent)
        assert response.json()["type"] == f"{kind}-response"
        assert [e["response"]["status"][:3] for e in response.json()["entry"]] == [
            "200",
            "201",
            "200",
        ]
        sound(response.content)


@pytest.mark.requirement(R4, "3.1.0.11.2")
async def test_a_transaction_that_fails_changes_nothing(fhir: FhirWorld, as_ehr):
    before = fhir.rows()
    sent = transaction(
        entry("POST", "Patient", patient()),
        entry("PUT", "Patient/anna", patient("anna"), ifMatch='W/"9"'),
    )
    response = await as_ehr.post("/fhir", json=sent)
    assert_outcome(response, 412, "conflict", "Bundle.entry[1]")
    assert fhir.rows() == before


@pytest.mark.requirement(R4, "3.1.0.11.2")
async def test_a_transaction_with_one_resource_twice_fails(as_ehr):
    sent = transaction(
        entry("PUT", "Patient/anna", patient("anna")), entry("DELETE", "Patient/anna")
    )
    assert_outcome(await as_ehr.post("/fhir", json=sent), 400, "invalid", "Bundle.entry[1]")


@pytest.mark.requirement(R4, "3.1.0.12")
async def test_a_history_has_every_version_newest_first(as_ehr):
    await as_ehr.put("/fhir/Patient/anna", json=patient("anna"))
    await as_ehr.delete("/fhir/Patient/anna")
    response = await as_ehr.get("/fhir/Patient/anna/_history")
    bundle = response.json()
    assert (bundle["type"], bundle["total"]) == ("history", 3)
    assert [e["request"]["method"] for e in bundle["entry"]] == ["DELETE", "PUT", "PUT"]
    sound(response.content)
    sound((await as_ehr.get("/fhir/_history?_count=3")).content)


@pytest.mark.requirement(R4, "3.1.1.4.4")
async def test_missing_is_told_apart_from_present(as_ehr):
    assert ids((await as_ehr.get("/fhir/Patient?birthdate:missing=false")).json()) == [
        "Patient/anna"
    ]


@pytest.mark.requirement(R4, "3.1.1.5.1")
async def test_a_sort_by_several_rules_holds(as_ehr):
    for own_id, code, at in (("o1", "b", "2020"), ("o2", "a", "2020"), ("o3", "a", "2021")):
        await as_ehr.put(f"/fhir/Observation/{own_id}", json=observation(own_id, code=code, at=at))
    found = ids((await as_ehr.get("/fhir/Observation?_sort=code,-date")).json())
    assert found == ["Observation/o3", "Observation/o2", "Observation/o1"]


@pytest.mark.requirement(R4, "3.1.1.5.3")
async def test_a_page_has_no_more_matches_than_asked_for(as_ehr):
    bundle = (await as_ehr.get("/fhir/Patient?_count=1")).json()
    assert len(bundle["entry"]) == 1
    assert link(bundle, "next") is not None


@pytest.mark.requirement(R4, "3.1.1.6")
async def test_the_self_link_is_the_search_as_understood(as_ehr):
    response = await as_ehr.get(
        "/fhir/Patient?name=adler&x=1", headers={"Prefer": "handling=lenient"}
    )
    assert link(response.json(), "self") == f"{BASE}/Patient?name=adler&_count=20"
