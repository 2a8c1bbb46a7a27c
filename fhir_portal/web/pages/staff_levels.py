"""Access levels of a practice: what each lets people do, changed several at once, by preview."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.operations import OPERATIONS
from fhir_portal.access.relation import works
from fhir_portal.accounts.level_changes import (
    Edit,
    change_levels,
    edits_to,
    export_levels,
    parse_export,
    preview,
    remove_level,
)
from fhir_portal.accounts.levels import (
    BUILT_IN,
    MEANS,
    PERMISSIONS,
    AccessLevel,
    AccessLevelVersion,
    Difference,
    Editor,
    LevelRefused,
    UnknownLevel,
    earlier_versions,
    folded_name,
    in_order,
    levels_of,
)
from fhir_portal.accounts.staff import StaffMember, staff_of_practice
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.web.form import Pairs
from fhir_portal.web.pages.desk import LEVELS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download, redirect

PREVIEW: Final = f"{LEVELS}/preview"
SAVE: Final = f"{LEVELS}/save"
REMOVE: Final = f"{LEVELS}/remove"
HISTORY: Final = f"{LEVELS}/history"
EXPORT: Final = f"{LEVELS}/export"
IMPORT: Final = f"{LEVELS}/import"
_DONE: Final[Mapping[str, str]] = {
    "saved": "The access levels were changed. It counts from the next request of each member on.",
    "removed": "The access level was removed.",
}
_MOST: Final = 102
_OPERATOR: Final = {"operator": "an operator", BUILT_IN: "part of the portal"}
_GONE: Final = "somebody who is not on the staff any more"

_log = structlog.get_logger(__name__)


class LevelPages:
    """The list, the editor with its preview, removal, history, export and import."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (LEVELS, "GET", desk_page(self.show)),
            (PREVIEW, "POST", desk_page(self.show_preview, back=LEVELS)),
            (IMPORT, "POST", desk_page(self.read_import, back=LEVELS)),
            (SAVE, "POST", desk_page(self.save, back=LEVELS)),
            (REMOVE, "POST", desk_page(self.remove, back=LEVELS)),
            (HISTORY, "GET", desk_page(self.history, back=LEVELS)),
            (EXPORT, "GET", desk_page(self.export, back=LEVELS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._administrator(request)
        return await self._list(here, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def show_preview(self, request: Request) -> Response:
        here, pairs, _ = await self._desk.posted(request, PREVIEW)
        require_administer(here)
        edits = _edits(pairs)
        now = {
            folded_name(one.name): one
            for one in await levels_of(self._desk.store, here.session.practice)
        }
        changed = [
            edit
            for edit in edits
            if (level := now.get(folded_name(edit.name))) is None
            or level.version != edit.seen
            or level.conveys != edit.permissions
        ]
        return await self._preview(here, changed)

    async def read_import(self, request: Request) -> Response:
        """Show what the document of an export would change."""
        here, _, form = await self._desk.posted(request, IMPORT)
        require_administer(here)
        try:
            wanted = parse_export(form.get("document", "").encode())
            edits = await edits_to(self._desk.store, here.session.practice, wanted)
        except LevelRefused as refused:
            return await self._list(here, problem=_words(refused), document=form.get("document"))
        return await self._preview(here, edits)

    async def save(self, request: Request) -> Response:
        here, pairs, _ = await self._desk.posted(request, SAVE)
        require_administer(here)
        edits = _edits(pairs)
        try:
            differences = await self._desk.change(
                here,
                lambda transaction: change_levels(
                    transaction,
                    here.session.practice,
                    edits,
                    by=editor(here),
                    now=self._desk.clock(),
                    works=works,
                ),
                interaction="update",
                what="access-levels",
                detail=_noted,
            )
        except LevelRefused as refused:
            return await self._list(here, problem=_words(refused))
        _log.info("access levels changed", practice=here.session.practice, levels=len(differences))
        return redirect(f"{LEVELS}?done=saved")

    async def remove(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, REMOVE)
        require_administer(here)
        name, seen = form.get("name", ""), form.get("seen", "")
        try:
            await self._desk.change(
                here,
                lambda transaction: remove_level(
                    transaction,
                    here.session.practice,
                    name,
                    by=editor(here),
                    now=self._desk.clock(),
                    seen=_number(seen),
                ),
                interaction="delete",
                what="access-levels",
                detail=name,
            )
        except LevelRefused as refused:
            return await self._list(here, problem=_words(refused))
        return redirect(f"{LEVELS}?done=removed")

    async def history(self, request: Request) -> Response:
        here = await self._administrator(request)
        store, practice = self._desk.store, here.session.practice
        names = await self._names(here, await staff_of_practice(store, practice))
        found = []
        for level in await levels_of(store, practice):
            if level.is_built_in:
                continue
            before = await earlier_versions(store, practice, level.name)
            versions: list[AccessLevel | AccessLevelVersion] = [level, *reversed(before)]
            found.append(
                (
                    level.name,
                    [
                        {
                            "version": one.version,
                            "moment": here.moment_at(one.changed),
                            "by": names.get(one.changed_by, _GONE),
                            "may": ", ".join(in_order(one.permissions)) or "nothing",
                        }
                        for one in versions
                    ],
                )
            )
        return self._desk.page(here, "staff_levels_history.html", levels=found, back=LEVELS)

    async def export(self, request: Request) -> Response:
        here = await self._administrator(request)
        tree = await export_levels(self._desk.store, here.session.practice)
        await self._desk.note(here, "read", "access-levels", "export")
        content = json.dumps(tree, indent=2, ensure_ascii=False).encode()
        return download(content, "access-levels.json", "application/json")

    # -------------------------------------------------------------------------------------------

    async def _preview(self, here: AtDesk, edits: Sequence[Edit]) -> Response:
        if not edits:
            return await self._list(here, problem="That changes nothing.")
        try:
            differences = await preview(
                self._desk.store, here.session.practice, edits, by=editor(here), works=works
            )
        except LevelRefused as refused:
            return await self._list(here, problem=_words(refused))
        shown = [
            (edit, one) for edit, one in zip(edits, differences, strict=True) if not one.is_none
        ]
        if not shown:
            return await self._list(here, problem="That changes nothing.")
        return self._desk.page(
            here,
            "staff_levels_preview.html",
            changes=[
                {
                    "edit": edit,
                    "name": one.name,
                    "is_new": one.before is None,
                    "gives": [MEANS[each] for each in in_order(one.added)],
                    "takes": [MEANS[each] for each in in_order(one.taken)],
                    "people": one.people,
                    "permissions": in_order(edit.permissions),
                }
                for edit, one in shown
            ],
            action=SAVE,
            form_token=self._desk.form_token(here, SAVE),
            back=LEVELS,
        )

    async def _list(
        self, here: AtDesk, *, problem: str = "", done: str = "", document: str | None = None
    ) -> Response:
        store, practice = self._desk.store, here.session.practice
        members = await staff_of_practice(store, practice)
        people = Counter(folded_name(member.level) for member in members)
        names, levels = await self._names(here, members), await levels_of(store, practice)
        return self._desk.page(
            here,
            "staff_levels.html",
            status=400 if problem else 200,
            problem=problem,
            done=done,
            document=document or "",
            levels=[
                {
                    "level": one,
                    "people": people[folded_name(one.name)],
                    "moment": here.moment_at(one.changed) if one.changed else "",
                    "by": names.get(one.changed_by, _GONE),
                    "may": [MEANS[each] for each in in_order(one.conveys)],
                    "operations": _operations(one),
                    "remove_token": self._desk.form_token(here, REMOVE),
                }
                for one in levels
            ],
            permissions=[(one, MEANS[one], one in here.staff.permissions) for one in PERMISSIONS],
            preview=PREVIEW,
            preview_token=self._desk.form_token(here, PREVIEW),
            read_import=IMPORT,
            import_token=self._desk.form_token(here, IMPORT),
            remove=REMOVE,
            history=HISTORY,
            export=EXPORT,
        )

    async def _administrator(self, request: Request) -> AtDesk:
        here = await self._desk.at(request)
        require_administer(here)
        return here

    async def _names(self, here: AtDesk, members: Sequence[StaffMember]) -> dict[str, str]:
        """Who changed a level, by account: as whom the practice knows them, never the account."""
        names = await self._desk.names_of_staff(here, [one.practitioner for one in members])
        return {
            one.account: names.get(one.practitioner, one.practitioner) for one in members
        } | _OPERATOR


def require_administer(here: AtDesk) -> None:
    """Refuse whoever may not change access levels. Raises `Forbidden`."""
    if not here.may("administer"):
        raise Forbidden(f"the level '{here.staff.level}' does not let its holders administer")


def editor(here: AtDesk) -> Editor:
    """Who changes levels: bounded by what they have now, and had when the request began."""
    return Editor(here.session.account, here.staff.permissions)


def _edits(pairs: Pairs) -> list[Edit]:
    """What the form wants each level to be; ``name-0``, ``seen-0`` and any number of ``may-0``."""
    names = {name: value for name, value in pairs if name.startswith(("name-", "seen-"))}
    found = []
    for at in range(_MOST):
        name = names.get(f"name-{at}", "").strip()
        if name:
            may = frozenset(value for field, value in pairs if field == f"may-{at}")
            found.append(Edit(name, may, _number(names.get(f"seen-{at}", ""))))
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):  # noqa: PLR2004
        raise UnknownLevel("the form is not whole; load the page again")
    return int(text)


def _operations(level: AccessLevel) -> list[str]:
    return sorted(f"${code}" for code, rule in OPERATIONS.items() if rule.staff in level.conveys)


def _words(refused: LevelRefused) -> str:
    text = str(refused)
    return f"{text[:1].upper()}{text[1:]}."


def _noted(differences: Sequence[Difference]) -> str:
    """What was changed, for the access log."""
    return "; ".join(
        f"{one.name}: +{','.join(in_order(one.added))} -{','.join(in_order(one.taken))}"
        for one in differences
        if not one.is_none
    )[:500]
