"""A Questionnaire, read once: what is asked, of which kind, when, and what an answer may be.

Source: FHIR R4 Questionnaire (http://hl7.org/fhir/R4/questionnaire.html) and its extensions,
SDC 3.0. What is not understood and would change what an answer means is a fault: such a form is
kept for whoever sent it, but nobody is asked to fill it in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from fhir_portal.resources.forms.fhirpath import ExpressionFault, compiled, plain
from fhir_portal.resources.forms.pattern import pattern_fault

CORE: Final = "http://hl7.org/fhir/StructureDefinition/"
SDC: Final = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-"
HIDDEN: Final = f"{CORE}questionnaire-hidden"
SIGNATURE_REQUIRED: Final = f"{CORE}questionnaire-signatureRequired"

VALUES: Final[Mapping[str, str]] = {
    "boolean": "valueBoolean",
    "decimal": "valueDecimal",
    "integer": "valueInteger",
    "date": "valueDate",
    "dateTime": "valueDateTime",
    "time": "valueTime",
    "string": "valueString",
    "text": "valueString",
    "url": "valueUri",
    "choice": "valueCoding",
    "open-choice": "valueCoding",
    "attachment": "valueAttachment",
    "reference": "valueReference",
    "quantity": "valueQuantity",
}
"""Type of an item to the member that holds its answer."""

_MEGABYTE: Final = 1_000_000
_MOST_SIGNS: Final = 30_000
"""Signs of all expressions of a form: reading them takes a while."""
_NOT_OFFERED: Final = ("answerExpression", "entryMode", "subQuestionnaire")
_EXPRESSION: Final = "text/fhirpath"
_QUERY: Final = "application/x-fhir-query"


@dataclass(frozen=True, slots=True)
class Condition:
    """One ``enableWhen``: the question it looks at, how, and the answer (``valueX`` to value)."""

    question: str
    operator: str
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One answer that is offered: the member it is given in, and its value."""

    member: str
    value: Any
    initial: bool = False

    @property
    def key(self) -> str:
        """What makes two answers the same one."""
        return option_key(self.member, self.value)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a form; bounds are ``None`` where there are none.

    ``least`` and ``most`` count answers, or for a group how often it is there. ``parent`` is the
    linkId of the item it stands in, ``""`` at the top.
    """

    link_id: str
    type: str
    text: str
    tree: Mapping[str, Any]
    parent: str
    required: bool
    repeats: bool
    read_only: bool
    hidden: bool
    least: int
    most: int | None
    max_length: int | None
    min_length: int | None
    min_value: Any
    max_value: Any
    decimals: int | None
    pattern: str | None
    max_bytes: int | None
    mime_types: tuple[str, ...]
    options: tuple[Option, ...] | None
    initial: tuple[Mapping[str, Any], ...]
    initial_expression: str | None
    calculated: str | None
    constraints: tuple[tuple[str, str], ...]
    conditions: tuple[Condition, ...]
    all_conditions: bool
    enabled_if: str | None
    signature: bool
    items: tuple[Item, ...]

    @property
    def is_question(self) -> bool:
        """Whether it takes answers."""
        return self.type not in {"group", "display"}

    @property
    def members(self) -> tuple[str, ...]:
        """The members an answer may be given in."""
        own = tuple(dict.fromkeys(one.member for one in self.options or ()))
        if self.type == "open-choice":
            return tuple(dict.fromkeys((*(own or ("valueCoding",)), "valueString")))
        return own or (VALUES[self.type],)


@dataclass(frozen=True, slots=True, eq=False)
class Questionnaire:
    """A form; ``faults`` say why nobody can be asked to fill it in here, each with a linkId."""

    url: str
    version: str
    title: str
    tree: Mapping[str, Any]
    items: tuple[Item, ...]
    by_link: Mapping[str, Item]
    launch: Mapping[str, str]
    variables: tuple[tuple[str, str], ...]
    queries: tuple[tuple[str, str], ...]
    constraints: tuple[tuple[str, str], ...]
    signature: bool
    faults: tuple[tuple[str, str], ...]

    @property
    def canonical(self) -> str:
        """``url|version``, or the url alone."""
        return f"{self.url}|{self.version}" if self.version else self.url

    def every(self) -> Iterator[Item]:
        """All items, in the order of the form."""
        return iter(self.by_link.values())


def read_questionnaire(
    tree: Mapping[str, Any], value_sets: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> Questionnaire:
    """Read a Questionnaire that was validated as FHIR.

    ``value_sets`` are the codings of those it names, by their canonical (`value_set_names`); one
    that is missing is a fault of the item.
    """
    reading = _Reading(value_sets or {})
    items = tuple(reading.item(one, "") for one in tree.get("item", ()))
    by_link = {one.link_id: one for one in _walk(items)}
    reading.unknown_conditions(by_link)
    if "modifierExtension" in tree or "implicitRules" in tree:
        reading.faults.append(("", "it is modified in a way that is not understood here"))
    root = _Extensions(tree)
    variables = [
        (str(one.get("name", "")), reading.expression("", one))
        for one in root.every(f"{CORE}variable")
        if one.get("language") != _QUERY
    ]
    queries = [
        (str(one.get("name", "")), str(one.get("expression", "")))
        for one in root.every(f"{CORE}variable")
        if one.get("language") == _QUERY
    ]
    return Questionnaire(
        url=str(tree.get("url", "")),
        version=str(tree.get("version", "")),
        title=str(tree.get("title") or tree.get("name") or "Form"),
        tree=tree,
        items=items,
        by_link=by_link,
        launch=_launch(root),
        variables=tuple((name, text) for name, text in variables if name and text),
        queries=tuple((name, text) for name, text in queries if name and text),
        constraints=reading.constraints("", root),
        signature=root.one(SIGNATURE_REQUIRED) is not None,
        faults=tuple(dict.fromkeys(reading.faults)),
    )


def value_set_names(tree: Mapping[str, Any]) -> list[str]:
    """Return the canonicals of the value sets that answers are taken from, contained ones too."""
    found = [one["answerValueSet"] for one in _trees(tree) if "answerValueSet" in one]
    return list(dict.fromkeys(found))


def option_key(member: str, value: Any) -> str:
    """Return what two answers have in common when they are the same: text, code, reference."""
    if isinstance(value, Mapping):
        if member == "valueReference":
            return f"{member} {value.get('reference', '')}"
        code = value.get("code") or value.get("display") or ""
        return f"{member} {value.get('system', '')}|{code}"
    return f"{member} {value}"


class _Extensions:
    """The extensions of an element by url; the value of each, whatever its type."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.listed = tree.get("extension") or ()

    def every(self, url: str) -> list[Any]:
        found = [one for one in self.listed if one.get("url") == url]
        return [
            value
            for one in found
            for name, value in one.items()
            if name.startswith("value") or (name == "extension" and "url" in one)
        ]

    def one(self, url: str) -> Any:
        return next(iter(self.every(url)), None)

    def whole(self, url: str) -> list[Mapping[str, Any]]:
        return [one for one in self.listed if one.get("url") == url]


class _Reading:
    def __init__(self, value_sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.value_sets = value_sets
        self.faults: list[tuple[str, str]] = []
        self._expressions: set[str] = set()

    def item(self, tree: Mapping[str, Any], parent: str) -> Item:
        link_id, own = str(tree["linkId"]), _Extensions(tree)
        kind = str(tree["type"])
        if kind not in {*VALUES, "group", "display"}:
            self.faults.append((link_id, "items of this type are not asked here"))
            kind = "display"
        if "modifierExtension" in tree:
            self.faults.append((link_id, "it is modified in a way that is not understood here"))
        for name in _NOT_OFFERED:
            if own.one(f"{SDC}{name}") is not None:
                self.faults.append((link_id, f"{name} is not offered here"))
        required = tree.get("required") is True
        repeats = tree.get("repeats") is True
        least = own.one(f"{CORE}questionnaire-minOccurs")
        most = own.one(f"{CORE}questionnaire-maxOccurs")
        size = own.one(f"{CORE}maxSize")
        initial = [one for one in tree.get("initial", ()) if isinstance(one, Mapping)]
        options = self._options(link_id, tree)
        chosen = [{one.member: one.value} for one in options or () if one.initial]
        return Item(
            link_id=link_id,
            type=kind,
            text=str(tree.get("text", "")),
            tree=tree,
            parent=parent,
            required=required,
            repeats=repeats,
            read_only=tree.get("readOnly") is True,
            hidden=own.one(HIDDEN) is True,
            least=max(int(required), least if isinstance(least, int) else 0),
            most=(most if isinstance(most, int) else None) if repeats else 1,
            max_length=tree.get("maxLength"),
            min_length=own.one(f"{CORE}minLength"),
            min_value=plain(own.one(f"{CORE}minValue")),
            max_value=plain(own.one(f"{CORE}maxValue")),
            decimals=own.one(f"{CORE}maxDecimalPlaces"),
            pattern=self._pattern(link_id, own.one(f"{CORE}regex")),
            max_bytes=int(Decimal(str(plain(size))) * _MEGABYTE) if size is not None else None,
            mime_types=tuple(str(one) for one in own.every(f"{CORE}mimeType")),
            options=options,
            initial=tuple(
                {n: v for n, v in one.items() if n.startswith("value")} for one in initial
            )
            or tuple(chosen),
            initial_expression=self.expression(link_id, own.one(f"{SDC}initialExpression")) or None,
            calculated=self.expression(link_id, own.one(f"{SDC}calculatedExpression")) or None,
            constraints=self.constraints(link_id, own),
            conditions=tuple(_condition(one) for one in tree.get("enableWhen", ())),
            all_conditions=tree.get("enableBehavior") == "all",
            enabled_if=self.expression(link_id, own.one(f"{SDC}enableWhenExpression")) or None,
            signature=own.one(SIGNATURE_REQUIRED) is not None,
            items=tuple(self.item(one, link_id) for one in tree.get("item", ())),
        )

    def expression(self, link_id: str, value: Any) -> str:
        """Return the text of an Expression that can be evaluated; ``""`` is none."""
        if value is None:
            return ""
        text = value.get("expression") if isinstance(value, Mapping) else None
        if not isinstance(text, str) or value.get("language") != _EXPRESSION:
            self.faults.append((link_id, "its expression is not FHIRPath"))
            return ""
        self._expressions.add(text)
        if sum(map(len, self._expressions)) > _MOST_SIGNS:
            self.faults.append(("", "it has more expressions than are evaluated here"))
            return ""
        try:
            compiled(text)
        except ExpressionFault as fault:
            self.faults.append((link_id, str(fault)))
            return ""
        return text

    def constraints(self, link_id: str, own: _Extensions) -> tuple[tuple[str, str], ...]:
        """Return expression and words of each constraint that refuses."""
        found = []
        for one in own.whole(f"{CORE}questionnaire-constraint"):
            parts = {part.get("url"): part for part in one.get("extension", ())}
            if parts.get("severity", {}).get("valueCode") == "warning":
                continue
            text = str(parts.get("expression", {}).get("valueString", ""))
            text = self.expression(link_id, {"language": _EXPRESSION, "expression": text})
            if text:
                found.append((text, str(parts.get("human", {}).get("valueString", ""))))
        return tuple(found)

    def unknown_conditions(self, by_link: Mapping[str, Item]) -> None:
        for one in by_link.values():
            for condition in one.conditions:
                asked = by_link.get(condition.question)
                if asked is None or not (asked.is_question or condition.operator == "exists"):
                    self.faults.append((one.link_id, "it depends on a question that is not there"))

    def _options(self, link_id: str, tree: Mapping[str, Any]) -> tuple[Option, ...] | None:
        if "answerOption" in tree:
            return tuple(
                Option(name, value, initial=one.get("initialSelected") is True)
                for one in tree["answerOption"]
                for name, value in one.items()
                if name.startswith("value")
            )
        name = tree.get("answerValueSet")
        if name is None:
            if tree["type"] == "choice":
                self.faults.append((link_id, "it offers no answers to choose from"))
            return None
        codings = self.value_sets.get(name)
        if codings is None:
            self.faults.append((link_id, "its value set is not known here"))
            return None
        return tuple(Option("valueCoding", one) for one in codings)

    def _pattern(self, link_id: str, text: Any) -> str | None:
        if not isinstance(text, str):
            return None
        fault = pattern_fault(text)
        if fault:
            self.faults.append((link_id, fault))
            return None
        return text


def _condition(tree: Mapping[str, Any]) -> Condition:
    answer = {
        f"value{name.removeprefix('answer')}": plain(value)
        for name, value in tree.items()
        if name.startswith("answer")
    }
    return Condition(str(tree["question"]), str(tree["operator"]), answer)


def _launch(root: _Extensions) -> dict[str, str]:
    """Return the launch contexts that a form asks for: name to type."""
    found = {}
    for one in root.whole(f"{SDC}launchContext"):
        parts = {part.get("url"): part for part in one.get("extension", ())}
        name = parts.get("name", {}).get("valueCoding", {}).get("code")
        if name:
            found[str(name)] = str(parts.get("type", {}).get("valueCode", ""))
    return found


def _walk(items: Sequence[Item]) -> Iterator[Item]:
    for one in items:
        yield one
        yield from _walk(one.items)


def _trees(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for one in tree.get("item", ()):
        yield one
        yield from _trees(one)
