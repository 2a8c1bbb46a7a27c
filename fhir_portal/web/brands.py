"""``/brands``: the user-access brands Bundle, open to every origin (SMART App Launch 2.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.records import RecordStore
from fhir_portal.smart.brands import BRANDS_PATH, BrandList
from fhir_portal.smart.issuer import Issuer
from fhir_portal.web import cors

_CORS: Final = {**dict(cors.OPEN), "access-control-expose-headers": "etag"}
_SECONDS: Final = 3600


def brands_router(*, store: RecordStore, issuer: Issuer, clock: Callable[[], float]) -> APIRouter:
    """The Bundle as a route for FastAPI."""
    published = BrandList(store, issuer, clock)

    async def brands(request: Request) -> Response:
        if request.method == "OPTIONS":
            allowed = dict(cors.preflight(cors.OPEN, methods="GET, HEAD"))
            return Response(status_code=204, headers=allowed)
        found = await published.now()
        etag = f'W/"{found.content}"'
        headers = {
            **_CORS,
            "Cache-Control": f"public, max-age={_SECONDS}",
            "ETag": etag,
            "X-Content-Type-Options": "nosniff",
        }
        known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
        if etag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(
            found.body, headers=headers, media_type="application/fhir+json; charset=utf-8"
        )

    router = APIRouter(include_in_schema=False)
    router.add_route(BRANDS_PATH, brands, methods=["GET", "HEAD", "OPTIONS"])
    return router
