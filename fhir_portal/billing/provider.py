"""Whoever takes the money: a payment provider, spoken to over HTTP.

The payer gives card or account to the provider, on the provider's own page; nothing of that comes
here. What is said in either direction is signed (`fhir_portal.notify.signature`):

    POST <url>/orders      {"order", "amount", "currency", "practice", "payee", "return_to"}
    GET  <url>/orders/<order>
    POST <url>/orders/<order>/cancel

Each answers ``{"order", "state": "open" | "paid" | "ended", "amount", "currency", "pay_at"}``.
``order`` is the idempotency key: the same order twice is one. ``paid`` and ``ended`` are final; a
cancelled order is ``ended`` unless it was paid before, also one that the provider did not know: it
cannot be opened afterwards. ``amount`` is in the smallest unit of the currency. ``GET`` of an order
that the provider does not know is answered with 404.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from fhir_portal.billing.amount import Amount
from fhir_portal.notify.signature import SIGNATURE, signature

OrderState = Literal["open", "paid", "ended"]
SECONDS: Final = 10.0
_LONGEST: Final = 16 * 1024
_NOT_FOUND: Final = 404


class Order(msgspec.Struct, frozen=True):
    """What a provider says of an order."""

    order: str
    state: OrderState
    amount: int
    currency: str
    pay_at: str = ""

    @property
    def money(self) -> Amount:
        """The amount it is for, and that was paid if it was."""
        return Amount(self.amount, self.currency)


class ProviderFault(Exception):
    """The provider does not answer, or not as it should. What became of an order is not known."""


@dataclass(frozen=True, slots=True)
class Payee:
    """Who is paid: the key and the name of a practice."""

    practice: str
    name: str


class PaymentProvider(Protocol):
    """Takes payments. Every method may be repeated."""

    async def begin(self, order: str, amount: Amount, *, payee: Payee, return_to: str) -> Order:
        """Open an order, or return the one that is there. Raises `ProviderFault`."""
        ...

    async def state(self, order: str) -> Order | None:
        """Return an order, ``None`` if the provider does not know it. Raises `ProviderFault`."""
        ...

    async def cancel(self, order: str) -> Order:
        """End an order that is not paid; returns it as it is then. Raises `ProviderFault`."""
        ...


@dataclass(frozen=True, slots=True)
class HttpProvider:
    """`PaymentProvider` at an address that the operator names. ``http`` follows no redirects."""

    url: str
    secret: str = field(repr=False)
    http: httpx.AsyncClient
    clock: Callable[[], float]
    seconds: float = SECONDS

    async def begin(self, order: str, amount: Amount, *, payee: Payee, return_to: str) -> Order:
        """Open an order, or return the one that is there."""
        body = msgspec.json.encode(
            {
                "order": order,
                "amount": amount.units,
                "currency": amount.currency,
                "practice": payee.practice,
                "payee": payee.name,
                "return_to": return_to,
            }
        )
        found = await self._said("POST", "/orders", body, order)
        if found is None:
            raise ProviderFault("the provider does not know the order that it was asked to open")
        if found.state != "ended" and found.money != amount:
            raise ProviderFault("the provider opened another order than was asked for")
        if found.state == "open" and not _leads_on(found.pay_at):
            raise ProviderFault("the provider does not say where to pay")
        return found

    async def state(self, order: str) -> Order | None:
        """Return an order, ``None`` if the provider does not know it."""
        return await self._said("GET", f"/orders/{order}", b"", order)

    async def cancel(self, order: str) -> Order:
        """End an order that is not paid; returns it as it is then."""
        found = await self._said("POST", f"/orders/{order}/cancel", b"", order)
        if found is None or found.state == "open":
            raise ProviderFault("the order was not ended")
        return found

    async def _said(self, method: str, path: str, body: bytes, order: str) -> Order | None:
        url = f"{self.url.rstrip('/')}{path}"
        signed = signature(self.secret, urlsplit(url).path, body, at=self.clock())
        headers = {"Content-Type": "application/json", SIGNATURE: signed}
        try:
            async with asyncio.timeout(self.seconds):
                answer = await self.http.request(
                    method, url, content=body, headers=headers, follow_redirects=False
                )
        except (httpx.HTTPError, TimeoutError) as error:
            raise ProviderFault(type(error).__name__) from None
        if answer.status_code == _NOT_FOUND:
            return None
        if not answer.is_success or len(answer.content) > _LONGEST:
            raise ProviderFault(str(answer.status_code))
        try:
            found = msgspec.json.decode(answer.content, type=Order)
        except msgspec.MsgspecError:
            raise ProviderFault("the answer is not as agreed") from None
        if found.order != order:
            raise ProviderFault("the answer is of another order")
        return found


def _leads_on(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
