"""``/activate/{link}``: where the link of an invitation leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.operations.activation.activations import NotMatched
from fhir_portal.operations.activation.by_invitation import (
    BirthAndPlace,
    Greeting,
    by_link,
    greeting_for,
)
from fhir_portal.operations.activation.renewal import renew
from fhir_portal.web.form import once_each
from fhir_portal.web.pages.activation_room import (
    ACTIVATE,
    LONGEST_SHOWN,
    NOT_MATCHED,
    ActivationRoom,
    activation_page,
    shown_again,
)
from fhir_portal.web.pages.birth_date import birth_date_of
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, address_of, posted
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import page
from fhir_portal.web.pages.words import day

_log = structlog.get_logger(__name__)


class LinkPages:
    """The link of an invitation, and a new one in place of one that is over."""

    def __init__(self, room: ActivationRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (f"{ACTIVATE}/{{link}}", "GET", activation_page(self.show_link)),
            (f"{ACTIVATE}/{{link}}", "POST", activation_page(self.by_link)),
            (f"{ACTIVATE}/{{link}}/again", "POST", activation_page(self.renew)),
        )

    async def show_link(self, request: Request) -> Response:
        browser = await self._room.cookies.browser(request, to_sign_in=True)
        activation = await self._room.current(browser)
        values = dict(activation.typed) if activation and activation.way == "link" else {}
        return await self._link_page(request, browser, values)

    async def by_link(self, request: Request) -> Response:
        link, browser, form = await self._from_link(request, "")
        said = BirthAndPlace(birth_date_of(form), form.get("postal_code", ""))
        try:
            fresh = self._room.fresh(browser)
            await by_link(
                self._room.activations,
                fresh.visitor.browser,
                address_of(request),
                link,
                form.get("code", ""),
                said,
            )
        except NotMatched:
            _log.info("activation refused", way="link")
            return await self._link_page(request, browser, form, problem=NOT_MATCHED)
        return await self._room.on(fresh)

    async def renew(self, request: Request) -> Response:
        link, browser, _ = await self._from_link(request, "/again")
        await renew(self._room.activations, address_of(request), link)
        return self._room.cookies.keep(page("activate_over.html", sent=True), browser)

    async def _from_link(self, request: Request, what: str) -> tuple[str, Browser, dict[str, str]]:
        link = str(request.path_params["link"])[:LONGEST_SHOWN]
        browser = await self._room.cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        token = form.get(FORM_TOKEN, "")
        self._room.cookies.check_form(request, browser, f"{ACTIVATE}/link{what}", link, token)
        return link, browser, form

    async def _link_page(
        self, request: Request, browser: Browser, values: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        """The form of a link; one page for every link that is over, of whatever kind."""
        link = str(request.path_params["link"])[:LONGEST_SHOWN]
        greeting = await greeting_for(self._room.activations, link)
        if greeting is None:
            over = page(
                "activate_over.html",
                status=403 if problem else 404,
                sent=False,
                action=f"{ACTIVATE}/{link}/again" if link.isalnum() else "",
                form_token=self._room.cookies.form_token(browser, f"{ACTIVATE}/link/again", link),
            )
            return self._room.cookies.keep(over, browser)
        shown = page(
            "activate_link.html",
            status=403 if problem else 200,
            problem=problem,
            action=f"{ACTIVATE}/{link}",
            practice=greeting.practice,
            initials=greeting.initials,
            is_self=greeting.is_self,
            ends=_moment(greeting),
            values=shown_again(values),
            form_token=self._room.cookies.form_token(browser, f"{ACTIVATE}/link", link),
        )
        return self._room.cookies.keep(shown, browser)


def _moment(greeting: Greeting) -> str:
    """When an invitation ends, by the clock of the practice."""
    local = datetime.fromtimestamp(greeting.ends, UTC).astimezone(ZoneInfo(greeting.practice.zone))
    shown = day(local.replace(tzinfo=UTC).timestamp())
    return f"{shown}, {local:%H:%M} ({local:%Z})"
