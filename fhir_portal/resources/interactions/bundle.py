"""``batch`` and ``transaction``. Source: FHIR R4 §3.1.0.11.

A batch sends each entry through the same front door as a request of its own. A transaction
prepares every entry, then applies all of them in one store transaction, or none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.bundle import bundle, response_entry
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import (
    Conflict,
    FhirError,
    Invalid,
    Issue,
    MethodNotAllowed,
    NotSupported,
    TooLarge,
    UnknownType,
)
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse, etag, interaction_at
from fhir_portal.fhir.outcome import outcome
from fhir_portal.fhir.reference import ResourceKey, attachments_in, references_in
from fhir_portal.resources.interactions.create import conditional_match, written
from fhir_portal.resources.interactions.read import key_of, read
from fhir_portal.resources.interactions.search_type import search_type
from fhir_portal.resources.interactions.vread import vread
from fhir_portal.resources.permission import permitted
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
_BREATH: Final = 50
"""Entries prepared before other requests get a turn."""
_ORDER: Final = {"delete": 0, "create": 1, "update": 2}
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
    tree = json.parse(request.body)
    if tree.get("resourceType") != "Bundle":
        message = "what is posted to the base must be a Bundle"
        raise Invalid(message, expression="resourceType")
    kind = tree.get("type")
    if kind not in {"batch", "transaction"}:
        message = "the Bundle's type must be batch or transaction"
        raise Invalid(message, expression="Bundle.type")
    raw = tree.get("entry", [])
    if not isinstance(raw, list) or not all(isinstance(entry, Mapping) for entry in raw):
        message = "Bundle.entry must be a list of objects"
        raise Invalid(message, expression="Bundle.entry")
    if len(raw) > MAX_ENTRIES:
        message = f"a Bundle may have {MAX_ENTRIES} entries at most"
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
            response = await perform(
                msgspec.structs.replace(one.request, body=body, prefer=request.prefer or "minimal"), auth
            )
        except FhirError as error:
            answers.append(_failed(error))
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
    _resolve(entries)
    for entry in entries:
        if entry.index % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
        if entry.tree is not None and entry.matched is None:
            with _Named(entry.index):
                body = json.dumps(entry.tree)
                entry.tree = parsed_tree(entry.tree, body, entry.request.type or "")
                draft(server, auth, entry.tree)
    prefer = request.prefer or "minimal"
    writes = sorted(
        (e for e in entries if e.request.interaction in _ORDER),
        key=lambda e: _ORDER[e.request.interaction],
    )

    async def work(transaction: ResourceTransaction) -> list[tuple[int, FhirResponse]]:
        await server.still(transaction, auth)
        done = []
        for entry in writes:
            with _Named(entry.index):
                response = await _apply(transaction, server, auth, entry, prefer)
            done.append((entry.index, response))
        inside = replace(server, reader=transaction)
        for entry in entries:
            if entry.request.interaction in _READS:
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


def _first(pair: tuple[int, FhirResponse]) -> int:
    return pair[0]


def _entry(index: int, entry: Mapping[str, Any]) -> _Entry:
    """Read the request of an entry.

    Raises:
        Invalid, MethodNotAllowed: it names no interaction offered inside a Bundle.
    """
    asked, resource = entry.get("request"), entry.get("resource")
    place = f"Bundle.entry[{index}]"
    if not isinstance(asked, Mapping):
        message = "every entry needs a request"
        raise Invalid(message, expression=f"{place}.request")
    method, url = asked.get("method"), asked.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        message = "a request needs a method and a url"
        raise Invalid(message, expression=f"{place}.request")
    path, _, query = url.partition("?")
    found = interaction_at(method, path)
    if found is None or found.interaction in {"bundle", "capabilities"}:
        message = "there is no such interaction in a Bundle"
        raise MethodNotAllowed(message, expression=f"{place}.request")
    if query and found.interaction != "search-type":
        message = "conditional update and delete are not offered; name the resource by its id"
        raise NotSupported(message, expression=f"{place}.request.url")
    writes = found.interaction in {"create", "update"}
    if writes != isinstance(resource, dict):
        message = "POST and PUT need a resource, GET and DELETE have none"
        raise Invalid(message, expression=f"{place}.resource")
    headers: dict[str, Any] = {
        name: asked[member] if isinstance(asked.get(member), str) else None
        for name, member in _HEADERS.items()
        if member in asked
    }
    full_url = entry.get("fullUrl")
    return _Entry(
        index,
        msgspec.structs.replace(found, query=tuple(parse_qsl(query, keep_blank_values=True)), **headers),
        full_url if isinstance(full_url, str) else None,
        resource if isinstance(resource, dict) else None,
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
    if interaction in _READS:
        return entry
    letter = _LETTERS.get(interaction)
    if letter is None or name is None:
        message = "a transaction holds reads, searches, creates, updates and deletes"
        raise NotSupported(message)
    if name not in server.served:
        message = f"{name} is not served"
        raise UnknownType(message)
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


def _resolve(entries: Sequence[_Entry]) -> None:
    """Replace references between entries by the ids these entries have, in place.

    Raises:
        Invalid: two entries with one fullUrl or one identity, or a reference to no entry.
    """
    places: dict[str, str] = {}
    keys: set[ResourceKey] = set()
    for entry in entries:
        if entry.key is None:
            continue
        if entry.key in keys and entry.matched is None:
            message = "two entries write the same resource"
            raise Invalid(message, expression=f"Bundle.entry[{entry.index}]")
        keys.add(entry.key)
        if entry.full_url is not None:
            if entry.full_url in places:
                message = "two entries have the same fullUrl"
                raise Invalid(message, expression=f"Bundle.entry[{entry.index}].fullUrl")
            places[entry.full_url] = str(entry.key)
    for entry in entries:
        if entry.tree is None:
            continue
        found = [(path, holder, "reference") for path, holder in references_in(entry.tree)]
        found += [(path, holder, "url") for path, holder in attachments_in(entry.tree)]
        for path, holder, member in found:
            text = holder[member]
            if text in places:
                holder[member] = places[text]
            elif text.startswith(("urn:uuid:", "urn:oid:")) and member == "reference":
                message = "this reference leads to no entry of the transaction"
                place = f"Bundle.entry[{entry.index}].resource.{path.partition('.')[2]}"
                raise Invalid(message, expression=place)


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
        return FhirResponse(204, version=row.version, updated=row.updated, records=row.facts.owners)
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


def _failed(error: FhirError) -> bytes:
    return response_entry(
        status=_status(error.status),
        body=b"",
        outcome=outcome(error.issues),
        location=None,
        etag=None,
        modified=None,
    )


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
