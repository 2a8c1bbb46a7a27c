"""``Task/[id]/$invite-revoke``: take an invitation back that has opened nothing yet."""

from __future__ import annotations

from fhir_portal.accounts.invitation import Invitation, NotUsable
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.attempts import invitation_at
from fhir_portal.operations.authorship import Author, record_provenance
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.invitation_end import take_back
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.operations.portal_invite import practice_of, words
from fhir_portal.operations.unproved_links import drop_links
from fhir_portal.resources.store import ResourceTransaction, Row


async def invite_revoke(call: Call) -> FhirResponse:
    """End an invitation: its link and codes lead nowhere from now on.

    Of one that waits to be confirmed, whoever used it stays outside.
    """
    secrets = invitation_secrets(call.collaborators.derive)
    reason = words(call, "reason")
    if not reason:
        message = "say why"
        raise Unprocessable(message, expression=parameter("reason"))

    async def work(transaction: ResourceTransaction) -> tuple[Invitation, list[Row]]:
        await call.server.still(transaction, call.auth)
        row, before = await invitation_at(call, transaction)
        now = call.server.clock()
        try:
            ended, rows = await take_back(transaction, call.server, secrets, before, reason=reason)
        except NotUsable:
            message = f"this invitation is over: {before.state}"
            raise Conflict(message) from None
        if before.state == "awaiting":
            await drop_links(transaction, call.server, ended)
        if call.arguments.one("no-more") is True:
            for invitee in ended.invitees:
                if await transaction.get(NoMoreInvitations, invitee) is None:
                    await transaction.put(NoMoreInvitations(key=invitee, since=now))
        author = Author.of(call.auth, await practice_of(transaction, call.auth.practice))
        for one in rows:
            await record_provenance(
                transaction, call.server, call.auth.practice, author, [str(one.key)],
                activity="UPDATE", reason=reason,
            )  # fmt: skip
        return ended, rows or [row]

    ended, rows = await call.server.store.transact(work)
    return call.answer(
        {"invitation": {"reference": f"Task/{ended.task}"}, "status": ended.state}, *rows
    )
