"""The gate on writes: ``fhir.resources``, met in this file only.

Its R4B models describe R4 for every type served here, but for two types and two gaps named below.
They decide whether to accept; they never write JSON, because they would lose digits and zones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from fhir_portal.fhir.definitions import served_types, structures
from fhir_portal.fhir.errors import Issue, UnknownType

_REDEFINED = frozenset({"Evidence", "EvidenceVariable"})
"""R4B gave these types other elements, so its models would refuse what R4 allows."""

_EXTENSIONS = frozenset({"extension", "modifierExtension"})

_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

_Loc = tuple[str | int, ...]


def check(resource_type: str, body: bytes) -> list[Issue]:
    """What ``fhir.resources`` finds wrong with a resource; nothing for the types R4B redefined.

    The words never quote a value. ``expression`` is FHIRPath from the outermost resource.

    Raises:
        UnknownType: when the type is not served.
    """
    if resource_type in _REDEFINED:
        return []
    model = _model(resource_type)
    try:
        model.model_validate_json(body)
    except ValidationError as error:
        return _issues(resource_type, body, error)
    except KeyError:  # a nested resource of a type without a model
        words = "A nested resource has a type that is not supported."
        return [Issue("not-supported", words, resource_type)]
    except (TypeError, AttributeError, ValueError, RecursionError):  # its own checks fell over
        return [Issue("structure", "The resource cannot be read.", resource_type)]
    return []


def _model(resource_type: str) -> Any:
    if resource_type not in served_types():
        raise UnknownType("There is no such resource type here.")
    return get_fhir_model_class(resource_type)


def _issues(resource_type: str, body: bytes, error: ValidationError) -> list[Issue]:
    found = []
    tree = None
    faults = error.errors(include_url=False, include_context=False)
    locs = {fault["loc"] for fault in faults}
    for fault in faults:
        loc = fault["loc"]
        if loc and loc[-1] == "root":  # pydantic's word for "the model itself"
            loc = loc[:-1]
        if _is_gap(loc, locs):
            continue
        if tree is None:
            tree = msgspec.json.decode(body)
        code, words = _words(fault["type"], fault["msg"])
        issue = Issue(code, words, _expression(resource_type, loc, tree))
        if issue not in found:
            found.append(issue)
    return found


def _is_gap(loc: _Loc, locs: Iterable[_Loc]) -> bool:
    """R4 has this element, the model has not; or the model misses a choice made by such an element.

    Two gaps: a choice of any type may be Meta (``valueMeta``, ``fixedMeta``), and an extension's
    primitive value may be extended (``_valueString``).
    """
    return _is_unmodelled(loc) or any(other[:-1] == loc and _is_unmodelled(other) for other in locs)


def _is_unmodelled(loc: _Loc) -> bool:
    if not loc:
        return False
    name = str(loc[-1])
    in_extension = len(loc) > 2 and loc[-3] in _EXTENSIONS  # noqa: PLR2004 - extension, 0, name
    return (in_extension and name.startswith("_value")) or (
        name != "Meta" and name.endswith("Meta")
    )


def _words(kind: str, message: str) -> tuple[str, str]:
    """IssueType and plain words for one of pydantic's error types."""
    if kind == "extra_forbidden":
        return "structure", "No such element here."
    if kind.endswith("missing"):
        return "required", "A required element is missing."
    if kind == "list_type":
        return "structure", "This element repeats: it must be an array."
    if kind.startswith("model") or kind.endswith("json_invalid"):
        return "structure", "This element must be an object."
    if "got multiple" in message:
        return "structure", "Only one type of a choice may be given."
    if "Expect any of field" in message:
        return "required", "One type of the choice must be given."
    return "value", "Not a valid value of this element's type."


def _expression(resource_type: str, loc: _Loc, tree: Any) -> str:
    """FHIRPath of a place: ``('name', 0, 'nick')`` in a Patient is ``Patient.name[0].nick``."""
    path = within = resource_type
    for step in loc:
        tree = _child(tree, step)
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            name = step.removeprefix("_")
            element = structures().get(within, {}).get(name)
            if element is None:
                return f"{path}.{name}" if _SAFE_NAME.fullmatch(name) else path
            path += f".{element.choice or name}"
            within = element.type if step == name else "Extension"  # what may stand beside a value
        if within not in structures() and isinstance(tree, dict):  # a nested resource
            within = str(tree.get("resourceType"))
    return path


def _child(node: Any, step: str | int) -> Any:
    try:
        return node[step]
    except (KeyError, IndexError, TypeError):
        return None
