"""``Questionnaire/[id]/$populate``: answers to begin with (SDC 3.0).

Nothing is looked at but what the caller may see by an interaction of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import FhirError, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.resources.forms.answering import not_filled_in_here
from fhir_portal.resources.forms.handing_in import known_requests
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
    patient = subject_of(call, call.arguments.one("subject"), place=parameter("subject"))
    form = await form_of(call.server.reader, call.auth.practice, row)
    if form.faults:
        raise Unprocessable(issues=not_filled_in_here(form))
    looking = await Looking.at(call, form, patient)
    variables = await looking.variables()
    before = None
    if call.arguments.one("carry-forward") is not False:
        before = await looking.handed_in()
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


def subject_of(
    call: Call, subject: Any, *, place: str = "QuestionnaireResponse.subject"
) -> ResourceKey:
    """Return the Patient; for who is bound to one record, any other is not known."""
    key = local_target(str((subject or {}).get("reference", "")))
    if key is None or key.type != "Patient":
        message = "the subject is a Patient"
        raise Unprocessable(message, expression=place)
    bound = call.auth.patient or call.auth.staff_patient
    if bound is not None and bound != key.id:
        raise unknown(key)
    return key


@dataclass(frozen=True, slots=True)
class Looking:
    """What is looked at for one record; labelled resources too if the answers will be labelled.

    Otherwise what is confidential would come to stand in answers that whoever acts for the patient
    may read.
    """

    call: Call
    form: Questionnaire
    patient: ResourceKey
    labelled: bool

    @classmethod
    async def at(cls, call: Call, form: Questionnaire, patient: ResourceKey) -> Looking:
        requests = await known_requests(call.server.reader, call.auth, patient.id, form.canonical)
        labelled = any(row.facts.visibility_class.labels for row in requests)
        return cls(call, form, patient, labelled)

    async def variables(self) -> dict[str, Any]:
        """Return what expressions may look at: launch contexts, and what the form searches for."""
        call = self.call
        found: dict[str, Any] = {name: [] for name in self.form.launch}
        visible = permitted_or_none(call.server, call.auth, "r", "Patient")
        row = None if visible is None else await call.server.reader.read(self.patient, visible)
        is_there = row is not None and not row.deleted
        if not is_there and call.auth.record is None:
            raise unknown(self.patient)
        found["patient"] = []
        if row is not None and visible is not None and is_there:
            (row,) = checked([row], visible)
            if self._is_taken(row):
                found["patient"] = json.parse(row.body)
        for name, query in self.form.queries:
            found[name] = await self._searched(query)
        return found

    async def handed_in(self) -> Row | None:
        """Return the response to the form that was handed in last, of those the caller may see."""
        call = self.call
        visible = permitted_or_none(call.server, call.auth, "s", "QuestionnaireResponse")
        if visible is None or not self.form.url:
            return None
        query = [
            ("patient", str(self.patient)),
            ("status", "completed,amended"),
            ("_sort", "-authored,-_lastUpdated"),
            ("_count", str(_MOST)),
        ]
        asked = parse_search("QuestionnaireResponse", query, base=call.server.base)
        page = await call.server.reader.search(asked, visible)
        for row in checked(page.rows, visible):
            named = str(json.parse(row.body).get("questionnaire", "")).partition("|")[0]
            if named == self.form.url and self._is_taken(row):
                return row
        return None

    async def _searched(self, query: str) -> Mapping[str, Any] | list[Any]:
        """Return what an ``x-fhir-query`` finds, as a Bundle; nothing that is not the caller's."""
        call = self.call
        name, _, rest = _INSERTED.sub(self.patient.id, query).partition("?")
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
        return {
            "resourceType": "Bundle",
            "type": "searchset",
            "entry": [
                {"resource": json.parse(row.body)}
                for row in checked(page.rows, visible)
                if row.facts.owners == (self.patient.id,) and self._is_taken(row)
            ],
        }

    def _is_taken(self, row: Row) -> bool:
        return self.labelled or not row.facts.visibility_class.labels
