"""``/account/contacts``: mail addresses and telephone numbers, proved by a code, and taken away.

Each change needs a proof from the last minutes (`fhir_portal.web.pages.step_up`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.contacts import (
    InvalidContact,
    LastContact,
    TooManyContacts,
    UnknownContact,
)
from fhir_portal.accounts.one_time_code import WrongOneTimeCode
from fhir_portal.accounts.own_contacts import OwnContacts
from fhir_portal.accounts.proof import Spent
from fhir_portal.accounts.sessions import SignedOutMeanwhile
from fhir_portal.accounts.step_up import FRESH
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.smart.errors import TooManyRequests
from fhir_portal.web.form import once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import refusing
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.pages.signin import SIGN_IN, Route, wait_words
from fhir_portal.web.pages.step_up import StepUp
from fhir_portal.web.pages.words import day, moment

CONTACTS: Final = "/account/contacts"
ADD: Final = f"{CONTACTS}/add"
SEND: Final = f"{CONTACTS}/send"
PROVE: Final = f"{CONTACTS}/prove"
REMOVE: Final = f"{CONTACTS}/remove"

_DONE: Final = {
    "proved": "It is proved that this is yours. You can be reached there from now on.",
    "alias": "It is proved that this is yours. You can sign in with it from now on.",
    "no-alias": (
        "It is proved that this is yours. You cannot sign in with it: it already leads to another "
        "account. You sign in as before."
    ),
    "removed": "It is removed.",
}
_WRONG: Final = (
    "That is not the code that we sent last, or it is over: each is good for ten minutes and five "
    "tries. Look again, or have a new one sent."
)
_LAST: Final = (
    "Without it nobody could reach you. Add another one and prove it first: a day after that you "
    "can remove this one."
)
_MOST: Final = "You have as many contacts as an account can have. Remove one first."

_log = structlog.get_logger(__name__)


class ContactPages:
    """The list of contacts and what people do with it."""

    def __init__(self, own: OwnContacts, cookies: Cookies, step_up: StepUp) -> None:
        self._own = own
        self._cookies = cookies
        self._step_up = step_up

    def routes(self) -> Sequence[Route]:
        """Path, method and handler of each page."""
        routes: Sequence[Route] = (
            (CONTACTS, "GET", self.show),
            (ADD, "GET", self.show_add),
            (ADD, "POST", self.add),
            (SEND, "POST", self.send),
            (PROVE, "GET", self.show_prove),
            (PROVE, "POST", self.prove),
            (REMOVE, "POST", self.remove),
        )
        signed_out = f"{SIGN_IN}?then={CONTACTS}"
        return [
            (path, method, refusing(handler, back=CONTACTS, signed_out=signed_out))
            for path, method, handler in routes
        ]

    async def show(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        account = browser.visitor.account
        if account is None:
            raise SignedOutMeanwhile
        done = _query(request).get("done", "")
        now = self._own.sessions.clock()
        return page(
            "contacts.html",
            done=_DONE.get(done, ""),
            contacts=[
                (
                    contact,
                    signs_in,
                    day(contact.verified) if contact.verified is not None else "",
                    moment(contact.recovers_from)
                    if contact.recovers_from is not None and contact.recovers_from > now
                    else "",
                )
                for contact, signs_in in await self._own.of(account)
            ],
            form_tokens={
                path: self._cookies.form_token(browser, path, "") for path in (SEND, REMOVE)
            },
        )

    async def show_add(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, FRESH, then=ADD):
            return sent
        return self._add_page(browser)

    async def add(self, request: Request) -> Response:
        browser, form = await self._posted(request, ADD)
        if sent := await self._step_up.to(browser, FRESH, then=ADD):
            return sent
        value = form.get("contact", "")
        try:
            challenge = await self._own.add(browser.visitor, value)
        except InvalidContact as error:
            return self._add_page(browser, status=400, problem=str(error), value=value)
        except TooManyContacts:
            return self._add_page(browser, status=400, problem=_MOST, value=value)
        except TooManyAttempts as error:
            raise _slower(error) from None
        return redirect(f"{PROVE}?{urlencode({'challenge': challenge.key})}")

    async def send(self, request: Request) -> Response:
        browser, form = await self._posted(request, SEND)
        if sent := await self._step_up.to(browser, FRESH, then=CONTACTS):
            return sent
        try:
            challenge = await self._own.send_again(browser.visitor, form.get("contact", ""))
        except UnknownContact:
            return redirect(CONTACTS)
        except TooManyAttempts as error:
            raise _slower(error) from None
        return redirect(f"{PROVE}?{urlencode({'challenge': challenge.key})}")

    async def show_prove(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if browser.visitor.account is None:
            raise SignedOutMeanwhile
        challenge = _query(request).get("challenge", "")
        if not challenge:  # they come back from a confirmation, which keeps no query
            challenge = await self._own.latest(browser.visitor)
        return await self._prove_page(browser, challenge)

    async def prove(self, request: Request) -> Response:
        browser, form = await self._posted(request, PROVE)
        challenge = form.get("challenge", "")
        if sent := await self._step_up.to(browser, FRESH, then=PROVE):
            return sent
        try:
            proved = await self._own.prove(browser.visitor, challenge, form.get("code", ""))
        except (WrongOneTimeCode, Spent):
            _log.info("code of a contact refused")
            return await self._prove_page(browser, challenge, status=403, problem=_WRONG)
        except UnknownContact:
            return redirect(CONTACTS)
        if proved.contact.medium == "sms":
            return _back("proved")
        return _back("alias" if proved.signs_in else "no-alias")

    async def remove(self, request: Request) -> Response:
        browser, form = await self._posted(request, REMOVE)
        if sent := await self._step_up.to(browser, FRESH, then=CONTACTS):
            return sent
        try:
            await self._own.remove(browser.visitor, form.get("contact", ""))
        except UnknownContact:
            return redirect(CONTACTS)
        except LastContact:
            return page(
                "problem.html", status=400, message=_LAST, error="contact-refused", back=CONTACTS
            )
        return _back("removed")

    def _add_page(
        self, browser: Browser, *, status: int = 200, problem: str = "", value: str = ""
    ) -> Response:
        return page(
            "contact_add.html",
            status=status,
            problem=problem,
            error="contact-refused" if problem else "",
            value=value,
            form_token=self._cookies.form_token(browser, ADD, ""),
        )

    async def _prove_page(
        self, browser: Browser, challenge: str, *, status: int = 200, problem: str = ""
    ) -> Response:
        contact = await self._own.asked(browser.visitor, challenge)
        if contact is None:
            return redirect(CONTACTS)
        return page(
            "contact_prove.html",
            status=status,
            problem=problem,
            error="proof-refused" if problem else "",
            contact=contact,
            challenge=challenge,
            form_token=self._cookies.form_token(browser, PROVE, ""),
            send_token=self._cookies.form_token(browser, SEND, ""),
        )

    async def _posted(self, request: Request, action: str) -> tuple[Browser, dict[str, str]]:
        """Read a form of somebody signed in. Raises `SignedOutMeanwhile` for nobody."""
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        if browser.visitor.account is None:
            raise SignedOutMeanwhile
        self._cookies.check_form(request, browser, action, "", form.get(FORM_TOKEN, ""))
        return browser, form


def _query(request: Request) -> dict[str, str]:
    return dict(reversed(parse_pairs(request.scope["query_string"])))


def _slower(error: TooManyAttempts) -> TooManyRequests:
    return TooManyRequests(wait_words(error), headers={"Retry-After": str(error.retry_after)})


def _back(done: str) -> Response:
    return redirect(f"{CONTACTS}?done={done}")
