"""What a resource is found by: the values of every listed search parameter.

For each type the parameters' expressions are compiled once into one tree of member names, so that
an extraction visits the members a resource has, not the parameters it might have.
Source: FHIR R4 §3.1.1.4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_portal.search.conversion import NOT_CONVERTED, Convert, converter, is_reference_to
from fhir_portal.search.paths import (
    Member,
    Path,
    Step,
    UnsupportedPath,
    WhereEqual,
    WhereExtended,
    WhereRefersTo,
    paths_of,
)
from fhir_portal.search.registry import COLUMNS, SearchParameter, parameters_for


@dataclass(slots=True)
class IndexEntries:
    """The rows of one resource, each list sorted and without repetitions.

    A token ``("", "")`` stands for an element that is there but carries no code: it matches no
    token, yet the parameter is not missing. Elsewhere what leaves no row counts as missing:
    contained and ``urn:`` references, periods without start and end. Ranges are closed.
    """

    tokens: list[tuple[str, str, str]] = field(default_factory=list)
    """parameter, system or ``""``, folded code or ``""``"""
    strings: list[tuple[str, str, str]] = field(default_factory=list)
    """parameter, normalised text, text as it is"""
    references: list[tuple[str, str]] = field(default_factory=list)
    """parameter, ``Type/id`` or URL"""
    dates: list[tuple[str, int, int]] = field(default_factory=list)
    """parameter, low and high in microseconds since 1970 UTC"""
    numbers: list[tuple[str, str, str]] = field(default_factory=list)
    """parameter, low and high as ``number_key``"""
    quantities: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    """parameter, low and high as ``number_key``, system or ``""``, code or unit or ``""``"""
    uris: list[tuple[str, str]] = field(default_factory=list)
    """parameter, URI"""


def extract(resource_type: str, tree: Mapping[str, Any], *, base: str = "") -> IndexEntries:
    """All index entries of a resource.

    Args:
        resource_type: its type.
        tree: as ``fhir.json.parse`` read it.
        base: the server's own base address. References to URLs directly under it are stored as
            ``Type/id``, as §3.1.1.4.12 asks; empty where there is none.

    Raises:
        UnknownType: when the type is not served.
    """
    plan = _plan(resource_type, base)
    rows: dict[str, list[tuple[Any, ...]]] = {}
    _visit(tree, plan.root, rows)
    for code, names in plan.truths:
        there = any(name in tree and tree[name] is not False for name in names)
        rows.setdefault("token", []).append((code, "", "true" if there else "false"))
    entries = IndexEntries()
    for parameter_type, found in rows.items():
        setattr(entries, _LISTS[parameter_type], sorted(set(found)))
    return entries


_LISTS: Mapping[str, str] = {
    "token": "tokens",
    "string": "strings",
    "reference": "references",
    "date": "dates",
    "number": "numbers",
    "quantity": "quantities",
    "uri": "uris",
}


@dataclass(slots=True)
class _Node:
    """What to do with the elements at one place, and where to go from there."""

    members: dict[str, _Node] = field(default_factory=dict)
    filters: dict[Step, tuple[Callable[[Any], bool], _Node]] = field(default_factory=dict)
    emits: dict[tuple[str, Convert], list[str]] = field(default_factory=dict)
    work: list[tuple[str, Convert, list[str]]] = field(default_factory=list)
    """``emits`` as it is walked: search type, converter, and the codes that share its rows."""


@dataclass(frozen=True, slots=True)
class _Plan:
    root: _Node
    truths: tuple[tuple[str, tuple[str, ...]], ...]
    """Parameters whose value is whether any of these members is there and not ``false``."""


def _visit(value: Any, node: _Node, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    for parameter_type, convert, codes in node.work:
        found = convert(value)
        if found:
            into = rows.get(parameter_type)
            if into is None:
                into = rows[parameter_type] = []
            for code in codes:
                for row in found:
                    into.append((code, *row))
    for keep, below in node.filters.values():
        if keep(value):
            _visit(value, below, rows)
    members = node.members
    if members and value.__class__ is dict:
        for name, item in value.items():
            if name in members and item is not None:
                below = members[name]
                if item.__class__ is list:
                    for each in item:
                        if each is not None:
                            _visit(each, below, rows)
                else:
                    _visit(item, below, rows)


@functools.cache
def _plan(resource_type: str, base: str) -> _Plan:
    root = _Node()
    truths: list[tuple[str, tuple[str, ...]]] = []
    for code, parameter in parameters_for(resource_type).items():
        if code in COLUMNS:
            continue
        names: list[str] = []
        for path in extracted_paths(parameter):
            if path.truth:
                names.append(_only_member(path))
                continue
            convert = converter(parameter.type, path, base=base)
            if convert is not None:
                node = _node_at(root, path)
                codes = node.emits.setdefault((parameter.type, convert), [])
                if code not in codes:
                    codes.append(code)
        if names:
            truths.append((code, tuple(names)))
    _finish(root)
    return _Plan(root, tuple(truths))


def extracted_paths(parameter: SearchParameter) -> tuple[Path, ...]:
    """Where a parameter's values are found; places that leave no rows are left out.

    Raises:
        UnsupportedPath: when none is left, or a place is neither converted nor in
            ``NOT_CONVERTED``. Such a parameter must not be listed.
    """
    found: list[Path] = []
    for path in paths_of(parameter.resource_type, parameter.expression):
        if path.truth or converter(parameter.type, path, base="") is not None:
            found.append(path)
        elif (parameter.type, path.type) not in NOT_CONVERTED:
            raise UnsupportedPath(f"{parameter.code}: a {path.type} is no {parameter.type}")
    if not found:
        raise UnsupportedPath(f"{parameter.code}: nothing there can be indexed")
    return tuple(found)


def _only_member(path: Path) -> str:
    match path.steps:
        case (Member(name),):
            return name
    raise UnsupportedPath("exists() is only read on an element of the resource itself")


def _node_at(root: _Node, path: Path) -> _Node:
    node = root
    for step in path.steps:
        if isinstance(step, Member):
            node = node.members.setdefault(step.name, _Node())
        else:
            _, node = node.filters.setdefault(step, (_test(step), _Node()))
    return node


def _test(step: Step) -> Callable[[Any], bool]:
    match step:
        case WhereEqual(name, text):
            return lambda value: value.__class__ is dict and value.get(name) == text
        case WhereExtended(url):
            return lambda value: (
                value.__class__ is dict
                and any(extension.get("url") == url for extension in value.get("extension") or ())
            )
        case WhereRefersTo(resource_type):
            return is_reference_to(resource_type)
    raise UnsupportedPath("not a condition")


def _finish(node: _Node) -> None:
    node.work = [(type_, convert, codes) for (type_, convert), codes in node.emits.items()]
    for below in node.members.values():
        _finish(below)
    for _, below in node.filters.values():
        _finish(below)
