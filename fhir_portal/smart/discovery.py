"""What the server says of itself, printed from what it does.

SMART App Launch 2.2 §7 (``smart-configuration``), OpenID Connect Discovery §3, RFC 8414 §2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from fhir_portal.consent.record import ScopePolicy
from fhir_portal.smart.authorization_details import type_of
from fhir_portal.smart.brands import brand_metadata
from fhir_portal.smart.dpop import ALGORITHMS as DPOP_ALGORITHMS
from fhir_portal.smart.exchange import TOKEN_AUTH_METHODS, TOKEN_EXCHANGE
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.jwks import ALGORITHMS
from fhir_portal.smart.offer import SUB_RESOURCES
from fhir_portal.smart.par import PAR_PATH
from fhir_portal.smart.pkce import S256
from fhir_portal.smart.scope import GRANTABLE_IDENTITY
from fhir_portal.smart.security_event import event_of

CAPABILITIES: Final = (
    "launch-ehr",
    "launch-standalone",
    "authorize-post",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-style",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "context-standalone-encounter",
    "health-cards",
    "permission-offline",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
)
"""Of SMART's capability strings, and that of SMART Health Cards, those that work here."""

OPENID_CONFIGURATION: Final = "/.well-known/openid-configuration"
AUTHORIZATION_SERVER: Final = "/.well-known/oauth-authorization-server"
"""Where clients look that know RFC 8414 and not OpenID Connect: the same document."""

GRANT_TYPES: Final = (
    "authorization_code",
    "refresh_token",
    "client_credentials",
    TOKEN_EXCHANGE,
)
_OAUTH_URIS: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


def scopes_supported(policy: ScopePolicy, resource_types: Sequence[str]) -> tuple[str, ...]:
    """Every scope that can be granted: identity, then the most of each type and sub-resource."""
    patient = [
        (resource_type, letters)
        for resource_type in resource_types
        if (letters := policy.grantable("patient", resource_type, None))
    ]
    user, system = (
        any(policy.grantable(context, name, None) for name in resource_types)
        for context in ("user", "system")
    )
    return (
        *GRANTABLE_IDENTITY,
        *(["patient/*.rs"] if patient else []),
        *(f"patient/{name}.{letters}" for name, letters in patient),
        *(
            f"patient/{name}.rs?{query}"
            for name, letters in patient
            if {"r", "s"} <= set(letters)
            for query in SUB_RESOURCES.get(name, ())
        ),
        *(["user/*.rs"] if user else []),
        *(["system/*.rs"] if system else []),
    )


def smart_configuration(issuer: Issuer, scopes: Iterable[str]) -> dict[str, Any]:
    """The body of ``[base]/.well-known/smart-configuration``."""
    confidential = [method for method in TOKEN_AUTH_METHODS if method != "none"]
    return {
        "issuer": issuer.base,
        "jwks_uri": issuer.at("/oauth/jwks"),
        "authorization_endpoint": issuer.at("/oauth/authorize"),
        "token_endpoint": issuer.at("/oauth/token"),
        "introspection_endpoint": issuer.at("/oauth/introspect"),
        "revocation_endpoint": issuer.at("/oauth/revoke"),
        "registration_endpoint": issuer.at("/oauth/register"),
        "management_endpoint": issuer.at("/account/apps"),
        "pushed_authorization_request_endpoint": issuer.at(PAR_PATH),
        "require_pushed_authorization_requests": False,
        "grant_types_supported": list(GRANT_TYPES),
        "authorization_details_types_supported": [type_of(issuer)],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "token_endpoint_auth_methods_supported": confidential,
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "introspection_endpoint_auth_methods_supported": confidential,
        "introspection_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "revocation_endpoint_auth_methods_supported": list(TOKEN_AUTH_METHODS),
        "revocation_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "code_challenge_methods_supported": [S256],
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
        "backchannel_revocation_supported": True,
        "backchannel_revocation_event": event_of(issuer),
        "scopes_supported": list(scopes),
        "capabilities": list(CAPABILITIES),
        **brand_metadata(issuer),
    }


def openid_configuration(issuer: Issuer, scopes: Iterable[str]) -> dict[str, Any]:
    """The body of `OPENID_CONFIGURATION` and `AUTHORIZATION_SERVER`."""
    smart = smart_configuration(issuer, scopes)
    for of_smart_alone in ("capabilities", *brand_metadata(issuer)):
        del smart[of_smart_alone]
    return {
        **smart,
        "token_endpoint_auth_methods_supported": list(TOKEN_AUTH_METHODS),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": [
            "iss",
            "sub",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "at_hash",
            "fhirUser",
        ],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }


def capability_security(issuer: Issuer) -> dict[str, Any]:
    """``CapabilityStatement.rest.security``, for clients that do not read smart-configuration."""
    uris = {
        "authorize": "/oauth/authorize",
        "token": "/oauth/token",
        "introspect": "/oauth/introspect",
        "revoke": "/oauth/revoke",
        "register": "/oauth/register",
    }
    return {
        "extension": [
            {
                "url": _OAUTH_URIS,
                "extension": [
                    {"url": name, "valueUri": issuer.at(path)} for name, path in uris.items()
                ],
            }
        ],
        "service": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                        "code": "SMART-on-FHIR",
                    }
                ],
                "text": "SMART App Launch: read /fhir/.well-known/smart-configuration",
            }
        ],
    }
