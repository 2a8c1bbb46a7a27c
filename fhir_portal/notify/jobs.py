"""Jobs: expiry, reminders, reindex, exports, age steps, on any number of workers.

Each kind has its own turns, and a worker takes one of each in turn: ten thousand of one kind keep
another waiting for one job, not for all of them.
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

    @property
    def queue(self) -> str:
        """Each kind of job is one."""
        return queue_of(self.name)


def queue_of(name: str) -> str:
    """The queue of the jobs of a name."""
    return f"{Job.kind}.{name}"


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
    store: RecordStore, name: str, worker: str, now: float, lease_seconds: float = LEASE_SECONDS
) -> Lease[Job] | None:
    """Take the job of a name that has been due longest."""
    return await lease.claim(
        store, Job, worker=worker, now=now, lease_seconds=lease_seconds, queue=queue_of(name)
    )


async def work_off(
    store: RecordStore,
    functions: Mapping[str, Work],
    *,
    worker: str,
    clock: Callable[[], float],
) -> int:
    """Do what is due, one after the other and of each name in turn; returns how many were done.

    A job may have ended itself (`finish_in`), or put itself off (`put_off_in`). One whose name is
    not known here waits for a worker that knows it.
    """
    # An earlier release had one queue for all: this moves what it left to the queues of its names.
    await lease.claim(
        store, Job, worker=worker, now=clock(), lease_seconds=LEASE_SECONDS, queue=Job.kind
    )
    done = 0
    is_idle = False
    while not is_idle:
        is_idle = True
        for name, function in list(functions.items()):
            held = await claim(store, name, worker, clock())
            if held is not None:
                is_idle = False
                done += await _do(store, function, held, clock)
    return done


async def _do(
    store: RecordStore, function: Work, held: Lease[Job], clock: Callable[[], float]
) -> bool:
    try:
        await function(held)
    except Exception as error:  # noqa: BLE001 - whatever it is, the job must not be lost
        await _failed(store, held, error, clock())
        return False
    try:
        await finish(store, held, now=clock())
    except StaleLease:
        job = await store.get(Job, held.work.key)
        # Done by itself, unless it was put off, or took longer than the lease and is another's.
        return job is not None and job.fence == held.fence and job.state == "done"
    return True


async def _failed(store: RecordStore, held: Lease[Job], error: Exception, now: float) -> None:
    job = held.work
    retry_at = None if job.attempts >= ATTEMPTS else now + back_off(job.attempts)
    try:
        await fail(store, held, retry_at=retry_at, fault=type(error).__name__)
    except StaleLease:
        return
