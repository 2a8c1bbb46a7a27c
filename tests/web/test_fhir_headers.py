"""Conditional requests, Prefer and content negotiation.

Source: FHIR R4 §3.1.0.1.3 to §3.1.0.1.11, §3.1.0.4, §3.1.0.5, §3.1.0.8; RFC 9110 §13; RFC 7240.
"""

from __future__ import annotations

import json

import pytest

from tests.web.fhir_world import (
    BASE,
    FHIR_JSON,
    FhirWorld,
    assert_outcome,
    encoded,
    observation,
    patient,
)

LAST_MODIFIED = "Sun, 17 Mar 2030 17:46:40 GMT"


async def test_a_create_says_where_and_which_version(as_ehr):
    response = await as_ehr.post("/fhir/Patient", json=patient())
    own_id = response.json()["id"]
    assert response.status_code == 201
    assert response.headers["location"] == f"{BASE}/Patient/{own_id}/_history/1"
    assert response.headers["etag"] == 'W/"1"'
    assert response.headers["last-modified"] == LAST_MODIFIED
    assert response.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert (await as_ehr.get(response.headers["location"])).content == response.content


async def test_a_read_has_etag_and_last_modified(fhir: FhirWorld, as_ehr):
    fhir.clock.advance(90)
    await as_ehr.put("/fhir/Patient/anna", json=patient("anna"))
    response = await as_ehr.get("/fhir/Patient/anna")
    assert response.headers["etag"] == 'W/"2"'
    assert response.headers["last-modified"] == "Sun, 17 Mar 2030 17:48:10 GMT"
    assert "location" not in response.headers
    old = await as_ehr.get("/fhir/Patient/anna/_history/1")
    assert (old.headers["etag"], old.headers["last-modified"]) == ('W/"1"', LAST_MODIFIED)


async def test_the_base_is_never_taken_from_the_host_header(as_ehr):
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    created = await as_ehr.post("/fhir/Patient", json=patient(), headers=headers)
    found = await as_ehr.get("/fhir/Patient", headers=headers)
    assert created.headers["location"].startswith(f"{BASE}/Patient/")
    assert "evil" not in found.text


# --- If-Match


@pytest.mark.parametrize("tag", ['W/"2"', '"2"', "*", 'W/"7", W/"2"', ' W/"2" ', "2"])
async def test_an_update_with_the_current_version_is_made(as_ehr, tag):
    await as_ehr.put("/fhir/Patient/anna", json=patient("anna"))
    response = await as_ehr.put(
        "/fhir/Patient/anna", json=patient("anna", active=True), headers={"If-Match": tag}
    )
    assert response.status_code == 200
    assert response.headers["etag"] == 'W/"3"'


@pytest.mark.parametrize(
    "tag", ['W/"1"', '"1"', 'W/"3"', '"*"', 'W/"*"', "W/*", 'W/"02"', 'W/"2', "", "banana", "1"]
)
async def test_an_update_with_another_version_is_412(fhir: FhirWorld, as_ehr, tag):
    await as_ehr.put("/fhir/Patient/anna", json=patient("anna"))
    before = fhir.rows()
    for method, body in (("PUT", patient("anna", active=True)), ("DELETE", None)):
        response = await as_ehr.request(
            method, "/fhir/Patient/anna", json=body, headers={"If-Match": tag}
        )
        assert_outcome(response, 412, "conflict")
    assert fhir.rows() == before


async def test_if_match_never_creates(fhir: FhirWorld, as_ehr):
    before = fhir.rows()
    for tag in ("*", 'W/"1"'):
        response = await as_ehr.put(
            "/fhir/Patient/new", json=patient("new"), headers={"If-Match": tag}
        )
        assert_outcome(response, 412, "conflict")
    assert fhir.rows() == before


async def test_if_match_does_not_bring_back_what_was_deleted(fhir: FhirWorld, as_ehr):
    await as_ehr.delete("/fhir/Patient/anna")
    before = fhir.rows()
    for tag in ("*", 'W/"2"', 'W/"1"'):
        response = await as_ehr.put(
            "/fhir/Patient/anna", json=patient("anna"), headers={"If-Match": tag}
        )
        assert_outcome(response, 412, "conflict")
    assert fhir.rows() == before


async def test_of_two_updates_from_one_version_one_is_refused(as_ehr):
    first, second = [
        await as_ehr.put(
            "/fhir/Patient/anna", json=patient("anna", active=a), headers={"If-Match": 'W/"1"'}
        )
        for a in (True, False)
    ]
    assert first.status_code == 200
    assert_outcome(second, 412, "conflict")
    assert (await as_ehr.get("/fhir/Patient/anna")).json()["active"] is True


# --- If-None-Match and If-Modified-Since


@pytest.mark.parametrize("tag", ['W/"1"', '"1"', "*", 'W/"9", W/"1"', ' W/"1"'])
async def test_a_read_of_the_version_one_has_is_304_without_a_body(as_ehr, tag):
    response = await as_ehr.get("/fhir/Patient/anna", headers={"If-None-Match": tag})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == 'W/"1"'
    assert response.headers["last-modified"] == LAST_MODIFIED
    assert "content-type" not in response.headers


@pytest.mark.parametrize("tag", ['W/"2"', '"x"', "", "banana", 'W/"11"'])
async def test_a_read_of_another_version_is_200(as_ehr, tag):
    response = await as_ehr.get("/fhir/Patient/anna", headers={"If-None-Match": tag})
    assert response.status_code == 200
    assert response.json()["id"] == "anna"


@pytest.mark.parametrize(
    ("since", "status"),
    [
        (LAST_MODIFIED, 304),
        ("Mon, 18 Mar 2030 00:00:00 GMT", 304),
        ("Sunday, 17-Mar-30 17:46:40 GMT", 304),
        ("Sun, 17 Mar 2030 17:46:39 GMT", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("2030-03-18", 200),
        ("", 200),
        ("Sun, 99 Mar 99999 17:46:39 GMT", 200),
        ("Sun, 17 Mar 2030 17:46:40 +9999999999", 200),
        ("x" * 5000, 200),
    ],
)
async def test_if_modified_since_is_held_against_the_second(as_ehr, since, status):
    response = await as_ehr.get("/fhir/Patient/anna", headers={"If-Modified-Since": since})
    assert response.status_code == status


async def test_if_none_match_goes_before_if_modified_since(as_ehr):
    headers = {"If-None-Match": 'W/"9"', "If-Modified-Since": LAST_MODIFIED}
    assert (await as_ehr.get("/fhir/Patient/anna", headers=headers)).status_code == 200


async def test_if_none_match_star_lets_an_update_only_create(fhir: FhirWorld, as_ehr):
    headers = {"If-None-Match": "*"}
    created = await as_ehr.put("/fhir/Patient/new", json=patient("new"), headers=headers)
    assert created.status_code == 201
    before = fhir.rows()
    again = await as_ehr.put("/fhir/Patient/new", json=patient("new"), headers=headers)
    assert_outcome(again, 412, "conflict")
    assert fhir.rows() == before


async def test_if_none_match_of_a_version_refuses_an_update_of_that_version_only(as_ehr):
    body = patient("anna")
    refused = await as_ehr.put("/fhir/Patient/anna", json=body, headers={"If-None-Match": 'W/"1"'})
    assert_outcome(refused, 412, "conflict")
    made = await as_ehr.put("/fhir/Patient/anna", json=body, headers={"If-None-Match": 'W/"5"'})
    assert made.status_code == 200


# --- If-None-Exist


def _with_identifier(value: str, **more):
    return patient(identifier=[{"system": "urn:x:mrn", "value": value}], **more)


async def test_a_conditional_create_without_a_match_creates(as_ehr):
    response = await as_ehr.post(
        "/fhir/Patient",
        json=_with_identifier("7"),
        headers={"If-None-Exist": "identifier=urn:x:mrn|7"},
    )
    assert response.status_code == 201


@pytest.mark.parametrize(
    "condition",
    [
        "identifier=urn:x:mrn|7",
        "identifier=urn%3Ax%3Amrn%7C7",
        "?identifier=urn:x:mrn|7",
        "Patient?identifier=urn:x:mrn|7",
        f"{BASE}/Patient?identifier=urn:x:mrn|7",
        "identifier=urn:x:mrn|7&active=true",
    ],
)
async def test_a_conditional_create_with_one_match_returns_it(fhir: FhirWorld, as_ehr, condition):
    first = await as_ehr.post("/fhir/Patient", json=_with_identifier("7", active=True))
    before = fhir.rows()
    again = await as_ehr.post(
        "/fhir/Patient", json=_with_identifier("7"), headers={"If-None-Exist": condition}
    )
    assert again.status_code == 200
    assert again.content == first.content
    assert again.headers["etag"] == 'W/"1"'
    assert again.headers["location"] == first.headers["location"]
    assert fhir.rows() == before


async def test_a_conditional_create_with_several_matches_is_412(fhir: FhirWorld, as_ehr):
    for _ in range(2):
        await as_ehr.post("/fhir/Patient", json=_with_identifier("7"))
    before = fhir.rows()
    response = await as_ehr.post(
        "/fhir/Patient",
        json=_with_identifier("7"),
        headers={"If-None-Exist": "identifier=urn:x:mrn|7"},
    )
    assert_outcome(response, 412, "conflict")
    assert fhir.rows() == before


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "?",
        "Patient?",
        "_count=1",
        "identifier=urn:x:mrn|7&_summary=count",
        "identifier=urn:x:mrn|7&_count=0",
        "identifier=urn:x:mrn|7&_count=5",
        "identifier=urn:x:mrn|7&_sort=name",
        "identifier=urn:x:mrn|7&_total=accurate",
        "identifier=urn:x:mrn|7&_include=Patient:organization",
        "identifier=urn:x:mrn|7&_page=abc",
        "identifier=urn:x:mrn|7&_format=json",
        "identifier=",
        "identifier",
        "nonsense=1",
        "identifier:above=x",
        "birthdate=yesterday",
        "Observation?code=x",
        "http://other.example/fhir/Patient?identifier=urn:x:mrn|7",
        "identifier=%ff",
        "identifier=%zz%00" + "&a=b" * 600,
    ],
)
async def test_a_condition_that_is_not_clear_creates_nothing(fhir: FhirWorld, as_ehr, condition):
    await as_ehr.post("/fhir/Patient", json=_with_identifier("7"))
    before = fhir.rows()
    response = await as_ehr.post(
        "/fhir/Patient", json=_with_identifier("7"), headers={"If-None-Exist": condition}
    )
    assert_outcome(response, 400, "invalid")
    assert fhir.rows() == before


async def test_a_lenient_client_gets_no_wider_condition(fhir: FhirWorld, as_ehr):
    before = fhir.rows()
    response = await as_ehr.post(
        "/fhir/Patient",
        json=patient(),
        headers={"If-None-Exist": "nonsense=1", "Prefer": "handling=lenient"},
    )
    assert_outcome(response, 400, "invalid")
    assert fhir.rows() == before


async def test_a_condition_beyond_ascii_is_read_as_utf_8(fhir: FhirWorld, as_ehr):
    first = await as_ehr.post("/fhir/Patient", json=patient(name=[{"family": "Ünal"}]))
    answer = await fhir.raw(
        "POST",
        "/fhir/Patient",
        headers=[("Content-Type", FHIR_JSON), ("If-None-Exist", "family:exact=Ünal".encode())],
        body=[encoded(patient())],
    )
    assert answer.status_code == 200
    assert answer.json()["id"] == first.json()["id"]
    refused = await fhir.raw(
        "POST",
        "/fhir/Patient",
        headers=[("Content-Type", FHIR_JSON), ("If-None-Exist", b"family=\xdcnal")],
        body=[encoded(patient())],
    )
    assert_outcome(refused, 400, "invalid")


async def test_a_match_the_writer_may_not_see_is_no_match(as_ehr, as_patient):
    answers = {
        "resourceType": "QuestionnaireResponse",
        "identifier": {"system": "urn:x:q", "value": "1"},
        "status": "completed",
        "subject": {"reference": "Patient/ben"},
        "source": {"reference": "Patient/ben"},
    }
    assert (await as_ehr.post("/fhir/QuestionnaireResponse", json=answers)).status_code == 201
    own = json.loads(json.dumps(answers).replace("Patient/ben", "Patient/anna"))
    headers = {"If-None-Exist": "identifier=urn:x:q|1"}
    first = await as_patient.post("/fhir/QuestionnaireResponse", json=own, headers=headers)
    again = await as_patient.post("/fhir/QuestionnaireResponse", json=own, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]


# --- Prefer


async def test_prefer_return_shapes_the_body_of_writes(as_ehr):
    for prefer, check in (
        ("return=minimal", lambda r: r.content == b"" and "content-type" not in r.headers),
        ("return=representation", lambda r: r.json()["resourceType"] == "Patient"),
        ('return="representation"', lambda r: r.json()["resourceType"] == "Patient"),
        ("return=OperationOutcome", lambda r: r.json()["issue"][0]["severity"] == "information"),
        ("RETURN=minimal", lambda r: r.content == b""),
        ("respond-async, return=minimal; x=y", lambda r: r.content == b""),
        ("return=minimal, return=representation", lambda r: r.content == b""),
        ("return=nonsense", lambda r: r.json()["resourceType"] == "Patient"),
    ):
        headers = {"Prefer": prefer}
        created = await as_ehr.post("/fhir/Patient", json=patient(), headers=headers)
        assert created.status_code == 201
        assert check(created), (prefer, created.content)
        assert {"location", "etag", "last-modified"} <= set(created.headers)
        updated = await as_ehr.put("/fhir/Patient/anna", json=patient("anna"), headers=headers)
        assert updated.status_code == 200
        assert check(updated)


async def test_prefer_return_minimal_does_not_empty_reads(as_ehr):
    headers = {"Prefer": "return=minimal"}
    assert (await as_ehr.get("/fhir/Patient/anna", headers=headers)).json()["id"] == "anna"
    assert (await as_ehr.get("/fhir/Patient", headers=headers)).json()["type"] == "searchset"


async def test_unknown_parameters_are_dropped_only_for_lenient_clients(as_ehr):
    strict = await as_ehr.get("/fhir/Patient?favourite=red&_count=1")
    assert "… is not a search parameter" in assert_outcome(strict, 400, "invalid")
    explicit = await as_ehr.get(
        "/fhir/Patient?favourite=red", headers={"Prefer": "handling=strict"}
    )
    assert_outcome(explicit, 400, "invalid")
    lenient = await as_ehr.get(
        "/fhir/Patient?favourite=red&_count=1", headers={"Prefer": "handling=lenient"}
    )
    bundle = lenient.json()
    links = {link["relation"]: link["url"] for link in bundle["link"]}
    assert links["self"] == f"{BASE}/Patient?_count=1"
    following = await as_ehr.get(links["next"])
    assert following.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "name:sounds=x",
        "birthdate=yesterday",
        "_has:Observation:patient:code=1",
        "_filter=name eq x",
        "organization.name=x",
        "_include=*",
        "_sort=favourite",
        "_count=many",
        "_elements=name",
    ],
)
async def test_lenient_never_drops_what_could_narrow(as_ehr, query):
    response = await as_ehr.get(f"/fhir/Patient?{query}", headers={"Prefer": "handling=lenient"})
    assert_outcome(response, 400, "invalid")


# --- Accept, _format, _pretty


@pytest.mark.parametrize(
    "accept",
    [
        "application/fhir+json",
        "application/json",
        "application/fhir+json; fhirVersion=4.0",
        "*/*",
        "application/*",
        "",
        "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8",
        "application/fhir+xml;q=0.5, application/fhir+json;q=0.9",
        "APPLICATION/FHIR+JSON",
    ],
)
async def test_json_is_served_where_it_is_accepted(as_ehr, accept):
    for path in ("/fhir/Patient/anna", "/fhir/Patient", "/fhir/metadata"):
        response = await as_ehr.get(path, headers={"Accept": accept})
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/fhir+json; charset=utf-8"


@pytest.mark.parametrize(
    "accept",
    [
        "application/fhir+xml",
        "text/html",
        "text/turtle",
        "application/fhir+json;q=0",
        "application/fhir+json; fhirVersion=5.0",
        "image/*",
        "x" * 10_000,
    ],
)
async def test_anything_else_is_406(fhir: FhirWorld, as_ehr, accept):
    before = fhir.rows()
    headers = {"Accept": accept}
    for response in (
        await as_ehr.get("/fhir/Patient/anna", headers=headers),
        await as_ehr.get("/fhir/Patient", headers=headers),
        await as_ehr.get("/fhir/metadata", headers=headers),
        await as_ehr.post("/fhir/Patient", json=patient(), headers=headers),
        await as_ehr.delete("/fhir/Patient/anna", headers=headers),
    ):
        assert_outcome(response, 406, "not-supported")
    assert fhir.rows() == before


async def test_format_goes_before_accept(as_ehr):
    for value in ("json", "application/fhir%2Bjson", "application/fhir+json", "application/json"):
        response = await as_ehr.get(
            f"/fhir/Patient/anna?_format={value}", headers={"Accept": "text/html"}
        )
        assert response.status_code == 200
    for value in ("xml", "ttl", "html", "application/fhir%2Bxml", "", "jsonp"):
        for path in ("/fhir/Patient/anna", "/fhir/Patient", "/fhir/metadata"):
            response = await as_ehr.get(f"{path}?_format={value}")
            assert_outcome(response, 406, "not-supported")


async def test_format_and_pretty_are_no_search_parameters(as_ehr):
    response = await as_ehr.get("/fhir/Patient?_format=json&_pretty=true&_count=1")
    assert response.content.startswith(b'{\n  "resourceType": "Bundle"')
    links = {link["relation"]: link["url"] for link in response.json()["link"]}
    assert links["self"] == f"{BASE}/Patient?_count=1"
    posted = await as_ehr.post("/fhir/Patient/_search", data={"_format": "json", "_count": "1"})
    assert posted.status_code == 200


async def test_pretty_keeps_the_text_of_numbers(as_ehr):
    await as_ehr.put(
        "/fhir/Observation/o",
        content=json.dumps(observation("o", value=1)).replace('"value": 1,', '"value": 1.50,'),
        headers={"Content-Type": FHIR_JSON},
    )
    plain = await as_ehr.get("/fhir/Observation/o")
    pretty = await as_ehr.get("/fhir/Observation/o?_pretty=true")
    assert b'"value":1.50,' in plain.content
    assert b'"value": 1.50,' in pretty.content
    assert pretty.headers["content-length"] == str(len(pretty.content))
    metadata = await as_ehr.get("/fhir/metadata?_pretty=true")
    assert metadata.content.startswith(b'{\n  "resourceType": "CapabilityStatement"')
