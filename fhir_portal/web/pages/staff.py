"""``/staff``: the way in, the start page, and the launch by which an EHR opens a patient's page.

The pages are a SMART app of this server (`fhir_portal.smart.staff_pages`). An EHR opens them as it
opens any app: it posts ``/oauth/launch``, then sends the browser to ``/staff/launch`` with ``iss``
and ``launch``. Whoever is there signs in, and what the launch says is judged by their own rights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.log import AccessLog
from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.levels import MEANS, in_order
from fhir_portal.accounts.sessions import Sessions
from fhir_portal.consent.record import RecordDirectory
from fhir_portal.portal import Portal
from fhir_portal.resources.settling import under_way
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.smart.staff_pages import (
    LAUNCH_PATH,
    LaunchRefused,
    NotOnStaff,
    StaffSessions,
    SwitchedOff,
)
from fhir_portal.web.form import once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.desk import (
    FIND,
    HOME,
    PRACTICE,
    Desk,
    Elsewhere,
    desk_page,
    pages_of,
    staff_page_scope,
    switched_off,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.pages.shown_once import ShownOnce
from fhir_portal.web.pages.signin import SIGN_IN, front_door, local
from fhir_portal.web.pages.staff_accounts import AccountPages
from fhir_portal.web.pages.staff_appointments import StaffAppointmentPages
from fhir_portal.web.pages.staff_bills import StaffBillPages
from fhir_portal.web.pages.staff_documents import StaffDocumentPages
from fhir_portal.web.pages.staff_forms import FormPages
from fhir_portal.web.pages.staff_inbox import InboxPages
from fhir_portal.web.pages.staff_invitations import InvitationPages
from fhir_portal.web.pages.staff_label_rules import LabelRulePages
from fhir_portal.web.pages.staff_labels import RecordLabelPages
from fhir_portal.web.pages.staff_levels import LevelPages
from fhir_portal.web.pages.staff_matters import MatterPages
from fhir_portal.web.pages.staff_members import MemberPages
from fhir_portal.web.pages.staff_merge import MergePages
from fhir_portal.web.pages.staff_messages import MessagePages
from fhir_portal.web.pages.staff_patients import PatientPages
from fhir_portal.web.pages.staff_proposals import ProposalPages
from fhir_portal.web.pages.staff_settings import SettingPages
from fhir_portal.web.pages.step_up import StepUp

_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{20,100}")
_LAUNCH_OVER: Final = (
    "This launch is over, was used already, or is not for you. Open the patient in your EHR again."
)
_NOT_OURS: Final = "This launch is for another server. Tell whoever set up the EHR."


def staff_router(
    *,
    portal: Portal,
    server: AuthorizationServer,
    sessions: Sessions,
    sign_in: SignIn,
    directory: RecordDirectory,
    store: Any,
    log: AccessLog,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
) -> APIRouter:
    """The pages as routes for FastAPI. ``store`` keeps records and resources."""
    cookies = Cookies(server.issuer, server.keys, sessions)
    staff = StaffSessions(
        store,
        directory=directory,
        issuer=server.issuer,
        scope=staff_page_scope(),
        clock=clock,
        random=random,
    )
    step_up = StepUp(front_door(server, sessions, sign_in), cookies)
    desk = Desk(portal, server, cookies, staff, directory, step_up, store, log, clock, random)
    router = APIRouter(include_in_schema=False)
    patients = PatientPages(desk)
    once = ShownOnce(store, server.keys, clock=clock, random=random)
    for routes in (
        StaffPages(desk).routes(),
        patients.routes(),
        InvitationPages(desk, patients, once).routes(),
        MergePages(desk, patients).routes(),
        AccountPages(desk, once).routes(),
        LevelPages(desk).routes(),
        MemberPages(desk).routes(),
        MessagePages(desk).routes(),
        InboxPages(desk).routes(),
        MatterPages(desk).routes(),
        SettingPages(desk).routes(),
        StaffAppointmentPages(desk).routes(),
        FormPages(desk, patients).routes(),
        StaffDocumentPages(desk).routes(),
        ProposalPages(desk).routes(),
        StaffBillPages(desk).routes(),
        LabelRulePages(desk).routes(),
        RecordLabelPages(desk, patients).routes(),
    ):
        for path, method, handler in routes:
            router.add_route(path, handler, methods=[method])
    return router


class StaffPages:
    """The start page, the choice of a practice, and launches."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (HOME, "GET", desk_page(self.show)),
            (PRACTICE, "GET", desk_page(self.show_practices)),
            (PRACTICE, "POST", desk_page(self.choose_practice)),
            (LAUNCH_PATH, "GET", desk_page(self.launch)),
            (f"{LAUNCH_PATH}/{{handle}}", "GET", desk_page(self.launched)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        permissions = in_order(here.staff.permissions)
        return self._desk.page(
            here,
            "staff_home.html",
            may=[MEANS[one] for one in permissions],
            pages=[one for one in pages_of(here) if one[0] != HOME],
            find=FIND if here.may("view") else "",
            under_way=await under_way(self._desk.store, here.staff.practice),
        )

    # --- which practice ------------------------------------------------------------------------

    async def show_practices(self, request: Request) -> Response:
        browser = await self._signed_in(request, PRACTICE)
        return await self._practices(browser)

    async def choose_practice(self, request: Request) -> Response:
        form = once_each(await posted(request))
        browser = await self._signed_in(request, PRACTICE)
        token = form.get(FORM_TOKEN, "")
        self._desk.cookies.check_form(request, browser, PRACTICE, _account(browser), token)
        practice = form.get("practice", "")
        if not practice:
            return await self._practices(browser, problem="Choose a practice.")
        await self._desk.may_open(browser, PRACTICE)
        await self._desk.open(browser, practice)
        return redirect(HOME)

    async def _practices(self, browser: Browser, *, problem: str = "") -> Response:
        there = await self._desk.directory.staff_of(browser.visitor.account)
        if not there:
            return page("staff_none.html", status=403)
        session = await self._desk.staff.find(browser.visitor)
        return page(
            "staff_practice.html",
            status=400 if problem else 200,
            problem=problem,
            action=PRACTICE,
            practices=there,
            chosen=session.practice if session is not None else None,
            form_token=self._desk.cookies.form_token(browser, PRACTICE, _account(browser)),
        )

    # --- launches ------------------------------------------------------------------------------

    async def launch(self, request: Request) -> Response:
        """Where an EHR opens the pages (SMART App Launch 2.2 §2.0.5).

        The launch goes on in the path, so that it survives a sign-in. ``iss`` has to be ours: what
        another server says of a launch would be taken for what this one says (RFC 9700 §4.4).
        """
        pairs = parse_pairs(request.scope["query_string"])
        given = once_each([pair for pair in pairs if pair[0] in {"iss", "launch"}])
        if given.get("iss", "").rstrip("/") not in self._ours():
            return page("problem.html", status=400, message=_NOT_OURS, back=HOME)
        if not _HANDLE.fullmatch(given.get("launch", "")):
            return page("problem.html", status=400, message=_LAUNCH_OVER, back=HOME)
        return redirect(f"{LAUNCH_PATH}/{given['launch']}")

    async def launched(self, request: Request) -> Response:
        handle = request.path_params["handle"]
        if not _HANDLE.fullmatch(handle):
            return page("problem.html", status=400, message=_LAUNCH_OVER, back=HOME)
        here = f"{LAUNCH_PATH}/{handle}"
        browser = await self._signed_in(request, here)
        await self._desk.may_open(browser, here)
        try:
            _, patient = await self._desk.staff.launched(browser.visitor, handle)
        except NotOnStaff:
            return page("staff_none.html", status=403)
        except LaunchRefused:
            return page("problem.html", status=400, message=_LAUNCH_OVER, back=HOME)
        except SwitchedOff:
            return switched_off()
        return redirect(f"{FIND}/{patient}")

    def _ours(self) -> frozenset[str]:
        return frozenset(self._desk.server.issuer.everywhere("/fhir"))

    async def _signed_in(self, request: Request, then: str) -> Browser:
        browser = await self._desk.cookies.browser(request)
        if browser.visitor.account is None:
            raise Elsewhere(redirect(f"{SIGN_IN}?then={local(then) or HOME}"))
        return browser


def _account(browser: Browser) -> str:
    account = browser.visitor.account
    return account.key if account is not None else ""
