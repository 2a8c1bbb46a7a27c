"""``/activate`` and ``/register``: by a security code, a printed sheet, or one's mail address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.contacts import InvalidContact
from fhir_portal.accounts.policy import Way as PolicyWay
from fhir_portal.operations.activation.activations import NotMatched
from fhir_portal.operations.activation.by_invitation import BirthAndPlace, Sheet, by_code, by_sheet
from fhir_portal.operations.activation.by_mail import by_mail
from fhir_portal.operations.matching import Said
from fhir_portal.web.form import once_each
from fhir_portal.web.pages.activation_room import (
    ACTIVATE,
    NOT_MATCHED,
    ActivationRoom,
    activation_page,
    shown_again,
)
from fhir_portal.web.pages.birth_date import birth_date_of
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, address_of, posted
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import page

REGISTER: Final = "/register"
BY_CODE: Final = f"{ACTIVATE}/code"
BY_SHEET: Final = f"{ACTIVATE}/sheet"

_log = structlog.get_logger(__name__)


class WayPages:
    """Choosing a way; a security code, a printed sheet, the mail address on file."""

    def __init__(self, room: ActivationRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (ACTIVATE, "GET", activation_page(self.show)),
            (REGISTER, "GET", activation_page(self.show_register)),
            (REGISTER, "POST", activation_page(self.register)),
            (BY_CODE, "GET", activation_page(self.show_code)),
            (BY_CODE, "POST", activation_page(self.by_code)),
            (BY_SHEET, "GET", activation_page(self.show_sheet)),
            (BY_SHEET, "POST", activation_page(self.by_sheet)),
        )

    async def show(self, request: Request) -> Response:
        browser = await self._room.cookies.browser(request)
        activation = await self._room.current(browser)
        return page(
            "activate.html",
            under_way=activation is not None,
            has_sheets=bool(await self._room.activations.practices("portal-id")),
        )

    async def show_code(self, request: Request) -> Response:
        return await self._show_way(request, "code", self._code_page)

    async def by_code(self, request: Request) -> Response:
        browser, form = await self._begin(request, BY_CODE)
        said = BirthAndPlace(birth_date_of(form))
        try:
            fresh = self._room.fresh(browser)
            await by_code(
                self._room.activations,
                fresh.visitor.browser,
                address_of(request),
                form.get("practice_id", ""),
                form.get("code", ""),
                said,
            )
        except NotMatched:
            _log.info("activation refused", way="code")
            return await self._code_page(browser, form, problem=NOT_MATCHED)
        return await self._room.on(fresh)

    async def _code_page(
        self, browser: Browser, values: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        return await self._way_page(
            "activate_code.html", "username", BY_CODE, browser, values, problem
        )

    async def show_sheet(self, request: Request) -> Response:
        return await self._show_way(request, "sheet", self._sheet_page)

    async def by_sheet(self, request: Request) -> Response:
        browser, form = await self._begin(request, BY_SHEET)
        sheet = Sheet(
            portal_id=form.get("portal_id", ""),
            first_initial=form.get("first_initial", ""),
            last_initial=form.get("last_initial", ""),
            birth_date=birth_date_of(form),
            word=form.get("word", ""),
        )
        try:
            fresh = self._room.fresh(browser)
            await by_sheet(
                self._room.activations,
                fresh.visitor.browser,
                address_of(request),
                form.get("practice_id", ""),
                sheet,
            )
        except NotMatched:
            _log.info("activation refused", way="sheet")
            return await self._sheet_page(browser, form, problem=NOT_MATCHED)
        return await self._room.on(fresh)

    async def _sheet_page(
        self, browser: Browser, values: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        return await self._way_page(
            "activate_sheet.html", "portal-id", BY_SHEET, browser, values, problem
        )

    async def show_register(self, request: Request) -> Response:
        return await self._show_way(request, "mail", self._register_page)

    async def register(self, request: Request) -> Response:
        browser, form = await self._begin(request, REGISTER)
        said = Said(
            mail=form.get("mail", ""),
            first=form.get("first", ""),
            last=form.get("last", ""),
            birth_date=birth_date_of(form),
        )
        try:
            fresh = self._room.fresh(browser)
            await by_mail(
                self._room.activations,
                fresh.visitor.browser,
                address_of(request),
                form.get("practice_id", ""),
                said,
            )
        except InvalidContact as error:
            return await self._register_page(browser, form, problem=str(error))
        return await self._room.on(fresh)

    async def _register_page(
        self, browser: Browser, values: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        return await self._way_page(
            "activate_mail.html", "mail", REGISTER, browser, values, problem
        )

    async def _show_way(
        self, request: Request, way: str, show: Callable[..., Awaitable[Response]]
    ) -> Response:
        browser = await self._room.cookies.browser(request, to_sign_in=True)
        activation = await self._room.current(browser)
        is_it = activation is not None and activation.way == way
        return await show(browser, activation.typed if activation and is_it else {})

    async def _way_page(
        self,
        template: str,
        way: PolicyWay,
        action: str,
        browser: Browser,
        values: Mapping[str, str],
        problem: str,
    ) -> Response:
        shown = page(
            template,
            status=403 if problem else 200,
            problem=problem,
            practices=[
                (one.practice_id, one.name) for one in await self._room.activations.practices(way)
            ],
            values=shown_again(values),
            form_token=self._room.cookies.form_token(browser, action, ""),
        )
        return self._room.cookies.keep(shown, browser)

    async def _begin(self, request: Request, action: str) -> tuple[Browser, dict[str, str]]:
        browser = await self._room.cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        self._room.cookies.check_form(request, browser, action, "", form.get(FORM_TOKEN, ""))
        return browser, form
