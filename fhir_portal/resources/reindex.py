"""Rows that an earlier release stored: indexed and classified as they would be if written now.

In any order: a row that is done takes its labels from its neighbours, and gives what it has to
those that are done before it, so that among the rows that are done labels always close. No version
is written; what is done is done, and an interrupted run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from fhir_portal.access.classify import binaries_of, classify, edges_of, kept_edges
from fhir_portal.access.closure import links_at
from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import UNSETTLED
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.passing_on import Surroundings, pass_on
from fhir_portal.resources.store import NewVersion, ResourceStore, ResourceTransaction, Row
from fhir_portal.search.indexer import IndexEntries, extract

AT_ONCE: Final = 200
"""Rows of one transaction: some tenths of a second, in which nobody else can write."""

Told = Callable[[int], None]
"""Called with the number of rows done so far."""


async def reindex(store: ResourceStore, *, told: Told = lambda _: None) -> int:
    """Index every row of another `INDEX_VERSION` anew; return how many there were."""
    done = 0
    while keys := await store.stale_keys(AT_ONCE):
        await store.transact(partial(_reindexed, keys=keys))
        done += len(keys)
        told(done)
    return done


async def _reindexed(
    transaction: ResourceTransaction, *, keys: Sequence[tuple[str, ResourceKey]]
) -> None:
    for practice, key in keys:
        row = await transaction.read(key, Visibility.of_server(key.type, practice=practice))
        if row is None:
            continue
        if row.deleted:
            edges = await _edges_it_left(transaction, row)
            await transaction.reindex(NewVersion(row, IndexEntries(), edges))
            continue
        tree = json.parse(row.body)
        around = Surroundings(transaction, unbounded=True)  # a server must come to serve
        links = links_at(tree)
        facts = await classify(tree, practice, around, links=links)
        now = Row(facts, row.version, row.updated, row.method, row.body)
        await transaction.reindex(NewVersion(now, extract(key.type, tree), edges_of(tree, links)))
        # What a job is at stays with it.
        held = row.facts.visibility_class.labels & UNSETTLED
        binaries = binaries_of(tree, links)
        await pass_on(around, facts, tree, old={}, held=held, binaries=binaries)


async def _edges_it_left(transaction: ResourceTransaction, row: Row) -> tuple[str, ...]:
    visible = Visibility.of_server(row.key.type, practice=row.facts.practice)
    living = await transaction.vread(row.key, row.version - 1, visible)
    return kept_edges(json.parse(living.body)) if living is not None and living.body else ()
