"""Where too much depends on a write: what might change is hidden first, and computed by a job.

In the transaction of the write everything that may take labels from what it changed loses those it
has and gets `SETTLING`, which no restricted reader is permitted. What is found is bounded by types
and edges alone, so that it is never too little. `fhir_portal.operations.settling_jobs` computes the
rows in pieces, from below; what is computed is `SETTLED` until everything is, and then shown.

Whatever is written meanwhile and takes labels from such rows joins them. Where even hiding is too
much for one transaction the practice's patients see nothing until it is through (`Relabelling`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from itertools import islice
from typing import ClassVar, Final, Literal

import msgspec

from fhir_portal.access.closure import BOTH_WAYS, CONVEY_NOTHING, TAKE_NOTHING
from fhir_portal.access.owners import DERIVED
from fhir_portal.consent.label_rules import Relabelling
from fhir_portal.consent.labels import SETTLING
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.notify.jobs import Job
from fhir_portal.records import Record, RecordReader, RecordTransaction
from fhir_portal.resources.store import ResourceTransaction

SETTLE_JOB: Final = "settle"
HIDDEN_AT_ONCE: Final = 20_000
"""Rows that the transaction of a write hides; with more the practice is hidden until all are."""
PIECE: Final = 100
"""Rows of one piece of work: a tenth of a second or two, in which nobody else can write."""

_LOOKED_AT: Final = 1_000

Phase = Literal["hide", "compute", "show"]


class Settling(Record, frozen=True, kw_only=True):
    """That a job computes labels of the practice that is the ``key``, and has not done it all.

    ``jobs`` and ``pieces`` count those there ever were.
    """

    kind: ClassVar[str] = "settling"

    is_open: bool = False
    jobs: int = 0
    pieces: int = 0


class SettlingPiece(Record, frozen=True, kw_only=True):
    """Some rows that wait: ``key`` is ``<practice>/<phase>/<number, 12 digits>``.

    Those to ``hide`` may not be hidden yet, and what may take labels from them is not known.
    """

    kind: ClassVar[str] = "settling-piece"

    what: tuple[str, ...]


class SettlingOpened(Record, frozen=True, kw_only=True):
    """That something, the ``key`` (``<practice>/<type>/<id>``), was released while it waited.

    When it is shown it has a new version: nobody who polls was told of it under the one before.
    """

    kind: ClassVar[str] = "settling-opened"


async def hide(
    transaction: ResourceTransaction, practice: str, keys: Collection[ResourceKey]
) -> None:
    """Hide rows and all that may take labels from them until their labels are computed anew."""
    there = [
        ResourceKey(facts.resource_type, facts.id)
        for facts in await transaction.facts(keys, practice)
    ]
    await transaction.relabel(dict.fromkeys(there, frozenset({SETTLING})), practice)
    await _open(transaction, practice)
    await add_pieces(transaction, practice, "compute", there)
    await hide_dependants(transaction, practice, there, most=HIDDEN_AT_ONCE)


async def hide_dependants(
    transaction: ResourceTransaction, practice: str, keys: Collection[ResourceKey], *, most: int
) -> None:
    """Hide rows and what may take labels from them; what is beyond ``most`` is for the job.

    Rows that lost their labels already and wait are left out: whatever had one from them did, too.
    """
    hidden = dict.fromkeys(await _hide_those_shown(transaction, practice, keys, most=len(keys)))
    waiting = deque(keys)
    shown: list[ResourceKey] = []
    """What is found and beyond ``most``: to be found once more would take as long each time."""
    while waiting and len(hidden) < most:
        some = [waiting.popleft() for _ in range(min(PIECE, len(waiting)))]
        near = _reached(await transaction.edges(some, practice), set(some)) - hidden.keys()
        rest = iter(near)
        while len(hidden) < most and (part := list(islice(rest, _LOOKED_AT))):
            left = most - len(hidden)
            now = await _hide_those_shown(transaction, practice, part, most=left)
            hidden |= dict.fromkeys(now)
            waiting += now
            if len(now) == left:
                shown += set(part).difference(now)
        shown += rest
    await add_pieces(transaction, practice, "compute", hidden)
    await add_pieces(transaction, practice, "hide", [*shown, *waiting])
    if shown or waiting:
        marker = await transaction.get(Relabelling, practice) or Relabelling(
            key=practice, hides=False
        )
        await transaction.put(msgspec.structs.replace(marker, spreads=True))


async def _hide_those_shown(
    transaction: ResourceTransaction, practice: str, keys: Collection[ResourceKey], *, most: int
) -> list[ResourceKey]:
    """Hide those of the rows, ``most`` of them, that do not wait already; return them."""
    found = [
        ResourceKey(facts.resource_type, facts.id)
        for facts in await transaction.facts(keys, practice)
        if facts.visibility_class.labels != {SETTLING}
    ][:most]
    await transaction.relabel(dict.fromkeys(found, frozenset({SETTLING})), practice)
    return found


async def add_pieces(
    transaction: RecordTransaction, practice: str, phase: Phase, keys: Iterable[ResourceKey]
) -> None:
    """Put rows behind those that wait already. The settling is open."""
    rest = iter(keys)
    while some := tuple(str(key) for key in islice(rest, PIECE)):
        found = await transaction.get(Settling, practice) or Settling(key=practice)
        await transaction.put(msgspec.structs.replace(found, pieces=found.pieces + 1))
        own = f"{practice}/{phase}/{found.pieces + 1:012d}"
        await transaction.insert(SettlingPiece(key=own, what=some))


async def next_pieces(
    transaction: RecordTransaction, practice: str, phase: Phase, *, limit: int = 1
) -> list[SettlingPiece]:
    """Return the pieces that have waited longest."""
    before = f"{practice}/{phase}/"
    found = await transaction.every(SettlingPiece, after=before, limit=limit)
    return [piece for piece in found if piece.key.startswith(before)]


async def under_way(reader: RecordReader, practice: str) -> list[str]:
    """Say in lines for staff what of their practice is hidden while labels are being worked out."""
    marker = await reader.get(Relabelling, practice)
    found = await reader.get(Settling, practice)
    lines: list[str] = []
    if marker is not None and marker.shuts:
        lines.append(_ALL_HIDDEN)
    if found is not None and found.is_open:
        lines.append(_SOME_HIDDEN)
        job = await reader.get(Job, _job_key(found))
        if job is None or job.due is None or job.attempts >= jobs.ATTEMPTS:
            lines.append(_STOPPED)
    return lines


_ALL_HIDDEN: Final = (
    "What is confidential is being worked out for all records of the practice. Until that is done"
    " patients, and those who act for them, see nothing but who they are."
)
_SOME_HIDDEN: Final = (
    "Much depends on something that was marked as confidential, or is so no more. What depends on"
    " it is hidden from patients, from those who act for them, and from staff who do not see"
    " everything, until it is worked out. You need do nothing."
)
_STOPPED: Final = (
    "This does not get on. Tell whoever runs the server; it is tried again every quarter of an"
    " hour."
)


def may_take(name: str, giver: str) -> bool:
    """Whether what is of one type may take labels from what it points at, whatever the path."""
    return name in DERIVED or (name not in TAKE_NOTHING and giver not in CONVEY_NOTHING)


def may_give(name: str, taker: str) -> bool:
    """Whether what is of one type may give labels to what it points at, whatever the path."""
    return taker == "Binary" or any(taker in row.to for row in BOTH_WAYS.get(name, ()))


def _reached(
    edges: Iterable[tuple[ResourceKey, ResourceKey]], keys: Collection[ResourceKey]
) -> set[ResourceKey]:
    found: set[ResourceKey] = set()
    for source, target in edges:
        if target in keys and may_take(source.type, target.type):
            found.add(source)
        if source in keys and may_give(source.type, target.type):
            found.add(target)
    return found


async def _open(transaction: ResourceTransaction, practice: str) -> None:
    """See to it that there is a job."""
    found = await transaction.get(Settling, practice) or Settling(key=practice)
    if found.is_open:
        job = await transaction.get(Job, _job_key(found))
        if job is not None and job.due is not None:
            return
    found = msgspec.structs.replace(found, is_open=True, jobs=found.jobs + 1)
    await transaction.put(found)
    await jobs.enqueue(
        transaction,
        key=_job_key(found),
        practice=practice,
        name=SETTLE_JOB,
        # The latest that was stored: it is at no time later than now.
        now=await transaction.next_instant(0) / 1000,
    )


def _job_key(found: Settling) -> str:
    return f"{SETTLE_JOB}/{found.key}/{found.jobs}"
