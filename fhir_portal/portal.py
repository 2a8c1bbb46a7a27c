"""The collaborators of a running server, and `perform`: the one front door to patient data.

HTTP requests and every entry of a batch come through here. What leaves has been decided on,
filtered in the query, looked at once more, and recorded.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from base64 import b32encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.context import AuthContext
from fhir_portal.access.log import AccessLog, AccessRow
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.billing.provider import PaymentProvider
from fhir_portal.documents.malware_scan import MalwareScan
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import (
    FhirError,
    MethodNotAllowed,
    NotSupported,
    Unavailable,
    UnknownType,
)
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.operations.attachments import TakenFiles
from fhir_portal.operations.call import Collaborators
from fhir_portal.operations.catalog import STREAMED, changes_something, operate
from fhir_portal.resources.catalog import INTERACTIONS, interactions_of
from fhir_portal.resources.interactions.bundle import bundle_interaction
from fhir_portal.resources.server import PageLinks, Server
from fhir_portal.resources.store import ResourceStore
from fhir_portal.smart.issuer import Lifetimes

_log = structlog.get_logger()
_WRITES: Final = frozenset({"create", "update", "delete", "bundle"})
_SERVED: Final = frozenset(served_types())


def fault(error: BaseException) -> dict[str, object]:
    """Return what a log may say of an exception: its class and where it was, never its words."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def random_id() -> str:
    """Return an unguessable resource id: 120 bits as lower-case letters and digits."""
    return b32encode(os.urandom(15)).decode().lower()


@dataclass(frozen=True, slots=True)
class Portal:
    """One running server."""

    server: Server
    callers: Callers
    collaborators: Collaborators

    @classmethod
    def over(
        cls,
        store: ResourceStore,
        log: AccessLog,
        *,
        clock: Callable[[], float],
        base: str,
        aliases: tuple[str, ...],
        derive: Callable[..., bytes],
        new_id: Callable[[], str] = random_id,
        random: Callable[[int], bytes] = os.urandom,
        lifetimes: Lifetimes | None = None,
        payments: PaymentProvider | None = None,
        scan: MalwareScan | None = None,
        passwords: Passwords | None = None,
        direct: bool = False,
    ) -> Portal:
        """Put a portal together. ``base`` is the FHIR base.

        ``derive`` makes a key of 32 bytes for a purpose (`fhir_portal.smart.keys.ServerKeys`).
        """
        callers = Callers(store, clock)
        server = Server(
            store=store,
            reader=store,
            log=log,
            clock=clock,
            new_id=new_id,
            base=base,
            pages=PageLinks(derive("page-links")),
            still=callers.still,
            served=_SERVED,
            aliases=aliases,
            files=TakenFiles(scan),
        )
        site = base.removesuffix("/fhir")
        collaborators = Collaborators(
            base=site,
            derive=derive,
            random=random,
            lifetimes=lifetimes or Lifetimes(),
            payments=payments,
            scan=scan,
            passwords=passwords,
            direct=direct,
        )
        return cls(server, callers, collaborators)

    async def perform(self, request: FhirRequest, auth: AuthContext) -> FhirResponse:
        """Carry out one interaction for a caller and record the access.

        Raises:
            FhirError: a refusal, recorded like any other answer.
        """
        if _may_write(request):
            # What was stored is recorded even when the caller has gone.
            return await asyncio.shield(self._performed(request, auth))
        return await self._performed(request, auth)

    async def _performed(self, request: FhirRequest, auth: AuthContext) -> FhirResponse:
        try:
            response = await self._interaction(request, auth)
        except FhirError as error:
            await self._record(request, auth, error.status, str(error), ())
            raise
        except Exception as error:
            _log.error(  # without the traceback: it may show what no log may hold
                "interaction failed",
                interaction=request.interaction,
                type=request.type,
                **fault(error),
            )
            await self._record(request, auth, 500, "internal error", ())
            raise
        try:
            for part, answer in response.parts or [(request, response)]:
                await self._record(part, auth, answer.status, answer.detail, answer.records)
        except Unavailable as error:
            if not _may_write(request):
                raise
            message = "stored, but the access could not be recorded: do not send it again"
            raise Unavailable(message) from error
        return response

    async def _entry(self, request: FhirRequest, auth: AuthContext) -> FhirResponse:
        """Carry out one entry of a batch: rights may have ended since the batch began."""
        await self.callers.confirm(auth)
        if request.operation in STREAMED:
            error = NotSupported(f"${request.operation} is no entry of a Bundle: call it by itself")
            await self._record(request, auth, error.status, str(error), ())
            raise error
        return await self.perform(request, auth)

    async def _interaction(self, request: FhirRequest, auth: AuthContext) -> FhirResponse:
        if request.interaction == "bundle":
            return await bundle_interaction(self.server, request, auth, self._entry)
        if request.interaction == "operation":
            answer = await operate(self.server, self.collaborators, request, auth)
            if not changes_something(request):
                # What was read may have taken a while: rights that ended since show nothing.
                await self.callers.confirm(auth)
            return answer
        if request.type is not None:
            if request.type not in _SERVED:
                message = "there is no such resource type here"
                raise UnknownType(message)
            if request.interaction not in interactions_of(request.type):
                message = f"{request.type} does not offer {request.interaction}"
                raise MethodNotAllowed(message)
        return await INTERACTIONS[request.interaction](self.server, request, auth)

    async def _record(
        self,
        request: FhirRequest,
        auth: AuthContext,
        status: int,
        detail: str,
        records: Sequence[tuple[str, bool]],
    ) -> None:
        await self.server.log.append(
            list(_rows(self.server, request, auth, status, detail, records))
        )


def _may_write(request: FhirRequest) -> bool:
    return request.interaction in _WRITES or changes_something(request)


def _rows(
    server: Server,
    request: FhirRequest,
    auth: AuthContext,
    status: int,
    detail: str,
    records: Sequence[tuple[str, bool]],
) -> Iterator[AccessRow]:
    """One row for each record the access touched; for a person, always that of the context.

    What found nothing in the one record that staff may look into is written down there, untold.
    """
    touched = ((auth.patient, True),) if auth.patient else tuple(records)
    touched = touched or ((auth.staff_patient or "", auth.staff_patient is None),)
    # What is no type of ours may be anything that somebody typed.
    what = request.type if request.type in _SERVED else request.interaction
    if request.type in _SERVED and request.id is not None:
        what = f"{request.type}/{request.id}"
    elif request.interaction == "create" and status < 300:  # noqa: PLR2004 - it was made
        what, detail = detail, ""
    interaction = f"${request.operation}" if request.operation else request.interaction
    for record, told in touched:
        yield AccessRow(
            at=int(server.clock() * 1000),
            practice=auth.practice,
            record=record,
            interaction=interaction,
            what=what,
            status=status,
            client=auth.client,
            context=auth.context,
            agent=auth.fhir_user or "",
            account=auth.account or "",
            grant=(auth.record.grant or "") if auth.record else "",
            token=auth.token[:16],
            detail=detail,
            told=told,
            activity=request.activity,
            recipient=auth.recipient,
        )
