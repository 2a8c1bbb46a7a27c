"""Open client registration (RFC 7591): apps for people, never backend services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jsonschema

from fhir_portal.records import RecordStore
from fhir_portal.smart.client import DEFAULT_SCOPE, NewClient, add_client
from fhir_portal.smart.errors import InvalidClientMetadata, InvalidScope
from fhir_portal.smart.scope import MOST_REQUESTED, ScopeSet

_WEB_ADDRESS: Final = {"type": "string", "maxLength": 2000, "pattern": r"^https://[^\s\"<>\\@]+$"}

METADATA_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Client metadata (RFC 7591 section 2) that this server registers",
    "type": "object",
    "required": ["redirect_uris"],
    "properties": {
        "redirect_uris": {
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "items": {"type": "string"},
        },
        "token_endpoint_auth_method": {
            "enum": ["none", "client_secret_basic", "client_secret_post"]
        },
        "grant_types": {
            "type": "array",
            "maxItems": 10,
            "items": {"enum": ["authorization_code", "refresh_token"]},
            "contains": {"const": "authorization_code"},
        },
        "response_types": {
            "type": "array",
            "minItems": 1,
            "maxItems": 10,
            "items": {"const": "code"},
        },
        "client_name": {"type": "string", "minLength": 1, "maxLength": 100},
        "client_uri": _WEB_ADDRESS,
        "logo_uri": _WEB_ADDRESS,
        "tos_uri": _WEB_ADDRESS,
        "policy_uri": _WEB_ADDRESS,
        "contacts": {
            "type": "array",
            "maxItems": 10,
            "items": {"type": "string", "maxLength": 200},
        },
        "scope": {"type": "string", "maxLength": 8000},
        "software_id": {"type": "string", "maxLength": 200},
        "software_version": {"type": "string", "maxLength": 200},
        # Keys, and statements about the software, are for clients that an operator adds.
        "jwks": False,
        "jwks_uri": False,
        "software_statement": False,
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
    "contacts",
    "software_id",
    "software_version",
)


async def register_client(
    store: RecordStore, metadata: Any, *, now: float, random: Callable[[int], bytes]
) -> dict[str, Any]:
    """Register an app from its metadata and return the client information of RFC 7591 §3.2.1.

    Metadata that we do not know is ignored, as the RFC demands. Raises `InvalidClientMetadata` or
    `fhir_portal.smart.errors.InvalidRedirectUri`; nothing is stored then.
    """
    _check_size(metadata)
    error = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(metadata))
    if error is not None:
        where = ".".join(str(step) for step in error.absolute_path) or "client metadata"
        raise InvalidClientMetadata(_ascii(f"{where}: {error.message}"))
    method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
    added = await add_client(
        store,
        name=metadata.get("client_name", "Unnamed app"),
        type="public" if method == "none" else "confidential",
        auth_method=method,
        redirect_uris=metadata["redirect_uris"],
        scope=_patient_scope(metadata.get("scope", "")),
        self_registered=True,
        metadata={name: metadata[name] for name in _KEPT if name in metadata},
        now=now,
        random=random,
    )
    return _information(added)


def _check_size(metadata: Any) -> None:
    """Refuse what is no text, or too much, before anything looks at it closely.

    A schema reports every fault of every item; and text may hold half a character (a lone
    surrogate), which JSON lets through and no store takes.
    """
    if not isinstance(metadata, dict):
        raise InvalidClientMetadata("client metadata is a JSON object")
    for name in METADATA_SCHEMA["properties"].keys() & metadata.keys():
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


def _patient_scope(text: str) -> str:
    try:
        scope = ScopeSet.parse(text or DEFAULT_SCOPE, at_most=MOST_REQUESTED)
    except InvalidScope as error:
        raise InvalidClientMetadata(f"scope: {error.description}") from None
    if scope.context not in (None, "patient"):
        raise InvalidClientMetadata("scope: only patient/ scopes can be registered here")
    return str(scope)


def _information(added: NewClient) -> dict[str, Any]:
    client = added.client
    information: dict[str, Any] = {
        "client_id": client.key,
        "client_id_issued_at": int(client.registered),
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": client.auth_method,
        "scope": client.scope,
        **client.metadata,
    }
    if added.secret is not None:
        information |= {"client_secret": added.secret, "client_secret_expires_at": 0}
    return information


def _ascii(text: str) -> str:
    """``error_description`` is printable ASCII without quotes (RFC 6749 §5.2), and short."""
    return text.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")[:300]
