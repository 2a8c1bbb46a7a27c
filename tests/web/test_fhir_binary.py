"""Binary: its own content, or FHIR JSON. Source: FHIR R4 §2.45 (Binary)."""

from __future__ import annotations

import base64

import pytest

from tests.web.fhir_world import FHIR_JSON, FhirWorld, assert_outcome

CONTENT = b"%PDF-1.7 \x00\xff\n content"


def binary(own_id: str, content_type: str, content: bytes = CONTENT):
    data = base64.b64encode(content).decode()
    return {"resourceType": "Binary", "id": own_id, "contentType": content_type, "data": data}


async def stored(as_ehr, content_type: str, content: bytes = CONTENT) -> None:
    response = await as_ehr.put("/fhir/Binary/b", json=binary("b", content_type, content))
    assert response.status_code in {200, 201}, response.text


@pytest.mark.parametrize(
    "accept", ["*/*", "application/pdf", "text/html,*/*;q=0.8", "image/png", "application/fhir+xml"]
)
async def test_who_does_not_ask_for_fhir_json_gets_the_content(as_ehr, accept):
    await stored(as_ehr, "application/pdf")
    for path in ("/fhir/Binary/b", "/fhir/Binary/b/_history/1"):
        response = await as_ehr.get(path, headers={"Accept": accept})
        assert response.status_code == 200
        assert response.content == CONTENT
        assert response.headers["content-type"] == "application/pdf"
        assert response.headers["etag"] == 'W/"1"'
        assert response.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize("accept", [FHIR_JSON, "application/json", f"{FHIR_JSON}, */*"])
async def test_who_asks_for_fhir_json_gets_the_resource(as_ehr, accept):
    await stored(as_ehr, "application/pdf")
    response = await as_ehr.get("/fhir/Binary/b", headers={"Accept": accept})
    assert response.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert base64.b64decode(response.json()["data"]) == CONTENT
    formatted = await as_ehr.get("/fhir/Binary/b?_format=json", headers={"Accept": "image/png"})
    assert formatted.content == response.content


@pytest.mark.parametrize(
    ("content_type", "attached"),
    [
        ("application/pdf", False),
        ("image/png", False),
        ("image/jpeg", False),
        ("IMAGE/PNG", False),
        ("text/html", True),
        ("image/svg+xml", True),
        ("application/xhtml+xml", True),
        ("text/xml", True),
        ("text/plain", True),
        ("application/json", True),
        ("application/pdf+x", True),
        ("application/octet-stream", True),
    ],
)
async def test_content_is_sandboxed_and_active_content_is_a_download(
    as_ehr, content_type, attached
):
    await stored(as_ehr, content_type, b"<script>alert(1)</script>")
    response = await as_ehr.get("/fhir/Binary/b", headers={"Accept": "*/*"})
    assert response.headers["content-type"] == content_type
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers.get("content-disposition") == ("attachment" if attached else None)


@pytest.mark.parametrize(
    "content_type", ["nonsense", "text/html;", "a/b c/d", "tëxt/plain", "/", "a/"]
)
async def test_a_media_type_that_is_none_is_served_as_bytes(as_ehr, content_type):
    await stored(as_ehr, content_type)
    response = await as_ehr.get("/fhir/Binary/b", headers={"Accept": "*/*"})
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment"


@pytest.mark.parametrize("content_type", ["text/plain\r\nSet-Cookie: a=b", "text/plain\x00", ""])
async def test_a_media_type_cannot_hold_control_characters(fhir: FhirWorld, as_ehr, content_type):
    before = fhir.rows()
    response = await as_ehr.put("/fhir/Binary/b", json=binary("b", content_type))
    assert_outcome(response, 400, "value", "Binary.contentType")
    assert fhir.rows() == before


@pytest.mark.parametrize("data", ["abc", "a===", "a b c", "ä", "====", 7])
async def test_data_that_is_no_base64_is_refused(fhir: FhirWorld, as_ehr, data):
    before = fhir.rows()
    response = await as_ehr.put(
        "/fhir/Binary/b", json={**binary("b", "application/pdf"), "data": data}
    )
    assert_outcome(response, 400, response.json()["issue"][0]["code"], "Binary.data")
    assert fhir.rows() == before


async def test_base64_with_line_breaks_is_content_all_the_same(as_ehr):
    data = "JVBE\r\nRi0x"
    body = {**binary("b", "application/pdf"), "data": data}
    assert (await as_ehr.put("/fhir/Binary/b", json=body)).status_code == 201
    assert (await as_ehr.get("/fhir/Binary/b")).content == b"%PDF-1"
    read = await as_ehr.get("/fhir/Binary/b", headers={"Accept": FHIR_JSON})
    assert read.json()["data"] == data


async def test_a_binary_without_data_is_empty(as_ehr):
    body = {"resourceType": "Binary", "id": "b", "contentType": "application/pdf"}
    await as_ehr.put("/fhir/Binary/b", json=body)
    response = await as_ehr.get("/fhir/Binary/b")
    assert (response.status_code, response.content) == (200, b"")


async def test_a_binary_that_is_gone_or_known_is_answered_like_any_other(as_ehr):
    await stored(as_ehr, "application/pdf")
    response = await as_ehr.get("/fhir/Binary/b", headers={"If-None-Match": 'W/"1"'})
    assert (response.status_code, response.content) == (304, b"")
    await as_ehr.delete("/fhir/Binary/b")
    assert_outcome(await as_ehr.get("/fhir/Binary/b"), 410, "deleted")


async def test_a_binary_is_seen_through_the_document_that_holds_it(as_ehr, as_patient):
    await stored(as_ehr, "application/pdf")
    assert_outcome(await as_patient.get("/fhir/Binary/b"), 404, "not-found")
    document = {
        "resourceType": "DocumentReference",
        "id": "d",
        "status": "current",
        "subject": {"reference": "Patient/ben"},
        "content": [{"attachment": {"contentType": "application/pdf", "url": "Binary/b"}}],
    }
    assert (await as_ehr.put("/fhir/DocumentReference/d", json=document)).status_code == 201
    assert_outcome(await as_patient.get("/fhir/Binary/b"), 404, "not-found")
    document["subject"] = {"reference": "Patient/anna"}
    await as_ehr.put("/fhir/DocumentReference/d", json=document)
    assert (await as_patient.get("/fhir/Binary/b")).content == CONTENT
    await as_ehr.delete("/fhir/DocumentReference/d")
    assert_outcome(await as_patient.get("/fhir/Binary/b"), 404, "not-found")


LONG = bytes(range(256)) * 8


async def in_part(as_ehr, value: str, **headers: str):
    return await as_ehr.get("/fhir/Binary/b", headers={"Range": value, **headers})


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, 2047),
        ("bytes=-48", 2000, 2047),
        ("bytes=-99999", 0, 2047),
        ("bytes=2000-999999999", 2000, 2047),
        ("Bytes=5-6", 5, 6),
    ],
)
async def test_a_part_of_the_content_can_be_asked_for(as_ehr, value: str, start: int, end: int):
    await stored(as_ehr, "text/html", LONG)
    answer = await in_part(as_ehr, value)
    assert answer.status_code == 206
    assert answer.content == LONG[start : end + 1]
    assert answer.headers["content-range"] == f"bytes {start}-{end}/2048"
    assert answer.headers["content-length"] == str(end - start + 1)
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"] == 'W/"1"'


@pytest.mark.parametrize(
    "value",
    [
        *("bytes=0-1,5-6", "bytes=5-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes 0-1", ""),
        *("bytes=0-1-2", "bytes=--5", "bytes=0 - 1", "bytes=" + "9" * 40 + "-"),
    ],
)
async def test_what_is_no_single_range_is_as_if_it_were_not_there(as_ehr, value: str):
    await stored(as_ehr, "application/pdf", LONG)
    answer = await in_part(as_ehr, value)
    assert (answer.status_code, answer.content) == (200, LONG)
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("value", ["bytes=2048-", "bytes=5000-6000", "bytes=-0"])
async def test_a_range_behind_the_end_is_refused_with_the_size(as_ehr, value: str):
    await stored(as_ehr, "application/pdf", LONG)
    answer = await in_part(as_ehr, value)
    assert_outcome(answer, 416, "value")
    assert answer.headers["content-range"] == "bytes */2048"


async def test_a_range_that_must_be_of_the_same_content_names_its_time(as_ehr):
    await stored(as_ehr, "application/pdf", LONG)
    whole = await as_ehr.get("/fhir/Binary/b")
    same = await in_part(as_ehr, "bytes=0-1", **{"If-Range": whole.headers["last-modified"]})
    assert same.status_code == 206
    for other in ('W/"1"', '"1"', "Thu, 01 Jan 1970 00:00:00 GMT"):
        answer = await in_part(as_ehr, "bytes=0-1", **{"If-Range": other})
        assert (answer.status_code, answer.content) == (200, LONG)


async def test_ranges_are_of_content_and_not_of_fhir_json(as_ehr):
    await stored(as_ehr, "application/pdf", LONG)
    answer = await in_part(as_ehr, "bytes=0-1", Accept=FHIR_JSON)
    assert answer.status_code == 200
    assert answer.json()["resourceType"] == "Binary"
    head = await as_ehr.head("/fhir/Binary/b", headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.headers["content-length"]) == (200, "2048")
    assert (
        await as_ehr.get("/fhir/Patient/anna", headers={"Range": "bytes=0-1"})
    ).status_code == 200


async def test_a_part_of_what_is_hidden_is_hidden(as_ehr, as_patient):
    await stored(as_ehr, "application/pdf", LONG)
    for value in ("bytes=0-1", "bytes=5000-"):
        assert_outcome(await in_part(as_patient, value), 404, "not-found")
