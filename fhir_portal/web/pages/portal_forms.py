"""``/portal/forms``: what is to be filled in, saving and going on later, what was handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.owners import local_target
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import FhirError, Forbidden, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.resources.forms.known import form_of_tree
from fhir_portal.resources.forms.populate import asked_only, calculated
from fhir_portal.resources.forms.questionnaire import Questionnaire
from fhir_portal.resources.forms.questionnaire_response import SIGNATURE
from fhir_portal.resources.forms.request import (
    COMPLETE,
    FORM_TASK,
    OPEN,
    PRE_REGISTER,
    canonical_of,
    is_request,
    values_of,
)
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.form_fields import fields, typed_in
from fhir_portal.web.pages.form_words import answers_of
from fhir_portal.web.pages.portal import FORMS, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect

SECTION: Final = "forms"
_TASK: Final = f"{FORMS}/fill-in"
_ANSWERS: Final = f"{FORMS}/answers"
_REQUESTS: Final = f"{FORM_TASK}|{COMPLETE},{FORM_TASK}|{PRE_REGISTER}"
_MOST: Final = 100
_MICROSECONDS: Final = 1_000_000
_SIGNED: Final = {
    "system": "urn:iso-astm:E1762-95:2013",
    "code": "1.2.840.10065.1.12.1.1",
    "display": "Author's Signature",
}
_DONE: Final[Mapping[str, str]] = {
    "saved": "Saved. You can go on later.",
    "handed-in": "Thank you. The practice has your answers.",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A form that somebody fills in: its Task, what is stored of it, and what it begins with."""

    task: Mapping[str, Any]
    form: Questionnaire
    stored: Mapping[str, Any] | None
    version: int | None
    items: list[dict[str, Any]]


class PatientFormPages:
    """The pages about forms of the record that is open."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{_TASK}/{{id}}"
        return (
            (FORMS, "GET", portal_page(self.show)),
            (one, "GET", portal_page(self.show_form, back=FORMS)),
            (one, "POST", portal_page(self.fill_in, back=FORMS)),
            (f"{_ANSWERS}/{{id}}", "GET", portal_page(self.show_answers, back=FORMS)),
        )

    async def show(self, request: Request) -> Response:
        """What is to be filled in, the first due first, and what was handed in."""
        here = await self._room.at(request)
        tasks = await self._room.ask(
            here,
            "search-type",
            "Task",
            query=(("code", _REQUESTS), ("status", ",".join(OPEN)), ("_count", str(_MOST))),
        )
        answers = await self._room.ask(
            here,
            "search-type",
            "QuestionnaireResponse",
            query=(
                ("status", "completed,amended"),
                ("_sort", "-authored"),
                ("_count", str(_MOST)),
            ),
        )
        asked = sorted(tasks.entries, key=lambda one: _due(one) or "9999")
        titles = await self._titles(here)
        given = dict(parse_pairs(request.scope["query_string"]))
        return self._room.page(
            here,
            "portal_forms.html",
            asked=[
                {
                    "address": f"{_TASK}/{one['id']}" if here.acts(SECTION) else "",
                    "title": _title(one),
                    "due": here.moment(_due(one)),
                    "begun": one["status"] == "in-progress",
                    "note": "; ".join(str(n.get("text", "")) for n in one.get("note") or ()),
                }
                for one in asked
            ],
            handed_in=[
                {
                    "address": f"{_ANSWERS}/{one['id']}",
                    "title": titles.get(_url(one), "A form"),
                    "when": here.moment(one.get("authored")),
                }
                for one in answers.entries
            ],
            done=_DONE.get(given.get("done", ""), ""),
        )

    async def show_answers(self, request: Request) -> Response:
        """Answers that were handed in, to be read for as long as they are in the record."""
        here = await self._room.at(request)
        tree = (
            await self._room.ask(here, "read", "QuestionnaireResponse", request.path_params["id"])
        ).tree
        source = str((tree.get("source") or {}).get("reference", ""))
        titles = await self._titles(here)
        return self._room.page(
            here,
            "portal_form_answers.html",
            title=titles.get(_url(tree), "A form"),
            when=here.moment(tree.get("authored")),
            by="" if source.startswith("Patient/") else "somebody who acts for the patient",
            answers=answers_of(tree),
            back=FORMS,
        )

    # --- filling in ----------------------------------------------------------------------------

    async def show_form(self, request: Request) -> Response:
        here = await self._acting(request)
        asked = await self._asked(here, request.path_params["id"])
        given = dict(parse_pairs(request.scope["query_string"]))
        return self._form(here, asked, asked.items, more=given.get("more", ""))

    async def fill_in(self, request: Request) -> Response:
        """Save what was typed; hand it in where that was the button."""
        own_id = request.path_params["id"]
        here, data = await self._room.posted(request, "form", own_id)
        self._require(here)
        asked = await self._asked(here, own_id)
        typed = typed_in(asked.form, data, asked.items)
        now = self._room.clock()
        items = asked_only(asked.form, calculated(asked.form, typed.items, now=now), now=now)
        hands_in = data.get("do") == "hand-in"
        if typed.errors:
            problem = "Some answers need another look. Nothing was saved yet."
            return self._form(
                here, asked, items, errors=typed.errors, typed=data, problem=problem, status=400
            )
        if hands_in and asked.form.signature and data.get("signed") != "yes":
            problem = "Sign the form before you hand it in: tick the box at its end."
            return self._form(here, asked, items, problem=problem, status=400)
        try:
            await self._store(here, asked, items, hands_in=hands_in)
        except Unprocessable as error:
            errors = {one.expression or "": _words(one.diagnostics) for one in error.issues}
            problem = "Some answers need another look. Nothing was saved yet."
            return self._form(here, asked, items, errors=errors, problem=problem, status=400)
        if hands_in:
            return redirect(f"{FORMS}?done=handed-in")
        if data.get("do", "").startswith("more:"):
            more = _plain(data["do"].removeprefix("more:"))
            return redirect(f"{_TASK}/{own_id}?more={more}#more")
        if data.get("do") == "go-on":
            return redirect(f"{_TASK}/{own_id}")
        return redirect(f"{FORMS}?done=saved")

    async def _store(
        self, here: AtPortal, asked: _Asked, items: list[dict[str, Any]], *, hands_in: bool
    ) -> None:
        moment = instant(int(self._room.clock() * _MICROSECONDS))
        own = {"reference": here.record.fhir_user}
        tree = dict(asked.stored or {})
        for name in ("item", "extension", "meta"):
            tree.pop(name, None)
        tree |= {
            "resourceType": "QuestionnaireResponse",
            "questionnaire": (asked.stored or {}).get("questionnaire") or asked.form.canonical,
            "status": "completed" if hands_in else "in-progress",
            "subject": {"reference": here.record.patient},
            "authored": moment,
            "author": own,
            "source": own,
        }
        if hands_in and asked.form.signature:
            signature = {"type": [_SIGNED], "when": moment, "who": own}
            tree["extension"] = [{"url": SIGNATURE, "valueSignature": signature}]
        if items:
            tree["item"] = items
        body = json.dumps(tree)
        if asked.stored is None:
            await self._room.ask(here, "create", "QuestionnaireResponse", body=body)
            return
        await self._room.perform(
            here,
            FhirRequest(
                "update",
                "QuestionnaireResponse",
                asked.stored["id"],
                body=body,
                if_match=f'W/"{asked.version}"',
            ),
        )

    async def _asked(self, here: AtPortal, own_id: str) -> _Asked:
        """Return the form of a Task that asks for one. Raises `FhirError`."""
        task = (await self._room.ask(here, "read", "Task", own_id)).tree
        if not is_request(task) or task["status"] not in OPEN:
            raise NotFound
        named = [one for one in values_of(task, "questionnaire") if isinstance(one, Mapping)]
        key = local_target(str(named[0].get("reference"))) if named else None
        if key is None or key.type != "Questionnaire":
            raise NotFound
        found = await self._room.perform(here, FhirRequest("read", "Questionnaire", key.id))
        reader, practice = self._room.portal.server.reader, here.session.practice
        form = await form_of_tree(reader, practice, found.body)
        stored, version = await self._begun(here, form)
        if stored is not None:
            return _Asked(task, form, stored, version, list(stored.get("item", ())))
        answer = await self._room.call(
            here,
            "populate",
            f"Questionnaire/{key.id}",
            ("subject", "valueReference", {"reference": here.record.patient}),
        )
        return _Asked(task, form, None, None, list(answer.value("response").get("item", ())))

    async def _begun(
        self, here: AtPortal, form: Questionnaire
    ) -> tuple[Mapping[str, Any] | None, int | None]:
        """Return what whoever is there has begun and not handed in; that of others is theirs."""
        found = await self._room.ask(
            here,
            "search-type",
            "QuestionnaireResponse",
            query=(("status", "in-progress"), ("_sort", "-_lastUpdated"), ("_count", str(_MOST))),
        )
        for one in found.entries:
            own = (one.get("source") or {}).get("reference") == here.record.fhir_user
            if own and _url(one) == form.url:
                answer = await self._room.ask(here, "read", "QuestionnaireResponse", one["id"])
                return answer.tree, answer.version
        return None, None

    def _form(
        self,
        here: AtPortal,
        asked: _Asked,
        items: list[dict[str, Any]],
        *,
        more: str = "",
        errors: Mapping[str, str] | None = None,
        typed: Mapping[str, str] | None = None,
        problem: str = "",
        status: int = 200,
    ) -> Response:
        own_id = asked.task["id"]
        listed = fields(
            asked.form,
            items,
            now=self._room.clock(),
            more=_plain(more),
            errors=errors,
            typed=typed,
        )
        said = {one.error for one in listed}
        elsewhere = [text for text in dict.fromkeys((errors or {}).values()) if text not in said]
        return self._room.page(
            here,
            "portal_form.html",
            status=status,
            problem=" ".join([problem, *elsewhere]).strip(),
            title=asked.form.title,
            about=str(asked.form.tree.get("description", "")),
            due=here.moment(_due(asked.task)),
            fields=listed,
            more=_plain(more),
            signature=asked.form.signature,
            signer="your own name" if here.auth.is_self else "your name, for the patient",
            action=f"{_TASK}/{own_id}",
            back=FORMS,
            form_token=self._room.form_token(here, "form", own_id),
        )

    async def _titles(self, here: AtPortal) -> dict[str, str]:
        """Titles of the forms that whoever is there may see, by url."""
        try:
            found = await self._room.ask(
                here, "search-type", "Questionnaire", query=(("_count", str(_MOST)),)
            )
        except FhirError:
            return {}
        return {
            str(one.get("url")): str(one.get("title") or one.get("name") or "A form")
            for one in found.entries
        }

    async def _acting(self, request: Request) -> AtPortal:
        here = await self._room.at(request)
        self._require(here)
        return here

    @staticmethod
    def _require(here: AtPortal) -> None:
        if not here.acts(SECTION):
            message = "the grant does not let this person act in forms"
            raise Forbidden(message)


def _plain(key: str) -> str:
    """Return the key of a field, without what no key has."""
    return "".join(sign for sign in key[:100] if sign.isdigit() or sign in ".-")


def _words(diagnostics: str) -> str:
    """Return what is wrong without the linkId, which is shown as the field itself."""
    _, colon, rest = diagnostics.partition(": ")
    text = rest if colon else diagnostics
    return f"{text[:1].upper()}{text[1:]}."


def _title(task: Mapping[str, Any]) -> str:
    return str(task.get("description") or canonical_of(task) or "A form")


def _due(task: Mapping[str, Any]) -> str | None:
    end = ((task.get("restriction") or {}).get("period") or {}).get("end")
    return None if end is None else str(end)


def _url(answers: Mapping[str, Any]) -> str:
    return str(answers.get("questionnaire", "")).partition("|")[0]
