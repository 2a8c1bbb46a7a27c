"""A backend client made of Authlib and joserfc: it authenticates by key, writes, and follows."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from authlib.integrations.base_client import OAuthError
from joserfc.jwk import ECKey, RSAKey

from tests.end_to_end.demo import EHR, AsyncOAuth2Client, Demo, FiveMinutes, ids
from tests.end_to_end.running import an_observation


def a_key(alg: str) -> ECKey | RSAKey:
    parameters: Any = {"alg": alg, "use": "sig", "kid": f"{alg}-key"}
    if alg == "ES384":
        return ECKey.generate_key("P-384", parameters)
    return RSAKey.generate_key(2048, parameters)


def registered(demo: Demo, folder: Path, alg: str) -> tuple[str, dict[str, Any]]:
    """Register an EHR as an operator does, by command; return its id and private key."""
    key = a_key(alg)
    client_id = f"ehr-{alg.lower()}-{time.monotonic_ns()}"
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    demo.command(
        *("client", "add", f"EHR by {alg}", "--client-id", client_id, "--type", "backend"),
        *("--practice", "marrowbrook", "--scope", "system/*.cruds", "--jwks", str(file)),
    )
    return client_id, dict(key.as_dict(private=True))


def a_visit(tag: str) -> dict[str, Any]:
    """A transaction of two resources that refer to each other."""
    encounter = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": {"reference": "Patient/teodor"},
        "identifier": [{"system": "urn:example:visits", "value": tag}],
    }
    observation = {
        **an_observation(61, "teodor"),
        "encounter": {"reference": "urn:uuid:5f0c1d6e-9a3f-4b7e-8c2a-d1e0f9b8a7c6"},
    }
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": "urn:uuid:5f0c1d6e-9a3f-4b7e-8c2a-d1e0f9b8a7c6",
                "resource": encounter,
                "request": {"method": "POST", "url": "Encounter"},
            },
            {"resource": observation, "request": {"method": "POST", "url": "Observation"}},
        ],
    }


async def followed(ehr: AsyncOAuth2Client, fhir: str, since: str) -> list[dict[str, Any]]:
    """Every version in the feed from an instant on."""
    entries = []
    following: str | None = f"{fhir}/_history?_since={since}&_count=5"
    while following:
        answer = await ehr.get(following)
        assert answer.status_code == 200, answer.text
        bundle = answer.json()
        entries += bundle["entry"]
        following = next((one["url"] for one in bundle["link"] if one["relation"] == "next"), None)
    return entries


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
async def test_an_ehr_writes_a_transaction_and_follows_the_feed(
    demo: Demo, tmp_path: Path, alg: str
) -> None:
    client_id, jwk = registered(demo, tmp_path, alg)
    since = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    async with demo.ehr(client_id, jwk, alg) as ehr:
        assert ehr.token["scope"] == "system/*.cruds"
        assert "refresh_token" not in ehr.token
        answer = await ehr.post(
            demo.fhir, json=a_visit(alg), headers={"Content-Type": "application/fhir+json"}
        )
        assert answer.status_code == 200, answer.text
        encounter, observation = (
            entry["response"]["location"].partition("/_history/")[0].removeprefix(f"{demo.fhir}/")
            for entry in answer.json()["entry"]
        )
        read = await ehr.get(f"{demo.fhir}/{observation}")
        assert read.json()["encounter"]["reference"] == encounter
        feed = await followed(ehr, demo.fhir, since)
        assert {encounter, observation} <= ids([entry["resource"] for entry in feed])

        gone = await ehr.delete(f"{demo.fhir}/{observation}")
        assert gone.status_code in (200, 204)
        newest, *_ = await followed(ehr, demo.fhir, since)
        assert newest["request"] == {"method": "DELETE", "url": observation}


async def test_an_ehr_reads_its_own_practice_only(demo: Demo) -> None:
    async with demo.ehr("quillfern-ehr") as ehr:
        assert (await ehr.get(f"{demo.fhir}/Patient/teodor-q")).status_code == 200
        assert (await ehr.get(f"{demo.fhir}/Patient/teodor")).status_code == 404


async def test_an_assertion_is_used_once(demo: Demo) -> None:
    endpoint = (await demo.discovered())["token_endpoint"]
    async with demo.ehr() as ehr:
        method = FiveMinutes(endpoint, alg="ES384", key=ehr.client_secret)
        assertion = method.sign(ehr, endpoint)
        form = {
            "grant_type": "client_credentials",
            "scope": "system/*.rs",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }
    async with httpx.AsyncClient() as http:
        answers = [await http.post(endpoint, data=form) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 401]
    assert answers[1].json()["error"] == "invalid_client"


async def test_a_key_that_is_not_registered_is_refused(demo: Demo) -> None:
    stranger = dict(a_key("ES384").as_dict(private=True)) | {
        "kid": demo.client(EHR)["private_jwk"].get("kid", "ES384-key")
    }
    with pytest.raises(OAuthError) as refused:
        async with demo.ehr(EHR, stranger):
            pass
    assert refused.value.error == "invalid_client"
