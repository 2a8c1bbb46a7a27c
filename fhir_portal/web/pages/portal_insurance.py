"""``/portal/insurance``: the insurances on file with their cards, and changes of them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.owners import local_target
from fhir_portal.fhir.errors import (
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unprocessable,
)
from fhir_portal.resources.proposal import value_of
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.detail_fields import (
    RELATIONS,
    WrongField,
    day,
    insurance_in,
    insurance_of,
)
from fhir_portal.web.pages.portal import INSURANCE, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.portal_proposals import ProposalList
from fhir_portal.web.pages.proposal_words import facts
from fhir_portal.web.pages.refusals import Handler, refusal_words
from fhir_portal.web.pages.render import attached, redirect
from fhir_portal.web.upload_form import attachment_of

SECTION: Final = "insurance"
NEW: Final = f"{INSURANCE}/new"
ONE: Final = f"{INSURANCE}/one"
CARD: Final = f"{INSURANCE}/card"
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_MOST: Final = 50
_LAST: Final = 1000
_OVER: Final = frozenset({"cancelled", "entered-in-error"})
_NOTHING: Final = "Nothing was changed."
_MEANWHILE: Final = "The record was changed meanwhile. This is how it is now: change it again."
_DONE: Final[Mapping[str, str]] = {
    "proposed": "Thank you. The practice looks at it, and you are told when there is an answer.",
    "cancelled": "It was taken back.",
}


class InsurancePages:
    """The insurances of the record that is open."""

    def __init__(self, room: PatientRoom, proposals: ProposalList) -> None:
        self._room = room
        self._proposals = proposals

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{ONE}/{{id}}"
        return (
            (INSURANCE, "GET", portal_page(self.show)),
            (NEW, "GET", portal_page(self.show_new, back=INSURANCE)),
            (NEW, "POST", portal_page(self.add, back=NEW)),
            (one, "GET", portal_page(self.show_one, back=INSURANCE)),
            (one, "POST", portal_page(self.change, back=INSURANCE)),
            (f"{CARD}/{{id}}", "GET", portal_page(self.card, back=INSURANCE)),
        )

    async def show(self, request: Request) -> Response:
        """What is on file, in its order; what is over stands at the end."""
        here = await self._room.at(request)
        if not here.sees(SECTION):
            raise Forbidden("the grant does not show this section")
        given = dict(parse_pairs(request.scope["query_string"]))
        found = await self._room.ask(
            here, "search-type", "Coverage", query=(("_count", str(_MOST)),)
        )
        proposals = await self._proposals.of(here, SECTION)
        today = datetime.fromtimestamp(self._room.clock(), here.zone).date().isoformat()
        names = await self._names(here, found.entries)
        cards = [self._card(here, one, today, names) for one in found.entries]
        return self._room.page(
            here,
            "portal_insurance.html",
            done=_DONE.get(given.get("done", ""), ""),
            insurances=sorted(cards, key=lambda one: (one["over"], one["order"])),
            proposals=self._proposals.shown(here, SECTION, proposals),
            new=NEW if here.acts(SECTION) else "",
        )

    async def _names(
        self, here: AtPortal, coverages: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        """Return the names of the organizations that are payors, as far as they may be seen."""
        payors = [str(one.get("reference", "")) for tree in coverages for one in tree["payor"]]
        prefix = "Organization/"
        wanted = sorted({one.removeprefix(prefix) for one in payors if one.startswith(prefix)})
        if not wanted:
            return {}
        query = (("_id", ",".join(wanted[:_MOST])), ("_count", str(_MOST)))
        try:
            found = await self._room.ask(here, "search-type", "Organization", query=query)
        except Forbidden:
            return {}
        return {f"{prefix}{one['id']}": str(one.get("name", "")) for one in found.entries}

    @staticmethod
    def _card(
        here: AtPortal, coverage: Mapping[str, Any], today: str, names: Mapping[str, str]
    ) -> dict[str, Any]:
        payors = [
            str(one.get("display") or names.get(str(one.get("reference"))) or "")
            for one in coverage["payor"]
        ]
        end = str((coverage.get("period") or {}).get("end", ""))
        order = coverage.get("order")
        return {
            "title": "; ".join(filter(None, payors)) or "An insurance",
            "facts": [
                (label, text)
                for label, text in facts(coverage)
                if label not in {"Health plan", "Pictures of the card"}
            ],
            "pictures": _pictures(coverage),
            "over": coverage.get("status") in _OVER or bool(end and end[:10] < today),
            "order": order if isinstance(order, int) else _LAST,
            "change": f"{ONE}/{coverage['id']}" if here.acts(SECTION) else "",
        }

    # --- adding and changing -------------------------------------------------------------------

    async def show_new(self, request: Request) -> Response:
        here = await self._room.acting(request, SECTION)
        return self._form(here, {}, insurance_in({}) | {"holder": "self"})

    async def add(self, request: Request) -> Response:
        """Propose a new one."""
        return await self._propose(request, NEW, "", "new")

    async def show_one(self, request: Request) -> Response:
        here = await self._room.acting(request, SECTION)
        coverage, version = await self._coverage(here, request.path_params["id"])
        return self._form(here, coverage, insurance_in(coverage), version=version)

    async def change(self, request: Request) -> Response:
        """Propose that one is another way, or that it ends."""
        own_id = request.path_params["id"]
        return await self._propose(request, ONE, own_id, "change")

    async def _propose(self, request: Request, action: str, own_id: str, do: str) -> Response:
        here, form, files = await self._room.with_files(request, action, own_id)
        here.require_act(SECTION)
        coverage: Mapping[str, Any] = {}
        version = ""
        if own_id:
            coverage, version = await self._coverage(here, own_id)
        typed = insurance_in(coverage) | {
            name: value for name, value in form.items() if name in insurance_in({})
        }
        seen = form.get("version", "")[:20] or version
        ends = own_id and form.get("do") == "end"
        parts: list[dict[str, Any]] = []
        try:
            if ends:
                parts += [
                    {"name": "action", "valueCode": "end"},
                    {"name": "end", "valueDate": day(form, "end")},
                ]
            else:
                tree = insurance_of(coverage, typed, here.record.patient)
                parts += [
                    {"name": "action", "valueCode": do},
                    {"name": "coverage", "resource": tree},
                ]
        except WrongField as error:
            return self._form(here, coverage, typed, version=seen, problem=str(error))
        if own_id:
            target = {"reference": f"Coverage/{own_id}"}
            parts.append({"name": "target", "valueReference": target})
            parts.append({"name": "version", "valueString": seen})
        if not ends:
            parts += [
                {"name": file.field, "valueAttachment": attachment_of(file)}
                for file in files
                if file.field in {"front", "back"}
            ]
        try:
            await self._room.call(
                here, "propose-update", here.record.patient, ("coverage", "part", parts)
            )
        except PreconditionFailed:
            now = insurance_in(coverage)
            return self._form(here, coverage, now, version=version, problem=_MEANWHILE)
        except (Unprocessable, Conflict, TooLarge) as error:
            return self._form(here, coverage, typed, version=seen, problem=refusal_words(error))
        return redirect(f"{INSURANCE}?done=proposed")

    def _form(
        self,
        here: AtPortal,
        coverage: Mapping[str, Any],
        values: Mapping[str, str],
        *,
        version: str = "",
        problem: str = "",
    ) -> Response:
        own_id = str(coverage.get("id", ""))
        holder = values["holder"]
        own_words = {} if not holder or holder in RELATIONS else {holder: holder}
        return self._room.page(
            here,
            "portal_insurance_form.html",
            status=400 if problem else 200,
            problem=problem,
            given=values,
            relations={**own_words, **RELATIONS},
            pictures=_pictures(coverage),
            version=version,
            own=own_id,
            action=f"{ONE}/{own_id}" if own_id else NEW,
            back=INSURANCE,
            form_token=self._room.form_token(here, ONE if own_id else NEW, own_id),
        )

    # --- pictures ------------------------------------------------------------------------------

    async def card(self, request: Request) -> Response:
        """A picture of a card, as long as it is in the record."""
        here = await self._room.at(request)
        own_id = request.path_params["id"]
        if not _ID.fullmatch(own_id):
            raise NotFound
        document = (await self._room.ask(here, "read", "DocumentReference", own_id)).tree
        for content in document.get("content") or ():
            key = local_target(str((content.get("attachment") or {}).get("url", "")))
            if key is not None and key.type == "Binary":
                found = (await self._room.ask(here, "read", "Binary", key.id)).tree
                data = base64.b64decode(found.get("data", ""))
                answer = attached(data, "card", str(found.get("contentType", "")))
                return while_allowed(self._room.downloads, here.auth, answer)
        raise NotFound

    # --- who is there --------------------------------------------------------------------------

    async def _coverage(self, here: AtPortal, own_id: str) -> tuple[Mapping[str, Any], str]:
        if not _ID.fullmatch(own_id):
            raise NotFound
        found = await self._room.ask(here, "read", "Coverage", own_id)
        return found.tree, str(found.version)


def _pictures(coverage: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return address and name of the pictures of a card that are documents here."""
    found = []
    for one in value_of(coverage, "card") or ():
        parts = {part.get("url"): part for part in one.get("extension") or ()}
        reference = str(
            ((parts.get("image") or {}).get("valueReference") or {}).get("reference", "")
        )
        key = local_target(reference)
        if key is not None and key.type == "DocumentReference":
            label = str((parts.get("label") or {}).get("valueString") or "Picture")
            found.append((f"{CARD}/{key.id}", f"{label} of the card"))
    return found
