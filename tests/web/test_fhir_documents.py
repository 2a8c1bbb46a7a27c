"""Generated documents over HTTP: which representation is asked for, and how each is served."""

from __future__ import annotations

import base64

import pytest

from tests.web.fhir_world import ANNA, BEN, FHIR_JSON, FhirWorld, assert_outcome

SUMMARY = "/fhir/Patient/anna/$summary"
SANDBOX = "sandbox; default-src 'none'"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.requirement("portal", "S0-43")
@pytest.mark.parametrize(
    ("query", "accept", "content_type"),
    [
        ("", "*/*", FHIR_JSON),
        ("", FHIR_JSON, FHIR_JSON),
        ("", f"{FHIR_JSON}, application/pdf", FHIR_JSON),
        ("", "application/pdf", "application/pdf"),
        ("", "application/pdf;q=0, */*", FHIR_JSON),
        ("", BROWSER, "text/html"),
        ("?format=pdf", "*/*", "application/pdf"),
        ("?format=pdf", BROWSER, "application/pdf"),
        ("?format=html", "*/*", "text/html"),
        ("?_format=application/pdf", "*/*", "application/pdf"),
        ("?_format=text/html", FHIR_JSON, "text/html"),
        ("?_format=json", "application/pdf", FHIR_JSON),
        ("?format=fhir", "application/pdf", FHIR_JSON),
    ],
)
async def test_the_representation_is_the_one_asked_for(
    as_patient, query: str, accept: str, content_type: str
):
    answer = await as_patient.get(SUMMARY + query, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    if content_type == FHIR_JSON:
        assert answer.json()["type"] == "document"
        return
    assert answer.headers["content-security-policy"] == SANDBOX
    attached = None if content_type == "application/pdf" else "attachment"
    assert answer.headers.get("content-disposition") == attached


async def test_a_rendering_is_a_binary_to_who_asks_for_fhir_json(as_patient):
    native = await as_patient.get(f"{SUMMARY}?format=pdf")
    answer = await as_patient.get(f"{SUMMARY}?format=pdf", headers={"Accept": FHIR_JSON})
    assert answer.json()["resourceType"] == "Binary"
    assert answer.json()["contentType"] == "application/pdf"
    assert base64.b64decode(answer.json()["data"]) == native.content
    assert native.content.startswith(b"%PDF-")


async def test_it_can_be_posted(fhir: FhirWorld):
    body = b'{"resourceType":"Parameters","parameter":[{"name":"format","valueCode":"html"}]}'
    answer = await fhir.raw(
        "POST", SUMMARY, token=ANNA, headers=[("Content-Type", FHIR_JSON)], body=[body]
    )
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content.startswith(b"<!doctype html>")


@pytest.mark.parametrize("query", ["?_format=xml", "?_format=application/msword"])
async def test_another_representation_is_refused(as_patient, query: str):
    assert_outcome(await as_patient.get(SUMMARY + query), 406, "not-supported")


async def test_a_refusal_is_an_outcome_whatever_was_asked_for(fhir: FhirWorld):
    for path in (SUMMARY, "/fhir/Patient/nobody/$summary"):
        answer = await fhir.raw("GET", path, token=BEN, headers=[("Accept", "application/pdf")])
        assert_outcome(answer, 404, "not-found")
    answer = await fhir.raw("GET", SUMMARY, token=None, headers=[("Accept", "application/pdf")])
    assert answer.status_code == 401


@pytest.mark.requirement("portal", "S0-43")
async def test_a_download_is_in_the_log_that_its_person_reads(as_patient):
    await as_patient.get(f"{SUMMARY}?format=pdf")
    ccd = await as_patient.get("/fhir/Patient/anna/$ccd")
    assert ccd.headers["content-type"] == "application/cda+xml"
    assert ccd.headers["content-disposition"] == "attachment"
    assert ccd.content.startswith(b"<?xml")
    log = (await as_patient.get("/fhir/AuditEvent?_count=2")).json()["entry"]
    done = [one["resource"]["subtype"][1]["code"] for one in log]
    assert sorted(done) == ["ccd", "summary"]
