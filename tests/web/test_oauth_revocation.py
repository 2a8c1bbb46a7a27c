"""The corners of token revocation, RFC 7009.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.smart.proofs import Holder
from tests.smart.world import App, World, assert_oauth_error

INFERNO = "inferno"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


async def revoked(app: App, token: str, **form: str) -> httpx.Response:
    return await app.post("/oauth/revoke", {"token": token, **form})


@pytest.mark.requirement(INFERNO, "X10")
@pytest.mark.parametrize(
    "token", ["x", "unknown-token-of-nobody-xx", "é" * 40, "A" * 70, "A" * 5000]
)
async def test_a_token_that_is_none_is_as_good_as_revoked(world: World, token: str) -> None:
    """RFC 7009 §2.2. Planted fault: an unknown token is an error."""
    app = await world.confidential_app()
    response = await revoked(app, token)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "id_token", "saml", "é"])
@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_a_hint_is_a_hint(world: World, hint: str, which: str) -> None:
    """RFC 7009 §2.1: a wrong one does not keep the token. Planted fault: Authlib sees it."""
    app = await world.public_app()
    body = await app.tokens()
    assert (await revoked(app, body[which], token_type_hint=hint)).status_code == 200
    assert not await world.is_alive(body["access_token"])


async def test_revoking_again_is_no_error_and_changes_nothing(world: World) -> None:
    """Planted fault: the second revocation moves the moment at which access ended."""
    app = await world.public_app()
    body = await app.tokens()
    await revoked(app, body["refresh_token"])
    before = await world.rows()
    world.clock.advance(10)
    for which in ("refresh_token", "access_token"):
        assert (await revoked(app, body[which])).status_code == 200
    assert await world.rows() == before


async def test_a_refresh_token_long_used_still_ends_its_family(world: World) -> None:
    """Whoever kept the first one can end what came of it."""
    app = await world.public_app()
    first = await app.tokens()
    second = (await app.refresh(first["refresh_token"])).json()
    third = (await app.refresh(second["refresh_token"])).json()
    world.clock.advance(3600)
    await revoked(app, first["refresh_token"])
    assert_oauth_error(await app.refresh(third["refresh_token"]), "invalid_grant")


async def test_an_expired_access_token_still_ends_its_family(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    world.clock.advance(1000)
    await revoked(app, body["access_token"])
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_another_app_ends_nothing(world: World, which: str) -> None:
    """RFC 7009 §2.1. Planted fault: whose token it is, is not compared."""
    app, thief = await world.public_app(), await world.public_app("thief")
    body = await app.tokens()
    assert_oauth_error(await revoked(thief, body[which]), "invalid_grant")
    assert await world.is_alive(body["access_token"])


async def test_a_forged_refresh_token_ends_nothing(world: World) -> None:
    """Planted fault: the family it names is ended, whatever the proof in it."""
    app = await world.public_app()
    body = await app.tokens()
    token = body["refresh_token"]
    forged = token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB")
    assert (await revoked(app, forged)).status_code == 200
    assert await world.is_alive(body["access_token"])


@pytest.mark.parametrize("how", ["nobody", "wrong secret", "no secret"])
async def test_who_cannot_authenticate_ends_nothing(world: World, how: str) -> None:
    """Planted fault: a client that has a secret may come without."""
    app = await world.confidential_app()
    body = await app.tokens()
    form = {"token": body["access_token"]}
    auth: Any = (app.client_id, "wrong") if how == "wrong secret" else None
    if how == "no secret":
        form["client_id"] = app.client_id
    async with world.http() as http:
        response = await http.post("/oauth/revoke", data=form, auth=auth)
    assert_oauth_error(response, "invalid_client", 401)
    assert await world.is_alive(body["access_token"])


async def test_a_bound_token_is_revoked_without_a_proof(world: World) -> None:
    """Whoever lost the key must be able to end what is bound to it."""
    app, holder = await world.public_app(), Holder(world)
    body = (await app.exchange(await app.code(), headers={"DPoP": holder.proof()})).json()
    assert (await revoked(app, body["access_token"])).status_code == 200
    assert await world.store.every(AccessToken) == []


async def test_a_code_is_no_token(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    assert (await revoked(app, code)).status_code == 200
    assert (await app.exchange(code)).status_code == 200


async def test_the_token_does_not_come_in_the_address(world: World) -> None:
    """It would be in every log. Planted fault: the query is read."""
    app = await world.public_app()
    body = await app.tokens()
    async with world.http() as http:
        response = await http.post(
            "/oauth/revoke",
            params={"token": body["access_token"]},
            data={"client_id": app.client_id, "token": body["access_token"]},
        )
    assert_oauth_error(response, "invalid_request")
    assert await world.is_alive(body["access_token"])


async def test_no_callback_is_called(world: World) -> None:
    """RFC 7009 §2.3 leaves JSONP open; an answer that is a script is none of ours."""
    app = await world.public_app()
    response = await revoked(app, "x", callback="package.callMe")
    assert response.headers["content-type"] == "application/json"
    assert b"package" not in response.content


async def test_of_fifty_revocations_and_refreshes_nothing_is_left_alive(world: World) -> None:
    """Planted fault: the family ends and its access tokens stay."""
    app = await world.public_app()
    body = await app.tokens()
    token = body["refresh_token"]
    answers = await asyncio.gather(
        *(app.refresh(token) if n % 2 else revoked(app, token) for n in range(50))
    )
    assert {answer.status_code for answer in answers} <= {200, 400}
    assert await world.store.every(AccessToken) == []
    (family,) = await world.store.every(TokenFamily)
    assert family.ended is not None
