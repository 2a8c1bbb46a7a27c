"""Sign-in, record picker and consent: how a person answers an authorization request.

Each page is a form; each answer leads to the next step that `AuthorizationServer.step` names. The
address holds a random handle, never anything about a person.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.credentials import SignIn, SignInRefused
from fhir_portal.accounts.sessions import Sessions, SignedOutMeanwhile
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.portal import fault
from fhir_portal.smart.authorization import (
    AskConsent,
    AuthorizationRequest,
    ChooseRecord,
    Finished,
    NoRecord,
    SignInFirst,
    Step,
    error_location,
)
from fhir_portal.smart.errors import InvalidRequest, OAuthError
from fhir_portal.smart.redirect import origin_of
from fhir_portal.smart.server import AuthorizationServer, NothingTicked, RecordChanged
from fhir_portal.web.form import Pairs, once_each, parse_form, parse_pairs, read_body
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies
from fhir_portal.web.pages.render import STYLESHEET_PATH, page, redirect, stylesheet
from fhir_portal.web.pages.words import IDENTITY_WORDS, day, duration, offer_words

AUTHORIZE: Final = "/oauth/authorize"
CONTINUE: Final = "/oauth/continue"
SIGN_IN: Final = "/signin"
SIGN_OUT: Final = "/signout"
RECORD: Final = "/oauth/record"
CONSENT: Final = "/oauth/consent"

_log = structlog.get_logger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def pages_router(
    *, server: AuthorizationServer, sessions: Sessions, sign_in: SignIn, home: str = SIGN_IN
) -> APIRouter:
    """The pages as routes for FastAPI; ``home`` is where a sign-in without an app leads."""
    pages = _Pages(server, sessions, sign_in, home)
    router = APIRouter(include_in_schema=False)
    for path, method, handler in (
        (AUTHORIZE, "GET", pages.authorize),
        (AUTHORIZE, "POST", pages.authorize_by_form),
        (CONTINUE, "GET", pages.proceed),
        (SIGN_IN, "GET", pages.show_sign_in),
        (SIGN_IN, "POST", pages.sign_in),
        (SIGN_OUT, "POST", pages.sign_out),
        (RECORD, "GET", pages.show_records),
        (RECORD, "POST", pages.choose_record),
        (CONSENT, "GET", pages.show_consent),
        (CONSENT, "POST", pages.decide),
    ):
        router.add_route(path, pages.refusing(handler), methods=[method])

    async def style(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
        return stylesheet()

    router.add_route(STYLESHEET_PATH, style, methods=["GET"])
    return router


class _Pages:
    def __init__(
        self, server: AuthorizationServer, sessions: Sessions, sign_in: SignIn, home: str
    ) -> None:
        self._server = server
        self._sessions = sessions
        self._sign_in = sign_in
        self._home = home
        self._cookies = Cookies(server.issuer, server.keys, sessions)

    def refusing(self, handler: Handler) -> Handler:
        """Answer every refusal and fault with a page or, if that is safe, to the app."""

        @functools.wraps(handler)
        async def answer(request: Request) -> Response:
            try:
                try:
                    return await handler(request)
                except OAuthError as error:
                    return await self._refusal(request, error)
            except Unavailable:
                return _error_page(503, "The portal is too busy. Try again in a minute.")
            except Exception as error:  # noqa: BLE001 - whatever it is, a person gets a page
                _log.error("page failed", path=request.url.path, **fault(error))
                return _error_page(500, "Something went wrong on our side.")

        return answer

    async def _refusal(self, request: Request, error: OAuthError) -> Response:
        """Answer an `OAuthError`: the app is told if that is safe, the person otherwise.

        Anybody can register an app, so what only an app's own mistake leads to would be a
        redirect from our address to anywhere. Nobody signed in: a page, with a link that says
        where it goes.
        """
        if error.redirect_uri is None:
            from_app = request.url.path == AUTHORIZE
            response = _error_page(error.status, error.description, from_app=from_app)
            if "Retry-After" in error.headers:
                response.headers["Retry-After"] = error.headers["Retry-After"]
            return response
        location = error_location(error, self._server.issuer)
        if error.unchecked_app is None:
            return redirect(location)
        browser = await self._cookies.browser(request)
        if browser.visitor.account is not None:
            return redirect(location)
        return page(
            "error.html",
            status=error.status,
            message=error.description,
            from_app=True,
            app=error.unchecked_app,
            back_to=location,
            destination=_destination(error.redirect_uri),
        )

    # --- the request ---------------------------------------------------------------------------

    async def authorize(self, request: Request) -> Response:
        return await self._begin(request, parse_pairs(request.scope["query_string"]))

    async def authorize_by_form(self, request: Request) -> Response:
        pairs = [*parse_pairs(request.scope["query_string"]), *await _form(request)]
        if self._cookies.has_session(request):
            return await self._begin(request, pairs)
        # Posted from the app's own site, the browser keeps our cookie to itself. It sends it with
        # the GET that follows, which binds the request to the session it already has.
        handle = await self._server.begin(pairs, address=_address(request))
        return redirect(_to(CONTINUE, handle))

    async def proceed(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        pairs = parse_pairs(request.scope["query_string"])
        if not browser.is_stored and await self._server.is_unbound(_handle(pairs)):
            browser = await self._cookies.store(browser)
        handle, asked = await self._asked(browser, pairs)
        step = await self._server.step(asked, browser.visitor)
        return self._cookies.keep(self._towards(step, browser, handle, asked), browser)

    async def _begin(self, request: Request, pairs: Pairs) -> Response:
        browser = await self._cookies.browser(request)
        handle = await self._server.begin(
            pairs, browser=browser.visitor.browser, address=_address(request)
        )
        browser = await self._cookies.store(browser)
        return self._cookies.keep(redirect(_to(CONTINUE, handle)), browser)

    async def _asked(
        self, browser: Browser, pairs: Sequence[tuple[str, str]]
    ) -> tuple[str, AuthorizationRequest]:
        handle = _handle(pairs)
        return handle, await self._resumed(browser, handle)

    async def _resumed(self, browser: Browser, handle: str) -> AuthorizationRequest:
        if not browser.is_stored:  # what is bound to it would be lost with it
            raise InvalidRequest("This request is over, or was opened in another browser.")
        return await self._server.resume(handle, browser.visitor.browser)

    def _towards(
        self, step: Step, browser: Browser, handle: str, asked: AuthorizationRequest
    ) -> Response:
        match step:
            case SignInFirst():
                return redirect(_to(SIGN_IN, handle))
            case ChooseRecord():
                return redirect(_to(RECORD, handle))
            case AskConsent():
                return redirect(_to(CONSENT, handle))
            case NoRecord(client):
                return page(
                    "no_record.html",
                    status=403,
                    then=asked.redirect_uri,
                    app=client.name,
                    handle=handle,
                    form_token=self._cookies.form_token(browser, CONSENT, handle),
                )
            case Finished(location):
                return redirect(location)

    # --- sign-in -------------------------------------------------------------------------------

    async def show_sign_in(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        pairs = parse_pairs(request.scope["query_string"])
        if not any(name == "request" for name, _ in pairs):
            return self._cookies.keep(self._sign_in_page(browser), browser)
        handle, asked = await self._asked(browser, pairs)
        step = await self._server.step(asked, browser.visitor)
        if not isinstance(step, SignInFirst):
            return self._towards(step, browser, handle, asked)
        return self._cookies.keep(
            self._sign_in_page(browser, handle=handle, asked=asked, step=step), browser
        )

    async def sign_in(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await _form(request))
        handle = form.get("request", "")
        self._cookies.check_form(request, browser, SIGN_IN, handle, form.get(FORM_TOKEN, ""))
        asked = await self._resumed(browser, handle) if handle else None
        username, password = form.get("username", ""), form.get("password", "")
        try:
            account = await self._sign_in(
                username,
                password,
                address=_address(request),
                device=self._cookies.device(request, username),
            )
            opened = await self._sessions.sign_in(browser.visitor.session, account)
        except (SignInRefused, SignedOutMeanwhile):
            _log.info("sign-in refused")
            return await self._sign_in_again(
                browser, handle, asked, username, 403, "The user name or the password is wrong."
            )
        except TooManyAttempts as error:
            _log.warning("sign-in throttled")
            again = await self._sign_in_again(
                browser,
                handle,
                asked,
                username,
                429,
                f"Too many tries. Try again in {duration(error.retry_after + 59)}.",
            )
            again.headers["Retry-After"] = str(error.retry_after)
            return again
        response = redirect(_to(CONTINUE, handle) if handle else self._home)
        return self._cookies.signed_in(response, opened)

    async def sign_out(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        form = once_each(await _form(request))
        self._cookies.check_form(request, browser, SIGN_OUT, "", form.get(FORM_TOKEN, ""))
        await self._sessions.sign_out(browser.visitor.session)
        return self._cookies.signed_out(redirect(SIGN_IN))

    async def _sign_in_again(
        self,
        browser: Browser,
        handle: str,
        asked: AuthorizationRequest | None,
        username: str,
        status: int,
        problem: str,
    ) -> Response:
        step = None
        if asked is not None:
            found = await self._server.step(asked, browser.visitor)
            if not isinstance(found, SignInFirst):
                return self._towards(found, browser, handle, asked)
            step = found
        return self._sign_in_page(
            browser,
            handle=handle,
            asked=asked,
            step=step,
            username=username,
            status=status,
            problem=problem,
        )

    def _sign_in_page(
        self,
        browser: Browser,
        *,
        handle: str = "",
        asked: AuthorizationRequest | None = None,
        step: SignInFirst | None = None,
        username: str | None = None,
        status: int = 200,
        problem: str = "",
    ) -> Response:
        account = browser.visitor.account
        if account is not None and step is None and not problem:
            return page(
                "signed_in.html",
                username=account.username,
                form_token=self._cookies.form_token(browser, SIGN_OUT, ""),
            )
        if username is None:
            username = step.login_hint if step else ""
        return page(
            "signin.html",
            status=status,
            then=asked.redirect_uri if asked else None,
            app=step.client.name if step else None,
            username=username,
            problem=problem,
            handle=handle,
            form_token=self._cookies.form_token(browser, SIGN_IN, handle),
        )

    # --- picker --------------------------------------------------------------------------------

    async def show_records(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        handle, asked = await self._asked(browser, parse_pairs(request.scope["query_string"]))
        return await self._picker(browser, handle, asked)

    async def choose_record(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        form = once_each(await _form(request))
        handle = form.get("request", "")
        self._cookies.check_form(request, browser, RECORD, handle, form.get(FORM_TOKEN, ""))
        asked = await self._resumed(browser, handle)
        if not form.get("record"):
            return await self._picker(browser, handle, asked, problem="Choose a record.")
        await self._server.choose_record(asked, browser.visitor, form["record"])
        return redirect(_to(CONTINUE, handle))

    async def _picker(
        self, browser: Browser, handle: str, asked: AuthorizationRequest, *, problem: str = ""
    ) -> Response:
        unchosen = msgspec.structs.replace(asked, practice=None, patient=None)
        step = await self._server.step(unchosen, browser.visitor)
        if not isinstance(step, ChooseRecord):
            return self._towards(step, browser, handle, asked)
        chosen = (asked.practice, asked.patient)
        return page(
            "record.html",
            status=400 if problem else 200,
            then=asked.redirect_uri,
            app=step.client.name,
            records=[
                (value, record, (record.practice, record.patient) == chosen)
                for value, record in step.records.items()
            ],
            problem=problem,
            handle=handle,
            form_token=self._cookies.form_token(browser, RECORD, handle),
        )

    # --- consent -------------------------------------------------------------------------------

    async def show_consent(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        handle, asked = await self._asked(browser, parse_pairs(request.scope["query_string"]))
        return await self._consent(browser, handle, asked)

    async def decide(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        pairs = await _form(request)
        ticked = [value for name, value in pairs if name == "scope"]
        form = once_each([pair for pair in pairs if pair[0] != "scope"])
        handle = form.get("request", "")
        token = form.get(FORM_TOKEN, "")
        about = self._cookies.check_form(request, browser, CONSENT, handle, token)
        asked = await self._resumed(browser, handle)
        decision = form.get("decision")
        if decision not in ("approve", "deny"):
            raise InvalidRequest("The decision must be approve or deny.")
        if browser.visitor.account is None:
            return redirect(_to(CONTINUE, handle))
        try:
            return redirect(
                await self._server.decide(
                    asked,
                    browser.visitor,
                    approve=decision == "approve",
                    about=about,
                    ticked=ticked,
                )
            )
        except RecordChanged as error:
            asked = await self._resumed(browser, handle)
            return await self._consent(browser, handle, asked, problem=error.description)
        except NothingTicked:
            return await self._consent(
                browser,
                handle,
                asked,
                problem="Tick what the app may use, or choose “Do not allow”.",
                ticked=ticked,
            )

    async def _consent(
        self,
        browser: Browser,
        handle: str,
        asked: AuthorizationRequest,
        *,
        problem: str = "",
        ticked: Sequence[str] | None = None,
    ) -> Response:
        step = await self._server.step(asked, browser.visitor)
        if not isinstance(step, AskConsent):
            return self._towards(step, browser, handle, asked)
        return page(
            "consent.html",
            status=400 if problem else 200,
            then=asked.redirect_uri,
            problem=problem,
            handle=handle,
            form_token=self._cookies.form_token(browser, CONSENT, handle, step.about),
            ticked=ticked,
            **self._consent_words(step, asked),
        )

    def _consent_words(self, step: AskConsent, asked: AuthorizationRequest) -> dict[str, Any]:
        lifetimes, record = self._server.lifetimes, step.record
        return {
            "app": step.client.name,
            "checked": not step.client.self_registered,
            "destination": _destination(asked.redirect_uri),
            "record": record,
            "own": record.is_own,
            "access_ends": day(record.until) if record.until is not None else None,
            "other_records": step.other_records,
            "sections": offer_words(step.offer),
            "has_parts": any(offered.children for offered in step.offer.scopes),
            "fixed": [(word, IDENTITY_WORDS[word]) for word in step.offer.fixed],
            "offline": step.offer.offline,
            "offline_words": IDENTITY_WORDS["offline_access"],
            "unused_for": duration(lifetimes.refresh_token),
            "in_all": duration(lifetimes.refresh_in_all),
            "at_once": duration(lifetimes.access_token),
        }


def _to(path: str, handle: str) -> str:
    """A page for this request; handles are base64url, so they need no escaping."""
    return f"{path}?request={handle}"


def _handle(pairs: Sequence[tuple[str, str]]) -> str:
    return next((value for name, value in pairs if name == "request"), "")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _destination(redirect_uri: str) -> str:
    """Where an answer goes, in words for people."""
    return origin_of(redirect_uri) or "an app on your device"


def _error_page(status: int, message: str, *, from_app: bool = False) -> Response:
    return page("error.html", status=status, message=message, from_app=from_app, app=None)


async def _form(request: Request) -> Pairs:
    return parse_form(await read_body(request.receive), request.headers.get("content-type", ""))
