"""Answers are held against their form, and each fault is said at its item."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from fhir_portal.fhir.json import parse
from fhir_portal.resources.forms.known import form_of_tree
from fhir_portal.resources.forms.questionnaire import Questionnaire
from fhir_portal.resources.forms.questionnaire_response import Rules, faults_of
from fhir_portal.resources.forms.schema import schema_of
from fhir_portal.resources.validation import validate
from tests.builders import START, Json
from tests.resources.forms.twenty import (
    QUESTIONNAIRES,
    RIGHT,
    WRONG,
    YES,
    Wrong,
    answer,
    expression,
    ext,
    form,
    group,
    item,
    response,
    text,
    when,
)

STRICT = Rules(now=START, strict=True, signer="Patient/ada")
SHAPE = Rules(now=START, strict=False)


async def form_in(tree: Json) -> Questionnaire:
    # No value set of these forms is looked up, so that nothing is asked of a reader.
    nobody: Any = None
    if any("answerValueSet" in one for one in tree["item"]):
        nobody = _Nothing()
    return await form_of_tree(nobody, "derm", json.dumps(tree).encode())


class _Nothing:
    async def search(self, *_: Any, **__: Any) -> Any:
        class Page:
            rows = ()

        return Page


def read(tree: Json) -> Json:
    return parse(json.dumps(tree).encode())


def test_there_are_twenty_forms_and_sixty_wrong_answers() -> None:
    assert len(QUESTIONNAIRES) == 20
    assert len(WRONG) >= 60
    assert {one["questionnaire"].rpartition("/")[2] for one in RIGHT} == set(QUESTIONNAIRES)


@pytest.mark.parametrize("name", sorted(QUESTIONNAIRES))
async def test_each_form_is_fhir_and_can_be_filled_in(name: str) -> None:
    tree = QUESTIONNAIRES[name]
    assert validate(read(tree), json.dumps(tree).encode()) == []
    found = await form_in(tree)
    assert found.faults == ()
    jsonschema.Draft202012Validator.check_schema(schema_of(found))


@pytest.mark.parametrize("at", range(len(RIGHT)))
async def test_right_answers_are_taken(at: int) -> None:
    tree = RIGHT[at]
    assert validate(read(tree), json.dumps(tree).encode()) == []
    found = await form_in(QUESTIONNAIRES[tree["questionnaire"].rpartition("/")[2]])
    assert faults_of(found, read(tree), STRICT) == []


@pytest.mark.parametrize("wrong", WRONG, ids=lambda one: one.name)
async def test_wrong_answers_are_refused_at_their_item(wrong: Wrong) -> None:
    found = await form_in(QUESTIONNAIRES[wrong.form])
    tree = response(wrong.form, *wrong.items, **wrong.more or {})  # type: ignore[arg-type]
    issues = faults_of(found, read(tree), STRICT)
    assert [one.expression for one in issues] == [wrong.where]
    assert issues[0].diagnostics.startswith(f"{wrong.link_id}: " if wrong.link_id else "")
    assert wrong.says in issues[0].diagnostics


@pytest.mark.parametrize("wrong", WRONG, ids=lambda one: one.name)
async def test_what_is_missing_is_not_missed_before_it_is_handed_in(wrong: Wrong) -> None:
    found = await form_in(QUESTIONNAIRES[wrong.form])
    tree = response(wrong.form, *wrong.items, status="in-progress", **wrong.more or {})  # type: ignore[arg-type]
    issues = faults_of(found, read(tree), STRICT)
    only_when_done = {
        "has to be",
        "at least 2",
        "signed",
        "Patient/ada",
        "calculates",
        "end comes",
        "filled",
    }
    if any(words in wrong.says for words in only_when_done):
        assert issues == []
    else:
        assert [one.expression for one in issues] == [wrong.where]


async def test_of_an_ehrs_own_answers_only_the_shape_is_looked_at() -> None:
    shape = {
        *("no such item", "valueDecimal", "valueCoding", "valueUri", "into the item", "at the top"),
        *("stands in the answer", "more than once", "over 3 times", "takes no answer"),
    }
    for wrong in WRONG:
        found = await form_in(QUESTIONNAIRES[wrong.form])
        issues = faults_of(found, read(response(wrong.form, *wrong.items)), SHAPE)  # type: ignore[arg-type]
        is_shape = any(words in wrong.says for words in shape)
        assert bool(issues) is is_shape, wrong.name


async def test_no_words_quote_an_answer() -> None:
    found = await form_in(QUESTIONNAIRES["contact"])
    tree = response(
        "contact", answer("name", text("confidential" * 9)), answer("zip", text("secret"))
    )
    issues = faults_of(found, read(tree), STRICT)
    assert len(issues) == 2
    assert not any("secret" in one.diagnostics or "confid" in one.diagnostics for one in issues)


async def test_a_question_that_depends_on_itself_is_not_asked() -> None:
    tree = form(
        "circle",
        item("a", "boolean", enableWhen=[when("b", "=", answerBoolean=True)]),
        item("b", "boolean", enableWhen=[when("a", "=", answerBoolean=True)]),
    )
    found = await form_in(tree)
    issues = faults_of(found, read(response("circle", answer("a", YES), answer("b", YES))), STRICT)
    assert len(issues) == 2


async def test_a_condition_looks_at_the_nearest_occurrence() -> None:
    tree = form(
        "rows",
        item(
            "row",
            "group",
            item("has", "boolean"),
            item(
                "more", "string", required=True, enableWhen=[when("has", "=", answerBoolean=True)]
            ),
            repeats=True,
        ),
    )
    found = await form_in(tree)
    no = group("row", answer("has", {"valueBoolean": False}))
    yes = group("row", answer("has", YES))
    issues = faults_of(found, read(response("rows", no, yes)), STRICT)
    assert [one.expression for one in issues] == [
        "QuestionnaireResponse.item[1].item.where(linkId='more')"
    ]


def regex(pattern: str) -> Json:
    return {"extension": [ext("regex", valueString=pattern)]}


def computed(name: str, text: str, language: str = "text/fhirpath") -> Json:
    made = expression(name, text)
    made["valueExpression"]["language"] = language
    return {"extension": [made]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]}, "modified"),
        (regex("(a+)+"), "repeats"),
        (regex("(a|a)*b"), "repeats"),
        (regex(r"(a)\1"), "refers back"),
        (regex("(?=a)b"), "looks around"),
        (regex("(a"), "regular"),
        (computed("calculatedExpression", "'a'.matches('(a+)+b')"), "matches"),
        (computed("calculatedExpression", "x", "text/cql"), "not FHIRPath"),
        (computed("initialExpression", "a +* b"), "not FHIRPath"),
        ({"type": "choice", "answerValueSet": "http://x.example/unknown"}, "not known"),
        ({"type": "choice"}, "no answers to choose"),
        ({"enableWhen": [when("gone", "=", answerBoolean=True)]}, "not there"),
    ],
)
async def test_what_is_not_understood_is_a_fault_of_its_item(change: Json, says: str) -> None:
    tree = form("odd", item("a", "string") | change)
    (fault,) = (await form_in(tree)).faults
    assert fault[0] == "a"
    assert says in fault[1]
