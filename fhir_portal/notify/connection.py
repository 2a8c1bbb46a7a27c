"""Notices about apps that got, lost or keep less of a record, as messages of the outbox.

They say that something happened and where to look it up. The name of an app can say what somebody
suffers from, so it is not in them (DESIGN: no PHI in mail).
"""

from __future__ import annotations

from fhir_portal.accounts.proof import Write
from fhir_portal.notify import outbox
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.connection_notices import Event


class OutboxConnectionNotices:
    """`fhir_portal.smart.connection_notices.ConnectionNotices` over the outbox."""

    def about(self, event: Event, *, to: str, practice: str, once: str, now: float) -> Write:
        """Return the write of one message: of the template ``app-<event>``."""

        async def enqueue(transaction: RecordTransaction) -> None:
            await outbox.enqueue(
                transaction,
                key=f"app.{event}.{once}",
                practice=practice,
                channel="mail",
                to=to,
                template=f"app-{event}",
                now=now,
            )

        return enqueue
