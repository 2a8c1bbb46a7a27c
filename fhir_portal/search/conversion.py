"""From the value of one element to what is searched: a row per FHIR type and search type.

A converter takes an element's JSON, of a resource that the write gate let through, and returns rows
without the parameter's code. An element that says nothing to search for gives none.
Source: the tables of data types in FHIR R4 §3.1.1.4.6 to §3.1.1.4.12.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import msgspec

from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.definitions import value_set
from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.json import decimal
from fhir_portal.fhir.reference import Reference
from fhir_portal.search.paths import Path
from fhir_portal.search.values import (
    MAX_INSTANT,
    MAX_NUMBER_KEY,
    MIN_INSTANT,
    MIN_NUMBER_KEY,
    fold_code,
    normalise,
    number_key,
)

Rows = Sequence[tuple[Any, ...]]
Convert = Callable[[Any], Rows]

NOT_CONVERTED: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("date", "Age"): "an age is no date without a date of birth",
        ("date", "Range"): "a range of ages is no date without a date of birth",
        ("date", "string"): "words are no date",
        ("quantity", "SampledData"): "a series of samples is not one quantity",
        ("reference", "Attachment"): "an attachment's url names bytes, not a resource",
    }
)
"""Search type and FHIR type that meet in R4's expressions, but leave no row; and why."""

CURRENCIES: Final = "urn:iso:std:iso:4217"
"""The code system of ``Money.currency``."""

_NO_VALUE: Final = frozenset({"id", "extension"})
"""An element that has no other members than these says only why it has no value."""


def converter(parameter_type: str, path: Path, *, base: str) -> Convert | None:
    """How elements at a path become rows of a parameter of this type.

    Args:
        parameter_type: ``token``, ``string``, ``reference``, ``date``, ``number``, ``quantity`` or
            ``uri``.
        path: where the elements are; its FHIR type and binding decide.
        base: the server's own base address; URLs below it are stored as ``Type/id``.

    Returns:
        a converter, the same one for equal arguments, or ``None`` for a pair that has none.
    """
    if parameter_type == "token" and path.type == "code":
        return _code(path.binding)
    if parameter_type == "reference":
        return _reference(base) if path.type == "Reference" else _of_uri(path.type, base)
    return _CONVERTERS.get((parameter_type, path.type))


def is_reference_to(resource_type: str) -> Callable[[Any], bool]:
    """The test of ``where(resolve() is T)``, answered from the text; nothing is looked up."""

    def holds(value: Any) -> bool:
        if value.__class__ is not dict:
            return False
        text = value.get("reference")
        found = _type_in(text) if text.__class__ is str else None
        if found is None and (stated := value.get("type")).__class__ is str:
            found = stated.rpartition("/")[2]
        return found == resource_type

    return holds


# --- token ----------------------------------------------------------------------------------------


@functools.cache
def _code(binding: str | None) -> Convert:
    """A ``code``; its system is implied by the value set it is bound to (§3.1.1.4.10)."""
    codes = (value_set(binding) if binding else None) or {}
    systems = {code: system for system in sorted(codes, reverse=True) for code in codes[system]}

    def rows(value: Any) -> Rows:
        if value.__class__ is not str:
            return ()
        return ((systems.get(value, ""), fold_code(value)),)

    return rows


def _system_and(member: str) -> Convert:
    """A token of this member, in the system of the element.

    An element that holds something else is a token without a code: nothing matches it, but it is
    not ``:missing`` (§3.1.1.4.4).
    """

    def rows(value: Any) -> Rows:
        if value.__class__ is not dict:
            return ()
        system, code = value.get("system"), value.get(member)
        if not (system or code or value.keys() - _NO_VALUE):
            return ()
        return ((system or "", fold_code(code or "")),)

    return rows


_coding = _system_and("code")
_identifier = _system_and("value")


def _codeable_concept(value: Any) -> Rows:
    if value.__class__ is not dict:
        return ()
    found = [row for coding in value.get("coding") or () for row in _coding(coding)]
    return found or _coding(value)


def _contact_point(value: Any) -> Rows:
    return [("", code) for _, code in _identifier(value)]


def _boolean(value: Any) -> Rows:
    return (("", "true" if value else "false"),) if value.__class__ is bool else ()


def _text_token(value: Any) -> Rows:
    return (("", fold_code(value)),) if value.__class__ is str else ()


# --- string ---------------------------------------------------------------------------------------


def _string(value: Any) -> Rows:
    return ((normalise(value), value),) if value.__class__ is str else ()


def _parts(*names: str) -> Convert:
    """Each text under these members is a string of its own."""

    def rows(value: Any) -> Rows:
        if value.__class__ is not dict:
            return ()
        found: list[tuple[Any, ...]] = []
        for name in names:
            part = value.get(name)
            for text in part if part.__class__ is list else (part,):
                found += _string(text)
        return found

    return rows


# --- reference ------------------------------------------------------------------------------------


@functools.cache
def _reference(base: str) -> Convert:
    """A Reference as ``Type/id`` or absolute URL, without a version.

    Contained (``#``), conditional and ``urn:`` references name nothing that could be searched for.
    """

    def rows(value: Any) -> Rows:
        text = value.get("reference") if value.__class__ is dict else None
        if text.__class__ is not str or text[:1] == "#":
            return ()
        target = _target(text, base)
        return () if target is None or target[:4] == "urn:" else ((target,),)

    return rows


@functools.cache
def _of_uri(type_: str, base: str) -> Convert | None:
    """A canonical or other URI: as it is, and without its ``|version``."""
    if type_ not in ("canonical", "uri"):
        return None

    def rows(value: Any) -> Rows:
        if value.__class__ is not str or value[:1] == "#":
            return ()
        url, bar, _ = value.partition("|")
        target = _target(url, base) or url
        return ((target,), (value,)) if bar else ((target,),)

    return rows


def _target(text: str, base: str) -> str | None:
    """The indexed form of a reference's text, if it names something outside its resource."""
    return _kept_form(text, base) if len(text) <= _LONGEST_KEPT else _form(text, base)


def _form(text: str, base: str) -> str | None:
    try:
        reference = Reference.parse(text).seen_from(base)
    except Invalid:
        return None
    if (key := reference.key) is not None:
        return str(key)
    if reference.version is not None:
        return text.rpartition("/_history/")[0]
    return reference.url


def _type_in(text: str) -> str | None:
    return _kept_type(text) if len(text) <= _LONGEST_KEPT else _type(text)


def _type(text: str) -> str | None:
    try:
        return Reference.parse(text).type
    except Invalid:
        return None


_LONGEST_KEPT: Final = 512
"""A URL has no end: a text longer than most is taken apart each time."""
_kept_form = functools.lru_cache(maxsize=8192)(_form)
_kept_type = functools.lru_cache(maxsize=8192)(_type)


# --- date -----------------------------------------------------------------------------------------


def _span(text: Any) -> tuple[int, int] | None:
    try:
        return period_of(text)
    except (TypeError, ValueError):
        return None


def _date(value: Any) -> Rows:
    span = _span(value)
    return () if span is None else (span,)


def _instant(value: Any) -> Rows:
    """A point in time: "an interval with an effective width of 0" (§3.1.1.4.7)."""
    span = _span(value)
    return () if span is None else ((span[0], span[0]),)


def _period(value: Any) -> Rows:
    """What is not said is open; a period that ends before it starts is no range."""
    if value.__class__ is not dict:
        return ()
    start, end = _span(value.get("start")), _span(value.get("end"))
    if start is None and end is None:
        return ()
    low = start[0] if start else MIN_INSTANT
    high = end[1] if end else MAX_INSTANT
    return ((low, high),) if low <= high else ()


def _timing(value: Any) -> Rows:
    """The outer limits of all events and of the period it is repeated in."""
    if value.__class__ is not dict:
        return ()
    ranges = [row for event in value.get("event") or () for row in _date(event)]
    repeat = value.get("repeat")
    if repeat.__class__ is dict:
        ranges += _period(repeat.get("boundsPeriod"))
    if not ranges:
        return ()
    return ((min(low for low, _ in ranges), max(high for _, high in ranges)),)


# --- number, quantity -----------------------------------------------------------------------------


def _key(value: Any) -> str | None:
    if value.__class__ is int or isinstance(value, (msgspec.Raw, Decimal)):
        try:
            return number_key(value if isinstance(value, Decimal) else decimal(value))
        except Invalid:
            return None
    return None


def _number(value: Any) -> Rows:
    key = _key(value)
    return () if key is None else ((key, key),)


def _quantity(value: Any) -> Rows:
    """One row for the coded unit, one more for the unit as people read it if that is another.

    A comparator makes it a range: ``<5`` is everything up to 5.
    """
    if value.__class__ is not dict or (key := _key(value.get("value"))) is None:
        return ()
    comparator = value.get("comparator")
    low = MIN_NUMBER_KEY if comparator in ("<", "<=") else key
    high = MAX_NUMBER_KEY if comparator in (">", ">=") else key
    return _with_units(low, high, value)


def _money(value: Any) -> Rows:
    if value.__class__ is not dict or (key := _key(value.get("value"))) is None:
        return ()
    currency = value.get("currency") or ""
    return ((key, key, CURRENCIES if currency else "", currency),)


def _bounds(value: Any) -> tuple[str, str] | None:
    """The ends of a Range; one that is not said is open."""
    if value.__class__ is not dict:
        return None
    low, high = (_key((value.get(end) or {}).get("value")) for end in ("low", "high"))
    if low is None and high is None:
        return None
    return low or MIN_NUMBER_KEY, high or MAX_NUMBER_KEY


def _number_range(value: Any) -> Rows:
    bounds = _bounds(value)
    return () if bounds is None else (bounds,)


def _quantity_range(value: Any) -> Rows:
    bounds = _bounds(value)
    if bounds is None:
        return ()
    return _with_units(*bounds, value.get("low") or value.get("high"))


def _with_units(low: str, high: str, unit: Mapping[str, Any]) -> Rows:
    coded = (unit.get("system") or "", unit.get("code") or "")
    read = ("", unit.get("unit") or "")
    if read[1] in ("", coded[1]):
        return ((low, high, *coded),)
    if coded == ("", ""):
        return ((low, high, *read),)
    return ((low, high, *coded), (low, high, *read))


# --- uri ------------------------------------------------------------------------------------------


def _uri(value: Any) -> Rows:
    return ((value,),) if value.__class__ is str else ()


def _canonical(value: Any) -> Rows:
    if value.__class__ is not str:
        return ()
    url, bar, _ = value.partition("|")
    return ((url,), (value,)) if bar else ((value,),)


_CONVERTERS: Mapping[tuple[str, str], Convert] = {
    ("token", "Coding"): _coding,
    ("token", "CodeableConcept"): _codeable_concept,
    ("token", "Identifier"): _identifier,
    ("token", "ContactPoint"): _contact_point,
    ("token", "boolean"): _boolean,
    ("token", "string"): _text_token,
    ("token", "id"): _text_token,
    ("token", "uri"): _text_token,
    ("string", "string"): _string,
    ("string", "markdown"): _string,
    ("string", "HumanName"): _parts("text", "family", "given", "prefix", "suffix"),
    ("string", "Address"): _parts(
        "text", "line", "city", "district", "state", "postalCode", "country"
    ),
    ("date", "date"): _date,
    ("date", "dateTime"): _date,
    ("date", "instant"): _instant,
    ("date", "Period"): _period,
    ("date", "Timing"): _timing,
    ("number", "integer"): _number,
    ("number", "decimal"): _number,
    ("number", "Range"): _number_range,
    ("quantity", "Quantity"): _quantity,
    ("quantity", "Age"): _quantity,
    ("quantity", "Duration"): _quantity,
    ("quantity", "Money"): _money,
    ("quantity", "Range"): _quantity_range,
    ("uri", "uri"): _uri,
    ("uri", "url"): _uri,
    ("uri", "canonical"): _canonical,
}
