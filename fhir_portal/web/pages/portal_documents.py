"""The portal's pages about documents: the list, one of them, its files, the record to keep.

Every file is given out to a GET that the session's cookie goes with, through
`fhir_portal.portal.Portal.perform`: the link is worth nothing in another browser, and nothing once
the session, the sign-in or the grant is over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.consent.labels import is_supplied
from fhir_portal.documents.titles import title_of, type_token
from fhir_portal.documents.wording import days, words_of
from fhir_portal.fhir.errors import Forbidden, NotFound
from fhir_portal.fhir.interaction import Activity, FhirRequest
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.pages.desk import Answer, parameters
from fhir_portal.web.pages.document_files import (
    LONGEST_TEXT,
    File,
    Read,
    content_of,
    file_at,
    files_of,
    lines_of,
)
from fhir_portal.web.pages.portal import (
    ACTIVITY,
    DOCUMENTS,
    VISITS,
    AtPortal,
    PatientRoom,
    portal_page,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import SHOWN, attached, download, printed

ONE: Final = f"{DOCUMENTS}/one"
SUMMARY: Final = f"{DOCUMENTS}/summary"
NEW: Final = f"{DOCUMENTS}/new"
COUNT: Final = 50
_MOST: Final = 100
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_NUMBER: Final = re.compile(r"[1-9][0-9]?")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NO_DAY: Final = "Give days as 2027-01-31."
_PAGE: Final = re.compile(r"[A-Za-z0-9_-]{1,4000}")
_DONE: Final[Mapping[str, str]] = {
    "sent": "Your document was sent. The practice looks at it, and you are told when it has.",
}
_SUMMARIES: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "page": ("health-summary", "summary", "html", "health-summary.html"),
    "pdf": ("health-summary", "summary", "pdf", "health-summary.pdf"),
    "fhir": ("health-summary", "summary", "", "health-summary.json"),
    "ccda": ("documents", "ccd", "", "record.xml"),
}
"""Section, operation, format and file name of what a record can be kept as."""
_NAMES: Final[Mapping[str, str]] = {
    "page": "Web page",
    "pdf": "PDF, to print",
    "fhir": "FHIR, for apps and other portals",
    "ccda": "C-CDA, for other clinics",
}


class PortalDocumentPages:
    """The list, a document, what it holds, and the summary of the record."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{ONE}/{{document}}"
        return (
            (DOCUMENTS, "GET", portal_page(self.show)),
            (DOCUMENTS, "POST", portal_page(self.filter, back=DOCUMENTS)),
            (f"{SUMMARY}/{{form}}", "GET", portal_page(self.summary, back=DOCUMENTS)),
            (one, "GET", portal_page(self.show_one, back=DOCUMENTS)),
            (f"{one}/read/{{number}}", "GET", portal_page(self.read, back=DOCUMENTS)),
            (f"{one}/file/{{number}}", "GET", portal_page(self.file, back=DOCUMENTS)),
        )

    # --- the list ------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        return await self._list(here, {}, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def filter(self, request: Request) -> Response:
        """Show some of them; what somebody looks for stands in no address."""
        here, form = await self._room.posted(request, DOCUMENTS)
        return await self._list(here, form)

    async def _list(self, here: AtPortal, asked: Mapping[str, str], *, done: str = "") -> Response:
        own = ("patient", here.record.patient)
        latest = await self._search(here, own, ("status", "current"), ("_sort", "-date"))
        names = await self._names(here, latest.entries)
        types = {type_token(one): title_of(one) for one in latest.entries if type_token(one)}
        authors = {
            str(who["reference"]): here.called(who, names)
            for one in latest.entries
            for who in one.get("author") or ()
            if who.get("reference")
        }
        given = {name: asked.get(name, "").strip() for name in ("type", "author", "from", "to")}
        problem, query = _query(here, given, types, authors)
        found = latest
        page = asked.get("page", "")
        if page and not _PAGE.fullmatch(page):
            raise NotFound("there is no such page")
        if page:
            found = await self._search(here, ("_page", page))
        elif query or latest.next:
            pairs = (own, ("status", "current"), *query, ("_sort", "-date"))
            found = await self._search(here, *pairs, count=COUNT)
        if page or query:
            names = {**names, **await self._names(here, found.entries)}
        returned = []
        if not (page or query or problem):
            returned = await self._returned(here)
        return self._room.page(
            here,
            "portal_documents.html",
            status=400 if problem else 200,
            done=done,
            problem=problem,
            action=DOCUMENTS,
            form_token=self._room.form_token(here, DOCUMENTS),
            documents=[self._line(here, one, names) for one in found.entries],
            more=found.next,
            filtered=bool(page or query),
            given=given,
            types=sorted(types.items(), key=lambda one: one[1]),
            authors=sorted(authors.items(), key=lambda one: one[1]),
            returned=[self._line(here, one, names) for one in returned],
            summaries=_summaries(here),
            read=f"{SUMMARY}/read" if here.sees("health-summary") else "",
            new_document=NEW if here.acts("documents") else "",
            activity=ACTIVITY,
            all=DOCUMENTS,
        )

    async def _search(self, here: AtPortal, *query: tuple[str, str], count: int = _MOST) -> Answer:
        pairs = query if query[0][0] == "_page" else (*query, ("_count", str(count)))
        return await self._room.ask(here, "search-type", "DocumentReference", query=pairs)

    async def _returned(self, here: AtPortal) -> list[Mapping[str, Any]]:
        """What somebody of the patient's side brought, and the practice did not take."""
        found = await self._search(
            here,
            ("patient", here.record.patient),
            ("status", "entered-in-error"),
            ("_sort", "-date"),
        )
        return [one for one in found.entries if is_supplied(one)]

    def _line(
        self, here: AtPortal, one: Mapping[str, Any], names: Mapping[str, str]
    ) -> dict[str, Any]:
        title = title_of(one)
        about = str(one.get("description") or "")
        return {
            "address": f"{ONE}/{one['id']}",
            "title": title,
            "about": about if about != title else "",
            "when": here.moment(one.get("date")),
            "who": _authors(here, one, names),
            "new": self._is_new(here, one),
            "state": _state(one),
        }

    @staticmethod
    def _is_new(here: AtPortal, one: Mapping[str, Any]) -> bool:
        """Whether it came, or was changed, since the last visit; what waits is no news."""
        since = here.session.since
        if not since or (is_supplied(one) and one.get("docStatus") == "preliminary"):
            return False
        return datetime.fromisoformat(one["meta"]["lastUpdated"]).timestamp() > since

    # --- one of them ---------------------------------------------------------------------------

    async def show_one(self, request: Request) -> Response:
        here = await self._room.at(request)
        tree = await self._document(here, request)
        own_id = tree["id"]
        names = await self._names(here, [tree])
        context = tree.get("context") or {}
        visits = [str(one.get("reference") or "") for one in context.get("encounter") or ()]
        taken_back = tree.get("status") == "entered-in-error"
        return self._room.page(
            here,
            "portal_document.html",
            title=title_of(tree),
            facts=[
                (name, value)
                for name, value in (
                    ("Called", str(tree.get("description") or "")),
                    ("Kind", words_of(tree.get("type"))),
                    ("Filed", here.moment(tree.get("date"))),
                    ("Covers", days(context.get("period"))),
                    ("By", _authors(here, tree, names)),
                )
                if value
            ],
            state=_state(tree),
            reason=await self._reason(here, own_id) if taken_back else "",
            files=[
                {
                    "name": one.name,
                    "kind": one.kind,
                    "here": one.is_here,
                    "written": here.moment(one.attachment.get("creation")),
                    "read": f"{ONE}/{own_id}/read/{one.number}"
                    if one.shown_as and (one.shown_as != "cda" or here.sees("documents"))
                    else "",
                    "picture": one.shown_as == "picture",
                    "save": f"{ONE}/{own_id}/file/{one.number}",
                }
                for one in files_of(tree)
                if not taken_back
            ],
            visit=f"{VISITS}/{visits[0].partition('/')[2]}"
            if visits and visits[0].startswith("Encounter/") and here.sees("visits")
            else "",
            back=DOCUMENTS if here.sees("documents") else VISITS,
            back_name="Documents" if here.sees("documents") else "Visits",
        )

    async def read(self, request: Request) -> Response:
        """Show a file: text as text, a picture, a C-CDA as the page made of it."""
        here = await self._room.at(request)
        tree = await self._document(here, request)
        file = self._file(tree, request)
        if file.shown_as == "cda":
            target = f"DocumentReference/{tree['id']}"
            _, content = await self._made(here, target, "render", b"", "view")
            return self._given(here, printed(content))
        media, content = await content_of(file, self._binaries(here, "view"))
        if file.shown_as == "picture" and media in SHOWN:
            return self._given(here, attached(content, file.saved_as, media))
        if file.shown_as != "text" or len(content) > LONGEST_TEXT:
            return self._given(here, download(content, file.saved_as, media))
        return self._room.page(
            here,
            "portal_document_text.html",
            title=title_of(tree),
            name=file.name,
            lines=lines_of(content),
            back=f"{ONE}/{tree['id']}",
        )

    async def file(self, request: Request) -> Response:
        """Give a file to save, in the type that it has."""
        here = await self._room.at(request)
        tree = await self._document(here, request)
        file = self._file(tree, request)
        if not file.key:  # the DocumentReference holds it: that is what is taken
            await self._room.ask(here, "read", "DocumentReference", tree["id"], activity="download")
        media, content = await content_of(file, self._binaries(here, "download"))
        return self._given(here, download(content, file.saved_as, media))

    # --- the record to keep --------------------------------------------------------------------

    async def summary(self, request: Request) -> Response:
        """Give the summary of the record to save; ``read`` shows it."""
        here = await self._room.at(request)
        name = request.path_params["form"]
        shown = name == "read"
        if not shown and name not in _SUMMARIES:
            raise NotFound("there is no such form")
        _, operation, form, saved_as = _SUMMARIES["page" if shown else name]
        body = parameters(("format", "valueCode", form or None))
        activity: Activity = "view" if shown else "download"
        media, content = await self._made(here, here.record.patient, operation, body, activity)
        answer = printed(content) if shown else download(content, saved_as, media)
        return self._given(here, answer)

    async def _made(
        self, here: AtPortal, target: str, operation: str, body: bytes, activity: Activity
    ) -> tuple[str, bytes]:
        """Call an operation that makes a document; return media type and bytes of it."""
        name, _, own_id = target.partition("/")
        asked = FhirRequest(
            "operation", name, own_id, operation=operation, body=body, activity=activity
        )
        found = await self._room.perform(here, asked)
        return found.binary or ("application/fhir+json", found.body)

    # --- what all of them ask ------------------------------------------------------------------

    def _given(self, here: AtPortal, answer: Response) -> Response:
        """A long file ends with the access of whoever takes it."""
        return while_allowed(self._room.downloads, here.auth, answer)

    async def _document(self, here: AtPortal, request: Request) -> Mapping[str, Any]:
        own_id = request.path_params["document"]
        if not _ID.fullmatch(own_id):
            raise NotFound("there is nothing at this address")
        found = await self._room.ask(here, "read", "DocumentReference", own_id, activity="view")
        return found.tree

    @staticmethod
    def _file(tree: Mapping[str, Any], request: Request) -> File:
        """Return one file; what was not taken, or taken back, gives out none. `NotFound`."""
        if tree.get("status") == "entered-in-error":
            raise NotFound("there is no such file")
        return file_at(tree, _number(request))

    def _binaries(self, here: AtPortal, activity: Activity) -> Read:
        async def read(own_id: str) -> Answer:
            return await self._room.ask(here, "read", "Binary", own_id, activity=activity)

        return read

    async def _names(
        self, here: AtPortal, documents: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, str]:
        """Names of those of the practice who wrote them."""
        prefix = "Practitioner/"
        references = [
            str(who.get("reference") or "") for one in documents for who in one.get("author") or ()
        ]
        wanted = sorted({one.removeprefix(prefix) for one in references if one.startswith(prefix)})
        return await self._room.names_of(here, wanted) if wanted else {}

    async def _reason(self, here: AtPortal, own_id: str) -> str:
        """Why the practice did not take it: that is in the Provenance."""
        try:
            found = await self._room.ask(
                here,
                "search-type",
                "Provenance",
                query=(("target", f"DocumentReference/{own_id}"), ("_sort", "-recorded")),
            )
        except Forbidden:
            return ""
        said = [words_of(why) for one in found.entries for why in one.get("reason") or ()]
        return next(filter(None, said), "")


def _summaries(here: AtPortal) -> list[tuple[str, str]]:
    """Address and name of what this record can be kept as, for who sees the section."""
    return [
        (f"{SUMMARY}/{name}", _NAMES[name])
        for name, (section, *_) in _SUMMARIES.items()
        if here.sees(section)
    ]


def _query(
    here: AtPortal, given: Mapping[str, str], types: Mapping[str, str], authors: Mapping[str, str]
) -> tuple[str, list[tuple[str, str]]]:
    """Return what is wrong with a filter, or ``""``, and the search that it is.

    Days are those of the practice.
    """
    if (given["type"] and given["type"] not in types) or (
        given["author"] and given["author"] not in authors
    ):
        return "Choose from the lists.", []
    query = [(name, given[name]) for name in ("type", "author") if given[name]]
    for name, prefix, after in (("from", "ge", 0), ("to", "lt", 1)):
        if not given[name]:
            continue
        if not _DAY.fullmatch(given[name]):
            return _NO_DAY, []
        try:
            there = here.midnight(date.fromisoformat(given[name]) + timedelta(days=after))
        except (ValueError, OverflowError):
            return _NO_DAY, []
        query.append(("date", f"{prefix}{there}"))
    return "", query


def _authors(here: AtPortal, tree: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(here.called(who, names) for who in tree.get("author") or ()))


def _state(tree: Mapping[str, Any]) -> str:
    """How what somebody brought stands; ``""`` for what is the practice's own."""
    if tree.get("status") == "superseded":
        return "There is a newer version of it"
    if tree.get("status") == "entered-in-error":
        return "The practice did not take it" if is_supplied(tree) else "It was taken back"
    if tree.get("docStatus") != "preliminary":
        return ""
    return "The practice is to look at it" if is_supplied(tree) else "Not final yet"


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not _NUMBER.fullmatch(text):
        raise NotFound("there is no such file")
    return int(text)
