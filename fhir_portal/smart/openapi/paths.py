"""Paths and webhooks: each operation with what it takes and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fhir_portal.smart import authorization_details, errors, launch, security_event
from fhir_portal.smart.brands import BRANDS_PATH
from fhir_portal.smart.discovery import (
    AUTHORIZATION_SERVER,
    OPENID_CONFIGURATION,
    openid_configuration,
    smart_configuration,
)
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.openapi.parts import (
    JSON_CONTENT,
    NO_STORE,
    TEXT,
    Json,
    answered,
    form_body,
    json_body,
    ref,
)
from fhir_portal.smart.openapi.refusals import (
    AUTHORIZATION_REFUSALS,
    FAULTS,
    by_status,
    error_names,
    refused,
)
from fhir_portal.smart.openapi.schemas import authorization_parameters
from fhir_portal.smart.par import PAR_PATH
from fhir_portal.smart.registration import REGISTER_PATH

OPENAPI_PATH: Final = "/oauth/openapi.json"
_AUTHENTICATION: Final = (
    "Public clients send client_id. Others authenticate as they registered: by HTTP Basic "
    "(client_secret_basic), with client_id and client_secret in the body (client_secret_post), or "
    "with client_assertion in the body (private_key_jwt). Nothing of it goes into the address."
)


def paths(issuer: Issuer, scopes: Sequence[str]) -> Json:
    """Every endpoint, with the operations it has."""
    return {
        **_discovery(issuer, scopes),
        "/oauth/authorize": _authorize(issuer),
        PAR_PATH: {"post": _push()},
        "/oauth/token": {"post": _token()},
        "/oauth/introspect": {"post": _introspect()},
        "/oauth/revoke": {"post": _revoke()},
        REGISTER_PATH: {"post": _register()},
        f"{REGISTER_PATH}/{{client_id}}": _managed(),
        launch.LAUNCH_PATH: {"post": _launch()},
    }


def webhooks() -> Json:
    """What is sent to apps without their asking."""
    return {"accessEnded": {"post": _access_ended()}}


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
            ref("JwkSet"),
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
        path: {"get": _document(name, summary, schema, JSON_CONTENT)}
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
    brands["parameters"] = [{"name": "If-None-Match", "in": "header", "schema": TEXT}]
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


def _as_described(document: Mapping[str, Any]) -> Json:
    """The schema of a discovery document: these members, with these values."""
    return {
        "type": "object",
        "required": sorted(document),
        "properties": {name: {"const": value} for name, value in document.items()},
        "additionalProperties": False,
    }


def _authorize(issuer: Issuer) -> Json:
    """Both ways to the pages. What an app is answered comes by the browser: a callback."""
    page: Json = {"content": {"text/html": {"schema": TEXT}}}
    on_a_page = (
        errors.InvalidRequest,
        errors.InvalidRequestUri,
        errors.UnauthorizedClient,
        errors.InvalidClient,
        errors.TooManyRequests,
        *FAULTS,
    )
    pages = {
        str(status): {
            "description": (
                "A page for the person, and no redirect: the client or its redirect URI is not "
                f"known, or the request is not one an app may be told about. {error_names(kinds)}."
            ),
            **page,
        }
        for status, kinds in by_status(on_a_page).items()
    }
    told: Json = {
        "description": "To the next page, or to the app with what it is answered (callback).",
        "headers": {"Location": {"schema": TEXT, "required": True}},
    }
    common: Json = {
        "tags": ["authorization"],
        "security": [],
        "responses": {"303": told, **pages},
    }
    parameters = authorization_parameters(issuer)
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
            "requestBody": form_body(
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
        "error_description": TEXT,
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


def _push() -> Json:
    return _form_operation(
        "pushAuthorizationRequest",
        "Push an authorization request, get a reference for the browser (RFC 9126)",
        "authorization",
        "PushedAuthorizationRequest",
        status="201",
        answers=ref("PushedAuthorizationResponse"),
        dpop=True,
    )


def _token() -> Json:
    return _form_operation(
        "token",
        "Get tokens for a code, a refresh token, own keys, or a token of several records",
        "tokens",
        "TokenRequest",
        answers=ref("TokenResponse"),
        dpop=True,
    )


def _introspect() -> Json:
    return _form_operation(
        "introspect",
        "What a token stands for, for the client that has it (RFC 7662)",
        "tokens",
        "IntrospectionRequest",
        answers=ref("IntrospectionResponse"),
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
        "requestBody": form_body(ref(request)),
        "responses": {status: answered(summary, answers), **refused(name)},
    }
    if dpop:
        operation["parameters"] = [
            {
                "name": "DPoP",
                "in": "header",
                "schema": TEXT,
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
        "requestBody": json_body(ref("ClientMetadata")),
        "responses": {
            "201": answered("Registered.", ref("ClientInformation")),
            **refused("register"),
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
                "200": answered("As it is registered.", ref("ClientInformation")),
                **refused("readRegistration"),
            },
        },
        "put": {
            "operationId": "replaceRegistration",
            "summary": "Replace a registration as a whole; the answer has another token",
            **common,
            "requestBody": json_body(ref("ClientUpdate")),
            "responses": {
                "200": answered("As it is registered now.", ref("ClientInformation")),
                **refused("replaceRegistration"),
            },
        },
        "delete": {
            "operationId": "endRegistration",
            "summary": "End a registration and all that the client holds",
            **common,
            "responses": {
                "204": {"description": "Ended.", "headers": NO_STORE},
                **refused("endRegistration"),
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
        "requestBody": json_body(ref("LaunchRequest")),
        "responses": {"201": answered(summary, ref("LaunchResponse")), **refused("launch")},
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
                        "contentSchema": ref("AccessEnded"),
                    }
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken. Any other answer, and it is sent again, ever later."}
        },
    }
