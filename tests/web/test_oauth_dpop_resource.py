"""Tokens bound to a key, at the FHIR API, RFC 9449 §7.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import msgspec
import pytest

from fhir_portal.fhir.errors import Forbidden, Unauthenticated
from fhir_portal.smart.dpop import ALGORITHMS, NONCE_SECONDS, UsedProof, nonces_at
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.token import AccessToken, token_hash
from fhir_portal.web.errors import refusal
from tests.smart.proofs import Holder
from tests.smart.world import signing_key
from tests.web.fhir_world import ANNA, BASE, BEN, EHR, FhirWorld

PATIENT = f"{BASE}/Patient/anna"


@pytest.fixture
def holder(fhir: FhirWorld) -> Holder:
    return Holder(fhir)


@pytest.fixture
async def bound(fhir: FhirWorld, holder: Holder) -> str:
    """Anna's token, bound to the holder's key."""
    await bind(fhir, ANNA, holder)
    return ANNA


async def bind(fhir: FhirWorld, token: str, holder: Holder) -> None:
    found = await fhir.store.get(AccessToken, token_hash(token))
    assert found is not None
    changed = msgspec.structs.replace(found, jkt=holder.jkt)

    async def put(transaction: Any) -> None:
        await transaction.put(changed)

    await fhir.store.transact(put)


async def ask(
    fhir: FhirWorld, headers: dict[str, str], method: str = "GET", url: str = PATIENT, **more: Any
) -> httpx.Response:
    async with fhir.client(None) as http:
        return await http.request(method, url, headers=headers, **more)


def assert_challenged(response: httpx.Response, error: str) -> None:
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith('DPoP algs="ES256 ')
    assert f'error="{error}"' in challenge
    assert response.json()["resourceType"] == "OperationOutcome"


async def test_a_bound_token_is_used_with_a_proof(
    fhir: FhirWorld, holder: Holder, bound: str
) -> None:
    response = await ask(fhir, holder.headers("GET", PATIENT, bound))
    assert response.status_code == 200
    assert response.json()["id"] == "anna"


@pytest.mark.parametrize(
    "scheme", ["Bearer", "bearer", "BEARER"], ids=["usual", "lower case", "upper case"]
)
async def test_a_bound_token_is_no_bearer_token(
    fhir: FhirWorld, holder: Holder, bound: str, scheme: str
) -> None:
    """Whoever stole it has no key. Planted fault: a bound token is taken as Bearer."""
    alone = await ask(fhir, {"Authorization": f"{scheme} {bound}"})
    assert_challenged(alone, "invalid_token")
    with_proof = {**holder.headers("GET", PATIENT, bound), "Authorization": f"{scheme} {bound}"}
    assert_challenged(await ask(fhir, with_proof), "invalid_token")


async def test_a_bearer_token_is_no_bound_token(fhir: FhirWorld, holder: Holder) -> None:
    """Planted fault: the token's own key is not looked at when a proof is shown."""
    response = await ask(fhir, holder.headers("GET", PATIENT, ANNA))
    assert_challenged(response, "invalid_token")


async def test_another_key_is_not_its_key(fhir: FhirWorld, bound: str) -> None:
    """A thief makes a proof of their own. Planted fault: the two keys are not compared."""
    response = await ask(fhir, Holder(fhir).headers("GET", PATIENT, bound))
    assert_challenged(response, "invalid_token")
    assert await fhir.store.every(UsedProof) == []


@pytest.mark.parametrize(
    "change",
    [
        {"htm": "POST"},
        {"htu": f"{BASE}/Patient/ben"},
        {"htu": "https://evil.example/fhir/Patient/anna"},
        {"iat": 1},
        {"ath": None},
        {"ath": "x" * 43},
        {"jti": None},
        {"header": {"typ": "JWT"}},
    ],
)
async def test_a_bad_proof_is_told_to_be_one(
    fhir: FhirWorld, holder: Holder, bound: str, change: dict[str, Any]
) -> None:
    headers = holder.headers("GET", PATIENT, bound, **change)
    assert_challenged(await ask(fhir, headers), "invalid_dpop_proof")


async def test_a_missing_proof_is_told_to_be_missing(fhir: FhirWorld, bound: str) -> None:
    response = await ask(fhir, {"Authorization": f"DPoP {bound}"})
    assert_challenged(response, "invalid_dpop_proof")
    assert "send a proof" in response.text


async def test_two_proofs_are_refused(fhir: FhirWorld, holder: Holder, bound: str) -> None:
    """Header pollution. Planted fault: repeated proofs are joined and the first part read."""
    headers = [*holder.headers("GET", PATIENT, bound).items(), ("DPoP", "x")]
    async with fhir.client(None) as http:
        response = await http.get(PATIENT, headers=headers)
    assert response.status_code == 400


async def test_a_proof_is_good_once(fhir: FhirWorld, holder: Holder, bound: str) -> None:
    """Replay, also at another worker. Planted fault: used proofs are not stored."""
    headers = holder.headers("GET", PATIENT, bound)
    assert (await ask(fhir, headers)).status_code == 200
    assert_challenged(await ask(fhir, headers), "invalid_dpop_proof")
    assert (await ask(fhir, holder.headers("GET", PATIENT, bound))).status_code == 200


async def test_of_fifty_uses_of_one_proof_one_succeeds(
    fhir: FhirWorld, holder: Holder, bound: str
) -> None:
    """Planted fault: used proofs are looked for before, and stored after."""
    headers = holder.headers("GET", PATIENT, bound)
    answers = await asyncio.gather(*(ask(fhir, headers) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 49}


async def test_a_proof_for_one_token_is_none_for_another(
    fhir: FhirWorld, holder: Holder, bound: str
) -> None:
    """Planted fault: ``ath`` is not asked for here."""
    await bind(fhir, BEN, holder)
    proof = holder.headers("GET", PATIENT, BEN)["DPoP"]
    response = await ask(fhir, {"Authorization": f"DPoP {bound}", "DPoP": proof})
    assert_challenged(response, "invalid_dpop_proof")


@pytest.mark.parametrize(
    ("method", "url", "htu"),
    [
        ("GET", f"{BASE}/Patient/anna?_pretty=true", PATIENT),
        ("GET", f"{BASE}/Patient/%61nna", PATIENT),
        ("GET", PATIENT, "http://localhost:8000/fhir/Patient/anna"),
        ("GET", f"{BASE}/Patient?_id=anna", f"{BASE}/Patient"),
        ("HEAD", PATIENT, PATIENT),
    ],
)
async def test_the_address_is_compared_as_addresses_are(
    fhir: FhirWorld, holder: Holder, bound: str, method: str, url: str, htu: str
) -> None:
    response = await ask(fhir, holder.headers(method, htu, bound), method, url)
    assert response.status_code == 200


async def test_a_proof_to_read_does_not_write(fhir: FhirWorld, holder: Holder) -> None:
    """Planted fault: ``htm`` is not looked at."""
    await bind(fhir, EHR, holder)
    body = {"resourceType": "Patient", "id": "anna"}
    reading = holder.headers("GET", PATIENT, EHR)
    refused = await ask(fhir, reading, "PUT", json=body)
    assert_challenged(refused, "invalid_dpop_proof")
    writing = holder.headers("PUT", PATIENT, EHR)
    assert (await ask(fhir, writing, "PUT", json=body)).status_code == 200


async def test_an_unknown_token_with_a_proof_is_unknown(fhir: FhirWorld, holder: Holder) -> None:
    """A stranger could fill the store. Planted fault: a proof is stored before that is known."""
    token = "nobodys-token-at-all-xxxx"
    response = await ask(fhir, holder.headers("GET", PATIENT, token))
    assert_challenged(response, "invalid_token")
    assert await fhir.store.every(UsedProof) == []


async def test_a_token_that_ends_while_its_proof_waits_is_refused(
    fhir: FhirWorld, holder: Holder, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: the token is not looked at again when its proof is stored."""
    transact = fhir.store.transact

    async def slow(work: Any) -> Any:
        async def revoke(transaction: Any) -> None:
            await transaction.delete(AccessToken, token_hash(bound))

        await transact(revoke)
        return await transact(work)

    headers = holder.headers("GET", PATIENT, bound)
    monkeypatch.setattr(fhir.store, "transact", slow)
    response = await ask(fhir, headers)
    assert response.status_code == 401


async def test_where_a_nonce_is_asked_for_the_answer_names_it(
    fhir: FhirWorld, holder: Holder, bound: str
) -> None:
    """RFC 9449 §9. Planted fault: the nonce is not asked for at the API."""
    keys = ServerKeys(b"s" * 32, signing_key())
    fhir.portal.callers.nonces = lambda now: nonces_at(keys, now)
    first = await ask(fhir, holder.headers("GET", PATIENT, bound))
    assert_challenged(first, "use_dpop_nonce")
    nonce = first.headers["dpop-nonce"]
    good = await ask(fhir, holder.headers("GET", PATIENT, bound, nonce=nonce))
    assert good.status_code == 200
    fhir.clock.advance(2 * NONCE_SECONDS)
    old = await ask(fhir, holder.headers("GET", PATIENT, bound, nonce=nonce))
    assert_challenged(old, "use_dpop_nonce")
    assert old.headers["dpop-nonce"] != nonce


BEARER = 'Bearer realm="fhir"'
DPOP = f'DPoP algs="{" ".join(ALGORITHMS)}"'


async def test_whoever_shows_nothing_is_told_of_every_scheme(fhir: FhirWorld) -> None:
    """RFC 9449 §7.1. Planted fault: only Bearer is offered."""
    response = await ask(fhir, {})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == f"{BEARER}, {DPOP}"


async def test_a_bearer_token_that_is_no_good_is_told_of_the_other_scheme(fhir: FhirWorld) -> None:
    response = await ask(fhir, {"Authorization": "Bearer nobodys-token-at-all-xxxx"})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == f'{BEARER}, error="invalid_token", {DPOP}'


async def test_a_bound_token_without_the_scope_is_told_so_in_its_scheme(
    fhir: FhirWorld, holder: Holder
) -> None:
    """RFC 9449 §7.1. Planted fault: the challenge is of Bearer whatever came."""
    token = "token-for-patients-only"
    await fhir.insert(
        AccessToken(
            key=token_hash(token),
            expires=fhir.clock.now + 3600,
            issued=fhir.clock.now,
            client_id="ehr",
            context="system",
            scope="system/Patient.r",
            practice="derm",
            jkt=holder.jkt,
        )
    )
    url = f"{BASE}/Observation/x"
    response = await ask(fhir, holder.headers("GET", url, token), url=url)
    assert response.status_code == 403
    assert response.headers["www-authenticate"] == f'{DPOP}, error="insufficient_scope"'


def test_where_dpop_is_required_nothing_else_is_offered() -> None:
    """Planted fault: the setting is not looked at."""
    (challenge,) = refusal(Unauthenticated("x"), had_token=False, dpop_required=True)[1]
    assert challenge == (b"www-authenticate", DPOP.encode())
    (challenge,) = refusal(Unauthenticated("x"), had_token=True, dpop_required=True)[1]
    # It may hold a bearer token of before, and must learn that this one is no good.
    assert challenge[1].decode() == f'{BEARER}, error="invalid_token", {DPOP}'
    (challenge,) = refusal(Forbidden("x"), had_token=True, dpop_required=True)[1]
    assert challenge[1].decode() == f'{BEARER}, error="insufficient_scope"'
