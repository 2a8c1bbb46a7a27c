"""Noting what staff have to see to: the record of it, and the job that makes the Task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from fhir_portal.accounts.matter import StaffMatter, settled
from fhir_portal.notify import jobs
from fhir_portal.records import RecordTransaction

STAFF_TASK: Final = "staff-task"
"""The name of the job that brings the Task of a matter up to date."""


@dataclass(frozen=True, slots=True)
class QueuedMatters:
    """`fhir_portal.accounts.matter.StaffMatters` as records and jobs.

    To note something and to settle it writes as much either way, whether or not there is a matter
    and whether or not it is anybody's.
    """

    async def note(self, transaction: RecordTransaction, matter: StaffMatter) -> None:
        """Keep it; the same one again is counted, and takes the place of what was noted before."""
        before = await transaction.get(StaffMatter, matter.key)
        if before is not None and matter.latest < (before.expires or math.inf):
            is_open = before.settled is None
            matter = msgspec.structs.replace(
                matter,
                task=before.task,
                turn=before.turn + 1,
                since=before.since if is_open else matter.since,
                times=before.times + 1 if is_open else 1,
            )
        await transaction.put(matter)
        await _enqueue(transaction, matter, now=matter.latest)

    async def settle(self, transaction: RecordTransaction, key: str, *, now: float) -> None:
        """Say that it is over."""
        found = await transaction.get(StaffMatter, key)
        if found is None:
            await jobs.enqueue(
                transaction,
                key=f"{STAFF_TASK}.{key}.none.{int(now * 1000)}",
                practice="",
                name=STAFF_TASK,
                now=now,
                arguments={"matter": key},
            )
            return
        over = msgspec.structs.replace(settled(found, at=now), turn=found.turn + 1)
        await transaction.put(over)
        await _enqueue(transaction, over, now=now)


async def _enqueue(transaction: RecordTransaction, matter: StaffMatter, *, now: float) -> None:
    await jobs.enqueue(
        transaction,
        key=f"{STAFF_TASK}.{matter.key}.{int(matter.since * 1000)}.{matter.turn}",
        practice=matter.practice,
        name=STAFF_TASK,
        now=now,
        arguments={"matter": matter.key},
    )
