"""What is proposed, in words: fields, values, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fhir_portal.access.relation import name_of
from fhir_portal.resources.forms.request import values_of
from fhir_portal.resources.proposal import FIELD, REASON, Proposed, value_of

FIELDS: Final[Mapping[str, str]] = {
    "name": "Name",
    "telecom": "Telephone and mail",
    "gender": "Gender",
    "birthDate": "Date of birth",
    "address": "Address",
    "maritalStatus": "Marital status",
    "communication": "Languages",
    "contact": "People to call",
    "photo": "Photo",
    "pronouns": "Pronouns",
    "gender-identity": "Gender identity",
    "order": "Which comes first",
    "payor": "Health plan",
    "type": "Kind of insurance",
    "subscriber": "Who holds it",
    "subscriberId": "Member number",
    "relationship": "Relation to the holder",
    "dependent": "Number of the dependent",
    "class": "Group and plan",
    "identifier": "Numbers of the card",
    "period": "From and until",
    "card": "Pictures of the card",
}
KINDS: Final[Mapping[str, str]] = {
    "Patient": "Personal details",
    "Condition": "Health problem",
    "AllergyIntolerance": "Allergy",
    "MedicationStatement": "Medicine",
    "FamilyMemberHistory": "Illness in the family",
    "Coverage": "Insurance",
}
LANGUAGES: Final[Mapping[str, str]] = {
    "en": "English",
    "es": "Spanish",
    "zh": "Chinese",
    "vi": "Vietnamese",
    "tl": "Tagalog",
    "ar": "Arabic",
    "fr": "French",
    "ko": "Korean",
    "ru": "Russian",
    "de": "German",
    "ht": "Haitian Creole",
    "hi": "Hindi",
    "pt": "Portuguese",
    "it": "Italian",
    "pl": "Polish",
    "ase": "American Sign Language",
}
"""The languages that a form offers, by their codes (BCP 47)."""
STATUS: Final[Mapping[str, str]] = {
    "requested": "waits for the practice",
    "received": "waits for the practice",
    "accepted": "the practice is working on it",
    "ready": "the practice is working on it",
    "in-progress": "the practice is working on it",
    "completed": "accepted",
    "rejected": "not accepted",
    "failed": "not accepted",
    "cancelled": "taken back",
}


def concept_words(concept: Mapping[str, Any]) -> str:
    """Return what a CodeableConcept is called."""
    codings = concept.get("coding") or [{}]
    found = concept.get("text") or codings[0].get("display") or codings[0].get("code")
    return LANGUAGES.get(str(found), str(found)) if found else ""


def words_of(value: Any) -> str:
    """Return a value of a resource as words, the same for all of its kind."""
    if isinstance(value, list):
        return "; ".join(filter(None, map(words_of, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    if "language" in value:
        preferred = " (preferred)" if value.get("preferred") is True else ""
        return f"{words_of(value['language'])}{preferred}"
    if "data" in value or "contentType" in value:
        return "a picture or file"
    if "family" in value or "given" in value:
        return name_of({"name": [value]})
    if "coding" in value or set(value) == {"text"}:
        return concept_words(value)
    if "system" in value and "value" in value:
        kind = " ".join(filter(None, (value.get("use"), value["system"])))
        return f"{kind} {value['value']}"
    shown = [
        value[name] for name in ("line", "city", "state", "postalCode", "country") if name in value
    ]
    if shown:
        return ", ".join(words_of(one) for one in shown)
    if set(value) <= {"start", "end"}:
        return f"{value.get('start') or 'any time'} to {value.get('end') or 'open'}"
    if "url" in value:
        inner = [words_of(one) for one in value.get("extension") or ()]
        own = [words_of(one) for name, one in value.items() if name.startswith("value")]
        return ", ".join(filter(None, [*inner, *own]))
    if "reference" in value:
        who = "the patient" if str(value["reference"]).startswith("Patient/") else ""
        return str(value.get("display") or who)
    rest = [words_of(one) for name, one in value.items() if name != "id"]
    return ", ".join(filter(None, rest))


def title_of(one: Proposed) -> str:
    """Return what a proposal is about, in a few words."""
    kind = str(one.tree["resourceType"])
    if kind == "MedicationStatement":
        return f"Not taken: {medicine_words(one.tree)}"
    if kind == "Coverage":
        plan = words_of(one.tree.get("payor")) or "an insurance"
        return f"New insurance: {plan}" if one.base is None else f"Insurance: {plan}"
    return KINDS.get(kind, kind)


def medicine_words(tree: Mapping[str, Any]) -> str:
    """Return what a medicine is called."""
    concept = tree.get("medicationCodeableConcept")
    if concept:
        return concept_words(concept)
    return str((tree.get("medicationReference") or {}).get("display") or "a medicine")


def changes(one: Proposed) -> Iterator[tuple[str, str, str, str]]:
    """Yield field, label, what was and what is proposed, in words."""
    for field in one.fields:
        before = words_of(value_of(one.before or {}, field)) or "nothing"
        after = words_of(value_of(one.tree, field)) or "nothing"
        yield field, FIELDS[field], before, after


def facts(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a new Coverage or a medicine that is not taken says, with labels."""
    found = [(FIELDS[name], words_of(value_of(tree, name))) for name in _SAID if name in FIELDS]
    if tree["resourceType"] == "MedicationStatement":
        period = tree.get("effectivePeriod") or {}
        notes = [str(one.get("text", "")) for one in tree.get("note") or ()]
        found = [("Since", str(period.get("start", ""))), ("Why", "; ".join(notes))]
    return [(label, text) for label, text in found if text]


def contacts_of(task: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the new contacts to which a code was sent, each with whether it came back."""
    proved = [one.get("value") for one in values_of(task, "contact-proved", of="output")]
    asked = [str(one.get("value")) for one in values_of(task, "contact-to-prove")]
    return [(one, one in proved) for one in asked]


_SAID: Final = (
    *("payor", "subscriberId", "class", "type", "subscriber", "relationship", "dependent"),
    *("identifier", "period", "order", "card"),
)


def outcomes(task: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return of each decision that a Task tells of: the field, what became of it, and why."""
    found = []
    for one in task.get("output") or ():
        told = {e.get("url"): e.get("valueString") for e in one.get("extension") or ()}
        codings: Sequence[Mapping[str, Any]] = (one.get("type") or {}).get("coding") or ()
        code = next((str(coding.get("code")) for coding in codings), "")
        if code not in {"accepted", "refused"}:
            continue
        field = str(told.get(FIELD) or "")
        words = "accepted" if code == "accepted" else "not accepted"
        found.append((FIELDS.get(field, ""), words, str(told.get(REASON) or "")))
    return found
