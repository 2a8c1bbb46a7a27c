"""``/demo/outbox``: the mail and SMS of the demo, which nobody sends, to be read on a page.

It shows everybody's codes and links. So it is there only where ``fhir-portal demo`` serves on
somebody's own machine, and answers only to that machine, asked under its own name: a page of
another site that has its name lead here (DNS rebinding) gets nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.notify.folder import messages_in
from fhir_portal.web.pages.browser import address_of
from fhir_portal.web.pages.render import page

DEMO_OUTBOX: Final = "/demo/outbox"
_MOST: Final = 200

Message = dict[str, Any]


def demo_outbox_router(folder: Path, *, portal: str) -> APIRouter:
    """The page as a route for FastAPI; ``portal`` is the base URL, to which links may lead."""

    async def show(request: Request) -> Response:
        if not (_is_loopback(address_of(request)) and _is_loopback(request.url.hostname or "")):
            message = "This page is there for the machine that the demo runs on."
            return page("problem.html", status=403, message=message, back="/signin")
        found = await asyncio.to_thread(messages_in, folder, limit=_MOST)
        return page(
            "demo_outbox.html",
            messages=[_shown(one, portal) for one in found],
            most=_MOST,
            path=DEMO_OUTBOX,
        )

    router = APIRouter(include_in_schema=False)
    router.add_route(DEMO_OUTBOX, show, methods=["GET"])
    return router


def _shown(message: Message, portal: str) -> Message:
    link = message.get("link")
    ours = isinstance(link, str) and link.startswith(f"{portal}/")
    text = str(message.get("text") or "")
    before, found, after = text.partition(link) if ours and link else (text, "", "")
    created = message.get("created")
    when = datetime.fromtimestamp(created, UTC) if isinstance(created, int | float) else None
    return {
        "to": _address(str(message.get("to") or "")),
        "is_sms": message.get("channel") == "sms",
        "subject": message.get("subject") or "",
        "when": f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else "",
        "before": before,
        "link": found,
        "after": after,
    }


def _address(to: str) -> str:
    return to.removeprefix("mail:").removeprefix("sms:")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False
