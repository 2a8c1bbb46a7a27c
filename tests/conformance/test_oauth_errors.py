"""Each error that an OAuth specification names, by its name, where a client meets it.

At an endpoint it is JSON that nobody stores; at the authorization endpoint it goes to the app, or,
while nobody knows where the app is, to a page (`test_stated_by_specifications`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from fhir_portal.smart.loading import Loader
from tests.conformance.inferno import Client, bulk, public, symmetric
from tests.conformance.whole import ANNA, BASE, REDIRECT, Whole
from tests.smart.proofs import Holder
from tests.smart.world import assert_oauth_error

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
DETAILS = json.dumps([{"type": f"{BASE}/oauth/authorization-details/smart-record"}])
REGISTRATION = {"redirect_uris": ["https://new.example/callback"], "client_name": "New"}


def named(specification: str, error: str, *values: Any) -> Any:
    """A row of a table whose error a specification names."""
    return pytest.param(error, *values, marks=pytest.mark.requirement(specification, error))


# --- the authorization endpoint -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        named("RFC 6749", "invalid_request", {"code_challenge": None}),
        named("RFC 6749", "unsupported_response_type", {"response_type": "token"}),
        named("RFC 6749", "invalid_scope", {"scope": "nonsense"}),
        named("RFC 6749", "invalid_scope", {"scope": "system/*.rs"}),
        named("RFC 9101", "request_not_supported", {"request": "e30.e30.x"}),
        named("RFC 9101", "request_uri_not_supported", {"request_uri": "https://app.example/r"}),
        named("RFC 9396", "invalid_authorization_details", {"authorization_details": "[{}]"}),
        named("OpenID Connect", "login_required", {"prompt": "none"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_app_is_told_by_name(
    whole: Whole, method: str, error: str, changes: dict[str, str | None]
) -> None:
    refused = await symmetric(whole).ask(**{"method": method, **changes})  # type: ignore[arg-type]
    answer = refused.answer
    assert answer["error"] == error
    assert answer["state"] == refused.sent["state"]
    assert answer["iss"] == BASE
    assert "code" not in answer


@pytest.mark.requirement("RFC 6749", "access_denied")
async def test_the_app_is_told_of_a_no(whole: Whole) -> None:
    begun = await public(whole).ask()
    await begun.browser.sign_in(ANNA)
    begun.response = await begun.browser.submit({"decision": "deny"})
    assert begun.answer["error"] == "access_denied"
    assert begun.answer["state"] == begun.sent["state"]


@pytest.mark.requirement("OpenID Connect", "consent_required")
async def test_the_app_is_told_that_somebody_has_to_be_asked(whole: Whole) -> None:
    client = public(whole)
    first = await client.launch()
    parameters = {**first.sent, "prompt": "none"}
    response = await first.browser.open("/oauth/authorize", params=parameters)
    assert "error=consent_required" in response.headers["location"]


@pytest.mark.requirement("RFC 9126", "invalid_request_uri")
async def test_a_reference_that_is_over_gets_a_page(whole: Whole) -> None:
    reference = "urn:ietf:params:oauth:request_uri:unknown"
    async with whole.http() as http:
        response = await http.get(
            "/oauth/authorize", params={"client_id": "public-app", "request_uri": reference}
        )
    assert response.status_code == 400
    assert "location" not in response.headers


# --- the token endpoint ---------------------------------------------------------------------------

Ask = Callable[[Whole], Awaitable[httpx.Response]]


def of_backend(**changes: str | None) -> Ask:
    return lambda whole: bulk(whole).backend(**changes)


def of_app(**form: str | None) -> Ask:
    return lambda whole: public(whole).post(form)


async def by_wrong_secret(whole: Whole) -> httpx.Response:
    async with whole.http() as http:
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        return await http.post("/oauth/token", data=form, auth=("web-app", "wrong"))


async def exchange_elsewhere(whole: Whole) -> httpx.Response:
    client = public(whole)
    body = await client.tokens(authorization_details=DETAILS, record="Patient/anna")
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": body["access_token"],
        "subject_token_type": ACCESS_TOKEN,
        "authorization_details": json.dumps(
            [{**json.loads(DETAILS)[0], "identifier": "Patient/anna"}]
        ),
        "resource": "https://elsewhere.example/fhir",
    }
    return await client.post(form)


@pytest.mark.parametrize(
    ("error", "ask"),
    [
        named("RFC 6749", "invalid_request", of_backend(grant_type=None)),
        named("RFC 6749", "invalid_request", of_app(grant_type="authorization_code")),
        named("RFC 6749", "invalid_client", by_wrong_secret),
        named("RFC 6749", "invalid_grant", of_app(grant_type="refresh_token", refresh_token="x")),
        named(
            "RFC 6749",
            "unauthorized_client",
            of_backend(grant_type="authorization_code", code="x", redirect_uri=REDIRECT),
        ),
        named("RFC 6749", "unsupported_grant_type", of_app(grant_type="password")),
        named("RFC 6749", "invalid_scope", of_backend(scope="patient/*.rs")),
        named("RFC 7523", "invalid_client", of_backend(client_assertion="x.y.z")),
        named("RFC 8693", "invalid_target", exchange_elsewhere),
        named(
            "RFC 9396",
            "invalid_authorization_details",
            of_app(grant_type="refresh_token", refresh_token="x", authorization_details="[]"),
        ),
    ],
)
async def test_the_token_endpoint_names_the_error(whole: Whole, error: str, ask: Ask) -> None:
    assert_oauth_error(await ask(whole), error, 401 if error == "invalid_client" else 400)


@pytest.mark.requirement("RFC 6749", "server_error")
async def test_a_fault_of_ours_has_its_name(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("of the inside")

    monkeypatch.setattr(Loader, "clients", broken)
    response = await public(whole).post({"grant_type": "refresh_token", "refresh_token": "x"})
    assert_oauth_error(response, "server_error", 500)
    assert "inside" not in response.text


@pytest.mark.requirement("RFC 6749", "temporarily_unavailable")
async def test_who_asks_too_often_has_to_wait(whole: Whole) -> None:
    async with whole.http() as http:
        for _ in range(20):
            assert (await http.post("/oauth/register", json=REGISTRATION)).status_code == 201
        response = await http.post("/oauth/register", json=REGISTRATION)
    assert_oauth_error(response, "temporarily_unavailable", 429)
    assert int(response.headers["retry-after"]) > 0


# --- the other endpoints --------------------------------------------------------------------------


def unsigned(**claims: Any) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key("s" * 32), algorithms=["HS256"])


@pytest.mark.parametrize(
    ("error", "change"),
    [
        named("RFC 7591", "invalid_redirect_uri", {"redirect_uris": ["http://app.example/"]}),
        named("RFC 7591", "invalid_client_metadata", {"grant_types": ["password"]}),
        named("RFC 7591", "invalid_software_statement", {"software_statement": "x"}),
        named(
            "RFC 7591",
            "unapproved_software_statement",
            {"software_statement": unsigned(iss="https://somebody.example")},
        ),
    ],
)
async def test_registration_names_the_error(
    whole: Whole, error: str, change: dict[str, Any]
) -> None:
    async with whole.http() as http:
        response = await http.post("/oauth/register", json={**REGISTRATION, **change})
    assert_oauth_error(response, error)


@pytest.mark.requirement("RFC 7592", "invalid_token")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("client_id", ["public-app", "nobody"])
async def test_management_needs_its_own_token(whole: Whole, method: str, client_id: str) -> None:
    headers = {"Authorization": "Bearer wrong"}
    options: dict[str, Any] = {"json": REGISTRATION} if method == "PUT" else {}
    async with whole.http(headers=headers) as http:
        response = await http.request(method, f"/oauth/register/{client_id}", **options)
    assert_oauth_error(response, "invalid_token", 401)
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("error", "path", "form", "status"),
    [
        named("RFC 7662", "invalid_request", "/oauth/introspect", {}, 400),
        named("RFC 7009", "invalid_request", "/oauth/revoke", {}, 400),
        named("RFC 9126", "invalid_request", "/oauth/par", {"request_uri": "urn:x"}, 400),
        named("RFC 9126", "invalid_scope", "/oauth/par", {"scope": "nonsense"}, 400),
        named(
            "RFC 9396",
            "invalid_authorization_details",
            "/oauth/par",
            {"authorization_details": "[{}]"},
            400,
        ),
    ],
)
async def test_the_endpoint_names_the_error(
    whole: Whole, error: str, path: str, form: dict[str, Any], status: int
) -> None:
    client = symmetric(whole)
    if path == "/oauth/par":
        form = {**(await client.ask()).sent, **form}
    assert_oauth_error(await client.post(form, path=path), error, status)


@pytest.mark.parametrize(
    ("error", "path"),
    [
        named("RFC 7662", "invalid_client", "/oauth/introspect"),
        named("RFC 7009", "invalid_client", "/oauth/revoke"),
        named("RFC 9126", "invalid_client", "/oauth/par"),
    ],
)
async def test_the_endpoint_refuses_who_cannot_authenticate(
    whole: Whole, error: str, path: str
) -> None:
    async with whole.http() as http:
        response = await http.post(path, data={"token": "x"}, auth=("web-app", "wrong"))
    assert_oauth_error(response, error, 401)


# --- DPoP and bearer tokens at the API ------------------------------------------------------------


@pytest.fixture
async def with_nonces(prepared: Path, tmp_path: Path) -> AsyncIterator[Whole]:
    whole = await Whole.begin(tmp_path / "nonces", of=prepared, dpop_nonce=True)
    yield whole
    await whole.close()


def holder(whole: Whole) -> Holder:
    return Holder(whole)


async def exchange_with(client: Client, proof: str) -> httpx.Response:
    client.headers = {"DPoP": proof}
    return await client.exchange(await client.launch())


@pytest.mark.requirement("RFC 9449", "invalid_dpop_proof")
@pytest.mark.parametrize("changes", [{"htm": "GET"}, {"htu": f"{BASE}/oauth/par"}, {"iat": 1}])
async def test_a_bad_proof_has_its_name(whole: Whole, changes: dict[str, Any]) -> None:
    proof = holder(whole).proof(url=f"{BASE}/oauth/token", **changes)
    assert_oauth_error(await exchange_with(public(whole), proof), "invalid_dpop_proof")


@pytest.mark.requirement("RFC 9449", "use_dpop_nonce")
async def test_the_nonce_is_asked_for_by_name(with_nonces: Whole) -> None:
    proof = holder(with_nonces).proof(url=f"{BASE}/oauth/token")
    response = await exchange_with(public(with_nonces), proof)
    assert_oauth_error(response, "use_dpop_nonce")
    assert response.headers["dpop-nonce"]


@pytest.mark.parametrize(
    ("error", "scope", "token", "status"),
    [
        named("RFC 6750", "invalid_token", "patient/Patient.rs", "no-token-of-anybody-x", 401),
        named("RFC 6750", "insufficient_scope", "patient/Patient.rs", None, 403),
    ],
)
async def test_the_api_names_the_error_in_its_challenge(
    whole: Whole, error: str, scope: str, token: str | None, status: int
) -> None:
    client = public(whole)
    body = await client.tokens(f"launch/patient {scope}")
    response = await client.read(token or body["access_token"], "Observation/lab")
    assert response.status_code == status
    assert f'error="{error}"' in response.headers["www-authenticate"]
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["resourceType"] == "OperationOutcome"
