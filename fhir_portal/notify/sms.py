"""SMS through a webhook: the gateway that sends them is asked by HTTP, at an address of its owner.

    POST <FHIR_PORTAL_SMS_URL>
    Content-Type: application/json
    Idempotency-Key: <id>
    Fhir-Portal-Signature: t=<seconds since 1970 UTC>,v1=<signature>

    {"id": "<id>", "to": "+13125550100", "text": "..."}

See `fhir_portal.notify.signature`. An answer of 2xx says that the gateway has it. The same ``id``
again is the same message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
import msgspec

from fhir_portal.notify.composition import Compose
from fhir_portal.notify.outbox import Bounced, OutboxMessage, UndeliverableMessage
from fhir_portal.notify.recipients import address_of
from fhir_portal.notify.signature import SIGNATURE, signature

SECONDS: Final = 20.0
_NUMBER_REFUSED: Final = frozenset({400, 410, 422})
_LATER: Final = frozenset({401, 403, 404, 405, 407, 408, 425, 429})
"""Answers about the gateway or its settings, and not about the message."""


class GatewayRefused(Exception):
    """The gateway does not take it now."""


@dataclass(frozen=True, slots=True)
class SmsGateway:
    """Where SMS are handed over, and the secret that both sides know."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SmsDelivery:
    """`fhir_portal.notify.outbox.Delivery` of SMS. ``http`` follows no redirects."""

    gateway: SmsGateway
    http: httpx.AsyncClient
    compose: Compose
    clock: Callable[[], float]
    seconds: float = SECONDS

    @property
    def _path(self) -> str:
        return httpx.URL(self.gateway.url).path

    async def __call__(self, message: OutboxMessage) -> None:
        """Hand one over.

        Raises `Bounced` where the number is refused for good, `UndeliverableMessage` where the
        message is; whatever else goes wrong may pass, and is tried again.
        """
        letter = await self.compose(message)  # first: what is over needs no address
        to = address_of(message)
        body = msgspec.json.encode({"id": message.key, "to": to, "text": letter.sms})
        request = httpx.Request(
            "POST",
            self.gateway.url,
            content=body,
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": message.key,
                SIGNATURE: signature(self.gateway.secret, self._path, body, at=self.clock()),
                "User-Agent": "fhir-portal",
            },
            extensions={"timeout": httpx.Timeout(self.seconds).as_dict()},
        )
        if message.is_for_nobody:
            return
        async with asyncio.timeout(self.seconds):
            # Streamed and left: nothing but the status of the answer is of use.
            answer = await self.http.send(request, stream=True, follow_redirects=False)
            await answer.aclose()
        if answer.is_success:
            return
        if answer.status_code in _NUMBER_REFUSED:
            raise Bounced("the number takes no SMS: is it spelt right?")
        if answer.is_client_error and answer.status_code not in _LATER:
            raise UndeliverableMessage("the SMS gateway refused the message")
        raise GatewayRefused(str(answer.status_code))
