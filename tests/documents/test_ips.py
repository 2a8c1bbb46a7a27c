"""Patient summaries of real-looking records: valid FHIR documents, complete, the same each time."""

from __future__ import annotations

import json
from itertools import islice

import fhirkit
import pytest
from fhir.resources.R4B.bundle import Bundle

from fhir_portal.documents.ips import as_bundle
from fhir_portal.documents.summary import summary_of
from fhir_portal.fhir.json import parse
from fhir_portal.resources.validation import validate
from tests.charts import a_chart, synthea_charts
from tests.search.corpus import has_data

RECORDS = 31

needs_data = pytest.mark.skipif(not has_data(), reason="no sample data; set FHIR_PORTAL_TEST_DATA")


@needs_data
def test_every_sample_record_gives_a_valid_document() -> None:
    """Our own gate, the R4B models and fhirkit find nothing wrong in any of them."""
    count = 0
    for chart in islice(synthea_charts(), RECORDS):
        body = as_bundle(summary_of(chart))
        tree = parse(body)
        found = [str(one) for one in validate(tree, body) if one.severity in {"error", "fatal"}]
        assert found == []
        Bundle.model_validate_json(body)
        assert [str(one) for one in fhirkit.validate(body) if one.severity == "error"] == []
        count += 1
    assert count == RECORDS


def test_every_reference_of_the_composition_is_answered_inside() -> None:
    tree = json.loads(as_bundle(summary_of(a_chart())))
    held = {one["fullUrl"].rsplit("/fhir/")[-1] for one in tree["entry"]}
    composition = tree["entry"][0]["resource"]
    named = [e["reference"] for one in composition["section"] for e in one.get("entry", ())]
    assert {composition["subject"]["reference"], *named} <= held


def test_a_medicine_that_is_a_resource_of_its_own_comes_along() -> None:
    order = {
        "resourceType": "MedicationRequest",
        "id": "m",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/ada"},
        "medicationReference": {"reference": "Medication/salve"},
    }
    salve = {"resourceType": "Medication", "id": "salve", "code": {"text": "Salve"}}
    tree = json.loads(as_bundle(summary_of(a_chart(order, salve))))
    assert [one["resource"]["resourceType"] for one in tree["entry"]] == [
        *("Composition", "Patient", "MedicationRequest", "Medication")
    ]
    (section,) = [
        one for one in tree["entry"][0]["resource"]["section"] if one["title"] == "Medicines"
    ]
    assert "Salve" in section["text"]["div"]


def test_numbers_keep_the_digits_they_were_sent_with() -> None:
    observation = json.dumps(
        {
            "resourceType": "Observation",
            "id": "o",
            "status": "final",
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                            "code": "laboratory",
                        }
                    ]
                }
            ],
            "code": {"text": "Zinc"},
            "subject": {"reference": "Patient/ada"},
            "effectiveDateTime": "2029-01-01",
            "valueQuantity": {"value": 7},
        }
    ).replace('"value": 7', '"value": 7.10')
    chart = a_chart(parse(observation.encode()))
    body = as_bundle(summary_of(chart))
    assert b'"value":7.10' in body
    assert b"<td>7.10</td>" in body
