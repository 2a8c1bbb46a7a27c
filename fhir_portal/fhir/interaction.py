"""A FHIR request and its answer, without HTTP. Source: FHIR R4 §3.1.0 (RESTful API).

``interaction`` is a code of the restful-interaction code systems: ``read``, ``vread``, ``update``,
``delete``, ``create``, ``search-type``, ``history-instance``, ``history-system``, ``batch``,
``transaction``, ``operation``, ``capabilities``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from fhir_portal.fhir.reference import is_id

Prefer = Literal["minimal", "representation", "OperationOutcome"]
Activity = Literal["", "view", "download", "transmit"]


class FhirRequest(msgspec.Struct, frozen=True):
    """One interaction, from HTTP or from an entry of a batch or transaction.

    ``query`` are the decoded name/value pairs in order. The conditional headers are as sent.
    ``operation`` is the code of an operation, without its ``$`` (FHIR R4 §3.2); ``is_get`` says
    that it was asked for by GET, which may change nothing. ``activity`` is what a page of ours does
    with the answer, for the access log: it is no matter of HTTP.
    """

    interaction: str
    type: str | None = None
    id: str | None = None
    version: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_none_exist: str | None = None
    prefer: Prefer | None = None
    lenient: bool = False
    operation: str | None = None
    is_get: bool = False
    activity: Activity = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """Content that is made as it leaves: its media type, the name to save it by, and its bytes."""

    media: str
    name: str
    chunks: Callable[[], AsyncGenerator[bytes, None]]


class FhirResponse(msgspec.Struct, frozen=True):
    """The answer: FHIR JSON bytes and what becomes headers.

    ``updated`` is milliseconds since 1970 UTC. ``binary`` is the resource's own content (media
    type, bytes) for a Binary read by somebody who does not ask for FHIR JSON.
    """

    status: int
    body: bytes = b""
    version: int | None = None
    updated: int | None = None
    location: str | None = None
    binary: tuple[str, bytes] | None = None
    records: Sequence[tuple[str, bool]] = ()
    detail: str = ""
    stream: Stream | None = None
    """Content instead of a body, which nobody holds: it is to be sent while rights stand."""
    labelled: frozenset[str] = frozenset()
    """Of what it shows, what carries a label, its own or one from elsewhere (``Type/id``): that is
    no part of a resource, and for pages of ours alone."""
    parts: Sequence[tuple[FhirRequest, FhirResponse]] = ()
    """For the access log: the records this answer touched, each with whether its person may read
    that; what was asked; and the entries of a transaction with their answers."""


def interaction_at(method: str, path: str) -> FhirRequest | None:
    """Return the interaction of an HTTP method and a path under the base, or ``None``.

    The one table of addresses, for HTTP and for the entries of batches and transactions. The
    request has only its address filled in; types and ids are not checked against anything but
    their form.
    """
    parts = path.split("/") if path else []
    operation = parts.pop()[1:] if parts and parts[-1].startswith("$") else None
    shape = "/".join([_PLACES.get(part, "x") for part in parts])
    if operation is not None:
        if (method, shape) not in _OPERATED or not _CODE.fullmatch(operation):
            return None
        interaction: str | None = "operation"
    else:
        interaction = _ADDRESSES.get((method, shape))
    if interaction is None:
        return None
    named = [part for part in parts if part not in _PLACES]
    if named and not _TYPE.fullmatch(named[0]):
        return None
    for part in named[1:]:
        if part in _DOTS or not is_id(part):
            return None
    request = FhirRequest(interaction, *named)  # type: ignore[arg-type]  # type, id, version at most
    if operation is None:
        return request
    return msgspec.structs.replace(request, operation=operation, is_get=method == "GET")


_CODE = re.compile(r"[a-z][a-z0-9-]{0,63}")
_OPERATED = frozenset((method, at) for method in ("GET", "POST") for at in ("x/x", "x", ""))
"""Where operations are: on an instance, a type, the server."""
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_DOTS = frozenset({".", ".."})
"""Ids by their form, but not addressable: clients and proxies resolve them (RFC 3986 §5.2.4)."""
_PLACES = {"_history": "_history", "_search": "_search", "metadata": "metadata"}
_ADDRESSES = {
    ("GET", "metadata"): "capabilities",
    ("POST", ""): "bundle",
    ("GET", "_history"): "history-system",
    ("GET", "x"): "search-type",
    ("POST", "x/_search"): "search-type",
    ("POST", "x"): "create",
    ("GET", "x/x"): "read",
    ("PUT", "x/x"): "update",
    ("DELETE", "x/x"): "delete",
    ("GET", "x/x/_history"): "history-instance",
    ("GET", "x/x/_history/x"): "vread",
}


def etag(version: int) -> str:
    """The weak entity tag of a version (FHIR R4 §3.1.0.1.3)."""
    return f'W/"{version}"'
