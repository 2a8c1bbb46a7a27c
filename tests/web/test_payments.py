"""The payment provider over HTTP: what it is asked, what it says, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fhir_portal.billing.amount import Amount
from fhir_portal.billing.ledger import Ledger
from fhir_portal.billing.payment import Payment
from fhir_portal.billing.provider import HttpProvider, Payee, ProviderFault
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.signature import SIGNATURE, signature
from fhir_portal.operations.pay import DONE
from fhir_portal.portal import Portal
from fhir_portal.web.pages.demo_payments import DEMO_PAYMENTS, demo_payments_router
from fhir_portal.web.payments import EVENTS, payments_router
from fhir_portal.web.site import site
from tests.access.conftest import family
from tests.builders import (
    Caller,
    Clock,
    a_portal,
    a_practice,
    an_invoice,
    keep,
    oneself,
)
from tests.operations.holding import parameters, values

__all__ = ["family"]

BASE = "http://127.0.0.1:8000"
SECRET = "p" * 32
ORDER = "a" * 64
DOLLARS = Amount(12000, "USD")
PAYEE = Payee("dermatology", "Dermatology")


class Wire(httpx.AsyncBaseTransport):
    """What carries requests to the site, once that is there; ``broken`` has it fail."""

    def __init__(self) -> None:
        self.to: httpx.AsyncBaseTransport | None = None
        self.broken = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.broken or self.to is None:
            raise httpx.ConnectError("refused")
        return await self.to.handle_async_request(request)


@dataclass
class Town:
    """A portal and the demo's provider on one site, which speak over HTTP."""

    portal: Portal
    store: EmbeddedStore
    provider: HttpProvider
    ledger: Ledger
    http: httpx.AsyncClient
    clock: Clock
    wire: Wire

    async def event(self, body: Any, **changes: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given: dict[str, Any] = {
            "secret": SECRET, "path": EVENTS, "at": self.clock(), "signed": content,
        } | changes  # fmt: skip
        header = signature(given["secret"], given["path"], given["signed"], at=given["at"])
        return await self.http.post(f"{BASE}{EVENTS}", content=content, headers={SIGNATURE: header})

    async def begun(self) -> dict[str, Any]:
        ada = Caller(
            self.portal, oneself("ada", scope="patient/Invoice.r patient/PaymentNotice.cr")
        )
        body = parameters(idempotency__key_String="payment-1")
        return values(await ada.ask("POST", "Invoice/bill/$pay", body))

    async def state(self, key: str) -> str:
        found = await self.store.get(Payment, key)
        assert found is not None
        return found.state


@pytest.fixture
def books(clock: Clock) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore.open(":memory:", clock=clock)
    yield store
    store.close()


@pytest.fixture
async def town(
    family: EmbeddedStore, books: EmbeddedStore, clock: Clock, ehr: Caller
) -> AsyncIterator[Town]:
    wire = Wire()
    async with httpx.AsyncClient(transport=wire) as http:
        provider = HttpProvider(f"{BASE}{DEMO_PAYMENTS}", SECRET, http, clock)
        portal = a_portal(family, clock, payments=provider)
        ledger = Ledger(books, os.urandom)
        routers = [
            payments_router(portal.server, secret=SECRET, clock=clock),
            demo_payments_router(ledger, base=BASE, secret=SECRET, clock=clock, http=http),
        ]
        wire.to = httpx.ASGITransport(site(routers, version="0"))
        await keep(family, a_practice())
        await ehr.store(an_invoice("bill"))
        yield Town(portal, family, provider, ledger, http, clock, wire)


async def test_somebody_pays_on_the_page_and_the_bill_is_paid(town: Town) -> None:
    begun = await town.begun()
    page = await town.http.get(begun["pay-at"])
    assert "120.00 USD" in page.text
    answer = await town.http.post(begun["pay-at"], data={"decision": "pay"})
    back = f"{BASE}{DONE}?payment={begun['payment']}"
    assert (answer.status_code, answer.headers["location"]) == (303, back)
    assert await town.state(begun["payment"]) == "paid"
    assert (await town.begun())["status"] == "paid"
    done = (await town.http.get(answer.headers["location"])).text
    assert "Your payment" in done
    assert f'href="/portal/bills/payment/{begun["payment"]}"' in done
    odd = (await town.http.get(f"{BASE}{DONE}?payment=https://evil.example/")).text
    assert "evil" not in odd
    assert "/portal/bills" not in odd
    again = await town.http.post(begun["pay-at"], data={"decision": "decline"})
    assert again.status_code == 303
    assert "This was paid" in (await town.http.get(begun["pay-at"])).text


async def test_somebody_does_not_pay(town: Town) -> None:
    begun = await town.begun()
    await town.http.post(begun["pay-at"], data={"decision": "decline"})
    assert await town.state(begun["payment"]) == "ended"
    assert await town.ledger.charged() == {}


async def test_a_page_that_is_nobodys_is_not_there(town: Town) -> None:
    for path in ("/demo/payments/pay/", "/demo/payments/pay/x", f"/demo/payments/pay/{ORDER}"):
        assert (await town.http.get(f"{BASE}{path}")).status_code == 404
        assert (await town.http.post(f"{BASE}{path}", data={})).status_code == 404


async def test_the_same_order_twice_is_one(town: Town) -> None:
    first = await town.provider.begin(ORDER, DOLLARS, payee=PAYEE, return_to=BASE)
    assert await town.provider.begin(ORDER, DOLLARS, payee=PAYEE, return_to=BASE) == first
    with pytest.raises(ProviderFault):
        await town.provider.begin(ORDER, Amount(1, "USD"), payee=PAYEE, return_to=BASE)


async def test_an_order_that_was_paid_is_told_as_such_when_it_is_sent_again(town: Town) -> None:
    await town.provider.begin(ORDER, DOLLARS, payee=PAYEE, return_to=BASE)
    await town.ledger.close(ORDER, "paid")
    again = await town.provider.begin(ORDER, DOLLARS, payee=PAYEE, return_to=BASE)
    assert again.state == "paid"


async def test_an_order_that_was_cancelled_before_it_came_is_not_opened(town: Town) -> None:
    assert await town.provider.state(ORDER) is None
    assert (await town.provider.cancel(ORDER)).state == "ended"
    late = await town.provider.begin(ORDER, DOLLARS, payee=PAYEE, return_to=BASE)
    assert (late.state, late.pay_at) == ("ended", "")


async def test_a_provider_that_does_not_answer_is_a_fault_and_no_answer(town: Town) -> None:
    town.wire.broken = True
    for call in (town.provider.state(ORDER), town.provider.cancel(ORDER)):
        with pytest.raises(ProviderFault):
            await call


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{"),
        (200, b"[]"),
        (200, b'{"order":"other","state":"paid","amount":1,"currency":"USD"}'),
        (200, b'{"order":"%s","state":"lost","amount":1,"currency":"USD"}' % ORDER.encode()),
        (200, b'{"order":"%s","state":"paid","amount":"1","currency":"USD"}' % ORDER.encode()),
        (200, b" " * 20_000),
        (302, b""),
        (401, b"{}"),
        (500, b"{}"),
    ],
)
async def test_an_answer_that_is_not_as_agreed_is_a_fault(
    clock: Clock, status: int, body: bytes
) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers={"location": "https://x.example/"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        provider = HttpProvider("https://pay.example", SECRET, http, clock)
        with pytest.raises(ProviderFault):
            await provider.state(ORDER)


@pytest.mark.parametrize("pay_at", ["", "javascript:alert(1)", "https://a@b.example/", "//x", "x"])
async def test_a_payer_is_led_to_a_web_page_only(clock: Clock, pay_at: str) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        tree = {"order": ORDER, "state": "open", "amount": 12000, "currency": "USD"}
        return httpx.Response(200, json=tree | {"pay_at": pay_at})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        provider = HttpProvider("https://pay.example", SECRET, http, clock)
        with pytest.raises(ProviderFault):
            await provider.begin(ORDER, DOLLARS, payee=PAYEE, return_to=BASE)


# ---------------------------------------------------------------- events


def paid(key: str, **changes: Any) -> dict[str, Any]:
    return {"order": key, "state": "paid", "amount": 12000, "currency": "USD"} | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": "q" * 32},
        {"path": "/notify/sms/status"},
        {"at": 0.0},
        {"signed": b"{}"},
    ],
)
async def test_an_event_that_is_not_signed_for_here_and_now_is_refused(
    town: Town, changes: dict[str, Any]
) -> None:
    key = (await town.begun())["payment"]
    assert (await town.event(paid(key), **changes)).status_code == 401
    assert (await town.http.post(f"{BASE}{EVENTS}", json=paid(key))).status_code == 401
    assert await town.state(key) == "begun"


async def test_an_event_that_is_repeated_or_replayed_is_one(town: Town) -> None:
    key = (await town.begun())["payment"]
    for _ in range(3):
        assert (await town.event(paid(key))).status_code == 204
    assert (await town.event(paid(key, state="ended"))).status_code == 204
    assert await town.state(key) == "paid"
    old = town.clock()
    town.clock.advance(301)
    assert (await town.event(paid(key), at=old)).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"order": 1}', 400),
        (b'{"order": "x", "state": "paid", "amount": 1.5, "currency": "USD"}', 400),
        (b"x" * 5000, 413),
        (paid("unknown"), 204),
    ],
)
async def test_an_event_that_says_nothing_changes_nothing(
    town: Town, body: Any, status: int
) -> None:
    key = (await town.begun())["payment"]
    assert (await town.event(body)).status_code == status
    assert await town.state(key) == "begun"


async def test_an_event_of_another_amount_is_refused(town: Town) -> None:
    key = (await town.begun())["payment"]
    assert (await town.event(paid(key, amount=1))).status_code == 400
    assert await town.state(key) == "begun"


async def test_orders_are_taken_from_the_portal_alone(town: Town) -> None:
    for method, path in (
        ("POST", "/orders"),
        ("GET", f"/orders/{ORDER}"),
        ("POST", f"/orders/{ORDER}/cancel"),
    ):
        answer = await town.http.request(method, f"{BASE}{DEMO_PAYMENTS}{path}", content=b"{}")
        assert answer.status_code == 401
    assert await town.ledger.find(ORDER) is None
