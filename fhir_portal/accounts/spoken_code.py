"""Codes that people read out and type: signs that are not taken for others, the last one to check.

The check is Luhn's algorithm over our signs: it finds one wrong sign, and two that changed places.
Of neighbours it does not see the first and the last of our signs, ``2`` and ``Z``.
"""

from __future__ import annotations

from typing import Final

SIGNS: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
_LONGEST: Final = 60


def number_in_signs(number: int, length: int) -> str:
    """Return so many signs made of a number that is far larger than they can say."""
    signs = []
    for _ in range(length):
        number, rest = divmod(number, len(SIGNS))
        signs.append(SIGNS[rest])
    return "".join(signs)


def check_sign(signs: str) -> str:
    """Return the sign that checks these."""
    base, total, factor = len(SIGNS), 0, 2
    for sign in reversed(signs):
        product = factor * SIGNS.index(sign)
        total += product // base + product % base
        factor = 3 - factor
    return SIGNS[-total % base]


def read_signs(typed: str, length: int) -> str | None:
    """Return a code as it is compared; ``None`` if its length or last sign says it was mistyped."""
    signs = "".join(sign for sign in typed[:_LONGEST].upper() if sign.isascii() and sign.isalnum())
    if len(signs) != length or any(sign not in SIGNS for sign in signs):
        return None
    return signs if check_sign(signs[:-1]) == signs[-1] else None
