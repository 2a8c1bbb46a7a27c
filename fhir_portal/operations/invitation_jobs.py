"""The jobs of invitations: inviting for an event, and ending what is over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import Invitation, LiveInvitation
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import FhirError, TooManyRequests, Unavailable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in, put_off_in
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.call import Collaborators
from fhir_portal.operations.invitation_count import time_later
from fhir_portal.operations.invitation_end import EXPIRE
from fhir_portal.operations.invitation_task import expire
from fhir_portal.operations.invitation_way import SENT_BY_US
from fhir_portal.operations.invitation_wish import Wish
from fhir_portal.operations.inviting import invitation_secrets, invite
from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.operations.on_file import account_of_record, last_day_under
from fhir_portal.operations.unproved_links import expire_unconfirmed
from fhir_portal.resources.event_rules import INVITE, RULES
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row


def invitation_jobs(server: Server, collaborators: Collaborators) -> Mapping[str, Work]:
    """Return the functions of these jobs by name, for `fhir_portal.notify.jobs.work_off`."""
    secrets = invitation_secrets(collaborators.derive)

    async def invite_for_event(held: Lease[Job]) -> None:
        """Invite the patient of an event, as the practice; once, however often it is done."""
        job = held.work
        key = ResourceKey("Patient", job.arguments["patient"])

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            practice = await transaction.get(Practice, job.practice)
            if practice is None:
                return
            row = await _to_be_invited(
                transaction, server, practice, key, rule=job.arguments.get("rule", "")
            )
            if row is None:
                return
            await invite(
                transaction, server, secrets,
                Wish(kind="self", reason=job.arguments["reason"]),
                patients=[row], author=Author.of_event(practice), practice=practice,
            )  # fmt: skip

        async def leave(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())

        async def come_later(transaction: ResourceTransaction) -> None:
            policy = await policy_of(transaction, job.practice)
            until = await time_later(transaction, policy, "ehr", now=server.clock())
            await put_off_in(transaction, held, until=until)

        try:
            await server.store.transact(work)
        except TooManyRequests:
            await server.store.transact(come_later)
        except Unavailable:
            raise  # its turn comes again
        except FhirError:
            # Nobody to write to, or not to be invited: there is nothing that another try changes.
            await server.store.transact(leave)

    async def expire_invitation(held: Lease[Job]) -> None:
        """End an attempt whose time is over, and what nobody confirmed in time."""
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            key = job.arguments["invitation"]
            await expire(transaction, server, secrets, key, attempt=int(job.arguments["attempt"]))
            await expire_unconfirmed(transaction, server, secrets, key)

        await server.store.transact(work)

    return {INVITE: invite_for_event, EXPIRE: expire_invitation}


async def _to_be_invited(
    transaction: ResourceTransaction,
    server: Server,
    practice: Practice,
    key: ResourceKey,
    *,
    rule: str,
) -> Row | None:
    """Return the patient of an event, unless they need no invitation, or want none.

    A ``rule`` that was switched off since invites nobody any more: that stops what waits.
    """
    policy = await policy_of(transaction, practice.key)
    if rule in RULES and not RULES[rule](policy):
        return None
    invitee = f"{practice.key}/{key}"
    row = await transaction.read(key, Visibility.of_server("Patient", practice=practice.key))
    if row is None or row.deleted or not set(policy.invite_channels) & SENT_BY_US.keys():
        return None
    # A child's contacts are its parents': to its own record nobody is invited by a machine.
    under_age = last_day_under(policy.adult_age, json.parse(row.body).get("birthDate"))
    today = datetime.fromtimestamp(server.clock(), ZoneInfo(practice.zone)).date().isoformat()
    if under_age is None or today <= under_age:
        return None
    if await transaction.get(NoMoreInvitations, invitee) is not None:
        return None
    if await account_of_record(transaction, practice.key, key) is not None:
        return None
    live = await transaction.get(LiveInvitation, invitee)
    there = await transaction.get(Invitation, live.invitation) if live else None
    if there is not None and there.is_usable(server.clock()):
        return None
    return row
