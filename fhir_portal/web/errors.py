"""FhirErrors on the wire: the one place that makes an OperationOutcome answer of a refusal."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_portal.access.authenticate import ProofRefused
from fhir_portal.fhir.errors import (
    FhirError,
    Forbidden,
    Issue,
    MethodNotAllowed,
    RangeNotSatisfiable,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from fhir_portal.fhir.outcome import outcome
from fhir_portal.smart.dpop import ALGORITHMS

Headers = list[tuple[bytes, bytes]]


def refusal(
    error: FhirError,
    *,
    had_token: bool,
    dpop: bool = False,
    dpop_required: bool = False,
    allow: Sequence[str] = (),
) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of a refusal (FHIR R4 §3.1.0.1.5; RFC 6750 §3, RFC 9449 §7).

    ``dpop`` says that the token came as DPoP, ``dpop_required`` that no other is given out. Whoever
    came without a token, or with a bearer token that is no good, is told of every scheme there is;
    whoever used one that is, of that one. ``allow`` are the methods offered at the address, for a
    refused method (RFC 9110 §15.5.6).
    """
    headers: Headers = []
    if isinstance(error, Unauthenticated):
        proof = error if isinstance(error, ProofRefused) else None
        code = (proof.error if proof else "invalid_token") if had_token else None
        if proof or dpop:
            challenge = _dpop(code)
        elif dpop_required and code is None:
            challenge = _dpop(None)
        else:
            challenge = f"{_bearer(code)}, {_dpop(None)}"
        headers.append((b"www-authenticate", challenge.encode()))
        if proof is not None and proof.nonce is not None:
            headers.append((b"dpop-nonce", proof.nonce.encode()))
    elif isinstance(error, Forbidden):
        challenge = (_dpop if dpop else _bearer)("insufficient_scope")
        headers.append((b"www-authenticate", challenge.encode()))
    elif isinstance(error, TooManyRequests):
        headers.append((b"retry-after", str(error.retry_after).encode()))
    elif isinstance(error, RangeNotSatisfiable):
        headers.append((b"content-range", f"bytes */{error.size}".encode()))
    elif isinstance(error, Unavailable):
        headers.append((b"retry-after", b"1"))
    elif isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(allow).encode()))
    return error.status, headers, outcome(error.issues)


def _bearer(error: str | None) -> str:
    """RFC 6750 §3."""
    return 'Bearer realm="fhir"' + _because(error)


def _dpop(error: str | None) -> str:
    """RFC 9449 §7.1."""
    return f'DPoP algs="{" ".join(ALGORITHMS)}"' + _because(error)


def _because(error: str | None) -> str:
    return "" if error is None else f', error="{error}"'


def failure() -> bytes:
    """Return the OperationOutcome of a fault of ours: it says nothing of the inside."""
    return outcome(
        [
            Issue(
                "exception",
                "Something went wrong on our side. Read again before you repeat a change.",
                None,
                "fatal",
                "fault",
            )
        ]
    )
