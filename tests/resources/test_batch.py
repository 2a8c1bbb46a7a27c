"""``batch``: each entry on its own. Source: FHIR R4 §3.1.0.11."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.resources import catalog
from tests.builders import BASE, Answer, a_bundle, a_patient, an_observation
from tests.resources.test_transaction import entry, transaction, versions


def batch(*entries: Any) -> Any:
    return transaction(*entries, kind="batch")


def statuses(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    assert answer.json["type"] == "batch-response"
    return [one["response"]["status"] for one in answer.json["entry"]]


async def test_entries_succeed_and_fail_each_on_its_own(ehr):
    await ehr.store(a_patient("ada"), a_patient("kit"))
    answer = await ehr.bundle(
        batch(
            entry("GET", "Patient/ada"),
            entry("GET", "Patient/nobody"),
            entry("POST", "Patient", a_patient(None)),
            entry("POST", "Patient", a_patient(None, birthDate="x")),
            entry("PUT", "Patient/ada", a_patient("ada"), ifMatch='W/"9"'),
            entry("PUT", "Patient/eve", a_patient("eve")),
            entry("DELETE", "Patient/kit"),
            entry("GET", "Patient/kit"),
            entry("GET", "Patient/kit/_history/1"),
            entry("GET", "Patient/ada/_history?_count=1"),
            entry("GET", "Patient?_id=ada"),
            entry("GET", "Patient?favourite=red"),
            entry("PATCH", "Patient/ada", a_patient("ada")),
            entry("GET", "Nothing/1"),
            entry("POST", "AuditEvent", {"resourceType": "AuditEvent"}),
            {"request": {"method": "GET"}},
            entry("GET", "Patient/ada", ifNoneMatch='W/"1"'),
            entry("GET", "Patient/ada", ifModifiedSince="2040-01-01T00:00:00Z"),
        )
    )
    assert statuses(answer) == [
        "200 OK",
        "404 Not Found",
        "201 Created",
        "400 Bad Request",
        "412 Precondition Failed",
        "201 Created",
        "204 No Content",
        "410 Gone",
        "200 OK",
        "200 OK",
        "200 OK",
        "400 Bad Request",
        "400 Bad Request",
        "404 Not Found",
        "405 Method Not Allowed",
        "400 Bad Request",
        "304 Not Modified",
        "304 Not Modified",
    ]
    for one in answer.json["entry"]:
        response = one["response"]
        if response["status"][0] == "4":
            assert "resource" not in one
            assert response["outcome"]["resourceType"] == "OperationOutcome"
            assert response["outcome"]["issue"][0]["diagnostics"]
        else:
            assert "outcome" not in response
    assert answer.json["entry"][2]["response"]["location"] == f"{BASE}/Patient/new-1/_history/1"
    assert answer.entries[9]["total"] == 1


async def test_entries_are_carried_out_in_their_order(ehr):
    answer = await ehr.bundle(
        batch(
            entry("PUT", "Patient/ada", a_patient("ada", family="One")),
            entry("GET", "Patient/ada"),
            entry("PUT", "Patient/ada", a_patient("ada", family="Two"), ifMatch='W/"1"'),
            entry("GET", "Patient?name=two"),
        )
    )
    assert statuses(answer) == ["201 Created", "200 OK", "200 OK", "200 OK"]
    assert answer.entries[1]["name"][0]["family"] == "One"
    assert answer.entries[3]["entry"][0]["resource"]["id"] == "ada"


@pytest.mark.parametrize(
    "faulty",
    [
        entry("PUT", "Patient/ada", a_patient("ada"), ifmatch='W/"9"'),
        entry("PUT", "Patient/ada", a_patient("ada"), ifMatch=9),
        entry("PUT", "Patient/ada", a_patient("ada"), ifMatch=['W/"9"']),
        entry("GET", "Patient/ada", ifModifiedSince="yesterday"),
        entry("POST", "Patient", a_patient(None), ifNoneExist=""),
        entry("POST", "Patient", a_patient(None), ifNoneExist={"$gt": ""}),
        entry("POST", "", batch()),
        entry("POST", "Patient/_search"),
        entry("GET", "../Patient/ada"),
        entry("GET", f"{BASE}/Patient/ada"),
        entry("GET", "Patient/ada?_summary=true"),
        entry("GET", ""),
        entry("get", "Patient/ada"),
        {},
        {"request": None},
        {"request": {"method": "GET", "url": {"$gt": ""}}},
        {"link": "x"},
    ],
)
async def test_a_malformed_entry_is_400_and_the_others_go_on(ehr, store, faulty):
    await ehr.store(a_patient("ada"))
    before = versions(store)
    answer = await ehr.bundle(batch(faulty, entry("GET", "Patient/ada")))
    assert statuses(answer) == ["400 Bad Request", "200 OK"]
    assert versions(store) == before


async def test_a_fault_of_ours_in_one_entry_does_not_take_the_others_along(ehr, monkeypatch):
    async def broken(*_: Any) -> Any:
        raise RuntimeError("secret inside")

    await ehr.store(a_patient("ada"))
    monkeypatch.setitem(catalog.INTERACTIONS, "vread", broken)
    answer = await ehr.bundle(
        batch(
            entry("PUT", "Patient/eve", a_patient("eve")),
            entry("GET", "Patient/ada/_history/1"),
            entry("GET", "Patient/eve"),
        )
    )
    assert statuses(answer) == ["201 Created", "500 Internal Server Error", "200 OK"]
    assert b"secret" not in answer.body


async def test_references_between_entries_of_a_batch_lead_nowhere(ehr):
    """FHIR R4 §3.1.0.11.1: entries of a batch do not depend on one another."""
    uuid = "urn:uuid:11111111-2222-3333-4444-555555555555"
    observation = an_observation("o") | {"subject": {"reference": uuid}}
    answer = await ehr.bundle(
        batch(
            entry("POST", "Patient", a_patient(None), full_url=uuid),
            entry("PUT", "Observation/o", observation),
        )
    )
    assert statuses(answer)[0] == "201 Created"
    if statuses(answer)[1] == "201 Created":
        assert (await ehr.get("Observation/o")).json["subject"] == {"reference": uuid}


async def test_an_empty_batch_is_answered(ehr):
    answer = await ehr.bundle(a_bundle("batch"))
    assert answer.json == {"resourceType": "Bundle", "type": "batch-response"}
