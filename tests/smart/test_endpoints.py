"""Introspection and revocation."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from fhir_portal.records import RecordTransaction
from fhir_portal.smart.token import TokenFamily
from tests.smart.world import (
    BASE,
    START,
    App,
    World,
    assert_oauth_error,
    childs_record,
    own_record,
)


async def introspect(app: App, token: str, **form: str) -> dict[str, Any]:
    response = await app.post("/oauth/introspect", {"token": token, **form})
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    found: dict[str, Any] = response.json()
    return found


async def revoke(app: App, token: str, **form: str) -> None:
    response = await app.post("/oauth/revoke", {"token": token, **form})
    assert response.status_code == 200, response.text


async def test_an_app_sees_its_own_token(world: World) -> None:
    app = await world.confidential_app()
    body = await app.tokens()
    assert await introspect(app, body["access_token"]) == {
        "active": True,
        "scope": body["scope"],
        "client_id": "web-app",
        "token_type": "Bearer",
        "iat": int(START),
        "exp": int(START) + 900,
        "patient": "mara",
        "need_patient_banner": True,
        "iss": BASE,
        "sub": world.mara.key,
        "fhirUser": f"{BASE}/fhir/Patient/mara",
    }


async def test_its_refresh_token_is_active_until_it_is_used(world: World) -> None:
    app = await world.confidential_app()
    body = await app.tokens()
    assert (await introspect(app, body["refresh_token"]))["active"] is True
    await app.refresh(body["refresh_token"])
    assert await introspect(app, body["refresh_token"]) == {"active": False}


@pytest.mark.parametrize("token", ["unknown", "é" * 30, "A" * 70])
async def test_a_bad_token_is_inactive_and_nothing_else(world: World, token: str) -> None:
    app = await world.confidential_app()
    assert await introspect(app, token) == {"active": False}


async def test_an_expired_token_is_inactive(world: World) -> None:
    app = await world.confidential_app()
    body = await app.tokens()
    world.clock.advance(900)
    assert await introspect(app, body["access_token"]) == {"active": False}


async def test_another_apps_token_looks_like_a_bad_one(world: World) -> None:
    app, other = await world.confidential_app(), await world.confidential_app("other")
    body = await app.tokens()
    assert await introspect(other, body["access_token"]) == {"active": False}


async def test_with_permission_a_client_sees_the_tokens_of_its_practice_only(world: World) -> None:
    app = await world.confidential_app()
    same = await world.backend("skin-api", permissions=["introspect"])
    elsewhere = await world.backend("family-api", practice="family", permissions=["introspect"])
    without = await world.backend("skin-ehr")
    token = (await app.tokens())["access_token"]
    assert (await introspect(same, token))["active"] is True
    assert await introspect(elsewhere, token) == {"active": False}
    assert await introspect(without, token) == {"active": False}


async def test_a_backend_sees_its_own_token(world: World) -> None:
    ehr = await world.backend()
    token = (await ehr.backend_token()).json()["access_token"]
    found = await introspect(ehr, token)
    assert found["active"] is True
    assert "patient" not in found
    assert "sub" not in found


async def test_an_unknown_hint_is_ignored(world: World) -> None:
    app = await world.confidential_app()
    body = await app.tokens()
    found = await introspect(app, body["access_token"], token_type_hint="saml")
    assert found["active"] is True


async def test_introspection_needs_a_client_that_authenticates(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    response = await app.post("/oauth/introspect", {"token": body["access_token"]})
    assert_oauth_error(response, "invalid_client", 401)
    async with world.http() as http:
        nobody = await http.post("/oauth/introspect", data={"token": body["access_token"]})
        bearer = await http.post(
            "/oauth/introspect",
            data={"token": body["access_token"]},
            headers={"Authorization": f"Bearer {body['access_token']}"},
        )
    assert_oauth_error(nobody, "invalid_client", 401)
    assert_oauth_error(bearer, "invalid_client", 401)


async def has_ended(world: World, _: App) -> None:
    world.directory.access[world.mara.key] = ()


async def is_under_another_grant(world: World, _: App) -> None:
    (record,) = world.directory.access[world.mara.key]
    changed = dataclasses.replace(record, grant="Consent/another")
    world.directory.access[world.mara.key] = (changed,)


async def is_over_at_this_moment(world: World, _: App) -> None:
    (record,) = world.directory.access[world.mara.key]
    changed = dataclasses.replace(record, until=world.clock())
    world.directory.access[world.mara.key] = (changed,)


async def is_of_a_disabled_account(world: World, _: App) -> None:
    await change(world, msgspec.structs.replace(world.mara, disabled=True))


async def is_for_a_disabled_app(world: World, app: App) -> None:
    await change(world, msgspec.structs.replace(app.client, disabled=True))


async def change(world: World, record: Any) -> None:
    """Change a record without all that an operator's command would do besides."""

    async def put(transaction: RecordTransaction) -> None:
        await transaction.put(record)

    await world.store.transact(put)


@pytest.mark.parametrize(
    "happens",
    [
        has_ended,
        is_under_another_grant,
        is_over_at_this_moment,
        is_of_a_disabled_account,
        is_for_a_disabled_app,
    ],
)
@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_what_the_fhir_api_would_refuse_is_inactive(
    world: World, happens: Callable[[World, App], Awaitable[None]], which: str
) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.confidential_app()
    api = await world.backend("family-api", practice="family", permissions=["introspect"])
    token = (await app.tokens())[which]
    assert (await introspect(api, token))["active"] is True
    await happens(world, app)
    assert await introspect(api, token) == {"active": False}


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
@pytest.mark.parametrize("form", [{}, {"token": ""}])
async def test_a_missing_token_is_an_invalid_request(
    world: World, path: str, form: dict[str, str]
) -> None:
    app = await world.confidential_app()
    assert_oauth_error(await app.post(path, form), "invalid_request")


async def test_an_assertion_is_good_once_here_too(world: World) -> None:
    ehr = await world.backend()
    assertion = ehr.assertion()
    await introspect(ehr, "unknown", client_assertion=assertion)
    for path in ("/oauth/introspect", "/oauth/revoke", "/oauth/token"):
        response = await ehr.post(
            path,
            {
                "token": "unknown",
                "grant_type": "client_credentials",
                "scope": "system/*.rs",
                "client_assertion": assertion,
            },
        )
        assert_oauth_error(response, "invalid_client", 401)


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_revoking_either_token_ends_both(world: World, which: str) -> None:
    app = await world.public_app()
    body = await app.tokens()
    await revoke(app, body[which], token_type_hint=which)
    assert not await world.is_alive(body["access_token"])
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")
    assert (await world.only_family()).ended_because == "by-client"


async def test_revoking_ends_the_access_tokens_of_former_refreshes(world: World) -> None:
    app = await world.public_app()
    first = await app.tokens()
    second = (await app.refresh(first["refresh_token"])).json()
    await revoke(app, first["refresh_token"])
    assert not await world.is_alive(first["access_token"])
    assert not await world.is_alive(second["access_token"])


async def test_revoking_leaves_other_families_alone(world: World) -> None:
    app = await world.public_app()
    one, other = await app.tokens(), await app.tokens()
    await revoke(app, one["access_token"])
    assert await world.is_alive(other["access_token"])


async def test_revoking_what_is_unknown_is_no_error(world: World) -> None:
    app = await world.confidential_app()
    before = await world.rows()
    await revoke(app, "unknown")
    await revoke(app, "unknown")
    assert await world.rows() == before


async def test_another_app_cannot_revoke(world: World) -> None:
    app, other = await world.public_app(), await world.public_app("other")
    body = await app.tokens()
    response = await other.post("/oauth/revoke", {"token": body["access_token"]})
    assert_oauth_error(response, "invalid_grant")
    assert await world.is_alive(body["access_token"])


async def test_a_backend_revokes_one_token_of_its_own(world: World) -> None:
    ehr = await world.backend()
    one = (await ehr.backend_token()).json()["access_token"]
    other = (await ehr.backend_token()).json()["access_token"]
    await revoke(ehr, one)
    assert not await world.is_alive(one)
    assert await world.is_alive(other)


async def test_what_one_person_revokes_stays_with_the_other(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    other = await world.account("jon@example.org", own_record("Patient/jon", "Jon Quill"))
    world.mara = other
    jons = await app.tokens()
    await revoke(app, jons["access_token"])
    alive = [f.patient for f in await world.store.every(TokenFamily) if f.ended is None]
    assert alive == ["Patient/mara"]
