"""``search-type``: GET and POST. Source: FHIR R4 §3.1.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.bundle import bundle, search_entries
from fhir_portal.fhir.errors import Invalid, InvalidSearch, NotSupported
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources import audit_event
from fhir_portal.resources.asked import links, understood
from fhir_portal.resources.permission import checked, permitted, permitted_or_none
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import Row, labelled_in
from fhir_portal.search.request import SearchRequest

MAX_INCLUDED: Final = 1000


async def search_type(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Return a searchset: matches and included resources, all within the caller's visibility."""
    if request.type is None:
        message = "a search names a type"
        raise Invalid(message)
    visible = permitted(server, auth, "s", request.type)
    asked = understood(server, request)
    if request.type == "AuditEvent":
        return await audit_event.search(server, asked, visible, auth)
    if auth.context == "user" and asked.request.only_total:
        # A total touches no record that the access could be written down for.
        message = "a total alone is not told to staff: leave out _summary=count and _count=0"
        raise NotSupported(message)
    page = await server.reader.search(asked.request, visible, after=asked.after)
    matches = checked(page.rows, visible)
    included = await _included(server, auth, asked.request, matches)
    found = () if auth.record is not None else (*matches, *included)
    # Rows of one class share the object, so a page of one record's rows is looked at once.
    alike = {(row.facts.owners, id(row.facts.visibility_class)): row.facts for row in found}
    records = {one: None for facts in alike.values() for one in facts.touched}
    return FhirResponse(
        200,
        bundle(
            "searchset",
            total=page.total,
            links=links(server, asked, page.next),
            entries=[
                *_entries(server, matches, "match"),
                *_entries(server, included, "include"),
            ],
        ),
        records=tuple(records),
        labelled=labelled_in(matches),
        detail="&".join(f"{name}={value}" for name, value in asked.pairs),
    )


async def _included(
    server: Server, auth: AuthContext, request: SearchRequest, matches: Sequence[Row]
) -> list[Row]:
    """Return what ``_include`` and ``_revinclude`` add, each type under its own decision.

    A type the token may not search adds nothing, whatever is stored.
    """
    if not (request.includes or request.revincludes):
        return []
    present = {row.key for row in matches}
    found: dict[ResourceKey, Row] = {}
    for include in request.includes:
        if include.parameter.resource_type != request.resource_type:
            continue
        targets = await server.reader.targets(matches, include.parameter)
        by_type: dict[str, list[ResourceKey]] = {}
        for key in targets:
            if include.target in (None, key.type) and key not in present:
                by_type.setdefault(key.type, []).append(key)
        for name, keys in by_type.items():
            visible = permitted_or_none(server, auth, "s", name)
            if visible is None:
                continue
            rows = checked(await server.reader.read_many(keys, visible), visible)
            by_key = {row.key: row for row in rows}
            found.update((key, by_key[key]) for key in keys if key in by_key)
    for include in request.revincludes:
        name = include.parameter.resource_type
        visible = permitted_or_none(server, auth, "s", name)
        if visible is None or name == "AuditEvent":
            continue
        rows = await server.reader.referring(
            include.parameter, [row.key for row in matches], visible, limit=MAX_INCLUDED + 1
        )
        if len(rows) > MAX_INCLUDED:
            message = (
                f"_revinclude {include} adds more than {MAX_INCLUDED}; ask for a smaller _count"
            )
            raise InvalidSearch(message)
        found.update((row.key, row) for row in checked(rows, visible) if row.key not in present)
    return list(found.values())


def _entries(server: Server, rows: Sequence[Row], mode: str) -> list[bytes]:
    found = [(row.facts.resource_type, row.facts.id, row.body) for row in rows]
    return search_entries(server.base, found, mode)
