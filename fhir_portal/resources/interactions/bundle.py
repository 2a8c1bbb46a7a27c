"""``batch`` and ``transaction``. Source: FHIR R4 §3.1.0.11.

A batch sends each entry through the same front door as a request of its own. A transaction
prepares every entry, then applies all of them in one store transaction, or none.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import DIRECTORY, WITHOUT_OWNER
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.bundle import bundle, response_entry
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.definitions import structures
from fhir_portal.fhir.errors import (
    Conflict,
    FhirError,
    Invalid,
    Issue,
    NotSupported,
    PreconditionFailed,
    TooLarge,
    UnknownType,
)
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse, etag, interaction_at
from fhir_portal.fhir.outcome import outcome
from fhir_portal.fhir.reference import ResourceKey, attachments_in, references_in
from fhir_portal.resources.files import scanned
from fhir_portal.resources.interactions.create import conditional_match, pairs_of, written
from fhir_portal.resources.interactions.read import key_of, read
from fhir_portal.resources.interactions.search_type import search_type
from fhir_portal.resources.interactions.vread import vread
from fhir_portal.resources.opening import expect
from fhir_portal.resources.permission import permitted
from fhir_portal.resources.reservation import lift, require_none_lifted
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import (
    Written,
    create_in,
    delete_in,
    draft,
    parsed_tree,
    update_in,
)

Perform = Callable[[FhirRequest, AuthContext], Awaitable[FhirResponse]]

MAX_ENTRIES: Final = 5000
MAX_PERSONS_ENTRIES: Final = 100
MAX_PERSONS_BYTES: Final = 1024 * 1024
MAX_READS: Final = 50
"""Reads and searches in one transaction: they run while nobody else can write."""
_BREATH: Final = 50
"""Entries prepared before other requests get a turn."""
_ORDER: Final = {"delete": 0, "create": 1, "update": 2}
_NOBODYS: Final = DIRECTORY | WITHOUT_OWNER
_READS: Final = {"read": read, "vread": vread, "search-type": search_type}


@dataclass(slots=True)
class _Entry:
    """One entry on its way: its request, its resource, and what was decided about it."""

    index: int
    request: FhirRequest
    full_url: str | None
    tree: dict[str, Any] | None
    key: ResourceKey | None = None
    visible: Visibility | None = None
    readable: Visibility | None = None
    matched: ResourceKey | None = None


async def bundle_interaction(
    server: Server, request: FhirRequest, auth: AuthContext, perform: Perform
) -> FhirResponse:
    """Carry out a Bundle posted to the base."""
    limit = MAX_PERSONS_BYTES if auth.context != "system" else len(request.body)
    if len(request.body) > limit:
        message = f"a Bundle under this token may have {limit} bytes at most"
        raise TooLarge(message)
    tree = json.parse(request.body)
    if tree.get("resourceType") != "Bundle":
        message = "what is posted to the base must be a Bundle"
        raise Invalid(message, expression="resourceType")
    kind = tree.get("type")
    if kind not in ("batch", "transaction"):  # a tuple: what was sent may not be hashable
        message = "the Bundle's type must be batch or transaction"
        raise Invalid(message, expression="Bundle.type")
    _known(tree, "Bundle", "Bundle")
    raw = tree.get("entry", [])
    if not isinstance(raw, list) or not all(isinstance(entry, Mapping) for entry in raw):
        message = "Bundle.entry must be a list of objects"
        raise Invalid(message, expression="Bundle.entry")
    most = MAX_ENTRIES if auth.context == "system" else MAX_PERSONS_ENTRIES
    if len(raw) > most:
        message = f"a Bundle under this token may have {most} entries at most"
        raise TooLarge(message)
    if kind == "batch":
        return await _batch(raw, request, auth, perform)
    return await _transaction(server, raw, request, auth)


async def _batch(
    raw: Sequence[Mapping[str, Any]], request: FhirRequest, auth: AuthContext, perform: Perform
) -> FhirResponse:
    answers: list[bytes] = []
    for index, entry in enumerate(raw):
        try:
            one = _entry(index, entry)
            body = json.dumps(one.tree) if one.tree is not None else b""
            asked = msgspec.structs.replace(
                one.request, body=body, prefer=request.prefer or "minimal"
            )
            response = await perform(asked, auth)
        except FhirError as error:
            answers.append(_failed(error.status, error.issues))
        except Exception:  # noqa: BLE001 - `perform` logged it; other entries were carried out
            answers.append(_failed(500, [_FAULT]))
        else:
            answers.append(_succeeded(response))
    return FhirResponse(200, bundle("batch-response", total=None, links=(), entries=answers))


async def _transaction(
    server: Server, raw: Sequence[Mapping[str, Any]], request: FhirRequest, auth: AuthContext
) -> FhirResponse:
    entries = []
    for index, one in enumerate(raw):
        with _Named(index):
            entries.append(await _placed(server, auth, _entry(index, one)))
    await _resolve(server, auth, entries)
    for entry in entries:
        if entry.index % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
        if entry.tree is not None and entry.matched is None:
            with _Named(entry.index):
                body = json.dumps(entry.tree)
                entry.tree = await parsed_tree(entry.tree, body, entry.request.type or "")
                draft(server, auth, entry.tree)
                await scanned(server.files, auth, entry.tree)
    reads = [e for e in entries if e.request.interaction in _READS]
    if len(reads) > MAX_READS or any(e.request.type == "AuditEvent" for e in reads):
        message = f"a transaction holds {MAX_READS} reads at most, none of AuditEvent; use a batch"
        raise NotSupported(message)
    prefer = request.prefer or "minimal"
    writes = sorted(
        (e for e in entries if e.request.interaction in _ORDER),
        key=_place,
    )

    async def work(transaction: ResourceTransaction) -> list[tuple[int, FhirResponse]]:
        await server.still(transaction, auth)
        done = []
        moving = [
            entry.key.id
            for entry in writes
            if entry.key is not None and entry.key.type == "Appointment" and entry.matched is None
        ]
        for own_id in moving:
            # The order of a transaction means nothing (FHIR R4 §3.1.0.11.2): two appointments
            # may change places, and a new one take the time of one that is cancelled with it.
            await lift(transaction, auth.practice, own_id)
        expect(transaction, [e.key for e in writes if e.key is not None and e.matched is None])
        for entry in writes:
            with _Named(entry.index):
                response = await _apply(transaction, server, auth, entry, prefer)
            done.append((entry.index, response))
        await require_none_lifted(transaction, auth.practice, moving)
        inside = replace(server, reader=transaction)
        for entry in reads:
            with _Named(entry.index):
                response = await _READS[entry.request.interaction](inside, entry.request, auth)
            done.append((entry.index, response))
        return done

    answers = [response for _, response in sorted(await server.store.transact(work), key=_first)]
    return FhirResponse(
        200,
        bundle("transaction-response", total=None, links=(), entries=map(_succeeded, answers)),
        parts=[(e.request, a) for e, a in zip(entries, answers, strict=True)],
    )


def _place(entry: _Entry) -> tuple[bool, int]:
    """Where a write stands: what is nobody's record comes before what needs it.

    Whose time an Appointment takes is a matter of Schedules, Slots, roles and Locations.
    """
    is_deletion = entry.request.interaction == "delete"
    later = not is_deletion and entry.request.type not in _NOBODYS
    return later, _ORDER[entry.request.interaction]


def _first(pair: tuple[int, FhirResponse]) -> int:
    return pair[0]


def _entry(index: int, entry: Mapping[str, Any]) -> _Entry:
    """Read the request of an entry.

    Raises:
        Invalid, NotSupported: it names no interaction offered inside a Bundle, or says something
            that would be ignored.
    """
    asked, resource = entry.get("request"), entry.get("resource")
    place = f"Bundle.entry[{index}]"
    _known(entry, "Bundle.entry", place)
    if not isinstance(asked, Mapping):
        message = "every entry needs a request"
        raise Invalid(message, expression=f"{place}.request")
    _known(asked, "Bundle.entry.request", f"{place}.request")
    method, url = asked.get("method"), asked.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        message = "a request needs a method and a url"
        raise Invalid(message, expression=f"{place}.request")
    path, _, query = url.partition("?")
    found = interaction_at(method, path)
    if found is None or (method, found.interaction) in _NOT_IN_BUNDLES:
        message = "there is no such interaction in a Bundle"
        if query and method in {"PUT", "PATCH", "DELETE"}:
            message = "conditional update and delete are not offered; name the resource by its id"
        raise NotSupported(message, expression=f"{place}.request")
    if query and found.interaction not in _QUERIED and not found.is_get:
        message = "this request takes no parameters"
        raise NotSupported(message, expression=f"{place}.request.url")
    if "resource" in entry and not isinstance(resource, dict):
        message = "a resource is an object"
        raise Invalid(message, expression=f"{place}.resource")
    writes = found.interaction in {"create", "update"}
    if found.operation is not None and not found.is_get:
        writes = resource is not None  # Parameters, or nothing
    if writes != (resource is not None):
        message = "POST and PUT need a resource, GET and DELETE have none"
        raise Invalid(message, expression=f"{place}.resource")
    full_url = entry.get("fullUrl")
    if "fullUrl" in entry and not (isinstance(full_url, str) and _FULL_URL.fullmatch(full_url)):
        message = "fullUrl is an absolute URL or a urn:uuid:, without a version"
        raise Invalid(message, expression=f"{place}.fullUrl")
    return _Entry(
        index,
        msgspec.structs.replace(found, query=tuple(pairs_of(query)), **_conditions(asked, place)),
        full_url,
        resource,
    )


def _known(holder: Mapping[str, Any], of: str, place: str) -> None:
    """Refuse members that FHIR does not have here: a misspelt ``ifMatch`` must not be ignored."""
    for name in holder:
        if name.removeprefix("_") not in structures()[of] and name != "resourceType":
            where = f"{place}.{name}" if name.isidentifier() else place
            raise Invalid(issues=[Issue("structure", "No such element here.", where)])


def _conditions(asked: Mapping[str, Any], place: str) -> dict[str, str]:
    """Return the conditions of an entry's request as the headers they stand for.

    Raises:
        Invalid: one is not text, or ``ifModifiedSince`` is no instant.
    """
    found: dict[str, str] = {}
    for name, member in _HEADERS.items():
        if member not in asked:
            continue
        text = asked[member]
        try:
            if name == "if_modified_since":
                text = formatdate(period_of(text)[0] // 1_000_000, usegmt=True)
        except (TypeError, ValueError):
            text = None
        if not isinstance(text, str):
            message = "this is not a condition"
            raise Invalid(message, expression=f"{place}.request.{member}")
        found[name] = text
    return found


_FULL_URL: Final = re.compile(r"(?:https?://|urn:)(?!\S*/_history/)\S+")
_QUERIED: Final = frozenset({"search-type", "history-instance", "history-system"})
_NOT_IN_BUNDLES: Final = frozenset(
    {("POST", "bundle"), ("GET", "capabilities"), ("POST", "search-type")}
)
_HEADERS: Final = {
    "if_match": "ifMatch",
    "if_none_match": "ifNoneMatch",
    "if_none_exist": "ifNoneExist",
    "if_modified_since": "ifModifiedSince",
}
_LETTERS: Final = {"create": "c", "update": "u", "delete": "d"}


async def _placed(server: Server, auth: AuthContext, entry: _Entry) -> _Entry:
    """Decide on an entry and give its resource an id."""
    interaction, name = entry.request.interaction, entry.request.type
    letter = _LETTERS.get(interaction)
    if name is None or (letter is None and interaction not in _READS):
        message = "a transaction holds reads, searches, creates, updates and deletes"
        raise NotSupported(message)
    if name not in server.served:
        message = "there is no such resource type here"
        raise UnknownType(message)
    if letter is None:
        return entry
    entry.visible = permitted(server, auth, letter, name)
    if interaction != "create":
        entry.key = key_of(entry.request)
        if entry.tree is not None and entry.tree.get("id") != entry.key.id:
            message = "the id in the resource must be the one in request.url"
            raise Invalid(message, expression="id")
        return entry
    if entry.request.if_none_exist is not None:
        entry.readable = permitted(server, auth, "s", name)
        found = await conditional_match(
            server, server.reader, name, entry.request.if_none_exist, entry.readable
        )
        entry.matched = found.key if found else None
    entry.key = entry.matched or ResourceKey(name, server.new_id())
    return entry


async def _resolve(server: Server, auth: AuthContext, entries: Sequence[_Entry]) -> None:
    """Replace references between entries by the ids these entries have, in place.

    So are conditional references (``Patient?identifier=…``), by what the writer can see.

    Raises:
        Invalid: two entries with one fullUrl or one identity, or a reference to no entry.
        PreconditionFailed: a conditional reference does not lead to exactly one resource.
    """
    places: dict[str, str] = {}
    keys: set[ResourceKey] = set()
    for entry in entries:
        if entry.key is None:
            continue
        if entry.matched is None:
            if entry.key in keys:
                message = "two entries write the same resource"
                raise Invalid(message, expression=f"Bundle.entry[{entry.index}]")
            keys.add(entry.key)
        if entry.full_url is not None:
            if entry.full_url in places:
                message = "two entries have the same fullUrl"
                raise Invalid(message, expression=f"Bundle.entry[{entry.index}].fullUrl")
            places[entry.full_url] = str(entry.key)
    for entry in entries:
        if entry.tree is None or entry.matched is not None:
            continue
        base = _base_of(entry.full_url)
        found = [(path, holder, "reference") for path, holder in references_in(entry.tree)]
        found += [(path, holder, "url") for path, holder in attachments_in(entry.tree)]
        for path, holder, member in found:
            text = holder[member]
            place = f"Bundle.entry[{entry.index}].resource.{path.partition('.')[2]}"
            if text in places:
                holder[member] = places[text]
            elif base and f"{base}{text}" in places:
                holder[member] = places[f"{base}{text}"]
            elif member == "url":
                continue
            elif text.startswith(("urn:uuid:", "urn:oid:")):
                message = "this reference leads to no entry of the transaction"
                raise Invalid(message, expression=place)
            elif match := _CONDITIONAL.fullmatch(text):
                holder[member] = await _sought(server, auth, match[1], match[2], place)


def _base_of(full_url: str | None) -> str:
    """Return what a ``Type/id`` inside a resource is relative to (FHIR R4 §2.36.4.1)."""
    match = _RESTFUL.fullmatch(full_url or "")
    return match[1] if match else ""


async def _sought(server: Server, auth: AuthContext, name: str, query: str, place: str) -> str:
    """Return ``Type/id`` of the one resource a conditional reference leads to."""
    if name not in server.served:
        message = "there is no such resource type here"
        raise UnknownType(message, expression=place)
    try:
        visible = permitted(server, auth, "s", name)
        row = await conditional_match(server, server.reader, name, query, visible)
    except FhirError as error:
        raise type(error)(str(error), expression=place) from None
    if row is None:
        message = "this conditional reference leads to nothing"
        raise PreconditionFailed(message, expression=place)
    return str(row.key)


_RESTFUL: Final = re.compile(r"(https?://\S+/)[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}")
_CONDITIONAL: Final = re.compile(r"([A-Z][A-Za-z]+)\?(\S+)")


async def _apply(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    entry: _Entry,
    prefer: Any,
) -> FhirResponse:
    assert entry.visible is not None  # noqa: S101 - _placed set both
    assert entry.key is not None  # noqa: S101
    asked = msgspec.structs.replace(entry.request, prefer=prefer)
    if entry.request.interaction == "delete":
        row = await delete_in(
            transaction,
            server,
            auth,
            entry.visible,
            key=entry.key,
            if_match=entry.request.if_match,
        )
        return FhirResponse(
            204, version=row.version, updated=row.updated, records=row.facts.touched
        )
    if entry.request.interaction == "update":
        result = await update_in(
            transaction,
            server,
            auth,
            dict(entry.tree or {}),
            entry.visible,
            key=entry.key,
            if_match=entry.request.if_match,
            if_none_match=entry.request.if_none_match,
        )
        return written(server, asked, result)
    if entry.readable is not None:
        found = await _still_matched(transaction, server, entry)
        if found is not None:
            return written(server, asked, Written(found, created=False))
    result = await create_in(
        transaction,
        server,
        auth,
        dict(entry.tree or {}),
        entry.visible,
        resource_id=entry.key.id,
    )
    return written(server, asked, result)


async def _still_matched(
    transaction: ResourceTransaction, server: Server, entry: _Entry
) -> Row | None:
    """Look once more for the conditional match: other entries refer to what was found before."""
    assert entry.readable is not None  # noqa: S101 - the caller looked
    found = await conditional_match(
        server,
        transaction,
        entry.request.type or "",
        entry.request.if_none_exist or "",
        entry.readable,
    )
    if (found.key if found else None) != entry.matched:
        message = "what If-None-Exist matches changed at the same time; send the transaction again"
        raise Conflict(message)
    return found


class _Named:
    """Says in a refusal which entry it is about."""

    def __init__(self, index: int) -> None:
        self._place = f"Bundle.entry[{index}]"

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, FhirError):
            error.issues = tuple(
                issue
                if (issue.expression or "").startswith("Bundle.entry[")
                else replace(issue, expression=self._expression(issue))
                for issue in error.issues
            )

    def _expression(self, issue: Issue) -> str:
        inner = issue.expression
        if not inner:
            return self._place
        _, dot, rest = inner.partition(".")
        return f"{self._place}.resource.{rest if dot else inner}"


def _succeeded(response: FhirResponse) -> bytes:
    return response_entry(
        status=_status(response.status),
        body=response.body if response.status < 300 else b"",  # noqa: PLR2004
        outcome=b"",
        location=response.location,
        etag=None if response.version is None else etag(response.version),
        modified=None if response.updated is None else instant(response.updated * 1000),
    )


_FAULT: Final = Issue("exception", "Something went wrong on our side.", None, "fatal", "fault")


def _failed(status: int, issues: Sequence[Issue]) -> bytes:
    return response_entry(
        status=_status(status),
        body=b"",
        outcome=outcome(issues),
        location=None,
        etag=None,
        modified=None,
    )


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
