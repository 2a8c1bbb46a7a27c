"""Money that a provider and the bills do not agree on: staff are told, once, and nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.billing.payment import TOLD_SECONDS, Payment
from fhir_portal.billing.provider import Order
from fhir_portal.notify import jobs
from fhir_portal.operations.settlement import OtherOrder, settle, settlement_jobs
from fhir_portal.operations.staff_task import staff_task_jobs
from fhir_portal.smart.scope import ScopeSet
from tests.access.conftest import family
from tests.builders import Caller, Json, oneself
from tests.operations.holding import parameters, values
from tests.operations.paying import Provider
from tests.operations.test_pay import House, house, portal, provider
from tests.staff import a_member_of_staff

__all__ = ["family", "house", "portal", "provider"]


async def work(house: House, seconds: float, by: Provider | None) -> None:
    """Time passes, and the jobs are done, with this provider set up or with none."""
    house.clock.advance(seconds)
    server = house.portal.server
    functions = {**settlement_jobs(server, by), **staff_task_jobs(server)}
    for _ in range(2):  # one makes the other's
        await jobs.work_off(house.store, functions, worker="w", clock=house.clock)


async def tasks(house: House, status: str = "requested") -> list[Json]:
    found = await house.ehr.ask("GET", f"Task?code=payment-mismatch&status={status}")
    return [one["resource"] for one in found.json.get("entry", ())]


async def told(house: House) -> str:
    """Why, of the one Task there is."""
    await work(house, 0, house.provider)
    (task,) = await tasks(house)
    assert task["focus"] == {"reference": "Invoice/bill"}
    assert task["for"] == {"reference": "Patient/ada"}
    return str(task["reasonCode"]["coding"][0]["code"])


async def test_another_amount_is_one_task_however_often_it_is_said(house: House) -> None:
    key = values(await house.pay())["payment"]
    other = Order(key, "paid", 1, "USD")

    async def say() -> None:
        with pytest.raises(OtherOrder):
            await settle(house.portal.server, other)

    await asyncio.gather(*(say() for _ in range(5)))
    assert await told(house) == "other-amount"
    (task,) = await tasks(house)
    assert "payment of 120.00 USD" not in task["description"]
    assert f"payment {key[:12]} of 120.00 USD; the provider says 0.01 USD" in task["description"]
    await house.ehr.ask("POST", f"Task/{task['id']}/$task-done")
    await say()
    await work(house, 0, house.provider)
    assert await tasks(house) == []  # somebody has seen to it
    assert (await house.due())["under-way"]["value"] == 120


async def test_it_is_over_when_the_provider_says_what_was_agreed(house: House) -> None:
    key = values(await house.pay())["payment"]
    with pytest.raises(OtherOrder):
        await settle(house.portal.server, Order(key, "paid", 1, "USD"))
    assert await told(house) == "other-amount"
    await house.charge(key)
    await house.tell(key)
    await work(house, 0, house.provider)
    assert (await tasks(house), len(await tasks(house, "completed"))) == ([], 1)
    assert await house.agrees()


async def test_money_for_a_payment_that_had_ended(house: House) -> None:
    key = values(await house.pay())["payment"]
    await settle(house.portal.server, Order(key, "ended", 12000, "USD"))
    for _ in range(3):
        await settle(house.portal.server, Order(key, "paid", 12000, "USD"))
    assert await told(house) == "paid-after-end"
    assert await house.notices() == []


async def test_a_provider_that_says_nothing_for_a_day(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    house.provider.faults = {"state", "cancel"}
    await work(house, TOLD_SECONDS - 10, house.provider)
    assert await tasks(house) == []
    for _ in range(3):
        await work(house, 3600, house.provider)
    assert await told(house) == "no-answer"
    house.provider.faults = set()
    await work(house, 3600, house.provider)
    assert (await tasks(house), await house.status()) == ([], "balanced")
    assert await house.agrees()


async def test_what_was_begun_at_a_provider_that_is_gone_is_given_up(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)  # nobody here can know
    await work(house, 3600, None)
    assert (await house.due())["under-way"]["value"] == 120
    await work(house, TOLD_SECONDS, None)
    assert await told(house) == "provider-gone"
    found = await house.due()
    assert (found["under-way"]["value"], found["due"]["value"]) == (0, 120)
    payment = await house.store.get(Payment, key)
    assert payment is not None
    assert (payment.state, payment.given_up) == ("ended", True)


async def test_what_a_provider_that_came_back_took_counts_once(house: House) -> None:
    key = values(await house.pay())["payment"]
    await house.charge(key)
    await work(house, TOLD_SECONDS + 60, None)
    for _ in range(3):
        await house.tell(key)
    await work(house, 0, house.provider)
    assert (await house.status(), len(await house.notices())) == ("balanced", 1)
    assert await house.agrees()
    (task,) = await tasks(house)
    assert task["reasonCode"]["coding"][0]["code"] == "paid-after-end"


async def test_out_of_order_and_late_events_change_nothing_that_is_over(house: House) -> None:
    key = values(await house.pay(amount="50"))["payment"]
    await house.charge(key)
    paid, opened, ended = (Order(key, one, 5000, "USD") for one in ("paid", "open", "ended"))
    for order in (opened, paid, opened, ended, paid, opened):
        await settle(house.portal.server, order)
    assert (len(await house.notices()), (await house.due())["paid"]["value"]) == (1, 50)
    await work(house, 90 * 86_400, house.provider)
    await settle(house.portal.server, paid)
    assert len(await house.notices()) == 1
    assert await tasks(house) == []


# ---------------------------------------------------------------- who may


def staff(house: House, *permissions: Any) -> Caller:
    member = a_member_of_staff()
    assert member.staff is not None
    at_desk = replace(member.staff, permissions=frozenset(permissions))
    scope = ScopeSet.parse("user/Task.rus user/Invoice.rs")
    return Caller(house.portal, replace(member, staff=at_desk, scopes=scope))


async def test_it_is_for_staff_who_work_on_bills_alone(house: House) -> None:
    key = values(await house.pay())["payment"]
    await settle(house.portal.server, Order(key, "ended", 12000, "USD"))
    await settle(house.portal.server, Order(key, "paid", 12000, "USD"))
    await told(house)
    (task,) = await tasks(house)
    address = f"Task/{task['id']}"
    ada = house.caller(oneself("ada"), "patient/Task.rs")
    assert (await ada.ask("GET", address)).status == 404
    others = staff(house, "view", "invite", "recover")
    assert (await others.ask("GET", address)).status == 404
    assert (await others.ask("POST", f"{address}/$task-done")).status == 404
    desk = staff(house, "view", "billing")
    assert (await desk.ask("GET", address)).status == 200
    done = await desk.ask("POST", f"{address}/$task-done", parameters(reason_String="given back"))
    assert values(done)["status"] == "completed"
