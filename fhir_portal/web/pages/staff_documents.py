"""Documents at the staff pages: what patients sent, looked at, and taken in or not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.consent.labels import is_supplied
from fhir_portal.documents.titles import LOINC, TITLES, title_of
from fhir_portal.documents.wording import words_of
from fhir_portal.fhir.errors import FhirError, Forbidden, Invalid, NotFound, Unprocessable
from fhir_portal.fhir.interaction import Activity
from fhir_portal.operations.upload import KINDS, kinds
from fhir_portal.resources.task import CODE, OPEN, REVIEW_DOCUMENT
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.pages.desk import DOCUMENTS, FIND, Answer, AtDesk, Desk, desk_page
from fhir_portal.web.pages.document_files import (
    LONGEST_TEXT,
    Read,
    content_of,
    file_at,
    files_of,
    lines_of,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import SHOWN, attached, download, redirect
from fhir_portal.web.pages.staff_patients import described

_MOST: Final = 100
_LONGEST: Final = 500
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_NUMBER: Final = re.compile(r"[1-9][0-9]?")
_DONE: Final[Mapping[str, str]] = {
    "accept": "It is taken in. The patient is told by mail that there is an answer.",
    "refuse": "It is not taken. The patient is told by mail that there is an answer.",
}


class StaffDocumentPages:
    """The queue, and a document to be decided about with its files."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{DOCUMENTS}/{{document}}"
        return (
            (DOCUMENTS, "GET", desk_page(self.show)),
            (one, "GET", desk_page(self.show_one, back=DOCUMENTS)),
            (one, "POST", desk_page(self.decide, back=DOCUMENTS)),
            (f"{one}/read/{{number}}", "GET", desk_page(self.read, back=DOCUMENTS)),
            (f"{one}/file/{{number}}", "GET", desk_page(self.file, back=DOCUMENTS)),
        )

    async def show(self, request: Request) -> Response:
        """What waits, the longest first."""
        here = await self._at(request)
        found = await self._desk.search_all(
            here,
            "Task",
            ("code", f"{CODE}|{REVIEW_DOCUMENT}"),
            ("status", ",".join(sorted(OPEN))),
            ("_sort", "authored-on"),
        )
        documents = await self._desk.by_ids(
            here, "DocumentReference", (_id_in(one, "focus") for one in found)
        )
        patients = await self._desk.by_ids(here, "Patient", (_id_in(one, "for") for one in found))
        return self._desk.page(
            here,
            "staff_documents.html",
            documents=[
                {
                    "address": f"{DOCUMENTS}/{_id_in(task, 'focus')}",
                    "title": title_of(documents[_id_in(task, "focus")]),
                    "kind": words_of(documents[_id_in(task, "focus")].get("type")),
                    "who": name_of(patients.get(_id_in(task, "for"), {})) or "a patient",
                    "when": here.moment(task.get("authoredOn")),
                }
                for task in found
                if _waits(documents.get(_id_in(task, "focus"), {}))
            ],
            full=len(found) >= _MOST,
            done=_DONE.get(request.query_params.get("done", ""), ""),
        )

    async def show_one(self, request: Request) -> Response:
        here = await self._at(request)
        return await self._one(here, await self._document(here, request))

    async def decide(self, request: Request) -> Response:
        """Take it in, or not."""
        own_id = request.path_params["document"]
        here, _, form = await self._desk.posted(request, "review-document", own_id)
        self._require(here)
        tree = await self._document(here, request)
        decision = form.get("do", "")
        given: list[tuple[str, str, Any]] = [("decision", "valueCode", decision or None)]
        if decision == "refuse":
            given.append(("reason", "valueString", form.get("reason", "").strip() or None))
        else:
            given += _corrected(tree, form)
        try:
            await self._desk.call(here, "review-document", f"DocumentReference/{own_id}", *given)
        except (Invalid, Unprocessable) as error:
            return await self._one(here, tree, problem=f"It was not done: {_words(error)}.")
        return redirect(f"{DOCUMENTS}?done={decision}")

    async def _one(self, here: AtDesk, tree: Mapping[str, Any], *, problem: str = "") -> Response:
        own_id = tree["id"]
        patient = await self._desk.ask(here, "read", "Patient", _id_in(tree, "subject"))
        files = [file for file in files_of(tree) if file.is_here]
        author = str(((tree.get("author") or [{}])[0]).get("reference") or "")
        written = next((str(one.attachment.get("creation") or "") for one in files), "")
        return self._desk.page(
            here,
            "staff_document.html",
            status=400 if problem else 200,
            problem=problem,
            patient=described(here, patient.tree),
            address=f"{FIND}/{patient.tree['id']}",
            title=title_of(tree),
            kind=words_of(tree.get("type")),
            sent=here.moment(tree.get("date")),
            by="the patient" if author.startswith("Patient/") else "somebody who acts for them",
            written=written,
            confidential=bool((tree.get("meta") or {}).get("security")),
            files=[
                {
                    "name": one.name,
                    "kind": one.kind,
                    "picture": one.shown_as == "picture",
                    "read": f"{DOCUMENTS}/{own_id}/read/{one.number}"
                    if one.shown_as in {"picture", "text"}
                    else "",
                    "save": f"{DOCUMENTS}/{own_id}/file/{one.number}",
                }
                for one in files
            ],
            is_open=_waits(tree),
            types=_types(),
            action=f"{DOCUMENTS}/{own_id}",
            form_token=self._desk.form_token(here, "review-document", own_id),
            back=DOCUMENTS,
        )

    # --- its files -----------------------------------------------------------------------------

    async def read(self, request: Request) -> Response:
        """Show a picture or a text; nothing of it can run here."""
        here = await self._at(request)
        tree = await self._document(here, request)
        file = file_at(tree, _number(request))
        media, content = await content_of(file, self._binaries(here, "view"))
        if file.shown_as == "picture" and media in SHOWN:
            return self._given(here, attached(content, file.saved_as, media))
        if file.shown_as != "text" or len(content) > LONGEST_TEXT:
            return self._given(here, download(content, file.saved_as, media))
        return self._desk.page(
            here,
            "staff_document_text.html",
            title=title_of(tree),
            name=file.name,
            lines=lines_of(content),
            back=f"{DOCUMENTS}/{tree['id']}",
        )

    async def file(self, request: Request) -> Response:
        here = await self._at(request)
        file = file_at(await self._document(here, request), _number(request))
        media, content = await content_of(file, self._binaries(here, "download"))
        return self._given(here, download(content, file.saved_as, media))

    def _given(self, here: AtDesk, answer: Response) -> Response:
        """A long file ends with the access of whoever takes it."""
        return while_allowed(self._desk.downloads, here.auth, answer)

    def _binaries(self, here: AtDesk, activity: Activity) -> Read:
        async def read(own_id: str) -> Answer:
            return await self._desk.ask(here, "read", "Binary", own_id, activity=activity)

        return read

    # --- who is there --------------------------------------------------------------------------

    async def _at(self, request: Request) -> AtDesk:
        here = await self._desk.at(request)
        self._require(here)
        return here

    @staticmethod
    def _require(here: AtDesk) -> None:
        if not (here.may("view") and here.may("documents")):
            raise Forbidden(
                f"the level '{here.staff.level}' does not let its holders see documents"
            )

    async def _document(self, here: AtDesk, request: Request) -> Mapping[str, Any]:
        """Return what somebody sent; the rest of the chart is no matter of this page."""
        own_id = request.path_params["document"]
        if not _ID.fullmatch(own_id):
            raise NotFound
        tree = (await self._desk.ask(here, "read", "DocumentReference", own_id)).tree
        if not is_supplied(tree):
            raise NotFound
        return tree


def _corrected(tree: Mapping[str, Any], form: Mapping[str, str]) -> list[tuple[str, str, Any]]:
    """Return what staff changed of what was said: nothing where they left it."""
    title, kind, date = (form.get(name, "").strip() for name in ("title", "type", "date"))
    given: list[tuple[str, str, Any]] = []
    if title and title != tree.get("description"):
        given.append(("title", "valueString", title[:_LONGEST]))
    if kind:
        system, _, code = kind.partition("|")
        words = dict(_types()).get(kind)
        if words is None:
            raise Invalid("choose the kind from the list")
        concept = {"coding": [{"system": system, "code": code}], "text": words}
        given.append(("type", "valueCodeableConcept", concept))
    if date:
        given.append(("date", "valueDate", date))
    return given


def _types() -> list[tuple[str, str]]:
    """What kinds of documents staff can choose from, those of a chart first."""
    of_chart = sorted(TITLES.items(), key=lambda one: one[1])
    return [
        *((f"{LOINC}|{code}", words) for code, words in of_chart),
        *((f"{KINDS}|{code}", words) for code, words in kinds().items()),
    ]


def _waits(tree: Mapping[str, Any]) -> bool:
    """Whether nobody has decided about a document: an EHR may have, without its Task."""
    return tree.get("docStatus") == "preliminary" and tree.get("status") == "current"


def _id_in(tree: Mapping[str, Any], member: str) -> str:
    return str((tree.get(member) or {}).get("reference") or "").partition("/")[2]


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not _NUMBER.fullmatch(text):
        raise NotFound
    return int(text)


def _words(error: FhirError) -> str:
    return "; ".join(one.diagnostics for one in error.issues if one.diagnostics).rstrip(".")
