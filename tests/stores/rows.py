"""Rows put into a store as they are, without the front door: facts are the test's choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from fhir_portal.access.visibility import RowFacts, Visibility, VisibilityClass
from fhir_portal.consent.labels import SELF_LABELS
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey, references_in
from fhir_portal.resources.store import NewVersion, Row
from fhir_portal.search.indexer import IndexEntries, extract
from fhir_portal.search.request import SearchRequest, parse_search
from tests.builders import BASE, DERM, Json

OPEN = SELF_LABELS
KEY = ResourceKey.parse


def a_row(
    tree: Json,
    *,
    version: int = 1,
    updated: int = 1_000,
    practice: str = DERM,
    owners: Sequence[str] = ("ada",),
    sections: Iterable[str] = ("results",),
    labels: Iterable[str] = (),
    directory: bool = False,
    deleted: bool = False,
) -> NewVersion:
    facts = RowFacts(
        tree["resourceType"],
        tree["id"],
        practice,
        tuple(owners),
        VisibilityClass(frozenset(sections), frozenset(labels)),
        directory,
    )
    body = b"" if deleted else json.dumps(tree)
    row = Row(facts, version, updated, "DELETE" if deleted else "PUT", body)
    entries = IndexEntries() if deleted else extract(tree["resourceType"], tree)
    edges = () if deleted else tuple(h["reference"] for _, h in references_in(tree))
    return NewVersion(row, entries, edges)


async def write(store: Any, *rows: NewVersion) -> None:
    async def work(transaction: Any) -> None:
        for row in rows:
            await transaction.write(row)

    await store.transact(work)


def of_record(
    name: str = "Observation",
    *,
    practice: str = DERM,
    record: str = "ada",
    sections: Iterable[str] | None = None,
    labels: Iterable[str] = OPEN,
    **more: Any,
) -> Visibility:
    return Visibility.of_record(
        name,
        practice=practice,
        record=record,
        sections=None if sections is None else frozenset(sections),
        labels=frozenset(labels),
        **more,
    )


def of_practice(name: str = "Observation", practice: str = DERM) -> Visibility:
    return Visibility.of_practice(name, practice=practice, labels=None)


def asked(query: str, name: str = "Observation") -> SearchRequest:
    return parse_search(name, parse_qsl(query, keep_blank_values=True), base=BASE)


async def found(store: Any, query: str, visible: Visibility) -> list[str]:
    page = await store.search(asked(query, visible.resource_type), visible)
    return [row.facts.id for row in page.rows]


async def walked(store: Any, query: str, visible: Visibility) -> list[str]:
    """Ids on all pages, in order."""
    ids: list[str] = []
    after = None
    while True:
        page = await store.search(asked(query, visible.resource_type), visible, after=after)
        ids += [row.facts.id for row in page.rows]
        if page.next is None:
            return ids
        after = page.next
