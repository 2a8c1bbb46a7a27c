"""The practices of a deployment with what they have decided, for pages that show all of them.

Reading them costs with each practice; it is done again only after one of them has changed, which
every reader learns in the very request that asks (`fhir_portal.records.ChangeCount`).
"""

from __future__ import annotations

from dataclasses import dataclass

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice, every_practice
from fhir_portal.records import RecordReader, changes_of


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The practices by name, and the policy of each. While nothing changes it is the same object.

    ``changes`` are the counts that were read before.
    """

    changes: tuple[int, int]
    practices: tuple[tuple[Practice, PracticePolicy], ...]


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
            kept = Listing(
                changes,
                tuple(
                    (one, policies.get(one.key) or PracticePolicy(key=one.key))
                    for one in await every_practice(self._reader)
                ),
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
