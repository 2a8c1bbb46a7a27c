"""The indexer against fhirpathpy: the same values for every parameter, read in two ways."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.json import dumps, parse
from fhir_portal.search.indexer import IndexEntries, extract
from fhir_portal.search.registry import COLUMNS, SearchParameter, parameters_for
from fhir_portal.search.values import (
    MAX_INSTANT,
    MAX_NUMBER_KEY,
    MIN_INSTANT,
    MIN_NUMBER_KEY,
    number_key,
)
from tests.search.corpus import (
    BASE,
    data_folder,
    has_data,
    made_up_resources,
    sample_resources,
)
from tests.search.filled import filled_resource
from tests.search.matcher import evaluator, indexed, simplified

EVERY = 12
"""Of the sample data, each such resource is compared."""

Rows = set[tuple[Any, ...]]


def extracted(entries: IndexEntries, parameter: SearchParameter) -> Rows:
    lists: dict[str, list[Any]] = {
        "token": entries.tokens,
        "string": entries.strings,
        "reference": entries.references,
        "date": entries.dates,
        "number": entries.numbers,
        "quantity": entries.quantities,
        "uri": entries.uris,
    }
    return {row[1:] for row in lists[parameter.type] if row[0] == parameter.code}


def wanted(tree: dict[str, Any], parameter: SearchParameter) -> Rows:
    values = indexed(parameter.type, evaluator(tree["resourceType"], parameter.expression)(tree))
    match parameter.type:
        case "token":
            return {(system, code.casefold()) for system, code in values}
        case "string":
            return {(simplified(text), text) for text in values}
        case "date":
            return {(microseconds(v.start), microseconds(v.end) - 1) for v in values}
        case "number":
            return {ends(v.low, v.high) for v in values}
        case "quantity":
            return _without_repeated_units(
                {(*ends(v.low, v.high), *unit) for v in values for unit in v.units}
            )
        case _:
            return {(text,) for text in values}


def microseconds(moment: datetime) -> int:
    if moment == datetime.min.replace(tzinfo=UTC):
        return MIN_INSTANT
    if moment == datetime.max.replace(tzinfo=UTC):
        return MAX_INSTANT + 1
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def ends(low: Decimal | None, high: Decimal | None) -> tuple[str, str]:
    return (
        MIN_NUMBER_KEY if low is None else number_key(low),
        MAX_NUMBER_KEY if high is None else number_key(high),
    )


def _without_repeated_units(rows: Rows) -> Rows:
    """A unit that reads like its code is indexed once, and so is none beside one."""
    return {
        row
        for row in rows
        if not any(
            other[:2] == row[:2] and other != row and row[2] == "" and row[3] in ("", other[3])
            for other in rows
        )
    }


def compare(tree: dict[str, Any]) -> set[str]:
    """Assert that both agree on every parameter; return those that had a value."""
    resource_type = tree["resourceType"]
    entries = extract(resource_type, tree, base=BASE)
    read = json.loads(dumps(tree), parse_float=Decimal, parse_int=Decimal)
    found = set()
    for code, parameter in parameters_for(resource_type).items():
        if code not in COLUMNS:
            rows = extracted(entries, parameter)
            assert rows == wanted(read, parameter), f"{resource_type}.{code} of {tree['id']}"
            if rows:
                found.add(code)
    return found


@pytest.mark.parametrize("resource_type", served_types())
def test_every_parameter_finds_its_values_in_filled_resources(resource_type: str) -> None:
    dice = random.Random(resource_type)
    unseen = set(parameters_for(resource_type)) - COLUMNS - {"item-subject"}
    for _ in range(200):
        unseen -= compare(filled_resource(resource_type, dice))
        if not unseen:
            return
    pytest.fail(f"never had a value: {', '.join(sorted(unseen))}")


def test_rare_forms_are_read_alike() -> None:
    seen = {(tree["resourceType"], code) for tree in made_up_resources() for code in compare(tree)}
    assert ("QuestionnaireResponse", "item-subject") in seen


@pytest.mark.skipif(not has_data(), reason="the sample data folder is absent")
def test_sample_data_is_read_alike() -> None:
    for number, tree in enumerate(sample_resources()):
        if number % EVERY == 0:
            compare(tree)


@pytest.mark.skipif(not has_data(), reason="the sample data folder is absent")
@pytest.mark.parametrize(
    "path", sorted((data_folder() / "r4-examples").glob("*.json")), ids=lambda path: path.stem
)
def test_the_specification_s_examples_are_read_alike(path: Any) -> None:
    tree = parse(path.read_bytes())
    assert tree["resourceType"] in served_types()
    compare(tree)
