"""What staff are told when somebody cannot go on by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fhir_portal.accounts.activation import Reason, help_matter
from fhir_portal.accounts.matter import Candidate
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.records import RecordTransaction

MATTERS: Final = QueuedMatters()


async def ask_for_help(
    transaction: RecordTransaction,
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
) -> None:
    """Leave word for staff, by `help_matter`."""
    matter = help_matter(
        practice, about, reason, now=now, network=network,
        invitation=invitation, patient=patient, candidates=candidates, typed=typed,
    )  # fmt: skip
    await MATTERS.note(transaction, matter)
