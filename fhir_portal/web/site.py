"""Everything that is not the FHIR API or a client's endpoint: pages and health, on FastAPI."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI


def site(routers: Iterable[APIRouter], *, version: str) -> FastAPI:
    """Return the FastAPI application that serves these routers."""
    application = FastAPI(title="fhir-portal", version=version, docs_url=None, redoc_url=None)
    for router in routers:
        application.include_router(router)
    return application
