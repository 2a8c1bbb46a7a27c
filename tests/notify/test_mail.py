"""Mail to a real SMTP server on loopback: its headers, its repetitions, and what goes wrong."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fhir_portal.notify.attachment import Attachment
from fhir_portal.notify.letter import Letter, Letterhead, render
from fhir_portal.notify.mail import MailDelivery, MailServer, mail_of, message_id
from fhir_portal.notify.outbox import Bounced, OutboxMessage, UndeliverableMessage
from fhir_portal.notify.words import built_in
from tests.builders import DERM, START
from tests.notify.receiver import Receiver, receiving

PORTAL = "https://portal.example.org"
SENDER = "no-reply@portal.example.org"


def a_message(key: str = "m1", to: str = "mail:ada@people.example") -> OutboxMessage:
    return OutboxMessage(
        key=key,
        practice=DERM,
        created=START,
        due=START,
        channel="mail",
        to=to,
        template="one-time-code",
    )


async def composed(_message: OutboxMessage) -> Letter:
    return render(
        built_in("one-time-code"),
        Letterhead("Hill Street", "+1 312 555 0100", PORTAL),
        {"code": "1234 5678"},
    )


def delivery(port: int, *, seconds: float = 10, compose: Any = composed, **more: Any) -> Any:
    given: dict[str, Any] = {"security": "none", "sender": SENDER} | more
    return MailDelivery(MailServer(host="127.0.0.1", port=port, **given), compose, seconds)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


async def test_mail_arrives_with_its_headers_and_its_words(receiver: Receiver) -> None:
    await delivery(receiver.port, reply_to="desk@hill.example")(a_message())
    (taken,) = receiver.taken
    assert (taken.sender, taken.recipients) == (SENDER, ["ada@people.example"])
    assert dict(taken.mail.items()) == {
        "From": f"Hill Street <{SENDER}>",
        "To": "ada@people.example",
        "Reply-To": "desk@hill.example",
        "Subject": "Your code for the patient portal - Hill Street",
        "Date": "Sun, 17 Mar 2030 17:46:40 +0000",
        "Message-ID": message_id(a_message(), SENDER),
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": taken.mail["Content-Transfer-Encoding"],
        "MIME-Version": "1.0",
        **{name: value for name, value in taken.mail.items() if name.startswith("X-Peer")},
    } | {
        name: value
        for name, value in taken.mail.items()
        if name in {"X-Peer", "X-MailFrom", "X-RcptTo"}
    }
    assert "1234 5678" in taken.text
    assert "Please do not reply" in taken.text


async def test_files_go_with_a_mail_whatever_somebody_said_that_they_are(
    receiver: Receiver,
) -> None:
    """No media type begins a header or is taken for a mail of its own."""
    files = [
        Attachment("summary.pdf", "application/pdf", b"%PDF-1"),
        Attachment("a.txt", "text/plain; charset=utf-8", "é".encode()),
        Attachment("b", "text/html\r\nBcc: all@evil.example", b"b"),
        Attachment("c", "message/rfc822", b"Subject: x\r\n\r\ny"),
        Attachment("d", "", b"d"),
    ]
    mail = delivery(receiver.port)
    await mail.send(a_message(), await composed(a_message()), files)
    (taken,) = receiver.taken
    assert taken.recipients == ["ada@people.example"]
    parts = list(taken.mail.iter_attachments())
    assert [one.get_content_type() for one in parts] == [
        "application/pdf",
        "text/plain",
        *["application/octet-stream"] * 3,
    ]
    assert [one.get_filename() for one in parts] == ["summary.pdf", "a.txt", "b", "c", "d"]
    assert parts[0].get_payload(decode=True) == b"%PDF-1"
    assert parts[3].get_payload(decode=True) == b"Subject: x\r\n\r\ny"
    assert "Bcc" not in taken.mail


async def test_a_repetition_is_the_same_mail(receiver: Receiver) -> None:
    """And another message is another one."""
    for message in (a_message(), a_message(), a_message("m2")):
        await delivery(receiver.port)(message)
    first, again, other = receiver.taken
    assert first.content == again.content
    assert first.mail["Message-ID"] != other.mail["Message-ID"]


def test_a_message_id_tells_nothing_of_its_key() -> None:
    found = message_id(a_message("security.password-changed.ada"), SENDER)
    assert "ada" not in found
    assert found.endswith("@portal.example.org>")


@pytest.mark.parametrize(
    "to",
    [
        "mail:ada@people.example\r\nBcc: everybody@people.example",
        "mail:ada@people.example\nRCPT TO:<everybody@people.example>",
        "mail:ada@people.example, everybody@people.example",
        "mail:Ada <ada@people.example>",
        'mail:"ada\r\nBcc: x"@people.example',
        "mail:<ada@people.example>",
        "mail:",
        "mail:nobody",
        "account:ada",
    ],
)
async def test_what_is_no_address_is_not_spoken_to(receiver: Receiver, to: str) -> None:
    with pytest.raises(UndeliverableMessage, match="its address is none"):
        await delivery(receiver.port)(a_message(to=to))
    assert receiver.taken == []


@pytest.mark.parametrize("name", ["Hill\r\nBcc: x@people.example", 'Hill", x@people.example, "'])
async def test_a_practices_name_adds_no_header_and_no_address(
    receiver: Receiver, name: str
) -> None:
    async def named(_message: OutboxMessage) -> Letter:
        return render(built_in("test"), Letterhead(name, name, PORTAL), {})

    await delivery(receiver.port, compose=named)(a_message())
    (taken,) = receiver.taken
    assert taken.mail["Bcc"] is None
    assert [one.addr_spec for one in taken.mail["From"].addresses] == [SENDER]
    assert taken.recipients == ["ada@people.example"]


def test_a_header_that_would_have_two_lines_is_never_built() -> None:
    """The second belt: even a letter that was not rendered cannot."""
    server = MailServer("127.0.0.1", 25, "none", SENDER)
    for letter in (Letter("Hill", "Two\r\nBcc: x", "", ""), Letter("Hi\r\nBcc: x", "S", "", "")):
        with pytest.raises(ValueError, match=r"(?i)newline|linefeed|cr or lf|invalid"):
            mail_of(a_message(), letter, "ada@people.example", server)


async def test_international_addresses_are_written_to(receiver: Receiver) -> None:
    for to in ("mail:ada@bücher.example", "mail:ädä@bücher.example"):
        await delivery(receiver.port)(a_message(to=to))
    domain, both = receiver.taken
    assert domain.recipients == ["ada@xn--bcher-kva.example"]
    assert both.recipients == ["ädä@bücher.example"]
    assert "ädä@bücher.example".encode() in both.content


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("answer", ["550 5.1.1 No such user", "553 Not here", "551 Moved"])
async def test_an_address_that_is_refused_for_good_bounces(receiver: Receiver, answer: str) -> None:
    receiver.to_recipient = answer
    with pytest.raises(Bounced) as refused:
        await delivery(receiver.port)(a_message())
    assert "user" not in str(refused.value)
    assert "ada" not in str(refused.value)


@pytest.mark.parametrize(
    "answer", ["450 4.2.1 Mailbox busy", "451 Try later", "550 5.7.1 Relaying denied"]
)
async def test_what_may_pass_is_tried_again(receiver: Receiver, answer: str) -> None:
    """A server that denies its service says nothing about the mailbox."""
    receiver.to_recipient = answer
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await delivery(receiver.port)(a_message())


async def test_a_message_that_is_refused_is_not_the_addresss_fault(receiver: Receiver) -> None:
    receiver.to_data = "554 5.6.0 Not such a message: 1234 5678"
    with pytest.raises(UndeliverableMessage) as refused:
        await delivery(receiver.port)(a_message())
    assert not isinstance(refused.value, Bounced)
    assert "1234" not in str(refused.value)
    receiver.to_data = "451 Disk full"
    with pytest.raises(aiosmtplib.SMTPDataError):
        await delivery(receiver.port)(a_message())


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises((aiosmtplib.SMTPException, OSError)):
            await delivery(bound.getsockname()[1])(a_message())


async def test_a_server_that_hangs_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = asyncio.get_running_loop().time()
        with pytest.raises((TimeoutError, aiosmtplib.SMTPException)):
            await delivery(silent.getsockname()[1], seconds=0.3)(a_message())
        assert asyncio.get_running_loop().time() - begun < 5


async def test_a_server_that_answers_slowly_for_ever_is_left_in_time() -> None:
    """Each answer alone comes in time: the bound is for all of them together."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"220-still here\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()
            left.set()

    left = asyncio.Event()
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((TimeoutError, aiosmtplib.SMTPException)):
            await delivery(port, seconds=0.3)(a_message())
        await left.wait()


async def test_a_server_that_goes_without_goodbye_has_the_mail() -> None:
    """Once taken it is not sent again because of what comes after."""
    taken: list[bytes] = []

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 Hello\r\n")
        while line := await reader.readline():
            if line.startswith(b"QUIT"):
                break
            if line.startswith(b"DATA"):
                writer.write(b"354 Go on\r\n")
                taken.append(await reader.readuntil(b"\r\n.\r\n"))
            writer.write(b"250 OK\r\n")
        writer.close()

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        await delivery(server.sockets[0].getsockname()[1])(a_message())
    assert len(taken) == 1


# ---------------------------------------------------------------- encryption


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for a name, and a client's that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.create_default_context(cafile=str(file))
    return server, client


async def test_starttls_and_sign_in(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "localhost")
    given: dict[str, Any] = {
        "security": "starttls",
        "sender": SENDER,
        "username": "portal",
        "tls": client,
    }
    with receiving(tls=server) as receiver:
        right = MailServer(host="localhost", port=receiver.port, password="right", **given)
        await MailDelivery(right, composed, 10)(a_message())
        wrong = MailServer(host="localhost", port=receiver.port, password="wrong", **given)
        with pytest.raises(aiosmtplib.SMTPAuthenticationError):
            await MailDelivery(wrong, composed, 10)(a_message())
    assert len(receiver.taken) == 1
    assert receiver.logins[0] == ("portal", "right")
    assert "right" not in repr(right)


async def test_a_server_without_encryption_gets_no_mail(receiver: Receiver) -> None:
    with pytest.raises(aiosmtplib.SMTPException):
        await delivery(receiver.port, security="starttls")(a_message())
    with pytest.raises((aiosmtplib.SMTPException, OSError)):
        await delivery(receiver.port, security="tls", seconds=3)(a_message())
    assert receiver.taken == []


async def test_a_server_with_anothers_certificate_gets_no_mail(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "elsewhere.example")
    with receiving(tls=server) as receiver:
        there = MailServer("localhost", receiver.port, "starttls", SENDER, tls=client)
        with pytest.raises((aiosmtplib.SMTPException, OSError)):
            await MailDelivery(there, composed, 10)(a_message())
    assert receiver.taken == []
