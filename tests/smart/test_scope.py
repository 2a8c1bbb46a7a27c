from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.smart.errors import InvalidScope
from fhir_portal.smart.scope import MOST_REQUESTED, Scope, ScopeSet

TYPES = ["*", "Condition", "Observation", "Patient"]
LETTERS = st.sets(st.sampled_from("cruds"), min_size=1).map(
    lambda chosen: "".join(letter for letter in "cruds" if letter in chosen)
)
QUERIES = st.sampled_from(
    ["", "category=a|b", "category=http://x.example/y|z", "category=a|b&status=final", "code=1"]
)


@st.composite
def scopes(draw: st.DrawFn, context: str = "patient") -> Scope:
    resource_type = draw(st.sampled_from(TYPES))
    query = "" if resource_type == "*" else draw(QUERIES)
    letters = draw(LETTERS)
    version_1 = not query and letters in ("rs", "cud", "cruds") and draw(st.booleans())
    return Scope(context, resource_type, letters, query, version_1=version_1)


SETS = st.builds(
    lambda identity, resource: ScopeSet(
        tuple(dict.fromkeys(identity)), tuple(dict.fromkeys(resource))
    ),
    st.lists(st.sampled_from(["openid", "fhirUser", "launch/patient", "offline_access", "launch"])),
    st.lists(scopes(), max_size=6),
)
ROWS = [
    (letter, name, conditions)
    for letter in "cruds"
    for name in ("Condition", "Observation", "Patient")
    for conditions in (
        frozenset(),
        frozenset({"category=a|b"}),
        frozenset({"category=a|b", "status=final"}),
        frozenset({"category=http://x.example/y|z"}),
        frozenset({"code=1"}),
    )
]


def reach(scope: ScopeSet) -> set[tuple[str, str, frozenset[str]]]:
    """What a set allows on resources of three types that satisfy these conditions: by hand."""
    return {
        (letter, name, conditions)
        for letter, name, conditions in ROWS
        for one in scope.resource
        if letter in one.letters
        and one.resource_type in ("*", name)
        and set(one.query.split("&") if one.query else ()) <= conditions
    }


@given(SETS)
def test_a_scope_set_is_read_back_from_its_text(scope: ScopeSet) -> None:
    read = ScopeSet.parse(str(scope))
    assert read == scope
    assert str(read) == str(scope)


@given(scopes())
def test_a_scope_is_read_back_from_its_text(scope: Scope) -> None:
    assert Scope.parse(str(scope)) == scope
    assert str(Scope.parse(str(scope))) == str(scope)


@given(SETS, SETS)
def test_narrowing_never_widens(asked: ScopeSet, bound: ScopeSet) -> None:
    narrowed = asked.within(bound)
    assert reach(narrowed) <= reach(asked) & reach(bound)
    assert set(narrowed.identity) == set(asked.identity) & set(bound.identity)
    assert asked.covers(narrowed)
    assert bound.covers(narrowed)


@given(SETS)
def test_narrowing_by_itself_changes_nothing(scope: ScopeSet) -> None:
    assert reach(scope.within(scope)) == reach(scope)


@given(SETS, SETS)
def test_covering_means_reaching_as_far(one: ScopeSet, other: ScopeSet) -> None:
    if one.covers(other):
        assert reach(one) >= reach(other)


@given(SETS)
def test_expanding_a_wildcard_keeps_its_reach(scope: ScopeSet) -> None:
    expanded = scope.expanded(["Condition", "Observation", "Patient"])
    assert reach(expanded) == reach(scope)
    assert all(one.resource_type != "*" for one in expanded.resource)


@given(SETS, LETTERS)
def test_limiting_letters_leaves_no_others(scope: ScopeSet, letters: str) -> None:
    limited = scope.limited_by(lambda _: letters)
    assert reach(limited) == {row for row in reach(scope) if row[0] in letters}


@pytest.mark.parametrize(
    ("version_1", "version_2"),
    [
        ("patient/Observation.read", "patient/Observation.rs"),
        ("user/*.write", "user/*.cud"),
        ("system/*.*", "system/*.cruds"),
    ],
)
def test_both_versions_mean_the_same_and_keep_their_spelling(
    version_1: str, version_2: str
) -> None:
    assert Scope.parse(version_1) == Scope.parse(version_2)
    assert str(Scope.parse(version_1)) == version_1
    assert str(Scope.parse(version_2)) == version_2


def test_a_version_1_scope_that_was_narrowed_is_spelled_as_it_can_be() -> None:
    everything = Scope.parse("patient/Observation.*")
    assert str(everything.limited_to("rs")) == "patient/Observation.read"
    assert str(everything.limited_to("crs")) == "patient/Observation.crs"


def test_a_granular_scope_keeps_its_value_to_the_letter() -> None:
    text = "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/x|vital-signs"
    assert str(Scope.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "patient/Observation",
        "patient/Observation.",
        "patient/Observation.sr",
        "patient/Observation.rrs",
        "patient/Observation.x",
        "patient/observation.rs",
        "patient/Observation.rs\n",
        "practitioner/Observation.rs",
        "patient/Observation.rs?",
        "patient/Observation.rs?category",
        "patient/Observation.rs?category=",
        "patient/Observation.rs?category:not=a",
        "patient/Observation.rs?subject.name=a",
        "patient/Observation.rs?_filter=a",
        "patient/Observation.rs?_has:Provenance:target:agent=a",
        "patient/Observation.rs?_include=a",
        "patient/Observation.rs?category=a&&code=b",
        "patient/Observation.rs?category=é",
        'patient/Observation.rs?category="a"',
        "patient/Observation.read?category=a",
        "patient/*.rs?category=a",
        "opensesame",
        "launch/",
        "launch/patient?role=x",
        "$where",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(InvalidScope):
        ScopeSet.parse(f"openid {text}")


@pytest.mark.parametrize(
    "text",
    [
        "patient/Patient.rs user/Patient.rs",
        "patient/Patient.rs system/Patient.rs",
        "user/*.read system/*.read",
    ],
)
def test_contexts_do_not_mix(text: str) -> None:
    with pytest.raises(InvalidScope):
        ScopeSet.parse(text)


def test_repeats_are_one() -> None:
    read = ScopeSet.parse("openid openid  patient/Patient.read patient/Patient.rs")
    assert str(read) == "openid patient/Patient.read"


def test_one_request_names_a_bounded_number_of_resource_scopes() -> None:
    words = [f"patient/Goal.r?_id={number}" for number in range(151)]
    most = ScopeSet.parse(" ".join(["openid", *words[:150], words[0]]), at_most=MOST_REQUESTED)
    assert len(most.resource) == 150
    with pytest.raises(InvalidScope):
        ScopeSet.parse(" ".join(words), at_most=MOST_REQUESTED)


def test_two_queries_that_would_have_to_be_combined_give_nothing() -> None:
    asked = ScopeSet.parse("patient/Observation.rs?category=a")
    assert not asked.within(ScopeSet.parse("patient/Observation.rs?code=b")).resource
    assert asked.within(ScopeSet.parse("patient/*.r")) == ScopeSet.parse(
        "patient/Observation.r?category=a"
    )


def test_what_one_scope_covers_is_not_said_twice() -> None:
    asked = ScopeSet.parse("patient/Observation.rs?category=a patient/Observation.cruds")
    assert str(asked.within(ScopeSet.parse("patient/*.rs"))) == "patient/Observation.rs"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("patient/Observation.rs?code:in=http://v", "a modifier"),
        ("patient/Observation.rs?category:not=x", "a modifier"),
        ("patient/Observation.rs?patient.name=x", "a chained parameter"),
        ("patient/Observation.rs?_has:Provenance:target:agent=x", "reverse chaining"),
        ("patient/Observation.rs?_filter=x", "_filter"),
        ("launch/patient?role=x", "a role for a launch scope"),
    ],
)
def test_what_smart_marks_experimental_is_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(InvalidScope) as refused:
        ScopeSet.parse(f"openid {text}")
    assert refused.value.description.startswith(what)
    assert "experimental in SMART 2.2" in refused.value.description
