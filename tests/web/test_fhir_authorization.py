"""The Authorization header at ``/fhir``. Source: RFC 6750 §2, §3; FHIR R4 §6.1.0."""

from __future__ import annotations

import msgspec
import pytest

from fhir_portal.smart.client import Client
from fhir_portal.smart.token import AccessToken, token_hash
from tests.web.fhir_world import ANNA, EHR, START, FhirWorld, assert_outcome, entry, transaction

OR_DPOP = 'DPoP algs="ES256 ES384 PS256 PS384 RS256 RS384 Ed25519"'


async def test_without_a_token_the_answer_is_401_and_names_the_scheme(as_anyone):
    response = await as_anyone.get("/fhir/Patient/anna")
    assert_outcome(response, 401, "login")
    assert response.headers["www-authenticate"] == f'Bearer realm="fhir", {OR_DPOP}'


@pytest.mark.parametrize(
    "header",
    [
        "Basic ZWhyOnNlY3JldA==",
        f"Token {EHR}",
        "Bearer",
        "Bearer ",
        EHR,
        "",
    ],
)
async def test_what_is_no_bearer_token_is_401_without_an_error_code(fhir: FhirWorld, header):
    """RFC 6750 §3.1: no error code when no token of this kind came."""
    response = await fhir.raw(
        "GET", "/fhir/Patient/anna", headers=[("Authorization", header)], token=None
    )
    assert_outcome(response, 401, "login")
    assert response.headers["www-authenticate"] == f'Bearer realm="fhir", {OR_DPOP}'


@pytest.mark.parametrize(
    "token",
    ["unknown-token-of-nobody", "short", "a" * 10_000, f"{EHR} {EHR}", "töken-of-nobody-at-all"],
)
async def test_a_token_nobody_has_is_an_invalid_token(fhir: FhirWorld, token):
    response = await fhir.raw(
        "GET",
        "/fhir/Patient/anna",
        headers=[("Authorization", f"Bearer {token}".encode())],
        token=None,
    )
    assert_outcome(response, 401, "login")
    assert response.headers["www-authenticate"] == (
        f'Bearer realm="fhir", error="invalid_token", {OR_DPOP}'
    )


async def test_the_scheme_is_read_in_any_case(fhir: FhirWorld):
    for scheme in ("bearer", "BEARER"):
        response = await fhir.raw(
            "GET", "/fhir/Patient/anna", headers=[("Authorization", f"{scheme} {EHR}")], token=None
        )
        assert response.status_code == 200


async def test_two_authorization_headers_are_refused(fhir: FhirWorld):
    response = await fhir.raw(
        "GET", "/fhir/Patient/anna", headers=[("Authorization", f"Bearer {ANNA}")], token=EHR
    )
    assert_outcome(response, 400, "invalid")


async def test_an_expired_token_is_401(fhir: FhirWorld, as_patient):
    assert (await as_patient.get("/fhir/Patient/anna")).status_code == 200
    fhir.clock.advance(3600)
    response = await as_patient.get("/fhir/Patient/anna")
    assert_outcome(response, 401, "login")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


async def test_a_revoked_token_is_401_on_the_next_request(fhir: FhirWorld, as_patient):
    assert (await as_patient.get("/fhir/Patient/anna")).status_code == 200

    async def revoke(change):
        await change.delete(AccessToken, token_hash(ANNA))

    await fhir.store.transact(revoke)
    assert_outcome(await as_patient.get("/fhir/Patient/anna"), 401, "login")


async def test_a_disabled_client_is_401_on_the_next_request(fhir: FhirWorld, as_ehr):
    assert (await as_ehr.get("/fhir/Patient/anna")).status_code == 200

    async def disable(change):
        client = await change.get(Client, "ehr")
        await change.put(msgspec.structs.replace(client, disabled=True))

    await fhir.store.transact(disable)
    assert_outcome(await as_ehr.get("/fhir/Patient/anna"), 401, "login")


async def test_a_scope_that_is_missing_is_403_and_says_so(fhir: FhirWorld):
    await fhir.insert(_token("token-for-patients-only", "system/Patient.r"))
    async with fhir.client("token-for-patients-only") as client:
        assert (await client.get("/fhir/Patient/anna")).status_code == 200
        for refused in (
            await client.get("/fhir/Patient?name=adler"),
            await client.get("/fhir/Observation/x"),
            await client.delete("/fhir/Patient/anna"),
            await client.put("/fhir/Patient/anna", json={"resourceType": "Patient", "id": "anna"}),
            await client.post("/fhir/Patient", json={"resourceType": "Patient"}),
            await client.get("/fhir/_history"),
        ):
            assert_outcome(refused, 403, "forbidden")
            assert refused.headers["www-authenticate"] == (
                'Bearer realm="fhir", error="insufficient_scope"'
            )
        assert (await client.get("/fhir/Patient/anna/_history")).json()["total"] == 1


async def test_a_missing_scope_is_403_inside_batch_and_transaction_too(fhir: FhirWorld):
    await fhir.insert(_token("token-for-patients-only", "system/Patient.r"))
    entries = (entry("GET", "Patient/anna"), entry("DELETE", "Patient/anna"))
    before = fhir.rows()
    async with fhir.client("token-for-patients-only") as client:
        batch = await client.post("/fhir", json=transaction(*entries, kind="batch"))
        assert [e["response"]["status"] for e in batch.json()["entry"]] == [
            "200 OK",
            "403 Forbidden",
        ]
        refused = await client.post("/fhir", json=transaction(*entries))
        assert_outcome(refused, 403, "forbidden", "Bundle.entry[1]")
    assert fhir.rows() == before


async def test_cookies_open_nothing(as_anyone):
    for name in ("session", "access_token", "Authorization"):
        response = await as_anyone.get("/fhir/Patient/anna", headers={"Cookie": f"{name}={EHR}"})
        assert_outcome(response, 401, "login")
        assert "set-cookie" not in response.headers


async def test_a_token_in_the_query_opens_nothing(as_anyone):
    response = await as_anyone.get(f"/fhir/Patient/anna?access_token={EHR}")
    assert_outcome(response, 401, "login")
    assert EHR not in response.text


async def test_a_token_in_the_form_of_a_search_opens_nothing(as_anyone):
    response = await as_anyone.post("/fhir/Patient/_search", data={"access_token": EHR})
    assert_outcome(response, 401, "login")


async def test_a_token_in_the_query_beside_the_header_is_refused_and_never_logged(
    fhir: FhirWorld, as_ehr
):
    secret = "secret-of-somebody-else"
    assert_outcome(await as_ehr.get(f"/fhir/Patient?access_token={secret}"), 400, "invalid")
    lenient = await as_ehr.get(
        f"/fhir/Patient?access_token={secret}", headers={"Prefer": "handling=lenient"}
    )
    assert lenient.status_code == 200
    assert secret not in lenient.text
    rows = await fhir.store.log.of_record(
        "derm", None, agent=None, told=False, low=0, high=2**60, before=None, limit=100
    )
    assert rows
    assert not [row for row in rows if secret in row.row.detail]


async def test_unknown_addresses_need_a_token_as_well(as_anyone):
    for path in ("/fhir", "/fhir/Nothing", "/fhir/Patient/../x", "/fhir/_history", "/fhir/$export"):
        assert_outcome(await as_anyone.get(path), 401, "login")


def _token(text: str, scope: str) -> AccessToken:
    return AccessToken(
        key=token_hash(text),
        expires=START + 600,
        issued=START,
        client_id="ehr",
        context="system",
        scope=scope,
        practice="derm",
    )
