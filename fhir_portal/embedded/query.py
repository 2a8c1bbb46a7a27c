"""A `SearchRequest` and a `Visibility`, compiled to SQL.

Every criterion seeks an index: the one that matches fewest rows leads, the others are looked up
per candidate. User text only ever travels as a bound parameter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fhir_portal.access.visibility import SHARED, Visibility, VisibilityClass
from fhir_portal.embedded.database import Database
from fhir_portal.fhir.errors import Invalid
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.registry import COLUMNS
from fhir_portal.search.request import SearchRequest, Sort
from fhir_portal.search.values import (
    Conditions,
    DateValue,
    Missing,
    NumberValue,
    QuantityValue,
    StringValue,
    Token,
    UriValue,
    Value,
    fold_code,
)

Select = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]

ROW: Final = (
    "r.type, r.id, r.practice, r.owners, r.class, r.directory, r.version, r.updated,"
    " v.method, v.body"
)
_COMPILED: Final = 2000
_RUNS: Final = 8
_PROBE: Final = 500
"""Index rows counted per criterion to find the one to lead with; with fewer it leads at once."""
_FEW_TARGETS: Final = 8
"""So many are looked up at about the cost of comparing ten entries with them."""
_PREFIX_END: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Where:
    """A piece of a WHERE clause (starting with `` AND``, or empty) and its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()

    def __add__(self, other: Where) -> Where:
        return Where(self.sql + other.sql, self.parameters + other.parameters)


# Bound, not written: SQLite has no plan for INDEXED BY beside a constant that is false.
NOTHING: Final = Where(" AND ?", (0,))


class Interned:
    """Classes and slots by number, as one connection knows them.

    Numbers of the writer's are forgotten when its transaction is undone, for then they may be
    given out again.
    """

    def __init__(self, database: Database, *, writing: bool) -> None:
        self._connection = database.writer if writing else database.reader
        self._database = database
        self._writing = writing
        self._classes: dict[int, VisibilityClass] = {}
        self._class_ids: dict[str, int] = {}
        self._slots: dict[tuple[str, str, str], int] = {}
        self._absent: set[tuple[str, str, str]] = set()  # as long as nothing is committed
        self._given: dict[tuple[str, str], _Given] = {}
        self._permitted: dict[tuple[Any, Any], list[int]] = {}
        self._compiled: dict[tuple[int, str], tuple[Visibility, Where]] = {}
        self._standing: dict[tuple[int, int], tuple[SearchRequest, Visibility, Query]] = {}
        self.populated: dict[tuple[str, str], bool] = {}
        """Whether there are rows of (type, practice), as long as nothing is committed."""
        self._epoch: Any = None
        if writing or database.in_memory:  # in memory the reader sees what is being written
            database.on_undo(self._forget)

    def _forget(self) -> None:
        self._classes.clear()
        self._class_ids.clear()
        self._slots.clear()
        self._absent.clear()
        self._given.clear()
        self._permitted.clear()
        self._compiled.clear()
        self._standing.clear()

    def now(self) -> int:
        """Microseconds since 1970 UTC, for ``ap`` on dates."""
        return int(self._database.clock() * 1_000_000)

    def text(self, class_id: int) -> VisibilityClass:
        """Return the class behind a number."""
        found = self._classes.get(class_id)
        if found is None:
            (text,) = self._connection.execute(
                "SELECT text FROM class WHERE class = ?", (class_id,)
            ).fetchone()
            found = self._classes[class_id] = VisibilityClass.parse(text)
        return found

    def class_id(self, visibility_class: VisibilityClass) -> int:
        """Return the number of a class, giving it one if it is new (writer only)."""
        text = str(visibility_class)
        found = self._class_ids.get(text)
        if found is None:
            self._connection.execute("INSERT OR IGNORE INTO class (text) VALUES (?)", (text,))
            (found,) = self._connection.execute(
                "SELECT class FROM class WHERE text = ?", (text,)
            ).fetchone()
            self._class_ids[text] = found
        return found

    def permitted(self, visible: Visibility) -> list[int]:
        """Return the numbers of the classes that sections and labels permit, as stored now."""
        self.refresh()
        key = (visible.sections, visible.labels)
        found = self._permitted.get(key)
        if found is None:
            rows = self._connection.execute("SELECT class FROM class ORDER BY class").fetchall()
            found = [class_id for (class_id,) in rows if visible.permits_class(self.text(class_id))]
            self._permitted[key] = found
        return found

    def compiled(self, visible: Visibility, practice: str = "") -> Where:
        """Return `visible_where` of the row ``r``, compiled once while nothing is committed.

        With ``practice`` it is bounded to that one of the visibility's practices.
        """
        self.refresh()
        key = (id(visible), practice)
        found = self._compiled.get(key)
        if found is None or found[0] is not visible:
            found = self._compiled[key] = (visible, _bounded(self, visible, practice))
        return found[1]

    def standing(self, request: SearchRequest, visible: Visibility) -> Query | None:
        """Return what was made of a standing search while nothing is committed."""
        self.refresh()
        found = self._standing.get((id(request), id(visible)))
        return None if found is None else found[2]

    def keep(self, request: SearchRequest, visible: Visibility, query: Query) -> None:
        """Keep what was made of a standing search; holding both keeps their identities theirs."""
        self._standing[id(request), id(visible)] = request, visible, query

    def refresh(self) -> None:
        """Forget what a commit, or the transaction under way, may have changed."""
        epoch = None if self._writing else self._database.epoch()
        kept = len(self._compiled) + len(self._standing)
        if self._writing or epoch != self._epoch or kept > _COMPILED:
            self._permitted.clear()
            self._compiled.clear()
            self._standing.clear()
            self._absent.clear()
            self.populated.clear()
            self._epoch = epoch

    def slot(self, practice: str, resource_type: str, parameter: str) -> int | None:
        """Return the number of (practice, type, parameter), or ``None`` if nothing is indexed."""
        key = (practice, resource_type, parameter)
        found = self._slots.get(key)
        if found is None:
            if not self._writing:
                self.refresh()
                if key in self._absent:
                    return None
            row = self._connection.execute(
                "SELECT slot FROM slot WHERE practice = ? AND type = ? AND parameter = ?", key
            ).fetchone()
            if row is None:
                if not self._writing:
                    self._absent.add(key)
                return None
            found = self._slots[key] = row[0]
        return found

    def slots(self, practices: Iterable[str], resource_type: str, parameter: str) -> list[int]:
        """Return the numbers a parameter has in some practices."""
        found = (self.slot(practice, resource_type, parameter) for practice in practices)
        return [slot for slot in found if slot is not None]

    def slots_for_write(self, practice: str, resource_type: str) -> Mapping[str, int]:
        """Return the numbers of a type's parameters; who asks for one gives it (writer only)."""
        found = self._given.get((practice, resource_type))
        if found is None:
            found = _Given(self, practice, resource_type)
            self._given[practice, resource_type] = found
        return found

    def give_slot(self, practice: str, resource_type: str, parameter: str) -> int:
        """Return the number of (practice, type, parameter), giving it one if it is new."""
        found = self.slot(practice, resource_type, parameter)
        if found is None:
            found = self._connection.execute(
                "INSERT INTO slot (practice, type, parameter) VALUES (?, ?, ?)",
                (practice, resource_type, parameter),
            ).lastrowid
            assert found is not None  # noqa: S101 - an INSERT just gave it
            self._slots[practice, resource_type, parameter] = found
        return found


class _Given(dict[str, int]):
    """The numbers of the parameters of one type, each looked up or given when first asked for."""

    def __init__(self, interned: Interned, practice: str, resource_type: str) -> None:
        super().__init__()
        self._interned = interned
        self._of = (practice, resource_type)

    def __missing__(self, parameter: str) -> int:
        number = self[parameter] = self._interned.give_slot(*self._of, parameter)
        return number


def _bounded(interned: Interned, visible: Visibility, practice: str) -> Where:
    if not practice or visible.practices == (practice,):
        return visible_where(interned, visible)
    where = visible_where(interned, replace(visible, practices=(practice,)))
    return where + _not_shadowed("r", visible.practices) if practice == SHARED else where


def visible_where(interned: Interned, visible: Visibility, alias: str = "r") -> Where:
    """Compile a visibility for the current row under ``alias``."""
    parameters: list[Any] = list(visible.practices)
    sql = f" AND {alias}.type = '{visible.resource_type}'"
    sql += f" AND {alias}.practice IN ({_marks(visible.practices)})"
    if visible.record is not None:
        sql += f" AND {alias}.owners = ?"
        parameters.append(visible.record)
    if visible.sections is not None or visible.labels is not None:
        among = one_of(f"{alias}.class", interned.permitted(visible))
        sql += among.sql
        parameters += among.parameters
    if visible.ids is not None:
        sql += f" AND {alias}.id IN ({_marks(visible.ids)})"
        parameters += sorted(visible.ids)
    where = Where(sql, tuple(parameters))
    if SHARED in visible.practices and len(visible.practices) > 1:
        where += _not_shadowed(alias, visible.practices)
    if visible.any_of is not None:
        where += _any_of(interned, visible, alias)
    if visible.referrers is not None:
        where += _referred(interned, visible, alias)
    return where


def one_of(column: str, numbers: Sequence[int]) -> Where:
    """Compile that a column has one of these numbers, which are in order.

    By the runs that they lie in, where there are few: SQLite fills a table for each long list.
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    if not runs or len(runs) > _RUNS:
        return Where(f" AND {column} IN ({_marks(numbers)})", tuple(numbers))
    sql = " OR ".join(f"{column} BETWEEN ? AND ?" for _ in runs)
    return Where(f" AND ({sql})", tuple(bound for run in runs for bound in run))


def _not_shadowed(alias: str, practices: Sequence[str]) -> Where:
    """A practice's own resource, living or deleted, stands before a shared one of the same id."""
    own = [practice for practice in practices if practice != SHARED]
    return Where(
        f" AND ({alias}.practice <> ? OR NOT EXISTS (SELECT 1 FROM resource o"
        f" INDEXED BY resource_key WHERE o.type = {alias}.type AND o.id = {alias}.id"
        f" AND o.practice IN ({_marks(own)})))",
        (SHARED, *own),
    )


def _any_of(interned: Interned, visible: Visibility, alias: str) -> Where:
    clauses: list[str] = []
    parameters: tuple[Any, ...] = ()
    for criteria in visible.any_of or ():
        joined = Where("")
        for criterion in criteria:
            slots = interned.slots(
                visible.practices, visible.resource_type, criterion.parameter.code
            )
            joined += _exists(alias, slots, criterion, interned.now())
        clauses.append(f"(1{joined.sql})")
        parameters += joined.parameters
    return Where(f" AND ({' OR '.join(clauses)})", parameters) if clauses else NOTHING


def _referred(interned: Interned, visible: Visibility, alias: str) -> Where:
    """In the practice directory, or referred to by something one of the referrers shows."""
    alike: dict[tuple[Any, ...], list[Visibility]] = {}
    for one in visible.referrers or ():
        bounds = (one.practices, one.record, one.sections, one.labels, one.ids, one.any_of)
        alike.setdefault(bounds, []).append(one)
    clauses: list[str] = []
    parameters: list[Any] = []
    for group in alike.values():
        one = group[0]
        sql = f"s.type IN ({_marks(group)})"
        parameters += [other.resource_type for other in group]
        inner = visible_where(interned, one, "s")
        # The group shares every bound but the type, which is listed above.
        sql += inner.sql.replace(f" AND s.type = '{one.resource_type}'", "", 1)
        parameters += inner.parameters
        clauses.append(f"({sql})")
    if not clauses:
        return Where(f" AND {alias}.directory = 1")
    record = next(one.record for one in visible.referrers or ())
    practice = next(one.practices[0] for one in visible.referrers or ())
    return Where(
        f" AND ({alias}.directory = 1 OR EXISTS (SELECT 1 FROM edge e CROSS JOIN resource s"
        f" ON s.rid = e.source WHERE e.practice = ? AND e.target = {alias}.type || '/' ||"
        f" {alias}.id AND e.owners = ? AND s.deleted = 0 AND ({' OR '.join(clauses)})))",
        (practice, record, *parameters),
    )


@dataclass(slots=True)
class Query:
    """A compiled search: ``sql`` takes the limit as its last parameter."""

    sql: str
    parameters: tuple[Any, ...]
    count_sql: str
    count_parameters: tuple[Any, ...]


@dataclass(slots=True)
class _Branch:
    """The part of a search that runs in one practice."""

    practice: str
    lead: str = ""
    where: Where = field(default_factory=lambda: Where(""))
    place: str = "r.rid"
    """The column by which rows without another order come."""


async def compile_search(
    interned: Interned,
    select: Select,
    request: SearchRequest,
    visible: Visibility,
    after: Sequence[Any] | None,
) -> Query:
    """Compile a search under a visibility; ``after`` is `Page.next` of the page before."""
    branches = [
        await _branch(interned, select, request, visible, practice)
        for practice in visible.practices
        if await _has_rows(interned, select, request.resource_type, practice)
    ]
    if not branches:
        return Query("SELECT 1 WHERE 0 AND ?", (), "SELECT 0", ())
    keys = [_sort_key(one) for one in request.sort]
    columns = "".join(f", {{k{n}}} AS k{n}" for n in range(len(keys)))
    bound = await _after(select, request, visible, after)
    if len(branches) == 1 and not keys:
        branch = branches[0]
        rest = f"{branch.lead} CROSS JOIN version v ON v.vid = r.vid WHERE 1{branch.where.sql}"
        return Query(
            f"SELECT {ROW} {rest}{bound.sql} ORDER BY {branch.place} LIMIT ?",
            (*branch.where.parameters, *bound.parameters),
            f"SELECT count(*) {branch.lead} WHERE 1{branch.where.sql}",
            branch.where.parameters,
        )
    selects: list[str] = []
    counts: list[str] = []
    parameters: list[Any] = []
    count_parameters: list[Any] = []
    for branch in branches:
        here = [key(interned, branch.practice, request.resource_type) for key in keys]
        filled = columns.format(**{f"k{n}": sql for n, sql in enumerate(here)})
        selected = (
            f"SELECT r.rid AS rid{filled} {branch.lead} WHERE 1{branch.where.sql}"
            f"{bound.sql if not keys else ''}"
        )
        selects.append(f"SELECT * FROM ({selected}) WHERE 1{bound.sql}" if keys else selected)
        parameters += (*branch.where.parameters, *bound.parameters)
        counts.append(f"SELECT count(*) AS n {branch.lead} WHERE 1{branch.where.sql}")
        count_parameters += branch.where.parameters
    directions = [" DESC" if one.descending else "" for one in request.sort]
    order = "".join(f"{{}}k{n}{one} NULLS LAST, " for n, one in enumerate(directions)) + "{}rid"
    # Bodies are fetched for the page alone: what is sorted has the keys and the place.
    placed = f"SELECT * FROM ({' UNION ALL '.join(selects)}) ORDER BY {order.replace('{}', '')}"
    sql = (
        f"SELECT {ROW}{''.join(f', s.k{n}' for n in range(len(keys)))} FROM ({placed} LIMIT ?) s"
        " CROSS JOIN resource r ON r.rid = s.rid CROSS JOIN version v ON v.vid = r.vid"
        f" ORDER BY {order.replace('{}', 's.')}"
    )
    if len(counts) == 1:
        count_sql = counts[0]
    else:
        count_sql = f"SELECT sum(n) FROM ({' UNION ALL '.join(counts)})"
    return Query(sql, tuple(parameters), count_sql, tuple(count_parameters))


async def _branch(
    interned: Interned,
    select: Select,
    request: SearchRequest,
    visible: Visibility,
    practice: str,
) -> _Branch:
    now = interned.now()
    where = Where(" AND r.deleted = 0") + interned.compiled(visible, practice)
    criteria: list[tuple[Criterion, int | None]] = []
    ids: Criterion | None = None
    for criterion in request.criteria:
        code = criterion.parameter.code
        if code in COLUMNS:
            if code == "_id":
                ids = criterion
            where += _column(criterion, interned.now())
        else:
            slot = interned.slot(practice, request.resource_type, code)
            criteria.append((criterion, slot))
    lead: tuple[Criterion, int] | None = None
    if ids is None and visible.record is None and visible.ids is None:
        lead = await _lead(select, criteria, now)
    for criterion, slot in criteria:
        if lead is not None and criterion is lead[0]:
            continue
        where += _exists("r", [] if slot is None else [slot], criterion, now)
    if lead is not None:
        criterion, number = lead
        table, matched = _matches("t", criterion, now)
        if _is_seek(criterion):
            # One key of the index: its rows come in the order of rid, each once.
            sql = f"FROM {table} t CROSS JOIN resource r ON r.rid = t.rid"
            seek = Where(f" AND t.slot = {number}") + matched
            return _Branch(practice, sql, seek + where, place="t.rid")
        sql = (
            f"FROM (SELECT DISTINCT t.rid AS rid FROM {table} t WHERE t.slot = {number}"
            f"{matched.sql} ORDER BY 1) d CROSS JOIN resource r ON r.rid = d.rid"
        )
        return _Branch(practice, sql, Where("", matched.parameters) + where)
    if ids is not None or visible.ids is not None:
        index = "resource_key"
    elif visible.record is not None:
        index = "resource_of_record"
    elif (request.sort and request.sort[0].parameter.code == "_lastUpdated") or any(
        c.parameter.code == "_lastUpdated" for c in request.criteria
    ):
        index = "resource_updated"
    else:
        index = "resource_of_practice"
    return _Branch(practice, f"FROM resource r INDEXED BY {index}", where)


def _is_seek(criterion: Criterion) -> bool:
    """Whether a criterion is one key of the ``term`` index, so that no row matches it twice."""
    if criterion.modifier or len(criterion.values) != 1:
        return False
    value = criterion.values[0]
    if isinstance(value, Token):
        return value.system is not None and value.code is not None
    if criterion.parameter.type == "reference":
        return len(criterion.targets()) == 1
    return isinstance(value, UriValue)


async def _lead(
    select: Select, criteria: Sequence[tuple[Criterion, int | None]], now: int
) -> tuple[Criterion, int] | None:
    """Choose the criterion that matches fewest index rows, if any can lead."""
    best: tuple[int, Criterion, int] | None = None
    for criterion, slot in sorted(criteria, key=lambda one: not _is_seek(one[0])):
        if best is not None and best[0] < _PROBE:
            break
        if slot is None or criterion.modifier in {"not", "missing"} or _negative(criterion):
            continue
        table, matched = _matches("t", criterion, now)
        rows = await select(
            f"SELECT count(*) FROM (SELECT 1 FROM {table} t WHERE t.slot = ?{matched.sql} LIMIT ?)",
            (slot, *matched.parameters, _PROBE),
        )
        if best is None or rows[0][0] < best[0]:
            best = (rows[0][0], criterion, slot)
    return None if best is None else (best[1], best[2])


def _negative(criterion: Criterion) -> bool:
    return any(getattr(value, "prefix", "") == "ne" for value in criterion.values)


async def _has_rows(interned: Interned, select: Select, resource_type: str, practice: str) -> bool:
    interned.refresh()
    found = interned.populated.get((resource_type, practice))
    if found is None:
        found = interned.populated[resource_type, practice] = bool(
            await select(
                "SELECT 1 FROM resource INDEXED BY resource_of_practice"
                " WHERE type = ? AND practice = ? AND deleted = 0 LIMIT 1",
                (resource_type, practice),
            )
        )
    return found


def _exists(alias: str, slots: Sequence[int], criterion: Criterion, now: int) -> Where:
    """One criterion, looked up for the candidate row."""
    missing = criterion.modifier == "missing"
    negated = criterion.modifier == "not" or criterion.values[0] == Missing(missing=True)
    if not slots:
        return Where("") if negated else NOTHING
    slot = f"= {slots[0]}" if len(slots) == 1 else f"IN ({','.join(map(str, slots))})"
    if missing:
        tables = _TABLES[criterion.parameter.type]
        matched = Where("")
    else:
        # A row has few entries: to compare them (`+`: without the index) is cheaper than to look
        # for each of several values in every row. It may refer to thousands, though.
        if criterion.parameter.type == "reference":
            several = len(criterion.targets()) > _FEW_TARGETS
        else:
            several = len(criterion.values) > 1
        tables, matched = _matches("+t" if several else "t", criterion, now)
    sql = (
        f"EXISTS (SELECT 1 FROM {tables} t INDEXED BY {tables}_rid"
        f" WHERE t.rid = {alias}.rid AND t.slot {slot}{matched.sql})"
    )
    return Where(f" AND {'NOT ' if negated else ''}{sql}", matched.parameters)


_TABLES: Final = {
    "token": "term",
    "reference": "term",
    "uri": "term",
    "string": "string",
    "date": "span",
    "number": "span",
    "quantity": "span",
}


def _matches(alias: str, criterion: Criterion, now: int) -> tuple[str, Where]:
    """Return the index table of a criterion, and the OR of its values on that table's row."""
    table = _TABLES[criterion.parameter.type]
    if criterion.parameter.type == "reference":
        targets = criterion.targets()
        return table, Where(f" AND {alias}.value IN ({_marks(targets)})", targets)
    clauses: list[str] = []
    parameters: list[Any] = []
    for value in criterion.values:
        sql, bound = _value(alias, criterion, value, now)
        clauses.append(sql)
        parameters += bound
    return table, Where(f" AND ({_either(clauses)})", tuple(parameters))


def _either(clauses: Sequence[str]) -> str:
    """Join by OR as a balanced tree: SQLite takes an expression no more than 1000 levels deep."""
    if len(clauses) == 1:
        return clauses[0]
    half = len(clauses) // 2
    return f"({_either(clauses[:half])}) OR ({_either(clauses[half:])})"


def _value(alias: str, criterion: Criterion, value: Value, now: int) -> tuple[str, list[Any]]:
    match value:
        case Token():
            return _token(alias, value)
        case UriValue():
            return f"{alias}.value = ?", [value.uri]
        case StringValue():
            return _string(alias, criterion.modifier, value)
        case DateValue():
            return _conditions(alias, value.conditions(now=now))
        case NumberValue():
            return _conditions(alias, value.conditions())
        case QuantityValue():
            sql, parameters = _conditions(alias, value.conditions())
            if value.code is not None:
                sql, parameters = f"({sql}) AND {alias}.code = ?", [*parameters, value.code]
            if value.system is not None:
                sql, parameters = f"({sql}) AND {alias}.system = ?", [*parameters, value.system]
            return sql, parameters
    message = f"no SQL for {type(value).__name__}"
    raise TypeError(message)


def _token(alias: str, value: Token) -> tuple[str, list[Any]]:
    clauses, parameters = [], []
    if value.code is not None:
        clauses.append(f"{alias}.value = ?")
        parameters.append(fold_code(value.code))
    if value.system is not None:
        clauses.append(f"{alias}.system = ?")
        parameters.append(value.system)
    return " AND ".join(clauses), parameters


def _string(alias: str, modifier: str, value: StringValue) -> tuple[str, list[Any]]:
    if modifier == "exact":
        return f"{alias}.value = ? AND {alias}.exact = ?", [value.normalised, value.text]
    if modifier == "contains":
        return f"instr({alias}.value, ?) > 0", [value.normalised]
    low = value.normalised
    return f"{alias}.value >= ? AND {alias}.value < ?", [low, low + _PREFIX_END]


def _conditions(alias: str, conditions: Conditions) -> tuple[str, list[Any]]:
    """Compare a stored closed range with the searched one, as the value says."""
    clauses = [
        " AND ".join(f"{alias}.{bound.end} {bound.operator} ?" for bound in bounds)
        for bounds in conditions
    ]
    joined = clauses[0] if len(clauses) == 1 else " OR ".join(f"({sql})" for sql in clauses)
    return joined, [bound.value for bounds in conditions for bound in bounds]


def _column(criterion: Criterion, now: int) -> Where:
    """`_id` and `_lastUpdated` are columns of the row."""
    clauses: list[str] = []
    parameters: list[Any] = []
    for value in criterion.values:
        if isinstance(value, Token):
            clauses.append("r.id = ?")
            parameters.append(value.code)
        elif isinstance(value, DateValue):
            # The row holds milliseconds, each of which covers its thousand microseconds.
            alternatives = []
            for bounds in value.conditions(now=now):
                alternatives.append(" AND ".join(f"r.updated {b.operator} ?" for b in bounds))
                for bound in bounds:
                    moment = int(bound.value) - (999 if bound.end == "high" else 0)
                    round_up = bound.operator in {">=", "<"}
                    parameters.append(-(-moment // 1000) if round_up else moment // 1000)
            clauses += [f"({sql})" for sql in alternatives]
    return Where(f" AND ({_either(clauses)})", tuple(parameters))


def _sort_key(sort: Sort) -> Callable[[Interned, str, str], str]:
    """Return how a sort key is read for the row ``r``: smallest ascending, largest descending."""
    code = sort.parameter.code
    if code == "_id":
        return lambda *_: "r.id"
    if code == "_lastUpdated":
        return lambda *_: "r.updated"
    table = _TABLES[sort.parameter.type]
    column = "value" if table != "span" else ("high" if sort.descending else "low")
    function = "max" if sort.descending else "min"

    def key(interned: Interned, practice: str, resource_type: str) -> str:
        slot = interned.slot(practice, resource_type, code)
        if slot is None:
            return "NULL"
        return (
            f"(SELECT {function}(t.{column}) FROM {table} t INDEXED BY {table}_rid"
            f" WHERE t.rid = r.rid AND t.slot = {slot})"
        )

    return key


async def _after(
    select: Select, request: SearchRequest, visible: Visibility, after: Sequence[Any] | None
) -> Where:
    """Rows behind the last match of the page before, by its sort values and then its place."""
    if after is None:
        return Where("")
    *values, practice, last_id = after
    if len(values) != len(request.sort):
        message = "this paging link does not fit its search"
        raise Invalid(message)
    rows = await select(
        "SELECT rid FROM resource WHERE type = ? AND id = ? AND practice = ?",
        (request.resource_type, last_id, practice),
    )
    place = rows[0][0] if rows and practice in visible.practices else 0
    if not request.sort:
        return Where(" AND r.rid > ?", (place,))
    behind, parameters = "rid > ?", [place]
    for n in reversed(range(len(values))):
        key, value = f"k{n}", values[n]
        if value is None:
            behind = f"({key} IS NULL AND {behind})"
            continue
        order = "<" if request.sort[n].descending else ">"
        behind = f"({key} {order} ? OR {key} IS NULL OR ({key} = ? AND {behind}))"
        parameters = [value, value, *parameters]
    return Where(f" AND {behind}", tuple(parameters))


def _marks(values: Iterable[Any]) -> str:
    return ",".join("?" for _ in values) or "NULL"
