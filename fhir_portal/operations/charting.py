"""Reading a record for a document: each type by a search of its own, under the caller's rights.

What a document holds is what these searches return. A type that the token may not search is as if
nothing of it were stored; no document is made from more than its reader could have searched for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.owners import local_target
from fhir_portal.accounts.practice import Practice
from fhir_portal.documents.chart import CHART_TYPES, NAMED_TYPES, Chart, is_within, ordered
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_in, period_of
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.reference import ResourceKey, links_in
from fhir_portal.operations.call import Call
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.permission import checked, permitted_or_none
from fhir_portal.resources.store import Row
from fhir_portal.search.request import parse_search

PAGE: Final = 500
MOST: Final = 5_000
"""Resources of one type that a document is made from at most."""
_MANY: Final = 200
"""So many are read from their JSON at once; more of them in a thread."""


async def chart_of(
    call: Call,
    patient: str,
    *,
    start: str | None = None,
    end: str | None = None,
    latest: bool = False,
) -> tuple[Chart, list[Row]]:
    """Return a record as the caller may see it, and the rows that the access log names.

    ``start`` and ``end`` bound the time (FHIR dateTime); days are the practice's. With ``latest``
    the latest `MOST` measurements are enough, where there are more.

    Raises:
        NotFound: the Patient is absent, or hidden; the same words.
        Unprocessable: the times are none, or there is too much for one document.
    """
    _check(start, "start")
    _check(end, "end")
    practice = await call.server.store.get(Practice, call.auth.practice)
    zone = practice.zone if practice is not None else "UTC"
    there = ZoneInfo(zone)
    if start and end and period_in(start, there)[0] > period_in(end, there)[1]:
        message = "the time ends before it starts"
        raise Unprocessable(message, expression="Parameters.parameter")
    subject, rows = await _subject(call, patient)
    resources: dict[str, Sequence[dict[str, Any]]] = {}
    for name in CHART_TYPES:
        cut = latest and name == "Observation"
        pairs = [("_sort", "-date")] if cut else []
        found = await _parsed(await of_record(call, name, patient, pairs, cut=cut))
        within = [tree for tree in found if is_within(tree, start, end, there)]
        if within:
            resources[name] = ordered(within)
    directory = await _directory(call, resources, practice)
    own = practice.organization if practice is not None else None
    return Chart(
        base=call.server.base,
        patient=subject,
        resources=resources,
        directory=directory,
        practice=practice.name if practice is not None else call.auth.practice,
        zone=zone,
        organization=directory.get(own or ""),
        made=call.server.clock(),
        start=start,
        end=end,
    ), rows


async def subject_row(call: Call, patient: str) -> Row | None:
    """Return the Patient of a record; ``None`` for who sees the record but not this of it.

    Raises:
        NotFound: absent, or hidden, or the record of another than the token is for.
    """
    key = ResourceKey("Patient", patient)
    visible = call.visible
    if visible.resource_type != "Patient":
        found = permitted_or_none(call.server, call.auth, "r", "Patient")
        if found is None:
            raise unknown(key)
        visible = found.own()
    row = await call.server.reader.read(key, visible)
    if row is not None and not row.deleted:
        checked([row], visible)
        return row
    record = call.auth.record
    if record is None or record.patient != str(key):
        raise unknown(key)
    if record.is_own and record.sections is None:
        raise unknown(key)
    return None


async def _subject(call: Call, patient: str) -> tuple[dict[str, Any], list[Row]]:
    row = await subject_row(call, patient)
    if row is None:
        return {"resourceType": "Patient", "id": patient}, []
    return json.parse(row.body), [row]


async def of_record(
    call: Call,
    name: str,
    patient: str,
    pairs: Sequence[tuple[str, str]] = (),
    *,
    cut: bool = False,
) -> list[Row]:
    """Return what the caller may search of a type in one record: that is part of the query.

    ``pairs`` narrow the search further; ``cut`` says to stop where there is too much.

    Raises:
        Unprocessable: there is too much for one answer.
        InvalidSearch: for what is no search.
    """
    found = permitted_or_none(call.server, call.auth, "s", name)
    if found is None:
        return []
    if found.record not in {None, patient}:
        raise unknown(ResourceKey("Patient", patient))
    visible = replace(found.own(), record=patient)
    asked = parse_search(name, pairs, base=call.server.base)
    request = replace(asked, count=PAGE)
    rows: list[Row] = []
    after: Sequence[Any] | None = None
    while True:
        page = await call.server.reader.search(request, visible, after=after)
        rows += checked(page.rows, visible)
        if cut and len(rows) >= MOST:
            return rows[:MOST]
        if len(rows) > MOST:
            message = f"there are more than {MOST} of one type: ask for a shorter time"
            raise Unprocessable(message, expression="Parameters.parameter")
        if page.next is None:
            return rows
        after = page.next


async def _parsed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        return [json.parse(row.body) for row in rows]

    return await asyncio.to_thread(read) if len(rows) > _MANY else read()


async def _directory(
    call: Call, resources: dict[str, Sequence[dict[str, Any]]], practice: Practice | None
) -> dict[str, dict[str, Any]]:
    """Return what the resources refer to by name, as far as the caller may read it."""
    wanted: dict[str, set[ResourceKey]] = {}
    own = local_target((practice.organization if practice else None) or "")
    for key in (*_referred(resources), *([own] if own else ())):
        if key.type in NAMED_TYPES:
            wanted.setdefault(key.type, set()).add(key)
    found = {}
    for name, keys in wanted.items():
        visible = permitted_or_none(call.server, call.auth, "r", name)
        if visible is None:
            continue
        rows = await call.server.reader.read_many(sorted(keys, key=str), visible)
        for row in checked(rows, visible):
            found[str(row.key)] = json.parse(row.body)
    return found


def _referred(resources: dict[str, Sequence[dict[str, Any]]]) -> Iterator[ResourceKey]:
    for trees in resources.values():
        for tree in trees:
            for holder, member in links_in(tree):
                key = local_target(holder[member]) if member == "reference" else None
                if key is not None:
                    yield key


def _check(text: str | None, name: str) -> None:
    try:
        if text is not None:
            period_of(text)
    except ValueError:
        message = f"{name} is a FHIR dateTime"
        raise Unprocessable(message, expression="Parameters.parameter") from None
