"""Answers to begin with: what a form says itself, what is known, and what was said last time.

Source: SDC 3.0 population (initialExpression, itemPopulationContext, launchContext), FHIR R4
Questionnaire.item.initial. What an expression may look at is what its caller may see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from fhir_portal.resources.forms.enabled import Place, Response
from fhir_portal.resources.forms.fhirpath import plain, sent
from fhir_portal.resources.forms.questionnaire import SDC, VALUES, Item, Questionnaire, option_key
from fhir_portal.resources.forms.schema import LONGEST_TEXT

_POPULATION: Final = f"{SDC}itemPopulationContext"
_DATE: Final = 10
_MOST: Final = 50


def populated(
    form: Questionnaire,
    *,
    now: float,
    variables: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return ``QuestionnaireResponse.item`` to begin with.

    ``variables`` are those of the expressions (``patient``), ``before`` the response that was
    handed in last. What the form says goes before what is known, that before what was said.
    """
    tree = {"resourceType": "QuestionnaireResponse", "item": list[Any]()}
    response = Response(form, tree, now=now, variables=plain(dict(variables)))
    known = Response(form, plain(before), now=now) if before else None
    items = _items(form.items, response, known, known.top if known else None)
    return asked_only(form, calculated(form, items, now=now), now=now)


def calculated(
    form: Questionnaire, items: list[dict[str, Any]], *, now: float
) -> list[dict[str, Any]]:
    """Return items with the values that the form calculates from the others."""
    if not any(one.calculated for one in form.every()):
        return items
    for _ in range(3):  # what is calculated from what is calculated
        tree = {"resourceType": "QuestionnaireResponse", "item": items}
        response = Response(form, plain(tree), now=now)
        after = _calculated(form.items, items, response)
        if after == items:
            break
        items = after
    return items


def asked_only(
    form: Questionnaire, items: list[dict[str, Any]], *, now: float
) -> list[dict[str, Any]]:
    """Return items without those that are not asked, given the others."""
    tree = {"resourceType": "QuestionnaireResponse", "item": items}
    response = Response(form, plain(tree), now=now)
    return _asked(items, response, response.top)


def fitting(item: Item, value: Any) -> dict[str, Any] | None:
    """Return a value as an answer to a question; ``None`` where it is none."""
    if isinstance(value, Mapping) and "coding" in value:
        value = next(iter(value["coding"]), None)
    if value is None:
        return None
    if item.options is not None:
        for one in item.options:
            given = one.value.get("code") if isinstance(one.value, Mapping) else one.value
            if value == given or option_key(one.member, value) == one.key:
                return {one.member: one.value}
        if item.type != "open-choice" or isinstance(value, Mapping):
            return None
        return {"valueString": str(value)}
    member = VALUES[item.type]
    if member == "valueString":
        text = str(value) if isinstance(value, str | int | Decimal) else ""
        is_short = len(text) <= (item.max_length or LONGEST_TEXT)
        return {member: text} if text.strip() and is_short else None
    if member == "valueDate" and isinstance(value, str):
        return {member: value[:_DATE]}
    kinds: Mapping[str, tuple[type, ...]] = {
        "valueBoolean": (bool,),
        "valueInteger": (int,),
        "valueDecimal": (int, Decimal, float),
        "valueDateTime": (str,),
        "valueTime": (str,),
        "valueUri": (str,),
    }
    wanted = kinds.get(member, (Mapping,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        return None
    return {member: sent(value)}


def _items(
    items: Sequence[Item], response: Response, known: Response | None, place: Place | None
) -> list[dict[str, Any]]:
    made = []
    for item in items:
        if item.type == "display":
            continue
        if item.is_question:
            answers = _answers(item, response, known, place)
            if answers:
                made.append(_node(item) | {"answer": answers})
            continue
        made += _groups(item, response, known, place)
    return made


def _groups(
    item: Item, response: Response, known: Response | None, place: Place | None
) -> list[dict[str, Any]]:
    context = next(
        (
            one.get("valueExpression") or {}
            for one in item.tree.get("extension") or ()
            if one.get("url") == _POPULATION
        ),
        None,
    )
    made = list[dict[str, Any]]()
    if context is not None:
        name = str(context.get("name") or "")
        for one in response.value_of(str(context.get("expression") or ""), response.tree)[:_MOST]:
            made += _group(item, _items(item.items, response.having(name, one), None, None))
        if made:
            return made if item.repeats else made[:1]
    places: list[Place | None] = [None]
    if known is not None and place is not None:
        places = list(known.below(item, place)) or [None]
    for under in places:
        made += _group(item, _items(item.items, response, known, under))
    return made


def _group(item: Item, below: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_node(item) | {"item": below}] if below else []


def _node(item: Item) -> dict[str, Any]:
    return {"linkId": item.link_id, **({"text": item.text} if item.text else {})}


def _answers(
    item: Item, response: Response, known: Response | None, place: Place | None
) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    if item.initial_expression is not None:
        values = response.value_of(item.initial_expression, response.tree)
        found = [one for value in values if (one := fitting(item, value)) is not None]
    if not found and item.initial:
        found = [dict(one) for one in item.initial]
    if not found and known is not None and place is not None and not item.calculated:
        given = known.answers(item, place)
        unders: list[Place | None] = list(known.below(item, place)) or [None] * len(given)
        for answer, under in zip(given, unders, strict=False):
            below = _items(item.items, response, known, under) if under is not None else []
            found.append(sent(dict(answer)) | ({"item": below} if below else {}))
        return found if item.repeats else found[:1]
    if found and item.items:
        below = _items(item.items, response, None, None)
        if below:
            found[0]["item"] = below
    return found if item.repeats else found[:1]


def _calculated(
    items: Sequence[Item], nodes: list[dict[str, Any]], response: Response
) -> list[dict[str, Any]]:
    made = []
    for item in items:
        own = [one for one in nodes if one.get("linkId") == item.link_id]
        if item.calculated is not None:
            values = response.value_of(item.calculated, response.tree)
            answers = [one for value in values if (one := fitting(item, value)) is not None]
            if answers:
                made.append(_node(item) | {"answer": answers})
            continue
        for one in own:
            changed = dict(one)
            if "item" in one:
                changed["item"] = _calculated(item.items, one["item"], response)
            if "answer" in one and item.items:
                changed["answer"] = [
                    {**answer, "item": _calculated(item.items, answer["item"], response)}
                    if "item" in answer
                    else answer
                    for answer in one["answer"]
                ]
            made.append(changed)
        if not own and item.type == "group" and not item.repeats:
            made += _group(item, _calculated(item.items, [], response))
    return made


def _asked(nodes: list[dict[str, Any]], response: Response, place: Place) -> list[dict[str, Any]]:
    kept = []
    for item in place.items:
        if not response.is_enabled(item, place):
            continue
        unders = iter(response.below(item, place))
        for at, _ in place.of(item):
            one = dict(nodes[at])
            if item.items and item.is_question:
                answers = []
                for answer in one.get("answer", ()):
                    below = _asked(answer.get("item", []), response, next(unders))
                    bare = {name: value for name, value in answer.items() if name != "item"}
                    answers.append(bare | ({"item": below} if below else {}))
                one["answer"] = answers
            elif item.items:
                below = _asked(one.get("item", []), response, next(unders))
                if not below:
                    continue
                one["item"] = below
            kept.append(one)
    return kept
