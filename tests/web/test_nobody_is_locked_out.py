"""What strangers use up is never what the owner needs: recovery, and ``/register``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from fhir_portal.accounts.one_time_code import MOST_IN_AN_HOUR, Challenge
from fhir_portal.accounts.recovery import SENDINGS_ANYWHERE
from fhir_portal.operations.activation.by_mail import BY_MAIL_ANYWHERE
from tests.smart.world import PASSWORD, Browser, World
from tests.web.activating import MAIL as ADAS
from tests.web.activating import Town
from tests.web.recovering import MAIL, PHONE, chooses, code_for, contact, desk_of, gives, received
from tests.web.signing_in import at_security, submit

ANYWHERE = int(SENDINGS_ANYWHERE.partition(" ")[0])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    await contact(world, world.mara)
    yield world
    world.close()


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = await Town.begin()
    yield town
    town.close()


async def recovers(browser: Browser, name: str = MAIL) -> Browser:
    await browser.open("/recover?want=password")
    await submit(browser, "/recover", name=name)
    return browser


async def strangers(world: World, name: str, networks: int, *, each: int) -> None:
    for network in range(networks):
        for _ in range(each):
            await recovers(world.browser(f"198.51.100.{network}"), name)


async def is_let_in(world: World, browser: Browser) -> bool:
    before = {code for _, code in await received(world)}
    await recovers(browser)
    assert len({code for _, code in await received(world)} - before) == 1, "no code was sent"
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    return browser.heading == "You are signed in"


async def test_a_network_that_uses_up_its_own_is_in_nobodys_way(world: World) -> None:
    """Nor by another name of the account."""
    await contact(world, world.mara, PHONE)
    await strangers(world, MAIL, 1, each=9)
    await strangers(world, PHONE, 1, each=9)
    assert len({code for _, code in await received(world)}) == 6
    assert await is_let_in(world, world.browser("203.0.113.9"))


async def test_many_networks_are_in_no_way_of_a_browser_that_the_account_knows(
    world: World,
) -> None:
    """Elsewhere no code is sent for the rest of the hour; the bound on what arrives holds."""
    own = await at_security(world)
    await submit(own, "/signout")
    await strangers(world, MAIL, 9, each=6)
    codes = {code for _, code in await received(world)}
    assert len(codes) == ANYWHERE
    elsewhere = await recovers(world.browser("203.0.113.9"))
    assert "none was sent" in elsewhere.text
    assert await is_let_in(world, own)


async def test_a_browser_of_another_account_is_a_stranger(world: World) -> None:
    await world.account("dana@example.org")
    browser = world.browser()
    await browser.open("/account/security")
    await submit(browser, "/signin", username="dana@example.org", password=PASSWORD)
    await strangers(world, MAIL, 9, each=6)
    before = len(await received(world))
    await recovers(browser)
    assert "none was sent" in browser.text
    assert len(await received(world)) == before


async def test_an_hour_later_it_is_as_before(world: World) -> None:
    await strangers(world, MAIL, 9, each=6)
    world.clock.advance(3600)
    assert await is_let_in(world, world.browser("203.0.113.9"))


async def test_a_recovery_that_staff_started_has_codes_of_its_own(world: World) -> None:
    await strangers(world, MAIL, 9, each=6)
    person = msgspec.structs.replace(world.mara, persons=("skin/Person/mara",))
    await world.store.transact(lambda transaction: transaction.put(person))
    desk = desk_of(world)
    started = await world.store.transact(
        lambda transaction: desk.start(
            transaction, person, practice="skin", by="one", basis="photo-id"
        )
    )
    browser = world.browser("203.0.113.9")
    await browser.open("/recover/desk")
    await submit(browser, "/recover/desk", code=started.code)
    await gives(browser, await code_for(world, browser))
    await chooses(browser)
    assert browser.heading == "You are signed in"


async def registers(town: Town, address: str, **fields: str) -> Browser:
    browser = town.world.browser(address)
    await town.register(browser, **fields)
    return browser


async def sent_to(town: Town, value: str) -> int:
    """The one-time codes on their way to an address that can be met."""
    found = await town.world.store.every(Challenge)
    return sum(one.to == value and one.can_be_met for one in found)


async def test_registering_is_not_used_up_by_another_network(town: Town) -> None:
    for _ in range(9):
        await registers(town, "198.51.100.7", first="Nobody")
    assert "near-miss" in {one.reason for one in await town.helps()}
    assert await sent_to(town, ADAS) == 0
    locked = await registers(town, "198.51.100.7")
    assert (locked.page.status_code, await sent_to(town, ADAS)) == (200, 0)
    await registers(town, "203.0.113.9")
    assert await sent_to(town, ADAS) == 1


async def test_there_is_a_bound_on_all_networks_together(town: Town) -> None:
    """Whoever reads a mailbox does not find out whose it is by trying from everywhere."""
    for network in range(9):
        for _ in range(6):
            await registers(town, f"198.51.100.{network}", first="Nobody")
    await registers(town, "203.0.113.9")
    assert await sent_to(town, ADAS) == 0


async def test_who_was_invited_gets_their_codes_all_the_same(town: Town) -> None:
    """Strangers who know all about Ada have codes sent to her; those are counted apart."""
    invitation = await town.invite(channel="desk", to="", code_by="hand", code_to="")
    assert int(BY_MAIL_ANYWHERE.partition(" ")[0]) <= MOST_IN_AN_HOUR
    for network in range(5):
        for _ in range(5):
            await registers(town, f"198.51.100.{network}")
    await town.decide(assurance="level4")
    browser = town.browser()
    await town.by_link(browser, invitation)
    before = await sent_to(town, ADAS)
    await submit(browser, "/activate/proof/send", contact="0")
    assert await sent_to(town, ADAS) == before + 1
