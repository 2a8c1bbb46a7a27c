"""Portal sections: the one vocabulary of sharing, read from the compiled ``portal-section``.

Each concept of the CodeSystem has ``filter`` properties: ``Type``, or where the category decides
``Type?category=system|code,system|code``, and ``Type?category:not=…`` for the rest of the type. Of
a Task it is the ``code`` that decides.
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
    by_category, otherwise = table
    if by_category:
        found = frozenset(
            by_category[key]
            for concept in _concepts(tree.get(_element_of(tree["resourceType"])))
            for coding in concept.get("coding") or ()
            if (key := (coding.get("system"), coding.get("code"))) in by_category
        )
        if found:
            return found
    return frozenset({otherwise} if otherwise else ())


def types_in(sections: frozenset[str] | None) -> frozenset[str]:
    """Resource types of which some or all may fall in these sections (``None``: in any)."""
    return frozenset(
        name
        for name, (by_category, otherwise) in _table().items()
        if sections is None or otherwise in sections or sections & set(by_category.values())
    )


@functools.cache
def _table() -> Mapping[str, tuple[Mapping[tuple[str | None, str | None], str], str | None]]:
    table: dict[str, tuple[dict[tuple[str | None, str | None], str], str | None]] = {}
    for concept in ig_resource("CodeSystem", "portal-section")["concept"]:
        for one in concept.get("property", ()):
            if one["code"] != "filter":
                continue
            name, _, query = one["valueString"].partition("?")
            by_category, otherwise = table.get(name, ({}, None))
            element = _element_of(name)
            if not query or query.startswith(f"{element}:not="):
                otherwise = concept["code"]  # the other filters of the type say what it is not
                query = ""
            for token in query.removeprefix(f"{element}=").split(",") if query else ():
                system, _, code = token.partition("|")
                by_category[system, code] = concept["code"]
            table[name] = by_category, otherwise
    return table


def _element_of(resource_type: str) -> str:
    """Return the element whose codings tell the section: a Task has no category."""
    return "code" if resource_type == "Task" else "category"


def _concepts(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, list):
        return [v for v in value if isinstance(v, Mapping)]
    return [value] if isinstance(value, Mapping) else []
