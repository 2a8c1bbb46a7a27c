"""A new invitation in place of one that is over, for whoever has its link."""

from __future__ import annotations

from typing import Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts import invitation as invitations
from fhir_portal.accounts.activation import count_typed, help_matter
from fhir_portal.accounts.invitation import LIFETIME, Invitation, NotUsable
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.activation.activations import Activations
from fhir_portal.operations.activation.help import MATTERS
from fhir_portal.operations.invitation_end import expire_later
from fhir_portal.operations.invitation_messages import send
from fhir_portal.operations.invitation_task import follow
from fhir_portal.operations.invitation_way import SENT_BY_US
from fhir_portal.operations.invitation_way import Way as InvitationWay
from fhir_portal.operations.on_file import OnFile, contacts_on_file, has_account, may_be_invited
from fhir_portal.resources.store import ResourceTransaction

RENEWALS: Final = "1 per hour"
"""New messages for one link that is over."""


async def renew(activations: Activations, address: str, link: str) -> None:
    """Send a new invitation in place of one that is over, to where that went, if there is one.

    The answer is the same for every link. Raises `TooManyAttempts` for a network.
    """
    await activations.limit_network(address)
    store, now = activations.server.store, activations.server.clock()
    found = await activations.secrets.by_link(store, link)
    try:
        about = found.key if found is not None else link
        await activations.door.password.throttle.limit(RENEWALS, f"renewals of {about[:200]}")
    except TooManyAttempts:
        return

    async def again(transaction: ResourceTransaction) -> None:
        await count_typed(transaction, f"renewal {link[:200]}", now=now)
        there = await transaction.get(Invitation, found.key if found is not None else "")
        if there is None or found is None or there.attempt != found.attempt:
            return
        is_over = there.state == "expired" or there.state in invitations.LIVE
        if not is_over or now < there.ends:
            return
        if not (await policy_of(transaction, there.practice)).portal:
            return
        medium, code = SENT_BY_US.get(there.channel), there.code_by
        is_sent = medium is not None and bool(there.code_to)
        if code == "hand" or not is_sent or not await _is_as_it_was(transaction, there, now):
            # A new link makes the code void that the person was given, and where a contact is
            # not on file any more somebody else may have it: only staff can help.
            await MATTERS.note(
                transaction,
                help_matter(
                    there.practice,
                    there.key,
                    "expired",
                    now=now,
                    invitation=there.key,
                ),
            )
            return
        sent = await invitations.issue_again(
            transaction,
            activations.secrets,
            there,
            ends=now + LIFETIME,
            channel=there.channel,
            to=there.to,
            is_named=there.is_named,
            code_by=code,
            code_to=there.code_to,
            now=now,
        )
        way = InvitationWay(there.channel, there.to, OnFile(code, there.code_to))
        await follow(transaction, activations.server, sent)
        await send(
            transaction, activations.server, sent, way, now=now, template="invitation-resent"
        )
        await expire_later(transaction, sent, now=now)

    try:
        await store.transact(again)
    except (NotUsable, invitations.AlreadyInvited):
        return


async def _is_as_it_was(
    transaction: ResourceTransaction, invitation: Invitation, now: float
) -> bool:
    """Whether who was invited may be still, and is reached as they were."""
    key = ResourceKey.parse(invitation.persons[0])
    visible = Visibility.of_server(key.type, practice=invitation.practice)
    row = await transaction.read(key, visible)
    tree = json.parse(row.body) if row is not None and not row.deleted else {}
    policy = await policy_of(transaction, invitation.practice)
    if invitation.relation == "self" and await has_account(transaction, invitation.practice, key):
        return False
    there = {one.value for one in contacts_on_file(tree, country=policy.country, now=now)}
    to_is_known = invitation.is_named or invitation.to in there
    return may_be_invited(tree) and to_is_known and invitation.code_to in there
