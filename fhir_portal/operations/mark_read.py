"""``Communication/[id]/$mark-read``: how far the caller has read a thread."""

from __future__ import annotations

from typing import Any, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.messaging import Messaging, messaging_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import (
    MOST_SHOWN,
    agent_of,
    is_practice_side,
    messages_of,
    read_upto,
    sent_at,
    thread_at,
    unread_of,
)
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import update_in

_MICROSECONDS: Final = 1_000_000


async def mark_read(call: Call) -> FhirResponse:
    """Note it, and on messages when they were first read by whom they are for.

    That is the patient, for what the practice wrote, and not who acts for them; for what the
    patient's side wrote it is staff, and noted only if the practice lets that be known.
    """
    named = (call.arguments.one("upto") or {}).get("reference")

    async def work(transaction: ResourceTransaction) -> tuple[Row, int]:
        await call.server.still(transaction, call.auth)
        thread = await thread_at(call, transaction)
        rows, _ = await messages_of(transaction, call, thread.key.id, count=MOST_SHOWN)
        messages = [json.parse(row.body) for row in rows]
        latest = max(map(sent_at, messages), default=thread.last)
        if named is not None:
            found = [one for one in messages if f"Communication/{one['id']}" == named]
            if not found:
                message = "this is not one of the thread's messages"
                raise Unprocessable(message, expression=parameter("upto"))
            latest = sent_at(found[0])
        newest = sorted(rows, key=lambda row: row.updated, reverse=True)
        unseen = {one["id"] for one in messages if sent_at(one) > latest}
        seen = [row.key.id for row in newest if row.key.id not in unseen]
        read = await read_upto(transaction, call, thread.key.id, latest, seen=seen)
        policy = await messaging_of(transaction, call.auth.practice)
        for row, tree in zip(rows, messages, strict=True):
            if (
                "received" not in tree
                and sent_at(tree) <= read.upto
                and _is_for(call, policy, tree)
            ):
                await _receive(transaction, call, row, tree)
        return thread.row, unread_of(messages, agent_of(call), read)

    row, unread = await call.server.store.transact(work)
    return call.answer({"thread": {"reference": str(row.key)}, "unread": unread}, row)


def _is_for(call: Call, policy: Messaging, tree: dict[str, Any]) -> bool:
    of_practice = is_practice_side((tree.get("sender") or {}).get("reference") or "")
    if call.auth.staff is not None:
        return policy.read_receipts and not of_practice
    return of_practice and call.auth.is_self


async def _receive(
    transaction: ResourceTransaction, call: Call, row: Row, tree: dict[str, Any]
) -> None:
    tree["received"] = instant(int(call.server.clock() * _MICROSECONDS))
    visible = Visibility.of_server("Communication", practice=call.auth.practice)
    await update_in(
        transaction, call.server, call.as_practice, tree, visible,
        key=row.key, if_match=f'W/"{row.version}"', if_none_match=None,
    )  # fmt: skip
