"""Over HTTP: what a labelled visit drags along is in no answer from the moment of the write on."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fhir_portal.notify import jobs
from fhir_portal.operations import settling_jobs as module
from fhir_portal.operations.settling_jobs import settle_step, settling_jobs
from fhir_portal.resources import passing_on, settling
from tests.builders import RESTRICTED, WITHHELD
from tests.web.fhir_world import FhirWorld, entry, ids, observation, transaction

VISIT = {
    "resourceType": "Encounter",
    "id": "visit",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": {"reference": "Patient/anna"},
}
THERE = [f"o{n}" for n in range(8)]


@pytest.fixture
async def visited(
    fhir: FhirWorld, as_ehr: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> httpx.AsyncClient:
    monkeypatch.setattr(passing_on, "MOST", 4)
    monkeypatch.setattr(settling, "PIECE", 3)
    monkeypatch.setattr(module, "SHOWN_IN_A_STEP", 1)
    fhir.clock.advance(1)
    assert (await as_ehr.put("/fhir/Encounter/visit", json=VISIT)).status_code == 201
    for own_id in THERE:
        tree = observation(own_id, encounter={"reference": "Encounter/visit"})
        assert (await as_ehr.put(f"/fhir/Observation/{own_id}", json=tree)).status_code == 201
    await as_ehr.put("/fhir/Observation/open", json=observation("open"))
    return as_ehr


async def _shown(client: httpx.AsyncClient) -> set[str]:
    """Return what a patient is told of in any way that they may ask."""
    found: set[str] = set()
    for own_id in THERE:
        for path in ("", "/_history", "/_history/1"):
            status = (await client.get(f"/fhir/Observation/{own_id}{path}")).status_code
            found |= {own_id} if status == 200 else set()
    bundle = (await client.get("/fhir/Observation?_count=50&_total=accurate")).json()
    found |= {key.partition("/")[2] for key in ids(bundle)}
    assert bundle["total"] == len(ids(bundle))
    count = (await client.get("/fhir/Observation?_summary=count")).json()["total"]
    assert count == bundle["total"]
    for path in (
        "/fhir/Observation?_include=Observation:encounter&_count=50",
        "/fhir/Encounter?_revinclude=Observation:encounter",
        "/fhir/Patient?_revinclude=Observation:subject",
        "/fhir/_history?_count=50",
        "/fhir/Patient/anna/$everything?_count=50",
        "/fhir/Patient/anna/$portal-dashboard",
    ):
        body = (await client.get(path)).text
        found |= {own_id for own_id in [*THERE, "visit"] if f'"id":"{own_id}"' in body}
        found |= {"visit"} if "Encounter/visit" in body else set()
    batch = transaction(*(entry("GET", f"Observation/{o}") for o in THERE), kind="batch")
    answers = (await client.post("/fhir", json=batch)).json()["entry"]
    found |= {
        own_id
        for own_id, one in zip(THERE, answers, strict=True)
        if one["response"]["status"].startswith("200")
    }
    return found


async def test_a_patient_is_told_of_nothing_until_it_is_worked_out(
    fhir: FhirWorld, visited: httpx.AsyncClient, as_patient: httpx.AsyncClient
) -> None:
    assert await _shown(as_patient) == {*THERE, "open", "visit"}
    written = await visited.put("/fhir/Encounter/visit", json={**VISIT, "meta": WITHHELD})
    assert written.status_code == 200, written.text
    while True:
        assert await _shown(as_patient) == {"open"}
        if not await fhir.store.transact(lambda t: settle_step(t, "derm")):
            break
    opened = {**VISIT, "meta": {"tag": [{"system": "https://tags.example", "code": "open"}]}}
    assert (await visited.put("/fhir/Encounter/visit", json=opened)).status_code == 200
    assert await _shown(as_patient) == {"open"}
    known: Any = settling_jobs(fhir.portal.server)
    await jobs.work_off(fhir.store, known, worker="w", clock=fhir.clock)
    assert await _shown(as_patient) == {*THERE, "open", "visit"}


async def test_a_hidden_target_is_answered_as_one_that_is_not_there(
    visited: httpx.AsyncClient, as_patient: httpx.AsyncClient
) -> None:
    """What a patient writes meanwhile does not tell the two apart."""
    await visited.put("/fhir/Encounter/visit", json={**VISIT, "meta": RESTRICTED})
    answers = []
    for target in ("Observation/o1", "Observation/none"):
        tree = {
            "resourceType": "QuestionnaireResponse",
            "status": "completed",
            "subject": {"reference": "Patient/anna"},
            "source": {"reference": "Patient/anna"},
            "item": [{"linkId": "a", "answer": [{"valueReference": {"reference": target}}]}],
        }
        answer = await as_patient.post("/fhir/QuestionnaireResponse", json=tree)
        answers.append((answer.status_code, answer.text.replace(target, "it")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 422
