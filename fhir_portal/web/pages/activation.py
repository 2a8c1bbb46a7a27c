"""``/activate`` and ``/register``: how somebody who has no account here gets one, or adds a record.

Every way is a form, works without JavaScript, and refuses in the same words and with the same
status whatever was wrong. Opening a link changes nothing, however often a scanner does. What was
typed is kept on the server for thirty minutes, never a password, and the browser may be closed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account, DuplicateAccount, InvalidUsername, UnknownAccount
from fhir_portal.accounts.activation import Activation, ActivationOver
from fhir_portal.accounts.contacts import InvalidContact, masked_value
from fhir_portal.accounts.credentials import (
    MAX_LENGTH,
    MIN_LENGTH,
    SignIn,
    UnacceptablePassword,
)
from fhir_portal.accounts.devices import device_words
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.invitation import NotUsable
from fhir_portal.accounts.one_time_code import SentTooOften
from fhir_portal.accounts.passkeys import PasskeyRefused
from fhir_portal.accounts.policy import Way as PolicyWay
from fhir_portal.accounts.practice_list import PracticeList
from fhir_portal.accounts.proof import PASSWORD, Proof, Spent
from fhir_portal.accounts.security_questions import is_asked_by_practice
from fhir_portal.accounts.sessions import Sessions
from fhir_portal.accounts.step_up import FRESH
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.operations.activation.activations import Activations, NotMatched
from fhir_portal.operations.activation.by_invitation import (
    BirthAndPlace,
    Greeting,
    Sheet,
    by_code,
    by_link,
    by_sheet,
    greeting_for,
)
from fhir_portal.operations.activation.by_mail import by_mail
from fhir_portal.operations.activation.ending import (
    begin_passkey,
    choose_name,
    into_account,
    with_passkey,
    with_password,
)
from fhir_portal.operations.activation.proofs import (
    ask_staff,
    choose_contact,
    give_code,
    give_security_code,
    open_contacts,
    other_proof,
    send_again,
    send_code,
)
from fhir_portal.operations.activation.renewal import renew
from fhir_portal.operations.four_eyes import InvitedThemselves
from fhir_portal.operations.matching import Said
from fhir_portal.operations.redeem import AlreadyTaken, ClosedHere
from fhir_portal.portal import Portal
from fhir_portal.smart.errors import InvalidRequest, TooManyRequests
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.form import once_each
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, address_of, posted
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import json_text, page, redirect
from fhir_portal.web.pages.signin import SIGN_IN, front_door, wait_words
from fhir_portal.web.pages.step_up import StepUp
from fhir_portal.web.pages.words import day

ACTIVATE: Final = "/activate"
REGISTER: Final = "/register"
BY_CODE: Final = f"{ACTIVATE}/code"
BY_SHEET: Final = f"{ACTIVATE}/sheet"
PROOF: Final = f"{ACTIVATE}/proof"
PROOF_SEND: Final = f"{PROOF}/send"
PROOF_AGAIN: Final = f"{PROOF}/again"
PROOF_CODE: Final = f"{PROOF}/security-code"
PROOF_HELP: Final = f"{PROOF}/help"
PROOF_OTHER: Final = f"{PROOF}/other"
CONTACT: Final = f"{ACTIVATE}/contact"
ACCOUNT: Final = f"{ACTIVATE}/account"
ADD: Final = f"{ACCOUNT}/add"
PASSKEY: Final = f"{ACTIVATE}/passkey"
PASSKEY_OPTIONS: Final = f"{PASSKEY}/options"
DONE: Final = f"{ACTIVATE}/done"

NOT_MATCHED: Final = (
    "Something does not match, or can no longer be used. Look at each field once more. After five "
    "tries nothing helps but a new invitation: then ask your practice."
)
WRONG_CODE: Final = (
    "That code does not match, or can no longer be used. Look at it once more, or have a new one "
    "sent. After five tries ask your practice."
)
_TAKEN: Final = "This user name is taken. Choose another, or sign in below if the account is yours."
_OVER: Final = (
    "What you began here is over: thirty minutes went by, or it was used already. Begin again with "
    "your invitation. If you made an account, sign in with it."
)
_HAS_ACCOUNT: Final = (
    "Somebody has this access already. If it is you, sign in with that account. If not, ask your "
    "practice."
)
_CLOSED_HERE: Final = (
    "Another practice helped you back into this account, so this practice has to prove again who "
    "you are before it adds anything. Ask it for a new invitation to what you had before."
)
_OWN_INVITATION: Final = (
    "You work at this practice and made this invitation yourself, or you seem to be who made it. "
    "Somebody else on its staff has to invite you."
)
_SENT_OFTEN: Final = "No more codes are sent for now. Choose another way, or ask your practice."
_NO_PASSKEY: Final = "The passkey could not be made. Try again, or choose a password."
_MONTHS: Final = (
    "january february march april may june july august september october november december".split()
)
_ISO: Final = re.compile(r"\s*([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})\s*")
_AMERICAN: Final = re.compile(r"\s*([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})\s*")
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_SHOWN: Final = 200
_STEPS: Final = {"code": PROOF, "proof": PROOF, "contact": CONTACT, "account": ACCOUNT}

_log = structlog.get_logger(__name__)


def activation_router(
    *,
    portal: Portal,
    server: AuthorizationServer,
    sessions: Sessions,
    sign_in: SignIn,
    home: str,
) -> APIRouter:
    """The pages as routes for FastAPI; ``home`` is where a new account begins."""
    cookies = Cookies(server.issuer, server.keys, sessions)
    door = front_door(server, sessions, sign_in)
    listing = PracticeList(portal.server.store)
    activations = Activations(portal.server, portal.collaborators, door, listing)
    router = APIRouter(include_in_schema=False)
    pages = ActivationPages(activations, door, cookies, StepUp(door, cookies), home)
    for path, method, handler in pages.routes():
        router.add_route(path, handler, methods=[method])
    return router


class ActivationPages:
    """The pages of all ways, from the first proof to the account."""

    def __init__(
        self,
        activations: Activations,
        door: FrontDoor,
        cookies: Cookies,
        step_up: StepUp,
        home: str,
    ) -> None:
        self._activations = activations
        self._door = door
        self._cookies = cookies
        self._step_up = step_up
        self._home = home

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page; those of a link come last."""
        routes: Sequence[tuple[str, str, Handler]] = (
            (ACTIVATE, "GET", self.show),
            (REGISTER, "GET", self.show_register),
            (REGISTER, "POST", self.register),
            (BY_CODE, "GET", self.show_code),
            (BY_CODE, "POST", self.by_code),
            (BY_SHEET, "GET", self.show_sheet),
            (BY_SHEET, "POST", self.by_sheet),
            (PROOF, "GET", self.show_proof),
            (PROOF, "POST", self.give_code),
            (PROOF_SEND, "POST", self.send_code),
            (PROOF_AGAIN, "POST", self.send_again),
            (PROOF_CODE, "POST", self.give_security_code),
            (PROOF_HELP, "POST", self.ask_staff),
            (PROOF_OTHER, "POST", self.other_proof),
            (CONTACT, "GET", self.show_contact),
            (CONTACT, "POST", self.choose_contact),
            (ACCOUNT, "GET", self.show_account),
            (ACCOUNT, "POST", self.make_account),
            (ADD, "POST", self.add),
            (PASSKEY, "GET", self.show_passkey),
            (PASSKEY, "POST", self.make_passkey),
            (PASSKEY_OPTIONS, "POST", self.offer_passkey),
            (DONE, "GET", self.show_done),
            (f"{ACTIVATE}/{{link}}", "GET", self.show_link),
            (f"{ACTIVATE}/{{link}}", "POST", self.by_link),
            (f"{ACTIVATE}/{{link}}/again", "POST", self.renew),
        )
        return [
            (path, method, refusing(_ending(handler), back=ACTIVATE, signed_out=ACCOUNT))
            for path, method, handler in routes
        ]

    # --- choosing a way ------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        activation = await self._current(browser)
        return page(
            "activate.html",
            under_way=activation is not None,
            has_sheets=bool(await self._activations.practices("portal-id")),
        )

    # --- the link of an invitation -------------------------------------------------------------

    async def show_link(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        activation = await self._current(browser)
        values = dict(activation.typed) if activation and activation.way == "link" else {}
        return await self._link_page(request, browser, values)

    async def by_link(self, request: Request) -> Response:
        link, browser, form = await self._from_link(request, "")
        said = BirthAndPlace(birth_date_of(form), form.get("postal_code", ""))
        try:
            fresh = self._fresh(browser)
            await by_link(
                self._activations,
                fresh.visitor.browser,
                address_of(request),
                link,
                form.get("code", ""),
                said,
            )
        except NotMatched:
            _log.info("activation refused", way="link")
            return await self._link_page(request, browser, form, problem=NOT_MATCHED)
        return await self._on(fresh)

    async def renew(self, request: Request) -> Response:
        link, browser, _ = await self._from_link(request, "/again")
        await renew(self._activations, address_of(request), link)
        return self._cookies.keep(page("activate_over.html", sent=True), browser)

    async def _from_link(self, request: Request, what: str) -> tuple[str, Browser, dict[str, str]]:
        link = str(request.path_params["link"])[:_SHOWN]
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        token = form.get(FORM_TOKEN, "")
        self._cookies.check_form(request, browser, f"{ACTIVATE}/link{what}", link, token)
        return link, browser, form

    async def _link_page(
        self, request: Request, browser: Browser, values: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        """The form of a link; one page for every link that is over, of whatever kind."""
        link = str(request.path_params["link"])[:_SHOWN]
        greeting = await greeting_for(self._activations, link)
        if greeting is None:
            over = page(
                "activate_over.html",
                status=403 if problem else 404,
                sent=False,
                action=f"{ACTIVATE}/{link}/again" if link.isalnum() else "",
                form_token=self._cookies.form_token(browser, f"{ACTIVATE}/link/again", link),
            )
            return self._cookies.keep(over, browser)
        shown = page(
            "activate_link.html",
            status=403 if problem else 200,
            problem=problem,
            action=f"{ACTIVATE}/{link}",
            practice=greeting.practice,
            initials=greeting.initials,
            is_self=greeting.is_self,
            ends=_moment(greeting),
            values=_values(values),
            form_token=self._cookies.form_token(browser, f"{ACTIVATE}/link", link),
        )
        return self._cookies.keep(shown, browser)

    # --- a security code, a printed sheet, the mail address on file ----------------------------

    async def show_code(self, request: Request) -> Response:
        return await self._show_way(request, "code", self._code_page)

    async def by_code(self, request: Request) -> Response:
        browser, form = await self._begin(request, BY_CODE)
        said = BirthAndPlace(birth_date_of(form))
        try:
            fresh = self._fresh(browser)
            await by_code(
                self._activations,
                fresh.visitor.browser,
                address_of(request),
                form.get("practice_id", ""),
                form.get("code", ""),
                said,
            )
        except NotMatched:
            _log.info("activation refused", way="code")
            return await self._code_page(browser, form, problem=NOT_MATCHED)
        return await self._on(fresh)

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
            fresh = self._fresh(browser)
            await by_sheet(
                self._activations,
                fresh.visitor.browser,
                address_of(request),
                form.get("practice_id", ""),
                sheet,
            )
        except NotMatched:
            _log.info("activation refused", way="sheet")
            return await self._sheet_page(browser, form, problem=NOT_MATCHED)
        return await self._on(fresh)

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
            fresh = self._fresh(browser)
            await by_mail(
                self._activations,
                fresh.visitor.browser,
                address_of(request),
                form.get("practice_id", ""),
                said,
            )
        except InvalidContact as error:
            return await self._register_page(browser, form, problem=str(error))
        return await self._on(fresh)

    async def _register_page(
        self, browser: Browser, values: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        return await self._way_page(
            "activate_mail.html", "mail", REGISTER, browser, values, problem
        )

    async def _show_way(
        self, request: Request, way: str, show: Callable[..., Awaitable[Response]]
    ) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        activation = await self._current(browser)
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
                (one.practice_id, one.name) for one in await self._activations.practices(way)
            ],
            values=_values(values),
            form_token=self._cookies.form_token(browser, action, ""),
        )
        return self._cookies.keep(shown, browser)

    async def _begin(self, request: Request, action: str) -> tuple[Browser, dict[str, str]]:
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        self._cookies.check_form(request, browser, action, "", form.get(FORM_TOKEN, ""))
        return browser, form

    # --- proofs --------------------------------------------------------------------------------

    async def show_proof(self, request: Request) -> Response:
        browser, activation = await self._under_way(request)
        step = await self._activations.due(activation)
        if step not in {"code", "proof"}:
            return redirect(_STEPS[step])
        return await self._proof_page(browser, activation)

    async def give_code(self, request: Request) -> Response:
        browser, activation, form = await self._posted(request, PROOF)
        try:
            activation = await give_code(self._activations, activation, form.get("code", ""))
        except NotMatched:
            _log.info("one-time code refused")
            return await self._proof_page(browser, activation, problem=WRONG_CODE)
        return redirect(_STEPS[await self._activations.due(activation)])

    async def send_code(self, request: Request) -> Response:
        browser, activation, form = await self._posted(request, PROOF_SEND)
        try:
            await send_code(self._activations, activation, form.get("contact", ""))
        except NotMatched:
            problem = "Choose where the code is to go."
            return await self._proof_page(browser, activation, problem=problem)
        return redirect(PROOF)

    async def send_again(self, request: Request) -> Response:
        browser, activation, _ = await self._posted(request, PROOF_AGAIN)
        try:
            await send_again(self._activations, activation)
        except SentTooOften:
            return await self._proof_page(browser, activation, problem=_SENT_OFTEN)
        return await self._proof_page(browser, activation, done="A new code is on its way.")

    async def give_security_code(self, request: Request) -> Response:
        browser, activation, form = await self._posted(request, PROOF_CODE)
        try:
            activation = await give_security_code(
                self._activations, activation, form.get("security_code", "")
            )
        except NotMatched:
            _log.info("security code refused")
            return await self._proof_page(browser, activation, problem=NOT_MATCHED)
        return redirect(_STEPS[await self._activations.due(activation)])

    async def ask_staff(self, request: Request) -> Response:
        browser, activation, _ = await self._posted(request, PROOF_HELP)
        await ask_staff(self._activations, activation)
        done = "Your practice is told. Call it, or go there: it can give you a security code."
        return await self._proof_page(browser, activation, done=done)

    async def other_proof(self, request: Request) -> Response:
        _, activation, _ = await self._posted(request, PROOF_OTHER)
        await other_proof(self._activations, activation)
        return redirect(PROOF)

    async def _proof_page(
        self, browser: Browser, activation: Activation, *, problem: str = "", done: str = ""
    ) -> Response:
        found = await self._activations.current(browser.visitor.browser)
        activation = found or activation
        to = activation.challenge_to
        tokens = {
            action: self._cookies.form_token(browser, action, activation.key)
            for action in (PROOF, PROOF_SEND, PROOF_AGAIN, PROOF_CODE, PROOF_HELP, PROOF_OTHER)
        }
        return page(
            "activate_proof.html",
            status=403 if problem else 200,
            problem=problem,
            done=done,
            awaited=masked_value(to.medium, to.value) if to and activation.challenge else None,
            medium=to.medium if to else "",
            is_first=activation.way == "mail"
            and not any(one.what == "one-time-code" for one in activation.evidence),
            contacts=[
                (number, one.medium, masked_value(one.medium, one.value))
                for number, one in enumerate(open_contacts(activation))
            ],
            takes_code=activation.way == "mail",
            form_tokens=tokens,
        )

    # --- a contact -----------------------------------------------------------------------------

    async def show_contact(self, request: Request) -> Response:
        browser, activation = await self._under_way(request)
        step = await self._activations.due(activation)
        if step not in {"contact", "account"} or activation.proved_contacts:
            return redirect(_STEPS[step])
        return self._contact_page(browser, activation)

    async def choose_contact(self, request: Request) -> Response:
        browser, activation, form = await self._posted(request, CONTACT)
        if await self._activations.due(activation) not in {"contact", "account"}:
            return redirect(PROOF)
        mail, how = form.get("mail", "").strip(), form.get("how", "")
        if how == "back":
            return redirect(CONTACT)
        if not mail and how != "without":
            return self._contact_page(browser, activation, asks=True)
        try:
            await choose_contact(self._activations, activation, None if how == "without" else mail)
        except InvalidContact as error:
            return self._contact_page(browser, activation, mail=mail, problem=str(error))
        return redirect(ACCOUNT)

    def _contact_page(
        self,
        browser: Browser,
        activation: Activation,
        *,
        mail: str | None = None,
        problem: str = "",
        asks: bool = False,
    ) -> Response:
        return page(
            "activate_contact.html",
            status=403 if problem else 200,
            problem=problem,
            asks=asks,
            mail=activation.contact if mail is None else mail,
            form_token=self._cookies.form_token(browser, CONTACT, activation.key),
        )

    # --- the account ---------------------------------------------------------------------------

    async def show_account(self, request: Request) -> Response:
        browser, activation = await self._under_way(request)
        step = await self._activations.due(activation)
        if step != "account" and not (step == "contact" and browser.visitor.account is not None):
            return redirect(_STEPS[step])
        return await self._account_page(request, browser, activation)

    async def make_account(self, request: Request) -> Response:
        browser, activation, form = await self._posted(request, ACCOUNT)
        username, password = form.get("username", ""), form.get("password", "")
        again = functools.partial(self._account_page, request, browser, activation)
        if browser.visitor.account is not None:
            return redirect(ACCOUNT)
        try:
            if form.get("how") == "passkey":
                await choose_name(self._activations, activation, username)
                return redirect(PASSKEY)
            if form.get("repeated", password) != password:
                problem = "The password was not typed the same way twice."
                return await again(username=username, problem=problem, wrong="repeated")
            account, codes = await with_password(self._activations, activation, username, password)
        except InvalidUsername as error:
            return await again(username=username, problem=str(error), wrong="username")
        except DuplicateAccount:
            return await again(username=username, problem=_TAKEN, wrong="username")
        except UnacceptablePassword as error:
            return await again(username=username, problem=str(error), wrong="password")
        return await self._signed_in(request, browser, activation, account, codes, PASSWORD)

    async def add(self, request: Request) -> Response:
        browser, activation, _ = await self._posted(request, ADD)
        # What was proved brings contacts with it, which help to recover the account one day.
        if sent := await self._step_up.to(browser, FRESH, then=ACCOUNT):
            return sent
        await into_account(self._activations, activation, browser.visitor)
        return redirect(f"{DONE}?added=1")

    async def _account_page(
        self,
        request: Request,
        browser: Browser,
        activation: Activation,
        *,
        username: str | None = None,
        problem: str = "",
        wrong: str = "",
    ) -> Response:
        account = browser.visitor.account
        mails = [one.value for one in activation.proved_contacts if one.medium == "mail"]
        if username is None:
            username = activation.typed.get("username") or next(iter(mails), "")
        return page(
            "activate_account.html",
            status=400 if problem else 200,
            scripted=True,
            problem=problem,
            wrong=wrong,
            signed_in=account.username if account is not None else None,
            username=username,
            mail=next(iter(mails), ""),
            asks_contact=not activation.proved_contacts,
            least=MIN_LENGTH,
            most=MAX_LENGTH,
            sign_in=f"{SIGN_IN}?then={ACCOUNT}",
            has_passkeys=self._door.passkeys.site(request.headers.get("host", "")) is not None,
            form_token=self._cookies.form_token(browser, ACCOUNT, activation.key),
            add_token=self._cookies.form_token(browser, ADD, activation.key),
        )

    async def show_passkey(self, request: Request) -> Response:
        browser, activation = await self._under_way(request)
        step = await self._activations.due(activation)
        if step != "account" or not activation.typed.get("username"):
            return redirect(_STEPS[step])
        return self._passkey_page(request, browser, activation)

    async def offer_passkey(self, request: Request) -> Response:
        """Answer the page's script with what the browser is to make."""
        browser, activation, _ = await self._posted(request, PASSKEY)
        site = self._door.passkeys.site(request.headers.get("host", ""))
        if site is None:
            raise InvalidRequest("There are no passkeys at this address.")
        try:
            _, options = await begin_passkey(
                self._activations, activation, browser.visitor.session, site
            )
        except (DuplicateAccount, InvalidUsername):
            raise InvalidRequest("Choose another user name.") from None
        return json_text(options)

    async def make_passkey(self, request: Request) -> Response:
        browser, activation, form = await self._posted(request, PASSKEY)
        device = device_words(request.headers.get("user-agent", ""))
        try:
            account, codes = await with_passkey(
                self._activations,
                activation,
                browser.visitor.session,
                form.get("credential", ""),
                device,
            )
        except (PasskeyRefused, Spent):
            return self._passkey_page(request, browser, activation, problem=_NO_PASSKEY)
        except DuplicateAccount:
            return await self._account_page(
                request, browser, activation, problem=_TAKEN, wrong="username"
            )
        return await self._signed_in(request, browser, activation, account, codes, Proof("passkey"))

    def _passkey_page(
        self, request: Request, browser: Browser, activation: Activation, *, problem: str = ""
    ) -> Response:
        return page(
            "activate_passkey.html",
            status=403 if problem else 200,
            scripted=True,
            problem=problem,
            here=self._door.passkeys.site(request.headers.get("host", "")) is not None,
            username=activation.typed.get("username", ""),
            passkey_options=PASSKEY_OPTIONS,
            passkey_action=PASSKEY,
            form_token=self._cookies.form_token(browser, PASSKEY, activation.key),
        )

    async def _signed_in(
        self,
        request: Request,
        browser: Browser,
        activation: Activation,
        account: Account,
        codes: Sequence[str],
        proof: Proof,
    ) -> Response:
        now = self._door.sessions.clock()
        _log.info("activated", way=activation.way, seconds=round(now - activation.begun))
        place = await self._cookies.place(request, account.username)
        opened = await self._door.sessions.sign_in(
            browser.visitor.session, account, proofs=(proof,), device=place.device
        )
        if codes:
            asks = await is_asked_by_practice(self._door.sessions.store, account)
            shown = page(
                "activate_done.html",
                codes=codes,
                waiting=await self._waiting(account),
                added=False,
                home=self._home,
                asks_questions=asks,
            )
            return await self._cookies.signed_in(shown, opened)
        return await self._cookies.signed_in(redirect(DONE), opened)

    async def show_done(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        account = browser.visitor.account
        if account is None:
            return redirect(f"{SIGN_IN}?then={DONE}")  # and on by way of the terms of use
        added = request.query_params.get("added") == "1"
        asks = await is_asked_by_practice(self._door.sessions.store, account)
        return page(
            "activate_done.html",
            codes=(),
            waiting=await self._waiting(account),
            added=added,
            home=self._home,
            asks_questions=asks,
        )

    async def _waiting(self, account: Account) -> list[tuple[str, str, str]]:
        """Practice, its telephone, and the number to show there, for each record that waits."""
        found = await self._activations.waiting(account)
        return [(practice.name, practice.phone or "", number) for practice, number in found]

    # --- what all of them do -------------------------------------------------------------------

    async def _current(self, browser: Browser) -> Activation | None:
        return await self._activations.current(browser.visitor.browser)

    async def _under_way(self, request: Request) -> tuple[Browser, Activation]:
        """Return what is under way in this browser. Raises `ActivationOver` for nothing."""
        browser = await self._cookies.browser(request)
        activation = await self._current(browser)
        if activation is None:
            raise ActivationOver
        return browser, activation

    async def _posted(
        self, request: Request, action: str
    ) -> tuple[Browser, Activation, dict[str, str]]:
        """Read a form of the activation that is under way. Raises `ActivationOver` for none."""
        form = once_each(await posted(request))
        browser, activation = await self._under_way(request)
        token = form.get(FORM_TOKEN, "")
        self._cookies.check_form(request, browser, action, activation.key, token)
        return browser, activation, form

    def _fresh(self, browser: Browser) -> Browser:
        """Draft a session under a new cookie for what is about to be proved.

        The one before may have been planted by whoever waits for the proof (OWASP ASVS 5.0, 7.2.4).
        A session somebody is signed in to stays: it had a new cookie then.
        """
        if browser.visitor.account is not None:
            return browser
        drafted = self._door.sessions.drafted()
        return Browser(drafted.cookie, drafted.visitor, is_new=True, is_stored=False)

    async def _on(self, browser: Browser) -> Response:
        return self._cookies.keep(redirect(PROOF), await self._cookies.store(browser))


def _ending(handler: Handler) -> Handler:
    """Answer what any step may come to: it is over, somebody was faster, too many tries."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (ActivationOver, NotUsable, UnknownAccount):
            return page("activate_ended.html", status=403, message=_OVER)
        except AlreadyTaken:
            return page("activate_ended.html", status=403, message=_HAS_ACCOUNT)
        except ClosedHere:
            return page("activate_ended.html", status=403, message=_CLOSED_HERE)
        except InvitedThemselves:
            return page("activate_ended.html", status=403, message=_OWN_INVITATION)
        except TooManyAttempts as error:
            raise TooManyRequests(
                wait_words(error), headers={"Retry-After": str(error.retry_after)}
            ) from None

    return answer


def birth_date_of(form: Mapping[str, str]) -> str:
    """Return the date of the three fields, as FHIR writes it; ``""`` for what is none.

    A whole date in any of them is taken too, as ``1984-05-12`` or ``05/12/1984``, and a month by
    its name.
    """
    year, month, dayd = (form.get(name, "").strip() for name in ("year", "month", "day"))
    for text in (year, month, dayd, form.get("birth_date", "")):
        if found := _ISO.fullmatch(text[:40]):
            year, month, dayd = found.groups()
        elif found := _AMERICAN.fullmatch(text[:40]):
            month, dayd, year = found.groups()
    if len(month) > 2:  # noqa: PLR2004 - a name
        named = [n for n, name in enumerate(_MONTHS, 1) if name.startswith(month.lower()[:20])]
        month = str(named[0]) if len(named) == 1 else ""
    if not all(_NUMBER.fullmatch(one) for one in (year, month, dayd)):
        return ""
    try:
        return date(int(year), int(month), int(dayd)).isoformat()
    except ValueError:
        return ""


class _Values(dict[str, str]):
    """What a form shows again; what was not typed is empty."""

    def __missing__(self, key: str) -> str:
        return ""


def _values(typed: Mapping[str, Any]) -> _Values:
    return _Values({name: str(text)[:_SHOWN] for name, text in typed.items()})


def _moment(greeting: Greeting) -> str:
    """When an invitation ends, by the clock of the practice."""
    local = datetime.fromtimestamp(greeting.ends, UTC).astimezone(ZoneInfo(greeting.practice.zone))
    shown = day(local.replace(tzinfo=UTC).timestamp())
    return f"{shown}, {local:%H:%M} ({local:%Z})"
