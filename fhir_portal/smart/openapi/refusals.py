"""Which errors each operation refuses with, and how they are described."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from fhir_portal.smart import errors
from fhir_portal.smart.openapi.parts import JSON_CONTENT, NO_STORE, TEXT, Json, ref

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

FAULTS: Final = (errors.ServerError, errors.Unavailable)
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


def refused(operation: str) -> Json:
    """The refusals of an operation by status, each error as an example under its name."""
    return {
        str(status): {
            "description": f"{error_names(kinds)}.",
            "headers": {**NO_STORE, **_headers(kinds)},
            "content": {
                JSON_CONTENT: {
                    "schema": {
                        "allOf": [ref("Error")],
                        "properties": {"error": {"enum": sorted({one.error for one in kinds})}},
                    },
                    "examples": {
                        one.error: {"summary": _summary(one), "value": {"error": one.error}}
                        for one in kinds
                    },
                }
            },
        }
        for status, kinds in by_status((*REFUSALS[operation], *FAULTS)).items()
    }


def _headers(kinds: Iterable[type[errors.OAuthError]]) -> Json:
    found: Json = {}
    if errors.UseDpopNonce in kinds:
        found["DPoP-Nonce"] = {"$ref": "#/components/headers/DPoP-Nonce"}
    if errors.InvalidToken in kinds:
        found["WWW-Authenticate"] = {"schema": TEXT, "required": True}
    if errors.TooManyRequests in kinds:
        found["Retry-After"] = {"schema": {"type": "string"}, "required": True}
    return found


def by_status(
    kinds: Iterable[type[errors.OAuthError]],
) -> dict[int, list[type[errors.OAuthError]]]:
    """Errors by the HTTP status that they are answered with, in its order."""
    found: dict[int, list[type[errors.OAuthError]]] = {}
    for kind in kinds:
        found.setdefault(kind.status, []).append(kind)
    return dict(sorted(found.items()))


def error_names(kinds: Iterable[type[errors.OAuthError]]) -> str:
    """The names of errors, each once, as a text."""
    return ", ".join(dict.fromkeys(kind.error for kind in kinds))


def _summary(kind: type[errors.OAuthError]) -> str:
    return re.sub(r"``", "", (kind.__doc__ or "").strip())
