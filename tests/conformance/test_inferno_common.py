"""What Inferno's test kits ask of every FHIR API, whatever the profile.

C numbers: read, search, paging and references; X numbers: what the specifications state and no kit
tests. Validation against US Core profiles needs a validator and data of its own.
"""

from __future__ import annotations

import pytest

from fhir_portal.smart.token import AccessToken, token_hash
from tests.web.fhir_world import (
    ANNA,
    APP_ORIGIN,
    BASE,
    CATEGORY,
    LOINC,
    START,
    FhirWorld,
    assert_outcome,
    ids,
    link,
    observation,
    pages,
)

INFERNO = "inferno"


@pytest.fixture
async def chart(as_ehr):
    practitioner = {"resourceType": "Practitioner", "id": "doc", "name": [{"family": "Lark"}]}
    provenance = {
        "resourceType": "Provenance",
        "id": "prov",
        "target": [{"reference": "Observation/o1"}],
        "recorded": "2029-03-01T10:00:00Z",
        "agent": [{"who": {"reference": "Practitioner/doc"}}],
    }
    bodies = [
        practitioner,
        *(
            observation(
                f"o{n}",
                category="laboratory" if n % 2 else "vital-signs",
                code=("8867-4", "2339-0")[n % 2],
                at=f"2022-01-{n + 1:02}T10:00:00+00:00",
                performer=[{"reference": "Practitioner/doc"}],
            )
            for n in range(6)
        ),
        provenance,
        observation("bens", of="ben"),
    ]
    for body in bodies:
        response = await as_ehr.put(f"/fhir/{body['resourceType']}/{body['id']}", json=body)
        assert response.status_code == 201, response.text


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C1")
async def test_a_read_has_the_type_and_id_asked_for(as_patient):
    for name, own_id in (("Patient", "anna"), ("Observation", "o1"), ("Practitioner", "doc")):
        found = (await as_patient.get(f"/fhir/{name}/{own_id}")).json()
        assert (found["resourceType"], found["id"]) == (name, own_id)


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C2", "C3", "C4")
async def test_every_entry_has_a_resource_that_matches(as_patient):
    bundle = (await as_patient.get("/fhir/Observation?patient=anna&category=LABORATORY")).json()
    assert bundle["type"] == "searchset"
    assert ids(bundle) == ["Observation/o1", "Observation/o3", "Observation/o5"]
    for one in bundle["entry"]:
        assert one["resource"]["category"][0]["coding"][0]["code"] == "laboratory"
        assert one["resource"]["subject"]["reference"] == "Patient/anna"
    named = (await as_patient.get("/fhir/Patient?name=ADL&birthdate=1980-02-03")).json()
    assert ids(named) == ["Patient/anna"]


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C5")
async def test_a_search_by_post_finds_as_many(as_patient):
    query = {"patient": "anna", "category": "laboratory"}
    got = await as_patient.get("/fhir/Observation", params=query)
    posted = await as_patient.post("/fhir/Observation/_search", data=query)
    assert ids(posted.json()) == ids(got.json()) != []


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C6")
async def test_a_patient_may_be_named_with_and_without_the_type(as_patient):
    found = [
        ids((await as_patient.get("/fhir/Observation", params={"patient": text})).json())
        for text in ("anna", "Patient/anna", f"{BASE}/Patient/anna")
    ]
    assert found[0] == found[1] == found[2] != []


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C7")
async def test_a_token_may_name_its_system(as_patient):
    for text in (f"{CATEGORY}|laboratory", "laboratory"):
        response = await as_patient.get(
            "/fhir/Observation", params={"patient": "anna", "category": text}
        )
        assert len(ids(response.json())) == 3
    other = await as_patient.get(
        "/fhir/Observation", params={"patient": "anna", "category": f"{LOINC}|laboratory"}
    )
    assert ids(other.json()) == []


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C8")
@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("gt2022-01-04T10:00:00+00:00", "o4 o5"),
        ("ge2022-01-05T10:00:00+00:00", "o4 o5"),
        ("lt2022-01-02T12:00:00+02:00", "o0"),
        ("le2022-01-02T12:00:00+02:00", "o0 o1"),
        ("2022-01-03", "o2"),
        ("2022-01", "o0 o1 o2 o3 o4 o5"),
    ],
)
async def test_dates_are_compared_by_interval_and_zone(as_patient, date, expected):
    response = await as_patient.get("/fhir/Observation", params={"patient": "anna", "date": date})
    assert ids(response.json()) == [f"Observation/{one}" for one in expected.split()]


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C9")
async def test_values_joined_by_commas_are_alternatives(as_patient):
    response = await as_patient.get("/fhir/Observation?patient=anna&code=8867-4,2339-0")
    assert len(ids(response.json())) == 6


@pytest.mark.requirement(INFERNO, "C10")
async def test_a_comma_inside_a_value_is_escaped(as_ehr):
    body = observation("o", code="a,b")
    await as_ehr.put("/fhir/Observation/o", json=body)
    assert ids((await as_ehr.get("/fhir/Observation", params={"code": "a\\,b"})).json()) == [
        "Observation/o"
    ]
    assert ids((await as_ehr.get("/fhir/Observation", params={"code": "a,b"})).json()) == []


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C12")
async def test_provenance_comes_along(as_patient):
    response = await as_patient.get("/fhir/Observation?patient=anna&_revinclude=Provenance:target")
    assert ids(response.json(), mode="include") == ["Provenance/prov"]


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C13", "C16")
async def test_what_a_result_refers_to_comes_along_and_reads(as_patient):
    response = await as_patient.get("/fhir/Observation?patient=anna&_include=Observation:performer")
    assert ids(response.json(), mode="include") == ["Practitioner/doc"]
    assert (await as_patient.get("/fhir/Practitioner/doc")).json()["id"] == "doc"


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C14")
async def test_pages_are_followed_to_the_end(as_patient):
    found = []
    async for page in pages(as_patient, "/fhir/Observation?patient=anna&_count=2"):
        found += ids(page)
    assert sorted(found) == [f"Observation/o{n}" for n in range(6)]


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C25")
async def test_a_granular_scope_holds_on_every_route(fhir: FhirWorld):
    await fhir.insert(
        AccessToken(
            key=token_hash("a-token-for-laboratory-only"),
            expires=START + 600,
            issued=START,
            client_id="app",
            context="patient",
            scope=f"patient/Patient.rs patient/Observation.rs?category={CATEGORY}|laboratory",
            practice="derm",
            patient="Patient/anna",
            fhir_user="Patient/anna",
            account="acc-a",
        )
    )
    expected = ["Observation/o1", "Observation/o3", "Observation/o5"]
    async with fhir.client("a-token-for-laboratory-only") as client:
        assert_outcome(await client.get("/fhir/Observation/o2"), 404, "not-found")
        assert (await client.get("/fhir/Observation/o1")).status_code == 200
        assert ids((await client.get("/fhir/Observation")).json()) == expected
        posted = await client.post("/fhir/Observation/_search", data={"patient": "anna"})
        assert ids(posted.json()) == expected
        walked = [
            one async for page in pages(client, "/fhir/Observation?_count=1") for one in ids(page)
        ]
        assert walked == expected
        included = await client.get("/fhir/Patient?_revinclude=Observation:patient")
        assert ids(included.json(), mode="include") == expected
        counted = await client.get("/fhir/Observation?_summary=count")
        assert counted.json()["total"] == 3
        history = await client.get("/fhir/Observation/o2/_history")
        assert_outcome(history, 404, "not-found")
        assert_outcome(await client.get("/fhir/Observation/o2/_history/1"), 404, "not-found")
        feed = (await client.get("/fhir/_history")).json()
        assert sorted(e["request"]["url"] for e in feed["entry"]) == [*expected, "Patient/anna"]


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "C26")
async def test_versions_and_their_history_are_there(as_patient):
    assert (await as_patient.get("/fhir/Observation/o1/_history/1")).status_code == 200
    assert (await as_patient.get("/fhir/Observation/o1/_history")).json()["total"] == 1


@pytest.mark.requirement(INFERNO, "S12")
async def test_discovery_answers_every_origin(as_anyone):
    for path in ("/fhir/.well-known/smart-configuration", "/fhir/metadata"):
        response = await as_anyone.get(path, headers={"Origin": "https://inferno.example"})
        assert response.headers["access-control-allow-origin"] in {"*", "https://inferno.example"}


@pytest.mark.requirement(INFERNO, "S37")
async def test_a_read_answers_the_origin_of_a_registered_app(as_patient):
    response = await as_patient.get("/fhir/Patient/anna", headers={"Origin": APP_ORIGIN})
    assert response.headers["access-control-allow-origin"] == APP_ORIGIN


@pytest.mark.requirement(INFERNO, "G5", "X6")
async def test_without_a_token_it_is_401_with_a_challenge_and_an_outcome(as_anyone):
    response = await as_anyone.get("/fhir/Patient/anna")
    assert_outcome(response, 401, "login")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.requirement(INFERNO, "X6")
async def test_a_missing_scope_is_403_with_an_outcome(as_patient):
    assert_outcome(await as_patient.delete("/fhir/Patient/anna"), 403, "forbidden")


@pytest.mark.requirement(INFERNO, "X12")
async def test_a_registered_origin_may_preflight(as_anyone):
    response = await as_anyone.options(
        "/fhir/Patient/anna",
        headers={
            "Origin": APP_ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization, content-type",
        },
    )
    assert response.headers["access-control-allow-origin"] == APP_ORIGIN
    allowed = response.headers["access-control-allow-headers"]
    assert "authorization" in allowed
    assert "content-type" in allowed


@pytest.mark.usefixtures("chart")
@pytest.mark.requirement(INFERNO, "X14")
async def test_the_record_is_the_boundary_on_every_route(as_patient, as_ehr):
    for path in (
        "/fhir/Observation?_id=bens",
        "/fhir/Observation?patient=ben",
        "/fhir/Observation?subject=Patient/ben",
        "/fhir/Patient?_id=ben&_revinclude=Observation:patient",
    ):
        assert ids((await as_patient.get(path)).json()) == []
    for path in ("Observation/bens", "Observation/bens/_history", "Observation/bens/_history/1"):
        assert_outcome(await as_patient.get(f"/fhir/{path}"), 404, "not-found")
    following = link((await as_ehr.get("/fhir/Observation?_count=1")).json(), "next")
    while following:
        bundle = (await as_patient.get(following)).json()
        assert "Observation/bens" not in ids(bundle)
        following = link(bundle, "next")


@pytest.mark.requirement(INFERNO, "X15")
async def test_an_expired_token_is_401_not_403(fhir: FhirWorld):
    fhir.clock.advance(4000)
    async with fhir.client(ANNA) as client:
        assert_outcome(await client.get("/fhir/Patient/anna"), 401, "login")
