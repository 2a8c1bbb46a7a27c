"""``/about``: the software this server runs on, under which licences, and its bill of materials."""

from __future__ import annotations

import functools
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.web.distributions import Installed, bill_of_materials, installed
from fhir_portal.web.pages.refusals import refusing
from fhir_portal.web.pages.render import page

LICENCES: Final = "/about/licences"
SBOM: Final = "/about/sbom.json"
_SECONDS: Final = 3600


def about_router() -> APIRouter:
    """The pages as routes for FastAPI."""
    router = APIRouter(include_in_schema=False)
    for path, handler in ((LICENCES, licences), (f"{LICENCES}/{{name}}", licence)):
        shown = refusing(handler, back=LICENCES, signed_out=LICENCES)
        router.add_route(path, shown, methods=["GET"])
    router.add_route(SBOM, sbom, methods=["GET", "HEAD"])
    return router


async def licences(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    """List what is installed and needed, with the licence of each."""
    own, *others = installed()
    return page("licences.html", own=own, others=others, path=LICENCES, sbom=SBOM)


async def licence(request: Request) -> Response:
    """Show the licence texts that one of them ships."""
    name = request.path_params["name"]
    found: Installed | None = next((one for one in installed() if one.name == name), None)
    if found is None:
        message = "This server does not use software of this name."
        return page(
            "problem.html", status=404, message=message, error="unknown-page", back=LICENCES
        )
    return page("licence.html", found=found, back=LICENCES)


async def sbom(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    """Answer with the bill of materials."""
    headers = {
        "Cache-Control": f"public, max-age={_SECONDS}",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(_bill(), headers=headers, media_type="application/vnd.cyclonedx+json")


@functools.cache
def _bill() -> bytes:
    return bill_of_materials(installed())
