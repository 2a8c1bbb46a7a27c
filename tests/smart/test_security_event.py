"""The event that tells an app of ended access: what it says, and when it is written down.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from joserfc import jwt

from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.smart.client import disable_client
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.revocation import disable_account, revoke_family, revoke_where
from fhir_portal.smart.security_event import reason_of, schema, security_event
from fhir_portal.smart.token import TokenFamily, grant_id
from tests.smart.several import a_family, listed, swap
from tests.smart.world import BASE, START, World, published_keys, signing_key

KEYS = ServerKeys(b"s" * 32, signing_key())
URI = "https://app.example/events"
EVENT = f"{BASE}/oauth/events/access-ended"


async def messages(world: World) -> list[OutboxMessage]:
    return await world.store.every(OutboxMessage)


async def end(world: World, because: str = "by-person", *, fails: bool = False) -> None:
    """End the one family as an operator's or a person's change would."""
    family = await world.only_family()

    async def change(transaction: Any) -> None:
        await revoke_family(transaction, family.key, now=world.clock(), because=because)
        if fails:
            raise ZeroDivisionError

    await world.store.transact(change)


def test_the_event_is_what_its_description_says() -> None:
    made = security_event(
        KEYS,
        Issuer(BASE),
        name="access-ended.x",
        client_id="app",
        grant_id="g",
        reason="person",
        at=START,
    )
    token = jwt.decode(made, published_keys(KEYS.jwks()), algorithms=["RS256"])
    assert token.header == {"alg": "RS256", "kid": KEYS.kid, "typ": "secevent+jwt"}
    assert token.claims == {
        "iss": BASE,
        "aud": "app",
        "iat": int(START),
        "toe": int(START),
        "jti": "access-ended.x",
        "sub_id": {"format": "opaque", "id": "g"},
        "events": {EVENT: {"reason": "person"}},
    }
    description = schema(Issuer(BASE))
    jsonschema.Draft202012Validator.check_schema(description)
    jsonschema.Draft202012Validator(description).validate(token.claims)


@pytest.mark.parametrize(
    ("because", "reason"),
    [
        ("by-person", "person"),
        ("code-replayed", "misuse"),
        ("refresh-token-reused", "misuse"),
        ("account-disabled", "portal"),
        ("grant-ended", "portal"),
        ("whatever comes later", "portal"),
    ],
)
def test_the_reason_says_no_more_than_an_app_needs(because: str, reason: str) -> None:
    assert reason_of(because) == reason


async def test_ending_access_leaves_one_message_in_the_outbox(world: World) -> None:
    """Planted fault: the message is not written."""
    app = await world.public_app(backchannel_revocation_uri=URI)
    body = await app.tokens()
    await end(world)
    (message,) = await messages(world)
    family = await world.only_family()
    assert body["grant_id"] == grant_id(family.key)
    assert (message.channel, message.to, message.practice) == ("webhook", URI, "skin")
    assert message.values == {
        "client_id": "app",
        "grant_id": body["grant_id"],
        "because": "by-person",
    }
    await end(world)
    assert await messages(world) == [message]


async def test_a_change_that_fails_tells_nobody(world: World) -> None:
    """Planted fault: the message is written in a transaction of its own."""
    app = await world.public_app(backchannel_revocation_uri=URI)
    await app.tokens()
    with pytest.raises(ZeroDivisionError):
        await end(world, fails=True)
    assert await messages(world) == []
    assert (await world.only_family()).ended is None


async def test_the_message_holds_no_secret_and_no_person(world: World) -> None:
    """Planted fault: the family's key is what the app is told."""
    app = await world.confidential_app(backchannel_revocation_uri=URI)
    body = await app.tokens()
    family = await world.only_family()
    await end(world)
    text = str(await messages(world))
    for kept in (
        body["access_token"],
        body["refresh_token"],
        family.key,
        world.mara.key,
        "mara",
        str(app.secret),
    ):
        assert kept not in text


async def test_an_app_that_did_not_ask_is_not_told(world: World) -> None:
    app = await world.public_app()
    assert "grant_id" not in await app.tokens()
    await end(world)
    assert await messages(world) == []


async def test_an_app_is_not_told_what_it_did_itself(world: World) -> None:
    app = await world.public_app(backchannel_revocation_uri=URI)
    body = await app.tokens()
    await app.post("/oauth/revoke", {"token": body["refresh_token"]})
    assert (await world.only_family()).ended is not None
    assert await messages(world) == []


async def by_replay(_: World, app: Any) -> None:
    code = await app.code()
    await app.exchange(code)
    await app.exchange(code)


async def by_reuse(world: World, app: Any) -> None:
    body = await app.tokens()
    await app.refresh(body["refresh_token"])
    world.clock.advance(60)
    await app.refresh(body["refresh_token"])


async def by_disabled_account(world: World, app: Any) -> None:
    await app.tokens()
    await disable_account(world.store, world.mara.key, now=world.clock())


async def by_disabled_client(world: World, app: Any) -> None:
    await app.tokens()
    await disable_client(world.store, app.client_id, now=world.clock())


async def by_record(world: World, app: Any) -> None:
    await app.tokens()

    async def change(transaction: Any) -> int:
        return await revoke_where(
            transaction,
            "patient",
            "Patient/mara",
            practice="skin",
            now=world.clock(),
            because="record-closed",
        )

    await world.store.transact(change)


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (by_replay, "misuse"),
        (by_reuse, "misuse"),
        (by_disabled_account, "portal"),
        (by_disabled_client, "portal"),
        (by_record, "portal"),
    ],
)
async def test_whoever_ends_access_the_app_is_told(world: World, happens: Any, reason: str) -> None:
    """Planted fault: only what a person does is told."""
    app = await world.public_app(backchannel_revocation_uri=URI)
    await happens(world, app)
    (message,) = await messages(world)
    assert reason_of(message.values["because"]) == reason


async def test_of_several_records_each_is_told_by_its_own_name(world: World) -> None:
    await a_family(world)
    app = await world.public_app(backchannel_revocation_uri=URI)
    body = await listed(app)
    pips = (await swap(app, body["access_token"])).json()
    families = {f.patient: grant_id(f.key) for f in await world.store.every(TokenFamily)}
    assert body["grant_id"] == families[""]
    assert pips["grant_id"] == families["Patient/pip"]
    await disable_account(world.store, world.mara.key, now=world.clock())
    told = {message.values["grant_id"] for message in await messages(world)}
    assert told == set(families.values())
