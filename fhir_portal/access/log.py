"""The access log: one compact append-only row per record an access touched.

A row is committed before the answer leaves (DESIGN: durability). AuditEvents are rendered from
rows when they are read; `fhir_portal.resources.audit_event` does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

STAFF_LEVEL: Final = "$staff-level"
"""The interaction of a row that says which access level a member of staff was given."""
STAFF_RESUMED: Final = "$staff-resumed"
"""That of a row that says that a member of staff may work again after a recovery with help."""


class AccessRow(msgspec.Struct, frozen=True, array_like=True):
    """One access. New fields go at the end: rows written before then lack them.

    ``at`` is milliseconds since 1970 UTC; ``record`` the Patient id the access touched (``""``:
    none); ``agent`` the ``fhirUser``, ``""`` for a system client; ``what`` the resource or the
    searched type; ``detail`` the search or the reason of a refusal; ``context`` is
    ``patient``, ``user`` or ``system``; ``status`` the HTTP status of the answer; ``told`` whether
    the person whose record it is may read the line (not if it is about what is hidden from them);
    ``activity`` what was done with the answer where that is known: ``view`` or ``download``;
    ``recipient`` what somebody called themselves who used a link that ``agent`` made.
    """

    at: int
    practice: str
    record: str
    interaction: str
    what: str
    status: int
    client: str
    context: str
    agent: str = ""
    account: str = ""
    grant: str = ""
    token: str = ""
    detail: str = ""
    told: bool = True
    activity: str = ""
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class LoggedAccess:
    """A row and its id, which depends on nothing that a reader of the row cannot see."""

    id: str
    row: AccessRow


def stream_id(practice: str, record: str, stream: str) -> str:
    """Return what names a stream of a record's log in the ids of its lines."""
    return hashlib.sha256(f"{practice}/{record}/{stream}".encode()).hexdigest()[:40]


def access_id(stream: str, turn: int) -> str:
    """Return the id of the ``turn``-th line of a stream (`stream_id`): the same whatever others do.

    Who sees one line of a stream sees them all, so the turn tells them nothing.
    """
    return f"{stream}-{turn}"


def stream_of(row: AccessRow) -> str:
    """Return the lines of a record's log that a line is counted with: the same people see them."""
    return row.agent if row.told else f"-{row.agent}"


def app_key(client: str, account: str) -> str:
    """Return what an app's lines for one account are found by in a stream; two may share one."""
    return hashlib.sha256(f"{client} {account}".encode()).hexdigest()[:16]


class AccessLog(Protocol):
    """Append-only for everybody."""

    async def append(self, rows: Sequence[AccessRow]) -> None:
        """Add rows; returns once they survive the death of this process."""
        ...

    async def read(self, row_id: str) -> LoggedAccess | None:
        """Return one row."""
        ...

    async def of_record(
        self,
        practice: str,
        record: str | None,
        *,
        agent: str | None,
        told: bool,
        low: int,
        high: int,
        before: str | None,
        limit: int,
    ) -> list[LoggedAccess]:
        """Return rows of a practice (and record, and agent, where given), newest first.

        ``told`` asks for those only that the record's person may read.

        ``low`` and ``high`` bound ``at``, both inclusive; ``before`` is the id to go on from.
        """
        ...

    async def of_app(
        self,
        practice: str,
        record: str,
        *,
        agent: str,
        client: str,
        account: str,
        low: int,
        high: int,
        before: str | None,
        limit: int,
    ) -> list[LoggedAccess]:
        """Return what a client did with a record as an agent, for an account; newest first.

        Other clients' lines are not looked at, however many there are. Only those come that the
        record's person may read; the rest is as in `of_record`.
        """
        ...
