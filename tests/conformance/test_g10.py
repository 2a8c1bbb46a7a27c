"""What the (g)(10) kit asks beyond SMART (checklist G1 to G23).

Whether a resource keeps to its US Core profile is another question; here it is what scopes, tokens
and the person's choices let through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.inferno import (
    Client,
    Launched,
    asymmetric,
    public,
    resource_scopes,
    symmetric,
)
from tests.conformance.whole import (
    ANNA,
    CONDITION,
    OBSERVATION,
    US_CORE,
    US_CORE_CONDITION,
    Whole,
    ids,
    of_categories,
)
from tests.smart.world import Browser
from tests.web.signing_in import submit

INFERNO = "inferno"
IDENTITY = "launch/patient openid fhirUser offline_access"
ASKED_TYPES = (
    "Medication AllergyIntolerance CarePlan CareTeam Condition Coverage Device DiagnosticReport "
    "DocumentReference Encounter Goal Immunization Location MedicationDispense MedicationRequest "
    "Observation Organization Patient Practitioner PractitionerRole Procedure Provenance "
    "QuestionnaireResponse RelatedPerson ServiceRequest Specimen"
).split()
GRANTED_TYPES = (
    "Patient AllergyIntolerance CarePlan CareTeam Condition DiagnosticReport DocumentReference "
    "Goal Immunization MedicationRequest Observation Procedure Provenance ServiceRequest Coverage "
    "MedicationDispense Specimen Location"
).split()
V2 = " ".join((IDENTITY, *(f"patient/{name}.rs" for name in ASKED_TYPES)))
V1 = " ".join((IDENTITY, *(f"patient/{name}.read" for name in ASKED_TYPES)))

FIRST_SEARCHES = {
    "AllergyIntolerance": "",
    "CarePlan": "&category=assess-plan",
    "CareTeam": "&status=active",
    "Condition": "&category=encounter-diagnosis",
    "Coverage": "",
    "Device": "",
    "DiagnosticReport": "&category=LAB",
    "DocumentReference": "",
    "Encounter": "",
    "Goal": "",
    "Immunization": "",
    "MedicationDispense": "",
    "MedicationRequest": "&intent=order",
    "Observation": "&category=laboratory",
    "Procedure": "",
    "QuestionnaireResponse": "",
    "RelatedPerson": "",
    "ServiceRequest": "",
    "Specimen": "",
}
"""The first search of each type that has ``patient``, with the fixed value its profile adds."""

ENCOUNTER_DIAGNOSIS = (CONDITION, "encounter-diagnosis")
PROBLEM = (CONDITION, "problem-list-item")
CONCERN = (US_CORE_CONDITION, "health-concern")
LABORATORY, SOCIAL = (OBSERVATION, "laboratory"), (OBSERVATION, "social-history")
VITAL, SURVEY, SDOH = (OBSERVATION, "vital-signs"), (OBSERVATION, "survey"), (US_CORE, "sdoh")
CLINICAL_TEST = (OBSERVATION, "procedure")
Categories = dict[str, tuple[tuple[str, str], ...]]
GROUPS: dict[int, Categories] = {
    1: {"Condition": (ENCOUNTER_DIAGNOSIS, CONCERN), "Observation": (LABORATORY, SOCIAL)},
    2: {"Condition": (PROBLEM,), "Observation": (VITAL, SURVEY, SDOH)},
}
SUB_RESOURCES: Categories = {
    "Condition": (ENCOUNTER_DIAGNOSIS, PROBLEM, CONCERN),
    "Observation": (CLINICAL_TEST, LABORATORY, SOCIAL, SDOH, SURVEY, VITAL),
}


def part(resource_type: str, category: tuple[str, str]) -> str:
    """A sub-resource scope."""
    return f"patient/{resource_type}.rs?category={'|'.join(category)}"


def types_of(scope: str) -> set[str]:
    return {word.split("/")[1].split(".")[0] for word in resource_scopes(scope)}


# --- launches -------------------------------------------------------------------------------------


@pytest.mark.requirement(INFERNO, "G1", "G2", "G3")
@pytest.mark.parametrize("kind", [symmetric, asymmetric])
async def test_everything_asked_for_is_granted(
    whole: Whole, kind: Callable[[Whole], Client]
) -> None:
    """The scope string is longer than what short columns hold."""
    assert len(V2) > 512
    body = await kind(whole).tokens(V2)
    assert set(IDENTITY.split()) <= set(body["scope"].split())
    assert set(GRANTED_TYPES) <= types_of(body["scope"])
    assert {word[:8] for word in resource_scopes(body["scope"])} == {"patient/"}
    assert body["scope"].split() == V2.split()


@pytest.mark.requirement(INFERNO, "G2")
async def test_the_long_request_may_come_in_the_address(whole: Whole) -> None:
    assert (await symmetric(whole).launch(V2, method="GET")).code


@pytest.mark.requirement(INFERNO, "G5")
async def test_without_a_token_it_is_401(whole: Whole) -> None:
    response = await public(whole).read(None, "Patient/anna")
    assert response.status_code == 401


@pytest.mark.requirement(INFERNO, "G6")
async def test_with_the_token_it_is_the_patient(whole: Whole) -> None:
    client = symmetric(whole)
    body = await client.tokens(V2)
    response = await client.read(body["access_token"], f"Patient/{body['patient']}")
    assert response.status_code == 200
    assert response.json()["resourceType"] == "Patient"
    other = await client.read(body["access_token"], "Patient/ben")
    assert other.status_code == 404


@pytest.mark.requirement(INFERNO, "G9", "G15")
@pytest.mark.parametrize("scope", [V2, V1], ids=["v2", "v1"])
async def test_every_type_can_be_searched(whole: Whole, scope: str) -> None:
    client = symmetric(whole)
    body = await client.tokens(scope)
    assert set(GRANTED_TYPES) <= types_of(body["scope"])
    async with client.api(body["access_token"]) as http:
        for name, more in FIRST_SEARCHES.items():
            response = await http.get(f"/fhir/{name}?patient={body['patient']}{more}")
            assert response.status_code == 200, (name, response.text)
            assert ids(response.json()), name
        for name in ("Location", "Medication", "Organization", "Practitioner", "PractitionerRole"):
            response = await http.get(f"/fhir/{name}")
            assert response.status_code == 200, (name, response.text)
            assert ids(response.json()), name
        included = await http.get(
            f"/fhir/Observation?patient={body['patient']}&_revinclude=Provenance:target"
        )
        found = {entry["resource"]["resourceType"] for entry in included.json()["entry"]}
        assert found == {"Observation", "Provenance"}


@pytest.mark.requirement(INFERNO, "G10")
@pytest.mark.parametrize("scope", [V2, f"{IDENTITY} patient/*.rs"], ids=["types", "wildcard"])
async def test_the_grant_lists_the_ticked_types_alone(whole: Whole, scope: str) -> None:
    ticked = {"Patient", "Condition", "Observation"}
    body = await symmetric(whole).tokens(
        scope, tick=lambda box: "/" not in box or types_of(box) <= ticked
    )
    assert sorted(resource_scopes(body["scope"])) == sorted(f"patient/{t}.rs" for t in ticked)
    assert set(IDENTITY.split()) <= set(body["scope"].split())


@pytest.mark.requirement(INFERNO, "G10")
async def test_the_same_request_is_asked_about_again_once_access_was_ended(whole: Whole) -> None:
    """The launch of the full access and of the limited one differ in what the person ticks."""
    client = symmetric(whole)
    launched = await client.launch(V2)
    assert (await client.exchange(launched)).status_code == 200
    silent = {**launched.sent, "prompt": "none"}
    response = await launched.browser.open("/oauth/authorize", params=silent)
    assert "code=" in response.headers["location"]  # nobody needs to be asked
    await end_access(launched.browser)
    response = await launched.browser.open("/oauth/authorize", params=silent)
    assert "error=consent_required" in response.headers["location"]
    body = await client.tokens(V2, tick=lambda box: box in {"patient/Patient.rs", "openid"})
    assert resource_scopes(body["scope"]) == ["patient/Patient.rs"]


@pytest.mark.requirement(INFERNO, "G11")
async def test_a_type_that_was_not_ticked_is_refused(whole: Whole) -> None:
    ticked = {"Patient", "Condition", "Observation"}
    client = symmetric(whole)
    body = await client.tokens(V2, tick=lambda box: "/" not in box or types_of(box) <= ticked)
    async with client.api(body["access_token"]) as http:
        for name, more in FIRST_SEARCHES.items():
            response = await http.get(f"/fhir/{name}?patient={body['patient']}{more}")
            expected = 200 if name in ticked else 403
            assert response.status_code == expected, name


@pytest.mark.requirement(INFERNO, "G13")
async def test_a_public_client_needs_its_client_id_and_no_more(whole: Whole) -> None:
    client = public(whole)
    launched = await client.launch(V2)
    response = await client.exchange(launched)
    assert b"client_id=public-app" in response.request.content
    body = response.json()
    assert body["id_token"]
    assert (await client.read(body["access_token"], "Patient/anna")).status_code == 200


@pytest.mark.requirement(INFERNO, "G14")
@pytest.mark.parametrize("alg", ["ES384", "RS384"])
async def test_an_asymmetric_client_launches_and_refreshes(whole: Whole, alg: str) -> None:
    client = asymmetric(whole, alg)
    body = await client.tokens(V2)
    assert body["id_token"]
    without = (await client.refresh(body["refresh_token"])).json()
    again = await client.refresh(without["refresh_token"], scope=body["scope"])
    assert again.status_code == 200, again.text
    for token in (without["access_token"], again.json()["access_token"]):
        assert (await client.read(token, "Patient/anna")).status_code == 200


# --- what has to be refused -----------------------------------------------------------------------


@pytest.mark.requirement(INFERNO, "G16")
async def test_another_audience_gets_no_code(whole: Whole) -> None:
    refused = await public(whole).ask(aud="https://inferno.healthit.gov/invalid_aud")
    assert "code" not in refused.answer
    assert refused.answer["error"] == "invalid_request"


@pytest.mark.requirement(INFERNO, "G17")
async def test_a_wrong_code_is_400_and_a_wrong_client_refused(whole: Whole) -> None:
    client = symmetric(whole)
    launched = await client.launch()
    wrong = await client.exchange(launched, code="BAD_CODE")
    assert wrong.status_code == 400
    assert wrong.json()["error"] == "invalid_grant"
    form: dict[str, str | None] = {
        "code": launched.code,
        "redirect_uri": launched.sent["redirect_uri"],
        "grant_type": "authorization_code",
        "code_verifier": launched.verifier,
    }
    secret = whole.secrets[client.client_id]
    async with whole.http() as http:
        stranger = await http.post("/oauth/token", data=form, auth=("BAD_CLIENT_ID", secret))
    assert stranger.status_code in {400, 401}
    assert stranger.json()["error"] == "invalid_client"


@pytest.mark.requirement(INFERNO, "G18", "X3")
@pytest.mark.parametrize("kind", [public, symmetric, asymmetric])
@pytest.mark.parametrize("verifier", ["none", "empty", "wrong", "challenge"])
async def test_without_the_right_verifier_there_are_no_tokens(
    whole: Whole, kind: Callable[[Whole], Client], verifier: str
) -> None:
    client = kind(whole)
    launched = await client.launch()
    sent = {
        "none": None,
        "empty": "",
        "wrong": "w" * 73,
        "challenge": launched.sent["code_challenge"],
    }
    response = await client.exchange(launched, code_verifier=sent[verifier])
    assert response.status_code in {400, 401}, response.text
    assert "access_token" not in response.json()


# --- introspection and revocation -----------------------------------------------------------------


@pytest.mark.requirement(INFERNO, "G19", "S49", "S50", "S51", "S52")
async def test_introspection_repeats_the_token_response(whole: Whole) -> None:
    client = symmetric(whole)
    body = await client.tokens(V2)
    found = await client.introspect(body["access_token"])
    assert found["active"] is True
    assert found["client_id"] == client.client_id
    assert sorted(found["scope"].split()) == sorted(body["scope"].split())
    assert whole.clock() < found["exp"] <= whole.clock() + 3600
    assert found["patient"] == body["patient"]
    assert found["iss"] == whole.base
    assert found["sub"]
    assert found["fhirUser"] == f"{whole.fhir}/Patient/anna"
    assert await client.introspect("bad-token") == {"active": False}


@pytest.mark.requirement(INFERNO, "G20")
async def test_what_the_person_ends_is_dead_at_once(whole: Whole) -> None:
    """On the page of connected apps: access and refresh token, on the very next request."""
    client = symmetric(whole)
    launched = await client.launch(V2)
    body = (await client.exchange(launched)).json()
    assert (await client.read(body["access_token"], "Patient/anna")).status_code == 200
    await end_access(launched.browser)
    read = await client.read(body["access_token"], "Patient/anna")
    assert read.status_code in {401, 403, 404}
    refreshed = await client.refresh(body["refresh_token"])
    assert refreshed.status_code in {400, 401}
    assert await client.introspect(body["access_token"]) == {"active": False}


async def end_access(browser: Browser) -> None:
    await browser.open("/account/apps")
    actions = [form.get("action") for form in browser.document.xpath("//form")]
    (end,) = [action for action in actions if action.endswith("/end")]
    await submit(browser, end)


# --- fine-grained scopes --------------------------------------------------------------------------


def granular(group: int) -> str:
    parts = [part(name, one) for name, given in GROUPS[group].items() for one in given]
    others = [f"patient/{t}.rs" for t in ASKED_TYPES if t not in GROUPS[group]]
    return " ".join((IDENTITY, *others, *parts))


@pytest.mark.requirement(INFERNO, "G21")
@pytest.mark.parametrize("group", GROUPS)
async def test_parts_of_a_type_can_be_asked_for(whole: Whole, group: int) -> None:
    body = await symmetric(whole).tokens(granular(group))
    granted = resource_scopes(body["scope"])
    for name, given in GROUPS[group].items():
        of_type = [one for one in granted if one.startswith(f"patient/{name}.")]
        assert sorted(of_type) == sorted(part(name, one) for one in given)
    assert "patient/*" not in body["scope"]


async def searched(http: Any, query: str, *, post: bool = False) -> set[str]:
    name, _, parameters = query.partition("?")
    if post:
        form = dict(pair.split("=") for pair in parameters.split("&"))
        response = await http.post(f"/fhir/{name}/_search", data=form)
    else:
        response = await http.get(f"/fhir/{query}")
    assert response.status_code == 200, response.text
    return set(ids(response.json()))


@pytest.mark.requirement(INFERNO, "G22")
@pytest.mark.parametrize("group", GROUPS)
async def test_only_the_granted_parts_are_found_and_all_of_them(whole: Whole, group: int) -> None:
    """Each search of full access is repeated, by GET and by POST, and page by page."""
    client = symmetric(whole)
    full = await client.tokens(V2)
    body = await client.tokens(granular(group))
    searches = [
        f"{name}?patient=anna{more}"
        for name, given in SUB_RESOURCES.items()
        for more in ("", *(f"&category={code}" for _, code in given))
    ]
    async with client.api(full["access_token"]) as all_, client.api(body["access_token"]) as http:
        for query in searches:
            name = query.partition("?")[0]
            may = of_categories(GROUPS[group][name], name)
            expected = await searched(all_, query) & may
            assert await searched(http, query) == expected, query
            assert await searched(http, query, post=True) == expected, query
            assert await paged(http, f"{query}&_count=1") == expected, query


async def paged(http: Any, query: str) -> set[str]:
    found: set[str] = set()
    following: str | None = f"/fhir/{query}"
    while following:
        bundle = (await http.get(following)).json()
        found |= set(ids(bundle))
        following = next((one["url"] for one in bundle["link"] if one["relation"] == "next"), None)
    return found


@pytest.mark.requirement(INFERNO, "G22")
@pytest.mark.parametrize("group", GROUPS)
async def test_only_what_belongs_to_the_granted_parts_is_read(whole: Whole, group: int) -> None:
    client = symmetric(whole)
    body = await client.tokens(granular(group))
    async with client.api(body["access_token"]) as http:
        for name, given in SUB_RESOURCES.items():
            may = of_categories(GROUPS[group][name], name)
            for reference in of_categories(given, name):
                response = await http.get(f"/fhir/{reference}")
                if reference in may:
                    assert response.status_code == 200, reference
                else:
                    assert response.status_code == 404, reference
                    assert response.json()["resourceType"] == "OperationOutcome"


@pytest.mark.requirement(INFERNO, "G23")
async def test_the_consent_page_offers_the_parts(whole: Whole) -> None:
    client = symmetric(whole)
    asked = f"{IDENTITY} patient/Condition.rs patient/Observation.rs patient/Patient.rs"
    offered = {part(name, one) for name, given in SUB_RESOURCES.items() for one in given}
    launched = await at_consent(client, asked)
    boxes = launched.browser.boxes()
    assert offered <= set(boxes)
    assert not offered & set(launched.browser.boxes(ticked=True))
    chosen = [part("Condition", PROBLEM), part("Observation", LABORATORY)]
    chosen.append(part("Observation", CLINICAL_TEST))
    whole_types = {"patient/Condition.rs", "patient/Observation.rs"}
    launched.response = await client.allow(
        launched.browser, tick=lambda box: box not in whole_types, also=chosen
    )
    body = (await client.exchange(launched)).json()
    assert sorted(resource_scopes(body["scope"])) == sorted([*chosen, "patient/Patient.rs"])


async def at_consent(client: Client, scope: str) -> Launched:
    launched = await client.ask(scope)
    await launched.browser.sign_in(ANNA)
    return launched
