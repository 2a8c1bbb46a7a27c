"""Cross-origin requests to ``/fhir``. Source: Fetch §3.2; SMART App Launch 2.2 (CORS)."""

from __future__ import annotations

import pytest

from tests.web.fhir_world import APP_ORIGIN, assert_outcome

PREFLIGHT = {
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization,content-type",
}


async def test_a_registered_origin_may_preflight_without_a_token(as_anyone):
    response = await as_anyone.options(
        "/fhir/Patient/anna", headers={"Origin": APP_ORIGIN, **PREFLIGHT}
    )
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == APP_ORIGIN
    allowed = response.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "if-match", "prefer"} <= set(allowed)
    methods = response.headers["access-control-allow-methods"].split(", ")
    assert {"GET", "POST", "PUT", "DELETE"} <= set(methods)
    assert response.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "http://app.example",
        "https://app.example:8443",
        "https://APP.example/",
        "*",
        "x" * 5000,
        "https://app.example'--",
    ],
)
async def test_no_other_origin_is_let_in(as_anyone, as_patient, origin):
    preflight = await as_anyone.options(
        "/fhir/Patient/anna", headers={"Origin": origin, **PREFLIGHT}
    )
    assert preflight.status_code == 204
    read = await as_patient.get("/fhir/Patient/anna", headers={"Origin": origin})
    assert read.status_code == 200
    for response in (preflight, read):
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert response.headers["vary"] == "Origin"


async def test_a_registered_origin_may_read_the_answer_and_its_headers(as_patient):
    response = await as_patient.get("/fhir/Patient/anna", headers={"Origin": APP_ORIGIN})
    assert response.headers["access-control-allow-origin"] == APP_ORIGIN
    exposed = response.headers["access-control-expose-headers"].split(", ")
    assert {"etag", "location", "last-modified", "www-authenticate"} <= set(exposed)


async def test_a_registered_origin_may_read_refusals(as_anyone, as_patient):
    for response, status, code in (
        (await as_anyone.get("/fhir/Patient", headers={"Origin": APP_ORIGIN}), 401, "login"),
        (await as_patient.get("/fhir/Patient/x", headers={"Origin": APP_ORIGIN}), 404, "not-found"),
        (
            await as_patient.patch("/fhir/Patient/x", headers={"Origin": APP_ORIGIN}),
            405,
            "not-supported",
        ),
    ):
        assert_outcome(response, status, code)
        assert response.headers["access-control-allow-origin"] == APP_ORIGIN


@pytest.mark.parametrize("path", ["/fhir/metadata", "/fhir/.well-known/smart-configuration"])
async def test_discovery_is_open_to_every_origin(as_anyone, path):
    for origin in ("https://evil.example", APP_ORIGIN):
        response = await as_anyone.get(path, headers={"Origin": origin})
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "*"
        preflight = await as_anyone.options(path, headers={"Origin": origin, **PREFLIGHT})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
        refused = await as_anyone.post(path, headers={"Origin": origin})
        assert_outcome(refused, 405, "not-supported")
        assert refused.headers["access-control-allow-origin"] == "*"
