"""The owner table against the definitions of R4: every served type has a rule, or is nobody's."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.access.owners import (
    DERIVED,
    OWNERS,
    WITHOUT_OWNER,
    Directory,
    FromReferrers,
    FromTargets,
    OneSelf,
    Owned,
    own_patients,
    references_at,
)
from fhir_portal.consent.sections import section_displays, types_in
from fhir_portal.fhir.definitions import patient_compartment, served_types, structures
from tests.builders import an_appointment, an_observation, reference, resource

NEVER_SUBJECT = {
    "author",
    "sender",
    "recipient",
    "performer",
    "subscriber",
    "payor",
    "policyHolder",
    "asserter",
    "recorder",
    "requester",
    "source",
    "informant",
    "enterer",
    "insurer",
    "provider",
    "agent",
}
NOBODYS = {
    *("ActivityDefinition", "BiologicallyDerivedProduct", "Bundle", "CapabilityStatement"),
    *("CatalogEntry", "ChargeItemDefinition", "CodeSystem", "CompartmentDefinition", "ConceptMap"),
    *("DeviceDefinition", "DeviceMetric", "Endpoint", "EventDefinition", "Evidence"),
    *("EvidenceVariable", "ExampleScenario", "GraphDefinition", "Group", "HealthcareService"),
    *("ImplementationGuide", "InsurancePlan", "Library", "Linkage", "Measure"),
    *("MedicationKnowledge", "MessageDefinition", "MessageHeader", "NamingSystem"),
    *("ObservationDefinition", "OperationDefinition", "OperationOutcome"),
    *("OrganizationAffiliation", "Parameters", "PaymentReconciliation", "Person"),
    *("PlanDefinition", "ResearchDefinition", "ResearchElementDefinition"),
    *("ResearchStudy", "Schedule", "SearchParameter", "Slot", "SpecimenDefinition"),
    *("StructureDefinition", "StructureMap", "Subscription", "Substance"),
    *("TerminologyCapabilities", "TestReport", "TestScript", "ValueSet", "VerificationResult"),
}
"""Definitions, what names many people, and what is the practice's own: seen by staff and EHRs."""
WITHOUT_SECTION = {
    "Provenance": "is where its targets are",
    "Binary": "is where the document is that it belongs to",
    "Basic": "may hold anything: for the person and staff only",
}


@pytest.mark.parametrize("name", served_types())
def test_every_type_has_an_owner_rule_or_is_knowingly_nobodys(name: str) -> None:
    assert (name in OWNERS) != (name in NOBODYS)


def test_types_without_a_rule_are_exactly_those_knowingly_nobodys() -> None:
    assert WITHOUT_OWNER == NOBODYS
    assert set(OWNERS) <= set(served_types())
    assert len(served_types()) == 128


def element_types(name: str, path: str) -> tuple[str, set[str]]:
    """Type and reference targets at a dotted path of a resource."""
    holder = name
    *parents, last = path.split(".")
    for step in parents:
        holder = structures()[holder][step].type
    element = structures()[holder][last]
    return element.type, set(element.targets)


@pytest.mark.parametrize("name", sorted(OWNERS))
def test_owner_paths_exist_and_are_references(name: str) -> None:
    rule = OWNERS[name]
    paths = rule.paths if isinstance(rule, Owned | FromTargets) else ()
    for path in paths:
        kind, targets = element_types(name, path)
        assert kind == "Reference", path
        if isinstance(rule, Owned):
            assert "Patient" in targets or not targets or "Resource" in targets, (path, targets)


@pytest.mark.parametrize("name", sorted(OWNERS))
def test_no_owner_path_is_somebody_who_only_took_part(name: str) -> None:
    rule = OWNERS[name]
    if isinstance(rule, Owned):
        assert not {step for path in rule.paths for step in path.split(".")} & NEVER_SUBJECT


@pytest.mark.parametrize("name", sorted(set(patient_compartment()) & set(OWNERS)))
def test_the_table_is_never_wider_than_the_patient_compartment(name: str) -> None:
    """Each type of the R4 compartment that a person sees is owned by a subject-like path."""
    assert not isinstance(OWNERS[name], Directory)


@pytest.mark.parametrize("name", sorted(OWNERS))
def test_every_owned_type_is_in_a_section_or_says_why_not(name: str) -> None:
    rule = OWNERS[name]
    in_sections = {
        section for section in section_displays() if name in types_in(frozenset({section}))
    }
    if isinstance(rule, Directory):
        assert not in_sections
    elif name in WITHOUT_SECTION:
        assert not in_sections, WITHOUT_SECTION[name]
    else:
        assert in_sections


def test_nothing_without_an_owner_is_in_a_section() -> None:
    assert not types_in(None) & WITHOUT_OWNER


def test_a_patient_owns_itself_whatever_it_links() -> None:
    tree = resource("Patient", "ada", link=[{"other": reference("Patient/bo"), "type": "seealso"}])
    assert own_patients(tree) == ("ada",)
    assert isinstance(OWNERS["Patient"], OneSelf)


@pytest.mark.parametrize(
    ("tree", "owners"),
    [
        (an_observation(of="ada"), ("ada",)),
        (an_observation(of="ada", performer="Patient/bo"), ("ada",)),
        (an_observation(subject=reference("Group/all")), ()),
        (an_observation(subject=reference("Patient/ada/_history/3")), ("ada",)),
        (an_observation(subject=reference("https://other.example/fhir/Patient/ada")), ()),
        (an_observation(subject=reference("urn:uuid:00000000-0000-0000-0000-000000000000")), ()),
        (an_observation(subject=reference("#ada")), ()),
        (an_observation(subject={"identifier": {"value": "ada"}}), ()),
        (an_observation(subject={"display": "Ada"}), ()),
        (an_observation(subject=reference("Patient/")), ()),
        (an_observation(subject=reference("Patient/ada?x=1")), ()),
        (an_appointment(of=["kit", "ada", "kit"]), ("ada", "kit")),
        (resource("Practitioner", "p"), ()),
        (resource("Person", "p", link=[{"target": reference("Patient/ada")}]), ()),
        (
            resource(
                "Coverage",
                "c",
                beneficiary=reference("Patient/kit"),
                subscriber=reference("Patient/ada"),
                payor=[reference("Patient/bo")],
            ),
            ("kit",),
        ),
        (
            resource(
                "Communication",
                "c",
                subject=reference("Patient/kit"),
                sender=reference("Patient/ada"),
                recipient=[reference("Patient/bo")],
            ),
            ("kit",),
        ),
        (resource("Communication", "c", sender=reference("Patient/ada")), ()),
        (
            resource(
                "QuestionnaireResponse",
                "q",
                subject=reference("Patient/kit"),
                author=reference("Patient/ada"),
                source=reference("Patient/ada"),
            ),
            ("kit",),
        ),
        (
            resource(
                "Task", "t", **{"for": reference("Patient/kit")}, owner=reference("Patient/ada")
            ),
            ("kit",),
        ),
        (
            resource(
                "Invoice", "i", subject=reference("Patient/kit"), recipient=reference("Patient/ada")
            ),
            ("kit",),
        ),
    ],
)
def test_owners_are_read_from_subject_like_paths_only(
    tree: dict[str, Any], owners: tuple[str, ...]
) -> None:
    assert own_patients(tree) == owners


def test_derived_types_own_nothing_by_themselves() -> None:
    assert {
        "AppointmentResponse",
        "Binary",
        "EnrollmentResponse",
        "PaymentNotice",
        "Provenance",
    } == DERIVED
    assert isinstance(OWNERS["Binary"], FromReferrers)
    binary = resource("Binary", "b", securityContext=reference("Patient/ada"))
    assert own_patients(binary) == ()


def test_paths_walk_through_lists_and_ignore_what_is_not_a_reference() -> None:
    tree = {"participant": [{"actor": reference("Patient/a")}, {"actor": "x"}, {}, "y", None]}
    assert list(references_at(tree, "participant.actor")) == ["Patient/a"]
    assert list(references_at(tree, "nothing.here")) == []
