"""What makes two names, postal codes or contacts the same, for every question of who somebody is.

A name may be written in other ways, as one is: in any use (a former name, a nickname), order, case,
with accents and hyphens or without.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_APART: Final = re.compile("[\\s\\-\u2010-\u2015'\u2019.,]+")
_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th"}
)
_LONGEST: Final = 200


def same_name(first: str, last: str, given: Sequence[str], family: str) -> bool:
    """Whether a first and a last name are these, in either order and any way of writing them."""
    typed, has_given, has_family = (
        words_of(f"{first} {last}"),
        words_of(" ".join(given)),
        words_of(family),
    )
    if not typed or not has_given or not has_family:
        return False
    if typed <= has_given | has_family and has_family <= typed and typed & has_given:
        return True
    ways = {_joined(one) for one in (*given, " ".join(given))}
    pairs = {(_joined(first), _joined(last)), (_joined(last), _joined(first))}
    return any((way, _joined(family)) in pairs for way in ways)


def same_initials(typed: tuple[str, str], names: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these are the first letters of a first and a last name, of any use."""
    first, last = (_joined(one)[:1] for one in typed)
    if not first or not last:
        return False
    for name in names:
        given, family = name_parts(name)
        if last == _joined(family)[:1] and first in {_joined(one)[:1] for one in given}:
            return True
    return False


def initials(names: Sequence[Mapping[str, Any]]) -> str:
    """Return the initials that a person is greeted by, ``""`` without a name."""
    known = [one for one in names if one.get("use") in {"official", "usual"}] or list(names)
    for name in known:
        given, family = name_parts(name)
        signs = [part[:1].upper() for part in (*given[:1], family) if part]
        if signs:
            return " ".join(f"{sign}." for sign in signs)
    return ""


def current_telecom(resource: Mapping[str, Any], *systems: str) -> list[Mapping[str, Any]]:
    """Return the contacts of these systems that are not given up."""
    return [
        one
        for one in resource.get("telecom") or ()
        if one.get("system") in systems
        and one.get("value")
        and one.get("use") != "old"
        and "end" not in (one.get("period") or {})
    ]


def postal_code(text: str) -> str:
    """Return a postal code as it is compared: the first five of a ZIP+4 (``12345-6789``)."""
    signs = "".join(sign for sign in text[:20].upper() if sign.isascii() and sign.isalnum())
    return signs[:5] if signs.isdigit() and len(signs) == 9 else signs  # noqa: PLR2004


def name_parts(name: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return given names and family name of a HumanName; of one that is text, its last word."""
    given = [str(one) for one in name.get("given") or () if one]
    family = str(name.get("family") or "")
    if not given and not family:
        *given, family = str(name.get("text") or "").split() or [""]
    return given, family


def words_of(text: str) -> frozenset[str]:
    """Return the words of a name as they are compared."""
    return frozenset(filter(None, _APART.split(_folded(text))))


def _joined(text: str) -> str:
    return _APART.sub("", _folded(text))


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text[:_LONGEST]).casefold()
    return "".join(sign for sign in plain if not unicodedata.combining(sign)).translate(_LETTERS)
