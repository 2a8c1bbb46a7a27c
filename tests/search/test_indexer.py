from __future__ import annotations

import json
import random
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest

from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import UnknownType
from fhir_portal.fhir.json import parse
from fhir_portal.search.indexer import IndexEntries, extract
from fhir_portal.search.values import (
    MAX_INSTANT,
    MAX_NUMBER_KEY,
    MIN_INSTANT,
    MIN_NUMBER_KEY,
    number_key,
)
from tests.search.corpus import made_up_resources

UCUM = "http://unitsofmeasure.org"
BASE = "https://portal.example/fhir"
STATUS = "http://hl7.org/fhir/observation-status"


def entries_of(resource_type: str, base: str = "", **members: Any) -> IndexEntries:
    tree = {"resourceType": resource_type, "id": "x", **members}
    return extract(resource_type, parse(json.dumps(tree).encode()), base=base)


def key(number: str) -> str:
    return number_key(Decimal(number))


def rows(found: list[Any], code: str) -> list[Any]:
    return [row[1:] for row in found if row[0] == code]


def test_a_vital_sign_is_found_by_all_it_says() -> None:
    entries = entries_of(
        "Observation",
        status="final",
        category=[{"coding": [{"system": "http://c", "code": "Vital-Signs"}]}],
        code={"coding": [{"system": "http://loinc.org", "code": "8302-2"}], "text": "Height"},
        subject={"reference": "Patient/7"},
        effectiveDateTime="2026-03-01",
        valueQuantity={"value": 168.80, "unit": "cm", "system": UCUM, "code": "cm"},
        meta={"profile": ["http://p|1.0"], "tag": [{"code": "t"}], "lastUpdated": "2026-03-02"},
    )
    height = key("168.8")
    assert entries == IndexEntries(
        tokens=[
            ("_tag", "", "t"),
            ("category", "http://c", "vital-signs"),
            ("code", "http://loinc.org", "8302-2"),
            ("combo-code", "http://loinc.org", "8302-2"),
            ("status", STATUS, "final"),
        ],
        references=[("patient", "Patient/7"), ("subject", "Patient/7")],
        dates=[("date", *period_of("2026-03-01"))],
        quantities=[
            ("combo-value-quantity", height, height, UCUM, "cm"),
            ("value-quantity", height, height, UCUM, "cm"),
        ],
        uris=[("_profile", "http://p"), ("_profile", "http://p|1.0")],
    )


def test_id_and_last_updated_leave_no_entries() -> None:
    entries = entries_of("Patient", meta={"lastUpdated": "2026-03-02T00:00:00Z"})
    assert entries == IndexEntries(tokens=[("deceased", "", "false")])


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        ({"gender": "female"}, [("http://hl7.org/fhir/administrative-gender", "female")]),
        ({"gender": "unheard-of"}, [("", "unheard-of")]),
        ({}, []),
        ({"_gender": {"extension": [{"url": "http://e", "valueCode": "unknown"}]}}, []),
    ],
)
def test_a_code_has_the_system_its_value_set_implies(
    members: dict[str, Any], tokens: list[tuple[str, str]]
) -> None:
    assert rows(entries_of("Patient", **members).tokens, "gender") == tokens


@pytest.mark.parametrize(
    ("concept", "tokens"),
    [
        ({"coding": [{"system": "s", "code": "B"}, {"code": "a"}]}, [("", "a"), ("s", "b")]),
        ({"coding": [{"system": "s", "display": "no code"}]}, [("s", "")]),
        ({"text": "only words"}, [("", "")]),
        ({"extension": [{"url": "http://e", "valueCode": "unknown"}]}, []),
    ],
)
def test_a_concept_is_all_its_codings_and_present_even_without_one(
    concept: dict[str, Any], tokens: list[tuple[str, str]]
) -> None:
    assert rows(entries_of("Condition", code=concept).tokens, "code") == tokens


def test_contact_points_are_found_whole_and_by_kind() -> None:
    telecom = [
        {"system": "phone", "value": "555-01"},
        {"system": "email", "value": "A@Example.org"},
        {"use": "home"},
    ]
    tokens = entries_of("Patient", telecom=telecom).tokens
    assert rows(tokens, "phone") == [("", "555-01")]
    assert rows(tokens, "email") == [("", "a@example.org")]
    assert rows(tokens, "telecom") == [("", ""), ("", "555-01"), ("", "a@example.org")]


@pytest.mark.parametrize(
    ("members", "deceased"),
    [
        ({}, "false"),
        ({"deceasedBoolean": False}, "false"),
        ({"deceasedBoolean": True}, "true"),
        ({"deceasedDateTime": "2020"}, "true"),
    ],
)
def test_deceased_is_true_or_false_for_every_patient(
    members: dict[str, Any], deceased: str
) -> None:
    assert rows(entries_of("Patient", **members).tokens, "deceased") == [("", deceased)]


def test_each_part_of_a_name_and_of_an_address_is_a_string() -> None:
    entries = entries_of(
        "Patient",
        name=[{"text": "Zoë Q", "family": "Núñez", "given": ["Zoë", "Q"], "use": "official"}],
        address=[{"line": ["1 Elm  St."], "postalCode": "75001", "use": "home"}],
    )
    assert rows(entries.strings, "name") == [
        ("nunez", "Núñez"),
        ("q", "Q"),
        ("zoe", "Zoë"),
        ("zoe q", "Zoë Q"),
    ]
    assert rows(entries.strings, "family") == [("nunez", "Núñez")]
    assert rows(entries.strings, "address") == [("1 elm st.", "1 Elm  St."), ("75001", "75001")]


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("Patient/7", "Patient/7"),
        ("Patient/7/_history/3", "Patient/7"),
        ("https://portal.example/fhir/Patient/7", "Patient/7"),
        ("https://portal.example/fhir/Patient/7/_history/3", "Patient/7"),
        ("https://other.example/fhir/Patient/7", "https://other.example/fhir/Patient/7"),
        ("https://other.example/Patient/7/_history/3", "https://other.example/Patient/7"),
        ("#p", None),
        ("urn:uuid:0d3b9a2c-4f7a-4b0e-9a55-1b2c3d4e5f60", None),
        ("Patient?identifier=1", None),
    ],
)
def test_references_are_indexed_as_what_they_name(reference: str, target: str | None) -> None:
    entries = entries_of("Observation", BASE, subject={"reference": reference})
    expected = [(target,)] if target else []
    assert rows(entries.references, "subject") == expected
    assert rows(entries.references, "patient") == expected


@pytest.mark.parametrize(
    ("reference", "is_patient"),
    [
        ({"reference": "Patient/7"}, True),
        ({"reference": "https://other.example/Patient/7"}, True),
        ({"reference": "Group/7"}, False),
        ({"reference": "https://other.example/records/7", "type": "Patient"}, True),
        ({"reference": "https://other.example/records/7"}, False),
    ],
)
def test_the_type_of_a_reference_is_taken_from_its_text(
    reference: dict[str, str], *, is_patient: bool
) -> None:
    entries = entries_of("Observation", subject=reference)
    assert bool(rows(entries.references, "patient")) is is_patient
    assert rows(entries.references, "subject") == [(reference["reference"],)]


def test_a_canonical_is_found_with_and_without_its_version() -> None:
    canonicals = ["http://p|2.0", "urn:oid:1.2.3", "PlanDefinition/1", "#contained"]
    entries = entries_of("CarePlan", instantiatesCanonical=canonicals)
    assert rows(entries.references, "instantiates-canonical") == [
        ("PlanDefinition/1",),
        ("http://p",),
        ("http://p|2.0",),
        ("urn:oid:1.2.3",),
    ]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"effectiveDateTime": "2026"}, period_of("2026")),
        ({"effectiveInstant": "2026-01-01T00:00:00Z"}, (period_of("2026")[0],) * 2),
        ({"effectivePeriod": {"start": "2026"}}, (period_of("2026")[0], MAX_INSTANT)),
        ({"effectivePeriod": {"end": "2026"}}, (MIN_INSTANT, period_of("2026")[1])),
        (
            {"effectivePeriod": {"start": "2025-02", "end": "2026"}},
            (period_of("2025-02")[0], period_of("2026")[1]),
        ),
        ({"effectivePeriod": {"start": "2026", "end": "2025"}}, None),
        (
            {"effectiveTiming": {"event": ["2026", "2024-05-01"]}},
            (period_of("2024-05-01")[0], period_of("2026")[1]),
        ),
        (
            {"effectiveTiming": {"event": ["2024"], "repeat": {"boundsPeriod": {"end": "2026"}}}},
            (MIN_INSTANT, period_of("2026")[1]),
        ),
        ({"effectiveTiming": {"repeat": {"frequency": 2}}}, None),
    ],
)
def test_dates_are_closed_ranges(members: dict[str, Any], expected: tuple[int, int] | None) -> None:
    found = rows(entries_of("Observation", **members).dates, "date")
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ({"value": 5.4}, [(key("5.4"), key("5.4"), "", "")]),
        ({"value": 5, "unit": "mg"}, [(key("5"), key("5"), "", "mg")]),
        (
            {"value": 5, "unit": "milligram", "system": UCUM, "code": "mg"},
            [(key("5"), key("5"), "", "milligram"), (key("5"), key("5"), UCUM, "mg")],
        ),
        (
            {"value": 5, "unit": "mg", "system": UCUM, "code": "mg", "comparator": "<"},
            [(MIN_NUMBER_KEY, key("5"), UCUM, "mg")],
        ),
        ({"value": 5, "comparator": ">="}, [(key("5"), MAX_NUMBER_KEY, "", "")]),
        ({"unit": "mg"}, []),
    ],
)
def test_quantities_are_found_by_code_and_by_unit(
    quantity: dict[str, Any], expected: list[tuple[str, ...]]
) -> None:
    found = entries_of("Observation", valueQuantity=quantity).quantities
    assert rows(found, "value-quantity") == expected


def test_money_has_its_currency_as_unit() -> None:
    found = entries_of("Invoice", totalNet={"value": 9.90, "currency": "EUR"}).quantities
    expected = [(key("9.9"), key("9.9"), "urn:iso:std:iso:4217", "EUR")]
    assert rows(found, "totalnet") == expected


def test_a_range_is_open_where_it_does_not_end() -> None:
    low = {"value": 3, "unit": "a"}
    found = entries_of("Condition", onsetRange={"low": low}).quantities
    assert rows(found, "onset-age") == [(key("3"), MAX_NUMBER_KEY, "", "a")]
    prediction = [{"probabilityRange": {"high": {"value": 0.5}}}, {"probabilityDecimal": 0.1}]
    numbers = entries_of("RiskAssessment", prediction=prediction).numbers
    assert rows(numbers, "probability") == [(MIN_NUMBER_KEY, key("0.5")), (key("0.1"),) * 2]


def test_only_answers_marked_as_subject_are_item_subjects() -> None:
    url = "http://hl7.org/fhir/StructureDefinition/questionnaireresponse-isSubject"
    answer = [{"valueReference": {"reference": "Patient/1"}}]
    other = [{"valueReference": {"reference": "Patient/2"}}]
    items = [
        {"linkId": "1", "extension": [{"url": url, "valueBoolean": True}], "answer": answer},
        {"linkId": "2", "extension": [{"url": "http://other"}], "answer": other},
        {"linkId": "3", "answer": other},
    ]
    found = entries_of("QuestionnaireResponse", item=items).references
    assert rows(found, "item-subject") == [("Patient/1",)]


def test_what_is_contained_is_not_indexed() -> None:
    contained = [{"resourceType": "Patient", "id": "p", "name": [{"family": "Inside"}]}]
    assert entries_of("Observation", contained=contained) == IndexEntries()


def test_entries_do_not_depend_on_the_order_of_members() -> None:
    dice = random.Random(1)
    for tree in made_up_resources():
        shuffled = dict(dice.sample(sorted(tree.items()), len(tree)))
        assert extract(tree["resourceType"], shuffled) == extract(tree["resourceType"], tree)


def test_entries_are_sorted_and_without_repetitions() -> None:
    for tree in made_up_resources():
        entries = extract(tree["resourceType"], tree)
        for found in (entries.tokens, entries.references, entries.dates, entries.strings):
            assert found == sorted(set(found))


def test_a_type_that_is_not_served_is_not_indexed() -> None:
    with pytest.raises(UnknownType):
        extract("MedicinalProduct", {})


def test_a_reference_without_end_is_not_kept_in_memory():
    tracemalloc.start()
    try:
        for n in range(20):
            url = f"https://ehr.example/{n}/{'x' * 100_000}"
            entries = entries_of("Observation", focus=[{"reference": url}])
            assert rows(entries.references, "focus") == [(url,)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
