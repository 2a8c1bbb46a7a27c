"""``/go/<topic>``: from a notice, by way of the sign-in, to the page that is meant.

Where a link may lead is this table, and nothing that stands in a link: there is no address to
redirect to in it. The page asks anew who is there and what they may see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.notify.deep_link import GO, Topic
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.apps import APPS
from fhir_portal.web.pages.help import HELP, help_at
from fhir_portal.web.pages.portal import APPOINTMENTS, MESSAGES
from fhir_portal.web.pages.refusals import refusing
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.pages.signin import SIGN_IN, Onward, practice_key
from fhir_portal.web.pages.step_up import SECURITY

TARGETS: Final[Mapping[Topic, str]] = {
    "apps": APPS,
    "security": SECURITY,
    "sign-in": "",
    "help": HELP,
    "appointments": APPOINTMENTS,
    "messages": MESSAGES,
}
"""The page of each topic, ``""`` for where a sign-in leads by itself."""
_UNKNOWN: Final = "This link leads nowhere any more."


def go_router() -> APIRouter:
    """The links as a route for FastAPI."""
    router = APIRouter(include_in_schema=False)
    handler = refusing(go, back=SIGN_IN, signed_out=SIGN_IN)
    router.add_route(f"{GO}/{{topic}}", handler, methods=["GET", "HEAD"])
    return router


async def go(request: Request) -> Response:
    """Send the browser on. An unknown topic is a page that says so."""
    topic = request.path_params["topic"]
    target = next((there for name, there in TARGETS.items() if name == topic), None)
    if target is None:
        return page(
            "problem.html", status=404, message=_UNKNOWN, error="unknown-link", back=SIGN_IN
        )
    practice = practice_key(dict(parse_pairs(request.scope["query_string"])).get("practice", ""))
    if target == HELP:
        return redirect(help_at(practice))
    return redirect(Onward(then=target, practice=practice).at(SIGN_IN))
