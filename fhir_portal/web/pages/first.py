"""What a person has to do first: ``/account/renew`` and ``/account/terms``.

Whoever is held (`fhir_portal.accounts.sessions.Visitor.held`) is signed in for no other page.
Sign-in leads here, and from here on to where the person was going, an app's request included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts import terms
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.credentials import MAX_LENGTH, MIN_LENGTH, UnacceptablePassword
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.passkeys import PasskeyRefused
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.proof import Spent
from fhir_portal.accounts.renewal import Renewal
from fhir_portal.accounts.sessions import Duty, SignedOutMeanwhile, Visitor
from fhir_portal.accounts.terms import Terms, TermsChanged
from fhir_portal.smart.errors import InvalidRequest
from fhir_portal.web.form import once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import refusing
from fhir_portal.web.pages.render import json_text, page, redirect
from fhir_portal.web.pages.signin import (
    FIRST,
    SIGN_IN,
    SIGN_OUT,
    WRONG_PASSKEY,
    Onward,
    Requests,
    Route,
)
from fhir_portal.web.pages.words import day

RENEW: Final = FIRST["renewal"]
TERMS: Final = FIRST["terms"]
PASSKEY: Final = f"{RENEW}/passkey"
PASSKEY_OPTIONS: Final = f"{RENEW}/passkey/options"

_WHY: Final = {
    "suspected-compromise": "Somebody else may know what you sign in with.",
    "staff-request": "Your practice asked for it.",
    "assisted-recovery": "Your practice helped you to get back into your account.",
}
_NOT_SAME: Final = "The new password was not typed the same way twice."
_CHANGED: Final = "The terms changed while you were reading. Here is what they are now."
_NOT_TICKED: Final = "Tick the box if you accept the terms. Without that you cannot go on."

_log = structlog.get_logger(__name__)


class FirstPages:
    """The pages of renewal and terms; ``home`` is where they lead that are for nothing else."""

    def __init__(self, door: FrontDoor, cookies: Cookies, requests: Requests, home: str) -> None:
        self._door = door
        self._renewal = Renewal(door)
        self._cookies = cookies
        self._requests = requests
        self._home = home

    def routes(self) -> Sequence[Route]:
        """Path, method and handler of each page."""
        routes: Sequence[Route] = (
            (RENEW, "GET", self.show_renewal),
            (RENEW, "POST", self.renew),
            (PASSKEY_OPTIONS, "POST", self.offer_passkey),
            (PASSKEY, "POST", self.renew_by_passkey),
            (TERMS, "GET", self.show_terms),
            (TERMS, "POST", self.accept),
        )
        return [
            (path, method, refusing(handler, back=SIGN_IN, signed_out=SIGN_IN))
            for path, method, handler in routes
        ]

    # --- renewal -------------------------------------------------------------------------------

    async def show_renewal(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        onward = _onward(request)
        if browser.visitor.duty != "renewal":
            return redirect(onward.at(SIGN_IN))
        return await self._renewal_page(request, browser, onward)

    async def renew(self, request: Request) -> Response:
        browser, onward, form = await self._posted(request, RENEW, "renewal")
        new = form.get("new_password", "")
        if form.get("repeated", new) != new:
            return await self._renewal_page(
                request, browser, onward, status=400, problem=_NOT_SAME, wrong="repeated"
            )
        place = await self._cookies.place(request, "")
        to = await self._requests.on(browser, onward, self._home)
        try:
            opened = await self._renewal.by_password(browser.visitor, new, place)
        except UnacceptablePassword as error:
            return await self._renewal_page(
                request, browser, onward, status=400, problem=str(error), wrong="new_password"
            )
        return await self._cookies.signed_in(to, opened)

    async def offer_passkey(self, request: Request) -> Response:
        """Answer the page's script with what the browser is to ask its passkeys."""
        browser, _, _ = await self._posted(request, RENEW, "renewal")
        site = self._door.passkeys.site(request.headers.get("host", ""))
        if site is None:
            raise InvalidRequest("There are no passkeys to ask here.")
        visitor = browser.visitor
        options = await self._door.passkeys.begin_proving(visitor.session, site, _held(visitor))
        return json_text(options)

    async def renew_by_passkey(self, request: Request) -> Response:
        browser, onward, form = await self._posted(request, RENEW, "renewal")
        place = await self._cookies.place(request, "")
        to = await self._requests.on(browser, onward, self._home)
        try:
            opened = await self._renewal.by_passkey(
                browser.visitor, form.get("credential", ""), place
            )
        except (PasskeyRefused, Spent):
            _log.info("renewal by passkey refused")
            return await self._renewal_page(
                request, browser, onward, status=403, problem=WRONG_PASSKEY
            )
        return await self._cookies.signed_in(to, opened)

    async def _renewal_page(
        self,
        request: Request,
        browser: Browser,
        onward: Onward,
        *,
        status: int = 200,
        problem: str = "",
        wrong: str = "",
    ) -> Response:
        account = _held(browser.visitor)
        site = self._door.passkeys.site(request.headers.get("host", ""))
        there = await self._door.passkeys.of(account.key)
        return page(
            "renew.html",
            status=status,
            then=await self._requests.app_of(browser, onward),
            scripted=True,
            username=account.username,
            why=_WHY.get(account.renewal or "", ""),
            problem=problem,
            wrong=wrong,
            least=MIN_LENGTH,
            most=MAX_LENGTH,
            has_password=account.password_hash is not None,
            has_passkeys=site is not None and any(one.domain == site.domain for one in there),
            passkey_options=PASSKEY_OPTIONS,
            passkey_action=PASSKEY,
            form_token=self._cookies.form_token(browser, RENEW, ""),
            sign_out_token=self._cookies.form_token(browser, SIGN_OUT, ""),
            **onward.hidden(),
        )

    # --- terms of use --------------------------------------------------------------------------

    async def show_terms(self, request: Request) -> Response:
        """What is to be accepted; for whoever is signed in, what is current."""
        browser = await self._cookies.browser(request)
        onward = _onward(request)
        if browser.visitor.duty == "terms":
            return await self._terms_page(browser, onward)
        account = browser.visitor.account
        if account is None:
            return redirect(onward.at(SIGN_IN))
        found = await terms.current_for(self._door.sessions.store, account)
        return page(
            "terms.html",
            asks=False,
            problem="",
            documents=[await self._document(account, one) for one in found],
        )

    async def accept(self, request: Request) -> Response:
        browser, onward, form = await self._posted(request, TERMS, "terms")
        to = await self._requests.on(browser, onward, self._home)
        about = form.get("shown", "").split(",")
        if form.get("accept") != "yes":
            return await self._terms_page(browser, onward, status=400, problem=_NOT_TICKED)
        try:
            opened = await self._door.sessions.accept_terms(browser.visitor, about)
        except TermsChanged:
            return await self._terms_page(browser, onward, status=409, problem=_CHANGED)
        return await self._cookies.signed_in(to, opened)

    async def _terms_page(
        self, browser: Browser, onward: Onward, *, status: int = 200, problem: str = ""
    ) -> Response:
        account = _held(browser.visitor)
        found = await terms.due(self._door.sessions.store, account)
        return page(
            "terms.html",
            status=status,
            then=await self._requests.app_of(browser, onward),
            asks=True,
            problem=problem,
            documents=[await self._document(account, one) for one in found],
            shown=",".join(one.key for one in found),
            form_token=self._cookies.form_token(browser, TERMS, ""),
            sign_out_token=self._cookies.form_token(browser, SIGN_OUT, ""),
            **onward.hidden(),
        )

    async def _document(self, account: Account, one: Terms) -> dict[str, Any]:
        """What the page says of one version."""
        store = self._door.sessions.store
        before = await terms.accepted_before(store, account.key, one)
        practice = None
        if one.scope != terms.PORTAL:
            practice = await store.get(Practice, one.scope.partition("/")[2])
        return {
            "id": f"{one.scope}-{one.version}".replace("/", "-"),
            "of": practice.name if practice is not None else "this portal",
            "since": day(one.published),
            "version": one.version,
            "summary": terms.paragraphs(one.summary),
            "text": terms.paragraphs(one.text),
            "changes": terms.changes(before.text, one.text) if before is not None else [],
        }

    # --- what all of them do -------------------------------------------------------------------

    async def _posted(
        self, request: Request, action: str, duty: Duty
    ) -> tuple[Browser, Onward, dict[str, str]]:
        """Read a form of somebody who has this to do. Raises `SignedOutMeanwhile` else."""
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        self._cookies.check_form(request, browser, action, "", form.get(FORM_TOKEN, ""))
        if browser.visitor.duty != duty:
            raise SignedOutMeanwhile
        return browser, Onward.of(form), form


def _onward(request: Request) -> Onward:
    return Onward.of(dict(reversed(parse_pairs(request.scope["query_string"]))))


def _held(visitor: Visitor) -> Account:
    if visitor.held is None:
        raise SignedOutMeanwhile
    return visitor.held
