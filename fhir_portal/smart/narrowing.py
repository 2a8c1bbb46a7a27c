"""What a person still takes off what they tick: an end, writing, and what is older or newer.

A narrowing only ever takes away. The end is kept beside the scopes and ends code and tokens; the
other two change the scopes themselves, so that what was granted can be read in the token response:
``patient/Observation.rs?date=ge2030-01-01&date=lt2031-01-01``. Those are granular scopes like any
other, so every store holds them in its query.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo

from fhir_portal.smart.issuer import Lifetimes
from fhir_portal.smart.right import Right, ends_of
from fhir_portal.smart.scope import Scope, ScopeSet

UNTIL: Final = "until"
ONLY_READING: Final = "only_reading"
DATA_FROM: Final = "data_from"
DATA_TO: Final = "data_to"
YES: Final = "yes"
"""The value of a ticked box."""

READING: Final = "rs"

PERIOD_PARAMETERS: Final[Mapping[str, str]] = {
    "Account": "period",
    "AdverseEvent": "date",
    "AllergyIntolerance": "date",
    "Appointment": "date",
    "AuditEvent": "date",
    "Basic": "created",
    "CarePlan": "date",
    "CareTeam": "date",
    "ChargeItem": "occurrence",
    "Claim": "created",
    "ClaimResponse": "created",
    "ClinicalImpression": "date",
    "Communication": "sent",
    "CommunicationRequest": "authored",
    "Composition": "date",
    "Condition": "recorded-date",
    "Consent": "date",
    "Contract": "issued",
    "CoverageEligibilityRequest": "created",
    "CoverageEligibilityResponse": "created",
    "DetectedIssue": "identified",
    "DeviceRequest": "authored-on",
    "DiagnosticReport": "date",
    "DocumentManifest": "created",
    "DocumentReference": "date",
    "Encounter": "date",
    "EpisodeOfCare": "date",
    "ExplanationOfBenefit": "created",
    "FamilyMemberHistory": "date",
    "Flag": "date",
    "Goal": "start-date",
    "ImagingStudy": "started",
    "Immunization": "date",
    "ImmunizationEvaluation": "date",
    "ImmunizationRecommendation": "date",
    "Invoice": "date",
    "List": "date",
    "MeasureReport": "date",
    "Media": "created",
    "MedicationAdministration": "effective-time",
    "MedicationDispense": "whenhandedover",
    "MedicationRequest": "authoredon",
    "MedicationStatement": "effective",
    "NutritionOrder": "datetime",
    "Observation": "date",
    "PaymentNotice": "created",
    "Procedure": "date",
    "Provenance": "recorded",
    "QuestionnaireResponse": "authored",
    "RequestGroup": "authored",
    "ResearchSubject": "date",
    "RiskAssessment": "date",
    "ServiceRequest": "authored",
    "Specimen": "collected",
    "SupplyRequest": "date",
    "Task": "authored-on",
    "VisionPrescription": "datewritten",
}
"""Type to the search parameter that says when what it tells was so, or was recorded."""

TIMELESS: Final = frozenset(
    {
        "Coverage",
        "Location",
        "Medication",
        "Organization",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "RelatedPerson",
    }
)
"""Types that tell how things are, not what happened: a period leaves them whole.

A type that is neither here nor in `PERIOD_PARAMETERS` cannot be held to a period, so it is left out
of a grant that has one: a file (Binary) may be as old as it likes.
"""

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class NarrowingRefused(Exception):
    """A limit that cannot be kept as it was given; ``field`` is where, the text says what to do."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The limits on one answer; every one may be left out.

    ``until`` is the last day of the access, ``data_from`` and ``data_to`` are the first and last
    day of what may be seen. Days are those of the practice's zone.
    """

    until: date | None = None
    only_reading: bool = False
    data_from: date | None = None
    data_to: date | None = None

    @classmethod
    def parse(cls, form: Mapping[str, str]) -> Self:
        """Read the fields of the consent form. Raises `NarrowingRefused`."""
        only_reading = form.get(ONLY_READING, "")
        if only_reading not in ("", YES):
            raise NarrowingRefused(ONLY_READING, "Tick the box for looking only, or leave it.")
        found = cls(
            until=_day(form, UNTIL),
            only_reading=only_reading == YES,
            data_from=_day(form, DATA_FROM),
            data_to=_day(form, DATA_TO),
        )
        if found.data_from and found.data_to and found.data_to < found.data_from:
            raise NarrowingRefused(DATA_TO, "The period ends before it begins.")
        return found

    @property
    def has_period(self) -> bool:
        """Whether it limits how old or new what is seen may be."""
        return self.data_from is not None or self.data_to is not None

    def applied(self, ticked: ScopeSet, zone: str) -> ScopeSet:
        """What of the ticked scopes is left. Raises `NarrowingRefused` when that is nothing."""
        left = tuple(
            narrowed
            for scope in ticked.resource
            if (narrowed := self._scope(scope, zone)) is not None
        )
        if ticked.resource and not left:
            field = DATA_FROM if self.has_period else ONLY_READING
            raise NarrowingRefused(
                field, "With these limits nothing is left. Loosen them, or choose “Do not allow”."
            )
        return ScopeSet(ticked.identity, left)

    def _scope(self, scope: Scope, zone: str) -> Scope | None:
        kept = scope.limited_to(READING) if self.only_reading else scope
        if kept is None or not self.has_period or scope.resource_type in TIMELESS:
            return kept
        parameter = PERIOD_PARAMETERS.get(scope.resource_type)
        if parameter is None:
            return None
        bounds = [kept.query] if kept.query else []
        # A day of the zone and a day of UTC, by which FHIR reads a date without a zone (R4
        # §3.1.1.4.7), begin at different moments. The narrower of both: never a moment more.
        if self.data_from is not None:
            first = max(_begins(self.data_from, zone), _begins(self.data_from, "UTC"))
            bounds.append(f"{parameter}=ge{_moment(first)}")
        if self.data_to is not None:
            day = self.data_to + timedelta(days=1)
            end = min(_begins(day, zone), _begins(day, "UTC"))
            bounds.append(f"{parameter}=lt{_moment(end)}")
        return replace(kept, query="&".join(bounds))


NOT_NARROWED: Final = Narrowing()


@dataclass(frozen=True, slots=True)
class EndDates:
    """The days that can be chosen as the last one, and the moments they end at.

    ``latest`` is when the access would end by itself: with the grant, or by the server's policy.
    """

    now: float
    latest: float
    zone: str

    @classmethod
    def of(cls, rights: Iterable[Right], *, now: float, lifetimes: Lifetimes) -> Self:
        """For an answer about these records; of several, each keeps its own end besides."""
        chosen = tuple(rights)
        ends = [ends_of(one) for one in chosen]
        grants = max(math.inf if one is None else one for one in ends)
        return cls(now, min(now + lifetimes.refresh_in_all, grants), chosen[0].zone)

    @property
    def first_day(self) -> date:
        """Today."""
        return _local_day(self.now, self.zone)

    @property
    def last_day(self) -> date:
        """The day in which the latest end falls; a midnight ends the day before it."""
        return max(self.first_day, _local_day(math.ceil(self.latest) - 1, self.zone))

    def end_of(self, day: date | None) -> float | None:
        """When a chosen day ends, never after ``latest``. Raises `NarrowingRefused`."""
        if day is None:
            return None
        if not self.first_day <= day <= self.last_day:
            raise NarrowingRefused(
                UNTIL,
                f"The end is a day from {self.first_day:%Y-%m-%d} to {self.last_day:%Y-%m-%d}.",
            )
        return min(_begins(day + timedelta(days=1), self.zone).timestamp(), self.latest)


def _day(form: Mapping[str, str], name: str) -> date | None:
    text = form.get(name, "")
    if not text:
        return None
    try:
        found = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        found = None
    # A day at either end of the calendar has no day before or after it in some zone.
    if found is None or not date(1800, 1, 1) <= found <= date(9000, 1, 1):
        raise NarrowingRefused(name, "Give the day as year-month-day, like 2030-05-31.")
    return found


def _begins(day: date, zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def _local_day(moment: float, zone: str) -> date:
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).date()


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d}" if at.timetz() == time(tzinfo=UTC) else f"{at:%Y-%m-%dT%H:%M:%SZ}"
