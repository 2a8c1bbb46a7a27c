"""One-time codes on their way: messages of the outbox, which say what the code is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.one_time_code import Challenge, link_for
from fhir_portal.accounts.proof import Write
from fhir_portal.notify import outbox
from fhir_portal.records import RecordTransaction

TEMPLATE: Final = "one-time-code"


def address_of(contact: Contact) -> str:
    """Return a contact as the outbox writes addresses: ``mail:<address>``, ``sms:<number>``."""
    return f"{contact.medium}:{contact.value}"


@dataclass(frozen=True, slots=True)
class OutboxCodes:
    """`fhir_portal.accounts.notice.CodeSender` over the outbox."""

    def send(
        self, challenge: Challenge, *, practice: str, now: float, to: Sequence[Contact] = ()
    ) -> Write:
        """Return the write of the messages; the same challenge and attempt is written once."""
        ways = [(one.medium, address_of(one)) for one in to] or [
            (challenge.medium, f"{challenge.medium}:{challenge.to}")
        ]

        async def enqueue(transaction: RecordTransaction) -> None:
            for number, (medium, address) in enumerate(ways):
                await outbox.enqueue(
                    transaction,
                    key=f"{TEMPLATE}.{challenge.key}.{challenge.attempt}.{number}",
                    practice=practice,
                    channel=medium,
                    to=address,
                    template=TEMPLATE,
                    now=now,
                    link_for=link_for(challenge),
                    link_attempt=challenge.attempt,
                )

        return enqueue
