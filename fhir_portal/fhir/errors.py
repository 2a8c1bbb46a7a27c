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
    │   ├── UnknownOperation    404 not-supported
    │   └── NotOfferedHere      404 not-supported    a practice has switched it off
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
from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Issue:
    """One OperationOutcome.issue: an IssueType code, plain words, and where (a FHIRPath).

    ``portal_error`` is a code of the CodeSystem `portal-error`, which says what to do next.
    """

    code: str
    diagnostics: str
    expression: str | None = None
    severity: str = "error"
    portal_error: str | None = None


class FhirError(Exception):
    """Base refusal: an HTTP status, an IssueType code, and what is wrong where.

    ``portal_error`` is the code of the kind of refusal in the CodeSystem `portal-error`.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid"
    portal_error: ClassVar[str] = "malformed-request"

    def __init__(
        self, message: str = "", *, issues: Sequence[Issue] = (), expression: str | None = None
    ) -> None:
        listed = issues or (Issue(self.code, message, expression),)
        self.issues = tuple(
            replace(one, portal_error=one.portal_error or self.portal_error) for one in listed
        )
        super().__init__(message or self.issues[0].diagnostics)


class Invalid(FhirError):
    """The request or its body is malformed."""


class InvalidSearch(Invalid):
    """A search parameter, modifier or value that is not understood."""

    portal_error = "unknown-search"


class NotSupported(Invalid):
    """Understood, but not offered here."""

    code = "not-supported"
    portal_error = "not-offered"


class Unauthenticated(FhirError):
    """No valid access token came with the request."""

    status, code = 401, "login"
    portal_error = "not-signed-in"


class Forbidden(FhirError):
    """The token is good, but grants nothing of this kind."""

    status, code = 403, "forbidden"
    portal_error = "not-permitted"


class NotFound(FhirError):
    """No such resource, or none this caller may know about."""

    status, code = 404, "not-found"
    portal_error = "not-found"


class UnknownType(NotFound):
    """Not a resource type this server serves."""

    code = "not-supported"
    portal_error = "unknown-type"


class UnknownOperation(NotFound):
    """Not an operation this server offers at this address."""

    code = "not-supported"
    portal_error = "unknown-operation"


class NotOfferedHere(NotFound):
    """The practice does not offer this to its patients."""

    code = "not-supported"
    portal_error = "not-offered-by-practice"


class MethodNotAllowed(FhirError):
    """The interaction is not offered here."""

    status, code = 405, "not-supported"
    portal_error = "method-not-offered"


class NotAcceptable(FhirError):
    """No representation that the caller accepts."""

    status, code = 406, "not-supported"
    portal_error = "format-not-offered"


class Conflict(FhirError):
    """The state of the store does not allow this."""

    status, code = 409, "conflict"
    portal_error = "conflict"


class Gone(FhirError):
    """Deleted, and the caller could see the last version."""

    status, code = 410, "deleted"
    portal_error = "deleted"


class PreconditionFailed(FhirError):
    """``If-Match``, ``If-None-Match`` or a conditional match does not hold."""

    status, code = 412, "conflict"
    portal_error = "condition-failed"


class TooLarge(FhirError):
    """The body is over the limit."""

    status, code = 413, "too-long"
    portal_error = "too-large"


class UnsupportedMedia(FhirError):
    """The body's media type is not one we read."""

    status, code = 415, "not-supported"
    portal_error = "body-not-readable"


class RangeNotSatisfiable(FhirError):
    """The part asked for lies behind the end: ``size`` is how many bytes there are (RFC 9110)."""

    status, code = 416, "value"
    portal_error = "breaks-a-rule"

    def __init__(self, message: str = "", *, size: int = 0) -> None:
        super().__init__(message)
        self.size = size


class Unprocessable(FhirError):
    """Well-formed, but breaks a rule of FHIR or of this server."""

    status, code = 422, "processing"
    portal_error = "breaks-a-rule"


class TooManyRequests(FhirError):
    """Slow down: ``retry_after`` is in seconds."""

    status, code = 429, "throttled"
    portal_error = "too-many-requests"

    def __init__(self, message: str = "", *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(FhirError):
    """Try again later."""

    status, code = 503, "transient"
    portal_error = "try-later"
