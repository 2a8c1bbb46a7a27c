"""The job that computes labels which were too many for the transaction that changed them.

Each step is one transaction of one piece, which puts the job off to have its turn among the others;
whoever is killed has changed nothing of it, and another worker goes on with the same piece. First
everything is hidden, then computed from below (`fhir_portal.resources.settling`): a row that gets
other labels puts those that may take them, and are computed already, back among the waiting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec

from fhir_portal.access.classify import classify
from fhir_portal.access.visibility import RowFacts
from fhir_portal.consent.label_rules import Relabelling
from fhir_portal.consent.labels import SETTLED, SETTLING, UNSETTLED, WITHHELD
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import (
    Lease,
    StaleLease,
    back_off,
    fail,
    finish_in,
    put_off_in,
)
from fhir_portal.resources.opening import Opening
from fhir_portal.resources.passing_on import Surroundings, with_labels
from fhir_portal.resources.server import Server
from fhir_portal.resources.settling import (
    SETTLE_JOB,
    Settling,
    SettlingOpened,
    SettlingPiece,
    add_pieces,
    hide,
    hide_dependants,
    may_give,
    may_take,
    next_pieces,
)
from fhir_portal.resources.store import ResourceTransaction

LONGEST_PAUSE: Final = 900.0
"""Seconds after a step that failed: nothing of what waits is shown until it is done."""
HIDDEN_IN_A_STEP: Final = 5_000
HIDDEN_PIECES: Final = 10
SHOWN_IN_A_STEP: Final = 5
"""Pieces."""


def settling_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of this job by its name."""

    async def settled(held: Lease[Job]) -> None:
        async def work(transaction: ResourceTransaction) -> None:
            if await settle_step(transaction, held.work.practice, now=server.clock()):
                await put_off_in(transaction, held, until=server.clock(), got_on=True)
            else:
                await finish_in(transaction, held, now=server.clock())

        try:
            await server.store.transact(work)
        except Exception as error:
            await _try_again(server, held, error)
            raise

    return {SETTLE_JOB: settled}


async def _try_again(server: Server, held: Lease[Job], error: Exception) -> None:
    """Put off a step that failed. It is never given up: patients would not see theirs again."""
    wait = min(back_off(held.work.attempts), LONGEST_PAUSE)
    with contextlib.suppress(StaleLease):
        await fail(server.store, held, retry_at=server.clock() + wait, fault=type(error).__name__)


async def settle_step(transaction: ResourceTransaction, practice: str, *, now: float = 0.0) -> bool:
    """Do one piece of what waits; false when there was nothing more.

    What has a new version because it was released meanwhile has it at ``now``, or the soonest.
    """
    pieces = await next_pieces(transaction, practice, "hide", limit=HIDDEN_PIECES)
    if pieces:
        for piece in pieces:
            await _taken(transaction, piece)
        keys = [key for piece in pieces for key in _keys(piece)]
        await hide_dependants(transaction, practice, keys, most=HIDDEN_IN_A_STEP)
        return True
    await _open_practice(transaction, practice)
    for piece in await next_pieces(transaction, practice, "compute"):
        await _taken(transaction, piece)
        await _compute(transaction, practice, _keys(piece))
        return True
    pieces = await next_pieces(transaction, practice, "show", limit=SHOWN_IN_A_STEP)
    for piece in pieces:
        await _taken(transaction, piece)
        await _show(transaction, practice, _keys(piece), now)
    if pieces:
        return True
    found = await transaction.get(Settling, practice)
    if found is not None:
        await transaction.put(msgspec.structs.replace(found, is_open=False))
    return False


async def _show(
    transaction: ResourceTransaction, practice: str, keys: list[ResourceKey], now: float
) -> None:
    done = {
        _key(one): one
        for one in await transaction.facts(keys, practice)
        if SETTLED in _labels(one) and SETTLING not in _labels(one)
    }
    labels = {key: _labels(one) - UNSETTLED for key, one in done.items()}
    before = f"{practice}/"
    opened = await transaction.every(SettlingOpened, after=before, limit=1)
    if opened and opened[0].key.startswith(before):
        opening = Opening(transaction, now=now)
        for key, facts in done.items():
            if await transaction.get(SettlingOpened, f"{practice}/{key}") is None:
                continue
            await transaction.delete(SettlingOpened, f"{practice}/{key}")
            held = labels[key] | {WITHHELD}  # what its version before keeps
            await transaction.relabel({key: held}, practice)
            shown = with_labels(facts, labels[key])
            if await opening.version(with_labels(facts, held), shown):
                del labels[key]
    await transaction.relabel(labels, practice)


async def _compute(
    transaction: ResourceTransaction, practice: str, keys: list[ResourceKey]
) -> None:
    around = Surroundings(transaction, unbounded=True)
    done: list[ResourceKey] = []
    again: dict[ResourceKey, frozenset[str]] = {}
    strays: set[ResourceKey] = set()
    for key in keys:
        row = await around.stored(key, practice)
        if row is None or SETTLING not in _labels(row.facts) or key in around.computed:
            continue
        tree = await around.said(row)
        now = row.facts
        if tree is not None:
            now = await classify(tree, practice, around)
            if row.deleted:
                now = with_labels(row.facts, _labels(now))
        labels = _labels(now) - UNSETTLED
        around.computed[key] = with_labels(now, labels | {SETTLED})
        await around.reclassify(key, row.facts, around.computed[key])
        done.append(key)
        if with_labels(now, labels) == with_labels(row.facts, _labels(row.facts) - UNSETTLED):
            continue
        back: dict[ResourceKey, frozenset[str]] = {}
        for facts in await transaction.facts(
            await around.dependants(key, practice, tree), practice
        ):
            near = _key(facts)
            held = _labels(around.computed.get(near, facts))
            if SETTLED in held:
                around.computed.pop(near, None)
                back[near] = (held - {SETTLED}) | {SETTLING}
            elif not held & UNSETTLED and (
                may_take(near.type, key.type) or may_give(key.type, near.type)
            ):
                strays.add(near)
        await transaction.relabel(back, practice)
        again |= back
    await add_pieces(transaction, practice, "show", done)
    await add_pieces(transaction, practice, "compute", again)
    if strays:
        await hide(transaction, practice, strays)


async def _open_practice(transaction: ResourceTransaction, practice: str) -> None:
    """Let the practice's patients see the rest: what may change is hidden row by row."""
    marker = await transaction.get(Relabelling, practice)
    if marker is None or not marker.spreads:
        return
    if marker.change:
        await transaction.put(msgspec.structs.replace(marker, spreads=False))
    else:
        await transaction.delete(Relabelling, practice)


async def _taken(transaction: ResourceTransaction, piece: SettlingPiece) -> None:
    await transaction.delete(SettlingPiece, piece.key)


def _keys(piece: SettlingPiece) -> list[ResourceKey]:
    return [ResourceKey.parse(text) for text in piece.what]


def _key(facts: RowFacts) -> ResourceKey:
    return ResourceKey(facts.resource_type, facts.id)


def _labels(facts: RowFacts) -> frozenset[str]:
    return facts.visibility_class.labels
