"""``vread``: one version, if the caller may see it and the current one. Source: R4 §3.1.0.3."""

from __future__ import annotations

import re
from typing import Final

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.errors import NotFound
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.resources.interactions.read import answer, key_of, unknown
from fhir_portal.resources.permission import checked, permitted
from fhir_portal.resources.server import Server
from fhir_portal.resources.writing import gone

_VERSION: Final = re.compile(r"[1-9][0-9]{0,14}")


async def vread(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Return one version of a resource."""
    key = key_of(request)
    visible = permitted(server, auth, "r", key.type)
    text = request.version or ""
    if not _VERSION.fullmatch(text):
        raise unknown(key)
    row = await server.reader.vread(key, int(text), visible)
    if row is None:
        message = f"{key} is not known in this version"
        raise NotFound(message)
    checked([row], visible)
    if row.deleted:
        raise gone(row)
    return answer(row)
