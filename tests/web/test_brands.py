"""``/brands``: the user-access brands Bundle of SMART App Launch 2.2 (S57)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import msgspec
import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir.model import check
from fhir_portal.smart.brands import FEATURE, brand_metadata, brands_bundle
from fhir_portal.smart.issuer import Issuer
from fhir_portal.web.brands import brands_router
from fhir_portal.web.site import take_in
from tests.smart.world import BASE, World

DERM = Practice(key="derm", name="Hillside Dermatology")
FAMILY = Practice(key="family", name="Brook Family Medicine")
ISSUER = Issuer(BASE)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    take_in(
        world.app, brands_router(store=world.store, issuer=world.server.issuer, clock=world.clock)
    )
    yield world
    world.close()


async def put(world: World, *practices: Practice) -> None:
    async def keep(transaction: Any) -> None:
        for practice in practices:
            await transaction.put(practice)

    await world.store.transact(keep)


async def get(world: World, method: str = "GET", **headers: str) -> httpx.Response:
    async with world.http() as http:
        return await http.request(method, "/brands", headers=headers)


def of_type(bundle: Any, name: str) -> list[dict[str, Any]]:
    found = [entry["resource"] for entry in bundle["entry"]]
    return [one for one in found if one["resourceType"] == name]


async def test_every_practice_is_listed_and_leads_to_the_endpoint(world: World) -> None:
    await put(world, DERM, FAMILY)
    response = await get(world)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/fhir+json")
    bundle = response.json()
    assert bundle["type"] == "collection"
    assert bundle["timestamp"] == "2030-03-17T17:46:40Z"
    primary, derm, family = of_type(bundle, "Organization")
    assert [derm["name"], family["name"]] == [DERM.name, FAMILY.name]
    for affiliate in (derm, family):
        assert affiliate["partOf"] == {"reference": f"Organization/{primary['id']}"}
        said = affiliate["extension"]
        assert {one["url"] for one in said} == {FEATURE}
        assert [one["valueCode"] for one in said] == ["bill-pay", "messages", "forms", "refills"]
    (endpoint,) = of_type(bundle, "Endpoint")
    assert endpoint["address"] == f"{BASE}/fhir"
    assert endpoint["managingOrganization"] == {"reference": f"Organization/{primary['id']}"}
    assert endpoint["contact"] == [{"system": "url", "value": f"{BASE}/developers"}]


def test_one_practice_is_its_own_brand() -> None:
    (brand,) = of_type(brands_bundle(ISSUER, [DERM]), "Organization")
    assert brand["name"] == DERM.name
    assert "partOf" not in brand


@pytest.mark.parametrize("practices", [[DERM], [DERM, FAMILY], []])
def test_the_identifier_that_discovery_names_is_of_exactly_one_brand(
    practices: list[Practice],
) -> None:
    wanted = brand_metadata(ISSUER)["user_access_brand_identifier"]
    brands = of_type(brands_bundle(ISSUER, practices), "Organization")
    assert sum(wanted in brand["identifier"] for brand in brands) == 1
    assert brand_metadata(ISSUER)["user_access_brand_bundle"] == f"{BASE}/brands"


@pytest.mark.parametrize("practices", [[DERM], [DERM, FAMILY]])
def test_what_is_listed_is_valid_and_its_references_resolve(practices: list[Practice]) -> None:
    bundle = brands_bundle(ISSUER, practices)
    resources = [entry["resource"] for entry in bundle["entry"]]
    for resource in [{**bundle, "timestamp": "2030-03-17T17:46:40Z"}, *resources]:
        assert check(resource["resourceType"], msgspec.json.encode(resource)) == []
    known = {f"{one['resourceType']}/{one['id']}" for one in resources}
    for organization in of_type(bundle, "Organization"):
        named = [one["reference"] for one in organization.get("endpoint", [])]
        named += [organization["partOf"]["reference"]] if "partOf" in organization else []
        assert named
        assert known.issuperset(named)
        # uab-1: a portal's endpoint is among the organization's own
        for extension in organization.get("extension", ()):
            of_portal = [
                one["valueReference"]["reference"]
                for one in extension["extension"]
                if one["url"] == "portalEndpoint"
            ]
            assert of_portal
            assert set(of_portal) <= set(named)
    assert len({entry["fullUrl"] for entry in bundle["entry"]}) == len(bundle["entry"])


def test_keys_that_are_no_ids_do_not_collide() -> None:
    practices = [Practice(key=key, name=key) for key in ("a/b", "portal", "ok", "é")]
    bundle = brands_bundle(ISSUER, practices)
    assert len({entry["fullUrl"] for entry in bundle["entry"]}) == len(practices) + 2


async def test_every_origin_may_read_it(world: World) -> None:
    await put(world, DERM)
    response = await get(world, Origin="https://any.example")
    assert response.headers["access-control-allow-origin"] == "*"
    assert "etag" in response.headers["access-control-expose-headers"]
    preflight = await get(
        world, "OPTIONS", **{"Origin": "https://x.example", "Access-Control-Request-Method": "GET"}
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert (await get(world, "POST")).status_code == 405


async def test_it_changes_its_tag_and_time_only_with_its_content(world: World) -> None:
    await put(world, DERM)
    first = await get(world)
    assert first.headers["etag"].startswith('W/"')
    world.clock.advance(3600)
    again = await get(world)
    assert again.content == first.content
    same = await get(world, **{"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    await put(world, FAMILY)
    changed = await get(world, **{"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]
    assert changed.json()["timestamp"] == "2030-03-17T18:46:40Z"


async def test_a_change_shows_at_once_and_nothing_is_made_again_without_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand practices cost a request what two do; a commit elsewhere makes nothing anew."""
    made: list[int] = []

    def counted(issuer: Issuer, practices: Sequence[Practice], features: Any) -> dict[str, Any]:
        made.append(len(practices))
        return brands_bundle(issuer, practices, features)

    monkeypatch.setattr("fhir_portal.smart.brands.brands_bundle", counted)
    await put(world, *(Practice(key=f"p{n:04}", name=f"Practice {n}") for n in range(1000)))
    first = await get(world)
    async with world.http() as http:
        await http.get("/signin")  # which writes a session
    assert (await get(world)).content == first.content
    assert made == [1000]

    async def off(transaction: Any) -> None:
        await transaction.put(PracticePolicy(key="p0007", portal=False))

    await world.store.transact(off)
    changed = await get(world, **{"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert "Practice 7" not in {one["name"] for one in of_type(changed.json(), "Organization")}
    await put(world, Practice(key="p0008", name="Another name"))
    assert "Another name" in (await get(world)).text
    assert made == [1000, 999, 999]
