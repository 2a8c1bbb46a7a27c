"""How a payment ends: what the provider says of its order becomes resources, once.

A paid order is a PaymentReconciliation (what the provider took in) and a PaymentNotice (what was
paid of the bill); a bill of which nothing is left is ``balanced``. The provider tells by a webhook,
and is asked, by a job, about every order of which it has told nothing: so its ledger and the bills
agree whatever was lost on the way. Source: FHIR R4 §13.5, §13.6, §13.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import structlog

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.matter import KEPT_SECONDS, StaffMatter, matter_key
from fhir_portal.accounts.practice import Practice
from fhir_portal.billing.invoice import NotReckoned, balance_of
from fhir_portal.billing.payment import BEGUN_SECONDS, TOLD_SECONDS, Payment, ended, is_open
from fhir_portal.billing.provider import Order, PaymentProvider, ProviderFault
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.notify.jobs import Job, Work
from fhir_portal.notify.lease import Lease, finish_in
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.operations.authorship import restricted
from fhir_portal.operations.call import acting_for
from fhir_portal.operations.payment_plan import complete_plan
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceStore, ResourceTransaction, Row
from fhir_portal.resources.writing import create_in, update_in

WATCH: Final = "settle-payment"
PAYMENT_SYSTEM: Final = "https://fhir-portal.example/ig/NamingSystem/payment"
"""Names a payment as the provider is asked about it."""
ASK_AGAIN_SECONDS: Final = 60.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
_MICROSECONDS: Final = 1_000_000
_SIGNS: Final = 12
"""Of a payment's name, by which staff find it in the provider's books."""
Reason = Literal["other-amount", "paid-after-end", "no-answer", "provider-gone"]
"""Codes of the CodeSystem ``staff-task-reason``."""
_UNTIL_KNOWN: Final[tuple[Reason, ...]] = ("other-amount", "no-answer", "provider-gone")
_PAID: Final = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/paymentstatus", "code": "paid"}]
}
_PAYMENT: Final = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/payment-type", "code": "payment"}]
}
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"

_log = structlog.get_logger(__name__)


class OtherOrder(Exception):
    """The provider took another amount than was agreed. Staff have been told to look at that."""


async def settle(server: Server, order: Order) -> Payment:
    """Note what became of an order; again changes nothing. Returns the payment as it is then.

    Raises:
        LookupError: no payment of this server is called so.
        OtherOrder: the provider says it took another amount.
    """

    async def work(transaction: ResourceTransaction) -> Payment:
        return await settle_in(transaction, server, order)

    after = await server.store.transact(work)
    if _is_other(after, order):
        raise OtherOrder
    return after


async def settle_in(transaction: ResourceTransaction, server: Server, order: Order) -> Payment:
    """Do what `settle` does, inside a transaction; of another amount nothing but that is noted.

    What a provider and the bills do not agree on is told to staff in this very transaction, once.
    """
    payment = await transaction.get(Payment, order.order)
    if payment is None:
        raise LookupError(order.order)
    if payment.state == "ended" and order.state == "paid":
        # By what was agreed it cannot be, unless it was given up: an ended order is not opened.
        await mismatch(transaction, server, payment, "paid-after-end", order)
    if not is_open(payment) or order.state == "open":
        return payment
    if order.state == "ended":
        await ended(transaction, payment, "ended", now=server.clock())
    elif order.money != payment.money:
        await mismatch(transaction, server, payment, "other-amount", order)
        return payment
    else:
        notice = await _write(transaction, server, payment)
        await ended(transaction, payment, "paid", notice=notice, now=server.clock())
    await _agreed(transaction, payment, now=server.clock())
    after = await transaction.get(Payment, payment.key)
    if after is None:  # it was there a moment ago, in this very transaction
        raise LookupError(payment.key)
    return after


def _is_other(payment: Payment, order: Order) -> bool:
    return order.state == "paid" and is_open(payment) and order.money != payment.money


async def mismatch(
    transaction: ResourceTransaction,
    server: Server,
    payment: Payment,
    reason: Reason,
    order: Order | None = None,
) -> None:
    """Tell staff what a person has to look at, once: `fhir_portal.operations.staff_task`."""
    key = _matter(payment, reason)
    if await transaction.get(StaffMatter, key) is not None:
        return
    _log.error("a payment provider and the bills disagree", payment=payment.key, reason=reason)
    _, _, name = payment.invoice.partition("/")
    everything = Visibility.of_server("Invoice", practice=payment.practice)
    bill = await transaction.read(ResourceKey.parse(name), everything)
    owners = bill.facts.owners if bill is not None else ()
    said = f"; the provider says {order.money}" if order is not None else ""
    now = server.clock()
    await QueuedMatters().note(
        transaction,
        StaffMatter(
            key=key,
            expires=now + KEPT_SECONDS,
            practice=payment.practice,
            about="payment-mismatch",
            reason=reason,
            since=now,
            latest=now,
            patient=f"Patient/{owners[0]}" if len(owners) == 1 else None,
            focus=name if bill is not None and not bill.deleted else "",
            detail=f"payment {payment.key[:_SIGNS]} of {payment.money}{said}",
        ),
    )


async def _agreed(transaction: RecordTransaction, payment: Payment, *, now: float) -> None:
    """Take back what was told of a payment of which the end is known now."""
    for reason in _UNTIL_KNOWN:
        found = await transaction.get(StaffMatter, _matter(payment, reason))
        if found is not None and found.settled is None:
            await QueuedMatters().settle(transaction, found.key, now=now)


def _matter(payment: Payment, reason: Reason) -> str:
    return matter_key(payment.practice, "payment-mismatch", f"{payment.key} {reason}")


async def is_wanted(reader: ResourceStore | ResourceTransaction, payment: Payment) -> bool:
    """Whether the bill of a payment that is under way still needs it.

    It may have been paid at the desk meanwhile, or changed, or taken back.
    """
    _, _, name = payment.invoice.partition("/")
    everything = Visibility.of_server("Invoice", practice=payment.practice)
    row = await reader.read(ResourceKey.parse(name), everything)
    if row is None or row.deleted:
        return False
    try:
        return (await balance_of(reader, row)).wants(payment)
    except NotReckoned:
        return False


async def watch(
    transaction: RecordTransaction, payment: Payment, *, now: float, n: int = 0
) -> None:
    """Have the provider asked about an order, in a while."""
    pause = min(ASK_AGAIN_SECONDS * 2**n, LONGEST_PAUSE_SECONDS)
    await jobs.enqueue(
        transaction,
        key=f"{WATCH}.{payment.key}.{n}",
        practice=payment.practice,
        name=WATCH,
        now=now,
        due=now + pause,
        arguments={"payment": payment.key, "n": str(n)},
    )


def settlement_jobs(server: Server, provider: PaymentProvider | None) -> Mapping[str, Work]:
    """Return the function of this job by name, for `fhir_portal.notify.jobs.work_off`.

    ``provider`` is ``None`` where none is set up, or none any more.
    """

    async def ask(held: Lease[Job]) -> None:
        """Ask about an order; one that nobody paid in time is cancelled.

        A provider is asked until it answers. Where there is none any more, what was begun is given
        up after a day, so that the bill can be paid: staff are told to look into its books.
        """
        job = held.work
        key, n = job.arguments["payment"], int(job.arguments["n"])
        payment = await server.store.get(Payment, key)
        if payment is None or payment.state != "begun":
            return
        overdue = server.clock() >= payment.begun + BEGUN_SECONDS
        overdue = overdue or not await is_wanted(server.store, payment)
        order: Order | None = None
        answers = False
        try:
            if provider is not None:
                order = await (provider.cancel(key) if overdue else provider.state(key))
                answers = True
        except ProviderFault as error:  # asked again until it answers: nothing else tells
            _log.warning("the payment provider does not answer", fault=str(error))
        late = server.clock() >= payment.begun + TOLD_SECONDS

        async def note(transaction: ResourceTransaction) -> None:
            after: Payment = payment
            if order is not None:
                after = await settle_in(transaction, server, order)
            elif late and provider is None:
                after = await _give_up(transaction, server, payment)
            elif late and not answers:
                await mismatch(transaction, server, payment, "no-answer")
            if after.state == "begun":
                await watch(transaction, after, now=server.clock(), n=n + 1)
            await finish_in(transaction, held, now=server.clock())

        await server.store.transact(note)

    return {WATCH: ask}


async def _give_up(transaction: ResourceTransaction, server: Server, payment: Payment) -> Payment:
    """End what nobody can be asked about any more. Should its provider tell of it, that counts."""
    found = await transaction.get(Payment, payment.key)
    if found is None or found.state != "begun":
        return found or payment
    await mismatch(transaction, server, found, "provider-gone")
    await ended(transaction, found, "ended", given_up=True, now=server.clock())
    return await transaction.get(Payment, payment.key) or found


async def _write(transaction: ResourceTransaction, server: Server, payment: Payment) -> str:
    """Write what was paid; returns the id of the PaymentNotice."""
    practice = await transaction.get(Practice, payment.practice)
    zone = ZoneInfo(practice.zone if practice is not None else "UTC")
    now = server.clock()
    today = datetime.fromtimestamp(now, zone).date().isoformat()
    created = instant(int(now * _MICROSECONDS))
    whom = _payee(practice)
    _, _, name = payment.invoice.partition("/")
    common = {"status": "active", "created": created, "paymentDate": today}
    reconciliation = await _create(
        transaction,
        server,
        payment,
        {
            "resourceType": "PaymentReconciliation",
            "identifier": [{"system": PAYMENT_SYSTEM, "value": payment.key}],
            **common,
            "requestor": whom,
            "outcome": "complete",
            "paymentAmount": payment.money.money,
            "detail": [
                {"type": _PAYMENT, "request": {"reference": name}, "amount": payment.money.money}
            ],
        },
    )
    notice = await _create(
        transaction,
        server,
        payment,
        {
            "resourceType": "PaymentNotice",
            **common,
            "request": {"reference": name},
            "payment": {"reference": str(reconciliation.key)},
            "payee": whom,
            "recipient": whom,
            "amount": payment.money.money,
            "paymentStatus": _PAID,
        },
    )
    await _close(transaction, server, payment, ResourceKey.parse(name))
    await _create(
        transaction,
        server,
        payment,
        {
            "resourceType": "Provenance",
            "meta": restricted(),
            "target": [{"reference": str(notice.key)}],
            "recorded": created,
            "activity": {"coding": [{"system": _OPERATION, "code": "CREATE"}]},
            "agent": [
                {
                    "type": {"coding": [{"system": _AGENT, "code": "author"}]},
                    "who": {"reference": payment.payer},
                }
            ],
        },
    )
    return notice.key.id


async def _close(
    transaction: ResourceTransaction, server: Server, payment: Payment, key: ResourceKey
) -> None:
    """Have a bill of which nothing is left say so."""
    everything = Visibility.of_server("Invoice", practice=payment.practice)
    row = await transaction.read(key, everything)
    if row is None or row.deleted:
        return  # it was paid all the same, and the notice says so
    try:
        balance = await balance_of(transaction, row)
    except NotReckoned:
        return  # changed meanwhile: the practice sees the payment, and reckons itself
    if not balance.is_payable or balance.paid.units < balance.total.units:
        return
    await complete_plan(transaction, server, payment.practice, key)
    tree = json.parse(row.body) | {"status": "balanced"}
    await update_in(
        transaction,
        server,
        acting_for(payment.practice, payment.client),
        tree,
        everything,
        key=key,
        if_match=None,
        if_none_match=None,
    )


async def _create(
    transaction: ResourceTransaction, server: Server, payment: Payment, tree: dict[str, Any]
) -> Row:
    written = await create_in(
        transaction,
        server,
        acting_for(payment.practice, payment.client),
        tree,
        Visibility.of_server(tree["resourceType"], practice=payment.practice),
        resource_id=server.new_id(),
    )
    return written.row


def _payee(practice: Practice | None) -> dict[str, Any]:
    if practice is None:
        return {"display": "unknown"}
    if practice.organization:
        return {"reference": practice.organization, "display": practice.name}
    return {"display": practice.name}
