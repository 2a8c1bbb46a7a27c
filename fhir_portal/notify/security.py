"""Notices about an account's sign-in, as messages of the outbox to whoever the account belongs to.

The address is ``account:<id>``: how to reach that person is looked up when the message is sent,
so a notice goes to the contacts of then. It says what happened and holds nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.notice import Event
from fhir_portal.accounts.proof import Write
from fhir_portal.notify import outbox
from fhir_portal.records import RecordTransaction

_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class OutboxNotices:
    """`fhir_portal.accounts.notice.Notices` over the outbox."""

    random: Callable[[int], bytes]

    def about(
        self,
        account: Account,
        event: Event,
        *,
        now: float,
        once: str = "",
        practice: str | None = None,
    ) -> Write:
        """Return the write of one message: of the template ``security-<event>``."""
        name = once or self.random(_ID_BYTES).hex()  # outside of the transaction: it may run twice
        if practice is None:
            practice = account.persons[0].partition("/")[0] if account.persons else ""

        async def enqueue(transaction: RecordTransaction) -> None:
            await outbox.enqueue(
                transaction,
                key=f"security.{event}.{account.key}.{name}",
                practice=practice,
                channel="mail",
                to=f"account:{account.key}",
                template=f"security-{event}",
                now=now,
            )

        return enqueue
