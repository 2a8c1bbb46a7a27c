"""Money is counted in the smallest unit of its currency, without a rounding anywhere."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.billing.amount import Amount, NoAmount
from fhir_portal.fhir import json


def money(text: str, currency: str = "USD") -> Any:
    return json.parse(f'{{"value": {text}, "currency": "{currency}"}}'.encode())


@pytest.mark.parametrize(
    ("text", "currency", "units"),
    [
        ("12", "USD", 1200),
        ("12.5", "USD", 1250),
        ("12.50", "USD", 1250),
        ("1.25e1", "USD", 1250),
        ("0.00", "USD", 0),
        ("-3.10", "USD", -310),
        ("12", "JPY", 12),
        ("12.0", "JPY", 12),
        ("1.234", "KWD", 1234),
        ("1.000000000000000000000000000000000", "USD", 100),
        ("0e-400", "USD", 0),
    ],
)
def test_an_amount_is_read_to_the_last_digit(text: str, currency: str, units: int) -> None:
    assert Amount.of(money(text, currency)) == Amount(units, currency)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {"value": 1},
        {"currency": "USD"},
        {"value": "x", "currency": "USD"},
        money("0.001"),
        money("1.000000000000000000000000000000001"),
        money("1e-400"),
        money("123456789012.00"),
        money("0.5", "JPY"),
        money("1e30"),
        [1],
    ],
)
def test_what_cannot_be_counted_is_no_amount(wrong: Any) -> None:
    with pytest.raises(NoAmount):
        Amount.of(wrong)


@given(st.integers(1 - 10**11, 10**11 - 1), st.sampled_from(["USD", "EUR", "JPY", "KWD"]))
def test_what_is_written_is_read_again(units: int, currency: str) -> None:
    amount = Amount(units, currency)
    again = json.parse(json.dumps({"money": amount.money}))["money"]
    assert Amount.of(again) == amount
    assert Decimal(amount.text) == Decimal(units).scaleb(-len(amount.text.partition(".")[2]))
