"""Step-up: before an action that needs it, a person proves again who they are, and comes back.

Any page uses it in one line::

    if sent := await step_up.to(browser, FRESH, then="/account/apps"):
        return sent
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.credentials import SignInRefused
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.passkeys import PasskeyRefused
from fhir_portal.accounts.proof import Spent, Write
from fhir_portal.accounts.sessions import Opened, Visitor
from fhir_portal.accounts.step_up import FRESH, Need, lacking
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.accounts.totp import WrongCode
from fhir_portal.smart.errors import InvalidRequest, TooManyRequests
from fhir_portal.web.form import once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import json_text, page, redirect
from fhir_portal.web.pages.signin import SIGN_IN, WRONG_PASSKEY, Route, local, wait_words

CONFIRM: Final = "/account/confirm"
PASSKEY_OPTIONS: Final = "/account/confirm/passkey/options"
SECURITY: Final = "/account/security"

WRONG: Final = "The password is wrong."
WRONG_EITHER: Final = "The password or the code is wrong, or the code was used before."

_log = structlog.get_logger(__name__)


class StepUp:
    """Asks a person to confirm who they are, and serves the page where they do."""

    def __init__(self, door: FrontDoor, cookies: Cookies) -> None:
        self._door = door
        self._cookies = cookies

    async def to(self, browser: Browser, need: Need = FRESH, *, then: str) -> Response | None:
        """Return ``None`` if an action may be done now, else where to send the person first.

        ``then`` is the page of ours to come back to; what was posted has to be posted again.
        """
        session = browser.visitor.session
        account = browser.visitor.account
        lack = lacking(
            session,
            need,
            has_second_factor=(
                account is not None and await self._door.second_factor.is_asked_of(account.key)
            ),
            now=self._door.sessions.clock(),
        )
        if lack is None:
            return None
        page_ = SIGN_IN if lack == "signed-in" else CONFIRM
        return redirect(f"{page_}?{urlencode({'then': local(then)}, safe='/')}")

    def routes(self) -> Sequence[Route]:
        """Path, method and handler of each page."""
        return (
            (CONFIRM, "GET", _page(self.show)),
            (CONFIRM, "POST", _page(self.confirm)),
            (PASSKEY_OPTIONS, "POST", _page(self.offer_passkey)),
        )

    async def show(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        then = dict(reversed(parse_pairs(request.scope["query_string"]))).get("then", "")
        if browser.visitor.account is None:
            return redirect(f"{SIGN_IN}?{urlencode({'then': local(then)}, safe='/')}")
        return await self._confirm_page(request, browser, then)

    async def confirm(self, request: Request) -> Response:
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        self._cookies.check_form(request, browser, CONFIRM, "", form.get(FORM_TOKEN, ""))
        then, account = form.get("then", ""), browser.visitor.account
        if account is None:
            return redirect(SIGN_IN)
        asks_code = await self._door.second_factor.is_asked_of(account.key)
        try:
            opened, write = await self._proved(request, browser.visitor, form)
            await self._door.sessions.store.transact(write)
        except (SignInRefused, WrongCode):
            _log.info("confirmation refused")
            problem = WRONG_EITHER if asks_code else WRONG
            return await self._confirm_page(request, browser, then, status=403, problem=problem)
        except (PasskeyRefused, Spent):
            _log.info("confirmation refused")
            problem = WRONG_PASSKEY if form.get("credential") else WRONG_EITHER
            return await self._confirm_page(request, browser, then, status=403, problem=problem)
        except TooManyAttempts as error:
            _log.warning("confirmation throttled")
            again = await self._confirm_page(
                request, browser, then, status=429, problem=wait_words(error)
            )
            again.headers["Retry-After"] = str(error.retry_after)
            return again
        return await self._cookies.signed_in(redirect(local(then) or SECURITY), opened)

    async def offer_passkey(self, request: Request) -> Response:
        """Answer the page's script with what the browser is to ask its passkeys."""
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        self._cookies.check_form(request, browser, CONFIRM, "", form.get(FORM_TOKEN, ""))
        site = self._door.passkeys.site(request.headers.get("host", ""))
        visitor = browser.visitor
        if site is None or visitor.account is None:
            raise InvalidRequest("There are no passkeys to ask here.")
        passkeys = self._door.passkeys
        return json_text(await passkeys.begin_proving(visitor.session, site, visitor.account))

    async def _proved(
        self, request: Request, visitor: Visitor, form: dict[str, str]
    ) -> tuple[Opened, Write]:
        if form.get("credential"):
            return await self._door.confirm_by_passkey(visitor, form["credential"])
        username = visitor.account.username if visitor.account else ""
        return await self._door.confirm(
            visitor,
            form.get("password", ""),
            form.get("code", ""),
            await self._cookies.place(request, username),
        )

    async def _has_passkeys(self, request: Request, account: Account) -> bool:
        site = self._door.passkeys.site(request.headers.get("host", ""))
        there = await self._door.passkeys.of(account.key)
        return site is not None and any(one.domain == site.domain for one in there)

    async def _confirm_page(
        self,
        request: Request,
        browser: Browser,
        then: str,
        *,
        status: int = 200,
        problem: str = "",
    ) -> Response:
        account = browser.visitor.account
        if account is None:
            return redirect(SIGN_IN)
        return page(
            "confirm.html",
            status=status,
            scripted=True,
            username=account.username,
            invalid=bool(problem) and status != TooManyRequests.status,
            has_password=account.password_hash is not None,
            asks_code=await self._door.second_factor.is_asked_of(account.key),
            has_passkeys=await self._has_passkeys(request, account),
            passkey_options=PASSKEY_OPTIONS,
            passkey_action=CONFIRM,
            problem=problem,
            goes_on=local(then),
            form_token=self._cookies.form_token(browser, CONFIRM, ""),
        )


def _page(handler: Handler) -> Handler:
    return refusing(handler, back=SECURITY, signed_out=SIGN_IN)
