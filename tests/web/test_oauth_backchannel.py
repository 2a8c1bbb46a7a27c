"""Telling apps that access has ended: registration, delivery, and where it is never sent.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc import jwt

from fhir_portal.notify.outbox import OutboxMessage, UndeliverableMessage, deliver_due
from fhir_portal.notify.revocation_events import RevocationEvents, by_channel
from fhir_portal.smart.client import Client
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.outbound import Outbound
from fhir_portal.smart.revocation import RevocationListener, revoke_family
from tests.smart.hosts import as_it_is
from tests.smart.world import BASE, REDIRECT, App, World, assert_oauth_error, published_keys

URI = "https://app.example/events"
METADATA = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


def delivery(world: World, **options: Any) -> Any:
    async def keys() -> ServerKeys:
        return world.keys

    outbound = Outbound(world.hosts.http, resolve=world.hosts.resolve, **options)
    return by_channel({"webhook": RevocationEvents(outbound, keys, world.server.issuer)})


async def deliver(world: World, **options: Any) -> int:
    sender = delivery(world, **options)
    return await deliver_due(world.store, sender, worker="w", clock=world.clock)


async def ended(world: World, app: App) -> dict[str, Any]:
    """Tokens, and their end; what the app was told with them."""
    body = await app.tokens()
    family = await world.only_family()

    async def change(transaction: Any) -> None:
        await revoke_family(transaction, family.key, now=world.clock(), because="by-person")

    await world.store.transact(change)
    return body


async def message(world: World) -> OutboxMessage:
    (found,) = await world.store.every(OutboxMessage)
    return found


async def test_discovery_says_that_apps_can_be_told(world: World) -> None:
    event = f"{BASE}/oauth/events/access-ended"
    for document in (world.server.smart_configuration(), world.server.openid_configuration()):
        assert document["backchannel_revocation_supported"] is True
        assert document["backchannel_revocation_event"] == event
    async with world.http() as http:
        response = await http.get(event.removeprefix(BASE), headers={"Origin": "https://x.example"})
    assert response.json()["$id"] == event
    assert response.headers["access-control-allow-origin"] == "*"


async def test_an_app_registers_where_it_is_told_and_is_told(world: World) -> None:
    async with world.http() as http:
        told = await http.post(
            "/oauth/register", json={**METADATA, "backchannel_revocation_uri": URI}
        )
    assert told.json()["backchannel_revocation_uri"] == URI
    client = await world.store.get(Client, told.json()["client_id"])
    assert client is not None
    world.hosts.serve("app.example", as_it_is(b"", status=202))
    body = await ended(world, App(world, client, None))
    assert await deliver(world) == 1
    (request,) = world.hosts.asked
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/secevent+jwt"
    assert request.headers["host"] == "app.example"
    async with world.http() as http:
        keys = published_keys((await http.get("/oauth/jwks")).json())
    token = jwt.decode(request.content.decode(), keys, algorithms=["RS256"])
    assert token.claims["aud"] == client.key
    assert token.claims["sub_id"]["id"] == body["grant_id"]


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example/events",
        "https://127.0.0.1/events",
        "https://localhost/events",
        "https://10.0.0.1/events",
        "javascript:alert(1)",
        "https://app.example/#x",
        "https://user@app.example/",
        "",
    ],
)
async def test_an_address_that_cannot_be_told_is_not_registered(world: World, uri: str) -> None:
    """Planted fault: the address is kept as it was sent."""
    metadata = {**METADATA, "backchannel_revocation_uri": uri}
    async with world.http() as http:
        response = await http.post("/oauth/register", json=metadata)
    assert_oauth_error(response, "invalid_client_metadata")
    assert await world.store.every(RevocationListener) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1"])
async def test_a_name_that_means_an_inner_address_is_never_told(world: World, address: str) -> None:
    """Server-side request forgery by POST. Planted fault: addresses are not looked at."""
    app = await world.public_app(backchannel_revocation_uri=URI)
    world.hosts.serve("app.example", as_it_is(b"", status=202), address)
    await ended(world, app)
    assert await deliver(world) == 0
    assert world.hosts.asked == []
    found = await message(world)
    assert found.state == "failed"
    assert "public internet" in found.fault


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_answer_of_2xx_is_a_receipt(world: World, status: int) -> None:
    app = await world.public_app(backchannel_revocation_uri=URI)
    world.hosts.serve("app.example", as_it_is(b"", status=status))
    await ended(world, app)
    assert await deliver(world) == 1
    assert (await message(world)).state == "done"


@pytest.mark.parametrize(
    "answer", [{"status": 500}, {"status": 400}, {"status": 404}, {"status": 302, "location": URI}]
)
async def test_what_did_not_arrive_is_sent_again_as_the_same_event(
    world: World, answer: dict[str, Any]
) -> None:
    """Planted faults: a refusal gives it up; the second event has another name."""
    app = await world.public_app(backchannel_revocation_uri=URI)
    world.hosts.serve("app.example", as_it_is(b"", **answer))
    await ended(world, app)
    assert await deliver(world) == 0
    assert (await message(world)).state == "waiting"
    world.clock.advance(3600)
    world.hosts.serve("app.example", as_it_is(b"", status=202))
    assert await deliver(world) == 1
    keys = published_keys(world.keys.jwks())
    first, second = [
        jwt.decode(request.content.decode(), keys, algorithms=["RS256"]).claims
        for request in world.hosts.asked
    ]
    assert first == second


async def test_an_app_that_is_gone_is_given_up(world: World) -> None:
    app = await world.public_app(backchannel_revocation_uri="https://gone.example/")
    await ended(world, app)
    for _ in range(12):
        await deliver(world)
        world.clock.advance(86_400)
    assert (await message(world)).state == "failed"


async def test_an_app_stops_to_be_told_when_it_says_so(world: World) -> None:
    """Planted fault: the old address stays when the registration changes."""
    async with world.http() as http:
        told = (
            await http.post("/oauth/register", json={**METADATA, "backchannel_revocation_uri": URI})
        ).json()
        assert len(await world.store.every(RevocationListener)) == 1
        headers = {"Authorization": f"Bearer {told['registration_access_token']}"}
        path = told["registration_client_uri"].removeprefix(BASE)
        changed = await http.put(
            path, json={**METADATA, "client_id": told["client_id"]}, headers=headers
        )
    assert "backchannel_revocation_uri" not in changed.json()
    assert await world.store.every(RevocationListener) == []


async def test_an_app_that_deregisters_is_not_told_of_its_own_end(world: World) -> None:
    async with world.http() as http:
        told = (
            await http.post("/oauth/register", json={**METADATA, "backchannel_revocation_uri": URI})
        ).json()
        client = await world.store.get(Client, told["client_id"])
        assert client is not None
        await App(world, client, None).tokens()
        await http.delete(
            told["registration_client_uri"].removeprefix(BASE),
            headers={"Authorization": f"Bearer {told['registration_access_token']}"},
        )
    assert (await world.only_family()).ended is not None
    assert await world.store.every(OutboxMessage) == []


async def test_a_message_for_nobody_is_given_up_at_once(world: World) -> None:
    app = await world.public_app(backchannel_revocation_uri=URI)
    await ended(world, app)
    nobody = by_channel({})
    with pytest.raises(UndeliverableMessage):
        await nobody(await message(world))


async def test_the_event_goes_to_its_app_and_no_other(world: World) -> None:
    """Planted fault: every app that listens is told."""
    one = await world.public_app("one", backchannel_revocation_uri=URI)
    await world.public_app("two", backchannel_revocation_uri="https://two.example/")
    await ended(world, one)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["host"])
        return httpx.Response(202)

    world.hosts.serve("app.example", answer)
    world.hosts.serve("two.example", answer)
    await deliver(world)
    assert asked == ["app.example"]
