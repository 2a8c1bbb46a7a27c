"""FHIRPath in forms: initial and calculated values, conditions, what is taken out of answers.

Expressions come from a practice's Questionnaires. They are evaluated by ``fhirpathpy`` with the
functions listed here and no others: none of them follows a link or writes anywhere. Each call of a
function or operator is counted against the time that all expressions of a form have (`Effort`), and
makes nothing larger than what is said here: a short expression can ask for more than any machine
has. Source: FHIRPath N1 (http://hl7.org/fhirpath), SDC 3.0 (expressions).
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

import msgspec
from antlr4 import CommonTokenStream, InputStream, Token
from fhirpathpy.engine import do_eval
from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.engine.util import arraify, get_data
from fhirpathpy.models import models
from fhirpathpy.parser import parse
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable

LONGEST: Final = 2000
"""Signs of an expression."""

FUNCTIONS: Final = frozenset(
    """
    abs all allFalse allTrue anyFalse anyTrue as ceiling children combine contains convertsToBoolean
    convertsToDate convertsToDateTime convertsToDecimal convertsToInteger convertsToString count
    distinct empty endsWith exclude exists extension first floor hasValue iif indexOf intersect is
    isDistinct join last length lower not now ofType power replace round select single skip split
    sqrt startsWith subsetOf substring sum supersetOf tail take toBoolean toDate toDateTime
    toDecimal toInteger toQuantity toString today trim truncate union upper where
    """.split()
)
"""What an expression may call. Left out: ``repeat``, ``aggregate`` and ``descendants`` (no end),
``matches`` and ``replaceMatches`` (patterns that take ages), ``resolve``, ``trace``."""

_OPERATORS: Final = frozenset(
    """
    | = != ~ !~ < > <= >= containsOp inOp isOp asOp & + - * / mod div or and xor implies
    """.split()
)
_SECONDS: Final = 2.0
_MOST_SIGNS: Final = 100_000
_MOST_NODES: Final = 20_000
_MOST_MADE: Final = 20_000_000
"""Signs and nodes that all expressions of a form may make, together."""
_MOST_BITS: Final = 1000
_LONGEST_NUMBER: Final = 40
"""Digits of a number that is written out."""


class ExpressionFault(Exception):
    """An expression that is not FHIRPath, calls what is not offered, or fails on what it is given.

    The words hold nothing of the data.
    """


class TooCostly(Unprocessable):
    """The expressions of a form take longer, or make more, than they may on these answers."""

    code: ClassVar[str] = "too-costly"


class Effort:
    """How long the expressions of a form may take together, on one set of answers.

    It is the processor's time, so that it does not depend on what else the machine does.
    """

    __slots__ = ("_left", "_until")

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._until = time.thread_time() + seconds
        self._left = _MOST_MADE

    def spend(self, made: int = 0) -> None:
        """Raise `TooCostly` when the time is over, or too much was made."""
        self._left -= made
        if self._left < 0 or time.thread_time() > self._until:
            message = "the expressions of the form take too long on these answers"
            raise TooCostly(message, expression="Questionnaire")


@dataclass(frozen=True, slots=True)
class Expression:
    """One compiled expression."""

    text: str
    tree: Mapping[str, Any]

    def __call__(
        self, node: Any, variables: Mapping[str, Any], *, now: float, effort: Effort | None = None
    ) -> list[Any]:
        """Evaluate it on a node (``%context``) at a time, in seconds since 1970 UTC.

        Variables are plain JSON (`plain`). Returns JSON values, dates as text. Raises
        `ExpressionFault`, `TooCostly`.
        """
        effort = effort or Effort()
        root = _listed(_typed(node))
        context = {
            "dataRoot": root,
            "vars": {"ucum": "http://unitsofmeasure.org", **variables, "context": node},
            "model": models["r4"],
            "userInvocationTable": _TABLE,
            "effort": effort,
            "now": datetime.fromtimestamp(now, UTC),
        }
        try:
            found = do_eval(context, root, self.tree)  # type: ignore[no-untyped-call]
            return list(_values(found, effort))
        except TooCostly:
            raise
        except Exception as error:  # noqa: BLE001 - it raises whatever the data make it raise
            message = f"the expression cannot be evaluated here: {type(error).__name__}"
            raise ExpressionFault(message) from None


@functools.lru_cache(maxsize=2000)
def compiled(text: str) -> Expression:
    """Return an expression ready to be evaluated. Raises `ExpressionFault`."""
    if len(text) > LONGEST:
        message = f"an expression has at most {LONGEST} signs"
        raise ExpressionFault(message)
    try:
        _require_syntax(text)
        tree = parse(text)  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001 - the parser has no class of its own for what it refuses
        message = "the expression is not FHIRPath"
        raise ExpressionFault(message) from None
    for name in _called(tree):
        if name not in FUNCTIONS:
            message = f"expressions may not call {name[:40]}() here"
            raise ExpressionFault(message)
    return Expression(text, tree["children"][0])


def plain(tree: Any) -> Any:
    """Return a copy of a resource in which numbers are Decimals, for expressions and schemas."""
    if isinstance(tree, Mapping):
        return {name: plain(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    return json.decimal(tree) if isinstance(tree, msgspec.Raw) else tree


def sent(tree: Any) -> Any:
    """Return a copy of what `plain` made, as it is written (`fhir_portal.fhir.json.dumps`)."""
    if isinstance(tree, Mapping):
        return {name: sent(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [sent(value) for value in tree]
    if isinstance(tree, Decimal | float):
        return number(Decimal(str(tree)))
    return tree


def number(value: Decimal) -> msgspec.Raw | int:
    """Return a Decimal as a number of FHIR JSON; one of very many digits with its exponent."""
    if not -_LONGEST_NUMBER < value.adjusted() < _LONGEST_NUMBER:
        return msgspec.Raw(str(value).encode())
    text = format(value, "f")
    return msgspec.Raw(text.encode()) if "." in text else int(text)


def _as_date(context: Mapping[str, Any], _: Any) -> list[str]:
    return [context["now"].date().isoformat()]


def _as_instant(context: Mapping[str, Any], _: Any) -> list[str]:
    return [context["now"].isoformat(timespec="milliseconds")]


def _bounded(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of fhirpathpy that spends effort, and makes nothing too large."""

    @functools.wraps(run)
    def bounded(context: Mapping[str, Any], *given: Any) -> Any:
        if name in {"replace", "join"}:
            _require_room(given)
        found = run(context, *given)
        _require_size(found)
        value = _bare(found)
        context["effort"].spend(len(value) if isinstance(value, str | list) else 1)
        return found

    return bounded


def _require_room(given: tuple[Any, ...]) -> None:
    """Refuse texts that are put together of many before they are: each is within its bounds."""
    data, *texts = given
    signs = max([len(one) for one in texts if isinstance(one, str)], default=0)
    places = sum(len(str(_bare(one))) + 1 for one in _listed(data))
    if signs * places > _MOST_SIGNS:
        raise _too_much()


def _require_size(found: Any) -> None:
    value = _bare(found)
    if isinstance(value, list):
        is_large = len(value) > _MOST_NODES
    elif isinstance(value, str):
        is_large = len(value) > _MOST_SIGNS
    elif isinstance(value, Decimal):
        is_large = bool(value) and abs(value.adjusted()) > _MOST_BITS
    else:
        is_large = isinstance(value, int) and value.bit_length() > _MOST_BITS
    if is_large:
        raise _too_much()


def _too_much() -> TooCostly:
    message = "an expression of the form makes too much of these answers"
    return TooCostly(message, expression="Questionnaire")


_OWN: Final[Mapping[str, dict[str, Any]]] = {
    # fhirpathpy's own look at the machine's clock.
    "today": {"fn": _as_date, "arity": {0: []}},
    "now": {"fn": _as_instant, "arity": {0: []}},
}
_KNOWN: Final[dict[str, Any]] = {**invocation_registry, **_OWN}
_TABLE: Final = {
    name: {**_KNOWN[name], "fn": _bounded(name, _KNOWN[name]["fn"])}
    for name in sorted((FUNCTIONS | _OPERATORS) & _KNOWN.keys())
}


def _bare(value: Any) -> Any:
    return get_data(value)  # type: ignore[no-untyped-call]


def _listed(value: Any) -> list[Any]:
    return arraify(value)  # type: ignore[no-untyped-call, no-any-return]


def _values(found: Any, effort: Effort) -> Iterator[Any]:
    for one in _listed(found):
        effort.spend()
        value = _json(_bare(one))
        # So fhirpathpy keeps the extensions of a primitive: they are no value of it.
        if not (isinstance(value, dict) and list(value) == ["extension"]):
            yield value


def _require_syntax(text: str) -> None:
    """Raise `ValueError` for what is not one whole expression.

    ``fhirpathpy.parse`` makes something of anything, as the parser behind it recovers in silence.
    """
    lexer = FHIRPathLexer(InputStream(text))
    lexer.removeErrorListeners()
    parser = FHIRPathParser(CommonTokenStream(lexer))
    parser.removeErrorListeners()
    parser.expression()
    if parser.getNumberOfSyntaxErrors() or parser.getCurrentToken().type != Token.EOF:
        message = "not an expression"
        raise ValueError(message)


def _called(node: Mapping[str, Any]) -> Iterator[str]:
    if node.get("type") == "Functn":
        yield str(node["children"][0].get("text", ""))
    for child in node.get("children", ()):
        yield from _called(child)


def _typed(node: Any) -> Any:
    """Tell fhirpathpy what an item or answer is, without which it knows none of its choices."""
    if not isinstance(node, Mapping) or "resourceType" in node:
        return node
    if "linkId" in node:
        path = "QuestionnaireResponse.item"
    elif any(name.startswith("value") for name in node):
        path = "QuestionnaireResponse.item.answer"
    else:
        return node
    return ResourceNode.create_node(node, path)  # type: ignore[no-untyped-call]


def _json(value: Any) -> Any:
    if isinstance(value, bool | int | str | Decimal | float) or value is None:
        return value
    if isinstance(value, Mapping):
        return copy.deepcopy(dict(value))
    text = getattr(value, "asStr", None)
    return text if isinstance(text, str) else str(value)
