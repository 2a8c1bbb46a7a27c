"""Sign-in: user name and password, the second factor, a recovery code, a passkey; and sign-out.

Whatever was wrong, a refusal has the same words, but for a code: who is asked for one has given
the right password. ``request`` is the handle of an authorization request that waits for a
sign-in, ``then`` a page of ours to go on to, ``practice`` whose website or notice somebody came
from; they are passed from form to form. The practice's name is shown, and that is all it does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import urlencode, urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import verified_contacts
from fhir_portal.accounts.credentials import SignIn, SignInRefused
from fhir_portal.accounts.devices import RememberedDevices
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.notice import Notices
from fhir_portal.accounts.passkeys import PasskeyRefused, Passkeys
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.proof import Spent
from fhir_portal.accounts.recovery import Want
from fhir_portal.accounts.recovery_codes import RecoveryCodeBook
from fhir_portal.accounts.second_factor import CODES_ANYWHERE, CODES_KNOWN, SecondFactor
from fhir_portal.accounts.sessions import Duty, Opened, Sessions, SignedOutMeanwhile
from fhir_portal.accounts.throttle import Throttle, TooManyAttempts, network_of
from fhir_portal.accounts.totp import Totps, WrongCode
from fhir_portal.notify.security import OutboxNotices
from fhir_portal.smart.authorization import AuthorizationRequest, SignInFirst, Step
from fhir_portal.smart.errors import InvalidRequest, OAuthError, TooManyRequests
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.form import Pairs, once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, address_of, posted
from fhir_portal.web.pages.errors import PageError
from fhir_portal.web.pages.help import help_at
from fhir_portal.web.pages.render import json_text, page, redirect
from fhir_portal.web.pages.words import duration

SIGN_IN: Final = "/signin"
CODE: Final = "/signin/code"
RECOVERY_CODE: Final = "/signin/recovery-code"
PASSKEY: Final = "/signin/passkey"
PASSKEY_OPTIONS: Final = "/signin/passkey/options"
SIGN_OUT: Final = "/signout"
CONTINUE: Final = "/oauth/continue"
RECOVER: Final = "/recover"
FIRST: Final[Mapping[Duty, str]] = {"renewal": "/account/renew", "terms": "/account/terms"}
"""Where people do what they have to do before anything else."""

WRONG: Final = "The user name or the password is wrong."
WRONG_CODE: Final = "That code is wrong, or was used before. Wait for the next one and try again."
WRONG_RECOVERY: Final = "The user name, the password or the code is wrong."
WRONG_PASSKEY: Final = "That passkey did not work here. Try again, or use your password."
_CHALLENGES: Final = "300 per 5 minutes"
"""Passkey challenges for browsers of one network that nobody knows: each is kept so long."""
_CHALLENGES_KNOWN: Final = "30 per 5 minutes"
"""The same for one browser in which somebody signed in before."""
_WAIT: Final = TooManyRequests.status
_PRACTICE: Final = re.compile(r"[a-z0-9-]{1,64}")
_ERRORS: Final[Mapping[str, PageError]] = {
    WRONG: "sign-in-refused",
    WRONG_CODE: "code-refused",
    WRONG_RECOVERY: "recovery-code-refused",
    WRONG_PASSKEY: "passkey-refused",
}
_LOCAL: Final = re.compile(r"/[A-Za-z0-9_/-]{0,200}")

_log = structlog.get_logger(__name__)

Route = tuple[str, str, Callable[[Request], Awaitable[Response]]]


@dataclass(frozen=True, slots=True)
class Requests:
    """What sign-in has to know of the authorization request it is for."""

    asked: Callable[[Browser, Pairs], Awaitable[tuple[str, AuthorizationRequest]]]
    resumed: Callable[[Browser, str], Awaitable[AuthorizationRequest]]
    towards: Callable[[Step, Browser, str, AuthorizationRequest], Response]

    async def app_of(self, browser: Browser, onward: Onward) -> str | None:
        """The redirect URI that a page's form may lead to in the end (`render.page`).

        ``None`` if the page is for no app, or for a request that is over: nobody is kept from their
        account by that.
        """
        if not onward.handle:
            return None
        try:
            return (await self.resumed(browser, onward.handle)).redirect_uri
        except OAuthError:
            return None

    async def on(self, browser: Browser, onward: Onward, home: str) -> Response:
        """Lead on: to the app's request if that is not over, to a page of ours, or home."""
        if await self.app_of(browser, onward) is not None:
            return redirect(Onward(onward.handle).at(CONTINUE))
        return redirect(onward.then or home)


@dataclass(frozen=True, slots=True)
class Onward:
    """Where a sign-in leads: to an authorization request, or to a page of ours.

    ``practice`` is the key of the one that somebody came from, ``""`` for none.
    """

    handle: str = ""
    then: str = ""
    practice: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Onward:
        return cls(
            fields.get("request", ""),
            local(fields.get("then", "")),
            practice_key(fields.get("practice", "")),
        )

    def at(self, path: str, **more: str) -> str:
        """A page of the sign-in that leads on to the same."""
        fields = {
            **more,
            "request": self.handle,
            "then": self.then,
            "practice": self.practice,
        }
        query = urlencode({name: value for name, value in fields.items() if value}, safe="/")
        return f"{path}?{query}" if query else path

    def hidden(self) -> dict[str, Any]:
        """The hidden fields of a form."""
        return {"handle": self.handle, "goes_on": self.then, "from_practice": self.practice}


class SignInPages:
    """The pages of sign-in and sign-out; ``home`` is where one leads that is for nothing else."""

    def __init__(
        self,
        server: AuthorizationServer,
        door: FrontDoor,
        cookies: Cookies,
        requests: Requests,
        home: str,
    ) -> None:
        self._server = server
        self._door = door
        self._cookies = cookies
        self._requests = requests
        self._home = home

    def routes(self) -> Sequence[Route]:
        """Path, method and handler of each page."""
        return (
            (SIGN_IN, "GET", self.show),
            (SIGN_IN, "POST", self.sign_in),
            (CODE, "GET", self.show_code),
            (CODE, "POST", self.give_code),
            (RECOVERY_CODE, "GET", self.show_recovery),
            (RECOVERY_CODE, "POST", self.recover),
            (PASSKEY_OPTIONS, "POST", self.offer_passkey),
            (PASSKEY, "POST", self.use_passkey),
            (SIGN_OUT, "POST", self.sign_out),
        )

    # --- user name and password ----------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        pairs = parse_pairs(request.scope["query_string"])
        onward = Onward.of(_first(pairs))
        if browser.visitor.duty is not None:
            return redirect(onward.at(FIRST[browser.visitor.duty]))
        if not any(name == "request" for name, _ in pairs):
            if onward.then and browser.visitor.account is not None:
                return redirect(onward.then)
            if browser.visitor.account is not None:
                return await self._signed_in(browser, browser.visitor.account)
            return self._cookies.keep(await self._page(request, browser, onward), browser)
        handle, asked = await self._requests.asked(browser, pairs)
        step = await self._server.step(asked, browser.visitor)
        if not isinstance(step, SignInFirst):
            return self._requests.towards(step, browser, handle, asked)
        shown = await self._page(request, browser, onward, asked=asked, step=step)
        return self._cookies.keep(shown, browser)

    async def _signed_in(self, browser: Browser, account: Account) -> Response:
        """The page of somebody who is signed in, and for nothing else."""
        contacts = await verified_contacts(self._door.sessions.store, account.key)
        codes = await self._door.second_factor.codes.left(account.key)
        return page(
            "signed_in.html",
            username=account.username,
            ways_back=len(contacts) + (codes > 0),
            form_token=self._cookies.form_token(browser, SIGN_OUT, ""),
        )

    async def sign_in(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        onward = Onward.of(form)
        self._cookies.check_form(request, browser, SIGN_IN, onward.handle, form.get(FORM_TOKEN, ""))
        asked = await self._requests.resumed(browser, onward.handle) if onward.handle else None
        username = form.get("username", "")
        try:
            opened = await self._door.by_password(
                browser.visitor.session,
                username,
                form.get("password", ""),
                await self._cookies.place(request, username),
                remembered=lambda account: self._cookies.remembered(request, account),
            )
        except (SignInRefused, SignedOutMeanwhile, Spent):
            _log.info("sign-in refused")
            return await self._again(request, browser, onward, asked, username, 403, WRONG)
        except TooManyAttempts as error:
            _log.warning("sign-in throttled")
            again = await self._again(
                request, browser, onward, asked, username, 429, wait_words(error)
            )
            again.headers["Retry-After"] = str(error.retry_after)
            return again
        if opened.visitor.account is None:
            return await self._cookies.signed_in(redirect(onward.at(CODE)), opened)
        return await self._in(onward, opened)

    async def sign_out(self, request: Request) -> Response:
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        self._cookies.check_form(request, browser, SIGN_OUT, "", form.get(FORM_TOKEN, ""))
        await self._door.sessions.sign_out(browser.visitor.session)
        return self._cookies.signed_out(redirect(SIGN_IN))

    async def _again(
        self,
        request: Request,
        browser: Browser,
        onward: Onward,
        asked: AuthorizationRequest | None,
        username: str,
        status: int,
        problem: str,
    ) -> Response:
        step = None
        if asked is not None:
            found = await self._server.step(asked, browser.visitor)
            if not isinstance(found, SignInFirst):
                return self._requests.towards(found, browser, onward.handle, asked)
            step = found
        return await self._page(
            request,
            browser,
            onward,
            asked=asked,
            step=step,
            username=username,
            status=status,
            problem=problem,
        )

    async def _page(
        self,
        request: Request,
        browser: Browser,
        onward: Onward,
        *,
        asked: AuthorizationRequest | None = None,
        step: SignInFirst | None = None,
        username: str | None = None,
        status: int = 200,
        problem: str = "",
    ) -> Response:
        if username is None:
            username = step.login_hint if step else ""
        practice = await self._practice(onward.practice)
        return page(
            "signin.html",
            status=status,
            error=_error(problem),
            practice=practice.name if practice else "",
            help=help_at(practice.key if practice else ""),
            then=asked.redirect_uri if asked else None,
            scripted=True,
            app=step.client.name if step else None,
            username=username,
            problem=problem,
            has_passkeys=self._door.passkeys.site(request.headers.get("host", "")) is not None,
            passkey_options=PASSKEY_OPTIONS,
            passkey_action=PASSKEY,
            must_wait=status == _WAIT,
            invalid=bool(problem) and status != _WAIT,
            other_ways=onward.at(RECOVERY_CODE),
            forgotten={want: onward.at(RECOVER, want=want) for want in get_args(Want)},
            form_token=self._cookies.form_token(browser, SIGN_IN, onward.handle),
            **onward.hidden(),
        )

    async def _practice(self, key: str) -> Practice | None:
        """The practice somebody came from; a name that nobody has here is not repeated."""
        return await self._door.sessions.store.get(Practice, key) if key else None

    # --- a passkey -----------------------------------------------------------------------------

    async def offer_passkey(self, request: Request) -> Response:
        """Answer the page's script with what the browser is to ask its passkeys."""
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        token, handle = form.get(FORM_TOKEN, ""), form.get("request", "")
        self._cookies.check_form(request, browser, SIGN_IN, handle, token)
        site = self._door.passkeys.site(request.headers.get("host", ""))
        if site is None:
            raise InvalidRequest("There are no passkeys at this address.")
        known, network = self._cookies.anybodys(request), network_of(address_of(request))
        rule = _CHALLENGES_KNOWN if known else _CHALLENGES
        try:
            await self._door.password.throttle.limit(rule, f"passkeys:{known or network}")
        except TooManyAttempts as error:
            raise TooManyRequests(
                wait_words(error), headers={"Retry-After": str(error.retry_after)}
            ) from None
        options = await self._door.passkeys.begin_proving(browser.visitor.session, site)
        return json_text(options)

    async def use_passkey(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        onward = Onward.of(form)
        token = form.get(FORM_TOKEN, "")
        self._cookies.check_form(request, browser, SIGN_IN, onward.handle, token)
        asked = await self._requests.resumed(browser, onward.handle) if onward.handle else None
        try:
            opened = await self._door.by_passkey(
                browser.visitor.session,
                form.get("credential", ""),
                await self._cookies.place(request, ""),
            )
        except (PasskeyRefused, SignedOutMeanwhile, Spent):
            _log.info("sign-in by passkey refused")
            return await self._again(request, browser, onward, asked, "", 403, WRONG_PASSKEY)
        return await self._in(onward, opened)

    # --- the second factor ---------------------------------------------------------------------

    async def show_code(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        onward = Onward.of(_first(parse_pairs(request.scope["query_string"])))
        if await self._door.awaited(browser.visitor.session) is None:
            return redirect(onward.at(SIGN_IN))
        return await self._code_page(browser, onward)

    async def give_code(self, request: Request) -> Response:
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        onward = Onward.of(form)
        account = await self._door.awaited(browser.visitor.session)
        if account is None:
            return redirect(onward.at(SIGN_IN))
        self._cookies.check_form(request, browser, CODE, onward.handle, form.get(FORM_TOKEN, ""))
        try:
            opened, token = await self._door.by_code(
                browser.visitor.session,
                form.get("code", ""),
                await self._cookies.place(request, account.username),
                remember="remember" in form,
            )
        except (WrongCode, Spent):
            _log.info("code refused")
            return await self._code_page(browser, onward, status=403, problem=WRONG_CODE)
        except SignedOutMeanwhile:
            return redirect(onward.at(SIGN_IN))
        except TooManyAttempts as error:
            _log.warning("codes throttled")
            again = await self._code_page(browser, onward, status=429, problem=wait_words(error))
            again.headers["Retry-After"] = str(error.retry_after)
            return again
        response = await self._in(onward, opened)
        return self._cookies.remember(response, account, token) if token else response

    async def _code_page(
        self, browser: Browser, onward: Onward, *, status: int = 200, problem: str = ""
    ) -> Response:
        asked = await self._requests.resumed(browser, onward.handle) if onward.handle else None
        return page(
            "code.html",
            status=status,
            error=_error(problem),
            invalid=bool(problem) and status != _WAIT,
            then=asked.redirect_uri if asked else None,
            problem=problem,
            form_token=self._cookies.form_token(browser, CODE, onward.handle),
            **onward.hidden(),
        )

    # --- a recovery code -----------------------------------------------------------------------

    async def show_recovery(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        onward = Onward.of(_first(parse_pairs(request.scope["query_string"])))
        return self._cookies.keep(await self._recovery_page(browser, onward), browser)

    async def recover(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        onward = Onward.of(form)
        token, username = form.get(FORM_TOKEN, ""), form.get("username", "")
        self._cookies.check_form(request, browser, RECOVERY_CODE, onward.handle, token)
        try:
            opened = await self._door.by_recovery_code(
                browser.visitor.session,
                username,
                form.get("password", ""),
                form.get("code", ""),
                await self._cookies.place(request, username),
            )
        except (SignInRefused, SignedOutMeanwhile, Spent):
            _log.info("sign-in by recovery code refused")
            return await self._recovery_page(
                browser, onward, username=username, status=403, problem=WRONG_RECOVERY
            )
        except TooManyAttempts as error:
            _log.warning("sign-in by recovery code throttled")
            again = await self._recovery_page(
                browser, onward, username=username, status=429, problem=wait_words(error)
            )
            again.headers["Retry-After"] = str(error.retry_after)
            return again
        return await self._in(onward, opened)

    async def _recovery_page(
        self,
        browser: Browser,
        onward: Onward,
        *,
        username: str = "",
        status: int = 200,
        problem: str = "",
    ) -> Response:
        asked = await self._requests.resumed(browser, onward.handle) if onward.handle else None
        return page(
            "recovery_code.html",
            status=status,
            error=_error(problem),
            invalid=bool(problem) and status != _WAIT,
            then=asked.redirect_uri if asked else None,
            scripted=True,
            username=username,
            problem=problem,
            back=onward.at(SIGN_IN),
            form_token=self._cookies.form_token(browser, RECOVERY_CODE, onward.handle),
            **onward.hidden(),
        )

    async def _in(self, onward: Onward, opened: Opened) -> Response:
        to = Onward(onward.handle).at(CONTINUE) if onward.handle else onward.then or self._home
        return await self._cookies.signed_in(redirect(to), opened)


def front_door(
    server: AuthorizationServer, sessions: Sessions, sign_in: SignIn, notices: Notices | None = None
) -> FrontDoor:
    """Put the ways in together, for the addresses and keys of a server."""
    store, clock, random = sessions.store, sessions.clock, sessions.random
    notices = notices or OutboxNotices(random)
    name = f"Patient portal ({urlsplit(server.issuer.base).netloc})"
    second_factor = SecondFactor(
        store=store,
        totps=Totps(store, key=server.keys.derive("totp"), issuer=name, clock=clock, random=random),
        codes=RecoveryCodeBook(store, sign_in.passwords, clock=clock, random=random),
        throttle=Throttle(
            store, clock, per_account_anywhere=CODES_ANYWHERE, per_account_known=CODES_KNOWN
        ),
        notices=notices,
        clock=clock,
    )
    passkeys = Passkeys(
        store,
        origins=(server.issuer.base, *server.issuer.aliases),
        name="Patient portal",
        clock=clock,
        random=random,
    )
    devices = RememberedDevices(store, clock=clock, random=random)
    return FrontDoor(sessions, sign_in, second_factor, devices, passkeys, notices)


def local(path: str) -> str:
    """A page of ours, or ``""``: never another host, a scheme or a query."""
    return path if _LOCAL.fullmatch(path) and not path.startswith("//") else ""


def practice_key(text: str) -> str:
    """What may be the key of a practice, or ``""``."""
    return text if _PRACTICE.fullmatch(text) else ""


def _error(problem: str) -> str:
    """The code of what a page says; whoever is not told of a mistake has to wait."""
    return _ERRORS.get(problem, "too-many-tries") if problem else ""


def wait_words(error: TooManyAttempts) -> str:
    """What somebody is told who tried too often."""
    return f"Too many tries. Try again in {duration(error.retry_after + 59)}."


def _first(pairs: Pairs) -> dict[str, Any]:
    """The first value of each parameter."""
    return dict(reversed(pairs))
