"""The browser's side of a session: its cookies, its forms, and the proof that a form is ours."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.account import Account, account_named
from fhir_portal.accounts.devices import REMEMBERED_SECONDS, device_words
from fhir_portal.accounts.front_door import Place
from fhir_portal.accounts.sessions import Opened, Sessions, Visitor
from fhir_portal.accounts.totp import Totp
from fhir_portal.records import DuplicateRecord
from fhir_portal.smart.errors import AccessDenied
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.token import base64url
from fhir_portal.web.form import Pairs, parse_form, read_body

FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field
_DEVICE_SECONDS: Final = 365 * 86_400
_DEVICE_PARTS: Final = 4
_SINCE: Final = re.compile(r"[0-9]{1,12}")
_COOKIE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # base64url of 32 bytes


@dataclass(frozen=True, slots=True)
class Browser:
    """One browser at one request: who is at it, and the cookie by which it is known.

    Its session is drafted, not stored, where nobody signed in and nothing is under way: the
    cookie alone is enough to bind a sign-in form.
    """

    cookie: str
    visitor: Visitor
    is_new: bool = False
    is_stored: bool = True


class Cookies:
    """Reads and sets the session cookie and the device cookie.

    With TLS their names begin with ``__Host-``, so that no other host can plant them
    (RFC 6265bis §4.1.3.2). The device cookie says that an account signed in here before; it is over
    when that has another password or authenticator app. It is no credential: it only keeps
    strangers' failed tries from counting against this browser.
    """

    def __init__(self, issuer: Issuer, keys: ServerKeys, sessions: Sessions) -> None:
        prefix = "__Host-" if issuer.is_https else ""
        self._session = f"{prefix}portal-session"
        self._device = f"{prefix}portal-device"
        self._remembered = f"{prefix}portal-remembered-"
        self._secure = issuer.is_https
        self._origins = frozenset(map(_origin_of, issuer.everywhere("")))
        self._keys = keys
        self._sessions = sessions

    def has_session(self, request: Request) -> bool:
        """Whether the browser sent a session cookie; a cross-site POST does not."""
        return self._session in request.cookies

    async def browser(self, request: Request, *, to_sign_in: bool = False) -> Browser:
        """Return the browser's session, or a drafted one if it has none that is alive.

        ``to_sign_in`` keeps the cookie that a drafted session was given before; its form has to
        be known by it.
        """
        cookie = request.cookies.get(self._session, "")
        visitor = await self._sessions.find(cookie) if cookie else None
        if visitor is not None:
            return Browser(cookie, visitor)
        known = cookie if to_sign_in and _COOKIE.fullmatch(cookie) else None
        drafted = self._sessions.drafted(known)
        return Browser(drafted.cookie, drafted.visitor, is_new=known is None, is_stored=False)

    async def store(self, browser: Browser) -> Browser:
        """Store a drafted session: something is bound to it from now on."""
        if browser.is_stored:
            return browser
        try:
            await self._sessions.keep(Opened(browser.cookie, browser.visitor))
        except DuplicateRecord:  # the same form was sent twice at once
            visitor = await self._sessions.find(browser.cookie)
            if visitor is None:
                raise
            return replace(browser, visitor=visitor, is_stored=True)
        return replace(browser, is_stored=True)

    def keep(self, response: Response, browser: Browser) -> Response:
        """Give a new session's cookie to the browser."""
        if browser.is_new:
            self._set(response, self._session, browser.cookie)
        return response

    async def signed_in(self, response: Response, opened: Opened) -> Response:
        """Give the browser its new session, and have it be known as the account's."""
        self._set(response, self._session, opened.cookie)
        return await self.know(response, opened.cookie, opened.visitor.account)

    async def know(self, response: Response, cookie: str, account: Account | None) -> Response:
        """Have the browser with a session's cookie be known as that of who signed in there."""
        if account is not None:
            name = base64url(self._keys.derive("device-name", cookie.encode()))[:22]
            since = f"{self._sessions.clock():.0f}"
            proof = await self._device_proof(name, since, account)
            value = ".".join((name, since, self._device_mark(name, since), proof))
            self._set(response, self._device, value, max_age=_DEVICE_SECONDS)
        return response

    def signed_out(self, response: Response) -> Response:
        """Take the session cookie away."""
        response.delete_cookie(
            self._session, path="/", secure=self._secure, httponly=True, samesite="lax"
        )
        return response

    def anybodys(self, request: Request) -> str | None:
        """The browser's name if anybody signed in here before."""
        parts = request.cookies.get(self._device, "").split(".")
        if len(parts) != _DEVICE_PARTS or not _SINCE.fullmatch(parts[1]):
            return None
        name, since, mark, _ = parts
        genuine = self._device_mark(name, since)
        if not hmac.compare_digest(mark.encode(), genuine.encode()):
            return None
        return name if self._sessions.clock() - int(since) < _DEVICE_SECONDS else None

    async def device(self, request: Request, username: str) -> str | None:
        """The browser's name if this very account signed in here before, as it signs in now."""
        name = self.anybodys(request)
        if name is None:
            return None
        account = await account_named(self._sessions.store, username)
        return await self.known_as(request, account) if account is not None else None

    async def known_as(self, request: Request, account: Account) -> str | None:
        """The browser's name if an account signed in here before, as it signs in now."""
        name = self.anybodys(request)
        if name is None:
            return None
        _, since, _, proof = request.cookies[self._device].split(".")
        genuine = await self._device_proof(name, since, account)
        return name if hmac.compare_digest(proof.encode(), genuine.encode()) else None

    async def place(self, request: Request, username: str) -> Place:
        """Where a request comes from, for somebody who says to have this user name."""
        return Place(
            address=address_of(request),
            known=await self.device(request, username),
            device=device_words(request.headers.get("user-agent", "")),
        )

    def remembered(self, request: Request, account: Account) -> str:
        """The token by which the browser says that this account remembers it."""
        return request.cookies.get(self._remembered_name(account), "")

    def remember(self, response: Response, account: Account, token: str) -> Response:
        """Have the browser keep that token. Each account has a cookie, which does not name it."""
        name = self._remembered_name(account)
        self._set(response, name, token, max_age=int(REMEMBERED_SECONDS))
        return response

    def form_token(self, browser: Browser, action: str, handle: str, about: str = "") -> str:
        """The hidden field of a form: for this session, this form and this request alone.

        ``about`` is what the page showed; `check_form` gives it back.
        """
        parts = (browser.cookie, action, handle)
        token = base64url(self._keys.derive("form-token", *(part.encode() for part in parts)))
        return f"{token}.{about}" if about else token

    def check_form(
        self, request: Request, browser: Browser, action: str, handle: str, token: str
    ) -> str:
        """Refuse a form that is not one of ours (OWASP ASVS 5.0, 3.5.1); return its ``about``."""
        expected = self.form_token(browser, action, handle)
        sent, _, about = token.partition(".")
        elsewhere = self._is_from_elsewhere(request)
        if elsewhere or not hmac.compare_digest(sent.encode(), expected.encode()):
            raise AccessDenied("This form is out of date. Go back, reload the page and try again.")
        return about

    def _is_from_elsewhere(self, request: Request) -> bool:
        """Whether a browser says that another site's page sent a form.

        Of ours it says ``null``, as they have it send no referrer (Fetch §3.1); many say nothing.
        """
        site = request.headers.get("sec-fetch-site", "none")
        origin = request.headers.get("origin", "null")
        return site not in ("same-origin", "none") or origin not in ("null", *self._origins)

    def _remembered_name(self, account: Account) -> str:
        return self._remembered + self._keys.derive("remembered", account.key.encode()).hex()[:16]

    def _device_mark(self, name: str, since: str) -> str:
        return base64url(self._keys.derive("device-mark", name.encode(), since.encode()))[:22]

    async def _device_proof(self, name: str, since: str, account: Account) -> str:
        """Bind a name to an account and to all that it is signed in to with."""
        totp = await self._sessions.store.get(Totp, account.key)
        parts = (
            name,
            since,
            account.key,
            account.password_hash or "",
            f"{totp.added}" if totp is not None else "",
        )
        return base64url(self._keys.derive("device", *(part.encode() for part in parts)))

    def _set(
        self, response: Response, name: str, value: str, *, max_age: int | None = None
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )


def _origin_of(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


async def posted(request: Request) -> Pairs:
    """The pairs of a form that was posted. Raises `fhir_portal.smart.errors.InvalidRequest`."""
    return parse_form(await read_body(request.receive), request.headers.get("content-type", ""))


def address_of(request: Request) -> str:
    """The address a request came from."""
    return request.client.host if request.client else ""
