"""``Communication/$send``: begin a conversation; thread, message and what follows, or nothing."""

from __future__ import annotations

from typing import Any

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.messaging import Messaging, messaging_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir.errors import Forbidden, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.attachments import files_of, stored
from fhir_portal.operations.authorship import restricted
from fhir_portal.operations.call import Call
from fhir_portal.operations.care_team import care_team
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_drafts import use_up
from fhir_portal.operations.message_thread import (
    LONGEST_SUBJECT,
    Thread,
    agent_of,
    answering,
    category_of_thread,
    draft_of,
    once,
    patient_of,
    plain_text,
    sent_before,
    state_of,
    thread_named,
    topic_concept,
    write_message,
)
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceTransaction, Row


async def send(call: Call) -> FhirResponse:
    """Begin a thread. Sent again under its identifier, the answer is that of the first time.

    Raises:
        Unprocessable: what is to be sent is not complete, or is not to be sent like this.
        Forbidden: to another record; confidentially, by a proxy.
        Conflict: the identifier stands for another message.
    """
    subject = plain_text(call.arguments.one("subject"), "subject", LONGEST_SUBJECT)
    patient = patient_of(call)
    topic, to = call.arguments.one("topic"), call.arguments.one("recipient")
    recipient = str((to or {}).get("reference") or "") or None
    confidential = call.arguments.one("confidential") is True
    if confidential and not (call.auth.is_self or call.auth.staff is not None):
        message = "who acts for a patient cannot write what others who do may not see"
        raise Forbidden(message, expression=parameter("confidential"))
    draft = draft_of(call, patient, subject, topic, recipient, confidential)
    files = await files_of(call)

    async def work(transaction: ResourceTransaction) -> tuple[Thread, str, list[Row], str | None]:
        await call.server.still(transaction, call.auth)
        policy = await messaging_of(transaction, call.auth.practice)
        before = await sent_before(transaction, call, draft)
        if before is not None:
            there = await thread_named(call, transaction, before.thread)
            return there, before.message, [there.row], policy.away.get(recipient or "")
        practice = await practice_of(transaction, call.auth.practice)
        tree = await _thread(
            transaction, call, policy, practice,
            patient=patient, topic=topic, recipient=recipient, subject=subject,
        )  # fmt: skip
        if confidential:
            tree["meta"] = restricted()
        attachments = await stored(transaction, call, files)
        payloads = [{"contentAttachment": one} for one in attachments]
        await use_up(transaction, call, patient)
        thread, row = await write_message(
            transaction, call, tree, draft, payloads, policy=policy, practice=practice
        )
        return thread, row.key.id, [thread.row, row], policy.away.get(recipient or "")

    thread, message, rows, away = await once(call, work)
    answer = state_of(thread) | {
        "message": {"reference": f"Communication/{message}"},
        "away": away,
    }
    return call.answer(answer, *rows)


async def _thread(
    transaction: ResourceTransaction,
    call: Call,
    policy: Messaging,
    practice: Practice,
    *,
    patient: str,
    topic: str | None,
    recipient: str | None,
    subject: str,
) -> dict[str, Any]:
    """Return what a new thread is, before anything is said in it."""
    about = policy.topic(topic)
    if topic is not None and about is None:
        message = "the practice has no such topic: $message-options lists those it has"
        raise Unprocessable(message, expression=parameter("topic"))
    visible = Visibility.of_record(
        "Patient",
        practice=call.auth.practice,
        record=patient,
        sections=None,
        labels=None,
    )
    row = await transaction.read(ResourceKey("Patient", patient), visible)
    if row is None or row.deleted:
        message = f"Patient/{patient} is not known"
        raise NotFound(message)
    to: list[dict[str, Any]] = []
    if call.auth.staff is not None:
        if recipient is not None:
            message = "staff write to the patient: leave recipient out"
            raise Unprocessable(message, expression=parameter("recipient"))
        to = [{"reference": agent_of(call)}]  # who wrote answers what comes back
    else:
        if call.arguments.one("warning") != policy.warning_code:
            message = f"read this first, and send its warning-code: {policy.warning}"
            raise Unprocessable(message, expression=parameter("warning"))
        if recipient is not None:
            if recipient not in await care_team(transaction, call, patient):
                message = "nobody of this name can be written to: $message-options lists who can"
                raise Unprocessable(message, expression=parameter("recipient"))
            to = [{"reference": recipient}]
        elif about is not None:
            to = answering(about, practice)
        else:
            message = "say what it is about, or to whom it goes"
            raise Unprocessable(message, expression=parameter("topic"))
    tree: dict[str, Any] = {
        "resourceType": "Communication",
        "status": "in-progress",
        "category": category_of_thread(),
        "subject": {"reference": f"Patient/{patient}"},
        "recipient": to,
        "sender": {"reference": agent_of(call)},
        "payload": [{"contentString": subject}],
    }
    if about is not None:
        tree["topic"] = topic_concept(about)
    # A new one waits for nobody yet: the first message says for whom it does.
    tree["status"] = "on-hold"
    return tree
