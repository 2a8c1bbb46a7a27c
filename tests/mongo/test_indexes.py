"""Every search seeks a declared index: by what its filter says, and by what a server makes of it.

What a filter bounds is judged here by MongoDB's rules: the first fields of an index, of which each
but the last is one value or several; two fields of an array's elements only within one
``$elemMatch``; the beginning of a text only by an expression that is anchored and literal. On a
server the plan is read: of FerretDB what its DocumentDB says of the bounds, of MongoDB the winning
plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from pymongo import AsyncMongoClient

from fhir_portal.access.visibility import SHARED, Visibility
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Conflict, Unavailable
from fhir_portal.fhir.json import parse
from fhir_portal.mongo.driver import MongoDriver, connect
from fhir_portal.mongo.query import Compiled, compile_search, every
from fhir_portal.mongo.reading import Reading
from fhir_portal.mongo.schema import (
    ACCESS,
    INDEXES,
    RECORD,
    RESOURCE,
    UNDO,
    VERSION,
    index_named,
)
from fhir_portal.mongo.store import MongoStore
from fhir_portal.records import DuplicateRecord
from fhir_portal.resources.store import NewVersion
from fhir_portal.search.evaluate import matches
from fhir_portal.search.registry import COLUMNS, SearchParameter, parameters_for
from fhir_portal.search.request import parse_query, parse_search
from tests.builders import DERM, Clock
from tests.mongo.faults import OPERATIONS, Operation
from tests.places import NO_SERVER, SERVER, TRANSACTIONS, Database
from tests.search.corpus import BASE, Corpus, small_corpus
from tests.search.matcher import NOW
from tests.search.queries import LABELS, Label, Query, expected, generate
from tests.stores.rows import KEY, a_row, asked, of_practice, of_record, write
from tests.stores.test_log import lines, of_app

TYPES: Final = (
    "Condition",
    "Encounter",
    "Observation",
    "Patient",
    "Practitioner",
    "RiskAssessment",
    "ValueSet",
)
"""Together they have parameters of every type."""


# ---------------------------------------------------------------- every way of asking


PREFIXES: Final = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
VALUES: Final[Mapping[str, Sequence[str]]] = {
    "date": ("2024-03-05", "2024-03-05T10:00:00.500Z"),
    "number": ("5.4",),
    "quantity": ("5.4", "5.4||mg", "5.4|http://unitsofmeasure.org|mg"),
    "string": ("ab", "o-b (a.k.a) *", "x" * 500),
    "token": ("urn:a|x", "x", "|x", "urn:a|"),
    "uri": ("http://a.example/x",),
}
OTHERS: Final[Mapping[str, str]] = {
    "date": "2023",
    "number": "7",
    "quantity": "7||kg",
    "reference": "https://other.example/x/8",
    "string": "cd",
    "token": "urn:b|y",
    "uri": "urn:b",
}


@dataclass(frozen=True)
class Question:
    """One parameter of a search, and what of `LABELS` it exercises."""

    label: Label
    code: str
    pair: str


def questions(parameter: SearchParameter) -> Iterator[Question]:
    """Every way to ask for a parameter: each modifier and prefix, one value and two."""
    if parameter.code == "_id":
        yield Question(("_id", "", ""), "_id", "_id=a")
        yield Question(("_id", "", ""), "_id", "_id=a,b")
        return
    kind = parameter.type
    values = VALUES.get(kind, ())
    if kind == "reference":
        values = (f"{parameter.targets[0]}/7" if parameter.targets else "Basic/7", "7")
    for modifier in ("", *sorted(parameter.modifiers)):
        name = f"{parameter.code}:{modifier}" if modifier else parameter.code
        if modifier == "missing":
            for text in ("true", "false"):
                yield Question((kind, modifier, ""), parameter.code, f"{name}={text}")
            continue
        of_type = modifier in parameter.targets
        label = ":Type" if of_type else modifier
        for prefix in PREFIXES if kind in ("date", "number", "quantity") else ("",):
            for value in ("7",) if of_type else values:
                of_kind = parameter.code if parameter.code in COLUMNS else kind
                question = Question(
                    (of_kind, label, prefix), parameter.code, f"{name}={prefix}{quote(value)}"
                )
                yield question
            other = "8" if of_type else OTHERS[kind]
            yield replace(question, pair=f"{question.pair},{prefix}{other}")


def all_questions(types: Sequence[str]) -> Iterator[tuple[str, Question]]:
    for name in types:
        for parameter in parameters_for(name).values():
            for question in questions(parameter):
                yield name, question


def test_every_way_of_asking_is_asked() -> None:
    labels = {question.label for _, question in all_questions(TYPES)}
    assert {label for label in labels if label[0] not in COLUMNS} == set(LABELS)
    every_type = {one.type for name in served_types() for one in parameters_for(name).values()}
    assert {one.type for name in TYPES for one in parameters_for(name).values()} == every_type


# ---------------------------------------------------------------- every kind of visibility


def granular(name: str, *queries: str) -> Any:
    return tuple(parse_query(name, query) for query in queries)


KINDS: Final[Mapping[str, Callable[[str], Visibility]]] = {
    "record": lambda name: of_record(name, sections={"results"}),
    "practice": of_practice,
    "one practice": lambda name: of_practice(name).own(),
    "server": lambda name: Visibility.of_server(name, practice=DERM),
    "ids": lambda name: of_practice(name).only({"a", "b"}),
    "ids in a record": lambda name: of_record(name, ids=frozenset({"a"})),
    "a granular scope": lambda name: of_record(name, any_of=granular(name, "_tag=urn:a|x")),
    "granular scopes": lambda name: of_record(
        name, any_of=granular(name, "_tag=urn:a|x", "_security=R&_tag=y")
    ),
    "granular scopes in a practice": lambda name: replace(
        of_practice(name), any_of=granular(name, "_tag=urn:a|x", "_security=R&_tag=y")
    ),
    "directory": lambda name: Visibility.of_directory(
        name,
        practice=DERM,
        referrers=(of_record(), of_record("Condition"), of_record("Encounter", sections={"a"})),
    ),
}
OF_A_RECORD: Final = {"record", "a granular scope", "granular scopes"}
BY_ID: Final = {"ids", "ids in a record"}


# ---------------------------------------------------------------- what a filter bounds


POINT, POINTS, RANGE = "one value", "several values", "a range"
_WEAKEST_FIRST: Final = (RANGE, POINTS, POINT)
_COMPARISONS: Final = {"$gt", "$gte", "$lt", "$lte"}
_LITERAL: Final = re.compile(r"\^(?:[^\\^$.\[\]()+*?{}|]|\\[^A-Za-z0-9])+")


def bounds(part: Any, fields: Sequence[str]) -> list[str]:
    """How a filter bounds the fields of an index, from the first one on, as far as it does."""
    found: list[str] = []
    for array, names in itertools.groupby(fields, lambda name: name.partition(".")[0]):
        group = list(names)
        of_group = (
            elements(part, array, group)
            if "." in group[0]
            else list(filter(None, [of_field(part, array)]))
        )
        found += of_group
        if len(of_group) < len(group):
            break
    return found


def conditions(part: Any) -> Iterator[tuple[str, Any]]:
    """What must hold all at once."""
    for name, condition in part.items():
        if name == "$and":
            for one in condition:
                yield from conditions(one)
        else:
            yield name, condition


def of_field(part: Any, name: str) -> str | None:
    found: list[str] = []
    for own, condition in conditions(part):
        if own == name and (one := of_condition(condition)):
            found.append(one)
        elif own == "$or":
            each = [of_field(one, name) for one in condition]
            if all(each):
                found.append(RANGE if RANGE in each else POINTS)
    return max(found, key=_WEAKEST_FIRST.index, default=None)


def elements(part: Any, array: str, fields: Sequence[str]) -> list[str]:
    """How one ``$elemMatch`` bounds fields of an array's elements: no two can do it together."""
    found: list[list[str]] = []
    for own, condition in conditions(part):
        if own == array and isinstance(condition, dict) and set(condition) == {"$elemMatch"}:
            inner = [name.removeprefix(f"{array}.") for name in fields]
            found.append(bounds(condition["$elemMatch"], inner))
        elif own == "$or":
            each = [elements(one, array, fields) for one in condition]
            together = zip(*each, strict=False)
            found.append([RANGE if RANGE in kinds else POINTS for kinds in together])
    return max(found, key=len, default=[])


def of_condition(condition: Any) -> str | None:
    if not isinstance(condition, dict):
        return POINT
    names = set(condition)
    if names == {"$in"}:
        return POINT if len(condition["$in"]) == 1 else POINTS
    if names == {"$regex"}:
        return RANGE if _LITERAL.fullmatch(condition["$regex"]) else None
    return RANGE if names and names <= _COMPARISONS else None


def test_what_bounds_a_field() -> None:
    """The judge itself: what MongoDB cannot seek is not taken for a seek."""
    assert of_condition("x") == of_condition({"$in": ["x"]}) == POINT
    assert of_condition({"$in": ["x", "y"]}) == POINTS
    assert of_condition({"$gte": 1, "$lt": 2}) == of_condition({"$regex": "^a\\.b"}) == RANGE
    for condition in (
        {"$ne": "x"},
        {"$nin": ["x"]},
        {"$not": {"$elemMatch": {"$nin": ["x"]}}},
        {"$regex": "a"},
        {"$regex": "^a.*b"},
        {"$regex": "^a|b"},
        {"$regex": "^[ab]"},
        {},
    ):
        assert of_condition(condition) is None, condition
    place = ("p", "t", "o")
    assert bounds({"p": 1, "o": 3}, place) == [POINT], "a gap ends it"
    assert bounds({"p": 1, "$or": [{"t": 1}, {"t": 2}]}, place) == [POINT, POINTS]
    assert bounds({"p": 1, "$or": [{"t": 1}, {"o": 2}]}, place) == [POINT]
    assert bounds({"p": 1, "$and": [{"t": {"$ne": 1}}, {"t": 2}]}, place) == [POINT, POINT]
    low = ("r.c", "r.l")
    one = {"r": {"$elemMatch": {"c": "date", "l": {"$lt": 5}}}}
    assert bounds(one, low) == [POINT, RANGE]
    apart = {"$and": [{"r": {"$elemMatch": {"c": "date"}}}, {"r": {"$elemMatch": {"l": 5}}}]}
    assert bounds(apart, low) == [POINT]
    assert bounds({"r.c": "date", "r.l": 5}, low) == []


Keys = Sequence[tuple[str, int]]
"""Fields, each with the direction it goes."""


def in_order(part: Any, keys: Keys, order: Keys) -> bool:
    """Whether MongoDB reads an order from an index instead of sorting what it found.

    Fields of one value do not matter to an order. Where there are several values it merges the
    scans of each, but then the whole order must begin behind the last of these.
    """
    kinds = bounds(part, [name for name, _ in keys])
    single = len(list(itertools.takewhile(lambda kind: kind == POINT, kinds)))
    merged = len(list(itertools.takewhile(lambda kind: kind != RANGE, kinds)))
    constant = {name for name, _ in keys[:single]}
    return walks([key for key in order if key[0] not in constant], keys[single:]) or walks(
        order, keys[merged:]
    )


def walks(order: Keys, keys: Keys) -> bool:
    """Whether an index that begins so has this order, forwards or backwards."""
    backwards = [(name, -direction) for name, direction in order]
    return (
        not order
        or list(order) == list(keys[: len(order)])
        or backwards == list(keys[: len(order)])
    )


def keys_of(collection: str, hint: str) -> Keys:
    if hint == "_id_":
        return (("_id", 1),)
    return next(index.keys for index in INDEXES[collection] if index.name == hint)


def test_what_an_index_has_in_order() -> None:
    term = keys_of(RESOURCE, "term")
    order = (("o", 1), ("_id", 1))
    several = {"$in": ["a", "b"]}
    assert in_order({"p": "a", "t": "T", "s": "x"}, term, order)
    assert in_order({"p": several, "t": "T", "s": several}, term, order)
    assert in_order({"p": "a", "t": "T", "s": "x", "o": "ada"}, term, order)
    assert not in_order({"p": "a", "t": "T", "s": several, "o": "ada"}, term, order)
    assert not in_order({"p": "a", "t": "T", "s": {"$regex": "^x"}}, term, order)
    assert not in_order({"p": "a", "t": "T"}, term, order)
    updated = keys_of(RESOURCE, "updated")
    for way in (1, -1):
        assert in_order({"p": several, "t": "T"}, updated, (("u", way), ("_id", way)))
        assert not in_order({"p": several, "t": "T"}, updated, (("u", way), ("_id", -way)))


# ---------------------------------------------------------------- what is sent


@dataclass
class Sent:
    """Takes the place of what is read through: keeps what is sent, and how that is answered."""

    dice: random.Random = field(default_factory=lambda: random.Random(1))
    found: list[tuple[str, Any, str | None]] = field(default_factory=list)

    def clock(self) -> float:
        return NOW.timestamp()

    async def find(self, collection: str, filter: Any, **options: Any) -> Any:  # noqa: A002
        self.found.append((collection, filter, options.get("hint")))
        return [{"e": ["Practitioner/lark"]}] if options.get("fields") == ["e"] else []

    async def count(self, collection: str, filter: Any, **options: Any) -> int:  # noqa: A002
        self.found.append((collection, filter, options.get("hint")))
        return self.dice.choice((0, 3, 499, 500))


async def compiled(query: str, visible: Visibility, sent: Any = None, after: Any = None) -> Any:
    request = asked(query, visible.resource_type)
    reading: Any = sent or Sent()
    return await compile_search(reading, request, visible, after)


def proved(found: Compiled) -> list[str]:
    """Hold what a search declares against its filter and the declared indexes."""
    fields = index_named(RESOURCE, found.hint)
    assert fields[: len(found.leads)] == found.leads, (found.hint, found.leads)
    kinds = bounds(found.filter, fields)
    assert len(kinds) >= len(found.leads), (found.leads, kinds, found.filter)
    assert RANGE not in kinds[: len(found.leads) - 1], "behind a range nothing is sought"
    assert found.order[-1][0] == "_id", "no two rows are in one place"
    return kinds


SOUGHT: Final[Mapping[tuple[str, str], int]] = {
    (RESOURCE, "place"): 2,
    (RESOURCE, "term"): 3,
    (RESOURCE, "low"): 4,
    (RESOURCE, "high"): 4,
    (RESOURCE, "updated"): 3,
    (RESOURCE, "edge"): 2,
    (RESOURCE, "own"): 2,
    (RESOURCE, "stale"): 0,  # all that is not of this version: two ranges, which begin and end it
    (VERSION, "feed"): 2,
    (VERSION, "of_record"): 3,
    (RECORD, "field"): 1,
    (RECORD, "expires"): 1,
    (ACCESS, "turn"): 1,
    (ACCESS, "of_record"): 3,
    (ACCESS, "of_practice"): 2,
    (ACCESS, "of_app"): 3,
    (UNDO, "holder"): 1,
}
"""How many fields of each index a lookup binds, but for searches, which say it themselves."""


def proved_lookup(collection: str, part: Any, hint: str | None) -> None:
    """Hold a lookup against the index it names."""
    if hint is None:
        assert set(part) == {"_id"}, (collection, part)
        hint = "_id_"
    least = SOUGHT.get((collection, hint), 1)
    assert len(bounds(part, index_named(collection, hint))) >= least, (collection, hint, part)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_search_binds_the_first_fields_of_the_index_it_names(kind: str) -> None:
    for name, question in all_questions(TYPES):
        sent = Sent()
        found = await compiled(question.pair, KINDS[kind](name), sent)
        if found is None:
            continue
        proved(found)
        for lookup in sent.found:
            proved_lookup(*lookup)


@pytest.mark.parametrize("kind", KINDS)
async def test_so_does_any_combination_in_any_order_on_any_page(kind: str) -> None:
    dice = random.Random(kind)
    by_type: dict[str, list[str]] = {}
    for name, question in all_questions(TYPES):
        by_type.setdefault(name, []).append(question.pair)
    for _ in range(300):
        name = dice.choice(TYPES)
        pairs = dice.sample(by_type[name], dice.randrange(4))
        codes = [code for code in parameters_for(name) if dice.random() < 0.1][:2]
        sort = ",".join(f"{dice.choice(('', '-'))}{code}" for code in codes)
        query = "&".join([*pairs, f"_sort={sort}"] if sort else pairs)
        sent = Sent(dice)
        visible = KINDS[kind](name)
        found = await compiled(query, visible, sent)
        if found is None:
            continue
        proved(found)
        for lookup in sent.found:
            proved_lookup(*lookup)
        values = [dice.choice((None, "a", 5)) for _ in found.keys]
        following = await compiled(query, visible, Sent(), (*values, DERM, "a"))
        assert following is not None
        # Where the page begins only says more of the same: no bound is lost by it.
        page = replace(following, filter=every(following.filter, following.behind))
        assert len(proved(page)) >= len(proved(following))


# ---------------------------------------------------------------- what no index narrows


NOT_NARROWED: Final[frozenset[Label]] = frozenset(
    {
        *((kind, "missing", "") for kind in ("date", "number", "quantity", "reference")),
        *((kind, "missing", "") for kind in ("string", "token", "uri")),
        *((kind, "", "ne") for kind in ("date", "number", "quantity", "_lastUpdated")),
        ("token", "not", ""),
        ("string", "contains", ""),
    }
)
"""By these alone a practice's rows of the type are read, and those of a record's in a record."""


@pytest.mark.parametrize("kind", KINDS)
async def test_every_parameter_is_one_seek_but_for_these(kind: str) -> None:
    """Or, in a record, the record's rows of the type: there no more are read by any search."""
    read: set[Label] = set()
    for name, question in all_questions(TYPES):
        found = await compiled(question.pair, KINDS[kind](name))
        if found is None:
            continue
        if kind in BY_ID or question.code == "_id":
            assert found.leads == ("_id",)
        elif kind in OF_A_RECORD:
            assert found.leads in {("p", "t", "o"), ("p", "t", "s", "o")}
        elif found.leads == ("p", "t"):
            read.add(question.label)
        else:
            assert len(found.leads) > 2, (question, found.leads)
    assert read == (set() if kind in {*OF_A_RECORD, *BY_ID} else NOT_NARROWED)


async def test_so_is_every_parameter_of_every_type() -> None:
    known: set[Any] = set()
    for name in served_types():
        for one in parameters_for(name).values():
            if (one.code, one.type, one.targets, one.modifiers) in known:
                continue  # as of another type
            known.add((one.code, one.type, one.targets, one.modifiers))
            for question in questions(one):
                found = await compiled(question.pair, of_practice(name))
                proved(found)
                narrowed = found.leads != ("p", "t")
                assert narrowed is (question.label not in NOT_NARROWED), (name, question)


SIDES: Final[Mapping[str, set[str]]] = {
    "eq": {"it begins after", "it begins before", "it ends after", "it ends before"},
    "ne": set(),
    "gt": {"it ends after"},
    "ge": {"it ends after"},
    "sa": {"it ends after", "it begins after"},
    "lt": {"it begins before"},
    "le": {"it begins before"},
    "eb": {"it begins before", "it ends before"},
    "ap": {"it begins before", "it ends after"},
}
"""What is known of a range that compares so."""


@pytest.mark.parametrize("prefixes", list(itertools.product(PREFIXES, repeat=2)))
async def test_alternatives_are_one_seek_when_they_have_a_side_in_common(
    prefixes: tuple[str, str],
) -> None:
    one, other = prefixes
    for name, code, values in (
        ("Observation", "date", ("2023", "2024-05")),
        ("RiskAssessment", "probability", ("0.5", "0.75")),
        ("Observation", "value-quantity", ("5", "7||mg")),
    ):
        query = f"{code}={one}{values[0]},{other}{values[1]}"
        found = await compiled(query, of_practice(name))
        proved(found)
        assert (found.leads != ("p", "t")) is bool(SIDES[one] & SIDES[other]), query


# ---------------------------------------------------------------- what is sorted


IN_MEMORY: Final[Mapping[str, set[tuple[str, str]]]] = {
    "record": set(),
    "practice": {
        ("_id_", POINTS),
        ("low", RANGE),
        ("high", RANGE),
        ("updated", RANGE),
        ("term", RANGE),
    },
}
"""What is found through an index, and how it bounds its last field, and then sorted."""


@pytest.mark.parametrize("kind", IN_MEMORY)
async def test_the_order_of_pages_is_the_index_own_but_for_these(kind: str) -> None:
    sorted_by_memory: set[tuple[str, str]] = set()
    for name, question in all_questions(TYPES):
        found = await compiled(question.pair, KINDS[kind](name))
        if not in_order(found.filter, keys_of(RESOURCE, found.hint), found.order):
            weakest = min(proved(found), key=_WEAKEST_FIRST.index)
            sorted_by_memory.add((found.hint, weakest))
    assert sorted_by_memory == IN_MEMORY[kind]


@pytest.mark.parametrize(
    ("query", "walked"),
    [
        ("", True),
        ("_sort=_lastUpdated", True),
        ("_sort=-_lastUpdated", True),
        ("_lastUpdated=gt2024&_sort=-_lastUpdated", True),
        ("_lastUpdated=ne2024&_sort=-_lastUpdated", True),
        ("_sort=_id", False),
        ("_sort=date", False),
        ("_sort=-code,_lastUpdated", False),
        ("_sort=-_lastUpdated,code", False),
        ("code=x&_sort=-_lastUpdated", False),
        ("date=2024&_sort=date", False),
    ],
)
async def test_another_order_is_the_index_own_only_by_update(query: str, *, walked: bool) -> None:
    """Sorted is what a search finds, not more: a page of a thousand rows reads these."""
    found = await compiled(query, of_practice())
    assert in_order(found.filter, keys_of(RESOURCE, found.hint), found.order) is walked


# ---------------------------------------------------------------- what a server says


@dataclass(frozen=True)
class Scan:
    """One scan of an index; ``bounded`` are its fields of which not every value is read."""

    index: str
    bounded: frozenset[str] | None
    """``None``: the server does not say."""


@dataclass(frozen=True)
class Plan:
    """How a server finds something; ``whole``: it reads the whole collection."""

    scans: tuple[Scan, ...]
    sorts: bool
    whole: bool
    of_documentdb: bool = False


def plan_of(explained: Mapping[str, Any], fields: Sequence[str]) -> Plan | None:
    """Read what ``explain`` answers; ``None`` if there is no plan in it."""
    planned = explained.get("queryPlanner", {})
    if "Plan" in planned:
        return _plan_of_documentdb(planned["Plan"], fields)
    if "winningPlan" in planned:
        return _plan_of_mongodb(planned["winningPlan"], fields)
    return None


def _plan_of_documentdb(plan: Mapping[str, Any], fields: Sequence[str]) -> Plan:
    """PostgreSQL's plan, in which a scan says ``"p": ["a", "a"], "t": (MinKey, MaxKey)``."""
    nodes = list(_nodes(plan, "Node Type"))
    scans = [
        Scan(
            scan["indexName"],
            frozenset(name for name in fields if f'"{name}": (MinKey, MaxKey)' not in text)
            if text
            else None,
        )
        for node in nodes
        for scan in node.get("IndexDetails", ())
        for text in scan.get("indexBounds") or [""]
    ]
    kinds = {node["Node Type"] for node in nodes}
    return Plan(tuple(scans), "Sort" in kinds, "Seq Scan" in kinds, of_documentdb=True)


def _plan_of_mongodb(plan: Mapping[str, Any], fields: Sequence[str]) -> Plan:
    """MongoDB's winning plan: stages within stages, by either of its two engines."""
    stages = list(_nodes(plan, "stage"))
    scans = [
        Scan(
            stage["indexName"],
            frozenset(
                name
                for name in fields
                if not {"[MinKey, MaxKey]", "[MaxKey, MinKey]"} & set(stage["indexBounds"][name])
            ),
        )
        for stage in stages
        if stage["stage"] == "IXSCAN"
    ]
    scans += [
        Scan("_id_", None) for stage in stages if stage["stage"] in {"IDHACK", "EXPRESS_IXSCAN"}
    ]
    kinds = {stage["stage"] for stage in stages}
    return Plan(tuple(scans), "SORT" in kinds, "COLLSCAN" in kinds)


def _nodes(plan: Any, name: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(plan, Mapping):
        if name in plan:
            yield plan
        for part in plan.values():
            yield from _nodes(part, name)
    elif isinstance(plan, list):
        for part in plan:
            yield from _nodes(part, name)


def test_the_winning_plan_of_mongodb_is_read() -> None:
    scan = {
        "stage": "IXSCAN",
        "indexName": "place",
        "isMultiKey": False,
        "direction": "forward",
        "indexBounds": {
            "p": ['["dermatology", "dermatology"]'],
            "t": ['["Observation", "Observation"]'],
            "o": ["[MinKey, MaxKey]"],
            "_id": ["[MinKey, MaxKey]"],
        },
    }
    fetch = {"stage": "FETCH", "filter": {"x": {"$eq": False}}, "inputStage": scan}
    merge = {"stage": "SORT_MERGE", "inputStages": [fetch, fetch]}
    place = index_named(RESOURCE, "place")
    plans: list[Any] = [
        {"stage": "LIMIT", "inputStage": merge},
        {"queryPlan": {"stage": "LIMIT", "inputStage": merge}, "slotBasedPlan": {"stages": "[1]"}},
        {"stage": "SINGLE_SHARD", "shards": [{"shardName": "a", "winningPlan": merge}]},
    ]
    for winning in plans:
        explained = {"queryPlanner": {"winningPlan": winning, "rejectedPlans": []}}
        found = Scan("place", frozenset({"p", "t"}))
        assert plan_of(explained, place) == Plan((found, found), sorts=False, whole=False)
    sorting: Any = {"stage": "SORT", "inputStage": {"stage": "COLLSCAN"}}
    assert plan_of({"queryPlanner": {"winningPlan": sorting}}, place) == Plan(
        (), sorts=True, whole=True
    )
    assert plan_of({"plan": "AndCondition"}, place) is None


def without_alternatives(part: Any) -> dict[str, Any]:
    """What of a filter must hold in any case."""
    return every(*({name: what} for name, what in conditions(part) if name != "$or"))


# ---------------------------------------------------------------- on a server


on_a_server = [pytest.mark.mongo, pytest.mark.skipif(not SERVER, reason=NO_SERVER)]

MORE: Final = (
    "",
    "_sort=-_lastUpdated",
    "_sort=date",
    "_sort=-code",
    "_lastUpdated=gt2023-11-14T22:14:00Z",
    "_lastUpdated=ne2023-11-14T22:14:00Z&_sort=_lastUpdated",
    "status=final,preliminary&_sort=-date,_id",
    "value-string=a,b",
    "code:not=x&date=ge2000",
)
"""Of Observations, besides what is generated."""


@functools.cache
def sample() -> Corpus:
    """Made-up resources of the types above."""
    whole = small_corpus()
    names = [name for name in TYPES if name in whole.bodies]
    return Corpus(
        {name: whole.bodies[name] for name in names}, {name: whole.trees[name] for name in names}
    )


@functools.cache
def sample_rows() -> list[NewVersion]:
    """The sample as it would be stored, with facts of every kind."""
    own = f'"{BASE}/'.encode()
    rows: list[NewVersion] = []
    for bodies in sample().bodies.values():
        for body in bodies.values():
            n = len(rows)
            shared = n % 8 == 7
            rows.append(
                a_row(
                    parse(body.replace(own, b'"')),
                    updated=1_700_000_000_000 + n * 1000,
                    practice=SHARED if shared else DERM,
                    owners=() if shared else (("ada",), ("bo",), ("ada", "bo"))[n % 3],
                    sections=(("results",), (), ("results", "visits"))[n // 3 % 3],
                    labels=((), ("R",), ("R", "V"))[n // 9 % 3],
                    directory=n % 5 == 0,
                )
            )
    return rows


def searches() -> list[tuple[str, str, Query | None]]:
    """Type, query, and the same for the matcher."""
    generated = generate(sample(), 3 * len(LABELS), seed=7)
    return [
        *((one.resource_type, urlencode(one.pairs), one) for one in generated),
        *(("Observation", query, None) for query in MORE),
    ]


def visible_rows(visible: Visibility) -> set[str]:
    """The ids that a visibility shows of the sample, by the visibility's own judgement."""
    shown: set[str] = set()
    for new in sample_rows():
        facts, row = new.row.facts, new.row

        def holds(criteria: Any, new: NewVersion = new) -> bool:
            at = new.row.updated * 1000
            return matches(criteria, new.entries, id=new.row.facts.id, last_updated=at)

        if visible.admits(facts, holds):
            shown.add(row.facts.id)
    return shown


@pytest.fixture(scope="module")
def filled() -> Iterator[Database]:
    """The sample in a database."""
    place = Database.new(SERVER, "motor", transactions=TRANSACTIONS)

    async def fill() -> None:
        store = await place.open(clock)
        for start in range(0, len(sample_rows()), 50):
            await write(store, *sample_rows()[start : start + 50])
        await store.aclose()

    asyncio.run(fill())
    yield place
    asyncio.run(place.drop())


def clock() -> float:
    return NOW.timestamp()


@pytest.fixture
async def reading(filled: Database) -> AsyncIterator[Reading]:
    driver: MongoDriver = connect(filled.uri, filled.driver)
    yield Reading(driver, clock)
    await driver.close()


@pytest.mark.parametrize("kind", KINDS)
class TestOnAServer:
    pytestmark = on_a_server

    async def test_a_search_finds_with_its_index_what_it_finds_with_any(
        self, kind: str, reading: Reading
    ) -> None:
        """And what the matcher finds among the rows that are visible."""
        async for found, name, query in compiled_searches(kind, reading):
            options: Any = {"sort": found.order, "fields": ["i"]}
            hinted = await reading.find(RESOURCE, found.filter, hint=found.hint, **options)
            free = await reading.find(RESOURCE, found.filter, **options)
            assert hinted == free, query
            if query is not None and kind != "directory":
                wanted = expected(query, sample()) & visible_rows(KINDS[kind](name))
                assert {row["i"] for row in hinted} == wanted, query

    async def test_the_server_bounds_what_is_declared(
        self, kind: str, reading: Reading, filled: Database
    ) -> None:
        async with AsyncMongoClient[dict[str, Any]](filled.uri) as client:
            async for found, _, _ in compiled_searches(kind, reading):
                fields = index_named(RESOURCE, found.hint)
                asked_for = {
                    "find": RESOURCE,
                    "filter": found.filter,
                    "sort": dict(found.order),
                    "limit": 21,
                    "hint": found.hint,
                }
                plan = plan_of(await client[filled.name].command("explain", asked_for), fields)
                if plan is None:
                    pytest.skip("this server does not say how it finds what it finds")
                assert not plan.whole, found
                assert {scan.index for scan in plan.scans} == {found.hint}, found
                leads = found.leads
                if plan.of_documentdb:  # in which no index is bounded by alternatives
                    leads = leads[: len(bounds(without_alternatives(found.filter), fields))]
                for scan in plan.scans:
                    assert scan.bounded is None or scan.bounded >= set(leads), (scan, found)
                if plan.sorts and not plan.of_documentdb and kind in IN_MEMORY:  # that always sorts
                    assert not in_order(found.filter, keys_of(RESOURCE, found.hint), found.order)


async def compiled_searches(
    kind: str, reading: Reading
) -> AsyncIterator[tuple[Compiled, str, Query | None]]:
    for name, text, query in searches():
        request = parse_search(name, parse_qsl(text, keep_blank_values=True), base=BASE)
        found = await compile_search(reading, request, KINDS[kind](name), None)
        if found is not None:
            yield found, name, query


LOST: Final[Mapping[str, tuple[Visibility, str]]] = {
    "place": (of_record(), ""),
    "term": (of_practice(), "code=x"),
    "low": (of_practice(), "date=2024"),
    "high": (of_practice(), "date=gt2024"),
    "updated": (of_practice(), "_sort=-_lastUpdated"),
}
"""Searches that name each index."""


class TestWithoutAnIndex:
    pytestmark = on_a_server

    async def test_a_search_that_names_it_fails_until_it_is_built_again(self) -> None:
        """So a search that was served used the index that it names."""
        place = Database.new(SERVER, "motor", transactions=TRANSACTIONS)
        store = await place.open(clock)
        try:
            async with AsyncMongoClient[dict[str, Any]](place.uri) as client:
                for hint, (visible, query) in LOST.items():
                    await store.search(asked(query), visible)
                    await client[place.name][RESOURCE].drop_index(hint)
                    with pytest.raises(Unavailable, match="refused a command"):
                        await store.search(asked(query), visible)
                    lines = await store.check_indexes()
                    assert [line for line in lines if line.endswith("created")] == [
                        f"{RESOURCE}.{hint} ({', '.join(index_named(RESOURCE, hint))}): created"
                    ]
                    await store.search(asked(query), visible)
        finally:
            await store.aclose()
            await place.drop()


SUBJECT: Final = parameters_for("Observation")["subject"]
ADA: Final = KEY("Patient/ada")


async def _targets(store: MongoStore) -> Any:
    row = await store.read(KEY("Observation/a"), of_record())
    assert row is not None
    return await store.targets([row], SUBJECT)


LOOKUPS: Final = (
    *OPERATIONS,
    Operation("referring", lambda s: s.referring(SUBJECT, [ADA], of_practice(), limit=5)),
    Operation("referrers", lambda s: s.transact(lambda t: t.referrers(ADA, DERM))),
    Operation(
        "referrers of some types",
        lambda s: s.transact(lambda t: t.referrers(ADA, DERM, types={"Condition"}, deleted=True)),
    ),
    Operation("facts", lambda s: s.transact(lambda t: t.facts([ADA], DERM))),
    Operation("stale keys", lambda s: s.stale_keys(5)),
    Operation("targets", _targets),
    Operation("many", lambda s: s.read_many([ADA, KEY("Patient/bo")], of_practice("Patient"))),
    Operation(
        "a member of the directory",
        lambda s: s.read(KEY("Practitioner/lark"), KINDS["directory"]("Practitioner")),
    ),
    Operation(
        "the directory",
        lambda s: s.search(
            asked("_id=lark,wren", "Practitioner"), KINDS["directory"]("Practitioner")
        ),
    ),
    Operation(
        "feed of a record",
        lambda s: s.feed({"Observation": of_record()}, since=5, count=5, after=None),
    ),
    Operation("log of a practice", lambda s: lines(s, None)),
    Operation("log of an agent", lambda s: lines(s, agent="Patient/ada")),
    Operation("log of an app", of_app),
)
"""Whatever the store does, but for searches that no record bounds."""


class Watched(MongoDriver):
    """Keeps what is looked up."""

    def __init__(self, client: Any, database: str, name: Any) -> None:
        super().__init__(client, database, name)
        self.sent: list[tuple[str, Any, str | None, Keys]] = []

    async def find(self, collection: str, filter: Any, **options: Any) -> Any:  # noqa: A002
        order = options.get("sort") or ()
        self.sent.append((collection, filter, options.get("hint"), order))
        return await super().find(collection, filter, **options)

    async def count(self, collection: str, filter: Any, **options: Any) -> Any:  # noqa: A002
        self.sent.append((collection, filter, options.get("hint"), ()))
        return await super().count(collection, filter, **options)


class TestOfLookups:
    pytestmark = on_a_server

    async def test_each_seeks_an_index_and_no_index_is_for_nothing(self) -> None:
        place = Database.new(SERVER, "motor", transactions=TRANSACTIONS)
        driver = connect(place.uri, place.driver, kind=Watched)
        store = await MongoStore.over(
            driver, transactions=place.transactions, clock=Clock(), expire=False
        )
        try:
            for operation in LOOKUPS:
                for act in (operation.before, operation.act):
                    if act is not None:
                        # Each expects an empty store; here it is what they ask that counts.
                        with contextlib.suppress(AssertionError, Conflict, DuplicateRecord):
                            await act(store)
        finally:
            await store.aclose()
            await place.drop()
        used: set[tuple[str, str]] = set()
        for collection, part, hint, order in driver.sent:
            proved_lookup(collection, part, hint)
            if hint is not None:
                used.add((collection, hint))
                # Few are named by their ids, and few refer to one resource: these are sorted.
                if order and (collection, hint) not in {(RESOURCE, "_id_"), (RESOURCE, "edge")}:
                    assert in_order(part, keys_of(collection, hint), order), (part, order)
        declared = {(name, index.name) for name, held in INDEXES.items() for index in held}
        elsewhere = {(RESOURCE, name) for name in LOST} | {(UNDO, "holder")}
        assert declared - elsewhere <= used
