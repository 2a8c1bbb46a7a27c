"""The job of an answer to a word against a bill: whoever said it is told that there is one."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import SELF_LABELS
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.operations.form_request import to_whom
from fhir_portal.resources.event_rules import DISPUTE_ANSWERED
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction


def dispute_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of this job by its name, for `fhir_portal.notify.jobs.work_off`."""

    async def tell(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            key = ResourceKey("Task", job.arguments["task"])
            row = await transaction.read(key, Visibility.of_server("Task", practice=job.practice))
            if row is None or row.deleted or len(row.facts.owners) != 1:
                return
            tree = json.parse(row.body)
            still = tree.get("status") == job.arguments["status"]
            if not still or not row.facts.visibility_class.labels <= SELF_LABELS:
                return
            said_by = str((tree.get("requester") or {}).get("reference", ""))
            named = (f"Patient/{row.facts.owners[0]}", said_by)
            told = await to_whom(transaction, server, job.practice, row, "billing", named=named)
            for to, name in told:
                await outbox.enqueue(
                    transaction,
                    key=f"dispute.{job.arguments['answer']}.{name}",
                    practice=job.practice,
                    channel="mail",
                    to=to,
                    template="bill-answered",
                    now=server.clock(),
                )

        await server.store.transact(work)

    return {DISPUTE_ANSWERED: tell}
