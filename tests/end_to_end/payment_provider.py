"""A payment provider as a process of its own, which charges and then fails as it is told to.

``python -m tests.end_to_end.payment_provider PORT LEDGER SECRET``. It is what
`fhir_portal.billing.provider` asks for, and is told how to fail, once, by ``POST /tell?fault=…``:

    slow        the next order is charged as it is opened, and the answer never comes
    die         the next order is charged as it is opened, and then the process kills itself
    die-told    the next page that is paid is charged, and the process dies before it tells
    lost        orders that are paid are not told of, from now on; "" ends that
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fhir_portal.billing.ledger import Ledger, LedgerOrder, NewOrder
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.signature import SIGNATURE, is_signed, signature

EVENTS = "/payments/events"
_FOR_EVER = 3600.0


def provider(port: int, books: Path, secret: str) -> Starlette:
    """The application; ``/tell`` and ``/charged`` are for the runner alone."""
    ledger = Ledger(EmbeddedStore.open(str(books)), secrets.token_bytes)
    told: dict[str, str] = {"fault": "", "portal": ""}

    def shown(order: LedgerOrder) -> Response:
        page = f"http://127.0.0.1:{port}/pay"
        return JSONResponse(msgspec.to_builtins(order.shown(page)))

    async def is_ours(request: Request) -> bool:
        header = request.headers.get(SIGNATURE, "")
        body = await request.body()
        return is_signed(secret, request.url.path, body, header, now=time.time())

    async def begin(request: Request) -> Response:
        if not await is_ours(request):
            return JSONResponse({}, 401)
        order = await ledger.open(msgspec.json.decode(await request.body(), type=NewOrder))
        fault, told["fault"] = told["fault"], told["fault"] if told["fault"] == "lost" else ""
        if fault in {"slow", "die"}:
            order = await ledger.close(order.key, "paid")
        if fault == "slow":
            await asyncio.sleep(_FOR_EVER)
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "die-told":
            told["fault"] = fault
        return shown(order)

    async def state(request: Request) -> Response:
        if not await is_ours(request):
            return JSONResponse({}, 401)
        found = await ledger.find(request.path_params["order"])
        return JSONResponse({}, 404) if found is None else shown(found)

    async def cancel(request: Request) -> Response:
        if not await is_ours(request):
            return JSONResponse({}, 401)
        return shown(await ledger.close(request.path_params["order"], "ended"))

    async def pay(request: Request) -> Response:
        """The payer pays; the portal is told, unless that is what goes wrong."""
        found = await ledger.behind(request.path_params["token"])
        if found is None:
            return JSONResponse({}, 404)
        order = await ledger.close(found.key, "paid")
        if told["fault"] == "die-told":
            os.kill(os.getpid(), signal.SIGKILL)
        if told["fault"] != "lost":
            body = msgspec.json.encode(order.shown(""))
            header = {SIGNATURE: signature(secret, EVENTS, body, at=time.time())}
            async with httpx.AsyncClient(timeout=20) as http:
                with contextlib.suppress(httpx.HTTPError):  # it asks for what it was not told
                    await http.post(f"{told['portal']}{EVENTS}", content=body, headers=header)
        return JSONResponse({"state": order.state})

    async def tell(request: Request) -> Response:
        told.update(dict(request.query_params))
        return JSONResponse(told)

    async def charged(request: Request) -> Response:  # noqa: ARG001 - a handler
        return JSONResponse(await ledger.charged())

    handlers: tuple[tuple[str, str, Any], ...] = (
        ("/orders", "POST", begin),
        ("/orders/{order}", "GET", state),
        ("/orders/{order}/cancel", "POST", cancel),
        ("/pay/{token}", "POST", pay),
        ("/tell", "POST", tell),
        ("/charged", "GET", charged),
    )
    return Starlette(routes=[Route(path, one, methods=[method]) for path, method, one in handlers])


if __name__ == "__main__":
    _port, _books, _secret = sys.argv[1:]
    uvicorn.run(
        provider(int(_port), Path(_books), _secret),
        host="127.0.0.1",
        port=int(_port),
        log_level="error",
    )
