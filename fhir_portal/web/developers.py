"""``/developers``: for the makers of apps, with a client that runs in the browser.

The description of the OAuth surface, ``/oauth/openapi.json``, is served beside it.

The sandbox is an ordinary public client of this server: it is registered, uses PKCE, and gets
what the person who signs in allows it. Its script is our own; it keeps the token in the page.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from importlib import resources
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.records import RecordStore
from fhir_portal.resources.letters import NEEDED, NEEDED_BY_OPERATIONS
from fhir_portal.smart.authorization_details import type_of
from fhir_portal.smart.brands import BRANDS_PATH, DEVELOPERS_PATH
from fhir_portal.smart.client import Client, DuplicateClient, add_client
from fhir_portal.smart.errors import OAuthError
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.jwks import ALGORITHMS
from fhir_portal.smart.openapi.description import openapi
from fhir_portal.smart.openapi.paths import OPENAPI_PATH
from fhir_portal.smart.security_event import event_of
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web import cors
from fhir_portal.web.pages.refusals import refusing
from fhir_portal.web.pages.render import page

SANDBOX: Final = "developer-sandbox"
SCOPE: Final = "openid fhirUser launch/patient patient/*.rs"
_SECONDS: Final = 300
_SCRIPT: Final = (resources.files("fhir_portal.web.pages") / "static/developers.js").read_bytes()
SCRIPT_PATH: Final = f"/static/developers-{hashlib.sha256(_SCRIPT).hexdigest()[:12]}.js"

_log = structlog.get_logger(__name__)


async def register_sandbox(
    store: RecordStore, issuer: Issuer, *, now: float, random: Callable[[int], bytes]
) -> None:
    """Register the page's client, once: one that an operator disabled stays disabled.

    Under a base URL at which no app could be registered (``http`` elsewhere than on this machine)
    there is none.
    """
    if await store.get(Client, SANDBOX) is not None:
        return
    try:
        await add_client(
            store,
            name="Developer sandbox",
            type="public",
            client_id=SANDBOX,
            redirect_uris=[issuer.at(DEVELOPERS_PATH)],
            scope=SCOPE,
            now=now,
            random=random,
        )
    except DuplicateClient:
        return  # another worker did
    except OAuthError as error:
        _log.info("no developer sandbox", reason=error.description)


def developers_router(
    *,
    server: AuthorizationServer,
    store: RecordStore,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
    dpop_required: bool = False,
) -> APIRouter:
    """The page, its script and the description as routes for FastAPI.

    Whoever opens the page first has its client registered. ``dpop_required`` says that the server
    gives out no bearer tokens: the sandbox has no others, and is switched off then.
    """

    async def show(request: Request) -> Response:
        issuer = server.issuer
        await register_sandbox(store, issuer, now=clock(), random=random)
        client = await store.get(Client, SANDBOX)
        works = client is not None and client.is_open and not dpop_required
        # The client's redirect URI is under the base URL: elsewhere it could not come back.
        here = request.headers.get("host", "") == urlsplit(issuer.base).netloc
        configuration = server.smart_configuration()
        return page(
            "developers.html",
            scripted=works and here,
            own_script=SCRIPT_PATH,
            base=issuer.base,
            fhir=issuer.fhir,
            path=DEVELOPERS_PATH,
            brands=issuer.at(BRANDS_PATH),
            openapi=issuer.at(OPENAPI_PATH),
            details=type_of(issuer),
            event=event_of(issuer),
            letters=(*NEEDED, *NEEDED_BY_OPERATIONS),
            algorithms=ALGORITHMS,
            dpop_required=dpop_required,
            works=works,
            here=here,
            client_id=SANDBOX,
            scope=SCOPE,
            endpoints=[
                (name.removesuffix("_endpoint").replace("_", " "), value)
                for name, value in configuration.items()
                if name.endswith("_endpoint")
            ],
            capabilities=configuration["capabilities"],
            scopes=configuration["scopes_supported"],
        )

    async def description(request: Request) -> Response:
        if request.method == "OPTIONS":
            allowed = dict(cors.preflight(cors.OPEN, methods="GET, HEAD"))
            return Response(status_code=204, headers=allowed)
        headers = {
            **dict(cors.OPEN),
            "Cache-Control": f"public, max-age={_SECONDS}",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(described(), headers=headers, media_type="application/json")

    @functools.cache
    def described() -> bytes:
        scopes = server.smart_configuration()["scopes_supported"]
        return msgspec.json.encode(
            openapi(server.issuer, scopes=scopes, version=version("fhir-portal"))
        )

    async def script(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(_SCRIPT, headers=headers, media_type="text/javascript")

    router = APIRouter(include_in_schema=False)
    handler = refusing(show, back=DEVELOPERS_PATH, signed_out=DEVELOPERS_PATH)
    router.add_route(DEVELOPERS_PATH, handler, methods=["GET"])
    router.add_route(OPENAPI_PATH, description, methods=["GET", "HEAD", "OPTIONS"])
    router.add_route(SCRIPT_PATH, script, methods=["GET"])
    return router
