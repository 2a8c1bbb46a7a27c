"""One call of an operation, and what operations work with."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fhir_portal.access.context import AuthContext, acting_for
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.billing.provider import PaymentProvider
from fhir_portal.documents.malware_scan import MalwareScan
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import NotFound
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.definition import Arguments, OperationDefinition, parameters
from fhir_portal.operations.links import touched_by
from fhir_portal.resources.interactions.read import key_of, unknown
from fhir_portal.resources.permission import checked
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceReader, Row, labelled_in
from fhir_portal.resources.writing import gone
from fhir_portal.smart.issuer import Lifetimes


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What operations work with beside the `Server` of the interactions.

    ``base`` is the address of the site, without a slash at its end; ``derive`` makes a key of the
    server's secret for a purpose; ``random`` gives that many unpredictable bytes; ``lifetimes`` are
    those of tokens; ``payments`` takes payments, where a provider is set up. ``scan`` looks at the
    files that people send; ``None`` where nothing is set up. ``passwords`` hashes what is typed.
    ``direct`` says whether something is set up that takes mail to Direct addresses.
    """

    base: str
    derive: Callable[..., bytes]
    random: Callable[[int], bytes]
    lifetimes: Lifetimes = Lifetimes()  # noqa: RUF009 - frozen
    payments: PaymentProvider | None = None
    scan: MalwareScan | None = None
    passwords: Passwords | None = None
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who asks for what, what they gave, and what they may see of its target's type."""

    server: Server
    collaborators: Collaborators
    definition: OperationDefinition
    request: FhirRequest
    auth: AuthContext
    arguments: Arguments
    visible: Visibility

    async def target(self, reader: ResourceReader) -> Row:
        """Return the resource the operation was called on, as the reader shows it.

        Raises:
            NotFound: absent, or hidden; the same words. Gone: its deletion may be known.
        """
        key = key_of(self.request)
        row = await reader.read(key, self.visible)
        if row is None:
            raise unknown(key)
        checked([row], self.visible)
        if row.deleted:
            raise gone(row)
        return row

    async def named(self, reader: ResourceReader, reference: Any, resource_type: str) -> Row:
        """Return a resource of the target's practice that an argument refers to.

        Only for a type that the target's visibility covers. Raises `NotFound`.
        """
        text = reference.get("reference", "") if isinstance(reference, Mapping) else ""
        key = ResourceKey.parse(text) if text.count("/") == 1 else None
        if key is None or key.type != resource_type or self.visible.resource_type != resource_type:
            message = f"{text[:80]} is not known"
            raise NotFound(message)
        row = await reader.read(key, self.visible)
        if row is None:
            raise unknown(key)
        checked([row], self.visible)
        if row.deleted:
            raise unknown(key)
        return row

    def answer(self, values: Mapping[str, Any], *rows: Row, status: int = 200) -> FhirResponse:
        """Return the answer with these values; ``rows`` are what the call touched, for the log."""
        return self.answered(parameters(self.definition, values), *rows, status=status)

    def answered(self, tree: dict[str, Any], *rows: Row, status: int = 200) -> FhirResponse:
        """Return a resource as the answer."""
        touched = {record: None for row in rows for record in touched_by(row)}
        return FhirResponse(
            status, json.dumps(tree), records=tuple(touched), labelled=labelled_in(rows)
        )

    def document(self, body: bytes, *rows: Row) -> FhirResponse:
        """Return FHIR JSON that was put together already as the answer."""
        touched = {record: None for row in rows for record in touched_by(row)}
        return FhirResponse(200, body, records=tuple(touched))

    def binary(self, media: str, content: bytes, *rows: Row) -> FhirResponse:
        """Return a Binary that is stored nowhere: itself, or FHIR JSON to who asks for that."""
        tree = {
            "resourceType": "Binary",
            "contentType": media,
            "data": base64.b64encode(content).decode(),
        }
        answer = self.answered(tree, *rows)
        return msgspec.structs.replace(answer, binary=(media, content))

    @property
    def as_practice(self) -> AuthContext:
        """The server acting for the practice, for what an operation writes and the caller may not.

        Only what `decide_operation` has permitted is written under it; it never leaves the call.
        """
        return acting_for(self.auth.practice, self.auth.client)


__all__ = ["Call", "Collaborators", "Operation", "acting_for"]

Operation = Callable[[Call], Awaitable[FhirResponse]]
