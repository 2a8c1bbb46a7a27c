"""What a resource is found and sorted by, as it stands in its document.

``s`` holds a text for everything that is compared exactly or by its beginning, ``w`` what was too
long for that, ``r`` ranges, ``k`` sort keys. A text starts with the parameter's code, and what a
user wrote cannot forge the separators, for in it every control character is escaped:

============================  ==========================================================
``code``                      the parameter has some value, of whatever type
``code SEP value``            a token's folded code; a reference's target; a URI
``code SEP value SEP more``   a token's code and its system; a string normalised and as it is
``code GS system``            a token of this system
============================  ==========================================================
"""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256
from typing import Any, Final

from fhir_portal.mongo.driver import Document
from fhir_portal.search.indexer import IndexEntries

SEPARATOR: Final = "\x1f"
_BEFORE_SYSTEM: Final = "\x1d"
CUT: Final = "\x1c"
"""Stands behind the beginning of a long value, before its hash."""
LONGEST: Final = 400
"""Characters of a value that are in the index; of a longer one the rest is hashed."""
_SORTED: Final = 256
"""Characters of a text that count in an order."""
_CONTROLS: Final = {n: f"\x1e{chr(n + 0x40)}" for n in range(0x20)}
_INVERTED: Final = bytes(255 - n for n in range(256))


def escaped(text: str) -> str:
    """Return a text without control characters, another one for each text."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def cut(text: str) -> str:
    """Shorten what is too long for an index; different texts stay different."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}{CUT}{sha256(text.encode()).hexdigest()[:32]}"


def exactly(code: str, value: str) -> str:
    """Return the entry of a token's folded code in any system, of a reference or of a URI."""
    return f"{code}{SEPARATOR}{cut(escaped(value))}"


def exactly_both(code: str, value: str, more: str) -> str:
    """Return the entry of a token (code, system) or of a string (normalised, as it is)."""
    return f"{code}{SEPARATOR}{cut(escaped(value))}{SEPARATOR}{cut(escaped(more))}"


def of_system(code: str, system: str) -> str:
    """Return the entry of any token of a system."""
    return f"{code}{_BEFORE_SYSTEM}{cut(escaped(system))}"


def values_of(texts: list[str], code: str) -> list[str]:
    """Read back the values of a reference parameter, as far as they were not cut or escaped."""
    start = f"{code}{SEPARATOR}"
    return [text[len(start) :] for text in texts if text.startswith(start)]


def inverted(text: str) -> str:
    """Return a text for sorting the other way round: of a smaller text it is the larger."""
    return text.encode().translate(_INVERTED).decode("latin-1") + "\u0100"


def fields(entries: IndexEntries) -> Document:
    """Return the fields of a document by which a resource is found and sorted."""
    texts: set[str] = set()
    whole: set[str] = set()
    values: defaultdict[str, list[str]] = defaultdict(list)
    ranges: list[Document] = []
    ends: defaultdict[str, list[tuple[Any, Any]]] = defaultdict(list)
    for code, system, folded in entries.tokens:
        texts.add(exactly(code, folded))
        texts.add(exactly_both(code, folded, system))
        if system:
            texts.add(of_system(code, system))
        values[code].append(folded)
    for code, normalised, exact in entries.strings:
        texts.add(exactly_both(code, normalised, exact))
        if len(text := escaped(normalised)) > LONGEST:
            whole.add(f"{code}{SEPARATOR}{text}")
        values[code].append(normalised)
    for code, value in (*entries.references, *entries.uris):
        texts.add(exactly(code, value))
        values[code].append(value)
    for code, low, high in (*entries.dates, *entries.numbers):
        ranges.append({"c": code, "l": low, "h": high})
        ends[code].append((low, high))
    for code, low, high, system, unit in entries.quantities:
        ranges.append({"c": code, "l": low, "h": high, "y": system, "u": unit})
        ends[code].append((low, high))
    keys = {code: _text_keys(found) for code, found in values.items()}
    keys |= {code: _range_keys(found) for code, found in ends.items()}
    texts.update(keys)
    made: Document = {"s": sorted(texts), "k": keys}
    if ranges:
        made["r"] = ranges
    if whole:
        made["w"] = sorted(whole)
    return made


def _text_keys(found: list[str]) -> Document:
    return {"a": inverted(min(found)[:_SORTED]), "z": max(found)[:_SORTED]}


def _range_keys(found: list[tuple[Any, Any]]) -> Document:
    low, high = min(low for low, _ in found), max(high for _, high in found)
    return {"a": inverted(low) if isinstance(low, str) else -low, "z": high}
