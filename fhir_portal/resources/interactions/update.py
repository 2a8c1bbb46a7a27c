"""``update``, version-aware. Source: FHIR R4 §3.1.0.4, §3.1.0.5."""

from __future__ import annotations

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.resources.files import has_files, scanned
from fhir_portal.resources.interactions.create import written
from fhir_portal.resources.interactions.read import key_of
from fhir_portal.resources.permission import permitted
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.resources.writing import draft, parsed, update_in


async def update(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Store the next version; under ``system/`` also the first one, under the given id."""
    key = key_of(request)
    visible = permitted(server, auth, "u", key.type)
    tree = await parsed(request.body, key.type)
    if tree.get("id") != key.id:
        message = f"the id in the body must be the one in the address, {key.id}"
        raise Invalid(message, expression=f"{key.type}.id")
    draft(server, auth, tree)
    before = None
    if has_files(tree):
        row = await server.reader.read(key, visible)
        before = None if row is None or row.deleted else json.parse(row.body)
    await scanned(server.files, auth, tree, before=before)

    async def work(transaction: ResourceTransaction) -> FhirResponse:
        await server.still(transaction, auth)
        result = await update_in(
            transaction,
            server,
            auth,
            dict(tree),
            visible,
            key=key,
            if_match=request.if_match,
            if_none_match=request.if_none_match,
        )
        return written(server, request, result)

    return await server.store.transact(work)
