"""How well a record fits somebody's particulars: the rules, one by one."""

from __future__ import annotations

import pytest

from fhir_portal.operations.particulars import Particulars, contact_of, fit, particulars_of
from tests.builders import Json, a_patient

MRN = "https://derm.example/mrn"


def of(**more: object) -> Particulars:
    return particulars_of(a_patient(**more))  # type: ignore[arg-type]


def named(family: str, *given: str, use: str | None = None) -> Json:
    return {"family": family, "given": list(given)} | ({"use": use} if use else {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (named("García-López", "Ana"), named("GARCIA LOPEZ", "ana")),
        (named("O'Brien", "Zoë"), named("OBrien", "Zoe")),
        (named("Łukasz", "Jan"), named("Lukasz", "Jan")),
        (named("Strauß", "Ada"), named("Strauss", "Ada")),
        (named("Ada", "Quill"), named("Quill", "Ada")),
        (named("山田", "花子"), named("山田", "花子")),
        (named("Quill", "Ada"), named("Quill", "Ada", "Maria")),
    ],
)
def test_case_accents_hyphens_order_and_a_second_given_name_make_no_difference(
    one: Json, other: Json
) -> None:
    found = fit(of(name=[one], birthDate=None), of(name=[other], birthDate=None))
    assert found.reasons == ("name",)
    assert found.points == 30


def test_a_name_of_any_use_counts() -> None:
    found = of(name=[named("Marsh", "Ada"), named("Quill", "Ada", use="maiden")])
    assert fit(of(), found).reasons == ("name", "birth-date")


def test_part_of_a_double_name_and_an_initial_are_less_than_the_name() -> None:
    wanted = of(name=[named("Lopez", "A")], birthDate=None)
    assert fit(wanted, of(name=[named("García-López", "Ana")], birthDate=None)).points == 20
    assert fit(wanted, of(name=[named("Lopez", "Bo")], birthDate=None)).points == 10


def test_a_date_of_birth_in_part_or_changed_over_counts_for_less_and_another_against() -> None:
    wanted = of(name=None, birthDate="1984-05-12")
    points = {
        born: fit(wanted, of(name=None, birthDate=born)).reasons
        for born in ("1984-05-12", "1984-12-05", "1984", "1984-05", "1984-05-13", "1985")
    }
    assert points == {
        "1984-05-12": ("birth-date",),
        "1984-12-05": ("birth-date-changed-over",),
        "1984": ("birth-date-in-part",),
        "1984-05": ("birth-date-in-part",),
        "1984-05-13": ("other-birth-date",),
        "1985": ("other-birth-date",),
    }


def test_nothing_is_certain_without_an_identifier() -> None:
    everything: Json = {
        "telecom": [{"system": "phone", "value": "312-555-0142"}],
        "address": [{"postalCode": "60601-1234"}],
        "gender": "female",
    }
    found = fit(of(**everything), of(**everything))
    assert (found.points, found.grade) == (85, "probable")
    mrn = {"identifier": [{"system": MRN, "value": "7"}]}
    assert fit(of(**everything, **mrn), of(**everything, **mrn)).grade == "certain"


def test_nothing_is_certain_that_something_speaks_against() -> None:
    mrn = {"identifier": [{"system": MRN, "value": "7"}]}
    assert fit(of(**mrn), of(**mrn)).grade == "certain"
    assert fit(of(**mrn), of(**mrn, birthDate="1950-01-01")).grade == "probable"
    assert fit(of(**mrn), of(**mrn, name=[named("Marsh", "Ivo")])).grade == "probable"
    assert fit(of(**mrn, gender="male"), of(**mrn, gender="female")).grade == "probable"


def test_another_value_of_the_same_system_counts_against() -> None:
    found = fit(
        of(identifier=[{"system": MRN, "value": "7"}]),
        of(identifier=[{"system": MRN, "value": "8"}]),
    )
    assert (found.points, found.grade) == (40, "possible")
    assert "other-identifier" in found.reasons


def test_an_identifier_without_a_system_says_nothing() -> None:
    loose = of(identifier=[{"value": "7"}])
    assert fit(loose, of(identifier=[{"system": MRN, "value": "7"}])).points == 60


def test_strangers_are_no_match() -> None:
    stranger = of(name=[named("Marsh", "Ivo")], birthDate="1950-01-01")
    assert fit(of(), stranger).grade is None


def test_contacts_and_postal_codes_are_compared_as_they_are_meant() -> None:
    assert contact_of("+1 (312) 555-0142") == contact_of("312.555.0142") == "3125550142"
    assert contact_of(" Ada@Example.ORG ") == "ada@example.org"
    assert contact_of("12") is None
    for one, other in (("60601-1234", "60601"), ("sw1a 1aa", "SW1A1AA")):
        found = [of(address=[{"postalCode": code}]).postal_codes for code in (one, other)]
        assert found[0] == found[1]
    assert of(telecom=[{"system": "phone", "value": "3125550142", "use": "old"}]).contacts == set()


def test_a_given_name_that_is_not_said_is_no_word() -> None:
    none = {"family": "Quill", "given": [None, "Ada"], "_given": [{"id": "a"}, None]}
    assert fit(of(name=[none]), of()).reasons == ("name", "birth-date")
    assert of(name=[none]).names[0].words == {"ada", "quill"}
