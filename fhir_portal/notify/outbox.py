"""The outbox: mail, SMS and webhooks, written in the transaction of the change that causes them.

Delivery is at least once; the idempotency key lets whoever receives it see a repetition. A
message holds no secret and nothing about anybody's health: links and codes are made from what
``link_for`` names when the message is sent, the words from its template (DESIGN: side effects).

Each channel has its own turns, so that whoever is slow to take a webhook keeps no mail waiting. So
has, on each channel, what may come by the thousand and nobody sits waiting for: the messages of a
`Stream` go out at a rate, and a code or a link to get back in waits for none of them. An address
that does not answer is left alone for a growing time, and with it all that waits for it: the
address and not its host, which may serve others, who must not suffer for one of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Protocol, get_args

import msgspec

from fhir_portal.notify import lease
from fhir_portal.notify.lease import Lease, Leased, StaleLease, back_off, fail_in, finish_in
from fhir_portal.records import Record, RecordStore, RecordTransaction

Channel = Literal["mail", "sms", "webhook"]
CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)
Priority = Literal["urgent", "routine"]
"""FHIR R4 request-priority: ``routine`` is what belongs to a stream, ``urgent`` all else."""
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)

ATTEMPTS: Final = 10
"""After so many a message is given up, and staff see why."""
LEASE_SECONDS: Final = 60.0
AT_ONCE: Final[Mapping[Channel, int]] = {"mail": 4, "sms": 4, "webhook": 8}
"""How many messages of a channel and a priority one process hands over at a time."""
AT_ONCE_OF_A_STREAM: Final = 10.0
"""So many seconds' worth of a stream's rate may go out together, when it was silent before."""
PUT_OFF_SECONDS: Final = 86_400.0
"""A message that waits for its address and is older than this is given up."""
NOBODY: Final = "nobody:"
"""The ``to`` of a message that looks like any other and takes the same work, but is not sent.

It keeps those who ask for it from learning whether there is anybody.
"""
_SOON: Final = 1.0
_SILENT: Final = "its address has not answered for a day"
LONGEST_KEY: Final = 150
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}")


class OutboxMessage(Leased, frozen=True, kw_only=True):
    """One message; ``key`` is its idempotency key.

    ``to`` is an address; ``template`` names the words, ``values`` fills them. ``link_for`` names
    what a link or code is derived from at each sending (a Task), ``link_attempt`` which one.
    ``stream`` names the one it belongs to, if any.
    """

    kind: ClassVar[str] = "outbox-message"
    indexed: ClassVar[tuple[str, ...]] = (*Leased.indexed, "mail_id")

    channel: Channel
    to: str
    template: str
    values: dict[str, str] = msgspec.field(default_factory=dict)
    link_for: str | None = None
    link_attempt: int = 0
    stream: str = ""

    @property
    def queue(self) -> str:
        """Each channel has one for each priority."""
        return queue_of(self.channel, "routine" if self.stream else "urgent")

    @property
    def mail_id(self) -> str | None:
        """The local part of a mail's ``Message-ID``: of its key, and telling nothing of it."""
        return mail_id_of(self.key) if self.channel == "mail" else None

    @property
    def is_for_nobody(self) -> bool:
        """Whether it is made ready like any other, and then not sent."""
        return self.to == NOBODY

    @property
    def pauses(self) -> bool:
        """Whether its address is left alone after it did not answer."""
        return self.channel == "webhook"


def mail_id_of(key: str) -> str:
    """Return `OutboxMessage.mail_id` of a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def queue_of(channel: Channel, priority: Priority = "urgent") -> str:
    """The queue of a channel's messages of a priority."""
    queue = f"{OutboxMessage.kind}.{channel}"
    return queue if priority == "urgent" else f"{queue}.{priority}"


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages of one kind, of one practice, on one channel: so many ``a_minute`` at most."""

    name: str
    a_minute: int


class StreamTime(Record, frozen=True, kw_only=True):
    """When a stream has sent all it has, at its rate: ``key`` is ``<channel>/<practice>/<name>``.

    The theoretical arrival time of the generic cell rate algorithm (ITU-T I.371, annex A).
    """

    kind: ClassVar[str] = "outbox-stream"

    until: float


class Pause(Record, frozen=True, kw_only=True):
    """An address that did not answer; it is the ``key``. Nothing is sent there before ``until``.

    ``since`` is when that was found, ``failures`` how many times in a row.
    """

    kind: ClassVar[str] = "outbox-pause"

    since: float
    until: float
    failures: int


class UndeliverableMessage(Exception):
    """This message will never arrive; trying again is of no use. The words are for staff."""


class Bounced(UndeliverableMessage):
    """The address itself takes nothing: no such mailbox, no such number."""


class Superseded(UndeliverableMessage):
    """What the message is for is over: it is not sent, and nobody need see to it."""


class AddressDown(Exception):
    """The message's address does not answer: what else waits for it would not arrive either."""


class NotSentYet(Exception):
    """Nobody has written down yet that the message was sent."""


class Delivery(Protocol):
    """Hands one message over. Raises whatever went wrong; `UndeliverableMessage` for good."""

    async def __call__(self, message: OutboxMessage) -> None: ...


class Recipients(Protocol):
    """Knows whom a message is for that names no address, but an account or a record."""

    def are_meant_by(self, to: str) -> bool:
        """Whether ``to`` stands for others."""
        ...

    async def of(
        self, transaction: RecordTransaction, message: OutboxMessage
    ) -> Sequence[OutboxMessage]:
        """Return the messages to be sent instead, due at once; none for nobody who wants it.

        Their keys are made of the message's, so that they are the same ones each time. Raises
        `UndeliverableMessage` where somebody should be told and cannot be.
        """
        ...


Arrived = Callable[[Any, OutboxMessage], Awaitable[None]]
"""Notes a message that was handed over, in the transaction (of the store) that says so."""

Dropped = Callable[[Any, OutboxMessage], Awaitable[None]]
"""Notes a message that was not sent, for what it was for is over; as `Arrived`."""

Addressed = Callable[[Any, OutboxMessage, Sequence[OutboxMessage]], Awaitable[None]]
"""Notes by which messages one was replaced that named no address, in their transaction."""

GivenUp = Callable[[RecordTransaction, OutboxMessage, str, bool, float], Awaitable[None]]
"""Notes a message that never arrived, why, whether its address bounced, and the time."""


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
    stream: Stream | None = None,
) -> bool:
    """Write a message in the caller's transaction; false when its key was used already.

    ``key`` says what happened, not when it was noticed, so that noticing twice sends once: 1 to
    150 of ``A-Z a-z 0-9 . _ -``. Raises `ValueError` for another one. With ``stream`` it is due
    when the rate of that allows, unless ``due`` says when.
    """
    if not _KEY.fullmatch(key):
        message = "an idempotency key has 1 to 150 of A-Z a-z 0-9 . _ -"
        raise ValueError(message)
    if stream is not None and due is None:
        if await transaction.get(OutboxMessage, key) is not None:
            return False  # and no time of the stream is used up
        due = await _turn_in(transaction, stream, f"{channel}/{practice}/{stream.name}", now)
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
            stream=stream.name if stream is not None else "",
        ),
    )


async def _turn_in(transaction: RecordTransaction, stream: Stream, key: str, now: float) -> float:
    """Return when the next message of a stream is due."""
    before = await transaction.get(StreamTime, key)
    begins = max(now, before.until if before is not None else now)
    until = begins + 60.0 / stream.a_minute
    await transaction.put(StreamTime(key=key, until=until, expires=until + PUT_OFF_SECONDS))
    return max(now, begins - AT_ONCE_OF_A_STREAM)


async def claim(
    store: RecordStore,
    channel: Channel,
    worker: str,
    now: float,
    lease_seconds: float = LEASE_SECONDS,
    priority: Priority = "urgent",
    given_up: GivenUp | None = None,
) -> Lease[OutboxMessage] | None:
    """Take the message of a queue that is due longest and whose address is not left alone.

    ``given_up`` is told of those that have waited too long for theirs.
    """

    async def put_off(
        transaction: RecordTransaction, message: OutboxMessage
    ) -> OutboxMessage | None:
        pause = await transaction.get(Pause, message.to) if message.pauses else None
        if pause is None:
            return None
        if pause.until < now + _SOON:
            # This one finds out; the others wait for what becomes of it.
            await transaction.put(msgspec.structs.replace(pause, until=now + lease_seconds))
            return None
        if now >= message.created + PUT_OFF_SECONDS:
            if given_up is not None:
                await given_up(transaction, message, _SILENT, False, now)  # noqa: FBT003
            return msgspec.structs.replace(message, due=None, state="failed", fault=_SILENT)
        # Also what a lost worker had: nobody may say any more how that went.
        return msgspec.structs.replace(
            message, due=pause.until, state="waiting", fence=message.fence + 1
        )

    return await lease.claim(
        store,
        OutboxMessage,
        worker=worker,
        now=now,
        lease_seconds=lease_seconds,
        queue=queue_of(channel, priority),
        put_off=put_off,
    )


async def deliver_due(
    store: RecordStore,
    delivery: Delivery,
    *,
    worker: str,
    clock: Callable[[], float],
    recipients: Recipients | None = None,
    given_up: GivenUp | None = None,
    arrived: Arrived | None = None,
    addressed: Addressed | None = None,
    dropped: Dropped | None = None,
) -> int:
    """Deliver what is due on every channel, once; returns how many messages arrived."""
    async with asyncio.TaskGroup() as tasks:
        going = [
            tasks.create_task(
                deliver_channel(
                    store,
                    channel,
                    delivery,
                    worker=worker,
                    clock=clock,
                    recipients=recipients,
                    given_up=given_up,
                    arrived=arrived,
                    addressed=addressed,
                    dropped=dropped,
                )
            )
            for channel in CHANNELS
        ]
    return sum(one.result() for one in going)


async def deliver_channel(
    store: RecordStore,
    channel: Channel,
    delivery: Delivery,
    *,
    worker: str,
    clock: Callable[[], float],
    recipients: Recipients | None = None,
    given_up: GivenUp | None = None,
    arrived: Arrived | None = None,
    priorities: Sequence[Priority] = PRIORITIES,
    addressed: Addressed | None = None,
    dropped: Dropped | None = None,
) -> int:
    """Deliver what is due on a channel, `AT_ONCE` of it at a time; returns how many arrived.

    A failure puts the message back with a growing delay, the tenth gives it up. What ``recipients``
    know is replaced by messages to them. ``given_up`` is told in the transaction that gives up,
    ``arrived`` in the one that says that it was handed over, ``addressed`` and ``dropped`` in those
    that replace or drop one.
    """

    async def one_after_the_other(priority: Priority) -> int:
        count = 0
        while (
            held := await claim(
                store, channel, worker, clock(), priority=priority, given_up=given_up
            )
        ) is not None:
            if recipients is not None and recipients.are_meant_by(held.work.to):
                await _address(store, held, recipients, given_up, addressed, dropped, clock())
            else:
                count += await _deliver(store, held, delivery, given_up, arrived, dropped, clock)
        return count

    async with asyncio.TaskGroup() as tasks:
        going = [
            tasks.create_task(one_after_the_other(priority))
            for priority in priorities
            for _ in range(AT_ONCE[channel])
        ]
    return sum(one.result() for one in going)


async def _address(
    store: RecordStore,
    held: Lease[OutboxMessage],
    recipients: Recipients,
    given_up: GivenUp | None,
    addressed: Addressed | None,
    dropped: Dropped | None,
    now: float,
) -> None:
    """Replace a message by those to each of its recipients, all or nothing."""

    async def replace(transaction: RecordTransaction) -> None:
        copies = await recipients.of(transaction, held.work)
        for message in copies:
            await lease.enqueue(transaction, message)
        if addressed is not None:
            await addressed(transaction, held.work, copies)
        await finish_in(transaction, held, now=now)

    try:
        await store.transact(replace)
    except StaleLease:
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the message must not be lost
        await _failed(store, held, error, given_up, dropped, began=now, now=now)


async def _deliver(
    store: RecordStore,
    held: Lease[OutboxMessage],
    delivery: Delivery,
    given_up: GivenUp | None,
    arrived: Arrived | None,
    dropped: Dropped | None,
    clock: Callable[[], float],
) -> bool:
    began = clock()
    try:
        await delivery(held.work)
    except Exception as error:  # noqa: BLE001 - whatever it is, the message must not be lost
        await _failed(store, held, error, given_up, dropped, began=began, now=clock())
        return False

    now = clock()

    async def finished(transaction: RecordTransaction) -> None:
        await finish_in(transaction, held, now=now)
        if held.work.pauses:
            await transaction.delete(Pause, held.work.to)
        if arrived is not None:
            await arrived(transaction, held.work)

    try:
        await store.transact(finished)
    except StaleLease:
        return False  # it took longer than the lease: somebody else is at it, or was
    return True


async def _failed(
    store: RecordStore,
    held: Lease[OutboxMessage],
    error: Exception,
    given_up: GivenUp | None,
    dropped: Dropped | None,
    *,
    began: float,
    now: float,
) -> None:
    message = held.work
    for_good = isinstance(error, UndeliverableMessage) or message.attempts >= ATTEMPTS
    retry_at = None if for_good else now + back_off(message.attempts)
    # Other errors may repeat what was sent, which staff need not read.
    fault = str(error) if isinstance(error, UndeliverableMessage) else type(error).__name__

    async def put_back(transaction: RecordTransaction) -> None:
        await fail_in(transaction, held, retry_at=retry_at, fault=fault)
        if message.pauses and isinstance(error, AddressDown):
            await _leave_alone(transaction, message.to, began=began, now=now)
        elif message.pauses:
            await transaction.delete(Pause, message.to)
        if isinstance(error, Superseded):
            if dropped is not None:
                await dropped(transaction, message)
        elif for_good and given_up is not None:
            await given_up(transaction, message, fault, isinstance(error, Bounced), now)

    try:
        await store.transact(put_back)
    except StaleLease:
        return


async def came_back(
    store: RecordStore, key: str, why: str, given_up: GivenUp, *, now: float
) -> bool:
    """Note that a message which was sent came back for good; false if that is known, or unknown.

    ``why`` is for staff. Raises `NotSentYet` where the bounce has overtaken our own note.
    """

    async def note(transaction: RecordTransaction) -> bool:
        message = await transaction.get(OutboxMessage, key)
        if message is None or message.channel == "webhook":
            return False
        if message.state in ("taken", "waiting") and message.attempts:
            raise NotSentYet
        if message.state != "done":
            return False
        await transaction.put(msgspec.structs.replace(message, state="failed", fault=why))
        await given_up(transaction, message, why, True, now)  # noqa: FBT003 - see `GivenUp`
        return True

    return await store.transact(note)


async def was_received(store: RecordStore, key: str, note: Arrived) -> bool:
    """Note that an SMS which was sent has arrived; false if there is no such message.

    Said again it is noted again, which has to change nothing. Raises `NotSentYet` where that has
    overtaken our own note.
    """

    async def received(transaction: RecordTransaction) -> bool:
        message = await transaction.get(OutboxMessage, key)
        if message is None or message.channel != "sms":
            return False
        if message.state in ("taken", "waiting") and message.attempts:
            raise NotSentYet
        if message.state != "done":
            return False
        await note(transaction, message)
        return True

    return await store.transact(received)


async def _leave_alone(
    transaction: RecordTransaction, address: str, *, began: float, now: float
) -> None:
    """Let an address rest; what was on its way there at the same time is one failure."""
    before = await transaction.get(Pause, address)
    if before is not None and began <= before.since:
        return
    failures = 1 if before is None else before.failures + 1
    until = now + back_off(failures)
    await transaction.put(
        Pause(
            key=address,
            since=now,
            until=until,
            failures=failures,
            expires=until + PUT_OFF_SECONDS,
        )
    )
