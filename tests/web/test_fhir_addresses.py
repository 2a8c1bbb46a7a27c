"""Paths and methods under ``/fhir``. Source: FHIR R4 §3.1.0.1.1; RFC 9110 §9, §15.5.6."""

from __future__ import annotations

import pytest

from tests.web.fhir_world import FhirWorld, assert_outcome, patient


@pytest.mark.parametrize(
    "target",
    [
        "/fhir/Patient/../Observation",
        "/fhir/Patient/../../etc/passwd",
        "/fhir/Patient/%2e%2e/anna",
        "/fhir/Patient/..",
        "/fhir/Patient/.",
        "/fhir/Patient/%2e%2e",
        "/fhir/Patient/..%2fanna",
        "/fhir/Patient%2fanna",
        "/fhir/Patient/anna%2f_history%2f1",
        "/fhir/Patient%5canna",
        "/fhir/Patient//anna",
        "/fhir/Patient/anna;a=b",
        "/fhir/Patient/anna/_history/../anna",
        "/fhir/Patient/anna/_history/1/2",
        "/fhir/Patient/anna/name",
        "/fhir/Patient/anna%00",
        "/fhir/Patient/anna%0d%0aX:y",
        "/fhir/Patient/%C3%A4nna",
        "/fhir/Patient/%ff",
        "/fhir/Pati%C3%A9nt/anna",
        "/fhir/patient/anna",
        "/fhir/Patient/anna_1",
        "/fhir/Patient/" + "a" * 65,
        "/fhir/Patient/" + "a" * 20_000,
        "/fhir/" + "/".join("a" * 500),
        "/fhir/Patient/_history",
        "/fhir/_search",
        "/fhir/.well-known",
        "/fhir/metadata/x",
    ],
)
async def test_an_address_that_means_nothing_is_404(fhir: FhirWorld, target):
    assert_outcome(await fhir.raw("GET", target), 404, "not-found")


@pytest.mark.parametrize(
    "target", ["/fhir/Patient/$nothing", "/fhir/Nonsense/x/$nothing", "/fhir/$nothing"]
)
async def test_an_operation_that_is_not_offered_is_404(fhir: FhirWorld, target):
    for method in ("GET", "POST"):
        assert_outcome(await fhir.raw(method, target), 404, "not-supported")


async def test_an_address_that_means_nothing_takes_no_write(fhir: FhirWorld):
    before = fhir.rows()
    headers = [("Content-Type", "application/fhir+json")]
    for target, own_id in (
        ("/fhir/Patient/..", ".."),
        ("/fhir/Patient/%2e", "."),
        ("/fhir/Patient%2fx", "x"),
        ("/fhir/Patient/a_b", "a_b"),
    ):
        body = f'{{"resourceType":"Patient","id":"{own_id}"}}'.encode()
        answer = await fhir.raw("PUT", target, headers=headers, body=[body])
        assert_outcome(answer, 404, "not-found")
    assert fhir.rows() == before


async def test_slashes_at_the_ends_of_a_path_do_not_count(fhir: FhirWorld):
    for target in ("/fhir/Patient/anna/", "/fhir//Patient/anna"):
        answer = await fhir.raw("GET", target)
        assert answer.status_code == 200
        assert answer.json()["id"] == "anna"


async def test_types_that_r4_has_and_this_server_has_not_are_not_supported(as_ehr, as_patient):
    for name in ("MedicinalProduct", "SubstanceSpecification", "Nothing"):
        for client in (as_ehr, as_patient):
            assert_outcome(await client.get(f"/fhir/{name}/x"), 404, "not-supported")
            assert_outcome(await client.get(f"/fhir/{name}"), 404, "not-supported")
        created = await as_ehr.post(f"/fhir/{name}", json={"resourceType": name})
        assert_outcome(created, 404, "not-supported")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/fhir/Patient/anna", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("POST", "/fhir/Patient/anna", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("PUT", "/fhir/Patient", "GET, HEAD, POST, OPTIONS"),
        ("DELETE", "/fhir/Patient?name=adler", "GET, HEAD, POST, OPTIONS"),
        ("PUT", "/fhir/Patient?identifier=1", "GET, HEAD, POST, OPTIONS"),
        ("PUT", "/fhir/Patient/anna/_history/1", "GET, HEAD, OPTIONS"),
        ("DELETE", "/fhir/Patient/anna/_history/1", "GET, HEAD, OPTIONS"),
        ("POST", "/fhir/Patient/anna/_history", "GET, HEAD, OPTIONS"),
        ("GET", "/fhir/Patient/_search", "POST, OPTIONS"),
        ("GET", "/fhir", "POST, OPTIONS"),
        ("HEAD", "/fhir/", "POST, OPTIONS"),
        ("POST", "/fhir/_history", "GET, HEAD, OPTIONS"),
        ("TRACE", "/fhir/Patient/anna", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("BREW", "/fhir/Patient/anna", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("get", "/fhir/Patient/anna", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("PUT", "/fhir/AuditEvent/x", "GET, HEAD, OPTIONS"),
        ("POST", "/fhir/AuditEvent", "GET, HEAD, OPTIONS"),
        ("DELETE", "/fhir/Subscription/x", "GET, HEAD, OPTIONS"),
        ("POST", "/fhir/metadata", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_method_that_is_not_offered_is_405_and_the_offered_ones_are_named(
    fhir: FhirWorld, method, path, allow
):
    before = fhir.rows()
    answer = await fhir.raw(
        method,
        path,
        headers=[("Content-Type", "application/fhir+json")],
        body=[b'{"resourceType":"Patient","id":"anna"}'],
    )
    assert answer.status_code == 405
    if method != "HEAD":
        assert_outcome(answer, 405, "not-supported")
    assert answer.headers["allow"] == allow
    assert fhir.rows() == before


async def test_options_without_an_origin_names_the_methods(as_anyone):
    for path, allow in (
        ("/fhir/Patient/anna", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/fhir/Patient", "GET, HEAD, POST, OPTIONS"),
        ("/fhir/metadata", "GET, HEAD, OPTIONS"),
    ):
        response = await as_anyone.options(path)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    "path",
    [
        "/fhir/Patient/anna",
        "/fhir/Patient/anna/_history/1",
        "/fhir/Patient/anna/_history",
        "/fhir/Patient?_id=anna",
        "/fhir/metadata",
        "/fhir/.well-known/smart-configuration",
        "/fhir/Patient/nobody",
        "/fhir/Nothing",
    ],
)
async def test_head_is_get_without_the_body(as_ehr, path):
    got, head = await as_ehr.get(path), await as_ehr.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""
    assert dict(head.headers) == dict(got.headers)
    assert int(head.headers["content-length"]) == len(got.content)


async def test_head_of_what_is_not_modified_has_no_length(as_ehr):
    response = await as_ehr.head("/fhir/Patient/anna", headers={"If-None-Match": 'W/"1"'})
    assert response.status_code == 304
    assert "content-length" not in response.headers


async def test_answers_are_not_stored_by_caches_and_not_sniffed(as_ehr, as_anyone):
    for response in (
        await as_ehr.get("/fhir/Patient/anna"),
        await as_ehr.get("/fhir/Patient"),
        await as_ehr.get("/fhir/Patient/nobody"),
        await as_ehr.post("/fhir/Patient", json=patient()),
        await as_anyone.get("/fhir/Patient"),
    ):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_parameters_that_an_interaction_does_not_have_are_refused_by_name(as_ehr):
    for method, path, name in (
        ("GET", "/fhir/Patient/anna?_summary=true", "_summary"),
        ("GET", "/fhir/Patient/anna?_elements=name", "_elements"),
        ("GET", "/fhir/Patient/anna/_history/1?name=x", "name"),
        ("DELETE", "/fhir/Patient/anna?_cascade=delete", "_cascade"),
    ):
        response = await as_ehr.request(method, path)
        assert name in assert_outcome(response, 400, "invalid")
    created = await as_ehr.post("/fhir/Patient?name=x", json=patient())
    assert "name" in assert_outcome(created, 400, "invalid")
    assert (await as_ehr.get("/fhir/Patient/anna")).status_code == 200
