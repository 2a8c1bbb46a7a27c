"""Sign-in, pickers and consent: how a person answers an authorization request.

Each page is a form; each answer leads to the next step that `AuthorizationServer.step` names. The
address holds a random handle, never anything about a person.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.assisted_recovery import AssistedRecoveries
from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.one_time_code import OneTimeCodes
from fhir_portal.accounts.own_contacts import OwnContacts
from fhir_portal.accounts.recovery import Recoveries
from fhir_portal.accounts.security_questions import SecurityQuestions
from fhir_portal.accounts.sessions import Sessions
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.notify.connection import OutboxConnectionNotices
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.notify.one_time_codes import OutboxCodes
from fhir_portal.notify.recovery import OutboxRecoveries
from fhir_portal.portal import fault
from fhir_portal.smart.approval import NothingTicked, RecordChanged
from fhir_portal.smart.authorization import (
    AskConsent,
    AuthorizationRequest,
    ChoosePractice,
    ChooseRecord,
    ChooseVisit,
    Finished,
    NoRecord,
    NotAllowed,
    SignInFirst,
    Step,
    error_location,
)
from fhir_portal.smart.connections import Connections
from fhir_portal.smart.errors import InvalidRequest, OAuthError
from fhir_portal.smart.narrowing import (
    DATA_FROM,
    DATA_TO,
    NOT_NARROWED,
    ONLY_READING,
    PERIOD_PARAMETERS,
    READING,
    TIMELESS,
    UNTIL,
    YES,
    Narrowing,
    NarrowingRefused,
)
from fhir_portal.smart.redirect import origin_of
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.form import Pairs, once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, address_of, posted
from fhir_portal.web.pages.contacts import ContactPages
from fhir_portal.web.pages.errors import PageError, error_of
from fhir_portal.web.pages.first import FirstPages
from fhir_portal.web.pages.questions import QuestionPages
from fhir_portal.web.pages.recover import RecoveryPages, birth_dates
from fhir_portal.web.pages.render import ASSETS, page, redirect
from fhir_portal.web.pages.security import security_routes
from fhir_portal.web.pages.signin import CONTINUE, SIGN_IN, Requests, SignInPages, front_door
from fhir_portal.web.pages.step_up import StepUp
from fhir_portal.web.pages.words import (
    IDENTITY_WORDS,
    day,
    duration,
    offer_words,
    type_words,
    visit_words,
)

AUTHORIZE: Final = "/oauth/authorize"
RECORD: Final = "/oauth/record"
PRACTICE: Final = "/oauth/practice"
VISIT: Final = "/oauth/visit"
CONSENT: Final = "/oauth/consent"
LIMITS: Final = (UNTIL, ONLY_READING, DATA_FROM, DATA_TO)
"""Fields of the consent form by which less is allowed than what is ticked."""

_SILENT: Final = frozenset({"login_required", "interaction_required", "consent_required"})
"""What an app is told that asked with ``prompt=none`` (OpenID Connect Core §3.1.2.6)."""

_log = structlog.get_logger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def pages_router(
    *,
    server: AuthorizationServer,
    sessions: Sessions,
    sign_in: SignIn,
    codes: OneTimeCodes,
    home: str = SIGN_IN,
) -> APIRouter:
    """The pages as routes for FastAPI; ``home`` is where a sign-in without an app leads.

    ``codes`` are the same that fill messages when they are sent.
    """
    cookies = Cookies(server.issuer, server.keys, sessions)
    door = front_door(server, sessions, sign_in)
    pages = _Pages(server, cookies)
    requests = Requests(pages.asked, pages.resumed, pages.towards)
    of_sign_in = SignInPages(server, door, cookies, requests, home)
    router = APIRouter(include_in_schema=False)
    for path, method, handler in (
        (AUTHORIZE, "GET", pages.authorize),
        (AUTHORIZE, "POST", pages.authorize_by_form),
        (CONTINUE, "GET", pages.proceed),
        *of_sign_in.routes(),
        (RECORD, "GET", pages.show_records),
        (RECORD, "POST", pages.choose_record),
        (PRACTICE, "GET", pages.show_practices),
        (PRACTICE, "POST", pages.choose_practice),
        (VISIT, "GET", pages.show_visits),
        (VISIT, "POST", pages.choose_visit),
        (CONSENT, "GET", pages.show_consent),
        (CONSENT, "POST", pages.decide),
    ):
        router.add_route(path, pages.refusing(handler), methods=[method])
    questions = SecurityQuestions(
        sessions.store, sign_in.passwords, server.keys.derive("security-answers")
    )
    desk = AssistedRecoveries(
        server.keys.derive("desk-code"), door.notices, sessions.clock, sessions.random
    )
    recoveries = Recoveries(
        door,
        codes,
        OutboxRecoveries(),
        questions,
        desk,
        birth_dates(server.directory),
        QueuedMatters(),
    )
    store: Any = sessions.store  # records and resources: `fhir_portal.resources.store.PortalStore`
    connections = Connections(
        store,
        directory=server.directory,
        keys=server.keys,
        notices=OutboxConnectionNotices(),
        lifetimes=server.lifetimes,
        clock=sessions.clock,
        random=sessions.random,
    )
    contacts = OwnContacts(sessions, codes, OutboxCodes(), door.notices, sign_in.throttle)
    for path, method, handler in (
        *security_routes(server, door, cookies),
        *RecoveryPages(recoveries, cookies, requests, home, connections).routes(),
        *QuestionPages(questions, door, cookies, StepUp(door, cookies)).routes(),
        *FirstPages(door, cookies, requests, home).routes(),
        *ContactPages(contacts, cookies, StepUp(door, cookies)).routes(),
    ):
        router.add_route(path, handler, methods=[method])
    for path, asset in ASSETS.items():
        router.add_route(path, asset, methods=["GET"])
    return router


class _Pages:
    def __init__(self, server: AuthorizationServer, cookies: Cookies) -> None:
        self._server = server
        self._cookies = cookies

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
                return _error_page(
                    503, "The portal is too busy. Try again in a minute.", error="try-later"
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, a person gets a page
                _log.error("page failed", path=request.url.path, **fault(error))
                return _error_page(500, "Something went wrong on our side.", error="fault")

        return answer

    async def _refusal(self, request: Request, error: OAuthError) -> Response:
        """Answer an `OAuthError`: the app is told if that is safe, the person otherwise.

        Anybody can register an app, so what only an app's own mistake leads to would be a
        redirect from our address to anywhere. Unless the person answered, or the app asked that
        nobody be asked: a page, with a link that says where it goes.
        """
        if error.redirect_uri is None:
            from_app = request.url.path == AUTHORIZE
            response = _error_page(
                error.status, error.description, error=error_of(error), from_app=from_app
            )
            if "Retry-After" in error.headers:
                response.headers["Retry-After"] = error.headers["Retry-After"]
            return response
        location = error_location(error, self._server.issuer)
        if error.unchecked_app is None:
            return redirect(location)
        browser = await self._cookies.browser(request)
        answered = (request.method, request.url.path) == ("POST", CONSENT)
        if browser.visitor.account is not None and (answered or error.error in _SILENT):
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
        pairs = [*parse_pairs(request.scope["query_string"]), *await posted(request)]
        if self._cookies.has_session(request):
            return await self._begin(request, pairs)
        # Posted from the app's own site, the browser keeps our cookie to itself. It sends it with
        # the GET that follows, which binds the request to the session it already has.
        handle = await self._server.begin(pairs, address=address_of(request))
        return redirect(_to(CONTINUE, handle))

    async def proceed(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        pairs = parse_pairs(request.scope["query_string"])
        if not browser.is_stored and await self._server.is_unbound(_handle(pairs)):
            browser = await self._cookies.store(browser)
        handle, asked = await self.asked(browser, pairs)
        step = await self._server.step(asked, browser.visitor)
        return self._cookies.keep(self.towards(step, browser, handle, asked), browser)

    async def _begin(self, request: Request, pairs: Pairs) -> Response:
        browser = await self._cookies.browser(request)
        handle = await self._server.begin(
            pairs, browser=browser.visitor.browser, address=address_of(request)
        )
        browser = await self._cookies.store(browser)
        return self._cookies.keep(redirect(_to(CONTINUE, handle)), browser)

    async def asked(
        self, browser: Browser, pairs: Sequence[tuple[str, str]]
    ) -> tuple[str, AuthorizationRequest]:
        handle = _handle(pairs)
        return handle, await self.resumed(browser, handle)

    async def resumed(self, browser: Browser, handle: str) -> AuthorizationRequest:
        if not browser.is_stored:  # what is bound to it would be lost with it
            raise InvalidRequest("This request is over, or was opened in another browser.")
        return await self._server.resume(handle, browser.visitor.browser)

    def towards(
        self, step: Step, browser: Browser, handle: str, asked: AuthorizationRequest
    ) -> Response:
        match step:
            case SignInFirst():
                return redirect(_to(SIGN_IN, handle))
            case ChooseRecord():
                return redirect(_to(RECORD, handle))
            case ChoosePractice():
                return redirect(_to(PRACTICE, handle))
            case ChooseVisit():
                return redirect(_to(VISIT, handle))
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
            case NotAllowed(client, why):
                return page(
                    "not_allowed.html",
                    status=403,
                    then=asked.redirect_uri,
                    app=client.name,
                    why=why,
                    handle=handle,
                    form_token=self._cookies.form_token(browser, CONSENT, handle),
                )
            case Finished(location):
                return redirect(location)

    # --- pickers --------------------------------------------------------------------------------

    async def show_records(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        handle, asked = await self.asked(browser, parse_pairs(request.scope["query_string"]))
        return await self._picker(browser, handle, asked)

    async def choose_record(self, request: Request) -> Response:
        pairs = await posted(request)  # first: it may take its time
        browser = await self._cookies.browser(request)
        values = [value for name, value in pairs if name == "record" and value]
        form = once_each([pair for pair in pairs if pair[0] != "record"])
        if len(set(values)) != len(values):
            raise InvalidRequest("a record came more than once")
        handle = form.get("request", "")
        self._cookies.check_form(request, browser, RECORD, handle, form.get(FORM_TOKEN, ""))
        asked = await self.resumed(browser, handle)
        if not values:
            return await self._picker(browser, handle, asked, problem="Choose a record.")
        await self._server.choose_records(asked, browser.visitor, values)
        return redirect(_to(CONTINUE, handle))

    async def _picker(
        self, browser: Browser, handle: str, asked: AuthorizationRequest, *, problem: str = ""
    ) -> Response:
        unchosen = msgspec.structs.replace(asked, practice=None, patient=None, others=())
        step = await self._server.step(unchosen, browser.visitor)
        if not isinstance(step, ChooseRecord):
            return self.towards(step, browser, handle, asked)
        chosen = ((asked.practice, asked.patient), *asked.others)
        return page(
            "record.html",
            status=400 if problem else 200,
            then=asked.redirect_uri,
            app=step.client.name,
            records=[
                (value, record, (record.practice, record.patient) in chosen)
                for value, record in step.records.items()
            ],
            several=step.several,
            problem=problem,
            handle=handle,
            action=RECORD,
            form_token=self._cookies.form_token(browser, RECORD, handle),
        )

    async def show_practices(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        handle, asked = await self.asked(browser, parse_pairs(request.scope["query_string"]))
        return await self._practices(browser, handle, asked)

    async def choose_practice(self, request: Request) -> Response:
        browser, handle, asked, practice = await self._picked(request, PRACTICE, "practice")
        if not practice:
            return await self._practices(browser, handle, asked, problem="Choose a practice.")
        await self._server.choose_practice(asked, browser.visitor, practice)
        return redirect(_to(CONTINUE, handle))

    async def _practices(
        self, browser: Browser, handle: str, asked: AuthorizationRequest, *, problem: str = ""
    ) -> Response:
        unchosen = msgspec.structs.replace(asked, practice=None)
        step = await self._server.step(unchosen, browser.visitor)
        if not isinstance(step, ChoosePractice):
            return self.towards(step, browser, handle, asked)
        return page(
            "practice.html",
            status=400 if problem else 200,
            then=asked.redirect_uri,
            app=step.client.name,
            practices=step.practices,
            chosen=asked.practice,
            problem=problem,
            handle=handle,
            action=PRACTICE,
            form_token=self._cookies.form_token(browser, PRACTICE, handle),
        )

    async def show_visits(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        handle, asked = await self.asked(browser, parse_pairs(request.scope["query_string"]))
        return await self._visit_picker(browser, handle, asked)

    async def choose_visit(self, request: Request) -> Response:
        browser, handle, asked, encounter = await self._picked(request, VISIT, "encounter")
        if not encounter:
            return await self._visit_picker(browser, handle, asked, problem="Choose a visit.")
        await self._server.choose_visit(asked, browser.visitor, encounter)
        return redirect(_to(CONTINUE, handle))

    async def _visit_picker(
        self, browser: Browser, handle: str, asked: AuthorizationRequest, *, problem: str = ""
    ) -> Response:
        unchosen = msgspec.structs.replace(asked, encounter=None)
        step = await self._server.step(unchosen, browser.visitor)
        if not isinstance(step, ChooseVisit):
            return self.towards(step, browser, handle, asked)
        return page(
            "visit.html",
            status=400 if problem else 200,
            then=asked.redirect_uri,
            app=step.client.name,
            record=step.record,
            visits=[(one, visit_words(one)) for one in step.visits],
            chosen=asked.encounter,
            problem=problem,
            handle=handle,
            action=VISIT,
            form_token=self._cookies.form_token(browser, VISIT, handle),
        )

    async def _picked(
        self, request: Request, action: str, field: str
    ) -> tuple[Browser, str, AuthorizationRequest, str]:
        """Read the form of a picker with one thing to choose."""
        form = once_each(await posted(request))  # first: it may take its time
        browser = await self._cookies.browser(request)
        handle = form.get("request", "")
        self._cookies.check_form(request, browser, action, handle, form.get(FORM_TOKEN, ""))
        return browser, handle, await self.resumed(browser, handle), form.get(field, "")

    # --- consent -------------------------------------------------------------------------------

    async def show_consent(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        handle, asked = await self.asked(browser, parse_pairs(request.scope["query_string"]))
        return await self._consent(browser, handle, asked)

    async def decide(self, request: Request) -> Response:
        pairs = await posted(request)  # first: it may take its time
        browser = await self._cookies.browser(request)
        ticked = frozenset(value for name, value in pairs if name == "scope")
        form = once_each([pair for pair in pairs if pair[0] != "scope"])
        handle = form.get("request", "")
        token = form.get(FORM_TOKEN, "")
        about = self._cookies.check_form(request, browser, CONSENT, handle, token)
        asked = await self.resumed(browser, handle)
        decision = form.get("decision")
        if decision not in ("approve", "deny"):
            raise InvalidRequest("The decision must be approve or deny.")
        if browser.visitor.account is None:
            return redirect(_to(CONTINUE, handle))
        approve = decision == "approve"
        problem, problem_at = "", ""
        try:
            return redirect(
                await self._server.decide(
                    asked,
                    browser.visitor,
                    approve=approve,
                    about=about,
                    ticked=ticked,
                    narrowing=Narrowing.parse(form) if approve else NOT_NARROWED,
                )
            )
        except RecordChanged as error:
            asked = await self.resumed(browser, handle)
            return await self._consent(browser, handle, asked, problem=error.description)
        except NothingTicked:
            problem = "Tick what the app may use, or choose “Do not allow”."
        except NarrowingRefused as refused:
            problem, problem_at = refused.problem, refused.field
        answered = Answered(
            ticked, {name: form[name] for name in LIMITS if form.get(name)}, problem_at
        )
        return await self._consent(browser, handle, asked, problem=problem, answered=answered)

    async def _consent(
        self,
        browser: Browser,
        handle: str,
        asked: AuthorizationRequest,
        *,
        problem: str = "",
        answered: Answered | None = None,
    ) -> Response:
        step = await self._server.step(asked, browser.visitor)
        if not isinstance(step, AskConsent):
            return self.towards(step, browser, handle, asked)
        return page(
            "consent.html",
            status=400 if problem else 200,
            then=asked.redirect_uri,
            problem=problem,
            handle=handle,
            form_token=self._cookies.form_token(browser, CONSENT, handle, step.about),
            ticked=answered.ticked if answered is not None else None,
            limits=answered.limits if answered is not None else {},
            problem_at=answered.problem_at if answered is not None else "",
            **self._consent_words(step, asked),
        )

    def _consent_words(self, step: AskConsent, asked: AuthorizationRequest) -> dict[str, Any]:
        lifetimes = self._server.lifetimes
        records = () if step.record is None else (step.record, *step.others)
        return {
            "app": step.client.name,
            "checked": not step.client.self_registered,
            "destination": _destination(asked.redirect_uri),
            "records": [
                (one, day(one.until) if one.until is not None else None) for one in records
            ],
            "staff": step.staff,
            "visit": visit_words(step.visit) if step.visit is not None else "",
            "other_records": step.other_records,
            "other_visits": step.other_visits,
            "sections": offer_words(step.offer),
            "has_parts": any(offered.children for offered in step.offer.scopes),
            "fixed": [(word, IDENTITY_WORDS[word]) for word in step.offer.fixed],
            "offline": step.offer.offline,
            "offline_words": IDENTITY_WORDS["offline_access"],
            "unused_for": duration(lifetimes.refresh_token),
            "in_all": duration(lifetimes.refresh_in_all),
            "at_once": duration(lifetimes.access_token),
            **self._limit_words(step),
        }

    def _limit_words(self, step: AskConsent) -> dict[str, Any]:
        """What can be limited: nothing is offered that would change nothing."""
        days = self._server.end_dates(step)
        scopes = [offered.scope for offered in step.offer.scopes]
        types = list(dict.fromkeys(scope.resource_type for scope in scopes))
        return {
            "names": {"until": UNTIL, "only": ONLY_READING, "first": DATA_FROM, "last": DATA_TO},
            "yes": YES,
            "first_day": days.first_day.isoformat(),
            "last_day": days.last_day.isoformat(),
            "last_day_words": f"{days.last_day.day} {days.last_day:%B %Y}",
            "writes": any(set(scope.letters) - set(READING) for scope in scopes),
            "dated": any(one in PERIOD_PARAMETERS for one in types),
            "whole": [type_words(one) for one in types if one in TIMELESS],
            "left_out": [
                type_words(one) for one in types if one not in TIMELESS | PERIOD_PARAMETERS.keys()
            ],
        }


@dataclass(frozen=True, slots=True)
class Answered:
    """A form that could not be accepted, to be shown again as it was filled in."""

    ticked: frozenset[str]
    limits: Mapping[str, str]
    problem_at: str


def _to(path: str, handle: str) -> str:
    """A page for this request; handles are base64url, so they need no escaping."""
    return f"{path}?request={handle}"


def _handle(pairs: Sequence[tuple[str, str]]) -> str:
    return next((value for name, value in pairs if name == "request"), "")


def _destination(redirect_uri: str) -> str:
    """Where an answer goes, in words for people."""
    return origin_of(redirect_uri) or "an app on your device"


def _error_page(status: int, message: str, *, error: PageError, from_app: bool = False) -> Response:
    return page(
        "error.html", status=status, message=message, error=error, from_app=from_app, app=None
    )
