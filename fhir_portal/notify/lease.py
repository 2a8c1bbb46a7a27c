"""Work that is stored, taken by one worker at a time, and taken again if that worker is lost.

A `Turn` beside each piece of work that waits says when it is due; the turns of a queue are read in
the order of time, and no queue waits for another. Claiming moves the turn to the end of the lease,
so a lost worker's work comes up again by itself. Each claim raises the fencing number, and nothing
is accepted under an earlier one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, Literal, TypeVar

import msgspec

from fhir_portal.records import Record, RecordReader, RecordStore, RecordTransaction

State = Literal["waiting", "taken", "done", "failed"]

KEPT_SECONDS: Final = 30 * 86_400
"""How long done work stays to be seen, and its key to be recognised."""
FIRST_BACK_OFF: Final = 30.0
LONGEST_BACK_OFF: Final = 6 * 3600.0
_LOOKED_AT: Final = 100
"""Turns that one transaction looks at: everybody else's writes wait for it."""


class Leased(Record, frozen=True, kw_only=True):
    """Work with an idempotency key as its ``key``; times are seconds since 1970 UTC.

    ``due`` is when its turn comes (``None``: done or given up); ``fence`` the number of the
    latest claim; ``worker`` whoever made it; ``fault`` why the latest attempt failed, in words
    that staff may read.
    """

    indexed: ClassVar[tuple[str, ...]] = ("practice", "state")

    practice: str
    created: float
    due: float | None
    state: State = "waiting"
    attempts: int = 0
    fence: int = 0
    worker: str = ""
    fault: str = ""

    @property
    def queue(self) -> str:
        """Among which work its turn comes."""
        return self.kind


class Turn(Record, frozen=True, kw_only=True):
    """When work is due: ``key`` is ``<queue>/<milliseconds, 15 digits>/<key of the work>``."""

    kind: ClassVar[str] = "turn"

    work: str

    @classmethod
    def of(cls, work: Leased) -> Turn | None:
        """Return the turn of a piece of work, ``None`` when it has none."""
        if work.due is None:
            return None
        return cls(key=f"{work.queue}/{int(work.due * 1000):015d}/{work.key}", work=work.key)

    @property
    def due(self) -> float:
        """Seconds since 1970 UTC."""
        return int(self.key.split("/", 2)[1]) / 1000


W = TypeVar("W", bound=Leased)


@dataclass(frozen=True, slots=True)
class Lease(Generic[W]):
    """The right to do one piece of work until ``until``; ``fence`` proves it is the latest."""

    work: W
    fence: int
    until: float


class StaleLease(Exception):
    """Somebody else has taken the work since, or it is done."""


async def enqueue(transaction: RecordTransaction, work: Leased) -> bool:
    """Store work in the caller's transaction; false if its key is known already."""
    if await transaction.get(type(work), work.key) is not None:
        return False
    await transaction.insert(work)
    turn = Turn.of(work)
    if turn is not None:
        await transaction.insert(turn)
    return True


PutOff = Callable[[RecordTransaction, W], Awaitable[W | None]]
"""Work whose turn has come, as it is to be stored instead of being taken; ``None`` to take it."""


async def claim(
    store: RecordStore,
    kind: type[W],
    *,
    worker: str,
    now: float,
    lease_seconds: float,
    queue: str = "",
    put_off: PutOff[W] | None = None,
) -> Lease[W] | None:
    """Take what has been due longest, or return ``None`` when nothing is due.

    ``queue`` is that of the kind, where it has no others. What ``put_off`` returns is due later,
    or not any more.
    """
    queue = queue or kind.kind

    async def take(transaction: RecordTransaction) -> Lease[W] | None:
        for _ in range(_LOOKED_AT):
            turn = await _first_due(transaction, queue, now)
            if turn is None:
                return None
            work = await transaction.get(kind, turn.work)
            own = Turn.of(work) if work is not None else None
            if work is None or own != turn:
                await transaction.delete(Turn, turn.key)  # of something that was removed
                if own is not None and own.due == turn.due:
                    await transaction.put(own)  # its queue has another name in this release
                continue
            instead = None if put_off is None else await put_off(transaction, work)
            if instead is not None:
                await _put(transaction, work, instead)
                continue
            until = now + lease_seconds
            taken = msgspec.structs.replace(
                work,
                due=until,
                state="taken",
                attempts=work.attempts + 1,
                fence=work.fence + 1,
                worker=worker,
            )
            await _put(transaction, work, taken)
            return Lease(taken, taken.fence, until)
        return None

    # Again where a transaction found none to take among those it looked at: it moved them all.
    while await _first_due(store, queue, now) is not None:
        lease = await store.transact(take)
        if lease is not None:
            return lease
    return None


async def renew(
    store: RecordStore, lease: Lease[W], *, now: float, lease_seconds: float
) -> Lease[W]:
    """Keep long work for longer. Raises `StaleLease`."""

    async def move(transaction: RecordTransaction) -> Lease[W]:
        work = await _held(transaction, lease)
        longer = msgspec.structs.replace(work, due=now + lease_seconds)
        await _put(transaction, work, longer)
        return Lease(longer, lease.fence, now + lease_seconds)

    return await store.transact(move)


async def finish(store: RecordStore, lease: Lease[W], *, now: float) -> None:
    """Say that the work is done. Raises `StaleLease`."""

    async def end(transaction: RecordTransaction) -> None:
        await finish_in(transaction, lease, now=now)

    await store.transact(end)


async def finish_in(transaction: RecordTransaction, lease: Lease[W], *, now: float) -> None:
    """Say so in the transaction that holds the work's own changes. Raises `StaleLease`.

    Work that only changes the store is thereby done exactly once.
    """
    work = await _held(transaction, lease)
    done = msgspec.structs.replace(
        work, due=None, state="done", fault="", expires=now + KEPT_SECONDS
    )
    await _put(transaction, work, done)


async def fail(
    store: RecordStore, lease: Lease[W], *, retry_at: float | None, fault: str = ""
) -> None:
    """Say that an attempt failed; ``retry_at`` ``None`` gives up for good. Raises `StaleLease`."""

    async def put_back(transaction: RecordTransaction) -> None:
        await fail_in(transaction, lease, retry_at=retry_at, fault=fault)

    await store.transact(put_back)


async def fail_in(
    transaction: RecordTransaction, lease: Lease[W], *, retry_at: float | None, fault: str = ""
) -> None:
    """Say so in the transaction of whatever else the failure changes. Raises `StaleLease`."""
    work = await _held(transaction, lease)
    state: State = "waiting" if retry_at is not None else "failed"
    put = msgspec.structs.replace(work, due=retry_at, state=state, fault=fault)
    await _put(transaction, work, put)


async def put_off_in(
    transaction: RecordTransaction, lease: Lease[W], *, until: float, got_on: bool = False
) -> None:
    """Put work back that may not be done yet: no attempt of its own. Raises `StaleLease`.

    What ``got_on`` has its attempts anew: what failed before was another part of the work.
    """
    work = await _held(transaction, lease)
    attempts = 0 if got_on else work.attempts - 1
    fault = "" if got_on else work.fault
    put = msgspec.structs.replace(work, due=until, state="waiting", attempts=attempts, fault=fault)
    await _put(transaction, work, put)


def back_off(attempts: int) -> float:
    """Return how many seconds to wait after so many attempts: doubling, up to a limit."""
    return float(min(FIRST_BACK_OFF * 2 ** min(attempts - 1, 20), LONGEST_BACK_OFF))


async def _held(transaction: RecordTransaction, lease: Lease[W]) -> W:
    work = await transaction.get(type(lease.work), lease.work.key)
    if work is None or work.fence != lease.fence or work.state != "taken":
        raise StaleLease(lease.work.key)
    return work


async def _put(transaction: RecordTransaction, before: Leased, after: Leased) -> None:
    old, new = Turn.of(before), Turn.of(after)
    if old is not None:
        await transaction.delete(Turn, old.key)
    await transaction.put(after)
    if new is not None:
        await transaction.put(new)


async def _first_due(reader: RecordReader, queue: str, now: float) -> Turn | None:
    for turn in await reader.every(Turn, after=f"{queue}/", limit=1):
        if turn.key.startswith(f"{queue}/") and turn.due <= now:
            return turn
    return None
