"""``/activate/account``: a new account, or the one that is signed in."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account, DuplicateAccount, InvalidUsername
from fhir_portal.accounts.activation import Activation
from fhir_portal.accounts.credentials import MAX_LENGTH, MIN_LENGTH, UnacceptablePassword
from fhir_portal.accounts.devices import device_words
from fhir_portal.accounts.passkeys import PasskeyRefused
from fhir_portal.accounts.proof import PASSWORD, Proof, Spent
from fhir_portal.accounts.security_questions import is_asked_by_practice
from fhir_portal.accounts.step_up import FRESH
from fhir_portal.operations.activation.ending import (
    begin_passkey,
    choose_name,
    into_account,
    with_passkey,
    with_password,
)
from fhir_portal.smart.errors import InvalidRequest
from fhir_portal.web.pages.activation_room import (
    ACCOUNT,
    ACTIVATE,
    STEPS,
    ActivationRoom,
    activation_page,
)
from fhir_portal.web.pages.browser import Browser
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import json_text, page, redirect
from fhir_portal.web.pages.signin import SIGN_IN
from fhir_portal.web.pages.step_up import StepUp

ADD: Final = f"{ACCOUNT}/add"
PASSKEY: Final = f"{ACTIVATE}/passkey"
PASSKEY_OPTIONS: Final = f"{PASSKEY}/options"
DONE: Final = f"{ACTIVATE}/done"
_TAKEN: Final = "This user name is taken. Choose another, or sign in below if the account is yours."
_NO_PASSKEY: Final = "The passkey could not be made. Try again, or choose a password."

_log = structlog.get_logger(__name__)


class NewAccountPages:
    """The account: a password or a passkey for a new one, or the one that is signed in."""

    def __init__(self, room: ActivationRoom, step_up: StepUp, home: str) -> None:
        self._room = room
        self._step_up = step_up
        self._home = home

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (ACCOUNT, "GET", activation_page(self.show_account)),
            (ACCOUNT, "POST", activation_page(self.make_account)),
            (ADD, "POST", activation_page(self.add)),
            (PASSKEY, "GET", activation_page(self.show_passkey)),
            (PASSKEY, "POST", activation_page(self.make_passkey)),
            (PASSKEY_OPTIONS, "POST", activation_page(self.offer_passkey)),
            (DONE, "GET", activation_page(self.show_done)),
        )

    async def show_account(self, request: Request) -> Response:
        browser, activation = await self._room.under_way(request)
        step = await self._room.activations.due(activation)
        if step != "account" and not (step == "contact" and browser.visitor.account is not None):
            return redirect(STEPS[step])
        return await self._account_page(request, browser, activation)

    async def make_account(self, request: Request) -> Response:
        browser, activation, form = await self._room.posted(request, ACCOUNT)
        username, password = form.get("username", ""), form.get("password", "")
        again = functools.partial(self._account_page, request, browser, activation)
        if browser.visitor.account is not None:
            return redirect(ACCOUNT)
        try:
            if form.get("how") == "passkey":
                await choose_name(self._room.activations, activation, username)
                return redirect(PASSKEY)
            if form.get("repeated", password) != password:
                problem = "The password was not typed the same way twice."
                return await again(username=username, problem=problem, wrong="repeated")
            account, codes = await with_password(
                self._room.activations, activation, username, password
            )
        except InvalidUsername as error:
            return await again(username=username, problem=str(error), wrong="username")
        except DuplicateAccount:
            return await again(username=username, problem=_TAKEN, wrong="username")
        except UnacceptablePassword as error:
            return await again(username=username, problem=str(error), wrong="password")
        return await self._signed_in(request, browser, activation, account, codes, PASSWORD)

    async def add(self, request: Request) -> Response:
        browser, activation, _ = await self._room.posted(request, ADD)
        # What was proved brings contacts with it, which help to recover the account one day.
        if sent := await self._step_up.to(browser, FRESH, then=ACCOUNT):
            return sent
        await into_account(self._room.activations, activation, browser.visitor)
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
            has_passkeys=self._room.door.passkeys.site(request.headers.get("host", "")) is not None,
            form_token=self._room.cookies.form_token(browser, ACCOUNT, activation.key),
            add_token=self._room.cookies.form_token(browser, ADD, activation.key),
        )

    async def show_passkey(self, request: Request) -> Response:
        browser, activation = await self._room.under_way(request)
        step = await self._room.activations.due(activation)
        if step != "account" or not activation.typed.get("username"):
            return redirect(STEPS[step])
        return self._passkey_page(request, browser, activation)

    async def offer_passkey(self, request: Request) -> Response:
        """Answer the page's script with what the browser is to make."""
        browser, activation, _ = await self._room.posted(request, PASSKEY)
        site = self._room.door.passkeys.site(request.headers.get("host", ""))
        if site is None:
            raise InvalidRequest("There are no passkeys at this address.")
        try:
            _, options = await begin_passkey(
                self._room.activations, activation, browser.visitor.session, site
            )
        except (DuplicateAccount, InvalidUsername):
            raise InvalidRequest("Choose another user name.") from None
        return json_text(options)

    async def make_passkey(self, request: Request) -> Response:
        browser, activation, form = await self._room.posted(request, PASSKEY)
        device = device_words(request.headers.get("user-agent", ""))
        try:
            account, codes = await with_passkey(
                self._room.activations,
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
            here=self._room.door.passkeys.site(request.headers.get("host", "")) is not None,
            username=activation.typed.get("username", ""),
            passkey_options=PASSKEY_OPTIONS,
            passkey_action=PASSKEY,
            form_token=self._room.cookies.form_token(browser, PASSKEY, activation.key),
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
        now = self._room.door.sessions.clock()
        _log.info("activated", way=activation.way, seconds=round(now - activation.begun))
        place = await self._room.cookies.place(request, account.username)
        opened = await self._room.door.sessions.sign_in(
            browser.visitor.session, account, proofs=(proof,), device=place.device
        )
        if codes:
            asks = await is_asked_by_practice(self._room.door.sessions.store, account)
            shown = page(
                "activate_done.html",
                codes=codes,
                waiting=await self._waiting(account),
                added=False,
                home=self._home,
                asks_questions=asks,
            )
            return await self._room.cookies.signed_in(shown, opened)
        return await self._room.cookies.signed_in(redirect(DONE), opened)

    async def show_done(self, request: Request) -> Response:
        browser = await self._room.cookies.browser(request)
        account = browser.visitor.account
        if account is None:
            return redirect(f"{SIGN_IN}?then={DONE}")  # and on by way of the terms of use
        added = request.query_params.get("added") == "1"
        asks = await is_asked_by_practice(self._room.door.sessions.store, account)
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
        found = await self._room.activations.waiting(account)
        return [(practice.name, practice.phone or "", number) for practice, number in found]
