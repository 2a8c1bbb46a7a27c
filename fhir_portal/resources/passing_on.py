"""What a write changes about other resources: owners and sections of derived rows, labels of all.

Labels are the least fixed point of `fhir_portal.access.closure`. One that was added spreads from
row to row. Where one may have gone, every row that could have had it from here is first taken to
have none, so that rows which name each other in a circle do not keep it alive. What was deleted
counts as what it said last. What is too much is left to `fhir_portal.resources.settling`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from fhir_portal.access.classify import Neighbours, binaries_of, classify
from fhir_portal.access.closure import BOTH_WAYS, conveyed_by, listing
from fhir_portal.access.owners import DERIVED, DIRECTORY, OWNERS, FromTargets
from fhir_portal.access.visibility import RowFacts, Visibility, VisibilityClass
from fhir_portal.consent.label_rules import LabelRules, label_rules_of, own_labels
from fhir_portal.consent.labels import SETTLING, UNSETTLED, WITHHELD
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.opening import Opening
from fhir_portal.resources.release import is_held
from fhir_portal.resources.settling import SettlingOpened, hide
from fhir_portal.resources.store import ResourceTransaction, Row

MOST: Final = 10_000
"""Rows computed anew for one write; beyond this they are hidden, and computed by a job."""
READ_AT_ONCE: Final = 1_000
"""Rows of which what they say is read together."""


class TooMany(Exception):
    """More rows depend on this than one write computes."""


_RULES: WeakKeyDictionary[ResourceTransaction, dict[str, LabelRules]] = WeakKeyDictionary()


class Surroundings(Neighbours):
    """The rows around a write as they will be: what was computed stands before what is stored."""

    def __init__(self, transaction: ResourceTransaction, *, unbounded: bool = False) -> None:
        self._transaction = transaction
        self._most = None if unbounded else MOST
        self.opening: Opening | None = None
        """By what that which becomes visible has a new version; without it nothing has."""
        self.computed: dict[ResourceKey, RowFacts] = {}
        self._alone: set[ResourceKey] = set()
        """What nothing that is derived points at, as was seen just now."""
        self.unsettled: set[ResourceKey] = set()
        """Rows whose labels a job computes, and for which what was done here matters."""

    async def rules(self, practice: str) -> LabelRules:
        """Return the rules of a practice, read once in a transaction."""
        known = _RULES.setdefault(self._transaction, {})
        if practice not in known:
            known[practice] = await label_rules_of(self._transaction, practice)
        return known[practice]

    async def own_labels(self, tree: Mapping[str, Any], practice: str) -> frozenset[str]:
        rules = await self.rules(practice)
        labels = own_labels(tree, rules)
        key = ResourceKey(tree["resourceType"], tree["id"])
        if await is_held(self._transaction, rules, key):
            labels |= {WITHHELD}
        return labels

    def bound(self, number: int) -> None:
        """Refuse to compute so many rows. Raises `TooMany`."""
        if self._most is not None and number > self._most:
            raise TooMany

    def facts(self, row: Row) -> RowFacts:
        """Return the facts of a row as they will be."""
        return self.computed.get(row.key, row.facts)

    async def row(self, key: ResourceKey, practice: str) -> Row | None:
        """Return a living row."""
        row = await self.stored(key, practice)
        return None if row is None or row.deleted else row

    async def stored(self, key: ResourceKey, practice: str) -> Row | None:
        """Return a row, a deleted one too."""
        return await self._transaction.read(key, Visibility.of_server(key.type, practice=practice))

    async def said(self, row: Row) -> Mapping[str, Any] | None:
        """Return what a row says, or said last before it was deleted, if that is known."""
        if row.deleted:
            visible = Visibility.of_server(row.key.type, practice=row.facts.practice)
            last = await self._transaction.vread(row.key, row.version - 1, visible)
            return json.parse(last.body) if last is not None and last.body else None
        return json.parse(row.body)

    async def facts_of(self, key: ResourceKey, practice: str) -> RowFacts | None:
        if key.type not in OWNERS:
            return None
        row = await self.row(key, practice)
        return None if row is None else self.facts(row)

    async def labels_of(self, keys: Collection[ResourceKey], practice: str) -> frozenset[str]:
        found = frozenset[str]()
        for facts in await self._transaction.facts(keys, practice):
            key = ResourceKey(facts.resource_type, facts.id)
            found |= self.computed.get(key, facts).visibility_class.labels
        return found

    async def facts_of_referrers(
        self, key: ResourceKey, practice: str
    ) -> list[tuple[RowFacts, bool]]:
        rows = await self._transaction.referrers(key, practice)
        return [(self.facts(row), not _was_an_error(row)) for row in rows]

    async def said_before(self, key: ResourceKey, practice: str) -> Mapping[str, Any]:
        """Return what was deleted before a row was written over it, or says nothing."""
        row = await self.stored(key, practice)
        visible = Visibility.of_server(key.type, practice=practice)
        last = None
        if row is not None and row.version > 2:  # noqa: PLR2004 - one, its deletion, this one
            last = await self._transaction.vread(key, row.version - 2, visible)
        tree: Mapping[str, Any] = json.parse(last.body) if last is not None and last.body else {}
        return tree or {"resourceType": key.type}

    async def listed_in(
        self, key: ResourceKey, practice: str, types: Collection[str]
    ) -> list[tuple[Mapping[str, Any] | None, frozenset[str]]]:
        found: list[tuple[Mapping[str, Any] | None, frozenset[str]]] = []
        # One look for what lists it and for what is derived from it: mostly there is neither.
        rows = await self._transaction.referrers(
            key, practice, types=DERIVED.union(types), deleted=True
        )
        if not rows:
            self._alone.add(key)
        for row in rows:
            labels = self.facts(row).visibility_class.labels
            if labels and row.key.type in types:
                found.append((await self.said(row), labels))
        return found

    async def dependants(
        self, key: ResourceKey, practice: str, tree: Mapping[str, Any] | None
    ) -> set[ResourceKey]:
        """Return what may take labels from a resource; ``tree`` is what it says."""
        lists = set() if tree is None else {other for _, other in listing(tree)}
        edges = await self._transaction.edges([key], practice)
        found = {source for source, target in edges if target == key}
        self.bound(len(found))  # before any of them is read
        if any(one.type in BOTH_WAYS for one in found):
            lists |= await self._listed_by_referrers(key, practice, found)
        found |= await self.listed_below(lists, practice)
        if tree is not None:
            found.update(binaries_of(tree))
        return found - {key}

    async def _listed_by_referrers(
        self, key: ResourceKey, practice: str, referrers: Collection[ResourceKey]
    ) -> set[ResourceKey]:
        """Return what is listed by those that point at a resource."""
        if len(referrers) > READ_AT_ONCE:  # too many to read them all: rather some too many
            listers = [one for one in referrers if one.type in BOTH_WAYS]
            edges = await self._transaction.edges(listers, practice)
            known = set(listers)
            return {
                target
                for source, target in edges
                if source in known and any(target.type in row.to for row in BOTH_WAYS[source.type])
            }
        rows = await self._transaction.referrers(key, practice, types=BOTH_WAYS, deleted=True)
        found = set[ResourceKey]()
        for row in rows:
            found.update(other for _, other in listing(await self.said(row) or {}))
        return found

    async def listed_below(self, keys: Collection[ResourceKey], practice: str) -> set[ResourceKey]:
        """Return what is listed, and what that lists: what lists others may itself be listed."""
        lists, found = set(keys), set[ResourceKey]()
        while lists:
            one = lists.pop()
            found.add(one)
            below = await self.stored(one, practice) if one.type in BOTH_WAYS else None
            if below is not None:
                lists.update({other for _, other in listing(await self.said(below) or {})} - found)
        return found

    async def reclassify(self, key: ResourceKey, before: RowFacts, facts: RowFacts) -> None:
        """Store what was computed of a row."""
        if self.opening is None or not await self.opening.version(before, facts):
            await self._transaction.reclassify(key, facts)

    async def leave(self, keys: Collection[ResourceKey], practice: str) -> None:
        """Leave rows, and all that depends on them, to the job."""
        if keys:
            await hide(self._transaction, practice, keys)

    async def keep(self, key: ResourceKey, practice: str, labels: frozenset[str]) -> None:
        """Give a row that was written the labels it had: the job is at it."""
        await self._transaction.relabel({key: labels}, practice)

    async def facts_now(self, key: ResourceKey, practice: str) -> RowFacts:
        """Return the facts of a row that is there."""
        (facts,) = await self._transaction.facts([key], practice)
        return facts

    async def derived(self, facts: RowFacts) -> set[ResourceKey]:
        """Return the rows whose owners and sections follow a resource."""
        key = ResourceKey(facts.resource_type, facts.id)
        if facts.resource_type in DIRECTORY or key in self._alone:
            return set()  # of nobody's record nothing is derived
        rows = await self._transaction.referrers(key, facts.practice, types=DERIVED)
        # A Binary follows what its security context is.
        return {
            row.key
            for row in rows
            if isinstance(OWNERS[row.key.type], FromTargets) or row.key.type == "Binary"
        }


async def pass_on(
    around: Surroundings,
    facts: RowFacts,
    tree: Mapping[str, Any] | None,
    *,
    old: Mapping[str, Any],
    held: frozenset[str],
    binaries: Iterable[ResourceKey],
    is_released: bool = False,
    opening: Opening | None = None,
) -> RowFacts:
    """Compute anew what a write changes about other rows; return the facts of its own row.

    ``tree`` is what was written (``None``: a deletion, after which every label stays), ``old`` what
    was there, ``held`` the labels of the row before. ``binaries`` are those that its attachments
    name now or named before; ``is_released`` says that its release has changed. What becomes
    visible besides is in ``opening``.

    Where too much depends on this one it is left to the job, and hidden until that is through.
    """
    key, practice = ResourceKey(facts.resource_type, facts.id), facts.practice
    around.opening = opening
    if opening is not None:
        opening.wrote(key)
    near = set(binaries)
    changes = False
    if tree is not None and (held or _labels(facts)):
        changes = is_released or _takes_otherwise(old, tree, await around.rules(practice))
        if changes:  # what it lists no more
            before = old or await around.said_before(key, practice)
            dropped = {other for _, other in set(listing(before)) - set(listing(tree))}
            near |= await around.listed_below(dropped, practice)
    is_unsettled = _is_unsettled(with_labels(facts, held | _labels(facts)))
    if is_unsettled and changes:  # what depends on it is with the job already
        await around.leave({key, *near}, practice)
        return await around.facts_now(key, practice)
    try:
        waiting = near | await around.derived(facts)
        # A label may go with the reason that a derived row had for it, too.
        losing = [await around.row(one, practice) for one in waiting]
        suspects = {row.key: row.facts for row in losing if row is not None and _labels(row.facts)}
        if changes and held:
            suspects[key] = with_labels(facts, held)
        elif changes:
            waiting |= await around.dependants(key, practice, tree)
        waiting |= await _taken_back(around, suspects)
        await _settle(around, practice, waiting)
    except TooMany:
        await around.leave({key, *near}, practice)
        return await around.facts_now(key, practice)
    now = around.computed.get(key, facts)
    if is_unsettled:
        await around.keep(key, practice, held)
        now = with_labels(facts, held)
    elif opening is not None:
        await opening.note(held, now)
    await around.leave(around.unsettled, practice)
    return now


async def relabel(
    transaction: ResourceTransaction,
    practice: str,
    keys: Collection[ResourceKey],
    *,
    opening: Opening,
) -> None:
    """Compute anew rows whose own labels changed though they were not written, and what follows.

    What becomes visible by it is in ``opening``. Where too much does it is left to the job, and
    hidden until that is through; then these rows, if they are visible, have a new version, too.
    """
    around = Surroundings(transaction)
    around.opening = opening
    rows = [row for row in [await around.row(key, practice) for key in keys] if row is not None]
    with_job = {row.key for row in rows if not UNSETTLED.isdisjoint(_labels(row.facts))}
    suspects = {row.key: row.facts for row in rows if _labels(row.facts)}
    try:
        waiting = {row.key for row in rows} | await _taken_back(around, suspects)
        await _settle(around, practice, waiting)
    except TooMany:
        with_job = {row.key for row in rows}
        await around.leave(keys, practice)
    else:
        await around.leave(around.unsettled | with_job, practice)
    for key in with_job:
        await transaction.put(SettlingOpened(key=f"{practice}/{key}"))


async def _settle(around: Surroundings, practice: str, waiting: set[ResourceKey]) -> None:
    """Compute rows, and what follows from any that changes, until nothing does; store them."""
    stored: dict[ResourceKey, RowFacts] = {}
    computed = 0
    while waiting:
        around.bound(computed + len(waiting))
        computed += 1
        key = waiting.pop()
        row = await around.stored(key, practice)
        here = None if row is None else await around.said(row)
        if row is None or here is None:
            continue
        before, now = around.facts(row), await classify(here, practice, around)
        if row.deleted:
            now = with_labels(before, _labels(now))
        if not UNSETTLED.isdisjoint(_labels(row.facts) | _labels(now)):
            # What waits without any label is computed as everything will be then.
            if _labels(row.facts) != {SETTLING} and _settled(now) != _settled(row.facts):
                around.unsettled.add(key)
            continue
        stored.setdefault(key, row.facts)
        if now == before:
            continue
        around.computed[key] = now
        if _labels(now) != _labels(before):
            waiting |= await around.dependants(key, practice, here)
        else:
            waiting |= await around.derived(now)
            waiting.update(binaries_of(here))
    for each, now in around.computed.items():
        if stored[each] != now:
            await around.reclassify(each, stored[each], now)


def _was_an_error(row: Row) -> bool:
    """Whether a resource was never of the record that it names."""
    return b"entered-in-error" in row.body and (
        json.parse(row.body).get("status") == "entered-in-error"
    )


def _takes_otherwise(old: Mapping[str, Any], tree: Mapping[str, Any], rules: LabelRules) -> bool:
    """Whether a new version may carry other labels than the one before, or give others."""
    if not old or own_labels(old, rules) != own_labels(tree, rules):
        return True
    return conveyed_by(old) != conveyed_by(tree) or set(listing(old)) != set(listing(tree))


async def _taken_back(
    around: Surroundings, suspects: Mapping[ResourceKey, RowFacts]
) -> set[ResourceKey]:
    """Take all labels from these rows, and from every row that may have one of theirs from them.

    Returns all of them: what labels they have is to be computed.
    """
    found = {key: facts for key, facts in suspects.items() if not _is_unsettled(facts)}
    around.unsettled |= suspects.keys() - found.keys()
    waiting = list(found)
    while waiting:
        each = waiting.pop()
        held, practice = _labels(found[each]), found[each].practice
        row = await around.stored(each, practice)
        said = None if row is None else await around.said(row)
        for near in await around.dependants(each, practice, said) - found.keys():
            row = await around.stored(near, practice)
            if row is None or not _labels(row.facts) & held:
                continue
            if _is_unsettled(row.facts):
                around.unsettled.add(near)
                continue
            found[near] = row.facts
            around.bound(len(found))
            waiting.append(near)
    for each, facts in found.items():
        around.computed[each] = with_labels(facts, frozenset())
    return set(found)


def _labels(facts: RowFacts) -> frozenset[str]:
    return facts.visibility_class.labels


def _is_unsettled(facts: RowFacts) -> bool:
    return not UNSETTLED.isdisjoint(_labels(facts))


def _settled(facts: RowFacts) -> RowFacts:
    """Return facts as they are without the marks of the job."""
    return with_labels(facts, _labels(facts) - UNSETTLED)


def with_labels(facts: RowFacts, labels: frozenset[str]) -> RowFacts:
    """Return facts with other labels."""
    held = VisibilityClass(facts.visibility_class.sections, labels)
    return msgspec.structs.replace(facts, visibility_class=held)
