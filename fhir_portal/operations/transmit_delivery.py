"""Delivering what `$transmit` asked for: what is sent is read now, by the right of who sends it.

Where that right has ended nothing is sent. Every reading is in the access log of the record, with
the recipient.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir.errors import FhirError, Unavailable
from fhir_portal.notify.attachment import Attachment, Post
from fhir_portal.notify.composition import Compose
from fhir_portal.notify.content import Maker
from fhir_portal.notify.outbox import (
    AddressDown,
    Delivery,
    OutboxMessage,
    Superseded,
    UndeliverableMessage,
)
from fhir_portal.notify.signature import SIGNATURE, signature
from fhir_portal.operations.open_share import NotShared, Opened, Shares
from fhir_portal.operations.shared_files import (
    FHIR,
    content_of,
    health_file,
    health_files,
    listed,
)
from fhir_portal.operations.transmission import (
    RECORD_ATTACHED,
    RECORD_DIRECT,
    RECORD_POSTED,
    SHARE_LINK,
    Transmission,
    Transmissions,
)
from fhir_portal.records import RecordReader, RecordStore
from fhir_portal.smart.health_link import health_link
from fhir_portal.smart.outbound import AddressRefused, NoAnswer, NoTurn, Outbound
from fhir_portal.smart.sharing import ShareLink, ShareSecrets

MOST_BYTES: Final = 10 * 1024 * 1024
"""All files of a mail together, before they are encoded."""
LONGEST_NAME: Final = 100
_OF_MAIL: Final = frozenset({"summary/pdf"})
_OF_DIRECT: Final = frozenset({"summary/pdf", "record/ccda"})
_ENDINGS: Final[Mapping[str, str]] = {
    "application/pdf": ".pdf",
    "text/plain": ".txt",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "application/xml": ".xml",
    "text/xml": ".xml",
    "application/cda+xml": ".xml",
}

T = TypeVar("T")


class SecretOf(Protocol):
    """The secret that the server and the endpoint at an address both know."""

    def __call__(self, practice: str, address: str) -> str: ...


class TransmitDelivery:
    """`Delivery` of each kind of message that `$transmit` makes.

    ``mail`` sends plain mail, ``direct`` mail to a Direct address, where that is set up.
    """

    def __init__(
        self,
        store: RecordStore,
        transmissions: Transmissions,
        shares: Shares,
        compose: Compose,
        *,
        mail: Post,
        direct: Post | None,
        outbound: Outbound,
        secret_of: SecretOf,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._transmissions = transmissions
        self._shares = shares
        self._compose = compose
        self._mail = mail
        self._direct = direct
        self._outbound = outbound
        self._secret_of = secret_of
        self._clock = clock

    def mails(self, otherwise: Delivery) -> Delivery:
        """Return what delivers mail: of these templates here, of all others as before."""
        ours = {
            SHARE_LINK: self.by_link,
            RECORD_ATTACHED: self.by_mail,
            RECORD_DIRECT: self.by_direct,
        }
        return by_template(ours, otherwise)

    def webhooks(self, otherwise: Delivery) -> Delivery:
        """The same of webhooks."""
        return by_template({RECORD_POSTED: self.to_endpoint}, otherwise)

    async def by_link(self, message: OutboxMessage) -> None:
        """Send the mail that carries a link; the link is made now, and stored nowhere."""
        await self._begun(message)
        await self._mail.send(message, await self._compose(message), ())

    async def by_mail(self, message: OutboxMessage) -> None:
        """Send files by plain mail."""
        opened = await self._begun(message)
        if not (await policy_of(self._store, message.practice)).plain_mail:
            raise Superseded("the practice sends no plain mail any more")
        files = await self._files(opened, _OF_MAIL)
        await self._mail.send(message, await self._compose(message), files)

    async def by_direct(self, message: OutboxMessage) -> None:
        """Send files to a Direct address."""
        if self._direct is None:
            raise UndeliverableMessage("nothing is set up to send to Direct addresses")
        opened = await self._begun(message)
        files = await self._files(opened, _OF_DIRECT)
        await self._direct.send(message, await self._compose(message), files)

    async def to_endpoint(self, message: OutboxMessage) -> None:
        """Post FHIR JSON to an endpoint, signed (`fhir_portal.notify.signature`)."""
        opened = await self._begun(message)
        body = await _made(self._whole(opened))
        path = urlsplit(message.to).path or "/"
        secret = self._secret_of(message.practice, message.to)
        headers = {
            "Idempotency-Key": message.key,
            SIGNATURE: signature(secret, path, body, at=self._clock()),
        }
        try:
            await self._outbound.post(message.to, body, FHIR, headers)
        except AddressRefused as error:
            raise UndeliverableMessage(str(error)) from None
        except NoTurn:
            raise  # it says nothing about the host
        except NoAnswer as error:
            raise AddressDown(str(error)) from None

    async def _begun(self, message: OutboxMessage) -> Opened:
        """Note that it is being sent, and take up the sender's right. Raises `Superseded`."""

        async def note(transaction: Any) -> Transmission | None:
            await self._transmissions.began(transaction, message.key)
            found: Transmission | None = await transaction.get(Transmission, message.key)
            return found

        found = await self._store.transact(note)
        if found is None:
            raise UndeliverableMessage("nobody knows any more what was to be sent")
        try:
            return await self._shares.delivering(
                found.link, f"{found.way}: {found.to}"[:LONGEST_NAME]
            )
        except NotShared:
            raise Superseded("the sender may not show this any more") from None

    async def _files(self, opened: Opened, of_summary: frozenset[str]) -> list[Attachment]:
        return await _made(self._attachments(opened, of_summary))

    async def _attachments(self, opened: Opened, of_summary: frozenset[str]) -> list[Attachment]:
        found: list[Attachment] = []
        for one in await listed(opened.link, opened.perform):
            if not one.name.startswith("document/") and one.name not in of_summary:
                continue
            content = await content_of(opened.link, one.name, opened.perform)
            if content is None:
                continue
            ending = _ENDINGS.get(content[0].partition(";")[0].strip().lower(), "")
            named = one.file_name if "." in one.file_name else f"document-{len(found) + 1}{ending}"
            found.append(Attachment(named, content[0], content[1]))
        if not found:
            raise Superseded("there is nothing to send any more")
        if sum(len(one.content) for one in found) > MOST_BYTES:
            raise UndeliverableMessage("it is too large for a mail: send a link")
        return found

    async def _whole(self, opened: Opened) -> bytes:
        for name in await health_files(opened.link, opened.perform):
            content = await health_file(opened.link, name, opened.perform)
            if content is not None:
                return content
        raise Superseded("there is nothing to send any more")


async def _made(making: Awaitable[T]) -> T:
    """Return what is made under the sender's right; what that does not show is not sent."""
    try:
        return await making
    except Unavailable:
        raise
    except FhirError:
        raise Superseded("the sender may not show this any more") from None


def link_maker(
    derive: Callable[..., bytes], shares: Shares, base: str, clock: Callable[[], float]
) -> Maker:
    """Make the link of a mail when it is sent, while its maker may still show what it shows."""
    secrets = ShareSecrets(derive)

    async def make(reader: RecordReader, own_id: str, attempt: int) -> Mapping[str, str] | None:
        del attempt
        link = await reader.get(ShareLink, secrets.key_of(own_id))
        if link is None or link.state(clock()) != "active":
            return None
        try:
            await shares.delivering(link.key, "")
        except NotShared:
            return None
        address = f"{base}/shared/{secrets.handle(own_id)}"
        written = health_link(
            url=f"{address}/manifest", key=secrets.file_key(own_id), until=link.until, label=""
        )
        return {"link": f"{address}#{written}"}

    return make


def by_template(deliveries: Mapping[str, Delivery], otherwise: Delivery) -> Delivery:
    """One `Delivery` that hands each message to the one for its template, if there is one."""

    async def deliver(message: OutboxMessage) -> None:
        await deliveries.get(message.template, otherwise)(message)

    return deliver


def endpoint_secret(derive: Callable[..., bytes]) -> SecretOf:
    """Secrets of endpoints, made of the server's: one for each address of a practice."""

    def secret_of(practice: str, address: str) -> str:
        return derive("transmit-endpoint", practice.encode(), address.encode()).hex()

    return secret_of
