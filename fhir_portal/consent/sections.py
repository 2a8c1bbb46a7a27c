"""Portal sections: the one vocabulary of sharing, read from the compiled ``portal-section``.

Each concept of the CodeSystem has ``filter`` properties: ``Type``, or where the category decides
``Type?category=system|code,system|code``, and ``Type?category:not=…`` for the rest of the type. Of
a Task, which has no category, its ``code`` decides.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.fhir.definitions import ig_resource

SECTION_SYSTEM: Final = "https://fhir-portal.example/ig/CodeSystem/portal-section"


@functools.cache
def section_displays() -> Mapping[str, str]:
    """Section code to the words a person reads, in the order of the CodeSystem."""
    return {c["code"]: c["display"] for c in ig_resource("CodeSystem", "portal-section")["concept"]}


def sections_of(tree: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the sections a resource falls in by its type and categories (a Task: its code).

    ``None`` says that the type has no section (its own, or at all); an empty set that it has,
    but that no category of this resource tells which: it is unclassified.
    """
    table = _table().get(tree["resourceType"])
    if table is None:
        return None
    element, by_category, otherwise = table
    if by_category:
        found = frozenset(
            by_category[key]
            for concept in _concepts(tree.get(element))
            for coding in concept.get("coding") or ()
            if (key := (coding.get("system"), coding.get("code"))) in by_category
        )
        if found:
            return found
    return frozenset({otherwise} if otherwise else ())


@functools.lru_cache(256)
def types_in(sections: frozenset[str] | None) -> frozenset[str]:
    """Resource types of which some or all may fall in these sections (``None``: in any)."""
    return frozenset(
        name
        for name, (_, by_category, otherwise) in _table().items()
        if sections is None or otherwise in sections or sections & set(by_category.values())
    )


_Row = tuple[str, Mapping[tuple[str | None, str | None], str], str | None]
"""The element that decides, the section of each of its codes, and that of everything else."""


@functools.cache
def _table() -> Mapping[str, _Row]:
    table: dict[str, tuple[str, dict[tuple[str | None, str | None], str], str | None]] = {}
    for concept in ig_resource("CodeSystem", "portal-section")["concept"]:
        for one in concept.get("property", ()):
            if one["code"] != "filter":
                continue
            name, _, query = one["valueString"].partition("?")
            element, by_category, otherwise = table.get(name, ("category", {}, None))
            asked, _, tokens = query.partition("=")
            if not asked or asked.endswith(":not"):
                otherwise = concept["code"]  # the other filters of the type say what it is not
                tokens = ""
            for token in tokens.split(",") if tokens else ():
                system, _, code = token.partition("|")
                by_category[system, code] = concept["code"]
            table[name] = asked.removesuffix(":not") or element, by_category, otherwise
    return table


def _element_of(resource_type: str) -> str:
    """Return the element whose codings tell the section: a Task has no category."""
    return "code" if resource_type == "Task" else "category"


def _concepts(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, list):
        return [v for v in value if isinstance(v, Mapping)]
    return [value] if isinstance(value, Mapping) else []
