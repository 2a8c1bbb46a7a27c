"""``/demo/payments``: the test provider of payments, which moves no money.

It speaks as `fhir_portal.billing.provider` says, and has one page, where somebody pays or does not.
It is there only where ``fhir-portal demo`` serves on somebody's own machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httpx
import msgspec
import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fhir_portal.billing.amount import Amount
from fhir_portal.billing.ledger import Ledger, LedgerOrder, NewOrder
from fhir_portal.billing.provider import Order
from fhir_portal.notify.signature import SIGNATURE, is_signed, signature
from fhir_portal.smart.errors import OAuthError
from fhir_portal.web.form import once_each, read_body
from fhir_portal.web.pages.browser import posted
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.payments import EVENTS

DEMO_PAYMENTS: Final = "/demo/payments"
_PAY: Final = f"{DEMO_PAYMENTS}/pay"
_MAX_BYTES: Final = 4096

_log = structlog.get_logger(__name__)


def demo_payments_router(
    ledger: Ledger,
    *,
    base: str,
    secret: str,
    clock: Callable[[], float],
    http: httpx.AsyncClient,
) -> APIRouter:
    """The addresses as routes for FastAPI; ``base`` is the address of the site."""

    async def tell(order: Order) -> None:
        body = msgspec.json.encode(order)
        signed = signature(secret, EVENTS, body, at=clock())
        await http.post(f"{base}{EVENTS}", content=body, headers={SIGNATURE: signed})

    async def signed_body(request: Request) -> bytes | None:
        try:
            body = await read_body(request.receive, _MAX_BYTES)
        except OAuthError:
            return None
        header = request.headers.get(SIGNATURE, "")
        return body if is_signed(secret, request.url.path, body, header, now=clock()) else None

    def told(order: LedgerOrder) -> Response:
        return JSONResponse(msgspec.to_builtins(order.shown(f"{base}{_PAY}")))

    async def begin(request: Request) -> Response:
        body = await signed_body(request)
        if body is None:
            return _refused(401)
        try:
            new = msgspec.json.decode(body, type=NewOrder)
        except msgspec.MsgspecError:
            return _refused(400)
        return told(await ledger.open(new))

    async def state(request: Request) -> Response:
        if await signed_body(request) is None:
            return _refused(401)
        found = await ledger.find(request.path_params["order"])
        return _refused(404) if found is None else told(found)

    async def cancel(request: Request) -> Response:
        if await signed_body(request) is None:
            return _refused(401)
        return told(await ledger.close(request.path_params["order"], "ended"))

    async def show(request: Request) -> Response:
        found = await ledger.behind(request.path_params["token"])
        if found is None:
            return page("problem.html", status=404, message="There is no such order.", back="/")
        amount = Amount(found.amount, found.currency)
        return page("demo_payment.html", amount=amount, payee=found.payee, state=found.state)

    async def decide(request: Request) -> Response:
        """No cookie stands behind this form: who has its address may pay, or not."""
        found = await ledger.behind(request.path_params["token"])
        if found is None:
            return page("problem.html", status=404, message="There is no such order.", back="/")
        pays = once_each(await posted(request)).get("decision") == "pay"
        after = await ledger.close(found.key, "paid" if pays else "ended")
        try:
            await tell(after.shown(""))
        except httpx.HTTPError as error:  # the portal asks for what it was not told
            _log.warning("the portal was not told of an order", error=type(error).__name__)
        return redirect(found.return_to)

    router = APIRouter(include_in_schema=False)
    for path, method, handler in (
        (f"{DEMO_PAYMENTS}/orders", "POST", begin),
        (f"{DEMO_PAYMENTS}/orders/{{order}}", "GET", state),
        (f"{DEMO_PAYMENTS}/orders/{{order}}/cancel", "POST", cancel),
        (f"{_PAY}/{{token}}", "GET", show),
        (f"{_PAY}/{{token}}", "POST", decide),
    ):
        router.add_route(path, handler, methods=[method])
    return router


def _refused(status: int) -> Response:
    return JSONResponse({"error": "refused"}, status)
