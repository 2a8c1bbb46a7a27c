"""``/health/live`` and ``/health/ready``, for whatever watches the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse


def health_router(faults: Callable[[], Awaitable[list[str]]]) -> APIRouter:
    """Return the two routes; ``faults`` names what keeps the server from being ready."""
    router = APIRouter(prefix="/health", tags=["operation"])

    @router.get("/live")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @router.get("/ready")
    async def ready() -> Response:
        """Requests can be served; 503 with the reasons otherwise."""
        found = await faults()
        if found:
            return JSONResponse({"status": "not ready", "reasons": found}, status_code=503)
        return JSONResponse({"status": "ready"})

    return router
