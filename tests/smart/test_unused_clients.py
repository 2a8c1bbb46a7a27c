"""Registrations that nobody ever used go after a month; everything else stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fhir_portal.records import drop_expired
from fhir_portal.smart.client import Client, ClientOrigin, approve_client, withdraw_approval
from fhir_portal.smart.revocation import RevocationListener
from fhir_portal.smart.unused_clients import KEPT_SECONDS, SWEEP_SECONDS, ClientUse, UnusedClients
from tests.smart.world import REDIRECT, App, World

URI = "https://app.example/events"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


async def register(world: World, **metadata: Any) -> App:
    async with world.http() as http:
        told = await http.post(
            "/oauth/register",
            json={
                "redirect_uris": [REDIRECT],
                "token_endpoint_auth_method": "none",
                "backchannel_revocation_uri": URI,
                **metadata,
            },
        )
    assert told.status_code == 201, told.text
    client = await world.store.get(Client, told.json()["client_id"])
    assert client is not None
    return App(world, client, None)


async def is_there(world: World, app: App) -> bool:
    return await world.store.get(Client, app.client.key) is not None


async def live_on(world: World, seconds: float) -> int:
    """Time goes by, and the house is kept as the server keeps it; how many clients went."""
    unused, went = UnusedClients(world.store), 0
    end = world.clock() + seconds
    while world.clock() < end:
        world.clock.advance(min(SWEEP_SECONDS, end - world.clock()))
        went += await unused.sweep(world.clock())
        await drop_expired(world.store, world.clock())
    return went


async def test_a_registration_that_nobody_used_goes_after_a_month(world: World) -> None:
    """Planted faults: it stays; its rows stay; it goes at once."""
    app = await register(world)
    assert await live_on(world, KEPT_SECONDS - 1) == 0
    assert await is_there(world, app)
    assert await live_on(world, 1) == 1
    for kind in (Client, ClientOrigin, RevocationListener, ClientUse):
        assert await world.store.every(kind) == []


async def test_one_that_was_used_once_stays(world: World) -> None:
    """Its id is in an app on somebody's telephone.

    Planted fault: whatever has no token at this moment was never used.
    """
    app, other = await register(world), await register(world)
    await app.tokens(scope="launch/patient openid patient/Patient.rs")  # not offline
    assert await live_on(world, 13 * KEPT_SECONDS) == 1
    assert await is_there(world, app)
    assert not await is_there(world, other)
    assert [use.key for use in await world.store.every(ClientUse)] == [app.client.key]


async def test_a_server_that_was_off_for_long_sees_what_was_used_before(world: World) -> None:
    """Planted fault: what has expired is dropped before."""
    app = await register(world)
    world.clock.advance(KEPT_SECONDS)
    await app.tokens(scope="launch/patient openid patient/Patient.rs")
    world.clock.advance(KEPT_SECONDS)
    assert await UnusedClients(world.store).sweep(world.clock()) == 0
    await drop_expired(world.store, world.clock())
    assert await live_on(world, KEPT_SECONDS) == 0
    assert await is_there(world, app)


async def test_a_code_that_was_not_exchanged_yet_is_a_use(world: World) -> None:
    app = await register(world)
    world.clock.advance(KEPT_SECONDS)
    code = await app.code()
    assert await UnusedClients(world.store).sweep(world.clock()) == 0
    assert (await app.exchange(code)).status_code == 200


async def test_what_an_operator_added_stays(world: World) -> None:
    """Planted fault: whoever registered it is not looked at."""
    app = await world.public_app("added", backchannel_revocation_uri=URI)
    assert await live_on(world, 2 * KEPT_SECONDS) == 0
    assert await is_there(world, app)
    assert len(await world.store.every(RevocationListener)) == 1


BACKEND = {
    "redirect_uris": [],
    "grant_types": ["client_credentials"],
    "response_types": [],
    "token_endpoint_auth_method": "private_key_jwt",
    "jwks_uri": "https://ehr.example/jwks",
    "scope": "system/Patient.rs",
    "backchannel_revocation_uri": None,
}


async def test_what_an_operator_approved_stays_and_what_waits_for_it_goes(world: World) -> None:
    """Planted fault: approval does not matter."""
    metadata = {name: value for name, value in BACKEND.items() if value}
    approved, _ = [await register_backend(world, metadata) for _ in range(2)]
    await approve_client(world.store, approved, practices=("skin",))
    assert await live_on(world, 2 * KEPT_SECONDS) == 1
    assert [client.key for client in await world.store.every(Client)] == [approved]


async def register_backend(world: World, metadata: dict[str, Any]) -> str:
    async with world.http() as http:
        told = await http.post("/oauth/register", json=metadata)
    assert told.status_code == 201, told.text
    return str(told.json()["client_id"])


async def test_what_an_operator_approved_once_stays_without_the_approval(world: World) -> None:
    app = await register(world)
    await approve_client(world.store, app.client.key, practices=("skin",))
    await live_on(world, SWEEP_SECONDS)
    await withdraw_approval(world.store, app.client.key, practices=("skin",), now=world.clock())
    assert await live_on(world, 2 * KEPT_SECONDS) == 0
    assert await is_there(world, app)


async def test_one_that_is_approved_at_the_moment_it_would_go_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: it is not looked at again in the transaction."""
    app = await register(world)
    world.clock.advance(KEPT_SECONDS)
    transact = world.store.transact

    async def late(work: Any) -> Any:
        async def approve(transaction: Any) -> None:
            client = await transaction.get(Client, app.client.key)
            await transaction.put(msgspec.structs.replace(client, approved_at=("skin",)))

        await transact(approve)
        return await transact(work)

    monkeypatch.setattr(world.store, "transact", late)
    assert await UnusedClients(world.store).sweep(world.clock()) == 0
    assert await is_there(world, app)


async def test_one_that_is_used_at_the_moment_it_would_go_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: whether it is used is not looked at again in the transaction."""
    app = await register(world)
    world.clock.advance(KEPT_SECONDS)
    transact = world.store.transact

    async def late(work: Any) -> Any:
        monkeypatch.undo()
        await app.code()
        return await transact(work)

    monkeypatch.setattr(world.store, "transact", late)
    assert await UnusedClients(world.store).sweep(world.clock()) == 0
    assert await is_there(world, app)


async def test_more_than_one_page_of_clients_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: the first page, again and again."""
    monkeypatch.setattr("fhir_portal.smart.unused_clients._PAGE", 2)
    for _ in range(5):
        await register(world)
    await world.public_app("added")
    world.clock.advance(KEPT_SECONDS)
    unused = UnusedClients(world.store)
    assert await unused.sweep(world.clock()) == 5
    await register(world)
    world.clock.advance(SWEEP_SECONDS - 1)
    assert unused._next > world.clock()  # noqa: SLF001 - the next one comes in its time
