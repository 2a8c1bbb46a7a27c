"""Browser sessions: an opaque cookie, hashed at rest, with an idle and an absolute limit.

A browser has a session before anybody signs in, so that forms and authorization requests can be
bound to it. Signing in gives it a new cookie and kills the old one (OWASP ASVS 5.0, 7.2.4).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.records import Record, RecordStore, RecordTransaction

_TOKEN_BYTES = 32
_TOUCH_SECONDS = 60.0


class SignedOutMeanwhile(Exception):
    """The account was disabled, or got another password, while its password was looked at."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Seconds a session lives: unused, in all, and before anybody signed in."""

    idle: float = 30 * 60
    absolute: float = 12 * 60 * 60
    anonymous: float = 60 * 60


class Session(Record, frozen=True, kw_only=True):
    """One browser's session; ``key`` is the hash of its cookie.

    ``browser`` stays the same when signing in changes the cookie; it is no secret and of no use
    without the cookie. ``account`` is ``None`` until somebody signed in, at ``auth_time``.
    """

    kind: ClassVar[str] = "session"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    expires: float
    browser: str
    created: float
    seen: float
    account: str | None = None
    auth_time: float = 0.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is at a browser: the session, and the account if somebody is signed in."""

    session: Session
    account: Account | None

    @property
    def browser(self) -> str:
        """What an authorization request is bound to."""
        return self.session.browser

    @property
    def auth_time(self) -> float:
        """When the person proved who they are; 0 for nobody."""
        return self.session.auth_time


@dataclass(frozen=True, slots=True)
class Opened:
    """A session just opened, with the cookie's value: the only time the server has it."""

    cookie: str
    visitor: Visitor


class Sessions:
    """Opens, finds and ends sessions in a store."""

    def __init__(
        self,
        store: RecordStore,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        limits: SessionLimits | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._limits = limits or SessionLimits()

    async def find(self, cookie: str) -> Visitor | None:
        """Return who is at the browser with this cookie; ``None`` for no live session."""
        session = await self._store.get(Session, _hash(cookie))
        now = self._clock()
        if session is None or now >= session.expires:
            return None
        account = None
        if session.account is not None:
            account = await self._store.get(Account, session.account)
            if account is None or account.disabled:
                return None
            session = await self._touched(session, now)
        return Visitor(session, account)

    def drafted(self, cookie: str | None = None) -> Opened:
        """Make a session for a browser where nobody is signed in, not stored: see `keep`.

        With a ``cookie`` the browser shows already, it is the session of that.
        """
        now = self._clock()
        cookie = cookie or self._token()
        session = Session(
            key=_hash(cookie),
            expires=now + self._limits.anonymous,
            browser=self._token(),
            created=now,
            seen=now,
        )
        return Opened(cookie, Visitor(session, None))

    async def keep(self, opened: Opened) -> None:
        """Store a drafted session."""

        async def insert(transaction: RecordTransaction) -> None:
            await transaction.insert(opened.visitor.session)

        await self._store.transact(insert)

    async def open(self) -> Opened:
        """Open a session for a browser where nobody is signed in."""
        opened = self.drafted()
        await self.keep(opened)
        return opened

    async def sign_in(self, before: Session, account: Account) -> Opened:
        """Give the browser of ``before`` a signed-in session under a new cookie.

        Raises `SignedOutMeanwhile` when the account is not what its password was checked against.
        """
        now = self._clock()
        cookie = self._token()
        session = Session(
            key=_hash(cookie),
            expires=now + min(self._limits.idle, self._limits.absolute),
            browser=before.browser,
            created=now,
            seen=now,
            account=account.key,
            auth_time=now,
        )

        async def rotate(transaction: RecordTransaction) -> None:
            stored = await transaction.get(Account, account.key)
            if stored is None or stored.disabled or stored.password_hash != account.password_hash:
                raise SignedOutMeanwhile
            await transaction.delete(Session, before.key)
            await transaction.insert(session)

        await self._store.transact(rotate)
        return Opened(cookie, Visitor(session, account))

    async def sign_out(self, session: Session) -> None:
        """End one session."""

        async def end(transaction: RecordTransaction) -> None:
            await transaction.delete(Session, session.key)

        await self._store.transact(end)

    async def _touched(self, session: Session, now: float) -> Session:
        """Move the idle limit; once a minute is often enough."""
        if now - session.seen < _TOUCH_SECONDS:
            return session
        expires = min(now + self._limits.idle, session.created + self._limits.absolute)
        touched = msgspec.structs.replace(session, seen=now, expires=expires)

        async def keep(transaction: RecordTransaction) -> None:
            await transaction.replace(session, touched)

        await self._store.transact(keep)
        return touched

    def _token(self) -> str:
        return base64.urlsafe_b64encode(self._random(_TOKEN_BYTES)).rstrip(b"=").decode()


async def end_sessions(transaction: RecordTransaction, account: str) -> int:
    """End every session of an account inside a transaction; returns how many there were."""
    ended = 0
    while sessions := await transaction.find(Session, "account", account):
        for session in sessions:
            await transaction.delete(Session, session.key)
        ended += len(sessions)
    return ended


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
