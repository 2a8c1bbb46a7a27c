"""A practice whose patients use the portal: a mother with her own record and her child's."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import AccountPerson, add_account
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.operations.open_share import Shares
from fhir_portal.web.downloads import Downloads
from fhir_portal.web.pages.portal_rooms import portal_router
from fhir_portal.web.shared import shared_router
from fhir_portal.web.site import take_in
from tests.builders import (
    DIRECTORY,
    a_grant,
    a_patient,
    a_person,
    a_practitioner,
    a_related_person,
    keep,
    passwords,
    resource,
)
from tests.images import once
from tests.operations.booking import DAY, a_schedule, a_slot
from tests.smart.launching import put
from tests.smart.world import PASSWORD, Browser, World, password_hash
from tests.web.signing_in import submit

SKIN = "skin"
ADA, BO = "ada", "bo"
ONE = "/portal/appointments/one"


@dataclass
class PortalWorld:
    """A world, with ``ada`` (her own record, and her child Kit's) and ``bo`` (his own)."""

    world: World

    @classmethod
    async def begin(cls, *, act: tuple[str, ...] = ("appointments",)) -> PortalWorld:
        world = await World.begin()
        take_in(
            world.app,
            portal_router(
                portal=world.portal,
                server=world.server,
                sessions=world.sessions,
                directory=Relations(world.store, world.clock),
                store=world.store,
                clock=world.clock,
                random=world.random,
            ),
        )
        shares = Shares(
            world.store,
            world.portal,
            passwords(),
            world.keys.derive,
            clock=world.clock,
            random=world.random,
        )
        throttle = Throttle(world.store, world.clock)
        downloads = Downloads(world.portal)
        take_in(
            world.app,
            shared_router(shares, throttle=throttle, base=world.base, downloads=downloads),
        )
        found = cls(world)
        await once(
            ("portal world", act),
            world.store,
            functools.partial(found._write, act),
            random=world.random.__self__,
        )
        return found

    async def _write(self, act: tuple[str, ...]) -> None:
        """What is there on the first day."""
        world = self.world
        await keep(
            world.store,
            Practice(key=SKIN, name="Hillside Dermatology", zone="America/Chicago"),
            PracticePolicy(key=SKIN, booking="book"),
        )
        lark = {"reference": "Practitioner/lark", "display": "Dr. Lark"}
        address = {"line": ["1 Elm Street"], "city": "Marrow"}
        await self.put(
            a_patient("ada"),
            a_patient("kit", name=[{"family": "Quill", "given": ["Kit"]}], birthDate="2020-03-01"),
            a_patient("bo", family="Reed"),
            a_related_person("mother", of="kit"),
            a_grant("grant", of="kit", to="mother", sections=["appointments"], act=act),
            a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]),
            a_person("bo", links=["Patient/bo"]),
            a_practitioner("lark", meta=DIRECTORY),
            resource("Location", "elm", name="Elm House", address=address, meta=DIRECTORY),
            a_schedule("lark") | {"actor": [lark, {"reference": "Location/elm"}]},
            a_slot("nine", 3 * DAY),
            a_slot("ten", 3 * DAY + 3600),
            a_slot("later", 20 * DAY),
        )
        for name in (ADA, BO):
            account = await add_account(
                world.store,
                username=name,
                password_hash=password_hash(),
                now=world.clock(),
                random=world.random,
                persons=[f"{SKIN}/Person/{name}"],
            )
            await keep(world.store, AccountPerson(key=f"{SKIN}/Person/{name}", account=account.key))

    def close(self) -> None:
        self.world.close()

    async def put(self, *trees: Any) -> None:
        """Store resources as the practice's EHR."""
        await put(self.world, SKIN, *trees)

    async def at(self, path: str, name: str = BO, record: str = "") -> Browser:
        """A browser in which somebody signed in on the way to a page, and chose a record."""
        browser = self.world.browser()
        await browser.open(path)
        await submit(browser, "/signin", username=name, password=PASSWORD)
        if record:
            await submit(browser, "/portal/record", record=f"{SKIN}/Patient/{record}")
            await browser.open(path)
        return browser
