"""``$receipt`` and ``$payment``: what a payer gets, and nobody else."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from fhir_portal.fhir import json
from tests.access.conftest import family
from tests.builders import (
    RESTRICTED,
    Answer,
    a_payment,
    a_proxy,
    a_related_person,
    an_invoice,
    oneself,
    reference,
    resource,
)
from tests.operations.holding import parameters, values
from tests.operations.test_pay import (
    House,
    at_the_desk,
    dollars,
    house,
    mother,
    portal,
    provider,
    refusal,
)

__all__ = ["family", "house", "portal", "provider"]


async def paid(house: House, *, bill: str = "bill", by: object = None) -> str:
    """Pay a bill; returns the address of the PaymentNotice."""
    caller = house.ada if by is None else house.caller(by)  # type: ignore[arg-type]
    body = parameters(idempotency__key_String="payment-1")
    key = values(await caller.ask("POST", f"Invoice/{bill}/$pay", body))["payment"]
    await house.charge(key)
    await house.tell(key)
    again = await caller.ask("POST", f"Invoice/{bill}/$pay", body)
    return str(values(again)["notice"]["reference"])


def content(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return base64.b64decode(answer.json["data"]).decode()


@pytest.mark.requirement("portal", "S1-28")
async def test_it_says_who_paid_what_when_for_which_bill(house: House) -> None:
    name = await paid(house)
    text = content(await house.ada.ask("GET", f"{name}/$receipt?format=html"))
    notice = (await house.ehr.ask("GET", name)).json
    for words in (
        "Dermatology of the Lane", "120.00 USD", notice["paymentDate"], "Ada Quill",
        notice["id"], notice["payment"]["reference"].rpartition("/")[2],
    ):  # fmt: skip
        assert words in text
    pdf = await house.ada.ask("GET", f"{name}/$receipt")
    assert pdf.json["contentType"] == "application/pdf"
    assert base64.b64decode(pdf.json["data"]).startswith(b"%PDF")


async def test_who_else_paid_is_told_to_the_patient_and_not_to_another_proxy(house: House) -> None:
    own_name = [{"given": ["Mary"], "family": "Quill"}]
    await house.ehr.store(a_related_person("mother", name=own_name))
    name = await paid(house, bill="kits", by=mother())
    own = content(await house.caller(mother()).ask("GET", f"{name}/$receipt?format=html"))
    assert "<dt>Paid by</dt><dd>Mary Quill</dd>" in own
    other = a_proxy(sections=("billing",))
    assert other.record is not None
    other = replace(other, record=replace(other.record, fhir_user="RelatedPerson/father"))
    text = content(await house.caller(other).ask("GET", f"{name}/$receipt?format=html"))
    assert "<dt>Paid by</dt><dd>somebody else who may pay for this patient</dd>" in text


async def test_a_payment_at_the_desk_has_one_and_one_that_was_taken_back_none(house: House) -> None:
    await at_the_desk(house, "20")
    assert "20.00 USD" in content(
        await house.ada.ask("GET", "PaymentNotice/cash/$receipt?format=html")
    )
    await house.ehr.store(
        resource(
            "PaymentNotice", "cash",
            status="cancelled", created="2030-03-01", request=reference("Invoice/bill"),
            payment={"display": "cash"}, recipient={"display": "the desk"}, amount=dollars("20"),
        )
    )  # fmt: skip
    status, words = refusal(await house.ada.ask("GET", "PaymentNotice/cash/$receipt"))
    assert (status, "taken back" in words) == (422, True)


async def test_a_payment_of_a_bill_that_is_no_patients_has_none(house: House) -> None:
    await house.ehr.store(
        resource("Group", "family", type="person", actual=True),
        an_invoice("theirs", subject=reference("Group/family")),
        a_payment("theirs", request=reference("Invoice/theirs")),
    )
    status, words = refusal(await house.ehr.ask("GET", "PaymentNotice/theirs/$receipt"))
    assert (status, "no single patient" in words) == (422, True)


async def test_what_is_written_in_a_record_stays_text(house: House) -> None:
    evil = "<script>alert(1)</script>"
    bill = (await house.ehr.ask("GET", "Invoice/bill")).json
    await house.ehr.store(bill | {"identifier": [{"value": evil}]})
    await at_the_desk(house, "20")
    text = content(await house.ada.ask("GET", "PaymentNotice/cash/$receipt?format=html"))
    assert evil not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("form", ["docx", "PDF", "../pdf"])
async def test_another_format_is_refused_by_name(house: House, form: str) -> None:
    await at_the_desk(house, "20")
    answer = await house.ada.ask("GET", f"PaymentNotice/cash/$receipt?format={form}")
    assert answer.status in (400, 422)
    assert answer.json["issue"][0]["expression"]


async def test_nobody_else_gets_it(house: House) -> None:
    name = await paid(house)
    address = f"{name}/$receipt"
    kit = await house.caller(mother()).ask("GET", address)
    nothing = await house.caller(mother()).ask("GET", "PaymentNotice/nothing/$receipt")
    assert (kit.status, nothing.status) == (404, 404)
    for auth in (
        a_proxy(sections=("documents",)), a_proxy(sections=("billing",), until=house.clock()),
    ):  # fmt: skip
        assert (await house.caller(auth).ask("GET", address)).status == 403
    narrow = house.caller(oneself("ada"), "patient/PaymentNotice.r")
    assert (await narrow.ask("GET", address)).status == 403
    bill = (await house.ehr.ask("GET", "Invoice/kits")).json
    of_kit = await paid(house, bill="kits", by=mother())
    await house.ehr.store(bill | {"meta": RESTRICTED})
    assert (await house.caller(mother()).ask("GET", f"{of_kit}/$receipt")).status == 404


# ---------------------------------------------------------------- $payment


async def test_a_payment_is_told_to_who_began_it(house: House) -> None:
    begun = values(await house.pay(amount="40"))
    address = f"Invoice/$payment?payment={begun['payment']}"
    found = values(await house.ada.ask("GET", address))
    assert (found["status"], found["pay-at"]) == ("begun", begun["pay-at"])
    assert found["invoice"] == reference("Invoice/bill")
    house.provider.faults = {"state"}
    assert "pay-at" not in values(await house.ada.ask("GET", address))
    house.provider.faults = set()
    await house.charge(begun["payment"])
    assert "pay-at" not in values(await house.ada.ask("GET", address))  # paid; not told yet
    await house.tell(begun["payment"])
    found = values(await house.ada.ask("GET", address))
    assert (found["status"], "notice" in found) == ("paid", True)


async def test_a_payment_of_somebody_else_is_not_there(house: House) -> None:
    body = parameters(idempotency__key_String="payment-1")
    kits = await house.caller(mother()).ask("POST", "Invoice/kits/$pay", body)
    key = values(kits)["payment"]
    assert (
        await house.caller(mother()).ask("GET", f"Invoice/$payment?payment={key}")
    ).status == 200
    theirs = await house.ada.ask("GET", f"Invoice/$payment?payment={key}")
    nothing = await house.ada.ask("GET", f"Invoice/$payment?payment={'0' * 64}")
    assert (theirs.status, nothing.status) == (404, 404)
    issue = json.parse(theirs.body)["issue"][0]["diagnostics"]
    assert issue.replace(key, "0" * 64) == json.parse(nothing.body)["issue"][0]["diagnostics"]
    gone = a_proxy(sections=("billing",), act=("billing",), until=house.clock())
    for auth in (gone, a_proxy(sections=("forms",))):
        answer = await house.caller(auth).ask("GET", f"Invoice/$payment?payment={key}")
        assert answer.status == 403
    bill = (await house.ehr.ask("GET", "Invoice/kits")).json
    await house.ehr.store(bill | {"meta": RESTRICTED})
    hidden = await house.caller(mother()).ask("GET", f"Invoice/$payment?payment={key}")
    assert hidden.status == 404
    assert (await house.ehr.ask("GET", f"Invoice/$payment?payment={key}")).status == 403
    assert (await house.ada.ask("GET", "Invoice/$payment")).status in (400, 422)
