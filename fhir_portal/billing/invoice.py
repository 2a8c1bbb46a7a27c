"""What is due on a bill: its total less what was paid and what is being paid.

A payment is a PaymentNotice whose ``request`` is the Invoice, whoever wrote it: this server, or the
practice's EHR. Source: FHIR R4 §13.8 (Invoice), §13.5 (PaymentNotice).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.billing.amount import Amount, NoAmount
from fhir_portal.billing.payment import Payment, under_way
from fhir_portal.fhir import json
from fhir_portal.resources.store import ResourceStore, ResourceTransaction, Row
from fhir_portal.search.registry import parameters_for

PAYABLE: Final = "issued"
"""The status of an Invoice that waits for money. Before it nothing is due, after it nothing is."""
_MOST: Final = 1000
"""Payments that are looked at together; where there are more nothing is reckoned up."""


class NotReckoned(Exception):
    """What is due on this bill cannot be said. The words say why, for who asks."""


@dataclass(frozen=True, slots=True)
class Paid:
    """One payment that was made: its PaymentNotice, how much, and the day (``YYYY-MM-DD``)."""

    notice: Row
    amount: Amount
    day: str


@dataclass(frozen=True, slots=True)
class Balance:
    """How a bill stands. ``due`` is never less than nothing; ``over`` is what was paid too much."""

    total: Amount
    payments: Sequence[Paid]
    waiting: Sequence[Payment]
    is_payable: bool

    @property
    def paid(self) -> Amount:
        """What was paid so far."""
        return self._of(sum(one.amount.units for one in self.payments))

    @property
    def under_way(self) -> Amount:
        """What is being paid: begun, and it is not known yet how it ends."""
        return self._of(sum(one.amount for one in self.waiting))

    @property
    def due(self) -> Amount:
        """What is left to be paid."""
        left = self.total.units - self.paid.units - self.under_way.units
        return self._of(max(left, 0) if self.is_payable else 0)

    def wants(self, payment: Payment) -> bool:
        """Whether a payment that is under way would still be of what is due."""
        left = self.total.units - self.paid.units
        others = sum(one.amount for one in self.waiting if one.key != payment.key)
        return self.is_payable and payment.amount <= left - others

    def _of(self, units: int) -> Amount:
        return Amount(units, self.total.currency)


async def balance_of(reader: ResourceStore | ResourceTransaction, row: Row) -> Balance:
    """Reckon up a bill (a living Invoice).

    Raises:
        NotReckoned: it has no total, or payments in another currency, or too many.
    """
    (found,) = await balances_of(reader, [row])
    if isinstance(found, NotReckoned):
        raise found
    return found


async def balances_of(
    reader: ResourceStore | ResourceTransaction, rows: Sequence[Row]
) -> list[Balance | NotReckoned]:
    """Reckon up bills of one practice, in their order; one that cannot be says why."""
    if not rows:
        return []
    practice = rows[0].facts.practice
    notices = await reader.referring(
        parameters_for("PaymentNotice")["request"],
        [row.key for row in rows],
        _notices_at(practice),
        limit=_MOST,
    )
    if len(notices) == _MOST:
        return [NotReckoned("there are too many payments to be reckoned up") for _ in rows]
    of_bill: dict[str, list[Row]] = {}
    for notice in notices:
        request = (json.stored(notice.body).get("request") or {}).get("reference") or ""
        of_bill.setdefault(str(local_target(request)), []).append(notice)
    found: list[Balance | NotReckoned] = []
    for row in rows:
        waiting = await under_way(reader, f"{practice}/{row.key}")
        try:
            found.append(_reckoned(row, of_bill.get(str(row.key), ()), waiting))
        except NotReckoned as error:
            found.append(error)
    return found


@functools.lru_cache(256)
def _notices_at(practice: str) -> Visibility:
    """The payments of a practice: one object for each, of which stores keep what they made."""
    return Visibility.of_server("PaymentNotice", practice=practice)


def _reckoned(row: Row, notices: Sequence[Row], waiting: Sequence[Payment]) -> Balance:
    tree = json.stored(row.body)
    try:
        total = Amount.of(tree.get("totalGross") or tree.get("totalNet"))
    except NoAmount as error:
        raise NotReckoned(f"this bill has no total that can be reckoned with: {error}") from None
    payments = [one for one in map(_payment, notices) if one is not None]
    currencies = {one.amount.currency for one in payments} | {one.currency for one in waiting}
    if currencies - {total.currency}:
        raise NotReckoned("this bill has payments in another currency: ask the practice")
    return Balance(total, payments, waiting, is_payable=tree.get("status") == PAYABLE)


def _payment(notice: Row) -> Paid | None:
    """Return what a PaymentNotice says was paid; ``None`` where it does not count."""
    tree: Mapping[str, Any] = json.stored(notice.body)
    if tree.get("status") != "active":
        return None
    try:
        amount = Amount.of(tree.get("amount"))
    except NoAmount as error:
        raise NotReckoned(f"a payment of this bill cannot be reckoned with: {error}") from None
    return Paid(notice, amount, str(tree.get("paymentDate") or tree.get("created") or "")[:10])
