"""``capabilities``: printed from the tables. Source: FHIR R4 §2.40."""

from __future__ import annotations

import pytest

from fhir_portal.access.writes import NEVER_WRITTEN, OPERATION_ONLY
from fhir_portal.fhir.definitions import OWN_PARAMETERS, ig_resource, served_types
from fhir_portal.operations.catalog import operations_of
from fhir_portal.resources.catalog import (
    INTERACTIONS,
    capability_statement,
    interactions_of,
    parameters_of,
)
from fhir_portal.search.registry import parameters_for
from tests.builders import BASE


@pytest.fixture(scope="module")
def rows():
    statement = capability_statement(
        base=BASE, version="1", date="2030-01-01", security={}, operations=operations_of
    )
    return {row["type"]: row for row in statement["rest"][0]["resource"]}


def test_each_type_says_what_the_tables_say(rows):
    assert tuple(rows) == served_types()
    for name, row in rows.items():
        assert tuple(one["code"] for one in row["interaction"]) == interactions_of(name)
        assert {one["name"] for one in row["searchParam"]} == set(parameters_of(name))


def test_every_interaction_that_is_offered_is_written(rows):
    offered = {one["code"] for row in rows.values() for one in row["interaction"]}
    assert offered | {"history-system"} == set(INTERACTIONS)


def test_what_is_never_written_offers_no_write(rows):
    for name in NEVER_WRITTEN | OPERATION_ONLY:
        codes = {one["code"] for one in rows[name]["interaction"]}
        assert not codes & {"create", "update", "delete"}
        assert rows[name]["updateCreate"] is False
        assert rows[name]["conditionalCreate"] is False


def test_every_parameter_has_the_definition_of_r4_or_of_the_guide(rows):
    own = {ig_resource("SearchParameter", one)["url"]: one for one in OWN_PARAMETERS}
    for name, row in rows.items():
        for one in row["searchParam"]:
            url = one["definition"]
            if not url.startswith("http://hl7.org/fhir/SearchParameter/"):
                assert own.pop(url) == f"{name}-{one['name']}"
    assert not own


def test_includes_are_the_reference_parameters_and_their_targets(rows):
    assert "Observation:subject" in rows["Observation"]["searchInclude"]
    assert "Observation:code" not in rows["Observation"]["searchInclude"]
    assert "Observation:subject" in rows["Patient"]["searchRevInclude"]
    assert "Observation:subject" not in rows["Encounter"].get("searchRevInclude", [])
    for name, row in rows.items():
        for one in row.get("searchRevInclude", ()):
            source, _, code = one.partition(":")
            assert name in parameters_for(source)[code].targets


def test_the_access_log_claims_only_what_it_can(rows):
    row = rows["AuditEvent"]
    assert {one["code"] for one in row["interaction"]} == {"read", "search-type"}
    assert row["versioning"] == "no-version"
    assert "searchInclude" not in row
