from __future__ import annotations

import pytest

from fhir_portal.smart.errors import InvalidRequestUri
from fhir_portal.smart.par import PushedRequest, is_pushed, key_of, request_uri_of
from tests.smart.world import World


def test_a_reference_is_told_from_a_request_objects_address() -> None:
    assert is_pushed(request_uri_of("abc"))
    assert not is_pushed("https://app.example/request.jwt")
    assert not is_pushed("urn:ietf:params:oauth:request_urix")
    assert not is_pushed("")


def test_each_reference_has_a_key_of_its_own_that_does_not_show_it() -> None:
    one, other = key_of(request_uri_of("abc")), key_of(request_uri_of("xyz"))
    assert one != other
    assert "abc" not in one


async def test_housekeeping_removes_what_nobody_came_for(world: World) -> None:
    app = await world.public_app()
    await app.post("/oauth/par", app.parameters())
    (kept,) = await world.store.every(PushedRequest)
    assert kept.expires == world.clock() + 60
    await world.store.transact(lambda transaction: transaction.drop_expired(world.clock() + 61))
    assert await world.store.every(PushedRequest) == []


@pytest.mark.parametrize("reference", ["", "unknown", "é" * 10_000])
async def test_a_reference_that_nobody_made_is_refused(world: World, reference: str) -> None:
    await world.public_app()
    pairs = [("client_id", "app"), ("request_uri", request_uri_of(reference))]
    with pytest.raises(InvalidRequestUri):
        await world.server.begin(pairs)
