"""Task has behaviour of its own: that of an invitation stays for as long as somebody may use it."""

from __future__ import annotations

from fhir_portal.accounts.invitation import LIVE, Invitation
from fhir_portal.fhir.errors import Conflict
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import RecordReader


async def before_deletion(reader: RecordReader, practice: str, key: ResourceKey) -> None:
    """Let an invitation be taken back and not merely lost sight of.

    Raises:
        Conflict: the Task is that of an invitation which is not over.
    """
    if key.type != "Task":
        return
    invitation = await reader.get(Invitation, f"{practice}/{key}")
    if invitation is not None and invitation.state in LIVE:
        message = "this is an invitation that is not over: take it back by $invite-revoke first"
        raise Conflict(message)
