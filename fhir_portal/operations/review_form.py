"""``Task/[id]/$review-form``: staff decide what of a form's answers becomes part of the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import labelling
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, NotFound, PreconditionFailed, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.deciding import (
    ACTIONS,
    Deciding,
    named,
    others_of,
    require_own_files,
    require_valid,
)
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.portal_invite import words
from fhir_portal.resources.forms.extract import DEMOGRAPHICS, finished, merged
from fhir_portal.resources.forms.handing_in import BASE
from fhir_portal.resources.forms.questionnaire_response import DONE
from fhir_portal.resources.forms.request import OPEN, REVIEW, concept, has_code
from fhir_portal.resources.store import ResourceTransaction, Row


@dataclass(frozen=True, slots=True)
class _Decision:
    action: str
    fields: tuple[str, ...] = ()
    resource: Mapping[str, Any] | None = None


async def review_form(call: Call) -> FhirResponse:
    """Carry out all decisions in one transaction.

    Raises:
        Unprocessable: a proposal is not decided about, or what is accepted in its place is wrong.
        Conflict: it was decided already. PreconditionFailed: the Patient has changed since.
    """
    decisions, others = _decisions(call)
    reason = words(call, "reason")

    async def work(transaction: ResourceTransaction) -> tuple[Row, list[Row]]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        task = json.parse(row.body)
        if not has_code(task, REVIEW):
            message = "by this Task nothing is decided about answers"
            raise Unprocessable(message)
        if task["status"] not in OPEN:
            message = "this was decided already"
            raise Conflict(message)
        review = _Review(call, transaction, task, reason)
        accepted = await review.carry_out(decisions, others)
        await review.close(row, accepted, task["focus"])
        return row, accepted

    row, accepted = await call.server.store.transact(work)
    values = {
        "status": "completed" if accepted else "rejected",
        "accepted": [{"reference": str(one.key)} for one in accepted],
    }
    return call.answer(values, row, *accepted)


def _decisions(call: Call) -> tuple[dict[str, _Decision], str | None]:
    others = others_of(call)
    found: dict[str, _Decision] = {}
    for one in call.arguments.all("decision"):
        name, action = str(one.one("proposal")), str(one.one("action"))
        fields = tuple(str(field) for field in one.all("field"))
        resource = one.one("resource")
        if action not in ACTIONS or name in found:
            message = f"there is one decision about a proposal: {' or '.join(ACTIONS)}"
            raise Unprocessable(message, expression=parameter("decision"))
        if action == "refuse" and (fields or resource is not None):
            message = "what is refused has no fields and nothing in its place"
            raise Unprocessable(message, expression=parameter("decision"))
        found[name] = _Decision(action, fields, resource)
    return found, others


class _Review(Deciding):
    """One review that is being carried out in a transaction."""

    def __init__(
        self, call: Call, transaction: ResourceTransaction, task: dict[str, Any], reason: str
    ) -> None:
        super().__init__(call, transaction, task, reason)
        self.answers = named(task, "focus", "QuestionnaireResponse")

    async def carry_out(self, decisions: Mapping[str, _Decision], others: str | None) -> list[Row]:
        proposed = {str(one.get("id", "")): one for one in self.task.get("contained") or ()}
        unknown = sorted(decisions.keys() - proposed.keys())
        if unknown:
            message = f"there is no proposal {unknown[0][:20]}"
            raise Unprocessable(message, expression=parameter("decision"))
        left = [name for name in proposed if name not in decisions]
        if left and others is None:
            message = f"decide about {', '.join(left[:10])}, too"
            raise Unprocessable(message, expression=parameter("decision"))
        answers: Mapping[str, Any] | None = None
        accepted = list[Row]()
        for name, tree in proposed.items():
            decision = decisions.get(name) or _Decision(others or "")
            if decision.action == "refuse":
                self.outputs.append({"type": concept("refused"), "valueString": name})
                continue
            answers = answers or await self._answers()
            bare = {key: value for key, value in tree.items() if key != "id"}
            if tree["resourceType"] == "Patient":
                row = await self._patient(name, bare, decision)
            else:
                row = await self._new(bare, decision, answers)
            accepted.append(row)
            self.outputs.append(
                {"type": concept("accepted"), "valueReference": {"reference": str(row.key)}}
            )
        return accepted

    async def _answers(self) -> Mapping[str, Any]:
        visible = Visibility.of_server("QuestionnaireResponse", practice=self.practice)
        row = await self.transaction.read(self.answers, visible)
        if row is None or row.deleted or row.facts.owners != (self.patient.id,):
            message = "the answers are gone"
            raise Conflict(message)
        tree = json.parse(row.body)
        if tree.get("status") not in DONE:
            message = "the answers were taken back"
            raise Conflict(message)
        return tree

    async def _new(
        self, proposed: dict[str, Any], decision: _Decision, answers: Mapping[str, Any]
    ) -> Row:
        if decision.fields:
            message = "fields are chosen of the Patient alone"
            raise Unprocessable(message, expression=parameter("decision"))
        made = proposed if decision.resource is None else decision.resource
        if made.get("resourceType") != proposed["resourceType"]:
            message = "what is accepted is of the same type as what was proposed"
            raise Unprocessable(message, expression=parameter("decision"))
        require_own_files(made, proposed)
        # Whatever stands in the Task, or in its place: it is about this patient and no other.
        tree = finished(made, answers)
        if tree is None:
            message = "this type does not come out of a form"
            raise Unprocessable(message, expression=parameter("decision"))
        # What was answered in confidence, or is withheld, stays so.
        for name, codings in labelling(answers).items():
            tree["meta"][name] = [*tree["meta"].get(name, ()), *codings]
        require_valid(tree)
        return await self.create(tree)

    async def _patient(self, name: str, proposed: dict[str, Any], decision: _Decision) -> Row:
        if decision.resource is not None:
            if decision.resource.get("resourceType") != "Patient":
                message = "what is accepted is of the same type as what was proposed"
                raise Unprocessable(message, expression=parameter("decision"))
            require_own_files(decision.resource, proposed)
            kept = ("resourceType", *DEMOGRAPHICS)
            proposed = {n: v for n, v in decision.resource.items() if n in kept}
        names = [one for one in DEMOGRAPHICS if one in proposed]
        wrong = [one for one in decision.fields if one not in names]
        if wrong or not names:
            message = "a field is an element that is proposed"
            raise Unprocessable(message, expression=parameter("decision"))
        visible = Visibility.of_server("Patient", practice=self.practice)
        row = await self.transaction.read(self.patient, visible)
        if row is None or row.deleted:
            message = "the patient's record is gone"
            raise NotFound(message)
        looked_at = self.call.arguments.one("version") or self._base(name)
        if looked_at != str(row.version):
            message = (
                "the patient's record has changed since: look at version "
                f"{row.version} and decide again with it"
            )
            raise PreconditionFailed(message, expression=parameter("version"))
        tree = merged(json.parse(row.body), proposed, list(decision.fields) or names)
        require_valid(tree)
        return await self.update(row.key, tree, if_match=f'W/"{row.version}"')

    def _base(self, name: str) -> str:
        """Return the version of the Patient that a proposal was made against."""
        for one in self.task.get("input") or ():
            if (one.get("valueReference") or {}).get("reference") == f"#{name}":
                for extension in one.get("extension") or ():
                    if extension.get("url") == BASE:
                        return str(extension["valueReference"]["reference"]).rpartition("/")[2]
        return ""
