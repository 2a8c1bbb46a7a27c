"""Everything that is not the FHIR API or a client's endpoint: pages and health, on FastAPI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


def behind_proxy(application: Any) -> Any:
    """Have an ASGI application see the address that a proxy on this machine says it serves."""
    return ProxyHeadersMiddleware(application, trusted_hosts="127.0.0.1")


def site(routers: Iterable[APIRouter], *, version: str) -> FastAPI:
    """Return the FastAPI application that serves these routers."""
    application = FastAPI(
        title="fhir-portal",
        version=version,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to wherever the Host header says
    )
    for router in routers:
        take_in(application, router)
    return application


def take_in(application: FastAPI, router: APIRouter) -> None:
    """Serve a router's addresses too.

    ``include_router`` would keep the router whole, so as to change its routes by what it is told:
    each is made a second time at the first request, and each request is looked up twice.
    """
    application.router.routes.extend(router.routes)
