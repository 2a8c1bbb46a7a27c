"""What a recovery sends, as messages of the outbox: always as many, whether or not it is anybody's.

A message for nobody (`fhir_portal.notify.outbox.NOBODY`) is made ready like the others where those
are sent, in the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.account import Account, home_of
from fhir_portal.accounts.contacts import Contact, Medium
from fhir_portal.accounts.one_time_code import LINK_PREFIX
from fhir_portal.accounts.proof import Write
from fhir_portal.accounts.recovery import MESSAGES, Recovery, UserNameOf
from fhir_portal.notify import outbox
from fhir_portal.notify.one_time_codes import TEMPLATE, address_of
from fhir_portal.records import RecordReader, RecordTransaction

USERNAME_TEMPLATE: Final = "username-reminder"
USERNAME_PREFIX: Final = "username/"


@dataclass(frozen=True, slots=True)
class _Draft:
    practice: str
    channel: Medium
    to: str
    template: str
    link_for: str


@dataclass(frozen=True, slots=True)
class OutboxRecoveries:
    """`fhir_portal.accounts.recovery.RecoveryMessages` over the outbox."""

    def begin(
        self,
        recovery: Recovery,
        *,
        codes_to: Sequence[Contact],
        names_to: Sequence[UserNameOf],
        now: float,
    ) -> Write:
        """Return the write of exactly `MESSAGES` messages."""
        code = LINK_PREFIX + recovery.challenge
        drafts = [
            _Draft(recovery.practice, one.medium, address_of(one), TEMPLATE, code)
            for one in codes_to
        ]
        drafts += [
            _Draft(
                home_of(one.account),
                one.contact.medium,
                address_of(one.contact),
                USERNAME_TEMPLATE,
                USERNAME_PREFIX + one.account.key,
            )
            for one in names_to
        ]
        nobody = _Draft("", "mail", outbox.NOBODY, TEMPLATE, f"{LINK_PREFIX}nobody")
        drafts += [nobody] * (MESSAGES - len(drafts))

        async def enqueue(transaction: RecordTransaction) -> None:
            for number, draft in enumerate(drafts):
                await _enqueue(transaction, f"recovery.{recovery.key}.{number}", draft, now)

        return enqueue

    def username(self, account: Account, *, once: str, now: float) -> Write:
        """Return the write of one message to all contacts of an account."""
        draft = _Draft(
            home_of(account),
            "mail",
            f"account:{account.key}",
            USERNAME_TEMPLATE,
            USERNAME_PREFIX + account.key,
        )

        async def enqueue(transaction: RecordTransaction) -> None:
            await _enqueue(transaction, f"{USERNAME_TEMPLATE}.{once}", draft, now)

        return enqueue


async def username_fields(
    reader: RecordReader,
    account: str,
    attempt: int,  # noqa: ARG001 - the signature of `fhir_portal.notify.content.Maker`
) -> Mapping[str, str] | None:
    """Return the user name of an account, when its message is sent.

    The maker of `USERNAME_PREFIX`; ``None`` when there is no such account any more.
    """
    found = await reader.get(Account, account)
    if found is None or found.disabled:
        return None
    return {"username": found.username}


async def _enqueue(transaction: RecordTransaction, key: str, draft: _Draft, now: float) -> None:
    await outbox.enqueue(
        transaction,
        key=key,
        practice=draft.practice,
        channel=draft.channel,
        to=draft.to,
        template=draft.template,
        now=now,
        link_for=draft.link_for,
        link_attempt=1,
    )
