"""AuditEvent has behaviour of its own: it is rendered from the access log when it is read.

The shape follows IHE BALP (Basic Audit Log Patterns), RESTful activity. A person sees every access
to their own record; a proxy sees only the lines that are their own doing. A practice's staff are
named in the lines about what they did; they see lines only with the permission to audit, then all.
"""

from __future__ import annotations

import asyncio
import functools
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlencode

from fhir_portal.access.context import AuthContext
from fhir_portal.access.log import AccessRow, LoggedAccess
from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.grant import IG
from fhir_portal.fhir import json
from fhir_portal.fhir.bundle import bundle, search_entries
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import InvalidSearch, NotFound, Unavailable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.asked import Asked, links
from fhir_portal.resources.server import Server
from fhir_portal.search.evaluate import matches
from fhir_portal.search.indexer import extract
from fhir_portal.search.values import DateValue, ReferenceValue, Token

PARAMETERS: Final = (
    "_id",
    "_lastUpdated",
    "action",
    "agent",
    "date",
    "entity",
    "outcome",
    "patient",
    "subtype",
    "type",
)
_ACTIONS: Final = {
    "create": "C",
    "update": "U",
    "delete": "D",
    "read": "R",
    "vread": "R",
    "history-instance": "R",
}
SHARE_LINK: Final = "share link"
_CHUNK: Final = 200
_CHUNKS: Final = 25
_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_OPERATION: Final = f"{IG}/OperationDefinition"
_REST: Final = "http://hl7.org/fhir/restful-interaction"
ACTIVITY: Final = f"{IG}/CodeSystem/portal-activity"
"""What people do with their record: view, download, transmit."""
_VIEWS: Final = frozenset(
    {"read", "vread", "search-type", "history-instance"}
    | {"$summary", "$render", "$thread", "$threads", "$attachment", "$portal-dashboard"}
)
_DOWNLOADS: Final = frozenset(
    {"$ccd", "$docref", "$everything", "$export", "$export-self"}
    | {"$immunization-certificate", "$health-cards-issue", "$receipt"}
)
_TRANSMITS: Final = frozenset({"$transmit"})


async def read(
    server: Server, key: ResourceKey, visible: Visibility, auth: AuthContext
) -> FhirResponse:
    """Return one line of the log."""
    found = await server.log.read(key.id)
    if found is None or not _may_see(found, visible, auth):
        message = f"{key} is not known"
        raise NotFound(message)
    tree = render(found, whole=_is_own(found, auth))
    if visible.any_of is not None:
        entries = extract("AuditEvent", tree)
        moment = found.row.at * 1000
        if not any(
            matches(criteria, entries, id=key.id, last_updated=moment)
            for criteria in visible.any_of
        ):
            message = f"{key} is not known"
            raise NotFound(message)
    return FhirResponse(
        200,
        json.dumps(tree),
        version=1,
        updated=found.row.at,
        records=((found.row.record, found.row.told),) if found.row.record else (),
    )


async def search(
    server: Server, asked: Asked, visible: Visibility, auth: AuthContext
) -> FhirResponse:
    """Return lines of the log, newest first."""
    request = asked.request
    unsupported = [c.parameter.code for c in request.criteria if c.parameter.code not in PARAMETERS]
    if unsupported:
        message = f"{unsupported[0]} is not supported on AuditEvent"
        raise InvalidSearch(message)
    if request.includes or request.revincludes or request.only_total or request.total != "none":
        message = "AuditEvent is searched without _include, _revinclude, _total and _summary"
        raise InvalidSearch(message)
    if any(str(sort) not in {"-date", "-_lastUpdated"} for sort in request.sort):
        message = "AuditEvent is sorted by -date only"
        raise InvalidSearch(message)
    low, high = _bounds(asked, int(server.clock() * 1_000_000))
    low, high = await _around_ids(server, asked, low, high)
    before = str(asked.after[0]) if asked.after else None
    record = visible.record or _one_patient(asked)
    found: list[tuple[LoggedAccess, bytes]] = []
    for _ in range(_CHUNKS):
        rows = await server.log.of_record(
            auth.practice,
            record,
            agent=None if auth.is_self or _reads_all(auth) else auth.fhir_user,
            told=not _reads_all(auth),
            low=low,
            high=high,
            before=before,
            limit=_CHUNK,
        )
        await asyncio.sleep(0)  # other requests get their turn between chunks
        for one in rows:
            before = one.id
            tree = render(one, whole=_is_own(one, auth))
            entries = extract("AuditEvent", tree)
            judge = functools.partial(
                matches,
                entries=entries,
                id=one.id,
                last_updated=one.row.at * 1000,
                now=int(server.clock() * 1_000_000),
            )
            if (
                _may_see(one, visible, auth)
                and judge(request.criteria)
                and (visible.any_of is None or any(judge(criteria) for criteria in visible.any_of))
            ):
                found.append((one, json.dumps(tree)))
                if len(found) > request.count:
                    break
        if len(found) > request.count or len(rows) < _CHUNK:
            break
    else:
        message = "this search reads too much of the log; narrow it by date"
        raise Unavailable(message)
    page = found[: request.count]
    following = (page[-1][0].id,) if len(found) > request.count else None
    return FhirResponse(
        200,
        bundle(
            "searchset",
            total=None,
            links=links(server, asked, following),
            entries=search_entries(
                server.base, [("AuditEvent", one.id, body) for one, body in page], "match"
            ),
        ),
        records=tuple({(one.row.record, one.row.told): None for one, _ in page if one.row.record}),
        detail=urlencode(asked.pairs),
    )


async def every(
    server: Server, visible: Visibility, auth: AuthContext, until: float
) -> AsyncIterator[list[bytes]]:
    """Yield all lines of a record up to a moment that its caller may see, newest first, by pages.

    For a person's token. ``until`` is seconds since 1970 UTC.
    """
    before: str | None = None
    high, now = int(until * 1000), int(until * 1_000_000)
    while True:
        rows = await server.log.of_record(
            auth.practice,
            visible.record,
            agent=None if auth.is_self else auth.fhir_user,
            told=True,
            low=0,
            high=high,
            before=before,
            limit=_CHUNK,
        )
        found = []
        for one in rows:
            before = one.id
            if not _may_see(one, visible, auth):
                continue
            tree = render(one, whole=_is_own(one, auth))
            if visible.any_of is not None:
                entries = extract("AuditEvent", tree)
                judge = functools.partial(
                    matches, entries=entries, id=one.id, last_updated=one.row.at * 1000, now=now
                )
                if not any(judge(criteria) for criteria in visible.any_of):
                    continue
            found.append(json.dumps(tree))
        yield found
        if len(rows) < _CHUNK:
            return


def render(logged: LoggedAccess, *, whole: bool = True) -> dict[str, Any]:
    """Return the AuditEvent of one row.

    Without ``whole`` it leaves out what was searched for: that may name other people's data.
    """
    row = logged.row
    recorded = instant(row.at * 1000)
    agents: list[dict[str, Any]] = []
    if row.agent:
        agents.append(
            {
                "type": _coding(
                    "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
                    "IRCP",
                    "information recipient",
                ),
                "who": {"reference": row.agent},
                "requestor": not row.recipient,
            }
        )
    if row.recipient:
        agents.append({"type": {"text": SHARE_LINK}, "name": row.recipient, "requestor": True})
    agents.append(
        {
            "type": _coding(_DCM, "110153", "Source Role ID"),
            "who": {"display": row.client},
            "requestor": not row.agent,
        }
    )
    entities: list[dict[str, Any]] = []
    asked = _asked(row) if row.detail and whole else ""
    if row.record:
        entities.append(
            {
                "what": {"reference": f"Patient/{row.record}"},
                "type": _code("http://terminology.hl7.org/CodeSystem/audit-entity-type", "1"),
                "role": _code("http://terminology.hl7.org/CodeSystem/object-role", "1"),
            }
        )
    if "/" in row.what and row.what != f"Patient/{row.record}":
        entities.append(
            {
                "what": {"reference": row.what},
                "type": _code("http://terminology.hl7.org/CodeSystem/audit-entity-type", "2"),
                "role": _code("http://terminology.hl7.org/CodeSystem/object-role", "4"),
            }
        )
    elif row.what and "/" not in row.what:
        entities.append(_query(asked or row.what))
    if asked and "/" in row.what:
        entities.append(_query(asked))
    tree: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": logged.id,
        "meta": {"versionId": "1", "lastUpdated": recorded},
        "type": _code("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest"),
        "subtype": _subtype(row),
        "action": _ACTIONS.get(row.interaction, "E"),
        "recorded": recorded,
        "outcome": "0" if row.status < 400 else ("4" if row.status < 500 else "8"),  # noqa: PLR2004
    }
    if row.status >= 400 and row.detail and whole:  # noqa: PLR2004
        tree["outcomeDesc"] = row.detail
    tree["agent"] = agents
    tree["source"] = {"observer": {"display": "fhir-portal"}}
    if entities:
        tree["entity"] = entities
    return tree


def _asked(row: AccessRow) -> str:
    """What was searched for, or asked of an operation by GET; ``""`` for neither."""
    if row.interaction.startswith("$"):
        is_answer = row.status < 400  # noqa: PLR2004
        return f"{row.what}/{row.interaction}?{row.detail}" if is_answer else ""
    return f"{row.what}?{row.detail}" if "/" not in row.what else ""


def _query(asked: str) -> dict[str, Any]:
    return {
        "type": _code("http://terminology.hl7.org/CodeSystem/audit-entity-type", "2"),
        "role": _code("http://terminology.hl7.org/CodeSystem/object-role", "24"),
        "query": b64encode(asked.encode()).decode(),
    }


def _subtype(row: AccessRow) -> list[dict[str, str]]:
    """The interaction, for an operation (``$code``) also which one, and the activity it was."""
    interaction = row.interaction
    found = [_code(_REST, interaction)]
    if interaction.startswith("$"):
        found = [_code(_REST, "operation"), _code(_OPERATION, interaction[1:])]
    activity = activity_of(row)
    return [*found, _code(ACTIVITY, activity)] if activity else found


def activity_of(row: AccessRow) -> str:
    """Return whether an access was a ``view``, ``download`` or ``transmit``; else ``""``.

    Pages say which it was; of an app it is told by what it fetched. What was refused is none.
    """
    if row.status >= 400:  # noqa: PLR2004
        return ""
    if row.activity:
        return row.activity
    if row.interaction in _DOWNLOADS or (
        row.what.startswith("Binary/") and row.interaction in {"read", "vread"}
    ):
        return "download"
    if row.interaction in _TRANSMITS:
        return "transmit"
    return "view" if row.interaction in _VIEWS else ""


def _may_see(logged: LoggedAccess, visible: Visibility, auth: AuthContext) -> bool:
    row = logged.row
    if row.practice not in visible.practices:
        return False
    if visible.record is None:
        return _reads_all(auth)
    return (
        row.told and row.record == visible.record and (auth.is_self or row.agent == auth.fhir_user)
    )


def _is_own(logged: LoggedAccess, auth: AuthContext) -> bool:
    return _reads_all(auth) or logged.row.agent == auth.fhir_user


def _reads_all(auth: AuthContext) -> bool:
    """Whether a caller reads the whole log of its practice: an EHR, or staff who audit."""
    return auth.context == "system" or (auth.context == "user" and auth.may("audit"))


def _one_patient(asked: Asked) -> str | None:
    """The one patient whose lines are asked for: the others need not be looked at."""
    for criterion in asked.request.criteria:
        if criterion.parameter.code == "patient" and len(criterion.values) == 1:
            value = criterion.values[0]
            if isinstance(value, ReferenceValue) and value.type in {None, "Patient"}:
                return value.id
    return None


def _bounds(asked: Asked, now: int) -> tuple[int, int]:
    """Return the first and last millisecond the date criteria leave, or more."""
    low, high = 0, 2**62
    for criterion in asked.request.criteria:
        if criterion.parameter.code not in {"date", "_lastUpdated"} or len(criterion.values) != 1:
            continue
        value = criterion.values[0]
        if not isinstance(value, DateValue):
            continue
        conditions = value.conditions(now=now)
        for bound in conditions[0] if len(conditions) == 1 else ():
            moment = int(bound.value)
            if bound.operator in {">", ">="}:
                low = max(low, moment // 1000 - 1)
            else:
                high = min(high, moment // 1000 + 1)
    return low, high


async def _around_ids(server: Server, asked: Asked, low: int, high: int) -> tuple[int, int]:
    """Narrow the bounds to the moments of the ids asked for: no need to read the whole log."""
    for criterion in asked.request.criteria:
        if criterion.parameter.code == "_id":
            wanted = [value.code for value in criterion.values if isinstance(value, Token)]
            found = [await server.log.read(one) for one in wanted if one is not None]
            moments = [one.row.at for one in found if one is not None]
            low, high = max(low, min(moments, default=1)), min(high, max(moments, default=0))
    return low, high


def _code(system: str, code: str) -> dict[str, str]:
    return {"system": system, "code": code}


def _coding(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}
