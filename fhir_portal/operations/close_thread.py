"""``Communication/[id]/$close`` and ``$reopen``: whether a conversation goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fhir_portal.accounts.messaging import messaging_of
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.message_thread import (
    ANSWER_BY,
    ANSWERED,
    CLOSED,
    Thread,
    record_provenance,
    set_extension,
    state_of,
    thread_at,
    update_thread,
    wait_for_answer,
)
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceTransaction

Change = Callable[[ResourceTransaction, Thread], Awaitable[Thread]]


async def close(call: Call) -> FhirResponse:
    """Close a thread; one that is closed stays as it is."""

    async def change(transaction: ResourceTransaction, thread: Thread) -> Thread:
        if not thread.is_open:
            return thread
        tree = dict(thread.tree)
        tree["status"] = CLOSED
        set_extension(tree, ANSWER_BY, "valueDateTime", None)
        return await changed_thread(transaction, call, thread, tree)

    return await changing(call, change)


async def reopen(call: Call) -> FhirResponse:
    """Open a closed thread; one that is open stays as it is."""

    async def change(transaction: ResourceTransaction, thread: Thread) -> Thread:
        if thread.status != CLOSED:
            return thread
        tree = dict(thread.tree)
        tree["status"] = ANSWERED
        if call.auth.staff is None:
            practice = await practice_of(transaction, call.auth.practice)
            policy = await messaging_of(transaction, practice.key)
            wait_for_answer(tree, policy, practice, now=call.server.clock())
        return await changed_thread(transaction, call, thread, tree)

    return await changing(call, change)


async def changing(call: Call, change: Change) -> FhirResponse:
    """Change a thread in one transaction and answer how it stands."""

    async def work(transaction: ResourceTransaction) -> Thread:
        await call.server.still(transaction, call.auth)
        return await change(transaction, await thread_at(call, transaction))

    thread = await call.server.store.transact(work)
    return call.answer(state_of(thread), thread.row)


async def changed_thread(
    transaction: ResourceTransaction, call: Call, thread: Thread, tree: dict[str, object]
) -> Thread:
    """Store what becomes of a thread, and who did it."""
    now = await update_thread(transaction, call, thread, tree)
    await record_provenance(transaction, call, [str(thread.key)], "UPDATE")
    return now
