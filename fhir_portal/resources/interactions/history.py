"""``history-instance`` and ``history-system``, the feed that EHRs follow. Source: R4 §3.1.0.12.

Newest first. A follower repeats ``_since`` with the latest ``lastUpdated`` it has (inclusive, so
the last instant comes again) and misses nothing: no version appears later with an older instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.bundle import bundle, history_entry
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Forbidden, Invalid, InvalidSearch
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse, etag
from fhir_portal.resources.interactions.read import key_of, unknown
from fhir_portal.resources.permission import checked, permitted, permitted_or_none
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import HistoryPage, Row

DEFAULT_COUNT: Final = 50
MAX_COUNT: Final = 500


async def history_instance(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Return the versions of one resource that the caller may see."""
    key = key_of(request)
    visible = permitted(server, auth, "r", key.type)
    path = f"{key}/_history"
    asked = _parameters(server, request, path, since=False)
    page = await server.reader.history(key, visible, count=asked.count, after=asked.after)
    if not page.rows and asked.after is None:
        raise unknown(key)
    checked(page.rows, visible)
    return _answer(server, path, asked, page)


async def history_system(server: Server, request: FhirRequest, auth: AuthContext) -> FhirResponse:
    """Return what changed, over all types the caller may search."""
    visible = {
        name: one
        for name in served_types()
        if (one := permitted_or_none(server, auth, "s", name)) is not None
    }
    visible.pop("AuditEvent", None)  # not stored as versions: the log itself is its history
    if not visible:
        message = "no scope grants s on any type"
        raise Forbidden(message)
    asked = _parameters(server, request, "_history", since=True)
    page = await server.reader.feed(
        visible, since=asked.since, count=asked.count, after=asked.after
    )
    for row in page.rows:
        checked([row], visible[row.facts.resource_type])
    return _answer(server, "_history", asked, page)


class _Asked:
    __slots__ = ("after", "count", "pairs", "since")

    def __init__(self, pairs: Sequence[tuple[str, str]], after: list[Any] | None) -> None:
        self.pairs, self.after = list(pairs), after
        self.since: int | None = None
        self.count = DEFAULT_COUNT


def _parameters(server: Server, request: FhirRequest, path: str, *, since: bool) -> _Asked:
    pairs: Sequence[tuple[str, str]] = request.query
    after = None
    if any(name == "_page" for name, _ in pairs):
        if len(pairs) != 1:
            message = "a paging link is used as it is"
            raise Invalid(message)
        pairs, after = server.pages.open(pairs[0][1], path)
    asked = _Asked(pairs, after)
    seen = set()
    for name, value in pairs:
        if name in seen:
            message = f"{name} is given twice"
            raise InvalidSearch(message)
        seen.add(name)
        if name == "_count":
            digits = value.lstrip("0")
            if not (value.isascii() and value.isdigit() and digits):
                message = "_count must be a whole number from 1 on"
                raise InvalidSearch(message)
            asked.count = MAX_COUNT if len(digits) > len(str(MAX_COUNT)) else int(digits)
            asked.count = min(asked.count, MAX_COUNT)
        elif name == "_since" and since:
            try:
                asked.since = period_of(value)[0] // 1000
            except (Invalid, ValueError):
                message = "_since must be an instant such as 2026-01-31T08:00:00Z"
                raise InvalidSearch(message) from None
        else:
            message = f"{name} is not supported here"
            raise InvalidSearch(message)
    return asked


def _answer(server: Server, path: str, asked: _Asked, page: HistoryPage) -> FhirResponse:
    from urllib.parse import urlencode  # noqa: PLC0415

    query = urlencode(asked.pairs)
    links = [("self", server.url(f"{path}?{query}" if query else path))]
    if page.next is not None:
        sealed = server.pages.seal(asked.pairs, page.next, path)
        links.append(("next", server.url(f"{path}?_page={sealed}")))
    records = {one: None for row in page.rows for one in row.facts.touched}
    return FhirResponse(
        200,
        bundle(
            "history",
            total=page.total,
            links=links,
            entries=[_entry(server, row) for row in page.rows],
        ),
        records=tuple(records),
        detail=query,
    )


def _entry(server: Server, row: Row) -> bytes:
    key = str(row.key)
    created = row.method == "POST" or row.version == 1
    status = "204 No Content" if row.deleted else ("201 Created" if created else "200 OK")
    return history_entry(
        server.url(key),
        row.body,
        method=row.method,
        url=row.facts.resource_type if row.method == "POST" else key,
        status=status,
        etag=etag(row.version),
        modified=instant(row.updated * 1000),
    )
