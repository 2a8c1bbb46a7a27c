"""Keeping ``Person?portal-status=`` true where an account changes and its Person does not.

To be called in the transaction of the change. What opens by itself at a moment is followed by a
job, within the time that a worker takes to come round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.at_practice import status_of
from fhir_portal.accounts.practice import every_practice
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.operations.call import acting_for
from fhir_portal.records import Record, RecordTransaction
from fhir_portal.resources.portal_status import said_status
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import PortalStore, ResourceTransaction
from fhir_portal.resources.writing import update_in
from fhir_portal.search.request import parse_search

FOLLOW: Final = "follow-account-status"
"""The name of the job."""
_AT_ONCE: Final = 100
_ONE: Final = "all"


class StatusesFilledIn(Record, frozen=True, kw_only=True):
    """That `fill_in_statuses` went through all Persons; there is one, by the key `_ONE`."""

    kind: ClassVar[str] = "account-statuses-filled-in"


async def follow_status(
    transaction: ResourceTransaction, server: Server, practice: str, person: str
) -> bool:
    """Write a ``Person/<id>`` of a practice anew if it does not say how its account stands.

    Returns whether it was written. One that is gone stays gone.
    """
    key, visible = ResourceKey.parse(person), Visibility.of_server("Person", practice=practice)
    row = await transaction.read(key, visible)
    if row is None or row.deleted:
        return False
    tree = json.parse(row.body)
    where = f"{practice}/{person}"
    status = await status_of(transaction, practice, where, tree, now=server.clock())
    if said_status(tree) == status:
        return False
    await update_in(
        transaction, server, acting_for(practice, ""), tree, visible,
        key=key, if_match=None, if_none_match=None,
    )  # fmt: skip
    return True


async def follow_statuses(
    transaction: ResourceTransaction, server: Server, account: Account
) -> None:
    """Do so for every Person that an account is: it was shut, or opened, as a whole."""
    for one in account.persons:
        practice, _, person = one.partition("/")
        await follow_status(transaction, server, practice, person)


async def follow_later(
    transaction: RecordTransaction, practice: str, person: str, *, at: float, now: float
) -> None:
    """Write the job that follows an account which is open again by itself at a moment."""
    await jobs.enqueue(
        transaction,
        key=f"{FOLLOW}.{practice}.{person.partition('/')[2]}.{at:.3f}",
        practice=practice,
        name=FOLLOW,
        now=now,
        due=at,
        arguments={"person": person},
    )


def status_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of the job by its name, for `fhir_portal.notify.jobs.work_off`."""

    async def follow(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await follow_status(transaction, server, job.practice, job.arguments["person"])

        await server.store.transact(work)

    return {FOLLOW: follow}


async def fill_in_statuses(store: PortalStore, server: Server) -> int:
    """Say of every Person that an earlier release stored how its account stands, once.

    Returns how many were written. It goes by batches; an interrupted run is done again.
    """
    if await store.get(StatusesFilledIn, _ONE) is not None:
        return 0
    written = 0
    for practice in await every_practice(store):
        visible = Visibility.of_server("Person", practice=practice.key)
        pairs = [("portal-status:missing", "true"), ("_count", str(_AT_ONCE))]
        request, after = parse_search("Person", pairs, base=server.base), None
        while True:
            page = await store.search(request, visible, after=after)
            persons = [str(row.key) for row in page.rows]

            async def fill(
                transaction: ResourceTransaction,
                where: str = practice.key,
                persons: list[str] = persons,
            ) -> int:
                done = [await follow_status(transaction, server, where, one) for one in persons]
                return sum(done)

            written += await store.transact(fill) if persons else 0
            after = page.next
            if after is None:
                break

    async def note(transaction: RecordTransaction) -> None:
        await transaction.put(StatusesFilledIn(key=_ONE))

    await store.transact(note)
    return written
