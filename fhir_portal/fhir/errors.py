"""Refusals on the FHIR side, as data.

Each class names an HTTP status and an IssueType code; ``web/errors.py`` renders them as an
OperationOutcome. Source: FHIR R4 §3.1.0 (status codes) and the issue-type code system.

    FhirError
    ├── Invalid                 400 invalid          malformed request or body
    │   ├── InvalidSearch       400 invalid          a search that is not understood
    │   └── NotSupported        400 not-supported    understood, but not offered
    ├── Unauthenticated         401 login
    ├── Forbidden               403 forbidden
    ├── NotFound                404 not-found        absent, or hidden from this caller
    │   ├── UnknownType         404 not-supported
    │   └── UnknownOperation    404 not-supported
    ├── MethodNotAllowed        405 not-supported
    ├── NotAcceptable           406 not-supported
    ├── Conflict                409 conflict
    ├── Gone                    410 deleted
    ├── PreconditionFailed      412 conflict
    ├── TooLarge                413 too-long
    ├── UnsupportedMedia        415 not-supported
    ├── Unprocessable           422 processing       well-formed, but breaks a rule
    ├── TooManyRequests         429 throttled
    └── Unavailable             503 transient
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Issue:
    """One OperationOutcome.issue: an IssueType code, plain words, and where (a FHIRPath)."""

    code: str
    diagnostics: str
    expression: str | None = None
    severity: str = "error"


class FhirError(Exception):
    """Base refusal: an HTTP status, an IssueType code, and what is wrong where."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid"

    def __init__(
        self, message: str = "", *, issues: Sequence[Issue] = (), expression: str | None = None
    ) -> None:
        self.issues = tuple(issues) or (Issue(self.code, message, expression),)
        super().__init__(message or self.issues[0].diagnostics)


class Invalid(FhirError):
    """The request or its body is malformed."""


class InvalidSearch(Invalid):
    """A search parameter, modifier or value that is not understood."""


class NotSupported(Invalid):
    """Understood, but not offered here."""

    code = "not-supported"


class Unauthenticated(FhirError):
    """No valid access token came with the request."""

    status, code = 401, "login"


class Forbidden(FhirError):
    """The token is good, but grants nothing of this kind."""

    status, code = 403, "forbidden"


class NotFound(FhirError):
    """No such resource, or none this caller may know about."""

    status, code = 404, "not-found"


class UnknownType(NotFound):
    """Not a resource type this server serves."""

    code = "not-supported"


class UnknownOperation(NotFound):
    """Not an operation this server offers at this address."""

    code = "not-supported"


class MethodNotAllowed(FhirError):
    """The interaction is not offered here."""

    status, code = 405, "not-supported"


class NotAcceptable(FhirError):
    """No representation that the caller accepts."""

    status, code = 406, "not-supported"


class Conflict(FhirError):
    """The state of the store does not allow this."""

    status, code = 409, "conflict"


class Gone(FhirError):
    """Deleted, and the caller could see the last version."""

    status, code = 410, "deleted"


class PreconditionFailed(FhirError):
    """``If-Match``, ``If-None-Match`` or a conditional match does not hold."""

    status, code = 412, "conflict"


class TooLarge(FhirError):
    """The body is over the limit."""

    status, code = 413, "too-long"


class UnsupportedMedia(FhirError):
    """The body's media type is not one we read."""

    status, code = 415, "not-supported"


class Unprocessable(FhirError):
    """Well-formed, but breaks a rule of FHIR or of this server."""

    status, code = 422, "processing"


class TooManyRequests(FhirError):
    """Slow down: ``retry_after`` is in seconds."""

    status, code = 429, "throttled"

    def __init__(self, message: str = "", *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(FhirError):
    """Try again later."""

    status, code = 503, "transient"
