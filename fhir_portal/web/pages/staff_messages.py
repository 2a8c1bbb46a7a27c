"""A practice's own words for the messages that the portal sends, with the server's as default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.fhir.errors import NotFound
from fhir_portal.notify.letter import Letterhead, UnfitValue, render
from fhir_portal.notify.template import (
    ChangedMeanwhile,
    InvalidTemplate,
    MessageTemplate,
    checked,
    drop_template,
    store_template,
    words_of,
)
from fhir_portal.notify.words import BUILT_IN, UnknownTemplate, Words, built_in
from fhir_portal.web.pages.desk import MESSAGES, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.staff_levels import require_administer

_CHANGED: Final = "Somebody else has stored other words meanwhile. Below is what you wrote."
_FIELDS: Final = ("subject", "body", "sms")
_SAMPLE_CODE: Final = "12345678"
_DONE: Final[Mapping[str, str]] = {
    "saved": "The words were stored. They count from the next message on.",
    "dropped": "The server's own words count again.",
}

_log = structlog.get_logger(__name__)


class MessagePages:
    """The list of messages, and the page of each with a preview."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        at = f"{MESSAGES}/{{template}}"
        return (
            (MESSAGES, "GET", desk_page(self.show)),
            (at, "GET", desk_page(self.show_one, back=MESSAGES)),
            (at, "POST", desk_page(self.store, back=MESSAGES)),
            (f"{at}/drop", "POST", desk_page(self.drop, back=MESSAGES)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._administrator(request)
        practice, store = here.session.practice, self._desk.store
        own = {one.key for one in await store.find(MessageTemplate, "practice", practice)}
        return self._desk.page(
            here,
            "staff_messages.html",
            messages=[
                (
                    f"{MESSAGES}/{name}",
                    name,
                    (await words_of(store, practice, name)).subject,
                    f"{practice}/{name}" in own,
                )
                for name in sorted(BUILT_IN)
            ],
            done=_DONE.get(request.query_params.get("done", ""), ""),
        )

    async def show_one(self, request: Request) -> Response:
        here = await self._administrator(request)
        name = _known(request)
        words = await words_of(self._desk.store, here.session.practice, name)
        return await self._form(here, name, words)

    async def store(self, request: Request) -> Response:
        """Show a preview of what was written, or store it, if nobody stored others meanwhile."""
        name = _known(request)
        here, _, form = await self._desk.posted(request, MESSAGES, name)
        require_administer(here)
        written = {field: form.get(field, "") for field in _FIELDS}
        subject, body, sms = (written[field] for field in _FIELDS)
        given = replace(built_in(name), subject=subject, body=body, sms=sms)
        version = form.get("version", "")
        seen = int(version) if version.isascii() and version.isdecimal() else -1
        try:
            words = checked(name, **written)
            if form.get("do") != "store":
                return await self._form(here, name, words, preview=True, seen=seen)
            await self._desk.change(
                here,
                lambda transaction: store_template(
                    transaction,
                    here.session.practice,
                    name,
                    **written,
                    version=seen,
                    now=self._desk.clock(),
                    by=here.staff.fhir_user,
                ),
                interaction="update",
                what="message-templates",
                detail=name,
            )
        except InvalidTemplate as error:
            return await self._form(here, name, given, problem=str(error), seen=seen)
        except ChangedMeanwhile:
            return await self._form(here, name, given, problem=_CHANGED, status=412)
        _log.info("message template stored", template=name)
        return redirect(f"{MESSAGES}?done=saved")

    async def drop(self, request: Request) -> Response:
        name = _known(request)
        here, _, _ = await self._desk.posted(request, f"{MESSAGES}/drop", name)
        require_administer(here)
        await self._desk.change(
            here,
            lambda transaction: drop_template(transaction, here.session.practice, name),
            interaction="delete",
            what="message-templates",
            detail=name,
        )
        return redirect(f"{MESSAGES}?done=dropped")

    async def _form(
        self,
        here: AtDesk,
        name: str,
        words: Words,
        *,
        problem: str = "",
        status: int = 400,
        preview: bool = False,
        seen: int | None = None,
    ) -> Response:
        own = await self._desk.store.get(MessageTemplate, f"{here.session.practice}/{name}")
        version = own.version if own is not None else 0
        changed_by = own.changed_by if own is not None else ""
        names = await self._desk.names_of_staff(here, [changed_by])
        letter = None
        if preview:
            site = self._desk.server.issuer.base
            head = Letterhead(here.staff.practice_name, "", site)
            sample = dict.fromkeys(words.values, "(filled in when it is sent)") | {
                "code": _SAMPLE_CODE,
                "link": f"{site}/activate/example",
            }
            try:
                letter = render(words, head, sample)
            except UnfitValue as error:
                problem = f"This cannot be shown: {error}"
        return self._desk.page(
            here,
            "staff_message.html",
            status=status if problem else 200,
            problem=problem,
            name=name,
            words=words,
            default=built_in(name),
            own=own,
            by=names.get(changed_by, changed_by),
            since=here.moment_at(own.changed) if own is not None else "",
            letter=letter,
            action=f"{MESSAGES}/{name}",
            form_token=self._desk.form_token(here, MESSAGES, name),
            version=version if seen is None else seen,
            drop_token=self._desk.form_token(here, f"{MESSAGES}/drop", name),
            back=MESSAGES,
        )

    async def _administrator(self, request: Request) -> AtDesk:
        here = await self._desk.at(request)
        require_administer(here)
        return here


def _known(request: Request) -> str:
    name = str(request.path_params["template"])
    try:
        built_in(name)
    except UnknownTemplate:
        raise NotFound from None
    return name
