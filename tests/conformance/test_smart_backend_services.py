"""Backend services as Inferno's SMART and bulk kits ask (checklist S42 to S48)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key, RSAKey

from tests.conformance.inferno import bulk
from tests.conformance.test_smart_standalone_launch import assert_token_response
from tests.conformance.whole import Whole, key_pair

INFERNO = "inferno"
ALGORITHMS = ["ES384", "RS384"]


@pytest.mark.requirement(INFERNO, "S42", "S43", "S46")
@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_an_assertion_alone_buys_a_token(whole: Whole, alg: str) -> None:
    """No client_id and no Basic in the request; no ``iat``, ``nbf`` or ``jku`` in the assertion."""
    client = bulk(whole, alg)
    response = await client.backend()
    assert "authorization" not in response.request.headers
    assert b"client_id=" not in response.request.content
    assert_token_response(response)
    body = response.json()
    assert body["expires_in"] == 300
    assert "refresh_token" not in body
    found = await client.read(body["access_token"], "Patient/ben")
    assert found.status_code == 200


@pytest.mark.requirement(INFERNO, "S43")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"exp": 320}, 200),
        ({"exp": 400}, 401),
        ({"exp": -60}, 401),
        ({"aud": "https://portal.example/fhir"}, 401),
        ({"jti": None}, 401),
        ({"iss": "somebody-else"}, 401),
    ],
    ids=str,
)
async def test_the_five_minutes_have_a_little_skew_and_no_more(
    whole: Whole, changes: dict[str, Any], status: int
) -> None:
    client = bulk(whole)
    if isinstance(ahead := changes.get("exp"), int):
        changes = {"exp": int(whole.clock()) + ahead}
    assertion = client.assertion(**changes)
    response = await client.backend(client_assertion=assertion)
    assert response.status_code == status, response.text


@pytest.mark.requirement(INFERNO, "S44")
async def test_another_grant_type_is_400(whole: Whole) -> None:
    response = await bulk(whole).backend(grant_type="not_a_grant_type")
    assert response.status_code == 400
    assert response.json()["error"] == "unsupported_grant_type"


@pytest.mark.requirement(INFERNO, "S45")
async def test_another_kind_of_assertion_is_refused(whole: Whole) -> None:
    response = await bulk(whole).backend(client_assertion_type="not_an_assertion_type")
    assert response.status_code in {400, 401}
    assert response.json()["error"] == "invalid_client"


@pytest.mark.requirement(INFERNO, "S47")
@pytest.mark.parametrize("scope", ["system/*.read", "system/*.rs"])
async def test_both_spellings_of_the_scope_work(whole: Whole, scope: str) -> None:
    client = bulk(whole)
    body = (await client.backend(scope=scope)).json()
    assert body["scope"] == scope
    async with client.api(body["access_token"]) as http:
        for search in ("Patient", "Observation?category=laboratory"):
            response = await http.get(f"/fhir/{search}")
            assert response.status_code == 200
            assert response.json()["entry"]


@pytest.mark.requirement(INFERNO, "S48")
@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_the_key_is_picked_by_kid_and_algorithm(whole: Whole, alg: str) -> None:
    """Both keys of the set are tried; one that is not in it is not."""
    client = bulk(whole, alg)
    assert (await client.backend()).status_code == 200
    kid = key_pair(alg).kid
    assert kid is not None
    strangers: dict[str, Callable[[], Key]] = {
        "ES384": lambda: ECKey.generate_key("P-384", {"kid": kid}),
        "RS384": lambda: RSAKey.generate_key(2048, {"kid": kid}),
    }
    forged = client.assertion(strangers[alg]())
    response = await client.backend(client_assertion=forged)
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"
