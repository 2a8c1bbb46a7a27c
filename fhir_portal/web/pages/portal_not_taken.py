"""``/portal/proposals/medicines``: to say that a medicine of the list is not taken."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.fhir.errors import Conflict, Forbidden, NotFound, Unprocessable
from fhir_portal.resources.proposal import proposed_in
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.portal import AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.portal_proposals import MEDICINES, ProposalList, Proposals
from fhir_portal.web.pages.proposal_words import concept_words, medicine_words
from fhir_portal.web.pages.refusals import Handler, refusal_words
from fhir_portal.web.pages.render import redirect

SECTION: Final = "medications"
_MEDICINE: Final = re.compile(r"Medication(?:Request|Statement)/[A-Za-z0-9.-]{1,64}")
_TAKEN: Final[Mapping[str, str]] = {
    "MedicationRequest": "active,on-hold",
    "MedicationStatement": "active,intended,on-hold",
}
"""What is on the list of medicines of now, by its status."""
_MOST: Final = 100
_DONE: Final[Mapping[str, str]] = {
    "proposed": "Thank you. The practice looks at it, and you are told when there is an answer.",
    "cancelled": "It was taken back.",
}


class NotTakenPages:
    """The medicines of now, each with a way to say that it is not taken."""

    def __init__(self, room: PatientRoom, proposals: ProposalList) -> None:
        self._room = room
        self._proposals = proposals

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (MEDICINES, "GET", portal_page(self.show)),
            (MEDICINES, "POST", portal_page(self.say, back=MEDICINES)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        given = dict(parse_pairs(request.scope["query_string"]))
        return await self._page(here, done=_DONE.get(given.get("done", ""), ""))

    async def say(self, request: Request) -> Response:
        """Say that one is not taken."""
        here, form = await self._room.posted(request, MEDICINES)
        medicine = form.get("medicine", "")
        if not _MEDICINE.fullmatch(medicine):
            raise NotFound
        parts = [{"name": "target", "valueReference": {"reference": medicine}}]
        why = " ".join(form.get("why", "").split())[:500]
        if why:
            parts.append({"name": "note", "valueString": why})
        try:
            await self._room.call(
                here, "propose-update", here.record.patient, ("not-taken", "part", parts)
            )
        except (Unprocessable, Conflict) as error:
            return await self._page(here, problem=refusal_words(error))
        return redirect(f"{MEDICINES}?done=proposed")

    async def _names(
        self, here: AtPortal, medicines: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        """Return what the Medications are called that the list refers to."""
        prefix = "Medication/"
        found = {_referred(one) for one in medicines}
        wanted = sorted(one.removeprefix(prefix) for one in found if one.startswith(prefix))
        if not wanted:
            return {}
        query = (("_id", ",".join(wanted[:_MOST])), ("_count", str(_MOST)))
        try:
            answer = await self._room.ask(here, "search-type", "Medication", query=query)
        except Forbidden:
            return {}
        return {
            f"{prefix}{one['id']}": concept_words(one.get("code") or {}) for one in answer.entries
        }

    async def _page(self, here: AtPortal, *, done: str = "", problem: str = "") -> Response:
        if not here.sees(SECTION):
            raise Forbidden("the grant does not show this section")
        proposals = await self._proposals.of(here, SECTION)
        said = _said(proposals)
        found = list[Mapping[str, Any]]()
        for name, statuses in _TAKEN.items():
            query = (("status", statuses), ("_count", str(_MOST)))
            found += (await self._room.ask(here, "search-type", name, query=query)).entries
        names = await self._names(here, found)
        return self._room.page(
            here,
            "portal_not_taken.html",
            status=400 if problem else 200,
            done=done,
            problem=problem,
            medicines=[
                (key, names.get(_referred(one)) or medicine_words(one), key in said)
                for one in found
                for key in (f"{one['resourceType']}/{one['id']}",)
            ],
            acts=here.acts(SECTION),
            action=MEDICINES,
            form_token=self._room.form_token(here, MEDICINES),
            proposals=self._proposals.shown(here, SECTION, proposals),
        )


def _referred(tree: Mapping[str, Any]) -> str:
    return str((tree.get("medicationReference") or {}).get("reference", ""))


def _said(proposals: Proposals) -> set[str]:
    """Return the medicines of which it was said, and the practice has not answered."""
    return {
        str(origin.get("reference"))
        for task in proposals.waiting
        for one in proposed_in(task)
        for origin in one.tree.get("derivedFrom") or ()
    }
