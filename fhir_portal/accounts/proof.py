"""What a person proved in order to get in, and the one write by which that proof is used up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from fhir_portal.records import RecordTransaction

Factor = Literal[
    "password",
    "remembered-device",
    "totp",
    "recovery-code",
    "passkey",
    "contact-code",
    "desk-code",
    "birth-date",
]

SECOND: Final[frozenset[Factor]] = frozenset({"totp", "recovery-code", "passkey"})
"""What counts beside a password. A remembered device spares the question, and proves nothing."""

Write = Callable[[RecordTransaction], Awaitable[None]]
"""Something to be written in somebody else's transaction; may raise `Spent` and undo all of it."""


class Spent(Exception):
    """What was proved has been used, or taken away, since it was looked at."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing proved. ``spend`` belongs into the transaction that opens the session for it."""

    factor: Factor
    spend: Write | None = None


PASSWORD: Final = Proof("password")
