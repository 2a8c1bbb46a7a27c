"""Pages that are an app of this server: their client, and what somebody has open in them.

The portal's and the staff's pages have each a client here. Who opens something in them (a record, a
practice) is given an access token for exactly that, which the server keeps for that browser
session. Nobody knows its value: it is found by its key, and is held against client, account,
relation and session at each use like any bearer token
(`fhir_portal.access.authenticate.Callers.held`).

It is over with the sign-in it was made for, when what it rests on ends, and after a time without a
request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec

from fhir_portal.accounts.sessions import Visitor, browser_key, still_signed_in
from fhir_portal.consent.record import RecordDirectory
from fhir_portal.records import RecordStore, RecordTransaction
from fhir_portal.smart.client import Client
from fhir_portal.smart.client_auth.secret import new_secret, secret_hash
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.page_session import PageSession, end_page_session
from fhir_portal.smart.token import AccessToken, base64url, token_hash

RENEW_SECONDS: Final = 60.0
"""A token is as old as this before use gives the session another."""
_TOKEN_BYTES: Final = 32


S = TypeVar("S", bound=PageSession)


class PageSessions(ABC, Generic[S]):
    """Finds and ends what people have open; each kind of pages opens its own.

    ``scope`` is what the pages need.
    """

    session: type[S]
    idle_seconds: ClassVar[float]

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

    async def find(self, visitor: Visitor) -> S | None:
        """Return what somebody has open in their browser, its time begun anew; or ``None``."""
        if visitor.account is None:
            return None
        found = await self._store.get(self.session, browser_key(visitor.browser))
        now = self._clock()
        if found is None or found.account != visitor.account.key or now >= found.expires:
            return None
        if now - found.renewed < RENEW_SECONDS:
            return found
        return await self._renewed(found, now)

    async def end(self, visitor: Visitor) -> None:
        """Close what is open in a browser, and end its token."""

        async def work(transaction: RecordTransaction) -> None:
            await self._close(transaction, visitor)

        await self._store.transact(work)

    @abstractmethod
    def token_of(self, session: S) -> AccessToken:
        """Return the access token that a session is used by, as it is stored."""

    async def _open(
        self, transaction: RecordTransaction, visitor: Visitor, now: float, **what: Any
    ) -> S:
        """Store a session instead of the one that was there, and its token.

        Raises:
            fhir_portal.accounts.sessions.SignedOutMeanwhile: the sign-in is over.
        """
        await still_signed_in(transaction, visitor, now)
        account = visitor.account
        assert account is not None  # noqa: S101 - somebody is signed in
        await self._close(transaction, visitor)
        session = self.session(
            key=browser_key(visitor.browser),
            expires=now + self.idle_seconds,
            account=account.key,
            token=self._token_key(),
            renewed=now,
            **what,
        )
        await transaction.insert(session)
        await transaction.insert(self.token_of(session))
        return session

    async def _close(self, transaction: RecordTransaction, visitor: Visitor) -> None:
        found = await transaction.get(self.session, browser_key(visitor.browser))
        if found is not None:
            await end_page_session(transaction, found)

    async def _renewed(self, session: S, now: float) -> S | None:
        """Give a session another token: what is under way goes on with the one it began with."""
        after = msgspec.structs.replace(
            session, expires=now + self.idle_seconds, token=self._token_key(), renewed=now
        )

        async def work(transaction: RecordTransaction) -> S | None:
            if not await transaction.replace(session, after):
                # Another request was first, or it was ended.
                return await transaction.get(self.session, session.key)
            await transaction.insert(self.token_of(after))
            return after

        return await self._store.transact(work)

    def _token_key(self) -> str:
        """The key of a token whose value is known here, and then nowhere."""
        return token_hash(base64url(self._random(_TOKEN_BYTES)))


def client_of_pages(
    key: str, name: str, issuer: Issuer, path: str, *, now: float, random: Callable[[int], bytes]
) -> Client:
    """Return a client for pages of this server, as it is before it was given its scopes.

    It is confidential with a secret that nobody knows, so that no code of its can be exchanged.
    """
    return Client(
        key=key,
        name=name,
        type="confidential",
        auth_method="client_secret_basic",
        scope="openid fhirUser",
        registered=now,
        secret_hash=secret_hash(new_secret(random)),
        redirect_uris=(issuer.at(path),),
    )
