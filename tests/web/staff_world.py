"""Two practices whose staff use the staff pages: levels, patients, people who act for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from fhir_portal.access.log import AccessRow
from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account, add_account
from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.levels import OPERATOR, PERMISSIONS
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.staff import add_staff
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import Record
from fhir_portal.web.pages.apps import apps_router
from fhir_portal.web.pages.staff import staff_router
from fhir_portal.web.site import take_in
from tests.builders import (
    a_grant,
    a_patient,
    a_person,
    a_practitioner,
    a_related_person,
    keep,
    passwords,
)
from tests.images import once
from tests.smart.launching import put
from tests.smart.world import PASSWORD, Browser, World, password_hash
from tests.staff import a_level
from tests.web.signing_in import post, submit

SKIN, FAMILY = "skin", "family"
HOME, FIND = "/staff", "/staff/patients"
KIT = f"{FIND}/kit"
SCRIPT = '<script>alert("x")</script>'
ADMIN, DESK, READER, BLIND, BOTH = "admin", "desk", "reader", "blind", "both"
_LEVELS = {
    ADMIN: PERMISSIONS,
    DESK: ("view", "invite", "revoke"),
    READER: ("view",),
    BLIND: ("invite", "audit", "administer"),
}


@dataclass
class StaffWorld:
    """A world, and who is on whose staff. ``world.mara`` is nobody's."""

    world: World

    @classmethod
    async def begin(cls) -> StaffWorld:
        world = await World.begin()
        router = staff_router(
            portal=world.portal,
            server=world.server,
            sessions=world.sessions,
            sign_in=SignIn(world.store, passwords(), Throttle(world.store, world.clock)),
            directory=Relations(world.store, world.clock),
            store=world.store,
            log=world.store.log,
            clock=world.clock,
            random=world.random,
        )
        take_in(world.app, router)
        take_in(
            world.app,
            apps_router(
                server=world.server,
                sessions=world.sessions,
                store=world.store,
                directory=world.directory,
                log=world.store.log,
                clock=world.clock,
                random=world.random,
            ),
        )
        found = cls(world)
        await once("staff world", world.store, found._write, random=world.random.__self__)
        return found

    async def _write(self) -> None:
        """What is there on the first day."""
        world = self.world
        await keep(
            world.store,
            Practice(key=SKIN, name="Hillside Dermatology", zone="America/Chicago"),
            Practice(key=FAMILY, name="Brook Family Medicine"),
            *(
                a_level(name, *permissions, practice=practice)
                for name, permissions in _LEVELS.items()
                for practice in (SKIN, FAMILY)
            ),
        )
        for practice in (SKIN, FAMILY):
            names = (ADMIN, DESK, READER, BLIND, BOTH, "far")
            await put(world, practice, *(a_practitioner(name, family=name) for name in names))
        await put(
            world,
            SKIN,
            a_patient("kit", family="Quill", birthDate="2018-02-03"),
            a_patient("bo", family="Quillon", birthDate="1990-01-01"),
            a_patient("odd", family=SCRIPT, birthDate="1971-07-07"),
            a_related_person("mother", of="kit", name=[{"text": "Mara Quill"}]),
            a_related_person("uncle", of="kit", relationship=SCRIPT, name=[{"text": SCRIPT}]),
            a_grant("grant", of="kit", to="mother", sections=["results", "forms"], act=["forms"]),
            a_person("kit", links=["Patient/kit"]),
            a_person("mara", links=["RelatedPerson/mother"]),
        )
        await put(world, FAMILY, a_patient("elsewhere", family="Quillfar"))
        for name in (ADMIN, DESK, READER, BLIND):
            await self.member(name, SKIN)
        for practice in (SKIN, FAMILY):
            await self.member(BOTH, practice, level=READER)
        await self.account("kits-mother", f"{SKIN}/Person/mara")

    def close(self) -> None:
        self.world.close()

    async def account(self, username: str, *persons: str) -> Account:
        return await add_account(
            self.world.store,
            username=username,
            password_hash=password_hash(),
            now=self.world.clock(),
            random=self.world.random,
            persons=persons,
        )

    async def member(self, name: str, practice: str, *, level: str = "") -> None:
        store = self.world.store
        found = [one for one in await store.every(Account) if one.username == name]
        account = found[0] if found else await self.account(name)
        await store.transact(
            lambda transaction: add_staff(
                transaction,
                account=account.key,
                practice=practice,
                practitioner=f"Practitioner/{name}",
                now=self.world.clock(),
                level=level or name,
                by=OPERATOR,
            )
        )

    async def account_key(self, name: str) -> str:
        (account,) = [one for one in await self.world.store.every(Account) if one.username == name]
        return account.key

    async def at(self, path: str = HOME, name: str = ADMIN) -> Browser:
        """A browser in which somebody signed in on the way to a page."""
        browser = self.world.browser()
        await browser.open(path)
        await submit(browser, "/signin", username=name, password=PASSWORD)
        return browser

    async def rows(self) -> list[AccessRow]:
        """The access log of the dermatology."""
        found = await self.world.store.log.of_record(
            SKIN, None, agent=None, told=False, low=0, high=2**62, before=None, limit=200
        )
        return [one.row for one in found]

    async def keep(self, *records: Record) -> None:
        await keep(self.world.store, *records)


async def labels(staff: StaffWorld, what: str) -> set[str]:
    """The labels of something at the dermatology, those of others with them."""
    key = ResourceKey.parse(what)
    row = await staff.world.store.read(key, Visibility.of_server(key.type, practice=SKIN))
    assert row is not None
    return set(row.facts.visibility_class.labels)


async def find(browser: Browser, **fields: str) -> httpx.Response:
    """Search for a patient."""
    await browser.open(FIND)
    return await submit(browser, FIND, nth=0, **fields)


def links(browser: Browser, under: str = "") -> list[str]:
    """The addresses of the page's links."""
    found = [str(one.get("href")) for one in browser.document.xpath("//main//a")]
    return [one for one in found if one.startswith(under)]


def buttons(browser: Browser) -> list[str]:
    """What the page's buttons say, but for signing out."""
    found = [" ".join(one.text_content().split()) for one in browser.document.xpath("//button")]
    return [one for one in found if one != "Sign out"]


async def without_token(browser: Browser, path: str, data: dict[str, Any]) -> int:
    """Post a form that is not ours."""
    response = await post(browser, path, data)
    return response.status_code
