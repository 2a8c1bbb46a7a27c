from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.consent.sections import section_displays, sections_of, types_in
from tests.builders import NOTE, OBSERVATION_CATEGORY, concept

TASK = "https://fhir-portal.example/ig/CodeSystem/portal-task"
US_CORE = "http://hl7.org/fhir/us/core/CodeSystem/us-core-category"


def tree(name: str, *categories: tuple[str, str]) -> dict[str, Any]:
    return {"resourceType": name, "category": [concept(*one) for one in categories]}


def found_in(resource: dict[str, Any]) -> set[str]:
    found = sections_of(resource)
    assert found is not None
    return set(found)


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (tree("Observation", (OBSERVATION_CATEGORY, "laboratory")), {"results"}),
        (tree("Observation", (OBSERVATION_CATEGORY, "vital-signs")), {"results"}),
        (tree("Observation", (OBSERVATION_CATEGORY, "social-history")), {"health-summary"}),
        (
            tree("Observation", (OBSERVATION_CATEGORY, "survey"), (US_CORE, "sdoh")),
            {"health-summary"},
        ),
        (
            tree("Observation", (OBSERVATION_CATEGORY, "exam"), (US_CORE, "functional-status")),
            {"results", "health-summary"},
        ),
        (tree("Observation"), set()),
        ({"resourceType": "Observation"}, set()),
        (tree("Observation", ("urn:house", "laboratory")), set()),
        (tree("Observation", (US_CORE, "laboratory")), set()),
        (tree("DocumentReference", (NOTE, "clinical-note")), {"visits"}),
        (tree("DocumentReference", (NOTE, "clinical-note"), ("urn:house", "x")), {"visits"}),
        (tree("DocumentReference"), {"documents"}),
        (tree("Condition"), {"health-summary"}),
        (tree("Consent"), {"sharing"}),
        (tree("Task"), {"forms"}),
        ({"resourceType": "Task", "code": concept(TASK, "refill-request")}, {"forms"}),
        ({"resourceType": "Task", "code": concept(TASK, "bill-dispute")}, {"billing"}),
        ({"resourceType": "Task", "code": concept("urn:house", "bill-dispute")}, {"forms"}),
    ],
)
def test_a_resource_is_in_the_sections_of_its_categories(
    resource: dict[str, Any], expected: set[str]
) -> None:
    assert found_in(resource) == expected


@pytest.mark.parametrize("name", ["Binary", "Provenance", "Practitioner", "Person", "Basic"])
def test_a_type_outside_the_table_has_no_section(name: str) -> None:
    assert sections_of(tree(name)) is None


def test_a_category_without_codings_says_nothing() -> None:
    assert found_in({"resourceType": "Observation", "category": [{"text": "lab"}]}) == set()
    both = {"resourceType": "Observation", "category": {"coding": [{"code": "laboratory"}]}}
    assert found_in(both) == set()


def test_types_in_a_section_are_those_some_of_which_may_fall_there() -> None:
    assert "Observation" in types_in(frozenset({"results"}))
    assert "Observation" in types_in(frozenset({"health-summary"}))
    assert "Observation" not in types_in(frozenset({"messages"}))
    assert types_in(frozenset()) == frozenset()
    everything = frozenset().union(*(types_in(frozenset({one})) for one in section_displays()))
    assert types_in(None) == everything
