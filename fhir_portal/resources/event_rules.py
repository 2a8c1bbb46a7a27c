"""What a write sets off, where a practice wants it: jobs, in the transaction of the write.

An appointment that is booked, or a mail address that is given, for a patient without an account
may bring them an invitation. Whether it does is decided when the job's turn comes; here is only
seen that it may. However often an EHR sends the same again, the job is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from fhir_portal.access.owners import own_patients
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import IG
from fhir_portal.fhir.datetime import period_of
from fhir_portal.notify import jobs
from fhir_portal.resources import communication, proposal
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.resources.task import is_about

REMIND: Final = "remind-of-appointment"
"""The name of the job that reminds; its arguments are ``appointment`` (an id), ``start`` as it was
when the job was made, and ``hours`` before it."""
_HOUR: Final = 3600
VISIT_OVER: Final = "close-visit-thread"
"""The name of the job that closes the conversation of an arrival; its argument: ``appointment``."""
_HERE: Final = frozenset({"arrived", "checked-in"})
INVITE: Final = "invite-for-event"
"""The name of the job that invites: ``patient`` (an id), ``reason``, and the ``rule`` (`RULES`)."""
RULES: Final[Mapping[str, Callable[[PracticePolicy], bool]]] = {
    "invite-on-booking": lambda policy: policy.invite_on_booking,
    "invite-on-mail-address": lambda policy: policy.invite_on_mail_address,
}
"""The rules by the names of their settings: whether a practice wants one."""
REFILL: Final = (f"{IG}/CodeSystem/portal-task", "refill-request")
"""System and code of the Task that asks for a refill."""
REFILL_ANSWERED: Final = "refill-answered"
"""The name of the job that tells of an answer: ``task`` (an id) and ``answer``."""
_REFILL_ANSWERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("accepted", "ready", "in-progress", "on-hold"), "approved"),
    "completed": "sent",
    **dict.fromkeys(("rejected", "cancelled", "failed"), "refused"),
}
DISPUTE: Final = (f"{IG}/CodeSystem/portal-task", "bill-dispute")
"""System and code of the Task that is a word against a bill."""
DISPUTE_ANSWERED: Final = "dispute-answered"
"""The name of the job that tells of an answer: ``task`` (an id), its ``status``, and
``answer``, the name of what was said."""
_DISPUTE_ANSWERS: Final = frozenset(
    {"accepted", "ready", "in-progress", "on-hold", "completed", "rejected", "failed"}
)
"""Whoever takes back what they said, or has it taken back, waits for no answer."""
_MICROSECONDS: Final = 1_000_000
_MOST_PATIENTS: Final = 5
_OLD_SECONDS: Final = 2 * 86_400.0
ENDS: Final = "coverage-ends"
"""The name of the job that tells of an insurance which ends; its arguments are ``coverage`` (an id)
and ``end`` as it was when the job was made."""
_AT: Final = time(9)
"""The hour at which people are told, in the practice's zone."""
_DAY: Final = 10
_ANSWERED: Final = frozenset({"completed", "rejected", "failed"})


class EventRule(Protocol):
    """Looks at a version that is about to be stored, and at the one before (empty: none)."""

    async def __call__(
        self,
        transaction: ResourceTransaction,
        practice: str,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        *,
        now: float,
    ) -> None: ...


async def appointment_booked(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Invite whoever an appointment is booked for that is still to come."""
    if new.get("status") != "booked" or old.get("status") == "booked":
        return
    start = new.get("start")
    try:
        if start is None or period_of(start)[1] < now * _MICROSECONDS:
            return
    except ValueError:
        return
    if (await policy_of(transaction, practice)).invite_on_booking:
        about = f"{new['resourceType']}/{new['id']}"
        patients = own_patients(new)[:_MOST_PATIENTS]
        await _invite_later(
            transaction, practice, patients, about, "an appointment was booked",
            rule="invite-on-booking", now=now,
        )  # fmt: skip


async def appointment_comes(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Have somebody reminded of an appointment that is booked, as often as the practice wants.

    What becomes of it until then is looked at when the time has come.
    """
    start = new.get("start")
    if new.get("status") != "booked" or start is None:
        return
    if (old.get("status"), old.get("start")) == ("booked", start):
        return
    try:
        begins = period_of(start)[0] / _MICROSECONDS
    except ValueError:
        return
    if begins <= now:
        return  # a chart of years ago asks for no setting
    for hours in (await policy_of(transaction, practice)).reminder_hours:
        due = begins - hours * _HOUR
        if due <= now:
            continue
        await _enqueue(
            transaction,
            practice,
            REMIND,
            f"{new['id']} {begins} {hours}",
            {"appointment": new["id"], "start": start, "hours": str(hours)},
            now=now,
            due=due,
        )


async def appointment_stored(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Everything that an appointment sets off."""
    await appointment_booked(transaction, practice, old, new, now=now)
    await appointment_comes(transaction, practice, old, new, now=now)
    await visit_over(transaction, practice, old, new, now=now)


async def visit_over(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Have the conversation closed of somebody who was there, and is not any more."""
    if old.get("status") not in _HERE or new.get("status") in _HERE:
        return
    await _enqueue(
        transaction, practice, VISIT_OVER, f"{new['id']} {now}", {"appointment": new["id"]}, now=now
    )


async def mail_address_given(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Invite a patient of whom the practice has got a mail address."""
    added = _mail_addresses(new) - _mail_addresses(old)
    if added and (await policy_of(transaction, practice)).invite_on_mail_address:
        about = f"{new['resourceType']}/{new['id']} {' '.join(sorted(added))}"
        await _invite_later(
            transaction, practice, [new["id"]], about, "a mail address was given",
            rule="invite-on-mail-address", now=now,
        )  # fmt: skip


async def message_sent(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Tell the other side of a message of a thread, once, whoever wrote it."""
    if not communication.is_message(new) or not communication.stands_in(new):
        return
    if communication.is_message(old) and communication.stands_in(old):
        return
    if communication.sent_before(new, now - _OLD_SECONDS):
        return  # brought in from elsewhere: nobody is told of what was said long ago
    await _enqueue(
        transaction, practice, communication.SENT, new["id"], {"message": new["id"]}, now=now
    )


async def message_shown(
    transaction: ResourceTransaction, practice: str, own_id: str, *, now: float
) -> None:
    """Have the thread of a message say what it left out while the message was hidden."""
    await _enqueue(
        transaction,
        practice,
        communication.SENT,
        f"{own_id} shown {now}",
        {"message": own_id, "shown": "yes"},
        now=now,
    )


async def task_stored(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Tell whoever asked for something that there is an answer."""
    await proposal_decided(transaction, practice, old, new, now=now)
    await refill_answered(transaction, practice, old, new, now=now)
    await dispute_answered(transaction, practice, old, new, now=now)


async def refill_answered(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Tell a patient that there is an answer to a refill request, whoever gave it."""
    answer = _REFILL_ANSWERS.get(str(new.get("status")))
    if not old or answer is None or _REFILL_ANSWERS.get(str(old.get("status"))) == answer:
        return
    if not is_about(new, REFILL[1]):
        return
    await _enqueue(
        transaction,
        practice,
        REFILL_ANSWERED,
        f"{new['id']} {answer}",
        {"task": new["id"], "answer": answer},
        now=now,
    )


async def dispute_answered(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Tell whoever said something against a bill that there is an answer, whoever gave it.

    Another reason is another answer. One of before, that is brought in, is none.
    """
    status, reason = str(new.get("status")), _reason(new)
    if not old or status not in _DISPUTE_ANSWERS or not is_about(new, DISPUTE[1]):
        return
    if (str(old.get("status")), _reason(old)) == (status, reason):
        return
    about = f"{new['id']} {status} {reason}"
    arguments = {"task": new["id"], "status": status, "answer": _hash(practice, about)}
    await _enqueue(transaction, practice, DISPUTE_ANSWERED, about, arguments, now=now)


async def proposal_decided(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Tell whoever proposed something that there is an answer, whoever gave it.

    Whoever takes back what they proposed knows that.
    """
    if proposal.section_of(old) is None or not proposal.is_open(old):
        return
    if proposal.is_open(new) or new.get("status") not in _ANSWERED:
        return
    await _enqueue(
        transaction, practice, proposal.ANSWERED, new["id"], {"task": new["id"]}, now=now
    )


async def coverage_ends(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Have people told that an insurance ends, once for each end that it is given."""
    ends = str((new.get("period") or {}).get("end") or "")[:_DAY]
    if new.get("status") != "active" or not ends:
        return
    ended = str((old.get("period") or {}).get("end") or "")
    if old.get("status") == "active" and ended[:_DAY] == ends:
        return
    try:
        day, last = date.fromisoformat(ends), period_of(ends)[1] / _MICROSECONDS
    except ValueError:
        return  # a year or a month alone: nobody knows the day
    if last <= now:
        return
    days = (await policy_of(transaction, practice)).coverage_reminder_days
    known = await transaction.get(Practice, practice)
    if not days or known is None:
        return
    at = datetime.combine(day - timedelta(days=days), _AT, ZoneInfo(known.zone)).timestamp()
    await _enqueue(
        transaction,
        practice,
        ENDS,
        f"{new['id']} {ends}",
        {"coverage": new["id"], "end": ends},
        now=now,
        due=max(at, now),
    )


EVENT_RULES: Final[Mapping[str, EventRule]] = {
    "Appointment": appointment_stored,
    "Patient": mail_address_given,
    "Communication": message_sent,
    "Coverage": coverage_ends,
    "Task": task_stored,
}
"""By resource type. Other types pay for a look into this table, and for nothing else."""


async def _enqueue(
    transaction: ResourceTransaction,
    practice: str,
    name: str,
    about: str,
    arguments: Mapping[str, str],
    *,
    now: float,
    due: float | None = None,
) -> None:
    """Enqueue a job; ``about`` is what it comes of: of the same there is one job only."""
    await jobs.enqueue(
        transaction,
        key=f"{name}.{_hash(practice, about)}",
        practice=practice,
        name=name,
        now=now,
        due=due,
        arguments=arguments,
    )


def _hash(practice: str, about: str) -> str:
    return hashlib.sha256(f"{practice} {about}".encode()).hexdigest()


async def _invite_later(
    transaction: ResourceTransaction,
    practice: str,
    patients: Iterable[str],
    about: str,
    reason: str,
    *,
    rule: str,
    now: float,
) -> None:
    for patient in patients:
        await _enqueue(
            transaction,
            practice,
            INVITE,
            f"{about} {patient}",
            {"patient": patient, "reason": reason, "rule": rule},
            now=now,
        )


def _mail_addresses(tree: Mapping[str, Any]) -> set[str]:
    return {
        str(point.get("value")).strip().lower()
        for point in tree.get("telecom") or ()
        if point.get("system") == "email" and point.get("value") and point.get("use") != "old"
    }


def _reason(task: Mapping[str, Any]) -> str:
    return str((task.get("statusReason") or {}).get("text") or "")
