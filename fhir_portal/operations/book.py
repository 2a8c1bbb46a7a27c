"""``Appointment/$book``: book what is held, move, cancel (IHE ITI-117)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Conflict, Invalid, TooManyRequests, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.appointments import (
    CANCELLATION,
    PREVIOUS,
    BookedHere,
    Held,
    NotAvailable,
    cancelled,
    checked_comment,
    of_practice,
    patient_in,
    refuse_past_deadline,
    searchset,
    store_next,
    with_comment,
)
from fhir_portal.operations.call import Call
from fhir_portal.resources.appointment import codes_of
from fhir_portal.resources.reservation import time_of
from fhir_portal.resources.store import ResourceTransaction, Row

_RESOURCE: Final = "appointment-resource"
_OPEN: Final = frozenset({"proposed", "pending", "booked", "waitlist"})
"""What can be cancelled."""
_MICROSECONDS: Final = 1_000_000
_LONGEST_REASON: Final = 200
_PATIENTS_REASONS: Final = (
    *("pat", "pat-crs", "pat-cpp", "pat-dec", "pat-fb", "pat-lt", "pat-mt", "pat-mv", "pat-preg"),
    *("pat-swl", "pat-uwo"),
)
_PRACTICES_REASONS: Final = (
    *("prov", "prov-pers", "prov-dch", "prov-edu", "prov-hosp", "prov-labs", "prov-mri"),
    *("prov-onc", "maint", "meds-inc", "other", "oth-cms", "oth-err", "oth-fin", "oth-iv"),
    *("oth-int", "oth-mu", "oth-room", "oth-oerr", "oth-swie", "oth-weath"),
)
_MOVED: Final = {"coding": [{"system": CANCELLATION, "code": "pat-crs"}], "text": "It was moved."}
_ANSWERED: Final = {"text": "An appointment was given."}
"""Why a wish is over that was granted."""


async def book(call: Call) -> FhirResponse:
    """Book, move or cancel; the answer holds the Appointments that this changed.

    Raises:
        NotFound: no such Appointment, or its hold is over.
        Conflict: it is not in a state for this. Unprocessable: the practice's rule forbids it.
    """
    reference, resource = call.arguments.one("appointment-reference"), call.arguments.one(_RESOURCE)
    if (reference is None) == (resource is None):
        message = "give either appointment-reference or appointment-resource"
        raise Invalid(message, expression="Parameters.parameter")
    status = None if resource is None else resource.get("status")
    if resource is not None:
        if not resource.get("id"):
            message = "name the Appointment by its id"
            raise Invalid(message, expression="Appointment.id")
        reference = {"reference": f"Appointment/{resource['id']}"}
    replaces = call.arguments.one("replaces")
    comment = checked_comment(call.arguments.one("comment"), "Parameters.parameter.value")
    if status == "cancelled":
        if replaces is not None:
            message = "what is cancelled takes the place of nothing"
            raise Invalid(message, expression="Parameters.parameter")
        return await _cancel(call, reference, _reason(call, resource), comment)
    if status not in (None, "pending"):
        message = "the Appointment is pending to be booked, or cancelled"
        raise Unprocessable(message, expression="Appointment.status")
    return await _book(call, reference, replaces, comment)


async def _book(call: Call, reference: Any, replaces: Any, comment: str | None) -> FhirResponse:
    async def work(transaction: ResourceTransaction) -> list[Row]:
        await call.server.still(transaction, call.auth)
        row = await call.named(transaction, reference, "Appointment")
        tree = json.parse(row.body)
        policy = await of_practice(transaction, call)
        await _require_held(call, transaction, row, tree, policy)
        changed: list[Row] = []
        new = dict(tree) | {
            "status": "booked",
            "participant": [
                one | {"status": "accepted"} if one.get("status") == "needs-action" else one
                for one in tree["participant"]
            ],
        }
        if comment is not None:
            new["comment"] = with_comment(tree, comment)
        if replaces is not None:
            old = await call.named(transaction, replaces, "Appointment")
            before = json.parse(old.body)
            patient = patient_in(tree)
            if old.key == row.key or patient is None or patient_in(before) != patient:
                message = "an appointment takes the place of another one of the same patient"
                raise Unprocessable(message, expression="Parameters.parameter.value")
            await _require_open(call, transaction, old, before, policy)
            ended = cancelled(before, _why_over(call, old, row))
            changed.append(await store_next(call, transaction, old, ended))
            links = [one for one in tree.get("extension") or () if one.get("url") != PREVIOUS]
            if _may_tell_of(row, old):
                links.append({"url": PREVIOUS, "valueReference": {"reference": str(old.key)}})
            new.pop("extension", None)
            if links:
                new["extension"] = links
        changed.insert(0, await store_next(call, transaction, row, new))
        await _count_booked(call, transaction, row, tree, policy)
        held = await transaction.get(Held, f"{call.auth.practice}/{row.facts.id}")
        if held is not None:
            await transaction.delete(Held, held.key)
            changed += await _waits_no_more(call, transaction, held, row)
        return changed

    return searchset(call, *await call.server.store.transact(work))


async def _count_booked(
    call: Call,
    transaction: ResourceTransaction,
    row: Row,
    tree: Mapping[str, Any],
    policy: PracticePolicy,
) -> None:
    """Note what a person has booked, unless they have booked as many as they may.

    Counted is what is to come, still booked, and seen by the caller: no number tells of more.
    """
    patient = patient_in(tree)
    if call.auth.record is None or patient is None:
        return
    practice, now = call.auth.practice, call.server.clock()
    whose = f"{practice}/{patient.id}"
    count = 0
    for one in await transaction.find(BookedHere, "patient", whose):
        key = ResourceKey("Appointment", one.key.partition("/")[2])
        other = await transaction.read(key, call.visible)
        if other is not None and not other.deleted and (one.expires or now) > now:
            count += json.parse(other.body).get("status") == "booked"
    if count >= policy.booked_at_once:
        message = f"{count} appointments are booked already: call the practice for one more"
        raise TooManyRequests(message)
    begins = period_of(tree["start"])[0] / _MICROSECONDS
    await transaction.put(
        BookedHere(key=f"{practice}/{row.facts.id}", patient=whose, expires=begins)
    )


def _may_tell_of(teller: Row, other: Row) -> bool:
    """Whether everybody who sees one Appointment may learn that there is another one."""
    return other.facts.visibility_class.labels <= teller.facts.visibility_class.labels


def _why_over(call: Call, old: Row, new: Row) -> dict[str, Any]:
    """Return why an Appointment is over that another one takes the place of.

    Who must not know of that one reads what is said of one that was cancelled.
    """
    if not _may_tell_of(old, new):
        return _reason(call, {})
    wish = json.parse(old.body).get("status") in {"proposed", "waitlist"}
    return _ANSWERED if wish else _MOVED


async def _waits_no_more(
    call: Call, transaction: ResourceTransaction, held: Held, given: Row
) -> list[Row]:
    """Whoever takes a time that was offered for their waiting waits no more."""
    if held.waits is None:
        return []
    key = ResourceKey("Appointment", held.waits)
    row = await transaction.read(key, call.visible)
    if row is None or row.deleted:
        return []
    tree = json.parse(row.body)
    if tree.get("status") != "waitlist":
        return []
    ended = cancelled(tree, _why_over(call, row, given))
    return [await store_next(call, transaction, row, ended)]


async def _cancel(
    call: Call, reference: Any, reason: dict[str, Any], comment: str | None
) -> FhirResponse:
    async def work(transaction: ResourceTransaction) -> Row:
        await call.server.still(transaction, call.auth)
        row = await call.named(transaction, reference, "Appointment")
        tree = json.parse(row.body)
        await _require_open(call, transaction, row, tree, await of_practice(transaction, call))
        new = cancelled(tree, reason)
        if comment is not None:
            new["comment"] = with_comment(tree, comment)
        changed = await store_next(call, transaction, row, new)
        await transaction.delete(Held, f"{call.auth.practice}/{row.facts.id}")
        return changed

    return searchset(call, await call.server.store.transact(work))


async def _require_held(
    call: Call,
    transaction: ResourceTransaction,
    row: Row,
    tree: Mapping[str, Any],
    policy: PracticePolicy,
) -> None:
    """The time is this Appointment's until its hold ends, and not a moment longer."""
    if tree.get("status") != "pending":
        message = "this appointment is not held: find a time and hold it first"
        raise Conflict(message, expression="Appointment.status")
    held = await time_of(transaction, call.auth.practice, row.facts.id)
    if held is not None and held.until is not None and call.server.clock() >= held.until:
        raise NotAvailable
    if call.auth.record is None:
        return
    if held is None or held.until is None:
        message = "this appointment waits for the practice"
        raise Conflict(message, expression="Appointment.status")
    if policy.booking_of(codes_of(tree)) != "book":
        raise NotAvailable


async def _require_open(
    call: Call,
    transaction: ResourceTransaction,
    row: Row,
    tree: Mapping[str, Any],
    policy: PracticePolicy,
) -> None:
    if tree.get("status") not in _OPEN:
        message = f"this appointment is {tree.get('status')}: there is nothing to cancel"
        raise Conflict(message, expression="Appointment.status")
    held = await time_of(transaction, call.auth.practice, row.facts.id)
    is_held = held is not None and held.until is not None
    refuse_past_deadline(call, policy, tree, held=is_held)


def _reason(call: Call, resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``cancelationReason`` that was sent, or that the patient or practice did it."""
    known = _PATIENTS_REASONS if call.auth.record is not None else _PRACTICES_REASONS
    sent = resource.get("cancelationReason") or {}
    found: dict[str, Any] = {"coding": [{"system": CANCELLATION, "code": known[0]}]}
    for one in sent.get("coding") or ():
        if one.get("system") != CANCELLATION or one.get("code") not in known:
            message = f"the reason is text, or one of {', '.join(known)} of {CANCELLATION}"
            raise Unprocessable(message, expression="Appointment.cancelationReason")
        found["coding"] = [{"system": CANCELLATION, "code": one["code"]}]
    text = sent.get("text")
    if text is not None:
        if len(text) > _LONGEST_REASON or not text.isprintable():
            message = f"the reason is printable text of at most {_LONGEST_REASON} characters"
            raise Unprocessable(message, expression="Appointment.cancelationReason.text")
        found["text"] = text
    return found
