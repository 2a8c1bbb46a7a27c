"""An activation under way: what somebody proved so far on the way to an account, on the server.

It belongs to one browser and lives for thirty minutes after the last step, so closing the tab
loses nothing; on another device the person proves the same again and goes on. A password or a code
is never kept in it. The first step may be for nobody: then it looks like any other and ends
nowhere. What staff have to look into is left as a matter for them (`help_matter`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import msgspec

from fhir_portal.accounts.assurance import Evidence
from fhir_portal.accounts.contacts import Medium, mailbox_of
from fhir_portal.accounts.matter import KEPT_SECONDS, Candidate, StaffMatter, matter_key
from fhir_portal.records import Record, RecordReader, RecordTransaction

Way = Literal["link", "code", "sheet", "mail"]
"""How somebody began: the link of an invitation, its security code, a printed sheet, or the mail
address that the practice has."""

IDLE_SECONDS: Final = 30 * 60.0
TRIES: Final = 5
"""Wrong tries on what was typed; then it is locked and staff are told."""
LOCKED_SECONDS: Final = 3600.0

Reason = Literal[
    "locked",
    "near-miss",
    "ambiguous",
    "not-found",
    "minor",
    "no-second-proof",
    "has-account",
    "expired",
    "closed",
]


class FileContact(msgspec.Struct, frozen=True):
    """A contact that the practice has of a person, as `fhir_portal.accounts.contacts` writes it."""

    medium: Medium
    value: str

    @property
    def mailbox(self) -> tuple[Medium, str]:
        """What it is the same contact by: several addresses may be one mailbox."""
        return self.medium, mailbox_of(self.medium, self.value)


class Activation(Record, frozen=True, kw_only=True):
    """One activation; ``key`` is `activation_key` of its browser.

    ``practice`` and ``invitation`` (``None``: there is none) say what it leads to; ``patients``
    and ``persons`` are as in `fhir_portal.accounts.invitation.Invitation`, empty for nobody.
    ``evidence`` is what was proved, ``file_contacts`` where a one-time code may go. ``challenge``
    is one that waits for its code. ``typed`` is what was typed and is no secret, for whoever goes
    back. ``contact`` is a mail address to be proved later; ``without_contact`` that there is none.
    ``draft`` is the id of the account for which a passkey is being made. ``network`` stands for
    where somebody came from who named no invitation.
    """

    kind: ClassVar[str] = "activation"
    indexed: ClassVar[tuple[str, ...]] = ("invitation",)

    expires: float
    begun: float
    browser: str
    way: Way
    practice: str
    invitation: str | None = None
    attempt: int = 0
    patients: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    file_contacts: tuple[FileContact, ...] = ()
    challenge: str = ""
    challenge_to: FileContact | None = None
    typed: dict[str, str] = msgspec.field(default_factory=dict)
    contact: str = ""
    without_contact: bool = False
    draft: str = ""
    network: str = ""

    @property
    def proved_contacts(self) -> tuple[FileContact, ...]:
        """The contacts from which a secret came back."""
        found = {
            FileContact(one.over, one.to): None
            for one in self.evidence
            if one.to and (one.over == "mail" or one.over == "sms")  # noqa: PLR1714 - narrows
        }
        return tuple(found)


class TypedTries(Record, frozen=True, kw_only=True):
    """Wrong tries on something typed, known or not; ``key`` is a hash of it."""

    kind: ClassVar[str] = "activation-tries"

    expires: float
    count: int


class ActivationOver(Exception):
    """There is no activation here, or what it leads to is over: begin anew."""


def activation_key(browser: str) -> str:
    """Return the key of a browser's activation."""
    return hashlib.sha256(f"activation {browser}".encode()).hexdigest()


async def activation_of(reader: RecordReader, browser: str, now: float) -> Activation | None:
    """Return what is under way in a browser."""
    found = await reader.get(Activation, activation_key(browser))
    return found if found is not None and now < found.expires else None


async def begin_in(
    transaction: RecordTransaction, activation: Activation, *, now: float
) -> Activation:
    """Begin an activation in place of any other of its browser, and of its invitation.

    What was typed on another device is carried over: the same was proved again.
    """
    typed: dict[str, str] = {}
    if activation.invitation is not None:
        for other in await transaction.find(Activation, "invitation", activation.invitation):
            if now < other.expires:
                typed |= other.typed
            await transaction.delete(Activation, other.key)
    begun = msgspec.structs.replace(
        activation, typed={**typed, **activation.typed}, expires=now + IDLE_SECONDS
    )
    await transaction.put(begun)
    return begun


async def step_in(
    transaction: RecordTransaction, before: Activation, after: Activation, *, now: float
) -> Activation:
    """Store the next state of an activation. Raises `ActivationOver` if it changed meanwhile."""
    moved = msgspec.structs.replace(after, expires=now + IDLE_SECONDS)
    there = await transaction.get(Activation, before.key)
    if there is None or now >= there.expires or not await transaction.replace(before, moved):
        raise ActivationOver
    return moved


async def count_typed(transaction: RecordTransaction, what: str, *, now: float) -> int:
    """Count a try on something typed, and return how many there were within the hour."""
    key = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()
    found = await transaction.get(TypedTries, key)
    if found is None or now >= found.expires:
        found = TypedTries(key=key, expires=now + LOCKED_SECONDS, count=0)
    await transaction.put(msgspec.structs.replace(found, count=found.count + 1))
    return found.count + 1


def help_matter(
    practice: str,
    about: str,
    reason: Reason,
    *,
    now: float,
    invitation: str | None = None,
    patient: str | None = None,
    network: str = "",
    candidates: tuple[Candidate, ...] = (),
    typed: Mapping[str, str] | None = None,
) -> StaffMatter:
    """Return word for staff; what is ``about`` the same takes the place of what was left before.

    ``candidates`` are records that came near; ``typed`` is what the person said of themselves. Of
    this nothing reaches the page.
    """
    return StaffMatter(
        key=help_key(practice, about),
        expires=now + KEPT_SECONDS,
        practice=practice,
        about="activation-help",
        reason=reason,
        since=now,
        latest=now,
        patient=patient,
        invitation=invitation,
        network=network,
        candidates=candidates,
        typed=dict(typed or {}),
    )


def help_key(practice: str, about: str) -> str:
    """Return the key of what is left for a practice's staff about something."""
    return matter_key(practice, "activation-help", about)
