"""What somebody has open in the pages of this server, by an access token that no browser has.

`fhir_portal.smart.own_pages` opens it.
"""

from __future__ import annotations

from typing import ClassVar, Final

from fhir_portal.records import Record, RecordTransaction
from fhir_portal.smart.token import AccessToken

_ALL: Final = 1_000_000


class PageSession(Record, frozen=True, kw_only=True):
    """What is open in a browser session; ``key`` is `browser_key` of that.

    ``fhir_user`` is ``Type/<id>``; ``token`` is the key of the `AccessToken` it is used by. Times
    are seconds since 1970 UTC.
    """

    indexed: ClassVar[tuple[str, ...]] = ("account",)

    expires: float
    account: str
    practice: str
    fhir_user: str
    token: str
    renewed: float


class PortalSession(PageSession, frozen=True, kw_only=True):
    """The record that is open at the portal: ``patient`` is ``Patient/<id>``.

    ``since`` is when the account was there the time before, 0 if never.
    """

    kind: ClassVar[str] = "portal-session"

    patient: str
    grant: str | None
    since: float = 0.0


class StaffSession(PageSession, frozen=True, kw_only=True):
    """The practice that is open at the staff pages."""

    kind: ClassVar[str] = "staff-session"


async def end_page_session(transaction: RecordTransaction, session: PageSession) -> None:
    """End a session and the token it is used by, inside a transaction."""
    await transaction.delete(type(session), session.key)
    await transaction.delete(AccessToken, session.token)


async def end_page_sessions(
    transaction: RecordTransaction,
    kind: type[PageSession],
    account: str,
    *,
    practice: str | None = None,
) -> None:
    """End all that an account has open in pages, at one practice or at all."""
    for session in await transaction.find(kind, "account", account, limit=_ALL):
        if practice is None or session.practice == practice:
            await end_page_session(transaction, session)
