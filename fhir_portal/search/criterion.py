"""One ``parameter:modifier=a,b`` of a search. Source: FHIR R4 §3.1.1.4.4 and §3.1.1.4.17."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from fhir_portal.fhir.errors import InvalidSearch
from fhir_portal.search.paths import paths_of
from fhir_portal.search.registry import PARSED_AS, SearchParameter, repeated
from fhir_portal.search.values import (
    Missing,
    ReferenceValue,
    StringValue,
    Token,
    Value,
    split_unescaped,
)


@dataclass(frozen=True, slots=True)
class Criterion:
    """A parameter, how it is to be compared, and its alternatives.

    A resource satisfies it when any of its indexed values matches any of ``values``. Modifiers:
    ``missing`` (one ``Missing``), ``not`` (none of the resource's values matches any of these),
    ``exact``, ``contains``, and the name of a type, which the reference values then carry already.
    """

    parameter: SearchParameter
    modifier: str
    values: tuple[Value, ...]

    @property
    def name(self) -> str:
        """What stands before the ``=``."""
        return f"{self.parameter.code}:{self.modifier}" if self.modifier else self.parameter.code

    @property
    def text(self) -> str:
        """What stands after the ``=``, in its canonical spelling."""
        return ",".join(str(value) for value in self.values)

    def seen_from(self, base: str) -> Criterion:
        """The same with URLs directly under ``base`` as relative references."""
        if self.parameter.type != "reference":
            return self
        also_url = _holds_urls(self.parameter)
        values = tuple(
            value.seen_from(base, also_url=also_url) if isinstance(value, ReferenceValue) else value
            for value in self.values
        )
        return replace(self, values=values)

    def targets(self) -> tuple[str, ...]:
        """For a reference: every indexed form that any of its values matches."""
        found = [
            target
            for value in self.values
            if isinstance(value, ReferenceValue)
            for target in value.targets(self.parameter.targets)
        ]
        return tuple(dict.fromkeys(found))


@functools.cache
def _holds_urls(parameter: SearchParameter) -> bool:
    """Whether a reference parameter also finds canonicals and other URLs."""
    paths = paths_of(parameter.resource_type, parameter.expression)
    return any(path.type != "Reference" for path in paths)


def parse_criterion(parameter: SearchParameter, modifier: str, text: str) -> Criterion:
    """Parse the modifier and the value of one parameter.

    Args:
        parameter: which one it is.
        modifier: what stood after the colon, or empty.
        text: what stood after the ``=``, percent-decoded.

    Raises:
        InvalidSearch: for a modifier the parameter does not have, and for any value that its type
            does not understand; the parameter is named.
    """
    if modifier and modifier not in parameter.modifiers:
        plain = sorted(parameter.modifiers.difference(parameter.targets))
        offered = " ".join(f":{known}" for known in plain) or "none"
        if len(plain) < len(parameter.modifiers):
            offered += " and the types it can refer to"
        raise InvalidSearch(
            f"{parameter.code} of {parameter.resource_type} does not support the modifier "
            f":{repeated(modifier)}; it has {offered}."
        )
    name = f"{parameter.code}:{modifier}" if modifier else parameter.code
    try:
        return Criterion(parameter, modifier, _values(parameter, modifier, text))
    except InvalidSearch as error:
        raise InvalidSearch(f"{name}: {error}") from None


def _values(parameter: SearchParameter, modifier: str, text: str) -> tuple[Value, ...]:
    if modifier == "missing":
        return (Missing.parse(text),)
    parts = split_unescaped(text, ",")
    if "" in parts:
        raise InvalidSearch("an empty value is not searched for.")
    values = tuple(PARSED_AS[parameter.type].parse(part) for part in parts)
    return tuple(_checked(parameter, modifier, value) for value in values)


def _checked(parameter: SearchParameter, modifier: str, value: Value) -> Value:
    if isinstance(value, StringValue) and modifier != "exact" and not value.normalised:
        raise InvalidSearch("only accents and spaces are left of this value, which match anything.")
    if isinstance(value, ReferenceValue) and modifier:
        return value.narrowed_to(modifier)
    if isinstance(value, Token) and parameter.code == "_id" and value.system is not None:
        raise InvalidSearch("an id has no system.")
    return value
