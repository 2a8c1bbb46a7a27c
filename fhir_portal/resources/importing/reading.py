"""Files into checked resources, in order: read here, checked in other processes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fhir_portal.fhir.errors import Issue
from fhir_portal.records import RecordReader
from fhir_portal.resources.importing.files import DamagedFile, digest_of, documents
from fhir_portal.resources.importing.preparing import Prepared, prepare
from fhir_portal.resources.importing.progress import (
    ImportProgress,
    ImportRejection,
    rejections_of,
)
from fhir_portal.resources.importing.splitting import Piece, Place, Refused, split

_PIECES: Final = 100
_BYTES: Final = 512 * 1024
"""What is sent to another process at once."""
_AHEAD: Final = 4
"""Stretches on their way to each process, so that none is idle while others are stored."""


@dataclass(slots=True)
class Source:
    """A file of this import: its name as given, how far it got, what was refused of it.

    ``number`` counts the files, ``before`` the bytes of those that come before it.
    """

    number: int
    name: str
    path: Path
    before: int
    progress: ImportProgress
    rejected: list[ImportRejection]


@dataclass(slots=True)
class Stretch:
    """Consecutive resources of one file, and where the file goes on behind them.

    ``offset`` is that place in bytes, roughly; ``done`` says that nothing comes behind.
    """

    source: Source
    line: int
    entry: int = 0
    offset: int = 0
    done: bool = False
    pieces: list[Piece] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    answer: Future[list[Prepared | Refused]] | None = None
    """What another process says of the pieces, if one was asked."""
    checked: list[Prepared | Refused] | None = None
    """What was found here."""

    async def results(self, bases: tuple[str, ...]) -> list[Prepared | Refused]:
        """Return what came of the pieces; checks them here if no other process does."""
        if self.checked is None and self.answer is not None:
            self.checked = await asyncio.wrap_future(self.answer)
        if self.checked is None:
            self.check(bases)
        return sorted([*self.refused, *(self.checked or ())], key=lambda one: one.place.order)

    @property
    def is_checked(self) -> bool:
        """Whether `results` need not wait."""
        return self.answer is None or self.checked is not None or self.answer.done()

    def take_back(self) -> bool:
        """Take the pieces back from the process that was asked, if it has not begun with them."""
        return not self.is_checked and self.answer is not None and self.answer.cancel()

    def check(self, bases: tuple[str, ...]) -> None:
        """Check the pieces in this process."""
        self.checked = prepare(self.pieces, bases)


async def sources(
    reader: RecordReader, practice: str, paths: Iterable[Path], now: float
) -> AsyncIterator[Source]:
    """Yield the files with what is known of them from an interrupted import.

    A file whose content came before in this import starts anew: it is read as if it had changed.
    """
    before = 0
    begun: set[str] = set()
    for number, path in enumerate(paths):
        key = f"{practice}/{digest_of(path)}"
        known = None if key in begun else await reader.get(ImportProgress, key)
        if known is None or (known.expires is not None and known.expires <= now):
            known, rejected = ImportProgress(key=key), []
        else:
            rejected = await rejections_of(reader, key)
        yield Source(number, str(path), path, before, known, rejected)
        begun.add(key)
        before += path.stat().st_size


async def in_order(
    found: AsyncIterator[Source],
    processes: Executor | None,
    *,
    ahead: int,
    bases: tuple[str, ...],
) -> AsyncIterator[Stretch]:
    """Yield the stretches of all files; ``ahead`` of them are being checked meanwhile.

    Without ``processes`` they are yet to be checked.
    """
    waiting: deque[Stretch] = deque()
    async for source in found:
        for stretch in stretches(source):
            if processes is not None and stretch.pieces:
                stretch.answer = processes.submit(prepare, stretch.pieces, bases)
            waiting.append(stretch)
            if len(waiting) > ahead * _AHEAD:
                _help(waiting, bases)
                yield waiting.popleft()
    while waiting:
        _help(waiting, bases)
        yield waiting.popleft()


def _help(waiting: Iterable[Stretch], bases: tuple[str, ...]) -> None:
    """Check what no other process has begun with, until the first that waits is checked.

    To check costs more than to store: this process would wait for the others, and most of all
    while they start.
    """
    first = next(iter(waiting))
    for stretch in waiting:
        if first.is_checked:
            return
        if stretch.take_back():
            stretch.check(bases)


def stretches(source: Source) -> Iterator[Stretch]:
    """Cut what is left of a file into stretches; the last one says that it is ``done``."""
    start = source.progress
    stretch = Stretch(source, start.line, start.entry)
    size = 0
    if not start.done:
        for piece, behind, offset in _pieces(source.path, Place(start.line, start.entry)):
            if isinstance(piece, Piece):
                stretch.pieces.append(piece)
                size += len(piece.data)
            else:
                stretch.refused.append(piece)
            stretch.line, stretch.entry = behind.order
            stretch.offset = offset
            if len(stretch.pieces) + len(stretch.refused) >= _PIECES or size >= _BYTES:
                yield stretch
                stretch = Stretch(source, stretch.line, stretch.entry, stretch.offset)
                size = 0
    stretch.done = True
    stretch.offset = source.path.stat().st_size
    yield stretch


def _pieces(path: Path, start: Place) -> Iterator[tuple[Piece | Refused, Place, int]]:
    """Yield what a file holds from a place on, each with the place and the offset behind it."""
    try:
        for document in documents(path):
            if document.line < start.line:
                continue
            found: Sequence[Piece | Refused] = split(document)
            if document.line == start.line:
                found = [one for one in found if one.place.order >= start.order]
            for one in found:
                behind = Place(document.line, (one.place.entry or 0) + 1)
                if one is found[-1]:
                    behind = Place(document.line + 1)
                yield one, behind, document.offset
    except DamagedFile as damage:
        if damage.line >= start.line:
            issue = Issue("structure", str(damage))
            yield Refused(Place(damage.line), (issue,)), Place(damage.line + 1), 0
