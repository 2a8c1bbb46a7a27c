"""What an app did with a record, by the access log of that record.

It is told to the person who connected it, and to the person whose record it is. The log's own
rows say who did what; here they are only counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from fhir_portal.access.log import AccessLog, AccessRow
from fhir_portal.access.relation import IdentityReader, name_of
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey

_PAGE: Final = 500
_MOST: Final = 5000
_READS: Final = frozenset(
    {"read", "vread", "search-type", "history-instance", "history-type", "history-system"}
)
_WRITES: Final = frozenset({"create", "update", "patch", "delete"})
_REFUSED: Final = 400


@dataclass(slots=True)
class AppUse:
    """Counts by resource type; ``last`` is seconds since 1970 UTC of the latest access.

    ``is_all`` is false where the log goes back further than was looked.
    """

    last: float | None = None
    looked: Counter[str] = field(default_factory=Counter)
    wrote: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    is_all: bool = True

    def add(self, row: AccessRow) -> None:
        """Count one access."""
        self.last = max(self.last or 0.0, row.at / 1000)
        if row.status >= _REFUSED:
            self.refused += 1
            return
        what = row.what.partition("/")[0]
        if row.interaction in _READS:
            self.looked[what] += 1
        elif row.interaction in _WRITES:
            self.wrote[what] += 1


async def app_use(
    log: AccessLog,
    *,
    practice: str,
    patient: str,
    fhir_user: str,
    client: str,
    account: str,
    since: float,
    now: float,
) -> AppUse:
    """Count what a client did with a record as one person, for one account, since a moment.

    Where that is more than can be counted, it is the latest of it.
    """
    use, before, looked_at = AppUse(), None, 0
    while looked_at < _MOST:
        page = await log.of_app(
            practice,
            patient.partition("/")[2],
            agent=fhir_user,
            client=client,
            account=account,
            low=int(since * 1000),
            high=int(now * 1000) + 1,
            before=before,
            limit=_PAGE,
        )
        for logged in page:
            if (logged.row.client, logged.row.account) == (client, account):
                use.add(logged.row)
        looked_at += len(page)
        if len(page) < _PAGE:
            return use
        before = page[-1].id
    use.is_all = False
    return use


async def person_name(reader: IdentityReader, practice: str, reference: str) -> str:
    """The name of a Patient, RelatedPerson or Practitioner, for who knows that they are one."""
    key = ResourceKey.parse(reference)
    row = await reader.read(key, Visibility.of_server(key.type, practice=practice))
    return "" if row is None or row.deleted else name_of(json.parse(row.body))
