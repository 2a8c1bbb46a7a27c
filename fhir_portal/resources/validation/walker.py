"""One pass over a resource with the element tables, for what ``fhir.resources`` lets through.

The tables are compiled to look-ups on the first use of each type. Source: FHIR R4 §2.6.2 (JSON),
§2.24 (data types), §2.3 (references), §2.20 (DomainResource), §4.1.5 (bindings).
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fhir_portal.fhir.definitions import Element, all_types, served_types, structures, value_set
from fhir_portal.fhir.errors import Invalid, Issue
from fhir_portal.fhir.reference import Reference
from fhir_portal.resources.narrative import fault_in
from fhir_portal.resources.validation.invariants import Invariant, invariants_of
from fhir_portal.resources.validation.primitives import PRIMITIVES, Primitive

MAX_ISSUES = 50
"""A walk ends after so many faults: the answer is for people, not a log."""

_Node = dict[str, Any]
_Path = tuple[Any, str, int]  # the path above or None, one FHIRPath step, an index or _SINGLE
_SINGLE = -1

_VALUE, _VALUES, _OBJECT, _OBJECTS, _RESOURCE, _RESOURCES = range(6)  # each kind, then its list

_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def walk(tree: _Node) -> list[Issue]:
    """All faults of a resource of a known type, up to ``MAX_ISSUES``; none when it is sound."""
    issues: list[Issue] = []
    resource_type: str = tree["resourceType"]
    with contextlib.suppress(_EnoughError):
        _Walk(issues, tree, in_transaction=False).resource(tree, (None, resource_type, _SINGLE))
    return issues


class _EnoughError(Exception):
    """So much is wrong that more words would not help."""


class _Field:
    """One element, ready to be checked."""

    __slots__ = (
        "also", "choice", "codes", "holds", "json_types", "kind", "name", "primitive", "shape",
        "shown", "systems", "targets",
    )  # fmt: skip

    def __init__(self, name: str, element: Element) -> None:
        self.name = name
        self.choice = element.choice
        self.shown = element.choice or name
        self.targets = frozenset(element.targets)
        self.systems = value_set(element.binding) if element.binding else None
        self.codes = frozenset[str]().union(*self.systems.values()) if self.systems else None
        self.primitive = _PRIMITIVES.get(element.type)
        self.json_types: tuple[type, ...] = ()
        self.holds: Callable[[Any], object] = bool
        self.shape: _Shape = _NO_SHAPE
        self.also: _Also | None = None
        if self.primitive is not None:
            self.kind = _VALUE
            self.json_types = self.primitive.json_types
            self.holds = self.codes.__contains__ if self.codes else self.primitive.holds
        elif element.type == "Resource":
            self.kind = _RESOURCE
        else:
            self.kind = _OBJECT
            self.shape = _shape(element.type)
            if element.type == "Reference":
                self.also = _Walk.reference
            elif self.systems is not None and element.type == "CodeableConcept":
                self.also = _Walk.concept
        self.kind += element.is_list


class _Required(NamedTuple):
    names: frozenset[str]
    shown: str


class _Shape:
    """A resource type, data type or backbone element, compiled when it is first met."""

    __slots__ = ("_elements", "_fields", "invariants", "is_resource", "name", "required")

    def __init__(self, name: str, elements: Mapping[str, Element], *, is_resource: bool) -> None:
        self.name = name
        self.is_resource = is_resource
        self.invariants: tuple[Invariant, ...] = ()
        self.required: tuple[_Required, ...] = ()
        self._elements = elements
        self._fields: dict[str, _Field] | None = None

    @property
    def fields(self) -> Mapping[str, _Field]:
        if self._fields is None:
            needed: dict[str, set[str]] = {}
            for name, one in self._elements.items():
                if one.min:
                    needed.setdefault(one.choice or name, set()).update((name, f"_{name}"))
            self.required = tuple(_Required(frozenset(of), shown) for shown, of in needed.items())
            if self._elements is not _ELEMENT:
                self.invariants = invariants_of(self.name)
            # last: another thread that sees the fields must find the rest in place
            self._fields = {name: _Field(name, one) for name, one in self._elements.items()}
        return self._fields


_PRIMITIVES: Mapping[str, Primitive] = {
    **PRIMITIVES,
    "xhtml": Primitive((str,), lambda div: fault_in(div) is None, "safe XHTML"),
}
_ELEMENT = {"id": Element("string"), "extension": Element("Extension", is_list=True)}
_NO_SHAPE = _Shape("", {}, is_resource=False)
_PRIMITIVE_EXTENSION = _Shape("Element", _ELEMENT, is_resource=False)


@functools.cache
def _shape(name: str) -> _Shape:
    return _Shape(name, structures()[name], is_resource=name in all_types())


class _Walk:
    """The state of a walk through one resource and what it contains."""

    def __init__(self, issues: list[Issue], root: _Node, *, in_transaction: bool) -> None:
        self.issues = issues
        self.root = root
        self.in_transaction = in_transaction
        self.contained: dict[str, str] = {}
        self.referred: set[str] = set()  # contained ids that some Reference names
        self.referring: set[str] = set()  # contained ids that refer to the container
        self.inside: str | None = None  # id of the contained resource being walked

    def fault(self, code: str, words: str, path: _Path) -> None:
        self.issues.append(Issue(code, words, _written(path)))
        if len(self.issues) >= MAX_ISSUES:
            raise _EnoughError

    # ---- objects

    def resource(self, tree: _Node, path: _Path) -> None:
        shape = _shape(tree["resourceType"])
        inner = tree.get("contained")
        if inner:
            self._note_contained(inner, path)
        so_far = len(self.issues)
        self.object(tree, shape, path)
        if self.contained and len(self.issues) == so_far:
            self._contained_are_referred_to(path)

    def object(
        self, node: _Node, shape: _Shape, path: _Path, element: _Field | None = None
    ) -> None:
        """Check an object; rules are asked about it only when its form is sound."""
        if not node:
            self.fault("structure", "An object may not be empty.", path)
            return
        so_far = len(self.issues)
        chosen: dict[str, str] | None = None
        fields = shape.fields
        for name, value in node.items():
            field = fields.get(name)
            if field is not None:
                kind = field.kind
                if kind == _VALUE:
                    if value.__class__ not in field.json_types or not field.holds(value):
                        self._refuse_value(value, field, (path, field.shown, _SINGLE))
                elif kind == _OBJECT:
                    below = (path, field.shown, _SINGLE)
                    if value.__class__ is dict:
                        self.object(value, field.shape, below, field)
                    else:
                        self.fault("structure", "This element must be an object.", below)
                elif kind == _OBJECTS:
                    for below, item in self._items(value, field, path):
                        self.object(item, field.shape, below, field)
                elif kind == _VALUES:
                    self._values(value, node.get(f"_{name}"), field, path)
                elif kind == _RESOURCES:
                    for below, item in self._items(value, field, path):
                        self._nested(item, name, below)
                else:
                    self._nested(value, name, (path, field.shown, _SINGLE))
            elif name == "resourceType" and shape.is_resource:
                continue
            else:
                field = self._extended(name, value, node, fields, path)
                if field is None:
                    continue
            if field.choice is not None:
                if chosen is None:
                    chosen = {}
                if chosen.setdefault(field.choice, field.name) != field.name:
                    words = "Only one type of a choice may be given."
                    self.fault("structure", words, (path, field.shown, _SINGLE))
        for names, shown in shape.required:
            if node.keys().isdisjoint(names):
                words = "A required element is missing."
                self.fault("required", words, (path, shown, _SINGLE))
        if len(node) == 1 and "id" in node and shape is not _PRIMITIVE_EXTENSION:
            self.fault("structure", "An element needs more than an id.", path)
        if len(self.issues) == so_far:
            for key, words, holds in shape.invariants:
                if not holds(node):
                    self.fault("invariant", f"{words} ({key})", path)
            if element is not None and element.also is not None:
                element.also(self, node, element, path)

    def _items(self, value: Any, field: _Field, path: _Path) -> Iterator[tuple[_Path, _Node]]:
        """The objects of an array; says so where they are something else."""
        if not self._is_filled_array(value, (path, field.shown, _SINGLE)):
            return
        for index, item in enumerate(value):
            below = (path, field.shown, index)
            if item.__class__ is dict:
                yield below, item
            else:
                self.fault("structure", "This element must be an object.", below)

    def _is_filled_array(self, value: Any, path: _Path) -> bool:
        if value.__class__ is not list:
            self.fault("structure", "This element repeats: it must be an array.", path)
        elif not value:
            self.fault("structure", "An array may not be empty.", path)
        else:
            return True
        return False

    # ---- primitive values and their extensions

    def _values(self, values: Any, extensions: Any, field: _Field, path: _Path) -> None:
        if not self._is_filled_array(values, (path, field.shown, _SINGLE)):
            return
        for index, value in enumerate(values):
            if value is None:
                if not _is_filled(extensions, index):
                    words = "null may only stand where the other array has extensions."
                    self.fault("structure", words, (path, field.shown, index))
            elif value.__class__ not in field.json_types or not field.holds(value):
                self._refuse_value(value, field, (path, field.shown, index))

    def _refuse_value(self, value: Any, field: _Field, path: _Path) -> None:
        """Say why a primitive value is refused, without quoting it."""
        primitive = field.primitive
        assert primitive is not None, "only values get here"  # noqa: S101 - for the type checker
        if value.__class__ in primitive.json_types:
            if field.codes is not None and primitive.holds(value):
                words = "The code is not in the value set that is required here."
                self.fault("code-invalid", words, path)
                return
            if primitive is _PRIMITIVES["xhtml"]:
                self.fault("invariant", f"{fault_in(str(value))} (txt-1, txt-2)", path)
                return
        elif value.__class__ is list:
            self.fault("structure", "This element does not repeat: no array here.", path)
            return
        self.fault("value", f"Must be {primitive.words}.", path)

    def _extended(
        self, name: str, value: Any, node: _Node, fields: Mapping[str, _Field], path: _Path
    ) -> _Field | None:
        """Check a ``_name`` member; returns the field it extends, None for an unknown member."""
        field = fields.get(name[1:]) if name.startswith("_") else None
        if field is None or field.kind > _VALUES:
            shown = name if _SAFE_NAME.fullmatch(name) else None
            below = (path, shown, _SINGLE) if shown else path
            self.fault("structure", "No such element here.", below)
        elif field.kind == _VALUE:
            self._extension_of(value, (path, field.shown, _SINGLE), alone=name[1:] not in node)
        elif self._is_filled_array(value, (path, field.shown, _SINGLE)):
            values = node.get(name[1:])
            if values.__class__ is list and len(values) != len(value):
                words = "The arrays of values and of their extensions differ in length."
                self.fault("structure", words, (path, field.shown, _SINGLE))
            for index, item in enumerate(value):
                below = (path, field.shown, index)
                alone = not _is_filled(values, index)
                if item is not None:
                    self._extension_of(item, below, alone=alone)
                elif alone:
                    words = "null may only stand where the other array has a value."
                    self.fault("structure", words, below)
        return field

    def _extension_of(self, value: Any, path: _Path, *, alone: bool) -> None:
        """What ``_name`` holds: an id beside a value, extensions beside it or instead of it."""
        if value.__class__ is not dict:
            self.fault("structure", "The extensions of a value must be an object.", path)
            return
        self.object(value, _PRIMITIVE_EXTENSION, path)
        if alone and value.keys() == {"id"}:
            self.fault("structure", "An element needs more than an id.", path)

    # ---- references

    def reference(self, node: _Node, field: _Field, path: _Path) -> None:
        """Form of the reference, and whether its target's type is one the element allows."""
        text = node.get("reference")
        target = None
        if text is not None:
            try:
                target = self._target(Reference.parse(text), path)
            except Invalid as refusal:
                self.fault("value", str(refusal), (path, "reference", _SINGLE))
                return
        declared = node.get("type")
        if declared is not None and ":" not in declared:
            if declared not in all_types():
                words = "This is not the name of a resource type."
                self.fault("value", words, (path, "type", _SINGLE))
            elif target is not None and target != declared:
                words = "The type given is not the type of the resource referred to."
                self.fault("invariant", words, (path, "type", _SINGLE))
            target = target or declared
        if target is not None and field.targets and target not in field.targets:
            words = f"May refer to {', '.join(sorted(field.targets))}, but not to this type."
            self.fault("invariant", words, path)

    def _target(self, reference: Reference, path: _Path) -> str | None:
        """The type referred to, None when the text does not tell."""
        place = (path, "reference", _SINGLE)
        if reference.contained is not None:
            return self._contained_target(reference.contained, place)
        if reference.query is not None and not self.in_transaction:
            words = "A conditional reference may only stand in a transaction."
            self.fault("value", words, place)
        if reference.type in all_types():
            return reference.type
        if reference.url is None:
            self.fault("value", "A reference must name a resource type of FHIR R4.", place)
        return None

    def _contained_target(self, fragment: str, place: _Path) -> str | None:
        if not fragment:
            if self.inside is not None:
                self.referring.add(self.inside)
            own: str = self.root["resourceType"]
            return own
        self.referred.add(fragment)
        if fragment not in self.contained:
            self.fault("invariant", "There is no contained resource with this id. (ref-1)", place)
        return self.contained.get(fragment)

    # ---- resources within resources

    def _nested(self, node: Any, member: str, path: _Path) -> None:
        """A contained resource, or the resource of an entry or parameter."""
        if node.__class__ is not dict:
            self.fault("structure", "This element must be an object.", path)
            return
        resource_type = node.get("resourceType")
        if resource_type.__class__ is not str or resource_type not in all_types():
            self.fault("structure", "resourceType must name a resource type of FHIR R4.", path)
        elif resource_type not in served_types():
            self.fault("not-supported", "This resource type is not supported here.", path)
        elif member == "contained":
            self._in_container(node, path)
        else:
            in_transaction = self.in_transaction or (
                self.root["resourceType"] == "Bundle" and self.root.get("type") == "transaction"
            )
            walk_inside = _Walk(self.issues, node, in_transaction=in_transaction)
            walk_inside.resource(node, path)

    def _in_container(self, node: _Node, path: _Path) -> None:
        if self.inside is not None:
            self.fault("invariant", "A contained resource may contain no other. (dom-2)", path)
            return
        own_id = node.get("id")
        self.inside = own_id if own_id.__class__ is str else ""
        self.object(node, _shape(node["resourceType"]), path)
        self.inside = None
        meta = node.get("meta")
        if meta.__class__ is dict:
            if not meta.keys().isdisjoint({"versionId", "lastUpdated"}):
                words = "A contained resource has no version of its own. (dom-4)"
                self.fault("invariant", words, (path, "meta", _SINGLE))
            if "security" in meta:
                words = "A contained resource has no security label of its own. (dom-5)"
                self.fault("invariant", words, (path, "meta", _SINGLE))

    def _note_contained(self, inner: Any, path: _Path) -> None:
        """Ids and types of what is contained, before any reference to it is met."""
        if inner.__class__ is not list:
            return
        for index, node in enumerate(inner):
            if node.__class__ is not dict or node.get("resourceType").__class__ is not str:
                continue
            place = (path, "contained", index)
            own_id = node.get("id")
            if own_id.__class__ is not str:
                self.fault("required", "A contained resource needs an id.", (place, "id", _SINGLE))
            elif own_id in self.contained:
                words = "Another contained resource has this id."
                self.fault("invariant", words, (place, "id", _SINGLE))
            else:
                self.contained[own_id] = node["resourceType"]

    def _contained_are_referred_to(self, path: _Path) -> None:
        unclaimed = self.contained.keys() - self.referred - self.referring
        if unclaimed:
            unclaimed -= {text[1:] for text in _strings(self.root) if text[:1] == "#"}
        for index, node in enumerate(self.root["contained"] if unclaimed else ()):
            if node.__class__ is dict and node.get("id") in unclaimed:
                words = "Nothing refers to this contained resource. (dom-3)"
                self.fault("invariant", words, (path, "contained", index))

    # ---- codes

    def concept(self, node: _Node, field: _Field, path: _Path) -> None:
        """One of the codings must be from the value set; an extension may say why there is none."""
        codings = node.get("coding")
        if codings is None and "extension" in node:
            return
        systems = field.systems or {}
        if any(one.get("code") in systems.get(one.get("system"), ()) for one in codings or ()):
            return
        words = "None of the codings is in the value set that is required here."
        self.fault("code-invalid", words, path)


_Also = Callable[[_Walk, _Node, _Field, _Path], None]


def _is_filled(array: Any, index: int) -> bool:
    """The other array of a pair has something at this place."""
    return array.__class__ is list and index < len(array) and array[index] is not None


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)


def _written(path: _Path | None) -> str:
    steps: list[str] = []
    while path is not None:
        path, step, index = path
        steps.append(step if index == _SINGLE else f"{step}[{index}]")
    return ".".join(reversed(steps))
