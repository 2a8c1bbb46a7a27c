"""What staff have to see to: people who could not get in, and messages that did not arrive.

Each is a Task (`fhir_portal.operations.staff_task`), read and completed as the member of staff who
looks: only those come that their level shows them. What stands beside a Task is shown to whoever
sees that one. What is shown of a record is read as that member, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.matter import About, StaffMatter
from fhir_portal.fhir.errors import Forbidden, NotFound
from fhir_portal.resources.task import CODE, OPEN, SHOWN_TO, about_of, matter_of
from fhir_portal.web.pages.desk import FIND, MATTERS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect

_MOST: Final = 100
_LONGEST: Final = 64
_TYPED: Final[Mapping[str, str]] = {
    "first": "first name",
    "last": "last name",
    "birth-date": "birth date",
    "mail": "mail",
}


class MatterPages:
    """The list of what waits for somebody, and its buttons."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (MATTERS, "GET", desk_page(self.show)),
            (MATTERS, "POST", desk_page(self.settle, back=MATTERS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        _require(here)
        names = _Names(self._desk, here)
        matters: dict[About, list[dict[str, Any]]] = {about: [] for about in SHOWN_TO}
        for task in await self._open(here):
            about = about_of(task)
            # An earlier release let labelling clients take the tag away that hides it from others.
            if about is not None and here.may(SHOWN_TO[about]):
                matters[about].append(await self._shown(here, about, task, names))
        return self._desk.page(
            here,
            "staff_matters.html",
            locked_out=matters["recovery-help"],
            not_in=matters["activation-help"],
            faults=matters["undelivered-message"],
            overlaps=matters["overlapping-appointments"],
            action=MATTERS,
            form_token=self._desk.form_token(here, MATTERS),
            done="Done." if "done" in request.query_params else "",
        )

    async def settle(self, request: Request) -> Response:
        """Take one off the list; of another practice, or for others of the staff, there is none."""
        here, _, form = await self._desk.posted(request, MATTERS)
        _require(here)
        task = form.get("task", "")
        if not task or len(task) > _LONGEST:
            raise NotFound
        await self._desk.call(here, "task-done", f"Task/{task}")
        return redirect(f"{MATTERS}?done=1")

    # --- what is on it -------------------------------------------------------------------------

    async def _open(self, here: AtDesk) -> Sequence[Mapping[str, Any]]:
        answer = await self._desk.ask(
            here,
            "search-type",
            "Task",
            query=(
                ("code", ",".join(f"{CODE}|{about}" for about in SHOWN_TO)),
                ("status", ",".join(sorted(OPEN))),
                ("_sort", "-_lastUpdated"),
                ("_count", str(_MOST)),
            ),
        )
        return answer.entries

    async def _shown(
        self, here: AtDesk, about: About, task: Mapping[str, Any], names: _Names
    ) -> dict[str, Any]:
        """One Task in plain words, with what is known beside it as long as that is kept."""
        matter = await matter_of(self._desk.store, here.session.practice, task["id"])
        if matter is not None and matter.about != about:
            matter = None
        patient = (task.get("for") or {}).get("reference")
        return {
            "task": task["id"],
            "when": here.moment(task.get("lastModified") or task.get("authoredOn")),
            "why": task.get("description", ""),
            "contact": matter.contact if matter is not None else "",
            "people": await self._people(here, matter, patient, names),
            "typed": [
                (_TYPED[name], text)
                for name, text in (matter.typed if matter is not None else {}).items()
                if name in _TYPED
            ],
            "candidates": [
                (*await names.of(each.patient), each.score, ", ".join(each.reasons))
                for each in (matter.candidates if matter is not None else ())
            ],
        }

    async def _people(
        self,
        here: AtDesk,
        matter: StaffMatter | None,
        patient: str | None,
        names: _Names,
    ) -> list[tuple[str, str]]:
        """Name and page of the practice's records that an account opens, the own one first.

        Without an account that is known, of the one patient whom the Task is for.
        """
        found: list[str] = []
        for key in matter.accounts if matter is not None else ():
            account = await self._desk.store.get(Account, key)
            if account is None:
                continue
            records = await self._desk.directory.records_of(account)
            found += [
                one.patient
                for one in sorted(records, key=lambda one: not one.is_own)
                if one.practice == here.session.practice
            ]
        if not found and patient is not None:
            found.append(patient)
        return [await names.of(one) for one in dict.fromkeys(found)]


class _Names:
    """Names and pages of records, each read once for a page."""

    def __init__(self, desk: Desk, here: AtDesk) -> None:
        self._desk = desk
        self._here = here
        self._known: dict[str, tuple[str, str]] = {}

    async def of(self, patient: str) -> tuple[str, str]:
        """Name and page of ``Patient/<id>``, as far as whoever is there may read it."""
        if patient not in self._known:
            self._known[patient] = await self._read(patient.rpartition("/")[2])
        return self._known[patient]

    async def _read(self, own_id: str) -> tuple[str, str]:
        try:
            tree = (await self._desk.ask(self._here, "read", "Patient", own_id)).tree
        except NotFound:
            return "a record that is gone", ""
        return name_of(tree), f"{FIND}/{own_id}"


def _require(here: AtDesk) -> None:
    if not (here.may("view") and any(map(here.may, set(SHOWN_TO.values())))):
        raise Forbidden(f"the level '{here.staff.level}' does not let its holders see this")
