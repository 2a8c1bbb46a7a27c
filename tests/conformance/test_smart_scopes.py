"""Scopes and brands as Inferno's SMART App Launch kits read them (checklist S53 to S57)."""

from __future__ import annotations

import msgspec
import pytest

from fhir_portal.fhir.model import check
from tests.conformance.inferno import path_of, public, resource_scopes
from tests.conformance.whole import OBSERVATION, Whole

INFERNO = "inferno"
IDENTITY = "launch/patient openid fhirUser offline_access"
LABORATORY = f"patient/Observation.rs?category={OBSERVATION}|laboratory"


@pytest.mark.requirement(INFERNO, "S53")
@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("patient/Patient.read", "patient/Patient.read patient/Patient.rs"),
        ("patient/Patient.*", "patient/Patient.rus"),  # to propose changes needs u
        ("patient/Patient.rs", "patient/Patient.rs"),
        ("patient/Patient.r", "patient/Patient.r"),
        ("patient/Patient.s", "patient/Patient.s"),
    ],
)
async def test_both_syntaxes_are_understood(whole: Whole, asked: str, allowed: str) -> None:
    body = await public(whole).tokens(f"{IDENTITY} {asked}")
    (granted,) = resource_scopes(body["scope"])
    assert granted in allowed.split()


@pytest.mark.requirement(INFERNO, "S53")
@pytest.mark.parametrize("asked", ["patient/Patient.sr", "patient/Patient.rws", "patient/Patient"])
async def test_letters_stand_in_their_order(whole: Whole, asked: str) -> None:
    refused = await public(whole).ask(f"{IDENTITY} {asked}")
    assert refused.answer["error"] == "invalid_scope"


@pytest.mark.requirement(INFERNO, "S54")
async def test_the_parameters_of_a_scope_come_back_as_they_stood(whole: Whole) -> None:
    client = public(whole)
    body = await client.tokens(f"{IDENTITY} patient/Patient.rs {LABORATORY}")
    assert LABORATORY in body["scope"].split()
    again = (await client.refresh(body["refresh_token"], scope=body["scope"])).json()
    assert LABORATORY in again["scope"].split()


@pytest.mark.requirement(INFERNO, "S55")
async def test_who_asks_for_a_part_is_not_given_the_whole(whole: Whole) -> None:
    body = await public(whole).tokens(f"{IDENTITY} patient/Patient.rs {LABORATORY}")
    assert sorted(resource_scopes(body["scope"])) == [LABORATORY, "patient/Patient.rs"]


@pytest.mark.requirement(INFERNO, "S56")
@pytest.mark.parametrize(
    "word",
    [
        "launch",
        "launch/patient",
        "launch/encounter",
        "openid",
        "fhirUser",
        "offline_access",
        "online_access",
    ],
)
async def test_every_launch_scope_may_be_asked_for(whole: Whole, word: str) -> None:
    """What cannot be granted is left out of ``scope`` and is no error."""
    body = await public(whole).tokens(f"{word} patient/Patient.rs")
    assert set(body["scope"].split()) <= {word, "patient/Patient.rs"}
    assert "patient/Patient.rs" in body["scope"].split()
    if word in IDENTITY.split():
        assert word in body["scope"].split()


@pytest.mark.requirement(INFERNO, "S57")
async def test_the_brands_are_a_public_bundle(whole: Whole) -> None:
    async with whole.http() as http:
        configuration = (await http.get("/fhir/.well-known/smart-configuration")).json()
        response = await http.get(path_of(configuration["user_access_brand_bundle"]))
    assert response.status_code == 200
    bundle = response.json()
    assert bundle["type"] == "collection"
    assert bundle["timestamp"]
    resources = [entry["resource"] for entry in bundle["entry"]]
    assert {one["resourceType"] for one in resources} == {"Organization", "Endpoint"}
    for one in (bundle, *resources):
        assert check(one["resourceType"], msgspec.json.encode(one)) == []
    (endpoint,) = [one for one in resources if one["resourceType"] == "Endpoint"]
    assert endpoint["address"] == whole.fhir
    assert endpoint["status"] == "active"
    assert endpoint["connectionType"]["code"] == "hl7-fhir-rest"
    brand = configuration["user_access_brand_identifier"]
    named = [one for one in resources if brand in one.get("identifier", ())]
    assert len(named) == 1
    assert named[0]["name"]
    assert {"reference": f"Endpoint/{endpoint['id']}"} in named[0]["endpoint"]
