"""The conversation with the front desk of somebody who has said that they are here.

It is a thread like others, about the Appointment, and led to whom the topic of appointments is for.
It says nothing by itself and waits for nobody: the first word is the patient's. It is closed when
the arrival is taken back, when the practice has gone on, and some time after the visit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.messaging import is_present, messaging_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.notify.jobs import Job
from fhir_portal.operations.appointments import next_version
from fhir_portal.operations.call import Call, acting_for
from fhir_portal.operations.message_thread import (
    ANSWER_BY,
    ANSWERED,
    CLOSED,
    LAST_MESSAGE,
    agent_of,
    answering,
    category_of_thread,
    record_provenance,
    set_extension,
    topic_concept,
)
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.records import Record
from fhir_portal.resources.event_rules import VISIT_OVER
from fhir_portal.resources.permission import checked, permitted_or_none
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in

SECTION: Final = "messages"
TOPIC: Final = "appointment"
SUBJECT: Final = "Here for an appointment"
AFTER_SECONDS: Final = 2 * 3600.0
"""So long after the end of the appointment it stays open."""
LONGEST_SECONDS: Final = 12 * 3600.0
"""So long at most, where the practice never says that the visit is over."""
_STILL: Final = frozenset({"arrived", "checked-in"})
_MICROSECONDS: Final = 1_000_000
_DAY: Final = 86_400.0


class VisitThread(Record, frozen=True, kw_only=True):
    """The thread (an id) of an arrival; ``key`` is ``<practice>/<id of the Appointment>``."""

    kind: ClassVar[str] = "visit-thread"

    thread: str


async def open_for(
    transaction: ResourceTransaction, call: Call, row: Row, tree: Mapping[str, Any]
) -> None:
    """Open the thread of an arrival, or open it again; for whoever may write messages.

    An EHR or somebody at the desk who says it for the patient opens none.
    """
    record = call.auth.record
    if record is None or not (call.auth.is_self or SECTION in record.act):
        return
    practice = await practice_of(transaction, call.auth.practice)
    key = f"{practice.key}/{row.facts.id}"
    found = await transaction.get(VisitThread, key)
    if found is not None:
        if await _set(transaction, call.server, practice.key, found.thread, ANSWERED):
            await record_provenance(transaction, call, [_named(found.thread)], "UPDATE")
    else:
        policy = await messaging_of(transaction, practice.key)
        topic = policy.topic(TOPIC)
        at = instant(int(call.server.clock() * _MICROSECONDS))
        meta = tree.get("meta") or {}
        labels = {name: meta[name] for name in ("security", "tag") if meta.get(name)}
        thread: dict[str, Any] = {
            "resourceType": "Communication",
            **({"meta": labels} if labels else {}),
            "status": ANSWERED,
            "category": category_of_thread(),
            **({"topic": topic_concept(topic)} if topic is not None else {}),
            "subject": {"reference": record.patient},
            "about": [{"reference": str(row.key)}],
            "sent": at,
            "recipient": answering(topic, practice),
            "sender": {"reference": agent_of(call)},
            "payload": [{"contentString": SUBJECT}],
        }
        set_extension(thread, LAST_MESSAGE, "valueInstant", at)
        own_id = call.server.new_id()
        everything = Visibility.of_server("Communication", practice=practice.key)
        await create_in(
            transaction, call.server, call.as_practice, thread, everything, resource_id=own_id
        )
        await record_provenance(transaction, call, [_named(own_id)], "CREATE")
        expires = call.server.clock() + 30 * _DAY
        await transaction.put(VisitThread(key=key, thread=own_id, expires=expires))
    await _close_later(transaction, practice.key, row.facts.id, tree, now=call.server.clock())


async def close_for(transaction: ResourceTransaction, call: Call, appointment: str) -> None:
    """Close it: the arrival was taken back."""
    practice = call.auth.practice
    found = await transaction.get(VisitThread, f"{practice}/{appointment}")
    if found is not None:
        await _set(transaction, call.server, practice, found.thread, CLOSED)


async def close_after(transaction: ResourceTransaction, server: Server, job: Job) -> None:
    """Close it after the visit: what the job is for. While somebody is there it waits."""
    own_id, now = job.arguments["appointment"], server.clock()
    found = await transaction.get(VisitThread, f"{job.practice}/{own_id}")
    if found is None:
        return
    visible = Visibility.of_server("Appointment", practice=job.practice)
    row = await transaction.read(ResourceKey("Appointment", own_id), visible)
    tree = {} if row is None or row.deleted else json.parse(row.body)
    if tree.get("status") in _STILL and now < _end(tree) + LONGEST_SECONDS:
        if now >= _end(tree):  # the visit takes longer than it was to
            await _close_later(transaction, job.practice, own_id, tree, now=now)
        return
    await _set(transaction, server, job.practice, found.thread, CLOSED)


async def seen_by(call: Call, appointment: str) -> dict[str, Any]:
    """Return what a caller is told of the thread: itself, and whether somebody is at the desk."""
    practice = call.auth.practice
    found = await call.server.store.get(VisitThread, f"{practice}/{appointment}")
    visible = permitted_or_none(call.server, call.auth, "r", "Communication")
    if found is None or visible is None:
        return {}
    row = await call.server.store.read(ResourceKey("Communication", found.thread), visible)
    if row is None or row.deleted:
        return {}
    checked([row], visible)
    now = call.server.clock()
    return {
        "thread": {"reference": str(row.key)},
        "staff-present": await is_present(call.server.store, practice, now=now),
    }


async def _set(
    transaction: ResourceTransaction, server: Server, practice: str, thread: str, status: str
) -> bool:
    """Open or close a thread; false where it is so already, or is gone."""
    visible = Visibility.of_server("Communication", practice=practice)
    row = await transaction.read(ResourceKey("Communication", thread), visible)
    if row is None or row.deleted:
        return False
    tree = json.parse(row.body)
    if (tree["status"] == CLOSED) == (status == CLOSED):
        return False  # what waits for an answer goes on waiting
    tree["status"] = status
    set_extension(tree, ANSWER_BY, "valueDateTime", None)
    await next_version(server, transaction, acting_for(practice, ""), row, tree)
    return True


async def _close_later(
    transaction: ResourceTransaction,
    practice: str,
    appointment: str,
    tree: Mapping[str, Any],
    *,
    now: float,
) -> None:
    due = max(_end(tree), now) + AFTER_SECONDS
    await jobs.enqueue(
        transaction,
        key=f"{VISIT_OVER}.{practice}.{appointment}.{int(due)}",
        practice=practice,
        name=VISIT_OVER,
        now=now,
        due=due,
        arguments={"appointment": appointment},
    )


def _end(tree: Mapping[str, Any]) -> float:
    text = tree.get("end") or tree.get("start")
    return period_of(str(text))[0] / _MICROSECONDS if text else 0.0


def _named(thread: str) -> str:
    return f"Communication/{thread}"
