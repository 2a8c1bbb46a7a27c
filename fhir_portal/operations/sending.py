"""What was sent to somebody, as Communications of the practice: kind, channel, when, how it ended.

One is written for each message to an address, in the transaction that writes the message, and
follows what becomes of it: ``in-progress``, ``completed``, or ``not-done`` with a reason. It holds
no words, no address, and no secret. It belongs to the patient's record where the message was for
that patient; what went to somebody who acts for patients alone is in no record, and seen by the
practice.

Which messages are told of stands with their words (`fhir_portal.notify.words.is_in_record`):
those in which a practice speaks of its own records. What only concerns how somebody signs in to
their account, which is outside FHIR and may be of several practices, is in none of them; nor is a
one-time code, whose existence would tell that somebody has an account.

Source: FHIR R4 Communication; profile ``sent-message`` of the guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import IG
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.lease import KEPT_SECONDS
from fhir_portal.notify.outbox import Channel, OutboxMessage
from fhir_portal.notify.recipients import ACCOUNT, RECORD
from fhir_portal.notify.words import is_in_record
from fhir_portal.operations.authorship import organization_of, restricted
from fhir_portal.operations.call import acting_for
from fhir_portal.operations.links import links_of
from fhir_portal.records import Record
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.resources.writing import create_in, update_in

Outcome = Literal["bounced", "not-delivered", "no-contact", "superseded"]
"""Codes of the CodeSystem ``send-outcome``: why a message did not arrive."""

KIND: Final = f"{IG}/CodeSystem/portal-message"
OUTCOME: Final = f"{IG}/CodeSystem/send-outcome"
PROFILE: Final = f"{IG}/StructureDefinition/sent-message"
_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/communication-category"
_MEDIUM: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationMode"
_MEDIA: Final[dict[Channel, str]] = {"mail": "EMAILWRIT", "sms": "SMSWRIT"}
_MICROSECONDS: Final = 1_000_000


class LoggedSend(Record, frozen=True, kw_only=True):
    """Which Communications (ids) tell of the outbox message that has the same ``key``."""

    kind: ClassVar[str] = "logged-send"

    practice: str
    communications: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Addressee:
    """To whom a message went: references to the recipients, in whose record, and about which Task.

    Without ``subject`` it is in no record.
    """

    subject: str | None
    recipients: tuple[str, ...]
    about: str | None = None


@dataclass(frozen=True, slots=True)
class SendLog:
    """Writes the Communications, and what became of each; for the hooks of the outbox."""

    server: Server

    async def addressed(
        self,
        transaction: ResourceTransaction,
        message: OutboxMessage,
        copies: Sequence[OutboxMessage],
    ) -> None:
        """Tell of a message to an account or a record, now that its addresses are known."""
        if not copies or not is_in_record(message.template):
            return
        whom = await self._meant(transaction, message)
        for copy in copies:
            await self.log(
                transaction,
                copy.key,
                practice=message.practice,
                channel=copy.channel,
                template=message.template,
                addressees=whom,
            )

    async def log(
        self,
        transaction: ResourceTransaction,
        key: str,
        *,
        practice: str,
        channel: Channel | None,
        template: str,
        addressees: Sequence[Addressee],
        outcome: Outcome | None = None,
    ) -> None:
        """Tell of the message with a key, to be called in the transaction that writes it.

        Whoever is gone is left out. ``outcome`` is for one that was never sent.
        """
        sender = await transaction.get(Practice, practice)
        if sender is None or await transaction.get(LoggedSend, key) is not None:
            return
        made: list[str] = []
        for one in addressees:
            there = await self._there(transaction, practice, one)
            if there is None:
                continue
            own_id = self.server.new_id()
            tree = _communication(there, sender, channel, template)
            await create_in(
                transaction, self.server, acting_for(practice, ""),
                tree if outcome is None else _not_done(tree, outcome),
                Visibility.of_server("Communication", practice=practice), resource_id=own_id,
            )  # fmt: skip
            made.append(own_id)
        if made:
            await transaction.put(
                LoggedSend(
                    key=key,
                    expires=self.server.clock() + 2 * KEPT_SECONDS,
                    practice=practice,
                    communications=tuple(made),
                )
            )

    async def completed(self, transaction: ResourceTransaction, message: OutboxMessage) -> None:
        """Note that a message was handed over."""
        now = instant(int(self.server.clock() * _MICROSECONDS))
        await self._follow(transaction, message, {"status": "completed", "sent": now})

    async def superseded(self, transaction: ResourceTransaction, message: OutboxMessage) -> None:
        """Note that a message was not sent, for what it was for is over."""
        await self._ended(transaction, message, "superseded")

    async def given_up(
        self, transaction: ResourceTransaction, message: OutboxMessage, *, bounced: bool
    ) -> None:
        """Note that a message never arrived: it came back, was given up, or reaches nobody."""
        if not message.to.startswith((ACCOUNT, RECORD)):
            await self._ended(transaction, message, "bounced" if bounced else "not-delivered")
        elif is_in_record(message.template):
            await self.log(
                transaction,
                message.key,
                practice=message.practice,
                channel=None,
                template=message.template,
                addressees=await self._meant(transaction, message),
                outcome="no-contact",
            )

    async def _ended(
        self, transaction: ResourceTransaction, message: OutboxMessage, outcome: Outcome
    ) -> None:
        await self._follow(transaction, message, _not_done({}, outcome))

    async def _follow(
        self, transaction: ResourceTransaction, message: OutboxMessage, changes: dict[str, Any]
    ) -> None:
        logged = await transaction.get(LoggedSend, message.key)
        if logged is None:
            return
        visible = Visibility.of_server("Communication", practice=logged.practice)
        for own_id in logged.communications:
            key = ResourceKey("Communication", own_id)
            row = await transaction.read(key, visible)
            if row is None or row.deleted:
                continue
            await update_in(
                transaction, self.server, acting_for(logged.practice, ""),
                json.parse(row.body) | changes, visible,
                key=key, if_match=None, if_none_match=None,
            )  # fmt: skip

    async def _meant(
        self, transaction: ResourceTransaction, message: OutboxMessage
    ) -> list[Addressee]:
        """To whom at its practice a message goes that names an account or a record."""
        if message.to.startswith(RECORD):
            patient = message.to.partition("/")[2]
            return [Addressee(patient, (patient,))]
        account = await transaction.get(Account, message.to.removeprefix(ACCOUNT))
        found: list[str] = []
        for person in account.persons if account is not None else ():
            practice, _, key = person.partition("/")
            if practice != message.practice:
                continue
            row = await transaction.read(
                ResourceKey.parse(key), Visibility.of_server("Person", practice=practice)
            )
            if row is not None and not row.deleted:
                found += links_of(row, proven=True)
        own = [one for one in found if one.startswith("Patient/")]
        if own:
            return [Addressee(one, (one,)) for one in own]
        return [Addressee(None, tuple(found))] if found else []

    async def _there(
        self, transaction: ResourceTransaction, practice: str, addressee: Addressee
    ) -> Addressee | None:
        """The same without whoever is gone; ``None`` where nobody is left."""

        async def is_there(reference: str) -> bool:
            key = ResourceKey.parse(reference)
            row = await transaction.read(key, Visibility.of_server(key.type, practice=practice))
            return row is not None and not row.deleted

        if addressee.subject is not None and not await is_there(addressee.subject):
            return None
        left = tuple([one for one in addressee.recipients if await is_there(one)])
        return Addressee(addressee.subject, left, addressee.about) if left else None


def _communication(
    addressee: Addressee, sender: Practice, channel: Channel | None, template: str
) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "resourceType": "Communication",
        "meta": {**restricted(), "profile": [PROFILE]},
        "status": "in-progress",
        "category": [{"coding": [{"system": _CATEGORY, "code": "notification"}]}],
    }
    if channel is not None:
        tree["medium"] = [{"coding": [{"system": _MEDIUM, "code": _MEDIA[channel]}]}]
    if addressee.subject is not None:
        tree["subject"] = {"reference": addressee.subject}
    tree["topic"] = {"coding": [{"system": KIND, "code": template}]}
    if addressee.about is not None:
        tree["about"] = [{"reference": addressee.about}]
    return tree | {
        "recipient": [{"reference": one} for one in addressee.recipients],
        "sender": organization_of(sender),
    }


def _not_done(tree: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    reason = {"coding": [{"system": OUTCOME, "code": outcome}]}
    return tree | {"status": "not-done", "statusReason": reason}
