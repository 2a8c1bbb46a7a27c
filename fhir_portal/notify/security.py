"""Notices about an account's sign-in, as messages of the outbox to whoever the account belongs to.

The address is ``account:<id>``: how to reach that person is looked up when the message is sent,
so a notice goes to the contacts of then. It says what happened and holds nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fhir_portal.accounts.account import Account, home_of
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.notice import Event
from fhir_portal.accounts.proof import Write
from fhir_portal.notify import outbox
from fhir_portal.notify.one_time_codes import address_of
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
        contact: Contact | None = None,
        practice: str | None = None,
    ) -> Write:
        """Return the write of one message: of the template ``security-<event>``."""
        name = once or self.random(_ID_BYTES).hex()  # outside of the transaction: it may run twice
        practice = home_of(account) if practice is None else practice

        async def enqueue(transaction: RecordTransaction) -> None:
            await outbox.enqueue(
                transaction,
                key=f"security.{event}.{account.key}.{name}",
                practice=practice,
                channel=contact.medium if contact is not None else "mail",
                to=address_of(contact) if contact is not None else f"account:{account.key}",
                template=f"security-{event}",
                now=now,
            )

        return enqueue
