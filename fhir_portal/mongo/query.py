"""A `SearchRequest` and a `Visibility`, compiled to filters.

User text only ever travels as a value, never as the name of a field or an operator; what becomes
part of a regular expression is escaped. How entries are written says `fhir_portal.mongo.entries`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fhir_portal.access.visibility import SHARED, Visibility
from fhir_portal.fhir.errors import Invalid, InvalidSearch
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.mongo.driver import Document
from fhir_portal.mongo.entries import (
    CUT,
    LONGEST,
    SEPARATOR,
    escaped,
    exactly,
    exactly_both,
    of_system,
)
from fhir_portal.mongo.reading import Reading
from fhir_portal.mongo.schema import RESOURCE
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.request import SearchRequest, Sort
from fhir_portal.search.values import (
    MAX_INSTANT,
    MIN_INSTANT,
    Bound,
    DateValue,
    Missing,
    NumberValue,
    QuantityValue,
    StringValue,
    Token,
    UriValue,
    fold_code,
)

NOTHING: Final[Document] = {"_id": {"$in": []}}
LONGEST_PART: Final = 4_000
"""Characters after ``:contains``: the server takes no regular expression of any length."""
_PROBE: Final = 500
"""Index keys counted per criterion to find the one to lead with; with fewer it leads at once."""
_SPECIAL: Final = re.compile(r"[\\.^$*+?()\[\]{}|]")
_END: Final = "\U0010ffff"
_OPERATORS: Final = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def row_id(practice: str, key: ResourceKey) -> str:
    """Return the ``_id`` of a resource."""
    return f"{practice}/{key.type}/{key.id}"


def every(*filters: Document) -> Document:
    """Return the filter that lets through what all of these do, flat where that is possible."""
    joined: Document = {}
    apart: list[Document] = []
    for one in filters:
        for name, condition in one.items():
            if name in joined:
                apart.append({name: condition})
            else:
                joined[name] = condition
    if apart:
        joined["$and"] = [*joined.get("$and", ()), *apart]
    return joined


def either(filters: Sequence[Document]) -> Document:
    """Return the filter that lets through what any of these does."""
    if not filters:
        return NOTHING
    return filters[0] if len(filters) == 1 else {"$or": list(filters)}


def one_of(values: Collection[Any]) -> Any:
    """Return the condition that a field is (or an array holds) one of these."""
    wanted = sorted(values)
    return wanted[0] if len(wanted) == 1 else {"$in": wanted}


# --- visibility -----------------------------------------------------------------------------------


def alike(visible: Iterable[tuple[str, Visibility]]) -> list[tuple[list[str], Visibility]]:
    """Put types together whose bounds are the same."""
    groups: dict[Visibility, tuple[list[str], Visibility]] = {}
    for name, one in visible:
        groups.setdefault(replace(one, resource_type=""), ([], one))[0].append(name)
    return list(groups.values())


def then(visible: Visibility, types: Sequence[str]) -> Document:
    """Return what a version itself must satisfy, besides what the current row must."""
    found: Document = {"p": one_of(visible.practices), "t": one_of(types)}
    if visible.record is not None:
        found["o"] = visible.record
    if visible.sections is not None:
        found["sec"] = _only(visible.sections)
    if visible.labels is not None:
        found["lab"] = _only(visible.labels)
    return found


async def allowed(
    reading: Reading,
    visible: Visibility,
    types: Sequence[str],
    keys: Collection[ResourceKey] | None = None,
) -> Document | None:
    """Return the filter of the current rows that are visible, or ``None`` if nothing can be.

    Args:
        reading: to look up what the visibility's referrers refer to.
        visible: whose bounds hold for each of ``types``.
        types: in place of the visibility's own.
        keys: the only resources that are asked for, if it is not everything.
    """
    found = then(visible, types)
    if visible.ids is not None:
        if keys is None:
            keys = [ResourceKey(name, own_id) for name in types for own_id in visible.ids]
        else:
            keys = [key for key in keys if key.id in visible.ids]
    if keys is not None:
        if not keys:
            return None
        found["_id"] = one_of([row_id(own, key) for own in visible.practices for key in keys])
    if SHARED in visible.practices and len(visible.practices) > 1:
        # A practice's own resource, living or deleted, stands before a shared one of the same id.
        own = sorted(set(visible.practices) - {SHARED})
        found["hid"] = {"$ne": own[0]} if len(own) == 1 else {"$nin": own}
    if visible.any_of is not None:
        if not visible.any_of:
            return None
        now = moment(reading)
        found = every(
            found,
            either([every(*(matching(one, now) for one in each)) for each in visible.any_of]),
        )
    if visible.referrers is not None:
        found = every(found, await _referred(reading, visible, types, keys))
    return found


def _only(permitted: Collection[str]) -> Document:
    """Return the condition that an array is there and holds nothing but these."""
    if not permitted:
        return {"$size": 0}
    return {"$exists": True, "$not": {"$elemMatch": {"$nin": sorted(permitted)}}}


async def _referred(
    reading: Reading,
    visible: Visibility,
    types: Sequence[str],
    keys: Collection[ResourceKey] | None,
) -> Document:
    """In the practice directory, or referred to by something one of the referrers shows."""
    targets: set[str] = set()
    for names, one in alike((one.resource_type, one) for one in visible.referrers or ()):
        bound = await allowed(reading, one, names)
        if bound is None:
            continue
        if keys is not None:
            edges: Document = {"e": one_of({str(key) for key in keys})}
        else:
            edges = either([{"e": _starting(f"{name}/")} for name in types])
        found = await reading.find(
            RESOURCE,
            every(bound, edges, {"x": False}),
            hint="place" if keys is None else "edge",
            fields=["e"],
        )
        targets.update(target for row in found for target in row["e"])
    if keys is not None:
        targets &= {str(key) for key in keys}
    referred = [
        f"{practice}/{target}"
        for target in sorted(targets)
        if target.partition("/")[0] in types
        for practice in visible.practices
    ]
    listed: Document = {"d": True}
    return either([listed, {"_id": one_of(referred)}]) if referred else listed


def moment(reading: Reading) -> int:
    """Return microseconds since 1970 UTC, for ``ap`` on dates."""
    return int(reading.clock() * 1_000_000)


# --- criteria -------------------------------------------------------------------------------------


def matching(criterion: Criterion, now: int) -> Document:
    """Return the filter of one criterion on the current row."""
    code = criterion.parameter.code
    if code == "_id":
        return {"i": one_of([v.code or "" for v in criterion.values if isinstance(v, Token)])}
    if code == "_lastUpdated":
        return either([{"u": _between(*span)} for span in _instants(criterion, now)])
    match criterion.values:
        case (Missing(missing),):
            return {"s": {"$ne": code} if missing else code}
    entries = _exact_entries(criterion)
    if entries is not None:
        if criterion.modifier == "not":
            return {"s": {"$nin": entries} if len(entries) > 1 else {"$ne": entries[0]}}
        return {"s": one_of(entries)}
    if criterion.parameter.type == "string":
        part = _containing if criterion.modifier == "contains" else _beginning
        return either(
            [part(criterion, value) for value in criterion.values if isinstance(value, StringValue)]
        )
    return either([_some_range(code, ends) for ends in _ranges(criterion, now)])


def _exact_entries(criterion: Criterion) -> list[str] | None:
    """Return the entries one of which a resource must have, if the criterion is of that kind."""
    code = criterion.parameter.code
    if criterion.parameter.type == "reference":
        return [exactly(code, target) for target in criterion.targets()]
    found: list[str] = []
    for value in criterion.values:
        match value:
            case Token(system, None):
                found.append(of_system(code, system or ""))
            case Token(None, str() as folded):
                found.append(exactly(code, fold_code(folded)))
            case Token(str() as system, str() as folded):
                found.append(exactly_both(code, fold_code(folded), system))
            case UriValue(uri):
                found.append(exactly(code, uri))
            case StringValue(text) if criterion.modifier == "exact":
                found.append(exactly_both(code, value.normalised, text))
            case _:
                return None
    return found


def _beginning(criterion: Criterion, value: StringValue) -> Document:
    wanted = f"{criterion.parameter.code}{SEPARATOR}"
    needle = escaped(value.normalised)
    found: Document = {"s": _starting(wanted + needle[:LONGEST])}
    if len(needle) > LONGEST:
        start = wanted + needle
        found["w"] = {"$elemMatch": {"$gte": start, "$lt": start + _END}}
    return found


def _starting(text: str) -> Document:
    """Return the condition that an array holds a text that starts so.

    Of an anchored expression without wildcards MongoDB makes the range of the index that it is.
    $elemMatch with both ends of that range says the same, but there is a server (DocumentDB 1.0,
    below FerretDB 2.7) that it brings down.
    """
    return {"$regex": f"^{_literally(text)}"}


def _literally(text: str) -> str:
    """Escape what an expression would read as more than itself, and nothing else.

    For DocumentDB what `re.escape` puts before a hyphen would end the range of the index.
    """
    return _SPECIAL.sub(r"\\\g<0>", text)


def _containing(criterion: Criterion, value: StringValue) -> Document:
    needle = escaped(value.normalised)
    if len(needle) > LONGEST_PART:
        message = f"{criterion.name}: a part of a text has at most {LONGEST_PART} characters."
        raise InvalidSearch(message)
    start = _literally(criterion.parameter.code + SEPARATOR)
    # What was too long is whole in ``w``; the hash that stands for its end is no part of it.
    pattern = f"^{start}[^{SEPARATOR}{CUT}]*{_literally(needle)}"
    return {"$or": [{"s": {"$regex": pattern}}, {"w": {"$regex": pattern}}]}


def _some_range(code: str, ends: Document) -> Document:
    return {"r": {"$elemMatch": {"c": code, **ends}}}


def _ranges(criterion: Criterion, now: int) -> list[Document]:
    """Return the alternatives for the ends of one indexed range, and for its unit.

    A range does not end before it begins, so that what is asked of one end may say something of
    the other: ``eq`` seeks what begins within the value, not all that begins after its beginning.
    """
    found: list[Document] = []
    for value in criterion.values:
        unit: Document = {}
        match value:
            case DateValue():
                conditions = value.conditions(now=now)
            case NumberValue():
                conditions = value.conditions()
            case QuantityValue():
                conditions = value.conditions()
                if value.code is not None:
                    unit["u"] = value.code
                if value.system is not None:
                    unit["y"] = value.system
            case _:
                message = f"no filter for {type(value).__name__}"
                raise TypeError(message)
        for bounds in conditions:
            low, high = _end(bounds, "low"), _end(bounds, "high")
            ends = {"l": {**_upper(high), **low}, "h": {**_lower(low), **high}}
            found.append({end: asked for end, asked in ends.items() if asked} | unit)
    return found


def _end(bounds: Sequence[Bound], end: str) -> Document:
    return {_OPERATORS[bound.operator]: bound.value for bound in bounds if bound.end == end}


def _lower(asked: Document) -> Document:
    return {name: value for name, value in asked.items() if name in {"$gt", "$gte"}}


def _upper(asked: Document) -> Document:
    return {name: value for name, value in asked.items() if name in {"$lt", "$lte"}}


def _instants(criterion: Criterion, now: int) -> list[tuple[int, int]]:
    """Return when the row may have been updated: spans of milliseconds, closed and disjoint.

    The row holds milliseconds, each of which covers its thousand microseconds.
    """
    spans: list[tuple[int, int]] = []
    for value in criterion.values:
        for bounds in value.conditions(now=now) if isinstance(value, DateValue) else ():
            low, high = MIN_INSTANT, MAX_INSTANT
            for bound in bounds:
                at = int(bound.value) - (999 if bound.end == "high" else 0)
                match bound.operator:
                    case ">":
                        low = at // 1000 + 1
                    case ">=":
                        low = -(-at // 1000)
                    case "<":
                        high = -(-at // 1000) - 1
                    case "<=":
                        high = at // 1000
            if low <= high:
                spans.append((low, high))
    apart: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if apart and low <= apart[-1][1] + 1:
            apart[-1] = (apart[-1][0], max(high, apart[-1][1]))
        else:
            apart.append((low, high))
    return apart


def _between(low: Any, high: Any) -> Document:
    return {"$gte": low, "$lte": high}


# --- the index to lead with -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lead:
    """A criterion that can be sought in an index.

    ``fields`` are those of the index that ``filter`` binds behind practice and type. An ``exact``
    one gives its rows in the order of the pages; of these the lowest ``rank`` promises fewest.
    """

    criterion: Criterion
    filter: Document
    hint: str
    fields: tuple[str, ...]
    exact: bool = False
    rank: tuple[int, int] = (0, 0)


def leading(criterion: Criterion, now: int) -> Lead | None:
    """Return how a criterion could lead, or ``None`` if no index narrows what it lets through."""
    code = criterion.parameter.code
    if code == "_id" or criterion.modifier in {"not", "missing", "contains"}:
        return None
    if code == "_lastUpdated":
        spans = _instants(criterion, now) or [(0, 0)]
        low, high = spans[0][0], spans[-1][1]
        if (low, high) == (MIN_INSTANT, MAX_INSTANT):
            return None
        covering = {"u": _between(low, high)}
        found = covering if len(spans) == 1 else every(covering, matching(criterion, now))
        return Lead(criterion, found, "updated", ("u",))
    entries = _exact_entries(criterion)
    if entries is not None:
        rank = (len(entries), _rank(criterion))
        return Lead(criterion, {"s": one_of(entries)}, "term", ("s",), exact=True, rank=rank)
    if criterion.parameter.type == "string":
        return Lead(criterion, matching(criterion, now), "term", ("s",))
    return _leading_range(criterion, now)


def _rank(criterion: Criterion) -> int:
    if criterion.parameter.type != "token":
        return 0
    whole = (isinstance(v, Token) and v.system and v.code for v in criterion.values)
    return 1 if all(whole) else 2


def _leading_range(criterion: Criterion, now: int) -> Lead | None:
    """Choose the end of the range that is bounded in every alternative, at best on both sides."""
    code, ranges = criterion.parameter.code, _ranges(criterion, now)
    best: tuple[int, str, Document] | None = None
    for index, end in (("low", "l"), ("high", "h")):
        lower = [list(_lower(asked.get(end, {})).values()) for asked in ranges]
        upper = [list(_upper(asked.get(end, {})).values()) for asked in ranges]
        covering: Document = {}
        if all(lower):
            covering["$gte"] = min(least for (least,) in lower)
        if all(upper):
            covering["$lte"] = max(most for (most,) in upper)
        # What is said of a patient lies behind today more than before it: a beginning cuts more.
        weight = 2 * ("$gte" in covering) + ("$lte" in covering)
        if weight and (best is None or weight > best[0]):
            best = (weight, index, {end: covering})
    if best is None:
        return None
    _, index, covering = best
    found = matching(criterion, now)
    if len(ranges) > 1:
        found = every(_some_range(code, covering), found)
    return Lead(criterion, found, index, ("r.c", f"r.{'l' if index == 'low' else 'h'}"))


async def _chosen(reading: Reading, visible: Visibility, candidates: Sequence[Lead]) -> Lead | None:
    """Choose what matches fewest keys of its index; one that gives the order goes first."""
    exact = sorted((one for one in candidates if one.exact), key=lambda one: one.rank)
    if visible.record is not None:
        return exact[0] if exact else None
    if len(candidates) < 2:  # noqa: PLR2004 - nothing to choose from
        return candidates[0] if candidates else None
    best: tuple[int, Lead] | None = None
    place = {"p": one_of(visible.practices), "t": visible.resource_type}
    for one in (*exact, *(one for one in candidates if not one.exact)):
        matched = await reading.count(
            RESOURCE, every(place, one.filter), hint=one.hint, limit=_PROBE
        )
        if best is None or matched < best[0]:
            best = (matched, one)
        if matched < _PROBE:
            break
    return None if best is None else best[1]


# --- a search -------------------------------------------------------------------------------------

Order = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A search as it is sent: ``behind`` are the rows after the page before.

    ``leads`` are the fields of the index ``hint`` that the filter binds, the first ones in order.
    """

    filter: Document
    behind: Document
    order: Order
    hint: str
    leads: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields whose values say where a row stands, but for its practice and id."""
        return tuple(name for name, _ in self.order[:-1])


async def compile_search(
    reading: Reading, request: SearchRequest, visible: Visibility, after: Sequence[Any] | None
) -> Compiled | None:
    """Compile a search under a visibility, or return ``None`` if nothing can match.

    ``after`` is `Page.next` of the page before: the values of `Compiled.keys`, practice and id.

    Raises:
        Invalid: ``after`` is of another search.
    """
    if request.resource_type != visible.resource_type:
        return None
    name, now = visible.resource_type, moment(reading)
    keys: set[ResourceKey] | None = None
    criteria: list[Criterion] = []
    for criterion in request.criteria:
        if criterion.parameter.code == "_id":
            codes = (value.code or "" for value in criterion.values if isinstance(value, Token))
            named = {ResourceKey(name, code) for code in codes}
            keys = named if keys is None else keys & named
        else:
            criteria.append(criterion)
    bound = await allowed(reading, visible, [name], keys)
    if bound is None:
        return None
    lead: Lead | None = None
    hint = "place"
    leads: tuple[str, ...] = ("p", "t") if visible.record is None else ("p", "t", "o")
    if "_id" in bound:
        hint, leads = "_id_", ("_id",)
    else:
        candidates = [one for one in (leading(criterion, now) for criterion in criteria) if one]
        lead = await _chosen(reading, visible, candidates)
        if lead is not None:
            hint, leads = lead.hint, ("p", "t", *lead.fields)
            if lead.exact and visible.record is not None:
                leads += ("o",)
        elif visible.record is None and _by_update(request.sort):
            hint = "updated"
    order = _order(request.sort, visible)
    return Compiled(
        every(
            {} if lead is None else lead.filter,
            bound,
            {"x": False},
            *(matching(one, now) for one in criteria if lead is None or one is not lead.criterion),
        ),
        {} if after is None else _behind(order, visible, after),
        order,
        hint,
        leads,
    )


def _by_update(sort: Sequence[Sort]) -> bool:
    return bool(sort) and sort[0].parameter.code == "_lastUpdated"


def _order(sort: Sequence[Sort], visible: Visibility) -> Order:
    """Return the fields that give the order, ``_id`` last.

    Sort keys are stored for both directions so that both descend: rows without one come last.
    """
    if not sort:
        # In one record the owners are all the same, and to name them hinders merging.
        return (("_id", 1),) if visible.record is not None else (("o", 1), ("_id", 1))
    keys: list[tuple[str, int]] = []
    for one in sort:
        code, downwards = one.parameter.code, -1 if one.descending else 1
        if code == "_lastUpdated":
            keys.append(("u", downwards))
        elif code == "_id":
            keys.append(("i", downwards))
        else:
            keys.append((f"k.{code}.{'z' if one.descending else 'a'}", -1))
    # The index ``updated`` is walked either way, but not in both ways at once.
    last = keys[0][1] if len(keys) == 1 and keys[0][0] == "u" else 1
    return *keys, ("_id", last)


def _behind(order: Order, visible: Visibility, after: Sequence[Any]) -> Document:
    """Return which rows stand behind the last one of the page before, itself there or not."""
    if len(after) != len(order) + 1:
        message = "this paging link does not fit its search"
        raise Invalid(message)
    *values, practice, own_id = after
    place = row_id(practice, ResourceKey(visible.resource_type, own_id))
    *keys, (_, last) = order
    behind: Document = {"_id": {"$gt" if last > 0 else "$lt": place}}
    if not keys:
        return behind
    for (name, direction), value in reversed(list(zip(keys, values, strict=True))):
        if value is None:
            behind = every({name: None}, behind)
            continue
        ways = [
            {name: {"$gt" if direction > 0 else "$lt": value}},
            every({name: value}, behind),
        ]
        if name.startswith("k."):
            ways.append({name: None})
        behind = either(ways)
    (name, direction), value = keys[0], values[0]
    if not name.startswith("k."):  # says nothing new, but where in the index to begin
        behind = every({name: {"$gte" if direction > 0 else "$lte": value}}, behind)
    return behind
