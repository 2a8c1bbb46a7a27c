"""A form as the fields of a page, and what was typed into them as answers.

Every field has a name of its own: the place of its item in the form, and in what it stands
(``4.1-6`` is item 6 in the second occurrence of group 4). Nothing needs a script: what is asked
because of an answer appears when the page is saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from fhir_portal.fhir.datetime import is_date, is_time
from fhir_portal.resources.forms.enabled import Place, Response, quoted
from fhir_portal.resources.forms.fhirpath import number, plain
from fhir_portal.resources.forms.questionnaire import CORE, Item, Option, Questionnaire, option_key

MOST_ROWS: Final = 30
"""How often a group that repeats is on a page."""
_FEW: Final = 7
_SPARE: Final = 1
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,15}(?:[.,][0-9]{0,12})?")
_CLOCK: Final = 5
_KEPT: Final = frozenset({"attachment", "reference"})
_INPUTS: Final[Mapping[str, str]] = {
    "date": "date",
    "dateTime": "date",
    "time": "time",
    "url": "url",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One thing on the page.

    ``kind`` says what: ``group``, ``rows`` (after a group that repeats), ``display``, ``text``,
    ``long``, ``yes-no``, ``one`` or ``several`` of ``choices`` (value, words, chosen), ``list``,
    ``said`` (shown alone). ``values`` are names of inputs with what stands in them.
    """

    kind: str
    key: str
    label: str
    level: int
    required: bool = False
    input: str = "text"
    values: tuple[tuple[str, str], ...] = ()
    choices: tuple[tuple[str, str, bool], ...] = ()
    other: str | None = None
    longest: int | None = None
    unit: str = ""
    error: str = ""
    rows: int = 0
    more: bool = False


@dataclass(slots=True)
class Typed:
    """What was typed: answers, and by the name of the field what is no answer."""

    items: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def fields(
    form: Questionnaire,
    items: list[dict[str, Any]],
    *,
    now: float,
    more: str = "",
    errors: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
) -> list[Field]:
    """Return the fields of a form with these answers.

    ``more`` is the key of a group that gets one more row, ``errors`` by key or FHIRPath what is
    wrong, ``typed`` what stands in the fields of those.
    """
    tree = {"resourceType": "QuestionnaireResponse", "item": items}
    response = Response(form, plain(tree), now=now)
    places = {one.link_id: at for at, one in enumerate(form.every())}
    page = _Page(response, places, more, errors or {}, typed or {})
    return list(page.level(response.top, "", 0))


def typed_in(form: Questionnaire, data: Mapping[str, str], base: list[dict[str, Any]]) -> Typed:
    """Return what the fields of a page hold; ``base`` has the answers that are on no page."""
    places = {one.link_id: at for at, one in enumerate(form.every())}
    typed = Typed()
    typed.items = _read(form.items, data, base, "", places, typed.errors)
    return typed


class _Page:
    def __init__(
        self,
        response: Response,
        places: Mapping[str, int],
        more: str,
        errors: Mapping[str, str],
        typed: Mapping[str, str],
    ) -> None:
        self.response, self.places, self.more = response, places, more
        self.errors, self.typed = errors, typed

    def level(self, place: Place, above: str, level: int) -> Iterator[Field]:
        for item in place.items:
            if item.hidden or not self.response.is_enabled(item, place):
                continue
            key = f"{above}{self.places[item.link_id]}"
            if item.type == "group":
                yield from self._group(item, place, key, level)
            elif item.type == "display":
                yield Field("display", key, item.text, level)
            else:
                yield self._question(item, place, key, level)
                for under in self.response.below(item, place)[:1]:
                    yield from self.level(under, f"{key}.0-", level + 1)

    def _group(self, item: Item, place: Place, key: str, level: int) -> Iterator[Field]:
        below = list(self.response.below(item, place))
        if item.repeats and (not below or self.more == key):
            below.append(Place(item.items, (), path=f"{place.path}.new", owner=item, parent=place))
        below = below[:MOST_ROWS]
        can_grow = item.repeats and len(below) < min(item.most or MOST_ROWS, MOST_ROWS)
        error = self._error(key, [self._missing(item, place)])
        for at, under in enumerate(below):
            number_of = f" {at + 1}" if item.repeats and len(below) > 1 else ""
            label = f"{item.text}{number_of}"
            yield Field("group", key, label, level, error=error if at == 0 else "", rows=at + 1)
            yield from self.level(under, f"{key}.{at}-", level + 1)
        if item.repeats:
            yield Field("rows", key, item.text, level, rows=len(below), more=can_grow)

    def _question(self, item: Item, place: Place, key: str, level: int) -> Field:
        given = self.response.answers(item, place)
        nodes = [f"{place.path}.item[{at}]" for at, _ in place.of(item)]
        base: dict[str, Any] = {
            "key": key,
            "label": item.text or item.link_id,
            "level": level,
            "required": item.least > 0,
            "error": self._error(key, [self._missing(item, place), *nodes]),
        }
        values = [next(iter(one.values())) for one in given]
        if item.read_only or item.type in _KEPT:
            words = "; ".join(_shown(one) for one in values) or _none(item)
            return Field("said", values=((key, words),), **base)
        if item.type == "boolean":
            choices = (("yes", "Yes", values == [True]), ("no", "No", values == [False]))
            return Field("yes-no", choices=choices, **base)
        if item.options is not None:
            return self._choice(item, given, base)
        if item.type == "quantity":
            unit = _unit(item)
            said = [_shown(one.get("value")) for one in values]
            return Field("text", values=self._texts(item, key, said), unit=unit["unit"], **base)
        return Field(
            "long" if item.type == "text" else "text",
            input=_INPUTS.get(item.type, "text"),
            values=self._texts(item, key, [_typed(item, one) for one in values]),
            longest=item.max_length,
            **base,
        )

    def _choice(
        self, item: Item, given: Sequence[Mapping[str, Any]], base: dict[str, Any]
    ) -> Field:
        keys = {option_key(m, v) for one in given for m, v in one.items()}
        options = item.options or ()
        choices = tuple((str(at), _words(one), one.key in keys) for at, one in enumerate(options))
        other = None
        if item.type == "open-choice":
            known = {one.key for one in options}
            free = [
                str(v)
                for one in given
                for m, v in one.items()
                if m == "valueString" and option_key(m, v) not in known
            ]
            other = free[0] if free else ""
        kind = "several" if item.repeats else "one" if len(options) <= _FEW else "list"
        return Field(kind, choices=choices, other=other, longest=item.max_length, **base)

    def _texts(self, item: Item, key: str, said: list[str]) -> tuple[tuple[str, str], ...]:
        if not item.repeats:
            return ((key, self.typed.get(key, said[0] if said else "")),)
        rows = [*said, *([""] * _SPARE)][: min(item.most or MOST_ROWS, MOST_ROWS)]
        return tuple(
            (f"{key}.{at}", self.typed.get(f"{key}.{at}", one)) for at, one in enumerate(rows)
        )

    def _error(self, key: str, paths: Sequence[str]) -> str:
        if key in self.errors:
            return self.errors[key]
        for path in paths:
            for where, text in self.errors.items():
                rest = where.removeprefix(path)
                # What is wrong with an item inside of the answer is said there.
                if where.startswith(path) and ".item" not in rest:
                    return text
        return ""

    @staticmethod
    def _missing(item: Item, place: Place) -> str:
        return f"{place.path}.item.where(linkId='{quoted(item.link_id)}')"


def _read(
    items: Sequence[Item],
    data: Mapping[str, str],
    base: Sequence[Mapping[str, Any]],
    above: str,
    places: Mapping[str, int],
    errors: dict[str, str],
) -> list[dict[str, Any]]:
    made = list[dict[str, Any]]()
    for item in items:
        key = f"{above}{places[item.link_id]}"
        own = [one for one in base if one.get("linkId") == item.link_id]
        head = {"linkId": item.link_id, **({"text": item.text} if item.text else {})}
        if item.type == "display":
            continue
        if item.type == "group":
            rows = 1
            if item.repeats:
                text = data.get(f"{key}.n", "0")
                rows = min(int(text) if _INTEGER.fullmatch(text) else 0, MOST_ROWS)
            for at in range(max(rows, 0)):
                kept = own[at].get("item", ()) if at < len(own) else ()
                below = _read(item.items, data, kept, f"{key}.{at}-", places, errors)
                if below:
                    made.append(head | {"item": below})
            continue
        if item.hidden or item.read_only or item.type in _KEPT:
            made += [dict(one) for one in own]
            continue
        answers = _answers(item, data, key, errors)
        if answers and item.items:
            kept = (own[0].get("answer") or [{}])[0].get("item", ()) if own else ()
            below = _read(item.items, data, kept, f"{key}.0-", places, errors)
            if below:
                answers[0]["item"] = below
        if answers:
            made.append(head | {"answer": answers})
    return made


def _answers(
    item: Item, data: Mapping[str, str], key: str, errors: dict[str, str]
) -> list[dict[str, Any]]:
    if item.type == "boolean":
        found = {"yes": True, "no": False}.get(data.get(key, ""))
        return [] if found is None else [{"valueBoolean": found}]
    if item.options is not None:
        return _chosen(item, item.options, data, key)
    names = [key]
    if item.repeats:
        names = [name for at in range(MOST_ROWS) if (name := f"{key}.{at}") in data]
    answers = []
    for name in names:
        text = data.get(name, "").replace("\r\n", "\n").strip()
        if not text:
            continue
        try:
            answers.append(_answer(item, text))
        except ValueError as wrong:
            errors[key] = str(wrong)
    return answers


def _chosen(
    item: Item, options: Sequence[Option], data: Mapping[str, str], key: str
) -> list[dict[str, Any]]:
    if item.repeats:
        wanted = [at for at in range(len(options)) if f"{key}.{at}" in data]
    else:
        text = data.get(key, "")
        wanted = [int(text)] if _INTEGER.fullmatch(text) and 0 <= int(text) < len(options) else []
    answers = [{options[at].member: options[at].value} for at in wanted]
    other = data.get(f"{key}.other", "").strip()
    if item.type == "open-choice" and other and (item.repeats or not answers):
        answers.append({"valueString": other})
    return answers


def _answer(item: Item, text: str) -> dict[str, Any]:
    """Return what was typed as an answer. Raises `ValueError` with words for whoever typed it."""
    if item.type == "integer":
        if not _INTEGER.fullmatch(text):
            message = "give a whole number, such as 3"
            raise ValueError(message)
        return {"valueInteger": int(text)}
    if item.type == "decimal":
        return {"valueDecimal": number(_decimal(text))}
    if item.type == "quantity":
        return {"valueQuantity": {"value": number(_decimal(text)), **_unit(item)}}
    if item.type in {"date", "dateTime"}:
        if not is_date(text):
            message = "give the day as 2027-01-31"
            raise ValueError(message)
        return {"valueDate" if item.type == "date" else "valueDateTime": text}
    if item.type == "time":
        clock = f"{text}:00" if len(text) == _CLOCK else text
        if not is_time(clock):
            message = "give the time as 09:30"
            raise ValueError(message)
        return {"valueTime": clock}
    return {"valueUri" if item.type == "url" else "valueString": text}


def _decimal(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        message = "give a number, such as 7.5"
        raise ValueError(message)
    return Decimal(text.replace(",", "."))


def _unit(item: Item) -> dict[str, str]:
    for one in item.tree.get("extension") or ():
        if one.get("url") in {f"{CORE}questionnaire-unit", f"{CORE}questionnaire-unitOption"}:
            coding = one.get("valueCoding") or {}
            found = {"unit": str(coding.get("display") or coding.get("code", ""))}
            return found | {name: coding[name] for name in ("system", "code") if name in coding}
    return {"unit": ""}


def _typed(item: Item, value: Any) -> str:
    text = _shown(value)
    return text[:10] if item.type in {"date", "dateTime"} else text


def _words(option: Option) -> str:
    return _shown(option.value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, Mapping):
        if "contentType" in value:
            return str(value.get("title") or "A file that was added before")
        found = value.get("display") or value.get("code") or value.get("reference")
        if found is None and "value" in value:
            found = f"{value['value']} {value.get('unit', '')}".strip()
        return str(found or "")
    return (
        format(value, "f")
        if isinstance(value, Decimal)
        else str(value if value is not None else "")
    )


def _none(item: Item) -> str:
    if item.type == "attachment":
        return "Files cannot be added on this page. Bring it to your visit, or use an app."
    return "Nothing yet"
