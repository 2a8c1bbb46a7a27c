"""``/portal/medications``, ``/portal/health``, ``/portal/immunizations``: what is so, and what was.

What each list says of a resource is what documents say of it (`fhir_portal.documents.chart`).
That something is not there is said only where the record says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.documents.chart import (
    ALLERGIES,
    IMMUNIZATIONS,
    MEDICATIONS,
    PROBLEMS,
    Chart,
    Part,
    is_current,
    is_told,
    ordered,
)
from fhir_portal.documents.wording import Json, clean, code_of, day, words_of
from fhir_portal.fhir.errors import NotFound
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.web.pages.portal import (
    HEALTH,
    IMMUNIZED,
    MEDICINES,
    AtPortal,
    PatientRoom,
    portal_page,
)
from fhir_portal.web.pages.portal_health_card import CARD
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download, printed, redirect

REFILL: Final = f"{MEDICINES}/refill"
CERTIFICATE: Final = f"{IMMUNIZED}/certificate"
_AT_ONCE: Final = 200
_MOST: Final = 1000
_NO_KNOWN: Final = frozenset({"716186003", "409137002", "429625007", "428607008", "428197003"})
"""SNOMED CT: no known allergies, or none of a kind. Such an entry is a statement, no allergy."""
_UNCERTAIN: Final = frozenset({"unconfirmed", "presumed", "provisional", "differential"})
_REFILLS: Final[Mapping[str, str]] = {
    "requested": "Asked for: the practice has not answered yet",
    "approved": "Approved",
    "sent": "Sent to the pharmacy",
    "refused": "Refused",
}
_OPEN: Final = frozenset({"requested", "approved"})
_ASKED_OF: Final = frozenset({"active", "completed"})


class HealthPages:
    """The pages about medicines, problems, allergies and vaccines of the record that is open."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (MEDICINES, "GET", portal_page(self.show_medicines)),
            (f"{REFILL}/{{id}}", "GET", portal_page(self.show_refill, back=MEDICINES)),
            (f"{REFILL}/{{id}}", "POST", portal_page(self.ask_for_refill, back=MEDICINES)),
            (HEALTH, "GET", portal_page(self.show_health)),
            (IMMUNIZED, "GET", portal_page(self.show_vaccines)),
            (f"{CERTIFICATE}/{{form}}", "GET", portal_page(self.certificate, back=IMMUNIZED)),
        )

    # --- medicines -----------------------------------------------------------------------------

    async def show_medicines(self, request: Request) -> Response:
        """Medicines of now and of before: what was prescribed, and what was told to be taken."""
        here = await self._room.at(request)
        found: list[dict[str, Any]] = []
        named: dict[str, Json] = {}
        more = False
        for name in MEDICATIONS.types:
            some, others, cut = await self._all(here, name, f"{name}:medication")
            found += some
            named |= others
            more = more or cut
        chart = self._chart(here, named)
        told = ordered([one for one in found if is_told(one)])
        current = [self._medicine(chart, one) for one in told if is_current(one)]
        past = [self._medicine(chart, one) for one in told if not is_current(one)]
        return self._room.page(
            here,
            "portal_medicines.html",
            columns=MEDICATIONS.columns,
            current=current,
            past=past,
            more=_MOST if more else 0,
        )

    def _medicine(self, chart: Chart, tree: Json) -> dict[str, Any]:
        prescribed = tree["resourceType"] == "MedicationRequest"
        by = clean(((tree.get("requester") or {}).get("display")) or "")
        refills = prescribed and tree.get("status") in _ASKED_OF
        return {
            "cells": MEDICATIONS.cells(tree, chart),
            "note": (f"Prescribed by {by}" if by else "Prescribed") if prescribed else "As told",
            "refills": f"{REFILL}/{tree['id']}" if refills else "",
        }

    async def show_refill(self, request: Request) -> Response:
        here = await self._room.at(request)
        return await self._refill_page(here, request.path_params["id"])

    async def ask_for_refill(self, request: Request) -> Response:
        """Ask; where something speaks against it, show that first."""
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, REFILL, own_id)
        given = {
            name: " ".join(form.get(name, "").split()) or None for name in ("pharmacy", "note")
        }
        answer = await self._room.call(
            here,
            "request-refill",
            f"MedicationRequest/{own_id}",
            ("pharmacy", "valueString", given["pharmacy"]),
            ("note", "valueString", given["note"]),
            ("acknowledged", "valueBoolean", True if form.get("acknowledged") else None),
        )
        if answer.value("task") is None:
            warnings = [str(one["text"]) for one in answer.values("warning")]
            return await self._refill_page(here, own_id, warnings=warnings, given=given)
        return redirect(f"{REFILL}/{own_id}")

    async def _refill_page(
        self,
        here: AtPortal,
        own_id: str,
        *,
        warnings: Sequence[str] = (),
        given: Mapping[str, str | None] | None = None,
    ) -> Response:
        query = (("_id", own_id), ("_include", "MedicationRequest:medication"))
        found = await self._room.ask(here, "search-type", "MedicationRequest", query=query)
        tree = next((one for one in found.entries if one["id"] == own_id), None)
        if tree is None or not is_told(tree):
            message = f"MedicationRequest/{own_id} is not known"
            raise NotFound(message)
        named = {f"{one['resourceType']}/{one['id']}": one for one in found.entries}
        asked = FhirRequest(
            "operation", "MedicationRequest", own_id, operation="refill-status", is_get=True
        )
        status = await self._room.read(here, asked)
        requests = [
            {
                "status": _REFILLS.get(str(one["status"]), str(one["status"])),
                "when": here.moment(one["asked"]),
                "reason": one.get("reason") or "",
                "is_open": one["status"] in _OPEN,
            }
            for one in status.values("request")
        ]
        name, how, state, since = MEDICATIONS.cells(tree, self._chart(here, named))
        may_ask = here.acts("medications") and tree.get("status") in _ASKED_OF
        return self._room.page(
            here,
            "portal_refill.html",
            name=name,
            facts=[
                (title, text)
                for title, text in (("How to take it", how), ("State", state), ("Since", since))
                if text
            ],
            requests=requests,
            may_ask=may_ask and not any(one["is_open"] for one in requests),
            warnings=warnings,
            given={one: (given or {}).get(one) or "" for one in ("pharmacy", "note")},
            action=f"{REFILL}/{own_id}",
            form_token=self._room.form_token(here, REFILL, own_id),
            back=MEDICINES,
        )

    # --- problems and allergies ----------------------------------------------------------------

    async def show_health(self, request: Request) -> Response:
        here = await self._room.at(request)
        problems, _, more_problems = await self._all(here, "Condition")
        allergies, _, more_allergies = await self._all(here, "AllergyIntolerance")
        chart = self._chart(here, {})
        told = [one for one in allergies if is_told(one)]
        known = [one for one in told if not _is_none_known(one)]
        return self._room.page(
            here,
            "portal_health.html",
            problems=_split(PROBLEMS, problems, chart),
            problem_columns=PROBLEMS.columns,
            allergies=_split(ALLERGIES, known, chart),
            allergy_columns=ALLERGIES.columns,
            none_known=[
                (words_of(one.get("code")), day(one.get("recordedDate")))
                for one in ordered([one for one in told if _is_none_known(one)])
                if is_current(one)
            ],
            more=_MOST if more_problems or more_allergies else 0,
        )

    # --- vaccines ------------------------------------------------------------------------------

    async def show_vaccines(self, request: Request) -> Response:
        """By vaccine, the latest first; one that was not given says why."""
        here = await self._room.at(request)
        found, _, more = await self._all(here, "Immunization")
        chart = self._chart(here, {})
        by_vaccine: dict[str, list[tuple[str, str]]] = {}
        for one in ordered([one for one in found if is_told(one)]):
            name, given, state = IMMUNIZATIONS.cells(one, chart)
            reason = words_of(one.get("statusReason"))
            said = state if state != "completed" else ""
            by_vaccine.setdefault(name or "Without a name", []).append(
                (given or "No date", f"{said}: {reason}" if said and reason else said)
            )
        return self._room.page(
            here,
            "portal_vaccines.html",
            vaccines=sorted(by_vaccine.items(), key=lambda one: one[0].casefold()),
            more=_MOST if more else 0,
            pdf=f"{CERTIFICATE}/pdf",
            signed=CARD if here.sees("demographics") else "",
            html=f"{CERTIFICATE}/html",
        )

    async def certificate(self, request: Request) -> Response:
        here = await self._room.at(request)
        form = request.path_params["form"]
        asked = FhirRequest(
            "operation",
            "Patient",
            here.auth.patient,
            operation="immunization-certificate",
            query=(("format", form),),
            is_get=True,
            activity="view" if form == "html" else "download",
        )
        answer = await self._room.perform(here, asked)
        assert answer.binary is not None  # noqa: S101 - the operation always gives one
        media, content = answer.binary
        if form == "html":
            return printed(content)
        return download(content, "vaccines.pdf", media)

    # --- what they read ------------------------------------------------------------------------

    async def _all(
        self, here: AtPortal, name: str, include: str = ""
    ) -> tuple[list[dict[str, Any]], dict[str, Json], bool]:
        """What the caller may see of a type, what it refers to, and whether there is more."""
        asked: tuple[tuple[str, str], ...] = (("_count", str(_AT_ONCE)),)
        if include:
            asked = (*asked, ("_include", include))
        found: list[dict[str, Any]] = []
        others: dict[str, Json] = {}
        while True:
            answer = await self._room.ask(here, "search-type", name, query=asked)
            for one in answer.entries:
                if one["resourceType"] == name:
                    found.append(dict(one))
                else:
                    others[f"{one['resourceType']}/{one['id']}"] = one
            if not answer.next or len(found) >= _MOST:
                return found, others, bool(answer.next)
            asked = (("_page", answer.next),)

    def _chart(self, here: AtPortal, named: Mapping[str, Json]) -> Chart:
        """What the words of a resource are made with."""
        return Chart(
            base=self._room.portal.server.base,
            patient={"id": here.auth.patient},
            resources={},
            directory=named,
            practice=here.record.practice_name,
            zone=here.record.zone,
            organization=None,
            made=self._room.clock(),
        )


def _split(
    part: Part, trees: Iterable[dict[str, Any]], chart: Chart
) -> dict[str, list[tuple[str, ...]]]:
    """The rows of now and those of before."""
    found: dict[str, list[tuple[str, ...]]] = {"current": [], "past": []}
    for tree in ordered([one for one in trees if is_told(one)]):
        name, *rest = part.cells(tree, chart)
        if code_of(tree.get("verificationStatus")) in _UNCERTAIN:
            name = f"{name} (not confirmed)"
        found["current" if is_current(tree) else "past"].append((name or "Without a name", *rest))
    return found


def _is_none_known(tree: Json) -> bool:
    codings = (tree.get("code") or {}).get("coding") or ()
    return any(one.get("code") in _NO_KNOWN for one in codings)
