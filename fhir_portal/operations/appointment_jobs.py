"""The jobs of appointments: holds that end, reminders, time that becomes free or is taken anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.matter import KEPT_SECONDS, StaffMatter, matter_key
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.operations import visit_thread
from fhir_portal.operations.appointments import END_HOLD, end_hold_in, tell_who_sees
from fhir_portal.operations.waitlist import offer_freed
from fhir_portal.resources.appointment import OFFER, RENEW, renew
from fhir_portal.resources.event_rules import REMIND, VISIT_OVER
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction

REMINDER: Final = "appointment-reminder"
_MICROSECONDS: Final = 1_000_000


def appointment_jobs(server: Server) -> Mapping[str, Work]:
    """Return the functions of these jobs by name, for `fhir_portal.notify.jobs.work_off`."""

    async def end_hold(held: Lease[Job]) -> None:
        """Cancel what was held and not booked; the time is free since the hold's own end."""
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await end_hold_in(transaction, server, job.practice, job.arguments["appointment"])

        await server.store.transact(work)

    async def remind(held: Lease[Job]) -> None:
        """Write the reminder, where the appointment is still what it was to be about."""
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await _remind(transaction, server, job)

        await server.store.transact(work)

    async def offer(held: Lease[Job]) -> None:
        """Offer time that has become free to who waits for it."""

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await offer_freed(transaction, server, held.work)

        await server.store.transact(work)

    async def renew_times(held: Lease[Job]) -> None:
        """Take the time of appointments to come anew; done twice it is done once."""
        job, now = held.work, server.clock()
        because = ResourceKey.parse(job.arguments["because"])
        if not await renew(server.store, job.practice, now=now, because=because):
            return

        async def tell(transaction: ResourceTransaction) -> None:
            """Have staff see to it: nobody is moved by a server."""
            matter = StaffMatter(
                key=matter_key(job.practice, "overlapping-appointments", str(because)),
                practice=job.practice,
                about="overlapping-appointments",
                reason="calendar-changed",
                since=now,
                latest=now,
                detail=str(because),
                expires=now + KEPT_SECONDS,
            )
            await QueuedMatters().note(transaction, matter)

        await server.store.transact(tell)

    async def end_conversation(held: Lease[Job]) -> None:
        """Close the conversation of somebody who was here, after the visit."""

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await visit_thread.close_after(transaction, server, held.work)

        await server.store.transact(work)

    return {
        END_HOLD: end_hold,
        REMIND: remind,
        OFFER: offer,
        RENEW: renew_times,
        VISIT_OVER: end_conversation,
    }


async def _remind(transaction: ResourceTransaction, server: Server, job: Job) -> None:
    """Whoever sees the appointment is told: whose record it is, and proxies with the section.

    An appointment that carries a label is told of at no time: it may be read by others.
    """
    key = ResourceKey("Appointment", job.arguments["appointment"])
    visible = Visibility.of_server("Appointment", practice=job.practice)
    row = await transaction.read(key, visible)
    tree = None if row is None or row.deleted else json.parse(row.body)
    if row is None or tree is None or row.facts.visibility_class.labels:
        return
    begins = period_of(tree.get("start") or job.arguments["start"])[0]
    still = tree.get("start") == job.arguments["start"] and tree.get("status") == "booked"
    if not still or begins <= server.clock() * _MICROSECONDS or len(row.facts.owners) != 1:
        return
    await tell_who_sees(
        transaction,
        job.practice,
        f"Patient/{row.facts.owners[0]}",
        key=job.key,
        template=REMINDER,
        now=server.clock(),
    )
