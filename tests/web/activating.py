"""Two practices, people who were invited there, and browsers in which they activate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from fhir_portal.access.relation import Relations
from fhir_portal.accounts import invitation as invitations
from fhir_portal.accounts.account import Account, account_named
from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.invitation import LIFETIME, Invitation, InvitationSecrets, Secrets
from fhir_portal.accounts.matter import StaffMatter
from fhir_portal.accounts.one_time_code import Challenge, OneTimeCodes
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.consent.record import RecordAccess
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.web.pages.activation import activation_router
from fhir_portal.web.site import take_in
from tests.builders import (
    DERM,
    FAMILY,
    Caller,
    Json,
    a_grant,
    a_patient,
    a_practice,
    a_related_person,
    a_task,
    an_ehr,
    keep,
    passwords,
)
from tests.matters import open_matters
from tests.smart.world import Browser, World
from tests.web.signing_in import submit

HOME = "/account/apps"
GOOD = "seven quiet otters"
MAIL, PHONE = "ada@mail.example", "+13125550142"
ADA: Mapping[str, str] = {"month": "5", "day": "12", "year": "1984", "postal_code": "60601"}
KIT: Mapping[str, str] = {"month": "2", "day": "3", "year": "2018", "postal_code": "60601"}


@dataclass
class Town:
    """The world of the sign-in pages, with charts, invitations and the activation pages."""

    world: World
    ehr: Caller = field(init=False)
    other_ehr: Caller = field(init=False)

    def __post_init__(self) -> None:
        self.ehr = Caller(self.world.portal, an_ehr(DERM))
        self.other_ehr = Caller(self.world.portal, an_ehr(FAMILY))
        derive = self.world.portal.collaborators.derive
        self.secrets = InvitationSecrets(derive("invitations"))
        self.codes = OneTimeCodes(
            derive("one-time-codes"), clock=self.world.clock, random=self.world.random
        )

    @classmethod
    async def begin(cls) -> Town:
        town = cls(await World.begin())
        world = town.world
        sign_in = SignIn(world.store, passwords(), Throttle(world.store, world.clock))
        take_in(
            world.app,
            activation_router(
                portal=world.portal,
                server=world.server,
                sessions=world.sessions,
                sign_in=sign_in,
                home=HOME,
            ),
        )
        await keep(world.store, a_practice(DERM), a_practice(FAMILY))
        await keep(
            world.store,
            PracticePolicy(key=DERM, country="US"),
            PracticePolicy(key=FAMILY, self_registration=("link", "mail", "username")),
        )
        address = [{"postalCode": "60601-1234"}]
        telecom = [
            {"system": "email", "value": "Ada@Mail.example"},
            {"system": "phone", "use": "mobile", "value": "(312) 555-0142"},
        ]
        await town.ehr.store(
            a_patient("ada", address=address, telecom=telecom),
            a_patient("kit", name=[{"family": "Quill", "given": ["Kit"]}], birthDate="2018-02-03")
            | {"address": address, "telecom": telecom[:1]},
            a_patient("bo", name=[{"family": "Stone", "given": ["Bo"]}], birthDate="1950-01-31"),
            a_related_person(
                "mother",
                of="kit",
                name=[{"family": "Quill", "given": ["Ada"]}],
                telecom=telecom,
            ),
            a_grant("grant", of="kit", to="mother", status="proposed"),
            a_task("t-ada", of="ada"),
            a_task("t-kit", of="kit"),
        )
        await town.other_ehr.store(a_patient("ada-f", address=address, telecom=telecom))
        return town

    def close(self) -> None:
        self.world.close()

    # --- what the practice does ----------------------------------------------------------------

    async def invite(self, task: str = "t-ada", *, practice: str = DERM, **more: Any) -> Invitation:
        """Issue an invitation: to Ada for herself by mail, unless told otherwise."""
        now = self.world.clock()
        given: Json = {
            "patients": ("Patient/ada",),
            "persons": ("Patient/ada",),
            "relation": "self",
            "channel": "mail",
            "to": MAIL,
            "code_by": "sms",
            "code_to": PHONE,
        } | more
        invitation = Invitation(
            key=f"{practice}/Task/{task}",
            practice=practice,
            invitee=f"{practice}/{given['persons'][0]}",
            created=now,
            ends=now + LIFETIME,
            **given,
        )

        async def issue(transaction: Any) -> Invitation:
            return await invitations.issue(transaction, self.secrets, invitation)

        return await self.world.store.transact(issue)

    async def invite_mother(self, task: str = "t-kit", **more: Any) -> Invitation:
        """Invite Ada as Kit's mother."""
        given: Json = {
            "patients": ("Patient/kit",),
            "persons": ("RelatedPerson/mother",),
            "relation": "guardian",
            "grants": ("Consent/grant",),
        }
        return await self.invite(task, **given | more)

    def of(self, invitation: Invitation) -> Secrets:
        return self.secrets.of(invitation)

    async def end(self, invitation: Invitation, state: Any) -> None:
        async def work(transaction: Any) -> None:
            await invitations.end(
                transaction, self.secrets, invitation, state, now=self.world.clock()
            )

        await self.world.store.transact(work)

    async def decide(self, practice: str = DERM, **changes: Any) -> None:
        """Change the policy of a practice."""
        found = await policy_of(self.world.store, practice)
        await keep(self.world.store, msgspec.structs.replace(found, **changes))

    async def helps(self) -> list[StaffMatter]:
        return await open_matters(self.world.store, "activation-help")

    async def stored(self, invitation: Invitation) -> Invitation:
        found = await self.world.store.get(Invitation, invitation.key)
        assert found is not None
        return found

    # --- what the person does ------------------------------------------------------------------

    def browser(self) -> Browser:
        return self.world.browser()

    async def code_sent_to(self, value: str) -> str:
        """The one-time code that is in the latest message to an address, if it can be one."""
        found = [
            one
            for one in await self.world.store.every(Challenge)
            if one.to == value and not one.for_nobody
        ]
        challenge = max(found, key=lambda one: (one.expires, one.attempt))
        return self.codes.code(challenge.key, challenge.attempt)

    async def messages(self) -> list[OutboxMessage]:
        found = await self.world.store.every(OutboxMessage)
        return sorted(found, key=lambda one: (one.created, one.key))

    async def by_link(
        self, browser: Browser, invitation: Invitation, **fields: str
    ) -> httpx.Response:
        """Open the link and fill in its form, rightly unless told otherwise."""
        secrets = self.of(invitation)
        await browser.open(f"/activate/{secrets.link}")
        who = KIT if "Patient/kit" in invitation.patients else ADA
        return await fill(
            browser, f"/activate/{secrets.link}", **{"code": secrets.code, **who, **fields}
        )

    async def register(self, browser: Browser, **fields: str) -> httpx.Response:
        """Fill in the form of `/register` as Ada."""
        await browser.open("/register")
        given = {
            "practice_id": a_practice(DERM).practice_id,
            "mail": MAIL,
            "first": "Ada",
            "last": "Quill",
            **ADA,
        }
        return await fill(browser, "/register", **{**given, **fields})

    async def create(
        self, browser: Browser, username: str = "ada.quill", password: str = GOOD
    ) -> httpx.Response:
        """Choose user name and password."""
        return await fill(
            browser,
            "/activate/account",
            username=username,
            password=password,
            repeated=password,
            how="password",
        )

    async def account(self, username: str = "ada.quill") -> Account | None:
        return await account_named(self.world.store, username)

    async def records(self, username: str = "ada.quill") -> Sequence[RecordAccess]:
        account = await self.account(username)
        assert account is not None
        return await Relations(self.world.store, self.world.clock).records_of(account)

    async def person(self, username: str = "ada.quill", practice: str = DERM) -> Json:
        account = await self.account(username)
        assert account is not None
        key = next(p for p in account.persons if p.startswith(f"{practice}/"))
        ehr = self.ehr if practice == DERM else self.other_ehr
        answer = await ehr.get(key.partition("/")[2])
        assert answer.status == 200
        return answer.json


async def fill(browser: Browser, action: str, **fields: str) -> httpx.Response:
    """Fill in one of the page's forms and send it off."""
    return await submit(browser, action, nth=0, **fields)


def words(browser: Browser) -> str:
    """What a page says, without what differs at each visit."""
    text = re.sub(r'value="[^"]*"', "", browser.page.text)
    return re.sub(r"/activate/[0-9a-f]{64}", "/activate/LINK", text)
