"""The patient portal as an app of this server: its client, and the record somebody has open in it.

The pages are an app of this server, the client `CLIENT`. Somebody who signed in chooses one record:
their own, or one that they look after; the server then makes an access token (``patient/`` scopes)
for exactly that record (`fhir_portal.smart.own_pages`). What the staff have is
`fhir_portal.smart.staff_pages`.

It is over with the sign-in it was made for, when the grant ends or becomes another one, and after
`IDLE_SECONDS` without a request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

from fhir_portal.accounts.sessions import Visitor
from fhir_portal.consent.record import RecordAccess
from fhir_portal.records import DuplicateRecord, Record, RecordStore, RecordTransaction
from fhir_portal.smart.client import Client
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.own_pages import PageSessions, client_of_pages
from fhir_portal.smart.page_session import PortalSession
from fhir_portal.smart.token import AccessToken

CLIENT: Final = "portal-patients"
NAME: Final = "Patient portal"
PORTAL: Final = "/portal"
IDLE_SECONDS: Final = 30 * 60.0
_KEPT_SECONDS: Final = 2 * 365 * 86_400.0


class NoSuchRecord(Exception):
    """The account may not use that record now."""


class PortalOff(Exception):
    """An operator shut the portal's pages out."""


class PortalVisit(Record, frozen=True, kw_only=True):
    """When an account had a record open in the portal last, and the time before that.

    ``key`` is ``<account>/<practice>/<patient>``: what is new is new for each of them.
    """

    kind: ClassVar[str] = "portal-visit"

    at: float
    before: float


class PortalSessions(PageSessions[PortalSession]):
    """Opens, finds and ends what people have open."""

    session = PortalSession
    idle_seconds = IDLE_SECONDS

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
        holder = account.key

        async def work(transaction: RecordTransaction) -> PortalSession:
            now = self._clock()
            await approve(
                transaction, self._issuer, scope=self._scope, now=now, random=self._random
            )
            return await self._open(
                transaction,
                visitor,
                now,
                practice=way.practice,
                patient=way.patient,
                fhir_user=way.fhir_user,
                grant=way.grant,
                since=await _visit(transaction, f"{holder}/{practice}/{patient}", now),
            )

        return await self._store.transact(work)

    def token_of(self, session: PortalSession) -> AccessToken:
        """Return the access token of a session: ``patient/`` scopes on its record."""
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

    One that an operator disabled stays disabled. Raises `PortalOff`.
    """
    before = await transaction.get(Client, CLIENT)
    client = before or client_of_pages(CLIENT, NAME, issuer, PORTAL, now=now, random=random)
    after = msgspec.structs.replace(
        client, scope=f"openid fhirUser {scope}", redirect_uris=(issuer.at(PORTAL),)
    )
    if before is None:
        await transaction.insert(after)
    elif after != before:
        await transaction.put(after)
    if not after.is_open:
        raise PortalOff
