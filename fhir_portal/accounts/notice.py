"""What the owner of an account is told when something about signing in to it changes.

OWASP ASVS 5.0, 6.3.7. Accounts do not know how a notice travels: `Notices` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.one_time_code import Challenge
from fhir_portal.accounts.proof import Write

Event = Literal[
    "password-changed",
    "totp-added",
    "totp-removed",
    "recovery-codes-made",
    "recovery-code-used",
    "passkey-added",
    "passkey-removed",
    "codes-guessed",
    "contact-added",
    "contact-removed",
    "account-recovered",
    "password-removed",
    "security-questions-changed",
    "recovery-started",
    "recovery-cancelled",
    "disabled-at-practice",
    "enabled-at-practice",
    "renewal-required",
    "sessions-ended",
    "record-merged",
    "merge-undone",
    "closed-at-practice",
    "acting-ended",
]


class Notices(Protocol):
    """Writes notices down in the transaction of what they tell of."""

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
        """Return the write of one notice to this account's owner, on all proved contacts.

        With ``once``, a second notice of the same event and the same ``once`` is not written. With
        ``contact`` it goes there alone: to one that the account has no more. ``practice`` is the
        one whose doing it tells of.
        """
        ...


class CodeSender(Protocol):
    """Writes down that a one-time code is to be sent, in the transaction of its challenge."""

    def send(
        self, challenge: Challenge, *, practice: str, now: float, to: Sequence[Contact] = ()
    ) -> Write:
        """Return the write of one message for each contact, else of one to where it goes."""
        ...
