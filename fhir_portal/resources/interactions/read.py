"""``read``: the current version. Source: FHIR R4 §3.1.0.2."""

from __future__ import annotations

from base64 import b64decode
from email.utils import parsedate_to_datetime

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import NotFound
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources import audit_event
from fhir_portal.resources.permission import checked, permitted
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import Row, labelled_in
from fhir_portal.resources.writing import gone, names_version


async def read(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Return a resource, or 304 when the caller has its current version.

    Raises:
        NotFound: absent, or hidden; the same words. Gone: its deletion may be known.
    """
    key = key_of(request)
    visible = permitted(server, auth, "r", key.type)
    if key.type == "AuditEvent":
        return await audit_event.read(server, key, visible, auth)
    row = await server.reader.read(key, visible)
    if row is None:
        raise unknown(key)
    checked([row], visible)
    if row.deleted:
        raise gone(row)
    if _not_modified(request, row):
        return FhirResponse(
            304, version=row.version, updated=row.updated, records=row.facts.touched
        )
    return answer(row)


def answer(row: Row, status: int = 200) -> FhirResponse:
    """Return a stored version as the body of an answer."""
    binary = None
    if row.facts.resource_type == "Binary" and row.body:
        tree = json.parse(row.body)
        binary = (tree.get("contentType", ""), b64decode(tree.get("data", "")))
    return FhirResponse(
        status,
        row.body,
        version=row.version,
        updated=row.updated,
        binary=binary,
        records=row.facts.touched,
        labelled=labelled_in([row]),
    )


def key_of(request: FhirRequest) -> ResourceKey:
    """Return the resource a request names."""
    if request.type is None or request.id is None:
        message = "no such address"
        raise NotFound(message)
    return ResourceKey(request.type, request.id)


def unknown(key: ResourceKey) -> NotFound:
    """Return the refusal for what is absent or hidden."""
    return NotFound(f"{key} is not known")


def _not_modified(request: FhirRequest, row: Row) -> bool:
    if request.if_none_match is not None:
        return names_version(request.if_none_match, row.version)
    if request.if_modified_since is not None:
        try:
            since = parsedate_to_datetime(request.if_modified_since).timestamp()
        except (ValueError, OverflowError):
            return False  # a date that cannot be read is no condition (RFC 9110 §13.1.3)
        return row.updated // 1000 <= since
    return False
