"""The staff pages as an app of this server: their client, and what staff open in them.

The pages are an app of this server, the client `CLIENT`. Somebody who signed in chooses the
practice on whose staff they are; the server then makes an access token (``user/`` scopes) for that
practice (`fhir_portal.smart.own_pages`).

It is over with the sign-in it was made for, when its owner is taken off the staff or shut out, when
the practice's approval of the pages is withdrawn, and after `IDLE_SECONDS` without a request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import msgspec

from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.sessions import Visitor
from fhir_portal.consent.record import StaffAccess
from fhir_portal.records import DuplicateRecord, RecordStore, RecordTransaction
from fhir_portal.smart.client import INITIATE_LOGIN, Client
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.launch import Launch
from fhir_portal.smart.own_pages import PageSessions, client_of_pages
from fhir_portal.smart.page_session import StaffSession
from fhir_portal.smart.token import AccessToken, token_hash

CLIENT: Final = "portal-staff"
NAME: Final = "Staff pages"
STAFF: Final = "/staff"
LAUNCH_PATH: Final = "/staff/launch"
IDLE_SECONDS: Final = 15 * 60.0
_APPROVED_ONCE: Final = "staff_pages_at"
_ALL: Final = 1_000_000


class NotOnStaff(Exception):
    """The account is not on the staff of that practice, or its membership conveys nothing."""


class SwitchedOff(Exception):
    """An operator shut the staff pages out, or withdrew their approval at that practice."""


class LaunchRefused(Exception):
    """The launch is unknown, over, used, or meant for another app or another person."""


class StaffSessions(PageSessions[StaffSession]):
    """Opens, finds and ends what staff have open."""

    session = StaffSession
    idle_seconds = IDLE_SECONDS

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
        await approve(
            transaction,
            self._issuer,
            staff.practice,
            scope=self._scope,
            now=now,
            random=self._random,
        )
        return await self._open(
            transaction, visitor, now, practice=staff.practice, fhir_user=staff.fhir_user
        )

    def token_of(self, session: StaffSession) -> AccessToken:
        """Return the access token of a session: ``user/`` scopes at its practice."""
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

    Its scopes are those of this version of the pages. Raises `SwitchedOff`.
    """
    before = await transaction.get(Client, CLIENT)
    client = before or client_of_pages(CLIENT, NAME, issuer, STAFF, now=now, random=random)
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
    if before is None:
        await transaction.insert(after)
    elif after != before:
        await transaction.put(after)
    if not after.serves_staff_of(practice):
        raise SwitchedOff(practice)
    return after
