from __future__ import annotations

import base64
import dataclasses

import httpx
import pytest

from fhir_portal.smart.client import disable_client
from fhir_portal.smart.issuer import DAY
from fhir_portal.smart.revocation import disable_account
from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.smart.world import START, World, assert_oauth_error, childs_record, own_record

OTHER_UUID = "8e2f5b9a-7c1d-4f43-9a40-2b6f5f4f9f10"


async def test_a_refresh_gives_new_tokens_and_keeps_the_record(world: World) -> None:
    app = await world.public_app()
    first = await app.tokens()
    world.clock.advance(600)
    response = await app.refresh(first["refresh_token"])
    second = response.json()
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert second["patient"] == first["patient"]
    assert second["scope"] == first["scope"]
    assert second["expires_in"] == 900
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert await world.is_alive(second["access_token"])


async def test_each_refresh_gives_three_more_months(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    for _ in range(3):
        world.clock.advance(91 * DAY)
        response = await app.refresh(body["refresh_token"])
        assert response.status_code == 200
        body = response.json()


async def test_unused_for_longer_it_is_over(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    world.clock.advance(92 * DAY)
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")


async def test_the_whole_scope_received_may_be_sent_again(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    response = await app.refresh(body["refresh_token"], scope=body["scope"])
    assert response.status_code == 200
    assert response.json()["scope"] == body["scope"]


async def test_a_refresh_may_ask_for_less_and_later_for_all_again(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    less = (await app.refresh(body["refresh_token"], scope="patient/Observation.read")).json()
    assert less["scope"] == "patient/Observation.read"
    again = (await app.refresh(less["refresh_token"])).json()
    assert again["scope"] == body["scope"]


@pytest.mark.parametrize(
    "scope",
    [
        "patient/Condition.rs",
        "patient/*.rs",
        "patient/Patient.cruds",
        "system/Patient.rs",
        "nonsense",
    ],
)
async def test_a_refresh_cannot_ask_for_more(world: World, scope: str) -> None:
    app = await world.public_app()
    body = await app.tokens()
    before = await world.rows()
    assert_oauth_error(await app.refresh(body["refresh_token"], scope=scope), "invalid_scope")
    assert await world.rows() == before


async def test_a_repeat_within_thirty_seconds_gets_the_same_reply(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    first = await app.refresh(body["refresh_token"])
    before = await world.rows()
    world.clock.advance(30)
    again = await app.refresh(body["refresh_token"])
    assert again.status_code == 200
    assert again.content == first.content
    assert await world.rows() == before


async def test_a_later_repeat_ends_the_family(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    second = (await app.refresh(body["refresh_token"])).json()
    world.clock.advance(31)
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")
    assert not await world.is_alive(second["access_token"])
    assert_oauth_error(await app.refresh(second["refresh_token"]), "invalid_grant")
    assert (await world.only_family()).ended_because == "refresh-token-reused"


async def test_a_repeat_after_its_successor_was_used_ends_the_family(world: World) -> None:
    app = await world.public_app()
    first = await app.tokens()
    second = (await app.refresh(first["refresh_token"])).json()
    third = (await app.refresh(second["refresh_token"])).json()
    assert_oauth_error(await app.refresh(first["refresh_token"]), "invalid_grant")
    assert not await world.is_alive(third["access_token"])


async def test_a_repeat_that_asks_for_something_else_ends_the_family(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    second = (await app.refresh(body["refresh_token"], scope="patient/Observation.rs")).json()
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")
    assert not await world.is_alive(second["access_token"])


async def test_another_client_cannot_use_it(world: World) -> None:
    app = await world.confidential_app()
    thief = await world.confidential_app("thief")
    body = await app.tokens()
    before = await world.rows()
    assert_oauth_error(await thief.refresh(body["refresh_token"]), "invalid_grant")
    assert await world.rows() == before


@pytest.mark.parametrize("token", [OTHER_UUID, "", "é", "=" * 70, "A" * 70])
async def test_what_is_no_refresh_token_buys_nothing(world: World, token: str) -> None:
    app = await world.public_app()
    await app.tokens()
    before = await world.rows()
    response = await app.refresh(token)
    assert response.status_code == 400
    assert response.json()["error"] in ("invalid_grant", "invalid_request")
    assert await world.rows() == before


async def test_a_forged_generation_neither_works_nor_ends_the_family(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    raw = bytearray(base64.urlsafe_b64decode(body["refresh_token"] + "=="))
    raw[19] += 1  # the next generation, without the proof for it
    forged = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    before = await world.rows()
    assert_oauth_error(await app.refresh(forged), "invalid_grant")
    assert await world.rows() == before


async def test_a_grant_that_was_withdrawn_ends_the_family(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.public_app()
    body = await app.tokens()
    world.directory.access[world.mara.key] = (own_record(),)
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")
    assert not await world.is_alive(body["access_token"])
    assert (await world.only_family()).ended_because == "access-ended"


async def test_a_grant_that_was_replaced_needs_consent_again(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.public_app()
    body = await app.tokens()
    other = dataclasses.replace(childs_record(), grant="Consent/another")
    world.directory.access[world.mara.key] = (other,)
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")


async def test_a_grant_that_was_narrowed_narrows_the_next_token(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.public_app()
    body = await app.tokens(scope="offline_access patient/Observation.rs patient/Patient.rs")
    assert body["scope"] == "offline_access patient/Observation.rs patient/Patient.rs"
    world.directory.access[world.mara.key] = (
        dataclasses.replace(childs_record(), sections=frozenset({"demographics"})),
    )
    again = (await app.refresh(body["refresh_token"])).json()
    assert again["scope"] == "offline_access patient/Patient.rs"


async def test_a_family_ends_after_a_year_however_often_it_is_used(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    for _ in range(4):
        world.clock.advance(91 * DAY)
        body = (await app.refresh(body["refresh_token"])).json()
    assert (await world.only_family()).expires == START + 365 * DAY
    world.clock.advance(DAY)
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")


async def test_a_disabled_account_is_out_at_once(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    assert await disable_account(world.store, world.mara.key, now=world.clock()) == 1
    assert not await world.is_alive(body["access_token"])
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_grant")


async def test_a_disabled_client_is_out_at_once(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    assert await disable_client(world.store, "app", now=world.clock()) == 1
    assert not await world.is_alive(body["access_token"])
    assert_oauth_error(await app.refresh(body["refresh_token"]), "invalid_client", 401)


async def test_what_is_stored_is_not_enough_to_make_a_token(world: World) -> None:
    """Neither handle nor tokens are at rest; the key of the family is a hash."""
    app = await world.public_app()
    body = await app.tokens()
    handle = base64.urlsafe_b64decode(body["refresh_token"] + "==")[:16]
    stored = str(await world.rows())
    assert handle.hex() not in stored
    assert str(handle) not in stored
    assert body["refresh_token"] not in stored
    assert (await world.only_family()).issued == START


async def test_each_generation_has_one_access_token(world: World) -> None:
    app = await world.public_app()
    body = await app.tokens()
    await app.refresh(body["refresh_token"])
    await app.refresh(body["refresh_token"])
    assert len(await world.store.every(AccessToken)) == 2
    (family,) = await world.store.every(TokenFamily)
    assert family.generation == 1


async def test_a_public_client_need_not_name_itself(world: World) -> None:
    app = await world.public_app()
    first = await app.tokens()
    response = await nameless_refresh(world, first["refresh_token"])
    assert response.status_code == 200
    assert await world.is_alive(response.json()["access_token"])
    again = await nameless_refresh(world, first["refresh_token"])
    assert again.content == response.content


async def test_a_client_with_a_secret_has_to_show_it(world: World) -> None:
    app = await world.confidential_app()
    first = await app.tokens()
    assert_oauth_error(
        await nameless_refresh(world, first["refresh_token"]), "invalid_client", status=401
    )
    assert (await app.refresh(first["refresh_token"])).status_code == 200


async def nameless_refresh(world: World, refresh_token: str) -> httpx.Response:
    async with world.http() as http:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await http.post("/oauth/token", data=form)
