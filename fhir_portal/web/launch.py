"""What launches need of patient data, through the one front door.

An EHR that makes a launch reads with its own token what it refers to. The visits to choose from are
searched by the right of whoever signed in. Both are decided, filtered in the query and recorded
like every other access.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import DIRECTORY, own_patients
from fhir_portal.accounts.account import Account
from fhir_portal.consent.record import RecordAccess
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import (
    Forbidden,
    Gone,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
)
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.portal import Portal
from fhir_portal.smart.authorization import Visit
from fhir_portal.smart.dpop import Shown
from fhir_portal.smart.errors import AccessDenied, InvalidToken
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.launch import LAUNCH, LAUNCH_PATH, Launches
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.web.errors import refusal

PORTAL_CLIENT: Final = "portal"
"""Who reads when the portal asks for a person, in the access log."""
MOST_VISITS: Final = 20
_NOT_IN_CONTEXT: Final = frozenset({"AuditEvent", "Person"})
_SECONDS: Final = 60.0


class EhrLaunches:
    """`POST /oauth/launch`: authenticates the EHR's client and makes its launch."""

    def __init__(self, portal: Portal, launches: Launches, issuer: Issuer) -> None:
        self._portal = portal
        self._launches = launches
        self._issuer = issuer

    async def caller(self, authorization: str | None, proof: str | None) -> AuthContext:
        """Return the EHR behind a request.

        Raises `errors.InvalidToken`, and `errors.AccessDenied` for a client without the permission.
        """
        scheme, _, token = (authorization or "").partition(" ")
        shown = None
        if scheme.lower() == "dpop":
            shown = Shown(proof or "", "POST", tuple(self._issuer.everywhere(LAUNCH_PATH)))
        elif scheme.lower() != "bearer":
            error = Unauthenticated("send an access token: Authorization: Bearer")
            raise _not_valid(error, dpop=False, had_token=False)
        try:
            auth = await self._portal.callers.of(token.strip(), shown)
        except Unauthenticated as error:
            raise _not_valid(error, dpop=shown is not None) from None
        if auth.context != "system" or LAUNCH not in auth.permissions:
            raise AccessDenied("this client may not launch apps")
        return auth

    async def begin(self, auth: AuthContext, asked: Any) -> dict[str, Any]:
        """Make a launch in the caller's practice. Raises `errors.InvalidRequest`."""
        try:
            await self._portal.callers.confirm(auth)  # the body may have taken its time
        except Unauthenticated as error:
            raise _not_valid(error, dpop=auth.jkt is not None) from None
        return await self._launches.begin(
            asked,
            made_by=auth.client,
            practice=auth.practice,
            reader=_Reader(self._portal, auth),
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    """`fhir_portal.smart.launch.LaunchReader` for one caller."""

    portal: Portal
    auth: AuthContext

    async def is_known(self, reference: str, *, patient: str) -> bool:
        name, _, own_id = reference.partition("/")
        if name in _NOT_IN_CONTEXT:
            return False
        try:
            found = await self.portal.perform(FhirRequest("read", name, own_id), self.auth)
        except (NotFound, Gone, Forbidden, MethodNotAllowed):
            return False
        if name in DIRECTORY:
            return True
        # What has two owners is in neither's launch.
        return own_patients(json.parse(found.body)) == (patient.partition("/")[2],)


def _not_valid(error: Unauthenticated, *, dpop: bool, had_token: bool = True) -> InvalidToken:
    """The same challenge as at ``/fhir``."""
    _, headers, _ = refusal(error, had_token=had_token, dpop=dpop)
    return InvalidToken(
        str(error),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in headers},
    )


def visits_by(
    portal: Portal, clock: Callable[[], float]
) -> Callable[[Account, RecordAccess, ScopeSet], Any]:
    """Return what finds the visits of a record for the person who uses it."""

    async def visits(account: Account, record: RecordAccess, scopes: ScopeSet) -> list[Visit]:
        """The latest visits that these scopes let that person see, newest first."""
        auth = _person(account, record, scopes, clock())
        query = (("_sort", "-date"), ("_count", str(MOST_VISITS)))
        try:
            found = await portal.perform(FhirRequest("search-type", "Encounter", query=query), auth)
        except Forbidden:
            return []
        entries = json.parse(found.body).get("entry") or ()
        return [_visit(entry["resource"]) for entry in entries]

    return visits


def sees_by(
    portal: Portal, clock: Callable[[], float]
) -> Callable[[Account, RecordAccess, ScopeSet, str], Awaitable[bool]]:
    """Return what says whether a person may read, within scopes, what is referred to."""

    async def sees(
        account: Account, record: RecordAccess, scopes: ScopeSet, reference: str
    ) -> bool:
        """Whether a read by that person would be answered."""
        name, _, own_id = reference.partition("/")
        auth = _person(account, record, scopes, clock())
        try:
            await portal.perform(FhirRequest("read", name, own_id), auth)
        except (NotFound, Gone, Forbidden, MethodNotAllowed):
            return False
        return True

    return sees


def _person(account: Account, record: RecordAccess, scopes: ScopeSet, now: float) -> AuthContext:
    """The person who signed in, as an app with these scopes would read for them."""
    return AuthContext(
        client=PORTAL_CLIENT,
        context="patient",
        scopes=scopes,
        practice=record.practice,
        expires=now + _SECONDS,
        token="",
        record=record,
        account=account.key,
    )


def _visit(encounter: Any) -> Visit:
    """An Encounter in the words of a picker: when it was, and what kind of visit."""
    period = encounter.get("period") or {}
    kinds = [*(encounter.get("type") or ()), encounter.get("serviceType") or {}]
    words = [
        concept.get("text")
        or next((c["display"] for c in concept.get("coding") or () if "display" in c), "")
        for concept in kinds
    ]
    words.append((encounter.get("class") or {}).get("display", ""))
    return Visit(
        reference=f"Encounter/{encounter['id']}",
        day=str(period.get("start", ""))[:10],
        what=next((word for word in words if word), ""),
    )
