"""``/recover``: forgotten user name, password, or both.

No answer here tells whether there is an account, until something of its owner's was proved. A
recovery is known by a random handle in the address and belongs to one browser.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final, Literal, cast, get_args

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.assisted_recovery import NoSuchRecovery, NotYetOpen
from fhir_portal.accounts.credentials import MAX_LENGTH, MIN_LENGTH, UnacceptablePassword
from fhir_portal.accounts.front_door import Place
from fhir_portal.accounts.passkeys import PasskeyRefused
from fhir_portal.accounts.practice_list import PracticeList
from fhir_portal.accounts.proof import Spent
from fhir_portal.accounts.recovery import (
    BirthDates,
    Recoveries,
    Recovery,
    RecoveryLocked,
    RecoveryOver,
    Want,
)
from fhir_portal.accounts.security_questions import QUESTIONS, WrongAnswers
from fhir_portal.accounts.sessions import SignedOutMeanwhile
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.accounts.totp import WrongCode
from fhir_portal.consent.record import RecordDirectory
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.connection import Connection, is_of_practice
from fhir_portal.smart.connections import Connections
from fhir_portal.smart.errors import InvalidRequest, TooManyRequests
from fhir_portal.smart.sharing import ShareLink, end_shares_but, links_by
from fhir_portal.web.form import once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, address_of, posted
from fhir_portal.web.pages.errors import PageError
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import json_text, page, redirect
from fhir_portal.web.pages.signin import (
    RECOVER,
    SIGN_IN,
    WRONG_PASSKEY,
    Onward,
    Requests,
    Route,
    local,
    wait_words,
)
from fhir_portal.web.pages.words import moment

CODE: Final = f"{RECOVER}/code"
DESK: Final = f"{RECOVER}/desk"
BIRTH_DATE: Final = f"{RECOVER}/birth-date"
PASSKEY: Final = f"{RECOVER}/passkey"
PASSKEY_OPTIONS: Final = f"{RECOVER}/passkey/options"
ANSWERS: Final = f"{RECOVER}/questions"
PASSWORD: Final = f"{RECOVER}/password"
HELP: Final = f"{RECOVER}/help"

_WRONG: Final = (
    "That code is wrong, or it is over: a code that we sent is good for ten minutes. "
    "Each recovery code works once."
)
_NOT_SAME: Final = "The new password was not typed the same way twice."
_WRONG_ANSWERS: Final = "Not all of these answers are right."
_WRONG_DESK: Final = "There is no such code, or it is over. Ask your practice for a new one."
_WRONG_HALF: Final = "The birth date or the word is wrong."
_AWAITS_STAFF: Final = "Another member of your practice's staff has to approve of it first."
_EMPTY: Final = "Fill this in."
_SHOWN, _ENDS = "app-", "end-"
"""Fields of the last form: an app that was shown, and one that is to end."""
_SHOWN_LINK, _ENDS_LINK = "share-", "end-share-"
"""The same of a link by which the record is shared."""
_MOST_LINKS: Final = 30
"""Links that are asked about: nobody makes the form too long to be sent."""
_LONGEST: Final = 254
_MOST_PRACTICES: Final = 50
_ERRORS: Final[Mapping[str, PageError]] = {
    _EMPTY: "form-incomplete",
    WRONG_PASSKEY: "passkey-refused",
}

_log = structlog.get_logger(__name__)


def birth_dates(directory: RecordDirectory) -> BirthDates:
    """Read birth dates where records are resolved for sign-in."""

    async def find(account: Account, practice: str) -> str | None:
        return await directory.birth_date_of(account, practice)

    return find


class RecoveryPages:
    """The pages of a recovery; ``home`` is where one leads that is for nothing else."""

    def __init__(
        self,
        recoveries: Recoveries,
        cookies: Cookies,
        requests: Requests,
        home: str,
        connections: Connections,
    ) -> None:
        self._recoveries = recoveries
        self._connections = connections
        self._door = recoveries.door
        self._practices = PracticeList(recoveries.door.sessions.store)
        self._cookies = cookies
        self._requests = requests
        self._home = home

    def routes(self) -> Sequence[Route]:
        """Path, method and handler of each page."""
        routes: Sequence[Route] = (
            (RECOVER, "GET", self.show),
            (RECOVER, "POST", self.begin),
            (CODE, "GET", self.show_next),
            (CODE, "POST", self.give_code),
            (DESK, "GET", self.show_desk),
            (DESK, "POST", self.begin_at_desk),
            (BIRTH_DATE, "POST", self.give_birth_date),
            (PASSKEY_OPTIONS, "POST", self.offer_passkey),
            (PASSKEY, "POST", self.give_passkey),
            (ANSWERS, "POST", self.give_answers),
            (PASSWORD, "GET", self.show_next),
            (PASSWORD, "POST", self.finish),
            (HELP, "POST", self.help),
        )
        return [
            (path, method, refusing(self._leading(handler), back=RECOVER, signed_out=SIGN_IN))
            for path, method, handler in routes
        ]

    # --- the beginning -------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        query = dict(reversed(parse_pairs(request.scope["query_string"])))
        shown = self._page(browser, Onward.of(query), _want(query.get("want", "")))
        return self._cookies.keep(shown, browser)

    async def begin(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        onward, want = Onward.of(form), _want(form.get("want", ""))
        self._cookies.check_form(request, browser, RECOVER, "", form.get(FORM_TOKEN, ""))
        typed = form.get("name", "").strip()
        if not 0 < len(typed) <= _LONGEST:
            return self._page(browser, onward, want, status=400, problem=_EMPTY)
        browser = await self._cookies.store(browser)
        try:
            recovery = await self._recoveries.begin(
                browser.visitor.browser,
                typed,
                want,
                Place(address_of(request)),
                handle=onward.handle,
                then=onward.then,
                knows=functools.partial(self._cookies.known_as, request),
            )
        except TooManyAttempts as error:
            _log.warning("recovery throttled")
            raise _slower(error) from None
        return self._cookies.keep(redirect(f"{CODE}?recovery={recovery.key}"), browser)

    def _page(
        self,
        browser: Browser,
        onward: Onward,
        want: Want,
        *,
        status: int = 200,
        problem: str = "",
    ) -> Response:
        return page(
            "recover.html",
            status=status,
            want=want,
            problem=problem,
            error=_error(problem),
            back=onward.at(SIGN_IN),
            longest=_LONGEST,
            form_token=self._cookies.form_token(browser, RECOVER, ""),
            **onward.hidden(),
        )

    # --- with a code from the desk -------------------------------------------------------------

    async def show_desk(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        return self._cookies.keep(self._desk_page(browser), browser)

    async def begin_at_desk(self, request: Request) -> Response:
        browser = await self._cookies.browser(request, to_sign_in=True)
        form = once_each(await posted(request))
        self._cookies.check_form(request, browser, DESK, "", form.get(FORM_TOKEN, ""))
        browser = await self._cookies.store(browser)
        try:
            recovery = await self._recoveries.begin_at_desk(
                browser.visitor.browser, form.get("code", ""), await self._place(request)
            )
        except NoSuchRecovery:
            _log.info("desk code refused")
            shown = self._desk_page(browser, 403, problem=_WRONG_DESK, error="proof-refused")
        except NotYetOpen as error:
            when = _AWAITS_STAFF
            if error.opens_at is not None:
                when = f"This code works from {moment(error.opens_at)} on."
            shown = self._desk_page(browser, 403, problem=when)
        except TooManyAttempts as error:
            raise _slower(error) from None
        else:
            shown = redirect(f"{CODE}?recovery={recovery.key}")
        return self._cookies.keep(shown, browser)

    async def give_birth_date(self, request: Request) -> Response:
        browser, recovery, form = await self._posted(request, BIRTH_DATE)
        born, word = form.get("birth_date", ""), form.get("word", "")
        try:
            await self._recoveries.give_birth_date(recovery, born, word)
        except WrongCode:
            _log.info("birth date or word of a recovery refused")
            return await self._next(request, browser, recovery, status=403, problem=_WRONG_HALF)
        return redirect(f"{CODE}?recovery={recovery.key}")

    def _desk_page(
        self,
        browser: Browser,
        status: int = 200,
        *,
        problem: str = "",
        error: PageError | Literal[""] = "",
    ) -> Response:
        return page(
            "recover_desk.html",
            status=status,
            problem=problem,
            error=error,
            form_token=self._cookies.form_token(browser, DESK, ""),
        )

    # --- what is proved ------------------------------------------------------------------------

    async def show_next(self, request: Request) -> Response:
        """Whatever page of a recovery is opened: it is the one that is next."""
        browser = await self._cookies.browser(request)
        query = dict(reversed(parse_pairs(request.scope["query_string"])))
        recovery = await self._recoveries.find(query.get("recovery", ""), browser.visitor.browser)
        return await self._next(request, browser, recovery)

    async def give_code(self, request: Request) -> Response:
        browser, recovery, form = await self._posted(request, CODE)
        place = await self._place(request)
        try:
            await self._recoveries.give_code(recovery, form.get("code", ""), place)
        except (WrongCode, Spent):
            _log.info("code of a recovery refused")
            return await self._next(request, browser, recovery, status=403, problem=_WRONG)
        except TooManyAttempts as error:
            _log.warning("codes of a recovery throttled")
            again = await self._next(
                request, browser, recovery, status=429, problem=wait_words(error)
            )
            again.headers["Retry-After"] = str(error.retry_after)
            return again
        return redirect(f"{CODE}?recovery={recovery.key}")

    async def offer_passkey(self, request: Request) -> Response:
        """Answer the page's script with what the browser is to ask its passkeys."""
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        key = form.get("recovery", "")
        self._cookies.check_form(request, browser, CODE, key, form.get(FORM_TOKEN, ""))
        recovery = await self._recoveries.find(key, browser.visitor.browser)
        options = await self._recoveries.begin_passkey(
            recovery, browser.visitor.session, request.headers.get("host", "")
        )
        if options is None:
            raise InvalidRequest("There are no passkeys to ask here.")
        return json_text(options)

    async def give_passkey(self, request: Request) -> Response:
        browser, recovery, form = await self._posted(request, CODE)
        try:
            await self._recoveries.give_passkey(
                recovery, browser.visitor.session, form.get("credential", "")
            )
        except (PasskeyRefused, Spent):
            _log.info("passkey of a recovery refused")
            return await self._next(request, browser, recovery, status=403, problem=WRONG_PASSKEY)
        return redirect(f"{CODE}?recovery={recovery.key}")

    async def give_answers(self, request: Request) -> Response:
        browser, recovery, form = await self._posted(request, ANSWERS)
        try:
            await self._recoveries.give_answers(recovery, form)
        except WrongAnswers:
            _log.info("answers of a recovery refused")
            return await self._next(request, browser, recovery, status=403, problem=_WRONG_ANSWERS)
        except TooManyAttempts as error:
            raise _slower(error) from None
        return redirect(f"{CODE}?recovery={recovery.key}")

    async def _next(
        self,
        request: Request,
        browser: Browser,
        recovery: Recovery,
        *,
        status: int = 200,
        problem: str = "",
        wrong: str = "",
        kept: frozenset[str] = frozenset(),
    ) -> Response:
        step = await self._recoveries.step(recovery)
        if step == "password":
            return page(
                "recover_password.html",
                apps=await self._apps(recovery),
                links=(links := await self._links(recovery))[:_MOST_LINKS],
                more_links=len(links) > _MOST_LINKS,
                moment=moment,
                helped=recovery.assisted is not None,
                kept=kept,
                status=status,
                then=await self._requests.app_of(browser, _onward(recovery)),
                scripted=True,
                problem=problem,
                error="password-refused" if problem else "",
                wrong=wrong,
                least=MIN_LENGTH,
                most=MAX_LENGTH,
                recovery=recovery.key,
                form_token=self._cookies.form_token(browser, PASSWORD, recovery.key),
            )
        if step == "birth-date":
            return page(
                "recover_birth_date.html",
                status=status,
                problem=problem,
                error=_error(problem),
                recovery=recovery.key,
                form_token=self._cookies.form_token(browser, BIRTH_DATE, recovery.key),
            )
        if step == "questions":
            return page(
                "recover_questions.html",
                status=status,
                problem=problem,
                error=_error(problem),
                questions=[
                    (code, QUESTIONS[code]) for code in await self._recoveries.asked(recovery)
                ],
                recovery=recovery.key,
                form_token=self._cookies.form_token(browser, ANSWERS, recovery.key),
                help_token=self._cookies.form_token(browser, HELP, recovery.key),
            )
        site = self._door.passkeys.site(request.headers.get("host", ""))
        return page(
            "recover_code.html",
            status=status,
            scripted=True,
            want=recovery.want,
            sent=recovery.sent,
            is_second=step == "second",
            at_desk=recovery.assisted is not None,
            given=recovery.proved,
            has_passkeys=site is not None and await self._recoveries.has_passkeys(recovery),
            passkey_options=PASSKEY_OPTIONS,
            passkey_action=PASSKEY,
            problem=problem,
            error="too-many-tries" if status == TooManyRequests.status else _error(problem),
            recovery=recovery.key,
            form_token=self._cookies.form_token(browser, CODE, recovery.key),
            help_token=self._cookies.form_token(browser, HELP, recovery.key),
        )

    # --- the end -------------------------------------------------------------------------------

    async def _apps(self, recovery: Recovery) -> list[Connection]:
        """The connected apps that are asked about, for whoever has proved all of it.

        After a recovery with a practice's help only those for its records: what another practice's
        are for is told when that one has its own proof. Those are not asked about, and end.
        """
        account = await self._recoveries.owner(recovery)
        found = [one for one in await self._connections.of(account) if one.is_mine]
        if recovery.assisted is None:
            return found
        return [one for one in found if is_of_practice(one, recovery.practice)]

    async def _links(self, recovery: Recovery) -> list[ShareLink]:
        """The links to records that are asked about, as `_apps` has the apps."""
        sessions = self._door.sessions
        account = await self._recoveries.owner(recovery)
        found = await links_by(sessions.store, account.key, now=sessions.clock())
        if recovery.assisted is None:
            return found
        return [one for one in found if one.practice == recovery.practice]

    async def finish(self, request: Request) -> Response:
        browser, recovery, form = await self._posted(request, PASSWORD)
        new = form.get("new_password", "")
        # Nobody keeps what they are not asked about: that of other practices after one's help.
        kept = _unticked(form, _SHOWN, _ENDS) & {one.id for one in await self._apps(recovery)}
        kept_links = _unticked(form, _SHOWN_LINK, _ENDS_LINK) & {
            one.id for one in await self._links(recovery)
        }
        account = await self._recoveries.owner(recovery)
        now = self._door.sessions.clock()

        async def end_access(transaction: RecordTransaction) -> None:
            await self._connections.end_all_but(transaction, account, kept, now=now)
            await end_shares_but(transaction, account.key, kept_links, now=now)

        if form.get("repeated", new) != new:
            return await self._next(
                request,
                browser,
                recovery,
                status=400,
                problem=_NOT_SAME,
                wrong="repeated",
                kept=kept | kept_links,
            )
        try:
            opened = await self._recoveries.finish(
                recovery,
                browser.visitor.session,
                new,
                await self._place(request),
                also=[end_access],
            )
        except UnacceptablePassword as error:
            return await self._next(
                request,
                browser,
                recovery,
                status=400,
                problem=str(error),
                wrong="new_password",
                kept=kept | kept_links,
            )
        to = await self._requests.on(browser, _onward(recovery), self._home)
        return await self._cookies.signed_in(to, opened)

    async def help(self, request: Request) -> Response:
        _, recovery, _ = await self._posted(request, HELP)
        await self._recoveries.ask_for_help(recovery)
        return await self._help_page()

    async def _help_page(self, *, status: int = 200, locked: bool = False) -> Response:
        """Whom to call: all practices, because whose patient somebody is tells something."""
        known = [practice for practice, _ in (await self._practices.now()).practices]
        return page(
            "recover_help.html",
            status=status,
            locked=locked,
            error="too-many-tries" if locked else "",
            practices=[(one.name, one.phone or "") for one in known[:_MOST_PRACTICES]],
            has_more=len(known) > _MOST_PRACTICES,
        )

    # --- what all of them do -------------------------------------------------------------------

    def _leading(self, handler: Handler) -> Handler:
        """Lead whoever is at no step of a recovery to where one begins, or to help."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except RecoveryLocked:
                _log.warning("recovery locked")
                return await self._help_page(status=403, locked=True)
            except (RecoveryOver, SignedOutMeanwhile, Spent):
                return page(
                    "problem.html",
                    status=403,
                    message="This recovery is over, or was begun in another browser. Begin again.",
                    error="recovery-over",
                    back=RECOVER,
                )

        return answer

    async def _posted(
        self, request: Request, action: str
    ) -> tuple[Browser, Recovery, dict[str, str]]:
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        key = form.get("recovery", "")
        self._cookies.check_form(request, browser, action, key, form.get(FORM_TOKEN, ""))
        return browser, await self._recoveries.find(key, browser.visitor.browser), form

    async def _place(self, request: Request) -> Place:
        place = await self._cookies.place(request, "")
        return Place(place.address, device=place.device)


def _onward(recovery: Recovery) -> Onward:
    return Onward(recovery.handle, local(recovery.then))


def _unticked(form: Mapping[str, str], shown: str, ends: str) -> frozenset[str]:
    """What the form showed, and is not to end: by the beginnings of its fields."""
    found = {name.removeprefix(shown) for name in form if name.startswith(shown)}
    return frozenset(one for one in found if f"{ends}{one}" not in form)


def _error(problem: str) -> PageError | Literal[""]:
    """The code of what a page says: whatever proof was wrong, it is the same one."""
    return _ERRORS.get(problem, "proof-refused") if problem else ""


def _want(text: str) -> Want:
    return cast("Want", text) if text in get_args(Want) else "both"


def _slower(error: TooManyAttempts) -> TooManyRequests:
    return TooManyRequests(wait_words(error), headers={"Retry-After": str(error.retry_after)})
