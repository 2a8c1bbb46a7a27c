"""Whoever gets back into their account ends what it allowed, to apps and by links, or keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.connection_receipt import Receipt
from fhir_portal.smart.sharing import DAY, ShareLink, token_of
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


# --- links that show a record ----------------------------------------------------------------


async def shares(world: World, name: str, *, practice: str = "skin", **more: Any) -> ShareLink:
    """A link that Mara's account made, with the token that it is read by."""
    link = ShareLink(
        key=name,
        expires=world.clock() + 800 * DAY,
        id=f"id-of-{name}",
        practice=practice,
        patient="Patient/mara",
        fhir_user="Patient/mara",
        account=more.pop("account", world.mara.key),
        grant=None,
        client_id="own-pages",
        family=None,
        token=f"token-of-{name}",
        label=name,
        sections=("results",),
        start=None,
        end=None,
        summary=True,
        documents=(),
        passcode_hash="x",
        made=world.clock(),
        until=world.clock() + 30 * DAY,
        **more,
    )

    async def keep(transaction: RecordTransaction) -> None:
        await transaction.insert(link)
        await transaction.insert(token_of(link, "patient/*.rs"))

    await world.store.transact(keep)
    return link


async def stands(world: World, link: ShareLink) -> bool:
    found = await world.store.get(ShareLink, link.key)
    assert found is not None
    works = found.state(world.clock()) == "active"
    assert works == (await world.store.get(AccessToken, link.token) is not None)
    return works


async def test_links_are_listed_and_end_unless_they_are_unticked(world: World) -> None:
    """Whoever was in the account may have made one, and has its passcode."""
    strange, known = await shares(world, "Strange"), await shares(world, "Clinic")
    browser = await at_the_end(world)
    assert "End the link “Strange”, made on" in browser.text
    await ends(browser, untick="Clinic")
    assert browser.heading == "You are signed in"
    assert (await stands(world, strange), await stands(world, known)) == (False, True)
    found = await world.store.get(ShareLink, strange.key)
    assert found is not None
    assert found.because == "recovered"


async def test_a_link_that_was_not_looked_at_ends(world: World) -> None:
    """Made while the page was open; and the right to send what waits to be sent."""
    sends = await shares(world, "Waiting", is_for_delivery=True)
    browser = await at_the_end(world)
    assert "Waiting" not in browser.text
    made = await shares(world, "Meanwhile")
    await ends(browser, untick="Meanwhile")
    assert (await stands(world, sends), await stands(world, made)) == (False, False)


async def test_a_link_is_kept_where_the_password_is_not_taken(world: World) -> None:
    link = await shares(world, "Clinic")
    browser = await at_the_end(world)
    await ends(browser, untick="Clinic", password="short")
    assert browser.page.status_code == 400
    (box,) = browser.document.xpath('//input[@type="checkbox"]')
    assert box.get("checked") is None
    assert await stands(world, link)
    await ends(browser)
    assert await stands(world, link)


async def test_so_many_links_as_were_made_stand_in_nobodys_way(world: World) -> None:
    """Of very many the latest are asked about, and the others end."""
    links = [await shares(world, f"Link {number:04}") for number in range(400)]
    browser = await at_the_end(world)
    assert "the others end" in browser.text
    await ends(browser)
    assert browser.heading == "You are signed in"
    assert not any([await stands(world, one) for one in links])


async def test_other_peoples_links_stay(world: World) -> None:
    dana = await world.account("dana@example.org", childs_record())
    link = await shares(world, "Danas", account=dana.key)
    browser = await at_the_end(world)
    assert "Danas" not in browser.text
    await ends(browser)
    assert await stands(world, link)


async def test_with_a_practices_help_another_practices_links_are_not_told_and_end(
    world: World,
) -> None:
    person = msgspec.structs.replace(world.mara, persons=("skin/Person/mara", "family/Person/mara"))
    await world.store.transact(lambda transaction: transaction.put(person))
    world.mara = person
    world.directory.access[person.key] += (childs_record(),)
    elsewhere = await shares(world, "Elsewhere")
    here = await shares(world, "Here", practice="family")
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
    assert "Elsewhere" not in browser.text
    form = forms(browser, PASSWORD)[0]
    asked = {**fields_of(form), f"share-{elsewhere.id}": "shown"}  # what the page did not show
    await post(browser, PASSWORD, {**asked, "new_password": NEW})
    assert browser.heading == "You are signed in"
    assert (await stands(world, elsewhere), await stands(world, here)) == (False, True)


async def test_who_has_not_proved_all_is_told_of_no_link(world: World) -> None:
    await shares(world, "Clinic")
    browser = await begins(world)
    assert "Clinic" not in browser.page.text
