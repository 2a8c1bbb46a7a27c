"""Jobs: expiry, reminders, reindex, exports, age steps, on any number of workers.

Each kind of job has a name; its function gets the `Lease`, so that its changes can carry the
fencing number: `fhir_portal.notify.lease.finish_in` ends a job in the transaction of its work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Final

import msgspec

from fhir_portal.notify import lease
from fhir_portal.notify.lease import Lease, Leased, StaleLease, back_off, fail, finish
from fhir_portal.records import RecordStore, RecordTransaction

ATTEMPTS: Final = 8
LEASE_SECONDS: Final = 300.0


class Job(Leased, frozen=True, kw_only=True):
    """One job; ``key`` is its idempotency key, ``name`` says which function does it."""

    kind: ClassVar[str] = "job"

    name: str
    arguments: dict[str, str] = msgspec.field(default_factory=dict)


Work = Callable[[Lease[Job]], Awaitable[None]]


async def enqueue(
    transaction: RecordTransaction,
    *,
    key: str,
    practice: str,
    name: str,
    now: float,
    arguments: Mapping[str, str] | None = None,
    due: float | None = None,
) -> bool:
    """Write a job in the caller's transaction; false when its key was used already."""
    job = Job(
        key=key,
        practice=practice,
        created=now,
        due=now if due is None else due,
        name=name,
        arguments=dict(arguments or {}),
    )
    return await lease.enqueue(transaction, job)


async def claim(
    store: RecordStore, worker: str, now: float, lease_seconds: float = LEASE_SECONDS
) -> Lease[Job] | None:
    """Take the job that has been due longest."""
    return await lease.claim(store, Job, worker=worker, now=now, lease_seconds=lease_seconds)


async def work_off(
    store: RecordStore,
    functions: Mapping[str, Work],
    *,
    worker: str,
    clock: Callable[[], float],
) -> int:
    """Do what is due, one after the other; returns how many jobs were done.

    A job may have ended itself (`finish_in`). One whose name is not known here is put back for
    a worker that knows it.
    """
    done = 0
    while (held := await claim(store, worker, clock())) is not None:
        try:
            await functions[held.work.name](held)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job must not be lost
            await _failed(store, held, error, clock())
            continue
        try:
            await finish(store, held, now=clock())
        except StaleLease:
            job = await store.get(Job, held.work.key)
            if job is None or job.fence != held.fence:
                continue  # it took longer than the lease: somebody else is at it, or was
        done += 1
    return done


async def _failed(store: RecordStore, held: Lease[Job], error: Exception, now: float) -> None:
    job = held.work
    retry_at = None if job.attempts >= ATTEMPTS else now + back_off(job.attempts)
    try:
        await fail(store, held, retry_at=retry_at, fault=type(error).__name__)
    except StaleLease:
        return
