"""``Questionnaire/$next-question``: a form asked one question at a time (SDC, adaptive forms).

Which one comes next is decided by the practice's form alone: by its order and its conditions, given
the answers so far. Nothing is stored; at the end the answers are those of the whole form.
Source: SDC 3.0 (adaptive forms: ``questionnaireAdaptive``, ``derivedFrom``, ``$next-question``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Issue, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.populate import Looking, subject_of
from fhir_portal.resources.forms.answering import not_filled_in_here
from fhir_portal.resources.forms.enabled import Place, Response, quoted
from fhir_portal.resources.forms.fhirpath import plain
from fhir_portal.resources.forms.known import form_of, rank
from fhir_portal.resources.forms.populate import asked_only, calculated
from fhir_portal.resources.forms.questionnaire import CORE, SDC, Item, Questionnaire
from fhir_portal.resources.forms.questionnaire_response import Rules, faults_of
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import Row
from fhir_portal.search.request import parse_search
from fhir_portal.search.values import escape

ADAPTIVE: Final = f"{SDC}questionnaireAdaptive"
_PARAMETER: Final = "questionnaire-response"
_ID: Final = "asked-so-far"
_LEFT_OUT: Final = frozenset({"item", "enableWhen", "enableBehavior", "extension", "definition"})
"""Of an item: what decides when it is asked, and what becomes of its answer, is the practice's."""
_MOST: Final = 50


async def next_question(call: Call) -> FhirResponse:
    """Return the answers with the questions asked so far and the next one; without one, at the end.

    Raises:
        NotFound: no such form or patient, or none that the caller may know about.
        Unprocessable: an answer is wrong or missing, or the form cannot be filled in here.
    """
    tree = call.arguments.one(_PARAMETER)
    if not isinstance(tree, Mapping) or tree.get("resourceType") != "QuestionnaireResponse":
        message = "give the QuestionnaireResponse so far"
        raise Unprocessable(message, expression=parameter(_PARAMETER))
    so_far = _so_far(tree)
    canonical = _canonical(tree, so_far)
    row = await _visible(call, canonical)
    form = await form_of(call.server.reader, call.auth.practice, row)
    if form.faults:
        raise Unprocessable(issues=not_filled_in_here(form))
    patient = subject_of(call, tree.get("subject"))
    looking = await Looking.at(call, form, patient)
    now = call.server.clock()
    given = [dict(one) for one in tree.get("item") or ()]
    _require_right(form, canonical, tree, Rules(now=now, strict=False))
    items = asked_only(form, calculated(form, given, now=now), now=now)
    bare = {name: value for name, value in tree.items() if name != "item"}
    _require_right(
        form, canonical, {**bare, **({"item": items} if items else {})}, Rules(now=now, strict=True)
    )
    answers = {"resourceType": "QuestionnaireResponse", "item": _with_groups(form.items, items)}
    variables = plain(await looking.variables())
    response = Response(form, plain(answers), now=now, variables=variables)
    shown = {str(one["linkId"]) for one in _walk((so_far or {}).get("item") or ())}
    _require_answered(response, shown)
    listed, is_over = _next(response, shown)
    kept = {
        name: tree[name] for name in ("subject", "author", "source", "authored") if name in tree
    }
    made: dict[str, Any] = {
        "resourceType": "QuestionnaireResponse",
        **({} if is_over else {"contained": [_asked(form, canonical, listed)]}),
        "questionnaire": form.canonical if is_over else f"#{_ID}",
        "status": "completed" if is_over else "in-progress",
        **kept,
        **({"item": items} if items else {}),
    }
    return call.answer({"return": made}, row)


def _so_far(tree: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the contained Questionnaire, which holds what was asked; ``None`` at the beginning."""
    name = str(tree.get("questionnaire", ""))
    if not name.startswith("#"):
        return None
    for one in tree.get("contained") or ():
        if one.get("resourceType") == "Questionnaire" and f"#{one.get('id')}" == name:
            return dict(one)
    message = "it contains no such Questionnaire"
    raise Unprocessable(message, expression="QuestionnaireResponse.questionnaire")


def _canonical(tree: Mapping[str, Any], so_far: Mapping[str, Any] | None) -> str:
    named = [str(tree.get("questionnaire", ""))]
    if so_far is not None:
        named = [str(one) for one in so_far.get("derivedFrom") or ()]
    if len(named) != 1 or not named[0]:
        message = "say which form: by its canonical, or by derivedFrom of the contained one"
        raise Unprocessable(message, expression="QuestionnaireResponse.questionnaire")
    return named[0]


async def _visible(call: Call, canonical: str) -> Row:
    """Return the form that a canonical names, of those that the caller may see."""
    url, _, version = canonical.partition("|")
    query = [("url", escape(url)), ("_count", str(_MOST))]
    if version:
        query.append(("version", escape(version)))
    asked = parse_search("Questionnaire", query, base=call.server.base)
    page = await call.server.reader.search(asked, call.visible)
    rows = checked(page.rows, call.visible)
    if not rows:
        message = "no such form is known here"
        raise NotFound(message)
    return max(rows, key=rank)


def _require_right(
    form: Questionnaire, canonical: str, tree: Mapping[str, Any], rules: Rules
) -> None:
    begun = {**tree, "questionnaire": canonical, "status": "in-progress"}
    issues = faults_of(form, json.parse(json.dumps(begun)), rules)
    if issues:
        raise Unprocessable(issues=issues)


def _with_groups(
    items: Sequence[Item], nodes: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return answers with every group there once at least, so that what is in it can be asked."""
    made = list[Mapping[str, Any]]()
    for item in items:
        own = [one for one in nodes if one.get("linkId") == item.link_id]
        if item.type == "group":
            own = own or [{"linkId": item.link_id}]
            made += [{**one, "item": _with_groups(item.items, one.get("item", ()))} for one in own]
        else:
            made += own
    return made


def _require_answered(response: Response, shown: set[str]) -> None:
    """Refuse to go on while a question that was asked, and needs an answer, has none."""
    issues = [
        Issue(
            "required",
            f"{item.link_id}: it has to be answered",
            f"{place.path}.item.where(linkId='{quoted(item.link_id)}')",
        )
        for item, place in response.asked()
        if item.link_id in shown
        and item.is_question
        and not item.hidden
        and not _is_left_empty(response, place)
        and len(response.answers(item, place)) < item.least
    ]
    if issues:
        raise Unprocessable(issues=issues)


def _is_left_empty(response: Response, place: Place) -> bool:
    """Whether a place is in a group that may be there any number of times, and has no answer."""
    there: Place | None = place
    while there is not None and there.owner is not None:
        owner, at = there.owner, there
        if owner.type == "group" and owner.repeats and not owner.least:
            return not any(response.has_answers(one, at) for one in at.items)
        there = there.parent
    return False


def _next(response: Response, shown: set[str]) -> tuple[set[str], bool]:
    """Return what is shown now, with the next question; whether there was none."""
    asked = [item for item, _ in response.asked()]
    found = shown & {one.link_id for one in asked}
    for item in asked:
        if item.link_id in found:
            continue
        found.add(item.link_id)
        if _waits_for_somebody(item):
            return found, False
    return found, True


def _waits_for_somebody(item: Item) -> bool:
    return item.is_question and not (item.hidden or item.read_only or item.calculated)


def _asked(form: Questionnaire, canonical: str, shown: set[str]) -> dict[str, Any]:
    """Return the Questionnaire of what was asked so far, as it is contained in the answers."""
    return {
        "resourceType": "Questionnaire",
        "id": _ID,
        "extension": [{"url": ADAPTIVE, "valueBoolean": True}],
        "derivedFrom": [canonical],
        **({"title": form.title} if form.title else {}),
        "status": "active",
        "subjectType": ["Patient"],
        "item": _of(form, form.tree.get("item") or (), shown),
    }


def _of(
    form: Questionnaire, items: Sequence[Mapping[str, Any]], shown: set[str]
) -> list[dict[str, Any]]:
    made = []
    for one in items:
        if one["linkId"] not in shown:
            continue
        bare = {name: value for name, value in one.items() if name not in _LEFT_OUT}
        kept = [part for part in one.get("extension") or () if part["url"].startswith(CORE)]
        below = _of(form, one.get("item") or (), shown)
        if one["type"] == "group" and not below:
            continue  # nothing of it is asked of anybody
        if str(one.get("answerValueSet", "")).startswith("#"):
            # What is contained contains nothing: the answers stand in the question itself.
            del bare["answerValueSet"]
            options = form.by_link[one["linkId"]].options or ()
            bare["answerOption"] = [{option.member: option.value} for option in options]
        made.append(
            bare | ({"extension": kept} if kept else {}) | ({"item": below} if below else {})
        )
    return made


def _walk(items: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for one in items:
        yield one
        yield from _walk(one.get("item") or ())
