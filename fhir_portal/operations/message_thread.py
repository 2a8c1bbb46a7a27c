"""Threads of messages: what they are in FHIR, and what every operation on them does with them.

A thread is a Communication without ``partOf`` of the category ``thread``; each message is another
that is part of it. The operations write them as the practice, after `decide_operation` has let the
caller in and the thread was found under what the caller may see. A message carries the labels of
its thread, so that what a teenager writes confidentially stays with them, answers included.

How far somebody has read is a record (`MessagesRead`), and not a version of a resource.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

import msgspec

from fhir_portal.access.classify import wholes_of
from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.messaging import MessageTopic, Messaging, answer_by
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import IG
from fhir_portal.consent.labels import PORTAL_TAG, WITHHELD
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.errors import Conflict, Forbidden, NotFound, Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.records import DuplicateRecord, Record
from fhir_portal.resources.communication import (
    CATEGORY,
    MESSAGE,
    THREAD,
    count_written,
    is_message,
    is_thread,
    stands_in,
)
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.resources.writing import create_in, update_in
from fhir_portal.search.request import parse_search

ANSWER_BY: Final = f"{IG}/StructureDefinition/answer-by"
LAST_MESSAGE: Final = f"{IG}/StructureDefinition/last-message"
TOPIC: Final = f"{IG}/CodeSystem/message-topic"
WAITING, ANSWERED, CLOSED = "in-progress", "on-hold", "completed"
LONGEST_TEXT: Final = 10_000
LONGEST_SUBJECT: Final = 150
MOST_SHOWN: Final = 200
_MOST_READERS: Final = 200
_MOST_SEEN: Final = 20
_KEPT_SECONDS: Final = 90 * 86_400.0
_MOST_AROUND: Final = 20
_EARLIEST, _LATEST = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond of the years that a calendar has."""
_AHEAD: Final = 86_400_000
_MILLISECONDS: Final = 1000
_MICROSECONDS: Final = 1_000_000
_LONGEST_IDENTIFIER: Final = 200
_MOST_SIGNS: Final = 80
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"

T = TypeVar("T")


class MessagesRead(Record, frozen=True, kw_only=True):
    """How far one participant has read a thread: ``key`` is ``<practice>/<thread>/<agent>``.

    ``agent`` is their ``Patient``, ``RelatedPerson`` or ``Practitioner/<id>``, ``account`` whose
    that was. ``upto`` is when what they read last was sent, in milliseconds since 1970 UTC, and
    ``late`` are the ids of messages that came after they had read what was sent later; ``seen`` the
    ids of the messages that were the newest here when they read.
    ``wrote`` says that they are of those who take part, and not only of those who look on.
    """

    kind: ClassVar[str] = "messages-read"
    indexed: ClassVar[tuple[str, ...]] = ("thread",)

    thread: str
    agent: str
    account: str
    upto: int
    wrote: bool = False
    late: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


class SentMessage(Record, frozen=True, kw_only=True):
    """What was sent under the identifier that stands, hashed with its sender, in the ``key``.

    ``asked`` is the hash of what was to be sent: the same identifier for something else is an
    error of the sender.
    """

    kind: ClassVar[str] = "message-identifier"

    asked: str
    thread: str
    message: str


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as it is stored."""

    row: Row
    tree: dict[str, Any]

    @property
    def key(self) -> ResourceKey:
        """``Communication/<id>``."""
        return self.row.key

    @property
    def status(self) -> str:
        """`WAITING`, `ANSWERED` or `CLOSED`."""
        return str(self.tree["status"])

    @property
    def is_open(self) -> bool:
        """Whether somebody may write in it: not if it is closed, or an EHR took it back."""
        return self.status in {WAITING, ANSWERED}

    @property
    def patient(self) -> str:
        """``Patient/<id>`` of whose record it is in."""
        return str(self.tree["subject"]["reference"])

    @property
    def topic(self) -> str | None:
        """The code of its topic."""
        return topic_of(self.tree)

    @property
    def last(self) -> int:
        """When its latest message was sent, in milliseconds since 1970 UTC."""
        said = extension(self.tree, LAST_MESSAGE, "valueInstant") or self.tree.get("sent")
        return _milliseconds(said)

    @property
    def answer_by(self) -> str | None:
        """When the practice wants to have answered."""
        return extension(self.tree, ANSWER_BY, "valueDateTime")


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants to say: plain text, and payloads for what goes with it."""

    identifier: Mapping[str, Any]
    text: str
    asked: str
    """The hash of all that was asked for."""
    sent_key: str
    """Under which `SentMessage` it is found again."""


def extension(tree: Mapping[str, Any], url: str, member: str) -> str | None:
    """Return the value of an extension of a resource, or ``None``."""
    for one in tree.get("extension") or ():
        if one.get("url") == url:
            return one.get(member)  # type: ignore[no-any-return]
    return None


def agent_of(call: Call) -> str:
    """Return as whom the caller reads and writes."""
    agent = call.auth.fhir_user
    if agent is None:
        message = "messages are read and written by people"
        raise Conflict(message)
    return agent


def patient_of(call: Call) -> str:
    """Return the id of the Patient whose record a call is in.

    Raises `Unprocessable` where nobody says which, `Forbidden` where it is not the token's.
    """
    given = (call.arguments.one("patient") or {}).get("reference")
    own = call.auth.patient or call.auth.staff_patient
    if given is None:
        if own is None:
            message = "say whose record it is in"
            raise Unprocessable(message, expression=parameter("patient"))
        return own
    name, _, own_id = str(given).partition("/")
    if name != "Patient" or not own_id or "/" in own_id:
        message = f"{str(given)[:_MOST_SIGNS]} is no reference to a Patient"
        raise Unprocessable(message, expression=parameter("patient"))
    if own is not None and own_id != own:
        message = "this token is for another record"
        raise Forbidden(message, expression=parameter("patient"))
    return own_id


def is_practice_side(reference: str) -> bool:
    """Whether who a reference names is not of the patient's side."""
    return not reference.startswith(("Patient/", "RelatedPerson/"))


def draft_of(call: Call, *rest: Any) -> Draft:
    """Return the words of a call; ``rest`` is what else makes it what it is.

    Raises `Unprocessable`: an identifier without system and value, no text, or not plain text.
    """
    identifier = call.arguments.one("identifier") or {}
    system, value = identifier.get("system"), identifier.get("value")
    own = {"system": system, "value": value}
    if not system or not value or len(system) + len(value) > _LONGEST_IDENTIFIER:
        message = f"give a system and a value, of {_LONGEST_IDENTIFIER} signs together"
        raise Unprocessable(message, expression=parameter("identifier"))
    text = plain_text(call.arguments.one("text"), "text", LONGEST_TEXT)
    files = [
        [one.get("contentType"), one.get("title"), _hash(str(one.get("data") or ""))]
        for one in call.arguments.all("attachment")
    ]
    asked = [call.definition.code, call.request.id, text, files, *rest]
    who = [call.auth.practice, agent_of(call), system, value]
    return Draft(own, text, _hash(*asked), _hash(*who))


def plain_text(given: Any, name: str, longest: int) -> str:
    """Return a text of a call. Raises `Unprocessable` for none, a long one, or control signs."""
    text = str(given or "").replace("\r\n", "\n").strip()
    shown = text.replace("\n", " ").replace("\t", " ") if longest == LONGEST_TEXT else text
    if not text or len(text) > longest or any(ord(one) < 32 or ord(one) == 127 for one in shown):  # noqa: PLR2004
        message = f"{name} is plain text of 1 to {longest} signs"
        raise Unprocessable(message, expression=parameter(name))
    return text


async def sent_before(
    transaction: ResourceTransaction, call: Call, draft: Draft
) -> SentMessage | None:
    """Return what was sent under this identifier. Raises `Conflict` if it was something else."""
    found = await transaction.get(SentMessage, draft.sent_key)
    if found is None or call.server.clock() >= (found.expires or 0.0):
        return None
    if found.asked != draft.asked:
        message = "this identifier was given to another message: take a new one for each"
        raise Conflict(message, expression=parameter("identifier"))
    return found


async def thread_at(call: Call, reader: ResourceReader) -> Thread:
    """Return the thread that a call is about.

    Raises `NotFound`, `Gone`; `Unprocessable` for what is no thread.
    """
    row = await call.target(reader)
    tree = json.parse(row.body)
    if not is_thread(tree):
        message = "this is not a thread of messages; name the one that it is part of"
        raise Unprocessable(message)
    return Thread(row, tree)


async def thread_named(call: Call, reader: ResourceReader, own_id: str) -> Thread:
    """Return a thread by its id, if the caller may see it. Raises `NotFound`."""
    row = await reader.read(ResourceKey("Communication", own_id), call.visible)
    if row is None or row.deleted:
        message = f"Communication/{own_id} is not known"
        raise NotFound(message)
    checked([row], call.visible)
    return Thread(row, json.parse(row.body))


async def write_message(
    transaction: ResourceTransaction,
    call: Call,
    thread: Thread | Mapping[str, Any],
    draft: Draft,
    files: Sequence[Mapping[str, Any]],
    *,
    policy: Messaging,
    practice: Practice,
    in_response_to: str | None = None,
) -> tuple[Thread, Row]:
    """Store a message, what becomes of its thread, and who did it; ``thread`` may be a new one's.

    ``files`` are payloads. The rights of the caller were asked again in this transaction.
    """
    agent, now = agent_of(call), call.server.clock()
    of_practice = call.auth.staff is not None
    if not of_practice:  # staff write as much as they need
        await count_written(transaction, call.auth.practice, agent, call.auth.patient, now=now)
    if isinstance(thread, Thread):
        tree, own_id = dict(thread.tree), thread.key.id
        sent = int(now * _MILLISECONDS)
        if thread.last < sent + _AHEAD:  # not of an EHR whose clock is wrong
            sent = max(sent, thread.last + 1)
    else:
        tree, own_id = dict(thread), call.server.new_id()
        sent = int(now * _MILLISECONDS)
    at = instant(sent * 1000)
    tree.setdefault("sent", at)
    _advance(tree, policy, practice, now=now, sent=at, of_practice=of_practice)
    if isinstance(thread, Thread):
        header = await update_thread(transaction, call, thread, tree)
    else:
        written = await create_in(
            transaction, call.server, call.as_practice, tree, _everything(call), resource_id=own_id
        )
        header = Thread(written.row, tree)
    meta = {name: value for name in ("security", "tag") if (value := _meta(tree).get(name))}
    to = {"reference": tree["subject"]["reference"]}
    message: dict[str, Any] = {
        "resourceType": "Communication",
        **({"meta": meta} if meta else {}),
        "identifier": [dict(draft.identifier)],
        "partOf": [{"reference": f"Communication/{own_id}"}],
        **({"inResponseTo": [{"reference": in_response_to}]} if in_response_to else {}),
        "status": "completed",
        "category": category_of_message(),
        **({"topic": tree["topic"]} if "topic" in tree else {}),
        "subject": {"reference": tree["subject"]["reference"]},
        "sent": at,
        "recipient": [to] if of_practice else tree.get("recipient", []),
        "sender": {"reference": agent},
        "payload": [{"contentString": draft.text}, *map(dict, files)],
    }
    if not message["recipient"]:
        del message["recipient"]
    written = await create_in(
        transaction, call.server, call.as_practice, message, _everything(call),
        resource_id=call.server.new_id(),
    )  # fmt: skip
    row = written.row
    await record_provenance(transaction, call, [str(row.key)], "CREATE")
    await read_upto(transaction, call, own_id, sent, wrote=True)
    await transaction.delete(SentMessage, draft.sent_key)  # of one whose time is over
    await transaction.insert(
        SentMessage(
            key=draft.sent_key,
            asked=draft.asked,
            thread=own_id,
            message=row.key.id,
            expires=now + _KEPT_SECONDS,
        )
    )
    return header, row


async def labels_around(
    reader: ResourceReader, call: Call, row: Row, message: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the ``meta`` of what is made of a message: its labels, and those of its thread.

    Others that it has follow by reference (`fhir_portal.access.closure`).
    """
    found: dict[str, list[Any]] = {}
    waiting, seen = [message], {str(row.key)}
    for _ in range(_MOST_AROUND):
        if not waiting:
            break
        tree = waiting.pop()
        for name in ("security", "tag"):
            kept = found.setdefault(name, [])
            kept += [one for one in _meta(tree).get(name) or () if one not in kept]
        for key in wholes_of(tree):
            if str(key) not in seen:
                seen.add(str(key))
                there = await reader.read(key, _everything(call))
                if there is not None and not there.deleted:
                    waiting.append(json.parse(there.body))
    return {name: value for name, value in found.items() if value}


async def once(call: Call, work: Callable[[ResourceTransaction], Awaitable[T]]) -> T:
    """Carry out a sending; of two that come at the same moment one is the other's repetition."""
    try:
        return await call.server.store.transact(work)
    except DuplicateRecord:
        return await call.server.store.transact(work)


async def update_thread(
    transaction: ResourceTransaction, call: Call, thread: Thread, tree: dict[str, Any]
) -> Thread:
    """Store what becomes of a thread; nobody has changed it since it was read."""
    written = await update_in(
        transaction, call.server, call.as_practice, dict(tree), _everything(call),
        key=thread.key, if_match=f'W/"{thread.row.version}"', if_none_match=None,
    )  # fmt: skip
    return Thread(written.row, tree)


def wait_for_answer(
    tree: dict[str, Any], policy: Messaging, practice: Practice, *, now: float
) -> None:
    """Note that the practice is to answer; who waits already is not put off."""
    if tree.get("status") == WAITING and extension(tree, ANSWER_BY, "valueDateTime"):
        return
    tree["status"] = WAITING
    topic = policy.topic(topic_of(tree)) or MessageTopic("", "")
    due = answer_by(now, topic.answer_hours, practice.zone)
    set_extension(tree, ANSWER_BY, "valueDateTime", instant(int(due * _MICROSECONDS)))


def set_extension(tree: dict[str, Any], url: str, member: str, value: str | None) -> None:
    """Set an extension of a resource, or take it away (``None``), in place."""
    kept = [one for one in tree.get("extension") or () if one.get("url") != url]
    if value is not None:
        kept.append({"url": url, member: value})
    tree.pop("extension", None)
    if kept:
        tree["extension"] = kept


async def read_upto(
    transaction: ResourceTransaction,
    call: Call,
    thread: str,
    sent: int,
    *,
    seen: Sequence[str] = (),
    wrote: bool = False,
) -> MessagesRead:
    """Note how far the caller has read, and the ids of what they saw, what came last first.

    Nothing is taken back.
    """
    agent, practice = agent_of(call), call.auth.practice
    key = f"{practice}/{thread}/{agent}"
    before = await transaction.get(MessagesRead, key)
    now = MessagesRead(
        key=key,
        thread=f"{practice}/{thread}",
        agent=agent,
        account=call.auth.account or "",
        upto=max(sent, before.upto if before else 0),
        wrote=wrote or (before is not None and before.wrote),
        late=tuple(one for one in before.late if one not in seen) if before else (),
        seen=tuple(seen)[:_MOST_SEEN] or (before.seen if before else ()),
    )
    if now != before:
        await transaction.put(now)
    return now


async def came_late(
    transaction: ResourceTransaction, practice: str, thread: str, message: Mapping[str, Any]
) -> None:
    """Have a message that came now be unread, for those too who read what was sent after it.

    Who looked at it before this was noted has read it.
    """
    readers = await transaction.find(
        MessagesRead, "thread", f"{practice}/{thread}", limit=_MOST_READERS
    )
    own_id = str(message["id"])
    for one in readers:
        if sent_at(message) <= one.upto and own_id not in {*one.late, *one.seen}:
            late = (*one.late, own_id)[-MOST_SHOWN:]
            await transaction.put(msgspec.structs.replace(one, late=late))


async def messages_of(
    reader: ResourceReader, call: Call, thread: str, *, count: int
) -> tuple[list[Row], bool]:
    """Return the latest messages of a thread, the latest first, and whether there are earlier ones.

    Of those that the caller may see.
    """
    search = parse_search(
        "Communication",
        [("part-of", f"Communication/{thread}"), ("_sort", "-sent"), ("_count", str(count))],
        base=call.server.base,
    )
    page = await reader.search(search, call.visible)
    return checked(page.rows, call.visible), page.next is not None


def unread_of(messages: Sequence[Mapping[str, Any]], agent: str, read: MessagesRead | None) -> int:
    """Return how many of these messages of others somebody has not read."""
    upto, late = (read.upto, read.late) if read is not None else (0, ())
    return sum(
        1
        for one in messages
        if stands_in(one)
        and (one.get("sender") or {}).get("reference") != agent
        and is_message(one)
        and (sent_at(one) > upto or one.get("id") in late)
    )


def sent_at(tree: Mapping[str, Any]) -> int:
    """Return when a message was sent, in milliseconds since 1970 UTC; 0 if it does not say."""
    return _milliseconds(tree.get("sent"))


async def record_provenance(
    transaction: ResourceTransaction,
    call: Call,
    targets: Sequence[str],
    activity: str,
    *,
    reason: str | None = None,
    for_staff: bool = False,
) -> None:
    """Store who did it: in their own name, and for whom they act.

    It is seen with what it is about, and by nobody else; ``for_staff`` by staff alone. Source: FHIR
    R4 §6.3.
    """
    agent: dict[str, Any] = {
        "type": {"coding": [{"system": _AGENT, "code": "author"}]},
        "who": {"reference": agent_of(call)},
    }
    if call.auth.record is not None and not call.auth.is_self:
        agent["onBehalfOf"] = {"reference": call.auth.record.patient}
    elif call.auth.staff is not None:
        agent["onBehalfOf"] = {"display": call.auth.staff.practice_name}
    tree = {
        "resourceType": "Provenance",
        **({"meta": {"tag": [{"system": PORTAL_TAG, "code": WITHHELD}]}} if for_staff else {}),
        "target": [{"reference": one} for one in targets],
        "recorded": instant(int(call.server.clock() * _MICROSECONDS)),
        **({"reason": [{"text": reason}]} if reason else {}),
        "activity": {"coding": [{"system": _OPERATION, "code": activity}]},
        "agent": [agent],
    }
    visible = Visibility.of_server("Provenance", practice=call.auth.practice)
    await create_in(
        transaction, call.server, call.as_practice, tree, visible,
        resource_id=call.server.new_id(),
    )  # fmt: skip


def state_of(thread: Thread) -> dict[str, Any]:
    """Return what the answers of operations say of a thread."""
    return {
        "thread": {"reference": str(thread.key)},
        "status": thread.status,
        "answer-by": thread.answer_by,
    }


def category_of_thread() -> list[dict[str, Any]]:
    """Return the category by which a thread is one."""
    return [{"coding": [{"system": CATEGORY, "code": THREAD}]}]


def category_of_message() -> list[dict[str, Any]]:
    """Return the category by which a message is one."""
    return [{"coding": [{"system": CATEGORY, "code": MESSAGE}]}]


def topic_of(tree: Mapping[str, Any]) -> str | None:
    """Return the code of a Communication's topic."""
    for coding in (tree.get("topic") or {}).get("coding") or ():
        if coding.get("system") == TOPIC and coding.get("code"):
            return str(coding["code"])
    return None


def topic_concept(topic: MessageTopic) -> dict[str, Any]:
    """Return a topic as it stands in a Communication."""
    return {
        "coding": [{"system": TOPIC, "code": topic.code, "display": topic.name}],
        "text": topic.name,
    }


def answering(topic: MessageTopic | None, practice: Practice) -> list[dict[str, Any]]:
    """Return whom a topic leads to: its own recipient, or the practice."""
    reference = (topic.recipient if topic else "") or practice.organization or ""
    key = local_target(reference)
    return [{"reference": str(key)}] if key is not None else [{"display": practice.name}]


def _advance(
    tree: dict[str, Any],
    policy: Messaging,
    practice: Practice,
    *,
    now: float,
    sent: str,
    of_practice: bool,
) -> None:
    """Write into a thread that a message was sent by one side."""
    if of_practice:
        tree["status"] = ANSWERED
        set_extension(tree, ANSWER_BY, "valueDateTime", None)
    else:
        wait_for_answer(tree, policy, practice, now=now)
    set_extension(tree, LAST_MESSAGE, "valueInstant", sent)


def _milliseconds(said: str | None) -> int:
    """Milliseconds since 1970 UTC; at the ends of the calendar, those that can be said in UTC."""
    if said is None:
        return 0
    return min(max(period_of(said)[0] // _MILLISECONDS, _EARLIEST), _LATEST)


def _meta(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tree.get("meta") or {}
    return found


def _everything(call: Call) -> Visibility:
    return Visibility.of_server("Communication", practice=call.auth.practice)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
