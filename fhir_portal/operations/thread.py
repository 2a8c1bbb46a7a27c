"""``Communication/[id]/$thread``: a conversation as it is read, with who has read how far."""

from __future__ import annotations

from typing import Any, Final

from fhir_portal.accounts.messaging import Messaging, messaging_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import (
    MOST_SHOWN,
    MessagesRead,
    agent_of,
    is_practice_side,
    messages_of,
    thread_at,
    unread_of,
)
from fhir_portal.operations.threads import named_patient
from fhir_portal.resources.communication import is_taken_back

_SHOWN: Final = 50
_OF_TAKEN_BACK: Final = frozenset(
    "resourceType id meta identifier partOf status category subject sent sender".split()
)
_MOST_READERS: Final = 200


async def thread(call: Call) -> FhirResponse:
    """Return it; that it was read like this is in the access log, and marks nothing as read."""
    count = call.arguments.one("count")
    count = _SHOWN if count is None else int(str(count))
    if not 1 <= count <= MOST_SHOWN:
        message = f"1 to {MOST_SHOWN} messages"
        raise Unprocessable(message, expression=parameter("count"))
    reader, store, agent = call.server.reader, call.server.store, agent_of(call)
    found = await thread_at(call, reader)
    rows, more = await messages_of(reader, call, found.key.id, count=MOST_SHOWN)
    messages = [json.parse(row.body) for row in rows]
    policy = await messaging_of(store, call.auth.practice)
    readers = await store.find(
        MessagesRead, "thread", f"{call.auth.practice}/{found.key.id}", limit=_MOST_READERS
    )
    own = next((one for one in readers if one.agent == agent), None)
    answer: dict[str, Any] = {
        "thread": found.tree,
        "message": [_shown(one) for one in messages[:count][::-1]],
        "more": more or len(messages) > count,
        "unread": unread_of(messages, agent, own),
        "patient": await named_patient(call, found.patient) if call.auth.staff else None,
        "read": [
            {"who": {"reference": one.agent}, "upto": instant(one.upto * 1000)}
            for one in readers
            if _is_told(call, policy, one, agent)
        ],
    }
    return call.answer(answer, found.row)


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    """What was taken back is told, and not what it said."""
    if not is_taken_back(message):
        return message
    return {name: message[name] for name in message if name.lstrip("_") in _OF_TAKEN_BACK}


def _is_told(call: Call, policy: Messaging, read: MessagesRead, agent: str) -> bool:
    if read.agent == agent:
        return True
    if call.auth.staff is not None:
        return True
    return policy.read_receipts and is_practice_side(read.agent)
