"""Which record a resource belongs to: one row per R4 type (DESIGN: the owner table).

The paths are subject-like only; never sender, author, recipient, performer, subscriber or payor,
so a parent who is a patient too does not own what they wrote or paid for their child. This is
stricter than the R4 Patient compartment.
A type without a row is invisible to ``patient/`` and ``user/`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.reference import Reference, ResourceKey


@dataclass(frozen=True, slots=True)
class Owned:
    """Owned by the Patients these element paths refer to."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OneSelf:
    """A Patient owns itself."""


@dataclass(frozen=True, slots=True)
class FromTargets:
    """Owned by whoever owns what these paths refer to; recomputed when that changes."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FromReferrers:
    """Owned by whoever owns the resources that point here (a Binary and its document)."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Nobody's record: seen when the practice lists it or something visible refers to it."""


OwnerRule = Owned | OneSelf | FromTargets | FromReferrers | Directory

_SUBJECT: Final = (
    "Account AdverseEvent Basic CarePlan CareTeam ChargeItem ClinicalImpression Communication "
    "CommunicationRequest Composition Condition Contract DeviceRequest DeviceUseStatement "
    "DiagnosticReport DocumentManifest DocumentReference Encounter Flag Goal GuidanceResponse "
    "ImagingStudy Invoice List MeasureReport Media MedicationAdministration MedicationDispense "
    "MedicationRequest MedicationStatement Observation Procedure QuestionnaireResponse "
    "RequestGroup RiskAssessment ServiceRequest Specimen"
)
_PATIENT: Final = (
    "AllergyIntolerance BodyStructure Claim ClaimResponse Consent CoverageEligibilityRequest "
    "CoverageEligibilityResponse DetectedIssue Device EpisodeOfCare ExplanationOfBenefit "
    "FamilyMemberHistory Immunization ImmunizationEvaluation ImmunizationRecommendation "
    "MolecularSequence NutritionOrder RelatedPerson SupplyDelivery VisionPrescription"
)

OWNERS: Final[Mapping[str, OwnerRule]] = {
    **{name: Owned(("subject",)) for name in _SUBJECT.split()},
    **{name: Owned(("patient",)) for name in _PATIENT.split()},
    "Appointment": Owned(("participant.actor",)),
    "AppointmentResponse": FromTargets(("appointment",)),
    "AuditEvent": Owned(("entity.what",)),
    "Binary": FromReferrers(),
    "Coverage": Owned(("beneficiary",)),
    "EnrollmentRequest": Owned(("candidate",)),
    "EnrollmentResponse": FromTargets(("request",)),
    "Patient": OneSelf(),
    "PaymentNotice": FromTargets(("request",)),
    "Provenance": FromTargets(("target",)),
    "ResearchSubject": Owned(("individual",)),
    "SupplyRequest": Owned(("deliverTo",)),
    "Task": Owned(("for",)),
    "Practitioner": Directory(),
    "PractitionerRole": Directory(),
    "Organization": Directory(),
    "Location": Directory(),
    "Medication": Directory(),
    "Questionnaire": Directory(),
}

WITHOUT_OWNER: Final = frozenset(served_types()) - OWNERS.keys()
"""Served types that no token but a ``system/`` one can see."""

DIRECTORY: Final = frozenset(t for t, rule in OWNERS.items() if isinstance(rule, Directory))
DERIVED: Final = frozenset(
    t for t, rule in OWNERS.items() if isinstance(rule, FromTargets | FromReferrers)
)
OF_STAFF: Final = frozenset(OWNERS) - {"AuditEvent"}
"""What a practice's staff can see: records and the directory; who looked at them is not theirs."""


def references_at(tree: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the reference texts at a dotted element path, lists walked through."""
    nodes: list[Any] = [tree]
    for name in path.split("."):
        found: list[Any] = []
        for node in nodes:
            value = node.get(name) if isinstance(node, Mapping) else None
            if isinstance(value, list):
                found.extend(value)
            elif value is not None:
                found.append(value)
        nodes = found
    for node in nodes:
        text = node.get("reference") if isinstance(node, Mapping) else None
        if isinstance(text, str):
            yield text


def local_target(text: str) -> ResourceKey | None:
    """The resource on this server that a reference means, its version cut; else ``None``."""
    return _known_target(text) if len(text) <= _LONGEST_KNOWN else _target(text)


_LONGEST_KNOWN: Final = 200
"""Longer ones are not kept: whoever writes could fill the memory with them."""


def _target(text: str) -> ResourceKey | None:
    try:
        return Reference.parse(text).key
    except Invalid:
        return None


# The text alone decides, and one transaction meets the same ones often.
_known_target = lru_cache(maxsize=4096)(_target)


def own_patients(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the Patients a resource names as its owners itself, sorted."""
    rule = OWNERS.get(tree["resourceType"])
    if isinstance(rule, OneSelf):
        return (tree["id"],)
    if not isinstance(rule, Owned):
        return ()
    targets = (local_target(t) for path in rule.paths for t in references_at(tree, path))
    return tuple(sorted({t.id for t in targets if t is not None and t.type == "Patient"}))
