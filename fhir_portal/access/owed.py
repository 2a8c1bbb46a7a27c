"""Lines of the access log that are written with a change: both last, or neither.

The log is a second file or collection, so no transaction reaches both
(``docs/decisions/0008-access-log-in-a-second-file.md``). What a transaction changes that is no
interaction of the API therefore leaves its lines beside the change, as `OwedLines`. They go into
the log right after the commit; those that a dying process left behind go there at the next
housekeeping, whoever does it. So no change is without its line. A line can be there twice, if the
process died between the log and the note that it is paid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from fhir_portal.access.log import AccessLog, AccessRow
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.records import Record, RecordStore, RecordTransaction

_PATIENCE: Final = 60.0
"""Seconds after which lines are nobody's to pay any more."""
_AT_ONCE: Final = 100


class OwedLines(Record, frozen=True, kw_only=True):
    """Lines that are not in the log yet; ``due`` is when somebody else pays them."""

    kind: ClassVar[str] = "owed-access-lines"

    rows: tuple[AccessRow, ...]
    due: float


async def owe(
    transaction: RecordTransaction, key: str, rows: Sequence[AccessRow], *, now: float
) -> None:
    """Leave lines with a change, in its transaction. ``key`` is random, drawn before it."""
    await transaction.insert(OwedLines(key=key, rows=tuple(rows), due=now + _PATIENCE))


async def pay(store: RecordStore, log: AccessLog, key: str) -> None:
    """Write what was left into the log, after the commit.

    Where that cannot be done, it is for the next housekeeping: the change is made, and its lines
    are as durable as it is.
    """
    with contextlib.suppress(Unavailable):
        await _pay(store, log, await store.get(OwedLines, key))


async def pay_due(store: RecordStore, log: AccessLog, now: float) -> int:
    """Write into the log what others left behind; returns how many changes that were."""
    paid = 0
    for found in await store.every(OwedLines, limit=_AT_ONCE):
        if found.due > now:
            continue
        held = msgspec.structs.replace(found, due=now + _PATIENCE)

        async def take(
            transaction: RecordTransaction, found: OwedLines = found, held: OwedLines = held
        ) -> bool:
            return await transaction.replace(found, held)

        if await store.transact(take):
            await _pay(store, log, held)
            paid += 1
    return paid


async def _pay(store: RecordStore, log: AccessLog, owed: OwedLines | None) -> None:
    if owed is None:
        return
    await log.append(owed.rows)

    async def paid(transaction: RecordTransaction) -> None:
        await transaction.delete(OwedLines, owed.key)

    await store.transact(paid)
