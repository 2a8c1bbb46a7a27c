r"""What may stand after the ``=`` of a search: one small class per search parameter type.

Each ``parse`` reads the text of one value, still escaped (``\,`` ``\|`` ``\$`` ``\\``), and
raises ``InvalidSearch`` for what it does not understand; ``str()`` writes a text that parses to an
equal value. Ordered values (date, number, quantity) say how they compare as ``Bound``\ s on the
``low`` and ``high`` of an indexed range, so that no store has rules of its own.
Source: FHIR R4 §3.1.1.4.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Literal, NamedTuple, Self, TypeVar, cast

from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.definitions import all_types
from fhir_portal.fhir.errors import Invalid, InvalidSearch
from fhir_portal.fhir.reference import Reference, is_id

_T = TypeVar("_T", int, str)

Prefix = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"]
PREFIXES: tuple[Prefix, ...] = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")

MIN_INSTANT = -(2**62)
"""An indexed range without a beginning starts here, before every date."""
MAX_INSTANT = 2**62
"""An indexed range without an end ends here, after every date."""

MIN_NUMBER_KEY = "a"
"""Sorts before every ``number_key``: an indexed range without a lower bound."""
MAX_NUMBER_KEY = "e"
"""Sorts after every ``number_key``: an indexed range without an upper bound."""


class Bound(NamedTuple):
    """One comparison with an end of the indexed range: ``low >= value``."""

    end: Literal["low", "high"]
    operator: Literal["<", "<=", ">", ">="]
    value: int | str

    def holds(self, end: Any) -> bool:
        """Whether the end of an indexed range compares so."""
        return bool(_COMPARE[self.operator](end, self.value))


_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Conditions = tuple[tuple[Bound, ...], ...]
"""Alternatives, of each of which every bound must hold on one and the same indexed range."""


# --- escaping (FHIR R4 §3.1.1.4.19) ---------------------------------------------------------------

_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPED = re.compile(r"([\\,|$])")


def split_unescaped(text: str, separator: str) -> list[str]:
    """Cut at each separator that has no backslash before it; the parts stay escaped."""
    if "\\" not in text:
        return text.split(separator)
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == separator:
            parts.append("")
        elif character == "\\":
            parts[-1] += character + next(characters, "")
        else:
            parts[-1] += character
    return parts


def escape(text: str) -> str:
    r"""Put a backslash before each ``\``, ``,``, ``|`` and ``$``."""
    return _ESCAPED.sub(r"\\\1", text)


def unescape(text: str) -> str:
    """Take the backslashes away again.

    Raises:
        InvalidSearch: for a backslash before anything else, as §3.1.1.4.19 demands.
    """
    if "\\" not in text:
        return text
    for match in _ESCAPE.finditer(text):
        if match[1] not in ("\\", ",", "|", "$") or not match[1]:
            raise InvalidSearch(
                r"A backslash may only stand before a backslash, a comma, | or $; "
                r"a literal one is written \\."
            )
    return _ESCAPE.sub(r"\1", text)


# --- token ----------------------------------------------------------------------------------------


def fold_code(code: str) -> str:
    """How codes are compared: ignoring case (§3.1.1.4.10, "when in doubt")."""
    return code.lower() if code.isascii() else code.casefold()


@dataclass(frozen=True, slots=True)
class Token:
    """``system|code``. A system of ``None`` is any, ``""`` is none; a code of ``None`` is any."""

    system: str | None
    code: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        *systems, code = (unescape(part) for part in split_unescaped(text, "|"))
        if len(systems) > 1:
            raise InvalidSearch(r"A token has at most one |, between system and code (else \|).")
        if not (code or any(systems)):
            raise InvalidSearch("A token needs a code, a system, or both.")
        return cls(systems[0] if systems else None, code or None)

    def matches(self, system: str, folded_code: str) -> bool:
        """Whether an indexed token is one of these."""
        if self.system is not None and self.system != system:
            return False
        return self.code is None or fold_code(self.code) == folded_code

    def __str__(self) -> str:
        code = escape(self.code or "")
        return code if self.system is None else f"{escape(self.system)}|{code}"


# --- string ---------------------------------------------------------------------------------------


def normalise(text: str) -> str:
    """The form in which strings are compared: case and accents gone, whitespace collapsed.

    Idempotent. (§3.1.1.4.8; punctuation is kept.)
    """
    if text.isascii():
        return " ".join(text.lower().split())
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    decomposed = unicodedata.normalize("NFKD", decomposed)
    base = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(base.casefold().split())


@dataclass(frozen=True, slots=True)
class StringValue:
    """Text that an indexed string starts with, contains, or is."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text:
            raise InvalidSearch("An empty string would match everything.")
        return cls(unescape(text))

    @property
    def normalised(self) -> str:
        return normalise(self.text)

    def __str__(self) -> str:
        return escape(self.text)


# --- reference ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """``id``, ``Type/id`` or an absolute or canonical URL.

    Both ``id`` and ``url`` are there of a canonical under the server's own address.
    """

    type: str | None
    id: str | None
    url: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        text = unescape(text)
        if is_id(text):
            return cls(None, text, None)
        try:
            reference = Reference.parse(text)
        except Invalid:
            raise InvalidSearch(
                "A reference is an id, Type/id, or an absolute or canonical URL."
            ) from None
        if reference.version is not None:
            raise InvalidSearch("A reference in a search cannot name a version (_history).")
        if reference.url is not None:
            return cls(None, None, text)
        if reference.id is None:
            raise InvalidSearch("A reference in a search cannot be contained or conditional.")
        if reference.type not in all_types():
            raise InvalidSearch("What stands before the / is not a resource type of FHIR R4.")
        return cls(reference.type, reference.id, None)

    def seen_from(self, base: str, *, also_url: bool = False) -> Self:
        """The same, relative when the URL is a resource directly under ``base``.

        A canonical is kept as the URL that it is: it is asked for by that, too (``also_url``).
        """
        if self.url is None:
            return self
        key = Reference.parse(self.url).seen_from(base).key
        url = self.url if also_url else None
        return self if key is None else replace(self, type=key.type, id=key.id, url=url)

    def narrowed_to(self, resource_type: str) -> Self:
        """The same with the type that a ``:Type`` modifier named (§3.1.1.4.12).

        Raises:
            InvalidSearch: for a URL or another type.
        """
        if self.url is not None or self.type not in (None, resource_type):
            raise InvalidSearch(f"With :{resource_type} the value is the id alone.")
        return replace(self, type=resource_type)

    def targets(self, types: Sequence[str]) -> tuple[str, ...]:
        """The indexed forms that match: of a bare id one for each possible type."""
        whole = () if self.url is None else (self.url,)
        if self.type is not None:
            return (f"{self.type}/{self.id}", *whole)
        if whole:
            return whole
        return tuple(f"{type_}/{self.id}" for type_ in types or sorted(all_types()))

    def __str__(self) -> str:
        if self.url is not None:
            return escape(self.url)
        return f"{self.type}/{self.id}" if self.type else f"{self.id}"


# --- date -----------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MOMENT = period_of("0001")[0]
_LAST_MOMENT = period_of("9999")[1]


@dataclass(frozen=True, slots=True)
class DateValue:
    """A span of time, microseconds since 1970 UTC, both ends included, and how to compare with it.

    What has no zone is read as UTC (§3.1.1.4.7: the server's zone).
    """

    prefix: Prefix
    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Self:
        prefix, rest = _split_prefix(unescape(text))
        try:
            low, high = period_of(rest)
        except ValueError:
            hint = " (is a + not percent-encoded as %2B?)" if " " in rest else ""
            raise InvalidSearch(
                f"A date is YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm[:ss][zone]{hint}."
            ) from None
        if low < _FIRST_MOMENT or high > _LAST_MOMENT:
            raise InvalidSearch("A date lies between the years 1 and 9999 in UTC.")
        return cls(prefix, low, high)

    def conditions(self, *, now: int) -> Conditions:
        """How an indexed range must lie. ``ap`` widens by a tenth of the distance to ``now``."""
        low, high = self.low, self.high
        if self.prefix == "ap":
            margin = max(low - now, now - high, 0) // 10
            low, high = low - margin, high + margin
        return _conditions(self.prefix, (low, "<=", high), (low, high))

    def __str__(self) -> str:
        start = _EPOCH + timedelta(microseconds=self.low)
        day = f"{start.year:04d}-{start:%m-%d}"
        time = f"{start:T%H:%M:%S.%f}"
        days = [day[:length] for length in (4, 7, 10)]
        moments = [f"{day}{time[:length]}Z" for length in (6, 9, 11, 12, 13, 14, 15, 16)]
        covered = (text for text in days + moments if period_of(text) == (self.low, self.high))
        return _with_prefix(self.prefix, next(covered))


# --- number ---------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_LONGEST_NUMBER = 64
_LARGEST_EXPONENT = 1000
_EXACT = Context(prec=3 * _LONGEST_NUMBER)
_EXPONENT_OFFSET = 50_000
_COMPLEMENT = str.maketrans("0123456789", "9876543210")


def number_key(number: Decimal) -> str:
    """A text whose order is the order of the numbers, whatever their precision.

    Equal numbers have equal keys (``5.40`` and ``5.4``). ASCII; starts with a letter, so that no
    store takes it for a number. Exponents beyond ±49,999 all sort at the far end.
    """
    mantissa, _, exponent = format(number, "e").partition("e")
    digits = mantissa.replace(".", "").lstrip("-").rstrip("0")
    if not digits:
        return "c"
    rank = min(max(int(exponent) + _EXPONENT_OFFSET, 0), 2 * _EXPONENT_OFFSET - 1)
    if mantissa[0] != "-":
        return f"d{rank:05d}{digits}"
    rank = 2 * _EXPONENT_OFFSET - 1 - rank
    return f"b{rank:05d}{digits.translate(_COMPLEMENT)}~"


@dataclass(frozen=True, slots=True)
class NumberValue:
    """A decimal, the half-open range ``[low, high)`` its digits imply, and how to compare with it.

    The digits of the value, leading zeros left out, are its precision: 100 stands for
    ``[99.5, 100.5)``, 1e2 for ``[50, 150)``. (§3.1.1.4.6 says so in words; its example for 1e2
    says otherwise and is taken for a slip.) ``eq`` and ``ne`` use that range, ``ap`` the wider of
    it and ten per cent; the rest compare with exactly the number.
    """

    prefix: Prefix
    low: Decimal
    high: Decimal
    exact: Decimal

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(*_parse_number(unescape(text)))

    def conditions(self) -> Conditions:
        r"""How an indexed range of ``number_key``\ s must lie."""
        return _number_conditions(self.prefix, self.low, self.high, self.exact)

    def __str__(self) -> str:
        return _with_prefix(self.prefix, str(self.exact))


@dataclass(frozen=True, slots=True)
class QuantityValue:
    """A number and its unit: ``5.4``, ``5.4|system|code`` or ``5.4||unit`` (§3.1.1.4.11).

    With a system, the coded unit is meant; without, the code or the unit as people read it.
    Units are compared as they are, never converted.
    """

    prefix: Prefix
    low: Decimal
    high: Decimal
    exact: Decimal
    system: str | None
    code: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        number, *unit = (unescape(part) for part in split_unescaped(text, "|"))
        if len(unit) not in (0, 2):
            raise InvalidSearch("A quantity is number, number|system|code or number||unit.")
        system, code = unit or ("", "")
        return cls(*_parse_number(number), system or None, code or None)

    def conditions(self) -> Conditions:
        r"""How an indexed range of ``number_key``\ s must lie."""
        return _number_conditions(self.prefix, self.low, self.high, self.exact)

    def matches_unit(self, system: str, code: str) -> bool:
        """Whether the unit of an indexed quantity is the one asked for."""
        return self.system in (None, system) and self.code in (None, code)

    def __str__(self) -> str:
        number = _with_prefix(self.prefix, str(self.exact))
        if self.system is None and self.code is None:
            return number
        return f"{number}|{escape(self.system or '')}|{escape(self.code or '')}"


# --- uri ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UriValue:
    """A URI, compared as it is, whole (§3.1.1.4.9)."""

    uri: str

    @classmethod
    def parse(cls, text: str) -> Self:
        uri = unescape(text)
        if not uri or any(c.isspace() for c in uri):
            raise InvalidSearch("A URI is not empty and holds no spaces.")
        return cls(uri)

    def __str__(self) -> str:
        return escape(self.uri)


# --- :missing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Missing:
    """The value of ``:missing``: whether the parameter is to have no value (§3.1.1.4.4)."""

    missing: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        if text not in ("true", "false"):
            raise InvalidSearch("The value of :missing is true or false.")
        return cls(text == "true")

    def __str__(self) -> str:
        return "true" if self.missing else "false"


Value = (
    Token
    | StringValue
    | ReferenceValue
    | DateValue
    | NumberValue
    | QuantityValue
    | UriValue
    | Missing
)


# --- prefixes (FHIR R4 §3.1.1.4.5) ----------------------------------------------------------------

_TWO_LETTERS = re.compile(r"[A-Za-z]{2}")


def _split_prefix(text: str) -> tuple[Prefix, str]:
    if not _TWO_LETTERS.match(text):
        return "eq", text
    for prefix in PREFIXES:
        if text.startswith(prefix):
            return prefix, text[2:]
    raise InvalidSearch(f"{text[:2]} is not a search prefix; those are {', '.join(PREFIXES)}.")


def _with_prefix(prefix: Prefix, text: str) -> str:
    return text if prefix == "eq" else prefix + text


def _parse_number(text: str) -> tuple[Prefix, Decimal, Decimal, Decimal]:
    prefix, digits = _split_prefix(text)
    if len(digits) > _LONGEST_NUMBER or not _NUMBER.fullmatch(digits):
        raise InvalidSearch("A number is a FHIR decimal of at most 64 characters, such as 5.40e-3.")
    exact = Decimal(digits)
    if abs(exact.adjusted()) > _LARGEST_EXPONENT:
        raise InvalidSearch("The exponent of a number lies between -1000 and 1000.")
    half = Decimal((0, (5,), cast(int, exact.as_tuple().exponent) - 1))
    return prefix, _EXACT.subtract(exact, half), _EXACT.add(exact, half), exact


def _number_conditions(prefix: Prefix, low: Decimal, high: Decimal, exact: Decimal) -> Conditions:
    below: Literal["<", "<="] = "<"
    if prefix == "ap":
        below, tenth = "<=", abs(exact.scaleb(-1, _EXACT))
        low = min(low, _EXACT.subtract(exact, tenth))
        high = max(high, _EXACT.add(exact, tenth))
    key = number_key(exact)
    return _conditions(prefix, (number_key(low), below, number_key(high)), (key, key))


def _conditions(
    prefix: Prefix,
    within: tuple[_T, Literal["<", "<="], _T],
    ordered: tuple[_T, _T],
) -> Conditions:
    """The prefixes on ranges, by the letter of §3.1.1.4.5.

    Args:
        prefix: how to compare.
        within: the range of the value, and whether its upper end still belongs to it.
        ordered: where "below" ends and "above" starts.
    """
    low, below, high = within
    first, last = ordered
    contained = Bound("low", ">=", low), Bound("high", below, high)
    match prefix:
        case "eq":
            return (contained,)
        case "ne":
            outside = Bound("high", ">=" if below == "<" else ">", high)
            return ((Bound("low", "<", low),), (outside,))
        case "gt":
            return ((Bound("high", ">", last),),)
        case "lt":
            return ((Bound("low", "<", first),),)
        case "ge":  # above it, or within it; what is neither starts before it
            return ((Bound("high", ">", last),), (Bound("low", ">=", first),))
        case "le":
            return ((Bound("low", "<", first),), (Bound("high", "<=", last),))
        case "sa":
            return ((Bound("low", ">", last),),)
        case "eb":
            return ((Bound("high", "<", first),),)
        case "ap":
            return ((Bound("low", "<=", high), Bound("high", ">=", low)),)
