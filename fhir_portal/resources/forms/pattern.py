"""Regular expressions in forms: which of them are held against what people write.

Python's engine tries one way after another. How many there are at most is counted here, before a
pattern is used at all: of two parts that can both take the same signs, each way to share them is
one. ``[^@]+@`` has one way, as nothing but the ``@`` ends the first part.
Source: FHIR R4 extension ``regex`` (http://hl7.org/fhir/StructureDefinition/regex).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LONGEST_MATCHED: Final = 250
"""Characters of an answer that is held against a pattern."""

_LONGEST: Final = 500
_MOST_WAYS: Final = 70_000
_SIGNS: Final = tuple(map(chr, range(0x180)))
"""Of these it is tried whether two parts take the same."""
_TOKEN: Final = re.compile(
    r"(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<edge>\^|\$|\\[AbBZ])"
    r"|(?P<sign>\\x..|\\u.{4}|\\U.{8}|\\0[0-7]{0,2}|\\N\{[^}]*\}|\\.|[^()|*+?{\\])"
    r"|(?P<open>\(\?:|\()|(?P<close>\))|(?P<bar>\|)"
    r"|(?P<brace>\{)",
    re.DOTALL,
)
_COUNT: Final = re.compile(
    r"(?:(?P<short>[*+?])|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\})[?+]?"
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a sequence: how often, in how many ways, and the one sign it is if it is one."""

    ways: float
    least: int
    most: float
    sign: str | None
    is_fixed: bool


def pattern_fault(text: str) -> str:
    """Return why a regular expression is not used on what people write, or ``""``."""
    if len(text) > _LONGEST:
        return f"a pattern has at most {_LONGEST} signs"
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return "its pattern is not a regular expression"
    if re.search(r"\\[1-9]|\(\?(?!:)", text):
        return "its pattern refers back or looks around, which is not done here"
    try:
        ways, _ = _Reading(text).alternatives()
    except (ValueError, OverflowError, RecursionError):
        return "its pattern is not understood here"
    if ways > _MOST_WAYS:
        return "its pattern repeats what repeats, or can be met in too many ways"
    return ""


class _Reading:
    """Goes through a pattern once, from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def alternatives(self) -> tuple[float, bool]:
        """Return in how many ways they can be met, and whether all are of one length known."""
        ways, lengths = 0.0, set[int | None]()
        while True:
            found, length = self._sequence()
            ways += found
            lengths.add(length)
            if not self.text.startswith("|", self.at):
                return ways, len(lengths) == 1 and None not in lengths
            self.at += 1

    def _sequence(self) -> tuple[float, int | None]:
        parts = list[_Part]()
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            part = self._part()
            if part is not None:
                parts.append(part)
        ways = 1.0
        for at, part in enumerate(parts):
            # What comes after a group, or after it once more, may begin with anything.
            ways *= _ways(part, parts[at + 1 :], at_end=self.depth == 0)
        is_fixed = all(one.is_fixed and one.least == one.most for one in parts)
        return ways, sum(one.least for one in parts) if is_fixed else None

    def _part(self) -> _Part | None:
        token = _TOKEN.match(self.text, self.at)
        if token is None:
            raise ValueError(self.at)
        self.at = token.end()
        sign: str | None = token["class"] or token["sign"] or token["brace"]
        ways, is_fixed = 1.0, True
        if token["open"]:
            self.depth += 1
            ways, is_fixed = self.alternatives()
            self.depth -= 1
            if not self.text.startswith(")", self.at):
                raise ValueError(self.at)
            self.at += 1
        least, most = self._count()
        if token["edge"]:
            return None
        return _Part(ways, least, most, r"\{" if sign == "{" else sign, is_fixed)

    def _count(self) -> tuple[int, float]:
        found = _COUNT.match(self.text, self.at)
        if found is None or found[0].startswith("{}") or found[0].startswith("{,}"):
            return 1, 1
        self.at = found.end()
        if found["short"]:
            return {"*": (0, float("inf")), "+": (1, float("inf")), "?": (0, 1)}[found["short"]]
        least = int(found["least"] or 0)
        if not found["comma"]:
            return least, least
        return least, int(found["most"]) if found["most"] else float("inf")


def _ways(part: _Part, rest: Sequence[_Part], *, at_end: bool) -> float:
    """Return in how many ways a part can be met, with what comes after it."""
    times = min(part.most, LONGEST_MATCHED) - min(part.least, LONGEST_MATCHED) + 1
    if part.sign is not None:
        is_shared = _is_shared(part.sign, rest, at_end=at_end)
        return times if part.least != part.most and is_shared else 1
    if part.most <= 1:
        return part.ways + (times - 1)
    if part.ways == 1 and part.is_fixed:
        return times
    if part.most > LONGEST_MATCHED:
        return float("inf")
    return float(times * part.ways ** min(part.most, LONGEST_MATCHED))


def _is_shared(sign: str, rest: Sequence[_Part], *, at_end: bool) -> bool:
    """Whether what follows can begin with a sign that this part takes, too."""
    for one in rest:
        if one.sign is None or any(
            re.fullmatch(sign, each) and re.fullmatch(one.sign, each) for each in _SIGNS
        ):
            return True
        if one.least:
            return False
    return not at_end
