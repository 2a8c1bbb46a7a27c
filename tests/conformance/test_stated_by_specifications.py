"""What the specifications state and no kit tests (checklist X1 to X18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from fhir_portal.settings import InvalidSettings, load
from tests.conformance.inferno import (
    KINDS,
    Client,
    bulk,
    public,
    symmetric,
)
from tests.conformance.whole import INFERNO as ORIGIN
from tests.conformance.whole import REDIRECT, Whole
from tests.smart.world import assert_oauth_error

INFERNO = "inferno"

# --- codes (X1 to X3) -----------------------------------------------------------------------------


@pytest.mark.requirement(INFERNO, "X1")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_code_used_twice_ends_what_it_gave(
    whole: Whole, kind: Callable[[Whole], Client]
) -> None:
    client = kind(whole)
    launched = await client.launch()
    body = (await client.exchange(launched)).json()
    assert (await client.read(body["access_token"], "Patient/anna")).status_code == 200
    assert_oauth_error(await client.exchange(launched), "invalid_grant")
    assert (await client.read(body["access_token"], "Patient/anna")).status_code == 401
    assert_oauth_error(await client.refresh(body["refresh_token"]), "invalid_grant")


@pytest.mark.requirement(INFERNO, "X1")
async def test_a_code_is_good_for_a_minute(whole: Whole) -> None:
    client = public(whole)
    early, late = await client.launch(), await client.launch()
    whole.clock.advance(59)
    assert (await client.exchange(early)).status_code == 200
    whole.clock.advance(2)
    assert_oauth_error(await client.exchange(late), "invalid_grant")


@pytest.mark.requirement(INFERNO, "X1")
@pytest.mark.parametrize("redirect", [None, f"{REDIRECT}/", "https://evil.example/"])
async def test_a_code_is_bound_to_client_and_redirect(whole: Whole, redirect: str | None) -> None:
    client, other = public(whole), symmetric(whole)
    launched = await client.launch()
    assert_oauth_error(await other.exchange(launched), "invalid_grant")
    response = await client.exchange(launched, redirect_uri=redirect)
    assert response.status_code == 400
    assert response.json()["error"] in {"invalid_grant", "invalid_request"}
    assert (await client.exchange(launched)).status_code == 200


@pytest.mark.requirement(INFERNO, "X2")
@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": f"{REDIRECT}/"},
        {"redirect_uri": f"{REDIRECT}?a=b"},
        {"redirect_uri": f"{REDIRECT}/../other"},
        {"redirect_uri": REDIRECT.upper()},
        {"redirect_uri": "https://inferno.example.evil.example/custom/smart_stu2_2/redirect"},
        {"redirect_uri": "https://evil.example/"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_client_or_redirect_gets_a_page_and_no_redirect(
    whole: Whole, method: str, changes: dict[str, Any]
) -> None:
    refused = await public(whole).ask(method=method, **changes)
    assert refused.response.status_code in {400, 401}
    assert "location" not in refused.response.headers
    assert refused.response.headers["content-type"].startswith("text/html")
    assert "evil.example" not in refused.response.text


@pytest.mark.requirement(INFERNO, "X3")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": "short"},
    ],
    ids=str,
)
async def test_no_client_is_let_off_s256(
    whole: Whole, kind: Callable[[Whole], Client], changes: dict[str, Any]
) -> None:
    refused = await kind(whole).ask(**changes)
    assert refused.answer["error"] == "invalid_request"
    assert "code" not in refused.answer


# --- the token endpoint (X4, X5, X7, X8, X17) -----------------------------------------------------


@pytest.mark.requirement(INFERNO, "X4")
@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"client_assertion": "x.y.z"}, "invalid_client"),
        ({"grant_type": "authorization_code", "code": "x"}, "unauthorized_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"scope": "nonsense"}, "invalid_scope"),
    ],
)
async def test_a_refusal_of_the_token_endpoint_is_json_that_nobody_stores(
    whole: Whole, form: dict[str, Any], error: str
) -> None:
    response = await bulk(whole).backend(**form)
    assert_oauth_error(response, error, 401 if error == "invalid_client" else 400)


@pytest.mark.requirement(INFERNO, "X4")
async def test_so_is_that_of_a_bad_grant(whole: Whole) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    assert_oauth_error(await public(whole).post(form), "invalid_grant")


@pytest.mark.requirement(INFERNO, "X5")
async def test_who_failed_by_basic_is_told_the_scheme(whole: Whole) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    async with whole.http() as http:
        response = await http.post("/oauth/token", data=form, auth=("web-app", "wrong"))
    assert_oauth_error(response, "invalid_client", 401)
    assert response.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.requirement(INFERNO, "X7")
async def test_an_assertion_is_used_once(whole: Whole) -> None:
    client = bulk(whole)
    assertion = client.assertion(exp=int(whole.clock()) + 300)
    assert (await client.backend(client_assertion=assertion)).status_code == 200
    whole.clock.advance(299)
    again = await client.backend(client_assertion=assertion)
    assert_oauth_error(again, "invalid_client", 401)


@pytest.mark.requirement(INFERNO, "X7")
async def test_an_assertion_ends_within_five_minutes(whole: Whole) -> None:
    client = bulk(whole)
    assertion = client.assertion(exp=int(whole.clock()) + 3600)
    response = await client.backend(client_assertion=assertion)
    assert_oauth_error(response, "invalid_client", 401)


@pytest.mark.requirement(INFERNO, "X8")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_refresh_token_is_bound_to_its_client(
    whole: Whole, kind: Callable[[Whole], Client]
) -> None:
    client = kind(whole)
    body = await client.tokens()
    for thief in (one(whole) for one in KINDS if one is not kind):
        assert_oauth_error(await thief.refresh(body["refresh_token"]), "invalid_grant")
    assert (await client.refresh(body["refresh_token"])).status_code == 200


@pytest.mark.requirement(INFERNO, "X8")
async def test_reuse_of_a_rotated_refresh_token_ends_the_family(whole: Whole) -> None:
    client = public(whole)
    first = await client.tokens()
    second = (await client.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    whole.clock.advance(31)  # within thirty seconds it is a lost answer asked for again
    assert_oauth_error(await client.refresh(first["refresh_token"]), "invalid_grant")
    assert_oauth_error(await client.refresh(second["refresh_token"]), "invalid_grant")
    assert (await client.read(second["access_token"], "Patient/anna")).status_code == 401


@pytest.mark.requirement(INFERNO, "X17")
async def test_an_access_token_never_lasts_longer_than_an_hour(whole: Whole) -> None:
    client = symmetric(whole)
    body = await client.tokens()
    refreshed = (await client.refresh(body["refresh_token"])).json()
    of_a_backend = (await bulk(whole).backend()).json()
    for one in (body, refreshed, of_a_backend):
        assert one["token_type"] == "Bearer"
        assert one["expires_in"] <= 3600
    whole.clock.advance(3600)
    for one in (body, refreshed, of_a_backend):
        assert (await client.read(one["access_token"], "Patient/anna")).status_code == 401


@pytest.mark.requirement(INFERNO, "X17")
def test_no_operator_makes_it_longer() -> None:
    assert load(access_token_seconds=3600).access_token_seconds == 3600
    with pytest.raises(InvalidSettings, match="access_token_seconds"):
        load(access_token_seconds=3601)


# --- introspection, revocation, CORS (X9, X10, X12) -----------------------------------------------


@pytest.mark.requirement(INFERNO, "X9")
@pytest.mark.parametrize("as_public", [True, False])
async def test_introspection_needs_a_client_that_authenticates(
    whole: Whole,
    as_public: bool,  # noqa: FBT001 - a table
) -> None:
    token = (await symmetric(whole).tokens())["access_token"]
    form = {"token": token} | ({"client_id": "public-app"} if as_public else {})
    async with whole.http() as http:
        response = await http.post("/oauth/introspect", data=form)
    assert_oauth_error(response, "invalid_client", 401)


@pytest.mark.requirement(INFERNO, "X10")
@pytest.mark.parametrize("kind", KINDS)
async def test_revoking_is_200_also_for_what_is_no_token(
    whole: Whole, kind: Callable[[Whole], Client]
) -> None:
    client = kind(whole)
    body = await client.tokens()
    for token in ("no-token-at-all", body["access_token"], body["access_token"]):
        response = await client.post({"token": token}, path="/oauth/revoke")
        assert response.status_code == 200
    assert (await client.read(body["access_token"], "Patient/anna")).status_code == 401
    assert_oauth_error(await client.refresh(body["refresh_token"]), "invalid_grant")


@pytest.mark.requirement(INFERNO, "X12")
@pytest.mark.parametrize("path", ["/oauth/token", "/fhir/Patient/anna", "/fhir/Patient"])
async def test_a_registered_origin_may_ask_before_it_sends(whole: Whole, path: str) -> None:
    asked = {
        "Access-Control-Request-Method": "GET" if path.startswith("/fhir") else "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with whole.http() as http:
        known = await http.options(path, headers={**asked, "Origin": ORIGIN})
        unknown = await http.options(path, headers={**asked, "Origin": "https://evil.example"})
    assert known.status_code in {200, 204}
    assert known.headers["access-control-allow-origin"] == ORIGIN
    allowed = {one.strip() for one in known.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "content-type"} <= allowed
    assert "access-control-allow-origin" not in unknown.headers


# --- the FHIR API (X14, X15) ----------------------------------------------------------------------


@pytest.mark.requirement(INFERNO, "X14")
async def test_nothing_leads_out_of_the_record(whole: Whole) -> None:
    """With a token from a real launch: by id, chains, includes, history, batch and operations."""
    client = public(whole)
    body = await client.tokens("launch/patient patient/*.rs")
    searches = (
        "Observation?_id=bens",
        "Observation?patient=ben",
        "Observation?subject:Patient.name=Berg",
        "Observation?patient.name=Berg",
        "Patient?_id=ben&_revinclude=Observation:patient",
        "Patient?_has:Observation:patient:_id=bens",
    )
    async with client.api(body["access_token"]) as http:
        for search in searches:
            response = await http.get(f"/fhir/{search}")
            assert response.status_code in {200, 400}, search
            assert "bens" not in {
                entry["resource"]["id"] for entry in response.json().get("entry", ())
            }, search
        for path in ("Observation/bens", "Observation/bens/_history", "Patient/ben"):
            assert (await http.get(f"/fhir/{path}")).status_code == 404, path
        batch = {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"request": {"method": "GET", "url": "Observation/bens"}}],
        }
        answered = (await http.post("/fhir", json=batch)).json()
        assert answered["entry"][0]["response"]["status"].startswith("404")


@pytest.mark.requirement(INFERNO, "X15")
async def test_a_token_that_is_over_is_401(whole: Whole) -> None:
    client = public(whole)
    body = await client.tokens()
    whole.clock.advance(body["expires_in"] - 1)
    assert (await client.read(body["access_token"], "Patient/anna")).status_code == 200
    whole.clock.advance(1)
    response = await client.read(body["access_token"], "Patient/anna")
    assert response.status_code == 401
    assert response.json()["resourceType"] == "OperationOutcome"
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


@pytest.mark.requirement(INFERNO, "X6")
async def test_a_scope_that_is_missing_is_403(whole: Whole) -> None:
    client = public(whole)
    body = await client.tokens("launch/patient patient/Patient.rs")
    response = await client.read(body["access_token"], "Observation/lab")
    assert response.status_code == 403
    assert response.json()["resourceType"] == "OperationOutcome"
    assert response.headers["www-authenticate"].startswith("Bearer")
    nobody = await client.read(None, "Observation/lab")
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    assert nobody.json()["resourceType"] == "OperationOutcome"


@pytest.mark.requirement(INFERNO, "X2")
async def test_what_the_app_may_be_told_it_is_told(whole: Whole) -> None:
    """Beside a known redirect URI, a refusal goes there, and nowhere else."""
    parameters = {"client_id": "web-app", "redirect_uri": REDIRECT, "state": "s"}
    async with whole.http() as http:
        response = await http.get(f"/oauth/authorize?{urlencode(parameters)}")
    assert response.headers["location"].startswith(f"{REDIRECT}?error=")
