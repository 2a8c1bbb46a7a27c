"""The schemas of what is sent and answered, under ``components``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fhir_portal.smart import authorization_details, launch, security_event
from fhir_portal.smart.exchange import TOKEN_EXCHANGE
from fhir_portal.smart.grants.token_exchange import ACCESS_TOKEN
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.openapi.parts import JSON_CONTENT, TEXT, URI, Json, ref
from fhir_portal.smart.registration import METADATA_SCHEMA

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_REFERENCE_ID: Final = {"type": "string", "pattern": r"^[A-Za-z0-9.-]{1,64}$"}


def schemas(issuer: Issuer) -> Json:
    """The schemas by the names that `ref` takes."""
    credentials: dict[str, Json] = {
        "client_id": TEXT,
        "client_secret": TEXT,
        "client_assertion_type": {"const": _ASSERTION_TYPE},
        "client_assertion": {"type": "string", "description": "A JWT (RFC 7523)."},
    }
    token = {
        "type": "object",
        "required": ["token"],
        "properties": {
            "token": TEXT,
            "token_type_hint": {"enum": ["access_token", "refresh_token"]},
            **credentials,
        },
    }
    pushed = authorization_parameters(issuer)
    del pushed["request_uri"]
    return {
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": TEXT,
                "error_description": {
                    "type": "string",
                    "pattern": r"^[\x20-\x21\x23-\x5b\x5d-\x7e]*$",
                },
            },
        },
        "TokenRequest": {
            "oneOf": [ref(name) for name in _grants(credentials)],
            "discriminator": {
                "propertyName": "grant_type",
                "mapping": {
                    schema["properties"]["grant_type"]["const"]: f"#/components/schemas/{name}"
                    for name, schema in _grants(credentials).items()
                },
            },
        },
        **_grants(credentials),
        "TokenResponse": _token_response(issuer),
        "PushedAuthorizationRequest": {
            "type": "object",
            "required": ["response_type", "redirect_uri", "aud", "code_challenge"],
            "properties": {**pushed, **credentials},
        },
        "PushedAuthorizationResponse": {
            "type": "object",
            "required": ["request_uri", "expires_in"],
            "properties": {"request_uri": TEXT, "expires_in": {"type": "integer", "minimum": 1}},
            "additionalProperties": False,
        },
        "IntrospectionRequest": token,
        "IntrospectionResponse": _introspection(issuer),
        "RevocationRequest": token,
        **_metadata(),
        "ClientUpdate": {
            "allOf": [ref("ClientMetadata")],
            "required": ["client_id"],
            "properties": {"client_id": TEXT, "client_secret": TEXT},
        },
        "ClientInformation": _information(),
        "LaunchRequest": _plain(launch.SCHEMA),
        "LaunchResponse": {
            "type": "object",
            "required": ["launch", "expires_in"],
            "properties": {
                "launch": TEXT,
                "expires_in": {"type": "integer", "minimum": 1},
                "launch_url": {**URI, "description": "Where to open the app, if it said where."},
            },
            "additionalProperties": False,
        },
        "AuthorizationDetail": _plain(authorization_details.schema(issuer)),
        "ConsentedRecord": {
            "type": "object",
            "required": ["type", "locations", "identifier", "patient", "fhirUser", "scope"],
            "properties": {
                "type": {"const": authorization_details.type_of(issuer)},
                "locations": {"type": "array", "items": {"const": issuer.fhir}},
                "identifier": TEXT,
                "patient": _REFERENCE_ID,
                "fhirUser": URI,
                "scope": TEXT,
            },
            "additionalProperties": False,
        },
        "FhirContext": {
            "type": "array",
            "items": {
                "type": "object",
                "anyOf": [
                    {"required": ["reference"]},
                    {"required": ["canonical"]},
                    {"required": ["identifier"]},
                ],
                "properties": {
                    "reference": TEXT,
                    "canonical": TEXT,
                    "identifier": {"type": "object"},
                    "type": TEXT,
                    "role": TEXT,
                },
                "additionalProperties": False,
            },
        },
        "JwkSet": {
            "type": "object",
            "required": ["keys"],
            "properties": {
                "keys": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["kty", "kid", "use", "alg", "n", "e"],
                        "properties": {
                            "kty": {"const": "RSA"},
                            "kid": TEXT,
                            "use": {"const": "sig"},
                            "alg": {"const": "RS256"},
                            "n": TEXT,
                            "e": TEXT,
                        },
                        "additionalProperties": False,
                    },
                }
            },
            "additionalProperties": False,
        },
        "AccessEnded": _plain(security_event.schema(issuer)),
    }


def authorization_parameters(issuer: Issuer) -> dict[str, Json]:
    """What an authorization request may hold, by name; pushed or not."""
    return {
        "response_type": {"const": "code"},
        "client_id": TEXT,
        "redirect_uri": {"type": "string", "description": "One that is registered, to the letter."},
        "scope": {"type": "string", "description": "Scopes with spaces between."},
        "state": TEXT,
        "aud": {"enum": [*issuer.everywhere("/fhir")], "description": "The FHIR base."},
        "launch": {"type": "string", "description": "What the EHR opened the app with."},
        "code_challenge": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
        "code_challenge_method": {"const": "S256"},
        "nonce": TEXT,
        "prompt": {"type": "string", "description": "none, or any of login consent select_account"},
        "max_age": {"type": "string", "pattern": "^[0-9]+$"},
        "login_hint": TEXT,
        "response_mode": {"const": "query"},
        "dpop_jkt": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
        "authorization_details": {
            "type": "string",
            "contentMediaType": JSON_CONTENT,
            "contentSchema": {"type": "array", "items": ref("AuthorizationDetail")},
        },
        "request_uri": {
            "type": "string",
            "description": "The reference of a pushed request; with it, only client_id is read.",
        },
    }


def _grants(credentials: Mapping[str, Json]) -> dict[str, Json]:
    """The bodies that the token endpoint takes, one for each grant type."""

    def grant(grant_type: str, required: Sequence[str], properties: Mapping[str, Json]) -> Json:
        return {
            "type": "object",
            "required": ["grant_type", *required],
            "properties": {"grant_type": {"const": grant_type}, **properties, **credentials},
        }

    return {
        "AuthorizationCodeGrant": grant(
            "authorization_code",
            ["code", "code_verifier"],
            {
                "code": TEXT,
                "redirect_uri": TEXT,
                "code_verifier": {"type": "string", "pattern": "^[A-Za-z0-9._~-]{43,128}$"},
            },
        ),
        "RefreshTokenGrant": grant(
            "refresh_token",
            ["refresh_token"],
            {"refresh_token": TEXT, "scope": {**TEXT, "description": "The same, or less."}},
        ),
        "ClientCredentialsGrant": grant(
            "client_credentials",
            ["client_assertion_type", "client_assertion"],
            {"scope": {**TEXT, "description": "system/ scopes."}},
        ),
        "TokenExchangeGrant": grant(
            TOKEN_EXCHANGE,
            ["subject_token", "subject_token_type", "authorization_details"],
            {
                "subject_token": {**TEXT, "description": "The token that lists the records."},
                "subject_token_type": {"const": ACCESS_TOKEN},
                "requested_token_type": {"const": ACCESS_TOKEN},
                "authorization_details": {
                    "type": "string",
                    "contentMediaType": JSON_CONTENT,
                    "contentSchema": {"type": "array", "items": ref("AuthorizationDetail")},
                },
                "scope": {**TEXT, "description": "Less than was allowed on the record."},
                "resource": TEXT,
                "audience": TEXT,
            },
        ),
    }


def _context(issuer: Issuer) -> dict[str, Json]:
    """What both a token response and introspection tell of the launch (SMART App Launch 2.2)."""
    return {
        "patient": _REFERENCE_ID,
        "encounter": _REFERENCE_ID,
        "fhirUser": {"type": "string", "pattern": f"^{re.escape(issuer.fhir)}/"},
        "fhirContext": ref("FhirContext"),
        "intent": TEXT,
        "need_patient_banner": {"type": "boolean"},
        "smart_style_url": URI,
        "authorization_details": {"type": "array", "items": ref("ConsentedRecord")},
    }


def _token_response(issuer: Issuer) -> Json:
    return {
        "type": "object",
        "required": ["access_token", "token_type", "expires_in", "scope"],
        "properties": {
            "access_token": TEXT,
            "token_type": {"enum": ["Bearer", "DPoP"]},
            "expires_in": {"type": "integer", "minimum": 1},
            "scope": {**TEXT, "description": "What was granted; it may be less than asked for."},
            "refresh_token": TEXT,
            "id_token": TEXT,
            "issued_token_type": {"const": ACCESS_TOKEN},
            "grant_id": {**TEXT, "description": "By which the end of this access is told."},
            **_context(issuer),
        },
        "additionalProperties": False,
    }


def _introspection(issuer: Issuer) -> Json:
    active = {
        "type": "object",
        "required": ["active", "scope", "client_id", "token_type", "iat", "exp"],
        "properties": {
            "active": {"const": True},
            "scope": TEXT,
            "client_id": TEXT,
            "token_type": {"enum": ["Bearer", "DPoP"]},
            "iat": {"type": "integer"},
            "exp": {"type": "integer"},
            "iss": {"const": issuer.base},
            "sub": TEXT,
            "cnf": {
                "type": "object",
                "required": ["jkt"],
                "properties": {"jkt": TEXT},
                "additionalProperties": False,
            },
            **_context(issuer),
        },
        "additionalProperties": False,
    }
    inactive = {
        "type": "object",
        "required": ["active"],
        "properties": {"active": {"const": False}},
        "additionalProperties": False,
    }
    return {"oneOf": [active, inactive]}


def _metadata() -> Json:
    """Client metadata (RFC 7591 §2): the two kinds that ``METADATA_SCHEMA`` tells apart by ``if``.

    They are written out here, since few of those who read OpenAPI understand ``if``.
    """
    members: Json = METADATA_SCHEMA["properties"]
    backends, apps = members["grant_types"]["anyOf"]
    app = {
        **members,
        "grant_types": {"type": "array", "maxItems": members["grant_types"]["maxItems"], **apps},
        "response_types": {
            **members["response_types"],
            **METADATA_SCHEMA["else"]["properties"]["response_types"],
        },
    }
    backend = {name: one for name, one in members.items() if name != "redirect_uris"}
    backend |= {"grant_types": backends, "response_types": {"const": []}}
    return {
        "ClientMetadata": {"oneOf": [ref("AppMetadata"), ref("BackendMetadata")]},
        "AppMetadata": {
            "type": "object",
            "required": METADATA_SCHEMA["else"]["required"],
            "properties": app,
        },
        "BackendMetadata": {
            "type": "object",
            "required": ["grant_types", *METADATA_SCHEMA["then"]["required"]],
            "properties": backend,
            "not": {"required": ["redirect_uris"]},
        },
    }


def _information() -> Json:
    """A registered client as it is told (RFC 7591 §3.2.1)."""
    metadata = {
        name: schema
        for name, schema in METADATA_SCHEMA["properties"].items()
        if name not in ("grant_types", "response_types")
    }
    return {
        "type": "object",
        "required": [
            "client_id",
            "client_id_issued_at",
            "client_name",
            "grant_types",
            "token_endpoint_auth_method",
            "scope",
            "registration_access_token",
            "registration_client_uri",
        ],
        "properties": {
            **metadata,
            "client_id": TEXT,
            "client_id_issued_at": {"type": "integer"},
            "client_secret": {**TEXT, "description": "Told once."},
            "client_secret_expires_at": {"const": 0},
            "grant_types": {"type": "array", "items": TEXT},
            "response_types": {"const": ["code"]},
            "registration_access_token": TEXT,
            "registration_client_uri": URI,
            "approval_status": {
                "const": "awaiting-review",
                "description": "There while the client waits for a review.",
            },
        },
        "additionalProperties": False,
    }


def _plain(schema: Mapping[str, Any]) -> Json:
    r"""A JSON Schema of ours as a component: its own name would change what references mean.

    Its patterns are Python's. In those of JSON Schema (ECMA-262) ``$`` is the very end, which
    Python writes ``\Z``.
    """
    return {
        name: value.replace(r"\Z", "$") if isinstance(value, str) else _plainly(value)
        for name, value in schema.items()
        if name not in ("$schema", "$id")
    }


def _plainly(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _plain(value)
    return [_plainly(one) for one in value] if isinstance(value, list) else value
