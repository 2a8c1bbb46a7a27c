"""The job of a message: the other side is told that there is one, and nothing of what it says.

Whoever wrote it, an operation or an EHR: the job is left by the write itself
(`fhir_portal.resources.event_rules`). Whom it is for is looked up when its turn comes, so that
nobody is told whose access has ended, or from whom a label keeps the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.context import acting_for
from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.staff import StaffMember
from fhir_portal.consent.grant import Grant, is_current
from fhir_portal.consent.labels import PROXY_LABELS, SELF_LABELS
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.notify.recipients import RECORD, to_account
from fhir_portal.operations.message_thread import (
    ANSWER_BY,
    ANSWERED,
    LAST_MESSAGE,
    WAITING,
    MessagesRead,
    Thread,
    came_late,
    is_practice_side,
    sent_at,
    set_extension,
)
from fhir_portal.operations.on_file import account_of_record
from fhir_portal.resources.communication import SENT, is_message, is_thread, stands_in
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import update_in

_MOST: Final = 100
_MILLISECONDS: Final = 1000
_DAY: Final = 86_400_000


def message_jobs(server: Server) -> Mapping[str, Work]:
    """Return the function of this job by its name, for `fhir_portal.notify.jobs.work_off`."""

    async def tell(held: Lease[Job]) -> None:
        job = held.work

        async def work(transaction: ResourceTransaction) -> None:
            await finish_in(transaction, held, now=server.clock())
            row = await _row(transaction, job.practice, f"Communication/{job.arguments['message']}")
            tree = {} if row is None else json.parse(row.body)
            if row is None or not is_message(tree) or not stands_in(tree):
                return
            header = await _row(transaction, job.practice, tree["partOf"][0].get("reference"))
            if header is None:
                return
            thread = json.parse(header.body)
            await came_late(transaction, job.practice, header.key.id, tree)
            if _labels(row) <= _labels(header):
                # Otherwise who sees the thread alone would learn that there is a message, and when.
                known = Thread(header, thread)
                await _note_in_thread(transaction, server, job.practice, known, tree)
            if "shown" in job.arguments:
                return  # of what was hidden until now nobody is sent anything
            sender = (tree.get("sender") or {}).get("reference") or ""
            if is_practice_side(sender):
                await _tell_patient(transaction, server, job.practice, row, tree)
            else:
                await _tell_staff(transaction, server, job.practice, tree, thread)

        await server.store.transact(work)

    return {SENT: tell}


def _labels(row: Row) -> frozenset[str]:
    return row.facts.visibility_class.labels


async def _tell_patient(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    row: Row,
    tree: Mapping[str, Any],
) -> None:
    labels = _labels(row)
    patient = local_target((tree.get("subject") or {}).get("reference") or "")
    if patient is None or patient.type != "Patient" or not labels <= SELF_LABELS:
        return
    await _enqueue(
        transaction, server, practice, tree, f"{RECORD}{practice}/{patient}", "message-new", "own"
    )
    if not labels <= PROXY_LABELS:
        return
    thread = str(tree["partOf"][0].get("reference")).rpartition("/")[2]
    readers = await transaction.find(MessagesRead, "thread", f"{practice}/{thread}", limit=_MOST)
    writers = {one.agent for one in readers if one.wrote and not is_practice_side(one.agent)}
    for grant in await transaction.find(Grant, "patient", patient.id):
        if grant.practice != practice or "messages" not in grant.sections:
            continue
        own_id = grant.related_person.rpartition("/")[2]
        proxy = ResourceKey("RelatedPerson", own_id)
        # A conversation of the patient's side is theirs who take part in it; what the practice
        # begins is for all who may see it.
        if not is_current(grant, server.clock()) or (writers and str(proxy) not in writers):
            continue
        account = await account_of_record(transaction, practice, proxy)
        found = await transaction.get(Account, account) if account is not None else None
        if found is None:
            continue
        relations = Relations(transaction, server.clock)
        record = await relations.record_of(found, practice, str(patient))
        if record is not None and record.fhir_user == str(proxy):
            await _enqueue(
                transaction, server, practice, tree, to_account(found.key), "message-new", own_id
            )


async def _tell_staff(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    tree: Mapping[str, Any],
    thread: Mapping[str, Any],
) -> None:
    """Tell who is to answer, if that is a person; a pool looks into its inbox."""
    answering = {one.get("reference") for one in thread.get("recipient") or ()}
    for member in await transaction.find(StaffMember, "practice", practice):
        if member.practitioner in answering:
            own_id = member.practitioner.rpartition("/")[2]
            to = to_account(member.account)
            await _enqueue(transaction, server, practice, tree, to, "message-for-staff", own_id)


async def _enqueue(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    tree: Mapping[str, Any],
    to: str,
    template: str,
    name: str,
) -> None:
    await outbox.enqueue(
        transaction,
        key=f"{template}.{tree['id']}.{name}",
        practice=practice,
        channel="mail",
        to=to,
        template=template,
        now=server.clock(),
    )


async def _note_in_thread(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    thread: Thread,
    message: Mapping[str, Any],
) -> None:
    """Note in a thread what an EHR has written into it, as `$reply` does of what staff write.

    Nobody waits any more for what was answered, and the thread stands where its latest message is.
    What the patient's side has said since waits on.
    """
    sent, now = sent_at(message), int(server.clock() * _MILLISECONDS)
    if not is_thread(thread.tree) or not thread.is_open or not thread.last <= sent < now + _DAY:
        return
    tree = dict(thread.tree)
    if sent > thread.last:
        set_extension(tree, LAST_MESSAGE, "valueInstant", instant(sent * 1000))
    sender = (message.get("sender") or {}).get("reference") or ""
    if is_practice_side(sender) and thread.status == WAITING:
        tree["status"] = ANSWERED
        set_extension(tree, ANSWER_BY, "valueDateTime", None)
    if tree != thread.tree:
        await update_in(
            transaction, server, acting_for(practice, ""), tree,
            Visibility.of_server("Communication", practice=practice),
            key=thread.key, if_match=None, if_none_match=None,
        )  # fmt: skip


async def _row(
    transaction: ResourceTransaction, practice: str, reference: str | None
) -> Row | None:
    key = local_target(reference or "")
    if key is None or key.type != "Communication":
        return None
    visible = Visibility.of_server("Communication", practice=practice)
    row = await transaction.read(key, visible)
    return None if row is None or row.deleted else row
