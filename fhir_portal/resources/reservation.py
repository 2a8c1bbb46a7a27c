"""Whose time is taken: rows of actor and five-minute cell, each there once.

An Appointment that takes time is a holder of one `TakenCell` for each of its actors and each cell
of five minutes that it touches, written in the transaction that stores the Appointment, whoever
writes it. The key of a cell is unique, so everybody who wants some of those minutes meets there,
at one server or at two; the holders of a cell have it side by side where their times, to the
microsecond, do not overlap. A held time (`Holder.until`) is free again once that moment has
passed, whether or not a job has noticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from fhir_portal.fhir.datetime import period_of
from fhir_portal.records import Record, RecordReader, RecordTransaction

CELL_SECONDS: Final = 300
LONGEST_DAYS: Final = 7
"""An Appointment that takes time is no longer than this."""
_CELLS_OF_A_DAY: Final = 86_400 // CELL_SECONDS
_KEPT_SECONDS: Final = 86_400.0
_MICROSECONDS: Final = 1_000_000
_CELL_US: Final = CELL_SECONDS * _MICROSECONDS
_SLOT: Final = "Slot/"
_LONGEST_US: Final = LONGEST_DAYS * 86_400 * _MICROSECONDS


class UnfitTime(Exception):
    """There is no such time, or it is longer than can be taken. The words say which."""


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start`` to before ``end``, in microseconds since 1970 UTC."""

    start: int
    end: int

    @classmethod
    def of(cls, start: str, end: str) -> Span:
        """Return a time; one of no length takes five minutes.

        Both are FHIR instants. Raises `UnfitTime`.
        """
        try:
            low, high = period_of(start)[0], period_of(end)[0]
        except ValueError:
            message = "start and end have to be moments"
            raise UnfitTime(message) from None
        return cls(low, low + _CELL_US if low == high else high)

    @property
    def cells(self) -> range:
        """The cells that it touches: five minutes each, counted since 1970 UTC."""
        return range(self.start // _CELL_US, -(-self.end // _CELL_US))

    def meets(self, other: Span) -> bool:
        """Whether the two overlap: one may begin at the moment in which the other ends."""
        return self.start < other.end and other.start < self.end

    def is_over(self, now: float) -> bool:
        """Whether all of it has passed."""
        return max(self.start, self.end) <= now * _MICROSECONDS

    @property
    def fits(self) -> bool:
        """Whether it can be taken."""
        return 0 < self.end - self.start <= _LONGEST_US

    def check(self) -> None:
        """Refuse what cannot be taken. Raises `UnfitTime`."""
        if self.end <= self.start:
            message = "it ends before it starts"
            raise UnfitTime(message)
        if not self.fits:
            message = f"what takes time is at most {LONGEST_DAYS} days long: store it in parts"
            raise UnfitTime(message)


class Holder(msgspec.Struct, frozen=True):
    """What has some of a cell: an Appointment's id, its whole time, and when its hold ends.

    Times are in microseconds since 1970 UTC, ``until`` is in seconds, ``None`` for what is booked.
    """

    appointment: str
    start: int
    end: int
    until: float | None = None

    @property
    def span(self) -> Span:
        """Its time."""
        return Span(self.start, self.end)

    def is_there(self, now: float) -> bool:
        """Whether it holds anything: what is held is nobody's once its hold is over."""
        return self.until is None or now < self.until


class TakenCell(Record, frozen=True, kw_only=True):
    """Five minutes of an actor: ``key`` is ``<practice>/<Type>/<id>/<cell>``.

    ``cell`` counts five minutes since 1970 UTC. Times of the ``holders`` do not overlap, but where
    an EHR may book twice (`fhir_portal.accounts.policy`).
    """

    kind: ClassVar[str] = "taken-five-minutes"
    indexed: ClassVar[tuple[str, ...]] = ("day",)

    cell: int
    day: str
    holders: tuple[Holder, ...]


class TakenTime(Record, frozen=True, kw_only=True):
    """What one Appointment takes; ``key`` is ``<practice>/<id>``.

    ``actors`` are ``Type/<id>``; ``start`` and ``end`` are in microseconds since 1970 UTC.
    ``lifted`` says that its cells are put away while a transaction Bundle moves things about.
    ``slots`` are the ``Slot/<id>`` that an Appointment is in: they say that they are busy because
    of it, and are not in its way. A Slot that is busy takes time itself, under ``Slot/<id>``.
    """

    kind: ClassVar[str] = "taken-span"

    actors: tuple[str, ...]
    start: int
    end: int
    until: float | None = None
    lifted: bool = False
    slots: tuple[str, ...] = ()

    @property
    def practice(self) -> str:
        """The practice's key."""
        return self.key.partition("/")[0]

    @property
    def appointment(self) -> str:
        """The id of the Appointment, or ``Slot/<id>``."""
        return self.key.partition("/")[2]

    @property
    def span(self) -> Span:
        """Its time."""
        return Span(self.start, self.end)


class TimeTaken(Exception):
    """Somebody else has some of this time."""


async def take(
    transaction: RecordTransaction,
    wanted: TakenTime,
    *,
    now: float,
    twice: bool = False,
    over_slots: bool = False,
) -> bool:
    """Take time for an Appointment, in place of what it had; true if another one has some of it.

    ``twice`` takes also what somebody else has, ``over_slots`` what is said to be busy by nothing
    but a Slot. Raises `TimeTaken`; then nothing may be kept of the transaction.
    """
    await release(transaction, wanted.practice, wanted.appointment)
    span, is_shared = wanted.span, False
    mine = Holder(wanted.appointment, wanted.start, wanted.end, wanted.until)
    for actor in wanted.actors:
        for cell in span.cells:
            key = _key(wanted.practice, actor, cell)
            found = await transaction.get(TakenCell, key)
            there = found.holders if found is not None else ()
            others = tuple(one for one in there if one.is_there(now))
            met = [one for one in others if one.span.meets(span)]
            busy = [one for one in met if is_slot(one.appointment)]
            in_the_way = (
                [] if over_slots else [o for o in busy if o.appointment not in wanted.slots]
            )
            if len(met) > len(busy):
                is_shared = True
            if not twice and (in_the_way or len(met) > len(busy)):
                raise TimeTaken
            new = TakenCell(
                key=key,
                cell=cell,
                day=_day(wanted.practice, actor, cell),
                holders=(*others, mine),
                expires=(cell + 1) * CELL_SECONDS + _KEPT_SECONDS,
            )
            # Where there is none yet the unique key decides.
            await (transaction.insert if found is None else transaction.put)(new)
    expires = wanted.end / _MICROSECONDS + 2 * _KEPT_SECONDS
    await transaction.put(msgspec.structs.replace(wanted, lifted=False, expires=expires))
    return is_shared


def is_slot(holder: str) -> bool:
    """Whether what takes time is a Slot that says it is busy, and no Appointment."""
    return holder.startswith(_SLOT)


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


async def taken_times(
    reader: RecordReader, practice: str, actor: str, within: Span, *, now: float
) -> frozenset[Span]:
    """Return the times of an actor that somebody has now and of which some is within a span."""
    found: set[Span] = set()
    cells = within.cells
    for day in range(cells.start // _CELLS_OF_A_DAY, (cells.stop - 1) // _CELLS_OF_A_DAY + 1):
        name = _day(practice, actor, day * _CELLS_OF_A_DAY)
        for cell in await reader.find(TakenCell, "day", name):
            found |= {one.span for one in cell.holders if one.is_there(now)}
    return frozenset(one for one in found if one.meets(within))


async def _give_back(
    transaction: RecordTransaction, practice: str, appointment: str
) -> TakenTime | None:
    held = await time_of(transaction, practice, appointment)
    if held is None or held.lifted:
        return held
    for actor in held.actors:
        for cell in held.span.cells:
            found = await transaction.get(TakenCell, _key(practice, actor, cell))
            if found is None:
                continue  # its time has passed
            left = tuple(one for one in found.holders if one.appointment != appointment)
            if left:
                await transaction.put(msgspec.structs.replace(found, holders=left))
            else:
                await transaction.delete(TakenCell, found.key)
    return held


def _key(practice: str, actor: str, cell: int) -> str:
    return f"{practice}/{actor}/{cell}"


def _day(practice: str, actor: str, cell: int) -> str:
    return f"{practice}/{actor}/{cell // _CELLS_OF_A_DAY}"
