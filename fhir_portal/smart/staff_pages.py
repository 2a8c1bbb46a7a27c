"""The staff pages as an app of this server: their client, and what staff open in them.

The pages are an app of this server, the client `CLIENT`. Somebody who signed in chooses the
practice on whose staff they are; the server then makes an access token (``user/`` scopes) and keeps
it for that browser session. Nobody knows its value: it is found by its key, and is held against
client, account, membership and session at each use like any bearer token
(`fhir_portal.access.authenticate.Callers.held`).

It is over with the sign-in it was made for, when its owner is taken off the staff or shut out, when
the practice's approval of the pages is withdrawn, and after `IDLE_SECONDS` without a request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import msgspec

from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.sessions import Visitor, browser_key, still_signed_in
from fhir_portal.consent.record import RecordDirectory, StaffAccess
from fhir_portal.records import DuplicateRecord, RecordStore, RecordTransaction
from fhir_portal.smart.client import INITIATE_LOGIN, Client
from fhir_portal.smart.client_auth.secret import new_secret, secret_hash
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.launch import Launch
from fhir_portal.smart.staff_session import StaffSession, end_staff_session
from fhir_portal.smart.token import AccessToken, base64url, token_hash

CLIENT: Final = "portal-staff"
NAME: Final = "Staff pages"
STAFF: Final = "/staff"
LAUNCH_PATH: Final = "/staff/launch"
IDLE_SECONDS: Final = 15 * 60.0
RENEW_SECONDS: Final = 60.0
"""A token is as old as this before use gives the session another."""
_TOKEN_BYTES: Final = 32
_APPROVED_ONCE: Final = "staff_pages_at"
_ALL: Final = 1_000_000


class NotOnStaff(Exception):
    """The account is not on the staff of that practice, or its membership conveys nothing."""


class SwitchedOff(Exception):
    """An operator shut the staff pages out, or withdrew their approval at that practice."""


class LaunchRefused(Exception):
    """The launch is unknown, over, used, or meant for another app or another person."""


class StaffSessions:
    """Opens, finds and ends what staff have open. ``scope`` is what the pages need."""

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

    async def find(self, visitor: Visitor) -> StaffSession | None:
        """Return what somebody has open in their browser, its time begun anew; or ``None``."""
        if visitor.account is None:
            return None
        found = await self._store.get(StaffSession, browser_key(visitor.browser))
        now = self._clock()
        if found is None or found.account != visitor.account.key or now >= found.expires:
            return None
        return await self._renewed(found, now)

    async def open(self, visitor: Visitor, practice: str) -> StaffSession:
        """Open a practice, instead of what was open.

        Raises:
            NotOnStaff, SwitchedOff: it may not be opened.
            fhir_portal.accounts.sessions.SignedOutMeanwhile: the sign-in is over.
        """
        staff = await self._member(visitor, practice)

        async def work(transaction: RecordTransaction) -> StaffSession:
            return await self._opened(transaction, visitor, staff)

        return await self._store.transact(work)

    async def launched(self, visitor: Visitor, handle: str) -> tuple[StaffSession, str]:
        """Open the practice of an EHR launch and use the launch up; the patient comes with it.

        Returns the session and the id of the Patient. Raises `LaunchRefused`, and as `open` does;
        the launch is not used up then.
        """
        launch = await self._store.get(Launch, token_hash(handle))
        if launch is None or self._clock() >= launch.expires:
            raise LaunchRefused
        staff = await self._member(visitor, launch.practice)
        if launch.client_id not in (None, CLIENT):
            raise LaunchRefused
        if launch.fhir_user not in (None, staff.fhir_user):
            raise LaunchRefused

        async def work(transaction: RecordTransaction) -> StaffSession:
            session = await self._opened(transaction, visitor, staff)
            if not await transaction.delete(Launch, launch.key):
                raise LaunchRefused
            return session

        return await self._store.transact(work), launch.patient.partition("/")[2]

    async def end(self, visitor: Visitor) -> None:
        """Close what is open in a browser, and end its token."""

        async def work(transaction: RecordTransaction) -> None:
            found = await transaction.get(StaffSession, browser_key(visitor.browser))
            if found is not None:
                await end_staff_session(transaction, found)

        await self._store.transact(work)

    async def _member(self, visitor: Visitor, practice: str) -> StaffAccess:
        account = visitor.account
        staff = await self._directory.staff_at(account, practice) if account is not None else None
        if staff is None:
            raise NotOnStaff
        return staff

    async def _opened(
        self, transaction: RecordTransaction, visitor: Visitor, staff: StaffAccess
    ) -> StaffSession:
        now = self._clock()
        await still_signed_in(transaction, visitor, now)
        await approve(
            transaction,
            self._issuer,
            staff.practice,
            scope=self._scope,
            now=now,
            random=self._random,
        )
        before = await transaction.get(StaffSession, browser_key(visitor.browser))
        if before is not None:
            await end_staff_session(transaction, before)
        account = visitor.account
        assert account is not None  # noqa: S101 - somebody is signed in
        session = StaffSession(
            key=browser_key(visitor.browser),
            expires=now + IDLE_SECONDS,
            account=account.key,
            practice=staff.practice,
            fhir_user=staff.fhir_user,
            token=self._token_key(),
            renewed=now,
        )
        await transaction.insert(session)
        await transaction.insert(self._token(session))
        return session

    async def _renewed(self, session: StaffSession, now: float) -> StaffSession | None:
        """Give a session another token: what is under way goes on with the one it began with."""
        if now - session.renewed < RENEW_SECONDS:
            return session
        after = msgspec.structs.replace(
            session, expires=now + IDLE_SECONDS, token=self._token_key(), renewed=now
        )

        async def work(transaction: RecordTransaction) -> StaffSession | None:
            if not await transaction.replace(session, after):
                # Another request was first, or it was ended.
                return await transaction.get(StaffSession, session.key)
            await transaction.insert(self._token(after))
            return after

        return await self._store.transact(work)

    def _token(self, session: StaffSession) -> AccessToken:
        return AccessToken(
            key=session.token,
            expires=session.expires,
            issued=session.renewed,
            client_id=CLIENT,
            context="user",
            scope=self._scope,
            practice=session.practice,
            fhir_user=session.fhir_user,
            account=session.account,
            browser=session.key,
        )

    def _token_key(self) -> str:
        """The key of a token whose value is known here, and then nowhere."""
        return token_hash(base64url(self._random(_TOKEN_BYTES)))


async def register_staff_pages(
    store: RecordStore,
    issuer: Issuer,
    *,
    scope: str,
    now: float,
    random: Callable[[int], bytes],
) -> None:
    """Have the client of the pages at the practices there are: an EHR can launch it from then on.

    For the start of a server; practices made later are approved when their staff come first.
    """

    async def work(transaction: RecordTransaction) -> None:
        for practice in await transaction.every(Practice, limit=_ALL):
            with contextlib.suppress(SwitchedOff):
                await approve(
                    transaction, issuer, practice.key, scope=scope, now=now, random=random
                )

    with contextlib.suppress(DuplicateRecord):  # another worker did
        await store.transact(work)


async def approve(
    transaction: RecordTransaction,
    issuer: Issuer,
    practice: str,
    *,
    scope: str,
    now: float,
    random: Callable[[int], bytes],
) -> Client:
    """Have the client of the pages serve a practice, inside a transaction.

    A practice approves them by being there, once: where an operator withdrew that
    (``fhir-portal client withdraw``) it stays withdrawn, and a disabled client stays disabled.

    The client is confidential with a secret that nobody knows, so that no code of its can be
    exchanged. Its scopes are those of this version of the pages. Raises `SwitchedOff`.
    """
    client = await transaction.get(Client, CLIENT)
    if client is None:
        client = Client(
            key=CLIENT,
            name=NAME,
            type="confidential",
            auth_method="client_secret_basic",
            scope=f"launch openid fhirUser {scope}",
            registered=now,
            secret_hash=secret_hash(new_secret(random)),
            redirect_uris=(issuer.at(STAFF),),
            approved_at=(practice,),
            metadata={INITIATE_LOGIN: issuer.at(LAUNCH_PATH), _APPROVED_ONCE: [practice]},
        )
        await transaction.insert(client)
        return client
    once = client.metadata.get(_APPROVED_ONCE, [])
    after = msgspec.structs.replace(
        client,
        scope=f"launch openid fhirUser {scope}",
        redirect_uris=(issuer.at(STAFF),),
        metadata={**client.metadata, INITIATE_LOGIN: issuer.at(LAUNCH_PATH)},
    )
    if practice not in once:
        after = msgspec.structs.replace(
            after,
            approved_at=tuple(sorted({*client.approved_at, practice})),
            awaits_review=False,
            metadata={**after.metadata, _APPROVED_ONCE: sorted([*once, practice])},
        )
    if after != client:
        await transaction.put(after)
    if not after.serves_staff_of(practice):
        raise SwitchedOff(practice)
    return after
