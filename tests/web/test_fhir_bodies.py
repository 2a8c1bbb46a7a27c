"""What is refused in a body, at which status, and that nothing of it is stored.

Source: FHIR R4 §2.6 (JSON), §3.1.0.4, §3.1.0.8; RFC 8259; RFC 9110 §15.5.
"""

from __future__ import annotations

import gzip
import json

import pytest

from tests.web.fhir_world import (
    FHIR_JSON,
    MAX_BODY,
    FhirWorld,
    assert_outcome,
    encoded,
    entry,
    observation,
    patient,
    transaction,
)

P = '{"resourceType":"Patient"'
DEEP = P + ',"extension":' + '[{"url":"u:x","extension":' * 40 + "[]" + "}]" * 40 + "}"

MALFORMED = {
    "no JSON": b"hello",
    "cut short": b'{"resourceType":"Patient"',
    "a comma too many": b'{"resourceType":"Patient",}',
    "single quotes": b"{'resourceType':'Patient'}",
    "a comment": b'{"resourceType":"Patient"/* */}',
    "two objects": b'{"resourceType":"Patient"}{"resourceType":"Patient"}',
    "an array": b'[{"resourceType":"Patient"}]',
    "a string": b'"Patient"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "blanks only": b"  \n",
    "a byte-order mark": b'\xef\xbb\xbf{"resourceType":"Patient"}',
    "UTF-16": '{"resourceType":"Patient"}'.encode("utf-16"),
    "invalid UTF-8": b'{"resourceType":"Patient","language":"\xff\xfe"}',
    "overlong UTF-8": b'{"resourceType":"Patient","language":"\xc0\xaf"}',
    "an encoded surrogate": b'{"resourceType":"Patient","language":"\xed\xa0\x80"}',
    "half a surrogate pair": b'{"resourceType":"Patient","language":"\\ud800"}',
    "the other half": b'{"resourceType":"Patient","language":"\\udc00x"}',
    "a raw control character": b'{"resourceType":"Patient","language":"a\x01"}',
    "a raw NUL": b'{"resourceType":"Patient","language":"a\x00"}',
    "NaN": (P + ',"multipleBirthInteger":NaN}').encode(),
    "Infinity": (P + ',"multipleBirthInteger":-Infinity}').encode(),
    "a leading zero": (P + ',"multipleBirthInteger":01}').encode(),
    "a plus sign": (P + ',"multipleBirthInteger":+1}').encode(),
    "hex": (P + ',"multipleBirthInteger":0x1}').encode(),
    "nested too deep": DEEP.encode(),
    "nested absurdly deep": b"[" * 30_000,
    "objects absurdly deep": b'{"a":' * 10_000,
    "a name twice": b'{"resourceType":"Patient","active":true,"active":false}',
    "a name twice, escaped": b'{"resourceType":"Patient","active":true,"\\u0061ctive":false}',
    "resourceType twice": b'{"resourceType":"Patient","resourceType":"Observation"}',
    "id twice": b'{"resourceType":"Patient","id":"anna","id":"ben"}',
    "a name twice further in": b'{"resourceType":"Patient","name":[{"text":"a","text":"b"}]}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_body_is_400_for_create_update_and_bundle(fhir: FhirWorld, as_ehr, body):
    before = fhir.rows()
    for method, path in (
        ("POST", "/fhir/Patient"),
        ("PUT", "/fhir/Patient/anna"),
        ("POST", "/fhir"),
    ):
        response = await as_ehr.request(
            method, path, content=body, headers={"Content-Type": FHIR_JSON}
        )
        assert_outcome(response, 400, "invalid")
    assert fhir.rows() == before


async def test_an_empty_body_is_400(fhir: FhirWorld, as_ehr):
    before = fhir.rows()
    for method, path in (
        ("POST", "/fhir/Patient"),
        ("PUT", "/fhir/Patient/anna"),
        ("POST", "/fhir"),
    ):
        response = await as_ehr.request(method, path, headers={"Content-Type": FHIR_JSON})
        assert "empty" in assert_outcome(response, 400, "invalid")
    assert fhir.rows() == before


REFUSED = {
    "an unknown element": ({"favouriteColour": "red"}, 400, "structure", "Patient.favouriteColour"),
    "an unknown element further in": (
        {"name": [{"nick": "x"}]},
        400,
        "structure",
        "Patient.name[0].nick",
    ),
    "a string where a boolean stands": ({"active": "true"}, 400, "value", "Patient.active"),
    "an object where a list stands": ({"name": {"text": "A"}}, 400, "structure", "Patient.name"),
    "a list where a string stands": ({"birthDate": ["1980"]}, 400, "structure", None),
    "a date that is none": ({"birthDate": "1980-02-30"}, 400, "value", "Patient.birthDate"),
    "a date in another form": ({"birthDate": "3.2.1980"}, 400, "value", "Patient.birthDate"),
    "null": ({"active": None}, 400, None, None),
    "an empty list": ({"name": []}, 400, None, "Patient.name"),
    "an empty object": ({"maritalStatus": {}}, 400, None, "Patient.maritalStatus"),
    "an empty string": ({"language": ""}, 400, "value", "Patient.language"),
    "a code outside a required binding": ({"gender": "F"}, 422, None, "Patient.gender"),
    "a reference to a wrong type": (
        {"generalPractitioner": [{"reference": "Patient/anna"}]},
        422,
        None,
        None,
    ),
    "a conditional reference": (
        {"managingOrganization": {"reference": "Organization?name=x"}},
        400,
        None,
        "Patient.managingOrganization.reference",
    ),
    "a reference that is none": (
        {"managingOrganization": {"reference": "javascript:alert(1)"}},
        400,
        None,
        "Patient.managingOrganization.reference",
    ),
    "a control character": ({"language": "a\x02"}, 400, "value", "Patient.language"),
    "an operator object in place of a value": (
        {"birthDate": {"$gt": ""}},
        400,
        None,
        None,
    ),
    "an operator as an element": ({"$where": "1"}, 400, "structure", None),
    "a member named like a Python attribute": ({"__class__": {}}, 400, None, None),
}


@pytest.mark.parametrize(("more", "status", "code", "expression"), REFUSED.values(), ids=REFUSED)
async def test_a_bad_resource_is_refused_and_the_element_named(
    fhir: FhirWorld, as_ehr, more, status, code, expression
):
    before = fhir.rows()
    for method, path, own_id in (
        ("POST", "/fhir/Patient", None),
        ("PUT", "/fhir/Patient/anna", "anna"),
        ("PUT", "/fhir/Patient/new", "new"),
    ):
        response = await as_ehr.request(method, path, json=patient(own_id, **more))
        first = response.json()["issue"][0]
        assert_outcome(response, status, code or first["code"], expression)
    assert fhir.rows() == before


async def test_every_fault_is_listed_at_once(as_ehr):
    response = await as_ehr.post(
        "/fhir/Patient", json=patient(gender="F", birthDate="x", active="yes", foo=1)
    )
    found = {e for issue in response.json()["issue"] for e in issue.get("expression", ())}
    assert {"Patient.birthDate", "Patient.active", "Patient.foo"} <= found


async def test_no_diagnostics_quote_a_value(as_ehr):
    secret = "very-secret-value"
    for name in ("birthDate", "gender", "active", "deceased"):
        more = {name: secret}
        response = await as_ehr.post("/fhir/Patient", json=patient(**more))
        assert response.status_code in {400, 422}
        assert secret not in response.text


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Observation"},
        {"resourceType": "patient"},
        {"resourceType": "Nothing"},
        {"resourceType": ["Patient"]},
        {"resourceType": None},
        {"resourceType": ""},
        {},
        {"name": [{"text": "A"}]},
    ],
)
async def test_a_resource_of_another_type_is_refused(fhir: FhirWorld, as_ehr, body):
    before = fhir.rows()
    created = await as_ehr.post("/fhir/Patient", json=body)
    assert_outcome(created, 400, "invalid", "resourceType")
    updated = await as_ehr.put("/fhir/Patient/anna", json={**body, "id": "anna"})
    assert_outcome(updated, 400, "invalid", "resourceType")
    assert fhir.rows() == before


@pytest.mark.parametrize("own_id", ["ben", "ANNA", None, ""])
async def test_an_update_under_another_id_is_refused(fhir: FhirWorld, as_ehr, own_id):
    before = fhir.rows()
    body = patient() if own_id is None else {**patient(), "id": own_id}
    response = await as_ehr.put("/fhir/Patient/anna", json=body)
    assert response.status_code == 400
    assert_outcome(response, 400, response.json()["issue"][0]["code"], "Patient.id")
    assert fhir.rows() == before


@pytest.mark.parametrize("own_id", ["a b", "a/b", "a_b", "x" * 65, "ä", 7, {"$gt": ""}, "../x"])
async def test_an_id_of_another_form_is_refused(fhir: FhirWorld, as_ehr, own_id):
    before = fhir.rows()
    response = await as_ehr.post("/fhir/Patient", json={**patient(), "id": own_id})
    assert response.status_code == 400
    assert_outcome(response, 400, response.json()["issue"][0]["code"], "Patient.id")
    assert fhir.rows() == before


HOSTILE = [
    "'; DROP TABLE resource; --",
    '" OR 1=1 --',
    '{"$gt": ""}',
    "$where: sleep(1000)",
    "%' UNION SELECT key FROM record --",
    "a\\' OR \\'1",
    "(SELECT 1)",
    "\U0001d4b6\u202e",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_operator_text_is_only_text(fhir: FhirWorld, as_ehr, text):
    created = await as_ehr.post("/fhir/Patient", json=patient(name=[{"family": text}]))
    assert created.status_code == 201
    assert created.json()["name"] == [{"family": text}]
    found = await as_ehr.get("/fhir/Patient", params={"family:exact": _escaped(text)})
    assert [e["resource"]["id"] for e in found.json()["entry"]] == [created.json()["id"]]
    assert fhir.rows()["resource"] == 5


# --- content types and sizes


@pytest.mark.parametrize(
    "content_type",
    [
        "application/fhir+json",
        "application/json",
        "application/fhir+json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "Application/FHIR+JSON; fhirVersion=4.0",
    ],
)
async def test_fhir_json_and_json_are_taken(as_ehr, content_type):
    response = await as_ehr.post(
        "/fhir/Patient", content=encoded(patient()), headers={"Content-Type": content_type}
    )
    assert response.status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "application/fhir+xml",
        "application/xml",
        "text/plain",
        "text/html",
        "application/pdf",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch+json",
        "application/fhir+json; charset=iso-8859-1",
        "application/fhir+json; fhirVersion=5.0",
        "application/fhir+jsonx",
        "json",
        "",
    ],
)
async def test_other_content_types_are_415(fhir: FhirWorld, as_ehr, content_type):
    before = fhir.rows()
    for method, path in (
        ("POST", "/fhir/Patient"),
        ("PUT", "/fhir/Patient/anna"),
        ("POST", "/fhir"),
    ):
        response = await as_ehr.request(
            method,
            path,
            content=encoded(patient("anna")),
            headers={"Content-Type": content_type},
        )
        assert_outcome(response, 415, "not-supported")
    assert fhir.rows() == before


async def test_a_body_without_content_type_is_415(fhir: FhirWorld):
    answer = await fhir.raw("POST", "/fhir/Patient", body=[encoded(patient())])
    assert_outcome(answer, 415, "not-supported")


async def test_a_compressed_body_is_415(as_ehr):
    response = await as_ehr.post(
        "/fhir/Patient",
        content=gzip.compress(encoded(patient())),
        headers={"Content-Type": FHIR_JSON, "Content-Encoding": "gzip"},
    )
    assert_outcome(response, 415, "not-supported")


async def test_a_body_that_says_it_is_too_large_is_413_before_it_is_read(fhir: FhirWorld):
    answer = await fhir.raw(
        "POST",
        "/fhir/Patient",
        headers=[("Content-Type", FHIR_JSON), ("Content-Length", str(MAX_BODY + 1))],
        body=[b"x" * (MAX_BODY + 1)],
    )
    assert_outcome(answer, 413, "too-long")
    assert fhir.chunks_read == 0


@pytest.mark.parametrize("declared", [None, "10"])
async def test_a_body_that_turns_out_too_large_is_413_at_the_limit(fhir: FhirWorld, declared):
    """Chunked, or longer than it said: reading stops where the limit is passed."""
    before = fhir.rows()
    headers = [("Content-Type", FHIR_JSON)]
    if declared:
        headers.append(("Content-Length", declared))
    chunks = [b" " * 1024] * (3 * MAX_BODY // 1024)
    answer = await fhir.raw("POST", "/fhir/Patient", headers=headers, body=chunks)
    assert_outcome(answer, 413, "too-long")
    assert fhir.chunks_read == MAX_BODY // 1024 + 1
    assert fhir.rows() == before


async def test_a_body_just_within_the_limit_is_taken_also_in_chunks(fhir: FhirWorld):
    body = encoded(patient(name=[{"text": "A"}]))
    body += b" " * (MAX_BODY - len(body))
    chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    answer = await fhir.raw(
        "POST", "/fhir/Patient", headers=[("Content-Type", FHIR_JSON)], body=chunks
    )
    assert answer.status_code == 201


async def test_a_bundle_may_be_larger_than_a_resource(as_ehr):
    text = "x" * (MAX_BODY // 2)
    body = transaction(*[entry("POST", "Patient", patient(name=[{"text": text}]))] * 4)
    assert len(encoded(body)) > MAX_BODY
    assert (await as_ehr.post("/fhir", json=body)).status_code == 200
    assert_outcome(await as_ehr.post("/fhir/Bundle", json=body), 413, "too-long")


async def test_a_length_that_is_no_number_is_400(fhir: FhirWorld):
    for length in ("-1", "ten", "1e3", ""):
        answer = await fhir.raw(
            "POST",
            "/fhir/Patient",
            headers=[("Content-Type", FHIR_JSON), ("Content-Length", length)],
            body=[encoded(patient())],
        )
        assert_outcome(answer, 400, "invalid")


async def test_repeated_headers_that_stand_once_are_refused(fhir: FhirWorld):
    before = fhir.rows()
    for name, first, second in (
        ("Content-Type", FHIR_JSON, "text/plain"),
        ("Content-Length", "10", "20"),
        ("If-None-Exist", "identifier=1", "identifier=2"),
    ):
        headers = [("Content-Type", FHIR_JSON)] if name != "Content-Type" else []
        answer = await fhir.raw(
            "POST",
            "/fhir/Patient",
            headers=[*headers, (name, first), (name, second)],
            body=[encoded(patient())],
        )
        assert_outcome(answer, 400, "invalid")
    assert fhir.rows() == before


# --- fidelity


async def test_what_is_read_back_is_what_was_sent(as_ehr):
    """Member order, number text, Unicode and escapes; only id and meta are the server's."""
    sent = (
        '{"status":"final","resourceType":"Observation",'
        '"code":{"text":"caf\\u00e9 \\ud83d\\ude00 \U0001f600 \\"q\\" \\\\ \\/ tab\\tnl\\n",'
        '"coding":'
        '[{"code":"8867-4","system":"http://loinc.org"}]},'
        '"subject":{"display":"日本語 \u202e \\u2028","reference":"Patient/anna"},'
        '"component":['
        + ",".join(
            '{"code":{"text":"n"},"valueQuantity":{"value":' + number + "}}" for number in NUMBERS
        )
        + "]}"
    )
    created = await as_ehr.post(
        "/fhir/Observation", content=sent.encode(), headers={"Content-Type": FHIR_JSON}
    )
    assert created.status_code == 201, created.text
    own_id = created.json()["id"]
    read = await as_ehr.get(f"/fhir/Observation/{own_id}")
    assert read.content == created.content
    stored = _without_id_and_meta(read.text)
    assert list(stored) == list(json.loads(sent))
    assert stored == json.loads(sent, parse_float=_Text, parse_int=_Text)
    found = await as_ehr.get(f"/fhir/Observation?_id={own_id}")
    assert read.content in found.content
    version = await as_ehr.get(f"/fhir/Observation/{own_id}/_history/1")
    assert version.content == read.content
    history = await as_ehr.get(f"/fhir/Observation/{own_id}/_history")
    assert read.content in history.content
    pretty = await as_ehr.get(f"/fhir/Observation/{own_id}?_pretty=true")
    assert b"\n  " in pretty.content
    assert _without_id_and_meta(pretty.text) == stored


NUMBERS = [
    "1.50",
    "1e2",
    "1E+2",
    "-0",
    "-0.0",
    "0.10",
    "100000000000000000000",
    "12345678901234567890.1234567890",
    "0.00000000000000000001",
    "1.0e-7",
    "70",
    "9007199254740993",
]


async def test_an_update_keeps_the_new_members_in_their_order(as_ehr):
    sent = (
        '{"birthDate":"1980","meta":{"profile":["http://p.example/x"]},"id":"anna",'
        '"active":true,"resourceType":"Patient"}'
    )
    response = await as_ehr.put(
        "/fhir/Patient/anna", content=sent, headers={"Content-Type": FHIR_JSON}
    )
    assert response.status_code == 200
    assert list(response.json()) == list(json.loads(sent))
    assert response.json()["meta"] == {
        "versionId": "2",
        "lastUpdated": "2030-03-17T17:46:40.000Z",
        "profile": ["http://p.example/x"],
    }


async def test_id_and_meta_of_a_create_are_the_servers(as_ehr):
    response = await as_ehr.post(
        "/fhir/Observation",
        json={
            **observation("mine"),
            "meta": {"versionId": "99", "lastUpdated": "1999-01-01T00:00:00Z"},
        },
    )
    stored = response.json()
    assert stored["id"] != "mine"
    assert stored["meta"] == {"versionId": "1", "lastUpdated": "2030-03-17T17:46:40.000Z"}


def _escaped(text: str) -> str:
    """FHIR R4 §3.1.1.4.18: what separates values is escaped inside one."""
    for sign in "\\$,|":
        text = text.replace(sign, f"\\{sign}")
    return text


class _Text(str):
    """A number as it was written, unequal to a string that looks like it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Text) and str.__eq__(self, other)

    __hash__ = str.__hash__


def _without_id_and_meta(text: str):
    tree = json.loads(text, parse_float=_Text, parse_int=_Text)
    return {name: value for name, value in tree.items() if name not in {"id", "meta"}}
