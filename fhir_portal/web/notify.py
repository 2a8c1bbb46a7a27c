"""Where those who send for us say that a message came back, or arrived: signed, once is enough.

    POST /notify/sms/status    {"id": "<id>", "status": "delivered" | "failed"}
    POST /notify/mail/bounce   {"message_id": "<Message-ID of the mail>"}

Both carry the signature of `fhir_portal.notify.signature`. The answer is 204 whether the message is
known or not, and whether it was said before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fhir_portal.notify.outbox import (
    Arrived,
    GivenUp,
    NotSentYet,
    OutboxMessage,
    came_back,
    was_received,
)
from fhir_portal.notify.signature import SIGNATURE, is_signed
from fhir_portal.records import RecordStore
from fhir_portal.smart.errors import OAuthError
from fhir_portal.web.form import read_body

SMS_STATUS: Final = "/notify/sms/status"
MAIL_BOUNCE: Final = "/notify/mail/bounce"
_MAX_BYTES: Final = 4096


class SmsStatus(msgspec.Struct, forbid_unknown_fields=True):
    """What became of an SMS; ``id`` is the one it was handed over with."""

    id: str
    status: Literal["delivered", "failed"]


class MailBounce(msgspec.Struct, forbid_unknown_fields=True):
    """A mail that came back for good, with or without the angle brackets of its header."""

    message_id: str


def notify_router(
    *,
    store: RecordStore,
    given_up: GivenUp,
    received: Arrived,
    clock: Callable[[], float],
    sms_secret: str | None,
    mail_secret: str | None,
) -> APIRouter:
    """The two addresses as routes for FastAPI; one without a secret is not there.

    ``received`` notes that a message reached its person, in the transaction that finds it.
    """

    async def sms(body: bytes) -> None:
        said = msgspec.json.decode(body, type=SmsStatus)
        if said.status == "delivered":
            await was_received(store, said.id, received)
            return
        message = await store.get(OutboxMessage, said.id)
        if message is not None and message.channel == "sms":
            why = "the number takes no SMS: is it spelt right?"
            await came_back(store, message.key, why, given_up, now=clock())

    async def mail(body: bytes) -> None:
        said = msgspec.json.decode(body, type=MailBounce)
        name = said.message_id.strip("<>").partition("@")[0]
        for message in await store.find(OutboxMessage, "mail_id", name, limit=1):
            why = "the mail came back: is the address spelt right?"
            await came_back(store, message.key, why, given_up, now=clock())

    router = APIRouter(include_in_schema=False)
    for path, secret, take in ((SMS_STATUS, sms_secret, sms), (MAIL_BOUNCE, mail_secret, mail)):
        if secret is not None:
            router.add_route(path, signed(path, secret, take, clock), methods=["POST"])
    return router


def signed(
    path: str, secret: str, take: Callable[[bytes], Awaitable[None]], clock: Callable[[], float]
) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of an address that takes what is signed for it; see the module."""

    async def answer(request: Request) -> Response:
        try:
            body = await read_body(request.receive, _MAX_BYTES)
        except OAuthError as error:
            return _refusal(error.status, error.description)
        header = request.headers.get(SIGNATURE, "")
        if not is_signed(secret, path, body, header, now=clock()):
            return _refusal(401, f"{SIGNATURE} is missing, wrong, or older than five minutes")
        try:
            await take(body)
        except msgspec.MsgspecError as error:
            return _refusal(400, str(error))
        except NotSentYet:
            return _refusal(503, "say it again in a minute", {"Retry-After": "60"})
        return Response(status_code=204)

    return answer


def _refusal(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)
