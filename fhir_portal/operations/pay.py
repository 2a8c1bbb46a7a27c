"""``Invoice/[id]/$pay``: begin to pay a bill, or part of it, at the practice's payment provider.

Card and account numbers are given to the provider on its own page and never come here.
"""

from __future__ import annotations

import re
from typing import Final

from fhir_portal.accounts.practice import Practice
from fhir_portal.billing.amount import Amount, NoAmount
from fhir_portal.billing.invoice import Balance
from fhir_portal.billing.payment import MOST_UNDER_WAY, Payment, payment_key
from fhir_portal.billing.provider import Payee, PaymentProvider, ProviderFault
from fhir_portal.fhir.errors import Conflict, Invalid, NotSupported, Unavailable, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.amount_due import reckoned
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.settlement import is_wanted, settle, watch
from fhir_portal.resources.store import ResourceTransaction, Row

DONE: Final = "/payments/done"
"""Where the provider leads the payer afterwards. It says nothing: `$payment` does."""
_CHOSEN: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")


async def pay(call: Call) -> FhirResponse:
    """Reserve what is to be paid, and open an order for it at the provider."""
    chosen = call.arguments.one("idempotency-key")
    if not _CHOSEN.fullmatch(chosen):
        message = "a key has 8 to 64 of A-Z a-z 0-9 . _ -; choose a new one for each payment"
        raise Invalid(message, expression=parameter("idempotency-key"))
    asked = _asked(call)

    async def reserve(
        transaction: ResourceTransaction,
    ) -> tuple[Row, Payment, Practice, PaymentProvider, bool]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        provider = call.collaborators.payments
        practice = await transaction.get(Practice, row.facts.practice)
        if provider is None or practice is None:
            message = "bills are not paid through this portal: ask the practice"
            raise NotSupported(message)
        payer = call.auth.fhir_user or ""
        key = payment_key(practice.key, str(row.key), payer, chosen)
        before = await transaction.get(Payment, key)
        if before is not None:
            if asked is not None and asked != before.money:
                message = "this key was used for another amount: choose a new one"
                raise Conflict(message)
            wanted = before.state != "begun" or await is_wanted(transaction, before)
            return row, before, practice, provider, wanted
        balance = await reckoned(transaction, row)
        payment = Payment(
            key=key,
            practice=practice.key,
            invoice=f"{practice.key}/{row.key}",
            payer=payer,
            client=call.auth.client,
            amount=_payable(balance, asked).units,
            currency=balance.total.currency,
            begun=call.server.clock(),
        )
        await transaction.insert(payment)
        await watch(transaction, payment, now=payment.begun)
        return row, payment, practice, provider, True

    row, payment, practice, provider, wanted = await call.server.store.transact(reserve)
    if not wanted:
        await _given_up(call, provider, payment)
        message = "this bill was paid or changed in another way meanwhile: the payment was given up"
        raise Conflict(message)
    payment, pay_at = await _opened(call, provider, payment, practice)
    return call.answer(
        {
            "payment": payment.key,
            "status": payment.state,
            "amount": payment.money.money,
            "pay-at": pay_at or None,
            "notice": {"reference": f"PaymentNotice/{payment.notice}"} if payment.notice else None,
        },
        row,
    )


def _asked(call: Call) -> Amount | None:
    money = call.arguments.one("amount")
    if money is None:
        return None
    try:
        asked = Amount.of(money)
    except NoAmount as error:
        raise Unprocessable(str(error), expression=parameter("amount")) from None
    if asked.units <= 0:
        message = "an amount to be paid is more than nothing"
        raise Unprocessable(message, expression=parameter("amount"))
    return asked


def _payable(balance: Balance, asked: Amount | None) -> Amount:
    """Return what may be paid now. Raises `Conflict`, `Unprocessable`."""
    if not balance.is_payable:
        message = "this bill is not open for payment"
        raise Conflict(message)
    if balance.due.units == 0:
        waits = "; a payment is under way" if balance.waiting else ""
        message = f"nothing is due on this bill{waits}"
        raise Conflict(message)
    if len(balance.waiting) >= MOST_UNDER_WAY:
        message = "too many payments of this bill are under way: finish those, or try again later"
        raise Conflict(message)
    if asked is None:
        return balance.due
    if asked.currency != balance.total.currency:
        message = f"this bill is paid in {balance.total.currency}"
        raise Unprocessable(message, expression=parameter("amount"))
    if asked.units > balance.due.units:
        message = f"no more than {balance.due} is due"
        raise Conflict(message, expression=parameter("amount"))
    return asked


async def _given_up(call: Call, provider: PaymentProvider, payment: Payment) -> None:
    """End an order that the bill does not need any more. One that was paid by then is paid."""
    try:
        order = await provider.cancel(payment.key)
    except ProviderFault:
        return  # it is asked about later
    await settle(call.server, order)


async def _opened(
    call: Call, provider: PaymentProvider, payment: Payment, practice: Practice
) -> tuple[Payment, str]:
    """Return the payment as it is now, and where to pay if that is still to be done."""
    if payment.state != "begun":
        return payment, ""
    try:
        order = await provider.begin(
            payment.key,
            payment.money,
            payee=Payee(practice.key, practice.name),
            return_to=f"{call.collaborators.base}{DONE}?payment={payment.key}",
        )
    except ProviderFault:
        message = (
            "the payment provider does not answer; send this again with the same key: "
            "nothing is paid twice"
        )
        raise Unavailable(message) from None
    if order.state == "open":
        return payment, order.pay_at
    return await settle(call.server, order), ""
