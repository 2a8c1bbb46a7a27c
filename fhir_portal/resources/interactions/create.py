"""``create``, also conditional (``If-None-Exist``). Source: FHIR R4 §3.1.0.8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from fhir_portal.access.context import AuthContext
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir.errors import InvalidSearch, NotFound, PreconditionFailed
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.resources.files import scanned
from fhir_portal.resources.interactions.read import answer
from fhir_portal.resources.permission import checked, permitted
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.resources.writing import Written, create_in, draft, parsed
from fhir_portal.search.request import SearchRequest, parse_search


async def create(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Store a new resource under a random id; return 201, or 200 for a conditional match."""
    if request.type is None:
        message = "no such address"
        raise NotFound(message)
    visible = permitted(server, auth, "c", request.type)
    readable = None
    if request.if_none_exist is not None:
        readable = permitted(server, auth, "s", request.type)
    tree = await parsed(request.body, request.type)
    draft(server, auth, tree)
    await scanned(server.files, auth, tree)

    async def work(transaction: ResourceTransaction) -> FhirResponse:
        await server.still(transaction, auth)
        if request.if_none_exist is not None and readable is not None:
            found = await conditional_match(
                server, transaction, request.type or "", request.if_none_exist, readable
            )
            if found is not None:
                return written(server, request, Written(found, created=False))
        result = await create_in(
            transaction, server, auth, dict(tree), visible, resource_id=server.new_id()
        )
        return written(server, request, result)

    return await server.store.transact(work)


async def conditional_match(
    server: Server,
    reader: ResourceReader,
    resource_type: str,
    condition: str,
    visible: Visibility,
) -> Row | None:
    """Return the one resource that matches a condition, within what the writer can see.

    Raises:
        PreconditionFailed: several match. InvalidSearch: the condition is empty or unclear.
    """
    address, mark, query = condition.partition("?")
    if not mark:
        address, query = "", condition
    if address not in {"", resource_type, server.url(resource_type)}:
        message = f"the condition must search {resource_type}"
        raise InvalidSearch(message)
    asked = pairs_of(query)
    search = parse_search(resource_type, asked, base=server.base, aliases=server.aliases)
    if not search.criteria or search != SearchRequest(resource_type, search.criteria):
        message = "the condition holds search parameters, one at least, and nothing else"
        raise InvalidSearch(message)
    page = await reader.search(replace(search, count=2), visible)
    if len(page.rows) > 1:
        message = "several resources match the condition; nothing was stored"
        raise PreconditionFailed(message)
    return checked(page.rows, visible)[0] if page.rows else None


def pairs_of(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a query that came in a header or in a Bundle entry.

    Raises:
        InvalidSearch: not percent-encoded UTF-8, or too many of them.
    """
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=500)
    except ValueError:
        message = "the query is not percent-encoded UTF-8, or has too many parameters"
        raise InvalidSearch(message) from None


def written(server: Server, request: FhirRequest, result: Written) -> FhirResponse:
    """Return the answer to a write, its body as ``Prefer: return`` asks."""
    row = result.row
    full = answer(row, 201 if result.created else 200)
    body = full.body
    if request.prefer == "minimal":
        body = b""
    elif request.prefer == "OperationOutcome":
        body = _DONE
    values: dict[str, Any] = {
        "version": row.version,
        "updated": row.updated,
        "records": row.facts.touched,
        "detail": str(row.key),
    }
    location = None
    if result.created or request.interaction == "create":  # what matched is where it was found
        location = server.url(f"{row.key}/_history/{row.version}")
    return FhirResponse(full.status, body, location=location, **values)


_DONE = (
    b'{"resourceType":"OperationOutcome","issue":[{"severity":"information",'
    b'"code":"informational","diagnostics":"Stored."}]}'
)
