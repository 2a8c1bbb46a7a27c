"""``Communication/$threads``: the inbox of staff, and the conversations of the patient's side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import name_of
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.messaging import be_present
from fhir_portal.consent.labels import PROXY_LABELS
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.errors import Forbidden, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import (
    ANSWERED,
    CLOSED,
    WAITING,
    MessagesRead,
    Thread,
    agent_of,
    messages_of,
    topic_of,
    unread_of,
)
from fhir_portal.resources.communication import CATEGORY, MESSAGE, THREAD, is_taken_back, is_thread
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import Row
from fhir_portal.search.request import MAX_COUNT, parse_search

MOST_THREADS: Final = 1000
MOST_SEARCHED: Final = 2000
_SHOWN, _MOST_SHOWN = 50, 100
_UNREAD_OF: Final = 50
_LONGEST_TEXT: Final = 100
_MICROSECONDS: Final = 1_000_000
_STATES: Final = (WAITING, ANSWERED, CLOSED)


async def threads(call: Call) -> FhirResponse:
    """List them.

    Raises:
        Unprocessable: a status, an assignment or a number that there is not.
        Forbidden: of another record than the token's.
    """
    status, assigned = _one_of(call, "status", (*_STATES, "all")), None
    count = _number(call, "count", _SHOWN, least=1, most=_MOST_SHOWN)
    start = _number(call, "from", 0, least=0, most=MOST_THREADS)
    if call.auth.staff is not None:
        assigned = _one_of(call, "assigned", ("me", "nobody"))
    elif call.arguments.one("assigned") is not None:
        message = "who answers is for staff to ask"
        raise Forbidden(message, expression=parameter("assigned"))
    patient = _patient(call)
    if call.auth.staff is not None:
        await be_present(call.server.store, call.auth.practice, now=call.server.clock())
    if status is None:
        status = WAITING if call.auth.staff is not None and patient is None else "all"
    wanted = None if status == "all" else status
    containing = await _containing(call, patient)
    topic = call.arguments.one("topic")
    found = []
    async for row in _rows(call, THREAD, patient, wanted, most=MOST_THREADS):
        thread = Thread(row, json.parse(row.body))
        if not is_thread(thread.tree) or (topic is not None and thread.topic != topic):
            continue
        if containing is not None and not _contains(thread, containing):
            continue
        if assigned is None or _is_assigned(call, thread, assigned):
            found.append(thread)
    found.sort(key=_by_due if call.auth.staff is not None else _by_latest)
    shown = found[start : start + count]
    return await _answered(call, found, shown)


async def _answered(call: Call, found: Sequence[Thread], shown: Sequence[Thread]) -> FhirResponse:
    told, unread = [], 0
    for thread in shown:
        part = await _told(call, thread)
        unread += part.get("unread") or 0
        told.append(part)
    answer: dict[str, Any] = {"total": len(found), "thread": told}
    if call.auth.staff is None:
        answer["unread"] = unread
    return call.answer(answer, *(thread.row for thread in shown))


async def _told(call: Call, thread: Thread) -> dict[str, Any]:
    payload = (thread.tree.get("payload") or [{}])[0]
    topic = thread.tree.get("topic") or {}
    assigned = next(iter(thread.tree.get("recipient") or ()), None)
    due = thread.answer_by
    part: dict[str, Any] = {
        "what": {"reference": str(thread.key)},
        "subject": payload.get("contentString") or "(no subject)",
        "status": thread.status,
        "topic": topic.get("text") or topic_of(thread.tree),
        "assigned": assigned,
        "answer-by": due,
        "last": instant(thread.last * 1000),
        "overdue": due is not None and _due_at(due) < call.server.clock() * _MICROSECONDS,
        "confidential": not thread.row.facts.visibility_class.labels <= PROXY_LABELS,
    }
    if call.auth.staff is not None:
        part["patient"] = await named_patient(call, thread.patient)
        return part
    agent, own_id = agent_of(call), thread.key.id
    rows, _ = await messages_of(call.server.reader, call, own_id, count=_UNREAD_OF)
    read = await call.server.store.get(MessagesRead, f"{call.auth.practice}/{own_id}/{agent}")
    messages = [json.parse(row.body) for row in rows]
    part["unread"] = unread_of(messages, agent, read)
    return part


async def named_patient(call: Call, patient: str) -> dict[str, str]:
    """Return who a conversation is with: whoever may answer it has to know that."""
    key = local_target(patient)
    if key is None or key.type != "Patient":
        return {"reference": patient}
    visible = Visibility.of_server("Patient", practice=call.auth.practice)
    row = await call.server.reader.read(key, visible)
    if row is None or row.deleted:
        return {"reference": patient}
    return {"reference": patient, "display": name_of(json.parse(row.body))}


async def _containing(call: Call, patient: str | None) -> tuple[str, frozenset[str]] | None:
    """Return the words that are sought, and the threads in whose messages they stand."""
    words = call.arguments.one("text")
    if words is None:
        return None
    sought = " ".join(str(words).split()).casefold()
    if not 1 <= len(sought) <= _LONGEST_TEXT:
        message = f"1 to {_LONGEST_TEXT} signs"
        raise Unprocessable(message, expression=parameter("text"))
    found = set[str]()
    async for row in _rows(call, MESSAGE, patient, None, most=MOST_SEARCHED):
        tree = json.parse(row.body)
        if not is_taken_back(tree) and sought in _words(tree):
            found |= {one.get("reference") or "" for one in tree.get("partOf") or ()}
    return sought, frozenset(found)


def _contains(thread: Thread, containing: tuple[str, frozenset[str]]) -> bool:
    sought, there = containing
    return str(thread.key) in there or sought in _words(thread.tree)


def _words(tree: Mapping[str, Any]) -> str:
    said = [str(one.get("contentString") or "") for one in tree.get("payload") or ()]
    return " ".join(" ".join(said).split()).casefold()


async def _rows(
    call: Call, category: str, patient: str | None, status: str | None, *, most: int
) -> AsyncIterator[Row]:
    """Yield what the caller may see of a category, the latest first: so many at most."""
    query = [("category", f"{CATEGORY}|{category}"), ("_sort", "-sent"), ("_count", str(MAX_COUNT))]
    if patient is not None:
        query.append(("subject", f"Patient/{patient}"))
    if status is not None:
        query.append(("status", status))
    search = parse_search("Communication", query, base=call.server.base)
    after: Sequence[Any] | None = None
    seen = 0
    while seen < most:
        page = await call.server.reader.search(search, call.visible, after=after)
        for row in checked(page.rows, call.visible):
            seen += 1
            yield row
        after = page.next
        if after is None:
            return


def _patient(call: Call) -> str | None:
    own = call.auth.patient or call.auth.staff_patient
    named = call.arguments.one("patient")
    if named is None:
        return own
    name, _, own_id = str(named).rpartition("/")
    if name not in {"", "Patient"} or not own_id or (own is not None and own_id != own):
        message = "this token is for another record"
        raise Forbidden(message, expression=parameter("patient"))
    return own_id


def _is_assigned(call: Call, thread: Thread, assigned: str) -> bool:
    answering = [str(one.get("reference") or "") for one in thread.tree.get("recipient") or ()]
    if assigned == "me":
        return agent_of(call) in answering
    return not any(one.startswith("Practitioner/") for one in answering)


def _by_due(thread: Thread) -> tuple[int, int, str]:
    due = thread.answer_by
    return (0 if due is not None else 1, _due_at(due) if due else -thread.last, thread.key.id)


def _by_latest(thread: Thread) -> tuple[int, str]:
    return -thread.last, thread.key.id


def _due_at(text: str) -> int:
    return period_of(text)[1]


def _one_of(call: Call, name: str, known: Sequence[str]) -> str | None:
    value = call.arguments.one(name)
    if value is not None and value not in known:
        message = f"{name} is one of {', '.join(known)}"
        raise Unprocessable(message, expression=parameter(name))
    return None if value is None else str(value)


def _number(call: Call, name: str, otherwise: int, *, least: int, most: int) -> int:
    given = call.arguments.one(name)
    value = otherwise if given is None else int(str(given))
    if not least <= value <= most:
        message = f"{name} is {least} to {most}"
        raise Unprocessable(message, expression=parameter(name))
    return value
