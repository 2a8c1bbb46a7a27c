"""Letters put together when they are sent, and that their secrets are nowhere else."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.matter import StaffMatter
from fhir_portal.accounts.one_time_code import (
    LINK_PREFIX,
    OneTimeCodes,
    code_maker,
    link_for,
)
from fhir_portal.accounts.practice import Practice
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.logs import configure
from fhir_portal.notify import outbox
from fhir_portal.notify.composition import Composer
from fhir_portal.notify.content import MadeBy
from fhir_portal.notify.faults import Undelivered
from fhir_portal.notify.folder import FolderDelivery, messages_in
from fhir_portal.notify.mail import MailDelivery, MailServer
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.notify.outbox import (
    OutboxMessage,
    Superseded,
    UndeliverableMessage,
    deliver_due,
)
from fhir_portal.notify.recipients import AccountRecipients
from fhir_portal.notify.template import MessageTemplate
from fhir_portal.portal import Portal
from tests.builders import DERM, START, Caller, Clock, an_account, keep
from tests.notify.receiver import Receiver, receiving

PORTAL = "https://portal.example.org"


def a_message(template: str = "test", **more: Any) -> OutboxMessage:
    given: dict[str, Any] = {"channel": "mail", "to": "mail:ada@people.example"} | more
    return OutboxMessage(
        key="m1", practice=DERM, created=START, due=START, template=template, **given
    )


def composer(store: EmbeddedStore, fields: Mapping[str, str] | None = None) -> Composer:
    async def make(_reader: Any, rest: str, attempt: int) -> Mapping[str, str] | None:
        assert (rest, attempt) == ("7", 2)
        return fields

    return Composer(store, MadeBy({"Task/": make}), PORTAL)


async def test_the_practices_telephone_is_its_organizations(
    store: EmbeddedStore, ehr: Caller
) -> None:
    await keep(store, Practice(key=DERM, name="Hill Street", organization="Organization/hill"))
    compose = composer(store)
    assert (await compose(a_message())).text.endswith("call Hill Street.\n")
    organization = {
        "resourceType": "Organization",
        "id": "hill",
        "name": "Hill Street",
        "telecom": [
            {"system": "email", "value": "desk@hill.example"},
            {"system": "phone", "value": "+1 312 555 0199", "use": "old"},
            {"system": "phone", "value": "+1 312 555 0100", "use": "work"},
        ],
    }
    assert (await ehr.put(organization)).status == 201
    assert (await compose(a_message())).text.endswith("call Hill Street at +1 312 555 0100.\n")


async def test_an_account_of_no_practice_gets_its_letters_too(store: EmbeddedStore) -> None:
    assert (await composer(store)(a_message())).subject == "A test message - your patient portal"


async def test_a_practices_own_words_are_sent(store: EmbeddedStore) -> None:
    own = MessageTemplate(
        key=f"{DERM}/test",
        practice=DERM,
        subject="Hi",
        body="Own words",
        sms="Own",
        version=1,
        changed=START,
    )
    await keep(store, own)
    assert (await composer(store)(a_message())).subject == "Hi"


async def test_a_link_is_made_for_the_attempt(store: EmbeddedStore) -> None:
    message = a_message("invitation-link", link_for="Task/7", link_attempt=2)
    letter = await composer(store, {"link": f"{PORTAL}/activate/x"})(message)
    assert letter.link == f"{PORTAL}/activate/x"
    assert f"\n{PORTAL}/activate/x\n" in letter.text


async def test_what_is_over_is_not_sent(store: EmbeddedStore) -> None:
    for link in ("Task/7", "Elsewhere/7"):
        message = a_message("invitation-link", link_for=link, link_attempt=2)
        with pytest.raises(Superseded):
            await composer(store, None)(message)


@pytest.mark.parametrize("template", ["invitation-link", "no-such-words", "../test", ""])
async def test_what_has_no_words_or_nothing_to_say_is_not_sent(
    store: EmbeddedStore, template: str
) -> None:
    with pytest.raises(UndeliverableMessage) as refused:
        await composer(store)(a_message(template))
    assert not isinstance(refused.value, Superseded)


# ---------------------------------------------------------------- files


async def test_files_are_listed_from_the_latest_on(store: EmbeddedStore, tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    assert messages_in(folder, limit=5) == []
    deliver = FolderDelivery(folder, composer(store))
    for n in range(3):
        await deliver(msgspec.structs.replace(a_message(), key=f"m{n}"))
        stamp = START + n

        os.utime(folder / f"m{n}.json", (stamp, stamp))
    (folder / "bad.json").write_text("{")
    assert [one["key"] for one in messages_in(folder, limit=3)][:2] == ["m2", "m1"]
    assert [one["key"] for one in messages_in(folder, limit=9)] == ["m2", "m1", "m0"]


# ---------------------------------------------------------------- secrets


@pytest.mark.usefixtures("log_as_it_was")
async def test_a_code_is_in_the_one_mail_and_nowhere_else(
    store: EmbeddedStore, portal: Portal, clock: Clock
) -> None:
    """Through a refusal, a fault and a success: no record and no log line ever holds it."""
    del portal
    log = io.StringIO()
    configure("debug", log)
    codes = OneTimeCodes(b"k" * 32, clock, lambda n: b"r" * n)
    challenge = codes.challenge(
        "contact", subject="ada", browser="b", medium="mail", to="ada@people.example"
    )
    code = codes.code(challenge.key, 1)

    async def begin(transaction: Any) -> None:
        await codes.keep(transaction, challenge)
        for key, to in (("one", "account:ada"), ("two", "mail:ben@people.example")):
            await outbox.enqueue(
                transaction,
                key=key,
                practice=DERM,
                channel="mail",
                to=to,
                template="one-time-code",
                now=clock(),
                link_for=link_for(challenge),
                link_attempt=1,
            )

    contact = Contact(
        key="c", account="ada", medium="mail", value="ada@people.example", added=1, verified=1
    )
    await keep(store, an_account("ada"), contact)
    await store.transact(begin)
    compose = Composer(store, MadeBy({LINK_PREFIX: code_maker(codes)}), PORTAL)

    async def work() -> None:
        for _ in range(2):
            await deliver_due(
                store,
                MailDelivery(
                    MailServer("127.0.0.1", receiver.port, "none", "no@portal.example.org"),
                    compose,
                    10,
                ),
                worker="one",
                clock=clock,
                recipients=AccountRecipients(clock, frozenset({"mail"})),
                given_up=Undelivered(QueuedMatters()),
            )

    with receiving(Receiver(to_data=f"451 cannot take {code}")) as receiver:
        await work()
        receiver.to_recipient = f"550 5.1.1 no {code}"
        clock.advance(40)
        await work()
        receiver.to_recipient, receiver.to_data = "250 OK", "250 OK"
        await keep(store, msgspec.structs.replace(contact, bounced=None))
        await store.transact(begin_again(clock, challenge))
        await work()
    (taken,) = receiver.taken
    assert code in taken.text
    stored = [
        repr(one)
        for kind in (OutboxMessage, StaffMatter, Contact, type(challenge))
        for one in await store.every(kind)
    ]
    assert len(stored) >= 6
    for text in (*stored, log.getvalue()):
        assert code not in text
        assert code.replace(" ", "") not in text
    assert {one.reason for one in await store.every(StaffMatter)} == {"bounced"}
    faults = [one.fault for one in await store.every(OutboxMessage)]
    assert json.dumps(faults).count("is it spelt right?") == 2


def begin_again(clock: Clock, challenge: Any) -> Any:
    async def work(transaction: Any) -> None:
        await outbox.enqueue(
            transaction,
            key="three",
            practice=DERM,
            channel="mail",
            to="account:ada",
            template="one-time-code",
            now=clock(),
            link_for=link_for(challenge),
            link_attempt=1,
        )

    return work


async def test_what_is_over_is_over_even_where_it_has_no_address(store: EmbeddedStore) -> None:
    """It must not become a matter for staff."""
    message = a_message(
        "invitation-link", to="mail:nobody@portal.invalid", link_for="Task/7", link_attempt=2
    )
    server = MailServer("127.0.0.1", 9, "none", "no@portal.example.org")
    with pytest.raises(Superseded):
        await MailDelivery(server, composer(store, None))(message)


def nobodys() -> OutboxMessage:
    return a_message("one-time-code", to=outbox.NOBODY, link_for="challenge/none", link_attempt=1)


async def test_what_is_for_nobody_is_composed_like_any_other(store: EmbeddedStore) -> None:
    letter = await composer(store, None)(nobodys())
    assert letter.code == "0000 0000"
    assert letter.text


async def test_what_is_for_nobody_goes_to_no_mail_server(store: EmbeddedStore) -> None:
    """Nothing answers at this port: a message that was sent there would fail."""
    server = MailServer("127.0.0.1", 9, "none", "no@portal.example.org")
    await MailDelivery(server, composer(store, None))(nobodys())


async def test_what_is_for_nobody_leaves_no_file(store: EmbeddedStore, tmp_path: Path) -> None:
    await FolderDelivery(tmp_path, composer(store, None))(nobodys())
    assert messages_in(tmp_path, limit=10) == []
    assert not any(tmp_path.glob("*"))  # noqa: ASYNC240 - a test's own folder
