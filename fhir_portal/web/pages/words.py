"""What scopes mean, in words for people who have never heard of FHIR."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fhir_portal.smart.offer import ConsentOffer
from fhir_portal.smart.scope import Scope

RESOURCE_WORDS: Final[Mapping[str, str]] = {
    "Account": "Billing accounts",
    "AllergyIntolerance": "Allergies and intolerances",
    "Appointment": "Appointments",
    "AppointmentResponse": "Answers to appointments",
    "AuditEvent": "Who looked at the record",
    "Binary": "Attached files",
    "CarePlan": "Care plans",
    "CareTeam": "Care team",
    "ChargeItem": "Charges",
    "Claim": "Insurance claims",
    "ClaimResponse": "Insurance decisions",
    "Communication": "Messages",
    "CommunicationRequest": "Requests for messages",
    "Composition": "Document outlines",
    "Condition": "Health problems and diagnoses",
    "Consent": "Permissions given",
    "Coverage": "Insurance",
    "Device": "Implants and devices",
    "DeviceRequest": "Orders for devices",
    "DeviceUseStatement": "Use of devices",
    "DiagnosticReport": "Laboratory and imaging reports",
    "DocumentReference": "Documents and visit notes",
    "Encounter": "Visits",
    "Endpoint": "Technical addresses",
    "EpisodeOfCare": "Courses of care",
    "ExplanationOfBenefit": "Insurance statements",
    "FamilyMemberHistory": "Family health history",
    "Flag": "Alerts",
    "Goal": "Health goals",
    "ImagingStudy": "Imaging studies",
    "Immunization": "Vaccinations",
    "ImmunizationRecommendation": "Recommended vaccinations",
    "Invoice": "Bills",
    "List": "Lists",
    "Location": "Places of care",
    "Media": "Photos and recordings",
    "Medication": "Details of medicines",
    "MedicationAdministration": "Medicines given",
    "MedicationDispense": "Medicines from the pharmacy",
    "MedicationRequest": "Prescriptions",
    "MedicationStatement": "Medicines taken",
    "NutritionOrder": "Nutrition orders",
    "Observation": "Test results, vital signs and other observations",
    "Organization": "Practices and organizations",
    "Patient": "Name, contact details and other personal details",
    "PaymentNotice": "Payments",
    "Person": "The person's account details",
    "Practitioner": "Doctors and staff",
    "PractitionerRole": "Roles of doctors and staff",
    "Procedure": "Procedures",
    "Provenance": "Where information came from",
    "Questionnaire": "Forms to fill in",
    "QuestionnaireResponse": "Filled-in forms",
    "RelatedPerson": "Family members and representatives",
    "RequestGroup": "Groups of orders",
    "RiskAssessment": "Risk assessments",
    "Schedule": "Opening times",
    "ServiceRequest": "Orders and referrals",
    "Slot": "Free appointment times",
    "Specimen": "Samples",
    "SupplyDelivery": "Deliveries of supplies",
    "SupplyRequest": "Orders for supplies",
    "Task": "Tasks and reminders",
    "VisionPrescription": "Prescriptions for glasses and lenses",
}

_CATEGORY_WORDS: Final[Mapping[str, str]] = {
    "encounter-diagnosis": "Diagnoses made at visits",
    "problem-list-item": "Problem list",
    "health-concern": "Health concerns",
    "procedure": "Clinical tests",
    "laboratory": "Laboratory results",
    "social-history": "Social history",
    "sdoh": "Living conditions (social determinants of health)",
    "survey": "Questionnaire results and assessments",
    "vital-signs": "Vital signs",
    "clinical-note": "Clinical notes",
    "imaging": "Imaging",
    "exam": "Examinations",
    "therapy": "Therapy",
    "activity": "Activity",
}

IDENTITY_WORDS: Final[Mapping[str, str]] = {
    "openid": "Know that it is you, each time you sign in",
    "fhirUser": "Know which person in the practice's records you are",
    "launch/patient": "Know whose record you chose",
    "offline_access": "Stay connected when you are not using the app",
}

_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class ScopeWords:
    """One line on the consent page: the checkbox's value, and what it means."""

    value: str
    title: str
    may: str
    children: tuple[ScopeWords, ...] = ()


def offer_words(offer: ConsentOffer) -> list[ScopeWords]:
    """Put the resource scopes of an offer into words."""
    return [
        ScopeWords(
            str(offered.scope),
            _title(offered.scope),
            may_words(offered.scope.letters),
            tuple(
                ScopeWords(str(child), _title(child), may_words(child.letters))
                for child in offered.children
            ),
        )
        for offered in offer.scopes
    ]


def may_words(letters: str) -> str:
    """What the letters allow: ``rs`` is "see", ``cruds`` "see, add, change and delete"."""
    verbs = [
        verb
        for verb, which in (("see", "rs"), ("add", "c"), ("change", "u"), ("delete", "d"))
        if set(which) & set(letters)
    ]
    return verbs[0] if len(verbs) == 1 else f"{', '.join(verbs[:-1])} and {verbs[-1]}"


def day(at: float) -> str:
    """A day in plain words, by UTC."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%B %Y}"


def duration(seconds: float) -> str:
    """A length of time in the unit people would use."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            number = round(seconds / size)
            return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
    return "less than a minute"


def _title(scope: Scope) -> str:
    words = RESOURCE_WORDS.get(scope.resource_type)
    if words is None:
        words = _CAPITAL.sub(" ", scope.resource_type).capitalize()
    if not scope.query:
        return words
    name, _, value = scope.query.partition("=")
    code = value.rpartition("|")[2]
    if name == "category" and code in _CATEGORY_WORDS:
        return _CATEGORY_WORDS[code]
    return f"{words}, only where {scope.query}"
