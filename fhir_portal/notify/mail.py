"""Mail by SMTP (RFC 5321), one connection for each message.

A repetition has the same ``Message-ID`` as the first (RFC 5322 §3.6.4), and the same code or link,
so that whoever gets both sees one. Everything together takes less time than the message is leased
for. What the server answers is never repeated: it may quote what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.policy
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final, Literal

import aiosmtplib
from email_validator import validate_email

from fhir_portal.accounts.contacts import mail_address
from fhir_portal.notify.attachment import Attachment
from fhir_portal.notify.composition import Compose
from fhir_portal.notify.letter import Letter
from fhir_portal.notify.outbox import Bounced, OutboxMessage, UndeliverableMessage, mail_id_of
from fhir_portal.notify.recipients import address_of

Security = Literal["starttls", "tls", "none"]

SECONDS: Final = 45.0
"""For all of it: less than `fhir_portal.notify.outbox.LEASE_SECONDS`."""
_FOR_GOOD: Final = 500
_POLICY: Final = re.compile(r"\s*5\.7\.")
"""An enhanced status (RFC 3463 §3.8) that speaks of permission, and not of the mailbox."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """The server that takes our mail, and who we say we are.

    ``sender`` is the address mail comes from; ``reply_to`` one that somebody reads, or that
    answers with guidance.
    """

    host: str
    port: int
    security: Security
    sender: str
    reply_to: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class MailDelivery:
    """`fhir_portal.notify.outbox.Delivery` of mail."""

    server: MailServer
    compose: Compose
    seconds: float = SECONDS

    async def __call__(self, message: OutboxMessage) -> None:
        """Send one mail.

        Raises `Bounced` where the address is refused for good, `UndeliverableMessage` where the
        message is; whatever else goes wrong may pass, and is tried again.
        """
        await self.send(message, await self.compose(message), ())

    async def send(
        self, message: OutboxMessage, letter: Letter, attachments: Sequence[Attachment]
    ) -> None:
        """Send a letter with files. Raises what a delivery raises."""
        address = address_of(message)
        mail = mail_of(message, letter, address, self.server)
        for one in attachments:
            first, second = one.types
            mail.add_attachment(one.content, maintype=first, subtype=second, filename=one.name)
        if message.is_for_nobody:
            return
        async with asyncio.timeout(self.seconds):
            await self._send(mail, address)

    async def _send(self, mail: EmailMessage, address: str) -> None:
        server = self.server
        smtp = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=server.tls,
            timeout=self.seconds,
        )
        try:
            await smtp.connect()
            try:
                await self._hand_over(smtp, mail, address)
            except aiosmtplib.SMTPRecipientsRefused as error:
                (refused,) = error.recipients
                if refused.code >= _FOR_GOOD and not _POLICY.match(refused.message):
                    raise Bounced("the address takes no mail: is it spelt right?") from None
                raise
            except aiosmtplib.SMTPDataError as error:
                if error.code >= _FOR_GOOD:
                    raise UndeliverableMessage("the mail server refused the message") from None
                raise
            except aiosmtplib.SMTPNotSupported:
                raise UndeliverableMessage(
                    "the mail server takes no address with such letters"
                ) from None
            # It is theirs now: a server that does not say goodbye is no reason to send it again.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                await smtp.quit(timeout=_GOODBYE_SECONDS)
        finally:
            smtp.close()

    async def _hand_over(self, smtp: aiosmtplib.SMTP, mail: EmailMessage, address: str) -> None:
        recipient = _in_ascii(address)
        international = recipient is None
        await smtp.sendmail(
            self.server.sender,
            [recipient or address],
            mail.as_bytes(policy=email.policy.SMTPUTF8 if international else email.policy.SMTP),
            mail_options=["SMTPUTF8", "BODY=8BITMIME"] if international else [],
        )


_GOODBYE_SECONDS: Final = 5.0


def mail_of(
    message: OutboxMessage, letter: Letter, address: str, server: MailServer
) -> EmailMessage:
    """Return a message as mail. Its headers are built of parsed values; no text begins a header."""
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"] = Address(display_name=letter.sender, addr_spec=server.sender)
    local, _, domain = (_in_ascii(address) or address).rpartition("@")
    mail["To"] = Address(username=local, domain=domain)
    if server.reply_to is not None:
        mail["Reply-To"] = Address(addr_spec=server.reply_to)
    mail["Subject"] = letter.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(message.created, UTC))
    mail["Message-ID"] = message_id(message, server.sender)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5: no out-of-office notes in answer
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(letter.text)
    return mail


def message_id(message: OutboxMessage, sender: str) -> str:
    """Return the ``Message-ID``: the same for the same key, and telling nothing of what it says."""
    return f"<{mail_id_of(message.key)}@{sender.rpartition('@')[2]}>"


def _in_ascii(address: str) -> str | None:
    """The address as every server takes it; ``None`` where its local part has other letters."""
    found = validate_email(mail_address(address), check_deliverability=False, test_environment=True)
    return found.ascii_email
