"""The Questionnaires a practice has: its own and those that all practices share, by canonical."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fhir_portal.access.visibility import SHARED, Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.definitions import value_set
from fhir_portal.resources.forms.questionnaire import (
    Questionnaire,
    read_questionnaire,
    value_set_names,
)
from fhir_portal.resources.store import ResourceReader, Row
from fhir_portal.search.request import parse_search

_MOST: Final = 50
_MOST_CODES: Final = 5000


async def questionnaire_row(reader: ResourceReader, practice: str, canonical: str) -> Row | None:
    """Return the Questionnaire that a canonical (``url|version``) names in a practice.

    Its own goes before a shared one, an active one before others, the latest before older ones.
    What another practice has is not known.
    """
    return await _row(reader, practice, "Questionnaire", canonical)


async def known_form(reader: ResourceReader, practice: str, canonical: str) -> Questionnaire | None:
    """Return the form that a canonical names, or ``None`` when the practice has no such one."""
    row = await questionnaire_row(reader, practice, canonical)
    return None if row is None else await form_of(reader, practice, row)


async def form_of(reader: ResourceReader, practice: str, row: Row) -> Questionnaire:
    """Return the form that a stored Questionnaire is, with the value sets it names."""
    return await form_of_tree(reader, practice, row.body)


async def form_of_tree(reader: ResourceReader, practice: str, body: bytes) -> Questionnaire:
    """Return the form that the JSON of a Questionnaire is."""
    tree = json.parse(body)
    sets = []
    for name in value_set_names(tree):
        if not name.startswith("#"):
            codings = await _codings(reader, practice, name)
            if codings is not None:
                sets.append((name, json.dumps({"codings": codings})))
    return _read(body, tuple(sets))


@functools.lru_cache(maxsize=200)
def _read(body: bytes, sets: tuple[tuple[str, bytes], ...]) -> Questionnaire:
    tree = json.parse(body)
    found = {name: json.parse(one)["codings"] for name, one in sets}
    for one in tree.get("contained", ()):
        if one.get("resourceType") == "ValueSet":
            codings = _listed(one)
            if codings is not None:
                found[f"#{one.get('id')}"] = codings
    return read_questionnaire(tree, found)


async def _codings(
    reader: ResourceReader, practice: str, canonical: str
) -> list[dict[str, Any]] | None:
    """Return the codings of a value set: of one stored here, or of the specification's."""
    row = await _row(reader, practice, "ValueSet", canonical)
    if row is None:
        codes = value_set(canonical)
        if codes is None:
            return None
        return [
            {"system": s, "code": c} for s, listed in sorted(codes.items()) for c in sorted(listed)
        ]
    tree = json.parse(row.body)
    found = _listed(tree)
    if found is not None:
        return found
    codings = list[dict[str, Any]]()
    compose = tree.get("compose") or {}
    if "exclude" in compose:
        return None
    for include in compose.get("include", ()):
        if "filter" in include or "valueSet" in include or "system" not in include:
            return None
        listed = _concepts(include)
        if listed is None:
            system = await _row(reader, practice, "CodeSystem", include["system"])
            if system is None:
                return None
            tree = json.parse(system.body)
            listed = [_coding(include["system"], one) for one in _every(tree.get("concept", ()))]
        codings += listed
    return codings if 0 < len(codings) <= _MOST_CODES else None


def _listed(tree: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the codings that a ValueSet lists itself, all of them; else ``None``."""
    expansion = (tree.get("expansion") or {}).get("contains")
    if expansion:
        return [
            _coding(one["system"], one)
            for one in _every(expansion, "contains")
            if "code" in one and "system" in one and one.get("abstract") is not True
        ]
    compose = tree.get("compose") or {}
    found = list[dict[str, Any]]()
    if "exclude" in compose:
        return None
    for include in compose.get("include", ()):
        listed = _concepts(include)
        if listed is None or "filter" in include or "valueSet" in include:
            return None
        found += listed
    return found or None


def _concepts(include: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    if "concept" not in include or "system" not in include:
        return None
    return [_coding(include["system"], one) for one in include["concept"]]


def _coding(system: str, concept: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"display": concept["display"]} if concept.get("display") else {}
    return {"system": system, "code": concept["code"], **shown}


def _every(
    concepts: Sequence[Mapping[str, Any]], below: str = "concept"
) -> Iterator[Mapping[str, Any]]:
    for one in concepts:
        yield one
        yield from _every(one.get(below, ()), below)


async def _row(
    reader: ResourceReader, practice: str, resource_type: str, canonical: str
) -> Row | None:
    url, _, version = canonical.partition("|")
    if not url or "#" in url:
        return None
    query = [("url", _escaped(url)), ("_count", str(_MOST))]
    if version:
        query.append(("version", _escaped(version)))
    asked = parse_search(resource_type, query, base="")
    visible = Visibility.of_practice(resource_type, practice=practice, labels=None)
    page = await reader.search(asked, visible)
    return max(page.rows, key=rank, default=None)


def rank(row: Row) -> tuple[bool, bool, int, str]:
    """Which of several with one canonical is meant: the practice's own, active, the latest."""
    is_active = b'"status":"active"' in row.body
    return row.facts.practice != SHARED, is_active, row.updated, row.facts.id


def _escaped(text: str) -> str:
    """Return a text as one value of a search (FHIR R4 §3.1.1.4.0.1)."""
    for sign in "\\$,|":
        text = text.replace(sign, f"\\{sign}")
    return text
