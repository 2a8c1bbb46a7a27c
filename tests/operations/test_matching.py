"""Names as people write them; one match or none; scores and reasons for staff."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.operations.matching import EXACT, Said, match
from fhir_portal.operations.same_person import initials, postal_code, same_initials, same_name
from tests.builders import Json, a_patient

MAIL = "ada@mail.example"
TELECOM = [{"system": "email", "value": "ADA@mail.example"}]


def a_candidate(own_id: str = "ada", **more: Any) -> Json:
    return a_patient(own_id, **{"telecom": TELECOM} | more)


def said(first: str = "Ada", last: str = "Quill", **more: str) -> Said:
    return Said(**{"mail": MAIL, "first": first, "last": last, "birth_date": "1984-05-12"} | more)


@pytest.mark.parametrize(
    ("first", "last", "given_names", "family"),
    [
        ("ada", "QUILL", ["Ada"], "Quill"),
        ("Quill", "Ada", ["Ada"], "Quill"),
        ("Zoe", "Muller", ["Zoë"], "Müller"),
        ("Soren", "Lodz", ["Søren"], "Łódź"),
        ("Strasse", "Fuß", ["Straße"], "Fuss"),
        ("Anne Marie", "Roe", ["Anne-Marie"], "Roe"),
        ("AnneMarie", "Roe", ["Anne-Marie"], "Roe"),
        ("Ada", "Smith Jones", ["Ada"], "Smith-Jones"),
        ("Ada", "O Hara", ["Ada"], "O'Hara"),
        ("Ada", "OHara", ["Ada"], "O\u2019Hara"),
        ("Ada", "Quill", ["Ada", "Byron"], "Quill"),
        ("Ada Byron", "Quill", ["Ada", "Byron"], "Quill"),
        ("Byron", "Quill", ["Ada", "Byron"], "Quill"),
        ("Jose\u0301", "Nunez", ["José"], "Núñez"),
    ],
)
@pytest.mark.requirement("portal", "S1-09")
def test_one_name_in_many_ways(first: str, last: str, given_names: list[str], family: str) -> None:
    """S1-09: case, accents, hyphens, order, one of several first names."""
    assert same_name(first, last, given_names, family)


@pytest.mark.parametrize(
    ("first", "last", "given_names", "family"),
    [
        ("", "", ["Ada"], "Quill"),
        ("Ada", "", ["Ada"], "Quill"),
        ("", "Quill", ["Ada"], "Quill"),
        ("A", "Quill", ["Ada"], "Quill"),
        ("Ada", "Jones", ["Ada"], "Smith-Jones"),
        ("Ada Eve", "Quill", ["Ada"], "Quill"),
        ("Quill", "Quill", ["Ada"], "Quill"),
        ("Ada", "Ada", ["Ada"], "Quill"),
        ("Ada", "Quill", [], "Quill"),
        ("Ada", "Quill", ["Ada"], ""),
        ("-", "'", ["-"], "'"),
    ],
)
def test_another_name(first: str, last: str, given_names: list[str], family: str) -> None:
    assert not same_name(first, last, given_names, family)


def test_a_former_name_counts() -> None:
    names = [
        {"use": "official", "family": "Quill", "given": ["Ada"]},
        {"use": "old", "family": "Reed", "given": ["Ada"]},
        {"text": "Ada Stone"},
    ]
    for last in ("Quill", "Reed", "Stone"):
        found = match(said(last=last), [a_candidate(name=names)], {})
        assert found.patient == "Patient/ada"


@pytest.mark.requirement("portal", "S1-27")
def test_the_name_on_the_own_insurance_card_counts() -> None:
    """S1-27."""
    assert match(said("Adelina", "Quill"), [a_candidate()], {}).outcome == "near-miss"
    found = match(said("Adelina", "Quill"), [a_candidate()], {"ada": ["Adelina QUILL"]})
    assert found.patient == "Patient/ada"
    assert found.candidates[0].reasons[-1] == "name on the insurance card"


@pytest.mark.requirement("portal", "S1-20")
def test_two_that_fit_are_for_staff() -> None:
    found = match(said(), [a_candidate("ada"), a_candidate("twin")], {})
    assert (found.outcome, found.patient) == ("ambiguous", None)
    assert {one.score for one in found.candidates} == {EXACT}


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ({"birth_date": "1985-05-12"}, "near-miss"),
        ({"first": "Eve"}, "near-miss"),
        ({"first": "Eve", "last": "Stone"}, "near-miss"),
        ({"mail": "eve@mail.example"}, "near-miss"),
        ({"first": "Eve", "last": "Stone", "birth_date": ""}, "not-found"),
        ({"mail": "", "birth_date": ""}, "not-found"),
    ],
)
def test_what_differs_is_never_a_match(more: dict[str, str], outcome: str) -> None:
    found = match(said(**more), [a_candidate()], {})
    assert (found.outcome, found.patient) == (outcome, None)


def test_a_contact_that_was_given_up_does_not_count() -> None:
    old = [{**TELECOM[0], "use": "old"}, {**TELECOM[0], "period": {"end": "2020-01-01"}}]
    assert match(said(), [a_candidate(telecom=old)], {}).patient is None


def test_a_record_without_a_birth_date_or_name_matches_nobody() -> None:
    bare = {"resourceType": "Patient", "id": "bare", "telecom": TELECOM}
    assert match(said(birth_date=""), [bare], {}).outcome == "not-found"
    assert match(said("", "", birth_date=""), [bare], {}).outcome == "not-found"


@given(seed=st.integers(0, 999))
def test_the_order_of_records_makes_no_difference(seed: int) -> None:
    records = [
        a_candidate("a"),
        a_candidate("b", birthDate="1985-05-12"),
        a_candidate("c", name=[{"family": "Quill", "given": ["Eve"]}]),
    ]
    shuffled = random.Random(seed).sample(records, 3)
    assert match(said(), shuffled, {}) == match(said(), records, {})


@given(first=st.text(max_size=30), last=st.text(max_size=30))
def test_any_text_may_be_typed(first: str, last: str) -> None:
    assert match(said(first, last), [a_candidate()], {}).outcome in {"exact", "near-miss"}


@pytest.mark.requirement("portal", "S3-14", "S3-15")
def test_initials_of_any_use_fold_case_and_accents() -> None:
    """S3-14, S3-15."""
    names = [
        {"use": "official", "family": "Éluard", "given": ["Órla", "Ann"]},
        {"use": "old", "family": "Reed", "given": ["Orla"]},
    ]
    for typed in (("o", "E"), ("Ó", "é"), ("a", "e"), ("O", "r")):
        assert same_initials(typed, names)
    for typed in (("e", "o"), ("", "e"), ("o", ""), ("x", "e")):
        assert not same_initials(typed, names)
    assert initials(names) == "Ó. É."
    assert initials([]) == ""


def test_postal_codes_are_compared_as_people_write_them() -> None:
    assert postal_code("60601-1234") == postal_code(" 60601 ") == "60601"
    assert postal_code("sw1a 1aa") == "SW1A1AA"
    assert postal_code("60602") != postal_code("60601")
