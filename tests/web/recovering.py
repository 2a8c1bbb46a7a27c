"""What people do who get back into their accounts, and what arrives at their contacts."""

from __future__ import annotations

import httpx

from fhir_portal.accounts.account import Account, add_alias
from fhir_portal.accounts.assisted_recovery import AssistedRecoveries
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.one_time_code import LINK_PREFIX, code_maker
from fhir_portal.accounts.recovery import Recoveries, Recovery
from fhir_portal.accounts.security_questions import SecurityQuestions
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.recovery import OutboxRecoveries
from fhir_portal.notify.security import OutboxNotices
from fhir_portal.records import RecordTransaction
from fhir_portal.web.pages.recover import birth_dates
from tests.builders import passwords
from tests.smart.world import BASE, Browser, World
from tests.web.signing_in import submit

NEW = "seven quiet otters"
MAIL = "mara@example.org"
PHONE = "+13125550142"


async def contact(
    world: World, account: Account, value: str = MAIL, *, recovers_from: float | None = 0.0
) -> Contact:
    """A contact that was proved, or that nobody proved (``recovers_from=None``)."""
    made = Contact(
        key=world.random(8).hex(),
        account=account.key,
        medium="mail" if "@" in value else "sms",
        value=value,
        added=world.clock(),
        verified=None if recovers_from is None else world.clock(),
        recovers_from=recovers_from,
    )

    async def keep(transaction: RecordTransaction) -> None:
        await transaction.insert(made)
        if made.medium == "mail" and made.verified is not None:
            await add_alias(transaction, account.key, value)

    await world.store.transact(keep)
    return made


def questions_of(world: World) -> SecurityQuestions:
    return SecurityQuestions(world.store, passwords(), world.keys.derive("security-answers"))


def desk_of(world: World) -> AssistedRecoveries:
    return AssistedRecoveries(
        world.keys.derive("desk-code"), OutboxNotices(world.random), world.clock, world.random
    )


def recoveries_of(world: World, door: FrontDoor) -> Recoveries:
    return Recoveries(
        door,
        world.codes,
        OutboxRecoveries(),
        questions_of(world),
        desk_of(world),
        birth_dates(world.directory),
        QueuedMatters(),
    )


async def received(world: World) -> list[tuple[str, str]]:
    """The codes that arrive, with where: what is for nobody is dropped at sending."""
    make, found = code_maker(world.codes), []
    for one in await world.store.every(OutboxMessage):
        prefix, slash, rest = (one.link_for or "").partition("/")
        if prefix + slash == LINK_PREFIX:
            fields = await make(world.store, rest, one.link_attempt)
            if fields is not None:
                found.append((one.to, fields["code"]))
    return found


async def names_received(world: World) -> list[tuple[str, str | None]]:
    found = await world.store.every(OutboxMessage)
    return [(one.to, one.link_for) for one in found if one.template == "username-reminder"]


async def code_for(world: World, browser: Browser) -> str:
    """The code of the recovery under way in a browser, whether or not it was sent."""
    key = str(browser.page.url).rpartition("recovery=")[2]
    found = await world.store.get(Recovery, key)
    assert found is not None
    return world.codes.code(found.challenge, 1)


async def begins(
    world: World, name: str = MAIL, want: str = "password", *, at: str = BASE
) -> Browser:
    browser = world.browser()
    browser.http.base_url = httpx.URL(at)
    await browser.open(f"/recover?want={want}")
    await submit(browser, "/recover", name=name)
    return browser


async def gives(browser: Browser, code: str) -> None:
    await submit(browser, "/recover/code", code=code)


async def chooses(browser: Browser, password: str = NEW) -> None:
    await submit(browser, "/recover/password", new_password=password)
