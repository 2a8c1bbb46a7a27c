"""The OAuth surface as an OpenAPI 3.1 description: every endpoint, every refusal by its name.

Printed from what the endpoints themselves are checked by, where there is such a thing: the schema
of client metadata, of launches, of authorization details, the classes of `errors`. A test has every
refusal that is named here given by its endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fhir_portal.smart import authorization_details, errors, launch, security_event
from fhir_portal.smart.brands import BRANDS_PATH, DEVELOPERS_PATH
from fhir_portal.smart.discovery import (
    AUTHORIZATION_SERVER,
    OPENID_CONFIGURATION,
    openid_configuration,
    smart_configuration,
)
from fhir_portal.smart.exchange import TOKEN_EXCHANGE
from fhir_portal.smart.grants.token_exchange import ACCESS_TOKEN
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.par import PAR_PATH
from fhir_portal.smart.registration import METADATA_SCHEMA, REGISTER_PATH

OPENAPI_PATH: Final = "/oauth/openapi.json"

AUTHORIZATION_REFUSALS: Final = (
    errors.InvalidRequest,
    errors.UnsupportedResponseType,
    errors.InvalidScope,
    errors.InvalidAuthorizationDetails,
    errors.AccessDenied,
    errors.LoginRequired,
    errors.InteractionRequired,
    errors.ConsentRequired,
    errors.RequestNotSupported,
    errors.RequestUriNotSupported,
)
"""What an app is told at its redirect URI."""

_FAULTS: Final = (errors.ServerError, errors.Unavailable)
_CLIENT_REFUSALS: Final = (
    errors.InvalidRequest,
    errors.InvalidClient,
    errors.UnauthorizedClient,
    errors.TooLarge,
)
_METADATA_REFUSALS: Final = (
    errors.InvalidRequest,
    errors.InvalidClientMetadata,
    errors.InvalidRedirectUri,
    errors.InvalidSoftwareStatement,
    errors.UnapprovedSoftwareStatement,
    errors.TooLarge,
)
REFUSALS: Final[Mapping[str, tuple[type[errors.OAuthError], ...]]] = {
    "token": (
        *_CLIENT_REFUSALS,
        errors.InvalidGrant,
        errors.UnsupportedGrantType,
        errors.InvalidScope,
        errors.InvalidDpopProof,
        errors.UseDpopNonce,
        errors.InvalidAuthorizationDetails,
        errors.InvalidTarget,
    ),
    "pushAuthorizationRequest": (
        *_CLIENT_REFUSALS,
        errors.UnsupportedResponseType,
        errors.InvalidScope,
        errors.InvalidAuthorizationDetails,
        errors.RequestNotSupported,
        errors.InvalidDpopProof,
        errors.UseDpopNonce,
        errors.TooManyRequests,
    ),
    "introspect": _CLIENT_REFUSALS,
    "revoke": _CLIENT_REFUSALS,
    "register": (*_METADATA_REFUSALS, errors.TooManyRequests),
    "readRegistration": (errors.InvalidRequest, errors.InvalidToken),
    "replaceRegistration": (*_METADATA_REFUSALS, errors.InvalidToken),
    "endRegistration": (errors.InvalidRequest, errors.InvalidToken),
    "launch": (
        errors.InvalidRequest,
        errors.InvalidToken,
        errors.AccessDenied,
        errors.TooLarge,
    ),
}
"""What each operation refuses with, beside faults of ours."""

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TEXT: Final = {"type": "string"}
_URI: Final = {"type": "string", "format": "uri"}
_REFERENCE_ID: Final = {"type": "string", "pattern": r"^[A-Za-z0-9.-]{1,64}$"}
_AUTHENTICATION: Final = (
    "Public clients send client_id. Others authenticate as they registered: by HTTP Basic "
    "(client_secret_basic), with client_id and client_secret in the body (client_secret_post), or "
    "with client_assertion in the body (private_key_jwt). Nothing of it goes into the address."
)
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": {"schema": {"const": "no-store"}, "required": True}}

Json = dict[str, Any]


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
        "paths": {
            **_discovery(issuer, scopes),
            "/oauth/authorize": _authorize(issuer),
            PAR_PATH: {"post": _push()},
            "/oauth/token": {"post": _token()},
            "/oauth/introspect": {"post": _introspect()},
            "/oauth/revoke": {"post": _revoke()},
            REGISTER_PATH: {"post": _register()},
            f"{REGISTER_PATH}/{{client_id}}": _managed(),
            launch.LAUNCH_PATH: {"post": _launch()},
        },
        "webhooks": {"accessEnded": {"post": _access_ended()}},
        "components": {
            "schemas": _schemas(issuer),
            "headers": {
                "DPoP-Nonce": {
                    "description": "The nonce to make the next proof with (RFC 9449 section 8).",
                    "schema": _TEXT,
                }
            },
            "securitySchemes": _security_schemes(issuer, scopes),
        },
    }


# --- operations ----------------------------------------------------------------------------------


def _discovery(issuer: Issuer, scopes: Sequence[str]) -> Json:
    known = {
        "/fhir/.well-known/smart-configuration": (
            "smartConfiguration",
            "SMART App Launch 2.2: where everything is, and what is supported",
            _as_described(smart_configuration(issuer, scopes)),
        ),
        OPENID_CONFIGURATION: (
            "openidConfiguration",
            "The same for OpenID Connect clients",
            _as_described(openid_configuration(issuer, scopes)),
        ),
        AUTHORIZATION_SERVER: (
            "authorizationServerMetadata",
            "The same for clients that know RFC 8414 alone",
            _as_described(openid_configuration(issuer, scopes)),
        ),
        "/oauth/jwks": (
            "jwks",
            "The keys that id_tokens and events are signed with; read again for an unknown kid",
            _ref("JwkSet"),
        ),
        authorization_details.TYPE_PATH: (
            "authorizationDetails",
            "What authorization_details may hold, as a JSON Schema",
            {"type": "object", "required": ["$schema", "$id", "type", "properties"]},
        ),
        security_event.EVENT_PATH: (
            "accessEndedEvent",
            "What an app is told when access ends, as a JSON Schema",
            {"type": "object", "required": ["$schema", "$id", "type", "properties"]},
        ),
        OPENAPI_PATH: (
            "openapi",
            "This description",
            {"type": "object", "required": ["openapi", "info", "paths"]},
        ),
    }
    documents = {
        path: {"get": _document(name, summary, schema, _JSON)}
        for path, (name, summary, schema) in known.items()
    }
    bundle = {
        "type": "object",
        "required": ["resourceType", "type", "timestamp", "entry"],
        "properties": {"resourceType": {"const": "Bundle"}, "type": {"const": "collection"}},
    }
    brands = _document(
        "brands", "User-access brands: the practices here", bundle, "application/fhir+json"
    )
    brands["responses"]["304"] = {"description": "It is the one that If-None-Match names."}
    brands["parameters"] = [{"name": "If-None-Match", "in": "header", "schema": _TEXT}]
    return {**documents, BRANDS_PATH: {"get": brands}}


def _document(name: str, summary: str, schema: Json, media_type: str) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["discovery"],
        "security": [],
        "responses": {
            "200": {
                "description": summary,
                "headers": {"Access-Control-Allow-Origin": {"schema": {"const": "*"}}},
                "content": {media_type: {"schema": schema}},
            }
        },
    }


def _authorize(issuer: Issuer) -> Json:
    """Both ways to the pages. What an app is answered comes by the browser: a callback."""
    page: Json = {"content": {"text/html": {"schema": _TEXT}}}
    on_a_page = (
        errors.InvalidRequest,
        errors.InvalidRequestUri,
        errors.UnauthorizedClient,
        errors.InvalidClient,
        errors.TooManyRequests,
        *_FAULTS,
    )
    pages = {
        str(status): {
            "description": (
                "A page for the person, and no redirect: the client or its redirect URI is not "
                f"known, or the request is not one an app may be told about. {_names(kinds)}."
            ),
            **page,
        }
        for status, kinds in _by_status(on_a_page).items()
    }
    told: Json = {
        "description": "To the next page, or to the app with what it is answered (callback).",
        "headers": {"Location": {"schema": _TEXT, "required": True}},
    }
    common: Json = {
        "tags": ["authorization"],
        "security": [],
        "responses": {"303": told, **pages},
    }
    parameters = _authorization_parameters(issuer)
    too_large = {"413": {"description": "The body is over 64 KiB.", **page}}
    return {
        "get": {
            "operationId": "authorize",
            "summary": "Send a person here to sign in, choose a record and allow",
            **common,
            "parameters": [
                {
                    "name": name,
                    "in": "query",
                    "required": name == "client_id",
                    "schema": schema,
                }
                for name, schema in parameters.items()
            ],
            "callbacks": {"answer": {"{$request.query.redirect_uri}": _answer(issuer)}},
        },
        "post": {
            "operationId": "authorizeByForm",
            "summary": "The same as a form, for requests that are too long for an address",
            **common,
            "responses": {**common["responses"], **too_large},
            "requestBody": _form(
                {"type": "object", "required": ["client_id"], "properties": parameters}
            ),
            "callbacks": {"answer": {"{$request.body#/redirect_uri}": _answer(issuer)}},
        },
    }


def _answer(issuer: Issuer) -> Json:
    """What the browser brings to the redirect URI (RFC 6749 §4.1.2, RFC 9207)."""
    described: dict[str, Json] = {
        "code": {"type": "string"},
        "error": {"enum": sorted(kind.error for kind in AUTHORIZATION_REFUSALS)},
        "error_description": _TEXT,
        "state": {"type": "string", "description": "As it was sent."},
        "iss": {"const": issuer.base, "description": "Check it (RFC 9207)."},
    }
    return {
        "get": {
            "summary": "code, or error; always iss, and state if it was sent",
            "parameters": [
                {"name": name, "in": "query", "required": name == "iss", "schema": schema}
                for name, schema in described.items()
            ],
            "responses": {"default": {"description": "The app's own."}},
        }
    }


def _authorization_parameters(issuer: Issuer) -> dict[str, Json]:
    return {
        "response_type": {"const": "code"},
        "client_id": _TEXT,
        "redirect_uri": {"type": "string", "description": "One that is registered, to the letter."},
        "scope": {"type": "string", "description": "Scopes with spaces between."},
        "state": _TEXT,
        "aud": {"enum": [*issuer.everywhere("/fhir")], "description": "The FHIR base."},
        "launch": {"type": "string", "description": "What the EHR opened the app with."},
        "code_challenge": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
        "code_challenge_method": {"const": "S256"},
        "nonce": _TEXT,
        "prompt": {"type": "string", "description": "none, or any of login consent select_account"},
        "max_age": {"type": "string", "pattern": "^[0-9]+$"},
        "login_hint": _TEXT,
        "response_mode": {"const": "query"},
        "dpop_jkt": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
        "authorization_details": {
            "type": "string",
            "contentMediaType": _JSON,
            "contentSchema": {"type": "array", "items": _ref("AuthorizationDetail")},
        },
        "request_uri": {
            "type": "string",
            "description": "The reference of a pushed request; with it, only client_id is read.",
        },
    }


def _push() -> Json:
    return _form_operation(
        "pushAuthorizationRequest",
        "Push an authorization request, get a reference for the browser (RFC 9126)",
        "authorization",
        "PushedAuthorizationRequest",
        status="201",
        answers=_ref("PushedAuthorizationResponse"),
        dpop=True,
    )


def _token() -> Json:
    return _form_operation(
        "token",
        "Get tokens for a code, a refresh token, own keys, or a token of several records",
        "tokens",
        "TokenRequest",
        answers=_ref("TokenResponse"),
        dpop=True,
    )


def _introspect() -> Json:
    return _form_operation(
        "introspect",
        "What a token stands for, for the client that has it (RFC 7662)",
        "tokens",
        "IntrospectionRequest",
        answers=_ref("IntrospectionResponse"),
    )


def _revoke() -> Json:
    return _form_operation(
        "revoke",
        "End a token and all that came with it (RFC 7009); an unknown one is as good as ended",
        "tokens",
        "RevocationRequest",
        answers={"type": "object", "maxProperties": 0},
    )


def _form_operation(
    name: str,
    summary: str,
    tag: str,
    request: str,
    *,
    answers: Json,
    status: str = "200",
    dpop: bool = False,
) -> Json:
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "description": _AUTHENTICATION,
        "tags": [tag],
        "security": [{"clientSecretBasic": []}, {}],
        "requestBody": _form(_ref(request)),
        "responses": {status: _answered(summary, answers), **_refused(name)},
    }
    if dpop:
        operation["parameters"] = [
            {
                "name": "DPoP",
                "in": "header",
                "schema": _TEXT,
                "description": "A proof: then the tokens are bound to its key (RFC 9449).",
            }
        ]
    return operation


def _register() -> Json:
    return {
        "operationId": "register",
        "summary": "Register an app (RFC 7591); user/ and system/ scopes wait for a review",
        "tags": ["registration"],
        "security": [],
        "requestBody": _body(_ref("ClientMetadata")),
        "responses": {
            "201": _answered("Registered.", _ref("ClientInformation")),
            **_refused("register"),
        },
    }


def _managed() -> Json:
    common: Json = {
        "tags": ["registration"],
        "security": [{"registrationAccessToken": []}],
    }
    return {
        "parameters": [
            {
                "name": "client_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,100}$"},
            }
        ],
        "get": {
            "operationId": "readRegistration",
            "summary": "Read a registration (RFC 7592)",
            **common,
            "responses": {
                "200": _answered("As it is registered.", _ref("ClientInformation")),
                **_refused("readRegistration"),
            },
        },
        "put": {
            "operationId": "replaceRegistration",
            "summary": "Replace a registration as a whole; the answer has another token",
            **common,
            "requestBody": _body(_ref("ClientUpdate")),
            "responses": {
                "200": _answered("As it is registered now.", _ref("ClientInformation")),
                **_refused("replaceRegistration"),
            },
        },
        "delete": {
            "operationId": "endRegistration",
            "summary": "End a registration and all that the client holds",
            **common,
            "responses": {
                "204": {"description": "Ended.", "headers": _NO_STORE},
                **_refused("endRegistration"),
            },
        },
    }


def _launch() -> Json:
    summary = "Say what an app is opened on (EHR launch), and get launch"
    return {
        "operationId": "launch",
        "summary": summary,
        "description": (
            "For an EHR's backend client with the permission launch. What is referred to has to be "
            "something that the client may read with this token."
        ),
        "tags": ["launch"],
        "security": [{"accessToken": ["system/*.rs"]}],
        "requestBody": _body(_ref("LaunchRequest")),
        "responses": {"201": _answered(summary, _ref("LaunchResponse")), **_refused("launch")},
    }


def _access_ended() -> Json:
    """What is posted to ``backchannel_revocation_uri`` (RFC 8935)."""
    return {
        "operationId": "accessEnded",
        "summary": "Told to an app that registered a backchannel_revocation_uri, when access ends",
        "requestBody": {
            "required": True,
            "content": {
                security_event.CONTENT_TYPE: {
                    "schema": {
                        "type": "string",
                        "contentMediaType": "application/jwt",
                        "contentSchema": _ref("AccessEnded"),
                    }
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken. Any other answer, and it is sent again, ever later."}
        },
    }


# --- parts ---------------------------------------------------------------------------------------


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _form(schema: Json) -> Json:
    return {"required": True, "content": {_FORM: {"schema": schema}}}


def _body(schema: Json) -> Json:
    return {"required": True, "content": {_JSON: {"schema": schema}}}


def _answered(description: str, schema: Json) -> Json:
    return {
        "description": description,
        "headers": _NO_STORE,
        "content": {_JSON: {"schema": schema}},
    }


def _refused(operation: str) -> Json:
    """The refusals of an operation by status, each error as an example under its name."""
    return {
        str(status): {
            "description": f"{_names(kinds)}.",
            "headers": {**_NO_STORE, **_headers(kinds)},
            "content": {
                _JSON: {
                    "schema": {
                        "allOf": [_ref("Error")],
                        "properties": {"error": {"enum": sorted({one.error for one in kinds})}},
                    },
                    "examples": {
                        one.error: {"summary": _summary(one), "value": {"error": one.error}}
                        for one in kinds
                    },
                }
            },
        }
        for status, kinds in _by_status((*REFUSALS[operation], *_FAULTS)).items()
    }


def _headers(kinds: Iterable[type[errors.OAuthError]]) -> Json:
    found: Json = {}
    if errors.UseDpopNonce in kinds:
        found["DPoP-Nonce"] = {"$ref": "#/components/headers/DPoP-Nonce"}
    if errors.InvalidToken in kinds:
        found["WWW-Authenticate"] = {"schema": _TEXT, "required": True}
    if errors.TooManyRequests in kinds:
        found["Retry-After"] = {"schema": {"type": "string"}, "required": True}
    return found


def _by_status(
    kinds: Iterable[type[errors.OAuthError]],
) -> dict[int, list[type[errors.OAuthError]]]:
    found: dict[int, list[type[errors.OAuthError]]] = {}
    for kind in kinds:
        found.setdefault(kind.status, []).append(kind)
    return dict(sorted(found.items()))


def _names(kinds: Iterable[type[errors.OAuthError]]) -> str:
    return ", ".join(dict.fromkeys(kind.error for kind in kinds))


def _summary(kind: type[errors.OAuthError]) -> str:
    return re.sub(r"``", "", (kind.__doc__ or "").strip())


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


def _as_described(document: Mapping[str, Any]) -> Json:
    """The schema of a discovery document: these members, with these values."""
    return {
        "type": "object",
        "required": sorted(document),
        "properties": {name: {"const": value} for name, value in document.items()},
        "additionalProperties": False,
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


# --- schemas -------------------------------------------------------------------------------------


def _schemas(issuer: Issuer) -> Json:
    credentials: dict[str, Json] = {
        "client_id": _TEXT,
        "client_secret": _TEXT,
        "client_assertion_type": {"const": _ASSERTION_TYPE},
        "client_assertion": {"type": "string", "description": "A JWT (RFC 7523)."},
    }
    token = {
        "type": "object",
        "required": ["token"],
        "properties": {
            "token": _TEXT,
            "token_type_hint": {"enum": ["access_token", "refresh_token"]},
            **credentials,
        },
    }
    pushed = _authorization_parameters(issuer)
    del pushed["request_uri"]
    return {
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": _TEXT,
                "error_description": {
                    "type": "string",
                    "pattern": r"^[\x20-\x21\x23-\x5b\x5d-\x7e]*$",
                },
            },
        },
        "TokenRequest": {
            "oneOf": [_ref(name) for name in _grants(credentials)],
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
            "properties": {"request_uri": _TEXT, "expires_in": {"type": "integer", "minimum": 1}},
            "additionalProperties": False,
        },
        "IntrospectionRequest": token,
        "IntrospectionResponse": _introspection(issuer),
        "RevocationRequest": token,
        **_metadata(),
        "ClientUpdate": {
            "allOf": [_ref("ClientMetadata")],
            "required": ["client_id"],
            "properties": {"client_id": _TEXT, "client_secret": _TEXT},
        },
        "ClientInformation": _information(),
        "LaunchRequest": _plain(launch.SCHEMA),
        "LaunchResponse": {
            "type": "object",
            "required": ["launch", "expires_in"],
            "properties": {
                "launch": _TEXT,
                "expires_in": {"type": "integer", "minimum": 1},
                "launch_url": {**_URI, "description": "Where to open the app, if it said where."},
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
                "identifier": _TEXT,
                "patient": _REFERENCE_ID,
                "fhirUser": _URI,
                "scope": _TEXT,
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
                    "reference": _TEXT,
                    "canonical": _TEXT,
                    "identifier": {"type": "object"},
                    "type": _TEXT,
                    "role": _TEXT,
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
                            "kid": _TEXT,
                            "use": {"const": "sig"},
                            "alg": {"const": "RS256"},
                            "n": _TEXT,
                            "e": _TEXT,
                        },
                        "additionalProperties": False,
                    },
                }
            },
            "additionalProperties": False,
        },
        "AccessEnded": _plain(security_event.schema(issuer)),
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
                "code": _TEXT,
                "redirect_uri": _TEXT,
                "code_verifier": {"type": "string", "pattern": "^[A-Za-z0-9._~-]{43,128}$"},
            },
        ),
        "RefreshTokenGrant": grant(
            "refresh_token",
            ["refresh_token"],
            {"refresh_token": _TEXT, "scope": {**_TEXT, "description": "The same, or less."}},
        ),
        "ClientCredentialsGrant": grant(
            "client_credentials",
            ["client_assertion_type", "client_assertion"],
            {"scope": {**_TEXT, "description": "system/ scopes."}},
        ),
        "TokenExchangeGrant": grant(
            TOKEN_EXCHANGE,
            ["subject_token", "subject_token_type", "authorization_details"],
            {
                "subject_token": {**_TEXT, "description": "The token that lists the records."},
                "subject_token_type": {"const": ACCESS_TOKEN},
                "requested_token_type": {"const": ACCESS_TOKEN},
                "authorization_details": {
                    "type": "string",
                    "contentMediaType": _JSON,
                    "contentSchema": {"type": "array", "items": _ref("AuthorizationDetail")},
                },
                "scope": {**_TEXT, "description": "Less than was allowed on the record."},
                "resource": _TEXT,
                "audience": _TEXT,
            },
        ),
    }


def _context(issuer: Issuer) -> dict[str, Json]:
    """What both a token response and introspection tell of the launch (SMART App Launch 2.2)."""
    return {
        "patient": _REFERENCE_ID,
        "encounter": _REFERENCE_ID,
        "fhirUser": {"type": "string", "pattern": f"^{re.escape(issuer.fhir)}/"},
        "fhirContext": _ref("FhirContext"),
        "intent": _TEXT,
        "need_patient_banner": {"type": "boolean"},
        "smart_style_url": _URI,
        "authorization_details": {"type": "array", "items": _ref("ConsentedRecord")},
    }


def _token_response(issuer: Issuer) -> Json:
    return {
        "type": "object",
        "required": ["access_token", "token_type", "expires_in", "scope"],
        "properties": {
            "access_token": _TEXT,
            "token_type": {"enum": ["Bearer", "DPoP"]},
            "expires_in": {"type": "integer", "minimum": 1},
            "scope": {**_TEXT, "description": "What was granted; it may be less than asked for."},
            "refresh_token": _TEXT,
            "id_token": _TEXT,
            "issued_token_type": {"const": ACCESS_TOKEN},
            "grant_id": {**_TEXT, "description": "By which the end of this access is told."},
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
            "scope": _TEXT,
            "client_id": _TEXT,
            "token_type": {"enum": ["Bearer", "DPoP"]},
            "iat": {"type": "integer"},
            "exp": {"type": "integer"},
            "iss": {"const": issuer.base},
            "sub": _TEXT,
            "cnf": {
                "type": "object",
                "required": ["jkt"],
                "properties": {"jkt": _TEXT},
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
        "ClientMetadata": {"oneOf": [_ref("AppMetadata"), _ref("BackendMetadata")]},
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
            "client_id": _TEXT,
            "client_id_issued_at": {"type": "integer"},
            "client_secret": {**_TEXT, "description": "Told once."},
            "client_secret_expires_at": {"const": 0},
            "grant_types": {"type": "array", "items": _TEXT},
            "response_types": {"const": ["code"]},
            "registration_access_token": _TEXT,
            "registration_client_uri": _URI,
            "approval_status": {
                "const": "awaiting-review",
                "description": "There while the client waits for a review.",
            },
        },
        "additionalProperties": False,
    }
