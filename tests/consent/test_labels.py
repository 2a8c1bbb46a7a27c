from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.consent.labels import (
    PROXY_LABELS,
    SELF_LABELS,
    UNKNOWN,
    WITHHELD,
    is_listed_in_directory,
    labels_of,
    staff_labels,
)
from tests.builders import CONFIDENTIALITY, DIRECTORY, PORTAL_TAG, RESTRICTED
from tests.builders import WITHHELD as WITHHELD_META

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def meta(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "meta": elements}


def security(*codings: tuple[str | None, str | None]) -> dict[str, Any]:
    return meta(
        security=[
            {k: v for k, v in (("system", system), ("code", code)) if v is not None}
            for system, code in codings
        ]
    )


@pytest.mark.parametrize("code", ["U", "L", "M", "N"])
def test_ordinary_confidentiality_is_no_label(code: str) -> None:
    assert labels_of(security((CONFIDENTIALITY, code))) == frozenset()


@pytest.mark.parametrize("code", ["R", "V"])
def test_restricted_confidentiality_hides_from_proxies_only(code: str) -> None:
    labels = labels_of(security((CONFIDENTIALITY, code)))
    assert labels == {code}
    assert labels <= SELF_LABELS
    assert not labels <= PROXY_LABELS


@pytest.mark.parametrize("code", ["ETH", "HIV", "PSY", "SEX", "STD", "SUD", "SDV", "ADOL", "BH"])
def test_sensitivity_hides_from_proxies_only(code: str) -> None:
    labels = labels_of(security((ACT_CODE, code)))
    assert labels == {code}
    assert labels <= SELF_LABELS


def test_what_a_physician_tells_first_is_hidden_from_the_person_too() -> None:
    labels = labels_of(security((ACT_CODE, "TABOO")))
    assert labels == {"TABOO"}
    assert not labels <= SELF_LABELS
    assert labels <= (staff_labels(["view"]) or labels)


@pytest.mark.parametrize(
    "coding",
    [
        (None, "R"),
        (CONFIDENTIALITY, None),
        (CONFIDENTIALITY, "X"),
        (CONFIDENTIALITY, "r"),
        (CONFIDENTIALITY, "SEX"),
        (ACT_CODE, "R"),
        (ACT_CODE, "NOPE"),
        ("https://house.example/labels", "N"),
        (None, None),
    ],
)
def test_a_label_nobody_knows_hides_from_everybody_restricted(
    coding: tuple[str | None, str | None],
) -> None:
    labels = labels_of(security(coding))
    assert labels == {UNKNOWN}
    assert not labels <= SELF_LABELS


def test_labels_add_up() -> None:
    tree = security((CONFIDENTIALITY, "N"), (CONFIDENTIALITY, "R"), (ACT_CODE, "SEX"), ("x", "y"))
    assert labels_of(tree) == {"R", "SEX", UNKNOWN}


def test_what_the_practice_withholds_is_hidden_from_the_person_too() -> None:
    labels = labels_of({"meta": WITHHELD_META})
    assert labels == {WITHHELD}
    assert not labels <= SELF_LABELS


def test_only_our_own_tag_withholds() -> None:
    assert labels_of(meta(tag=[{"system": "urn:x", "code": "withheld"}])) == frozenset()
    assert labels_of(meta(tag=[{"code": "withheld"}])) == frozenset()
    assert labels_of({"resourceType": "Observation"}) == frozenset()
    assert labels_of({"meta": RESTRICTED | WITHHELD_META}) == {"R", WITHHELD}


def test_only_our_own_tag_lists_in_the_directory() -> None:
    assert is_listed_in_directory({"meta": DIRECTORY})
    assert not is_listed_in_directory({"meta": {"tag": [{"system": "x", "code": "directory"}]}})
    assert not is_listed_in_directory({"meta": {"tag": [{"system": PORTAL_TAG, "code": "x"}]}})
    assert not is_listed_in_directory({})
