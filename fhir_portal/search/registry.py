"""Which search parameters this server has for a type, printed from R4's definitions.

Every parameter listed here is extracted by ``indexer``; what R4 defines and is not listed stands
with its reason in ``UNLISTED`` or is of a type in ``UNLISTED_TYPES``.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fhir_portal.fhir.definitions import ParameterDefinition, search_parameters, served_types
from fhir_portal.fhir.errors import InvalidSearch, UnknownType
from fhir_portal.search.values import (
    DateValue,
    NumberValue,
    QuantityValue,
    ReferenceValue,
    StringValue,
    Token,
    UriValue,
    Value,
)

PARSED_AS: Final[Mapping[str, type[Value]]] = MappingProxyType(
    {
        "token": Token,
        "string": StringValue,
        "reference": ReferenceValue,
        "date": DateValue,
        "number": NumberValue,
        "quantity": QuantityValue,
        "uri": UriValue,
    }
)
"""The search parameter types served, with the class that reads their values."""

UNLISTED_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "composite": "pairs of values are not indexed together",
        "special": "each needs a search of its own (near, _filter)",
    }
)

_AN_EXTENSION = "leads to an Extension, and R4 does not say which of its values is meant"
_PHONETIC = "asks for a phonetic match, which is another index than a string's"
_NESTED = "picks a resource nested in the Bundle by its place; no reference is there to index"

UNLISTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Bundle.composition": _NESTED,
        "Bundle.message": _NESTED,
        "Device.din": _AN_EXTENSION,
        "DiagnosticReport.assessed-condition": _AN_EXTENSION,
        "Observation.amino-acid-change": _AN_EXTENSION,
        "Observation.dna-variant": _AN_EXTENSION,
        "Observation.gene-amino-acid-change": _AN_EXTENSION,
        "Observation.gene-dnavariant": _AN_EXTENSION,
        "Observation.gene-identifier": _AN_EXTENSION,
        "Organization.phonetic": _PHONETIC,
        "Patient.mothersMaidenName": _AN_EXTENSION,
        "Patient.phonetic": _PHONETIC,
        "Person.phonetic": _PHONETIC,
        "Practitioner.phonetic": _PHONETIC,
        "RelatedPerson.phonetic": _PHONETIC,
    }
)
"""Parameters that R4 defines with a type served here, and why they are not offered."""

COLUMNS: Final = frozenset({"_id", "_lastUpdated"})
"""Parameters that each store answers from its own columns; the indexer makes no entries."""

_MODIFIERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"string": frozenset({"exact", "contains"}), "token": frozenset({"not"})}
)

SHOWN: Final = 64
"""No more of a name is looked at in an answer about it."""
_CONTROLS: Final = frozenset(
    {
        *("_sort", "_count", "_include", "_revinclude", "_summary", "_total", "_elements", "_page"),
        *("_contained", "_containedType", "_has", "_filter", "_text", "_content", "_query"),
        *("_list", "_type", "_score", "_format", "_pretty"),
    }
)
_MODIFIERS_OF_R4: Final = frozenset(
    {
        *("missing", "exact", "contains", "not", "text", "in", "not-in", "below", "above", "type"),
        *("identifier", "ofType", "iterate", "recurse"),
    }
)
_HIDDEN: Final = "…"
"""Stands for what is not repeated."""
_ENDINGS: Final = {1: "st", 2: "nd", 3: "rd"}  # codespell:ignore nd
_WORD: Final = re.compile(r"[^.:]+")
_CONTROL: Final = re.compile(r"_[a-z][A-Za-z]{1,22}")
_ONLY = re.compile(r"\.where\(resolve\(\) is (\w+)\)$")


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A parameter as it applies to one type. ``targets`` and ``modifiers`` are what it takes."""

    code: str
    type: str
    resource_type: str
    expression: str
    targets: tuple[str, ...]
    modifiers: frozenset[str]
    url: str


@functools.cache
def parameters_for(resource_type: str) -> Mapping[str, SearchParameter]:
    """The parameters of a type by code, in alphabetical order, ``_id`` and the like included.

    Raises:
        UnknownType: when the type is not served.
    """
    if resource_type not in served_types():
        raise UnknownType("There is no such resource type here.")
    defined = search_parameters()
    rows = {**defined["Resource"], **defined.get(resource_type, {})}
    return MappingProxyType(
        {
            code: _parameter(resource_type, row)
            for code, row in sorted(rows.items())
            if row.type in PARSED_AS and f"{resource_type}.{code}" not in UNLISTED
        }
    )


def repeated(name: str) -> str:
    """Return a name out of a query as an answer may repeat it: the words that FHIR has, else ``…``.

    What begins with ``_`` and has the form of FHIR's controls is repeated too: clients make such
    names up, and nobody is called so. What else stands in a name's place may be a value, a token
    or somebody's name even, and the answer goes into the access log. Source: FHIR R4 §3.1.1 (names,
    modifiers, chains); OWASP ASVS 5.0, 16.2.5.
    """
    known = _words()

    def shown(word: re.Match[str]) -> str:
        return word[0] if word[0] in known or _CONTROL.fullmatch(word[0]) else _HIDDEN

    return _WORD.sub(shown, name[:SHOWN]) or _HIDDEN


def placed(error: InvalidSearch, number: int, of: int) -> InvalidSearch:
    """Return an error that says which of several search parameters it is about, by its number.

    Where a name is not repeated (`repeated`), that is how a developer finds it. ``_format`` and
    ``_pretty`` are no search parameters, and are not counted.
    """
    if of == 1 or _HIDDEN not in str(error):
        return error
    return InvalidSearch(f"The {ordinal(number)} search parameter: {error}")


def ordinal(number: int) -> str:
    """Return a number from 1 on as English orders by it: 1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if number % 100 in {11, 12, 13} else _ENDINGS.get(number % 10, "th")
    return f"{number}{ending}"


def meant(resource_type: str, name: str) -> str:
    """Return a hint for a mistyped name: the parameter of this type that it is like, or ``""``."""
    like = difflib.get_close_matches(name[:SHOWN].lower(), parameters_for(resource_type), n=1)
    return f" Did you mean {like[0]}?" if like else ""


@functools.cache
def _words() -> frozenset[str]:
    """The names, modifiers and types of which R4 makes the name of a parameter."""
    codes = {code for rows in search_parameters().values() for code in rows}
    return frozenset({*codes, *served_types(), *_CONTROLS, *_MODIFIERS_OF_R4})


def _parameter(resource_type: str, row: ParameterDefinition) -> SearchParameter:
    modifiers: frozenset[str]
    targets = _targets(row)
    if row.code in COLUMNS:
        modifiers = frozenset()
    else:
        modifiers = _MODIFIERS.get(row.type, frozenset()) | {"missing"}
        if row.type == "reference" and len(targets) > 1:
            modifiers |= set(targets)
    return SearchParameter(
        code=row.code,
        type=row.type,
        resource_type=resource_type,
        expression=row.expression,
        targets=targets,
        modifiers=modifiers,
        url=row.url,
    )


def _targets(row: ParameterDefinition) -> tuple[str, ...]:
    """The types it can refer to: R4's list, less what the expression itself leaves out."""
    only = [_ONLY.search(alternative) for alternative in row.expression.split(" | ")]
    types = {match[1] for match in only if match}
    return tuple(sorted(types)) if all(only) else row.targets
