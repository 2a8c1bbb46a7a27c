"""A backend client made of Authlib and joserfc: it authenticates by key, writes, and follows."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from authlib.integrations.base_client import OAuthError
from joserfc.jwk import ECKey, RSAKey

from tests.end_to_end.demo import EHR, AsyncOAuth2Client, Demo, FiveMinutes, ids
from tests.end_to_end.running import an_observation


def a_key(alg: str, kid: str = "") -> ECKey | RSAKey:
    parameters: Any = {"alg": alg, "use": "sig", "kid": kid or f"{alg}-key"}
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


@dataclass
class KeySetHost:
    """Where a client keeps its JWK Set: an address on this machine that counts who asks."""

    keys: list[ECKey | RSAKey]
    cache_control: str
    asked: int = 0
    address: str = ""

    @contextlib.contextmanager
    def served(self) -> Iterator[Self]:
        """Answer at ``address``."""
        host = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked += 1
                keys = [key.as_dict(private=False) for key in host.keys]
                body = json.dumps({"keys": keys}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", host.cache_control)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            self.address = f"http://127.0.0.1:{server.server_port}/jwks.json"
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


def with_keys_at(demo: Demo, host: KeySetHost) -> str:
    """Register an EHR that keeps its keys at an address; return its id."""
    client_id = f"ehr-{time.monotonic_ns()}"
    demo.command(
        *("client", "add", "EHR with an address", "--client-id", client_id, "--type", "backend"),
        *("--practice", "marrowbrook", "--scope", "system/*.cruds", "--jwks-uri", host.address),
    )
    return client_id


async def lets_in(demo: Demo, client_id: str, key: ECKey | RSAKey, alg: str) -> bool:
    """Whether the client gets a token with this key, and reads with it."""
    try:
        async with demo.ehr(client_id, dict(key.as_dict(private=True)), alg) as ehr:
            read = await ehr.get(f"{demo.fhir}/Patient/teodor")
    except OAuthError as refused:
        if refused.error != "invalid_client":
            raise
        return False
    return bool(read.status_code == 200)


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
async def test_an_ehr_changes_its_keys_at_their_address(development: Demo, alg: str) -> None:
    """Each worker obeys the cache header: what is not to be kept is read for every assertion."""
    old, new = a_key(alg, "old"), a_key(alg, "new")
    with KeySetHost([old], "no-store").served() as host:
        client_id = with_keys_at(development, host)
        for published, old_one, new_one in (
            ([old], True, False),
            ([old, new], True, True),
            ([new], False, True),
        ):
            host.keys = published
            for _ in range(4):  # whichever worker answers
                assert await lets_in(development, client_id, old, alg) is old_one
                assert await lets_in(development, client_id, new, alg) is new_one


async def test_keys_that_may_be_kept_are_read_once_by_each_worker(development: Demo) -> None:
    key = a_key("ES384")
    with KeySetHost([key], "max-age=3600").served() as host:
        client_id = with_keys_at(development, host)
        for _ in range(6):
            assert await lets_in(development, client_id, key, "ES384")
        assert 1 <= host.asked <= development.workers
    assert await lets_in(development, client_id, key, "ES384")  # its host is down


async def test_keys_on_this_machine_are_for_development_only(demo: Demo) -> None:
    with (
        KeySetHost([a_key("ES384")], "no-store").served() as host,
        pytest.raises(AssertionError, match="https"),
    ):
        with_keys_at(demo, host)
    assert host.asked == 0
