"""FHIR JSON in and out without loss: the sender's member order and the digits of every number.

A number with a fraction or an exponent becomes a ``msgspec.Raw`` that holds its text, because FHIR
asks for the precision to be kept (R4 §2.24.0.1, decimal). What JSON leaves open is refused here:
repeated member names, a byte-order mark, unpaired surrogates, unbounded nesting (FHIR R4 §2.6.2;
RFC 8259 §4, §8).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from fhir_portal.fhir.errors import Invalid, TooLarge

S = TypeVar("S")

MAX_DEPTH = 64
"""Objects and arrays may be nested this deep, the outermost object included."""

MAX_NODES = 300_000
"""So many objects and arrays may a body hold: reading it must not stop the server for long."""

_decoder = msgspec.json.Decoder(dict[str, Any], float_hook=lambda text: msgspec.Raw(text.encode()))
_encoder = msgspec.json.Encoder()

_INT64 = range(-(2**63), 2**64)

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"([ \t\r\n]*:)?')
_SPACE_BEFORE_COLON = re.compile(rb'"[ \t\r\n]+:')
_MINUS_ZERO = re.compile(rb"-0[ \t\r\n,\]}]")
_SURROGATES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(\\u[dD][89a-fA-F])"
    rb"|\\."
)
_NOT_A_NUMBER = re.compile(rb"-?(?:NaN|Infinity)")
_BYTE = re.compile(r"\(byte (\d+)\)$")
_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def parse(data: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Integers become ``int``; numbers with ``.``, ``e`` or ``E``, and ``-0``, become ``msgspec.Raw``.

    Raises:
        Invalid: not one JSON object in UTF-8, a member name twice in an object, or nested deeper
            than ``MAX_DEPTH``. The words never quote a value.
    """
    if data.count(b"{") + data.count(b"[") > MAX_NODES:
        raise TooLarge(f"The body has more than {MAX_NODES} objects and arrays.")
    try:
        tree = _decoder.decode(data)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise Invalid("The body holds a number with too many digits.") from None
        raise Invalid("The body must be one JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(data, error) from None
    except RecursionError:
        raise _too_deep() from None
    members = _count_members(tree)
    if _MINUS_ZERO.search(data):
        return _parse_slowly(data)
    # Fewer members than names were written means that a name was written twice. Counting `":` is
    # enough when it agrees: it finds every name that has no space before its colon.
    if data.count(b'":') != members or _SPACE_BEFORE_COLON.search(data):
        names = sum(1 for match in _STRING.finditer(data) if match.lastindex)
        if names != members:
            return _parse_slowly(data)
    return tree


def reread(data: bytes) -> dict[str, Any]:
    """Read what `dumps` wrote of a tree that `parse` read: it is sound. Twice as fast as `parse`.

    Unlike what `stored` reads it may be written back: ``-0`` is kept.
    """
    return _parse_slowly(data) if _MINUS_ZERO.search(data) else _decoder.decode(data)


def stored(data: bytes) -> dict[str, Any]:
    """Read what a store holds: `parse` found it sound before it was written.

    Five times as fast. A number ``-0`` becomes 0, so it is for looking, and not for writing back.
    """
    return _decoder.decode(data)


def stored_as(shape: type[S]) -> Callable[[bytes], S]:
    """Return what reads of stored resources only the members that a ``TypedDict`` names."""
    return msgspec.json.Decoder(shape).decode


def dumps(tree: dict[str, Any]) -> bytes:
    """Write compact UTF-8 JSON, members in their order, ``Raw`` numbers as they came."""
    try:
        return _encoder.encode(tree)
    except OverflowError:
        return _encoder.encode(_with_raw_integers(tree))


def decimal(number: msgspec.Raw | int) -> Decimal:
    """The exact value of a parsed number, trailing zeros kept.

    Raises:
        Invalid: when the exponent is beyond what a Decimal can hold.
    """
    if isinstance(number, int):
        return Decimal(number)
    try:
        return Decimal(bytes(number).decode())
    except ArithmeticError:
        raise Invalid("A number is too large or too small.") from None


def _count_members(tree: dict[str, Any]) -> int:
    """Members of all objects in the tree; refuses too deep a nesting on the way."""
    members = depth = 0
    level: list[Any] = [tree]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        below: list[Any] = []
        for node in level:
            if node.__class__ is dict:
                members += len(node)
                values = node.values()
            else:
                values = node
            for value in values:
                if value.__class__ is dict or value.__class__ is list:
                    below.append(value)  # noqa: PERF401 - two kinds of container in one list
        level = below
    return members


def _parse_slowly(data: bytes) -> dict[str, Any]:
    """The same tree for JSON already known to be sound, ``-0`` kept, repeated names refused."""
    tree: dict[str, Any] = json.loads(
        data,
        parse_float=lambda text: msgspec.Raw(text.encode()),
        parse_int=lambda text: msgspec.Raw(b"-0") if text == "-0" else int(text),
        object_pairs_hook=_distinct,
    )
    return tree


def _distinct(members: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                shown = f'The member "{name}"' if _SAFE_NAME.fullmatch(name) else "A member name"
                raise Invalid(f"{shown} appears twice in one object.")
            seen.add(name)
    return found


def _with_raw_integers(tree: Any) -> Any:
    """A copy in which integers that the encoder cannot hold are written as text."""
    if isinstance(tree, dict):
        return {name: _with_raw_integers(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_with_raw_integers(value) for value in tree]
    if isinstance(tree, int) and tree not in _INT64:
        return msgspec.Raw(str(tree).encode())
    return tree


def _refusal(data: bytes, error: Exception) -> Invalid:
    """What is wrong with bytes the decoder did not take, and at which byte."""
    if data.startswith(b"\xef\xbb\xbf"):
        return Invalid("The body starts with a byte-order mark, which JSON does not allow.")
    if not data.strip():
        return Invalid("The body is empty.")
    try:
        data.decode()
    except UnicodeDecodeError as fault:
        return Invalid(f"The body is not valid UTF-8 (byte {fault.start}).")
    for match in _SURROGATES.finditer(data):
        if match.lastindex:
            return Invalid(f"A string holds half of a surrogate pair (byte {match.start()}).")
    message = str(error)
    where = _BYTE.search(message)
    if where is None:
        return Invalid(f"The body is not valid JSON: it ends too early (byte {len(data)}).")
    offset = int(where[1])
    if _NOT_A_NUMBER.match(data, offset) or _NOT_A_NUMBER.match(data, offset - 1):
        return Invalid(f"NaN and Infinity are not JSON numbers (byte {offset}).")
    return Invalid(f"The body is not valid JSON: {message.removeprefix('JSON is malformed: ')}.")


def _too_deep() -> Invalid:
    return Invalid(f"The body is nested deeper than {MAX_DEPTH} levels.")
