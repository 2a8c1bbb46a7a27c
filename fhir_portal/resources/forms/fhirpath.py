"""FHIRPath in forms: initial and calculated values, conditions, what is taken out of answers.

Expressions come from a practice's Questionnaires. They are evaluated by ``fhirpathpy`` with the
functions listed here and no others: none of them follows a link, writes anywhere, or takes longer
than what it is given. Source: FHIRPath N1 (http://hl7.org/fhirpath), SDC 3.0 (expressions).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import fhirpathpy
import msgspec
from antlr4 import CommonTokenStream, InputStream, Token
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.models import models
from fhirpathpy.parser import parse
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from fhir_portal.fhir import json

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

_MICROSECONDS: Final = 1_000_000


class ExpressionFault(Exception):
    """An expression that is not FHIRPath, calls what is not offered, or fails on what it is given.

    The words hold nothing of the data.
    """


@dataclass(frozen=True, slots=True)
class Expression:
    """One compiled expression."""

    text: str
    run: Callable[..., Any]

    def __call__(self, node: Any, *, now: float, **variables: Any) -> list[Any]:
        """Evaluate it on a node (``%context``) at a time, in seconds since 1970 UTC.

        Variables are plain JSON (`plain`). Returns JSON values, dates as text. Raises
        `ExpressionFault`.
        """
        token = _moment.set(datetime.fromtimestamp(now, UTC))
        try:
            found = self.run(_typed(node), {**variables, "context": node})
        except Exception as error:  # noqa: BLE001 - it raises whatever the data make it raise
            message = f"the expression cannot be evaluated here: {type(error).__name__}"
            raise ExpressionFault(message) from None
        finally:
            _moment.reset(token)
        return [_json(one) for one in found]


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
    return Expression(text, fhirpathpy.compile(text, models["r4"], _OPTIONS))


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
    """Return a Decimal as a number of FHIR JSON."""
    text = format(value, "f")
    return msgspec.Raw(text.encode()) if "." in text else int(text)


_moment: ContextVar[datetime] = ContextVar("moment")
"""The time of an evaluation: fhirpathpy's own functions look at the machine's clock."""


def _as_date(_: Any) -> list[str]:
    return [_moment.get().date().isoformat()]


def _as_instant(_: Any) -> list[str]:
    return [_moment.get().isoformat(timespec="milliseconds")]


_OPTIONS: Final = {
    "userInvocationTable": {
        "today": {"fn": _as_date, "arity": {0: []}},
        "now": {"fn": _as_instant, "arity": {0: []}},
    }
}


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
