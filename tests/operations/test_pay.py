"""``$pay`` and ``$amount-due``: what is paid is what is due, once, whatever gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from fhir_portal.access.context import AuthContext
from fhir_portal.billing.payment import BEGUN_SECONDS, MOST_UNDER_WAY, Payment
from fhir_portal.billing.provider import Order
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Issue
from fhir_portal.notify import jobs
from fhir_portal.operations.settlement import OtherOrder, settle, settlement_jobs
from fhir_portal.portal import Portal
from fhir_portal.resources.validation import validate
from fhir_portal.smart.scope import ScopeSet
from tests.access.conftest import family
from tests.builders import (
    DERM,
    FAMILY,
    WITHHELD,
    Answer,
    Caller,
    Clock,
    Json,
    a_portal,
    a_practice,
    a_proxy,
    an_invoice,
    changed,
    keep,
    oneself,
    reference,
    resource,
)
from tests.operations.holding import parameters, values
from tests.operations.paying import PAGE, Provider

__all__ = ["family"]

SCOPE = "patient/Invoice.rs patient/PaymentNotice.crs patient/PaymentReconciliation.rs"
DUE = "Invoice/bill/$amount-due"
PAY = "Invoice/bill/$pay"


def dollars(value: str) -> Json:
    return {"value": float(value), "currency": "USD"}


@dataclass
class House:
    """A practice with a provider; a bill of 120 dollars that Ada owes."""

    portal: Portal
    provider: Provider
    store: EmbeddedStore
    clock: Clock
    ehr: Caller

    def caller(self, auth: AuthContext, scope: str = SCOPE) -> Caller:
        return Caller(self.portal, replace(auth, scopes=ScopeSet.parse(scope)))

    async def pay(
        self, key: str = "payment-1", amount: str | None = None, *, by: Caller | None = None
    ) -> Answer:
        body = parameters(idempotency__key_String=key)
        if amount is not None:
            body["parameter"].append({"name": "amount", "valueMoney": dollars(amount)})
        return await (by or self.ada).ask("POST", PAY, body)

    @property
    def ada(self) -> Caller:
        return self.caller(oneself("ada"))

    async def due(self, by: Caller | None = None) -> Json:
        return values(await (by or self.ada).ask("GET", DUE))

    async def charge(self, key: str) -> None:
        """The payer pays on the provider's page; the portal is not told."""
        assert (await self.provider.ledger.close(key, "paid")).state == "paid"

    async def tell(self, key: str) -> None:
        """The provider's webhook: what its ledger says of an order."""
        found = await self.provider.ledger.find(key)
        assert found is not None
        await settle(self.portal.server, found.shown(PAGE))

    async def work(self, seconds: float = 3600.0) -> None:
        """Time passes, and the jobs are done."""
        self.clock.advance(seconds)
        functions = settlement_jobs(self.portal.server, self.provider)
        await jobs.work_off(self.store, functions, worker="w", clock=self.clock)

    async def notices(self) -> list[Json]:
        found = await self.ehr.ask("GET", "PaymentNotice")
        return [one["resource"] for one in found.json.get("entry", ())]

    async def faults_of(self, name: str) -> list[Issue]:
        """What our own gate would say of a resource that is stored here."""
        body = (await self.ehr.ask("GET", name)).body
        return validate(json.parse(body), body)

    async def status(self) -> str:
        return str((await self.ehr.ask("GET", "Invoice/bill")).json["status"])

    async def agrees(self) -> bool:
        """Whether the provider's ledger and what the bill says are the same money."""
        charged = sum((await self.provider.ledger.charged()).values())
        written = sum(one["amount"]["value"] for one in await self.notices())
        return bool(charged == round(written * 100))


@pytest.fixture
def provider(clock: Clock) -> Iterator[Provider]:
    store = EmbeddedStore.open(":memory:", clock=clock)
    yield Provider.over(store)
    store.close()


@pytest.fixture
def portal(store: EmbeddedStore, clock: Clock, provider: Provider) -> Portal:
    return a_portal(store, clock, payments=provider)


@pytest.fixture
async def house(
    family: EmbeddedStore, portal: Portal, provider: Provider, clock: Clock, ehr: Caller
) -> House:
    await keep(family, changed(a_practice(), name="Dermatology of the Lane"))
    await ehr.store(an_invoice("bill"), an_invoice("kits", of="kit", total=75))
    return House(portal, provider, family, clock, ehr)


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["issue"][0]["diagnostics"]


# ---------------------------------------------------------------- the way of a payment


async def test_a_bill_is_paid_and_says_so(house: House) -> None:
    begun = values(await house.pay())
    assert begun["status"] == "begun"
    assert begun["amount"] == dollars("120")
    assert begun["pay-at"].startswith(f"{PAGE}/")
    under_way = await house.due()
    assert (under_way["due"]["value"], under_way["under-way"]["value"]) == (0, 120)
    await house.charge(begun["payment"])
    await house.tell(begun["payment"])
    after = await house.due()
    assert after["status"] == "balanced"
    assert (after["paid"]["value"], after["due"]["value"]) == (120, 0)
    again = values(await house.pay())
    assert (again["status"], "pay-at" in again) == ("paid", False)
    assert again["notice"] == after["payment"]["notice"]
    assert await house.agrees()


async def test_what_is_written_is_what_r4_asks_for(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    await house.tell(key)
    (notice,) = await house.notices()
    assert await house.faults_of(f"PaymentNotice/{notice['id']}") == []
    assert notice["request"] == reference("Invoice/bill")
    assert notice["paymentStatus"]["coding"][0]["code"] == "paid"
    name = notice["payment"]["reference"]
    taken_in = (await house.ehr.ask("GET", name)).json
    assert await house.faults_of(name) == []
    assert taken_in["identifier"][0]["value"] == key
    assert taken_in["paymentAmount"] == notice["amount"]
    assert (await house.ada.ask("GET", f"PaymentNotice/{notice['id']}")).status == 200
    assert (await house.ada.ask("GET", name)).status in (403, 404)
    found = (await house.ehr.ask("GET", f"Provenance?target=PaymentNotice/{notice['id']}")).json
    assert found["entry"][0]["resource"]["agent"][0]["who"] == reference("Patient/ada")


async def test_a_bill_is_paid_in_parts(house: House) -> None:
    first = values(await house.pay("part-one", "50"))["payment"]
    second = values(await house.pay("part-two", "30"))["payment"]
    assert (await house.due())["due"]["value"] == 40
    await house.charge(first)
    await house.tell(first)
    assert await house.status() == "issued"
    await house.provider.ledger.close(second, "ended")
    await house.tell(second)
    assert (await house.due())["due"]["value"] == 70
    rest = values(await house.pay("part-three"))
    assert rest["amount"] == dollars("70")
    await house.charge(rest["payment"])
    await house.tell(rest["payment"])
    assert await house.status() == "balanced"
    assert await house.agrees()


async def test_the_same_key_is_the_same_payment(house: House) -> None:
    first, second = values(await house.pay()), values(await house.pay())
    assert first == second
    assert refusal(await house.pay(amount="20")) == (
        409,
        "this key was used for another amount: choose a new one",
    )
    assert len(await house.store.every(Payment)) == 1


async def test_what_an_ehr_writes_counts_as_paid(house: House) -> None:
    await house.ehr.store(
        resource(
            "PaymentNotice", "cash",
            status="active", created="2030-03-01", request=reference("Invoice/bill"),
            payment={"display": "cash"}, recipient={"display": "the desk"},
            amount=dollars("100.5"), paymentDate="2030-03-01",
        ),
        resource(
            "PaymentNotice", "wrong",
            status="entered-in-error", created="2030-03-01", request=reference("Invoice/bill"),
            payment={"display": "cash"}, recipient={"display": "the desk"}, amount=dollars("10"),
        ),
    )  # fmt: skip
    found = await house.due()
    assert (found["paid"]["value"], found["due"]["value"]) == (100.5, 19.5)
    assert found["payment"]["date"] == "2030-03-01"
    assert refusal(await house.pay(amount="20"))[0] == 409


# ---------------------------------------------------------------- what gets lost


async def test_a_provider_that_charges_and_says_nothing_is_asked(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    await house.work()
    assert await house.status() == "balanced"
    assert await house.agrees()


async def test_an_answer_that_is_lost_is_had_by_sending_again(house: House) -> None:
    house.provider.faults = {"after begin"}
    status, words = refusal(await house.pay())
    assert status == 503
    assert "same key" in words
    house.provider.faults = set()
    found = values(await house.pay())
    assert found["status"] == "begun"
    assert len(await house.store.every(Payment)) == 1


async def test_a_provider_that_is_away_for_days_is_asked_until_it_answers(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    house.provider.faults = {"state", "cancel"}
    for _ in range(40):
        await house.work()
    assert (await house.due())["under-way"]["value"] == 120
    house.provider.faults = set()
    await house.work()
    assert await house.status() == "balanced"
    assert await house.agrees()


async def test_an_order_that_nobody_pays_is_cancelled_and_frees_the_bill(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.work(BEGUN_SECONDS + 1)
    assert (await house.due())["due"]["value"] == 120
    assert values(await house.pay())["status"] == "ended"
    late = await house.provider.ledger.close(key, "paid")
    assert late.state == "ended"
    assert await house.agrees()


async def test_an_order_that_never_arrived_can_not_be_opened_after_it_was_given_up(
    house: House,
) -> None:
    house.provider.faults = {"begin"}
    assert (await house.pay()).status == 503
    await house.work(BEGUN_SECONDS + 1)
    house.provider.faults = set()
    assert values(await house.pay())["status"] == "ended"
    assert await house.provider.ledger.charged() == {}


async def test_an_order_that_is_paid_as_it_is_cancelled_is_paid(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    await house.work(BEGUN_SECONDS + 1)
    assert await house.status() == "balanced"
    assert await house.agrees()


async def test_a_webhook_that_comes_twice_or_late_changes_nothing(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    for _ in range(3):
        await house.tell(key)
    await house.work()
    await settle(house.portal.server, Order(key, "ended", 12000, "USD"))
    assert len(await house.notices()) == 1
    assert await house.status() == "balanced"


@pytest.mark.parametrize(("amount", "currency"), [(1, "USD"), (12001, "USD"), (12000, "EUR")])
async def test_another_amount_than_was_agreed_is_not_written(
    house: House, amount: int, currency: str
) -> None:
    key = values(await house.pay())["payment"]
    with pytest.raises(OtherOrder):
        await settle(house.portal.server, Order(key, "paid", amount, currency))
    assert await house.notices() == []


async def test_of_many_payments_at_once_no_more_is_taken_than_is_due(house: House) -> None:
    answers = await asyncio.gather(*(house.pay(f"payment-{n}", "50") for n in range(50)))
    begun = [values(one)["payment"] for one in answers if one.status == 200]
    assert len(begun) == 2
    assert {one.status for one in answers} == {200, 409}
    for key in begun:
        await house.charge(key)
    await asyncio.gather(*(house.tell(key) for key in begun * 5))
    assert (await house.due())["due"]["value"] == 20
    assert await house.agrees()


async def test_a_bill_that_is_changed_while_it_is_paid_keeps_the_payment(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    await house.ehr.store(an_invoice("bill", total=150))
    await house.tell(key)
    found = await house.due()
    assert (found["status"], found["due"]["value"]) == ("issued", 30)
    assert await house.agrees()


async def test_a_bill_that_is_deleted_while_it_is_paid_keeps_the_money_in_sight(
    house: House,
) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    await house.ehr.ask("DELETE", "Invoice/bill")
    await house.tell(key)
    assert len(await house.notices()) == 1
    assert await house.agrees()


async def at_the_desk(house: House, amount: str) -> None:
    await house.ehr.store(
        resource(
            "PaymentNotice", "cash",
            status="active", created="2030-03-01", request=reference("Invoice/bill"),
            payment={"display": "cash"}, recipient={"display": "the desk"}, amount=dollars(amount),
        )
    )  # fmt: skip


async def test_a_bill_that_was_paid_elsewhere_is_not_paid_by_an_old_key(house: House) -> None:
    """The server died before it reached the provider; the patient paid at the desk."""
    house.provider.faults = {"begin"}
    assert (await house.pay()).status == 503
    house.provider.faults = set()
    await at_the_desk(house, "120")
    assert (await house.pay()).status == 409
    assert values(await house.pay())["status"] == "ended"
    assert await house.provider.ledger.charged() == {}


async def test_an_order_that_the_bill_does_not_need_any_more_is_cancelled(house: House) -> None:
    key = values(await house.pay(amount="100"))["payment"]
    await at_the_desk(house, "20")
    assert (await house.pay(amount="100")).status == 200
    await at_the_desk(house, "20.01")
    await house.work(120)
    order = await house.provider.ledger.find(key)
    assert order is not None
    assert order.state == "ended"


async def test_an_order_of_a_bill_that_was_taken_back_is_given_up(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.ehr.store(an_invoice("bill", status="cancelled"))
    assert (await house.pay()).status == 409
    order = await house.provider.ledger.find(key)
    assert order is not None
    assert order.state == "ended"


async def test_money_that_disagrees_is_told_to_the_operator(house: House) -> None:
    key = values(await house.pay())["payment"]
    await settle(house.portal.server, Order(key, "ended", 12000, "USD"))
    with capture_logs() as logs:
        await settle(house.portal.server, Order(key, "paid", 12000, "USD"))
    assert [one["log_level"] for one in logs] == ["error"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("status", ["draft", "balanced", "cancelled", "entered-in-error"])
async def test_a_bill_that_waits_for_nothing_is_not_paid(house: House, status: str) -> None:
    await house.ehr.store(an_invoice("bill", status=status))
    assert refusal(await house.pay()) == (409, "this bill is not open for payment")
    assert (await house.due())["due"]["value"] == 0


@pytest.mark.parametrize("key", ["", "short", "x" * 65, "a b c d e", "päyment-1", "../../etc"])
async def test_a_key_that_is_none_is_refused(house: House, key: str) -> None:
    answer = await house.pay(key)
    assert answer.status in (400, 422)
    assert await house.store.every(Payment) == []


@pytest.mark.parametrize(
    ("money", "status"),
    [
        ({"value": 0, "currency": "USD"}, 422),
        ({"value": -5, "currency": "USD"}, 422),
        ({"value": 0.001, "currency": "USD"}, 422),
        ({"value": 5, "currency": "EUR"}, 422),
        ({"value": 5}, 422),
        ({"currency": "USD"}, 422),
        ({"value": 120.01, "currency": "USD"}, 409),
        ({"value": 1e300, "currency": "USD"}, 422),
    ],
)
async def test_an_amount_that_is_none_is_refused_by_name(
    house: House, money: Json, status: int
) -> None:
    body = parameters(idempotency__key_String="payment-1")
    body["parameter"].append({"name": "amount", "valueMoney": money})
    answer = await house.ada.ask("POST", PAY, body)
    assert answer.status == status
    assert answer.json["issue"][0]["expression"] == ["Parameters.parameter.where(name='amount')"]
    assert await house.store.every(Payment) == []


async def test_without_a_total_nothing_is_reckoned(house: House) -> None:
    tree = an_invoice("bill")
    del tree["totalGross"]
    await house.ehr.store(tree)
    assert (await house.pay()).status == 422
    assert (await house.ada.ask("GET", DUE)).status == 422


async def test_payments_in_another_currency_are_not_added_up(house: House) -> None:
    await house.ehr.store(
        resource(
            "PaymentNotice", "cash",
            status="active", created="2030-03-01", request=reference("Invoice/bill"),
            payment={"display": "cash"}, recipient={"display": "the desk"},
            amount={"value": 100, "currency": "EUR"},
        )
    )  # fmt: skip
    assert (await house.pay()).status == 422


async def test_so_many_may_be_under_way(house: House) -> None:
    for n in range(MOST_UNDER_WAY):
        assert (await house.pay(f"payment-{n}", "1")).status == 200
    assert (await house.pay("one-more", "1")).status == 409


async def test_without_a_provider_it_is_not_offered(house: House) -> None:
    bare = a_portal(house.store, house.clock)
    caller = Caller(bare, house.ada.auth)
    answer = await caller.ask("POST", PAY, parameters(idempotency__key_String="payment-1"))
    assert answer.json["issue"][0]["code"] == "not-supported"


# ---------------------------------------------------------------- who may


def mother(sections: tuple[str, ...] = ("billing",), act: tuple[str, ...] = ("billing",)) -> Any:
    return a_proxy(sections=sections, act=act)


async def ask_for_kit(house: House, auth: AuthContext, scope: str = SCOPE) -> tuple[int, int]:
    """What ``$amount-due`` and ``$pay`` of the child's bill answer."""
    caller = house.caller(auth, scope)
    body = parameters(idempotency__key_String="payment-1")
    due = await caller.ask("GET", "Invoice/kits/$amount-due")
    return due.status, (await caller.ask("POST", "Invoice/kits/$pay", body)).status


async def test_a_proxy_with_the_section_pays_and_sees_nothing_else(house: House) -> None:
    assert await ask_for_kit(house, mother()) == (200, 200)
    (payment,) = await house.store.every(Payment)
    assert payment.payer.startswith("RelatedPerson/")


async def test_a_proxy_who_may_only_look_looks(house: House) -> None:
    assert await ask_for_kit(house, mother(act=("results",))) == (200, 403)


async def test_a_proxy_without_the_section_does_neither(house: House) -> None:
    auth = mother(sections=("results",), act=("results",))
    assert await ask_for_kit(house, auth) == (403, 403)


async def test_a_grant_that_is_over_and_a_token_that_is_over_do_neither(house: House) -> None:
    ended = a_proxy(sections=("billing",), act=("billing",), until=house.clock())
    assert await ask_for_kit(house, ended) == (403, 403)
    assert await ask_for_kit(house, replace(mother(), expires=house.clock())) == (403, 403)


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("patient/Invoice.rs patient/PaymentNotice.rs", (200, 403)),
        ("patient/Invoice.rs", (403, 403)),
        ("patient/PaymentNotice.crs", (403, 403)),
        ("patient/Invoice.rs?status=issued patient/PaymentNotice.crs", (403, 403)),
    ],
)
async def test_a_narrower_scope_does_less(house: House, scope: str, found: tuple[int, int]) -> None:
    assert await ask_for_kit(house, mother(), scope) == found


async def test_the_bill_of_somebody_else_is_not_there(house: House) -> None:
    for auth in (oneself("ada"), oneself("ada-f", FAMILY)):
        assert await ask_for_kit(house, auth) == (404, 404)
    nothing = await house.caller(oneself("ada")).ask("GET", "Invoice/nothing/$amount-due")
    theirs = await house.caller(oneself("ada")).ask("GET", "Invoice/kits/$amount-due")
    assert nothing.body.replace(b"nothing", b"X") == theirs.body.replace(b"kits", b"X")


async def test_a_payment_that_is_withheld_is_not_listed(house: House) -> None:
    """What is due is a fact of the bill; which payments made it so is not shown to everybody."""
    await house.ehr.store(
        resource(
            "PaymentNotice", "cash",
            meta=WITHHELD, status="active", created="2030-03-01",
            request=reference("Invoice/bill"), payment={"display": "cash"},
            recipient={"display": "the desk"}, amount=dollars("100"),
        )
    )  # fmt: skip
    found = await house.due()
    assert found["due"]["value"] == 20
    assert "payment" not in found


async def test_an_ehr_and_staff_pay_nothing_for_anybody(house: House) -> None:
    body = parameters(idempotency__key_String="payment-1")
    assert (await house.ehr.ask("POST", PAY, body)).status == 403
    assert (await house.ehr.ask("GET", DUE)).status == 200


async def test_practices_do_not_share_payments(house: House) -> None:
    assert house.ehr.auth.practice == DERM
    other = house.caller(oneself("ada-f", FAMILY))
    assert (await house.pay(by=other)).status == 404
