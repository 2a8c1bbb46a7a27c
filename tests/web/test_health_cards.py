"""``/health-cards/<practice>/.well-known``: the keys and revocation lists, for every verifier."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator

import httpx
import pytest

from fhir_portal.accounts.practice import Practice
from fhir_portal.smart.health_card_keys import CardKeys
from fhir_portal.smart.keys import derive
from fhir_portal.web.health_cards import health_cards_router
from fhir_portal.web.site import take_in
from tests.builders import keep
from tests.smart.world import World

KEYS = "/health-cards/elm/.well-known/jwks.json"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    take_in(world.app, health_cards_router(world.store))
    await keep(world.store, *(Practice(key=key, name=key) for key in ("elm", "oak")))
    yield world
    world.close()


def keys_at(world: World) -> CardKeys:
    return CardKeys(world.store, functools.partial(derive, b"s" * 32), world.random)


async def get(world: World, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with world.http() as http:
        return await http.request(method, path, headers=headers)


def revoked_at(kid: str, practice: str = "elm") -> str:
    return f"/health-cards/{practice}/.well-known/crl/{kid}.json"


@pytest.mark.requirement("portal", "S2-10")
async def test_every_origin_reads_the_keys_and_none_is_private(world: World) -> None:
    assert (await get(world, KEYS)).json() == {"keys": []}
    kid = (await keys_at(world).signer("elm", world.clock())).kid
    answer = await get(world, KEYS, Origin="https://verifier.example")
    (key,) = answer.json()["keys"]
    assert key["kid"] == kid
    assert set(key) == {"kty", "kid", "use", "alg", "crv", "x", "y", "crlVersion"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert "set-cookie" not in answer.headers
    asked = await get(world, KEYS, "OPTIONS", Origin="https://verifier.example",
                      **{"Access-Control-Request-Method": "GET"})  # fmt: skip
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
    head = await get(world, KEYS, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert (await get(world, KEYS, "POST")).status_code == 405


async def test_that_there_is_no_key_yet_is_kept_by_nobody(world: World) -> None:
    """Planted fault: who asked before the first card cannot verify it for five minutes."""
    keys = keys_at(world)
    assert (await get(world, KEYS)).headers["cache-control"] == "no-store"
    kid = (await keys.signer("elm", world.clock())).kid
    assert (await get(world, KEYS)).headers["cache-control"] == "public, max-age=300"
    await keys.withdraw("elm", kid, now=world.clock())
    assert (await get(world, KEYS)).headers["cache-control"] == "no-store"


async def test_a_revocation_list_has_no_names(world: World) -> None:
    keys = keys_at(world)
    kid = (await keys.signer("elm", world.clock())).kid
    empty = await get(world, revoked_at(kid))
    assert empty.json() == {"kid": kid, "method": "rid", "ctr": 1, "rids": []}
    await keys.revoke("elm", "ada", now=world.clock())
    answer = await get(world, revoked_at(kid), Origin="https://verifier.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    (rid,) = answer.json()["rids"]
    assert rid.partition(".")[0] == keys.rid(kid, "elm", "ada")
    assert "ada" not in answer.text
    assert (await get(world, KEYS)).json()["keys"][0]["crlVersion"] == answer.json()["ctr"] == 2


async def test_what_there_is_not_is_not_found(world: World) -> None:
    kid = (await keys_at(world).signer("elm", world.clock())).kid
    for path in (
        KEYS.replace("elm", "ash"),
        KEYS.replace("elm", "%00"),
        KEYS.replace("elm", "x" * 3000),
        revoked_at("no-such-key"),
        revoked_at(kid, "oak"),
        revoked_at(kid, "ash"),
        "/health-cards/elm",
        "/health-cards/elm/.well-known/crl",
    ):
        answer = await get(world, path)
        assert answer.status_code == 404, path
        assert answer.headers.get("cache-control", "no-store") == "no-store"
