"""Clients that keep their keys at an address, over HTTP: rotation, poisoning, confusion.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key, OctKey

from fhir_portal.smart.client import disable_client
from tests.smart.hosts import as_it_is
from tests.smart.world import App, World, assert_oauth_error, client_key

URL = "https://ehr.example/jwks.json"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


def publish(world: World, *keys: Key | dict[str, Any], name: str = "ehr.example") -> None:
    listed = [key if isinstance(key, dict) else key.as_dict(private=False) for key in keys]
    world.hosts.serve(name, as_it_is(json.dumps({"keys": listed}).encode()))


async def an_ehr(world: World, alg: str = "ES384", client_id: str = "ehr", url: str = URL) -> App:
    ehr = await world.backend(client_id, alg=alg, jwks=None, jwks_uri=url)
    assert ehr.key is not None
    publish(world, ehr.key, name=url.split("/")[2])
    return ehr


async def assert_refused(world: World, ehr: App, assertion: str | None = None) -> str:
    before = await world.rows()
    response = await ehr.backend_token(assertion)
    assert_oauth_error(response, "invalid_client", 401)
    assert await world.rows() == before
    words: str = response.json()["error_description"]
    return words


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
@pytest.mark.requirement("inferno", "S48")
async def test_a_backend_is_known_by_the_keys_at_its_address(world: World, alg: str) -> None:
    ehr = await an_ehr(world, alg)
    assert (await ehr.backend_token()).status_code == 200
    assert (await ehr.backend_token()).status_code == 200
    assert len(world.hosts.asked) == 1


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
async def test_so_it_is_at_the_other_endpoints(world: World, path: str) -> None:
    ehr = await an_ehr(world)
    assert (await ehr.post(path, {"token": "unknown"})).status_code == 200


async def test_a_new_key_is_found_and_a_retired_one_is_not(world: World) -> None:
    """Planted fault: a key that was good once stays good."""
    ehr = await an_ehr(world)
    old, new = ehr.key, ECKey.generate_key("P-384", {"kid": "next"})
    assert (await ehr.backend_token()).status_code == 200
    publish(world, new)
    world.clock.advance(60)
    by_new = ehr.assertion(new, {"kid": "next"})
    assert (await ehr.backend_token(by_new)).status_code == 200
    await assert_refused(world, ehr, ehr.assertion(old))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 503}, "in trouble"),
        ({"status": 404}, "refuses"),
        ({"status": 302, "location": "https://127.0.0.1/"}, "redirect"),
        ({"content": b"<html>", "content_type": "text/html"}, "application/json"),
        ({"content": b"{"}, "not JSON"),
        ({"content": b'{"keys":[]}'}, "JWK Set"),
        ({"content": b"x" * 70_000}, "64 KiB"),
    ],
)
async def test_the_developer_is_told_what_is_wrong_with_the_address(
    world: World, answer: dict[str, Any], words: str
) -> None:
    ehr = await an_ehr(world)
    world.hosts.serve("ehr.example", as_it_is(**answer))
    assert words in await assert_refused(world, ehr)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "fd00::1", "224.0.0.1"]
)
async def test_an_address_inside_is_not_asked_for_keys(world: World, address: str) -> None:
    """Server-side request forgery. Planted fault: addresses are not looked at."""
    ehr = await an_ehr(world)
    world.hosts.serve("ehr.example", world.hosts.answers["ehr.example"], address)
    words = await assert_refused(world, ehr)
    assert world.hosts.asked == []
    assert address not in words


async def test_a_stranger_has_us_ask_nobody(world: World) -> None:
    """An assertion names whom we ask. Planted fault: a client that is shut out is asked about."""
    ehr = await an_ehr(world)
    await assert_refused(world, ehr, ehr.assertion(sub="nobody", iss="nobody"))
    await disable_client(world.store, "ehr", now=world.clock())
    await assert_refused(world, ehr)
    assert world.hosts.looked_up == []


@pytest.mark.parametrize("member", ["jku", "x5u", "jwk"])
@pytest.mark.requirement("attacks", "JWKS poisoning")
async def test_an_assertion_does_not_say_where_its_keys_are(world: World, member: str) -> None:
    """Planted fault: a ``jwk`` in the header is taken for the client's."""
    ehr = await an_ehr(world)
    thief = ECKey.generate_key("P-384", {"kid": "ehr-key"})
    publish(world, thief, name="thief.example")
    place: Any = "https://thief.example/jwks.json"
    if member == "jwk":
        place = thief.as_dict(private=False)
    await assert_refused(world, ehr, ehr.assertion(thief, {member: place}))
    assert [request.headers["host"] for request in world.hosts.asked] == ["ehr.example"]


@pytest.mark.requirement("attacks", "JWKS poisoning")
async def test_one_client_is_not_known_by_anothers_keys(world: World) -> None:
    """Planted fault: keys are looked up by ``kid`` among those of all clients."""
    ehr = await an_ehr(world)
    other = await an_ehr(world, client_id="other", url="https://other.example/jwks.json")
    assert (await other.backend_token()).status_code == 200
    forged = other.assertion(iss="ehr", sub="ehr")
    await assert_refused(world, ehr, forged)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged_by_hmac(ehr: App, algorithm: str, secret: bytes) -> str:
    signed = f"{part({'alg': algorithm, 'kid': 'ehr-key'})}.{part(ehr.claims())}"
    digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[algorithm]
    proof = hmac.digest(secret, signed.encode(), digest)
    return f"{signed}.{base64.urlsafe_b64encode(proof).rstrip(b'=').decode()}"


@pytest.mark.parametrize("kind", ["RS384", "ES384"])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["pem", "json"])
@pytest.mark.requirement("attacks", "algorithm confusion")
async def test_a_public_key_is_no_shared_secret(
    world: World, kind: str, algorithm: str, form: str
) -> None:
    """Algorithm confusion. Planted fault: HS256 is checked, with the public key's bytes."""
    ehr = await an_ehr(world, kind)
    assert ehr.key is not None
    assert not isinstance(ehr.key, OctKey)
    public = ehr.key.as_dict(private=False)
    secret = ehr.key.as_pem(private=False) if form == "pem" else json.dumps(public).encode()
    await assert_refused(world, ehr, forged_by_hmac(ehr, algorithm, secret))


@pytest.mark.parametrize("algorithm", ["none", "NONE", "None", ""])
async def test_an_unsigned_assertion_is_nobodys(world: World, algorithm: str) -> None:
    """Planted fault: ``none`` is among the algorithms."""
    ehr = await an_ehr(world)
    header = part({"alg": algorithm, "kid": "ehr-key"})
    await assert_refused(world, ehr, f"{header}.{part(ehr.claims())}.")


async def test_a_symmetric_key_in_the_set_makes_nobody_the_client(world: World) -> None:
    """JWKS poisoning: what is published is no secret.

    Planted fault: keys of type ``oct`` are taken, and HS256 with them.
    """
    ehr = await an_ehr(world)
    shared = OctKey.generate_key(256, {"kid": "ehr-key"})
    publish(world, shared.as_dict(private=True))
    await assert_refused(world, ehr, forged_by_hmac(ehr, "HS256", shared.raw_value))


async def test_a_private_key_in_the_set_makes_nobody_the_client(world: World) -> None:
    """Whoever read it can sign. Planted fault: the secret members are dropped and the rest used."""
    ehr = await an_ehr(world)
    assert ehr.key is not None
    publish(world, ehr.key.as_dict(private=True))
    assert "private" in await assert_refused(world, ehr)


@pytest.mark.parametrize(
    "change", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"alg": "ES256"}, {"alg": "ECDH-ES"}]
)
async def test_a_key_for_something_else_signs_no_assertion(
    world: World, change: dict[str, Any]
) -> None:
    """Planted fault: what a key is for is dropped when its set is read."""
    ehr = await an_ehr(world)
    assert ehr.key is not None
    good = client_key("ES384", "unused").as_dict(private=False)
    publish(world, {**ehr.key.as_dict(private=False), **change}, good)
    await assert_refused(world, ehr)


@pytest.mark.requirement("attacks", "JWKS poisoning")
async def test_a_set_that_was_poisoned_once_is_not_remembered(world: World) -> None:
    """Planted fault: what was read first stays, whoever answers later."""
    ehr = await an_ehr(world)
    thief = ECKey.generate_key("P-384", {"kid": "ehr-key"})
    publish(world, thief)
    assert (await ehr.backend_token(ehr.assertion(thief))).status_code == 200
    assert ehr.key is not None
    publish(world, ehr.key)
    world.clock.advance(300)
    await assert_refused(world, ehr, ehr.assertion(thief))
    assert (await ehr.backend_token()).status_code == 200


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "\x00", "k" * 300, ""])
async def test_a_kid_is_a_name_and_nothing_else(world: World, kid: str) -> None:
    """Planted fault: the first key of the set will do for a ``kid`` that is not in it."""
    ehr = await an_ehr(world)
    await assert_refused(world, ehr, ehr.assertion(header={"kid": kid}))
