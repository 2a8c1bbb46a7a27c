"""Where the payment provider says how an order ended, and where it leads the payer back to.

    POST /payments/events   {"order", "state", "amount", "currency"}

It carries the signature of `fhir_portal.notify.signature`. The answer is 204 whether the order is
known or not, and whether it was said before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.billing.provider import Order
from fhir_portal.operations.pay import DONE
from fhir_portal.operations.settlement import OtherOrder, settle
from fhir_portal.resources.server import Server
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.notify import signed
from fhir_portal.web.pages.render import page

EVENTS: Final = "/payments/events"
PAYMENT: Final = "/portal/bills/payment"
"""Where the portal's own pages say how one stands."""
_KEY: Final = re.compile(r"[0-9a-f]{64}")


def payments_router(server: Server, *, secret: str | None, clock: Callable[[], float]) -> APIRouter:
    """The addresses as routes for FastAPI; without a secret there are none."""

    async def take(body: bytes) -> None:
        order = msgspec.json.decode(body, type=Order)
        try:
            await settle(server, order)
        except LookupError:
            return  # not ours, or of a store that was put back from a backup
        except OtherOrder:
            raise msgspec.ValidationError("the order was for another amount") from None

    async def done(request: Request) -> Response:
        """Say nothing of the payment: who pays in an app has no session of the portal's pages."""
        key = dict(parse_pairs(request.scope["query_string"])).get("payment", "")
        known = key if _KEY.fullmatch(key) else ""
        return page("payment_done.html", address=f"{PAYMENT}/{known}" if known else "")

    router = APIRouter(include_in_schema=False)
    if secret is not None:
        router.add_route(EVENTS, signed(EVENTS, secret, take, clock), methods=["POST"])
        router.add_route(DONE, done, methods=["GET"])
    return router
