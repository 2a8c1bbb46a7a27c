"""One-time things under concurrency: exactly one wins, whoever else comes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.smart.keys import load_server_keys
from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.smart.world import World


@pytest.mark.requirement("attacks", "race on a code")
async def test_of_fifty_exchanges_of_one_code_one_succeeds_and_the_family_ends(
    world: World,
) -> None:
    app = await world.public_app()
    code = await app.code()
    responses = await asyncio.gather(*(app.exchange(code) for _ in range(50)))
    assert Counter(r.status_code for r in responses) == {200: 1, 400: 49}
    errors = {r.json()["error"] for r in responses if r.status_code == 400}
    assert errors == {"invalid_grant"}
    (family,) = await world.store.every(TokenFamily)
    assert family.ended is not None
    assert await world.store.every(AccessToken) == []


@pytest.mark.requirement("attacks", "race on a refresh token")
async def test_of_fifty_refreshes_all_get_the_one_successor(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    responses = await asyncio.gather(*(app.refresh(body["refresh_token"]) for _ in range(50)))
    assert {r.status_code for r in responses} == {200}
    assert len({r.content for r in responses}) == 1
    (family,) = await world.store.every(TokenFamily)
    assert (family.generation, family.ended) == (1, None)
    assert len(await world.store.every(AccessToken)) == 2


@pytest.mark.requirement("attacks", "race on a client assertion")
async def test_of_fifty_uses_of_one_assertion_one_succeeds(world: World) -> None:
    ehr = await world.backend()
    assertion = ehr.assertion()
    responses = await asyncio.gather(*(ehr.backend_token(assertion) for _ in range(50)))
    assert Counter(r.status_code for r in responses) == {200: 1, 401: 49}
    assert len(await world.store.every(AccessToken)) == 1


async def test_a_refresh_that_races_a_revocation_leaves_nothing_alive(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    form = {"token": body["refresh_token"]}
    await asyncio.gather(
        *(app.refresh(body["refresh_token"]) for _ in range(5)),
        app.post("/oauth/revoke", form),
        *(app.refresh(body["refresh_token"]) for _ in range(5)),
    )
    assert await world.store.every(AccessToken) == []


async def test_processes_that_start_together_agree_on_one_signing_key() -> None:
    store = EmbeddedStore.open(":memory:")
    secret = b"s" * 32
    loaded = await asyncio.gather(
        *(load_server_keys(store, secret, now=1.0, random=bytes) for _ in range(3))
    )
    store.close()
    assert len({keys.kid for keys in loaded}) == 1
