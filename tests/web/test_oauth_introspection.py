"""Token introspection as the certification tests ask for it, and RFC 7662.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc import jwt

from fhir_portal.smart.token import AccessToken
from tests.smart.world import (
    START,
    App,
    World,
    assert_oauth_error,
    childs_record,
    published_keys,
)

INFERNO = "inferno"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


async def introspected(app: App, token: str, **form: str) -> httpx.Response:
    headers = {"Accept": "application/json"}
    return await app.post("/oauth/introspect", {"token": token, **form}, headers=headers)


@pytest.mark.requirement(INFERNO, "S49")
async def test_a_form_with_the_token_alone_is_enough(world: World) -> None:
    """Planted fault: a bad token is an error."""
    app = await world.confidential_app()
    good = (await app.tokens())["access_token"]
    assert app.secret is not None
    for token in (good, "bad-token-of-nobody"):
        async with world.http(auth=(app.client_id, app.secret)) as http:
            response = await http.post(
                "/oauth/introspect",
                content=f"token={token}",
                headers={
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Accept": "application/json",
                },
            )
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.requirement(INFERNO, "S50")
@pytest.mark.parametrize("kind", ["app", "backend", "signing app"])
async def test_an_active_token_has_its_client_scope_and_end(world: World, kind: str) -> None:
    """Planted fault: ``scope`` is what the client registered for."""
    if kind == "backend":
        asker = await world.backend()
        body = (await asker.backend_token()).json()
    elif kind == "app":
        asker = await world.confidential_app()
        body = await asker.tokens()
    else:
        signer = await world.backend("signer")
        assert signer.key is not None
        jwks = {"keys": [{**signer.key.as_dict(private=False), "kid": "app-key"}]}
        asker = await world.confidential_app("app", auth_method="private_key_jwt", jwks=jwks)
        asker.key = signer.key
        body = await asker.tokens()
    found = (await introspected(asker, body["access_token"])).json()
    assert found["active"] is True
    assert found["client_id"] == asker.client_id
    assert sorted(found["scope"].split()) == sorted(body["scope"].split())
    assert found["exp"] == int(START) + body["expires_in"]


@pytest.mark.requirement(INFERNO, "S51")
async def test_context_and_identity_are_those_of_the_token_response(world: World) -> None:
    """Planted fault: the launch context is left out."""
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.confidential_app()
    body = await app.tokens()
    claims = jwt.decode(
        body["id_token"], published_keys(world.keys.jwks()), algorithms=["RS256"]
    ).claims
    found = (await introspected(app, body["access_token"])).json()
    for name in ("patient", "need_patient_banner"):
        assert found[name] == body[name]
    for name in ("iss", "sub", "fhirUser"):
        assert found[name] == claims[name]


@pytest.mark.requirement(INFERNO, "S51")
async def test_without_an_id_token_there_is_no_identity(world: World) -> None:
    """Planted fault: who the person is, is told without ``openid``."""
    app = await world.confidential_app()
    body = await app.tokens(scope="launch/patient patient/Patient.rs")
    found = (await introspected(app, body["access_token"])).json()
    assert found["patient"] == "mara"
    assert not found.keys() & {"iss", "sub", "fhirUser"}


@pytest.mark.requirement(INFERNO, "S52")
@pytest.mark.parametrize(
    "token", ["x", "unknown-token-of-nobody-xx", "é" * 40, "A" * 70, "A" * 5000, "' OR '1'='1"]
)
async def test_a_bad_token_is_inactive_and_that_is_all(world: World, token: str) -> None:
    """Planted fault: why it is inactive is told."""
    app = await world.confidential_app()
    response = await introspected(app, token)
    assert response.content == b'{"active":false}'


@pytest.mark.requirement(INFERNO, "S52")
async def test_every_token_that_is_no_good_any_more_is_a_bad_one(world: World) -> None:
    """Planted fault: a revoked token is told from an unknown one."""
    app, other = await world.confidential_app(), await world.confidential_app("other")
    first = await app.tokens()
    second = (await app.refresh(first["refresh_token"])).json()
    answers = [
        await introspected(other, second["access_token"]),
        await introspected(app, first["refresh_token"]),
        await introspected(app, second["id_token"]) if "id_token" in second else None,
        await introspected(app, first["id_token"]),
    ]
    await app.post("/oauth/revoke", {"token": second["access_token"]})
    answers += [
        await introspected(app, token)
        for token in (first["access_token"], second["access_token"], second["refresh_token"])
    ]
    assert {answer.content for answer in answers if answer is not None} == {b'{"active":false}'}


@pytest.mark.requirement(INFERNO, "X9")
@pytest.mark.parametrize("how", ["nobody", "public", "wrong secret", "bearer"])
async def test_introspection_itself_needs_authorization(world: World, how: str) -> None:
    """Planted fault: whoever holds a token may have it explained."""
    app, public = await world.confidential_app(), await world.public_app()
    token = (await app.tokens())["access_token"]
    form = {"token": token}
    options: dict[str, Any] = {}
    if how == "public":
        form["client_id"] = public.client_id
    elif how == "wrong secret":
        options["auth"] = (app.client_id, "wrong")
    elif how == "bearer":
        options["headers"] = {"Authorization": f"Bearer {token}"}
    async with world.http() as http:
        response = await http.post("/oauth/introspect", data=form, **options)
    assert_oauth_error(response, "invalid_client", 401)


async def test_looking_at_a_token_does_not_use_it_up(world: World) -> None:
    app = await world.confidential_app()
    body = await app.tokens()
    for _ in range(3):
        assert (await introspected(app, body["refresh_token"])).json()["active"] is True
    assert (await app.refresh(body["refresh_token"])).status_code == 200
    assert len(await world.store.every(AccessToken)) == 2
