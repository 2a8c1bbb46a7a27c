"""The job of an answer to a refill request: the patient is told that there is one."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_portal.access.owners import own_patients
from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import SELF_LABELS
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.notify.recipients import RECORD
from fhir_portal.resources.event_rules import REFILL_ANSWERED
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction


def refill_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of this job by its name, for `fhir_portal.notify.jobs.work_off`."""

    async def tell(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            key = ResourceKey("Task", job.arguments["task"])
            row = await transaction.read(key, Visibility.of_server("Task", practice=job.practice))
            if row is None or row.deleted or not row.facts.visibility_class.labels <= SELF_LABELS:
                return
            patients = own_patients(json.parse(row.body))
            if len(patients) != 1:
                return
            await outbox.enqueue(
                transaction,
                key=f"refill.{key.id}.{job.arguments['answer']}",
                practice=job.practice,
                channel="mail",
                to=f"{RECORD}{job.practice}/Patient/{patients[0]}",
                template="refill-answered",
                now=server.clock(),
            )

        await server.store.transact(work)

    return {REFILL_ANSWERED: tell}
