"""Opening a link: the passcode, who it is, and files that may then be fetched for a while.

A try is counted before it is looked at, for the network it comes from and for all of them, and
taken back where it was right: of tries that come at the same moment no more are looked at than are
left. Who has used up what is theirs waits; the link goes on for everybody else, until so many were
wrong as it takes in all its life.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.context import AuthContext
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.throttle import Attempt, Throttle, network_of
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.operations.shared_files import Perform
from fhir_portal.records import RecordStore
from fhir_portal.smart.sharing import (
    KEPT,
    MOST_NAMED,
    TICKET_SECONDS,
    TRIES,
    TRIES_ANYWHERE,
    TRIES_IN_ALL,
    ShareLink,
    ShareSecrets,
    ShareTicket,
    ShareView,
    end_share,
    stored_under,
    typed_passcode,
    view_key,
)
from fhir_portal.smart.token import base64url, token_hash

LONGEST_RECIPIENT: Final = 100
_ALL_LINKS: Final = "100 per hour"
"""Wrong passcodes that one network may try on all links together."""
_TICKET_BYTES: Final = 32


class NotShared(Exception):
    """There is no link here that shows anything: unknown, over, or its maker's right is."""


class WrongPasscode(Exception):
    """It was wrong, or missing; ``remaining`` are the tries that this network has left for now."""

    def __init__(self, remaining: int) -> None:
        super().__init__(f"{remaining} tries left")
        self.remaining = remaining


class NoName(Exception):
    """Whoever opens a link says who they are: plain text of 1 to 100 signs."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A link whose passcode was right, and how to read what it shows, as its maker (``auth``)."""

    link: ShareLink
    recipient: str
    auth: AuthContext
    perform: Perform


class FrontDoor(Protocol):
    """The part of `fhir_portal.portal.Portal` that is used here."""

    @property
    def callers(self) -> Callers: ...

    async def perform(self, request: FhirRequest, auth: AuthContext) -> FhirResponse:
        """Carry out an interaction. Raises `fhir_portal.fhir.errors.FhirError`."""
        ...


class Shares:
    """The links of a store, for whoever comes with one."""

    def __init__(
        self,
        store: RecordStore,
        portal: FrontDoor,
        passwords: Passwords,
        derive: Callable[..., bytes],
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._portal = portal
        self._passwords = passwords
        self._secrets = ShareSecrets(derive)
        self._clock = clock
        self._random = random
        self._throttle = Throttle(
            store,
            clock,
            per_account=f"{TRIES} per hour",
            per_account_anywhere=f"{TRIES_ANYWHERE} per hour",
            per_address=_ALL_LINKS,
        )

    def file_key(self, link: ShareLink) -> bytes:
        """The key that the link's files are encrypted with."""
        return self._secrets.file_key(link.id)

    async def open(
        self, handle: str, passcode: str, *, recipient: str, way: str, address: str
    ) -> Opened:
        """Open a link by what its address ends in; ``address`` is the network address of who asks.

        Raises:
            NoName: before anything is looked at.
            NotShared, WrongPasscode: a missing passcode is no try.
            fhir_portal.accounts.throttle.TooManyAttempts: this one was not looked at.
            fhir_portal.fhir.errors.Unavailable: too many are looked at; that was no try either.
        """
        name = " ".join(recipient.split())
        if not 1 <= len(name) <= LONGEST_RECIPIENT or not name.isprintable():
            raise NoName
        key = stored_under(handle)
        link = await self._store.get(ShareLink, key) if key is not None else None
        if link is None or link.is_for_delivery or link.state(self._clock()) != "active":
            raise NotShared
        auth = await self._right(link, name)
        # Counted apart from what the same network tries to sign in with.
        attempt = await self._throttle.attempt(
            f"share {link.key}", address=f"shares {network_of(address)}", device=None
        )
        typed = typed_passcode(passcode)
        if not typed:
            await self._throttle.succeeded(attempt)
            raise WrongPasscode(await self._throttle.left(attempt))
        if not await self._matches(link, typed, attempt):
            await self._failed(link.key)
            raise WrongPasscode(await self._throttle.left(attempt))
        await self._throttle.succeeded(attempt)
        viewed = await self._viewed(link.key, auth, name, way)
        return Opened(viewed, name, auth, self._as_maker(auth))

    async def delivering(self, key: str, recipient: str) -> Opened:
        """Open a link for what the server itself sends, by its key. Raises `NotShared`."""
        link = await self._store.get(ShareLink, key)
        if link is None or link.state(self._clock()) != "active":
            raise NotShared
        auth = await self._right(link, recipient)
        return Opened(link, recipient, auth, self._as_maker(auth))

    async def ticket(self, opened: Opened, file: str, *, sealed: bool) -> str:
        """Return what the address of a file of an opened link ends in."""
        ticket = base64url(self._random(_TICKET_BYTES))
        record = ShareTicket(
            key=token_hash(ticket),
            expires=min(self._clock() + TICKET_SECONDS, opened.link.until),
            link=opened.link.key,
            file=file,
            recipient=opened.recipient,
            sealed=sealed,
        )
        await self._store.transact(lambda transaction: transaction.insert(record))
        return ticket

    async def redeem(self, ticket: str) -> tuple[Opened, ShareTicket]:
        """Return what a ticket is for; one for an encrypted file is used up. Raises `NotShared`."""
        key = stored_under(ticket)
        if key is None:
            raise NotShared

        async def use(transaction: Any) -> tuple[ShareTicket, ShareLink]:
            found = await transaction.get(ShareTicket, key)
            if found is None or self._clock() >= found.expires:
                raise NotShared
            if found.sealed:
                await transaction.delete(ShareTicket, key)
            link = await transaction.get(ShareLink, found.link)
            if link is None or link.state(self._clock()) != "active":
                raise NotShared
            return found, link

        found, link = await self._store.transact(use)
        auth = await self._right(link, found.recipient)
        return Opened(link, found.recipient, auth, self._as_maker(auth)), found

    async def _right(self, link: ShareLink, recipient: str) -> AuthContext:
        """What the maker of a link may show now. Raises `NotShared`."""
        try:
            return await self._portal.callers.shared(link.token, recipient)
        except Unauthenticated:
            raise NotShared from None

    def _as_maker(self, auth: AuthContext) -> Callable[[FhirRequest], Awaitable[FhirResponse]]:
        return functools.partial(_performed, self._portal, auth)

    async def _matches(self, link: ShareLink, typed: str, attempt: Attempt) -> bool:
        """Look at a passcode; what could not be looked at was no try."""
        try:
            return await self._passwords.verify(link.passcode_hash, typed)
        except BaseException:
            await self._throttle.succeeded(attempt)
            raise

    async def _failed(self, key: str) -> None:
        """Note a wrong passcode: whoever made the link is told how many there were.

        The last of all that a link takes ends it.
        """

        async def note(transaction: Any) -> None:
            link = await transaction.get(ShareLink, key)
            if link is None:
                return
            after = msgspec.structs.replace(link, failed=link.failed + 1)
            await transaction.put(after)
            if after.failed >= TRIES_IN_ALL:
                await end_share(transaction, after, now=self._clock(), because="guessed")

        await self._store.transact(note)

    async def _viewed(self, key: str, auth: AuthContext, name: str, way: str) -> ShareLink:
        """Note that the passcode was right; the right must still stand."""

        async def note(transaction: Any) -> ShareLink:
            link: ShareLink | None = await transaction.get(ShareLink, key)
            if link is None:
                raise NotShared
            now = self._clock()
            if link.state(now) != "active":
                raise NotShared
            await self._portal.callers.still(transaction, auth)
            listed = link.listed + await _count(transaction, link, name, way, now)
            after = msgspec.structs.replace(link, views=link.views + 1, last=now, listed=listed)
            await transaction.put(after)
            return after

        try:
            return await self._store.transact(note)
        except Unauthenticated:
            raise NotShared from None


async def _count(transaction: Any, link: ShareLink, name: str, way: str, now: float) -> int:
    """Count a use where its day, way and name are; return how many lines that adds: 1 or 0.

    Whoever has the passcode calls themselves as they like: the lines of a link have an end.
    """
    found = await transaction.get(ShareView, view_key(link, now, name, way))
    if found is None and link.listed >= MOST_NAMED:
        name = ""
        found = await transaction.get(ShareView, view_key(link, now, name, way))
    if found is not None:
        await transaction.put(msgspec.structs.replace(found, at=now, times=found.times + 1))
        return 0
    view = ShareView(
        key=view_key(link, now, name, way),
        expires=link.until + KEPT,
        link=link.key,
        at=now,
        recipient=name,
        way=way,
    )
    await transaction.insert(view)
    return 1


async def _performed(portal: FrontDoor, auth: AuthContext, request: FhirRequest) -> FhirResponse:
    """Carry out a request of an opened link: rights may have ended since the one before."""
    await portal.callers.confirm(auth)
    return await portal.perform(request, auth)
