"""The FHIRPath that R4 search parameters are written in, resolved against the structures.

Of FHIRPath only what occurs in search expressions is read: member paths, ``where(x = 'y')``,
``where(resolve() is T)``, ``where(hasExtension('url'))``, ``ofType(T)``, ``as(T)``, ``(X as T)``,
``extension('url')``, indexes, unions, parentheses, and the one boolean form
``X.exists() and X != false``. Source: FHIR R4 §3.1.1, SearchParameter.expression; FHIRPath N1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fhir_portal.fhir.definitions import Element, structures


class UnsupportedPath(ValueError):
    """An expression, or a part of it, that is not read here."""


@dataclass(frozen=True, slots=True)
class Member:
    """Go to the elements under this JSON name."""

    name: str


@dataclass(frozen=True, slots=True)
class WhereEqual:
    """Keep elements whose member holds exactly this text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class WhereRefersTo:
    """Keep references to this type of resource."""

    resource_type: str


@dataclass(frozen=True, slots=True)
class WhereExtended:
    """Keep elements that have an extension with this URL."""

    url: str


Step = Member | WhereEqual | WhereRefersTo | WhereExtended


@dataclass(frozen=True, slots=True)
class Path:
    """Where values are, and of what FHIR type they are.

    ``steps`` start below the resource. ``type`` is a primitive, a data type, a backbone path or
    ``Resource``; ``binding`` the required value set of a ``code``. With ``truth`` the parameter's
    value is not the element but whether one is there that is not ``false``.
    """

    steps: tuple[Step, ...]
    type: str
    binding: str | None = None
    choice: str | None = None
    truth: bool = False


_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)|'([^'\\]*)'|([0-9]+)|(!=|[.()|=\[\]]))")

_PARENTS: Mapping[str, str] = {
    **dict.fromkeys(("canonical", "url", "uuid", "oid"), "uri"),
    **dict.fromkeys(("code", "id", "markdown"), "string"),
    **dict.fromkeys(("positiveInt", "unsignedInt"), "integer"),
    **dict.fromkeys(("Age", "Count", "Distance", "Duration"), "Quantity"),
}


def paths_of(resource_type: str, expression: str) -> tuple[Path, ...]:
    """All places an expression leads to in a resource of this type, in the expression's order.

    Raises:
        UnsupportedPath: when it uses something else, or names an element R4 does not have.
    """
    reader = _Reader(resource_type, _tokens(expression))
    found = reader.read()
    return tuple(dict.fromkeys(found))


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(expression.rstrip()):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise UnsupportedPath(f"cannot read {expression[at:]!r}")
        name, text, digits, sign = match.groups()
        if name is not None:
            tokens.append(("name", name))
        elif text is not None:
            tokens.append(("text", text))
        elif digits is not None:
            tokens.append(("number", digits))
        else:
            tokens.append(("sign", sign))
        at = match.end()
    return tokens


class _Reader:
    """Recursive descent over the tokens; each rule returns the paths it leads to."""

    def __init__(self, resource_type: str, tokens: list[tuple[str, str]]) -> None:
        self._resource_type = resource_type
        self._tokens = tokens
        self._at = 0

    def read(self) -> list[Path]:
        paths = self._union()
        if self._take("name", "and"):
            paths = self._truth(paths)
        elif any(path.truth for path in paths):
            raise UnsupportedPath("exists() is only read in X.exists() and X != false")
        if self._at < len(self._tokens):
            raise UnsupportedPath(f"cannot read {self._tokens[self._at][1]!r} here")
        return paths

    def _truth(self, asserted: list[Path]) -> list[Path]:
        """``X.exists() and X != false``, the whole of it: the same X twice."""
        same = self._term()
        self._expect("sign", "!=")
        self._expect("name", "false")
        if asserted != [replace(path, truth=True) for path in same]:
            raise UnsupportedPath("only the form X.exists() and X != false is read")
        return asserted

    def _union(self) -> list[Path]:
        paths = self._term()
        while self._take("sign", "|"):
            paths += self._term()
        return paths

    def _term(self) -> list[Path]:
        if self._take("sign", "("):
            paths = self._union()
            if self._take("name", "as"):
                paths = _of_type(paths, self._expect("name"))
            self._expect("sign", ")")
        else:
            root = self._expect("name")
            if root not in (self._resource_type, "Resource", "DomainResource"):
                raise UnsupportedPath(f"{root} is not {self._resource_type}")
            paths = [Path((), self._resource_type)]
        while True:
            if self._take("sign", "."):
                paths = self._invocation(paths, self._expect("name"))
            elif self._take("sign", "["):
                raise UnsupportedPath("an index picks one of several values by its place")
            else:
                return paths

    def _invocation(self, paths: list[Path], name: str) -> list[Path]:
        if not self._take("sign", "("):
            return _member(paths, name)
        if name in ("ofType", "as"):
            paths = _of_type(paths, self._expect("name"))
        elif name == "extension":
            where = WhereEqual("url", self._expect("text"))
            paths = [_then(path, where) for path in _member(paths, "extension")]
        elif name == "exists":
            paths = [replace(path, truth=True) for path in paths]
        elif name == "where":
            where_ = self._condition()
            paths = [_then(path, where_) for path in paths]
        else:
            raise UnsupportedPath(f"{name}() is not read")
        self._expect("sign", ")")
        return paths

    def _condition(self) -> Step:
        name = self._expect("name")
        if name == "resolve":
            self._expect("sign", "(")
            self._expect("sign", ")")
            self._expect("name", "is")
            return WhereRefersTo(self._expect("name"))
        if name == "hasExtension":
            self._expect("sign", "(")
            url = self._expect("text")
            self._expect("sign", ")")
            return WhereExtended(url)
        self._expect("sign", "=")
        return WhereEqual(name, self._expect("text"))

    def _take(self, kind: str, text: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == (kind, text):
            self._at += 1
            return True
        return False

    def _expect(self, kind: str, text: str | None = None) -> str:
        if self._at >= len(self._tokens):
            raise UnsupportedPath("the expression ends too early")
        found, value = self._tokens[self._at]
        if found != kind or text not in (None, value):
            raise UnsupportedPath(f"expected {text or kind}, not {value!r}")
        self._at += 1
        return value


def _member(paths: list[Path], name: str) -> list[Path]:
    """One step down; a choice (``value``) leads to all of its elements (``valueQuantity``, …)."""
    found: list[Path] = []
    for path in paths:
        elements = structures().get(path.type, {})
        named = {
            json_name: element
            for json_name, element in elements.items()
            if name in (json_name, element.choice)
        }
        found += [_below(path, json_name, element) for json_name, element in named.items()]
    if not found:
        known = ", ".join(sorted({path.type for path in paths}))
        raise UnsupportedPath(f"{known} has no element {name}")
    return found


def _below(path: Path, name: str, element: Element) -> Path:
    steps = (*path.steps, Member(name))
    return Path(steps, element.type, binding=element.binding, choice=element.choice)


def _then(path: Path, step: Step) -> Path:
    return replace(path, steps=(*path.steps, step))


def _of_type(paths: list[Path], wanted: str) -> list[Path]:
    found = [path for path in paths if _is(path.type, wanted)]
    if not found:
        raise UnsupportedPath(f"no value here is a {wanted}")
    return found


def _is(type_: str, wanted: str) -> bool:
    """A type is itself and what it specialises (FHIR R4 §2.24): an Age is a Quantity."""
    return type_ == wanted or _PARENTS.get(type_) == wanted
