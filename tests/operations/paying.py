"""A payment provider in a test: the ledger of the demo's, in a store of its own, and its faults."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from fhir_portal.billing.amount import Amount
from fhir_portal.billing.ledger import Ledger, NewOrder
from fhir_portal.billing.provider import Order, Payee, ProviderFault
from fhir_portal.embedded.store import EmbeddedStore

PAGE = "https://pay.example"


@dataclass
class Provider:
    """`PaymentProvider` over a ledger; ``faults`` name what does not answer, next or always."""

    ledger: Ledger
    faults: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def over(cls, store: EmbeddedStore) -> Provider:
        return cls(Ledger(store, os.urandom))

    async def begin(self, order: str, amount: Amount, *, payee: Payee, return_to: str) -> Order:
        self._asked("begin")
        new = NewOrder(order, amount.units, amount.currency, payee.practice, payee.name, return_to)
        found = (await self.ledger.open(new)).shown(PAGE)
        if "after begin" in self.faults:
            raise ProviderFault("timeout")
        return found

    async def state(self, order: str) -> Order | None:
        self._asked("state")
        found = await self.ledger.find(order)
        return None if found is None else found.shown(PAGE)

    async def cancel(self, order: str) -> Order:
        self._asked("cancel")
        return (await self.ledger.close(order, "ended")).shown(PAGE)

    def _asked(self, what: str) -> None:
        self.asked.append(what)
        if what in self.faults:
            raise ProviderFault("it does not answer")
