"""The EHR launch as Inferno's kits do it (checklist S28 to S30, and of (g)(10) its EHR part)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.inferno import (
    Client,
    Launched,
    launched_by_ehr,
    on_a_chart,
    resource_scopes,
)
from tests.conformance.test_g10 import ASKED_TYPES, FIRST_SEARCHES
from tests.conformance.test_smart_openid_and_refresh import claims_of
from tests.conformance.test_smart_standalone_launch import assert_token_response
from tests.conformance.whole import CHART_APP_OF_PATIENT, LAUNCH, Whole, ids
from tests.smart.world import query_of

INFERNO = "inferno"
IDENTITY = "launch openid fhirUser offline_access"
EHR_SCOPE = " ".join((IDENTITY, *(f"user/{name}.rs" for name in ASKED_TYPES)))
STYLE = "https://ehr.example/style.json"


async def opened(whole: Whole, client: Client, scope: str = EHR_SCOPE, **context: Any) -> Launched:
    """The EHR opens the app, and the app asks with what it was opened with."""
    launch_url = await launched_by_ehr(whole, client.client_id, **context)
    given = query_of(launch_url)
    return await client.launch(scope, aud=given["iss"], launch=given["launch"])


async def tokens(whole: Whole, scope: str = EHR_SCOPE, **context: Any) -> dict[str, Any]:
    client = on_a_chart(whole)
    response = await client.exchange(await opened(whole, client, scope, **context))
    assert_token_response(response)
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.requirement(INFERNO, "S28")
async def test_the_app_is_opened_with_the_very_base_and_a_launch(whole: Whole) -> None:
    launch_url = await launched_by_ehr(whole)
    assert launch_url.startswith(f"{LAUNCH}?")
    given = query_of(launch_url)
    assert given["iss"] == whole.fhir
    assert given["launch"].strip()


@pytest.mark.requirement(INFERNO, "S29")
async def test_the_launch_comes_back_with_the_request(whole: Whole) -> None:
    body = await tokens(whole)
    assert "launch" in body["scope"].split()
    assert "launch/patient" not in body["scope"].split()


@pytest.mark.requirement(INFERNO, "S29")
async def test_a_launch_that_nobody_made_leads_nowhere(whole: Whole) -> None:
    refused = await on_a_chart(whole).launch(EHR_SCOPE, launch="made-up")
    assert refused.answer["error"] == "invalid_request"
    assert "code" not in refused.answer


@pytest.mark.requirement(INFERNO, "S30", "G7")
async def test_patient_and_encounter_are_those_of_the_ehr(whole: Whole) -> None:
    """Nobody is asked to choose a patient."""
    client = on_a_chart(whole)
    launched = await opened(whole, client)
    body = (await client.exchange(launched)).json()
    assert body["patient"] == "anna"
    assert body["encounter"] == "visit"
    found = await client.read(body["access_token"], "Encounter/visit")
    assert found.status_code == 200
    assert (await client.read(body["access_token"], "Patient/anna")).status_code == 200
    refreshed = (await client.refresh(body["refresh_token"])).json()
    assert (refreshed["patient"], refreshed["encounter"]) == ("anna", "visit")


@pytest.mark.requirement(INFERNO, "S26", "G8")
async def test_what_the_ehr_says_of_its_screen_is_told(whole: Whole) -> None:
    context: dict[str, Any] = {
        "intent": "reconcile",
        "smart_style_url": STYLE,
        "need_patient_banner": False,
    }
    body = await tokens(whole, **context)
    assert {name: body[name] for name in context} == context
    assert "need_patient_banner" in await tokens(whole)


@pytest.mark.requirement(INFERNO, "S31", "S36")
async def test_the_person_is_a_practitioner_who_can_be_read(whole: Whole) -> None:
    """With ``fhirUser`` alone: no scope is about Practitioners."""
    body = await tokens(whole, f"{IDENTITY} user/Patient.rs")
    claims = await claims_of(whole, body["id_token"])
    assert claims["fhirUser"] == f"{whole.fhir}/Practitioner/doc"
    response = await on_a_chart(whole).read(body["access_token"], "Practitioner/doc")
    assert response.status_code == 200
    assert response.json()["resourceType"] == "Practitioner"


@pytest.mark.requirement(INFERNO, "G1", "G2", "G4")
async def test_every_granted_scope_is_the_users(whole: Whole) -> None:
    body = await tokens(whole)
    assert set(IDENTITY.split()) <= set(body["scope"].split())
    granted = resource_scopes(body["scope"])
    assert {scope.split("/")[0] for scope in granted} == {"user"}
    assert set(granted) == {f"user/{name}.rs" for name in ASKED_TYPES}


@pytest.mark.requirement(INFERNO, "G9")
async def test_every_type_of_the_patient_can_be_searched_by_staff(whole: Whole) -> None:
    client = on_a_chart(whole)
    body = await tokens(whole)
    async with client.api(body["access_token"]) as http:
        for name, more in FIRST_SEARCHES.items():
            response = await http.get(f"/fhir/{name}?patient={body['patient']}{more}")
            assert response.status_code == 200, (name, response.text)
            assert ids(response.json()), name


@pytest.mark.requirement(INFERNO, "G12")
async def test_an_ehr_launch_may_ask_for_the_patient_alone(whole: Whole) -> None:
    client = on_a_chart(whole, CHART_APP_OF_PATIENT)
    scope = f"{IDENTITY} patient/Patient.rs"
    body = (await client.exchange(await opened(whole, client, scope))).json()
    assert "patient/Patient.rs" in body["scope"].split()
    response = await client.read(body["access_token"], f"Patient/{body['patient']}")
    assert response.status_code == 200
    assert (await client.read(body["access_token"], "Patient/ben")).status_code == 404
