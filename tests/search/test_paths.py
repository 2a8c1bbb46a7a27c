from __future__ import annotations

import pytest

from fhir_portal.search.paths import (
    Member,
    Path,
    UnsupportedPath,
    WhereEqual,
    WhereExtended,
    WhereRefersTo,
    paths_of,
)


def shown(resource_type: str, expression: str) -> list[str]:
    """Each path as its member names and its type."""
    return [
        ".".join(step.name for step in path.steps if isinstance(step, Member)) + f": {path.type}"
        for path in paths_of(resource_type, expression)
    ]


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("Observation.code", ["code: CodeableConcept"]),
        ("Observation.value.ofType(Quantity)", ["valueQuantity: Quantity"]),
        ("(Observation.value as Quantity)", ["valueQuantity: Quantity"]),
        ("Observation.value.as(Quantity)", ["valueQuantity: Quantity"]),
        ("Observation.value.ofType(CodeableConcept).text", ["valueCodeableConcept.text: string"]),
        (
            "Observation.effective",
            [
                "effectiveDateTime: dateTime",
                "effectivePeriod: Period",
                "effectiveTiming: Timing",
                "effectiveInstant: instant",
            ],
        ),
        (
            "(Observation.code | Observation.component.code)",
            ["code: CodeableConcept", "component.code: CodeableConcept"],
        ),
        ("Observation.code | Observation.code", ["code: CodeableConcept"]),
        ("Resource.meta.tag", ["meta.tag: Coding"]),
    ],
)
def test_paths_are_followed_through_the_structures(expression: str, paths: list[str]) -> None:
    assert shown("Observation", expression) == paths


def test_a_content_reference_leads_to_the_elements_it_names() -> None:
    assert shown("Questionnaire", "Questionnaire.item.item.code") == ["item.item.code: Coding"]


def test_a_type_includes_what_it_specialises() -> None:
    assert shown("Condition", "Condition.onset.ofType(Quantity)") == ["onsetAge: Age"]
    assert shown("ConceptMap", "ConceptMap.source.ofType(uri)") == [
        "sourceUri: uri",
        "sourceCanonical: canonical",
    ]


def test_conditions_become_steps() -> None:
    (phone,) = paths_of("Patient", "Patient.telecom.where(system='phone')")
    assert phone.steps == (Member("telecom"), WhereEqual("system", "phone"))
    (patient,) = paths_of("Account", "Account.subject.where(resolve() is Patient)")
    assert patient.steps == (Member("subject"), WhereRefersTo("Patient"))
    (extension,) = paths_of("Device", "Device.extension('http://e')")
    assert extension == Path((Member("extension"), WhereEqual("url", "http://e")), "Extension")
    (marked,) = paths_of("Patient", "Patient.contact.where(hasExtension('http://e')).name")
    assert marked.steps == (Member("contact"), WhereExtended("http://e"), Member("name"))


def test_presence_is_a_truth_about_each_of_a_choice() -> None:
    paths = paths_of("Patient", "Patient.deceased.exists() and Patient.deceased != false")
    assert {path.steps for path in paths} == {
        (Member("deceasedBoolean"),),
        (Member("deceasedDateTime"),),
    }
    assert all(path.truth for path in paths)


@pytest.mark.parametrize(
    "expression",
    [
        "Patient.nothing",
        "Patient.name.nothing",
        "Patient.name.ofType(Address)",
        "Observation.code",
        "Patient.name[0]",
        "Patient.name.first()",
        "Patient.name.where(use != 'old')",
        "Patient.active.exists()",
        "Patient.active.exists() and Patient.deceased != false",
        "Patient.name.",
        "Patient.name)",
        "(Patient.name",
        "Patient.name as",
        "Patient.name + 1",
        "",
    ],
)
def test_what_is_not_read_is_said_so(expression: str) -> None:
    with pytest.raises(UnsupportedPath):
        paths_of("Patient", expression)
