"""Appointment has behaviour of its own: it takes the time of who and what it needs.

No two Appointments of a practice take the same moment of a practitioner, a room or a device,
whoever writes them (`fhir_portal.resources.reservation`). Source: FHIR R4 §12.25 (Appointment),
appointmentstatus.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
import structlog

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.practice import every_practice
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.errors import Conflict, TooManyRequests, Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.records import Record, RecordTransaction
from fhir_portal.resources import reservation
from fhir_portal.resources.reservation import LONGEST_DAYS, Span, TakenTime, TimeTaken, UnfitTime
from fhir_portal.resources.store import (
    PortalStore,
    ResourceReader,
    ResourceStore,
    ResourceTransaction,
    Row,
)
from fhir_portal.search.request import parse_search

TAKES_TIME: Final = frozenset({"pending", "booked", "arrived", "checked-in", "fulfilled"})
"""The statuses under which somebody's time is taken. ``pending`` is a time that was named and waits
for a participant's word (a hold is one); ``proposed`` and ``waitlist`` are wishes; who did not come
or cancelled gives the time back."""
_ROOMS: Final = frozenset({"ro", "bd", "ve"})
"""location-physical-type: room, bed, vehicle. A house or a wing has room for more than one."""
OFFER: Final = "offer-freed-time"
"""The name of the job that offers time to who waits; its arguments are ``first`` and ``last``, the
cells between which some has become free."""
RENEW: Final = "renew-taken-time"
"""The name of the job that takes time anew; its argument ``because`` is what changed."""
_SAYS_WHOSE: Final = {
    "PractitionerRole": "practitioner",
    "Location": "physicalType",
    "Schedule": "actor",
    "Slot": "schedule",
}
"""The elements by which `actors_of` finds whose time an Appointment takes."""
_REFERRED_TO_BY: Final = {
    "PractitionerRole": (("Appointment", "actor"), ("Schedule", "actor")),
    "Location": (("Appointment", "actor"), ("Schedule", "actor")),
    "Schedule": (("Slot", "schedule"),),
    "Slot": (("Appointment", "slot"),),
}
_BUSY: Final = frozenset({"busy", "busy-unavailable", "busy-tentative"})
_MOST_ACTORS: Final = 20
_MICROSECONDS: Final = 1_000_000
_MOST_REQUESTS: Final = 10
_WAITING: Final = "pending"
_log = structlog.get_logger(__name__)
_ALL: Final = "by-real-times-and-slots"


async def before_change(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any] | None,
    *,
    now: float,
    may_take_twice: bool,
) -> None:
    """Take and give back time for what is about to be stored (``None``: deleted).

    What has passed takes nothing: a chart of years ago is stored as it was. ``may_take_twice`` says
    that the writer may book time that is taken, if the practice wants that of its EHR.

    Raises:
        Conflict: somebody else has some of the time. Unprocessable: it is no time.
    """
    tree = new or old
    if tree.get("resourceType") == "Slot":
        await _slot_changes(transaction, practice, tree["id"], new, now=now)
    if tree.get("resourceType") != "Appointment":
        return
    held = await reservation.time_of(transaction, practice, tree["id"])
    span = span_of(new) if new is not None and new.get("status") in TAKES_TIME else None
    if new is None or span is None or span.is_over(now):
        if held is not None:
            await reservation.release(transaction, practice, tree["id"])
            await _freed(transaction, held, now=now)
        return
    check(span)
    actors = await actors_of(transaction, practice, new)
    until = held.until if held is not None and new.get("status") == _WAITING else None
    wanted = TakenTime(
        key=f"{practice}/{tree['id']}",
        actors=actors,
        start=span.start,
        end=span.end,
        until=until,
        expires=held.expires if held is not None else None,
        slots=_slots_of(new),
    )
    if wanted == held:
        return
    twice = may_take_twice and (await policy_of(transaction, practice)).book_twice
    try:
        # An EHR keeps the calendar: its Slots are busy because of what it books.
        await reservation.take(transaction, wanted, now=now, twice=twice, over_slots=may_take_twice)
    except TimeTaken:
        message = "the time is taken: a participant has another appointment then"
        raise Conflict(message, expression="Appointment.start") from None
    if held is not None and (held.actors, held.span) != (wanted.actors, wanted.span):
        await _freed(transaction, held, now=now)


async def _slot_changes(
    transaction: ResourceTransaction,
    practice: str,
    own_id: str,
    new: Mapping[str, Any] | None,
    *,
    now: float,
) -> None:
    """Take time for a Slot that says that it is busy, and give it back; it is in nobody's way.

    Whoever is booked then stays booked. Raises `Unprocessable`: it is longer than can be taken.
    """
    key = f"Slot/{own_id}"
    held = await reservation.time_of(transaction, practice, key)
    wanted = None if new is None else await _of_busy(transaction, practice, new, now=now)
    if wanted is None:
        if held is not None:
            await reservation.release(transaction, practice, key)
            await _freed(transaction, held, now=now)
        return
    try:
        wanted.span.check()
    except UnfitTime as error:
        raise Unprocessable(str(error), expression="Slot.end") from None
    if held is not None and (held.actors, held.span) == (wanted.actors, wanted.span):
        return
    await reservation.take(transaction, wanted, now=now, twice=True)
    if held is not None:
        await _freed(transaction, held, now=now)


async def _of_busy(
    reader: ResourceReader, practice: str, slot: Mapping[str, Any], *, now: float
) -> TakenTime | None:
    """Return what a Slot takes: nothing unless it is busy and to come, and somebody's."""
    span = span_of(slot) if slot.get("status") in _BUSY else None
    schedule = local_target((slot.get("schedule") or {}).get("reference") or "")
    if span is None or span.is_over(now) or schedule is None or schedule.type != "Schedule":
        return None
    of = await actors_of_schedule(reader, practice, await _tree(reader, practice, schedule))
    key = f"{practice}/Slot/{slot['id']}"
    actors = tuple(sorted(of))
    return TakenTime(key=key, actors=actors, start=span.start, end=span.end) if actors else None


def _slots_of(tree: Mapping[str, Any]) -> tuple[str, ...]:
    keys = (local_target(one.get("reference") or "") for one in tree.get("slot") or ())
    return tuple(sorted({str(key) for key in keys if key is not None and key.type == "Slot"}))


async def _freed(transaction: ResourceTransaction, held: TakenTime, *, now: float) -> None:
    """Have time that was given back offered to who waits for some; once for each time."""
    if held.span.is_over(now):
        return
    cells = held.span.cells
    what = hashlib.sha256(f"{held.key} {held.start} {held.end} {now}".encode()).hexdigest()
    await jobs.enqueue(
        transaction,
        key=f"{OFFER}.{what}",
        practice=held.practice,
        name=OFFER,
        now=now,
        arguments={"first": str(cells.start), "last": str(cells.stop)},
    )


async def before_calendar_change(
    transaction: ResourceTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any] | None,
    *,
    now: float,
) -> None:
    """Have the time of Appointments taken anew where what is about to be stored says whose it is.

    ``new`` is ``None`` for a deletion. It is done by a job (`renew`): of a house that becomes a
    room there may be thousands.
    """
    tree = new or old
    element = _SAYS_WHOSE.get(tree.get("resourceType", ""))
    if element is None or old.get(element) == (new or {}).get(element):
        return
    key = ResourceKey(tree["resourceType"], tree["id"])
    if not old and not await _is_referred_to(transaction, practice, key):
        return
    what = hashlib.sha256(
        f"{practice}/{key} {now} {old.get(element)} {(new or {}).get(element)}".encode()
    ).hexdigest()
    await jobs.enqueue(
        transaction,
        key=f"{RENEW}.{what}",
        practice=practice,
        name=RENEW,
        now=now,
        arguments={"because": str(key)},
    )


async def _is_referred_to(
    transaction: ResourceTransaction, practice: str, key: ResourceKey
) -> bool:
    for name, parameter in _REFERRED_TO_BY[key.type]:
        asked = [(parameter, str(key)), ("_count", "1")]
        visible = Visibility.of_server(name, practice=practice)
        if (await transaction.search(parse_search(name, asked, base=""), visible)).rows:
            return True
    return False


class Reserved(Record, frozen=True, kw_only=True):
    """Marks a store all of whose Appointments to come have taken their time."""

    kind: ClassVar[str] = "appointments-reserved"


async def reserve_stored(store: PortalStore, *, now: float) -> None:
    """Take the time of what was stored before Appointments took any; once for a store."""
    if await store.get(Reserved, _ALL) is not None:
        return
    for practice in await every_practice(store):
        await renew(store, practice.key, now=now)

    async def mark(transaction: RecordTransaction) -> None:
        await transaction.put(Reserved(key=_ALL))

    await store.transact(mark)


async def renew(
    store: ResourceStore, practice: str, *, now: float, because: ResourceKey | None = None
) -> int:
    """Take the time of a practice's Appointments to come by what is stored now.

    ``because`` is what has changed: of a Slot only its own Appointments are looked at. What
    overlaps is taken twice: it is so, and nobody books a third one. Returns how many of those that
    were renewed overlap another one.
    """
    asked = [
        ("status", ",".join(sorted(TAKES_TIME))),
        # By its start: what is under way takes time as well.
        ("date", f"ge{instant((int(now) - LONGEST_DAYS * 86_400) * 1_000_000)}"),
        ("_count", "200"),
    ]
    if because is not None and because.type == "Slot":
        asked.append(("slot", str(because)))
    request = parse_search("Appointment", asked, base="")
    visible = Visibility.of_server("Appointment", practice=practice)
    twice, after = 0, None
    while True:
        page = await store.search(request, visible, after=after)
        for row in page.rows:
            held, wanted = await _renewed(store, row, now=now)
            if wanted is not None and held != wanted:
                twice += await store.transact(functools.partial(_renew, row, now=now))
        if page.next is None:
            break
        after = page.next
    if because is None or because.type != "Slot":
        await _renew_slots(store, practice, now=now)
    if twice:
        _log.warning("appointments overlap", practice=practice, number=twice)
    return twice


async def _renew_slots(store: ResourceStore, practice: str, *, now: float) -> None:
    """The same for Slots that say that they are busy."""
    asked = [
        ("status", ",".join(sorted(_BUSY))),
        ("start", f"ge{instant((int(now) - LONGEST_DAYS * 86_400) * 1_000_000)}"),
        ("_count", "200"),
    ]
    request, after = parse_search("Slot", asked, base=""), None
    while True:
        page = await store.search(
            request, Visibility.of_server("Slot", practice=practice), after=after
        )
        for row in page.rows:
            wanted = await _of_busy(store, practice, json.parse(row.body), now=now)
            held = await reservation.time_of(store, practice, str(row.key))
            places = [None if one is None else (one.actors, one.span) for one in (wanted, held)]
            if places[0] != places[1]:
                await store.transact(functools.partial(_renew_slot, row, now=now))
        if page.next is None:
            return
        after = page.next


async def _renew_slot(row: Row, transaction: ResourceTransaction, *, now: float) -> None:
    practice = row.facts.practice
    current = await transaction.read(row.key, Visibility.of_server("Slot", practice=practice))
    tree = None if current is None or current.deleted else json.parse(current.body)
    span = None if tree is None else span_of(tree)
    if span is None or span.fits:  # one that is longer was stored before there was an end to it
        await _slot_changes(transaction, practice, row.facts.id, tree, now=now)


async def _renew(row: Row, transaction: ResourceTransaction, *, now: float) -> bool:
    held, wanted = await _renewed(transaction, row, now=now)
    if wanted is None or wanted == held:
        return False
    is_shared = await reservation.take(transaction, wanted, now=now, twice=True)
    if held is not None:
        await _freed(transaction, held, now=now)
    return is_shared


async def _renewed(
    reader: ResourceStore | ResourceTransaction, row: Row, *, now: float
) -> tuple[TakenTime | None, TakenTime | None]:
    """Return what an Appointment has, and what it is to have; ``None`` where that is left alone."""
    facts = row.facts
    held = await reservation.time_of(reader, facts.practice, facts.id)
    # As it is now: it may have changed since the page was read.
    visible = Visibility.of_server("Appointment", practice=facts.practice)
    current = await reader.read(row.key, visible)
    tree = {} if current is None or current.deleted else json.parse(current.body)
    span = span_of(tree) if tree.get("status") in TAKES_TIME else None
    if span is None or span.is_over(now) or not span.fits:
        return held, None
    try:
        actors = await actors_of(reader, facts.practice, tree)
    except Unprocessable:
        return held, None  # it is stored already, with more people than anybody may book now
    slots = _slots_of(tree)
    if held is not None:
        return held, msgspec.structs.replace(held, actors=actors, slots=slots)
    if not actors:
        return None, None
    key = f"{facts.practice}/{facts.id}"
    return None, TakenTime(key=key, actors=actors, start=span.start, end=span.end, slots=slots)


async def before_request(
    transaction: ResourceTransaction, practice: str, tree: Mapping[str, Any], *, patient: str
) -> None:
    """Hold what a person asks for against what their practice lets people ask for.

    ``patient`` is the id of the Patient. Raises:
        Unprocessable: of this service patients only see their appointments.
        TooManyRequests: the practice has as many of theirs to answer as anybody may have.
    """
    policy = await policy_of(transaction, practice)
    if policy.booking_of(codes_of(tree)) == "view":
        message = "the practice gives these appointments itself: call it"
        raise Unprocessable(message, expression="Appointment.serviceType")
    asked = [("actor", f"Patient/{patient}"), ("status", "proposed,waitlist"), ("_count", "50")]
    visible = Visibility.of_server("Appointment", practice=practice)
    page = await transaction.search(parse_search("Appointment", asked, base=""), visible)
    if len(page.rows) >= _MOST_REQUESTS:
        message = f"{_MOST_REQUESTS} requests wait for an answer already"
        raise TooManyRequests(message)


def codes_of(tree: Mapping[str, Any]) -> list[str]:
    """Return the codes of the services of an Appointment, a Slot or a Schedule."""
    return [
        coding["code"]
        for concept in tree.get("serviceType") or ()
        for coding in concept.get("coding") or ()
        if coding.get("code")
    ]


async def hold(
    transaction: RecordTransaction, practice: str, appointment: str, until: float, *, now: float
) -> None:
    """Let the time of an Appointment, just taken in this transaction, be free at ``until``."""
    held = await reservation.time_of(transaction, practice, appointment)
    if held is None:
        message = "this Appointment takes no time"
        raise LookupError(message)
    await reservation.take(transaction, msgspec.structs.replace(held, until=until), now=now)


def is_over(tree: Mapping[str, Any], now: float) -> bool:
    """Whether its time has passed (``now`` in seconds since 1970 UTC); one without is not over."""
    end = tree.get("end") or tree.get("start")
    return end is not None and period_of(end)[1] / _MICROSECONDS < now


def span_of(tree: Mapping[str, Any]) -> Span | None:
    """Return the time of an Appointment or a Slot; ``None`` where it names no time."""
    start, end = tree.get("start"), tree.get("end")
    try:
        return Span.of(start or "", end or "")
    except UnfitTime:
        return None


def check(span: Span) -> None:
    """Refuse a time that nobody can take. Raises `Unprocessable`."""
    try:
        span.check()
    except UnfitTime as error:
        raise Unprocessable(str(error), expression="Appointment.end") from None


async def actors_of(
    reader: ResourceReader, practice: str, tree: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return whose time an Appointment takes, sorted: ``Practitioner``, room or ``Device``.

    They are its participants and the actors of the Schedules of its slots. A PractitionerRole
    stands for its Practitioner. Whoever has declined, or is told of it only, is left out. Where
    nobody's time is taken, each slot stands for itself (``Slot/<id>``): it is given once. Raises
    `Unprocessable` for too many.
    """
    found: set[str] = set()
    slots: list[ResourceKey] = []
    for one in tree.get("participant") or ():
        if one.get("status") == "declined" or one.get("required") == "information-only":
            continue
        key = local_target((one.get("actor") or {}).get("reference") or "")
        actor = None if key is None else await whose_time(reader, practice, key)
        if actor is not None:
            found.add(actor)
    for one in tree.get("slot") or ():
        key = local_target(one.get("reference") or "")
        if key is not None and key.type == "Slot":
            slots.append(key)
            found |= await _of_slot(reader, practice, key)
    if len(found) > _MOST_ACTORS or len(slots) > _MOST_ACTORS:
        message = f"an appointment takes the time of {_MOST_ACTORS} actors at most"
        raise Unprocessable(message, expression="Appointment.participant")
    return tuple(sorted(found or map(str, slots)))


async def _of_slot(reader: ResourceReader, practice: str, key: ResourceKey) -> set[str]:
    slot = await _tree(reader, practice, key)
    schedule = local_target((slot.get("schedule") or {}).get("reference") or "")
    if schedule is None or schedule.type != "Schedule":
        return set()
    return await actors_of_schedule(reader, practice, await _tree(reader, practice, schedule))


async def actors_of_schedule(
    reader: ResourceReader, practice: str, schedule: Mapping[str, Any]
) -> set[str]:
    """Return whose time is taken by what is booked in a Schedule."""
    found = set()
    for one in schedule.get("actor") or ():
        key = local_target(one.get("reference") or "")
        actor = None if key is None else await whose_time(reader, practice, key)
        if actor is not None:
            found.add(actor)
    return found


async def whose_time(reader: ResourceReader, practice: str, key: ResourceKey) -> str | None:
    """Return the actor whose time is taken with this one; ``None`` where there is room for more."""
    if key.type in {"Practitioner", "Device"}:
        return str(key)
    if key.type not in {"PractitionerRole", "Location"}:
        return None
    tree = await _tree(reader, practice, key)
    if key.type == "PractitionerRole":
        who = local_target((tree.get("practitioner") or {}).get("reference") or "")
        return str(who if who is not None and who.type == "Practitioner" else key)
    codings = (tree.get("physicalType") or {}).get("coding") or ()
    return str(key) if any(one.get("code") in _ROOMS for one in codings) else None


async def _tree(reader: ResourceReader, practice: str, key: ResourceKey) -> Mapping[str, Any]:
    row = await reader.read(key, Visibility.of_server(key.type, practice=practice))
    return {} if row is None or row.deleted else json.parse(row.body)
