"""A form as a JSON Schema of the answers to it (JSON Schema 2020-12, https://json-schema.org).

The schema says of each place of a response which linkIds may stand there, and of each answer its
member, length, bounds, pattern, options and size. What depends on other answers it does not say:
`fhir_portal.resources.forms.questionnaire_response` does. Beside the keywords of the specification
it has those of `_KEYWORDS`: dates have no bounds in JSON Schema, and a choice by linkId is quick.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from decimal import Decimal
from typing import Any, Final

import jsonschema
from jsonschema.exceptions import ValidationError

from fhir_portal.resources.forms.enabled import compared
from fhir_portal.resources.forms.fhirpath import Effort
from fhir_portal.resources.forms.pattern import LONGEST_MATCHED
from fhir_portal.resources.forms.questionnaire import VALUES, Item, Questionnaire, option_key

STRUCTURE: Final = frozenset({"byLinkId", "members", "type"})
"""The keywords that say what stands where; the others are rules about values."""

LONGEST_TEXT: Final = 20_000
"""Characters of an answer that has no length of its own."""
_ALWAYS: Final = ("id", "extension", "linkId", "definition", "text", "_text", "_linkId")


def schema_of(form: Questionnaire) -> dict[str, Any]:
    """Return the schema of ``QuestionnaireResponse.item``."""
    return _level(form.items)


def validator_of(form: Questionnaire) -> Any:
    """Return what checks ``QuestionnaireResponse.item`` (plain JSON, numbers as Decimals)."""
    return _Validator(schema_of(form))


def errors_of(validator: Any, items: Sequence[Any], effort: Effort | None) -> list[ValidationError]:
    """Return what is wrong with items. No pattern is tried without effort. Raises `TooCostly`."""
    token = _effort.set(effort)
    try:
        return list(validator.iter_errors(items))
    finally:
        _effort.reset(token)


_effort: ContextVar[Effort | None] = ContextVar("effort", default=None)


def _level(items: tuple[Item, ...]) -> dict[str, Any]:
    return {"type": "array", "byLinkId": {one.link_id: _node(one) for one in items}}


def _node(item: Item) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {"text": {"const": item.text}}}
    if not item.text:
        schema["properties"] = {}
    names = list(_ALWAYS)
    if item.type == "group":
        names.append("item")
        schema["properties"]["item"] = _level(item.items)
    elif item.is_question:
        names.append("answer")
        answers: dict[str, Any] = {"type": "array", "items": _answer(item)}
        if item.most is not None:
            answers["maxItems"] = item.most
        if item.repeats and item.options is not None:
            answers["distinct"] = True
        schema["properties"]["answer"] = answers
    schema["members"] = names
    return schema


def _answer(item: Item) -> dict[str, Any]:
    members = item.members
    properties: dict[str, Any] = {one: _value(item, one) for one in members}
    if item.items:
        properties["item"] = _level(item.items)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "members": [
            *("id", "extension"),
            *members,
            *(f"_{one}" for one in members),
            *(("item",) if item.items else ()),
        ],
    }
    if len(members) == 1:
        schema["required"] = list(members)
    else:
        schema["anyOf"] = [{"required": [one]} for one in members]
    return schema


def _value(item: Item, member: str) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    is_free = item.type == "open-choice" and member == "valueString"
    if item.options is not None and not is_free:
        schema["options"] = {
            one.key: _display(one.value) for one in item.options if one.member == member
        }
        return schema
    if member == "valueString":
        schema["maxLength"] = item.max_length or LONGEST_TEXT
        # What people leave blank is no answer.
        schema["minLength"] = item.min_length or 1
        schema["filled"] = True
        if item.pattern is not None:
            schema["maxLength"] = min(schema["maxLength"], LONGEST_MATCHED)
            schema["pattern"] = item.pattern
    elif item.max_length is not None and member == "valueUri":
        schema["maxLength"] = item.max_length
    if member in {"valueInteger", "valueDecimal"}:
        if _is_number(item.min_value):
            schema["minimum"] = item.min_value
        if _is_number(item.max_value):
            schema["maximum"] = item.max_value
    elif member == VALUES.get(item.type):
        if item.min_value is not None:
            schema["notBelow"] = {"member": member, "bound": item.min_value}
        if item.max_value is not None:
            schema["notAbove"] = {"member": member, "bound": item.max_value}
    if member == "valueDecimal" and item.decimals is not None:
        schema["decimals"] = item.decimals
    if member == "valueAttachment":
        schema["required"] = ["data", "contentType"]
        if item.max_bytes is not None:
            schema["bytes"] = item.max_bytes
        if item.mime_types:
            schema["properties"] = {"contentType": {"enum": list(item.mime_types)}}
    if member == "valueQuantity":
        schema["required"] = ["value"]
    if member == "valueBoolean":
        schema["type"] = "boolean"
    return schema


def _display(value: Any) -> str:
    return str(value.get("display", "")) if isinstance(value, Mapping) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


# ---- keywords of our own; each yields what is wrong, in words without the value


_Found = Iterator[ValidationError]


def _by_link_id(validator: Any, places: Any, listed: Any, _: Any) -> _Found:
    for at, node in enumerate(listed):
        schema = places.get(node.get("linkId"))
        if schema is None:
            error = ValidationError("the form has no such item here")
            error.path.append(at)
            yield error
        else:
            yield from validator.descend(node, schema, path=at)


def _members(_v: Any, allowed: Any, node: Any, _s: Any) -> _Found:
    if any(name not in allowed for name in node):
        yield ValidationError(_misplaced(allowed))


def _options(_v: Any, offered: Any, value: Any, _s: Any) -> _Found:
    for member in ("valueCoding", "valueReference"):
        key = option_key(member, value)
        if isinstance(value, Mapping) and key in offered:
            shown = value.get("display")
            if shown and offered[key] and shown != offered[key]:
                yield ValidationError("its display is not that of the answer with this code")
            return
    if not isinstance(value, Mapping) and any(
        key.partition(" ")[2] == str(value) for key in offered
    ):
        return
    yield ValidationError("it is none of the answers that are offered")


def _distinct(_v: Any, wanted: Any, listed: Any, _s: Any) -> _Found:
    keys = [option_key(m, v) for one in listed for m, v in one.items() if m.startswith("value")]
    if wanted and len(set(keys)) < len(keys):
        yield ValidationError("the same answer is given twice")


def _filled(_v: Any, wanted: Any, value: Any, _s: Any) -> _Found:
    if wanted and isinstance(value, str) and not value.strip():
        yield ValidationError("it is blank")


def _pattern(_v: Any, pattern: Any, value: Any, _s: Any) -> _Found:
    effort = _effort.get()
    if effort is None or not isinstance(value, str) or len(value) > LONGEST_MATCHED:
        return
    effort.spend()
    if re.fullmatch(pattern, value) is None:
        yield ValidationError("it is not written as the form asks")


def _not_below(_v: Any, rule: Any, value: Any, _s: Any) -> _Found:
    if compared(rule["member"], value, rule["bound"]) not in {0, 1}:
        yield ValidationError(f"it is less than {_shown(rule['bound'])}, or cannot be compared")


def _not_above(_v: Any, rule: Any, value: Any, _s: Any) -> _Found:
    if compared(rule["member"], value, rule["bound"]) not in {0, -1}:
        yield ValidationError(f"it is more than {_shown(rule['bound'])}, or cannot be compared")


def _decimals(_v: Any, most: Any, value: Any, _s: Any) -> _Found:
    exponent = Decimal(str(value)).normalize().as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > most:
        yield ValidationError(f"it has more than {most} decimal places")


def _bytes(_v: Any, most: Any, value: Any, _s: Any) -> _Found:
    data = re.sub(r"\s", "", str(value.get("data", "")))
    size = len(data) * 3 // 4 - data[-2:].count("=")
    if size > most:
        yield ValidationError(f"the file is larger than {most} bytes")
    elif "size" in value and value["size"] != len(base64.b64decode(data)):
        yield ValidationError("the file is not as large as it says")


def _shown(bound: Any) -> str:
    if isinstance(bound, Mapping):
        return f"{bound.get('value')} {bound.get('unit') or bound.get('code') or ''}".strip()
    return str(bound)


_KEYWORDS: Final = {
    "byLinkId": _by_link_id,
    "members": _members,
    "options": _options,
    "distinct": _distinct,
    "filled": _filled,
    "pattern": _pattern,
    "notBelow": _not_below,
    "notAbove": _not_above,
    "decimals": _decimals,
    "bytes": _bytes,
}
_Validator: Final[Any] = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, _KEYWORDS
)


def words(error: ValidationError) -> str:
    """Return what is wrong in plain words; of a keyword of the specification, without the value."""
    limit: Any = error.validator_value
    said = {
        "maxItems": "it takes one answer" if limit == 1 else f"it takes at most {limit} answers",
        "maxLength": f"it has at most {limit} characters",
        "minLength": f"it has at least {limit} characters",
        "minimum": f"it is at least {limit}",
        "maximum": f"it is at most {limit}",
        "const": "its words are not those of the form",
        "required": f"it lacks {_listed(limit)}",
        "anyOf": "it has no value",
        "type": "it is of another kind",
    }
    if error.validator == "enum":
        return "a file of this type is not taken"
    return said.get(str(error.validator), error.message)


def _misplaced(allowed: Any) -> str:
    names = [one for one in allowed if one.startswith("value")]
    if names:
        return f"the answer is given in {' or '.join(names)}"
    if "answer" in allowed:
        return "what belongs to an answer stands in the answer"
    return "it takes no answer"


def _listed(names: Any) -> str:
    return " and ".join(names) if isinstance(names, list) else str(names)
