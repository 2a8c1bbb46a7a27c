"""``/account/security``: what a person signs in with, where, and how to end it.

Everything here works without JavaScript but the making of a passkey. A change of what somebody
signs in with needs a proof from the last minutes (`fhir_portal.web.pages.step_up`); ending
sessions and forgetting browsers does not: it only ever takes access away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import segno
import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.assisted_recovery import assisted_of
from fhir_portal.accounts.credentials import (
    MAX_LENGTH,
    MIN_LENGTH,
    SignInRefused,
    UnacceptablePassword,
)
from fhir_portal.accounts.devices import RememberedDevice, device_words
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.own import LastWayIn, OwnSignIn
from fhir_portal.accounts.passkeys import MAX_NAME, Passkey, PasskeyRefused, TooManyPasskeys
from fhir_portal.accounts.proof import Spent
from fhir_portal.accounts.security_questions import is_asked_by_practice
from fhir_portal.accounts.sessions import Session, SignedOutMeanwhile
from fhir_portal.accounts.step_up import FRESH, Need
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.accounts.totp import WrongCode
from fhir_portal.smart.errors import InvalidRequest, TooManyRequests
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.form import once_each, parse_pairs
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import refusing
from fhir_portal.web.pages.render import json_text, page, redirect
from fhir_portal.web.pages.signin import SIGN_IN, SIGN_OUT, Route, wait_words
from fhir_portal.web.pages.step_up import SECURITY, StepUp
from fhir_portal.web.pages.words import ago, day, moment

PASSWORD: Final = f"{SECURITY}/password"
APP: Final = f"{SECURITY}/app"
APP_REMOVE: Final = f"{SECURITY}/app/remove"
CODES: Final = f"{SECURITY}/recovery-codes"
PASSKEYS: Final = f"{SECURITY}/passkeys"
PASSKEY_OPTIONS: Final = f"{SECURITY}/passkeys/options"
PASSKEY_REMOVE: Final = f"{SECURITY}/passkeys/remove"
RECOVERY_END: Final = f"{SECURITY}/recovery/end"
SESSIONS_END: Final = f"{SECURITY}/sessions/end"
DEVICES_FORGET: Final = f"{SECURITY}/devices/forget"

_WITH_PASSWORD: Final = Need(asks_password=True)
_DONE: Final = {
    "password": "Your password is changed. You are signed out everywhere else.",
    "app": "Your authenticator app is set up. From now on you are asked for its code.",
    "app-removed": "Your authenticator app is removed. Your password alone lets you in.",
    "passkey": "Your passkey is ready. You can sign in with it from now on.",
    "passkey-removed": "The passkey is removed. Delete it on your device, too.",
    "session": "That browser is signed out.",
    "no-session": "No browser is signed in there any more.",
    "sessions": "You are signed out everywhere else.",
    "recovery": "That help is ended. Nobody gets into your account by it.",
    "device": "That browser is forgotten. It is asked for a code next time.",
    "no-device": "No such browser is remembered any more.",
}
_WRONG_CODE: Final = "That is not the code of this moment. Wait for the next one and type that."
_NOT_SAME: Final = "The new password was not typed the same way twice."
_NO_PASSKEY: Final = "The passkey could not be added. Try again."
_LAST_WAY: Final = "Without this passkey you could not sign in any more. Add another one first."
_MOST_PASSKEYS: Final = "You have as many passkeys as an account can have. Remove one first."

T = TypeVar("T")

_log = structlog.get_logger(__name__)


def security_routes(
    server: AuthorizationServer, door: FrontDoor, cookies: Cookies
) -> Sequence[Route]:
    """Path, method and handler of each page, the page of `StepUp` among them."""
    step_up = StepUp(door, cookies)
    return (*step_up.routes(), *SecurityPages(server, door, cookies, step_up).routes())


class SecurityPages:
    """The security page and the pages of its actions."""

    def __init__(
        self, server: AuthorizationServer, door: FrontDoor, cookies: Cookies, step_up: StepUp
    ) -> None:
        self._server = server
        self._door = door
        self._own = OwnSignIn(door)
        self._cookies = cookies
        self._step_up = step_up

    def routes(self) -> Sequence[Route]:
        """Path, method and handler of each page."""
        routes: Sequence[Route] = (
            (SECURITY, "GET", self.show),
            (PASSWORD, "GET", self.show_password),
            (PASSWORD, "POST", self.change_password),
            (APP, "GET", self.show_app),
            (APP, "POST", self.add_app),
            (APP_REMOVE, "GET", self.show_app_removal),
            (APP_REMOVE, "POST", self.remove_app),
            (CODES, "GET", self.show_codes),
            (CODES, "POST", self.new_codes),
            (PASSKEYS, "GET", self.show_passkey),
            (PASSKEYS, "POST", self.add_passkey),
            (PASSKEY_OPTIONS, "POST", self.offer_passkey),
            (PASSKEY_REMOVE, "GET", self.show_passkey_removal),
            (PASSKEY_REMOVE, "POST", self.remove_passkey),
            (RECOVERY_END, "POST", self.end_recovery),
            (SESSIONS_END, "POST", self.end_sessions),
            (DEVICES_FORGET, "POST", self.forget_device),
        )
        return [
            (
                path,
                method,
                refusing(handler, back=SECURITY, signed_out=f"{SIGN_IN}?then={SECURITY}"),
            )
            for path, method, handler in routes
        ]

    # --- the page ------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        account = browser.visitor.account
        if account is None:
            return redirect(f"{SIGN_IN}?then={SECURITY}")
        done = dict(reversed(parse_pairs(request.scope["query_string"]))).get("done", "")
        door, now = self._door, self._door.sessions.clock()
        app = await door.second_factor.totps.of(account.key)
        passkeys = await door.passkeys.of(account.key)
        sessions = await door.sessions.of(account.key)
        devices = await door.devices.of(account.key)
        return page(
            "security.html",
            username=account.username,
            done=_DONE.get(done, ""),
            has_password=account.password_hash is not None,
            app_since=day(app.added) if app else None,
            has_questions=await is_asked_by_practice(door.sessions.store, account),
            codes_left=await door.second_factor.codes.left(account.key),
            passkeys=[
                (passkey, day(passkey.added), ago(now - passkey.used), label)
                for passkey, label in _labelled(passkeys, _passkey_label)
            ],
            can_add_passkey=door.passkeys.site(request.headers.get("host", "")) is not None,
            sessions=[
                (
                    session,
                    ago(now - session.seen),
                    moment(session.created),
                    session.key == browser.visitor.session.key,
                    label,
                )
                for session, label in _labelled(sessions, _session_label)
            ],
            devices=[
                (device, ago(now - device.used), day(device.expires), label)
                for device, label in _labelled(devices, _device_label)
            ],
            form_tokens={
                path: self._cookies.form_token(browser, path, "")
                for path in (PASSKEY_REMOVE, RECOVERY_END, SESSIONS_END, DEVICES_FORGET, SIGN_OUT)
            },
            recovery=await assisted_of(door.sessions.store, account.key, now=now),
        )

    # --- password ------------------------------------------------------------------------------

    async def show_password(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, _WITH_PASSWORD, then=PASSWORD):
            return sent
        return self._password_page(browser)

    async def change_password(self, request: Request) -> Response:
        browser, form = await self._posted(request, PASSWORD)
        if sent := await self._step_up.to(browser, _WITH_PASSWORD, then=PASSWORD):
            return sent
        new = form.get("new_password", "")
        if form.get("repeated", new) != new:
            return self._password_page(browser, status=400, problem=_NOT_SAME, wrong="repeated")
        account = _account(browser)
        try:
            opened = await self._own.change_password(
                browser.visitor,
                form.get("password", ""),
                new,
                await self._cookies.place(request, account.username),
            )
        except SignInRefused:
            _log.info("change of password refused")
            problem = "The password you have now was not typed right."
            return self._password_page(browser, status=403, problem=problem, wrong="password")
        except UnacceptablePassword as error:
            problem = str(error)
            return self._password_page(browser, status=400, problem=problem, wrong="new_password")
        except TooManyAttempts as error:
            again = self._password_page(browser, status=429, problem=wait_words(error))
            again.headers["Retry-After"] = str(error.retry_after)
            return again
        return await self._cookies.signed_in(_back("password"), opened)

    def _password_page(
        self, browser: Browser, *, status: int = 200, problem: str = "", wrong: str = ""
    ) -> Response:
        """The form; ``wrong`` is the field that the problem is about."""
        return page(
            "password.html",
            status=status,
            scripted=True,
            username=_account(browser).username,
            least=MIN_LENGTH,
            most=MAX_LENGTH,
            wrong=wrong,
            problem=problem,
            form_token=self._cookies.form_token(browser, PASSWORD, ""),
        )

    # --- authenticator app ---------------------------------------------------------------------

    async def show_app(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, FRESH, then=APP):
            return sent
        return await self._app_page(browser)

    async def add_app(self, request: Request) -> Response:
        browser, form = await self._posted(request, APP)
        if sent := await self._step_up.to(browser, FRESH, then=APP):
            return sent
        try:
            opened, codes = await self._own.add_app(browser.visitor, form.get("code", ""))
        except (WrongCode, Spent):
            return await self._app_page(browser, status=403, problem=_WRONG_CODE)
        if not codes:
            return await self._cookies.signed_in(_back("app"), opened)
        shown = page("codes_made.html", codes=codes, done=_DONE["app"])
        return await self._cookies.signed_in(shown, opened)

    async def _app_page(
        self, browser: Browser, *, status: int = 200, problem: str = ""
    ) -> Response:
        offer = await self._own.offer_app(browser.visitor)
        code = segno.make(offer.uri, error="m", micro=False)
        return page(
            "app.html",
            status=status,
            qr=code.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True),
            uri=offer.uri,
            key=" ".join(offer.secret[at : at + 4] for at in range(0, len(offer.secret), 4)),
            problem=problem,
            form_token=self._cookies.form_token(browser, APP, ""),
        )

    async def show_app_removal(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, FRESH, then=APP_REMOVE):
            return sent
        return page("app_remove.html", form_token=self._cookies.form_token(browser, APP_REMOVE, ""))

    async def remove_app(self, request: Request) -> Response:
        browser, _ = await self._posted(request, APP_REMOVE)
        if sent := await self._step_up.to(browser, FRESH, then=APP_REMOVE):
            return sent
        response = await self._done(self._own.remove_app(browser.visitor), "app-removed")
        return await self._cookies.know(response, browser.cookie, browser.visitor.account)

    # --- recovery codes ------------------------------------------------------------------------

    async def show_codes(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, FRESH, then=CODES):
            return sent
        return page(
            "codes.html",
            left=await self._door.second_factor.codes.left(_account(browser).key),
            form_token=self._cookies.form_token(browser, CODES, ""),
        )

    async def new_codes(self, request: Request) -> Response:
        browser, _ = await self._posted(request, CODES)
        if sent := await self._step_up.to(browser, FRESH, then=CODES):
            return sent
        try:
            codes = await self._own.new_codes(browser.visitor)
        except TooManyAttempts as error:
            raise TooManyRequests(
                wait_words(error), headers={"Retry-After": str(error.retry_after)}
            ) from None
        return page("codes_made.html", codes=codes, done="")

    # --- passkeys ------------------------------------------------------------------------------

    async def show_passkey(self, request: Request) -> Response:
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, FRESH, then=PASSKEYS):
            return sent
        return self._passkey_page(request, browser)

    async def offer_passkey(self, request: Request) -> Response:
        """Answer the page's script with what the browser is to make."""
        browser, _ = await self._posted(request, PASSKEYS)
        if await self._step_up.to(browser, FRESH, then=PASSKEYS):
            raise InvalidRequest("Confirm again that it is you, then add the passkey.")
        passkeys = self._door.passkeys
        site = passkeys.site(request.headers.get("host", ""))
        if site is None:
            raise InvalidRequest("There are no passkeys at this address.")
        try:
            visitor = browser.visitor
            options = await passkeys.begin_adding(visitor.session, _account(browser), site)
        except TooManyPasskeys:
            raise InvalidRequest(_MOST_PASSKEYS) from None
        return json_text(options)

    async def add_passkey(self, request: Request) -> Response:
        browser, form = await self._posted(request, PASSKEYS)
        if sent := await self._step_up.to(browser, FRESH, then=PASSKEYS):
            return sent
        answer, name = form.get("credential", ""), form.get("name", "")
        try:
            await self._own.add_passkey(browser.visitor, answer, name)
        except (PasskeyRefused, Spent):
            return self._passkey_page(request, browser, status=403, problem=_NO_PASSKEY)
        except TooManyPasskeys:
            return self._passkey_page(request, browser, status=400, problem=_MOST_PASSKEYS)
        return _back("passkey")

    async def show_passkey_removal(self, request: Request) -> Response:
        """Where a confirmation leads that was asked for when “Remove” was pressed."""
        browser = await self._cookies.browser(request)
        if sent := await self._step_up.to(browser, FRESH, then=PASSKEY_REMOVE):
            return sent
        passkeys = await self._door.passkeys.of(_account(browser).key)
        return page(
            "passkey_remove.html",
            passkeys=[
                (passkey, day(passkey.added), label)
                for passkey, label in _labelled(passkeys, _passkey_label)
            ],
            form_token=self._cookies.form_token(browser, PASSKEY_REMOVE, ""),
        )

    async def remove_passkey(self, request: Request) -> Response:
        browser, form = await self._posted(request, PASSKEY_REMOVE)
        if sent := await self._step_up.to(browser, FRESH, then=PASSKEY_REMOVE):
            return sent
        removal = self._own.remove_passkey(browser.visitor, form.get("passkey", ""))
        try:
            return await self._done(removal, "passkey-removed")
        except LastWayIn:
            raise InvalidRequest(_LAST_WAY) from None

    def _passkey_page(
        self, request: Request, browser: Browser, *, status: int = 200, problem: str = ""
    ) -> Response:
        return page(
            "passkey.html",
            status=status,
            scripted=True,
            here=self._door.passkeys.site(request.headers.get("host", "")) is not None,
            name=device_words(request.headers.get("user-agent", "")),
            longest=MAX_NAME,
            passkey_options=PASSKEY_OPTIONS,
            passkey_action=PASSKEYS,
            problem=problem,
            form_token=self._cookies.form_token(browser, PASSKEYS, ""),
        )

    # --- sessions and remembered browsers ------------------------------------------------------

    async def end_sessions(self, request: Request) -> Response:
        browser, form = await self._posted(request, SESSIONS_END)
        session, account = browser.visitor.session, _account(browser)
        key = form.get("session", "")
        if key == "others":
            await self._door.sessions.end_others(session)
            return _back("sessions")
        if key == session.key:
            raise InvalidRequest("To sign out here, use “Sign out”.")
        was_there = await self._door.sessions.end(account.key, key)
        return _back("session" if was_there else "no-session")

    async def forget_device(self, request: Request) -> Response:
        browser, form = await self._posted(request, DEVICES_FORGET)
        account = _account(browser)
        was_there = await self._door.devices.forget(account.key, form.get("device", ""))
        return _back("device" if was_there else "no-device")

    async def end_recovery(self, request: Request) -> Response:
        """End what staff began, to help somebody back into this account."""
        browser, _ = await self._posted(request, RECOVERY_END)
        if sent := await self._step_up.to(browser, FRESH, then=SECURITY):
            return sent
        await self._own.end_recovery(browser.visitor)
        return _back("recovery")

    # --- what all of them do -------------------------------------------------------------------

    async def _posted(self, request: Request, action: str) -> tuple[Browser, dict[str, str]]:
        """Read a form of somebody signed in, still when it is whole.

        Raises `SignedOutMeanwhile` for nobody.
        """
        form = once_each(await posted(request))
        browser = await self._cookies.browser(request)
        _account(browser)
        self._cookies.check_form(request, browser, action, "", form.get(FORM_TOKEN, ""))
        return browser, form

    async def _done(self, change: Awaitable[Any], what: str) -> Response:
        """Make a change; that somebody made it already comes to the same."""
        try:
            await change
        except Spent:
            _log.info("nothing to change", what=what)
        return _back(what)


def _labelled(entries: Sequence[T], label: Callable[[T], str]) -> list[tuple[T, str]]:
    """Give each entry of a list a label of its own: alike ones are numbered."""
    seen: Counter[str] = Counter()
    found = []
    for entry in entries:
        text = label(entry)
        seen[text] += 1
        found.append((entry, text if seen[text] == 1 else f"{text} ({seen[text]})"))
    return found


def _passkey_label(passkey: Passkey) -> str:
    return f"{passkey.name}, added on {day(passkey.added)}"


def _session_label(session: Session) -> str:
    return f"{session.device or 'Unknown browser'}, signed in on {moment(session.created)}"


def _device_label(device: RememberedDevice) -> str:
    return f"{device.device or 'Unknown browser'}, remembered on {moment(device.added)}"


def _account(browser: Browser) -> Account:
    if browser.visitor.account is None:
        raise SignedOutMeanwhile
    return browser.visitor.account


def _back(done: str) -> Response:
    return redirect(f"{SECURITY}?done={done}")
