"""``Invoice/[id]/$payment-plan``: a bill that is paid in parts, one a month, each by its own hand.

The plan is a Task with the Invoice as its focus; each ``input`` is a part: its day as the text of
the type, and how much. Nothing is charged by it, and no card is kept: what is due is paid by
``$pay``. Before a day people are reminded, unless so much was paid already, or the practice does
not ask for the money for now. It is completed when nothing of the bill is due any more.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.owners import local_target, references_at
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.billing.amount import Amount, NoAmount, digits_of
from fhir_portal.billing.invoice import NotReckoned, balance_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, NotSupported, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs, outbox
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.operations.amount_due import reckoned
from fhir_portal.operations.call import Call, acting_for
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.dispute import is_held, task_of
from fhir_portal.operations.form_request import to_whom
from fhir_portal.operations.message_thread import agent_of, once, record_provenance
from fhir_portal.operations.portal_invite import practice_of, words
from fhir_portal.operations.task_about import store_task, task_before
from fhir_portal.records import Record
from fhir_portal.resources.communication import count_written
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import is_about
from fhir_portal.resources.writing import update_in

PLAN: Final = "payment-plan"
REMIND: Final = "remind-of-payment"
"""The name of the job; its arguments are ``task`` (an id) and ``part`` (from 0)."""
REMINDER_DAYS: Final = 3
RUNNING: Final = "in-progress"
_SECTION: Final = "billing"
_AT: Final = time(9)
_FEWEST: Final = 2
_MICROSECONDS: Final = 1_000_000


class BillPlan(Record, frozen=True, kw_only=True):
    """The latest plan of a bill: ``key`` is ``<practice>/<Invoice id>``."""

    kind: ClassVar[str] = "bill-plan"

    task: str


@dataclass(frozen=True, slots=True)
class Part:
    """One part: by when, and how much."""

    due: date
    amount: Amount


async def payment_plan(call: Call) -> FhirResponse:
    """Agree on parts; the same again while the plan runs is the same.

    Raises:
        NotSupported: the practice agrees on no plans here.
        Unprocessable: more parts, smaller ones, or a later beginning than it allows.
        Conflict: nothing is due, or another plan runs.
    """
    number, first = call.arguments.one("parts"), call.arguments.one("first")

    async def work(
        transaction: ResourceTransaction,
    ) -> tuple[str, str, Sequence[Part], list[Row]]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        practice = await practice_of(transaction, call.auth.practice)
        policy = await policy_of(transaction, practice.key)
        today = datetime.fromtimestamp(call.server.clock(), ZoneInfo(practice.zone)).date()
        begins = _first(first, today)
        key = f"{practice.key}/{row.key.id}"
        before = await transaction.get(BillPlan, key)
        there = (
            await task_before(transaction, call, row, before.task) if before is not None else None
        )
        if there is not None and there.get("status") == RUNNING:
            parts = parts_of(there)
            if len(parts) != number or (first is not None and parts[0].due != begins):
                message = "this bill has a plan: end that one first"
                raise Conflict(message)
            return there["id"], RUNNING, parts, [row]
        balance = await reckoned(transaction, row)
        if balance.due.units == 0:
            message = "nothing is due on this bill"
            raise Conflict(message)
        parts = _parts(policy, balance.due, number, begins)
        tree = task_of(call, row, json.parse(row.body), PLAN, RUNNING) | _written(parts)
        await count_written(
            transaction, practice.key, agent_of(call), row.facts.owners[0],
            now=call.server.clock(), what="payment plans",
        )  # fmt: skip
        stored = await store_task(transaction, call, tree)
        if before is not None:
            await transaction.delete(BillPlan, key)
        await transaction.insert(BillPlan(key=key, task=stored.key.id))
        await _remind_later(transaction, stored, practice, parts, now=call.server.clock())
        return stored.key.id, RUNNING, parts, [row, stored]

    task, status, parts, rows = await once(call, work)
    answer = {
        "task": {"reference": f"Task/{task}"},
        "status": status,
        "part": [{"due": one.due.isoformat(), "amount": one.amount.money} for one in parts],
    }
    return call.answer(answer, *rows)


async def cancel_plan(call: Call) -> FhirResponse:
    """End a plan; what is due stays due. One that is over stays as it is."""
    reason = words(call, "reason")

    async def work(transaction: ResourceTransaction) -> tuple[Row, str]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        tree = json.parse(row.body)
        if not is_about(tree, PLAN):
            message = "this Task is no payment plan"
            raise Unprocessable(message)
        if tree.get("status") != RUNNING:
            return row, str(tree.get("status"))
        written = await _end(
            transaction, call.server, row, tree, "cancelled", client=call.auth.client, why=reason
        )
        await record_provenance(transaction, call, [str(row.key)], "UPDATE")
        return written, "cancelled"

    row, status = await call.server.store.transact(work)
    return call.answer({"task": {"reference": str(row.key)}, "status": status}, row)


async def complete_plan(
    transaction: ResourceTransaction, server: Server, practice: str, invoice: ResourceKey
) -> None:
    """Complete the plan of a bill of which nothing is due any more, if one runs."""
    found = await transaction.get(BillPlan, f"{practice}/{invoice.id}")
    if found is None:
        return
    visible = Visibility.of_server("Task", practice=practice)
    row = await transaction.read(ResourceKey("Task", found.task), visible)
    if row is None or row.deleted:
        return
    tree = json.parse(row.body)
    if is_about(tree, PLAN) and tree.get("status") == RUNNING:
        await _end(transaction, server, row, tree, "completed")


def plan_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of these jobs by name, for `fhir_portal.notify.jobs.work_off`."""

    async def remind(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            await _remind(transaction, server, job)

        await server.store.transact(work)

    return {REMIND: remind}


def parts_of(tree: Mapping[str, Any]) -> list[Part]:
    """Return the parts of a plan; what an EHR wrote that is none is left out."""
    found = []
    for one in tree.get("input") or ():
        try:
            due = date.fromisoformat(str((one.get("type") or {}).get("text")))
            found.append(Part(due, Amount.of(one.get("valueMoney"))))
        except (ValueError, NoAmount):
            continue
    return found


def _first(given: str | None, today: date) -> date:
    latest = _month_later(today, 1)
    if given is None:
        return latest
    try:
        found = date.fromisoformat(given)
    except ValueError:
        message = "the first day has a year, month and day"
        raise Unprocessable(message, expression=parameter("first")) from None
    if not today <= found <= latest:
        message = f"the first part is paid from today on, and by {latest}"
        raise Unprocessable(message, expression=parameter("first"))
    return found


def _parts(policy: PracticePolicy, due: Amount, number: int, first: date) -> list[Part]:
    if policy.plan_months < _FEWEST:
        message = "this practice agrees on no plans here: ask it"
        raise NotSupported(message)
    if not _FEWEST <= number <= policy.plan_months:
        message = f"a plan has {_FEWEST} to {policy.plan_months} parts"
        raise Unprocessable(message, expression=parameter("parts"))
    least = Amount(policy.plan_least * 10 ** digits_of(due.currency), due.currency)
    each, rest = divmod(due.units, number)
    if each < least.units:
        message = f"a part is {least} at least"
        raise Unprocessable(message, expression=parameter("parts"))
    return [
        Part(
            _month_later(first, number_),
            Amount(each + (rest if number_ == number - 1 else 0), due.currency),
        )
        for number_ in range(number)
    ]


def _month_later(day: date, months: int) -> date:
    year, month = divmod(day.month - 1 + months, 12)
    last = calendar.monthrange(day.year + year, month + 1)[1]
    return date(day.year + year, month + 1, min(day.day, last))


def _written(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "restriction": {
            "repetitions": len(parts),
            "period": {"start": parts[0].due.isoformat(), "end": parts[-1].due.isoformat()},
        },
        "input": [
            {"type": {"text": one.due.isoformat()}, "valueMoney": one.amount.money} for one in parts
        ],
    }


async def _remind_later(
    transaction: ResourceTransaction,
    task: Row,
    practice: Practice,
    parts: Sequence[Part],
    *,
    now: float,
) -> None:
    for number, part in enumerate(parts):
        day = part.due - timedelta(days=REMINDER_DAYS)
        at = datetime.combine(day, _AT, ZoneInfo(practice.zone)).timestamp()
        await jobs.enqueue(
            transaction,
            key=f"{REMIND}.{task.key.id}.{number}",
            practice=practice.key,
            name=REMIND,
            now=now,
            due=max(at, now),
            arguments={"task": task.key.id, "part": str(number)},
        )


async def _remind(transaction: ResourceTransaction, server: Server, job: Job) -> None:
    """Tell those who can pay that a part is due, as things stand now."""
    key = ResourceKey("Task", job.arguments["task"])
    row = await transaction.read(key, Visibility.of_server("Task", practice=job.practice))
    tree = json.parse(row.body) if row is not None and not row.deleted else {}
    if row is None or tree.get("status") != RUNNING or not is_about(tree, PLAN):
        return
    if len(row.facts.owners) != 1:
        return  # an EHR made it nobody's
    invoice = next(filter(None, map(local_target, references_at(tree, "focus"))), None)
    if invoice is None or invoice.type != "Invoice":
        return
    due = await _due(transaction, job.practice, invoice)
    if due == 0:
        await _end(transaction, server, row, tree, "completed")
        return
    number = int(job.arguments["part"])
    parts = parts_of(tree)
    later = sum(one.amount.units for one in parts[number + 1 :])
    if due is None or due <= later or await is_held(transaction, job.practice, invoice):
        return  # so much was paid, or nobody asks for it now
    policy = await policy_of(transaction, job.practice)
    stream = outbox.Stream("bills", policy.messages_a_minute)
    for to, name in await to_whom(transaction, server, job.practice, row, _SECTION):
        await outbox.enqueue(
            transaction,
            key=f"bill-due.{key.id}.{number}.{name}",
            practice=job.practice,
            channel="mail",
            to=to,
            template="bill-due",
            now=server.clock(),
            stream=stream,
        )


async def _due(transaction: ResourceTransaction, practice: str, invoice: ResourceKey) -> int | None:
    """Return what is due of a bill, and not being paid; ``None`` where that cannot be said."""
    row = await transaction.read(invoice, Visibility.of_server("Invoice", practice=practice))
    if row is None or row.deleted:
        return 0
    try:
        balance = await balance_of(transaction, row)
    except NotReckoned:
        return None
    return balance.due.units or (None if balance.waiting else 0)


async def _end(
    transaction: ResourceTransaction,
    server: Server,
    row: Row,
    tree: Mapping[str, Any],
    status: str,
    *,
    client: str = "",
    why: str = "",
) -> Row:
    practice = row.facts.practice
    ended = {
        **tree,
        "status": status,
        "businessStatus": {"text": status},
        "lastModified": instant(int(server.clock() * _MICROSECONDS)),
        **({"statusReason": {"text": why}} if why else {}),
    }
    written = await update_in(
        transaction,
        server,
        acting_for(practice, client),
        ended,
        Visibility.of_server("Task", practice=practice),
        key=row.key,
        if_match=None,
        if_none_match=None,
    )
    return written.row
