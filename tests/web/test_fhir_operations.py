"""Operations over HTTP: their addresses, methods, bodies and callers. Source: FHIR R4 §3.2.0.1."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fhir_portal.operations.definition import OperationDefinition, definition_of
from tests.builders import an_appointment
from tests.web.fhir_world import ANNA, BEN, FHIR_JSON, FhirWorld, assert_outcome

ACCOUNT = "/fhir/Person/pa/$portal-account"
JSON_BODY = [("Content-Type", FHIR_JSON)]
NO_PARAMETERS = b'{"resourceType":"Parameters"}'


async def test_get_head_and_post_ask_the_same(fhir: FhirWorld):
    got = await fhir.raw("GET", ACCOUNT)
    head = await fhir.raw("HEAD", ACCOUNT)
    posts = [
        await fhir.raw("POST", ACCOUNT),
        await fhir.raw("POST", ACCOUNT, headers=JSON_BODY, body=[NO_PARAMETERS]),
    ]
    assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
    assert [one.content for one in posts] == [got.content] * 2


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused_by_name(fhir: FhirWorld, method: str):
    answer = await fhir.raw(method, ACCOUNT, headers=JSON_BODY, body=[NO_PARAMETERS])
    assert_outcome(answer, 405, "not-supported")
    assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"


@pytest.mark.parametrize(
    "target",
    [
        "/fhir/Person/pa//$portal-account",
        "/fhir/Person//$portal-account",
        "/fhir/Person/pa%2f$portal-account",
        "/fhir/Person/pa/$portal-account/x",
        "/fhir/Person/pa/$portal-account/$portal-account",
        "/fhir/Person/pa/_history/1/$portal-account",
        "/fhir/Person/pa/$Portal-Account",
        "/fhir/Person/pa/$portal-account%0a",
        "/fhir/Person/pa/$",
        "/fhir/Person/pa/$portal-account;a=b",
        "/fhir/Person/../$portal-account",
    ],
)
async def test_an_address_that_only_looks_like_one_is_404(fhir: FhirWorld, target: str):
    assert_outcome(await fhir.raw("GET", target), 404, "not-found")
    assert (await fhir.raw("POST", target)).status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("sign", ["$", "%24"])
async def test_a_patient_may_not_however_it_is_written(fhir: FhirWorld, method: str, sign: str):
    target = f"/fhir/Person/pa/{sign}portal-account"
    answer = await fhir.raw(method, target, token=ANNA)
    absent = await fhir.raw(method, target.replace("/pa/", "/nobody/"), token=ANNA)
    assert answer.status_code == 403
    assert (absent.status_code, absent.content) == (403, answer.content)


async def test_nobody_may_without_a_token(fhir: FhirWorld):
    for method in ("GET", "POST"):
        assert (await fhir.raw(method, ACCOUNT, token=None)).status_code == 401


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_no_fhir_json_is_refused(fhir: FhirWorld, content_type: str | None):
    headers = [("Content-Type", content_type)] if content_type else []
    answer = await fhir.raw("POST", ACCOUNT, headers=headers, body=[NO_PARAMETERS])
    assert_outcome(answer, 415, "not-supported")


@pytest.mark.parametrize("query", ["surprise=1", "_count=1", "status=enabled", "surprise"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_parameter_it_does_not_have_is_refused(fhir: FhirWorld, method: str, query: str):
    answer = await fhir.raw(method, f"{ACCOUNT}?{query}")
    assert answer.status_code == 400


async def test_a_refused_call_is_in_the_log_of_who_made_it(fhir: FhirWorld):
    await fhir.raw("GET", ACCOUNT, token=ANNA)
    answer = await fhir.raw("GET", "/fhir/AuditEvent?_count=1")
    event = answer.json()["entry"][0]["resource"]
    assert [one["code"] for one in event["subtype"]] == ["operation", "portal-account"]
    assert event["outcome"] == "4"


@pytest.fixture
def changing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operation as one that changes something, of which nothing may be carried out."""

    def changes(code: str) -> OperationDefinition:
        return replace(definition_of(code), affects_state=True)

    async def carried_out(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("fhir_portal.operations.catalog.definition_of", changes)
    held = {"portal-account": carried_out}
    monkeypatch.setattr("fhir_portal.operations.catalog.OPERATIONS", held)


@pytest.mark.usefixtures("changing")
async def test_what_changes_something_is_not_done_by_get_head_or_an_entry(fhir: FhirWorld):
    for method in ("GET", "HEAD"):
        answer = await fhir.raw(method, ACCOUNT)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    entry = {"request": {"method": "GET", "url": "Person/pa/$portal-account"}}
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
    body = json.dumps(batch).encode()
    answer = await fhir.raw("POST", "/fhir", headers=JSON_BODY, body=[body])
    assert answer.json()["entry"][0]["response"]["status"] == "405 Method Not Allowed"


@pytest.mark.parametrize("name", ["If-Match", "If-None-Exist"])
async def test_a_condition_that_would_be_ignored_is_refused(fhir: FhirWorld, name: str):
    answer = await fhir.raw("POST", ACCOUNT, headers=[(name, 'W/"77"')])
    assert_outcome(answer, 400, "not-supported")


async def test_a_calendar_file_is_the_body_itself_and_is_never_shown_as_a_page(
    fhir: FhirWorld, as_ehr
):
    tree = an_appointment("visit", of=["anna"], description="END:VCALENDAR")
    assert (await as_ehr.put("/fhir/Appointment/visit", json=tree)).status_code == 201
    target = "/fhir/Appointment/visit/$calendar"
    got = await fhir.raw("GET", target, token=ANNA, headers=[("Accept", "text/calendar")])
    assert got.status_code == 200
    assert got.headers["content-type"] == "text/calendar; charset=utf-8"
    assert got.headers["content-disposition"] == "attachment"
    assert got.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.content.startswith(b"BEGIN:VCALENDAR\r\n")
    as_json = await fhir.raw("GET", target, token=ANNA, headers=[("Accept", FHIR_JSON)])
    assert as_json.json()["contentType"] == "text/calendar; charset=utf-8"
    assert (await fhir.raw("GET", target, token=BEN)).status_code == 404
    assert (await fhir.raw("GET", target, token=None)).status_code == 401
