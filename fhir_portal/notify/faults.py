"""Messages that never arrive, for staff to see to: one open matter for each address.

A fault is written in the transaction that gives the message up. `Faults` is the port through which
it is noted, so that a FHIR Task can be made of it as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import msgspec

from fhir_portal.accounts.contacts import Contact, Medium, masked_value, note_bounce
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.recipients import ACCOUNT, RECORD
from fhir_portal.records import Record, RecordReader, RecordTransaction

What = Literal["bounced", "not-delivered"]


class DeliveryFault(Record, frozen=True, kw_only=True):
    """What could not be delivered, and how often since ``since`` (seconds since 1970 UTC).

    ``contact`` is masked; ``accounts`` are those at which it stands or that the message was for,
    ``about`` is the record that it was for, or what its link was for, such as an invitation.
    ``open_at`` is the practice while somebody has to see to it, and ``None`` once it is
    ``resolved``.
    """

    kind: ClassVar[str] = "delivery-fault"
    indexed: ClassVar[tuple[str, ...]] = ("practice", "open_at")

    practice: str
    open_at: str | None
    what: What
    medium: str
    contact: str
    template: str
    why: str
    since: float
    latest: float
    messages: int = 1
    accounts: tuple[str, ...] = ()
    about: str | None = None
    resolved: float | None = None
    resolved_by: str = ""


class Faults(Protocol):
    """Notes a fault in the transaction that finds it."""

    async def note(self, transaction: RecordTransaction, fault: DeliveryFault) -> None:
        """Keep it, as the only open one of its key."""
        ...


@dataclass(frozen=True, slots=True)
class RecordedFaults:
    """`Faults` as records; the same one again is counted, a resolved one is open again."""

    async def note(self, transaction: RecordTransaction, fault: DeliveryFault) -> None:
        """Keep it."""
        before = await transaction.get(DeliveryFault, fault.key)
        if before is not None and before.open_at is not None:
            fault = msgspec.structs.replace(fault, since=before.since, messages=before.messages + 1)
        await transaction.put(fault)


@dataclass(frozen=True, slots=True)
class Undelivered:
    """`fhir_portal.notify.outbox.GivenUp`: the bounce is noted at the contact, the fault kept."""

    faults: Faults

    async def __call__(
        self,
        transaction: RecordTransaction,
        message: OutboxMessage,
        why: str,
        bounced: bool,  # noqa: FBT001 - the signature of `GivenUp`
        now: float,
    ) -> None:
        """Note it, for webhooks nothing: the makers of an app are no matter for the staff."""
        if message.channel == "webhook":
            return
        medium: Medium = message.channel
        accounts, contact, about = await _whose(transaction, message, medium)
        if bounced:
            await note_bounce(transaction, medium, _value(message), now=now)
        await self.faults.note(
            transaction,
            DeliveryFault(
                key=_key(message),
                practice=message.practice,
                open_at=message.practice,
                what="bounced" if bounced else "not-delivered",
                medium=medium,
                contact=contact,
                template=message.template,
                why=why,
                since=now,
                latest=now,
                accounts=accounts,
                about=about,
            ),
        )


async def open_faults(
    reader: RecordReader, practice: str, *, limit: int = 200
) -> list[DeliveryFault]:
    """Return what a practice has to see to, the latest first."""
    found = await reader.find(DeliveryFault, "open_at", practice, limit=limit)
    return sorted(found, key=lambda fault: fault.latest, reverse=True)


async def resolve_fault(
    transaction: RecordTransaction, practice: str, key: str, *, now: float, by: str
) -> bool:
    """Say that somebody saw to it; false where this practice has no such open fault."""
    fault = await transaction.get(DeliveryFault, key)
    if fault is None or fault.practice != practice or fault.open_at is None:
        return False
    await transaction.put(
        msgspec.structs.replace(fault, open_at=None, resolved=now, resolved_by=by)
    )
    return True


def _key(message: OutboxMessage) -> str:
    address = hashlib.sha256(f"{message.channel}:{_value(message)}".encode()).hexdigest()
    return f"{message.practice}/{address}"


def _value(message: OutboxMessage) -> str:
    return message.to.removeprefix(f"{message.channel}:")


async def _whose(
    transaction: RecordTransaction, message: OutboxMessage, medium: Medium
) -> tuple[tuple[str, ...], str, str | None]:
    """The accounts a message was for, its address as staff may see it, and what it was about."""
    if message.to.startswith(ACCOUNT):
        return (message.to.removeprefix(ACCOUNT),), "", message.link_for
    if message.to.startswith(RECORD):
        return (), "", message.to.partition("/")[2]
    value = _value(message)
    found = await transaction.find(Contact, "value", value)
    accounts = {one.account for one in found if one.medium == medium}
    return tuple(sorted(accounts)), masked_value(medium, value), message.link_for
