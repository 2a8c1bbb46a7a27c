"""Bills at the staff pages: what disagrees, what was said against bills, plans, payments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.billing.provider import Order
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify import jobs
from fhir_portal.operations.settlement import settle
from fhir_portal.operations.staff_task import staff_task_jobs
from fhir_portal.smart.scope import ScopeSet
from tests.builders import Caller, a_payment, an_invoice, keep, oneself
from tests.operations.holding import parameters, values
from tests.operations.paying import Provider
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import ADMIN, READER, SKIN, StaffWorld, links

BILLS = "/staff/bills"
WORDS = "I was <b>not</b> there."


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    """Bo has a bill of 120 dollars, and the practice takes payments."""
    found = await StaffWorld.begin()
    inner, clock = found.world.portal, found.world.clock
    books = EmbeddedStore.open(":memory:", clock=clock)
    payments = Provider.over(books)
    object.__setattr__(inner, "collaborators", replace(inner.collaborators, payments=payments))
    await keep(found.world.store, PracticePolicy(key=SKIN, plan_months=6))
    await put(found.world, SKIN, an_invoice("bill", of="bo"))
    yield found
    books.close()
    found.close()


async def bo(staff: StaffWorld, operation: str, **given: Any) -> Any:
    scope = ScopeSet.parse("patient/Invoice.rs patient/PaymentNotice.crs patient/Task.crus")
    caller = Caller(staff.world.portal, replace(oneself("bo", SKIN), scopes=scope))
    return values(await caller.ask("POST", f"Invoice/bill/${operation}", parameters(**given)))


def first(browser: Browser, end: str) -> str:
    """The address of the first form whose address ends so."""
    found = browser.document.xpath(f'//form[contains(@action, "/{end}")]/@action')
    return str(found[0]) if found else ""


async def test_what_the_provider_and_the_bills_disagree_on_is_seen_to(staff: StaffWorld) -> None:
    key = (await bo(staff, "pay", idempotency__key_String="payment-1"))["payment"]
    server = staff.world.portal.server
    await settle(server, Order(key, "ended", 12000, "USD"))
    await settle(server, Order(key, "paid", 12000, "USD"))
    await jobs.work_off(server.store, staff_task_jobs(server), worker="w", clock=staff.world.clock)
    browser = await staff.at(BILLS, ADMIN)
    assert "took money for a payment that had ended" in browser.text
    assert "Quillon" in browser.text
    await submit(browser, first(browser, "seen"))
    assert "Done." in browser.text
    assert not first(browser, "seen")


@pytest.mark.requirement("portal", "S2-13")
async def test_a_word_against_a_bill_is_answered(staff: StaffWorld) -> None:
    await bo(staff, "dispute", reason_String=WORDS)
    browser = await staff.at(BILLS, ADMIN)
    assert WORDS in browser.text
    address = first(browser, "answer")
    await submit(browser, address, status="upheld", reason="")
    assert "say why" in problem(browser)
    await submit(browser, address, status="paid", reason="You signed.")
    assert problem(browser) == "Choose an answer."
    await submit(browser, address, status="in-review", reason="", hold="1")
    assert "the money is not asked for meanwhile" in browser.text
    await submit(browser, address, status="upheld", reason="You signed.")
    assert "Answered." in browser.text
    assert not first(browser, "answer")


async def test_plans_and_payments_are_listed(staff: StaffWorld) -> None:
    await bo(staff, "payment-plan", parts_PositiveInt=3)
    await bo(staff, "pay", idempotency__key_String="payment-1")
    await put(staff.world, SKIN, a_payment("cash", amount=7.5))
    browser = await staff.at(BILLS, ADMIN)
    for words in ("40.00 USD by", "120.00 USD", "7.50 USD", "bill bill"):
        assert words in browser.text
    await submit(browser, first(browser, "end"))
    assert "The plan was ended." in browser.text
    assert not first(browser, "end")


async def test_it_is_for_who_works_on_bills(staff: StaffWorld) -> None:
    await bo(staff, "dispute", reason_String=WORDS)
    admin = await staff.at(BILLS, ADMIN)
    assert BILLS in links(admin)
    address = first(admin, "answer")
    fields = fields_of(forms(admin, address)[0])
    reader = await staff.at(BILLS, READER)
    assert reader.page.status_code == 403
    assert WORDS not in reader.text
    await reader.open("/staff")
    assert BILLS not in links(reader)
    await post(reader, address, {**fields, "status": "in-review"})
    assert reader.page.status_code == 403
    await admin.open(BILLS)
    assert "in review" not in admin.text


@pytest.mark.parametrize("task", ["nothing", "..", "a b", "x" * 65])
async def test_a_task_that_is_not_there_is_not_answered(staff: StaffWorld, task: str) -> None:
    await bo(staff, "dispute", reason_String=WORDS)
    browser = await staff.at(BILLS, ADMIN)
    fields = fields_of(forms(browser, first(browser, "answer"))[0])
    await post(browser, f"{BILLS}/{task}/answer", {**fields, "status": "in-review"})
    assert browser.page.status_code in {403, 404}
