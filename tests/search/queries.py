"""Generated searches over a corpus, and what each must find.

The same corpus, count and seed give the same queries. A runner is any function
``search(resource_type, [(name, value), …]) -> set of ids``; ``differences`` compares it with the
oracle. A store's runner must know the corpus under ``BASE`` and have its clock at ``NOW``.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from fhir_portal.fhir.definitions import ParameterDefinition, search_parameters
from tests.search.corpus import BASE, Corpus
from tests.search.matcher import (
    Amount,
    Oracle,
    Span,
    definition,
    indexed,
    simplified,
)

Pair = tuple[str, str]
Label = tuple[str, str, str]
"""Parameter type, modifier (``:Type`` for any type), prefix."""
Search = Callable[[str, list[Pair]], set[str]]

_PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
_ORDERED = ("date", "number", "quantity")

LABELS: tuple[Label, ...] = (
    *((type_, "", prefix) for type_ in _ORDERED for prefix in _PREFIXES),
    *((type_, "", "") for type_ in ("token", "string", "reference", "uri")),
    *((type_, "missing", "") for type_ in (*_ORDERED, "token", "string", "reference", "uri")),
    ("token", "not", ""),
    ("string", "exact", ""),
    ("string", "contains", ""),
    ("reference", ":Type", ""),
)
"""What every parameter type can be asked with."""

NOT_OFFERED = {"phonetic"}
"""Parameters with values in the corpus that the server does not offer."""

SOUGHT = (1, 50)
"""A query is worth most when it finds some, but not everything."""


@dataclass(frozen=True)
class Query:
    """A search: all pairs must hold. ``labels`` say what its pairs exercise."""

    resource_type: str
    pairs: tuple[Pair, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Difference:
    query: Query
    missed: frozenset[str]
    """Expected, and not found."""
    surplus: frozenset[str]
    """Found, and not expected."""


@functools.cache
def _oracle(corpus: Corpus) -> Oracle:
    return Oracle(corpus)


def expected(query: Query, corpus: Corpus) -> set[str]:
    """Ids of the resources the query must find, whatever their order and paging."""
    oracle = _oracle(corpus)
    found = set(corpus.trees.get(query.resource_type, {}))
    for name, text in query.pairs:
        found &= oracle.ids(query.resource_type, name, text)
    return found


def generate(corpus: Corpus, count: int, seed: int) -> list[Query]:
    """``count`` different queries; each label leads as often as any other, in turn."""
    maker = _Maker(corpus, random.Random(seed))
    queries: dict[tuple[str, tuple[Pair, ...]], Query] = {}
    while len(queries) < count:
        query = maker.query(LABELS[len(queries) % len(LABELS)])
        queries.setdefault((query.resource_type, query.pairs), query)
    return list(queries.values())


def differences(corpus: Corpus, queries: Iterable[Query], search: Search) -> Iterator[Difference]:
    """The queries for which a runner finds something else than the oracle."""
    for query in queries:
        wanted = expected(query, corpus)
        found = search(query.resource_type, list(query.pairs))
        if found != wanted:
            yield Difference(query, frozenset(wanted - found), frozenset(found - wanted))


@dataclass(frozen=True)
class Statistics:
    """How varied a set of queries is."""

    queries: int
    types: Counter[str]
    labels: Counter[Label]
    none: int
    sought: int
    more: int

    @property
    def share_sought(self) -> float:
        return self.sought / self.queries

    def __str__(self) -> str:
        hits = (
            f"{self.none} find nothing, {self.sought} ({self.share_sought:.0%}) find "
            f"{SOUGHT[0]} to {SOUGHT[1]}, {self.more} more"
        )
        lines = [
            f"{self.queries} queries on {len(self.types)} types: {hits}",
            "by type: " + ", ".join(f"{t} {n}" for t, n in self.types.most_common()),
            "by parameter type, modifier and prefix:",
        ]
        lines += [f"  {' '.join(filter(None, label)):24} {self.labels[label]}" for label in LABELS]
        return "\n".join(lines)


def statistics(corpus: Corpus, queries: Sequence[Query]) -> Statistics:
    hits = [len(expected(query, corpus)) for query in queries]
    low, high = SOUGHT
    return Statistics(
        queries=len(queries),
        types=Counter(query.resource_type for query in queries),
        labels=Counter(label for query in queries for label in query.labels),
        none=sum(n < low for n in hits),
        sought=sum(low <= n <= high for n in hits),
        more=sum(n > high for n in hits),
    )


class _Maker:
    """Makes queries from what the resources of the corpus hold."""

    def __init__(self, corpus: Corpus, dice: random.Random) -> None:
        self._corpus = corpus
        self._dice = dice
        self._oracle = _oracle(corpus)
        self._types = sorted(t for t, trees in corpus.trees.items() if len(trees) > 1)
        self._by_type: dict[str, dict[str, list[str]]] = {}

    def query(self, label: Label) -> Query:
        """One query that starts with a pair of this label, narrowed when it finds too much."""
        resource_type, code = self._parameter(label)
        pair = self._pair(resource_type, code, label, self._any_id(resource_type, code))
        query = Query(resource_type, (pair,), (label,))
        if self._dice.random() < 0.08:
            return query
        for _ in range(4):
            found = sorted(expected(query, self._corpus))
            wide = len(found) > SOUGHT[1]
            if not found or not (wide or self._dice.random() < 0.2):
                break
            query = self._narrowed(query, self._dice.choice(found))
        return query

    def _narrowed(self, query: Query, id_: str) -> Query:
        """The same with one more pair, which the resource with this id satisfies or nearly."""
        wanted = self._dice.choice((("token", "", ""), ("date", "", "eq"), ("reference", "", "")))
        resource_type = query.resource_type
        codes = [
            code
            for code in self._codes(resource_type, wanted[0])
            if indexed(wanted[0], self._oracle.elements(resource_type, code)[id_])
        ]
        if not codes:
            return Query(resource_type, (*query.pairs, ("_id", id_)), query.labels)
        code = self._dice.choice(codes)
        pair = self._pair(resource_type, code, wanted, id_)
        return Query(resource_type, (*query.pairs, pair), (*query.labels, wanted))

    def _codes(self, resource_type: str, parameter_type: str) -> list[str]:
        """Parameters of a type that have a value somewhere in the corpus."""
        known = self._by_type.setdefault(resource_type, {})
        if parameter_type not in known:
            tables = search_parameters()
            rows = {**tables["Resource"], **tables.get(resource_type, {})}
            known[parameter_type] = [
                code
                for code, row in sorted(rows.items())
                if row.type == parameter_type
                and code not in NOT_OFFERED
                and code not in ("_id", "_lastUpdated")
                and any(
                    indexed(parameter_type, found)
                    for found in self._oracle.elements(resource_type, code).values()
                )
            ]
        return known[parameter_type]

    def _parameter(self, label: Label) -> tuple[str, str]:
        parameter_type, modifier, _ = label
        places = [
            (type_, code)
            for type_ in self._types
            for code in self._codes(type_, parameter_type)
            if modifier != ":Type" or _many_targets(definition(type_, code))
        ]
        types = sorted({type_ for type_, _ in places})
        chosen = self._dice.choice(types)
        return chosen, self._dice.choice([code for type_, code in places if type_ == chosen])

    def _any_id(self, resource_type: str, code: str) -> str:
        parameter = definition(resource_type, code)
        by_id = self._oracle.elements(resource_type, code)
        return self._dice.choice(
            [id_ for id_, found in by_id.items() if indexed(parameter.type, found)]
        )

    def _pair(self, resource_type: str, code: str, label: Label, id_: str) -> Pair:
        """A pair about a value that the resource with this id has."""
        parameter = definition(resource_type, code)
        parameter_type, modifier, prefix = label
        if modifier == "missing":
            return f"{code}:missing", self._dice.choice(("true", "false"))
        held = indexed(parameter_type, self._oracle.elements(resource_type, code)[id_])
        texts = [self._text(parameter, modifier, prefix, self._dice.choice(held))]
        if self._dice.random() < 0.15:
            other = self._any_id(resource_type, code)
            more = indexed(parameter_type, self._oracle.elements(resource_type, code)[other])
            texts.append(self._text(parameter, modifier, prefix, self._dice.choice(more)))
        name = f"{code}:{modifier}" if modifier and modifier != ":Type" else code
        if modifier == ":Type":
            types, ids = zip(*(text.split("/") for text in texts), strict=True)
            return f"{code}:{types[0]}", ",".join(ids)
        return name, ",".join(texts)

    def _text(self, parameter: ParameterDefinition, modifier: str, prefix: str, value: Any) -> str:
        if self._dice.random() < 0.04:
            return prefix.replace("eq", "") + self._elsewhere(parameter, modifier)
        match parameter.type:
            case "token":
                return self._token(value)
            case "string":
                return self._string(modifier, value)
            case "reference":
                return self._reference(parameter, modifier, value)
            case "date":
                return self._with_prefix(prefix, self._date(value))
            case "number":
                return self._with_prefix(prefix, self._number(value))
            case "quantity":
                return self._with_prefix(prefix, self._number(value)) + self._unit(value)
            case _:
                return _escaped(value)

    def _elsewhere(self, parameter: ParameterDefinition, modifier: str) -> str:
        """A value that nothing is likely to have."""
        absent = {
            "token": "http://nowhere.example|none",
            "string": "Xyzzy",
            "reference": "Patient/nobody",
            "date": "1871-03-02",
            "number": "987654",
            "quantity": "987654||furlong",
            "uri": "urn:nowhere",
        }[parameter.type]
        if modifier == ":Type":
            return f"{self._dice.choice(parameter.targets)}/nobody"
        return absent

    def _with_prefix(self, prefix: str, text: str) -> str:
        return text if prefix == "eq" and self._dice.random() < 0.7 else prefix + text

    def _token(self, value: tuple[str, str]) -> str:
        system, code = map(_escaped, value)
        forms = [f"{system}|{code}"] * 2 if system or code else ["http://nowhere.example|"]
        if code:
            forms += [code, code, code.swapcase() if code.isascii() else code, f"|{code}"]
        if system:
            forms.append(f"{system}|")
        return self._dice.choice(forms)

    def _string(self, modifier: str, value: str) -> str:
        if modifier == "exact":
            forms = [value, value, value, value.lower(), value[: len(value) // 2 + 1]]
            return _escaped(self._dice.choice(forms))
        start = 0
        if modifier == "contains":
            start = self._dice.randrange(max(1, len(value) - 2))
        length = self._dice.randrange(1, 9)
        part = value[start : start + length]
        if not simplified(part):
            part = value
        forms = [part, part, part.upper(), part.lower(), simplified(part), part.replace(" ", "  ")]
        return _escaped(self._dice.choice(forms))

    def _reference(self, parameter: ParameterDefinition, modifier: str, value: str) -> str:
        type_, _, id_ = value.rpartition("/")
        local = type_ in parameter.targets
        if modifier == ":Type":
            return value if local else f"{self._dice.choice(parameter.targets)}/nobody"
        if not local:
            return _escaped(value)
        return self._dice.choice((id_, value, value, f"{BASE}/{value}"))

    def _date(self, value: Span) -> str:
        """A date or time of any precision in or around the span."""
        middle = value.start if value.start.year > 1 else value.end
        if middle.year > 9000:
            middle = value.start
        shift = self._dice.choice((0, 0, 0, 1, -1, 30, -400)) * timedelta(days=1)
        moment = middle + shift + self._dice.choice((0, 0, 1, -1)) * timedelta(hours=5)
        day = f"{moment:%Y-%m-%d}"
        zone = self._dice.choice(("Z", "", "+00:00"))
        forms = (
            day[:4],
            day[:7],
            day,
            day,
            day,
            f"{moment:%Y-%m-%dT%H:%M}{zone}",
            f"{moment:%Y-%m-%dT%H:%M:%S}{zone}",
            f"{moment + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00",
            f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
            f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
        )
        return self._dice.choice(forms)

    def _number(self, value: Amount) -> str:
        ends = [end for end in (value.low, value.high) if end is not None]
        number = self._dice.choice(ends)
        digits = self._dice.choice((0, 1, 2, 3))
        forms = (
            number,
            number,
            round(number, digits),
            number + Decimal("0.5"),
            number * Decimal("1.04"),
            number.normalize(),
        )
        chosen = self._dice.choice(forms)
        return f"{chosen:f}" if self._dice.random() < 0.8 else str(chosen).lower()

    def _unit(self, value: Amount) -> str:
        system, code = map(_escaped, self._dice.choice(value.units))
        if not code:
            return ""
        return self._dice.choice(("", f"||{code}", f"|{system}|{code}"))


def _many_targets(parameter: ParameterDefinition) -> bool:
    """Whether ``:Type`` says more than the parameter does (``patient`` is always a Patient)."""
    return len(parameter.targets) > 1 and "resolve() is" not in parameter.expression


def _escaped(text: str) -> str:
    for character in "\\,|$":
        text = text.replace(character, f"\\{character}")
    return text
