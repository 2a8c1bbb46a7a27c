"""New contacts of a record: a code goes to each, and one that leaves the record is told so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fhir_portal.accounts.contacts import verified_contacts
from fhir_portal.accounts.one_time_code import KEY_PURPOSE, Challenge, OneTimeCodes
from fhir_portal.accounts.own_contacts import CODES_BY_ACCOUNT, CODES_TO_CONTACT
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.throttle import Throttle, TooManyAttempts
from fhir_portal.fhir.errors import TooManyRequests, Unprocessable
from fhir_portal.notify import outbox
from fhir_portal.notify.one_time_codes import OutboxCodes
from fhir_portal.notify.recipients import to_address
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import agent_of
from fhir_portal.operations.on_file import OnFile, contacts_on_file
from fhir_portal.resources.store import ResourceTransaction

MOST_NEW: Final = 3
"""Contacts that are proposed at once."""
NOTICE: Final = "security-contact-on-file"


def codes_of(call: Call) -> OneTimeCodes:
    """Return what makes and knows one-time codes."""
    return OneTimeCodes(
        call.collaborators.derive(KEY_PURPOSE),
        clock=call.server.clock,
        random=call.collaborators.random,
    )


def browser_of(call: Call) -> str:
    """Return in whose name a code is asked for: no matter by which app, and nobody else's."""
    return f"{call.auth.practice} {call.auth.account} {agent_of(call)}"


async def new_contacts(
    call: Call, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[OnFile]:
    """Return the contacts that a Patient would have and has not, and nobody has proved.

    Those of the caller's own account are proved. Raises `Unprocessable` for too many at once.
    """
    now = call.server.clock()
    country = (await policy_of(call.server.store, call.auth.practice)).country
    there = contacts_on_file(before, country=country, now=now)
    found = [one for one in contacts_on_file(after, country=country, now=now) if one not in there]
    account = call.auth.account
    if found and account:
        own = {(c.medium, c.value) for c in await verified_contacts(call.server.store, account)}
        found = [one for one in found if (one.medium, one.value) not in own]
    if len(found) > MOST_NEW:
        message = f"at most {MOST_NEW} new addresses and numbers at once"
        raise Unprocessable(message, expression=parameter("patient"))
    return found


async def count_codes(call: Call, contacts: Sequence[OnFile]) -> None:
    """Count codes before they are sent. Raises `TooManyRequests`."""
    throttle = Throttle(call.server.store, call.server.clock)
    try:
        for one in contacts:
            await throttle.limit(CODES_BY_ACCOUNT, f"contact codes of {call.auth.account}")
            await throttle.limit(CODES_TO_CONTACT, f"contact codes to {one.value}")
    except TooManyAttempts as error:
        message = "many codes were asked for: try again later"
        raise TooManyRequests(message, retry_after=error.retry_after) from None


async def send_code(
    transaction: ResourceTransaction, call: Call, task: str, contact: OnFile
) -> None:
    """Send a code to a contact that a Task (its id) proposes."""
    challenge = codes_of(call).challenge(
        "record-contact",
        subject=subject_of(call, task, contact),
        browser=browser_of(call),
        medium=contact.medium,
        to=contact.value,
    )
    kept = await codes_of(call).keep(transaction, challenge)
    if not kept.for_nobody:
        send = OutboxCodes().send(kept, practice=call.auth.practice, now=call.server.clock())
        await send(transaction)


async def challenge_of(call: Call, task: str, contact: OnFile) -> str:
    """Return the challenge that was sent last for a contact of a Task; ``""`` for none."""
    subject = subject_of(call, task, contact)
    found = await call.server.store.find(Challenge, "subject", subject)
    waiting = [one for one in found if call.server.clock() < one.expires]
    return max(waiting, key=lambda one: one.expires).key if waiting else ""


def subject_of(call: Call, task: str, contact: OnFile) -> str:
    """Return what a code is for."""
    return f"{call.auth.practice}/Task/{task} {contact.medium}:{contact.value}"


async def tell_removed(
    transaction: ResourceTransaction,
    call: Call,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    key: str,
) -> None:
    """Write to each address and number that a Patient had and has no more. ``key`` names why."""
    now = call.server.clock()
    country = (await policy_of(transaction, call.auth.practice)).country
    there = contacts_on_file(after, country=country, now=now)
    for at, one in enumerate(contacts_on_file(before, country=country, now=now)):
        if one not in there:
            await outbox.enqueue(
                transaction,
                key=f"{NOTICE}.{key}.{at}",
                practice=call.auth.practice,
                channel=one.medium,
                to=to_address(one.medium, one.value),
                template=NOTICE,
                now=now,
            )


def as_point(contact: OnFile) -> dict[str, str]:
    """Return a contact as a ContactPoint."""
    return {"system": "email" if contact.medium == "mail" else "sms", "value": contact.value}


def of_point(point: Mapping[str, Any]) -> OnFile:
    """Return the contact that `as_point` has written."""
    medium = "mail" if point.get("system") == "email" else "sms"
    return OnFile(medium, str(point.get("value", "")))  # type: ignore[arg-type]  # one of the two
