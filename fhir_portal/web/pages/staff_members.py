"""Who is on a practice's staff, and which access level each has there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.log import STAFF_LEVEL, STAFF_RESUMED
from fhir_portal.access.relation import works
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.levels import LevelRefused, folded_name, levels_of
from fhir_portal.accounts.staff import (
    NotStaff,
    StaffMember,
    resume_staff,
    set_level,
    staff_of_practice,
)
from fhir_portal.operations.four_eyes import require_another_resumes
from fhir_portal.web.pages.desk import MEMBERS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.staff_levels import editor, require_administer

RESUME: Final = f"{MEMBERS}/resume"
_DONE: Final = {"1": "The access level was changed.", "resumed": "They can work again."}
_GONE: Final = "They are not on the staff any more."

_log = structlog.get_logger(__name__)


class MemberPages:
    """The list of the staff, with a level for each."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (MEMBERS, "GET", desk_page(self.show)),
            (MEMBERS, "POST", desk_page(self.give, back=MEMBERS)),
            (RESUME, "POST", desk_page(self.resume, back=MEMBERS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        require_administer(here)
        return await self._list(here, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def resume(self, request: Request) -> Response:
        """Let somebody work again whose account was recovered with the help of staff."""
        here, _, form = await self._desk.posted(request, RESUME)
        require_administer(here)
        practice = here.session.practice
        member = await self._member(practice, form.get("practitioner", ""))
        if member is None:
            return await self._list(here, problem=_GONE)
        by = editor(here)

        async def work(transaction: Any) -> StaffMember:
            kept = await transaction.get(StaffMember, member.key)
            await require_another_resumes(
                transaction, kept or member, by.account, now=self._desk.clock()
            )
            return await resume_staff(transaction, practice=practice, account=member.account, by=by)

        try:
            await self._desk.change(
                here,
                work,
                interaction=STAFF_RESUMED,
                what=member.practitioner,
            )
        except NotStaff:
            return await self._list(here, problem=_GONE)
        except LevelRefused as refused:
            text = str(refused)
            return await self._list(here, problem=f"{text[:1].upper()}{text[1:]}.")
        _log.info("member of staff resumed", practice=practice)
        return redirect(f"{MEMBERS}?done=resumed")

    async def give(self, request: Request) -> Response:
        """Give one member another level, if they still have the one that was shown."""
        here, _, form = await self._desk.posted(request, MEMBERS)
        require_administer(here)
        practice, wanted = here.session.practice, form.get("level", "")
        member = await self._member(practice, form.get("practitioner", ""))
        if member is None:
            return await self._list(here, problem=_GONE)
        try:
            await self._desk.change(
                here,
                lambda transaction: set_level(
                    transaction,
                    practice=practice,
                    account=member.account,
                    level=wanted,
                    by=editor(here),
                    now=self._desk.clock(),
                    works=works,
                    seen=form.get("seen", ""),
                ),
                interaction=STAFF_LEVEL,
                what=member.practitioner,
                detail=urlencode({"level": folded_name(wanted)}),
            )
        except NotStaff:
            return await self._list(here, problem=_GONE)
        except LevelRefused as refused:
            text = str(refused)
            return await self._list(here, problem=f"{text[:1].upper()}{text[1:]}.")
        _log.info("access level given", practice=practice)
        return redirect(f"{MEMBERS}?done=1")

    async def _list(self, here: AtDesk, *, problem: str = "", done: str = "") -> Response:
        store, practice = self._desk.store, here.session.practice
        members = await staff_of_practice(store, practice)
        levels = [one.name for one in await levels_of(store, practice)]
        names = await self._desk.names_of_staff(here, [one.practitioner for one in members])
        shown = []
        for one in members:
            account = await store.get(Account, one.account)
            name = next((n for n in levels if folded_name(n) == one.level), "")
            shown.append(
                {
                    "practitioner": one.practitioner,
                    "name": names.get(one.practitioner, one.practitioner),
                    "level": name,
                    "kept": one.level,
                    "since": here.moment_at(one.added),
                    "disabled": account is None or account.disabled,
                    "suspended": one.suspended is not None,
                    "is_self": one.account == here.session.account,
                }
            )
        return self._desk.page(
            here,
            "staff_members.html",
            status=400 if problem else 200,
            problem=problem,
            done=done,
            members=sorted(shown, key=lambda one: str(one["name"])),
            levels=levels,
            action=MEMBERS,
            resume=RESUME,
            resume_token=self._desk.form_token(here, RESUME),
            form_token=self._desk.form_token(here, MEMBERS),
        )

    async def _member(self, practice: str, practitioner: str) -> StaffMember | None:
        members = await staff_of_practice(self._desk.store, practice)
        return next((one for one in members if one.practitioner == practitioner), None)
