"""The ledger of the test provider: its own store of orders, which the portal never looks into.

It is to a portal what a real payment provider is, but for the money: `fhir_portal.billing.provider`
says how the two speak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from fhir_portal.billing.provider import Order, OrderState
from fhir_portal.records import Record, RecordStore, RecordTransaction

_TOKEN_BYTES = 24


class LedgerOrder(Record, frozen=True, kw_only=True):
    """An order; ``key`` is its name, ``token`` opens the page where it is paid."""

    kind: ClassVar[str] = "ledger-order"
    indexed: ClassVar[tuple[str, ...]] = ("token",)

    state: OrderState
    amount: int
    currency: str
    payee: str
    return_to: str
    token: str

    def shown(self, pay_at: str) -> Order:
        """What the portal is told; ``pay_at`` is where pages are."""
        where = f"{pay_at}/{self.token}" if self.state == "open" else ""
        return Order(self.key, self.state, self.amount, self.currency, where)


class NewOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order that a portal opens."""

    order: str
    amount: int
    currency: str
    practice: str
    payee: str
    return_to: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """Orders, each of which is paid at most once."""

    store: RecordStore
    random: Callable[[int], bytes]

    async def open(self, new: NewOrder) -> LedgerOrder:
        """Open an order, or return the one of this name."""
        made = LedgerOrder(
            key=new.order,
            state="open",
            amount=new.amount,
            currency=new.currency,
            payee=new.payee,
            return_to=new.return_to,
            token=self.random(_TOKEN_BYTES).hex(),
        )

        async def work(transaction: RecordTransaction) -> LedgerOrder:
            found = await transaction.get(LedgerOrder, new.order)
            if found is not None:
                return found
            await transaction.insert(made)
            return made

        return await self.store.transact(work)

    async def find(self, order: str) -> LedgerOrder | None:
        """Return an order by its name."""
        return await self.store.get(LedgerOrder, order)

    async def behind(self, token: str) -> LedgerOrder | None:
        """Return the order of a page."""
        found = await self.store.find(LedgerOrder, "token", token, limit=1)
        return found[0] if found else None

    async def close(self, order: str, state: OrderState) -> LedgerOrder:
        """Take the money (``paid``), or end the order; what is over stays as it is.

        An order that nobody has opened is ended for ever.
        """

        async def work(transaction: RecordTransaction) -> LedgerOrder:
            found = await transaction.get(LedgerOrder, order)
            if found is None:
                found = LedgerOrder(
                    key=order,
                    state="ended",
                    amount=0,
                    currency="",
                    payee="",
                    return_to="",
                    token="",
                )
            elif found.state == "open":
                found = msgspec.structs.replace(found, state=state)
            await transaction.put(found)
            return found

        return await self.store.transact(work)

    async def charged(self) -> dict[str, int]:
        """Return what was taken, by order, in the smallest unit of each currency."""
        found: dict[str, int] = {}
        after = ""
        while page := await self.store.every(LedgerOrder, after=after):
            found |= {one.key: one.amount for one in page if one.state == "paid"}
            after = page[-1].key
        return found
