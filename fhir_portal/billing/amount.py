"""Money, as FHIR writes it and as it is counted: in the smallest unit of its currency.

Source: FHIR R4 §2.24.0.9 (Money); ISO 4217 for the digits of a currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

_DIGITS: Final = 2
_OTHER_DIGITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0
    ),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
}
_MOST: Final = 10**13
"""Smaller than what any store or client keeps as a whole number without loss."""


class NoAmount(Exception):
    """This is no amount of money that can be counted. The words say what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Amount:
    """``units`` of the smallest kind of a ``currency``: 1250 USD is twelve dollars and a half."""

    units: int
    currency: str

    @classmethod
    def of(cls, money: Any) -> Amount:
        """Read a FHIR Money. Raises `NoAmount`: incomplete, or finer than its currency."""
        if not isinstance(money, Mapping) or "value" not in money or "currency" not in money:
            raise NoAmount("an amount has a value and a currency")
        currency = money["currency"]
        value = money["value"]
        text = bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)
        try:
            units = Decimal(text).scaleb(digits_of(currency))
        except InvalidOperation:
            raise NoAmount("the value of an amount is a decimal number") from None
        if abs(units) >= _MOST:
            raise NoAmount("the amount is too large")
        if units != units.to_integral_value():
            raise NoAmount(f"the amount is finer than {currency} is counted")
        return cls(int(units), currency)

    @property
    def text(self) -> str:
        """The value with all the digits of its currency: ``12.50``."""
        digits = digits_of(self.currency)
        return f"{Decimal(self.units).scaleb(-digits):.{digits}f}"

    @property
    def money(self) -> dict[str, Any]:
        """The FHIR Money."""
        return {"value": msgspec.Raw(self.text.encode()), "currency": self.currency}

    def __str__(self) -> str:
        return f"{self.text} {self.currency}"


def digits_of(currency: str) -> int:
    """Return how many digits behind the point a currency is counted with."""
    return _OTHER_DIGITS.get(currency, _DIGITS)
