"""AuditEvent: the access log, read. Source: FHIR R4 §6.4; IHE BALP (RESTful activity)."""

from __future__ import annotations

import fhirkit
import pytest

from fhir_portal.resources import audit_event
from tests.builders import a_patient, an_observation, assert_outcome


@pytest.fixture
async def log(ehr, ada, clock):
    await ehr.store(a_patient("ada"), a_patient("kit"), an_observation("o"))
    clock.advance(60)
    await ada.get("Observation/o")
    clock.advance(60)
    await ada.get("Observation?code=8867-4")
    clock.advance(60)
    await ada.get("Observation/nobody")
    return ada


async def test_a_person_sees_who_looked_at_the_own_record(log):
    answer = await log.get("AuditEvent")
    assert answer.status == 200, answer.body
    found = [(one["subtype"][0]["code"], one["action"], one["outcome"]) for one in answer.entries]
    assert found[:3] == [("read", "R", "4"), ("search-type", "E", "0"), ("read", "R", "0")]
    assert {one["resourceType"] for one in answer.entries} == {"AuditEvent"}
    for one in answer.entries:
        assert {"reference": "Patient/ada"} in [e["what"] for e in one["entity"] if "what" in e]


async def test_audit_events_are_valid_and_read_back(log):
    for one in (await log.get("AuditEvent?_count=3")).entries:
        read = await log.get(f"AuditEvent/{one['id']}")
        assert read.json == one
        issues = fhirkit.validate(read.body)
        assert not [str(issue) for issue in issues if issue.severity == "error"]


@pytest.mark.parametrize(
    ("query", "subtypes"),
    [
        ("action=R&date=ge2030-03-17T17:49:40Z", ["read"]),
        ("outcome=4", ["read"]),
        ("subtype=search-type&date=ge2030-03-17T17:48:40Z", ["search-type"]),
        ("date=lt2030-03-17T17:40:00Z", []),
        ("agent=Patient/kit", []),
    ],
)
async def test_the_log_is_searched(log, query, subtypes):
    answer = await log.get(f"AuditEvent?{query}")
    assert answer.status == 200, answer.body
    assert [one["subtype"][0]["code"] for one in answer.entries] == subtypes


async def test_the_log_is_paged(log):
    whole = [one for one in await log.everything("AuditEvent?date=lt2030-03-17T17:49:40Z") if one]
    paged = await log.everything("AuditEvent?_count=1&date=lt2030-03-17T17:49:40Z")
    assert paged == whole
    assert len(whole) == len(set(whole)) >= 4


async def test_a_record_has_only_its_own_lines(log, ehr):
    theirs = [one for one in (await ehr.get("AuditEvent?patient=kit")).entries if one]
    assert theirs
    for one in theirs:
        assert_outcome(await log.get(f"AuditEvent/{one['id']}"), 404, "not-found")
    assert (await log.get("AuditEvent?patient=kit")).entries == []


@pytest.mark.parametrize(
    "query",
    [
        "_sort=date",
        "_sort=agent",
        "_include=AuditEvent:patient",
        "_total=accurate",
        "_summary=count",
        "_count=0",
        "site=x",
        "favourite=x",
    ],
)
async def test_what_the_log_does_not_offer_is_refused(log, query):
    assert_outcome(await log.get(f"AuditEvent?{query}"), 400, "invalid")


async def test_the_log_is_neither_written_nor_versioned(log, ehr):
    one = (await log.get("AuditEvent?_count=1")).entries[0]
    for caller in (log, ehr):
        assert_outcome(await caller.put(one), 405, "not-supported")
        assert_outcome(await caller.post(one), 405, "not-supported")
        assert_outcome(await caller.delete(f"AuditEvent/{one['id']}"), 405, "not-supported")
        for path in ("_history", "_history/1"):
            answer = await caller.get(f"AuditEvent/{one['id']}/{path}")
            assert_outcome(answer, 405, "not-supported")


async def test_lines_are_found_by_id_without_reading_the_whole_log(log, ehr, monkeypatch):
    one, two = (await log.get("AuditEvent?_count=2")).ids
    theirs = (await ehr.get("AuditEvent?patient=kit")).ids[0]
    monkeypatch.setattr(audit_event, "_CHUNK", 1)
    monkeypatch.setattr(audit_event, "_CHUNKS", 3)
    asked = [text.partition("/")[2] for text in (one, two, theirs, "AuditEvent/nobody")]
    assert (await log.get(f"AuditEvent?_id={asked[0]}")).ids == [one]
    assert (await log.get(f"AuditEvent?_id={asked[2]}")).ids == []
    assert (await log.get(f"AuditEvent?_id={asked[3]}")).ids == []
