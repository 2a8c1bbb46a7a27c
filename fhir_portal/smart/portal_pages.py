"""The patient portal as an app of this server: its client, and the record somebody has open in it.

The pages are an app of this server, the client `CLIENT`. Somebody who signed in chooses one record:
their own, or one that they look after; the server then makes an access token (``patient/`` scopes)
for exactly that record and keeps it for that browser session. Nobody knows its value: it is found
by its key, and is held against client, account, relation and session at each use like any bearer
token (`fhir_portal.access.authenticate.Callers.held`). What the staff have is
`fhir_portal.smart.staff_pages`.

It is over with the sign-in it was made for, when the grant ends or becomes another one, and after
`IDLE_SECONDS` without a request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

from fhir_portal.accounts.sessions import Visitor, browser_key, still_signed_in
from fhir_portal.consent.record import RecordAccess, RecordDirectory
from fhir_portal.records import DuplicateRecord, Record, RecordStore, RecordTransaction
from fhir_portal.smart.client import Client
from fhir_portal.smart.client_auth.secret import new_secret, secret_hash
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.token import AccessToken, base64url, token_hash

CLIENT: Final = "portal-patients"
NAME: Final = "Patient portal"
PORTAL: Final = "/portal"
IDLE_SECONDS: Final = 30 * 60.0
RENEW_SECONDS: Final = 60.0
"""A token is as old as this before use gives the session another."""
_TOKEN_BYTES: Final = 32
_KEPT_SECONDS: Final = 2 * 365 * 86_400.0


class NoSuchRecord(Exception):
    """The account may not use that record now."""


class PortalOff(Exception):
    """An operator shut the portal's pages out."""


class PortalSession(Record, frozen=True, kw_only=True):
    """The record that is open in a browser session; ``key`` is `browser_key` of that.

    ``patient`` and ``fhir_user`` are ``Type/<id>``; ``token`` is the key of the `AccessToken` it is
    used by. ``since`` is when the account was there the time before, 0 if never. Times are seconds
    since 1970 UTC.
    """

    kind: ClassVar[str] = "portal-session"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    expires: float
    account: str
    practice: str
    patient: str
    fhir_user: str
    grant: str | None
    token: str
    renewed: float
    since: float = 0.0


class PortalVisit(Record, frozen=True, kw_only=True):
    """When an account had a record open in the portal last, and the time before that.

    ``key`` is ``<account>/<practice>/<patient>``: what is new is new for each of them.
    """

    kind: ClassVar[str] = "portal-visit"

    at: float
    before: float


class PortalSessions:
    """Opens, finds and ends what people have open. ``scope`` is what the pages need."""

    def __init__(
        self,
        store: RecordStore,
        *,
        directory: RecordDirectory,
        issuer: Issuer,
        scope: str,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._directory = directory
        self._issuer = issuer
        self._scope = scope
        self._clock = clock
        self._random = random

    async def find(self, visitor: Visitor) -> PortalSession | None:
        """Return what somebody has open in their browser, its time begun anew; or ``None``."""
        if visitor.account is None:
            return None
        found = await self._store.get(PortalSession, browser_key(visitor.browser))
        now = self._clock()
        if found is None or found.account != visitor.account.key or now >= found.expires:
            return None
        if now - found.renewed < RENEW_SECONDS:
            return found
        return await self._renewed(found, now)

    async def open(self, visitor: Visitor, practice: str, patient: str) -> PortalSession:
        """Open a record, instead of what was open; ``patient`` is ``Patient/<id>``.

        Raises:
            NoSuchRecord, PortalOff: it may not be opened.
            fhir_portal.accounts.sessions.SignedOutMeanwhile: the sign-in is over.
        """
        account = visitor.account
        record = None
        if account is not None:
            record = await self._directory.record_of(account, practice, patient)
        if account is None or record is None:
            raise NoSuchRecord(practice)
        way: RecordAccess = record

        async def work(transaction: RecordTransaction) -> PortalSession:
            now = self._clock()
            await still_signed_in(transaction, visitor, now)
            await approve(
                transaction, self._issuer, scope=self._scope, now=now, random=self._random
            )
            before = await transaction.get(PortalSession, browser_key(visitor.browser))
            if before is not None:
                await end_portal_session(transaction, before)
            session = PortalSession(
                key=browser_key(visitor.browser),
                expires=now + IDLE_SECONDS,
                account=account.key,
                practice=way.practice,
                patient=way.patient,
                fhir_user=way.fhir_user,
                grant=way.grant,
                token=self._token_key(),
                renewed=now,
                since=await _visit(transaction, f"{account.key}/{practice}/{patient}", now),
            )
            await transaction.insert(session)
            await transaction.insert(self._token(session))
            return session

        return await self._store.transact(work)

    async def end(self, visitor: Visitor) -> None:
        """Close what is open in a browser, and end its token."""

        async def work(transaction: RecordTransaction) -> None:
            found = await transaction.get(PortalSession, browser_key(visitor.browser))
            if found is not None:
                await end_portal_session(transaction, found)

        await self._store.transact(work)

    async def _renewed(self, session: PortalSession, now: float) -> PortalSession | None:
        """Give a session another token: what is under way goes on with the one it began with."""
        after = msgspec.structs.replace(
            session, expires=now + IDLE_SECONDS, token=self._token_key(), renewed=now
        )

        async def work(transaction: RecordTransaction) -> PortalSession | None:
            if not await transaction.replace(session, after):
                # Another request was first, or it was ended.
                return await transaction.get(PortalSession, session.key)
            await transaction.insert(self._token(after))
            return after

        return await self._store.transact(work)

    def _token(self, session: PortalSession) -> AccessToken:
        return AccessToken(
            key=session.token,
            expires=session.expires,
            issued=session.renewed,
            client_id=CLIENT,
            context="patient",
            scope=self._scope,
            practice=session.practice,
            patient=session.patient,
            fhir_user=session.fhir_user,
            account=session.account,
            grant=session.grant,
            browser=session.key,
        )

    def _token_key(self) -> str:
        """The key of a token whose value is known here, and then nowhere."""
        return token_hash(base64url(self._random(_TOKEN_BYTES)))


async def _visit(transaction: RecordTransaction, key: str, now: float) -> float:
    """Note that a record is opened; return when it was the time before, 0 for none.

    Opened again within `IDLE_SECONDS` it is the same visit: what was new then stays so.
    """
    found = await transaction.get(PortalVisit, key)
    last, before = (0.0, 0.0) if found is None else (found.at, found.before)
    if found is None or now - last >= IDLE_SECONDS:
        before = last
    visit = PortalVisit(key=key, at=now, before=before, expires=now + _KEPT_SECONDS)
    await transaction.put(visit)
    return before


async def end_portal_session(transaction: RecordTransaction, session: PortalSession) -> None:
    """End a session and the token it is used by, inside a transaction."""
    await transaction.delete(PortalSession, session.key)
    await transaction.delete(AccessToken, session.token)


async def register_portal_pages(
    store: RecordStore, issuer: Issuer, *, scope: str, now: float, random: Callable[[int], bytes]
) -> None:
    """Have the client of the pages, for the start of a server."""

    async def work(transaction: RecordTransaction) -> None:
        with contextlib.suppress(PortalOff):
            await approve(transaction, issuer, scope=scope, now=now, random=random)

    with contextlib.suppress(DuplicateRecord):  # another worker did
        await store.transact(work)


async def approve(
    transaction: RecordTransaction,
    issuer: Issuer,
    *,
    scope: str,
    now: float,
    random: Callable[[int], bytes],
) -> None:
    """Have the client of the pages, with the scopes of this version of them.

    It is confidential with a secret that nobody knows, so that no code of its can be exchanged. One
    that an operator disabled stays disabled. Raises `PortalOff`.
    """
    client = await transaction.get(Client, CLIENT)
    wanted = f"openid fhirUser {scope}"
    if client is None:
        await transaction.insert(
            Client(
                key=CLIENT,
                name=NAME,
                type="confidential",
                auth_method="client_secret_basic",
                scope=wanted,
                registered=now,
                secret_hash=secret_hash(new_secret(random)),
                redirect_uris=(issuer.at(PORTAL),),
            )
        )
        return
    after = msgspec.structs.replace(client, scope=wanted, redirect_uris=(issuer.at(PORTAL),))
    if after != client:
        await transaction.put(after)
    if not after.is_open:
        raise PortalOff
