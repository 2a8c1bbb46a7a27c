"""The portal's pages about visits: those that were and are planned, and what belongs to one.

Each group of a visit is what a search of whoever is there finds; a section that is not shared with
them has no group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.billing.amount import Amount, NoAmount
from fhir_portal.documents.narrative_text import narrative_lines
from fhir_portal.documents.titles import title_of, visit_title
from fhir_portal.documents.wording import amount, words_of
from fhir_portal.fhir.errors import Forbidden, NotFound
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.resources.communication import is_message, is_taken_back, is_thread
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.pages.desk import Answer, parameters
from fhir_portal.web.pages.portal import (
    APPOINTMENTS,
    DOCUMENTS,
    MESSAGES,
    PAGES,
    VISITS,
    AtPortal,
    PatientRoom,
    portal_page,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download

COUNT: Final = 30
_MOST: Final = 100
_LONGEST_LINE: Final = 60
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_PAGE: Final = re.compile(r"[A-Za-z0-9_-]{1,4000}")
_PLANNED: Final = "planned,arrived,triaged,in-progress,onleave"
_STATES: Final[Mapping[str, str]] = {
    "planned": "planned",
    "arrived": "arrived",
    "triaged": "arrived",
    "in-progress": "going on",
    "onleave": "interrupted",
    "cancelled": "cancelled",
}
_BILLS: Final[Mapping[str, str]] = {
    "draft": "not final yet",
    "issued": "open",
    "balanced": "settled",
    "cancelled": "cancelled",
}
_SHOWN: Final = frozenset({"registered", "partial", "preliminary", "final", "amended", "corrected"})


class VisitPages:
    """The list, a visit with what belongs to it, its notes, and its summary to keep."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{VISITS}/{{visit}}"
        return (
            (VISITS, "GET", portal_page(self.show)),
            (VISITS, "POST", portal_page(self.more, back=VISITS)),
            (one, "GET", portal_page(self.show_one, back=VISITS)),
            (f"{one}/summary", "GET", portal_page(self.summary, back=VISITS)),
            (f"{one}/note/{{note}}", "GET", portal_page(self.note, back=VISITS)),
        )

    # --- the list ------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        planned = await self._visits(here, ("status", _PLANNED), ("_sort", "date"))
        was = await self._visits(here, ("status", "finished"), ("_sort", "-date"), count=COUNT)
        return await self._list(here, planned.entries, was)

    async def more(self, request: Request) -> Response:
        """Earlier ones."""
        here, form = await self._room.posted(request, VISITS)
        if not _PAGE.fullmatch(form.get("page", "")):
            raise NotFound("there is no such page")
        return await self._list(here, (), await self._visits(here, ("_page", form["page"])))

    async def _list(
        self, here: AtPortal, planned: Sequence[Mapping[str, Any]], was: Answer
    ) -> Response:
        names = await self._names(here, [*planned, *was.entries])
        return self._room.page(
            here,
            "portal_visits.html",
            planned=[_line(here, one, names) for one in planned],
            visits=[_line(here, one, names) for one in was.entries],
            more=was.next,
            action=VISITS,
            form_token=self._room.form_token(here, VISITS),
            appointments=APPOINTMENTS if here.sees("appointments") else "",
        )

    async def _visits(self, here: AtPortal, *query: tuple[str, str], count: int = _MOST) -> Answer:
        if query[0][0] != "_page":
            query = (("patient", here.record.patient), *query, ("_count", str(count)))
        return await self._room.ask(here, "search-type", "Encounter", query=query)

    # --- one of them ---------------------------------------------------------------------------

    async def show_one(self, request: Request) -> Response:
        here = await self._room.at(request)
        tree = await self._visit(here, request)
        names = await self._names(here, [tree])
        notes, documents = await self._documents(here, tree)
        return self._room.page(
            here,
            "portal_visit.html",
            title=visit_title(tree),
            facts=[
                (name, value)
                for name, value in (
                    ("When", _when(here, tree)),
                    ("With", _with(tree, names)),
                    ("Why", ", ".join(filter(None, map(words_of, tree.get("reasonCode") or ())))),
                    ("State", _state(tree)),
                )
                if value
            ],
            groups=[
                (key, name, lines)
                for key, name, section, lines in (
                    ("notes", "Notes", "visits", notes),
                    ("documents", "Documents", "documents", documents),
                    ("results", "Test results", "results", await self._results(here, tree)),
                    ("bills", "Bills", "billing", await self._bills(here, tree)),
                    ("messages", "Messages", "messages", await self._messages(here, tree)),
                    (
                        "appointment",
                        "Appointment",
                        "appointments",
                        await self._appointments(here, tree),
                    ),
                )
                if here.sees(section)
            ],
            summary=f"{VISITS}/{tree['id']}/summary"
            if here.sees("documents") and (tree.get("period") or {}).get("start")
            else "",
            back=VISITS,
        )

    async def summary(self, request: Request) -> Response:
        """Give the summary of the time of a visit to save."""
        here = await self._room.at(request)
        tree = await self._visit(here, request)
        period = tree.get("period") or {}
        if not period.get("start"):
            raise NotFound("it is not known when this visit was")
        # By the day: what was measured or prescribed at a visit is seldom within its minutes.
        start, end = period["start"][:10], period.get("end", period["start"])[:10]
        body = parameters(("start", "valueDateTime", start), ("end", "valueDateTime", end))
        patient = here.record.patient.partition("/")[2]
        asked = FhirRequest(
            "operation", "Patient", patient, operation="ccd", body=body, activity="download"
        )
        found = await self._room.perform(here, asked)
        media, content = found.binary or ("application/xml", found.body)
        answer = download(content, f"visit-{start}.xml", media)
        return while_allowed(self._room.downloads, here.auth, answer)

    async def note(self, request: Request) -> Response:
        """Show a Composition of a visit: what its sections say, as text."""
        here = await self._room.at(request)
        visit = await self._visit(here, request)
        own_id = _id_of(request, "note")
        tree = (await self._room.ask(here, "read", "Composition", own_id, activity="view")).tree
        if (tree.get("encounter") or {}).get("reference") != f"Encounter/{visit['id']}":
            raise NotFound("it is not of this visit")
        return self._room.page(
            here,
            "portal_note.html",
            title=title_of(tree),
            when=here.moment(tree.get("date")),
            sections=list(_sections(tree)) or [("", narrative_lines(tree.get("text")))],
            back=f"{VISITS}/{visit['id']}",
        )

    # --- what belongs to it --------------------------------------------------------------------

    async def _documents(
        self, here: AtPortal, visit: Mapping[str, Any]
    ) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """Return the notes of a visit, and its other documents."""
        at = ("encounter", f"Encounter/{visit['id']}")
        found = await self._found(
            here, "DocumentReference", at, ("status", "current"), ("_sort", "-date")
        )
        notes, others = list[dict[str, str]](), list[dict[str, str]]()
        for one in found:
            line = {
                "address": f"{DOCUMENTS}/one/{one['id']}",
                "name": title_of(one),
                "about": str(one.get("description") or ""),
                "when": here.moment(one.get("date")),
            }
            (notes if _is_note(one) else others).append(line)
        for one in await self._found(here, "Composition", at, ("_sort", "-date")):
            if one.get("status") != "entered-in-error":
                notes.append(
                    {
                        "address": f"{VISITS}/{visit['id']}/note/{one['id']}",
                        "name": title_of(one),
                        "about": str(one.get("title") or ""),
                        "when": here.moment(one.get("date")),
                    }
                )
        return notes, others

    async def _results(self, here: AtPortal, visit: Mapping[str, Any]) -> list[dict[str, str]]:
        at = ("encounter", f"Encounter/{visit['id']}")
        found = []
        for name in ("DiagnosticReport", "Observation"):
            if not here.sees("results"):
                break
            for one in await self._found(here, name, at, ("_sort", "-date")):
                if one.get("status") in _SHOWN:
                    value = one.get("conclusion") or _value(one)
                    found.append(
                        {
                            "address": "",
                            "name": words_of(one.get("code")) or "Result",
                            "about": str(value or ""),
                            "when": here.moment(one.get("effectiveDateTime") or one.get("issued")),
                        }
                    )
        return found

    async def _bills(self, here: AtPortal, visit: Mapping[str, Any]) -> list[dict[str, str]]:
        """The bills of its accounts, and those that charge for what was done at it."""
        if not here.sees("billing"):
            return []
        accounts = [str(one.get("reference") or "") for one in visit.get("account") or ()]
        charged = await self._found(
            here, "ChargeItem", ("context", f"Encounter/{visit['id']}"), ("_sort", "-occurrence")
        )
        items = {f"ChargeItem/{one['id']}" for one in charged}
        if not (accounts or items):
            return []
        own = ("patient", here.record.patient)
        bills = await self._found(here, "Invoice", own, ("_sort", "-date"))
        page = next((address for section, address, _ in PAGES if section == "billing"), "")
        return [
            {
                "address": f"{page}/one/{one['id']}" if page else "",
                "name": f"Bill of {_money(one.get('totalGross'))}".removesuffix(" of "),
                "about": _BILLS.get(str(one.get("status")), ""),
                "when": here.moment(one.get("date")),
            }
            for one in bills
            if one.get("status") != "entered-in-error"
            and (
                (one.get("account") or {}).get("reference") in accounts
                or items & {_charge(line) for line in one.get("lineItem") or ()}
            )
        ]

    async def _messages(self, here: AtPortal, visit: Mapping[str, Any]) -> list[dict[str, str]]:
        if not here.sees("messages"):
            return []
        at = ("encounter", f"Encounter/{visit['id']}")
        found = dict[str, dict[str, str]]()
        for one in await self._found(here, "Communication", at, ("_sort", "-sent")):
            if is_taken_back(one) or not (is_thread(one) or is_message(one)):
                continue
            whole = (one.get("partOf") or [{}])[0].get("reference") or f"Communication/{one['id']}"
            said = next(
                (str(part["contentString"]) for part in one.get("payload") or ()
                 if "contentString" in part), "",
            )  # fmt: skip
            found.setdefault(
                whole,
                {
                    "address": f"{MESSAGES}/thread/{whole.partition('/')[2]}",
                    "name": said[:_LONGEST_LINE] or "Message",
                    "about": "",
                    "when": here.moment(one.get("sent")),
                },
            )
        return list(found.values())

    async def _appointments(self, here: AtPortal, visit: Mapping[str, Any]) -> list[dict[str, str]]:
        named = [
            str(one.get("reference") or "").removeprefix("Appointment/")
            for one in visit.get("appointment") or ()
        ]
        ids = [one for one in named if _ID.fullmatch(one)]
        if not ids or not here.sees("appointments"):
            return []
        found = await self._found(here, "Appointment", ("_id", ",".join(ids[:_MOST])))
        return [
            {
                "address": f"{APPOINTMENTS}/one/{one['id']}",
                "name": here.moment(one.get("start")) or "Appointment",
                "about": "",
                "when": "",
            }
            for one in found
        ]

    # --- what all of them ask ------------------------------------------------------------------

    async def _found(
        self, here: AtPortal, resource_type: str, *query: tuple[str, str]
    ) -> list[Mapping[str, Any]]:
        """Return what a search finds; nothing where whoever is there may not make it."""
        pairs = (*query, ("_count", str(_MOST)))
        try:
            found = await self._room.ask(here, "search-type", resource_type, query=pairs)
        except Forbidden:
            return []
        return found.entries

    async def _visit(self, here: AtPortal, request: Request) -> Mapping[str, Any]:
        own_id = _id_of(request, "visit")
        tree = (await self._room.ask(here, "read", "Encounter", own_id, activity="view")).tree
        if tree.get("status") == "entered-in-error":
            raise NotFound("it was no visit of this record")
        return tree

    async def _names(
        self, here: AtPortal, visits: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, str]:
        prefix = "Practitioner/"
        references = {
            str((part.get("individual") or {}).get("reference") or "")
            for one in visits
            for part in one.get("participant") or ()
        }
        wanted = sorted(one.removeprefix(prefix) for one in references if one.startswith(prefix))
        return await self._room.names_of(here, wanted) if wanted else {}


def _line(here: AtPortal, tree: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    return {
        "address": f"{VISITS}/{tree['id']}",
        "title": visit_title(tree),
        "when": _when(here, tree),
        "who": _with(tree, names),
        "state": _state(tree),
    }


def _state(tree: Mapping[str, Any]) -> str:
    """How a visit stands that is not over."""
    return _STATES.get(str(tree.get("status")), "")


def _when(here: AtPortal, tree: Mapping[str, Any]) -> str:
    """When it was; of a stay of several days from when to when."""
    period = tree.get("period") or {}
    start, end = str(period.get("start") or ""), str(period.get("end") or "")
    if start and end and start[:10] != end[:10]:
        return f"{here.moment(start)} to {here.moment(end)}"
    return here.moment(start or end)


def _with(tree: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Who of the practice took part."""
    found = []
    for part in tree.get("participant") or ():
        who = part.get("individual") or {}
        reference = str(who.get("reference") or "")
        if not reference.startswith(("Patient/", "RelatedPerson/")):
            found.append(names.get(reference) or str(who.get("display") or ""))
    return ", ".join(dict.fromkeys(filter(None, found)))


def _sections(tree: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Title and lines of each section of a Composition, those within others too."""
    found, waiting = list[tuple[str, list[str]]](), list(tree.get("section") or ())
    while waiting and len(found) < _MOST:
        one = waiting.pop(0)
        title = str(one.get("title") or words_of(one.get("code")))
        found.append((title, narrative_lines(one.get("text"))))
        waiting = [*(one.get("section") or ()), *waiting]
    return [(title, lines) for title, lines in found if lines]


def _is_note(tree: Mapping[str, Any]) -> bool:
    return any(
        coding.get("code") == "clinical-note"
        for concept in tree.get("category") or ()
        for coding in concept.get("coding") or ()
    )


def _value(tree: Mapping[str, Any]) -> str:
    """What was found, in words."""
    if "valueQuantity" in tree:
        return amount(tree["valueQuantity"])
    if "valueCodeableConcept" in tree:
        return words_of(tree["valueCodeableConcept"])
    parts = [f"{words_of(one.get('code'))}: {_value(one)}" for one in tree.get("component") or ()]
    return str(tree.get("valueString") or ", ".join(parts))


def _money(money: Any) -> str:
    try:
        return str(Amount.of(money))
    except NoAmount:
        return ""


def _charge(line: Mapping[str, Any]) -> str:
    return str((line.get("chargeItemReference") or {}).get("reference") or "")


def _id_of(request: Request, name: str) -> str:
    own_id = str(request.path_params[name])
    if not _ID.fullmatch(own_id):
        raise NotFound("there is nothing at this address")
    return own_id
