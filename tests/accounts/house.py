"""A house with a front door: one store, one clock, and everything a person signs in with."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, field
from typing import Any

import pyotp

from fhir_portal.accounts.account import Account, add_account
from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.devices import RememberedDevices
from fhir_portal.accounts.front_door import FrontDoor, Place
from fhir_portal.accounts.own import OwnSignIn
from fhir_portal.accounts.passkeys import Passkeys
from fhir_portal.accounts.recovery_codes import RecoveryCodeBook
from fhir_portal.accounts.second_factor import CODES_ANYWHERE, CODES_KNOWN, SecondFactor
from fhir_portal.accounts.sessions import Opened, SessionLimits, Sessions, Visitor
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.accounts.totp import Totps
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.security import OutboxNotices
from fhir_portal.records import RecordTransaction
from tests.builders import passwords
from tests.smart.world import PASSWORD, Clock, password_hash

ORIGINS = ("https://portal.example.org", "https://www.portal.example.org", "https://other.example")
HOME = Place("192.0.2.1", device="Firefox on Linux")
LIMITS = SessionLimits(idle=1800, absolute=7200, anonymous=3600, pending=600)


@dataclass
class House:
    """Mara lives here."""

    clock: Clock = field(default_factory=Clock)
    mara: Account = field(init=False)

    def __post_init__(self) -> None:
        self.store = EmbeddedStore.open(":memory:", clock=self.clock)
        self.random = random.Random(5).randbytes
        timed = functools.partial(dict[str, Any], clock=self.clock, random=self.random)
        notices = OutboxNotices(self.random)
        self.sessions = Sessions(self.store, limits=LIMITS, **timed())
        self.door = FrontDoor(
            sessions=self.sessions,
            password=SignIn(self.store, passwords(), Throttle(self.store, self.clock)),
            second_factor=SecondFactor(
                store=self.store,
                totps=Totps(self.store, key=b"k" * 32, issuer="The portal", **timed()),
                codes=RecoveryCodeBook(self.store, passwords(), **timed()),
                throttle=Throttle(
                    self.store,
                    self.clock,
                    per_account_anywhere=CODES_ANYWHERE,
                    per_account_known=CODES_KNOWN,
                ),
                notices=notices,
                clock=self.clock,
            ),
            devices=RememberedDevices(self.store, **timed()),
            passkeys=Passkeys(self.store, origins=ORIGINS, name="The portal", **timed()),
            notices=notices,
        )
        self.own = OwnSignIn(self.door)

    @classmethod
    async def built(cls) -> House:
        house = cls()
        house.mara = await house.account("mara")
        return house

    async def account(self, username: str, *, with_password: bool = True) -> Account:
        return await add_account(
            self.store,
            username=username,
            password_hash=password_hash() if with_password else None,
            now=self.clock(),
            random=self.random,
        )

    async def signed_in(self, account: Account | None = None) -> Opened:
        """A session of somebody who just gave their password."""
        opened = await self.sessions.open()
        return await self.sessions.sign_in(opened.visitor.session, account or self.mara)

    async def enters(self, place: Place = HOME, password: str = PASSWORD, **how: Any) -> Opened:
        """What the front door opens for a user name and password."""
        before = self.sessions.drafted()
        return await self.door.by_password(before.visitor.session, "mara", password, place, **how)

    async def app(self, account: Account | None = None) -> App:
        """Set up an authenticator app, without recovery codes."""
        totps, account = self.door.second_factor.totps, account or self.mara
        visitor = (await self.signed_in(account)).visitor
        app = App(self, (await totps.offer(visitor.session, account)).secret)
        proof = await totps.accepted(visitor.session, account, app.code)
        assert proof.spend is not None
        await self.store.transact(proof.spend)
        self.clock.advance(30)  # the code just used is not good again
        return app

    async def recovery_codes(self, account: Account | None = None) -> list[str]:
        codes, keep = await self.door.second_factor.codes.new((account or self.mara).key)
        await self.store.transact(keep)
        return codes

    async def find(self, opened: Opened) -> Visitor | None:
        """Who is at the browser that got this cookie."""
        return await self.sessions.find(opened.cookie)

    async def told(self) -> list[str]:
        """What owners were told, in order."""
        found = await self.store.every(OutboxMessage)
        return [one.template for one in sorted(found, key=lambda one: one.created)]

    async def change(self, work: Any) -> Any:
        """Run something in a transaction."""

        async def run(transaction: RecordTransaction) -> Any:
            return await work(transaction)

        return await self.store.transact(run)


@dataclass
class App:
    """An authenticator app on somebody's phone."""

    house: House
    secret: str

    @property
    def code(self) -> str:
        """What it shows now."""
        return self.at(0)

    def at(self, seconds: float) -> str:
        """What it shows so many seconds from now."""
        return pyotp.TOTP(self.secret).at(int(self.house.clock() + seconds))
