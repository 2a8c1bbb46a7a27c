"""Instances made from the element tables: the least and the most that each type may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fhir_portal.fhir.definitions import Element, structures, value_set

VALUES: Mapping[str, Any] = {
    "base64Binary": "aGk=",
    "boolean": True,
    "canonical": "http://example.org/x|1",
    "code": "x",
    "date": "2020-01-02",
    "dateTime": "2020-01-02T03:04:05Z",
    "decimal": msgspec.Raw(b"1.50"),
    "id": "a",
    "instant": "2020-01-02T03:04:05.006Z",
    "integer": 1,
    "markdown": "*x*",
    "oid": "urn:oid:1.2.3",
    "positiveInt": 1,
    "string": "x",
    "time": "10:00:00",
    "unsignedInt": 1,
    "uri": "http://example.org",
    "url": "http://example.org",
    "uuid": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
    "xhtml": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>',
}
FULL_DEPTH = 2
"""A full instance is full down to here; below, elements hold the least they may."""


def least(resource_type: str) -> dict[str, Any]:
    """Required elements only, sound in form; rules across elements may be broken."""
    return {"resourceType": resource_type} | _object(resource_type, 0, (resource_type,), full=False)


def most(resource_type: str) -> dict[str, Any]:
    """Every element down to ``FULL_DEPTH``, the first type of each choice."""
    return {"resourceType": resource_type} | _object(resource_type, 0, (resource_type,), full=True)


def _object(name: str, depth: int, above: tuple[str, ...], *, full: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    chosen: set[str] = set()
    for member, element in structures()[name].items():
        if element.choice in chosen or member in {"id", "contained", "implicitRules"}:
            continue
        if not element.min and (not full or element.type in above):
            continue
        if element.choice:
            chosen.add(element.choice)
        made[member] = _listed(element, depth, above, full=full)
    if not made:
        member, element = next(
            (member, element)
            for member, element in structures()[name].items()
            if element.type not in {*above, "Extension"} and member != "id"
        )
        made[member] = _listed(element, depth, above, full=False)
    return made


def _listed(element: Element, depth: int, above: tuple[str, ...], *, full: bool) -> Any:
    value = _value(element, depth, above, full=full)
    return [value] if element.is_list else value


def _value(element: Element, depth: int, above: tuple[str, ...], *, full: bool) -> Any:
    systems = (value_set(element.binding) if element.binding else None) or {}
    if element.type in VALUES:
        codes = sorted(code for codes in systems.values() for code in codes)
        return codes[0] if codes else VALUES[element.type]
    if element.type == "CodeableConcept" and systems:
        system = min(systems)
        return {"coding": [{"system": system, "code": min(systems[system])}]}
    if element.type == "Reference":
        return {"reference": f"{(*element.targets, 'Patient')[0]}/1"}
    if element.type == "Extension":
        return {"url": "http://example.org", "valueString": "x"}
    if element.type == "Resource":
        return {"resourceType": "Basic", "code": {"text": "x"}}
    deeper = full and depth < FULL_DEPTH
    return _object(element.type, depth + 1, (*above, element.type), full=deeper)
