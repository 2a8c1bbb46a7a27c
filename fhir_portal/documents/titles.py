"""What documents are called in plain words, by what they say they are (LOINC document types)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.consent.labels import is_supplied
from fhir_portal.documents.chart import when
from fhir_portal.documents.wording import clean, words_of

LOINC: Final = "http://loinc.org"
UNTITLED: Final = "Document"

TITLES: Final[Mapping[str, str]] = {
    "10160-0": "Medicines taken",
    "11369-6": "Vaccinations",
    "11488-4": "What a specialist found",
    "11502-2": "Lab report",
    "11504-8": "How an operation went",
    "11506-3": "Note about a visit",
    "11526-1": "Report about a tissue sample",
    "18748-4": "Report about an X-ray or scan",
    "18761-7": "Summary for the next clinic",
    "18776-5": "Care plan",
    "18842-5": "Summary of a hospital stay",
    "28570-0": "How a procedure went",
    "34108-1": "Note about a visit",
    "34109-9": "Note about care",
    "34111-5": "Note about a visit to the emergency room",
    "34117-2": "What was told and what the examination showed",
    "34133-9": "Summary of the record",
    "34746-8": "Note of a nurse",
    "34748-4": "Note about a telephone call",
    "42348-3": "Wishes for care (advance directive)",
    "51847-2": "What was found and what is planned",
    "51852-2": "Letter",
    "57133-1": "Referral to somebody else",
    "59284-0": "Consent that was signed",
    "60591-5": "Summary of health",
    "64290-0": "Insurance card",
    "64298-3": "Power of attorney",
    "68608-9": "Summary",
    "69730-0": "Instructions",
}
"""Words of ours, by the code of ``DocumentReference.type``
or ``Composition.type``."""


def title_of(tree: Mapping[str, Any]) -> str:
    """Return what a DocumentReference or Composition is called on a page.

    What somebody brought has the name that they, or staff, gave it.
    """
    own = clean(tree.get("description") or tree.get("title") or "")
    if own and is_supplied(tree):
        return own
    concept = tree.get("type")
    return plain_type(concept) or own or words_of(concept) or UNTITLED


def plain_type(concept: Mapping[str, Any] | None) -> str:
    """Return the plain words for a type of documents, or ``""`` where there are none."""
    for coding in (concept or {}).get("coding") or ():
        if coding.get("system") == LOINC and coding.get("code") in TITLES:
            return TITLES[coding["code"]]
    return ""


def type_token(tree: Mapping[str, Any]) -> str:
    """Return a document's type as a search has it, or ``""`` for one without a code."""
    for coding in (tree.get("type") or {}).get("coding") or ():
        if coding.get("code"):
            return f"{coding.get('system', '')}|{coding['code']}"
    return ""


VISITS: Final[Mapping[str, str]] = {
    "185345009": "Visit about a complaint",
    "185347001": "Visit about a problem",
    "185349003": "Check-up",
    "308335008": "Visit",
    "390906007": "Follow-up visit",
    "410620009": "Check-up of a child",
    "50849002": "Visit to the emergency room",
    "32485007": "Stay in a hospital",
}
"""Words of ours for what kind of visit it was, by the SNOMED CT code of ``Encounter.type``."""
PLACES: Final[Mapping[str, str]] = {
    "AMB": "Visit",
    "EMER": "Visit to the emergency room",
    "HH": "Visit at home",
    "IMP": "Stay in a hospital",
    "ACUTE": "Stay in a hospital",
    "OBSENC": "Stay for observation",
    "SS": "Visit",
    "VR": "Visit by video or telephone",
}
"""The same by ``Encounter.class`` (v3-ActCode)."""
SNOMED: Final = "http://snomed.info/sct"


def visit_title(tree: Mapping[str, Any]) -> str:
    """Return what an Encounter is called on a page."""
    for concept in tree.get("type") or ():
        for coding in concept.get("coding") or ():
            if coding.get("system") == SNOMED and coding.get("code") in VISITS:
                return VISITS[coding["code"]]
    said = next((words for one in tree.get("type") or () if (words := words_of(one))), "")
    return said or PLACES.get(str((tree.get("class") or {}).get("code")), "Visit")


_SAID_IN: Final = (
    *("code", "vaccineCode", "medicationCodeableConcept", "serviceType", "type", "category"),
    *("relationship", "measure", "intent"),
)
"""Where a resource of other types says what it is, the most telling first."""
_DATED_BY: Final = (
    *("issued", "date", "authoredOn", "recordedDate", "recorded", "started", "sent", "created"),
    *("effectiveDateTime", "performedDateTime", "occurrenceDateTime", "start", "authored"),
)


def resource_title(tree: Mapping[str, Any]) -> str:
    """Return what any resource of a record is called in a list, or ``""`` where it does not say."""
    name = tree["resourceType"]
    if name in {"DocumentReference", "Composition"}:
        return title_of(tree)
    if name == "Encounter":
        return visit_title(tree)
    for member in _SAID_IN:
        found = tree.get(member)
        for concept in found if isinstance(found, list) else [found]:
            if isinstance(concept, Mapping) and (words := words_of(concept)):
                return words
    own = tree.get("description") or tree.get("title")
    return clean(own) if isinstance(own, str) else ""


def resource_date(tree: Mapping[str, Any]) -> str:
    """Return the FHIR date or dateTime by which any resource stands in time, or ``""``."""
    period = tree.get("period")
    began = period.get("start") if isinstance(period, Mapping) else None
    listed = (when(tree), *(tree.get(name) for name in _DATED_BY), began)
    return next((one for one in listed if isinstance(one, str) and one), "")
