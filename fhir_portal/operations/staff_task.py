"""The Task of what a practice's staff have to see to: made and kept in step by a job.

It says what kind of thing it is and why, when, and whose record it concerns where that is known: no
name, no address, no account, nothing that was typed. What more there is to know stands in the
`StaffMatter` until that is dropped, for staff on the page alone. What is open is what the Task
says: whoever completes it, on the page, by ``$task-done`` or from an EHR, has seen to it.

Source: FHIR R4 Task; profile ``staff-task`` of the guide. Its tag says which permission of an
access level shows it; neither the patient nor anybody who acts for the patient sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.invitation import Invitation
from fhir_portal.accounts.matter import About, StaffMatter
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import IG
from fhir_portal.consent.labels import FOR_STAFF, PORTAL_TAG
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.notify.matters import STAFF_TASK
from fhir_portal.operations.authorship import organization_of
from fhir_portal.operations.call import acting_for
from fhir_portal.records import Record
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import CODE, OPEN, SHOWN_TO
from fhir_portal.resources.writing import create_in, update_in

REASON: Final = f"{IG}/CodeSystem/staff-task-reason"
PROFILE: Final = f"{IG}/StructureDefinition/staff-task"
WORDS: Final[Mapping[tuple[About, str], str]] = {
    ("recovery-help", "locked"): "They asked for help, or gave too many wrong codes",
    ("recovery-help", "unverified-contact"): "No contact of the account was proved",
    ("recovery-help", "no-recovery-contact"): "The account has no contact that can get a code",
    ("recovery-help", "no-account"): "There is no account",
    ("activation-help", "locked"): "Too many tries were wrong",
    ("activation-help", "near-miss"): "Something differs from the record",
    ("activation-help", "ambiguous"): "More than one record may be meant",
    ("activation-help", "not-found"): "No record is like it",
    ("activation-help", "minor"): "A minor registered by themselves",
    ("activation-help", "no-second-proof"): "There is no second contact, and no code from the "
    "practice",
    ("activation-help", "has-account"): "There is an account already",
    ("activation-help", "expired"): "The invitation was over",
    ("activation-help", "closed"): "The practice ended the portal for them: invite them to let them"
    " in again",
    ("undelivered-message", "bounced"): "A message came back: the address takes nothing",
    ("undelivered-message", "not-delivered"): "A message could not be delivered",
    ("undelivered-message", "no-contact"): "Nothing reaches this person: the account has no "
    "contact that is proved and takes messages",
    ("payment-mismatch", "other-amount"): "The payment provider took another amount than was "
    "agreed: compare its books with the bill",
    ("payment-mismatch", "paid-after-end"): "The payment provider took money for a payment that "
    "had ended: give it back, or enter it",
    ("payment-mismatch", "no-answer"): "The payment provider has not said for a day how a payment "
    "ended: so much of the bill is kept back meanwhile",
    ("payment-mismatch", "provider-gone"): "A payment was begun at a provider that is not set up "
    "any more: look in its books whether it was paid, and enter it",
    (
        "overlapping-appointments",
        "calendar-changed",
    ): "Appointments overlap since the calendar changed",
}
STRANGERS_AN_HOUR: Final = 60
"""Tasks of people who named no invitation and no one record: beyond that none is made. Versions
of a Task stay for good, and whoever registers with made-up names could fill a practice's feed."""
STRANGERS_A_NETWORK: Final = 10
"""Of those, how many may come from one network: else it would use up what all others have."""
_HOUR: Final = 3600.0
_MICROSECONDS: Final = 1_000_000


def staff_task_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of these jobs by name, for `fhir_portal.notify.jobs.work_off`."""

    async def bring_up_to_date(held: Lease[Job]) -> None:
        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            matter = await transaction.get(StaffMatter, held.work.arguments["matter"])
            if matter is not None:
                await _follow(transaction, server, matter)

        await server.store.transact(work)

    return {STAFF_TASK: bring_up_to_date}


def completed(tree: Mapping[str, Any], *, at: float, reason: str = "") -> dict[str, Any]:
    """Return a Task as it is when somebody has seen to it; ``at`` is seconds since 1970 UTC."""
    now = instant(int(at * _MICROSECONDS))
    period = {**(tree.get("executionPeriod") or {}), "end": now}
    done = {**tree, "status": "completed", "executionPeriod": period, "lastModified": now}
    return done | ({"statusReason": {"text": reason}} if reason else {})


async def _follow(transaction: ResourceTransaction, server: Server, matter: StaffMatter) -> None:
    """Make the Task of a matter, or say in it what is so now."""
    practice = await transaction.get(Practice, matter.practice)
    if practice is None:
        return  # nobody's
    row = await _open_task(transaction, matter)
    if matter.settled is not None:
        if row is not None:
            tree = completed(
                json.parse(row.body), at=matter.settled, reason="they need no help any more"
            )
            await _update(transaction, server, row.key, practice.key, tree)
        return
    if row is not None:
        tree = {**json.parse(row.body), **_words(matter)}
        tree["lastModified"] = instant(int(matter.latest * _MICROSECONDS))
        await _update(transaction, server, row.key, practice.key, tree)
        return
    is_stranger = matter.about == "activation-help" and not (matter.invitation or matter.patient)
    if is_stranger and await _are_too_many(transaction, matter, now=server.clock()):
        return
    task = server.new_id()
    new = msgspec.structs.replace(
        matter, task=f"{practice.key}/Task/{task}", since=matter.latest, times=1
    )
    await create_in(
        transaction, server, acting_for(practice.key, ""),
        await _task_of(transaction, server, new, practice),
        Visibility.of_server("Task", practice=practice.key), resource_id=task,
    )  # fmt: skip
    await transaction.put(new)


class StrangerCount(Record, frozen=True, kw_only=True):
    """How many Tasks a practice got within an hour of people whom it may not know at all.

    ``key`` is ``<practice>/<hour since 1970>``, and of one network that with ``/<network>``.
    """

    kind: ClassVar[str] = "stranger-count"

    count: int


async def _are_too_many(
    transaction: ResourceTransaction, matter: StaffMatter, *, now: float
) -> bool:
    """Count a Task that anybody on the internet can cause; true where it is one too many.

    What one network has no room for is not counted for all of them.
    """
    hour = int(now // _HOUR)
    limits = [(f"{matter.practice}/{hour}", STRANGERS_AN_HOUR)]
    if matter.network:
        limits.insert(0, (f"{matter.practice}/{hour}/{matter.network}", STRANGERS_A_NETWORK))
    for key, most in limits:
        found = await transaction.get(StrangerCount, key)
        count = found.count + 1 if found is not None else 1
        await transaction.put(StrangerCount(key=key, count=count, expires=(hour + 2) * _HOUR))
        if count > most:
            return True
    return False


async def _open_task(transaction: ResourceTransaction, matter: StaffMatter) -> Row | None:
    """The Task of a matter, if it is there and waits for somebody still."""
    own_id = (matter.task or "").rpartition("/")[2]
    if not own_id:
        return None
    visible = Visibility.of_server("Task", practice=matter.practice)
    row = await transaction.read(ResourceKey("Task", own_id), visible)
    if row is None or row.deleted or json.parse(row.body).get("status") not in OPEN:
        return None
    return row


async def _task_of(
    transaction: ResourceTransaction, server: Server, matter: StaffMatter, practice: Practice
) -> dict[str, Any]:
    now = instant(int(matter.latest * _MICROSECONDS))
    tree: dict[str, Any] = {
        "resourceType": "Task",
        "meta": {
            "profile": [PROFILE],
            "tag": [{"system": PORTAL_TAG, "code": FOR_STAFF[SHOWN_TO[matter.about]]}],
        },
        "status": "requested",
        "intent": "order",
        "code": {"coding": [{"system": CODE, "code": matter.about}]},
        **_words(matter),
        "authoredOn": now,
        "lastModified": now,
        "executionPeriod": {"start": now},
        "owner": organization_of(practice),
    }
    invitation = await transaction.get(Invitation, matter.invitation or "")
    if invitation is not None and invitation.practice == practice.key:
        tree["focus"] = {"reference": f"Task/{invitation.task}"}
    elif matter.focus:
        tree["focus"] = {"reference": matter.focus}
    patient = await _patient(transaction, server, matter, invitation)
    return tree | ({"for": {"reference": patient}} if patient is not None else {})


def _words(matter: StaffMatter) -> dict[str, Any]:
    """What may change while a Task is open: why it is there, in a code and in plain words."""
    words = WORDS[matter.about, matter.reason]
    if matter.medium:
        words += f" ({matter.medium}, {matter.template})"
    if matter.detail:
        words += f" ({matter.detail})"
    if matter.times > 1:
        words += f"; {matter.times} times"
    return {
        "reasonCode": {"coding": [{"system": REASON, "code": matter.reason}]},
        "description": f"{words}.",
    }


async def _patient(
    transaction: ResourceTransaction,
    server: Server,
    matter: StaffMatter,
    invitation: Invitation | None,
) -> str | None:
    """The one Patient that a matter is about: the invitation's, or the accounts' own record.

    ``None`` where there are several, and where nobody knows.
    """
    found: set[str] = set()
    if matter.patient is not None:
        found.add(matter.patient)
    elif invitation is not None:
        found.update(invitation.patients)
    else:
        relations = Relations(transaction, server.clock)
        for key in matter.accounts:
            account = await transaction.get(Account, key)
            if account is None:
                continue
            records = await relations.records_of(account)
            here = [one for one in records if one.practice == matter.practice]
            found.update(one.patient for one in [one for one in here if one.is_own] or here)
    if len(found) != 1:
        return None
    (patient,) = found
    key_of = ResourceKey.parse(patient)
    row = await transaction.read(key_of, Visibility.of_server("Patient", practice=matter.practice))
    return None if row is None or row.deleted else str(key_of)


async def _update(
    transaction: ResourceTransaction,
    server: Server,
    key: ResourceKey,
    practice: str,
    tree: dict[str, Any],
) -> None:
    await update_in(
        transaction, server, acting_for(practice, ""), tree,
        Visibility.of_server("Task", practice=practice),
        key=key, if_match=None, if_none_match=None,
    )  # fmt: skip
