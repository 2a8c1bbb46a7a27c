"""Browser sessions: an opaque cookie, hashed at rest, with an idle and an absolute limit.

A browser has a session before anybody signs in, so that forms and authorization requests can be
bound to it. Each rise in what a browser may do gives it a new cookie and kills the old one: the
right password, the second factor, a confirmation (OWASP ASVS 5.0, 7.2.4).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec

from fhir_portal.accounts import terms
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.proof import PASSWORD, SECOND, Factor, Proof, Write
from fhir_portal.records import Record, RecordReader, RecordStore, RecordTransaction

Duty = Literal["renewal", "terms"]
"""What a person may have to do before anything else: renew a credential, accept terms of use."""

MOST = 50
"""Sessions of one account; a further one ends the one that was not used for longest."""
_TOKEN_BYTES = 32
_TOUCH_SECONDS = 60.0
_ALL = 1_000_000


class SignedOutMeanwhile(Exception):
    """What a sign-in began with is over.

    The account was disabled or got another password, or the session was ended or used elsewhere.
    """


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Seconds a session lives: unused, in all, before anybody signed in.

    ``pending`` is for a password that was given, until the second factor is.
    """

    idle: float = 30 * 60
    absolute: float = 12 * 60 * 60
    anonymous: float = 60 * 60
    pending: float = 10 * 60


class Session(Record, frozen=True, kw_only=True):
    """One browser's session; ``key`` is the hash of its cookie.

    ``browser`` stays the same when signing in changes the cookie; it is no secret and of no use
    without the cookie. ``account`` is ``None`` until somebody signed in, at ``auth_time``, by
    ``factors``; ``second_factor_at`` is when a second factor was last proved (0: never).
    ``pending`` is an account whose password was given here and whose second factor is awaited.
    ``device`` are the words for browser and system. With ``owes_terms`` there were terms of use to
    be accepted when somebody signed in.
    """

    kind: ClassVar[str] = "session"
    indexed: ClassVar[tuple[str, ...]] = ("account", "pending")

    expires: float
    browser: str
    created: float
    seen: float
    account: str | None = None
    auth_time: float = 0.0
    factors: tuple[Factor, ...] = ()
    second_factor_at: float = 0.0
    pending: str | None = None
    device: str = ""
    owes_terms: bool = False


class LatestSignIn(Record, frozen=True, kw_only=True):
    """When somebody last signed in to an account; ``key`` is the account's.

    Sessions are forgotten when they end; this stays.
    """

    kind: ClassVar[str] = "latest-sign-in"

    at: float


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is at a browser: the session, and the account if somebody is signed in.

    ``held`` is an account whose owner signed in here and has something to do before anything else:
    its `duty`. For everything but that nobody is signed in.
    """

    session: Session
    account: Account | None
    held: Account | None = None

    @property
    def duty(self) -> Duty | None:
        """What has to be done first, one after the other."""
        if self.held is None:
            return None
        return "renewal" if self.held.renewal is not None else "terms"

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
        self.store = store
        self.clock = clock
        self.random = random
        self._limits = limits or SessionLimits()

    async def find(self, cookie: str) -> Visitor | None:
        """Return who is at the browser with this cookie; ``None`` for no live session."""
        session = await self.store.get(Session, _hash(cookie))
        now = self.clock()
        if session is None or now >= session.expires:
            return None
        account = None
        if session.account is not None:
            account = await self.store.get(Account, session.account)
            if account is None or account.disabled:
                return None
            session = await self._touched(session, now)
            if account.renewal is not None or session.owes_terms:
                # Whoever looks at the session alone finds nobody in it, either.
                nobodys = msgspec.structs.replace(
                    session, account=None, auth_time=0.0, factors=(), second_factor_at=0.0
                )
                return Visitor(nobodys, None, held=account)
        return Visitor(session, account)

    def drafted(self, cookie: str | None = None) -> Opened:
        """Make a session for a browser where nobody is signed in, not stored: see `keep`.

        With a ``cookie`` the browser shows already, it is the session of that.
        """
        now = self.clock()
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

        await self.store.transact(insert)

    async def open(self) -> Opened:
        """Open a session for a browser where nobody is signed in."""
        opened = self.drafted()
        await self.keep(opened)
        return opened

    async def sign_in(
        self,
        before: Session,
        account: Account,
        *,
        proofs: Sequence[Proof] = (PASSWORD,),
        device: str = "",
        also: Sequence[Write] = (),
        is_awaited: bool = False,
        is_held: bool = False,
        changed: Account | None = None,
    ) -> Opened:
        """Give the browser of ``before`` a signed-in session under a new cookie.

        The proofs are used up in the same transaction; ``also`` is written in it. With
        ``is_awaited``, ``before`` waits for this account's second factor, and is used up; with
        ``is_held``, this account's owner is signed in to ``before`` and had a `Duty`.
        ``changed`` is the account as it is from now on, with another password: all its sessions
        and remembered browsers end. Raises `SignedOutMeanwhile` when the account is not what its
        password was checked against, and `fhir_portal.accounts.proof.Spent`.
        """
        now = self.clock()
        opened = self._rotated(
            before,
            changed or account,
            created=now,
            expires=now + min(self._limits.idle, self._limits.absolute),
            auth_time=now,
            factors=tuple(proof.factor for proof in proofs),
            second_factor_at=now if _has_second(proofs) else 0.0,
            device=device,
        )

        async def rotate(transaction: RecordTransaction) -> Opened:
            await _unchanged(transaction, account)
            there = await transaction.get(Session, before.key)
            alive = there if there is not None and now < there.expires else None
            if is_awaited and (alive is None or alive.pending != account.key):
                raise SignedOutMeanwhile
            if is_held and (alive is None or alive.account != account.key):
                raise SignedOutMeanwhile
            await transaction.delete(Session, before.key)
            await _write(transaction, proofs, also)
            if changed is not None:
                if not await transaction.replace(account, changed):
                    raise SignedOutMeanwhile
                await end_sessions(transaction, account.key)
                await forget_devices(transaction, account.key)
            await _make_room(transaction, account)
            session = msgspec.structs.replace(
                opened.visitor.session, owes_terms=bool(await terms.due(transaction, account))
            )
            await transaction.insert(session)
            await transaction.put(LatestSignIn(key=account.key, at=now))
            return Opened(opened.cookie, Visitor(session, opened.visitor.account))

        return await self.store.transact(rotate)

    async def accept_terms(self, visitor: Visitor, shown: Sequence[str]) -> Opened:
        """Accept the terms of use that were shown; the session goes on under a new cookie.

        ``shown`` are the keys of their versions. Raises
        `fhir_portal.accounts.terms.TermsChanged` and `SignedOutMeanwhile`.
        """
        now, before, account = self.clock(), visitor.session, visitor.held
        if account is None:
            raise SignedOutMeanwhile
        cookie = self._token()

        async def accept(transaction: RecordTransaction) -> Session:
            there = await transaction.get(Session, before.key)
            if there is None or now >= there.expires or there.account != account.key:
                raise SignedOutMeanwhile
            await _unchanged(transaction, account)
            await terms.accept(transaction, account, shown, now=now)
            await transaction.delete(Session, before.key)
            session = msgspec.structs.replace(there, key=_hash(cookie), owes_terms=False)
            await transaction.insert(session)
            return session

        return Opened(cookie, Visitor(await self.store.transact(accept), account))

    async def await_second_factor(
        self, before: Session, account: Account, *, device: str = ""
    ) -> Opened:
        """Keep that the password was right here; nobody is signed in by that.

        Raises `SignedOutMeanwhile` when the account is not what its password was checked against.
        """
        now = self.clock()
        opened = self._rotated(
            before,
            None,
            created=now,
            expires=now + self._limits.pending,
            pending=account.key,
            device=device,
        )

        async def rotate(transaction: RecordTransaction) -> None:
            await _unchanged(transaction, account)
            await transaction.delete(Session, before.key)
            await transaction.insert(opened.visitor.session)

        await self.store.transact(rotate)
        return opened

    def confirmed(
        self, visitor: Visitor, proofs: Sequence[Proof], also: Sequence[Write] = ()
    ) -> tuple[Opened, Write]:
        """Draft the session that follows when a person who is signed in proves who they are again.

        It has a new cookie and its own time; the absolute limit stays where it was. The write
        uses the proofs up and puts the session in the old one's place; it raises
        `SignedOutMeanwhile` and `fhir_portal.accounts.proof.Spent`.
        """
        now, before, account = self.clock(), visitor.session, visitor.account
        if account is None:
            raise SignedOutMeanwhile
        opened = self._rotated(
            before,
            account,
            created=before.created,
            expires=min(now + self._limits.idle, before.created + self._limits.absolute),
            auth_time=now,
            factors=tuple(dict.fromkeys((*before.factors, *(proof.factor for proof in proofs)))),
            second_factor_at=now if _has_second(proofs) else before.second_factor_at,
            device=before.device,
        )

        async def rotate(transaction: RecordTransaction) -> None:
            await still_signed_in(transaction, visitor, now)
            await transaction.delete(Session, before.key)
            await _write(transaction, proofs, also)
            await transaction.insert(opened.visitor.session)

        return opened, rotate

    async def of(self, account: str) -> list[Session]:
        """Return the live sessions in which this account is signed in, the last used first."""
        now = self.clock()
        found = await self.store.find(Session, "account", account)
        alive = [session for session in found if now < session.expires]
        return sorted(alive, key=lambda session: session.seen, reverse=True)

    async def end(self, account: str, key: str) -> bool:
        """End one session if it is this account's; true if it was."""

        async def end(transaction: RecordTransaction) -> bool:
            session = await transaction.get(Session, key)
            if session is None or session.account != account:
                return False
            return await transaction.delete(Session, key)

        return await self.store.transact(end)

    async def end_others(self, session: Session) -> int:
        """End every other session of this one's account; returns how many there were."""
        account = session.account

        async def end(transaction: RecordTransaction) -> int:
            return await end_sessions(transaction, account, but=session.key) if account else 0

        return await self.store.transact(end)

    async def sign_out(self, session: Session) -> None:
        """End one session."""

        async def end(transaction: RecordTransaction) -> None:
            await transaction.delete(Session, session.key)

        await self.store.transact(end)

    async def _touched(self, session: Session, now: float) -> Session:
        """Move the idle limit; once a minute is often enough."""
        if now - session.seen < _TOUCH_SECONDS:
            return session
        expires = min(now + self._limits.idle, session.created + self._limits.absolute)
        touched = msgspec.structs.replace(session, seen=now, expires=expires)

        async def keep(transaction: RecordTransaction) -> None:
            await transaction.replace(session, touched)

        await self.store.transact(keep)
        return touched

    def _rotated(
        self,
        before: Session,
        account: Account | None,
        **fields: Any,
    ) -> Opened:
        """Draft the session that takes the place of another, for the same browser."""
        cookie = self._token()
        session = Session(
            key=_hash(cookie),
            browser=before.browser,
            seen=self.clock(),
            account=account.key if account else None,
            **fields,
        )
        return Opened(cookie, Visitor(session, account))

    def _token(self) -> str:
        return base64.urlsafe_b64encode(self.random(_TOKEN_BYTES)).rstrip(b"=").decode()


async def end_sessions(
    transaction: RecordTransaction, account: str, *, but: str | None = None
) -> int:
    """End every session of an account inside a transaction; returns how many there were.

    Those that wait for a second factor end too. ``but`` is the key of one that stays.
    """
    ended = 0
    for field in ("account", "pending"):
        for session in await transaction.find(Session, field, account, limit=_ALL):
            if session.key != but:
                ended += await transaction.delete(Session, session.key)
    return ended


async def still_signed_in(reader: RecordReader, visitor: Visitor, now: float) -> None:
    """Raise `SignedOutMeanwhile` unless a person is still signed in, with the same password.

    For the transaction of what they do: a request can begin long before its body comes.
    """
    session, account = visitor.session, visitor.account
    if account is None:
        raise SignedOutMeanwhile
    there = await reader.get(Session, session.key)
    if there is None or now >= there.expires or there.account != account.key:
        raise SignedOutMeanwhile
    await _unchanged(reader, account)


def browser_key(browser: str) -> str:
    """Return by what something is kept for a browser's session, as long as somebody is in it."""
    return _hash(f"browser:{browser}")


async def is_signed_in(reader: RecordReader, account: str, key: str, now: float) -> bool:
    """Whether an account is signed in at the browser with a `browser_key`."""
    found = await reader.find(Session, "account", account, limit=_ALL)
    return any(now < one.expires and browser_key(one.browser) == key for one in found)


async def _make_room(transaction: RecordTransaction, account: Account) -> None:
    """End the sessions that are too many when one more begins."""
    there = await transaction.find(Session, "account", account.key, limit=_ALL)
    there.sort(key=lambda session: session.seen, reverse=True)
    for session in there[MOST - 1 :]:
        await transaction.delete(Session, session.key)


async def _unchanged(reader: RecordReader, account: Account) -> None:
    stored = await reader.get(Account, account.key)
    if stored is None or stored.disabled or stored.password_hash != account.password_hash:
        raise SignedOutMeanwhile


async def _write(
    transaction: RecordTransaction, proofs: Sequence[Proof], also: Sequence[Write]
) -> None:
    for proof in proofs:
        if proof.spend is not None:
            await proof.spend(transaction)
    for write in also:
        await write(transaction)


def _has_second(proofs: Sequence[Proof]) -> bool:
    return any(proof.factor in SECOND for proof in proofs)


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
