"""``Task/[id]/$invite-resend``: another attempt of an invitation, sent or handed over."""

from __future__ import annotations

from fhir_portal.accounts.invitation import Invitation
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.attempts import attempt_again
from fhir_portal.operations.call import Call
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.portal_invite import (
    channel_of,
    handed_out,
    hours_of,
    state_of,
    words,
)
from fhir_portal.resources.store import ResourceTransaction, Row


async def invite_resend(call: Call) -> FhirResponse:
    """Send an invitation again; the answer holds what has to be handed over, this once."""
    secrets = invitation_secrets(call.collaborators.derive)
    channel, reason = channel_of(call), words(call, "reason") or "sent again"

    async def work(transaction: ResourceTransaction) -> tuple[Invitation, list[Row]]:
        await call.server.still(transaction, call.auth)
        return await attempt_again(
            call, transaction, secrets,
            channel=channel, contact=call.arguments.one("contact"),
            lifetime=hours_of(call), reason=reason,
        )  # fmt: skip

    again, rows = await call.server.store.transact(work)
    return call.answer(state_of(again) | handed_out(again, secrets, call.collaborators.base), *rows)
