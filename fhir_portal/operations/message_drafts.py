"""``Communication/$save-draft``, ``$drafts`` and ``$discard-draft``: what somebody has begun.

A draft is a record and no resource: what nobody has sent is nobody else's, and no staff, EHR or
other person of the patient's side can come to it by any search.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Final

import msgspec

from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import NotFound, TooManyRequests, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import (
    LONGEST_SUBJECT,
    LONGEST_TEXT,
    TOPIC,
    agent_of,
    category_of_message,
    patient_of,
)
from fhir_portal.records import Record
from fhir_portal.resources.store import ResourceTransaction

MOST_DRAFTS: Final = 50
_LONGEST_NAME: Final = 100
_KEPT_SECONDS: Final = 180 * 86_400.0
_MICROSECONDS: Final = 1_000_000


class MessageDraft(Record, frozen=True, kw_only=True):
    """What somebody has begun to write in a record; ``owner`` is a hash of all that they are.

    ``saved`` is in seconds since 1970 UTC.
    """

    kind: ClassVar[str] = "message-draft"
    indexed: ClassVar[tuple[str, ...]] = ("owner",)

    owner: str
    patient: str
    saved: float
    thread: str | None = None
    topic: str | None = None
    recipient: str | None = None
    subject: str = ""
    text: str = ""


async def save_draft(call: Call) -> FhirResponse:
    """Keep a draft. Raises `NotFound` for one to replace that is not the caller's."""
    patient = patient_of(call)
    owner = owner_of(call, patient)
    named = call.arguments.one("draft")
    own_id = str(named) if named is not None else call.server.new_id()
    draft = MessageDraft(
        key=f"{owner}/{own_id}",
        owner=owner,
        patient=patient,
        saved=call.server.clock(),
        thread=_name("thread", (call.arguments.one("thread") or {}).get("reference")),
        topic=_name("topic", call.arguments.one("topic")),
        recipient=_name("recipient", (call.arguments.one("recipient") or {}).get("reference")),
        subject=_begun(call, "subject", LONGEST_SUBJECT),
        text=_begun(call, "text", LONGEST_TEXT),
        expires=call.server.clock() + _KEPT_SECONDS,
    )

    async def work(transaction: ResourceTransaction) -> None:
        await call.server.still(transaction, call.auth)
        before = await transaction.get(MessageDraft, draft.key)
        if named is not None and (before is None or not _is_in_reach(call, before)):
            message = "there is no such draft"
            raise NotFound(message, expression=parameter("draft"))
        if draft.thread is not None:
            await _require_seen(transaction, call, draft.thread)
        if named is None and len(await _of(transaction, owner)) >= MOST_DRAFTS:
            message = f"{MOST_DRAFTS} drafts are kept: send one, or throw it away"
            raise TooManyRequests(message)
        await transaction.put(draft)

    await call.server.store.transact(work)
    return call.answer({"draft": own_id})


async def drafts(call: Call) -> FhirResponse:
    """List the caller's own."""
    own = call.auth.patient or call.auth.staff_patient
    found = await _of(call.server.store, owner_of(call, own or ""))
    now = call.server.clock()
    listed = [
        _shown(call, one)
        for one in _latest(found)
        if now < (one.expires or 0.0) and _is_in_reach(call, one)
    ]
    return call.answer({"draft": listed})


async def discard_draft(call: Call) -> FhirResponse:
    """Remove one of the caller's own; said again, there is none."""
    own = call.auth.patient or call.auth.staff_patient
    key = f"{owner_of(call, own or '')}/{call.arguments.one('draft')}"

    async def work(transaction: ResourceTransaction) -> bool:
        await call.server.still(transaction, call.auth)
        before = await transaction.get(MessageDraft, key)
        if before is None or not _is_in_reach(call, before):
            return False
        return await transaction.delete(MessageDraft, key)

    return call.answer({"discarded": await call.server.store.transact(work)})


async def use_up(transaction: ResourceTransaction, call: Call, patient: str) -> None:
    """Remove the draft that a sending names, in its transaction; one that is gone is no fault."""
    named = call.arguments.one("draft")
    if named is not None:
        await transaction.delete(MessageDraft, f"{owner_of(call, patient)}/{named}")


def owner_of(call: Call, patient: str) -> str:
    """Return whose a draft is: of an account, in the one role and record it is used in.

    Staff have their drafts in the practice; each says for which patient it is.
    """
    in_record = "" if call.auth.staff is not None else patient
    who = [call.auth.practice, in_record, agent_of(call), call.auth.account]
    return hashlib.sha256(msgspec.json.encode(who)).hexdigest()


async def _of(reader: Any, owner: str) -> list[MessageDraft]:
    found: list[MessageDraft] = await reader.find(MessageDraft, "owner", owner, limit=MOST_DRAFTS)
    return found


def _latest(found: list[MessageDraft]) -> list[MessageDraft]:
    return sorted(found, key=lambda one: (-one.saved, one.key))


def _is_in_reach(call: Call, draft: MessageDraft) -> bool:
    """Whether a draft is of the record that a token is for: staff have theirs in the practice."""
    own = call.auth.staff_patient
    return own is None or draft.patient == own


def _name(name: str, given: Any) -> str | None:
    """Return a code or a reference of a call. Raises `Unprocessable` for a long one."""
    if given is None:
        return None
    if len(str(given)) > _LONGEST_NAME:
        message = f"{name} has at most {_LONGEST_NAME} signs"
        raise Unprocessable(message, expression=parameter(name))
    return str(given)


def _begun(call: Call, name: str, longest: int) -> str:
    text = str(call.arguments.one(name) or "")
    if len(text) > longest or any(ord(one) < 32 and one not in "\r\n\t" for one in text):  # noqa: PLR2004
        message = f"{name} is plain text of at most {longest} signs"
        raise Unprocessable(message, expression=parameter(name))
    return text


async def _require_seen(transaction: ResourceTransaction, call: Call, reference: str) -> None:
    """Raise `NotFound` for a thread that is not there for the caller."""
    name, _, own_id = reference.partition("/")
    row = None
    if name == "Communication" and own_id and "/" not in own_id:
        row = await transaction.read(ResourceKey(name, own_id), call.visible)
    if row is None or row.deleted:
        message = "there is no such thread"
        raise NotFound(message, expression=parameter("thread"))


def _shown(call: Call, draft: MessageDraft) -> dict[str, Any]:
    payload = [{"contentString": one} for one in (draft.subject, draft.text) if one]
    tree: dict[str, Any] = {
        "resourceType": "Communication",
        "id": draft.key.rpartition("/")[2],
        "meta": {"lastUpdated": instant(int(draft.saved * _MICROSECONDS))},
        **({"partOf": [{"reference": draft.thread}]} if draft.thread else {}),
        "status": "preparation",
        "category": category_of_message(),
        "subject": {"reference": f"Patient/{draft.patient}"},
        "sender": {"reference": agent_of(call)},
    }
    if draft.topic:
        tree["topic"] = {"coding": [{"system": TOPIC, "code": draft.topic}]}
    if draft.recipient:
        tree["recipient"] = [{"reference": draft.recipient}]
    if payload:
        tree["payload"] = payload
    return tree
