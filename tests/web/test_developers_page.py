"""``/developers``: what a server says to the makers of apps, and its sandbox client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.resources.letters import NEEDED
from fhir_portal.smart.client import Client, disable_client
from fhir_portal.web.developers import SANDBOX, SCOPE, SCRIPT_PATH, developers_router
from fhir_portal.web.site import take_in
from tests.smart.world import BASE, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    take_in(
        world.app,
        developers_router(
            server=world.server, store=world.store, clock=world.clock, random=world.random
        ),
    )
    yield world
    world.close()


async def test_the_page_is_public_and_says_where_to_begin(world: World) -> None:
    browser = world.browser()
    await browser.open("/developers")
    assert browser.heading == "For app developers"
    assert f"{BASE}/fhir" in browser.text
    for name, address in world.server.smart_configuration().items():
        if name.endswith("_endpoint"):
            assert address in browser.text


async def test_what_it_leads_to_is_there(world: World) -> None:
    """Planted fault: a link to what is not served."""
    browser = world.browser()
    await browser.open("/developers")
    links = {one.get("href") for one in browser.document.xpath("//main//a")}
    own = sorted(link.removeprefix(BASE) for link in links if link.startswith((BASE, "/")))
    assert "/oauth/openapi.json" in own
    assert "/oauth/events/access-ended" in own
    elsewhere = ("/brands", "/fhir/")  # served by others: tests/web/test_brands.py and test_fhir_*
    for path in own:
        if not path.startswith(elsewhere):
            assert (await browser.http.get(path)).status_code == 200, path


async def test_the_letters_that_interactions_need_are_published(world: World) -> None:
    browser = world.browser()
    await browser.open("/developers")
    for needed in NEEDED:
        assert needed.interaction in browser.text
        assert needed.request in browser.text
    assert "conditional create (POST Type with If-None-Exist): cs" in browser.text


async def test_where_no_bearer_tokens_are_given_out_the_page_says_so(world: World) -> None:
    """The sandbox has no proofs. Planted fault: it is offered, and gets no token."""
    other = await World.begin()
    take_in(
        other.app,
        developers_router(
            server=other.server,
            store=other.store,
            clock=other.clock,
            random=other.random,
            dpop_required=True,
        ),
    )
    browser = other.browser()
    await browser.open("/developers")
    assert "demands it of every client" in browser.text
    assert "The sandbox is switched off" in browser.text
    other.close()
    browser = world.browser()
    await browser.open("/developers")
    assert "demands it of every client" not in browser.text


async def test_its_client_is_an_ordinary_public_one(world: World) -> None:
    browser = world.browser()
    await browser.open("/developers")
    client = await world.store.get(Client, SANDBOX)
    assert client is not None
    assert (client.type, client.auth_method, client.scope) == ("public", "none", SCOPE)
    assert client.redirect_uris == (f"{BASE}/developers",)
    await browser.open("/developers")
    assert await world.store.get(Client, SANDBOX) == client


async def test_switched_off_it_stays_off(world: World) -> None:
    browser = world.browser()
    await browser.open("/developers")
    await disable_client(world.store, SANDBOX, now=world.clock())
    await browser.open("/developers")
    assert "The sandbox is switched off" in browser.text
    assert SCRIPT_PATH not in browser.page.text
    client = await world.store.get(Client, SANDBOX)
    assert client is not None
    assert client.disabled


async def test_under_another_name_it_leads_to_the_right_one(world: World) -> None:
    """Links use the base URL, never the Host header."""
    async with world.http(headers={"Host": "evil.example"}) as http:
        answer = await http.get("/developers")
    assert "evil.example" not in answer.text
    assert SCRIPT_PATH not in answer.text
    assert f'href="{BASE}/developers"' in answer.text


async def test_where_no_app_could_be_registered_there_is_no_sandbox() -> None:
    world = await World.begin(base="http://portal.example", aliases=())
    take_in(
        world.app,
        developers_router(
            server=world.server, store=world.store, clock=world.clock, random=world.random
        ),
    )
    browser = world.browser()
    await browser.open("/developers")
    assert "The sandbox is switched off" in browser.text
    assert await world.store.get(Client, SANDBOX) is None
    world.close()


async def test_its_script_is_our_own_and_the_only_one_allowed(world: World) -> None:
    browser = world.browser()
    await browser.open("/developers")
    policy = browser.page.headers["content-security-policy"]
    assert "script-src 'self'; connect-src 'self'" in policy
    assert "unsafe" not in policy
    sources = [one.get("src") for one in browser.document.xpath("//script")]
    assert SCRIPT_PATH in sources
    assert all(source and source.startswith("/static/") for source in sources)
    script = await browser.http.get(SCRIPT_PATH)
    assert script.headers["content-type"].startswith("text/javascript")
    for sink in ("innerHTML", "eval(", "localStorage", "https://"):
        assert sink not in script.text
