"""Resources, their versions and index rows on SQLite."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from fhir_portal.access.visibility import RowFacts, Visibility, VisibilityClass
from fhir_portal.embedded.database import Database
from fhir_portal.embedded.query import ROW, Interned, Query, Where, compile_search, one_of
from fhir_portal.fhir.errors import Conflict
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.store import INDEX_VERSION, HistoryPage, NewVersion, Page, Row
from fhir_portal.search.registry import SearchParameter
from fhir_portal.search.request import SearchRequest

_VERSION: Final = (
    "v.type, v.id, v.practice, v.owners, v.class, v.directory, v.version, v.updated,"
    " v.method, v.body"
)
_CHUNK: Final = 200


class Resources:
    """Reads through one connection: the store's, or the writer's inside a transaction."""

    def __init__(self, database: Database, interned: Interned, *, writing: bool) -> None:
        self._database = database
        self._interned = interned
        self._writing = writing

    async def read(self, key: ResourceKey, visible: Visibility) -> Row | None:
        if len(visible.practices) > 1:
            found = await self._rows([key], visible, deleted=True)
            return found[0] if found else None
        bound = self._where(visible)
        place = (visible.resource_type, key.id)
        rows = await self._select(_reading(bound.sql), (*place, *bound.parameters))
        return self._row(rows[0]) if rows else None

    async def read_many(self, keys: Iterable[ResourceKey], visible: Visibility) -> list[Row]:
        return await self._rows(keys, visible, deleted=False)

    async def vread(self, key: ResourceKey, version: int, visible: Visibility) -> Row | None:
        now = self._where(visible)
        then = _then(self._interned, visible)
        rows = await self._select(
            f"SELECT {_VERSION} FROM resource r CROSS JOIN version v ON v.rid = r.rid"
            f" WHERE r.type = ? AND r.id = ? AND v.version = ?{now.sql}{then.sql} LIMIT 1",
            (key.type, key.id, version, *now.parameters, *then.parameters),
        )
        return self._row(rows[0]) if rows else None

    async def search(
        self, request: SearchRequest, visible: Visibility, *, after: Sequence[Any] | None = None
    ) -> Page:
        query = await self.compiled(request, visible, after)
        total = None
        if request.total == "accurate" or request.only_total:
            total = (await self._select(query.count_sql, query.count_parameters))[0][0]
        if request.only_total:
            return Page((), total, None)
        found = await self._select(query.sql, (*query.parameters, request.count + 1))
        return self.page(found, request, total)

    def page(self, found: Sequence[Any], request: SearchRequest, total: int | None = None) -> Page:
        """Return the page of what a compiled search, asked for one more than the page, selected."""
        rows = tuple(self._made(found[: request.count]))
        following = None
        if len(found) > request.count:
            last = found[request.count - 1]
            following = (*last[10:], last[2], last[1])
        return Page(rows, total, following)

    async def compiled(
        self, request: SearchRequest, visible: Visibility, after: Sequence[Any] | None = None
    ) -> Query:
        """Compile a search, or return what was made of it before if it is a standing one."""
        if not request.standing or after is not None:
            return await compile_search(self._interned, self._select, request, visible, after)
        query = self._interned.standing(request, visible)
        if query is None:
            query = await compile_search(self._interned, self._select, request, visible, None)
            self._interned.keep(request, visible, query)
        return query

    async def targets(self, rows: Sequence[Row], parameter: SearchParameter) -> list[ResourceKey]:
        found: dict[ResourceKey, None] = {}
        for row in rows:
            slot = self._interned.slot(row.facts.practice, row.facts.resource_type, parameter.code)
            values = await self._select(
                "SELECT t.value FROM resource r CROSS JOIN term t INDEXED BY term_rid"
                " ON t.rid = r.rid AND t.slot = ? WHERE r.type = ? AND r.id = ? AND r.practice = ?",
                (slot, row.facts.resource_type, row.facts.id, row.facts.practice),
            )
            for (value,) in values:
                name, _, own_id = value.partition("/")
                if own_id and "/" not in own_id and ":" not in name:
                    found[ResourceKey(name, own_id)] = None
        return list(found)

    async def referring(
        self,
        parameter: SearchParameter,
        targets: Sequence[ResourceKey],
        visible: Visibility,
        *,
        limit: int,
    ) -> list[Row]:
        bound = self._where(visible)
        slots = self._interned.slots(visible.practices, visible.resource_type, parameter.code)
        if not slots or not targets:
            return []
        rows = await self._select(
            f"SELECT DISTINCT {ROW}, r.rid FROM term t CROSS JOIN resource r ON r.rid = t.rid"
            " CROSS JOIN version v ON v.vid = r.vid"
            f" WHERE t.slot IN ({_marks(slots)}) AND t.value IN ({_marks(targets)})"
            f" AND r.deleted = 0{bound.sql} ORDER BY r.rid LIMIT ?",
            (*slots, *map(str, targets), *bound.parameters, limit),
        )
        return self._made(rows)

    async def history(
        self, key: ResourceKey, visible: Visibility, *, count: int, after: Sequence[Any] | None
    ) -> HistoryPage:
        now, then = self._where(visible), _then(self._interned, visible)
        common = (
            "FROM resource r CROSS JOIN version v ON v.rid = r.rid"
            f" WHERE r.type = ? AND r.id = ?{now.sql}{then.sql}"
        )
        parameters = (key.type, key.id, *now.parameters, *then.parameters)
        total = (await self._select(f"SELECT count(*) {common}", parameters))[0][0]
        rows = await self._select(
            f"SELECT {_VERSION} {common} AND v.version < ? ORDER BY v.version DESC LIMIT ?",
            (*parameters, after[0] if after else 2**62, count + 1),
        )
        page = tuple(self._made(rows[:count]))
        return HistoryPage(page, total, (page[-1].version,) if len(rows) > count else None)

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
        high, passed = 2**62, 2**62
        if after:
            high = int(after[0])
            found = await self._select(
                "SELECT v.vid FROM resource r CROSS JOIN version v ON v.rid = r.rid"
                " WHERE r.type = ? AND r.id = ? AND r.practice = ? AND v.version = ?",
                tuple(after[1:5]),
            )
            passed = found[0][0] if found else 0
        by_bound: dict[tuple[str, tuple[Any, ...]], list[str]] = {}
        for name, bound in visible.items():
            now, then = self._where(bound), _then(self._interned, bound)
            sql = now.sql.replace(f" AND r.type = '{name}'", "", 1) + then.sql
            by_bound.setdefault((sql, (*now.parameters, *then.parameters)), []).append(name)
        rows: list[Any] = []
        for (sql, parameters), names in by_bound.items():
            record = visible[names[0]].record
            index = "version_feed" if record is None else "version_of_record AND v.owners = ?"
            index, _, owned = index.partition(" ")
            for practice in visible[names[0]].practices:
                rows += await self._select(
                    f"SELECT {_VERSION}, v.vid FROM version v INDEXED BY {index}"
                    " CROSS JOIN resource r ON r.rid = v.rid"
                    f" WHERE v.practice = ? {owned} AND v.updated >= ? AND v.updated <= ?"
                    " AND (v.updated < ? OR v.vid < ?)"
                    f" AND v.type IN ({_marks(names)}){sql}"
                    " ORDER BY v.updated DESC, v.vid DESC LIMIT ?",
                    (
                        *((practice,) if record is None else (practice, record)),
                        *(since or 0, high, high, passed),
                        *names,
                        *parameters,
                        count + 1,
                    ),
                )
        rows.sort(key=lambda row: (row[7], row[10]), reverse=True)
        page = tuple(self._made(rows[:count]))
        following = None
        if len(rows) > count:
            last = page[-1]
            following = (last.updated, *_place(last.facts), last.version)
        return HistoryPage(page, None, following)

    async def stale(self) -> int:
        rows = await self._select(
            "SELECT count(*) FROM (SELECT 1 FROM resource WHERE index_version < ?1"
            " UNION ALL SELECT 1 FROM resource WHERE index_version > ?1)",
            (INDEX_VERSION,),
        )
        return int(rows[0][0])

    async def stale_keys(self, limit: int) -> list[tuple[str, ResourceKey]]:
        rows = await self._select(
            "SELECT practice, type, id FROM resource WHERE index_version < ?1"
            " UNION ALL SELECT practice, type, id FROM resource WHERE index_version > ?1 LIMIT ?2",
            (INDEX_VERSION, limit),
        )
        return [(practice, ResourceKey(name, own_id)) for practice, name, own_id in rows]

    async def _rows(
        self, keys: Iterable[ResourceKey], visible: Visibility, *, deleted: bool
    ) -> list[Row]:
        bound = self._where(visible)
        living = "" if deleted else " AND r.deleted = 0"
        found: list[Row] = []
        waiting = iter(key.id for key in keys)
        while ids := list(islice(waiting, _CHUNK)):
            rows = await self._select(
                f"SELECT {ROW} FROM resource r CROSS JOIN version v ON v.vid = r.vid"
                f" WHERE r.type = ? AND r.id IN ({_marks(ids)}){living}{bound.sql}",
                (visible.resource_type, *ids, *bound.parameters),
            )
            found += self._made(rows)
        if len(visible.practices) > 1:
            # An id that both the practice and the shared space use: the practice's own wins.
            first: dict[str, Row] = {}
            for row in sorted(found, key=lambda r: visible.practices.index(r.facts.practice)):
                first.setdefault(row.facts.id, row)
            found = list(first.values())
        return found

    def _where(self, visible: Visibility) -> Where:
        return self._interned.compiled(visible)

    async def _select(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        if self._writing:
            return self._database.writer.execute(sql, parameters).fetchall()
        return await self._database.select(sql, parameters)

    def _row(self, row: Sequence[Any]) -> Row:
        return self._made([row])[0]

    def _made(self, rows: Sequence[Sequence[Any]]) -> list[Row]:
        """Make rows of what was selected; those of one record and class share both."""
        owners: dict[str, tuple[str, ...]] = {}
        found: list[Row] = []
        text = self._interned.text
        for row in rows:
            written = row[3]
            of = owners.get(written)
            if of is None:
                of = owners[written] = tuple(written.split())
            facts = RowFacts(row[0], row[1], row[2], of, text(row[4]), row[5] == 1)
            found.append(Row(facts, row[6], row[7], row[8], row[9]))
        return found


class ResourceChanges(Resources):
    """Writes on the writer's connection; the caller holds the transaction."""

    async def next_instant(self, now: int) -> int:
        latest = self._execute(
            "SELECT max(updated) FROM (SELECT updated FROM version ORDER BY vid DESC LIMIT 1)"
        ).fetchone()[0]
        return max(now, latest or 0)

    async def write(self, new: NewVersion) -> None:
        facts = new.row.facts
        class_id = self._interned.class_id(facts.visibility_class)
        place = (facts.resource_type, facts.id, facts.practice)
        known = (" ".join(facts.owners), class_id, int(facts.directory))
        deleted = int(new.row.deleted)
        state = (*known, new.row.version, new.row.updated, deleted, INDEX_VERSION)
        found = self._execute(
            "SELECT rid FROM resource WHERE type = ? AND id = ? AND practice = ?", place
        ).fetchone()
        # The version's number is asked for first: so no row is written, and indexed, twice.
        (vid,) = self._execute("SELECT coalesce(max(vid), 0) + 1 FROM version").fetchone()
        try:
            if found is None:
                rid = self._execute(
                    "INSERT INTO resource (type, id, practice, owners, class, directory, version,"
                    " updated, deleted, index_version, vid) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    (*place, *state, vid),
                ).lastrowid
            else:
                (rid,) = found
            self._execute(
                "INSERT INTO version (vid, rid, version, type, id, practice, owners, class,"
                " directory, updated, deleted, method, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    vid,
                    rid,
                    new.row.version,
                    *place,
                    *known,
                    new.row.updated,
                    deleted,
                    new.row.method,
                    new.row.body,
                ),
            )
        except sqlite3.IntegrityError:
            message = f"{new.row.key} was changed by somebody else at the same time"
            raise Conflict(message) from None
        if found is not None:
            self._execute(
                "UPDATE resource SET owners = ?, class = ?, directory = ?, version = ?,"
                " updated = ?, deleted = ?, index_version = ?, vid = ? WHERE rid = ?",
                (*state, vid, rid),
            )
        self._reindex(new, rid, is_new=found is None)

    def _reindex(self, new: NewVersion, rid: int | None, *, is_new: bool = False) -> None:
        facts = new.row.facts
        if not is_new:
            for table in ("term", "string", "span"):
                self._execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
            self._execute("DELETE FROM edge WHERE source = ?", (rid,))
        if new.edges:
            owners = " ".join(facts.owners)
            self._database.writer.executemany(
                "INSERT INTO edge VALUES (?,?,?,?)",
                [(facts.practice, to, owners, rid) for to in dict.fromkeys(new.edges)],
            )
        if not new.row.deleted:
            self._index_resource(new, rid)

    def _index_resource(self, new: NewVersion, rid: int | None) -> None:
        facts, entries = new.row.facts, new.entries
        slots = self._interned.slots_for_write(facts.practice, facts.resource_type)
        many = self._database.writer.executemany
        terms = {(slots[p], code, rid, system) for p, system, code in entries.tokens}
        terms.update((slots[p], target, rid, "") for p, target in entries.references)
        terms.update((slots[p], uri, rid, "") for p, uri in entries.uris)
        if terms:
            many("INSERT INTO term VALUES (?,?,?,?)", sorted(terms))
        if entries.strings:
            strings = {(slots[p], value, rid, exact) for p, value, exact in entries.strings}
            many("INSERT INTO string VALUES (?,?,?,?)", sorted(strings))
        spans: set[tuple[Any, ...]] = {
            (slots[p], low, high, rid, "", "") for p, low, high in entries.dates
        }
        spans.update((slots[p], low, high, rid, "", "") for p, low, high in entries.numbers)
        spans.update((slots[p], low, high, rid, s, c) for p, low, high, s, c in entries.quantities)
        if spans:
            many("INSERT INTO span VALUES (?,?,?,?,?,?)", spans)

    async def reindex(self, new: NewVersion) -> None:
        facts = new.row.facts
        rid, *stored = self._execute(
            "UPDATE resource SET index_version = ? WHERE type = ? AND id = ? AND practice = ?"
            " RETURNING rid, owners, class, directory",
            (INDEX_VERSION, *_place(facts)),
        ).fetchone()
        class_id = self._interned.class_id(facts.visibility_class)
        if stored != [" ".join(facts.owners), class_id, int(facts.directory)]:
            await self.reclassify(new.row.key, facts)  # mostly the class is what it was
        self._reindex(new, rid)

    async def reclassify(self, key: ResourceKey, facts: RowFacts) -> None:
        owners = " ".join(facts.owners)
        (rid,) = self._execute(
            "UPDATE resource SET owners = ?, class = ?, directory = ?"
            " WHERE type = ? AND id = ? AND practice = ? RETURNING rid",
            (
                owners,
                self._interned.class_id(facts.visibility_class),
                int(facts.directory),
                key.type,
                key.id,
                facts.practice,
            ),
        ).fetchone()
        # The version in force now is what was derived anew; earlier ones keep what they had.
        self._execute(
            "UPDATE version SET owners = ?, class = ?, directory = ?"
            " WHERE vid = (SELECT vid FROM resource WHERE rid = ?)",
            (owners, self._interned.class_id(facts.visibility_class), int(facts.directory), rid),
        )
        self._execute("UPDATE edge SET owners = ? WHERE source = ?", (owners, rid))

    async def relabel(self, labels: Mapping[ResourceKey, frozenset[str]], practice: str) -> None:
        for key, held in labels.items():
            found = self._execute(
                "SELECT rid, vid, class FROM resource WHERE type = ? AND id = ? AND practice = ?",
                (key.type, key.id, practice),
            ).fetchone()
            if found is None:
                continue
            rid, vid, class_id = found
            sections = self._interned.text(class_id).sections
            changed = self._interned.class_id(VisibilityClass(sections, held))
            self._execute("UPDATE resource SET class = ? WHERE rid = ?", (changed, rid))
            self._execute("UPDATE version SET class = ? WHERE vid = ?", (changed, vid))

    async def referrers(
        self,
        target: ResourceKey,
        practice: str,
        *,
        types: Collection[str] | None = None,
        deleted: bool = False,
    ) -> list[Row]:
        bound = "" if deleted else " AND r.deleted = 0"
        if types is not None:
            bound += f" AND r.type IN ({_marks(types)})"
        rows = self._execute(
            f"SELECT {ROW} FROM edge e CROSS JOIN resource r ON r.rid = e.source"
            " CROSS JOIN version v ON v.vid = r.vid"
            f" WHERE e.practice = ? AND e.target = ?{bound} ORDER BY r.rid",
            (practice, str(target), *(types or ())),
        )
        return self._made(rows.fetchall())

    async def edges(
        self, keys: Collection[ResourceKey], practice: str
    ) -> list[tuple[ResourceKey, ResourceKey]]:
        found: list[tuple[ResourceKey, ResourceKey]] = []
        for key in keys:  # each two seeks; see `facts`
            above = self._execute(
                "SELECT r.type, r.id FROM edge e CROSS JOIN resource r ON r.rid = e.source"
                " WHERE e.practice = ? AND e.target = ?",
                (practice, str(key)),
            )
            found += [(ResourceKey(*row), key) for row in above.fetchall()]
            below = self._execute(
                "SELECT e.target FROM resource r CROSS JOIN edge e INDEXED BY edge_source"
                " ON e.source = r.rid WHERE r.type = ? AND r.id = ? AND r.practice = ?",
                (key.type, key.id, practice),
            )
            found += [(key, ResourceKey.parse(to)) for (to,) in below.fetchall()]
        return list(dict.fromkeys(found))

    async def facts(self, keys: Collection[ResourceKey], practice: str) -> list[RowFacts]:
        found: list[RowFacts] = []
        text = self._interned.text
        for key in keys:  # each one seek; a list of pairs would be a scan
            rows = self._execute(
                "SELECT owners, class, directory FROM resource"
                " WHERE type = ? AND id = ? AND practice = ?",
                (key.type, key.id, practice),
            )
            for owners, class_id, listed in rows.fetchall():
                of = tuple(owners.split())
                found.append(RowFacts(key.type, key.id, practice, of, text(class_id), listed == 1))
        return found

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._database.writer.execute(sql, parameters)


@functools.lru_cache(1024)  # one text for each bound: SQLite keeps its statements by them
def _reading(where: str) -> str:
    """Return what reads the one row of a type, an id and a practice."""
    return (
        f"SELECT {ROW} FROM resource r CROSS JOIN version v ON v.vid = r.vid"
        f" WHERE r.type = ? AND r.id = ?{where}"
    )


def _then(interned: Interned, visible: Visibility) -> Where:
    """What the version itself must satisfy, besides what the current row must.

    Where earlier versions cannot be judged the current version is the only one.
    """
    parameters: list[Any] = list(visible.practices)
    sql = f" AND v.practice IN ({_marks(visible.practices)})"
    if visible.record is not None:
        sql += " AND v.owners = ?"
        parameters.append(visible.record)
    if visible.sections is not None or visible.labels is not None:
        among = one_of("v.class", interned.permitted(visible))
        sql += among.sql
        parameters += among.parameters
    if visible.only_current:
        sql += " AND v.vid = r.vid"
    return Where(sql, tuple(parameters))


def _place(facts: RowFacts) -> tuple[str, str, str]:
    return facts.resource_type, facts.id, facts.practice


def _marks(values: Iterable[Any]) -> str:
    return ",".join("?" for _ in values) or "NULL"
