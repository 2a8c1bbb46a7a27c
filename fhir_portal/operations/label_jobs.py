"""Rules of labels and of release: set in one transaction, carried out on what is stored by jobs.

From the transaction that sets a rule on, everything written is labelled by it, and as long as what
is stored is not, nobody but staff and EHRs sees anything of the practice's records: a rule hides at
once. Rules that were taken away show what they hid when the job is through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.label_rules import LabelRules, Relabelling, label_rules_of
from fhir_portal.fhir import json
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.operations.authorship import organization_of
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.opening import Opening
from fhir_portal.resources.passing_on import relabel
from fhir_portal.resources.release import (
    RELEASE_JOB,
    Release,
    after_rules,
    release_key,
    waits_on,
)
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import record_disclosure
from fhir_portal.search.request import SearchRequest

RELABEL_JOB: Final = "relabel"
PAGE: Final = 500
AT_ONCE: Final = 50
"""Rows whose own labels change in one transaction; what follows from them goes with them."""
LOOKED_AT: Final = 20_000
"""Rows that `foreseen` looks at before it answers."""
WAITING_LOOKED_AT: Final = 2_000
"""Results that wait, the same."""


class Foreseen(NamedTuple):
    """What rules would do to what is stored, of ``looked_at`` rows (``is_whole``: of all to see).

    ``labelled`` rows would get a label from a rule that they do not have, ``opened`` lose one that
    they have from a rule, whatever else hides them. What refers to them is not counted.
    ``released`` results that wait would be shown.
    """

    labelled: int
    opened: int
    released: int
    looked_at: int
    is_whole: bool


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
            spreads=pending is not None and pending.spreads,
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


async def foreseen(server: Server, wanted: LabelRules, counted: Collection[str]) -> Foreseen:
    """Count what rules would do in place of those that a practice has; nothing is changed.

    Only what is of the types ``counted`` is.
    """
    before = await label_rules_of(server.store, wanted.key)
    labelled = opened = looked_at = 0
    released, is_whole = 0, True
    if {rule.name for rule in before.release} - {rule.name for rule in wanted.release}:
        released, is_whole = await _released_by(server, wanted, counted)
    for name in [one for one in _types(wanted, before) if one in counted]:
        async for page in _pages(server, wanted.key, name):
            for row in page:
                if looked_at == LOOKED_AT:
                    return Foreseen(labelled, opened, released, looked_at, is_whole=False)
                looked_at += 1
                tree = json.parse(row.body)
                was, now = before.of(tree), wanted.of(tree)
                labelled += bool(now - row.facts.visibility_class.labels)
                opened += bool(was - now)
    return Foreseen(labelled, opened, released, looked_at, is_whole)


async def _released_by(
    server: Server, wanted: LabelRules, counted: Collection[str]
) -> tuple[int, bool]:
    """Count what waits by a rule that would be gone and by no other; whether that is all of it."""
    names = {rule.name for rule in wanted.release}
    waiting = await server.store.find(Release, "withheld", wanted.key, limit=WAITING_LOOKED_AT)
    found = 0
    for one in waiting:
        if one.state != "waits" or one.rule in names:
            continue
        key = ResourceKey.parse(one.what)
        if key.type not in counted:
            continue
        row = await server.store.read(key, Visibility.of_server(key.type, practice=wanted.key))
        tree = None if row is None or row.deleted else json.parse(row.body)
        if tree is not None and waits_on(wanted, one, tree, now=server.clock())[0] is None:
            found += 1
    return found, len(waiting) < WAITING_LOOKED_AT


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
    if marker is None or not marker.change:
        return 0
    rules = await label_rules_of(server.store, practice)
    former = LabelRules(key=practice, labels=marker.before)
    concerned = 0
    for name in _types(rules, former):
        async for page in _pages(server, practice, name):
            found = iter([row.key for row in page if _differs(row, rules, former)])
            while keys := list(islice(found, AT_ONCE)):
                concerned += len(keys)
                await server.store.transact(partial(_relabelled, server, practice, keys))
    await _release_without_rule(server, practice)

    async def done(transaction: RecordTransaction) -> None:
        now = await transaction.get(Relabelling, practice)
        if now is None or now.change != rules.change:
            return
        if now.spreads:
            await transaction.put(Relabelling(key=practice, hides=False, spreads=True))
        else:
            await transaction.delete(Relabelling, practice)

    await server.store.transact(done)
    return concerned


async def _relabelled(
    server: Server,
    practice: str,
    keys: Sequence[ResourceKey],
    transaction: ResourceTransaction,
    reason: str = "a rule is no more",
) -> None:
    """Label rows and record that the practice, by a rule, opened what its patients see by it."""
    opening = Opening(transaction, now=server.clock())
    await relabel(transaction, practice, keys, opening=opening)
    if opening.rows:
        known = await transaction.get(Practice, practice)
        who = {"display": practice} if known is None else organization_of(known)
        await record_disclosure(
            transaction, server, practice, opening.rows, agent={"who": who}, reason=reason
        )


async def release_due(
    transaction: ResourceTransaction, server: Server, practice: str, what: str
) -> None:
    """Release a result whose time has come; one that has another time now waits on."""
    now = server.clock()
    found = await transaction.get(Release, release_key(practice, ResourceKey.parse(what)))
    if found is None or found.state != "waits" or found.due is None or found.due > now:
        return
    await transaction.put(msgspec.structs.replace(found, state="released", at=now, withheld=None))
    reason = f"released by the rule {found.rule}"
    await _relabelled(server, practice, [ResourceKey.parse(what)], transaction, reason)


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
    after = f"{practice}/"
    while True:
        page = await server.store.every(Release, after=after)
        of_practice = [one for one in page if one.practice == practice]
        waiting = iter([one.key for one in of_practice if one.state == "waits"])
        while keys := list(islice(waiting, AT_ONCE)):
            await server.store.transact(partial(_released_without, server, practice, keys))
        if not of_practice or len(of_practice) < len(page):
            return
        after = page[-1].key


async def _released_without(
    server: Server, practice: str, keys: Sequence[str], transaction: ResourceTransaction
) -> None:
    rules = await label_rules_of(transaction, practice)  # they may have been set since
    names = {rule.name for rule in rules.release}
    released: list[ResourceKey] = []
    for one in [await transaction.get(Release, key) for key in keys]:
        if one is None or one.state != "waits" or one.rule in names:
            continue
        key = ResourceKey.parse(one.what)
        row = await transaction.read(key, Visibility.of_server(key.type, practice=practice))
        tree = None if row is None or row.deleted else json.parse(row.body)
        if await after_rules(transaction, rules, one, tree, now=server.clock()):
            released.append(key)
    await _relabelled(server, practice, released, transaction)
