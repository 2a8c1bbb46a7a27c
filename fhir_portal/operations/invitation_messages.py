"""The messages of an invitation: the link, and another way the security code."""

from __future__ import annotations

from fhir_portal.accounts.contacts import Medium
from fhir_portal.accounts.invitation import CODE_PREFIX, LINK_PREFIX, Invitation
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.notify import outbox
from fhir_portal.notify.outbox import Stream
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.invitation_way import SENT_BY_US, Way
from fhir_portal.operations.sending import Addressee, SendLog
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction


def stream_of(policy: PracticePolicy, author: Author) -> Stream:
    """Return to which messages those of an invitation belong: none waits for other beginners'."""
    return Stream(f"invitations.{author.kind}", policy.messages_a_minute)


async def send(
    transaction: ResourceTransaction,
    server: Server,
    invitation: Invitation,
    way: Way,
    *,
    now: float,
    template: str = "invitation-link",
    stream: Stream | None = None,
) -> None:
    """Write the messages of an attempt: the link, and to another contact the code.

    Each record that it opens tells of them, and of nobody else's.
    """
    link = SENT_BY_US.get(way.channel)
    if link is not None:
        await _send(
            transaction, server, invitation, template, link, way.to, LINK_PREFIX,
            now=now, stream=stream,
        )  # fmt: skip
    if way.code is not None:
        await _send(
            transaction, server, invitation, "invitation-code", way.code.medium, way.code.value,
            CODE_PREFIX, now=now, stream=stream,
        )  # fmt: skip


async def _send(
    transaction: ResourceTransaction,
    server: Server,
    invitation: Invitation,
    template: str,
    medium: Medium,
    to: str,
    prefix: str,
    *,
    now: float,
    stream: Stream | None,
) -> None:
    what = "link" if prefix == LINK_PREFIX else "code"
    key = f"invitation.{invitation.practice}.{invitation.task}.{invitation.attempt}.{what}"
    await outbox.enqueue(
        transaction,
        key=key,
        practice=invitation.practice,
        channel=medium,
        to=to,
        template=template,
        now=now,
        stream=stream,
        link_for=prefix + invitation.key,
        link_attempt=invitation.attempt,
    )
    tasks = (invitation.task, *invitation.tasks)
    await SendLog(server).log(
        transaction,
        key,
        practice=invitation.practice,
        channel=medium,
        template=template,
        addressees=[
            Addressee(patient, (person,), f"Task/{task}")
            for patient, person, task in zip(
                invitation.patients, invitation.persons, tasks, strict=True
            )
        ],
    )
