"""Who may be the same person as a patient: what ``$match`` says, as the staff pages show it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.relation import name_of
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Forbidden, Invalid, Unprocessable
from fhir_portal.operations.match import MATCH_GRADE
from fhir_portal.web.pages.desk import FIND, AtDesk, Desk

_COMPARED: Final = (
    *("resourceType", "identifier", "name", "birthDate", "telecom", "address", "gender"),
)
_MOST: Final = 6
_GRADES: Final[Mapping[str, str]] = {
    "certain": "almost certainly the same person",
    "probable": "probably the same person",
    "possible": "possibly the same person",
}
_MRN: Final = "MR"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A patient who may be the one that is looked at, and how likely that is, in words."""

    id: str
    address: str
    name: str
    born: str
    number: str
    likely: str


async def candidates(
    desk: Desk,
    here: AtDesk,
    patient: Mapping[str, Any],
    *,
    least: float = 0.0,
    without: Collection[str] = (),
) -> list[Candidate]:
    """Return who may be the same person as a Patient, or as what is known of one, the best first.

    ``least`` is the least score (0 to 1); ``without`` are ids that are left out, as what was merged
    already is. Nobody where the access level may not match.
    """
    if not here.calls("match"):
        return []
    known = {name: patient[name] for name in _COMPARED if name in patient}
    try:
        answer = await desk.call(
            here,
            "match",
            "Patient",
            ("resource", "resource", known | {"resourceType": "Patient"}),
            ("count", "valueInteger", _MOST),
        )
    except (Forbidden, Invalid, Unprocessable):  # may not see records, or nothing to compare
        return []
    gone = {str(patient.get("id", "")), *without, *merged_with(patient)}
    return [
        _candidate(entry["resource"], entry["search"])
        for entry in answer.tree.get("entry") or ()
        if entry["resource"]["id"] not in gone
        and json.decimal(entry["search"]["score"]) >= least
        and not merged_into(entry["resource"])
    ]


def _candidate(patient: Mapping[str, Any], search: Mapping[str, Any]) -> Candidate:
    grades = (one for one in search["extension"] if one["url"] == MATCH_GRADE)
    grade = next((str(one["valueCode"]) for one in grades), "")
    return Candidate(
        id=patient["id"],
        address=f"{FIND}/{patient['id']}",
        name=name_of(patient),
        born=str(patient.get("birthDate", "")),
        number=record_number(patient),
        likely=_GRADES.get(grade, ""),
    )


def merged_with(patient: Mapping[str, Any]) -> list[str]:
    """Return the ids of the Patients that this one was merged with, either way."""
    return _linked(patient, "replaced-by", "replaces")


def merged_into(patient: Mapping[str, Any]) -> str:
    """Return the id of the Patient that this one was merged into, or ``""``."""
    return next(iter(_linked(patient, "replaced-by")), "")


def _linked(patient: Mapping[str, Any], *kinds: str) -> list[str]:
    references = (
        str((one.get("other") or {}).get("reference", ""))
        for one in patient.get("link") or ()
        if one.get("type") in kinds
    )
    return [one.removeprefix("Patient/") for one in references if one.startswith("Patient/")]


def record_number(patient: Mapping[str, Any]) -> str:
    """The record number: the identifier that is marked as such, else the first."""
    identifiers = [one for one in patient.get("identifier") or () if one.get("value")]
    for one in identifiers:
        codings = (one.get("type") or {}).get("coding") or ()
        if any(coding.get("code") == _MRN for coding in codings):
            return str(one["value"])
    return str(identifiers[0]["value"]) if identifiers else ""
