"""A whole search: criteria, order, page and what to include. Source: FHIR R4 §3.1.1.

What is not understood is refused by name: a filter that is ignored widens the answer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeVar
from urllib.parse import parse_qsl

from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import InvalidSearch
from fhir_portal.search.criterion import Criterion, parse_criterion
from fhir_portal.search.registry import (
    COLUMNS,
    SHOWN,
    SearchParameter,
    meant,
    ordinal,
    parameters_for,
    placed,
    repeated,
)
from fhir_portal.search.values import DateValue, NumberValue, QuantityValue

_T = TypeVar("_T")

DEFAULT_COUNT: Final = 20
MAX_COUNT: Final = 200
"""A page is never longer; a client that asks for more gets this (§3.1.1.5.3 allows fewer)."""
MAX_VALUES: Final = 200
"""So many values may all criteria of one search have together."""
MAX_INCLUDES: Final = 20

REFUSED: Final = frozenset(
    {
        *("_has", "_filter", "_text", "_content", "_query", "_list", "_type"),
        *("_elements", "_contained", "_containedType"),
    }
)
"""Parameters of R4 that are not offered and, unlike unknown ones, are refused even leniently."""


@dataclass(frozen=True, slots=True)
class Sort:
    """One rule of ``_sort``. Of several values the one that comes first in this order counts."""

    parameter: SearchParameter
    descending: bool

    def __str__(self) -> str:
        return f"-{self.parameter.code}" if self.descending else self.parameter.code


@dataclass(frozen=True, slots=True)
class Include:
    """``_include`` or ``_revinclude``: references of this parameter, only to ``target`` if given.

    ``parameter.resource_type`` is the type that holds the reference.
    """

    parameter: SearchParameter
    target: str | None

    def __str__(self) -> str:
        text = f"{self.parameter.resource_type}:{self.parameter.code}"
        return f"{text}:{self.target}" if self.target else text


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search of one type, fully understood. All ``criteria`` must hold."""

    resource_type: str
    criteria: tuple[Criterion, ...] = ()
    sort: tuple[Sort, ...] = ()
    count: int = DEFAULT_COUNT
    includes: tuple[Include, ...] = ()
    revincludes: tuple[Include, ...] = ()
    total: Literal["none", "accurate"] = "none"
    summary: Literal["false", "count"] = "false"
    page: str | None = None
    """What a paging link carries in ``_page``, opaque here."""
    ignored: tuple[str, ...] = ()
    """Names of unknown parameters that were dropped (``Prefer: handling=lenient``)."""
    standing: bool = False
    """Whether this very object is asked again and again: a search of the server's own, of which a
    store may keep what it made of it. Nothing in it depends on the clock."""

    @property
    def only_total(self) -> bool:
        """No entries are wanted: ``_summary=count``, or ``_count=0``, which means the same."""
        return self.summary == "count" or self.count == 0

    def parameters_text(self) -> list[tuple[str, str]]:
        """The parameters as understood, for the self link (§3.1.1.6); ``_count`` is always said."""
        pairs = [(criterion.name, criterion.text) for criterion in self.criteria]
        if self.sort:
            pairs.append(("_sort", ",".join(map(str, self.sort))))
        pairs += [("_include", str(include)) for include in self.includes]
        pairs += [("_revinclude", str(include)) for include in self.revincludes]
        if self.total != "none":
            pairs.append(("_total", self.total))
        if self.summary != "false":
            pairs.append(("_summary", self.summary))
        pairs.append(("_count", str(self.count)))
        if self.page is not None:
            pairs.append(("_page", self.page))
        return pairs


def parse_search(
    resource_type: str,
    pairs: Sequence[tuple[str, str]],
    *,
    base: str,
    aliases: Sequence[str] = (),
    lenient: bool = False,
) -> SearchRequest:
    """Read the parameters of a search.

    Args:
        resource_type: the type that is searched.
        pairs: names and values, percent-decoded, ``_format`` and ``_pretty`` taken out.
        base: the server's base address; URLs directly under it are read as ``Type/id``.
        aliases: other spellings of it.
        lenient: drop unknown parameters and name them in ``ignored``. Modifiers, chains, includes,
            values and what R4 defines as a control of the search are refused all the same.

    Raises:
        InvalidSearch: for anything that is not understood or not offered; it is named.
        UnknownType: when the type is not served.
    """
    bases = (base, *aliases)
    return _Parsing(resource_type, bases=bases, lenient=lenient).read(pairs)


@functools.lru_cache(64)
def standing_search(resource_type: str, *pairs: tuple[str, str]) -> SearchRequest:
    """Return a search of the server's own, read once: only words of ours, none of a caller's."""
    return replace(parse_search(resource_type, pairs, base=""), standing=True)


def parse_query(resource_type: str, query: str) -> tuple[Criterion, ...]:
    """Read the query of a granular scope: ``category=system|code&…``, all of which must hold.

    No modifiers, no prefixes but ``eq`` and, for a date, ``ge`` and ``lt``, for a period, and
    no parameter that is not indexed: a scope has to be decidable from a resource alone. (SMART App
    Launch 2.2, finer-grained resource constraints.)

    Raises:
        InvalidSearch: for anything else, an empty query included.
        UnknownType: when the type is not served.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except ValueError:
        raise InvalidSearch("A scope's query is name=value, joined by &.") from None
    if not pairs:
        raise InvalidSearch("A scope's query is empty.")
    parameters = parameters_for(resource_type)
    criteria: list[Criterion] = []
    for number, (name, text) in enumerate(pairs, 1):
        parameter = parameters.get(name)
        if parameter is None or name in COLUMNS:
            error = f"{repeated(name)} cannot be used in a scope for {resource_type}."
            raise placed(InvalidSearch(error), number, len(pairs))
        criterion = parse_criterion(parameter, "", text)
        for value in criterion.values:
            if not isinstance(value, DateValue | NumberValue | QuantityValue):
                continue
            if value.prefix not in (
                ("eq", "ge", "lt") if isinstance(value, DateValue) else ("eq",)
            ):
                raise InvalidSearch(f"{name}: a scope has no prefix such as {value.prefix}.")
        criteria.append(criterion)
    return tuple(criteria)


@dataclass(slots=True)
class _Parsing:
    """One reading of the pairs; each control of the search may come once, includes repeat."""

    resource_type: str
    bases: Sequence[str]
    lenient: bool
    criteria: list[Criterion] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    revincludes: list[Include] = field(default_factory=list)
    controls: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def read(self, pairs: Sequence[tuple[str, str]]) -> SearchRequest:
        for number, (name, text) in enumerate(pairs, 1):
            try:
                self._pair(name, text)
            except InvalidSearch as error:
                raise placed(error, number, len(pairs)) from None
        if sum(len(criterion.values) for criterion in self.criteria) > MAX_VALUES:
            raise InvalidSearch(f"A search has at most {MAX_VALUES} values.")
        if len(self.includes) + len(self.revincludes) > MAX_INCLUDES:
            raise InvalidSearch(f"A search has at most {MAX_INCLUDES} includes.")
        total, summary = self._control("_total", _total), self._control("_summary", _summary)
        count = self._control("_count", _count)
        return SearchRequest(
            resource_type=self.resource_type,
            criteria=tuple(self.criteria),
            sort=self._control("_sort", self._sort) or (),
            count=DEFAULT_COUNT if count is None else count,
            includes=tuple(dict.fromkeys(self.includes)),
            revincludes=tuple(dict.fromkeys(self.revincludes)),
            total=total or "none",
            summary=summary or "false",
            page=self._control("_page", _page),
            ignored=tuple(dict.fromkeys(self.ignored)),
        )

    def _pair(self, name: str, text: str) -> None:
        code, colon, modifier = name.partition(":")
        parameter = parameters_for(self.resource_type).get(code)
        if code in ("_include", "_revinclude"):
            if colon:
                raise InvalidSearch(f"{code}:{repeated(modifier)} is not supported; {code} is.")
            if code == "_include":
                self.includes.append(self._include(text))
            else:
                self.revincludes.append(self._revinclude(text))
        elif name in ("_sort", "_count", "_total", "_summary", "_page"):
            if name in self.controls:
                raise InvalidSearch(f"{name} may be given once.")
            self.controls[name] = text
        elif parameter is not None:
            if colon and not modifier:
                raise InvalidSearch(f"{code}: has no modifier after the colon.")
            if "." in modifier:
                raise InvalidSearch(f"{repeated(name)}: chained parameters are not supported.")
            criterion = parse_criterion(parameter, modifier, text)
            for base in self.bases:
                criterion = criterion.seen_from(base)
            self.criteria.append(criterion)
        else:
            self._unknown(name, code)

    def _unknown(self, name: str, code: str) -> None:
        """Refuse it, or drop it if that was asked for and it cannot be a filter that we know of."""
        shown = repeated(name)
        if code in REFUSED:
            raise InvalidSearch(f"{shown} is not supported by this server.")
        if "." in name:
            raise InvalidSearch(f"{shown}: chained parameters are not supported.")
        if not self.lenient:
            raise InvalidSearch(
                f"{shown} is not a search parameter of {self.resource_type} here."
                f"{meant(self.resource_type, code)}"
            )
        self.ignored.append(name[:SHOWN])

    def _include(self, text: str) -> Include:
        include = _read_include("_include", text)
        if include.parameter.resource_type != self.resource_type:
            raise InvalidSearch(
                f"_include: {include} does not start at the type searched, {self.resource_type}; "
                "includes go one level."
            )
        return include

    def _revinclude(self, text: str) -> Include:
        include = _read_include("_revinclude", text)
        target = include.target or self.resource_type
        if target != self.resource_type or target not in include.parameter.targets:
            raise InvalidSearch(
                f"_revinclude: {include} does not lead to the type searched, {self.resource_type}."
            )
        return include

    def _sort(self, text: str) -> tuple[Sort, ...]:
        rules: list[Sort] = []
        given = text.split(",")
        for number, rule in enumerate(given, 1):
            code = rule.removeprefix("-")
            parameter = parameters_for(self.resource_type).get(code)
            if parameter is None:
                which = f", the {ordinal(number)} of them," if len(given) > 1 else ""
                raise InvalidSearch(
                    f"{repeated(code)!r}{which} is not a search parameter of "
                    f"{self.resource_type} here.{meant(self.resource_type, code)}"
                )
            if any(earlier.parameter == parameter for earlier in rules):
                raise InvalidSearch(f"{code} stands there twice.")
            rules.append(Sort(parameter, descending=rule.startswith("-")))
        return tuple(rules)

    def _control(self, name: str, read: Callable[[str], _T]) -> _T | None:
        """The value of a control that was given."""
        if name not in self.controls:
            return None
        try:
            return read(self.controls[name])
        except InvalidSearch as error:
            raise InvalidSearch(f"{name}: {error}") from None


def _read_include(name: str, text: str) -> Include:
    """``Type:parameter[:TargetType]``, where the parameter is a reference of that type."""
    if "*" in text:
        raise InvalidSearch(f"{name}: * is not supported; name the parameter.")
    source, _, rest = text.partition(":")
    code, colon, target = rest.partition(":")
    if not code or (colon and not target):
        raise InvalidSearch(f"{name} is Type:parameter or Type:parameter:TargetType.")
    if source not in served_types():
        raise InvalidSearch(f"{name}: {repeated(source)!r} is not a type of this server.")
    parameter = parameters_for(source).get(code)
    if parameter is None or parameter.type != "reference":
        raise InvalidSearch(
            f"{name}: {repeated(code)!r} is not a reference parameter of {source} here."
        )
    if target and target not in parameter.targets:
        raise InvalidSearch(f"{name}: {source}:{code} cannot refer to {repeated(target)!r}.")
    return Include(parameter, target or None)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidSearch("a whole number from 0 on is wanted.")
    digits = text.lstrip("0") or "0"
    return MAX_COUNT if len(digits) > len(str(MAX_COUNT)) else min(int(digits), MAX_COUNT)


def _total(text: str) -> Literal["none", "accurate"]:
    match text:
        case "none":
            return "none"
        case "accurate" | "estimate":
            return "accurate"
    raise InvalidSearch("it is none, estimate or accurate.")


def _summary(text: str) -> Literal["false", "count"]:
    match text:
        case "false":
            return "false"
        case "count":
            return "count"
    raise InvalidSearch("only count and false are supported.")


def _page(text: str) -> str:
    if not text:
        raise InvalidSearch("it is empty.")
    return text
