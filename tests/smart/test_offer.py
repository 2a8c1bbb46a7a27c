from __future__ import annotations

import pytest

from fhir_portal.smart.errors import InvalidRequest
from fhir_portal.smart.offer import SUB_RESOURCES, ConsentOffer
from fhir_portal.smart.scope import ScopeSet

ASKED = ScopeSet.parse(
    "launch/patient openid offline_access patient/Patient.rs patient/Condition.rs"
)
PATIENT, CONDITION = "patient/Patient.rs", "patient/Condition.rs"
CHILDREN = [f"{CONDITION}?{query}" for query in SUB_RESOURCES["Condition"]]


def granted(*ticked: str) -> str:
    return str(ConsentOffer.of(ASKED).granted(ticked))


def test_everything_ticked_grants_what_was_asked() -> None:
    assert granted("offline_access", PATIENT, CONDITION) == str(ASKED)
    assert ConsentOffer.of(ASKED).everything == ASKED


def test_identity_and_launch_are_granted_without_a_tick() -> None:
    assert granted() == "launch/patient openid"


def test_offline_access_needs_its_tick() -> None:
    assert granted(PATIENT) == f"launch/patient openid {PATIENT}"


def test_a_parent_alone_grants_the_type() -> None:
    assert granted(CONDITION) == f"launch/patient openid {CONDITION}"


def test_a_parent_with_all_children_grants_the_type() -> None:
    assert granted(CONDITION, *CHILDREN) == f"launch/patient openid {CONDITION}"


def test_a_parent_with_some_children_grants_just_those() -> None:
    assert granted(CONDITION, CHILDREN[1]) == f"launch/patient openid {CHILDREN[1]}"


def test_children_alone_grant_just_those() -> None:
    assert granted(CHILDREN[0], CHILDREN[2]) == (
        f"launch/patient openid {CHILDREN[0]} {CHILDREN[2]}"
    )


def test_all_children_without_their_parent_stay_children() -> None:
    assert granted(*CHILDREN) == f"launch/patient openid {' '.join(CHILDREN)}"


@pytest.mark.parametrize(
    "stranger",
    ["patient/Observation.rs", "patient/Patient.cruds", "patient/*.rs", "openid", "user/*.rs", ""],
)
def test_what_was_not_offered_cannot_be_ticked(stranger: str) -> None:
    with pytest.raises(InvalidRequest):
        granted(PATIENT, stranger)


def test_a_granular_scope_that_was_asked_for_has_no_children() -> None:
    asked = ScopeSet.parse(CHILDREN[0])
    (offered,) = ConsentOffer.of(asked).scopes
    assert (str(offered.scope), offered.children) == (CHILDREN[0], ())


def test_children_of_a_version_1_scope_are_version_2() -> None:
    (offered,) = ConsentOffer.of(ScopeSet.parse("patient/Observation.read")).scopes
    assert str(offered.scope) == "patient/Observation.read"
    assert len(offered.children) == 6
    assert all(str(child).startswith("patient/Observation.rs?") for child in offered.children)


def test_words_that_are_never_granted_are_not_offered() -> None:
    offer = ConsentOffer.of(ScopeSet.parse("openid profile online_access launch/location"))
    assert offer.fixed == ("openid",)
    assert not offer.offline
