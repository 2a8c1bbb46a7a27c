"""A record with something in every part of a document, and the Synthea records as charts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fhir_portal.documents.chart import CHART_TYPES, NAMED_TYPES, Chart, ordered
from fhir_portal.fhir import json as fhir_json
from tests.builders import (
    BASE,
    DIRECTORY,
    START,
    Json,
    a_condition,
    a_patient,
    an_encounter,
    an_observation,
    concept,
    reference,
    resource,
)
from tests.search.corpus import sample_records

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
RXNORM, CVX = "http://www.nlm.nih.gov/research/umls/rxnorm", "http://hl7.org/fhir/sid/cvx"
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
ALLERGY_CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
CONDITION_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"


def said(system: str, code: str, text: str) -> Json:
    return {"coding": [{"system": system, "code": code, "display": text}], "text": text}


def an_allergy(own_id: str = "nuts", *, of: str = "ada", **more: Any) -> Json:
    given: Json = {
        "clinicalStatus": concept(ALLERGY_CLINICAL, "active"),
        "criticality": "high",
        "code": said(SNOMED, "91935009", "Peanut"),
        "patient": reference(f"Patient/{of}"),
        "recordedDate": "2026-02-01",
        "reaction": [
            {"manifestation": [said(SNOMED, "247472004", "Hives")], "severity": "moderate"}
        ],
    }
    return resource("AllergyIntolerance", own_id, **given | more)


def a_prescription(own_id: str = "cream", *, of: str = "ada", **more: Any) -> Json:
    given: Json = {
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": said(RXNORM, "103403", "Hydrocortisone 10 MG/ML"),
        "subject": reference(f"Patient/{of}"),
        "authoredOn": "2029-01-10",
        "dosageInstruction": [{"text": "A thin layer twice a day"}],
    }
    return resource("MedicationRequest", own_id, **given | more)


def an_immunization(own_id: str = "flu", *, of: str = "ada", **more: Any) -> Json:
    given: Json = {
        "status": "completed",
        "vaccineCode": said(CVX, "140", "Influenza, preservative free"),
        "patient": reference(f"Patient/{of}"),
        "occurrenceDateTime": "2028-10-02",
    }
    return resource("Immunization", own_id, **given | more)


def a_procedure(own_id: str = "biopsy", *, of: str = "ada", **more: Any) -> Json:
    given: Json = {
        "status": "completed",
        "code": said(SNOMED, "240977001", "Biopsy of skin"),
        "subject": reference(f"Patient/{of}"),
        "performedDateTime": "2028-05-04",
    }
    return resource("Procedure", own_id, **given | more)


def a_record(of: str = "ada") -> list[Json]:
    """Something in every part; the Patient is not among it."""
    return [
        a_condition(
            "eczema",
            of=of,
            code="43116000",
            clinicalStatus=concept(CLINICAL, "active"),
            onsetDateTime="2025-03-01",
        )
        | {"code": said(SNOMED, "43116000", "Eczema")},
        a_condition(
            "flu-of-old",
            of=of,
            clinicalStatus=concept(CLINICAL, "resolved"),
            onsetDateTime="2020-01-01",
            abatementDateTime="2020-02-01",
        )
        | {"code": said(SNOMED, "6142004", "Influenza")},
        an_allergy(of=of),
        a_prescription(of=of),
        a_prescription("old-cream", of=of, status="stopped", authoredOn="2024-01-10"),
        an_immunization(of=of),
        a_procedure(of=of),
        an_observation("pulse", of=of, code="8867-4", value=72, on="2029-03-01"),
        an_observation("pulse-of-old", of=of, code="8867-4", value=66, on="2027-03-01"),
        an_observation(
            "sugar",
            of=of,
            category="laboratory",
            code="2339-0",
            value=95,
            on="2029-03-01",
            valueQuantity={
                "value": 95,
                "unit": "mg/dL",
                "system": "http://unitsofmeasure.org",
                "code": "mg/dL",
            },
            referenceRange=[{"low": {"value": 70, "unit": "mg/dL"}, "text": "70 to 99 mg/dL"}],
        ),
        an_observation(
            "smoking",
            of=of,
            category="social-history",
            code="72166-2",
            on="2029-03-01",
            valueQuantity=None,
            valueCodeableConcept=said(SNOMED, "266919005", "Never smoked tobacco"),
        ),
        an_encounter(
            "visit",
            of=of,
            type=[said(SNOMED, "185349003", "Check-up")],
            period={"start": "2029-03-01T09:00:00Z", "end": "2029-03-01T09:30:00Z"},
        ),
        resource(
            "Goal",
            "goal",
            lifecycleStatus="active",
            description={"text": "Sleep through the night"},
            subject=reference(f"Patient/{of}"),
            startDate="2029-03-01",
        ),
        resource(
            "CarePlan",
            "plan",
            status="active",
            intent="plan",
            title="Skin care",
            subject=reference(f"Patient/{of}"),
            period={"start": "2029-03-01"},
            activity=[
                {
                    "detail": {
                        "status": "scheduled",
                        "code": said(SNOMED, "225358003", "Wound care"),
                    }
                }
            ],
        ),
    ]


PRACTICE_ORGANIZATION = resource("Organization", "derm", name="Dermatology", meta=DIRECTORY)


def a_chart(*trees: Json, patient: Json | None = None, **more: Any) -> Chart:
    """A chart of some resources, as `a_record` gives them; parsed as the server parses."""
    found = [fhir_json.parse(fhir_json.dumps(tree)) for tree in trees or a_record()]
    by_type: dict[str, list[Json]] = {}
    for tree in found:
        by_type.setdefault(tree["resourceType"], []).append(tree)
    given: Json = {
        "base": BASE,
        "patient": patient or a_patient(gender="female"),
        "resources": {name: ordered(by_type[name]) for name in CHART_TYPES if name in by_type},
        "directory": {
            f"{name}/{tree['id']}": tree for name in NAMED_TYPES for tree in by_type.get(name, ())
        },
        "practice": "Dermatology",
        "zone": "America/Chicago",
        "organization": None,
        "made": START,
    }
    return Chart(**given | more)


def synthea_charts() -> Iterator[Chart]:
    """The records of the Synthea samples."""
    for trees in sample_records():
        (patient,) = [one for one in trees if one["resourceType"] == "Patient"]
        yield a_chart(*trees, patient=patient)


def inferno_charts() -> Iterator[Chart]:
    """The records of Inferno's US Core patients that have any conditions."""
    trees = [tree for line in sample_records("inferno") for tree in line]
    named = [one for one in trees if one["resourceType"] in NAMED_TYPES]
    for patient in trees:
        if patient["resourceType"] != "Patient":
            continue
        own = {"reference": f"Patient/{patient['id']}"}
        record = [one for one in trees if own in (one.get("subject"), one.get("patient"))]
        if any(one["resourceType"] == "Condition" for one in record):
            yield a_chart(*record, *named, patient=patient)
