"""Another attempt of an invitation: sent again, or printed. What was before is void with it."""

from __future__ import annotations

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import (
    AlreadyInvited,
    Channel,
    Invitation,
    InvitationSecrets,
    NotUsable,
    issue_again,
)
from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, Forbidden, Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.authorship import Author, record_provenance
from fhir_portal.operations.call import Call
from fhir_portal.operations.four_eyes import require_another_invites
from fhir_portal.operations.invitation_count import count_attempt
from fhir_portal.operations.invitation_end import expire_later
from fhir_portal.operations.invitation_messages import send, stream_of
from fhir_portal.operations.invitation_task import are_proposed, follow, hand_over, invitation_of
from fhir_portal.operations.invitation_way import HANDED_OVER, lifetime_of, way_of
from fhir_portal.operations.on_file import contacts_on_file, has_account, may_be_invited
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceTransaction, Row


async def invitation_at(call: Call, transaction: ResourceTransaction) -> tuple[Row, Invitation]:
    """Return the Task that a call is on, and its invitation.

    Raises:
        NotFound, Gone: of the Task. Unprocessable: it is about something else.
    """
    row = await call.target(transaction)
    found = await invitation_of(transaction, call.auth.practice, row.key.id)
    if found is None:
        message = "this Task is no invitation"
        raise Unprocessable(message)
    for patient in found.patients:
        # Whoever may not see all of the records it opens does nothing with it.
        if call.auth.staff_patient is not None and patient != f"Patient/{call.auth.staff_patient}":
            message = "the invitation is for other records too"
            raise Forbidden(message)
    return row, found


async def attempt_again(
    call: Call,
    transaction: ResourceTransaction,
    secrets: InvitationSecrets,
    *,
    channel: Channel | None,
    contact: str | None,
    lifetime: float | None,
    reason: str,
) -> tuple[Invitation, list[Row]]:
    """Make another attempt, by the same way unless one is asked for; return its Tasks too.

    Raises:
        Conflict: it was redeemed or revoked, tried too often, or the person has another one, or
            has an account meanwhile and needs none.
        Forbidden, TooManyRequests, Unprocessable: as for a new invitation.
    """
    row, before = await invitation_at(call, transaction)
    practice = await practice_of(transaction, call.auth.practice)
    policy = await policy_of(transaction, practice.key)
    author = Author.of(call.auth, practice)
    if not policy.lets_invite(author.beginner):
        message = "this practice does not let you begin an invitation"
        raise Forbidden(message)
    if call.auth.staff is not None and before.relation != "self" and not call.auth.may("proxies"):
        message = "this access level does not hold 'proxies': it invites patients alone"
        raise Forbidden(message)
    now = call.server.clock()
    await count_attempt(transaction, policy, author.beginner, now=now)
    if contact is None and before.is_named and channel in {None, before.channel}:
        contact = before.to
    key = ResourceKey.parse(before.persons[0])
    person = await transaction.read(key, Visibility.of_server(key.type, practice=practice.key))
    tree = json.parse(person.body) if person is not None and not person.deleted else {}
    over = "this invitation was redeemed, revoked or made too often: invite anew"
    if not await are_proposed(transaction, before):
        raise Conflict(over)
    if not may_be_invited(tree):
        message = "this person is not active any more, or recorded as deceased"
        raise Conflict(message)
    if before.relation == "self" and await has_account(transaction, practice.key, key):
        message = "this person has an account by now: take the invitation back, and help them in"
        raise Conflict(message)
    way = way_of(
        policy, channel=channel or before.channel, contact=contact,
        on_file=contacts_on_file(tree, country=policy.country, now=now),
    )  # fmt: skip
    if before.relation != "self":
        await require_another_invites(
            transaction, practice.key, author.account, tree,
            to=[way.to, way.code.value if way.code is not None else ""],
            country=policy.country, now=now,
        )  # fmt: skip
    try:
        again = await issue_again(
            transaction, secrets, before,
            ends=now + lifetime_of(policy, way.channel, lifetime),
            channel=way.channel, to=way.to, is_named=way.is_named, code_by=way.code_by,
            code_to=way.code.value if way.code is not None else "", now=now,
            handled_by=author.account,
        )  # fmt: skip
    except NotUsable:
        raise Conflict(over) from None
    except AlreadyInvited as error:
        message = f"this person has another invitation, {error.key.partition('/')[2]}"
        raise Conflict(message) from None
    rows = await follow(transaction, call.server, again)
    await send(
        transaction, call.server, again, way, now=now, template="invitation-resent",
        stream=stream_of(policy, author),
    )  # fmt: skip
    await expire_later(transaction, again, now=now)
    if again.channel in HANDED_OVER:
        again = await hand_over(transaction, call.server, again)
    for one in rows:
        await record_provenance(
            transaction, call.server, practice.key, author, [str(one.key)],
            activity="UPDATE", reason=reason,
        )  # fmt: skip
    return again, rows or [row]
