"""The OAuth surface as an OpenAPI 3.1 description: every endpoint, every refusal by its name.

Printed from what the endpoints themselves are checked by, where there is such a thing: the schema
of client metadata, of launches, of authorization details, the classes of `errors`. A test has every
refusal that is named here given by its endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_portal.smart.brands import DEVELOPERS_PATH
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.openapi.parts import TEXT, Json
from fhir_portal.smart.openapi.paths import paths, webhooks
from fhir_portal.smart.openapi.schemas import schemas


def openapi(issuer: Issuer, *, scopes: Sequence[str], version: str) -> Json:
    """The description of the OAuth surface at this issuer; ``scopes`` are those supported."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "fhir-portal authorization server",
            "version": version,
            "description": (
                "OAuth 2.0 with SMART App Launch 2.2, OpenID Connect, PAR (RFC 9126), DPoP "
                "(RFC 9449), authorization details (RFC 9396), token exchange (RFC 8693), "
                "registration (RFC 7591, RFC 7592), introspection (RFC 7662) and revocation "
                "(RFC 7009). Parameters come once each. The FHIR API behind it is described by "
                f"its CapabilityStatement at {issuer.fhir}/metadata."
            ),
        },
        "externalDocs": {"url": issuer.at(DEVELOPERS_PATH), "description": "For app developers"},
        "servers": [{"url": one} for one in (issuer.base, *issuer.aliases)],
        "tags": [
            {"name": "discovery", "description": "Public documents, open to every origin."},
            {"name": "authorization", "description": "What people and their apps go through."},
            {"name": "tokens"},
            {"name": "registration"},
            {"name": "launch", "description": "For EHRs."},
        ],
        "paths": paths(issuer, scopes),
        "webhooks": webhooks(),
        "components": {
            "schemas": schemas(issuer),
            "headers": {
                "DPoP-Nonce": {
                    "description": "The nonce to make the next proof with (RFC 9449 section 8).",
                    "schema": TEXT,
                }
            },
            "securitySchemes": _security_schemes(issuer, scopes),
        },
    }


def _security_schemes(issuer: Issuer, scopes: Sequence[str]) -> Json:
    listed = dict.fromkeys(scopes, "")
    flow = {"tokenUrl": issuer.at("/oauth/token"), "scopes": listed}
    return {
        "clientSecretBasic": {
            "type": "http",
            "scheme": "basic",
            "description": "client_id and client_secret, each form-encoded before (RFC 6749).",
        },
        "registrationAccessToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "The registration_access_token of this very client (RFC 7592).",
        },
        "accessToken": {
            "type": "oauth2",
            "description": "As Bearer, or as DPoP with a proof when it is bound to a key.",
            "flows": {
                "authorizationCode": {
                    **flow,
                    "authorizationUrl": issuer.at("/oauth/authorize"),
                    "refreshUrl": issuer.at("/oauth/token"),
                },
                "clientCredentials": flow,
            },
        },
    }
