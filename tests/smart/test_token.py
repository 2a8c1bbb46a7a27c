from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.token import RefreshToken, authenticate
from tests.smart.world import World, signing_key

KEYS = ServerKeys(b"s" * 32, signing_key())


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1))
def test_a_refresh_token_is_read_back_from_its_text(handle: bytes, generation: int) -> None:
    token = RefreshToken.derive(KEYS, handle, generation)
    assert RefreshToken.parse(str(token)) == token
    assert token.is_genuine(KEYS)
    assert not token.is_genuine(ServerKeys(b"t" * 32, signing_key()))


@given(st.text())
def test_any_text_is_a_refresh_token_or_not(text: str) -> None:
    token = RefreshToken.parse(text)
    assert token is None or str(token) == text


async def test_a_token_is_good_until_it_expires(world: World) -> None:
    app = await world.public_app()
    token = (await app.tokens())["access_token"]
    now = world.clock()
    found = await authenticate(world.store, token, now + 899.9)
    assert found is not None
    assert (found.client_id, found.patient, found.practice) == ("app", "Patient/mara", "skin")
    assert (found.fhir_user, found.account, found.context) == (
        "Patient/mara",
        world.mara.key,
        "patient",
    )
    assert await authenticate(world.store, token, now + 900) is None


@pytest.mark.parametrize("bearer", ["", "x", "é" * 30, "a b" * 20, "x" * 10_000, "\x00" * 43])
async def test_what_is_no_token_is_nobody(world: World, bearer: str) -> None:
    assert await authenticate(world.store, bearer, world.clock()) is None


async def test_a_refresh_token_is_no_access_token(world: World) -> None:
    app = await world.public_app()
    token = (await app.tokens())["refresh_token"]
    assert await authenticate(world.store, token, world.clock()) is None


async def test_nothing_secret_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = await world.confidential_app()
    code = await app.code()
    body = (await app.exchange(code)).json()
    again = (await app.refresh(body["refresh_token"])).json()
    secrets = (code, body["access_token"], again["refresh_token"], app.secret, app.verifier)
    for secret in secrets:
        assert secret
        assert secret not in caplog.text
