"""What pages refuse, by the codes of the CodeSystem `portal-error`, and what to do next."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final, Literal, get_args

from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.smart.errors import (
    AccessDenied,
    OAuthError,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)

PageError = Literal[
    "malformed-request",
    "too-large",
    "too-many-requests",
    "try-later",
    "fault",
    "sign-in-refused",
    "code-refused",
    "recovery-code-refused",
    "passkey-refused",
    "too-many-tries",
    "form-out-of-date",
    "unknown-page",
    "unknown-link",
    "unknown-practice",
    "form-incomplete",
    "proof-refused",
    "password-refused",
    "recovery-over",
    "contact-refused",
]
PAGE_ERRORS: Final[tuple[PageError, ...]] = get_args(PageError)

_OF_REFUSALS: Final[Mapping[type[OAuthError], PageError]] = {
    AccessDenied: "form-out-of-date",
    TooManyRequests: "too-many-requests",
    TooLarge: "too-large",
    Unavailable: "try-later",
    ServerError: "fault",
}


def error_of(refusal: OAuthError) -> PageError:
    """Return the code of what a page of ours refused: a form of somebody else is out of date."""
    return _OF_REFUSALS.get(type(refusal), "malformed-request")


def next_step(error: PageError) -> str:
    """Return what to do next, in words."""
    return _steps()[error]


@functools.cache
def _steps() -> Mapping[str, str]:
    listed = ig_resource("CodeSystem", "portal-error")["concept"]
    return {one["code"]: one["definition"] for one in listed}
