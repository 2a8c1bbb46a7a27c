"""OpenID Connect and refresh as Inferno's SMART App Launch kits ask (checklist S31 to S41)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jws, jwt
from joserfc.jwk import KeySet, RSAKey

from tests.conformance.inferno import (
    KINDS,
    STANDALONE,
    Client,
    path_of,
    public,
    resource_scopes,
    symmetric,
)
from tests.conformance.test_smart_standalone_launch import assert_token_response
from tests.conformance.whole import INFERNO as ORIGIN
from tests.conformance.whole import MOTHER, Whole

INFERNO = "inferno"
USER_TYPES = {"Patient", "Practitioner", "RelatedPerson", "Person"}


async def document(whole: Whole, address: str) -> dict[str, Any]:
    async with whole.http(headers={"Accept": "application/json"}) as http:
        response = await http.get(path_of(address))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    found: dict[str, Any] = response.json()
    return found


async def openid_configuration(whole: Whole, issuer: str) -> dict[str, Any]:
    return await document(whole, f"{issuer.removesuffix('/')}/.well-known/openid-configuration")


async def claims_of(whole: Whole, id_token: str) -> dict[str, Any]:
    """The claims, verified with the key that the header names."""
    configuration = await openid_configuration(whole, whole.base)
    keys = KeySet.import_key_set(await document(whole, configuration["jwks_uri"]))  # type: ignore[arg-type] # JSON
    return dict(jwt.decode(id_token, keys, algorithms=["RS256"]).claims)


@pytest.mark.requirement(INFERNO, "S31", "S32")
async def test_the_id_token_is_signed_with_a_published_key(whole: Whole) -> None:
    body = await public(whole).tokens()
    header = jws.extract_compact(body["id_token"].encode()).headers()
    assert header["alg"] == "RS256"
    configuration = await openid_configuration(whole, whole.base)
    published = await document(whole, configuration["jwks_uri"])
    assert header["kid"] in {one["kid"] for one in published["keys"]}
    without = await public(whole).tokens("launch/patient patient/Patient.rs")
    assert "id_token" not in without


@pytest.mark.requirement(INFERNO, "S33")
async def test_the_openid_configuration(whole: Whole) -> None:
    found = await openid_configuration(whole, whole.base)
    assert found["issuer"] == whole.base
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        assert found[name].startswith(f"{whole.base}/")
    assert found["response_types_supported"]
    assert found["subject_types_supported"]
    assert "RS256" in found["id_token_signing_alg_values_supported"]


@pytest.mark.requirement(INFERNO, "S34")
async def test_the_published_keys_can_be_imported(whole: Whole) -> None:
    configuration = await openid_configuration(whole, whole.base)
    keys = (await document(whole, configuration["jwks_uri"]))["keys"]
    rsa = [one for one in keys if one["kty"] == "RSA"]
    assert rsa
    for one in rsa:
        assert not RSAKey.import_key(one).is_private
        assert not one.keys() & {"d", "p", "q", "dp", "dq", "qi"}


@pytest.mark.requirement(INFERNO, "S35")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_claims_of_the_id_token(whole: Whole, kind: Callable[[Whole], Client]) -> None:
    client = kind(whole)
    claims = await claims_of(whole, (await client.tokens())["id_token"])
    assert claims["iss"] == (await openid_configuration(whole, claims["iss"]))["issuer"]
    assert isinstance(claims["sub"], str)
    assert 0 < len(claims["sub"].strip()) < 256
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    assert client.client_id in audience
    assert claims["exp"] > whole.clock() - 60
    assert claims["iat"] <= whole.clock()


@pytest.mark.requirement(INFERNO, "S36", "S37")
@pytest.mark.parametrize(
    ("person", "record", "user"),
    [("anna@example.org", "", "Patient/anna"), (MOTHER, "Patient/kit", "RelatedPerson/mother")],
)
async def test_who_the_person_is_can_be_read(
    whole: Whole, person: str, record: str, user: str
) -> None:
    client = Client(whole, person=person)
    body = await client.tokens(record=record)
    address = (await claims_of(whole, body["id_token"]))["fhirUser"]
    assert address == f"{whole.fhir}/{user}"
    name, own_id = address.split("/")[-2:]
    assert name in USER_TYPES
    response = await client.read(body["access_token"], f"{name}/{own_id}", Origin=ORIGIN)
    assert response.status_code == 200, response.text
    assert (response.json()["resourceType"], response.json()["id"]) == (name, own_id)
    assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}


@pytest.mark.requirement(INFERNO, "S38", "S39", "S40")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_refresh_without_and_with_the_scope_received(
    whole: Whole, kind: Callable[[Whole], Client]
) -> None:
    """The rotated token is the next one's; both answers are whole."""
    client = kind(whole)
    first = await client.tokens()
    second = await client.refresh(first["refresh_token"])
    assert_token_response(second)
    token = second.json().get("refresh_token", first["refresh_token"])
    third = await client.refresh(token, scope=first["scope"])
    assert_token_response(third)
    for again in (second.json(), third.json()):
        assert set(again["scope"].split()) <= set(first["scope"].split())
        assert again["access_token"] != first["access_token"]
        assert again["patient"] == first["patient"]


@pytest.mark.requirement(INFERNO, "S38")
async def test_without_offline_access_there_is_no_refresh_token(whole: Whole) -> None:
    """Ticked off by the person, or never asked for."""
    asked = await public(whole).tokens(tick=lambda box: box != "offline_access")
    assert "offline_access" not in asked["scope"].split()
    never = await public(whole).tokens(STANDALONE.replace("offline_access ", ""))
    for body in (asked, never):
        assert "refresh_token" not in body


@pytest.mark.requirement(INFERNO, "S41", "G6")
async def test_the_new_access_token_reads_the_patient(whole: Whole) -> None:
    client = symmetric(whole)
    body = await client.tokens()
    again = (await client.refresh(body["refresh_token"])).json()
    for token in (body["access_token"], again["access_token"]):
        response = await client.read(token, f"Patient/{body['patient']}")
        assert response.status_code == 200
        assert response.json()["resourceType"] == "Patient"


@pytest.mark.requirement(INFERNO, "S41")
@pytest.mark.parametrize("kind", KINDS)
async def test_any_other_refresh_token_is_refused(
    whole: Whole, kind: Callable[[Whole], Client]
) -> None:
    client = kind(whole)
    await client.tokens()
    response = await client.refresh(str(uuid.uuid4()))
    assert response.status_code in {400, 401}
    assert response.json()["error"] == "invalid_grant"


@pytest.mark.requirement(INFERNO, "S39")
async def test_a_refresh_gives_no_scope_that_was_not_given_before(whole: Whole) -> None:
    client = public(whole)
    body = await client.tokens(tick=lambda box: box != "patient/Observation.rs")
    assert resource_scopes(body["scope"]) == ["patient/Patient.rs"]
    wider = await client.refresh(body["refresh_token"], scope=f"{body['scope']} patient/Goal.rs")
    assert wider.json()["error"] == "invalid_scope"
    same = (await client.refresh(body["refresh_token"])).json()
    assert set(same["scope"].split()) == set(body["scope"].split())
