"""``Appointment/$hold``: keep a time for somebody for some minutes (IHE ITI-116)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.errors import TooManyRequests, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.appointments import (
    Held,
    NotAvailable,
    Offer,
    Offers,
    checked_comment,
    keep_held,
    known_patient,
    of_practice,
    patient_in,
    searchset,
    store_new,
)
from fhir_portal.operations.call import Call
from fhir_portal.resources.store import ResourceTransaction, Row

MOST_HELD: Final = 3
"""Times that one patient may have held at once, as far as the caller sees them: nobody books by
holding everything."""
_MINUTE: Final = 60
_MICROSECONDS: Final = 1_000_000
_RESOURCE: Final = "Appointment"


async def hold(call: Call) -> FhirResponse:
    """Store a pending Appointment for a Slot, and take the time it needs until the hold ends.

    Raises:
        NotAvailable: no such Slot, not for this caller, or somebody has the time.
        TooManyRequests: as many are held for the patient as may be.
    """
    sent = call.arguments.one("appointment-resource")
    slot = _slot_in(sent)
    patient = _patient(call, sent)
    words = {
        "comment": checked_comment(sent.get("comment"), f"{_RESOURCE}.comment"),
        "reason": checked_comment(_reason(sent), f"{_RESOURCE}.reasonCode"),
    }

    async def work(transaction: ResourceTransaction) -> Row:
        await call.server.still(transaction, call.auth)
        now, practice = call.server.clock(), call.auth.practice
        await known_patient(call, transaction, patient)
        policy = await of_practice(transaction, call)
        offers = Offers(transaction, call.auth, policy, now=now)
        visible = Visibility.of_server("Slot", practice=practice)
        offer = await offers.of(await transaction.read(slot, visible))
        if offer is None or not _is_this_time(offer, sent) or not await offers.is_free(offer):
            raise NotAvailable
        whose = f"{practice}/{patient.id}"
        if call.auth.record is not None and await _held(call, transaction, whose) >= MOST_HELD:
            message = f"{MOST_HELD} times are held already; book one, or wait until a hold ends"
            raise TooManyRequests(message)
        tree = offer.appointment("pending", "needs-action", str(patient))
        tree["created"] = instant(int(now * _MICROSECONDS))
        if words["comment"]:
            tree["comment"] = words["comment"]
        if words["reason"]:
            tree["reasonCode"] = [{"text": words["reason"]}]
        row = await store_new(call, transaction, tree)
        until = now + policy.hold_minutes * _MINUTE
        key = f"{practice}/{row.facts.id}"
        held_time = Held(key=key, patient=whose, until=until, expires=until + _MINUTE)
        await keep_held(transaction, call.server, practice, held_time)
        return row

    return searchset(call, await call.server.store.transact(work))


async def _held(call: Call, transaction: ResourceTransaction, whose: str) -> int:
    """Return how many times are held for a patient, of those that the caller may see.

    A number that counts hidden ones would tell of them.
    """
    now, count = call.server.clock(), 0
    for one in await transaction.find(Held, "patient", whose):
        if now < one.until:
            key = ResourceKey(_RESOURCE, one.key.partition("/")[2])
            row = await transaction.read(key, call.visible)
            count += row is not None and not row.deleted
    return count


def _slot_in(sent: Mapping[str, Any]) -> ResourceKey:
    texts = [one.get("reference") or "" for one in sent.get("slot") or ()]
    key = local_target(texts[0]) if len(texts) == 1 else None
    if key is None or key.type != "Slot" or texts[0] != str(key):
        message = "the Appointment is one that $find returned: it has one slot, Slot/id"
        raise Unprocessable(message, expression=f"{_RESOURCE}.slot")
    return key


def _is_this_time(offer: Offer, sent: Mapping[str, Any]) -> bool:
    """Whether a Slot is still when the caller was told it is."""
    for name in ("start", "end"):
        text = sent.get(name)
        if text is not None and period_of(text) != period_of(offer.slot[name]):
            return False
    return True


def _patient(call: Call, sent: Mapping[str, Any]) -> ResourceKey:
    """Return whom the time is for: a person's token is for its own record, and no other."""
    named = patient_in(sent)
    others = any(
        str((one.get("actor") or {}).get("reference", "")).startswith("Patient/")
        for one in sent.get("participant") or ()
    )
    if call.auth.record is not None:
        own = ResourceKey.parse(call.auth.record.patient)
        if others and named != own:
            raise NotAvailable
        return own
    if named is None:
        message = "name the patient as a participant: one Patient/id"
        raise Unprocessable(message, expression=f"{_RESOURCE}.participant")
    return named


def _reason(sent: Mapping[str, Any]) -> str | None:
    texts = [one["text"] for one in sent.get("reasonCode") or () if one.get("text")]
    return "; ".join(texts) or None
