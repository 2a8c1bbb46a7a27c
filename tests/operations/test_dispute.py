"""``$dispute`` and ``$answer-dispute``: a word against a bill, and what the practice says to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.accounts.account import AccountPerson
from fhir_portal.notify import jobs
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.dispute_jobs import dispute_jobs
from fhir_portal.smart.scope import ScopeSet
from tests.access.conftest import family
from tests.builders import (
    DERM,
    RESTRICTED,
    WITHHELD,
    Answer,
    Caller,
    Json,
    a_grant,
    a_proxy,
    an_invoice,
    keep,
    oneself,
)
from tests.operations.holding import parameters, values
from tests.operations.test_pay import House, house, mother, portal, provider, refusal
from tests.staff import a_member_of_staff

__all__ = ["family", "house", "portal", "provider"]

SCOPE = "patient/Invoice.rs patient/Task.crus patient/PaymentNotice.rs"
WORDS = "I was not there on that day."


async def say(house: House, words: str = WORDS, *, bill: str = "bill", by: Any = None) -> Answer:
    caller = house.caller(by or oneself("ada"), SCOPE)
    return await caller.ask("POST", f"Invoice/{bill}/$dispute", parameters(reason_String=words))


def desk(house: House, *permissions: Any) -> Caller:
    member = a_member_of_staff()
    assert member.staff is not None
    staff = replace(member.staff, permissions=frozenset(permissions))
    scope = ScopeSet.parse("user/Task.crus user/Invoice.rs user/PaymentNotice.rs")
    return Caller(house.portal, replace(member, staff=staff, scopes=scope))


async def task(house: House, by: AuthContext | None = None) -> Json:
    found = await house.caller(by or oneself("ada"), SCOPE).ask("GET", "Task?code=bill-dispute")
    (one,) = [entry["resource"] for entry in found.json["entry"]]
    return dict(one)


async def letters(house: House) -> list[OutboxMessage]:
    """What is sent of answers, once the jobs are done."""
    functions = dispute_jobs(house.portal.server)
    await jobs.work_off(house.store, functions, worker="w", clock=house.clock)
    return await house.store.every(OutboxMessage)


@pytest.mark.requirement("portal", "S2-13")
async def test_it_is_a_task_that_the_patient_sees_with_its_answer(house: House) -> None:
    assert values(await say(house))["status"] == "requested"
    one = await task(house)
    assert one["focus"] == {"reference": "Invoice/bill"}
    assert one["note"] == [{"text": WORDS}]
    found = await house.ehr.ask("GET", f"Provenance?target=Task/{one['id']}")
    assert found.json["entry"][0]["resource"]["agent"][0]["who"] == {"reference": "Patient/ada"}
    staff, address = desk(house, "billing"), f"Task/{one['id']}/$answer-dispute"
    body = parameters(status_Code="in-review", hold_Boolean=True)
    assert values(await staff.ask("POST", address, body))["status"] == "in-review"
    assert (await task(house))["status"] == "on-hold"
    body = parameters(status_Code="corrected", reason_String="You are right.")
    assert values(await staff.ask("POST", address, body))["status"] == "corrected"
    one = await task(house)
    assert (one["status"], one["statusReason"]) == ("completed", {"text": "You are right."})
    sent = await letters(house)
    assert [one.template for one in sent] == ["bill-answered"]
    assert all(one.values == {} for one in sent)
    assert refusal(await staff.ask("POST", address, parameters(status_Code="in-review")))[0] == 409
    assert values(await say(house, "Still not."))["status"] == "requested"


async def test_said_twice_it_is_one(house: House) -> None:
    answers = await asyncio.gather(*(say(house) for _ in range(10)))
    assert len({str(values(one)["task"]) for one in answers}) == 1
    assert refusal(await say(house, "Something else"))[0] == 409
    await task(house)  # there is one


@pytest.mark.parametrize("status", ["draft", "cancelled", "entered-in-error"])
async def test_a_bill_that_is_not_in_force_takes_no_word(house: House, status: str) -> None:
    await house.ehr.store(an_invoice("bill", status=status))
    assert (await say(house)).status == 409


@pytest.mark.parametrize("words", ["", "   ", "x" * 1001, "a\x00b", "a\nb"])
async def test_what_is_no_plain_text_is_refused_by_name(house: House, words: str) -> None:
    answer = await say(house, words)
    assert answer.status in (400, 422)
    assert answer.json["issue"][0]["expression"]
    assert (await house.ehr.ask("GET", "Task?code=bill-dispute")).json.get("entry") is None


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"status_Code": "paid"}, "status"),
        ({"status_Code": "upheld"}, "reason"),
        ({"status_Code": "corrected", "reason_String": "x", "hold_Boolean": True}, "hold"),
        ({"reason_String": "x"}, "status"),
    ],
)
async def test_an_answer_that_is_none_is_refused_by_name(
    house: House, given: Json, name: str
) -> None:
    await say(house)
    one = await task(house)
    answer = await desk(house, "billing").ask(
        "POST", f"Task/{one['id']}/$answer-dispute", parameters(**given)
    )
    assert answer.status in (400, 422)
    assert f"'{name}'" in str(answer.json) or name in answer.json["issue"][0]["diagnostics"]
    assert (await task(house))["status"] == "requested"


async def test_no_other_task_is_answered_by_it(house: House) -> None:
    await house.ehr.store(
        {
            "resourceType": "Task", "id": "other", "status": "requested", "intent": "order",
            "for": {"reference": "Patient/ada"},
        }
    )  # fmt: skip
    body = parameters(status_Code="in-review")
    answer = await desk(house, "billing").ask("POST", "Task/other/$answer-dispute", body)
    assert answer.status == 422


# ---------------------------------------------------------------- who may


async def test_who_acts_in_billing_says_it_and_who_sees_forms_alone_sees_nothing(
    house: House,
) -> None:
    assert (await say(house, bill="kits", by=mother())).status == 200
    one = await task(house, mother())
    assert one["requester"]["reference"].startswith("RelatedPerson/")
    for sections in (("forms",), ("results", "documents")):
        other = house.caller(a_proxy(sections=sections, act=sections), SCOPE)
        assert (await other.ask("GET", f"Task/{one['id']}")).status in (403, 404)
        found = await other.ask("GET", "Task?_summary=count")
        assert found.status == 403 or found.json["total"] == 0
        assert (await say(house, bill="kits", by=other.auth)).status == 403


@pytest.mark.parametrize("acts", [True, False])
async def test_the_proxy_who_said_it_is_told_of_the_answer_while_they_may_act(
    house: House, *, acts: bool
) -> None:
    await keep(house.store, AccountPerson(key=f"{DERM}/Person/ada", account="ada"))
    await house.ehr.store(
        a_grant("grant", of="kit", to="mother", sections=["billing"], act=["billing"])
    )
    assert (await say(house, bill="kits", by=mother())).status == 200
    one = await task(house, mother())
    if not acts:
        await house.ehr.store(a_grant("grant", of="kit", to="mother", sections=["billing"]))
    body = parameters(status_Code="upheld", reason_String="It is right.")
    answer = await desk(house, "billing").ask("POST", f"Task/{one['id']}/$answer-dispute", body)
    assert answer.status == 200, answer.body
    sent = {one.to for one in await letters(house)}
    patient = f"record:{DERM}/Patient/kit"
    assert sent == ({patient, "account:ada"} if acts else {patient})


@pytest.mark.parametrize("status", ["completed", "rejected"])
async def test_an_answer_that_an_ehr_writes_is_told_of_once(house: House, status: str) -> None:
    await say(house)
    assert await letters(house) == []
    one = await task(house)
    answered = one | {"status": status, "statusReason": {"text": "We looked."}}
    await house.ehr.store(answered)
    (sent,) = await letters(house)
    assert (sent.template, sent.to) == ("bill-answered", f"record:{DERM}/Patient/ada")
    assert sent.values == {}
    await house.ehr.store(answered | {"description": "the same again"})
    await house.ehr.store(answered)
    assert len(await letters(house)) == 1


async def test_what_is_no_answer_is_told_to_nobody(house: House) -> None:
    await say(house)
    one = await task(house)
    for status in ("received", "cancelled"):
        await house.ehr.store(one | {"status": status})
    other = one | {"code": {"coding": [{"system": "urn:other", "code": "bill-dispute"}]}}
    await house.ehr.store(other | {"id": "other"}, other | {"id": "other", "status": "completed"})
    await house.ehr.store(one | {"id": "brought", "status": "completed"})
    assert await letters(house) == []


async def test_what_is_taken_back_before_the_letter_goes_is_told_to_nobody(house: House) -> None:
    await say(house)
    one = await task(house)
    await house.ehr.store(one | {"status": "rejected"}, one)
    assert await letters(house) == []


@pytest.mark.parametrize(
    ("meta", "acts", "told"),
    [
        ({}, True, {f"record:{DERM}/Patient/kit", "account:ada"}),
        ({}, False, {f"record:{DERM}/Patient/kit"}),
        (RESTRICTED, True, {f"record:{DERM}/Patient/kit"}),
        (WITHHELD, True, set()),
    ],
)
async def test_an_ehrs_answer_is_told_to_who_asked_while_they_see_it(
    house: House, meta: Json, told: set[str], *, acts: bool
) -> None:
    await keep(house.store, AccountPerson(key=f"{DERM}/Person/ada", account="ada"))
    grant = a_grant("grant", of="kit", to="mother", sections=["billing"], act=["billing"])
    await house.ehr.store(grant)
    assert (await say(house, bill="kits", by=mother())).status == 200
    one = await task(house, mother())
    if not acts:
        await house.ehr.store(a_grant("grant", of="kit", to="mother", sections=["billing"]))
    if meta:
        bill = (await house.ehr.ask("GET", "Invoice/kits")).json
        await house.ehr.store(bill | {"meta": meta})
    await house.ehr.store(one | {"status": "rejected"})
    assert {one.to for one in await letters(house)} == told


async def test_nobody_else_says_it(house: House) -> None:
    assert (await say(house, bill="kits")).status == 404
    looking = a_proxy(sections=("billing",), act=("results",))
    ended = a_proxy(sections=("billing",), act=("billing",), until=house.clock())
    for auth in (looking, ended, replace(mother(), expires=house.clock())):
        assert (await say(house, bill="kits", by=auth)).status == 403
    narrow = house.caller(oneself("ada"), "patient/Invoice.rs patient/Task.rs")
    body = parameters(reason_String=WORDS)
    assert (await narrow.ask("POST", "Invoice/bill/$dispute", body)).status == 403
    for caller in (house.ehr, desk(house, "billing", "view")):
        assert (await caller.ask("POST", "Invoice/bill/$dispute", body)).status == 403


async def test_nobody_else_answers_it(house: House) -> None:
    await say(house)
    one = await task(house)
    address, body = f"Task/{one['id']}/$answer-dispute", parameters(status_Code="in-review")
    assert (await desk(house, "view", "messages").ask("POST", address, body)).status == 403
    assert (await house.caller(oneself("ada"), SCOPE).ask("POST", address, body)).status == 403
    assert (await house.ehr.ask("POST", address, body)).status == 403
    assert (await task(house))["status"] == "requested"


async def test_it_is_hidden_with_its_bill_also_later(house: House) -> None:
    await say(house, bill="kits", by=mother())
    one = await task(house, mother())
    address = f"Task/{one['id']}"
    proxy = house.caller(mother(), SCOPE)
    bill = (await house.ehr.ask("GET", "Invoice/kits")).json
    await house.ehr.store(bill | {"meta": RESTRICTED})
    assert (await proxy.ask("GET", address)).status == 404
    await house.ehr.store(bill | {"meta": WITHHELD})
    assert (await proxy.ask("GET", address)).status == 404
    assert (await say(house, bill="kits", by=mother())).status == 404
