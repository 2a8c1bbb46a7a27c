"""What scopes mean, in words for people who have never heard of FHIR."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from fhir_portal.consent.sections import section_displays, types_in
from fhir_portal.smart.authorization import Visit
from fhir_portal.smart.narrowing import PERIOD_PARAMETERS
from fhir_portal.smart.offer import ConsentOffer
from fhir_portal.smart.scope import Scope

RESOURCE_WORDS: Final[Mapping[str, str]] = {
    "Account": "Billing accounts",
    "AdverseEvent": "Harm from treatment",
    "AllergyIntolerance": "Allergies and intolerances",
    "Appointment": "Appointments",
    "AppointmentResponse": "Answers to appointments",
    "AuditEvent": "Who looked at the record",
    "Basic": "Information of other kinds",
    "Binary": "Attached files",
    "BodyStructure": "Places on the body",
    "CarePlan": "Care plans",
    "CareTeam": "Care team",
    "ChargeItem": "Charges",
    "Claim": "Insurance claims",
    "ClaimResponse": "Insurance decisions",
    "ClinicalImpression": "Assessments",
    "Communication": "Messages",
    "CommunicationRequest": "Requests for messages",
    "Composition": "Document outlines",
    "Condition": "Health problems and diagnoses",
    "Consent": "Permissions given",
    "Contract": "Agreements",
    "Coverage": "Insurance cards and coverage",
    "CoverageEligibilityRequest": "Questions to the insurer",
    "CoverageEligibilityResponse": "Answers of the insurer",
    "DetectedIssue": "Warnings about treatment",
    "Device": "Implants and devices",
    "DeviceRequest": "Orders for devices",
    "DeviceUseStatement": "Use of devices",
    "DiagnosticReport": "Laboratory and imaging reports",
    "DocumentManifest": "Sets of documents",
    "DocumentReference": "Documents and visit notes",
    "Encounter": "Visits",
    "EnrollmentRequest": "Enrollments asked for",
    "EnrollmentResponse": "Enrollments",
    "EpisodeOfCare": "Courses of care",
    "ExplanationOfBenefit": "Insurance statements",
    "FamilyMemberHistory": "Family health history",
    "Flag": "Alerts",
    "Goal": "Health goals",
    "GuidanceResponse": "Computed advice",
    "ImagingStudy": "Imaging studies",
    "Immunization": "Vaccinations",
    "ImmunizationEvaluation": "Checks of vaccinations",
    "ImmunizationRecommendation": "Recommended vaccinations",
    "Invoice": "Bills",
    "List": "Lists",
    "Location": "Places of care",
    "MeasureReport": "Quality reports",
    "Media": "Photos and recordings",
    "Medication": "Details of medicines",
    "MedicationAdministration": "Medicines given",
    "MedicationDispense": "Medicines from the pharmacy",
    "MedicationRequest": "Prescriptions",
    "MedicationStatement": "Medicines taken",
    "MolecularSequence": "Genetic sequences",
    "NutritionOrder": "Nutrition orders",
    "Observation": "Test results, vital signs and other observations",
    "Organization": "Practices and organizations",
    "Patient": "Name, contact details and other personal details",
    "PaymentNotice": "Payments",
    "Practitioner": "Doctors and staff",
    "PractitionerRole": "Roles of doctors and staff",
    "Procedure": "Procedures",
    "Provenance": "Where information came from",
    "QuestionnaireResponse": "Filled-in forms",
    "RelatedPerson": "Family members and representatives",
    "RequestGroup": "Groups of orders",
    "ResearchSubject": "Taking part in studies",
    "RiskAssessment": "Risk assessments",
    "ServiceRequest": "Orders and referrals",
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
    "launch": "Know where you opened it from",
    "launch/patient": "Know whose record you chose",
    "launch/encounter": "Know which visit it is about",
    "offline_access": "Stay connected when you are not using the app",
}

_JUST_NOW: Final = 120
_YEARS: Final = range(1800, 9000)
"""An app may ask for any; a day at the end of the calendar has none before it."""
_BOUND: Final = re.compile(
    r"(?P<name>[a-z-]+)=(?P<how>ge|lt)"
    r"(?P<at>[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?)"
)
_NO_SECTION: Final = "Practices, staff and more"
_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class ScopeWords:
    """One line on the consent page: the checkbox's value, and what it means."""

    value: str
    title: str
    may: str
    children: tuple[ScopeWords, ...] = ()


@dataclass(frozen=True, slots=True)
class SectionWords:
    """The lines of one portal section: what belongs together on the sharing page, too."""

    title: str
    scopes: tuple[ScopeWords, ...]


def offer_words(offer: ConsentOffer) -> list[SectionWords]:
    """Put the resource scopes of an offer into words, section by section."""
    lines: dict[str, list[ScopeWords]] = {title: [] for title in _sections()}
    for offered in offer.scopes:
        line = ScopeWords(
            str(offered.scope),
            _title(offered.scope),
            may_words(offered.scope.letters),
            tuple(
                ScopeWords(str(child), _title(child), may_words(child.letters))
                for child in offered.children
            ),
        )
        lines[_section_of(offered.scope.resource_type)].append(line)
    return [SectionWords(title, tuple(found)) for title, found in lines.items() if found]


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


def moment(at: float) -> str:
    """A day and a time in plain words, by UTC."""
    found = datetime.fromtimestamp(at, UTC)
    return f"{day(at)}, {found:%H:%M} UTC"


def visit_words(visit: Visit) -> str:
    """A visit in a picker: its day, and what it was."""
    try:
        found = date.fromisoformat(visit.day)
        when = f"{found.day} {found:%B %Y}"
    except ValueError:  # a year or a month: FHIR dates may say no more
        when = visit.day or "Day not recorded"
    return f"{when}: {visit.what}" if visit.what else when


def ago(seconds: float) -> str:
    """How long ago something was, in the unit people would use."""
    return "just now" if seconds < _JUST_NOW else f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """A length of time in the unit people would use."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            number = round(seconds / size)
            return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
    return "less than a minute"


@functools.cache
def _sections() -> Mapping[str, frozenset[str]]:
    """Section title to resource types; the last one takes what is in no section."""
    sections = {title: types_in(frozenset({code})) for code, title in section_displays().items()}
    return {**sections, _NO_SECTION: frozenset()}


def _section_of(resource_type: str) -> str:
    return next((t for t, types in _sections().items() if resource_type in types), _NO_SECTION)


def type_words(resource_type: str) -> str:
    """What a resource type is called."""
    words = RESOURCE_WORDS.get(resource_type)
    return words or _CAPITAL.sub(" ", resource_type).capitalize()


def _title(scope: Scope) -> str:
    words = type_words(scope.resource_type)
    if not scope.query:
        return words
    period, rest = _period(scope)
    name, _, value = rest[0].partition("=") if rest else ("", "", "")
    code = value.rpartition("|")[2]
    if name == "category" and code in _CATEGORY_WORDS:
        words, rest = _CATEGORY_WORDS[code], rest[1:]
    only = f", only where {'&'.join(rest)}" if rest else ""
    return f"{words}{period}{only}"


def _period(scope: Scope) -> tuple[str, list[str]]:
    """The days that a scope is limited to, in words, and what else is in its query.

    See `fhir_portal.smart.narrowing.Narrowing`: a period ends before the day that its query names.
    """
    parameter = PERIOD_PARAMETERS.get(scope.resource_type, "")
    first: list[datetime] = []
    ends: list[datetime] = []
    rest: list[str] = []
    for part in scope.query.split("&"):
        found = _BOUND.fullmatch(part)
        at = _moment_of(found["at"]) if found and found["name"] == parameter else None
        if found is None or at is None:
            rest.append(part)
        else:
            (first if found["how"] == "ge" else ends).append(at)
    words = ""
    if first:
        words += f" from {day(max(first).timestamp())}"
    if ends:
        words += f" to {day(min(ends).timestamp() - 1)}"
    return (f",{words}" if words else ""), rest


def _moment_of(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.year in _YEARS else None
