"""What the owner of an account is told when something about signing in to it changes.

OWASP ASVS 5.0, 6.3.7. Accounts do not know how a notice travels: `Notices` does.
"""

from __future__ import annotations

from typing import Literal, Protocol

from fhir_portal.accounts.account import Account
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
    "disabled-at-practice",
    "enabled-at-practice",
    "renewal-required",
    "sessions-ended",
    "record-merged",
    "merge-undone",
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
        practice: str | None = None,
    ) -> Write:
        """Return the write of one notice to this account's owner.

        With ``once``, a second notice of the same event and the same ``once`` is not written.
        ``practice`` is the one whose doing it tells of.
        """
        ...
