"""Who waits for an appointment is offered time that becomes free, one after the other.

The offer is a hold: an Appointment that is ``pending`` for a while, which the patient books as any
other, or lets go; then the next one is asked. Only for what patients may book themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.owners import references_at
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.notify.jobs import Job
from fhir_portal.operations.appointments import (
    Held,
    Offer,
    Offers,
    keep_held,
    patient_in,
    tell_who_sees,
    written_down,
)
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.call import acting_for
from fhir_portal.records import Record
from fhir_portal.resources.appointment import codes_of
from fhir_portal.resources.reservation import CELL_SECONDS
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in
from fhir_portal.search.request import parse_search

FREED: Final = "appointment-freed"
"""The template of the message."""
_MOST_SLOTS: Final = 20
_MOST_WAITING: Final = 500
_MICROSECONDS: Final = 1_000_000
_MINUTE: Final = 60
_HOUR: Final = 3600


class Offered(Record, frozen=True, kw_only=True):
    """That a Slot was offered to a patient who waits: ``<practice>/<Slot>/<Patient>``.

    Once is enough, however often they ask: nobody keeps a time by letting it go.
    """

    kind: ClassVar[str] = "offered-time"


async def offer_freed(transaction: ResourceTransaction, server: Server, job: Job) -> None:
    """Hold each time that is free between two cells for whoever has waited longest for it."""
    practice = await transaction.get(Practice, job.practice)
    first, last = (int(job.arguments[one]) * CELL_SECONDS for one in ("first", "last"))
    if practice is None or last <= server.clock():
        return
    waiting = await _waiting(transaction, job.practice)
    if not waiting:
        return
    policy = await policy_of(transaction, job.practice)
    asked = [
        ("status", "free"),
        ("start", f"ge{instant(first * _MICROSECONDS)}"),
        ("start", f"lt{instant(last * _MICROSECONDS)}"),
        ("_sort", "start"),
        ("_count", str(_MOST_SLOTS)),
    ]
    visible = Visibility.of_server("Slot", practice=job.practice)
    page = await transaction.search(parse_search("Slot", asked, base=""), visible)
    for row in page.rows:
        # Looked at anew for each: the one before may have taken the time of this one.
        offers = Offers(transaction, acting_for(job.practice, ""), policy, now=server.clock())
        offer = await offers.of(row)
        if offer is None or not _is_for_all(offer, row, policy, server.clock()):
            continue
        if not await offers.is_free(offer):
            continue
        for one in waiting:
            if await _suits(transaction, practice, one, offer):
                await _hold(transaction, server, practice, policy, one, offer)
                break


async def _waiting(transaction: ResourceTransaction, practice: str) -> list[Row]:
    """Return the Appointments that wait, the oldest first; one patient's, and no label."""
    asked = [("status", "waitlist"), ("_sort", "_lastUpdated"), ("_count", str(_MOST_WAITING))]
    visible = Visibility.of_server("Appointment", practice=practice)
    page = await transaction.search(parse_search("Appointment", asked, base=""), visible)
    return [
        row
        for row in page.rows
        if len(row.facts.owners) == 1 and not row.facts.visibility_class.labels
    ]


def _is_for_all(offer: Offer, row: Row, policy: PracticePolicy, now: float) -> bool:
    """Whether patients may book this themselves, and nothing about it is sensitive."""
    services = codes_of(offer.slot) or codes_of(offer.schedule)
    begins = period_of(offer.slot["start"])[0] / _MICROSECONDS
    return (
        policy.booking_of(services) == "book"
        and not row.facts.visibility_class.labels
        and "meta" not in offer.appointment("pending", "needs-action", None)
        and begins - policy.notice_hours * _HOUR > now + policy.hold_minutes * _MINUTE
    )


async def _suits(
    transaction: ResourceTransaction, practice: Practice, row: Row, offer: Offer
) -> bool:
    """Whether a time is what somebody waits for, and was not offered to them before."""
    tree = json.parse(row.body)
    wanted = set(codes_of(tree))
    if wanted and not wanted & set(codes_of(offer.slot) or codes_of(offer.schedule)):
        return False
    named = {one.get("reference") for one in offer.schedule.get("actor") or ()}
    with_whom = {one for one in references_at(tree, "participant.actor") if _is_whom(one)}
    if not with_whom <= named | set(offer.actors):
        return False
    if not _is_in_period(tree, offer, ZoneInfo(practice.zone)):
        return False
    return await transaction.get(Offered, _key(practice, row, offer)) is None


def _is_whom(reference: str) -> bool:
    return reference.startswith(("Practitioner/", "PractitionerRole/", "Location/"))


def _is_in_period(tree: Mapping[str, Any], offer: Offer, zone: ZoneInfo) -> bool:
    """Whether it begins in a period that was wished for; days are those of the practice."""
    periods = tree.get("requestedPeriod") or ()
    begins = period_of(offer.slot["start"])[0]
    there = datetime.fromtimestamp(begins / _MICROSECONDS, zone).date().isoformat()

    def within(period: Mapping[str, str]) -> bool:
        start, end = period.get("start"), period.get("end")
        after = start is None or (
            there[: len(start)] >= start if "T" not in start else begins >= period_of(start)[0]
        )
        before = end is None or (
            there[: len(end)] <= end if "T" not in end else begins <= period_of(end)[1]
        )
        return after and before

    return not periods or any(within(one) for one in periods)


async def _hold(
    transaction: ResourceTransaction,
    server: Server,
    practice: Practice,
    policy: PracticePolicy,
    waiting: Row,
    offer: Offer,
) -> None:
    now, auth = server.clock(), acting_for(practice.key, "")
    patient = patient_in(json.parse(waiting.body))
    assert patient is not None  # noqa: S101 - it has one owner
    begins = period_of(offer.slot["start"])[0] / _MICROSECONDS
    until = min(now + policy.offer_minutes * _MINUTE, begins - policy.notice_hours * _HOUR)
    tree = offer.appointment("pending", "needs-action", str(patient))
    tree["created"] = instant(int(now * _MICROSECONDS))
    written = await create_in(
        transaction,
        server,
        auth,
        tree,
        Visibility.of_server("Appointment", practice=practice.key),
        resource_id=server.new_id(),
    )
    own_id = written.row.facts.id
    author = Author.of_event(practice)
    await written_down(
        transaction, server, auth, written.row, "CREATE", who=author.who, behalf=None
    )
    held = Held(
        key=f"{practice.key}/{own_id}",
        patient=f"{practice.key}/{patient.id}",
        until=until,
        waits=waiting.facts.id,
        expires=until + _MINUTE,
    )
    await keep_held(transaction, server, practice.key, held)
    await transaction.put(Offered(key=_key(practice, waiting, offer), expires=begins))
    await tell_who_sees(
        transaction, practice.key, str(patient), key=f"{FREED}.{own_id}", template=FREED, now=now
    )


def _key(practice: Practice, waiting: Row, offer: Offer) -> str:
    return f"{practice.key}/{offer.slot['id']}/{waiting.facts.owners[0]}"
