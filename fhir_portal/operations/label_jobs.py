"""Rules of labels and of release: set in one transaction, carried out on what is stored by jobs.

From the transaction that sets a rule on, everything written is labelled by it, and as long as what
is stored is not, nobody but staff and EHRs sees anything of the practice's records: a rule hides at
once. Rules that were taken away show what they hid when the job is through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.label_rules import LabelRules, Relabelling, label_rules_of
from fhir_portal.fhir import json
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.passing_on import relabel
from fhir_portal.resources.release import RELEASE_JOB, Release, after_rules, release_key
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.search.request import SearchRequest

RELABEL_JOB: Final = "relabel"
PAGE: Final = 500
_ALL: Final = 1_000_000
AT_ONCE: Final = 50
"""Rows whose own labels change in one transaction; what follows from them goes with them."""


async def set_rules(
    transaction: RecordTransaction, *, wanted: LabelRules, now: float
) -> LabelRules:
    """Set a practice's rules in place of those it has; return them as they stand."""
    before = await label_rules_of(transaction, wanted.key)
    rules = msgspec.structs.replace(wanted, holds=before.holds, change=before.change + 1)
    await transaction.put(rules)
    pending = await transaction.get(Relabelling, wanted.key)
    former = before.labels if pending is None else (*pending.before, *before.labels)
    hides = set(rules.labels) - set(before.labels) or (pending is not None and pending.hides)
    await transaction.put(
        Relabelling(
            key=rules.key,
            before=tuple(dict.fromkeys(former)),
            hides=bool(hides),
            change=rules.change,
        )
    )
    await jobs.enqueue(
        transaction,
        key=f"{RELABEL_JOB}/{rules.key}/{rules.change}",
        practice=rules.key,
        name=RELABEL_JOB,
        now=now,
    )
    return rules


def label_jobs(server: Server) -> Mapping[str, Work]:
    """Return the functions of these jobs by their names."""

    async def relabelled(held: Lease[Job]) -> None:
        await relabel_practice(server, held.work.practice)

    async def released(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await release_due(transaction, server, job.practice, job.arguments["what"])

        await server.store.transact(work)

    return {RELABEL_JOB: relabelled, RELEASE_JOB: released}


async def relabel_practice(server: Server, practice: str) -> int:
    """Label what a practice has stored as its rules say now; return how many rows differed."""
    marker = await server.store.get(Relabelling, practice)
    if marker is None:
        return 0
    rules = await label_rules_of(server.store, practice)
    former = LabelRules(key=practice, labels=marker.before)
    concerned = 0
    for name in _types(rules, former):
        async for page in _pages(server, practice, name):
            found = iter([row.key for row in page if _differs(row, rules, former)])
            while keys := list(islice(found, AT_ONCE)):
                concerned += len(keys)
                await _relabelled(server, practice, keys)
    await _release_without_rule(server, practice)

    async def done(transaction: RecordTransaction) -> None:
        now = await transaction.get(Relabelling, practice)
        if now is not None and now.change == rules.change:
            await transaction.delete(Relabelling, practice)

    await server.store.transact(done)
    return concerned


async def _relabelled(server: Server, practice: str, keys: Sequence[ResourceKey]) -> None:
    """Label rows in as many transactions as it takes; of one alone however much depends on it.

    To refuse it would tell nobody, and leave the practice's patients without their records.
    """
    alone = len(keys) == 1
    try:
        await server.store.transact(partial(relabel, practice=practice, keys=keys, unbounded=alone))
    except Unprocessable:
        half = len(keys) // 2
        await _relabelled(server, practice, keys[:half])
        await _relabelled(server, practice, keys[half:])


async def release_due(
    transaction: ResourceTransaction, server: Server, practice: str, what: str
) -> None:
    """Release a result whose time has come; one that has another time now waits on."""
    now = server.clock()
    found = await transaction.get(Release, release_key(practice, ResourceKey.parse(what)))
    if found is None or found.state != "waits" or found.due is None or found.due > now:
        return
    await transaction.put(msgspec.structs.replace(found, state="released", at=now, withheld=None))
    await relabel(transaction, practice, [ResourceKey.parse(what)], unbounded=True)


def _types(rules: LabelRules, former: LabelRules) -> list[str]:
    """Return the types whose labels may differ between two sets of rules."""
    changed = set(rules.labels) ^ set(former.labels)
    if any(not rule.types for rule in changed):
        return sorted(served_types())
    return sorted({name for rule in changed for name in rule.types})


def _differs(row: Row, rules: LabelRules, former: LabelRules) -> bool:
    tree = json.parse(row.body)
    was, now = former.of(tree), rules.of(tree)
    return bool(was - now or now - row.facts.visibility_class.labels)


async def _pages(server: Server, practice: str, name: str) -> AsyncIterator[Iterable[Row]]:
    after = None
    visible = Visibility.of_server(name, practice=practice)
    while True:
        page = await server.store.search(SearchRequest(name, count=PAGE), visible, after=after)
        yield page.rows
        after = page.next
        if after is None:
            return


async def _release_without_rule(server: Server, practice: str) -> None:
    """Release what waits by a rule that is no more, unless another says that it waits."""

    async def work(transaction: ResourceTransaction) -> int:
        rules = await label_rules_of(transaction, practice)  # they may have been set since
        names = {rule.name for rule in rules.release}
        waiting = await transaction.find(Release, "withheld", rules.key, limit=_ALL)
        over = [one for one in waiting if one.state == "waits" and one.rule not in names]
        released: list[ResourceKey] = []
        for one in over[:AT_ONCE]:
            key = ResourceKey.parse(one.what)
            visible = Visibility.of_server(key.type, practice=rules.key)
            row = await transaction.read(key, visible)
            tree = None if row is None or row.deleted else json.parse(row.body)
            if await after_rules(transaction, rules, one, tree, now=server.clock()):
                released.append(key)
        await relabel(transaction, rules.key, released, unbounded=True)
        return len(over[:AT_ONCE])

    while await server.store.transact(work):
        pass
