"""What stands in a resource, in the words and dates a person reads.

Text for pages, paper and the narratives of documents. It is text, never markup: whoever puts it
somewhere escapes it for that place.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

Json = Mapping[str, Any]

_MONTH_LENGTH: Final = 7
_DAY_LENGTH: Final = 10


def words_of(concept: Json | None) -> str:
    """Return what a CodeableConcept says: its text, or a coding's display or code; or ``""``."""
    if not isinstance(concept, Mapping):
        return ""
    if concept.get("text"):
        return clean(concept["text"])
    codings = concept.get("coding") or ()
    for member in ("display", "code"):
        for coding in codings:
            if coding.get(member):
                return clean(coding[member])
    return ""


def code_of(concept: Json | None) -> str:
    """Return the first code of a CodeableConcept, or ``""``."""
    if not isinstance(concept, Mapping):
        return ""
    return next((str(one["code"]) for one in concept.get("coding") or () if one.get("code")), "")


def day(text: str | None) -> str:
    """Return a FHIR date or dateTime as a day in words: ``March 1, 2029``; ``""`` for none."""
    if not text:
        return ""
    try:
        if len(text) < _MONTH_LENGTH:
            return text
        month = calendar.month_name[int(text[5:7])]
        if len(text) < _DAY_LENGTH:
            return f"{month} {text[:4]}"
        return f"{month} {int(text[8:10])}, {text[:4]}"
    except (ValueError, IndexError):
        return ""


def days(period: Json | None) -> str:
    """Return a Period in words."""
    if not isinstance(period, Mapping):
        return ""
    start, end = day(period.get("start")), day(period.get("end"))
    if start and end and start != end:
        return f"{start} to {end}"
    return start or (f"until {end}" if end else "")


def number(value: Any) -> str:
    """Return a number of parsed FHIR JSON with the digits it was sent with."""
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)


def amount(quantity: Json | None) -> str:
    """Return a Quantity: ``> 72 /min``."""
    if not isinstance(quantity, Mapping) or "value" not in quantity:
        return ""
    unit = quantity.get("unit") or quantity.get("code") or ""
    value = f"{quantity.get('comparator', '')} {number(quantity['value'])}".strip()
    return clean(f"{value} {unit}".strip())


def span(low_high: Json | None) -> str:
    """Return a Range."""
    if not isinstance(low_high, Mapping):
        return ""
    low, high = amount(low_high.get("low")), amount(low_high.get("high"))
    if low and high:
        return f"{low} to {high}"
    return f"from {low}" if low else f"up to {high}" if high else ""


def value(tree: Json) -> str:
    """Return the ``value[x]`` of an Observation or a component of one; ``""`` where there is none.

    Where it says why there is no value, that.
    """
    for name, show in _VALUES.items():
        if name in tree:
            return show(tree[name])
    return words_of(tree.get("dataAbsentReason"))


def result(observation: Json) -> str:
    """Return the value of an Observation and of its components."""
    found = [value(observation)] if any(name in observation for name in _VALUES) else []
    for part in observation.get("component") or ():
        named, said = words_of(part.get("code")), value(part)
        if said:
            found.append(f"{named}: {said}" if named else said)
    return "; ".join(found) or value(observation)


def normal_range(observation: Json) -> str:
    """Return the reference ranges of an Observation."""
    found = []
    for one in observation.get("referenceRange") or ():
        said = clean(one["text"]) if one.get("text") else span(one)
        if said:
            found.append(said)
    return "; ".join(found)


def person_name(names: Iterable[Json] | None) -> str:
    """Return the name to call somebody by: the official or usual one, or the first."""
    known = [one for one in names or () if one.get("use") != "old"]
    known.sort(key=lambda one: {"official": 0, "usual": 1}.get(one.get("use", ""), 2))
    for one in known:
        if one.get("text"):
            return clean(one["text"])
        parts = [*(one.get("prefix") or ()), *(one.get("given") or ()), one.get("family")]
        parts += one.get("suffix") or ()
        said = clean(" ".join(part for part in parts if part))
        if said:
            return said
    return ""


def address(one: Json | None) -> str:
    """Return an Address on one line."""
    if not isinstance(one, Mapping):
        return ""
    if one.get("text"):
        return clean(one["text"])
    town = " ".join(part for part in (one.get("state"), one.get("postalCode")) if part)
    parts = [*(one.get("line") or ()), one.get("city"), town, one.get("country")]
    return clean(", ".join(part for part in parts if part))


def clean(text: Any) -> str:
    """Return a text without what neither XML nor a line of print can hold."""
    return " ".join("".join(sign if _is_xml(sign) else " " for sign in str(text)).split())


def _is_xml(sign: str) -> bool:
    """Whether XML 1.0 (§2.2) has the character."""
    point = ord(sign)
    return (
        sign in "\t\n\r"
        or 0x20 <= point <= 0xD7FF  # noqa: PLR2004 - the ranges of the specification
        or 0xE000 <= point <= 0xFFFD  # noqa: PLR2004
        or 0x10000 <= point <= 0x10FFFF  # noqa: PLR2004
    )


def _ratio(one: Json) -> str:
    return f"{amount(one.get('numerator'))} / {amount(one.get('denominator'))}".strip(" /")


def _truth(one: Any) -> str:
    return "yes" if one is True else "no"


_VALUES: Final[Mapping[str, Callable[[Any], str]]] = {
    "valueQuantity": amount,
    "valueCodeableConcept": words_of,
    "valueString": clean,
    "valueBoolean": _truth,
    "valueInteger": number,
    "valueRange": span,
    "valueRatio": _ratio,
    "valueDateTime": day,
    "valuePeriod": days,
    "valueTime": clean,
}
