"""``$transmit``: the summary of a record, or a document of it, is sent to somebody outside.

On ``Patient/[id]`` the summary, on ``DocumentReference/[id]`` that document. Nothing is sent here:
a message in the outbox is, a moment later, by the right that the sender has then.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.contacts import InvalidContact, mail_address
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, Invalid, NotFound, NotSupported, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.notify import outbox
from fhir_portal.operations.authorship import restricted
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import subject_row
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.directory_recipient import directory_recipient, directory_recipients
from fhir_portal.operations.message_thread import agent_of, once, record_provenance
from fhir_portal.operations.share_link import (
    Prepared,
    Wanted,
    keep_link,
    policy_of_practice,
    prepared,
    until_of,
    wanted_of,
    what_is_shown,
)
from fhir_portal.operations.transmission import (
    CODE,
    KEPT,
    RECORD_ATTACHED,
    RECORD_DIRECT,
    RECORD_POSTED,
    SHARE_LINK,
    SYSTEM,
    Transmission,
    Way,
    transmissions_of,
)
from fhir_portal.resources.interactions.read import key_of
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in
from fhir_portal.smart.outbound import AddressRefused, check_address
from fhir_portal.smart.sharing import DAY, ShareLink

WAYS: Final[tuple[Way, ...]] = get_args(Way)
LINK_PREFIX: Final = "share/"
"""Before the id of a link, in the ``link_for`` of the mail that carries it."""
WARNING_VERSION: Final = "2026-1"
WARNING: Final = (
    "A plain mail is not encrypted. On its way, and in the mailbox it goes to, others may be able "
    "to read it, and it cannot be taken back. A link with a passcode is safer."
)
DELIVERED_WITHIN: Final = 3 * DAY
"""For so long the server tries, and may read what it is to send."""
_TEMPLATES: Final[Mapping[Way, tuple[outbox.Channel, str]]] = {
    "link": ("mail", SHARE_LINK),
    "email": ("mail", RECORD_ATTACHED),
    "direct": ("mail", RECORD_DIRECT),
    "endpoint": ("webhook", RECORD_POSTED),
}
_ADDRESSES: Final[Mapping[Way, str]] = {"link": "mail", "email": "mail"}
_CHOSEN: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
_MICROSECONDS: Final = 1_000_000
_NARROWING: Final = ("section", "start", "end")


@dataclass(frozen=True, slots=True)
class Address:
    """Where something goes: ``to`` as the outbox has it, ``shown`` for people."""

    to: str
    shown: str


async def transmit(call: Call) -> FhirResponse:
    """Have it sent. Sent again with the same key it is the same sending, without the passcode.

    Raises:
        NotSupported: the practice, or this server, has no such channel.
        Unprocessable: no address, or one that is none; the warning was not accepted.
        NotFound: the record or the document is absent, or hidden; the same words.
        Conflict: the key is that of a sending to somebody else, by another channel, or of
            something else.
    """
    policy = await policy_of_practice(call)
    way = _way(call, policy)
    is_document = call.request.type == "DocumentReference"
    wanted = _wanted(call, is_document=is_document)
    address = await _address(call, way)
    made = await prepared(call, wanted, _until(call, policy, way), is_for_delivery=way != "link")
    key, of = _key(call, made), made.link.patient.partition("/")[2]

    async def work(transaction: ResourceTransaction) -> tuple[Transmission, bool, list[Row]]:
        await call.server.still(transaction, call.auth)
        if is_document:
            await call.target(transaction)
        elif await subject_row(call, key_of(call.request).id) is None:
            pass  # a proxy who does not see who it is may send what else they see
        before = await transaction.get(Transmission, key)
        if before is not None:
            stored = await transaction.get(ShareLink, before.link)
            is_same = stored is None or what_is_shown(stored) == what_is_shown(made.link)
            if (before.way, before.to) != (way, address.shown) or not is_same:
                message = "this key was used for another sending: choose a new one for each"
                raise Conflict(message)
            return before, False, []
        link, rows = await keep_link(call, transaction, wanted, made, of=of)
        task = await _task(call, transaction, way, address, rows, is_document=is_document)
        sending = Transmission(
            key=key,
            expires=call.server.clock() + KEPT,
            practice=call.auth.practice,
            patient=link.patient,
            account=link.account,
            fhir_user=link.fhir_user,
            what=str(key_of(call.request)),
            task=task.key.id,
            link=link.key,
            way=way,
            to=address.shown,
            at=call.server.clock(),
            changed=call.server.clock(),
        )
        await transaction.insert(sending)
        channel, template = _TEMPLATES[way]
        await outbox.enqueue(
            transaction,
            key=key,
            practice=call.auth.practice,
            channel=channel,
            to=address.to,
            template=template,
            now=call.server.clock(),
            link_for=f"{LINK_PREFIX}{link.id}" if way == "link" else None,
        )
        return sending, True, [*rows, task]

    sending, is_new, rows = await once(call, work)
    passcode = f"{made.passcode[:4]}-{made.passcode[4:]}" if way == "link" and is_new else None
    values = {
        "task": {"reference": f"Task/{sending.task}"},
        "status": sending.status,
        "passcode": passcode,
    }
    return call.answer(values, *rows)


async def transmit_options(call: Call) -> FhirResponse:
    """Tell the channels that are set up, the warning, and who of the directory can be reached."""
    key = key_of(call.request)
    row = await subject_row(call, key.id)
    policy = await policy_of_practice(call)
    ways = [one for one in WAYS if _is_offered(call, policy, one)]
    name = str(call.arguments.one("name") or "")[:100]
    listed = []
    for one in await directory_recipients(call, call.server.reader, name):
        by = [way for way in ways if _ADDRESSES.get(way, way) in one.addresses]
        if by:
            who = {"reference": one.reference, "display": one.name}
            listed.append({"who": who, "reached-by": by})
    values = {
        "channel": ways,
        "warning": WARNING,
        "warning-version": WARNING_VERSION,
        "recipient": listed,
    }
    return call.answer(values, *([row] if row is not None else []))


async def transmissions(call: Call) -> FhirResponse:
    """List what was sent and how it went: all to its person, to others their own."""
    key = key_of(call.request)
    row = await subject_row(call, key.id)
    own = (call.auth.fhir_user, call.auth.account)
    listed = [
        {
            "task": {"reference": f"Task/{one.task}"},
            "status": one.status,
            "channel": one.way,
            "to": one.to,
            "what": {"reference": one.what},
            "by": {"reference": one.fhir_user},
            "at": instant(int(one.at * _MICROSECONDS)),
            "changed": instant(int(one.changed * _MICROSECONDS)),
            "reason": one.reason or None,
        }
        for one in await transmissions_of(call.server.store, call.auth.practice, str(key))
        if call.auth.is_self or (one.fhir_user, one.account) == own
    ]
    return call.answer({"transmission": listed}, *([row] if row is not None else []))


# --- what is asked for ---------------------------------------------------------------------------


def _is_offered(call: Call, policy: PracticePolicy, way: Way) -> bool:
    if way == "direct":
        return call.collaborators.direct
    return way != "email" or policy.plain_mail


def _way(call: Call, policy: PracticePolicy) -> Way:
    given = call.arguments.one("channel")
    way = next((one for one in WAYS if one == given), None)
    if way is None:
        message = f"channel is one of {', '.join(WAYS)}"
        raise Unprocessable(message, expression=parameter("channel"))
    if not _is_offered(call, policy, way):
        message = f"nothing is set up here to send by '{way}': choose another channel"
        raise NotSupported(message, expression=parameter("channel"))
    accepted = call.arguments.one("warning")
    if way == "email" and accepted != WARNING_VERSION:
        message = f"read and accept the warning {WARNING_VERSION} first: {WARNING}"
        raise Unprocessable(message, expression=parameter("warning"))
    if way != "email" and accepted is not None:
        message = "there is a warning to accept for plain mail alone"
        raise Unprocessable(message, expression=parameter("warning"))
    if way != "link" and call.arguments.one("expires") is not None:
        message = "a link expires, and nothing else"
        raise Unprocessable(message, expression=parameter("expires"))
    return way


def _wanted(call: Call, *, is_document: bool) -> Wanted:
    wanted = wanted_of(call)
    if not is_document:
        return wanted
    for name in _NARROWING:
        if call.arguments.all(name):
            message = f"{name} narrows a summary; a document is sent whole"
            raise Unprocessable(message, expression=parameter(name))
    return replace(wanted, summary=False, documents=(key_of(call.request),))


def _until(call: Call, policy: PracticePolicy, way: Way) -> float:
    until = until_of(call, policy)
    return until if way == "link" else min(until, call.server.clock() + DELIVERED_WITHIN)


async def _address(call: Call, way: Way) -> Address:
    """Where it goes. Raises `Unprocessable`, by the parameter."""
    to, named = call.arguments.one("to"), call.arguments.one("recipient")
    if (to is None) == (named is None):
        message = "say where it goes: to an address, or to a recipient of the directory"
        raise Unprocessable(message, expression=parameter("to"))
    if to is not None:
        if way == "endpoint":
            message = "an endpoint is that of an Organization in the directory: name the recipient"
            raise Unprocessable(message, expression=parameter("to"))
        try:
            address = mail_address(str(to))
        except InvalidContact:
            message = "this is no mail address"
            raise Unprocessable(message, expression=parameter("to")) from None
        return Address(f"mail:{address}", address)
    text = str(named.get("reference") or "") if isinstance(named, Mapping) else ""
    listed = await directory_recipient(call, call.server.reader, text)
    if listed is None:
        message = f"{text[:80]} is not known"
        raise NotFound(message, expression=parameter("recipient"))
    found = listed.addresses.get(_ADDRESSES.get(way, way))
    if found is None:
        message = f"the directory has no address of this recipient for '{way}'"
        raise Unprocessable(message, expression=parameter("recipient"))
    if way != "endpoint":
        return Address(f"mail:{found}", f"{listed.name}, {found}")
    try:
        check_address(found)
    except AddressRefused:
        message = "the address in the directory is none that can be asked: tell the practice"
        raise Unprocessable(message, expression=parameter("recipient")) from None
    return Address(found, listed.name)


def _key(call: Call, made: Prepared) -> str:
    """What its message is called: the same for who sends it twice under one key of their own."""
    chosen = call.arguments.one("idempotency-key")
    if chosen is None:
        return f"transmit.{made.link.id}"
    if not _CHOSEN.fullmatch(str(chosen)):
        message = "a key has 8 to 64 of A-Z a-z 0-9 . _ -; choose a new one for each sending"
        raise Invalid(message, expression=parameter("idempotency-key"))
    link = made.link
    said = (link.practice, link.patient, link.account, str(key_of(call.request)), str(chosen))
    return f"transmit.{hashlib.sha256(' '.join(said).encode()).hexdigest()[:48]}"


async def _task(
    call: Call,
    transaction: ResourceTransaction,
    way: Way,
    address: Address,
    rows: list[Row],
    *,
    is_document: bool,
) -> Row:
    """Store the Task, as hidden as the document, and who asked for it, after what warning."""
    now = instant(int(call.server.clock() * _MICROSECONDS))
    record = call.auth.record
    patient = record.patient if record is not None else ""
    said = [("channel", way), ("to", address.shown)]
    said += [("warning", WARNING_VERSION)] if way == "email" else []
    tree: dict[str, Any] = {
        "resourceType": "Task",
        "meta": restricted(),
        "status": "requested",
        "intent": "order",
        "code": {"coding": [{"system": SYSTEM, "code": CODE}]},
        "for": {"reference": patient},
        "authoredOn": now,
        "lastModified": now,
        "requester": {"reference": agent_of(call)},
        "input": [{"type": {"text": name}, "valueString": text} for name, text in said],
    }
    if is_document:
        document = next(row for row in rows if row.key.type == "DocumentReference")
        tree["focus"] = {"reference": str(document.key)}
        labels = (json.parse(document.body).get("meta") or {}).get("security") or ()
        tree["meta"] = {"security": [*restricted()["security"], *labels]}
    written = await create_in(
        transaction,
        call.server,
        call.as_practice,
        tree,
        Visibility.of_server("Task", practice=call.auth.practice),
        resource_id=call.server.new_id(),
    )
    reason = f"Plain mail, after the warning {WARNING_VERSION}: {WARNING}" if way == "email" else ""
    await record_provenance(transaction, call, [str(written.row.key)], "CREATE", reason=reason)
    return written.row
