"""What paper and the core fonts of PDF can hold: sizes, and the letters of western Europe."""

from __future__ import annotations

import unicodedata
from typing import Final

ENCODING: Final = "windows-1252"
"""What the core fonts are written in."""
POINT: Final = 0.3528
"""Millimetres."""

_WITHOUT_PARTS: Final = {"Ł": "L", "ł": "l", "Đ": "D", "đ": "d", "\u0131": "i", "Ħ": "H", "ħ": "h"}
"""Letters that Unicode does not take apart."""
_LETTER_ZONES: Final = ("America/", "US/", "Canada/")
"""Where paper is in the Letter format."""


def paper_in(zone: str) -> str:
    """Return the format of paper where a time zone (IANA) is: ``letter`` or ``A4``."""
    return "letter" if zone.startswith(_LETTER_ZONES) else "A4"


def written(text: str) -> str:
    """Return a text in the letters of the core fonts; others become the nearest, or ``?``."""
    return "".join(sign if _fits(sign) else _nearest(sign) for sign in text)


def _nearest(sign: str) -> str:
    parts = unicodedata.normalize("NFKD", _WITHOUT_PARTS.get(sign, sign))
    return "".join(part for part in parts if _fits(part)) or "?"


def _fits(text: str) -> bool:
    try:
        text.encode(ENCODING)
    except UnicodeEncodeError:
        return False
    return True
