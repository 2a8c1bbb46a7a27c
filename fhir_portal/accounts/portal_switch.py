"""Whom it concerns that a practice switches its portal on or off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.invitation import Invitation
from fhir_portal.records import RecordReader

_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class Concerned:
    """How many accounts know a practice, and how many invitations of it can be used now."""

    accounts: int
    invitations: int


async def concerned(reader: RecordReader, practice: str, *, now: float) -> Concerned:
    """Count whom the switch of a practice concerns; ``now`` is seconds since 1970 UTC."""
    accounts, after, start = set[str](), f"{practice}/", f"{practice}/"
    while page := await reader.every(AccountPerson, after=after):
        here = [one for one in page if one.key.startswith(start)]
        accounts |= {one.account for one in here}
        after = page[-1].key
        if len(here) < len(page):
            break
    invitations = await reader.find(Invitation, "practice", practice, limit=_MOST)
    return Concerned(len(accounts), sum(one.is_usable(now) for one in invitations))
