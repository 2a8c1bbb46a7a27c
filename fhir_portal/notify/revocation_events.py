"""Handing over the events that tell apps of ended access (RFC 8935, push delivery).

The message says which access; the event is signed when it is sent, with the key of then. Its
address was named by an app, so it is asked like every such address: `smart.outbound`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fhir_portal.notify.outbox import (
    AddressDown,
    Channel,
    Delivery,
    OutboxMessage,
    UndeliverableMessage,
)
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.outbound import AddressRefused, NoAnswer, NoTurn, Outbound
from fhir_portal.smart.revocation import ACCESS_ENDED
from fhir_portal.smart.security_event import CONTENT_TYPE, reason_of, security_event


class RevocationEvents:
    """`Delivery` of the webhook messages of the template `ACCESS_ENDED`.

    ``keys`` gives the keys to sign with now. Any answer of 2xx is a receipt; anything else is
    tried again, for the next attempt may find a host that has been put right.
    """

    def __init__(
        self, outbound: Outbound, keys: Callable[[], Awaitable[ServerKeys]], issuer: Issuer
    ) -> None:
        self._outbound = outbound
        self._keys = keys
        self._issuer = issuer

    async def __call__(self, message: OutboxMessage) -> None:
        """Post the event.

        Raises `UndeliverableMessage` where it could never arrive, `AddressDown` where nothing
        would arrive now.
        """
        if message.template != ACCESS_ENDED:
            raise UndeliverableMessage(f"there is no webhook '{message.template}'")
        event = security_event(
            await self._keys(),
            self._issuer,
            name=message.key,
            client_id=message.values["client_id"],
            grant_id=message.values["grant_id"],
            reason=reason_of(message.values["because"]),
            at=message.created,
        )
        try:
            await self._outbound.post(message.to, event.encode(), CONTENT_TYPE)
        except AddressRefused as error:
            raise UndeliverableMessage(str(error)) from None
        except NoTurn:
            raise  # it says nothing about the host
        except NoAnswer as error:
            raise AddressDown(str(error)) from None


def by_channel(deliveries: Mapping[Channel, Delivery]) -> Delivery:
    """One `Delivery` that hands each message to the one for its channel."""

    async def deliver(message: OutboxMessage) -> None:
        delivery = deliveries.get(message.channel)
        if delivery is None:
            raise UndeliverableMessage(f"nothing is set up to send by {message.channel}")
        await delivery(message)

    return deliver
