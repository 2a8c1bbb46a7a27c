"""The page that opens an archive of a record: what is in it, in plain words, with links to it.

It opens from a disk, in any browser, without a network: no script, form, picture or style of
elsewhere. All text goes through an escaping template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.consent.sections import section_displays
from fhir_portal.documents.archive import Member
from fhir_portal.documents.printed_sheet import template

_WORDS: Final = {
    "AllergyIntolerance": "Allergies",
    "Appointment": "Appointments",
    "AuditEvent": "Who looked at the record",
    "CarePlan": "Care plans",
    "CareTeam": "Care teams",
    "Communication": "Messages",
    "Condition": "Conditions",
    "Consent": "Permissions",
    "Coverage": "Insurance",
    "Device": "Devices",
    "DiagnosticReport": "Reports",
    "DocumentReference": "Documents",
    "Encounter": "Visits",
    "FamilyMemberHistory": "Family history",
    "Immunization": "Immunizations",
    "Invoice": "Bills",
    "Location": "Places",
    "Medication": "Medicines",
    "MedicationRequest": "Prescriptions",
    "MedicationStatement": "Medicines taken",
    "Observation": "Measurements and test results",
    "Organization": "Organizations",
    "Patient": "Personal details",
    "PaymentNotice": "Payments",
    "Practitioner": "Practitioners",
    "PractitionerRole": "What practitioners do",
    "Provenance": "Where entries come from",
    "Questionnaire": "Forms",
    "QuestionnaireResponse": "Answers to forms",
    "RelatedPerson": "Related people",
    "Task": "Tasks",
}
_OTHER: Final = "Other"


@dataclass(frozen=True, slots=True)
class Filed:
    """A file of the archive: for data its type and how many resources, else what it is called."""

    member: Member
    type: str = ""
    lines: int = 0
    title: str = ""
    date: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """What the manifest says of it."""
        found: dict[str, Any] = {"name": self.member.name, "size": self.member.size}
        if self.type:
            found |= {"type": self.type, "resources": self.lines}
        return {**found, "sha256": self.member.sha256}


def as_index(
    *,
    whose: str,
    practice: str,
    made: str,
    sections: Mapping[str, Mapping[str, int]],
    resources: Mapping[str, int],
    filed: Sequence[Filed],
    listed: int,
    left_out: Sequence[str] = (),
) -> bytes:
    """Return the page.

    ``sections`` says how many of each type fall in a section, ``resources`` how many there are,
    ``left_out`` in sentences what is not in the archive.
    """
    data: dict[str, list[str]] = {}
    for one in filed:
        if one.type:
            data.setdefault(one.type, []).append(one.member.name)
    names = section_displays()
    tables = [
        (name, _rows(sections[code], data)) for code, name in names.items() if code in sections
    ]
    placed = {name for code in names for name in sections.get(code, ())}
    rest = {name: count for name, count in resources.items() if name not in placed | {"Binary"}}
    if rest:
        tables.append((_OTHER, _rows(rest, data)))
    files = [one for one in filed if one.member.name.startswith("files/")]
    made_here = [one for one in filed if one.title and not _is_file(one)]
    return (
        template("record_index.html")
        .render(
            whose=whose,
            practice=practice,
            made=made,
            documents=made_here,
            tables=tables,
            files=files[:listed],
            more=max(len(files) - listed, 0),
            left_out=left_out,
        )
        .encode()
    )


def words_of(resource_type: str) -> str:
    """Return what a type is called in plain words."""
    known = _WORDS.get(resource_type)
    if known is not None:
        return known
    parts = re.findall(r"[A-Z][a-z]*", resource_type)
    return " ".join([parts[0], *(one.lower() for one in parts[1:])]) if parts else resource_type


def _is_file(one: Filed) -> bool:
    return bool(one.type) or one.member.name.startswith("files/")


def _rows(
    counts: Mapping[str, int], data: Mapping[str, Sequence[str]]
) -> list[tuple[str, int, Sequence[str]]]:
    found = [(words_of(name), count, data.get(name, ())) for name, count in counts.items()]
    return sorted(found)
