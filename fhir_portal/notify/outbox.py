"""The outbox: mail, SMS and webhooks, written in the transaction of the change that causes them.

Delivery is at least once; the idempotency key lets whoever receives it see a repetition. A
message holds no secret and nothing about anybody's health: links and codes are made from what
``link_for`` names when the message is sent, the words from its template (DESIGN: side effects).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal, Protocol

import msgspec

from fhir_portal.notify import lease
from fhir_portal.notify.lease import Lease, Leased, StaleLease, back_off, fail, finish
from fhir_portal.records import RecordStore, RecordTransaction

Channel = Literal["mail", "sms", "webhook"]

ATTEMPTS: Final = 10
"""After so many a message is given up, and staff see why."""
LEASE_SECONDS: Final = 60.0
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")


class OutboxMessage(Leased, frozen=True, kw_only=True):
    """One message; ``key`` is its idempotency key.

    ``to`` is an address; ``template`` names the words, ``values`` fills them. ``link_for`` names
    what a link or code is derived from at each sending (a Task), ``link_attempt`` which one.
    """

    kind: ClassVar[str] = "outbox-message"

    channel: Channel
    to: str
    template: str
    values: dict[str, str] = msgspec.field(default_factory=dict)
    link_for: str | None = None
    link_attempt: int = 0


class UndeliverableMessage(Exception):
    """This message will never arrive; trying again is of no use. The words are for staff."""


class Delivery(Protocol):
    """Hands one message over. Raises whatever went wrong; `UndeliverableMessage` for good."""

    async def __call__(self, message: OutboxMessage) -> None: ...


async def enqueue(
    transaction: RecordTransaction,
    *,
    key: str,
    practice: str,
    channel: Channel,
    to: str,
    template: str,
    now: float,
    values: Mapping[str, str] | None = None,
    link_for: str | None = None,
    link_attempt: int = 0,
    due: float | None = None,
) -> bool:
    """Write a message in the caller's transaction; false when its key was used already.

    ``key`` says what happened, not when it was noticed, so that noticing twice sends once: 1 to
    150 of ``A-Z a-z 0-9 . _ -``. Raises `ValueError` for another one.
    """
    if not _KEY.fullmatch(key):
        message = "an idempotency key has 1 to 150 of A-Z a-z 0-9 . _ -"
        raise ValueError(message)
    return await lease.enqueue(
        transaction,
        OutboxMessage(
            key=key,
            practice=practice,
            created=now,
            due=now if due is None else due,
            channel=channel,
            to=to,
            template=template,
            values=dict(values or {}),
            link_for=link_for,
            link_attempt=link_attempt,
        ),
    )


async def claim(
    store: RecordStore, worker: str, now: float, lease_seconds: float = LEASE_SECONDS
) -> Lease[OutboxMessage] | None:
    """Take the message that has been due longest."""
    return await lease.claim(
        store, OutboxMessage, worker=worker, now=now, lease_seconds=lease_seconds
    )


async def deliver_due(
    store: RecordStore, delivery: Delivery, *, worker: str, clock: Callable[[], float]
) -> int:
    """Deliver what is due, one after the other; returns how many arrived.

    A failure puts the message back with a growing delay, the tenth gives it up.
    """
    arrived = 0
    while (held := await claim(store, worker, clock())) is not None:
        try:
            await delivery(held.work)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must not be lost
            await _failed(store, held, error, clock())
            continue
        try:
            await finish(store, held, now=clock())
        except StaleLease:
            continue  # it took longer than the lease: somebody else is at it, or was
        arrived += 1
    return arrived


async def _failed(
    store: RecordStore, held: Lease[OutboxMessage], error: Exception, now: float
) -> None:
    message = held.work
    for_good = isinstance(error, UndeliverableMessage) or message.attempts >= ATTEMPTS
    retry_at = None if for_good else now + back_off(message.attempts)
    # Other errors may repeat what was sent, which staff need not read.
    fault = str(error) if isinstance(error, UndeliverableMessage) else type(error).__name__
    try:
        await fail(store, held, retry_at=retry_at, fault=fault)
    except StaleLease:
        return


class FolderDelivery:
    """Leaves each message as one file, named by its key: a repetition is the same file.

    For the demo. ``link`` makes the link of a message when it is sent, or ``None``; the file
    holds what the addressee would get, so it is readable by its owner alone.
    """

    def __init__(self, folder: Path, link: Callable[[OutboxMessage], str | None]) -> None:
        self._folder = folder
        self._link = link

    async def __call__(self, message: OutboxMessage) -> None:
        """Write the file, whole or not at all."""
        self._write(message)

    def _write(self, message: OutboxMessage) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {
            "key": message.key,
            "channel": message.channel,
            "to": message.to,
            "template": message.template,
            "values": message.values,
            "link": self._link(message) if message.link_for is not None else None,
        }
        descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=".")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self._folder / f"{message.key}.json")
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
