from __future__ import annotations

import pytest

from fhir_portal.fhir.definitions import patient_compartment, search_parameters, served_types
from fhir_portal.fhir.errors import UnknownType
from fhir_portal.search.conversion import NOT_CONVERTED
from fhir_portal.search.indexer import extracted_paths
from fhir_portal.search.paths import UnsupportedPath, paths_of
from fhir_portal.search.registry import (
    COLUMNS,
    PARSED_AS,
    UNLISTED,
    UNLISTED_TYPES,
    parameters_for,
)


def test_every_parameter_of_r4_is_listed_or_has_its_reason() -> None:
    unlisted = set()
    for resource_type in served_types():
        listed = parameters_for(resource_type)
        for code, row in search_parameters().get(resource_type, {}).items():
            if code not in listed and row.type not in UNLISTED_TYPES:
                unlisted.add(f"{resource_type}.{code}")
    assert unlisted == set(UNLISTED)


def test_served_and_unserved_parameter_types_are_all_there_are() -> None:
    types = {row.type for rows in search_parameters().values() for row in rows.values()}
    assert types == set(PARSED_AS) | set(UNLISTED_TYPES)


@pytest.mark.parametrize("resource_type", served_types())
def test_every_listed_parameter_leads_to_something_that_is_indexed(resource_type: str) -> None:
    for code, parameter in parameters_for(resource_type).items():
        if code not in COLUMNS:
            assert extracted_paths(parameter)


def test_what_is_unlisted_for_its_path_cannot_be_extracted() -> None:
    for name, reason in UNLISTED.items():
        resource_type, code = name.split(".")
        row = search_parameters()[resource_type][code]
        if "phonetic" in reason:
            assert code == "phonetic"
        elif "Extension" in reason:
            assert {path.type for path in paths_of(resource_type, row.expression)} == {"Extension"}
        else:
            with pytest.raises(UnsupportedPath):
                paths_of(resource_type, row.expression)


def test_what_is_not_converted_does_occur() -> None:
    met = {
        (parameter.type, path.type)
        for resource_type in served_types()
        for parameter in parameters_for(resource_type).values()
        for path in paths_of(resource_type, parameter.expression)
    }
    assert set(NOT_CONVERTED) <= met


def test_every_type_can_be_searched_by_id_and_time() -> None:
    for resource_type in served_types():
        assert set(parameters_for(resource_type)) >= {"_id", "_lastUpdated", "_tag", "_security"}


def test_every_parameter_of_the_patient_compartment_is_listed() -> None:
    for resource_type, codes in patient_compartment().items():
        if resource_type in served_types():
            assert set(codes) <= set(parameters_for(resource_type))


@pytest.mark.parametrize(
    ("resource_type", "code", "modifiers"),
    [
        ("Patient", "name", {"missing", "exact", "contains"}),
        ("Patient", "gender", {"missing", "not"}),
        ("Patient", "birthdate", {"missing"}),
        ("Observation", "value-quantity", {"missing"}),
        ("Observation", "patient", {"missing"}),
        ("Observation", "subject", {"missing", "Device", "Group", "Location", "Patient"}),
        ("Provenance", "patient", {"missing"}),
        ("Patient", "_id", set()),
        ("Patient", "_lastUpdated", set()),
    ],
)
def test_modifiers_follow_from_type_and_targets(
    resource_type: str, code: str, modifiers: set[str]
) -> None:
    assert parameters_for(resource_type)[code].modifiers == modifiers


@pytest.mark.parametrize("resource_type", ["Nothing", "MedicinalProduct", "Resource", ""])
def test_a_type_that_is_not_served_has_no_parameters(resource_type: str) -> None:
    with pytest.raises(UnknownType):
        parameters_for(resource_type)
