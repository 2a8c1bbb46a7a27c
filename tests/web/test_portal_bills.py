"""The portal's pages about bills: the balance, a bill item by item, paying, receipts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.billing.payment import Payment
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.operations.dispute import BillDispute
from fhir_portal.operations.settlement import settle
from fhir_portal.resources.task import CODE
from tests.builders import (
    RESTRICTED,
    WITHHELD,
    Json,
    a_grant,
    a_payment,
    an_appointment,
    an_invoice,
    keep,
    reference,
    resource,
)
from tests.operations.booking import DAY, at
from tests.operations.paying import PAGE, Provider
from tests.smart.world import Browser
from tests.web.portal_world import ADA, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import links

BILLS = "/portal/bills"
BILL = f"{BILLS}/one/bill"


class Till:
    """A portal whose practice takes payments, and its provider."""

    def __init__(self, portal: PortalWorld, provider: Provider) -> None:
        self.portal, self.provider = portal, provider

    async def end(self, key: str, state: Any) -> None:
        """The payer pays, or does not; the provider tells."""
        order = await self.provider.ledger.close(key, state)
        await settle(self.portal.world.portal.server, order.shown(PAGE))

    async def payments(self) -> list[Payment]:
        return await self.portal.world.store.every(Payment)


@pytest.fixture
async def till() -> AsyncIterator[Till]:
    portal = await PortalWorld.begin()
    books = EmbeddedStore.open(":memory:", clock=portal.world.clock)
    provider = Provider.over(books)
    inner = portal.world.portal
    paid = replace(inner.collaborators, payments=provider)
    object.__setattr__(inner, "collaborators", paid)  # it is frozen; the world has no provider
    yield Till(portal, provider)
    books.close()
    portal.close()


def bos_bill(own_id: str = "bill", **more: Any) -> Json:
    return an_invoice(own_id, of="bo", date="2030-01-15T10:00:00Z", **more)


def an_item(words: str, amount: float, **more: Any) -> Json:
    return {
        "chargeItemCodeableConcept": {"text": words},
        "priceComponent": [{"type": "base", "amount": {"value": amount, "currency": "USD"}}],
    } | more


async def with_kits(till: Till, sections: list[str], act: tuple[str, ...] = ("billing",)) -> None:
    await till.portal.put(
        a_grant("grant", of="kit", to="mother", sections=sections, act=act),
        an_invoice("bill", of="kit", lineItem=[an_item("Skin biopsy", 120)]),
    )


def where(browser: Browser) -> str:
    return browser.page.url.path


# ---------------------------------------------------------------- the balance


@pytest.mark.requirement("portal", "S0-38")
async def test_nothing_here_nothing_due_and_not_known_are_told_apart(till: Till) -> None:
    browser = await till.portal.at(BILLS)
    assert "There is no bill here" in browser.text
    await till.portal.put(bos_bill(status="balanced"), _cash("bill", 100))
    await browser.open(BILLS)
    assert "0.00 USD : all bills are paid" in browser.text.replace("USD:", "USD :")
    await browser.open(BILL)
    assert "Settled otherwise" in browser.text
    assert "20.00 USD" in browser.text
    tree = bos_bill("odd")
    del tree["totalGross"]
    await till.portal.put(tree)
    await browser.open(BILLS)
    assert "What is due in all is not known" in browser.text
    await browser.open(f"{BILLS}/one/odd")
    assert "cannot be told here" in browser.text


def _cash(bill: str, amount: float) -> Json:
    return a_payment(f"cash-{bill}", of=bill, amount=amount, paymentDate="2030-01-20")


async def test_the_balance_is_explained(till: Till) -> None:
    claim = {
        "status": "active", "use": "claim", "created": "2030-01-05",
        "type": {"text": "professional"}, "patient": reference("Patient/bo"),
        "provider": {"display": "us"}, "priority": {"text": "normal"},
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "plan"}}],
        "total": {"value": 300, "currency": "USD"},
    }  # fmt: skip
    await till.portal.put(bos_bill(), _cash("bill", 20), bos_bill("old", status="cancelled"))
    await till.portal.put(resource("Claim", "claim", **claim))
    browser = await till.portal.at(BILLS)
    for words in (
        "100.00 USD", "120.00 USD", "20.00 USD", "Claim of Saturday 5 January 2030: 300.00 USD",
        "Bill of Tuesday 15 January 2030", "not to be paid",
    ):  # fmt: skip
        assert words in browser.text


# ---------------------------------------------------------------- one bill


@pytest.mark.requirement("portal", "S2-13")
async def test_a_bill_is_itemised_and_leads_to_the_visit(till: Till) -> None:
    charge = {
        "status": "billed", "code": {"text": "Removal of a mole"},
        "subject": reference("Patient/bo"), "context": reference("Encounter/visit"),
    }  # fmt: skip
    visit = {
        "status": "finished", "class": {"code": "AMB"}, "subject": reference("Patient/bo"),
        "appointment": [reference("Appointment/visit")],
        "period": {"start": "2030-01-10T15:00:00Z"},
    }  # fmt: skip
    parts = [
        {"type": "base", "amount": {"value": 200, "currency": "USD"}},
        {"type": "deduction", "amount": {"value": -110, "currency": "USD"}},
    ]
    await till.portal.put(
        an_appointment("visit", of=["bo"], status="fulfilled", start=at(-DAY), end=at(-DAY + 60)),
        resource("Encounter", "visit", **visit),
        resource("ChargeItem", "charge", **charge),
        bos_bill(
            lineItem=[
                an_item("Office visit", 30),
                {"chargeItemReference": reference("ChargeItem/charge"), "priceComponent": parts},
            ]
        ),
    )
    browser = await till.portal.at(BILL)
    for words in (
        "Office visit", "Price: 30.00 USD", "Removal of a mole", "Paid by others: -110.00 USD",
        "Thursday 10 January 2030",
    ):  # fmt: skip
        assert words in browser.text
    assert "/portal/appointments/one/visit" in links(browser)
    await till.portal.put(resource("ChargeItem", "charge", meta=WITHHELD, **charge))
    # A bill is as hidden as what it is for.
    await browser.open(BILL)
    assert "There is nothing at this address" in browser.text
    for words in ("Removal of a mole", "10 January", "30.00 USD"):
        assert words not in browser.text


async def test_who_only_pays_does_not_read_what_was_done(till: Till) -> None:
    await with_kits(till, ["billing"])
    browser = await till.portal.at(BILL, ADA, "kit")
    assert "120.00 USD" in browser.text
    assert "biopsy" not in browser.text
    assert "A service" in browser.text
    await with_kits(till, ["billing", "visits"])
    await browser.open(BILL)
    await browser.open("/portal")
    await browser.open(BILL)
    assert "Skin biopsy" in browser.text


# ---------------------------------------------------------------- paying


@pytest.mark.requirement("portal", "S1-28")
async def test_somebody_pays_a_part_then_the_rest_and_gets_receipts(till: Till) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    await submit(browser, f"{BILL}/pay", amount="45,50")
    assert browser.heading == "Pay 45.50 USD"
    (payment,) = await till.payments()
    assert where(browser) == f"{BILLS}/payment/{payment.key}"
    assert any(one.startswith(PAGE) for one in links(browser))
    await till.end(payment.key, "paid")
    await browser.open(where(browser))
    assert browser.heading == "Paid"
    (receipt,) = [one for one in links(browser) if "/receipt/" in one]
    await browser.open(receipt)
    assert browser.page.headers["content-type"] == "application/pdf"
    assert browser.page.headers["content-disposition"].startswith("attachment")
    await browser.open(BILL)
    assert "74.50 USD" in browser.text
    await submit(browser, f"{BILL}/pay")
    assert browser.heading == "Pay 74.50 USD"


async def test_a_form_that_is_sent_twice_is_one_payment(till: Till) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    fields = fields_of(forms(browser, f"{BILL}/pay")[0])
    await post(browser, f"{BILL}/pay", fields)
    first = where(browser)
    await post(browser, f"{BILL}/pay", fields)
    assert where(browser) == first
    assert len(await till.payments()) == 1


async def test_a_payment_that_is_not_made_says_so_and_can_be_begun_again(till: Till) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    await submit(browser, f"{BILL}/pay")
    (payment,) = await till.payments()
    till.provider.faults = {"state"}
    await browser.open(where(browser))
    assert browser.heading == "We do not know yet"
    till.provider.faults = set()
    await till.end(payment.key, "ended")
    await browser.open(where(browser))
    assert browser.heading == "Not paid"
    await browser.open(BILL)
    assert forms(browser, f"{BILL}/pay")


@pytest.mark.parametrize("amount", ["0", "120.01", "12.345", "-5", "all", "1e3", "1 2"])
async def test_an_amount_that_is_none_is_told_and_nothing_begins(till: Till, amount: str) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    await submit(browser, f"{BILL}/pay", amount=amount)
    assert browser.page.status_code == 400
    assert problem(browser)
    assert await till.payments() == []


async def test_a_provider_that_does_not_answer_is_told(till: Till) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    till.provider.faults = {"begin"}
    await submit(browser, f"{BILL}/pay")
    assert browser.page.status_code == 503


# ---------------------------------------------------------------- who may


async def test_without_the_section_there_are_no_bills(till: Till) -> None:
    await with_kits(till, ["appointments", "forms"], ())
    browser = await till.portal.at("/portal", ADA, "kit")
    assert BILLS not in links(browser)
    for path in (BILLS, BILL, f"{BILLS}/receipt/cash-bill"):
        await browser.open(path)
        assert browser.page.status_code in {403, 404}
        assert "120" not in browser.text


async def test_who_may_only_look_has_no_button(till: Till) -> None:
    await with_kits(till, ["billing"], ())
    browser = await till.portal.at(BILL, ADA, "kit")
    assert "120.00 USD" in browser.text
    assert not forms(browser, f"{BILL}/pay")


async def test_the_bill_and_the_payment_of_somebody_else_are_not_there(till: Till) -> None:
    await till.portal.put(bos_bill(), bos_bill("secret", meta=WITHHELD), _cash("bill", 20))
    browser = await till.portal.at(BILL)
    await submit(browser, f"{BILL}/pay")
    (payment,) = await till.payments()
    ada = await till.portal.at(BILLS, ADA, "ada")
    for path in (
        BILL, f"{BILLS}/payment/{payment.key}", f"{BILLS}/payment/x", f"{BILLS}/receipt/cash-bill",
    ):  # fmt: skip
        await ada.open(path)
        assert ada.page.status_code == 404
    await browser.open(f"{BILLS}/one/secret")
    assert browser.page.status_code == 404


async def test_a_labelled_bill_is_for_the_patient_alone(till: Till) -> None:
    await with_kits(till, ["billing", "visits"])
    await till.portal.put(an_invoice("bill", of="kit", meta=RESTRICTED))
    browser = await till.portal.at(BILL, ADA, "kit")
    assert browser.page.status_code == 404
    await browser.open(BILLS)
    assert "There is no bill here" in browser.text


# ---------------------------------------------------------------- a word against it, and parts


@pytest.mark.requirement("portal", "S2-13")
async def test_somebody_says_that_a_bill_is_not_right_and_reads_the_answer(till: Till) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    await submit(browser, f"{BILL}/dispute", reason="  ")
    assert problem(browser) == "Say what is not right with the bill."
    await submit(browser, f"{BILL}/dispute", reason="I was not\nthere <b>that</b> day.")
    assert where(browser) == BILL
    assert "I was not there <b>that</b> day." in browser.text
    assert "Sent to the practice" in browser.text
    assert not forms(browser, f"{BILL}/dispute")
    found = await till.portal.world.portal.server.store.every(BillDispute)
    (task,) = [one.task for one in found]
    answer = {
        "resourceType": "Task", "id": task, "status": "rejected", "intent": "order",
        "code": {"coding": [{"system": CODE, "code": "bill-dispute"}]},
        "focus": reference("Invoice/bill"), "for": reference("Patient/bo"),
        "note": [{"text": "I was not there <b>that</b> day."}],
        "authoredOn": "2030-01-16T10:00:00Z", "statusReason": {"text": "You signed for it."},
    }  # fmt: skip
    await till.portal.put(answer)  # an EHR answers by writing the Task
    await browser.open(BILL)
    assert "The practice says that the bill is right" in browser.text
    assert "Answer: You signed for it." in browser.text
    assert forms(browser, f"{BILL}/dispute")


@pytest.mark.requirement("portal", "S1-28")
async def test_somebody_agrees_on_parts_pays_one_and_ends_the_plan(till: Till) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    assert not forms(browser, f"{BILL}/plan")  # the practice agrees on none
    policy = PracticePolicy(key=SKIN, booking="book", plan_months=6, plan_least=30)
    await keep(till.portal.world.store, policy)
    await browser.open(BILL)
    assert "4 parts of about 30.00 USD" in browser.text
    assert "5 parts" not in browser.text
    await submit(browser, f"{BILL}/plan", parts="9")
    assert problem(browser).startswith("It was not done: a plan has 2 to 6 parts")
    await submit(browser, f"{BILL}/plan", parts="3")
    assert where(browser) == BILL
    assert browser.text.count("40.00 USD by ") == 3
    (amount,) = browser.document.xpath('//input[@name="amount"]/@value')
    assert amount == "40.00"  # the next part
    await submit(browser, f"{BILL}/pay", amount=amount)
    (payment,) = await till.payments()
    assert payment.amount == 4000
    await till.end(payment.key, "paid")
    await browser.open(BILL)
    assert browser.text.count(": paid") == 1
    await submit(browser, f"{BILL}/plan/end")
    assert "The plan to pay in parts was ended." in browser.text


async def test_who_may_only_look_agrees_on_nothing_and_says_nothing(till: Till) -> None:
    await with_kits(till, ["billing"], ())
    policy = PracticePolicy(key=SKIN, booking="book", plan_months=6)
    await keep(till.portal.world.store, policy)
    browser = await till.portal.at(BILL, ADA, "kit")
    for name in ("dispute", "plan", "plan/end"):
        assert not forms(browser, f"{BILL}/{name}")
        await post(browser, f"{BILL}/{name}", {"reason": "x", "parts": "2"})
        assert browser.page.status_code == 403


@pytest.mark.requirement("portal", "S2-06")
async def test_what_the_practice_has_switched_off_is_not_there(till: Till) -> None:
    await till.portal.put(bos_bill())
    browser = await till.portal.at(BILL)
    fields = fields_of(forms(browser, f"{BILL}/pay")[0])
    policy = PracticePolicy(key=SKIN, booking="book", plan_months=6, features=("forms",))
    await keep(till.portal.world.store, policy)
    await browser.open(BILL)
    assert "This bill is not paid through the portal" in browser.text
    for name in ("pay", "plan"):
        assert not forms(browser, f"{BILL}/{name}")
    await post(browser, f"{BILL}/pay", fields)
    assert browser.page.status_code == 404
    assert await till.payments() == []
    await browser.open("/portal")
    assert "/portal/messages" not in links(browser)
    assert {"/portal/forms", BILLS} <= set(links(browser))
