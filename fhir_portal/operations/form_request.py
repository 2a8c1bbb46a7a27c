"""Asking for forms: their Tasks, who is told, and the reminders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import Grant, is_current
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs, outbox
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.notify.recipients import RECORD, to_account
from fhir_portal.operations.authorship import restricted
from fhir_portal.operations.on_file import account_of_record
from fhir_portal.resources.forms.request import (
    COMPLETE,
    OPEN,
    PRE_REGISTER,
    answered_by,
    concept,
    is_request,
    values_of,
)
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row

REMIND: Final = "remind-of-form"
"""The name of the job; its arguments are ``task`` (an id) and ``about`` (``asked``, or days)."""
REMINDERS: Final = (3, 1)
"""How many days before the due date, unless it is said."""
_AT: Final = time(9)
"""The hour of a reminder, in the practice's zone."""
_MICROSECONDS: Final = 1_000_000
_SECTION: Final = "forms"


def request_task(
    questionnaire: Row,
    canonical: str,
    *,
    patient: str,
    requester: Mapping[str, Any],
    now: float,
    due: str | None,
    confidential: bool,
    appointment: str | None,
    reminders: Sequence[int],
    note: str,
) -> dict[str, Any]:
    """Return the Task that asks a patient (``Patient/<id>``) for a form.

    A ``confidential`` one, and what is answered to it, is kept from whoever acts for them.
    """
    inputs: list[dict[str, Any]] = [
        {"type": concept("questionnaire"), "valueCanonical": canonical},
        # By this reference the form is seen by whoever sees the Task, and by nobody else.
        {"type": concept("questionnaire"), "valueReference": {"reference": str(questionnaire.key)}},
    ]
    inputs += [{"type": concept("reminder"), "valueInteger": one} for one in reminders]
    title = json.parse(questionnaire.body).get("title")
    tree: dict[str, Any] = {
        "resourceType": "Task",
        **({"meta": restricted()} if confidential else {}),
        "status": "requested",
        "intent": "order",
        "code": concept(PRE_REGISTER if appointment else COMPLETE),
        **({"description": title} if title else {}),
        **({"focus": {"reference": appointment}} if appointment else {}),
        "for": {"reference": patient},
        "authoredOn": instant(int(now * _MICROSECONDS)),
        "requester": dict(requester),
        "restriction": {
            "repetitions": 1,
            **({"period": {"end": due}} if due else {}),
        },
        "input": inputs,
    }
    if note:
        tree["note"] = [{"text": note}]
    return tree


async def remind_later(
    transaction: ResourceTransaction, task: Row, practice: Practice, *, now: float
) -> None:
    """Write the jobs by which people are told now, and reminded before the due date."""
    tree = json.parse(task.body)
    own_id = task.key.id
    moments = {"asked": now}
    due = ((tree.get("restriction") or {}).get("period") or {}).get("end")
    if due is not None:
        for days in values_of(tree, "reminder"):
            day = date.fromisoformat(str(due)[:10]) - timedelta(days=int(days))
            at = datetime.combine(day, _AT, ZoneInfo(practice.zone)).timestamp()
            if at > now:
                moments[str(days)] = at
    for about, moment in moments.items():
        await jobs.enqueue(
            transaction,
            key=f"{REMIND}.{own_id}.{about}",
            practice=practice.key,
            name=REMIND,
            now=now,
            due=moment,
            arguments={"task": own_id, "about": about},
        )


def form_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of these jobs by name, for `fhir_portal.notify.jobs.work_off`."""

    async def remind(held: Lease[Job]) -> None:
        """Tell those who can answer, as things stand now; nobody, once it is answered."""
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            key = ResourceKey("Task", job.arguments["task"])
            visible = Visibility.of_server("Task", practice=job.practice)
            row = await transaction.read(key, visible)
            tree = json.parse(row.body) if row is not None and not row.deleted else {}
            if row is None or tree.get("status") not in OPEN or not is_request(tree):
                return
            if len(row.facts.owners) != 1:
                return  # an EHR may have written it so that it is nobody's
            template = "form-asked" if job.arguments["about"] == "asked" else "form-reminder"
            for to, name in await _who_can_answer(transaction, server, job.practice, row, tree):
                await outbox.enqueue(
                    transaction,
                    key=f"{template}.{key.id}.{job.arguments['about']}.{name}",
                    practice=job.practice,
                    channel="mail",
                    to=to,
                    template=template,
                    now=server.clock(),
                )

        await server.store.transact(work)

    return {REMIND: remind}


async def _who_can_answer(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    row: Row,
    tree: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Return to whom a message goes, and a name for each: the patient, and who acts in forms."""
    named = await answered_by(transaction, practice, str(row.key), tree)
    return await to_whom(transaction, server, practice, row, _SECTION, named=named)


async def to_whom(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    row: Row,
    section: str,
    *,
    named: Collection[str] = (),
) -> list[tuple[str, str]]:
    """Return to whom what a Task is about is told: the patient, and who acts in a section.

    ``named`` are the only ones, if anybody is.
    """
    (patient,) = row.facts.owners
    found = []
    if not named or f"Patient/{patient}" in named:
        found.append((f"{RECORD}{practice}/Patient/{patient}", "own"))
    if row.facts.visibility_class.labels:
        return found  # a labelled Task is nobody's but the patient's
    for grant in await transaction.find(Grant, "patient", patient):
        if grant.practice != practice or section not in grant.act:
            continue
        proxy = ResourceKey("RelatedPerson", grant.related_person.rpartition("/")[2])
        if not is_current(grant, server.clock()) or (named and str(proxy) not in named):
            continue
        account = await account_of_record(transaction, practice, proxy)
        known = await transaction.get(Account, account) if account is not None else None
        if known is None:
            continue
        relations = Relations(transaction, server.clock)
        record = await relations.record_of(known, practice, f"Patient/{patient}")
        if record is not None and record.fhir_user == str(proxy):
            found.append((to_account(known.key), proxy.id))
    return found
