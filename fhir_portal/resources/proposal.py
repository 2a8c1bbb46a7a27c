"""What people propose to change about a record: the Task of it, and the fields it is about.

A Task holds proposals of one portal section, each a contained resource with the elements as they
are to be, beside one with what they were (``p1``, ``b1`` and on). Which fields are proposed is said
by its input. Source: FHIR R4 Task; ``$propose-update`` of the guide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.consent.grant import IG
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import Reference, ResourceKey
from fhir_portal.resources.forms.handing_in import BASE
from fhir_portal.resources.forms.request import OPEN

SYSTEM: Final = f"{IG}/CodeSystem/portal-task"
SECTIONS: Final[Mapping[str, str]] = {
    "propose-demographics": "demographics",
    "propose-insurance": "insurance",
    "propose-medications": "medications",
}
"""The section of a Task by its code; the section table of the guide says the same."""
CODES: Final = ",".join(f"{SYSTEM}|{code}" for code in SECTIONS)
"""All of them, as a search has them."""
FIELD: Final = f"{IG}/StructureDefinition/proposal-field"
REASON: Final = f"{IG}/StructureDefinition/proposal-reason"
PATIENT_SUPPLIED: Final = f"{IG}/StructureDefinition/patient-supplied"
CARD: Final = (
    "http://hl7.org/fhir/us/insurance-card/StructureDefinition/C4DIC-SupportingImage-extension"
)
"""A picture of an insurance card (CARIN Digital Insurance Card 2.0, SupportingImage)."""
_CORE: Final = "http://hl7.org/fhir/StructureDefinition/"
IN_EXTENSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "pronouns": (f"{_CORE}individual-pronouns",),
    "gender-identity": (
        f"{_CORE}individual-genderIdentity",
        "http://hl7.org/fhir/us/core/StructureDefinition/us-core-genderIdentity",
    ),
    "card": (CARD,),
}
"""Fields that are extensions of the resource, by their addresses."""
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Patient": (
        *("name", "pronouns", "gender-identity", "gender", "birthDate", "telecom", "address"),
        *("contact", "communication", "maritalStatus", "photo"),
    ),
    "Coverage": (
        *("order", "payor", "type", "subscriber", "subscriberId", "relationship", "dependent"),
        *("class", "identifier", "period", "card"),
    ),
}
"""What can be proposed of a type."""
ANSWERED: Final = "proposal-answered"
"""The name of the job that tells whoever proposed it; its argument is ``task`` (an id)."""
MOST_OPEN: Final = 20
"""Proposals that wait for an answer, of one record."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """One proposal: its id in the Task, the resource, and what it changes of which version.

    ``base`` is ``None`` for something new, which has no single fields.
    """

    name: str
    tree: Mapping[str, Any]
    fields: tuple[str, ...] = ()
    base: ResourceKey | None = None
    base_version: str = ""
    before: Mapping[str, Any] | None = None


def section_of(tree: Mapping[str, Any]) -> str | None:
    """Return the section of a Task of proposals; ``None`` for any other."""
    for coding in (tree.get("code") or {}).get("coding") or ():
        if coding.get("system") == SYSTEM and coding.get("code") in SECTIONS:
            return SECTIONS[coding["code"]]
    return None


def is_open(tree: Mapping[str, Any]) -> bool:
    """Whether nobody has decided about a Task of proposals."""
    return tree.get("status") in OPEN


def value_of(tree: Mapping[str, Any], field: str) -> Any:
    """Return what a resource says in a field; ``None`` for nothing."""
    urls = IN_EXTENSIONS.get(field)
    if urls is None:
        return tree.get(field)
    return [one for one in tree.get("extension") or () if one.get("url") in urls] or None


def with_value(tree: dict[str, Any], field: str, value: Any) -> None:
    """Have a resource say something in a field, in place; ``None`` and nothing take it away."""
    urls = IN_EXTENSIONS.get(field)
    if urls is not None:
        kept = [one for one in tree.get("extension") or () if one.get("url") not in urls]
        field, value = "extension", [*kept, *(value or ())]
    if value in (None, [], {}):
        tree.pop(field, None)
    else:
        tree[field] = value


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of a field say the same, down to how numbers are written."""
    empty: tuple[Any, ...] = (None, [], {})
    if one in empty or other in empty:
        return one in empty and other in empty
    return json.dumps({"": one}) == json.dumps({"": other})


def changed_since(
    before: Mapping[str, Any], now: Mapping[str, Any], fields: Sequence[str]
) -> list[str]:
    """Return the fields in which a resource is another one than it was."""
    return [one for one in fields if not is_same(value_of(before, one), value_of(now, one))]


def proposed_in(task: Mapping[str, Any]) -> list[Proposed]:
    """Return the proposals of a Task, as far as they can be understood: an EHR may write one."""
    contained = {str(one.get("id")): one for one in task.get("contained") or ()}
    return list(_proposed(task, contained))


def _proposed(
    task: Mapping[str, Any], contained: Mapping[str, Mapping[str, Any]]
) -> Iterator[Proposed]:
    for one in task.get("input") or ():
        name = str((one.get("valueReference") or {}).get("reference", "")).removeprefix("#")
        if _code(one) != "proposal" or name not in contained:
            continue
        tree = contained[name]
        fields, base = list[str](), None
        for extension in one.get("extension") or ():
            if extension.get("url") == FIELD:
                fields.append(str(extension.get("valueString")))
            elif extension.get("url") == BASE:
                base = Reference.parse(
                    str((extension.get("valueReference") or {}).get("reference"))
                )
        known = FIELDS.get(str(tree["resourceType"]), ())
        yield Proposed(
            name,
            tree,
            tuple(field for field in fields if field in known),
            None if base is None else base.key,
            "" if base is None else base.version or "",
            contained.get(f"b{name[1:]}"),
        )


def _code(one: Mapping[str, Any]) -> str:
    codings = (one.get("type") or {}).get("coding") or ()
    return next((str(coding.get("code")) for coding in codings), "")
