"""What a practice's staff have to see to, and what of it is not for a FHIR resource.

Staff and EHRs see a Task (`fhir_portal.operations.staff_task`): what is open and what was done is
said there alone. The `StaffMatter` beside it holds what no Task may hold, for versions of a Task
are kept for good and go to every client that reads the feed: which account it is about, what
somebody whom nobody knows typed of themselves, how well that fits which record, where a message
went. It is dropped when its time is over.

It is written in the transaction that finds it, with a job that makes the Task: whoever waits for
the answer must not be able to tell by the time it takes whether there was something to see to.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar, Final, Literal, Protocol

import msgspec

from fhir_portal.records import Record, RecordTransaction

About = Literal[
    "recovery-help",
    "activation-help",
    "undelivered-message",
    "payment-mismatch",
    "overlapping-appointments",
]
"""Codes of the CodeSystem ``portal-task``: somebody could not get back into their account, or could
not make one, a message did not arrive, a payment provider and the bills disagree, or appointments
overlap."""

DAY: Final = 86_400.0
KEPT_SECONDS: Final = 30 * DAY
"""How long it is kept after it was noted the last time."""


class Candidate(msgspec.Struct, frozen=True):
    """A record that somebody may have meant: how well it fits (0 to 100), and why."""

    patient: str
    score: int
    reasons: tuple[str, ...]


class StaffMatter(Record, frozen=True, kw_only=True):
    """One thing to see to; ``key`` is `matter_key`: the same once more is the same matter.

    ``reason`` is a code of the CodeSystem ``staff-task-reason``. ``practice`` is ``""`` for what is
    nobody's: there is no Task of it. ``since`` and ``latest`` are seconds since 1970 UTC, ``times``
    is how often it was noted while it was open, ``turn`` how often it was changed at all.
    ``settled`` is when it was known to be over. ``patient`` is ``Patient/<id>``, ``invitation`` the
    key of one, ``contact`` is masked, ``task`` is ``<practice>/Task/<id>`` once that is there,
    ``network`` stands for where a stranger came from and tells nobody where that is. ``focus`` is
    the bill that it is about, ``Invoice/<id>``, and ``detail`` what more its Task says.
    """

    kind: ClassVar[str] = "staff-matter"
    indexed: ClassVar[tuple[str, ...]] = ("task",)

    practice: str
    about: About
    reason: str
    since: float
    latest: float
    times: int = 1
    turn: int = 1
    settled: float | None = None
    patient: str | None = None
    accounts: tuple[str, ...] = ()
    invitation: str | None = None
    medium: str = ""
    template: str = ""
    contact: str = ""
    candidates: tuple[Candidate, ...] = ()
    typed: dict[str, str] = msgspec.field(default_factory=dict)
    task: str | None = None
    network: str = ""
    focus: str = ""
    detail: str = ""


def settled(matter: StaffMatter, *, at: float) -> StaffMatter:
    """Return a matter that is over: what somebody typed, and what came near it, is not kept."""
    return msgspec.structs.replace(matter, settled=at, candidates=(), typed={}, network="")


class StaffMatters(Protocol):
    """Notes what staff have to see to, in the transaction that finds it."""

    async def note(self, transaction: RecordTransaction, matter: StaffMatter) -> None:
        """Keep it as the only one of its key; the same once more is counted."""
        ...

    async def settle(self, transaction: RecordTransaction, key: str, *, now: float) -> None:
        """Say that it is over, if there is one: nobody need see to it any more."""
        ...


def matter_key(practice: str, about: About, what: str) -> str:
    """Return the key of a practice's matter: ``what`` is the same for what is one matter."""
    name = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{practice}/{about}/{name}"
