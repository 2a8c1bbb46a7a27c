"""Whose time is taken: rows of actor and five-minute cell, each there once.

An Appointment that takes time holds one `TakenCell` for each of its actors and each cell of five
minutes that it touches, written in the transaction that stores the Appointment, whoever writes it.
The key of a cell is unique, so two of them never hold the same one: not at one server, not at two.

Times are rounded outwards to five minutes. A held time (`TakenCell.until`) is free again once that
moment has passed, whether or not a job has noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from fhir_portal.fhir.datetime import period_of
from fhir_portal.records import Record, RecordReader, RecordTransaction

CELL_SECONDS: Final = 300
LONGEST_DAYS: Final = 7
"""An Appointment that takes time is no longer than this."""
_CELLS_OF_A_DAY: Final = 86_400 // CELL_SECONDS
_LONGEST: Final = LONGEST_DAYS * _CELLS_OF_A_DAY
_KEPT_SECONDS: Final = 86_400.0
_CELL_US: Final = CELL_SECONDS * 1_000_000


class TakenCell(Record, frozen=True, kw_only=True):
    """Five minutes of an actor: ``key`` is ``<practice>/<Type>/<id>/<cell>``.

    ``cell`` counts five minutes since 1970 UTC. ``holders`` are the ids of the Appointments that
    have it: one, or more where an EHR may book twice (`fhir_portal.accounts.policy`). ``until`` is
    when a hold ends, ``None`` for what is booked.
    """

    kind: ClassVar[str] = "taken-cell"
    indexed: ClassVar[tuple[str, ...]] = ("day",)

    cell: int
    day: str
    holders: tuple[str, ...]
    until: float | None = None

    def is_taken(self, now: float) -> bool:
        """Whether the cell is anybody's: a hold whose time is over is nobody's."""
        return self.until is None or now < self.until


class TakenTime(Record, frozen=True, kw_only=True):
    """What one Appointment takes; ``key`` is ``<practice>/<id>``.

    ``actors`` are ``Type/<id>``, ``first`` and ``last`` the cells (``last`` is not among them).
    ``lifted`` says that its cells are put away while a transaction Bundle moves things about.
    """

    kind: ClassVar[str] = "taken-time"

    actors: tuple[str, ...]
    first: int
    last: int
    until: float | None = None
    lifted: bool = False

    @property
    def practice(self) -> str:
        """The practice's key."""
        return self.key.partition("/")[0]

    @property
    def appointment(self) -> str:
        """The id of the Appointment."""
        return self.key.partition("/")[2]

    @property
    def cells(self) -> range:
        """The cells that it touches."""
        return range(self.first, self.last)


class TimeTaken(Exception):
    """Somebody else has some of this time."""


class UnfitTime(Exception):
    """There is no such time, or it is longer than can be taken. The words say which."""


@dataclass(frozen=True, slots=True)
class Span:
    """From ``first`` to before ``last``, in cells."""

    first: int
    last: int

    @classmethod
    def of(cls, start: str, end: str) -> Span:
        """Return the cells that a time touches; one of no length touches one.

        Both are FHIR instants. Raises `UnfitTime`.
        """
        try:
            low, high = period_of(start)[0], period_of(end)[0]
        except ValueError:
            message = "start and end have to be moments"
            raise UnfitTime(message) from None
        first, last = low // _CELL_US, -(-high // _CELL_US)
        return cls(first, first + 1 if first == last else last)

    def is_over(self, now: float) -> bool:
        """Whether all of it has passed."""
        return max(self.first, self.last) * CELL_SECONDS <= now

    @property
    def fits(self) -> bool:
        """Whether it can be taken."""
        return 0 < self.last - self.first <= _LONGEST

    def check(self) -> None:
        """Refuse what cannot be taken. Raises `UnfitTime`."""
        if self.last <= self.first:
            message = "it ends before it starts"
            raise UnfitTime(message)
        if self.last - self.first > _LONGEST:
            message = f"what takes time is at most {LONGEST_DAYS} days long: store it in parts"
            raise UnfitTime(message)


async def take(
    transaction: RecordTransaction, wanted: TakenTime, *, now: float, twice: bool = False
) -> None:
    """Take time for an Appointment, in place of what it had.

    ``twice`` takes also what somebody else has. Raises `TimeTaken`; then nothing may be kept of
    the transaction.
    """
    await release(transaction, wanted.practice, wanted.appointment)
    expires = wanted.last * CELL_SECONDS + _KEPT_SECONDS
    for actor in wanted.actors:
        for cell in wanted.cells:
            key = _key(wanted.practice, actor, cell)
            found = await transaction.get(TakenCell, key)
            if found is None or not found.is_taken(now):
                # Put over a hold that is over; where there is none the unique key decides.
                new = TakenCell(
                    key=key,
                    cell=cell,
                    day=_day(wanted.practice, actor, cell),
                    holders=(wanted.appointment,),
                    until=wanted.until,
                    expires=expires,
                )
                await (transaction.insert if found is None else transaction.put)(new)
            elif twice:
                holders = (*found.holders, wanted.appointment)
                await transaction.put(
                    msgspec.structs.replace(found, holders=holders, until=None, expires=expires)
                )
            else:
                raise TimeTaken
    await transaction.put(
        msgspec.structs.replace(wanted, lifted=False, expires=expires + _KEPT_SECONDS)
    )


async def release(transaction: RecordTransaction, practice: str, appointment: str) -> None:
    """Give back what an Appointment has; nothing happens where it has nothing."""
    held = await _give_back(transaction, practice, appointment)
    if held is not None:
        await transaction.delete(TakenTime, held.key)


async def lift(transaction: RecordTransaction, practice: str, appointment: str) -> None:
    """Put away the cells of an Appointment that the same transaction is going to store again."""
    held = await _give_back(transaction, practice, appointment)
    if held is not None:
        await transaction.put(msgspec.structs.replace(held, lifted=True))


async def require_none_lifted(
    reader: RecordReader, practice: str, appointments: Iterable[str]
) -> None:
    """Hold against a transaction that it stored again whatever it put away; it is ours to do so.

    Raises `RuntimeError`; then nothing may be kept of the transaction.
    """
    for one in appointments:
        held = await time_of(reader, practice, one)
        if held is not None and held.lifted:
            message = "an Appointment whose time was put away was not stored again"
            raise RuntimeError(message)


async def time_of(reader: RecordReader, practice: str, appointment: str) -> TakenTime | None:
    """Return what an Appointment takes."""
    return await reader.get(TakenTime, f"{practice}/{appointment}")


async def taken_cells(
    reader: RecordReader, practice: str, actor: str, span: Span, *, now: float
) -> frozenset[int]:
    """Return the cells of an actor within a span that somebody has now."""
    found: set[int] = set()
    for day in range(span.first // _CELLS_OF_A_DAY, (span.last - 1) // _CELLS_OF_A_DAY + 1):
        name = _day(practice, actor, day * _CELLS_OF_A_DAY)
        for one in await reader.find(TakenCell, "day", name):
            if span.first <= one.cell < span.last and one.is_taken(now):
                found.add(one.cell)
    return frozenset(found)


async def is_free(
    reader: RecordReader,
    practice: str,
    actors: Iterable[str],
    span: Span,
    *,
    now: float,
    beside: Sequence[str] = (),
) -> bool:
    """Whether nobody has any of this time now, but the Appointments ``beside``."""
    for actor in actors:
        for cell in range(span.first, span.last):
            found = await reader.get(TakenCell, _key(practice, actor, cell))
            if found is not None and found.is_taken(now) and not set(found.holders) <= set(beside):
                return False
    return True


async def _give_back(
    transaction: RecordTransaction, practice: str, appointment: str
) -> TakenTime | None:
    held = await time_of(transaction, practice, appointment)
    if held is None or held.lifted:
        return held
    for actor in held.actors:
        for cell in held.cells:
            found = await transaction.get(TakenCell, _key(practice, actor, cell))
            if found is None or appointment not in found.holders:
                continue  # its time has passed, or its hold had, and somebody else has it
            left = tuple(one for one in found.holders if one != appointment)
            if left:
                await transaction.put(msgspec.structs.replace(found, holders=left))
            else:
                await transaction.delete(TakenCell, found.key)
    return held


def _key(practice: str, actor: str, cell: int) -> str:
    return f"{practice}/{actor}/{cell}"


def _day(practice: str, actor: str, cell: int) -> str:
    return f"{practice}/{actor}/{cell // _CELLS_OF_A_DAY}"
