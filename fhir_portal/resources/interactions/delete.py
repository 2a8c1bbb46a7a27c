"""``delete``: a deletion is a version like any other. Source: FHIR R4 §3.1.0.7."""

from __future__ import annotations

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.resources.interactions.read import key_of
from fhir_portal.resources.permission import permitted
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.resources.writing import delete_in


async def delete(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Delete a resource; its history stays."""
    key = key_of(request)
    visible = permitted(server, auth, "d", key.type)

    async def work(transaction: ResourceTransaction) -> FhirResponse:
        await server.still(transaction, auth)
        row = await delete_in(
            transaction, server, auth, visible, key=key, if_match=request.if_match
        )
        return FhirResponse(
            204, version=row.version, updated=row.updated, records=row.facts.touched
        )

    return await server.store.transact(work)
