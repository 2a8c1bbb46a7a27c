"""Resources and their versions on MongoDB.

A document of ``resource`` is the current version of a resource of one practice, with everything by
which it is found; one of ``version`` any version, as it was. Both hold:

=========  ======================================================================
``_id``    ``practice/Type/id``, and in ``version`` ``/`` and the version's number
``p t i``  practice, type, id
``o``      owners, joined by a space
``sec``    sections, ``lab`` labels, ``d`` whether the practice directory lists it
``v``      version, ``u`` last updated, ``m`` method, ``x`` whether it is deleted
``b``      the bytes, or ``c``: where in ``content`` they are, in how many pieces
=========  ======================================================================

and in ``resource`` besides ``iv`` the version of the index entries, the entries themselves
(`fhir_portal.mongo.entries`), ``e`` what local resources it refers to and, on what all practices
share, ``hid``: the practices that have a resource of their own of this type and id.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from fhir_portal.access.visibility import SHARED, RowFacts, Visibility, VisibilityClass
from fhir_portal.fhir.errors import Conflict, Unavailable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.mongo import entries
from fhir_portal.mongo.changes import Changes
from fhir_portal.mongo.driver import Document
from fhir_portal.mongo.query import (
    Compiled,
    alike,
    allowed,
    compile_search,
    every,
    one_of,
    row_id,
    then,
)
from fhir_portal.mongo.reading import Reading
from fhir_portal.mongo.schema import CONTENT, RESOURCE, VERSION
from fhir_portal.resources.store import INDEX_VERSION, HistoryPage, NewVersion, Page, Row
from fhir_portal.search.registry import SearchParameter
from fhir_portal.search.request import SearchRequest

INLINE_BYTES: Final = 2**20
"""Longer bodies stand in ``content``, once for the current row and its version."""
PIECE_BYTES: Final = 4 * 2**20
_ROW: Final = ("p", "t", "i", "o", "sec", "lab", "d", "v", "u", "m", "b", "c")
_KEPT: Final = ("_id", "p", "t", "i", "v", "u", "x", "m", "b", "c", "hid")
"""What indexing anew leaves as it is."""
_BATCH: Final = 500
"""The most versions of the feed that are read at once."""
_CLASSES: Final = 2000

Place = tuple[int, int]
"""Where a version stands in the feed: ``u`` and ``n``."""


class Resources:
    """Reads through what is committed, or through a transaction."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._classes: dict[tuple[tuple[str, ...], tuple[str, ...]], VisibilityClass] = {}

    async def read(self, key: ResourceKey, visible: Visibility) -> Row | None:
        found = await self._current([key], visible, {}, _ROW)
        return (await self._made(found))[0] if found else None

    async def read_many(self, keys: Iterable[ResourceKey], visible: Visibility) -> list[Row]:
        wanted = list(dict.fromkeys(keys))
        return await self._made(await self._current(wanted, visible, {"x": False}, _ROW))

    async def vread(self, key: ResourceKey, version: int, visible: Visibility) -> Row | None:
        row = await self.read(key, visible)
        if row is None or row.version == version:
            return row
        if row.version < version or visible.only_current:
            return None
        own_id = version_id(row.facts.practice, key, version)
        found = await self._reading.find(
            VERSION,
            {"_id": own_id, **then(visible, [key.type])},
            hint="_id_",
            fields=_ROW,
            ids=[own_id],
        )
        return (await self._made(found))[0] if found else None

    async def search(
        self, request: SearchRequest, visible: Visibility, *, after: Sequence[Any] | None = None
    ) -> Page:
        query = await compile_search(self._reading, request, visible, after)
        total = None
        if request.total == "accurate" or request.only_total:
            total = 0 if query is None else await self._counted(query)
        if query is None or request.only_total:
            return Page((), total, None)
        found = await self._reading.find(
            RESOURCE,
            every(query.filter, query.behind),
            sort=query.order,
            limit=request.count + 1,
            hint=query.hint,
            fields=(*_ROW, *(name for name in query.keys if name.startswith("k."))),
        )
        rows = tuple(await self._made(found[: request.count]))
        following = None
        if len(found) > request.count:
            last = found[request.count - 1]
            following = (*(_value(last, name) for name in query.keys), last["p"], last["i"])
        return Page(rows, total, following)

    async def _counted(self, query: Compiled) -> int:
        return await self._reading.count(RESOURCE, query.filter, hint=query.hint)

    async def targets(self, rows: Sequence[Row], parameter: SearchParameter) -> list[ResourceKey]:
        ids = [row_id(row.facts.practice, row.key) for row in rows]
        if not ids:
            return []
        documents = await self._reading.find(
            RESOURCE, {"_id": one_of(ids)}, hint="_id_", fields=["s"], ids=ids
        )
        texts = {document["_id"]: document.get("s", []) for document in documents}
        found: dict[ResourceKey, None] = {}
        for own_id in ids:
            for value in entries.values_of(texts.get(own_id, []), parameter.code):
                name, _, target = value.partition("/")
                if target and "/" not in target and ":" not in name:
                    found[ResourceKey(name, target)] = None
        return list(found)

    async def referring(
        self,
        parameter: SearchParameter,
        targets: Sequence[ResourceKey],
        visible: Visibility,
        *,
        limit: int,
    ) -> list[Row]:
        bound = await allowed(self._reading, visible, [visible.resource_type])
        if bound is None or not targets:
            return []
        wanted = {entries.exactly(parameter.code, str(target)) for target in targets}
        found = await self._reading.find(
            RESOURCE,
            every({"s": one_of(wanted)}, bound, {"x": False}),
            sort=[("o", 1), ("_id", 1)],
            limit=limit,
            hint="term",
            fields=_ROW,
        )
        return await self._made(found)

    async def history(
        self, key: ResourceKey, visible: Visibility, *, count: int, after: Sequence[Any] | None
    ) -> HistoryPage:
        current = await self._current([key], visible, {}, ["p", "v"])
        if not current:
            return HistoryPage((), 0, None)
        practice, newest = current[0]["p"], current[0]["v"]
        oldest = newest if visible.only_current else 0
        bound = then(visible, [key.type])

        def up_to(version: int) -> Document:
            first, last = (version_id(practice, key, number) for number in (oldest, version))
            return {"_id": {"$gte": first, "$lte": last}, **bound}

        top = newest if after is None else min(int(after[0]) - 1, newest)
        found: list[Document] = []
        if top >= oldest:
            found = await self._reading.find(
                VERSION,
                up_to(top),
                sort=[("_id", -1)],
                limit=count + 1,
                hint="_id_",
                fields=_ROW,
            )
        if after is None and len(found) <= count:
            total = len(found)
        else:
            total = await self._reading.count(VERSION, up_to(newest), hint="_id_")
        page = tuple(await self._made(found[:count]))
        return HistoryPage(page, total, (page[-1].version,) if len(found) > count else None)

    async def feed(
        self,
        visible: Mapping[str, Visibility],
        *,
        since: int | None,
        count: int,
        after: Sequence[Any] | None,
    ) -> HistoryPage:
        """One writer at a time commits here, and each takes an instant no earlier than the last.

        ``after`` is (updated, type, id, practice, version) of the last version given out.
        """
        passed: Place | None = None
        if after is not None:
            updated, name, own_id, practice, version = after
            at = version_id(practice, ResourceKey(name, own_id), version)
            last = await self._reading.find(
                VERSION, {"_id": at}, hint="_id_", fields=["n"], ids=[at]
            )
            passed = (int(updated), last[0]["n"] if last else 0)
        found: list[Document] = []
        for names, bound in alike(visible.items()):
            found += await self._versions(names, bound, since or 0, passed, count + 1)
        found.sort(key=_place, reverse=True)
        page = tuple(await self._made(found[:count]))
        following = None
        if len(found) > count and page:
            facts, version = page[-1].facts, page[-1].version
            place = (facts.resource_type, facts.id, facts.practice)
            following = (page[-1].updated, *place, version)
        return HistoryPage(page, None, following)

    async def _versions(
        self,
        types: Sequence[str],
        visible: Visibility,
        since: int,
        passed: Place | None,
        wanted: int,
    ) -> list[Document]:
        """Return up to ``wanted`` versions visible then and now, newest first."""
        found: list[Document] = []
        limit = wanted
        bound = then(visible, types)
        while True:
            span: Document = {"u": {"$gte": since}}
            if passed is not None:
                updated, number = passed
                span["u"]["$lte"] = updated
                span["$or"] = [{"u": {"$lt": updated}}, {"n": {"$lt": number}}]
            batch = await self._reading.find(
                VERSION,
                every(bound, span),
                sort=[("u", -1), ("n", -1)],
                limit=limit,
                hint="feed" if visible.record is None else "of_record",
                fields=(*_ROW, "n"),
            )
            found += await self._still_visible(batch, types, visible)
            if len(found) >= wanted or len(batch) < limit:
                return found[:wanted]
            passed = _place(batch[-1])
            limit = min(2 * limit, max(_BATCH, wanted))

    async def _still_visible(
        self, versions: Sequence[Document], types: Sequence[str], visible: Visibility
    ) -> list[Document]:
        """Keep those versions whose current row is visible, too."""
        keys = {ResourceKey(one["t"], one["i"]) for one in versions}
        bound = await allowed(self._reading, visible, types, keys) if keys else None
        if bound is None:
            return []
        current = await self._reading.find(RESOURCE, bound, hint="_id_", fields=["v"])
        newest = {row["_id"]: row["v"] for row in current}
        found: list[Document] = []
        for one in versions:
            number = newest.get(row_id(one["p"], ResourceKey(one["t"], one["i"])))
            if number == one["v"] or (number is not None and not visible.only_current):
                found.append(one)
        return found

    async def stale(self) -> int:
        return await self._reading.count(RESOURCE, {"iv": {"$ne": INDEX_VERSION}}, hint="stale")

    async def stale_keys(self, limit: int) -> list[tuple[str, ResourceKey]]:
        found = await self._reading.find(
            RESOURCE,
            {"iv": {"$ne": INDEX_VERSION}},
            hint="stale",
            limit=limit,
            fields=("p", "t", "i"),
        )
        return [(row["p"], ResourceKey(row["t"], row["i"])) for row in found]

    async def _current(
        self,
        keys: Sequence[ResourceKey],
        visible: Visibility,
        more: Document,
        fields: Sequence[str],
    ) -> list[Document]:
        """Return the visible current rows among ``keys``, at most one for each."""
        keys = [key for key in keys if key.type == visible.resource_type]
        bound = await allowed(self._reading, visible, [visible.resource_type], keys)
        if bound is None:
            return []
        ids = [row_id(practice, key) for practice in visible.practices for key in keys]
        return await self._reading.find(
            RESOURCE, every(bound, more), hint="_id_", fields=fields, ids=ids
        )

    async def _made(self, documents: Sequence[Document]) -> list[Row]:
        """Make rows of documents; those of one record and class share both."""
        pieces = await self._pieces(documents)
        owners: dict[str, tuple[str, ...]] = {}
        found: list[Row] = []
        for document in documents:
            written = document["o"]
            of = owners.get(written)
            if of is None:
                of = owners[written] = tuple(written.split())
            facts = RowFacts(
                document["t"],
                document["i"],
                document["p"],
                of,
                self._class(document),
                document["d"],
            )
            body = document.get("b", b"")
            if "c" in document:
                body = _joined(document["c"], pieces)
            found.append(Row(facts, document["v"], document["u"], document["m"], body))
        return found

    def _class(self, document: Document) -> VisibilityClass:
        key = tuple(document["sec"]), tuple(document["lab"])
        found = self._classes.get(key)
        if found is None:
            if len(self._classes) >= _CLASSES:
                self._classes.clear()
            found = VisibilityClass(frozenset(key[0]), frozenset(key[1]))
            self._classes[key] = found
        return found

    async def _pieces(self, documents: Collection[Document]) -> dict[str, bytes]:
        """Return what is stored of long bodies, by ``_id``."""
        ids = [own_id for one in documents if "c" in one for own_id in _piece_ids(one["c"])]
        if not ids:
            return {}
        found = await self._reading.find(CONTENT, {"_id": one_of(ids)}, hint="_id_", ids=ids)
        return {one["_id"]: one["b"] for one in found}


class ResourceChanges(Resources):
    """Writes of one transaction."""

    def __init__(self, changes: Changes) -> None:
        super().__init__(changes)
        self._changes = changes
        self._shared: dict[str, bool] = {}
        """Whether there is anything of a type that all practices share."""

    async def next_instant(self, now: int) -> int:
        return max(now, self._changes.latest)

    async def write(self, new: NewVersion) -> None:
        row, facts = new.row, new.row.facts
        own_id = row_id(facts.practice, row.key)
        if row.version > 1:
            # The first version needs no look: it could not be stored a second time.
            found = await self._changes.find(
                RESOURCE, {"_id": own_id}, hint="_id_", fields=["v"], ids=[own_id]
            )
            if not found or found[0]["v"] != row.version - 1:
                raise _changed(row.key)
        common = {
            "p": facts.practice,
            "t": facts.resource_type,
            "i": facts.id,
            **_judged(facts),
            "v": row.version,
            "u": row.updated,
            "x": row.deleted,
            "m": row.method,
            **self._content(row),
        }
        current = {"_id": own_id, **common, "iv": INDEX_VERSION}
        if not row.deleted:
            current |= entries.fields(new.entries)
        if new.edges:
            current["e"] = list(dict.fromkeys(new.edges))
        if facts.practice == SHARED:
            self._shared[row.key.type] = True
            if hiding := await self._hiding(row.key):
                current["hid"] = hiding
        elif row.version == 1:
            await self._stand_before_shared(row.key, facts.practice)
        self._changes.insert(
            VERSION,
            {
                "_id": version_id(facts.practice, row.key, row.version),
                **common,
                "n": self._changes.sequence(),
            },
            lambda: _changed(row.key),
        )
        self._changes.replace(RESOURCE, current)
        self._changes.note_instant(row.updated)

    def _content(self, row: Row) -> Document:
        """Return the field that holds the body, having stored a long one in pieces."""
        if row.deleted:
            return {}
        if len(row.body) <= INLINE_BYTES:
            return {"b": row.body}
        stored = {"id": secrets.token_hex(16), "n": -(-len(row.body) // PIECE_BYTES)}
        for number, own_id in enumerate(_piece_ids(stored)):
            piece = row.body[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
            self._changes.insert(CONTENT, {"_id": own_id, "b": piece}, lambda: _changed(row.key))
        return {"c": stored}

    async def _stand_before_shared(self, key: ResourceKey, practice: str) -> None:
        if key.type not in self._shared:
            # Once for a transaction and type: what others share waits for its end.
            collected = await self._changes.collected(RESOURCE)
            self._shared[key.type] = any(
                row["p"] == SHARED and row["t"] == key.type for row in collected.values()
            ) or bool(
                await self._changes.find(
                    RESOURCE,
                    {"p": SHARED, "t": key.type},
                    limit=1,
                    hint="place",
                    fields=[],
                    ids=(),
                )
            )
        if self._shared[key.type]:
            hiding = {"$addToSet": {"hid": practice}}
            self._changes.update(RESOURCE, row_id(SHARED, key), hiding)

    async def _hiding(self, key: ResourceKey) -> list[str]:
        """Return the practices that have a resource of their own in place of a shared one."""
        found = await self._changes.find(
            RESOURCE, {"i": key.id, "t": key.type}, hint="own", fields=["p"]
        )
        return sorted({row["p"] for row in found} - {SHARED})

    async def reindex(self, new: NewVersion) -> None:
        facts = new.row.facts
        own_id = row_id(facts.practice, new.row.key)
        (stored,) = await self._changes.find(RESOURCE, {"_id": own_id}, hint="_id_", ids=[own_id])
        current: Document = {name: stored[name] for name in _KEPT if name in stored}
        current |= _judged(facts)
        current["iv"] = INDEX_VERSION
        if not new.row.deleted:
            current |= entries.fields(new.entries)
        if new.edges:
            current["e"] = list(dict.fromkeys(new.edges))
        self._changes.replace(RESOURCE, current)
        version = version_id(facts.practice, new.row.key, new.row.version)
        self._changes.update(VERSION, version, {"$set": _judged(facts)})

    async def reclassify(self, key: ResourceKey, facts: RowFacts) -> None:
        own_id = row_id(facts.practice, key)
        (row,) = await self._changes.find(
            RESOURCE, {"_id": own_id}, hint="_id_", fields=["v"], ids=[own_id]
        )
        judged = {"$set": _judged(facts)}
        self._changes.update(RESOURCE, own_id, judged)
        # The version in force now is what was derived anew; earlier ones keep what they had.
        self._changes.update(VERSION, version_id(facts.practice, key, row["v"]), judged)

    async def relabel(self, labels: Mapping[ResourceKey, frozenset[str]], practice: str) -> None:
        by_id = {row_id(practice, key): key for key in labels}
        wanted = sorted(by_id)
        for start in range(0, len(wanted), _BATCH):
            some = wanted[start : start + _BATCH]
            rows = await self._changes.find(
                RESOURCE, {"_id": one_of(some)}, hint="_id_", fields=["v"], ids=some
            )
            for row in rows:
                key = by_id[row["_id"]]
                held = {"$set": {"lab": sorted(labels[key])}}
                self._changes.update(RESOURCE, row["_id"], held)
                self._changes.update(VERSION, version_id(practice, key, row["v"]), held)

    async def referrers(
        self,
        target: ResourceKey,
        practice: str,
        *,
        types: Collection[str] | None = None,
        deleted: bool = False,
    ) -> list[Row]:
        # Asked after every write: to send what was collected each time would undo collecting it.
        collected = await self._changes.collected(RESOURCE)
        bound: Document = {} if deleted else {"x": False}
        if types is not None:
            bound["t"] = one_of(types)
        found = await self._changes.find(
            RESOURCE,
            {"p": practice, "e": str(target), **bound},
            hint="edge",
            fields=_ROW,
            ids=(),
        )
        rows = [row for row in found if row["_id"] not in collected]
        rows += [
            row
            for row in collected.values()
            if row["p"] == practice
            and (deleted or not row["x"])
            and (types is None or row["t"] in types)
            and str(target) in row.get("e", ())
        ]
        return await self._made(sorted(rows, key=lambda row: str(row["_id"])))

    async def edges(
        self, keys: Collection[ResourceKey], practice: str
    ) -> list[tuple[ResourceKey, ResourceKey]]:
        asked = {str(key): key for key in keys}
        fields = ("p", "t", "i", "e")
        # As `referrers`: asked after writes of what is labelled, whose collecting it is not to end.
        collected = await self._changes.collected(RESOURCE)
        own = sorted({row_id(practice, key) for key in keys} - collected.keys())
        rows = list(collected.values())
        if own:
            rows += await self._changes.find(
                RESOURCE, {"_id": one_of(own)}, hint="_id_", fields=fields, ids=own
            )
        above = await self._changes.find(
            RESOURCE,
            {"p": practice, "e": one_of(sorted(asked))},
            hint="edge",
            fields=fields,
            ids=(),
        )
        rows += [row for row in above if row["_id"] not in collected]
        found: dict[tuple[ResourceKey, ResourceKey], None] = {}
        for row in rows:
            if row["p"] != practice:
                continue
            source = ResourceKey(row["t"], row["i"])
            for to in row.get("e", ()):
                if to in asked or str(source) in asked:
                    found[source, ResourceKey.parse(to)] = None
        return list(found)

    async def facts(self, keys: Collection[ResourceKey], practice: str) -> list[RowFacts]:
        ids = {row_id(practice, key) for key in keys}
        collected = await self._changes.collected(RESOURCE)
        rows = [collected[own_id] for own_id in ids if own_id in collected]
        asked = sorted(ids - collected.keys())
        if asked:
            fields = ("p", "t", "i", "o", "sec", "lab", "d")
            rows += await self._changes.find(
                RESOURCE, {"_id": one_of(asked)}, hint="_id_", fields=fields, ids=asked
            )
        return [
            RowFacts(
                row["t"], row["i"], row["p"], tuple(row["o"].split()), self._class(row), row["d"]
            )
            for row in rows
        ]


def version_id(practice: str, key: ResourceKey, version: int) -> str:
    """Return the ``_id`` of a version: those of one resource sort as their numbers do."""
    return f"{row_id(practice, key)}/{version:010d}"


def _judged(facts: RowFacts) -> Document:
    """Return what a visibility judges, and reclassifying changes."""
    return {
        "o": " ".join(facts.owners),
        "sec": sorted(facts.visibility_class.sections),
        "lab": sorted(facts.visibility_class.labels),
        "d": facts.directory,
    }


def _changed(key: ResourceKey) -> Conflict:
    return Conflict(f"{key} was changed by somebody else at the same time")


def _place(version: Document) -> Place:
    return version["u"], version["n"]


def _value(document: Document, name: str) -> Any:
    """Return what stands under a dotted name, or ``None``."""
    found: Any = document
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _piece_ids(stored: Mapping[str, Any]) -> list[str]:
    return [f"{stored['id']}/{number:04d}" for number in range(stored["n"])]


def _joined(stored: Mapping[str, Any], pieces: Mapping[str, bytes]) -> bytes:
    try:
        return b"".join(pieces[own_id] for own_id in _piece_ids(stored))
    except KeyError:
        message = "a part of a stored resource is missing"
        raise Unavailable(message) from None
