"""Whether a QuestionnaireResponse answers its Questionnaire: each fault at its item.

The shape and the values are held against the form's JSON Schema (`schema`), what depends on other
answers against `enabled`. Source: FHIR R4 QuestionnaireResponse, SDC 3.0 (rules for filling).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.fhir.errors import Issue
from fhir_portal.resources.forms.enabled import Place, Response, compared, quoted
from fhir_portal.resources.forms.fhirpath import Effort, plain
from fhir_portal.resources.forms.questionnaire import CORE, Item, Questionnaire, option_key
from fhir_portal.resources.forms.schema import STRUCTURE, errors_of, validator_of, words

SIGNATURE: Final = f"{CORE}questionnaireresponse-signature"
DONE: Final = frozenset({"completed", "amended"})
"""The statuses in which everything that is asked for has to be there."""
_MOST_ISSUES: Final = 100
MOST_ITEMS: Final = 2000
"""Items and answers of a response that is looked at; an EHR's larger one is taken as it is."""
_MOST_RULES: Final = 300
"""Rules of single items that are looked at: each may look at all answers."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How strictly a response is looked at, and when (seconds since 1970 UTC).

    Of an EHR's own responses only the shape is: it may know more than the form. ``signer`` is the
    reference that a signature has to name.
    """

    now: float
    strict: bool
    signer: str | None = None


def faults_of(form: Questionnaire, tree: Mapping[str, Any], rules: Rules) -> list[Issue]:
    """Return what is wrong with a response that was validated as FHIR; nothing when all is well.

    Each issue names the linkId in its words and the place as FHIRPath; no words quote an answer.
    Raises `fhir_portal.resources.forms.fhirpath.TooCostly`.
    """
    if _size(tree) > MOST_ITEMS:
        text = f"answers to a form that is known here have at most {MOST_ITEMS} items"
        return [Issue("too-long", text, f"{_TOP}.item")] if rules.strict else []
    answers = plain(tree)
    effort = Effort()
    found = list(_by_schema(form, answers, effort if rules.strict else None))
    if not found:  # places and kinds are right: only then do the answers mean anything
        response = Response(form, answers, now=rules.now, effort=effort)
        found += _by_place(response, response.top)
        if rules.strict:
            is_done = tree.get("status") in DONE
            found += _by_answers(response, response.top, is_done=is_done)
            if is_done and not found:
                found += _by_expressions(response)
                found += _by_signature(form, answers, rules.signer)
    return found[:_MOST_ISSUES]


def _by_schema(
    form: Questionnaire, answers: Mapping[str, Any], effort: Effort | None
) -> Iterator[Issue]:
    """What the schema says; without effort, of the structure alone."""
    errors = errors_of(_validator(form), answers.get("item", []), effort)
    misplaced = [tuple(one.absolute_path) for one in errors if one.validator in STRUCTURE]
    for error in errors:
        steps: Sequence[Any] = list(error.absolute_path)
        if error.validator not in STRUCTURE and (effort is None or tuple(steps) in misplaced):
            continue
        link_id, path = _place_of(answers, steps)
        text = words(error)
        if error.validator == "byLinkId":
            text = _misplaced(form, link_id)
        yield _issue("structure" if error.validator in STRUCTURE else "value", link_id, text, path)


def _by_place(response: Response, place: Place) -> Iterator[Issue]:
    """How often an item stands in a place, and whether it is asked there."""
    for item in place.items:
        nodes = place.of(item)
        if not nodes:
            continue
        most = item.most if item.type == "group" else 1
        if most is not None and len(nodes) > most:
            text = "it is there more than once" if most == 1 else f"it is there over {most} times"
            yield _issue("structure", item.link_id, text, f"{place.path}.item[{nodes[most][0]}]")
        for under in response.below(item, place):
            yield from _by_place(response, under)


def _by_answers(response: Response, place: Place, *, is_done: bool) -> Iterator[Issue]:
    for item in place.items:
        nodes = place.of(item)
        if not response.is_enabled(item, place):
            for at, node in nodes:
                if _holds_answers(node):
                    path = f"{place.path}.item[{at}]{'.answer' if 'answer' in node else ''}"
                    text = "it is not asked, because of other answers; leave it out"
                    yield _issue("business-rule", item.link_id, text, path)
            continue
        if is_done and not item.hidden:
            yield from _missing(response, item, place)
        yield from _kept(item, place)
        for under in response.below(item, place):
            yield from _by_answers(response, under, is_done=is_done)


def _missing(response: Response, item: Item, place: Place) -> Iterator[Issue]:
    if item.least == 0 or item.type == "display":
        return
    where = f"{place.path}.item.where(linkId='{quoted(item.link_id)}')"
    if item.type == "group":
        count = len(place.of(item))
        if item.least > max(count, 1) or not response.has_answers(item, place):
            text = "it has to be filled in"
            if item.least > 1:
                text = f"it has to be filled in at least {item.least} times"
            if not _asks_for_more(item):
                yield _issue("required", item.link_id, text, where)
        return
    if len(response.answers(item, place)) < item.least:
        text = "it has to be answered"
        if item.least > 1:
            text = f"it needs at least {item.least} answers"
        yield _issue("required", item.link_id, text, where)


def _asks_for_more(item: Item) -> bool:
    """Whether a required question inside says already what is missing."""
    return item.least <= 1 and any(
        one.least and one.is_question and not one.conditions for one in item.items
    )


def _kept(item: Item, place: Place) -> Iterator[Issue]:
    """An answer that the form gives itself and nobody may change stays what it is."""
    if not item.read_only or not item.initial or item.initial_expression or item.calculated:
        return
    wanted = sorted(option_key(m, plain(v)) for one in item.initial for m, v in one.items())
    for at, node in place.of(item):
        given = sorted(
            option_key(m, v)
            for one in node.get("answer", ())
            for m, v in one.items()
            if m.startswith("value")
        )
        if given != wanted:
            text = "its answer is given by the form and may not be changed"
            yield _issue("business-rule", item.link_id, text, f"{place.path}.item[{at}].answer")


def _by_expressions(response: Response) -> Iterator[Issue]:
    looked_at = 0
    for text, human in response.form.constraints:
        if response.value_of(text, response.tree)[:1] == [False]:
            yield Issue("invariant", human or "the answers break a rule of the form", _TOP)
    for item, place in response.asked():
        for at, node in place.of(item):
            path = f"{place.path}.item[{at}]"
            for text, human in item.constraints:
                looked_at += 1
                if looked_at > _MOST_RULES:
                    yield _issue("too-costly", item.link_id, "it is there too often", path)
                    return
                if response.value_of(text, node)[:1] == [False]:
                    said = human or "it breaks a rule of the form"
                    yield _issue("invariant", item.link_id, said, path)
            if item.calculated is not None and "answer" in node:
                values = response.value_of(item.calculated, response.tree)
                given = [v for one in node["answer"] for m, v in one.items() if m[:5] == "value"]
                if not _agree(item, given, values):
                    said = "it is not what the form calculates from the other answers"
                    yield _issue("business-rule", item.link_id, said, f"{path}.answer")


def _agree(item: Item, given: Sequence[Any], values: Sequence[Any]) -> bool:
    if len(given) != len(values):
        return False
    member = item.members[0]
    for one, other in zip(given, values, strict=True):
        if isinstance(one, Mapping) and not isinstance(other, Mapping):
            return True  # a Quantity of which a number is calculated, say: nothing to hold it to
        if option_key(member, one) == option_key(member, other):
            continue
        try:
            order = compared(member, one, other)
        except ArithmeticError:
            return False
        if order != 0:
            return False
    return True


def _by_signature(
    form: Questionnaire, answers: Mapping[str, Any], signer: str | None
) -> Iterator[Issue]:
    if not form.signature and not any(one.signature for one in form.every()):
        return
    who = [
        one.get("valueSignature", {}).get("who", {}).get("reference")
        for one in answers.get("extension", ())
        if one.get("url") == SIGNATURE
    ]
    where = f"{_TOP}.extension('{SIGNATURE}')"
    if not who:
        yield Issue("required", "the form has to be signed by whoever fills it in", where)
    elif signer is not None and any(one != signer for one in who):
        yield Issue("business-rule", f"the signature has to be that of {signer}", where)


_TOP: Final = "QuestionnaireResponse"


def _place_of(answers: Mapping[str, Any], steps: Sequence[Any]) -> tuple[str, str]:
    """Return the linkId and the FHIRPath of what a path of the schema leads to."""
    node: Any = answers.get("item", [])
    path, link_id = f"{_TOP}.item", ""
    for step in steps:
        node = node[step]
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.startswith("value"):
            path += ".value"
        else:
            path += f".{step}"
        if isinstance(node, Mapping) and "linkId" in node:
            link_id = str(node["linkId"])
    return link_id, path


def _misplaced(form: Questionnaire, link_id: str) -> str:
    known = form.by_link.get(link_id)
    if known is None:
        return "the form has no such item"
    if known.parent:
        return f"it belongs into the item {known.parent}"
    return "it belongs at the top of the form"


def _holds_answers(node: Mapping[str, Any]) -> bool:
    return bool(node.get("answer")) or any(_holds_answers(one) for one in node.get("item", ()))


def _size(tree: Mapping[str, Any]) -> int:
    """Return how many items and answers there are, no matter in which order."""
    waiting, count = [tree], 0
    while waiting:
        node = waiting.pop()
        below = [*(node.get("item") or ()), *(node.get("answer") or ())]
        count += len(below)
        waiting += below
    return count


def _issue(code: str, link_id: str, text: str, path: str) -> Issue:
    return Issue(code, f"{link_id}: {text}" if link_id else text, path)


@functools.lru_cache(maxsize=200)
def _validator(form: Questionnaire) -> Any:
    return validator_of(form)
