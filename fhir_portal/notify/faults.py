"""Messages that never arrive, for staff: one matter for each address or person that none reaches.

What could not be delivered is noted in the transaction that gives the message up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.accounts.contacts import Contact, Medium, contacts_of, masked_value, note_bounce
from fhir_portal.accounts.invitation import CODE_PREFIX, LINK_PREFIX
from fhir_portal.accounts.matter import DAY, StaffMatter, StaffMatters, matter_key
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.recipients import ACCOUNT, RECORD, own_accounts

KEPT_SECONDS: Final = 180 * DAY
"""How long it is known what a fault was about, and that staff were told of a person's contacts."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """`fhir_portal.notify.outbox.GivenUp`: the bounce is noted at the contact, the rest for staff.

    Whoever cannot be reached at all is one matter, whatever was to be sent and however often: to
    have no contact may be what somebody chose.
    """

    matters: StaffMatters

    async def __call__(
        self,
        transaction: Any,
        message: OutboxMessage,
        why: str,
        bounced: bool,  # noqa: FBT001 - the signature of `GivenUp`
        now: float,
    ) -> None:
        """Note it; for webhooks nothing, the makers of an app being no matter for the staff.

        ``transaction`` is one of a `fhir_portal.resources.store.PortalStore`. ``why`` stays with
        the message.
        """
        del why
        if message.channel == "webhook" or message.is_for_nobody:
            return
        if message.to.startswith((ACCOUNT, RECORD)):
            for account in await _meant(transaction, message, now):
                await self._unreachable(transaction, message, account, now)
            return
        medium: Medium = message.channel
        value = _value(message)
        if bounced:
            await note_bounce(transaction, medium, value, now=now)
        found = await transaction.find(Contact, "value", value)
        accounts = {one.account for one in found if one.medium == medium}
        await self.matters.note(
            transaction,
            StaffMatter(
                key=_key(message.practice, medium, value),
                expires=now + KEPT_SECONDS,
                practice=message.practice,
                about="undelivered-message",
                reason="bounced" if bounced else "not-delivered",
                since=now,
                latest=now,
                accounts=tuple(sorted(accounts)),
                invitation=invitation_meant(message),
                medium=medium,
                template=message.template,
                contact=masked_value(medium, value),
            ),
        )

    async def _unreachable(
        self, transaction: Any, message: OutboxMessage, account: str, now: float
    ) -> None:
        """Note that somebody has no contact, unless staff know of it or of what came back."""
        key = matter_key(message.practice, "undelivered-message", f"{ACCOUNT}{account}")
        known = await transaction.get(StaffMatter, key)
        if known is not None and now < (known.expires or now):
            return
        is_reached = False
        for contact in await contacts_of(transaction, account):
            is_reached |= contact.verified is not None and contact.bounced is None
            there = await transaction.get(
                StaffMatter, _key(message.practice, contact.medium, contact.value)
            )
            if there is not None and there.settled is None:
                return
        await self.matters.note(
            transaction,
            StaffMatter(
                key=key,
                expires=now + KEPT_SECONDS,
                practice=message.practice,
                about="undelivered-message",
                reason="not-delivered" if is_reached else "no-contact",
                since=now,
                latest=now,
                template=message.template if is_reached else "",
                accounts=(account,),
            ),
        )


def invitation_meant(message: OutboxMessage) -> str | None:
    """Return the key of the invitation whose link or code a message holds."""
    for prefix in (LINK_PREFIX, CODE_PREFIX):
        if (message.link_for or "").startswith(prefix):
            return (message.link_for or "").removeprefix(prefix)
    return None


async def _meant(transaction: Any, message: OutboxMessage, now: float) -> Sequence[str]:
    """The accounts that a message was for which names no address."""
    if message.to.startswith(ACCOUNT):
        return [message.to.removeprefix(ACCOUNT)]
    practice, _, patient = message.to.removeprefix(RECORD).partition("/")
    found = await own_accounts(transaction, practice, patient, clock=lambda: now)
    return [one.key for one in found]


def _key(practice: str, medium: Medium, value: str) -> str:
    return matter_key(practice, "undelivered-message", f"{medium}:{value}")


def _value(message: OutboxMessage) -> str:
    return message.to.removeprefix(f"{message.channel}:")
