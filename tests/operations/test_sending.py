"""What a record tells of what was sent: kind, channel, to whom and how it ended; nothing more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.notice import Event
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.notify import outbox
from fhir_portal.notify.outbox import (
    CHANNELS,
    Bounced,
    OutboxMessage,
    Superseded,
    came_back,
    deliver_due,
)
from fhir_portal.notify.recipients import AccountRecipients
from fhir_portal.notify.security import OutboxNotices
from fhir_portal.notify.words import BUILT_IN, is_in_record
from fhir_portal.operations.sending import OUTCOME, PROFILE, SendLog
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    Json,
    a_person,
    a_proxy,
    an_account,
    keep,
    oneself,
)
from tests.operations.invitations import NAN, call, invited, staff

pytestmark = pytest.mark.usefixtures("practice")

ADDRESS = "ada@canary.example"


@dataclass
class Post:
    """Delivers what is due, as the application does."""

    portal: Portal
    clock: Clock
    refuses: Exception | None = None
    sent: list[OutboxMessage] = field(default_factory=list)

    async def __call__(self, message: OutboxMessage) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(message)

    @property
    def log(self) -> SendLog:
        return SendLog(self.portal.server)

    async def given_up(
        self,
        transaction: Any,
        message: OutboxMessage,
        why: str,
        bounced: bool,  # noqa: FBT001 - the signature of `GivenUp`
        now: float,
    ) -> None:
        del why, now
        await self.log.given_up(transaction, message, bounced=bounced)

    async def work(self) -> None:
        store: Any = self.portal.server.store
        for _ in range(2):
            await deliver_due(
                store,
                self,
                worker="w",
                clock=self.clock,
                recipients=AccountRecipients(self.clock, frozenset(CHANNELS)),
                given_up=self.given_up,
                arrived=self.log.completed,
                addressed=self.log.addressed,
                dropped=self.log.superseded,
            )

    async def send(self, key: str, template: str, **more: Any) -> None:
        given = {"practice": DERM, "channel": "mail", "to": "account:ada"} | more

        async def work(transaction: Any) -> None:
            await outbox.enqueue(transaction, key=key, template=template, now=self.clock(), **given)

        await self.portal.server.store.transact(work)
        await self.work()


@pytest.fixture
def post(portal: Portal, clock: Clock) -> Post:
    return Post(portal, clock)


@pytest.fixture
async def ada(practice: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    """Ada's account is her own record and acts for Kit; one mail address is proved."""
    await ehr.store(a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]))
    contact = Contact(
        key="c", account="ada", medium="mail", value=ADDRESS, added=START, verified=START
    )
    await keep(practice, an_account("ada", f"{DERM}/Person/ada"), contact)
    return practice


async def logged(ehr: Caller, query: str = "") -> list[Json]:
    return (await ehr.get(f"Communication?{query}")).entries


def said(one: Json) -> tuple[str, str, str]:
    """Status, kind and reason."""
    reason = one.get("statusReason", {}).get("coding", [{}])[0].get("code", "")
    return one["status"], one["topic"]["coding"][0]["code"], reason


# ---------------------------------------------------------------- invitations


@pytest.mark.requirement("portal", "S0-11")
async def test_each_message_of_an_invitation_is_told_and_followed(
    ehr: Caller, portal: Portal, post: Post
) -> None:
    """Link and code, both from the moment at which they are written; and each attempt again."""
    desk = staff(portal, "invite")
    made = await invited(desk, "bo")
    assert {said(one) for one in await logged(ehr)} == {
        ("in-progress", "invitation-link", ""),
        ("in-progress", "invitation-code", ""),
    }
    for one in await logged(ehr):
        assert one["meta"]["profile"] == [PROFILE]
        assert one["subject"] == {"reference": "Patient/bo"}
        assert one["recipient"] == [{"reference": "Patient/bo"}]
        assert one["about"] == [{"reference": made["invitation"]}]
        assert one["sender"] == {"reference": "Organization/derm"}
        assert "sent" not in one
    post.clock.advance(60)
    await post.work()
    found = await logged(ehr)
    assert {one["status"] for one in found} == {"completed"}
    assert {one["medium"][0]["coding"][0]["code"] for one in found} == {"EMAILWRIT", "SMSWRIT"}
    assert all("sent" in one for one in found)
    assert (await call(desk, made["invitation"], "invite-resend")).status == 200
    assert len(await logged(ehr, "status=in-progress")) == 2


async def test_it_is_written_with_the_messages_or_not_at_all(ehr: Caller, portal: Portal) -> None:
    """An invitation that is refused has neither."""
    desk = staff(portal, "invite")
    await invited(desk, "bo")
    before = len(await logged(ehr))
    assert (await desk.ask("POST", "Patient/bo/$portal-invite", None)).status >= 400
    again = {"resourceType": "Parameters", "parameter": [{"name": "kind", "valueCode": "self"}]}
    assert (await desk.ask("POST", "Patient/bo/$portal-invite", again)).status == 409
    assert len(await logged(ehr)) == before


async def test_each_record_tells_of_its_own_invitation_alone(
    ehr: Caller, portal: Portal, post: Post
) -> None:
    made = await invited(
        staff(portal, "invite", "proxies"), "kit", kind="guardian", patient=["Patient/lia"],
        name=NAN, relationship={"text": "aunt"}, basis="guardian", channel="mail",
        contact="nan@canary.example",
    )  # fmt: skip
    await post.work()
    assert made["invitation"]
    seen: set[str] = set()
    for own_id in ("kit", "lia"):
        found = await logged(ehr, f"subject=Patient/{own_id}")
        assert found
        for one in found:
            text = json.dumps(one)
            assert "canary" not in text
            assert f"Patient/{'lia' if own_id == 'kit' else 'kit'}" not in text
            (about,) = one["about"]
            task = (await ehr.get(about["reference"])).json
            assert task["for"] == {"reference": f"Patient/{own_id}"}
            seen.add(about["reference"])
    assert len(seen) == 2


async def test_what_was_over_before_its_turn_was_not_done(
    ehr: Caller, portal: Portal, post: Post
) -> None:
    desk = staff(portal, "invite", "revoke")
    made = await invited(desk, "bo")
    assert (await call(desk, made["invitation"], "invite-revoke", reason="x")).status == 200
    post.refuses = Superseded("what it was for is over")
    await post.work()
    assert {said(one)[::2] for one in await logged(ehr)} == {("not-done", "superseded")}


@pytest.mark.requirement("portal", "S2-17")
async def test_what_came_back_was_not_done_though_it_was_sent(
    ehr: Caller, portal: Portal, post: Post
) -> None:
    await invited(staff(portal, "invite"), "cy")
    await post.work()
    (message,) = post.sent
    assert said((await logged(ehr))[0])[0] == "completed"
    store: Any = portal.server.store
    assert await came_back(store, message.key, "no such mailbox", post.given_up, now=START + 60)
    (found,) = await logged(ehr)
    assert said(found) == ("not-done", "invitation-link", "bounced")
    assert found["statusReason"]["coding"][0]["system"] == OUTCOME
    assert "mailbox" not in json.dumps(found)


async def test_what_is_refused_for_good_or_given_up_was_not_done(
    ehr: Caller, portal: Portal, post: Post
) -> None:
    await invited(staff(portal, "invite"), "cy")
    post.refuses = ConnectionRefusedError("cy@mail.example")
    for _ in range(60):
        await post.work()
        post.clock.advance(3600)
    (found,) = await logged(ehr)
    assert said(found) == ("not-done", "invitation-link", "not-delivered")
    assert "cy@mail.example" not in json.dumps(found)
    await invited(staff(portal, "invite"), "bo", channel="mail")
    post.refuses = Bounced("no such mailbox")
    await post.work()
    assert {said(one)[2] for one in await logged(ehr, "subject=Patient/bo")} == {"bounced"}


async def test_an_ehrs_own_words_beside_it_stay_and_what_it_removed_stays_gone(
    ehr: Caller, portal: Portal, post: Post
) -> None:
    await invited(staff(portal, "invite"), "bo")
    first, second = await logged(ehr)
    assert (await ehr.put({**first, "priority": "urgent"})).status == 200
    assert (await ehr.ask("DELETE", f"Communication/{second['id']}")).status in {200, 204}
    await post.work()
    (left,) = await logged(ehr)
    assert (left["priority"], left["status"]) == ("urgent", "completed")


# ---------------------------------------------------------------- notices


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("template", sorted(one for one in BUILT_IN if is_in_record(one)))
async def test_a_notice_of_the_practice_is_told_in_the_own_record(
    ehr: Caller, post: Post, template: str
) -> None:
    await post.send("m1", template)
    (found,) = await logged(ehr)
    assert said(found) == ("completed", template, "")
    assert found["subject"] == {"reference": "Patient/ada"}
    assert found["recipient"] == [{"reference": "Patient/ada"}]
    text = json.dumps(found)
    for secret in (ADDRESS, "canary", "account", "m1"):
        assert secret not in text.replace(template, "")


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("template", sorted(one for one in BUILT_IN if not is_in_record(one)))
async def test_what_is_about_signing_in_alone_is_in_no_record(
    ehr: Caller, post: Post, template: str
) -> None:
    """The account is outside FHIR; that a code was sent would tell that there is one."""
    await post.send("m1", template)
    assert len(post.sent) == 1
    assert await logged(ehr) == []


async def test_to_whom_acts_for_patients_alone_it_is_in_no_record(
    ada: EmbeddedStore, ehr: Caller, portal: Portal, post: Post
) -> None:
    """The practice sees it; neither the patient nor the proxy does."""
    await ehr.store(a_person("ada", links=["RelatedPerson/mother"]))
    assert ada is not None
    await post.send("m1", "security-disabled-at-practice")
    (found,) = await logged(ehr)
    assert "subject" not in found
    assert found["recipient"] == [{"reference": "RelatedPerson/mother"}]
    for who in (oneself("kit"), a_proxy(sections=("messages",)), oneself("ada")):
        caller = Caller(portal, who)
        assert await logged(caller) == []
        assert (await caller.get(f"Communication/{found['id']}")).status == 404


@pytest.mark.usefixtures("ada")
async def test_the_patient_sees_it_and_no_proxy_and_no_other_practice(
    ehr: Caller, other_ehr: Caller, portal: Portal, post: Post
) -> None:
    await post.send("m1", "app-made-by-proxy", to=f"record:{DERM}/Patient/ada")
    (found,) = await logged(ehr)
    assert (found["subject"], found["status"]) == ({"reference": "Patient/ada"}, "completed")
    assert len(await logged(Caller(portal, oneself("ada")))) == 1
    proxy = Caller(portal, a_proxy("ada", sections=("messages",)))
    for caller in (proxy, Caller(portal, oneself("kit")), other_ehr):
        assert await logged(caller) == []
        assert (await caller.get(f"Communication/{found['id']}")).status == 404


@pytest.mark.usefixtures("ada")
async def test_of_another_practices_message_nothing_is_told_here(ehr: Caller, post: Post) -> None:
    for number, practice in enumerate((FAMILY, "", "nowhere")):
        await post.send(f"m{number}", "security-sessions-ended", practice=practice)
    assert await logged(ehr) == []


async def test_whom_nothing_reaches_the_record_says_so(
    ada: EmbeddedStore, ehr: Caller, post: Post
) -> None:
    (contact,) = await ada.every(Contact)
    await keep(ada, msgspec.structs.replace(contact, verified=None))
    await post.send("m1", "security-sessions-ended")
    (found,) = await logged(ehr)
    assert said(found) == ("not-done", "security-sessions-ended", "no-contact")
    assert "medium" not in found


async def test_a_record_that_is_gone_keeps_no_message_back(
    ada: EmbeddedStore, ehr: Caller, post: Post
) -> None:
    """What cannot be told of is sent all the same."""
    assert ada is not None
    await ehr.store(a_person("ada", links=["Patient/nobody"]))
    await post.send("m1", "security-sessions-ended")
    assert len(post.sent) == 1
    assert await logged(ehr) == []


async def test_recovery_that_staff_began_is_told_by_their_practice(
    ada: EmbeddedStore, ehr: Caller, portal: Portal, post: Post
) -> None:
    """Not by the one that the account began at."""
    there = an_account("ada", f"{FAMILY}/Person/ada", f"{DERM}/Person/ada")
    await keep(ada, there, AccountPerson(key=f"{DERM}/Person/ada", account="ada"))
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "basis", "valueCode": "photo-id"}],
    }
    answer = await staff(portal, "recover").ask("POST", "Person/ada/$start-recovery", body)
    assert answer.status == 200
    await post.work()
    assert {one.practice for one in post.sent} == {DERM}
    assert [said(one) for one in await logged(ehr)] == [
        ("completed", "security-recovery-started", "")
    ]


@pytest.mark.usefixtures("ada")
async def test_a_security_notice_of_the_accounts_own_is_in_no_record(
    ehr: Caller, post: Post, portal: Portal
) -> None:
    events: Sequence[Event] = ("password-changed", "totp-added", "contact-added")
    notices = OutboxNotices(lambda n: b"r" * n)
    for event in events:
        write = notices.about(an_account("ada", f"{DERM}/Person/ada"), event, now=START)
        await portal.server.store.transact(write)
    await post.work()
    assert len(post.sent) == 3
    assert await logged(ehr) == []


def test_each_kind_is_published() -> None:
    listed = {one["code"] for one in ig_resource("CodeSystem", "portal-message")["concept"]}
    assert listed == {one for one in BUILT_IN if is_in_record(one)}
