"""A birth date in a form: three fields, read as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Final

_MONTHS: Final = (
    "january february march april may june july august september october november december".split()
)
_ISO: Final = re.compile(r"\s*([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})\s*")
_AMERICAN: Final = re.compile(r"\s*([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})\s*")
_NUMBER: Final = re.compile(r"[0-9]{1,4}")


def birth_date_of(form: Mapping[str, str]) -> str:
    """Return the date of the three fields, as FHIR writes it; ``""`` for what is none.

    A whole date in any of them is taken too, as ``1984-05-12`` or ``05/12/1984``, and a month by
    its name.
    """
    year, month, dayd = (form.get(name, "").strip() for name in ("year", "month", "day"))
    for text in (year, month, dayd, form.get("birth_date", "")):
        if found := _ISO.fullmatch(text[:40]):
            year, month, dayd = found.groups()
        elif found := _AMERICAN.fullmatch(text[:40]):
            month, dayd, year = found.groups()
    if len(month) > 2:  # noqa: PLR2004 - a name
        named = [n for n, name in enumerate(_MONTHS, 1) if name.startswith(month.lower()[:20])]
        month = str(named[0]) if len(named) == 1 else ""
    if not all(_NUMBER.fullmatch(one) for one in (year, month, dayd)):
        return ""
    try:
        return date(int(year), int(month), int(dayd)).isoformat()
    except ValueError:
        return ""
