"""A fault of ours: an OperationOutcome that says nothing, and a log line that says no more."""

from __future__ import annotations

import pytest
import structlog

from fhir_portal.resources import catalog
from tests.web.fhir_world import EHR, FhirWorld, assert_outcome

SECRET = "secret-of-a-patient"


@pytest.fixture
def broken(monkeypatch):
    async def fails(*_):
        secret = SECRET
        raise RuntimeError(f"inside {secret}")

    for code in ("read", "create"):
        monkeypatch.setitem(catalog.INTERACTIONS, code, fails)


@pytest.mark.usefixtures("broken")
async def test_a_fault_of_ours_is_500_and_shows_nothing(as_ehr):
    for response in (
        await as_ehr.get("/fhir/Patient/anna"),
        await as_ehr.post("/fhir/Patient", json={"resourceType": "Patient", "x": SECRET}),
    ):
        assert_outcome(response, 500, "exception")
        assert SECRET not in response.text
        assert "RuntimeError" not in response.text


@pytest.mark.usefixtures("broken")
async def test_the_log_line_of_a_fault_holds_no_data(as_ehr, capfd):
    with structlog.testing.capture_logs() as lines:
        await as_ehr.post(f"/fhir/Patient?_format=json&x={SECRET}", json={"x": SECRET})
        await as_ehr.get("/fhir/Patient/anna")
    assert lines
    assert any(line.get("error") == "RuntimeError" for line in lines)
    written = repr(lines) + capfd.readouterr().out + capfd.readouterr().err
    assert SECRET not in written
    assert EHR not in written


@pytest.mark.usefixtures("broken")
async def test_a_fault_of_ours_is_in_the_access_log(fhir: FhirWorld, as_ehr):
    await as_ehr.get("/fhir/Patient/anna")
    rows = await fhir.store.log.of_record(
        "derm", None, agent=None, told=False, low=0, high=2**60, before=None, limit=5
    )
    assert [row.row.status for row in rows if row.row.status >= 500] == [500]
