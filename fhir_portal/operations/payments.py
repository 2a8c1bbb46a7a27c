"""``Invoice/$payments``: the payments of a practice of which nobody knows yet how they end."""

from __future__ import annotations

from typing import Final

from fhir_portal.billing.payment import Payment
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call

_MOST: Final = 1000
_MICROSECONDS: Final = 1_000_000


async def payments(call: Call) -> FhirResponse:
    """List them, the oldest first, of the bills that the caller may work on."""
    found = await call.server.store.find(Payment, "under_way_in", call.auth.practice, limit=_MOST)
    bill_of = {
        one.key: ResourceKey.parse(one.invoice.partition("/")[2])
        for one in sorted(found, key=lambda one: one.begun)
    }
    rows = await call.server.store.read_many(set(bill_of.values()), call.visible)
    seen = {row.key for row in rows}
    listed = [one for one in sorted(found, key=lambda one: one.begun) if bill_of[one.key] in seen]
    answer = {
        "payment": [
            {
                "payment": one.key,
                "invoice": {"reference": str(bill_of[one.key])},
                "amount": one.money.money,
                "begun": instant(int(one.begun * _MICROSECONDS)),
            }
            for one in listed
        ]
    }
    return call.answer(answer, *rows)
