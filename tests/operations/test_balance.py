"""``$balance``: what is due and what makes it, and the three ways of not owing anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.operations.balance import BALANCE, CALCULATED
from tests.access.conftest import family
from tests.builders import (
    RESTRICTED,
    WITHHELD,
    a_billing_account,
    a_proxy,
    an_invoice,
    oneself,
    reference,
    resource,
)
from tests.operations.holding import parameters, values
from tests.operations.test_pay import House, at_the_desk, dollars, house, portal, provider

__all__ = ["family", "house", "portal", "provider"]

SCOPE = (
    "patient/Account.rs patient/Invoice.rs patient/PaymentNotice.crs patient/Claim.rs "
    "patient/ClaimResponse.rs"
)
URL = "Account/$balance"


async def balance(house: House, path: str = URL, **more: Any) -> Any:
    return values(await house.caller(more.get("auth", oneself("ada")), SCOPE).ask("GET", path))


def listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


@pytest.mark.requirement("portal", "S0-38")
async def test_it_is_the_sum_of_the_bills_and_says_what_makes_it(house: House) -> None:
    await house.ehr.store(an_invoice("second", total=30.5, date="2030-02-01"))
    await at_the_desk(house, "20")
    key = values(await house.pay(amount="40"))["payment"]
    found = await balance(house)
    assert found["state"] == "known"
    assert {name: money["value"] for name, money in found["sum"].items()} == {
        "total": 150.5, "paid": 20, "under-way": 40, "due": 90.5,
    }  # fmt: skip
    bills = {one["invoice"]["reference"]: one for one in listed(found["bill"])}
    assert set(bills) == {"Invoice/bill", "Invoice/second"}
    assert bills["Invoice/bill"]["due"]["value"] == 60
    await house.charge(key)
    await house.tell(key)
    after = (await balance(house))["sum"]
    assert (after["paid"]["value"], after["under-way"]["value"]) == (60, 0)


async def test_nothing_due_no_bill_and_not_known_are_three_answers(house: House) -> None:
    await house.ehr.store(an_invoice("bill", status="balanced"))  # waived, or paid elsewhere
    found = await balance(house)
    assert (found["state"], found["sum"]["due"]["value"]) == ("known", 0)
    assert found["sum"]["paid"] == found["sum"]["total"]
    await at_the_desk(house, "120")
    assert (await balance(house))["sum"] == found["sum"]
    await house.ehr.store(an_invoice("bill", status="cancelled"))
    found = await balance(house)
    assert (found["state"], "sum" in found) == ("none", False)
    tree = an_invoice("odd")
    del tree["totalGross"]
    await house.ehr.store(tree)
    found = await balance(house)
    assert (found["state"], "sum" in found) == ("unknown", False)
    assert "no total" in found["bill"]["problem"]


async def test_currencies_are_not_added_up(house: House) -> None:
    money = {"value": 10, "currency": "EUR"}
    await house.ehr.store(an_invoice("euros") | {"totalGross": money})
    found = (await balance(house))["sum"]
    assert [one["due"] for one in found] == [money | {"value": 10.0}, dollars("120")]


async def test_an_account_has_the_balance_of_its_bills_in_the_place_of_a_clients(
    house: House,
) -> None:
    said = [
        {"url": BALANCE, "extension": [{"url": "amount", "valueMoney": dollars("1")}]},
        {"url": "https://practice.example/own", "valueString": "kept"},
    ]
    await house.ehr.store(
        a_billing_account("account", extension=said),
        an_invoice("of-it", total=30, account=reference("Account/account")),
    )
    account = (await balance(house, "Account/account/$balance"))["account"]
    mine = [one for one in account["extension"] if one["url"] == BALANCE]
    parts = {one["url"]: one for one in mine[0]["extension"]}
    assert len(mine) == 1
    assert parts["amount"]["valueMoney"] == dollars("30")
    assert parts["aggregate"]["valueCodeableConcept"]["coding"][0]["code"] == "patient"
    assert [one["url"] for one in account["extension"]] == [
        "https://practice.example/own", BALANCE, CALCULATED,
    ]  # fmt: skip
    stored = (await house.ehr.ask("GET", "Account/account")).json
    assert stored["extension"] == said  # what the sender wrote is what is kept
    await house.ehr.store(an_invoice("of-it", status="cancelled"))
    account = (await balance(house, "Account/account/$balance"))["account"]
    assert [one["url"] for one in account["extension"]] == ["https://practice.example/own"]


def a_claim(own_id: str, **more: Any) -> Any:
    given = {
        "status": "active", "use": "claim", "created": "2030-01-05",
        "type": {"text": "professional"}, "patient": reference("Patient/ada"),
        "provider": {"display": "the practice"}, "priority": {"text": "normal"},
        "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "plan"}}],
        "total": dollars("300"),
    }  # fmt: skip
    return resource("Claim", own_id, **given | more)


async def test_a_claim_waits_until_its_insurer_has_answered(house: House) -> None:
    await house.ehr.store(a_claim("one"), a_claim("two"))
    answer = {
        "status": "active", "type": {"text": "professional"}, "use": "claim",
        "patient": reference("Patient/ada"), "created": "2030-02-05",
        "insurer": {"display": "the insurer"}, "request": reference("Claim/one"),
    }  # fmt: skip
    await house.ehr.store(resource("ClaimResponse", "a", outcome="queued", **answer))
    found = await balance(house)
    assert [one["claim"]["reference"] for one in found["insurer"]] == ["Claim/one", "Claim/two"]
    await house.ehr.store(resource("ClaimResponse", "a", outcome="complete", **answer))
    found = await balance(house)
    assert found["insurer"]["claim"] == reference("Claim/two")
    assert found["insurer"]["amount"] == dollars("300")
    narrow = house.caller(
        oneself("ada"), "patient/Account.r patient/Invoice.rs patient/PaymentNotice.r"
    )
    assert "insurer" not in values(await narrow.ask("GET", URL))


async def test_a_claim_of_long_ago_that_was_answered_waits_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many answers there are."""
    monkeypatch.setattr("fhir_portal.operations.balance._MOST", 3)
    await house.ehr.store(a_claim("a"), a_claim("b"), a_claim("c"))
    for number, claim in enumerate(("a", "a", "a", "a", "b")):
        await house.ehr.store(
            resource(
                "ClaimResponse", f"answer-{number}",
                status="active", type={"text": "professional"}, use="claim", outcome="complete",
                patient=reference("Patient/ada"), created="2030-02-05",
                insurer={"display": "the insurer"}, request=reference(f"Claim/{claim}"),
            )
        )  # fmt: skip
    assert (await balance(house))["insurer"]["claim"] == reference("Claim/c")


async def test_many_claims_are_no_reason_to_refuse(house: House) -> None:
    """More than one search may name; the latest are looked at."""
    for number in range(205):
        day = f"{2010 + number // 12}-{1 + number % 12:02}-01"
        await house.ehr.store(a_claim(f"c{number:03}", created=day))
    found = await balance(house)
    assert len(found["insurer"]) == 200
    assert found["insurer"][0]["claim"] == reference("Claim/c204")


# ---------------------------------------------------------------- who may


async def test_a_bill_that_is_kept_back_is_not_in_the_sum(house: House) -> None:
    await house.ehr.store(an_invoice("hidden", total=500, meta=WITHHELD))
    assert (await balance(house))["sum"]["due"]["value"] == 120
    await house.ehr.store(an_invoice("labelled", of="kit", total=500, meta=RESTRICTED))
    found = await balance(house, auth=a_proxy(sections=("billing",)))
    assert found["sum"]["due"]["value"] == 75


@pytest.mark.parametrize("path", [URL, "Account/account/$balance"])
async def test_nobody_else_is_told(house: House, path: str) -> None:
    await house.ehr.store(a_billing_account("account"))
    ended = a_proxy(sections=("billing",), until=house.clock())
    for auth in (
        a_proxy(sections=("results", "forms")),
        ended,
        replace(oneself("ada"), expires=house.clock()),
    ):
        assert (await house.caller(auth, SCOPE).ask("GET", path)).status == 403
    for scope in (
        "patient/Account.r patient/Invoice.rs",
        "patient/Invoice.rs patient/PaymentNotice.r",
        "patient/Account.r patient/Invoice.r patient/PaymentNotice.r",
        "patient/Account.r patient/Invoice.rs?status=issued patient/PaymentNotice.r",
    ):
        assert (await house.caller(oneself("ada"), scope).ask("GET", path)).status == 403


async def test_the_account_of_somebody_else_is_not_there(house: House) -> None:
    await house.ehr.store(a_billing_account("account"))
    kit = house.caller(a_proxy(sections=("billing",)), SCOPE)
    theirs = await kit.ask("GET", "Account/account/$balance")
    nothing = await kit.ask("GET", "Account/nothing/$balance")
    assert theirs.status == 404
    assert theirs.body.replace(b"account", b"X") == nothing.body.replace(b"nothing", b"X")
    asked = await kit.ask("GET", f"{URL}?patient=ada")
    assert asked.status == 403
    assert asked.json["issue"][0]["expression"] == ["Parameters.parameter.where(name='patient')"]


async def test_an_ehr_says_whose(house: House) -> None:
    assert (await house.ehr.ask("GET", URL)).status == 422
    found = values(await house.ehr.ask("GET", f"{URL}?patient=ada"))
    assert found["sum"]["due"]["value"] == 120
    await house.ehr.store(a_billing_account("account"))
    body = parameters(patient_Id="ada")
    assert (await house.ehr.ask("POST", "Account/account/$balance", body)).status == 422
    assert values(await house.ehr.ask("GET", f"{URL}?patient=nobody"))["state"] == "none"
