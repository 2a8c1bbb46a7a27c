"""``Task/[id]/$review-proposal``: staff decide about what people propose, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import labelling
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, PreconditionFailed, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.changed_contacts import tell_removed
from fhir_portal.operations.deciding import (
    ACTIONS,
    Deciding,
    others_of,
    require_own_files,
    require_valid,
)
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.portal_invite import words
from fhir_portal.resources.forms.extract import finished
from fhir_portal.resources.forms.request import concept
from fhir_portal.resources.proposal import (
    CARD,
    FIELD,
    REASON,
    Proposed,
    changed_since,
    is_open,
    proposed_in,
    section_of,
    value_of,
    with_value,
)
from fhir_portal.resources.store import ResourceTransaction, Row

DOCUMENT: Final = "https://fhir-portal.example/ig/CodeSystem/portal-document"
INSURANCE_CARD: Final = "insurance-card"
_LONGEST: Final = 500
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Decision:
    action: str
    resource: Mapping[str, Any] | None = None
    version: str | None = None
    reason: str = ""


_Decisions = Mapping[str, Mapping[str, _Decision]]
"""By proposal and field; ``""`` is for all fields that no other decision names."""


async def review_proposal(call: Call) -> FhirResponse:
    """Carry out all decisions in one transaction.

    Raises:
        Unprocessable: a field is not decided about, or what is accepted in its place is wrong.
        Conflict: it was decided already. PreconditionFailed: a field that is accepted was changed
            since it was proposed, and nobody says that they have looked at that.
    """
    others = others_of(call)
    decisions = _decisions(call)
    reason = words(call, "reason")

    async def work(transaction: ResourceTransaction) -> tuple[Row, list[Row]]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        task = json.parse(row.body)
        if section_of(task) is None:
            message = "this Task proposes nothing"
            raise Unprocessable(message)
        if not is_open(task):
            message = "this was decided already"
            raise Conflict(message)
        review = _Review(call, transaction, task, reason)
        review.outputs += task.get("output") or ()  # which contacts were proved
        accepted = await review.carry_out(decisions, others)
        await review.close(row, accepted, {"reference": str(row.key)})
        return row, accepted

    row, accepted = await call.server.store.transact(work)
    values = {
        "status": "completed" if accepted else "rejected",
        "accepted": [{"reference": str(one.key)} for one in accepted],
    }
    return call.answer(values, row, *accepted)


def _decisions(call: Call) -> _Decisions:
    found: dict[str, dict[str, _Decision]] = {}
    for one in call.arguments.all("decision"):
        name, action = str(one.one("proposal")), str(one.one("action"))
        reason, version = str(one.one("reason") or "").strip(), one.one("version")
        resource = one.one("resource")
        if action not in ACTIONS:
            message = f"action is one of {', '.join(ACTIONS)}"
            raise Unprocessable(message, expression=parameter("decision"))
        if action == "refuse" and (resource is not None or version is not None):
            message = "what is refused has nothing in its place"
            raise Unprocessable(message, expression=parameter("decision"))
        if len(reason) > _LONGEST or not reason.isprintable():
            message = f"a reason is one line of at most {_LONGEST} signs"
            raise Unprocessable(message, expression=parameter("decision"))
        by_field = found.setdefault(name, {})
        for field in one.all("field") or ("",):
            if field in by_field:
                message = "there is one decision about each field"
                raise Unprocessable(message, expression=parameter("decision"))
            by_field[str(field)] = _Decision(action, resource, version, reason)
    return found


class _Review(Deciding):
    """One review that is being carried out in a transaction."""

    async def carry_out(self, decisions: _Decisions, others: str | None) -> list[Row]:
        proposed = {one.name: one for one in proposed_in(self.task)}
        for name, by_field in decisions.items():
            known = {"", *proposed[name].fields} if name in proposed else set[str]()
            wrong = sorted(by_field.keys() - known)
            if wrong:
                message = f"there is no proposal {name[:20]} {wrong[0][:40]}".rstrip()
                raise Unprocessable(message, expression=parameter("decision"))
        accepted = list[Row]()
        for one in proposed.values():
            by_field = decisions.get(one.name, {})
            decided: dict[str, _Decision] = {}
            for field in one.fields or ("",):
                decision = by_field.get(field) or by_field.get("")
                if decision is None and others is not None:
                    decision = _Decision(others)
                if decision is None:
                    message = f"decide about {one.name} {field}, too".replace(" ,", ",")
                    raise Unprocessable(message, expression=parameter("decision"))
                decided[field] = decision
            row = await self._decide(one, decided)
            if row is not None:
                accepted.append(row)
        return accepted

    async def _decide(self, one: Proposed, decided: Mapping[str, _Decision]) -> Row | None:
        taken = {field: it for field, it in decided.items() if it.action == "accept"}
        row = None
        if taken:
            row = await (
                self._new(one, taken[""]) if one.base is None else self._changed(one, taken)
            )
        for field, decision in decided.items():
            self.outputs.append(_output(one, field, decision, row))
        return row

    async def _new(self, one: Proposed, decision: _Decision) -> Row:
        kind = str(one.tree["resourceType"])
        made = decision.resource or {n: v for n, v in one.tree.items() if n != "id"}
        if made.get("resourceType") != kind:
            message = "what is accepted is of the same type as what was proposed"
            raise Unprocessable(message, expression=parameter("decision"))
        require_own_files(made, one.tree)
        # Whatever stands in the Task, or in its place: it is about this patient and no other.
        said = {"subject": {"reference": str(self.patient)}}
        if "requester" in self.task:
            said["source"] = self.task["requester"]
        tree = finished(made, said)
        if tree is None or kind == "Patient":
            message = "this type does not come out of a proposal"
            raise Unprocessable(message, expression=parameter("decision"))
        if kind == "MedicationStatement":
            tree["status"] = "not-taken"
        self._label(tree)
        return await self._stored(tree)

    async def _changed(self, one: Proposed, taken: Mapping[str, _Decision]) -> Row:
        assert one.base is not None  # noqa: S101 - the caller has looked
        visible = Visibility.of_server(one.base.type, practice=self.practice)
        row = await self.transaction.read(one.base, visible)
        if row is None or row.deleted or row.facts.owners != (self.patient.id,):
            message = f"{one.base} is gone: refuse what would change it"
            raise Conflict(message)
        tree = json.parse(row.body)
        overwritten = changed_since(one.before or {}, tree, list(taken))
        unseen = [name for name in overwritten if taken[name].version != str(row.version)]
        if unseen:
            message = (
                f"{', '.join(unseen)} of {one.base} was changed since it was proposed: look at "
                f"version {row.version} and decide again with it"
            )
            raise PreconditionFailed(message, expression=parameter("decision"))
        before = json.parse(row.body)
        for field, decision in taken.items():
            given = one.tree if decision.resource is None else decision.resource
            if given.get("resourceType") != one.base.type:
                message = "what is accepted is of the same type as what was proposed"
                raise Unprocessable(message, expression=parameter("decision"))
            require_own_files(given, one.tree, before)
            with_value(tree, field, value_of(given, field))
        stored = await self._stored(tree, row)
        if one.base.type == "Patient":
            key = str(self.task["id"])
            await tell_removed(self.transaction, self.call, before, tree, key=key)
        return stored

    async def _stored(self, tree: dict[str, Any], before: Row | None = None) -> Row:
        if tree["resourceType"] == "Coverage":
            await self._file_cards(tree)
        require_valid(tree)
        if before is None:
            return await self.create(tree)
        return await self.update(before.key, tree, if_match=f'W/"{before.version}"')

    async def _file_cards(self, coverage: dict[str, Any]) -> None:
        """Have each new picture of a card become a document, which the Coverage refers to.

        CARIN Digital Insurance Card 2.0: ``image`` is a picture in the resource, or a reference to
        a DocumentReference.
        """
        filed = list[dict[str, Any]]()
        for extension in coverage.get("extension") or ():
            parts = {part.get("url"): part for part in extension.get("extension") or ()}
            attachment = (parts.get("image") or {}).get("valueAttachment") or {}
            if extension.get("url") == CARD and "url" in attachment:
                document = await self.create(self._document(attachment, coverage))
                parts["image"] = {
                    "url": "image",
                    "valueReference": {"reference": str(document.key)},
                }
                filed.append({**extension, "extension": list(parts.values())})
            else:
                filed.append(extension)
        if filed:
            coverage["extension"] = filed

    def _document(
        self, attachment: Mapping[str, Any], coverage: Mapping[str, Any]
    ) -> dict[str, Any]:
        title = str(attachment.get("title") or "Insurance card")
        tree: dict[str, Any] = {
            "resourceType": "DocumentReference",
            "status": "current",
            "type": {"text": title},
            "category": [{"coding": [{"system": DOCUMENT, "code": INSURANCE_CARD}]}],
            "subject": {"reference": str(self.patient)},
            "date": instant(int(self.call.server.clock() * _MICROSECONDS)),
            "content": [{"attachment": dict(attachment)}],
        }
        if "requester" in self.task:
            tree["author"] = [self.task["requester"]]
        self._label(tree, coverage)
        require_valid(tree)
        return tree

    def _label(self, tree: dict[str, Any], *like: Mapping[str, Any]) -> None:
        """What was said of something hidden is no less hidden."""
        for name, codings in labelling(self.task, *like).items():
            meta = tree.setdefault("meta", {})
            there = meta.get(name) or ()
            meta[name] = [*there, *(one for one in codings if one not in there)]


def _output(one: Proposed, field: str, decision: _Decision, row: Row | None) -> dict[str, Any]:
    """Return what the Task says of one decision, for whoever proposed it."""
    is_accepted = decision.action == "accept" and row is not None
    told: Sequence[tuple[str, str]] = ((FIELD, field), (REASON, decision.reason))
    extensions = [{"url": url, "valueString": text} for url, text in told if text]
    target = str(row.key) if is_accepted and row is not None else f"#{one.name}"
    return {
        **({"extension": extensions} if extensions else {}),
        "type": concept("accepted" if is_accepted else "refused"),
        "valueReference": {"reference": target},
    }
