from __future__ import annotations

import re
from typing import Any

import pytest

from fhir_portal.fhir import definitions

# Types that are in no portal section, each for its reason.
FOLLOW_WHAT_THEY_BELONG_TO = {"Binary", "Provenance"}
MAY_HOLD_ANYTHING = {"Basic", "Bundle", "Linkage", "Parameters", "VerificationResult"}
NAME_MANY_PEOPLE = {"Group", "PaymentReconciliation", "Person"}
OF_THE_PRACTICE = {
    *("BiologicallyDerivedProduct", "CatalogEntry", "DeviceMetric", "Endpoint"),
    *("HealthcareService", "InsurancePlan", "Location", "Medication", "MedicationKnowledge"),
    *("Organization", "OrganizationAffiliation", "Practitioner", "PractitionerRole"),
    *("ResearchStudy", "Schedule", "Slot", "Substance"),
}
DEFINITIONS_AND_TECHNICAL = {
    *("ActivityDefinition", "CapabilityStatement", "ChargeItemDefinition", "CodeSystem"),
    *("CompartmentDefinition", "ConceptMap", "DeviceDefinition", "EventDefinition", "Evidence"),
    *("EvidenceVariable", "ExampleScenario", "GraphDefinition", "ImplementationGuide", "Library"),
    *("Measure", "MessageDefinition", "MessageHeader", "NamingSystem", "ObservationDefinition"),
    *("OperationDefinition", "OperationOutcome", "PlanDefinition", "Questionnaire"),
    *("ResearchDefinition", "ResearchElementDefinition", "SearchParameter", "SpecimenDefinition"),
    *("StructureDefinition", "StructureMap", "Subscription", "TerminologyCapabilities"),
    *("TestReport", "TestScript", "ValueSet"),
}

FILTER = re.compile(r"([A-Z][A-Za-z]+)(?:\?(?:category|code)(:not)?=(\S+))?")
TOKEN = re.compile(r"(https?://[^\s|,]+)\|([a-z-]+)")

Filter = tuple[str, bool, frozenset[tuple[str, str]]]


def sections() -> dict[str, list[str]]:
    table = definitions.ig_resource("CodeSystem", "portal-section")
    return {
        concept["code"]: [
            each["valueString"] for each in concept.get("property", ()) if each["code"] == "filter"
        ]
        for concept in table["concept"]
    }


def parsed(text: str) -> Filter:
    match = FILTER.fullmatch(text)
    assert match, text
    resource_type, negated, tokens = match.groups()
    found = set()
    for token in tokens.split(",") if tokens else ():
        split = TOKEN.fullmatch(token)
        assert split, text
        found.add((split[1], split[2]))
    return resource_type, bool(negated), frozenset(found)


def rows() -> list[tuple[str, Filter]]:
    return [(code, parsed(text)) for code, filters in sections().items() for text in filters]


def section_of(resource_type: str, *categories: str) -> set[str]:
    """The section table read naively: which sections hold a resource with these categories.

    Of a Task they are its codes.
    """
    held = {tuple(category.split("|")) for category in categories}
    return {
        code
        for code, (of_type, negated, tokens) in rows()
        if of_type == resource_type and (not tokens or bool(held & tokens) is not negated)
    }


def test_the_sections_are_the_ones_the_portal_knows() -> None:
    assert list(sections()) == [
        *("demographics", "insurance", "appointments", "messages", "documents", "forms"),
        *("results", "medications", "immunizations", "health-summary", "visits", "billing"),
        "sharing",
    ]


def test_every_section_has_plain_words_and_a_filter() -> None:
    table = definitions.ig_resource("CodeSystem", "portal-section")
    for concept in table["concept"]:
        assert concept["display"]
        assert concept["definition"].endswith(".")
        assert sections()[concept["code"]], concept["code"]
        assert "FHIR" not in concept["definition"]
    (declared,) = table["property"]
    assert (declared["code"], declared["type"]) == ("filter", "string")


def test_every_filter_parses_and_names_a_served_type_with_a_category() -> None:
    for code, (resource_type, _, tokens) in rows():
        assert resource_type in definitions.served_types(), code
        if tokens:
            element = "code" if resource_type == "Task" else "category"
            assert element in definitions.structures()[resource_type], code
            assert definitions.search_parameters()[resource_type][element].type == "token"


def test_a_type_in_two_sections_has_filters_that_do_not_overlap() -> None:
    by_type: dict[str, list[Filter]] = {}
    for _, row in rows():
        by_type.setdefault(row[0], []).append(row)
    for resource_type, filters in by_type.items():
        if len(filters) == 1:
            continue
        assert all(tokens for _, _, tokens in filters), f"{resource_type} has a row for everything"
        listed = [token for _, negated, tokens in filters if not negated for token in tokens]
        assert len(listed) == len(set(listed)), resource_type
        for _, negated, tokens in filters:
            assert not negated or tokens == set(listed), resource_type


def test_every_served_type_is_in_a_section_or_left_out_for_a_reason() -> None:
    left_out = [
        FOLLOW_WHAT_THEY_BELONG_TO,
        MAY_HOLD_ANYTHING,
        NAME_MANY_PEOPLE,
        OF_THE_PRACTICE,
        DEFINITIONS_AND_TECHNICAL,
    ]
    in_a_section = {resource_type for _, (resource_type, _, _) in rows()}
    every = sorted([*in_a_section, *(name for reason in left_out for name in reason)])
    assert every == sorted(definitions.served_types())  # each of them once


def test_what_is_in_the_patient_compartment_is_in_a_section() -> None:
    in_a_section = {resource_type for _, (resource_type, _, _) in rows()}
    assert set(definitions.patient_compartment()) - in_a_section == {
        *("Basic", "Group", "Person", "Provenance", "Schedule")
    }


OBSERVATION = "http://terminology.hl7.org/CodeSystem/observation-category"
US_CORE = "http://hl7.org/fhir/us/core/CodeSystem/us-core-category"
PORTAL_TASK = "https://fhir-portal.example/ig/CodeSystem/portal-task"
CARD = "https://fhir-portal.example/ig/CodeSystem/portal-document|insurance-card"
NOTE = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category|clinical-note"


@pytest.mark.parametrize(
    ("resource_type", "categories", "expected"),
    [
        ("Observation", [f"{OBSERVATION}|laboratory"], {"results"}),
        ("Observation", [f"{OBSERVATION}|vital-signs"], {"results"}),
        ("Observation", [f"{OBSERVATION}|social-history"], {"health-summary"}),
        ("Observation", [f"{OBSERVATION}|survey", f"{US_CORE}|sdoh"], {"health-summary"}),
        (
            "Observation",
            [f"{OBSERVATION}|exam", f"{US_CORE}|functional-status"],
            {"results", "health-summary"},
        ),
        ("Observation", [], set()),
        ("Observation", ["https://practice.example/categories|own"], set()),
        ("Observation", [f"{US_CORE}|laboratory"], set()),
        ("DocumentReference", [NOTE], {"visits"}),
        ("DocumentReference", [NOTE, "https://practice.example/categories|own"], {"visits"}),
        ("DocumentReference", ["https://practice.example/categories|own"], {"documents"}),
        ("DocumentReference", [], {"documents"}),
        ("Condition", [], {"health-summary"}),
        ("DocumentReference", [CARD], {"insurance"}),
        ("DocumentReference", [CARD, NOTE], {"insurance", "visits"}),
        ("Task", [], {"forms"}),
        ("Task", ["https://practice.example/codes|own"], {"forms"}),
        ("Task", [f"{PORTAL_TASK}|refill-request"], {"forms"}),
        ("Task", [f"{PORTAL_TASK}|propose-demographics"], {"demographics"}),
        ("Task", [f"{PORTAL_TASK}|propose-insurance"], {"insurance"}),
        ("Task", [f"{PORTAL_TASK}|propose-medications"], {"medications"}),
        ("Task", [f"{PORTAL_TASK}|bill-dispute"], {"billing"}),
        ("Task", [f"{PORTAL_TASK}|payment-plan"], {"billing"}),
        ("Consent", [], {"sharing"}),
        ("Provenance", [], set()),
        ("Binary", [], set()),
    ],
)
def test_a_resource_is_in_the_section_of_its_category(
    resource_type: str, categories: list[str], expected: set[str]
) -> None:
    assert section_of(resource_type, *categories) == expected


def test_every_us_core_observation_category_has_a_section() -> None:
    known: list[Any] = [
        *("social-history", "vital-signs", "imaging", "laboratory", "procedure", "survey"),
        *("exam", "therapy", "activity"),
    ]
    assert all(len(section_of("Observation", f"{OBSERVATION}|{code}")) == 1 for code in known)
    us_core = [
        *("sdoh", "functional-status", "disability-status", "cognitive-status"),
        *("treatment-intervention-preference", "care-experience-preference"),
        "observation-adi-documentation",
    ]
    assert all(
        section_of("Observation", f"{US_CORE}|{code}") == {"health-summary"} for code in us_core
    )
