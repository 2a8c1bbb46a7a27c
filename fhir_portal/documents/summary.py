"""What stands in a patient summary: which parts, and what of each.

Source: International Patient Summary 2.0 (medications, allergies and problems are always there;
the rest where there is something). It is short: medicines and problems of now, the latest value of
each test and measurement. The whole record is in the C-CDA (`fhir_portal.documents.ccda`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_portal.documents.chart import (
    ALLERGIES,
    DEVICES,
    IMMUNIZATIONS,
    MEDICATIONS,
    PLAN,
    PROBLEMS,
    PROCEDURES,
    RESULTS,
    SOCIAL_HISTORY,
    VITAL_SIGNS,
    Chart,
    Item,
    Part,
    is_current,
)
from fhir_portal.documents.wording import Json, code_of, words_of

TITLE: Final = "Patient summary"

PAST_PROBLEMS: Final = Part(
    "past-problems", "11348-0", "History of Past illness note", "Past health problems",
    PROBLEMS.types, PROBLEMS.columns, PROBLEMS.cells,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """A part with what it shows; empty only where the part is required."""

    part: Part
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """A patient summary: the record it is made from, and its sections in their order."""

    chart: Chart
    sections: tuple[Section, ...]


def summary_of(chart: Chart) -> Summary:
    """Return the summary of a record as its reader may see it."""
    found = []
    for part, chosen in _PARTS:
        items = tuple(chosen(part.items(chart)))
        if items or part in _REQUIRED:
            found.append(Section(part, items))
    return Summary(chart, tuple(found))


def _current(items: Sequence[Item]) -> list[Item]:
    return [one for one in items if is_current(one.tree)]


def _past(items: Sequence[Item]) -> list[Item]:
    return [one for one in items if not is_current(one.tree)]


def _latest(items: Sequence[Item]) -> list[Item]:
    """The first of each kind: the items are the latest first."""
    found: dict[str, Item] = {}
    for one in items:
        found.setdefault(_kind(one.tree), one)
    return list(found.values())


def _kind(tree: Json) -> str:
    concept = tree.get("code")
    return code_of(concept) or words_of(concept) or str(tree["id"])


def _given(items: Sequence[Item]) -> list[Item]:
    return [one for one in items if one.tree.get("status") == "completed"]


def _all(items: Sequence[Item]) -> list[Item]:
    return list(items)


_REQUIRED: Final = (MEDICATIONS, ALLERGIES, PROBLEMS)

_PARTS: Final[tuple[tuple[Part, Callable[[Sequence[Item]], list[Item]]], ...]] = (
    (PROBLEMS, _current),
    (ALLERGIES, _current),
    (MEDICATIONS, _current),
    (IMMUNIZATIONS, _given),
    (PROCEDURES, _all),
    (DEVICES, _all),
    (RESULTS, _latest),
    (VITAL_SIGNS, _latest),
    (SOCIAL_HISTORY, _latest),
    (PLAN, _all),
    (PAST_PROBLEMS, _past),
)
