"""A mail server that takes mail on loopback, and does to its sender what a test asks for."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


@dataclass(frozen=True)
class Taken:
    """One mail as it came in: the envelope, the bytes, and what they say."""

    sender: str
    recipients: list[str]
    content: bytes

    @property
    def mail(self) -> EmailMessage:
        found = email.message_from_bytes(self.content, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        return found

    @property
    def text(self) -> str:
        return str(self.mail.get_content())


@dataclass
class Receiver:
    """What came in, and what is answered; the callables run in the server's thread."""

    taken: list[Taken] = field(default_factory=list)
    to_recipient: str = "250 OK"
    to_data: str = "250 OK"
    at_data: Callable[[], None] = lambda: None
    at_quit: Callable[[], None] = lambda: None
    at_recipient: Callable[[], None] = lambda: None
    port: int = 0
    logins: list[tuple[str, str]] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        self.at_recipient()
        if self.to_recipient.startswith("2"):
            envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        if self.to_data.startswith("2"):
            self.taken.append(
                Taken(str(envelope.mail_from), list(envelope.rcpt_tos), envelope.content)
            )
        self.at_data()
        return self.to_data

    async def handle_QUIT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, _envelope: Envelope
    ) -> str:
        self.at_quit()
        return "221 Bye"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any
    ) -> AuthResult:
        self.logins.append((given.login.decode(), given.password.decode()))
        return AuthResult(success=given.password == b"right", handled=False)


@contextmanager
def receiving(
    receiver: Receiver | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """Run a receiver on a port of its own; with a certificate it wants STARTTLS, and sign-in."""
    receiver = receiver or Receiver()
    controller = Controller(
        receiver,
        hostname="127.0.0.1",
        port=port,
        tls_context=tls,
        require_starttls=tls is not None,
        auth_require_tls=True,
        authenticator=receiver.authenticate if tls is not None else None,
        enable_SMTPUTF8=True,
    )
    if port == 0:
        controller.port = _free_port()
    controller.start()
    receiver.port = controller.port
    try:
        yield receiver
    finally:
        controller.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
