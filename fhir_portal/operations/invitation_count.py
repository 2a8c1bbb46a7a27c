"""How many invitations a practice makes in an hour, and when there is room for more."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from fhir_portal.accounts.invitation import HOUR
from fhir_portal.accounts.policy import Beginner, PracticePolicy
from fhir_portal.fhir.errors import TooManyRequests
from fhir_portal.records import Record, RecordTransaction


class InvitationCount(Record, frozen=True, kw_only=True):
    """How many attempts a practice made in an hour: ``key`` is ``<practice>/<hour since 1970>``.

    Everybody who invites for the practice changes it, so that two of them never decide at once.
    ``later`` counts those that had no room in it and were given a time in another hour.
    """

    kind: ClassVar[str] = "invitation-count"

    count: int = 0
    later: int = 0


async def count_attempt(
    transaction: RecordTransaction, policy: PracticePolicy, beginner: Beginner, *, now: float
) -> None:
    """Count one attempt of a practice's. Raises `TooManyRequests`; then nothing is counted."""
    hour, counted = await _count_of(transaction, policy, now)
    most = policy.invitations_by(beginner)
    if counted.count >= most:
        wait = int((hour + 1) * HOUR - now) + 1
        message = (
            f"the practice has made as many invitations this hour as it may ({most}): "
            f"try again in {wait} seconds"
        )
        raise TooManyRequests(message, retry_after=wait)
    await transaction.put(msgspec.structs.replace(counted, count=counted.count + 1))


async def time_later(
    transaction: RecordTransaction, policy: PracticePolicy, beginner: Beginner, *, now: float
) -> float:
    """Return when there is room for one more attempt that had none: the first to ask comes first.

    So whatever waits by the thousand asks again once, and not all of it every hour.
    """
    hour, counted = await _count_of(transaction, policy, now)
    await transaction.put(msgspec.structs.replace(counted, later=counted.later + 1))
    return (hour + 1 + counted.later // policy.invitations_by(beginner)) * HOUR


async def _count_of(
    transaction: RecordTransaction, policy: PracticePolicy, now: float
) -> tuple[int, InvitationCount]:
    hour = int(now // HOUR)
    key = f"{policy.key}/{hour}"
    found = await transaction.get(InvitationCount, key)
    return hour, found or InvitationCount(key=key, expires=(hour + 2) * HOUR)
