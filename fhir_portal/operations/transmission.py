"""What somebody has sent to somebody outside: its record, its Task, and what becomes of both.

The outbox delivers it; these are the hooks that follow (`fhir_portal.notify.outbox`). The Task is
the patient's to read, and kept from whoever acts for them: by which of them it was sent is told by
``$transmissions``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.grant import IG
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.call import acting_for
from fhir_portal.records import Record, RecordReader
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.resources.writing import update_in
from fhir_portal.smart.sharing import DAY, ShareLink, end_share

Way = Literal["link", "email", "direct", "endpoint"]
Status = Literal["requested", "in-progress", "completed", "failed", "cancelled"]

SHARE_LINK: Final = "share-link"
RECORD_ATTACHED: Final = "record-attached"
RECORD_DIRECT: Final = "record-direct"
RECORD_POSTED: Final = "record-posted"
"""Templates of the messages; the last one is a webhook's and has no words."""

SYSTEM, CODE = f"{IG}/CodeSystem/portal-task", "transmission"
KEPT: Final = 400 * DAY
SENT: Final = "sent"
_OVER: Final = frozenset({"completed", "failed", "cancelled"})
_MICROSECONDS: Final = 1_000_000
_ALL: Final = 1_000_000


class Transmission(Record, frozen=True, kw_only=True):
    """One sending; ``key`` is that of its message in the outbox.

    ``patient``, ``fhir_user`` and ``what`` (a Patient for the summary) are ``Type/<id>``, ``task``
    is the id of its Task, ``link`` the key of the link that is sent, or by whose right the server
    reads what is. ``to`` is for people to read.
    """

    kind: ClassVar[str] = "transmission"
    indexed: ClassVar[tuple[str, ...]] = ("patient",)

    practice: str
    patient: str
    account: str
    fhir_user: str
    what: str
    task: str
    link: str
    way: Way
    to: str
    at: float
    changed: float
    status: Status = "requested"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Transmissions:
    """Follows what becomes of sendings, for the hooks of the outbox; each in its transaction."""

    server: Server

    async def began(self, transaction: ResourceTransaction, key: str) -> None:
        """Note that it is being sent."""
        found = await transaction.get(Transmission, key)
        if found is not None and found.status == "requested":
            await self._follow(transaction, found, "in-progress", "")

    async def completed(self, transaction: ResourceTransaction, message: OutboxMessage) -> bool:
        """Note that it was handed over; false where the message is none of these."""
        return await self._ended(transaction, message, "completed", "")

    async def failed(
        self, transaction: ResourceTransaction, message: OutboxMessage, why: str
    ) -> bool:
        """Note that it never arrived, and why; false where the message is none of these."""
        # The name of a fault in a program says nothing to whoever sent it.
        told = "whoever should take it did not answer" if why.isidentifier() else why
        return await self._ended(transaction, message, "failed", told)

    async def cancelled(self, transaction: ResourceTransaction, message: OutboxMessage) -> bool:
        """Note that it was not sent, for the sender may not send it any more."""
        why = "the sender may not show this any more, or it is not there"
        return await self._ended(transaction, message, "cancelled", why)

    async def _ended(
        self, transaction: ResourceTransaction, message: OutboxMessage, status: Status, why: str
    ) -> bool:
        found = await transaction.get(Transmission, message.key)
        if found is None:
            return False
        if found.status in _OVER and status != "failed":
            return True  # a mail that came back was completed before
        await self._follow(transaction, found, status, why)
        if found.way != "link" or status != "completed":
            link = await transaction.get(ShareLink, found.link)
            if link is not None:
                await end_share(transaction, link, now=self.server.clock(), because=SENT)
        return True

    async def _follow(
        self, transaction: ResourceTransaction, found: Transmission, status: Status, why: str
    ) -> None:
        now = self.server.clock()
        after = msgspec.structs.replace(found, status=status, changed=now, reason=why)
        await transaction.put(after)
        key = ResourceKey("Task", found.task)
        visible = Visibility.of_server("Task", practice=found.practice)
        row = await transaction.read(key, visible)
        if row is None or row.deleted:
            return
        tree: dict[str, Any] = json.parse(row.body)
        tree |= {"status": status, "lastModified": instant(int(now * _MICROSECONDS))}
        if why:
            tree["statusReason"] = {"text": why}
        await update_in(
            transaction, self.server, acting_for(found.practice, ""), tree, visible,
            key=key, if_match=None, if_none_match=None,
        )  # fmt: skip


async def transmissions_of(reader: RecordReader, practice: str, patient: str) -> list[Transmission]:
    """Return what was sent of a record (``Patient/<id>``), the latest first."""
    found = await reader.find(Transmission, "patient", patient, limit=_ALL)
    here = [one for one in found if one.practice == practice]
    return sorted(here, key=lambda one: (one.at, one.key), reverse=True)
