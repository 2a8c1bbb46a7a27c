"""What was proposed, on the portal's pages: what waits, what became of it, and taking it back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.fhir.errors import Forbidden, NotFound
from fhir_portal.resources.proposal import (
    SECTIONS,
    SYSTEM,
    is_open,
    is_same,
    proposed_in,
    section_of,
    value_of,
)
from fhir_portal.web.pages.portal import (
    DETAILS,
    HOME,
    INSURANCE,
    AtPortal,
    PatientRoom,
    portal_page,
)
from fhir_portal.web.pages.proposal_words import (
    STATUS,
    changes,
    contacts_of,
    facts,
    outcomes,
    title_of,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect

PROPOSALS: Final = f"{HOME}/proposals"
MEDICINES: Final = f"{PROPOSALS}/medicines"
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_MOST: Final = 50
_SHOWN: Final = 10
_BACK: Final[Mapping[str, str]] = {
    "demographics": DETAILS,
    "insurance": INSURANCE,
    "medications": MEDICINES,
}
_CODES: Final = {section: code for code, section in SECTIONS.items()}


@dataclass(frozen=True, slots=True)
class Proposals:
    """The Tasks of one section, as whoever is there may see them, the latest first."""

    tasks: Sequence[Mapping[str, Any]]

    @property
    def waiting(self) -> list[Mapping[str, Any]]:
        """Those that nobody has decided about."""
        return [one for one in self.tasks if is_open(one)]

    def source_of(self, key: str, field: str, value: Any) -> Mapping[str, Any] | None:
        """Return the Task by which a value of a resource came to be; ``None`` for none of these."""
        for task in self.tasks:
            if task.get("status") != "completed":
                continue
            for one in proposed_in(task):
                is_it = field in one.fields and str(one.base) == key
                if is_it and is_same(value_of(one.tree, field), value):
                    return task
        return None


class ProposalList:
    """Reads them for a page, and takes one back."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (f"{PROPOSALS}/{{id}}/cancel", "POST", portal_page(self.cancel, back=DETAILS)),
            (f"{PROPOSALS}/{{id}}/prove", "POST", portal_page(self.prove, back=DETAILS)),
        )

    async def of(self, here: AtPortal, section: str) -> Proposals:
        """Return what was proposed in a section."""
        try:
            found = await self._room.ask(
                here,
                "search-type",
                "Task",
                query=(
                    ("code", f"{SYSTEM}|{_CODES[section]}"),
                    ("_sort", "-authored-on"),
                    ("_count", str(_MOST)),
                ),
            )
        except Forbidden:
            return Proposals(())
        return Proposals(found.entries)

    def shown(self, here: AtPortal, section: str, proposals: Proposals) -> list[dict[str, Any]]:
        """Return what a page shows of them: what waits, and the latest that do not."""
        over = [one for one in proposals.tasks if not is_open(one)][:_SHOWN]
        return [self._shown(here, section, one) for one in (*proposals.waiting, *over)]

    def _shown(self, here: AtPortal, section: str, task: Mapping[str, Any]) -> dict[str, Any]:
        by = str((task.get("requester") or {}).get("reference", ""))
        is_own = by == here.auth.fhir_user
        may_cancel = is_open(task) and here.acts(section) and (is_own or here.auth.is_self)
        decided = outcomes(task)
        told = {label: (words, why) for label, words, why in decided if label}
        whole = [(words, why) for label, words, why in decided if not label]
        return {
            "id": task["id"],
            "when": here.moment(task.get("authoredOn")),
            "by": "you" if is_own else self._name_of(here, by),
            "status": STATUS.get(str(task.get("status")), str(task.get("status"))),
            "open": is_open(task),
            "why": str((task.get("statusReason") or {}).get("text", "")),
            "items": [
                {
                    "title": title_of(one),
                    "changes": [
                        (label, before, after, *told.get(label, ("", "")))
                        for _, label, before, after in changes(one)
                    ],
                    "facts": [] if one.fields else facts(one.tree),
                    "outcome": whole[at] if not one.fields and at < len(whole) else ("", ""),
                }
                for at, one in enumerate(proposed_in(task))
            ],
            "cancel": f"{PROPOSALS}/{task['id']}/cancel" if may_cancel else "",
            "token": self._room.form_token(here, "cancel-proposal", task["id"]),
            "prove": f"{PROPOSALS}/{task['id']}/prove" if is_own and may_cancel else "",
            "prove_token": self._room.form_token(here, "prove-contact", task["id"]),
            "contacts": contacts_of(task) if is_open(task) else [],
        }

    @staticmethod
    def _name_of(here: AtPortal, by: str) -> str:
        if by == here.record.patient:
            return here.record.patient_name
        return f"somebody who acts for {here.record.patient_name}"

    async def prove(self, request: Request) -> Response:
        """Take the code that came to a new contact, or send another one."""
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, "prove-contact", own_id)
        if not _ID.fullmatch(own_id):
            raise NotFound
        typed = form.get("code", "").strip()[:40] if form.get("do") == "prove" else None
        if typed == "":
            return redirect(f"{DETAILS}?done=no-code#proposed")
        found = await self._room.call(
            here,
            "prove-contact",
            f"Task/{own_id}",
            ("contact", "valueString", form.get("contact", "")[:254]),
            ("code", "valueString", typed),
        )
        done = "code-sent" if typed is None else "proved"
        if found.value("changed") is True:
            done = "changed"
        return redirect(f"{DETAILS}?done={done}")

    async def cancel(self, request: Request) -> Response:
        """Take one back."""
        own_id = request.path_params["id"]
        here, _ = await self._room.posted(request, "cancel-proposal", own_id)
        if not _ID.fullmatch(own_id):
            raise NotFound
        task = (await self._room.ask(here, "read", "Task", own_id)).tree
        await self._room.call(here, "cancel-proposal", f"Task/{own_id}")
        back = _BACK.get(section_of(task) or "", HOME)
        return redirect(f"{back}?done=cancelled" if back != HOME else HOME)
