"""What a document is made from: one record, as one caller may see it, and the parts it has.

Whoever makes a `Chart` has read every resource under that caller's own visibility. Nothing here
knows what was left out, so that a document cannot tell: a part in which nothing is stored and one
that is kept back look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final

from fhir_portal.documents import wording
from fhir_portal.documents.wording import Json, clean, day, days, words_of
from fhir_portal.fhir.datetime import period_in, period_of

OBSERVATION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"

SMOKING_STATUS: Final = "72166-2"
"""LOINC: tobacco smoking status."""

NOTHING: Final = "No information is available here."
"""What a part says that has nothing to show, whatever the reason."""

CHART_TYPES: Final = tuple(
    (
        "AllergyIntolerance CarePlan Condition Device DiagnosticReport Encounter Goal Immunization "
        "MedicationRequest MedicationStatement Observation Procedure"
    ).split()
)
"""Types whose resources stand in documents."""

NAMED_TYPES: Final = ("Medication", "Organization", "Practitioner")
"""Directory types that the resources of a chart may refer to, read for what they are called."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One record. ``resources`` are by type, the latest first; ``directory`` by ``Type/id``.

    ``practice`` is what the practice is called and ``zone`` its time zone (IANA); ``organization``
    its own Organization, where the caller sees it. ``made`` is in seconds since 1970 UTC.
    ``start`` and ``end`` bound the time the document is about (FHIR dateTime; ``None``: unbounded).
    """

    base: str
    patient: Json
    resources: Mapping[str, Sequence[Json]]
    directory: Mapping[str, Json]
    practice: str
    zone: str
    organization: Json | None
    made: float
    start: str | None = None
    end: str | None = None

    @property
    def patient_id(self) -> str:
        """The id of the Patient."""
        return str(self.patient["id"])

    @property
    def name(self) -> str:
        """Whose record it is; ``""`` where the caller may not see that."""
        return wording.person_name(self.patient.get("name"))

    def named(self, reference: Json | None) -> Json:
        """Return the directory entry a Reference means, or an empty one."""
        if not isinstance(reference, Mapping):
            return {}
        text = str(reference.get("reference") or "").removeprefix(f"{self.base}/")
        return self.directory.get(text.partition("/_history/")[0], {})

    def medicine(self, tree: Json) -> Json:
        """Return the concept of the medicine that a resource is about."""
        concept = tree.get("medicationCodeableConcept")
        if isinstance(concept, Mapping):
            return concept
        reference = tree.get("medicationReference") or {}
        text = str(reference.get("reference") or "")
        if text.startswith("#"):
            for one in tree.get("contained") or ():
                if f"#{one.get('id')}" == text and one.get("resourceType") == "Medication":
                    return one.get("code") or {}
        found = self.named(reference).get("code")
        return found or {"text": reference.get("display") or ""}


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a part: the resource it comes from, and what a person reads of it."""

    tree: Json
    cells: tuple[str, ...]

    @property
    def key(self) -> str:
        """``Type/id`` of the resource."""
        return f"{self.tree['resourceType']}/{self.tree['id']}"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a document: its LOINC code, what it is called, what is in it, its columns."""

    key: str
    loinc: str
    display: str
    title: str
    types: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Callable[[Json, Chart], tuple[str, ...]]
    belongs: Callable[[Json], bool] = field(default=lambda _: True)

    def items(self, chart: Chart) -> list[Item]:
        """Return its rows, the latest first."""
        return [
            Item(tree, self.cells(tree, chart))
            for name in self.types
            for tree in chart.resources.get(name, ())
            if is_told(tree) and self.belongs(tree)
        ]


_UNTOLD: Final[Mapping[str, frozenset[str]]] = {
    "Procedure": frozenset({"preparation", "not-done"}),
    "MedicationRequest": frozenset({"draft", "cancelled"}),
    "MedicationStatement": frozenset({"not-taken"}),
    "Observation": frozenset({"cancelled"}),
    "DiagnosticReport": frozenset({"cancelled"}),
    "Encounter": frozenset({"cancelled", "planned"}),
    "Goal": frozenset({"rejected", "cancelled", "proposed"}),
    "CarePlan": frozenset({"draft", "revoked"}),
}


def is_told(tree: Json) -> bool:
    """Whether a resource says something that is so: not a mistake, a draft, or what was refuted."""
    status = tree.get("status") or tree.get("lifecycleStatus") or ""
    if status == "entered-in-error" or status in _UNTOLD.get(tree["resourceType"], ()):
        return False
    return wording.code_of(tree.get("verificationStatus")) not in {"entered-in-error", "refuted"}


def is_current(tree: Json) -> bool:
    """Whether a Condition, an AllergyIntolerance or a medicine is one of now."""
    if tree["resourceType"].startswith("Medication"):
        return tree.get("status") in {"active", "on-hold", "intended", "unknown"}
    status = wording.code_of(tree.get("clinicalStatus"))
    return status not in {"inactive", "remission", "resolved"}


def when(tree: Json) -> str:
    """Return the FHIR date or dateTime by which a resource stands in time, or ``""``."""
    for name in _TIMES.get(tree["resourceType"], ()):
        found = tree.get(name)
        if isinstance(found, Mapping):
            found = found.get("start") or found.get("end")
        if isinstance(found, str):
            return found
    return ""


def is_within(tree: Json, start: str | None, end: str | None, zone: tzinfo) -> bool:
    """Whether a resource falls in a time; one that has no time is in every record, and no visit.

    A Condition, an allergy or a medicine of before that was not over then is in it. Days are those
    of ``zone``, the practice's.
    """
    if start is None and end is None:
        return True
    low = period_in(start, zone)[0] if start else None
    high = period_in(end, zone)[1] if end else None
    begins, ends = _lasts(tree, zone)
    if begins is None and ends is None:
        return False
    if high is not None and begins is not None and begins > high:
        return False
    return not (low is not None and ends is not None and ends < low)


def _lasts(tree: Json, zone: tzinfo) -> tuple[int | None, int | None]:
    """From when to when a resource is true, in microseconds; ``None``: nobody said."""
    begins, until = _span(when(tree), zone)
    for name in _TIMES.get(tree["resourceType"], ()):
        found = tree.get(name)
        if isinstance(found, Mapping) and found.get("end"):
            until = _span(found["end"], zone)[1]
    over = _span(tree.get("abatementDateTime"), zone)[1]
    if over is not None:
        until = over
    elif tree["resourceType"] in _LASTING and is_current(tree):
        until = None
    return begins, until


def _span(text: Any, zone: tzinfo) -> tuple[int | None, int | None]:
    """First and last microsecond of a FHIR date or dateTime."""
    try:
        return period_in(text, zone) if isinstance(text, str) and text else (None, None)
    except ValueError:
        return None, None


_LASTING: Final = frozenset(
    {"AllergyIntolerance", "Condition", "MedicationRequest", "MedicationStatement"}
)

_TIMES: Final[Mapping[str, tuple[str, ...]]] = {
    "AllergyIntolerance": ("onsetDateTime", "onsetPeriod", "recordedDate"),
    "CarePlan": ("period", "created"),
    "Condition": ("onsetDateTime", "onsetPeriod", "recordedDate"),
    "Device": ("manufactureDate",),
    "DiagnosticReport": ("effectiveDateTime", "effectivePeriod", "issued"),
    "Encounter": ("period",),
    "Goal": ("startDate", "statusDate"),
    "Immunization": ("occurrenceDateTime", "recorded"),
    "MedicationRequest": ("authoredOn",),
    "MedicationStatement": ("effectiveDateTime", "effectivePeriod", "dateAsserted"),
    "Observation": ("effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued"),
    "Procedure": ("performedDateTime", "performedPeriod"),
}


def categories(tree: Json) -> frozenset[str]:
    """Return the codes of an Observation's HL7 categories."""
    return frozenset(
        coding.get("code", "")
        for concept in tree.get("category") or ()
        for coding in concept.get("coding") or ()
        if coding.get("system") == OBSERVATION_CATEGORY
    )


def _of_category(code: str) -> Callable[[Json], bool]:
    return lambda tree: code in categories(tree)


def _of_daily_life(tree: Json) -> bool:
    """Social history; and whether somebody smokes, which is sent under other categories too."""
    found = categories(tree)
    codings = (tree.get("code") or {}).get("coding") or ()
    smoking = any(coding.get("code") == SMOKING_STATUS for coding in codings)
    return "social-history" in found or (smoking and not found & {"laboratory", "vital-signs"})


def _status(tree: Json) -> str:
    return _SPOKEN.get(str(tree.get("status") or ""), clean(tree.get("status") or ""))


_SPOKEN: Final = {
    "in-progress": "in progress",
    "on-hold": "on hold",
    "not-done": "not given",
    "finished": "over",
    "arrived": "arrived",
}


def _problem(tree: Json, _: Chart) -> tuple[str, ...]:
    since = day(tree.get("onsetDateTime")) or days(tree.get("onsetPeriod"))
    until = day(tree.get("abatementDateTime")) or days(tree.get("abatementPeriod"))
    return words_of(tree.get("code")), words_of(tree.get("clinicalStatus")), since, until


def _allergy(tree: Json, _: Chart) -> tuple[str, ...]:
    reactions = []
    for one in tree.get("reaction") or ():
        said = ", ".join(filter(None, map(words_of, one.get("manifestation") or ())))
        severity = one.get("severity")
        reactions.append(f"{said} ({severity})" if severity and said else said or severity or "")
    risk = {"high": "high risk", "low": "low risk"}.get(tree.get("criticality", ""), "")
    status = words_of(tree.get("clinicalStatus"))
    return words_of(tree.get("code")), "; ".join(filter(None, reactions)), risk, status


def _medicine(tree: Json, chart: Chart) -> tuple[str, ...]:
    doses = tree.get("dosageInstruction") or tree.get("dosage") or ()
    how = "; ".join(filter(None, map(dose, doses)))
    since = day(tree.get("authoredOn")) or day(tree.get("effectiveDateTime"))
    return (
        words_of(chart.medicine(tree)),
        how,
        _status(tree),
        since or days(tree.get("effectivePeriod")),
    )


def dose(dosage: Json) -> str:
    """Return how a medicine is taken."""
    for member in ("text", "patientInstruction"):
        if dosage.get(member):
            return clean(dosage[member])
    found = [
        wording.amount(one.get("doseQuantity")) or wording.span(one.get("doseRange"))
        for one in dosage.get("doseAndRate") or ()
    ]
    found.append(words_of(dosage.get("route")))
    repeat = (dosage.get("timing") or {}).get("repeat") or {}
    if repeat.get("frequency") and repeat.get("period") and repeat.get("periodUnit"):
        every = f"{wording.number(repeat['period'])} {_UNITS.get(repeat['periodUnit'], '')}".strip()
        found.append(f"{wording.number(repeat['frequency'])} times every {every}")
    else:
        found.append(words_of((dosage.get("timing") or {}).get("code")))
    if dosage.get("asNeededBoolean") is True or dosage.get("asNeededCodeableConcept"):
        found.append("as needed")
    return ", ".join(filter(None, found))


_UNITS: Final = {
    "s": "seconds", "min": "minutes", "h": "hours", "d": "days",
    "wk": "weeks", "mo": "months", "a": "years",
}  # fmt: skip


def _vaccine(tree: Json, _: Chart) -> tuple[str, ...]:
    given = day(tree.get("occurrenceDateTime")) or clean(tree.get("occurrenceString") or "")
    return words_of(tree.get("vaccineCode")), given, _status(tree)


def _procedure(tree: Json, _: Chart) -> tuple[str, ...]:
    done = day(tree.get("performedDateTime")) or days(tree.get("performedPeriod"))
    return (
        words_of(tree.get("code")),
        done or clean(tree.get("performedString") or ""),
        _status(tree),
    )


def _measured(tree: Json, _: Chart) -> tuple[str, ...]:
    named = words_of(tree.get("code"))
    return named, wording.result(tree), wording.normal_range(tree), day(when(tree))


def _answer(tree: Json, _: Chart) -> tuple[str, ...]:
    return words_of(tree.get("code")), wording.result(tree), day(when(tree))


def _visit(tree: Json, _: Chart) -> tuple[str, ...]:
    kind = next(filter(None, map(words_of, tree.get("type") or ())), "")
    reason = ", ".join(filter(None, map(words_of, tree.get("reasonCode") or ())))
    return (
        kind or clean((tree.get("class") or {}).get("display") or "Visit"),
        (days(tree.get("period"))),
        reason,
    )


def _planned(tree: Json, _: Chart) -> tuple[str, ...]:
    if tree["resourceType"] == "Goal":
        status = clean(tree.get("lifecycleStatus") or "")
        return words_of(tree.get("description")), "Goal", status, day(when(tree))
    named = clean(tree.get("title") or "") or clean(tree.get("description") or "")
    todo = [
        words_of((one.get("detail") or {}).get("code"))
        or clean((one.get("detail") or {}).get("description") or "")
        for one in tree.get("activity") or ()
    ]
    kinds = [words_of(one) for one in tree.get("category") or ()]
    said = named or next(filter(None, (kind for kind in kinds if kind != "assess-plan")), "")
    text = ": ".join(filter(None, (said, ", ".join(filter(None, todo)))))
    return text or "Care plan", "Care plan", _status(tree), days(tree.get("period"))


def _device(tree: Json, _: Chart) -> tuple[str, ...]:
    names = tree.get("deviceName") or ()
    named = words_of(tree.get("type")) or next((clean(one.get("name", "")) for one in names), "")
    return named, _status(tree)


_MEASURES: Final = ("What", "Result", "Usual range", "When")

PROBLEMS: Final = Part(
    "problems", "11450-4", "Problem list - Reported", "Health problems",
    ("Condition",), ("Problem", "State", "Since", "Until"), _problem,
)  # fmt: skip
ALLERGIES: Final = Part(
    "allergies", "48765-2", "Allergies and adverse reactions Document", "Allergies",
    ("AllergyIntolerance",), ("To what", "Reaction", "Risk", "State"), _allergy,
)  # fmt: skip
MEDICATIONS: Final = Part(
    "medications", "10160-0", "History of Medication use Narrative", "Medicines",
    ("MedicationRequest", "MedicationStatement"), ("Medicine", "How to take it", "State", "Since"),
    _medicine,
)  # fmt: skip
IMMUNIZATIONS: Final = Part(
    "immunizations", "11369-6", "History of Immunization note", "Vaccines",
    ("Immunization",), ("Vaccine", "When", "State"), _vaccine,
)  # fmt: skip
PROCEDURES: Final = Part(
    "procedures", "47519-4", "History of Procedures Document", "Operations and procedures",
    ("Procedure",), ("Procedure", "When", "State"), _procedure,
)  # fmt: skip
RESULTS: Final = Part(
    "results", "30954-2", "Relevant diagnostic tests/laboratory data note", "Test results",
    ("Observation",), _MEASURES, _measured, _of_category("laboratory"),
)  # fmt: skip
VITAL_SIGNS: Final = Part(
    "vital-signs", "8716-3", "Vital signs note", "Measurements",
    ("Observation",), _MEASURES, _measured, _of_category("vital-signs"),
)  # fmt: skip
SOCIAL_HISTORY: Final = Part(
    "social-history", "29762-2", "Social history note", "Daily life",
    ("Observation",), ("What", "Answer", "When"), _answer, _of_daily_life,
)  # fmt: skip
ENCOUNTERS: Final = Part(
    "encounters", "46240-8", "History of Hospitalizations+Outpatient visits Narrative", "Visits",
    ("Encounter",), ("Visit", "When", "Why"), _visit,
)  # fmt: skip
PLAN: Final = Part(
    "plan", "18776-5", "Plan of care note", "Plans and goals",
    ("CarePlan", "Goal"), ("What", "Kind", "State", "When"), _planned,
)  # fmt: skip
DEVICES: Final = Part(
    "devices", "46264-8", "History of medical device use", "Devices",
    ("Device",), ("Device", "State"), _device,
)  # fmt: skip


def ordered(trees: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return resources of one type, the latest first, and always in the same order."""
    by_id = sorted(trees, key=lambda tree: str(tree["id"]))
    return sorted(by_id, key=_moment, reverse=True)


def _moment(tree: Json) -> int:
    text = when(tree)
    try:
        return period_of(text)[0] if text else -(2**62)
    except ValueError:
        return -(2**62)
