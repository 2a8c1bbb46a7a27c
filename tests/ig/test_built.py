from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import fhirkit
import pytest

from fhir_portal.accounts.at_practice import Status
from fhir_portal.accounts.invitation import State
from fhir_portal.consent.labels import FOR_STAFF, WITHHELD
from fhir_portal.fhir import definitions
from fhir_portal.operations.sending import Outcome
from fhir_portal.operations.staff_task import WORDS
from fhir_portal.resources.proposal import SECTIONS as PROPOSED
from fhir_portal.resources.task import REVIEW_DOCUMENT, SHOWN_TO
from ig import generate_r4

IG = Path(generate_r4.__file__).parent
COMPILED = sorted([*(IG / "built").glob("*.json"), *(IG / "examples").glob("*.json")])
CANONICAL = "https://fhir-portal.example/ig"


def codes(system: str) -> set[str]:
    table = definitions.ig_resource("CodeSystem", system)
    return {concept["code"] for concept in table["concept"]}


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_a_compiled_resource_is_valid_r4(path: Path) -> None:
    resource: dict[str, Any] = json.loads(path.read_bytes())
    assert path.name == f"{resource['resourceType']}-{resource['id']}.json"
    assert not fhirkit.validate(path.read_bytes())


def test_what_the_server_loads_is_published_under_the_canonical_base() -> None:
    for path in (IG / "built").glob("*.json"):
        resource: dict[str, Any] = json.loads(path.read_bytes())
        assert resource["url"] == f"{CANONICAL}/{resource['resourceType']}/{resource['id']}"
        assert resource["version"] == "0.1.0"
        assert resource["description"]


def test_examples_are_kept_out_of_what_the_server_loads() -> None:
    loaded = {path.name.partition("-")[0] for path in (IG / "built").glob("*.json")}
    assert loaded == {
        *("CodeSystem", "ImplementationGuide", "OperationDefinition"),
        *("Questionnaire", "SearchParameter", "StructureDefinition", "ValueSet"),
    }


def test_the_codes_other_rooms_rely_on_are_published() -> None:
    assert codes("consent-category") == {"proxy-grant"}
    assert codes("portal-tag") == {"directory", WITHHELD, *FOR_STAFF.values()}
    assert codes("portal-task") == {
        *("portal-invite", "refill-request", "bill-dispute", "payment-plan", "transmission"),
        *(REVIEW_DOCUMENT, *PROPOSED, *SHOWN_TO),
    }
    assert codes("staff-task-reason") == {reason for _, reason in WORDS}
    assert codes("send-outcome") == set(get_args(Outcome))
    assert codes("invitation-status") == set(get_args(State))
    assert codes("portal-status") == set(get_args(Status))
    assert codes("proxy-role") == {
        *("grant", "related-person", "relationship", "section", "act-section", "access-ends"),
    }


def test_a_proxy_role_has_the_absolute_uri_a_launch_context_needs() -> None:
    table = definitions.ig_resource("CodeSystem", "proxy-role")
    uris = {concept["code"]: concept["property"][0]["valueString"] for concept in table["concept"]}
    assert uris == {code: f"{CANONICAL}/proxy-role/{code}" for code in codes("proxy-role")}
