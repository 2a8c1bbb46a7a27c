"""The jobs of appointments: holds that end."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.operations.appointments import END_HOLD, end_hold_in
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction


def appointment_jobs(server: Server) -> Mapping[str, Work]:
    """Return the functions of these jobs by name, for `fhir_portal.notify.jobs.work_off`."""

    async def end_hold(held: Lease[Job]) -> None:
        """Cancel what was held and not booked; the time is free since the hold's own end."""
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await end_hold_in(transaction, server, job.practice, job.arguments["appointment"])

        await server.store.transact(work)

    return {END_HOLD: end_hold}
