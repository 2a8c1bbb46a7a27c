"""The practices of a deployment with what they have decided, for pages that show all of them.

Reading them costs with each practice; it is done again only after one of them has changed, which
every reader learns in the very request that asks (`fhir_portal.records.ChangeCount`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import (
    Practice,
    every_practice,
    practice_id_in,
    practice_name_in,
)
from fhir_portal.records import RecordReader, changes_of


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The practices by name, and the policy of each. While nothing changes it is the same object.

    ``changes`` are the counts that were read before; ``by_id`` and ``by_name`` lead to places in
    ``practices``.
    """

    changes: tuple[int, int]
    practices: tuple[tuple[Practice, PracticePolicy], ...]
    by_id: Mapping[str, list[int]]
    by_name: Mapping[str, list[int]]

    @classmethod
    def of(
        cls, changes: tuple[int, int], practices: Sequence[tuple[Practice, PracticePolicy]]
    ) -> Listing:
        """Return the listing of these practices."""
        by_id, by_name = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        for place, (practice, _) in enumerate(practices):
            by_id[practice.practice_id].append(place)
            by_name[practice_name_in(practice.name)].append(place)
        return cls(changes, tuple(practices), dict(by_id), dict(by_name))

    def meant(self, typed: str) -> tuple[Practice, PracticePolicy] | None:
        """Return the practice whose practice ID, or whose name, somebody typed or chose."""
        found = self.by_id.get(practice_id_in(typed) or "", [])
        found = found or self.by_name.get(practice_name_in(typed), [])
        return self.practices[found[0]] if len(found) == 1 else None


class PracticeList:
    """The practices as they are now."""

    def __init__(self, reader: RecordReader) -> None:
        self._reader = reader
        self._kept: Listing | None = None

    async def now(self) -> Listing:
        """Return the practices as they are: of a change that was committed, always the new ones."""
        # Counted first: what changes while they are read is noticed the next time.
        changes = (
            await changes_of(self._reader, Practice),
            await changes_of(self._reader, PracticePolicy),
        )
        kept = self._kept
        if kept is None or kept.changes != changes:
            policies = await self._policies()
            kept = Listing.of(
                changes,
                [
                    (one, policies.get(one.key) or PracticePolicy(key=one.key))
                    for one in await every_practice(self._reader)
                ],
            )
            self._kept = kept
        return kept

    async def _policies(self) -> dict[str, PracticePolicy]:
        found: dict[str, PracticePolicy] = {}
        after = ""
        while page := await self._reader.every(PracticePolicy, after=after):
            found |= {one.key: one for one in page}
            after = page[-1].key
        return found
