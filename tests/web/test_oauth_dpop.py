"""DPoP at the token and pushed request endpoints, RFC 9449 §5 and §10.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_portal.smart.dpop import ALGORITHMS, DpopPolicy, UsedProof
from fhir_portal.smart.par import PushedRequest
from fhir_portal.smart.token import AccessToken, token_hash
from tests.smart.proofs import Holder
from tests.smart.world import BASE, App, World, assert_oauth_error, assert_redirect_error

PAR_URL = f"{BASE}/oauth/par"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.fixture
def holder(world: World) -> Holder:
    return Holder(world)


async def bought(app: App, holder: Holder, **changes: str | None) -> dict[str, Any]:
    """Tokens for a code, bound to the holder's key."""
    code = await app.code(**changes)
    response = await app.exchange(code, headers={"DPoP": holder.proof()})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def stored(world: World, access_token: str) -> AccessToken:
    found = await world.store.get(AccessToken, token_hash(access_token))
    assert found is not None
    return found


async def test_discovery_names_the_algorithms(world: World) -> None:
    for document in (world.server.smart_configuration(), world.server.openid_configuration()):
        assert document["dpop_signing_alg_values_supported"] == list(ALGORITHMS)


async def test_with_a_proof_the_token_is_bound(world: World, holder: Holder) -> None:
    """Planted fault: the response says DPoP, and the token is not bound."""
    app = await world.public_app()
    body = await bought(app, holder)
    assert body["token_type"] == "DPoP"
    assert (await stored(world, body["access_token"])).jkt == holder.jkt
    assert (await world.only_family()).jkt == holder.jkt


async def test_without_a_proof_it_is_a_bearer_token(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    assert body["token_type"] == "Bearer"
    assert (await stored(world, body["access_token"])).jkt is None


async def test_a_backends_token_is_bound_too(world: World, holder: Holder) -> None:
    ehr = await world.backend()
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    response = await ehr.post("/oauth/token", form, headers={"DPoP": holder.proof()})
    body = response.json()
    assert body["token_type"] == "DPoP"
    assert (await stored(world, body["access_token"])).jkt == holder.jkt


@pytest.mark.parametrize("alias", ["http://localhost:8000", "HTTP://LocalHost:8000"])
async def test_the_proof_may_name_an_alias(world: World, holder: Holder, alias: str) -> None:
    app = await world.public_app()
    proof = holder.proof(url=f"{alias}/oauth/token")
    response = await app.exchange(await app.code(), headers={"DPoP": proof})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"htm": "GET"},
        {"htu": PAR_URL},
        {"htu": "https://elsewhere.example/oauth/token"},
        {"iat": 1},
        {"jti": ""},
        {"header": {"typ": "JWT"}},
    ],
)
async def test_a_bad_proof_buys_nothing_and_leaves_the_code_good(
    world: World, holder: Holder, change: dict[str, Any]
) -> None:
    """Planted fault: with a bad proof the token is issued as bearer."""
    app = await world.public_app()
    code = await app.code()
    before = await world.rows()
    response = await app.exchange(code, headers={"DPoP": holder.proof(**change)})
    assert_oauth_error(response, "invalid_dpop_proof")
    assert await world.rows() == before
    assert (await app.exchange(code, headers={"DPoP": holder.proof()})).status_code == 200


@pytest.mark.parametrize("header", ["", "x", "a.b.c", "é"])
async def test_a_header_that_is_no_proof_is_refused(world: World, header: str) -> None:
    app = await world.public_app()
    response = await app.exchange(await app.code(), headers={b"DPoP": header.encode("latin-1")})  # type: ignore[dict-item] # httpx would write it as UTF-8
    assert_oauth_error(response, "invalid_dpop_proof")


async def test_a_request_has_one_proof(world: World, holder: Holder) -> None:
    """Header pollution. Planted fault: the last of two proofs counts."""
    app = await world.public_app()
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": app.client_id}
    headers = [("DPoP", holder.proof()), ("DPoP", Holder(world).proof())]
    async with world.http() as http:
        response = await http.post("/oauth/token", data=form, headers=headers)
    assert_oauth_error(response, "invalid_dpop_proof")


@pytest.mark.requirement("attacks", "jti replay")
async def test_a_proof_is_good_once(world: World, holder: Holder) -> None:
    """Replay. Planted fault: the used proof is not stored."""
    app = await world.public_app()
    body = await bought(app, holder)
    proof = holder.proof()
    first = await app.refresh(body["refresh_token"], headers={"DPoP": proof})
    assert first.status_code == 200
    second = await app.refresh(first.json()["refresh_token"], headers={"DPoP": proof})
    assert_oauth_error(second, "invalid_dpop_proof")
    fresh = {"DPoP": holder.proof()}
    third = await app.refresh(first.json()["refresh_token"], headers=fresh)
    assert third.status_code == 200


@pytest.mark.requirement("attacks", "race on a DPoP proof")
async def test_of_fifty_uses_of_one_proof_one_succeeds(world: World, holder: Holder) -> None:
    """Planted fault: a proof is looked for first and stored later."""
    app = await world.public_app()
    codes = [await app.code() for _ in range(50)]
    proof = {"DPoP": holder.proof()}
    responses = await asyncio.gather(*(app.exchange(code, headers=proof) for code in codes))
    assert Counter(r.status_code for r in responses) == {200: 1, 400: 49}
    assert {r.json().get("error") for r in responses} == {None, "invalid_dpop_proof"}
    assert len(await world.store.every(UsedProof)) == 1


async def test_what_was_used_is_dropped_when_it_is_too_old_anyway(
    world: World, holder: Holder
) -> None:
    await bought(await world.public_app(), holder)
    await world.store.transact(lambda transaction: transaction.drop_expired(world.clock() + 91))
    assert await world.store.every(UsedProof) == []


# --- refresh -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["without a proof", "with another key"])
async def test_a_stolen_refresh_token_is_of_no_use(world: World, holder: Holder, how: str) -> None:
    """RFC 9449 §5, public clients. Planted fault: the family's key is not compared."""
    app = await world.public_app()
    body = await bought(app, holder)
    headers = {} if how == "without a proof" else {"DPoP": Holder(world).proof()}
    response = await app.refresh(body["refresh_token"], headers=headers)
    assert_oauth_error(response, "invalid_grant")
    owner = await app.refresh(body["refresh_token"], headers={"DPoP": holder.proof()})
    assert owner.status_code == 200
    assert owner.json()["token_type"] == "DPoP"


async def test_a_thief_without_the_key_cannot_end_the_family(world: World, holder: Holder) -> None:
    """An old token in a thief's hands. Planted fault: reuse is judged before the key is."""
    app = await world.public_app()
    first = await bought(app, holder)
    second = await app.refresh(first["refresh_token"], headers={"DPoP": holder.proof()})
    world.clock.advance(60)
    assert_oauth_error(await app.refresh(first["refresh_token"]), "invalid_grant")
    assert (await world.only_family()).ended is None
    proof = {"DPoP": holder.proof()}
    assert (await app.refresh(second.json()["refresh_token"], headers=proof)).status_code == 200


async def test_reuse_by_the_holder_of_the_key_ends_the_family(world: World, holder: Holder) -> None:
    app = await world.public_app()
    first = await bought(app, holder)
    await app.refresh(first["refresh_token"], headers={"DPoP": holder.proof()})
    world.clock.advance(60)
    again = await app.refresh(first["refresh_token"], headers={"DPoP": holder.proof()})
    assert_oauth_error(again, "invalid_grant")
    assert (await world.only_family()).ended is not None


async def test_a_lost_answer_is_given_again_to_the_same_key(world: World, holder: Holder) -> None:
    app = await world.public_app()
    body = await bought(app, holder)
    one = await app.refresh(body["refresh_token"], headers={"DPoP": holder.proof()})
    other = await app.refresh(body["refresh_token"], headers={"DPoP": holder.proof()})
    assert (one.status_code, one.content) == (other.status_code, other.content)


async def test_a_lost_answer_is_not_given_to_another_key(world: World, holder: Holder) -> None:
    """A confidential client's refresh tokens are not bound, its access tokens are.

    Planted fault: the repeat is answered with a token bound to the first key, as if to the second.
    """
    app = await world.confidential_app()
    body = await bought(app, holder)
    await app.refresh(body["refresh_token"], headers={"DPoP": holder.proof()})
    other = await app.refresh(body["refresh_token"], headers={"DPoP": Holder(world).proof()})
    assert_oauth_error(other, "invalid_grant")


async def test_a_confidential_client_may_change_its_key(world: World, holder: Holder) -> None:
    """Its refresh tokens are bound to it by its own authentication (RFC 9449 §5)."""
    app, other = await world.confidential_app(), Holder(world)
    body = await bought(app, holder)
    assert (await world.only_family()).jkt is None
    response = await app.refresh(body["refresh_token"], headers={"DPoP": other.proof()})
    assert (await stored(world, response.json()["access_token"])).jkt == other.jkt


async def test_a_public_client_that_begins_to_use_proofs_is_bound_from_then_on(
    world: World, holder: Holder
) -> None:
    """Planted fault: only the first exchange binds."""
    app = await world.public_app()
    body = await app.tokens()
    bound = await app.refresh(body["refresh_token"], headers={"DPoP": holder.proof()})
    assert bound.json()["token_type"] == "DPoP"
    assert_oauth_error(await app.refresh(bound.json()["refresh_token"]), "invalid_grant")


# --- what is asked for ---------------------------------------------------------------------------


async def test_a_client_that_always_uses_proofs_gets_nothing_without(
    world: World, holder: Holder
) -> None:
    """Downgrade. Planted fault: ``dpop_bound_access_tokens`` is kept and not looked at."""
    app = await world.public_app(dpop_bound_access_tokens=True)
    code = await app.code()
    assert_oauth_error(await app.exchange(code), "invalid_dpop_proof")
    body = (await app.exchange(code, headers={"DPoP": holder.proof()})).json()
    assert body["token_type"] == "DPoP"
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_dpop_proof")


async def test_such_a_client_registers_as_one(world: World) -> None:
    metadata = {"redirect_uris": ["https://app.example/"], "dpop_bound_access_tokens": True}
    async with world.http() as http:
        response = await http.post("/oauth/register", json=metadata)
        wrong = {**metadata, "dpop_bound_access_tokens": "yes"}
        refused = await http.post("/oauth/register", json=wrong)
    assert response.json()["dpop_bound_access_tokens"] is True
    assert_oauth_error(refused, "invalid_client_metadata")


async def test_an_operator_may_ask_for_proofs_from_everybody() -> None:
    """Planted fault: the setting is not looked at."""
    world = await World.begin(dpop=DpopPolicy(required=True))
    app, ehr = await world.confidential_app(), await world.backend()
    assert_oauth_error(await app.exchange(await app.code()), "invalid_dpop_proof")
    assert_oauth_error(await ehr.backend_token(), "invalid_dpop_proof")
    body = await bought(app, Holder(world))
    response = await app.post("/oauth/introspect", {"token": body["access_token"]})
    assert response.json()["active"] is True
    world.close()


async def test_an_operator_may_ask_for_a_nonce() -> None:
    """RFC 9449 §8. Planted faults: no nonce is asked for; the answer names none."""
    world = await World.begin(dpop=DpopPolicy(nonce=True))
    app, holder = await world.public_app(), Holder(world)
    code = await app.code()
    first = await app.exchange(code, headers={"DPoP": holder.proof()})
    assert_oauth_error(first, "use_dpop_nonce")
    nonce = first.headers["dpop-nonce"]
    good = await app.exchange(code, headers={"DPoP": holder.proof(nonce=nonce)})
    assert good.status_code == 200
    world.clock.advance(600)
    old = {"DPoP": holder.proof(nonce=nonce)}
    refresh_token = good.json()["refresh_token"]
    assert_oauth_error(await app.refresh(refresh_token, headers=old), "use_dpop_nonce")
    assert (await app.exchange(await app.code())).status_code == 200  # it asks for no proof
    world.close()


# --- the code ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["without a proof", "with another key"])
async def test_a_code_for_one_key_is_of_no_use_to_another(
    world: World, holder: Holder, how: str
) -> None:
    """Code injection, RFC 9449 §10. Planted fault: ``dpop_jkt`` is kept and not compared."""
    app = await world.public_app()
    code = await app.code(dpop_jkt=holder.jkt)
    headers = {} if how == "without a proof" else {"DPoP": Holder(world).proof()}
    assert_oauth_error(await app.exchange(code, headers=headers), "invalid_grant")
    good = await app.exchange(code, headers={"DPoP": holder.proof()})
    assert good.status_code == 200


@pytest.mark.parametrize("jkt", ["x", "x" * 44, "é" * 43, "=" * 43])
async def test_a_key_is_named_by_its_thumbprint(world: World, jkt: str) -> None:
    app = await world.public_app()
    assert_redirect_error(await world.browser().authorize(app, dpop_jkt=jkt), "invalid_request")


async def pushed(app: App, proof: str | None, **changes: str | None) -> httpx.Response:
    headers = {} if proof is None else {"DPoP": proof}
    return await app.post("/oauth/par", app.parameters(**changes), headers=headers)


@pytest.mark.parametrize("with_jkt", [True, False])
async def test_a_pushed_request_may_be_bound_by_a_proof(
    world: World,
    holder: Holder,
    with_jkt: bool,  # noqa: FBT001 - a table
) -> None:
    """RFC 9449 §10.1."""
    app = await world.public_app()
    changes = {"dpop_jkt": holder.jkt} if with_jkt else {}
    response = await pushed(app, holder.proof(url=PAR_URL), **changes)
    assert response.status_code == 201
    (kept,) = await world.store.every(PushedRequest)
    assert kept.parameters["dpop_jkt"] == holder.jkt


async def test_a_pushed_request_is_not_bound_to_two_keys(world: World, holder: Holder) -> None:
    """Planted fault: the proof's key wins, or the parameter's."""
    app = await world.public_app()
    other = Holder(world)
    response = await pushed(app, holder.proof(url=PAR_URL), dpop_jkt=other.jkt)
    assert_oauth_error(response, "invalid_dpop_proof")
    assert await world.store.every(PushedRequest) == []


async def test_a_proof_for_the_token_endpoint_pushes_nothing(world: World, holder: Holder) -> None:
    app = await world.public_app()
    assert_oauth_error(await pushed(app, holder.proof()), "invalid_dpop_proof")


# --- who asks afterwards -------------------------------------------------------------------------


async def test_introspection_tells_the_key(world: World, holder: Holder) -> None:
    """A resource server has to check it. Planted fault: ``cnf`` is left out."""
    app = await world.confidential_app()
    body = await bought(app, holder)
    response = await app.post("/oauth/introspect", {"token": body["access_token"]})
    found = response.json()
    assert (found["token_type"], found["cnf"]) == ("DPoP", {"jkt": holder.jkt})
    other = await world.confidential_app("other")
    token = (await other.tokens())["access_token"]
    bearer = await other.post("/oauth/introspect", {"token": token})
    assert bearer.json()["token_type"] == "Bearer"
    assert "cnf" not in bearer.json()


async def test_browsers_may_send_proofs_and_read_nonces(world: World) -> None:
    """Planted fault: ``DPoP`` is not among the headers that CORS lets through."""
    await world.public_app()
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "dpop",
    }
    async with world.http() as http:
        preflight = await http.options("/oauth/token", headers=headers)
        answer = await http.post("/oauth/token", data={}, headers=headers)
    assert "dpop" in preflight.headers["access-control-allow-headers"].split(", ")
    assert "dpop-nonce" in answer.headers["access-control-expose-headers"].split(", ")
