"""How an invitation ends that nobody redeems: its time is over, or it is taken back."""

from __future__ import annotations

from typing import Final

from fhir_portal.accounts.invitation import CONFIRMABLE_SECONDS, Invitation, InvitationSecrets, end
from fhir_portal.notify import jobs
from fhir_portal.operations.invitation_task import follow, reject_grants
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row

EXPIRE: Final = "expire-invitation"
"""The name of the job that ends an invitation."""


async def expire_later(
    transaction: RecordTransaction, invitation: Invitation, *, now: float
) -> None:
    """Write the job that ends an attempt when its time is over."""
    await jobs.enqueue(
        transaction,
        key=f"{EXPIRE}.{invitation.practice}.{invitation.task}.{invitation.attempt}",
        practice=invitation.practice,
        name=EXPIRE,
        now=now,
        due=invitation.ends,
        arguments={"invitation": invitation.key, "attempt": str(invitation.attempt)},
    )


async def expire_unconfirmed_later(
    transaction: RecordTransaction, invitation: Invitation, *, now: float
) -> None:
    """Write the job that ends an invitation if nobody confirms in time who used it."""
    await jobs.enqueue(
        transaction,
        key=f"{EXPIRE}.{invitation.practice}.{invitation.task}.{invitation.attempt}.used",
        practice=invitation.practice,
        name=EXPIRE,
        now=now,
        due=invitation.changed + CONFIRMABLE_SECONDS,
        arguments={"invitation": invitation.key, "attempt": str(invitation.attempt)},
    )


async def take_back(
    transaction: ResourceTransaction,
    server: Server,
    secrets: InvitationSecrets,
    invitation: Invitation,
    *,
    reason: str,
) -> tuple[Invitation, list[Row]]:
    """End an invitation that nobody has redeemed, with its Tasks and the grants it proposed.

    Returns it and its Tasks as they are then. Raises `NotUsable`: it is over.
    """
    ended = await end(transaction, secrets, invitation, "revoked", now=server.clock())
    rows = await follow(transaction, server, ended, reason=reason)
    await reject_grants(transaction, server, ended)
    return ended, rows
