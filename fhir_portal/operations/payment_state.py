"""``Invoice/$payment``: how a payment stands that the caller began."""

from __future__ import annotations

from fhir_portal.billing.payment import Payment
from fhir_portal.billing.provider import ProviderFault
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import NotFound
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.resources.permission import checked

_MICROSECONDS = 1_000_000


async def payment_state(call: Call) -> FhirResponse:
    """Tell it, with the provider's page as long as it waits there.

    Raises `NotFound`: there is none, or it is another's, or of a bill that the caller does not see.
    """
    key = call.arguments.one("payment")
    payment = await call.server.store.get(Payment, key)
    unknown = NotFound(f"payment {key[:64]} is not known")
    who = call.auth.fhir_user
    if payment is None or payment.practice != call.auth.practice or payment.payer != who:
        raise unknown
    _, _, name = payment.invoice.partition("/")
    row = await call.server.store.read(ResourceKey.parse(name), call.visible)
    if row is None or row.deleted:
        raise unknown
    checked([row], call.visible)
    return call.answer(
        {
            "invoice": {"reference": name},
            "status": payment.state,
            "amount": payment.money.money,
            "begun": instant(int(payment.begun * _MICROSECONDS)),
            "pay-at": await _page(call, payment),
            "notice": {"reference": f"PaymentNotice/{payment.notice}"} if payment.notice else None,
        },
        row,
    )


async def _page(call: Call, payment: Payment) -> str | None:
    """Where the payer goes on; ``None`` where they cannot, or the provider does not answer."""
    provider = call.collaborators.payments
    if payment.state != "begun" or provider is None:
        return None
    try:
        order = await provider.state(payment.key)
    except ProviderFault:
        return None
    return order.pay_at if order is not None and order.state == "open" else None
