"""What senders say came back: signed, in time, once; and nothing is told to whoever asks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from fhir_portal import app
from fhir_portal.accounts.contacts import Contact
from fhir_portal.app import Application
from fhir_portal.notify import outbox
from fhir_portal.notify.mail import message_id
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.signature import SIGNATURE, signature
from fhir_portal.settings import load
from tests.builders import DERM, Clock, keep
from tests.matters import open_matters

SMS, MAIL = "/notify/sms/status", "/notify/mail/bounce"
SECRETS = {SMS: "s" * 32, MAIL: "m" * 32}
SENDER = "no-reply@portal.example.org"


class Sender:
    """The gateway and the mailbox of bounces, and the portal that they tell."""

    def __init__(self, application: Application, client: httpx.AsyncClient, clock: Clock) -> None:
        self.store, self.client, self.clock = application.store, client, clock

    async def say(
        self, path: str, said: Any, *, secret: str | None = None, **more: Any
    ) -> httpx.Response:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        given: dict[str, Any] = {"at": self.clock(), "signed": path} | more
        key = SECRETS[path] if secret is None else secret
        header = signature(key, given["signed"], given.get("body", body), at=given["at"])
        return await self.client.post(path, content=body, headers={SIGNATURE: header})

    async def state(self, key: str) -> str:
        message = await self.store.get(OutboxMessage, key)
        assert message is not None
        return message.state


@pytest.fixture
async def sender(tmp_path: Path) -> AsyncIterator[Sender]:
    """A portal that has sent one mail and one SMS to Ada."""
    clock = Clock()
    settings: dict[str, Any] = {
        "data": tmp_path / "portal.db",
        "worker": False,
        "sms_url": "http://127.0.0.1:9/send",
        "sms_secret": SECRETS[SMS],
        "smtp_bounce_secret": SECRETS[MAIL],
    }
    application = Application(load(**settings), clock=clock)
    await application.open()
    await keep(
        application.store,
        *(
            Contact(key=one, account="ada", medium=one, value=value, added=1, verified=1)  # type: ignore[arg-type]  # one of the two
            for one, value in (("mail", "ada@people.example"), ("sms", "+13125550100"))
        ),
        *(
            OutboxMessage(
                key=key,
                practice=DERM,
                created=clock(),
                due=None,
                state=state,  # type: ignore[arg-type]  # one of them
                channel=channel,  # type: ignore[arg-type]  # one of them
                to=to,
                template="test",
            )
            for key, channel, to, state in (
                ("a-mail", "mail", "mail:ada@people.example", "done"),
                ("an-sms", "sms", "sms:+13125550100", "done"),
                ("waits", "sms", "sms:+13125550100", "waiting"),
                ("a-hook", "webhook", "https://app.example/", "done"),
            )
        ),
    )
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield Sender(application, client, clock)
    await application.close()


def a_mail() -> OutboxMessage:
    return OutboxMessage(
        key="a-mail", practice=DERM, created=0, due=None, channel="mail", to="x", template="test"
    )


async def test_a_failed_sms_is_noted_once(sender: Sender) -> None:
    for _ in range(3):
        answer = await sender.say(SMS, {"id": "an-sms", "status": "failed"})
        assert (answer.status_code, answer.content) == (204, b"")
    assert await sender.state("an-sms") == "failed"
    (fault,) = await open_matters(sender.store)
    assert (fault.reason, fault.contact, fault.times) == ("bounced", "••• 00", 1)
    contacts = {one.key: one.bounced for one in await sender.store.every(Contact)}
    assert contacts == {"mail": None, "sms": sender.clock()}


@pytest.mark.parametrize("form", ["<{}>", "{}"])
async def test_a_bounced_mail_is_found_by_its_message_id(sender: Sender, form: str) -> None:
    name = message_id(a_mail(), SENDER).strip("<>")
    for _ in range(2):
        answer = await sender.say(MAIL, {"message_id": form.format(name)})
        assert answer.status_code == 204
    (fault,) = await open_matters(sender.store)
    assert (fault.medium, fault.contact, fault.times) == ("mail", "a•••@p•••", 1)
    contacts = {one.key: one.bounced for one in await sender.store.every(Contact)}
    assert contacts == {"mail": sender.clock(), "sms": None}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (SMS, {"id": "an-sms", "status": "delivered"}),
        (SMS, {"id": "unknown", "status": "failed"}),
        (SMS, {"id": "waits", "status": "failed"}),
        (SMS, {"id": "a-mail", "status": "failed"}),
        (SMS, {"id": "a-hook", "status": "failed"}),
        (MAIL, {"message_id": "<unknown@portal.example.org>"}),
        (MAIL, {"message_id": "a-mail"}),
        (MAIL, {"message_id": ""}),
    ],
)
async def test_what_is_unknown_or_well_changes_nothing_and_is_answered_alike(
    sender: Sender, path: str, said: Any
) -> None:
    before = await sender.store.every(OutboxMessage)
    answer = await sender.say(path, said)
    assert (answer.status_code, answer.content) == (204, b"")
    assert await sender.store.every(OutboxMessage) == before
    assert await open_matters(sender.store) == []


async def test_an_sms_that_arrived_is_noted_at_the_invitation_it_carried(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said twice, it is noted twice, and by whoever is to; said too early, it is asked again."""
    noted = list[str]()

    async def note(transaction: Any, server: Any, message: OutboxMessage) -> None:
        assert (transaction is not None, server is not None) == (True, True)
        noted.append(message.key)

    monkeypatch.setattr(app, "received", note)
    for own_id in ("an-sms", "an-sms", "waits", "a-mail", "a-hook", "unknown"):
        answer = await sender.say(SMS, {"id": own_id, "status": "delivered"})
        assert answer.status_code == 204
    assert noted == ["an-sms", "an-sms"]
    taken = await sender.store.get(OutboxMessage, "an-sms")
    assert taken is not None
    await keep(sender.store, msgspec.structs.replace(taken, state="taken", attempts=1))
    answer = await sender.say(SMS, {"id": "an-sms", "status": "delivered"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    await keep(sender.store, msgspec.structs.replace(taken, state="failed"))
    assert (await sender.say(SMS, {"id": "an-sms", "status": "delivered"})).status_code == 204
    assert noted == ["an-sms", "an-sms"]


async def test_a_bounce_that_overtakes_our_own_note_is_asked_for_again(sender: Sender) -> None:
    """A fast gateway, or a worker that died between sending and writing it down."""
    taken = await sender.store.get(OutboxMessage, "an-sms")
    assert taken is not None
    await keep(sender.store, msgspec.structs.replace(taken, state="taken", attempts=1))
    answer = await sender.say(SMS, {"id": "an-sms", "status": "failed"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    await keep(sender.store, taken)
    assert (await sender.say(SMS, {"id": "an-sms", "status": "failed"})).status_code == 204
    assert await sender.state("an-sms") == "failed"


FAILED = {"id": "an-sms", "status": "failed"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "x" * 32},
        {"secret": SECRETS[MAIL]},
        {"signed": MAIL},
        {"body": b'{"id": "another", "status": "failed"}'},
        {"late": 301},
        {"late": -301},
    ],
)
async def test_what_is_not_signed_for_here_and_now_is_refused(
    sender: Sender, wrong: dict[str, Any]
) -> None:
    more = {name: value for name, value in wrong.items() if name != "late"}
    at = sender.clock() - wrong.get("late", 0)
    answer = await sender.say(SMS, FAILED, at=at, **more)
    assert answer.status_code == 401
    assert await sender.state("an-sms") == "done"


@pytest.mark.parametrize(
    "header", ["", "t=1", "t=,v1=", f"t=1900000000,v1={'0' * 64}", f"t=1e9,v1={'0' * 64}", "é"]
)
async def test_a_header_that_is_no_signature_is_refused(sender: Sender, header: str) -> None:
    headers = {SIGNATURE.encode(): header.encode("latin-1")}
    answer = await sender.client.post(SMS, content=json.dumps(FAILED), headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[]", b'{"id": 1, "status": "failed"}', b'{"id": "x", "status": "lost"}']
)
async def test_what_cannot_be_understood_is_refused(sender: Sender, said: bytes) -> None:
    answer = await sender.say(SMS, said)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_what_is_too_long_is_refused(sender: Sender) -> None:
    answer = await sender.say(SMS, {"id": "x" * 5000, "status": "failed"})
    assert answer.status_code == 413


async def test_without_a_secret_there_is_no_such_address(tmp_path: Path) -> None:
    application = Application(load(data=tmp_path / "portal.db", worker=False))
    await application.open()
    try:
        transport = httpx.ASGITransport(application)
        base = "http://127.0.0.1:8000"
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            for path in SECRETS:
                header = signature("", path, b"{}", at=0)
                answer = await client.post(path, content=b"{}", headers={SIGNATURE: header})
                assert answer.status_code == 404
    finally:
        await application.close()


def test_mails_ids_are_those_of_the_outbox() -> None:
    assert message_id(a_mail(), SENDER) == f"<{outbox.mail_id_of('a-mail')}@portal.example.org>"
