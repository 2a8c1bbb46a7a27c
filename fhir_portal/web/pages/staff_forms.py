"""Forms at the staff pages: what is asked of whom, and what of the answers becomes record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.fhir.errors import FhirError, Forbidden, NotFound, PreconditionFailed
from fhir_portal.resources.forms.extract import DEMOGRAPHICS, merged
from fhir_portal.resources.forms.request import (
    FORM_TASK,
    OPEN,
    REQUESTS,
    REVIEW,
    has_code,
    is_request,
)
from fhir_portal.web.form import Pairs
from fhir_portal.web.pages.desk import FIND, FORMS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.form_words import answers_of
from fhir_portal.web.pages.proposal_words import FIELDS, KINDS, concept_words, words_of
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.staff_patients import PatientPages, described

_MOST: Final = 100
_MOST_FORMS: Final = 20
_LONGEST: Final = 200
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_STATUS: Final[Mapping[str, str]] = {
    "requested": "not begun",
    "in-progress": "begun",
    "completed": "handed in",
    "cancelled": "cancelled",
}
_DONE: Final[Mapping[str, str]] = {
    "decided": "Decided. What was accepted is part of the record.",
    "asked": "The form was asked for. The patient is told by mail.",
    "cancelled": "The form is asked for no more.",
}


class FormPages:
    """The list of forms, a patient's forms, and the page on which answers are decided about."""

    def __init__(self, desk: Desk, patients: PatientPages) -> None:
        self._desk = desk
        self._patients = patients

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        forms = f"{FIND}/{{patient}}/forms"
        return (
            (FORMS, "GET", desk_page(self.show)),
            (f"{FORMS}/{{task}}", "GET", desk_page(self.show_review, back=FORMS)),
            (f"{FORMS}/{{task}}", "POST", desk_page(self.decide, back=FORMS)),
            (f"{FORMS}/{{task}}/cancel", "POST", desk_page(self.cancel, back=FORMS)),
            (forms, "GET", desk_page(self.show_patient, back=FIND)),
            (forms, "POST", desk_page(self.ask, back=FIND)),
        )

    # --- lists ---------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """What has to be decided, and how far everybody has come."""
        here = await self._at(request)
        open_now = ",".join(OPEN)
        reviews = await self._desk.search_all(
            here,
            "Task",
            ("code", f"{FORM_TASK}|{REVIEW}"),
            ("status", open_now),
            ("_sort", "authored-on"),
        )
        asked = await self._desk.search_all(
            here, "Task", ("code", REQUESTS), ("status", open_now), ("_sort", "authored-on")
        )
        names = await self._desk.names_of_patients(here, map(_patient, [*reviews, *asked]))
        return self._desk.page(
            here,
            "staff_forms.html",
            reviews=[
                {
                    "address": f"{FORMS}/{one['id']}",
                    "who": names.get(_patient(one), "a patient"),
                    "when": here.moment(one.get("authoredOn")),
                    "what": ", ".join(
                        dict.fromkeys(KINDS[kind] for kind in _kinds(one) if kind in KINDS)
                    ),
                }
                for one in reviews
            ],
            asked=[
                {
                    **_request(here, one),
                    "who": names.get(_patient(one), "a patient"),
                    "address": f"{FIND}/{_patient(one)}/forms",
                }
                for one in asked
            ],
            full=len(reviews) >= _MOST or len(asked) >= _MOST,
            done=_DONE.get(request.query_params.get("done", ""), ""),
        )

    async def show_patient(self, request: Request) -> Response:
        """What is asked of a patient, and the form to ask for more."""
        here = await self._at(request)
        return await self._patient(here, request)

    async def ask(self, request: Request) -> Response:
        """Ask for the forms that were ticked."""
        own_id = request.path_params["patient"]
        here, pairs, form = await self._desk.posted(request, "forms", own_id)
        self._require(here)
        forms = [value for name, value in pairs if name == "form"]
        due, note = form.get("due", ""), form.get("note", "").strip()
        if not forms or len(forms) > _MOST_FORMS:
            return await self._patient(here, request, problem="Choose a form.")
        if due and not _DAY.fullmatch(due):
            return await self._patient(here, request, problem="Give the day as 2027-01-31.")
        given: list[tuple[str, str, Any]] = [
            ("questionnaire", "valueCanonical", one[:_LONGEST]) for one in forms
        ]
        given += [
            ("answer-by", "valueReference", {"reference": value[:_LONGEST]})
            for name, value in pairs
            if name == "by"
        ]
        given += [("due", "valueDate", due or None), ("note", "valueString", note or None)]
        try:
            await self._desk.call(here, "request-form", f"Patient/{own_id}", *given)
        except FhirError as error:
            if error.status != _UNPROCESSABLE:
                raise
            return await self._patient(here, request, problem=f"It was not done: {error}.")
        return redirect(f"{FIND}/{own_id}/forms?done=asked")

    async def cancel(self, request: Request) -> Response:
        """Ask for one form no more."""
        own_id = request.path_params["task"]
        here, _, form = await self._desk.posted(request, "cancel-form", own_id)
        self._require(here)
        task = await self._task(here, own_id)
        reason = form.get("reason", "")[:_LONGEST]
        await self._desk.call(
            here, "cancel-form", f"Task/{own_id}", ("reason", "valueString", reason)
        )
        return redirect(f"{FIND}/{_patient(task)}/forms?done=cancelled")

    async def _patient(self, here: AtDesk, request: Request, *, problem: str = "") -> Response:
        patient = await self._patients.patient(here, request)
        own_id = patient["id"]
        found = await self._desk.search_all(
            here,
            "Task",
            ("patient", f"Patient/{own_id}"),
            ("code", REQUESTS),
            ("_sort", "-authored-on"),
        )
        forms = await self._desk.search_all(
            here, "Questionnaire", ("status", "active"), ("_sort", "title")
        )
        people = await self._desk.search_all(
            here, "RelatedPerson", ("patient", f"Patient/{own_id}")
        )
        return self._desk.page(
            here,
            "staff_patient_forms.html",
            status=400 if problem else 200,
            problem=problem,
            patient=described(here, patient),
            back=f"{FIND}/{own_id}",
            requests=[
                {
                    **_request(here, one),
                    "cancel": f"{FORMS}/{one['id']}/cancel" if one["status"] in OPEN else "",
                    "token": self._desk.form_token(here, "cancel-form", one["id"]),
                }
                for one in found
            ],
            forms=[
                {
                    "canonical": _canonical(one),
                    "title": str(one.get("title") or one.get("name") or one["url"]),
                    "about": str(one.get("description", "")),
                }
                for one in forms
                if one.get("url")
            ],
            people=[
                (f"Patient/{own_id}", "the patient"),
                *((f"RelatedPerson/{one['id']}", name_of(one)) for one in people),
            ],
            action=f"{FIND}/{own_id}/forms",
            form_token=self._desk.form_token(here, "forms", own_id),
            done=_DONE.get(request.query_params.get("done", ""), ""),
        )

    # --- deciding ------------------------------------------------------------------------------

    async def show_review(self, request: Request) -> Response:
        here = await self._at(request)
        return await self._review(here, request.path_params["task"])

    async def decide(self, request: Request) -> Response:
        """Carry out what was decided about each proposal."""
        own_id = request.path_params["task"]
        here, pairs, form = await self._desk.posted(request, "review-form", own_id)
        self._require(here)
        task = await self._task(here, own_id)
        decisions = []
        for one in task.get("contained") or ():
            name = str(one.get("id", ""))
            action = form.get(f"{name}.action", "")
            if action not in {"accept", "refuse"}:
                return await self._review(here, own_id, problem="Decide about each of them.")
            parts: list[dict[str, Any]] = [
                {"name": "proposal", "valueString": name},
                {"name": "action", "valueCode": action},
            ]
            if action == "accept":
                parts += _accepted(one, pairs, form)
                if one["resourceType"] == "Patient" and not any(
                    part["name"] == "field" for part in parts
                ):
                    message = "Choose which of the personal details to take over, or refuse them."
                    return await self._review(here, own_id, problem=message)
            decisions.append(("decision", "part", parts))
        version = form.get("version", "") or None
        try:
            await self._desk.call(
                here,
                "review-form",
                f"Task/{own_id}",
                *decisions,
                ("version", "valueString", version),
                ("reason", "valueString", form.get("reason", "").strip()[:_LONGEST] or None),
            )
        except PreconditionFailed:
            message = "The record was changed meanwhile. This is how it is now: decide again."
            return await self._review(here, own_id, problem=message)
        return redirect(f"{FORMS}?done=decided")

    async def _review(self, here: AtDesk, own_id: str, *, problem: str = "") -> Response:
        task = await self._task(here, own_id)
        if not has_code(task, REVIEW):
            raise NotFound
        patient = await self._desk.ask(here, "read", "Patient", _patient(task))
        answers = None
        focus = str((task.get("focus") or {}).get("reference", "")).rpartition("/")[2]
        try:
            answers = (await self._desk.ask(here, "read", "QuestionnaireResponse", focus)).tree
        except (NotFound, Forbidden):
            answers = {}
        source = str((task.get("requester") or {}).get("reference", ""))
        said_by = "the patient" if source.startswith("Patient/") else "somebody who acts for them"
        return self._desk.page(
            here,
            "staff_form_review.html",
            status=400 if problem else 200,
            problem=problem,
            patient=described(here, patient.tree),
            address=f"{FIND}/{patient.tree['id']}",
            said_by=said_by,
            when=here.moment(task.get("authoredOn")),
            is_open=task["status"] in OPEN,
            proposals=[_proposal(one, patient.tree) for one in task.get("contained") or ()],
            answers=answers_of(answers),
            version=patient.version,
            action=f"{FORMS}/{own_id}",
            back=FORMS,
            form_token=self._desk.form_token(here, "review-form", own_id),
        )

    # --- who is there --------------------------------------------------------------------------

    async def _at(self, request: Request) -> AtDesk:
        here = await self._desk.at(request)
        self._require(here)
        return here

    @staticmethod
    def _require(here: AtDesk) -> None:
        if not (here.may("view") and here.may("forms")):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders see forms")

    async def _task(self, here: AtDesk, own_id: str) -> Mapping[str, Any]:
        if not _ID.fullmatch(own_id):
            raise NotFound
        task = (await self._desk.ask(here, "read", "Task", own_id)).tree
        if not (is_request(task) or has_code(task, REVIEW)):
            raise NotFound
        return task


_UNPROCESSABLE: Final = 422


def _patient(task: Mapping[str, Any]) -> str:
    return str((task.get("for") or {}).get("reference", "")).rpartition("/")[2]


def _kinds(task: Mapping[str, Any]) -> list[str]:
    return [str(one.get("resourceType")) for one in task.get("contained") or ()]


def _canonical(tree: Mapping[str, Any]) -> str:
    return f"{tree['url']}|{tree['version']}" if tree.get("version") else str(tree["url"])


def _request(here: AtDesk, task: Mapping[str, Any]) -> dict[str, Any]:
    restriction = task.get("restriction") or {}
    return {
        "id": task["id"],
        "title": str(task.get("description") or "A form"),
        "when": here.moment(task.get("authoredOn")),
        "due": here.moment((restriction.get("period") or {}).get("end")),
        "status": _STATUS.get(task["status"], task["status"]),
        "why": str((task.get("statusReason") or {}).get("text", "")),
    }


def _accepted(
    proposed: Mapping[str, Any], pairs: Pairs, form: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the fields that were ticked, or what was written in the place of what was proposed."""
    name = proposed["id"]
    if proposed["resourceType"] == "Patient":
        ticked = [value for key, value in pairs if key == f"{name}.field"]
        return [{"name": "field", "valueString": one} for one in ticked if one in FIELDS]
    text = form.get(f"{name}.text", "").strip()[:_LONGEST]
    holder = _named(proposed)
    if holder is None or not text or text == _text(proposed):
        return []
    bare = {key: value for key, value in proposed.items() if key != "id"}
    return [{"name": "resource", "resource": _renamed(bare, text)}]


def _named(tree: Mapping[str, Any]) -> str | None:
    """Return the element by which a proposal is called."""
    for name in ("code", "medicationCodeableConcept"):
        if name in tree:
            return name
    return "condition" if tree.get("condition") else None


def _text(tree: Mapping[str, Any]) -> str:
    name = _named(tree)
    if name is None:
        return ""
    concept: Any = tree[name]
    if name == "condition":
        concept = concept[0].get("code") or {}
    return concept_words(concept)


def _renamed(tree: dict[str, Any], text: str) -> dict[str, Any]:
    name = _named(tree)
    if name == "condition":
        first = {**tree["condition"][0], "code": {"text": text}}
        return {**tree, "condition": [first, *tree["condition"][1:]]}
    return {**tree, str(name): {"text": text}}


def _proposal(tree: Mapping[str, Any], patient: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(tree["resourceType"])
    found: dict[str, Any] = {
        "id": tree["id"],
        "kind": KINDS.get(kind, kind),
        "text": _text(tree),
        "facts": list(_facts(tree)),
        "fields": [],
    }
    if kind == "Patient":
        names = [one for one in DEMOGRAPHICS if one in tree]
        after = merged(patient, tree, names)
        found["fields"] = [
            (one, FIELDS[one], words_of(patient.get(one)) or "nothing", words_of(after[one]))
            for one in names
        ]
    return found


def _facts(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    happens = (words_of(one.get("manifestation")) for one in tree.get("reaction") or ())
    taken = (str(one.get("text", "")) for one in tree.get("dosage") or ())
    plans = (str(one.get("display", "")) for one in tree.get("payor") or ())
    found = [
        ("Since", str(tree.get("onsetString") or tree.get("onsetDateTime") or "")),
        ("What happens", "; ".join(happens)),
        ("How it is taken", "; ".join(taken)),
        ("Who", concept_words(tree.get("relationship") or {})),
        ("Health plan", ", ".join(plans)),
        ("Member number", str(tree.get("subscriberId", ""))),
    ]
    return [(label, value) for label, value in found if value]
