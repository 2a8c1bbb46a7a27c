"""``metadata`` and ``smart-configuration``: every claim is tried.

Source: FHIR R4 §2.40 (CapabilityStatement), §3.1.0.10; SMART App Launch 2.2 §7.
"""

from __future__ import annotations

import fhirkit
import pytest

from fhir_portal.fhir.definitions import served_types
from fhir_portal.resources import catalog
from fhir_portal.search.request import MAX_INCLUDES
from tests.web import fhir_world
from tests.web.fhir_world import BASE, ORIGIN, FhirWorld, assert_outcome, observation, patient

VALUES = {
    "token": "x",
    "string": "x",
    "reference": "x",
    "date": "2020",
    "number": "1",
    "quantity": "1",
    "uri": "http://x.example",
}


@pytest.fixture
async def statement(as_anyone):
    response = await as_anyone.get("/fhir/metadata")
    assert response.status_code == 200
    return response.json()


async def test_the_capability_statement_is_valid_and_public(as_anyone):
    response = await as_anyone.get("/fhir/metadata")
    assert response.headers["content-type"] == "application/fhir+json; charset=utf-8"
    issues = fhirkit.validate(response.content)
    assert not [str(issue) for issue in issues if issue.severity == "error"]


async def test_it_names_release_formats_and_every_served_type(statement):
    assert statement["fhirVersion"] == "4.0.1"
    assert statement["kind"] == "instance"
    assert statement["implementation"]["url"] == BASE
    assert "application/fhir+json" in statement["format"]
    (rest,) = statement["rest"]
    assert tuple(row["type"] for row in rest["resource"]) == served_types()
    assert len(rest["resource"]) == 128
    assert {row["code"] for row in rest["interaction"]} == {
        "batch",
        "transaction",
        "history-system",
    }


async def test_it_carries_the_smart_oauth_uris(statement):
    (extension,) = statement["rest"][0]["security"]["extension"]
    assert extension["url"].endswith("/StructureDefinition/oauth-uris")
    uris = {row["url"]: row["valueUri"] for row in extension["extension"]}
    assert uris["authorize"] == f"{ORIGIN}/oauth/authorize"
    assert uris["token"] == f"{ORIGIN}/oauth/token"


async def test_every_search_parameter_it_lists_answers_on_every_type(fhir: FhirWorld, statement):
    ehr = await fhir.ehr()
    for row in statement["rest"][0]["resource"]:
        pairs = [(one["name"], VALUES[one["type"]]) for one in row["searchParam"]]
        assert {"_id", "_lastUpdated"} <= dict(pairs).keys()
        for pair in pairs:
            response = await fhir.perform(ehr, "search-type", row["type"], query=[pair])
            assert response.status == 200, (row["type"], pair)


async def test_every_include_it_lists_answers(fhir: FhirWorld, statement, as_ehr):
    await as_ehr.put("/fhir/Observation/o", json=observation("o"))
    ehr = await fhir.ehr()
    for row in statement["rest"][0]["resource"]:
        for name, member in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
            pairs = [(name, one) for one in row.get(member, ())]
            for start in range(0, len(pairs), MAX_INCLUDES):
                some = pairs[start : start + MAX_INCLUDES]
                response = await fhir.perform(
                    ehr, "search-type", row["type"], query=[*some, ("_count", "1")]
                )
                assert response.status == 200, (row["type"], name)


async def test_every_interaction_it_lists_is_there_and_no_other(fhir: FhirWorld, statement):
    """Nothing is stored for most types, so what is offered answers 400 or 404, not 405."""
    methods = {
        "read": ("GET", "/{}/x"),
        "vread": ("GET", "/{}/x/_history/1"),
        "update": ("PUT", "/{}/x"),
        "delete": ("DELETE", "/{}/x"),
        "create": ("POST", "/{}"),
        "search-type": ("GET", "/{}"),
        "history-instance": ("GET", "/{}/x/_history"),
    }
    for row in statement["rest"][0]["resource"]:
        offered = {one["code"] for one in row["interaction"]}
        assert {"read", "search-type"} <= offered <= methods.keys()
        for code, (method, path) in methods.items():
            answer = await fhir.raw(
                method,
                "/fhir" + path.format(row["type"]),
                headers=[("Content-Type", "application/fhir+json")],
                body=[b"{}"],
            )
            assert (answer.status_code != 405) == (code in offered), (row["type"], code)
            assert answer.status_code in {200, 400, 404, 405}


async def test_types_that_are_not_listed_are_not_served(as_ehr, statement):
    listed = {row["type"] for row in statement["rest"][0]["resource"]}
    assert "MedicinalProduct" not in listed
    assert_outcome(await as_ehr.get("/fhir/MedicinalProduct/x"), 404, "not-supported")


async def test_what_it_says_of_conditions_and_versions_holds(as_ehr, statement):
    row = next(r for r in statement["rest"][0]["resource"] if r["type"] == "Patient")
    assert row["versioning"] == "versioned"
    assert row["conditionalCreate"] is True
    assert row["conditionalRead"] == "full-support"
    assert row["updateCreate"] is True
    assert row["readHistory"] is True
    assert "conditionalUpdate" not in row
    assert "conditionalDelete" not in row
    created = await as_ehr.put("/fhir/Patient/new", json=patient("new"))
    assert created.status_code == 201


async def test_smart_configuration_stands_beside_it(as_anyone):
    response = await as_anyone.get("/fhir/.well-known/smart-configuration")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    configuration = response.json()
    assert configuration["token_endpoint"] == f"{ORIGIN}/oauth/token"
    assert "S256" in configuration["code_challenge_methods_supported"]


async def test_public_documents_are_made_once(as_anyone, monkeypatch):
    """They never change while the server runs: a request only copies their bytes."""
    first = await as_anyone.get("/fhir/metadata")
    monkeypatch.setattr(catalog, "capability_statement", None)
    monkeypatch.setattr(fhir_world, "capabilities", None)
    assert (await as_anyone.get("/fhir/metadata")).content == first.content


@pytest.mark.requirement("portal", "S2-06")
async def test_it_says_where_it_is_told_what_each_practice_offers(as_anyone):
    (rest,) = (await as_anyone.get("/fhir/metadata")).json()["rest"]
    (extension,) = rest["extension"]
    assert extension["url"].endswith("/StructureDefinition/portal-features")
    assert extension["valueUrl"].endswith("/brands")
