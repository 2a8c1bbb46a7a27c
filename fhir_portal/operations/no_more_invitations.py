"""Whoever wants no invitations any more, or for whom the practice ended the portal."""

from __future__ import annotations

from typing import ClassVar

from fhir_portal.records import Record, RecordReader


class NoMoreInvitations(Record, frozen=True, kw_only=True):
    """Whoever is the ``key`` (as `Invitation.invitee`) wants none; ``since`` when.

    With ``closed`` it was the practice that ended the portal for them: they come back by an
    invitation that was made on purpose, and not by themselves.
    """

    kind: ClassVar[str] = "no-more-invitations"

    since: float
    closed: bool = False


async def is_closed_for(reader: RecordReader, invitee: str) -> bool:
    """Whether a practice ended the portal for somebody who has not come back by invitation."""
    found = await reader.get(NoMoreInvitations, invitee)
    return found is not None and found.closed
