"""Dynamic client registration (RFC 7591): who may come by themselves, and with what metadata.

The policy: an app for patients, which sees what a patient shows it, is let in at once. A client
with ``user/`` or ``system/`` scopes is registered too, and waits until an operator approves it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jsonschema
from joserfc import jws
from joserfc.errors import JoseError

from fhir_portal.records import RecordStore
from fhir_portal.smart.client import (
    DEFAULT_SCOPE,
    AuthMethod,
    Client,
    ClientType,
    add_client,
)
from fhir_portal.smart.errors import (
    InvalidClientMetadata,
    InvalidScope,
    InvalidSoftwareStatement,
    UnapprovedSoftwareStatement,
)
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.scope import MOST_REQUESTED, ScopeSet
from fhir_portal.smart.token import token_hash

REGISTER_PATH: Final = "/oauth/register"
AWAITING: Final = "awaiting-review"
_TOKEN_BYTES: Final = 32
_WEB_ADDRESS: Final = {"type": "string", "maxLength": 2000, "pattern": r"^https://[^\s\"<>\\@]+$"}
_BACKEND: Final = ["client_credentials"]

METADATA_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Client metadata (RFC 7591 section 2) that this server registers",
    "type": "object",
    "properties": {
        "redirect_uris": {
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "items": {"type": "string"},
        },
        "token_endpoint_auth_method": {
            "enum": ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
        },
        "grant_types": {
            "type": "array",
            "maxItems": 10,
            "anyOf": [
                {"const": _BACKEND},
                {
                    "items": {"enum": ["authorization_code", "refresh_token"]},
                    "contains": {"const": "authorization_code"},
                },
            ],
        },
        "response_types": {
            "type": "array",
            "maxItems": 10,
            "items": {"const": "code"},
        },
        "client_name": {"type": "string", "minLength": 1, "maxLength": 100},
        "client_uri": _WEB_ADDRESS,
        "logo_uri": _WEB_ADDRESS,
        "tos_uri": _WEB_ADDRESS,
        "policy_uri": _WEB_ADDRESS,
        "initiate_login_uri": {"type": "string", "maxLength": 2000},  # where an EHR opens it
        "contacts": {
            "type": "array",
            "maxItems": 10,
            "items": {"type": "string", "maxLength": 200},
        },
        "scope": {"type": "string", "maxLength": 8000},
        "software_id": {"type": "string", "maxLength": 200},
        "software_version": {"type": "string", "maxLength": 200},
        "jwks": {"type": "object"},
        "jwks_uri": {"type": "string", "maxLength": 2000},
        "require_pushed_authorization_requests": {"type": "boolean"},  # RFC 9126 section 6
        "dpop_bound_access_tokens": {"type": "boolean"},  # RFC 9449 section 5.2
        "backchannel_revocation_uri": {"type": "string", "maxLength": 2000},
        "authorization_details_types": {  # RFC 9396 section 10
            "type": "array",
            "maxItems": 10,
            "items": {"type": "string", "maxLength": 300},
        },
    },
    "if": {"properties": {"grant_types": {"const": _BACKEND}}, "required": ["grant_types"]},
    "then": {
        "required": ["token_endpoint_auth_method", "scope"],
        "properties": {"redirect_uris": False, "response_types": {"maxItems": 0}},
    },
    "else": {
        "required": ["redirect_uris"],
        "properties": {"response_types": {"minItems": 1}},
    },
}
MAX_BYTES: Final = 16 * 1024
_LONGEST_LIST: Final = 20
_VALIDATOR: Final = jsonschema.Draft202012Validator(METADATA_SCHEMA)
_KEPT: Final = (
    "client_uri",
    "logo_uri",
    "tos_uri",
    "policy_uri",
    "initiate_login_uri",
    "contacts",
    "software_id",
    "software_version",
    "authorization_details_types",
)
"""What is kept as it was sent, for people to read."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Metadata that was read and judged: what a client is to be, whoever it is."""

    name: str
    type: ClientType
    auth_method: AuthMethod
    redirect_uris: tuple[str, ...]
    scope: str
    awaits_review: bool
    jwks: dict[str, Any] | None
    jwks_uri: str | None
    require_pushed_authorization_requests: bool
    dpop_bound_access_tokens: bool
    backchannel_revocation_uri: str | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, metadata: Any) -> Registration:
        """Read client metadata.

        What we do not know is ignored, as RFC 7591 §2 demands. Raises `InvalidClientMetadata`,
        `InvalidSoftwareStatement` or `UnapprovedSoftwareStatement`.
        """
        _check_size(metadata)
        _refuse_statement(metadata)
        error = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(metadata))
        if error is not None:
            where = ".".join(str(step) for step in error.absolute_path) or "client metadata"
            raise InvalidClientMetadata(_ascii(f"{where}: {error.message}"))
        backend = metadata.get("grant_types") == _BACKEND
        method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
        scope = _scope(metadata.get("scope", ""))
        return cls(
            name=metadata.get("client_name", "Unnamed app"),
            type="backend" if backend else "public" if method == "none" else "confidential",
            auth_method=method,
            redirect_uris=tuple(metadata.get("redirect_uris", ())),
            scope=str(scope),
            awaits_review=needs_review(scope),
            jwks=metadata.get("jwks"),
            jwks_uri=metadata.get("jwks_uri"),
            require_pushed_authorization_requests=metadata.get(
                "require_pushed_authorization_requests", False
            ),
            dpop_bound_access_tokens=metadata.get("dpop_bound_access_tokens", False),
            backchannel_revocation_uri=metadata.get("backchannel_revocation_uri"),
            metadata={name: metadata[name] for name in _KEPT if name in metadata},
        )


def needs_review(scope: ScopeSet) -> bool:
    """Whether a client with these scopes is looked at before it is let in."""
    return scope.context in ("user", "system")


async def register_client(
    store: RecordStore,
    metadata: Any,
    *,
    issuer: Issuer,
    now: float,
    random: Callable[[int], bytes],
    loopback: bool = False,
) -> dict[str, Any]:
    """Register an app from its metadata and return the client information of RFC 7591 §3.2.1.

    ``loopback`` is as in `fhir_portal.smart.client.checked`. Raises what `Registration.of` does,
    or `fhir_portal.smart.errors.InvalidRedirectUri`; nothing is stored then.
    """
    asked = Registration.of(metadata)
    token = new_registration_token(random)
    added = await add_client(
        store,
        name=asked.name,
        type=asked.type,
        auth_method=asked.auth_method,
        redirect_uris=asked.redirect_uris,
        scope=asked.scope,
        jwks=asked.jwks,
        jwks_uri=asked.jwks_uri,
        self_registered=True,
        awaits_review=asked.awaits_review,
        registration_hash=token_hash(token),
        require_pushed_authorization_requests=asked.require_pushed_authorization_requests,
        dpop_bound_access_tokens=asked.dpop_bound_access_tokens,
        backchannel_revocation_uri=asked.backchannel_revocation_uri,
        metadata=asked.metadata,
        now=now,
        random=random,
        loopback=loopback,
    )
    return information(added.client, issuer, token=token, secret=added.secret)


def new_registration_token(random: Callable[[int], bytes]) -> str:
    """Make the token that manages one registration (RFC 7592)."""
    return base64.urlsafe_b64encode(random(_TOKEN_BYTES)).rstrip(b"=").decode()


def information(
    client: Client, issuer: Issuer, *, token: str, secret: str | None = None
) -> dict[str, Any]:
    """The client information response (RFC 7591 §3.2.1, RFC 7592 §3).

    ``secret`` is a new one; one that was told before is kept as a hash and cannot be told again.
    """
    backend = client.type == "backend"
    told: dict[str, Any] = {
        "client_id": client.key,
        "client_id_issued_at": int(client.registered),
        "client_name": client.name,
        "grant_types": _BACKEND if backend else ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": client.auth_method,
        "scope": client.scope,
        "registration_access_token": token,
        "registration_client_uri": issuer.at(f"{REGISTER_PATH}/{client.key}"),
        **client.metadata,
    }
    if not backend:
        told |= {"redirect_uris": list(client.redirect_uris), "response_types": ["code"]}
    if client.jwks is not None:
        told["jwks"] = client.jwks
    if client.jwks_uri is not None:
        told["jwks_uri"] = client.jwks_uri
    if client.backchannel_revocation_uri is not None:
        told["backchannel_revocation_uri"] = client.backchannel_revocation_uri
    for flag in ("require_pushed_authorization_requests", "dpop_bound_access_tokens"):
        if getattr(client, flag):
            told[flag] = True
    if client.awaits_review:
        told["approval_status"] = AWAITING
    if secret is not None:
        told |= {"client_secret": secret, "client_secret_expires_at": 0}
    return told


def _check_size(metadata: Any) -> None:
    """Refuse what is no text, or too much, before anything looks at it closely.

    A schema reports every fault of every item; and text may hold half a character (a lone
    surrogate), which JSON lets through and no store takes. A JWK Set is looked at by itself.
    """
    if not isinstance(metadata, dict):
        raise InvalidClientMetadata("client metadata is a JSON object")
    known = METADATA_SCHEMA["properties"].keys() | {"software_statement"}
    for name in (known - {"jwks"}) & metadata.keys():
        value = metadata[name]
        values = value if isinstance(value, list) else [value]
        if len(values) > _LONGEST_LIST:
            raise InvalidClientMetadata(f"{name}: more than {_LONGEST_LIST} items")
        if any(isinstance(one, list | dict) for one in values):
            raise InvalidClientMetadata(f"{name}: text, or a list of text")
        if not all(one.isprintable() for one in values if isinstance(one, str)):
            raise InvalidClientMetadata(f"{name}: has characters that cannot be printed")
    uris = metadata.get("redirect_uris")
    if isinstance(uris, list) and len(set(uris)) < len(uris):
        raise InvalidClientMetadata("redirect_uris: one is there twice")


def _refuse_statement(metadata: Mapping[str, Any]) -> None:
    """No issuer of software statements is known here, so that none can be approved."""
    if "software_statement" not in metadata:
        return
    try:
        jws.extract_compact(str(metadata["software_statement"]).encode())
    except (JoseError, ValueError, RecursionError, TypeError, AttributeError, LookupError):
        raise InvalidSoftwareStatement("software_statement: no signed JWT") from None
    raise UnapprovedSoftwareStatement("software_statement: its issuer is not known here")


def _scope(text: str) -> ScopeSet:
    try:
        return ScopeSet.parse(text or DEFAULT_SCOPE, at_most=MOST_REQUESTED)
    except InvalidScope as error:
        raise InvalidClientMetadata(f"scope: {error.description}") from None


def _ascii(text: str) -> str:
    """``error_description`` is printable ASCII without quotes (RFC 6749 §5.2), and short."""
    return text.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")[:300]
