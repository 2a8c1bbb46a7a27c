"""What the operations on Appointments share: the times on offer, holds, and what is written.

Source: IHE ITI Scheduling (ITI-115 to ITI-117), FHIR R4 §12.25 (Appointment), §12.28 (Slot).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.consent.labels import PROXY_LABELS, SELF_LABELS, labelling, labels_of
from fhir_portal.fhir import json
from fhir_portal.fhir.bundle import bundle, search_entries
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.errors import Issue, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs, outbox
from fhir_portal.notify.recipients import RECORD, proxies_who_see, to_account
from fhir_portal.operations.authorship import Author, restricted
from fhir_portal.operations.call import Call, acting_for
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.records import Record, RecordReader
from fhir_portal.resources import appointment
from fhir_portal.resources.appointment import codes_of
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.reservation import Span, taken_times, time_of
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.resources.writing import create_in, update_in

PREVIOUS: Final = (
    "http://hl7.org/fhir/5.0/StructureDefinition/extension-Appointment.previousAppointment"
)
"""The R5 element, as R4 writes it: what a moved appointment took the place of."""
CANCELLATION: Final = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"
LONGEST_COMMENT: Final = 1000
SECTION: Final = "appointments"
END_HOLD: Final = "end-hold"
"""The name of the job that ends a hold; its argument is ``appointment`` (an id)."""
_MICROSECONDS: Final = 1_000_000
_HOUR: Final = 3600
_DAY: Final = 86_400
_DAY_US: Final = _DAY * _MICROSECONDS
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_TAKING_PART: Final = frozenset(
    {"Practitioner", "PractitionerRole", "Location", "HealthcareService", "Device"}
)


async def has_lapsed(reader: RecordReader, row: Row, now: float) -> bool:
    """Whether an Appointment is a held time that nobody booked, which is free again.

    It says so itself once the job has come that ends the hold.
    """
    held = await time_of(reader, row.facts.practice, row.facts.id)
    return held is not None and held.until is not None and held.until <= now


class Held(Record, frozen=True, kw_only=True):
    """A time that is held for a patient; ``key`` is ``<practice>/<id of the Appointment>``.

    ``patient`` is ``<practice>/<id of the Patient>``; ``until`` in seconds since 1970 UTC.
    ``waits`` is the id of the Appointment by which they wait, where the time was offered for that.
    """

    kind: ClassVar[str] = "held-appointment"
    indexed: ClassVar[tuple[str, ...]] = ("patient",)

    patient: str
    until: float
    waits: str | None = None


class BookedHere(Record, frozen=True, kw_only=True):
    """That a patient, or who acts for them, booked an Appointment themselves; keyed as `Held`."""

    kind: ClassVar[str] = "booked-appointment"
    indexed: ClassVar[tuple[str, ...]] = ("patient",)

    patient: str


class NotAvailable(NotFound):
    """The time is not there, is taken, or is not for this caller: the same words for each."""

    def __init__(self) -> None:
        words = "this time is not available; find another one"
        super().__init__(words, issues=[Issue("not-found", words, severity="fatal")])


@dataclass(frozen=True, slots=True)
class Offer:
    """A free Slot: its tree and that of its Schedule, when it is, and whose time it takes."""

    slot: Mapping[str, Any]
    schedule: Mapping[str, Any]
    span: Span
    actors: tuple[str, ...]

    def appointment(self, status: str, taking_part: str, patient: str | None) -> dict[str, Any]:
        """Return the Appointment that it makes, without an id.

        ``taking_part`` is the participant status of everybody but the patient. Labels of slot and
        schedule go with it: what is booked of a sensitive service is as sensitive.
        """
        tree: dict[str, Any] = {"resourceType": "Appointment", "status": status}
        labels = labelling(self.slot, self.schedule)
        if labels:
            tree["meta"] = labels
        for name in ("serviceCategory", "serviceType", "specialty"):
            found = self.slot.get(name) or self.schedule.get(name)
            if found:
                tree[name] = found
        if self.slot.get("appointmentType"):
            tree["appointmentType"] = self.slot["appointmentType"]
        start, end = self.slot["start"], self.slot["end"]
        tree |= {
            "start": start,
            "end": end,
            "minutesDuration": max(1, (period_of(end)[0] - period_of(start)[0]) // 60_000_000),
            "slot": [{"reference": f"Slot/{self.slot['id']}"}],
        }
        listed = [] if patient is None else [_participant(patient, "accepted")]
        for one in self.schedule.get("actor") or ():
            key = local_target(one.get("reference") or "")
            if key is not None and key.type in _TAKING_PART:
                listed.append(_participant(str(key), taking_part, one.get("display")))
        tree["participant"] = listed or [{"type": [{"text": "patient"}], "status": taking_part}]
        return tree


class Offers:
    """What of a practice's Slots a caller may have now, free or not. Remembers what it reads."""

    def __init__(
        self, reader: Any, auth: AuthContext, policy: PracticePolicy, *, now: float
    ) -> None:
        self._reader = reader
        self._auth = auth
        self._policy = policy
        self._now = now
        self._schedules: dict[ResourceKey, tuple[dict[str, Any], set[str]] | None] = {}
        self._taken: dict[tuple[str, int], frozenset[Span]] = {}

    async def of(self, row: Row | None) -> Offer | None:
        """Return a Slot as an offer to this caller; ``None`` where it is none."""
        if row is None or row.deleted or not self._may_see(row):
            return None
        slot = json.parse(row.body)
        span = appointment.span_of(slot)
        key = local_target((slot.get("schedule") or {}).get("reference") or "")
        schedule = None if key is None else await self._schedule(key)
        if slot.get("status") != "free" or span is None or schedule is None or not span.fits:
            return None
        tree, actors = schedule
        offer = Offer(slot, tree, span, tuple(sorted(actors)) or (f"Slot/{slot['id']}",))
        start = period_of(slot["start"])[0] / _MICROSECONDS
        if start <= self._now or not self._may_have(offer, start):
            return None
        return offer

    async def is_free(self, offer: Offer) -> bool:
        """Whether nobody has any of the time now."""
        span = offer.span
        for actor in offer.actors:
            for day in range(span.start // _DAY_US, (span.end - 1) // _DAY_US + 1):
                if any(map(span.meets, await self._taken_on(actor, day))):
                    return False
        return True

    async def _taken_on(self, actor: str, day: int) -> frozenset[Span]:
        found = self._taken.get((actor, day))
        if found is None:
            whole = Span(day * _DAY_US, (day + 1) * _DAY_US)
            found = await taken_times(
                self._reader, self._auth.practice, actor, whole, now=self._now
            )
            self._taken[actor, day] = found
        return found

    async def _schedule(self, key: ResourceKey) -> tuple[dict[str, Any], set[str]] | None:
        if key not in self._schedules:
            self._schedules[key] = await self._read(key)
        return self._schedules[key]

    async def _read(self, key: ResourceKey) -> tuple[dict[str, Any], set[str]] | None:
        practice = self._auth.practice
        if key.type != "Schedule":
            return None
        row = await self._reader.read(key, Visibility.of_server("Schedule", practice=practice))
        if row is None or row.deleted or not self._may_see(row):
            return None
        tree = json.parse(row.body)
        if tree.get("active") is False:
            return None
        return tree, await appointment.actors_of_schedule(self._reader, practice, tree)

    def _may_see(self, row: Row) -> bool:
        if self._auth.record is None:
            return True
        allowed = SELF_LABELS if self._auth.is_self else PROXY_LABELS
        return row.facts.visibility_class.labels <= allowed

    def _may_have(self, offer: Offer, start: float) -> bool:
        if self._auth.record is None:
            return True  # a practice's own staff and EHR go by no rule of the portal's
        policy = self._policy
        if policy.booking_of(codes_of(offer.slot) or codes_of(offer.schedule)) != "book":
            return False
        first, last = self._now + policy.notice_hours * _HOUR, self._now + policy.ahead_days * _DAY
        return first <= start <= last


def purpose_of(tree: Mapping[str, Any], policy: PracticePolicy, *, labelled: bool) -> str:
    """Return in words what an appointment is for, or ``""`` where that is not to be shown.

    It is not for anything that carries a label, or has one from elsewhere (``labelled``), and for
    none of the practice's private services: pages are looked at over shoulders, and calendars are
    shared.
    """
    if labelled or labels_of(tree) or set(codes_of(tree)) & set(policy.private_services):
        return ""
    for name in ("serviceType", "appointmentType", "reasonCode"):
        found = tree.get(name) or []
        for concept in found if isinstance(found, list) else [found]:
            displays = (one.get("display") for one in concept.get("coding") or ())
            words = concept.get("text") or next(filter(None, displays), None)
            if words:
                return str(words)
    return ""


def with_whom(tree: Mapping[str, Any]) -> list[str]:
    """Return the names that an appointment itself gives for whom it is with."""
    return [
        one["actor"]["display"]
        for one in tree.get("participant") or ()
        if (one.get("actor") or {}).get("display")
        and str(one["actor"].get("reference", "")).startswith(("Practitioner", "HealthcareService"))
    ]


def patient_in(tree: Mapping[str, Any]) -> ResourceKey | None:
    """Return the one Patient among the participants, ``None`` for none or several."""
    found = {
        key
        for one in tree.get("participant") or ()
        if (key := local_target((one.get("actor") or {}).get("reference") or "")) is not None
        and key.type == "Patient"
    }
    return found.pop() if len(found) == 1 else None


def checked_comment(text: Any, where: str) -> str | None:
    """Return what somebody wrote, as it may be kept. Raises `Unprocessable`."""
    if text is None:
        return None
    lines = str(text).split("\n")
    if len(str(text)) > LONGEST_COMMENT or not all(one.isprintable() for one in lines):
        message = f"a comment is printable text of at most {LONGEST_COMMENT} characters"
        raise Unprocessable(message, expression=where)
    return str(text).strip() or None


def with_comment(tree: Mapping[str, Any], comment: str) -> str:
    """Return the ``comment`` of an Appointment with what somebody adds to it.

    R4 has one such element for everybody (§12.25): what stands there already, the practice's word
    or the patient's, stays above.
    """
    before = str(tree.get("comment") or "")
    return before if comment in before.split("\n\n") else f"{before}\n\n{comment}".strip()


def refuse_past_deadline(
    call: Call, policy: PracticePolicy, tree: Mapping[str, Any], *, held: bool
) -> None:
    """Hold cancelling and moving against the practice's rule; staff and EHRs go by none.

    Raises:
        Unprocessable: in words for whoever is to be told.
    """
    if call.auth.record is None:
        return
    if policy.booking_of(codes_of(tree)) == "view":
        message = "appointments of this kind are changed by the practice: call it"
        raise Unprocessable(message, expression="Appointment.serviceType")
    start = tree.get("start")
    if held or start is None or tree.get("status") in {"proposed", "waitlist"}:
        return
    begins = period_of(start)[0] / _MICROSECONDS
    if call.server.clock() > begins - policy.cancel_hours * _HOUR:
        message = (
            f"appointments are moved and cancelled here until {policy.cancel_hours} hours before "
            "they begin: call the practice"
        )
        raise Unprocessable(message, expression="Appointment.start")


async def store_new(call: Call, transaction: ResourceTransaction, tree: dict[str, Any]) -> Row:
    """Store a new resource as the practice, and who asked for it."""
    name = tree["resourceType"]
    written = await create_in(
        transaction,
        call.server,
        call.as_practice,
        tree,
        Visibility.of_server(name, practice=call.auth.practice).own(),
        resource_id=call.server.new_id(),
    )
    await _provenance(call, transaction, written.row, "CREATE")
    return written.row


async def store_next(
    call: Call, transaction: ResourceTransaction, row: Row, tree: dict[str, Any]
) -> Row:
    """Store the next version of a resource as the practice, and who asked for it."""
    new = await next_version(call.server, transaction, call.as_practice, row, tree)
    await _provenance(call, transaction, new, "UPDATE")
    return new


async def next_version(
    server: Server,
    transaction: ResourceTransaction,
    auth: AuthContext,
    row: Row,
    tree: dict[str, Any],
) -> Row:
    """Store the next version of a resource for a practice."""
    written = await update_in(
        transaction,
        server,
        auth,
        tree,
        Visibility.of_server(row.facts.resource_type, practice=auth.practice),
        key=row.key,
        if_match=None,
        if_none_match=None,
    )
    return written.row


async def end_hold_in(
    transaction: ResourceTransaction, server: Server, practice: str, own_id: str
) -> bool:
    """Cancel an Appointment whose hold is over; false where there is none any more."""
    held = await time_of(transaction, practice, own_id)
    if held is None or held.until is None or server.clock() < held.until:
        return False
    await transaction.delete(Held, held.key)
    key = ResourceKey("Appointment", own_id)
    row = await transaction.read(key, Visibility.of_server("Appointment", practice=practice))
    tree = None if row is None or row.deleted else json.parse(row.body)
    if row is None or tree is None or tree.get("status") != "pending":
        return False
    ended = cancelled(tree, {"text": "It was not booked in time."})
    await next_version(server, transaction, acting_for(practice, ""), row, ended)
    return True


def cancelled(tree: Mapping[str, Any], reason: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an Appointment as cancelled."""
    new = dict(tree) | {"status": "cancelled"}
    return new if reason is None else new | {"cancelationReason": dict(reason)}


def searchset(call: Call, *rows: Row) -> FhirResponse:
    """Return stored Appointments as the answer."""
    found = [(row.facts.resource_type, row.facts.id, row.body) for row in rows]
    entries = search_entries(call.server.base, found, "match")
    body = bundle("searchset", total=len(rows), links=(), entries=entries)
    touched = {one: None for row in rows for one in row.facts.touched}
    return FhirResponse(200, body, records=tuple(touched))


async def of_practice(reader: RecordReader, call: Call) -> PracticePolicy:
    """Return the rules of the practice that a call is for."""
    return await policy_of(reader, call.auth.practice)


async def _provenance(
    call: Call, transaction: ResourceTransaction, row: Row, activity: str
) -> None:
    """Write down who did it, and for whom (FHIR R4 §6.3)."""
    who: dict[str, Any]
    behalf: dict[str, Any] | None = None
    if call.auth.record is not None:
        who = {"reference": call.auth.record.fhir_user}
        if not call.auth.is_self:
            behalf = {"reference": call.auth.record.patient}
    else:
        author = Author.of(call.auth, await practice_of(transaction, call.auth.practice))
        who, behalf = author.who, author.practice
    await written_down(
        transaction, call.server, call.as_practice, row, activity, who=who, behalf=behalf
    )


async def written_down(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    row: Row,
    activity: str,
    *,
    who: dict[str, Any],
    behalf: dict[str, Any] | None,
) -> None:
    """Store the Provenance of what was just done; ``activity`` is ``CREATE`` or ``UPDATE``.

    No proxy sees it: it may name another one.
    """
    agent = {"type": {"coding": [{"system": _AGENT, "code": "author"}]}, "who": who}
    tree = {
        "resourceType": "Provenance",
        "meta": restricted(),
        "target": [{"reference": str(row.key)}],
        "recorded": instant(int(server.clock() * _MICROSECONDS)),
        "activity": {"coding": [{"system": _OPERATION, "code": activity}]},
        "agent": [agent if behalf is None else agent | {"onBehalfOf": behalf}],
    }
    await create_in(
        transaction,
        server,
        auth,
        tree,
        Visibility.of_server("Provenance", practice=auth.practice),
        resource_id=server.new_id(),
    )


async def tell_who_sees(
    transaction: ResourceTransaction,
    practice: str,
    patient: str,
    *,
    key: str,
    template: str,
    now: float,
    section: str = SECTION,
    stream: outbox.Stream | None = None,
) -> None:
    """Write a message to whose record it is, and to proxies who see a section of it now.

    ``patient`` is ``Patient/<id>``; ``key`` is of what happened, so that it is told once.
    """
    proxies = await proxies_who_see(transaction, practice, patient, section, clock=lambda: now)
    to = {key: f"{RECORD}{practice}/{patient}"}
    to |= {f"{key}.{one.key}": to_account(one.key) for one in proxies}
    for name, address in to.items():
        await outbox.enqueue(
            transaction,
            key=name,
            practice=practice,
            channel="mail",
            to=address,
            template=template,
            now=now,
            stream=stream,
        )


async def keep_held(
    transaction: ResourceTransaction, server: Server, practice: str, held: Held
) -> None:
    """Let the time that an Appointment has just taken be free at the end of a hold.

    A job says so of the Appointment then.
    """
    own_id = held.key.partition("/")[2]
    await appointment.hold(transaction, practice, own_id, held.until, now=server.clock())
    await transaction.put(held)
    await jobs.enqueue(
        transaction,
        key=f"{END_HOLD}.{practice}.{own_id}",
        practice=practice,
        name=END_HOLD,
        now=server.clock(),
        due=held.until,
        arguments={"appointment": own_id},
    )


def _participant(actor: str, status: str, display: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"reference": actor}
    if display:
        found["display"] = display
    return {"actor": found, "status": status}


async def known_patient(call: Call, reader: ResourceReader, key: ResourceKey) -> None:
    """Require a Patient of the practice, and where staff work in one record, that one.

    Raises `NotFound`.
    """
    auth = call.auth
    visible = Visibility.of_server("Patient", practice=auth.practice)
    row = await reader.read(key, visible)
    bound = auth.staff_patient
    if row is None or row.deleted or (bound is not None and bound != key.id):
        raise unknown(key)


def keys_named(texts: Sequence[str], *types: str) -> list[ResourceKey]:
    """Return the resources that texts like ``Type/id`` name. Raises `Unprocessable`."""
    found = []
    for text in texts:
        key = local_target(text)
        if key is None or str(key) != text or key.type not in types:
            message = f"this names a {' or '.join(types)}: {types[0]}/id"
            raise Unprocessable(message)
        found.append(key)
    return found
