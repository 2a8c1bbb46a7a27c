"""``$payment-plan``: parts within the practice's rules, reminders that say nothing, no charge."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.billing.payment import Payment
from fhir_portal.notify import jobs
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.payment_plan import parts_of, plan_jobs
from fhir_portal.resources.communication import AN_HOUR
from tests.access.conftest import family
from tests.builders import DERM, Answer, Json, a_payment, a_proxy, an_invoice, keep, oneself
from tests.operations.holding import parameters, values
from tests.operations.test_dispute import SCOPE, desk, say, task
from tests.operations.test_pay import House, house, mother, portal, provider, refusal

__all__ = ["family", "house", "portal", "provider"]

DAY = 86_400


@pytest.fixture(autouse=True)
async def _policy(house: House) -> None:
    await keep(house.store, PracticePolicy(key=DERM, plan_months=6, plan_least=20))


async def agree(
    house: House, parts: Any = 4, *, bill: str = "bill", by: Any = None, **more: Any
) -> Answer:
    caller = house.caller(by or oneself("ada"), SCOPE)
    body = parameters(parts_PositiveInt=parts, **more)
    return await caller.ask("POST", f"Invoice/{bill}/$payment-plan", body)


def today(house: House) -> date:
    return datetime.fromtimestamp(house.clock(), UTC).date()


async def the_task(house: House) -> Json:
    found = await house.ehr.ask("GET", "Task?code=payment-plan")
    (one,) = [entry["resource"] for entry in found.json["entry"]]
    return dict(one)


async def reminded(house: House, days: float) -> int:
    """Time passes; how many messages there are."""
    house.clock.advance(days * DAY)
    functions = plan_jobs(house.portal.server)
    await jobs.work_off(house.store, functions, worker="w", clock=house.clock)
    return len(await house.store.every(OutboxMessage))


@pytest.mark.requirement("portal", "S1-28")
async def test_what_is_due_is_parted_by_months(house: House) -> None:
    await house.ehr.store(a_payment("cash", amount=19.5))
    found = values(await agree(house, first_Date=today(house).isoformat()))
    assert [one["amount"]["value"] for one in found["part"]] == [25.12, 25.12, 25.12, 25.14]
    assert found["part"][0]["due"] == today(house).isoformat()
    days = [date.fromisoformat(one["due"]) for one in found["part"]]
    assert [one.day for one in days] == [today(house).day] * 4
    one = await the_task(house)
    assert (one["status"], one["focus"]["reference"]) == ("in-progress", "Invoice/bill")
    assert [part.due for part in parts_of(one)] == days
    assert one["restriction"]["period"]["end"] == days[-1].isoformat()
    assert await house.store.every(Payment) == []  # nothing is charged by it


async def test_the_same_again_is_the_same_and_another_is_refused(house: House) -> None:
    answers = await asyncio.gather(*(agree(house) for _ in range(8)))
    assert len({one.body for one in answers}) == 1
    assert refusal(await agree(house, 3)) == (409, "this bill has a plan: end that one first")
    await the_task(house)


@pytest.mark.parametrize("parts", [1, 7, 0, -3, 1_000_000])
async def test_no_more_parts_than_the_practice_allows(house: House, parts: int) -> None:
    answer = await agree(house, parts)
    assert answer.status in (400, 422)
    assert "parts" in str(answer.json) or "value" in str(answer.json)


async def test_parts_that_are_too_small_days_that_are_too_late(house: House) -> None:
    await house.ehr.store(an_invoice("bill", total=59.99))
    status, words = refusal(await agree(house, 3))
    assert (status, words) == (422, "a part is 20.00 USD at least")
    assert (await agree(house, 2)).status == 200
    for first in (today(house) - timedelta(1), today(house) + timedelta(40)):
        answer = await agree(house, bill="kits", by=mother(), first_Date=first.isoformat())
        assert answer.status == 422
        assert "first" in answer.json["issue"][0]["expression"][0]


async def test_a_practice_that_decided_nothing_agrees_on_none(house: House) -> None:
    await keep(house.store, PracticePolicy(key=DERM))
    assert (await agree(house)).json["issue"][0]["code"] == "not-supported"
    await keep(house.store, PracticePolicy(key=DERM, plan_months=6))
    await house.ehr.store(a_payment("cash", amount=120))
    assert refusal(await agree(house)) == (409, "nothing is due on this bill")


# ---------------------------------------------------------------- reminders, and its end


async def test_people_are_reminded_once_and_of_nothing_that_was_paid(house: House) -> None:
    await agree(house)  # 30 each, the first in a month
    assert await reminded(house, 20) == 0
    assert await reminded(house, 9) == 1
    (sent,) = await house.store.every(OutboxMessage)
    assert (sent.template, sent.values) == ("bill-due", {})
    assert sent.to == f"record:{DERM}/Patient/ada" or sent.to.endswith(f"{DERM}/Patient/ada")
    await house.ehr.store(a_payment("one", amount=60))
    assert await reminded(house, 31) == 1  # the second part is paid
    assert await reminded(house, 31) == 2


async def test_what_is_held_back_is_not_reminded_of(house: House) -> None:
    await agree(house)
    await say(house)
    one = await task(house)
    body = parameters(status_Code="in-review", hold_Boolean=True)
    await desk(house, "billing").ask("POST", f"Task/{one['id']}/$answer-dispute", body)
    before = await reminded(house, 0)
    assert await reminded(house, 31) == before


async def test_it_is_completed_with_the_last_payment(house: House) -> None:
    await agree(house)
    for n in range(4):
        key = values(await house.pay(f"payment-{n}", "30"))["payment"]
        assert (await the_task(house))["status"] == "in-progress"
        await house.charge(key)
        await house.tell(key)
    assert (await the_task(house))["status"] == "completed"
    assert await house.status() == "balanced"
    assert await reminded(house, 200) == 0


async def test_one_that_was_paid_at_the_desk_is_completed_at_its_next_day(house: House) -> None:
    await agree(house)
    await house.ehr.store(an_invoice("bill", status="balanced"), a_payment("cash", amount=120))
    assert await reminded(house, 31) == 0
    assert (await the_task(house))["status"] == "completed"


async def test_it_can_be_ended_and_made_anew(house: House) -> None:
    name = values(await agree(house))["task"]["reference"]
    ada = house.caller(oneself("ada"), SCOPE)
    for _ in range(2):
        assert values(await ada.ask("POST", f"{name}/$cancel-plan"))["status"] == "cancelled"
    assert await reminded(house, 100) == 0
    again = values(await agree(house, 2))
    assert again["task"]["reference"] != name
    staff = desk(house, "billing")
    ended = await staff.ask("POST", f"{again['task']['reference']}/$cancel-plan")
    assert values(ended)["status"] == "cancelled"


# ---------------------------------------------------------------- who may


async def test_none_is_made_and_ended_without_end(house: House) -> None:
    """Each is a Task, and reminders."""
    for _ in range(AN_HOUR):
        made = values(await agree(house))["task"]["reference"]
        ended = await house.caller(oneself("ada"), SCOPE).ask("POST", f"{made}/$cancel-plan")
        assert ended.status == 200
    assert (await agree(house)).status == 429
    house.clock.advance(3600)
    assert (await agree(house)).status == 200


async def test_nobody_else_agrees_or_ends(house: House) -> None:
    assert (await agree(house, bill="kits")).status == 404
    name = values(await agree(house, 2, bill="kits", by=mother()))["task"]["reference"]
    looking = a_proxy(sections=("billing",), act=("results",))
    forms = a_proxy(sections=("forms",), act=("forms",))
    ended = a_proxy(sections=("billing",), act=("billing",), until=house.clock())
    for auth in (looking, forms, ended, replace(mother(), expires=house.clock())):
        assert (await agree(house, 2, bill="kits", by=auth)).status == 403
        caller = house.caller(auth, SCOPE)
        assert (await caller.ask("POST", f"{name}/$cancel-plan")).status == 403
    ada = house.caller(oneself("ada"), SCOPE)
    assert (await ada.ask("POST", f"{name}/$cancel-plan")).status == 404
    narrow = house.caller(mother(), "patient/Invoice.r patient/PaymentNotice.r patient/Task.r")
    assert (await narrow.ask("POST", f"{name}/$cancel-plan")).status == 403
    assert (await desk(house, "view", "forms").ask("POST", f"{name}/$cancel-plan")).status == 403
    assert (await house.ehr.ask("POST", f"{name}/$cancel-plan")).status == 403
    assert (await the_task(house))["status"] == "in-progress"


async def test_staff_see_what_is_under_way(house: House) -> None:
    key = values(await house.pay(amount="40"))["payment"]
    found = values(await desk(house, "billing").ask("GET", "Invoice/$payments"))["payment"]
    assert (found["payment"], found["invoice"]["reference"]) == (key, "Invoice/bill")
    assert found["amount"]["value"] == 40
    for caller in (house.ada, desk(house, "view", "messages")):
        assert (await caller.ask("GET", "Invoice/$payments")).status == 403
    await house.charge(key)
    await house.tell(key)
    assert values(await house.ehr.ask("GET", "Invoice/$payments")) == {}
