"""The oracle: what a search must find, by the letter of FHIR R4 §3.1.1.4.

It shares no code with ``fhir_portal.search``. Values come from fhirpathpy, run on the whole
resource with the official expressions; they are compared with ``Decimal`` and ``datetime``.
"""

from __future__ import annotations

import calendar
import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from fhirpathpy import compile as compile_path
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.models import models

from fhir_portal.fhir.definitions import (
    ParameterDefinition,
    all_types,
    search_parameters,
    structures,
    value_set,
)
from tests.search.corpus import BASE, Corpus

NOW = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
"""When the searches run: what ``ap`` on dates is measured from."""

_TICK = timedelta(microseconds=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


# --- values of a parameter, through fhirpathpy ----------------------------------------------------


@dataclass(frozen=True)
class Found:
    """One element that an expression leads to."""

    type: str
    data: Any
    codes: Any = None
    """For a ``code``: the value set it is bound to, as system to codes."""


def definition(resource_type: str, code: str) -> ParameterDefinition:
    tables = search_parameters()
    return tables.get(resource_type, {}).get(code) or tables["Resource"][code]


class Oracle:
    """Finds and remembers the elements behind each parameter of each resource of a corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._found: dict[tuple[str, str], dict[str, list[Found]]] = {}

    def elements(self, resource_type: str, code: str) -> dict[str, list[Found]]:
        """By id: the elements of a parameter in every resource of a type."""
        key = (resource_type, code)
        if key not in self._found:
            evaluate = evaluator(resource_type, definition(resource_type, code).expression)
            trees = self._corpus.trees.get(resource_type, {})
            self._found[key] = {id_: evaluate(tree) for id_, tree in trees.items()}
        return self._found[key]

    def ids(self, resource_type: str, name: str, text: str) -> set[str]:
        """Ids of the resources that satisfy one ``name=text``."""
        code, _, modifier = name.partition(":")
        if code == "_id":
            return set(self._corpus.trees.get(resource_type, {})) & set(_split(text, ","))
        parameter = definition(resource_type, code)
        by_id = self.elements(resource_type, code)
        values = {id_: indexed(parameter.type, found) for id_, found in by_id.items()}
        if modifier == "missing":
            return {id_ for id_, held in values.items() if (not held) == (text == "true")}
        test = _alternatives(parameter, modifier, text)
        matched = {id_ for id_, held in values.items() if any(map(test, held))}
        return set(values) - matched if modifier == "not" else matched


@functools.cache
def evaluator(resource_type: str, expression: str) -> Callable[[dict[str, Any]], list[Found]]:
    """Run an expression as R4 has it; each alternative on its own, so that types are known."""
    if " and " in expression:
        truth = compile_path(expression, models["r4"])
        return lambda tree: [Found("boolean", value) for value in truth(tree, None)]
    runs = []
    for alternative in expression.split(" | "):
        own = re.sub(r"^(Resource|DomainResource)\.", f"{resource_type}.", alternative.strip())
        run = compile_path(own, models["r4"], _OPTIONS)
        runs.append((run, _binding(own)))

    def evaluate(tree: dict[str, Any]) -> list[Found]:
        found = []
        for run, codes in runs:
            for node in run(tree, None):
                data = node.data
                if isinstance(data, dict) and set(data) <= {"id", "extension"}:
                    continue  # a primitive without a value
                type_ = node.path or _guess(data)
                found.append(Found(type_, data, codes))
        return found

    return evaluate


def _resolve(references: list[Any]) -> list[Any]:
    """The type a reference names, as an empty resource of that type."""
    nodes = []
    for reference in references:
        segments = [s for s in str(reference.get("reference", "")).split("/") if s in all_types()]
        stated = str(reference.get("type", "")).split("/")[-1]
        type_ = segments[-1] if segments else stated
        if type_:
            nodes.append(ResourceNode.create_node({"resourceType": type_}, type_))
    return nodes


def _has_extension(elements: list[Any], url: str) -> bool:
    return any(e.get("url") == url for node in elements for e in node.get("extension", []))


_OPTIONS = {
    "returnRawData": True,
    "userInvocationTable": {
        "resolve": {"fn": _resolve, "arity": {0: []}},
        "hasExtension": {"fn": _has_extension, "arity": {1: ["String"]}},
    },
}


def _binding(expression: str) -> Any:
    """The value set behind a plain path that ends in a ``code``."""
    type_, *names = re.sub(r"\.(where|ofType|as)\([^.]*?\)", "", expression).split(".")
    url = None
    for name in names:
        element = structures().get(type_, {}).get(name)
        if element is None:
            return None
        type_, url = element.type, element.binding
    return value_set(url) if url else None


def _guess(data: Any) -> str:
    """The type of an element of a choice, where fhirpathpy does not say."""
    if not isinstance(data, dict):
        return "string"
    shapes = {
        "CodeableConcept": {"coding", "text"},
        "SampledData": {"origin"},
        "Range": {"low", "high"},
        "Money": {"currency"},
        "Quantity": {"value"},
        "Period": {"start", "end"},
        "Reference": {"reference"},
    }
    return next(type_ for type_, names in shapes.items() if names & set(data))


# --- what an element offers to be searched for ----------------------------------------------------


def indexed(parameter_type: str, found: list[Found]) -> list[Any]:
    return [value for one in found for value in _OFFERS[parameter_type](one)]


def _offer_tokens(found: Found) -> list[tuple[str, str]]:
    data = found.data
    match found.type:
        case "CodeableConcept":
            codings = data.get("coding") or [{}]
            return [(c.get("system", ""), c.get("code", "")) for c in codings]
        case "Coding":
            return [(data.get("system", ""), data.get("code", ""))]
        case "Identifier":
            return [(data.get("system", ""), data.get("value", ""))]
        case "ContactPoint":
            return [("", data.get("value", ""))]
        case "boolean":
            return [("", "true" if data else "false")]
        case "code":
            systems = sorted(s for s, codes in (found.codes or {}).items() if data in codes)
            return [(systems[0] if systems else "", data)]
        case _:
            return [("", str(data))]


def _offer_strings(found: Found) -> list[str]:
    data = found.data
    match found.type:
        case "HumanName":
            names = ["text", "family", "given", "prefix", "suffix"]
        case "Address":
            names = ["text", "line", "city", "district", "state", "postalCode", "country"]
        case _:
            return [data]
    texts: list[str] = []
    for name in names:
        part = data.get(name, [])
        texts += part if isinstance(part, list) else [part]
    return texts


def _offer_references(found: Found) -> list[str]:
    data = found.data
    text = data.get("reference") if isinstance(data, dict) else data
    if not text or text.startswith("#"):
        return []
    if isinstance(data, dict) and text.startswith("urn:"):
        return []
    if not isinstance(data, dict) and "|" in text:
        return [text, _local(text.split("|")[0])]
    return [_local(text.split("/_history/")[0])]


def _local(url: str) -> str:
    """``Type/id`` for what lies under this server's base."""
    inside = url.removeprefix(f"{BASE}/")
    return inside if inside.count("/") == 1 and inside.split("/")[0] in all_types() else url


@dataclass(frozen=True)
class Span:
    """A half-open stretch of time."""

    start: datetime
    end: datetime


def _offer_dates(found: Found) -> list[Span]:
    data = found.data
    match found.type:
        case "date" | "dateTime":
            return [span(data)]
        case "instant":
            start = span(data).start
            return [Span(start, start + _TICK)]
        case "Period":
            return _period_span(data)
        case "Timing":
            spans = [span(event) for event in data.get("event", [])]
            spans += _period_span(data.get("repeat", {}).get("boundsPeriod", {}))
            if not spans:
                return []
            return [Span(min(s.start for s in spans), max(s.end for s in spans))]
        case _:
            return []


def _period_span(period: dict[str, Any]) -> list[Span]:
    if "start" not in period and "end" not in period:
        return []
    start = span(period["start"]).start if "start" in period else _BEGINNING
    end = span(period["end"]).end if "end" in period else _END
    return [Span(start, end)] if start < end else []


@functools.cache
def span(text: str) -> Span:
    """The stretch of time a partial date or time covers; without a zone it is UTC."""
    match = re.fullmatch(
        r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?(?:T(\d\d):(\d\d)(?::(\d\d))?(?:\.(\d+))?)?(Z|[+-].*)?",
        text,
    )
    assert match, text
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    start = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        int((fraction or "")[:6].ljust(6, "0")),
        tzinfo=UTC,
    )
    if fraction:
        length = _TICK * 10 ** (6 - len(fraction[:6]))
    elif second:
        length = timedelta(seconds=1)
    elif hour:
        length = timedelta(minutes=1)
    elif day:
        length = timedelta(days=1)
    elif month:
        length = timedelta(days=calendar.monthrange(int(year), int(month))[1])
    else:
        length = timedelta(days=366 if calendar.isleap(int(year)) else 365)
    if zone and zone != "Z":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        start += -offset if zone[0] == "+" else offset
    return Span(start, start + length)


@dataclass(frozen=True)
class Amount:
    """A closed range of numbers, open where ``None``, and the units it may be asked for in."""

    low: Decimal | None
    high: Decimal | None
    units: tuple[tuple[str, str], ...] = (("", ""),)


def _offer_amounts(found: Found) -> list[Amount]:
    data = found.data
    if not isinstance(data, dict):
        return [Amount(data, data)]
    if found.type == "SampledData":
        return []
    if "low" in data or "high" in data:
        low, high = data.get("low", {}), data.get("high", {})
        if "value" not in low and "value" not in high:
            return []
        return [Amount(low.get("value"), high.get("value"), _units(low or high))]
    if "value" not in data:
        return []
    if found.type == "Money" or "currency" in data:
        currency = data.get("currency", "")
        unit = ("urn:iso:std:iso:4217" if currency else "", currency)
        return [Amount(data["value"], data["value"], (unit,))]
    comparator = data.get("comparator", "")
    low_end = None if comparator.startswith("<") else data["value"]
    high_end = None if comparator.startswith(">") else data["value"]
    return [Amount(low_end, high_end, _units(data))]


def _units(quantity: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    coded = (quantity.get("system", ""), quantity.get("code", ""))
    return (coded, ("", quantity["unit"])) if "unit" in quantity else (coded,)


def _offer_uris(found: Found) -> list[str]:
    whole = str(found.data)
    return [whole, whole.split("|", maxsplit=1)[0]] if found.type == "canonical" else [whole]


_OFFERS: dict[str, Callable[[Found], list[Any]]] = {
    "token": _offer_tokens,
    "string": _offer_strings,
    "reference": _offer_references,
    "date": _offer_dates,
    "number": _offer_amounts,
    "quantity": _offer_amounts,
    "uri": _offer_uris,
}


# --- whether a value is what was asked for --------------------------------------------------------


def _alternatives(
    parameter: ParameterDefinition, modifier: str, text: str
) -> Callable[[Any], bool]:
    tests = [_TESTS[parameter.type](parameter, modifier, part) for part in _split(text, ",")]
    return lambda value: any(test(value) for test in tests)


def _split(text: str, separator: str) -> list[str]:
    """Cut at separators without a backslash before them (§3.1.1.4.19)."""
    parts, at = [""], 0
    while at < len(text):
        if text[at] == "\\":
            parts[-1] += text[at : at + 2]
            at += 2
            continue
        if text[at] == separator:
            parts.append("")
        else:
            parts[-1] += text[at]
        at += 1
    return parts


def _plain(text: str) -> str:
    for character in ",|$":
        text = text.replace(f"\\{character}", character)
    return text.replace("\\\\", "\\")


def _token_test(_: ParameterDefinition, __: str, text: str) -> Callable[[Any], bool]:
    parts = [_plain(part) for part in _split(text, "|")]
    wanted = parts[-1].casefold()

    def test(value: tuple[str, str]) -> bool:
        system, code = value
        if len(parts) > 1 and system != parts[0]:
            return False
        return not wanted or code.casefold() == wanted

    return test


def simplified(text: str) -> str:
    """Without case, accents, and repeated spaces."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in letters if unicodedata.category(c) != "Mn")
    return re.sub(r"\s+", " ", bare).strip().casefold()


def _string_test(_: ParameterDefinition, modifier: str, text: str) -> Callable[[Any], bool]:
    wanted = _plain(text)
    if modifier == "exact":
        return lambda value: bool(value == wanted)
    if modifier == "contains":
        return lambda value: simplified(wanted) in simplified(value)
    return lambda value: simplified(value).startswith(simplified(wanted))


def _reference_test(
    parameter: ParameterDefinition, modifier: str, text: str
) -> Callable[[Any], bool]:
    wanted = _plain(text)
    if modifier:
        return lambda value: bool(value == f"{modifier}/{wanted.split('/')[-1]}")
    if "/" in wanted or ":" in wanted:
        return lambda value: bool(value == _local(wanted))
    return lambda value: value in [f"{type_}/{wanted}" for type_ in parameter.targets]


_PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")


def _prefixed(text: str) -> tuple[str, str]:
    return (text[:2], text[2:]) if text[:2] in _PREFIXES else ("eq", text)


def _date_test(_: ParameterDefinition, __: str, text: str) -> Callable[[Any], bool]:
    prefix, rest = _prefixed(text)
    asked = span(rest)

    def test(value: Span) -> bool:
        contained = asked.start <= value.start and value.end <= asked.end
        before, after = value.start < asked.start, value.end > asked.end
        match prefix:
            case "eq":
                return contained
            case "ne":
                return not contained
            case "gt":
                return after
            case "lt":
                return before
            case "ge":
                return after or contained
            case "le":
                return before or contained
            case "sa":
                return value.start >= asked.end
            case "eb":
                return value.end <= asked.start
        gap = max(asked.start - NOW, NOW - (asked.end - _TICK), timedelta(0))
        near = Span(asked.start - gap // 10, asked.end + gap // 10)
        return value.start < near.end and near.start < value.end

    return test


def _number_test(_: ParameterDefinition, __: str, text: str) -> Callable[[Any], bool]:
    prefix, digits = _prefixed(text)
    asked = Decimal(digits)
    last_place = Decimal(1).scaleb(int(asked.as_tuple().exponent))
    low, high = asked - last_place / 2, asked + last_place / 2
    infinity = Decimal("Infinity")

    def test(value: Amount) -> bool:
        first = -infinity if value.low is None else value.low
        last = infinity if value.high is None else value.high
        match prefix:
            case "eq":
                return low <= first and last < high
            case "ne":
                return not (low <= first and last < high)
            case "gt":
                return last > asked
            case "lt":
                return first < asked
            case "ge":
                return last > asked or first >= asked
            case "le":
                return first < asked or last <= asked
            case "sa":
                return first > asked
            case "eb":
                return last < asked
        about = abs(asked) / 10
        return first <= max(high, asked + about) and last >= min(low, asked - about)

    return test


def _quantity_test(parameter: ParameterDefinition, _: str, text: str) -> Callable[[Any], bool]:
    number, *unit = _split(text, "|")
    in_range = _number_test(parameter, "", number)

    def test(value: Amount) -> bool:
        if not in_range(value):
            return False
        system, code = (_plain(part) for part in unit) if unit else ("", "")
        return any(system in ("", s) and code in ("", c) for s, c in value.units)

    return test


def _uri_test(_: ParameterDefinition, __: str, text: str) -> Callable[[Any], bool]:
    return lambda value: bool(value == _plain(text))


_TESTS: dict[str, Callable[[ParameterDefinition, str, str], Callable[[Any], bool]]] = {
    "token": _token_test,
    "string": _string_test,
    "reference": _reference_test,
    "date": _date_test,
    "number": _number_test,
    "quantity": _quantity_test,
    "uri": _uri_test,
}
