"""Looks for canaries in texts, however they are spelt.

A text may be allowed to hold some canaries: the message that was made to carry a code carries it.
Everything that may is named by whoever makes the text (`evidence`); here nothing is let through.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Final
from urllib.parse import quote

PEOPLE: Final = frozenset(
    {
        *("name", "address", "telecom", "birth date", "identifier", "note", "message text"),
        *("user name", "clinical text"),
    }
)
"""The kinds that are people's data; every other kind is a secret."""
RARE: Final = ("Referer headers",)
"""Where nothing may have been left: the figures say so."""
_LONG: Final = 9
"""A value of so many signs, with a letter, is found wherever it stands; others as a whole word."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A value that is unique in the world: what kind of thing it is, and the text."""

    kind: str
    value: str

    @property
    def is_secret(self) -> bool:
        """Whether no store may hold it."""
        return self.kind not in PEOPLE


@dataclass(frozen=True, slots=True)
class Text:
    """Something that was left somewhere. ``allowed`` are the values that it was made to carry.

    ``secrets_only`` says that it may hold people's data, as the store does.
    """

    place: str
    label: str
    content: bytes
    allowed: frozenset[str] = frozenset()
    secrets_only: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A canary where none may be."""

    canary: Canary
    place: str
    label: str
    around: str = ""

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.canary.kind} {self.canary.value!r} in {self.label}: {self.around}"
        )


@dataclass
class Canaries:
    """All that were made, each once; the first kind that a value was added as counts."""

    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, *values: str | None) -> str:
        """Add values, and return the last one."""
        for value in values:
            if value:
                self.kinds.setdefault(value, kind)
        return (values[-1] or "") if values else ""

    def __iter__(self) -> Iterator[Canary]:
        return (Canary(kind, value) for value, kind in self.kinds.items())

    def of(self, *kinds: str) -> frozenset[str]:
        """The values of some kinds."""
        return frozenset(value for value, kind in self.kinds.items() if kind in kinds)

    @property
    def counted(self) -> Counter[str]:
        """How many there are of each kind."""
        return Counter(self.kinds.values())


def spellings(canary: Canary) -> frozenset[bytes]:
    """The ways in which a value may stand in a text; all in small letters."""
    value = canary.value
    found = {value}
    compact = re.sub(r"[\s-]", "", value)
    if canary.kind == "telecom" and value.startswith("+1"):
        area, middle, last = compact[2:5], compact[5:8], compact[8:]
        found |= {
            compact[2:],
            *(
                text.format(area, middle, last)
                for text in ("({}) {}-{}", "{}-{}-{}", "{} {} {}", "{}.{}.{}")
            ),
        }
    elif canary.kind == "birth date":
        born = date.fromisoformat(value)
        found |= {
            f"{born:%m/%d/%Y}",
            f"{born.month}/{born.day}/{born.year}",
            f"{born:%Y%m%d}",
            f"{born:%B} {born.day}, {born.year}",
            f"{born.day} {born:%B} {born.year}",
        }
    elif re.fullmatch(r"[0-9A-Za-z]{3,6}(?:[\s-][0-9A-Za-z]{3,6})+", value):
        found |= {compact, compact.replace("-", " "), value.replace("-", " ")}
    found |= {quote(one, safe="") for one in found} | {html.escape(one) for one in found}
    found |= {quote(one, safe="").replace("%20", "+") for one in found if "%" not in one}
    found |= {json.dumps(one)[1:-1] for one in found}
    if len(compact) >= _LONG:
        raw = value.encode()
        found.add(raw.hex())
        for shift in range(3):
            # The signs in the middle do not depend on what stands before and after.
            inner = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
            inner = inner[(0, 2, 3)[shift] : len(inner) - 1]
            found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return frozenset(one.lower().encode() for one in found)


def _pattern(spelt: bytes) -> re.Pattern[bytes] | None:
    """A short word or a number is looked for as a whole; ``None`` for what is long enough."""
    if len(spelt) >= _LONG and re.search(rb"[a-z]", spelt):
        return None
    return re.compile(rb"(?<![0-9a-z.])" + re.escape(spelt) + rb"(?![0-9a-z])")


def scan(canaries: Iterable[Canary], texts: Collection[Text]) -> list[Finding]:
    """Return every canary that stands where it must not, once for each text."""
    lowered = [(one, one.content.lower()) for one in texts]
    found = []
    for canary in canaries:
        for spelt in spellings(canary):
            pattern = _pattern(spelt)
            for one, content in lowered:
                if one.secrets_only and not canary.is_secret:
                    continue
                at = content.find(spelt)
                if at < 0 or canary.value in one.allowed:
                    continue
                if pattern is not None:
                    match = pattern.search(content)
                    if match is None:
                        continue
                    at = match.start()
                around = one.content[max(0, at - 50) : at + 70].decode("latin-1")
                found.append(Finding(canary, one.place, one.label, around))
    return list({(one.canary, one.place, one.label): one for one in found}.values())


def table(canaries: Canaries, texts: Collection[Text], found: Collection[Finding]) -> str:
    """The figures: of each kind how many, in how many texts looked for, and how often found."""
    everywhere = len(texts)
    for_people = sum(not one.secrets_only for one in texts)
    by_kind = Counter(one.canary.kind for one in found)
    by_place = Counter(one.place for one in found)
    lines = [f"{'kind':24} {'canaries':>8} {'texts':>6} {'found':>6}"]
    for kind, count in sorted(canaries.counted.items()):
        looked = for_people if kind in PEOPLE else everywhere
        lines.append(f"{kind:24} {count:8} {looked:6} {by_kind[kind]:6}")
    lines += ["", f"{'place':32} {'texts':>6} {'bytes':>10} {'found':>6}"]
    for place in dict.fromkeys([*(one.place for one in texts), *RARE]):
        there = [one for one in texts if one.place == place]
        size = sum(len(one.content) for one in there)
        lines.append(f"{place:32} {len(there):6} {size:10} {by_place[place]:6}")
    return "\n".join(lines)
