"""A payment under way: what is reserved of a bill until the provider has said how it ended.

What was begun counts as taken, so that two payments at once never pay more than is due. It ends by
the provider's word alone: a payment of which nothing is known is asked for until something is.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar, Final, Literal

import msgspec

from fhir_portal.billing.amount import Amount
from fhir_portal.records import Record, RecordReader, RecordTransaction

PaymentState = Literal["begun", "paid", "ended"]

TOLD_SECONDS: Final = 86_400.0
"""So long after it was begun staff are told of a payment of which nobody says how it ended."""
BEGUN_SECONDS: Final = 1800.0
"""So long the payer has; then the order is cancelled, if it is not paid by then."""
KEPT_SECONDS: Final = 400 * 86_400.0
"""How long a payment that is over can be asked for by its idempotency key."""
MOST_UNDER_WAY: Final = 10
"""Payments of one bill that may be under way at a time."""


class Payment(Record, frozen=True, kw_only=True):
    """One payment of a bill; ``key`` is what the provider calls it by.

    ``invoice`` is ``<practice>/Invoice/<id>``, ``payer`` who pays (``Patient/<id>`` or
    ``RelatedPerson/<id>``), ``notice`` the id of the PaymentNotice once it is paid. ``amount`` is
    in the smallest unit of the currency. ``given_up``: it ended without the provider's word, since
    there is no provider any more to ask.
    """

    kind: ClassVar[str] = "payment"
    indexed: ClassVar[tuple[str, ...]] = ("under_way_for", "under_way_in")

    practice: str
    invoice: str
    payer: str
    client: str
    amount: int
    currency: str
    begun: float
    state: PaymentState = "begun"
    notice: str = ""
    given_up: bool = False

    @property
    def under_way_in(self) -> str | None:
        """The practice, until it is known how the payment ended."""
        return self.practice if self.state == "begun" else None

    @property
    def under_way_for(self) -> str | None:
        """The bill, until it is known how the payment ended."""
        return self.invoice if self.state == "begun" else None

    @property
    def money(self) -> Amount:
        """What is to be paid."""
        return Amount(self.amount, self.currency)


def payment_key(practice: str, invoice: str, payer: str, chosen: str) -> str:
    """Return the key of a payment: the same for the same payer, bill and ``chosen`` key."""
    named = f"{practice}\n{invoice}\n{payer}\n{chosen}"
    return hashlib.sha256(named.encode()).hexdigest()


def is_open(payment: Payment) -> bool:
    """Whether a provider's word can still change how a payment stands."""
    return payment.state == "begun" or payment.given_up


async def under_way(reader: RecordReader, invoice: str) -> list[Payment]:
    """Return the payments of a bill that nobody knows the end of yet."""
    return await reader.find(Payment, "under_way_for", invoice)


async def ended(
    transaction: RecordTransaction,
    payment: Payment,
    state: Literal["paid", "ended"],
    *,
    notice: str = "",
    given_up: bool = False,
    now: float,
) -> bool:
    """Note how a payment ended, once; false if that is known already."""
    after = msgspec.structs.replace(
        payment, state=state, notice=notice, given_up=given_up, expires=now + KEPT_SECONDS
    )
    found = await transaction.get(Payment, payment.key)
    if found is None or not is_open(found):
        return False
    return await transaction.replace(found, after)
