from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.smart.client import (
    Client,
    DuplicateClient,
    UnknownClient,
    add_client,
    disable_client,
    enable_client,
    is_registered_origin,
    new_client_secret,
)
from fhir_portal.smart.errors import InvalidClientMetadata, InvalidRedirectUri, InvalidScope
from tests.smart.world import REDIRECT, World, assert_oauth_error, client_key

KEYS = {"keys": [client_key("ES384", "k").as_dict(private=False)]}


async def test_a_duplicate_client_is_refused_and_the_first_stays(world: World) -> None:
    await world.public_app("app")
    before = await world.rows()
    with pytest.raises(DuplicateClient):
        await world.confidential_app("app", redirect_uris=["https://evil.example/cb"])
    assert await world.rows() == before
    assert not await is_registered_origin(world.store, "https://evil.example")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": "with space"}, InvalidClientMetadata),
        ({"client_id": "x" * 101}, InvalidClientMetadata),
        ({"name": " "}, InvalidClientMetadata),
        ({"name": "Diary\u202e"}, InvalidClientMetadata),
        ({"redirect_uris": []}, InvalidClientMetadata),
        ({"redirect_uris": ["http://app.example/cb"]}, InvalidRedirectUri),
        ({"permissions": ["everything"]}, InvalidClientMetadata),
        ({"scope": "nonsense"}, InvalidScope),
        ({"scope": "system/*.rs"}, InvalidClientMetadata),
        ({"auth_method": "client_secret_basic"}, InvalidClientMetadata),
        ({"jwks": KEYS}, InvalidClientMetadata),
        ({"type": "confidential", "auth_method": "none"}, InvalidClientMetadata),
        ({"type": "confidential", "auth_method": "private_key_jwt"}, InvalidClientMetadata),
        ({"type": "backend", "redirect_uris": [], "scope": "system/*.rs"}, InvalidClientMetadata),
        (
            {"type": "backend", "redirect_uris": [], "scope": "system/*.rs", "jwks": KEYS},
            InvalidClientMetadata,
        ),
        (
            {
                "type": "backend",
                "redirect_uris": [],
                "scope": "patient/*.rs",
                "jwks": KEYS,
                "practice": "skin",
            },
            InvalidClientMetadata,
        ),
    ],
)
async def test_what_cannot_work_is_refused(
    world: World, changes: dict[str, Any], error: type[Exception]
) -> None:
    valid: dict[str, Any] = {"name": "Diary", "type": "public", "redirect_uris": [REDIRECT]}
    before = await world.rows()
    with pytest.raises(error):
        await add_client(world.store, now=0, random=world.random, **{**valid, **changes})
    assert await world.rows() == before


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": []},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [client_key("ES384", "k").as_dict(private=True)]},
        {"keys": "none"},
        {"keys": [{"kty": "EC"}]},
        {"keys": [7]},
        {"keys": [{"kty": "RSA", "e": "AQAB", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9"}]},
    ],
)
async def test_only_public_keys_are_kept(world: World, jwks: dict[str, Any]) -> None:
    with pytest.raises(InvalidClientMetadata):
        await world.backend(jwks=jwks)
    assert (await world.rows())["client"] == []


async def test_a_new_secret_replaces_the_old_one(world: World) -> None:
    app = await world.confidential_app()
    secret = await new_client_secret(world.store, app.client_id, random=world.random)
    assert secret != app.secret
    assert_oauth_error(await app.exchange("x"), "invalid_client", 401)
    app.secret = secret
    assert_oauth_error(await app.exchange("x"), "invalid_grant")


async def test_a_client_without_a_secret_gets_none(world: World) -> None:
    await world.public_app()
    with pytest.raises(InvalidClientMetadata):
        await new_client_secret(world.store, "app", random=world.random)


async def test_a_disabled_backend_loses_its_tokens(world: World) -> None:
    ehr = await world.backend()
    token = (await ehr.backend_token()).json()["access_token"]
    await disable_client(world.store, "ehr", now=world.clock())
    assert not await world.is_alive(token)
    assert_oauth_error(await ehr.backend_token(), "invalid_client", 401)
    await enable_client(world.store, "ehr")
    assert (await ehr.backend_token()).status_code == 200
    assert not await world.is_alive(token)


async def test_an_unknown_client_cannot_be_changed(world: World) -> None:
    with pytest.raises(UnknownClient):
        await disable_client(world.store, "nobody", now=0)
    with pytest.raises(UnknownClient):
        await enable_client(world.store, "nobody")
    with pytest.raises(UnknownClient):
        await new_client_secret(world.store, "nobody", random=world.random)


async def test_secrets_are_hashed_at_rest(world: World) -> None:
    app = await world.confidential_app()
    assert app.secret
    assert app.secret not in str(await world.store.every(Client))
