"""What this server does: one table of interactions, from which everything it claims is printed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fhir_portal.access.context import AuthContext
from fhir_portal.access.writes import SYSTEM_WRITES
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.resources import audit_event
from fhir_portal.resources.interactions.create import create
from fhir_portal.resources.interactions.delete import delete
from fhir_portal.resources.interactions.history import history_instance, history_system
from fhir_portal.resources.interactions.read import read
from fhir_portal.resources.interactions.search_type import search_type
from fhir_portal.resources.interactions.update import update
from fhir_portal.resources.interactions.vread import vread
from fhir_portal.resources.server import Server
from fhir_portal.search.registry import SearchParameter, parameters_for

Interaction = Callable[[Server, FhirRequest, AuthContext], Awaitable[FhirResponse]]

INTERACTIONS: Final[dict[str, Interaction]] = {
    "read": read,
    "vread": vread,
    "update": update,
    "delete": delete,
    "create": create,
    "search-type": search_type,
    "history-instance": history_instance,
    "history-system": history_system,
}

_READING: Final = ("read", "vread", "search-type", "history-instance")
_WRITING: Final = ("create", "update", "delete")


def interactions_of(resource_type: str) -> tuple[str, ...]:
    """Return the interaction codes a type has."""
    if resource_type == "AuditEvent":
        return ("read", "search-type")
    return _READING + (_WRITING if resource_type in SYSTEM_WRITES else ())


def parameters_of(resource_type: str) -> dict[str, SearchParameter]:
    """Return the search parameters a type has by code."""
    found = dict(parameters_for(resource_type))
    if resource_type == "AuditEvent":
        return {code: found[code] for code in audit_event.PARAMETERS if code in found}
    return found


FEATURES: Final = "https://fhir-portal.example/ig/StructureDefinition/portal-features"


def capability_statement(
    *,
    base: str,
    version: str,
    date: str,
    security: dict[str, Any],
    operations: Callable[[str | None], list[dict[str, Any]]],
    brands: str = "",
) -> Any:
    """Return the CapabilityStatement (FHIR R4 §2.40), printed from the tables.

    ``security`` is what the authorization server says of itself (the SMART ``oauth-uris``);
    ``operations`` gives those of a type, and of the whole server for ``None``. ``brands`` is where
    it is told what each practice offers its patients.
    """
    types = served_types()
    references = {
        name: [p.code for p in parameters_of(name).values() if p.type == "reference"]
        for name in types
    }
    pointing: dict[str, list[str]] = {name: [] for name in types}
    for name in types:
        for parameter in parameters_of(name).values():
            if parameter.type == "reference" and name != "AuditEvent":
                for target in parameter.targets:
                    if target in pointing:
                        pointing[target].append(f"{name}:{parameter.code}")
    return {
        "resourceType": "CapabilityStatement",
        "id": "fhir-portal",
        "url": f"{base}/metadata",
        "version": version,
        "name": "FhirPortal",
        "title": "fhir-portal patient access server",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": "fhir-portal", "version": version},
        "implementation": {"description": "fhir-portal", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                **({"extension": [{"url": FEATURES, "valueUrl": brands}]} if brands else {}),
                "mode": "server",
                "documentation": (
                    "All data is reached with OAuth 2.0 access tokens. Unknown search parameters "
                    "are refused unless Prefer: handling=lenient is sent."
                ),
                "security": {"cors": True, **security},
                "resource": [
                    {
                        **_resource(name, references[name], pointing[name]),
                        **({"operation": found} if (found := operations(name)) else {}),
                    }
                    for name in types
                ],
                "interaction": [
                    {"code": "batch"},
                    {"code": "transaction"},
                    {"code": "history-system"},
                ],
                "searchParam": [
                    {"name": code, "type": kind}
                    for code, kind in (("_id", "token"), ("_lastUpdated", "date"))
                ],
                **({"operation": found} if (found := operations(None)) else {}),
            }
        ],
    }


def _resource(name: str, references: list[str], pointing: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "type": name,
        "interaction": [{"code": code} for code in interactions_of(name)],
        "versioning": "no-version" if name == "AuditEvent" else "versioned",
        "readHistory": name != "AuditEvent",
        "updateCreate": name in SYSTEM_WRITES,
        "conditionalCreate": name in SYSTEM_WRITES,
        "conditionalRead": "not-supported" if name == "AuditEvent" else "full-support",
        "referencePolicy": ["literal", "local"],
    }
    if references and name != "AuditEvent":
        row["searchInclude"] = [f"{name}:{code}" for code in references]
    if pointing and name != "AuditEvent":
        row["searchRevInclude"] = pointing
    row["searchParam"] = [
        {"name": p.code, "definition": p.url, "type": p.type} for p in parameters_of(name).values()
    ]
    return row
