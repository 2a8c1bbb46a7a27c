"""What becomes visible has a new version: otherwise nobody who follows changes learns of it.

The content is the same, ``versionId`` and ``lastUpdated`` are others. The version before keeps its
labels, so that who sees the new one is told neither when it was stored nor what else was hidden. A
Provenance that staff and EHRs alone see names the versions that came of it: nobody changed a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from fhir_portal.access.classify import edges_of
from fhir_portal.access.visibility import RowFacts, Visibility
from fhir_portal.consent.labels import PORTAL_TAG, SELF_LABELS, WITHHELD
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import Record, RecordReader
from fhir_portal.resources.event_rules import message_shown
from fhir_portal.resources.stamp import stamp
from fhir_portal.resources.store import NewVersion, ResourceTransaction, Row
from fhir_portal.search.indexer import extract

SHOWN_SECONDS: Final = 32 * 86_400.0
"""So long it is known that a report was opened; what is new to a patient is younger."""
TARGETS: Final = 100
"""Versions that one Provenance names at most."""
_MICROSECONDS: Final = 1_000_000
_LIFECYCLE: Final = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def opens(before: frozenset[str], now: frozenset[str]) -> bool:
    """Whether a person sees of their own record what they did not see under the labels before.

    What only those come to see who act for them has no new version: their own app would learn of a
    label on what it has no scope for, and read again what it has.
    """
    return now <= SELF_LABELS and not before <= SELF_LABELS


class Shown(Record, frozen=True, kw_only=True):
    """That a report of a ``record`` (``practice/id``) was opened to its patient ``at`` a time."""

    kind: ClassVar[str] = "shown"
    indexed: ClassVar[tuple[str, ...]] = ("record",)

    record: str
    what: str
    at: float


async def shown_since(
    reader: RecordReader, practice: str, patient: str, since: float
) -> list[ResourceKey]:
    """Return the reports of a record that were opened since, the last one first.

    Whoever asks may see them or not: they are looked up under the caller's rights.
    """
    found = await reader.find(Shown, "record", f"{practice}/{patient}")
    late = sorted((one for one in found if one.at >= since), key=lambda one: -one.at)
    return [ResourceKey.parse(one.what) for one in late]


@dataclass(slots=True)
class _Changed:
    """What one transaction wrote, and will; what it only opened is in ``former``, as it was."""

    written: set[ResourceKey] = field(default_factory=set)
    expected: set[ResourceKey] = field(default_factory=set)
    former: dict[ResourceKey, _Former] = field(default_factory=dict)


class _Former(NamedTuple):
    version: int
    facts: RowFacts


_CHANGED: WeakKeyDictionary[ResourceTransaction, _Changed] = WeakKeyDictionary()


class Opening:
    """What one step of a transaction opens; ``rows`` are the versions that came of it."""

    def __init__(self, transaction: ResourceTransaction, *, now: float) -> None:
        self.rows: list[Row] = []
        self._transaction, self._now = transaction, now
        self._changed = _CHANGED.setdefault(transaction, _Changed())

    def wrote(self, key: ResourceKey) -> None:
        """Say that this transaction writes a version of it anyway."""
        self._changed.written.add(key)
        self._changed.former.pop(key, None)

    async def version(self, before: RowFacts, now: RowFacts) -> bool:
        """Store a version of a row with its new facts if they open it; return whether it did."""
        held, left = before.visibility_class.labels, now.visibility_class.labels
        if not before.owners or not opens(held, left):
            return False
        await self.note(held, now)
        key = ResourceKey(now.resource_type, now.id)
        if key in self._changed.written or key in self._changed.former:
            return False
        visible = Visibility.of_server(key.type, practice=now.practice)
        row = await self._transaction.read(key, visible)
        if row is None or row.deleted:
            return False
        self._changed.former[key] = _Former(row.version, before)
        if key in self._changed.expected:
            return False  # its next version is on the way
        tree = json.parse(row.body)
        updated = await self._transaction.next_instant(int(self._now * 1000))
        stamp(tree, row.version + 1, updated)
        opened = Row(now, row.version + 1, updated, "PUT", json.dumps(tree))
        entries = extract(key.type, tree)
        await self._transaction.write(NewVersion(opened, entries, edges_of(tree)))
        self.rows.append(opened)
        return True

    async def note(self, held: frozenset[str], now: RowFacts) -> None:
        """Note, if these facts open it, that a report is new, and that a message is not read."""
        if not opens(held, now.visibility_class.labels):
            return
        if now.resource_type == "Communication":
            await message_shown(self._transaction, now.practice, now.id, now=self._now)
        if now.resource_type != "DiagnosticReport":
            return
        what = f"{now.resource_type}/{now.id}"
        for owner in now.owners:
            record = f"{now.practice}/{owner}"
            await self._transaction.put(
                Shown(
                    key=f"{record}/{what}",
                    record=record,
                    what=what,
                    at=self._now,
                    expires=self._now + SHOWN_SECONDS,
                )
            )


def as_known(transaction: ResourceTransaction, row: Row) -> Row:
    """Return a row at the version that its writer can know.

    What another entry of the same transaction opened has a version that nobody was told of.
    """
    former = _former(transaction, row.key)
    return row if former is None else msgspec.structs.replace(row, version=former.version)


def expect(transaction: ResourceTransaction, keys: Iterable[ResourceKey]) -> None:
    """Say what a transaction is going to write: of that nothing is opened before it is written."""
    _CHANGED.setdefault(transaction, _Changed()).expected.update(keys)


async def hide_again(transaction: ResourceTransaction, key: ResourceKey) -> RowFacts | None:
    """Take back that this transaction opened a row which it now writes; return what it was.

    Nobody was to see what it said before: who opens and corrects it at once shows the correction.
    """
    former = _former(transaction, key)
    if former is None:
        return None
    await transaction.reclassify(key, former.facts)
    return former.facts


def _former(transaction: ResourceTransaction, key: ResourceKey) -> _Former | None:
    changed = _CHANGED.get(transaction)
    return None if changed is None else changed.former.get(key)


def disclosures(
    rows: Sequence[Row], *, at: float, agent: Mapping[str, Any], reason: str
) -> Iterator[dict[str, Any]]:
    """Yield the Provenances that say of versions that they were opened, and by whom.

    ``agent`` is who did it; those of one record stand together. Source: FHIR R4 §6.3, ISO 21089.
    """
    of: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        of.setdefault(row.facts.owners, []).append(row)
    for together in of.values():
        for start in range(0, len(together), TARGETS):
            some = together[start : start + TARGETS]
            yield {
                "resourceType": "Provenance",
                "meta": {"tag": [{"system": PORTAL_TAG, "code": WITHHELD}]},
                "target": [{"reference": f"{one.key}/_history/{one.version}"} for one in some],
                "recorded": instant(int(at * _MICROSECONDS)),
                "reason": [{"text": reason}],
                "activity": {"coding": [{"system": _LIFECYCLE, "code": "disclose"}]},
                "agent": [{"type": {"coding": [{"system": _AGENT, "code": "performer"}]}, **agent}],
            }
