"""OperationDefinitions: parameters read and written as they say (FHIR R4 §3.2).

They are those of the guide, and of the specification where it has defined the operation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_portal.fhir import json
from fhir_portal.fhir.definitions import core_operation, ig_resource, structures
from fhir_portal.fhir.errors import Invalid, NotSupported, Unprocessable
from fhir_portal.resources.validation import status_for, validate

_IN_A_QUERY: Final = frozenset(
    {
        *("Coding", "Reference", "boolean", "canonical", "code", "date", "dateTime", "id"),
        *("instant", "integer", "string", "uri"),
    }
)
"""What is written as text there. A Reference stands for what it names, as in a search."""

_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; ``most`` ``None`` has no end. Without a ``type`` it consists of ``parts``.

    ``type`` is a data type (``code``, ``Reference``), a resource type, or ``Resource`` for any.
    """

    name: str
    least: int
    most: int | None
    type: str | None
    parts: tuple[Parameter, ...]
    member: str = field(init=False)
    """Where the value stands in ``Parameters.parameter``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "member", _member(self.type))


@dataclass(frozen=True, slots=True)
class OperationDefinition:
    """What an operation is called on, takes and returns."""

    code: str
    url: str
    title: str
    types: tuple[str, ...]
    on_instance: bool
    on_type: bool
    on_system: bool
    affects_state: bool
    takes: tuple[Parameter, ...]
    returns: tuple[Parameter, ...]

    def is_at(self, resource_type: str | None, *, instance: bool) -> bool:
        """Whether the operation has this address."""
        if resource_type is None:
            return self.on_system
        return resource_type in self.types and (self.on_instance if instance else self.on_type)


class Arguments:
    """What an operation was given, by the names of its definition."""

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self._values = values

    def all(self, name: str) -> Sequence[Any]:
        """Return every value of a parameter: JSON values, resources, or `Arguments` for parts."""
        return self._values.get(name, ())

    def one(self, name: str) -> Any:
        """Return the first value of a parameter, or ``None``."""
        return next(iter(self.all(name)), None)


def _member(name: str | None) -> str:
    """Where a value of a type stands in ``Parameters.parameter``."""
    if name is None:
        return "part"
    if name == "Resource":
        return "resource"
    known = structures().get(name)
    if known is not None and "meta" in known:  # resources have it, data types do not
        return "resource"
    return f"value{name[0].upper()}{name[1:]}"


@functools.cache
def definition_of(code: str) -> OperationDefinition:
    """Return the definition of an operation: the specification's, or else the guide's.

    Raises `LookupError`.
    """
    tree = core_operation(code) or ig_resource("OperationDefinition", code)
    listed = [(one["use"], _parameter(one)) for one in tree.get("parameter", ())]
    return OperationDefinition(
        code=tree["code"],
        url=tree["url"],
        title=tree.get("title", tree["name"]),
        types=tuple(tree.get("resource", ())),
        on_instance=tree["instance"],
        on_type=tree["type"],
        on_system=tree["system"],
        affects_state=tree.get("affectsState", True),
        takes=tuple(one for use, one in listed if use == "in"),
        returns=tuple(one for use, one in listed if use == "out"),
    )


def posted(definition: OperationDefinition, body: bytes) -> Arguments:
    """Read the Parameters of a POST; an empty body stands for none.

    Raises:
        Invalid, Unprocessable: each names the element. Nothing that is not understood is ignored.
    """
    if not body:
        return _counted({}, definition.takes, "Parameters.parameter")
    tree = json.parse(body)
    if tree.get("resourceType") != "Parameters":
        message = "the body must hold Parameters"
        raise Invalid(message, expression="resourceType")
    if "implicitRules" in tree:
        message = "rules that change what the parameters mean are not followed here"
        raise Invalid(message, expression="Parameters.implicitRules")
    issues = [issue for issue in validate(tree, body) if issue.severity in {"error", "fatal"}]
    if issues:
        raise (Invalid if status_for(issues) == Invalid.status else Unprocessable)(issues=issues)
    return _read(tree.get("parameter", ()), definition.takes, "Parameters.parameter")


def queried(definition: OperationDefinition, query: Sequence[tuple[str, str]]) -> Arguments:
    """Read the parameters of a GET (FHIR R4 §3.2.0.1): simple ones only.

    Raises:
        Invalid, NotSupported: the same as `posted`.
    """
    known = {one.name: one for one in definition.takes}
    listed = []
    for name, text in query:
        parameter = known.get(name)
        if parameter is None or parameter.type not in _IN_A_QUERY:
            message = f"${definition.code} takes no such parameter in a query"
            raise NotSupported(message)
        value: Any = text
        if parameter.type == "boolean":
            value = {"true": True, "false": False}.get(text, text)
        elif parameter.type == "Coding":
            value = _coding(text)
        elif parameter.type == "Reference":
            value = {"reference": text}
        elif parameter.type == "integer":
            value = int(text) if _INTEGER.fullmatch(text) else text
        listed.append({"name": name, parameter.member: value})
    if not listed:
        return _counted({}, definition.takes, "Parameters.parameter")
    return posted(definition, json.dumps({"resourceType": "Parameters", "parameter": listed}))


def _coding(text: str) -> dict[str, str]:
    """Read a Coding as a search writes a token: ``system|code``, or the code alone."""
    system, bar, code = text.rpartition("|")
    return {"system": system, "code": code} if bar and system else {"code": code}


def parameter(name: str) -> str:
    """Return where a parameter stands, for an OperationOutcome."""
    return f"Parameters.parameter.where(name='{name}')"


def parameters(definition: OperationDefinition, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Parameters resource of an answer; values that are ``None`` are left out.

    A value is a JSON value, a mapping for parts, or a list of either.
    """
    tree: dict[str, Any] = {"resourceType": "Parameters"}
    written = _written(definition.returns, values)
    if written:
        tree["parameter"] = written
    return tree


def _parameter(one: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=one["name"],
        least=one["min"],
        most=None if one["max"] == "*" else int(one["max"]),
        type=one.get("type"),
        parts=tuple(_parameter(part) for part in one.get("part", ())),
    )


def _read(listed: Sequence[Mapping[str, Any]], known: Sequence[Parameter], place: str) -> Arguments:
    by_name = {one.name: one for one in known}
    found: dict[str, list[Any]] = {}
    for index, one in enumerate(listed):
        here = f"{place}[{index}]"
        parameter = by_name.get(one["name"])
        if parameter is None:
            message = "this operation takes no parameter of this name"
            raise Invalid(message, expression=f"{here}.name")
        given = set(one) - {"name", "id"}
        if given != {parameter.member}:
            message = f"this parameter has a {parameter.member}, and nothing else"
            raise Invalid(message, expression=here)
        value: Any = one[parameter.member]
        if parameter.type is None:
            value = _read(value, parameter.parts, f"{here}.part")
        elif parameter.member == "resource" and parameter.type not in {
            "Resource",
            value.get("resourceType"),
        }:
            message = f"this parameter holds a {parameter.type}"
            raise Invalid(message, expression=f"{here}.resource")
        found.setdefault(parameter.name, []).append(value)
    return _counted(found, known, place)


def _counted(
    found: Mapping[str, Sequence[Any]], known: Sequence[Parameter], place: str
) -> Arguments:
    for parameter in known:
        count = len(found.get(parameter.name, ()))
        if count < parameter.least:
            message = f"the parameter {parameter.name} is missing"
            raise Invalid(message, expression=place)
        if parameter.most is not None and count > parameter.most:
            message = f"the parameter {parameter.name} is there too often"
            raise Invalid(message, expression=place)
    return Arguments(found)


def _written(known: Sequence[Parameter], values: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    looked_at = 0
    for parameter in known:
        name, value = parameter.name, values.get(parameter.name)
        if value is None:
            looked_at += name in values
            listed = []
        else:
            looked_at += 1
            listed = value if isinstance(value, list) else [value]
        if len(listed) < parameter.least:
            raise LookupError(f"the definition asks for {name}")
        for one in listed:
            held = _written(parameter.parts, one) if parameter.type is None else one
            found.append({"name": name, parameter.member: held})
    if looked_at < len(values):
        unknown = set(values) - {one.name for one in known}
        raise LookupError(f"the definition returns no {', '.join(sorted(unknown))}")
    return found
