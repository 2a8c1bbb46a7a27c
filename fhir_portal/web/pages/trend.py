"""How the values of a test change, as a drawing: numbers in, shapes out; the template writes SVG.

Every value that is drawn stands in the table beside it. Values of different units are never drawn
on one scale, and what is no number is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.documents import wording
from fhir_portal.documents.chart import when
from fhir_portal.documents.wording import Json, clean, words_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Invalid

WIDTH: Final = 360
HEIGHT: Final = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 348, 16, 168
_LEAST: Final = 2
"""Values below which there is nothing to compare."""
_MARGIN: Final = 0.1
_HALF_A_LETTER: Final = 4
_LARGEST: Final = 1e15
"""Beyond it a number is shown, and not drawn."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number at a time, with its range as it was told at that time.

    ``at`` is in microseconds since 1970 UTC. ``exact`` is false for one that is only bounded,
    such as less than 5.
    """

    at: int
    number: float
    low: float | None
    high: float | None
    exact: bool
    day: str
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """Where a value is drawn, and what is said of it."""

    x: float
    y: float
    exact: bool
    text: str


@dataclass(frozen=True, slots=True)
class Band:
    """A part of the usual range: it may differ from value to value."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A drawing: what it is called, the shapes, and the words at its edges."""

    title: str
    told: str
    points: Sequence[Point]
    bands: Sequence[Band]
    highest: str
    lowest: str
    first: str
    last: str
    marks: Sequence[tuple[float, str]]
    """Heights on the scale, and the numbers that stand there."""
    top: float = _TOP
    bottom: float = _BOTTOM
    left: float = _LEFT
    right: float = _RIGHT

    @property
    def line(self) -> str:
        """The points of the line."""
        return " ".join(f"{one.x},{one.y}" for one in self.points)


def trends_of(observations: Iterable[Json]) -> list[Trend]:
    """Return a drawing for each thing that was measured and each unit it was measured in.

    Only of values that count: not of what was taken back or cancelled.
    """
    series: dict[tuple[str, str], list[Measure]] = {}
    for tree in observations:
        if tree.get("status") in {"entered-in-error", "cancelled"}:
            continue
        for part in (tree, *(tree.get("component") or ())):
            measure = _measure(tree, part)
            if measure is not None:
                quantity = part["valueQuantity"]
                unit = clean(quantity.get("unit") or quantity.get("code") or "")
                name = words_of(part.get("code")) or words_of(tree.get("code"))
                series.setdefault((name, unit), []).append(measure)
    return [
        _drawn(name, unit, sorted(found, key=lambda one: one.at))
        for (name, unit), found in series.items()
        if len(found) >= _LEAST
    ]


def _measure(tree: Json, part: Json) -> Measure | None:
    quantity = part.get("valueQuantity")
    at = _moment(when(tree))
    number = _number(quantity)
    if at is None or number is None or not isinstance(quantity, Mapping):
        return None
    low, high = _range(part, quantity)
    said = wording.amount(quantity)
    return Measure(
        at, number, low, high, not quantity.get("comparator"), wording.day(when(tree)), said
    )


def _range(part: Json, quantity: Json) -> tuple[float | None, float | None]:
    """The usual range, if there is one that is told by numbers of the same unit."""
    ranges = [one for one in part.get("referenceRange") or () if "low" in one or "high" in one]
    if len(ranges) != 1:
        return None, None
    unit = quantity.get("code") or quantity.get("unit")
    found = []
    for name in ("low", "high"):
        bound = ranges[0].get(name)
        same = bound is not None and unit in (bound.get("code"), bound.get("unit"))
        found.append(_number(bound) if same else None)
    return found[0], found[1]


def _number(quantity: Any) -> float | None:
    if not isinstance(quantity, Mapping) or "value" not in quantity:
        return None
    try:
        number = float(json.decimal(quantity["value"]))
    except Invalid:
        return None
    return number if abs(number) < _LARGEST else None


def _moment(text: str) -> int | None:
    try:
        return period_of(text)[0] if text else None
    except ValueError:
        return None


def _drawn(name: str, unit: str, measures: Sequence[Measure]) -> Trend:
    numbers = [one.number for one in measures]
    bounds = [b for one in measures for b in (one.low, one.high) if b is not None]
    low, high = min([*numbers, *bounds]), max([*numbers, *bounds])
    spread = (high - low) or abs(high) or 1.0
    low, high = low - spread * _MARGIN, high + spread * _MARGIN
    first, last = measures[0].at, measures[-1].at

    def across(at: float) -> float:
        whole = last - first
        share = (at - first) / whole if whole else 0.5
        return round(_LEFT + 8 + share * (_RIGHT - _LEFT - 16), 1)

    def up(number: float) -> float:
        return round(_BOTTOM - (number - low) / (high - low) * (_BOTTOM - _TOP), 1)

    points = [
        Point(across(one.at), up(one.number), one.exact, f"{one.day}: {one.text}")
        for one in measures
    ]
    least = min(measures, key=lambda one: one.number)
    most = max(measures, key=lambda one: one.number)
    title = f"{name} over time"
    told = (
        f"{len(measures)} values from {measures[0].day} to {measures[-1].day}: "
        f"first {measures[0].text}, last {measures[-1].text}, lowest {least.text} on {least.day}, "
        f"highest {most.text} on {most.day}. All of them are in the table."
    )
    return Trend(
        title=f"{title}, in {unit}" if unit else title,
        told=told,
        points=points,
        bands=_bands(measures, points, up),
        highest=most.text,
        lowest=least.text,
        first=measures[0].day,
        last=measures[-1].day,
        marks=[
            (up(one.number) + _HALF_A_LETTER, f"{one.number:.4g}")
            for one in ((most, least) if most.number > least.number else (most,))
        ],
    )


def _bands(measures: Sequence[Measure], points: Sequence[Point], up: Any) -> list[Band]:
    """The usual range around each value, from half the way to the one before to half to the next.

    Where it has one end, it goes on to the edge.
    """
    found = []
    for n, (one, point) in enumerate(zip(measures, points, strict=True)):
        if one.low is None and one.high is None:
            continue
        start = _LEFT if n == 0 else (points[n - 1].x + point.x) / 2
        end = _RIGHT if n == len(points) - 1 else (point.x + points[n + 1].x) / 2
        top = _TOP if one.high is None else up(one.high)
        bottom = _BOTTOM if one.low is None else up(one.low)
        found.append(
            Band(round(start, 1), top, round(end - start, 1), round(max(bottom - top, 0.5), 1))
        )
    return found
