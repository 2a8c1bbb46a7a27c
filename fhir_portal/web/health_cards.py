"""``/health-cards/<practice>``: what verifies SMART Health Cards, open to every origin.

    GET  .well-known/jwks.json         the public keys of a practice
    GET  .well-known/crl/<kid>.json    which cards that a key signed are revoked

Nothing here tells of whom there are cards: a revocation list has what only this server can compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.practice import Practice
from fhir_portal.records import RecordReader
from fhir_portal.smart.health_card import CARDS_PATH
from fhir_portal.smart.health_card_keys import jwks_of, keys_of, revocation_list
from fhir_portal.smart.keys import JWKS_SECONDS
from fhir_portal.web import cors

_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_HEADERS: Final = {**dict(cors.OPEN), "X-Content-Type-Options": "nosniff"}


def health_cards_router(reader: RecordReader) -> APIRouter:
    """The two documents as routes for FastAPI."""

    async def keys(request: Request) -> Response:
        if request.method == "OPTIONS":
            return _preflight()
        practice = await reader.get(Practice, request.path_params["practice"])
        if practice is None:
            return _answer(None)
        found = jwks_of(await keys_of(reader, practice.key))
        # The next key signs as soon as it is made where there is none: nobody may keep that.
        return _answer(found, kept=bool(found["keys"]))

    async def revoked(request: Request) -> Response:
        if request.method == "OPTIONS":
            return _preflight()
        found = await keys_of(reader, request.path_params["practice"])
        return _answer(revocation_list(found, request.path_params["kid"]))

    router = APIRouter(include_in_schema=False)
    place = f"{CARDS_PATH}/{{practice}}/.well-known"
    router.add_route(f"{place}/jwks.json", keys, methods=_METHODS)
    router.add_route(f"{place}/crl/{{kid}}.json", revoked, methods=_METHODS)
    return router


def _preflight() -> Response:
    allowed = dict(cors.preflight(cors.OPEN, methods="GET, HEAD"))
    return Response(status_code=204, headers=allowed)


def _answer(found: Mapping[str, Any] | None, *, kept: bool = True) -> Response:
    if found is None:
        return Response(status_code=404, headers={**_HEADERS, "Cache-Control": "no-store"})
    caching = f"public, max-age={JWKS_SECONDS}" if kept else "no-store"
    headers = {**_HEADERS, "Cache-Control": caching}
    return Response(msgspec.json.encode(found), headers=headers, media_type="application/json")
