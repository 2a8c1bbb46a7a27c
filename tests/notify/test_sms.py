"""SMS to a gateway's webhook: what it is posted, and what its answers mean."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
from typing import Any

import httpx
import pytest

from fhir_portal.notify.letter import Letter
from fhir_portal.notify.outbox import Bounced, OutboxMessage, UndeliverableMessage
from fhir_portal.notify.sms import GatewayRefused, SmsDelivery, SmsGateway
from fhir_portal.smart import outbound
from tests.builders import DERM, START, Clock

SECRET = "s" * 32
URL = "https://sms.hill.example/send?channel=7"


def a_message(to: str = "sms:+13125550100") -> OutboxMessage:
    return OutboxMessage(
        key="m1",
        practice=DERM,
        created=START,
        due=START,
        channel="sms",
        to=to,
        template="test",
    )


async def composed(_message: OutboxMessage) -> Letter:
    return Letter("Hill", "Subject", "Text", "Hill: 1234 5678 is your code")


class Gateway:
    """Answers with one status and keeps what it was asked."""

    def __init__(self, status: int = 202, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.asked: list[httpx.Request] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(self.status, headers=self.headers)

    async def take(self, message: OutboxMessage) -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.answer)) as http:
            await SmsDelivery(SmsGateway(URL, SECRET), http, composed, Clock())(message)


async def test_a_gateway_is_told_what_to_send_to_whom_once() -> None:
    gateway = Gateway()
    await gateway.take(a_message())
    (request,) = gateway.asked
    assert (request.method, str(request.url)) == ("POST", URL)
    assert json.loads(request.content) == {
        "id": "m1",
        "to": "+13125550100",
        "text": "Hill: 1234 5678 is your code",
    }
    assert request.headers["Idempotency-Key"] == "m1"
    assert request.headers["Content-Type"] == "application/json"


async def test_the_signature_is_over_time_path_and_body() -> None:
    gateway = Gateway()
    await gateway.take(a_message())
    (request,) = gateway.asked
    signed = f"{START:.0f}./send.".encode() + request.content
    mac = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert request.headers["Fhir-Portal-Signature"] == f"t={START:.0f},v1={mac}"
    assert SECRET not in repr(SmsGateway(URL, SECRET))


@pytest.mark.parametrize("status", [400, 410, 422])
async def test_a_number_that_is_refused_bounces(status: int) -> None:
    with pytest.raises(Bounced):
        await Gateway(status).take(a_message())


@pytest.mark.parametrize("status", [402, 413, 451])
async def test_a_message_that_is_refused_is_not_the_numbers_fault(status: int) -> None:
    with pytest.raises(UndeliverableMessage) as refused:
        await Gateway(status).take(a_message())
    assert not isinstance(refused.value, Bounced)


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 408, 429, 500, 503])
async def test_anything_else_is_tried_again(status: int) -> None:
    gateway = Gateway(status, location="https://elsewhere.example/")
    with pytest.raises(GatewayRefused):
        await gateway.take(a_message())
    assert len(gateway.asked) == 1  # no redirect was followed


@pytest.mark.parametrize("to", ["sms:", "sms:911\r\nX: y", "sms:people", "mail:ada@x.example"])
async def test_what_is_no_number_is_not_asked_for(to: str) -> None:
    gateway = Gateway()
    with pytest.raises(UndeliverableMessage):
        await gateway.take(a_message(to))
    assert gateway.asked == []


async def test_a_gateway_that_hangs_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        begun = asyncio.get_running_loop().time()
        async with outbound.client() as http:
            delivery: Any = SmsDelivery(SmsGateway(url, SECRET), http, composed, Clock(), 0.2)
            with pytest.raises((TimeoutError, httpx.TransportError)):
                await delivery(a_message())
        assert asyncio.get_running_loop().time() - begun < 5
