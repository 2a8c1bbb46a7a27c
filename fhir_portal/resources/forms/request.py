"""A request to fill in a form: a Task in the patient's record, in step with the answers.

Whoever hands answers in, a person or an EHR, does what every open request for that form asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.grant import IG
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import Record, RecordReader
from fhir_portal.resources.store import ResourceReader, Row
from fhir_portal.search.request import parse_search

FORM_TASK: Final = f"{IG}/CodeSystem/form-task"
COMPLETE: Final = "complete-questionnaire"
PRE_REGISTER: Final = "pre-register"
REVIEW: Final = "review-answers"
REQUESTS: Final = f"{FORM_TASK}|{COMPLETE},{FORM_TASK}|{PRE_REGISTER}"
"""The codes of requests, as a search has them."""
OPEN: Final = ("requested", "received", "accepted", "ready", "in-progress")
_MOST: Final = 100


class FormRecipients(Record, frozen=True, kw_only=True):
    """Who alone may answer a request; ``key`` is ``<practice>/Task/<id>``.

    It stands outside of FHIR: of those who act for a patient, one must not learn of another by the
    Task that all of them see.
    """

    kind: ClassVar[str] = "form-recipients"

    who: tuple[str, ...]


def concept(code: str) -> dict[str, Any]:
    """Return a code of the CodeSystem `form-task` as a CodeableConcept."""
    return {"coding": [{"system": FORM_TASK, "code": code}]}


def has_code(tree: Mapping[str, Any], *codes: str) -> bool:
    """Whether a Task is about a form, in one of these ways."""
    codings = (tree.get("code") or {}).get("coding") or ()
    return any(one.get("system") == FORM_TASK and one.get("code") in codes for one in codings)


def is_request(tree: Mapping[str, Any]) -> bool:
    """Whether a Task asks for a form."""
    return has_code(tree, COMPLETE, PRE_REGISTER)


def values_of(tree: Mapping[str, Any], code: str, *, of: str = "input") -> list[Any]:
    """Return the values of a Task's inputs (or outputs) of a kind, whatever their type."""
    return [
        value
        for one in tree.get(of) or ()
        if any(coding.get("code") == code for coding in (one.get("type") or {}).get("coding") or ())
        for name, value in one.items()
        if name.startswith("value")
    ]


def canonical_of(tree: Mapping[str, Any]) -> str:
    """Return the form that a request asks for."""
    return next((str(v) for v in values_of(tree, "questionnaire") if isinstance(v, str)), "")


def is_for(tree: Mapping[str, Any], canonical: str) -> bool:
    """Whether a request asks for a form; where either names no version, any is meant."""
    url, _, version = canonical_of(tree).partition("|")
    other, _, given = canonical.partition("|")
    return bool(url) and url == other and (not version or not given or version == given)


async def answered_by(
    reader: RecordReader, practice: str, key: str, tree: Mapping[str, Any]
) -> list[str]:
    """Return who may answer a request (``Task/<id>``); none is everybody who may act in forms.

    An EHR's own request may name them itself.
    """
    named = (tree.get("restriction") or {}).get("recipient") or ()
    kept = await reader.get(FormRecipients, f"{practice}/{key}")
    return [*(str(one.get("reference")) for one in named), *(kept.who if kept else ())]


async def open_requests(
    reader: ResourceReader, practice: str, patient: str, canonical: str
) -> list[Row]:
    """Return the Tasks that ask a patient (an id) for a form and are not over."""
    return [
        row
        for row in await tasks_of(reader, practice, patient, REQUESTS, OPEN)
        if is_for(json.parse(row.body), canonical)
    ]


async def tasks_of(
    reader: ResourceReader, practice: str, patient: str, codes: str, statuses: Sequence[str]
) -> list[Row]:
    """Return a patient's Tasks with one of these codes (``system|code,…``) and statuses."""
    query = [
        ("patient", f"Patient/{patient}"),
        ("code", codes),
        ("status", ",".join(statuses)),
        ("_count", str(_MOST)),
    ]
    asked = parse_search("Task", query, base="")
    page = await reader.search(asked, Visibility.of_server("Task", practice=practice))
    return sorted(page.rows, key=lambda row: str(row.key))


def with_answers(tree: dict[str, Any], key: ResourceKey, status: str) -> dict[str, Any] | None:
    """Return a request as it stands once there are answers; ``None`` if it stands so already."""
    now = "in-progress" if status == "in-progress" else "completed"
    output = {"type": concept("answers"), "valueReference": {"reference": str(key)}}
    kept = [one for one in tree.get("output") or () if one != output]
    changed = {**tree, "status": now, "output": [*kept, output]}
    return None if changed == tree else changed
