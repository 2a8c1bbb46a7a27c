"""Codes the demo charts use, each with the words its code system gives it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Json = dict[str, Any]

TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
LOINC: Final = "http://loinc.org"
SNOMED: Final = "http://snomed.info/sct"
RXNORM: Final = "http://www.nlm.nih.gov/research/umls/rxnorm"
CVX: Final = "http://hl7.org/fhir/sid/cvx"
ICD_10: Final = "http://hl7.org/fhir/sid/icd-10-cm"
UCUM: Final = "http://unitsofmeasure.org"
ACT_CODE: Final = f"{TERMINOLOGY}/v3-ActCode"
ROLE_CODE: Final = f"{TERMINOLOGY}/v3-RoleCode"
CATEGORY: Final = f"{TERMINOLOGY}/observation-category"


class Code(NamedTuple):
    """A code of a code system."""

    system: str
    code: str
    display: str


class Test(NamedTuple):
    """Something measured: its code, unit, reference range and usual value.

    ``digits`` are those the value is written with; ``spread`` how far it strays from ``usual``.
    """

    code: str
    name: str
    unit: str
    low: float | None
    high: float | None
    usual: float
    spread: float
    digits: int = 0


def coding(code: Code) -> Json:
    """A Coding."""
    return {"system": code.system, "code": code.code, "display": code.display}


def concept(*codes: Code, text: str | None = None) -> Json:
    """A CodeableConcept: codes that mean the same, and the words for people."""
    found: Json = {"coding": [coding(code) for code in codes]} if codes else {}
    words = text or (codes[0].display if codes else None)
    return found | ({"text": words} if words else {})


OFFICE_STAFF: Final = Code(SNOMED, "224608005", "Administrative healthcare staff")
AMBULATORY: Final = Code(ACT_CODE, "AMB", "ambulatory")
CHECK_UP: Final = Code(SNOMED, "185349003", "Encounter for check up")
FOLLOW_UP: Final = Code(SNOMED, "390906007", "Follow-up encounter")
FOR_SYMPTOM: Final = Code(SNOMED, "185345009", "Encounter for symptom")

RESTRICTED: Final = Code(f"{TERMINOLOGY}/v3-Confidentiality", "R", "restricted")
PSYCHIATRY: Final = Code(ACT_CODE, "PSY", "psychiatry disorder information sensitivity")

LABORATORY: Final = Code(CATEGORY, "laboratory", "Laboratory")
VITAL_SIGNS: Final = Code(CATEGORY, "vital-signs", "Vital Signs")
SOCIAL_HISTORY: Final = Code(CATEGORY, "social-history", "Social History")
SURVEY: Final = Code(CATEGORY, "survey", "Survey")
LAB_REPORT: Final = Code(f"{TERMINOLOGY}/v2-0074", "LAB", "Laboratory")
PATHOLOGY_REPORT: Final = Code(
    f"{TERMINOLOGY}/v2-0074", "PAT", "Pathology (gross & histopath, not surgical)"
)
CLINICAL_NOTE: Final = Code(
    "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
    "clinical-note",
    "Clinical Note",
)
PROGRESS_NOTE: Final = Code(LOINC, "11506-3", "Progress note")
LETTER: Final = Code(LOINC, "51852-2", "Letter")
SHARING_FORM: Final = Code(LOINC, "64292-6", "Release of information consent")

VITALS: Final = (
    Test("8867-4", "Heart rate", "/min", 50, 100, 70, 12),
    Test("9279-1", "Respiratory rate", "/min", 12, 20, 15, 3),
    Test("8310-5", "Body temperature", "Cel", 36.1, 37.8, 36.8, 0.5, 1),
    Test("2708-6", "Oxygen saturation in Arterial blood", "%", 94, 100, 98, 1.4),
    Test("29463-7", "Body weight", "kg", None, None, 67.5, 2.5, 1),
    Test("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", 18.5, 25, 23.9, 0.9, 1),
)
HEIGHT: Final = Test("8302-2", "Body height", "cm", None, None, 168, 0)
BLOOD_PRESSURE: Final = Code(LOINC, "85354-9", "Blood pressure panel with all children optional")
PRESSURES: Final = (
    Test("8480-6", "Systolic blood pressure", "mm[Hg]", 90, 130, 118, 12),
    Test("8462-4", "Diastolic blood pressure", "mm[Hg]", 60, 85, 75, 8),
)
CHILD_VITALS: Final = (
    Test("8867-4", "Heart rate", "/min", 70, 110, 92, 10),
    Test("9279-1", "Respiratory rate", "/min", 18, 25, 20, 3),
    VITALS[2],
    VITALS[3],
    Test("29463-7", "Body weight", "kg", None, None, 27.4, 0.8, 1),
    Test("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", 13.5, 18.5, 16.1, 0.4, 1),
)
CHILD_PRESSURES: Final = (
    Test("8480-6", "Systolic blood pressure", "mm[Hg]", 85, 112, 99, 6),
    Test("8462-4", "Diastolic blood pressure", "mm[Hg]", 50, 74, 62, 5),
)

BLOOD_COUNT: Final = Code(LOINC, "58410-2", "CBC panel - Blood by Automated count")
BLOOD_COUNTS: Final = (
    Test(
        "6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL", 4, 11, 6.6, 1.8, 1
    ),
    Test(
        "789-8",
        "Erythrocytes [#/volume] in Blood by Automated count",
        "10*6/uL",
        3.9,
        5.2,
        4.4,
        0.3,
        2,
    ),
    Test("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 12, 15.5, 12.2, 1.4, 1),
    Test(
        "4544-3",
        "Hematocrit [Volume Fraction] of Blood by Automated count",
        "%",
        36,
        46,
        37.8,
        3,
        1,
    ),
    Test("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL", 150, 400, 268, 60),
)
METABOLIC: Final = Code(LOINC, "24323-8", "Comprehensive metabolic 2000 panel - Serum or Plasma")
METABOLIC_TESTS: Final = (
    Test("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 70, 99, 90, 14),
    Test("3094-0", "Urea nitrogen [Mass/volume] in Serum or Plasma", "mg/dL", 7, 20, 13, 4),
    Test("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0.5, 1.1, 0.8, 0.15, 2),
    Test("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", 135, 145, 140, 3),
    Test("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", 3.5, 5.1, 4.2, 0.4, 1),
    Test(
        "1742-6",
        "Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma",
        "U/L",
        7,
        35,
        22,
        9,
    ),
    Test(
        "1920-8",
        "Aspartate aminotransferase [Enzymatic activity/volume] in Serum or Plasma",
        "U/L",
        8,
        33,
        21,
        7,
    ),
)
LIPIDS: Final = Code(LOINC, "24331-1", "Lipid 1996 panel - Serum or Plasma")
LIPID_TESTS: Final = (
    Test("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL", None, 200, 192, 20),
    Test("2571-8", "Triglyceride [Mass/volume] in Serum or Plasma", "mg/dL", None, 150, 110, 35),
    Test("2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma", "mg/dL", 50, None, 56, 7),
    Test(
        "13457-7",
        "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation",
        "mg/dL",
        None,
        130,
        112,
        18,
    ),
)
A1C: Final = Test("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", 4, 5.6, 5.3, 0.3, 1)
TSH: Final = Test(
    "3016-3", "Thyrotropin [Units/volume] in Serum or Plasma", "m[IU]/L", 0.4, 4, 3.4, 1.9, 2
)
FERRITIN: Final = Test(
    "2276-4", "Ferritin [Mass/volume] in Serum or Plasma", "ng/mL", 15, 150, 24, 14
)
