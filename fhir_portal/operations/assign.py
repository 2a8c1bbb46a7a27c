"""``Communication/[id]/$assign``: who of the practice answers a thread, and until when."""

from __future__ import annotations

from fhir_portal.access.relation import IdentityReader, works
from fhir_portal.accounts.levels import level_of
from fhir_portal.accounts.messaging import messaging_of
from fhir_portal.accounts.staff import StaffMember
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.close_thread import changed_thread, changing
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import (
    ANSWER_BY,
    WAITING,
    Thread,
    answering,
    set_extension,
    topic_concept,
)
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceTransaction

_MICROSECONDS = 1_000_000


async def assign(call: Call) -> FhirResponse:
    """Give a thread to somebody whose level lets them answer, or to whom its topic leads.

    Raises:
        Unprocessable: nobody of the staff who may answer; no such topic; a time that is over.
        Conflict: it is closed.
    """
    to = (call.arguments.one("to") or {}).get("reference")
    code, until = call.arguments.one("topic"), call.arguments.one("answer-by")
    if until is not None and period_of(until)[0] <= call.server.clock() * _MICROSECONDS:
        message = "this time is over"
        raise Unprocessable(message, expression=parameter("answer-by"))

    async def change(transaction: ResourceTransaction, thread: Thread) -> Thread:
        if not thread.is_open:
            message = "this conversation is closed"
            raise Conflict(message)
        policy = await messaging_of(transaction, call.auth.practice)
        topic = policy.topic(code if code is not None else thread.topic)
        if code is not None and topic is None:
            message = "the practice has no such topic"
            raise Unprocessable(message, expression=parameter("topic"))
        tree = dict(thread.tree)
        if code is not None and topic is not None:
            tree["topic"] = topic_concept(topic)
        if to is not None:
            if to not in await answering_staff(transaction, call.auth.practice):
                message = "this is nobody of the practice's staff who may answer messages"
                raise Unprocessable(message, expression=parameter("to"))
            tree["recipient"] = [{"reference": to}]
        else:
            practice = await practice_of(transaction, call.auth.practice)
            tree["recipient"] = answering(topic, practice)
        if until is not None:
            if thread.status != WAITING:
                message = "nobody waits for an answer in this conversation"
                raise Conflict(message)
            set_extension(tree, ANSWER_BY, "valueDateTime", until)
        return await changed_thread(transaction, call, thread, tree)

    return await changing(call, change)


async def answering_staff(reader: IdentityReader, practice: str) -> list[str]:
    """Return who of a practice's staff may answer messages, as ``Practitioner/<id>``, sorted."""
    found = set[str]()
    for member in await reader.find(StaffMember, "practice", practice):
        level = await level_of(reader, practice, member.level)
        may = level is not None and "messages" in level.conveys
        if may and await works(reader, member):
            found.add(member.practitioner)
    return sorted(found)
