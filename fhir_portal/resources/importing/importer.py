"""An import: checked resources into the store in batches, each with the progress it makes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fhir_portal.access.context import GRANT_WRITING, LABEL, AuthContext
from fhir_portal.access.log import AccessRow
from fhir_portal.access.owners import DERIVED, DIRECTORY, OWNERS, WITHOUT_OWNER, FromReferrers
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import (
    Conflict,
    FhirError,
    Forbidden,
    Invalid,
    InvalidSearch,
    PreconditionFailed,
    Unprocessable,
)
from fhir_portal.fhir.reference import ResourceKey, references_in
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.hand_labels import keep_by_hand
from fhir_portal.resources.importing.preparing import Condition, Prepared, stay_with_parent
from fhir_portal.resources.importing.progress import (
    KEPT_SECONDS,
    ImportProgress,
    ImportRejection,
    forget,
    rejection_key,
)
from fhir_portal.resources.importing.reading import Source, Stretch, in_order, sources
from fhir_portal.resources.importing.splitting import Refused
from fhir_portal.resources.interactions.create import conditional_match
from fhir_portal.resources.permission import permitted
from fhir_portal.resources.portal_status import without_status
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import store_extracted, update_in
from fhir_portal.smart.scope import ScopeSet

T = TypeVar("T")

BATCH_SIZE: Final = 300
_BATCH_BYTES: Final = 16 * 1024 * 1024
"""What is stored in one transaction: some tenths of a second, in which nobody else can write."""
_FILES: Final = 500
"""Files whose records are removed in one transaction."""
_SERVER_META: Final = frozenset({"versionId", "lastUpdated"})
_LABELS: Final = frozenset({"security", "tag"})


def operator(practice: str, *, grants: bool = False) -> AuthContext:
    """Return the caller an import acts as: a system client of one practice that may label.

    With ``grants`` the Consents it writes may become proxy grants, and it may write Person.
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
            "created": self.created,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "resumed": self.resumed,
            "rejected": [one.shown() for one in self.rejected],
            "seconds": round(self.seconds, 3),
            "resources_per_second": round(self.resources_per_second, 1),
        }


Report = Callable[[int, Summary], None]
"""Called after each batch with the bytes of the files dealt with so far."""


async def import_files(
    server: Server,
    auth: AuthContext,
    paths: Sequence[Path],
    *,
    jobs: int,
    report: Report | None = None,
    batch_size: int = BATCH_SIZE,
) -> Summary:
    """Import files into the practice of ``auth``; what an interrupted import did is passed over.

    ``jobs`` is the number of processes that check resources beside this one; with 0 this one
    does it. A batch is stored when it holds ``batch_size`` resources.

    Raises:
        OSError: a file cannot be read.
        FhirError: the store cannot be written.
        BrokenExecutor: a checking process died.
    """
    run = _Import(server, auth, report, batch_size)
    started = server.clock()
    bases = (server.base, *server.aliases)
    found = sources(server.store, auth.practice, paths, started)
    with _processes(jobs) as processes:
        async for stretch in in_order(found, processes, ahead=jobs, bases=bases):
            await run.take(stretch, await stretch.results(bases))
        await run.finish()
    run.summary.seconds = server.clock() - started
    return run.summary


def _processes(jobs: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    if jobs == 0:
        return nullcontext()
    # Spawned, not forked: a copy of this process would hold the store's files and locks.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=stay_with_parent)


@dataclass(slots=True)
class _Batch:
    """Results to be stored together, and the last stretch of each file they belong to."""

    results: list[tuple[Source, Prepared | Refused]] = field(default_factory=list)
    ends: dict[int, Stretch] = field(default_factory=dict)
    size: int = 0

    def in_writing_order(self) -> Iterator[tuple[int, Source, Prepared]]:
        """Yield what is to be written, owners before what takes its ownership from them.

        What says whose time an Appointment takes comes before it, too.
        """
        found = [
            (_rank(result.type), number, source, result)
            for number, (source, result) in enumerate(self.results)
            if isinstance(result, Prepared)
        ]
        for _, number, source, result in sorted(found, key=lambda one: one[:2]):
            yield number, source, result


def _rank(resource_type: str) -> int:
    if resource_type in DIRECTORY or resource_type in WITHOUT_OWNER:
        return 0  # what conditional references look for, and Schedules and Slots
    if resource_type not in DERIVED:
        return 1
    return 2 if isinstance(OWNERS[resource_type], FromReferrers) else 3


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a transaction did for each file (by number): its progress now, and what it refused."""

    progress: dict[int, ImportProgress]
    rejected: dict[int, list[ImportRejection]]
    rows: list[Row]


class _NotStored(Exception):
    """The rules of the store refuse one resource of a batch; the others go without it."""

    def __init__(self, number: int, refusal: FhirError) -> None:
        super().__init__(str(refusal))
        self.number = number
        self.refusal = refusal


class _Import:
    """The storing side of an import."""

    def __init__(
        self, server: Server, auth: AuthContext, report: Report | None, batch_size: int
    ) -> None:
        self.summary = Summary()
        self._server = server
        self._auth = auth
        self._report = report
        self._batch_size = batch_size
        self._batch = _Batch()
        self._keys: dict[str, None] = {}
        self._last: Source | None = None
        self._logged: set[tuple[str, bool]] = set()
        self._permitted: dict[str, Visibility | FhirError] = {}

    async def take(self, stretch: Stretch, results: Sequence[Prepared | Refused]) -> None:
        """Add a stretch to the batch, and store the batch when it is full."""
        source, batch = stretch.source, self._batch
        if source is not self._last:
            self._begin(source)
        for result in results:
            batch.results.append((source, self._allowed(result)))
            batch.size += len(result.body) if isinstance(result, Prepared) else 0
        batch.ends[source.number] = stretch
        if len(batch.results) >= self._batch_size or batch.size >= _BATCH_BYTES:
            await self._store()

    async def finish(self) -> None:
        """Store what is left and forget the progress: the next import starts over."""
        await self._store()
        keys = list(self._keys)
        for start in range(0, len(keys), _FILES):
            await self._server.store.transact(partial(_forget, keys[start : start + _FILES]))

    def _begin(self, source: Source) -> None:
        self._last = source
        self._keys[source.progress.key] = None
        summary, done = self.summary, source.progress
        summary.files += 1
        summary.created += done.created
        summary.updated += done.updated
        summary.unchanged += done.unchanged
        summary.rejected += source.rejected
        summary.resumed += done.created + done.updated + done.unchanged + len(source.rejected)

    def _allowed(self, result: Prepared | Refused) -> Prepared | Refused:
        """Ask, once per type, whether the operator may write it."""
        if isinstance(result, Refused):
            return result
        answer = self._permitted.get(result.type)
        if answer is None:
            try:
                permitted(self._server, self._auth, "c", result.type)
                answer = permitted(self._server, self._auth, "u", result.type)
            except FhirError as error:
                answer = error
            self._permitted[result.type] = answer
        return result if isinstance(answer, Visibility) else refused(result, answer)

    async def _store(self) -> None:
        batch = self._batch
        if not batch.ends:
            return
        stored = None
        while stored is None:
            try:
                stored = await _to_the_end(
                    self._server.store.transact(lambda t: self._write(t, batch))
                )
            except _NotStored as one:
                source, result = batch.results[one.number]
                batch.results[one.number] = (source, refused(result, one.refusal))
        self._batch = _Batch()
        await self._log(stored.rows)
        for number, stretch in batch.ends.items():
            self._count(stretch.source, stored.progress[number], stored.rejected[number])
        if self._report is not None:
            self._report(stretch.source.before + stretch.offset, self.summary)

    def _count(self, source: Source, now: ImportProgress, rejected: list[ImportRejection]) -> None:
        summary, then = self.summary, source.progress
        summary.created += now.created - then.created
        summary.updated += now.updated - then.updated
        summary.unchanged += now.unchanged - then.unchanged
        summary.rejected += rejected
        source.rejected += rejected
        source.progress = now

    async def _write(self, transaction: ResourceTransaction, batch: _Batch) -> _Stored:
        """Store a batch and the progress it makes; may be run again, so it changes nothing else."""
        outcomes: dict[int, Counter[str]] = {file: Counter() for file in batch.ends}
        results = list(batch.results)
        rows: list[Row] = []
        found: dict[str, str] = {}
        for number, source, prepared in batch.in_writing_order():
            try:
                targets = await self._look_up(transaction, prepared.conditions, found)
            except FhirError as refusal:
                results[number] = (source, refused(prepared, refusal))
                continue
            try:
                row, outcome = await self._write_one(transaction, prepared, targets)
            except (Conflict, Forbidden, Invalid, Unprocessable) as refusal:
                raise _NotStored(number, refusal) from None
            outcomes[source.number][outcome] += 1
            if outcome != "unchanged":
                rows.append(row)
        stored = _Stored({}, {file: [] for file in batch.ends}, rows)
        expires = self._server.clock() + KEPT_SECONDS
        for source, result in results:
            if isinstance(result, Refused):
                now_refused = stored.rejected[source.number]
                place = len(source.rejected) + len(now_refused)
                key = rejection_key(source.progress.key, place)
                now_refused.append(rejection_of(result, source.name, key, expires))
                await transaction.put(now_refused[-1])
        for number, stretch in batch.ends.items():
            then, made = stretch.source.progress, outcomes[number]
            now = stored.progress[number] = msgspec.structs.replace(
                then,
                expires=expires,
                line=stretch.line,
                entry=stretch.entry,
                done=stretch.done,
                created=then.created + made["created"],
                updated=then.updated + made["updated"],
                unchanged=then.unchanged + made["unchanged"],
            )
            await transaction.put(now)
        return stored

    async def _look_up(
        self,
        transaction: ResourceTransaction,
        conditions: Sequence[Condition],
        found: dict[str, str],
    ) -> dict[str, str]:
        """Return what each condition's stand-in stands for; ``found`` remembers it for the batch.

        Raises:
            FhirError: a condition matches nothing, several resources, or is no search.
        """
        targets: dict[str, str] = {}
        for one in conditions:
            if one.text not in found:
                name = one.text.partition("?")[0]
                readable = permitted(self._server, self._auth, "s", name)
                try:
                    match = await conditional_match(
                        self._server, transaction, name, one.text, readable
                    )
                except (InvalidSearch, PreconditionFailed) as error:
                    raise Unprocessable(str(error), expression=one.path) from None
                if match is None:
                    words = "This conditional reference matches nothing that is stored."
                    raise Unprocessable(words, expression=one.path)
                found[one.text] = str(match.key)
            targets[one.stand_in] = found[one.text]
        return targets

    async def _write_one(
        self, transaction: ResourceTransaction, prepared: Prepared, targets: Mapping[str, str]
    ) -> tuple[Row, str]:
        """Store a resource unless it is there already; return its row and what was done."""
        visible = self._permitted[prepared.type]
        assert isinstance(visible, Visibility)  # noqa: S101 - _allowed refused the others
        key = ResourceKey(prepared.type, prepared.id)
        tree, entries = json.reread(prepared.body), prepared.entries
        if targets:
            for _, holder in references_in(tree):
                holder["reference"] = targets.get(holder["reference"], holder["reference"])
            references = {(code, targets.get(text, text)) for code, text in entries.references}
            entries = replace(entries, references=sorted(references))
        before = await transaction.read(key, visible)
        if before is None:
            row = await store_extracted(
                transaction, self._server, self._auth, tree, entries, visible,
                version=1, method="PUT",
            )  # fmt: skip
            return row, "created"
        if not before.deleted:
            old = json.parse(before.body)
            if "security" in (tree.get("meta") or {}) and LABEL in self._auth.permissions:
                # What is there by hand is kept in an update, and makes none by itself.
                await keep_by_hand(transaction, self._auth.practice, key, old, tree)
            if _says_the_same(old, tree):
                return before, "unchanged"
        written = await update_in(
            transaction, self._server, self._auth, tree, visible,
            key=key, if_match=None, if_none_match=None,
        )  # fmt: skip
        return written.row, "created" if written.created else "updated"

    async def _log(self, rows: Sequence[Row]) -> None:
        """Add one line to the log of each record this import touches.

        One for the whole import: how many batches it took tells of other people's records.
        """
        touched = dict.fromkeys(one for row in rows for one in row.facts.touched)
        new = [one for one in touched if one not in self._logged]
        if not new:
            return
        self._logged.update(new)
        await self._server.log.append(
            [
                AccessRow(
                    at=int(self._server.clock() * 1000),
                    practice=self._auth.practice,
                    record=record,
                    interaction="batch",
                    what="batch",
                    status=200,
                    client=self._auth.client,
                    context=self._auth.context,
                    told=told,
                )
                for record, told in new
            ]
        )


def refused(result: Prepared | Refused, refusal: FhirError) -> Refused:
    """Return a sound resource as one that may not be written."""
    return Refused(result.place, refusal.issues, result.type, result.id)


def rejection_of(result: Refused, file: str, key: str, expires: float) -> ImportRejection:
    """Return the record of a refusal."""
    issues = tuple(
        {"code": one.code, "diagnostics": one.diagnostics, "expression": one.expression}
        for one in result.issues
    )
    return ImportRejection(
        key=key,
        expires=expires,
        file=file,
        line=result.place.line,
        index=result.place.entry,
        type=result.type,
        id=result.id,
        issues=issues,
    )


def _says_the_same(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
    """Whether an update would change anything, to the digit and to the order of members.

    Labels and tags stand where the sender says nothing about them (FHIR R4 §3.1.0.4).
    """
    stored, sent = without_status(stored), without_status(sent)
    kept = _LABELS - (sent.get("meta") or {}).keys()
    return _content(stored, _SERVER_META | kept) == _content(sent, _SERVER_META)


def _content(tree: Mapping[str, Any], left_out: frozenset[str]) -> bytes:
    meta = {name: v for name, v in (tree.get("meta") or {}).items() if name not in left_out}
    rest = {name: value for name, value in tree.items() if name != "meta"}
    return json.dumps({"meta": meta, "rest": rest})


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a transaction, and when interrupted meanwhile, until it is through."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _forget(keys: Sequence[str], transaction: RecordTransaction) -> None:
    for key in keys:
        await forget(transaction, key)
