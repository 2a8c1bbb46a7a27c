"""Resources with every element filled, made from the structure tables: each path has a value.

They satisfy no invariants; they are there to visit every place a search parameter can lead to.
"""

from __future__ import annotations

import json
import random
from typing import Any

from fhir_portal.fhir.definitions import Element, structures, value_set
from fhir_portal.fhir.json import parse
from fhir_portal.resources.portal_status import SYSTEM as PORTAL_STATUS

_DEEPEST = 5


def filled_resource(resource_type: str, dice: random.Random) -> dict[str, Any]:
    """A resource of this type with one of each choice, lists of one or two, read as if sent."""
    tree = {"resourceType": resource_type, **_members(resource_type, dice, 0), "id": "filled"}
    return parse(json.dumps(tree).encode())


def _members(type_: str, dice: random.Random, depth: int) -> dict[str, Any]:
    elements = structures()[type_]
    choices: dict[str, list[str]] = {}
    for name, element in elements.items():
        choices.setdefault(element.choice or name, []).append(name)
    members: dict[str, Any] = {}
    for names in choices.values():
        name = dice.choice(names)
        if elements[name].type in ("Resource", "Narrative"):
            continue
        if name in ("extension", "modifierExtension", "id"):
            continue
        value = _element(type_, name, elements[name], dice, depth)
        if value is not None:
            members[name] = value
    return members


def _element(type_: str, name: str, element: Element, dice: random.Random, depth: int) -> Any:
    if element.type in structures() and depth >= _DEEPEST:
        return None
    if element.is_list:
        return [_value(type_, name, element, dice, depth) for _ in range(dice.choice((1, 1, 2)))]
    return _value(type_, name, element, dice, depth)


def _value(type_: str, name: str, element: Element, dice: random.Random, depth: int) -> Any:
    n = dice.randrange(100)
    day = f"20{n:02d}-{n % 12 + 1:02d}-{n % 28 + 1:02d}"
    codes = value_set(element.binding) if element.binding else None
    match element.type:
        case "code" if codes:
            return dice.choice(sorted(code for of_system in codes.values() for code in of_system))
        case "Reference":
            target = dice.choice(element.targets or ("Patient", "Practitioner", "Location"))
            return {"reference": f"{target}/r{n}"}
        case "boolean":
            return n % 2 == 0
        case "integer" | "positiveInt" | "unsignedInt":
            return n + 1
        case "decimal":
            return n + 0.25
        case "date":
            return day
        case "dateTime":
            return f"{day}T10:00:00+01:00"
        case "instant":
            return f"{day}T10:00:00.5Z"
        case "time":
            return "10:00:00"
        case "uri" if (type_, name) == ("Coding", "system") and n % 5 == 0:
            return PORTAL_STATUS
        case "uri" | "url" | "oid" | "uuid" | "canonical":
            return f"http://made.example/{n}" + ("|2.0" if element.type == "canonical" else "")
        case "code" | "id":
            return f"{name}-{n}"
        case "Period":
            return {"start": "2001-01-01", "end": day}
    if element.type in structures():
        return _members(element.type, dice, depth + 1)
    return f"{type_} {name} {n}"
