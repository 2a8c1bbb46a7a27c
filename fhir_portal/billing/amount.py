"""Money, as FHIR writes it and as it is counted: in the smallest unit of its currency.

Source: FHIR R4 §2.24.0.9 (Money); ISO 4217 for the digits of a currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

_DIGITS: Final = 2
_OTHER_DIGITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0
    ),
    **dict.fromkeys("CLF UYW".split(), 4),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
}
_MOST_DIGITS: Final = 11
"""Before the point: fewer than any store or client keeps in a whole number without loss."""


class NoAmount(Exception):
    """This is no amount of money that can be counted. The words say what is wrong with it."""


class Amount(msgspec.Struct, frozen=True):
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
            number = Decimal(text)
        except InvalidOperation:
            raise NoAmount("the value of an amount is a decimal number") from None
        if not number.is_finite() or number.adjusted() >= _MOST_DIGITS:
            raise NoAmount("the amount is too large")
        sign, digits, exponent = number.as_tuple()
        # By its digits: arithmetic with decimals rounds to those of its context.
        written = "".join(map(str, digits))
        beyond = -int(exponent) - digits_of(currency)
        if beyond > 0:
            written, rest = written[:-beyond], written[-beyond:]
            if rest.strip("0"):
                raise NoAmount(f"the amount is finer than {currency} is counted")
        units = int(written or "0") * 10 ** max(-beyond, 0)
        return cls(-units if sign else units, currency)

    @property
    def text(self) -> str:
        """The value with all the digits of its currency: ``12.50``."""
        digits = digits_of(self.currency)
        written = f"{abs(self.units):0{digits + 1}}"
        point = len(written) - digits
        sign, fraction = "-" if self.units < 0 else "", f".{written[point:]}" if digits else ""
        return f"{sign}{written[:point]}{fraction}"

    @property
    def money(self) -> dict[str, Any]:
        """The FHIR Money."""
        return {"value": msgspec.Raw(self.text.encode()), "currency": self.currency}

    def __str__(self) -> str:
        return f"{self.text} {self.currency}"


def digits_of(currency: str) -> int:
    """Return how many digits behind the point a currency is counted with."""
    return _OTHER_DIGITS.get(currency, _DIGITS)
