"""``/account/contacts`` over HTTP: what people do there, and what others try to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from fhir_portal.accounts.account import AccountName, account_named
from fhir_portal.accounts.contacts import RECOVERY_AFTER_SECONDS, Contact
from fhir_portal.accounts.one_time_code import Challenge
from fhir_portal.accounts.recovery import Recovery
from fhir_portal.notify.outbox import OutboxMessage
from tests.builders import keep
from tests.smart.world import PASSWORD, Browser, World
from tests.web.signing_in import at_security, done, fields_of, forms, post, problem, submit

CONTACTS = "/account/contacts"
NEW = "mara.quill@example.net"
PHONE = "+1 312 555 0142"
NUMBER = "+13125550142"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


async def messages(world: World, template: str = "one-time-code") -> list[OutboxMessage]:
    return [one for one in await world.store.every(OutboxMessage) if one.template == template]


async def code_sent(world: World) -> str:
    """The code in the message that was written last, as its receiver reads it."""
    found = await world.store.every(Challenge)
    last = max(found, key=lambda one: (one.expires, one.attempt))
    return world.codes.code(last.key, last.attempt)


async def at_contacts(world: World, username: str = "mara@example.org") -> Browser:
    browser = await at_security(world, username)
    await browser.open(CONTACTS)
    return browser


async def adds(browser: Browser, value: str) -> None:
    await browser.open(f"{CONTACTS}/add")
    await submit(browser, f"{CONTACTS}/add", contact=value)


async def proves(world: World, browser: Browser, value: str) -> None:
    await adds(browser, value)
    world.clock.advance(1)
    await submit(browser, f"{CONTACTS}/prove", code=await code_sent(world))


async def a_day_later(world: World) -> None:
    """Every contact was proved long enough ago."""
    old = [
        msgspec.structs.replace(one, recovers_from=world.clock())
        for one in await world.store.every(Contact)
    ]
    await keep(world.store, *old)


@pytest.mark.requirement("portal", "S4-09", "S1-12")
async def test_a_proved_mail_address_is_a_name_to_sign_in_with(world: World) -> None:
    browser = await at_contacts(world)
    await adds(browser, NEW)
    (message,) = await messages(world)
    assert (message.channel, message.to) == ("mail", f"mail:{NEW}")
    assert message.link_for is not None
    assert message.values == {}
    assert await account_named(world.store, NEW) is None
    await submit(browser, f"{CONTACTS}/prove", code=await code_sent(world))
    assert "You can sign in with it" in done(browser)
    assert [one.to for one in await messages(world, "security-contact-added")] == [
        f"account:{world.mara.key}"
    ]
    await at_security(world, NEW.upper())


async def test_a_telephone_number_is_proved_by_sms_and_signs_nobody_in(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, PHONE)
    assert NUMBER in browser.text
    (message,) = await messages(world)
    assert (message.channel, message.to) == ("sms", f"sms:{NUMBER}")
    assert await account_named(world.store, NUMBER) is None


@pytest.mark.requirement("portal", "S1-12", "S1-16")
async def test_a_new_contact_does_not_help_to_recover_for_a_day(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    (contact,) = await world.store.every(Contact)
    assert not contact.recovers(world.clock() + RECOVERY_AFTER_SECONDS - 10)
    assert contact.recovers(world.clock() + RECOVERY_AFTER_SECONDS)


@pytest.mark.requirement("portal", "S4-09", "S1-16")
async def test_removing_a_contact_takes_its_name_away_and_tells_it(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    await proves(world, browser, PHONE)
    await a_day_later(world)
    await submit(browser, f"{CONTACTS}/remove")
    assert done(browser) == "It is removed."
    assert await account_named(world.store, NEW) is None
    told = [one.to for one in await messages(world, "security-contact-removed")]
    assert sorted(told) == [f"account:{world.mara.key}", f"mail:{NEW}"]


async def test_the_last_proved_contact_stays(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    await submit(browser, f"{CONTACTS}/remove")
    assert "nobody could reach you" in browser.text
    assert "Error code: contact-refused" in browser.text
    assert len(await world.store.every(Contact)) == 1


async def test_a_contact_is_not_proved_by_a_session_that_was_left_open(world: World) -> None:
    browser = await at_contacts(world)
    await adds(browser, NEW)
    world.clock.advance(301)
    again = await code_sent(world)
    await submit(browser, f"{CONTACTS}/prove", code=again)
    assert browser.page.url.path == "/account/confirm"
    (contact,) = await world.store.every(Contact)
    assert contact.verified is None
    await submit(browser, "/account/confirm", password=PASSWORD)
    assert browser.page.url.path == f"{CONTACTS}/prove"
    await submit(browser, f"{CONTACTS}/prove", code=again)
    assert "You can sign in with it" in done(browser)


async def test_a_contact_of_today_does_not_stand_for_one_that_is_removed(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    await a_day_later(world)
    await proves(world, browser, PHONE)
    await submit(browser, f"{CONTACTS}/remove")
    assert "nobody could reach you" in browser.text
    assert "Error code: contact-refused" in browser.text
    assert len(await world.store.every(Contact)) == 2


async def test_ones_own_user_name_stays_when_it_was_a_contact(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, "mara@example.org")
    await proves(world, browser, PHONE)
    await a_day_later(world)
    await submit(browser, f"{CONTACTS}/remove")
    assert await account_named(world.store, "mara@example.org") == world.mara


async def test_a_name_of_another_account_stays_theirs(world: World) -> None:
    other = await world.account(NEW)
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    assert "You cannot sign in with it" in done(browser)
    assert await account_named(world.store, NEW) == other
    await proves(world, browser, PHONE)
    await a_day_later(world)
    await submit(browser, f"{CONTACTS}/remove")
    assert await account_named(world.store, NEW) == other


@pytest.mark.parametrize(
    "value",
    ["", "x", "mara@", "a@b@c", "m@example.org\r\nBcc: x@example.org", "12", "+1", "@" * 300],
)
async def test_what_cannot_be_a_contact_is_said_and_not_kept(world: World, value: str) -> None:
    browser = await at_contacts(world)
    await adds(browser, value)
    assert browser.page.status_code == 400
    assert problem(browser)
    assert "Error code: contact-refused" in browser.text
    assert await world.store.every(Contact) == []
    assert await messages(world) == []


async def test_codes_are_not_found_by_trying(world: World) -> None:
    browser = await at_contacts(world)
    await adds(browser, NEW)
    right = await code_sent(world)
    for _ in range(5):
        await submit(browser, f"{CONTACTS}/prove", code="0000 0000")
        assert browser.page.status_code == 403
        assert "Error code: proof-refused" in browser.text
    await submit(browser, f"{CONTACTS}/prove", code=right)
    assert browser.page.status_code == 403
    (contact,) = await world.store.every(Contact)
    assert contact.verified is None


async def test_a_code_is_good_in_the_browser_that_asked_and_for_its_account(world: World) -> None:
    browser = await at_contacts(world)
    await adds(browser, NEW)
    challenge = fields_of(forms(browser, f"{CONTACTS}/prove")[0])["challenge"]
    right = await code_sent(world)
    await world.account("tess@example.org")
    for username in ("mara@example.org", "tess@example.org"):
        other = await at_contacts(world, username)
        await adds(other, "other@example.net")
        await submit(other, f"{CONTACTS}/prove", challenge=challenge, code=right)
        assert all(one.verified is None for one in await world.store.every(Contact))
    assert (await world.store.get(Challenge, challenge)) is not None


async def test_a_code_is_over_after_ten_minutes(world: World) -> None:
    browser = await at_contacts(world)
    await adds(browser, NEW)
    right = await code_sent(world)
    world.clock.advance(400)
    await submit(browser, f"{CONTACTS}/prove", code="0000 0000")  # a fresh proof first
    await submit(browser, "/account/confirm", password=PASSWORD)
    world.clock.advance(200)
    await submit(browser, f"{CONTACTS}/prove", code=right)
    assert browser.page.status_code == 403
    assert "That is not the code" in problem(browser)


async def test_adding_and_removing_need_a_fresh_proof(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    await proves(world, browser, PHONE)
    world.clock.advance(301)
    await browser.open(CONTACTS)
    remove = fields_of(forms(browser, f"{CONTACTS}/remove")[0])
    await post(browser, f"{CONTACTS}/remove", remove)
    assert browser.heading == "Confirm that it is you"
    await browser.open(f"{CONTACTS}/add")
    assert browser.heading == "Confirm that it is you"
    assert len(await world.store.every(Contact)) == 2


@pytest.mark.parametrize("action", ["add", "send", "prove", "remove"])
async def test_a_form_that_is_not_ours_does_nothing(world: World, action: str) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    before = [await world.store.every(kind) for kind in (Contact, AccountName, OutboxMessage)]
    key = before[0][0].key
    response = await browser.http.post(
        f"{CONTACTS}/{action}", data={"form_token": "x", "contact": key}
    )
    assert response.status_code == 403
    nobody = world.browser()
    response = await nobody.http.post(f"{CONTACTS}/{action}", data={"contact": key})
    assert response.headers["location"] == f"/signin?then={CONTACTS}"
    after = [await world.store.every(kind) for kind in (Contact, AccountName, OutboxMessage)]
    assert after == before


async def test_nobody_touches_anothers_contact(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    (contact,) = await world.store.every(Contact)
    await world.account("tess@example.org")
    tess = await at_contacts(world, "tess@example.org")
    await proves(world, tess, PHONE)
    for action in ("remove", "send"):
        await tess.open(CONTACTS)
        token = fields_of(forms(tess, f"{CONTACTS}/remove")[0])["form_token"]
        await post(tess, f"{CONTACTS}/{action}", {"form_token": token, "contact": contact.key})
    assert await world.store.get(Contact, contact.key) == contact


async def test_a_mailbox_is_not_filled_by_others(world: World) -> None:
    browser = await at_contacts(world)
    for _ in range(6):
        await adds(browser, NEW)
    assert browser.page.status_code == 429
    assert int(browser.page.headers["retry-after"]) > 0
    assert len(await messages(world)) == 5


async def test_names_of_one_account_are_not_told_from_names_of_two(world: World) -> None:
    """What is used up on one name is not felt on another: that would tell that both are one's."""
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    stranger = world.browser()
    for _ in range(11):
        await stranger.open("/signin")
        await submit(stranger, "/signin", username=NEW, password="not the password")
    assert stranger.page.status_code == 429
    await stranger.open("/signin")
    await submit(stranger, "/signin", username="mara@example.org", password="not the password")
    assert stranger.page.status_code == 403


async def test_a_contact_that_bounced_is_proved_anew(world: World) -> None:
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    (contact,) = await world.store.every(Contact)
    bounced = msgspec.structs.replace(contact, bounced=world.clock())
    await world.store.transact(lambda transaction: transaction.put(bounced))
    await browser.open(CONTACTS)
    assert "Messages came back" in browser.text
    await submit(browser, f"{CONTACTS}/send")
    location = urlsplit(str(browser.page.url))
    assert parse_qs(location.query)["challenge"]
    world.clock.advance(1)
    await submit(browser, f"{CONTACTS}/prove", code=await code_sent(world))
    (contact,) = await world.store.every(Contact)
    assert contact.bounced is None


async def test_what_a_removed_contact_was_sent_recovers_nothing(world: World) -> None:
    """Whoever reads that mailbox may have asked for a code a minute ago."""
    browser = await at_contacts(world)
    await proves(world, browser, NEW)
    await proves(world, browser, PHONE)
    under_way = Recovery(
        key="r",
        expires=world.clock() + 900,
        browser="b",
        want="password",
        account=world.mara.key,
        challenge="c",
        practice="",
        reason="locked",
        proved=("contact-code",),
    )
    await a_day_later(world)
    await keep(world.store, under_way)
    await browser.open(CONTACTS)
    await submit(browser, f"{CONTACTS}/remove")
    assert done(browser) == "It is removed."
    assert await world.store.every(Recovery) == []
