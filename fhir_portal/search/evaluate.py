"""Criteria over the index entries of one resource, in memory: what a store's query means.

A write's new image is judged against a granular scope with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_portal.search.criterion import Criterion
from fhir_portal.search.indexer import IndexEntries
from fhir_portal.search.values import (
    Conditions,
    DateValue,
    Missing,
    NumberValue,
    QuantityValue,
    ReferenceValue,
    StringValue,
    Token,
    UriValue,
    Value,
)


def matches(
    criteria: Iterable[Criterion],
    entries: IndexEntries,
    *,
    id: str,  # noqa: A002 - the field's word
    last_updated: int,
    now: int | None = None,
) -> bool:
    """Whether a resource satisfies all criteria.

    Args:
        criteria: all of which must hold.
        entries: of the resource.
        id: its id, for ``_id``.
        last_updated: in microseconds since 1970 UTC, for ``_lastUpdated``.
        now: in the same unit; only dates with the prefix ``ap`` need it.

    Raises:
        ValueError: for such a date when ``now`` is not given.
    """
    for criterion in criteria:
        match criterion.parameter.code:
            case "_id":
                held = any(value == Token(None, id) for value in criterion.values)
            case "_lastUpdated":
                held = _held(criterion, [(last_updated, last_updated)], now)
            case code:
                held = _held(criterion, _rows(entries, criterion.parameter.type, code), now)
        if not held:
            return False
    return True


def _rows(entries: IndexEntries, parameter_type: str, code: str) -> list[tuple[Any, ...]]:
    lists: dict[str, Iterable[tuple[Any, ...]]] = {
        "token": entries.tokens,
        "string": entries.strings,
        "reference": entries.references,
        "date": entries.dates,
        "number": entries.numbers,
        "quantity": entries.quantities,
        "uri": entries.uris,
    }
    return [row[1:] for row in lists[parameter_type] if row[0] == code]


def _held(criterion: Criterion, rows: list[tuple[Any, ...]], now: int | None) -> bool:
    match criterion.values:
        case (Missing(missing),):
            return missing is not bool(rows)
    any_matches = any(
        _matches(value, row, criterion, now) for value in criterion.values for row in rows
    )
    return not any_matches if criterion.modifier == "not" else any_matches


def _matches(value: Value, row: tuple[Any, ...], criterion: Criterion, now: int | None) -> bool:
    match value:
        case Token():
            return value.matches(*row)
        case StringValue(text):
            normalised, exact = row
            if criterion.modifier == "exact":
                return bool(exact == text)
            if criterion.modifier == "contains":
                return value.normalised in normalised
            return bool(normalised.startswith(value.normalised))
        case ReferenceValue():
            return row[0] in value.targets(criterion.parameter.targets)
        case DateValue():
            if now is None:
                if value.prefix == "ap":
                    raise ValueError("a date with the prefix ap is compared with now")
                now = 0
            return _within(value.conditions(now=now), row)
        case NumberValue():
            return _within(value.conditions(), row)
        case QuantityValue():
            return value.matches_unit(*row[2:]) and _within(value.conditions(), row)
        case UriValue(uri):
            return bool(row[0] == uri)
        case Missing():
            raise ValueError(":missing has one value")


def _within(conditions: Conditions, row: tuple[Any, ...]) -> bool:
    ends = {"low": row[0], "high": row[1]}
    return any(all(bound.holds(ends[bound.end]) for bound in bounds) for bounds in conditions)
