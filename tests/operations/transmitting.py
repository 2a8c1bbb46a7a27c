"""Sending records, and delivering what waits in the outbox as the application does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_portal.notify.attachment import Attachment
from fhir_portal.notify.composition import Composer
from fhir_portal.notify.content import MadeBy
from fhir_portal.notify.letter import Letter
from fhir_portal.notify.outbox import OutboxMessage, UndeliverableMessage, deliver_due
from fhir_portal.notify.revocation_events import by_channel
from fhir_portal.operations.transmission import Transmissions
from fhir_portal.operations.transmit import LINK_PREFIX
from fhir_portal.operations.transmit_delivery import (
    TransmitDelivery,
    endpoint_secret,
    link_maker,
)
from fhir_portal.portal import Portal
from fhir_portal.smart.outbound import Outbound
from tests.builders import BASE
from tests.operations.sharing import shares_of
from tests.smart.hosts import Hosts

SITE = BASE.removesuffix("/fhir")


@dataclass
class Mailbox:
    """`Post` that keeps what it is given; ``down`` is what goes wrong instead."""

    got: list[tuple[str, Letter, Sequence[Attachment]]] = field(default_factory=list)
    down: Exception | None = None

    async def send(
        self, message: OutboxMessage, letter: Letter, attachments: Sequence[Attachment]
    ) -> None:
        if self.down is not None:
            raise self.down
        self.got.append((message.to, letter, attachments))


class Sending:
    """The outbox of a portal, and where its messages go."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.mail, self.direct, self.hosts = Mailbox(), Mailbox(), Hosts()
        self.secret_of = endpoint_secret(portal.collaborators.derive)

    async def deliver(self, *, direct: bool = True) -> int:
        """Deliver what is due, once; return how much arrived."""
        store, clock = self.portal.server.store, self.portal.server.clock
        derive, shares = self.portal.collaborators.derive, shares_of(self.portal)
        transmissions = Transmissions(self.portal.server)
        makers = {LINK_PREFIX: link_maker(derive, shares, SITE, clock)}
        transmitting = TransmitDelivery(
            store,
            transmissions,
            shares,
            Composer(store, MadeBy(makers), SITE),
            mail=self.mail,
            direct=self.direct if direct else None,
            outbound=Outbound(self.hosts.http, resolve=self.hosts.resolve),
            secret_of=self.secret_of,
            clock=clock,
        )

        async def nothing(message: OutboxMessage) -> None:
            raise UndeliverableMessage(message.template)

        async def given_up(
            transaction: Any,
            message: OutboxMessage,
            why: str,
            bounced: bool,  # noqa: FBT001 - the signature of `GivenUp`
            now: float,
        ) -> None:
            del bounced, now
            await transmissions.failed(transaction, message, why)

        async def arrived(transaction: Any, message: OutboxMessage) -> None:
            await transmissions.completed(transaction, message)

        async def dropped(transaction: Any, message: OutboxMessage) -> None:
            await transmissions.cancelled(transaction, message)

        return await deliver_due(
            store,
            by_channel(
                {"mail": transmitting.mails(nothing), "webhook": transmitting.webhooks(nothing)}
            ),
            worker="worker",
            clock=clock,
            arrived=arrived,
            given_up=given_up,
            dropped=dropped,
        )
