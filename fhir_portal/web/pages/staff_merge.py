"""One person with two records: who may be the same, what a merge would do, and its taking back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.fhir.errors import Conflict, Forbidden, NotFound, Unprocessable
from fhir_portal.web.pages.desk import FIND, Answer, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.staff_candidates import candidates
from fhir_portal.web.pages.staff_patients import PatientPages, described

_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ACCEPT: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_ONE: Final = "one"
"""What the address and the form say when two accounts are taken for one person's."""
_MOVES: Final[Mapping[str, tuple[str, str]]] = {
    "person": ("1 person's account goes over", "{} persons' accounts go over"),
    "related-person": (
        "1 person who acts for the patient goes over",
        "{} people who act for the patient go over",
    ),
    "grant": ("1 grant goes over", "{} grants go over"),
    "grant-ended": (
        "1 grant ends: its holder has another one for the record that stays",
        "{} grants end: their holders have others for the record that stays",
    ),
    "invitation": ("1 invitation goes over", "{} invitations go over"),
    "invitation-ended": ("1 invitation ends", "{} invitations end"),
}
_UNSEEN: Final = "Say that you have looked at who would see more."


class MergePages:
    """Who may be the same person, and the merge of two records of one."""

    def __init__(self, desk: Desk, patients: PatientPages) -> None:
        self._desk = desk
        self._patients = patients

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        at = f"{FIND}/{{patient}}"
        return (
            (f"{at}/same", "GET", desk_page(self.show_same, back=FIND)),
            (f"{at}/merge/{{other}}", "GET", desk_page(self.show_merge, back=FIND)),
            (f"{at}/merge/{{other}}", "POST", desk_page(self.merge, back=FIND)),
            (f"{at}/unmerge", "POST", desk_page(self.take_back, back=FIND)),
        )

    async def show_same(self, request: Request) -> Response:
        here = await self._desk.at(request)
        if not here.calls("match"):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders look for it")
        patient = await self._patients.patient(here, request)
        return self._desk.page(
            here,
            "staff_same.html",
            patient=described(here, patient),
            address=f"{FIND}/{patient['id']}",
            same=await candidates(self._desk, here, patient),
            may_merge=here.calls("merge"),
        )

    async def show_merge(self, request: Request) -> Response:
        here = await self._desk.at(request)
        is_one = request.query_params.get("accounts") == _ONE
        return await self._preview(here, request, is_one=is_one)

    async def merge(self, request: Request) -> Response:
        """Merge, if who would see more by it is still what was looked at."""
        own_id, other = request.path_params["patient"], request.path_params["other"]
        here, _, form = await self._desk.posted(request, "merge", f"{own_id}/{other}")
        stays, goes = await self._both(here, request)
        is_one, accept = form.get("accounts") == _ONE, form.get("accept", "")
        if accept and not form.get("seen"):
            return await self._preview(here, request, is_one=is_one, problem=_UNSEEN)
        await self._desk.call(
            here,
            "merge",
            "Patient",
            *_merging(stays, goes, is_one=is_one),
            ("accept", "valueString", accept if _ACCEPT.fullmatch(accept) else None),
        )
        return redirect(f"{FIND}/{stays['id']}?done=merged")

    async def take_back(self, request: Request) -> Response:
        own_id = request.path_params["patient"]
        here, _, _ = await self._desk.posted(request, "unmerge", own_id)
        patient = await self._patients.patient(here, request)
        await self._desk.call(here, "undo-merge", f"Patient/{patient['id']}")
        return redirect(f"{FIND}/{patient['id']}?done=unmerged")

    async def _preview(
        self, here: AtDesk, request: Request, *, is_one: bool, problem: str = ""
    ) -> Response:
        if not here.calls("merge"):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders merge")
        stays, goes = await self._both(here, request)
        answer, refused, asks_of_accounts = None, "", False
        try:
            answer = await self._desk.call(
                here,
                "merge",
                "Patient",
                *_merging(stays, goes, is_one=is_one),
                ("preview", "valueBoolean", True),
            )
        except (Conflict, Unprocessable) as error:
            refused = str(error)
            asks_of_accounts = "force-accounts" in refused
        own, other = stays["id"], goes["id"]
        action = f"{FIND}/{own}/merge/{other}"
        return self._desk.page(
            here,
            "staff_merge.html",
            status=400 if problem else 200,
            problem=problem,
            refused="" if asks_of_accounts else refused,
            as_one=f"{action}?accounts={_ONE}" if asks_of_accounts else "",
            stays=described(here, stays),
            goes=described(here, goes),
            moves=_moves(answer) if answer is not None else [],
            gains=await self._told(here, answer, "gains", stays, goes),
            loses=await self._told(here, answer, "loses", stays, goes),
            accept=answer.value("accept") if answer is not None else None,
            accounts=_ONE if is_one else "",
            may=answer is not None,
            action=action,
            swap=f"{FIND}/{other}/merge/{own}",
            back=f"{FIND}/{own}",
            form_token=self._desk.form_token(here, "merge", f"{own}/{other}"),
        )

    async def _both(
        self, here: AtDesk, request: Request
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the Patient that stays and the one that goes. Raises `FhirError`."""
        other = request.path_params["other"]
        if not _ID.fullmatch(other):
            raise NotFound
        stays = await self._patients.patient(here, request)
        return stays, (await self._desk.ask(here, "read", "Patient", other)).tree

    async def _told(
        self,
        here: AtDesk,
        answer: Answer | None,
        name: str,
        *patients: Mapping[str, Any],
    ) -> list[tuple[str, str]]:
        """Who gains or loses, by name where the level may read it, and what."""
        found = answer.values(name) if answer is not None else []
        if not found:
            return []
        names: dict[str, str] = {}
        for patient in patients:
            whose = ("patient", f"Patient/{patient['id']}")
            for one in await self._desk.search_all(here, "RelatedPerson", whose):
                names[f"RelatedPerson/{one['id']}"] = name_of(one)
        record = f"Patient/{patients[0]['id']}"
        return [
            (
                _who(str(one["who"]["reference"]), names),
                str(one["text"]).replace(record, "the record that stays"),
            )
            for one in found
        ]


def _merging(
    stays: Mapping[str, Any], goes: Mapping[str, Any], *, is_one: bool
) -> list[tuple[str, str, Any]]:
    return [
        ("source-patient", "valueReference", {"reference": f"Patient/{goes['id']}"}),
        ("target-patient", "valueReference", {"reference": f"Patient/{stays['id']}"}),
        ("force-accounts", "valueBoolean", True if is_one else None),
    ]


def _who(reference: str, names: Mapping[str, str]) -> str:
    if reference.startswith("Person/"):
        return "The patient's account"
    if reference.startswith("Task/"):
        return "An invitation that waits"
    return names.get(reference, "Somebody who acts for the patient")


def _moves(answer: Answer) -> list[str]:
    counted = Counter(str(one["change"]) for one in answer.values("moved"))
    found = []
    for change, (one, several) in _MOVES.items():
        if count := counted[change]:
            found.append(one if count == 1 else several.format(count))
    return found
