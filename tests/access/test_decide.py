"""The one decision: scopes, relation, sections, labels, period."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import DIRECTORY, OWNERS, WITHOUT_OWNER
from fhir_portal.access.policy import Ask, Deny, Permit, decide, understands
from fhir_portal.access.visibility import SHARED, RowFacts, Visibility, VisibilityClass
from fhir_portal.consent.labels import PROXY_LABELS, SELF_LABELS
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.smart.scope import Scope, ScopeSet
from tests.builders import DERM, OBSERVATION_CATEGORY, START, a_proxy, an_ehr, oneself

VITALS = f"category={OBSERVATION_CATEGORY}|vital-signs"
LABS = f"category={OBSERVATION_CATEGORY}|laboratory"


def seen(auth: AuthContext, name: str, letter: str = "s", at: float = START) -> Visibility:
    answer = decide(auth, Ask(letter, name, at))
    assert isinstance(answer, Permit), answer
    return answer.visible


def refused(auth: AuthContext, name: str, letter: str = "s", at: float = START) -> str:
    answer = decide(auth, Ask(letter, name, at))
    assert isinstance(answer, Deny), answer
    return answer.reason


def scoped(auth: AuthContext, scope: str) -> AuthContext:
    return replace(auth, scopes=ScopeSet.parse(scope))


def test_ones_own_record_is_seen_in_all_sections_and_without_withheld_labels() -> None:
    visible = seen(oneself("ada"), "Observation")
    assert visible == Visibility.of_record(
        "Observation", practice=DERM, record="ada", sections=None, labels=SELF_LABELS
    )
    assert not {"withheld", "-unknown"} & SELF_LABELS


def test_a_proxy_sees_the_granted_sections_and_nothing_labelled() -> None:
    visible = seen(a_proxy("kit", sections=["results", "visits"]), "Observation")
    assert visible == Visibility.of_record(
        "Observation",
        practice=DERM,
        record="kit",
        sections=frozenset({"results", "visits"}),
        labels=PROXY_LABELS,
    )
    assert not PROXY_LABELS


def test_a_proxy_without_demographics_does_not_see_the_patient() -> None:
    visible = seen(a_proxy(sections=["results"]), "Patient")
    patient = RowFacts(
        "Patient", "kit", DERM, ("kit",), VisibilityClass(frozenset({"demographics"}), frozenset())
    )
    assert not visible.admits(patient, lambda _: True)
    both = seen(a_proxy(sections=["results", "demographics"]), "Patient")
    assert both.admits(patient, lambda _: True)


def test_a_proxy_sees_only_the_own_related_person_and_grant() -> None:
    proxy = a_proxy("kit", "mother", sections=["sharing"], grant="g1")
    assert seen(proxy, "RelatedPerson").ids == frozenset({"mother"})
    assert seen(proxy, "Consent").ids == frozenset({"g1"})
    assert seen(oneself(), "Consent").ids is None


def test_no_grant_can_hold_what_stands_for_unclassified_or_no_section() -> None:
    visible = seen(a_proxy(sections=["results"]), "Observation")
    for section in ("-unclassified", "-none"):
        assert not visible.permits_class(VisibilityClass(frozenset({section}), frozenset()))


@pytest.mark.parametrize("name", sorted(WITHOUT_OWNER))
def test_a_type_without_an_owner_is_invisible_to_people(name: str) -> None:
    refused(oneself(), name)
    refused(oneself(), name, "r")
    seen(an_ehr(), name)


@pytest.mark.parametrize("name", sorted(set(OWNERS) - DIRECTORY))
def test_every_owned_type_is_bounded_to_practice_and_record(name: str) -> None:
    for auth in (oneself("ada"), a_proxy("kit")):
        for letter in "rs":
            visible = seen(auth, name, letter)
            assert visible.practices == (DERM,)
            assert visible.record == auth.patient
            assert visible.labels is not None


@pytest.mark.parametrize("name", sorted(DIRECTORY))
def test_directory_types_are_seen_through_what_the_token_sees(name: str) -> None:
    visible = seen(scoped(oneself("ada"), "patient/*.rs"), name)
    assert visible.practices == (DERM, SHARED)
    assert visible.labels == frozenset()
    assert visible.referrers
    assert all(one.record == "ada" and one.labels is not None for one in visible.referrers)
    narrow = seen(scoped(oneself("ada"), f"patient/{name}.rs patient/Observation.r?{VITALS}"), name)
    assert narrow.referrers is not None
    assert [(one.resource_type, len(one.any_of or ())) for one in narrow.referrers] == [
        ("Observation", 1)
    ]


def test_directory_types_alone_show_the_directory_only() -> None:
    assert seen(scoped(oneself(), "patient/Practitioner.rs"), "Practitioner").referrers == ()


def test_no_scope_no_right() -> None:
    for scope in (
        "",
        "openid",
        "patient/Condition.rs",
        "patient/Observation.r",
        "patient/Observation.cud",
    ):
        assert refused(scoped(oneself(), scope), "Observation", "s")


def test_scopes_of_another_context_grant_nothing() -> None:
    assert refused(scoped(oneself(), "system/*.cruds"), "Observation")
    assert refused(scoped(oneself(), "user/*.cruds"), "Observation")
    assert refused(scoped(an_ehr(), "patient/*.cruds"), "Observation")
    staff = replace(scoped(oneself(), "user/*.cruds"), context="user")
    assert refused(staff, "Observation")


def test_a_patient_context_without_a_record_sees_nothing() -> None:
    assert refused(replace(oneself(), record=None), "Observation")
    assert refused(replace(oneself(), record=None), "Practitioner")


@pytest.mark.parametrize(
    ("scope", "letters"),
    [
        ("patient/Observation.read", "rs"),
        ("patient/*.read", "rs"),
        ("patient/Observation.write", ""),
        ("patient/Observation.*", "rs"),
        ("patient/Observation.r", "r"),
        ("patient/Observation.s", "s"),
        ("patient/Observation.cruds", "rs"),
    ],
)
def test_both_versions_of_scopes_grant_their_letters(scope: str, letters: str) -> None:
    auth = scoped(oneself(), scope)
    permitted = [
        letter
        for letter in "cruds"
        if isinstance(decide(auth, Ask(letter, "Observation", START)), Permit)
    ]
    assert "".join(permitted) == letters


def test_a_read_letter_is_not_a_search_letter() -> None:
    auth = scoped(oneself(), "patient/Observation.r patient/Condition.s")
    seen(auth, "Observation", "r")
    refused(auth, "Observation", "s")
    seen(auth, "Condition", "s")
    refused(auth, "Condition", "r")


def test_granular_scopes_are_alternatives_and_a_plain_one_lifts_them() -> None:
    both = scoped(oneself(), f"patient/Observation.rs?{VITALS} patient/Observation.rs?{LABS}")
    assert len(seen(both, "Observation").any_of or ()) == 2
    once = scoped(oneself(), f"patient/Observation.r?{VITALS} patient/Observation.s?{LABS}")
    assert seen(once, "Observation", "r").any_of != seen(once, "Observation", "s").any_of
    lifted = scoped(oneself(), f"patient/Observation.rs?{VITALS} patient/*.rs")
    assert seen(lifted, "Observation").any_of is None


def test_several_parameters_of_one_scope_must_all_hold() -> None:
    auth = scoped(oneself(), f"patient/Observation.rs?{VITALS}&status=final")
    (conjunction,) = seen(auth, "Observation").any_of or ()
    assert [one.parameter.code for one in conjunction] == ["category", "status"]


def test_a_granular_scope_that_cannot_be_enforced_is_not_understood() -> None:
    def granular(query: str) -> bool:
        return understands(Scope("patient", "Observation", "rs", query))

    assert granular(VITALS)
    assert granular("")
    assert not granular("no-such-parameter=x")
    assert not granular("category:not=x")
    assert not granular("_include=Observation:patient")


def test_with_fhir_user_a_token_reads_its_own_identity_and_no_more() -> None:
    ada = scoped(oneself("ada"), "openid fhirUser patient/Observation.rs")
    assert seen(ada, "Patient", "r").ids == frozenset({"ada"})
    refused(ada, "Patient", "s")
    mother = scoped(a_proxy("kit", "mother", sections=["results"]), "openid fhirUser")
    visible = seen(mother, "RelatedPerson", "r")
    assert (visible.ids, visible.record) == (frozenset({"mother"}), "kit")
    refused(mother, "Patient", "r")
    refused(scoped(oneself("ada"), "openid"), "Patient", "r")


def test_an_expired_token_or_grant_decides_nothing() -> None:
    ada = replace(oneself(), expires=START + 10)
    seen(ada, "Observation", at=START + 9)
    assert "expired" in refused(ada, "Observation", at=START + 10)
    proxy = a_proxy(until=START + 10)
    seen(proxy, "Observation", at=START + 9.9)
    assert "ended" in refused(proxy, "Observation", at=START + 10)


def test_a_type_that_is_not_served_is_refused() -> None:
    for name in ("NotAType", "Citation", "", "observation", "Observation "):
        refused(oneself(), name)
        refused(an_ehr(), name)


def test_an_ehr_sees_its_practice_with_all_labels_and_writes_nothing_shared() -> None:
    visible = seen(an_ehr(DERM), "Observation")
    assert visible.practices == (DERM, SHARED)
    assert visible.labels is None
    assert visible.record is None
    assert seen(an_ehr(DERM), "Organization", "u").practices == (DERM,)
    assert seen(an_ehr(SHARED), "Organization", "u").practices == (SHARED,)


def test_what_was_decided_for_one_context_is_not_carried_into_another() -> None:
    ada = oneself("ada")
    seen(ada, "Observation")
    narrowed = scoped(ada, "patient/Condition.rs")
    refused(narrowed, "Observation")
    assert seen(replace(ada, record=a_proxy("kit").record), "Observation").record == "kit"


@pytest.mark.parametrize("name", served_types())
def test_a_proxy_never_sees_more_than_the_person(name: str) -> None:
    person, proxy = oneself("kit"), a_proxy("kit", sections=["results", "sharing"])
    for letter in "rs":
        mine, theirs = (
            decide(person, Ask(letter, name, START)),
            decide(proxy, Ask(letter, name, START)),
        )
        if isinstance(theirs, Permit):
            assert isinstance(mine, Permit)
            assert (theirs.visible.labels or frozenset()) <= (mine.visible.labels or frozenset())


def test_a_new_image_outside_the_visibility_is_refused_without_naming_anything() -> None:
    visible = seen(oneself("ada"), "Observation")
    facts = RowFacts(
        "Observation", "o", DERM, ("bo",), VisibilityClass(frozenset({"results"}), frozenset())
    )
    with pytest.raises(Forbidden) as refusal:
        visible.require(facts, lambda _: True)
    assert "bo" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "admitted"),
    [
        ({}, True),
        ({"resource_type": "Condition"}, False),
        ({"practice": "family-medicine"}, False),
        ({"practice": SHARED}, False),
        ({"owners": ("bo",)}, False),
        ({"owners": ("ada", "bo")}, False),
        ({"owners": ()}, False),
    ],
)
def test_a_row_is_judged_like_in_the_query(changes: dict[str, Any], *, admitted: bool) -> None:
    given: dict[str, Any] = {
        "resource_type": "Observation",
        "id": "o",
        "practice": DERM,
        "owners": ("ada",),
        "visibility_class": VisibilityClass(frozenset({"results"}), frozenset()),
    }
    facts = RowFacts(**given | changes)
    assert seen(oneself("ada"), "Observation").admits(facts, lambda _: True) is admitted


def test_a_class_is_read_back_as_it_was_written() -> None:
    for sections in ((), ("results",), ("a", "b")):
        for labels in ((), ("R",), ("R", "-unknown")):
            one = VisibilityClass(frozenset(sections), frozenset(labels))
            assert VisibilityClass.parse(str(one)) == one
