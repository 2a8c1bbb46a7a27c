"""``Questionnaire/[id]/$populate``: answers to begin with (SDC 3.0).

Nothing is looked at but what the caller may see by an interaction of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import FhirError, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.inviting import parameter
from fhir_portal.resources.forms.answering import not_filled_in_here
from fhir_portal.resources.forms.known import form_of
from fhir_portal.resources.forms.populate import populated
from fhir_portal.resources.forms.questionnaire import Questionnaire
from fhir_portal.resources.interactions.create import pairs_of
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.permission import checked, permitted_or_none
from fhir_portal.resources.store import Row
from fhir_portal.search.request import parse_search

_MICROSECONDS: Final = 1_000_000
_INSERTED: Final = re.compile(r"\{\{\s*%patient\.id\s*\}\}")
_PLAIN: Final = re.compile(r"[a-z][a-z-]*")
_MOST: Final = 50


async def populate(call: Call) -> FhirResponse:
    """Return an ``in-progress`` QuestionnaireResponse that is stored nowhere.

    Raises:
        NotFound: no such form or patient, or none that the caller may know about.
        Unprocessable: the form cannot be filled in here.
    """
    row = await call.target(call.server.reader)
    patient = _subject(call)
    form = await form_of(call.server.reader, call.auth.practice, row)
    if form.faults:
        raise Unprocessable(issues=not_filled_in_here(form))
    variables = await _variables(call, form, patient)
    before = None
    if call.arguments.one("carry-forward") is not False:
        before = await _handed_in(call, form, patient)
    now = call.server.clock()
    tree: dict[str, Any] = {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": form.canonical,
        "status": "in-progress",
        "subject": {"reference": str(patient)},
        "authored": instant(int(now * _MICROSECONDS)),
    }
    if call.auth.record is not None:
        tree["author"] = tree["source"] = {"reference": call.auth.fhir_user}
    items = populated(
        form, now=now, variables=variables, before=json.parse(before.body) if before else None
    )
    if items:
        tree["item"] = items
    answer = call.answer({"response": tree}, row)
    told = {patient.id: None} if before is None else {}
    touched = [*(before.facts.touched if before else ()), *((one, True) for one in told)]
    return type(answer)(answer.status, answer.body, records=tuple(dict.fromkeys(touched)))


def _subject(call: Call) -> ResourceKey:
    """Return the Patient; for who is bound to one record, any other is not known."""
    text = str((call.arguments.one("subject") or {}).get("reference", ""))
    key = local_target(text)
    if key is None or key.type != "Patient":
        message = "the subject is a Patient"
        raise Unprocessable(message, expression=parameter("subject"))
    bound = call.auth.patient or call.auth.staff_patient
    if bound is not None and bound != key.id:
        raise unknown(key)
    return key


async def _variables(call: Call, form: Questionnaire, patient: ResourceKey) -> dict[str, Any]:
    """Return what expressions may look at: launch contexts, and what the form searches for."""
    found: dict[str, Any] = {name: [] for name in form.launch}
    visible = permitted_or_none(call.server, call.auth, "r", "Patient")
    row = None if visible is None else await call.server.reader.read(patient, visible)
    is_there = row is not None and not row.deleted
    if not is_there and call.auth.record is None:
        raise unknown(patient)
    if row is not None and visible is not None and is_there:
        checked([row], visible)
        found["patient"] = json.parse(row.body)
    else:
        found["patient"] = []
    for name, query in form.queries:
        found[name] = await _searched(call, query, patient)
    return found


async def _searched(call: Call, query: str, patient: ResourceKey) -> Mapping[str, Any] | list[Any]:
    """Return what an ``x-fhir-query`` finds, as a Bundle; nothing of what is not the caller's."""
    name, _, rest = _INSERTED.sub(patient.id, query).partition("?")
    visible = permitted_or_none(call.server, call.auth, "s", name)
    # Plain parameters alone: a chain would look at what nobody has decided about.
    is_plain = all(_PLAIN.fullmatch(one.partition("=")[0]) for one in rest.split("&"))
    if visible is None or "{{" in rest or not is_plain:
        return []
    # Bounded to the one record, whatever the query says.
    pairs = [*pairs_of(rest), ("_count", str(_MOST))]
    try:
        asked = parse_search(name, pairs, base=call.server.base)
    except FhirError:
        return []
    page = await call.server.reader.search(asked, visible)
    rows = [row for row in checked(page.rows, visible) if row.facts.owners == (patient.id,)]
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": json.parse(row.body)} for row in rows],
    }


async def _handed_in(call: Call, form: Questionnaire, patient: ResourceKey) -> Row | None:
    """Return the response to a form that was handed in last, of those that the caller may see."""
    visible = permitted_or_none(call.server, call.auth, "s", "QuestionnaireResponse")
    if visible is None or not form.url:
        return None
    query = [
        ("patient", str(patient)),
        ("status", "completed,amended"),
        ("_sort", "-authored,-_lastUpdated"),
        ("_count", str(_MOST)),
    ]
    asked = parse_search("QuestionnaireResponse", query, base=call.server.base)
    page = await call.server.reader.search(asked, visible)
    for row in checked(page.rows, visible):
        named = str(json.parse(row.body).get("questionnaire", "")).partition("|")[0]
        if named == form.url:
            return row
    return None
