"""``Communication/[id]/$reply``: another message of a thread."""

from __future__ import annotations

from typing import Final

from fhir_portal.accounts.messaging import messaging_of
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.attachments import files_of, stored
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_drafts import use_up
from fhir_portal.operations.message_thread import (
    MOST_SHOWN,
    Thread,
    draft_of,
    messages_of,
    once,
    sent_before,
    state_of,
    thread_at,
    write_message,
)
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceTransaction, Row


async def reply(call: Call) -> FhirResponse:
    """Write in a thread that is not closed. Sent again under its identifier, it is there once.

    Raises:
        Conflict: the thread is closed, or the identifier stands for another message.
        Unprocessable: it answers what is not in the thread, or cannot be sent like this.
    """
    named = (call.arguments.one("in-response-to") or {}).get("reference")
    draft = draft_of(call, named)
    if call.arguments.all("attachment"):  # none is looked at for what cannot be answered
        _require_open(await thread_at(call, call.server.reader))
    files = await files_of(call)

    async def work(transaction: ResourceTransaction) -> tuple[Thread, str, list[Row]]:
        await call.server.still(transaction, call.auth)
        thread = await thread_at(call, transaction)
        before = await sent_before(transaction, call, draft)
        if before is not None:
            return thread, before.message, [thread.row]
        _require_open(thread)
        answered = await _answered(transaction, call, thread, named)
        practice = await practice_of(transaction, call.auth.practice)
        policy = await messaging_of(transaction, practice.key)
        attachments = await stored(transaction, call, files)
        payloads = [{"contentAttachment": one} for one in attachments]
        await use_up(transaction, call, thread.patient.partition("/")[2])
        now, row = await write_message(
            transaction, call, thread, draft, payloads,
            policy=policy, practice=practice, in_response_to=answered,
        )  # fmt: skip
        return now, row.key.id, [now.row, row]

    thread, message, rows = await once(call, work)
    return call.answer(
        state_of(thread) | {"message": {"reference": f"Communication/{message}"}}, *rows
    )


def _require_open(thread: Thread) -> None:
    if not thread.is_open:
        message = "this conversation is closed: open it again by $reopen, or begin another"
        raise Conflict(message)


async def _answered(
    transaction: ResourceTransaction, call: Call, thread: Thread, named: str | None
) -> str | None:
    """Return the message that is answered: one of the thread, or its latest."""
    count = MOST_SHOWN if named is not None else _LATEST
    rows, _ = await messages_of(transaction, call, thread.key.id, count=count)
    # Who sees the answer would learn of a message that is hidden from them.
    seen = thread.row.facts.visibility_class.labels
    told = [str(row.key) for row in rows if row.facts.visibility_class.labels <= seen]
    if named is None:
        return told[0] if told else None
    if named not in told:
        message = "this is not one of the thread's messages, or more hidden than the thread"
        raise Unprocessable(message, expression=parameter("in-response-to"))
    return named


_LATEST: Final = 20
"""Of these, the answer is to the first that everybody sees who sees the thread."""
