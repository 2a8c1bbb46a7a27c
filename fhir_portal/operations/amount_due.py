"""``Invoice/[id]/$amount-due``: how a bill stands, payment by payment."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_portal.access.policy import Ask, Deny, decide
from fhir_portal.billing.invoice import Balance, NotReckoned, Paid, balance_of
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.resources.store import ResourceStore, ResourceTransaction, Row


async def amount_due(call: Call) -> FhirResponse:
    """Say what a bill comes to, what was paid, what is being paid, and what is left."""
    row = await call.target(call.server.store)
    balance = await reckoned(call.server.store, row)
    seen = await _seen(call, balance)
    return call.answer(
        {
            "status": json.parse(row.body)["status"],
            "total": balance.total.money,
            "paid": balance.paid.money,
            "under-way": balance.under_way.money,
            "due": balance.due.money,
            "payment": [
                {
                    "notice": {"reference": str(one.notice.key)},
                    "amount": one.amount.money,
                    "date": one.day or None,
                }
                for one in seen
            ],
        },
        row,
        *(one.notice for one in seen),
    )


async def _seen(call: Call, balance: Balance) -> Sequence[Paid]:
    """Return the payments that the caller may see; what is due is a fact of the bill itself."""
    if call.auth.record is None or call.auth.staff is not None:
        return balance.payments
    decision = decide(call.auth, Ask("r", "PaymentNotice", call.server.clock()))
    if isinstance(decision, Deny):
        return ()
    rows = await call.server.store.read_many(
        [one.notice.key for one in balance.payments], decision.visible
    )
    visible = {one.key for one in rows}
    return [one for one in balance.payments if one.notice.key in visible]


async def reckoned(reader: ResourceStore | ResourceTransaction, row: Row) -> Balance:
    """Return `fhir_portal.billing.invoice.balance_of`. Raises `Unprocessable` where it cannot."""
    try:
        return await balance_of(reader, row)
    except NotReckoned as error:
        raise Unprocessable(str(error)) from None
