"""The protocol every resource store implements. No call is possible without a Visibility.

Embedded and MongoDB run one contract suite (``tests/stores``). What a store returns was filtered
in its query; `fhir_portal.portal` checks type, id and owner once more before anything leaves. A
server is opened on a `PortalStore`, which holds everything that lasts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from fhir_portal.access.log import AccessLog
from fhir_portal.access.visibility import RowFacts, Visibility
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import RecordReader, RecordStore, RecordTransaction
from fhir_portal.search.indexer import IndexEntries
from fhir_portal.search.registry import SearchParameter
from fhir_portal.search.request import SearchRequest

INDEX_VERSION = 2
"""Raised only together with a reindex; rows of another version make the server not ready."""

T = TypeVar("T")


class Row(msgspec.Struct, frozen=True):
    """One stored version: the bytes as sent (``id`` and ``meta`` set) and what the server knows.

    ``updated`` is milliseconds since 1970 UTC; ``method`` the HTTP method that made it (``POST``,
    ``PUT``, ``DELETE``); a deleted version has no body.
    """

    facts: RowFacts
    version: int
    updated: int
    method: str
    body: bytes

    @property
    def deleted(self) -> bool:
        """Whether this version is a deletion."""
        return self.method == "DELETE"

    @property
    def key(self) -> ResourceKey:
        """``Type/id``."""
        return ResourceKey(self.facts.resource_type, self.facts.id)


def labelled_in(rows: Iterable[Row]) -> frozenset[str]:
    """Return what of these carries a label, its own or one from elsewhere (``Type/id``)."""
    return frozenset(str(row.key) for row in rows if row.facts.visibility_class.labels)


class Page(msgspec.Struct, frozen=True):
    """A page of matches, the total when it was asked for, and where the next page starts.

    ``next`` holds the sort values and the id of the last match, all of it visible to the caller.
    """

    rows: tuple[Row, ...]
    total: int | None
    next: tuple[Any, ...] | None


class HistoryPage(msgspec.Struct, frozen=True):
    """Versions in the order asked for; ``next`` is where the following page starts."""

    rows: tuple[Row, ...]
    total: int | None
    next: tuple[Any, ...] | None


class ResourceReader(Protocol):
    """Read what a Visibility allows."""

    async def read(self, key: ResourceKey, visible: Visibility) -> Row | None:
        """Return the current version, a deletion included, or ``None`` if absent or hidden."""
        ...

    async def vread(self, key: ResourceKey, version: int, visible: Visibility) -> Row | None:
        """Return one version, if both it and the current one are visible."""
        ...

    async def read_many(self, keys: Iterable[ResourceKey], visible: Visibility) -> list[Row]:
        """Return the current, not deleted rows among ``keys`` (of the visibility's type)."""
        ...

    async def search(
        self, request: SearchRequest, visible: Visibility, *, after: Sequence[Any] | None = None
    ) -> Page:
        """Run a search: criteria, sort, count and total; includes are the interaction's."""
        ...

    async def targets(self, rows: Sequence[Row], parameter: SearchParameter) -> list[ResourceKey]:
        """Return what these rows' reference parameter points at, in order, without repeats."""
        ...

    async def referring(
        self,
        parameter: SearchParameter,
        targets: Sequence[ResourceKey],
        visible: Visibility,
        *,
        limit: int,
    ) -> list[Row]:
        """Return rows whose reference parameter points at one of ``targets``."""
        ...

    async def history(
        self, key: ResourceKey, visible: Visibility, *, count: int, after: Sequence[Any] | None
    ) -> HistoryPage:
        """Return a resource's versions, newest first, each visible then and now."""
        ...

    async def feed(
        self,
        visible: Mapping[str, Visibility],
        *,
        since: int | None,
        count: int,
        after: Sequence[Any] | None,
    ) -> HistoryPage:
        """Return versions of these types with ``since <= updated``, newest first.

        No version becomes visible later with an instant before the latest one given out: a store
        whose commits can overtake each other holds the feed back by the longest transaction.
        """
        ...

    async def stale(self) -> int:
        """Return how many rows were indexed by another `INDEX_VERSION` (0 is ready)."""
        ...

    async def stale_keys(self, limit: int) -> list[tuple[str, ResourceKey]]:
        """Return practice and key of some rows that `stale` counts."""
        ...


class NewVersion(msgspec.Struct, frozen=True):
    """What one write stores: the row, its index entries, and the local resources it points at.

    A deletion keeps the edges it is given, for `ResourceTransaction.referrers` with ``deleted``.
    """

    row: Row
    entries: IndexEntries
    edges: tuple[str, ...]


class ResourceTransaction(ResourceReader, RecordTransaction, Protocol):
    """Reads see the transaction's own writes; writers of one store are serialised per row."""

    async def next_instant(self, now: int) -> int:
        """Return ``now`` (milliseconds), or the latest ``updated`` stored if that is later."""
        ...

    async def write(self, new: NewVersion) -> None:
        """Store a version as the current one and replace its index entries.

        Raises `fhir_portal.fhir.errors.Conflict` if that version exists already.
        """
        ...

    async def reclassify(self, key: ResourceKey, facts: RowFacts) -> None:
        """Give the current version other owners, class or directory mark; the bytes stay."""
        ...

    async def relabel(self, labels: Mapping[ResourceKey, frozenset[str]], practice: str) -> None:
        """Give current rows of a practice, deleted ones too, other labels; the rest stays."""
        ...

    async def reindex(self, new: NewVersion) -> None:
        """Give the current version other facts, index entries and edges, of `INDEX_VERSION`."""
        ...

    async def referrers(
        self,
        target: ResourceKey,
        practice: str,
        *,
        types: Collection[str] | None = None,
        deleted: bool = False,
    ) -> list[Row]:
        """Return current rows of a practice that point at ``target``: of these types, or of all.

        With ``deleted`` also those that were deleted with edges.
        """
        ...

    async def edges(
        self, keys: Collection[ResourceKey], practice: str
    ) -> list[tuple[ResourceKey, ResourceKey]]:
        """Return what the rows of a practice with these keys point at, and what points at them.

        Pairs of who points and at what, those of deleted rows included.
        """
        ...

    async def facts(self, keys: Collection[ResourceKey], practice: str) -> list[RowFacts]:
        """Return the facts of current rows of a practice, of deleted ones too."""
        ...


class ResourceStore(ResourceReader, RecordReader, Protocol):
    """Committed state, and transactions over it."""

    async def epoch(self) -> object:
        """Return a value that differs whenever anything was committed by anybody.

        What was computed from the store may be reused while the value is the same. What was
        acknowledged before a request came shows in the value that the request reads.
        """
        ...

    async def search_all(self, asked: Sequence[tuple[SearchRequest, Visibility]]) -> list[Page]:
        """Run several searches together: the first page of each, in their order, without totals.

        None waits for another; where the store can, all see the same moment.
        """
        ...

    async def transact(self, work: Callable[[ResourceTransaction], Awaitable[T]]) -> T:
        """Run ``work`` all or nothing; see `fhir_portal.records.RecordStore.transact`."""
        ...


class PortalStore(ResourceStore, RecordStore, Protocol):
    """What a server is opened on: resources, records and the access log of one deployment."""

    @property
    def log(self) -> AccessLog:
        """The access log."""
        ...

    def about(self) -> list[str]:
        """Say in lines for an operator what store this is; no line holds a password."""
        ...

    async def faults(self) -> list[str]:
        """Return why the server is not ready, in plain words; nothing when it is."""
        ...

    async def check_indexes(self) -> list[str]:
        """Create declared indexes that are missing; return a line for each, with its state.

        Raises:
            Unavailable: one cannot be created, or another one has its name.
        """
        ...

    async def aclose(self) -> None:
        """Wait for the writes that are under way, then close everything."""
        ...
