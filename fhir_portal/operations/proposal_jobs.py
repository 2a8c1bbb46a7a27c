"""Who is told that there is an answer to what they proposed, and that an insurance ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.notify.recipients import RECORD, to_account
from fhir_portal.operations.appointments import tell_who_sees
from fhir_portal.operations.on_file import account_of_record
from fhir_portal.resources.event_rules import ENDS
from fhir_portal.resources.proposal import ANSWERED, is_open, section_of
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction

_MICROSECONDS: Final = 1_000_000


def proposal_jobs(server: Server) -> Mapping[str, Work]:
    """Return the functions of these jobs by name, for `fhir_portal.notify.jobs.work_off`."""

    async def tell(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            key = ResourceKey("Task", job.arguments["task"])
            row = await transaction.read(key, Visibility.of_server("Task", practice=job.practice))
            tree = json.parse(row.body) if row is not None and not row.deleted else {}
            if section_of(tree) is None or is_open(tree):
                return
            to = await _proposer(transaction, server, job.practice, tree)
            if to is not None:
                await outbox.enqueue(
                    transaction,
                    key=f"{ANSWERED}.{key.id}",
                    practice=job.practice,
                    channel="mail",
                    to=to,
                    template="proposal-answered",
                    now=server.clock(),
                )

        await server.store.transact(work)

    async def remind(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await _remind(transaction, server, job)

        await server.store.transact(work)

    return {ANSWERED: tell, ENDS: remind}


async def _remind(transaction: ResourceTransaction, server: Server, job: Job) -> None:
    """Whoever sees the insurance is told, where it still ends then; of a labelled one nobody is."""
    key = ResourceKey("Coverage", job.arguments["coverage"])
    row = await transaction.read(key, Visibility.of_server("Coverage", practice=job.practice))
    if row is None or row.deleted or row.facts.visibility_class.labels:
        return
    tree, end = json.parse(row.body), job.arguments["end"]
    still = (
        tree.get("status") == "active" and str((tree.get("period") or {}).get("end"))[:10] == end
    )
    policy = await policy_of(transaction, job.practice)
    is_over = period_of(end)[1] <= server.clock() * _MICROSECONDS
    if not still or is_over or not policy.coverage_reminder_days or len(row.facts.owners) != 1:
        return
    await tell_who_sees(
        transaction,
        job.practice,
        f"Patient/{row.facts.owners[0]}",
        key=job.key,
        template="coverage-ends",
        now=server.clock(),
        section="insurance",
        stream=outbox.Stream("coverage-ends", policy.messages_a_minute),
    )


async def _proposer(
    transaction: ResourceTransaction, server: Server, practice: str, tree: Mapping[str, Any]
) -> str | None:
    """Return to whom it goes: the patient, or who acts for them still and sees that section."""
    patient = str((tree.get("for") or {}).get("reference", ""))
    who = local_target(str((tree.get("requester") or {}).get("reference", "")))
    if who is None or str(who) == patient:
        return f"{RECORD}{practice}/{patient}"
    account = await account_of_record(transaction, practice, who)
    known = await transaction.get(Account, account) if account is not None else None
    if known is None:
        return None
    record = await Relations(transaction, server.clock).record_of(known, practice, patient)
    sees = record is not None and section_of(tree) in (record.sections or ())
    if record is None or record.fhir_user != str(who) or not sees:
        return None
    return to_account(known.key)
