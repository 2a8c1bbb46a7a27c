"""Whoever gets back into their account ends what apps were allowed by it, unless they keep it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.connection_receipt import Receipt
from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.smart.several import OWN, PIP, listed, swap
from tests.smart.world import Browser, World, childs_record
from tests.web.recovering import NEW, begins, code_for, contact, desk_of, gives
from tests.web.signing_in import fields_of, forms, post, submit

PASSWORD = "/recover/password"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    await contact(world, world.mara)
    yield world
    world.close()


async def at_the_end(world: World) -> Browser:
    """All is proved: the page of the new password."""
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    assert browser.heading == "Choose a new password"
    return browser


async def ends(browser: Browser, *, untick: str = "", password: str = NEW) -> None:
    """Send the form as a browser does: with what is ticked."""
    form = forms(browser, PASSWORD)[0]
    ticked = {
        one.get("name"): one.get("value")
        for one in form.xpath('.//input[@type="checkbox"][@checked]')
        if not untick or untick not in one.getparent().text_content()
    }
    await post(browser, PASSWORD, {**fields_of(form), **ticked, "new_password": password})


async def test_apps_are_listed_and_end_unless_they_are_unticked(world: World) -> None:
    """A receipt for each, and the owner is told."""
    ended = await (await world.public_app("diary", name="Heart Diary")).tokens()
    app = await world.public_app("planner", name="Planner")
    kept = await app.tokens()
    browser = await at_the_end(world)
    assert "End the access of Heart Diary, for Mara Quill" in browser.text
    await ends(browser, untick="Planner")
    assert browser.heading == "You are signed in"
    assert not await world.is_alive(ended["access_token"])
    assert await world.is_alive(kept["access_token"])
    assert (await app.refresh(kept["refresh_token"])).status_code == 200
    (receipt,) = await world.store.every(Receipt)
    assert (receipt.app, receipt.action, receipt.by_practice) == ("Heart Diary", "ended", False)
    told = [one.template for one in await world.store.every(OutboxMessage)]
    assert "app-ended" in told


async def test_what_was_not_looked_at_ends(world: World) -> None:
    """Connected by somebody else while the page was open; and a code that was not exchanged."""
    app = await world.public_app("diary", name="Heart Diary")
    browser = await at_the_end(world)
    assert "Heart Diary" not in browser.text
    tokens, code = await app.tokens(), await app.code()
    await ends(browser, untick="Heart Diary")
    assert not await world.is_alive(tokens["access_token"])
    assert (await app.exchange(code)).status_code == 400
    assert [one for one in await world.store.every(AuthorizationCode) if not one.family] == []


async def test_what_is_kept_is_kept_where_the_password_is_not_taken(world: World) -> None:
    await (await world.public_app("diary", name="Heart Diary")).tokens()
    browser = await at_the_end(world)
    await ends(browser, untick="Heart Diary", password="short")
    assert browser.page.status_code == 400
    (box,) = browser.document.xpath('//input[@type="checkbox"]')
    assert box.get("checked") is None
    await ends(browser)
    assert await world.store.every(Receipt) == []


async def test_a_list_of_several_records_ends_with_them(world: World) -> None:
    world.directory.access[world.mara.key] += (childs_record(),)
    app = await world.public_app("several", name="Several")
    answer = await listed(app, (OWN, PIP))
    assert (await swap(app, answer["access_token"])).status_code == 200
    await ends(await at_the_end(world))
    assert [
        one for one in await world.store.every(AccessToken) if one.account == world.mara.key
    ] == []
    assert (await app.refresh(answer["refresh_token"])).status_code == 400
    assert (await swap(app, answer["access_token"])).status_code == 400


@pytest.mark.parametrize("kept", [True, False])
async def test_a_list_goes_on_while_one_of_its_records_is_kept(world: World, *, kept: bool) -> None:
    world.directory.access[world.mara.key] += (childs_record(),)
    app = await world.public_app("several", name="Several")
    answer = await listed(app, (OWN, PIP))
    await ends(await at_the_end(world), untick="Mara Quill" if kept else "")
    assert (await app.refresh(answer["refresh_token"])).status_code == (200 if kept else 400)
    assert (await swap(app, answer["access_token"], PIP)).status_code == 400


async def test_a_list_under_which_there_is_nothing_ends(world: World) -> None:
    world.directory.access[world.mara.key] += (childs_record(),)
    app = await world.public_app("several", name="Several")
    answer = await listed(app, (OWN, PIP))
    below = [one.key for one in await world.store.every(TokenFamily) if one.parent is not None]
    assert below

    async def forget(transaction: RecordTransaction) -> None:
        for key in below:
            await transaction.delete(TokenFamily, key)

    await world.store.transact(forget)
    await ends(await at_the_end(world))
    (left,) = await world.store.every(TokenFamily)
    assert (left.is_list, left.ended) == (True, world.clock())
    assert (await app.refresh(answer["refresh_token"])).status_code == 400


async def test_a_code_of_an_app_that_holds_nothing_else_is_no_way_in(world: World) -> None:
    app = await world.public_app("diary", name="Heart Diary")
    code = await app.code()
    await ends(await at_the_end(world))
    assert (await app.exchange(code)).status_code == 400


async def test_other_peoples_apps_stay(world: World) -> None:
    dana = await world.account("dana@example.org", childs_record())
    app = await world.public_app("danas", name="Danas")
    mara, world.mara = world.mara, dana
    tokens = await app.tokens()
    world.mara = mara
    await ends(await at_the_end(world))
    assert await world.is_alive(tokens["access_token"])


async def test_with_a_practices_help_another_practices_apps_are_not_told_and_end(
    world: World,
) -> None:
    person = msgspec.structs.replace(world.mara, persons=("skin/Person/mara", "family/Person/mara"))
    await world.store.transact(lambda transaction: transaction.put(person))
    world.mara = person
    world.directory.access[person.key] += (childs_record(),)
    own = await (await world.public_app("diary", name="Heart Diary")).tokens()
    desk = desk_of(world)
    started = await world.store.transact(
        lambda transaction: desk.start(
            transaction, person, practice="family", by="one", basis="photo-id"
        )
    )
    browser = world.browser()
    await browser.open("/recover/desk")
    await submit(browser, "/recover/desk", code=started.code)
    await gives(browser, await code_for(world, browser))
    assert browser.heading == "Choose a new password"
    assert "Heart Diary" not in browser.text
    await ends(browser)
    assert browser.heading == "You are signed in"
    assert not await world.is_alive(own["access_token"])


async def test_who_has_not_proved_all_is_told_of_no_app(world: World) -> None:
    await (await world.public_app("diary", name="Heart Diary")).tokens()
    browser = await begins(world)
    assert "Heart Diary" not in browser.page.text
    key = str(browser.page.url).rpartition("recovery=")[2]
    await browser.open(f"{PASSWORD}?recovery={key}")
    assert "Heart Diary" not in browser.page.text
