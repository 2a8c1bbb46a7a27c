"""What a member of staff has open in a browser: a practice, by an access token no browser has.

``staff_pages.py`` opens it.
"""

from __future__ import annotations

from typing import ClassVar, Final

from fhir_portal.records import Record, RecordTransaction
from fhir_portal.smart.token import AccessToken

_ALL: Final = 1_000_000


class StaffSession(Record, frozen=True, kw_only=True):
    """The practice that is open in a browser session; ``key`` is `browser_key` of that.

    ``token`` is the key of the `AccessToken` it is used by. Times are seconds since 1970 UTC.
    """

    kind: ClassVar[str] = "staff-session"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    expires: float
    account: str
    practice: str
    fhir_user: str
    token: str
    renewed: float


async def end_staff_session(transaction: RecordTransaction, session: StaffSession) -> None:
    """End a session and the token it is used by, inside a transaction."""
    await transaction.delete(StaffSession, session.key)
    await transaction.delete(AccessToken, session.token)


async def end_staff_sessions(
    transaction: RecordTransaction, account: str, *, practice: str | None = None
) -> None:
    """End all that an account has open, at one practice or at all, inside a transaction."""
    for session in await transaction.find(StaffSession, "account", account, limit=_ALL):
        if practice is None or session.practice == practice:
            await end_staff_session(transaction, session)
