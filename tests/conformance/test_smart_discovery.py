"""Discovery as Inferno's SMART App Launch kits read it (checklist S1 to S12)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.whole import INFERNO as ORIGIN
from tests.conformance.whole import Whole

INFERNO = "inferno"
RESOURCE_SCOPE = re.compile(
    r"(patient|user|system)/(\*|[A-Z][A-Za-z]+)\.(?=[cruds])c?r?u?d?s?(\?\S+=\S+)?"
)
STANDALONE_PATIENT_APP = (
    "launch-standalone client-public client-confidential-symmetric client-confidential-asymmetric "
    "sso-openid-connect context-standalone-patient permission-offline permission-patient "
    "authorize-post permission-v2 permission-v1"
)
EHR_PRACTITIONER_APP = (
    "launch-ehr client-confidential-symmetric client-confidential-asymmetric sso-openid-connect "
    "context-banner context-style context-ehr-patient context-ehr-encounter permission-offline "
    "permission-user authorize-post permission-v2 permission-v1"
)


async def discovered(whole: Whole) -> dict[str, Any]:
    async with whole.http(headers={"Accept": "application/json"}) as http:
        response = await http.get("/fhir/.well-known/smart-configuration")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.requirement(INFERNO, "S1")
async def test_it_is_json_for_everybody(whole: Whole) -> None:
    assert isinstance(await discovered(whole), dict)


@pytest.mark.requirement(INFERNO, "S2")
@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("authorization_endpoint", str),
        ("token_endpoint", str),
        ("capabilities", list),
        ("grant_types_supported", list),
        ("code_challenge_methods_supported", list),
    ],
)
async def test_what_is_required_is_there(whole: Whole, key: str, kind: type) -> None:
    value = (await discovered(whole))[key]
    assert isinstance(value, kind)
    assert value


@pytest.mark.requirement(INFERNO, "S3")
async def test_grant_types_are_named(whole: Whole) -> None:
    grants = (await discovered(whole))["grant_types_supported"]
    assert {"authorization_code", "client_credentials"} <= set(grants)


@pytest.mark.requirement(INFERNO, "S4")
async def test_challenges_are_s256_and_never_plain(whole: Whole) -> None:
    methods = (await discovered(whole))["code_challenge_methods_supported"]
    assert "S256" in methods
    assert "plain" not in methods


@pytest.mark.requirement(INFERNO, "S5")
async def test_who_offers_openid_connect_names_issuer_and_keys(whole: Whole) -> None:
    found = await discovered(whole)
    assert "sso-openid-connect" in found["capabilities"]
    assert found["issuer"] == whole.base
    assert found["jwks_uri"].startswith(f"{whole.base}/")


@pytest.mark.requirement(INFERNO, "S6")
async def test_capabilities_are_words(whole: Whole) -> None:
    assert {type(one) for one in (await discovered(whole))["capabilities"]} == {str}


@pytest.mark.requirement(INFERNO, "S7")
async def test_endpoints_are_absolute_addresses(whole: Whole) -> None:
    found = await discovered(whole)
    for name in ("introspection", "revocation", "registration"):
        parts = urlsplit(found[f"{name}_endpoint"])
        assert (parts.scheme, parts.netloc) == ("https", "portal.example"), name
    for name in (one for one in found if one.endswith("_endpoint")):
        assert urlsplit(found[name]).netloc, name


@pytest.mark.requirement(INFERNO, "S8")
async def test_scopes_of_version_2_are_listed(whole: Whole) -> None:
    found = await discovered(whole)
    assert isinstance(found["introspection_endpoint"], str)
    scopes = found["scopes_supported"]
    assert isinstance(scopes, list)
    assert [one for one in scopes if RESOURCE_SCOPE.fullmatch(one)]
    assert {"openid", "fhirUser", "launch/patient", "offline_access"} <= set(scopes)


@pytest.mark.requirement(INFERNO, "S9")
async def test_what_a_standalone_patient_app_needs_is_claimed(whole: Whole) -> None:
    claimed = (await discovered(whole))["capabilities"]
    assert set(STANDALONE_PATIENT_APP.split()) <= set(claimed)
    assert len(claimed) == len(set(claimed))


@pytest.mark.requirement(INFERNO, "S10")
async def test_what_an_ehr_practitioner_app_needs_is_claimed(whole: Whole) -> None:
    claimed = (await discovered(whole))["capabilities"]
    assert set(EHR_PRACTITIONER_APP.split()) <= set(claimed)


@pytest.mark.requirement(INFERNO, "S11")
async def test_how_backends_authenticate_is_said(whole: Whole) -> None:
    found = await discovered(whole)
    assert "private_key_jwt" in found["token_endpoint_auth_methods_supported"]
    algorithms = found["token_endpoint_auth_signing_alg_values_supported"]
    assert {"RS384", "ES384"} <= set(algorithms)
    assert isinstance(found["scopes_supported"], list)


@pytest.mark.requirement(INFERNO, "S12")
@pytest.mark.parametrize("path", ["/fhir/.well-known/smart-configuration", "/fhir/metadata"])
async def test_every_origin_may_read_discovery(whole: Whole, path: str) -> None:
    async with whole.http(headers={"Origin": ORIGIN}) as http:
        response = await http.get(path)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}
