"""The Task of an invitation: made with it, and kept in step with it.

What counts is the `Invitation`; the Task tells of it. It holds who was invited to whose record, by
whom and until when, and how far it has come: no link, no code, no address. A client that changes
the Task changes nothing about the invitation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import (
    LINK_PREFIX,
    LIVE,
    Invitation,
    InvitationSecrets,
    NotUsable,
    State,
    advance,
    end,
)
from fhir_portal.consent.grant import IG, Grant, is_current, read_grant
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.authorship import restricted
from fhir_portal.operations.call import acting_for
from fhir_portal.records import Record, RecordReader
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.resources.writing import update_in

CODE: Final = (f"{IG}/CodeSystem/portal-task", "portal-invite")
STATUS: Final = f"{IG}/CodeSystem/invitation-status"
_MICROSECONDS: Final = 1_000_000

_TASK_STATUS: Final[Mapping[State, str]] = {
    "queued": "requested",
    "sent": "requested",
    "delivered": "received",
    "opened": "in-progress",
    "awaiting": "in-progress",
    "redeemed": "completed",
    "expired": "failed",
    "revoked": "cancelled",
}


class InvitationTask(Record, frozen=True, kw_only=True):
    """Whose invitation a Task in a further record is: ``key`` is ``<practice>/Task/<id>``."""

    kind: ClassVar[str] = "invitation-task"

    invitation: str


def task_of(
    invitation: Invitation, patient: str, person: str, *, requester: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the Task of an invitation in the record of one patient (``Patient/<id>``)."""
    tree: dict[str, Any] = {
        "resourceType": "Task",
        "meta": restricted(),
        "status": "requested",
        "businessStatus": {},
        "intent": "order",
        "code": {"coding": [{"system": CODE[0], "code": CODE[1]}]},
        "for": {"reference": patient},
        "authoredOn": instant(int(invitation.created * _MICROSECONDS)),
        "requester": dict(requester),
        "owner": {"reference": person},
        "restriction": {},
    }
    _write(tree, invitation)
    return tree


async def invitation_of(reader: RecordReader, practice: str, task: str) -> Invitation | None:
    """Return the invitation that a Task of a practice is about."""
    key = f"{practice}/Task/{task}"
    found = await reader.get(Invitation, key)
    if found is not None:
        return found
    further = await reader.get(InvitationTask, key)
    return await reader.get(Invitation, further.invitation) if further else None


async def follow(
    transaction: ResourceTransaction, server: Server, invitation: Invitation, *, reason: str = ""
) -> list[Row]:
    """Write how an invitation stands now into its Tasks; return them as stored.

    To be called in the transaction that changed the invitation, whoever did. ``reason`` says why
    it ended. A Task that is gone stays gone.
    """
    visible = Visibility.of_server("Task", practice=invitation.practice)
    rows: list[Row] = []
    for own_id in (invitation.task, *invitation.tasks):
        key = ResourceKey("Task", own_id)
        row = await transaction.read(key, visible)
        if row is None or row.deleted:
            continue
        tree = json.parse(row.body)
        _write(tree, invitation)
        if reason:
            tree["statusReason"] = {"text": reason}
        tree["lastModified"] = instant(int(server.clock() * _MICROSECONDS))
        written = await update_in(
            transaction,
            server,
            acting_for(invitation.practice, ""),
            tree,
            visible,
            key=key,
            if_match=None,
            if_none_match=None,
        )
        rows.append(written.row)
    return rows


def _write(tree: dict[str, Any], invitation: Invitation) -> None:
    tree["status"] = _TASK_STATUS[invitation.state]
    tree["businessStatus"] = {"coding": [{"system": STATUS, "code": invitation.state}]}
    until = instant(int(invitation.ends * _MICROSECONDS))
    tree["restriction"] = {"repetitions": 1, "period": {"end": until}}


async def progress(
    transaction: ResourceTransaction, server: Server, key: str, state: State, *, attempt: int
) -> Invitation | None:
    """Note that an attempt is ``sent``, ``delivered`` or ``opened``, in the Task too.

    ``None``: it is over, superseded, or has been there before.
    """
    changed = await advance(transaction, key, state, attempt=attempt, now=server.clock())
    if changed is not None:
        await follow(transaction, server, changed)
    return changed


async def sent(
    transaction: ResourceTransaction, server: Server, message: OutboxMessage
) -> Invitation | None:
    """Note that the message with an invitation's link went out; of others nothing is noted.

    `fhir_portal.notify.outbox.Arrived` for delivery; a second call changes nothing. What the
    record tells of the message itself is `fhir_portal.operations.sending`.
    """
    if message.link_for is None or not message.link_for.startswith(LINK_PREFIX):
        return None
    key = message.link_for.removeprefix(LINK_PREFIX)
    return await progress(transaction, server, key, "sent", attempt=message.link_attempt)


async def received(
    transaction: ResourceTransaction, server: Server, message: OutboxMessage
) -> Invitation | None:
    """Note that the message with an invitation's link reached the person; of others nothing.

    `fhir_portal.notify.outbox.Arrived` for what a gateway says later; a second call changes
    nothing. That a mail server took a mail does not say so.
    """
    if message.link_for is None or not message.link_for.startswith(LINK_PREFIX):
        return None
    key = message.link_for.removeprefix(LINK_PREFIX)
    return await progress(transaction, server, key, "delivered", attempt=message.link_attempt)


async def hand_over(
    transaction: ResourceTransaction, server: Server, invitation: Invitation
) -> Invitation:
    """Note that an attempt was printed or handed over, in the Task too.

    At the desk it was given into the person's own hand, and so it has arrived.
    """
    now = server.clock()
    state: State = "delivered" if invitation.channel == "desk" else "sent"
    changed = await advance(transaction, invitation.key, state, attempt=invitation.attempt, now=now)
    if changed is None:
        return invitation
    await follow(transaction, server, changed)
    return changed


async def expire(
    transaction: ResourceTransaction,
    server: Server,
    secrets: InvitationSecrets,
    key: str,
    *,
    attempt: int,
) -> Invitation | None:
    """End an attempt whose time is over, in the Task too; ``None`` if there is nothing to end."""
    found = await transaction.get(Invitation, key)
    now = server.clock()
    if found is None or found.attempt != attempt or found.state not in LIVE or now < found.ends:
        return None
    ended = await end(transaction, secrets, found, "expired", now=now)
    await follow(transaction, server, ended)
    return ended


async def activate_grants(
    transaction: ResourceTransaction, server: Server, invitation: Invitation, *, zone: Any
) -> list[Grant]:
    """Make the grants of an invitation active, in the transaction that redeems it; return them.

    They are what was proposed, to the letter: nobody but who may write grants could change them.
    Where the practice wrote another grant for the same person and record since, that one stands,
    and what was proposed is rejected: of two neither would open anything (DESIGN: the grant).
    Raises `NotUsable` when one was changed, ended, or its time is over. ``zone`` is the practice's.
    """
    found: list[Grant] = []
    for key, row in await _grants(transaction, invitation):
        tree = json.parse(row.body) if row is not None and not row.deleted else {}
        if tree.get("status") != "proposed":
            raise NotUsable
        tree["status"] = "active"
        grant = read_grant(tree, practice=invitation.practice, zone=zone)
        if grant is None or (grant.end is not None and grant.end <= server.clock()):
            raise NotUsable
        other = await has_grant(
            transaction,
            invitation.practice,
            grant.patient,
            grant.related_person.partition("/")[2],
            now=server.clock(),
        )
        if other is not None:
            tree["status"] = "rejected"
        else:
            found.append(grant)
        await _update(transaction, server, invitation.practice, key, tree)
    return found


async def are_proposed(reader: ResourceReader, invitation: Invitation) -> bool:
    """Whether all the grants of an invitation still wait for it."""
    rows = [row for _, row in await _grants(reader, invitation)]
    return all(
        row is not None and not row.deleted and json.parse(row.body)["status"] == "proposed"
        for row in rows
    )


async def reject_grants(
    transaction: ResourceTransaction, server: Server, invitation: Invitation
) -> None:
    """Say that what was proposed with an invitation will never be."""
    for key, row in await _grants(transaction, invitation):
        tree = json.parse(row.body) if row is not None and not row.deleted else {}
        if tree.get("status") == "proposed":
            tree["status"] = "rejected"
            await _update(transaction, server, invitation.practice, key, tree)


async def has_grant(
    reader: RecordReader, practice: str, patient: str, related_person: str, *, now: float
) -> Grant | None:
    """Return a grant that the person has, or will have, for a record; both ids alone."""
    for grant in await reader.find(Grant, "related_person", f"{practice}/{related_person}"):
        if grant.patient == patient and (is_current(grant, now) or (grant.start or 0) > now):
            return grant
    return None


async def _grants(
    reader: ResourceReader, invitation: Invitation
) -> list[tuple[ResourceKey, Row | None]]:
    visible = Visibility.of_server("Consent", practice=invitation.practice)
    keys = [ResourceKey.parse(one) for one in invitation.grants]
    return [(key, await reader.read(key, visible)) for key in keys]


async def _update(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    key: ResourceKey,
    tree: dict[str, Any],
) -> None:
    visible = Visibility.of_server(key.type, practice=practice)
    await update_in(
        transaction, server, acting_for(practice, ""), tree, visible,
        key=key, if_match=None, if_none_match=None,
    )  # fmt: skip
