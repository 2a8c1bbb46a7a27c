"""Answers to a form in words, as they are shown to patients and staff."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def answers_of(tree: Mapping[str, Any], depth: int = 0) -> list[tuple[int, str, str]]:
    """Return depth, question and answer of each item of a response."""
    found: list[tuple[int, str, str]] = []
    for one in tree.get("item") or ():
        given = [_answer(answer) for answer in one.get("answer") or ()]
        question = str(one.get("text") or one.get("linkId"))
        found.append((min(depth, 3), question, "; ".join(given)))
        found += answers_of(one, depth + 1)
        for answer in one.get("answer") or ():
            found += answers_of(answer, depth + 1)
    return found


def _answer(answer: Mapping[str, Any]) -> str:
    for name, value in answer.items():
        if name == "valueBoolean":
            return "yes" if value else "no"
        if name == "valueCoding":
            return str(value.get("display") or value.get("code") or "")
        if name == "valueAttachment":
            return f"a file ({value.get('contentType', 'of no kind')})"
        if name == "valueQuantity":
            return f"{_number(value.get('value', ''))} {value.get('unit', '')}".strip()
        if name.startswith("value"):
            return value if isinstance(value, str) else _number(value)
    return ""


def _number(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)
