"""Files into the store: read here, checked in other processes, written here in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fhir_portal.access.context import GRANT_WRITING, LABEL, AuthContext
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir.errors import FhirError
from fhir_portal.resources.importing.preparing import Prepared, prepare
from fhir_portal.resources.importing.progress import (
    ImportProgress,
    ImportRejection,
    forget,
)
from fhir_portal.resources.importing.splitting import Piece, Place, Refused
from fhir_portal.resources.server import Server
from fhir_portal.smart.scope import ScopeSet

JOB_PIECES: Final = 100
JOB_BYTES: Final = 512 * 1024
"""What is sent to another process at once."""
BATCH_PIECES: Final = 300
BATCH_BYTES: Final = 16 * 1024 * 1024
"""What is stored in one transaction: some tenths of a second, in which nobody else can write."""
_AHEAD: Final = 4
"""Jobs waiting for each process, so that none is idle while a batch is written."""
_SERVER_META: Final = frozenset({"versionId", "lastUpdated"})

OUTCOMES: Final = ("created", "updated", "unchanged")


def operator(practice: str, *, grants: bool = False) -> AuthContext:
    """Return the caller an import acts as: a system client of one practice that may label.

    With ``grants`` its Consents may become standing proxy grants, and it may write Person.
    """
    return AuthContext(
        client="import",
        context="system",
        scopes=ScopeSet.parse("system/*.cruds"),
        practice=practice,
        expires=float("inf"),
        token="",
        permissions=frozenset({LABEL, GRANT_WRITING} if grants else {LABEL}),
    )


@dataclass(slots=True)
class Summary:
    """What became of the resources read, those of an earlier, interrupted import included.

    ``resumed`` says how many of them that earlier import had dealt with.
    """

    files: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    resumed: int = 0
    rejected: list[ImportRejection] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def read(self) -> int:
        """All resources and unreadable documents met."""
        return self.created + self.updated + self.unchanged + len(self.rejected)

    @property
    def resources_per_second(self) -> float:
        """How fast this import dealt with what was left to it."""
        return (self.read - self.resumed) / self.seconds if self.seconds else 0.0

    def shown(self) -> dict[str, Any]:
        """Return the summary as JSON has it."""
        return {
            "files": self.files,
            "read": self.read,
            **{outcome: getattr(self, outcome) for outcome in OUTCOMES},
            "resumed": self.resumed,
            "rejected": [one.shown() for one in self.rejected],
            "seconds": round(self.seconds, 3),
            "resources_per_second": round(self.resources_per_second, 1),
        }


@dataclass(slots=True)
class _File:
    """A file being imported: its name as given, its records' key, and how far it got."""

    name: str
    path: Path
    progress: ImportProgress
    rejections: int = 0


@dataclass(slots=True)
class _Job:
    """Pieces of one file, the place behind them, and the answer of the process that has them."""

    file: _File
    pieces: list[Piece | Refused]
    behind: Place
    offset: int
    done: bool = False
    answer: asyncio.Future[list[Prepared | Refused]] | None = None


@dataclass(slots=True)
class _Batch:
    """Results in the order of the files, and for each file how far they go."""

    results: list[tuple[_File, Prepared | Refused]] = field(default_factory=list)
    behind: dict[int, tuple[_File, Place, bool]] = field(default_factory=dict)
    size: int = 0
    offset: int = 0


class Importer:
    """One run of the import into the practice of ``auth``.

    ``jobs`` is the number of processes that check resources beside this one; with 0 this one does
    it. ``told`` is called after each batch with the bytes of the files dealt with so far.
    """

    def __init__(
        self,
        server: Server,
        auth: AuthContext,
        *,
        jobs: int = 1,
        told: Callable[[int, Summary], None] = lambda _done, _summary: None,
    ) -> None:
        self._server = server
        self._auth = auth
        self._jobs = jobs
        self._told = told
        self._bases = (server.base, *server.aliases)
        self._visible: dict[str, Visibility | FhirError] = {}
        self._begun: set[str] = set()
        self._summary = Summary()

    async def run(self, paths: Sequence[Path]) -> Summary:
        """Import files, each resource in one of the transactions that also keep the progress.

        What an earlier run of the same files stored before it was interrupted is passed over.

        Raises:
            OSError: a file cannot be read.
            FhirError: the store cannot be written.
            BrokenExecutor: a checking process died.
        """
        started = self._server.clock()
        with self._processes() as processes:
            batch = _Batch()
            async for job in self._answered(paths, processes):
                self._take(batch, job)
                if len(batch.results) >= BATCH_PIECES or batch.size >= BATCH_BYTES:
                    await self._store(batch)
                    batch = _Batch()
            await self._store(batch)
        for key in sorted(self._begun):
            await self._server.store.transact(lambda t, key=key: forget(t, key))
        self._summary.seconds = self._server.clock() - started
        return self._summary

    # ---- reading

    async def _answered(
        self, paths: Iterable[Path], processes: Executor | None
    ) -> AsyncIterator[_Job]:
        """Yield jobs in the order of the files, each with its answer on the way."""
        waiting: deque[_Job] = deque()
        loop = asyncio.get_running_loop()
        async for job in self._read(paths):
            pieces = [piece for piece in job.pieces if isinstance(piece, Piece)]
            if processes is not None and pieces:
                job.answer = loop.run_in_executor(processes, prepare, pieces, self._bases)
            waiting.append(job)
            if len(waiting) > self._jobs * _AHEAD:
                yield await self._answer(waiting.popleft())
        while waiting:
            yield await self._answer(waiting.popleft())

    async def _answer(self, job: _Job) -> _Job:
        pieces = [piece for piece in job.pieces if isinstance(piece, Piece)]
        results = await job.answer if job.answer else prepare(pieces, self._bases)
